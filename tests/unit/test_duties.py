"""A keeper's duties: when each is due, what is done together, and that only times cost APScheduler."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fluxkv.instances.duties import Duties


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def duties(clock: Clock) -> Iterator[Duties]:
    made = Duties(clock)
    yield made
    made.stop()


def test_a_period_begins_when_it_is_asked_for_and_what_was_missed_is_done_once(duties: Duties, clock: Clock) -> None:
    done: list[str] = []
    duties.add("a", 1.0, lambda: done.append("a"))
    duties.add("b", 1.0, lambda: done.append("b"))
    duties.add("slow", 2.0, lambda: done.append("slow"))
    assert duties.wait_s(5.0) == 1.0
    assert duties.wait_s(0.5) == 0.5
    duties.run_due()
    assert not done
    clock.now += 1.0
    assert duties.wait_s(5.0) == 0.0
    duties.run_due()
    duties.run_due()
    assert done == ["a", "b"]
    clock.now += 30.0
    duties.run_due()
    assert done[2:] == ["a", "b", "slow"]
    assert duties.wait_s(5.0) == 1.0


def test_a_duty_that_was_cancelled_wakes_nobody_and_may_come_again(duties: Duties, clock: Clock) -> None:
    done: list[str] = []
    duties.add("a", 0.25, lambda: done.append("a"))
    duties.cancel("a")
    duties.cancel("unheard-of")
    clock.now += 1.0
    assert duties.wait_s(5.0) == 5.0
    duties.run_due()
    duties.add("a", 0.25, lambda: done.append("again"))
    duties.run_due()
    assert not done
    assert duties.wait_s(5.0) == 0.25
    clock.now += 0.25
    duties.run_due()
    assert done == ["again"]


def test_a_duty_may_add_and_cancel_others(duties: Duties, clock: Clock) -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        duties.cancel("first")
        duties.add("second", 3.0, lambda: done.append("second"))

    duties.add("first", 1.0, first)
    clock.now += 1.0
    duties.run_due()
    clock.now += 3.0
    duties.run_due()
    assert done == ["first", "second"]


def test_periods_need_no_apscheduler(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setitem(sys.modules, "apscheduler", None)  # whoever imports it is refused
    monkeypatch.setitem(sys.modules, "apscheduler.schedulers.background", None)
    made = Duties(clock)
    made.add("a", 1.0, lambda: None)
    made.cancel("cron-7")
    clock.now += 1.0
    made.run_due()
    made.stop()
    with pytest.raises(ImportError):
        made.at("cron-7", None, datetime.now(UTC), lambda: None)


def test_a_time_wakes_whoever_waits_for_the_descriptor_and_is_done_by_its_thread(duties: Duties) -> None:
    from apscheduler.triggers.date import DateTrigger

    done: list[str] = []
    now = datetime.now(UTC)
    look = lambda: done.append("look")  # noqa: E731  one function for two names
    duties.at("cron-1", DateTrigger(now), now, look)
    duties.at("cron-2", DateTrigger(datetime(2100, 1, 1, tzinfo=UTC)), datetime(2100, 1, 1, tzinfo=UTC), look)
    assert select.select([duties], [], [], 30.0)[0]
    assert not done
    duties.run_due()
    assert done == ["look"]
    duties.cancel("cron-2")
    duties.run_due()
    assert done == ["look"]
