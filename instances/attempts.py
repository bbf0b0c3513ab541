"""From a worker's order to a launcher's attempt: environment, files, affinity, limits. Pure.

Environment names are Flux's (FLUX_JOB_ID, FLUX_TASK_RANK, ...); FLUXKV_* are ours. Paths of standard output may hold
templates {{id}} {{id.dec}} {{jobid}} {{name}} {{size}} {{nnodes}} {{node.id}} {{node.name}} {{taskid}} {{task.id}} {{task.rank}}.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ..journal.ids import f58
from ..journal.idset import ids_of_mask, mask_of
from ..kvs.errors import Rejected
from .shell_options import ShellOptions, parse_pretended, parse_shell_options

_TASK_WORDS = ("taskid", "task.id", "task.rank")
_TEMPLATE = re.compile(r"\{\{\s*([a-z.]+)\s*\}\}")


class Placed:
    """An attempt the launcher was given, as the agent remembers it. over: its end has been heard."""

    __slots__ = ("fake", "job", "key", "over", "rank", "t_start", "version")

    def __init__(self, key: str, job: int, version: int, rank: int, fake: bool = False) -> None:
        self.key = key
        self.job = job
        self.version = version
        self.rank = rank
        self.t_start = 0.0
        self.over = False
        self.fake = fake  # held by the launcher that only pretends, in this process


class Host:
    """What an agent process knows of its host.

    names: rank -> host name. cpus: core id -> CPU numbers of this machine, or {} when tasks are not to be bound.
    uri: the instance's, for tasks. tmp: folder for job directories. origin_ms: what job ids count from.
    """

    def __init__(
        self, names: Mapping[int, str], boot: str, spool_id: str, uri: str, tmp: str, cpus: Mapping[int, list[int]],
        state_dir: str = "", origin_ms: int = 0,
    ) -> None:  # fmt: skip
        self.names = dict(names)
        self.ranks = sorted(names)
        self.boot = boot
        self.spool_id = spool_id
        self.uri = uri
        self.tmp = tmp
        self.cpus = dict(cpus)
        self.state_dir = state_dir
        self.origin_ms = origin_ms  # Unix milliseconds that job ids count from


def split_key(key: str) -> tuple[int, int, int]:
    """(job, version, rank) of a launcher key `<job>.<version>-<epoch>.<rank>`."""
    job, attempt, rank = key.split(".")
    return int(job), int(attempt.partition("-")[0]), int(rank)


def build_attempt(host: Host, rank: int, order: dict[str, Any], key: str) -> dict[str, Any]:
    """The launcher's attempt for an order (see `orders.launch_orders`).

    What the jobspec says wrongly becomes its `refuse`: the launcher starts nothing, and the job ends with that reason.
    """
    system = order["system"]
    refuse, pretended = "", None
    try:
        pretended = parse_pretended(system)
        options = parse_shell_options((system.get("shell") or {}).get("options"))
    except (Rejected, AttributeError) as error:
        refuse, options = f"bad shell option: {error}", parse_shell_options(None)
    id, total, first, count = order["job"], order["total"], order["first"], order["count"]
    cores = ids_of_mask(mask_of(order["claim"][1])) if order["claim"][1] else ()
    gpu_ids = ids_of_mask(mask_of(order["claim"][2])) if order["claim"][2] else ()
    tmpdir = f"{host.tmp}/job-{f58_ascii(id)}-{rank}"
    words = _words(host, rank, order, tmpdir)
    tasks = []
    argv = order["command"]
    for local in range(count):
        task_rank = first + local
        changes = {"FLUX_TASK_RANK": str(task_rank), "FLUX_TASK_LOCAL_ID": str(local)}
        if options.gpus == "per-task":
            changes.update(_gpu_environment(_share(gpu_ids, local, count)))
        cpus = _task_cpus(host, cores, options.cpus, local, count)
        tasks.append([task_rank, argv, cpus, changes])
    duration = float(system.get("duration") or 0.0)
    attempt: dict[str, Any] = {
        "key": key,
        "job": id,
        "tasks": tasks,
        "env": order["env"],
        "env_set": {**_overlay(system), **_environment(host, rank, order, key, tmpdir)},
        "cwd": system.get("cwd") or "",
        "stdin": "fifo" if options.stdin.kind == "service" and order["index"] == 0 else expand(options.stdin.path, words),
        "append": options.append or order["nodes"] > 1,
        "limit_s": duration,
        "kill_grace_s": options.kill_grace_s,
        "group": f"{rank}:{order['shape']}",
        "queued": order["queued"],
        "tmpdir": tmpdir,
        "tmpdir_env": "FLUX_JOB_TMPDIR",
        "seat": {
            "cpus": _seat_cpus(host, cores, options.cpus),
            "env": _gpu_environment(gpu_ids) if options.gpus == "on" else {},
        },
        # what the forwarder needs, not the launcher
        "rank": rank,
        "index": order["index"],
        "total": total,
        **_output(options, words, range(first, first + count), total, system.get("cwd") or "/"),
    }
    if order["nodes"] > 1 and not options.append:
        attempt["empty_before"] = (host.origin_ms + (id >> 24)) / 1000  # when the job was submitted
    if options.warn and duration:
        attempt["warn_s"], attempt["warn_signal"] = options.warn
    if refuse:
        attempt["refuse"] = refuse
    elif pretended is not None:
        attempt["fake_s"] = pretended.duration_s
        if pretended.status:
            attempt["fake_status"] = pretended.status
    return attempt


def _words(host: Host, rank: int, order: Mapping[str, Any], tmpdir: str) -> dict[str, str]:
    """What templates in paths stand for, but for the task's own."""
    id = order["job"]
    return {
        "id": f58(id), "id.f58": f58(id), "jobid": f58(id), "id.dec": str(id), "id.f58plain": f58_ascii(id),
        "name": order["name"], "size": str(order["total"]), "nnodes": str(order["nodes"]), "node.id": str(order["index"]),
        "node.name": host.names[rank], "tmpdir": tmpdir,
    }  # fmt: skip


def _output(options: ShellOptions, words: Mapping[str, str], ranks: range, total: int, cwd: str) -> dict[str, Any]:
    """Where these tasks' output goes. stdout, stderr: files of all tasks, "" for the spool. task_files: {"<task rank>":
    [out, err]} when the paths name the task. label: the same ("" for all tasks) for files that get labelled lines, which
    pass through the spool; label_files: all of their paths. per_task_output: one spool file for each task.
    """
    out_path, out_label = options.stdout.path, options.stdout.label
    err_path, err_label = options.stderr.path, options.stderr.label
    if out_path and not err_path and options.stderr.kind != "kvs":
        err_path, err_label = out_path, out_label
    files = {"": [expand(out_path, words), expand(err_path, words)]}
    if any(name in _TASK_WORDS for path in (out_path, err_path) for name in _TEMPLATE.findall(path)):
        files = {}
        for rank in ranks:
            mine = {**words, **dict.fromkeys(_TASK_WORDS, str(rank))}
            files[str(rank)] = [expand(out_path, mine), expand(err_path, mine)]
    if out_label or err_label:
        # The agent writes these, and it is not in the job's directory.
        files = {rank: [path and posixpath.join(cwd, path) for path in pair] for rank, pair in files.items()}
        found: dict[str, Any] = {"stdout": "", "stderr": "", "per_task_output": True}
        if out_path or err_path:
            found["label"] = files
            found["label_files"] = sorted({path for pair in files.values() for path in pair if path})
        return found
    out, err = files.get("", ["", ""])
    found = {"stdout": out, "stderr": err, "per_task_output": total > 1 and not (out_path and err_path)}
    if "" not in files:
        found["task_files"] = files
    return found


def f58_ascii(id: int) -> str:
    """F58 with the ASCII prefix, for file names."""
    return "f" + f58(id)[1:]


def expand(path: str, words: Mapping[str, str]) -> str:
    """Replace templates in a path; an unknown one stays as it is."""
    if "{{" not in path:
        return path
    return _TEMPLATE.sub(lambda match: words.get(match[1], match[0]), path)


def _environment(host: Host, rank: int, order: dict[str, Any], key: str, tmpdir: str) -> dict[str, str]:
    attempt = key.rpartition(".")[0]
    return {
        "FLUX_JOB_ID": f58(order["job"]),
        "FLUX_JOB_SIZE": str(order["total"]),
        "FLUX_JOB_NNODES": str(order["nodes"]),
        "FLUX_JOB_TMPDIR": tmpdir,
        "FLUX_URI": host.uri,
        "FLUX_KVS_NAMESPACE": f"job-{order['job']}",
        "FLUXKV_URI": host.uri,
        "FLUXKV_JOB_ATTEMPT": attempt,
        "FLUXKV_JOB_NODE": str(order["index"]),
        "FLUXKV_NODE_RANK": str(rank),
        "FLUXKV_NODE_TASKS": str(order["count"]),
        "FLUXKV_STATE_DIR": host.state_dir,
    }


def _overlay(system: Mapping[str, Any]) -> dict[str, str]:
    """The jobspec's own few variables on top of the shared environment."""
    changes = system.get("environment") or {}
    return {name: str(value) for name, value in changes.items() if value is not None}


def _seat_cpus(host: Host, cores: tuple[int, ...], affinity: str) -> list[int]:
    if affinity == "off" or not host.cpus:
        return []
    return [cpu for core in cores for cpu in host.cpus.get(core, ())]


def _task_cpus(host: Host, cores: tuple[int, ...], affinity: str, local: int, count: int) -> list[int] | None:
    """With cpu-affinity=per-task each task gets its share of the node's cores, else all of them."""
    if affinity != "per-task" or not host.cpus or count < 2 or len(cores) < count:
        return None
    return [cpu for core in _share(cores, local, count) for cpu in host.cpus.get(core, ())]


def _share(ids: tuple[int, ...], local: int, count: int) -> tuple[int, ...]:
    each = len(ids) // count
    return ids[local * each : (local + 1) * each] if each else ids


def _gpu_environment(gpus: tuple[int, ...]) -> dict[str, str]:
    if not gpus:
        return {}
    ids = ",".join(map(str, gpus))
    return {"CUDA_VISIBLE_DEVICES": ids, "HIP_VISIBLE_DEVICES": ids, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
