"""Seats: who takes over a seat, in which order, and who is given back.

Also the fake launcher, which keeps the rules.
"""

from __future__ import annotations

import signal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fluxkv.instances.fake_launcher import FakeLauncher
from fluxkv.instances.seats import Seats


def test_the_head_of_the_line_takes_the_seat_of_whoever_is_over() -> None:
    seats = Seats()
    seats.hold("a", "g", "seat 0")
    seats.hold("b", "g", "seat 1")
    assert seats.wait("c", "g", 0.0)
    assert seats.wait("d", "g", 0.0)
    assert seats.over("b") == "c"
    assert seats.seat("c") == "seat 1"
    assert seats.over("a") == "d"
    assert seats.seat("d") == "seat 0"
    assert seats.over("c") == ""
    assert seats.over("d") == ""


def test_a_group_without_a_holder_takes_nobody() -> None:
    seats = Seats()
    assert not seats.wait("a", "g", 0.0)
    seats.hold("b", "g", None)
    assert not seats.wait("c", "other", 0.0)
    assert seats.over("b") == ""
    assert not seats.wait("d", "g", 0.0)


def test_withdrawn_ones_never_start_and_a_key_is_given_back_once() -> None:
    seats = Seats()
    seats.hold("a", "g", None)
    for key in "bcde":
        seats.wait(key, "g", 0.0)
    assert seats.withdraw(["c", "a", "nobody", "b"]) == ["c", "b"]
    assert seats.withdraw(["c", "b"]) == []
    assert seats.over("a") == "d"
    assert not seats.queued("d")
    assert seats.withdraw_all() == ["e"]
    assert seats.over("d") == ""


def test_lingering_ones_are_given_back_oldest_first() -> None:
    seats = Seats(linger_s=0.25)
    seats.hold("a", "g", None)
    assert seats.deadline() is None
    seats.wait("b", "g", 1.0)
    seats.wait("c", "g", 1.1)
    assert seats.deadline() == 1.25
    assert seats.expired(1.2) == []
    assert seats.expired(1.25) == ["b"]
    assert seats.deadline() == 1.1 + 0.25
    assert seats.over("a") == "c"
    assert seats.deadline() is None


@given(st.lists(st.sampled_from(["hold", "wait", "over", "withdraw", "expire"]), max_size=60), st.randoms())
def test_no_seat_is_ever_held_twice_and_nobody_is_forgotten(steps: list[str], random: Any) -> None:
    seats = Seats(linger_s=3)
    holding: dict[str, str] = {}  # holder -> seat
    queued: list[tuple[str, str]] = []  # key, group
    group_of: dict[str, str] = {}
    for now, step in enumerate(steps):
        key, group = f"k{now}", random.choice("gh")
        if step == "hold":
            group_of[key] = group
            holding[key] = f"s{now}"
            seats.hold(key, group, f"s{now}")
        elif step == "wait":
            taken = seats.wait(key, group, now)
            assert taken == any(group_of[k] == group for k in holding)
            if taken:
                group_of[key] = group
                queued.append((key, group))
        elif step == "over" and holding:
            gone = random.choice(sorted(holding))
            first = next((k for k, g in queued if g == group_of[gone]), "")
            assert seats.over(gone) == first
            seat = holding.pop(gone)
            if first:
                queued.remove((first, group_of[gone]))
                holding[first] = seat
        elif step == "withdraw" and queued:
            pick = random.choice(queued)
            assert seats.withdraw([pick[0]]) == [pick[0]]
            queued.remove(pick)
        elif step == "expire":
            late = [(k, g) for k, g in queued if int(k[1:]) <= now - 3]
            assert seats.expired(now) == [k for k, _ in late]
            queued = queued[len(late) :]
        assert {k: seats.seat(k) for k in holding} == holding
        assert len(set(holding.values())) == len(holding)


# ---- the fake launcher


def attempt(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "job": 7, "tasks": [[0, ["true"], None, {}]], "group": "g", "queued": False, **more}


def names(events: list[list[Any]]) -> list[tuple[str, str]]:
    return [(event[0], event[1]) for event in events]


def test_fake_zero_lengths_pass_through_in_one_advance() -> None:
    fake = FakeLauncher()
    fake.handle(
        ["launch", [attempt("a", fake_s=0.0), attempt("b", queued=True), attempt("c", queued=True)]], 5.0
    )
    assert fake.due() == 0.0
    events = fake.advance(5.0)
    assert names(events) == [(w, k) for k in "abc" for w in ("start", "over")]
    assert [event[7] for event in events if event[0] == "over"] == ["b", "c", ""]
    assert events[1] == ["over", "a", 0, 5.0, 5.0, None, "", "b", 0, 0.0, 7]
    assert fake.due() is None


def test_fake_durations_limits_and_succession() -> None:
    fake = FakeLauncher(linger_s=100)
    fake.handle(
        ["launch", [attempt("a", fake_s=10.0, fake_status=256), attempt("b", queued=True, fake_s=9.0)]], 0.0
    )
    assert names(fake.advance(0.0)) == [("start", "a")]
    fake.handle(["limit", "b", 2.0], 1.0)
    assert fake.due() == 10.0
    assert names(fake.advance(10.0)) == [("over", "a"), ("start", "b")]
    assert fake.due() == 12.0
    timeout, over = fake.advance(30.0)
    assert timeout == ["timeout", "b", 12.0]
    assert over[2:7] == [signal.SIGTERM, 10.0, 12.0, None, "timeout"]


def test_fake_end_signal_recall_linger_and_held() -> None:
    fake = FakeLauncher(linger_s=1)
    fake.handle(["launch", [attempt("a", fake_s=100.0), attempt("b", fake_s=100.0)]], 0.0)
    fake.handle(["launch", [attempt(k, queued=True, fake_s=1.0) for k in "cde"]], 0.5)
    fake.handle(["recall", ["c", "a"]], 0.5)
    fake.handle(["signal", "a", signal.SIGCONT], 0.5)
    fake.handle(["list"], 0.5)
    events = fake.advance(0.5)
    assert names(events[:2]) == [("start", "a"), ("start", "b")]
    assert events[2] == ["unstarted", ["c"]]
    assert [row[:3] for row in events[3][1]] == [
        ["d", 7, "queued"],
        ["e", 7, "queued"],
        ["a", 7, "running"],
        ["b", 7, "running"],
    ]
    fake.handle(["end", "a", "cancel"], 1.0)
    over, start = fake.advance(1.0)
    assert (over[1], over[2], over[6], over[7]) == ("a", signal.SIGTERM, "ended:cancel", "d")
    assert start[:2] == ["start", "d"]
    assert fake.due() == 1.5
    assert fake.advance(1.5) == [["unstarted", ["e"]]]
    fake.handle(["signal", "b", signal.SIGKILL], 1.6)
    assert fake.advance(1.6)[0][2] == signal.SIGKILL
    fake.handle(["ack", ["a"]], 1.7)
    fake.handle(["shutdown", True], 1.7)
    assert fake.advance(1.7)[0][6] == "ended:shutdown"
    assert fake.finished
    fake.handle(["list"], 2.0)
    assert sorted(row[0] for row in fake.advance(2.0)[0][1]) == ["b", "d"]


def test_fake_says_a_resent_launch_again_without_running_it_twice() -> None:
    fake = FakeLauncher()
    fake.handle(["launch", [attempt("a", fake_s=1.0)]], 0.0)
    fake.handle(["launch", [attempt("a", fake_s=1.0)]], 0.5)
    assert names(fake.advance(0.5)) == [("start", "a"), ("start", "a")]
    assert names(fake.advance(1.0)) == [("over", "a")]
    fake.handle(["launch", [attempt("a", fake_s=1.0)]], 2.0)
    assert names(fake.advance(2.0)) == [("over", "a")]
