"""A worker's groups of events as one commit, and which of them stay behind when its premises have moved. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..journal.catalogue import SCHEMA
from ..journal.derive import Group
from ..journal.state import State
from ..journal.wire import pack, pack_events
from ..kvs.port import Append, Meta


def assemble(groups: Iterable[Group], meta: Meta, state: State, producer: str, seq: int) -> Append:
    """The commit of these groups, decided against this state, with the state's digest."""
    events: list[list[Any]] = []
    since: dict[str, None] = {}
    bumps: dict[str, None] = {}
    clears: list[str] = []
    inbox: dict[int, list[Any]] = {}
    for group in groups:
        events.extend(group.events)
        since.update(dict.fromkeys(group.things))
        bumps.update(dict.fromkeys(group.bumps))
        clears.extend(group.clears)
        for rank, message in group.to_nodes:
            inbox.setdefault(rank, []).append(message)
    if not events:  # a commit has at least one event: say whose word it is
        events.append(["lively", "resource", state.time, {"idset": ",".join(map(str, sorted(inbox)))}])
    return Append(
        uid=meta.uid,
        epoch=meta.epoch,
        decided_at=state.version,
        payload=pack_events(events),
        producer=producer,
        seq=seq,
        since=tuple(since),
        bumps=tuple(bumps),
        clears=tuple(clear for clear in clears if clear not in bumps),
        inbox=tuple((f"node/{rank}", pack(messages)) for rank, messages in inbox.items()),
        extra=pack({"by": producer, "digest": state.digest(), "schema": SCHEMA}),
    )


def without_losers(groups: Iterable[Group], things: set[str]) -> tuple[list[Group], list[Group]]:
    """(kept, dropped) when these things have moved: with a group goes whoever would have taken what it frees, and
    whatever follows about its jobs."""
    lost_ranks: set[int] = set()
    lost_jobs: set[str] = set()
    kept: list[Group] = []
    dropped: list[Group] = []
    for group in groups:
        if (
            things.intersection(group.things)
            or lost_jobs.intersection(group.things)
            or lost_ranks.intersection(group.takes)
        ):
            dropped.append(group)
            lost_ranks.update(group.frees)
            lost_jobs.update(thing for thing in group.things if thing.startswith("job/"))
        else:
            kept.append(group)
    return kept, dropped
