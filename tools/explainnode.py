"""`fluxkv explain` of nodes: who has them, until when, who is next, why they are out of use. Decides wording only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..instances.explaining import Holder, holders_on
from ..journal.ids import f58
from ..journal.idset import mask_of, text_of
from ..schedulers.timeline import OVERDUE_S
from .explainpage import Page, count, moment, until, whose
from .explainpending import NAME, SHOWN, holder_document, holder_row, out_of_use, who
from .foresight import Budget

if TYPE_CHECKING:
    from ..instances.outlook import Outlook
    from ..journal.log import Journal
    from ..journal.node import Node
    from ..journal.state import State
    from ..schedulers.forecast import Start

BUDGET_S = 1.0  # for who is next
NEXT = 3  # of who comes next on a node
Next = tuple[int, "Start"]


def foresee(state: State, now: float) -> Outlook:
    """Who begins where, as far as can be told in bounded time."""
    from ..instances.outlook import Outlook

    budget = Budget(BUDGET_S)
    return Outlook(state, now, None, budget.spent, budget.half_spent)


def explain_node(journal: Journal, state: State, node: Node, outlook: Outlook, now: float) -> tuple[dict[str, Any], Page]:
    """(document, page)."""
    held = holders_on(state, {node.rank})
    starts = outlook.forecast.starts
    coming = sorted(
        ((id, start) for id, start in starts.items() if any(claim.rank == node.rank for claim in start.claims)),
        key=lambda pair: (pair[1].time, pair[0]),
    )
    by = _drained_by(journal, node) if node.drain is not None else ""
    page = Page(_answer(node, held, coming, now))
    page.add("drained by", by)
    page.add("has", _has(node))
    page.table("held by", [holder_row(one, state, now) for one in held[:SHOWN]], len(held) - SHOWN, "job")
    page.table("next", [_next_row(one, node, state, now) for one in coming[:NEXT]], len(coming) - NEXT, "job")
    document = {
        "rank": node.rank, "host": node.host, "state": node.state, "online": node.online, "answer": page.answer,
        "free_cores": text_of(node.cores & ~node.used_cores), "cores": text_of(node.cores),
        "holders": [holder_document(one, state) for one in held],
        "next": [
            {"id": f58(id), "name": name, "user": user, "time": start.time, "reserved": start.reserved}
            for id, start in coming
            for name, user in (whose(state, id),)
        ],
        "drain": {"timestamp": node.drain[0], "reason": node.drain[1], "by": by} if node.drain else None,
        "down": {"heard": node.down[0], "reason": node.down[1], "since": node.t_status} if node.down else None,
    }  # fmt: skip
    return document, page


def _answer(node: Node, held: tuple[Holder, ...], coming: list[Next], now: float) -> str:
    what = f"{node.host} (rank {node.rank}) is {node.state if node.usable else out_of_use(node, now)}"
    parts = []
    if held:
        free = (node.cores & ~node.used_cores).bit_count()
        ends = [one.until for one in held]
        last = "" if len(held) == 1 else "the last "
        over = f", {last}{until(max(ends), now)}" if all(ends) else ""
        holder = f"{who(held)} has" if len(held) == 1 else f"{count(len(held), 'job')} have"
        most = "all its cores" if node.gpus & ~node.used_gpus else "all of it"
        some = f"{count(node.used_cores.bit_count(), 'core')} of {node.cores.bit_count()}" if free else most
        endless = ", without a time limit" if len(held) == 1 and not held[0].housekeeping else ""
        parts.append(f"{holder} {some}{over or endless}")
    elif node.usable:
        parts.append("nobody has anything of it")
    if coming and node.usable:
        id, start = coming[0]
        parts.append(f"{'reserved for' if start.reserved else 'next is'} {f58(id)}, {_when(start, now)}")
    return f"{what}{': ' if node.usable else '; '}{'; '.join(parts)}." if parts else f"{what}."


def _when(start: Start, now: float) -> str:
    return f"about {moment(start.time, now)}" if start.time > now + OVERDUE_S else "soon"


def _next_row(one: Next, node: Node, state: State, now: float) -> list[str]:
    id, start = one
    name, user = whose(state, id)
    cores = sum(claim.cores.bit_count() for claim in start.claims if claim.rank == node.rank)
    return [f58(id), name[:NAME], user, count(cores, "core"), when(start, now)]


def when(start: Start, now: float) -> str:
    """From when on somebody who comes next is expected to have it."""
    if start.time <= now + OVERDUE_S:
        return "as soon as it is free"
    return f"{'reserved from' if start.reserved else 'about'} {moment(start.time, now)}"


def _has(node: Node) -> str:
    parts = [f"{count(node.cores.bit_count(), 'core')}, {(node.cores & ~node.used_cores).bit_count()} free"]
    if node.gpus:
        parts.append(f"{count(node.gpus.bit_count(), 'GPU')}, {(node.gpus & ~node.used_gpus).bit_count()} free")
    if node.memory_mb:
        parts.append(f"{node.memory_mb} MB, {node.memory_mb - node.used_memory_mb} free")
    own = [one for one in node.properties if not one.startswith("+")]
    return "; ".join([*parts, *([f"properties {', '.join(own)}"] if own else [])])


def _drained_by(journal: Journal, node: Node) -> str:
    """Who drained it last, as far as the journal says."""
    from .eventview import caused_by

    for commit, event in reversed(journal.story(node.commits)):
        if event.name == "drain" and mask_of((event.context or {}).get("idset", "")) >> node.rank & 1:
            by = caused_by(commit)
            return "somebody at the command line" if by == "cli" else by
    return ""
