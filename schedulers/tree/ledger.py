"""Who uses which vertex of a tree, and when: jobs are put on it, taken off it, wholly or in part.

An exclusive use holds units of its vertex. Every use, shared ones too, is noted on the vertex, so that an exclusive
request sees that somebody is below. Sums are kept for the types that the tree prunes by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .selection import Selection
from .spans import Spans
from .vertices import Tree, Vertex, ancestors

ALLOCATED = "ALLOCATED"
RESERVED = "RESERVED"


@dataclass(slots=True)
class TreeJob:
    """A job on the tree. uses: ordinal -> (vertex, units, exclusive). edges: as in Selection."""

    id: int
    state: str
    start: int
    end: int
    uses: dict[int, tuple[Vertex, int, bool]] = field(default_factory=dict)
    edges: dict[int, set[int]] = field(default_factory=dict)


class Ledger:
    """filters: type of a vertex ("ALL" for any) -> types whose sums are kept below it; None: cores everywhere, and nodes."""

    def __init__(self, tree: Tree, subsystem: str, filters: Mapping[str, Iterable[str]] | None) -> None:
        self.tree = tree
        self.subsystem = subsystem
        self.by_nodes = filters is None
        filters = {"ALL": ("core",)} if filters is None else filters
        self.filters = {high: tuple(dict.fromkeys(lows)) for high, lows in filters.items()}
        kept = [low for lows in self.filters.values() for low in lows]
        self.kept = tuple(dict.fromkeys([*kept, "node"] if self.by_nodes else kept))
        self.jobs: dict[int, TreeJob] = {}
        self.leaves: frozenset[str] = frozenset()
        self.summed: frozenset[str] = frozenset()
        self.count()

    def count(self) -> None:
        """To be called after the tree was changed."""
        self.leaves = frozenset(v.type for v in self.tree.vertices if not v.children.get(self.subsystem))
        self.summed = self.leaves.union(self.kept)

    def lows(self, vertex: Vertex) -> list[str]:
        """The types whose sums were asked for at a vertex, in that order. Leaves have none, and its own type needs none."""
        if not vertex.children.get(self.subsystem):
            return []
        lows = [*self.filters.get("ALL", ()), *self.filters.get(vertex.type, ())]
        if self.by_nodes and "node" in vertex.totals:
            lows.append("node")
        return [low for low in lows if low != vertex.type]

    def tracked(self, vertex: Vertex) -> tuple[str, ...]:
        """The types whose sums are shown: those that were asked for, and at the root all types of leaves."""
        lows = set(self.lows(vertex))
        return tuple(sorted(lows | self.leaves if vertex is self.tree.roots[self.subsystem] else lows))

    def spanned(self, job: int) -> set[int]:
        """The ordinals of vertices whose sums a job is in."""
        record = self.jobs.get(job)
        spanned: set[int] = set()
        for vertex, _, exclusive in record.uses.values() if record is not None else ():
            if exclusive:
                for above in (vertex, *ancestors(vertex, self.subsystem)):
                    if above.ordinal not in spanned and vertex.type in self.lows(above):
                        spanned.add(above.ordinal)
        return spanned

    def put(self, job: int, selection: Selection, state: str, start: int, end: int) -> TreeJob:
        """Let a job use what was selected in [start, end)."""
        record = TreeJob(job, state, start, end, dict(selection.taken), selection.edges)
        self.jobs[job] = record
        for vertex, units, exclusive in record.uses.values():
            vertex.table("users")[job] = (start, end)
            if exclusive:
                if vertex.exclusive is None:
                    vertex.exclusive = Spans()
                vertex.exclusive.add(start, end, units)
        self._sum(record, record.uses.values(), 1)
        self._note_left(record)
        return record

    def take_off(self, job: int) -> int:
        """End a job's use of everything. Returns how many vertices it was on."""
        record = self.jobs[job]
        count = len(record.uses)
        self._drop(record, list(record.uses))
        del self.jobs[job]
        return count

    def take_part_off(self, job: int, ordinals: Iterable[int]) -> bool:
        """End a job's use of some vertices, and of containers below which nothing of it is left. True when that was all.

        Whether that was all is known from the sums: a job that is in none of them keeps its place in the containers, and
        so its name, until it is cancelled.
        """
        record = self.jobs[job]
        known = any(e and v.type in self.kept for v, _, e in record.uses.values()) or not self.kept
        self._drop(record, [o for o in ordinals if o in record.uses])
        above: dict[int, list[int]] = {}
        for parent, children in record.edges.items():
            for child in children:
                above.setdefault(child, []).append(parent)
        kept: set[int] = set()
        stack = [ordinal for ordinal, (_, _, exclusive) in record.uses.items() if exclusive]
        while stack:
            ordinal = stack.pop()
            if ordinal not in kept:
                kept.add(ordinal)
                stack.extend(above.get(ordinal, ()))
        if kept or known:
            self._drop(record, [o for o in record.uses if o not in kept])
        if not record.uses:
            del self.jobs[job]
        return not record.uses

    def ends_after(self, time: int) -> list[int]:
        """The moments at which something becomes free."""
        return sorted({job.end for job in self.jobs.values() if job.end > time})

    def _note_left(self, record: TreeJob) -> None:
        """Note at containers what the job left there, by the last of the sums that were asked for: where `first` looks next."""
        for vertex, _, _ in record.uses.values():
            if lows := self.lows(vertex):
                vertex.left = vertex.left_below(lows[-1], record.start, record.start + 1)

    def _drop(self, record: TreeJob, ordinals: list[int]) -> None:
        gone = [record.uses.pop(ordinal) for ordinal in ordinals]
        for vertex, units, exclusive in gone:
            del vertex.users[record.id]
            if exclusive and vertex.exclusive is not None:
                vertex.exclusive.remove(record.start, record.end, units)
                if not vertex.exclusive:
                    vertex.exclusive = None
        self._sum(record, gone, -1)

    def _sum(self, record: TreeJob, uses: Iterable[tuple[Vertex, int, bool]], sign: int) -> None:
        """Add uses to the sums of all vertices above them, and to their own."""
        sums: dict[tuple[int, str], int] = {}
        where: dict[int, Vertex] = {}
        for vertex, units, exclusive in uses:
            kind = vertex.type
            if not exclusive or kind not in self.summed:
                continue
            for above in (vertex, *ancestors(vertex, self.subsystem)):
                where[above.ordinal] = above
                sums[above.ordinal, kind] = sums.get((above.ordinal, kind), 0) + units
        for (ordinal, kind), units in sums.items():
            table = where[ordinal].table("below")
            spans = table.setdefault(kind, Spans())
            spans.add(record.start, record.end, sign * units)
            if not spans:
                del table[kind]
