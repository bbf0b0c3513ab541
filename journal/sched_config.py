"""How queues are planned, as a config says it: `[policy.scheduler]`, `[queues.NAME.policy.scheduler]`, `[queue] policy`. Pure.

RFC 33 leaves a scheduler's table to the scheduler; the keys are those of Fluxion's qmanager and resource modules. Decides which
keys there are and what a queue inherits; whether a policy of that name is installed is asked by whoever loads a config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .shown import shown

MATCH_FIRST = "first"
SIMPLE, FLEXIBLE = TRAVERSERS = ("simple", "flexible")  # of slots side by side all are wanted, or any mix (`or_slot`)
_MOST_DEPTH = 1_000_000
_GENERAL = ("match-policy", "traverser")  # the nodes are one pool


class SchedulerRules(NamedTuple):
    """policy: name of the queue policy, "" for the instance's own. queue_depth: how many jobs one plan looks at, None: the policy's
    default. params: what else the policy is made with, by Fluxion's names ("reservation-depth").
    """

    policy: str = ""
    queue_depth: int | None = None
    params: tuple[tuple[str, Any], ...] = ()

    def named(self, instance: Mapping[str, Any]) -> str:
        """The policy's name. instance: what `instance-create` said, whose policy holds where the config names none."""
        return self.policy or str(instance.get("policy") or "fcfs")

    @property
    def keywords(self) -> dict[str, Any]:
        """What the policy is made with, by the names of Python."""
        depth = {} if self.queue_depth is None else {"queue_depth": self.queue_depth}
        return {**depth, **{name.replace("-", "_"): value for name, value in self.params}}

    @property
    def text(self) -> str:
        """The parameters in one line, "" if the policy has its defaults."""
        given = [] if self.queue_depth is None else [("queue-depth", self.queue_depth)]
        return ", ".join(f"{name} {value}" for name, value in [*given, *self.params])


def parse_scheduler(table: Any, path: str, base: SchedulerRules, *, general: bool) -> SchedulerRules:
    """A scheduler table on top of what holds without it. A queue with another policy inherits nothing of the parameters.

    general: of the instance, whose keys `match-policy` and `traverser` are. Raises `Rejected` (bad-config) that names the key.
    """
    known = ("queue-policy", "queue-params", "policy-params", *(_GENERAL if general else ()))
    if not isinstance(table, Mapping):
        raise _fault(path, "must be a table")
    for key in table:
        if key not in known:
            why = "is for all queues: the nodes are one pool" if key in _GENERAL else "is no key that is known here"
            raise _fault(f"{path}.{key}", why, f"[{path}] has {', '.join(known)}")
    for key in ("queue-policy", "match-policy"):
        if key in table and (not isinstance(table[key], str) or not table[key]):
            raise _fault(f"{path}.{key}", f"is {shown(table[key])}: the name of a policy is wanted")
    if table.get("traverser", SIMPLE) not in TRAVERSERS:
        raise _fault(f"{path}.traverser", f"is {shown(table['traverser'])}: there are {' and '.join(TRAVERSERS)}")
    policy = table.get("queue-policy", base.policy)
    if policy != base.policy:
        base = SchedulerRules(policy)
    queue_params = _params(table, "queue-params", path)
    for key in queue_params:
        if key != "queue-depth":
            raise _fault(f"{path}.queue-params.{key}", "is no key that is known here", "there is queue-depth")
    params = {**dict(base.params), **_params(table, "policy-params", path)}
    return SchedulerRules(policy, queue_params.get("queue-depth", base.queue_depth), tuple(params.items()))


def check_queue(table: Any, path: str) -> None:
    """The table [queue]: the policy of all queues, in short. Raises `Rejected`."""
    if not isinstance(table, Mapping):
        raise _fault(path, "must be a table")
    for key in table:
        if key != "policy":
            raise _fault(f"{path}.{key}", "is no key that is known here", f"[{path}] has policy")
    if not isinstance(table.get("policy", ""), str):
        raise _fault(f"{path}.policy", f"is {shown(table['policy'])}: the name of a queue policy is wanted")


def match_policy(table: Mapping[str, Any]) -> str:
    """The match policy of a scheduler table that is valid."""
    return str(table.get("match-policy", MATCH_FIRST))


def traverser(table: Mapping[str, Any]) -> str:
    """How slots side by side are taken, of a scheduler table that is valid."""
    return str(table.get("traverser", SIMPLE))


def _params(table: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    """A table of parameters. What is called a depth is a number of jobs; other values are the policy's own affair."""
    found = table.get(key, {})
    if not isinstance(found, Mapping):
        raise _fault(f"{path}.{key}", "must be a table")
    for name, value in found.items():
        if not name.replace("-", "_").isidentifier():
            raise _fault(f"{path}.{key}.{shown(name)}", "is no name of a parameter")
        if name.endswith("-depth") and (type(value) is not int or not 1 <= value <= _MOST_DEPTH):
            raise _fault(f"{path}.{key}.{name}", f"is {shown(value)}: a number of jobs is wanted, 1 to {_MOST_DEPTH}")
    return dict(found)


def _fault(path: str, why: str, hint: str = "") -> Rejected:
    from .config import fault

    return fault(path, why, hint)
