"""Instances inside instances that are gone on with: which attempt takes up which namespace, at each level, whatever dies."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from worker_rig import T0, Rig, jobspec

from fluxkv.instances import child, resume
from fluxkv.instances.child import ATTEMPT, child_namespace, child_number, child_space
from fluxkv.instances.ending import ending, stopping
from fluxkv.instances.nested import Owner, owner_of
from fluxkv.journal import decide
from fluxkv.journal.ids import f58
from fluxkv.journal.job import INACTIVE, Job
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore

NODE = render_set(ResourceSet((NodeRecord(0, "n0", 3, 0, 0, ()),)))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "time", SimpleNamespace(time=lambda: T0, sleep=lambda _: None))


class Level(Rig):
    """An instance in a namespace, with one node of two cores: one job in it has ended, one runs."""

    def __init__(self, server: MemoryServer, namespace: str, first: int) -> None:
        self.now, self.server, self.next = T0, server, first
        self.store = MemoryStore(server, namespace)
        self.store.create(durability="strict", origin_ms=0, created=T0)
        self.journal = Journal(self.store, "test")
        parent = {} if namespace == "/" else {"parent": "unix:/tmp/kv.sock"}
        self.say(["instance-create", "instance", T0, {"uid": "u", "owner": 1, "namespace": namespace, "schema": 1, **parent}],
                 ["resource-define", "resource", T0, {"method": "job-info", "R": NODE}])  # fmt: skip
        self.up()
        self.ended, self.child = self.submit(), self.submit()
        self.started(self.ended, self.child)
        self.over(self.ended, 3 << 8)
        self.turn()

    def up(self) -> None:
        """A new worker, and a node that speaks."""
        self.journal.meta = self.store.meta()
        self.hello(0)
        self.worker = self.new_worker()
        self.lead()

    @property
    def below(self) -> str:
        return child_namespace(self.store.namespace, self.child)

    def tell(self, space: str) -> None:
        """As `child.tell_parent`."""
        told: dict[str, Any] = {"uri": f"unix:/tmp/kv.sock#{space}"}
        if self.job(self.child).number > 1:
            told[ATTEMPT] = self.job(self.child).number
        self.say(["memo", self.child, self.now, told])
        self.turn()

    def record(self) -> Job:
        return self.job(self.child)

    def again(self) -> None:
        """The child's next attempt begins."""
        self.turn()
        self.started(self.child)

    def go_on(self, below: Level) -> None:
        """What the leading node of the child's attempt does."""
        job = self.record()
        settings = {"job": f58(job.id), "R": NODE, "resume": {"number": job.number, "entry": job.attempt_id}}
        assert resume.space_before(self.store, job.id, job.number) == below.store.namespace
        resume.take_up(below.store, self.store, settings)
        below.up()
        self.tell(below.store.namespace)


class Site:
    """Three levels below a root; in the last one a job runs."""

    def __init__(self) -> None:
        self.server = MemoryServer(lambda: T0, random.Random(1))
        self.levels = [Level(self.server, "/", 100)]
        for first in (200, 300, 400):
            above = self.levels[-1]
            self.levels.append(Level(self.server, above.below, first))
            above.tell(above.below)

    def killed(self) -> None:
        """All that is below the root, with its job there; another one, which is to go on with it, begins."""
        root = self.levels[0]
        root.over(root.child, 9)
        root.turn()
        root.child = root.submit()
        root.started(root.child)

    def goes_on(self) -> None:
        root, first, *inner = self.levels
        job = root.record()
        settings = {"job": f58(job.id), "R": NODE, "resume": {"number": job.number, "entry": job.attempt_id}}
        resume.take_up(first.store, root.store, settings)
        first.up()
        above = first
        for level in inner:
            above.again()
            above.go_on(level)
            above = level
        above.again()


class Dying:
    """`resume.take_up` of who dies before write number `at`, of all journals together, and is started again if not all of it is."""

    def __init__(self, at: int, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.whole, self.patch, self.real = at, whole, monkeypatch, resume.take_up

    def __call__(self, *args: Any) -> State:
        with self.patch.context() as broken:
            for name in ("reopen", "delete", "append"):
                broken.setattr(MemoryStore, name, self.failing(getattr(MemoryStore, name)))
            try:
                return self.real(*args)
            except Unavailable as error:
                if error.code != "died" or self.whole:
                    raise
        return self.real(*args)

    def failing(self, real: Any) -> Any:
        def call(store: MemoryStore, *args: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Unavailable("it died", code="died")
            return real(store, *args)

        return call


@pytest.mark.parametrize("whole", [False, True])
def test_what_has_ended_stays_at_each_level_whatever_dies_at_each_line(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes a journal up dies before each of its writes; then he does it once more, or all dies and another job goes on."""
    at, left = 0, 0
    while left <= 0:
        at += 1
        site = Site()
        site.killed()
        with monkeypatch.context() as here:
            dying = Dying(at, whole, monkeypatch)
            here.setattr(resume, "take_up", dying)
            try:
                site.goes_on()
            except Unavailable:
                site.killed()
                site.goes_on()
            left = dying.left
        for above, level in pairwise(site.levels):
            state = Journal(level.store).look()
            ended = state.jobs[level.ended]
            assert (ended.state, ended.status, ended.number) == (INACTIVE, 3 << 8, 1)
            assert not state.quarantine.table
            job = above.record()
            assert owner_of(state) == Owner(job.id, job.number, job.attempt_id)
            assert level.record().holds
            assert level.record().number in ((2, 3) if whole else (2,))
            if above is not site.levels[0]:
                assert child_space(job, above.store.namespace) == level.store.namespace
                assert child_number(job, above.store.namespace) == job.number
    assert at > 3 * 4


def attempt_after(level: Level, *events: Any) -> str:
    """What the next attempt of a child goes on with, when its attempt has ended so."""
    level.say(*events)
    level.turn()
    level.turn(seconds=100.0)
    level.started(level.child)
    return resume.space_before(level.store, level.child, level.record().number)


def test_only_the_end_of_the_instance_around_is_no_new_beginning() -> None:
    site = Site()
    _, level, below, _ = site.levels
    job = level.record()
    level.say(["exception", job.id, level.now, {"type": "requeue", "severity": 0, "note": "somebody's wish", "userid": 1}])
    level.turn()
    level.over(job.id, 15, "ended:requeue")
    assert attempt_after(level) == ""
    assert level.record().number == 2
    site.killed()  # before the second attempt was an instance: the first one's is not what was wanted
    root = site.levels[0]
    one = root.record()
    settings = {"job": f58(one.id), "R": NODE, "resume": {"number": one.number, "entry": one.attempt_id}}
    resume.take_up(level.store, root.store, settings)
    level.up()
    assert attempt_after(level) == ""
    assert level.record().number == 3
    assert below.store.meta().version  # it is there


def test_an_end_of_the_instance_around_counts_as_no_retry() -> None:
    """A job with a policy of its own is back in line all the same when its instance is stopped, and goes on."""
    level = Level(MemoryServer(lambda: T0, random.Random(1)), "/ƒA", 200)
    spec = jobspec()
    spec["attributes"]["system"]["retry"] = {"limit": 1, "on": ["any"], "delay": 5.0}
    level.over(level.child, 0)
    level.turn()
    level.child = level.submit(spec)
    level.started(level.child)
    Level(level.server, level.below, 300)
    level.do(stopping(level.journal.load().queues))
    level.do(ending(level.journal.load()))
    level.turn()
    level.over(level.child, 15, "ended:shutdown")
    level.turn()
    assert level.record().requeued[:2] == [1, 0]
    assert resume.space_before(level.store, level.child, 2) == level.below


def test_a_program_runs_again_where_each_job_has_a_key() -> None:
    level = Level(MemoryServer(lambda: T0, random.Random(1)), "/ƒA", 200)
    assert not resume.is_repeatable(level.store)
    keyed = MemoryStore(level.server, "/ƒK")
    keyed.create(durability="strict", origin_ms=0, created=T0)
    journal = Journal(keyed, "test")
    assert resume.is_repeatable(keyed)  # nothing was submitted
    journal.append(decide.submit([(9, jobspec())], "", 16, 1, 0, T0, keys={0: ("k", "key/x", "")}), 0)
    assert resume.is_repeatable(keyed)
    journal.append(decide.submit([(10, jobspec())], "", 16, 1, 0, T0), keyed.meta().version)
    assert not resume.is_repeatable(keyed)


def test_a_memo_of_another_attempt_than_there_was_is_nobody_s() -> None:
    job = Job(5)
    job.memo = {"uri": f"unix:/x#/{f58(5)}", ATTEMPT: 3}
    assert child_number(job, "/") == 1
    job.requeued = [2, 0, 0.0, "", True, ""]
    assert (child_number(job, "/"), child.own_number(job, "/")) == (3, 1)
    job.memo = {"uri": f"unix:/x#/{f58(5)}.4", ATTEMPT: 3}  # a fresh one after it
    assert child_number(job, "/") == 4
