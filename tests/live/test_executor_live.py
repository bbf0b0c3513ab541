"""The executor with real daemons and real tasks: many calls, the death of everything, another process, the interpreter's end."""

from __future__ import annotations

import math
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import as_completed, wait
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances import executor_thread
from fluxkv.instances.executor import Executor
from fluxkv.instances.futures import JobException, JobFuture
from fluxkv.kvs.errors import Unavailable

pytestmark = pytest.mark.live
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An instance that nobody hurts."""
    with live.site(tmp_path_factory.mktemp("site"), "-s", "1", "--cores", "4") as site:
        yield site


@pytest.fixture
def executor(calm: Any) -> Iterator[Executor]:
    with Executor(calm.uri, env=calm.env) as made:
        yield made


def gone(future: JobFuture) -> BaseException:
    error = future.exception(PATIENCE_S)
    assert error is not None
    return error


def test_functions_commands_and_their_ends(executor: Executor, calm: Any) -> None:
    futures = [executor.submit(divmod, n, 7) for n in range(6)]
    failing = executor.submit(math.sqrt, -1)
    assert [future.result(PATIENCE_S) for future in as_completed(futures, PATIENCE_S)]
    assert [future.result(0) for future in futures] == [divmod(n, 7) for n in range(6)]
    with pytest.raises(ValueError, match="math domain error"):
        failing.result(PATIENCE_S)
    names = [event.name for event in futures[0].events()]
    assert names[:5] == ["submit", "validate", "depend", "priority", "alloc"]
    assert executor.submit_command("exit 3").result(PATIENCE_S) == 3
    assert executor.submit_command(["sh", "-c", "kill -9 $$"]).result(PATIENCE_S) == -9
    assert "command not found" in str(gone(executor.submit_command(["no-such-program"])))
    assert len(executor.submit(bytes, 20_000_000).result(PATIENCE_S)) == 20_000_000
    assert executor.submit(len, b"x" * 1_000_000).result(PATIENCE_S) == 1_000_000
    assert list(executor.map(pow, range(50), [2] * 50, chunksize=25)) == [n * n for n in range(50)]
    killed = executor.submit(os.kill, 0, signal.SIGKILL)
    with pytest.raises(JobException, match="signal 9 ended the process before the function returned"):
        killed.result(PATIENCE_S)
    never, late = executor.submit_command(["true"], ntasks=999), executor.with_options(duration=0.2).submit(time.sleep, 60)
    assert "unsatisfiable" in str(gone(never))
    assert gone(late).type == "timeout"  # type: ignore[attr-defined]
    assert calm.run("jobs", "-a", "-o", "{name}").stdout.count("divmod") == 6


def test_two_thousand_tiny_calls(executor: Executor) -> None:
    """Most share a job by chunks, as one would do it; a hundred have each their own."""
    own = [executor.submit(operator.mul, n, 3) for n in range(100)]
    shared = executor.map(operator.mul, range(2000), [3] * 2000, chunksize=100)
    assert list(shared) == [n * 3 for n in range(2000)]
    assert [future.result(PATIENCE_S) for future in own] == [n * 3 for n in range(100)]
    commands = [executor.submit_command(["true"]) for _ in range(1000)]
    assert not wait(commands, PATIENCE_S).not_done
    assert {future.result() for future in commands} == {0}


def test_every_daemon_dies_and_is_started_again(tmp_path: Path) -> None:
    """Futures of jobs that waited give their values; those that ran say that they were lost; the caller saw nothing of it."""
    with live.site(tmp_path, "-s", "1", "--cores", "2") as site:
        marks = tmp_path / "marks"
        marks.mkdir()
        executor = Executor(site.uri, env=site.env)
        done = executor.submit(pow, 2, 5)
        assert done.result(PATIENCE_S) == 32
        running = [executor.submit_command(["sh", "-c", f"echo >{marks}/{n}; exec sleep 60"]) for n in range(2)]
        for number in range(2):
            site.written(marks / str(number))
        waiting = [executor.submit(pow, n, 2) for n in range(20)]
        ids = [future.jobid(PATIENCE_S) for future in waiting]
        site.kill("keeper", "worker-0", "agent", "launcher", "server")
        unsent = [executor.submit(pow, n, 3) for n in range(20)]  # nobody is there to take them
        assert not any(future.done() for future in [*waiting, *unsent])
        site.up()
        assert [future.result(PATIENCE_S) for future in waiting] == [n * n for n in range(20)]
        assert [future.result(PATIENCE_S) for future in unsent] == [n**3 for n in range(20)]
        for future in running:
            assert future.job_result(PATIENCE_S).result == "FAILED"
        assert len({*ids, *[future.jobid() for future in unsent]}) == 40
        assert len(site.client.state().jobs) == 43  # each was submitted once
        executor.shutdown()
        site.sound()


def test_daemons_die_one_by_one_under_load(tmp_path: Path) -> None:
    """The launcher lives, so nothing is lost: every call gives its value, each job ran once."""
    with live.site(tmp_path, "-s", "1", "--cores", "2") as site, Executor(site.uri, env=site.env) as executor:
        futures = []
        for number, role in enumerate(("server", "worker-0", "agent", "keeper")):
            futures += [executor.submit(operator.add, number, n) for n in range(8)]
            futures[-8].result(PATIENCE_S)
            site.kill(role)
        assert [future.result(PATIENCE_S) for future in futures] == [number + n for number in range(4) for n in range(8)]
        assert len(site.client.state().jobs) == 32


SUBMITTER = """
import os, sys, time
from fluxkv import Executor
executor = Executor()
futures = [executor.submit(pow, 3, 4), executor.submit(int, "x"), executor.submit(bytearray, 5_000_000)]
futures.append(executor.submit(eval, "__import__('time').sleep(0.5) or 'slept'"))
print(*[future.jobid() for future in futures], flush=True)
os._exit(0)  # no goodbye
"""


def test_another_process_attaches_by_id(calm: Any) -> None:
    env = {**calm.env, "FLUXKV_URI": calm.uri}
    done = subprocess.run([sys.executable, "-c", SUBMITTER], env=env, capture_output=True, text=True, timeout=60)
    ids = done.stdout.split()
    assert len(ids) == 4, done.stderr
    with Executor(calm.uri) as executor:
        futures = [executor.attach(id) for id in ids]
        assert futures[3].result(PATIENCE_S) == "slept"
        assert futures[0].result(PATIENCE_S) == 81
        with pytest.raises(ValueError, match="invalid literal"):
            futures[1].result(PATIENCE_S)
        assert len(futures[2].result(PATIENCE_S)) == 5_000_000
        assert futures[0].events()[0].name == "submit"
    with Executor(calm.uri) as executor:  # and again, when all are over
        assert executor.attach(ids[0]).result(PATIENCE_S) == 81


STUDY = """
import sys
from concurrent.futures import wait
sys.modules["cloudpickle"] = None
import fluxkv

class Point:
    def __init__(self, x): self.x = x

def double(point):
    return Point(point.x * 2)

if __name__ == "__main__":
    executor = fluxkv.Executor()
    print(executor.submit(double, Point(21)).result().x)
    executor.submit(print, "left behind", flush=True).add_done_callback(lambda future: print("done", future.result()))
"""


def test_a_script_ends_when_its_jobs_have(calm: Any, tmp_path: Path) -> None:
    """Without cloudpickle, without shutdown: the script's own functions are found, and its end waits."""
    (tmp_path / "study.py").write_text(STUDY)
    env = {**calm.env, "FLUXKV_URI": calm.uri}
    done = subprocess.run([sys.executable, tmp_path / "study.py"], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\ndone None\n", "")


def test_an_instance_that_is_stopped_and_one_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live.site(tmp_path, "-s", "1", "--cores", "1") as site:
        first = Executor(site.uri, env=site.env)
        held = first.with_options(urgency=0).submit_command(["true"])
        held.jobid(PATIENCE_S)
        site.stop()
        site.up()  # an upgrade: within the time that is allowed for it
        other = Executor(site.uri, env=site.env, patience_s=0.5)
        again = other.attach(held.jobid())
        site.client.set_urgency(held.jobid(), 16)
        assert held.result(PATIENCE_S) == 0
        assert again.result(PATIENCE_S) == 0
        waiting = first.with_options(urgency=0).submit_command(["true"])
        impatient = other.attach(waiting.jobid(PATIENCE_S))
        seen = threading.Event()
        impatient.add_event_callback("submit", lambda *_: seen.set())
        assert seen.wait(PATIENCE_S)
        monkeypatch.setattr(executor_thread, "STOPPED_S", 0.2)
        site.kill("keeper", "worker-0", "agent", "launcher", "server")
        with pytest.raises(Unavailable, match="has been away") as caught:
            impatient.result(PATIENCE_S)
        assert caught.value.code == "disconnected"
        assert not waiting.done()  # it has more patience
        site.up()
        site.stop()
        with pytest.raises(Unavailable, match="was stopped"):
            waiting.result(PATIENCE_S)
        first.shutdown()
        other.shutdown()


def test_submitting_to_a_stopped_instance_fails_soon_and_works_once_it_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_thread, "STOPPED_S", 60.0)
    with live.site(tmp_path, "-s", "1", "--cores", "1") as site, Executor(site.uri, env=site.env) as executor:
        assert executor.submit_command(["true"]).result(PATIENCE_S) == 0
        following = executor.with_options(urgency=0).submit_command(["true"])
        following.jobid(PATIENCE_S)
        site.stop()
        late = executor.submit_command(["true"])  # the thread waits for the server, and for the time that a restart may take
        site.up()
        assert late.result(PATIENCE_S) == 0
        site.client.cancel([following.jobid()])
        assert following.exception(PATIENCE_S) is not None
        monkeypatch.setattr(executor_thread, "STOPPED_S", 0.2)
        site.stop()
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(Unavailable, match="the instance was stopped") as caught:
                executor.submit_command(["true"]).result(PATIENCE_S)
            assert caught.value.code == "stopped"
        with pytest.raises(Unavailable, match="the instance was stopped"):
            executor.attach(following.jobid()).result(PATIENCE_S)
        assert time.monotonic() - began < 30.0  # its patience is 300 s
        site.up()
        assert executor.submit_command(["true"]).result(PATIENCE_S) == 0
