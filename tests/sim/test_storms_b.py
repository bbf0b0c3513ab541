"""Half of the simulator's seeds: storm, calm, audit. See `storms.py`."""

from __future__ import annotations

from collections import Counter

import pytest
import storms

TOTAL: Counter[str] = Counter()
DEEP: Counter[str] = Counter()
RESIZED: Counter[str] = Counter()
SCRIPTED: Counter[str] = Counter()
RESUMED: Counter[str] = Counter()
OWN: Counter[str] = Counter()
PASSED: Counter[str] = Counter()


@pytest.mark.parametrize("first", storms.firsts(1))
def test_promises_hold_in_any_storm(first: int) -> None:
    storms.play_chunk(first, TOTAL)


@pytest.mark.parametrize("first", storms.DEEP_SEEDS)
def test_promises_hold_at_every_level_of_instances(first: int) -> None:
    storms.play_chunk(first, DEEP, 4)


@pytest.mark.parametrize("first", storms.RESIZED_SEEDS)
def test_promises_hold_while_instances_grow_and_shrink(first: int) -> None:
    storms.play_chunk(first, RESIZED, 4)


@pytest.mark.parametrize("first", storms.SCRIPTED_SEEDS)
def test_promises_hold_where_a_site_s_scripts_run_on_each_node_that_comes_or_leaves(first: int) -> None:
    storms.play_chunk(first, SCRIPTED, 4)


@pytest.mark.parametrize("first", storms.RESUMED_SEEDS)
def test_promises_hold_where_jobs_go_on_with_instances_that_others_were(first: int) -> None:
    storms.play_chunk(first, RESUMED, 4)


@pytest.mark.parametrize("first", storms.OWN_SEEDS)
def test_promises_hold_where_instances_have_servers_of_their_own(first: int) -> None:
    storms.play_chunk(first, OWN, 4)


@pytest.mark.parametrize(("first", "count"), storms.PASSED_SEEDS)
def test_promises_hold_where_others_go_on_with_instances_on_servers_of_their_own(first: int, count: int) -> None:
    storms.play_chunk(first, PASSED, count)


def test_rare_paths_were_walked() -> None:
    storms.check_rare(TOTAL)
    storms.check_rare(DEEP, storms.RARE_DEEP, 16)
    storms.check_rare(RESIZED, storms.RARE_RESIZED, 4)
    storms.check_rare(SCRIPTED, storms.RARE_SCRIPTED, 8)
    storms.check_rare(RESUMED, storms.RARE_RESUMED, 4)
    storms.check_rare(OWN, storms.RARE_OWN, 8)
    storms.check_rare(PASSED, storms.RARE_PASSED, 3)
