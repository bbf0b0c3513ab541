"""Job requests made from command-line options: the version 1 jobspec (RFC 25) that `flux submit` would build.

Decides how -N, -n, -c, -g and -x become resources, and how dotted names reach attributes. Never reads the
environment or the working directory: the caller gives both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..kvs.errors import Rejected
from .jobspec_check import GENERAL, check, check_plain, fault
from .shown import shown


def from_options(
    command: Sequence[str],
    *,
    nodes: int | None = None,
    ntasks: int | None = None,
    cores_per_task: int = 1,
    gpus_per_task: int = 0,
    memory_mb_per_task: int = 0,
    exclusive: bool = False,
    duration_s: float = 0.0,
    cwd: str | None = None,
    environment: Mapping[str, str | None] | None = None,
    name: str | None = None,
    queue: str | None = None,
    bank: str | None = None,
    constraint: str | Mapping[str, Any] | None = None,
    dependencies: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = (),
    shell_options: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A checked jobspec for `command`.

    ntasks defaults to `nodes`, or 1. With nodes, each gets ceil(ntasks / nodes) slots; when that does not
    come out even the task count is given as a total. exclusive needs nodes. memory_mb_per_task makes the
    jobspec one of version 999, since version 1 knows no memory. duration_s 0: no limit asked for.
    constraint: an object or query text. dependencies: one or several, texts or objects, see `dependency`.
    shell_options and attributes: dotted names to values, see `set_shell_option` and `set_attribute`. Variables
    whose name or value is not Unicode are left out.
    Raises `Rejected`.
    """
    if nodes is not None and nodes < 1:
        raise _usage("the node count must be at least 1")
    total = ntasks if ntasks is not None else nodes or 1
    if total < 1 or cores_per_task < 1 or gpus_per_task < 0 or memory_mb_per_task < 0 or duration_s < 0:
        raise _usage("task and core counts must be at least 1, and no amount below 0")
    if nodes is not None and nodes > total:
        raise _usage(f"{nodes} nodes for {total} tasks: the node count must not exceed the task count")
    if exclusive and nodes is None:
        raise _usage("exclusive needs a node count", hint="add -N")
    held: list[dict[str, Any]] = [{"type": "core", "count": cores_per_task}]
    if gpus_per_task:
        held.append({"type": "gpu", "count": gpus_per_task})
    if memory_mb_per_task:
        held.append({"type": "memory", "count": memory_mb_per_task, "unit": "MB"})
    per_node = total if nodes is None else -(-total // nodes)
    resource: dict[str, Any] = {"type": "slot", "count": per_node, "with": held, "label": "task"}
    count = {"per_slot": 1}
    if nodes is not None:
        resource = {"type": "node", "count": nodes, "with": [resource]}
        if exclusive:
            resource["exclusive"] = True
        if total % nodes:
            count = {"total": total}
    system: dict[str, Any] = {"duration": duration_s}
    if cwd is not None:
        system["cwd"] = cwd
    if environment is not None:
        system["environment"] = {k: v for k, v in environment.items() if _is_text(k) and _is_text(v)}
    if name is not None:
        system["job"] = {"name": name}
    for key, value in (("queue", queue), ("bank", bank)):
        if value is not None:
            system[key] = value
    if constraint is not None:
        from . import constraint as constraints

        made = constraints.parse_requires(constraint) if isinstance(constraint, str) else dict(constraint)
        if made:
            system["constraints"] = made
    if dependencies:
        from .dependency import objects

        system["dependencies"] = objects(dependencies)
    jobspec = {
        "version": GENERAL if memory_mb_per_task else 1,
        "resources": [resource],
        "tasks": [{"command": list(command), "slot": "task", "count": count}],
        "attributes": {"system": system},
    }
    for dotted, value in (shell_options or {}).items():
        set_shell_option(jobspec, dotted, value)
    for dotted, value in (attributes or {}).items():
        set_attribute(jobspec, dotted, value)
    check_plain(jobspec)
    check(jobspec)
    if "dependencies" in system:
        from .dependency import settle

        settle(system)
    return jobspec


def _usage(why: str, hint: str = "") -> Rejected:
    return Rejected(why, code="bad-options", hint=hint)


def _is_text(value: str | None) -> bool:
    """Whether it can be stored: names and values of other bytes arrive with lone surrogates."""
    if value is None or value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_setting(text: str) -> tuple[str, Any]:
    """Name and value of a "NAME[=VALUE]" option: VALUE is JSON if it reads as such, else text; none is 1."""
    name, given, value = text.partition("=")
    if not name:
        raise _usage(f"{shown(text)} has no name", hint="write NAME=VALUE")
    if not given:
        return name, 1
    import json

    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _set(root: dict[str, Any], path: list[str], value: Any, dotted: str) -> None:
    if not all(path) or len(path) > 16:
        raise _usage(f"bad attribute name {shown(dotted)}", hint="write words joined by dots")
    target = root
    for word in path[:-1]:
        inner = target.setdefault(word, {})
        if not isinstance(inner, dict):
            raise fault(".".join(path), f"{shown(word)} is not an object")
        target = inner
    target[path[-1]] = value


def set_attribute(jobspec: dict[str, Any], dotted: str, value: Any) -> None:
    """Set an attribute in place, as --setattr does; the result is not checked.

    A name that begins with "system.", "user." or "." (or is spelled from "attributes." on) is taken below
    `attributes`; any other below `attributes.system`.
    """
    name = dotted.removeprefix("attributes.")
    if name.startswith("."):
        name = name[1:]
    elif not name.startswith(("system.", "user.")):
        name = "system." + name
    _set(jobspec["attributes"], name.split("."), value, dotted)


def set_shell_option(jobspec: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `attributes.system.shell.options.<dotted>` in place, as --setopt does."""
    _set(jobspec["attributes"], ["system", "shell", "options", *dotted.split(".")], value, dotted)
