"""Directories of jobs that left them empty serve the next ones, and nobody finds what another has left."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluxkv.instances import attempt_kind, scratch

Looks = list[str]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Which directories have been listed."""
    found: Looks = []

    def listdir(path: str) -> list[str]:
        found.append(path)
        return os.listdir(path)

    here = SimpleNamespace(**{name: getattr(os, name) for name in ("stat", "path", "makedirs", "chmod", "rmdir")}, listdir=listdir)
    monkeypatch.setattr(scratch, "os", here)
    return found


class Ticks:
    """A clock that goes on when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(scratch, "time", SimpleNamespace(monotonic=lambda: self.now))


def _stamped(path: str, ctime_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the file system says this, whatever is done to the directory."""
    found = os.stat(path)
    fixed = SimpleNamespace(st_mode=found.st_mode, st_ino=found.st_ino, st_ctime_ns=ctime_ns)
    monkeypatch.setattr(scratch.os, "stat", lambda _: fixed)


def _believed(at_hand: scratch.Scratch, path: str, clock: Ticks) -> None:
    for _ in range(2):
        assert at_hand.give(at_hand.take(path))
        clock.now += 2 * scratch.TICK_S


def test_a_directory_that_nobody_changes_is_not_listed_each_time(tmp_path: Path, looks: Looks, monkeypatch: Any) -> None:
    at_hand, clock, path = scratch.Scratch(), Ticks(monkeypatch), str(tmp_path / "a")
    os.mkdir(path, 0o700)
    _stamped(path, 1_700_000_000_123_456_789, monkeypatch)
    _believed(at_hand, path, clock)
    assert looks == [path, path]
    for _ in range(5):
        assert at_hand.give(at_hand.take(path))
    assert looks == [path, path]


def test_what_a_job_leaves_is_found_however_quick_it_was(tmp_path: Path, looks: Looks, monkeypatch: Any) -> None:
    """Within a tick of the file system's clock a directory may change, and its time does not."""
    at_hand, clock, path = scratch.Scratch(), Ticks(monkeypatch), str(tmp_path / "a")
    os.mkdir(path, 0o700)
    _stamped(path, 1_700_000_000_123_456_789, monkeypatch)
    assert at_hand.give(at_hand.take(path))
    clock.now += scratch.TICK_S / 2
    assert at_hand.give(at_hand.take(path))
    (tmp_path / "a" / "left").write_text("mine")
    assert not at_hand.give(at_hand.take(path))
    assert len(looks) == 3


def test_a_clock_that_tells_no_nanoseconds_is_not_believed(tmp_path: Path, looks: Looks, monkeypatch: Any) -> None:
    at_hand, clock, path = scratch.Scratch(), Ticks(monkeypatch), str(tmp_path / "a")
    os.mkdir(path, 0o700)
    _stamped(path, 1_700_000_000_000_000_000, monkeypatch)
    _believed(at_hand, path, clock)
    (tmp_path / "a" / "left").write_text("mine")
    assert not at_hand.give(at_hand.take(path))
    assert len(looks) == 3


@pytest.mark.parametrize("change", ["file", "folder", "mode", "another", "gone"])
def test_one_that_was_believed_empty_and_has_changed_is_not_the_next_job_s(tmp_path: Path, change: str, monkeypatch: Any) -> None:
    at_hand, clock, path = scratch.Scratch(), Ticks(monkeypatch), str(tmp_path / "a")
    _believed(at_hand, path, clock)
    mine = at_hand.take(path)
    if change == "file":
        (tmp_path / "a" / "left").write_text("mine")
    elif change == "folder":
        (tmp_path / "a" / "left").mkdir()
    elif change == "mode":
        os.chmod(mine, 0o755)
    else:
        os.rename(mine, tmp_path / "b")
        if change == "another":
            os.mkdir(mine, 0o700)
            (tmp_path / "a" / "left").write_text("mine")
    assert not at_hand.give(mine)
    assert at_hand._seen == {}


def test_variables_are_encoded_as_the_system_s_are() -> None:
    odd = {"A": "\udc80é", "FLUX_JOB_ID": "ƒ2", "": "="}
    assert attempt_kind.encoded(odd) == {os.fsencode(name): os.fsencode(value) for name, value in odd.items()}


def test_one_that_somebody_removed_since_is_not_handed_out(tmp_path: Path) -> None:
    at_hand, path = scratch.Scratch(), str(tmp_path / "a")
    assert at_hand.give(at_hand.take(path))
    at_hand.fresh = ""  # the turn is over
    os.rmdir(path)
    assert at_hand.take(str(tmp_path / "b")) == str(tmp_path / "b")
    assert os.path.isdir(tmp_path / "b")
