"""Entries and snapshots that cannot be read: noticed at the first read, never folded past by anybody alone; an operator's word
sets an entry aside, and a damaged snapshot is made anew from the journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances import entry_aside
from fluxkv.instances.archiving import Archiver
from fluxkv.instances.follow import Tail
from fluxkv.instances.hub import Hub
from fluxkv.instances.pruning import prune
from fluxkv.instances.reactor import Entries, Reopened, Snapshot
from fluxkv.instances.submit_rules import SubmitRules
from fluxkv.journal import snapshot
from fluxkv.journal.job import INACTIVE, RUN, SCHED
from fluxkv.journal.log import Journal
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Corrupt, Rejected
from fluxkv.kvs.port import Entry
from fluxkv.tools.doctor_cmd import read_entries
from fluxkv.tools.folding import Fold


def entries(rig: Rig) -> Any:
    return rig.server.tables.journals["/"]


def flip(entry: Entry) -> Entry:
    payload = bytearray(entry.payload)
    payload[len(payload) // 2] ^= 8
    return entry._replace(payload=bytes(payload))


DAMAGE: dict[str, Callable[[Entry], Entry]] = {
    "flipped": flip,
    "torn": lambda entry: entry._replace(payload=entry.payload[:-3]),
    "empty": lambda entry: entry._replace(header=b"", payload=b""),
    "header": lambda entry: entry._replace(header=entry.header[:-20]),
}


def at(rig: Rig, version: int) -> int:
    return next(index for index, entry in enumerate(entries(rig)) if entry.version == version)


def spoil(rig: Rig, version: int, how: str = "flipped") -> None:
    found = entries(rig)
    if how == "gone":
        del found[at(rig, version)]
    else:
        found[at(rig, version)] = DAMAGE[how](found[at(rig, version)])


def played() -> tuple[Rig, dict[str, int]]:
    """A job that is over, one that runs, one that waits, and the versions of some of their events."""
    rig = Rig()
    over, runs, waits = rig.submit(), rig.submit(), rig.submit(jobspec(cores=2, nodes=2))
    rig.over(over)
    rig.started(runs)
    assert (rig.job(over).state, rig.job(runs).state, rig.job(waits).state) == (INACTIVE, RUN, SCHED)
    allocs = {event[1]: commit.version for commit in rig.commits() for event in commit.events if event[0] == "alloc"}
    return rig, {"over": over, "runs": runs, "waits": waits, "alloc": allocs[runs], "submit": rig.job(runs).commits[0]}


@pytest.mark.parametrize("how", [*DAMAGE, "gone"])
def test_nobody_folds_past_it_and_the_error_names_it_and_the_way_out(how: str) -> None:
    rig, known = played()
    version = known["alloc"]
    spoil(rig, version, how)
    for read in (rig.journal.load, rig.journal.look, rig.journal.load_cron, rig.journal.at):
        with pytest.raises(Corrupt, match=str(version)) as caught:
            read()
        assert f"fluxkv journal quarantine {version}" in caught.value.hint
    assert rig.journal.at(version - 1).version == version - 1


@pytest.mark.parametrize("how", [*DAMAGE, "gone"])
@pytest.mark.parametrize("which", ["alloc", "submit"])
def test_set_aside_all_go_on_alike_and_nothing_that_runs_is_sold(how: str, which: str) -> None:
    rig, known = played()
    key = rig.job(known["runs"]).key
    spoil(rig, known[which], how)
    said = entry_aside.set_entry_aside(Journal(rig.store, "cli"), known[which], "", 0)
    assert str(known[which]) in said
    rig.worker = rig.new_worker("worker-1")
    assert rig.state.version == rig.store.meta().version
    assert rig.state.holes == {known[which]}
    assert not any(node.online for node in rig.state.nodes.values())
    assert rig.job(known["over"]).state == INACTIVE
    rig.lead()
    rig.hello(0, held=[key])
    rig.hello(1)
    rig.turn()
    assert ["forget", key] in rig.orders(0)
    assert [node.online for node in rig.state.nodes.values()] == [False, True]  # not sold before it is gone
    assert rig.job(known["waits"]).state == SCHED
    rig.hello(0)
    rig.turn()
    assert rig.job(known["waits"]).state == RUN
    assert known["runs"] not in rig.state.jobs or rig.job(known["runs"]).state == INACTIVE
    assert rig.state.digest() == rig.journal.at().digest() == rig.journal.look().digest()
    assert rig.state.quarantine.table[f"entry/{known[which]}"].what == f"entry {known[which]}"
    head, chunks = snapshot.dump(rig.state)
    assert snapshot.load(snapshot.read_head(head), chunks).digest() == rig.state.digest()


def test_what_can_be_read_is_never_passed_over() -> None:
    rig, known = played()
    journal = Journal(rig.store)
    with pytest.raises(Rejected, match="can be read"):
        entry_aside.set_entry_aside(journal, known["alloc"], "", 0)
    for version in (0, 10_000):
        with pytest.raises(Rejected, match="no version"):
            entry_aside.set_entry_aside(journal, version, "", 0)
    before = rig.state.digest()
    rig.say(["quarantine", f"entry/{known['alloc']}", rig.now, {"version": known["alloc"], "event": "entry", "reason": ""}])
    assert rig.journal.at().jobs[known["runs"]].state == RUN
    assert before != rig.journal.at().digest()  # but it is listed
    rig.say(["quarantine", "entry/9999999", rig.now, {}], ["quarantine", "entry/x", rig.now, {}])
    assert list(rig.journal.at().quarantine.table) == [f"entry/{known['alloc']}"]


def test_said_once() -> None:
    rig, known = played()
    spoil(rig, known["alloc"])
    entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    with pytest.raises(Rejected, match="already"):
        entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)


def test_a_worker_that_had_read_it_begins_anew() -> None:
    """Else it would go on from another state than everybody else."""
    rig, known = played()
    spoil(rig, known["alloc"])
    entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    with pytest.raises(Corrupt, match="set aside"):
        rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version)), Reopened(rig.store.meta())])
    rig.new_worker()


def test_two_holes_and_entries_between() -> None:
    rig, known = played()
    for version in (known["submit"], known["alloc"]):
        spoil(rig, version)
    entry_aside.set_entry_aside(Journal(rig.store), known["submit"], "", 0)
    with pytest.raises(Corrupt, match=str(known["alloc"])):
        Journal(rig.store).load()
    entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    assert Journal(rig.store).load().holes == {known["submit"], known["alloc"]}


def test_whichever_is_met_first() -> None:
    """A job's story may begin with the later of two holes."""
    rig, known = played()
    for version in (known["submit"], known["alloc"]):
        spoil(rig, version)
        entry_aside.set_entry_aside(Journal(rig.store), version, "", 0)
        rig.journal.meta = rig.store.meta()
    later = rig.say(["memo", "kvs", rig.now, None])
    rig.say(["memo", "kvs", rig.now, None])
    spoil(rig, later)
    journal = Journal(rig.store)
    assert not journal.reader.is_aside(later)
    assert journal.reader.is_aside(known["submit"])
    assert journal.reader.is_aside(known["alloc"])


@pytest.mark.parametrize("how", [*DAMAGE, "gone"])
def test_the_doctor_reads_every_entry_also_those_behind_a_snapshot(how: str) -> None:
    rig, known = played()
    tip = rig.state.version
    assert rig.journal.save_snapshot(rig.state)
    assert read_entries(Journal(rig.store), 1, tip) == ("", tip)
    spoil(rig, known["submit"], how)
    wrong, read = read_entries(Journal(rig.store), 1, tip)
    assert str(known["submit"]) in wrong
    assert read == tip - known["submit"]
    assert read_entries(Journal(rig.store), known["submit"] + 1, tip) == ("", read)


def test_verify_and_replay_go_on_from_a_newer_snapshot() -> None:
    """The live state does not rest on the entry; the history before the snapshot cannot be folded, and that is said."""
    rig, known = played()
    spoil(rig, known["alloc"])
    taken = rig.state.version
    assert rig.journal.save_snapshot(rig.state)
    rig.submit()
    assert rig.journal.load().digest() == rig.state.digest()
    warnings: list[str] = []
    rig.journal.warn = warnings.append
    assert rig.journal.at().digest() == rig.state.digest()
    assert f"to {taken} are taken from the snapshot" in warnings[0]
    with pytest.raises(Corrupt, match="checksum"):
        rig.journal.at(known["alloc"])
    for strict in (True, False):
        fold = Fold(rig.journal, strict=strict)
        fold.run()
        assert fold.state.digest() == rig.state.digest()
        assert [(fault.code, fault.entry.split("-")[0]) for fault in fold.all_faults] == [("bad-checksum", str(known["alloc"]))]
        assert fold.passed == [(known["alloc"], taken)]
        assert fold.unreadable == [known["alloc"]]


def test_behind_a_snapshot_it_is_not_set_aside_for_the_fold_would_not_be_the_live_state() -> None:
    rig, known = played()
    spoil(rig, known["alloc"])
    assert rig.journal.save_snapshot(rig.state)
    before = rig.state.version
    with pytest.raises(Rejected, match=f"nobody is stopped by version {known['alloc']}: the snapshot of version {before}"):
        entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    assert rig.store.meta().version == before
    head, chunks = spoiled(*snapshot.dump(rig.state))["flipped"]  # where it is damaged somebody is stopped, and may go on
    rig.store.install_snapshot(rig.journal.meta.uid, rig.journal.meta.epoch, head, chunks)
    entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    assert Journal(rig.store).reader.is_aside(known["alloc"])


def test_digests_of_those_who_had_read_it_are_not_compared() -> None:
    rig, known = played()
    spoil(rig, known["alloc"])
    entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    rig.worker = rig.new_worker("worker-1")
    rig.lead()
    rig.hello(0)
    rig.hello(1)
    rig.turn()
    fold = Fold(Journal(rig.store), strict=True)
    fold.run()
    assert not [fault for fault in fold.all_faults if fault.code == "digest"]
    assert ("unreadable", f"{known['alloc']}-{fold.state.jobs and entries(rig)[0].epoch}") in [
        (fault.code, fault.entry) for fault in fold.aside
    ]  # fmt: skip
    assert fold.unchecked
    assert fold.checked


# -- snapshots -----------------------------------------------------------------------------------------------------


def spoiled(head: bytes, chunks: list[bytes]) -> dict[str, tuple[bytes, list[bytes]]]:
    body = bytearray(chunks[0])
    body[len(body) // 2] ^= 1
    return {
        "flipped": (head, [bytes(body), *chunks[1:]]), "short": (head, [chunks[0][:-5]]), "none": (head, []),
        "head": (head[:-1] + bytes([head[-1] ^ 1]), chunks), "version": (head.replace(b"version", b"versioM"), chunks),
        "no head": (b"", chunks), "half a head": (head[:20], chunks), "no map": (b"\x01", chunks),
    }  # fmt: skip


@pytest.mark.parametrize("how", ["flipped", "short", "none", "head", "version", "no head", "half a head", "no map"])
def test_a_damaged_snapshot_is_as_none_and_made_anew(how: str) -> None:
    rig, _ = played()
    head, chunks = spoiled(*snapshot.dump(rig.state))[how]
    meta = rig.store.meta()
    rig.store.install_snapshot(meta.uid, meta.epoch, head, chunks)
    for read in (Journal.load, Journal.look):
        journal, warnings = Journal(rig.store), list[str]()
        journal.warn = warnings.append
        assert read(journal).digest() == rig.state.digest()
        assert journal.base.damaged is not None
        assert ["folded from its beginning" in text for text in warnings] == [True]
    assert Journal(rig.store).load_cron().version == rig.state.version
    with pytest.raises(Corrupt):
        Journal(rig.store).snapshot()  # verify names it


def test_nothing_to_make_it_anew_from_is_said_exactly() -> None:
    rig, _ = played()
    head, chunks = spoiled(*snapshot.dump(rig.state))["flipped"]
    meta = rig.store.meta()
    rig.store.install_snapshot(meta.uid, meta.epoch, head, chunks)
    del entries(rig)[:2]
    with pytest.raises(Corrupt, match=r"the snapshot of version .* and nothing is left to make it anew: version 1 is missing"):
        Journal(rig.store).load()


def test_a_long_tail_without_a_snapshot_gets_one_at_once() -> None:
    """After an upgrade that cannot use the old one, nobody should have to fold all of it for long."""
    from fluxkv.instances import worker as module

    rig, _ = played()
    rig.worker = rig.new_worker()
    assert rig.worker.snapshot_events == 0
    outputs: list[Any] = []
    old, module.SNAPSHOT_EVENTS = module.SNAPSHOT_EVENTS, 5
    try:
        rig.worker.leading = True
        outputs = rig.worker.step(rig.now, [])
    finally:
        module.SNAPSHOT_EVENTS = old
    assert any(isinstance(one, Snapshot) for one in outputs)
    assert rig.journal.save_snapshot(rig.state)
    assert rig.new_worker().snapshot_events == rig.state.events
    assert State().settled == 0


def test_those_who_follow_go_on_without_it_too() -> None:
    rig, known = played()
    spoil(rig, known["alloc"])
    seen: list[tuple[str, float, dict[str, Any]]] = []

    class Watcher:
        id = known["runs"]

        def take(self, name: str, timestamp: float, context: dict[str, Any]) -> bool:
            seen.append((name, timestamp, context))
            return False

    hub = Hub(rig.store)
    hub.add(Watcher(), 0)
    assert hub.poll()
    assert seen[0][0] == "submit"  # what came before it is handed on
    for _ in range(2):
        with pytest.raises(Corrupt, match=str(known["alloc"])):
            hub.poll()
    entry_aside.set_entry_aside(Journal(rig.store), known["alloc"], "", 0)
    for _ in range(3):
        hub.poll()
    hub.add(late := type("Late", (Watcher,), {})(), 0)
    hub.drop(late)
    names = [name for name, _, _ in seen]
    assert names.count("start") == 2
    assert "alloc" not in names
    tail = Tail(rig.store, 0)
    assert [commit.version for commit in tail.poll()[0]] == list(range(1, rig.store.meta().version + 1))


def test_a_config_that_was_set_aside_holds_up_no_submission() -> None:
    rig = Rig()
    rig.configure({"policy": {"jobspec": {"defaults": {"system": {"duration": "60"}}}}})
    (version,) = rig.store.bumps(["config"])
    spoil(rig, version)
    rules = SubmitRules(rig.store)
    with pytest.raises(Corrupt, match=str(version)):
        rules.learn()
    entry_aside.set_entry_aside(Journal(rig.store), version, "", 0)
    rules.learn()
    assert rules.document == {}


def test_history_with_a_hole_is_archived_trimmed_and_pruned(tmp_path: Path) -> None:
    rig, known = played()
    spoil(rig, known["submit"])
    entry_aside.set_entry_aside(Journal(rig.store), known["submit"], "", 0)
    journal = Journal(rig.store)
    state = journal.load()
    assert journal.save_snapshot(state)
    with Archiver(journal, str(tmp_path)) as archiver:
        archiver.add(state.version)
        archiver.trim(state.version)
    assert rig.store.meta().first > known["submit"] + 1
    pruned = prune(Archiver(journal, str(tmp_path)), known["submit"] + 1)
    assert pruned.entries == known["submit"] + 1
    fresh = Journal(rig.store)
    assert fresh.at().digest() == fresh.load().digest() == state.digest()
