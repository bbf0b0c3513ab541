"""Self-fencing: a launcher ends tasks that the rest of the instance may count as over, because nobody there has heard of this host.

Only attempts with a fence, of jobs that are to begin again elsewhere when their node is lost. The agent says when the store last
answered, on the boot-time clock, which goes on while the machine sleeps. After `fence_s` without such a word they are ended; the
worker counts them as over after twice that time (`node_watch`), so TERM has to give way to KILL well within the second half.
When the store answers again, what was ordered before that is not begun either: the order may have waited in the inbox meanwhile.
Nobody takes over the seat of what is ended so: it may have been given to somebody else already.
A launcher that does not run cannot end anything: a host that is stopped as a whole and goes on later ends them then, at once.
"""

from __future__ import annotations

from ..journal.duration import format_duration
from .spawning import Attempt
from .wire import Message

CUT_OFF = "lost: node cut off"


class Fence:
    """held: running attempts with a fence, by key."""

    __slots__ = ("_contact", "_fence_s", "_stale", "held")

    def __init__(self) -> None:
        self._contact = 0.0
        self._fence_s = 0.0  # 0: for ever, or nobody has said
        self._stale = 0  # version up to which what was ordered may have been given up
        self.held: dict[str, Attempt] = {}

    def alive(self, t_boot: float, fence_s: float, tip: int) -> None:
        """The store answered what was asked at this time. tip: the journal's version then; 0: this is no news."""
        if tip and (not self._contact or self.cut_off(t_boot) or tip < self._stale):
            self._stale = tip
        self._contact, self._fence_s = max(self._contact, t_boot), fence_s

    def at(self) -> float:
        """When what is held has to end."""
        return self._contact + self._fence_s if self._fence_s else float("inf")

    def cut_off(self, now: float) -> bool:
        """Whether it is too late to go on."""
        return now >= self.at()

    def bars(self, key: str, now: float, ordered: int = 0) -> bool:
        """Whether an attempt must not begin (any more). ordered: the version in which, if later than the attempt as a whole: of a
        node that came while its job ran."""
        return self.cut_off(now) or max(ordered, int(key.split(".")[1].partition("-")[0])) <= self._stale

    def hold(self, attempt: Attempt) -> None:
        self.held[attempt.key] = attempt

    def due(self, now: float) -> list[Attempt]:
        """What is to be ended now; it is not held any more. KILL follows TERM within a quarter of the time."""
        if not self.held or not self.cut_off(now):
            return []
        found = list(self.held.values())
        self.held.clear()
        for attempt in found:
            attempt.grace_s = min(attempt.grace_s, self._fence_s / 4)
        return found

    def cause(self) -> str:
        """Of the end of such an attempt."""
        return f"{CUT_OFF}: no word from the instance for {format_duration(self._fence_s)}, ended by its launcher"


class Contact:
    """What an agent tells its launcher of the store's answers: messages for `Fence.alive`.

    It remembers what a launcher does, too: one that dies after a silence and comes back would begin what was ordered before it.
    """

    __slots__ = ("_last", "_stale")

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._stale = 0

    def answered(self, t_boot: float, fence_s: float, tip: int) -> Message:
        """The store has answered what was asked at this time."""
        last = self._last
        if last is None or (last[1] and t_boot >= sum(last)) or tip < self._stale:
            self._stale = tip
        self._last = t_boot, fence_s
        return ["alive", t_boot, fence_s, tip]

    def again(self) -> list[Message]:
        """For a launcher that may be new."""
        return [["alive", *self._last, self._stale]] if self._last is not None else []

    def shortened(self, fence_s: float) -> list[Message]:
        """Before a beat says a shorter time than the last: a worker must not hear of it before the launcher."""
        if self._last is None or not 0 < fence_s < (self._last[1] or float("inf")):
            return []
        self._last = self._last[0], fence_s
        return self.again()
