"""The keywords of `Instance.submit` that stand for several settings: what they become, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.submission import build_jobspec
from fluxkv.kvs.errors import Rejected


def system(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = build_jobspec(["true"], **options)["attributes"]["system"]
    return found


def test_they_become_what_the_command_s_options_become(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"from a file")
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    found = system(
        duration="5m", signal="INT@30s", rlimit={"nofile": 100, "core": "unlimited"}, taskmap="cyclic:2",
        begin_time=moment, dependencies="afterany:ƒ2", files={"a": b"here", "b": path}, attributes={"user.x": 1},
        shell_options={"verbose": 1},
    )  # fmt: skip
    options = found["shell"]["options"]
    assert options["signal"] == {"signum": 2, "timeleft": 30.0}
    assert options["rlimit"] == {"nofile": 100, "core": "unlimited"}
    assert options["taskmap"] == {"scheme": "cyclic", "value": "2"}
    assert options["verbose"] == 1
    assert [one["scheme"] for one in found["dependencies"]] == ["afterany", "begin-time"]
    assert float(found["dependencies"][1]["value"]) == moment.timestamp()
    assert found["files"]["a"]["data"] == "here"
    assert found["files"]["b"]["size"] == 11
    assert system(rlimit="-*,nofile=7")["shell"]["options"]["rlimit"] == {"nofile": 7}
    assert system(begin_time=5)["dependencies"][0]["scheme"] == "begin-time"
    assert "shell" not in system()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signal": "INT@soon", "duration": 5}, "bad duration"),
        ({"signal": "NOSUCH", "duration": 5}, "no such signal"),
        ({"rlimit": {"x": 1}}, "no such limit"),
        ({"rlimit": {"nofile": "many"}}, "neither a number"),
        ({"rlimit": "x=1"}, "no limit 'x'"),
        ({"taskmap": "spiral"}, "the scheme is"),
        ({"taskmap": 7}, "taskmap"),
        ({"begin_time": "soon"}, "neither Unix seconds nor a datetime"),
        ({"files": {"../a": b""}}, r"\.\."),
        ({"files": {"script": b""}}, "reserved"),
        ({"files": {"a": "/no/such/file"}}, "No such file"),
        ({"files": {"a": bytes(1 << 20), "b": b"x"}}, "more than 1 MiB"),
        ({"sparkle": 1}, "sparkle"),
    ],
)
def test_what_is_wrong_is_refused_with_a_word(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        system(**options)
