"""What the audit lets pass can fail, too. What makes the rest of it fail stands in `mutants.py`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from simulator import audit
from simulator.faults import Fork
from simulator.truth import Broken, Diary

LOST, OTHER, KEY = "5.8-1", "5.3-1", "5.8-1.0"


def world_of(begun: float, hello: float, held: list[str], lost: str = "8-1") -> tuple[Any, list[Any]]:
    """Job 5 is over at 10.0, in version 9; its node's hello comes in version 10. lost: the entry that went with a branch."""
    diary = Diary()
    diary.seats[KEY] = frozenset((0,))
    diary.saw("n0", [["start", KEY]], begun)
    diary.died("n0", hello + 1.0)
    events = {9: (10.0, ["clean", 5, 10.0, None]), 10: (hello, ["hello", "node/0", hello, {"rank": 0, "held": held}])}
    commits = [SimpleNamespace(id=f"{at}-2", version=at, events=[event]) for at, (_, event) in events.items()]
    world = SimpleNamespace(
        diary=diary, forks=[Fork(7, frozenset((lost,)), lost)], times={f"{at}-2": when for at, (when, _) in events.items()},
        ends_at=lambda: 0.0, faults=SimpleNamespace(on=lambda name: False),
    )  # fmt: skip
    return world, commits


def test_a_node_may_begin_what_was_lost_until_its_hello_which_lists_it() -> None:
    audit.physical(*world_of(10.3, 10.5, [OTHER, LOST]))


@pytest.mark.parametrize(
    ("begun", "hello", "held", "lost"),
    [(10.3, 10.2, [LOST], "8-1"), (10.3, 10.5, [OTHER], "8-1"), (10.3, 10.5, [LOST], "8-9")],
    ids=["after its hello", "not listed", "of no lost branch"],
)
def test_nothing_else_begins_when_its_job_is_over(begun: float, hello: float, held: list[str], lost: str) -> None:
    with pytest.raises(Broken, match="begins though the job is over"):
        audit.physical(*world_of(begun, hello, held, lost))
