"""What tables say about a queue: Flux's field names, its status, defaults, limits, how many jobs. Decides wording only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..journal.config import SIZES, QueueRules
from ..journal.job import NEW, PENDING, RUNNING
from ..journal.node import Queue
from ..journal.state import State

INFINITE = float("inf")
PLAIN = "{queuem:<8} {enabled:>2} {started:>2} {policy:<12} {pending:>7} {running:>7} {reason}"
WITH_LIMITS = (
    "{queuem:<8} {enabled:>2} {started:>2} {tdefault:>8} {tlimit:>8} {limits.range.nnodes:>8} {limits.range.ncores:>8} "
    "{limits.range.ngpus:>8} {pending:>7} {running:>7} {reason}"
)
FORMATS = {
    "default": WITH_LIMITS,
    "status": PLAIN,
    "users": "{queuem:<8} {running:>7} {limits.max-running-jobs-per-user:>8} {pending:>7} {limits.max-active-jobs-per-user:>8}",
    "nodes": "{queuem:<8} {parent:<8} {requires} {hosts}",
    "policy": "+:{queuem:<8} {policy:<12} +:{policy.params:<10} {pending:>7} {running:>7}",
}


class Row(NamedTuple):
    """One queue with what the config says of it."""

    queue: Queue
    rules: QueueRules
    default: bool
    parent: Queue | None
    pending: int
    running: int
    policy: str = "fcfs"

    @property
    def started(self) -> bool:
        """Whether its jobs may be allocated: its parent must be started too."""
        return self.queue.started and (self.parent is None or self.parent.started)

    @property
    def stop_reason(self) -> str:
        """Why it is stopped, "" if it is not, or nobody said."""
        if not self.queue.started or self.parent is None or self.parent.started:
            return self.queue.stop_reason
        why = f": {self.parent.stop_reason}" if self.parent.stop_reason else ""
        return f"its parent {self.parent.name} is stopped{why}"


def policy_of(state: State, queue: str) -> str:
    """The name of the policy by which a queue is planned."""
    rules = state.rules.of(queue) or QueueRules(queue)
    return rules.scheduler.named(state.instance)


def rows(state: State, queues: list[Queue]) -> list[Row]:
    """Rows of these queues. Looks at each active job once."""
    counts: dict[str, list[int]] = {}
    for job in state.active():
        both = counts.setdefault(job.queue, [0, 0])
        both[0] += bool(job.state & (PENDING | NEW))
        both[1] += bool(job.state & RUNNING)
    found = []
    for one in queues:
        rules = state.rules.of(one.name) or QueueRules(one.name)
        pending, running = counts.get(one.name, (0, 0))
        parent = state.queues.get(rules.parent)
        policy = policy_of(state, one.name)
        found.append(Row(one, rules, one.name == state.rules.default_queue, parent, pending, running, policy))
    return found


def time_text(seconds: float | None) -> str:
    """A time limit as Flux's table has it: "inf" for none."""
    from .formats import fsd

    return "inf" if seconds is None else fsd(seconds)


def _range(index: int) -> Callable[[Row, Any], str]:
    def get(row: Row, view: Any) -> str:
        least, most = row.rules.limits.least[index], row.rules.limits.most[index]
        return f"{least or 0}-{'inf' if most is None else most}"

    return get


def _bound(name: str, index: int) -> Callable[[Row, Any], Any]:
    def get(row: Row, view: Any) -> Any:
        if name == "min":
            return row.rules.limits.least[index] or 0
        most = row.rules.limits.most[index]
        return INFINITE if most is None else most

    return get


def _mark(yes: bool, *, ascii: bool) -> str:
    return ("y" if yes else "n") if ascii else ("✔" if yes else "✗")


def _seconds(value: float | None) -> float:
    return INFINITE if value is None else value


def _reasons(row: Row) -> str:
    return "; ".join(filter(None, (row.queue.disable_reason, row.stop_reason)))


FIELDS: dict[str, tuple[str, Callable[[Row, Any], Any]]] = {
    "queue": ("QUEUE", lambda row, view: row.queue.name),
    "queuem": ("QUEUE", lambda row, view: row.queue.name + ("*" if row.default else "")),
    "submission": ("SUBMIT", lambda row, view: "enabled" if row.queue.enabled else "disabled"),
    "scheduling": ("SCHED", lambda row, view: "started" if row.started else "stopped"),
    "enabled": ("EN", lambda row, view: _mark(row.queue.enabled, ascii=False)),
    "enabled.ascii": ("EN", lambda row, view: _mark(row.queue.enabled, ascii=True)),
    "started": ("ST", lambda row, view: _mark(row.started, ascii=False)),
    "started.ascii": ("ST", lambda row, view: _mark(row.started, ascii=True)),
    "defaults.timelimit": ("TDEFAULT", lambda row, view: _seconds(row.rules.duration_s)),
    "limits.timelimit": ("TLIMIT", lambda row, view: _seconds(row.rules.limits.duration_s)),
    "tdefault": ("TDEFAULT", lambda row, view: time_text(row.rules.duration_s)),
    "tlimit": ("TLIMIT", lambda row, view: time_text(row.rules.limits.duration_s)),
    "limits.max-running-jobs-per-user": ("MAXRUN", lambda row, view: _count(row.rules.running)),
    "limits.max-active-jobs-per-user": ("MAXACT", lambda row, view: _count(row.rules.active)),
    "requires": ("REQUIRES", lambda row, view: ",".join(row.rules.requires)),
    "hosts": ("HOSTS", lambda row, view: row.rules.hosts),
    "parent": ("PARENT", lambda row, view: row.rules.parent),
    "policy": ("POLICY", lambda row, view: row.policy),
    "policy.params": ("PARAMETERS", lambda row, view: row.rules.scheduler.text or "-"),
    "pending": ("PENDING", lambda row, view: row.pending),
    "running": ("RUNNING", lambda row, view: row.running),
    "disable_reason": ("DISABLED", lambda row, view: row.queue.disable_reason),
    "stop_reason": ("STOPPED", lambda row, view: row.stop_reason),
    "reason": ("REASON", lambda row, view: _reasons(row)),
}
for _index, _size in enumerate(SIZES):
    FIELDS[f"limits.range.{_size}"] = (_size.upper(), _range(_index))
    FIELDS[f"limits.min.{_size}"] = (f"MIN{_size.upper()}", _bound("min", _index))
    FIELDS[f"limits.max.{_size}"] = (f"MAX{_size.upper()}", _bound("max", _index))


def _count(most: int | None) -> Any:
    return "inf" if most is None else most


def details(row: Row) -> list[str]:
    """What the config says of a queue, a line each; nothing of what it does not say."""
    rules, lines = row.rules, list[str]()
    params = f" ({rules.scheduler.text})" if rules.scheduler.text else ""
    lines.append(f"virtual: its parent is {rules.parent}" if rules.parent else f"policy {row.policy}{params}")
    if rules.requires or rules.hosts:
        lines.append(f"nodes: {rules.hosts}" if rules.hosts else f"requires {', '.join(rules.requires)}")
    if rules.duration_s is not None:
        lines.append(f"default time limit {time_text(rules.duration_s)}")
    if rules.limits.duration_s is not None:
        lines.append(f"longest time limit {time_text(rules.limits.duration_s)}")
    for name, least, most in zip(SIZES, rules.limits.least, rules.limits.most, strict=True):
        if least is not None or most is not None:
            lines.append(f"{name} {least or 0}-{'inf' if most is None else most}")
    for most, word in ((rules.running, "running"), (rules.active, "active")):
        if most is not None:
            lines.append(f"at most {most} {word} job{'' if most == 1 else 's'} of a user")
    return lines


def first_in_line(row: Row, state: State, now: float) -> str:
    """ "first in line: ƒ3kQ, which begins about 14:05 (in 23m)", "" if nobody is."""
    from ..journal.ids import f58
    from .explainpage import moment
    from .foresight import foresee, t_estimate
    from .jobview import View

    view = View(state, now)
    id = view.head(row.queue.name)
    if not id:
        return ""
    foresee(view, [state.jobs[id]], ["eta"])
    begins = t_estimate(state.jobs[id], view)
    if isinstance(begins, str):
        return f"first in line: {f58(id)}, without an estimate (fluxkv explain {f58(id)})"
    when = f"begins about {moment(begins, now)}" if begins > now + 1 else "fits now"
    return f"first in line: {f58(id)}, which {when}"


def document(row: Row) -> dict[str, Any]:
    """A queue as a JSON object; times in seconds, a limit that is not set is left out. start: RFC 33's effective one."""
    found: dict[str, Any] = {
        "name": row.queue.name, "default": row.default, "enabled": row.queue.enabled, "started": row.started,
        "disable_reason": row.queue.disable_reason, "stop_reason": row.stop_reason, "pending": row.pending,
        "running": row.running, "policy": {"name": row.policy, **row.rules.scheduler.keywords},
    }  # fmt: skip
    if row.rules.parent:
        found["parent"] = row.rules.parent
        if row.queue.started and not row.started:
            found["blocked"] = "parent"
    for key in ("requires", "hosts"):
        if getattr(row.rules, key):
            found[key] = getattr(row.rules, key)
    if row.rules.duration_s is not None:
        found["defaults"] = {"timelimit": row.rules.duration_s}
    found["limits"] = _limits(row.rules)
    return found


def _limits(rules: QueueRules) -> dict[str, Any]:
    limits = rules.limits
    found: dict[str, Any] = {} if limits.duration_s is None else {"timelimit": limits.duration_s}
    for word, bounds in (("min", limits.least), ("max", limits.most)):
        set_ = {name: bound for name, bound in zip(SIZES, bounds, strict=True) if bound is not None}
        if set_:
            found[word] = set_
    for word, most in (("max-running-jobs-per-user", rules.running), ("max-active-jobs-per-user", rules.active)):
        if most is not None:
            found[word] = most
    return found
