"""Jobspecs (RFC 25 version 1, RFC 14 general) against the published vectors and files."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal import jobspec
from fluxkv.journal.summary import summarize
from fluxkv.kvs.errors import Rejected

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "version": 1,
    "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
    "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
    "attributes": {"system": {"duration": 0}},
}


@pytest.fixture(scope="module")
def peer_files():
    folder = Path(os.environ.get("FLUXKV_PEER_DIR") or ROOT.parent / "shared" / "peer") / "flux-core"
    if not folder.is_dir():
        pytest.skip(f"no files of flux-core in {folder}: set FLUXKV_PEER_DIR")
    return folder


def test_v1_vectors(vectors):
    for case in vectors("jobspec_v1"):
        for form in (
            copy.deepcopy(case["input"]),
            json.dumps(case["input"]),
            json.dumps(case["input"], indent=1),
        ):
            if "error" in case:
                with pytest.raises(Rejected):
                    jobspec.parse_jobspec(form)
            else:
                assert jobspec.parse_jobspec(form) == case["input"], case["note"]


def test_count_vectors(vectors):
    for case in vectors("jobspec_count"):
        request = copy.deepcopy(GOOD) | {"version": 999}
        request["resources"][0]["with"][0]["count"] = case["input"]
        if "error" in case:
            with pytest.raises(Rejected, match=r"resources\[0\]\.with\[0\]\.count: "):
                jobspec.parse_jobspec(request)
        else:
            jobspec.parse_jobspec(request)


def test_files_of_the_rfcs(vectors, spec_dir):
    for case in vectors("jobspec_files"):
        text = (spec_dir / case["input"]).read_text("utf-8")
        if case["expected"]["rfc25_schema"]:
            assert jobspec.parse_jobspec(text)["version"] == 1
        request = jobspec.parse_jobspec(text, general=True)
        counts = jobspec.resource_counts(request)
        assert counts.slots >= 1
        assert counts.tasks >= 1


def test_valid_files_of_flux_core(peer_files):
    files = sorted((peer_files / "jobspec-valid").glob("*.yaml"))
    assert files
    for path in files:
        if path.stem == "basic_v1":  # its task names a slot that is not there; RFC 14 forbids this
            with pytest.raises(Rejected, match=r"tasks\[0\]\.slot"):
                jobspec.parse_jobspec(path.read_bytes())
            continue
        jobspec.parse_jobspec(path.read_bytes(), general=True)


def test_invalid_files_of_flux_core(peer_files):
    files = sorted((peer_files / "jobspec-invalid").glob("*.yaml"))
    assert files
    for path in files:
        text = path.read_text("utf-8")
        for general in (False, True):
            with pytest.raises(Rejected) as caught:
                jobspec.parse_jobspec(text, general)
            assert caught.value.code == "bad-jobspec"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("resources[0].with[0].count", 0),
        ("resources[0].with[0].color", "red"),
        ("resources[0].label", None),
        ("tasks[0].command[0]", "a\0b"),
        ("tasks[0].slot", "other"),
        ("tasks[0].count.total", True),
        ("attributes.system.duration", "1h"),
        ("attributes.system.duration", float("inf")),
        ("attributes.system.cwd", "relative"),
        ("attributes.system.environment", {"A=B": "x"}),
        ("attributes.system.environment.A", 1),
        ("attributes.system.environment.A", "\udc80"),
        ("attributes.system.constraints", {"nosuch": []}),
        ("attributes.system.dependencies[0].value", 3),
        ("attributes.system.job.name", 3),
        ("attributes.system.shell.options", []),
        ("attributes.user", []),
        ("attributes.system.x", {1: 2}),
        ("attributes.system.x", b"bytes"),
        ("attributes.system.x", 1 << 64),
    ],
    ids=lambda v: v if isinstance(v, str) and v.isprintable() else "",
)
def test_the_error_names_the_place(path, value):
    request = copy.deepcopy(GOOD)
    request["attributes"]["system"]["dependencies"] = [{"scheme": "afterok", "value": "f1"}]
    target, words = request, path.replace("[", ".[").split(".")
    for word in words[:-1]:
        if word.startswith("["):
            target = target[int(word[1:-1])]
        else:
            if isinstance(target, dict) and word == "count":
                target["count"] = {}
            target = target.setdefault(word, {})
    last = words[-1]
    target[int(last[1:-1]) if last.startswith("[") else last] = value
    with pytest.raises(Rejected) as caught:
        jobspec.parse_jobspec(request)
    assert path.rpartition(".")[0] in str(caught.value) or path in str(caught.value)


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


HOSTILE = {
    "json depth": '{"a":' + "[" * 500_000,
    "yaml depth": "a: " + "[" * 500_000,
    "yaml block depth": "\n".join(" " * n + "a:" for n in range(60)),
    "object depth": {"version": nested(100_000)},
    "large": "a" * (jobspec.MAX_BYTES + 1),
    "large object": {"version": 1, "x": ["y" * 1000] * 2000},
    "aliases": "a: &a [1]\nb: *a\n",
    "laughs": 'a: &a ["x"]\n' + "".join(f"{n}: [*a, *a, *a]\n" for n in range(9)),
    "tag": "a: !!python/object/apply:os.system ['true']",
    "binary": "a: !!binary aGk=",
    "sexagesimal": "a: " + ":".join(["59"] * 300_000),
    "digits": '{"a": ' + "1" * 100_000 + "}",
    "yaml digits": "a: " + "1" * 100_000,
    "date": "version: 2001-01-01",
    "bad date": "version: 2001-99-99",
    "two documents": "a: 1\n---\nb: 2\n",
    "not a number": '{"version": NaN}',
    "list": "[1]",
    "empty": "",
    "control": "a: \x00",
    "surrogate": '{"a": "\\ud800"}',
    "raw surrogate": "a: \ud800",
    "bytes": b"\xff\xfe",
    "none": None,
    "number": 3,
    "merge": "<<: 3",
    "unhashable key": "? [a]\n: b",
    "many scalars": "- " * 500_000,
    "open quote": '"' + "a" * 500_000,
    "flow": "[" + "a, " * 300_000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_is_refused_quickly(case):
    began = time.process_time()
    with pytest.raises(Rejected) as caught:
        jobspec.parse_jobspec(HOSTILE[case])
    assert len(str(caught.value)) < 1000
    assert time.process_time() - began < 5


@given(st.text(" abcversion:{}[]&*!?|>-'\"\n\t#%@,1.~", max_size=40))
def test_any_text_is_read_or_rejected(text):
    with pytest.raises(Rejected):
        jobspec.parse_jobspec(text)


@pytest.mark.parametrize(
    ("options", "resource", "count"),
    [
        ({}, {"type": "slot", "count": 1}, {"per_slot": 1}),
        ({"ntasks": 4, "cores_per_task": 2}, {"type": "slot", "count": 4}, {"per_slot": 1}),
        ({"nodes": 2}, {"type": "node", "count": 2, "slots": 1}, {"per_slot": 1}),
        ({"nodes": 2, "ntasks": 6}, {"type": "node", "count": 2, "slots": 3}, {"per_slot": 1}),
        ({"nodes": 2, "ntasks": 5}, {"type": "node", "count": 2, "slots": 3}, {"total": 5}),
        (
            {"nodes": 1, "exclusive": True},
            {"type": "node", "count": 1, "slots": 1, "exclusive": True},
            {"per_slot": 1},
        ),
    ],
    ids=str,
)
def test_options_become_resources(options, resource, count):
    request = jobspec.from_options(["/bin/true", "x"], **options)
    assert jobspec.parse_jobspec(json.dumps(request)) == request
    (top,) = request["resources"]
    assert (top["type"], top["count"], top.get("exclusive")) == (
        resource["type"],
        resource["count"],
        resource.get("exclusive"),
    )
    if top["type"] == "node":
        assert top["with"][0]["count"] == resource["slots"]
    assert request["tasks"][0]["count"] == count
    assert request["version"] == 1
    assert jobspec.resource_counts(request).tasks == options.get("ntasks", options.get("nodes", 1))
    assert jobspec.job_name(request) == "true"
    assert jobspec.command_of(request) == ["/bin/true", "x"]


def test_options_become_attributes():
    request = jobspec.from_options(
        ["a"],
        gpus_per_task=1,
        duration_s=60.0,
        cwd="/tmp",
        environment={"A": "b", "C": None, "BAD": "\udc80"},
        name="n",
        queue="q",
        constraint="ssd -host:n1",
        shell_options={"verbose": 1, "output.mode": "truncate"},
        attributes={"foo": 1, "user.x.y": [2], "attributes.system.bank": "b", ".system.project": "p"},
    )
    assert request["attributes"] == {
        "system": {
            "duration": 60.0,
            "cwd": "/tmp",
            "environment": {"A": "b", "C": None},
            "job": {"name": "n"},
            "queue": "q",
            "constraints": {"and": [{"properties": ["ssd"]}, {"not": [{"hostlist": ["n1"]}]}]},
            "shell": {"options": {"verbose": 1, "output": {"mode": "truncate"}}},
            "foo": 1,
            "bank": "b",
            "project": "p",
        },
        "user": {"x": {"y": [2]}},
    }
    assert jobspec.job_name(request) == "n"


def test_memory_makes_the_general_form():
    request = jobspec.from_options(["a"], nodes=2, ntasks=4, cores_per_task=3, memory_mb_per_task=100)
    assert request["version"] == 999
    counts = jobspec.resource_counts(jobspec.parse_jobspec(request))
    assert counts == jobspec.Counts(2, 4, 4, 12, 0, 400, True)
    assert [jobspec.memory_mb(2, unit) for unit in ("", "MB", "GiB", "g", "TB")] == [
        2,
        2,
        2048,
        2048,
        2 << 20,
    ]
    with pytest.raises(Rejected):
        jobspec.memory_mb(1, "furlong")


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 0},
        {"ntasks": 0},
        {"nodes": 3, "ntasks": 2},
        {"exclusive": True},
        {"cores_per_task": 0},
        {"duration_s": -1},
        {"duration_s": float("inf")},
        {"cwd": "x"},
        {"constraint": "a&"},
        {"constraint": {"x": []}},
        {"attributes": {"a..b": 1}},
        {"attributes": {"duration.x": 1}},
        {"attributes": {"x": b""}},
        {"environment": {"": "x"}},
        {"command": []},
    ],
    ids=str,
)
def test_bad_options(options):
    with pytest.raises(Rejected):
        jobspec.from_options(**({"command": ["a"]} | options))


def test_settings():
    assert jobspec.parse_setting("a.b") == ("a.b", 1)
    assert jobspec.parse_setting("a=2.5") == ("a", 2.5)
    assert jobspec.parse_setting("a=b=c") == ("a", "b=c")
    assert jobspec.parse_setting('a={"x":[]}') == ("a", {"x": []})
    with pytest.raises(Rejected):
        jobspec.parse_setting("=1")


def test_general_counts():
    request = jobspec.parse_jobspec(
        {
            "version": 999,
            "resources": [
                {"type": "node", "count": {"min": 2}, "with": [
                    {"type": "slot", "count": 3, "label": "a", "with": [{"type": "core", "count": "2,4"}]},
                    {"type": "slot", "count": 1, "label": "b", "with": [
                        {"type": "core", "count": 1}, {"type": "memory", "count": 4, "unit": "GB"}]}]}
            ],
            "tasks": [
                {"command": ["x"], "slot": "a", "count": {"per_slot": 2}},
                {"command": ["x"], "slot": "b", "count": {"total": 5}},
                {"command": ["x"], "slot": "a", "count": {"per_resource": {"type": "core", "count": 1}}},
            ],
            "attributes": {},
        }
    )  # fmt: skip
    assert jobspec.resource_counts(request) == jobspec.Counts(2, 8, 12 + 5 + 12, 14, 0, 8192, False)


def test_of_alternatives_the_first_is_counted():
    alternatives = [
        {"type": "xor_slot", "count": 3, "label": "a", "with": [{"type": "core", "count": 2}]},
        {"type": "xor_slot", "count": 1, "label": "b", "with": [{"type": "core", "count": 1}, {"type": "gpu", "count": 1}]},
    ]
    request = {
        "version": 999, "resources": [{"type": "node", "count": 2, "with": alternatives}], "attributes": {},
        "tasks": [{"command": ["x"], "slot": "b", "count": {"per_slot": 1}}],
    }  # fmt: skip
    assert jobspec.resource_counts(jobspec.parse_jobspec(request)) == jobspec.Counts(2, 6, 6, 12, 0, 0, False)
    assert summarize(request)[3] == (2, 6, 12)
