"""What a journal of a site with queues must obey, judged on its entries alone: who may be placed where, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fluxkv.journal.wire import Commit

from .sites import ACTIVE, ALL, QUEUE_HOSTS, RUNNING


class QueueRules:
    """Feed commits in order. wrong: (version, job, what). counts: how often each rule had something to say."""

    def __init__(self) -> None:
        self.wrong: list[tuple[int, int, str]] = []
        self.counts = dict.fromkeys(("placed", "limited", "moved", "defaulted", "refused"), 0)
        self.queue: dict[int, str] = {}
        self.user: dict[int, int] = {}
        self.stopped: set[str] = set()
        self.there = set(QUEUE_HOSTS)
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
        elif name == "clean" or (name == "free" and not (context or {}).get("ranks")):
            self.running.get(user, set()).discard(id)
            if name == "clean":
                self._leave_a(id)
                self.taken_in.discard(id)

    def _placed(self, version: int, id: int, name: str, context: dict[str, Any]) -> None:
        queue, user = self.queue[id], self.user[id]
        self.counts["placed"] += 1
        ranks = {claim[0] for claim in context["claims"]} if name == "alloc" else {context["rank"]}
        if not ranks <= QUEUE_HOSTS.get(queue, set()):
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
