"""The rules of hand-over can fail: each holds for what is right, and for nothing that is wrong. What breaks them in a whole tree of
instances stands in `mutants.py`."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from simulator import handover
from simulator.handover import Book, Goods, Held
from simulator.truth import Broken

POWER, NVME = "/cluster0/rack0/power0", "/cluster0/rack0/n0/nvme"
ENTRY = "7-1"


def realm(namespace: str, depth: int, has: Goods, parent: Any = None, job: int = 1) -> Any:
    """An instance, or a child on nodes 0 and 1 that are n0 and n1."""
    book = Book()
    book.version, book.tip, book.has, book.hosts = 9, "9-1", has, {0: "n0", 1: "n1"}
    found = SimpleNamespace(namespace=namespace, depth=depth, book=book, children=[], poisoned=0, ready=True, over=False)
    found.root = parent.root if parent else SimpleNamespace(happened=Counter())
    found.parent, found.place = parent, SimpleNamespace(job=job, entry=ENTRY)
    found.parts, found.ended = {f"{job}.{ENTRY}.{node}": (node, None) for node in (0, 1)}, set()
    found.diary = SimpleNamespace(seats={f"{job}.{ENTRY}.{node}": frozenset((0, 1)) for node in (0, 1)})
    if parent:
        parent.children.append(found)
        parent.book.held[job] = Held(ENTRY, has, 7)
        parent.book.begun.add((job, ENTRY))
    return found


def tree() -> tuple[Any, Any, Any]:
    """An instance whose two first jobs are instances with half of it each."""
    top = realm("/", 0, Goods({"n0": 15, "n1": 15}, {POWER: (10, 0), NVME: (2, 3)}))
    one = realm("/a", 1, Goods({"n0": 3, "n1": 3}, {POWER: (5, 0), NVME: (1, 1)}), top, 1)
    other = realm("/b", 1, Goods({"n0": 12, "n1": 12}, {POWER: (5, 0), NVME: (1, 2)}), top, 2)
    return top, one, other


def less_is_held(top: Any, one: Any, other: Any) -> None:
    top.book.held[1] = Held(ENTRY, Goods({"n0": 3, "n1": 1}, one.book.has.pools), 7)


def less_power_is_held(top: Any, one: Any, other: Any) -> None:
    top.book.held[1] = Held(ENTRY, Goods(one.book.has.cores, {POWER: (4, 0), NVME: (1, 1)}), 7)


def another_nvme_is_held(top: Any, one: Any, other: Any) -> None:
    top.book.held[1] = Held(ENTRY, Goods(one.book.has.cores, {POWER: (5, 0), NVME: (1, 2)}), 7)


def its_job_is_over(top: Any, one: Any, other: Any) -> None:
    del top.book.held[1]


def its_job_is_in_another_attempt(top: Any, one: Any, other: Any) -> None:
    top.book.held[1] = Held("8-1", one.book.has, 8)


def siblings_share_a_core(top: Any, one: Any, other: Any) -> None:
    one.book.has = Goods({"n0": 7, "n1": 3}, {})
    top.book.held[1] = Held(ENTRY, one.book.has, 7)


def siblings_share_an_nvme(top: Any, one: Any, other: Any) -> None:
    one.book.has = Goods({"n0": 3}, {NVME: (1, 2)})
    top.book.held[1] = Held(ENTRY, one.book.has, 7)


def a_job_beside_it_has_a_core(top: Any, one: Any, other: Any) -> None:
    top.book.held[3] = Held("9-1", Goods({"n1": 1}, {}), 9)


def power_is_sold_twice(top: Any, one: Any, other: Any) -> None:
    top.book.held[3] = Held("9-1", Goods({}, {POWER: (1, 0)}), 9)


def a_lost_branch_s_cores_are_sold(top: Any, one: Any, other: Any) -> None:
    top.book.lost, top.book.kept = True, 6
    top.book.begun.discard((1, ENTRY))
    top.book.held[1] = Held("8-2", one.book.has, 8)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (less_is_held, "/a has cores .1. of n1, which its job has not"),
        (less_power_is_held, "/a has 5 of .*power0"),
        (another_nvme_is_held, "/a has 1 of .*nvme"),
        (its_job_is_over, "/a lives, and attempt 7-1"),
        (its_job_is_in_another_attempt, "/a lives, and attempt 7-1"),
        (siblings_share_a_core, "/a and /b both have cores .2. of n0"),
        (siblings_share_an_nvme, "/a and /b both have .1. of .*nvme"),
        (a_job_beside_it_has_a_core, "/a has cores .0. of n1, which job 3"),
        (power_is_sold_twice, "of .*power0 11 are sold in /, which has 10"),
        (a_lost_branch_s_cores_are_sold, "/a has cores .0, 1. of n0, which job 1 holds"),
    ],
)
def test_what_a_child_has_is_its_job_s_and_nobody_else_s(wrong: Any, says: str) -> None:
    top, one, other = tree()
    handover.weigh(top, [])
    wrong(top, one, other)
    with pytest.raises(Broken, match=says):
        handover.weigh(top, [])


def test_what_is_over_may_still_be_written_about() -> None:
    top, one, _ = tree()
    one.over = True
    its_job_is_over(top, one, None)
    handover.weigh(one, [])
    assert top.root.happened["words of a child that is over"] == 1


def test_a_child_s_jobs_hold_what_it_has() -> None:
    _, one, _ = tree()
    one.book.held[5] = Held("4-3", Goods({"n0": 2}, {POWER: (5, 0)}), 4)
    handover.weigh(one, [5])
    for more in (Goods({"n0": 4}, {}), Goods({"n2": 1}, {}), Goods({}, {POWER: (6, 0)}), Goods({}, {NVME: (1, 2)})):
        one.book.held[5] = Held("4-3", more, 4)
        with pytest.raises(Broken, match=r"job 5 of /a holds .* which its instance has not"):
            handover.weigh(one, [5])


def test_a_task_begins_within_its_child() -> None:
    top, one, _ = tree()
    one.parent = top
    key = "5.4-3.1"
    one.diary.seats[key] = frozenset((1,))
    top.diary.seats = {f"1.{ENTRY}.{node}": frozenset((0, 1)) for node in (0, 1)}
    handover.begins(one, key)
    top.book.held[3] = Held("9-1", Goods({"n1": 2}, {}), 9)
    with pytest.raises(Broken, match="on cores of n1 that job 3 of / holds"):
        handover.begins(one, key)
    one.diary.seats[key] = frozenset((1, 2))
    with pytest.raises(Broken, match=r"cores \[2\] of rank 1, which are not the child's"):
        handover.begins(one, key)
    del one.parts[f"1.{ENTRY}.1"]
    with pytest.raises(Broken, match="begins where the child is not"):
        handover.begins(one, key)
