"""What an ensemble knows of itself: shares, results and counts, in the key-value store of the instance that it is.

Decides the keys. `share.pool` says which positions are handed out in this round, `share.next` how many of them are; `share.at.N` is
a share, `ROUND START COUNT CHILD`. A share is taken in one commit that is guarded by all of `share`, so no two children have a
position, whoever dies in between. `result.*` are parts (`journal.ensemble.Part`), `count.*` what each child has come to; a part
comes with its count in one commit. What a child tells is appended to what it told before, up to some thousand results at a key:
where members take long each telling has but a few of them, and everybody who looks on has all keys in memory.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.ensemble import Count, Ended, Indices, Part, part_of, total_of
from ..journal.ids import encode, f58, parse_id

if TYPE_CHECKING:
    from .kvs_client import Kvs
    from .kvs_view import View

PARTS_OPEN = 64
TOGETHER = 2000  # results at a key, those of one telling excepted
INFO, POOL, NEXT, SHARES, RESULTS, COUNTS = "ensemble", "share.pool", "share.next", "share.at", "result", "count"
_NEVER = (-1, 0)


class Share(NamedTuple):
    """Places in the pool of a round that one child has taken. child: its job."""

    round: int
    start: int
    size: int
    child: int


class Info(NamedTuple):
    """total: members. children: how many share the work. round: of handing out, from 1 on."""

    total: int = 0
    children: int = 0
    round: int = 0


class Record:
    """kvs: the primary namespace of the ensemble's instance."""

    def __init__(self, kvs: Kvs) -> None:
        self.kvs = kvs
        self._pool: tuple[int, Indices] = (0, Indices(()))
        self._open: tuple[tuple[int, ...], str, int] = ((), "", 0)  # whose results we append, at which key, how many are there

    # -- the lead's part

    def begin(self, info: Info, pool: Indices) -> None:
        """Begin a round: these positions are to be handed out. No child is there that could take some."""
        self.kvs.commit([
            ["put", INFO, json.dumps(info._asdict()).encode()], ["put", NEXT, b"0"],
            ["put", POOL, self.kvs.payload(json.dumps(pool.ranges))],
        ])  # fmt: skip

    def info(self) -> Info:
        """As the last round has it; zeros before any."""
        return Info(**json.loads(found)) if (found := value(self.kvs.view(), INFO)) else Info()

    # -- a child's part

    def take(self, child: int, size: Callable[[int], int]) -> tuple[Share, int] | None:
        """(The next share, the positions that are left), None where nothing is. size: how many of so many that are left."""
        taken: list[tuple[Share, int]] = []

        def made(view: View) -> list[Any]:
            taken.clear()
            round, pool = self._pool_in(view)
            next = int(value(view, NEXT) or b"0")
            left = len(pool) - next
            if left <= 0:
                return []
            count = max(1, min(left, size(left)))
            taken.append((Share(round, next, count, child), left - count))
            told = f"{round} {next} {count} {f58(child)}".encode()
            return [["put", NEXT, str(next + count).encode()], ["put", f"{SHARES}.r{round}-{next}", told]]

        self.kvs.change(made)
        return taken[0] if taken else None

    def positions(self, share: Share) -> Iterator[int]:
        """The members of a share of this round."""
        if share.round != self._pool[0]:
            self._pool_in(self.kvs.view())  # whoever has just taken it has read it, and nobody changes it
        return self._pool[1].part(share.start, share.size)

    def report(self, part: Part, child: int, number: int, count: Count) -> None:
        """Results of a child, and what it has come to with them. number: of its reports in this attempt."""
        who = encode(child, "f58plain")
        ops: list[list[Any]] = [["put", f"{COUNTS}.{who}", json.dumps(count._asdict()).encode()]]
        whose, name, there = self._open
        if len(part):
            if whose != (*part.path, child) or there + len(part) > TOGETHER:
                name, there = f"{RESULTS}.{'-'.join(map(str, (part.path[0], who, part.path[2], number)))}", 0
            ops.append(["append", name, self.kvs.payload(part.encode())])
        self.kvs.commit(ops)
        if len(part):
            self._open = (*part.path, child), name, there + len(part)

    # -- reading

    def shares(self, view: View, child: int = 0) -> list[Share]:
        """Those of this round, all or one child's."""
        round = self._pool_in(view)[0]
        found = []
        for key in keys_in(view, SHARES):
            at, start, count, who = view.get(key).decode().split()
            if int(at) == round and (not child or parse_id(who) == child):
                found.append(Share(round, int(start), int(count), parse_id(who)))
        return found

    def counts(self, view: View | None = None) -> dict[int, Count]:
        """What each child has come to, by its job."""
        view = view or self.kvs.view()
        words = {parse_id(key.rpartition(".")[2]): value(view, key) for key in keys_in(view, COUNTS)}
        return {child: Count(**json.loads(word)) for child, word in words.items() if word}

    def total(self) -> Count:
        """Of all of them."""
        return total_of(self.counts().values())

    def parts(self, view: View | None = None) -> Iterator[tuple[str, Part]]:
        """All results by their keys, part by part."""
        view = view or self.kvs.view()
        for key in keys_in(view, RESULTS):
            yield key, part_of(view.get(key))

    def last_number(self, view: View, child: int) -> int:
        """The highest number that a child's reports have, 0 before any."""
        who = encode(child, "f58plain")
        names = (key.rpartition(".")[2].split("-") for key in keys_in(view, RESULTS))
        return max((int(name[3]) for name in names if len(name) == 4 and name[1] == who and name[3].isdecimal()), default=0)

    def news(self, view: View, told: dict[str, tuple[int, int]]) -> Iterator[Part]:
        """Results that whoever keeps `told` ({} at first: key -> (version, bytes)) has not had. Costs a look at each key, and what
        has come."""
        if view.stat(RESULTS) is None:
            return
        for name, node in sorted((name, node) for name, node in view.folder(RESULTS).items() if isinstance(node, list)
                                 and told.get(name, _NEVER)[0] != node[0]):  # fmt: skip
            _, before = told.get(name, _NEVER)
            data = b"".join(view.pieces(f"{RESULTS}.{name}", before))
            told[name] = node[0], before + len(data)
            yield part_of(data)

    def finished(self, total: int, view: View | None = None) -> bytearray:
        """A byte for each position: 1 where the member has ended."""
        done = bytearray(total)
        for _, part in self.parts(view):
            mark(done, part.positions)
        return done

    def rows(
        self, total: int, keep: Callable[[Ended], bool] | None = None, more: Iterable[Part] = ()
    ) -> Iterator[tuple[Part, Ended]]:
        """Results in the order of positions. Never more than some parts are unpacked: 8 bytes a member are kept. more: that are
        not in the record."""
        view = self.kvs.view()
        keys: list[str | Part] = []
        where = array("Q", bytes(8 * total))
        for key, part in chain(self.parts(view), zip(repeat(""), more)):
            keys.append(key or part)
            base = len(keys) << 20
            for number, position in enumerate(part.positions):
                if position < total and (keep is None or keep(part[number])):
                    where[position] = base + number
        opened: dict[int, Part] = {}
        for place in where:
            if not place:
                continue
            number = (place >> 20) - 1
            found = opened.pop(number, None)
            if found is None:
                if len(opened) >= PARTS_OPEN:
                    del opened[next(iter(opened))]
                found = at if isinstance(at := keys[number], Part) else part_of(view.get(at))
            opened[number] = found  # the last used is the last to go
            yield found, found[place & 0xFFFFF]

    def _pool_in(self, view: View) -> tuple[int, Indices]:
        """(Round, its positions); read once a round."""
        node = view.stat(POOL)
        if node is None:
            return 0, Indices(())
        told = json.loads(value(view, INFO) or b"{}").get("round", 0)
        if told != self._pool[0]:
            self._pool = told, Indices(json.loads(view.get(POOL)))
        return self._pool


def mark(done: bytearray, positions: Iterable[int]) -> None:
    """Note that these have ended."""
    most = len(done)
    for position in positions:
        if position < most:
            done[position] = 1


def fresh(part: Part, done: bytearray) -> Part:
    """What is in it of members that had not ended; they have then."""
    news = [number for number, at in enumerate(part.positions) if at < len(done) and not done[at]]
    mark(done, (part.positions[number] for number in news))
    return Part(part.path, (part[number] for number in news))


def value(view: View, key: str) -> bytes | None:
    """What stands at a key, None where nothing does."""
    return None if view.stat(key) is None else view.get(key)


def keys_in(view: View, folder: str) -> list[str]:
    """The keys in a directory, sorted; none where there is no such directory."""
    return [] if view.stat(folder) is None else [entry.key for entry in view.ls(folder) if entry.kind == "value"]
