"""What this machine has: cores, GPUs, memory, host name; and inventories (R) from options or a config file.

A core is a physical core this process may run on; its CPUs are its hardware threads. Reads /sys and /proc only.
"""

from __future__ import annotations

import glob
import os
import socket
from typing import Any

from ..journal.hostlist import compress, expand
from ..journal.idset import format_ids, ids_of_mask, mask_of, text_of
from ..kvs.errors import Rejected


def cpus_by_core() -> dict[int, list[int]]:
    """Core id (0, 1, ... in order) -> CPU numbers, of the CPUs this process may use."""
    cpus = sorted(os.sched_getaffinity(0))
    groups: dict[tuple[str, str], list[int]] = {}
    for cpu in cpus:
        folder = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        key = (_line(f"{folder}/physical_package_id") or "0", _line(f"{folder}/core_id") or f"cpu{cpu}")
        groups.setdefault(key, []).append(cpu)
    return dict(enumerate(sorted(groups.values())))


def _line(path: str) -> str:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return ""


def memory_mb() -> int:
    """Installed memory in MiB, 0 if not known; a cgroup's limit counts."""
    total = 0
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    total = int(line.split()[1]) // 1024
                    break
    except OSError:
        return 0
    limit = _line("/sys/fs/cgroup/memory.max")
    if limit.isdigit():
        total = min(total, int(limit) >> 20)
    return total


def gpu_count() -> int:
    """GPUs by their device files (NVIDIA, AMD)."""
    nvidia = len(glob.glob("/dev/nvidia[0-9]*"))
    if nvidia:
        return nvidia
    amd = [path for path in glob.glob("/sys/class/kfd/kfd/topology/nodes/*/gpu_id") if _line(path) not in ("", "0")]
    return len(amd)


def host_name() -> str:
    """The short host name."""
    return socket.gethostname().split(".")[0] or "localhost"


def inventory(
    nodes: int = 1,
    cores: int | None = None,
    gpus: int | None = None,
    memory: int | None = None,
    properties: tuple[str, ...] = (),
    fake: bool = False,
) -> dict[str, Any]:
    """R of `nodes` nodes on this machine, each with all it has unless told otherwise. memory: MiB per node.

    fake: they only pretend to run jobs, and get names of their own (fake0, fake1, ...).
    """
    if nodes < 1 or (cores is not None and cores < 1) or (gpus is not None and gpus < 0):
        raise Rejected("an instance needs at least one node with one core", code="bad-size")
    cores = cores if cores is not None else len(cpus_by_core())
    gpus = gpus if gpus is not None else gpu_count()
    memory = memory if memory is not None else memory_mb()
    host = host_name()
    names = [f"fake{rank}" for rank in range(nodes)] if fake else [host] * nodes
    return make_R([(name, (1 << cores) - 1, (1 << gpus) - 1, memory, properties) for name in names])


Row = tuple[str, int, int, int, tuple[str, ...]]


def make_R(rows: list[Row]) -> dict[str, Any]:
    """R (RFC 20) of nodes given as (host, cores mask, gpus mask, memory MiB, properties), ranks in order."""
    lite: dict[tuple[int, int], list[int]] = {}
    memory: dict[int, list[int]] = {}
    named: dict[str, list[int]] = {}
    for rank, (_, cores, gpus, mb, properties) in enumerate(rows):
        lite.setdefault((cores, gpus), []).append(rank)
        if mb:
            memory.setdefault(mb, []).append(rank)
        for name in properties:
            named.setdefault(name, []).append(rank)
    entries = []
    for (cores, gpus), ranks in lite.items():
        children = {"core": text_of(cores)}
        if gpus:
            children["gpu"] = text_of(gpus)
        entries.append({"rank": format_ids(ranks), "children": children})
    execution: dict[str, Any] = {"R_lite": entries, "nodelist": [compress([row[0] for row in rows])],
                                 "starttime": 0, "expiration": 0}  # fmt: skip
    if named:
        execution["properties"] = {name: format_ids(ranks) for name, ranks in sorted(named.items())}
    document: dict[str, Any] = {"version": 1, "execution": execution}
    if memory:
        document["scheduling"] = {"writer": "fluxkv", "memory_mb": {format_ids(r): mb for mb, r in memory.items()}}
    return document


def config_R(config: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The inventory a config file describes, or None if it describes none."""
    table = config.get("resource") or {}
    entries = table.get("config")
    files = [key for key in ("graph", "path") if key in table]
    if files and (entries is not None or len(files) > 1):
        one, other = ["config", *files][:2] if entries is not None else files
        why = f"config {path}: resource.{one} and resource.{other} are two inventories"
        raise Rejected(why, code="bad-config", hint="leave one of them out")
    if files:
        return _from_files(table, files[0], path)
    if entries is None:
        return None
    rows: list[Row] = []
    if not isinstance(entries, list):
        raise Rejected(f"config {path}: resource.config must be a list of tables", code="bad-config")
    for index, entry in enumerate(entries):
        where = f"config {path}: resource.config[{index}]"
        unknown = set(entry) - {"hosts", "cores", "gpus", "memory_mb", "properties"}
        if unknown or "hosts" not in entry:
            why = f"unknown key {sorted(unknown)[0]}" if unknown else "hosts is missing"
            raise Rejected(f"{where}: {why}", code="bad-config", hint="keys: hosts cores gpus memory_mb properties")
        try:
            hosts = expand(entry["hosts"])
            cores, gpus = mask_of(str(entry.get("cores", "0"))), mask_of(str(entry.get("gpus", "")))
        except Rejected as error:
            raise Rejected(f"{where}: {error}", code="bad-config") from None
        memory = entry.get("memory_mb", 0)
        names = entry.get("properties", [])
        if not isinstance(memory, int) or memory < 0 or not isinstance(names, list) or not cores:
            raise Rejected(f"{where}: memory_mb, properties or cores is not valid", code="bad-config")
        rows.extend((host, cores, gpus, memory, tuple(str(name) for name in names)) for host in hosts)
    if not rows:
        raise Rejected(f"config {path}: resource.config names no host", code="bad-config")
    return make_R(rows)


def binding(cores: int, *, inside: bool = False) -> dict[int, list[int]]:
    """Core id -> CPUs: the node's cores in order are the cores this process may use; {} if it claims more than there are.

    inside: the instance is a job. Where that is bound, this process may use as many as it was given. Where it may use more, the
    instance around it binds nothing (it claims more than there are, or has several nodes here, or was told so), and which of them
    are its own nobody has said: each child would take the first.
    """
    here = list(cpus_by_core().values())
    ids = ids_of_mask(cores)
    bound = len(ids) == len(here) if inside else len(ids) <= len(here)
    return dict(zip(ids, here, strict=False)) if bound else {}


def _from_files(table: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    """The inventory in the file (or, of hwloc, files) that a config names, beside which a relative path begins."""
    from ..journal.rset import render_set
    from .resource_files import AUTO, FORMS, load

    value, form = table[key], table.get("format", AUTO)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise Rejected(f"config {path}: resource.{key} must be a file, or a list of files", code="bad-config")
    if form not in FORMS:
        raise Rejected(f"config {path}: resource.format must be one of {', '.join(FORMS)}", code="bad-config")
    folder = os.path.dirname(os.path.abspath(path)) if os.path.exists(path) else os.getcwd()
    try:
        return render_set(load([os.path.join(folder, os.path.expanduser(name)) for name in names], form))
    except Rejected as error:
        raise Rejected(f"config {path}: resource.{key}: {error}", code=error.code, hint=error.hint) from None
