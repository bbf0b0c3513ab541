"""`ops rebuild`: where the entries are read, what cannot be had leaves all as it was, and that the instance goes on from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig

from fluxkv.instances.archiving import Archiver, run
from fluxkv.instances.entry_aside import set_entry_aside
from fluxkv.instances.table_repair import make_tables_anew
from fluxkv.journal.archive_config import ArchiveRules
from fluxkv.journal.job import INACTIVE, RUN, SCHED
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Corrupt, Unavailable

RULES = ArchiveRules(True, True, after_s=0.0, keep_s=0.0, keep_commits=1)


def lose(store: Any) -> None:
    store.delete(store.keys.guards)


def test_what_was_trimmed_is_read_from_the_archive(shell: Any, tmp_path: Path) -> None:
    journal, place = shell.sample.journal, tmp_path / "there"
    shell.out("queue", "disable", "default", "-m", "tests")
    run(Archiver(Journal(journal.store), str(place)), RULES, journal.store.now(), all_of_it=True, trim=True)
    assert len(journal.store.read(0)) == 1
    lose(journal.store)
    os.rename(place, tmp_path / "away")
    before = journal.store.meta()
    with pytest.raises(Unavailable, match="no longer in the server"):
        make_tables_anew(Journal(journal.store))
    assert journal.store.meta() == before
    os.rename(tmp_path / "away", place)
    assert shell("submit", "true")[0] == 4
    assert make_tables_anew(Journal(journal.store, by="cli")) == before.version
    assert make_tables_anew(Journal(journal.store)) == 0
    assert "does not accept jobs" in shell("submit", "true")[2]
    shell.out("queue", "enable", "default")
    shell.out("submit", "true")
    assert "equal to the live state" in shell.out("replay", "--diff", "live")


def with_a_damaged_entry(how: str) -> Rig:
    """An instance with a job; the header of version 2 cannot be read, or the entry is gone."""
    rig = Rig()
    rig.started(rig.submit())
    entries = rig.server.tables.journals["/"]
    if how == "gone":
        del entries[1]
    else:
        entries[1] = entries[1]._replace(header=entries[1].header[:-20])
    return rig


@pytest.mark.parametrize("how", ["header", "gone"])
def test_what_cannot_be_read_leaves_all_as_it_was(how: str) -> None:
    rig = with_a_damaged_entry(how)
    lose(rig.store)
    before = rig.store.meta()
    with pytest.raises(Corrupt) as caught:
        make_tables_anew(Journal(rig.store))
    assert "fluxkv journal salvage" in caught.value.hint
    assert rig.store.meta() == before


@pytest.mark.parametrize("how", ["header", "gone"])
def test_what_an_operator_has_set_aside_is_passed_over(how: str) -> None:
    rig = with_a_damaged_entry(how)
    set_entry_aside(Journal(rig.store, by="cli"), 2, "bad disk", 1)
    lose(rig.store)
    assert make_tables_anew(Journal(rig.store, by="cli")) == rig.store.meta().version - 1


def test_a_worker_goes_on_in_the_new_epoch() -> None:
    """No node is used before it has spoken; what runs there is kept."""
    rig = Rig()
    runs = rig.submit()
    rig.started(runs)
    lose(rig.store)
    assert make_tables_anew(Journal(rig.store, by="cli"))
    rig.lead()
    waits = rig.submit()
    assert (rig.job(runs).state, rig.job(waits).state) == (RUN, SCHED)
    for rank in (0, 1):
        rig.hello(rank, [rig.job(runs).key] if rank in rig.job(runs).ranks else [])
    rig.turn()
    assert (rig.job(runs).state, rig.job(waits).state) == (RUN, RUN)
    rig.over(runs)
    rig.turn()
    assert rig.job(runs).state == INACTIVE
    assert rig.names(runs).count("alloc") == 1


def test_a_loss_that_nobody_has_decided_about_stays_one() -> None:
    """Neither of the two ways out needs the other to be taken first."""
    rig = Rig()
    meta = rig.store.meta()
    rig.store.fence(meta.uid, meta.epoch, f"{meta.version + 3}-{meta.epoch}")
    lose(rig.store)
    with pytest.raises(Corrupt) as caught:
        rig.store.adopt(meta.uid, meta.epoch, meta.version, (meta.version + 1, meta.version + 3), b"0adopted")
    assert "fluxkv ops rebuild" in caught.value.hint
    assert make_tables_anew(Journal(rig.store, by="cli")) == meta.version
    after = rig.store.meta()
    assert (after.version, after.fork) == (meta.version, f"{meta.version + 3}-{meta.epoch}")
    rig.store.adopt(after.uid, after.epoch, after.version, (meta.version + 1, meta.version + 3), b"0adopted")
    assert rig.store.meta().fork == ""
