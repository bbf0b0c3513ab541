"""An instance's config: which tables it may have, and what they mean for jobs (RFC 33 and ours). Pure.

Decides what a valid config is, which queue and time limit a job gets by default, what is over a limit, and the constraint a
queue adds. The document itself is a `config` event; `Rules` is what it says, made once for each document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .archive_config import check as check_archive
from .duration import format_duration, parse_duration
from .ingest_config import check as check_ingest
from .node_config import OFFLINE_AFTER_S, offline_after
from .retry import Retry, attribute, parse_retry
from .sched_config import MATCH_FIRST, SIMPLE, SchedulerRules, check_queue, match_policy, parse_scheduler, traverser
from .scripts import EPILOG, HOUSEKEEPING, NO_SCRIPTS, PROLOG, Scripts, parse_scripts
from .shown import shown
from .summary import sizes

DEFAULT = "default"  # the one queue of an instance whose config names none
MAX_DEPTH = 32
UNLIMITED = -1
SIZES = ("nnodes", "ncores", "ngpus")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,63}")
_BINDING = ("queues", "policy", "ingest")  # tables that whoever submits has to know


def fault(path: str, why: str, hint: str = "") -> Rejected:
    """The one error for a config that cannot be used: it names the key."""
    path = path if len(path) <= 200 else path[:200] + "..."
    return Rejected(f"config: {path} {why}", code="bad-config", hint=hint)


class Limits(NamedTuple):
    """None: no limit. duration_s: the longest time limit. least, most: (nnodes, ncores, ngpus) of one job."""

    duration_s: float | None = None
    least: tuple[int | None, ...] = (None, None, None)
    most: tuple[int | None, ...] = (None, None, None)


NO_LIMITS = Limits()


class QueueRules(NamedTuple):
    """One queue. requires: properties its nodes have. hosts: its nodes, as the config has them ("": not given that way).

    parent: of a virtual queue. duration_s: default time limit. retry: default retry policy.
    running, active: how many jobs a user may have in it. scheduler: how it is planned.
    """

    name: str
    requires: tuple[str, ...] = ()
    hosts: str = ""
    parent: str = ""
    duration_s: float | None = None
    limits: Limits = NO_LIMITS
    running: int | None = None
    active: int | None = None
    retry: Retry | None = None
    scheduler: SchedulerRules = SchedulerRules()

    @property
    def line(self) -> str:
        """The queue in whose line its jobs stand: its own, or its parent's."""
        return self.parent or self.name


class Rules(NamedTuple):
    """What a config says about jobs. queues: by name, in the config's order; empty: there is only `DEFAULT`.

    general: what holds where no queue is named. running, active: how many jobs a user may have in all queues together;
    offline_after_s: how long a node may be silent (0: for ever). match_policy: what of several nodes that would do is taken.
    """

    queues: Mapping[str, QueueRules] = MappingProxyType({})
    default_queue: str = ""
    general: QueueRules = QueueRules(DEFAULT)
    running: int | None = None
    active: int | None = None
    scripts: Scripts = NO_SCRIPTS
    offline_after_s: float = OFFLINE_AFTER_S
    match_policy: str = MATCH_FIRST
    traverser: str = SIMPLE

    @property
    def names(self) -> list[str]:
        """The queues there are."""
        return list(self.queues) or [DEFAULT]

    @property
    def counts_users(self) -> bool:
        """Whether a number of jobs per user is limited anywhere."""
        each = [self.running, self.active]
        for queue in self.queues.values():
            each += [queue.running, queue.active]
        return any(one is not None for one in each)

    def running_limits(self, queue: str) -> list[tuple[str, int]]:
        """(scope, most) of each limit that a running job of this queue counts for; "" is the scope of all queues."""
        each = [(scope, rules.running) for scope, rules in self._scopes(queue)]
        return [(scope, most) for scope, most in (("", self.running), *each) if most is not None]

    def active_limits(self, queue: str) -> list[tuple[str, int]]:
        """The same for its active jobs."""
        each = [(scope, rules.active) for scope, rules in self._scopes(queue)]
        return [(scope, most) for scope, most in (("", self.active), *each) if most is not None]

    def _scopes(self, queue: str) -> list[tuple[str, QueueRules]]:
        """The queue, and for a virtual one its parent too: its jobs count for both."""
        found = self.queues.get(queue)
        if found is None:
            return []
        return [(queue, found), *([(found.parent, self.queues[found.parent])] if found.parent else [])]

    def of(self, queue: str) -> QueueRules | None:
        """The rules of a queue, None if there is no such queue."""
        return self.queues.get(queue) if self.queues else self.general if queue == DEFAULT else None

    def queue_of(self, jobspec: Mapping[str, Any]) -> QueueRules:
        """The rules for a job: of the queue it names, or of the default. Raises `Rejected` (no-such-queue, no-queue)."""
        named = _system(jobspec).get("queue")
        if not named:
            if not self.queues:
                return self.general
            if not self.default_queue:
                raise Rejected(
                    "no queue named, and the instance has no default queue", code="no-queue",
                    hint=f"add --queue: there are {', '.join(self.queues)}",
                )  # fmt: skip
            return self.queues[self.default_queue]
        found = self.of(named) if isinstance(named, str) else None
        if found is None:
            raise no_such_queue(named, self.names)
        return found

    def defaults(self, jobspec: Mapping[str, Any]) -> dict[str, Any]:
        """What the config adds to this job: {"queue": ..., "duration": ...}, only what the job leaves open."""
        system, queue = _system(jobspec), self.queue_of(jobspec)
        added: dict[str, Any] = {}
        if self.queues and not system.get("queue"):
            added["queue"] = queue.name
        if queue.duration_s and not system.get("duration"):
            added["duration"] = queue.duration_s
        if queue.retry is not None and "retry" not in system:
            added["retry"] = attribute(queue.retry)
        return added

    def honour(self, jobspec: dict[str, Any]) -> dict[str, Any]:
        """The job as it is to be submitted: with its defaults, within its limits. Raises `Rejected` with the exact limit."""
        added = self.defaults(jobspec)
        if added:
            attributes = dict(jobspec.get("attributes") or {})
            attributes["system"] = {**_system(jobspec), **added}
            jobspec = {**jobspec, "attributes": attributes}
        self.check_limits(jobspec)
        return jobspec

    def check_limits(self, jobspec: Mapping[str, Any]) -> None:
        """Raise `Rejected` (code limit, no-such-queue or no-queue) unless the job is within its queue's limits."""
        queue = self.queue_of(jobspec)
        limits = queue.limits
        where = f"queue {queue.name}: " if self.queues else ""
        if limits.duration_s is not None:
            asked = float(_system(jobspec).get("duration") or 0.0)
            allowed = format_duration(limits.duration_s)
            if not asked:
                raise _over(f"{where}a job needs a time limit here, of at most {allowed}", "add -t")
            if asked > limits.duration_s:
                raise _over(f"{where}time limit {format_duration(asked)} is above the {allowed} allowed", f"-t {allowed}")
        if limits.least == limits.most == (None, None, None):
            return
        for name, asked_for, least, most in zip(SIZES, sizes(jobspec), limits.least, limits.most, strict=True):
            what = name[1:]
            if most is not None and asked_for > most:
                hint = f"ask for fewer (limits.job-size.max.{name})"
                raise _over(f"{where}{asked_for} {what} are more than the {most} allowed", hint)
            if least is not None and asked_for < least:
                why = "names no number of nodes" if name == "nnodes" and not asked_for else f"asks for {asked_for} {what}"
                raise _over(f"{where}the job {why}; the least is {least}", f"ask for more (limits.job-size.min.{name})")

    def constrained(self, jobspec: dict[str, Any], queue: str) -> dict[str, Any]:
        """The job with its queue's constraint: what a matcher has to heed. The same object where there is none."""
        asked = _system(jobspec).get("constraints")
        wanted = self.constraint(queue, asked)
        if wanted is asked:
            return jobspec
        attributes = {**(jobspec.get("attributes") or {}), "system": {**_system(jobspec), "constraints": wanted}}
        return {**jobspec, "attributes": attributes}

    def constraint(self, queue: str, asked: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A job's constraint and its queue's (RFC 33)."""
        found = self.of(queue)
        if found is None:
            return asked
        if found.parent:
            found = self.queues[found.parent]
        wanted = [f"+{found.name}"] if found.hosts else list(found.requires)
        if not wanted:
            return asked
        if not asked:
            return {"properties": wanted}
        if isinstance(asked, Mapping) and set(asked) == {"properties"} and isinstance(asked["properties"], list | tuple):
            return {"properties": [*asked["properties"], *wanted]}
        return {"and": [asked, {"properties": wanted}]}


def no_such_queue(name: object, known: Iterable[str]) -> Rejected:
    """The one error for a queue that is not there."""
    text = name if isinstance(name, str) else shown(name)
    return Rejected(f"queue {text} is not defined", code="no-such-queue", hint=f"there are {', '.join(known)}")


def _over(why: str, hint: str) -> Rejected:
    return Rejected(why, code="limit", hint=hint)


def _system(jobspec: Mapping[str, Any]) -> Mapping[str, Any]:
    return (jobspec.get("attributes") or {}).get("system") or {}


def binds_submitters(document: Mapping[str, Any]) -> bool:
    """Whether there is something in a config that whoever submits has to know."""
    return any(set(document.get(table) or ()) - {"scheduler"} for table in _BINDING)


# -- reading a document ---------------------------------------------------------------------------------------


def parse_rules(document: Any) -> Rules:
    """The rules of a config document. Raises `Rejected` (code bad-config) that names the key at fault."""
    check_plain(document)
    for table in document:
        if table not in _TABLES:
            known = "what Fluxion has there is in [policy.scheduler]" if table.startswith("sched-fluxion") else ""
            raise fault(f"[{table}]", "is no table that an instance knows", known or f"there are {', '.join(sorted(_TABLES))}")
        _TABLES[table](document[table], table)
    scripts = parse_scripts(document.get("job-manager", {}))
    policy = document.get("policy", {})
    named = SchedulerRules(document.get("queue", {}).get("policy", ""))
    general = _policy(policy, "policy", DEFAULT, QueueRules(DEFAULT, scheduler=named), "queue")
    queues: dict[str, QueueRules] = {}
    tables = document.get("queues", {})
    inherits = [name for name, table in tables.items() if isinstance(table, Mapping) and "parent" in table]
    for name in [*(name for name in tables if name not in inherits), *inherits]:
        queues[name] = _queue(name, tables[name], tables, general, queues)
    key = "policy.jobspec.defaults.system.queue"
    default = ((policy.get("jobspec") or {}).get("defaults") or {}).get("system", {}).get("queue", "")
    if default != "" and (not isinstance(default, str) or default not in queues):
        raise fault(key, f"names {shown(default)}, which is no table [queues.NAME]")
    if len(queues) > 1 and not default:
        raise fault(key, "must name the default queue where there are several (RFC 33)")
    ordered = {name: queues[name] for name in tables}
    silence = offline_after(document.get("resource", {}))
    table = policy.get("scheduler", {})
    limits = general.running, general.active
    return Rules(ordered, default, general, *limits, scripts, silence, match_policy(table), traverser(table))


def check_plain(value: Any, path: str = "the document", depth: int = 0) -> None:
    """Raise `Rejected` unless the value is one that JSON has, too (TOML knows dates)."""
    if depth > MAX_DEPTH:
        raise fault(path, f"is nested more than {MAX_DEPTH} deep")
    if depth == 0 and not isinstance(value, Mapping):
        raise fault(path, "must be a table")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise fault(path, f"has the key {shown(key)}: keys are texts")
            check_plain(inner, f"{path}.{key}" if depth else key, depth + 1)
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            check_plain(inner, f"{path}[{at}]", depth + 1)
    elif not (value is None or isinstance(value, str | bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)):
        raise fault(path, f"is {shown(value)}: a text, number, true, false, list or table is wanted")


def _any(value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise fault(path, "must be a table")


def _only(*keys: str) -> Callable[[Any, str], None]:
    def check(value: Any, path: str) -> None:
        _any(value, path)
        for key in value:
            if key not in keys:
                raise fault(f"{path}.{key}", "is no key that is known here", f"[{path}] has {', '.join(keys)}")

    return check


_PER_USER = ("max-running-jobs-per-user", "max-active-jobs-per-user")
_NOT_YET = {"access": "an instance belongs to one user"}


_TABLES: dict[str, Callable[[Any, str], None]] = {
    "resource": _only("config", "fake", "format", "graph", "offline-after", "path"),
    "queue": check_queue, "queues": _any, "policy": _any, "ingest": check_ingest,
    "archive": check_archive, "retention": check_archive,
    "job-manager": _only(PROLOG, EPILOG, HOUSEKEEPING),
}  # fmt: skip


def _table(table: Mapping[str, Any], key: str, path: str, *keys: str) -> Mapping[str, Any]:
    """The table at a key, {} if there is none, with no key but these."""
    value = table.get(key, {})
    _only(*keys)(value, f"{path}.{key}")
    found: Mapping[str, Any] = value
    return found


def _seconds(table: Mapping[str, Any], path: str, without: float | None) -> float | None:
    """A duration; 0 and infinity mean none."""
    if "duration" not in table:
        return without
    try:
        seconds = parse_duration(table["duration"])
    except Rejected as error:
        raise fault(f"{path}.duration", f"is not valid: {error}", error.hint) from None
    return None if seconds in (0.0, float("inf")) else seconds


def _number(table: Mapping[str, Any], key: str, path: str, without: int | None = None) -> int | None:
    """A whole number, or -1 for no limit."""
    value = table.get(key, without)
    if value is None or value == UNLIMITED:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise fault(f"{path}.{key}", f"is {shown(value)}: a whole number is wanted, or {UNLIMITED} for no limit")
    return value


def _queue(
    name: str, table: Any, tables: Mapping[str, Any], general: QueueRules, known: Mapping[str, QueueRules]
) -> QueueRules:
    path = f"queues.{name}"
    if not _QUEUE_NAME.fullmatch(name):
        raise fault(f"queues.{shown(name)}", "is no name for a queue", "letters, digits and _ . + @ -")
    _only("requires", "hosts", "parent", "policy")(table, path)
    policy = table.get("policy", {})
    _any(policy, f"{path}.policy")
    if "parent" in table:
        parent = table["parent"]
        for key in ("hosts", "requires"):
            if key in table:
                raise fault(f"{path}.{key}", "must not be set for a virtual queue: it has its parent's nodes")
        if "scheduler" in policy:
            raise fault(f"{path}.policy.scheduler", "must not be set for a virtual queue: it is scheduled with its parent")
        if not isinstance(parent, str) or parent not in tables:
            raise fault(f"{path}.parent", f"names {shown(parent)}, which is no table [queues.NAME]")
        if "parent" in tables[parent]:
            raise fault(f"{path}.parent", f"names {parent}, which is a virtual queue itself")
        made = _policy(policy, f"{path}.policy", name, known[parent])
        return made._replace(parent=parent)
    requires, hosts = table.get("requires"), table.get("hosts")
    if requires is not None and hosts is not None:
        raise fault(path, "has both hosts and requires: one of them says which nodes it has")
    if requires is not None and (not isinstance(requires, list | tuple) or not all(isinstance(one, str) for one in requires)):
        raise fault(f"{path}.requires", "must be a list of properties")
    try:
        if requires:
            from .rset import check_property  # not for nothing: whoever submits under a config waits for this module

            for one in requires:
                check_property(one)
    except Rejected as error:
        raise fault(f"{path}.requires", f"is not valid: {error}") from None
    if hosts is not None:
        _hosts(hosts, f"{path}.hosts")
    made = _policy(policy, f"{path}.policy", name, general)
    return made._replace(requires=tuple(requires or ()), hosts=hosts or "")


def _hosts(hosts: Any, path: str) -> None:
    from .hostlist import expand

    try:
        if not isinstance(hosts, str) or not expand(hosts):
            raise fault(path, "names no host")
    except Rejected as error:
        if error.code == "bad-config":
            raise
        raise fault(path, f"is not valid: {error}") from None


def _policy(policy: Mapping[str, Any], path: str, name: str, base: QueueRules, *keys: str) -> QueueRules:
    """A policy table on top of what holds without it. Numbers of jobs per user are not inherited: each table counts its own."""
    for word, hint in _NOT_YET.items():
        if policy.get(word):
            raise fault(f"{path}.{word}", "is not supported", hint)
    _only("jobspec", "limits", "scheduler", *_NOT_YET)(policy, path)
    jobspec = _table(policy, "jobspec", path, "defaults")
    defaults = _table(jobspec, "defaults", f"{path}.jobspec", "system")
    system = _table(defaults, "system", f"{path}.jobspec.defaults", "duration", "retry", *keys)
    limits, where = _table(policy, "limits", path, "duration", "job-size", *_PER_USER), f"{path}.limits"
    size = _table(limits, "job-size", where, "max", "min")
    bounds = []
    for word, old in (("min", base.limits.least), ("max", base.limits.most)):
        table = _table(size, word, f"{where}.job-size", *SIZES)
        bounds.append(tuple(_number(table, key, f"{where}.job-size.{word}", was) for key, was in zip(SIZES, old, strict=True)))
    running, active = (_number(limits, key, where) for key in _PER_USER)
    made = Limits(_seconds(limits, where, base.limits.duration_s), *bounds)
    scheduler = parse_scheduler(policy.get("scheduler", {}), f"{path}.scheduler", base.scheduler, general=path == "policy")
    return QueueRules(name, duration_s=_seconds(system, f"{path}.jobspec.defaults.system", base.duration_s), limits=made,
                      running=running, active=active, retry=_retry(system, path, base.retry), scheduler=scheduler)  # fmt: skip


def _retry(system: Mapping[str, Any], path: str, without: Retry | None) -> Retry | None:
    if "retry" not in system:
        return without
    try:
        return parse_retry(system["retry"])
    except Rejected as error:
        raise fault(f"{path}.jobspec.defaults.system.retry", f"is not valid: {error}", error.hint) from None
