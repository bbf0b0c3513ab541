"""A world in which whole ensembles run on memory stores: the real lead, feeders and record, each in a thread of which one at a
time has its turn, and whoever it is may die at any request of a store, before or after it took effect.

What daemons do is played: workers end members as their indices say, children and the ensemble begin again as other attempts. What
was journalled as ended by itself is kept as the truth that results are compared with.
"""

from __future__ import annotations

import math
import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from actors import Actor, Store

from fluxkv.instances import (
    ensemble_feed,
    ensemble_lead,
    ensemble_salvage,
    follow,
    kvs_client,
    left_behind,
    submission,
)
from fluxkv.instances.child import child_namespace
from fluxkv.instances.client import Instance
from fluxkv.instances.ensemble_feed import Feeder, Stopped
from fluxkv.instances.ensemble_job import VARIABLE, numbered
from fluxkv.instances.ensemble_record import Record, fresh
from fluxkv.instances.ensemble_salvage import Salvage
from fluxkv.instances.submission import prepare
from fluxkv.journal.decide import Decision
from fluxkv.journal.ensemble import Indices, Part
from fluxkv.journal.ids import parse_id
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.log import Journal
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.kvs import redis_store
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Appended
from fluxkv.tools import ensemble_inside_cmd
from fluxkv.tools.ensemble_request import cutter

EVENT = list[Any]
SLOTS = 2
R = {"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {"core": "0-5"}}], "nodelist": ["h"]}}


def outcome(index: int) -> tuple[int | None, list[str] | None]:
    """(status, exception) of a member."""
    return {
        3: (2 << 8, None), 7: (11, None), 11: (None, ["cancel", "by hand"]), 13: (142 << 8, ["timeout", "took too long"]),
        17: (9, None), 19: (None, ["unsatisfiable", "never ran"]),
    }.get(index % 23, (0, None))  # fmt: skip


class Place:
    """An instance, and the worker that is played in it. State is that of its journal."""

    def __init__(self, world: World, namespace: str) -> None:
        self.world, self.namespace = world, namespace
        self.cores: dict[int, int] = {}
        self.store = MemoryStore(world.server, namespace)
        meta = self.store.create(durability="local", origin_ms=world.rng.getrandbits(30), created=world.now)
        self.journal, self.state = Journal(self.store, "worker"), State()
        create = {"uid": meta.uid, "owner": 0, "namespace": namespace, "schema": 1}
        define = {"method": "configuration", "R": R}
        self.say([["instance-create", "instance", world.now, create], ["resource-define", "resource", world.now, define]])

    def say(self, events: list[EVENT]) -> None:
        meta = self.journal.meta = self.store.meta()
        things = sorted({f"job/{one[1]}" for one in events if isinstance(one[1], int)})
        answer = self.journal.append(Decision(events, bumps=things), meta.version)
        assert isinstance(answer, Appended), answer
        self.look()
        assert not self.state.quarantine.table, self.state.quarantine.table

    def look(self) -> None:
        self.journal.catch_up(self.state, self.judge)

    def judge(self, state: State, commit: Commit) -> None:
        pass

    def began(self, id: int) -> list[EVENT]:
        now = self.world.now
        core = self.cores[id] = min(set(range(6)) - set(self.cores.values()))
        placed = {"claims": [[0, str(core), "", 0, 1]], "expiration": 0.0}
        return [["validate", id, now, None], ["depend", id, now, None], ["priority", id, now, {"priority": 16}],
                ["alloc", id, now, placed], ["start", id, now, None]]  # fmt: skip

    def ended(self, id: int, status: int, exception: list[str] | None = None) -> list[EVENT]:
        now = self.world.now
        fatal = {"type": exception[0], "severity": 0, "note": exception[1]} if exception else None
        self.cores.pop(id, None)
        return [*([["exception", id, now, fatal]] if fatal else []), ["finish", id, now, {"status": status}],
                ["release", id, now, {"ranks": "all", "final": True}], ["free", id, now, None]]  # fmt: skip


class Child(Place):
    """A child's attempt: its feeder, and members that wait and run."""

    def __init__(self, world: World, above: Ensemble, job: int, attempt: int) -> None:
        self.index: dict[int, int] = {}
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.above, self.job, self.attempt = above, job, attempt
        self.told_to_end = self.stopping = False
        super().__init__(world, child_namespace(above.namespace, job, attempt))
        self.feeder: Feeder | None = None
        self.actor = Actor(world, f"feed {self.namespace}", self._feed)

    def _feed(self) -> int:
        world, server = self.world, self.world.server
        record = Record(Instance(Store(server, self.above.namespace)).kvs)
        here = Instance(Store(server, self.namespace))
        request = world.request
        feeder = self.feeder = Feeder(
            here, record, request, cutter(request), me=self.job, attempt=self.attempt, outer=self.above.attempt, slots=SLOTS,
            is_told_to_end=lambda: self.told_to_end,
        )  # fmt: skip
        try:
            if self.attempt > 1:
                above = SimpleNamespace(store=record.kvs.journal.store, uri="")
                ensemble_inside_cmd._resume(feeder, record, above, self.job, self.attempt, request, self.above.attempt)
            feeder.run()
        except Stopped:
            return 143
        except Unavailable as error:
            if error.code != "server-away":
                raise
            return 1
        return 0

    def judge(self, state: State, commit: Commit) -> None:
        for name, subject, _, context in commit.events:
            if name == "submit":
                index = int(context["jobspec"]["attributes"]["system"]["environment"][VARIABLE])
                self.world.submitted(self, index)
                self.index[subject] = index
                self.waiting.append(subject)

    def work(self) -> None:
        """Some members begin, some end."""
        self.look()
        if self.stopping:
            self.told_to_end = self.told_to_end or self.world.rng.random() < 0.1  # TERM follows
            return
        rng, events = self.world.rng, list[EVENT]()
        for id in [one for one in self.running if rng.random() < 0.5]:
            self.running.remove(id)
            status, exception = outcome(self.index[id])
            if status is None and exception is not None and exception[0] == "unsatisfiable":
                raise AssertionError("it never began")
            events += [*self.ended(id, 0 if status is None else status, exception), ["clean", id, self.world.now, None]]
            self.world.over(self, id)
        while self.waiting and len(self.running) < SLOTS:
            id = self.waiting.pop(0)
            status, exception = outcome(self.index[id])
            if status is None and exception is not None and exception[0] == "unsatisfiable":
                fatal = {"type": exception[0], "severity": 0, "note": exception[1]}
                events += [["validate", id, self.world.now, None], ["exception", id, self.world.now, fatal],
                           ["clean", id, self.world.now, None]]  # fmt: skip
                self.world.over(self, id)
                continue
            self.running.append(id)
            events += self.began(id)
        if events:
            self.say(events)

    def stop(self) -> None:
        """In order: from now on nothing in it ends by itself."""
        self.stopping = True
        self.say([["instance-stopping", "instance", self.world.now, None]])

    def end_all(self) -> None:
        """What was in it ends with it."""
        self.look()
        for id in self.running:
            how = self.world.rng.choice((["shutdown", "stopped"], ["lost", "gone"], None))
            self.say([*self.ended(id, 15, how), ["clean", id, self.world.now, None]])
        self.running = []


class Ensemble(Place):
    """An ensemble's attempt: its lead, and its children."""

    def __init__(self, world: World, attempt: int) -> None:
        super().__init__(world, child_namespace("/", world.job, attempt))
        self.attempt = attempt
        self.children: dict[int, Child] = {}
        self.limit = world.rng.randint(1, 3)
        self.leads = 0
        self.start_lead()

    def start_lead(self) -> None:
        self.leads += 1
        self.lead = Actor(self.world, f"lead {self.namespace} {self.leads}", self._lead)

    def _lead(self) -> int:
        world = self.world
        return ensemble_lead.lead(Instance(Store(world.server, self.namespace)), world.job, self.attempt, world.request, {})

    def work(self) -> None:
        """Children begin, end, begin again."""
        self.look()
        for job in list(self.state.jobs.values()):
            child = self.children.get(job.id)
            if job.state == INACTIVE or (child is not None and not child.actor.over):
                continue
            if child is None:
                self.say(self.began(job.id))
                self.children[job.id] = Child(self.world, self, job.id, 1)
            else:
                self._next(child)

    def _next(self, child: Child) -> None:
        """Its feeder is over: so is the attempt, and another follows unless it went well, or there were enough."""
        world, job, code = self.world, child.job, child.actor.code
        if code and not child.stopping:
            child.work()  # this ended before it was known that the feeder has
            child.stop()
        child.end_all()
        ended = self.ended(job, 9 if code < 0 else code << 8)
        if not code or child.attempt > self.limit:
            self.say([*ended, ["clean", job, world.now, None]])
            del self.children[job]
            return
        world.hide(child.namespace)
        after = {"attempt": child.attempt + 1, "cause": "exit", "note": "again"}
        self.say([*ended, ["requeue", job, world.now, after]])
        began = [one for one in self.began(job) if one[0] not in ("validate", "depend")]
        self.say(began)
        self.children[job] = Child(world, self, job, child.attempt + 1)

    def kill(self) -> None:
        """All of it at once."""
        for actor in self.actors():
            actor.kill()
        for child in self.children.values():
            child.look()
            self.world.hide(child.namespace)

    def actors(self) -> list[Actor]:
        return [one for one in (self.lead, *(child.actor for child in self.children.values())) if not one.over]


class World:
    """seed: of all that happens. members: how many. deaths: how many there are at most. goes: some children's own servers never
    come back."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, seed: int, members: int, deaths: int, *, goes: bool = False
    ) -> None:
        self.goes = goes
        self.rng = random.Random(seed)
        self.now, self.deaths = 1e9, deaths
        self.local = threading.local()
        self.server = MemoryServer(lambda: self.now, self.rng)
        self.server.world = self  # type: ignore[attr-defined]
        self.away: dict[str, float] = {}  # namespace -> until when its server does not answer
        self.unknown = 0  # ended, and ran again since nobody can know
        self.settled: dict[int, tuple[str, int]] = {}  # index -> (namespace, job) of its end by itself
        self.happened: list[str] = []
        self.job = parse_id("ƒ2q")
        self._patch(monkeypatch)
        MemoryStore(self.server, "/").create(durability="local", origin_ms=1, created=self.now)
        jobspec, _ = prepare(["true"], {}, {})
        self.request = numbered(jobspec, (index for index in range(members + 20) if not 10 <= index < 30), {}, 3)
        self.ensemble = Ensemble(self, 1)

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimpleNamespace(
            monotonic=lambda: self.now, time=lambda: self.now, time_ns=lambda: int(self.now * 1e9), sleep=self.sleep
        )
        for module in (ensemble_feed, ensemble_salvage, follow, kvs_client, left_behind, submission):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(ensemble_feed, "AT_ONCE", 4)
        monkeypatch.setattr(ensemble_feed, "TOGETHER", 12)
        monkeypatch.setattr(ensemble_salvage, "PART", 5)
        monkeypatch.setattr("os.urandom", self.rng.randbytes)
        monkeypatch.setattr(ensemble_lead, "parent_of", lambda uri: "")
        monkeypatch.setattr(redis_store, "open_store", lambda uri: Store(self.server, "/"))

    # -- what actors meet

    def gate(self) -> None:
        actor = getattr(self.local, "actor", None)
        if actor is not None:
            actor.gate()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.gate()

    def refuse(self, namespace: str) -> None:
        """A child's own server whose host is slow in handing up."""
        if self.away.get(namespace, 0.0) > self.now:
            raise Unavailable(f"{namespace}: its server does not answer", code="server-away")

    def hide(self, namespace: str) -> None:
        if self.rng.random() < 0.3:
            self.away[namespace] = self.now + self.rng.uniform(0.0, 20.0)
        if self.goes and self.rng.random() < 0.4:
            self.away[namespace] = math.inf

    # -- what must be

    def submitted(self, child: Child, index: int) -> None:
        if index in self.settled and self.away.get(self.settled[index][0]) == math.inf:
            del self.settled[index]  # nobody can know
            self.unknown += 1
        assert index not in self.settled, f"{child.namespace} runs {index} again, which ended at {self.settled[index]}"
        live = [other.namespace for other in self.ensemble.children.values()
                for id in (*other.waiting, *other.running) if other.index[id] == index]  # fmt: skip
        assert not live, f"{child.namespace} has {index}, and so has {live}"

    def over(self, child: Child, id: int) -> None:
        """It ended. A KILL alone may have come from anywhere."""
        if outcome(child.index[id]) != (9, None):
            self.settled[child.index[id]] = child.namespace, id

    # -- what happens

    def run(self) -> int:
        """To the end of the ensemble; its exit code."""
        for _ in range(60_000):
            self.now += self.rng.uniform(0.0, 0.05)
            self._step()
            if self.ensemble.lead.over:
                if self.ensemble.lead.code >= 0:
                    return self.ensemble.lead.code
                self._begin_again()
        raise AssertionError(f"it never ends: {self.happened}")

    def cancel(self, after: int) -> list[Part]:
        """Have it run so long, then end in order; what its children had come to and had not told."""
        for _ in range(after):
            self.now += self.rng.uniform(0.0, 0.05)
            self._step()
        ensemble = self.ensemble
        ensemble.lead.kill()
        children = list(ensemble.children.values())
        for child in children:
            if not child.stopping:
                child.work()
                child.told_to_end = True
            while not child.actor.over:
                self.now += 0.01
                child.actor.turn()
            if not child.stopping:
                told, where = self.record().finished(len(Indices(self.request.ranges))), Indices(self.request.ranges).position_of
                late = [index for index, (space, _) in self.settled.items() if space == child.namespace and not told[where(index)]]
                assert child.actor.code != 143 or not late, f"{late} had ended when its child was told to end, and is not told"
                child.work()  # what ends from now on is told by nobody
                child.stop()
            child.end_all()
        done = self.record().finished(len(Indices(self.request.ranges)))
        there = Salvage(Indices(self.request.ranges), done, self.happened.append)
        parts = there.of_ensemble(MemoryStore(self.server, "/"), self.job, range(ensemble.attempt, 0, -1))
        return [news for part in parts if len(news := fresh(part, done))]

    def _step(self) -> None:
        ensemble, luck = self.ensemble, self.rng.random()
        children = [ensemble.children[id] for id in sorted(ensemble.children)]
        if luck < 0.006 and self.deaths:
            self.deaths -= 1
            self._death(children)
        elif luck < 0.15 and children:
            self.rng.choice(children).work()
        elif luck < 0.2:
            ensemble.work()
        elif actors := ensemble.actors():
            self.rng.choice(actors).turn()
        for child in children:
            if (feeder := child.feeder) is not None:
                most = ensemble_feed.enough(SLOTS, feeder._rate) + ensemble_feed.AT_ONCE
                assert len(feeder._place) <= max(most, 40), "what it has in memory grows"

    def _death(self, children: list[Child]) -> None:
        kind = self.rng.choice(("feeder", "child", "stop", "lead", "all"))
        self.happened.append(kind)
        if kind == "all":
            self.ensemble.kill()
            self.ensemble = Ensemble(self, self.ensemble.attempt + 1)
        elif kind == "lead":
            self.ensemble.lead.kill()
        elif alive := [child for child in children if not child.actor.over and not child.stopping]:
            child = self.rng.choice(alive)
            if kind == "stop":
                child.work()
                child.stop()
                child.told_to_end = self.rng.random() < 0.5
                return
            if kind == "child":
                child.stopping = True  # nobody there does or says anything from now on
            child.actor.kill()

    def _begin_again(self) -> None:
        if self.ensemble.leads < 4:
            self.ensemble.start_lead()
        else:
            self.ensemble.kill()
            self.ensemble = Ensemble(self, self.ensemble.attempt + 1)

    def close(self) -> None:
        self.ensemble.kill()

    def record(self) -> Record:
        """Of its last attempt."""
        return Record(Instance(MemoryStore(self.server, self.ensemble.namespace)).kvs)

