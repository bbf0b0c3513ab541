"""The agent alone: what it asks of the launcher and says in reports, message by message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgpack import packb

from fluxkv.instances.agent import PROBE, Agent
from fluxkv.instances.attempts import Host
from fluxkv.instances.facts import Rows, cut, rest
from fluxkv.instances.pace import FLOOD, USUAL, Pace, pace_of
from fluxkv.instances.reactor import (
    Answered,
    Follow,
    Input,
    Launched,
    LauncherLost,
    Messages,
    Output,
    Reopened,
    ToLauncher,
    Trim,
    WakeAt,
    Write,
)
from fluxkv.instances.run_agent import AgentRunner
from fluxkv.journal.wire import pack, unpack_events
from fluxkv.kvs.port import Append, Appended, Conflicted, Gap, Message, Meta, StaleEpoch

META = Meta("u", 7, 10, 0, 0, "strict", 1, 0.0)
ORDER = {
    "user": 1, "name": "x", "command": ["x"], "system": {}, "env": "", "claim": [0, "0", "", 0, 1], "index": 0, "nodes": 1,
    "total": 1, "first": 0, "count": 1, "shape": "s", "queued": False,
}  # fmt: skip


class Rig:
    def __init__(self, ranks: tuple[int, ...] = (0,), pace: Pace = USUAL) -> None:
        self.now = 1000.0
        host = Host({rank: f"n{rank}" for rank in ranks}, "b", "s", "memory:", "/t", {}, report_s=pace.report_s)
        self.agent = Agent(META, host, dict.fromkeys(ranks, "10-7"))
        self.ranks = ranks
        self.version = 10

    def step(self, *inputs: Input) -> list[Output]:
        self.now += 10.0
        return self.agent.step(self.now, list(inputs))

    def ready(self) -> None:
        """Connected, its hello answered."""
        outputs = self.step(LauncherLost(False), Launched([["held", []]]))
        self.settle(outputs)

    def orders(self, version: int, *orders: list[Any], rank: int = 0, epoch: int = 7) -> Messages:
        return Messages(f"node/{rank}", [Message(f"{version}-{epoch}", pack(list(orders)))])

    def launch(self, job: int, version: int, rank: int = 0, **more: Any) -> Messages:
        return self.orders(version, ["launch", {**ORDER, "job": job, **more}], rank=rank)

    def settle(self, outputs: list[Output]) -> list[Output]:
        """Answer OK until nothing is in flight; all outputs of that."""
        found: list[Output] = []
        while (request := write(outputs)) is not None:
            self.version += 1
            outputs = self.step(Answered(request, Appended(self.version, self.agent.meta.epoch)))
            found += outputs
        return found


def write(outputs: list[Output]) -> Append | None:
    requests = [one.request for one in outputs if isinstance(one, Write)]
    assert len(requests) <= 1
    return requests[0] if requests else None


def said(outputs: list[Output]) -> list[list[Any]]:
    request = write(outputs)
    return unpack_events(request.payload) if request else []


def told(outputs: list[Output]) -> list[list[Any]]:
    return [one.message for one in outputs if isinstance(one, ToLauncher)]


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.ready()
    return rig


def over(key: str, status: int = 0, cause: str = "", following: str = "") -> list[Any]:
    return ["over", key, status, 1.0, 2.0, None, cause, following, 0, 0.0, int(key.split(".")[0])]


def test_the_first_word_is_a_hello_and_only_after_the_launcher_s_list() -> None:
    rig = Rig((0, 1))
    assert rig.step() == []
    assert rig.step(LauncherLost(False)) == []
    outputs = rig.step(Launched([["held", [["5.9-7.1", 5, "running", 3.0, [], None]]]]))
    events = said(outputs)
    assert [event[0] for event in events] == ["hello", "hello"]
    assert [event[3]["held"] for event in events] == [[], ["5.9-7"]]
    request = write(outputs)
    assert request is not None
    assert request.seq == PROBE + 1
    again = rig.step(Answered(request, Gap(41)))
    assert [event[0] for event in said(again)] == ["hello", "hello"]
    request = write(again)
    assert request is not None
    assert request.seq == 42
    report = rig.step(Answered(request, Appended(11, 7)))
    assert said(report)[0][3] == {"rank": 1, "start": [[5, 9, 3.0]]}


def test_start_and_end_in_one_report_and_then_the_ack(rig: Rig) -> None:
    key = "5.12-7.0"
    assert told(rig.step(rig.launch(5, 12)))[0][0] == "launch"
    outputs = rig.step(Launched([["start", key, 1.0, []], over(key, 256)]))
    assert said(outputs)[0][3] == {"rank": 0, "over": [[5, 12, 1.0, 2.0, 256, "", 0]]}
    request = write(outputs)
    assert request is not None
    assert request.exact == (("attempt/5", "12-7"),)
    assert ["ack", [key]] in told(rig.settle(outputs))
    assert not rig.agent.placed


@pytest.mark.parametrize(("pace", "reports"), [(USUAL, (15, 30)), (FLOOD, (2, 3))])
def test_ends_of_a_flood_are_reported_together(pace: Pace, reports: tuple[int, int]) -> None:
    """A hundred jobs that end 4 ms apart: a few at once, then so often as the pace says; what comes alone goes out at once."""
    assert pace_of({"policy": "throughput"}) == FLOOD
    assert pace_of({"policy": "fcfs"}) == pace_of({}) == USUAL
    rig = Rig(pace=pace)
    rig.ready()
    keys = [f"{job}.{job + 1}-7.0" for job in range(11, 131)]
    for job in range(11, 131):
        rig.step(rig.launch(job, job + 1))
    now = rig.now = rig.now + 100.0
    sizes = []
    for key in keys[:100]:
        now += 0.004
        outputs = rig.agent.step(now, [Launched([over(key)])])
        if events := said(outputs):
            sizes.append(len(events[0][3]["over"]))
            request = write(outputs)
            assert request is not None
            rig.version += 1
            assert said(rig.agent.step(now, [Answered(request, Appended(rig.version, 7))])) == []
    assert reports[0] <= len(sizes) <= reports[1]
    assert sizes[0] == 1
    rig.now = now + 100.0
    assert len(said(rig.step())[0][3]["over"]) == 100 - sum(sizes)


def test_the_last_end_of_a_flood_waits_for_no_others() -> None:
    """Nothing else will end here before this is heard: what was placed is over, and more is placed only then."""
    rig = Rig(pace=FLOOD)
    rig.ready()
    keys = [f"{job}.{job + 1}-7.0" for job in range(11, 31)]
    for job in range(11, 31):
        rig.step(rig.launch(job, job + 1))
    now, sizes = rig.now + 100.0, []
    for key in keys:
        now += 0.004
        outputs = rig.agent.step(now, [Launched([over(key)])])
        if events := said(outputs):
            sizes.append(len(events[0][3]["over"]))
            request = write(outputs)
            assert request is not None
            rig.version += 1
            rig.agent.step(now, [Answered(request, Appended(rig.version, 7))])
    assert sum(sizes) == len(keys)
    assert sizes[-1] > 10


def test_orders_wait_for_the_launcher_s_list(rig: Rig) -> None:
    """What is launched between asking for the list and its coming would look lost."""
    assert told(rig.step(LauncherLost(True), LauncherLost(False), rig.launch(5, 12))) == []
    outputs = rig.step(Launched([["held", []]]))
    assert [message[0] for message in told(outputs)] == ["launch"]
    (hello,) = said(outputs)
    assert (hello[3]["held"], hello[3]["cursor"]) == (["5.12-7"], "12-7")


def test_nothing_is_looked_at_again_and_again_while_there_is_no_launcher(rig: Rig) -> None:
    """An end is acknowledged while orders wait for the list of a launcher that has died."""
    rig.settle(rig.step(rig.launch(5, 12)))
    outputs = rig.step(Launched([["start", "5.12-7.0", 1.0, []], over("5.12-7.0")]))
    rig.step(LauncherLost(True))
    rig.step(rig.launch(6, 13))
    rig.settle(outputs)
    assert not rig.agent.placed
    assert not any(isinstance(one, WakeAt) for one in rig.step())
    outputs = rig.step(LauncherLost(False), Launched([["held", []]]))
    assert [message[0] for message in told(outputs)] == ["launch"]


def test_an_order_delivered_again_is_not_done_again(rig: Rig) -> None:
    message = rig.launch(5, 12)
    assert len(told(rig.step(message))) == 1
    assert told(rig.step(message)) == []
    rig.settle(rig.step(Launched([["start", "5.12-7.0", 1.0, []], over("5.12-7.0")])))
    assert told(rig.step(message)) == []


def test_orders_name_attempts_of_an_older_epoch(rig: Rig) -> None:
    rig.step(rig.launch(5, 12))
    rig.settle(rig.step(Reopened(Meta("u", 99, 20, 0, 0, "strict", 1, 0.0))))
    outputs = rig.step(
        rig.orders(21, ["signal", 5, "12-7", 10], ["limit", 5, "12-7", 9.0], ["end", 5, "12-7", "cancel"], epoch=99)
    )
    key = "5.12-7.0"
    assert told(outputs) == [["signal", key, 10], ["limit", key, 9.0], ["end", key, "cancel"]]
    outputs = rig.step(Launched([["start", key, 1.0, []], over(key, 15, "ended:cancel")]))
    assert ["ack", [key]] in told(rig.settle(outputs))


def test_hello_in_a_new_epoch_lists_attempts_under_their_own(rig: Rig) -> None:
    rig.step(rig.launch(5, 12))
    (hello,) = said(rig.step(Reopened(Meta("u", 99, 20, 0, 0, "strict", 1, 0.0))))
    assert (hello[3]["epoch"], hello[3]["held"]) == (99, ["5.12-7"])


def test_recall_of_a_queued_one_and_of_an_unknown_one(rig: Rig) -> None:
    rig.step(rig.launch(5, 12, queued=True))
    assert told(rig.step(rig.orders(13, ["recall", 5, "12-7"]))) == [["recall", ["5.12-7.0"]]]
    outputs = rig.step(Launched([["unstarted", ["5.12-7.0"]]]))
    assert told(outputs) == [["ack", []]]  # positions are kept before the journal knows
    assert outputs.index(ToLauncher(["ack", []])) < next(n for n, one in enumerate(outputs) if isinstance(one, Write))
    assert said(outputs)[0][3] == {"rank": 0, "unstarted": [[5, 12]]}
    rig.settle(outputs)
    assert said(rig.step(rig.orders(15, ["recall", 6, "11-7"])))[0][3] == {"rank": 0, "unstarted": [[6, 11]]}


def test_forget_ends_what_the_journal_does_not_know(rig: Rig) -> None:
    """And when it is gone, its node is spoken for once more: until then a worker does not use it."""
    rig.step(rig.launch(9, 11))
    request = write(rig.step(Launched([["start", "9.11-7.0", 1.0, []]])))
    assert request is not None
    outputs = rig.step(Answered(request, Conflicted(("attempt/9",))), rig.orders(12, ["forget", "9.11-7"]))
    assert told(outputs) == [["end", "9.11-7.0", "fenced"]]
    assert not said(outputs)
    outputs = rig.step(Launched([over("9.11-7.0")]))  # nobody wants to hear how it ended
    assert [event[0] for event in said(outputs)] == ["hello"]
    assert said(outputs)[0][3]["held"] == []


def test_forget_of_what_is_gone_already(rig: Rig) -> None:
    outputs = rig.step(rig.orders(12, ["forget", "9.3-1"]))
    assert told(outputs) == [["end", "9.3-1.0", "fenced"]]
    assert [event[0] for event in said(outputs)] == ["hello"]


def test_a_node_says_hello_again_when_what_was_forgotten_is_gone(rig: Rig) -> None:
    rig.step(rig.launch(5, 12), rig.launch(6, 13))
    rig.settle(rig.step(Launched([["start", "5.12-7.0", 1.0, []], ["start", "6.13-7.0", 1.0, []]])))
    outputs = rig.step(rig.orders(14, ["forget", "5.12-7"], ["forget", "6.13-7"]))
    assert told(outputs) == [["end", "5.12-7.0", "fenced"], ["end", "6.13-7.0", "fenced"]]
    assert write(outputs) is None
    outputs = rig.step(Launched([over("5.12-7.0", 15)]))
    assert told(outputs) == [["ack", ["5.12-7.0"]]]
    assert write(outputs) is None  # nobody wants to hear how it ended, and the other one is still there
    outputs = rig.step(Launched([over("6.13-7.0", 15)]))
    assert said(outputs)[0][3]["held"] == []


def test_a_fenced_attempt_s_report_is_dropped_and_its_end_forgotten(rig: Rig) -> None:
    rig.step(rig.launch(5, 12), rig.launch(6, 13))
    events = [["start", "5.12-7.0", 1.0, []], over("5.12-7.0"), ["start", "6.13-7.0", 1.0, []], over("6.13-7.0")]
    request = write(rig.step(Launched(events)))
    assert request is not None
    outputs = rig.step(Answered(request, Conflicted(("attempt/5",))))
    assert ["ack", ["5.12-7.0"]] in told(outputs)
    assert said(outputs)[0][3] == {"rank": 0, "over": [[6, 13, 1.0, 2.0, 0, "", 0]]}
    rig.settle(outputs)
    assert not rig.agent.placed


@pytest.mark.parametrize("fenced", [False, True])
@pytest.mark.parametrize("order", [("5.9-7.0", "5.9-7.0~2"), ("5.9-7.0~2", "5.9-7.0")])
def test_a_node_that_its_job_had_twice_forgets_both_ends(order: tuple[str, str], fenced: bool) -> None:
    """After a loss the launcher lists both, and they have one name: to which an answer is about the attempt, it is about both."""
    rig = Rig()
    rig.step(LauncherLost(False))
    rows = [[key, 5, "past", 1.0, [], over(key)] for key in order]
    outputs = rig.step(Launched([["held", rows]]))
    assert [event[0] for event in said(outputs)] == ["hello"]
    acked = set[str]()
    while (request := write(outputs)) is not None:
        if request.exact:
            assert request.exact == (("attempt/5", "9-7"),)
        answer: Any = Conflicted(("attempt/5",)) if fenced and request.exact else Appended(11, 7)
        outputs = rig.step(Answered(request, answer))
        acked.update(key for message in told(outputs) if message[0] == "ack" for key in message[1])
    assert acked == set(order)
    assert not rig.agent.placed
    assert not rig.agent.names


def test_the_end_of_a_node_s_first_part_leaves_the_second_its_name() -> None:
    rig = Rig()
    rig.step(LauncherLost(False))
    rows = [["5.9-7.0~2", 5, "running", 3.0, [], None], ["5.9-7.0", 5, "past", 1.0, [], over("5.9-7.0")]]
    rig.settle(rig.step(Launched([["held", rows]])))
    assert list(rig.agent.placed) == ["5.9-7.0~2"]
    request = write(rig.step(Launched([over("5.9-7.0~2")])))
    assert request is not None
    assert dict(request.exact) == {"attempt/5": "9-7"}


@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_a_node_s_first_part_is_not_the_second_one_s(late: bool) -> None:
    """The history lost that the node was given back and came once more: it hears of an end there when the second part ends."""
    rig = Rig()
    rig.step(LauncherLost(False))
    rows = [["5.9-7.0~3", 5, "running", 3.0, [], None], ["5.9-7.0~2", 5, "past", 1.0, [], over("5.9-7.0~2")]]
    outputs = rig.step(Launched([["held", rows[::-1] if late else rows]]))
    assert said(outputs)[0][3]["held"] == ["5.9-7"]
    assert ["ack", ["5.9-7.0~2"]] in told(outputs)
    outputs = rig.settle(outputs)
    assert said(outputs)[0][3] == {"rank": 0, "start": [[5, 9, 3.0]]}
    rig.settle(outputs)
    outputs = rig.step(Launched([over("5.9-7.0~3", 15)]))
    assert said(outputs)[0][3] == {"rank": 0, "over": [[5, 9, 1.0, 2.0, 15, "", 0]]}


def test_the_end_of_a_node_s_first_part_is_told_when_the_second_one_s_prolog_is_over() -> None:
    """The same, and its tasks have not begun there yet: who knows of the first part only would take the node for free."""
    rig = Rig()
    rig.step(LauncherLost(False))
    rows = [["5.9-7p.0~3", 5, "running", 3.0, [], None], ["5.9-7.0~2", 5, "past", 1.0, [], over("5.9-7.0~2")]]
    outputs = rig.step(Launched([["held", rows]]))
    assert said(outputs)[0][3]["held"] == ["5.9-7p", "5.9-7"]
    outputs = rig.settle(outputs)
    assert said(outputs) == []
    outputs = rig.step(Launched([over("5.9-7p.0~3")]))
    assert said(outputs)[0][3] == {"rank": 0, "script": [[5, 9, "p", 1.0, 2.0, 0, ""]]}
    rig.settle(outputs)
    assert ["list", "recent"] in told(rig.step())
    outputs = rig.settle(rig.step(Launched([["held", rows[1:]]])))
    assert said(outputs)[0][3] == {"rank": 0, "over": [[5, 9, 1.0, 2.0, 0, "", 0]]}
    rig.settle(outputs)
    assert not rig.agent.placed
    assert told(rig.step()) == []


def test_facts_about_an_older_attempt_do_not_take_the_newer_one_s_with_them(rig: Rig) -> None:
    rig.step(rig.launch(5, 12, queued=True))
    rig.step(rig.launch(6, 13))
    request = write(rig.step(Launched([["start", "6.13-7.0", 1.0, []]])))
    assert request is not None
    # while that is in flight: 5 comes back, and is placed anew
    rig.step(Launched([["unstarted", ["5.12-7.0"]]]))
    rig.step(rig.launch(5, 20))
    rig.step(Launched([["start", "5.20-7.0", 3.0, []]]))
    outputs = rig.step(Answered(request, Appended(14, 7)))
    second = write(outputs)
    assert second is not None
    assert dict(second.exact) == {"attempt/5": "20-7"}
    assert said(outputs)[0][3] == {"rank": 0, "start": [[5, 20, 3.0]]}


def test_two_ranks_of_one_job_in_one_process() -> None:
    rig = Rig((0, 1))
    rig.ready()
    rig.step(rig.launch(5, 12, rank=0, nodes=2), rig.launch(5, 12, rank=1, nodes=2, index=1))
    keys = ["5.12-7.0", "5.12-7.1"]
    outputs = rig.step(Launched([["start", key, 1.0, []] for key in keys] + [over(key) for key in keys]))
    assert [event[3]["rank"] for event in said(outputs)] == [0, 1]
    request = write(outputs)
    assert request is not None
    assert request.exact == (("attempt/5", "12-7"),)
    assert ["ack", keys] in told(rig.settle(outputs))


def test_a_dead_launcher_s_queue_is_reported_unstarted(rig: Rig) -> None:
    rig.step(rig.launch(5, 12), rig.launch(6, 13, queued=True))
    rig.settle(rig.step(Launched([["start", "5.12-7.0", 1.0, []]])))
    outputs = rig.step(LauncherLost(True), LauncherLost(False), Launched([["held", [["5.12-7.0", 5, "running", 1.0, [], None]]]]))
    (hello,) = said(outputs)
    assert hello[3]["held"] == ["5.12-7"]
    request = write(outputs)
    assert request is not None
    assert said(rig.step(Answered(request, Appended(20, 7))))[0][3] == {"rank": 0, "unstarted": [[6, 13]]}


def test_a_stale_epoch_says_hello_again_and_then_the_facts(rig: Rig) -> None:
    rig.step(rig.launch(5, 12))
    request = write(rig.step(Launched([["start", "5.12-7.0", 1.0, []]])))
    assert request is not None
    outputs = rig.step(Answered(request, StaleEpoch(99)), Reopened(Meta("u", 99, 20, 0, 0, "strict", 1, 0.0)))
    assert said(outputs)[0][0] == "hello"
    request = write(outputs)
    assert request is not None
    assert (request.epoch, request.seq) == (99, PROBE + 1)
    outputs = rig.step(Answered(request, Gap(0)))
    request = write(outputs)
    assert request is not None
    assert said(rig.step(Answered(request, Appended(21, 99))))[0][3] == {"rank": 0, "start": [[5, 12, 1.0]]}


def test_the_inbox_is_trimmed_after_the_position_is_kept(rig: Rig) -> None:
    rig.step(rig.launch(5, 12))
    rig.settle(rig.step(Launched([["start", "5.12-7.0", 1.0, []]])))
    rig.step(rig.launch(6, 112))
    outputs = rig.settle(rig.step(Launched([["start", "6.112-7.0", 1.0, []]])))
    trims = [n for n, one in enumerate(outputs) if isinstance(one, Trim)]
    kept = [n for n, one in enumerate(outputs) if isinstance(one, ToLauncher) and one.message[0] == "ack"]
    assert trims
    assert kept
    assert kept[0] < trims[0]


def test_what_cannot_be_read_ends_one_job_at_most_and_never_the_agent(rig: Rig) -> None:
    bad = Messages("node/0", [Message("11-7", b"\xc1"), Message("12-7", pack(5)), Message("13-7", pack([["end"], 7, ["x"]]))])
    assert told(rig.step(bad)) == []
    outputs = rig.step(rig.launch(5, 14, command=None, count="many"))
    request = write(outputs)
    assert request is not None
    (row,) = unpack_events(request.payload)[0][3]["over"]
    assert (row[0], row[1], row[4]) == (5, 14, 1 << 8)
    assert row[5].startswith("spawn: bad order")
    rig.settle(outputs)
    assert told(rig.step(rig.launch(6, 15)))[0][0] == "launch"


def test_a_start_is_not_told_before_the_end_that_gave_its_seat() -> None:
    """Were the rest lost with the node, the job would have started and hold no seat for ever."""
    rows = Rows()
    rows.over = [[1, 7, 1.0, 2.0, 0, "", 2], [2, 7, 2.0, 3.0, 0, "", 3], [3, 7, 3.0, 4.0, 0, "", 4]]
    rows.start = [[2, 7, 2.0], [3, 7, 3.0], [4, 7, 4.0]]
    told: list[tuple[list[int], list[int]]] = []
    while rows:
        first = cut(rows, 1)
        rows = rest(rows, first)
        told.append(([row[0] for row in first.start], [row[0] for row in first.over]))
    assert told == [([2], [1]), ([3], [2]), ([4], [3])]


def test_an_end_that_was_on_its_way_when_its_branch_was_lost_is_told_again(rig: Rig) -> None:
    """Its report cannot be taken: the journal does not know the attempt before a worker has said what becomes of it."""
    rig.agent.meta = META._replace(epochs="7:1")
    rig.settle(rig.step(rig.launch(5, 12)))
    rig.settle(rig.step(Launched([["start", "5.12-7.0", 1.0, [3]]])))
    assert said(rig.step(Launched([over("5.12-7.0", 256)])))[0][3]["over"]  # nobody ever answers
    rig.step(Reopened(META._replace(epoch=9, version=12, epochs="7:1 9:12!12-20")))
    rows = [["5.12-7.0", 5, "over", 1.0, [3], over("5.12-7.0", 256), [ORDER["claim"], 1]]]
    outputs = rig.step(Launched([["held", rows]]))
    assert [event[0] for event in said(outputs)] == ["hello"]
    assert rig.settle(outputs) == []
    outputs = rig.step(rig.orders(14, ["adopted", 5, "12-7"], epoch=9))
    assert said(outputs)[0][3]["over"] == [[5, 12, 1.0, 2.0, 256, "", 0]]


def test_what_had_run_on_a_lost_branch_does_not_run_again_in_the_same_attempt(rig: Rig) -> None:
    """Both branches know the attempt, and the journal goes on from before its prolog was over."""
    rig.agent.meta = META._replace(epochs="7:1")
    rig.step(Reopened(META._replace(epoch=9, version=12, epochs="7:1 9:12!12-20")))
    rows = [["5.9-7.0", 5, "past", 1.0, [], over("5.9-7.0", 256)], ["6.9-7e.0", 6, "past", 1.0, [], over("6.9-7e.0")]]
    rig.settle(rig.step(Launched([["held", rows]])))
    late = "lost: its epilog ran on a branch that is lost"
    for job, end in ((5, [5, 9, 1.0, 2.0, 256, "", 0]), (6, [6, 9, 0.0, 2.0, 9, late, 0])):
        outputs = rig.step(rig.orders(13 + job, ["launch", {**ORDER, "job": job, "attempt": "9-7"}], epoch=9))
        assert not any(message[0] == "launch" for message in told(outputs))
        assert said(outputs)[0][3]["over"] == [end]
        rig.settle(outputs)


def test_what_a_lost_branch_began_waits_for_a_worker_s_word(rig: Rig) -> None:
    """HAZARDS 4, 20: cursors go back to where both branches part, orders of the lost one are dropped, ends are kept back."""
    rig.agent.meta = META._replace(epochs="7:1")
    rig.settle(rig.step(rig.launch(5, 12), rig.launch(8, 13), rig.launch(9, 14, queued=True)))
    rig.settle(rig.step(Launched([["start", "5.12-7.0", 1.0, [3]], ["start", "8.13-7.0", 1.0, [4]]])))
    after = META._replace(epoch=9, version=12, epochs="7:1 9:12!12-20")
    outputs = rig.step(Reopened(after), rig.orders(15, ["end", 5, "12-7", "cancel"]))
    assert Follow("node/0", "11-7") in outputs
    assert told(outputs) == [["recall", ["9.14-7.0"]], ["list", "recent"]]
    assert write(outputs) is None
    rig.step(Launched([["unstarted", ["9.14-7.0"]]]))
    rows = [["5.12-7.0", 5, "running", 1.0, [3], None, [ORDER["claim"], 1]], ["8.13-7.0", 8, "running", 1.0, [4], None],
            ["4.9-7.0", 4, "past", 1.0, [], over("4.9-7.0", 256)]]  # fmt: skip
    outputs = rig.step(Launched([["held", rows]]))
    ((_, _, _, context),) = said(outputs)
    assert (context["epoch"], context["cursor"]) == (9, "11-7")
    assert sorted(context["held"]) == ["4.9-7", "5.12-7", "8.13-7"]
    assert context["claims"] == {"5.12-7": [ORDER["claim"], 1, 1.0], "8.13-7": [ORDER["claim"], 1, 1.0]}
    request = write(outputs)
    assert request is not None
    outputs = rig.step(Answered(request, Appended(13, 9)))
    assert said(outputs)[0][3] == {"rank": 0, "over": [[4, 9, 1.0, 2.0, 256, "", 0]]}  # an end that was lost is told again
    rig.settle(outputs)
    assert write(rig.step(Launched([over("5.12-7.0")]))) is None  # the journal would not know whose end this is
    outputs = rig.step(rig.orders(14, ["adopted", 5, "12-7"], ["forget", "8.13-7"], epoch=9))
    assert told(outputs) == [["end", "8.13-7.0", "fenced"]]
    request = write(outputs)
    assert request is not None
    assert request.exact == (("attempt/5", "12-7"),)
    assert said(outputs)[0][3]["over"] == [[5, 12, 1.0, 2.0, 0, "", 0]]
    rig.settle(outputs)
    ((_, _, _, context),) = said(rig.step(rig.orders(15, ["hello"], epoch=9)))
    assert (context["held"], context.get("claims", {})) == (["8.13-7"], {})  # it is dying: nobody must adopt it
    rig.agent.inflight = None
    assert said(rig.step(Launched([over("8.13-7.0", 15)])))[0][3]["held"] == []


def test_a_job_whose_environment_nobody_has_does_not_run_without() -> None:
    """It would do something else than it was told, and say nothing."""
    held = {"there": packb({"A": "1"})}
    runner = AgentRunner.__new__(AgentRunner)
    runner.store = SimpleNamespace(get_blobs=lambda names: [held.get(name) for name in names])  # type: ignore[assignment]
    sent: list[Any] = []
    runner.client = SimpleNamespace(environment=lambda name, variables: sent.append((name, variables)))  # type: ignore[assignment]
    runner.environments = {}
    good, bad = {"env": "there"}, {"env": "gone"}
    runner._send_environment(good)
    runner._send_environment(bad)
    assert sent == [("there", {"A": "1"})]
    assert "refuse" not in good
    assert bad["refuse"] == "environment of the job: gone is not in the store"
