"""Spool files of output: empty ones are used again, and nobody ever meets another attempt's bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxkv.instances.spool_files import OutputFiles


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def files(out: Path) -> OutputFiles:
    return OutputFiles(str(out.parent))


def made(files: OutputFiles, path: Path, text: bytes = b"") -> int:
    """A task's file, written and closed; its inode."""
    fd = files.open(str(path), append=False)
    os.write(fd, text)
    found = os.fstat(fd).st_ino
    os.close(fd)
    return found


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith("."))


def test_an_empty_file_goes_to_whoever_starts_in_the_same_turn(files: OutputFiles, out: Path) -> None:
    first = made(files, out / "1.out")
    files.done(str(out / "1.out"))
    assert made(files, out / "2.out") == first
    assert names(out) == ["2.out"]
    files.done(str(out / "2.out"))
    files.settle()
    assert names(out) == []


def test_what_has_bytes_stays_its_attempt_s(files: OutputFiles, out: Path) -> None:
    first = made(files, out / "1.out", b"said")
    files.done(str(out / "1.out"))
    assert made(files, out / "2.out") != first
    files.settle()
    assert (out / "1.out").read_bytes() == b"said"
    assert (out / "2.out").read_bytes() == b""


def test_a_file_that_somebody_reads_is_not_handed_on(files: OutputFiles, out: Path) -> None:
    first = made(files, out / "1.out")
    with open(out / "1.out", "rb") as reader:
        files.done(str(out / "1.out"))
        assert made(files, out / "2.out", b"another's") != first
        assert reader.read() == b""
    assert names(out) == ["2.out"]


def test_appending_takes_the_old_file(files: OutputFiles, out: Path) -> None:
    made(files, out / "1.out")
    files.done(str(out / "1.out"))
    (out / "2.out").write_bytes(b"before ")
    fd = files.open(str(out / "2.out"), append=True)
    os.write(fd, b"after")
    os.close(fd)
    assert (out / "2.out").read_bytes() == b"before after"


def test_blanks_rest_are_used_again_and_go_at_the_end(files: OutputFiles, out: Path) -> None:
    before = {made(files, out / f"{number}.out") for number in range(10)}
    for number in range(10):
        files.done(str(out / f"{number}.out"))
    files.settle()
    assert names(out) == []
    assert made(files, out / "next.out") in before
    (out / "next.out").unlink()  # the user's doing
    files.done(str(out / "next.out"))
    files.close()
    assert list(out.iterdir()) == []
