"""The half of an agent that copes with a history that lost its end: attempts and orders of the branch that was given up.

An attempt of that branch is *foreign*: the journal does not know what began it. The hello of the new epoch names it with what
it holds, and what becomes of it is not reported, until a worker has said whether it is adopted or forgotten. One that is
forgotten is ended; when none of these is left, the agent says hello again, and only then is its node used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

from ..journal.scripts import EPILOG, HOUSEKEEPING, LETTERS, entry_of
from ..kvs.epochs import belongs, settle, spans
from ..kvs.port import Meta, id_pair
from .attempts import PART, Placed, split_key
from .facts import Rows
from .reactor import Follow, Messages, Output, ToLauncher
from .script_orders import attempt_key, letter_of

ANY = 1 << 62  # a tip past all versions
LATELY = 4  # epochs
PAST = 2048  # ends: more than a launcher lists at once


def adopted_lately(epochs: str) -> bool:
    """Whether one of the last epochs began by adoption: who was away meanwhile may have to say things again."""
    return any(one.lost for one in spans(epochs)[-LATELY:])


def living_parts(rows: list[list[Any]]) -> dict[str, int]:
    """Of a launcher's list what lives of attempts on nodes that came while their job ran: keys without the part -> its number."""
    return {row[0].partition(PART)[0]: _part(row[0]) for row in rows if PART in row[0] and row[2] not in ("over", "past")}


def _part(key: str) -> int:
    """Which part of its attempt this is, -1 for what it began with."""
    return int(key.partition(PART)[2] or -1)


def _is_beside(key: str, name: str) -> bool:
    """Whether both are of one attempt on one node; one of them at least is a script."""
    return split_key(key) == split_key(name) and entry_of(key) == entry_of(name)


class Branches:
    """foreign: attempts the journal does not know -> their end, if they have one. fenced: those that are being ended. recall:
    whether the launcher is still to list what ended a short while ago. behind: whether ends wait until what lives on their node is
    over."""

    meta: Meta
    cursors: dict[int, str]
    placed: dict[str, Placed]
    unsaid: dict[str, Placed]
    held: list[str] | None
    trims: dict[int, str]
    hello_due: bool
    names: dict[tuple[int, int, int, str], str]
    rows: dict[int, Rows]
    sent: dict[int, Rows]
    _unplace: Callable[[str], Placed | None]
    _over: Callable[[list[Any]], None]
    unread: list[Messages]
    freed: bool
    _messages: Callable[[Messages, list[Output]], None]

    def __init__(self) -> None:
        self.foreign: dict[str, list[Any] | None] = {}
        self.fenced: set[str] = set()
        self.behind = False
        self.past: dict[str, list[Any]] = {}  # ends that the launcher listed since a branch was lost, the newest
        self.recall = adopted_lately(self.meta.epochs)
        self.doubles: set[tuple[int, int, int, str]] = set()  # names that more than one has had: a node that came twice

    def knows(self, id: str) -> bool:
        """Whether the history may have an entry of this id; of one in an epoch that we have not heard of we cannot say no."""
        version, epoch = id_pair(id)
        lines = spans(self.meta.epochs)
        return all(one.epoch != epoch for one in lines) or belongs(self.meta.epochs, ANY, version, epoch)

    def reopened(self, meta: Meta, outputs: list[Output]) -> None:
        """History goes on in another epoch. If it lost something: read on from where both branches part, and ask the launcher
        for everything, what ended a short while ago too."""
        before, lines = spans(self.meta.epochs), spans(meta.epochs)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, lines, strict=False)))
        self.meta = meta
        if not any(one.lost for one in lines[shared:]):
            return
        for rank, cursor in self.cursors.items():
            there = settle(meta.epochs, meta.version, cursor)
            if there != cursor:
                self.cursors[rank] = there
                self.trims.pop(rank, None)
                outputs.append(Follow(f"node/{rank}", there))
        queued = [one.key for one in self.placed.values() if not one.t_start and not one.over]
        if queued:  # what they wait for may never be said: they are placed anew
            outputs.append(ToLauncher(["recall", queued]))
        for key in self.placed:
            self.note_foreign(key)
        self.ask_all(outputs)

    def ask_all(self, outputs: list[Output]) -> None:
        """Have the launcher list all it has, and what ended a short while ago; nothing is said before the list is there."""
        self.recall = False
        self.held = None
        outputs.append(ToLauncher(["list", "recent"]))

    def note_foreign(self, key: str) -> None:
        """Its word is kept back if the journal does not know what began it."""
        if key not in self.foreign and not self.knows_attempt(key):
            self.foreign[key] = None
            self.unsaid.pop(key, None)
            placed = self.placed[key]
            placed.over = False  # what was to be said of it the launcher lists again: it has not been told to forget it
            self.rows[placed.rank].drop({(placed.job, placed.version)})

    def knows_attempt(self, key: str) -> bool:
        """Whether the journal may have what began it: of an epoch that this history never had, it has not."""
        lines = spans(self.meta.epochs)
        version, epoch = id_pair(entry_of(key))
        if lines and version >= lines[0].first and all(one.epoch != epoch for one in lines):
            return False
        return self.knows(entry_of(key))

    def of_this_history(self, one: Messages) -> Messages:
        """Without orders of a branch that was given up, which may still be on their way to us."""
        return Messages(one.name, [message for message in one.messages if self.knows(message.id)])

    def kept_back(self, event: list[Any], outputs: list[Output] | None = None) -> bool:
        """Whether an end is not to be reported (now)."""
        key = event[1]
        if key in self.foreign:
            self.foreign[key] = event
            self.placed[key].over = True
            return True
        return key in self.fenced

    def forget(self, key: str, outputs: list[Output]) -> None:
        """The journal does not know it: end it, and say hello again when none of these is left."""
        ended = self.foreign.pop(key, None)
        placed = self.placed.get(key)
        if placed is None or not (ended is not None or placed.over):
            outputs.append(ToLauncher(["end", key, "fenced"]))
        if placed is None or placed.over:
            self.gone(key, outputs)
        else:
            self.fenced.add(key)
            placed.claim = None  # a hello that still lists it says so: it is not to be adopted any more

    def gone(self, key: str, outputs: list[Output]) -> None:
        """What was forgotten is over."""
        if self._unplace(key) is not None:
            outputs.append(ToLauncher(["ack", [key]]))
        self.hello_due |= not self.fenced

    def adopted(self, key: str) -> None:
        """The journal knows it from now on: say what there is to say about it."""
        if key not in self.foreign:
            return
        ended = self.foreign.pop(key)
        placed = self.placed[key]
        if placed.t_start:
            self.unsaid[key] = placed
        if ended is not None:
            placed.over = False
            self._over(ended)

    def note_past(self, key: str, over: list[Any]) -> None:
        """An attempt that both branches know may have gone further on the lost one than the journal has it."""
        if adopted_lately(self.meta.epochs):
            self.past[key] = over
            if len(self.past) > PAST:
                del self.past[next(iter(self.past))]

    def ran_before(self, placed: Placed) -> bool:
        """Whether what is ordered, or what follows it, has run on the lost branch: its end is told, it does not begin (again)."""
        told = self.past.get(placed.key)
        for kind in (EPILOG, HOUSEKEEPING) if told is None and not placed.letter else ():
            name = f"{placed.job}.{entry_of(placed.key)}{LETTERS[kind]}.{placed.rank}"
            after = self.past.get(name + "".join(placed.key.partition(PART)[1:]))
            if after is not None:
                cause = f"lost: its {kind} ran on a branch that is lost"
                told = ["over", placed.key, 9, 0.0, after[4], None, cause, "", 0, 0.0, placed.job]
                break
        if told is None:
            return False
        self._place(placed)
        self._over(told)
        return True

    def _place(self, placed: Placed) -> None:
        name = (placed.job, placed.version, placed.rank, placed.letter)
        if self.names.get(name, placed.key) != placed.key:
            self.doubles.add(name)
        self.placed[placed.key] = placed
        self.names[name] = placed.key

    def ended_key(self, name: tuple[int, int, int, str]) -> str:
        """The key of what has ended by this name, and is not acknowledged; "" if there is none here."""
        if name not in self.doubles:
            return self.names.get(name, "")
        return next((one.key for one in self.named(name) if one.over), "")

    def named(self, name: tuple[int, int, int, str]) -> list[Placed]:
        """All that have a name, of which more than one has had it."""
        return [one for one in self.placed.values() if (one.job, one.version, one.rank, one.letter) == name]

    def outlived(self, key: str, living: Mapping[str, int], outputs: list[Output]) -> bool:
        """Whether the node came once more after this ended there, and lives: whichever of both parts the history knows, they have
        one name, and only the later one's end is the node's. Nobody is told of this one's. Where a script of the later part lives
        the node is not free, but who knows of this part only has to hear of its end: when that is over it is listed again."""
        if key in self.foreign or key in self.fenced:
            return False
        if key.partition(PART)[0] not in living:
            waits = any(_is_beside(key, name) and part > _part(key) for name, part in living.items())
            self.behind |= waits
            return waits
        self._unplace(key)
        outputs.append(ToLauncher(["ack", [key]]))
        return True

    def _go_on(self, outputs: list[Output]) -> None:
        """What has been unplaced was in the way of orders, or of ends."""
        self.freed = False
        if self.behind:
            self.behind = False
            self.ask_all(outputs)
        else:
            self._read_on(outputs)

    def _read_on(self, outputs: list[Output]) -> None:
        unread, self.unread = self.unread, []
        for one in unread:
            if self.unread:
                self.unread.append(one)
            else:
                self._messages(self.of_this_history(one), outputs)

    def occupied(self, order: Any, id: str, rank: int) -> bool:
        """Whether an order starts a part of an attempt on a node where another part of it was, whose end is not settled yet."""
        try:
            if order[0] not in ("launch", "script") or "part" not in order[1]:
                return False
            key = attempt_key(order[1], id, rank)
            return key not in self.placed and self.key_of(key.rpartition(".")[0], rank) in self.placed
        except (LookupError, TypeError, ValueError, AttributeError):
            return False  # it makes no sense, as will be said

    def key_of(self, name: str, rank: int) -> str:
        """The launcher's key of an attempt by this name on a rank."""
        plain = f"{name}.{rank}"
        if plain in self.placed:
            return plain
        found = self.names.get((*split_key(plain), letter_of(plain)))
        return found or next((key for key in self.placed if key.startswith(plain + PART)), plain)

    # -- guards ---------------------------------------------------------------------------------------------------

    def _guard(self, exact: dict[str, str], outputs: list[Output]) -> None:
        """Each attempt named must be its job's current one, of this branch. Of two of one job only the newer can be."""
        stale: set[tuple[int, int]] = set()
        versions: dict[str, int] = {}
        for rank, rows in self.sent.items():
            for group in (rows.start, rows.over, rows.unstarted, rows.timeout, rows.script, rows.exit):
                for row in group:
                    thing, version = f"attempt/{row[0]}", row[1]
                    known = versions.get(thing, 0)
                    if known and known != version:
                        stale.add((row[0], min(known, version)))
                    if known < version:
                        versions[thing], exact[thing] = version, self._entry(row[0], version, rank)
        if stale:
            self._fenced(stale, outputs)

    def _entry(self, job: int, version: int, rank: int) -> str:
        """The id of the entry that began an attempt; of one that is not here any more only the version is known."""
        for letter in ("", "p", "e", "h"):
            key = self.names.get((job, version, rank, letter))
            if key is not None:
                return entry_of(key)
        return str(version)

    def _fenced(self, attempts: set[tuple[int, int]], outputs: list[Output]) -> None:
        """Nobody wants to hear of these attempts (job, version) any more: drop what was to be said, here and at the
        launcher."""
        over = []
        for rank, rows in self.sent.items():
            for one in [one for one in rows.ended() if one[:2] in attempts]:
                over.append(self.ended_key((*one[:2], rank, one[2])))
                self._unplace(over[-1])
            rows.drop(attempts)
        if over:
            outputs.append(ToLauncher(["ack", over]))
