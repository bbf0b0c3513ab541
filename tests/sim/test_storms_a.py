"""Half of the simulator's seeds: storm, calm, audit. See `storms.py`."""

from __future__ import annotations

from collections import Counter

import pytest
import storms

TOTAL: Counter[str] = Counter()


@pytest.mark.parametrize("first", storms.firsts(0))
def test_promises_hold_in_any_storm(first: int) -> None:
    storms.play_chunk(first, TOTAL)


@pytest.mark.parametrize("seed", storms.FOUND)
def test_what_was_mended_stays_so(seed: int) -> None:
    storms.play_chunk(seed, Counter(), 1)


@pytest.mark.parametrize("first", storms.GRAPH_SEEDS)
def test_promises_hold_with_a_graph_of_resources(first: int) -> None:
    storms.play_chunk(first, Counter(), storms.CHUNK)


@pytest.mark.parametrize(("first", "count"), storms.PLAIN_SEEDS)
def test_promises_hold_where_what_is_old_comes_late_or_again(first: int, count: int) -> None:
    found: Counter[str] = Counter()
    storms.play_chunk(first, found, count)
    assert found["silent and lost"] or found["orders read again"]


def test_rare_paths_were_walked() -> None:
    storms.check_rare(TOTAL)
