"""The executor and its futures against a real server; what the worker and a function's task do, the test does."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait
from concurrent.futures import Executor as BaseExecutor
from pathlib import Path
from typing import Any

import pytest
from client_rig import life, play

from fluxkv.instances import calls, executor_thread, pyjob, submission
from fluxkv.instances.client import Instance
from fluxkv.instances.executor import Executor
from fluxkv.instances.futures import EVENTS, JobException, JobFuture
from fluxkv.journal import decide
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Rejected, Unavailable

PATIENCE_S = 20.0


@pytest.fixture
def executor(instance: Instance, tmp_path: Path) -> Iterator[Executor]:
    made = Executor(instance.uri, results=tmp_path)
    yield made
    made.shutdown(wait=False, cancel_futures=True)
    for id, job in instance.state().jobs.items():
        if not job.t_inactive:
            play(instance, [["exception", id, 0.0, {"type": "cancel", "severity": 0, "note": ""}], ["clean", id, 0.0, None]])
    made.shutdown()


def give(future: JobFuture, value: Any = None, error: BaseException | None = None) -> None:
    """Leave a result as the function's task would."""
    pyjob.keep(pyjob.result_path(future.folder, future.jobid(PATIENCE_S)), value, pyjob.described(error) if error else None, False)


def until_event(future: JobFuture, name: str) -> None:
    """Wait until the executor has seen an event."""
    seen = threading.Event()
    future.add_event_callback(name, lambda *_: seen.set())
    assert seen.wait(PATIENCE_S), name


def test_it_is_an_executor_and_its_futures_are_futures(executor: Executor, instance: Instance) -> None:
    assert isinstance(executor, BaseExecutor)
    future = executor.submit(pow, 2, 3)
    job = instance.job(future.jobid(PATIENCE_S))
    assert future.job_id == job.id
    assert job.name == "pow"
    assert job.jobspec is not None
    assert job.jobspec["tasks"][0]["command"] == [sys.executable, "-P", pyjob.__file__]
    assert not future.running()
    play(instance, life(job.id)[:5])
    until_event(future, "start")
    assert future.running()
    assert not future.cancel()
    give(future, 8)
    play(instance, life(job.id)[5:])
    assert future.result(PATIENCE_S) == 8
    assert future.done()
    assert future.exception() is None
    assert future.job_result().returncode == 0
    assert future.job_result().runtime > 0
    assert repr(future).endswith(f"job={instance.journal and str(job_text(job.id))}>")


def job_text(id: int) -> str:
    from fluxkv.journal.ids import f58

    return f58(id)


def test_what_a_function_raises_is_raised_with_its_traceback(executor: Executor, instance: Instance) -> None:
    future = executor.submit(int, "x")
    give(future, error=KeyError("lost"))
    play(instance, life(future.jobid(), 256))
    with pytest.raises(KeyError, match="lost") as caught:
        future.result(PATIENCE_S)
    assert "KeyError: 'lost'" in str(caught.value.__cause__)
    assert future.job_result().returncode == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "left no result"), (9, "signal 9 ended the process"), (3 << 8, "exit code 3"), (125 << 8, "could not be kept")],
)
def test_a_function_without_a_result(executor: Executor, instance: Instance, status: int, words: str) -> None:
    future = executor.submit(int, "5")
    play(instance, life(future.jobid(PATIENCE_S), status))
    with pytest.raises(JobException, match=words) as caught:
        future.result(PATIENCE_S)
    assert (caught.value.id, caught.value.type) == (future.jobid(), "exit")


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7 << 8, 7), (9, -9), (15, -15)])
def test_a_command_gives_its_exit_code(executor: Executor, instance: Instance, status: int, code: int) -> None:
    future = executor.submit_command(["sim", "x"], name="n", ntasks=2)
    record = instance.job(future.jobid(PATIENCE_S))
    assert (record.name, record.ntasks) == ("n", 2)
    play(instance, life(future.jobid(), status))
    assert future.result(PATIENCE_S) == code
    assert future.job_result().status == status


def test_a_jobspec_is_submitted_as_flux_s_executor_does(executor: Executor, instance: Instance) -> None:
    from fluxkv.instances.submission import build_jobspec

    jobspec = build_jobspec(["sim"], ntasks=2, name="spec")
    future = executor.submit(jobspec, urgency=20)
    job = instance.job(future.jobid(PATIENCE_S))
    assert (job.name, job.ntasks, job.urgency) == ("spec", 2, 20)
    with pytest.raises(Rejected):
        executor.submit({"version": 1})


def test_many_submissions_share_few_commits(executor: Executor, instance: Instance) -> None:
    store: Any = instance.store
    executor.submit_command(["true"]).jobid(PATIENCE_S)
    before = instance.store.meta().version
    threads, connections = threading.active_count(), len(store._ask("CLIENT", "LIST").splitlines())
    futures = [executor.submit_command(["echo", str(n)]) for n in range(1500)]
    ids = [future.jobid(PATIENCE_S) for future in futures]
    assert len(set(ids)) == 1500
    state = instance.state()
    assert state.jobs[ids[700]].jobspec["tasks"][0]["command"] == ["echo", "700"]  # type: ignore[index]
    assert state.version - before < 150
    assert threading.active_count() == threads
    assert len(store._ask("CLIENT", "LIST").splitlines()) <= connections + 1  # the subscription
    assert len({state.jobs[id].env for id in ids}) == 1


def test_events_come_to_callbacks_in_order_past_ones_at_once(executor: Executor, instance: Instance) -> None:
    future = executor.submit_command(["true"])
    names: list[str] = []
    ids: list[int] = []
    assert future.add_jobid_callback(lambda f: ids.append(f.jobid())) is future
    for name in sorted(EVENTS):
        future.add_event_callback(name, lambda f, event: names.append(event.name))
    id = future.jobid(PATIENCE_S)
    warning = ["exception", id, 1.0, {"type": "odd", "severity": 3, "note": "a warning"}]
    play(instance, [*life(id)[:5], warning, *life(id)[5:]])
    assert future.result(PATIENCE_S) == 0
    until_event(future, "clean")
    assert names == ["submit", *[event[0] for event in life(id)[:5]], "exception", *[event[0] for event in life(id)[5:]]]
    late: list[Any] = []
    future.add_event_callback("exception", lambda f, event: late.append(event.context["note"]))
    future.add_jobid_callback(lambda f: ids.append(f.job_id))
    assert (late, ids) == (["a warning"], [id, id])
    assert [event.name for event in future.events()] == names
    with pytest.raises(ValueError, match="no event of a job"):
        future.add_event_callback("birthday", print)


def test_a_callback_that_fails_or_waits_harms_nobody(executor: Executor, instance: Instance, caplog: Any) -> None:
    future, other = executor.submit_command(["true"]), executor.submit_command(["true"])
    told: list[BaseException] = []

    def waits(*_: Any) -> None:
        for ask in (other.result, other.exception):
            try:
                ask()
            except RuntimeError as error:
                told.append(error)

    future.add_event_callback("start", waits)
    future.add_event_callback("start", lambda *_: 1 // 0)
    play(instance, life(future.jobid(PATIENCE_S)))
    assert future.result(PATIENCE_S) == 0
    assert [type(error) for error in told] == [RuntimeError, RuntimeError]
    assert "ZeroDivisionError" in caplog.text
    play(instance, life(other.jobid()))
    assert other.result(PATIENCE_S) == 0


def test_cancelling_what_does_not_run_cancels_its_job(executor: Executor, instance: Instance) -> None:
    future = executor.submit_command(["true"])
    id = future.jobid(PATIENCE_S)
    assert future.cancel()
    assert future.cancel()
    assert wait([future], PATIENCE_S).done == {future}
    with pytest.raises(CancelledError):
        future.result()
    until_event(future, "exception")
    assert instance.job(id).exception == ["cancel", "its future was cancelled"]
    play(instance, [["clean", id, 1.0, None]])
    until_event(future, "clean")
    assert future.jobid() == id


def test_cancelling_before_it_is_submitted(executor: Executor, instance: Instance) -> None:
    held = threading.Event()
    go = threading.Event()
    first = executor.submit_command(["true"])
    first.add_jobid_callback(lambda _: (held.set(), go.wait(PATIENCE_S)))
    assert held.wait(PATIENCE_S)
    future = executor.submit_command(["never"])
    told: list[JobFuture] = []
    future.add_jobid_callback(told.append)
    assert future.cancel()
    go.set()
    with pytest.raises(CancelledError):
        future.jobid(PATIENCE_S)
    assert wait([future], PATIENCE_S).done
    assert told == [future]
    assert [job.name for job in instance.state().jobs.values()] == ["true"]


def test_a_running_job_is_ended_by_cancel_job(executor: Executor, instance: Instance) -> None:
    future = executor.submit_command(["sleep", "9"])
    id = future.jobid(PATIENCE_S)
    play(instance, life(id)[:5])
    until_event(future, "start")
    future.cancel_job("enough")
    until_event(future, "exception")
    assert not future.done()
    play(instance, life(id, 15)[5:])
    with pytest.raises(JobException, match="cancel: enough") as caught:
        future.result(PATIENCE_S)
    assert (caught.value.type, caught.value.note, caught.value.returncode) == ("cancel", "enough", 143)
    assert not future.cancelled()
    assert future.job_result().result == "CANCELED"


def test_what_others_do_to_a_job_is_a_job_exception(executor: Executor, instance: Instance) -> None:
    future, refused = executor.submit(int), executor.submit_command(["true"])
    instance.cancel([future.jobid(PATIENCE_S)], "by an operator")
    play(instance, [["clean", future.jobid(), 1.0, None], ["invalidate", refused.jobid(PATIENCE_S), 1.0, None]])
    with pytest.raises(JobException, match="cancel: by an operator") as caught:
        future.result(PATIENCE_S)
    import pickle

    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.timestamp, again.hint) == (str(caught.value), caught.value.timestamp, caught.value.hint)
    with pytest.raises(JobException, match="refused"):
        refused.result(PATIENCE_S)


def test_a_closed_queue_fails_its_futures_only(executor: Executor, instance: Instance) -> None:
    Journal(instance.store).settle(lambda _: decide.change_queue("default", "disable", "lunch", time.time()))
    future = executor.submit(int)
    told: list[JobFuture] = []
    future.add_jobid_callback(told.append)
    with pytest.raises(Rejected, match="lunch"):
        future.result(PATIENCE_S)
    with pytest.raises(Rejected, match="lunch"):
        future.jobid()
    with pytest.raises(Rejected, match="lunch"):
        future.job_result()
    assert told == [future]
    Journal(instance.store).settle(lambda _: decide.change_queue("default", "enable", "", time.time()))
    unknown, fine = executor.with_options(queue="nowhere").submit(int), executor.submit(int)
    with pytest.raises(Rejected, match="nowhere"):
        unknown.result(PATIENCE_S)
    assert fine.jobid(PATIENCE_S)


@pytest.mark.parametrize("commits", ["one", "many"])
def test_who_is_refused_harms_no_other_of_the_commit(
    executor: Executor, instance: Instance, monkeypatch: pytest.MonkeyPatch, commits: str
) -> None:
    """many: large jobs do not go into one commit, and those before it are in the journal when one is refused."""
    submitter = executor._core._submitter
    right = submitter._commit

    def strict(chunk: Any, *rest: Any) -> list[int]:
        if any("bad" in jobspec["tasks"][0]["command"] for jobspec, *_ in chunk):
            raise Rejected("bad is refused")
        return right(chunk, *rest)

    monkeypatch.setattr(submitter, "_commit", strict)
    if commits == "many":
        monkeypatch.setattr(submission, "CHUNK_BYTES", 1)
    go = threading.Event()
    executor.submit_command(["first"]).add_jobid_callback(lambda _: go.wait(PATIENCE_S))
    futures = [executor.submit_command(["bad" if n in (2, 5) else "good"]) for n in range(9)]
    last = executor.submit_command(["later"], dependencies="begin-time:1")
    beside = executor.submit_command(["alone"], dependencies="afterany:#-1")
    go.set()
    for number, future in enumerate(futures):
        if number in (2, 5):
            with pytest.raises(Rejected, match="bad is refused"):
                future.result(PATIENCE_S)
        else:
            assert instance.job(future.jobid(PATIENCE_S)).name == "good"
    assert len([job for job in instance.state().jobs.values() if job.name == "good"]) == 7
    assert last.jobid(PATIENCE_S)
    spec = instance.job(beside.jobid(PATIENCE_S)).jobspec
    assert spec is not None
    assert "dependencies" not in spec["attributes"]["system"]


def test_wrong_options_are_refused_where_they_are_given(executor: Executor) -> None:
    for options, words in (
        ({"ntasks": 2}, "one task"), ({"nodes": 2}, "one node"), ({"colour": 1}, "colour"), ({"cores_per_task": 0}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=words):
            executor.with_options(**options).submit(int)
    with pytest.raises(Rejected, match="urgency"):
        executor.submit_command(["true"], urgency=99)
    with pytest.raises(Rejected):
        executor.submit_command([])
    with pytest.raises(Rejected, match="cannot be sent"):
        executor.submit(int, threading.Lock())
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(int, [1], chunksize=0)


def test_options_of_the_executor_and_of_one_job(executor: Executor, instance: Instance) -> None:
    other = executor.with_options(cores_per_task=2, name="mine", urgency=20, env={"A": "1"}, duration="1m")
    future = other.submit(int)
    job = instance.job(future.jobid(PATIENCE_S))
    assert (job.ncores, job.name, job.urgency, job.duration) == (2, "mine", 20, 60.0)
    command = other.submit_command(["x"], urgency=3, duration="2m")
    job = instance.job(command.jobid(PATIENCE_S))
    assert (job.ncores, job.urgency, job.duration) == (2, 3, 120.0)


def test_map_keeps_the_order_and_shares_jobs_by_chunks(executor: Executor, instance: Instance) -> None:
    values = executor.map(pow, [1, 2, 3, 4, 5], [2] * 5, chunksize=2, timeout=PATIENCE_S)
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.extend(values))
    thread.start()
    jobs = sorted(until_jobs(instance, 3), key=lambda job: job.id)
    for job, value in zip(reversed(jobs), ([25], [9, 16], [1, 4]), strict=True):
        folder = job.jobspec["attributes"]["user"]["python_call"]["results"]
        pyjob.keep(pyjob.result_path(folder, job.id), value, None, False)
        play(instance, life(job.id))
    thread.join(PATIENCE_S)
    assert done == [1, 4, 9, 16, 25]
    with pytest.raises(TimeoutError):
        next(executor.map(abs, [1], timeout=0.01))


def until_jobs(instance: Instance, count: int) -> list[Any]:
    """The jobs, once there are so many."""
    deadline = time.monotonic() + PATIENCE_S
    while len(jobs := list(instance.state().jobs.values())) < count:
        assert time.monotonic() < deadline
        next(iter(instance.events(follow=True, timeout=PATIENCE_S)))
    return jobs


def test_the_standard_library_waits_for_them(executor: Executor, instance: Instance) -> None:
    futures = [executor.submit_command(["true"]) for _ in range(3)]
    ids = [future.jobid(PATIENCE_S) for future in futures]
    play(instance, life(ids[1]))
    assert wait(futures, PATIENCE_S, FIRST_COMPLETED).done == {futures[1]}
    play(instance, [*life(ids[2]), *life(ids[0])])
    assert set(as_completed(futures, PATIENCE_S)) == set(futures)


def test_attaching_to_jobs_of_any_age(executor: Executor, instance: Instance, tmp_path: Path) -> None:
    ended, active = executor.submit(int, "4"), executor.submit_command(["true"])
    give(ended, 4)
    play(instance, life(ended.jobid(PATIENCE_S)))
    play(instance, life(active.jobid(PATIENCE_S))[:5])
    assert ended.result(PATIENCE_S) == 4
    with Executor(instance.uri) as other:
        first, second, twin = (other.attach(id) for id in (ended.jobid(), str(job_text(active.jobid())), active.jobid()))
        unknown = other.attach(77)
        assert first.result(PATIENCE_S) == 4
        assert [event.name for event in first.events()] == [event[0] for event in [["submit"], *life(1)]]
        until_event(second, "start")
        assert second.running()
        play(instance, life(active.jobid(), 512)[5:])
        assert (second.result(PATIENCE_S), twin.result(PATIENCE_S), active.result(PATIENCE_S)) == (2, 2, 2)
        with pytest.raises(Rejected, match="no such job"):
            unknown.result(PATIENCE_S)
        with pytest.raises(Rejected, match="no such job"):
            unknown.job_result()


def test_what_has_its_key_already_is_not_submitted_again(executor: Executor, instance: Instance, tmp_path: Path) -> None:
    ended, active = executor.submit_once("a", int, "4"), executor.submit_command(["true"], key="b")
    give(ended, 4)
    play(instance, life(ended.jobid(PATIENCE_S)))
    active.jobid(PATIENCE_S)
    large = "5" * 2 * calls.INLINE
    with Executor(instance.uri, results=tmp_path / "elsewhere") as other:
        again = [other.submit_once("a", int, large), other.submit_once("a", int, "4")]  # both of one commit, perhaps
        pending, new = other.submit_command(["true"], key="b"), other.submit_once("c", int, "6")
        assert [future.result(PATIENCE_S) for future in again] == [4, 4]
        assert not list((tmp_path / "elsewhere").rglob("*.call"))
        give(new, 6)
        play(instance, [*life(new.jobid(PATIENCE_S)), *life(active.jobid(), 512)])
        assert (pending.result(PATIENCE_S), active.result(PATIENCE_S), new.result(PATIENCE_S)) == (2, 2, 6)
        for other_call in (other.submit_once("a", pow, 2, 3), other.submit_command(["false"], key="b")):
            with pytest.raises(Rejected, match="asked for something else"):
                other_call.result(PATIENCE_S)
    assert len(instance.state().jobs) == 3
    for bad in ("", "a\n", 7):
        with pytest.raises(Rejected, match="no key of a job"):
            executor.submit_once(bad, int, "4")  # type: ignore[arg-type]


def test_events_written_badly_by_hand_are_passed_over(executor: Executor, instance: Instance) -> None:
    future, other = executor.submit_command(["true"]), executor.submit_command(["true"])
    id = future.jobid(PATIENCE_S)
    odd: list[Any] = [["finish", id, 1.0, {}], ["exception", id, 1.0, None], ["start"], [1, [2], 3, 4], "x", ["clean", {}, 0, None]]
    Journal(instance.store).append(Decision(odd), 0)
    play(instance, life(id, 256))
    play(instance, life(other.jobid(PATIENCE_S)))
    assert other.result(PATIENCE_S) == 0
    assert future.result(PATIENCE_S) == 1
    assert executor.attach(id).result(PATIENCE_S) == 1
    assert instance.wait([id], PATIENCE_S)[0].returncode == 1


def test_many_threads_share_one(executor: Executor, instance: Instance) -> None:
    ids: list[int] = []

    def work() -> None:
        futures = [executor.with_options(name="x").submit(int, n) for n in range(20)]
        futures += [executor.submit(int, n) for n in range(20)]
        ids.extend(future.jobid(PATIENCE_S) for future in futures)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(set(ids)) == 240
    assert set(instance.state().jobs) == set(ids)


def test_results_are_kept_or_not(instance: Instance, tmp_path: Path) -> None:
    for keep, left in ((True, 1), (False, 0)):
        with Executor(instance.uri, results=tmp_path / str(keep), keep_results=keep) as executor:
            future = executor.submit(len, b"x" * 20_000)
            assert len(list((tmp_path / str(keep)).rglob("*.call"))) == 1
            give(future, 20_000)
            play(instance, life(future.jobid()))
            assert future.result(PATIENCE_S) == 20_000
        assert len(list((tmp_path / str(keep)).rglob("*.*"))) == left


def test_after_shutdown_nothing_is_taken(instance: Instance) -> None:
    executor = Executor(instance.uri)
    executor.shutdown()
    for call in (lambda: executor.submit_command(["true"]), lambda: executor.attach(1)):
        with pytest.raises(RuntimeError, match="after shutdown"):
            call()
    executor.shutdown(cancel_futures=True)


def test_shutdown_waits_or_cancels(instance: Instance) -> None:
    executor = Executor(instance.uri)
    future, pending = executor.submit_command(["true"]), executor.submit_command(["true"])
    play(instance, life(future.jobid(PATIENCE_S))[:5])
    pending.jobid(PATIENCE_S)
    until_event(future, "start")
    executor.shutdown(wait=False, cancel_futures=True)
    assert pending.cancelled()
    assert not future.done()
    play(instance, life(future.jobid())[5:])
    executor.shutdown()
    assert future.result(0) == 0
    assert instance.job(pending.jobid()).exception is not None


def test_cancelling_while_the_thread_is_busy(instance: Instance) -> None:
    """Whoever waits is told at once, wherever the work is by then; nothing of it is submitted."""
    executor = Executor(instance.uri)
    held, go = threading.Event(), threading.Event()
    first = executor.submit_command(["true"])
    first.add_jobid_callback(lambda _: (held.set(), go.wait(PATIENCE_S)))
    assert held.wait(PATIENCE_S)
    futures = [executor.submit_command(["never"]) for _ in range(5)]
    assert futures[0].cancel()
    assert not wait(futures[:1], PATIENCE_S).not_done
    executor.shutdown(wait=False, cancel_futures=True)
    assert not wait([first, *futures], PATIENCE_S).not_done
    assert all(future.cancelled() for future in [first, *futures])
    go.set()
    executor.shutdown()
    (job,) = instance.state().jobs.values()
    assert (job.name, job.exception) == ("true", ["cancel", "its future was cancelled"])
    for future in futures:
        with pytest.raises(CancelledError):
            future.jobid(PATIENCE_S)


def test_an_executor_that_is_forgotten_still_serves_its_futures_then_ends(instance: Instance) -> None:
    executor = Executor(instance.uri)
    derived = executor.with_options(name="x")
    future = derived.submit_command(["true"])
    thread = executor._core._thread
    assert thread is not None
    gone = weakref.ref(executor)
    del executor
    assert gone() is not None  # the derived one holds it
    assert derived.submit_command(["true"]).cancel()
    del derived
    gc.collect()
    assert gone() is None
    play(instance, life(future.jobid(PATIENCE_S)))
    assert future.result(PATIENCE_S) == 0
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_is_told_to_make_its_own(executor: Executor, instance: Instance) -> None:
    future = executor.submit_command(["true"])
    id = future.jobid(PATIENCE_S)

    def child() -> int:
        for call in (lambda: executor.submit(int), lambda: executor.attach(id)):
            try:
                call()
            except Unavailable as error:
                if error.code != "forked":
                    return 2
        executor.shutdown()
        return 0

    assert in_fork(child) == 0
    play(instance, life(id))
    assert future.result(PATIENCE_S) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_speaks_over_a_connection_of_its_own(instance: Instance) -> None:
    store: Any = instance.store
    tail = store.subscribe({store.keys.journal: "0"})
    assert tail.poll(PATIENCE_S)
    ours = store._ask("CLIENT", "ID")

    def child() -> int:
        play(instance, [["instance-start", "instance", 1.0, {"pid": 1, "host": "h"}]])
        return 0 if store._ask("CLIENT", "ID") != ours and len(tail.poll(PATIENCE_S)[0][1]) == 1 else 1

    assert in_fork(child) == 0
    assert store._ask("CLIENT", "ID") == ours
    assert len(tail.poll(PATIENCE_S)[0][1]) == 1
    tail.close()


def in_fork(child: Any) -> int:
    """Exit code of a forked child."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = child()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_stopped_instance_fails_its_futures_with_a_word(
    executor: Executor, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_thread, "STOPPED_S", 0.05)
    future = executor.submit_command(["true"])
    future.jobid(PATIENCE_S)
    play(instance, [["instance-stop", "instance", 1.0, {"reason": "stop"}]])
    with pytest.raises(Unavailable, match="the instance was stopped") as caught:
        future.result(PATIENCE_S)
    assert caught.value.code == "stopped"
    assert "attach" in caught.value.hint
    again = executor.attach(future.jobid())  # it may be up again by now
    play(instance, life(future.jobid()))
    assert again.result(PATIENCE_S) == 0


def test_no_instance_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no server answers"):
        Executor(f"unix:{tmp_path}/none")
    with pytest.raises(Unavailable, match="no instance"):
        Executor("memory:nothing-here")


def test_functions_need_a_folder_for_results(instance: Instance) -> None:
    with Executor(instance.uri) as executor, pytest.raises(Unavailable, match="state directory") as caught:
        executor.submit(int)
    assert "results=DIR" in caught.value.hint


def test_an_executor_is_not_pickled(executor: Executor) -> None:
    import pickle

    with pytest.raises(TypeError, match="thread"):
        pickle.dumps(executor)
