"""Prolog, epilog, housekeeping: what a config may say, and what worker and agent make of facts, one by one."""

from __future__ import annotations

from typing import Any

import pytest
import worker_rig as rig_module

from fluxkv.instances.agent import Agent
from fluxkv.instances.attempts import Host
from fluxkv.instances.deadlines import BACKSTOP_S
from fluxkv.instances.reactor import Launched, LauncherLost, Lead, Messages, ToLauncher, Write
from fluxkv.journal import decide, decide_housekeeping
from fluxkv.journal.config import parse_rules
from fluxkv.journal.fold_jobs import script_result
from fluxkv.journal.job import CLEANUP, INACTIVE, RUN
from fluxkv.journal.scripts import NO_SCRIPTS, why_failed
from fluxkv.journal.snapshot import dump, load, read_head
from fluxkv.journal.wire import Event, pack, unpack_events
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.port import Message, Meta
from fluxkv.tools.eventview import describe, subject_text

PROLOG = {"prolog": {"command": ["/site/prolog"], "per-rank": True}}
EPILOG = {"epilog": {"command": ["/site/epilog"], "per-rank": True}}
HOUSEKEEPING = {"housekeeping": {"command": ["/site/clean"]}}
ALL = {**PROLOG, **EPILOG, **HOUSEKEEPING}


def rig(scripts: dict[str, Any], nodes: int = 2) -> Any:
    return rig_module.Rig(nodes, config={"job-manager": scripts})


def script(rig: Any, id: int, letter: str, *ranks: int, status: int = 0, cause: str = "") -> None:
    """Reports of a script's end."""
    known = rig.__dict__.setdefault("attempts", {})
    attempt = known.setdefault(id, rig.state.jobs[id].attempt)
    for rank in ranks:
        rig.report(rank, script=[[id, attempt, letter, rig.now, rig.now, status, cause]])
    rig.turn()


def orders(rig: Any, rank: int) -> list[str]:
    return [order[0] if order[0] != "script" else order[1]["kind"] for order in rig.orders(rank)]


# -- the config -----------------------------------------------------------------------------------------------


def test_what_a_config_says() -> None:
    assert parse_rules({}).scripts is NO_SCRIPTS
    found = parse_rules({"job-manager": {**PROLOG, "housekeeping": {"command": ["a", "b"], "release-after": "30s"}}}).scripts
    assert found.prolog is not None
    assert found.housekeeping is not None
    assert (found.prolog.command, found.prolog.per_rank, found.prolog.timeout_s) == (("/site/prolog",), True, 1800.0)
    assert (found.prolog.cancel_on_exception, found.epilog) == (True, None)
    assert (found.housekeeping.command, found.housekeeping.per_rank, found.housekeeping.timeout_s) == (("a", "b"), True, 0.0)
    assert found.release_after_s == 30.0
    for text, seconds in (("0", 0.0), ("inf", None), (0, 0.0)):
        table = {"housekeeping": {"command": ["a"], "release-after": text}}
        assert parse_rules({"job-manager": table}).scripts.release_after_s == seconds
    limited = parse_rules({"job-manager": {"prolog": {"command": ["a"], "timeout": "inf", "cancel-on-exception": False}}}).scripts
    assert limited.prolog is not None
    assert (limited.prolog.timeout_s, limited.prolog.per_rank, limited.prolog.cancel_on_exception) == (0.0, False, False)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"prolog": {}}, "job-manager.prolog.command must be a list of words"),
        ({"prolog": {"command": "x"}}, "job-manager.prolog.command must be a list"),
        ({"prolog": {"command": []}}, "job-manager.prolog.command"),
        ({"prolog": {"command": ["a", ""]}}, "job-manager.prolog.command"),
        ({"prolog": ["a"]}, "job-manager.prolog must be a table"),
        ({"epilog": {"command": ["a"], "timeout": "soon"}}, "job-manager.epilog.timeout is not valid"),
        ({"epilog": {"command": ["a"], "per-rank": 1}}, "job-manager.epilog.per-rank is 1"),
        ({"housekeeping": {"command": ["a"], "per-rank": True}}, "job-manager.housekeeping.per-rank is no key"),
        ({"housekeeping": {"command": ["a"], "release-after": -1}}, "release-after is not valid"),
        ({"hooks": {}}, "job-manager.hooks is no key"),
    ],
)
def test_bad_configs_name_the_key(table: dict[str, Any], why: str) -> None:
    with pytest.raises(Rejected, match=why):
        parse_rules({"job-manager": table})


def test_ends_in_words() -> None:
    found = [why_failed([status, 0.0, cause]) for status, cause in
             ((0, ""), (3 << 8, ""), (9, ""), (15, "timeout"), (9, "lost: x"),
              (256, "spawn: task 0: /x: no such file"))]  # fmt: skip
    assert found == ["", "exit code 3", "was killed by signal 9", "timed out", "was lost", "did not start: /x: no such file"]


# -- the worker -----------------------------------------------------------------------------------------------


def test_tasks_are_ordered_when_the_prolog_is_over_everywhere() -> None:
    found = rig(PROLOG)
    id = found.submit(rig_module.jobspec(nodes=2))
    assert orders(found, 0) == orders(found, 1) == ["prolog"]
    script(found, id, "p", 0)
    assert orders(found, 0) == ["prolog"]
    script(found, id, "p", 0, status=256)  # said again, and otherwise: the first word holds
    script(found, id, "p", 1)
    assert orders(found, 0) == ["prolog", "launch"]
    assert found.job(id).exception is None
    launch = next(order for message in found.store.messages(found.store.keys.inbox("node/1"))
                  for order in rig_module.unpack(message.data) if order[0] == "launch")  # fmt: skip
    assert launch[1]["attempt"] == found.job(id).attempt_id
    found.started(id)
    found.over(id)
    found.turn()
    names = ["alloc", "prolog-start", "prolog-finish", "start", "finish", "release", "free", "clean"]
    assert found.names(id)[-8:] == names


def test_a_time_limit_is_for_the_tasks() -> None:
    found = rig(PROLOG)
    id = found.submit(rig_module.jobspec(duration=60.0))
    before = found.job(id).expiration
    found.turn(seconds=60 + BACKSTOP_S + 5)
    assert (found.job(id).state, found.job(id).exception) == (RUN, None)
    script(found, id, "p", 0)
    assert found.job(id).expiration == pytest.approx(found.now + 60)
    assert found.job(id).expiration > before + 60
    found.turn(seconds=60 + BACKSTOP_S + 5)
    assert found.job(id).exception[0] == "timeout"


def test_a_failed_prolog_ends_the_job_and_the_other_prologs() -> None:
    found = rig({**PROLOG, **EPILOG})
    id = found.submit(rig_module.jobspec(nodes=2))
    script(found, id, "p", 1, status=3 << 8)
    job = found.job(id)
    assert (job.state, job.exception) == (CLEANUP, ["prolog", "prolog on rank 1: exit code 3"])
    assert found.orders(0)[-1] == ["end", id, job.attempt_id + "p", "prolog"]
    script(found, id, "p", 0, status=15, cause="ended:prolog")
    assert {rank: node.drain and node.drain[1] for rank, node in found.state.nodes.items()} == {
        0: None, 1: f"prolog for job {decide.f58(id)}: exit code 3",
    }  # fmt: skip
    assert orders(found, 0)[-1] == "epilog"
    script(found, id, "e", 0, 1)
    assert (found.job(id).state, found.job(id).result.name) == (INACTIVE, "FAILED")
    assert not {"start", "finish", "release"} & set(found.names(id))
    assert not found.state.nodes[0].used_cores


def test_a_prolog_that_must_not_be_cancelled_is_waited_for() -> None:
    found = rig({"prolog": {"command": ["a"], "cancel-on-exception": False}})
    id = found.submit(rig_module.jobspec(nodes=2))
    assert [len(found.orders(rank)) for rank in (0, 1)] == [1, 0]  # once a job: on its first node
    found.do(decide.raise_exception(found.state, id, "cancel", 0, "", 1, found.now))
    found.turn()
    assert orders(found, 0) == ["prolog"]
    with pytest.raises(Rejected, match="is not running"):
        decide.kill(found.state, id, 15, 1, found.now)
    script(found, id, "p", 0)
    assert found.names(id)[-3:] == ["prolog-finish", "free", "clean"]
    assert orders(found, 0) == ["prolog"]


def test_nothing_is_placed_ahead_and_kept_nodes_are_no_whole_ones() -> None:
    found = rig(HOUSEKEEPING)
    first = found.submit()
    found.report(0, over=[[first, found.job(first).attempt, found.now - 0.06, found.now, 0, "", 0]])
    found.turn()
    assert (found.job(first).state, found.state.nodes[0].used_cores) == (INACTIVE, 1)
    others = [found.submit() for _ in range(4)]
    assert [found.job(id).granted for id in others] == [None] * 4
    assert [found.job(id).state == RUN for id in others] == [True, True, True, False]
    script(found, first, "h", 0)
    assert found.job(others[3]).state == RUN
    assert found.store.bumps([f"attempt/{first}"]) == [0]


@pytest.mark.parametrize(("after", "early"), [(None, []), ("0", [0]), ("10s", [])])
def test_nodes_come_back_together_or_one_by_one(after: str | None, early: list[int]) -> None:
    table = {"command": ["/site/clean"], **({"release-after": after} if after else {})}
    found = rig({"housekeeping": table}, nodes=3)
    id = found.submit(rig_module.jobspec(nodes=3))
    found.started(id)
    found.over(id)
    found.turn()
    assert found.job(id).state == INACTIVE
    free = lambda: [rank for rank, node in found.state.nodes.items() if not node.used_cores]  # noqa: E731
    script(found, id, "h", 0)
    assert free() == early
    found.turn(seconds=11)
    assert free() == ([0] if after else [])
    other = found.new_worker("worker-1")  # a new worker finds what has been waiting
    found.worker = other
    found.turn(Lead(True))
    script(found, id, "h", 1, status=1 << 8)
    script(found, id, "h", 2)
    assert free() == [0, 1, 2]
    assert found.state.keeping == {}
    assert found.state.nodes[1].drain[1] == f"housekeeping for job {decide.f58(id)}: exit code 1"


def test_what_a_hello_does_not_list_is_lost_and_what_is_not_read_is_not() -> None:
    found = rig(ALL, nodes=1)
    id = found.submit()
    job = found.job(id)
    found.hello(0, [job.key + "p"])
    found.turn()
    found.hello(0, [], cursor=job.attempt - 1)  # its order is still in the inbox
    found.turn()
    assert (found.job(id).state, found.job(id).script[3]) == (RUN, {})
    found.hello(0, [])
    found.turn()
    assert found.job(id).exception == ["prolog", "prolog on rank 0: was lost"]
    assert found.job(id).script[0] == "epilog"
    found.hello(0, [])
    found.turn()
    assert found.job(id).state == INACTIVE
    assert found.state.keeping[id].results == {}
    found.hello(0, [])
    found.turn()
    assert found.state.keeping == {}
    assert found.state.nodes[0].drain[1].startswith("prolog for job")


def test_what_ended_a_job_does_not_end_its_epilog() -> None:
    found = rig({**PROLOG, **EPILOG}, nodes=1)
    id = found.submit()
    found.do(decide.raise_exception(found.state, id, "cancel", 0, "", 1, found.now))
    found.turn()
    job = found.job(id)
    found.hello(0, [job.key + "p"])  # the order to end the prolog may have died with its launcher
    found.turn()
    assert [order[2] for order in found.orders(0) if order[0] == "end"] == [job.attempt_id + "p"] * 2
    script(found, id, "p", 0, status=15, cause="ended:cancel")
    found.hello(0, [job.key + "e"])
    found.turn()
    assert [order[0] for order in found.orders(0)] == ["script", "end", "end", "script"]
    script(found, id, "e", 0)
    assert (found.job(id).state, found.job(id).result.name, found.state.nodes[0].drain) == (INACTIVE, "CANCELED", None)


def test_a_stale_worker_ends_no_housekeeping_twice() -> None:
    found = rig(HOUSEKEEPING, nodes=1)
    id = found.submit()
    found.started(id)
    found.over(id)
    found.turn()
    other = found.new_worker("worker-1")
    other.step(found.now, [Lead(True)])
    script(found, id, "h", 0)
    second = found.submit()
    assert found.job(second).state == RUN
    found.worker = other
    found.turn()
    names = [event[0] for commit in found.commits() for event in commit.events]
    assert names.count("housekeeping-finish") == 1


def test_without_scripts_nothing_is_paid() -> None:
    found = rig_module.Rig(1)
    id = found.submit()
    assert orders(found, 0) == ["launch"]
    found.started(id)
    found.over(id)
    found.turn()
    assert found.job(id).script is None
    assert found.state.keeping_news == {}


# -- the agent ------------------------------------------------------------------------------------------------

META = Meta("u", 7, 10, 0, 0, "strict", 1, 0.0)
ORDER = {"kind": "epilog", "job": 12, "user": 5, "attempt": "11-7", "command": ["/site/epilog", 3], "timeout_s": 9.0,
         "kill_timeout_s": 2.0, "nodes": "0-1"}  # fmt: skip


def agent() -> Agent:
    made = Agent(META, Host({0: "n0"}, "b", "s", "memory:", "/t", {}), {0: "10-7"})
    made.step(1.0, [LauncherLost(False), Launched([["held", []]])])
    made.inflight = None
    return made


def messages(*orders: Any, version: int = 20) -> Messages:
    return Messages("node/0", [Message(f"{version}-7", pack(list(orders)))])


def test_an_agent_has_scripts_run_beside_the_jobs_and_reports_their_ends() -> None:
    one = agent()
    (launch,) = [out.message for out in one.step(2.0, [messages(["script", ORDER])]) if isinstance(out, ToLauncher)]
    ((attempt,),) = [launch[1]]
    assert (attempt["key"], attempt["limit_s"], attempt["kill_grace_s"], attempt["cwd"]) == ("12.11-7e.0", 9.0, 2.0, "/")
    assert attempt["tasks"] == [[0, ["/site/epilog", "3"], None, {}]]
    environment = attempt["env_set"]
    assert [environment[name] for name in ("FLUX_JOB_USERID", "FLUX_JOB_RANKS", "FLUXKV_SCRIPT")] == ["5", "0-1", "epilog"]
    assert "tmpdir" not in attempt
    again = one.step(3.0, [messages(["script", ORDER], version=21)])
    assert not [out for out in again if isinstance(out, ToLauncher)]
    key = attempt["key"]
    one.step(4.0, [Launched([["start", key, 3.0, [1]], ["timeout", key, 4.0]])])
    over = ["over", key, 15, 3.0, 4.0, None, "timeout", "", 0, 0.0, 12]
    outputs = one.step(9.0, [Launched([over])])
    (request,) = [out.request for out in outputs if isinstance(out, Write)]
    assert unpack_events(request.payload)[0][3] == {"rank": 0, "script": [[12, 11, "e", 3.0, 4.0, 15, "timeout"]]}
    assert request.exact == (("attempt/12", "11-7"),)


def test_a_hello_names_scripts_and_an_end_reaches_them() -> None:
    one = agent()
    one.step(2.0, [messages(["script", {**ORDER, "kind": "prolog", "attempt": ""}])])
    outputs = one.step(3.0, [messages(["end", 12, "20-7p", "cancel"], version=21)])
    assert ["end", "12.20-7p.0", "cancel"] in [out.message for out in outputs if isinstance(out, ToLauncher)]
    rows = [["12.20-7p.0", 12, "running", 2.5, [9], None]]
    outputs = one.step(30.0, [LauncherLost(False), Launched([["held", rows]])])
    (request,) = [out.request for out in outputs if isinstance(out, Write)]
    assert unpack_events(request.payload)[0][3]["held"] == ["12.20-7p"]


def test_an_order_that_makes_no_sense_is_a_failed_script() -> None:
    one = agent()
    outputs = one.step(20.0, [messages(["script", {**ORDER, "timeout_s": "soon"}])])
    (request,) = [out.request for out in outputs if isinstance(out, Write)]
    ((job, version, letter, _, _, status, cause),) = unpack_events(request.payload)[0][3]["script"]
    assert (job, version, letter, status) == (12, 11, "e", 256)
    assert cause.startswith("spawn: bad order")


# -- signals to housekeeping ----------------------------------------------------------------------------------


def test_a_signal_reaches_housekeeping_where_it_goes_on() -> None:
    found = rig(HOUSEKEEPING, nodes=3)
    id = found.submit(rig_module.jobspec(nodes=3))
    attempt = found.job(id).attempt_id
    found.started(id)
    found.over(id)
    found.turn()
    script(found, id, "h", 0)
    with pytest.raises(Rejected, match="no housekeeping is going on"):
        decide_housekeeping.kill(found.state, [id + 1], None, 15, 1, found.now)
    with pytest.raises(Rejected, match="no such signal"):
        decide_housekeeping.kill(found.state, None, None, 99, 1, found.now)
    assert decide_housekeeping.kill(found.state, [id], [0], 15, 1, found.now).events == []
    found.do(decide_housekeeping.kill(found.state, None, None, 9, 1, found.now))
    found.turn()
    last = [found.orders(rank)[-1] for rank in range(3)]
    assert last[1] == last[2] == ["signal", id, attempt + "h", 9]
    assert last[0][0] == "script"
    script(found, id, "h", 1, 2, status=9)
    assert found.state.nodes[2].drain[1] == f"housekeeping for job {decide.f58(id)}: was killed by signal 9"


def test_events_of_scripts_and_cron_read_well() -> None:
    def told(name: str, subject: int | str, context: dict[str, Any]) -> str:
        return describe(Event(name, subject, 1.0, context), {0: "n0"})

    row = [12, 7, "p", 1.5, 2.5, 256, ""]
    assert told("report", "node/0", {"rank": 0, "script": [row]}) == f"prolog of {decide.f58(12)} over (exit code 1)"
    assert told("housekeeping-start", "housekeeping/12", {"claims": [[0, "0-1", "", 0, 1]], "attempt": "7-5"}) == "n0[core 0-1]"
    assert subject_text("housekeeping/12") == f"housekeeping/{decide.f58(12)}"
    assert subject_text("housekeeping/x") == "housekeeping/x"
    fire = told("cron-fire", "cron/1", {"at": 60.0, "next": 0.0, "job": 12})
    assert fire.startswith(decide.f58(12))
    assert fire.endswith("next due -")
    assert told("cron-skip", "cron/1", {"at": 60.0, "next": 0.0, "reason": "busy"}).startswith("left out: busy, for ")
    assert told("cron-create", "cron/1", {"name": "x", "spec": 5}) == "name=x spec=5"  # by hand: as it stands


def test_two_prologs_of_a_snapshot_are_two() -> None:
    """Jobs whose records are equal when a snapshot is taken go their own ways after it."""
    first = rig(PROLOG, nodes=1)
    ids = [first.submit(turn=False), first.submit(turn=False)]
    first.turn()
    scripts = [first.state.jobs[id].script for id in ids]
    assert scripts[0] == scripts[1]
    assert scripts[0][0] == "prolog"
    head, chunks = dump(first.state)
    state = load(read_head(head), chunks)
    one, other = (state.jobs[id] for id in ids)
    assert script_result(state, one, one.attempt, "prolog", one.ranks[0], [0, 1.0, ""])
    assert one.script[3]
    assert not other.script[3]
