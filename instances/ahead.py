"""Where jobs may be placed ahead, behind running ones of their own shape: how many, on which nodes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
