"""The fold: all of an instance's state, made only by `apply`. Pure; the same lines live, at restart and in replay.

Decides nothing. An event that cannot follow sets its subject aside (`quarantine`); an unknown one is skipped and counted.
The digest is the sum modulo 2**128 of a hash of each subject's value; a commit re-hashes only what it touched.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Corrupt, Rejected
from ..kvs.hashes import blake2b
from ..kvs.namespaces import PRIMARY, Namespaces
from ..kvs.tree import Tree
from . import fold_alloc, fold_jobs, fold_words
from .blocks import Block, LazyJobs
from .config import DEFAULT, Rules
from .cron import CronTable
from .job import ACTIVE, INACTIVE, NEW, RESULT_ORDER, Job, Result, job_value
from .keeping import Keeping
from .node import Node, Queue
from .quarantine import ANYWHERE, PLACE, Impossible, Quarantine, entry_word
from .subjects import subjects, word_value
from .unreadable import Hole
from .unreadable import subject as entry_subject
from .usage import Usage
from .wire import LATEST, Commit, pack, unpack

if TYPE_CHECKING:
    from .resource_graph import ResourceGraph

MASK = (1 << 128) - 1
# What a snapshot stores as it is, beside version, epoch, time, nodes, queues, user KVS and jobs.
PLAIN = ("instance", "R", "expiration", "retired", "retirements", "results", "events", "skipped")
# What a handler meets in an event that somebody wrote by hand: fields missing, or of another kind.
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, Rejected)


class State:
    """version/epoch/tail/time: of the last commit applied (tail: its payload's hash). jobs: every job not retired. nodes: by rank.

    attention: ids of jobs touched since the owner last emptied it. said_hello: ranks whose agent has spoken,
    until the owner takes them. counts: jobs by state. skipped: events of unknown name or subject, or malformed.
    quarantine: what impossible events have set aside. holes: versions that this fold went past without reading, as an operator
    has said; misread: one that was set aside after this very fold had read it, 0 for none.
    retired: jobs that left by a `retire` event; retirements: one line each such event (`retired.index_line`).
    R: the last inventory, without its graph, which is in graph; drawn: vertex' path -> [units, ids] that claims draw (`holding`).
    config_entry: [document, source, version of its event], None as long as there is none; rules: what it says about jobs;
    usage: jobs per user, None unless the rules limit them.
    results: queue -> how many of its jobs ever ended completed, failed, canceled, by timeout (the retired ones too).
    packed: inactive jobs as a snapshot has them; fresh: those that are not there, or changed since. partial: read for
    looking, its inactive jobs are unpacked when asked for (`snapshot.load`).
    """

    def __init__(self) -> None:
        self.version = 0
        self.epoch = 0
        self.tail = b""
        self.time = 0.0
        self.jobs: dict[int, Job] = {}
        self.nodes: dict[int, Node] = {}
        self.queues: dict[str, Queue] = {DEFAULT: Queue(DEFAULT)}
        self.config_entry: list[Any] | None = None
        self.rules = Rules()
        self.usage: Usage | None = None
        self.kvs_packed: list[bytes] = []  # of a snapshot, until somebody asks for the KVS
        self._kvs = Namespaces()
        self.cron = CronTable()
        self.keeping: dict[int, Keeping] = {}
        self.keeping_news: dict[int, None] = {}
        self.quarantine = Quarantine()
        self.holes: set[int] = set()
        self.misread = 0
        self.instance: dict[str, Any] = {}
        self.R: dict[str, Any] | None = None
        self.graph: ResourceGraph | None = None
        self.drawn: dict[str, list[int]] = {}
        self.drawn_news: set[str] = set()  # paths of which more or less is drawn, until the owner has seen to it
        self.expiration = 0.0
        self.retired = 0
        self.retirements: list[list[Any]] = []
        self.results: dict[str, list[int]] = {}
        self.events = 0
        self.settled = 0  # `folded` of the snapshot that this was loaded from
        self.skipped = 0
        self.counts: dict[int, int] = {}
        self.attention: dict[int, None] = {}  # in the order of the journal
        self.said_hello: dict[int, bool] = {}  # whether its host has been rebooted
        self.said_claims: dict[int, dict[str, list[Any]]] = {}  # by the hellos folded here: rank -> attempt -> what it holds
        self.said_current: dict[int, set[str]] = {}  # of what a hello listed, what was an attempt of its job then
        self.dirty_jobs: set[int] = set()
        self.dirty_words: set[int | str] = {"instance", "queue/default", "retired", "results"}
        self.node_news: set[int] = set()  # ranks of nodes hashed since they changed, until the owner has seen to them
        self._sum = 0
        self.packed: list[Block] = []
        self.fresh: dict[int, None] = {}
        self.partial = False
        self._word_hash: dict[int | str, int] = {}

    @property
    def folded(self) -> int:
        """Events folded; of the user's KVS each operation counts, as folding it costs as much."""
        return self.events + self.kvs.operations

    # -- applying -------------------------------------------------------------------------------------------------

    def apply(self, commit: Commit) -> None:
        """Apply one commit; its version must be the next one, else `Corrupt`."""
        version = commit.version
        if version != self.version + 1:
            raise Corrupt(f"version {version} follows version {self.version}: history has a gap", code="version-gap")
        if commit.epoch != self.epoch and self.epoch:
            self._leave_epoch(commit.epoch)
        self.version, self.epoch, self.tail, self.time = version, commit.epoch, commit.digest, commit.time or self.time
        if commit.__class__ is Hole:
            self.holes.add(version)
        jobs, dirty, attention = self.jobs, self.dirty_jobs, self.attention
        handlers = fold_jobs.HANDLERS
        place = PLACE.get
        empty: dict[str, Any] = {}
        index = 0
        for event in commit.events:
            index += 1
            try:
                name, subject, ts, context = event
                if not 0.0 <= ts <= LATEST:
                    raise ValueError("no time")
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
                        raise Impossible("again")
                    elif job.state == INACTIVE:
                        self.fresh[subject] = None
                    dirty.add(subject)
                    attention[subject] = None
                    commits = job.commits
                    if not commits or commits[-1] != version:
                        commits.append(version)
                    handler = handlers.get(name)
                    if not job.state & place(name, ANYWHERE):
                        raise fold_alloc.misplaced(job, name, context or empty, f"{version}-{commit.epoch}")
                    if handler is not None:
                        handler(self, job, ts, context or empty, version)
                else:
                    say = fold_words.HANDLERS.get(name)
                    if say is None:
                        self.skipped += 1
                    else:
                        say(self, subject, ts, context or empty, version)
            except MALFORMED:  # what one client wrote badly by hand stops nobody: every fold skips the same
                self.skipped += 1
            except Impossible as why:  # well-formed, and contradicts what is: nothing of it happens
                if subject.__class__ is int or subject.__class__ is str:
                    self._set_aside(subject, index, name, why)
                else:
                    self.skipped += 1
        self.events += index
        if self.cron:
            self.cron.observe(commit)

    def _set_aside(self, subject: int | str, index: int, name: str, why: Impossible) -> None:
        why.doubt = [rank for rank in why.doubt if rank in self.nodes]
        self.quarantine.put(subject, self.version, index, name, why)
        self.dirty_words.add("quarantine")
        if subject in self.quarantine.table:
            self.dirty_words.add(entry_word(subject))
        job = self.jobs.get(subject) if isinstance(subject, int) else None
        if job is not None:
            self.touch(job, self.version)

    def set_entry_aside(self, version: int) -> None:
        """An operator has set this entry aside, as it cannot be read."""
        if not 0 < version < self.version:
            raise ValueError("no entry before this one")
        if self.quarantine.put_entry(entry_subject(version), version, self.version):
            self.dirty_words.update(("quarantine", entry_word(entry_subject(version))))
        if version not in self.holes:
            self.misread = version

    def answered(self, subject: int | str) -> None:
        """A worker has said that it is set aside."""
        if self.quarantine.answered(subject, self.version):
            self.dirty_words.add(entry_word(subject))

    def _leave_epoch(self, new: int) -> None:
        """History may have forked: no node is used before its agent has said what it holds (HAZARD 2)."""
        for node in self.nodes.values():
            if node.online and (node.hello is None or node.hello[2] != new):
                node.online = False
                self.dirty_words.add(node.rank)

    def touch(self, job: Job, version: int) -> None:
        """Note that an event about another subject changed this job."""
        self.dirty_jobs.add(job.id)
        if job.state == INACTIVE:
            self.fresh[job.id] = None
        self.attention[job.id] = None
        if job.commits[-1] != version:
            job.commits.append(version)

    def move(self, job: Job, state: int) -> None:
        """Change a job's state and the counts."""
        counts = self.counts
        counts[job.state] -= 1
        counts[state] = counts.get(state, 0) + 1
        if self.usage is not None and (state == INACTIVE or job.state == NEW):
            self.usage.count_active(job, -1 if state == INACTIVE else 1)
        job.state = state
        if state == INACTIVE:
            self.fresh[job.id] = None

    def end(self, job: Job) -> None:
        """A job is over: count its result."""
        self.move(job, INACTIVE)
        if job.queue not in self.results:
            self.results[job.queue] = [0] * len(Result)
        self.results[job.queue][RESULT_ORDER.index(job.result or Result.FAILED)] += 1
        self.dirty_words.add("results")

    def forget(self, job: Job) -> None:
        """Take a job out of the state (invalidated or retired). Its id stays used: the journal has it."""
        self.counts[job.state] -= 1
        self._sum = (self._sum - job.hash) & MASK
        self.dirty_jobs.discard(job.id)
        self.attention.pop(job.id, None)
        self.fresh.pop(job.id, None)
        if job.id in self.quarantine.table:
            self._not_aside(job.id)
        del self.jobs[job.id]

    def leave(self, ids: list[int]) -> dict[int, float]:
        """Take those of these jobs that are inactive out of the state: id -> when it ended."""
        jobs = self.jobs
        lazy = jobs if isinstance(jobs, LazyJobs) else None
        ended: dict[int, float] = {}
        for id in ids:
            t = lazy.leave(id) if lazy is not None else None
            if t is not None:
                self.counts[INACTIVE] -= 1
                if id in self.quarantine.table:
                    self._not_aside(id)
            else:
                job = jobs.get(id)
                if job is None or job.state != INACTIVE:
                    continue
                t = job.t_inactive
                self.forget(job)
            ended[id] = t
        return ended

    def _not_aside(self, id: int) -> None:
        """A job that was set aside has left the state; the journal has its story."""
        del self.quarantine.table[id]
        self.quarantine.news.pop(id, None)
        self.drop_word(entry_word(id))

    def drop_node(self, rank: int) -> None:
        """Take a node out of the inventory."""
        self.drop_word(rank)
        del self.nodes[rank]

    def set_graph(self, graph: ResourceGraph | None) -> None:
        """Another graph, or none, takes its place."""
        if graph is None and self.graph is not None:
            self.drop_word("graph")
        elif graph is not None:
            self.dirty_words.add("graph")
        self.graph = graph

    def drop_word(self, word: int | str) -> None:
        """A subject that is not a job is gone: the digest forgets it."""
        self._sum = (self._sum - self._word_hash.pop(word, 0)) & MASK
        self.dirty_words.discard(word)

    @property
    def kvs(self) -> Namespaces:
        """The user's KVS, unpacked when it is asked for: who lists jobs need not pay for a hundred thousand keys."""
        if self.kvs_packed:
            packed, self.kvs_packed = self.kvs_packed, []
            for record in packed:
                self._kvs.load(unpack(zlib.decompress(record)))
        return self._kvs

    @property
    def tree(self) -> Tree:
        """The primary namespace of the user's KVS."""
        return self.kvs.trees[PRIMARY]

    # -- views ----------------------------------------------------------------------------------------------------

    def active(self) -> Iterator[Job]:
        """Jobs that are not inactive, in order of submission."""
        jobs = self.jobs
        values = jobs.unpacked() if isinstance(jobs, LazyJobs) else jobs.values()
        return (job for job in values if job.state != INACTIVE)

    def count(self, mask: int) -> int:
        """Number of jobs whose state is in the mask."""
        return sum(number for state, number in self.counts.items() if state & mask)

    def may_start(self, queue: str) -> bool:
        """Whether jobs of this queue may be allocated: it (and its parent) is started, the instance is not being stopped."""
        found = self.queues.get(queue)
        if found is None or not found.started or self.instance.get("stopping"):
            return False
        rules = self.rules.queues.get(queue)
        return rules is None or not rules.parent or self.queues[rules.parent].started

    @property
    def config(self) -> dict[str, Any]:
        """The config document, {} if the instance has none."""
        document: dict[str, Any] = self.config_entry[0] if self.config_entry is not None else {}
        return document

    @property
    def config_source(self) -> str:
        """The file the config came from, "" if from none."""
        return str(self.config_entry[1]) if self.config_entry is not None else ""

    def ended(self, queue: str = "") -> dict[Result, int]:
        """How many jobs (of one queue) ever ended with which result."""
        rows = [row for name, row in self.results.items() if not queue or name == queue]
        return {result: sum(row[at] for row in rows) for at, result in enumerate(RESULT_ORDER)}

    @property
    def idle(self) -> bool:
        """No active job."""
        return self.count(ACTIVE | NEW) == 0

    # -- digest ---------------------------------------------------------------------------------------------------

    def digest(self) -> bytes:
        """16 bytes that stand for the whole state (all subjects' values), independent of history and snapshots."""
        jobs = self.jobs
        if self.partial:
            self.dirty_jobs.update(jobs)
            self.partial = False
        total = self._sum
        for id in self.dirty_jobs:
            job = jobs[id]
            value = int.from_bytes(blake2b(pack(job_value(job)), digest_size=16).digest(), "big")
            total += value - job.hash
            job.hash = value
        self.dirty_jobs.clear()
        hashes = self._word_hash
        if self.cron.dirty or self.cron.changed:
            total -= self._take_cron()
        for word in self.dirty_words:
            value = int.from_bytes(blake2b(pack(word_value(self, word)), digest_size=16).digest(), "big")
            total += value - hashes.get(word, 0)
            hashes[word] = value
        self.node_news.update(word for word in self.dirty_words if isinstance(word, int))
        self.dirty_words.clear()
        self._sum = total & MASK
        return ((self._sum + self.kvs.hash) & MASK).to_bytes(16, "big")

    def changed_nodes(self) -> list[int]:
        """Ranks of nodes that have changed since the owner asked last, or since the last digest: whoever plans looks at them."""
        ranks = {*self.node_news, *(word for word in self.dirty_words if isinstance(word, int))}
        self.node_news.clear()
        return sorted(ranks)

    def _take_cron(self) -> int:
        """Note what has changed in the cron table as dirty; the sum of the hashes of entries that are gone."""
        cron, gone = self.cron, 0
        for id in cron.dirty:
            if id in cron.entries:
                self.dirty_words.add(f"cron/{id}")
            else:
                gone += self._word_hash.pop(f"cron/{id}", 0)
        if cron.changed:
            self.dirty_words.add("cron")
        cron.dirty.clear()
        cron.changed = False
        return gone

    def subjects(self) -> dict[str, Any]:
        """Every subject's plain value by name, for naming the first difference between two states."""
        return subjects(self)
