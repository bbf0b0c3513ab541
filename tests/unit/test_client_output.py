"""Writing out a job's output events, and tracking jobs through commits."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.follow import Follower, JobResult
from fluxkv.instances.output import OutputWriter
from fluxkv.journal.job import Job
from fluxkv.journal.wire import Commit, pack


def written(events: list[list[Any]], *, label: bool = False, prefix: str = "") -> tuple[bytes, bytes]:
    out, err = io.BytesIO(), io.BytesIO()
    writer = OutputWriter(out, err, label=label, prefix=prefix)
    for event in events:
        writer.take(pack(event))
    writer.flush()
    return out.getvalue(), err.getvalue()


def data(text: str, rank: str = "0", stream: str = "stdout", **more: Any) -> list[Any]:
    return ["data", {"stream": stream, "rank": rank, "data": text, **more}]


def test_bytes_pass_unchanged() -> None:
    raw = bytes(range(256))
    event = data(base64.b64encode(raw).decode(), encoding="base64")
    assert written([["header", {"version": 1}], event, data("x\ny"), data("z", stream="stderr")]) == (
        raw + b"x\ny",
        b"z",
    )


def test_repeats_and_ends() -> None:
    assert written([data("a\n", repeat=3), ["data", {"stream": "stdout", "rank": "0", "eof": True}]]) == (
        b"a\na\na\n",
        b"",
    )


def test_labelled_lines_never_mix() -> None:
    events = [data("he", "0"), data("wo", "1"), data("llo\nx", "0"), data("rld\n", "1")]
    assert written(events, label=True) == (b"0: hello\n1: world\n0: x\n", b"")
    assert written([data("a\n")], label=True, prefix="ƒ2: ")[0] == "ƒ2: 0: a\n".encode()


def test_truncation_is_visible() -> None:
    assert written([["log", {"level": 4, "message": "output truncated: 5 MB"}]]) == (
        b"",
        b"fluxkv: output truncated: 5 MB\n",
    )


def test_what_the_stream_left_out_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "0.out"
    file.write_bytes(b"one\ntwo\n")
    rest = {"stream": "stdout", "rank": "0", "path": str(file), "offset": 4}
    left_out = ["log", {"level": 4, "message": "truncated", "rest": rest}]
    assert written([data("one\n"), left_out]) == (b"one\ntwo\n", b"")
    assert written([data("one\n"), left_out], label=True) == (b"0: one\n0: two\n", b"")
    out = io.BytesIO()
    writer = OutputWriter(out, io.BytesIO())
    assert not writer.follow_files()
    writer.take(pack(left_out))
    assert writer.follow_files()
    assert out.getvalue() == b"two\n"
    with file.open("ab") as more:
        more.write(b"three\n")
    writer.flush()
    assert out.getvalue() == b"two\nthree\n"
    assert not writer.follow_files()


def test_without_the_file_it_is_said_that_something_is_missing() -> None:
    rest = {"stream": "stdout", "rank": "0", "path": "/nonexistent/0.out", "offset": 4}
    assert written([["log", {"level": 4, "message": "truncated", "rest": rest}]]) == (b"", b"fluxkv: truncated\n")


def commit(version: int, *events: list[Any]) -> Commit:
    return Commit(version, 5, "", 0, version - 1, 1.0, list(events), {})


def ended(*events: list[Any]) -> JobResult:
    follower = Follower([Job(9)])
    assert follower.take(commit(1, ["submit", 9, 1.0, {"jobspec": {}}], ["submit", 8, 1.0, {}])) == []
    (result,) = follower.take(commit(2, *events, ["clean", 9, 5.0, None], ["clean", 8, 5.0, None]))
    assert not follower.waiting
    return result


START, CANCEL = ["start", 9, 2.0, None], ["exception", 9, 3.0, {"type": "cancel", "severity": 0, "note": "n"}]
TIMEOUT = ["exception", 9, 3.0, {"type": "timeout", "severity": 0, "note": "late"}]
NOTE = ["exception", 9, 3.0, {"type": "test", "severity": 4, "note": "only a note"}]


@pytest.mark.parametrize(
    ("events", "result", "returncode"),
    [
        ([START, ["finish", 9, 4.0, {"status": 0}]], "COMPLETED", 0),
        ([START, NOTE, ["finish", 9, 4.0, {"status": 0}]], "COMPLETED", 0),
        ([START, ["finish", 9, 4.0, {"status": 2 << 8}]], "FAILED", 2),
        ([START, CANCEL, ["finish", 9, 4.0, {"status": 15}]], "CANCELED", 143),
        ([START, CANCEL, TIMEOUT, ["finish", 9, 4.0, {"status": 0}]], "CANCELED", 1),
        ([START, TIMEOUT, ["finish", 9, 4.0, {"status": 15}]], "TIMEOUT", 143),
        ([CANCEL], "CANCELED", 1),
    ],
)
def test_results_follow_the_first_fatal_exception(events: list[Any], result: str, returncode: int) -> None:
    found = ended(*events)
    assert (found.result, found.returncode, found.t_inactive) == (result, returncode, 5.0)
