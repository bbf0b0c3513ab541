"""When a cron entry is due: APScheduler's triggers, made from what an entry says. Decides how a crontab line is read.

crontab(5): five fields, or one of the @words; Sunday is 0 and 7; where both day of month and day of week are restricted,
either will do. APScheduler counts weekdays from Monday and wants both, so fields are checked and translated here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ..kvs.errors import Rejected

WORDS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS = (("minute", 0, 59, ()), ("hour", 0, 23, ()), ("day of month", 1, 31, ()), ("month", 1, 12, MONTHS),
          ("day of week", 0, 7, DAYS))  # fmt: skip
STEP_S = 0.001


def local_timezone() -> str:
    """The name of this machine's time zone, as TZ or the system says."""
    from tzlocal import get_localzone_name

    try:
        return str(get_localzone_name() or "UTC")
    except Exception:  # an unreadable or contradictory setting: tzlocal raises what it likes
        return "UTC"


def check_timezone(name: str) -> str:
    """Raises `Rejected` for a zone that is not known here."""
    _zone(name)
    return name


def _zone(name: str) -> Any:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise Rejected(f"time zone {name!r} is not known", code="bad-timezone", hint="as Europe/Berlin or UTC") from None


def split_line(line: str) -> tuple[str, str]:
    """(schedule, command) of a crontab line. Raises `Rejected`."""
    words = line.split(None, 1)
    if words and words[0].startswith("@"):
        if words[0].lower() not in WORDS:
            raise _bad(line, f"{words[0]} is not one of {', '.join(WORDS)}")
        schedule, command = words[0].lower(), words[1] if len(words) > 1 else ""
    else:
        words = line.split(None, 5)
        schedule, command = " ".join(words[:5]), words[5] if len(words) > 5 else ""
    if not command.strip():
        raise _bad(line, "it needs five fields (minute hour day month weekday) and a command")
    return schedule, command.strip()


def _bad(line: str, why: str) -> Rejected:
    return Rejected(f"crontab line {line[:80]!r}: {why}", code="bad-crontab", hint="as */10 8-18 * * mon-fri COMMAND")


def parse_field(text: str, name: str, low: int, high: int, names: tuple[str, ...], line: str) -> list[int]:
    """The numbers of a field: "*", "5", "1-5", "*/10", "10-30/5", "mon,wed" and lists of those."""

    def number(word: str) -> int:
        if word.lower() in names:
            return names.index(word.lower()) + low
        if not word.isdecimal() or len(word) > 9 or not low <= int(word) <= high:
            raise _bad(line, f"{name}: {word[:20]!r} is not in {low}-{high}")
        return int(word)

    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or len(step) > 9 or not int(step)):
            raise _bad(line, f"{name}: {part[:20]!r} has no step above 0")
        if span == "*":
            first, last = low, high if name != "day of week" else 6
        else:
            begin, dash, end = span.partition("-")
            first = number(begin)
            last = number(end) if dash else high if slash else first
            if last < first and name == "day of week" and last == 0:
                last = 7  # fri-sun
            if last < first:
                raise _bad(line, f"{name}: {part!r} runs backwards")
        found.update(range(first, last + 1, int(step) if slash else 1))
    return sorted(found)


def tab_trigger(schedule: str, tz: str) -> Any:
    """The trigger of a crontab schedule. Raises `Rejected`."""
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    texts = WORDS.get(schedule, schedule).split()
    if len(texts) != len(FIELDS):
        raise _bad(schedule, f"{len(texts)} fields instead of five")
    minute, hour, day, month, weekday = (
        parse_field(text, *field, schedule) for text, field in zip(texts, FIELDS, strict=True)
    )
    rest = {"minute": _listed(minute), "hour": _listed(hour), "month": _listed(month), "timezone": _zone(tz)}
    days, weekdays = _listed(day), ",".join(DAYS[one] for one in sorted({one % 7 for one in weekday}))
    if texts[2].startswith("*") or texts[4].startswith("*"):
        return CronTrigger(day=days, day_of_week=weekdays, **rest)
    return OrTrigger([CronTrigger(day=days, **rest), CronTrigger(day_of_week=weekdays, **rest)])


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


def trigger_of(kind: str, spec: dict[str, Any]) -> Any:
    """The APScheduler trigger of an entry that goes by time."""
    if kind == "tab":
        return tab_trigger(spec["line"], spec["tz"])
    if kind == "interval":
        from apscheduler.triggers.interval import IntervalTrigger

        return IntervalTrigger(seconds=spec["interval"], start_date=moment(spec["first"]), timezone=UTC)
    from apscheduler.triggers.date import DateTrigger

    return DateTrigger(moment(spec["at"]), UTC)


def moment(t: float) -> datetime:
    """Unix seconds as an aware datetime."""
    return datetime.fromtimestamp(t, UTC)


def next_time(kind: str, spec: dict[str, Any], after: float) -> float:
    """When an entry is due first after a time, Unix seconds; 0.0: never again, or at no time known."""
    if kind == "event" or (kind == "at" and spec["at"] <= after):
        return 0.0
    found = trigger_of(kind, spec).get_next_fire_time(None, moment(after) + timedelta(seconds=STEP_S))
    return found.timestamp() if found is not None else 0.0
