"""Constraints on jobs (RFC 43), and the words for sets of states and results. Decides what matches; reads nothing.

The query text of tools (RFC 35) gives the same objects: `parse_job_query`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..kvs.errors import Rejected
from . import hostlist, idset
from .constraint import MAX_DEPTH, MAX_TERMS, parse_query
from .job import ACTIVE, INACTIVE, NEW, PENDING, RESULT_ABBREV, RUNNING, STATE_ABBREV, Job, JobState, Result
from .shown import shown

Test = Callable[[Job], bool]

STATES = {state.name.lower(): int(state) for state in JobState}
STATES |= {"pending": PENDING | NEW, "running": RUNNING, "active": ACTIVE | NEW}
RESULTS = {result.name.lower(): int(result) for result in Result} | {"cancelled": int(Result.CANCELED)}
_SHORT_STATES = {short.lower(): state for state, short in STATE_ABBREV.items()} | {
    "pd": PENDING | NEW, "ru": RUNNING, "a": ACTIVE | NEW,
}  # fmt: skip
_SHORT_RESULTS = {short.lower(): result for result, short in RESULT_ABBREV.items()}
_TIMES = ("t_submit", "t_depend", "t_run", "t_cleanup", "t_inactive")
_NAMES = {"host": "hostlist", "hosts": "hostlist", "rank": "ranks", "user": "userid", "state": "states", "result": "results"}
_SPLIT = {"userid": ",", "name": ",", "queue": ",", "states": ",", "results": ","}


def _fault(why: str) -> Rejected:
    known = "userid name queue states results hostlist ranks t_submit t_depend t_run t_cleanup t_inactive or and not"
    return Rejected(f"bad job constraint: {why}", code="bad-constraint", hint=f"operators: {known}")


def state_mask(word: object) -> int | None:
    """The mask of a state's name, long or short, of a set's ("pending", "running", "active"), or of a number; else None."""
    return _number_of(word, STATES, _SHORT_STATES)


def result_mask(word: object) -> int | None:
    """The mask of a result's name, long or short, or of a number; else None."""
    return _number_of(word, RESULTS, _SHORT_RESULTS)


def _number_of(word: object, long: Mapping[str, int], short: Mapping[str, int]) -> int | None:
    if type(word) is int and word >= 0:
        return word
    if not isinstance(word, str) or word not in (word.lower(), word.upper()):
        return None
    return long.get(word.lower(), short.get(word.lower()))


def compile(constraint: Any, hosts: Mapping[int, str], user_id: Callable[[str], int] = int) -> Test:
    """A function `(job) -> bool` of a constraint; {} matches everything. Raises `Rejected` (code bad-constraint).

    hosts: rank -> host. user_id: makes an id of a user given as text.
    """
    return _Compiler(hosts, user_id).test(constraint, 0)


class _Compiler:
    def __init__(self, hosts: Mapping[int, str], user_id: Callable[[str], int]) -> None:
        self._hosts = hosts
        self._user_id = user_id
        self._terms = 0

    def test(self, constraint: Any, depth: int) -> Test:
        if not isinstance(constraint, Mapping):
            raise _fault(f"{shown(constraint)} is not an object")
        if not constraint:
            return lambda job: True
        if len(constraint) != 1:
            raise _fault("an object must have one operator")
        if depth > MAX_DEPTH:
            raise _fault(f"nested more than {MAX_DEPTH} deep")
        ((operator, values),) = constraint.items()
        if not isinstance(values, list | tuple):
            raise _fault(f"the values of {shown(operator)} are not a list")
        self._terms += 1 + len(values)
        if self._terms > MAX_TERMS:
            raise _fault(f"more than {MAX_TERMS} terms")
        if operator in ("and", "or", "not"):
            return _combined(operator, [self.test(value, depth + 1) for value in values])
        return self._term(operator, values)

    def _term(self, operator: str, values: Iterable[Any]) -> Test:
        if operator == "userid":
            users = {self._user(value) for value in values}
            return lambda job: job.userid in users
        if operator in ("name", "queue"):
            words = set(_texts(operator, values))
            return (lambda job: job.name in words) if operator == "name" else (lambda job: job.queue in words)
        if operator == "states":
            mask = _mask("state", state_mask, values)
            return lambda job: bool(job.state & mask)
        if operator == "results":
            mask = _mask("result", result_mask, values)
            return lambda job: job.state == INACTIVE and bool((job.result or 0) & mask)
        if operator == "ranks":
            mask = 0
            for value in _texts(operator, values):
                mask |= _parsed(idset.mask_of, value)
            return lambda job: any(mask >> row[0] & 1 for row in job.claims_wire)
        if operator == "hostlist":
            wanted = {host for value in _texts(operator, values) for host in _parsed(hostlist.expand, value)}
            ranks = {rank for rank, host in self._hosts.items() if host in wanted}
            return lambda job: any(row[0] in ranks for row in job.claims_wire)
        if operator in _TIMES:
            return _comparison(operator, list(values))
        raise _fault(f"unknown operator {shown(operator)}")

    def _user(self, value: Any) -> int:
        if type(value) is int:
            return value
        if not isinstance(value, str):
            raise _fault(f"{shown(value)} is no user")
        try:
            return self._user_id(value)
        except ValueError:
            raise _fault(f"{shown(value)} is no user") from None


def _combined(operator: str, parts: list[Test]) -> Test:
    if operator == "or":
        return lambda job: any(part(job) for part in parts)
    if operator == "and":
        return lambda job: all(part(job) for part in parts)
    return lambda job: not all(part(job) for part in parts)


def _texts(operator: str, values: Iterable[Any]) -> list[str]:
    found = list(values)
    for value in found:
        if not isinstance(value, str):
            raise _fault(f"{operator}: {shown(value)} is not a string")
    return found


def _parsed(parse: Callable[[str], Any], value: str) -> Any:
    try:
        return parse(value)
    except Rejected as error:
        raise _fault(str(error)) from None


def _mask(what: str, mask_of: Callable[[object], int | None], values: Iterable[Any]) -> int:
    mask = 0
    for value in values:
        found = mask_of(value)
        if found is None:
            raise _fault(f"{shown(value)} is no {what}")
        mask |= found
    return mask


def _comparison(field: str, values: list[Any]) -> Test:
    if len(values) != 1 or not isinstance(values[0], str):
        raise _fault(f"{field} takes exactly one text")
    text = values[0]
    sign = text[:2] if text[:2] in (">=", "<=") else text[:1]
    if sign not in (">", "<", ">=", "<="):
        raise _fault(f"{field}: {shown(text)} lacks >, <, >= or <=")
    try:
        limit = float(text[len(sign) :])
    except ValueError:
        raise _fault(f"{field}: {shown(text)} has no number") from None
    if sign == ">":
        return lambda job: bool(getattr(job, field)) and getattr(job, field) > limit
    if sign == "<":
        return lambda job: bool(getattr(job, field)) and getattr(job, field) < limit
    if sign == ">=":
        return lambda job: bool(getattr(job, field)) and getattr(job, field) >= limit
    return lambda job: bool(getattr(job, field)) and getattr(job, field) <= limit


def parse_job_query(text: str) -> dict[str, Any]:
    """The constraint of a query such as "states:run & (name:sim | host:n[0-3])"; a bare word is a job's name."""
    return parse_query(text, "name", names=_NAMES, split=_SPLIT)
