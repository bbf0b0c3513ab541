"""Whole ensembles under deaths at any request of a store: each member has one result, and what ended is not run again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ensemble_world import World, outcome

from fluxkv.instances.child import child_namespace
from fluxkv.journal.ensemble import Count, Indices, total_of


def check(world: World, code: int) -> None:
    """What an ensemble has come to is what its members have."""
    indices = Indices(world.request.ranges)
    record = world.record()
    rows = list(record.rows(len(indices)))
    ended = [row.position for _, row in rows]
    missing = set(range(len(indices))).difference(ended)
    assert ended == [at for at in range(len(indices)) if at not in missing]
    assert not missing or len(world.happened) > world.ensemble.limit, "nobody had given up"
    assert not [at for at in missing if indices[at] in world.settled], "it ended, and is not in the table"
    assert sum(len(part) for _, part in record.parts()) == len(rows), "a member has two results"
    total = total_of(record.counts().values())
    failed = [row for _, row in rows if not row.ok]
    assert total._replace(running=0) == Count(len(rows), len(failed), max((row.returncode for row in failed), default=0))
    assert code == (total.worst or (1 if missing else 0))
    for part, row in rows:
        index = indices[row.position]
        status, exception = outcome(index)
        outer, child, attempt = part.path
        where = child_namespace(child_namespace("/", world.job, outer), child, attempt)
        if index in world.settled:
            assert world.settled[index] == (where, row.id), f"{index}: its result is another job's"
        assert row.ok == (status == 0)
        assert row.why == (": ".join(exception) if exception else "")


@pytest.mark.parametrize("seed", range(24))
def test_whoever_dies_each_member_has_one_result(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = World(monkeypatch, seed, members=20 + 4 * seed, deaths=seed % 12)
    try:
        check(world, world.run())
    finally:
        world.close()


def test_journals_that_never_come_back_hold_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended in them and was not told runs again, and nothing else."""
    unknown = given_up = 0
    for seed in range(8):
        world = World(monkeypatch, seed, members=60, deaths=6, goes=True)
        told: list[str] = []
        monkeypatch.setattr("sys.stderr", SimpleNamespace(write=told.append))
        try:
            check(world, world.run())
        finally:
            world.close()
        unknown += world.unknown
        given_up += len(told)
    assert unknown
    assert given_up


def test_what_ended_before_a_cancel_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = late = 0
    for seed in range(9):
        world = World(monkeypatch, seed, members=100, deaths=seed % 3)
        try:
            parts = world.cancel(400 + 60 * seed)
        finally:
            world.close()
        indices = Indices(world.request.ranges)
        told = [row.position for _, row in world.record().rows(len(indices))]
        untold = [row.position for part in parts for row in part]
        assert len({*told, *untold}) == len(told) + len(untold), "a member has two results"
        assert not set(world.settled).difference(indices[at] for at in (*told, *untold)), "it ended, and would run again"
        ended += len(world.settled)
        late += len(untold)
    assert ended > 100
    assert late > 10
