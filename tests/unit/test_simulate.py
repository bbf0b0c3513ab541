"""`fluxkv simulate` as it is typed: figures, lines of jobs, pictures, and what it says of wrong input."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from trees import recipe, vertex

from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.swf import parse_swf
from fluxkv.schedulers.workload import Begun
from fluxkv.tools.gantt import Panel
from fluxkv.tools.gantt import picture as picture_of
from fluxkv.tools.main import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
CLASSIC = "".join(line + "\n" for line in re.findall(r'^\{"cores": .*\}$', README, re.M))
FIGURES = re.search(r"```\n(1 node, 16 cores .*?)```", README, re.S)
TRACE = """\
; MaxNodes: 4
; MaxProcs: 8
; UnixStartTime: 1700000000
  1  0   0  100  4  -1 -1  4  120  -1 1  7 1 -1 1 -1 -1 -1
  2  5  95   50  8  -1 -1  8   60  -1 1  7 1 -1 1 -1 -1 -1
  3  6  -1   -1  8  -1 -1  8   60  -1 5  8 1 -1 1 -1 -1 -1
  4  7 143   20  4  -1 -1 -1   -1  -1 1  8 1 -1 1 -1 -1 -1
  5  8 200   20  2  -1 -1  2   10  -1 0  8 1 -1 1 -1  4 30
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("jobs.jsonl").write_text(CLASSIC)
    Path("trace.swf").write_text(TRACE)
    return tmp_path


def typed(*words: str) -> Any:
    return CliRunner().invoke(cli, ["simulate", *words], catch_exceptions=False)


def refused(*words: str) -> str:
    with pytest.raises(Rejected) as error:
        typed(*words)
    return str(error.value)


def lines(*words: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(typed(*words, "--jobs", "-o", "csv").stdout)))


def test_the_example_of_the_readme() -> None:
    assert FIGURES is not None
    assert len(CLASSIC.splitlines()) == 11
    done = typed("jobs.jsonl", "-c", "16", "--policy", "fcfs", "--policy", "easy", "--policy", "hybrid:reservation-depth=3")
    assert done.exit_code == 0
    assert done.stdout == FIGURES[1]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("policy", "first"), [("fcfs", "1"), ("easy", "1,6,11"), ("hybrid:reservation-depth=3", "1,7,11"), ("conservative", "1,7,11")]
)
def test_who_starts_at_once_on_sixteen_cores(policy: str, first: str) -> None:
    rows = lines("jobs.jsonl", "-c", "16", "--policy", policy)
    assert ",".join(row["id"] for row in rows if float(row["start"]) == 0.0) == first
    assert sum(row["backfilled"] == "True" for row in rows if row["id"] in ("6", "7", "11")) == (policy != "fcfs") * 2


@pytest.mark.parametrize("form", ["csv", "json", "text"])
def test_who_is_left_out_is_said_whatever_the_form(form: str) -> None:
    done = typed("jobs.jsonl", "-c", "15", "--jobs", "-o", form)
    assert done.stderr.startswith("note: 1 job that cannot run on these resources left out; 5: needs 16 cores")


def test_a_trace_on_the_machine_of_its_header() -> None:
    done = typed("trace.swf", "--json", "--policy", "easy")
    found = json.loads(done.stdout)
    assert (found["nodes"], found["cores"]) == (4, 8)
    assert found["notes"] == [
        "1 job that never ran (cancelled, or nothing known of it) left out",
        "1 job without a requested time: taken to ask for what they ran",
        "1 job ran longer than requested: they run on, and policies do not know it",
    ]
    recorded, easy = found["policies"]
    assert (recorded["policy"], recorded["backfilled"], easy["policy"], easy["backfilled"]) == ("recorded", None, "easy", 2)
    assert recorded["makespan_s"] == 228.0
    rows = {row["id"]: row for row in lines("trace.swf", "--policy", "easy") if row["policy"] == "easy"}
    start = {id: float(row["start"]) - 1.7e9 for id, row in rows.items()}
    assert start == {"1": 0.0, "2": 100.0, "4": 7.0, "5": 57.0}  # 5 comes 30 s after the end of 4
    assert easy["wait_mean_s"] == pytest.approx((0 + 95 + 0 + 0) / 4)
    assert easy["slowdown_max"] == pytest.approx(145 / 50)
    assert easy["utilisation"] == pytest.approx((400 + 400 + 80 + 40) / (8 * 150))
    assert easy["throughput"] == pytest.approx(4 * 3600 / 150)
    with gzip.open("trace.swf.gz", "wt") as file:
        file.write(TRACE)
    assert typed("trace.swf.gz", "--json", "--policy", "easy").stdout == done.stdout


def test_on_a_graph_with_dependencies_and_constraints() -> None:
    Path("two.graphml").write_text(recipe(("cluster", "node", 2), ("node", "core", 4), ("node", "gpu", 1)))
    Path("some.jsonl").write_text(
        '# by hand\n{"id": "a", "run": 10, "nodes": 2, "exclusive": true}\n{"run": 5, "gpus": 1, "after": "a", "user": "ann"}\n'
        '{"id": "c", "run": 5, "cores": 4, "after-start": ["a"], "urgency": 20}\n{"run": 1, "cores": 9}\n{"run": 1, "urgency": 0}\n'
    )
    done = typed("some.jsonl", "--resources", "two.graphml", "--jobs")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["JOBID", "NAME", "CORES", "SUBMIT", "START", "WAIT", "RUN", "BF"], ["a", "8", "0s", "0s", "0s", "10.0s"],
        ["c", "4", "0s", "10.0s", "10.0s", "5s"], ["3", "1", "10.0s", "10.0s", "0s", "5s"],
    ]  # fmt: skip
    assert done.stderr.splitlines() == [
        "note: 1 job of urgency 0 left out",
        "note: 1 job that cannot run on these resources left out; 5: needs 9 cores on one node; the largest has 4",
    ]


def test_slots_side_by_side_are_mixed_where_the_traverser_is_flexible() -> None:
    slots = [vertex("slot", 2, vertex("core"), vertex("gpu"), label="a"), vertex("slot", 2, vertex("core", 2), label="b")]
    tasks = [{"command": ["x"], "slot": "a", "count": {"per_slot": 1}}]
    jobspec = {"version": 999, "resources": [vertex("node", 1, *slots)], "tasks": tasks, "attributes": {"system": {"duration": 60}}}
    Path("mix.jsonl").write_text(json.dumps({"jobspec": jobspec, "run": "1m"}))
    assert "none of the jobs can run" in refused("mix.jsonl", "-c", "4", "-g", "1")
    assert [line["cores"] for line in lines("mix.jsonl", "-c", "4", "-g", "1", "--traverser", "flexible")] == ["3"]


def test_wrong_input_is_told_by_its_line() -> None:
    for text, why in (
        ("1 2 3\n", "line 1: 3 fields, 18 are wanted"),
        (TRACE + "6 x" + " -1" * 16, "line 9: 'x' is no number"),
        (TRACE + "1 0" + " -1" * 16, "line 9: job 1 is in line 4, too"),
        (TRACE + "6 nan" + " -1" * 16, "line 9: field 2 is 'nan'"),
        (TRACE + "6.5 0" + " -1" * 16, "line 9: '6.5' is no number of a job"),
    ):
        with pytest.raises(Rejected, match=re.escape(why)):
            parse_swf(text.splitlines())
    for text, why in (
        ('{"run": 1}\n{"run": -1}', "line 2: run: "), ("{", "line 1: not JSON: "), ('{"cores": 1}', "line 1: run is missing"),
        ('{"run": 1, "after": 7}', "line 1: after: no job here has the id 7"),
        ('{"run": 1, "core": 2}', "'core' is no key of a job"),
        ('{"run": 1, "id": "a"}\n{"run": 1, "id": "a"}', "line 2: id: 'a' is that of an earlier job"),
        ('{"run": 1, "nodes": 2, "tasks": 1}', "line 1: 2 nodes for 1 task: "), ('{"run": 1, "after": 1}', "it waits for itself"),
        ('{"run": 1, "jobspec": {}, "cores": 1}', "jobspec and cores exclude each other"), ("", "holds no jobs"),
    ):  # fmt: skip
        Path("bad.jsonl").write_text(text)
        told = refused("bad.jsonl", "-c", "4")
        assert told.startswith("bad.jsonl")
        assert why in told
    assert "on what? the workload does not say" in refused("jobs.jsonl")
    assert "none of the jobs can run on these resources; job 1: needs 8 cores on one node" in refused("jobs.jsonl", "-c", "1")
    assert "no queue policy is called 'nosuch'" in refused("jobs.jsonl", "-c", "16", "--policy", "nosuch")
    assert "no match policy is called" in refused("jobs.jsonl", "-c", "16", "--match-policy", "nosuch")
    assert "none of these policies has a reservation-depth" in refused("jobs.jsonl", "-c", "16", "--reservation-depth", "2")
    assert "has no parameter reservation-depth" in refused("jobs.jsonl", "-c", "16", "--policy", "easy:reservation-depth=2")
    assert "policy easy is named twice" in refused("jobs.jsonl", "-c", "16", "--policy", "easy", "--policy", "easy")
    assert "pictures are SVG" in refused("jobs.jsonl", "-c", "16", "--gantt", "x.png")
    assert typed("jobs.jsonl", "--since", "-1d").exit_code == 2
    assert typed("jobs.jsonl", "-N", "2", "--resources", "x").exit_code == 2


def picture(*words: str) -> ElementTree.Element:
    done = typed(*words, "--gantt", "plan.svg")
    assert done.exit_code == 0
    return ElementTree.parse("plan.svg").getroot()


def texts_of(svg: ElementTree.Element) -> list[tuple[float, float, float, str]]:
    """(left, right, baseline, text) of each text, by generous widths of letters."""
    found = []
    for one in svg.iter("{http://www.w3.org/2000/svg}text"):
        kind, text = one.get("class", ""), one.text or ""
        wide = len(text) * {"title": 10.2, "name": 7.9, "label": 6.1}.get(kind, 6.2)
        x = float(one.get("x", "0")) - (wide if kind == "end" else wide / 2 if kind in ("mid", "label") else 0)
        found.append((x, x + wide, float(one.get("y", "0")), text))
    return found


def check_texts(svg: ElementTree.Element) -> list[str]:
    """No text lies on another, or sticks out."""
    texts = texts_of(svg)
    wide, high = float(svg.get("width", "0")), float(svg.get("height", "0"))
    for n, (left, right, y, text) in enumerate(texts):
        assert left >= 0, text
        assert right <= wide, text
        assert 0 < y < high, text
        for other in texts[:n]:
            assert right <= other[0] or left >= other[1] or abs(y - other[2]) >= 9.5, (text, other)
    return [text for *_, text in texts]


def test_a_picture_of_few_jobs_shows_each() -> None:
    svg = picture("jobs.jsonl", "-c", "16", "--policy", "fcfs", "--policy", "easy")
    told = check_texts(svg)
    assert told[:2] == ["11 jobs on 1 node", "each colour is a job"]
    assert {"fcfs", "easy", "node0"} <= set(told)
    assert told.count("8") == 2  # each job's label in each panel
    titles = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert "6: at 0s for 2h01m, waited 0s, 6 cores on 1 node, by backfill" in titles


def test_a_picture_of_ten_thousand_jobs_on_a_thousand_nodes_is_small() -> None:
    """Jobs of 1 to 20 nodes, half a node, or a few cores; at all times, and the nodes' names are long."""
    nodes = [NodeRecord(rank, f"partition-a-node-{rank:04}", 0xFFFF, 0, 0, ()) for rank in range(1000)]
    begun = []
    for n in range(10_000):
        first, count, cores = n * 7919 % 980, 1 + n * 31 % 20, (0xFFFF, 0xFF, 0xF00)[n % 3]
        claims = tuple(Claim(rank, cores, 0, 0, 1) for rank in range(first, first + count))
        start = 1.7e9 + n * 2.0
        begun.append(Begun(n, start - n % 50, start, start + 1 + n * 7919 % 900, claims, False))
    text = picture_of([Panel("easy", begun), Panel("fcfs", begun)], nodes, {n: f"f{n}" for n in range(10_000)}, True)
    told = check_texts(ElementTree.fromstring(text))
    assert told[0] == "10,000 jobs on 1,000 nodes"
    assert told[1].startswith("cells of 7 nodes")
    assert sum(text.startswith("partition-a-no") for text in told) > 40
    assert len(text) < 4_000_000
