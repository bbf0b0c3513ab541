"""Instances from birth to end: start, stop, restart, status, list, and what they leave behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.paths import running_elsewhere

pytestmark = pytest.mark.live
ROLES = {"server", "worker", "agent", "launcher", "keeper"}


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["sh", "-c", "echo $FLUXKV_URI; exit 7"], 7, "unix:"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["fluxkv", "run", "sh", "-c", "echo from a job; exit 3"], 3, "from a job"),
        (["no-such-command-anywhere"], 127, ""),
    ],
)
def test_start_a_command(user: Any, words: list[str], code: int, out: str) -> None:
    done = user("start", *words)
    assert done.code == code
    assert out in done.out
    assert user.alive(str(user.home / "fluxkv")) == []


def test_a_script_whose_interpreter_is_missing_is_not_said_to_be_missing(user: Any) -> None:
    script = user.folder / "script"
    script.write_text("#!/no/such/sh -e\necho\n")
    script.chmod(0o755)
    done = user("start", "--cores", "1", script)
    assert done.code == 127
    assert f"fluxkv: {script}: there is no /no/such/sh -e, which its first line names\n" in done.err


def test_start_finds_fluxkv_for_what_runs_inside(user: Any) -> None:
    words = ["fluxkv", "run", "fluxkv", "start", "sh", "-c", "fluxkv jobs -a; command -v fluxkv"]
    done = user("start", *words, PATH="/usr/bin:/bin")
    assert done.code == 0, done
    assert done.lines[-1].endswith("/fluxkv")


def test_start_keeps_the_journal_under_the_users_state_home(user: Any) -> None:
    user.ok("start", "sh", "-c", "fluxkv submit --wait --cc=1-3 true")
    (folder,) = (user.home / "fluxkv").iterdir()
    assert (folder / "instance.json").exists()
    words = ["jobs", "-a", "--no-header", "--format", "{status_abbrev}", "--state-dir", folder]
    assert user.ok(*words).split() == ["CD"] * 3
    assert user.ok("replay", "--state-dir", folder)
    assert user("journal", "verify", "--state-dir", folder).code == 0
    user.ok("start", "--keep", "0s", "true")  # ends at once: the next start sweeps it, and keeps the first
    user.ok("start", "true")
    assert folder.exists()
    assert len(list((user.home / "fluxkv").iterdir())) == 2


def test_start_on_a_terminal_gives_a_shell(user: Any) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvpe("fluxkv", ["fluxkv", "start"], {**user.env, "SHELL": "/bin/sh", "PS1": "prompt> "})
        finally:
            os._exit(99)
    seen = b""
    told = False
    while True:
        readable, _, _ = select.select([terminal], [], [], 30)
        assert readable, seen
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
        if b"prompt> " in seen and not told:
            told = True
            os.write(terminal, b"test -t 0 && fluxkv run echo in-$((40+2)); exit 5\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert b"in-42" in seen
    assert b"Traceback" not in seen
    assert user.alive(str(user.home / "fluxkv")) == []


def test_detach_prints_the_uri_and_again_brings_up_what_is_dead(user: Any, place: Path) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
    assert uri.startswith("unix:")
    assert uri in running_elsewhere()
    assert "or set FLUXKV_URI, such as to " in user("jobs").err
    plain = user("list", "--no-header")  # others than ours may be named beside it
    assert (plain.out, "with the state elsewhere: fluxkv list --all" in plain.err) == ("", True)
    assert uri in {one["uri"] for one in json.loads(user.ok("list", "--all", "--json"))["instances"]}
    assert json.loads(user.ok("list", "--json")) == {"instances": []}
    here = user.at(user.folder, uri)
    document = json.loads(here.ok("status", "--json"))
    assert {one["role"] for one in document["processes"]} == ROLES
    assert all(isinstance(one["pid"], int) for one in document["processes"])
    assert here.ok("run", "echo", "hi") == "hi\n"
    sleeper = here.submit("sleep", "600")
    here.ok("job", "wait-event", "-t", "30s", sleeper, "start")
    for role in ("keeper", "worker", "agent"):
        os.kill(here.pid(role), signal.SIGKILL)
    assert here.ok("submit", "true")  # needs no daemon but the server
    assert user.ok("start", "--detach", "--state-dir", place).splitlines()[-1] == uri
    assert here.ok("run", "echo", "again", timeout=40) == "again\n"
    assert {one["role"] for one in here.processes() if one["state"] == "running"} == ROLES
    assert here.ok("jobs", "--no-header", "--format", "{id} {status_abbrev}").split() == [sleeper, "R"]
    refused = user("start", "--detach", "--state-dir", place, "--cores", "8")
    assert refused.code == 1
    assert "--cores cannot change its resources" in refused.err
    assert user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1] == uri  # as it was
    refused = user("start", "--detach", "--state-dir", place, "--policy", "easy")
    assert (refused.code, "--policy cannot change that (fcfs)" in refused.err) == (1, True)
    assert user.ok("start", "--detach", "--state-dir", place, "--policy", "fcfs").splitlines()[-1] == uri
    refused = user("start", "--state-dir", place, "true")
    assert refused.code == 1
    assert "running already" in refused.err
    assert uri in refused.err


def test_stop_ends_what_runs_and_keeps_what_waits(user: Any, place: Path) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "1").splitlines()[-1]
    here = user.at(user.folder, uri)
    stubborn = here.submit(
        "--output=o",
        "-o",
        "kill-timeout=0.5",
        "sh",
        "-c",
        "trap 'echo TERM' TERM; echo ready; while :; do sleep 0.1; done",
    )
    waiting = here.submit("sh", "-c", "echo survived > later")
    here.ok("job", "wait-event", "-t", "30s", stubborn, "start")
    assert here.ok("stop", timeout=40) == ""
    assert user.alive(str(place)) == []
    assert (user.folder / "o").read_text().split().count("TERM") <= 1
    log = user.ok("job", "eventlog", "--state-dir", place, stubborn)
    (line,) = [line for line in log.splitlines() if " exception " in line]
    assert "severity=0" in line
    assert "stop" in line
    assert user.ok("jobs", "-a", "--no-header", "--format", "{id} {state}", "--state-dir", place).splitlines() == [
        f"{waiting} SCHED", f"{stubborn} INACTIVE",
    ]  # fmt: skip
    again = user("stop", "--state-dir", place)
    assert again.code == 1
    assert "not running" in again.err
    assert user.ok("start", "--detach", "--state-dir", place).splitlines()[-1] == uri
    here.ok("queue", "drain", "--timeout", "30s")
    assert (user.folder / "later").read_text() == "survived\n"


def test_restart_replaces_daemons_while_tasks_run_on(user: Any, place: Path) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
    here = user.at(user.folder, uri)
    os.mkfifo(user.folder / "go")
    job = here.submit("sh", "-c", "echo $$; read x < go; echo $x; exit 4")
    here.ok("job", "wait-event", "-t", "30s", job, "start")
    before = {role: here.pid(role) for role in ROLES}
    here.ok("restart", "--uri", here.uri)
    after = {role: here.pid(role) for role in ROLES}
    assert before["worker"] != after["worker"]
    assert before["agent"] != after["agent"]
    assert here.ok("jobs", "--no-header", "--format", "{id} {status_abbrev}").split() == [job, "R"]
    (user.folder / "go").write_text("on\n")
    done = here("job", "attach", job, timeout=30)
    assert (done.code, done.lines[1]) == (4, "on")
    assert here("replay", "--diff", "live").code == 0


def test_which_instance(user: Any, place: Path) -> None:
    nobody = user("jobs")
    assert nobody.code == 3
    assert "no instance is running" in nobody.err
    assert "fluxkv start" in nobody.err
    first = user.ok("start", "--detach", "--cores", "1").splitlines()[-1]
    assert user.ok("run", "echo", "one") == "one\n"
    second = user.ok("start", "--detach", "--cores", "1").splitlines()[-1]
    which = user("jobs")
    assert which.code == 1
    assert first in which.err
    assert second in which.err
    assert "FLUXKV_URI" in which.err
    assert user.ok("run", "--uri", second, "printenv", "FLUXKV_URI").strip() == second
    assert user.ok("run", "printenv", "FLUXKV_URI", FLUXKV_URI=first).strip() == first
    listed = json.loads(user.ok("list", "--json"))["instances"]
    assert {one["uri"] for one in listed if one["state"] == "running"} == {first, second}
    assert user("stop", FLUXKV_URI=first).code == 0
    assert user.ok("run", "printenv", "FLUXKV_URI").strip() == second
    assert user("stop").code == 0
    assert user.alive(str(user.home)) == []


def test_start_passes_sigterm_on_and_leaves_nothing(user: Any) -> None:
    process = user.popen("start", "sh", "-c", "fluxkv jobs --no-header; echo ready; exec sleep 600")
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert user.alive(str(user.home)) == []


def test_an_instance_ends_when_its_start_is_killed(user: Any) -> None:
    process = user.popen("start", "sh", "-c", "fluxkv submit sleep 601 && exec sleep 602")
    assert process.stdout.readline()
    process.kill()
    process.wait(30)
    for pid in user.alive(str(user.home / "fluxkv")):
        if user.words_of(pid).startswith("sleep 602"):
            os.kill(pid, signal.SIGKILL)  # the user's own command: it is no job, and no longer anybody's child
        else:
            user.wait_for_end(pid)
    process.communicate(timeout=30)
    assert user.alive(str(user.home)) == []


def test_bad_starts(user: Any, place: Path) -> None:
    (user.folder / "bad.toml").write_text("[[resource.config]]\nhosts = 'n[0-'\n")
    (user.folder / "worse.toml").write_text("resource = [\n")
    (user.folder / "other.toml").write_text("[nonsense]\na = 1\n")
    for words, code, text in [
        (["start", "--config", "missing.toml", "true"], 1, "missing.toml: No such file"),
        (["start", "--config", "bad.toml", "true"], 1, "bad.toml"),
        (["start", "--config", "worse.toml", "true"], 1, "worse.toml"),
        (["start", "--config", "other.toml", "true"], 1, "[nonsense] is no table"),
        (["start", "--state-dir", "/proc/nope", "true"], 3, "/proc/nope"),
        (["start", "--policy", "nonsense", "true"], 1, "nonsense"),
        (["start", "--keep", "x", "true"], 1, "bad duration"),
        (["start", "-s", "0", "true"], 2, "-s"),
        (["start", "--detach", "true"], 2, "--detach takes no command"),
        (["stop", "--state-dir", str(place)], 1, "no instance"),
        (["restart"], 3, "no instance is running"),
        (["stop", "--uri", "unix:/no/such.sock"], 1, "unix:/no/such.sock: its state directory is not on this host"),
        (["resource", "list", "--state-dir", str(place)], 1, str(place)),
    ]:
        done = user(*words)
        assert done.code == code, (words, done)
        assert text in done.err, (words, done)
    assert user.alive(str(user.home)) == []
