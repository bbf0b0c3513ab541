"""Job requests (RFC 25 version 1; RFC 14's general form as version 999): read and asked.

Decides how JSON and YAML texts become a jobspec, safely. Never decides whether a job may run. Past
`parse_jobspec` a jobspec is a plain dict of JSON values that is valid by `jobspec_check`; `jobspec_build`
makes one from options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from . import ranges
from .jobspec_build import from_options, parse_setting, set_attribute, set_shell_option
from .jobspec_check import ALTERNATIVES, GENERAL, MAX_BYTES, MAX_DEPTH, check, check_plain, fault
from .shown import shown

__all__ = [
    "GENERAL",
    "MAX_BYTES",
    "Counts",
    "command_of",
    "from_options",
    "job_name",
    "memory_mb",
    "parse_jobspec",
    "parse_setting",
    "resource_counts",
    "set_attribute",
    "set_shell_option",
]

MAX_YAML_WITHOUT_LIBYAML = 1 << 17  # the pure Python reader needs seconds for more

_MEMORY_UNITS = {"": 1, "M": 1, "G": 1 << 10, "T": 1 << 20}


def parse_jobspec(value: str | bytes | Mapping[str, Any], general: bool = False) -> dict[str, Any]:
    """The checked jobspec of a JSON or YAML text, or of a decoded object (which is not copied).

    Raises `Rejected` (code bad-jobspec) whose message holds the path to the fault, such as
    "resources[0].with[1].count". general: version 1 may use all of RFC 14, as many files for Flux do.
    Texts above a mebibyte, nesting above 32 and YAML aliases are refused.
    """
    jobspec = decode_jobspec(value)
    check(jobspec, general)
    return jobspec


def decode_jobspec(value: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    """A jobspec as plain values, within the limits of `parse_jobspec` but otherwise unchecked. Raises `Rejected`."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise fault("text", f"not UTF-8: {error}") from None
    if isinstance(value, str):
        if len(value) > MAX_BYTES:
            raise fault("text", f"longer than {MAX_BYTES} characters")
        value = _decoded(value)
    if not isinstance(value, Mapping):
        raise fault("top level", "must be an object")
    jobspec = value if isinstance(value, dict) else dict(value)
    check_plain(jobspec)
    return jobspec


def _decoded(text: str) -> Any:
    if text.lstrip()[:1] == "{":
        import json

        try:
            return json.loads(text)
        except RecursionError:
            raise fault("text", "nested too deep") from None
        except ValueError as error:
            as_json = str(error)
        try:  # YAML has a form with braces too
            return _from_yaml(text)
        except Rejected:
            raise fault("text", f"not JSON: {as_json}") from None
    return _from_yaml(text)


def _from_yaml(text: str) -> Any:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", None)
    if loader is None:
        loader = yaml.SafeLoader
        if len(text) > MAX_YAML_WITHOUT_LIBYAML:
            raise fault("text", "too long for YAML here: send JSON")
    try:
        _check_yaml(yaml, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)  # a safe loader
    except Rejected:
        raise
    except yaml.YAMLError as error:
        why = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
        raise fault("text", f"not YAML: {why[:300]}") from None
    except Exception as error:  # a reader of hostile text may fail in ways it does not announce
        raise fault("text", f"not YAML: {shown(str(error))}") from None


def _check_yaml(yaml: Any, events: Any) -> None:
    """Refuse, before anything is built, what makes a small text large or slow."""
    depth = 0
    for event in events:
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise fault(where, "anchors and aliases are refused")
        if getattr(event, "tag", None):
            raise fault(where, "explicit tags are refused")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise fault(where, f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            # 1:1:1:... is one number in YAML, and made in quadratic time
            digits = len(event.value) > 64 and not event.value.strip("-+0123456789_:.")
            if digits:
                raise fault(where, "a number is too long")


class Counts(NamedTuple):
    """What a jobspec asks for at the least. nodes: 0 when it names none. slots, tasks, cores, gpus,
    memory_mb: totals.

    exact: every count is fixed, so that it cannot get more.
    """

    nodes: int
    slots: int
    tasks: int
    cores: int
    gpus: int
    memory_mb: int
    exact: bool


def memory_mb(count: int, unit: str = "") -> int:
    """Mebibytes of a memory vertex's count and unit (none means MB). Raises `Rejected` for another unit."""
    factor = _MEMORY_UNITS.get(unit.upper().removesuffix("B").removesuffix("I"))
    if factor is None:
        raise fault("unit", f"memory is counted in MB, GB or TB, not {shown(unit)}")
    return count * factor


def resource_counts(jobspec: Mapping[str, Any]) -> Counts:
    """Totals of a checked jobspec; a range counts with its least value, of alternatives the first does."""
    totals: dict[str, int] = {}
    per_label: dict[str, tuple[int, dict[str, int]]] = {}
    exact = True

    def walk(vertex: Mapping[str, Any], above: int, sums: list[dict[str, int]]) -> None:
        nonlocal exact
        count = ranges.parse_count(vertex["count"])
        exact = exact and count.fixed
        amount = above * count.min
        kind = "slot" if vertex["type"] in ALTERNATIVES else vertex["type"]
        size = memory_mb(amount, vertex.get("unit", "")) if kind == "memory" else amount
        for into in sums:
            into[kind] = into.get(kind, 0) + size
        if kind == "slot":
            inside: dict[str, int] = {}
            per_label[vertex["label"]] = (amount, inside)
            sums = [*sums, inside]
        walk_all(vertex.get("with", ()), amount, sums)

    def walk_all(vertices: Sequence[Mapping[str, Any]], above: int, sums: list[dict[str, int]]) -> None:
        nonlocal exact
        first = ""
        for vertex in vertices:
            if first and vertex["type"] in ALTERNATIVES:
                per_label.setdefault(vertex["label"], per_label[first])
                exact = False
                continue
            walk(vertex, above, sums)
            first = vertex["label"] if vertex["type"] in ALTERNATIVES else first

    walk_all(jobspec["resources"], 1, [totals])
    tasks = 0
    for task in jobspec["tasks"]:
        ((key, amount),) = task["count"].items()
        slots, inside = per_label[task["slot"]]
        if key == "total":
            tasks += amount
        elif key == "per_slot":
            tasks += slots * amount
        else:
            tasks += inside.get(amount["type"], 0) * amount["count"]
    return Counts(
        totals.get("node", 0),
        totals.get("slot", 0),
        tasks,
        totals.get("core", 0),
        totals.get("gpu", 0),
        totals.get("memory", 0),
        exact,
    )


def command_of(jobspec: Mapping[str, Any]) -> list[str]:
    """The command of the (first) task."""
    return list(jobspec["tasks"][0]["command"])


def job_name(jobspec: Mapping[str, Any]) -> str:
    """`attributes.system.job.name`, or the last part of the command's first word."""
    named = jobspec["attributes"].get("system", {}).get("job", {}).get("name")
    word: str = named or jobspec["tasks"][0]["command"][0].rstrip("/").rsplit("/", 1)[-1]
    return word
