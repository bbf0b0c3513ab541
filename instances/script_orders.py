"""A site's scripts as orders to nodes, and what an agent makes of them: attempts of their own, beside the job's. Pure.

A script's attempt is named like its job's with a letter behind the entry: `<job>.<version>-<epoch>p.<rank>`. It runs as the
instance's user in /, with a small environment of its own, in nobody's seat and under no limit of the job's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..journal.idset import format_ids
from ..journal.job import Job
from ..journal.resizing import part_of
from ..journal.scripts import LETTERS, Script
from ..journal.state import State
from .attempts import PART, Host

if TYPE_CHECKING:  # an agent needs none of what a worker does here with it
    from ..journal.derive import Group
    from .planner import Planner

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GROUP = "scripts"  # of seats: nobody takes over from a script


def script_orders(
    job: Job, kind: str, script: Script, nodes: list[int], ranks: Iterable[int], attempt: str,
    parts: Mapping[int, int | None] | None = None,
) -> list[tuple[int, list[Any]]]:  # fmt: skip
    """One (rank, ["script", order]) for each rank. nodes: all ranks of the job. attempt: "<version>-<epoch>" of the job's, ""
    for the one that the order's own entry begins. parts: which part of a job that was resized each is (None: as the job says)."""
    order = {
        "kind": kind, "job": job.id, "user": job.userid, "attempt": attempt, "command": list(script.command),
        "timeout_s": script.timeout_s, "kill_timeout_s": script.kill_timeout_s, "nodes": format_ids(nodes), "number": job.number,
    }  # fmt: skip
    found: list[tuple[int, list[Any]]] = []
    for rank in ranks:
        part = parts[rank] if parts is not None else part_of(job, rank)
        found.append((rank, ["script", order if part is None else {**order, "part": part}]))
    return found


def add_orders(state: State, planner: Planner, job: Job, group: Group, now: float) -> None:
    """What a group that ends or begins a phase of scripts has to say to nodes, and about them."""
    from ..journal.derive_scripts import add_drains
    from ..schedulers.request import compile_request
    from .orders import launch_orders

    add_drains(state.nodes, group, now)
    for kind, ranks in group.parts:
        single = state.rules.scripts.of(kind) if kind != "launch" else None
        if single is not None:
            group.to_nodes += script_orders(job, kind, single, job.ranks, ranks, job.attempt_id)
        elif kind == "launch":
            from .growing import launched

            group.to_nodes += launched(state, job, ranks)
    if group.run == "launch":
        expiration = planner.expiration(job, now)
        if expiration != job.expiration:  # a time limit is for the tasks
            group.events.append(["resource-update", job.id, now, {"expiration": expiration}])
        request = compile_request(job.jobspec or {})
        for rank, message in launch_orders(job, request, job.claims, planner.shape(request, job), False, state.nodes, planner.pool):
            message[1]["attempt"] = job.attempt_id
            group.to_nodes.append((rank, message))
        return
    script = state.rules.scripts.of(group.run) if group.run else None
    if script is not None:
        ranks = job.ranks if script.per_rank else job.ranks[:1]
        group.to_nodes += script_orders(job, group.run, script, job.ranks, ranks, job.attempt_id)


def build_script(host: Host, rank: int, order: dict[str, Any], key: str) -> dict[str, Any]:
    """The launcher's attempt for such an order."""
    environment = {
        "PATH": PATH, "FLUX_JOB_ID": f58(order["job"]), "FLUX_JOB_USERID": str(order["user"]), "FLUX_URI": host.uri,
        "FLUX_JOB_RANKS": order["nodes"], "FLUXKV_URI": host.uri, "FLUXKV_SCRIPT": order["kind"],
        "FLUXKV_NODE_RANK": str(rank), "FLUXKV_NODE_NAME": host.names[rank], "FLUXKV_STATE_DIR": host.state_dir,
        "FLUX_JOB_ATTEMPT": str(order.get("number", 1)),
    }  # fmt: skip
    return {
        "key": key, "job": order["job"], "tasks": [[0, [str(word) for word in order["command"]], None, {}]], "env": "",
        "env_set": environment, "cwd": "/", "stdin": "", "limit_s": float(order["timeout_s"]), "queued": False,
        "kill_grace_s": float(order["kill_timeout_s"]), "group": GROUP, "seat": {"cpus": [], "env": {}}, "rank": rank,
        "stdout": "", "stderr": "", "per_task_output": False, "script": order["kind"],
    }  # fmt: skip


def letter_of(key: str) -> str:
    """The letter in the name of a script's attempt, "" in that of a job's own."""
    letter = key.rpartition(".")[0][-1:]
    return letter if letter.isalpha() else ""


def attempt_key(order: dict[str, Any], id: str, rank: int) -> str:
    """The launcher's key of what an order in the entry `id` begins on a rank."""
    part = f"{PART}{order['part']}" if "part" in order else ""
    return f"{order['job']}.{order.get('attempt') or id}{LETTERS.get(order.get('kind', ''), '')}.{rank}{part}"


class HousekeepingCare:
    """Gives nodes back as housekeeping is done. Knows when to look again at what must wait for the others."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def next(self) -> float:
        """When to look again, 0.0 for never."""
        return self._heap[0][0] if self._heap else 0.0

    def due(self, state: State, now: float) -> list[Group]:
        """What is owed to those of whom there is news, and to those whose time has come."""
        if not state.keeping_news and not (self._heap and self._heap[0][0] <= now):
            return []
        from ..journal.derive_scripts import add_drains, housekeeping

        ids = dict(state.keeping_news)
        state.keeping_news.clear()
        while self._heap and self._heap[0][0] <= now:
            ids[heappop(self._heap)[1]] = None
        after, groups = state.rules.scripts.release_after_s, []
        for id in ids:
            keeping = state.keeping.get(id)
            if keeping is None:
                continue
            group = housekeeping(keeping, now, after)
            if group is not None:
                add_drains(state.nodes, group, now)
                groups.append(group)
            elif after and keeping.results.keys() - set(keeping.back) and now < keeping.started + after:
                heappush(self._heap, (keeping.started + after, id))
        return groups
