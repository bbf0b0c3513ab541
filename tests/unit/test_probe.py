"""Listings of instances of which many have a server that says nothing: one wait for all of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from worker_rig import T0, jobspec

from fluxkv.instances import whereabouts
from fluxkv.instances.census import Census
from fluxkv.instances.sealing import seal_over
from fluxkv.journal import decide
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58
from fluxkv.journal.job import ACTIVE, NEW
from fluxkv.journal.log import Journal
from fluxkv.kvs.children import Child
from fluxkv.kvs.port import Appended
from fluxkv.kvs.probe import silent
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.server import start_server

CHILDREN = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    handle = start_server(str(tmp_path_factory.mktemp("s")), "local")
    yield handle.url
    handle.stop()


@pytest.fixture
def hung() -> Iterator[str]:
    """Somebody whom the kernel lets in, and who never says a word: a server that is stopped, a host behind a cut link."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}"


def test_who_is_silent(server: str, hung: str, tmp_path: Path) -> None:
    with socket.socket() as closes:
        closes.bind(("127.0.0.1", 0))
        closes.listen(1)
        ends = threading.Thread(target=lambda: closes.accept()[0].close())
        ends.start()
        rude = f"redis://127.0.0.1:{closes.getsockname()[1]}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = f"redis://127.0.0.1:{free.getsockname()[1]}"
        others = [server, rude, nobody, f"unix:{tmp_path}/none.sock", "memory:x", "nonsense://"]
        assert silent([hung, *others, hung], 0.3) == {hung}
        ends.join()
    assert silent([], 60.0) == set()
    assert silent([server], 60.0) == set()


def test_a_keeper_waits_once_for_all_whom_it_cannot_seal(server: str, hung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that were stopped in the middle, of children whose jobs are over: meanwhile it has daemons to look after."""
    monkeypatch.setattr(whereabouts, "PROBE_S", 0.3)
    monkeypatch.setattr(whereabouts, "_silent", {"redis://long.ago": time.monotonic() - whereabouts.SILENT_S})
    with closing(open_store(f"{server}#/kept")) as store:
        store.create(durability="local", origin_ms=0, created=T0)
        for id in range(1, CHILDREN + 1):
            store.note_child(Child(f58(id), id, "1-1"))
            with closing(whereabouts.beside(store, f"/kept/{f58(id)}")) as child:
                whereabouts.leave_door(child, whereabouts.Door("unix:/nowhere", hung, "/nowhere", "far", "another boot"))
        began = time.monotonic()
        assert len(seal_over(store, {"uri": f"{server}#/kept"})) == CHILDREN
        assert time.monotonic() - began < 5.0, "each would be waited for alone, ten seconds"
        assert store.children() == []
        assert list(whereabouts._silent) == [hung]


def test_a_listing_waits_once_for_all_who_are_out_of_reach(server: str, hung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "PROBE_S", 0.3)
    monkeypatch.setattr(whereabouts, "_silent", {})
    monkeypatch.setattr(whereabouts, "_waited", [])
    with closing(open_store(f"{server}#/")) as store:
        store.create(durability="local", origin_ms=0, created=T0)
        journal = Journal(store)
        for id in range(1, CHILDREN + 1):
            space = f"/{f58(id)}"
            begun = decide.submit([(id, jobspec())], "", 16, 1, 0, T0, 0)
            begun.events.append(["memo", id, T0, {"uri": f"{server}#{space}"}])
            assert isinstance(journal.append(begun, store.meta().version), Appended)
            with closing(whereabouts.beside(store, space)) as child:
                door = whereabouts.Door("unix:/nowhere", hung, "/nowhere", "far", "another boot")
                whereabouts.leave_door(child, door)
        with closing(whereabouts.beside(store, f"/{f58(1)}")) as child:  # one of them answers
            child.create(durability="local", origin_ms=0, created=T0)
            Journal(child).append(Decision([["x", "instance", T0, None]]), 0)
        said: list[str] = []
        monkeypatch.setattr(journal, "warn", said.append)
        began = time.monotonic()
        branch = Census((ACTIVE | NEW, 0), 100, None, 100).of(journal, journal.look(), T0)
        took = time.monotonic() - began
        assert list(branch.inside) == [1]
        assert [f"/{f58(id)}: " in line for id, line in zip(range(2, CHILDREN + 1), said, strict=True)] == [True] * (CHILDREN - 1)
        assert all("does not answer" in line for line in said)
        assert took < whereabouts.PATIENCE_S * 2, "each would be waited for alone"


def test_all_levels_of_a_listing_have_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    clock = [100.0]

    def nobody(urls: Any, within_s: float) -> set[str]:
        waits.append(within_s)
        clock[0] += within_s
        return set()

    class Store:
        server, namespace = "unix:/nowhere", "/"

        def messages(self, key: str) -> list[Any]:
            return []

    monkeypatch.setattr("fluxkv.kvs.probe.silent", nobody)
    monkeypatch.setattr(whereabouts, "_waited", [])
    monkeypatch.setattr(whereabouts.time, "monotonic", lambda: clock[0])
    for _ in range(5):
        whereabouts.ask_ahead(Store(), ["/ƒA", "/ƒB"])  # type: ignore[arg-type]
    assert waits == [2.0, 2.0, 0.1, 0.1, 0.1]
    clock[0] += whereabouts.SILENT_S
    whereabouts.ask_ahead(Store(), ["/ƒA", "/ƒB"])  # type: ignore[arg-type]
    assert waits[-1] == 2.0
