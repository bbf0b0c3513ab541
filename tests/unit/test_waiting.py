"""The worker and jobs that wait for others: what it derives, when, and that nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
import worker_rig
from worker_rig import jobspec

from fluxkv.instances import waiting as waiting_module
from fluxkv.instances import worker as worker_module
from fluxkv.instances.reactor import Answered, Entries, Found, Lead, Lookup, WakeAt, Write
from fluxkv.instances.singletons import Singletons
from fluxkv.journal import decide, decide_update
from fluxkv.journal.dependency import normalise
from fluxkv.journal.ids import f58
from fluxkv.journal.job import DEPEND, INACTIVE, RUN, SCHED
from fluxkv.kvs.port import Append, Appended


class Rig(worker_rig.Rig):
    def wait(self, *uris: str, name: str = "", cores: int = 1, urgency: int = 16, duration: float = 0.0) -> int:
        """Submit a job with these dependencies."""
        return self.submit(self.spec(*uris, name=name, cores=cores, duration=duration), urgency)

    def spec(self, *uris: str, name: str = "", cores: int = 1, duration: float = 0.0) -> dict[str, Any]:
        spec: dict[str, Any] = jobspec(cores, duration=duration)
        system = spec["attributes"]["system"]
        if uris:
            system["dependencies"] = normalise(list(uris))
        if name:
            system["job"] = {"name": name}
        return spec

    def end(self, id: int, status: int = 0, cause: str = "") -> None:
        self.over(id, status, cause)
        self.turn()

    def cancel(self, id: int) -> None:
        self.do(decide.raise_exception(self.state, id, "cancel", 0, "", 1, self.now))
        self.turn()

    def note(self, id: int) -> str:
        return str(self.job(id).exception[1])

    def replayed(self) -> None:
        """The journal folds to the same, and nothing in it was malformed."""
        state = self.journal.at()
        assert state.digest() == self.state.digest()
        assert state.skipped == 0

    def empty(self) -> None:
        """The worker keeps nothing of jobs that do not wait."""
        waiting = self.worker.waiting
        assert not waiting.waiters
        assert not waiting.on_start
        assert not waiting.on_end
        assert not waiting.known
        assert not waiting.ask
        assert not waiting.asking
        self.replayed()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_one_waits_and_goes_on_in_the_commit_of_the_end(rig: Rig) -> None:
    first = rig.submit()
    second = rig.wait(f"afterok:{first}")
    assert rig.names(second) == ["submit", "validate", "dependency-add"]
    assert rig.job(second).state == DEPEND
    assert list(rig.job(second).waiting) == [f"after-success={f58(first)}"]
    rig.started(first)
    before = rig.state.version
    rig.end(first)
    assert rig.names(second)[3:] == ["dependency-remove", "depend", "priority", "alloc"]
    assert rig.state.version == before + 2  # the report, and all that follows from it
    assert rig.job(second).state == RUN
    assert list(rig.job(second).met) == [f"after-success={f58(first)}"]
    rig.end(second)
    rig.empty()


def test_each_scheme_at_its_moment(rig: Rig) -> None:
    rig.now = 1_700_000_000.0
    first = rig.submit(jobspec(2, duration=100.0))
    start, anyway, ok, notok, exc = (
        rig.wait(f"{scheme}:{first}", cores=2) for scheme in ("after", "afterany", "afterok", "afternotok", "afterexcept")
    )
    timed = rig.wait(f"begin-time:{rig.now + 50}", cores=2)
    others = (start, anyway, ok, notok, exc, timed)
    assert {rig.job(id).state for id in others} == {DEPEND}
    rig.started(first)
    assert rig.job(start).state == RUN
    assert {rig.job(id).state for id in others[1:]} == {DEPEND}
    rig.turn(seconds=49.0)
    assert rig.job(timed).state == DEPEND
    rig.turn(seconds=1.5)
    assert rig.job(timed).state == SCHED
    rig.end(first, 3 << 8)
    assert [rig.job(id).state for id in (anyway, ok, notok, exc)] == [RUN, INACTIVE, SCHED, INACTIVE]
    assert rig.job(ok).exception == ["dependency", f"afterok:{f58(first)} cannot be met: job {f58(first)} failed (exit code 3)"]
    assert rig.note(exc).endswith("failed (exit code 3) without an exception")
    assert rig.names(ok)[-3:] == ["dependency-add", "exception", "clean"]
    rig.empty()


def test_what_is_met_already_is_said_in_one_commit(rig: Rig) -> None:
    first = rig.submit()
    rig.started(first)
    rig.end(first)
    second = rig.wait(f"afterok:{first}", f"after:{first}", "begin-time:5")
    assert rig.names(second) == [
        "submit", "validate", *["dependency-add"] * 3, *["dependency-remove"] * 3, "depend", "priority", "alloc",
    ]  # fmt: skip
    rig.empty()


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("afterok:777", f"afterok:{f58(777)} cannot be met: there is no job {f58(777)}"),
        ("afterok:2", f"afterok:{f58(2)} cannot be met: this job itself"),
        ("any(afterok:777,afternotok:888)", "there is no job"),
    ],
)
def test_what_can_never_be_ends_the_job_at_once(rig: Rig, uri: str, why: str) -> None:
    rig.submit()
    bad = rig.wait(uri)
    assert rig.job(bad).state == INACTIVE
    assert why in rig.note(bad)
    rig.empty()


def test_what_nobody_checked_is_refused_with_a_reason(rig: Rig) -> None:
    for given in ("afterok:1", [], [1], [{"scheme": "afterok"}], [{"scheme": "nosuch", "value": "x"}],
                  [{"scheme": "afterok", "value": "#-1"}], [{"scheme": "any", "value": "any(" * 500}],
                  {"scheme": "afterok", "value": "1"}, [{"scheme": "singleton", "value": ""}], None):  # fmt: skip
        spec = rig.spec()
        spec["attributes"]["system"]["dependencies"] = given
        id = rig.submit(spec)
        assert rig.job(id).state == INACTIVE, given
        assert rig.job(id).exception[0] in ("alloc", "dependency")
    rig.replayed()


def test_a_job_that_can_never_run_does_not_wait_first(rig: Rig) -> None:
    first = rig.submit()
    big = rig.wait(f"afterok:{first}", cores=99)
    assert rig.job(big).state == INACTIVE
    assert rig.job(big).exception[0] == "alloc"
    rig.empty()


def test_a_chain_that_cannot_go_on_ends_in_one_commit(rig: Rig) -> None:
    first = rig.submit()
    chain = [rig.wait(f"afterok:{first}")]
    for _ in range(20):
        chain.append(rig.wait(f"afterok:{chain[-1]}"))
    last = rig.wait(f"afterany:{chain[-1]}")
    before = rig.state.version
    rig.end(first, 256)
    assert rig.state.version == before + 2
    assert {rig.job(id).state for id in chain} == {INACTIVE}
    assert rig.note(chain[0]).endswith("failed (exit code 1)")
    assert rig.note(chain[5]).endswith(f"job {f58(chain[4])} never started: dependency")
    assert rig.job(last).state == RUN
    rig.empty()


def test_a_cancelled_antecedent_that_never_ran(rig: Rig) -> None:
    holders = [rig.submit(jobspec(2)) for _ in range(2)]
    first = rig.submit()
    assert rig.job(first).state == SCHED
    anyway, notok, start = (rig.wait(f"{scheme}:{first}") for scheme in ("afterany", "afternotok", "after"))
    rig.cancel(first)
    assert [rig.job(id).state for id in (anyway, notok, start)] == [SCHED, INACTIVE, INACTIVE]
    assert rig.note(notok).endswith(f"job {f58(first)} never started: canceled")
    assert holders
    rig.empty()


def test_a_waiting_job_is_cancelled(rig: Rig) -> None:
    first = rig.submit()
    second = rig.wait(f"all(afterok:{first},begin-time:{rig.now + 60})", f"after:{first}", f"begin-time:{rig.now + 50}")
    third = rig.wait(f"afterok:{second}")
    rig.cancel(second)
    assert rig.job(second).state == INACTIVE
    assert rig.job(third).state == INACTIVE
    rig.empty()
    rig.end(first)
    rig.turn(seconds=70.0)
    assert rig.names(second)[-1] == "clean"


def test_any_goes_on_with_the_first_and_all_with_the_last(rig: Rig) -> None:
    a, b = rig.submit(), rig.submit()
    one = rig.wait(f"any(afterok:{a},afterok:{b})")
    both = rig.wait(f"all(afterok:{a},any(afterok:{b},begin-time:{rig.now + 1000}))")
    rig.end(a, 256)
    assert rig.job(one).state == DEPEND
    assert rig.job(both).state == INACTIVE
    rig.end(b)
    assert rig.job(one).state == RUN
    rig.empty()


def test_a_held_job_is_held_when_it_has_waited(rig: Rig) -> None:
    first = rig.submit()
    held = rig.wait(f"afterok:{first}", urgency=0)
    rig.end(first)
    assert (rig.job(held).state, rig.job(held).priority) == (SCHED, 0)
    rig.do(decide.change_urgency(rig.state, held, 16, 1, rig.now))
    rig.turn()
    assert rig.job(held).state == RUN


def test_somebody_else_s_dependency_waits_for_somebody_else(rig: Rig) -> None:
    """Whoever appends dependency-add for a job must append its dependency-remove too (RFC 21)."""
    first = rig.submit()
    second = rig.wait(f"afterok:{first}")
    rig.say(["dependency-add", second, rig.now, {"description": "licence"}])
    rig.turn()
    rig.end(first)
    assert rig.job(second).state == DEPEND
    rig.say(["dependency-remove", second, rig.now, {"description": "licence"}])
    rig.turn()
    assert rig.job(second).state == RUN


# -- singletons --------------------------------------------------------------------------------------------------------


def test_singletons_go_one_by_one_in_their_order(rig: Rig) -> None:
    running = rig.wait(name="sim")
    rig.wait(name="other")
    mine = [rig.wait("singleton", name="sim") for _ in range(3)]
    plain = rig.submit()  # named by its command, which does not count
    assert [rig.job(id).state for id in mine] == [DEPEND] * 3
    rig.end(plain)
    rig.end(running)
    assert [rig.job(id).state for id in mine] == [RUN, DEPEND, DEPEND]
    rig.cancel(mine[1])
    rig.end(mine[0])
    assert rig.job(mine[2]).state == RUN
    late = rig.wait(name="sim")  # no singleton: it waits for nobody, but others wait for it
    last = rig.wait("singleton", name="sim")
    rig.end(mine[2])
    assert rig.job(last).state == DEPEND
    rig.end(late)
    assert rig.job(last).state == RUN
    rig.empty()


def test_a_singleton_alone_does_not_wait_and_needs_a_name(rig: Rig) -> None:
    assert rig.job(rig.wait("singleton", name="sim")).state == RUN
    nameless = rig.wait("singleton")
    assert "the job has no name" in rig.note(nameless)


def test_a_singleton_that_waits_for_more_counts_once_its_turn_has_come(rig: Rig) -> None:
    first = rig.submit()
    one = rig.wait("singleton", f"afterok:{first}", name="sim")
    two = rig.wait("singleton", name="sim")
    assert list(rig.job(one).met) == ["singleton"]
    assert rig.job(two).state == DEPEND
    rig.end(first)
    rig.end(one)
    assert rig.job(two).state == RUN


def test_a_singleton_that_gets_another_name_or_none(rig: Rig) -> None:
    running = rig.wait(name="sim")
    one, two = (rig.wait("singleton", name="sim") for _ in range(2))
    rig.say(["jobspec-update", one, rig.now, {"attributes.system.job": {"name": "other"}}])
    rig.turn()
    assert rig.job(one).state == RUN
    rig.say(["jobspec-update", two, rig.now, {"attributes.system.job": {}}])
    rig.end(running)
    assert rig.job(two).state == RUN


def renaming(rig: Rig, id: int, name: str) -> decide.Decision:
    return decide_update.update(rig.state, rig.job(id), [decide_update.parse_change(f"name={name}")], 1, rig.now)


def test_a_job_that_is_given_a_singleton_s_name_is_waited_for(rig: Rig) -> None:
    """Both are touched before the worker looks, the singleton first."""
    full = [rig.submit(jobspec(2)) for _ in range(2)]
    rig.wait("singleton", name="another")  # the index is there
    other = rig.submit(jobspec(2))
    assert rig.job(other).state == SCHED
    one = rig.submit(rig.spec("singleton", name="sim"), turn=False)
    rig.do(renaming(rig, other, "sim"))
    rig.turn()
    assert rig.job(one).state == DEPEND
    for id in (*full, other):
        rig.end(id)
    assert rig.job(one).state == RUN


def test_a_name_that_is_given_while_a_singleton_is_let_go_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        rig.submit(jobspec(2))
    other = rig.submit(jobspec(2))
    one = rig.submit(rig.spec("singleton", name="sim"), turn=False)
    append, rename = rig.store.append, [renaming(rig, other, "sim")]

    def late(request: Append) -> Any:
        if request.producer and rename:  # the worker's word is under way
            rig.do(rename.pop())
        return append(request)

    monkeypatch.setattr(rig.store, "append", late)
    rig.turn()
    assert rig.names(one).index("dependency-add") > rig.names(one).index("submit")
    assert rig.job(one).state == DEPEND
    rig.cancel(other)
    assert rig.job(one).state == SCHED


def test_a_restart_of_the_instance_leaves_what_is_met(rig: Rig) -> None:
    first = rig.submit()
    second = rig.wait(f"afterok:{first}", cores=2, urgency=0)
    rig.end(first)
    rig.say(["flux-restart", second, rig.now, None])
    rig.turn()
    assert rig.job(second).state == SCHED
    assert rig.names(second)[2:] == ["dependency-add", "dependency-remove", "depend", "priority", "flux-restart", "priority"]
    rig.empty()


# -- jobs of any age ---------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inactive jobs leave the state almost at once."""
    monkeypatch.setattr(worker_module, "RETIRE_ABOVE", 0)
    monkeypatch.setattr(worker_module, "RETIRE_CHUNK", 1)


def retired(rig: Rig) -> list[int]:
    """Three jobs long gone: one completed, one failed, one cancelled before it ran."""
    ids = [rig.submit() for _ in range(4)] + [rig.submit()]
    rig.cancel(ids[4])
    for id, status in zip(ids[:4], (0, 256, 0, 0), strict=True):
        rig.end(id, status)
    assert all(id not in rig.state.jobs for id in (ids[0], ids[1], ids[4]))
    return [ids[0], ids[1], ids[4]]


@pytest.mark.usefixtures("few")
def test_outcomes_of_retired_jobs_are_found(rig: Rig) -> None:
    ok, failed, never = retired(rig)
    good = [rig.wait(uri, cores=2) for uri in (f"afterok:{ok}", f"afternotok:{failed}")]
    rig.wait(f"afterany:{never}", f"any(afterok:{failed},after:{ok})")
    for uri, why in ((f"afterok:{failed}", "failed (exit code 1)"), (f"afternotok:{never}", "never started: canceled"),
                     ("afterok:999999", "there is no job"), (f"all(afterok:{ok},afterok:{failed})", "exit code 1")):  # fmt: skip
        bad = rig.wait(uri)
        found = next(iter(rig.journal.find_jobs(rig.state, [bad]).values()))
        assert why in found.exception[1], uri
    assert [rig.job(id).state for id in good] == [RUN, RUN]
    rig.empty()


@pytest.mark.usefixtures("few")
def test_many_ask_for_one_and_one_asks_for_many(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "LOOKUPS", 3)
    monkeypatch.setattr(waiting_module, "KEPT", 2)
    gone = [id for _ in range(5) for id in retired(rig)[:1]]
    fan_in = rig.wait(*(f"afterok:{id}" for id in gone), f"all({','.join(f'afterok:{id}' for id in gone)})", cores=2)
    assert rig.job(fan_in).state == RUN
    for _ in range(5):
        rig.wait(f"afterok:{gone[0]}")
    assert len(rig.worker.waiting.recent) <= 2
    rig.empty()


@pytest.mark.usefixtures("few")
def test_a_worker_that_dies_while_it_asks(rig: Rig) -> None:
    """The look-up's answer is lost with it; the next worker asks again."""
    ok, failed, _ = retired(rig)
    ids = []
    for uri in (f"afterok:{ok}", f"afterok:{failed}"):
        id, rig.next = rig.next, rig.next + 1
        rig.do(decide.submit([(id, rig.spec(uri, cores=2))], "", 16, 1, 0, rig.now))
        ids.append(id)
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    assert any(isinstance(one, Lookup) for one in outputs)
    (write,) = (one for one in outputs if isinstance(one, Write))
    assert isinstance(rig.store.append(write.request), Appended)
    rig.worker = rig.new_worker()
    rig.turn(Lead(True))
    assert rig.job(ids[0]).state == RUN
    assert "exit code 1" in next(iter(rig.journal.find_jobs(rig.state, ids[1:]).values())).exception[1]


def test_an_end_and_a_retirement_folded_at_once(rig: Rig) -> None:
    """Another worker cleaned and retired the job before this one looked: its outcome is not lost."""
    from fluxkv.journal.retired import retirement

    first = rig.submit()
    second = rig.wait(f"afterok:{first}")
    third = rig.wait("singleton", name="sim")
    fourth = rig.wait("singleton", name="sim")
    rig.started(first, third)
    other = rig.new_worker("worker-1")
    for id in (first, third):
        job = other.state.jobs[id]
        t = rig.now
        context = {"ranks": "all", "final": True}
        rig.report(job.ranks[0], over=[[id, job.attempt, t, t, 0, "", 0]])
        rig.say(["finish", id, t, {"status": 0}], ["release", id, t, context], ["free", id, t, None], ["clean", id, t, None])
    state = rig.journal.load()
    rig.say(["retire", "instance", rig.now, retirement([state.jobs[first], state.jobs[third]])])
    rig.turn()
    assert first not in rig.state.jobs
    assert rig.job(second).state == RUN
    assert rig.job(fourth).state == RUN
    rig.empty()


# -- workers that die, conflicts, two of them --------------------------------------------------------------------------


def test_a_new_worker_knows_who_waits(rig: Rig) -> None:
    first = rig.wait(name="sim")
    waits = [rig.wait(f"after:{first}"), rig.wait(f"all(afterok:{first},begin-time:{rig.now + 30})"),
             rig.wait("singleton", name="sim"), rig.wait(f"afterok:{first}", "begin-time:7")]  # fmt: skip
    assert list(rig.job(waits[3]).met) == ["begin-time=7.000"]
    rig.worker = rig.new_worker()
    rig.turn(Lead(True))
    assert {rig.job(id).state for id in waits} == {DEPEND}
    rig.started(first)
    assert rig.job(waits[0]).state == RUN
    rig.end(first)
    assert rig.job(waits[2]).state == RUN
    assert rig.job(waits[3]).state in (RUN, SCHED)
    assert rig.names(waits[3]).count("dependency-add") == 2  # what was met stays met
    assert rig.job(waits[1]).state == DEPEND
    rig.turn(seconds=31.0)
    assert rig.job(waits[1]).state in (RUN, SCHED)
    rig.empty()


def test_a_lost_commit_is_made_again(rig: Rig) -> None:
    """Someone cancels a dependent while the commit of the end is under way: end and dependents are decided anew."""
    first = rig.submit()
    second, third = rig.wait(f"afterok:{first}"), rig.wait(f"afterok:{first}")
    rig.over(first)
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    (write,) = (one for one in outputs if isinstance(one, Write))
    rig.do(decide.raise_exception(rig.state, second, "cancel", 0, "", 1, rig.now))
    conflict = rig.store.append(write.request)
    assert not isinstance(conflict, Appended)
    rig.turn(Answered(write.request, conflict))
    assert rig.job(first).state == INACTIVE
    assert rig.job(second).exception[0] == "cancel"
    assert rig.job(third).state == RUN
    rig.empty()


def test_an_allocation_falls_with_the_end_it_follows_from(rig: Rig) -> None:
    """The dependent's allocation is in another group than its antecedent's end, and takes nothing of what that frees: it
    must not go out without it all the same."""
    first, beside = rig.submit(), rig.submit()
    second = rig.wait(f"afterok:{first}", cores=2)
    rig.over(first)
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    (write,) = (one for one in outputs if isinstance(one, Write))
    ends, allocates = rig.worker.groups
    assert allocates.events[0][:2] == ["alloc", second]
    assert not set(ends.frees) & set(allocates.takes)
    rig.do(decide.raise_exception(rig.state, first, "x", 3, "", 1, rig.now))  # a remark, not an end
    conflict = rig.store.append(write.request)
    assert conflict.things == (f"job/{first}",)
    rig.turn(Answered(write.request, conflict))
    assert rig.job(second).state == RUN
    assert rig.job(beside).state == RUN
    rig.replayed()


def test_two_workers_that_both_believe_they_lead(rig: Rig) -> None:
    """What the other has said is not said again, and a count of what is left does not go wrong by it."""
    a, b = rig.submit(), rig.submit()
    fan_in = rig.wait(f"afterok:{a}", f"afterok:{b}")
    other = rig.new_worker("worker-1")
    rig.started(a, b)
    first, rig.worker = rig.worker, other
    rig.turn(Lead(True))
    rig.end(a)
    rig.worker, other = first, rig.worker
    rig.turn()
    assert rig.job(fan_in).state == DEPEND
    assert list(rig.job(fan_in).waiting) == [f"after-success={f58(b)}"]
    rig.end(b)
    rig.worker = other
    rig.turn()
    assert rig.job(fan_in).state == RUN
    assert rig.names(fan_in).count("dependency-remove") == 2
    rig.empty()


def test_a_time_that_has_come_stays_so(rig: Rig) -> None:
    first = rig.submit()
    waits = rig.wait(f"all(begin-time:{rig.now + 10},afterok:{first})")
    rig.turn(seconds=11.0)
    rig.now -= 8  # the clock is set back
    rig.end(first)
    assert rig.job(waits).state == RUN


def test_the_worker_asks_to_be_called_in_time(rig: Rig) -> None:
    id, rig.next = rig.next, rig.next + 1
    at = rig.now + 3600
    rig.do(decide.submit([(id, rig.spec(f"begin-time:{at}"))], "", 16, 1, 0, rig.now))
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    assert WakeAt(at) in outputs


def test_stale_times_are_forgotten(rig: Rig) -> None:
    for _ in range(300):
        rig.cancel(rig.wait(f"begin-time:{rig.now + 1e6}"))
    assert len(rig.worker.waiting._times) < 100


# -- size --------------------------------------------------------------------------------------------------------------


def crowd(rig: Rig, specs: list[dict[str, Any]]) -> list[int]:
    ids = list(range(rig.next, rig.next + len(specs)))
    rig.next += len(specs)
    rig.do(decide.submit(list(zip(ids, specs, strict=True)), "", 16, 1, 0, rig.now))
    return ids


@pytest.mark.parametrize("shape", ["chain", "fan-out", "singletons"])
def test_each_change_looks_at_those_it_concerns(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at grows with the number of jobs, not with its square; so does the number of commits, slowly."""
    looked = 0

    def counted(function: Any) -> Any:
        def count(*args: Any, **more: Any) -> Any:
            nonlocal looked
            looked += 1
            return function(*args, **more)

        return count

    monkeypatch.setattr(waiting_module, "judge", counted(waiting_module.judge))
    for name in ("step", "_register", "_unregister"):
        monkeypatch.setattr(waiting_module.Waiting, name, counted(getattr(waiting_module.Waiting, name)))
    monkeypatch.setattr(Singletons, "note", counted(Singletons.note))
    rig, count = Rig(), 2000
    first = rig.submit(rig.spec(name="sim" if shape == "singletons" else ""))
    if shape == "chain":
        ids = crowd(rig, [rig.spec(f"afterok:{rig.next + n - 1 if n else first}") for n in range(count)])
    elif shape == "fan-out":
        ids = crowd(rig, [rig.spec(f"afterok:{first}") for _ in range(count)])
    else:
        ids = crowd(rig, [rig.spec("singleton", name="sim") for _ in range(count)])
    rig.turn()
    before = rig.state.version
    rig.end(first, 256)
    assert looked < 10 * count
    if shape == "singletons":
        assert [rig.job(id).state for id in ids[:2]] == [RUN, DEPEND]
    else:
        assert {rig.job(id).state for id in ids} == {INACTIVE}
        assert rig.state.version < before + 6
        rig.empty()


def test_a_job_that_waits_for_many(rig: Rig) -> None:
    first = rig.submit()
    many = crowd(rig, [rig.spec(f"afterok:{first}", cores=2) for _ in range(400)])
    last = rig.wait(*(f"afterany:{id}" for id in many))
    assert len(rig.job(last).waiting) == 400
    rig.end(first, 256)
    assert rig.job(last).state == RUN
    assert rig.names(last).count("dependency-remove") == 400
    rig.empty()


def test_found_for_nobody_is_no_harm(rig: Rig) -> None:
    rig.turn(Found((5, 6), {}))
    assert not rig.worker.waiting.recent
    rig.empty()
