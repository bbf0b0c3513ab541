"""Instances made from histories: exported files, archives, forks, and what can be salvaged of damaged files."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.archiving import Archiver, run
from fluxkv.instances.portable import archived, find_archive, history_of
from fluxkv.instances.rebuild import fold, new_branch, rebuild
from fluxkv.instances.salvage import gather, history
from fluxkv.journal.archive_config import ArchiveRules
from fluxkv.journal.job import RUN
from fluxkv.journal.log import Journal
from fluxkv.journal.restoring import Restoring
from fluxkv.journal.state import State
from fluxkv.journal.wire import read_commit
from fluxkv.kvs import aof
from fluxkv.kvs.errors import Conflict, FluxkvError, Rejected
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.tools.target import open_journal

RULES = ArchiveRules(True, True, after_s=0.0, keep_s=0.0, keep_commits=1)


@pytest.fixture
def there(shell: Any, tmp_path: Path) -> Path:
    """The sample history in a state directory of its own, down."""
    made = rebuild(str(tmp_path / "there"), history_of(shell.sample.journal, 87, {"fake": True, "policy": "fcfs"}), "a test")
    assert made.digest == shell.sample.state.digest().hex()
    return tmp_path / "there"


def entries_in(folder: Path) -> tuple[list[Any], State]:
    with open_journal(state_dir=str(folder)) as journal:
        return journal.history.read(0, 1000), journal.look()


# -- export, import ---------------------------------------------------------------------------------------------------


def test_export_and_import(shell: Any, tmp_path: Path) -> None:
    file, again = tmp_path / "h.zip", tmp_path / "again"
    shell.out("journal", "export", "-f", "zip", "-o", str(file))
    digest = shell.sample.state.digest().hex()
    text = shell.out("journal", "import", str(file), "--dry-run")
    assert text == f"{file}/{shell.sample.journal.meta.uid}: 87 commits, 15 jobs, digest {digest}: sound\n"
    text = shell.out("journal", "import", str(file), "--to", str(again))
    assert re.fullmatch(rf"{again}: instance \w+, version 87, 15 jobs, digest {digest}\nlost, they ran: .*\n", text)
    before = shell.sample.journal.store.read(0)
    entries, state = entries_in(again)
    assert entries[:87] == before
    assert [event[0] for event in events_in(again)[-1]] == ["epoch"]
    assert {id for id, job in state.jobs.items() if job.state & RUN} == {shell.ids["j"], shell.ids["k"]}
    assert shell.out("kvs", "get", "big", "--state-dir", str(again)) == "x" * 3000 + "\n"
    assert "sound" in shell.out("journal", "verify", "--state-dir", str(again))
    assert shell.out("job", "eventlog", "--state-dir", str(again), shell.id("a")) == shell.out("job", "eventlog", shell.id("a"))
    status, _, error = shell("journal", "import", str(file), "--to", str(again))
    assert (status, "is there already" in error) == (1, True)
    assert sorted(os.listdir(tmp_path)) == ["again", "h.zip"]


def test_an_export_replaces_no_pipe_device_or_link(shell: Any, tmp_path: Path) -> None:
    """What is there already and no regular file is written to; else root's -o /dev/null would end that device."""
    pipe, link, got = tmp_path / "pipe", tmp_path / "link", tmp_path / "got.zip"
    os.mkfifo(pipe)
    link.symlink_to("behind.zip")
    with open(got, "wb") as to, subprocess.Popen(["cat", pipe], stdout=to):
        shell.out("journal", "export", "-f", "zip", "-o", str(pipe))
    shell.out("journal", "export", "-f", "zip", "-o", str(link))
    assert (pipe.is_fifo(), os.readlink(link)) == (True, "behind.zip")
    digest = shell.sample.state.digest().hex()
    for file in (got, tmp_path / "behind.zip"):
        assert f"digest {digest}: sound" in shell.out("journal", "import", str(file), "--dry-run")
    status, _, error = shell("journal", "export", "-f", "zip", "-o", str(tmp_path))
    assert (status, "Is a directory" in error) == (1, True)


def events_in(folder: Path) -> list[Any]:
    with open_journal(state_dir=str(folder)) as journal:
        return [commit.events for commit in journal.commits()]


def test_export_of_a_part_and_from_an_archive(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    run(Archiver(Journal(journal.store), str(tmp_path / "a")), RULES, journal.store.now(), all_of_it=True, trim=True)
    digest = journal.at(40).digest().hex()
    shell.out("journal", "export", "-f", "zip", "--until", "40", "-o", str(tmp_path / "h.zip"))
    assert f"40 commits, {len(journal.at(40).jobs)} jobs, digest {digest}" in shell.out(
        "journal", "import", str(tmp_path / "h.zip"), "--dry-run"
    )
    assert fold(archived(str(tmp_path / "a"))).digest() == shell.sample.state.digest()  # an archive is one, too


def test_what_is_no_sound_file(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "h.zip"
    shell.out("journal", "export", "-f", "zip", "-o", str(file))
    whole = file.read_bytes()
    rng = random.Random(5)
    for _ in range(40):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(data))
        try:  # a byte of a blob or of zip's own tables may not matter to what is folded
            state = fold(archived(str(file)))
        except FluxkvError:
            continue
        else:
            assert state.digest() == shell.sample.state.digest()
    for size in (0, 10, len(whole) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(FluxkvError, match=r"h\.zip"):
            archived(str(file))
    with pytest.raises(Rejected, match="is no archive"):
        archived(str(tmp_path))
    status, _, error = shell("journal", "export", "-f", "zip")
    assert (status, "--output FILE" in error) == (2, True)
    status, _, error = shell("journal", "export", "-f", "zip", "-o", str(tmp_path / "no" / "x.zip"))
    assert (status, "No such file" in error) == (1, True)


def test_several_instances_in_one_archive(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    run(Archiver(Journal(journal.store), str(tmp_path)), RULES, journal.store.now(), all_of_it=True)
    shutil.copytree(tmp_path / journal.meta.uid, tmp_path / ("f" * 24))
    with pytest.raises(Rejected, match="histories of 2 instances"):
        find_archive(str(tmp_path))
    assert find_archive(str(tmp_path), journal.meta.uid).manifest.last == 87
    with pytest.raises(Rejected, match="has none of instance"):
        find_archive(str(tmp_path), "e" * 24)


# -- forks ------------------------------------------------------------------------------------------------------------


def test_fork_at_any_version(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    for version in (1, 70, 87):
        to = tmp_path / str(version)
        shell.out("journal", "fork", "--at", str(version), "--to", str(to))
        entries, state = entries_in(to)
        before = journal.at(version)
        assert entries[:version] == journal.store.read(0, version)
        ran = {id for id, job in before.jobs.items() if job.state & RUN}
        assert all(state.jobs[id].exception[0] == "lost" for id in ran)
        assert not [id for id, job in state.jobs.items() if job.state & RUN]
        assert not any(queue.started for queue in state.queues.values())
        assert len(entries) == version + 1


def test_fork_at_a_time(shell: Any, tmp_path: Path) -> None:
    journal = shell.sample.journal
    moment = list(journal.commits())[41].time
    shell.out("journal", "fork", "--at", f"@{moment:.6f}", "--to", str(tmp_path / "x"))
    assert len(entries_in(tmp_path / "x")[0]) == 43
    for wrong in ("88", "@1", "0"):
        status, _, error = shell("journal", "fork", "--at", wrong, "--to", str(tmp_path / "y"))
        assert (status, "the journal has versions 1 to 87" in error) == (1, True), error
    assert sorted(os.listdir(tmp_path)) == ["x"]


def test_a_death_while_it_is_made_leaves_nothing(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(self: Restoring) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Restoring, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        rebuild(str(tmp_path / "x"), history_of(shell.sample.journal, 87, {}), "a test")
    assert os.listdir(tmp_path) == []


def test_guards_come_back(shell: Any) -> None:
    """What a closed queue, a config and running attempts stand in the guard table for is made anew from the headers."""
    source, server = shell.sample.journal, MemoryServer(rng=random.Random(3))
    shell.out("queue", "disable", "default", "-m", "tests")
    store = MemoryStore(server)
    restoring = Restoring(store, store.create(durability="local", origin_ms=1, created=1.0), source.store.get_blobs)
    for entry in source.store.read(0):
        restoring.take(entry, read_commit(entry))
    with pytest.raises(Conflict, match="can not follow"):
        store.restore(restoring.meta.uid, [source.store.read(0)[-1]])
    restoring.finish()
    theirs = source.store.server.tables.instances["/"].guards
    ours = server.tables.instances["/"].guards
    kept = {thing: bump for thing, bump in theirs.items() if not thing.startswith("job/")}
    assert {thing: str(bump) for thing, bump in ours.items()} == {thing: str(bump) for thing, bump in kept.items()}
    assert "closed/default" in ours
    journal = Journal(store)
    assert journal.append(new_branch(restoring.state, journal.meta.epoch, "x", 1.0, False), 88)
    with pytest.raises(Conflict):
        store.restore(restoring.meta.uid, [])


# -- salvage ----------------------------------------------------------------------------------------------------------


def the_file(folder: Path) -> Path:
    (file,) = folder.glob("appendonlydir/*.incr.aof")
    return file


def salvaged(shell: Any, *places: Path) -> tuple[int, dict[str, Any]]:
    status, text, _ = shell("journal", "salvage", *map(str, places), "--dry-run", "--json")
    return status, json.loads(text)


def test_nothing_is_lost_of_what_is_whole(shell: Any, there: Path) -> None:
    for place in (there, there / "appendonlydir", the_file(there)):
        status, found = salvaged(shell, place)
        assert (status, found["version"], found["lost"], found["jobs"]) == (0, 88, [], []), place


def spans_of(file: Path) -> dict[int, tuple[int, int]]:
    """Where each entry's command stands."""
    data, found = file.read_bytes(), {}
    for begin in re.finditer(rb"\*\d+\r\n\$4\r\nXADD\r\n", data):
        words = data[begin.start() :].split(b"\r\n", 12)
        version = int(words[6].partition(b"-")[0])
        header, rest = int(words[9][1:]), data.index(b"\r\n$1\r\np\r\n$", begin.start())
        size = int(data[rest + 10 : data.index(b"\r\n", rest + 10)])
        end = data.index(b"\r\n", rest + 10) + 2 + size + 2
        assert header > 0
        found[version] = (begin.start(), end)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_all_but_what_is_damaged_comes_back(shell: Any, there: Path, tmp_path: Path, seed: int) -> None:
    """Flipped bytes, holes of zeros, cuts: every entry that no damage touches is there, and what is lost is said."""
    rng, file = random.Random(seed), the_file(there)
    data, spans = bytearray(file.read_bytes()), spans_of(file)
    assert len(spans) == 88
    hurt: list[tuple[int, int]] = []
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        size = rng.choice((1, 1, 40, 600))
        if rng.random() < 0.2:
            at, size = len(data) - rng.randrange(1, 3000), 1 << 30
            del data[at:]
        else:
            for n in range(at, min(at + size, len(data))):
                data[n] = data[n] ^ 255 if size == 1 else 0
        hurt.append((at, at + size))
    file.write_bytes(bytes(data))
    finds = gather([str(there)])
    whole = {version for version, (begin, end) in spans.items() if all(end <= low or begin >= high for low, high in hurt)}
    assert whole <= set(finds.entries)
    found = history(finds, "here")
    lost = {version for first, last, _ in found.lost for version in range(first, last + 1)}
    assert lost == set(range(1, found.versions + 1)) - set(finds.entries)
    made = rebuild(str(tmp_path / "new"), found.source, "salvaged")
    entries, state = entries_in(tmp_path / "new")
    original = {entry.version: entry for entry in shell.sample.journal.store.read(0)}
    for entry in entries[: found.versions]:
        if entry.version in original and entry.version not in lost:
            assert (entry.id, entry.payload) == (original[entry.version].id, original[entry.version].payload)
    assert lost or "sound" in shell.out("journal", "verify", "--state-dir", str(tmp_path / "new"))
    assert state.version == made.version + 1


def test_the_jobs_of_a_damaged_entry_are_named(shell: Any, there: Path) -> None:
    file = the_file(there)
    spans = spans_of(file)
    story = shell.sample.state.jobs[shell.ids["b"]].commits
    data = bytearray(file.read_bytes())
    data[spans[story[1]][1] - 10] ^= 255  # in the payload of its second commit
    file.write_bytes(bytes(data))
    status, found = salvaged(shell, there)
    assert status == 1
    assert [(row["first"], "checksum" in row["why"]) for row in found["lost"]] == [(story[1], True)]
    assert shell.id("b") in found["jobs"]


def test_what_the_server_lost_the_archive_has(shell: Any, there: Path, tmp_path: Path) -> None:
    """A journal in the server with its middle gone, an archive with another part gone: together they have all."""
    journal = shell.sample.journal
    run(Archiver(Journal(journal.store), str(tmp_path / "a")), RULES, journal.store.now(), all_of_it=True)
    file, spans = the_file(there), spans_of(the_file(there))
    data = bytearray(file.read_bytes())
    for n in range(spans[20][0] + 3, spans[50][1] - 3):
        data[n] = 0
    file.write_bytes(bytes(data))
    status, found = salvaged(shell, there)
    assert (status, [(row["first"], row["last"]) for row in found["lost"]]) == (1, [(20, 50)])
    (segment,) = tmp_path.glob("a/*/segments/*")
    for manifest in tmp_path.glob("a/*/manifest*"):
        manifest.write_bytes(b"{")
    status, found = salvaged(shell, there, tmp_path / "a")
    assert (status, found["lost"]) == (0, [])
    whole = segment.read_bytes()
    segment.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])  # its head: blocks are found without it
    status, found = salvaged(shell, tmp_path / "a")
    assert (status, found["version"], found["lost"]) == (0, 87, [])
    assert found["notes"]


def test_salvaged_into_a_file(shell: Any, there: Path, tmp_path: Path) -> None:
    file, spans = the_file(there), spans_of(the_file(there))
    data = file.read_bytes()
    file.write_bytes(data[: spans[30][0] + 5] + b"zzzzz" + data[spans[30][0] + 10 :])
    status, text, _ = shell("journal", "salvage", str(there), "--output", str(tmp_path / "r.zip"))
    assert status == 1
    assert "version 30: nowhere" in text
    assert text.splitlines()[-1] == "87 of 88 commits read, 1 LOST"
    assert "88 commits" in shell.out("journal", "import", str(tmp_path / "r.zip"), "--dry-run")


def test_what_a_lost_entry_must_have_said(shell: Any, there: Path, tmp_path: Path) -> None:
    """The report that a job's tasks are over is lost: its `free` implies it, and those who got its cores do not suffer."""
    file, spans = the_file(there), spans_of(the_file(there))
    data, new = bytearray(file.read_bytes()), tmp_path / "new"
    (version,) = [
        commit.version for commit in shell.sample.journal.commits() for event in commit.events
        if event[0] == "report" and any(row[0] == shell.ids["e"] and event[3]["rank"] == 0 for row in event[3].get("over", ()))
    ]  # fmt: skip
    data[spans[version][1] - 10] ^= 255
    file.write_bytes(bytes(data))
    status, text, _ = shell("journal", "salvage", str(there), "--dry-run")
    assert status == 1
    assert f"inferred, version {version}: job {shell.id('e')}: lost\n" in text
    assert "set aside" not in text
    _, found = salvaged(shell, there)
    assert found["inferred"] == [{"version": version, "event": "lost", "subject": shell.id("e")}]
    assert found["aside"] == []
    assert shell("journal", "salvage", str(there), "--to", str(new))[1].startswith(text)
    _, state = entries_in(new)
    assert not state.quarantine
    assert state.jobs[shell.ids["e"]].result == shell.sample.state.jobs[shell.ids["e"]].result
    assert '"inferred":true' in shell.out("job", "eventlog", "--format", "json", "--state-dir", str(new), shell.id("e"))
    data = bytearray(file.read_bytes())
    for n in range(spans[2][0] + 3, spans[2][1] - 3):
        data[n] = 0  # the inventory: nobody knows which cores there were
    file.write_bytes(bytes(data))
    assert f"set aside: job {shell.id('a')}: version" in shell("journal", "salvage", str(there), "--dry-run")[1]


def test_places_with_nothing(shell: Any, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "x.aof"):
        (tmp_path / "x.aof").write_bytes(b"*1\r\n$5\r\nhallo\r\n" * 3)
        status, _, error = shell("journal", "salvage", str(place), "--dry-run")
        assert (status, "no entry of a journal can be read there" in error) == (1, True), error


def test_any_bytes_are_read_as_commands(tmp_path: Path) -> None:
    """Whatever a file holds: whole commands or nothing, never another error."""
    rng, file = random.Random(1), tmp_path / "x.aof"
    whole = b"*2\r\n$3\r\nGET\r\n$3\r\nabc\r\n"
    for _ in range(300):
        junk = bytes(rng.choice(b"*$\r\n0123456789abc") for _ in range(rng.randrange(40)))
        file.write_bytes(junk + b"\r\n" + whole)
        assert [b"GET", b"abc"] in list(aof.commands(str(file))), junk
        assert aof.entry_of([junk] * 7) is None
        assert aof.fields_of([b"HSET", junk, junk, junk]) is None
