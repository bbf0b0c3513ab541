"""Who uses which vertex of a tree, and when: jobs are put on it, taken off it, wholly or in part.

An exclusive use holds units of its vertex. Every use, shared ones too, is noted on the vertex, so that an exclusive
request sees that somebody is below. Sums are kept for the types that the tree prunes by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .match import Selection
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
    """filters: type of a vertex ("ALL" for any) -> types whose sums are kept below it."""

    def __init__(self, tree: Tree, subsystem: str, filters: Mapping[str, Iterable[str]]) -> None:
        self.tree = tree
        self.subsystem = subsystem
        self.filters = {high: tuple(dict.fromkeys(lows)) for high, lows in filters.items()}
        self.kept = tuple(dict.fromkeys(low for lows in self.filters.values() for low in lows))
        self.jobs: dict[int, TreeJob] = {}
        self.leaves: frozenset[str] = frozenset()
        self.count()

    def count(self) -> None:
        """To be called after the tree was changed."""
        self.leaves = frozenset(v.type for v in self.tree.vertices if not v.children.get(self.subsystem))

    def tracked(self, vertex: Vertex) -> tuple[str, ...]:
        """The types whose sums are shown for a vertex: leaves have none, its own type needs none, the root has all leaves'."""
        if not vertex.children.get(self.subsystem):
            return ()
        lows = {*self.filters.get("ALL", ()), *self.filters.get(vertex.type, ())}
        if vertex is self.tree.roots[self.subsystem]:
            lows |= self.leaves
        return tuple(sorted(low for low in lows if low != vertex.type))

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
        return record

    def take_off(self, job: int) -> int:
        """End a job's use of everything. Returns how many vertices it was on."""
        record = self.jobs[job]
        self._drop(record, list(record.uses))
        del self.jobs[job]
        return len(record.uses)

    def take_part_off(self, job: int, ordinals: Iterable[int]) -> bool:
        """End a job's use of some vertices, and of containers below which nothing of it is left. True when that was all."""
        record = self.jobs[job]
        self._drop(record, [o for o in ordinals if o in record.uses])
        kept: set[int] = set()
        for vertex, _, exclusive in record.uses.values():
            if exclusive and vertex.ordinal not in kept:
                kept.add(vertex.ordinal)
                kept.update(above.ordinal for s in vertex.parents for above in ancestors(vertex, s))
        self._drop(record, [o for o in record.uses if o not in kept])
        if not kept:
            del self.jobs[job]
        return not kept

    def ends_after(self, time: int) -> list[int]:
        """The moments at which something becomes free."""
        return sorted({job.end for job in self.jobs.values() if job.end > time})

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
        """Add uses to the sums of all vertices above them, and of their own."""
        sums: dict[tuple[int, str], list[Vertex | int]] = {}
        for vertex, units, exclusive in uses:
            kind = vertex.type
            if not exclusive or (kind not in self.kept and kind not in self.leaves):
                continue
            for above in (vertex, *ancestors(vertex, self.subsystem)):
                entry = sums.get((above.ordinal, kind))
                if entry is None:
                    sums[above.ordinal, kind] = [above, units]
                else:
                    entry[1] += units  # type: ignore[operator]
        for (_, kind), (where, units) in sums.items():
            assert isinstance(where, Vertex) and isinstance(units, int)
            spans = where.table("below").setdefault(kind, Spans())
            spans.add(record.start, record.end, sign * units)
            if not spans:
                del where.below[kind]
