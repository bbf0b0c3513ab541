"""Which published vectors are checked where, so that none is forgotten; the JSON printed in the RFCs; resource events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkv.journal import constraint, eventlog, jobspec, rset, stdio, taskmap
from fluxkv.journal.catalogue import check_context
from fluxkv.journal.idset import format_ids
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.kvs.errors import Rejected

TESTS = Path(__file__).resolve().parents[1]

# Vector file -> the test file that runs all its cases.
COVERED = {
    "R": "unit/test_format_rset.py",
    "annotations_update": "unit/test_format_directives.py",
    "constraint_match": "unit/test_format_constraint.py",
    "constraint_query": "unit/test_format_constraint.py",
    "dependency_events": "unit/test_dependency.py",
    "dependency_object": "unit/test_dependency.py",
    "dependency_outcome": "unit/test_dependency.py",
    "dependency_uri": "unit/test_dependency.py",
    "directives": "unit/test_format_directives.py",
    "eventlog_entry": "unit/test_format_events.py",
    "file_archive": "unit/test_submission_parts.py",
    "finish_status": "unit/test_format_events.py",
    "fluid_decode": "unit/test_format_small.py",
    "fluid_emoji_alphabet": "unit/test_format_small.py",
    "fluid_encode": "unit/test_format_small.py",
    "fsd": "unit/test_format_small.py",
    "hostlist": "unit/test_format_small.py",
    "idset": "unit/test_format_small.py",
    "jgf": "unit/test_sched_graph.py",
    "job_event": "unit/test_catalogue.py",
    "job_list_constraint": "unit/test_job_constraint.py",
    "job_state": "model/test_model_jobs.py",
    "job_transition": "model/test_model_jobs.py",
    "jobspec_count": "unit/test_format_jobspec.py",
    "jobspec_files": "unit/test_format_jobspec.py",
    "jobspec_update": "unit/test_format_directives.py",
    "jobspec_v1": "unit/test_format_jobspec.py",
    "json_examples": "unit/test_format_table.py",
    "queue_config": "unit/test_config.py",
    "queue_constraint": "unit/test_config.py",
    "range": "unit/test_format_events.py",
    "resource_eventlog": "unit/test_format_table.py",
    "shape": "unit/test_format_stdio.py",
    "stdio_eventlog": "unit/test_format_stdio.py",
    "taskmap_distribution": "unit/test_format_events.py",
    "taskmap_parse": "unit/test_format_events.py",
    "taskmap_raw": "unit/test_format_events.py",
    "urgency": "unit/test_format_events.py",
    "wait_status": "unit/test_format_events.py",
}

# Vector file -> what it waits for. A file that some test does read belongs above.
NOT_YET = {
    "pmi_wire": "MPI bootstrap (RFC 13)",
    "sched_protocol": "a scheduler outside the worker (RFC 27): ours is a function, and has no messages",
    "security_kv": "several users (RFC 38)",
    "signature": "several users (RFC 39)",
    "treepool": "shapes below the node (RFC 49)",
    "treepool_clusters": "shapes below the node (RFC 49)",
}


def test_each_vector_file_has_its_place(spec_dir: Path) -> None:
    there = {path.stem for path in (spec_dir / "vectors").glob("*.json")}
    assert not COVERED.keys() & NOT_YET.keys()
    assert there == COVERED.keys() | NOT_YET.keys()


def test_the_named_tests_read_them() -> None:
    for name, path in COVERED.items():
        assert f'vectors("{name}")' in (TESTS / path).read_text("utf-8"), f"{path} does not read {name}"
    sources = [path.read_text("utf-8") for path in TESTS.rglob("test_*.py") if path.name != Path(__file__).name]
    read = [name for name in NOT_YET if any(f'vectors("{name}")' in source for source in sources)]
    assert not read, f"move to COVERED: {read}"


Vectors = Callable[[str], list[dict[str, Any]]]


def test_json_printed_in_the_rfcs(vectors: Vectors) -> None:
    """What parses as printed is read, and by the parser of its RFC; what does not is refused by all of them."""
    read = 0
    for case in vectors("json_examples"):
        text, spec = case["input"], case["spec"]
        if "error" in case:
            with pytest.raises(ValueError):
                json.loads(text)
            for parser in (eventlog.parse_event, jobspec.parse_jobspec, rset.parse_R, taskmap.parse_map):
                with pytest.raises(Rejected):
                    parser(text)
            continue
        value = json.loads(text)
        assert value == case["expected"]
        if "name" in value and "timestamp" in value:
            event = eventlog.parse_event(" ".join(text.split("\n")))
            assert (event.name, event.timestamp) == (value["name"], value["timestamp"])
            assert event.context == value.get("context")
            if spec in (21, 44) and value["name"] != "alloc":
                check_context("job" if spec == 21 else "resource", event.name, event.context)
            if spec == 24:  # its "eof" is a text, where the RFC demands true or false
                reader = stdio.Reader()
                reader.read("header", {"version": 1, "encoding": {"stdout": "base64"}, "count": {"stdout": 32}})
                assert reader.read(event.name, event.context) == stdio.Data("stdout", (31,), b"meep\n", True)
            read += 1
        elif spec == 31:
            constraint.check(value)
            read += 1
        elif spec == 34:
            assert list(map(list, taskmap.parse_map(text))) == value["map"]
            read += 1
        elif spec == 28 and "resources" in value:
            assert rset.parse_R(value["resources"]).nodes
            read += 1
    assert read > 50


def test_resource_events(vectors: Vectors) -> None:
    for case in vectors("resource_eventlog"):
        state = State()
        R = {"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0"}}], "nodelist": ["n[0-3]"],
                                         "starttime": 0.0, "expiration": 0.0}}  # fmt: skip
        log = [{"timestamp": 1.0, "name": "resource-define", "context": {"method": "configuration", "R": R}}, *case["input"]]
        for number, event in enumerate(log):
            check_context("resource", event["name"], event["context"])
            row = [event["name"], "resource", event["timestamp"], event["context"]]
            state.apply(Commit(number + 1, 5, "", 0, 0, 1.0, [row], {}))
        assert not state.skipped
        assert format_ids(node.rank for node in state.nodes.values() if node.online) == case["expected"]["online"]
        drained = {
            str(node.rank): {"timestamp": node.drain[0], "reason": node.drain[1] or None}
            for node in state.nodes.values()
            if node.drain is not None
        }
        assert drained == case["expected"]["drained"]
