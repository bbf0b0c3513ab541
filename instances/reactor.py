"""What goes into and comes out of a reactor. Roles are `step(now, inputs) -> outputs`: no I/O, clock or randomness.

One runner drives them on a real store, clock and launcher; a simulator can drive the same objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..journal.job import Job
from ..kvs.port import Answer, Append, Entry, Message, Meta


class Entries(NamedTuple):
    """New journal entries, in order."""

    entries: list[Entry]


class Messages(NamedTuple):
    """New messages of an inbox, by its name ("node/3"), or of another followed stream by its key."""

    name: str
    messages: list[Message]


class Answered(NamedTuple):
    """The store's answer to a `Write`."""

    request: Append
    answer: Answer


class Reopened(NamedTuple):
    """The instance's identity as re-read after an EPOCH answer."""

    meta: Meta


class Launched(NamedTuple):
    """Events from the launcher."""

    events: list[list[Any]]


class LauncherLost(NamedTuple):
    """The launcher's connection broke (True), or is there again (False)."""

    lost: bool


class Lead(NamedTuple):
    """Whether this worker holds the lease."""

    leading: bool


class Found(NamedTuple):
    """The answer to a `Lookup`: records of those that ever were; the others are named in `ids` only."""

    ids: tuple[int, ...]
    jobs: dict[int, Job]


Input = Entries | Messages | Answered | Reopened | Launched | LauncherLost | Lead | Found


class Write(NamedTuple):
    """Append this commit; the answer comes as `Answered`. At most one is in flight for a reactor."""

    request: Append


class ToLauncher(NamedTuple):
    """A message for the launcher."""

    message: list[Any]


class Trim(NamedTuple):
    """Drop a plain stream's entries up to this id."""

    key: str
    through: str


class Follow(NamedTuple):
    """Read an inbox ("node/3") from another position on: history has lost what it was read up to."""

    name: str
    position: str


class Snapshot(NamedTuple):
    """Install a snapshot of the reactor's state, and prune guards up to this floor."""

    floor: int


class Stops(NamedTuple):
    """Tell whoever ends the instance whether, at this version and from there on, something is still to end. ended: what its jobs
    had come to by then (`final_totals.Final`)."""

    version: int
    epoch: int
    busy: bool
    ended: tuple[int, ...] = ()


class Lookup(NamedTuple):
    """Ask the journal about jobs that have left the state; the answer comes as `Found`."""

    ids: tuple[int, ...]


class WakeAt(NamedTuple):
    """Call `step` again at this time (Unix seconds) at the latest."""

    time: float


class Note(NamedTuple):
    """A line for the daemons' own log. level: "info", "warning" or "error"."""

    level: str
    text: str


Output = Write | ToLauncher | Trim | Follow | Snapshot | Stops | Lookup | WakeAt | Note


class Reactor(Protocol):
    """A role."""

    def step(self, now: float, inputs: Sequence[Input]) -> list[Output]:
        """React. now: Unix seconds. Called with no inputs when a time asked for has come."""
        ...


def keeps_cursors(output: Output) -> bool:
    """Whether performing it keeps an agent's inbox positions on disk, or trims what lies behind them."""
    return isinstance(output, Trim) or (isinstance(output, ToLauncher) and output.message[0] == "ack")
