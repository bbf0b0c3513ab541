"""Cells of tables: nothing a user names can break a table or command the terminal; columns are what one sees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fluxkv.kvs.errors import Rejected
from fluxkv.tools import render
from fluxkv.tools.formats import Format, clean, cut, percentage, width_of
from fluxkv.tools.journal_cmd import writing

FIELDS: dict[str, tuple[str, Any]] = {"name": ("NAME", lambda row, view: row), "n": ("N", lambda row, view: 7)}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\tb\nc", "a?b?c"), ("\x1b[31mred", "?[31mred"), ("\x9b31m", "?31m"), ("ƒ2é漢🎉", "ƒ2é漢🎉"), ("a\u3000b", "a\u3000b")],
)
def test_control_characters_never_reach_a_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert Format("{name}", FIELDS).lines([text], None, header=False) == [shown]


def test_wide_characters_take_two_columns() -> None:
    assert [width_of(text) for text in ("", "ƒ2", "漢字", "a漢")] == [0, 2, 4, 3]
    assert cut("漢字漢字", 5) == "漢字"
    lines = Format("{name:<6.6+} {n}", FIELDS).lines(["abc", "漢字", "漢字漢字", "abcdefgh"], None)
    assert lines == ["NAME   N", "abc    7", "漢字   7", "漢字+  7", "abcde+ 7"]


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (1, "100%"), (0.5, "50%"), (0.015, "1.5%"), (0.0005, "0.05%"), (0.12345, "12.3%"), (12, "1200%")]
)
def test_percentages(share: float, text: str) -> None:
    assert percentage(share) == text
    assert Format("{n!P:>6}", {"n": ("N", lambda row, view: row)}).lines([share], None, header=False) == [text.rjust(6)]


def test_tables_too(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(["A", "B"], [("x\ny", 1), ("漢", 2)])
    assert capsys.readouterr().out == "A   B\nx?y 1\n漢  2\n"


def test_off_a_terminal_progress_is_told_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("fluxkv.tools.render.time.monotonic", lambda: now[0])
    with render.progress(240) as bar:
        for at in range(0, 180, 3):
            now[0] = 1000.0 + at
            bar.update(at, at // 100)
        bar.update(240, 1)
    assert capsys.readouterr().err.splitlines() == [
        "jobs: 60/240 done, 0 failed, 1.0/s, 3m left", "jobs: 120/240 done, 1 failed, 1.0/s, 2m left",
        "jobs: 240/240 done, 1 failed, 1.4/s",
    ]  # fmt: skip


def test_an_export_is_never_put_in_a_devices_place(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with writing(str(pipe)) as file:
            file.write("x\n")
        assert os.read(reader, 10) == b"x\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(Rejected, match="No such file or directory"), writing(str(tmp_path / "none" / "x")):
        pass
