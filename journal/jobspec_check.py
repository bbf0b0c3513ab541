"""What a valid job request is (RFC 25 version 1; the general form of RFC 14 as version 999).

Decides by the text of the RFCs rather than by their schema files. Never reads text: see `jobspec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from ..kvs.errors import Rejected
from . import ranges
from .shown import shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
GENERAL = 999  # RFC 14 calls this number "not a released version"
ONE_OF = "xor_slot"  # of those side by side a job gets one (Fluxion)
MIXED = "or_slot"  # of those side by side a job gets any mix (Fluxion's flexible traverser, which takes every slot for one)
ALTERNATIVES = (ONE_OF, MIXED)
SLOTS = ("slot", *ALTERNATIVES)
BYPASS = "alloc-bypass"  # the attribute of a job that names the resources it gets (flux-core)

_TOP = ("version", "resources", "tasks", "attributes")
_V1_KEYS = {
    "node": frozenset(("type", "count", "unit", "with", "label", "exclusive")),
    "slot": frozenset(("type", "count", "unit", "with", "label")),
}
_V1_LEAF = frozenset(("type", "count", "unit", "with", "label"))
_KEYS = frozenset(("type", "count", "unit", "exclusive", "with", "label", "id"))
_TASK = frozenset(("command", "slot", "count", "attributes", "distribution"))
_TASK_V1 = frozenset(("command", "slot", "count"))


def fault(path: str, why: str) -> Rejected:
    """The error of a jobspec: `path` names the faulty member."""
    return Rejected(f"bad jobspec: {path}: {why}", code="bad-jobspec", hint="see RFC 25 (RFC 14 for 999)")


def word(key: str) -> str:
    """A key as part of a path in an error: one line, whatever it holds."""
    return key[:60] if key.isprintable() else shown(key)


def check_plain(value: Any) -> None:
    """Raise `Rejected` unless `value` holds only JSON values, bounded in depth and size."""
    _plain(value, "", 0, [MAX_BYTES])


def _plain(value: Any, path: str, depth: int, room: list[int]) -> None:
    """Only JSON values, bounded in depth and size, whose texts can be written as UTF-8."""
    room[0] -= 8
    if isinstance(value, str):
        room[0] -= len(value)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise fault(path or "top level", "holds text that is not Unicode") from None
    elif isinstance(value, dict):
        if depth >= MAX_DEPTH:
            raise fault(path[:200], f"nested more than {MAX_DEPTH} deep")
        for key, inner in value.items():
            if not isinstance(key, str):
                raise fault(path or "top level", f"key {shown(key)} is not a string")
            _plain(key, path, depth, room)
            _plain(inner, f"{path}.{word(key)}" if path else word(key), depth + 1, room)
    elif isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise fault(path[:200], f"nested more than {MAX_DEPTH} deep")
        for at, inner in enumerate(value):
            _plain(inner, f"{path}[{at}]", depth + 1, room)
    elif isinstance(value, float):
        if not isfinite(value):
            raise fault(path, "must be a finite number")
    elif isinstance(value, int):  # bool too
        if not -(1 << 63) <= value < 1 << 64:
            raise fault(path, "the integer exceeds 64 bits")
    elif value is not None:
        raise fault(path, f"{type(value).__name__} is not a JSON value")
    if room[0] < 0:
        raise fault(path[:200], f"the jobspec is larger than {MAX_BYTES} bytes")


def check(jobspec: Mapping[str, Any], general: bool = False) -> None:
    """Raise `Rejected` unless `jobspec` (plain values) is valid. general: version 1 may use all of RFC 14."""
    for key in _TOP:
        if key not in jobspec:
            raise fault(key, "is required, as in attributes: {system: {duration: 3600}}" if key == "attributes" else "is required")
    for key in jobspec:
        if key not in _TOP:
            raise fault(shown(key), "unknown key")
    version = jobspec["version"]
    if type(version) is not int or version not in (1, GENERAL):
        raise fault("version", f"must be 1 (or {GENERAL} for the general form), not {shown(version)}")
    v1 = version == 1 and not general
    labels: dict[str, str] = {}
    resources = _list(jobspec["resources"], "resources")
    for at, vertex in enumerate(resources):
        _check_vertex(vertex, f"resources[{at}]", labels, "top" if v1 else "")
    if v1 and len(resources) != 1:
        raise fault("resources", "must have exactly one entry in version 1")
    tasks = _list(jobspec["tasks"], "tasks")
    if v1 and len(tasks) != 1:
        raise fault("tasks", "must have exactly one entry in version 1")
    for at, task in enumerate(tasks):
        _check_task(task, f"tasks[{at}]", labels, v1)
    _check_attributes(jobspec["attributes"], v1)


def _list(value: Any, path: str) -> Any:
    if not isinstance(value, (list, tuple)) or not value:
        raise fault(path, "must be a list with at least one entry")
    return value


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise fault(path, f"must be a string, not {shown(value)}")
    if "\0" in value:
        raise fault(path, "must not hold a NUL character")
    return value


def _count(value: Any, path: str) -> None:
    try:
        ranges.parse_count(value)
    except Rejected as error:
        raise fault(path, str(error)) from None


def _check_vertex(vertex: Any, path: str, labels: dict[str, str], role: str) -> None:
    """role: "" in the general form; in version 1 what may stand here: "top", "slot" (in a node) or "leaf". labels: with, for an
    alternative, among which others it stands: those may share a label."""
    if not isinstance(vertex, Mapping):
        raise fault(path, "must be an object")
    for key in ("type", "count"):
        if key not in vertex:
            raise fault(f"{path}.{key}", "is required")
    kind = _string(vertex["type"], f"{path}.type")
    allowed = _V1_KEYS.get(kind, _V1_LEAF) if role else _KEYS
    for key in vertex:
        if key not in allowed:
            raise fault(f"{path}.{word(key)}", f"unknown key for {shown(kind)}")
    if role:
        expected = {"top": ("node", "slot"), "slot": ("slot",), "leaf": ("core", "gpu")}[role]
        if kind not in expected:
            why = f"must be {' or '.join(expected)} here in version 1, not {shown(kind)}"
            raise fault(f"{path}.type", why)
        if type(vertex["count"]) is not int:
            raise fault(f"{path}.count", "must be an integer in version 1")
    _count(vertex["count"], f"{path}.count")
    for key in ("unit", "id", "label"):
        if key in vertex:
            _string(vertex[key], f"{path}.{key}")
    if "exclusive" in vertex and not isinstance(vertex["exclusive"], bool):
        raise fault(f"{path}.exclusive", "must be true or false")
    if kind in SLOTS:
        for key in ("label", "with"):
            if key not in vertex:
                raise fault(f"{path}.{key}", "is required for a slot")
        among = path.rpartition("[")[0] if kind in ALTERNATIVES else ""
        label = vertex["label"]
        if label in labels and (not among or labels[label] != among):
            raise fault(f"{path}.label", f"{shown(label)} is used twice")
        labels[label] = among
    if "with" in vertex:
        inside = _list(vertex["with"], f"{path}.with")
        if role == "leaf":
            raise fault(f"{path}.with", f"a {kind} holds nothing in version 1")
        inner = role and ("slot" if kind == "node" else "leaf")
        for at, child in enumerate(inside):
            _check_vertex(child, f"{path}.with[{at}]", labels, inner)
        if role:
            _check_inside(kind, [child["type"] for child in inside], f"{path}.with")
    elif role and kind == "node":
        raise fault(f"{path}.with", "a node must hold a slot in version 1")


def _check_inside(kind: str, types: list[str], path: str) -> None:
    if kind == "node" and len(types) != 1:
        raise fault(path, "must have exactly one slot in version 1")
    if kind == "slot" and (types.count("core") != 1 or types.count("gpu") > 1):
        raise fault(path, "a slot holds one core entry and at most one gpu entry in version 1")


def _check_task(task: Any, path: str, labels: Mapping[str, str], v1: bool) -> None:
    if not isinstance(task, Mapping):
        raise fault(path, "must be an object")
    for key in ("command", "slot", "count"):
        if key not in task:
            raise fault(f"{path}.{key}", "is required")
    for key in task:
        if key not in (_TASK_V1 if v1 else _TASK):
            raise fault(f"{path}.{word(key)}", "unknown key")
    for at, argument in enumerate(_list(task["command"], f"{path}.command")):
        _string(argument, f"{path}.command[{at}]")
    if _string(task["slot"], f"{path}.slot") not in labels:
        raise fault(f"{path}.slot", f"no slot has the label {shown(task['slot'])}")
    count = task["count"]
    if not isinstance(count, Mapping) or len(count) != 1:
        raise fault(f"{path}.count", "must be an object with exactly one key")
    ((key, amount),) = count.items()
    if key == "per_resource" and not v1:
        if not isinstance(amount, Mapping) or set(amount) != {"type", "count"}:
            raise fault(f"{path}.count.per_resource", "must have type and count")
        _string(amount["type"], f"{path}.count.per_resource.type")
        amount = amount["count"]
    elif key not in ("per_slot", "total"):
        raise fault(f"{path}.count.{word(key)}", "unknown key")
    if type(amount) is not int or not 1 <= amount <= ranges.MAX_COUNT:
        raise fault(f"{path}.count.{key}", "must be a positive integer")
    if v1 and key == "per_slot" and amount != 1:
        raise fault(f"{path}.count.per_slot", "must be 1 in version 1")
    if "distribution" in task:
        _string(task["distribution"], f"{path}.distribution")
    if "attributes" in task:
        attributes = _object(task["attributes"], f"{path}.attributes")
        if "environment" in attributes:
            _check_environment(attributes["environment"], f"{path}.attributes.environment")


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise fault(path, "must be an object")
    return value


def _check_environment(environment: Any, path: str) -> None:
    for name, value in _object(environment, path).items():
        if not name or "=" in name or "\0" in name:
            raise fault(path, f"{shown(name)} cannot name a variable")
        if value is not None:
            _string(value, f"{path}.{word(name)}")


def _check_attributes(attributes: Any, v1: bool) -> None:
    for key in _object(attributes, "attributes"):
        if key not in ("system", "user"):
            raise fault(f"attributes.{word(key)}", "only system and user are known")
        _object(attributes[key], f"attributes.{key}")
    if v1:
        if "system" not in attributes:
            raise fault("attributes.system", "is required in version 1")
        if "duration" not in attributes["system"]:
            raise fault("attributes.system.duration", "is required in version 1")
    system = attributes.get("system", {})
    where = "attributes.system"
    for key in ("duration", "preemptible-after"):
        value = system.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise fault(f"{where}.{key}", "must be a number of seconds, 0 or more")
    for key in ("cwd", "queue", "bank", "project"):
        if key in system:
            _string(system[key], f"{where}.{key}")
    if not system.get("cwd", "/").startswith("/"):
        raise fault(f"{where}.cwd", "must be an absolute path")
    if "environment" in system:
        _check_environment(system["environment"], f"{where}.environment")
    if "retry" in system:
        from .retry import parse_retry

        try:
            parse_retry(system["retry"])
        except Rejected as error:
            raise fault(f"{where}.retry", str(error)) from None
    if "dependencies" in system:
        from .dependency import check_objects

        check_objects(system["dependencies"])
    if "constraints" in system:
        from . import constraint

        try:
            constraint.check(system["constraints"])
        except Rejected as error:
            raise fault(f"{where}.constraints", str(error)) from None
    if BYPASS in system:
        from .rset import parse_R

        try:
            parse_R(_object(system[BYPASS], f"{where}.{BYPASS}").get("R", ""))
        except Rejected as error:
            raise fault(f"{where}.{BYPASS}.R", str(error)) from None
    for key, value in _object(system.get("job", {}), f"{where}.job").items():
        _string(value, f"{where}.job.{word(key)}")
    _object(_object(system.get("shell", {}), f"{where}.shell").get("options", {}), f"{where}.shell.options")
    if "files" in system:
        from .file_archive import read_archive

        try:
            for _ in read_archive(system["files"]):
                pass
        except Rejected as error:
            raise fault(f"{where}.files", str(error)) from None
