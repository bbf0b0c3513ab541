"""What a child's user tries on the server it shares: every command it has, on every key of others, by every way to name one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from servers import Served

from fluxkv.kvs import acl
from fluxkv.kvs.children import Child
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Append
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.resp import ReplyError, RespConnection
from fluxkv.kvs.server import start_server

PARENT, OWN, WORD = "/p", "/p/ƒ6", "secret"
OTHERS = (PARENT, "/", "/p/ƒB", "/p/ƒ6.2", "/p/ƒ6.2/ƒ7", "/p/ƒ6x", "/p/ƒ", "/q/ƒ6")
KEY, MINE = object(), Keys(OWN).waited
ATTACKS: dict[str, tuple[Any, ...]] = {
    "hget": (KEY, "f"), "hset": (KEY, "f", "v"), "hdel": (KEY, "uid"), "hmget": (KEY, "uid"), "hgetall": (KEY,), "hscan": (KEY, 0),
    "hkeys": (KEY,), "hlen": (KEY,), "hexists": (KEY, "uid"), "hincrby": (KEY, "version", 1), "xadd": (KEY, "*", "h", "x"),
    "xrange": (KEY, "-", "+"), "xrevrange": (KEY, "+", "-"), "xread": ("STREAMS", KEY, 0), "xtrim": (KEY, "MAXLEN", 0),
    "xlen": (KEY,), "xdel": (KEY, "1-1"), "xinfo": ("STREAM", KEY), "get": (KEY,), "set": (KEY, "v"), "del": (KEY,),
    "unlink": (KEY,), "exists": (KEY,), "type": (KEY,), "pexpire": (KEY, 1), "pttl": (KEY,), "dump": (KEY,),
    "restore": (KEY, 0, b"\x00\x01x\x0b\x00", "REPLACE"),
}  # fmt: skip
BESIDE = (  # a key of its own before somebody else's
    ("DEL", MINE, KEY), ("UNLINK", MINE, KEY), ("EXISTS", MINE, KEY), ("XREAD", "STREAMS", MINE, KEY, 0, 0),
    ("XREAD", "BLOCK", 1, "STREAMS", MINE, KEY, "$", "$"), ("SET", KEY, "v", "GET"), ("XADD", KEY, "NOMKSTREAM", "*", "a", "b"),
)  # fmt: skip
CHANGES = frozenset(("hset", "hdel", "hincrby", "xadd", "xtrim", "xdel", "set", "del", "unlink", "pexpire", "restore"))
# They name no key. SCAN shows names (and kinds); scripts run with the rights of who runs them.
KEYLESS = {"auth", "hello", "ping", "select", "info", "role", "time", "wait", "config", "client", "cluster", "eval", "evalsha",
           "script", "scan", "asking"}  # fmt: skip
REFUSED = """ACL LIST|ACL GETUSER default|ACL SETUSER me on|ACL DELUSER default|ACL LOG|ACL WHOAMI
ACL DRYRUN default get a|ACL SAVE|CONFIG GET *|CONFIG SET maxmemory 1|CONFIG REWRITE|CONFIG RESETSTAT|CLIENT LIST
CLIENT INFO|CLIENT KILL TYPE normal|CLIENT PAUSE 1|CLIENT UNBLOCK 1|CLIENT TRACKING on BCAST|CLIENT NO-EVICT on
CLIENT REPLY OFF|MONITOR|KEYS *|RANDOMKEY|DBSIZE|SELECT {other}|RENAME {mine} {key}|RENAMENX {key} {mine}
COPY {key} {mine}|COPY {mine} {key}|MOVE {key} 1|SWAPDB 0 1|SORT {key} STORE {mine}|SORT {mine} BY nosort GET {key}
SORT_RO {mine} GET {key}|OBJECT ENCODING {key}|OBJECT FREQ {key}|MEMORY USAGE {key}|MEMORY DOCTOR|DEBUG OBJECT {key}
DEBUG SLEEP 0|GETDEL {key}|GETEX {key}|APPEND {key} x|EXPIRE {key} 1|PERSIST {key}|TOUCH {key}|BITOP NOT {mine} {key}
SUNIONSTORE {mine} {key}|PFMERGE {mine} {key}|XGROUP CREATE {key} g 0|XCLAIM {key} g c 0 1-1|XAUTOCLAIM {key} g c 0 0
XSETID {key} 9-9|XREADGROUP GROUP g c STREAMS {key} 0|MIGRATE localhost 1 {key} 0 1|MULTI|WATCH {key}|PUBLISH a b
SUBSCRIBE a|PSUBSCRIBE *|SSUBSCRIBE a|SPUBLISH a b|PUBSUB CHANNELS|FUNCTION LIST|FUNCTION FLUSH|FUNCTION DUMP
FUNCTION RESTORE x|FCALL f 0|FCALL_RO f 0|SCRIPT FLUSH|SCRIPT KILL|SCRIPT EXISTS a|SCRIPT DEBUG YES|EVAL_RO return(1) 0
FLUSHDB|FLUSHALL|SAVE|BGSAVE|BGREWRITEAOF|SLOWLOG GET|SLOWLOG RESET|LATENCY DOCTOR|MODULE LIST|MODULE LOAD x
REPLICAOF NO ONE|SYNC|PSYNC ? -1|REPLCONF ACK 1|SHUTDOWN NOSAVE|FAILOVER|COMMAND GETKEYS get {key}|CLUSTER INFO
CLUSTER NODES|CLUSTER RESET|WAITAOF 0 0 1|READONLY"""
LUA = (
    "return redis.call('SELECT', ARGV[2])", "return redis.call('KEYS', '*')", "return redis.call('CONFIG', 'GET', '*')",
    "return redis.call('RENAME', KEYS[1] or ARGV[1], ARGV[1])", "return redis.call('MOVE', ARGV[1], ARGV[2])",
    "redis.replicate_commands(); return redis.call('DEL', ARGV[1])",
    "redis.set_repl(redis.REPL_ALL); return redis.call('SET', ARGV[1], 'x')",
    "return {err = tostring(redis.pcall('FLUSHALL')['err'])}", "return {err = tostring(redis.pcall('GET', ARGV[1])['err'])}",
    "string.match = nil; return 1", "redis.call = nil; return 1", "rawset(_G, 'tonumber', 1); return 1", "KEPT = ARGV[1]; return 1",
    "getmetatable('').__index = function() return 'x' end; return 1", "cjson.encode = nil; return 1",
    "cmsgpack.pack = nil; return 1",
)  # fmt: skip


class Shared(NamedTuple):
    """A server, as its owner and as the child see it."""

    url: str
    db: int
    owner: RespConnection
    child: RespConnection

    def keys(self) -> dict[bytes, bytes]:
        """All that is there, as the server would restore it."""
        names = sorted(self.owner.call("KEYS", "*"))
        return dict(zip(names, self.owner.pipeline([("DUMP", name) for name in names]), strict=True))

    def are_refused(self, commands: list[tuple[Any, ...]]) -> None:
        for words, answer in zip(commands, self.child.pipeline(commands), strict=True):
            assert isinstance(answer, ReplyError), f"{words} was answered: {answer!r}"
            assert re.search("NOPERM|ACL failure|o permission|command not allowed", str(answer)), (words, str(answer))


def fill(url: str, namespace: str) -> None:
    """An instance with something under every key."""
    with closing(open_store(f"{url}#{namespace}")) as store:
        meta = store.create(durability="local", origin_ms=0, created=1.0)
        store.append(Append(meta.uid, meta.epoch, 0, b"0x", bumps=("attempt/5",), inbox=(("n", b"m"),), producer="p", seq=1))
        store.note_child(Child("ƒ9", 5, "1-1", "fluxkv-other"))
        store.lease("w", 60_000)


def all_keys(namespace: str) -> list[str]:
    keys = Keys(namespace)
    words = [getattr(keys, name) for name in Keys.__slots__ if name not in ("namespace", "prefix")]
    return [*words, keys.inbox("n"), keys.output(5), keys.input(5), keys.named_lease("cron"), keys.prefix + "none"]


@pytest.fixture(scope="module", params=["embedded", "given"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("s")
    if request.param == "embedded":
        handle = start_server(str(folder), "local")
        server, db, end = handle.url, 0, handle.stop
    else:
        served = Served(folder, "--databases", "4").start()
        server, db, end = f"{served.url}/1", 1, served.kill
    try:
        for namespace in (*OTHERS, OWN, f"{OWN}/ƒ7"):
            fill(server, namespace)
        if db:
            fill(f"{server.removesuffix('/1')}/2", OWN)  # somebody else's, in another database
        acl.set_user(server, "kid", acl.child_rules(OWN, PARENT, WORD, db))
        as_kid = f"{server}?user=kid" if db == 0 else server.replace("://", "://kid@")
        word = folder / "word"
        word.write_text(WORD)
        as_kid += f"{'&' if '?' in as_kid else '?'}password_file={word}"
        with closing(RespConnection(server)) as owner, closing(RespConnection(as_kid)) as child:
            yield Shared(server, db, owner, child)
    finally:
        end()


@pytest.fixture(autouse=True)
def unchanged(shared: Shared) -> Iterator[None]:
    before = shared.keys()
    yield
    assert shared.keys() == before


def may_read(key: str) -> bool:
    above = Keys(PARENT)
    return key in (above.meta, above.journal, above.guards, above.snapshot)


def test_every_command_that_it_has_is_tried() -> None:
    assert {command.partition("|")[0] for command in acl.COMMANDS} == {*ATTACKS, *KEYLESS}


def test_it_touches_no_key_of_others(shared: Shared) -> None:
    for key in (key for namespace in OTHERS for key in all_keys(namespace)):
        tried = list[tuple[Any, ...]]()
        for command, *words in [*((command, *words) for command, words in ATTACKS.items()), *BESIDE]:
            if may_read(key) and command.lower() not in CHANGES:
                continue
            words = [key if word is KEY else word for word in words]
            tried.append((command, *words))
            if command in ATTACKS:  # in a script, declared and not
                call = f"return redis.call('{command}', unpack(ARGV))"
                tried += [("EVAL", call, 0, *words), ("EVAL", call, 1, MINE, *words), ("EVAL", call, 1, key, *words)]
        shared.are_refused(tried)


def test_it_reads_of_its_parent_what_it_was_given_and_no_more(shared: Shared) -> None:
    above = Keys(PARENT)
    assert shared.child.call("HGET", above.meta, "version") == b"1"
    assert shared.child.call("XLEN", above.journal) == 1
    assert sum(may_read(key) for key in all_keys(PARENT)) == 4


def test_other_commands_are_refused(shared: Shared) -> None:
    names = {"{key}": Keys("/p/ƒB").meta, "{mine}": MINE, "{other}": 2 if shared.db else 1}
    lines = re.split(r"\||\n", REFUSED)
    shared.are_refused([tuple(names.get(word, word) for word in line.split()) for line in lines])


def test_scripts_have_its_rights_and_leave_nothing_to_others(shared: Shared) -> None:
    for text in LUA:
        with pytest.raises(ReplyError):
            shared.child.call("EVAL", text, 0, Keys("/p/ƒB").meta, 2)
    assert shared.owner.call("EVAL", "return {type(string.match), ('a'):rep(2), type(cjson.encode)}", 0) == [
        b"function", b"aa", b"function"
    ]  # fmt: skip
    with pytest.raises(ReplyError, match="nonexistent global"):
        shared.owner.call("EVAL", "return KEPT", 0)


def test_a_later_attempt_s_user_and_its_own_have_nothing_in_common(shared: Shared) -> None:
    """Neither before the first is taken away nor after: its open connections are closed, and it comes in no more."""
    with closing(RespConnection(shared.url)) as owner:
        acl.set_user(shared.url, "first", acl.child_rules("/p/ƒ6.2", PARENT, WORD, shared.db))
        with closing(RespConnection(shared.url)) as first:
            first.call("AUTH", "first", WORD)
            for command in ("HGETALL", "DEL"):
                with pytest.raises(ReplyError, match="NOPERM"):
                    first.call(command, Keys(OWN).meta)
            assert first.call("HGET", Keys("/p/ƒ6.2").meta, "version") == b"1"
            acl.drop_user(shared.url, "first")
            with pytest.raises(Exception, match=r"lost the connection|closed"):
                first.call("PING")
        with pytest.raises(ReplyError, match="WRONGPASS"):
            owner.call("AUTH", "first", WORD)
