"""Self-fencing: a launcher ends tasks that the rest of the instance may count as over, because nobody there has heard of this host.

Only attempts with a fence, of jobs that are to begin again elsewhere when their node is lost. The agent says when the store last
answered, on the boot-time clock, which goes on while the machine sleeps. After `fence_s` without such a word they are ended; the
worker counts them as over after twice that time (`node_watch`), so TERM has to give way to KILL well within the second half.
A launcher that does not run cannot end anything: a host that is stopped as a whole and goes on later ends them then, at once.
"""

from __future__ import annotations

from ..journal.duration import format_duration
from .spawning import Attempt


class Fence:
    """held: running attempts with a fence, by key."""

    __slots__ = ("_contact", "_fence_s", "held")

    def __init__(self) -> None:
        self._contact = 0.0
        self._fence_s = 0.0  # 0: for ever, or nobody has said
        self.held: dict[str, Attempt] = {}

    def alive(self, t_boot: float, fence_s: float) -> None:
        """The store answered what was asked at this time."""
        self._contact, self._fence_s = max(self._contact, t_boot), fence_s

    def at(self) -> float:
        """When what is held has to end."""
        return self._contact + self._fence_s if self._fence_s else float("inf")

    def cut_off(self, now: float) -> bool:
        """Whether it is too late to begin anything, or to go on."""
        return now >= self.at()

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
        return f"lost: node cut off: no word from the instance for {format_duration(self._fence_s)}, ended by its launcher"
