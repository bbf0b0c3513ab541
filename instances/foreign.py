"""What a worker does about attempts that nodes hold and the journal does not know: the branch that began them was lost. Pure.

Each is adopted, by an `alloc` under its own name, if its job is pending and what it holds is free, or it is ended, with a
`fence` event. A node is used only when none of these is left on it, and nothing is placed anywhere before all nodes that
had been up when the history was adopted have spoken (at most `WAIT_S`): one of them may hold the very job that is next in line. Of
one that this history has never heard nobody knows whether the lost branch had.
"""

from __future__ import annotations

from typing import Any

from ..journal.claims import from_wire
from ..journal.derive import Group
from ..journal.holding import fits, pools_of, words_of
from ..journal.job import INACTIVE, NEW, PRIORITY, SCHED, Job
from ..journal.scripts import LETTERS
from ..journal.state import State
from .commits import premises
from .orders import split_attempt

WAIT_S = 30.0


def adopted_at(state: State) -> float:
    """When what is left of this history was adopted (Unix seconds), 0.0 for never."""
    found = state.instance.get("adopted")
    return float(found[0]) if found else 0.0


def wait_until(state: State, now: float) -> float:
    """Until when nothing is placed, at most: after an adoption, as long as a node that may have been up has not spoken, or one
    still ends what the journal does not know, or has a part of something that waits for other parts. 0.0: planning goes on."""
    since = adopted_at(state)
    if not since or now >= since + WAIT_S:
        return 0.0
    heard = set(state.instance["adopted"][3])
    if not state.said_hello and all(one.online or not (one.hello is None or one.rank in heard) for one in state.nodes.values()):
        return 0.0
    return since + WAIT_S


class Adopting:
    """What one pass of a worker adopts, on whichever nodes. names: of each job's attempt; claims: theirs, as an alloc has them."""

    __slots__ = ("claims", "names")

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.claims: list[Any] = []


def settle(state: State, rank: int, names: list[str], group: Group, now: float, adopting: Adopting) -> bool:
    """Decide about attempts (by name) on this node that the journal does not know, in this group. True: its node may be used.

    Else it is looked at again (`group.later`), or the node has been told something that makes it say hello again.
    """
    if rank not in state.said_claims:  # folded by somebody else: what these hold stands in no state
        group.to_nodes.append((rank, ["hello"]))
        return False
    claims = state.said_claims[rank]
    fenced = False
    for name in names:
        job = state.jobs.get(split_attempt(name))
        if job is not None and adopting.names.get(job.id) == name:
            continue
        cause = _cause(state, job, name)
        if not cause and job is not None and job.id in adopting.names:
            cause = "another attempt of its job goes on"
        if not cause and (not adopted_at(state) or _given_up(job, name)):
            cause = "its node was given up"  # it was begun on no lost branch: it has been said to be over, and its job begins anew
        if cause == "" and job is not None:
            row = claims.get(name)
            if job.state in (NEW, PRIORITY) and row is not None and (job.requeued is None or job.requeued[2] <= now):
                group.later = True  # it is about to come to where it can be allocated
                continue
            if row is None:
                cause = "it is over, or was not begun, on a branch that is lost"
            elif job.state != SCHED:
                cause = "its job waits for something, by this journal"
            else:
                rows = _all_parts(state, name, int(row[1]))
                if len(rows) < int(row[1]):
                    if now < adopted_at(state) + WAIT_S:
                        group.later = True  # other nodes have parts of it
                        continue
                    cause = "the other nodes it runs on have not spoken"
                elif not _free(state, rows, adopting.claims):
                    cause = "what it runs on is not free any more"
                else:
                    if rank == min(one[0][0] for one in rows):
                        adopt(state, job, name, rows, group, now, adopting)
                    continue
        _fence(job, rank, name, cause, group, now)
        fenced = True
    return not (fenced or group.later)


def settle_granted(state: State, job: Job, rank: int, group: Group, now: float, adopting: Adopting) -> None:
    """A job placed ahead that runs there on a seat whose holder the journal does not know, or has given up: it is allocated."""
    row = state.said_claims.get(rank, {}).get(job.key)
    if row is not None and not job.seat_of and _free(state, [row], adopting.claims):
        adopt(state, job, job.key, [row], group, now, adopting)
        context = group.events[-1][3]
        del context["adopted"]
        context["attempt"] = job.attempt
        group.sets.pop()


def _cause(state: State, job: Job | None, name: str) -> str:
    if job is None or job.state == INACTIVE:
        return "the journal does not know this job" if job is None else "its job is over"
    if name[-1] in LETTERS.values():
        return "a script of a branch that is lost"
    if job.holds or job.granted is not None:
        return "the journal has another attempt of its job"
    return ""


def _given_up(job: Job | None, name: str) -> bool:
    """Whether this very history began it, and the job has another attempt to come."""
    version = name.partition(".")[2].partition("-")[0]
    return job is not None and job.requeued is not None and version.isdecimal() and int(version[:20]) in job.commits


def _all_parts(state: State, name: str, count: int) -> list[list[Any]]:
    """[claim, number of nodes, start] of each node that has said in this epoch that it holds this attempt, by rank."""
    found = []
    for rank in sorted(state.nodes):
        node = state.nodes[rank]
        if node.hello is not None and node.hello[2] == state.epoch and name in node.hello[4]:
            row = state.said_claims.get(rank, {}).get(name)
            if row is not None and row[0][0] == rank:
                found.append(row)
    return found


def _free(state: State, rows: list[list[Any]], taken: list[Any]) -> bool:
    """Whether nobody holds what these parts hold, by the journal or by this very group."""
    claims = from_wire([row[0] for row in rows])
    for claim in claims:
        node = state.nodes.get(claim.rank)
        if node is None or claim.cores & (node.used_cores | ~node.cores) or claim.gpus & (node.used_gpus | ~node.gpus):
            return False
        if claim.memory_mb and node.used_memory_mb + claim.memory_mb > node.memory_mb:
            return False
        for other in from_wire(taken):
            if other.rank == claim.rank and (other.cores & claim.cores or other.gpus & claim.gpus):
                return False
    drawn = dict(state.drawn)
    for draw in (one for claim in (*from_wire(taken), *claims) for one in claim.draws):
        units, ids = drawn.get(draw.vertex, (0, 0))
        if not fits(state.graph, draw, units, ids):
            return False
        drawn[draw.vertex] = [units + draw.units, ids | draw.ids]
    return True


def adopt(state: State, job: Job, name: str, rows: list[list[Any]], group: Group, now: float, adopting: Adopting) -> None:
    """An alloc under the attempt's own name; the nodes hear that they may report about it."""
    adopting.names[job.id] = name
    adopting.claims += [row[0] for row in rows]
    entry = name.partition(".")[2]
    since = [[row[0][0], float(row[2])] for row in rows]
    start = max(at for _, at in since)
    context = {
        "claims": [row[0] for row in rows], "expiration": start + job.duration if job.duration else 0.0, "adopted": entry,
        "since": since,
    }  # fmt: skip
    group.events.append(["alloc", job.id, now, context])
    ranks = [row[0][0] for row in rows]
    claims = from_wire([row[0] for row in rows])
    things = [f"job/{job.id}", *(f"node/{rank}" for rank in ranks), *pools_of(state.graph, claims), *premises(state, job)]
    group.things += [thing for thing in things if thing not in group.things]
    group.bumps += [thing for thing in things if thing not in group.bumps]
    group.sets.append((f"attempt/{job.id}", entry))
    group.takes += words_of(claims)
    group.to_nodes += [(rank, ["adopted", job.id, entry]) for rank in ranks]


def _fence(job: Job | None, rank: int, name: str, cause: str, group: Group, now: float) -> None:
    """Its node is told to end it, and an event says so, about the job if there is one."""
    if job is None or job.state == INACTIVE:
        context = {"rank": rank, "attempt": name, "cause": cause}
        group.events.append(["fence", f"node/{rank}", now, context])
    else:
        entry = name.partition(".")[2]
        group.events.append(["fence", job.id, now, {"rank": rank, "attempt": entry, "cause": cause}])
        thing = f"job/{job.id}"
        if thing not in group.things:
            group.things.append(thing)
            group.bumps.append(thing)
    group.to_nodes.append((rank, ["forget", name]))
