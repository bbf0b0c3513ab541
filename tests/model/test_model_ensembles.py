"""Whole ensembles under deaths at any request of a store: each member has one result, and what ended is not run again."""

from __future__ import annotations

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
