"""`fluxkv resource query` as it is typed: commands, errors, where what is written."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

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
        "info 1\nlist\nstat\ncancel 1\ninfo 1\nquit\nmatch allocate job.yaml\n", "-F", "rlite",
    )  # fmt: skip
    assert done.exit_code == 0
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line != FRAME]
    assert lines == [
        '[{"rank": "0", "children": {"core": "0-1"}}]', "INFO: JOBID=1", "INFO: RESOURCES=ALLOCATED", "INFO: SCHEDULED AT=Now",
        '[{"rank": "1", "children": {"core": "0-1"}}]', "INFO: JOBID=2", "INFO: RESOURCES=ALLOCATED", "INFO: SCHEDULED AT=Now",
        '[{"rank": "0", "children": {"core": "0-1"}}]', "INFO: JOBID=3", "INFO: RESOURCES=RESERVED", "INFO: SCHEDULED AT=60",
        "INFO: 1, ALLOCATED, 0, 60", "INFO: 1, ALLOCATED, 0, 60", "INFO: 2, ALLOCATED, 0, 60", "INFO: 3, RESERVED, 60, 60",
        "INFO: 7 vertices, 2 allocated, 1 reserved jobs", "ERROR: nonexistent job 1",
    ]  # fmt: skip


def test_what_goes_to_the_file() -> None:
    done = typed("match without_allocating job.yaml\nmatch satisfiability job.yaml\ninfo 9\n", "-t", "out")
    assert done.stdout == "ERROR: nonexistent job 9\n"
    text = Path("out").read_text()
    assert "INFO: JOBID=-1\nINFO: RESOURCES=MATCHED\nINFO: SCHEDULED AT=Now\n" in text
    assert text.endswith(f"{FRAME}\nINFO: Satisfiable request\n{FRAME}\n")


def test_how_long_it_took() -> None:
    assert typed("match allocate job.yaml\n", "-e").stderr.startswith("INFO: ELAPSE=")


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
    assert done.stdout == "Could not find path /dne in resource graph.\n" * 4


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
