"""`fluxkv resource` beyond the plain tables: filters, views, formats, the event log; and what a reload may change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.adoption import adopt
from fluxkv.instances.agent import Agent
from fluxkv.instances.attempts import Host
from fluxkv.instances.run_agent import AgentRunner
from fluxkv.journal import decide, decide_config, decide_inventory, snapshot
from fluxkv.journal.decide import Decision
from fluxkv.journal.rset import NodeRecord, ResourceSet, parse_R, render_set
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Meta

T_END = 2_000_000_000.0


def say(shell: Any, *decisions: Decision) -> None:
    for decision in decisions:
        shell.sample.journal.append(decision, shell.sample.journal.store.meta().version)
    shell.sample.journal.catch_up(shell.sample.state)


def R(*nodes: tuple[int, str, int], **more: Any) -> ResourceSet:
    """rank, host, cores (a mask)."""
    return ResourceSet(tuple(NodeRecord(rank, host, cores, 0, more.get("memory", 8192), ()) for rank, host, cores in nodes))


# -- looking --------------------------------------------------------------------------------------------------


def test_filters_by_target_and_queue(shell: Any) -> None:
    config = {"queues": {"batch": {"hosts": "node[0-1]"}, "all": {}},
              "policy": {"jobspec": {"defaults": {"system": {"queue": "all"}}}}}  # fmt: skip
    say(shell, decide_config.load(shell.sample.state, config, "", 1, 5.0))
    out = lambda *words: shell.out("resource", *words)  # noqa: E731
    assert out("info", "-i", "0,2") == "2 Nodes, 8 Cores, 1 GPUs\n"
    assert out("info", "-i", "node[1-99]") == "2 Nodes, 8 Cores, 1 GPUs\n"
    assert out("info", "-i", "nowhere") == "0 Nodes, 0 Cores, 0 GPUs\n"
    assert out("info", "-q", "batch") == "2 Nodes, 8 Cores, 0 GPUs\n"
    assert out("info", "-q", "batch,all", "-s", "free,allocated") == "2 Nodes, 8 Cores, 0 GPUs\n"
    assert out("list", "-n", "-s", "all", "-o", "{queue}|{nodelist}") == "batch,all|node[0-1]\nall|node2\n"
    assert out("list", "-n", "-s", "all", "-o", "{nodelist}") == "node[0-2]\n"
    assert out("drain", "-n", "-q", "batch") == ""
    assert out("status", "-n", "-q", "batch", "-o", "{state} {nnodes}") == "avail 2\n"
    assert shell("resource", "list", "-q", "nosuch")[2] == "queue nosuch is not defined"
    assert json.loads(out("R", "-q", "batch"))["execution"]["nodelist"] == ["node[0-1]"]


def test_lists_of_ids_and_parts_of_r(shell: Any) -> None:
    rows = shell.out("resource", "list", "-n", "-o", "rlist", "-s", "all,free,allocated").splitlines()
    assert [row.split(None, 4)[4] for row in rows] == [
        "rank[0-1]/core[0-3] rank2/core[0-3],gpu0", "rank0/core[2-3]", "rank0/core[0-1] rank1/core[0-3]",
    ]  # fmt: skip
    free = parse_R(shell.out("resource", "R", "-s", "free"))
    assert [(node.rank, node.host, node.cores) for node in free.nodes] == [(0, "node0", 0b1100)]
    assert shell("resource", "R", "-i", "nowhere")[0] == 1
    assert shell("resource", "info", "-s", "lost")[2] == "'lost' is no state of resources"


def test_status_has_every_condition(shell: Any) -> None:
    claims = [[0, "2-3", "", 0, 1]]
    say(
        shell,
        Decision([["offline", "resource", 9.0, {"idset": "2"}]]),
        Decision([["submit", 99, 9.0, {"urgency": 0, "userid": 1, "flags": 0, "version": 1, "jobspec": {"version": 1}}],
                  ["housekeeping-start", "housekeeping/99", 9.0, {"claims": claims, "attempt": "7-5"}]]),
        decide.drain(shell.sample.state, [1], "hot", 0, 9.0),
    )
    out = lambda *words: shell.out("resource", "status", *words)  # noqa: E731
    lines = [line.split() for line in out("-n").splitlines()]
    assert lines == [["avail", "✔", "1", "node0"], ["housekeeping", "✔", "1", "node0"], ["draining", "✔", "1", "node1"],
                     ["drained*", "✗", "1", "node2"]]  # fmt: skip
    assert out("-n", "-s", "drain", "-o", "{statex} {status} {up.ascii} {reason}") == (
        "draining online y hot\ndrained offline n bad fan\n"
    )
    assert out("-n", "-s", "torpid,online", "-o", "{state} {nnodes}") == "online 2\ntorpid 0\n"
    assert out("-n", "-s", "torpid,online", "--skip-empty", "-o", "{state} {nnodes}") == "online 2\n"
    assert out("-n", "-s", "allocated,offline", "-o", "{state} {ranks}") == "offline 2\nallocated 0-1\n"
    assert shell("resource", "status", "-s", "sleepy")[2] == "'sleepy' is no status"
    assert shell.out("resource", "list", "-n", "-s", "free", "-o", "{ncores}") == "0\n"


def test_formats_by_name(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "fluxkv").mkdir()
    (tmp_path / "fluxkv" / "resource.toml").write_text('[list.formats.mine]\nformat = "{state}={ncores}"\n')
    assert shell.out("resource", "list", "-n", "-o", "mine", "-s", "up") == "up=8\n"
    assert "mine" in shell.out("resource", "list", "-o", "help")
    assert "mine" not in shell.out("resource", "status", "-o", "help")
    assert shell.out("resource", "list", "-o", "get-config=mine").startswith("[list.formats.mine]\n")
    assert shell("resource", "status", "-o", "mine")[2] == "no output format is called 'mine'"
    monkeypatch.setenv("FLUXKV_RESOURCE_DRAIN_FORMAT_DEFAULT", "{ranks}")
    assert shell.out("resource", "drain", "-n") == "2\n"
    assert shell("resource", "list", "-o", "{nope}")[0] == 1
    assert shell("resource", "drain", "-f", "-u", "2", "x")[0] == 2


def test_eventlog(shell: Any) -> None:
    lines = shell.out("resource", "eventlog").splitlines()
    assert [line.split()[1] for line in lines] == ["resource-define", "online", "drain", "undrain", "drain"]
    assert lines[0].endswith('resource-define method="configuration"')  # R is shown by `resource R`
    assert lines[2].split(None, 2)[2] == 'idset="1" nodelist="node1" overwrite=0 reason="firmware"'
    rows = [json.loads(line) for line in shell.out("resource", "eventlog", "-f", "json", "-w", "undrain").splitlines()]
    assert [row["name"] for row in rows] == ["resource-define", "online", "drain", "undrain"]
    assert rows[3]["context"] == {"idset": "1", "nodelist": "node1", "reason": "", "overwrite": 0}
    status, out, error = shell("resource", "eventlog", "-w", "torpid", "--timeout", "0.05s")
    assert (status, len(out.splitlines()), error) == (1, 5, "timed out: no torpid event came")
    assert shell("resource", "eventlog", "-w", "finish")[2] == "'finish' is no event of resources"


# -- another inventory ----------------------------------------------------------------------------------------


def test_reload_adds_changes_and_removes_and_keeps_what_runs(shell: Any) -> None:
    state = shell.sample.state
    kept = state.nodes[0]
    before = state.subjects()
    made, words = decide_inventory.reload(state, R((0, "node0", 0b111), (1, "node1", 15), (3, "new", 3)), 9.0)
    assert words == ["added new (rank 3)", "removed node2 (rank 2)", "changed node0 (rank 0)"]
    assert {"plan/default", "node/0", "node/2", "node/3", "resource"} <= set(made.since) == set(made.bumps)
    say(shell, made)
    assert state.nodes[0] is kept
    assert (kept.cores, kept.used_cores, kept.online, kept.jobs) == (0b111, 0b11, True, {shell.ids["j"]})
    assert sorted(state.nodes) == [0, 1, 3]
    assert (state.nodes[3].online, state.nodes[3].host) == (False, "new")
    after = state.subjects()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "node/0", "node/1", "node/2", "node/3",
    }  # fmt: skip
    again = shell.sample.journal.at()
    assert again.digest() == state.digest()
    assert shell.out("replay", "--diff", "live")
    made, words = decide_inventory.reload(state, parse_R(state.R), 9.0)
    assert (made.events, words) == ([], [])


@pytest.mark.parametrize(
    ("inventory", "why"),
    [
        (R((1, "node1", 15), (2, "node2", 15)), r"rank 0 \(node0\) is not in it, and jobs hold some of it"),
        (R((0, "other", 15), (1, "node1", 15)), r"rank 0 \(node0\) becomes other, and jobs hold some of it"),
        (R((0, "node0", 0b10), (1, "node1", 15)), r"rank 0 \(node0\) is to be without cores 0, in use now"),
        (R((0, "node0", 15), (1, "node1", 15), memory=100), r"without 1024 MiB of memory, in use now"),
    ],
)
def test_what_is_in_use_stays(shell: Any, inventory: ResourceSet, why: str) -> None:
    with pytest.raises(Rejected, match=why) as caught:
        decide_inventory.reload(shell.sample.state, inventory, 9.0)
    assert caught.value.code == "in-use"


def test_a_queue_keeps_its_hosts_and_a_child_its_resources(shell: Any) -> None:
    state = shell.sample.state
    config = {"queues": {"batch": {"hosts": "node2"}}}
    say(shell, decide_config.load(state, config, "", 1, 5.0))
    with pytest.raises(Rejected, match="queue batch has the host node2"):
        decide_inventory.reload(state, R((0, "node0", 15), (1, "node1", 15)), 9.0)
    made, words = decide_inventory.reload(state, R((0, "node0", 15), (1, "node1", 15), (2, "node2", 15), (3, "node2", 1)), 9.0)
    assert words == ["added node2 (rank 3)", "changed node2 (rank 2)"]
    say(shell, made)
    assert state.nodes[3].properties == ("+batch",)
    state.instance = {**state.instance, "parent": "x"}
    with pytest.raises(Rejected, match="resources of its job"):
        decide_inventory.reload(state, R((0, "node0", 15)), 9.0)


def test_a_placement_in_between_refuses_the_reload(shell: Any) -> None:
    state = shell.sample.state
    made, _ = decide_inventory.reload(state, R((0, "node0", 15), (1, "node1", 15)), 9.0)
    at = state.version
    say(shell, Decision([["memo", "instance", 9.0, None]], bumps=["plan/default"]))  # a grant bumps the plan only
    answer = shell.sample.journal.append(made, at)
    assert answer.things == ("plan/default",)


def test_reload_from_the_command_line(shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "R.json"
    path.write_text(json.dumps(render_set(R((0, "node0", 15), (1, "node1", 15), (2, "node2", 7)))))
    assert shell.out("resource", "reload", str(path)) == ""
    assert shell.out("resource", "info", "-i", "2") == "1 Nodes, 3 Cores, 0 GPUs\n"
    assert shell("resource", "reload", "-", input=b"{")[2].startswith("standard input: not JSON")
    assert shell("resource", "reload", "-", input=json.dumps(render_set(R((0, "node0", 15)))).encode())[2].startswith(
        "the inventory is refused: rank 1 (node1) is not in it"
    )


def test_an_agent_adopts_and_forgets_nodes() -> None:
    host = Host({0: "a", 1: "b"}, "b", "s", "memory:", "/t", {})
    agent = Agent(Meta("u", 7, 10, 0, 0, "strict", 1, 0.0), host, {0: "3-7", 1: "4-7"})
    agent.hello_due = False
    assert adopt(agent, {0: "a", 2: "c"}, "9-7") == [2]
    assert (agent.cursors, agent.host.ranks, sorted(agent.rows), agent.hello_due) == ({0: "3-7", 2: "9-7"}, [0, 2], [0, 2], True)


def test_where_to_read_for_a_new_node_is_kept_before_it_speaks(tmp_path: Path) -> None:
    """Else the agent's successor would begin behind orders sent meanwhile, and their jobs would be lost."""
    runner = AgentRunner.__new__(AgentRunner)
    host = Host({0: "a"}, "b", "s", "memory:", "/t", {})
    runner.reactor = Agent(Meta("u", 7, 10, 0, 0, "strict", 1, 0.0), host, {0: "3-7"})
    runner.store = runner.subscription = None  # type: ignore[assignment]
    runner.keys, runner.names = Keys("/"), {}
    runner.cursor_file, runner.cursor_length = str(tmp_path / "cursors.json"), 0
    runner.cursor_fd = os.open(runner.cursor_file, os.O_RDWR | os.O_CREAT)
    runner._nodes = lambda store: ({0: "a", 2: "c"}, {})  # type: ignore[method-assign]
    runner._adopt(9, "9-7")
    os.close(runner.cursor_fd)
    assert runner._cursors(host, "50-7") == {0: "3-7", 2: "9-7"}
    rebooted = Host({0: "a", 2: "c"}, "another boot", "s", "memory:", "/t", {})
    assert runner._cursors(rebooted, "50-7") == {0: "50-7", 2: "50-7"}  # nothing of before is started again


def test_another_end_of_the_inventory_is_told_and_survives_a_snapshot(shell: Any) -> None:
    state = shell.sample.state
    state.digest()
    inventory = parse_R(state.R)._replace(expiration=T_END)
    decision, words = decide_inventory.reload(state, inventory, 5.0)
    assert words == ["expiration 2000000000"]
    say(shell, decision)
    assert state.expiration == T_END
    head, chunks = snapshot.dump(state)
    assert snapshot.load(snapshot.read_head(head), chunks).expiration == T_END
