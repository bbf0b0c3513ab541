"""Real tasks and real deaths: what runs is re-attached and not run again; what was lost is run again, once, by policy."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.journal.ids import f58
from fluxkv.journal.job import INACTIVE
from fluxkv.kvs.errors import FluxkvError
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.uri import same_instance

pytestmark = pytest.mark.live

CHILD = shlex.join(live.PROGRAM)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An instance for tests that kill at most its agent."""
    with live.site(tmp_path_factory.mktemp("attempts"), "--cores", "4") as site:
        yield site
        site.sound()


def attempts(site: Any, id: int) -> list[str]:
    """The causes of a job's requeues."""
    return [event.context["cause"] for event in site.client.events(id) if event.name == "requeue"]


# -- re-attached, not re-run ---------------------------------------------------------------------------------------


def test_canary(tmp_path: Path) -> None:
    """Worker, keeper, server and agent are killed one after the other, and then all at once: the task lives through it all.

    It wrote one line at its start, so it was started once; its beats have no gap, its output is whole, its exit status true.
    """
    canary, beats, word = tmp_path / "canary", tmp_path / "beats", tmp_path / "go"
    script = f"""echo $$ >>{canary}; n=0
        while [ ! -e {word} ]; do echo $n; echo $n >>{beats}; n=$((n+1)); sleep 0.01; done
        echo the end >&2; exit 7"""
    with live.site(tmp_path, "--cores", "2") as site:
        id = site.submit(script, retry=3, retry_on="node-failure,signal")  # were it ever taken for lost, another line would show
        pid = int(site.written(canary))

        def beat() -> None:
            """Waits for a beat from now on."""
            at = len(beats.read_text().split())
            site.wrote(beats, f"\n{at + 1}\n")

        for role in ("worker-0", "keeper", "server", "agent"):
            before = site.pid(role)
            site.kill(role)
            beat()
            site.results([site.submit("true")])  # all is well again, and has been through the whole chain
            assert site.pid(role) != before
        site.kill("keeper", "worker-0", "agent", "server")
        beat()
        site.up()
        beat()
        assert os.readlink(f"/proc/{pid}/exe")
        word.touch()
        assert site.results([id]) == [7]
        assert canary.read_text() == f"{pid}\n"
        names = site.events(id)
        assert [names.count(name) for name in ("alloc", "start", "finish", "clean", "requeue")] == [1, 1, 1, 1, 0]
        done = site.run("job", "attach", str(id))
        counted = [str(n) for n in range(len(beats.read_text().split()))]
        assert (done.stdout.split(), done.stderr) == (counted, f"the end\nfluxkv: {f58(id)}: exit code 7\n")
        site.sound()


# -- lost, and run again -------------------------------------------------------------------------------------------

AGAIN = """echo $FLUX_JOB_ATTEMPT $$ >>{0}/runs
if [ $FLUX_JOB_ATTEMPT = 1 ]; then setsid sh -c 'echo $$ >{0}/orphan; exec sleep 1000' & fi
while [ ! -e {0}/go ]; do sleep 0.02; done
grep -qs '^State:.[^ZX]' /proc/$(cat {0}/orphan)/status && echo overlap >>{0}/runs
echo attempt $FLUX_JOB_ATTEMPT is over; exit 5"""


ALL = ("keeper", "worker-0", "agent", "server", "launcher")


@pytest.mark.parametrize("kill", [("launcher",), ALL], ids=["launcher", "everything"])
def test_what_a_launcher_s_death_ended_is_run_again_by_policy(kill: tuple[str, ...], tmp_path: Path) -> None:
    """HAZARDS 7 and 8: its tasks are found by their marks, ended with all they had started, reported lost with the cause; only then
    the next attempt begins. A job that asked for nothing fails with that cause."""
    with live.site(tmp_path, "--cores", "4") as site:
        id = site.submit(AGAIN.format(tmp_path), retry=2, retry_on="node-failure")
        plain, other = site.submit("exec sleep 1000"), site.submit("exec sleep 1000", retry=2, retry_on="oom,exit=75,timeout")
        site.running(id, plain, other)
        site.written(tmp_path / "orphan")
        site.kill(*kill)
        if len(kill) > 1:
            site.up()
        site.until(lambda s: s.jobs[id].number == 2 and s.jobs[id].t_run, "the second attempt runs")
        (tmp_path / "go").touch()
        assert site.results([id, plain, other]) == [5, 137, 137]
        runs = (tmp_path / "runs").read_text().split("\n")
        assert [line.split()[0] for line in runs if line] == ["1", "2"]
        assert attempts(site, id) == ["node-failure"]
        state = site.client.state()
        assert "launcher died" in state.jobs[plain].exception[1]
        assert state.jobs[other].exception[0] == "lost"
        (result,) = site.client.wait([id])
        assert (result.exception, result.attempt) == (None, 2)  # it is judged by its last attempt
        listed = site.run("jobs", "-a", "-n", "-o", "{id.dec} {attempt} {info}").stdout
        assert f"{id} 2 exit code 5" in listed
        assert f"{plain} 1 lost: rank 0: its launcher died, and its tasks were ended" in listed
        site.sound()
        site.stop()
        site.nothing_left()


def test_a_task_without_memory_is_tried_again(tmp_path: Path) -> None:
    """A real kill by the kernel, in a control group of our own."""
    group = Path(f"/sys/fs/cgroup/memory/fluxkv-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(48 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no memory control group (version 1) of our own can be made: {error}")
    hungry = f"""echo $$ >{group}/cgroup.procs && exec {sys.executable} -c 'x = b"1" * (200 << 20)'"""
    try:
        with live.site(tmp_path, "--cores", "2") as site:
            id = site.submit(hungry, retry=1, retry_on="oom")
            killed = site.submit("kill -9 $$", retry=1, retry_on="oom")
            assert site.results([id, killed]) == [137, 137]
            assert attempts(site, id) == ["oom"]
            assert attempts(site, killed) == []
            state = site.client.state()
            assert state.jobs[id].exceptions == [["oom", 1, "rank 0: out of memory, the kernel ended a process"]]
            assert state.jobs[killed].exceptions == []
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


# -- output, input, requeue ----------------------------------------------------------------------------------------


def test_output_of_attempts(shared: Any, tmp_path: Path) -> None:
    """Files start afresh with each, unless they are appended to or named by attempt; the stream has all. An agent that dies in
    a later attempt loses nothing of it."""
    script = f"""echo attempt $FLUX_JOB_ATTEMPT; [ $FLUX_JOB_ATTEMPT = 1 ] && exit 3
        while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo and more; exit 0"""
    paths = {"fresh": {}, "both": {"shell_options": {"output.mode": "append"}}, "of-{{attempt}}": {}}
    ids = [shared.submit(script, output=str(tmp_path / path), retry=1, **more) for path, more in paths.items()]
    streamed = shared.submit(script, retry=1)
    shared.until(lambda s: all(s.jobs[id].number == 2 and s.jobs[id].t_run for id in [*ids, streamed]), "all in attempt 2")
    shared.until(lambda s: len(shared.client.store.messages(shared.keys.output(streamed))) >= 4, "both have been forwarded")
    shared.kill("agent")
    (tmp_path / "go").touch()
    assert shared.results([*ids, streamed]) == [0] * 4
    assert (tmp_path / "fresh").read_text() == "attempt 2\nand more\n"
    assert (tmp_path / "both").read_text() == "attempt 1\nattempt 2\nand more\n"
    assert (tmp_path / "of-1").read_text() == "attempt 1\n"
    assert (tmp_path / "of-2").read_text() == "attempt 2\nand more\n"
    assert shared.run("job", "attach", str(streamed)).stdout == "attempt 1\nattempt 2\nand more\n"


def test_each_attempt_has_the_whole_input(shared: Any) -> None:
    import subprocess

    script = "cat; echo of $FLUX_JOB_ATTEMPT; test $FLUX_JOB_ATTEMPT = 3"
    done = subprocess.run(
        [*live.PROGRAM, "run", "--retry=2", "sh", "-c", script], env={**shared.env, "FLUXKV_URI": shared.uri}, text=True,
        input="one\ntwo\n", capture_output=True, timeout=live.PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "".join(f"one\ntwo\nof {n}\n" for n in (1, 2, 3)))
    said = done.stderr.splitlines()
    assert [line.partition(": attempt ")[2] for line in said] == ["2: retry 1 of 2: exit code 1", "3: retry 2 of 2: exit code 1"]
    (last,) = shared.client.journal.last_submitted(shared.client.state(), 1, lambda job: True)
    assert not shared.client.store.messages(shared.keys.input(last.id))  # nothing of it stays in the server


def test_requeue_as_typed(shared: Any, tmp_path: Path) -> None:
    """A running job ends and runs again as the same job; futures and waits go by the last attempt."""
    from fluxkv import Executor

    script = f"echo $FLUX_JOB_ATTEMPT >>{tmp_path}/runs; [ $FLUX_JOB_ATTEMPT = 1 ] && exec sleep 1000; exit 4"
    with Executor(shared.uri) as executor:
        future = executor.submit_command(["sh", "-c", script])
        tried = executor.submit_command(["sh", "-c", "exit $FLUX_JOB_ATTEMPT"], retry=2, retry_on="exit=1,exit=2")
        id = future.job_id
        shared.until(lambda s: id in s.jobs and s.jobs[id].started, "it runs")
        done = shared.run("requeue", "-m", "wrong node", f58(id))
        assert (done.returncode, done.stderr) == (0, "")
        assert (future.result(live.PATIENCE_S), tried.result(live.PATIENCE_S)) == (4, 3)
        assert [event.name for event in tried.events()].count("finish") == 3
        assert (tried.job_result().attempt, future.job_result().attempt) == (3, 2)
    assert (tmp_path / "runs").read_text() == "1\n2\n"
    story = json.loads(shared.run("inspect", "job", f58(id), "--json").stdout)
    assert [(one["number"], one["end"]) for one in story["attempts"]] == [(1, "killed by SIGTERM"), (2, "exit code 4")]
    again = shared.run("requeue", f58(id))
    assert again.returncode == 1
    assert f"fluxkv resubmit {f58(id)}" in again.stderr


# -- hazard 6 ------------------------------------------------------------------------------------------------------


def test_a_requeued_child_is_another_instance(shared: Any, tmp_path: Path) -> None:
    """HAZARD 6: it shares nothing with the first attempt's, whose journal stays readable and takes no more writes."""
    inside = f"{CHILD} submit --quiet sleep 1000; echo $FLUXKV_URI >{tmp_path}/up-$FLUX_JOB_ATTEMPT; exec sleep 1000"
    (tmp_path / "command").write_text(inside)
    job = shared.submit(f"exec {CHILD} start sh {tmp_path}/command", cores_per_task=2)
    shared.written(tmp_path / "up-1")
    first = child_uri(shared.uri, job)
    with contextlib.closing(open_store(first)) as old:
        known = old.meta()
        assert shared.run("requeue", f58(job)).returncode == 0
        second = shared.written(tmp_path / "up-2").strip()
        assert same_instance(second, child_uri(shared.uri, job, 2))
        assert not same_instance(second, first)
        with connect(child_uri(shared.uri, job, 2)) as child:
            assert [one.state for one in child.state().jobs.values()] != [INACTIVE]
            assert len(child.state().jobs) == 1
        assert old.meta().sealed
        with connect(first) as child:
            assert len(child.state().jobs) == 1
        from fluxkv.journal.decide import Decision
        from fluxkv.journal.log import make_append

        with pytest.raises(FluxkvError) as caught:  # a daemon of the first attempt that somehow lives
            old.append(make_append(known, Decision([["memo", job, 1.0, {"a": 1}]]), known.version))
        assert caught.value.code == "ended"
    shared.client.cancel([job])
    shared.results([job])
