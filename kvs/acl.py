"""What a server's ACL lets an instance's user do: its own namespace and what is inside it, no more. Writes text; sets nothing.

The commands are those that this package sends and that its scripts call (a server checks both). `tests/contract/` runs the whole
contract as such a user.
"""

from __future__ import annotations

import hashlib

from .keys import patterns

# INFO: the scripts compare the replication id, and the used memory with the soft line. ROLE: is it a primary?
SERVER = ("auth", "hello", "ping", "select", "info", "role", "time", "wait", "config|get", "client|setname", "client|id",
          "cluster|slots")  # fmt: skip
SCRIPTS = ("eval", "evalsha", "script|load")
HASHES = ("hget", "hset", "hdel", "hmget", "hgetall", "hscan", "hkeys", "hlen", "hexists", "hincrby")
STREAMS = ("xadd", "xrange", "xrevrange", "xread", "xtrim", "xlen", "xdel", "xinfo|stream")
# SCAN finds the instance's own streams; it shows the names (and nothing else) of other keys, too.
OTHERS = ("scan", "get", "set", "del", "unlink", "exists", "type", "pexpire", "pttl", "asking", "dump", "restore")
COMMANDS = (*SERVER, *SCRIPTS, *HASHES, *STREAMS, *OTHERS)


def rule(user: str, namespace: str, password: str) -> str:
    """The ACL line of a user for one instance (and its child instances): what ACL SETUSER takes, or an ACL file.

    The password goes in as its SHA-256, which is all that servers keep.
    """
    digest = hashlib.sha256(password.encode()).hexdigest()
    keys = " ".join(f"~{pattern}" for pattern in patterns(namespace))
    return f"user {user} on resetpass #{digest} resetkeys {keys} resetchannels -@all {' '.join('+' + name for name in COMMANDS)}"
