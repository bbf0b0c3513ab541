"""What tables show of a jobspec (name, queue, duration, counts), computed once per distinct resources section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .claims import Claim
from .jobspec_check import ALTERNATIVES, SLOTS
from .wire import pack, unpack

if TYPE_CHECKING:
    from .job import Job

MOST = 1 << 62  # counts multiply; beyond this a number could not be packed, nor any such job run


def summarize(jobspec: dict[str, Any]) -> tuple[str, str, float, tuple[int, int, int]]:
    """(name, queue, duration in seconds, (nodes asked for or 0, tasks, cores))."""
    attributes = jobspec.get("attributes") or {}
    system = attributes.get("system") or {}
    tasks = jobspec.get("tasks") or [{}]
    name = (system.get("job") or {}).get("name") or ""
    if not name:
        command = tasks[0].get("command") or [""]
        name = str(command[0]).rsplit("/", 1)[-1]
    duration = float(system.get("duration") or 0.0)
    if not duration >= 0:
        raise ValueError("a duration is not negative")
    queue = system.get("queue") or "default"
    if not isinstance(name, str) or not isinstance(queue, str):
        raise ValueError("a name is a string")
    return (
        name,
        queue,
        duration,
        _counts(pack([jobspec.get("resources"), tasks[0].get("count"), _per_resource(system)]))[:3],
    )


def sizes(jobspec: Mapping[str, Any]) -> tuple[int, int, int]:
    """(nodes asked for or 0, cores, GPUs) of a job, as limits count them."""
    nodes, _, cores, gpus = _counts(pack([jobspec.get("resources"), None, None]))
    return nodes, cores, gpus


def _per_resource(system: dict[str, Any]) -> Any:
    """The shell option that counts tasks by node or core, [type, count]; None if it is not used."""
    shell = system.get("shell")
    wanted = (shell.get("options") or {}).get("per-resource") if shell else None
    if not isinstance(wanted, dict) or type(wanted.get("count", 1)) is not int:
        return None
    return [wanted.get("type"), wanted.get("count", 1)]


def ntasks_on(jobspec: Mapping[str, Any] | None, claims: Sequence[Claim]) -> int | None:
    """How many tasks a job has on what it was given, if that decides it (tasks by node or core, or by slot where more of these may
    be had than the least that was asked for, or there are several kinds); else None."""
    system = ((jobspec or {}).get("attributes") or {}).get("system") or {}
    wanted = _per_resource(system) if "shell" in system else None
    if wanted is None:
        return _on_slots(jobspec or {}, claims)
    if wanted[0] not in ("core", "node"):
        return None
    held = len(claims) if wanted[0] == "node" else sum(claim.cores.bit_count() for claim in claims)
    return max(1, min(held * int(wanted[1]), MOST))


def tasks_of(job: Job) -> int:
    """How many tasks a job has: on what it holds, if that decides it. After an update of its jobspec the record, and with it the
    digest, has what the jobspec asks for; that is shown again once the job has ended, and its jobspec is gone."""
    return (ntasks_on(job.jobspec, job.claims) if job.holds else None) or job.ntasks


def _on_slots(jobspec: Mapping[str, Any], claims: Sequence[Claim]) -> int | None:
    tasks = jobspec.get("tasks")
    count = tasks[0].get("count") if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else None
    each = count.get("per_slot") if isinstance(count, dict) else None
    if type(each) is not int or each < 1 or not _varies(jobspec.get("resources")):
        return None
    return min(sum([claim.slots for claim in claims]) * each, MOST) or None


def _varies(resources: Any) -> bool:
    """Is any count a range, or a set, or are there several slots, so that tasks run in one of them only?"""
    slots = 0
    stack = [resources]
    while stack:
        vertices = stack.pop()
        for vertex in vertices if isinstance(vertices, list) else ():
            if not isinstance(vertex, dict):
                continue
            slots += vertex.get("type") in SLOTS
            if slots > 1 or type(vertex.get("count", 1)) is not int:
                return True
            stack.append(vertex.get("with"))
    return False


@lru_cache(maxsize=1024)
def _counts(packed: bytes) -> tuple[int, int, int, int]:
    resources, task_count, per_resource = unpack(packed)
    nodes = slots = cores = gpus = 0

    def walk(vertices: Any, factor: int) -> None:
        nonlocal nodes, slots, cores, gpus
        chosen = False  # of alternatives the first counts, until it is known which it is
        for vertex in vertices or ():
            count = vertex.get("count", 1)
            if isinstance(count, dict):
                count = count.get("min", 1)
            if not isinstance(count, int):
                count = 1
            total = factor * count
            kind = vertex.get("type")
            if kind in ALTERNATIVES:
                if chosen:
                    continue
                chosen, kind = True, "slot"
            if kind == "node":
                nodes += total
            elif kind == "slot":
                slots += total
            elif kind == "core":
                cores += total
            elif kind == "gpu":
                gpus += total
            walk(vertex.get("with"), total)

    walk(resources, 1)
    task_count = task_count or {}
    ntasks = task_count["total"] if "total" in task_count else slots * task_count.get("per_slot", 1)
    if per_resource is not None:  # at the least: an exclusive node may have more cores than were asked for
        kind, each = per_resource
        ntasks = each * (cores if kind == "core" else max(1, nodes))
    return min(nodes, MOST), min(ntasks, MOST), min(cores, MOST), min(gpus, MOST)
