"""Which of an instance's jobs are instances themselves now, and whether their time is over. A table beside the journal.

Whoever makes a child notes it in its parent's namespace first; a keeper of the parent strikes it out when the job's attempt is over
and the child is sealed. So the table is as long as there are children, and what it holds was written after the `alloc` it names.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Child(NamedTuple):
    """name: the last word of its namespace ("ƒA", "ƒA.2"). job, entry: the parent's job that it is, and what began the attempt.

    user: its user on the server, "" if it has none of its own. over: whether that attempt is (what began it guards no more).
    """

    name: str
    job: int
    entry: str
    user: str = ""
    over: bool = False

    @property
    def field(self) -> str:
        """How the table names it: another attempt is another row, also one that goes on in the same namespace."""
        return f"{self.name} {self.job} {self.entry}"

    @property
    def thing(self) -> str:
        """The guard that stands as long as the attempt does."""
        return f"attempt/{self.job}"


class ChildTable(Protocol):
    """The half of a `Store` about children."""

    def note_child(self, child: Child) -> None:
        """Put a child into the table. Twice is once."""
        ...

    def children(self) -> list[Child]:
        """All that are in the table, sorted. None is `over` while the guard table is being made anew."""
        ...

    def forget_child(self, child: Child) -> None:
        """Strike one out that may be gone."""
        ...

    def seal(self, uid: str) -> None:
        """Whoever writes to this instance is refused from now on (`Rejected(code="ended")`), and all of it can be read. Twice is
        once. Raises `Rejected(code="gone")` if it is another instance than that. (Who is to go on with it makes it another one
        first: another `uid`, the first one kept as `origin_uid`, and `sealed` taken out in the same step.)"""
        ...
