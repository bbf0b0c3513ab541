"""Silence: who is offline, who comes back, whose jobs are known to be over; and the launcher's own clock beside it."""

from __future__ import annotations

from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.beats import PULSE, Beat, held_sum, pack_beat, read_beat
from fluxkv.instances.fence import Contact, Fence
from fluxkv.instances.leaving import gone
from fluxkv.instances.reactor import Messages
from fluxkv.journal import decide_hosts
from fluxkv.journal.config import parse_rules
from fluxkv.journal.job import INACTIVE, RUN
from fluxkv.journal.node import STOPPED
from fluxkv.journal.node_config import beat_period
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.port import Message

T = 5.0


class Air:
    """Beats as a worker hears them. at: seconds of the server's clock."""

    def __init__(self, nodes: int = 2) -> None:
        self.rig = Rig(nodes, config={"resource": {"offline-after": T}})
        self.at = 1000.0

    def beat(self, *ranks: int, held: tuple[int, ...] = ()) -> None:
        """One beat for these nodes, none: the worker's own pulse."""
        message = Message(f"{int(self.at * 1000)}-0", pack_beat(Beat(ranks, fence_s=T, held=held)))
        self.rig.turn(Messages("telemetry", [message]))

    def quiet(self, seconds: float, *heard: int) -> None:
        """So long, second by second: pulses, and beats of those that are heard."""
        for _ in range(round(seconds)):
            self.at += 1.0
            if heard:
                self.beat(*heard)
            self.beat(*PULSE)

    def events(self, name: str) -> list[Any]:
        return [event[3] for commit in self.rig.commits() for event in commit.events if event[0] == name]


def retrying() -> dict[str, Any]:
    spec = jobspec()
    spec["attributes"]["system"]["retry"] = {"limit": 1, "on": ["node-failure"]}
    return spec


def test_a_silent_node_goes_offline_and_is_asked_to_speak_when_it_is_heard() -> None:
    air = Air()
    air.quiet(4, 0, 1)
    air.quiet(5, 0)
    assert not air.events("offline")
    air.quiet(2, 0)
    (context,) = air.events("offline")
    assert (context["idset"], context["reason"], context["fence"]) == ("1", "no heartbeat for 5s", T)
    assert context["heard"] == pytest.approx(1004.0)
    node = air.rig.state.nodes[1]
    assert (node.online, node.down[1]) == (False, "no heartbeat for 5s")
    inbox = air.rig.store.keys.inbox("node/1")
    before = len(air.rig.store.messages(inbox))
    air.quiet(1, 0, 1)
    assert len(air.rig.store.messages(inbox)) == before + 1  # hello?
    air.rig.hello(1)
    air.rig.turn()
    assert (node.online, node.down) == (True, None)
    air.quiet(20, 0, 1)
    assert len(air.events("offline")) == 1


def test_a_node_that_comes_later_has_all_of_the_time_to_be_heard() -> None:
    """Its number may have been that of one that left, long ago."""
    air = Air()
    new = decide_hosts.Newcomer("late", 1, 0, 0, (), "spool", "b")
    for _ in range(2):
        air.quiet(3 * T, 0, 1)
        decision, rank = decide_hosts.join(air.rig.state, new, air.rig.now)
        air.rig.do(decision)
        air.rig.hello(rank)
        air.rig.turn()
        air.quiet(T - 1, 0, 1)
        assert air.rig.state.nodes[rank].online
        air.rig.do(decide_hosts.leave(air.rig.state, rank, air.rig.now))
        air.rig.turn()
    assert not air.events("offline")


def test_a_node_that_spoke_is_not_missed_before_it_could_beat() -> None:
    """Its agent began anew, or only its beats are lost: its silence counts from its hello."""
    air = Air()
    air.quiet(1, 0, 1)
    air.quiet(20, 0)
    air.rig.hello(1)
    air.rig.turn()
    air.quiet(4, 0)
    assert air.rig.state.nodes[1].online
    air.quiet(3, 0)
    assert not air.rig.state.nodes[1].online
    assert len(air.events("offline")) == 2


def test_a_node_that_was_stopped_is_not_asked_to_come_back() -> None:
    """Its agent still beats while its tasks are being ended."""
    air = Air()
    air.quiet(2, 0, 1)
    air.rig.do(gone([1], STOPPED))
    air.rig.turn()
    before = len(air.rig.store.messages(air.rig.store.keys.inbox("node/1")))
    air.quiet(4, 0, 1)
    air.quiet(40, 0)
    assert len(air.rig.store.messages(air.rig.store.keys.inbox("node/1"))) == before
    assert not air.rig.state.nodes[1].online


def test_nobody_is_lost_by_an_outage_or_by_a_worker_that_stood_still() -> None:
    """HAZARD 25: the clock is what is heard, not what has passed."""
    air = Air()
    air.quiet(2, 0, 1)
    air.at += 3600.0  # the server was stopped, or there was nobody to hear
    air.beat(*PULSE)
    air.beat(0, 1)
    air.rig.turn(seconds=3600.0)
    air.quiet(3, 0)
    assert not air.events("offline")
    air.quiet(4, 0)
    meta = air.rig.store.meta()
    assert [one["idset"] for one in air.events("offline")] == ["1"]
    air.rig.server.restart()  # and a new epoch counts from its beginning, for all
    new = air.rig.store.open_epoch(meta.uid, meta.epoch, meta.version)
    air.rig.journal.meta = new
    air.rig.say(["epoch", "instance", air.rig.now, {"old": meta.epoch, "new": new.epoch, "reason": "x"}])
    air.rig.hello(0)
    air.rig.hello(1)
    air.rig.turn()
    air.quiet(4)
    assert len(air.events("offline")) == 1


def test_jobs_of_a_silent_node_wait_but_those_that_ended_themselves_begin_again() -> None:
    air = Air()
    waits, again = air.rig.submit(), air.rig.submit(retrying())
    for id in (waits, again):
        air.rig.started(id)
    air.rig.turn()
    (rank,) = air.rig.job(again).ranks
    assert air.rig.job(waits).ranks == [rank]
    air.quiet(2, 0, 1)
    air.quiet(T + 2, 1 - rank)
    assert air.events("offline")
    assert not air.events("lost")
    air.quiet(T, 1 - rank)
    (context,) = air.events("lost")
    assert context["cause"].startswith("node cut off: not heard for 10s")
    assert (air.rig.job(again).number, air.rig.job(again).ranks) == (2, [1 - rank])
    assert (air.rig.job(waits).state, air.rig.job(waits).over) == (RUN, {})
    assert not air.rig.state.nodes[rank].online
    air.quiet(60, 1 - rank)
    assert len(air.events("lost")) == 1
    # a person says that it is off
    air.rig.do(decide_hosts.fence(air.rig.state, [rank], "smoke", 0, air.rig.now))
    air.rig.turn()
    assert air.rig.job(waits).state == INACTIVE
    assert "node fenced: smoke" in air.rig.job(waits).exception[1]
    assert air.rig.state.skipped == 0  # the word is known, and stands in the node's story
    assert [event[0] for commit in air.rig.commits() if commit.version == air.rig.state.nodes[rank].commits[-1]
            for event in commit.events][:1] == ["fence"]  # fmt: skip
    with pytest.raises(Rejected, match="is online"):
        decide_hosts.fence(air.rig.state, [1 - rank], "smoke", 0, air.rig.now)


def test_a_node_that_has_something_else_twice_is_asked_once() -> None:
    air = Air(1)
    id = air.rig.submit()
    air.rig.started(id)
    air.rig.turn()
    inbox = air.rig.store.keys.inbox("node/0")
    before = len(air.rig.store.messages(inbox))
    wanted = held_sum([air.rig.job(id).key])
    for held in (wanted, 7, wanted, 7, wanted):  # never the same twice in a row: on its way
        air.beat(0, held=(held,))
    assert len(air.rig.store.messages(inbox)) == before
    for held in range(20, 26):  # a flood: another set at each beat, which the journal has not heard of yet
        air.beat(0, held=(held,))
        air.beat(*PULSE)
    assert len(air.rig.store.messages(inbox)) == before
    for _ in range(4):
        air.beat(0, held=(7,))
        air.beat(*PULSE)
    assert len(air.rig.store.messages(inbox)) == before + 1


def test_what_is_no_beat_is_passed_over() -> None:
    for data in (b"", b"x", b"\x90", b"\x92\x01\x02", pack_beat(Beat((1,), fence_s=-1.0)), b"\x91\x91\xa1x"):
        assert read_beat(data) is None
    assert read_beat(pack_beat(Beat((0, 3), 1.0, 2, 0.5, 30.0, (1, 2)))) == Beat((0, 3), 1.0, 2, 0.5, 30.0, (1, 2))


def test_a_reboot_s_lost_job_says_so() -> None:
    rig = Rig(1)
    id = rig.submit()
    rig.started(id)
    rig.turn()
    meta = rig.store.meta()
    context = {"rank": 0, "host": "n0", "boot": "another", "spool": "s", "epoch": meta.epoch,
               "cursor": f"{meta.version}-{meta.epoch}", "held": []}  # fmt: skip
    rig.say(["hello", "node/0", rig.now, context])
    rig.turn()
    assert rig.job(id).state == INACTIVE
    assert "node rebooted" in rig.job(id).exception[1]


@pytest.mark.parametrize(("value", "seconds"), [("1s", 1.0), (2, 2.0), ("0", 0.0), ("infinity", 0.0)])
def test_the_config_says_how_long(value: object, seconds: float) -> None:
    assert parse_rules({"resource": {"offline-after": value}}).offline_after_s == seconds


@pytest.mark.parametrize("value", ["soon", 0.1, -1, [], None, True])
def test_the_config_says_nonsense(value: object) -> None:
    with pytest.raises(Rejected) as refused:
        parse_rules({"resource": {"offline-after": value}})
    assert refused.value.code == "bad-config"


def test_several_beats_fit_into_the_silence() -> None:
    assert (beat_period(30.0), beat_period(0.0), beat_period(1.0)) == (2.0, 2.0, 0.2)


class Held:
    def __init__(self, key: str) -> None:
        self.key = key
        self.grace_s = 5.0


def test_the_launcher_s_fence() -> None:
    fence = Fence()
    one: Any = Held("7.12-5.0")
    fence.hold(one)
    assert fence.due(1e9) == []  # nobody has said how long
    fence.alive(100.0, 8.0, 11)
    fence.alive(90.0, 8.0, 11)  # an old word changes nothing
    assert (fence.at(), fence.cut_off(107.9), fence.due(107.9)) == (108.0, False, [])
    assert fence.due(108.0) == [one]
    assert one.grace_s == 2.0  # gone by KILL well before twice the time is over
    assert fence.due(200.0) == []
    assert fence.cut_off(200.0)
    fence.alive(200.0, 0.0, 20)  # from now on for ever
    assert not fence.cut_off(1e9)


def test_what_was_ordered_before_a_silence_is_not_begun_after_it() -> None:
    """The order waited in the inbox: a worker may have counted it as over meanwhile, and begun another attempt elsewhere."""
    fence = Fence()
    fence.alive(100.0, 8.0, 11)
    assert fence.bars("7.11-5.0", 101.0)  # nobody knows what was before this launcher
    assert not fence.bars("7.12-5p.0", 101.0)
    fence.alive(107.0, 8.0, 20)
    assert not fence.bars("7.12-5.0", 108.0)
    assert fence.bars("7.21-5.0", 115.0)  # cut off
    fence.alive(115.0, 8.0, 30)
    assert fence.bars("7.30-5.0", 116.0)
    assert not fence.bars("7.31-5.0", 116.0)
    assert not fence.bars("7.12-5.2", 116.0, 31)  # its job began long ago, and got this node later
    assert fence.bars("7.12-5.2", 116.0, 30)
    fence.alive(116.0, 8.0, 0)  # no news
    assert fence.bars("7.30-5.0", 116.0)
    fence.alive(116.5, 8.0, 25)  # history lost its end: what is ordered now has such numbers, too
    assert not fence.bars("7.26-6.0", 117.0)


def test_a_launcher_hears_of_a_shorter_fence_before_any_worker() -> None:
    contact = Contact()
    assert contact.again() == contact.shortened(5.0) == []
    assert contact.answered(100.0, 30.0, 7) == ["alive", 100.0, 30.0, 7]
    assert contact.shortened(30.0) == contact.shortened(0.0) == contact.shortened(60.0) == []
    assert contact.shortened(5.0) == [["alive", 100.0, 5.0, 7]] == contact.again()
    contact.answered(104.0, 0.0, 9)
    assert contact.shortened(5.0) == [["alive", 104.0, 5.0, 7]]


def test_a_launcher_that_dies_after_a_silence_begins_nothing_of_before_it() -> None:
    """Its agent says again from when on orders count (the simulator's seed 4000015)."""
    contact, fence = Contact(), Fence()
    for message in (contact.answered(100.0, 8.0, 11), contact.answered(120.0, 8.0, 30), contact.answered(123.0, 8.0, 33)):
        fence.alive(*message[1:])
    assert fence.bars("7.30-6.0", 123.0)
    assert not fence.bars("7.31-6.0", 123.0)
    again = Fence()
    for message in contact.again():
        again.alive(*message[1:])
    assert again.bars("7.30-6.0", 123.0)
    assert not again.bars("7.31-6.0", 123.0)
    contact.answered(124.0, 8.0, 25)  # history lost its end: what is ordered now has such numbers, too
    assert contact.again() == [["alive", 124.0, 8.0, 25]]


def reopened(air: Air, *speaking: int) -> None:
    """The server was restarted, its history taken up; these nodes say hello in the new epoch."""
    meta = air.rig.store.meta()
    air.rig.server.restart()
    new = air.rig.store.open_epoch(meta.uid, meta.epoch, meta.version)
    air.rig.journal.meta = new
    air.rig.say(["epoch", "instance", air.rig.now, {"old": meta.epoch, "new": new.epoch, "reason": "x"}])
    for rank in speaking:
        air.rig.hello(rank, [air.rig.state.jobs[id].key for id in air.rig.state.nodes[rank].jobs])
    air.rig.turn()


@pytest.mark.parametrize("first", ["cut", "silent"])
def test_who_is_cut_off_before_a_new_epoch_is_missed_in_it(first: str) -> None:
    """The epoch takes all nodes out of use; that one of them does not come back is to be noticed all the same."""
    air = Air()
    again = air.rig.submit(retrying())
    air.rig.started(again)
    air.rig.turn()
    (rank,) = air.rig.job(again).ranks
    air.quiet(2, 0, 1)
    if first == "silent":
        air.quiet(T + 2, 1 - rank)
    reopened(air, 1 - rank)
    air.quiet(T - 1, 1 - rank)
    assert len(air.events("offline")) == (first == "silent")
    air.quiet(2, 1 - rank)
    assert len(air.events("offline")) == 1
    assert not air.events("lost")
    air.quiet(T, 1 - rank)
    assert len(air.events("lost")) == 1
    assert (air.rig.job(again).number, air.rig.job(again).ranks) == (2, [1 - rank])


def test_a_new_worker_knows_how_long_tasks_live_on_a_host_that_is_not_heard_any_more() -> None:
    air = Air()
    air.rig.worker = air.rig.new_worker("worker-1")
    beat = Beat((1,), fence_s=600.0)
    air.rig.worker.watch.remember([Message("990000-0", pack_beat(beat)), Message("991000-0", b"x")])
    air.rig.lead()
    air.quiet(T + 2, 0)
    (context,) = air.events("offline")
    assert (context["fence"], context["heard"]) == (600.0, 990.0)
