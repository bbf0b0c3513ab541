"""The places where a test makes a process die: how they are named, and that each is in the code once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from fluxkv.kvs import failpoints
from fluxkv.kvs.failpoints import ARMED, POINTS, VARIABLE, arm, parse, reach

ROOT = Path(__file__).resolve().parents[2]


def test_each_place_is_in_the_code_once_and_costs_a_look() -> None:
    texts = {path: path.read_text() for room in ("kvs", "instances") for path in (ROOT / room).glob("*.py")}
    found = [name for text in texts.values() for name in re.findall(r'\breach\("([a-z.]+)"', text)]
    assert sorted(found) == sorted(POINTS), "a place is in POINTS and reached in one line, or neither"
    for path, text in texts.items():
        guards = len(re.findall(r"if (?:ARMED|said):\n(?:.*flush\(\)\n)?\s+reach\(", text))
        assert guards == len(re.findall(r"\breach\(\"", text)), f"{path}: ask `if ARMED` before reach()"
    assert not ARMED, "nothing is armed here"


@pytest.mark.parametrize("bad", ["append.before", "append.before:0:kill", "nowhere:kill", "append.before:stop", "a:b:c:d"])
def test_a_bad_one_is_refused_with_the_names_there_are(bad: str) -> None:
    with pytest.raises(ValueError, match=r"append\.before"):
        parse(bad, "")


def test_only_the_nth_time_and_only_that_role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "agent/append.before:kill,worker-0/append.after:2:error,spool.after:delay=0.01")
    try:
        arm("worker-0")
        assert set(ARMED) == {"append.after", "spool.after"}
        reach("append.after")
        with pytest.raises(OSError, match=r"append\.after"):
            reach("append.after")
        reach("append.after")  # once
        began = time.monotonic()
        reach("spool.after")
        reach("spool.after")
        assert time.monotonic() - began >= 0.02
        (tmp_path / "keeper").write_text("epoch.before:error")
        monkeypatch.setenv(VARIABLE, f"@{tmp_path}")
        arm("agent")
        assert not ARMED
        arm("keeper")
        with pytest.raises(KeyError):
            reach("epoch.before", KeyError)
        assert list(tmp_path.iterdir()) == []  # the next one is spared
    finally:
        failpoints.ARMED.clear()
