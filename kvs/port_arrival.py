"""The part of the `Store` port by which a journal comes from another server, or leaves, and what of one is read for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from .port import Entry, Message, Meta


class Inside(NamedTuple):
    """A namespace inside an instance's. meta: None where no journal is, or its table is damaged; keys: all that the server has
    there; damage: which key it is, and what is wrong with it, or ""."""

    meta: Meta | None
    keys: tuple[str, ...]
    damage: str = ""


class Arrivals(Protocol):
    """uid: a word that names the journal that comes, the same at each try. Each call may be repeated; after `arrived` none does
    anything."""

    def arriving(self, uid: str, behind: str, *, anew: bool = False) -> str:
        """Begin, or go on, to take over a journal that another server holds; nobody sees it before `arrived`.

        behind: the id of the entry that it begins behind ("0-0"). anew: what has come so far was of another branch: drop it. The id
        of the last entry that has come, "" once all of it is here. Raises `Rejected(code="exists")` where another instance is.
        """
        ...

    def arrive(self, uid: str, entries: Sequence[Entry]) -> None:
        """The next entries, as they were; those that have come are passed over. Raises `Conflict(code="live")` at a gap."""
        ...

    def arrive_messages(self, uid: str, key: str, messages: Sequence[Message]) -> None:
        """The next messages of a plain stream of this namespace, in the same way."""
        ...

    def arrive_tables(self, uid: str, guards: dict[str, str], snapshot: tuple[int, bytes, list[bytes]] | None = None) -> None:
        """Guards, as `guards` gives them; the snapshot with its version."""
        ...

    def arrived(self, uid: str, meta: Meta) -> None:
        """All has come: from now on it is there, as it was (but for the server that it lives on).

        Raises `Conflict(code="live")` where not all that was sent since `arriving` is here: it does not end with the version that
        meta names, or this server is another by now (a fail-over, a restart). It is to be begun again.
        """
        ...

    def come(self) -> str:
        """The id of the last entry of a journal that is on its way here, "" if none is."""
        ...

    def arrive_over(self, uid: str, tip: str) -> None:
        """What has come under another word, up to this entry, is of the journal that this word names.

        Raises `Rejected(code="exists")` where that is not what has come.
        """
        ...

    def depart(self, uid: str, epoch: int, tip: int, word: str) -> None:
        """The journal is on another server from now on, where all of it has arrived: what is here is what has come of it when it
        comes back, under this word (`arriving`). Twice is once. Raises `Rejected(code="gone")`, `Conflict` if it has moved on,
        `Unavailable(code="forked")` if it is known to have lost some."""
        ...

    def guards(self) -> Iterator[dict[str, str]]:
        """All guards, some at a time: thing -> what bumped it last."""
        ...

    def spaces(self) -> list[str]:
        """The namespaces of this instance and of those inside it that this server, or cluster, has something of, sorted."""
        ...

    def inside(self) -> dict[str, Inside]:
        """The namespaces of instances inside this one that this server, or cluster, has something of. One that is damaged is among
        them, and hides no other."""
        ...

    def may_have_inside(self) -> bool:
        """Whether there are such; also where that would take long to say."""
        ...

    def weigh(self, keys: Sequence[str]) -> int | None:
        """How many bytes of the server's memory these keys take; None where it does not say."""
        ...

    def leave(self, uid: str, tip: str, step: str, keys: Sequence[str] = (), grace_s: float = 0.0) -> bool:
        """Of a sealed instance whose journal ends with the entry `tip`. step: "mark": it is in an archive, too, and read there from
        now on; "stay": it is not; "back": nor is it to go soon; "go": drop these keys, those of its jobs' streams last, if it was
        marked this long ago; "rest": drop such streams of one that is gone, and is not coming back. False, and nothing is done, if
        it is another by now, goes on, or was not marked for so long."""
        ...
