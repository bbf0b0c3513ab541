"""Event log lines (RFC 18): one JSON object per line with timestamp, name and perhaps a context.

Decides how one event is written and read. Never what it means.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from ..kvs.errors import Rejected

MAX_LINE = 1 << 24


class LogEvent(NamedTuple):
    """timestamp: epoch seconds, above 0. name. context: an object, or None when the line has none."""

    timestamp: float
    name: str
    context: dict[str, Any] | None = None


def _fault(why: str) -> Rejected:
    return Rejected(f"bad event: {why}", code="bad-event", hint='write {"timestamp":1.5,"name":"start"}')


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _check_timestamp(timestamp: object) -> None:
    number = isinstance(timestamp, (int, float)) and not isinstance(timestamp, bool)
    if not number or not 0 < timestamp < 1e300:  # type: ignore[operator]
        raise _fault("timestamp must be a number greater than 0")


def format_event(name: str, timestamp: float, context: dict[str, Any] | None = None) -> str:
    """One line without its newline; an empty context is left out. Raises `Rejected` (code bad-event)."""
    import json

    if not isinstance(name, str):
        raise _fault("name must be a string")
    _check_timestamp(timestamp)
    event: dict[str, Any] = {"timestamp": timestamp, "name": name}
    if context:
        event["context"] = context
    try:
        line = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _fault(f"context is not JSON: {error}") from None
    try:
        line.encode()
    except UnicodeEncodeError:  # lone surrogates: only the escaped form survives UTF-8
        line = json.dumps(event, separators=(",", ":"))
    return line


def parse_event(line: str | bytes) -> LogEvent:
    """The event of one line, with or without its newline. Raises `Rejected` (code bad-event)."""
    import json

    if not isinstance(line, (str, bytes)) or len(line) > MAX_LINE:
        raise _fault("not a line of text, or too long")
    try:
        text = line.decode() if isinstance(line, bytes) else line
        if "\n" in text.removesuffix("\n"):
            raise _fault("more than one line")
        event = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _fault(f"not JSON: {error}") from None
    if not isinstance(event, dict):
        raise _fault("not an object")
    _check_timestamp(event.get("timestamp"))
    if not isinstance(event.get("name"), str):
        raise _fault("name must be a string")
    context = event.get("context")
    if "context" in event and not isinstance(context, dict):
        raise _fault("context must be an object")
    return LogEvent(event["timestamp"], event["name"], context)
