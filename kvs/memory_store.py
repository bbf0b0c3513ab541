"""`MemoryStore`: the `Store` port on plain tables. The reference model, and the simulator's disk.

Gives the same answers as `append.lua`, check by check in the same order. Deterministic: time and randomness
are arguments. One `MemoryServer` holds many namespaces and has many handles; it can be restarted, go down, be
copied and put back (a lost tail, a fork).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from .appending import check_request, conflicted, header_prefix, refusal
from .blobs import payload_hash
from .errors import Conflict, Rejected, Unavailable
from .keys import Keys
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
)  # fmt: skip
from .replies import id_pair

__all__ = ["MemoryServer", "MemoryStore", "shared_server"]


class MemoryStore:
    """A handle on one namespace of a `MemoryServer`."""

    def __init__(self, server: MemoryServer, namespace: str = "/", *, memory_limit: int = 0) -> None:
        self.server = server
        self.namespace = namespace
        self.keys = Keys(namespace)
        self.memory_limit = memory_limit

    # -- identity ------------------------------------------------------------------------------------------

    def create(self, *, durability: str, origin_ms: int, created: float) -> Meta:
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
            server.tables.instances[self.namespace] = made
            server.tables.journals[self.namespace] = []
            server.check("create", "after")
            return made.meta()

    def meta(self) -> Meta:
        self.server.check("meta")
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

    def open_epoch(self, uid: str, old_epoch: int, tip: int) -> Meta:
        with self.server.changed:
            self.server.check("open_epoch")
            found = self._named(uid)
            if (found.epoch, found.version) != (old_epoch, tip):
                raise Conflict(
                    f"{self.namespace} is at epoch {found.epoch}, version {found.version}, "
                    f"not at {old_epoch}, {tip}",
                    code="epoch", hint="re-read the tail",
                )  # fmt: skip
            if self._tip() != found.tip:
                raise refusal("CORRUPT", f"the journal ends at {self._tip()}, meta says {found.tip}", self.namespace)
            found.epoch = self.server.random_epoch()
            found.replid = self.server.replid
            self.server.check("open_epoch", "after")
            return found.meta()

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
        if found.epoch != request.epoch or found.replid != self.server.replid:
            return StaleEpoch(found.epoch)
        tip = self._tip()
        if keys.journal in aliens or tip != found.tip:
            raise refusal("CORRUPT", f"the journal ends at {tip}, meta says {found.tip}", self.namespace)
        if keys.guards in aliens or found.mark != found.version:
            raise refusal("CORRUPT", f"the guard table is of version {found.mark}", self.namespace)
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
        if request.refusable and 0 < self.memory_limit < self.server.used_memory:
            raise refusal("FULL", str(self.server.used_memory), self.namespace)
        return None

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
        moved = {thing for thing, version in request.exact if guards.get(thing) != version}
        moved.update(thing for thing in request.absent if thing in guards)
        for thing in request.since:
            if guards[thing] > request.decided_at if thing in guards else forgetful:
                moved.add(thing)
        return moved

    def _write(self, request: Append) -> Appended:
        found, tables = self._named(request.uid), self.server.tables
        version = found.version + 1
        micros = round(self.server.clock() * 1_000_000)
        header = header_prefix(request) + b"\xb0%016d" % micros
        entry = Entry(version, found.epoch, header, request.payload)
        tables.journals[self.namespace].append(entry)
        for thing in request.bumps:
            found.guards[thing] = version
        for thing in request.clears:
            found.guards.pop(thing, None)
        for name, message in request.inbox:
            stream = tables.streams.setdefault(self.keys.inbox(name), MemoryStream())
            stream.add((version, found.epoch), message)
        if request.producer:
            found.producers[request.producer] = (request.seq, entry.id, payload_hash(request.payload))
        found.version, found.tip, found.mark = version, entry.id, version
        return Appended(version, found.epoch)

    def read(self, after: int, limit: int = 1000) -> list[Entry]:
        self.server.check("read")
        journal = self.server.tables.journals.get(self.namespace, [])
        first = bisect_right(journal, after, key=lambda entry: entry.version)
        return journal[first : first + limit]

    def bumps(self, things: Sequence[str]) -> list[int]:
        self.server.check("bumps")
        guards = self._instance().guards
        return [guards.get(thing, 0) for thing in things]

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        found = []
        for version in versions:
            found += [entry for entry in self.read(version - 1, 1) if entry.version == version]
        return found

    def subscribe(self, positions: dict[str, str]) -> Subscription:
        self.server.check("subscribe")
        return MemorySubscription(self.server, positions)

    # -- snapshots and pruning -----------------------------------------------------------------------------

    def install_snapshot(self, uid: str, epoch: int, head: bytes, chunks: Sequence[bytes]) -> bool:
        with self.server.changed:
            self.server.check("install_snapshot")
            found = self.server.tables.instances.get(self.namespace)
            if found is None or (found.uid, found.epoch, found.replid) != (uid, epoch, self.server.replid):
                return False
            found.snapshot = (head, list(chunks))
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
            found.floor = max(found.floor, floor)
            old = [thing for thing, bump in found.guards.items() if thing.startswith("job/") and bump <= floor]
            for thing in old:
                del found.guards[thing]
            for name in [name for name, (_, tip, _) in found.producers.items() if id_pair(tip)[0] <= floor]:
                del found.producers[name]
            return len(old)

    # -- bytes beside the journal --------------------------------------------------------------------------

    def put_blobs(self, blobs: dict[str, bytes]) -> None:
        self.server.check("put_blobs")
        self.server.tables.blobs.setdefault(self.namespace, {}).update(blobs)

    def get_blobs(self, names: Sequence[str]) -> list[bytes | None]:
        self.server.check("get_blobs")
        held = self.server.tables.blobs.get(self.namespace, {})
        return [held.get(name) for name in names]

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
                if id_pair(through)[0] >= self._instance().version:
                    raise Rejected(f"the tip of {self.namespace} is never trimmed", code="bad-trim")
                journal = self.server.tables.journals[self.namespace]
                journal[:] = [entry for entry in journal if (entry.version, entry.epoch) > id_pair(through)]
            elif key in self.server.tables.streams:
                stream = self.server.tables.streams[key]
                stream.items = [item for item in stream.items if item[0] > id_pair(through)]

    def delete(self, *keys: str) -> None:
        with self.server.changed:
            self.server.check("delete")
            tables = self.server.tables
            for key in keys:
                tables.streams.pop(key, None)
                tables.aliens.discard(key)
                if key == self.keys.meta:
                    tables.instances.pop(self.namespace, None)
                elif key == self.keys.journal:
                    tables.journals[self.namespace] = []
                elif key == self.keys.blobs:
                    tables.blobs.pop(self.namespace, None)
                elif key == self.keys.lease:
                    tables.leases.pop(self.namespace, None)
                elif self.namespace in tables.instances:
                    self._delete_table(tables.instances[self.namespace], key)

    def _delete_table(self, found: Instance, key: str) -> None:
        if key == self.keys.guards:
            found.guards.clear()
            found.mark = None
        elif key == self.keys.producers:
            found.producers.clear()
        elif key == self.keys.snapshot:
            found.snapshot = None

    def lease(self, owner: str, ttl_ms: int) -> bool:
        with self.server.changed:
            self.server.check("lease")
            now = self.server.clock()
            holder, until = self.server.tables.leases.get(self.namespace, ("", 0.0))
            if holder not in ("", owner) and now < until:
                return False
            if ttl_ms <= 0:
                self.server.tables.leases.pop(self.namespace, None)
            else:
                self.server.tables.leases[self.namespace] = (owner, now + ttl_ms / 1000)
            return True

    def now(self) -> float:
        self.server.check("now")
        return self.server.clock()

    def close(self) -> None:
        """Nothing to give back."""
