"""The worker: derives everything that follows from facts, and plans. A reactor; stateless but for what it folds.

All it derives from a batch of new commits goes out in one commit, at most one in flight. On a conflict the named losers
stay behind (and whoever would have taken what they free); the rest goes out at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ..journal.agreement import read_agreed
from ..journal.derive import Group, advance, hand_over
from ..journal.job import CLEANUP, DEPEND, INACTIVE, NEW, PRIORITY, RUN, SCHED, Job
from ..journal.resuming import back_in_line, fitted_once
from ..journal.retired import MAX_JOBS, retirement
from ..journal.state import State
from ..journal.wire import Commit
from ..kvs.blobs import payload_hash
from ..kvs.errors import Corrupt, Rejected
from ..kvs.port import Append, Appended, Conflicted, Gap, Meta, StaleEpoch
from ..schedulers.policy import Policy
from .admission import Validators, admit, refusal
from .aside import set_aside
from .attention import is_stopping, stop_word, take_touched
from .commits import assemble, look_again, without_losers
from .deadlines import Deadlines
from .foreign import wait_until
from .greeting import Told, answer_hellos, recall_unusable
from .growing import Leaves
from .node_watch import NodeWatch
from .placement import complaints, give_back
from .planner import Planner
from .reactor import Answered, Entries, Found, Input, Lead, Lookup, Note, Output, Reopened, Snapshot, WakeAt, Write
from .requeued import Requeued
from .script_orders import HousekeepingCare, add_orders
from .waiting import Waiting

PROBE = 1 << 40  # no sequence gets there: the first write answers GAP with the last one taken
KEPT_GUARDS = 200  # versions: who decides on an older state than that meets a conflict, whatever has moved
BATCH = 1500  # jobs looked at for one commit
SNAPSHOT_EVENTS = 10_000
QUIET_EVENTS, QUIET_S = 2_000, 0.5
WAITS = ("unsatisfiable", "no-such-queue")  # why a pending job has no place in a line: another inventory or config may mend it
RETIRE_ABOVE = 20_000
RETIRE_CHUNK = MAX_JOBS


class Worker:
    """state: the fold. leading: whether it plans (a lease decides; guards keep it safe either way)."""

    def __init__(self, meta: Meta, state: State, policy: Policy, name: str) -> None:
        self.meta = meta
        self.state = state
        self.name = name
        self.planner = Planner(state, policy)
        self.leading = False
        self.inflight: Append | None = None
        self.groups: list[Group] = []
        self.seq, self.retired = PROBE, state.retired
        self.admitted: dict[tuple[str, int], int] = {}  # (scope, user) -> jobs taken in by this pass
        self.handed: set[int] = set()  # jobs of which all is said in this pass
        self.wait_for = 0  # the next decision needs a state of this version at least
        self.snapshot_events = state.settled  # the tail behind it may be long already: a worker before us died
        state.misread = 0
        self.moved, self.quiet_s = 0.0, max(QUIET_S, 2 * getattr(policy, "ahead_s", 0.0))  # when something came last
        self.inactive: dict[int, None] = {}
        self.due = 0.0  # when to make a pass though nothing has come
        self.deadlines = Deadlines()
        self.requeued = Requeued(self.planner, self.deadlines)
        self.waiting = Waiting(state, self.planner.request_of)
        self.housekeeping, self.watch, self.leaves = HousekeepingCare(), NodeWatch(), Leaves()
        self.validate = Validators(self.planner)
        self.greet = self.stopping = self.again = False
        self.told: Told = {}
        ended = [job for job in state.jobs.values() if job.state == INACTIVE]
        self.inactive.update((job.id, None) for job in sorted(ended, key=lambda job: job.t_inactive))

    # -- the reactor ----------------------------------------------------------------------------------------------

    def step(self, now: float, inputs: Sequence[Input]) -> list[Output]:
        outputs: list[Output] = []
        epoch = self.state.epoch
        for one in inputs:
            if self.watch.take(one, self.state):  # heartbeats
                self.again = self.again or self.watch.news
                continue
            self.moved = now
            if isinstance(one, Entries):
                for entry in one.entries:
                    if entry.version == self.state.version and entry.epoch != self.state.epoch:
                        raise Corrupt(f"version {entry.id} is in the place of what was folded", code="forked")
                    if entry.version > self.state.version:
                        self.state.apply(read_agreed(self.state, entry))
                        self.again = True
                if self.state.misread:  # what we go on from has an entry that everybody else goes on without
                    raise Corrupt(f"version {self.state.misread} was set aside: the state is folded anew", code="entry-aside")
            elif isinstance(one, Answered):
                self._answered(one, now, outputs)
            elif isinstance(one, Found):
                self.waiting.answer(one.ids, one.jobs)
                self.again = True
            elif isinstance(one, Reopened):
                self.meta = one.meta
                self.inflight = None
                self._requeue(self.groups)
                self.seq = PROBE  # whether the last commit is in the journal, nobody has said
                self.again = True
            elif isinstance(one, Lead) and one.leading != self.leading:
                self.leading = self.again = one.leading
                if one.leading:
                    self._take_over()
                    outputs.append(Note("info", f"{self.name} plans from version {self.state.version} on"))
        if epoch and self.state.epoch != epoch:  # history was taken up anew: nodes must speak again before they are used
            if self.state.epoch != self.meta.epoch:
                self.meta = self.meta._replace(epoch=self.state.epoch)
            self.greet = True
            self.wait_for = 0  # a version of the branch that is lost may never come
            self._take_over()  # what was decided, and acknowledged, may be on that branch, too
        if self.due and now >= self.due:
            self.due, self.again = 0.0, True
        if self.leading and self.inflight is None:
            self._maybe_snapshot(outputs)  # others' commits alone may have made the tail long
        if self.leading and self.inflight is None and self.again and self.state.version >= self.wait_for:
            self._pass(now, outputs)
        if self.leading and self.inflight is None and not self.again:
            self._when_quiet(now, outputs)
        if self.due:  # said each time: whoever wakes us keeps the earliest only, which may have been another's
            outputs.append(WakeAt(self.due))
        return outputs

    def _take_over(self) -> None:
        """A new leader looks at every active job once, as if each had just been touched."""
        self.waiting = Waiting(self.state, self.planner.request_of)
        self.watch.begin()
        for job in sorted(self.state.active(), key=lambda job: job.order):
            self.state.attention[job.id] = None
        for rank, node in self.state.nodes.items():
            self.planner.resync.add(rank)
            if node.hello is not None:
                self.state.said_hello.setdefault(rank, False)

    def _answered(self, one: Answered, now: float, outputs: list[Output]) -> None:
        answer, request = one.answer, one.request
        if isinstance(answer, Appended):
            self.inflight = None
            self.seq = request.seq
            self.again = True
            events = [event for group in self.groups for event in group.events]
            if answer.version == self.state.version + 1 and not answer.duplicate:
                commit = Commit(answer.version, answer.epoch, request.producer, request.seq, request.decided_at, now, events, {},
                                payload_hash(request.payload))  # fmt: skip
                self.state.apply(commit)
            self.groups = []
            self.wait_for = answer.version
            self._maybe_snapshot(outputs)
        elif isinstance(answer, Conflicted):
            self._drop_losers(set(answer.things), request.decided_at, outputs)
        elif isinstance(answer, Gap):
            self.inflight = None
            self.seq = answer.last
            self._requeue(self.groups)
            self.again = True
        elif isinstance(answer, StaleEpoch):
            self._requeue(self.groups)
            outputs.append(Note("warning", "the epoch has changed; reading the tail again"))
        else:
            raise Corrupt(f"the store answered {answer}", code="protocol")

    def _drop_losers(self, things: set[str], decided_at: int, outputs: list[Output]) -> None:
        """Resend without the groups whose premises moved, and without takers of what those would have freed."""
        self.inflight = None
        kept, dropped = without_losers(self.groups, things)
        if decided_at != self.state.version:  # more has been folded since: what is kept may be wrong by now
            dropped, kept = self.groups, []
        self._requeue(dropped)
        self.again = True
        self.wait_for = decided_at + 1
        if kept:
            self._write(kept, outputs)

    def _requeue(self, groups: list[Group]) -> None:
        self.greet |= look_again(groups, self.state, self.planner, self.waiting, self.inactive)
        self.watch.again()
        self.groups = []

    # -- one pass -------------------------------------------------------------------------------------------------

    def _pass(self, now: float, outputs: list[Output]) -> None:
        state, self.again = self.state, False
        before, self.stopping = self.stopping, is_stopping(state)
        if before and not self.stopping:  # brought up again before it was down: what was left out is due
            self._take_over()
        elif self.stopping and not before:
            outputs.append(stop_word(state))
        touched = state.changed_nodes()
        if self.planner.sync(touched):
            self._look_again()
        aside = set_aside(state, now, BATCH, outputs)
        if aside:  # in a commit of their own: nothing else is said of these jobs in it, nothing placed on nodes in doubt
            self.again = True
            self._write([*aside, *recall_unusable(state, touched, now)], outputs)
            return
        self.admitted.clear()
        if state.retired != self.retired:
            self.retired = state.retired
            self._forget_retired()
        groups, adopted = answer_hellos(state, now, self.told)
        self.planner.leave(groups)
        self.handed.update(adopted)  # nothing else is said of these jobs in this pass
        for id in adopted:
            self.planner.dequeue(id)
        if self.greet:
            self.greet = False
            silent = [rank for rank, node in state.nodes.items() if not node.online]
            groups.append(Group(to_nodes=[(rank, ["hello"]) for rank in silent]))
        groups.extend(recall_unusable(state, touched, now))
        self.waiting.due(now)
        self.requeued.due(now)
        self.leaves.due(state, now)
        ids = take_touched(state, BATCH)
        self.waiting.renamed(ids)
        for id in ids:
            job = state.jobs.get(id)
            if job is not None and id not in self.handed:
                self._attend(job, now, groups)
                self.handed.add(id)
        self.handed.clear()
        self.again = self.again or bool(state.attention)
        groups.extend(self.deadlines.due(state, now))
        groups.extend(self.housekeeping.due(state, now))
        if self.watch.news:
            groups.extend(self.planner.leave(self.watch.due(state, now)))
        pause = wait_until(state, now)
        if len(groups) < BATCH and state.epoch == self.meta.epoch and not pause:
            groups.extend(self.planner.plan(now, BATCH - len(groups)))
            outputs += complaints(self.planner)
            self.again = self.again or self.planner.unfinished
        if asks := self.waiting.asks():
            outputs.append(Lookup(asks))
            self.again = self.again or bool(self.waiting.ask)
        wakes = (self.planner.say_at, self.planner.bench.due(now), self.deadlines.next(), self.requeued.next(), self.waiting.next(),
                 self.housekeeping.next(), self.leaves.next(), pause)  # fmt: skip
        self.due = min(filter(None, wakes), default=0.0)
        self._retire(now, groups)
        if groups:
            self._write(groups, outputs)
        elif self.again:
            outputs.append(WakeAt(now))

    def _look_again(self) -> None:
        """Another inventory or config: what each pending job asks for, and whether it can be had, is to be found out anew."""
        planner = self.planner
        self.state.keeping_news.update(dict.fromkeys(self.state.keeping))  # nodes may go back earlier now
        for id in [*(entry.job for entry in planner.lines), *planner.parked]:
            planner.dequeue(id)
            if id in self.state.jobs:
                self.state.attention[id] = None

    def _attend(self, job: Job, now: float, groups: list[Group]) -> None:
        """Bring one job forward."""
        planner = self.planner
        self.waiting.touched(job)
        if job.state & (NEW | DEPEND | PRIORITY | CLEANUP | RUN):
            if job.resized is None:
                planner.dequeue(job.id)
            things: list[str] = []
            if job.state == NEW and self.state.config_entry is not None:
                group, things = admit(self.state, job, now, self.admitted, self.validate)
                if group is not None:
                    groups.append(group)
                    return
            if job.state == PRIORITY and job.requeued is not None and self.requeued.rests(job, now):
                return
            step = self.waiting.step(job, now) if job.state & (NEW | DEPEND) else None
            group = advance(job, now, step, scripts=self.state.rules.scripts)
            if job.state & RUN and job.holds:
                self.deadlines.note(job)
                if job.id not in planner.seat_by_job:
                    planner.seated(job, self._shape(job), job.ranks)
            if job.resized is not None:
                group = self.leaves.look(planner, job, group, now)
            if group is None:
                return
            if job.id in self.state.keeping:  # the housekeeping of its last attempt goes on, and reports under that
                group.clears = [thing for thing in group.clears if thing != f"attempt/{job.id}"]
            group.things += things
            group.bumps += things
            if group.run or group.failed or group.parts:
                add_orders(self.state, planner, job, group, now)
            if group.ready:
                self._ready(job, group, now)
            if group.frees and not group.partly:
                self._freed(job, group, now)
            back_in_line(self.state, group, now)
            if self.waiting.on_end:
                self.waiting.follow(group, now, BATCH - len(self.handed), self.handed, self._ready)
            groups.append(group)
        elif job.state == SCHED:
            if job.granted is not None:
                planner.dequeue(job.id)
                planner.ahead_of(job.id, job.granted[0], job.granted[1], now)
            else:
                planner.came_back(job.id, now)
                if not planner.in_line(job):
                    self._line_up(job, job.priority, now, groups)
        elif job.state == INACTIVE:
            planner.dequeue(job.id)
            planner.unseated(job.id)
            planner.forget_ahead(job.id)
            self.inactive[job.id] = None

    def _shape(self, job: Job) -> str:
        try:
            return self.planner.shape(self.planner.compiled(job), job)
        except Rejected:
            return ""

    def _ready(self, job: Job, group: Group, now: float) -> None:
        """The group brings the job to SCHED: line it up for this very pass, or end it if it can never run."""
        priority = group.events[-1][3]["priority"]
        if job.granted is not None:  # placed ahead: it must not be placed twice; a held one is asked back
            group.ready = False
            if priority == 0 and not job.recalled and not job.seat_of:
                group.events.append(["recall", job.id, now, None])
                group.to_nodes.append((job.granted[0], ["recall", job.id, job.attempt_id]))
            return
        try:
            self.planner.enqueue(job, priority)
        except Rejected as error:
            group.ready = False
            if error.code in WAITS and fitted_once(self.state, job):
                return  # it is in SCHED with this, where it waits
            group.events.append(refusal(job, error, now))
            group.events.append(["clean", job.id, now, None])

    def _line_up(self, job: Job, priority: int, now: float, groups: list[Group]) -> None:
        """A job that was taken in before. One that the inventory or the config has left behind since waits for another."""
        try:
            self.planner.enqueue(job, priority)
        except Rejected as error:
            if error.code in WAITS:
                self.planner.parked.add(job.id)
                if job.reason != [error.code, str(error)]:
                    groups.append(self.planner.reason(job, error.code, str(error), now))
                return
            thing = f"job/{job.id}"
            groups.append(Group([refusal(job, error, now), ["clean", job.id, now, None]], [thing], [thing]))

    def _freed(self, job: Job, group: Group, now: float) -> None:
        """Its resources are free for this very pass, unless a granted job has taken over the seat already."""
        shape = self.planner.shape_of(job.id)
        for one in job.over.values():
            if job.started and not one[0]:
                self.planner.learn(shape, max(0.0, one[1] - min(job.started.values())), job.ranks, now)
        before = len(group.takes)
        hand_over(self.state.jobs, job, now, group)
        if len(group.takes) == before:
            give_back(self.planner, job)
        self.planner.unseated(job.id)
        for event in group.events:
            if event[0] == "alloc":
                successor = self.state.jobs[event[1]]
                self.planner.seated(successor, shape, job.ranks)
                self.planner.dequeue(event[1])
                self.handed.add(event[1])

    # -- writing --------------------------------------------------------------------------------------------------

    def _write(self, groups: list[Group], outputs: list[Output]) -> None:
        request = assemble(groups, self.meta, self.state, self.name, self.seq + 1)
        self.groups = groups
        self.inflight = request
        outputs.append(Write(request))

    def _retire(self, now: float, groups: list[Group]) -> None:
        """Old inactive jobs leave the state, by an event; the journal keeps them."""
        if len(self.inactive) <= RETIRE_ABOVE + RETIRE_CHUNK:
            return
        jobs = self.state.jobs
        oldest = [jobs[id] for id in islice(self.inactive, RETIRE_CHUNK) if id in jobs]
        if oldest:
            context = retirement(oldest)
            for id in context["jobs"]:
                del self.inactive[id]
            groups.append(Group([["retire", "instance", now, context]]))

    def _forget_retired(self) -> None:
        """Another worker may have retired what this one had not looked at since it ended."""
        self.waiting.gone()
        jobs, planner = self.state.jobs, self.planner
        self.inactive = {id: None for id in self.inactive if id in jobs}
        lined = (entry.job for entry in planner.lines)
        for id in [id for id in (*lined, *planner.parked, *planner.said, *planner.ahead, *planner.seat_by_job) if id not in jobs]:
            planner.dequeue(id)
            planner.unseated(id)
            planner.forget_ahead(id)

    def _maybe_snapshot(self, outputs: list[Output]) -> None:
        """Taking one costs time for each active job, and some bytes on disk for each inactive one."""
        if (tail := self._tail) > SNAPSHOT_EVENTS:
            inactive = self.state.count(INACTIVE)
            if tail > max(4 * (len(self.state.jobs) - inactive), 2 * inactive):
                self._snapshot(outputs)

    def _when_quiet(self, now: float, outputs: list[Output]) -> None:
        """Nothing happens for a while: a snapshot now spares every reader a long tail."""
        if self._tail > max(QUIET_EVENTS, len(self.state.jobs) - self.state.count(INACTIVE)):
            if now - self.moved >= self.quiet_s:
                self._snapshot(outputs)
            else:
                outputs.append(WakeAt(self.moved + self.quiet_s))

    @property
    def _tail(self) -> int:
        return self.state.folded - self.snapshot_events

    def _snapshot(self, outputs: list[Output]) -> None:
        self.snapshot_events = self.state.folded
        outputs.append(Snapshot(floor=max(0, self.state.version - KEPT_GUARDS)))
