"""Every event there is, written badly by hand: the fold skips it and stays what a snapshot of it says; nobody dies of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.cron import Cron
from fluxkv.instances.follow import Follower, bare_job
from fluxkv.journal import snapshot
from fluxkv.journal.catalogue import CATALOGUE
from fluxkv.journal.cron import CronTable
from fluxkv.journal.decide import Decision
from fluxkv.journal.fold_kvs import KvsState
from fluxkv.journal.job import CLEANUP, INACTIVE
from fluxkv.journal.log import make_append
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit, Event, pack, unpack
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.tools.eventview import context_document, describe
from fluxkv.tools.journal_cmd import _events

ODD: tuple[Any, ...] = (None, (1 << 64) - 1, float("inf"), float("nan"), "9" * 30, [], {"a": 1})
FEW = (None, float("inf"), "9" * 30)  # inside of others
CONFIG = {
    "queues": {"batch": {}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "batch"}}}},
    "job-manager": {"prolog": {"command": ["p"]}, "housekeeping": {"command": ["h"]}},
}  # fmt: skip
TIMED = CATALOGUE["cron", "cron-create"].example or {}
WATCHING = {**TIMED, "name": "e", "type": "event",
            "spec": {"event": "memo", "subject": "", "nth": 1, "after": 0, "min_interval": 0.0}}  # fmt: skip


def busy_site() -> Rig:
    """Jobs in every state (one in its prolog, one in housekeeping), two cron entries, a KVS with a link."""
    rig = Rig()
    over = rig.submit()
    rig.started(over)
    rig.do(Decision([["cron-create", "cron/1", 1.0, TIMED], ["cron-create", "cron/2", 1.0, WATCHING]], bumps=["cron"]))
    rig.say(["kvs.commit", "kvs", 1.0, {"ops": [["put", "a.b", b"1"], ["link", "l", "a", ""]]}])
    rig.configure(CONFIG)
    rig.turn()
    for _ in range(5):
        rig.submit(jobspec(queue="batch"))
    rig.over(over)
    rig.turn()
    rig.submit(jobspec(queue="batch"), turn=False)
    rig.turn()
    assert over in rig.state.keeping
    rig.submit(jobspec(queue="batch"), turn=False)
    rig.journal.catch_up(rig.state)
    return rig


def odd(value: Any, depth: int, some: tuple[Any, ...] = ODD) -> Iterator[Any]:
    yield from some
    if depth and isinstance(value, dict):
        for key, one in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: other} for other in odd(one, depth - 1, FEW))
    if depth and isinstance(value, list):
        for at, one in enumerate(value):
            yield from ([*value[:at], other, *value[at + 1 :]] for other in odd(one, depth - 1, FEW))


def bad_events(rig: Rig) -> Iterator[list[Any]]:
    jobs = sorted({job.state: id for id, job in rig.state.jobs.items()}.values())
    (kept,) = rig.state.keeping
    huge = "9" * 30
    subjects: dict[str, list[Any]] = {
        "resource": ["resource"], "node": ["node/0"], "queue": ["queue/batch", "queue/none"], "kvs": ["kvs"],
        "cron": ["cron/1", "cron/3", f"cron/{huge}"], "instance": ["instance"], "entry": ["entry/1", f"entry/{huge}"],
        "housekeeping": [f"housekeeping/{kept}", f"housekeeping/{huge}"],
    }  # fmt: skip
    for (kind, name), known in CATALOGUE.items():
        for subject in jobs if kind == "job" else subjects[kind]:
            yield from ([name, subject, 1.0, context] for context in odd(known.example, 2))
            yield from ([name, subject, ts, known.example] for ts in (None, "x", -1.0, 1e300, float("nan")))
        if kind == "job":
            yield from ([name, 999, 1.0, context] for context in odd(known.example, 1 if name == "submit" else 0))
    for id, job in rig.state.jobs.items():
        for row in odd([id, job.attempt, 1.5, 2.5, 0, "", 0], 1):
            yield ["report", "node/0", 1.0, {"rank": (job.ranks or [0])[0], "over": [row]}]
        for row in odd([id, job.attempt, "p", 1.5, 2.5, 0, ""], 1):
            yield ["report", "node/0", 1.0, {"rank": (job.ranks or [0])[0], "script": [row]}]


PARTS = 5  # in one go it would be stopped as stuck where the machine is busy


@pytest.mark.parametrize("part", range(PARTS))
def test_no_event_spoils_the_state(part: int) -> None:
    """After each, the digest kept along is that of the whole, and so is what comes out of a snapshot, lazily read or not.

    The same goes for what is folded alone: cron's table, and the user's KVS.
    """
    rig = busy_site()
    head, chunks = snapshot.dump(rig.state)
    before = snapshot.read_head(head)
    for event in islice(bad_events(rig), part, None, PARTS):
        state, own = snapshot.load(before, chunks), snapshot.load(before, chunks, lazy=True)
        table, kvs = snapshot.load_cron(before, chunks), KvsState(own.kvs, state.version, state.epoch)
        commit = Commit(state.version + 1, state.epoch, "", 0, 0, 2.0, unpack(pack([event])), {})
        try:
            state.apply(commit)
            table.apply(commit)
            kvs.apply(commit)
            digest = state.digest()
            after, parts = snapshot.dump(state)
            assert snapshot.load(snapshot.read_head(after), parts).digest() == digest
            assert snapshot.load(snapshot.read_head(after), parts, lazy=True).digest() == digest
        except Exception as error:
            raise AssertionError(f"{event}: {error!r}") from error
        assert table.dump() == state.cron.dump() or "nan" in repr(event), event
        assert kvs.kvs.hash == state.kvs.hash, event


@pytest.mark.parametrize("extra", [None, 5, b"x", ["cron"]])
def test_header_that_says_nothing(extra: Any) -> None:
    """What a writer puts into its header is its own affair, whatever it is."""
    rig = busy_site()
    rig.store.append(_appended(rig, extra))
    rig.turn()
    assert rig.state.digest() == rig.journal.at().digest()


def _appended(rig: Rig, extra: Any) -> Any:
    request = make_append(rig.journal.meta, Decision([["memo", 2, 1.0, {"a": 1}]]), rig.state.version)
    return request._replace(extra=pack(extra))


def hostile(rig: Rig) -> dict[str, list[Any]]:
    """Events that are meant for whoever acts on them."""
    epoch, meta = rig.store.meta().epoch, rig.store.meta()
    job = next(job for job in rig.state.jobs.values() if job.script and job.script[0])
    row = [job.id, job.attempt]
    rank = job.ranks[0]
    hello = {"rank": 0, "host": "n0", "boot": "b", "spool": "s", "epoch": epoch, "cursor": f"{meta.version}-{epoch}"}
    submit = {"urgency": 16, "userid": 1, "flags": "x", "env": 5, "jobspec": jobspec(), "version": 1}
    return {
        "script status": ["report", f"node/{rank}", 1.0, {"rank": rank, "script": [[*row, "p", 1.0, 2.0, None, ""]]}],
        "script cause": ["report", f"node/{rank}", 1.0, {"rank": rank, "script": [[*row, "p", 1.0, 2.0, 256, 5]]}],
        "over cause": ["report", f"node/{rank}", 1.0, {"rank": rank, "over": [[*row, 1.0, 2.0, 0, None, 0]]}],
        "over next": ["report", f"node/{rank}", 1.0, {"rank": rank, "over": [[*row, 1.0, 2.0, 0, "", {}]]}],
        "over rank": ["report", f"node/{rank}", 1.0, {"rank": "x", "over": [[*row, 1.0, 2.0, 0, "", 0]]}],
        "alloc": ["alloc", next(id for id, one in rig.state.jobs.items() if one.state == 8), 1.0, {"claims": []}],
        "lost": ["lost", job.id, 1.0, {"rank": "x", "cause": 5}],
        "hello held": ["hello", "node/0", 1.0, {**hello, "held": ["x"]}],
        "hello lists": ["hello", "node/0", 1.0, {**hello, "held": [[]]}],
        "exception": ["exception", job.id, 1.0, {"type": None, "severity": 0, "note": ""}],
        "expiration": ["resource-update", job.id, 1.0, {"expiration": float("nan")}],
        "priority": ["priority", next(id for id, one in rig.state.jobs.items() if one.state == 8), 1.0, {"priority": "x"}],
        "no attributes": ["submit", 777, 1.0, {**submit, "jobspec": {**jobspec(), "attributes": None}}],
        "no system": ["submit", 777, 1.0, {**submit, "jobspec": {**jobspec(), "attributes": {"system": None}}}],
        "flags": ["submit", 777, 1.0, submit],
        "cron at no time": ["cron-create", "cron/9", 1.0, {**TIMED, "next": 1e300}],
        "cron all the time": ["cron-create", "cron/9", 1.0, {**TIMED, "spec": {"interval": 0.0, "first": -5.0}}],
        "cron at words": ["cron-create", "cron/9", 1.0, {**TIMED, "type": "at", "spec": {"at": "noon"}}],
    }  # fmt: skip


class Deaf:
    """Timers that never ring."""

    def add(self, *args: Any) -> None: ...
    def at(self, *args: Any) -> None: ...
    def cancel(self, *args: Any) -> None: ...


@pytest.mark.parametrize("name", hostile(busy_site()))
def test_nobody_dies_or_goes_round_in_circles(name: str) -> None:
    """A worker and cron's driver take the event, come to rest, and a job that comes after it is taken in."""
    rig = busy_site()
    rig.say(hostile(rig)[name])
    rig.turn(seconds=1.0)
    rig.turn(seconds=100.0)
    assert 777 not in rig.state.jobs or name == "flags" or rig.state.jobs[777].state == INACTIVE
    later = rig.submit(jobspec(queue="batch"))
    assert rig.job(later).state < CLEANUP
    driver = Cron(MemoryStore(rig.server), Deaf(), lambda level, text: None)
    driver._new_id = iter(range(10_000, 20_000)).__next__  # type: ignore[method-assign]
    driver.step(rig.now)
    driver.step(rig.now + 1000)
    rig.turn()
    assert rig.state.digest() == rig.journal.at().digest()
    assert isinstance(driver.table, CronTable)
    assert driver.table.dump() == rig.state.cron.dump()


def test_who_follows_jobs_passes_over_the_same() -> None:
    """The Python API's futures, `run` and `wait` read events without a fold; none of them may die of one either."""
    rig = busy_site()
    id = next(iter(rig.state.keeping))
    good = [["start", id, 5.0, None], ["finish", id, 6.0, {"status": 256}], ["clean", id, 7.0, None]]
    for name in ("submit", "start", "finish", "exception", "memo"):
        example = CATALOGUE["job", name].example
        bad = [[name, id, 1.0, context] for context in odd(example, 1) if not isinstance(context, dict)]
        bad += [[name, id, ts, example] for ts in (None, "x", float("nan"))]
        if name in ("finish", "exception"):
            bad += [[name, id, 1.0, {**(example or {}), key: one}] for key in example or {} for one in (None, *ODD)]
        bad += [[[name], id, 1.0, example], [name, [id], 1.0, example], [name, id, 1.0], 5]
        events = unpack(pack([*(event for event in bad if not _says_something(event)), *good]))
        (result,) = Follower([bare_job(id)]).take(Commit(1, 5, "", 0, 0, 2.0, events, {}))
        assert (result.status, result.exception, result.runtime) == (256, None, 1.0), name


def _says_something(event: Any) -> bool:
    """An exception is one whatever its userid."""
    return isinstance(event, list) and event[0] == "exception" and len(event) == 4 and isinstance(event[3], dict) and (
        event[2] == 1.0 and isinstance(event[3]["type"], str) and event[3]["severity"] == 0 and isinstance(event[3]["note"], str)
    )


def test_a_badly_written_event_is_shown_as_it_stands() -> None:
    rig = busy_site()
    for event in bad_events(rig):
        (name, subject, ts, context) = unpack(pack(event))
        if context is None or isinstance(context, dict):
            assert isinstance(describe(Event(name, subject, ts, context), {}), str), event
            assert isinstance(context_document(name, context or {}), dict), event


def test_what_is_no_event_hides_none_of_those_beside_it() -> None:
    rig = busy_site()
    id = rig.submit(jobspec(queue="batch"))
    version = rig.say(5, ["memo"], ["memo", id, 1.0, {"a": 1}], ["memo", id, 1.0, [1]])
    rig.turn()
    assert [event.context for _, event in rig.journal.story([version], id)] == [{"a": 1}]
    assert [event.context for _, event in _events(rig.commits(), id) if event.name == "memo"] == [{"a": 1}]
    assert rig.job(id).memo == {"a": 1}


def test_events_that_change_nothing_are_known() -> None:
    state = State()
    events = [["lively", "resource", 1.0, {"idset": "0"}], ["torpid", "resource", 1.0, {"idset": "0"}]]
    state.apply(Commit(1, 5, "", 0, 0, 0.0, events, {}))
    assert state.skipped == 0
