"""Jobs, and queues, that a plan failed on: a policy or matcher that is a plug-in may raise, or propose what can not be. Pure.

Decides who is left out of the next plans, and for how long. A job on which a plan failed sits out, longer each time, and the
others are planned at once. Where plans fail on one job after the other it is the queue's policy that is to blame: the queue rests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..journal.ids import f58
from ..schedulers.policy import Code, Wait
from .turns import Feed

FIRST_S, MOST_S = 1.0, 600.0  # how long a job sits out, at first and at most
REST_S, LONGEST_S = 1.0, 60.0  # and a queue rests
MANY = 3  # jobs on which plans of one queue may fail in a row, before that is nobody's fault but its policy's
SAY_S = 600.0  # the same words are said again after that


class Failure(NamedTuple):
    """times: how often in a row; until: Unix seconds; why: in words."""

    times: int
    until: float
    why: str


class Bench:
    """now: when the plan that is made was begun. read: (job, queue) that a policy was given last."""

    def __init__(self) -> None:
        self.now = 0.0
        self.read: list[object] = [0, ""]
        self.jobs: dict[int, Failure] = {}
        self.queues: dict[str, Failure] = {}
        self._row: dict[str, int] = {}  # queue -> plans that failed since one did not
        self._said: dict[str, float] = {}
        self._planned: list[str] = []
        self._held_up: list[tuple[int, Failure]] = []  # the first job of each queue that rests

    def failed(self, why: str, now: float, job: int = 0) -> str:
        """A plan was broken off, at this job or else at the one read last. What is to be said, "" if it was said lately."""
        queue = str(self.read[1])
        job = job or (self.read[0] if isinstance(self.read[0], int) else 0)
        self._row[queue] = row = self._row.get(queue, 0) + 1
        if job and row <= MANY:
            before = self.jobs.get(job)
            times = before.times + 1 if before is not None else 1
            self.jobs[job] = Failure(times, now + min(MOST_S, FIRST_S * 2 ** (times - 1)), why)
            text = f"the queue policy's plan was broken off at job {f58(job)}, which sits out for a while: {why}"
        else:
            rest = min(LONGEST_S, REST_S * 2 ** min(row - MANY - 1, 10)) if row > MANY else REST_S
            self.queues[queue] = Failure(row, now + rest, why)
            text = f"the queue policy's plan was broken off at one job after the other, and queue {queue} rests: {why}"
        if now - self._said.get(text, -SAY_S) < SAY_S:
            return ""
        if len(self._said) > 256:
            self._said.clear()
        self._said[text] = now
        return text

    def went_well(self) -> None:
        """The plan came to its end."""
        for queue in self._planned:
            self._row.pop(queue, None)
            self.queues.pop(queue, None)

    def forget(self, job: int) -> None:
        """It is out of the line."""
        self.jobs.pop(job, None)

    def over(self, feeds: list[Feed]) -> list[Feed]:
        """The feeds that are planned now, without the jobs that sit out."""
        out = {job for job, failure in self.jobs.items() if failure.until > self.now}
        for feed in feeds:
            feed.out, feed.read = out, self.read
        found = [feed for feed in feeds if (rest := self.queues.get(feed.queue)) is None or rest.until <= self.now]
        self._planned = [feed.queue for feed in found]
        self._held_up = [(feed.key[2], self.queues[feed.queue]) for feed in feeds if feed not in found and feed.key[2]]
        self.read[:] = 0, self._planned[0] if found else ""
        return found

    def waits(self) -> Iterator[Wait]:
        """Why those that sit out wait, and the first of a queue that rests."""
        for job, failure in self.jobs.items():
            if failure.until > self.now:
                yield Wait(job, Code.FAULTY, f"no plan can be made with it: {failure.why}", "policy")
        for job, failure in self._held_up:
            if failure.until > self.now and job not in self.jobs:
                yield Wait(job, Code.FAULTY, f"no plan of its queue can be made: {failure.why}", "policy")

    def due(self, now: float) -> float:
        """When somebody is to be looked at again, 0.0 if nobody is. Whose time is over waits for the next plan: while none is made,
        as for a while after an adoption, there is nothing to wake for."""
        times = [failure.until for failure in (*self.jobs.values(), *self.queues.values()) if failure.until > now]
        return min(times, default=0.0)
