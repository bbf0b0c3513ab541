"""What a server's ACL lets an instance's user do: its own namespace and what is inside it, no more; and the users of children.

The commands are those that this package sends and that its scripts call (a server checks both). `tests/contract/` runs the whole
contract as such a user.
"""

from __future__ import annotations

from contextlib import closing

from .errors import Rejected
from .keys import Keys, escaped, patterns
from .reach import connect
from .resp import ReplyError

# INFO: the scripts compare the replication id, and the used memory with the soft line. ROLE: is it a primary?
SERVER = ("auth", "hello", "ping", "select", "info", "role", "time", "wait", "config|get", "client|setname", "client|id",
          "cluster|slots")  # fmt: skip
SCRIPTS = ("eval", "evalsha", "script|load")
HASHES = ("hget", "hset", "hdel", "hmget", "hgetall", "hscan", "hkeys", "hlen", "hexists", "hincrby")
STREAMS = ("xadd", "xrange", "xrevrange", "xread", "xtrim", "xlen", "xdel", "xinfo|stream")
# SCAN finds the streams of jobs that are to be dropped; it shows the names and kinds of other keys, too.
OTHERS = ("scan", "get", "set", "del", "unlink", "exists", "type", "pexpire", "pttl", "asking", "dump", "restore")
COMMANDS = (*SERVER, *SCRIPTS, *HASHES, *STREAMS, *OTHERS)


def rule(user: str, namespace: str, password: str, db: int | None = None) -> str:
    """The ACL line of a user for one instance (and its child instances): what ACL SETUSER takes, or an ACL file.

    The password goes in as its SHA-256, which is all that servers keep. db: the one database of the server that it may use, in
    others somebody else's keys may have the same names; None: any.
    """
    import hashlib

    digest = hashlib.sha256(password.encode()).hexdigest()
    keys = " ".join(f"~{pattern}" for pattern in patterns(namespace))
    commands = [f"select|{db}" if name == "select" and db is not None else name for name in COMMANDS]
    return f"user {user} on resetpass #{digest} resetkeys {keys} resetchannels -@all {' '.join('+' + name for name in commands)}"


def child_rules(namespace: str, parent: str, password: str, db: int = 0) -> list[str]:
    """What ACL SETUSER takes for a child's user: its namespace and those inside it, in the server's database `db`; and to read of
    its parent's (a namespace) whether its own time is over, and how long it has. Said twice it is the same user, with both
    passwords if they differ."""
    above = Keys(parent)
    read = [f"%R~{escaped(key)}" for key in (above.meta, above.journal, above.guards, above.snapshot)]
    # CONFIG GET shows passwords, too; in another database somebody else's keys may have the same names.
    commands = [f"+{name}" for name in COMMANDS if name not in ("config|get", "select")]
    return ["on", f">{password}", "resetchannels", *[f"~{one}" for one in patterns(namespace)], *read, "-@all", *commands,
            f"+select|{db}"]  # fmt: skip


def set_user(server: str, user: str, rules: list[str]) -> None:
    """Make a user, or give one more rules. Raises `Rejected(code="no-acl")` where whoever this URL lets in may not."""
    _ask(server, "SETUSER", user, *rules)


def drop_user(server: str, user: str) -> None:
    """Whoever has come in as this user is out. One that is not there is none. Raises as `set_user`."""
    _ask(server, "DELUSER", user)


def _ask(server: str, *words: str) -> None:
    with closing(connect(server)) as connection:
        try:
            connection.call("ACL", *words)
        except ReplyError as error:
            raise Rejected(f"{connection.address}: {error}", code="no-acl") from None
