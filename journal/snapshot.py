"""A state as bytes and back. Decides the layout of a snapshot; the store decides how it is kept.

A snapshot is a head (a msgpack map) and a body of sections, each compressed by itself: one of what is no job, one for each
namespace of the user's KVS, one of the graph of resources where there is one, some of active jobs, some of inactive ones in the
order of their ends. An inactive job does not change any more, so its section is packed once and written again as it is; and a
reader unpacks such a section only when somebody asks for one of its jobs.
Whoever goes on from a snapshot (a worker) reads all of it and checks the digest; a reader checks each section's checksum.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import msgpack

from ..kvs.blobs import payload_hash
from ..kvs.errors import Corrupt
from . import fold_config
from .blocks import Block, LazyJobs
from .columns import from_columns, to_columns
from .config import DEFAULT
from .cron import CronTable
from .holding import value_of, word_of
from .idset import mask_of
from .job import INACTIVE, Job
from .keeping import Keeping
from .node import Node, Queue
from .quarantine import Quarantine, entry_word
from .schema import SCHEMA, newer_schema
from .state import PLAIN, State
from .wire import pack, unpack

CHUNK = 60_000
SECTION_JOBS = 1_000
BODY = 2  # layout of the body


# -- writing -------------------------------------------------------------------------------------------------------


def dump(state: State) -> tuple[bytes, list[bytes]]:
    """(head, chunks of at most 64 kB) as a store keeps them."""
    rest = {
        "queues": [queue.value() for queue in state.queues.values()],
        "nodes": [node.value() for node in state.nodes.values()],
        "config": state.config_entry,
        "cron": state.cron.dump(),
        "housekeeping": [keeping.value() for keeping in state.keeping.values()],
        **{name: getattr(state, name) for name in PLAIN},
    }
    if state.quarantine:
        rest["quarantine"] = state.quarantine.dump()
    if state.drawn:
        rest["drawn"] = [value_of(path, used) for path, used in state.drawn.items()]
    if shut := [node.rank for node in state.nodes.values() if node.shut]:
        rest["shut"] = shut
    parts = [zlib.compress(pack(rest), 1)]
    table: list[list[Any]] = [["state", 0, 0.0, 0.0, 0, len(parts[0]), payload_hash(parts[0])]]
    if state.graph is not None:
        data = state.graph.compressed
        parts.append(data)
        table.append(["graph", 1, 0.0, 0.0, 0, len(data), payload_hash(data)])
    for data in state.kvs.dump(lambda value: zlib.compress(pack(value), 1)):
        parts.append(data)
        table.append(["kvs", 1, 0.0, 0.0, 0, len(data), payload_hash(data)])
    active = list(state.active())
    for at in range(0, len(active), SECTION_JOBS):
        some = active[at : at + SECTION_JOBS]
        data = zlib.compress(pack(to_columns(some, jobspecs=True)), 1)
        parts.append(data)
        table.append(["active", len(some), 0.0, 0.0, 0, len(data), payload_hash(data)])
    for block in _blocks(state):
        whole = block.names + block.data
        parts.append(whole)
        table.append([
            "inactive", len(block.ended), block.t_first, block.t_last, len(block.names), len(block.data), payload_hash(whole),
        ])  # fmt: skip
    head = {
        "schema": SCHEMA, "body": BODY, "version": state.version, "epoch": state.epoch, "time": state.time,
        "digest": state.digest(), "sections": table, "tail": state.tail,
    }  # fmt: skip
    head["check"] = payload_hash(pack(head))
    body = b"".join(parts)
    return pack(head), [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]


def _blocks(state: State) -> list[Block]:
    """The inactive jobs in blocks; those packed before are taken as they are unless a member changed or left."""
    jobs, fresh = state.jobs, state.fresh
    if isinstance(jobs, LazyJobs):
        fresh.update((job.id, None) for job in jobs.values() if job.state == INACTIVE)
    packed: list[Block] = []
    for block in state.packed:
        if len(block.ended) == SECTION_JOBS and fresh.keys().isdisjoint(block.ended) and all(map(jobs.__contains__, block.ended)):
            packed.append(block)
        else:  # changed, thinned out, or not full yet
            fresh.update((id, None) for id in block.ended if id in jobs)
    loose = [job for job in map(jobs.get, fresh) if job is not None and job.state == INACTIVE]
    loose.sort(key=lambda job: job.t_inactive)
    packed += [Block.of(loose[at : at + SECTION_JOBS]) for at in range(0, len(loose), SECTION_JOBS)]
    state.packed = packed
    fresh.clear()
    return packed


# -- reading -------------------------------------------------------------------------------------------------------


def read_head(head: bytes) -> dict[str, Any]:
    """The head as a map; "version", "schema" and "digest" are always there. Raises `Corrupt`: bad-snapshot for one that cannot be
    read or does not match its checksum (which older ones have not), newer-schema for one of a newer program."""
    try:
        found = cast("dict[str, Any]", unpack(head))
        check = found.pop("check", None)
        whole = check is None or check == payload_hash(pack(found))
        version, _, _ = found["version"], found["digest"], found["epoch"]
    except (ValueError, TypeError, LookupError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise Corrupt(f"the snapshot's head cannot be read: {repr(error)[:200]}", code="bad-snapshot") from None
    if not whole or type(version) is not int:
        raise Corrupt("the snapshot's head does not match its checksum", code="bad-snapshot")
    if found.get("schema", 1) > SCHEMA or found.get("body", 1) > BODY:
        raise newer_schema("the snapshot", found.get("schema", 1))
    return found


def usable(head: dict[str, Any]) -> bool:
    """Whether it is of this program's schema; one made by an older program is no use: the journal has everything."""
    return bool(head.get("schema", 1) == SCHEMA and head.get("body", 1) == BODY)


def load(head: dict[str, Any], chunks: Iterable[bytes], *, lazy: bool = False) -> State:
    """Inverse of `dump`. Raises `Corrupt` when a section's checksum, or (unless lazy) the digest, does not come out.

    lazy: for readers. The state answers everything, its inactive jobs are unpacked when asked for.
    """
    try:
        return _load(head, chunks, lazy)
    except (ValueError, TypeError, LookupError, AttributeError, zlib.error, msgpack.exceptions.UnpackException) as error:
        text = f"the snapshot of version {head['version']} cannot be read: {repr(error)[:200]}"
        raise Corrupt(text, code="bad-snapshot") from None


def _load(head: dict[str, Any], chunks: Iterable[bytes], lazy: bool) -> State:
    state = State()
    state.version, state.epoch, state.time, state.tail = head["version"], head["epoch"], head["time"], head.get("tail", b"")
    bad = Corrupt(f"the snapshot of version {state.version} does not match its digest", code="bad-snapshot")
    body, at = b"".join(chunks), 0
    blocks: list[Block] = []
    active: list[Job] = []
    for kind, count, t_first, t_last, names, size, checksum in head["sections"]:
        part = body[at : at + names + size]
        at += names + size
        if len(part) != names + size or payload_hash(part) != checksum:
            raise bad
        if kind == "active":
            active += from_columns(unpack(zlib.decompress(part)))
        elif kind == "kvs":
            state.kvs_packed.append(part)
        elif kind == "graph":
            from .resource_graph import ResourceGraph

            state.set_graph(ResourceGraph(zlib.decompress(part), compressed=part))
        elif kind == "inactive":
            blocks.append(Block(part[:names], part[names:], t_first, t_last))
            state.counts[INACTIVE] = state.counts.get(INACTIVE, 0) + count
        else:
            _take_rest(state, unpack(zlib.decompress(part)))
    if lazy:
        state.jobs = LazyJobs(blocks)
    for job in active:
        state.jobs[job.id] = job
        state.counts[job.state] = state.counts.get(job.state, 0) + 1
        state.attention[job.id] = None
    fold_config.set_usage(state)
    if lazy:
        state.partial = True
        return state
    for block in blocks:
        state.jobs.update((job.id, job) for job in block.jobs())
    state.packed = blocks
    state.dirty_jobs.update(state.jobs)
    if state.digest() != head["digest"]:
        raise bad
    state.settled = state.folded
    return state


def unpacked(head: dict[str, Any], chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each piece of a body, decompressed. Raises `Corrupt` for one that does not match its checksum."""
    body, at = b"".join(chunks), 0
    for _, _, _, _, names, size, checksum in head["sections"]:
        part = body[at : at + names + size]
        if len(part) != names + size or payload_hash(part) != checksum:
            raise Corrupt(f"the snapshot of version {head['version']} does not match its digest", code="bad-snapshot")
        yield from map(zlib.decompress, filter(None, (part[:names], part[names:])))
        at += names + size


def load_cron(head: dict[str, Any], chunks: Sequence[bytes]) -> CronTable:
    """The cron table alone, of the snapshot's version."""
    try:
        (kind, _, _, _, names, size, checksum), *_ = head["sections"]
        part = b"".join(chunks[: -(-(names + size) // CHUNK)])[: names + size]
    except (ValueError, TypeError, LookupError) as error:
        text = f"the snapshot of version {head['version']} cannot be read: {repr(error)[:200]}"
        raise Corrupt(text, code="bad-snapshot") from None
    if kind != "state" or payload_hash(part) != checksum:
        raise Corrupt(f"the snapshot of version {head['version']} does not match its digest", code="bad-snapshot")
    table = CronTable.load(unpack(zlib.decompress(part)).get("cron"))
    table.version, table.epoch, table.tail = head["version"], head["epoch"], head.get("tail", b"")
    return table


def _take_rest(state: State, rest: dict[str, Any]) -> None:
    for name in PLAIN:
        setattr(state, name, rest[name])
    state.queues = {value[0]: Queue.from_value(value) for value in rest["queues"]}
    fold_config.load(state, rest["config"])
    state.cron = CronTable.load(rest.get("cron"))
    for value in rest.get("housekeeping", ()):
        keeping = Keeping.from_value(value)
        state.keeping[keeping.job] = keeping
        state.keeping_news[keeping.job] = None
        state.dirty_words.add(f"housekeeping/{keeping.job}")
    state.quarantine = Quarantine.load(rest.get("quarantine"))
    if state.quarantine:
        state.dirty_words.update(("quarantine", *map(entry_word, state.quarantine.table)))
    state.dirty_words.discard(f"queue/{DEFAULT}")
    state.dirty_words.update(f"queue/{name}" for name in state.queues)
    for path, units, ids in rest.get("drawn", ()):
        state.drawn[path] = [units, mask_of(ids)]
        state.drawn_news.add(path)
        state.dirty_words.add(word_of(path))
    for value in rest["nodes"]:
        node = Node.from_value(value)
        state.nodes[node.rank] = node
        state.dirty_words.add(node.rank)
    for rank in rest.get("shut", ()):
        state.nodes[rank].shut = True
