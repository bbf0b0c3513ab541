"""How an agent waits while tasks run: their files are looked at by their sizes, and its loop has a turn where one has grown."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig

from fluxkv.instances.forward import LOOK_S, Forwarder, Tail, Watched
from fluxkv.journal.wire import unpack

KEY = "1.2-3.0"


@pytest.fixture
def forwarder(tmp_path: Path) -> Forwarder:
    """One attempt is watched, which has an output file with a word in it, and no error file any more."""
    rig = Rig()
    found = Forwarder(rig.store, rig.store.keys, str(tmp_path), "h")
    (tmp_path / "out").write_text("a")
    tails = [Tail(str(tmp_path / name), stream, "0", "") for name, stream in (("out", "stdout"), ("err", "stderr"))]
    found.watched[KEY] = Watched(1, KEY, tails, {}, 0, 1)
    return found


def waits(*happens: Callable[[], Any]) -> tuple[list[float], Callable[[float], bool]]:
    """(how long was waited each time, what waits). happens: one thing a wait; what it gives says whether it was something else."""
    waited: list[float] = []

    def hears(seconds: float) -> bool:
        waited.append(seconds)
        return bool(happens[len(waited) - 1]()) if len(waited) <= len(happens) else False

    return waited, hears


def said(forwarder: Forwarder) -> str:
    messages = forwarder.store.messages(forwarder.keys.output(1))
    return "".join(context["data"] for name, context in (unpack(one.data) for one in messages) if name == "data")


def test_a_task_that_is_silent_has_nobody_wake_up_but_to_look(forwarder: Forwarder, tmp_path: Path) -> None:
    forwarder.collect()
    assert said(forwarder) == "a"
    waited, hears = waits(lambda: False, lambda: False, lambda: (tmp_path / "out").write_text("ab") and False)
    assert forwarder.sleep(hears, 60.0)
    assert waited == [LOOK_S] * 3
    forwarder.collect()
    assert said(forwarder) == "ab"


def test_whatever_else_comes_ends_the_wait(forwarder: Forwarder) -> None:
    forwarder.collect()
    waited, hears = waits(lambda: False, lambda: True)
    assert not forwarder.sleep(hears, 60.0)
    assert waited == [LOOK_S] * 2


def test_where_something_always_comes_files_are_looked_at_as_often(forwarder: Forwarder, tmp_path: Path) -> None:
    """A host in a flood of short jobs has long ones, too."""
    forwarder.collect()
    assert not forwarder.has_news()
    (tmp_path / "out").write_text("ab")
    _, hears = waits(lambda: True, lambda: True, lambda: True)
    assert not forwarder.sleep(hears, 60.0), "they were looked at just now"
    forwarder.looked -= LOOK_S
    assert forwarder.sleep(hears, 60.0)
    forwarder.looked -= LOOK_S
    assert forwarder.sleep(hears, 0.0), "a busy loop waits for nothing"


def test_what_was_there_before_the_first_look_is_news(forwarder: Forwarder) -> None:
    waited, hears = waits()
    assert forwarder.sleep(hears, 60.0)
    assert waited == [LOOK_S]


def test_files_of_which_no_more_is_wanted_are_not_looked_at(forwarder: Forwarder, tmp_path: Path) -> None:
    """Of one that has printed too much the rest stays there."""
    (tmp_path / "err").write_text("b")
    forwarder.full = True
    forwarder.collect()
    (tmp_path / "out").write_text("a long word")
    waited, hears = waits()
    assert not forwarder.sleep(hears, 60.0)
    assert len(waited) == 1
    assert waited[0] > 59.0


def test_a_young_attempt_is_taken_up_when_it_has_run_for_a_while(forwarder: Forwarder) -> None:
    forwarder.collect()
    attempt = {"key": "4.5-6.0", "job": 4, "stdin": "", "tasks": [[0]], "stdout": "", "stderr": "", "per_task_output": False,
               "index": 0, "total": 1}  # fmt: skip
    forwarder.add(attempt)
    forwarder.started("4.5-6.0")
    assert not forwarder.has_news()
    forwarder.young["4.5-6.0"] = time.monotonic() - LOOK_S
    waited, hears = waits()
    assert forwarder.sleep(hears, 60.0)
    assert len(waited) == 1
    forwarder.collect()
    assert "4.5-6.0" in forwarder.watched
    assert not forwarder.has_news()
