"""A state directory made from a history: of an archive, an exported file, another instance, or what was salvaged.

It is made beside its place, by a server of its own, and renamed when all is in it: whoever dies on the way leaves no half of an
instance. It is a new instance (another uid, another epoch) with the old one's jobs, ids and settings; nothing is started.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..journal import decide, decide_cron
from ..journal.decide import Decision
from ..journal.job import RUN
from ..journal.log import Journal
from ..journal.restoring import Blobs, Restoring
from ..journal.state import State
from ..journal.wire import Commit, read_commit
from ..kvs.errors import Corrupt, Rejected
from ..kvs.port import Appended, Entry
from ..kvs.redis_store import open_store
from ..kvs.server import ServerHandle, socket_path, start_server
from .archiving import KEPT_SETTINGS
from .paths import StateDir
from .start import prepare

Facts = tuple[int, str, int]  # of a history: last version, digest of its state (hex), number of jobs


@dataclass(slots=True)
class Source:
    """A history to be had. where: how messages name it. blobs: contents by name. settings: how its instance was started.

    origin_ms: what its job ids count from, 0 if nobody knows. digest: of the state it must fold to, b"" if nobody knows.
    commit: what an entry says: nothing, if it cannot be read and was set aside.
    """

    where: str
    uid: str
    entries: Iterable[Entry]
    blobs: Blobs
    settings: dict[str, Any] = field(default_factory=dict)
    origin_ms: int = 0
    digest: bytes = b""
    commit: Callable[[Entry], Commit] = read_commit


@dataclass(slots=True)
class Made:
    """What came of it. version, digest: of the history, before the entry that says where it is from. lost_jobs: what ran."""

    path: str
    uri: str
    uid: str
    version: int
    digest: str
    jobs: int
    lost_jobs: list[int]


def check_free(to: str) -> str:
    """The absolute path of a directory that is to be made. Raises `Rejected` (code exists) if there is something."""
    path = os.path.abspath(os.path.expanduser(to))
    if os.path.lexists(path):
        raise Rejected(f"{path} is there already", code="exists", hint="name a directory that is not: it will be made")
    return path


def rebuild(to: str, source: Source, reason: str, *, forked: bool = False) -> Made:
    """Make the state directory. reason: what the journal says of it. forked: the instance this is from lives on, so
    nothing that runs there is ours, and nothing of ours is started before somebody says so."""
    path = check_free(to)
    scratch = StateDir(f"{path}.new-{os.getpid()}")
    handle: ServerHandle | None = None
    try:
        scratch.create()
        handle = start_server(scratch.path, "none")
        made = _fill(handle.url, path, source, reason, forked)
        running, settings, (version, digest, jobs) = made
        handle.stop()
        handle = None
        for name in ("server.lock", "kv.sock"):
            if os.path.exists(scratch.join(name)):
                os.unlink(scratch.join(name))
        prepare(scratch, settings)
        os.rename(scratch.path, path)
    finally:
        if handle is not None:
            handle.stop()
        shutil.rmtree(scratch.path, ignore_errors=True)
    return Made(path, settings["uri"], settings["uid"], version, digest, jobs, running)


def fold(source: Source) -> State:
    """What a history folds to, read whole. Raises `Corrupt` if that is not what it was made of."""
    state = State()
    for entry in source.entries:
        state.apply(source.commit(entry))
    check_digest(source, state)
    return state


def check_digest(source: Source, state: State) -> None:
    """Raise `Corrupt` for a history that folds to another state than it was made of."""
    if source.digest and state.digest() != source.digest:
        raise Corrupt(f"{source.where} does not fold to the state it was made of", code="digest", hint="fluxkv journal verify")


def _fill(url: str, path: str, source: Source, reason: str, forked: bool) -> tuple[list[int], dict[str, Any], Facts]:
    """Put the history into a new namespace: (jobs that ran, the settings of its state directory, its facts)."""
    store = open_store(url)
    try:
        durability = str(source.settings.get("durability", "strict"))
        replicas = str(source.settings.get("replicas", ""))
        meta = store.create(durability=durability, origin_ms=source.origin_ms, created=time.time(), replicas=replicas)
        restoring = Restoring(store, meta, source.blobs)
        for entry in source.entries:
            restoring.take(entry, source.commit(entry))
        if not restoring.state.version:
            raise Rejected(f"{source.where} has no entry to begin with", code="empty")
        check_digest(source, restoring.state)
        meta = restoring.finish()
        state = restoring.state
        facts = state.version, state.digest().hex(), state.retired + len(state.jobs)
        running = [job.id for job in state.active() if job.state & RUN]
        journal = Journal(store, by="cli")
        decision = new_branch(state, meta.epoch, reason, time.time(), forked)
        if not isinstance(journal.append(decision, state.version), Appended):
            raise Corrupt(f"{path}: the first entry of its own could not be written", code="protocol")
        journal.catch_up(state)
        journal.save_snapshot(state)
        kept: dict[str, Any] = {key: source.settings[key] for key in KEPT_SETTINGS if key in source.settings}
        settings = {**kept, "R": state.R, "detached": True, "uri": f"unix:{socket_path(path)}", "uid": meta.uid}
        return running, settings, facts
    finally:
        store.close()


def new_branch(state: State, epoch: int, reason: str, now: float, forked: bool) -> Decision:
    """The first commit of an instance that goes on from another's history."""
    decision = Decision([["epoch", "instance", now, {"old": state.epoch, "new": epoch, "reason": reason}]])
    if not forked:
        return decision
    for job in state.active():
        if job.state & RUN:
            note = f"it runs in the instance this one was made from ({reason})"
            context = {"type": "lost", "severity": 0, "note": note, "userid": state.instance.get("owner", 0)}
            decision.events.append(["exception", job.id, now, context])
            decision.bumps.append(f"job/{job.id}")
    queues = [decide.change_queue(name, "stop", reason, now) for name, queue in state.queues.items() if queue.started]
    cron = [decide_cron.stop(entry, reason, now) for entry in state.cron.entries.values() if entry.state == "active"]
    return decide.together([decision, *queues, *cron])


