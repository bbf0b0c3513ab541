"""An instance that stops ends what runs, however many jobs only wait; those go on at its next start."""

from __future__ import annotations

import pytest

from fluxkv.instances.attention import take_touched
from fluxkv.instances.ending import ending, stopping
from fluxkv.instances.reactor import Entries, Lead, Write
from fluxkv.journal.job import CLEANUP, INACTIVE, NEW, RUN, SCHED
from fluxkv.journal.wire import unpack_events
from tests.support.worker_rig import Rig, jobspec


@pytest.fixture
def rig() -> Rig:
    return Rig(nodes=1)


def stop(rig: Rig) -> None:
    """As the keeper does it."""
    rig.do(stopping(rig.journal.load().queues))
    rig.do(ending(rig.journal.load()))


def test_what_runs_is_ended_before_a_crowd_that_waits_is_looked_at(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxkv.instances.worker.BATCH", 2)
    running = rig.submit()
    rig.started(running)
    crowd = [rig.submit(turn=False) for _ in range(9)]
    held = rig.submit(urgency=0, turn=False)
    stop(rig)
    assert [event[0] for commit in rig.commits() for event in commit.events][-2:] == ["instance-stopping", "exception"]
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    (request,) = [output.request for output in outputs if isinstance(output, Write)]
    assert [event[:2] for event in unpack_events(request.payload)] == [["end", running]]  # in the very first pass
    rig.worker = rig.new_worker()  # it died with this in flight
    rig.turn(Lead(True))
    assert rig.job(running).state == CLEANUP
    rig.over(running, 15, "ended:shutdown")
    rig.turn()
    assert rig.job(running).state == INACTIVE
    assert {rig.job(id).state for id in (*crowd, held)} == {NEW}
    assert not rig.state.attention
    rig.say(["instance-start", "instance", rig.now, {"pid": 1, "host": "h"}])
    for _ in range(9):
        rig.turn(seconds=0.1)
    assert sum(rig.job(id).state == RUN for id in crowd) == 2
    assert {rig.job(id).state for id in (*crowd, held)} == {RUN, SCHED}


def test_what_ends_or_may_start_any_moment_is_looked_at_and_in_parts(rig: Rig) -> None:
    waiting = [rig.submit() for _ in range(5)]
    rig.started(*waiting[:2])
    stop(rig)
    state = rig.journal.load()
    state.jobs[waiting[4]].granted = [0, "a"]
    state.attention.clear()
    state.attention.update(dict.fromkeys(reversed(waiting)))
    assert take_touched(state, 2) == [waiting[4], waiting[1]]
    assert take_touched(state, 2) == [waiting[0]]
    assert take_touched(state, 2) == []
    state.instance = {**state.instance, "stopping": 0.0}
    state.attention.update(dict.fromkeys(waiting))
    assert take_touched(state, 2) == waiting[:2]
    assert list(state.attention) == waiting[2:]


def test_only_those_without_an_end_are_told(rig: Rig) -> None:
    ids = [rig.submit(jobspec(cores=1)) for _ in range(3)]
    rig.started(*ids[:2])
    rig.say(["exception", ids[0], rig.now, {"type": "cancel", "severity": 0, "note": ""}])
    found = ending(rig.journal.load())
    assert [event[1] for event in found.events] == [ids[1]]
    assert found.since == [f"job/{ids[1]}"]
