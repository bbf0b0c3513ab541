"""`fluxkv run`, `submit --wait` and the client with real daemons and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxkv.instances.client import connect

pytestmark = pytest.mark.live
TELL = "import os, sys; print(os.environ['FLUXKV_URI'], flush=True); sys.stdin.read()"
PROGRAM = [sys.executable, "-c", "from fluxkv.tools.main import main; main()"]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An instance that lives as long as the module's tests."""
    folder = tmp_path_factory.mktemp("state")
    process = subprocess.Popen(
        [*PROGRAM, "start", "--state-dir", str(folder / "i"), sys.executable, "-c", TELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found = process.stdout.readline().strip()
    assert found
    yield found
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()


def fluxkv(uri: str, *args: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "FLUXKV_URI": uri}
    if given is None:
        return subprocess.run(
            [*PROGRAM, *args], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
    return subprocess.run([*PROGRAM, *args], env=env, capture_output=True, text=True, timeout=60, input=given)


@pytest.mark.parametrize(
    ("script", "code", "out", "err"),
    [
        ("echo out; echo err >&2; exit 7", 7, "out\n", "err\n"),
        ("kill -9 $$", 137, "", ""),
        ("printf '\\342\\202\\254'", 0, "€", ""),
        ("seq 1 20000", 0, "".join(f"{number}\n" for number in range(1, 20001)), ""),
    ],
)
def test_run_is_what_a_shell_would_show(uri: str, script: str, code: int, out: str, err: str) -> None:
    done = fluxkv(uri, "run", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_a_missing_command_says_so(uri: str) -> None:
    done = fluxkv(uri, "run", "no-such-command")
    assert done.returncode == 127
    assert "command not found" in done.stderr


def test_input_labels_and_files(uri: str, tmp_path: Path) -> None:
    assert fluxkv(uri, "run", "wc", "-c", given="x" * 300_000).stdout.strip() == "300000"
    assert sorted(fluxkv(uri, "run", "-l", "-n2", "echo", "hi").stdout.splitlines()) == ["0: hi", "1: hi"]
    assert fluxkv(uri, "run", f"--output={tmp_path}/o.{{{{name}}}}", "echo", "hi").stdout == ""
    assert (tmp_path / "o.echo").read_text() == "hi\n"


def test_what_can_never_run_and_what_runs_too_long(uri: str) -> None:
    never = fluxkv(uri, "run", "-n99999", "true")
    assert never.returncode == 1
    assert "type=alloc" in never.stderr
    late = fluxkv(uri, "run", "-t", "0.2s", "sleep", "30")
    assert late.returncode == 142
    assert "type=timeout" in late.stderr


def test_submit_waits_with_the_worst_code(uri: str) -> None:
    done = fluxkv(uri, "submit", "--watch", "--quiet", "--cc=0-3", "sh", "-c", "echo {cc}; exit {cc}")
    assert done.returncode == 3
    assert sorted(done.stdout.split()) == ["0", "1", "2", "3"]
    assert fluxkv(uri, "submit", "--wait", "--progress", "--cc=1-20", "true").returncode == 0


def test_two_interrupts_cancel_the_job(uri: str) -> None:
    env = {**os.environ, "FLUXKV_URI": uri}
    script = "trap '' INT; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*PROGRAM, "run", "-v", "sh", "-c", script],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    id = process.stderr.readline().split()[-1]
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "SIGINT sent" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "cancelling" in rest
    with connect(uri) as instance:
        assert instance.wait([id], 30)[0].result == "CANCELED"


def test_the_client_submits_and_waits(uri: str) -> None:
    with connect(uri) as instance:
        ids = instance.submit_many([["sh", "-c", f"exit {number % 3}"] for number in range(30)])
        assert [result.returncode for result in instance.wait(ids, 60)] == [0, 1, 2] * 10
        job = instance.submit(["sleep", "60"])
        assert job.cancel("enough")
        assert job.wait(30).exception == ("cancel", "enough")
        assert [event.name for event in job.events()][-1] == "clean"
