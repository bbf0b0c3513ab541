"""What a queue policy may not propose: the plan ends there, the worker says why, and nothing of it is in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest
from worker_rig import Rig, jobspec

from fluxkv.journal.claims import Claim
from fluxkv.journal.job import RUN
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Decision, Pending, Place, Wait
from fluxkv.schedulers.resources import Pool

ONE = Claim(0, 1, 0, 0, 1)


def raises(entry: Pending) -> Iterator[Decision]:
    raise KeyError("of a plug-in")


WRONG: dict[str, tuple[Callable[[Pending], Iterable[Decision]], str]] = {
    "no node": (lambda entry: [Place(entry.job, (ONE._replace(rank=9),))], "rank 9, which is not there"),
    "in use": (lambda entry: [Place(entry.job, (ONE,))], "what is not free on rank 0"),
    "not its own": (lambda entry: [Place(entry.job, (ONE._replace(rank=1, cores=8),))], "what is not free on rank 1"),
    "too much": (lambda entry: [Place(entry.job, (ONE._replace(rank=1, cores=3),))], "2 cores and 0 GPUs for 1 slots"),
    "nothing": (lambda entry: [Place(entry.job, ())], "nothing"),
    "too little": (lambda entry: [Place(entry.job, (ONE._replace(rank=1, slots=0, cores=0),))], "0 of 1 slots"),
    "one node twice": (lambda entry: [Place(entry.job, (ONE._replace(rank=1),) * 2)], "twice on one node"),
    "elsewhere": (lambda entry: [Place(entry.job, (ONE._replace(rank=1),))], "rank 1, which its constraint"),
    "no job": (lambda entry: [Place(77, (ONE._replace(rank=1),))], "job 77, which is not in line"),
    "what is no id": (lambda entry: [Place("x", (ONE,))], "job 'x', which is not in line"),  # type: ignore[arg-type]
    "twice": (lambda entry: [Place(entry.job, (ONE._replace(rank=1),))] * 2, "has a place already"),
    "reason of nobody": (lambda entry: [Wait(77, "resources", "", "")], "job 77, which is not there"),
    "an error": (raises, "KeyError: 'of a plug-in'"),
}


class Wrong(Fcfs):
    """Does what it is told to, once."""

    __slots__ = ("make",)
    make: Callable[[Pending], Iterable[Decision]] | None

    def __init__(self) -> None:
        super().__init__()
        self.make = None

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
        if self.make is None:
            yield from super().plan(pending, pool, now)
            return
        for entry in pending:
            make, self.make = self.make, None
            yield from make(entry)


@pytest.mark.parametrize("name", WRONG)
def test_what_can_not_be_is_not_placed(name: str) -> None:
    rig = Rig()
    holder = rig.submit()
    assert rig.job(holder).claims == (ONE,)
    policy = rig.worker.planner.policies.own = Wrong()
    policy.make, why = WRONG[name]
    said = rig.listen()
    spec = jobspec()
    if name == "elsewhere":
        spec["attributes"]["system"]["constraints"] = {"ranks": ["0"]}
    id = rig.submit(spec)
    assert len(said) == 1
    assert said[0].startswith("the queue policy's plan was broken off: ")
    assert why in said[0]
    rig.turn(seconds=1.1)  # it is asked again by itself
    assert rig.job(id).state == RUN  # for "twice": what came before the mistake stands
    assert rig.job(id).claims == ((ONE._replace(rank=1),) if name == "twice" else (ONE._replace(cores=2),))
    assert rig.state.digest() == rig.journal.at().digest()
