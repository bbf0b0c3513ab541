"""What `fluxkv top` shows of an instance: a folded state, and beside it what a picture needs, kept up to date commit by commit.

Decides order, filters, totals and rates. A picture costs as much as it shows, whatever the number of jobs and nodes; only another
order, filter or inventory goes through all of them. No clock, no store, no terminal: `topfeed` follows, `toppage` lays out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..instances.outlook import Outlook
from ..journal.job import ACTIVE, NEW, RUNNING, SCHED, Job, Result
from ..journal.resizing import growth_of, place_in_line
from ..journal.state import State
from ..journal.wire import Commit, well_formed
from .jobview import View
from .reading import user_name
from .toprows import (
    BAD,
    LONG_S,
    SHORT_S,
    Picture,
    QueueRow,
    Wishes,
    job_row,
    mark_of,
    node_row,
    reasoned,
    tally_of,
)

SINGLY = 64  # so many changes at once are put in one by one, more by sorting again

# name -> key of a running job, key of a pending one; the first that come are shown first. Times are fixed moments, not ages, so a
# key changes only with its job.
SORTS: dict[str, tuple[Callable[[Job], Any], Callable[[Job], Any]]] = {
    "default": (lambda job: -(job.t_run or job.t_alloc), lambda job: -job.priority),
    "left": (lambda job: job.expiration or float("inf"), lambda job: job.duration or float("inf")),
    "time": (lambda job: job.t_run or job.t_alloc, lambda job: job.t_submit),
    "size": (lambda job: -job.ncores, lambda job: -job.ncores),
    "user": (lambda job: user_name(job.userid), lambda job: user_name(job.userid)),
    "name": (lambda job: job.name, lambda job: job.name),
}


class Line:
    """Ids in the order of their keys; keys must differ. Few changes cost little, many cost one sort of what is nearly sorted."""

    def __init__(self, keys: dict[int, Any] | None = None) -> None:
        self.key: dict[int, Any] = keys if keys is not None else {}
        self._order: list[tuple[Any, int]] = sorted((key, id) for id, key in self.key.items())

    def __len__(self) -> int:
        return len(self._order)

    def update(self, changes: Mapping[int, Any]) -> None:
        """Put ids in, or elsewhere; a key of None takes one out."""
        known = self.key
        news = {id: key for id, key in changes.items() if known.get(id) != key}
        gone = [(known.pop(id), id) for id in news if id in known]
        come = [(key, id) for id, key in news.items() if key is not None]
        known.update((id, key) for key, id in come)
        order = self._order
        if len(news) <= SINGLY:
            for pair in gone:
                del order[bisect_left(order, pair)]
            for pair in come:
                insort(order, pair)
            return
        if gone:
            out = set(gone)
            order[:] = [pair for pair in order if pair not in out]
        order += come
        order.sort()

    def find(self, id: int) -> int:
        """Where it stands, -1 if it does not."""
        key = self.key.get(id)
        return -1 if key is None else bisect_left(self._order, (key, id))

    def part(self, begin: int, end: int, *, reverse: bool = False) -> list[int]:
        """The ids at these places, counted from the other end if reversed."""
        order = self._order
        if reverse:
            begin, end = max(0, len(order) - end), len(order) - begin
            return [id for _, id in reversed(order[begin:end])]
        return [id for _, id in order[begin:end]]


class _View(View):
    """As tables look at a state; who is first in line, the model knows."""

    def __init__(self, model: Model, now: float) -> None:
        super().__init__(model.state, now)
        self._model = model

    def head(self, queue: str) -> int:
        first = self._model.lines.get(self.line(queue))
        return first.part(0, 1)[0] if first is not None and len(first) else 0


class Model:
    """An instance as it is followed. state: the fold, which nobody else may apply commits to. lines: scheduling line -> those that
    stand in it. over: its job has ended, and it with that."""

    def __init__(self, state: State, over: bool = False) -> None:
        self.state = state
        self._over = over
        self.running, self.pending = Line(), Line()
        self.lines: dict[str, Line] = {}
        self.outlook: Outlook | None = None
        self._wishes = Wishes()
        self._counts: dict[str, list[int]] = {}  # queue -> pending, running
        self._places: dict[int, tuple[str, int, str]] = {}  # job -> queue, 0 if it is pending, the line it stands in
        self._ended: dict[int, int] = {}  # second -> jobs that ended in it
        self._all_ended = self._results()
        self._touched: set[int] = set()
        self._nodes: dict[int, tuple[Any, ...]] = {}
        self._sums = [0] * 7
        self._states: dict[str, int] = {}
        self._by_state = Line()
        self._inventory: Any = None
        self._rules: Any = None
        self._all_nodes()
        self._all_jobs()

    # -- following ------------------------------------------------------------------------------------------------

    def apply(self, commit: Commit) -> None:
        """One more commit."""
        state = self.state
        state.apply(commit)
        self._touched.update(subject for _, subject, _, _ in well_formed(commit.events) if subject.__class__ is int)
        self._touched.update(state.dirty_jobs)  # what changed without an event of its own
        state.dirty_jobs.clear()
        state.attention.clear()
        ended = self._results()
        if ended != self._all_ended:
            second = int(commit.time or state.time)
            self._ended[second] = self._ended.get(second, 0) + max(0, ended - self._all_ended)
            self._all_ended = ended
            if len(self._ended) > 2 * LONG_S:
                for old in sorted(self._ended)[:-LONG_S]:
                    del self._ended[old]

    def seed(self, jobs: Iterable[Job]) -> None:
        """Jobs that had ended before, for the rates."""
        for job in jobs:
            second = int(job.t_inactive)
            self._ended[second] = self._ended.get(second, 0) + 1

    def _results(self) -> int:
        return sum(map(sum, self.state.results.values()))

    # -- jobs -----------------------------------------------------------------------------------------------------

    def _all_jobs(self) -> None:
        self._counts, self._places = {}, {}
        self._touched.clear()
        self.state.dirty_jobs.clear()
        self.state.attention.clear()
        self._rules = self.state.rules
        lines: dict[str, dict[int, Any]] = {}
        for job in self.state.active():
            self._place(job, lines)
        self.lines = {name: Line(keys) for name, keys in lines.items()}
        self._all_keys()

    def _all_keys(self) -> None:
        """Another order, or other jobs to show."""
        run_key, pend_key = SORTS[self._wishes.sort]
        shown = [job for job in self.state.active() if self._shown(job)]
        self.running = Line({job.id: (run_key(job), job.order) for job in shown if job.state & RUNNING})
        self.pending = Line({job.id: (pend_key(job), job.order) for job in shown if not job.state & RUNNING})

    def _take(self, jobs: Iterable[Job], gone: Iterable[int]) -> None:
        """What has become of these jobs; gone: those that are over."""
        run_key, pend_key = SORTS[self._wishes.sort]
        running: dict[int, Any] = {}
        pending: dict[int, Any] = {}
        lines: dict[str, dict[int, Any]] = {}
        for id in gone:
            running[id] = pending[id] = None
            self._leave(id, lines)
        for job in jobs:
            id, runs = job.id, job.state & RUNNING
            self._leave(id, lines)
            self._place(job, lines)
            shown = self._shown(job)
            running[id] = (run_key(job), job.order) if shown and runs else None
            pending[id] = (pend_key(job), job.order) if shown and not runs else None
        self.running.update(running)
        self.pending.update(pending)
        for name, changes in lines.items():
            self.lines.setdefault(name, Line()).update(changes)

    def _place(self, job: Job, lines: dict[str, dict[int, Any]]) -> None:
        runs, line = 1 if job.state & RUNNING else 0, ""
        if job.state == SCHED and job.priority and job.granted is None:
            own = self.state.rules.of(job.queue)
            line = own.line if own is not None else job.queue
            lines.setdefault(line, {})[job.id] = place_in_line(job)
        self._places[job.id] = job.queue, runs, line
        self._counts.setdefault(job.queue, [0, 0])[runs] += 1

    def _leave(self, id: int, lines: dict[str, dict[int, Any]]) -> None:
        place = self._places.pop(id, None)
        if place is not None:
            self._counts[place[0]][place[1]] -= 1
            if place[2]:
                lines.setdefault(place[2], {})[id] = None

    def _shown(self, job: Job) -> bool:
        queue, match = self._wishes.queue, self._wishes.match
        if queue and job.queue != queue:
            return False
        return not match or match in job.name or match == user_name(job.userid)

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _all_nodes(self) -> None:
        self._nodes, self._states, self._sums, self._by_state = {}, {}, [0] * 7, Line()
        self._inventory = self.state.R, self.state.graph
        self.state.dirty_words.clear()
        self._take_nodes(self.state.nodes)

    def _take_nodes(self, ranks: Iterable[int]) -> None:
        changes: dict[int, Any] = {}
        sums, states = self._sums, self._states
        for rank in ranks:
            before = self._nodes.pop(rank, None)
            if before is not None:
                states[before[0]] -= 1
                sums[:] = [old - part for old, part in zip(sums, before[1:], strict=True)]
            node = self.state.nodes.get(rank)
            changes[rank] = None
            if node is None:
                continue
            now = self._nodes[rank] = tally_of(node)
            states[now[0]] = states.get(now[0], 0) + 1
            sums[:] = [old + part for old, part in zip(sums, now[1:], strict=True)]
            changes[rank] = 0 if now[0] in BAD else 1, rank
        self._by_state.update(changes)

    # -- pictures -------------------------------------------------------------------------------------------------

    def _settle(self, wishes: Wishes) -> None:
        """Take up what came since the last picture."""
        state = self.state
        before, self._wishes = self._wishes, wishes
        if state.rules is not self._rules:
            self._all_jobs()
        elif (before.sort, before.queue, before.match) != (wishes.sort, wishes.queue, wishes.match):
            self._all_keys()
        if self._touched:
            touched, self._touched = self._touched, set()
            found = {id: state.jobs.get(id) for id in touched}
            active = [job for job in found.values() if job is not None and job.state & (ACTIVE | NEW)]
            self._take(active, touched.difference(job.id for job in active))
        if self._inventory[0] is not state.R or self._inventory[1] is not state.graph:
            self._all_nodes()
        elif state.dirty_words:
            words = list(state.dirty_words)
            state.dirty_words.clear()
            self._take_nodes(state.nodes if "graph" in words else [word for word in words if isinstance(word, int)])

    def waiting(self, picture: Picture) -> list[int]:
        """Of the jobs that a picture shows those whose start may be estimated: those in line, and who waits for more nodes."""
        if picture.wishes.page != "jobs":
            return []
        jobs = self.state.jobs
        growing = [row.id for row in picture.rows if not row.pending and (job := jobs.get(row.id)) and growth_of(job) is not None]
        return [row.id for row in picture.rows if row.pending and self._places.get(row.id, ("", 0, ""))[2]] + growing

    def picture(self, wishes: Wishes, now: float) -> Picture:
        """What there is to see; now: Unix seconds of the server. Its `wishes` are those that were possible."""
        self._settle(wishes)
        state = self.state
        total, place = self._page(wishes)
        cursor = place if wishes.cursor and place >= 0 else wishes.cursor
        cursor = min(max(0, cursor), max(0, total - 1))
        limit = max(1, wishes.limit)
        offset = min(max(wishes.offset, cursor - limit + 1, 0), cursor, max(0, total - limit))
        rows = self._rows(wishes, now, offset, offset + limit)
        marked = mark_of(rows[cursor - offset]) if cursor - offset < len(rows) else 0
        counts = [self._counts.get(wishes.queue, [0, 0])] if wishes.queue else list(self._counts.values())
        total_cores, used_cores, total_gpus, used_gpus, total_mb, used_mb, lost = self._sums
        bad_part = self._by_state.part(0, 4)
        return Picture(
            state.version, now, float(state.instance.get("started") or 0.0), self._over or bool(state.instance.get("stopped")),
            {name: number for name, number in self._states.items() if number}, (used_cores, total_cores), (used_gpus, total_gpus),
            (used_mb, total_mb), lost, sum(one[0] for one in counts), sum(one[1] for one in counts),
            {result.name.lower(): number for result, number in state.ended(wishes.queue).items()},
            (self._rate(now, SHORT_S), self._rate(now, LONG_S)),
            [node_row(state.nodes[rank]) for rank in bad_part if self._nodes[rank][0] in BAD], self._queue_rows(),
            rows, total, wishes._replace(cursor=cursor, offset=offset, marked=marked),
        )  # fmt: skip

    def _page(self, wishes: Wishes) -> tuple[int, int]:
        """How many lines the page has, and where the marked one stands (-1: nowhere)."""
        if wishes.page == "queues":
            return len(self.state.queues), -1
        if wishes.page == "nodes":
            return len(self._by_state), self._by_state.find(wishes.marked - 1) if wishes.marked else -1
        total = len(self.running) + len(self.pending)
        for line, before in ((self.running, 0), (self.pending, len(self.running))):
            place = line.find(wishes.marked) if wishes.marked else -1
            if place >= 0:
                return total, before + (len(line) - 1 - place if wishes.reverse else place)
        return total, -1

    def _rows(self, wishes: Wishes, now: float, begin: int, end: int) -> list[Any]:
        if wishes.page == "queues":
            return self._queue_rows()[begin:end]
        if wishes.page == "nodes":
            return [node_row(self.state.nodes[rank]) for rank in self._by_state.part(begin, end)]
        first = len(self.running)
        ids = self.running.part(min(begin, first), min(end, first), reverse=wishes.reverse)
        ids += self.pending.part(max(0, begin - first), max(0, end - first), reverse=wishes.reverse)
        view = _View(self, now)
        view.outlook = self.outlook
        return [job_row(self.state.jobs[id], view) for id in ids]

    def _queue_rows(self) -> list[QueueRow]:
        rows = []
        for name, queue in self.state.queues.items():
            words = [] if queue.enabled else [reasoned("disabled", queue.disable_reason)]
            words += [] if queue.started else [reasoned("stopped", queue.stop_reason)]
            results = self.state.ended(name)
            done, counts = results[Result.COMPLETED], self._counts.get(name, [0, 0])
            rows.append(QueueRow(name, "; ".join(words) or "started", counts[0], counts[1], done, sum(results.values()) - done))
        return rows

    def _rate(self, now: float, window_s: int) -> float:
        last = int(now)  # a second that is not over would make it too low
        count = sum(self._ended.get(second, 0) for second in range(last - window_s, last))
        age = now - float(self.state.instance.get("started") or 0.0)
        return count / max(1.0, min(float(window_s), age))
