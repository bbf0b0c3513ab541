"""Constraints on nodes (RFC 31), and the query text from which tools make them (RFC 35).

Decides which constraints are valid and what they match. Never decides which node is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from ..kvs.errors import Rejected
from . import hostlist, idset
from .rset import check_property
from .shown import shown

MAX_DEPTH = 32
MAX_TERMS = 4096
MAX_QUERY = 1 << 16

Predicate = Callable[[int, str, Container[str]], bool]  # (rank, host, property names) -> does it match

_TERM = re.compile(r"""(-?)(?:([\w.+@-]+):)?(?:'([^']*)'|"([^"]*)"|([^\s&|()'"]+))(?=[\s&|()]|\Z)""")
_OPERATORS = re.compile(r"&&?|\|\|?|[()]")
_WORDS = {"and": "&", "or": "|", "not": "!"}


def _fault(why: str, where: str = "") -> Rejected:
    return Rejected(
        f"bad constraint{where}: {why}",
        code="bad-constraint",
        hint='write it like {"properties": ["ssd"]}; operators: properties hostlist ranks not or and',
    )


class _Budget:
    """What one constraint may still use; hosts are counted because texts expand."""

    __slots__ = ("hosts", "terms")

    def __init__(self) -> None:
        self.hosts = hostlist.MAX_HOSTS
        self.terms = MAX_TERMS


def check(constraint: Any) -> None:
    """Raise `Rejected` (code bad-constraint) unless `constraint` is one of RFC 31."""
    _compile(constraint, "", 0, _Budget())


def compile(constraint: Any) -> Predicate:
    """A function `(rank, host, properties) -> bool` of a constraint; None and {} match everything."""
    if constraint is None:
        return _always
    return _compile(constraint, "", 0, _Budget())


def _always(rank: int, host: str, properties: Container[str]) -> bool:
    return True


def _compile(constraint: Any, where: str, depth: int, budget: _Budget) -> Predicate:
    if not isinstance(constraint, Mapping):
        raise _fault("must be an object", where)
    if depth > MAX_DEPTH:
        raise _fault(f"nested more than {MAX_DEPTH} deep")
    if not constraint:
        return _always
    if len(constraint) != 1:
        raise _fault("must have one operator", where)
    ((operator, values),) = constraint.items()
    if operator not in _TERMS and operator not in ("and", "or", "not"):
        raise _fault(f"unknown operator {shown(operator)}", where)
    where = f"{where}.{operator}" if where else f" at {operator}"
    if not isinstance(values, (list, tuple)):
        raise _fault("values must be a list", where)
    budget.terms -= len(values) + 1
    if budget.terms < 0:
        raise _fault(f"more than {MAX_TERMS} terms")
    if operator in _TERMS:
        texts = []
        for value in values:
            if not isinstance(value, str):
                raise _fault(f"{shown(value)} is not a string", where)
            texts.append(value)
        try:
            return _TERMS[operator](texts, budget)
        except Rejected as error:
            raise _fault(str(error), where) from None
    parts = [_compile(value, f"{where}[{at}]", depth + 1, budget) for at, value in enumerate(values)]
    return _combined(operator, parts)


def _combined(operator: str, parts: list[Predicate]) -> Predicate:
    if operator == "or":
        if not parts:
            return _always  # RFC 31, against ordinary logic
        return lambda rank, host, properties: any(part(rank, host, properties) for part in parts)
    if operator == "and":
        if len(parts) == 1:
            return parts[0]
        return lambda rank, host, properties: all(part(rank, host, properties) for part in parts)
    return lambda rank, host, properties: not all(part(rank, host, properties) for part in parts)


def _properties(values: list[str], budget: _Budget) -> Predicate:
    wanted = tuple(check_property(v) for v in values if v[:1] != "^")
    refused = tuple(check_property(v[1:]) for v in values if v[:1] == "^")
    if len(wanted) == 1 and not refused:
        only = wanted[0]
        return lambda rank, host, properties: only in properties

    def matches(rank: int, host: str, properties: Container[str]) -> bool:
        return all(name in properties for name in wanted) and all(name not in properties for name in refused)

    return matches


def _hostlist(values: list[str], budget: _Budget) -> Predicate:
    names: set[str] = set()
    for value in values:
        hosts = hostlist.expand(value)
        budget.hosts -= len(hosts)
        if budget.hosts < 0:
            raise _fault("too many hosts")
        names.update(hosts)
    hosts_wanted = frozenset(names)
    return lambda rank, host, properties: host in hosts_wanted


def _ranks(values: list[str], budget: _Budget) -> Predicate:
    mask = 0
    for value in values:
        mask |= idset.mask_of(value)
    return lambda rank, host, properties: bool(mask >> rank & 1)


_TERMS: dict[str, Callable[[list[str], _Budget], Predicate]] = {
    "properties": _properties,
    "hostlist": _hostlist,
    "ranks": _ranks,
}

# --- RFC 35

_BARE = re.compile(r"[\w.+@/\[\]][\w.+@/\[\],-]*")


def _query_fault(text: str, at: int, why: str) -> Rejected:
    return Rejected(
        f"bad query {text[:60]!r} at character {at + 1}: {why}",
        code="bad-query",
        hint="write terms like operator:value, joined by & | not and parentheses",
    )


class _Query:
    """A recursive descent over the tokens of one query; depth is bounded."""

    def __init__(
        self,
        text: str,
        default_operator: str | None,
        names: Mapping[str, str],
        split: Mapping[str, str],
    ) -> None:
        self.text = text
        self.default_operator = default_operator
        self.names = names
        self.split = split
        self.tokens = self._tokens()
        self.at = 0

    def _tokens(self) -> list[tuple[str, int, Any]]:
        """(kind, position, term): kinds are & | ! ( ) and t for a term."""
        text, at = self.text, 0
        tokens: list[tuple[str, int, Any]] = []
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            found = _OPERATORS.match(text, at)
            if found is not None:
                tokens.append((found[0][0], at, None))
                at = found.end()
                continue
            found = _TERM.match(text, at)
            if found is None or found[0] == "-":
                raise _query_fault(text, at, "not a term (a quote not closed, a lone - or an empty value?)")
            if found[0] in _WORDS:
                tokens.append((_WORDS[found[0]], at, None))
            else:
                value = next(v for v in found.group(3, 4, 5) if v is not None)
                if found[2] is None and ":" in (found[5] or ""):
                    raise _query_fault(text, at, "a colon needs an operator before it and a value after it")
                tokens.append(("t", at, self._term(at, found[1] == "-", found[2], value)))
            at = found.end()
            if len(tokens) > MAX_TERMS:
                raise _query_fault(text, at, f"more than {MAX_TERMS} terms")
        return tokens

    def _term(self, at: int, negated: bool, operator: str | None, value: str) -> dict[str, Any]:
        if operator is None:
            if self.default_operator is None:
                raise _query_fault(self.text, at, f"{value[:40]!r} has no operator")
            operator = self.default_operator
        operator = self.names.get(operator, operator)
        separator = self.split.get(operator)
        term: dict[str, Any] = {operator: value.split(separator) if separator else [value]}
        return {"not": [term]} if negated else term

    def _peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def _where(self) -> int:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else len(self.text)

    def whole(self) -> dict[str, Any]:
        result = self.either(0)
        if self._peek():
            raise _query_fault(self.text, self._where(), "unexpected )")
        return result

    def either(self, depth: int) -> dict[str, Any]:
        parts = [self.both(depth)]
        while self._peek() == "|":
            self.at += 1
            parts.append(self.both(depth))
        return _flat("or", parts)

    def both(self, depth: int) -> dict[str, Any]:
        parts = [self.single(depth)]
        while self._peek() not in ("", "|", ")"):
            if self._peek() == "&":
                self.at += 1
            parts.append(self.single(depth))
        return _flat("and", parts)

    def single(self, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise _query_fault(self.text, self._where(), f"nested more than {MAX_DEPTH} deep")
        kind = self._peek()
        if kind == "t":
            self.at += 1
            term: dict[str, Any] = self.tokens[self.at - 1][2]
            return term
        if kind == "!":
            self.at += 1
            return {"not": [self.single(depth + 1)]}
        if kind == "(":
            self.at += 1
            inside = self.either(depth + 1)
            if self._peek() != ")":
                raise _query_fault(self.text, self._where(), "( is not closed")
            self.at += 1
            return inside
        raise _query_fault(self.text, self._where(), "a term is missing")


def _flat(operator: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    if len(parts) == 1:
        return parts[0]
    flat: list[Any] = []
    for part in parts:
        flat += part.get(operator, [part])
    return {operator: flat}


def parse_query(
    text: str,
    default_operator: str | None = None,
    names: Mapping[str, str] | None = None,
    split: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The constraint object of a query text such as "ssd|-gpu host:n[0-3]". Blank text gives {}.

    default_operator: for terms without one; None: every term needs one. names: other spellings of
    operators, e.g. {"host": "hostlist"}. split: operator -> separator of several values in one term. The
    meaning of operators is not checked: see `check`. Raises `Rejected` (code bad-query).
    """
    if not isinstance(text, str) or len(text) > MAX_QUERY:
        raise _query_fault(shown(text), 0, "not a text, or too long")
    query = _Query(text, default_operator, names or {}, split or {})
    return query.whole() if query.tokens else {}


def parse_requires(text: str) -> dict[str, Any]:
    """The checked constraint of a `--requires` option: bare terms are properties; `host:`, `rank:` work."""
    constraint = parse_query(
        text,
        "properties",
        names={"host": "hostlist", "hosts": "hostlist", "rank": "ranks"},
        split={"properties": ","},
    )
    check(constraint)
    return constraint


def query_of(constraint: Mapping[str, Any]) -> str:
    """The text that `parse_requires` reads a checked constraint from, in as few words as it takes; "" for none."""
    if not constraint:
        return ""
    ((operator, values),) = constraint.items()
    if operator == "properties":
        return " & ".join(f"-{_quoted(value[1:])}" if value.startswith("^") else _quoted(value) for value in values) or "()"
    if operator in ("hostlist", "ranks"):
        return f"{'host' if operator == 'hostlist' else 'rank'}:{_quoted(','.join(values))}"
    parts = [query_of(value) for value in values]
    if operator == "or" and len(parts) > 1:
        return " | ".join(_single(part, "|") for part in parts)
    text = " & ".join(_single(part, "|") if len(parts) > 1 else part for part in parts)
    return f"not {_single(text, '&|')}" if operator == "not" else text


def _single(text: str, joiners: str) -> str:
    return f"({text})" if any(f" {one} " in text for one in joiners) else text


def _quoted(word: str) -> str:
    return word if _BARE.fullmatch(word) and word not in _WORDS else f'"{word}"'
