"""What the launcher is made of, without processes: frames, file names, the record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.instances.attempt_kind import Kind
from fluxkv.instances.spawning import Attempt, badness
from fluxkv.instances.spool import Spool, attempt_mark, input_path, output_paths, socket_path
from fluxkv.instances.wire import MAX_FRAME, Decoder, encode, pack
from fluxkv.kvs.errors import Corrupt


@given(
    st.lists(
        st.lists(st.integers() | st.text(), min_size=1).filter(
            lambda m: all(not isinstance(x, int) or -(2**63) <= x < 2**63 for x in m)
        )
    ),
    st.integers(1, 50),
)
def test_frames_come_back_whole_however_they_are_cut(messages: list[list[Any]], step: int) -> None:
    data = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    found = [m for at in range(0, len(data), step) for m in decoder.feed(data[at : at + step])]
    assert found == messages


def test_names_that_are_not_utf8_pass_through() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert Decoder().feed(encode(["x", name])) == [["x", name]]


@pytest.mark.parametrize("body", [b"\xc1", pack({"a": 1}), pack([]), b"\x93\x01"])
def test_a_frame_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(Corrupt):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(Corrupt):
        Decoder().feed((MAX_FRAME + 1).to_bytes(4, "big"))


def test_file_names_are_plain_whatever_the_key() -> None:
    assert output_paths("/s", 5, "12-ab.0") == ("/s/out/5.12-ab.0.out", "/s/out/5.12-ab.0.err")
    assert output_paths("/s", 5, "k", 3) == ("/s/out/5.k.3.out", "/s/out/5.k.3.err")
    assert input_path("/s", 5, "k") == "/s/in/5.k.in"
    for key in ("../../etc/passwd", "a/b", "x" * 150, "ƒ"):
        out = output_paths("/s", 5, key)[0]
        assert os.path.dirname(os.path.normpath(out)) == "/s/out"
        assert len(os.path.basename(out)) < 100


def test_marks_of_two_spools_differ_and_long_paths_move_the_socket(tmp_path: Path) -> None:
    assert attempt_mark(str(tmp_path / "a"), "k") != attempt_mark(str(tmp_path / "b"), "k")
    assert socket_path("/run/s") == "/run/s/launcher.sock"
    assert len(socket_path("/" + "x" * 200)) < 100


def test_bad_attempts_are_refused() -> None:
    good = {"key": "k", "job": 1, "tasks": [[0, ["true"], None, {}]]}
    Attempt(good)
    for change in (
        {"key": "a b"},
        {"key": ""},
        {"tasks": []},
        {"tasks": [[0]]},
        {"tasks": good["tasks"] * 2},
    ):  # type: ignore[operator]
        with pytest.raises((ValueError, TypeError, KeyError)):
            Attempt({**good, **change})


def test_what_is_plain_needs_no_more_than_a_command() -> None:
    plain: dict[str, Any] = {"tasks": [[0, ["true"], None, {}]], "cwd": "/", "env": "e", "queued": True, "fence": True}
    assert (Kind(plain).plain, Kind(plain).lends, Kind(plain).ranks) == (True, True, None)
    two = [[rank, ["true"], None, {}] for rank in (3, 4)]
    for more, lends, ranks in (
        ({"tasks": two}, True, None),
        ({"tasks": two, "per_task_output": True}, True, [3, 4]),
        ({"tasks": two, "stdin": "fifo"}, True, [3, 4]),
        ({"stdin": "fifo"}, True, None),
        ({"stdout": "o"}, True, None),
        ({"stdout": "o", "stderr": "e"}, False, None),
        ({"append": True}, False, None),
        ({"pty": [0]}, False, None),
        ({"task_files": {"0": ["o", "e"]}}, False, None),
        ({"rlimits": {"core": 0}}, True, None),
        ({"label_files": ["o"]}, True, None),
    ):
        kind = Kind({**plain, **more})
        assert (kind.plain, kind.lends, kind.ranks) == (False, lends, ranks), more


def test_the_worst_status_is_the_shells_greatest() -> None:
    assert sorted([9, 255 << 8, 1 << 8, 0, 127 << 8], key=badness) == [0, 1 << 8, 127 << 8, 9, 255 << 8]


def test_the_record_is_read_back_and_rewritten(tmp_path: Path) -> None:
    folder = str(tmp_path)
    spool = Spool(folder)
    spool.intent("a", 1, 10.0, 5.0, None, "/t", [])
    spool.add(pack(["p", "a", 5.5, [77]]))
    spool.intent("b", 2, 11.0, 6.0, [0, 1], "", [])
    event = ["over", "b", 0, 11.0, 12.0, None, "", "", 0, 0.0, 2]
    spool.add(pack(["x", event]))
    spool.add(pack(["x", ["over", "c", 0, 1.0, 1.0, None, "", "", 0, 0.0, 3]]))
    spool.add(pack(["a", ["c"]]))
    spool.close()
    for _ in range(2):  # opening rewrites: the second time reads what the first wrote
        again = Spool(folder)
        assert list(again.lost) == ["a"]
        lost = again.lost["a"]
        assert (lost.job, lost.t_start, lost.pids, lost.spawned_boot, lost.tmpdir) == (
            1,
            10.0,
            [77],
            5.5,
            "/t",
        )
        assert again.over == {"b": event}
        assert not again.wants_rewrite
        again.close()


def test_a_launcher_imports_next_to_nothing() -> None:
    heavy = (
        "{'asyncio', 'subprocess', 'dataclasses', 'typing_extensions', 'redis', 'json', 'logging', 'shutil'}"
    )
    script = f"import sys; import fluxkv.instances.launcher; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
