"""Archive, trim and reading across the boundary, on the sample history: nothing is lost, whatever dies, and nothing spliced in."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.archiving import Archiver, Done, run
from fluxkv.journal import decide_records
from fluxkv.journal.archive import Archive
from fluxkv.journal.archive_config import ArchiveRules, archive_rules
from fluxkv.journal.blob_refs import names_in
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.journal.segment import check_whole, decode, encode, link_of
from fluxkv.kvs import bounded
from fluxkv.kvs.blobs import blob_name
from fluxkv.kvs.depot import FsspecDepot, LocalDepot, ZipDepot, open_depot
from fluxkv.kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Appended

RULES = ArchiveRules(True, True, after_s=0.0, keep_s=0.0, keep_commits=1)


def archive(journal: Journal, url: str, rules: ArchiveRules = RULES, *, trim: bool = True, **options: Any) -> Done:
    """One run over all of the journal."""
    return run(Archiver(Journal(journal.store), url, **options), rules, journal.store.now(), all_of_it=True, trim=trim)


def say(journal: Journal, count: int = 1) -> None:
    """Commits that change little."""
    for _ in range(count):
        fresh = Journal(journal.store)
        done = fresh.append(Decision([["restart", "instance", journal.store.now(), {}]]), fresh.meta.version)
        assert isinstance(done, Appended)


LOOKING: tuple[tuple[str, ...], ...] = (
    ("jobs", "-a", "-o", "{id} {name} {t_inactive!D} {inactive_reason}"), ("jobs", "-a", "--at", "30"),
    ("jobs", "--at", "60", "-A"), ("job", "eventlog", "a"), ("job", "eventlog", "h", "-f", "json"), ("job", "info", "b", "jobspec"),
    ("job", "info", "e", "R"), ("inspect", "job", "g"), ("inspect", "node", "0"), ("inspect", "node", "1"), ("journal", "show"),
    ("journal", "show", "--after", "3", "--until", "6"), ("journal", "show", "--job", "c"), ("journal", "export"),
    ("journal", "export", "--after", "40"), ("journal", "verify"), ("resource", "eventlog"), ("kvs", "get", "big"),
    ("kvs", "get", "conf.old", "--at", "-30s"), ("replay", "--json"), ("replay", "--until", "33", "--json"),
    ("replay", "--diff", "live", "--json"), ("journal", "follow", "--after", "0", "-n", "50"),
)  # fmt: skip


def looked(shell: Any, words: tuple[str, ...]) -> Any:
    typed = [shell.id(word) if len(word) == 1 and word in shell.ids and word not in "-" else word for word in words]
    status, text, error = shell(*typed)
    if words[0] == "replay":
        document = json.loads(text)
        return status, {key: document[key] for key in document if not key.endswith(("seconds", "per_s"))}
    return status, text, error


def test_everything_is_answered_as_before(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    journal.save_snapshot(journal.at(80))
    before = {words: looked(shell, words) for words in LOOKING}
    assert [words for words, found in before.items() if found[0]] == [("kvs", "get", "conf.old", "--at", "-30s")]
    text = shell.out("journal", "archive", "--now", "--trim", "--keep", "0", "--keep-commits", "1", "--url", str(tmp_path))
    assert text.splitlines()[0].startswith(f"versions 1 to 87 archived in {tmp_path} (1 segments, ")
    assert text.splitlines()[1] == "versions 1 to 86 taken out of the server"
    assert [entry.version for entry in journal.store.read(0)] == [87]
    after = {words: looked(shell, words) for words in LOOKING}
    snapshot = after.pop(("journal", "verify"))
    assert "snapshot of version 87 agrees, archive of versions 1 to 87 in 1 segments, 1 blobs: sound" in snapshot[1]
    before.pop(("journal", "verify"))
    for words, found in before.items():
        assert after[words] == found, words


def test_what_cannot_be_read_is_archived_as_it_is_and_said(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    journal.save_snapshot(journal.at(80))  # nobody is stopped by it
    entries = journal.store.server.tables.journals["/"]
    payload = bytearray(entries[20].payload)
    payload[5] ^= 1
    entries[20] = entries[20]._replace(payload=bytes(payload))
    status, text, error = shell("journal", "archive", "--now", "--url", str(tmp_path))
    assert (status, text.startswith("versions 1 to 87 archived")) == (0, True)
    assert error == "fluxkv: warning: version 21 cannot be read, and is archived as it is: fluxkv journal verify\n"
    assert json.loads(shell.out("journal", "archive", "--now", "--json", "--url", str(tmp_path)))["unreadable"] == []


def test_what_is_there_without_the_archive(shell: Any, tmp_path: Path) -> None:
    journal, place = shell.sample.journal, tmp_path / "there"
    assert archive(journal, str(place)).trimmed == (1, 86)
    say(journal, 2)
    os.rename(place, tmp_path / "away")
    live = shell.out("jobs", "-a")  # what is in the state needs no archive
    assert len(live.splitlines()) == 15
    shell.out("submit", "--dry-run", "true")
    assert shell.out("journal", "show", "-n", "2").count("restart") == 2
    for words in (("replay",), ("job", "eventlog", shell.id("a")), ("jobs", "-a", "--at", "30"), ("journal", "export")):
        status, _, error = shell(*words)
        assert status == 3, words
        assert "no longer in the server, and the archive " + str(place) + " has no history of this instance" in error
        assert error.startswith(("version ", "versions ")), error
    status, _, error = shell("replay")
    assert error.startswith("versions 1 to ")
    shell.env["FLUXKV_ARCHIVE"] = str(tmp_path / "away")  # it has moved
    shell.out("replay")
    del shell.env["FLUXKV_ARCHIVE"]
    status, text, error = shell("journal", "archive", "--now")
    assert status == 3, (text, error)
    assert "no longer in the server" in error
    os.rename(tmp_path / "away", place)
    assert "versions 88 to 89 archived" in shell.out("journal", "archive", "--now")


def test_retired_jobs_are_found_at_any_age(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    listed = shell.out("jobs", "-a", "-o", "{id} {name} {result}")
    told = shell.out("job", "eventlog", shell.id("b"))
    now = journal.store.now()
    ended = [shell.ids[letter] for letter in "abcdefgh"]
    assert isinstance(journal.append(decide_records.purge(journal.look(), ended, now), journal.store.meta().version), Appended)
    say(journal, 5)
    assert archive(journal, str(tmp_path)).trimmed == (1, 92)
    fresh = Journal(journal.store)
    assert [job.id for job in fresh.known_jobs(fresh.look(), ended)] == ended
    assert shell.out("jobs", "-a", "-o", "{id} {name} {result}") == listed
    assert shell.out("job", "eventlog", shell.id("b")) == told


def test_an_environment_of_old_is_found_in_the_archive(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    big = blob_name(b"x" * 3000)
    assert archive(journal, str(tmp_path)).blobs == 1
    journal.store.delete(journal.store.keys.blobs)
    assert Journal(journal.store).history.blobs([big, "0" * 40]) == [b"x" * 3000, None]


# -- small steps ------------------------------------------------------------------------------------------------------


def test_a_little_at_a_time_makes_the_same_history(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    entries = journal.store.read(0)
    for step in range(3):
        done = archive(journal, str(tmp_path), trim=step == 1)
        assert done.archived == ((1, 87), (88, 89), (90, 91))[step]
        say(journal, 2)
    found = Archive(LocalDepot(str(tmp_path)), journal.meta.uid)
    (part,) = found.load().parts  # small ones at the end are written anew
    assert (part.first, part.last) == (1, 91)
    assert found.read(0, 87, 91) == entries
    assert len(list(tmp_path.glob("*/segments/*"))) == 2  # and the one of the manifest before
    link = bytes(16)
    for entry in found.read(0, 1000, 91):
        link = link_of(link, entry)
    assert link == part.after


def test_dry_run_changes_nothing(shell: Any, tmp_path: Path) -> None:
    text = shell.out(
        "journal", "archive", "--now", "--trim", "--keep", "0", "--dry-run", "--keep-commits", "7", "--url", str(tmp_path)
    )
    assert text == (
        f"versions 1 to 87 would be archived in {tmp_path}\nversions 1 to 80 would be taken out of the server\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert shell.sample.journal.store.meta().first == 1


def test_what_is_recent_stays(shell: Any, tmp_path: Path) -> None:
    journal, clock = shell.sample.journal, shell.sample.clock
    rules = ArchiveRules(True, True, after_s=20.0, keep_s=40.0, keep_commits=1)
    done = run(Archiver(Journal(journal.store), str(tmp_path)), rules, clock.now, trim=True)
    times = [commit.time for commit in journal.commits()]
    assert done.archived == (1, sum(time <= clock.now - 20 for time in times))
    assert done.trimmed == (1, sum(time <= clock.now - 40 for time in times))
    done = run(Archiver(Journal(journal.store), str(tmp_path)), rules, clock.now, trim=True)
    assert (done.archived, done.trimmed) == (None, None)
    assert done.kept_why


# -- what goes wrong --------------------------------------------------------------------------------------------------


class Dies(Exception):
    """The process ends here."""


class Fragile(LocalDepot):
    """Dies before or in the middle of the `fatal`-th change; a torn scratch file may stay, as the kernel leaves it."""

    fatal = changes = 0

    def put(self, name: str, data: bytes) -> None:
        Fragile.changes += 1
        if Fragile.changes == Fragile.fatal:
            path = Path(self.path, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / f".new-1-{path.name}").write_bytes(data[: len(data) // 2])
            raise Dies
        super().put(name, data)
        Fragile.changes += 1
        if Fragile.changes == Fragile.fatal:
            raise Dies

    def delete(self, name: str) -> None:
        Fragile.changes += 1
        if Fragile.changes == Fragile.fatal:
            raise Dies
        super().delete(name)


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "depot", lambda self, url, to_read=False: Fragile(url))
    Fragile.fatal = 0


def test_a_death_at_any_moment_loses_nothing(sample_journal: Any, fragile: None, tmp_path: Path) -> None:
    """Killed before, in and after each write, and before and after each step of the server: the next run mends it."""
    for fatal in range(1, 40):
        sample = sample_journal.sample(f"dies-{fatal}")
        journal, server, place = sample.journal, sample.journal.store.server, str(tmp_path / str(fatal))
        entries = {entry.version: entry for entry in journal.store.read(0)}
        archive(journal, place, RULES, trim=False)
        say(journal, 2)
        entries |= {entry.version: entry for entry in journal.store.read(0)}
        Fragile.changes, Fragile.fatal = 0, fatal

        def fault(operation: str, when: str, fatal: int = fatal) -> None:
            if operation in ("trim_journal", "install_snapshot"):
                Fragile.changes += 1
                if Fragile.changes == fatal:
                    raise Dies

        server.fault = fault
        died = False
        try:
            archive(journal, place)
        except Dies:
            died = True
        server.fault, Fragile.fatal = None, 0
        fresh = Journal(journal.store)
        assert [entries[n].id for n in range(1, 90)] == [commit.id for commit in fresh.commits()]
        server.clock.now += 200  # the lease of who died
        done = archive(journal, place)
        assert done.trimmed is not None or done.kept_why
        assert fresh.store.meta().first == 89
        assert fresh.history.read(0, 1000) == [entries[n] for n in range(1, 90)]
        assert len(list(Path(place).glob("*/segments/[0-9]*"))) <= 3  # one may be left that no manifest names
        if not died:
            assert fatal > 8
            return
    pytest.fail("it never came to its end")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_nothing_is_trimmed_that_does_not_read_back(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    archive(journal, str(tmp_path), trim=False)
    (file,) = tmp_path.glob("*/segments/*")
    whole = file.read_bytes()
    for at in (3, 40, 300, len(whole) // 2, len(whole) - 1):
        flip(file, at)
        with pytest.raises(Corrupt, match="does not hold what its name promises"):
            archive(journal, str(tmp_path))
        assert journal.store.meta().first == 1
        file.write_bytes(whole)
    file.unlink()
    with pytest.raises(FluxkvError):
        archive(journal, str(tmp_path))
    assert journal.store.meta().first == 1


def test_a_damaged_segment_is_noticed_at_the_first_read(shell: Any, tmp_path: Path) -> None:
    archive(shell.sample.journal, str(tmp_path))
    (file,) = tmp_path.glob("*/segments/*")
    flip(file, 2000)
    status, _, error = shell("replay")
    assert status == 4
    assert file.name in error


def test_verify_looks_through_the_archive(shell: Any, tmp_path: Path) -> None:
    """Every file of it: a flipped byte anywhere in a segment or a blob, one that is gone, and one that nobody knows."""
    journal = shell.sample.journal
    archive(journal, str(tmp_path))
    rng = random.Random(4)
    for file in sorted(file for file in tmp_path.glob("**/*") if file.is_file() and "previous" not in file.name):
        whole = file.read_bytes()
        for at in sorted(rng.randrange(len(whole)) for _ in range(8)):
            flip(file, at)
            status, text, error = shell("journal", "verify")
            assert status in (1, 4), (file.name, at, text, error)
            assert "FAULT" in text or error
            file.write_bytes(whole)
        file.unlink()
        status, text, error = shell("journal", "verify", "--json")
        assert (status, json.loads(text)["sound"]) == (1, False) or "/blobs/" in str(file), (file, text)
        file.write_bytes(whole)
    (tmp_path / journal.meta.uid / "segments" / "1-2.abc").write_bytes(b"")
    assert json.loads(shell.out("journal", "verify", "--json"))["archive"]["unnamed"] == [f"{journal.meta.uid}/segments/1-2.abc"]


@pytest.mark.parametrize("broken", ["byte", "torn", "empty", "gone"])
def test_a_torn_manifest_is_noticed_or_the_one_before_is_taken(shell: Any, tmp_path: Path, broken: str) -> None:
    journal = shell.sample.journal
    archive(journal, str(tmp_path), trim=False)
    say(journal)
    archive(journal, str(tmp_path), trim=False)
    (file,) = tmp_path.glob("*/manifest.json")
    data = file.read_bytes()
    file.write_bytes({"byte": data.replace(b"1", b"2", 1), "torn": data[:100], "empty": b"", "gone": b""}[broken])
    if broken == "gone":
        file.unlink()
    assert archive(journal, str(tmp_path)).trimmed == (1, 87)
    shell.out("replay")


def test_one_at_a_time(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    with pytest.raises(FluxkvError, match="nosuch"), Archiver(Journal(journal.store), "nosuch://x"):
        pass  # it fails, and holds up nobody
    with Archiver(Journal(journal.store), str(tmp_path)):
        status, _, error = shell("journal", "archive", "--now", "--url", str(tmp_path))
        assert status == 3
        assert "archived by another process" in error
    shell.out("journal", "archive", "--now", "--url", str(tmp_path))


# -- lost branches (HAZARD 19) ----------------------------------------------------------------------------------------


def forked(journal: Journal, back: Any, lost: int, new: int) -> None:
    """The server is put back to what it was `lost` commits ago, and goes on from there under another epoch."""
    say(journal, lost)
    journal.store.server.put_back(back)
    meta = journal.store.meta()
    journal.store.open_epoch(meta.uid, meta.epoch, meta.version)
    say(journal, new)


@pytest.mark.parametrize(("lost", "new"), [(3, 1), (3, 3), (3, 9), (1, 1)])
def test_a_lost_branch_in_the_archive_is_set_aside(shell: Any, tmp_path: Path, lost: int, new: int) -> None:
    journal = shell.sample.journal
    server = journal.store.server
    archive(journal, str(tmp_path), trim=False)
    say(journal, 2)
    back = server.copy_tables()
    say(journal, lost)
    archive(journal, str(tmp_path), trim=False)  # the suffix that is about to be lost is archived
    server.put_back(back)
    with pytest.raises(Corrupt, match=f"the server has lost versions 90 to {89 + lost}"):
        archive(journal, str(tmp_path))  # nobody has taken this history up: it may come back
    meta = journal.store.meta()
    journal.store.open_epoch(meta.uid, meta.epoch, meta.version)
    say(journal, new)
    truth = journal.store.read(0)
    done = archive(journal, str(tmp_path))
    assert done.lost == (90, 89 + lost)
    found = Archive(LocalDepot(str(tmp_path)), meta.uid)
    manifest = found.load()
    assert found.read(0, 1000, manifest.last) == truth
    assert [part.last for part in manifest.lost] == [89 + lost]
    assert Path(tmp_path, meta.uid, manifest.lost[0].name).exists()  # for whoever wants to look at it
    assert Journal(journal.store).history.read(0, 1000) == truth
    assert "sound" in shell.out("journal", "verify")


def test_a_segment_of_a_lost_branch_fits_nowhere(shell: Any, tmp_path: Path) -> None:
    """Put in place of the true one, with a name, a manifest and a checksum of its own: its links are of another history."""
    journal = shell.sample.journal
    back = journal.store.server.copy_tables()
    forked(journal, back, 5, 5)
    ours = journal.store.read(0)
    journal.store.server.put_back(back)
    say(journal, 5)
    theirs = journal.store.read(0)
    assert [entry.version for entry in ours] == [entry.version for entry in theirs]
    uid, place = journal.meta.uid, Archive(LocalDepot(str(tmp_path)), journal.meta.uid)
    first, data = encode(uid, ours[:89], bytes(16))
    check_whole(decode(first.name, data))
    second, _ = encode(uid, ours[89:], first.after)
    other_first, _ = encode(uid, theirs[:89], bytes(16))
    other, _ = encode(uid, theirs[89:], other_first.after)
    place.save(place.manifest.added([first, second]))
    with pytest.raises(Corrupt, match="of another history"):
        place.save(place.manifest.added([other], 1))


def test_the_seam_is_checked(shell: Any, tmp_path: Path) -> None:
    """An archive whose end is another branch's entry than the one that was trimmed."""
    journal = shell.sample.journal
    archive(journal, str(tmp_path / "a"))
    entries = Archive(LocalDepot(str(tmp_path / "a")), journal.meta.uid)
    entries.load()
    history = entries.read(0, 1000, 87)
    forged = [*history[:85], history[85]._replace(epoch=1), *history[86:]]
    wrong = Archive(LocalDepot(str(tmp_path / "b")), journal.meta.uid)
    wrong.add(forged)
    shutil.rmtree(tmp_path / "a")
    shutil.move(tmp_path / "b", tmp_path / "a")
    status, _, error = shell("replay")
    assert (status, "of another history" in error) == (4, True), error


def test_another_instance_s_archive_is_not_ours(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    archive(journal, str(tmp_path))
    stranger = Archive(LocalDepot(str(tmp_path)), "0" * 24)
    assert stranger.load().parts == ()
    shutil.copytree(tmp_path / journal.meta.uid, tmp_path / ("0" * 24))
    with pytest.raises(Corrupt, match="is of the instance"):
        stranger.load()


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "file", "memory"])
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        pytest.importorskip("fsspec")
        yield open_depot(f"memory://{tmp_path.name}/deep")
    else:
        yield open_depot(f"{'file://' if request.param == 'file' else ''}{tmp_path}/deep")


def test_a_depot_keeps_files(depot: Any) -> None:
    assert depot.names() == []
    assert depot.get("a/b") is None
    assert not depot.has("a/b")
    depot.delete("a/b")
    depot.put("a/b", b"one")
    depot.put("a/b", b"two")
    depot.put("c", b"")
    assert (depot.get("a/b"), depot.get("c")) == (b"two", b"")
    assert depot.names() == ["a/b", "c"]
    assert depot.names("a") == ["a/b"]
    assert depot.has("a/b")
    depot.delete("a/b")
    assert depot.names() == ["c"]


def test_a_place_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named pipe that nobody writes to stands for a file of a network file system whose server is away."""
    monkeypatch.setattr(bounded, "STILL_S", 0.05)
    monkeypatch.setattr(bounded, "_silent", {})
    LocalDepot(str(tmp_path)).put("a/sound", b"one")
    os.mkfifo(tmp_path / "a/hangs")
    depot = open_depot(str(tmp_path), to_read=True)
    assert (depot.get("a/sound"), depot.get("a/none"), depot.has("a/sound")) == (b"one", None, True)
    assert depot.names() == ["a/hangs", "a/sound"]
    for name in ("a/hangs", "a/sound"):  # the place is asked no more
        with pytest.raises(Unavailable, match="does not answer"):
            depot.get(name)
    assert open_depot(str(tmp_path)).get("a/sound") == b"one", "who writes waits"
    reader = next(one for one in threading.enumerate() if one.name == f"read {tmp_path}")
    with open(tmp_path / "a/hangs", "wb", buffering=0) as pipe:
        pipe.write(b"x")
    reader.join(10.0)
    monkeypatch.setattr(bounded, "SILENT_S", 0.0)
    assert depot.get("a/sound") == b"one", "after a while it is"


def test_reads_that_hang_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "STILL_S", 0.01)
    monkeypatch.setattr(bounded, "SILENT_S", 0.0)
    over, place = threading.Event(), str(tmp_path)
    try:
        for _ in range(2 * bounded.STUCK):
            with pytest.raises(Unavailable, match="does not answer"):
                bounded.within(place, lambda move: over.wait())
        left = [one for one in threading.enumerate() if one.name == f"read {place}"]
        assert len(left) == bounded.STUCK
    finally:
        over.set()
    for one in left:
        one.join(10.0)
    monkeypatch.setattr(bounded, "STILL_S", 10.0)
    assert bounded.is_dir(place, place), "they have come back"


def test_a_file_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So one that is large, or slow to come, is none that hangs."""
    monkeypatch.setattr(bounded, "CHUNK", 100)
    LocalDepot(str(tmp_path)).put("large", bytes(range(250)) * 4)
    moves: list[bytes] = []
    monkeypatch.setattr(bounded, "within", lambda place, work: work(lambda: moves.append(b"")))
    assert bounded.read_file("x", str(tmp_path / "large")) == bytes(range(250)) * 4
    assert len(moves) == 10
    with pytest.raises(IsADirectoryError):
        bounded.read_file("x", str(tmp_path))


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    host, dead = os.uname().nodename, 2**22 + 1  # no kernel gives it
    old, ours, theirs, gone, stranger = (
        tmp_path / "a" / name for name in
        (".new-17-x", f".new-{os.getpid()}@{host}-x", f".new-{dead}@elsewhere-x", f".new-{dead}@{host}-x", "x.new-1")
    )  # fmt: skip
    (tmp_path / "a").mkdir()
    for file in (old, ours, theirs, gone, stranger):
        file.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    LocalDepot(str(tmp_path)).put("a/b", b"whole")
    assert sorted(tmp_path.glob("a/*")) == sorted([ours, theirs, stranger, tmp_path / "a/b"])


def test_an_archive_anywhere(shell: Any, depot: Any) -> None:
    before = shell.out("journal", "export")
    assert archive(shell.sample.journal, depot.url).trimmed == (1, 86)
    assert shell.out("journal", "export") == before


def test_places_that_are_none(tmp_path: Path) -> None:
    for url in ("", "a\nb"):
        with pytest.raises(Rejected, match="bad archive address"):
            open_depot(url)
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="can not be written"):
        open_depot(str(tmp_path / "file")).put("a", b"")
    with pytest.raises(FluxkvError, match="nosuch"):
        open_depot("nosuch://x").get("a")
    (tmp_path / "x.zip").write_text("no zip")
    for wrong in ("x.zip", "y.zip"):
        with pytest.raises(Unavailable, match="archive"):
            open_depot(str(tmp_path / wrong)).names()
    assert isinstance(open_depot("x.zip"), ZipDepot)
    assert isinstance(open_depot("s3://bucket/x"), FsspecDepot)  # touches nothing yet


def test_moving_to_another_place(shell: Any, tmp_path: Path) -> None:
    """Another URL: all of the history goes there, out of the old archive, and that is where it is read from."""
    journal = shell.sample.journal
    before = shell.out("journal", "export")
    archive(journal, str(tmp_path / "one"))
    say(journal)
    done = archive(journal, str(tmp_path / "two"))
    assert (done.archived, done.trimmed) == ((1, 88), (87, 87))
    assert journal.store.meta().archive == str(tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    assert shell.out("journal", "export").startswith(before)


# -- config, names ----------------------------------------------------------------------------------------------------


def test_config() -> None:
    assert not archive_rules({}).on
    rules = archive_rules({"archive": {"url": "/srv/x", "after": "1h"}, "retention": {"keep": "2d", "keep-commits": 5}})
    assert rules == ArchiveRules(True, True, "/srv/x", 3600.0, 600.0, 172_800.0, 5)
    assert rules.keep_children_s == 3600.0
    assert archive_rules({"retention": {"keep-children": "2d"}}) == ArchiveRules(keep_children_s=172_800.0)
    assert archive_rules({"retention": {"keep-children": "inf"}}).keep_children_s == float("inf")
    assert archive_rules({"archive": {}}) == ArchiveRules(True, False)
    for wrong, said in (
        ({"archive": 1}, "must be a table"), ({"archive": {"uri": "x"}}, "is no key"), ({"archive": {"url": "x"}}, "whole path"),
        ({"retention": {"keep": "soon"}}, "retention.keep is not valid"), ({"retention": {"keep-commits": 0}}, "from 1 on"),
        ({"archive": {"every": "1ms"}}, "at least 1 s"), ({"retention": {"keep-commits": True}}, "from 1 on"),
        ({"archive": {"url": 3}}, "a directory or a URL"), ({"archive": {"url": "memory://x"}}, "names memory"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=said):
            archive_rules(wrong)


def test_names_of_blobs_are_found_wherever_they_stand() -> None:
    rng = random.Random(1)
    names = [blob_name(rng.randbytes(8)) for _ in range(50)]
    for before in (b"", b"d9(", b"blake2b-", bytes([0xD9, 0x61]), b"f" * 30):
        assert set(names) <= names_in(b"\x00".join(before + name.encode() + b"ab" for name in names))
    assert names_in(b"abc " + b"A" * 40 + names[0][:39].encode()) == set()




def test_an_older_copy_of_the_archive_is_no_end_of_history(shell: Any, tmp_path: Path) -> None:
    """Somebody puts back a copy from before while a long-lived reader has it open."""
    journal, place = shell.sample.journal, tmp_path / "there"
    archive(journal, str(place), trim=False)
    older = tmp_path / "older"
    shutil.copytree(place, older)
    say(journal, 30)
    assert archive(journal, str(place)).trimmed == (1, 116)
    reader = Journal(journal.store)
    assert len(reader.history.read(0, 500)) == 117
    shutil.rmtree(place)
    os.rename(older, place)
    opened = reader.history._archive
    assert opened is not None
    opened.load()
    for after in (50, 87, 100):
        with pytest.raises(Unavailable, match="no longer in the server"):
            reader.history.read(after, 500)
    assert reader.history.read(10, 5)[-1].version == 15
