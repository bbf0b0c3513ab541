"""The only place that spells key strings. Decides names; never touches a store.

An instance is a namespace path: `/` or `/ƒA/ƒB` (job ids from the root, F58). All keys of one instance share
one hash tag, so an instance lives in one Cluster slot and a tree of instances spreads over many.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .errors import Rejected

ALL_KEYS = "{fluxkv:*"  # a pattern: the keys of every instance on a server
_SEGMENT = re.compile(r"[^/\s{}#?]+")


def check_namespace(path: str) -> str:
    """Return `path` if it is a namespace path ("/", "/ƒA", "/ƒA/ƒB"), else raise `Rejected`."""
    if path == "/":
        return path
    if not path.startswith("/") or not all(_SEGMENT.fullmatch(part) for part in path[1:].split("/")):
        raise Rejected(f"bad namespace path {path!r}", code="bad-namespace", hint="use / or /ƒJOBID[/ƒJOBID...]")
    return path


class Keys:
    """The keys of one instance. All are plain attributes, computed once."""

    __slots__ = (
        "arriving",
        "away",
        "blobs",
        "children",
        "door",
        "guards",
        "journal",
        "lease",
        "log",
        "meta",
        "namespace",
        "prefix",
        "producers",
        "snapshot",
        "telemetry",
        "touched",
        "waited",
    )  # fmt: skip

    def __init__(self, namespace: str) -> None:
        self.namespace = check_namespace(namespace)
        self.prefix = prefix = f"{{fluxkv:{namespace}}}:"
        self.journal = prefix + "journal"  # stream, one entry per commit, id <version>-<epoch>
        self.meta = prefix + "meta"  # hash: uid epoch replid version tip floor origin_ms durability schema created
        self.guards = prefix + "guards"  # hash: thing -> version that last bumped it
        self.producers = prefix + "producers"  # hash: producer -> "<seq> <entry id> <payload hash>"
        self.snapshot = prefix + "snapshot"  # hash: meta of the newest snapshot, and its chunks
        self.telemetry = prefix + "telemetry"  # capped stream: heartbeats, utilisation
        self.lease = prefix + "lease"  # string: who plans now
        self.log = prefix + "log"  # capped stream: the daemons' own log
        self.waited = prefix + "waited"  # string, written before a WAIT about what another connection wrote
        self.children = prefix + "children"  # hash: which jobs are instances now (see children.py) -> their users
        self.blobs = prefix + "blobs"  # hash: content hash -> bytes
        self.arriving = prefix + "arriving"  # hash: uid, tip, of a journal that another server is handing over
        self.away = prefix + "away"  # stream: the places to which journals of ended children went (see instances/away.py)
        self.door = prefix + "door"  # stream: how the server is reached that an instance of this namespace has to itself
        self.touched = prefix + "touched"  # hash: content hash -> when it was put, or wanted, last (Unix seconds)

    def inbox(self, name: str) -> str:
        """Stream of messages to one agent's node; entry ids are those of the commits that sent them."""
        return f"{self.prefix}inbox:{name}"

    def output(self, job: int) -> str:
        """Capped stream of a job's forwarded output (RFC 24 events)."""
        return f"{self.prefix}output:{job}"

    def streams_of_job(self, job: int) -> tuple[str, str]:
        """What the server holds of what a job prints and reads."""
        return self.output(job), self.input(job)

    def job_of_stream(self, key: str) -> int:
        """The job whose output or input this is, -1 if it is none's."""
        kind, _, id = key.removeprefix(self.prefix).partition(":")
        mine = key.startswith(self.prefix) and kind in ("output", "input") and id.isdecimal()
        return int(id) if mine else -1

    def named_lease(self, name: str) -> str:
        """Who does a duty that one process at a time should do; "" is the planner's."""
        return f"{self.lease}:{name}" if name else self.lease

    def input(self, job: int) -> str:
        """Stream of a job's standard input, from whoever is attached."""
        return f"{self.prefix}input:{job}"

    def is_inbox(self, key: str) -> bool:
        return key.startswith(self.prefix + "inbox:")


@lru_cache(maxsize=256)
def keys_of(key: str) -> Keys | None:
    """The `Keys` of the instance whose key this is; None if it is nobody's."""
    head, mark, _ = key.partition("}:")
    if not mark or not head.startswith("{fluxkv:"):
        return None
    try:
        return Keys(head[len("{fluxkv:") :])
    except Rejected:
        return None


def escaped(text: str) -> str:
    """A glob pattern that is this very text."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def patterns(namespace: str) -> tuple[str, str]:
    """Glob patterns (as a server's ACL has them) of the keys of an instance, and of those of all instances inside it."""
    plain = escaped(check_namespace(namespace))
    return f"{{fluxkv:{plain}}}:*", f"{{fluxkv:{plain.rstrip('/')}/*}}:*"
