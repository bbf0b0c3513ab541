"""What a worker owes its nodes: the answer to an agent's hello, and recalls from nodes that must not be used. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..journal.derive import Group
from ..journal.derive_scripts import tasks_ordered
from ..journal.job import Job
from ..journal.node import REBOOTED
from ..journal.resizing import being_ended, ordered_at, runs_on, script_on, script_ordered_at
from ..journal.scripts import HOUSEKEEPING, LETTERS, PROLOG
from ..journal.state import State
from . import foreign
from .orders import split_attempt

AGAIN_S = 1.0  # how soon a node that is to be looked at again is told the same once more

Told = dict[int, tuple[object, object, float]]  # rank -> its hello, the orders it was given, when


def answer_hellos(state: State, now: float, told: Told) -> tuple[list[Group], Iterable[int]]:
    """What is owed to all who said hello, and the jobs that are adopted by it. Who is to be looked at again stays in line.

    told: what those were told, kept by the caller. Each pass would tell them so again, and each telling is a commit and a pass.
    """
    adopting = foreign.Adopting()
    found = [group for rank in sorted(state.said_hello) if (group := answer_hello(state, rank, now, adopting)) is not None]
    state.said_hello = {group.hello: state.said_hello[group.hello] for group in found if group.later}
    for rank in set(told).difference(state.said_hello):
        del told[rank]
    return [group for group in found if group.events or (group.to_nodes and not _told(state, group, now, told))], adopting.names


def _told(state: State, group: Group, now: float, told: Told) -> bool:
    """Whether the node of a group that says nothing else has just been told this, at this hello. If not, it is now."""
    if not group.later:
        return False
    what = (state.nodes[group.hello].hello, [order for _, order in group.to_nodes])
    before = told.get(group.hello)
    if before is not None and before[:2] == what and before[2] <= now < before[2] + AGAIN_S:
        return True
    told[group.hello] = (*what, now)
    return False


def answer_hello(state: State, rank: int, now: float, adopting: foreign.Adopting) -> Group | None:
    """An agent begins: settle what it no longer has, forget what it should not have, then use its node.

    Looking again at the same hello is harmless: it judges only attempts whose orders the agent had read by then.
    """
    node = state.nodes.get(rank)
    if node is None or node.hello is None:
        return None
    _, _, epoch, cursor, held = node.hello
    if epoch != state.epoch:
        return None
    read = int(str(cursor).split("-")[0] or 0)
    gone = REBOOTED if state.said_hello.get(rank) else "its node no longer has it"
    listed = set(held)
    group = Group(things=[f"node/{rank}"], bumps=[f"node/{rank}"], hello=rank)
    known = set()
    for id in sorted(node.jobs | node.grants):
        job = state.jobs[id]
        known.add(job.key)
        _settle_script(state, job, rank, read, listed, known, group, now, gone)
        if job.key in listed:
            if rank in job.over and job.over[rank][2].startswith("lost:"):  # it was given up, and must not be there any more
                group.to_nodes.append((rank, ["forget", job.key]))
            elif cause := being_ended(job, rank):  # the order may have died with its launcher
                group.to_nodes.append((rank, ["end", id, job.attempt_id, cause]))
            elif job.recalled and job.granted is not None and not job.seat_of:
                group.to_nodes.append((rank, ["recall", id, job.attempt_id]))
            if job.granted is not None:
                foreign.settle_granted(state, job, rank, group, now, adopting)
        elif (job.holds or job.seat_of) and rank not in job.over and 0 < ordered_at(job, rank, tasks_ordered(job)) <= read:
            group.events.append(["lost", id, now, {"rank": rank, "cause": gone}])
            group.things.append(f"job/{id}")
            group.bumps.append(f"job/{id}")
    for id in sorted(node.keeping):
        keeping = state.keeping[id]
        name = f"{id}.{keeping.attempt_id}{LETTERS[HOUSEKEEPING]}"
        known.add(name)
        if name not in listed and rank not in keeping.results and keeping.order <= read:
            context = {"rank": rank, "cause": gone}
            group.events.append([f"{HOUSEKEEPING}-lost", f"{HOUSEKEEPING}/{id}", now, context])
            group.things.append(f"job/{id}")
            group.bumps.append(f"job/{id}")
    unknown, settled = [], []
    for key in sorted(listed - known):
        job_of = state.jobs.get(split_attempt(key))
        if job_of is None or job_of.key != key or (job_of.holds and rank not in job_of.ranks):
            unknown.append(key)
        else:
            settled.append(key)  # over and settled: its node will hear so
    if foreign.adopted_at(state):  # it may hold back what it knows of those that were adopted before, under their own names
        names = sorted([*(listed & known), *settled])
        group.to_nodes += [(rank, ["adopted", split_attempt(name), name.partition(".")[2]]) for name in names]
    ended = state.said_current.get(rank, set()).intersection(unknown)
    if ended:  # since it said so: its node may know by now, or have been given up; it says anew what it has
        unknown = [name for name in unknown if name not in ended]
        group.to_nodes.append((rank, ["hello"]))
    usable = (not unknown or foreign.settle(state, rank, unknown, group, now, adopting)) and not ended
    if any(order[0] == "forget" for _, order in group.to_nodes):
        if node.online:  # what the journal does not know is still there, on what it would sell
            reason = "ends what the journal does not know"
            group.events.append(["offline", "resource", now, {"idset": str(rank), "reason": reason}])
    elif usable and not node.online:
        group.events.append(["online", "resource", now, {"idset": str(rank)}])
    return group if group.events or group.to_nodes or group.later else None


def _settle_script(
    state: State, job: Job, rank: int, read: int, listed: set[str], known: set[str], group: Group, now: float, gone: str
) -> None:
    """The same for a script that is going on there, around the job or on that node of it alone."""
    if kind := script_on(job, rank):
        order, over = script_ordered_at(job, rank), not runs_on(job, rank)
    elif job.script is not None and job.script[0] and rank in job.script[2]:
        kind, order, over = job.script[0], job.script[1], rank in job.script[3]
    else:
        return
    name = job.key + LETTERS[kind]
    known.add(name)
    if over:
        return
    if name in listed:
        prolog = state.rules.scripts.prolog
        may = kind == PROLOG and (prolog is None or prolog.cancel_on_exception or not job.ending)
        if may and (cause := being_ended(job, rank)):  # others run to their end, whatever ended the job
            group.to_nodes.append((rank, ["end", job.id, job.attempt_id + LETTERS[kind], cause]))
    elif order <= read:
        group.events.append(["lost", job.id, now, {"rank": rank, "cause": gone, "script": kind}])
        group.things.append(f"job/{job.id}")
        group.bumps.append(f"job/{job.id}")


def recall_unusable(state: State, ranks: Iterable[int], now: float) -> list[Group]:
    """Nodes that were drained give back what was placed ahead on them; so does a queue that is stopped, or is no more."""
    groups = []
    stopped = not all(state.may_start(name) for name in state.queues)
    for rank in ranks if not stopped else list(state.nodes):
        node = state.nodes.get(rank)
        if node is None or not node.grants or not (stopped or node.drain is not None):
            continue
        for id in sorted(node.grants):
            job = state.jobs[id]
            if job.granted is None or job.recalled or job.seat_of:
                continue
            if node.drain is not None or (stopped and not state.may_start(job.queue)):
                thing = f"job/{id}"
                group = Group([["recall", id, now, None]], [thing], [thing])
                group.to_nodes.append((rank, ["recall", id, job.attempt_id]))
                groups.append(group)
    return groups
