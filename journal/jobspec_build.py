"""Job requests made from command-line options: the version 1 jobspec (RFC 25) that `flux submit` would build.

Decides how -N, -n, -c, -g and -x become resources, and how dotted names reach attributes. Never reads the
environment or the working directory: the caller gives both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .jobspec_check import GENERAL, check, check_plain, fault
from .jobspec_sizes import per_resource, per_task, usage
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
    cores: int | None = None,
    tasks_per_node: int | None = None,
    tasks_per_core: int | None = None,
    gpus_per_node: int | None = None,
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

    Its size is named by task (ntasks, *_per_task) or by resource (cores, tasks_per_*, gpus_per_node), see
    `jobspec_sizes`. exclusive needs nodes. memory_mb_per_task makes the jobspec one of version 999, since
    version 1 knows no memory. duration_s 0: no limit asked for.
    constraint: an object or query text. dependencies: one or several, texts or objects, see `dependency`.
    shell_options and attributes: dotted names to values, see `set_shell_option` and `set_attribute`. Variables
    whose name or value is not Unicode are left out.
    Raises `Rejected`.
    """
    if duration_s < 0:
        raise usage("no amount may be below 0")
    by_resource = (cores, tasks_per_node, tasks_per_core, gpus_per_node)
    if any(number is not None for number in by_resource):
        if ntasks is not None or cores_per_task != 1 or gpus_per_task or memory_mb_per_task:
            raise usage(
                "sizes by resource (cores, tasks per node or core, GPUs per node) exclude those by task",
                hint="leave out -n, -c, -g and the memory per task, or the others",
            )
        resource, count, sized = per_resource(nodes, *by_resource, exclusive)
    else:
        resource, count, sized = per_task(nodes, ntasks, cores_per_task, gpus_per_task, memory_mb_per_task, exclusive)
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
    for dotted, value in {**sized, **(shell_options or {})}.items():
        set_shell_option(jobspec, dotted, value)
    for dotted, value in (attributes or {}).items():
        set_attribute(jobspec, dotted, value)
    check_plain(jobspec)
    check(jobspec)
    if "dependencies" in system:
        from .dependency import settle

        settle(system)
    return jobspec


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
        raise usage(f"{shown(text)} has no name", hint="write NAME=VALUE")
    if not given:
        return name, 1
    import json

    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _set(root: dict[str, Any], path: list[str], value: Any, dotted: str) -> None:
    if not all(path) or len(path) > 16:
        raise usage(f"bad attribute name {shown(dotted)}", hint="write words joined by dots")
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
