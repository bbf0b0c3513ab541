"""`RedisStore`: the `Store` port over a Redis or Valkey server.

Decides when a command may be sent a second time; everything about content is decided by the scripts. A lost
connection means "unknown": a commit is resent only where its producer's sequence or its own guards make a
second taking impossible, and before a refused resend is reported the journal is searched for the first try.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .appending import (
    arguments,
    check_request,
    header_prefix,
    no_plain_stream,
    parse_answer,
    safe_to_resend,
    script_keys,
)
from .asking import Command, answer, answers
from .errors import Conflict, Corrupt, FluxkvError, Rejected, Unavailable
from .failpoints import ARMED, reach
from .keys import Keys
from .port import Answer, Append, Appended, Entry, Gap, Message, Meta, Store, Subscription, id_pair, next_id
from .reach import connector
from .redis_arrival import ArrivalScripts
from .redis_epochs import EpochScripts, new_epoch
from .redis_keeping import KeepingScripts
from .replies import META_FIELDS, PASSING, as_entry, as_message, as_meta, facts_of, reply_failure
from .resp import Connection, Connector, ReplyError
from .scripts import script
from .uri import parse_server, parse_uri

SCHEMA = 1
_T = TypeVar("_T")
FAILOVER_S = 20.0  # how long a fail-over is waited for, unless somebody says otherwise
_SHORT_S, _LONG_S = 0.02, 0.25  # how long to wait before asking again


def open_store(uri: str, *, kind: type[RedisStore] | None = None, **options: Any) -> Store:
    """The store a URI names (see `uri.py`); `options` go to `RedisStore`, or the `kind` of it. Does not connect yet."""
    parsed = parse_uri(uri)
    address = parse_server(parsed.server)
    if address.kind == "memory":
        from .memory_store import MemoryStore, shared_server

        return MemoryStore(shared_server(address.path), parsed.namespace)
    if address.kind == "ended":
        from .bundle import open_ended

        return open_ended(address.path, parsed.namespace)
    connect = connector(parsed.server, parsed.namespace)
    if address.kind in ("sentinel", "cluster"):
        options = {"patience_s": FAILOVER_S, **options, "expected": lambda: connect.reached}  # there will be a primary
    store = (kind or RedisStore)(connect, parsed.namespace, **options)
    store.server = parsed.server
    return store


class RedisStore(EpochScripts, KeepingScripts, ArrivalScripts):
    """One namespace on a server. Connects at the first call, and again (within `patience_s`) after a loss.

    For one thread: it is not shared between threads. After a fork the child connects anew.

    server: a URL or a function that gives a new `Connection`. fenced: compare the server's replication id
    with the epoch's (off for servers without INFO). memory_limit: soft line in bytes for refusable appends,
    0 for none. expected: whether a server that does not answer at the first call will soon; without it that is not waited for.
    hopeless: asked between tries; once it says so, a server that does not answer is waited for no longer. makes_user: whoever asks
    makes the user again that the server has forgotten, so it is no use to wait for one.
    """

    def __init__(
        self, server: str | Connector, namespace: str = "/", *, patience_s: float = 5.0, fenced: bool = True,
        memory_limit: int = 0, expected: Callable[[], bool] = lambda: False,
        hopeless: Callable[[], bool] = lambda: False, makes_user: bool = False,
    ) -> None:  # fmt: skip
        self.namespace, self.keys = namespace, Keys(namespace)
        self.patience_s = patience_s
        self.memory_limit = memory_limit
        self.fenced = fenced
        self._connect: Connector = connector(server, namespace) if isinstance(server, str) else server
        self._connection: Connection | None = None
        self._pid = 0
        self._was_connected = False
        self._expected, self._hopeless, self._makes_user = expected, hopeless, makes_user
        self._uid = self.state_dir = ""
        self.server = server if isinstance(server, str) else ""

    # -- identity ------------------------------------------------------------------------------------------

    def create(self, *, durability: str, origin_ms: int, created: float, replicas: str = "") -> Meta:
        keys, uid, epoch = self.keys, os.urandom(12).hex(), new_epoch()
        fields = {
            "uid": uid, "epoch": str(epoch), "origin_ms": str(origin_ms), "durability": durability,
            "schema": str(SCHEMA), "created": repr(created), "epochs": f"{epoch}:1",
        }  # fmt: skip
        if replicas:
            fields["replicas"] = replicas
        flat = [part for pair in fields.items() for part in pair]
        answer = self._script(
            "create", [keys.meta, keys.guards, keys.journal, keys.producers, keys.snapshot],
            ["1" if self.fenced else "0", *flat], resend=True,
        )  # fmt: skip
        if answer[0] == b"EXISTS":
            # A resend finds what its own first try made.
            found = self._read_meta() if answer[1] == keys.meta.encode() else None
            if found is None or found.uid != uid:
                raise Rejected(
                    f"there is an instance at {self.namespace} already", code="exists",
                    hint="resume it, or choose another namespace",
                )  # fmt: skip
        self._uid = uid
        return Meta(uid, epoch, 0, 0, origin_ms, durability, SCHEMA, created, fields["epochs"], replicas=replicas)

    def meta(self) -> Meta:
        found = self._read_meta()
        if found is None:
            raise Unavailable(
                f"there is no instance at {self.namespace}",
                code="no-instance",
                hint="start one: fluxkv start",
            )
        self._uid = self._uid or found.uid
        return found

    def _read_meta(self) -> Meta | None:
        return as_meta(self._ask("HMGET", self.keys.meta, *META_FIELDS), self.namespace)

    # -- the journal ---------------------------------------------------------------------------------------

    def append(self, request: Append) -> Answer:
        return self._appended((request,))[0]

    def append_many(self, requests: Sequence[Append]) -> list[Answer]:
        return self._appended(requests) if requests else []

    def _appended(self, requests: Sequence[Append]) -> list[Answer]:
        """Send until each request has an answer."""
        prefixes = [header_prefix(request) for request in requests]
        commands = [self._command(request, prefix) for request, prefix in zip(requests, prefixes, strict=True)]
        answers: list[Answer] = []
        wanted: bytes | None = None
        unknown = False  # whether those without an answer may have been taken already
        waits = self._waits()
        while True:
            try:
                connection = self._connected()
            except Unavailable as error:
                if not next(waits):
                    raise (self._outcome_unknown(error) if unknown else error) from None
                continue
            try:
                if ARMED:
                    reach("append.before", Unavailable)
                replies = self._send_appends(connection, commands[len(answers) :])
                if ARMED:
                    reach("append.after", Unavailable)
            except Unavailable as error:
                self.close()
                unknown = True
                if wanted:
                    answers.clear()  # who answers next may be another server, and has to have them all
                safe = all(safe_to_resend(request) for request in requests[len(answers) :])
                if not safe or not next(waits):
                    raise self._outcome_unknown(error) from None
                continue
            for reply in replies:
                index = len(answers)
                if isinstance(reply, ReplyError):
                    if str(reply).startswith(PASSING) and next(waits):
                        self.close()  # look again who answers there now
                        unknown = unknown or len(replies) > 1  # those behind it may have run
                        break
                    raise self._failure(reply)
                answer = parse_answer(reply, requests[index], self.namespace)
                wanted = (reply[2] if len(reply) == 3 and isinstance(answer, Appended) else None) or wanted
                if self._may_be_ours(answer, requests[index], unknown):
                    answer = self._find(requests[index], prefixes[index]) or answer
                    wanted = wanted or self._ask("HGET", self.keys.meta, "replicas")  # the script has not said it then
                answers.append(answer)
            if len(answers) == len(requests):
                self._uid = requests[0].uid
                if not wanted or self._confirmed(connection, wanted.decode(), answers):
                    return answers
                answers.clear()
                unknown = True
                if not all(map(safe_to_resend, requests)) or not next(waits):
                    raise self._outcome_unknown(Unavailable("lost the connection while waiting for replicas"))

    def _command(self, request: Append, prefix: bytes) -> list[Any]:
        check_request(request)
        values = arguments(request, prefix, fenced=self.fenced, limit=self.memory_limit)
        return script("append").command(script_keys(self.keys, request), values)

    def _confirmed(self, connection: Connection, wanted: str, answers: list[Answer]) -> bool:
        """Wait for the replicas that are to have these. False if the connection is lost meanwhile: who answers next may be
        another server, and is to be asked for the commits themselves."""
        from .replicated import confirm

        try:
            confirm(connection, self.keys, wanted, answers)
        except ReplyError as error:
            raise self._failure(error) from None
        except Unavailable as error:
            if error.code == "not-replicated":
                raise
            self.close()
            return False
        return True

    def _send_appends(self, connection: Connection, commands: list[list[Any]]) -> list[Any]:
        if len(commands) > 1:
            script("append").load(connection)
            return connection.pipeline(commands)
        try:
            return [connection.call(*commands[0])]
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                return [error]
        try:
            return [connection.call("EVAL", script("append").text, *commands[0][2:])]
        except ReplyError as error:
            return [error]

    @staticmethod
    def _may_be_ours(answer: Answer, request: Append, unknown: bool) -> bool:
        if isinstance(answer, Gap):
            return bool(request.producer) and answer.last >= request.seq
        return unknown and not isinstance(answer, Appended)

    def _find(self, request: Append, prefix: bytes) -> Appended | None:
        """Look for this very commit in the journal: its header's client part is its fingerprint."""
        after = request.decided_at
        while True:
            entries = self.read(after, 200)
            for entry in entries:
                if entry.header.startswith(prefix):
                    return Appended(entry.version, entry.epoch, True)
            if len(entries) < 200:
                return None
            after = entries[-1].version

    def read(self, after: int, limit: int = 1000) -> list[Entry]:
        return [as_entry(raw) for raw in self._ask("XRANGE", self.keys.journal, after + 1, "+", "COUNT", limit)]

    def bumps(self, things: Sequence[str]) -> list[int]:
        found = self._ask("HMGET", self.keys.guards, *things) if things else []
        return [id_pair(bump.decode())[0] if bump else 0 for bump in found]

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        journal = self.keys.journal
        replies = self._ask_many([("XRANGE", journal, version, version, "COUNT", 1) for version in versions])
        return [as_entry(raw) for reply in replies for raw in reply]

    def subscribe(self, positions: dict[str, str]) -> Subscription:
        from .subscription import RedisSubscription

        waits = self._waits()
        while True:
            try:
                return RedisSubscription(self._connect, positions)
            except Unavailable:  # a server that goes between a look and this comes back as for any other question
                if not next(waits):
                    raise

    # -- snapshots and pruning -----------------------------------------------------------------------------

    def install_snapshot(
        self, uid: str, epoch: int, head: bytes, chunks: Sequence[bytes], anchor: str = "", version: int = 0
    ) -> bool:
        answer = self._script(
            "install_snapshot", [self.keys.meta, self.keys.snapshot, self.keys.journal],
            [uid, epoch, "1" if self.fenced else "0", anchor, version, head, *chunks], resend=True,
        )  # fmt: skip
        return bool(answer[0] == b"OK")

    def load_snapshot(self) -> tuple[bytes, list[bytes]] | None:
        flat = self._ask("HGETALL", self.keys.snapshot)
        if not flat:
            return None
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        try:
            return found[b"head"], [found[b"%d" % index] for index in range(int(found[b"chunks"]))]
        except KeyError as error:
            raise Corrupt(f"the snapshot of {self.namespace} lacks {error}", code="bad-snapshot") from None

    def prune_guards(self, uid: str, epoch: int, floor: int) -> int:
        gone = 0
        for table, kind in ((self.keys.guards, "guards"), (self.keys.producers, "producers")):
            cursor = b"0"
            while True:
                answer = self._script(
                    "prune_guards",
                    [self.keys.meta, table],
                    [uid, epoch, floor, cursor, 1000, kind],
                    resend=True,
                )
                if answer[0] == b"GONE":
                    raise self._gone()
                if answer[0] != b"OK":
                    what = f"epoch is {int(answer[1])}" if answer[0] == b"EPOCH" else f"tip is {int(answer[1])}"
                    raise Conflict(f"{self.namespace} can not be pruned to {floor}: its {what}", code="epoch")
                gone += answer[2] if kind == "guards" else 0
                cursor = answer[1]
                if cursor == b"0":
                    break
        return gone

    # -- bytes beside the journal --------------------------------------------------------------------------

    def push(self, key: str, data: Sequence[bytes], *, limit: int = 0) -> None:
        cap = ("MAXLEN", "~", limit) if limit else ()
        # Not sent again after a loss: a message may come never, but not twice.
        self._ask_many([("XADD", key, *cap, "*", "m", item) for item in data], resend=False)

    def messages(self, key: str, after: str = "0", limit: int = 1000) -> list[Message]:
        return [as_message(raw) for raw in self._ask("XRANGE", key, "(" + after, "+", "COUNT", limit)]

    def trim(self, key: str, through: str) -> None:
        if key == self.keys.journal:
            raise no_plain_stream(self.namespace)
        self._ask("XTRIM", key, "MINID", next_id(through))

    def delete(self, *keys: str) -> None:
        if keys:
            self._ask("DEL", *keys)

    def lease(self, owner: str, ttl_ms: int, name: str = "") -> bool:
        return bool(self._script("lease", [self.keys.named_lease(name)], [owner, max(0, ttl_ms)], resend=True))

    def memory(self) -> tuple[int, int, int]:
        facts = facts_of(self._ask("INFO", "memory"))
        used, most, total = (int(facts.get(name) or 0) for name in ("used_memory", "maxmemory", "total_system_memory"))
        return used, most, total

    def now(self) -> float:
        seconds, micros = self._ask("TIME")
        return int(seconds) + int(micros) / 1e6

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- asking --------------------------------------------------------------------------------------------

    def _ask(self, *command: Any) -> Any:
        return self._run(lambda connection: answer(connection, command))

    def _ask_many(self, commands: Sequence[Command], *, resend: bool = True, each: bool = False) -> list[Any]:
        return self._run(lambda connection: answers(connection, commands, each=each), resend=resend) if commands else []

    def _script(self, name: str, keys: list[str], values: list[Any], *, resend: bool) -> Any:
        return self._run(lambda connection: script(name).call(connection, keys, values), resend=resend)

    def _run(self, work: Callable[[Connection], _T], *, resend: bool = True) -> _T:
        """Do it on a connection; again on a new one where `resend` says that twice is once."""
        waits = self._waits()
        while True:
            sent = False
            try:
                connection = self._connected(check_uid=True)
                sent = True
                return work(connection)
            except ReplyError as error:
                if not (str(error).startswith(PASSING) and next(waits)):
                    raise self._failure(error) from None
                self.close()  # look again who answers there now
            except Unavailable as error:
                self.close()
                if (sent and not resend) or (self._makes_user and error.code == "refused") or not next(waits):
                    raise

    def _connected(self, *, check_uid: bool = False) -> Connection:
        if self._pid != os.getpid() or (self._connection is not None and self._connection.closed):
            self.close()  # the parent's: answers to the two would mix; or a question on it was interrupted
        if self._connection is None:
            connection = self._connect()
            self._pid = os.getpid()
            self._was_connected = True
            self._connection = connection
            if check_uid and self._uid:  # another server may answer here now; append's script looks itself
                (uid,) = connection.pipeline([("HGET", self.keys.meta, "uid")])
                if uid != self._uid.encode():
                    self.close()
                    raise uid if isinstance(uid, ReplyError) else self._gone()
        return self._connection

    def _waits(self) -> Iterator[bool]:
        """Sleep before each further try; False when patience is over. Who never was connected waits for what is expected."""
        deadline = time.monotonic() + self.patience_s
        pause = _SHORT_S
        while (self._was_connected or self._expected()) and time.monotonic() < deadline and not self._hopeless():
            time.sleep(pause * (0.5 + os.urandom(1)[0] / 510))
            pause = min(_LONG_S, pause * 2)
            yield True
        while True:
            yield False

    def _gone(self) -> Rejected:
        return Rejected(
            f"the instance at {self.namespace} is not the one it was", code="gone",
            hint="it was removed or created anew; start again",
        )  # fmt: skip

    def _failure(self, error: ReplyError) -> FluxkvError:
        return reply_failure(error, f"{self.namespace}")

    @staticmethod
    def _outcome_unknown(error: Unavailable) -> Unavailable:
        return Unavailable(
            f"{error}; the commit may be in the journal or not", code="outcome-unknown",
            hint="read the tail of the journal before trying again",
        )  # fmt: skip
