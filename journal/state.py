"""The fold: all of an instance's state, made only by `apply`. Pure; the same lines live, at restart and in replay.

Decides nothing. An event that cannot follow raises `Impossible`; an unknown one is skipped and counted. The digest is
the sum modulo 2**128 of a hash of each subject's value; a commit re-hashes only what it touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from ..kvs.errors import Corrupt, Rejected
from ..kvs.tree import Tree
from . import fold_config, fold_jobs, fold_words
from .catalogue import SCHEMA
from .config import DEFAULT, Rules
from .job import ACTIVE, INACTIVE, NEW, Job, dump_job, job_value, load_job
from .node import Node, Queue
from .wire import Commit, pack, unpack

MASK = (1 << 128) - 1
# What a handler meets in an event that somebody wrote by hand: fields missing, or of another kind.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, Rejected)


class State:
    """version/epoch/time: of the last commit applied. jobs: every job not retired. nodes: by rank.

    attention: ids of jobs touched since the owner last emptied it. said_hello: ranks whose agent has spoken,
    until the owner takes them. counts: jobs by state. skipped: events of unknown name or subject, or malformed.
    retired: jobs that left by a `retire` event; retirements: one line each such event (`retired.index_line`).
    config_entry: [document, source, version of its event], None as long as there is none; rules: what it says about jobs.
    """

    def __init__(self) -> None:
        self.version = 0
        self.epoch = 0
        self.time = 0.0
        self.jobs: dict[int, Job] = {}
        self.nodes: dict[int, Node] = {}
        self.queues: dict[str, Queue] = {DEFAULT: Queue(DEFAULT)}
        self.config_entry: list[Any] | None = None
        self.rules = Rules()
        self.tree = Tree()
        self.instance: dict[str, Any] = {}
        self.R: dict[str, Any] | None = None
        self.expiration = 0.0
        self.retired = 0
        self.retirements: list[list[Any]] = []
        self.events = 0
        self.skipped = 0
        self.counts: dict[int, int] = {}
        self.attention: dict[int, None] = {}  # in the order of the journal
        self.said_hello: dict[int, None] = {}
        self.dirty_jobs: set[int] = set()
        self.dirty_words: set[int | str] = {"instance", "queue/default", "retired"}
        self._sum = 0
        self._packed: dict[int, bytes] = {}  # snapshot records of inactive jobs
        self._word_hash: dict[int | str, int] = {}

    # -- applying -------------------------------------------------------------------------------------------------

    def apply(self, commit: Commit) -> None:
        """Apply one commit; its version must be the next one, else `Corrupt`."""
        version = commit.version
        if version != self.version + 1:
            raise Corrupt(f"version {version} follows version {self.version}: history has a gap", code="version-gap")
        if commit.epoch != self.epoch and self.epoch:
            self._leave_epoch(commit.epoch)
        self.version, self.epoch, self.time = version, commit.epoch, commit.time
        jobs, dirty, attention = self.jobs, self.dirty_jobs, self.attention
        handlers = fold_jobs.HANDLERS
        empty: dict[str, Any] = {}
        index = 0
        for event in commit.events:
            index += 1
            try:
                name, subject, ts, context = event
                if subject.__class__ is int:
                    job = jobs.get(subject)
                    if job is None:
                        if name != "submit":
                            self.skipped += 1
                            continue
                        job = jobs[subject] = Job(subject)
                        job.order = version << 24 | index
                        self.counts[NEW] = self.counts.get(NEW, 0) + 1
                    elif name == "submit":
                        raise fold_jobs.Impossible(f"job {subject}: submitted again in version {version}")
                    elif job.state == INACTIVE:
                        self._packed.pop(subject, None)
                    dirty.add(subject)
                    attention[subject] = None
                    commits = job.commits
                    if not commits or commits[-1] != version:
                        commits.append(version)
                    handler = handlers.get(name)
                    if handler is not None:
                        handler(self, job, ts, context or empty, version)
                else:
                    word = fold_words.HANDLERS.get(name)
                    if word is None:
                        self.skipped += 1
                    else:
                        word(self, subject, ts, context or empty, version)
            except MALFORMED:  # what one client wrote badly by hand stops nobody: every fold skips the same
                self.skipped += 1
        self.events += index

    def _leave_epoch(self, new: int) -> None:
        """History may have forked: no node is used before its agent has said what it holds (HAZARD 2)."""
        for node in self.nodes.values():
            if node.online and (node.hello is None or node.hello[2] != new):
                node.online = False
                self.dirty_words.add(node.rank)

    def touch(self, job: Job, version: int) -> None:
        """Note that an event about another subject changed this job."""
        self.dirty_jobs.add(job.id)
        self._packed.pop(job.id, None)
        self.attention[job.id] = None
        if job.commits[-1] != version:
            job.commits.append(version)

    def move(self, job: Job, state: int) -> None:
        """Change a job's state and the counts."""
        counts = self.counts
        counts[job.state] -= 1
        counts[state] = counts.get(state, 0) + 1
        job.state = state

    def forget(self, job: Job) -> None:
        """Take a job out of the state (invalidated or retired). Its id stays used: the journal has it."""
        self.counts[job.state] -= 1
        self._sum = (self._sum - job.hash) & MASK
        self.dirty_jobs.discard(job.id)
        self.attention.pop(job.id, None)
        self._packed.pop(job.id, None)
        del self.jobs[job.id]

    def drop_node(self, rank: int) -> None:
        """Take a node out of the inventory."""
        self.drop_word(rank)
        del self.nodes[rank]

    def drop_word(self, word: int | str) -> None:
        """A subject that is not a job is gone: the digest forgets it."""
        self._sum = (self._sum - self._word_hash.pop(word, 0)) & MASK
        self.dirty_words.discard(word)

    # -- views ----------------------------------------------------------------------------------------------------

    def active(self) -> Iterator[Job]:
        """Jobs that are not inactive, in order of submission."""
        return (job for job in self.jobs.values() if job.state != INACTIVE)

    def count(self, mask: int) -> int:
        """Number of jobs whose state is in the mask."""
        return sum(number for state, number in self.counts.items() if state & mask)

    def may_start(self, queue: str) -> bool:
        """Whether jobs of this queue may be allocated: it is started, and the instance is not being stopped."""
        found = self.queues.get(queue)
        return found is not None and found.started and not self.instance.get("stopping")

    @property
    def config(self) -> dict[str, Any]:
        """The config document, {} if the instance has none."""
        document: dict[str, Any] = self.config_entry[0] if self.config_entry is not None else {}
        return document

    @property
    def config_source(self) -> str:
        """The file the config came from, "" if from none."""
        return str(self.config_entry[1]) if self.config_entry is not None else ""

    @property
    def idle(self) -> bool:
        """No active job."""
        return self.count(ACTIVE | NEW) == 0

    # -- digest ---------------------------------------------------------------------------------------------------

    def digest(self) -> bytes:
        """16 bytes that stand for the whole state (all subjects' values), independent of history and snapshots."""
        total = self._sum
        jobs = self.jobs
        for id in self.dirty_jobs:
            job = jobs[id]
            value = int.from_bytes(blake2b(pack(job_value(job)), digest_size=16).digest(), "big")
            total += value - job.hash
            job.hash = value
        self.dirty_jobs.clear()
        hashes = self._word_hash
        for word in self.dirty_words:
            value = int.from_bytes(blake2b(pack(self.word_value(word)), digest_size=16).digest(), "big")
            total += value - hashes.get(word, 0)
            hashes[word] = value
        self.dirty_words.clear()
        self._sum = total & MASK
        return ((self._sum + self.tree.hash) & MASK).to_bytes(16, "big")

    def word_value(self, word: int | str) -> Any:
        """Plain value of a subject that is not a job: a node (its rank), "queue/<name>", "config", "retired" or "instance"."""
        if word.__class__ is int:
            return self.nodes[word].value()
        if word == "config":
            return ["config", self.config_entry]
        if word == "instance":
            return ["instance", self.instance, self.expiration]
        if word == "retired":
            return ["retired", self.retired, self.retirements]
        return self.queues[str(word).partition("/")[2]].value()

    def subjects(self) -> dict[str, Any]:
        """Every subject's plain value by name, for naming the first difference between two states."""
        found: dict[str, Any] = {f"job/{id}": list(job_value(job)) for id, job in self.jobs.items()}
        found.update({f"node/{rank}": node.value() for rank, node in self.nodes.items()})
        found.update({f"queue/{name}": queue.value() for name, queue in self.queues.items()})
        found["instance"] = self.word_value("instance")
        found["retired"] = self.word_value("retired")
        if self.config_entry is not None:
            found["config"] = self.word_value("config")
        found.update({f"kvs/{key}": value for key, value in self.tree.leaves()})
        return found

    # -- snapshot -------------------------------------------------------------------------------------------------

    def dump(self) -> list[bytes]:
        """The state as a list of msgpack records: the first is the head, then jobs and nodes, one each."""
        digest = self.digest()
        head = {
            "schema": SCHEMA, "version": self.version, "epoch": self.epoch, "time": self.time, "digest": digest,
            "instance": self.instance, "R": self.R, "expiration": self.expiration, "retired": self.retired,
            "retirements": self.retirements, "events": self.events, "skipped": self.skipped, "tree": self.tree.dump(),
            "queues": [queue.value() for queue in self.queues.values()], "config": self.config_entry,
        }  # fmt: skip
        records = [pack(head)]
        records += [pack(["n", node.value()]) for node in self.nodes.values()]
        packed = self._packed
        for id, job in self.jobs.items():
            record = packed.get(id)
            if record is None:
                record = pack(["j", dump_job(job)])
                if job.state == INACTIVE:  # it hardly ever changes again
                    packed[id] = record
            records.append(record)
        return records

    @classmethod
    def load(cls, records: list[bytes]) -> State:
        """Inverse of `dump`. Raises `Corrupt` when the digest does not come out, or the schema is not known."""
        state = cls()
        head = unpack(records[0])
        if head["schema"] > SCHEMA:
            raise Corrupt(
                f"the snapshot has schema {head['schema']}, this program knows {SCHEMA}",
                code="newer-schema",
                hint="use a newer fluxkv",
            )
        state.version, state.epoch, state.time = head["version"], head["epoch"], head["time"]
        state.instance, state.R, state.expiration = head["instance"], head["R"], head["expiration"]
        state.retired, state.events, state.skipped = head["retired"], head["events"], head["skipped"]
        state.retirements = head["retirements"]
        state.tree = Tree.load(head["tree"])
        state.queues = {value[0]: Queue.from_value(value) for value in head["queues"]}
        fold_config.load(state, head.get("config"))
        for record in records[1:]:
            kind, value = unpack(record)
            if kind == "j":
                job = load_job(value)
                state.jobs[job.id] = job
                state.counts[job.state] = state.counts.get(job.state, 0) + 1
                state.dirty_jobs.add(job.id)
                if job.state != INACTIVE:
                    state.attention[job.id] = None
            else:
                node = Node.from_value(value)
                state.nodes[node.rank] = node
                state.dirty_words.add(node.rank)
        state.dirty_words.discard(f"queue/{DEFAULT}")
        state.dirty_words.update(f"queue/{name}" for name in state.queues)
        if state.digest() != head["digest"]:
            raise Corrupt(f"the snapshot of version {state.version} does not match its digest", code="bad-snapshot")
        return state
