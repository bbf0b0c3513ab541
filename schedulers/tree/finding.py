"""`find` expressions: `name=value` terms with `and`, `or`, `not` and parentheses; terms side by side are and-ed.

`status=up|down`, `sched-now=allocated|free`, `sched-future=reserved|free`, `jobid-alloc|span|tag|reserved=N`,
`names=HOSTLIST`, `property=NAME`, `agfilter=true`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...journal import hostlist
from ...kvs.errors import Rejected
from .ledger import ALLOCATED, RESERVED
from .selection import Selection
from .vertices import Vertex, ancestors

if TYPE_CHECKING:
    from .system import System

Test = Callable[[Vertex], bool]
MAX_DEPTH = 32
_TOKEN = re.compile(r"[()]|[^\s()]+")


def find(system: System, text: str) -> Selection | None:
    """All vertices that match and those above them, exclusively and in full size; None where none does."""
    test = parse(system, text)
    selection = Selection(system.root)
    for vertex in system.tree.vertices:
        if vertex.parents.get(system.subsystem) is not None and test(vertex):
            below = vertex
            selection.take(vertex, vertex.size, True)
            for above in ancestors(vertex, system.subsystem):
                selection.edge(above, below)
                if above.ordinal in selection.taken:
                    break
                selection.take(above, above.size, True)
                below = above
    return selection if selection.taken else None


def parse(system: System, text: str) -> Test:
    """The test of an expression. Raises Rejected (code "bad-expression")."""
    tokens = _TOKEN.findall(text)
    if not tokens:
        raise _fault(text, "it is empty")
    parser = _Parser(system, text, tokens)
    test = parser.either(0)
    if parser.at < len(tokens):
        raise _fault(text, f"unexpected {tokens[parser.at][:40]!r}")
    return test


class _Parser:
    def __init__(self, system: System, text: str, tokens: list[str]) -> None:
        self.system = system
        self.text = text
        self.tokens = tokens
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def either(self, depth: int) -> Test:
        parts = [self.both(depth)]
        while self.peek() in ("or", "|", "||"):
            self.at += 1
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else lambda v: any(part(v) for part in parts)

    def both(self, depth: int) -> Test:
        parts = [self.single(depth)]
        while self.peek() not in ("", "or", "|", "||", ")"):
            self.at += self.peek() in ("and", "&", "&&")
            parts.append(self.single(depth))
        return parts[0] if len(parts) == 1 else lambda v: all(part(v) for part in parts)

    def single(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            raise _fault(self.text, f"it is nested more than {MAX_DEPTH} deep")
        token = self.peek()
        self.at += 1
        if token in ("not", "!"):
            inner = self.single(depth + 1)
            return lambda v: not inner(v)
        if token == "(":
            test = self.either(depth + 1)
            if self.peek() != ")":
                raise _fault(self.text, "( is not closed")
            self.at += 1
            return test
        name, equals, value = token.partition("=")
        if not equals or not value:
            raise _fault(self.text, f"{token[:40]!r} is no term" if token else "a term is missing")
        return _term(self.system, self.text, name, value)


def _term(system: System, text: str, name: str, value: str) -> Test:
    if name == "status":
        wanted = _one_of(text, name, value, ("up", "down")) == "up"
        return lambda v: v.up is wanted
    if name == "sched-now":
        busy = _one_of(text, name, value, ("allocated", "free")) == "allocated"
        now = _held(system, ALLOCATED)
        return lambda v: now(v) is busy
    if name == "sched-future":
        busy = _one_of(text, name, value, ("reserved", "free")) == "reserved"
        later = _held(system, RESERVED)
        return lambda v: later(v) is busy
    if name in ("jobid-alloc", "jobid-span", "jobid-tag", "jobid-reserved"):
        if not (value.isascii() and value.isdigit() and len(value) < 20):
            raise _fault(text, f"{name} must be a job's number")
        return _of_job(system, name, int(value))
    if name == "names":
        hosts = frozenset(hostlist.expand(value))
        return lambda v: v.name in hosts
    if name == "property":
        key, _, wanted_value = value.partition("=")
        return lambda v: key in v.properties and wanted_value in ("", v.properties[key])
    if name == "agfilter":
        _one_of(text, name, value, ("true", "t"))
        return lambda v: bool(system.ledger.tracked(v))
    raise _fault(text, f"there is no {name[:40]!r}")


def _of_job(system: System, name: str, job: int) -> Test:
    if name == "jobid-span":  # where its sums are kept
        spanned = system.ledger.spanned(job)
        return lambda v: v.ordinal in spanned
    if name == "jobid-tag":
        return lambda v: job in v.users
    state = ALLOCATED if name == "jobid-alloc" else RESERVED
    record = system.ledger.jobs.get(job)
    if record is None or record.state != state:
        return lambda v: False
    return lambda v: any(_uses(record.uses.get(o.ordinal)) for o in (v, *ancestors(v, system.subsystem)))


def _uses(use: tuple[Vertex, int, bool] | None) -> bool:
    return use is not None and use[2]


def _held(system: System, state: str) -> Test:
    """Is a vertex, or something it is in, exclusively held by a job in that state?"""
    jobs = [job for job in system.ledger.jobs.values() if job.state == state]
    held = {ordinal for job in jobs for ordinal, use in job.uses.items() if use[2]}
    return lambda v: v.ordinal in held or any(above.ordinal in held for above in ancestors(v, system.subsystem))


def _one_of(text: str, name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise _fault(text, f"{name} must be {' or '.join(allowed)}")
    return value


def _fault(text: str, why: str) -> Rejected:
    return Rejected(
        f"bad expression {text[:60]!r}: {why}", code="bad-expression",
        hint="write terms like status=up sched-now=allocated jobid-alloc=1, joined by and, or, not and parentheses",
    )  # fmt: skip
