"""What follows where a running job's nodes leave, or are lost: they go back on their own agents' word, the job goes on. Pure."""

from __future__ import annotations

from .derive import Group
from .derive_node_scripts import owed
from .idset import format_ids
from .job import RUN, Job
from .resizing import SHRINK, name_on, to_force
from .scripts import Scripts


def give_back(job: Job, now: float, group: Group, scripts: Scripts) -> bool:
    """Release and free nodes on which its tree is over, see to scripts there; have those ended whose time is up.

    True: nothing else is said of it now. Of a node that was lost an exception tells, which ends nobody (as Flux has it for ranks
    that are not critical).
    """
    if owed(job, now, group, scripts):
        return True
    late = to_force(job, now) if job.state == RUN else []
    if late:
        group.events.append(["end", job.id, now, {"cause": SHRINK, "ranks": format_ids(late)}])
        group.to_nodes += [(rank, ["end", job.id, name_on(job, rank), SHRINK]) for rank in late]
    return False
