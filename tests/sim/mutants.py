"""Planted faults: what a tired hand might break in production code, one at a time, in the simulator's process.

The list was fixed before the simulator's invariants were written (see the history of this file). A mutant is caught
when an invariant of the simulator fails on some seed; no test is written for any of them. `CAUGHT` (in `test_mutants`) names
the seed that the cheap test plays.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fluxkv.instances import (
    agent,
    attempts,
    boot,
    child,
    child_inventory,
    commits,
    deadlines,
    fence,
    greeting,
    growing,
    handover,
    planner,
    resume,
    underway,
    witness,
    worker,
)
from fluxkv.instances import cron as cron_driver
from fluxkv.instances.node_watch import NodeWatch
from fluxkv.journal import decide, decide_cron, derive, derive_resize, fold_words, graph_edit, snapshot
from fluxkv.journal.holding import words_of
from fluxkv.journal.node import Node
from fluxkv.journal.state import State
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Appended, Conflicted

Patch = Callable[[Any, str, Any], None]
ABSENT = object()  # a built-in that a module sees, but does not hold


class Mutant(NamedTuple):
    """name; what is broken, in words; plant: does it; kind: of which seeds (`hunts.KINDS`) some show it."""

    name: str
    breaks: str
    plant: Callable[[Patch], None]
    kind: str = "first"


MUTANTS: list[Mutant] = []


def mutant(breaks: str, kind: str = "first") -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a planted fault under its function's name."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS.append(Mutant(plant.__name__.replace("_", "-"), breaks, plant, kind))
        return plant

    return register


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The fault is there while the block runs."""
    before: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, value: Any) -> None:
        assert hasattr(owner, name) or hasattr(builtins, name), f"{mutant.name}: {owner} has no {name} any more"
        before.append((owner, name, owner.__dict__.get(name, ABSENT)))
        setattr(owner, name, value)

    try:
        mutant.plant(patch)
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


# -- guards and the store -----------------------------------------------------------------------------------------


@mutant("a worker's commits guard nothing: whatever moved since it decided")
def guards_dropped(patch: Patch) -> None:
    honest = commits.assemble
    patch(worker, "assemble", lambda *args: honest(*args)._replace(since=()))


@mutant("a worker's allocations guard the node, but neither job nor plan: a stale plan is accepted")
def stale_plan_accepted(patch: Patch) -> None:
    honest = commits.assemble

    def assemble(*args: Any) -> Any:
        request = honest(*args)
        return request._replace(since=tuple(thing for thing in request.since if thing.startswith("node/")))

    patch(worker, "assemble", assemble)


@mutant("reports do not name the attempt they are about")
def report_guard_dropped(patch: Patch) -> None:
    honest = agent.Append
    patch(agent, "Append", lambda **fields: honest(**{**fields, "exact": ()}))


@mutant("a submission does not guard its ids as absent")
def submit_guard_dropped(patch: Patch) -> None:
    honest = decide.submit

    def submit(*args: Any) -> decide.Decision:
        decision = honest(*args)
        decision.absent = [thing for thing in decision.absent if not thing.startswith("job/")]
        return decision

    patch(decide, "submit", submit)


@mutant("the store takes a sequence twice")
def dedup_dropped(patch: Patch) -> None:
    honest = MemoryStore._sequence

    def sequence(self: MemoryStore, found: Any, request: Any) -> Any:
        answer = honest(self, found, request)
        return None if isinstance(answer, Appended) else answer

    patch(MemoryStore, "_sequence", sequence)


@mutant("the store appends under any epoch")
def epoch_ignored(patch: Patch) -> None:
    honest = MemoryStore._decide

    def judge(self: MemoryStore, request: Any) -> Any:
        found = self.server.tables.instances[self.namespace]
        found.replid = self.server.replid
        return honest(self, request._replace(epoch=found.epoch))

    patch(MemoryStore, "_decide", judge)


@mutant("an absent guard below the floor counts as not bumped")
def floor_ignored(patch: Patch) -> None:
    honest = MemoryStore._moved

    def moved(found: Any, request: Any) -> Any:
        return honest(found, request._replace(decided_at=max(request.decided_at, found.floor)))

    patch(MemoryStore, "_moved", staticmethod(moved))


@mutant("past the soft line of memory everything is refused, what ends jobs too")
def full_store_refuses_all(patch: Patch) -> None:
    honest = MemoryStore._decide
    patch(MemoryStore, "_decide", lambda self, request: honest(self, request._replace(refusable=True)))


# -- snapshots, folds, positions ----------------------------------------------------------------------------------


@mutant("a snapshot is read as if it were of the version after its own")
def snapshot_off_by_one(patch: Patch) -> None:
    honest = snapshot.load

    def load(*args: Any, **options: Any) -> State:
        state = honest(*args, **options)
        state.version += 1
        return state

    patch(snapshot, "load", load)


@mutant("a change by another subject's event leaves the job's hash as it was")
def digest_stale(patch: Patch) -> None:
    honest = State.touch

    def touch(self: State, job: Any, version: int) -> None:
        clean = job.id not in self.dirty_jobs
        honest(self, job, version)
        if clean:
            self.dirty_jobs.discard(job.id)

    patch(State, "touch", touch)


@mutant("the agent keeps its inbox position before it has acted on what it read")
def cursor_moved_first(patch: Patch) -> None:
    honest = agent.Agent._messages

    def messages(self: agent.Agent, one: Any, outputs: list[Any]) -> None:
        at = len(outputs)
        honest(self, one, outputs)
        outputs.insert(at, agent.ToLauncher(["ack", []]))

    patch(agent.Agent, "_messages", messages)
    patch(agent, "keeps_cursors", lambda output: False)  # a step puts it last else


@mutant("the launcher is told to forget an end before the report is in the journal")
def acked_before_appended(patch: Patch) -> None:
    honest = agent.Agent._send

    def send(self: agent.Agent, events: Any, bumps: Any, exact: Any, outputs: list[Any]) -> None:
        keys = [self.names.get((job, version, rank, letter), "") for rank, rows in self.sent.items()
                for job, version, letter in rows.ended()]  # fmt: skip
        if keys:
            outputs.append(agent.ToLauncher(["ack", keys]))
        honest(self, events, bumps, exact, outputs)

    patch(agent.Agent, "_send", send)


@mutant("what comes again from an inbox is done again", kind="late")
def redelivery_not_noticed(patch: Patch) -> None:
    honest = agent.Agent._messages

    def messages(self: agent.Agent, one: Any, outputs: list[Any]) -> None:
        rank = int(one.name.rpartition("/")[2])
        kept = self.cursors.pop(rank, None)
        honest(self, one, outputs)
        if kept is not None and rank not in self.cursors:
            self.cursors[rank] = kept

    patch(agent.Agent, "_messages", messages)


# -- the worker's bookkeeping -------------------------------------------------------------------------------------


@mutant("what lost a conflict is not looked at again")
def losers_forgotten(patch: Patch) -> None:
    patch(worker.Worker, "_requeue", lambda self, groups: None)


@mutant("a commit that met a conflict is applied all the same")
def conflict_loser_applied(patch: Patch) -> None:
    honest = worker.Worker._answered

    def answered(self: worker.Worker, one: Any, now: float, outputs: list[Any]) -> None:
        if isinstance(one.answer, Conflicted):
            one = one._replace(answer=Appended(self.state.version + 1, self.state.epoch))
        honest(self, one, now, outputs)

    patch(worker.Worker, "_answered", answered)


@mutant("whoever would have taken what a loser frees goes in without it")
def taker_without_giver(patch: Patch) -> None:
    def without_losers(groups: Any, things: set[str]) -> Any:
        lost = [group for group in groups if things.intersection(group.things)]
        return [group for group in groups if group not in lost], lost

    patch(worker, "without_losers", without_losers)


@mutant("resources that a successor has taken over are given back to the pool as well")
def double_free(patch: Patch) -> None:
    honest = worker.Worker._freed

    def freed(self: worker.Worker, job: Any, group: Any, now: float) -> None:
        honest(self, job, group, now)
        if group.takes:
            self.planner.pool.give(job.claims)

    patch(worker.Worker, "_freed", freed)


@mutant("placements are believed as the policy proposes them")
def policy_believed(patch: Patch) -> None:
    patch(underway, "sound", lambda decisions, *args: decisions)


@mutant("the backstop of a time limit is the worker's own clock, without any allowance")
def deadline_from_wall_clock(patch: Patch) -> None:
    patch(deadlines, "BACKSTOP_S", 0.0)


# -- ends of jobs -------------------------------------------------------------------------------------------------


@mutant("a job is released as soon as one of its nodes is done")
def released_before_all_ranks(patch: Patch) -> None:
    patch(derive, "all", lambda values: any(list(values)))


@mutant("a job placed ahead that is cancelled is cleaned without its node's word")
def recall_not_awaited(patch: Patch) -> None:
    honest = derive._cleaning

    def cleaning(job: Any, now: float, group: Any, scripts: Any) -> None:
        if job.granted is not None and not job.seat_of:
            group.events.append(["clean", job.id, now, None])
            group.clears.append(f"attempt/{job.id}")
            return
        honest(job, now, group, scripts)

    patch(derive, "_cleaning", cleaning)


@mutant("what had ended by itself when its instance was stopped is run again", kind="deep")
def ended_by_itself_again(patch: Patch) -> None:
    patch(derive, "_had_ended", lambda job, spared: False)


@mutant("a report about an attempt is believed whatever attempt is current", kind="late")
def late_report_believed(patch: Patch) -> None:
    honest = fold_words.report

    def report(state: State, subject: str, ts: float, context: Any, version: int) -> None:
        for kind in ("start", "over", "unstarted"):
            for row in context.get(kind, ()):
                job = state.jobs.get(row[0])
                if job is not None and job.attempt:
                    row[1] = job.attempt
        honest(state, subject, ts, context, version)

    patch(fold_words, "HANDLERS", {**fold_words.HANDLERS, "report": report})


# -- nodes and epochs ---------------------------------------------------------------------------------------------


@mutant("an agent that comes back does not ask what its launcher holds")
def spool_ignored(patch: Patch) -> None:
    honest = agent.Agent._held
    patch(agent.Agent, "_held", lambda self, rows, outputs: honest(self, [], outputs))


@mutant("a hello settles nothing: what is gone is not lost, what is unknown is not ended")
def hello_ignored(patch: Patch) -> None:
    honest = greeting.answer_hello

    def answer_hello(state: State, rank: int, now: float, adopting: Any) -> Any:
        group = honest(state, rank, now, adopting)
        if group is not None:
            group.events = [event for event in group.events if event[0] == "online"]
            group.to_nodes = []
        return group if group is not None and group.events else None

    patch(greeting, "answer_hello", answer_hello)


@mutant("a node may be used before its agent has spoken under this epoch")
def used_before_hello(patch: Patch) -> None:
    patch(Node, "usable", property(lambda self: self.drain is None))


@mutant("nodes stay as they were when history goes on under another epoch")
def epoch_changes_nothing(patch: Patch) -> None:
    patch(State, "_leave_epoch", lambda self, new: None)
    patch(fold_words, "HANDLERS", {**fold_words.HANDLERS, "epoch": fold_words.said})


@mutant("a server that lost acknowledged history is taken up as if it were whole")
def witness_ignored(patch: Patch) -> None:
    patch(witness, "witnesses", lambda state_dir: [])
    patch(witness, "read_tip", lambda state_dir: None)


# -- silence and children: planted when the simulator came to play them, before it had caught anything of the sort --------------


@mutant("a silence counts double: attempts of a silent node are lost when their launcher begins to end them", kind="deep")
def silence_counts_double(patch: Patch) -> None:
    honest = NodeWatch.silent_s
    patch(NodeWatch, "silent_s", lambda self, rank: 2 * honest(self, rank))


@mutant("a launcher begins what was ordered before a silence, once the store has answered again", kind="silent")
def silence_forgotten(patch: Patch) -> None:
    patch(fence.Fence, "bars", lambda self, key, now, ordered=0: self.cut_off(now))


@mutant("a launcher ends nothing however long it is cut off", kind="deep")
def cut_off_goes_on(patch: Patch) -> None:
    patch(fence.Fence, "cut_off", lambda self, now: False)


@mutant("a child has its nodes whole, whatever its job was given there", kind="nested")
def child_has_nodes_whole(patch: Patch) -> None:
    honest = child_inventory.NodeRecord
    patch(child_inventory, "NodeRecord", lambda rank, host, cores, *rest: honest(rank, host, 15, *rest))


@mutant("the child of a requeued job goes on in the namespace of its last attempt", kind="nested")
def child_keeps_its_namespace(patch: Patch) -> None:
    honest = child.child_uri
    patch(child, "child_uri", lambda parent, job, number=1: honest(parent, job))
    patch(boot, "_refuse_another_attempt", lambda store, settings: None)  # which would keep it out


# -- hand-over between levels: planted with the rules that hold it to every version -----------------------------------------------


@mutant("a child's graph has what its job draws from as a whole", kind="deep")
def child_has_pools_whole(patch: Patch) -> None:
    honest = graph_edit.granted

    def granted(graph: Any, claims: Any, **options: Any) -> Any:
        def whole(draw: Any) -> Any:
            place = graph.places[draw.vertex]
            return draw._replace(units=place.size, ids=place.ids)

        return honest(graph, [one._replace(draws=tuple(map(whole, one.draws))) for one in claims], **options)

    patch(graph_edit, "granted", granted)


@mutant("an agent in a job counts its cores from the other end of the machine", kind="deep")
def counted_from_the_other_end(patch: Patch) -> None:
    honest = attempts._seat_cpus

    def seat_cpus(host: Any, cores: tuple[int, ...], affinity: str) -> list[int]:
        inside = not host.uri.endswith("#/")
        return honest(host, tuple(max(host.cpus) - core for core in cores) if inside else cores, affinity)

    patch(attempts, "_seat_cpus", seat_cpus)


@mutant("a node that is asked back is freed when its time is up, without its agent's word (HAZARD 5)", kind="resized")
def shrunk_by_a_time_out(patch: Patch) -> None:
    honest = derive_resize.give_back

    def give_back(job: Any, now: float, group: Any, scripts: Any) -> bool:
        late = derive_resize.to_force(job, now)
        if not late:
            return honest(job, now, group, scripts)
        where = {"ranks": derive_resize.format_ids(late)}
        group.events += [["release", job.id, now, {**where, "final": False}], ["free", job.id, now, where]]
        group.partly = True
        group.frees += words_of(claim for claim in job.claims if claim.rank in late)
        return True

    patch(derive_resize, "give_back", give_back)


def _spoil_prologs(patch: Patch, spoil: Callable[[Any, list[Any]], None]) -> None:
    """Where a node that comes while its job runs has a prolog, do this to what is decided; given the orders of its tasks."""
    honest = planner.grown

    def grown(state: Any, job: Any, claims: Any, now: float) -> Any:
        group = honest(state, job, claims, now)
        if any(order[0] == "script" for _, order in group.to_nodes):
            size = len(job.claims) + len(claims)
            spoil(group, growing._orders(state, job, claims, growing.next_index(job), size))
        return group

    patch(planner, "grown", grown)


@mutant("a node that comes while its job runs has its tasks ordered beside its prolog", kind="scripted")
def tasks_beside_their_prolog(patch: Patch) -> None:
    def spoil(group: Any, orders: list[Any]) -> None:
        group.to_nodes += orders

    _spoil_prologs(patch, spoil)


@mutant("a node that comes while its job runs has its tasks ordered without a prolog", kind="scripted")
def prolog_skipped(patch: Patch) -> None:
    def spoil(group: Any, orders: list[Any]) -> None:
        group.events = group.events[:1]
        group.to_nodes = orders

    _spoil_prologs(patch, spoil)


@mutant("a job goes on with an instance whose job holds it still", kind="resumed")
def goes_on_beside_another(patch: Patch) -> None:
    patch(resume, "refuse_alive", lambda *args, **options: None)


# -- instances with servers of their own: planted once the simulator played them ---------------------------------------------------


@mutant("what is handed up is not sealed first", kind="own")
def handed_up_unsealed(patch: Patch) -> None:
    honest = handover.bring

    def bring(source: Any, *rest: Any) -> bool:
        source.seal = lambda uid: None
        return honest(source, *rest)

    patch(handover, "bring", bring)


@mutant("a child is handed up whatever became of its attempt in its parent's history", kind="own")
def attempt_not_looked_at(patch: Patch) -> None:
    patch(handover, "_check_attempt", lambda *args: None)


@mutant("those inside a child are not brought once more after it", kind="own")
def no_second_pass(patch: Patch) -> None:
    def in_order(found: Any, reverse: bool = False) -> list[Any]:
        names = list(found)
        return [] if not reverse and names and str(names[0]).startswith("/") else sorted(names, reverse=reverse)

    patch(handover, "sorted", in_order)


# -- cron ---------------------------------------------------------------------------------------------------------


@mutant("a run of cron does not guard its entry: two drivers fire twice")
def cron_fires_twice(patch: Patch) -> None:
    honest = decide_cron.act

    def act(*args: Any, **options: Any) -> Any:
        decision = honest(*args, **options)
        if decision is not None:
            decision.since = []
        return decision

    patch(cron_driver.decide_cron, "act", act)


__all__ = ["MUTANTS", "Mutant", "planted"]
