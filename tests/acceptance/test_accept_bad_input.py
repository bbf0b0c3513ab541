"""Wrong input and a failing world: one clear error (what, where, why, what to do), an exit status, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live


WRONG = [
    (["-n", "0", "true"], "'--ntasks': 0 is less than 1"),
    (["-n", "many", "true"], "'many' is not a number"),
    (["-N3", "-n2", "true"], "3 nodes for 2 tasks"),
    (["-x", "true"], "-N"),
    (["-t", "soon", "true"], "'--time-limit': bad duration"),
    (["--urgency=99", "true"], "0 to 31"),
    (["--requires=&&(", "true"], "'--requires'"),
    (["--requires=host:", "true"], "'--requires'"),
    (["--env=A=$NO_SUCH_NAME", "true"], "NO_SUCH_NAME is not set"),
    (["--env=^/no/such/file", "true"], "/no/such/file: No such file"),
    (["--flags=odd", "true"], "'odd' is not one of"),
    (["--memory-per-task=5x", "true"], "'--memory-per-task'"),
    (["--signal=XX@1s", "-t1m", "true"], "there is no such signal"),
    (["--signal=USR1", "true"], "add -t"),
    (["--gpus-per-node=1", "true"], "GPUs per node need a node count\n  add -N"),
    (["--cores=4", "-n2", "true"], "leave out -n"),
    (["-o", "cpu-affinity=sideways", "true"], "on, off or per-task"),
    (["-o", "kill-timeout=abc", "true"], "kill-timeout='abc'"),
    (["-o", "output=foo", "true"], "output='foo'"),
    (["-o", "=1", "true"], "has no name"),
    (["--setattr=exec.test.run_duration=abc", "true"], "run_duration='abc'"),
    (["--no-such-option", "true"], "No such option"),
    ([], "no command to run"),
]


def test_what_is_wrong_on_the_command_line_makes_no_job(site: Any) -> None:
    first = site.submit("true")
    for words, text in WRONG:
        for command in ("submit", "run") if len(words) < 2 else ("submit",):
            done = site(command, *words)
            assert done.code in (1, 2), done
            assert done.out == ""
            assert text in done.err, done
    assert site.ok("job", "last").split() == [first]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["no-such-command"], 127, "no-such-command: command not found"),
        (["/no/such/command"], 127, "/no/such/command: no such file"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["/"], 126, "/: "),
        (["--input=/no/such/file", "cat"], 1, "stdin /no/such/file: No such file or directory"),
        (["--output=/no/such/dir/o", "true"], 1, "stdout /no/such/dir/o: No such file or directory"),
        (["-l", "--output=/no/such/dir/o", "true"], 1, "/no/such/dir/o: No such file or directory"),
        (["--output=/", "true"], 1, "stdout /: Is a directory"),
        (["-n99", "true"], 1, "unsatisfiable"),
        (["--requires=gold", "true"], 1, "unsatisfiable"),
        (["-q", "nonsense", "true"], 1, "queue nonsense is not defined"),
    ],
)
def test_what_cannot_run_ends_with_its_reason(site: Any, words: list[str], code: int, text: str) -> None:
    done = site("run", *words)
    assert (done.code, done.out) == (code, "")
    assert text in done.err, done
    id = site.ok("job", "last").strip()
    assert site("job", "status", id).code == code


def test_a_jobspec_that_lies_reaches_no_task_and_harms_no_agent(site: Any) -> None:
    """By the API, past the command line's checks: the worker and the agent trust nobody."""
    import fluxkv
    from fluxkv.kvs.errors import Rejected

    good = json.loads(site.ok("submit", "--dry-run", "true"))
    with fluxkv.connect(site.uri) as instance:
        for change in (
            {"version": 7}, {"resources": []}, {"tasks": []}, {"attributes": {"system": {"duration": "long"}}},
            {"attributes": {"system": {"duration": 0, "shell": {"options": {"kill-timeout": "x"}}}}},
            {"attributes": {"system": {"duration": 0, "shell": 7}}}, {"odd": 1},
        ):  # fmt: skip
            with pytest.raises(Rejected):
                instance.submit({**good, **change})
        worse = {**good, "attributes": {"system": {"duration": 0, "shell": {"options": {"signal": "x"}}}}}
        (id,) = instance.submitter.submit([(worse, {})], 16, 0)
        result = instance.wait([id], 30)[0]
        assert result.returncode == 1
        assert result.exception is not None
        assert "signal='x'" in result.exception[1]
    assert site.ok("run", "echo", "well") == "well\n"


def test_no_server(site: Any) -> None:
    reading = (
        ["run", "true"],
        ["jobs"],
        ["cancel", "ƒ1"],
        ["queue", "drain"],
        ["job", "wait", "ƒ1"],
        ["journal", "verify"],
    )
    wrong = ("redis://127.0.0.1:1/0", "nonsense", "http://a", "unix:")
    for uri, *words in [("unix:/no/such.sock", *words) for words in reading] + [
        (uri, "submit", "true") for uri in wrong
    ]:
        done = site(*words, FLUXKV_URI=uri)
        assert done.code in (1, 3), (words, done)
        assert done.out == ""
        assert done.err.startswith("fluxkv: "), (words, done)
        assert len(done.err.splitlines()) == 2, (words, done)  # what, and what to do


EMPTY = [
    (["jobs", "--uri", ""], "--uri: an empty word names no instance"),
    (["cancel", "--all", "--uri="], "--uri: an empty word names no instance"),
    (["jobs", "--state-dir", ""], "--state-dir: an empty word names no instance"),
    (["start", "--detach", "--state-dir", ""], "--state-dir: an empty word names no instance"),
    (["batch", ""], "the script's name is an empty word"),
    (["journal", "children", "--restore", ""], "bad job id '': it is empty"),
    *(([*words, ""], "the command to run is an empty word") for words in (
        ["submit"], ["run"], ["start"], ["alloc", "-n1"], ["ensemble", "run", "--cc=1"], ["proxy", "ƒ1"],
    )),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), EMPTY)
def test_a_script_s_empty_variable_means_nothing_else(site: Any, words: list[str], said: str) -> None:
    before = site("job", "last").out
    done = site(*words)
    assert (done.code in (1, 2), said in done.err) == (True, True), done
    assert site("job", "last").out == before


def test_no_such_job(site: Any) -> None:
    for words in (["job", "status"], ["job", "wait"], ["job", "attach"], ["job", "eventlog"], ["job", "kill"], ["job", "raise"],
                  ["cancel"], ["inspect", "job"]):  # fmt: skip
        done = site(*words, "ƒzzzzzz")
        assert done.code == 1, (words, done)
        assert "no such job" in done.err, (words, done)
    for words in (["job", "status"], ["cancel"], ["inspect", "job"]):
        done = site(*words, "?!")
        assert done.code == 1, (words, done)
        assert "bad job id" in done.err, (words, done)
    for words in (["job", "info", "ƒzzzzzz", "jobspec"], ["job", "urgency", "ƒzzzzzz", "3"]):
        assert "no such job" in site(*words).err, words


def test_a_closed_and_a_stopped_queue(site: Any) -> None:
    try:
        site.ok("queue", "disable", "-m", "closing at noon")
        done = site("submit", "true")
        assert done.code == 1
        assert "closing at noon" in done.err
        assert "fluxkv queue enable" in done.err
        site.ok("queue", "enable")
        site.ok("queue", "stop", "-m", "maintenance")
        id = site.submit("true")
        site.ok("job", "wait-event", "-q", "-t", "30s", id, "priority")
        assert "maintenance" in site.ok("jobs", id) + site.ok("queue", "status")
    finally:
        site("queue", "enable")
        site("queue", "start")
    site.ok("job", "wait", id, "--timeout=30s")


def test_a_dead_agent_comes_back_and_its_tasks_are_known(user: Any, place: Path) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
    here = user.at(user.folder, uri)
    os.mkfifo(user.folder / "go")
    id = here.submit("sh", "-c", "echo before; read x < go; echo $x; exit 4")
    here.ok("job", "wait-event", "-q", "-t", "30s", id, "start")
    agent, launcher = here.pid("agent"), here.pid("launcher")
    os.kill(agent, signal.SIGKILL)
    second = here.submit("echo", "second")  # taken although nobody can start it now
    assert here.ok("job", "attach", "--timeout=30s", second) == "second\n", here.ok("job", "eventlog", second)
    (user.folder / "go").write_text("after\n")
    done = here("job", "attach", id, timeout=30)
    assert (done.code, done.out) == (4, "before\nafter\n")
    assert here.pid("agent") != agent
    os.kill(launcher, signal.SIGKILL)  # its tasks are found again by their marks
    assert here.ok("run", "--timeout=30s", "echo", "third", timeout=40) == "third\n"
    assert here("replay", "--diff", "live").code == 0
    assert here("journal", "verify").code == 0


def test_a_killed_server_loses_nothing_that_was_acknowledged(user: Any, place: Path) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
    here = user.at(user.folder, uri)
    ids = here.ok("submit", "--cc=1-20", "true").split()
    os.kill(here.pid("server"), signal.SIGKILL)
    here.ok("job", "wait", "--all", "--timeout=40s", timeout=60)
    ended = here.ok("jobs", "-a", "-n", "--format", "{id} {status_abbrev}").splitlines()
    assert sorted(ended) == sorted(f"{id} CD" for id in ids)
    assert here("replay", "--diff", "live").code == 0


def test_a_full_disk(user: Any) -> None:
    """Output that has no room is told of; the instance, elsewhere, goes on."""
    small = user.home / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this test mounts a small tmpfs, which needs root")
    try:
        script = (
            f"fluxkv run --output={small}/o sh -c 'head -c 200000 /dev/zero'; echo $?; fluxkv run -l --output={small}/l "
            "sh -c 'seq 1 30000'; fluxkv run echo well"
        )
        done = user("start", "sh", "-c", script)
        assert done.code == 0, done
        assert done.lines[0] == "1"  # head says so itself
        assert done.lines[-1] == "well"
        assert "No space left on device" in done.err
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_full_disk_under_the_journal(user: Any, place: Path) -> None:
    """Nothing acknowledged is lost; what cannot be kept is refused with the reason; with room, all goes on."""
    place.mkdir(0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("this test mounts a small tmpfs, which needs root")
    try:
        uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
        here = user.at(user.folder, uri)
        id = here.submit("echo", "kept")
        here.ok("job", "wait", id, "--timeout=30s")
        filler = place / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass
        refused = here("submit", "--quiet", "--cc=1-2000", "true", timeout=40)
        assert refused.code in (1, 3), refused
        assert refused.err.startswith("fluxkv: ")
        filler.unlink()
        deadline = time.monotonic() + 20  # a server that has just failed is not started again at once
        while time.monotonic() < deadline:
            assert user.ok("start", "--detach", "--state-dir", place).splitlines()[-1] == uri
            if json.loads(here("status", "--json").out)["state"] == "running":
                break
        assert here.ok("run", "--timeout=30s", "echo", "room", timeout=40) == "room\n"
        assert here.ok("job", "attach", id) == "kept\n"
        assert here("replay", "--diff", "live").code == 0
    finally:
        (place / "filler").unlink(missing_ok=True)
        user("stop", "--state-dir", place)
        subprocess.run(["umount", "-l", place], check=True)
        shutil.rmtree(place, ignore_errors=True)
