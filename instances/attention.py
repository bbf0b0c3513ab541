"""Which touched jobs a worker looks at in a pass, and whether a stop has anything to wait for. Pure; decides only that.

In the order of the journal, some at a time. While the instance is being stopped, only those that end: hundreds of thousands
that were just submitted, or are only waiting, are no reason to let whoever stops it wait. Nothing of them is lost: a worker
that begins to plan, or goes on after a stop that came to nothing, looks at every active job.
"""

from __future__ import annotations

from itertools import islice

from ..journal.job import CLEANUP, DEPEND, NEW, PRIORITY, RUN, SCHED
from ..journal.state import State
from .final_totals import own
from .reactor import Stops


def take_touched(state: State, limit: int) -> list[int]:
    """The next jobs to look at, no longer among `state.attention`."""
    attention = state.attention
    if is_stopping(state):
        jobs = state.jobs
        ending = [id for id in attention if (job := jobs.get(id)) is None or not _waits(job.state, job.granted)]
        attention.clear()
        attention.update(dict.fromkeys(ending[limit:]))
        return ending[:limit]
    ids = list(islice(attention, limit))
    for id in ids:
        del attention[id]
    return ids


def is_stopping(state: State) -> bool:
    """Whether no new work is started, until the instance is."""
    return bool(state.instance.get("stopping"))


def stop_word(state: State) -> Stops:
    """What whoever stops the instance waits for."""
    return Stops(state.version, state.epoch, is_busy(state), tuple(own(state)))


def is_busy(state: State) -> bool:
    """Whether something is still to end. What is on hosts out of reach is not waited for: it ends when they are heard again."""
    away = {id for node in state.nodes.values() if node.joined and not node.online for id in node.jobs}
    if state.count(RUN | CLEANUP) > len(away):
        return True
    there = (node for node in state.nodes.values() if node.online or not node.joined)
    return any(node.jobs - away or node.keeping or node.grants for node in there)


def _waits(job_state: int, granted: object) -> bool:
    """Whether a job is only pending; one placed ahead may start any moment."""
    return bool(job_state & (NEW | DEPEND | PRIORITY | SCHED)) and granted is None
