"""Attempts that differ only in whose they are: what is made of them by halves is what is made of each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fluxkv.instances.alike import Alike
from fluxkv.instances.attempts import Host, build_attempt
from fluxkv.instances.wire import LIKE, differs, pack, unpack, whole

HOST = Host({0: "n0", 1: "n1"}, "b", "s", "memory:", "/t", {0: [4], 1: [5]}, "/state")
ORDER = {
    "user": 1, "name": "x", "command": ["x", "y"], "system": {"cwd": "/", "duration": 3.0}, "env": "e", "claim": [0, "0", "", 0, 1],
    "index": 0, "nodes": 1, "total": 1, "first": 0, "count": 1, "shape": "s", "queued": True,
}  # fmt: skip


def orders(*changes: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for at, change in enumerate(changes):
        order = {**ORDER, "job": 7000 + at, **change}
        yield order, f"{order['job']}.{at}-9.0"


def as_sent(alike: Alike, order: dict[str, Any], key: str) -> tuple[dict[str, Any], bool]:
    """(attempt as its launcher has it, whether it is told by what differs)."""
    attempt = alike.build(HOST, 0, order, key)
    halves = LIKE in attempt
    if halves:
        common, own = unpack(pack(attempt[LIKE])), unpack(pack(differs(attempt)))
        assert own.pop(LIKE) is True
        assert whole(attempt) == build_attempt(HOST, 0, order, key)
        assert set(own) <= {"key", "job", "tmpdir", "env_own", "held"}
        attempt = {**common, **own}
    attempt["env_set"] = {**attempt["env_set"], **attempt.pop("env_own", {})}
    return attempt, halves


def deep() -> Any:
    """More than can be packed."""
    found: list[Any] = []
    for _ in range(1200):
        found = [found]
    return found


def option(**options: Any) -> dict[str, Any]:
    return {"system": {"cwd": "/", "shell": {"options": options}}}


def variables(**own: Any) -> dict[str, Any]:
    return {"system": {"cwd": "/", "environment": own}}


@pytest.mark.parametrize(
    ("changes", "halves"),
    [
        ([{}, {}, {}], [False, True, True]),
        ([{}, {"name": "another"}, {"attempt": "3-4"}], [False, True, True]),
        ([{}, {"command": ["z"]}, {"command": ["z"]}, {}], [False, False, True, False]),
        ([{}, {"claim": [0, "1", "", 0, 1]}, {"claim": [0, "0", "", 0, 1]}], [False, False, False]),
        ([{"queued": False}, {"queued": True}, {}], [False, False, True]),
        ([variables(N="1"), variables(N="2"), variables(N=3)], [False, True, True]),
        ([variables(N="1"), variables(M="2"), {}], [False, False, False]),
        ([variables(N="1", M="1"), variables(N="2"), variables(N="3", M=None)], [False, False, True]),
        ([variables(FLUX_URI="theirs", FLUX_JOB_ID="theirs"), variables(FLUX_URI="x", FLUX_JOB_ID="y")], [False, False]),
        ([option(verbose=1), option(verbose=True), option(verbose=1.0)], [False, False, False]),
        ([{"command": ["{{id}}"]}, {"command": ["{{id}}"]}], [False, False]),
        ([option(output={"stdout": {"type": "file", "path": "{{id}}"}})] * 2, [False, False]),
        ([option(output={"stdout": {"type": "file", "path": "out"}})] * 2, [False, True]),
        ([{"nodes": 2, "total": 2, "shape": ""}] * 2, [False, False]),
        ([{"refuse": "no"}] * 2, [False, False]),
        ([{"number": 2, "since": 5.0}] * 2, [False, True]),
        ([{"system": {"deep": deep()}}] * 2, [False, False]),
        ([{"fence": True}, {"fence": True}, {}], [False, True, False]),
        ([{"total": 3, "count": 3}] * 2, [False, True]),
    ],
)  # fmt: skip
def test_what_is_told_by_halves_is_the_whole(changes: list[dict[str, Any]], halves: list[bool]) -> None:
    alike, found = Alike(), []
    for order, key in orders(*changes):
        attempt, by_halves = as_sent(alike, order, key)
        assert attempt == build_attempt(HOST, 0, order, key)
        found.append(by_halves)
    assert found == halves


def test_another_rank_another_inventory_and_an_order_without_sense_are_another_kind() -> None:
    alike = Alike()
    host = Host({0: "n0", 1: "n1"}, "b", "s", "memory:", "/t", {}, "/state")
    (one, key), (two, other) = orders({}, {})
    alike.build(host, 0, one, key)
    assert LIKE not in alike.build(host, 1, two, other)
    assert LIKE in alike.build(host, 1, one, key)
    host.cpus = {0: [1]}
    assert LIKE not in alike.build(host, 1, two, other)
    with pytest.raises((AttributeError, LookupError, TypeError, ValueError)):
        alike.build(host, 1, {**two, "command": None}, other)
    assert LIKE not in alike.build(host, 1, two, other)
    again = alike.build(host, 1, one, key)
    again["refuse"] = "its environment is gone"
    assert differs(again)["refuse"] == "its environment is gone"
    assert "refuse" not in again[LIKE]
