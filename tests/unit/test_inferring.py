"""Histories with holes: what a lost entry must have said is inferred, and nobody whose own entries are there suffers by it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest
from sample_journal import sample
from worker_rig import Rig

from fluxkv.journal.inferring import NOTE, Said, infer
from fluxkv.journal.job import INACTIVE, Result, job_value
from fluxkv.journal.restoring import lost_entry, without_digest
from fluxkv.journal.segment import header_time
from fluxkv.journal.state import State
from fluxkv.journal.wire import read_commit, well_formed
from fluxkv.kvs.port import Entry


def salvaged(entries: Sequence[Entry], holes: Collection[int], said: Said) -> Iterator[Entry]:
    """The history without these, as salvage makes it."""
    moment, epoch, behind = 0.0, entries[0].epoch, False
    for entry in entries:
        if entry.version in holes:
            behind = True
            yield lost_entry(entry.version, epoch, moment, "nowhere", said.get(entry.version, ()))
            continue
        epoch, moment = entry.epoch, header_time(entry)
        yield without_digest(entry) if behind else entry


def fold(entries: Iterator[Entry] | Sequence[Entry]) -> State:
    """The state; nobody holds what another holds at any version, counted anew."""
    state = State()
    for entry in entries:
        state.apply(read_commit(entry))
        used: dict[int, int] = {}
        for job in state.jobs.values():
            for claim in job.claims if job.holds else ():
                assert not used.get(claim.rank, 0) & claim.cores, entry.version
                used[claim.rank] = used.get(claim.rank, 0) | claim.cores
        assert {rank: node.used_cores for rank, node in state.nodes.items() if node.used_cores} == used
    return state


def lose(entries: Sequence[Entry], *holes: int) -> tuple[Said, State, list[int | str]]:
    """What is inferred, the state with it, who is set aside."""
    said, aside = infer(lambda some: salvaged(entries, holes, some), holes)
    assert said.keys() <= set(holes)
    return said, fold(salvaged(entries, holes, said)), [one.subject for one in aside]


def check(entries: Sequence[Entry], original: State, *holes: int) -> bool:
    """Whoever has no entry among the lost ones is as it was. Whether anything had to be inferred for it."""
    said, state, aside = lose(entries, *holes)
    touched = {id for id, job in original.jobs.items() if set(holes) & set(job.commits)}
    touched |= {id for id, job in original.jobs.items() if job.seat_of in touched}  # whose seat it took is part of it
    assert {one for one in aside if isinstance(one, int)} <= touched, holes
    for id, job in original.jobs.items():
        if id not in touched:
            assert job_value(state.jobs[id]) == job_value(job), (holes, id)
    return bool(said)


def inventory(entries: Sequence[Entry]) -> int:
    """The entry that says which nodes there are: without it no core is known, and nothing implies which there were."""
    return max(e.version for e in entries if any(one[0] == "resource-define" for one in read_commit(e).events))


def crowded() -> Rig:
    """16 jobs on 2 cores, most placed ahead and begun on the seat of another; one runs from the first to the last."""
    rig = Rig(nodes=1)
    ids = [rig.submit(turn=False) for _ in range(16)]
    rig.turn()
    while running := [id for id in ids[1:] if rig.job(id).holds]:
        rig.started(*[id for id in running if not rig.job(id).started])
        ahead = [id for id in ids if rig.job(id).granted is not None]
        rig.over(running[0], following=ahead[0] if ahead else 0)
        rig.turn()
    rig.over(ids[0])
    rig.turn()
    assert all(rig.job(id).state == INACTIVE for id in ids)
    return rig


@pytest.mark.parametrize("which", ["sample", "crowded"])
def test_whose_entries_are_all_there_is_as_it_was(which: str) -> None:
    """Each entry lost in turn, then some pairs and threes."""
    journal = sample("inferring").journal if which == "sample" else crowded().journal
    entries, rng = journal.store.read(0, 10_000), random.Random(1)
    original, first = fold(entries), inventory(entries) + 1
    versions = range(first, len(entries))
    inferred = sum(check(entries, original, version) for version in versions)
    assert inferred > len(entries) // 10
    for size in (2, 2, 2, 3) * 5:
        check(entries, original, *sorted(rng.sample(versions, size)))


class Small:
    """A history by hand on one node: jobs of one core, a commit for each list of events."""

    def __init__(self) -> None:
        self.rig = Rig(nodes=1)
        self.job = self.rig.submit(turn=False)
        self.other = self.rig.submit(turn=False)
        for id in (self.job, self.other):
            self.say(id, "validate", "depend", ["priority", {"priority": 16}])

    def say(self, id: int, *events: Any) -> int:
        """The version of the commit."""
        claims = {"claims": [[0, "0", "", 0, 1]], "expiration": 0.0}
        known = {"alloc": claims, "finish": {"status": 0}, "release": {"ranks": "all", "final": True}}
        pairs = [(one, known.get(one)) if isinstance(one, str) else one for one in events]
        return self.rig.say(*[[name, id, self.rig.now, context] for name, context in pairs])

    @property
    def entries(self) -> list[Entry]:
        return self.rig.store.read(0, 1000)


ENDED = ("start", "finish", "release", "free", "clean")


def test_an_end_that_is_only_inferred_says_so() -> None:
    small = Small()
    small.say(small.job, "alloc")
    hole = small.say(small.job, *ENDED)
    small.say(small.other, "alloc", *ENDED)
    said, state, aside = lose(small.entries, hole)
    assert [(name, subject) for name, subject, *_ in said[hole]] == [
        (name, small.job) for name in ("exception", "release", "free", "clean")
    ]
    assert not aside
    job, other = state.jobs[small.job], state.jobs[small.other]
    assert (job.state, job.result, job.exception) == (INACTIVE, Result.FAILED, ["lost", NOTE])
    assert other.result == Result.COMPLETED
    (entry,) = [one for one in salvaged(small.entries, [hole], said) if one.version == hole]
    events = list(well_formed(read_commit(entry).events))
    assert [event[3].get("inferred") for event in events] == [None, True, True, True, True]


def test_how_it_ended_is_known_from_reports() -> None:
    """Where reports can be read, the lost commit of the worker that followed from them is what it was."""
    small = Small()
    attempt = small.say(small.job, "alloc")
    began = small.rig.now
    small.rig.report(0, over=[[small.job, attempt, began, began + 5.0, 256, "", 0]])
    hole = small.say(small.job, *ENDED)
    small.say(small.other, "alloc", *ENDED)
    said, state, aside = lose(small.entries, hole)
    assert [event[0] for event in said[hole]] == list(ENDED)
    assert not aside
    job = state.jobs[small.job]
    assert (job.result, job.status, job.t_run, job.t_finish) == (Result.FAILED, 256, began, began + 5.0)


def test_nothing_is_inferred_against_what_can_be_read() -> None:
    """The first job can be read to hold its core until after the other has got it: no hole makes that right."""
    small = Small()
    small.say(small.job, "alloc")
    hole = small.say(small.job, ["memo", {"a": 1}])
    small.say(small.other, "alloc", *ENDED)
    small.say(small.job, *ENDED)
    said, state, aside = lose(small.entries, hole)
    assert (said, aside) == ({}, [small.other])
    assert state.jobs[small.job].result == Result.COMPLETED


def test_an_attempt_after_a_lost_end_follows_a_requeue() -> None:
    small = Small()
    small.say(small.job, "alloc", "start")
    again = ["requeue", {"attempt": 2, "cause": "exit=1", "note": "", "retry": 1, "limit": 3}]
    hole = small.say(small.job, "finish", "release", "free", again, ["priority", {"priority": 16}])
    small.say(small.job, "alloc", *ENDED)
    said, state, aside = lose(small.entries, hole)
    assert [event[0] for event in said[hole]] == ["exception", "release", "free", "requeue", "priority"]
    assert not aside
    assert (state.jobs[small.job].number, state.jobs[small.job].result) == (2, Result.COMPLETED)


def test_steps_before_a_readable_start_are_inferred() -> None:
    small = Small()
    id = small.rig.submit(turn=False)
    hole = small.say(id, "validate", "depend", ["priority", {"priority": 16}])
    small.say(id, "alloc", *ENDED)
    said, state, aside = lose(small.entries, hole)
    assert [event[0] for event in said[hole]] == ["validate", "depend", "priority"]
    assert not aside
    assert state.jobs[id].result == Result.COMPLETED


def test_what_was_allocated_is_not_guessed() -> None:
    """Nothing says which cores it had: it is set aside, and named."""
    small = Small()
    hole = small.say(small.job, "alloc")
    small.say(small.job, *ENDED)
    small.say(small.other, "alloc", *ENDED)
    said, state, aside = lose(small.entries, hole)
    assert (said, aside) == ({}, [small.job])
    assert state.jobs[small.other].result == Result.COMPLETED
