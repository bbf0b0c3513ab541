"""A journal goes down to the server of who goes on with it, and comes up again: broken off at each write, and with others about."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_rig import T0, Rig

from fluxkv.instances import handing_down, handover, resume, whereabouts, witness
from fluxkv.instances.child import child_namespace
from fluxkv.instances.nested import owner_of
from fluxkv.instances.paths import StateDir
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58, parse_id
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.kvs.errors import Conflict, FluxkvError, Rejected, Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.memory_server import MemoryServer, share
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Entry

DOOR = whereabouts.Door("unix:/nowhere/kv.sock", "", "/nowhere", "far", "another boot")
R = render_set(ResourceSet((NodeRecord(0, "n0", 3, 0, 0, ()),)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "time", SimpleNamespace(time=lambda: T0, monotonic=lambda: T0, sleep=lambda _: None))
    monkeypatch.setattr(resume, "PAUSE_S", 0.0)
    monkeypatch.setattr(resume, "HANDED_S", -1.0)


class Site(Rig):
    """A job that was an instance, with one inside, and is over; servers of others that go on with it."""

    def __init__(self) -> None:
        super().__init__(nodes=2)
        share("down-root", self.server)
        self.first = self.submit()
        self.started(self.first)
        self.names = [child_namespace("/", self.first)]
        self.names.append(child_namespace(self.names[0], 77))
        for name in self.names:
            store = MemoryStore(self.server, name)
            store.create(durability="strict", origin_ms=0, created=T0)
            create = {"uid": "u", "owner": 1, "namespace": name, "schema": 1, "parent": "unix:/tmp/kv.sock"}
            define = ["resource-define", "resource", T0, {"method": "job-info", "R": R}]
            self.wrote(store, ["instance-create", "instance", T0, create], define)
            self.wrote(store, ["x", "instance", T0, None])
            store.put_blobs({"ab" * 20: b"content"})
            store.push(Keys(name).output(7), [b"said"])
            store.seal(store.meta().uid)
        self.was = self.entries(self.server)
        self.over(self.first)
        self.turn()

    def wrote(self, store: MemoryStore, *events: list[Any]) -> None:
        Journal(store, "test").append(Decision([*events]), store.meta().version)

    def another(self, name: str) -> dict[str, Any]:
        """Settings of a job with a server of its own that goes on with it."""
        id = self.submit()
        self.started(id)
        job = self.job(id)
        share(name, MemoryServer(lambda: T0, random.Random(id)))
        return {"job": f58(id), "R": R, "resume": {"number": job.number, "entry": job.attempt_id}, "kvs": "own", "lead": True,
                "uri": f"memory:{name}#{self.names[0]}", "parent": "memory:down-root#/"}  # fmt: skip

    def entries(self, server: MemoryServer) -> list[list[Entry]]:
        return [MemoryStore(server, name).read(0) for name in self.names]

    def is_at(self, server: MemoryServer) -> list[bool]:
        return [name in server.tables.instances for name in self.names]


def server_of(settings: dict[str, Any]) -> Any:
    return handing_down.open_store(settings["uri"]).server  # type: ignore[attr-defined]


def down(settings: dict[str, Any]) -> int:
    return handing_down.hand_down(settings["uri"].partition("#")[0], settings, DOOR)


def up(settings: dict[str, Any]) -> int:
    return handover.hand_up(settings["uri"].partition("#")[0], settings)


def taken(site: Site, settings: dict[str, Any]) -> MemoryStore:
    """As a keeper does when the journal is below."""
    store = MemoryStore(server_of(settings), site.names[0])
    resume.take_up(store, site.store, settings)
    site.wrote(store, ["x", "instance", T0, None])
    store.seal(store.meta().uid)
    return store


def begins(now: list[list[Entry]], before: list[list[Entry]]) -> bool:
    """Whether nothing of what was there is missing, and what is inside is what it was."""
    return now[0][: len(before[0])] == before[0] and now[1:] == before[1:]


def test_down_and_up_again_it_is_whole() -> None:
    site = Site()
    second = site.another("down-a")
    assert down(second) == 2
    own = server_of(second)
    assert (site.is_at(site.server), site.is_at(own)) == ([False, False], [True, True])
    assert begins(site.entries(own), site.was)
    assert [whereabouts.read_door(MemoryStore(site.server, name)) for name in site.names] == [DOOR, DOOR]
    assert MemoryStore(own, site.names[1]).get_blobs(["ab" * 20]) == [b"content"]
    assert MemoryStore(own, site.names[1]).messages(Keys(site.names[1]).output(7))[0].data == b"said"
    assert down(second) == 0  # a keeper that died before it had noted that
    store = taken(site, second)
    calls: list[str] = []
    site.server.fault = lambda operation, when: calls.append(operation)
    assert up(second) == 2
    site.server.fault = None
    assert calls.count("arrive.entries") == 1  # what had been here did not come twice
    assert site.entries(site.server) == site.entries(own)
    assert owner_of(Journal(MemoryStore(site.server, site.names[0])).look()).job == parse_id(second["job"])  # type: ignore[union-attr]
    assert MemoryStore(site.server, site.names[0]).meta()._replace(sealed=0, floor=0) == store.meta()._replace(sealed=0)
    assert whereabouts.read_door(MemoryStore(site.server, site.names[0])) is None
    site.over(parse_id(second["job"]))
    site.turn()
    third = site.another("down-b")
    assert down(third) == 2  # and once more
    assert up(second) == 2  # whose process died before it had marked that: it has nothing that is not known
    assert site.is_at(site.server) == [False, False]
    taken(site, third)
    up(third)
    assert site.entries(site.server) == site.entries(server_of(third))


@pytest.mark.parametrize("again", [True, False])
def test_broken_off_at_any_write_it_is_in_one_place(again: bool) -> None:
    """Who brings it down dies, and is started again; or its job is over with that, and another goes on with what its files have."""
    for nth in range(1, 1000):
        site = Site()
        second = site.another("down-a")
        own, left = server_of(second), nth

        def fault(operation: str, when: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Unavailable("this request is lost", code="died")

        site.server.fault = own.fault = fault
        try:
            down(second)
        except Unavailable:
            pass
        site.server.fault = own.fault = None
        for above, below, name in zip(site.is_at(site.server), site.is_at(own), site.names, strict=True):
            assert above or below
            assert whereabouts.read_door(MemoryStore(site.server, name)) == DOOR or above
        if again:
            down(second)
            taken(site, second)
            up(second)
        else:
            up(second)
            assert begins(site.entries(site.server), site.was)
            site.over(parse_id(second["job"]))
            site.turn()
            third = site.another("down-b")
            down(third)
            up(second)
            assert site.is_at(site.server) == [False, False]
            taken(site, third)
            up(third)
        assert site.is_at(site.server) == [True, True]
        assert begins(site.entries(site.server), site.was)
        if left > 0:
            break
    assert nth > 25


def code_of(work: Any) -> str:
    with pytest.raises(FluxkvError) as caught:
        work()
    return str(caught.value.code)


def test_nothing_goes_down_that_somebody_has() -> None:
    site = Site()
    second, third = site.another("down-a"), site.another("down-b")
    resume.take_up(MemoryStore(site.server, site.names[0]), site.store, second)
    assert code_of(lambda: down(third)) == "alive"
    assert site.is_at(site.server) == [True, True]
    assert site.is_at(server_of(third)) == [False, False]


def test_who_comes_second_learns_who_was_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes down to another's server between the look at it and the step that takes it there."""
    site = Site()
    second, third = site.another("down-a"), site.another("down-b")
    makes = handing_down.make_ours

    def other(*args: Any) -> None:
        monkeypatch.setattr(handing_down, "make_ours", makes)
        down(third)
        store = taken(site, third)
        monkeypatch.setattr(whereabouts, "beside_own", lambda *_: MemoryStore(store.server, store.namespace))
        makes(*args)

    monkeypatch.setattr(handing_down, "make_ours", other)
    with pytest.raises(Rejected, match=f"job {third['job']} has this instance") as caught:
        down(second)
    assert caught.value.code == "alive"
    assert site.is_at(server_of(second)) == [False, False]
    assert whereabouts.read_door(MemoryStore(server_of(second), site.names[0])) is None


@pytest.mark.parametrize("late", ["arrive.end", "depart"])
def test_of_two_at_once_one_has_it(late: str) -> None:
    """While one copies whose job is over by then, another takes it up above."""
    site = Site()
    second, third = site.another("down-a"), site.another("down-b")
    done: list[str] = []
    above = MemoryStore(site.server, site.names[0])

    def other(operation: str, when: str) -> None:
        if operation == late and when == "before" and not done and whereabouts.read_door(MemoryStore(site.server, site.names[1])):
            done.append(operation)
            site.over(parse_id(second["job"]))
            site.turn()
            resume.take_up(above, site.store, third)

    (server_of(second) if late == "arrive.end" else site.server).fault = other
    assert code_of(lambda: down(second)) == "alive"
    assert done
    assert above.meta().version > len(site.was[0])
    site.over(parse_id(third["job"]))
    site.turn()
    assert down(second) == 1  # all that was copied before is brought up to date
    assert site.entries(server_of(second))[0][-1].id == above.come()
    assert len(site.entries(server_of(second))[0]) > len(site.was[0])
    assert site.is_at(site.server) == [False, False]


def test_of_two_who_bring_it_down_at_once_one_has_all_of_it() -> None:
    """Whenever the second comes: what is inside is where the winner has it."""
    for nth in range(1, 1000):
        site, left = Site(), nth
        second, third = site.another("down-a"), site.another("down-b")
        codes: dict[str, str] = {}

        def goes_down(settings: dict[str, Any], door: str, codes: dict[str, str] = codes) -> None:
            try:
                handing_down.hand_down(settings["uri"].partition("#")[0], settings, DOOR._replace(folder=door))
            except FluxkvError as error:
                codes[door] = str(error.code)

        def other(operation: str, when: str, settings: dict[str, Any] = third, goes_down: Any = goes_down) -> None:
            nonlocal left
            left -= 1
            if not left:
                goes_down(settings, "/b")

        server_of(second).fault = site.server.fault = other
        goes_down(second, "/a")
        server_of(second).fault = site.server.fault = None
        found = {"/a": site.is_at(server_of(second)), "/b": site.is_at(server_of(third))}
        won, lost = ("/a", "/b") if found["/a"][0] else ("/b", "/a")
        assert found == {won: [True, True], lost: [False, False]}
        assert site.is_at(site.server) == [False, False]
        assert won not in codes
        if left > 0:
            break
        assert codes[lost] in ("alive", "server-away")
    assert nth > 25


def test_who_asks_for_what_has_gone_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    second = site.another("down-a")
    down(second)
    with pytest.raises(Unavailable, match="not handed up: it lies in /nowhere on host far"):
        resume.wait_until_handed_up(site.store, site.names[0])
    store = taken(site, second)
    monkeypatch.setattr(whereabouts, "beside_own", lambda *_: MemoryStore(store.server, store.namespace))
    assert code_of(lambda: resume.wait_until_handed_up(site.store, site.names[0])) == "alive"
    assert code_of(lambda: resume.wait_until_handed_up(site.store, "/ƒX")) == "no-instance"


def test_files_of_before_stay_marked_while_it_is_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    second = site.another("down-a")
    folder = StateDir(str(tmp_path))
    (tmp_path / "appendonlydir").mkdir()
    handover.mark(folder, "memory:down-root")
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    down(second)
    given = {"uri": f"memory:old#{site.names[0]}", "parent": "memory:down-root#/"}
    assert not handover.remove_files(folder, given)
    assert handover.is_marked(folder), "so it is not handed up again"


def test_a_fail_over_takes_back_that_a_journal_went_down() -> None:
    """In memory as on a replica that lags: the journal is there again, unmoved."""
    site = Site()
    second = site.another("down-a")
    above = MemoryStore(site.server, site.names[0])
    before = above.meta()
    site.server.remember = 100
    site.wrote(site.store, ["x", "instance", T0, None])
    down(second)
    assert site.is_at(site.server) == [False, False]
    site.server.fail_over(1)
    assert site.is_at(site.server) == [True, True]
    assert (above.meta().uid, above.meta().version, above.come()) == (before.uid, before.version, "")


def given_back() -> tuple[Site, dict[str, Any]]:
    """It is below, with more than it had; above a fail-over has put it back as it was when it went."""
    site = Site()
    second = site.another("down-a")
    site.server.remember = 100
    down(second)
    taken(site, second)
    site.server.fail_over(1)
    assert site.is_at(site.server) == [True, True]
    return site, second


def test_what_a_fail_over_put_back_does_not_keep_out_what_comes_up() -> None:
    site, second = given_back()
    assert up(second) == 2
    assert site.entries(site.server) == site.entries(server_of(second))


def test_what_a_fail_over_put_back_goes_once_more() -> None:
    """Who looks for it finds what it is by now, and who would go on with it learns that somebody does."""
    site, second = given_back()
    assert handing_down.stay_down(second, DOOR) == 2
    assert site.is_at(site.server) == [False, False]
    assert [whereabouts.read_door(MemoryStore(site.server, name)) for name in site.names] == [DOOR, DOOR]
    assert handing_down.stay_down(second, DOOR) == 0
    assert up(second) == 2
    assert site.entries(site.server) == site.entries(server_of(second))


def test_what_is_inside_one_that_went_down_comes_up_to_where_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own server's files were still to be handed up when another job went on with the instance around it, on a server of its
    own, and waits there for what is inside."""
    site = Site()
    own = MemoryServer(lambda: T0, random.Random(9))
    share("down-inside", own)
    name = child_namespace(site.names[0], 78)
    store = MemoryStore(own, name)
    store.create(durability="strict", origin_ms=0, created=T0)
    site.wrote(store, ["x", "instance", T0, None])
    given = {"uri": f"memory:down-inside#{name}", "parent": f"memory:down-root#{site.names[0]}", "above": ["memory:down-root#/"],
             "job": f58(78)}  # fmt: skip
    second = site.another("down-a")
    down(second)
    with pytest.raises(Unavailable, match=r"can not be handed up: the server that .* has to itself does not answer"):
        handover.hand_up("memory:down-inside", given)
    monkeypatch.setattr(whereabouts, "through", lambda door, namespace, over=False: second["uri"].partition("#")[0])
    assert handover.hand_up("memory:down-inside", given) == 1
    assert MemoryStore(server_of(second), name).read(0) == store.read(0)
    assert name not in site.server.tables.instances
    monkeypatch.undo()
    taken(site, second)
    assert up(second) == 3
    assert MemoryStore(site.server, name).read(0) == store.read(0)


@pytest.mark.parametrize("ours", [True, False])
def test_what_came_whole_in_an_earlier_life_and_was_taken_back_is_there_after_the_next_one(ours: bool) -> None:
    """A fail-over took back that it was there. Who has the same, and to whom its door leads, brings it; and nobody else does."""
    site = Site()
    second = site.another("down-a")
    down(second)
    above = MemoryStore(site.server, site.names[1])
    site.server.tables.arriving[site.names[1]].uid = "of an earlier life"
    for name in site.names:
        whereabouts.leave_door(MemoryStore(site.server, name), DOOR._replace(socket="memory:down-a") if ours else DOOR)
    assert up(second) == 2
    assert site.is_at(site.server)[1] is ours
    assert (above.come() == "") == ours


def word_above(site: Site) -> str:
    """By which what has come is known there, "" where nothing has, or all of it."""
    coming = site.server.tables.arriving.get(site.names[0])
    return coming.uid if coming is not None else ""


def test_a_fail_over_takes_back_that_what_came_is_another_life_s_by_now() -> None:
    """The server had lost that an earlier life's journal was all there, and the next one's, which has more, takes over what had
    come: whenever a fail-over takes that back as well, it is begun again, and all of it is there or nothing."""
    struck = 0
    for nth in range(1, 1000):
        site = Site()
        second = site.another("down-a")
        down(second)
        taken(site, second)
        site.over(parse_id(second["job"]))
        site.turn()
        third = site.another("down-b")  # it waits
        site.server.remember = 1000
        above, own = MemoryStore(site.server, site.names[0]), server_of(third)

        def commit(site: Site = site) -> None:
            meta = site.store.meta()
            if not witness.is_current(site.store):
                site.store.open_epoch(meta.uid, meta.epoch, meta.version)
            site.wrote(site.store, ["x", "instance", T0, None])
            assert site.store.meta().version == meta.version + 1

        end = site.entries(server_of(second))[0][-1].id

        def at_the_end(operation: str, when: str, above: MemoryStore = above, end: str = end, commit: Any = commit) -> None:
            if operation == "arrive.end" and when == "before" and above.come() == end:
                above.server.fault = None
                commit()

        site.server.fault = at_the_end
        up(second)
        down(third)
        store = taken(site, third)
        site.server.fail_over(1)  # the one by which it is made the third job's before it goes
        word = word_above(site)
        assert above.come() == end
        left, over = nth, False

        def fault(operation: str, when: str, site: Site = site, word: str = word, commit: Any = commit) -> None:
            nonlocal left, over
            left -= 1
            if left in (0, -1):
                site.server.fault = None
                if left == 0:
                    commit()
                else:
                    before = word_above(site)
                    site.server.fail_over(1)
                    over = before not in ("", word) and word_above(site) == word
                site.server.fault = fault

        site.server.fault = fault
        try:
            up(third)
        except (Conflict, Rejected, Unavailable):
            pass  # it is tried again
        site.server.fault = None
        struck += over
        if over:
            assert site.server.tables.arriving[site.names[0]].uid == word
        if site.is_at(site.server)[0]:
            assert above.read(0) == store.read(0)
        up(third)
        assert site.entries(site.server) == site.entries(own)
        if left >= 0:
            break
    assert struck
