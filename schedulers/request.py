"""What a job asks for: the `resources` of a jobspec, compiled once into values a matcher can use (RFC 14, RFC
25).

A `Request` holds the general tree of vertices, and, where the tree has one of RFC 25's shapes, its flat form,
which is all the fast matcher reads. This file decides what can be asked for; it never looks at what there is.
Equal requests of different jobs are one object: the cache is bounded and holds nothing but pure values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack  # type: ignore[import-untyped,unused-ignore]

from ..journal.claims import MEMORY_UNITS, Claim
from ..journal.jobspec_check import ALTERNATIVES, BYPASS, MIXED, SLOTS
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.ranges import Choice, Range
    from .imposed import Imposed

_VERTEX_KEYS = frozenset({"type", "count", "unit", "with", "label", "exclusive", "id"})
_CACHE_SIZE = 4096
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Vertex:
    """One vertex of the requested tree. exclusive: None where the jobspec is silent (RFC 14's default). count: a number, or what
    may be a greater one (RFC 14's ranges and sets).
    """

    type: str
    count: int | Range | Choice
    exclusive: bool | None
    label: str
    unit: str
    children: tuple[Vertex, ...]

    def value(self) -> list[Any]:
        """Plain values that name the vertex and all below it."""
        below = [child.value() for child in self.children]
        count = self.count if isinstance(self.count, int) else [str(part) for part in self.count]
        return [self.type, count, self.exclusive, self.label, self.unit, below]


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
    duration_s: 0 = unset. label: of the slots that tasks run in, where there are several kinds
    (labelled), "" for all. imposed: what it gets and nothing else; then flat is None.
    """

    key: bytes
    tree: tuple[Vertex, ...]
    flat: Flat | None
    constraint: Mapping[str, Any]
    constraint_key: bytes
    duration_s: float
    queue: str
    label: str = ""
    labelled: bool = False
    imposed: Imposed | None = None

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
    for what no matcher here can do (code "unsupported").
    """
    resources = jobspec.get("resources")
    attributes = jobspec.get("attributes") or {}
    system = attributes.get("system") if isinstance(attributes, Mapping) else None
    system = system if isinstance(system, Mapping) else {}
    asked = [resources, system.get("constraints"), system.get("duration", 0), system.get("queue", "")]
    asked += [system[BYPASS]] if BYPASS in system else []
    try:
        raw: bytes = msgpack.packb(asked)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad("resources", f"is not plain data: {error}") from None
    request = _cache.get(raw)
    if request is None or request.labelled:  # else the tasks need not be looked at: this is asked several times for each job
        label = _label(jobspec.get("tasks"))
        named = b"%b\0%b" % (raw, label.encode(errors="surrogatepass"))
        request = _cache.get(named) if request is not None else None
        if request is None:
            request = _compile(label, *asked)
            _remember(raw, request)
            if request.labelled:
                _remember(named, request)
    return request


def _remember(key: bytes, request: Request) -> None:
    if len(_cache) >= _CACHE_SIZE:  # Forget the older half: the newest shapes are the ones still being submitted.
        for old in list(_cache)[: _CACHE_SIZE // 2]:
            del _cache[old]
    _cache[key] = request


def _label(tasks: object) -> str:
    """The label of the slots that the tasks run in, as far as it can be read."""
    task = tasks[0] if isinstance(tasks, list | tuple) and tasks else None
    label = task.get("slot") if isinstance(task, Mapping) else None
    return label if isinstance(label, str) else ""


def _compile(label: str, resources: object, constraint: object, duration: object, queue: object, bypass: object = None) -> Request:
    if not isinstance(resources, list | tuple) or not resources:
        raise _bad("resources", "must be a list of at least one vertex")
    tree = _agreed(tuple(_vertex(v, f"resources[{i}]") for i, v in enumerate(resources)), label)
    labels = dict[str, str]()
    _check_labels(tree, "resources", labels)
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
    if not any(map(_has_slot, tree)):
        raise _bad("resources", "has no slot: put what a task needs into one")
    several = len(labels) > 1
    label = label if several and label in labels else ""
    named = [[vertex.value() for vertex in tree], constraint or None]
    key: bytes = msgpack.packb([*named, label] if label else named)
    flat, imposed = _flat(tree), None
    if bypass is not None:
        from .imposed import imposed_of

        imposed, flat, key = imposed_of(bypass, flat, tree), None, key + msgpack.packb(bypass)
    request = Request(key, tree, flat, dict(constraint), constraint_key, float(duration), queue, label, several, imposed)
    if request.flat is None:
        from .tree.needs import of_request

        of_request(request)
    return request


def _vertex(value: object, path: str, depth: int = 0) -> Vertex:
    if depth > MAX_DEPTH:
        raise _bad(path.partition(".")[0], f"is more than {MAX_DEPTH} deep")
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
    children = tuple(_vertex(v, f"{path}.with[{i}]", depth + 1) for i, v in enumerate(below))
    if value["type"] in SLOTS and not children:
        raise _bad(f"{path}.with", "is missing: a slot must hold something")
    count = _count(value.get("count"), f"{path}.count")
    return Vertex(value["type"], count, exclusive, value.get("label", ""), value.get("unit", ""), children)


def _has_slot(vertex: Vertex) -> bool:
    return vertex.type in SLOTS or any(map(_has_slot, vertex.children))


def _count(value: object, path: str) -> int | Range | Choice:
    """A number, or a range or set of numbers (RFC 14)."""
    if isinstance(value, bool) or value is None:
        raise _bad(path, "must be a positive integer")
    if isinstance(value, int):
        if value < 1:
            raise _bad(path, f"must be a positive integer, not {value!r}")
        if value > 0xFFFFFFFF:
            raise _bad(path, "is above 4294967295")
        return value
    from ..journal.ranges import parse_count

    try:
        amount = parse_count(value)
    except Rejected as error:
        raise _bad(path, str(error)) from None
    return amount.min if amount.fixed else amount


def _agreed(tree: tuple[Vertex, ...], label: str) -> tuple[Vertex, ...]:
    """Tasks that run in one of several alternatives run in whichever it becomes: all have its label then."""
    named = any(vertex.type in ALTERNATIVES and vertex.label == label for vertex in tree)
    found = []
    for vertex in tree:
        own = label if named and vertex.type in ALTERNATIVES else vertex.label
        below = _agreed(vertex.children, label)
        found.append(vertex if own is vertex.label and below == vertex.children else replace(vertex, label=own, children=below))
    return tuple(found)


def _check_labels(tree: Sequence[Vertex], path: str, seen: dict[str, str]) -> None:
    """RFC 14: every slot has a label, and no two have the same, but for alternatives. seen: among which others a label's are.
    Slots of which any mix is taken have one count."""
    mixed = {str(vertex.count): i for i, vertex in enumerate(tree) if vertex.type == MIXED}
    if len(mixed) > 1:
        raise _bad(f"{path}[{max(mixed.values())}].count", f"differs: any mix of the {MIXED}s side by side makes up one count")
    for i, vertex in enumerate(tree):
        here = f"{path}[{i}]"
        if vertex.type in SLOTS:
            if not vertex.label:
                raise _bad(f"{here}.label", "is missing: tasks name their slot by it")
            among = path if vertex.type in ALTERNATIVES else ""
            if vertex.label in seen and (not among or seen[vertex.label] != among):
                raise _bad(f"{here}.label", f"is used twice: {vertex.label!r}")
            seen[vertex.label] = among
        _check_labels(vertex.children, f"{here}.with", seen)


class _NotFlat(Exception):
    """It is of another shape."""


def _flat(tree: tuple[Vertex, ...]) -> Flat | None:
    """The flat form; None where there is none."""
    try:
        return _flat_of(tree)
    except _NotFlat:
        return None


def _flat_of(tree: tuple[Vertex, ...]) -> Flat:
    if len(tree) != 1:
        raise _NotFlat
    top, path = tree[0], "resources[0]"
    if top.type == "slot":
        cores, gpus, memory = _slot(top, path)
        return Flat(0, _fixed(top), 0, cores, gpus, memory, 0, False)
    if top.type != "node":
        raise _NotFlat
    slot: Vertex | None = None
    slot_path, node_memory = "", 0
    for i, child in enumerate(top.children):
        here = f"{path}.with[{i}]"
        if child.type == "slot" and slot is None:
            slot, slot_path = child, here
        elif child.type == "memory" and not node_memory and child.exclusive is None:
            node_memory = _memory_mb(child, here)
        else:
            raise _NotFlat
    if slot is None:
        raise _NotFlat
    cores, gpus, memory = _slot(slot, slot_path)
    nnodes, slots = _fixed(top), _fixed(slot)
    return Flat(nnodes, nnodes * slots, slots, cores, gpus, memory, node_memory, bool(top.exclusive))


def _fixed(vertex: Vertex) -> int:
    if not isinstance(vertex.count, int):
        raise _NotFlat
    return vertex.count


def _slot(slot: Vertex, path: str) -> tuple[int, int, int]:
    """(cores, gpus, memory_mb) of one slot."""
    got: dict[str, int] = {}
    for i, child in enumerate(slot.children):
        here = f"{path}.with[{i}]"
        plain = child.type in ("core", "gpu", "memory") and child.type not in got and not child.children
        if not plain or child.exclusive is False or (child.exclusive and child.type == "memory"):
            raise _NotFlat
        got[child.type] = _memory_mb(child, here) if child.type == "memory" else _fixed(child)
    if slot.exclusive is False:
        raise _bad(f"{path}.exclusive", "must not be false: what is in a slot is not shared")
    if "core" not in got:
        raise _bad(f"{path}.with", "has no core: every slot needs at least one")
    return got["core"], got.get("gpu", 0), got.get("memory", 0)


def _memory_mb(vertex: Vertex, path: str) -> int:
    if vertex.children:
        raise _NotFlat
    factor = MEMORY_UNITS.get(vertex.unit)
    if factor is None:
        raise _bad(f"{path}.unit", f"must be one of {', '.join(MEMORY_UNITS)}, not {vertex.unit!r}")
    return _fixed(vertex) * factor


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
        each = _whole(value.get("count"), "tasks[0].count.per_resource.count")
        return [each * held for held in _held(value.get("type"), claims)]
    if how == "per_slot":
        each = _whole(value, "tasks[0].count.per_slot")
        return [each * claim.slots for claim in claims]
    if how == "total":
        return _spread_slots(_whole(value, "tasks[0].count.total"), claims)
    raise _bad(f"tasks[0].count.{how}", "is no way to count tasks")


def _whole(value: object, path: str) -> int:
    count = _count(value, path)
    if not isinstance(count, int):
        raise _bad(path, "must be one number")
    return count


def _spread_slots(total: int, claims: Sequence[Claim]) -> list[int]:
    """Over the claims that have slots: what a job holds on other nodes runs no tasks."""
    weights = [claim.slots for claim in claims]
    if all(weights):
        return spread(total, weights)
    shares = iter(spread(total, [weight for weight in weights if weight]))
    return [next(shares) if weight else 0 for weight in weights]


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
