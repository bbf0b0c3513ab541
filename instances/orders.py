"""What a worker tells an agent about a job: the order to start it on one rank. Pure.

Messages of one commit to one node are one inbox entry: a msgpack list of
["launch", order], ["end", job, attempt, cause], ["signal", job, attempt, signum], ["recall", job, attempt],
["limit", job, attempt, seconds], ["forget", key]. An entry's id is its commit's, and that is the attempt a launch begins;
later orders name it as `<version>-<epoch>`, for it may outlive the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..journal.claims import Claim, to_wire
from ..journal.idset import format_ids, text_of
from ..journal.job import Job
from ..journal.node import Node
from ..journal.retry import fenced
from ..kvs.errors import Rejected
from ..kvs.hashes import blake2b
from ..schedulers.request import Request
from ..schedulers.resources import Pool
from .layout import counts_of, task_ranks


def shape_of(request: Request) -> str:
    """A short name for equal requests: jobs of one shape may take over each other's seats."""
    return blake2b(request.key, digest_size=6).hexdigest()


def split_attempt(key: str) -> int:
    """The job of an attempt's name `<job>.<version>-<epoch>`."""
    return int(key.partition(".")[0])


def launch_orders(
    job: Job, request: Request, claims: Sequence[Claim], shape: str, queued: bool, nodes: Mapping[int, Node],
    pool: Pool | None = None,
) -> list[tuple[int, list[Any]]]:  # fmt: skip
    """One (rank, ["launch", order]) for each claim. An order has what its rank needs to start its tasks:

    job, user, name, command, system (attributes.system without what only the scheduler needs), env (blob name), claim
    (wire), index (of this node in the job), nodes (how many), total (tasks), first (task rank), count (tasks here), shape, queued.
    number: which attempt it is, if not the first, and since: when the one before was over. ranks: the task ranks here (idset)
    when they do not follow each other; fence: present where it is to be ended when cut off from the instance; refuse: why it can
    not start, if so. slots: [cores idset, GPUs idset] of each slot here, where tasks are bound each to its own and these are not
    of RFC 25's shape (pool: whose inventory says what is in them). Of a node that came while the job ran also attempt
    ("<version>-<epoch>"), and part: its index; its fence is a version before which it was not ordered.
    The shape of a job on several nodes is "": nobody takes over a part of its seats.
    """
    jobspec = job.jobspec or {}
    task = jobspec["tasks"][0]
    refuse, ranks = "", None
    try:
        counts = counts_of(jobspec, request, claims)
        ranks = task_ranks(jobspec, counts, [nodes[claim.rank].host for claim in claims])
    except Rejected as error:  # a map that does not fit what the job got
        refuse, counts = str(error), [1 for _ in claims]
    system = dict((jobspec.get("attributes") or {}).get("system") or {})
    for key in ("constraints", "dependencies", "queue"):
        system.pop(key, None)
    slots = _slots(pool, request, claims, system)
    orders = []
    first = 0
    total = sum(counts)
    for index, claim in enumerate(claims):
        order = {
            "job": job.id, "user": job.userid, "name": job.name, "command": task["command"], "system": system, "env": job.env,
            "claim": to_wire([claim])[0], "index": index, "nodes": len(claims), "total": total, "first": first,
            "count": counts[index], "shape": shape if len(claims) == 1 else "", "queued": queued,
        }  # fmt: skip
        if job.requeued is not None:
            order["number"], order["since"] = job.number, job.requeued[2]
        if fenced(job):
            order["fence"] = True
        if ranks is not None:
            order["ranks"] = format_ids(ranks[index])
        if claim.rank in slots and counts[index] > 1:
            order["slots"] = [[text_of(cores), text_of(gpus)] for cores, gpus in slots[claim.rank]]
        if refuse:
            order["refuse"] = refuse
        first += counts[index]
        orders.append((claim.rank, ["launch", order]))
    return orders


def _slots(
    pool: Pool | None, request: Request, claims: Sequence[Claim], system: Mapping[str, Any]
) -> dict[int, list[tuple[int, int]]]:
    """What is in the slots, by rank, where somebody wants to know."""
    if pool is None or request.flat is not None:
        return {}
    shell = system.get("shell")
    options = shell.get("options") if isinstance(shell, Mapping) else None
    options = options if isinstance(options, Mapping) else {}
    if "per-task" not in (options.get("cpu-affinity"), options.get("gpu-affinity")):
        return {}
    from ..schedulers.tree.enough import slots_of

    return slots_of(pool, request, claims)
