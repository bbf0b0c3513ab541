"""An instance that stops ends what runs, however many jobs only wait; those go on at its next start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluxkv.instances import ending as stop_of
from fluxkv.instances.attention import take_touched
from fluxkv.instances.beats import Beat, pack_beat, pack_stops, read_beat, read_stops
from fluxkv.instances.daemon import Log
from fluxkv.instances.ending import ending, stopping
from fluxkv.instances.final_totals import Final, of_word
from fluxkv.instances.reactor import Entries, Lead, Stops, Write
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


def words_of(rig: Rig) -> list[Stops]:
    """What the worker has to say about a stop after it has read on."""
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    return [output for output in outputs if isinstance(output, Stops)]


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_says_once_whether_a_stop_has_anything_to_wait_for(rig: Rig, busy: bool) -> None:
    rig.submit(turn=False)
    if busy:
        rig.turn()
    rig.do(stopping(rig.journal.load().queues))
    tip = rig.store.meta()
    assert words_of(rig) == [Stops(tip.version, tip.epoch, busy, (0, 0, 0, 0, 1))]
    rig.submit(turn=False)
    assert words_of(rig) == []


def test_its_word_is_no_heartbeat() -> None:
    word = Stops(7, 1 << 47, True, (3, 2, 1, 0, 4))
    assert read_stops(pack_stops(word)) == word
    assert read_beat(pack_stops(word)) is None
    for data in (pack_beat(Beat((0,), 1.0)), pack_beat(Beat(())), b"", b"\xc1", b"\x95\xa5stops"):
        assert read_stops(data) is None


def test_a_word_of_another_version_says_no_totals() -> None:
    """A worker may be older, or newer, than the keeper that ends it: that one reads the state."""
    assert of_word(Stops(7, 1, False, (3, 2, 1, 0, 4))) == Final(3, 2, 1, 0, 4)
    for ended in ((), (3, 2, 1, 0), (3, 2, 1, 0, 4, 5)):
        assert of_word(Stops(7, 1, False, ended)) is None


def end_jobs(rig: Rig, monkeypatch: pytest.MonkeyPatch, says: Callable[[], object]) -> list[str]:
    """What is read for a stop: "look" for the state. says: what is done when the stop has been announced."""
    read: list[str] = []
    announce, look = stop_of._announce, stop_of.Journal.look

    def announced(journal: stop_of.Journal) -> object:
        answer = announce(journal)
        says()
        return answer

    def looked(journal: stop_of.Journal) -> object:
        read.append("look")
        return look(journal)

    monkeypatch.setattr(stop_of, "open_store", lambda uri, patience_s: rig.store)
    monkeypatch.setattr(stop_of, "_announce", announced)
    monkeypatch.setattr(stop_of.Journal, "look", looked)
    monkeypatch.setattr(stop_of, "WORD_S", 0.05)
    found = stop_of.end_jobs("memory:", Log("keeper", None, None), rig.turn)
    assert isinstance(found, Stops) == (read == [])
    return read


def tell(rig: Rig, word: Stops) -> None:
    rig.store.push(rig.store.keys.telemetry, [pack_beat(Beat((0,), 1.0)), pack_stops(word)])


def test_a_stop_with_nothing_to_end_reads_no_state(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(rig, Stops(0, 0, True))  # of a stop before
    assert end_jobs(rig, monkeypatch, lambda: [tell(rig, word) for word in words_of(rig)]) == []
    assert rig.state.instance["stopping"]


@pytest.mark.parametrize("what", ["nobody speaks", "of another branch", "of before", "jobs run"])
def test_else_it_does(rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    running = rig.submit()
    rig.started(running)

    def says() -> None:
        tip = rig.store.meta()
        if what == "of another branch":
            tell(rig, Stops(tip.version, tip.epoch + 1, False))
        elif what == "of before":
            tell(rig, Stops(tip.version - 1, tip.epoch, False))
        elif what == "jobs run":
            for word in words_of(rig):
                assert word.busy
                tell(rig, word)
        rig.over(running, 15, "ended:shutdown")

    assert end_jobs(rig, monkeypatch, says) == ["look"]
    assert rig.job(running).state == INACTIVE
