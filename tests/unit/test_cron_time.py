"""When cron is due: crontab(5) against a scan of every minute; time zones; moments as people write them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fluxkv.instances.cron_time import FIELDS, check_timezone, next_time, parse_field, split_line
from fluxkv.kvs.errors import Rejected
from fluxkv.tools.when import parse_when

T0 = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC, a Tuesday


def scan(line: str, after: float, limit_days: int = 40) -> float:
    """crontab(5), read off the page, minute by minute: either day field will do when neither begins with a star."""
    texts = line.split()
    minutes, hours, days, months, weekdays = (
        set(parse_field(text, *field, line)) for text, field in zip(texts, FIELDS, strict=True)
    )
    weekdays = {one % 7 for one in weekdays}
    both = texts[2].startswith("*") or texts[4].startswith("*")
    first = (int(after) // 60 + 1) * 60
    for t in range(first, first + limit_days * 86400, 60):
        at = datetime.fromtimestamp(t, ZoneInfo("UTC"))
        if at.minute in minutes and at.hour in hours and at.month in months:
            on_day, on_weekday = at.day in days, at.isoweekday() % 7 in weekdays
            if (on_day and on_weekday) if both else (on_day or on_weekday):
                return float(t)
    return 0.0


@pytest.mark.parametrize(
    "line",
    ["*/7 * * * *", "5 */6 * * *", "0 0 1 * *", "0 9 * * 0", "0 9 * * 7", "0 9 * * 1-5", "30 4 1,15 * 5", "0 0 13 * fri",
     "0 12 */10 * mon", "0 12 2-30 * */2", "15 10-14/2 * nov,dec sat-sun", "59 23 * * fri-0", "1 1 * * 6-7"],
)  # fmt: skip
def test_a_line_is_what_crontab_says(line: str) -> None:
    rng = random.Random(line)
    for _ in range(3):
        after = T0 + rng.uniform(0, 8 * 86400)
        expected = scan(line, after)
        assert expected
        assert next_time("tab", {"line": line, "tz": "UTC"}, after) == expected


def test_words_zones_and_days_that_never_come() -> None:
    def at(line: str, tz: str = "UTC") -> str:
        found = next_time("tab", {"line": line, "tz": tz}, T0)
        return datetime.fromtimestamp(found, ZoneInfo("UTC")).strftime("%m-%d %H:%M") if found else "never"

    assert [at(word) for word in ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")] == [
        "11-14 23:00", "11-15 00:00", "11-19 00:00", "12-01 00:00", "01-01 00:00",
    ]  # fmt: skip
    assert at("0 6 * * *", "Asia/Tokyo") == "11-15 21:00"
    assert at("0 0 31 2 *") == "never"
    assert at("0 0 29 2 *") == "02-29 00:00"
    assert check_timezone("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(Rejected, match="is not known"):
        check_timezone("Nowhere/Atall")


@pytest.mark.parametrize(
    ("line", "why"),
    [("", "five fields"), ("* * * * *", "a command"), ("@daily", "a command"), ("@reboot x", "is not one of"),
     ("60 * * * * x", "'60' is not in 0-59"), ("* 24 * * * x", "'24' is not in 0-23"), ("* * 0 * * x", "'0' is not in 1-31"),
     ("* * * 13 * x", "'13' is not in 1-12"), ("* * * * 8 x", "'8' is not in 0-7"), ("* * * * foo x", "'foo' is not in 0-7"),
     ("5-1 * * * * x", "runs backwards"), ("*/0 * * * * x", "no step above 0"), ("1,, * * * * x", "'' is not in"),
     ("-1 * * * * x", "'' is not in"), ("² * * * * x", "is not in")],
)  # fmt: skip
def test_bad_lines_say_what_is_wrong(line: str, why: str) -> None:
    def read() -> None:
        schedule, _ = split_line(line)
        next_time("tab", {"line": schedule, "tz": "UTC"}, T0)

    with pytest.raises(Rejected, match=why):
        read()


def test_a_line_is_a_schedule_and_a_command() -> None:
    assert split_line("*/5  *\t* * *   echo a  b") == ("*/5 * * * *", "echo a  b")
    assert split_line("@Daily x y") == ("@daily", "x y")


def test_intervals_stay_on_their_grid() -> None:
    spec: dict[str, Any] = {"interval": 0.3, "first": T0}
    assert next_time("interval", spec, T0 - 5) == T0
    rng = random.Random(5)
    for _ in range(200):
        after = T0 + rng.uniform(0, 100)
        found = next_time("interval", spec, after)
        assert after < found <= after + 0.302
        steps = (found - T0) / 0.3
        assert abs(steps - round(steps)) < 1e-4
    assert next_time("at", {"at": T0}, T0 - 1) == T0
    assert next_time("at", {"at": T0}, T0) == 0.0
    assert next_time("event", {}, T0) == 0.0


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "after_s"),
    [("now", 0), ("+90m", 5400), ("+ 5s", 5), ("@1700000001.5", 1.5), ("22:14", 40), ("22:13", 86400 - 20),
     ("6:00", 7 * 3600 + 46 * 60 + 40), ("tomorrow 06:00", 7 * 3600 + 46 * 60 + 40), ("Tomorrow", 3600 + 46 * 60 + 40),
     ("today 23:00", 46 * 60 + 40), ("2023-11-15", 3600 + 46 * 60 + 40), ("2023-11-15 0:30", 2 * 3600 + 16 * 60 + 40),
     ("2023-11-14T22:13:30", 10), ("2023-11-15T00:00:00+01:00", 46 * 60 + 40)],
)  # fmt: skip
def test_moments_to_come(utc: None, text: str, after_s: float) -> None:
    assert parse_when(text, T0) == pytest.approx(T0 + after_s)


@pytest.mark.parametrize("text", ["", "later", "25:00", "+", "+x", "@", "@nan", "@inf", "tomorrow noon", "2023-13-01", "17:3x"])
def test_bad_moments(utc: None, text: str) -> None:
    with pytest.raises(Rejected, match="bad moment"):
        parse_when(text, T0)


@pytest.mark.parametrize("text", ["@1", "2023-11-14", "today 01:00", "1999-12-31 23:59"])
def test_moments_that_are_past(utc: None, text: str) -> None:
    with pytest.raises(Rejected, match="is past"):
        parse_when(text, T0)
