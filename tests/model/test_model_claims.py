"""A node's use against plain sets; ids that never repeat; bytes that come back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fluxkv.journal.claims import Claim, Draw, from_wire, to_wire
from fluxkv.journal.ids import IdSource, encode, f58, parse_id
from fluxkv.journal.node import Node
from fluxkv.journal.wire import Commit, pack, pack_events, read_commit, read_header, unpack, unpack_events
from fluxkv.kvs.blobs import payload_hash
from fluxkv.kvs.errors import Corrupt
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Appended, Entry

MODEST = settings(max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
masks = st.integers(0, 0x1F)
vertices = st.lists(st.integers(0, 99).map(lambda n: f"/rack{n}"), unique=True, max_size=3).map(sorted)
draws = vertices.map(lambda names: tuple(Draw(name, i + 1, i * 5) for i, name in enumerate(names)))


class NodeMachine(RuleBasedStateMachine):
    """A node of cores 0-3, gpus 0-1, 100 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(0, "n", 0xF, 0x3, 100, ())
        self.held: dict[int, Claim] = {}
        self.next = 1

    @rule(cores=masks, gpus=st.integers(0, 7), memory=st.sampled_from([0, 0, 30, 60, 101]))
    def take(self, cores: int, gpus: int, memory: int) -> None:
        claim = Claim(0, cores, gpus, memory, 1)
        used = list(self.held.values())
        fits = (
            not cores & ~0xF and not gpus & ~0x3
            and not any(c.cores & cores or c.gpus & gpus for c in used)
            and (not memory or sum(c.memory_mb for c in used) + memory <= 100)
        )  # fmt: skip
        assert self.node.take(claim, self.next) == fits
        if fits:
            self.held[self.next] = claim
            self.next += 1

    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        if self.held:
            job = data.draw(st.sampled_from(sorted(self.held)))
            self.node.give(self.held.pop(job), job)

    @invariant()
    def agrees(self) -> None:
        assert self.node.jobs == set(self.held)
        assert self.node.used_cores == sum(c.cores for c in self.held.values())
        assert self.node.used_gpus == sum(c.gpus for c in self.held.values())
        assert self.node.used_memory_mb == sum(c.memory_mb for c in self.held.values())
        again = Node.from_value(unpack(pack(self.node.value())))
        assert again.value() == self.node.value()


TestNodeMachine = NodeMachine.TestCase
TestNodeMachine.settings = MODEST

# -- bytes -----------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(), st.binary()
)
contents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.one_of(st.text(), st.integers(0, 2**64 - 1)), inner, max_size=4),
    max_leaves=12,
)
events = st.tuples(
    st.text(), st.one_of(st.integers(0, 2**64 - 1), st.text()), st.floats(allow_nan=False),
    st.one_of(st.none(), st.dictionaries(st.text(), contents, max_size=4)),
).map(list)  # fmt: skip
things = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)
                  .filter(lambda text: text != "!"), max_size=40, unique=True)  # fmt: skip
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(st.lists(events, min_size=1, max_size=6))
def test_events_come_back_as_they_were(rows: list[Any]) -> None:
    assert unpack_events(pack_events(rows)) == rows


@QUICK
@given(st.binary(max_size=60))
def test_foreign_bytes_are_corrupt_and_nothing_else(data: bytes) -> None:
    try:
        found = unpack_events(data)
    except Corrupt:
        return
    assert isinstance(found, list)


@QUICK
@given(things, things, st.lists(events, min_size=1, max_size=3), st.dictionaries(st.text(), contents, max_size=3))
def test_a_commit_comes_back_from_a_store(bumps: list[str], clears: list[str], rows: list[Any], extra: dict[str, Any]) -> None:
    store = MemoryStore(MemoryServer(lambda: 1234.567891))
    meta = store.create(durability="strict", origin_ms=0, created=0.0)
    inbox = (("node/0", b"x"), ("node/1", b""))
    request = Append(meta.uid, meta.epoch, 0, pack_events(rows), "p", 1, bumps=tuple(bumps), clears=tuple(clears),
                     inbox=inbox, extra=pack(extra))  # fmt: skip
    assert store.append(request) == Appended(1, meta.epoch)
    entry = store.read(0)[0]
    commit, header = read_commit(entry), read_header(entry)
    assert commit == Commit(1, meta.epoch, "p", 1, 0, 1234.567891, rows, extra, payload_hash(entry.payload))
    assert (header.bumps, header.clears, header.inbox) == (bumps, clears, ["node/0", "node/1"])
    assert (header.producer, header.seq, header.extra, header.time) == ("p", 1, extra, 1234.567891)
    flipped = bytes([entry.payload[-1] ^ 1])
    with pytest.raises(Corrupt, match="checksum"):
        read_commit(Entry(1, meta.epoch, entry.header, entry.payload[:-1] + flipped))


@QUICK
@given(st.lists(st.builds(Claim, st.integers(0, 9), masks, masks, st.integers(0, 99), st.integers(0, 9), draws), max_size=5))
def test_claims_come_back_from_events(claims: list[Claim]) -> None:
    assert from_wire(unpack(pack(to_wire(claims)))) == tuple(claims)


# -- ids -------------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(1, 700)), min_size=1, max_size=8))
def test_ids_never_repeat_whatever_the_clock_does(draws: list[tuple[int, int, int]]) -> None:
    """Two generators; the clock stands, runs, and is asked for more than a millisecond holds."""
    now = 1_000_000
    sources = {}

    def clock() -> int:
        nonlocal now
        asked.append(1)
        if len(asked) > 3:  # whoever waits for the next millisecond gets it
            now += 1
            asked.clear()
        return now

    asked: list[int] = []
    for generator in (0, 1):
        sources[generator] = IdSource(0, generator, clock)
    seen: set[int] = set()
    last = {0: -1, 1: -1}
    for generator, pause, count in draws:
        now += pause
        ids = sources[generator].take(count)
        assert len(ids) == count
        assert ids == sorted(ids)
        assert ids[0] > last[generator]
        last[generator] = ids[-1]
        assert not seen.intersection(ids)
        seen.update(ids)


@QUICK
@given(st.integers(0, 2**64 - 1))
def test_ids_come_back_from_every_spelling(id: int) -> None:
    assert parse_id(f58(id)) == id
    for kind in ("dec", "hex", "dothex", "f58", "f58plain"):
        assert parse_id(encode(id, kind)) == id
