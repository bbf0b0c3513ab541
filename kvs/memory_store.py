"""`MemoryStore`: the `Store` port on plain tables. The reference model, and the simulator's disk.

Gives the same answers as `append.lua`, check by check in the same order. Deterministic: time and randomness
are arguments. One `MemoryServer` holds many namespaces and has many handles; it can be restarted, go down, be
copied and put back (a lost tail, a fork).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from .appending import (
    MARK,
    by_id,
    check_request,
    conflicted,
    header_prefix,
    no_plain_stream,
    refusal,
    same_bump,
)  # fmt: skip
from .blobs import payload_hash
from .epochs import is_anchored
from .errors import Conflict, Rejected, Unavailable
from .keys import Keys
from .memory_arrival import MemoryArrival
from .memory_epochs import MemoryEpochs, put_back
from .memory_keeping import MemoryKeeping
from .memory_server import Instance, MemoryServer, shared_server
from .memory_streams import MemoryStream, MemorySubscription
from .port import (
    Answer,
    Append,
    Appended,
    Entry,
    Gap,
    Message,
    Meta,
    StaleEpoch,
    Subscription,
    id_pair,
)  # fmt: skip
from .replicated import check
from .replies import wrong_type

__all__ = ["MemoryServer", "MemoryStore", "shared_server"]


class MemoryStore(MemoryEpochs, MemoryKeeping, MemoryArrival):
    """A handle on one namespace of a `MemoryServer`."""

    def __init__(self, server: MemoryServer, namespace: str = "/", *, memory_limit: int = 0) -> None:
        self.server, self.namespace, self.keys = server, namespace, Keys(namespace)
        self.memory_limit = memory_limit

    # -- identity ------------------------------------------------------------------------------------------

    def create(self, *, durability: str, origin_ms: int, created: float, replicas: str = "") -> Meta:
        server = self.server
        with server.changed:
            server.check("create")
            if self.namespace in server.tables.instances:
                raise Rejected(
                    f"there is an instance at {self.namespace} already", code="exists",
                    hint="resume it, or choose another namespace",
                )  # fmt: skip
            uid = f"{server.rng.getrandbits(96):024x}"
            made = Instance(uid, server.random_epoch(), server.replid, origin_ms, durability, created)
            made.epochs, made.replicas = f"{made.epoch}:1", replicas
            server.tables.instances[self.namespace] = made
            server.tables.journals[self.namespace] = []
            server.took(False, lambda: put_back(server.tables.instances, [(self.namespace, None)]))
            server.check("create", "after")
            return made.meta()

    def meta(self) -> Meta:
        self.server.check("meta")
        if self.keys.meta in self.server.tables.aliens:
            raise wrong_type(self.keys.meta)
        return self._instance().meta()

    def _instance(self) -> Instance:
        found = self.server.tables.instances.get(self.namespace)
        if found is None:
            raise Unavailable(
                f"there is no instance at {self.namespace}",
                code="no-instance",
                hint="start one: fluxkv start",
            )
        return found

    def _named(self, uid: str) -> Instance:
        found = self.server.tables.instances.get(self.namespace)
        if found is None or found.uid != uid:
            raise refusal("GONE", "", self.namespace)
        return found

    # -- the journal ---------------------------------------------------------------------------------------

    def append(self, request: Append) -> Answer:
        check_request(request)
        with self.server.changed:
            self.server.check("append")
            answer = self._decide(request)
            if answer is None:
                answer = self._write(request)
                self.server.wake()
            self.server.check("append", "after")
            wanted = self._instance().replicas
            if wanted and isinstance(answer, Appended):
                check(self.server.replicas, wanted, [answer])
            return answer

    def append_many(self, requests: Sequence[Append]) -> list[Answer]:
        return [self.append(request) for request in requests]

    def _tip(self) -> str:
        journal = self.server.tables.journals.get(self.namespace)
        return journal[-1].id if journal else "0-0"

    def _decide(self, request: Append) -> Answer | None:
        """Every check of the script, in its order; None if the commit may be written."""
        aliens, keys = self.server.tables.aliens, self.keys
        if keys.meta in aliens:
            raise refusal("CORRUPT", f"{keys.meta} is of the wrong type", self.namespace)
        found = self._named(request.uid)
        if found.sealed:
            raise refusal("ENDED", "", self.namespace)
        if found.fork:
            raise refusal("LOST", found.fork, self.namespace)
        if found.epoch != request.epoch or found.replid != self.server.replid:
            return StaleEpoch(found.epoch)
        tip = self._tip()
        if keys.journal in aliens or tip != found.tip:
            raise refusal("CORRUPT", f"the journal ends at {tip}, meta says {found.tip}", self.namespace)
        if keys.guards in aliens or found.mark != found.version:
            raise refusal("CORRUPT", f"the guard table is of version {found.mark}", self.namespace)
        if request.decided_at > found.version or not self._anchored(request.anchor):
            there = self._entry(request.decided_at)
            raise refusal("FORK", there.id if there else tip, self.namespace)
        if request.producer:
            if keys.producers in aliens:
                raise refusal("CORRUPT", f"{keys.producers} is of the wrong type", self.namespace)
            answer = self._sequence(found, request)
            if answer is not None:
                return answer
        moved = self._moved(found, request)
        if moved:
            return conflicted(request, moved)
        for name, _ in request.inbox:
            key = keys.inbox(name)
            stream = self.server.tables.streams.get(key)
            if key in aliens or (stream is not None and stream.last[0] > found.version):
                raise refusal("CORRUPT", f"{key} can not take a message", self.namespace)
        if request.refusable and 0 < (self.memory_limit or found.room) < self.server.used_memory:
            raise refusal("FULL", str(self.server.used_memory), self.namespace)
        return None

    def _anchored(self, anchor: str) -> bool:
        """Whether the history has this entry (`epochs.anchor`), or, where it was trimmed, may have had it."""
        if not anchor:
            return True
        at = self._entry(id_pair(anchor.partition(":")[0])[0])
        return at is None or is_anchored(at, anchor)

    def _entry(self, version: int) -> Entry | None:
        journal = self.server.tables.journals.get(self.namespace, [])
        at = bisect_right(journal, version - 1, key=lambda entry: entry.version)
        return journal[at] if at < len(journal) and journal[at].version == version else None

    def _sequence(self, found: Instance, request: Append) -> Answer | None:
        last, name, digest = found.producers.get(request.producer, (0, "", b""))
        if request.seq == last:
            if digest != payload_hash(request.payload):
                why = f"producer {request.producer} used sequence {last} for two payloads"
                raise refusal("CORRUPT", why, self.namespace)
            return Appended(*id_pair(name), True)
        return Gap(last) if request.seq != last + 1 else None

    @staticmethod
    def _moved(found: Instance, request: Append) -> set[str]:
        guards = found.guards
        forgetful = request.decided_at < found.floor  # what is absent may have been bumped since, and pruned
        moved = {thing for thing, id in request.exact if thing not in guards or not same_bump(guards[thing], str(id))}
        moved.update(thing for thing in request.absent if thing in guards or (forgetful and thing.startswith("job/")))
        for thing in request.since:
            if id_pair(guards[thing])[0] > request.decided_at if thing in guards else forgetful:
                moved.add(thing)
        return moved

    def _write(self, request: Append) -> Appended:
        found, tables = self._named(request.uid), self.server.tables
        version = found.version + 1
        micros = round(self.server.clock() * 1_000_000)
        header = header_prefix(request) + b"\xb0%016d" % micros
        entry = Entry(version, found.epoch, header, request.payload)
        if self.server.remember:
            self.server.took(True, self._undo(found, request))
        tables.journals[self.namespace].append(entry)
        for thing in request.bumps:
            found.guards[thing] = entry.id if by_id(thing) else str(version)
        found.guards.update(request.sets)
        for thing in request.clears:
            found.guards.pop(thing, None)
        for name, message in request.inbox:
            stream = tables.streams.setdefault(self.keys.inbox(name), MemoryStream())
            stream.add((version, found.epoch), message)
        if request.producer:
            found.producers[request.producer] = (request.seq, entry.id, payload_hash(request.payload))
        found.version, found.tip, found.mark = version, entry.id, version
        return Appended(version, found.epoch)

    def _undo(self, found: Instance, request: Append) -> Callable[[], None]:
        """What takes back a commit that is about to be written."""
        tables, things = self.server.tables, (*request.bumps, *request.clears, *(thing for thing, _ in request.sets))
        guards = [(thing, found.guards.get(thing)) for thing in things]
        before, producer = (found.version, found.tip, found.mark), found.producers.get(request.producer)
        inboxes = [self.keys.inbox(name) for name, _ in request.inbox]
        lasts = [tables.streams[key].last if key in tables.streams else (0, 0) for key in inboxes]

        def undo() -> None:
            tables.journals[self.namespace].pop()
            put_back(found.guards, guards)
            put_back(found.producers, [(request.producer, producer)] if request.producer else [])
            found.version, found.tip, found.mark = before
            for key, last in zip(inboxes, lasts, strict=True):
                stream = tables.streams[key]
                stream.items = [item for item in stream.items if item[0] <= last]
                stream.last = last

        return undo

    def read(self, after: int, limit: int = 1000) -> list[Entry]:
        self.server.check("read")
        journal = self.server.tables.journals.get(self.namespace, [])
        first = bisect_right(journal, after, key=lambda entry: entry.version)
        return journal[first : first + limit]

    def bumps(self, things: Sequence[str]) -> list[int]:
        self.server.check("bumps")
        found = self._instance()
        guards = {**found.guards, MARK: str(found.mark or 0)} if MARK in things else found.guards
        return [id_pair(guards.get(thing, "0"))[0] for thing in things]

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        found = []
        for version in versions:
            found += [entry for entry in self.read(version - 1, 1) if entry.version == version]
        return found

    def subscribe(self, positions: dict[str, str]) -> Subscription:
        self.server.check("subscribe")
        return MemorySubscription(self.server, positions)

    # -- snapshots and pruning -----------------------------------------------------------------------------

    def install_snapshot(
        self, uid: str, epoch: int, head: bytes, chunks: Sequence[bytes], anchor: str = "", version: int = 0
    ) -> bool:
        with self.server.changed:
            self.server.check("install_snapshot")
            found = self.server.tables.instances.get(self.namespace)
            if found is None or (found.uid, found.epoch, found.replid) != (uid, epoch, self.server.replid):
                return False
            ahead = id_pair(anchor.partition(":")[0] or "0")[0] > found.version
            if found.fork or ahead or not self._anchored(anchor) or version < id_pair(found.trimmed)[0]:
                return False
            self._undoable(found, "snapshot", "snapshot_version")
            found.snapshot, found.snapshot_version = (head, list(chunks)), version
            return True

    def load_snapshot(self) -> tuple[bytes, list[bytes]] | None:
        self.server.check("load_snapshot")
        found = self.server.tables.instances.get(self.namespace)
        if found is None or found.snapshot is None:
            return None
        return found.snapshot[0], list(found.snapshot[1])

    def prune_guards(self, uid: str, epoch: int, floor: int) -> int:
        with self.server.changed:
            self.server.check("prune_guards")
            found = self._named(uid)
            if found.epoch != epoch or floor > found.version:
                what = f"epoch is {found.epoch}" if found.epoch != epoch else f"tip is {found.version}"
                raise Conflict(f"{self.namespace} can not be pruned to {floor}: its {what}", code="epoch")
            self._undoable(found, "floor")
            found.floor = max(found.floor, floor)
            old = [
                (thing, bump) for thing, bump in found.guards.items()
                if thing.startswith("job/") and id_pair(bump)[0] <= floor
            ]  # fmt: skip
            idle = [(name, record) for name, record in found.producers.items() if id_pair(record[1])[0] <= floor]
            for thing, _ in old:
                del found.guards[thing]
            for name, _ in idle:
                del found.producers[name]
            self.server.took(False, lambda: put_back(found.guards, old))
            self.server.took(False, lambda: put_back(found.producers, idle))
            return len(old)

    # -- bytes beside the journal --------------------------------------------------------------------------

    def push(self, key: str, data: Sequence[bytes], *, limit: int = 0) -> None:
        with self.server.changed:
            self.server.check("push")
            stream = self.server.tables.streams.setdefault(key, MemoryStream()) if data else MemoryStream()
            for item in data:
                stream.add(stream.next_after(int(self.server.clock() * 1000)), item)
            if limit:
                del stream.items[:-limit]
            self.server.wake()

    def messages(self, key: str, after: str = "0", limit: int = 1000) -> list[Message]:
        self.server.check("messages")
        stream = self.server.tables.streams.get(key)
        return stream.after(id_pair(after), limit) if stream is not None else []

    def trim(self, key: str, through: str) -> None:
        with self.server.changed:
            self.server.check("trim")
            if key == self.keys.journal:
                raise no_plain_stream(self.namespace)
            if key in self.server.tables.streams:
                stream = self.server.tables.streams[key]
                before = stream.items
                stream.items = [item for item in stream.items if item[0] > id_pair(through)]
                self.server.took(False, lambda: setattr(stream, "items", before))

    def delete(self, *keys: str) -> None:
        with self.server.changed:
            self.server.check("delete")
            tables = self.server.tables
            for key in keys:
                self.server.drop_stream(key)
                tables.aliens.discard(key)
                if key == self.keys.meta:
                    tables.instances.pop(self.namespace, None)
                elif key == self.keys.journal:
                    tables.journals[self.namespace] = []
                elif key == self.keys.blobs:
                    tables.blobs.pop(self.namespace, None)
                elif key == self.keys.lease:
                    tables.leases.pop(key, None)
                elif self.namespace in tables.instances:
                    self._delete_table(tables.instances[self.namespace], key)

    def _delete_table(self, found: Instance, key: str) -> None:
        if key == self.keys.guards:
            found.guards.clear()
            found.mark = None
        elif key == self.keys.producers:
            found.producers.clear()
        elif key == self.keys.snapshot:
            found.snapshot, found.snapshot_version = None, 0

    def lease(self, owner: str, ttl_ms: int, name: str = "") -> bool:
        with self.server.changed:
            self.server.check("lease")
            now = self.server.clock()
            key = self.keys.named_lease(name)
            holder, until = self.server.tables.leases.get(key, ("", 0.0))
            if holder not in ("", owner) and now < until:
                return False
            if ttl_ms <= 0:
                self.server.tables.leases.pop(key, None)
            else:
                self.server.tables.leases[key] = (owner, now + ttl_ms / 1000)
            return True

    def now(self) -> float:
        self.server.check("now")
        return self.server.clock()

    def close(self) -> None:
        """Nothing to give back."""
