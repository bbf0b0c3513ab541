"""Which nodes are silent, which are heard again, and which jobs of a silent node are known to be over. Pure; owned by the worker.

Heartbeats come by the telemetry stream, with the worker's own pulse among them. Time is counted by what is heard: from one message
to the next at most `GAP_S`. So an outage of the server, or a worker that stood still, makes nobody silent (HAZARD 25): while nobody
is heard, time does not go on. It counts from the node's last beat or hello, its coming into the inventory, the beginning of this
worker's lead, or the epoch's, the latest.

A node silent for `Rules.offline_after_s` goes offline, with an event. What runs there goes on, and nothing is known of it: its jobs
wait. Only those that ask for another attempt after a node failure are known to be over after twice the time their launcher lets
them live without the store (`spawning`, "fence"): they are `lost` then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..journal.derive import Group
from ..journal.derive_scripts import tasks_ordered
from ..journal.duration import format_duration
from ..journal.job import Job
from ..journal.node import STOPPED, Node
from ..journal.node_config import OFFLINE_AFTER_S
from ..journal.resizing import ordered_at
from ..journal.retry import fenced
from ..journal.state import State
from ..kvs.port import Message
from .beats import held_sum, read_beat
from .reactor import Messages

GAP_S = 4.0
GREET_AGAIN_S = 5.0


class NodeWatch:
    """heard: the clock, seconds. last: rank -> clock at its last beat."""

    def __init__(self) -> None:
        self.heard = 0.0
        self.since = 0.0  # the clock when counting began for all
        self.at_ms = 0
        self.last: dict[int, float] = {}
        self.came: dict[int, float] = {}  # rank -> the clock when it was first seen in the inventory
        self.last_ms: dict[int, int] = {}
        self.hellos: dict[int, object] = {}  # rank -> its last hello
        self.fence_s: dict[int, float] = {}
        self.greeted: dict[int, float] = {}
        self.odd: dict[int, tuple[int, int]] = {}  # rank -> (what it says it has, what it should have) where these differ
        self.asked: dict[int, tuple[int, int]] = {}  # of which it has been asked already
        self.missing: set[int] = set()  # ranks that are to be asked
        self.gone: set[int] = set()  # silent ranks of whose jobs all has been said
        self.news = False  # something to look at

    def begin(self) -> None:
        """A new leader, or a new epoch: count from now."""
        self.since = self.heard
        self.gone.clear()
        self.greeted.clear()

    def remember(self, messages: Iterable[Message]) -> None:
        """Beats from before we began: they move no clock, but say how long tasks live where nobody is heard any more."""
        for message in messages:
            beat = read_beat(message.data)
            if beat is not None:
                self.fence_s.update(dict.fromkeys(beat.ranks, beat.fence_s))
                self.last_ms.update(dict.fromkeys(beat.ranks, int(message.id.partition("-")[0])))

    def again(self) -> None:
        """What was owed has not been written: find it anew."""
        self.gone.clear()
        self.news = True

    def take(self, one: object, state: State) -> bool:
        """Whether an input is for us: it has been taken then."""
        if not isinstance(one, Messages):
            return False
        self.hear(one.messages, state)
        return True

    def hear(self, messages: list[Message], state: State) -> None:
        """Take beats."""
        for message in messages:
            at_ms = int(message.id.partition("-")[0])
            if self.at_ms:
                self.heard += min(max(0.0, (at_ms - self.at_ms) / 1000), GAP_S)
            self.at_ms = max(self.at_ms, at_ms)
            beat = read_beat(message.data)
            if beat is None:
                continue
            self.news = self.news or not beat.ranks
            for at, rank in enumerate(beat.ranks):
                self.last[rank], self.last_ms[rank] = self.heard, at_ms
                self.fence_s[rank] = beat.fence_s
                node = state.nodes.get(rank)
                if node is None:
                    continue
                if not node.online or (at < len(beat.held) and self._odd(state, node, beat.held[at])):
                    self.news = True

    def _odd(self, state: State, node: Node, said: int) -> bool:
        """Whether its attempts are twice in a row others than the journal's, and the same others: an order or a report was lost."""
        wanted = held_sum([state.jobs[id].key for id in node.jobs | node.grants if _expected(state.jobs[id], node.rank)])
        if said == wanted:
            self.odd.pop(node.rank, None)
            self.asked.pop(node.rank, None)
            self.missing.discard(node.rank)
            return False
        pair = (said, wanted)
        if again := self.odd.get(node.rank) == pair and self.asked.get(node.rank) != pair:
            self.missing.add(node.rank)
        self.odd[node.rank] = pair
        return again

    def silent_s(self, rank: int) -> float:
        """How long a node has not been heard."""
        return self.heard - max(self.last.get(rank, 0.0), self.came.get(rank, 0.0), self.since)

    def due(self, state: State, now: float) -> list[Group]:
        """What is owed to nodes now."""
        self.news = False
        limit = state.rules.offline_after_s
        groups: list[Group] = []
        self._look(state)
        for rank, node in state.nodes.items():
            if node.hello is not None and self.hellos.get(rank) is not node.hello:
                self.hellos[rank], self.last[rank] = node.hello, self.heard
            silent = self.silent_s(rank)
            if node.online:
                self.gone.discard(rank)
                if limit and silent > limit:
                    groups.append(self._offline(node, limit, silent, now))
                elif rank in self.missing:
                    self.missing.discard(rank)
                    self.asked[rank] = self.odd[rank]
                    groups.append(Group(to_nodes=[(rank, ["hello"])]))
            elif node.down is None:  # an epoch began, or its agent was given up: that it does not come back is missed all the same
                if limit and silent > limit and node.hello is not None:
                    groups.append(self._offline(node, limit, silent, now))
            else:
                back = self.last.get(rank, -1.0) > self.since and silent < GREET_AGAIN_S and node.down[1] != STOPPED
                if back and self._greets(rank):
                    groups.append(Group(to_nodes=[(rank, ["hello"])]))
                elif rank not in self.gone and node.down[2] and silent > 2 * node.down[2]:
                    self.gone.add(rank)
                    cause = f"node cut off: not heard for {format_duration(2 * node.down[2])}, its tasks have been ended there"
                    groups += [lost(state.jobs[id], rank, cause, now) for id in sorted(node.jobs | node.grants)
                               if fenced(state.jobs[id]) and _expected(state.jobs[id], rank)]  # fmt: skip
        return groups

    def _look(self, state: State) -> None:
        """Note who has come into the inventory, and forget who has left it."""
        if self.came.keys() != state.nodes.keys():
            first = self.heard if self.came else self.since
            self.came = {rank: self.came.get(rank, first) for rank in state.nodes}

    def _greets(self, rank: int) -> bool:
        last = self.greeted.get(rank)
        if last is not None and self.heard - last < GREET_AGAIN_S:
            return False
        self.greeted[rank] = self.heard
        return True

    def _offline(self, node: Node, limit: float, silent: float, now: float) -> Group:
        heard = self.last_ms.get(node.rank, 0) / 1000 or now - silent
        context: dict[str, Any] = {
            "idset": str(node.rank), "reason": f"no heartbeat for {format_duration(limit)}", "heard": heard,
            "fence": self.fence_s.get(node.rank, max(limit, OFFLINE_AFTER_S)),  # unknown: it was silent before we began
        }  # fmt: skip
        thing = f"node/{node.rank}"
        return Group([["offline", "resource", now, context]], [thing], [thing])


def lost(job: Job, rank: int, cause: str, now: float) -> Group:
    """On this rank the job's attempt is over."""
    thing = f"job/{job.id}"
    return Group([["lost", job.id, now, {"rank": rank, "cause": cause}]], [thing], [thing])


def _expected(job: Job, rank: int) -> bool:
    """Whether the node should have the attempt's tasks: it was told to start them, and has not said that they are over."""
    return rank not in job.over and bool(job.holds or job.granted is not None) and ordered_at(job, rank, tasks_ordered(job)) > 0
