"""Why a request does not fit, in one line an admin can act on. Looks, counts and words; changes nothing.

The order of the questions is the order in which they can be acted on: could it ever run here; could it run
were every node back; could it run were nobody else there; and then what is in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .policy import Code
from .request import Flat, Request
from .resources import Pool, Stocks, Unmatched, serving_nodes, serving_slots
from .stock import Stock, positions


class Reason(NamedTuple):
    """code: a `policy.Code`. text: one line. blocking: the kind of resource it lacks ("core", ...), or "".

    needed, found: how many of `unit` ("node", "slot", "core", "gpu", "MB") it needs, and how many there are; 0 and 0 where
    no number says it. of: what is measured in that unit, where it is one of a graph's ("W" of "power").
    """

    code: str
    text: str
    blocking: str
    needed: int = 0
    found: int = 0
    unit: str = ""
    of: str = ""


class _Short(NamedTuple):
    """What is short, and by how many: as in `Reason`."""

    text: str
    kind: str
    needed: int
    found: int
    unit: str

    def reason(self, code: str, text: str = "") -> Reason:
        return Reason(code, text or self.text, self.kind, self.needed, self.found, self.unit)


class _View(NamedTuple):
    """Where to look: these counts on these positions. free: the counts are what is free now."""

    pool: Pool
    stocks: Stocks
    among: int
    free: bool


def explain(request: Request, pool: Pool) -> Reason:
    """Why the request does not fit the pool now; code "ready" if it does."""
    flat = request.flat
    if flat is None or pool.is_dim:
        return _of_any_shape(request, pool)
    if flat.nnodes and pool.policy.whole_nodes:
        flat = flat._replace(exclusive=True)
    matching = pool.matching(request)
    if pool.satisfiable(request) is not None:
        if not matching:
            return Reason(Code.UNSATISFIABLE, f"unsatisfiable: {_nobody_meets(request, pool)}", "constraint")
        short = _shortage(flat, _View(pool, pool.total, matching, False), _beside(request))
        return short.reason(Code.UNSATISFIABLE, f"unsatisfiable: {short.text}")
    if pool.fits(request, pool.total, pool.usable) is not None:
        return _down(request, flat, pool, matching)
    among = matching & pool.usable
    if flat.exclusive:
        idle = serving_nodes(flat, pool.total, among & pool.idle).bit_count()
        if idle >= flat.nnodes:
            return Reason(Code.READY, "fits now", "")
        return Reason(
            Code.RESOURCES, f"needs {_n(flat.nnodes, 'idle node')}; {idle or 'none'} {_is(idle)} idle", "node",
            flat.nnodes, idle, "node",
        )  # fmt: skip
    if pool.fits(request, pool.free, pool.usable) is None:
        if pool.policy.whole_nodes and not pool.match(request):
            text = f"the match policy {pool.match_policy} gives whole nodes, and too few are idle"
            return Reason(Code.RESOURCES, text, "node")
        return Reason(Code.READY, "fits now", "")
    return _shortage(flat, _View(pool, pool.free, among, True), _beside(request)).reason(Code.RESOURCES)


def _of_any_shape(request: Request, pool: Pool) -> Reason:
    """The same questions, asked of the search."""
    from .tree.shortage import shortage

    if pool.satisfiable(request) is not None:
        if not pool.matching(request):
            return Reason(Code.UNSATISFIABLE, f"unsatisfiable: {_nobody_meets(request, pool)}", "constraint")
        short = shortage(pool, request, empty=True, all_up=True)
        return Reason(Code.UNSATISFIABLE, f"unsatisfiable: {short.text}", short.kind, *short[2:])
    if not _serves(request, pool, pool.usable):
        code, because = _away(request, pool, pool.matching(request))
        short = shortage(pool, request, empty=True)
        return Reason(code, f"{short.text}{because}", "node", *short[2:])
    if pool.match(request):
        return Reason(Code.READY, "fits now", "")
    short = shortage(pool, request, now=" now")
    return Reason(Code.RESOURCES, short.text, short.kind, *short[2:])


def _serves(request: Request, pool: Pool, among: int) -> bool:
    """Whether these nodes would do, had nobody else anything of them."""
    if request.flat is not None and not pool.is_dim:
        return pool.fits(request, pool.total, among) is None
    from .tree.stand import search

    return not isinstance(search(pool, request, among, empty=True), Unmatched)


def _dark(pool: Pool) -> list[str]:
    """What else is set down, nodes apart: "socket4 of n2 down"."""
    layout = pool.layout if pool.dark else None
    if layout is None:
        return []
    names = []
    for ordinal in sorted(pool.dark):
        if not layout.spans[ordinal] and (path := layout.paths[ordinal]):
            above, _, name = path.rpartition("/")
            names.append(f"{name} of {above.rpartition('/')[2]}" if above else name)
    more = [f"{len(names) - 3} more parts"] if len(names) > 3 else []
    return [f"{', '.join([*names[:3], *more])} down"] if names else []


def _away(request: Request, pool: Pool, matching: int) -> tuple[Code, str]:
    """Whether those that are drained would do, and how many nodes are away, of which sort."""
    away = [pool.down.get(i, "offline") for i in positions(matching & ~pool.usable)]
    because = ", ".join([*(f"{away.count(why)} {why}" for why in sorted(set(away))), *_dark(pool)])
    drained = sum(1 << i for i, why in pool.down.items() if why == "drained")
    code = Code.DRAINED if drained and _serves(request, pool, pool.usable | drained) else Code.NODE_DOWN
    return code, f" ({because})" if because else ""


def _down(request: Request, flat: Flat, pool: Pool, matching: int) -> Reason:
    """It would fit if nodes that are drained or offline came back: say how many, and of which sort."""
    code, because = _away(request, pool, matching)
    among = matching & pool.usable
    up = serving_nodes(flat, pool.total, among).bit_count() if flat.nnodes else among.bit_count()
    if flat.nnodes:
        nodes = _n(flat.nnodes, "node")
        if up < among.bit_count():
            text = f"needs {nodes} with {_per_node(flat)}; {up or 'none'} of those up {_has(up)}"
        else:
            text = f"needs {nodes}; {_up(up, _beside(request))}"
        return Reason(code, f"{text}{because}", "node", flat.nnodes, up, "node")
    short = _shortage(flat, _View(pool, pool.total, among, False), _beside(request))
    return short._replace(kind="node").reason(code, f"{short.text}{because}")


def _shortage(flat: Flat, view: _View, beside: str | None) -> _Short:
    """The first thing that is short. Precondition: the request does not fit the view."""
    each = flat.slots_per_node or 1
    needs = [("core", view.stocks.cores, each * flat.cores)]
    if flat.gpus:
        needs.append(("gpu", view.stocks.gpus, each * flat.gpus))
    if memory_mb := each * flat.memory_mb + flat.node_memory_mb:
        needs.append(("memory", view.stocks.memory, memory_mb))
    wanted = flat.nnodes or 1
    if view.among.bit_count() < flat.nnodes:
        n = view.among.bit_count()
        where = _up(n, beside) if view.free else _there(n, beside)
        return _Short(f"needs {_n(flat.nnodes, 'node')}; {where}", "node", flat.nnodes, n, "node")
    for kind, stock, need in needs:
        n = (stock.at_least(need) & view.among).bit_count()
        if n >= wanted:
            continue
        if wanted > 1:
            free = " free" if view.free else ""
            amount = _amount(kind, need)
            return _Short(f"needs {_n(wanted, 'node')} with {amount}{free}; {n or 'none'} {_has(n)}", kind, wanted, n, "node")
        best, unit = stock.largest(view.among)[0], "MB" if kind == "memory" else kind
        return _Short(f"needs {_amount(kind, need)} on one node; {_most(kind, stock, view)}", kind, need, best, unit)
    per = _per_node(flat)
    if flat.nnodes or flat.nslots == 1:
        n = serving_nodes(flat, view.stocks, view.among).bit_count() if flat.nnodes else 0
        free, who = " free" if view.free else "", _n(wanted, "node")
        text = f"needs {who} with {per}{free}; {n or 'none'} {_has(n)} all of it together"
        return _Short(text, needs[-1][0], wanted, n, "node")
    n = serving_slots(flat, view.stocks, view.among)
    now = " now" if view.free else ""
    text = f"needs {_n(flat.nslots, 'slot')} of {per}; {n or 'none'} fit{'s' if n == 1 else ''}{now}"
    return _Short(text, "core", flat.nslots, n, "slot")


def _most(kind: str, stock: Stock, view: _View) -> str:
    """ "at most 2 are free (node 1)" or "the largest has 32"."""
    best, where = stock.largest(view.among)
    if where < 0:
        return "no node is up and matches"
    if kind == "memory" and not view.pool.total.memory.largest(view.among)[0]:
        return "no node has its memory in the inventory"
    amount = f"{best} MB" if kind == "memory" else str(best)
    if not view.free:
        return f"the largest has {amount}" if best else f"no node has a {kind}"
    if not best:
        return "none is free" if kind != "memory" else "none of it is free"
    are = "is" if kind == "memory" else _is(best)
    return f"at most {amount} {are} free (node {view.pool.nodes[where].rank})"


def _there(n: int, beside: str | None) -> str:
    if beside is None:
        return f"the inventory has {n}"
    if beside:
        return f"{n or 'none'} {_is(n)} there beside {beside}"
    return f"{n or 'no node'} match{'' if n > 1 else 'es'} the constraint"


def _amount(kind: str, need: int) -> str:
    return f"{need} MB of memory" if kind == "memory" else _n(need, kind)


def _per_node(flat: Flat) -> str:
    each = flat.slots_per_node or 1
    parts = [_n(each * flat.cores, "core")]
    if flat.gpus:
        parts.append(_n(each * flat.gpus, "gpu"))
    if memory_mb := each * flat.memory_mb + flat.node_memory_mb:
        parts.append(f"{memory_mb} MB of memory")
    return " and ".join(parts) if len(parts) < 3 else f"{parts[0]}, {parts[1]} and {parts[2]}"


def _up(n: int, beside: str | None) -> str:
    match = "" if beside is None else f" beside {beside}" if beside else " and matches" if n <= 1 else " and match"
    return f"{n or 'none'} {_is(n)} up{match}"


def _is(n: int) -> str:
    return "is" if n <= 1 else "are"


def _has(n: int) -> str:
    return "has" if n <= 1 else "have"


def _n(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _beside(request: Request) -> str | None:
    """None if there is no constraint, "rank 0" if all that it says is not to take that, as for a job that grows, else ""."""
    constraint = request.constraint
    if not constraint:
        return None
    match constraint:
        case {"not": [{"ranks": [str(ranks)], **more}], **others} if not more and not others:
            return f"rank{'' if ranks.isdigit() else 's'} {ranks}"
    return ""


def _nobody_meets(request: Request, pool: Pool) -> str:
    """Which word of the constraint no node meets, if one can be named."""
    if beside := _beside(request):
        return f"there is no node beside {beside}"
    there = {name for node in pool.nodes for name in node.properties}
    missing = [name for name in _required(request.constraint) if name not in there]
    if missing:
        return f"no node has the property {missing[0]!r}"
    return "no node meets its constraint"


def _required(constraint: Mapping[str, Any]) -> Iterable[str]:
    """The properties every matching node must have: those of `properties`, through any number of `and`s."""
    for operator, values in constraint.items():
        if operator == "properties":
            yield from (value for value in values if isinstance(value, str) and not value.startswith("^"))
        elif operator == "and":
            for value in values:
                yield from _required(value)
