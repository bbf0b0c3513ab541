"""What of a commit's payload counts as an event: the types that nearly all have are asked for first, and the answer is the same."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from fluxkv.journal.wire import LATEST, well_formed

NAMES: list[Any] = ["start", "", b"start", None, 7, ["start"]]
SUBJECTS: list[Any] = [7, "instance", True, 7.0, None, [], {}]
TIMES: list[Any] = [0.0, 1.5, 3, True, -1.0, LATEST, LATEST * 2, math.nan, math.inf, "1.5", None]
CONTEXTS: list[Any] = [None, {}, {"a": 1}, [], "x"]


def is_event(event: Any) -> bool:
    """As the catalogue has it."""
    if not isinstance(event, list) or len(event) != 4:
        return False
    name, subject, timestamp, context = event
    fits = isinstance(name, str) and isinstance(subject, int | str) and isinstance(timestamp, int | float)
    return fits and 0.0 <= timestamp <= LATEST and (context is None or isinstance(context, dict))


def test_what_somebody_wrote_by_hand_and_is_no_event_is_passed_over() -> None:
    every: list[Any] = [list(one) for one in product(NAMES, SUBJECTS, TIMES, CONTEXTS)]
    every += [None, 7, "text", {}, [], ["start"], ["start", 7, 1.0], ["start", 7, 1.0, None, 5], ("start", 7, 1.0, None)]
    events = list(filter(is_event, every))
    assert 50 < len(events) < len(every)
    assert list(well_formed(every)) == events
    assert list(well_formed(every, frozenset(("start", "finish")))) == [event for event in events if event[0] == "start"]
