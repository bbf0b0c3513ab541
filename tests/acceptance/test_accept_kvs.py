"""The key-value store as a user and a script meet it: from jobs, in pipes, several at once, interrupted, and with wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live


def test_jobs_share_values(site: Any, tmp_path: Path) -> None:
    """An ensemble that counts, logs and takes a lock, all at once."""
    site.ok("kvs", "put", "jobs.count=0")
    script = (
        'fluxkv kvs put --append jobs.notes="$FLUX_JOB_CC " &&'
        ' fluxkv kvs eventlog append jobs.log ran cc="$FLUX_JOB_CC" &&'
        ' { fluxkv kvs put -n jobs.lock="$FLUX_JOB_CC" 2>/dev/null || true; }'
    )
    site.at(tmp_path).ok("submit", "--cc=1-4", "--wait", "sh", "-c", script)
    assert sorted(site.ok("kvs", "get", "jobs.notes").split()) == ["1", "2", "3", "4"]
    ran = [line.split()[-1] for line in site.ok("kvs", "eventlog", "get", "jobs.log").splitlines()]
    assert sorted(ran) == ["cc=1", "cc=2", "cc=3", "cc=4"]
    assert site.ok("kvs", "get", "jobs.lock").strip() in "1234"


def test_pipes(site: Any, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "in").write_bytes(data)
    line = "fluxkv kvs put -r pipe.data=- <in && fluxkv kvs get -r pipe.data >out && fluxkv kvs get -r pipe.data | head -c 9 >nine"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=site.env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out").read_bytes() == data
    assert (tmp_path / "nine").read_bytes() == data[:9]
    site.ok("kvs", "put", *(f"pipe.many.k{n}={n}" for n in range(3000)))
    line = "set -o pipefail; fluxkv kvs dir -R pipe | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=site.env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("pipe.data = (3000000 bytes)\n", "")


def test_a_watch_ends_at_ctrl_c(site: Any) -> None:
    version = site.ok("kvs", "put", "-s", "watched.key=1").strip()
    watcher = site.popen("kvs", "watch", "--json", "watched")
    first = json.loads(watcher.stdout.readline())
    assert first == {"key": "watched.key", "version": int(version), "value": "1"}
    site.ok("kvs", "unlink", "watched.key")
    assert json.loads(watcher.stdout.readline())["kind"] == "gone"
    watcher.send_signal(signal.SIGINT)
    out, err = watcher.communicate(timeout=30)
    assert (out, err) == ("", "")
    assert watcher.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["get", "no.such.key"], 1, "no.such.key: No such file or directory"),
        (["get", "a..b"], 1, "bad KVS key"),
        (["get", "a" * 5000], 1, "bad KVS key"),
        (["get", ".".join("a" * 400)], 1, "words"),
        (["get", "--at", "soon", "a"], 1, "bad moment"),
        (["get", "--at", "99999999", "a"], 1, "not there yet"),
        (["get", "-w", "--timeout", "soon", "a"], 1, "bad duration"),
        (["get", "-c", "0", "-w", "a"], 2, "--count"),
        (["get"], 2, "KEY"),
        (["put", "a"], 1, "no value"),
        (["put", "=1"], 1, "bad KVS key"),
        (["put", "--if-version", "x", "a=1"], 2, "--if-version"),
        (["put", "-N", "nowhere", "a=1"], 1, "No such namespace"),
        (["put", "--uri", "unix:/nowhere/kv.sock", "a=1"], 3, "/nowhere/kv.sock"),
        (["unlink", "no.such.key"], 1, "No such file or directory"),
        (["link", "self", "self"], 1, "Too many levels"),
        (["readlink", "."], 1, "Not a link"),
        (["copy", "no.such.key", "b"], 1, "No such file or directory"),
        (["move", ".", "inside"], 1, "into itself"),
        (["wait"], 2, "name a key"),
        (["wait", "-t", "0.1s", "no.such.key"], 1, "timed out"),
        (["namespace", "create", "a/b"], 1, "namespace name"),
        (["namespace", "remove", "nowhere"], 1, "No such namespace"),
        (["eventlog", "get", "no.such.key"], 1, "No such file or directory"),
        (["eventlog", "append", "log", "name", "[1]"], 1, "KEY=VALUE"),
        (["eventlog", "wait-event", "-t", "0.1s", "no.such.key", "x"], 1, "timed out"),
    ],
)
def test_wrong_input_is_refused_on_stderr(site: Any, words: list[str], code: int, text: str) -> None:
    done = site("kvs", *words)
    assert (done.code, done.out) == (code, ""), done
    assert text in done.err


def test_the_past_stays_readable_when_the_instance_is_down(site: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    uri = site.ok("start", "--detach", "--state-dir", folder).split()[-1]
    own = site.at(tmp_path, uri)
    version = own.ok("kvs", "put", "-s", "a=1").strip()
    own.ok("kvs", "put", "a=2")
    own.ok("kvs", "link", "a", "b")
    own.ok("kvs", "eventlog", "append", "log", "begun")
    assert "equal" in own.ok("replay", "--diff", "live")
    own.ok("stop")
    for key in ("a", "b"):
        assert site.ok("kvs", "get", key, "--state-dir", folder) == "2\n"
    assert site.ok("kvs", "get", "a", "--at", version, "--state-dir", folder) == "1\n"
    assert site.ok("kvs", "dir", "--state-dir", folder) .startswith("a = 2\nb -> a\nlog = ")
    assert "begun" in site.ok("kvs", "eventlog", "get", "log", "--state-dir", folder, FLUXKV_URI="")
    for words in (["get", "-w", "a"], ["get", "-W", "c"], ["get", "--wait-version", "9", "a"], ["eventlog", "get", "-w", "log"]):
        assert "running instance" in site("kvs", *words, "--state-dir", folder).err
