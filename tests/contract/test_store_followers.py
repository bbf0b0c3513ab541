"""Whoever follows a journal over a server, where an entry cannot be read: it is no other history, and once it is set aside
they go on behind it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from fluxkv.instances.entry_aside import set_entry_aside
from fluxkv.instances.follow import Tail
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Corrupt
from fluxkv.kvs.memory_store import MemoryStore


def damaged(bench: Any) -> int:
    """An entry whose payload has a flipped bit, as from a bad disk, at the journal's end; its version."""
    store, keys = bench.store, bench.keys
    (model,), version = store.read(store.meta().version - 1), store.meta().version + 1
    payload = bytearray(model.payload)
    payload[-1] ^= 8
    if isinstance(store, MemoryStore) or bench.backend.name == "fake":
        pytest.skip("nothing flips bits in it")
    id = f"{version}-{store.meta().epoch}"
    store._ask("XADD", keys.journal, id, "h", model.header, "p", bytes(payload))
    store._ask("HSET", keys.meta, "version", str(version), "tip", id)
    store._ask("HSET", keys.guards, "!", str(version))
    return version


def test_a_follower_goes_on_behind_what_was_set_aside(bench: Any) -> None:
    journal = Journal(bench.store)
    for _ in range(3):
        journal.append(Decision([["lively", "resource", 1.0, {"idset": "0"}]]), 0)
    version = damaged(bench)
    tail = Tail(bench.store, 0)
    assert [commit.version for commit in tail.poll(1.0)[0]] == [1, 2, 3]
    for _ in range(3):
        with pytest.raises(Corrupt, match=str(version)) as caught:
            tail.poll(0.0)
        assert caught.value.code != "forked"
        tail.subscription.close()  # and connects anew, as after an outage
    set_entry_aside(Journal(bench.store), version, "", 0)
    seen: list[int] = []
    while len(seen) < 3:
        seen += [commit.version for commit in tail.poll(1.0)[0]]
    assert seen == [version, version + 1, version + 2]
    tail.close()


def test_a_follower_does_not_read_what_it_has_written_itself(bench: Any) -> None:
    journal = Journal(bench.store)
    journal.append(Decision([["lively", "resource", 1.0, {"idset": "0"}]]), 0)
    version = damaged(bench)  # who read it would fail
    journal.append(Decision([["lively", "resource", 1.0, {"idset": "0"}]]), 0)
    with closing(Tail(bench.store, 0)) as tail:
        tail.ours.update((f"{version}-{journal.meta.epoch}", f"{version + 1}-{journal.meta.epoch + 1}"))
        seen: list[int] = []
        while version + 1 not in seen:
            seen += [commit.version for commit in tail.poll(1.0)[0]]
        assert version not in seen
        assert tail.ours == {f"{version + 1}-{journal.meta.epoch + 1}"}, "another history's entry is not ours"
