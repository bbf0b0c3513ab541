"""How large a job is, from what a user names: per task (-n -c -g) or per resource (--cores --tasks-per-node ...).

Decides the `resources` of a version 1 jobspec and how tasks are counted. Tasks per node or core are a shell option
(`per-resource`), as in Flux: version 1 has no other place for them, and they are known only when the nodes are.
"""

from __future__ import annotations

from typing import Any

from ..kvs.errors import Rejected

# The one vertex of `resources`, the task's count, and the shell options that belong to them.
Size = tuple[dict[str, Any], dict[str, int], dict[str, Any]]


def usage(why: str, hint: str = "") -> Rejected:
    """The error of options that do not go together."""
    return Rejected(why, code="bad-options", hint=hint)


def per_task(
    nodes: int | None, ntasks: int | None, cores: int, gpus: int, memory_mb: int, exclusive: bool
) -> Size:
    """`ntasks` slots (default: one a node, or one) of so many cores, GPUs and MiB each. Raises `Rejected`.

    With nodes, each gets ceil(ntasks / nodes) slots; when that does not come out even the task count is a total.
    """
    if nodes is not None and nodes < 1:
        raise usage("the node count must be at least 1")
    total = ntasks if ntasks is not None else nodes or 1
    if total < 1 or cores < 1 or gpus < 0 or memory_mb < 0:
        raise usage("task and core counts must be at least 1, and no amount below 0")
    if nodes is not None and nodes > total:
        raise usage(f"{nodes} nodes for {total} task{'s' * (total != 1)}: the node count must not exceed the task count")
    if exclusive and nodes is None:
        raise usage("exclusive needs a node count", hint="add -N")
    held: list[dict[str, Any]] = [{"type": "core", "count": cores}]
    if gpus:
        held.append({"type": "gpu", "count": gpus})
    if memory_mb:
        held.append({"type": "memory", "count": memory_mb, "unit": "MB"})
    per_node = total if nodes is None else -(-total // nodes)
    resource: dict[str, Any] = {"type": "slot", "count": per_node, "with": held, "label": "task"}
    if nodes is None:
        return (resource, {"per_slot": 1}, {})
    return (_on_nodes(nodes, resource, exclusive), {"total": total} if total % nodes else {"per_slot": 1}, {})


def per_resource(
    nodes: int | None, cores: int | None, tasks_per_node: int | None, tasks_per_core: int | None,
    gpus_per_node: int | None, exclusive: bool,
) -> Size:  # fmt: skip
    """So many cores and nodes, with tasks by node or core (default: one a core). Raises `Rejected`.

    Nodes without a number of cores are taken whole.
    """
    named = {
        "nodes": nodes, "cores": cores, "tasks per node": tasks_per_node, "tasks per core": tasks_per_core,
        "GPUs per node": gpus_per_node,
    }  # fmt: skip
    for name, number in named.items():
        if number is not None and number < (name == "GPUs per node") ^ 1:
            raise usage(f"{number} {name}: the number is too small")
    if tasks_per_node is not None and tasks_per_core is not None:
        raise usage("tasks per node and tasks per core exclude each other")
    if nodes is None and gpus_per_node:
        raise usage("GPUs per node need a node count", hint="add -N; for each task it is -g")
    if nodes is None and cores is None:
        raise usage("tasks per node or core need nodes or cores to count by", hint="add -N or --cores")
    if nodes is None and exclusive:
        raise usage("exclusive needs a node count", hint="add -N")
    kind, each = ("node", tasks_per_node) if tasks_per_node is not None else ("core", tasks_per_core or 1)
    options = {"per-resource": {"type": kind, "count": each}}
    if nodes is None:
        slot = {"type": "slot", "count": cores, "with": [{"type": "core", "count": 1}], "label": "task"}
        return (slot, {"per_slot": 1}, {} if (kind, each) == ("core", 1) else options)
    if cores is not None and cores % nodes:
        raise usage(f"{cores} cores on {nodes} nodes: each node must get the same number")
    held: list[dict[str, Any]] = [{"type": "core", "count": (cores or nodes) // nodes}]
    if gpus_per_node:
        held.append({"type": "gpu", "count": gpus_per_node})
    slot = {"type": "slot", "count": 1, "with": held, "label": "task"}
    return (_on_nodes(nodes, slot, exclusive or cores is None), {"per_slot": 1}, options)


def _on_nodes(nodes: int, slot: dict[str, Any], exclusive: bool) -> dict[str, Any]:
    resource: dict[str, Any] = {"type": "node", "count": nodes, "with": [slot]}
    if exclusive:
        resource["exclusive"] = True
    return resource
