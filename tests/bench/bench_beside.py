"""Whether planning holds anybody up: submissions, listings and cancels beside long plans on a busy site.

A thousand nodes that only pretend, full, and 10,000 jobs of many sizes that wait. Jobs end all the time, long before their limits,
and others come, so the worker plans all the time. The same is asked before that while the queue is stopped, when nobody plans.
`python tests/bench/bench_beside.py [POLICY ...]` prints it.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rig import PROGRAM, Figure, Meter, Rig, figure, instance, percentile, scratch, timed

import fluxkv
from fluxkv.instances.submission import prepare
from fluxkv.journal.job import DEPEND, NEW, PRIORITY, SCHED

MOST_MS = 500.0  # of a hundred waits the longest meets the first plan after a stop, or a snapshot
POLICIES = ("easy", "hybrid", "conservative")
NODES, CORES, RUNNING, PENDING = 1000, 64, 8000, 10_000
LASTS_S = 60.0  # how long jobs run in the mean: some 130 end in a second
EVERY_S, EACH = 0.1, 13  # this often so many come; then each thing is asked for once
LISTED = 20  # of so many rounds there is a listing in one
WAIT_S = 120.0
LISTING = (PROGRAM, "jobs")


class Seen(NamedTuple):
    """Milliseconds of each probe. submit, cancel: the call. taken, ended: until the worker has journalled its answer. listing:
    the whole command."""

    submit: list[float]
    taken: list[float]
    cancel: list[float]
    ended: list[float]
    listing: list[float]


class Site:
    """One instance, kept busy."""

    def __init__(self, rig: Rig, client: fluxkv.Instance) -> None:
        self.rig, self.client, self.dice = rig, client, random.Random(1)

    def fill(self) -> None:
        """Full, and a long line that nobody plans yet."""
        self.submit(RUNNING, True)
        self._until_taken(SCHED)
        self.queue("stop")
        self.submit(PENDING)
        self._until_taken()

    def queue(self, verb: str) -> None:
        """Have it planned, or not."""
        subprocess.run([PROGRAM, "queue", verb], env=self.rig.environment(), check=True, capture_output=True)

    def submit(self, count: int, small: bool = False) -> list[int]:
        """Jobs of many sizes, or small ones that fill the machine, eight on a node."""
        return self.client.submitter.submit((prepare(["true"], self._asked(small), {}) for _ in range(count)), 16, 0)

    def _asked(self, small: bool) -> dict[str, Any]:
        dice = self.dice
        lasts = f"{dice.expovariate(1 / LASTS_S):.2f}s"
        asked = {"duration": dice.choice((600.0, 3600.0, 7200.0)), "attributes": {"system.exec.test.run_duration": lasts}}
        if small:
            return {"ntasks": 1, "cores_per_task": 8, **asked}
        if dice.random() < 0.5:
            return {"ntasks": dice.randrange(1, 65), "cores_per_task": dice.choice((1, 2, 4)), **asked}
        nodes = dice.randrange(1, 17)
        return {"nodes": nodes, "ntasks": nodes, "cores_per_task": dice.choice((16, 32, 64)), **asked}

    def _until_taken(self, *more: int) -> None:
        """Until the worker has brought all jobs on, and nobody is in these states either."""
        deadline = time.monotonic() + WAIT_S
        while any((counts := self.client.state().counts).get(state) for state in (NEW, DEPEND, PRIORITY, *more)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the worker does not take the jobs up: {counts}")
            time.sleep(0.2)

    def probe(self, seconds: float) -> Seen:
        """Ask for everything again and again. Jobs come as others end."""
        client, env = self.client, self.rig.environment()
        seen = Seen([], [], [], [], [])
        probes: list[int] = []
        cancelled: list[int] = []
        end, rounds = time.monotonic() + seconds, 0
        while (start := time.monotonic()) < end:
            self.submit(EACH)
            one = prepare(["true"], self._asked(False), {})
            seen.submit.append(timed(lambda one=one: probes.extend(client.submitter.submit([one], 16, 0))) * 1e3)
            if rounds % 4 == 3:
                old = probes[rounds - 3]
                seen.cancel.append(timed(lambda old=old: cancelled.extend(client.cancel([old]))) * 1e3)
            if rounds % LISTED == LISTED - 1:
                seen.listing.append(timed(lambda: subprocess.run(LISTING, env=env, capture_output=True, check=True)) * 1e3)
            rounds += 1
            time.sleep(max(0.0, start + EVERY_S - time.monotonic()))
        time.sleep(1.0)
        state = client.state()
        for id in probes:
            seen.taken.append(self._between(state, id, "submit", "priority"))
        for id in cancelled:
            seen.ended.append(self._between(state, id, "exception", "clean"))
        return seen

    def _between(self, state: Any, id: int, asked: str, answered: str) -> float:
        """Milliseconds between two events of a job, by the server's clock; those to come count up to now."""
        times = {event.name: commit.time for commit, event in self.client.journal.story(state.jobs[id].commits, id)}
        return (times.get(answered, time.time()) - times[asked]) * 1e3


def figures(quick: bool = False, policies: Sequence[str] = POLICIES) -> list[Figure]:
    """Of each policy; beside it, in the note, what it is while nobody plans."""
    found: list[Figure] = []
    for policy in policies[-1:] if quick else policies:
        options = ("--fake", "-s", str(NODES), "--cores", str(CORES), "--policy", policy)
        with instance(*options) as rig, fluxkv.connect(rig.uri) as client:
            site = Site(rig, client)
            site.fill()
            beside = site.probe(4.0 if quick else 8.0)
            meter, before = Meter(), rig.cpu()
            site.queue("start")
            start = time.monotonic()
            seen = site.probe(8.0 if quick else 16.0)
            share = (rig.cpu()["worker-0"] - before["worker-0"]) / (time.monotonic() - start)
            busy = "; ".join(filter(None, (f"; the worker was busy for {share:.0%} of the time", meter.note())))
        found += _figures(f"beside {policy} plans", seen, beside, busy)
    return found


def _figures(text: str, seen: Seen, beside: Seen, busy: str) -> list[Figure]:
    asked = (
        ("submit -> id", seen.submit, beside.submit, 50.0),
        ("submission taken up by the worker", seen.taken, beside.taken, MOST_MS),
        ("cancel answered by the worker", seen.ended, beside.ended, MOST_MS),
        ("cancel, the call (it reads the state)", seen.cancel, beside.cancel, None),
        ("fluxkv jobs, whole command", seen.listing, beside.listing, None),
    )
    found = []
    for what, each, other, budget in asked:
        note = f"p50 {percentile(each, 0.5):.1f}, max {max(each):.1f} of {len(each)}"
        note += f"; while nobody plans p50 {percentile(other, 0.5):.1f}, p99 {percentile(other, 0.99):.1f}"
        found.append(figure(f"{text}: {what}, p99", percentile(each, 0.99), "ms", budget, note=f"{note}{busy}"))
        busy = ""
    return found


if __name__ == "__main__":
    with scratch():
        for one in figures(policies=sys.argv[1:] or POLICIES):
            print(one["name"], round(one["value"], 1), one["budget"], one["note"])
