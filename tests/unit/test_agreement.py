"""P5: a worker whose state is not the one that others decided on stops: at its start, and while it follows another."""

from __future__ import annotations

import pytest
from worker_rig import Rig

from fluxkv.instances.entry_aside import set_entry_aside
from fluxkv.instances.reactor import Entries, Lead
from fluxkv.journal import agreement, decide
from fluxkv.journal.agreement import agreed, load_agreed
from fluxkv.journal.log import Journal
from fluxkv.journal.schema import SCHEMA
from fluxkv.journal.wire import pack, unpack
from fluxkv.kvs.errors import Corrupt


def played() -> Rig:
    rig = Rig()
    over, runs = rig.submit(), rig.submit()
    rig.started(over, runs)
    rig.over(over)
    rig.turn()
    return rig


def digests(rig: Rig) -> list[int]:
    """Where entries carry one, in the store's list."""
    return [at for at, commit in enumerate(rig.commits()) if "digest" in commit.extra]


def falsify(rig: Rig, at: int, **extra: object) -> str:
    """Another digest in an entry's header, as of a worker with another state; the entry's id."""
    entries = rig.server.tables.journals["/"]
    entry = entries[at]
    parts = unpack(entry.header)
    parts[7] = {**parts[7], "digest": b"x" * 16, **extra}
    entries[at] = entry._replace(header=b"\x99" + pack(parts[:8])[1:] + b"\xb0" + entry.header[-16:])
    return str(entry.id)


def test_who_begins_on_the_same_state_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, seen = played(), list[int]()
    monkeypatch.setattr(agreement, "agreed", lambda state, commit: seen.append(commit.version))
    load_agreed(Journal(rig.store))
    monkeypatch.undo()
    assert len(seen) == rig.store.meta().version
    assert load_agreed(Journal(rig.store)).digest() == rig.state.digest()
    assert len(digests(rig)) > 3


@pytest.mark.parametrize("which", [1, -1])
def test_who_begins_on_another_state_stops(which: int) -> None:
    rig = played()
    id = falsify(rig, digests(rig)[which])
    with pytest.raises(Corrupt, match=f"version {id} was decided on another state") as caught:
        load_agreed(Journal(rig.store))
    assert caught.value.code == "digest"
    assert Journal(rig.store).load().version == rig.store.meta().version, "who only looks is told by replay and verify"


def test_a_standby_that_differs_stops() -> None:
    rig = played()
    standby = rig.new_worker("worker-1")
    one = rig.submit()
    rig.started(one)
    followed = rig.store.read(standby.state.version)
    twin = rig.new_worker("worker-2")  # would have the whole history
    assert twin.state.digest() == rig.state.digest()
    standby.state.jobs[1].urgency = 3  # as by a mistake in the fold
    standby.state.dirty_jobs.add(1)
    with pytest.raises(Corrupt, match="was decided on another state"):
        standby.step(rig.now, [Entries(followed)])


def test_a_standby_that_agrees_follows() -> None:
    rig = played()
    standby = rig.new_worker("worker-1")
    rig.started(rig.submit())
    standby.step(rig.now, [Entries(rig.store.read(standby.state.version))])
    assert standby.state.digest() == rig.state.digest()


def test_digests_of_another_schema_and_of_who_read_a_lost_entry_tell_nothing() -> None:
    rig = played()
    falsify(rig, digests(rig)[-1], schema=SCHEMA - 1)
    load_agreed(Journal(rig.store))
    rig = played()
    at = digests(rig)[0]
    entries = rig.server.tables.journals["/"]
    entries[at] = entries[at]._replace(payload=b"\x00torn")
    lost = entries[at].version
    with pytest.raises(Corrupt, match=str(lost)):
        load_agreed(Journal(rig.store))
    set_entry_aside(Journal(rig.store, by="cli"), lost, "bad disk", 1)
    state = load_agreed(Journal(rig.store))
    assert state.version == rig.store.meta().version


def test_comparing_hides_no_change_of_a_node_from_whoever_plans() -> None:
    """Found by seed 210: a leader that folded another's commit did not see that a node had been drained before it."""
    rig = played()
    other = rig.new_worker("worker-1")
    other.step(rig.now, [Lead(True)])
    rig.do(decide.drain(rig.state, [0], "hot", 0, rig.now))
    rig.turn()
    rig.submit()
    commits = [commit for commit in rig.commits() if commit.version > other.state.version]
    assert any("digest" in commit.extra for commit in commits)
    for commit in commits:
        other.state.apply(agreed(other.state, commit))
    assert 0 in other.state.changed_nodes()
    assert other.state.digest() == rig.state.digest()
