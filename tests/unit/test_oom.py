"""What the kernel's count of kills for want of memory says about a task that died by SIGKILL."""

from __future__ import annotations

from pathlib import Path

from fluxkv.instances.oom import OomWatch, counter_file

KILLED, SHELLS = 9, 137 << 8


def test_a_kill_is_credited_once_and_only_to_what_was_killed(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"

    def count(number: int) -> None:
        file.write_text(f"low 0\nmax 7\noom 1\noom_kill {number}\noom_group_kill 0\n")

    count(4)
    watch = OomWatch(str(file))
    assert not watch.ended([KILLED])  # nothing since we began to look
    count(6)
    assert not watch.ended([15, 1 << 8, 0])
    assert watch.ended([0, KILLED])
    assert watch.ended([SHELLS])
    assert not watch.ended([KILLED])  # two kills, and both have been credited
    count(7)
    watch.look(100.0)  # nobody of ours, it seems
    assert not watch.ended([KILLED])
    count(8)
    watch.look(100.5)  # too soon: what has been killed may still be to be reaped
    assert watch.ended([KILLED])
    count(9)
    assert not watch.ended([15])
    watch.look(200.0)
    assert not watch.ended([KILLED])


def test_without_a_count_nothing_is_said(tmp_path: Path) -> None:
    for text in (None, "", "oom_kill x\n"):
        path = tmp_path / "file"
        if text is not None:
            path.write_text(text)
        watch = OomWatch(str(path))
        assert not watch.ended([KILLED])
    assert not OomWatch("").ended([KILLED])
    assert counter_file() in ("", "/proc/vmstat") or counter_file().endswith("/memory.events")
