"""A tree, who uses it, and everything that can be asked of the two: the whole of `resource query`, without its commands.

Time is the caller's: `now` is a number of seconds that stands still here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...kvs.errors import Rejected
from .ledger import ALLOCATED, RESERVED, Ledger, TreeJob
from .match import Window
from .matcher import Matcher
from .needs import TreeRequest
from .policies import policy_of
from .selection import Selection
from .vertices import Tree, Vertex, preorder

#: What each name of a view looks at; the first dominates.
VIEWS = {
    "CA": ("containment",), "PA": ("power",), "IBA": ("ibnet",), "IBBA": ("ibnetbw",), "PFS1BA": ("pfs1bw",),
    "C+IBA": ("containment", "ibnet"), "C+PA": ("containment", "power"), "C+PFS1BA": ("containment", "pfs1bw"),
    "C+IB+PFS1BA": ("containment", "ibnet", "pfs1bw"), "C+P+IBA": ("containment", "power", "ibnet"),
    "IB+IBBA": ("ibnet", "ibnetbw"), "VA": ("virtual1",), "V+PFS1BA": ("virtual1", "pfs1bw"),
    "ALL": ("containment", "ibnet", "ibnetbw", "pfs1bw", "power"),
}  # fmt: skip

MATCHED = "MATCHED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. state: ALLOCATED, RESERVED, MATCHED (nothing was taken) or "" for none.

    impossible: it could never be served, as far as this was asked.
    """

    job: int
    state: str = ""
    start: int = 0
    end: int = 0
    selection: Selection | None = None
    impossible: bool = False


class System:
    """next_job: the number that the next request gets."""

    def __init__(
        self, tree: Tree, policy: str = "first", view: str = "CA", filters: Mapping[str, Iterable[str]] | None = None,
        flexible: bool = False,
    ) -> None:  # fmt: skip
        if view not in VIEWS:
            raise Rejected(f"no view {view[:40]!r}", code="bad-view", hint=f"there are {', '.join(VIEWS)}")
        named = VIEWS[view]
        if named[0] not in tree.roots:
            raise Rejected(f"the graph has no {named[0]}", code="bad-view", hint=f"it has {', '.join(tree.roots)}")
        self.tree = tree
        self.subsystems = tuple(name for name in named if name in tree.roots)
        self.subsystem = self.subsystems[0]
        self.ledger = Ledger(tree, self.subsystem, filters)
        self.matcher = Matcher(tree, policy_of(policy), self.subsystems, self.ledger.kept, flexible)
        self._loaded = dict(self.root.totals)
        self.now = 0
        self.next_job = 1

    @property
    def root(self) -> Vertex:
        """Of the subsystem that dominates."""
        return self.tree.roots[self.subsystem]

    # --- requests

    def allocate(self, request: TreeRequest, satisfiability: bool = False) -> Outcome:
        """Now or not at all. satisfiability: where not, could it be served if there were no other jobs?"""
        job = self._number()
        selection, _ = self._at(request, self.now)
        if selection is not None:
            return self._put(job, request, selection, ALLOCATED, self.now)
        impossible = satisfiability and self.matcher.match(request, self._idle())[0] is None
        return Outcome(job, impossible=impossible)

    def reserve(self, request: TreeRequest) -> Outcome:
        """Now, else at the earliest time at which it fits."""
        job = self._number()
        return self._earliest(job, request, keep=True)

    def preview(self, request: TreeRequest, future: bool = False) -> Outcome:
        """As `allocate`, or with `future` as `reserve`, but nothing is taken; the job is -1."""
        if future:
            return self._earliest(-1, request, keep=False)
        selection, _ = self._at(request, self.now)
        return Outcome(-1, MATCHED if selection else "", self.now, self.now + request.duration_s, selection)

    def satisfiable(self, request: TreeRequest) -> bool:
        """Could it ever be served by this graph, whatever is down or in use?"""
        return self.matcher.match(request, self._idle(all_up=True))[0] is not None

    def _earliest(self, job: int, request: TreeRequest, keep: bool) -> Outcome:
        could, near = self.matcher.match(request, self._idle())
        if could is None:
            ever, near = self.matcher.match(request, self._idle(all_up=True))
            return Outcome(job, impossible=ever is None and not near)
        for start in (self.now, *self.ledger.ends_after(self.now)):
            if start > self.now and self._full(request, start):
                continue
            selection, _ = self._at(request, start)
            if selection is None:
                continue
            state = ALLOCATED if start == self.now else RESERVED
            if keep:
                return self._put(job, request, selection, state, start)
            return Outcome(job, MATCHED, start, start + request.duration_s, selection)
        return Outcome(job)

    def _full(self, request: TreeRequest, start: int) -> bool:
        """Do the root's sums rule a time out? They speak of the graph as it was loaded: what was attached later is used
        as soon as it is free, but nothing is promised on it."""
        if len(self.subsystems) > 1:
            return False
        root, end = self.root, start + request.duration_s
        several = sum(need.is_slot for need in request.needs) > 1  # they may be alternatives: nothing is known of each
        for need in request.needs:
            if need.is_slot and several:
                continue
            for kind, units in need.least.items():
                spans = root.below.get(kind)
                held = spans.peak(start, end) if spans is not None else 0
                there = min(self._loaded.get(kind, 0), root.totals.get(kind, 0))
                if kind in self.ledger.leaves and there - held < units * need.low:
                    return True
        return False

    def _idle(self, all_up: bool = False) -> Window:
        return Window(self.now, self.now + 1, idle=True, all_up=all_up)

    def _at(self, request: TreeRequest, start: int) -> tuple[Selection | None, bool]:
        return self.matcher.match(request, Window(start, start + request.duration_s))

    def _put(self, job: int, request: TreeRequest, selection: Selection, state: str, start: int) -> Outcome:
        end = start + request.duration_s
        self.ledger.put(job, selection, state, start, end)
        return Outcome(job, state, start, end, selection)

    def _number(self) -> int:
        job = self.next_job
        self.next_job += 1
        return job

    # --- jobs

    def job(self, number: int) -> TreeJob:
        """A job that is there. Raises Rejected."""
        if number not in self.ledger.jobs:
            raise Rejected(f"nonexistent job {number}", code="no-such-job", hint="see list")
        return self.ledger.jobs[number]

    def cancel(self, number: int) -> int:
        """Take a job off. Returns how many vertices it was on."""
        self.job(number)
        return self.ledger.take_off(number)

    def cancel_on(self, number: int, vertices: Sequence[Vertex]) -> bool:
        """Take a job off some vertices and all that is below them. True when nothing of it is left."""
        job = self.job(number)
        if job.state != ALLOCATED:
            raise Rejected(f"job {number} is only reserved", code="not-allocated", hint="cancel all of it")
        below = {v.ordinal for top in vertices for v in preorder(top, self.subsystem)}
        if not any(ordinal in job.uses for ordinal in below):
            raise Rejected(f"job {number} has nothing there", code="not-there", hint="see find jobid-tag=N")
        return self.ledger.take_part_off(number, below)

    def impose(
        self, number: int, wanted: Mapping[int, tuple[Vertex, int, bool]], state: str, start: int, duration_s: int,
        checked: bool = True,
    ) -> Outcome:  # fmt: skip
        """Put a job where an earlier allocation says. Raises Rejected where that is not free, unless others have seen to that
        (checked)."""
        if number in self.ledger.jobs:
            raise Rejected(f"job {number} is there already", code="job-exists", hint="cancel it first")
        if duration_s < 1 or start < 0:
            raise Rejected("start and duration must be seconds, at least 0 and 1", code="bad-span", hint="mend the numbers")
        end = start + duration_s
        selection = Selection(self.root)
        selection.take(self.root, self.root.size, False)
        for vertex, units, exclusive in wanted.values():
            free = vertex.free(start, end)
            if checked and ((exclusive and (vertex.in_use(start, end) or free < units)) or free <= 0):
                raise Rejected(f"{vertex.path(self.subsystem)} is in use then", code="in-use", hint="see find jobid-tag=N")
            selection.take(vertex, units, exclusive)
            child = vertex
            for above in self._up(vertex, wanted):
                selection.edge(above, child)
                if checked and above.free(start, end) <= 0:
                    raise Rejected(f"{above.path(self.subsystem)} is taken then", code="in-use", hint="see find jobid-tag=N")
                if above.ordinal not in wanted:
                    selection.take(above, above.size, False)
                child = above
        self.next_job = max(self.next_job, number + 1)
        self.ledger.put(number, selection, state, start, end)
        return Outcome(number, state, start, end, selection)

    def _up(self, vertex: Vertex, wanted: Mapping[int, object]) -> Iterator[Vertex]:
        """Those above it, by parents that are wanted too where there are such: several ways may lead to it."""
        while parents := vertex.parents.get(self.subsystem):
            vertex = next((parent for parent in parents if parent.ordinal in wanted), parents[0])
            yield vertex

    # --- the graph

    def at(self, path: str) -> Vertex:
        """The vertex of a path. Raises Rejected."""
        vertex = self.tree.at(path)
        if vertex is None:
            raise Rejected(f"Could not find path {path} in resource graph.", code="no-such-path", hint="see find status=up")
        return vertex

    def set_up(self, path: str, up: bool) -> None:
        """Take a vertex, and so all below it, out of use for new jobs, or back."""
        self.at(path).up = up

    def set_property(self, path: str, name: str, value: str) -> None:
        """Give a vertex a property, or another value of it."""
        self.at(path).table("properties")[name] = value

    def remove(self, vertices: Sequence[Vertex]) -> list[int]:
        """Take vertices and all below them out. Jobs that used any are taken off there. Returns those jobs."""
        roots = {root.ordinal for root in self.tree.roots.values()}
        if any(v.ordinal in roots for top in vertices for v in self.tree.below(top)):
            raise Rejected("a root cannot be removed", code="bad-path", hint="remove what is below it")
        inside = [v for top in vertices for v in self.tree.below(top)]
        jobs = sorted({job for vertex in inside for job in vertex.users})
        gone = {vertex.ordinal for vertex in inside}
        for job in jobs:
            self.ledger.take_part_off(job, gone)
        for top in vertices:
            self.tree.remove(top)
        self.graph_changed()
        return jobs

    def graph_changed(self) -> None:
        """The tree is another one: count it again."""
        self.matcher.refresh()
        self.ledger.count()
