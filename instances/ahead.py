"""Where jobs may be placed ahead, behind running ones of their own shape: how many, on which nodes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..journal.claims import Claim
from ..journal.derive import Group
from ..schedulers.policy import Pending
from .orders import launch_orders

if TYPE_CHECKING:
    from .planner import Planner

# A grant ahead hides the round trip from a report to the next launch; it should cover about this many seconds of work.
AHEAD_S = 0.12
AHEAD_MAX = 256
START_S = 0.0008  # what a start and an end cost a seat beside the task's own time
ROUND_TRIP_S = 0.05


def room_ahead(planner: Planner, shape: str, now: float, ahead_s: float = AHEAD_S) -> list[list[int]]:
    """[[jobs placed ahead there, rank, room left], ...] of the nodes that have room.

    ahead_s: how many seconds of work is placed ahead.
    """
    typical = planner.runtime.get(shape)
    if typical is None:
        return []
    found = []
    for (rank, one), seats in planner.seats.items():
        node = planner.state.nodes.get(rank)
        if one != shape or node is None or not node.usable or rank in planner.leaving:
            continue
        depth = min(AHEAD_MAX, int(seats * ahead_s / (typical + START_S)))
        if planner.stuck and planner.stuck.get((rank, shape), 0.0) > now:
            continue
        waiting = planner.ahead_count.get((rank, shape), 0)
        if not waiting and (rank, shape) not in planner.fresh and typical < ROUND_TRIP_S:
            continue  # jobs this short are over by now, though we have not heard: a grant would come too late
        if depth > waiting:
            found.append([waiting, rank, depth - waiting])
    return found


def granted_on(planner: Planner, entry: Pending, rank: int, shape: str, now: float) -> Group:
    """The group that places a job ahead on a node."""
    job = planner.state.jobs[entry.job]
    flat = entry.request.flat
    slots = flat.nslots if flat is not None and flat.nslots else 1
    claim = Claim(rank, 0, 0, 0, slots)  # its real claim is its seat's
    thing, rests = f"job/{job.id}", planner.premises_of(job)
    planner.ahead_of(job.id, rank, shape, now)
    return Group(
        events=[["grant", job.id, now, {"rank": rank, "shape": shape}]],
        things=[thing, *rests],
        bumps=[thing, *rests, f"attempt/{job.id}"],
        to_nodes=launch_orders(job, entry.request, (claim,), shape, True, planner.state.nodes),
    )
