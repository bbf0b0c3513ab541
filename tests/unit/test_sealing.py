"""Children whose jobs are over are sealed, with what is inside them; nobody else is."""

from __future__ import annotations

import time

import pytest
from family import SETTINGS, Family, write
from worker_rig import T0, jobspec

from fluxkv.instances import child, sealing, sealing_led
from fluxkv.instances.at_rest import shrink
from fluxkv.instances.sealing import Left, duty, seal_over
from fluxkv.instances.whereabouts import beside
from fluxkv.journal import decide
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.keys import Keys


def test_a_child_is_sealed_when_its_job_is_over() -> None:
    family = Family()
    one, other = (family.submit(jobspec(cores=1)) for _ in range(2))
    first, second = family.begin(one), family.begin(other)
    assert seal_over(family.store, SETTINGS) == []
    family.do(decide.together(decide.cancel_each([family.job(one)], "", 1, T0)))
    family.turn()
    assert seal_over(family.store, SETTINGS) == [], "it may well end in order"
    family.ends(one)
    assert seal_over(family.store, SETTINGS) == [first.namespace]
    assert (write(first), write(second)) == ("ended", "")
    assert [row.job for row in family.store.children()] == [other]
    assert seal_over(family.store, SETTINGS) == []


def test_what_is_wrong_with_one_keeps_nobody_from_the_others() -> None:
    family = Family(nodes=3)
    ids = [family.submit(jobspec(cores=2)) for _ in range(3)]
    stores = [family.begin(id) for id in ids]
    broken = sorted(store.namespace for store in stores)[1]
    family.server.tables.instances.pop(broken)
    beside(family.store, broken).push(Keys(broken).door, [b"what is no door"])
    for id in ids:
        family.ends(id)
    with pytest.raises(Corrupt):
        seal_over(family.store, SETTINGS)
    assert [write(store) for store in stores if store.namespace != broken] == ["ended", "ended"]
    assert [row.name for row in family.store.children()] == [broken.rpartition("/")[2]], "it is tried again"


def test_a_keeper_that_is_to_stop_leaves_the_rest_as_it_is() -> None:
    family = Family(nodes=3)
    ids = [family.submit(jobspec(cores=2)) for _ in range(3)]
    stores = [family.begin(id) for id in ids]
    for id in ids:
        family.ends(id)
    asked: list[int] = []
    duty(family.store, SETTINGS, lambda: asked.append(0) or len(asked) > 1)()  # type: ignore[func-returns-value]
    assert sorted(write(store) for store in stores) == ["", "", "ended"]
    assert len(family.store.children()) == 2
    duty(family.store, SETTINGS)()
    assert [write(store) for store in stores] == ["ended"] * 3
    assert family.store.children() == []


def test_one_that_sealed_itself_is_left_for_a_moment_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(nodes=3)
    orderly, killed = (family.submit(jobspec(cores=2)) for _ in range(2))
    first, second = family.begin(orderly), family.begin(killed)
    first.seal(first.meta().uid)
    for id in (orderly, killed):
        family.ends(id)
    left = Left()
    look = duty(family.store, SETTINGS, left=left)
    look()
    assert write(second) == "ended"
    assert [row.job for row in family.store.children()] == [orderly]
    look()
    assert [row.job for row in family.store.children()] == [orderly], "its time is not over"
    now = time.monotonic()
    monkeypatch.setattr("fluxkv.instances.sealing.time.monotonic", lambda: now + sealing.LEFT_S)
    look()
    assert family.store.children() == []
    assert left.look([]) == set()
    assert not left._until, "nothing is kept of it"


def test_one_that_was_never_made_is_struck_out() -> None:
    family = Family()
    id = family.submit()
    family.begin(id)
    family.server.tables.instances.pop(child.child_namespace("/", id))
    family.ends(id)
    seal_over(family.store, SETTINGS)
    assert family.store.children() == []


def test_who_has_a_leading_node_goes_on_without_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing_led, "PAUSE_S", 0.0)
    family = Family()
    id = family.submit(jobspec(cores=1, nodes=2))
    family.begin(id)
    led, rows = sealing_led.Led(), family.store.children()
    family.over(id, status=15, rank=family.job(id).ranks[1])
    family.turn(seconds=10.0)
    assert led.look(family.store, SETTINGS, rows) == []
    family.do(decide.together(decide.cancel_each([family.job(id)], "", 1, family.now)))
    family.turn(seconds=10.0)
    assert led.look(family.store, SETTINGS, rows) == [], "it is about to end in order"


def test_a_cut_off_node_s_part_is_waited_for_by_nobody_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing_led, "PAUSE_S", 0.0)
    family = Family()
    id = family.submit(jobspec(cores=1, nodes=2))
    store = family.begin(id)
    led, rows = sealing_led.Led(), family.store.children()
    family.do(decide.together(decide.cancel_each([family.job(id)], "", 1, family.now)))
    family.turn()
    assert led.look(family.store, SETTINGS, rows) == []
    family.over(id, status=15, rank=family.job(id).ranks[0])
    family.turn()
    assert led.look(family.store, SETTINGS, rows) == [], "others may have something to say"
    assert write(store) == ""
    family.turn(seconds=sealing_led.LED_S)
    assert led.look(family.store, SETTINGS, rows) == [store.namespace]
    assert led.look(family.store, SETTINGS, rows) == []
    assert write(store) == "ended"
    assert (family.store.children(), seal_over(family.store, SETTINGS)) == (rows, []), "its job is not over"
    family.over(id, status=15, rank=family.job(id).ranks[1])
    family.turn()
    assert seal_over(family.store, SETTINGS) == [store.namespace]


def cut_off(family: Family, id: int) -> None:
    """It is cancelled; its first node has ended, the other one says nothing."""
    family.do(decide.together(decide.cancel_each([family.job(id)], "", 1, family.now)))
    family.turn()
    family.over(id, status=15, rank=family.job(id).ranks[0])
    family.turn(seconds=sealing_led.LED_S + 1.0)


@pytest.mark.parametrize("far", [500, 3])
def test_what_is_said_behind_an_end_does_not_hide_it(monkeypatch: pytest.MonkeyPatch, far: int) -> None:
    """A child that was cancelled as it started says all the same what its address is, before anybody has looked."""
    monkeypatch.setattr(sealing_led, "FAR", far)
    family = Family()
    id = family.submit(jobspec(cores=1, nodes=2))
    store = family.begin(id)
    led, rows = sealing_led.Led(), family.store.children()
    assert led.look(family.store, SETTINGS, rows) == []
    family.do(decide.together(decide.cancel_each([family.job(id)], "", 1, family.now)))
    family.turn()
    here = child.Place("memory:family", id, family.job(id).attempt, 0, 2, 0, "", 1, family.job(id).attempt_id)
    child.tell_parent(here, f"memory:family#{store.namespace}")
    assert led.look(family.store, SETTINGS, rows) == []
    cut_off(family, id)
    led._ending = {row: (0.0, pause) for row, (_, pause) in led._ending.items()}
    assert led.look(family.store, SETTINGS, rows) == [store.namespace]


def test_a_child_that_goes_on_has_its_parent_folded_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family()
    ids = [family.submit(jobspec(cores=1)) for _ in range(2)]
    led = sealing_led.Led()
    monkeypatch.setattr(sealing_led.Led, "_seal", lambda *_: pytest.fail("the parent is folded"))
    for id in ids:
        family.begin(id)
        for _ in range(2):
            assert led.look(family.store, SETTINGS, family.store.children()) == []


def test_what_is_wrong_with_one_keeps_nobody_from_those_that_nobody_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family(nodes=3)
    bad, id = family.submit(jobspec(cores=2)), family.submit(jobspec(cores=1, nodes=2))
    broken, store = family.begin(bad).namespace, family.begin(id)
    family.server.tables.instances.pop(broken)
    beside(family.store, broken).push(Keys(broken).door, [b"what is no door"])
    family.ends(bad)
    cut_off(family, id)
    said: list[str] = []
    look = duty(family.store, SETTINGS, say=lambda level, text: said.append(text))
    look()
    look()
    assert write(store) == "ended"
    assert [text.partition(": ")[0] for text in said] == ["a child that is over can not be sealed"]


def test_the_attempt_counts_and_not_the_job() -> None:
    """A job that is to be tried again may wait for long: its first attempt's child is over all the same."""
    family = Family()
    spec = jobspec()
    spec["attributes"]["system"]["retry"] = {"limit": 1, "on": ["any"], "delay": 100.0}
    id = family.submit(spec)
    first = family.begin(id)
    family.over(id, status=1 << 8)
    family.turn()
    assert family.names(id)[-1] == "requeue"
    assert seal_over(family.store, SETTINGS) == [first.namespace]
    family.turn(seconds=101.0)
    second = family.begin(id)
    assert second.namespace == first.namespace + ".2"
    assert seal_over(family.store, SETTINGS) == []
    assert (write(first), write(second)) == ("ended", "")


def test_what_is_inside_goes_with_it() -> None:
    """Whatever the journals further down say: nobody is left to end those jobs."""
    family = Family()
    id = family.submit()
    middle = family.begin(id)
    lowest = family.made(f"{middle.namespace}/ƒ7")
    (row,) = family.store.children()
    middle.note_child(row._replace(name="ƒ7", job=7))
    middle.note_child(row._replace(name="ƒ8", job=8))  # it was never made
    family.ends(id)
    seal_over(family.store, SETTINGS)
    assert (write(middle), write(lowest)) == ("ended", "ended")
    assert middle.children() == []


def test_whoever_goes_on_with_a_child_is_not_sealed_with_it() -> None:
    """Another job takes the namespace up before the keeper has looked: the row of the first one says nothing about it."""
    family = Family()
    one, other = (family.submit() for _ in range(2))
    store = family.begin(one)
    (row,) = family.store.children()
    family.started(other)
    family.ends(one)
    family.store.note_child(row._replace(job=other, entry=family.job(other).attempt_id))
    assert seal_over(family.store, SETTINGS) == []
    assert [child.job for child in family.store.children()] == [other]
    assert write(store) == ""
    family.ends(other)
    assert seal_over(family.store, SETTINGS) == [store.namespace]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_keeper_that_dies_in_between_leaves_the_rest_to_the_next(when: str) -> None:
    family = Family()
    ids = [family.submit() for _ in range(2)]
    stores = [family.begin(id) for id in ids]
    for id in ids:
        family.ends(id)

    def fault(operation: str, at: str) -> None:
        if (operation, at) == ("seal", when):
            raise Unavailable("the server went away")

    family.server.fault = fault
    duty(family.store, SETTINGS)()
    assert len(family.store.children()) == 2
    family.server.fault = None
    duty(family.store, SETTINGS)()
    assert family.store.children() == []
    assert [write(store) for store in stores] == ["ended", "ended"]


def test_a_child_that_comes_late_begins_nothing() -> None:
    """Its process stood still while its job was ended by somebody's word; it says so to its parent before it runs anything."""
    family = Family()
    id = family.submit()
    family.begin(id)
    job = family.job(id)
    here = child.Place("memory:family", id, job.attempt, 0, 1, 0, "", 1, job.attempt_id)
    family.ends(id)
    with pytest.raises(Rejected) as caught:
        child.tell_parent(here, "memory:family#/ƒA")
    assert caught.value.code == "gone"


def test_what_is_sealed_is_at_rest() -> None:
    """Messages that nobody reads go, guards of jobs too; whoever goes on with it meanwhile loses nothing."""
    family = Family()
    id = family.submit(jobspec(cores=1))
    inside = family.begin(id)
    inside.push(inside.keys.inbox("node/0"), [b"order"])  # type: ignore[attr-defined]
    inside.push(inside.keys.telemetry, [b"beat"])  # type: ignore[attr-defined]
    uid = inside.meta().uid
    assert not shrink(inside, uid)
    family.ends(id)
    assert seal_over(family.store, SETTINGS) == [inside.namespace]
    for key in (inside.keys.inbox("node/0"), inside.keys.telemetry):  # type: ignore[attr-defined]
        assert inside.messages(key) == []
    assert inside.meta().floor == inside.meta().version
    assert shrink(inside, uid)
    made = inside.reopen(uid, inside.meta().epoch, inside.meta().version)
    assert not shrink(inside, uid)
    assert not shrink(inside, made.uid)
