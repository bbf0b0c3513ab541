"""A moment to come, as people write it. Decides what "at" understands; where a day is not named, the next such time is meant."""

from __future__ import annotations

from ..kvs.errors import Rejected

_HINT = 'give a time (17:30, "tomorrow 6:00", "2030-01-31 12:00"), a delay (+90m) or @UNIX seconds'


def parse_when(text: str, now: float) -> float:
    """Unix seconds of a moment after now. Raises `Rejected` (code bad-moment) for another, or for one that is past."""
    word = text.strip()
    try:
        if word == "now":
            return now
        if word.startswith("+"):
            from ..journal.duration import parse_duration

            found = now + parse_duration(word[1:].strip().removeprefix("+"))
        elif word.startswith("@"):
            found = float(word[1:])
        else:
            found = _clock(word.lower(), now)
        if found != found or found in (float("inf"), float("-inf")):
            raise ValueError(text)
    except (ValueError, OverflowError, Rejected):
        raise Rejected(f"bad moment {text[:40]!r}", code="bad-moment", hint=_HINT) from None
    if found < now:
        raise Rejected(f"{text!r} is past", code="bad-moment", hint=_HINT)
    return found


def _clock(word: str, now: float) -> float:
    from datetime import date, datetime, timedelta
    from datetime import time as clock

    today = datetime.fromtimestamp(now)
    day, _, rest = word.partition(" ")
    if day in ("today", "tomorrow"):
        at = clock.fromisoformat(_padded(rest.strip())) if rest else clock()
        return datetime.combine(today.date() + timedelta(days=day == "tomorrow"), at).timestamp()
    if ":" in word and "-" not in word and "t" not in word and len(word) <= 8:
        found = datetime.combine(today.date(), clock.fromisoformat(_padded(word)))
        if found.timestamp() < now:
            found = datetime.combine(today.date() + timedelta(days=1), found.time())
        return found.timestamp()
    if len(word) == 10:
        return datetime.combine(date.fromisoformat(word), clock()).timestamp()
    head, _, tail = word.partition(" ")
    return datetime.fromisoformat(f"{head}T{_padded(tail)}" if tail else word.upper()).timestamp()


def _padded(text: str) -> str:
    """6:00 as the standard wants it: 06:00."""
    return f"0{text}" if text[1:2] == ":" else text
