"""What the context of a known event may hold beside the keys it must have (RFC 21, 44): kinds and ranges of values.

Decides nothing about order, which is RFC 21's state table. The fold does not ask: it skips what it cannot use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..kvs.errors import Rejected
from . import idset
from .scripts import LETTERS
from .shown import shown

Test = Callable[[Any], bool]
_MOST = 0xFFFFFFFF
WAYS = ("finish", "requeue", "fail")  # what becomes of jobs on nodes that are asked back


def _integer(low: int, high: int) -> Test:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _idset(value: Any) -> bool:
    try:
        idset.mask_of(value)
    except Rejected:
        return False
    return True


def _ranks(value: Any) -> bool:
    return value == "all" or _idset(value)


_status = _integer(0, 0xFFFF)
_userid = _integer(0, _MOST)
_urgency = _integer(0, 31)

_VALUES: dict[tuple[str, str], dict[str, tuple[Test, str]]] = {
    ("job", "submit"): {
        "urgency": (_urgency, "an integer from 0 to 31"),
        "userid": (_userid, "a user's number"),
        "flags": (_integer(0, _MOST), "a mask"),
        "version": (_integer(1, _MOST), "a positive integer"),
    },
    ("job", "urgency"): {"urgency": (_urgency, "an integer from 0 to 31"), "userid": (_userid, "a user's number")},
    ("job", "priority"): {"priority": (_integer(0, _MOST), f"an integer from 0 to {_MOST}")},
    ("job", "resource-update"): {"expiration": (_number, "Unix seconds")},
    ("job", "set-flags"): {"flags": (_texts, "a list of words")},
    ("job", "dependency-add"): {"description": (_text, "a text")},
    ("job", "dependency-remove"): {"description": (_text, "a text")},
    ("job", "alloc"): {"annotations": (_object, "an object")},
    ("job", "prolog-start"): {"description": (_text, "a text")},
    ("job", "prolog-finish"): {"description": (_text, "a text"), "status": (_integer(-1 << 31, _MOST), "an integer")},
    ("job", "epilog-start"): {"description": (_text, "a text")},
    ("job", "epilog-finish"): {"description": (_text, "a text"), "status": (_integer(-1 << 31, _MOST), "an integer")},
    ("job", "finish"): {"status": (_status, "a wait status")},
    ("job", "release"): {
        "ranks": (_ranks, "an idset or all"),
        "final": (lambda value: isinstance(value, bool), "true or false"),
    },
    ("job", "resize"): {"nodes": (_integer(0, _MOST), "a number of nodes"), "userid": (_userid, "a user's number")},
    ("job", "shrink"): {
        "ranks": (_idset, "an idset"), "until": (_number, "Unix seconds"), "force": (_number, "Unix seconds"),
        "jobs": (lambda value: value in WAYS, f"one of {', '.join(WAYS)}"), "userid": (_userid, "a user's number"),
    },
    ("job", "node-script-start"): {"kind": (lambda value: value in LETTERS, "a kind of script"), "ranks": (_idset, "an idset")},
    ("job", "node-script-finish"): {"kind": (lambda value: value in LETTERS, "a kind of script"), "ranks": (_idset, "an idset")},
    ("job", "free"): {"ranks": (_idset, "an idset")},
    ("job", "exception"): {
        "type": (_text, "a word"),
        "severity": (_integer(0, 7), "an integer from 0 to 7"),
        "note": (_text, "a text"),
        "userid": (_userid, "a user's number"),
        "wait_status": (_status, "a wait status"),
    },
    ("job", "requeue"): {
        "attempt": (_integer(2, _MOST), "an integer from 2"), "cause": (_text, "a word"), "note": (_text, "a text"),
        "retry": (_integer(1, _MOST), "a positive integer"), "limit": (_integer(1, _MOST), "a positive integer"),
        "after": (_number, "Unix seconds"),
    },
    ("resource", "resource-update"): {"expiration": (_number, "Unix seconds")},
    ("resource", "drain"): {"idset": (_idset, "an idset"), "overwrite": (_integer(0, 2), "0, 1 or 2")},
    ("resource", "undrain"): {"idset": (_idset, "an idset")},
    ("resource", "online"): {"idset": (_idset, "an idset")},
    ("resource", "offline"): {"idset": (_idset, "an idset")},
}


def check_values(subject: str, name: str, context: Mapping[str, Any]) -> None:
    """Raise `Rejected` (code bad-event) for a value of the wrong kind in a known event; unknown keys pass."""
    if (subject, name) == ("job", "jobspec-update") and not context:
        raise Rejected("event jobspec-update: context is empty (RFC 21)", code="bad-event")
    for key, (test, wanted) in _VALUES.get((subject, name), {}).items():
        if key in context and not test(context[key]):
            why = f"event {name}: {key} must be {wanted}, not {shown(context[key])}"
            raise Rejected(why, code="bad-event")
