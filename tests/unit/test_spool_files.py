"""Spool files of output: empty ones are used again, nobody ever meets another attempt's bytes, and what is written has its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig

from fluxkv.instances.forward import Forwarder
from fluxkv.instances.spool import Record, Spool, output_paths
from fluxkv.instances.spool_files import NAME_S, OutputFiles, blank_path
from fluxkv.instances.watched import opened
from fluxkv.instances.wire import pack
from fluxkv.journal.wire import unpack


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def files(out: Path) -> OutputFiles:
    return OutputFiles(str(out.parent))


def made(files: OutputFiles, path: Path, text: bytes = b"", now: float = 0.0) -> int:
    """A task's file, written and closed; its inode."""
    (number,) = files.lend([str(path)], now)
    assert number
    fd = files.open(str(path), append=False)
    os.write(fd, text)
    found = os.fstat(fd).st_ino
    os.close(fd)
    return found


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith("."))


def test_an_empty_file_serves_the_next_and_never_has_a_name(files: OutputFiles, out: Path) -> None:
    first = made(files, out / "1.out")
    assert names(out) == []
    assert not files.done(str(out / "1.out"))
    assert made(files, out / "2.out") == first
    assert not files.done(str(out / "2.out"))
    assert len(list(out.iterdir())) == 1
    files.close()
    assert list(out.iterdir()) == []


def test_what_has_bytes_stays_its_attempt_s(files: OutputFiles, out: Path) -> None:
    first = made(files, out / "1.out", b"said")
    assert files.done(str(out / "1.out"))
    assert made(files, out / "2.out") != first
    assert not files.done(str(out / "2.out"))
    assert (out / "1.out").read_bytes() == b"said"
    assert names(out) == ["1.out"]


def test_who_runs_on_has_files_of_its_name(files: OutputFiles, out: Path) -> None:
    made(files, out / "1.out")
    made(files, out / "2.out", now=1.0)
    assert files.due() == pytest.approx(NAME_S)
    files.name(NAME_S / 2)
    assert names(out) == []
    files.name(NAME_S)
    assert names(out) == ["1.out"]
    assert files.due() == pytest.approx(1.0 + NAME_S)
    files.name_all()
    assert names(out) == ["1.out", "2.out"]
    assert files.due() is None
    with open(out / "1.out", "ab") as task:
        task.write(b"later")
    assert files.done(str(out / "1.out"))
    assert not files.done(str(out / "2.out"))
    assert names(out) == ["1.out"]


def test_a_file_that_somebody_has_open_is_not_lent_again(files: OutputFiles, out: Path) -> None:
    first = made(files, out / "1.out")
    files.name_all()
    with open(out / "1.out", "rb") as reader:
        files.done(str(out / "1.out"))
        assert made(files, out / "2.out", b"another's") != first
        assert reader.read() == b""
    assert files.done(str(out / "2.out"))
    assert names(out) == ["2.out"]


def test_bytes_that_come_after_the_end_are_nobody_else_s(files: OutputFiles, out: Path) -> None:
    files.lend([str(out / "1.out")], 0.0)
    late = files.open(str(out / "1.out"), append=False)
    files.done(str(out / "1.out"))
    os.write(late, b"late")
    os.close(late)
    made(files, out / "2.out")
    files.name_all()
    assert (out / "2.out").read_bytes() == b""


def test_who_opens_a_file_by_its_name_at_the_end_never_has_what_is_lent_again(
    files: OutputFiles, out: Path, monkeypatch: Any
) -> None:
    """Its name goes before the kernel is asked who has it open: an agent may look in between."""
    path = out / "1.out"
    first = made(files, path)
    files.name_all()
    asked = OutputFiles._is_ours_alone

    def ask(self: OutputFiles, fd: int) -> bool:
        found = asked(self, fd)
        assert opened(str(path)) < 0
        return found

    monkeypatch.setattr(OutputFiles, "_is_ours_alone", ask)
    assert not files.done(str(path))
    assert made(files, out / "2.out") == first


def test_an_agent_has_not_opened_what_loses_its_name_meanwhile(out: Path, monkeypatch: Any) -> None:
    (out / "1.out").write_text("its own")
    fd = opened(str(out / "1.out"))
    assert os.read(fd, 9) == b"its own"
    os.close(fd)
    look, path = os.fstat, str(out / "1.out")

    def late(fd: int) -> os.stat_result:
        os.rename(path, out / ".blank-1")
        return look(fd)

    with monkeypatch.context() as there:
        there.setattr(os, "fstat", late)
        assert opened(path) == -1
    assert not (out / "1.out").exists()


@pytest.mark.parametrize("named", [False, True])
def test_bytes_that_come_while_the_kernel_is_asked_are_not_another_s(
    files: OutputFiles, out: Path, monkeypatch: Any, named: bool
) -> None:
    files.lend([str(out / "1.out")], 0.0)
    late = files.open(str(out / "1.out"), append=False)
    if named:
        files.name_all()
    asked = OutputFiles._is_ours_alone

    def ask(self: OutputFiles, fd: int) -> bool:
        os.write(late, b"late")
        os.close(late)
        return asked(self, fd)

    with monkeypatch.context() as there:
        there.setattr(OutputFiles, "_is_ours_alone", ask)
        assert files.done(str(out / "1.out"))
    made(files, out / "2.out")
    files.name_all()
    assert (out / "1.out").read_bytes() == b"late"
    assert (out / "2.out").read_bytes() == b""


@pytest.mark.parametrize("named", [False, True])
def test_where_no_descriptor_is_left_what_was_written_is_not_called_nothing(
    files: OutputFiles, out: Path, monkeypatch: Any, named: bool
) -> None:
    made(files, out / "1.out", b"said")
    made(files, out / "2.out")
    if named:
        files.name_all()

    def none_left(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as there:
        there.setattr(os, "open", none_left)
        assert files.done(str(out / "1.out"))
        assert not files.done(str(out / "2.out"))
    assert [path.name for path in out.iterdir()] == ["1.out"]


def test_a_file_that_its_task_has_changed_is_not_lent_again(files: OutputFiles, out: Path) -> None:
    """It may be shown nobody, or everybody."""
    made(files, out / "1.out")
    os.chmod(blank_path(str(out.parent), 1), 0o400)
    files.done(str(out / "1.out"))
    second = made(files, out / "2.out")
    assert stat.S_IMODE(os.stat(blank_path(str(out.parent), 2)).st_mode) == 0o600
    os.link(blank_path(str(out.parent), 2), out / "theirs")
    files.done(str(out / "2.out"))
    assert made(files, out / "3.out") != second
    assert (out / "theirs").read_bytes() == b""


def test_a_blank_that_somebody_has_cleaned_away_is_not_lent(files: OutputFiles, out: Path, monkeypatch: Any) -> None:
    made(files, out / "1.out")
    files.done(str(out / "1.out"))
    os.unlink(blank_path(str(out.parent), 1))
    monkeypatch.setattr("fluxkv.instances.spool_files._OLD_S", 0.0)
    made(files, out / "2.out", b"said")
    assert files.done(str(out / "2.out"))
    assert (out / "2.out").read_bytes() == b"said"


def test_appending_takes_the_old_file(files: OutputFiles, out: Path) -> None:
    made(files, out / "1.out")
    files.done(str(out / "1.out"))
    (out / "2.out").write_bytes(b"before ")
    fd = files.open(str(out / "2.out"), append=True)
    os.write(fd, b"after")
    os.close(fd)
    assert (out / "2.out").read_bytes() == b"before after"
    assert files.done(str(out / "2.out"))


def test_what_is_opened_twice_is_one_file(files: OutputFiles, out: Path) -> None:
    """A task that cannot go to its directory is told so in its own output first."""
    made(files, out / "1.out", b"a word ")
    fd = files.open(str(out / "1.out"), append=True)
    os.write(fd, b"and more")
    os.close(fd)
    assert files.done(str(out / "1.out"))
    assert (out / "1.out").read_bytes() == b"a word and more"


def test_a_file_that_cannot_be_given_its_name_is_kept(
    files: OutputFiles, out: Path, monkeypatch: Any, capfd: Any
) -> None:
    made(files, out / "1.out", b"said")

    def full(old: str, new: str) -> None:
        raise OSError(28, "No space left on device", old)

    with monkeypatch.context() as there:
        there.setattr(os, "rename", full)
        files.name(NAME_S)
        files.done(str(out / "1.out"))
    assert "stays in" in capfd.readouterr().err
    again = OutputFiles(str(out.parent))
    assert [path.read_bytes() for path in out.iterdir()] == [b"said"]
    made(again, out / "2.out")
    assert sorted(path.read_bytes() for path in out.iterdir()) == [b"", b"said"]


def test_blanks_are_bounded_and_go_at_the_end(files: OutputFiles, out: Path) -> None:
    paths = [out / f"{number}.out" for number in range(100)]
    for path in paths:
        made(files, path)
    for path in paths:
        files.done(str(path))
    assert len(list(out.iterdir())) == 32
    files.close()
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("ranks", [None, [4, 7]])
def test_after_a_launcher_s_death_what_it_lent_has_its_name(tmp_path: Path, ranks: list[int] | None) -> None:
    spool = Spool(str(tmp_path))
    spool.intent("1-a.0", 5, 1.0, 1.0, None, "", [1, 2])
    spool.add(pack(("x", ["over", "1-a.0"])))
    files = [2, 3, 1, 0][: 2 * len(ranks or [0])]
    spool.intent("2-b.0", 6, 1.0, 1.0, ranks, "", files)
    for number in files:
        if number:
            Path(blank_path(str(tmp_path), number)).write_text(f"number {number}")
    spool.close()
    assert Record(str(tmp_path)).lost["2-b.0"].files == files, "who only reads gives no names"
    assert all(Path(blank_path(str(tmp_path), number)).exists() for number in files if number)
    again = Spool(str(tmp_path))
    paths = [path for rank in ranks or [None] for path in output_paths(str(tmp_path), 6, "2-b.0", rank)]
    said = {number: Path(path).read_text() for number, path in zip(files, paths, strict=True) if number}
    assert said == {number: f"number {number}" for number in files if number}
    assert not Path(output_paths(str(tmp_path), 5, "1-a.0")[0]).exists()
    again.close()
    assert Record(str(tmp_path)).lost["2-b.0"].files == []


def test_an_agent_that_looks_before_a_file_has_its_name_looks_again(tmp_path: Path, files: OutputFiles) -> None:
    """Its launcher may be late, on a busy machine."""
    rig = Rig()
    forwarder = Forwarder(rig.store, rig.store.keys, str(tmp_path), "h")
    path = Path(output_paths(str(tmp_path), 1, "1.2-3.0")[0])
    made(files, path, b"said")
    forwarder.add({
        "key": "1.2-3.0", "job": 1, "stdin": "", "tasks": [[0]], "stdout": "", "stderr": "", "per_task_output": False, "index": 0,
        "total": 1,
    })  # fmt: skip
    forwarder.young["1.2-3.0"] = 0.0
    forwarder.collect()
    assert list(forwarder.watched) == ["1.2-3.0"]
    files.name_all()
    forwarder.collect()
    told = [unpack(message.data) for message in rig.store.messages(rig.store.keys.output(1))]
    assert [context.get("data") for name, context in told if name == "data"] == ["said"]


@pytest.mark.parametrize("more", [{}, {"number": 2}])
def test_of_what_its_launcher_calls_quiet_no_file_is_looked_at(tmp_path: Path, out: Path, more: dict[str, Any]) -> None:
    rig = Rig()
    forwarder = Forwarder(rig.store, rig.store.keys, str(tmp_path), "h")
    path = Path(output_paths(str(tmp_path), 1, "1.2-3.0")[0])
    path.write_bytes(b"another's, by the same name")
    forwarder.add({
        "key": "1.2-3.0", "job": 1, "stdin": "", "tasks": [[0]], "stdout": "", "stderr": "/users", "per_task_output": False,
        "index": 0, "total": 1, **more,
    })  # fmt: skip
    forwarder.finish("1.2-3.0", quiet=True)
    names = [unpack(message.data)[0] for message in rig.store.messages(rig.store.keys.output(1))]
    assert names[0] == "redirect"
    assert ("data" in names) == bool(more), "what is noted for another agent is to be taken away"
    assert not forwarder.fresh
    assert not forwarder.watched
    assert not list((tmp_path / "watch").iterdir() if more else [])
