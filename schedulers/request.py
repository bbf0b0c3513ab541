"""What a job asks for: the `resources` of a jobspec, compiled once into values a matcher can use (RFC 14, RFC
25).

A `Request` holds the general tree of vertices, and, where the tree has one of RFC 25's shapes, its flat form,
which is all the fast matcher reads. This file decides what can be asked for; it never looks at what there is.
Equal requests of different jobs are one object: the cache is bounded and holds nothing but pure values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack  # type: ignore[import-untyped,unused-ignore]

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.claims import Claim

#: Megabytes per unit of a `memory` vertex. As with other schedulers, 1 GB is 1024 MB and MiB is another name
#: for MB.
MEMORY_UNITS = {"MB": 1, "MiB": 1, "GB": 1024, "GiB": 1024, "TB": 1024 * 1024, "TiB": 1024 * 1024}

_VERTEX_KEYS = frozenset({"type", "count", "unit", "with", "label", "exclusive", "id"})
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Vertex:
    """One vertex of the requested tree. exclusive: None where the jobspec is silent (RFC 14's default)."""

    type: str
    count: int
    exclusive: bool | None
    label: str
    unit: str
    children: tuple[Vertex, ...]

    def value(self) -> list[Any]:
        """Plain values that name the vertex and all below it."""
        below = [child.value() for child in self.children]
        return [self.type, self.count, self.exclusive, self.label, self.unit, below]


class Flat(NamedTuple):
    """A request of RFC 25's shape. With `nnodes` 0 the slots go wherever they fit, else `slots_per_node` on
    each node.

    cores and gpus are counts per slot, memory_mb is per slot, node_memory_mb per node on top of its slots'.
    exclusive: whole idle nodes are taken, and then with everything they have.
    """

    nnodes: int
    nslots: int
    slots_per_node: int
    cores: int
    gpus: int
    memory_mb: int
    node_memory_mb: int
    exclusive: bool


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Compiled `resources` and constraint of a jobspec.

    key: names (resources, constraint) and nothing else; caches of matchers are keyed by it. constraint: RFC
    31, {} for none; constraint_key: its key, b"" for none. flat: None where only a matcher of trees will do.
    duration_s: 0 = unset.
    """

    key: bytes
    tree: tuple[Vertex, ...]
    flat: Flat | None
    constraint: Mapping[str, Any]
    constraint_key: bytes
    duration_s: float
    queue: str

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Request):
            return NotImplemented
        return self.key == other.key and self.duration_s == other.duration_s and self.queue == other.queue


_cache: dict[bytes, Request] = {}


def compile_request(jobspec: Mapping[str, Any]) -> Request:
    """The Request of a jobspec (a parsed mapping). Jobs that ask for the same get the same object.

    Raises Rejected, with the path to the fault in the message, for what is malformed (code "bad-jobspec") and
    for what no matcher here can do yet (code "unsupported").
    """
    resources = jobspec.get("resources")
    attributes = jobspec.get("attributes") or {}
    system = attributes.get("system") if isinstance(attributes, Mapping) else None
    system = system if isinstance(system, Mapping) else {}
    asked = [resources, system.get("constraints"), system.get("duration", 0), system.get("queue", "")]
    try:
        raw: bytes = msgpack.packb(asked)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad("resources", f"is not plain data: {error}") from None
    request = _cache.get(raw)
    if request is None:
        if (
            len(_cache) >= _CACHE_SIZE
        ):  # Forget the older half: the newest shapes are the ones still being submitted.
            for old in list(_cache)[: _CACHE_SIZE // 2]:
                del _cache[old]
        request = _cache[raw] = _compile(*asked)
    return request


def _compile(resources: object, constraint: object, duration: object, queue: object) -> Request:
    if not isinstance(resources, list | tuple) or not resources:
        raise _bad("resources", "must be a list of at least one vertex")
    tree = tuple(_vertex(v, f"resources[{i}]") for i, v in enumerate(resources))
    _check_labels(tree, "resources", set())
    if (
        not isinstance(duration, int | float)
        or isinstance(duration, bool)
        or not 0 <= duration < float("inf")
    ):
        raise _bad("attributes.system.duration", "must be a number of seconds, 0 or more")
    if not isinstance(queue, str):
        raise _bad("attributes.system.queue", "must be a string")
    if constraint is None:
        constraint = {}
    if not isinstance(constraint, Mapping):
        raise _bad("attributes.system.constraints", "must be an object")
    if constraint:
        from ..journal.constraint import check

        check(constraint)
    constraint_key: bytes = msgpack.packb(constraint) if constraint else b""
    key: bytes = msgpack.packb([[vertex.value() for vertex in tree], constraint or None])
    return Request(key, tree, _flat(tree), dict(constraint), constraint_key, float(duration), queue)


def _vertex(value: object, path: str) -> Vertex:
    if not isinstance(value, Mapping):
        raise _bad(path, "must be an object with at least `type` and `count`")
    if unknown := sorted(str(k) for k in value if k not in _VERTEX_KEYS):
        raise _bad(f"{path}.{unknown[0]}", "is no key of a resource vertex")
    for name in ("type", "unit", "label"):
        if name in value and not isinstance(value[name], str):
            raise _bad(f"{path}.{name}", "must be a string")
    if not value.get("type"):
        raise _bad(f"{path}.type", "is missing")
    if "id" in value:
        raise _unsupported(f"{path}.id", "asking for resources by id", "use a constraint on hosts or ranks")
    exclusive = value.get("exclusive")
    if exclusive is not None and not isinstance(exclusive, bool):
        raise _bad(f"{path}.exclusive", "must be true or false")
    below = value.get("with", ())
    if "with" in value and (not isinstance(below, list | tuple) or not below):
        raise _bad(f"{path}.with", "must be a list of at least one vertex")
    children = tuple(_vertex(v, f"{path}.with[{i}]") for i, v in enumerate(below))
    if value["type"] == "slot" and not children:
        raise _bad(f"{path}.with", "is missing: a slot must hold something")
    count = _count(value.get("count"), f"{path}.count")
    return Vertex(value["type"], count, exclusive, value.get("label", ""), value.get("unit", ""), children)


def _count(value: object, path: str) -> int:
    """A fixed count; RFC 14's ranges and sets are well formed, but no matcher here can do them yet."""
    if isinstance(value, bool) or value is None:
        raise _bad(path, "must be a positive integer")
    if isinstance(value, Mapping):
        least = value.get("min")
        if "max" in value and value["max"] == least:
            return _count(least, f"{path}.min")
        raise _unsupported(path, "a range of counts", "ask for one number")
    if isinstance(value, str):
        text = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        if text.isascii() and text.isdigit() and text[0] != "0":
            return int(text)
        if text and text.isascii() and text[0] in "123456789" and not set(text) - set("0123456789,-+:*^"):
            raise _unsupported(path, "a range or set of counts", "ask for one number")
        raise _bad(path, f"must be a positive integer, not {value!r}")
    if not isinstance(value, int) or value < 1:
        raise _bad(path, f"must be a positive integer, not {value!r}")
    if value > 0xFFFFFFFF:
        raise _bad(path, "is above 4294967295")
    return value


def _check_labels(tree: Sequence[Vertex], path: str, seen: set[str]) -> None:
    """RFC 14: every slot has a label, and no two have the same."""
    for i, vertex in enumerate(tree):
        here = f"{path}[{i}]"
        if vertex.type == "slot":
            if not vertex.label:
                raise _bad(f"{here}.label", "is missing: tasks name their slot by it")
            if vertex.label in seen:
                raise _bad(f"{here}.label", f"is used twice: {vertex.label!r}")
            seen.add(vertex.label)
        _check_labels(vertex.children, f"{here}.with", seen)


def _flat(tree: tuple[Vertex, ...]) -> Flat:
    """The flat form. Where a matcher of trees arrives, what is refused here becomes None and goes to it."""
    if len(tree) != 1:
        raise _unsupported(
            "resources[1]", "more than one top-level resource", "ask for one node or slot vertex"
        )
    top, path = tree[0], "resources[0]"
    if top.type == "slot":
        cores, gpus, memory = _slot(top, path)
        return Flat(0, top.count, 0, cores, gpus, memory, 0, False)
    if top.type != "node":
        raise _unsupported(f"{path}.type", f"a top-level {top.type!r}", "the top is a node or a slot")
    slot: Vertex | None = None
    slot_path, node_memory = "", 0
    for i, child in enumerate(top.children):
        here = f"{path}.with[{i}]"
        if child.type == "slot" and slot is None:
            slot, slot_path = child, here
        elif child.type == "memory" and not node_memory:
            node_memory = _memory_mb(child, here)
        elif child.type in ("slot", "memory"):
            raise _unsupported(here, f"a second {child.type} in a node", "ask for one")
        else:
            raise _unsupported(f"{here}.type", f"{child.type!r} outside a slot", "put it into the slot")
    if slot is None:
        raise _unsupported(path, "a node without a slot", "put a slot with cores into it")
    cores, gpus, memory = _slot(slot, slot_path)
    nslots = top.count * slot.count
    return Flat(top.count, nslots, slot.count, cores, gpus, memory, node_memory, bool(top.exclusive))


def _slot(slot: Vertex, path: str) -> tuple[int, int, int]:
    """(cores, gpus, memory_mb) of one slot. Exclusive is what a slot is anyway; false would be sharing."""
    if slot.exclusive is False:
        raise _unsupported(f"{path}.exclusive", "sharing a slot's resources with other jobs", "leave it out")
    got: dict[str, int] = {}
    for i, child in enumerate(slot.children):
        here = f"{path}.with[{i}]"
        if child.type not in ("core", "gpu", "memory"):
            raise _unsupported(
                f"{here}.type", f"{child.type!r} in a slot", "a slot holds core, gpu and memory"
            )
        if child.type in got:
            raise _unsupported(here, f"a second {child.type} in a slot", "add the counts up")
        if child.children:
            raise _unsupported(f"{here}.with", f"something inside a {child.type}", "leave it out")
        if child.exclusive is False:
            raise _unsupported(f"{here}.exclusive", f"sharing a {child.type} with other jobs", "leave it out")
        got[child.type] = _memory_mb(child, here) if child.type == "memory" else child.count
    if "core" not in got:
        raise _bad(f"{path}.with", "has no core: every slot needs at least one")
    return got["core"], got.get("gpu", 0), got.get("memory", 0)


def _memory_mb(vertex: Vertex, path: str) -> int:
    if vertex.children:
        raise _unsupported(f"{path}.with", "something inside memory", "leave it out")
    factor = MEMORY_UNITS.get(vertex.unit)
    if factor is None:
        raise _bad(f"{path}.unit", f"must be one of {', '.join(MEMORY_UNITS)}, not {vertex.unit!r}")
    return vertex.count * factor


def _bad(path: str, why: str) -> Rejected:
    return Rejected(f"jobspec: {path} {why}", code="bad-jobspec", hint=f"mend {path} in the jobspec")


def _unsupported(path: str, what: str, instead: str) -> Rejected:
    return Rejected(f"jobspec: {path}: {what} is not supported yet", code="unsupported", hint=instead)


def tasks_per_claim(request: Request, count: Mapping[str, Any], claims: Sequence[Claim]) -> list[int]:
    """How many tasks run on each claim, in the order of `claims`.

    count: the task's RFC 14 `count`, exactly one of `per_slot: n`, `total: n`, `per_resource: {type, count}`.
    A total is spread in proportion to the claims' slots, each claim first getting one where there are enough.
    Raises Rejected.
    """
    if len(claims) == 1 and count.get("per_slot") == 1 and len(count) == 1:  # what nearly every job asks
        return [claims[0].slots]
    if not isinstance(count, Mapping) or len(count) != 1:
        raise _bad("tasks[0].count", "must have exactly one of per_slot, per_resource, total")
    ((how, value),) = count.items()
    if how == "per_resource" and isinstance(value, Mapping):
        each = _count(value.get("count"), "tasks[0].count.per_resource.count")
        return [each * held for held in _held(value.get("type"), claims)]
    if how == "per_slot":
        each = _count(value, "tasks[0].count.per_slot")
        return [each * claim.slots for claim in claims]
    if how == "total":
        return spread(_count(value, "tasks[0].count.total"), [claim.slots for claim in claims])
    raise _bad(f"tasks[0].count.{how}", "is no way to count tasks")


def _held(kind: object, claims: Iterable[Claim]) -> list[int]:
    if kind == "core":
        return [claim.cores.bit_count() for claim in claims]
    if kind == "gpu":
        return [claim.gpus.bit_count() for claim in claims]
    if kind == "node":
        return [1 for _ in claims]
    raise _unsupported("tasks[0].count.per_resource.type", f"tasks per {kind!r}", "use core, gpu or node")


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` over shares in proportion to `weights` (>= 1 each), in whole numbers and the same way
    every time.

    With total >= len(weights) no share is 0; no share is above its weight while the total is not above their
    sum.
    """
    if total < len(weights):
        return [1] * total + [0] * (len(weights) - total)
    whole = sum(weights)
    if total > whole:
        rounds, rest = divmod(total, whole)
        return [rounds * w + more for w, more in zip(weights, _proportional(rest, weights), strict=True)]
    spare = [w - 1 for w in weights]
    return [1 + more for more in _proportional(total - len(weights), spare)]


def _proportional(total: int, weights: Sequence[int]) -> list[int]:
    whole, reached, given = sum(weights), 0, 0
    shares = []
    for weight in weights:
        reached += weight
        upto = -(-total * reached // whole) if whole else 0
        shares.append(upto - given)
        given = upto
    return shares
