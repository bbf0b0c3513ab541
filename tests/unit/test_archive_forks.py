"""An archive beside a server that fails over, loses commits, is adopted: at every moment the history that is read is the true one.

Seeded: each seed is a story of commits, archiving, trims, deaths of the archiver, and fail-overs to a replica that lags.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.archive_check import check_archive
from fluxkv.instances.archiving import Archiver, run
from fluxkv.journal.archive import Archive
from fluxkv.journal.archive_config import ArchiveRules
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.journal.unreadable import subject
from fluxkv.journal.wire import pack_events
from fluxkv.kvs.depot import LocalDepot
from fluxkv.kvs.errors import Corrupt, FluxkvError, Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Entry


class Story:
    """truth: the entries of the history that stands, by version."""

    def __init__(self, seed: int, place: Path) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.server = MemoryServer(lambda: self.now, random.Random(seed))
        self.server.remember = 10_000
        self.store = MemoryStore(self.server)
        self.store.create(durability="strict", origin_ms=1, created=1.0)
        self.place = str(place)
        self.truth: dict[int, Entry] = {}
        self.told: list[str] = []
        self.commit(3)

    def commit(self, count: int) -> None:
        for _ in range(count):
            self.now += self.rng.random()
            journal = Journal(self.store)
            journal.append(Decision([["restart", "instance", self.now, {"n": self.rng.random()}]]), journal.meta.version)
        self.truth.update((entry.version, entry) for entry in self.store.read(max(self.truth, default=0)))

    def archive(self, *, trim: bool, dies: int = 0) -> None:
        rules = ArchiveRules(True, True, after_s=self.rng.choice((0.0, 3.0)), keep_s=0.0, keep_commits=self.rng.randrange(1, 12))
        self.now += 60.0  # whoever died holds it no more
        left = [dies]

        def fault(operation: str, when: str) -> None:
            left[0] -= operation in ("lease", "entries", "trim_journal", "install_snapshot")
            if dies and left[0] <= 0:
                raise Unavailable("the archiver dies here")

        self.server.fault = fault
        try:
            run(Archiver(Journal(self.store), self.place), rules, self.now, all_of_it=self.rng.random() < 0.7, trim=trim)
        except Unavailable:
            assert dies
        finally:
            self.server.fault = None

    def fail_over(self) -> None:
        lost = self.server.fail_over(min(self.rng.randrange(0, 8), self.store.meta().version - 1))  # not the instance itself
        meta = self.store.meta()
        self.truth = {version: entry for version, entry in self.truth.items() if version <= meta.version}
        self.told.append(f"lost {lost} of {meta.version + lost}, trimmed {meta.trimmed}")
        if lost and self.rng.random() < 0.5:  # nobody has taken it up: an archive that knows more must not be cut
            with contextlib.suppress(Corrupt):
                self.archive(trim=False)
        if lost:
            context = {"old": meta.epoch, "lost": [meta.version + 1, meta.version + lost]}
            payload = pack_events([["adopt", "instance", self.now, context]])
            self.store.adopt(meta.uid, meta.epoch, meta.version, (meta.version + 1, meta.version + lost), payload)
        else:
            self.store.open_epoch(meta.uid, meta.epoch, meta.version)
        self.commit(self.rng.randrange(1, 4))

    def check(self) -> None:
        journal = Journal(self.store)
        tip = journal.meta.version
        assert sorted(self.truth) == list(range(1, tip + 1))
        found = journal.history.read(0, 10_000)
        assert found == [self.truth[version] for version in range(1, tip + 1)], self.told
        some = self.rng.sample(range(1, tip + 1), min(5, tip))
        assert journal.history.entries(some) == [self.truth[version] for version in some]
        assert journal.at().digest() == journal.load().digest()


@pytest.mark.parametrize("seed", range(14))
def test_the_history_that_is_read_is_the_true_one(seed: int, tmp_path: Path) -> None:
    story = Story(seed, tmp_path)
    for _ in range(14):
        what = story.rng.random()
        if what < 0.35:
            story.commit(story.rng.randrange(1, 15))
        elif what < 0.75:
            story.archive(trim=story.rng.random() < 0.7, dies=story.rng.choice((0, 0, 0, 1, 2, 3, 5)))
        else:
            story.fail_over()
        story.check()
    story.archive(trim=True)
    story.check()
    journal = Journal(story.store)
    checked = check_archive(Archive(LocalDepot(story.place), journal.meta.uid), journal)
    assert checked.wrong == [], story.told


def test_an_entry_that_is_missing_and_set_aside_stops_no_archive(sample_journal: Any, tmp_path: Path) -> None:
    sample = sample_journal.sample("aside")
    journal, tables = sample.journal, sample.journal.store.server.tables
    gone = next(entry for entry in tables.journals["/"] if entry.version == 86)  # the last commit before a pending job's
    tables.journals["/"].remove(gone)
    with pytest.raises(FluxkvError, match="version 86 is missing"):
        run(Archiver(Journal(journal.store), str(tmp_path)), ArchiveRules(True), sample.clock.now, all_of_it=True)
    fresh = Journal(journal.store)
    events = [["quarantine", subject(86), sample.clock.now, {"reason": "lost"}], ["restart", "instance", sample.clock.now, {}]]
    fresh.append(Decision(events), fresh.meta.version)
    sample.clock.now += 60.0
    rules = ArchiveRules(True, True, after_s=0.0, keep_s=0.0, keep_commits=1)
    done = run(Archiver(Journal(journal.store), str(tmp_path)), rules, sample.clock.now, all_of_it=True, trim=True)
    assert (done.archived, done.trimmed) == ((1, 88), (1, 87))
    fresh = Journal(journal.store)
    assert fresh.at().digest() == fresh.load().digest()
    (marked,) = fresh.history.entries([86])
    assert b"set aside" in marked.payload
