"""What follows from the ends of a site's scripts around a job: prolog, epilog, housekeeping (RFC 21's blocking events). Pure.

A prolog stands between `alloc` and the tasks, an epilog between their end and `free`; both are over only when they are on
every node they were begun on. A failed prolog ends its job; whatever script fails, its node is drained, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .claims import from_wire
from .derive import Group, free_and_close
from .holding import words_of
from .hostlist import compress
from .ids import f58
from .idset import format_ids
from .job import Job
from .keeping import Keeping
from .node import Node
from .scripts import EPILOG, HOUSEKEEPING, LETTERS, PROLOG, Scripts, why_failed


def describe(kind: str) -> str:
    """RFC 21's description of an event of ours."""
    return f"job-manager.{kind}"


def start_event(job: int, kind: str, ranks: list[int], now: float) -> list[Any]:
    """prolog-start or epilog-start."""
    return [f"{kind}-start", job, now, {"description": describe(kind), "ranks": format_ids(ranks)}]


def phase(job: Job) -> str:
    """The kind of script that is going on around the job, "" if none is."""
    return job.script[0] if job.script is not None else ""


def tasks_ordered(job: Job) -> int:
    """Version of the commit that ordered the job's tasks, 0 if they are not (or no more) to be expected on its nodes."""
    if job.script is None:
        return job.attempt
    return 0 if job.script[0] else int(job.script[1])


def failures(results: Mapping[int, list[Any]]) -> dict[int, str]:
    """rank -> what went wrong there. What was ended because its job was is no failure."""
    own = {rank: why_failed(results[rank]) for rank in sorted(results) if not results[rank][2].startswith("ended")}
    return {rank: why for rank, why in own.items() if why}


def with_prolog(job: Job, now: float, group: Group, scripts: Scripts) -> None:
    """A job whose prolog is going on, in RUN or (ended by an exception) in CLEANUP."""
    assert job.script is not None
    _, _, ranks, results = job.script
    failed, exception = failures(results), job.exception
    if failed and job.exception is None:
        rank = min(failed)
        note = f"prolog on rank {rank}: {failed[rank]}"
        exception = [PROLOG, note]
        group.events.append(["exception", job.id, now, {"type": PROLOG, "severity": 0, "note": note}])
    if not all(rank in results for rank in ranks):
        if job.exception is not None and not job.ending and (scripts.prolog is None or scripts.prolog.cancel_on_exception):
            _end(job, PROLOG, job.exception[0], now, group)
        return
    _finish_event(job, PROLOG, results, now, group)
    if not failed and job.exception is None:
        group.run = "launch"
    else:
        conclude(job, now, group, scripts, None, exception)


def with_epilog(job: Job, now: float, group: Group, scripts: Scripts) -> None:
    """A job whose epilog is going on."""
    assert job.script is not None
    _, _, ranks, results = job.script
    if all(rank in results for rank in ranks):
        _finish_event(job, EPILOG, results, now, group)
        free(job, now, group, scripts, job.status, job.exception)


def _finish_event(job: Job, kind: str, results: dict[int, list[Any]], now: float, group: Group) -> None:
    status = max((one[0] for one in results.values()), default=0)
    group.events.append([f"{kind}-finish", job.id, now, {"description": describe(kind), "status": status}])
    group.failed += [(rank, f"{kind} for job {f58(job.id)}: {why}") for rank, why in failures(results).items()]


def _end(job: Job, kind: str, cause: str, now: float, group: Group) -> None:
    """Have the script ended where it has not ended by itself."""
    assert job.script is not None
    group.events.append(["end", job.id, now, {"cause": cause}])
    for rank in job.script[2]:
        if rank not in job.script[3]:
            group.to_nodes.append((rank, ["end", job.id, job.attempt_id + LETTERS[kind], cause]))


def conclude(
    job: Job, now: float, group: Group, scripts: Scripts, status: int | None, exception: Sequence[Any] | None
) -> None:
    """The job's tasks are over (so, by that exception), or will not be: its epilog, or what comes after that.

    A job whose seat has been taken over keeps nothing back any more: it was placed before there were scripts.
    """
    if scripts.epilog is not None and not job.next:
        group.run = EPILOG
        ranks = job.ranks if scripts.epilog.per_rank else job.ranks[:1]
        group.events.append(start_event(job.id, EPILOG, ranks, now))
    else:
        free(job, now, group, scripts, status, exception)


def free(
    job: Job, now: float, group: Group, scripts: Scripts, status: int | None, exception: Sequence[Any] | None
) -> None:
    """`free` and `clean` (or `requeue`); with housekeeping its nodes are looked after before others have them."""
    id = job.id
    free_and_close(job, now, group, status, exception)
    if scripts.housekeeping is not None and not job.next:
        group.run = HOUSEKEEPING
        context = {"claims": job.claims_wire, "attempt": job.attempt_id}
        group.events.append([f"{HOUSEKEEPING}-start", f"{HOUSEKEEPING}/{id}", now, context])
    else:
        group.frees.extend(words_of(job.claims))
        group.clears.append(f"attempt/{id}")


def housekeeping(keeping: Keeping, now: float, release_after_s: float | None) -> Group | None:
    """What is owed to a job's housekeeping now: nodes that are done go back, together or (after a while) one by one."""
    done = [rank for rank in keeping.results if rank not in keeping.back]
    final = len(done) + len(keeping.back) == len(keeping.claims)
    if not done or not (final or (release_after_s is not None and now >= keeping.started + release_after_s)):
        return None
    thing = f"job/{keeping.job}"  # guards of jobs are forgotten in time, those of other things never
    status = max(keeping.results[rank][0] for rank in done)
    context = {"ranks": format_ids(done), "status": status, "final": final}
    group = Group([[f"{HOUSEKEEPING}-finish", f"{HOUSEKEEPING}/{keeping.job}", now, context]], [thing], [thing])
    results = {rank: keeping.results[rank] for rank in done}
    group.failed = [(rank, f"housekeeping for job {f58(keeping.job)}: {why}") for rank, why in failures(results).items()]
    group.frees = words_of(claim for claim in from_wire(keeping.claims) if claim.rank in results)
    if final:
        group.clears = [f"attempt/{keeping.job}"]
    return group


def add_drains(nodes: Mapping[int, Node], group: Group, now: float) -> None:
    """A drain for each node where a script failed, in front: nothing is placed there in between."""
    drains: list[list[Any]] = []
    for rank, reason in group.failed:
        node = nodes.get(rank)
        if node is not None and node.drain is None:
            context = {"idset": str(rank), "nodelist": compress([node.host]), "overwrite": 0, "reason": reason}
            drains.append(["drain", "resource", now, context])
            group.things.append(f"node/{rank}")
            group.bumps.append(f"node/{rank}")
    group.events[:0] = drains
