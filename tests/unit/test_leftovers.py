"""What a dead launcher left running is told to be gone when it is."""

from __future__ import annotations

import os
import signal
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from fluxkv.instances import leftovers, proctree, trees
from fluxkv.instances.leftovers import LeftOvers
from fluxkv.instances.spool import Lost, boot_time


def test_one_that_is_dying_and_shows_its_mark_no_more_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    suffix = f"@{os.getpid()}"
    env = {proctree.ATTEMPT_VARIABLE: f"k{suffix}", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["cat"], env=env, stdin=subprocess.PIPE) as left:  # which ends with us, whatever fails here
        found = LeftOvers({"k": Lost(["i", "k", 1, 0.0, boot_time() + 100, None, ""])}, suffix)  # known by its mark only
        monkeypatch.setattr(proctree, "descendants", lambda *_: [])  # it is our child, and would be spared
        monkeypatch.setattr(leftovers, "send", lambda pid, signum: None)  # the kernel takes its time
        assert (found.sweep(), found.active) == ([], True)
        monkeypatch.setattr(proctree, "marks", lambda pid: [])  # its memory has been given back
        assert (found.sweep(), found.active) == ([], True)
        left.kill()
        os.waitid(os.P_PID, left.pid, os.WEXITED | os.WNOWAIT)
        assert ([one.key for one in found.sweep()], found.active) == (["k"], False)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """(Processes that are not there, each with a child; how often all of a host's were asked for.)"""
    roots = [*range(10_000_000, 10_000_100)]
    parents = {**dict.fromkeys(roots, 1), **{root + 1000: root for root in roots}}
    looks: list[int] = []

    def all_pids() -> list[int]:
        looks.append(1)
        return [*parents]

    monkeypatch.setattr(proctree, "all_pids", all_pids)
    monkeypatch.setattr(proctree, "stat", lambda pid: proctree.Stat("S", parents.get(pid, 0), pid, pid, 1e9))
    monkeypatch.setattr(proctree, "ancestors", lambda pid: [])
    return roots, looks


def test_a_crowd_that_was_left_costs_one_look_at_the_host(many: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    roots, looks = many
    killed: list[int] = []
    monkeypatch.setattr(proctree, "marks", lambda pid: ["k@s"] if pid in roots else [])
    monkeypatch.setattr(leftovers, "send", lambda pid, signum: killed.append(pid))
    LeftOvers({}, "@s").sweep()
    assert sorted(killed) == [*roots, *(root + 1000 for root in roots)]
    assert len(looks) <= 3


@pytest.mark.parametrize("ending", [0, 2])
def test_a_crowd_of_orphans_costs_one_look_at_the_host(many: Any, monkeypatch: pytest.MonkeyPatch, ending: int) -> None:
    roots, looks = many
    told: dict[int, list[int]] = {}
    monkeypatch.setattr(proctree, "marks", lambda pid: ["k@s", "x@inside"] if pid == roots[0] + 1000 else [])
    monkeypatch.setattr(trees, "send", lambda pid, signum: told.setdefault(pid, []).append(signum))
    here = trees.Trees("@s")
    here._children = SimpleNamespace(pids=lambda: roots)  # type: ignore[assignment]
    attempt: Any = SimpleNamespace(orphans=set(), ending=ending)
    assert not here.gone(attempt, [])
    assert attempt.orphans == {*roots}
    inner = [] if ending == 2 else [roots[0] + 1000]  # is its own launcher's to end
    assert sorted(told) == [pid for pid in (*roots, *(root + 1000 for root in roots)) if pid not in inner]
    assert {*map(tuple, told.values())} == {(signal.SIGKILL,) if ending == 2 else (signal.SIGTERM, signal.SIGCONT)}
    assert len(looks) <= 1
