"""An instance that a newer program has run: who knows less reads it, with a warning, and writes nothing."""

from __future__ import annotations

import time

import pytest
from jobspecs import jobspec
from worker_rig import Rig

from fluxkv.instances.boot import ensure_instance
from fluxkv.instances.reactor import Entries
from fluxkv.instances.submission import Submitter
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal, make_append
from fluxkv.journal.schema import SCHEMA, check_schema
from fluxkv.kvs.errors import Corrupt, Rejected
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Appended


def test_the_highest_schema_is_kept() -> None:
    rig = Rig()
    meta = rig.store.meta()
    for schema, expected in ((2, 2), (7, 7), (3, 7)):
        rig.store.raise_schema(meta.uid, schema)
        assert rig.store.meta().schema == expected
    with pytest.raises(Rejected):
        rig.store.raise_schema("another", 9)


def newer(rig: Rig) -> None:
    rig.store.raise_schema(rig.store.meta().uid, SCHEMA + 1)


def test_writers_refuse_and_name_both_numbers() -> None:
    rig = Rig()
    newer(rig)
    journal = Journal(rig.store)
    with pytest.raises(Corrupt, match=f"schema {SCHEMA + 1}.*knows {SCHEMA}") as caught:
        journal.append(Decision([["memo", "kvs", 1.0, None]]), 0)
    assert (caught.value.code, "newer fluxkv" in caught.value.hint) == ("newer-schema", True)
    assert journal.look().version == rig.store.meta().version  # readers read
    check_schema(Rig().store.meta())


def test_a_worker_stops_at_what_a_newer_one_has_decided() -> None:
    """It was running when somebody started a newer one beside it."""
    rig = Rig()
    request = make_append(rig.journal.meta, Decision([["memo", "kvs", 1.0, None]]), 0, extra={"schema": SCHEMA + 1})
    assert isinstance(rig.store.append(request), Appended)
    with pytest.raises(Corrupt, match=f"entry .* is of schema {SCHEMA + 1}"):
        rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])


def test_a_keeper_neither_takes_it_up_nor_lowers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    monkeypatch.setattr("fluxkv.instances.boot.open_store", lambda *_, **__: MemoryStore(rig.server))
    store, new = ensure_instance({"uri": "memory:"})
    assert (new, store.meta().schema) == (False, SCHEMA)
    newer(rig)
    with pytest.raises(Corrupt, match="schema"):
        ensure_instance({"uri": "memory:"})
    assert rig.store.meta().schema == SCHEMA + 1


def test_a_submission_is_refused() -> None:
    store = MemoryStore(MemoryServer())
    meta = store.create(durability="strict", origin_ms=int(time.time() * 1000), created=time.time())
    store.raise_schema(meta.uid, SCHEMA + 1)
    with pytest.raises(Corrupt, match="schema"):
        Submitter(store).submit([(jobspec(), {})], 16, 0)
    assert store.meta().version == 0
