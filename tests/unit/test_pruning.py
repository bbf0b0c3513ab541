"""Archives made smaller: small segments joined, old history deleted, and what is known of each job for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import archiving
from fluxkv.instances.archiving import Archiver, run
from fluxkv.instances.pruning import compact, prune
from fluxkv.journal import decide_records
from fluxkv.journal.archive import Archive
from fluxkv.journal.archive_config import ArchiveRules
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.kvs.depot import LocalDepot
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.kvs.port import Appended

RULES = ArchiveRules(True, True, after_s=0.0, keep_s=0.0, keep_commits=1)


def archive(journal: Journal, place: Path, *, trim: bool = True) -> None:
    run(Archiver(Journal(journal.store), str(place)), RULES, journal.store.now(), all_of_it=True, trim=trim)


def say(journal: Journal, count: int = 1) -> None:
    for _ in range(count):
        fresh = Journal(journal.store)
        fresh.append(Decision([["restart", "instance", journal.store.now(), {}]]), fresh.meta.version)


def files(place: Path) -> set[str]:
    return {str(file.relative_to(place)).partition("/")[2] for file in place.glob("**/*") if file.is_file()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run makes a segment of its own."""
    monkeypatch.setattr(archiving, "SMALL_BYTES", 0)


def opened(journal: Journal, place: Path) -> Archive:
    found = Archive(LocalDepot(str(place)), journal.meta.uid)
    found.load()
    return found


def test_small_segments_are_joined(shell: Any, small: None, tmp_path: Path) -> None:
    journal = shell.sample.journal
    before = shell.out("journal", "export")
    for _ in range(5):
        archive(journal, tmp_path)
        say(journal, 3)
    assert len(opened(journal, tmp_path).manifest.parts) == 5
    (tmp_path / journal.meta.uid / "segments" / "1-2.abc").write_bytes(b"left by a death")
    link = opened(journal, tmp_path).manifest.link
    text = shell.out("journal", "compact", "--dry-run")
    assert text == f"{tmp_path}/{journal.meta.uid}: 5 segments, 1 would be left; 6 unnamed files would be removed\n"
    assert len(opened(journal, tmp_path).manifest.parts) == 5
    shell.out("journal", "compact")
    found = opened(journal, tmp_path)
    assert [(part.first, part.last) for part in found.manifest.parts] == [(1, 99)]
    assert found.manifest.link == link
    assert len([name for name in files(tmp_path) if name.startswith("segments/")]) == 1
    assert shell.out("journal", "export").startswith(before)
    assert "sound" in shell.out("journal", "verify")
    assert "1 segments, 1 left; 0 unnamed" in shell.out("journal", "compact")


def retire(shell: Any, letters: str) -> None:
    journal = shell.sample.journal
    ids = [shell.ids[letter] for letter in letters]
    decision = decide_records.purge(journal.look(), ids, journal.store.now())
    assert isinstance(Journal(journal.store).append(decision, journal.store.meta().version), Appended)


def test_pruned_history_is_gone_and_jobs_are_known(shell: Any, small: None, tmp_path: Path) -> None:
    journal = shell.sample.journal
    archive(journal, tmp_path)
    retire(shell, "abcd")
    say(journal, 5)
    archive(journal, tmp_path)
    retire(shell, "ef")
    say(journal, 2)
    archive(journal, tmp_path)
    listed = shell.out("jobs", "-a", "-o", "{id} {name} {result} {t_inactive}")
    states = {version: journal.at(version).digest() for version in (90, 91, 95)}
    tip = journal.store.meta().version
    assert "would be deleted" in shell.out("journal", "prune", "--before", "90", "--dry-run")
    assert len(opened(journal, tmp_path).manifest.parts) == 3
    text = shell.out("journal", "prune", "--before", "90")  # in the middle of the second segment
    assert "89 commits up to version 90 deleted" in text  # the one that retired four jobs is kept
    found = opened(journal, tmp_path)
    assert [(part.first, part.last, part.dropped) for part in found.manifest.parts][:3] == [(1, 87, 87), (88, 90, 2), (91, 93, 0)]
    assert shell.out("jobs", "-a", "-o", "{id} {name} {result} {t_inactive}") == listed
    fresh = Journal(journal.store)
    assert [job.id for job in fresh.known_jobs(fresh.look(), [shell.ids[letter] for letter in "abcdef"])]
    for version, digest in states.items():
        assert fresh.at(version).digest() == digest
    for words in (("jobs", "--at", "50"), ("journal", "show", "--after", "3"), ("replay", "--until", "20")):
        status, _, error = shell(*words)
        assert status == 3, (words, error)
        assert "was pruned from the archive" in error
    assert "equal to the live state" in shell.out("replay", "--diff", "live")
    text = shell.out("journal", "verify")
    assert text.startswith("versions 1 to 90: not folded")
    assert text.endswith("sound\n")
    (thin,) = tmp_path.glob("*/segments/1-87.*")
    assert thin.stat().st_size < 500
    text = shell.out("job", "eventlog", shell.id("a"))
    assert "submit" not in text
    status, _, error = shell("job", "info", shell.id("a"), "jobspec")
    assert (status, "no more in the journal" in error) == (1, True)
    say(journal, 2)
    archive(journal, tmp_path)  # and it goes on
    assert shell.out("journal", "prune", "--before", str(tip)).startswith(f"{tmp_path}/{journal.meta.uid}: ")
    assert fresh.at(tip + 1).version == tip + 1
    assert len([name for name in files(tmp_path) if name.startswith("bases/")]) == 1
    shell.out("journal", "compact")
    assert [(part.first, part.last) for part in opened(journal, tmp_path).manifest.parts][:1] == [(1, tip)]
    assert shell.out("jobs", "-a", "-o", "{id} {name} {result} {t_inactive}") == listed
    status, _, error = shell("journal", "import", str(tmp_path), "--dry-run")
    assert (status, "pruned" in error) == (3, True)


def test_what_is_not_pruned(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    archive(journal, tmp_path, trim=False)
    with pytest.raises(Rejected, match="is still in the server"):
        prune(Archiver(Journal(journal.store), str(tmp_path)), 5)
    archive(journal, tmp_path)
    for wrong in ("0", "1000", "@5"):
        status, _, error = shell("journal", "prune", "--before", wrong)
        assert (status, "versions 1 to 87" in error) == (1, True)


def test_a_damaged_base_is_noticed(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    archive(journal, tmp_path)
    prune(Archiver(Journal(journal.store), str(tmp_path)), 40)
    (base,) = tmp_path.glob("*/bases/*")
    data = base.read_bytes()
    base.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    status, _, error = shell("replay")
    assert (status, "damaged" in error) == (3, True)
    shell.out("jobs")  # what is live needs none of it


def test_compact_drops_lost_branches_when_asked(shell: Any, tmp_path: Path) -> None:
    journal, server = shell.sample.journal, shell.sample.journal.store.server
    back = server.copy_tables()
    say(journal, 3)
    archive(journal, tmp_path, trim=False)
    server.put_back(back)
    meta = journal.store.meta()
    journal.store.open_epoch(meta.uid, meta.epoch, meta.version)
    say(journal, 4)
    archive(journal, tmp_path, trim=False)
    assert len(opened(journal, tmp_path).manifest.lost) == 1
    compact(Archiver(Journal(journal.store), str(tmp_path)))
    assert len(opened(journal, tmp_path).manifest.lost) == 1
    compact(Archiver(Journal(journal.store), str(tmp_path)), drop_lost=True)
    assert len(opened(journal, tmp_path).manifest.lost) == 0
    assert len([name for name in files(tmp_path) if name.startswith("segments/")]) == 1


@pytest.mark.parametrize("what", ["prune", "compact", "add"])
def test_whoever_was_slower_than_its_lease_undoes_nobody_s_work(
    shell: Any, small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    """A place that is slow for half a minute: meanwhile another process archives and trims, and has gone again."""
    journal = shell.sample.journal
    archive(journal, tmp_path)
    say(journal, 3)
    archive(journal, tmp_path)
    say(journal, 3)
    monkeypatch.setattr(archiving, "LEASE_MS", 0.001)
    put, store = LocalDepot.put, journal.store

    def slow(self: LocalDepot, name: str, data: bytes) -> None:
        if "segments" in name:
            monkeypatch.setattr(LocalDepot, "put", put)
            store.server.tables.leases.clear()  # its time is up
            archive(journal, tmp_path)
        put(self, name, data)

    monkeypatch.setattr(LocalDepot, "put", slow)
    ways: dict[str, Callable[[], object]] = {
        "prune": lambda: prune(Archiver(Journal(store), str(tmp_path)), 5),
        "compact": lambda: compact(Archiver(Journal(store), str(tmp_path))),
        "add": lambda: archive(journal, tmp_path),
    }
    with pytest.raises(Unavailable, match="another process") as caught:
        ways[what]()
    assert caught.value.code == "busy"
    assert opened(journal, tmp_path).manifest.last == store.meta().version
    assert shell.out("journal", "verify").endswith("sound\n")
