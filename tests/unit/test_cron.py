"""Cron in virtual time: the production driver and fold on a memory server; crashes, lost answers, two drivers at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from fluxkv.instances.cron import Cron
from fluxkv.journal import decide, decide_config, decide_cron, snapshot
from fluxkv.journal.cron import DONE_KEPT, OWED_LIMIT, CronTable, on_behalf_of
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import compose
from fluxkv.journal.log import Journal, make_append
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.kvs.memory_server import MemoryServer
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Appended

T0 = 1_700_000_000.0
JOBSPEC = {
    "version": 1, "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
    "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
    "attributes": {"system": {"duration": 0, "environment": {"MINE": "1"}}},
}  # fmt: skip
JOB = {"jobspec": JOBSPEC, "env": "b2-00", "urgency": 20, "flags": 0, "userid": 7}


def through_snapshot(state: State) -> State:
    head, chunks = snapshot.dump(state)
    return snapshot.load(snapshot.read_head(head), chunks)


class Timers:
    """Remembers what was armed."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.periods: set[str] = set()

    def add(self, name: str, period_s: float, function: Callable[[], None]) -> None:
        self.periods.add(name)

    def at(self, name: str, trigger: Any, when: Any, function: Callable[[], None]) -> None:
        self.times[name] = when.timestamp()

    def cancel(self, name: str) -> None:
        self.times.pop(name, None)
        self.periods.discard(name)


class Site:
    """A journal, its fold, and drivers. Server time stands still unless it is told otherwise."""

    def __init__(self) -> None:
        self.server = MemoryServer(lambda: T0, random.Random(3))
        self.store = MemoryStore(self.server)
        self.store.create(durability="strict", origin_ms=int(T0 * 1000), created=T0)
        self.journal = Journal(self.store, "test")
        self.state = State()
        self.said: list[str] = []
        self.timers = Timers()
        self.driver = self.new_driver()
        self.serial = 0

    def new_driver(self) -> Cron:
        return Cron(MemoryStore(self.server), self.timers, lambda level, text: self.said.append(text))

    def fold(self) -> State:
        self.journal.catch_up(self.state)
        return self.state

    def say(self, *events: list[Any], by: str = "test", cron: int = 0) -> None:
        decision = Decision([list(event) for event in events])
        extra = {"by": by, **({"cron": cron} if cron else {})}
        answer = self.store.append(make_append(self.journal.meta, decision, self.fold().version, extra=extra))
        assert isinstance(answer, Appended)
        self.fold()

    def settle(self, decide: Callable[[State], Decision]) -> None:
        self.journal.settle(decide, self.fold())
        self.fold()

    def define(self, kind: str, spec: dict[str, Any], next: float = 0.0, name: str = "x", **options: Any) -> int:
        full = {"count": 0, "no_overlap": False, "missed": "run", "stop_on_failure": 0, **options}
        self.settle(lambda state: decide_cron.create(state.cron, name, kind, spec, JOB, full, next, T0))
        return self.state.cron.last

    def interval(self, seconds: float = 10.0, first: float = T0 + 10, **options: Any) -> int:
        return self.define("interval", {"interval": seconds, "first": first}, first, **options)

    def event(self, event: str, nth: int = 1, after: int = 0, min_interval: float = 0.0, **options: Any) -> int:
        name, subject = decide_cron.find_event(event)
        spec = {"event": name, "subject": subject, "nth": nth, "after": after, "min_interval": min_interval}
        return self.define("event", spec, **options)

    def submit(self, *, cron: int = 0) -> int:
        self.serial += 1
        id = compose(self.serial, 1, 0)
        self.say(*decide.submit([(id, JOBSPEC)], "", 16, 0, 0, T0).events, cron=cron)
        return id

    def end(self, id: int, status: int = 0, exception: str = "") -> None:
        """The worker's events of a whole life, on no node."""
        said = [["exception", id, T0, {"type": exception, "severity": 0, "note": ""}]] if exception else []
        self.say(
            ["validate", id, T0, None], ["depend", id, T0, None], ["priority", id, T0, {"priority": 16}],
            ["alloc", id, T0, {"claims": [], "expiration": 0.0}], ["start", id, T0, None], *said,
            ["finish", id, T0, {"status": status}], ["free", id, T0, None], ["clean", id, T0, None],
        )  # fmt: skip

    def jobs(self) -> list[int]:
        """Jobs that cron has submitted, in order."""
        return [job.id for job in self.fold().jobs.values() if job.userid == 7]

    def times(self) -> list[float]:
        """What the runs were for, after T0."""
        found = []
        for commit in self.journal.commits():
            found += [event[3]["at"] - T0 for event in commit.events if event[0] == "cron-fire"]
        return [round(one, 3) for one in found]

    def sound(self) -> None:
        """The live fold is that of a snapshot at each version, and the driver's table is the state's."""
        live, other = State(), State()
        for commit in self.journal.commits():
            live.apply(commit)
            other.apply(commit)
            other = through_snapshot(other)
            assert live.digest() == other.digest()
        assert live.subjects() == self.fold().subjects()
        alone = self.journal.load_cron()
        assert alone.dump() == live.cron.dump()
        self.journal.save_snapshot(live)
        assert self.journal.load_cron().dump() == live.cron.dump()
        assert self.journal.load().digest() == live.digest()


@pytest.fixture
def site() -> Site:
    return Site()


def test_guards_of_entries_are_forgotten_with_those_of_jobs(site: Site) -> None:
    for number in range(20):
        site.define("at", {"at": T0 + 1}, T0 + 1, name=f"n{number}", count=1)
    site.driver.step(T0 + 1)
    meta = site.store.meta()
    site.store.prune_guards(meta.uid, meta.epoch, meta.version)
    assert list(site.server.tables.instances["/"].guards) == ["cron"]
    site.interval()
    site.driver.step(T0 + 10)
    assert site.times()[-1] == 10


def test_an_instance_without_entries_is_asked_one_question(site: Site) -> None:
    asked: list[str] = []
    site.server.fault = lambda operation, when: asked.append(operation) if when == "before" else None
    site.driver.step(T0)
    assert (asked, site.driver.table, site.timers.times) == (["bumps"], None, {})
    assert site.fold().version == 0


def test_a_driver_may_begin_while_the_server_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper that begins its duties then must live on: it is the one who brings the server back."""

    def away(*_: object) -> None:
        raise Unavailable("no server answers", code="away")

    store = MemoryStore(site.server)
    with monkeypatch.context() as patch:
        for name in ("meta", "bumps", "read"):
            patch.setattr(store, name, away)
        driver = Cron(store, site.timers, lambda level, text: site.said.append(text))
        driver.look()
    driver.look()
    assert driver.failed == ""
    assert site.said == []


def test_an_interval_fires_once_at_each_of_its_times(site: Site) -> None:
    site.interval()
    for now in (9.9, 10.0, 10.1, 19.0, 20.3, 30.0):
        site.driver.step(T0 + now)
    assert site.times() == [10, 20, 30]
    assert site.timers.times == {"cron-1": T0 + 40}
    entry = site.fold().cron.entries[1]
    assert (entry.runs, entry.last_at, entry.fired, entry.next) == (3, T0 + 30, T0 + 30, T0 + 40)
    job = site.fold().jobs[site.jobs()[0]]
    assert (job.userid, job.urgency, job.env) == (7, 20, "b2-00")
    assert job.jobspec is not None
    assert job.jobspec["attributes"]["system"]["environment"] == {
        "MINE": "1", "FLUX_CRON_ID": "1", "FLUX_CRON_NAME": "x", "FLUX_CRON_TYPE": "interval", "FLUX_CRON_RUN": "1",
        "FLUX_CRON_TIME": f"{T0 + 10:.6f}",
    }  # fmt: skip
    site.sound()


def test_two_drivers_and_one_that_begins_again_fire_once(site: Site) -> None:
    site.interval()
    other = site.new_driver()
    for now in range(10, 60, 5):
        for driver in (site.driver, other, site.new_driver()):
            driver.step(T0 + now)
    assert site.times() == [10, 20, 30, 40, 50]
    assert len(set(site.jobs())) == 5


def test_a_driver_decides_on_what_another_has_changed_since(site: Site) -> None:
    """The stale one has folded up to before the other's run: its own is refused by the guard, and not made up for."""
    site.interval()
    site.driver.step(T0)
    other = site.new_driver()
    table = site.driver.table
    assert table is not None
    before, job = table.version, compose(99, 2, 0)
    stale = decide_cron.act(table, table.entries[1], job, T0 + 20, T0 + 10)
    other.step(T0 + 10)
    assert stale is not None
    answer = site.store.append(make_append(site.journal.meta, stale, before))
    assert getattr(answer, "things", ()) == ("job/cron-1",)
    site.driver.step(T0 + 10)
    assert site.times() == [10]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_request_or_answer_is_one_run(site: Site, when: str) -> None:
    site.interval()
    site.driver.step(T0)
    left = [2]

    def fault(operation: str, at: str) -> None:
        if operation == "append" and at == when and left[0]:
            left[0] -= 1
            raise Unavailable("lost", code="outcome-unknown")

    site.server.fault = fault
    for _ in range(4):
        try:
            site.driver.step(T0 + 10)
        except Unavailable:
            site.driver.look()
    site.server.fault = None
    assert site.times()[0] == 10
    assert site.times().count(10.0) == 1


def test_what_was_missed_is_run_once_or_skipped(site: Site) -> None:
    site.interval(name="run")
    site.interval(name="skip", missed="skip")
    site.driver.step(T0 + 1000.5)
    assert site.times() == [10]
    ran, skipped = site.fold().cron.entries.values()
    assert (ran.runs, ran.next, skipped.runs, skipped.skips, skipped.next) == (1, T0 + 1010, 0, 1, T0 + 1010)
    assert skipped.note == "missed: the instance was down or busy"
    site.driver.step(T0 + 1010.2)  # late, not missed
    assert site.fold().cron.entries[2].runs == 1
    site.sound()


def test_a_count_and_a_time_end(site: Site) -> None:
    site.interval(count=2)
    site.define("at", {"at": T0 + 15}, T0 + 15, count=1)
    for now in range(10, 50, 5):
        site.driver.step(T0 + now)
    first, second = site.fold().cron.entries.values()
    assert site.times() == [10, 15, 20]
    assert (first.state, first.note, second.state, second.note) == ("done", "made its 2 runs", "done", "made its run")
    assert site.timers.times == {}
    for id, why in ((1, "made its 2 runs"), (2, "made its run")):
        with pytest.raises(Rejected, match=why):
            decide_cron.start(site.state.cron.entries[id], 0.0, T0)
    site.sound()


def test_finished_entries_do_not_pile_up(site: Site) -> None:
    for number in range(DONE_KEPT + 5):
        site.define("at", {"at": T0 + 1}, T0 + 1, name=f"n{number}", count=1)
    site.driver.step(T0 + 1)
    entries = site.fold().cron.entries
    assert (len(entries), min(entries), len(site.jobs())) == (DONE_KEPT, 6, DONE_KEPT + 5)


def test_no_overlap(site: Site) -> None:
    site.interval(no_overlap=True)
    site.driver.step(T0 + 10)
    site.driver.step(T0 + 20)
    entry = site.fold().cron.entries[1]
    assert (entry.runs, entry.skips) == (1, 1)
    assert "of the run before is active" in entry.note
    site.end(site.jobs()[0])
    site.driver.step(T0 + 30)
    assert site.times() == [10, 30]
    site.sound()


def test_results_are_known_and_failures_in_a_row_stop_it(site: Site) -> None:
    site.interval(stop_on_failure=2)
    ends: list[tuple[int, str]] = [(256, ""), (0, ""), (0, "timeout"), (15, "cancel")]
    found = []
    for number, (status, exception) in enumerate(ends, 1):
        site.driver.step(T0 + 10 * number)
        site.end(site.jobs()[-1], status, exception)
        found.append(site.fold().cron.entries[1].last_result)
    assert found == ["failed", "completed", "timeout", "canceled"]
    site.driver.step(T0 + 45)
    entry = site.fold().cron.entries[1]
    assert (entry.state, entry.note, entry.failures) == ("stopped", "2 failures in a row", 3)
    site.driver.step(T0 + 100)
    assert len(site.times()) == 4
    site.settle(lambda state: decide_cron.start(state.cron.entries[1], T0 + 110, T0 + 101))
    site.driver.step(T0 + 110)
    assert len(site.times()) == 5
    site.sound()


def test_a_closed_queue_is_a_skip_with_its_reason(site: Site) -> None:
    site.interval()
    site.settle(lambda _: decide.change_queue("default", "disable", "closing", T0))
    site.driver.step(T0 + 10)
    entry = site.fold().cron.entries[1]
    assert (entry.runs, entry.skips, entry.note) == (0, 1, "queue default does not accept jobs")
    site.settle(lambda _: decide.change_queue("default", "enable", "", T0))
    site.driver.step(T0 + 20)
    assert site.times() == [20]


def test_a_full_server_is_asked_again(site: Site) -> None:
    site.interval()
    site.driver.step(T0)

    def fault(operation: str, at: str) -> None:
        if operation == "append":
            raise Unavailable("past the soft memory line", code="full")

    site.server.fault = fault
    site.driver.step(T0 + 10)
    site.driver.step(T0 + 11)
    assert site.said == ["cron entry 1 (x): past the soft memory line"]
    site.server.fault = None
    site.driver.step(T0 + 12)
    assert site.times() == [10]


def test_each_event_is_a_run(site: Site) -> None:
    site.event("resource.drain")
    site.driver.step(T0)
    assert site.timers.periods == {"cron-events"}
    where = {"idset": "0", "nodelist": "h", "overwrite": 0}
    site.say(["drain", "resource", T0 + 1, where], ["drain", "resource", T0 + 2, where])
    site.say(["drain", "other", T0 + 3, where])  # no resource's
    site.driver.step(T0 + 3)
    assert site.times() == [1, 2]
    spec = site.state.jobs[site.jobs()[0]].jobspec
    assert spec is not None
    environment = spec["attributes"]["system"]["environment"]
    assert (environment["FLUX_CRON_EVENT"], environment["FLUX_CRON_SUBJECT"]) == ("drain", "resource")
    site.settle(lambda state: decide_cron.stop(state.cron.entries[1], "", T0))
    site.say(["drain", "resource", T0 + 4, where])
    site.driver.step(T0 + 5)
    assert site.times() == [1, 2]
    assert site.timers.periods == set()
    site.sound()


def test_nth_after_and_min_interval(site: Site) -> None:
    site.event("job.memo", nth=3, after=2, name="nth")
    site.event("memo", min_interval=60, name="slow")
    job = site.submit()
    for second in range(12):
        site.say(["memo", job, T0 + second, {"a": second}])
        site.driver.step(T0 + second)
    assert site.times() == [0, 4, 7, 10]
    slow = site.fold().cron.entries[2]
    assert (slow.runs, slow.seen, len(slow.owed), slow.merged) == (1, 12, 1, 10)
    assert site.timers.times["cron-2"] == T0 + 60
    site.driver.step(T0 + 60)
    assert site.times()[-1] == 1
    site.driver.step(T0 + 1000)
    assert site.fold().cron.entries[2].runs == 2
    site.sound()


def test_what_cron_starts_starts_no_cron(site: Site) -> None:
    """Neither the job's own events, nor what it submits, nor what else it commits; an instance's other work does."""
    site.event("job.submit", name="a")
    site.event("job.clean", name="b")
    site.event("resource.drain", name="c")
    own = site.submit()
    site.driver.step(T0)
    assert site.times() == [0]
    for _ in range(5):  # whatever happens to the runs' jobs, and to those they submit
        for id in [job.id for job in site.fold().jobs.values() if job.id != own and not job.t_inactive]:
            site.end(id)
        child = site.submit(cron=1)
        site.say(["drain", "resource", T0, {"idset": "0", "nodelist": "h", "overwrite": 0}], cron=1)
        site.driver.step(T0)
        site.end(child)
        site.driver.step(T0)
    assert site.times() == [0]
    site.end(own)
    site.driver.step(T0)
    assert len(site.times()) == 2
    for id in site.jobs():
        if not site.state.jobs[id].t_inactive:
            site.end(id)
    assert site.fold().cron.jobs == {}
    site.sound()


def test_a_flood_of_events_is_bounded(site: Site) -> None:
    site.event("job.memo", count=3)
    job = site.submit()
    site.say(*[["memo", job, T0, {"a": n}] for n in range(OWED_LIMIT + 50)])
    entry = site.fold().cron.entries[1]
    assert (len(entry.owed), entry.merged) == (OWED_LIMIT, 50)
    site.driver.step(T0)
    assert (len(site.jobs()), site.fold().cron.entries[1].owed, site.state.cron.entries[1].state) == (3, [], "done")


def test_deleted_entries_are_gone_and_their_jobs_go_on(site: Site) -> None:
    site.interval()
    site.driver.step(T0 + 10)
    site.settle(lambda state: decide_cron.delete(state.cron.entries[1], T0))
    site.driver.step(T0 + 20)
    assert (site.fold().cron.entries, site.timers.times, len(site.state.cron.jobs)) == ({}, {}, 1)
    assert site.state.cron.running(1) == site.jobs()
    site.end(site.jobs()[0])
    assert not site.fold().cron
    assert site.interval() == 2  # ids are not used again
    site.sound()


def test_names_and_refusals(site: Site) -> None:
    site.interval(name="twice")
    site.interval(name="twice")
    table = site.fold().cron
    assert decide_cron.find(table, "2").id == 2
    for text, code in (("twice", "which-entry"), ("none", "no-such-entry"), ("9", "no-such-entry")):
        with pytest.raises(Rejected) as caught:
            decide_cron.find(table, text)
        assert caught.value.code == code
    for name in ("", "7", "a\nb", "x" * 300):
        with pytest.raises(Rejected, match="bad name"):
            site.interval(name=name)
    with pytest.raises(Rejected, match="too short"):
        site.interval(0.01)
    with pytest.raises(Rejected, match="is active"):
        decide_cron.start(table.entries[1], 0.0, T0)
    for event, code in (("nosuch", "no-such-event"), ("cron-fire", "bad-event"), ("job.kvs.commit", "no-such-event")):
        with pytest.raises(Rejected) as caught:
            decide_cron.find_event(event)
        assert caught.value.code == code
    assert decide_cron.find_event("kvs.kvs.commit") == ("kvs.commit", "kvs")
    assert decide_cron.find_event("kvs.commit") == ("kvs.commit", "")
    assert decide_cron.find_event("job.finish") == ("finish", "job")


GOOD = {"name": "x", "type": "interval", "spec": {"interval": 10.0, "first": T0}, "job": JOB, "next": T0 + 10,
        "options": {"count": 0, "no_overlap": False, "missed": "run", "stop_on_failure": 0}}  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [
        ["cron-create", "cron/x", T0, GOOD],
        ["cron-create", "cron", T0, GOOD],
        ["cron-create", "cron/0", T0, GOOD],
        ["cron-create", "cron/1", T0, GOOD],  # there already
        ["cron-create", "cron/2", T0, {**GOOD, "type": "sometimes"}],
        ["cron-create", "cron/2", T0, {**GOOD, "options": {"count": "many"}}],
        ["cron-create", "cron/2", T0, {**GOOD, "type": "event", "spec": {"event": "finish"}}],
        ["cron-create", "cron/2", T0, {**GOOD, "job": None}],
        ["cron-fire", "cron/1", T0, {"at": T0, "next": "soon", "job": 5}],
        ["cron-fire", "cron/1", T0, {"at": T0, "next": 0.0, "job": "ƒ5"}],
        ["cron-fire", "cron/9", T0, {"at": T0, "next": 0.0, "job": 5}],
        ["cron-skip", "cron/1", T0, {"at": T0, "next": T0}],
        ["cron-start", "cron/1", T0, None],
        ["cron-delete", "cron/7", T0, None],
        ["cron-create", 5, T0, GOOD],
        ["cron-stop", ["cron/1"], T0, None],
    ],
    ids=lambda event: f"{event[0]}-{event[1]}",
)
def test_malformed_events_are_skipped_the_same_way_everywhere(site: Site, event: list[Any]) -> None:
    site.interval()
    site.event("job.finish")
    site.settle(lambda state: decide_cron.delete(state.cron.entries[2], T0))
    site.event("job.finish")
    skipped = site.fold().skipped
    before = site.fold().subjects()
    site.say(event)
    assert site.fold().skipped == skipped + 1
    assert site.state.subjects() == before
    site.driver.step(T0 + 10)
    assert (site.fold().cron.entries[1].runs, len(site.jobs())) == (1, 1)
    site.sound()


def test_an_entry_written_by_hand_that_makes_no_sense_stops_no_other(site: Site) -> None:
    site.say(
        ["cron-create", "cron/1", T0, {**GOOD, "job": {"jobspec": 5}}],
        ["cron-create", "cron/2", T0, {**GOOD, "type": "tab", "spec": {"line": "x", "tz": "nowhere"}}],
        ["cron-create", "cron/3", T0, {**GOOD, "type": "tab", "spec": {"line": "99 * * * *", "tz": "UTC"}}],
        ["bump", "instance", T0, None],
    )
    site.interval()
    for now in (10, 11):
        site.driver.step(T0 + now)
    assert site.times() == [10]
    assert len(site.said) == 3
    assert set(site.timers.times) == {"cron-4"}


def test_a_server_that_lost_history_is_followed_anew(site: Site) -> None:
    site.interval()
    site.driver.step(T0)
    tables = site.server.copy_tables()
    site.say(["memo", "instance", T0, None])
    site.driver.step(T0)
    site.server.put_back(tables)
    driver = site.new_driver()
    driver.step(T0 + 10)
    assert CronTable.load(driver.table.dump() if driver.table else None).entries[1].runs == 1


def test_a_run_honours_the_config_of_its_day(site: Site) -> None:
    """Defaults are added at each run; a job over a limit, or of a queue that has gone, is a skip that says so."""
    site.interval()
    tell = lambda config: Decision([["config", "instance", T0, {"config": config}]], bumps=["config"])  # noqa: E731
    site.driver.step(T0)
    site.settle(lambda _: tell({"queues": {"batch": {}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "batch"}}}}}))
    site.driver.step(T0 + 10)
    assert site.fold().jobs[site.jobs()[0]].queue == "batch"
    site.settle(lambda _: tell({"queues": {"batch": {}}}))
    site.driver.step(T0 + 20)
    entry = site.fold().cron.entries[1]
    assert (entry.runs, entry.skips, entry.note) == (1, 1, "no queue named, and the instance has no default queue")


def test_a_run_is_seen_by_the_plug_ins_of_its_day(site: Site) -> None:
    site.interval()
    site.driver.step(T0)
    config = {"ingest": {"validators": {"plugins": ["require-time-limit"]}}}
    site.settle(lambda state: decide_config.load(state, config, "", 1, T0))
    site.driver.step(T0 + 10)
    entry = site.fold().cron.entries[1]
    assert (entry.runs, entry.skips, "time limit" in entry.note) == (0, 1, True)


@pytest.mark.parametrize(("text", "entry"), [("", 0), ("7", 7), ("x", 0), ("-7", 0), ("9" * 30, 0), ("9" * 5000, 0)])
def test_on_whose_behalf_a_process_writes(text: str, entry: int) -> None:
    assert on_behalf_of({"FLUX_CRON_ID": text}) == entry
