"""Children that ended leave the server for an archive, and are found there; at each line somebody may die, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from family import SETTINGS, Family, write
from worker_rig import T0

from fluxkv.instances import archive_duty, away, departing, long_history
from fluxkv.instances.archiving import Archiver, run
from fluxkv.instances.departing import Departing, Done
from fluxkv.instances.kvs_client import Kvs
from fluxkv.instances.paths import StateDir
from fluxkv.instances.sealing import seal_over
from fluxkv.instances.whereabouts import beside, server_of, store_of
from fluxkv.journal.archive_config import ArchiveRules
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.kvs import bundle, bundle_parts
from fluxkv.kvs.depot import LocalDepot
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Store
from fluxkv.tools import children_cmd, doctor_cmd

HOUR = 3600.0


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was read is read again the next time."""
    monkeypatch.setattr(bundle, "FRESH_S", 0.0)


@pytest.fixture(params=["whole", "parts"])
def parted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether contents and output are in parts, each of a piece or two."""
    if request.param == "parts":
        for name, value in (("NEAR_BYTES", 5), ("PART_BYTES", 8), ("LEAST", 1), ("OPEN", 1)):
            monkeypatch.setattr(bundle_parts, name, value)
    return bool(request.param == "parts")


class Site(Family):
    """An instance whose child has ended, with another inside it; an archive in a folder."""

    def __init__(self, folder: Path, **more: Any) -> None:
        super().__init__(**more)
        self.url = str(folder / "archive")
        self.id = self.submit()
        middle = self.begin(self.id)
        self.top = middle.namespace
        lowest = self.made(f"{self.top}/ƒ7")
        (row,) = self.store.children()
        middle.note_child(row._replace(name="ƒ7", job=7))
        middle.put_blobs({"ab" * 20: b"content"})
        middle.push(Keys(self.top).output(7), [b"said", b"more"])
        lowest.push(Keys(lowest.namespace).log, [b"a line"])
        self.ends(self.id)
        seal_over(self.store, SETTINGS)

    def round(self, keep_s: float = HOUR, later_s: float = 100.0, **more: Any) -> Done:
        done = Departing(self.store, self.url, "memory:family", keep_s, **more).run()
        self.now += later_s
        return done

    def inside(self, namespace: str) -> Store | None:
        return store_of(self.store, namespace)

    def everything(self) -> dict[str, Any]:
        """What is read of the two, wherever they are."""
        found = {}
        for name in (self.top, f"{self.top}/ƒ7"):
            store = self.inside(name)
            assert store is not None, f"{name} is nowhere"
            keys = Keys(name)
            found[name] = (
                store.meta()._replace(leaving=0, back=0), store.read(0), store.get_blobs(["ab" * 20]), store.messages(keys.log),
                store.messages(keys.output(7)), [*store.guards()], store.load_snapshot(), Journal(store).look().digest(),
            )  # fmt: skip
        return found


@pytest.mark.usefixtures("parted")
def test_what_ended_long_ago_leaves_with_all_inside_and_is_read_as_before(tmp_path: Path) -> None:
    site = Site(tmp_path)
    before = site.everything()
    assert site.round().written == [], "it ended a moment ago"
    site.now += HOUR
    done = site.round()
    assert (done.written, done.waiting, done.gone) == ([site.top], [site.top], [])
    assert server_of(site.store, site.top) == f"ended:{done.url}/{away.file_of(site.store.meta(), site.top[1:])}"
    assert site.store.inside().keys() == {site.top, f"{site.top}/ƒ7"}, "whoever looked before may read on"
    assert site.everything() == before
    assert site.round().gone == [site.top]
    assert site.store.inside() == {}
    assert site.everything() == before
    child = site.inside(site.top)
    assert child is not None
    assert write(child) == "ended"
    assert store_of(child, f"{site.top}/ƒ7") is not None, "from one in the archive to the one inside it"
    assert store_of(site.store, "/ƒ99") is None
    assert site.round() == Done(done.url)


class Lost:
    """Loses the nth request from now on, or its answer."""

    def __init__(self, site: Site, nth: int) -> None:
        self.left, self.site = nth, site
        site.server.fault = self

    def __call__(self, operation: str, when: str) -> None:
        self.left -= 1
        if not self.left:
            raise Unavailable("this request is lost")

    def over(self) -> bool:
        """Nothing is lost any more; whether it was lost."""
        self.site.server.fault = None
        self.site.now += 100.0  # a lease that was not given back
        return self.left <= 0


@pytest.mark.usefixtures("parted")
def test_whatever_request_is_lost_it_is_found_and_the_next_round_ends_it(tmp_path: Path) -> None:
    for nth in range(1, 1000):
        site = Site(tmp_path / str(nth))
        before = site.everything()
        site.now += HOUR
        lost = Lost(site, nth)
        for _ in range(2):
            with contextlib.suppress(Unavailable):
                site.round()
        was_lost = lost.over()
        assert site.everything() == before
        for _ in range(3):
            site.round()
        assert site.store.inside() == {}
        assert site.everything() == before
        if not was_lost:
            break
    assert 20 < nth < 999


def test_brought_back_it_may_be_broken_off_anywhere(tmp_path: Path) -> None:
    for nth in range(1, 1000):
        site = Site(tmp_path / str(nth))
        before = site.everything()
        site.now += HOUR
        for _ in range(2):
            site.round()
        lost = Lost(site, nth)
        with contextlib.suppress(Unavailable):
            away.bring_back(site.store, site.top)
        was_lost = lost.over()
        assert site.everything() == before
        site.round()
        away.bring_back(site.store, site.top)
        assert site.store.inside().keys() == {site.top, f"{site.top}/ƒ7"}
        assert site.everything() == before
        if not was_lost:
            break
    assert 20 < nth < 999


def test_an_archive_that_is_away_or_full_keeps_all_in_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    site.now += HOUR
    before = site.everything()
    (tmp_path / "archive").write_text("this is no folder")
    done = site.round()
    assert "can not be written" in done.failed[site.top]
    assert done.written == []
    assert site.store.inside()[site.top].meta == before[site.top][0]
    (tmp_path / "archive").unlink()

    put = LocalDepot.put

    def torn(self: LocalDepot, name: str, data: bytes) -> None:
        put(self, name, data[:-1])

    monkeypatch.setattr(LocalDepot, "put", torn)
    assert "has not kept" in site.round().failed[site.top]
    monkeypatch.undo()
    assert site.everything() == before
    assert site.round().written == [site.top]
    os.rename(tmp_path / "archive", tmp_path / "elsewhere")
    assert site.everything() == before, "the server has it still, and the archive is away"
    assert "nothing was removed" in site.round().failed[site.top]
    monkeypatch.setattr(bundle, "FRESH_S", 0.0)
    os.rename(tmp_path / "elsewhere", tmp_path / "archive")
    site.round()
    assert site.round().gone == [site.top]
    os.rename(tmp_path / "archive", tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="has nothing of this instance any more"):
        site.inside(site.top)
    monkeypatch.setenv("FLUXKV_ARCHIVE", str(tmp_path / "elsewhere"))
    assert site.everything() == before


def test_a_damaged_file_is_said_and_keeps_what_the_server_has(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.now += HOUR
    before = site.everything()
    site.round()
    (file,) = (one for one in (tmp_path / "archive").rglob("f*") if one.is_file())
    whole = file.read_bytes()
    for at in (3, 40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert "can not be read" in site.round().failed[site.top]
        assert site.everything() == before
    file.write_bytes(whole)
    assert site.round().gone == [site.top]
    file.write_bytes(whole[:-1])
    with pytest.raises(Corrupt, match="can not be read"):
        site.inside(site.top)


def test_a_server_that_lost_history_between_archive_and_end_keeps_what_it_has(tmp_path: Path) -> None:
    """HAZARD 19: the archive has the lost branch; both are kept."""
    site = Site(tmp_path)
    site.now += HOUR
    before = site.everything()
    site.round()
    (entry,) = site.server.tables.journals[site.top]
    site.server.tables.journals[site.top] = [entry._replace(epoch=entry.epoch ^ 1)]
    site.server.tables.instances[site.top].tip = f"{entry.version}-{entry.epoch ^ 1}"
    assert "another history" in site.round().failed[site.top]
    here = site.inside(site.top)
    assert here is not None
    assert here.read(0)[0].epoch == entry.epoch ^ 1, "it is read from the server again"
    site.round()
    assert site.round().gone == [site.top]
    (aside,) = (tmp_path / "archive").rglob("*.aside-*")
    _, spaces = bundle.from_bytes(aside.read_bytes(), "aside")
    assert [one.entries for one in spaces] == [row[1] for row in before.values()]


@pytest.mark.usefixtures("parted")
def test_it_comes_back_for_who_goes_on_with_it_and_leaves_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    before = site.everything()
    site.now += HOUR
    for _ in range(2):
        site.round()
    with pytest.raises(Rejected) as caught:
        away.bring_back(site.store, f"{site.top}/ƒ7")
    assert caught.value.code == "ended"
    assert away.bring_back(site.store, site.top)
    assert not away.bring_back(site.store, site.top)
    assert not away.bring_back(site.store, "/ƒ99")
    assert site.store.inside().keys() == {site.top, f"{site.top}/ƒ7"}
    assert site.everything() == before
    assert server_of(site.store, site.top) == ""
    there = beside(site.store, site.top)
    meta = there.meta()
    there.reopen(meta.uid, meta.epoch, meta.version)
    assert write(there) == ""
    now = there.meta()
    site.now += 2 * HOUR
    assert site.round().written == [], "it is alive"
    there.seal(now.uid)
    site.now += 2 * HOUR
    site.round()
    assert site.round().gone == [site.top]
    found = site.inside(site.top)
    assert found is not None
    assert found.meta().version == now.version
    assert found.meta().origin_uid == meta.uid
    assert not list((tmp_path / "archive").rglob("*.aside-*")), "the same history, gone on with"


def test_nobody_moves_what_another_job_is_about_to_go_on_with(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.now += 2 * HOUR
    site.begin(site.submit())
    (row,) = site.store.children()
    site.store.note_child(row._replace(name=site.top[1:]))
    assert "go on" in site.round().held[site.top]
    assert site.store.inside()[site.top].meta is not None


def test_what_is_left_of_one_that_was_gone_but_for_its_streams_goes_with_the_next_round(tmp_path: Path) -> None:
    site = Site(tmp_path)
    before = site.everything()
    site.now += HOUR
    site.round()
    site.round()
    left = beside(site.store, site.top)
    left.push(Keys(site.top).output(7), [b"said"])
    left.push(Keys(f"{site.top}/ƒ7").door, [b"not a stream of a job"])
    site.round(dry_run=True)
    assert site.top in site.store.inside()
    site.round()
    assert site.store.inside().keys() == {f"{site.top}/ƒ7"}
    left.delete(Keys(f"{site.top}/ƒ7").door)
    assert site.everything() == before


def test_what_another_takes_out_while_it_is_read_is_not_written_over_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stood still for longer than its lease, between two reads of one that has left meanwhile."""
    site = Site(tmp_path)
    before = site.everything()
    site.now += HOUR
    site.round()
    metas = {name: beside(site.store, name).meta() for name in (site.top, f"{site.top}/ƒ7")}

    def each(step: str) -> None:
        for name, meta in metas.items():
            there = beside(site.store, name)
            assert there.leave(meta.uid, there.read(0)[-1].id, step)

    each("stay")
    rows = Departing._rows

    def slow(self: Departing, there: Store, key: str, parts: Any) -> Any:
        if there.namespace.endswith("/ƒ7") and site.store.inside():
            each("mark")
            each("go")
        return rows(self, there, key, parts)

    monkeypatch.setattr(Departing, "_rows", slow)
    done = site.round()
    assert (done.written, done.failed) == ([], {})
    assert "changed while it was read" in done.held[site.top]
    assert site.everything() == before


def test_one_with_more_output_than_a_file_takes_has_it_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads something else opens none of them; each is read and compared before anything is removed."""
    site = Site(tmp_path)
    for name, value in (("NEAR_BYTES", 4_000), ("PART_BYTES", 7_000)):
        monkeypatch.setattr(bundle_parts, name, value)
    monkeypatch.setattr(departing, "LARGEST", 10_000)
    other, output = site.made("/ƒ9"), Keys("/ƒ9").output(7)
    wanted = [bytes([65 + at]) * 3_000 for at in range(6)]
    other.push(output, wanted)
    other.put_blobs({"cd" * 20: b"y" * 3_000})
    other.seal(other.meta().uid)
    before = other.messages(output)
    site.now += HOUR
    orphan = tmp_path / "archive" / f"{away.file_of(site.store.meta(), 'ƒ9')}.part-00"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"of a try that was broken off")
    done = site.round()
    assert (sorted(done.written), done.failed) == (sorted([site.top, "/ƒ9"]), {})
    parts = sorted(tmp_path.rglob("f9.part-*"))
    assert len(parts) == 3, "two pieces in each, one is in the file"
    data = parts[0].read_bytes()
    for wrong in (data[:-1] + b"!", None):
        if wrong is None:
            parts[0].unlink()
        else:
            parts[0].write_bytes(wrong)
        failed = site.round().failed["/ƒ9"]
        assert ("can not be read" if wrong else "has no file") in failed
        assert server_of(site.store, "/ƒ9") == "", "it is read from the server again"
        assert "/ƒ9" in site.round().written
        assert parts[0].read_bytes() == data
    assert site.round().gone == ["/ƒ9"]
    found = store_of(site.store, "/ƒ9")
    assert found is not None
    assert found.messages(output) == before
    assert [one.data for one in found.messages(output, before[3].id)] == wanted[4:]
    with contextlib.closing(found.subscribe({output: before[4].id})) as watch:
        assert watch.poll() == [(output, before[5:])]
    assert found.get_blobs(["cd" * 20, "ef" * 20]) == [b"y" * 3_000, None]
    assert found.outputs() == {7: pytest.approx(site.now, abs=2 * HOUR)}
    for part in parts:
        part.unlink()
    found = store_of(site.store, "/ƒ9")
    assert found is not None
    assert found.read(0), "what is in no part is there"
    with pytest.raises(Unavailable, match="has no file"):
        found.messages(output)


def test_one_with_more_entries_than_a_file_takes_has_them_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ensemble's many children together, say. What is inside is read without what is around it, and all of it comes back."""
    site = Site(tmp_path)
    for name, value in (("NEAR_BYTES", 6_000), ("PART_BYTES", 20_000)):
        monkeypatch.setattr(bundle_parts, name, value)
    monkeypatch.setattr(departing, "LARGEST", 15_000)
    noise = random.Random(3)

    def filled(namespace: str) -> Store:
        child = site.made(namespace)
        values = Kvs(Journal(child))
        for number in range(40):
            values.put(f"key{number}", noise.randbytes(900))
        journal = Journal(child)
        assert journal.save_snapshot(journal.look())
        values.put("last", "one")
        return child

    outer, inner = filled("/ƒ9"), filled("/ƒ9/ƒ8")
    for child in (inner, outer):
        child.seal(child.meta().uid)

    def everything() -> list[Any]:
        found = []
        for name in ("/ƒ9", "/ƒ9/ƒ8"):
            store = site.inside(name)
            assert store is not None
            with contextlib.closing(store.subscribe({Keys(name).journal: "20"})) as watch:
                found.append((store.read(0), store.entries([3, 40]), store.load_snapshot(), watch.poll(),
                              Journal(store).at(20).digest(), Journal(store).look().digest()))  # fmt: skip
        return found

    before = everything()
    site.now += HOUR
    for _ in range(2):
        done = site.round()
    assert (sorted(done.gone), done.failed) == (sorted([site.top, "/ƒ9"]), {})
    (file,) = tmp_path.rglob("f9")
    assert file.read_bytes().startswith(bundle.MAGIC_ENTRIES), "a program that knows of no such entries refuses it"
    assert len(file.read_bytes()) < departing.LARGEST
    assert everything() == before
    assert away.bring_back(site.store, "/ƒ9")
    assert {"/ƒ9", "/ƒ9/ƒ8"} <= site.store.inside().keys()
    assert everything() == before
    assert site.round(only="/ƒ9").written == ["/ƒ9"], "the same history goes over the file of before"
    assert not list(tmp_path.rglob("*.aside-*"))


def test_parts_of_another_file_are_not_ours_to_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of attempts may lie in one folder: f9 and f9.2. Parts come before the file that names them."""
    monkeypatch.setattr(bundle_parts, "NEAR_BYTES", 0)
    depot = LocalDepot(str(tmp_path))
    other = bundle_parts.PartWriter(depot, "a/f9.2")
    other.keep(b"o" * 100)
    other.flush()
    for said in (b"x" * 100, b"y" * 100):
        parts = bundle_parts.PartWriter(depot, "a/f9")
        parts.keep(said)
        parts.flush()
        depot.put("a/f9", b"names them")
        parts.forget_others()
        ours = bundle_parts.part_name("a/f9", parts.names[0])
        theirs = bundle_parts.part_name("a/f9.2", other.names[0])
        assert set(depot.names("a")) == {"a/f9", ours, theirs} | ({"a/f9.2"} if said[:1] == b"y" else set())
        depot.put("a/f9.2", b"names its own")
    depot.put("a/f9.aside-00", b"may name any")
    other = bundle_parts.PartWriter(depot, "a/f9")
    other.keep(b"z" * 100)
    other.flush()
    other.forget_others()
    assert ours in depot.names("a")


def test_one_with_more_than_a_file_takes_though_in_parts_stays_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    monkeypatch.setattr(departing, "LARGEST", 10_000)
    other = site.made("/ƒ9")
    other.push(Keys("/ƒ9").output(7), [b"x" * 50] * 300)
    other.seal(other.meta().uid)
    site.now += HOUR
    done = site.round()
    assert "too much for a file" in done.failed.pop("/ƒ9")
    assert (done.written, done.failed) == ([site.top], {})
    assert server_of(site.store, "/ƒ9") == ""


def test_one_on_its_way_out_that_is_brought_back_stays(tmp_path: Path) -> None:
    site = Site(tmp_path)
    before = site.everything()
    site.now += HOUR
    site.round()
    assert not away.bring_back(site.store, site.top), "it is there still"
    assert site.round().gone == []
    assert site.store.inside().keys() == {site.top, f"{site.top}/ƒ7"}
    assert server_of(site.store, site.top) == ""
    assert site.everything() == before
    site.now += HOUR
    site.round()
    assert site.round().gone == [site.top]
    assert site.everything() == before


def test_what_is_named_as_no_child_is_stays(tmp_path: Path) -> None:
    """Whoever may write below a namespace names what he likes there; files have those names."""
    site = Site(tmp_path)
    for name in ("/..", "/f9", "/ƒ9.", "/ƒ..", "/.new-ƒ9"):
        with contextlib.suppress(Rejected):
            child = site.made(name)
            child.seal(child.meta().uid)
    site.now += HOUR
    assert site.round().written == [site.top]


def test_what_a_hostile_child_says_of_its_archive_leads_nowhere(tmp_path: Path) -> None:
    site = Site(tmp_path)
    child = site.made("/ƒ9")
    (tmp_path / "secret").write_text("of somebody else")
    made = site.server.tables.instances["/ƒ9"]
    made.trimmed, made.archive, made.origin_uid = "1-1", str(tmp_path / "none"), ".."
    child.seal(child.meta().uid)
    site.now += HOUR
    assert "no name of a file" in site.round().failed["/ƒ9"]
    assert not list((tmp_path / "archive").rglob("secret"))
    for name in ("../x", "a/../../x", "/x"):
        for work in (lambda: LocalDepot(site.url).put(name, b""), lambda: LocalDepot(site.url).get(name)):  # noqa: B023
            with pytest.raises(Rejected, match="no name"):
                work()


def test_a_keeper_that_seals_looks_into_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a child that never came to be: the place may be away, or hang."""
    site = Site(tmp_path)
    site.now += HOUR
    for _ in range(2):
        site.round()
    id = site.submit()
    del site.server.tables.instances[site.begin(id).namespace]
    shutil.rmtree(tmp_path / "archive")
    site.ends(id)
    monkeypatch.setattr(away, "find", lambda *words: pytest.fail("it was looked for"))
    seal_over(site.store, SETTINGS)
    assert site.store.children() == []


def test_a_reader_that_is_too_slow_is_told_and_never_shown_less(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.now += HOUR
    site.round()
    reader = Journal(beside(site.store, site.top))
    assert site.round().gone == [site.top]
    with pytest.raises(Unavailable, match="no instance"):
        reader.look()


def test_two_at_once_do_it_one_after_the_other(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.now += HOUR
    first = Departing(site.store, site.url, "memory:family", HOUR)
    first._hold()
    with pytest.raises(Unavailable, match="another process") as caught:
        site.round()
    assert caught.value.code == "busy"
    first.run()
    site.now += 100
    assert site.round().gone == [site.top]


def test_another_that_comes_between_the_mark_and_the_end_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    site.now += HOUR
    other = Departing(site.store, site.url, "memory:family", HOUR)
    monkeypatch.setattr(departing.time, "sleep", lambda wait_s: other._hold())
    heard: list[tuple[list[str], float]] = []
    pausing = lambda done, pause_s: heard.append(([*done.waiting], pause_s))  # noqa: E731
    done = Departing(site.store, site.url, "memory:family", HOUR).finish(pausing)
    assert heard == [([site.top], departing.GRACE_S + 1)]
    assert (done.written, done.waiting, done.gone) == ([site.top], [site.top], [])
    site.now += 100
    assert other.run().gone == [site.top]


def test_what_is_inside_a_living_child_leaves_by_itself(tmp_path: Path) -> None:
    site = Site(tmp_path)
    outer = site.begin(site.submit())
    ended = site.made(f"{outer.namespace}/ƒ5")
    ended.seal(ended.meta().uid)
    site.now += 2 * HOUR
    for _ in range(2):
        site.round()
    assert site.store.inside().keys() == {outer.namespace}
    found = store_of(outer, ended.namespace)
    assert found is not None
    assert found.meta().version == 1
    site.ends(site.state.jobs[max(site.state.jobs)].id)
    seal_over(site.store, SETTINGS)
    site.now += 2 * HOUR
    for _ in range(2):
        site.round()
    assert site.store.inside() == {}
    found = store_of(site.store, ended.namespace)
    assert found is not None, "through the file of the one around it"
    assert Journal(found).look().version == 1


def test_the_server_is_as_before_after_a_thousand_children(tmp_path: Path) -> None:
    site = Site(tmp_path)
    sizes = []
    for number in range(5):
        for one in range(40):
            child = site.made(f"/ƒ{number + 1}{'xyz'[one % 3]}{one // 3 + 1}".replace("0", "A"))
            child.seal(child.meta().uid)
        site.now += 2 * HOUR
        for _ in range(2):
            site.round()
        sizes.append((len(site.server.tables.instances), len(site.server.tables.streams)))
    assert len(set(sizes)) == 1
    assert sizes[0][0] == 1


def test_nothing_is_appended_by_all_this(tmp_path: Path) -> None:
    site = Site(tmp_path)
    version = site.store.meta().version
    site.now += HOUR
    for _ in range(2):
        site.round()
    assert site.store.meta().version == version
    assert Journal(site.store).append(Decision([["x", "instance", T0, None]]), version)


@pytest.mark.usefixtures("parted")
def test_what_the_server_has_no_more_stays_in_the_file(tmp_path: Path) -> None:
    """Broken off between two inside: what went first is in the archive only, when the rest is written once more."""
    site = Site(tmp_path)
    before = site.everything()
    site.now += HOUR
    site.round()
    lowest = beside(site.store, f"{site.top}/ƒ7")
    meta = lowest.meta()
    assert lowest.leave(meta.uid, lowest.read(0)[-1].id, "go", site.store.inside()[lowest.namespace].keys)
    os.rename(tmp_path / "archive", tmp_path / "elsewhere")
    assert "nothing was removed" in site.round().failed[site.top]
    os.rename(tmp_path / "elsewhere", tmp_path / "archive")
    assert site.round().written == [site.top]
    assert site.round().gone == [site.top]
    assert site.everything() == before


def test_a_long_history_has_its_beginning_in_an_archive_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_history, "LONG_COMMITS", 20)
    monkeypatch.setattr(long_history, "KEPT_COMMITS", 5)
    site = Site(tmp_path)
    child = site.made("/ƒ9")
    for _ in range(30):
        write(child)
    child.seal(child.meta().uid)
    entries, digest = child.read(0), Journal(child).look().digest()
    site.now += HOUR
    site.round()
    assert "/ƒ9" in site.round().gone
    there = site.inside("/ƒ9")
    assert there is not None
    assert [entry.version for entry in there.read(0)] == list(range(27, 32)), "the file has the tail"
    journal = Journal(there)
    assert journal.look().digest() == digest
    assert journal.history.read(0, 100) == entries
    assert journal.at(10).version == 10
    assert away.bring_back(site.store, "/ƒ9")
    back = Journal(beside(site.store, "/ƒ9"))
    assert back.look().digest() == digest
    assert back.history.read(0, 100) == entries
    site.now += 2 * HOUR
    for _ in range(2):
        site.round()
    assert site.inside("/ƒ9") is not None
    assert not list((tmp_path / "archive").rglob("*.aside-*"))


def test_what_a_child_archived_in_its_own_folder_goes_along(tmp_path: Path) -> None:
    """Its state directory goes a week after its end, and what was trimmed was there alone."""
    site = Site(tmp_path)
    child = site.made("/ƒ9")
    for _ in range(30):
        write(child)
    own = str(tmp_path / "own")
    done = run(Archiver(Journal(child), own), ArchiveRules(True, True, own, 0.0, 1.0, 0.0, 5), site.now + 1.0, trim=True)
    assert done.trimmed is not None
    child.seal(child.meta().uid)
    digest, entries = Journal(child).at(10).digest(), Journal(child).history.read(0, 100)
    site.now += HOUR
    site.round()
    assert "/ƒ9" in site.round().gone
    shutil.rmtree(own)
    there = site.inside("/ƒ9")
    assert there is not None
    assert Journal(there).at(10).digest() == digest
    assert Journal(there).history.read(0, 100) == entries


def test_what_one_had_archived_and_cannot_be_reached_keeps_nobody_else_in_the_server(tmp_path: Path) -> None:
    site = Site(tmp_path)
    child, later = site.made("/ƒ1"), site.made("/ƒz")
    for _ in range(30):
        write(child)
    own = tmp_path / "own"
    rules = ArchiveRules(True, True, str(own), 0.0, 1.0, 0.0, 5)
    assert run(Archiver(Journal(child), str(own)), rules, site.now + 1.0, trim=True).trimmed is not None
    for one in (child, later):
        one.seal(one.meta().uid)
    (folder,) = own.iterdir()
    shutil.rmtree(folder)
    folder.symlink_to(folder)  # a file system that does not answer as it should
    site.now += HOUR
    done = site.round()
    assert list(done.failed) == ["/ƒ1"]
    assert sorted(done.written) == sorted([site.top, "/ƒz"])


@pytest.mark.parametrize("where", ["top", "below"])
def test_one_that_is_damaged_holds_up_no_other_and_stays(tmp_path: Path, where: str) -> None:
    site = Site(tmp_path)
    before = site.everything()
    second = site.submit()
    other = site.begin(second).namespace
    site.ends(second)
    seal_over(site.store, SETTINGS)
    damaged = Keys(site.top if where == "top" else f"{site.top}/ƒ7").meta
    aliens = site.server.tables.aliens
    site.now += HOUR
    aliens.add(damaged)
    for done in (site.round(dry_run=True), site.round(), site.round()):
        assert [*done.failed] == [site.top]
        assert damaged in done.failed[site.top]
        assert done.written + done.gone == [other]
    assert site.store.inside().keys() == {site.top, f"{site.top}/ƒ7"}
    aliens.clear()
    assert site.everything() == before
    assert site.round().written == [site.top]
    aliens.add(damaged)  # after the mark
    assert (site.round().gone, site.store.inside().keys()) == ([], {site.top, f"{site.top}/ƒ7"})
    aliens.clear()
    assert site.round().gone == [site.top]
    assert site.everything() == before


def test_a_damaged_child_is_named_where_children_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path)
    key = Keys(site.top).meta
    site.server.tables.aliens.add(key)
    found = children_cmd.overview(Journal(site.store), "memory:family")
    assert (found["alive"], found["ended"], [*found["damaged"]]) == (0, 1, [site.top])
    children_cmd._show(found, False)
    assert f"{site.top} is damaged: {key}: WRONGTYPE" in capsys.readouterr().err
    check = next(one for one in doctor_cmd._ended_children(None, Journal(site.store)) if one.result == "fail")
    assert key in check.text
    assert "salvage" in check.mend


def test_the_keeper_looks_only_where_there_is_something_and_it_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    begun: list[str] = []
    monkeypatch.setattr(archive_duty, "spawn_role", lambda directory, role: begun.append(role) or 0)  # type: ignore[func-returns-value]
    directory = StateDir(str(tmp_path))

    def look(**settings: Any) -> int:
        begun.clear()
        directory.write({"uri": "memory:family", **settings})
        archive_duty.ArchiveDuty(site.store, directory, lambda level, text: None).look()
        return len(begun)

    def fold(*_: Any, **__: Any) -> Any:
        raise AssertionError("a keeper reads a config from its entry: the journal may be long")

    monkeypatch.setattr(Journal, "look", fold)
    assert look() == 1
    assert look(parent="memory:other") == 0, "a child on its parent's server: that one's keeper does it"
    assert look(parent="memory:other", kvs="own") == 0, "its own folders are no place that stays"
    site.configure({"retention": {"keep-children": "inf"}})
    assert look() == 0
    site.configure({"archive": {"url": str(tmp_path / "archive")}})
    assert look(parent="memory:other", kvs="own") == 1
    site.configure({})
    site.now += HOUR
    for _ in range(2):
        site.round()
    assert look() == 0, "none is left in the server"


def test_a_place_that_fsspec_knows_serves_as_well(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    site = Site(tmp_path)
    site.url = f"memory://{tmp_path.name}"
    before = site.everything()
    site.now += HOUR
    site.round()
    assert site.round().gone == [site.top]
    assert site.everything() == before
    assert str(server_of(site.store, site.top)).startswith(f"ended:{site.url}/ended/")
