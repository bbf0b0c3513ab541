"""Shell options of a jobspec as values, and the files that follow from them."""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.instances.attempts import Host, build_attempt
from fluxkv.instances.shell_options import (
    check_system,
    grace_of,
    parse_pretended,
    parse_shell_options,
    shell_options_of,
)
from fluxkv.kvs.errors import Rejected


def test_defaults_and_values() -> None:
    plain = parse_shell_options(None)
    assert (plain.cpus, plain.gpus, plain.kill_grace_s, plain.warn, plain.append) == ("on", "on", None, None, False)
    said = parse_shell_options({"kill-timeout": 2})
    assert [grace_of(one, ["/a/fluxkv", "start", "x"]) for one in (plain, said)] == [15.0, 2.0]
    assert [grace_of(one, ["x", "start"]) for one in (plain, said)] == [5.0, 2.0]
    assert parse_shell_options({"cpu-affinity": 1}).cpus == "on"
    assert parse_shell_options({"signal": 1}).warn == (60.0, 10)
    assert parse_shell_options({"signal": {"signum": "USR2", "timeleft": "5m"}}).warn == (300.0, 12)
    assert parse_shell_options({"output": {"stdout": "o"}}).stdout.path == "o"
    assert parse_shell_options({"mpi": "none", "unheard-of": {}}) == plain
    assert parse_pretended({"exec": {"test": {"run_duration": "0.5s", "wait_status": 256}}}) == (0.5, 256)


@pytest.mark.parametrize(
    "options",
    [
        7, [], {"cpu-affinity": "map:0"}, {"gpu-affinity": 2}, {"kill-timeout": "x"}, {"kill-timeout": "inf"},
        {"signal": "x"}, {"signal": {"signum": 0}}, {"output": "o"}, {"output": {"mode": "x"}},
        {"output": {"stdout": {"type": "tape"}}}, {"output": {"stdout": {"path": 3}}}, {"input": {"stdin": 3}},
    ],
)  # fmt: skip
def test_wrong_ones_are_refused_and_named(options: Any) -> None:
    with pytest.raises(Rejected) as caught:
        check_system({"shell": {"options": options}})
    assert caught.value.code == "bad-shell-option"


def test_remembered_ones_are_the_same_and_wrong_ones_are_refused_each_time() -> None:
    for options in (None, {}, {"signal": 1}, {"cpu-affinity": 1}, {"cpu-affinity": True}, {"output": {"stdout": "ä"}}):
        assert shell_options_of(options) == shell_options_of(options) == parse_shell_options(options)
    assert shell_options_of({"signal": {"signum": 1}}) != shell_options_of({"signal": 1})
    for _ in range(2):
        with pytest.raises(Rejected, match="cpu-affinity"):
            shell_options_of({"cpu-affinity": "map:0"})


def _attempt(options: dict[str, Any], nodes: int = 1, count: int = 2, cores: str = "0-1", slots: Any = None) -> dict[str, Any]:
    host = Host({0: "n0"}, "boot", "spool", "uri", "/tmp", {n: [10 + n] for n in range(6)} if cores != "0-1" else {}, "", 1_000_000)
    order = {
        "job": 1 << 24, "name": "me", "command": ["true"], "env": "", "claim": [0, cores, "0-1", 0, 2], "index": 0,
        "nodes": nodes, "total": count, "first": 0, "count": count, "shape": "s", "queued": False, "user": 0,
        "system": {"duration": 0, "cwd": "/place", "shell": {"options": options}},
    }  # fmt: skip
    if slots is not None:
        order["slots"] = slots
    return build_attempt(host, 0, order, "16777216.5-1.0")


def test_one_file_for_each_task() -> None:
    made = _attempt({"output": {"stdout": {"type": "file", "path": "o.{{taskid}}.{{name}}"}}})
    assert made["task_files"] == {"0": ["o.0.me", "o.0.me"], "1": ["o.1.me", "o.1.me"]}
    labelled = _attempt({"output": {"stdout": {"type": "file", "path": "o.{{taskid}}", "label": True}}})
    assert labelled["label"] == {"0": ["/place/o.0"] * 2, "1": ["/place/o.1"] * 2}
    assert labelled["label_files"] == ["/place/o.0", "/place/o.1"]
    assert "task_files" not in labelled
    shared = _attempt({"output": {"stdout": {"type": "file", "path": "o"}}}, nodes=2)
    assert (shared["stdout"], shared["stderr"], shared["append"], shared["empty_before"]) == ("o", "o", True, 1000.001)


def test_tasks_are_bound_to_their_own_slots() -> None:
    """Three slots, of which one has more; two tasks in each."""
    slots = [["0-2", "0"], ["3", ""], ["4-5", "1"]]
    made = _attempt({"cpu-affinity": "per-task", "gpu-affinity": "per-task"}, count=6, cores="0-5", slots=slots)
    assert [task[2] for task in made["tasks"]] == [[10], [11], None, None, [14], [15]]
    assert [task[3].get("CUDA_VISIBLE_DEVICES") for task in made["tasks"]] == ["0", "0", None, None, "1", "1"]
    made = _attempt({"cpu-affinity": "per-task"}, count=3, cores="0-5", slots=slots)
    assert [task[2] for task in made["tasks"]] == [[10, 11, 12], [13], [14, 15]]
    made = _attempt({"cpu-affinity": "per-task"}, count=2, cores="0-5")
    assert [task[2] for task in made["tasks"]] == [[10, 11, 12], [13, 14, 15]]


def test_gpus_per_task_and_what_is_refused() -> None:
    made = _attempt({"gpu-affinity": "per-task"})
    assert [task[3]["CUDA_VISIBLE_DEVICES"] for task in made["tasks"]] == ["0", "1"]
    assert made["seat"]["env"] == {}
    assert "signal='x'" in _attempt({"signal": "x"})["refuse"]
