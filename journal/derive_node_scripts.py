"""What follows where scripts on single nodes of a running job end (`fold_node_scripts`), and where nodes leave it. Pure."""

from __future__ import annotations

from typing import Any

from .derive import Group
from .derive_scripts import failures
from .fold_node_scripts import FINISH, START
from .holding import words_of
from .ids import f58
from .idset import format_ids
from .job import RUN, Job
from .resizing import gone, lead_of, leaving_of, script_on, scripted
from .scripts import EPILOG, HOUSEKEEPING, PROLOG, Scripts


def owed(job: Job, now: float, group: Group, scripts: Scripts) -> bool:
    """Answer the ends of scripts on its nodes, begin what comes next, give nodes back. True: nothing else is said of it now."""
    told = len(group.events)
    ends = _answer(job, now, group)
    goes_on = job.state == RUN and job.exception is None and not job.timed_out and lead_of(job) not in job.over
    asked = leaving_of(job)
    free: list[int] = []
    follow: dict[str, list[int]] = {}
    for rank, (kind, row) in ends.items():
        if kind == PROLOG and not goes_on:
            continue  # it ends as a whole: what is to run behind it then runs there, too
        lost = row[2].startswith("lost")
        why = failures({rank: row}).get(rank, "")
        if kind == PROLOG and why:
            note = f"prolog on rank {rank}: {why}; the job goes on without it"
            group.events.append(["exception", job.id, now, {"type": PROLOG, "severity": 2, "note": note}])
        if kind == PROLOG and not why and rank not in asked:
            follow.setdefault("launch", []).append(rank)
        else:
            _next(rank, "" if kind == PROLOG else kind, lost, scripts, follow, free)
    leaves = [rank for rank in (gone(job) if goes_on else ()) if not script_on(job, rank)]
    if scripts.after_on_each:  # nobody can look after a lost one now: it stays the job's until its end
        leaves = [rank for rank in leaves if rank in asked or not job.over[rank][2].startswith("lost")]
    for rank in leaves:
        if rank not in asked:
            note = f"rank {rank}: {job.over[rank][2] or 'its task failed'}; the job goes on without it"
            group.events.append(["exception", job.id, now, {"type": "node-failure", "severity": 2, "note": note}])
        _next(rank, "", False, scripts, follow, free)
    begin, back = set(follow.pop("launch", ())), set(free)
    behind = [rank for rank, (kind, _) in ends.items() if kind == PROLOG and (rank in back or rank not in begin)]
    released = sorted({*leaves, *(rank for rank in behind if goes_on)})
    if released:
        at = max(job.over[rank][1] for rank in released)
        group.events.append(["release", job.id, at, {"ranks": format_ids(released), "final": False}])
    _finish(job, ends, begin, now, group)
    for kind, ranks in follow.items():
        group.events.append([START, job.id, now, {"kind": kind, "ranks": format_ids(ranks)}])
        group.parts.append((kind, ranks))
    if free:
        group.events.append(["free", job.id, now, {"ranks": format_ids(free)}])
        group.partly = True
        group.frees += words_of(claim for claim in job.claims if claim.rank in back)
    return len(group.events) > told


def _answer(job: Job, now: float, group: Group) -> dict[int, tuple[str, list[Any]]]:
    """rank -> (kind, result) of scripts that have ended and are not answered; nodes where one failed are to be drained."""
    found: dict[int, tuple[str, list[Any]]] = {}
    for rank in scripted(job):
        kind, row = job.resized[2][rank][2:4] if job.resized is not None else ("", [])
        if row:
            found[rank] = kind, row[:3]
            group.failed += [(rank, f"{kind} for job {f58(job.id)}: {why}") for why in failures({rank: row[:3]}).values()]
    return found


def _next(rank: int, done: str, lost: bool, scripts: Scripts, follow: dict[str, list[int]], free: list[int]) -> None:
    """What comes after a script (or the tasks, "") on a node that leaves."""
    if lost:
        free.append(rank)  # it is drained by now
    elif not done and scripts.epilog is not None and scripts.epilog.per_rank:
        follow.setdefault(EPILOG, []).append(rank)
    elif done != HOUSEKEEPING and scripts.housekeeping is not None:
        follow.setdefault(HOUSEKEEPING, []).append(rank)
    else:
        free.append(rank)


def _finish(job: Job, ends: dict[int, tuple[str, list[Any]]], launch: set[int], now: float, group: Group) -> None:
    by_kind: dict[tuple[str, bool], list[int]] = {}
    for rank, (kind, _) in ends.items():
        by_kind.setdefault((kind, rank in launch), []).append(rank)
    for (kind, run), ranks in by_kind.items():
        context = {"kind": kind, "ranks": format_ids(ranks), "status": max(ends[rank][1][0] for rank in ranks)}
        group.events.append([FINISH, job.id, now, {**context, "launch": True} if run else context])
        if run:
            group.parts.append(("launch", ranks))
