"""How an event changes a stored object: dotted paths into a jobspec (RFC 21), annotations merged (RFC 27).

Decides nothing about who may change what. Both give a new object and leave the old one as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvs.errors import Rejected
from .shown import shown

MAX_DEPTH = 32


def update_paths(value: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with each dotted path set to its new value; objects on the way are made. As `jobspec-update` says it.

    Raises `Rejected` (code bad-update) for an empty word in a path, and for a path through what is not an object.
    """
    result: dict[str, Any] = _copied(value, 4 * MAX_DEPTH)
    for path, new in changes.items():
        words = path.split(".") if isinstance(path, str) else [""]
        if not all(words) or len(words) > MAX_DEPTH:
            raise Rejected(f"bad path {shown(path)}", code="bad-update", hint="write attributes.system.duration")
        here = result
        for word in words[:-1]:
            here = here.setdefault(word, {})
            if not isinstance(here, dict):
                raise Rejected(f"{path}: {word} is not an object", code="bad-update")
        here[words[-1]] = _copied(new, MAX_DEPTH)
    return result


def _copied(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    if not depth:
        raise Rejected("nested too deep", code="bad-update")
    return {key: _copied(item, depth - 1) for key, item in value.items()}


def merge(current: Mapping[str, Any], update: Mapping[str, Any], depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Annotations with an update merged in: objects into objects, anything else replaced, null removes a key.

    Raises `Rejected` (code bad-update) for an update nested too deep.
    """
    if not depth:
        raise Rejected(f"nested more than {MAX_DEPTH} deep", code="bad-update")
    result = dict(current)
    for key, value in update.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            old = result.get(key)
            result[key] = merge(old if isinstance(old, Mapping) else {}, value, depth - 1)
        else:
            result[key] = value
    return result
