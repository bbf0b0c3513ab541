"""A worker alone on a memory store: facts are put into the journal by hand, and `turn` lets it answer them."""

from __future__ import annotations

import random
from typing import Any

from fluxkv.instances.reactor import Answered, Entries, Found, Input, Lead, Lookup, Note, Reopened, WakeAt, Write
from fluxkv.instances.worker import Worker
from fluxkv.journal import decide, decide_config
from fluxkv.journal.decide import Decision
from fluxkv.journal.job import INACTIVE, RUN, Job
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.wire import Commit, unpack
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Appended, Conflicted, Gap
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.tree.record import to_record
from fluxkv.schedulers.tree.vertices import Tree

T0 = 1_700_000_000.0


def jobspec(cores: int = 1, nodes: int = 0, duration: float = 0.0, queue: str = "") -> dict[str, Any]:
    slot = {"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": cores}]}
    system: dict[str, Any] = {"duration": duration, "cwd": "/"}
    if queue:
        system["queue"] = queue
    return {
        "version": 1, "resources": [{"type": "node", "count": nodes, "with": [slot]} if nodes else slot],
        "tasks": [{"command": ["x"], "slot": "t", "count": {"per_slot": 1}}], "attributes": {"system": system},
    }  # fmt: skip


class Rig:
    """Nodes of 2 cores whose agents have spoken, and a leading worker. properties: of each rank; config: of the instance; tree: the
    graph of just these nodes."""

    def __init__(
        self, nodes: int = 2, properties: dict[int, tuple[str, ...]] | None = None, config: dict[str, Any] | None = None,
        tree: Tree | None = None,
    ) -> None:  # fmt: skip
        self.now = T0
        self.server = MemoryServer(lambda: self.now, random.Random(1))
        self.store = MemoryStore(self.server)
        self.store.create(durability="strict", origin_ms=0, created=T0)
        self.journal = Journal(self.store, "test")
        named = properties or {}
        records = tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, named.get(rank, ())) for rank in range(nodes))
        graph = to_record(tree).wire if tree is not None else None
        inventory = {"method": "configuration", "R": render_set(ResourceSet(records, tree=graph))}
        self.say(["resource-define", "resource", T0, inventory])
        for rank in range(nodes):
            self.hello(rank)
        if config:
            self.configure(config)
        self.worker = self.new_worker()
        self.turn(Lead(True))
        self.next = 1

    def listen(self) -> list[str]:
        """What the worker says from now on."""
        said: list[str] = []
        step = self.worker.step

        def listening(*args: Any) -> Any:
            outputs = step(*args)
            said.extend(output.text for output in outputs if isinstance(output, Note))
            return outputs

        self.worker.step = listening  # type: ignore[method-assign]
        return said

    def new_worker(self, name: str = "worker-0") -> Worker:
        return Worker(self.store.meta(), self.journal.load(), Fcfs(), name)

    def lead(self) -> None:
        """A worker that has just been made plans from now on, as its process would have it."""
        self.journal.meta = self.store.meta()
        self.turn(Reopened(self.journal.meta), Lead(True))

    @property
    def state(self) -> Any:
        return self.worker.state

    def say(self, *events: list[Any]) -> int:
        answer = self.journal.append(Decision(list(events)), 0)
        assert isinstance(answer, Appended)
        return answer.version

    def do(self, decision: Decision) -> None:
        assert isinstance(self.journal.append(decision, self.store.meta().version), Appended)

    def configure(self, document: dict[str, Any]) -> None:
        self.do(decide_config.load(self.journal.load(), document, "", 1, self.now))

    def hello(self, rank: int, held: list[str] | None = None, cursor: int | None = None) -> None:
        meta = self.store.meta()
        cursor = meta.version if cursor is None else cursor
        context = {"rank": rank, "host": f"n{rank}", "boot": "b", "spool": "s", "epoch": meta.epoch,
                   "cursor": f"{cursor}-{meta.epoch}", "held": held or []}  # fmt: skip
        decision = Decision([["hello", f"node/{rank}", self.now, context]], bumps=[f"node/{rank}"])
        assert isinstance(self.journal.append(decision, 0), Appended)

    def turn(self, *inputs: Input, seconds: float = 0.0) -> None:
        """As the runner does it: step, append, and again until nothing more follows."""
        self.now += seconds
        pending: list[Input] = [*inputs]
        for _ in range(50):
            entries = self.store.read(self.state.version)
            outputs = self.worker.step(self.now, [*pending, Entries(entries)])
            pending = []
            for output in outputs:
                if isinstance(output, Write):
                    answer = self.store.append(output.request)
                    pending.append(Answered(output.request, answer))
                    if not isinstance(answer, Appended | Conflicted | Gap):
                        pending.append(Reopened(self.store.meta()))
                elif isinstance(output, Lookup):
                    pending.append(Found(output.ids, self.journal.find_jobs(self.state, output.ids)))
            again = any(isinstance(one, WakeAt) and one.time <= self.now for one in outputs)
            if not pending and not again and self.state.version == self.store.meta().version:
                return
        raise AssertionError("it never comes to rest")

    def submit(self, spec: dict[str, Any] | None = None, urgency: int = 16, user: int = 1, turn: bool = True) -> int:
        """Append a submit, as anybody may: without the config's defaults, whatever its limits."""
        id, self.next = self.next, self.next + 1
        (mark,) = self.store.bumps(["config"])
        self.do(decide.submit([(id, spec or jobspec())], "", urgency, user, 0, self.now, mark))
        if turn:
            self.turn()
        return id

    def job(self, id: int) -> Job:
        job: Job = self.state.jobs[id]
        return job

    def report(self, rank: int, **rows: list[Any]) -> None:
        self.now += 0.01
        self.say(["report", f"node/{rank}", self.now, {"rank": rank, **rows}])

    def started(self, *ids: int) -> None:
        for id in ids:
            for rank in self.job(id).ranks:
                self.report(rank, start=[[id, self.job(id).attempt, self.now]])
        self.turn()

    def over(self, id: int, status: int = 0, cause: str = "", following: int = 0, rank: int | None = None) -> None:
        job = self.job(id)
        for one in job.ranks if rank is None else [rank]:
            began = job.started.get(one, self.now)
            self.report(one, over=[[id, job.attempt, began, self.now + 0.001, status, cause, following]])

    def names(self, id: int) -> list[str]:
        return [event[0] for commit in self.commits() for event in commit.events if event[1] == id]

    def commits(self) -> list[Commit]:
        return list(self.journal.commits())

    def orders(self, rank: int) -> list[list[Any]]:
        found = self.store.messages(self.store.keys.inbox(f"node/{rank}"))
        return [[order[0], *(order[1:] if order[0] != "launch" else [order[1]["job"], order[1]["queued"]])]
                for message in found for order in unpack(message.data)]  # fmt: skip

    def busy(self) -> None:
        """One job has run quickly, so that grants ahead are measured out; then both cores of both nodes are taken."""
        first = self.submit()
        self.report(0, over=[[first, self.job(first).attempt, self.now - 0.06, self.now, 0, "", 0]])
        self.turn()
        assert self.job(first).state == INACTIVE
        self.held = [self.submit() for _ in range(4)]
        assert all(self.job(id).state == RUN for id in self.held)

    def granted(self) -> int:
        id = self.submit()
        assert self.job(id).granted is not None
        return id
