"""`fluxkv resource query` as it is typed: commands, errors, where what is written."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import networkx
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import recipe

from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree.policies import POLICIES
from fluxkv.schedulers.tree.writers import FORMATS
from fluxkv.tools import resource_query_cmd
from fluxkv.tools.main import cli
from fluxkv.tools.query_session import COMMANDS
from fluxkv.tools.resource_query_cmd import completions

RECIPE = recipe(("cluster", "node", 2), ("node", "core", 2))
JOB = "resources: [{type: slot, count: 1, with: [{type: node, count: 1, with: [{type: core, count: 2}]}]}]\n"
FRAME = "INFO: ============================="


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.graphml").write_text(RECIPE)
    Path("job.yaml").write_text(JOB + "attributes: {system: {duration: 60}}\n")
    return tmp_path


def typed(commands: str, *options: str) -> Any:
    arguments = ["resource", "query", "-L", "tiny.graphml", "-P", "low", *options]
    return CliRunner().invoke(cli, arguments, input=commands, catch_exceptions=False)


def test_a_session() -> None:
    done = typed(
        "# a comment\n\nmatch allocate job.yaml\nmatch allocate_orelse_reserve job.yaml\nmatch allocate_orelse_reserve job.yaml\n"
        "i 1\nlist\ncancel 1\ninfo 1\nquit\nmatch allocate job.yaml\n", "-F", "rlite",
    )  # fmt: skip
    assert done.exit_code == 0
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line != FRAME]
    lines = [line.rpartition(", ")[0] if line.startswith(("INFO: 1,", "INFO: 2,", "INFO: 3,")) else line for line in lines]
    assert lines == [
        '[{"rank": "0", "children": {"core": "0-1"}}]', "INFO: JOBID=1", "INFO: RESOURCES=ALLOCATED", "INFO: SCHEDULED AT=Now",
        '[{"rank": "1", "children": {"core": "0-1"}}]', "INFO: JOBID=2", "INFO: RESOURCES=ALLOCATED", "INFO: SCHEDULED AT=Now",
        '[{"rank": "0", "children": {"core": "0-1"}}]', "INFO: JOBID=3", "INFO: RESOURCES=RESERVED", "INFO: SCHEDULED AT=60",
        "INFO: 1, ALLOCATED, 0, job.yaml", "INFO: 1, ALLOCATED, 0, job.yaml", "INFO: 2, ALLOCATED, 0, job.yaml",
        "INFO: 3, RESERVED, 60, job.yaml", "INFO: 1, CANCELED, 0, job.yaml",
    ]  # fmt: skip


def test_a_job_that_gave_everything_back_is_listed_as_canceled() -> None:
    written = typed("match allocate job.yaml\n", "-F", "rv1").stdout.splitlines()[0]
    Path("R").write_text(written)
    done = typed("match allocate job.yaml\npartial-cancel 1 rv1exec R\nm allocate job.yaml\nremove 0 false\nlist\n")
    assert [line.rpartition(", ")[0] for line in done.stdout.splitlines()[-2:]] == [
        "INFO: 1, CANCELED, 0, job.yaml", "INFO: 2, CANCELED, 0, job.yaml",
    ]  # fmt: skip


def test_figures_of_the_matches() -> None:
    said = typed("stat\nmatch allocate job.yaml\ns\n").stdout.splitlines()
    names = ["INFO: Num. of Jobs Matched", "INFO: Min. Match Time", "INFO: Max. Match Time", "INFO: Avg. Match Time"]
    assert said[:4] == [f"{name}: 0" for name in names]
    assert [line.partition(": ")[0] + ": " + line.split(": ")[1] for line in said[-4:]] == names
    assert said[-4] == f"{names[0]}: 1"


def test_help_is_about_one_command_or_all() -> None:
    assert len(typed("help\n").stdout.splitlines()) == len(COMMANDS) + 1
    assert typed("h pc\nhelp nothing\n").stdout.splitlines() == [
        "partial-cancel (pc) JOB jgf|rv1exec FILE [stats]", "ERROR: unknown command: nothing",
    ]  # fmt: skip


def test_properties_are_told_in_the_order_of_their_names() -> None:
    done = typed("g /cluster0/node0\np /cluster0/node0 b=2\nset-property /cluster0/node0 a=1\nget-property /cluster0/node0\n")
    assert done.stdout.splitlines() == ["No properties were found for /cluster0/node0 (vtx's uniq_id=1).", "a=1", "b=2"]
    done = typed("set-property /cluster0 a\nset-property /cluster0 a=\nset-property /cluster0 =b\n")
    assert done.stdout == "Incorrect input format. \nPlease use `set-property <resource> PROPERTY=VALUE`.\n" * 3


def test_what_goes_to_the_file() -> None:
    done = typed("match without_allocating job.yaml\nmatch satisfiability job.yaml\ninfo 9\n", "-t", "out")
    assert done.stdout == "ERROR: jobid doesn't exist: 9\n"
    text = Path("out").read_text()
    assert "INFO: JOBID=-1\nINFO: RESOURCES=MATCHED\nINFO: SCHEDULED AT=Now\n" in text
    assert text.endswith(f"{FRAME}\nINFO: Satisfiable request\n{FRAME}\n")


def test_how_long_it_took() -> None:
    done = typed("match allocate job.yaml\n", "-e")
    assert done.stderr.startswith("INFO: ELAPSE=")
    assert done.stdout.splitlines()[1:8] == [
        "INFO: Vertex Count: 7", "INFO: Edge Count: 6", "INFO: by_type Key-Value Pairs: 3", "INFO: by_name Key-Value Pairs: 5",
        "INFO: by_path Key-Value Pairs: 7", "INFO: number of vertices with rank -1: 5", "INFO: number of vertices with rank 0-1: 1",
    ]  # fmt: skip


def test_the_graph_is_written_at_the_end_as_it_is_then() -> None:
    typed("remove /cluster0/node1 true\nset-property /cluster0/node0 a=b\n", "-o", "left")
    assert Path("left.dot").read_text().splitlines()[:2] == ["digraph G {", '0[label="cluster0"];']
    assert '0->1 [label="containment"];' in Path("left.dot").read_text()
    typed("remove /cluster0/node1 true\nset-property /cluster0/node0 a=b\n", "-o", "left", "--graph-format", "graphml")
    graph = networkx.read_graphml("left.graphml")
    assert sorted(data["name"] for _, data in graph.nodes(data=True)) == ["cluster0", "core0", "core1", "node0"]
    assert [data["props"] for _, data in graph.nodes(data=True) if data["type"] == "node"] == ["a=b"]
    assert {data["member_of"] for _, _, data in graph.edges(data=True)} == {"containment"}
    done = typed("", "-o", "missing/left")
    assert done.exit_code == 1
    assert "missing/left.dot" in done.stderr


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("frobnicate", "unknown command"),
        ("match", "malformed command"),
        ("match sometimes job.yaml", "malformed command"),
        ("match allocate 'job.yaml", "malformed command"),
        ("match allocate missing.yaml", "cannot read missing.yaml"),
        ("match allocate tiny.graphml", "Jobspec error for 1: "),
        ("match allocate warp.yaml", 'Jobspec error for 1: Value of "type" must be a resource type known to fluxion'),
        ("multi-match allocate job.yaml", "malformed command"),
        ("cancel 5", "cancel: ERROR: nonexistent job 5"),
        ("cancel five", "malformed command"),
        ("partial-cancel 1 jgf missing", "cannot read missing"),
        ("partial-cancel 1 rv1exec tiny.graphml", "error encountered while removing job 1"),
        ("partial-cancel 1 csv x", "unsupported reader csv"),
        ("update allocate jgf tiny.graphml 1 0 10", "is not JSON"),
        ("update allocate csv x 1 0 10", "unsupported reader csv"),
        ("update attach x", "malformed command"),
        ("attach tiny.graphml", "attach: ERROR: tiny.graphml is not JSON"),
        ("remove /cluster0/node7 true", "Could not find path /cluster0/node7"),
        ("remove [0-9] false", "not all of ranks [0-9] are here"),
        ("remove x false", "remove: ERROR: "),
        ("find status=odd", "find: ERROR: bad expression"),
        ("set-status /cluster0 sideways", "unrecognized status"),
        ("get-status", "malformed command"),
        ("get-property", "malformed command"),
    ],
)
def test_what_is_wrong_is_said_and_the_session_goes_on(command: str, error: str) -> None:
    Path("warp.yaml").write_text("resources: [{type: warp, count: 1}]\n")
    done = typed(f"{command}\nmatch allocate job.yaml\n")
    assert done.exit_code == 0
    assert error in done.stderr
    assert "JOBID=1" in done.stdout


def test_paths_that_are_not_there_are_told_in_the_output() -> None:
    done = typed("set-status /dne down\nget-status /dne\nset-property /dne a=b\nget-property /dne\n")
    said = "Could not find path /dne in resource graph.\n"
    assert done.stdout == said * 2 + "Couldn't find path /dne in resource graph.\n" + said


def test_several_at_once_stop_at_the_first_that_fails() -> None:
    done = typed("multi-match allocate job.yaml job.yaml job.yaml job.yaml\nlist\n")
    assert done.stdout.count("JOBID=") == 3
    assert done.stdout.count("No matching resources found") == 1


def test_an_allocation_is_imposed_as_it_was_written() -> None:
    written = typed("match allocate job.yaml\n", "-F", "rv1").stdout.splitlines()[0]
    Path("R").write_text(written)
    Path("graph").write_text(json.dumps(json.loads(written)["scheduling"]))
    for reader, name in (("rv1exec", "R"), ("jgf", "graph"), ("jgf_shorthand", "graph")):
        done = typed(f"update allocate {reader} {name} 4 0 90\nmatch allocate job.yaml\nmatch allocate job.yaml\n", "-F", "rlite")
        lines = [line for line in done.stdout.splitlines() if line != FRAME]
        assert lines[:2] == ['[{"rank": "0", "children": {"core": "0-1"}}]', "INFO: JOBID=4"]
        assert lines[4:6] == ['[{"rank": "1", "children": {"core": "0-1"}}]', "INFO: JOBID=5"]
        assert lines[-2:] == ["INFO: No matching resources found", "INFO: JOBID=6"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("-L", "missing"), "missing"),
        (("-L", "job.yaml"), "not XML"),
        (("-f", "jgf"), "not JSON"),
        (("-S", "XX"), "no view"),
        (("-S", "PA"), "has no power"),
        (("-p", "core"), "bad prune filter"),
    ],
)
def test_options_that_cannot_be(options: tuple[str, ...], error: str) -> None:
    with pytest.raises((Rejected, FileNotFoundError), match=error):
        typed("", *options)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda nodes: nodes.append({"id": "9", "metadata": {"type": "node", "name": "lost9"}}), "lost9 .id 9. is below no root"),
        (lambda nodes: nodes[1]["metadata"].update(size=10**30), "/cluster0/node1: its size is above"),
    ],
)
def test_graphs_that_say_too_much(change: Any, error: str) -> None:
    nodes = [{"id": str(n), "metadata": {"type": kind}} for n, kind in enumerate(("cluster", "node"))]
    change(nodes)
    edges = [{"source": "0", "target": "1", "metadata": {"subsystem": "containment"}}]
    Path("bad.json").write_text(json.dumps({"graph": {"nodes": nodes, "edges": edges}}))
    with pytest.raises(Rejected, match=error):
        typed("", "-L", "bad.json", "-f", "jgf")


def test_options_offer_what_there_is() -> None:
    """They are named twice so that --help need not load the matcher."""
    assert tuple(POLICIES) == resource_query_cmd.POLICIES
    assert FORMATS == resource_query_cmd.FORMATS


def test_help_names_every_command() -> None:
    lines = typed("help\n").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*COMMANDS, "quit"]


def test_what_a_tab_offers(files: Path) -> None:
    (files / "jobs").mkdir()
    assert completions([], "ma") == ["match "]
    assert completions([], "set-") == ["set-property ", "set-status "]
    assert completions(["match"], "sat") == ["satisfiability "]
    assert completions(["match", "allocate"], "jo") == ["job.yaml ", "jobs/"]
    assert completions(["update"], "") == ["allocate ", "reserve "]
    assert completions(["partial-cancel", "1"], "r") == ["rv1exec "]


JUNK = st.sampled_from([None, True, -1, 0, 1, 10**30, 1.5, "", "x", "node", "0-3", [], {}, [1], {"a": 1}, "\0"])
PLACES = ("/cluster0", "/cluster0/node1", "/cluster0/node1/core0")
GRAPH = {
    "graph": {
        "nodes": [
            {"id": str(n), "metadata": {"type": kind, "id": n, "rank": n, "size": 1, "paths": {"containment": PLACES[n]}}}
            for n, kind in enumerate(("cluster", "node", "core"))
        ],
        "edges": [{"source": "0", "target": "1", "metadata": {}}, {"source": "1", "target": "2"}],
    }
}  # fmt: skip
LITE = {"R_lite": [{"rank": "0-1", "children": {"core": "0-1"}}], "nodelist": ["node[0-1]"], "starttime": 0, "expiration": 0}
LINES = (
    "match allocate job", "match allocate_orelse_reserve job", "update allocate jgf graph 7 0 9", "update reserve rv1exec R 8 1 9",
    "update allocate jgf_shorthand graph 9 20 1", "partial-cancel 1 jgf graph", "partial-cancel 2 rv1exec R stats", "attach graph",
    "remove [0] false", "remove /cluster0/node1 true", "find sched-now=free", "cancel 1", "set-status /cluster0/node1 down", "list",
)  # fmt: skip


def spoilt(value: Any, where: list[int], junk: Any) -> Any:
    """A copy of a document with one value in it replaced."""
    value = copy.deepcopy(value)
    inner = value
    for n, step in enumerate(where):
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = keys[step % len(keys)]
        if n == len(where) - 1 or not isinstance(inner[key], (dict, list)) or not inner[key]:
            inner[key] = junk
            break
        inner = inner[key]
    return value


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["graph", "R", "job"]), st.lists(st.integers(0, 5), min_size=1, max_size=6), JUNK,
    st.lists(st.sampled_from(LINES), max_size=8), st.sampled_from(["simple", "jgf", "rv1"]),
)  # fmt: skip
def test_no_file_brings_a_session_down(which: str, where: list[int], junk: Any, commands: list[str], form: str) -> None:
    slot = {"type": "slot", "count": 1, "with": [{"type": "node", "count": 1, "with": [{"type": "core", "count": 2}]}]}
    documents = {"graph": GRAPH, "R": {"version": 1, "execution": LITE}, "job": {"resources": [slot]}}
    for name, document in documents.items():
        Path(name).write_text(json.dumps(spoilt(document, where, junk) if name == which else document))
    done = typed("\n".join(commands), "-F", form)
    assert done.exit_code == 0
    loaded = CliRunner().invoke(cli, ["resource", "query", "-L", "graph", "-f", "jgf"], input="find status=up\n")
    assert loaded.exception is None or isinstance(loaded.exception, (Rejected, SystemExit)), loaded.exc_info


@pytest.mark.parametrize("options", [("-P", "nosuch"), ("-L", "nosuch"), ("-p", "ALL")])
def test_wrong_input_leaves_the_output_file_as_it_was(files: Path, options: tuple[str, ...]) -> None:
    Path("out").write_text("before")
    with contextlib.suppress(Rejected, OSError):
        assert typed("match allocate job.yaml\n", "-t", "out", *options).exit_code
    assert Path("out").read_text() == "before"
    done = typed("match allocate job.yaml\n", "-t", "nosuch/out")
    assert done.exit_code
    assert "nosuch/out" in done.output
