"""What follows where a running job's nodes leave, or are lost: they go back on their own agents' word, the job goes on. Pure."""

from __future__ import annotations

from .derive import Group
from .holding import words_of
from .idset import format_ids
from .job import Job
from .resizing import SHRINK, gone, leaving_of, to_force
from .scripts import Scripts


def give_back(job: Job, now: float, group: Group, scripts: Scripts) -> bool:
    """Release and free nodes on which its tree is over; have those ended whose time is up. True: nothing else is said of it now.

    Where scripts are to run on a node when the job is over it stays the job's until then. Of a node that was lost an exception
    tells, which ends nobody (as Flux has it for ranks that are not critical).
    """
    ranks, leaving = [] if scripts.after_on_each else gone(job), leaving_of(job)
    for rank in ranks:
        if rank not in leaving:
            note = f"rank {rank}: {job.over[rank][2] or 'its task failed'}; the job goes on without it"
            group.events.append(["exception", job.id, now, {"type": "node-failure", "severity": 2, "note": note}])
    if ranks:
        text, at = format_ids(ranks), max(job.over[rank][1] for rank in ranks)
        group.events.append(["release", job.id, at, {"ranks": text, "final": False}])
        group.events.append(["free", job.id, now, {"ranks": text}])
        group.partly = True
        group.frees += words_of(claim for claim in job.claims if claim.rank in ranks)
        return True
    late = to_force(job, now)
    if late:
        group.events.append(["end", job.id, now, {"cause": SHRINK, "ranks": format_ids(late)}])
        group.to_nodes += [(rank, ["end", job.id, job.attempt_id, SHRINK]) for rank in late]
    return False
