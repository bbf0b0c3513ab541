"""`fluxkv explain` of a job that waits: the page, and the same as JSON. What is found out is `instances/explaining.py`'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..instances.explaining import Holder, Why, why
from ..instances.foreign import wait_until
from ..journal.ids import f58
from ..journal.job import PRIORITY, SCHED, Job
from ..kvs.errors import Rejected
from ..schedulers.policy import Code
from ..schedulers.timeline import OVERDUE_S
from .explainpage import Page, count, hosts_of, moment, several, span, until, whose
from .foresight import Budget
from .jobview import one_line
from .reading import user_name

if TYPE_CHECKING:
    from ..journal.node import Node
    from ..journal.state import State
    from .jobview import View

BUDGET_S = 2.0  # for the estimate
SHOWN = 8  # holders, nodes
NAME = 14  # columns of a name
LISTED = 1000  # of the jobs ahead, in JSON


def holds(job: Job, view: View) -> list[tuple[str, str]]:
    """(what, in words) of all that keeps a job from being placed, whatever is free; what has to go first comes first."""
    from . import depview

    state, now = view.state, view.now
    found = [("dependency", f"waits for {depview.told(one, job, view)}") for one in job.waiting]
    if job.urgency == 0:
        found.append(("held", f"is held (urgency 0); fluxkv release {f58(job.id)}"))
    for queue in view.queues(job.queue):
        if not queue.started:
            why = f": {queue.stop_reason}" if queue.stop_reason else f"; fluxkv queue start {queue.name}"
            found.append(("queue", f"cannot start: queue {queue.name} is stopped{one_line(why)}"))
    if state.rules.of(job.queue) is None:
        mend = f"fluxkv update {f58(job.id)} queue=NAME"
        found.append(("queue", f"cannot start: there is no queue {job.queue} any more; {mend}"))
    if state.instance.get("stopping"):
        found.append(("instance", "waits for the instance to be started again"))
    if job.state == PRIORITY and job.requeued is not None:
        told = one_line(str(job.requeued[3]))
        if job.id in state.keeping:
            found.append(("housekeeping", f"waits for the housekeeping after its last attempt ({told})"))
        elif job.requeued[2] > now:
            found.append(("retry", f"rests until {moment(job.requeued[2], now)} before its next attempt ({told})"))
    full = state.usage.running_full(job.queue, job.userid, {}) if state.usage is not None and job.state == SCHED else ""
    if full:
        found.append(("limit", f"waits: {full.replace(f'user {job.userid} ', f'{user_name(job.userid)} ')}"))
    pause = wait_until(state, now)
    if pause:
        found.append(("adoption", f"waits for nodes to say what they hold, {span(pause - now)} at most"))
    if job.granted is not None:
        host = view.hosts.get(job.granted[0], f"rank{job.granted[0]}")
        found.append(("granted", f"is next on {host}: it begins when a job of its kind there ends"))
    if not found and job.state != SCHED:
        found.append(("worker", "has not been taken up by a worker yet; fluxkv status says whether one is there"))
    return found


def explain_pending(job: Job, view: View) -> tuple[dict[str, Any], Page]:
    """(document, page)."""
    state, now = view.state, view.now
    held, name = holds(job, view), f58(job.id)
    budget = Budget(BUDGET_S)
    in_line = job.state == SCHED and job.granted is None
    told = why(state, job, now, budget.spent, budget.half_spent) if in_line else None
    page = Page(f"{name} {held[0][1]}." if held else _answer(name, told, now))
    for _, text in held[1:]:
        page.add("also", f"it {text}")
    page.add("asked for", _asked(job, state))
    page.add("waits since", _since(job, now))
    document: dict[str, Any] = {
        "state": "pending", "answer": page.answer,
        "code": held[0][0] if held else str(told.reason.code) if told is not None else "",
        "holds": [{"what": what, "text": text} for what, text in held],
    }  # fmt: skip
    if told is not None:
        _evidence(page, job, told, state, now, bool(held))
        document.update(_document(told, job, state))
    return document, page


def add_growth(page: Page, job: Job, nodes: int, view: View) -> dict[str, Any]:
    """Tell on a running job's page why it has not got the nodes yet that it asks for, and when it does; the document of that."""
    budget = Budget(BUDGET_S)
    told = why(view.state, job, view.now, budget.spent, budget.half_spent)
    first = told.ahead[0] if told.ahead else 0
    text = one_line(told.reason.text)
    if told.reason.code == Code.READY:
        text = f"they are free, but {f58(first)} comes first ({told.policy})" if first else "they are free, and it is first in line"
    stopped = [queue for queue in view.queues(job.queue) if not queue.started]
    for queue in stopped:
        text = f"queue {queue.name} is stopped{one_line(f': {queue.stop_reason}') if queue.stop_reason else ''}"
    page.add("waits for", f"{count(nodes, 'more node')}: {text}")
    _evidence(page, job, told, view.state, view.now, bool(stopped))
    return {"nodes": nodes, "answer": text, **_document(told, job, view.state)}


def _answer(name: str, told: Why | None, now: float) -> str:
    """One sentence for a job that nothing holds up but the others."""
    assert told is not None
    reason, head = told.reason, told.ahead[0] if told.ahead else 0
    if reason.code == Code.UNSATISFIABLE:
        return f"{name} can never run here: {reason.text.removeprefix('unsatisfiable: ')}."
    if reason.code in (Code.DRAINED, Code.NODE_DOWN):
        return f"{name} waits for nodes that are out of use: {reason.text}."
    if told.start is not None:
        ends = [one for one in told.holders if one.decisive]
        begins = "it is about to begin"
        if told.start.time > now + OVERDUE_S:
            begins = f"it begins about {moment(told.start.time, now)}"
        elif ends:  # past their limits, or housekeeping: nobody knows until when
            begins = f"it begins as soon as {who(ends)} {'has' if len(ends) == 1 else 'have'} ended"
    else:
        begins = f"no estimate: {told.no_start}"
    if reason.code == Code.READY:
        if told.promised is not None:
            first, when = told.promised
            return (f"{name} would fit now, but must not delay {f58(first)}, which is due at {moment(when, now)}; {begins}.")
        if head:
            return f"{name} would fit now, but waits behind {f58(head)} ({told.policy}); {begins}."
        return f"{name} fits now and is first in line: {begins}."
    return f"{name} waits: {reason.text}; {begins}."


def _asked(job: Job, state: State) -> str:
    limit = f"limit {span(job.duration)}" if job.duration else "no time limit"
    limit += f"; requires {wanted}" if (wanted := requires(job)) else ""
    nodes = [count(job.nnodes, "node")] if job.nnodes else []
    what = _shape(job) or ", ".join([*nodes, count(job.ncores, "core")])
    text = f"{what}, {limit}; queue {job.queue}, priority {job.priority}, user {user_name(job.userid)}"
    return text + (f", attempt {job.number}" if job.requeued is not None else "")


def requires(job: Job) -> str:
    """Its own constraint as --requires has it, "" for none."""
    from ..journal.constraint import check, query_of

    system = ((job.jobspec or {}).get("attributes") or {}).get("system") or {}
    try:
        check(system.get("constraints") or {})
    except Rejected:
        return ""
    return query_of(system.get("constraints") or {})


def _may_have(nodes: Sequence[Node], job: Job, state: State) -> str:
    """How many nodes a constraint leaves, and how these stand."""
    parts = [f"its constraint ({wanted})"] if (wanted := requires(job)) else []
    rules = state.rules.of(job.queue)
    rules = state.rules.of(rules.line) if rules is not None else None  # a virtual queue's nodes are its parent's
    if rules is not None and (rules.hosts or rules.requires):
        parts.append(f"queue {rules.name} ({' & '.join(rules.requires) if rules.requires and not rules.hosts else 'its hosts'})")
    held = [node for node in nodes if node.busy]
    idle = [node for node in nodes if node.usable and not node.busy]
    out = len(nodes) - len(held) - len(idle)
    jobs = sorted({id for node in held for id in (node.jobs or node.keeping)})
    text = f"{len(nodes)} of {count(len(state.nodes), 'node')} by {' and '.join(parts)}"
    if nodes:
        text += f": {hosts_of(state, (node.rank for node in nodes))}"
    if held and len(held) == len(nodes):
        return f"{text}; {'all are' if len(nodes) > 1 else 'it is'} in use by {several(jobs)}"
    told = [f"{len(idle)} idle"] if nodes else []
    told += [f"{len(held)} in use by {several(jobs)}"] if held else []
    told += [f"{out} out of use"] if out else []
    return "; ".join([text, ", ".join(told)]) if told else text


def _shape(job: Job) -> str:
    """What is asked for, in words, where nodes and cores do not say it."""
    from ..schedulers import imposed
    from ..schedulers.request import compile_request
    from ..schedulers.tree.needs import of_request
    from ..schedulers.tree.shortage import words_of

    try:
        request = compile_request(job.jobspec or {})
        if request.imposed is not None:
            return f"{imposed.words_of(request.imposed)} (alloc-bypass)"
        return words_of(of_request(request).needs) if request.flat is None else ""
    except Rejected:
        return ""


def _since(job: Job, now: float) -> str:
    return moment(job.t_submit, now) if job.t_submit else ""


def _evidence(page: Page, job: Job, told: Why, state: State, now: float, held: bool) -> None:
    reason = told.reason
    if held and reason.code != Code.READY:
        page.add("besides", reason.text)
    if reason.needed > reason.found and reason.unit:
        lacks = count(reason.needed - reason.found, reason.unit, reason.of)
        page.add("short of", f"{lacks}: it needs {reason.needed:,} and finds {f'{reason.found:,}' if reason.found else 'none'}")
    if told.allowed is not None and job.state == SCHED:
        page.add("may have", _may_have(told.allowed, job, state))
    page.table("out of use", [_out_row(node, now) for node in told.out[:SHOWN]], len(told.out) - SHOWN, "node")
    page.table("held by", [holder_row(one, state, now) for one in told.holders[:SHOWN]], len(told.holders) - SHOWN, "job")
    page.add("ahead", _ahead(told, job, state) if job.priority else "")
    if told.start is not None or not held:
        page.add("begins" if job.state == SCHED else "they come", _begins(told, state, now))
    if told.start is not None and (told.start.time > now + OVERDUE_S or any(one.decisive for one in told.holders)):
        page.add("", _rests(told))


def who(holders: Sequence[Holder]) -> str:
    """Holders by their ids."""
    ids = several([one.job for one in holders])
    return f"the housekeeping after {ids}" if all(one.housekeeping for one in holders) else ids


def holder_row(one: Holder, state: State, now: float) -> list[str]:
    """Who, how much of what where, until when; what a start waits for is marked."""
    name, user = whose(state, one.job)
    if one.housekeeping:
        name, ends = "(housekeeping)", f"since {moment(state.keeping[one.job].started, now)}"
    else:
        ends = until(one.until, now)
    mark = "*" if one.decisive else " "
    amount = count(one.amount, one.unit, one.of)
    return [f"{f58(one.job)}{mark}", name[:NAME], user, f"{amount} on {hosts_of(state, one.ranks)}", ends]


def _out_row(node: Node, now: float) -> list[str]:
    return [node.host, out_of_use(node, now)]


def out_of_use(node: Node, now: float) -> str:
    """Why a node gets no work, since when."""
    if node.drain is not None:
        text = f"{node.state} since {moment(node.drain[0], now)}: {node.drain[1] or 'no reason given'}"
        return text + ("" if node.online else "; offline, too")
    if node.down is not None:
        return f"offline since {moment(node.t_status, now)}: {node.down[1]}"
    if node.online and node.shut:
        return "down: it was set so in the graph, or something above it was"
    return "offline: its agent has not spoken yet" + (f", since {moment(node.t_status, now)}" if node.t_status else "")


def _ahead(told: Why, job: Job, state: State) -> str:
    parts = [f"{count(len(told.ahead), 'job')} in queue {job.queue}: {several(told.ahead)}"] if told.ahead else []
    for queue, ids in told.elsewhere.items():
        parts.append(f"{count(len(ids), 'job')} in queue {queue}, which shares nodes with it: {several(ids)}")
    return "; ".join(parts) or "nobody"


def _begins(told: Why, state: State, now: float) -> str:
    start = told.start
    if start is None:
        return f"no estimate: {told.no_start}"
    where = hosts_of(state, (claim.rank for claim in start.claims))
    kept = f", reserved for it by policy {told.policy}" if start.reserved else f" (policy {told.policy})"
    kept += ", roughly: many jobs end and begin before" if start.rough else ""
    when = f"about {moment(start.time, now)}" if start.time > now + OVERDUE_S else "soon"
    return f"{when} on {where}{kept}"


def _rests(told: Why) -> str:
    """What an estimate rests on."""
    ends = [one for one in told.holders if one.decisive]
    parts = [f"{who(ends)} (*) {'has' if len(ends) == 1 else 'have'} ended"] if ends else []
    parts += [f"{several(told.after)} {'has' if len(told.after) == 1 else 'have'} begun and ended"] if told.after else []
    after = f"when {' and '.join(parts)}; " if parts else ""
    return f"{after}sooner if jobs end before their limits, later if jobs of higher priority come"


def _document(told: Why, job: Job, state: State) -> dict[str, Any]:
    reason, start = told.reason, told.start
    document: dict[str, Any] = {
        "policy": told.policy, "requires": requires(job) or None,
        "may_have": None if told.allowed is None else {
            "ranks": [node.rank for node in told.allowed], "idle": [n.rank for n in told.allowed if n.usable and not n.busy],
        },
        "reason": {"code": str(reason.code), "text": reason.text, "blocking": reason.blocking},
        "short": {
            "unit": reason.unit, "of": reason.of, "needed": reason.needed, "found": reason.found,
            "by": reason.needed - reason.found,
        } if reason.unit else None,
        "holders": [holder_document(one, state) for one in told.holders],
        "ahead": {"jobs": [f58(id) for id in told.ahead[:LISTED]], "count": len(told.ahead),
                  "other_queues": {queue: [f58(id) for id in ids[:LISTED]] for queue, ids in told.elsewhere.items()}},
        "nodes_out": [{"rank": node.rank, "host": node.host, "state": node.state, "drain": node.drain, "down": node.down}
                      for node in told.out],
    }  # fmt: skip
    if start is not None:
        document["start"] = {
            "time": start.time, "reserved": start.reserved, "rough": start.rough, "ranks": [claim.rank for claim in start.claims],
            "nodelist": hosts_of(state, (claim.rank for claim in start.claims)),
            "after_end_of": [f58(one.job) for one in told.holders if one.decisive], "after_jobs": [f58(id) for id in told.after],
        }  # fmt: skip
    else:
        document["start"], document["no_start"] = None, told.no_start
    return document


def holder_document(one: Holder, state: State) -> dict[str, Any]:
    """A holder as a JSON object."""
    name, user = whose(state, one.job)
    return {
        "id": f58(one.job), "name": name, "user": user, "housekeeping": one.housekeeping, "until": one.until or None,
        "amount": one.amount, "unit": one.unit, "of": one.of, "ranks": list(one.ranks), "nodelist": hosts_of(state, one.ranks),
        "decisive": one.decisive,
    }  # fmt: skip
