"""What launchers of an instance that is gone left on this host and no agent of it could say any more: ends that are facts.

Reads records only. Whatever was killed with its instance is no such fact: that a task died by a signal that nobody of the instance
had sent says nothing about its job.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..journal.ids import encode
from ..kvs.errors import FluxkvError
from .attempts import split_key
from .facts import Rows
from .spool import Record

if TYPE_CHECKING:
    from ..journal.state import State

BLOWS = (signal.SIGTERM, signal.SIGKILL)


def roots(uri: str) -> list[str]:
    """State directories on this host that may be of instances around the one at a URI ("": unknown), also of when these were other
    jobs'."""
    from .paths import StateDir, near

    found = [one.path for one in near(uri)] if uri else []
    for path in found:
        if os.path.basename(folder := os.path.dirname(path)) == "ns":
            found.append(os.path.dirname(folder))
    for path in [*found]:
        with suppress(FluxkvError):
            found += StateDir(path).read().get("before", ())
    return list(dict.fromkeys(found))


def folders_of(roots: Iterable[str], *jobs: int) -> list[str]:
    """State directories on this host of an instance that is a job in one that is a job ..., of all its attempts and nodes: by the
    names that `child.directory` gives them. roots: state directories of the instance around the first job."""
    found = list(roots)
    for job in jobs:
        found = [one for folder in found for one in inside(os.path.join(folder, "ns"), job)]
    return found


def inside(folder: str, job: int) -> list[str]:
    """Those of a job among the directories of a folder."""
    name = f"{encode(job, 'f58plain')}-"
    with suppress(OSError):
        return [os.path.join(folder, one) for one in sorted(os.listdir(folder)) if one.startswith(name)]
    return []


def reports(state: State, folders: Iterable[str]) -> list[list[Any]]:
    """Report events, as the agents would have made them, about what the state knows as current attempts. folders: of state
    directories, from which a spool of another boot says nothing."""
    found: dict[int, Rows] = {}
    for folder in sorted(folders):
        try:
            record = Record(os.path.join(folder, "spool"))
        except (FluxkvError, OSError):
            continue
        for key, event in record.over.items():
            place = _current(state, key)
            if place is None or (event[2] & 0x7F in BLOWS and not event[6] and not event[7]):
                continue
            heir = split_key(event[7])[0] if event[7] else 0
            row = [place[0], place[1], event[3], event[4], event[2], event[6], heir]
            found.setdefault(place[2], Rows()).over.append(row)
        for key, lost in record.lost.items():
            place = _current(state, key)
            if place is not None and lost.pids:
                found.setdefault(place[2], Rows()).start.append([place[0], place[1], lost.t_start])
    now = time.time()
    return [["report", f"node/{rank}", now, found[rank].context(rank)] for rank in sorted(found)]


def _current(state: State, key: str) -> tuple[int, int, int] | None:
    """(job, version, rank) of a job's attempt that is current; None for any other, and for scripts."""
    try:
        id, version, rank = split_key(key)
    except ValueError:
        return None
    job = state.jobs.get(id)
    known = job is not None and key == f"{job.key}.{rank}" and (job.holds or job.granted is not None)
    return (id, version, rank) if known else None
