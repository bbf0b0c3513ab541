"""The simulator with named queues: overlapping, virtual, limited; jobs of several users that are changed while they wait.

`QueueRules` judges the journal alone: who may be placed where, and when.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mini_sim import RUNS, T0, Sim, jobspec

from fluxkv.journal import decide, decide_config, decide_update
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import compose
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit

HOSTS = {"a": {0, 1}, "b": {1, 2, 3}, "v": {1, 2, 3}, "c": {0, 1, 2, 3}}
RUNNING, ACTIVE, ALL = 2, 7, 5  # of a user: running in queue c; active in queue a; running anywhere
CONFIG: dict[str, Any] = {
    "queues": {
        "a": {"hosts": "n[0-1]", "policy": {"limits": {"max-active-jobs-per-user": ACTIVE}}},
        "b": {"hosts": "n[1-3]"},
        "v": {"parent": "b"},
        "c": {"policy": {"limits": {"max-running-jobs-per-user": RUNNING}}},
    },
    "policy": {"jobspec": {"defaults": {"system": {"queue": "b", "duration": "1h"}}}, "limits": {"max-running-jobs-per-user": ALL}},
}
LESS = {**CONFIG, "queues": {name: table for name, table in CONFIG["queues"].items() if name != "a"}}
USERS = (1, 2, 0)


class QueueSim(Sim):
    """A seed with queues."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, config=CONFIG)

    def _submit(self) -> None:
        jobs = []
        cores, nodes, slots = self.rng.choice(((1, 0, 1), (1, 0, 1), (1, 0, 1), (2, 0, 1), (2, 2, 1), (4, 1, 1)))
        queue = self.rng.choice(("a", "b", "v", "c", "c", "", "none"))
        for _ in range(self.rng.choice((1, 2, 6))):
            id = compose(1 + len(self.ids), 0, 0)
            self.ids.append(id)
            self.runs[id] = (self.rng.choice(RUNS), self.rng.choice((0, 0, 256)))
            jobs.append((id, jobspec(cores, nodes, slots, 0.0, queue)))
        urgency, user = self.rng.choice((16, 16, 16, 20, 0)), self.rng.choice(USERS)
        honest = self.rng.random() < 0.7  # else: appended by somebody who asked nobody

        def decision(state: State) -> Decision:
            mark = state.config_entry[2] if state.config_entry else 0
            made = [(id, state.rules.honour(spec)) for id, spec in jobs] if honest else jobs
            return decide.submit(made, "", urgency, user, 0, self.now, mark)

        self._say(decision)

    def _signal(self) -> None:
        self._queue()

    def _queue(self) -> None:
        """Stop and start one; or take a queue away, and bring it back."""
        if self.rng.random() < 0.3:
            document = self.rng.choice((CONFIG, CONFIG, LESS))
            self._say(lambda state: decide_config.load(state, document, "", 1, self.now))
            return
        name, verb = self.rng.choice(tuple(HOSTS)), self.rng.choice(("stop", "start", "start"))
        self._say(lambda state: decide.change_queue(name, verb, "x", self.now))

    def _urgency(self) -> None:
        """Change a job: urgency, queue, duration; hold and release it."""
        id, luck = self._some_job(), self.rng.random()
        if luck < 0.3:
            return super()._urgency()
        texts = [self.rng.choice(("queue=a", "queue=b", "queue=c", "duration=+1m", "duration=2h", "name=new"))]
        changes = [decide_update.parse_change(text) for text in texts]

        def decision(state: State) -> Decision:
            job = state.jobs.get(id)
            if job is None:
                return Decision([])
            if luck < 0.45:
                return decide_update.hold(job, 1, self.now)
            if luck < 0.6:
                return decide_update.release(job, 1, self.now)
            if decide_update.wait_for_node(job):
                return decide_update.recall(job, self.now)
            return decide_update.update(state, job, changes, 1, self.now)

        return self._say(decision)

    def _settle(self) -> None:
        self._open_epoch()
        self.cli.catch_up(self.view)  # what is asked for may look done in an old view
        self._say(lambda state: decide_config.load(state, CONFIG, "", 1, self.now))
        for name in HOSTS:
            self._say(lambda state, name=name: decide.change_queue(name, "start", "", self.now))
        super()._settle()


class QueueRules:
    """Feed commits in order. wrong: (version, job, what). counts: how often each rule had something to say."""

    def __init__(self) -> None:
        self.wrong: list[tuple[int, int, str]] = []
        self.counts = dict.fromkeys(("placed", "limited", "moved", "defaulted", "refused"), 0)
        self.queue: dict[int, str] = {}
        self.user: dict[int, int] = {}
        self.stopped: set[str] = set()
        self.there = set(HOSTS)
        self.running: dict[int, set[int]] = {}  # user -> jobs that hold something
        self.active: dict[int, set[int]] = {}  # user -> jobs of queue a that were taken in
        self.taken_in: set[int] = set()

    def commits(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            for name, subject, _, context in commit.events:
                if isinstance(subject, int):
                    self._job(commit.version, name, subject, context or {})
                elif name in ("queue-stop", "queue-start") and subject[6:] in self.there:  # else it came too late
                    (self.stopped.add if name == "queue-stop" else self.stopped.discard)(subject[6:])
                elif name == "config":
                    self.there = set(context["config"]["queues"])
                    self.stopped &= self.there

    def _job(self, version: int, name: str, id: int, context: dict[str, Any]) -> None:
        if name == "submit":
            self.queue[id] = context["jobspec"]["attributes"]["system"].get("queue", "")
            self.user[id] = context["userid"]
        queue, user = self.queue[id], self.user[id]
        if name == "jobspec-update":
            before, self.queue[id] = queue, context.get("attributes.system.queue", queue)
            self.counts["defaulted" if not before else "moved"] += before != self.queue[id]
            if id in self.taken_in:
                self._leave_a(id)
                self._enter_a(version, id)
        elif name == "validate":
            self.taken_in.add(id)
            self._enter_a(version, id)
        elif name == "exception" and context["type"] == "validate":
            self._leave_a(id)  # it was refused in the same breath
            self.counts["refused"] += 1
        elif name in ("alloc", "grant"):
            self._placed(version, id, name, context)
        elif name in ("free", "clean"):
            self.running.get(user, set()).discard(id)
            if name == "clean":
                self._leave_a(id)
                self.taken_in.discard(id)

    def _placed(self, version: int, id: int, name: str, context: dict[str, Any]) -> None:
        queue, user = self.queue[id], self.user[id]
        self.counts["placed"] += 1
        ranks = {claim[0] for claim in context["claims"]} if name == "alloc" else {context["rank"]}
        if not ranks <= HOSTS.get(queue, set()):
            self._fault(version, id, f"{name} of a job in queue {queue or 'none'} on ranks {ranks}")
        parents = {queue, "b"} if queue == "v" else {queue}
        if not context.get("via") and (parents & self.stopped or not parents <= self.there):
            self._fault(version, id, f"{name} though queue {queue} is stopped, or gone")
        if name == "alloc":
            mine = self.running.setdefault(user, set())
            mine.add(id)
            in_c = sum(self.queue[one] == "c" for one in mine)
            if in_c > RUNNING or len(mine) > ALL:
                self._fault(version, id, f"user {user} has {in_c} running jobs in c, {len(mine)} in all")
            self.counts["limited"] += in_c == RUNNING or len(mine) == ALL

    def _enter_a(self, version: int, id: int) -> None:
        if self.queue[id] == "a":
            mine = self.active.setdefault(self.user[id], set())
            mine.add(id)

    def _leave_a(self, id: int) -> None:
        for mine in self.active.values():
            mine.discard(id)

    def check_active(self, commits: Iterable[Commit]) -> None:
        """After each commit, no user has too many active jobs in queue a."""
        for commit in commits:
            self.commits([commit])
            for user, mine in self.active.items():
                if len(mine) > ACTIVE:
                    self._fault(commit.version, max(mine), f"user {user} has {len(mine)} active jobs in a")

    def _fault(self, version: int, job: int, what: str) -> None:
        self.wrong.append((version, job, what))


__all__ = ["T0", "QueueRules", "QueueSim"]
