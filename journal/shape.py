"""Shape strings (RFC 46): one line for the `resources` of a jobspec, such as "slot=4/node".

Decides the grammar. The result is checked as a jobspec is, by `jobspec_check`, when it becomes part of one.
"""

from __future__ import annotations

import re
from typing import Any

from ..kvs.errors import Rejected
from . import ranges

MAX_TEXT = 1 << 14
MAX_DEPTH = 32
DEFAULT_LABEL = "default"

_TYPE = re.compile(r"[A-Za-z_][\w.+-]*")
_COUNT = re.compile(r"\[[0-9,:+*^-]+\]|[0-9][0-9,:+*^-]*")
_SIGN = re.compile(r"[+-]")
_KEY = re.compile(r"[\w.+@-]+")
_BARE = re.compile(r"[^\s,:;/{}\[\]\"'=]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?")


class _Shape:
    """A recursive descent over one shape; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.slots: list[dict[str, Any]] = []
        self.unlabelled: list[dict[str, Any]] = []

    def fault(self, why: str) -> Rejected:
        return Rejected(
            f"bad shape {self.text[:60]!r} at character {self.at + 1}: {why}",
            code="bad-shape",
            hint='write it like "slot=4/node" or "slot=10/[core;memory=2+{unit:GB}]"',
        )

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, char: str) -> bool:
        if self.peek() != char:
            return False
        self.at += 1
        return True

    def match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def whole(self) -> list[dict[str, Any]]:
        result = self.vertices(0)
        if self.peek():
            raise self.fault("the shape should end here")
        if len(self.slots) > 1 and self.unlabelled:
            raise self.fault("with more than one slot each needs a label")
        for slot in self.unlabelled:
            slot["label"] = DEFAULT_LABEL
        return [_ordered(vertex) for vertex in result]

    def vertices(self, depth: int) -> list[dict[str, Any]]:
        if depth > MAX_DEPTH:
            raise self.fault(f"nested more than {MAX_DEPTH} deep")
        if not self.take("["):
            return [self.vertex(depth)]
        result = [self.vertex(depth)]
        while self.take(";"):
            result.append(self.vertex(depth))
        if not self.take("]"):
            raise self.fault("] or ; is missing")
        return result

    def vertex(self, depth: int) -> dict[str, Any]:
        kind = self.match(_TYPE)
        if not kind:
            raise self.fault("a resource type is missing")
        vertex: dict[str, Any] = {"type": kind, "count": 1}
        if self.take("="):
            vertex["count"] = self.count()
        if kind == "slot":
            self.slots.append(vertex)
        if self.take("{"):
            self.items(vertex)
        if kind == "slot" and "label" not in vertex:
            self.unlabelled.append(vertex)
        if self.take("/"):
            vertex["with"] = self.vertices(depth + 1)
        elif kind == "slot":
            raise self.fault("a slot needs / and what it holds")
        return vertex

    def count(self) -> int | str | dict[str, Any]:
        text = self.match(_COUNT)
        if not text:
            raise self.fault("a count is missing")
        try:
            value = ranges.parse_count(text)
        except Rejected as error:
            raise self.fault(str(error)) from None
        bare = text.strip("[]")
        if bare.isdigit():
            return int(bare)
        if isinstance(value, ranges.Choice):
            return bare
        if value.max is None and value.operator == "+" and value.operand == 1:
            return {"min": value.min}
        full = {"min": value.min, "max": value.max, "operator": value.operator, "operand": value.operand}
        return {key: part for key, part in full.items() if part is not None}

    def items(self, vertex: dict[str, Any]) -> None:
        """The part in braces; the first item of a slot may be its label."""
        first = vertex["type"] == "slot"
        while not self.take("}"):
            begin = self.at
            sign = self.match(_SIGN)
            key = self.match(_KEY)
            if not key:
                raise self.fault("a key is missing")
            if self.take(":"):
                if sign:
                    raise self.fault(f"{sign} does not go with a value")
                value = self.value(0)
            elif first and not sign and begin == self.at - len(key):
                key, value = "label", key
            else:
                value = sign != "-"
            key = "exclusive" if key == "x" else key
            if key in ("type", "count", "with") or key in vertex:
                raise self.fault(f"{key} is given twice or cannot be given here")
            vertex[key] = value
            first = False
            if not self.take(",") and self.peek() != "}":
                raise self.fault(", or } is missing")

    def value(self, depth: int) -> Any:
        """A JSON value, in which texts need no quotes."""
        if depth > MAX_DEPTH:
            raise self.fault(f"nested more than {MAX_DEPTH} deep")
        if self.take("{"):
            inside: dict[str, Any] = {}
            while not self.take("}"):
                key = self.text_or_word()
                if not isinstance(key, str) or not self.take(":"):
                    raise self.fault("a key and : are missing")
                inside[key] = self.value(depth + 1)
                if not self.take(",") and self.peek() != "}":
                    raise self.fault(", or } is missing")
            return inside
        if self.take("["):
            parts = []
            while not self.take("]"):
                parts.append(self.value(depth + 1))
                if not self.take(",") and self.peek() != "]":
                    raise self.fault(", or ] is missing")
            return parts
        return self.text_or_word(constants=True)

    def text_or_word(self, constants: bool = False) -> Any:
        quoted = self.match(_QUOTED)
        if quoted:
            import json

            try:
                return json.loads(quoted)
            except ValueError:
                raise self.fault("not a JSON string") from None
        word = self.match(_BARE)
        if not word:
            raise self.fault("a value is missing")
        if not constants:
            return word
        if word in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[word]
        if _NUMBER.fullmatch(word):
            return float(word) if "." in word else int(word)
        return word


def _ordered(vertex: dict[str, Any]) -> dict[str, Any]:
    """The same with `with` at the end, as people write it."""
    result = {key: value for key, value in vertex.items() if key != "with"}
    if "with" in vertex:
        result["with"] = [_ordered(child) for child in vertex["with"]]
    return result


def parse_shape(text: str) -> list[dict[str, Any]]:
    """The `resources` list of a shape. Raises `Rejected` (code bad-shape)."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise _Shape(text[:60] if isinstance(text, str) else "").fault("not a text, or too long")
    return _Shape(text).whole()
