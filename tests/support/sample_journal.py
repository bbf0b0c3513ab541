"""A small deterministic history: 15 jobs on 3 nodes of 4 cores, with every kind of end, for tests of what
reads a journal.

Jobs by letter (`Sample.ids`): a ok, b exit 3, c cancelled while pending, d timed out, e two nodes, f no such
program, g and h one seat handed over, i cancelled while running, j and k running (k another user's), l
pending with a reason, m pending behind l, n held, o waiting for a time. Node 1 was drained and came back;
node 2 is drained. The KVS has a small and a large value. Server time is a counter from `T0`, a second a
commit.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from fluxkv.journal import decide, decide_kvs
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import compose
from fluxkv.journal.idset import mask_of
from fluxkv.journal.log import Journal, make_append
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.schema import SCHEMA
from fluxkv.journal.state import State
from fluxkv.kvs import memory_server, memory_store
from fluxkv.kvs.blobs import blob_name
from fluxkv.kvs.port import Appended, Store

T0 = 1_700_000_000.0
OTHER = 4_000_000  # a user id nobody has
BIG = b"x" * 3000


class Clock:
    """Unix seconds that move only when told."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Sample(NamedTuple):
    """uri: where commands find it. state: folded along. ids: letter -> job id. clock: of the memory
    server."""

    uri: str
    journal: Journal
    state: State
    ids: dict[str, int]
    clock: Clock


def jobspec(
    command: list[str], *, nodes: int = 0, slots: int = 1, cores: int = 1, duration: float = 0.0,
    name: str = "",
    queue: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A version 1 jobspec as it stands in a submit event."""
    slot: dict[str, Any] = {
        "type": "slot", "count": slots, "label": "task", "with": [{"type": "core", "count": cores}],
    }  # fmt: skip
    system: dict[str, Any] = {"duration": duration, "cwd": "/tmp"}
    if name:
        system["job"] = {"name": name}
    if queue:
        system["queue"] = queue
    return {
        "version": 1,
        "resources": [{"type": "node", "count": nodes, "with": [slot]} if nodes else slot],
        "tasks": [{"command": command, "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": system},
    }


class Writer:
    """Appends commits and folds them. Every worker commit carries the digest of what it was decided on."""

    def __init__(self, store: Store, clock: Clock | None = None, userid: int | None = None) -> None:
        self.journal = Journal(store, "cli")
        self.state = State()
        self.clock = clock or Clock(store.now())
        self.userid = os.getuid() if userid is None else userid
        self.ids: dict[str, int] = {}
        self.seq = 0

    @property
    def now(self) -> float:
        return self.clock.now

    def tick(self, seconds: float = 1.0) -> float:
        self.clock.now += seconds
        return self.clock.now

    def cli(self, decision: Decision) -> int:
        """Commit as a person's command does."""
        self.tick()
        answer = self.journal.append(decision, self.state.version)
        return self._took(answer)

    def worker(self, *events: list[Any], inbox: list[tuple[str, bytes]] | None = None) -> int:
        """Commit as the worker does: in sequence, with a digest."""
        self.tick()
        self.seq += 1
        things = sorted({f"job/{event[1]}" for event in events if isinstance(event[1], int)})
        decision = Decision(list(events), since=things, bumps=things, inbox=inbox or [])
        extra = {"by": "worker", "digest": self.state.digest(), "schema": SCHEMA}
        request = make_append(
            self.journal.meta, decision, self.state.version, producer="worker-1", seq=self.seq, extra=extra
        )
        return self._took(self.journal.store.append(request))

    def agent(self, rank: int, name: str, context: dict[str, Any]) -> int:
        """Commit as an agent does."""
        self.tick()
        decision = Decision(
            [[name, f"node/{rank}", self.now, {"rank": rank, **context}]], bumps=[f"node/{rank}"]
        )
        extra = {"by": f"agent {rank}"}
        return self._took(
            self.journal.store.append(
                make_append(self.journal.meta, decision, self.state.version, extra=extra)
            )
        )

    def _took(self, answer: object) -> int:
        assert isinstance(answer, Appended), answer
        self.journal.catch_up(self.state)
        assert self.state.version == answer.version
        return answer.version

    # -- longer steps ----------------------------------------------------------------------------------------

    def submit(
        self, letter: str, spec: dict[str, Any], *, urgency: int = 16, userid: int | None = None
    ) -> int:
        """Submit, and let the worker take it to SCHED."""
        id = self.ids[letter] = compose(1000 * (1 + len(self.ids)), 0, 0)
        who = self.userid if userid is None else userid
        self.cli(decide.submit([(id, spec)], "", urgency, who, 0, self.now + 1))
        return id

    def schedule(self, *ids: int) -> None:
        t = self.now + 1
        events = []
        for id in ids:
            priority = self.state.jobs[id].urgency
            events += [
                ["validate", id, t, None],
                ["depend", id, t, None],
                ["priority", id, t, {"priority": priority}],
            ]
        self.worker(*events)

    def alloc(self, id: int, claims: list[list[Any]]) -> int:
        t = self.now + 1
        duration = self.state.jobs[id].duration
        return self.worker(
            ["alloc", id, t, {"claims": claims, "expiration": t + duration if duration else 0.0}]
        )

    def run(self, id: int, claims: list[list[Any]]) -> int:
        """Allocate, and let every rank say that it began."""
        version = self.alloc(id, claims)
        for claim in claims:
            self.agent(claim[0], "report", {"start": [[id, version, self.now]]})
        self.worker(["start", id, self.now, None])
        return version

    def over(self, id: int, status: int, *, cause: str = "", following: int = 0) -> None:
        """Each rank's report of the end."""
        job = self.state.jobs[id]
        for rank in [claim.rank for claim in job.claims] or [job.granted[0] if job.granted else 0]:
            began = job.started.get(rank, 0.0)
            self.agent(
                rank, "report", {"over": [[id, job.attempt, began, self.now, status, cause, following]]}
            )

    def clean(self, id: int, status: int, *before: list[Any]) -> None:
        t = self.now
        self.worker(
            *before,
            ["finish", id, t, {"status": status}],
            ["release", id, t, {"ranks": "all", "final": True}],
            ["free", id, t, None],
            ["clean", id, t, None],
        )


def write(writer: Writer) -> None:
    """The whole story, onto an empty journal."""
    w, meta = writer, writer.journal.meta
    w.cli(Decision([["instance-create", "instance", w.now + 1,
                     {"uid": meta.uid, "owner": w.userid, "namespace": "/", "schema": 1}]]))  # fmt: skip
    nodes = tuple(
        NodeRecord(rank, f"node{rank}", mask_of("0-3"), mask_of("0") if rank == 2 else 0, 8192, ())
        for rank in range(3)
    )
    t = w.now + 1
    w.cli(Decision([
        ["instance-start", "instance", t, {"pid": 42, "host": "node0"}],
        ["resource-define", "resource", t, {"method": "configuration", "R": render_set(ResourceSet(nodes))}],
    ]))  # fmt: skip
    for rank in range(3):
        w.agent(rank, "hello", {"host": f"node{rank}", "boot": "b0", "spool": f"s{rank}", "epoch": meta.epoch,
                                "cursor": "0-0", "held": []})  # fmt: skip
    w.worker(["online", "resource", w.now + 1, {"idset": "0-2"}])

    a = w.submit("a", jobspec(["true"]))
    w.schedule(a)
    w.run(a, [[0, "0", "", 0, 1]])
    w.over(a, 0)
    w.clean(a, 0)

    b = w.submit("b", jobspec(["make", "all"], cores=2, name="build"))
    w.schedule(b)
    w.run(b, [[1, "0-1", "", 0, 1]])
    w.over(b, 3 << 8)
    w.clean(b, 3 << 8)

    c = w.submit("c", jobspec(["sleep", "100"]))
    w.schedule(c)
    w.cli(decide.raise_exception(w.state, c, "cancel", 0, "not needed", w.userid, w.now + 1))
    w.worker(["clean", c, w.now + 1, None])

    d = w.submit("d", jobspec(["sleep", "inf"], duration=5.0))
    w.schedule(d)
    version = w.run(d, [[2, "0", "0", 0, 1]])
    w.tick(5)
    w.agent(2, "report", {"timeout": [[d, version, w.now]]})
    w.worker(
        ["exception", d, w.now + 1, {"type": "timeout", "severity": 0, "note": "resource allocation expired"}]
    )
    w.over(d, 15, cause="timeout")
    w.clean(d, 15)

    e = w.submit("e", jobspec(["mpi"], nodes=2, cores=4))
    w.schedule(e)
    w.cli(decide.drain(w.state, [1], "firmware", 0, w.now + 1))
    w.cli(decide.undrain(w.state, [1], "", w.now + 1))
    w.run(e, [[0, "0-3", "", 0, 1], [1, "0-3", "", 0, 1]])
    w.over(e, 0)
    w.clean(e, 0)

    f = w.submit("f", jobspec(["nosuch"]))
    w.schedule(f)
    w.alloc(f, [[0, "0", "", 0, 1]])
    note = "nosuch: No such file or directory"
    w.over(f, 127 << 8, cause=f"spawn: {note}")
    w.clean(f, 127 << 8, ["exception", f, w.now, {"type": "exec", "severity": 0, "note": note, "wait_status": 127 << 8}])

    g = w.submit("g", jobspec(["true"], name="first"))
    h = w.submit("h", jobspec(["true"], name="second"))
    w.schedule(g, h)
    w.alloc(g, [[0, "0", "", 0, 1]])
    granted = w.worker(["grant", h, w.now + 1, {"rank": 0, "shape": "a1"}])
    t = w.now
    w.agent(
        0,
        "report",
        {"over": [[g, w.state.jobs[g].attempt, t, t + 0.5, 0, "", h]], "start": [[h, granted, t + 0.5]],
         "exit": [[g, w.state.jobs[g].attempt, 0, 0, t + 0.5]]},
    )
    t = w.now
    w.worker(
        ["start", g, t - 1, None], ["finish", g, t - 0.5, {"status": 0}],
        ["release", g, t - 0.5, {"ranks": "all", "final": True}], ["free", g, t, None], ["clean", g, t, None],
        ["alloc", h, t, {"claims": [[0, "0", "", 0, 1]], "expiration": 0.0, "attempt": granted, "via": g}],
        ["start", h, t - 0.5, None],
    )  # fmt: skip
    w.over(h, 0)
    w.clean(h, 0)

    i = w.submit("i", jobspec(["sleep", "50"]))
    w.schedule(i)
    w.run(i, [[1, "3", "", 0, 1]])
    w.cli(decide.raise_exception(w.state, i, "cancel", 0, "", w.userid, w.now + 1))
    w.worker(["end", i, w.now + 1, {"cause": "cancel"}])
    w.over(i, 15, cause="cancel")
    w.clean(i, 15)

    value = [blob_name(BIG), len(BIG)]
    w.journal.store.put_blobs({blob_name(BIG): BIG})
    w.cli(
        decide_kvs.commit(
            [["put", "conf.name", b"demo"], ["put", "conf.tasks", b"4"], ["mkdir", "empty"]], w.now + 1
        )
    )
    w.cli(decide_kvs.commit([["put", "big", value], ["put", "conf.old", b"1"]], w.now + 1))
    w.cli(decide_kvs.commit([["unlink", "conf.old"]], w.now + 1))

    w.cli(decide.drain(w.state, [2], "bad fan", 0, w.now + 1))
    j = w.submit("j", jobspec(["simulate"], cores=2, duration=3600.0))
    k = w.submit("k", jobspec(["render"], cores=4), userid=OTHER)
    w.schedule(j, k)
    w.run(j, [[0, "0-1", "", 1024, 1]])
    w.run(k, [[1, "0-3", "", 0, 1]])
    l_ = w.submit("l", jobspec(["big"], nodes=3, cores=4))
    m = w.submit("m", jobspec(["small"]))
    n = w.submit("n", jobspec(["later"]), urgency=0)
    w.schedule(l_, m, n)
    w.worker(["reason", l_, w.now + 1, {"code": "down", "text": "needs 3 nodes; 2 are up"}])
    o = w.submit("o", jobspec(["nightly"]))
    w.worker(
        ["validate", o, w.now + 1, None],
        ["dependency-add", o, w.now + 1, {"description": "begin-time=1700100000"}],
    )


def sample(name: str = "sample", userid: int | None = None) -> Sample:
    """The story on a memory server that this process finds at `memory:<name>`."""
    clock = Clock()
    server = memory_store.MemoryServer(clock, random.Random(7))
    memory_server.share(name, server)
    store = memory_store.MemoryStore(server)
    store.create(durability="strict", origin_ms=int(T0 * 1000), created=T0)
    writer = Writer(store, clock, userid)
    write(writer)
    return Sample(f"memory:{name}", writer.journal, writer.state, writer.ids, clock)


def many(writer: Writer, count: int, *, batch: int = 500, active: int = 0) -> None:
    """Onto a journal with nodes: `count` one-core jobs through their whole life, a batch a commit, the
    last `active`
    of them left pending."""
    spec = jobspec(["true"])
    first = 1_000_000
    for begin in range(0, count, batch):
        ids = [compose(first + begin + n, 0, 0) for n in range(min(batch, count - begin))]
        writer.cli(decide.submit([(id, spec) for id in ids], "", 16, writer.userid, 0, writer.now))
        writer.schedule(*ids)
        events: list[list[Any]] = []
        t = writer.now
        for number, id in enumerate(ids):
            if begin + number >= count - active:
                continue
            events += [
                ["alloc", id, t, {"claims": [[0, "3", "", 0, 1]], "expiration": 0.0}], ["start", id, t, None],
                ["finish", id, t + 1, {"status": 0}], ["release", id, t + 1, {"ranks": "all", "final": True}],
                ["free", id, t + 1, None], ["clean", id, t + 1, None],
            ]  # fmt: skip
        if events:
            writer.worker(*events)


Maker = Callable[..., Sample]
