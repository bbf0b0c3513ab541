"""What a request asks of a tree: the `resources` of a jobspec (RFC 14), checked and compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...journal import constraint as constraints
from ...journal.claims import MEMORY_UNITS
from ...journal.duration import parse_duration
from ...journal.jobspec_check import MIXED, ONE_OF, SLOTS
from ...journal.ranges import MAX_COUNT, Choice, Range, parse_count
from ...journal.sched_config import SIMPLE
from ...kvs.errors import Rejected

if TYPE_CHECKING:
    from ..request import Request
    from ..request import Vertex as Asked

CACHE_SIZE = 4096
MAX_DEPTH = 64
MAX_VERTICES = 4096
FOREVER_S = 1 << 40

#: Unit -> (what it measures, how much of it).
UNITS = {
    "B": ("bytes", 1), "kB": ("bytes", 1 << 10), "KB": ("bytes", 1 << 10), "KiB": ("bytes", 1 << 10), "PB": ("bytes", 1 << 50),
    "PiB": ("bytes", 1 << 50), **{unit: ("bytes", megabytes << 20) for unit, megabytes in MEMORY_UNITS.items()},
    "W": ("power", 1), "kW": ("power", 1000), "KW": ("power", 1000), "MW": ("power", 1_000_000),
}  # fmt: skip

SAME = (1, 1)
_KEYS = frozenset({"type", "count", "unit", "with", "label", "exclusive", "id"})


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """One vertex of a request. amount: how many units may be given.

    exclusive: None where the jobspec is silent. least: type -> units that one of it needs at the very least, at
    and below it. slots, others: the children, by whether they are bundles. high: the most that is of use.

    alternatives: of slots that may be mixed, which are one need; its children are what is in any of them.
    """

    type: str
    amount: Range | Choice
    exclusive: bool | None
    unit: str
    label: str
    children: tuple[Need, ...]
    least: Mapping[str, int]
    slots: tuple[Need, ...]
    others: tuple[Need, ...]
    high: int
    alternatives: tuple[Need, ...] = ()

    @property
    def is_slot(self) -> bool:
        """A slot of any kind is a bundle, not a resource."""
        return self.type in SLOTS

    @property
    def low(self) -> int:
        """The least that will do."""
        return self.amount.min

    def count(self, available: int) -> int:
        """The largest count that is allowed and there; 0 where not even the least is."""
        return self.amount.largest(available)


def ratio(asked: str, there: str) -> tuple[int, int] | None:
    """How many of the asked unit one of the unit that is there is, as (numerator, denominator); None where they do not
    measure the same. Without a unit on either side they are taken to be equal."""
    if asked == there or not asked or not there:
        return SAME
    one, other = UNITS.get(asked), UNITS.get(there)
    if one is None or other is None or one[0] != other[0]:
        return None
    return other[1], one[1]


@dataclass(frozen=True, slots=True, eq=False)
class TreeRequest:
    """A compiled request. matches: the constraint as a function of (rank, host, property names)."""

    needs: tuple[Need, ...]
    duration_s: int
    matches: Callable[..., bool]
    constrained: bool

    @property
    def crowded(self) -> bool:
        """Is anything beside a slot, or in one that it may be mixed with, that could be made of the same?"""
        return _crowded(self.needs)


def _crowded(needs: tuple[Need, ...]) -> bool:
    return any(need.alternatives or (need.is_slot and len(needs) > 1) or _crowded(need.children) for need in needs)


def ways(needs: tuple[Need, ...]) -> list[tuple[Need, ...]]:
    """Needs side by side as they are with each of the alternatives among them, in order."""
    alternatives = [need for need in needs if need.type == ONE_OF]
    if not alternatives or len(needs) < 2:
        return [needs]
    return [tuple(need for need in needs if need is one or need.type != ONE_OF) for one in alternatives]


@lru_cache(maxsize=CACHE_SIZE)
def ways_below(need: Need) -> tuple[Need, ...]:
    """A need in as many forms as there are `ways` of what is below it: equal ones are one object."""
    found = ways(need.children)
    if found == [need.children]:
        return (need,)
    return tuple(replace(need, children=one, slots=tuple(n for n in one if n.is_slot)) for one in found)


def compile_request(jobspec: Mapping[str, Any], types: Iterable[str] | None = None) -> TreeRequest:
    """Check and compile a jobspec. A duration of 0, or none, is unlimited (RFC 14).

    types: those the graph has; others are refused. Raises Rejected (code "bad-jobspec") with the path.
    """
    known = None if types is None else {*types, *SLOTS}
    resources = jobspec.get("resources") if isinstance(jobspec, Mapping) else None
    if not isinstance(resources, list) or not resources:
        raise fault("resources", "must be a list with at least one entry")
    needs = _checked(resources, known)
    system = _object(_object(jobspec.get("attributes"), "attributes").get("system"), "attributes.system")
    try:
        duration_s = int(parse_duration(system.get("duration", 0)) or FOREVER_S)
    except Rejected as error:
        raise fault("attributes.system.duration", str(error)) from None
    constraint = system.get("constraints") or None
    return TreeRequest(needs, min(duration_s, FOREVER_S), constraints.compile(constraint), constraint is not None)


_known: dict[bytes, TreeRequest] = {}
_flexible: dict[TreeRequest, TreeRequest] = {}


def of_request(request: Request, traverser: str = SIMPLE) -> TreeRequest:
    """The needs of a request that was compiled for an instance, whose constraint is the matcher's business. Equal ones are one
    object. Raises Rejected for what a tree cannot be asked for."""
    found = _known.get(request.key)
    if found is None:
        needs = _checked([_plain(vertex) for vertex in request.tree], None)
        found = TreeRequest(needs, FOREVER_S, constraints.compile(None), bool(request.constraint_key))
        if len(_known) >= CACHE_SIZE:
            _known.clear()
        _known[request.key] = found
    return found if traverser == SIMPLE else flexible(found)


def flexible(request: TreeRequest) -> TreeRequest:
    """The same with slots side by side as `or_slot`s, as Fluxion's flexible traverser takes them."""
    found = _flexible.get(request)
    if found is None:
        needs = _grouped(tuple(map(_flexibly, request.needs)), "slot")
        if len(_flexible) >= CACHE_SIZE:
            _flexible.clear()
        found = _flexible[request] = replace(request, needs=needs)
    return found


def _flexibly(need: Need) -> Need:
    if not need.children or need.is_slot:  # in a slot there is no slot
        return need
    return _with(need, _grouped(tuple(map(_flexibly, need.children)), "slot"))


def _with(need: Need, children: tuple[Need, ...]) -> Need:
    """A need with these below it."""
    slots, others = tuple(c for c in children if c.is_slot), tuple(c for c in children if not c.is_slot)
    least = _least(need.type, need.is_slot or bool(need.unit), children)
    return replace(need, children=children, slots=slots, others=others, least=least)


def _grouped(needs: tuple[Need, ...], kind: str) -> tuple[Need, ...]:
    """Siblings with the slots of a kind that may be mixed, if there are several, as one need, at the place of the first. How many
    are wanted the last one says, as in Fluxion."""
    mixed = tuple(need for need in needs if need.type == kind)
    if len(mixed) < 2:
        return needs
    inside = {(part.type, part.unit): part for need in reversed(mixed) for part in reversed(need.children)}
    kinds = set.intersection(*(set(need.least) for need in mixed))
    least = {one: min(need.least[one] for need in mixed) for one in kinds}
    children = tuple(reversed(inside.values()))
    group = replace(mixed[-1], type=MIXED, children=children, slots=(), others=children, least=least, alternatives=mixed)
    at = needs.index(mixed[0])
    rest = [need for need in needs if need.type != kind]
    return (*rest[:at], group, *rest[at:])


def least_of(request: Request, kind: str) -> int:
    """Units of a type without which a request cannot be served; of slots side by side, which may be alternatives, the least."""
    if request.imposed is not None:
        return sum(claim.cores.bit_count() for claim in request.imposed.claims) if kind == "core" else 0
    needs = of_request(request).needs
    slots = [need.low * need.least.get(kind, 0) for need in needs if need.is_slot]
    return min(slots, default=0) + sum(need.low * need.least.get(kind, 0) for need in needs if not need.is_slot)


def _plain(vertex: Asked) -> dict[str, Any]:
    """A vertex as a jobspec has it."""
    value: dict[str, Any] = {"type": vertex.type, "count": vertex.count, "label": vertex.label, "unit": vertex.unit}
    if vertex.exclusive is not None:
        value["exclusive"] = vertex.exclusive
    if vertex.children:
        value["with"] = [_plain(child) for child in vertex.children]
    return value


def _checked(resources: list[Any], known: set[str] | None) -> tuple[Need, ...]:
    room = [MAX_VERTICES]
    return _grouped(tuple(_need(one, f"resources[{i}]", 0, False, known, room) for i, one in enumerate(resources)), MIXED)


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise fault(path, "must be an object")
    return value


def _need(value: Any, path: str, depth: int, in_slot: bool, known: set[str] | None, room: list[int]) -> Need:
    room[0] -= 1
    if depth > MAX_DEPTH or room[0] < 0:
        raise fault(path.partition(".")[0], f"is more than {MAX_DEPTH} deep, or has more than {MAX_VERTICES} vertices")
    if not isinstance(value, Mapping):
        raise fault(path, "must be an object")
    for key in value:
        if key not in _KEYS:
            raise fault(path, f"has an unknown key {str(key)[:40]!r}")
    kind = value.get("type")
    if not isinstance(kind, str) or not kind:
        raise fault(f"{path}.type", "must be there and be a string")
    if known is not None and kind not in known:
        raise UnknownType(path, kind)
    slot = kind in SLOTS
    exclusive = value.get("exclusive")
    if exclusive is not None and not isinstance(exclusive, bool):
        raise fault(f"{path}.exclusive", "must be true or false")
    if in_slot and exclusive is False:
        raise fault(f"{path}.exclusive", "must not be false below a slot, where all is exclusive")
    if in_slot and slot:
        raise fault(f"{path}.type", "a slot must not be below a slot")
    below = value.get("with")
    if below is not None and (not isinstance(below, list) or not below):
        raise fault(f"{path}.with", "must be a list with at least one entry")
    if slot and not below:
        raise fault(f"{path}.with", "a slot must have something in it")
    try:
        count = value.get("count", 1)
        amount = count if isinstance(count, Range | Choice) else parse_count(count)
    except Rejected as error:
        raise fault(f"{path}.count", f"is a {error}") from None
    children = tuple(
        _need(one, f"{path}.with[{i}]", depth + 1, in_slot or slot, known, room) for i, one in enumerate(below or ())
    )
    children = _grouped(children, MIXED)
    for key in ("unit", "label"):
        if not isinstance(value.get(key, ""), str):
            raise fault(f"{path}.{key}", "must be a string")
    return Need(
        kind, amount, exclusive, value.get("unit", ""), value.get("label", ""), children,
        _least(kind, slot or bool(value.get("unit")), children),
        tuple(child for child in children if child.is_slot), tuple(child for child in children if not child.is_slot),
        amount.largest(MAX_COUNT),
    )  # fmt: skip


def _least(kind: str, silent: bool, children: tuple[Need, ...]) -> dict[str, int]:
    """What one needs. Slots side by side may be alternatives, which do not add up: nothing is said about them, nor (silent)
    about slots themselves and what is asked for in a unit that the graph may not have."""
    least = {} if silent else {kind: 1}
    if sum(child.is_slot for child in children) > 1:
        return least
    for child in children:
        for below, units in child.least.items():
            least[below] = least.get(below, 0) + units * child.low
    return least


def fault(path: str, why: str) -> Rejected:
    """What a request that cannot be read is refused with."""
    return Rejected(f"bad jobspec: {path} {why}", code="bad-jobspec", hint="RFC 14 describes the form")


class UnknownType(Rejected):
    """A type that the graph does not have at all."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(
            f"bad jobspec: {path}.type {kind[:60]!r} is in no resource graph here", code="bad-jobspec",
            hint="see which types the graph has: info, or list",
        )  # fmt: skip
