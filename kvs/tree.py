"""One namespace of the user-visible KVS: dotted keys, directories, values and links, as a value folded from commits.

Decides what each operation does to the tree (Flux's ways: putting below a value replaces the value by a directory, putting
on a directory replaces it). Never follows a link: `namespaces` does. Keeps its own hash as a sum over what it holds, so that
a commit costs what it touches and not what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .blobs import is_blob_name
from .errors import Rejected
from .hashes import blake2b

INLINE_MAX = 1024
DEEPEST = 256
LONGEST = 4096
MAX_COPY = 200_000  # nodes that one copy makes: copies of copies would grow without bound
MASK = (1 << 128) - 1
PARTS, LINK = "parts", "link"

# A node is a directory (a dict of names) or a leaf [version that wrote it, payload]. A payload is bytes; [blob, size];
# ["parts", part, ...] of these two; or ["link", target, namespace or ""]. Lists, because snapshots hold them as they are.
Payload = bytes | list[Any]


class Link(NamedTuple):
    """A link met on the way down a key. rest: the words of the key that are left."""

    namespace: str
    target: str
    rest: list[str]


def check_key(key: str) -> str:
    """Return the key ("a.b.c"; "." is the root) or raise `Rejected` (code bad-key)."""
    if key == ".":
        return key
    if (
        not isinstance(key, str)
        or not key
        or len(key) > LONGEST
        or any(not part for part in key.split("."))
        or not key.isprintable()
    ):
        shown = repr(key[:60]) if isinstance(key, str) else "(no text)"
        raise Rejected(f"bad KVS key {shown}", code="bad-key", hint="use words joined by single dots, as a.b.c")
    check_depth(key)
    return key


def check_depth(key: str) -> None:
    """Deeper trees could not be packed into a snapshot."""
    if key.count(".") >= DEEPEST:
        raise Rejected(f"a KVS key of more than {DEEPEST} words", code="bad-key", hint="use fewer levels")


def _is_part(part: Any) -> bool:
    return isinstance(part, bytes) or (
        isinstance(part, list) and len(part) == 2 and isinstance(part[0], str) and is_blob_name(part[0])
        and type(part[1]) is int and part[1] >= 0
    )  # fmt: skip


def check_payload(payload: Any) -> None:
    """Raise `Rejected` unless this is bytes, a blob, or parts of these two."""
    parts = payload[1:] if isinstance(payload, list) and payload[:1] == [PARTS] else [payload]
    if not all(_is_part(part) for part in parts):
        raise Rejected("a KVS value is bytes, or names blobs", code="bad-value")


def parts_of(payload: Payload) -> list[Any]:
    """What a value consists of, in order: bytes and [blob, size]. Empty for a link."""
    if isinstance(payload, bytes):
        return [payload]
    if payload[0] == PARTS:
        return payload[1:]
    return [] if payload[0] == LINK else [payload]


def size_of(payload: Payload) -> int:
    """Bytes of a value."""
    return sum(len(part) if isinstance(part, bytes) else part[1] for part in parts_of(payload))


def is_link(node: Any) -> bool:
    """Whether a node is a link."""
    return isinstance(node, list) and isinstance(node[1], list) and node[1][0] == LINK


def count_nodes(node: Any, most: int = MAX_COPY) -> tuple[int, int]:
    """(nodes, levels) at and below a node; counting ends above `most`."""
    count = deepest = 0
    stack = [(node, 1)]
    while stack and count <= most:
        here, level = stack.pop()
        count += 1
        deepest = max(deepest, level)
        if isinstance(here, dict):
            stack.extend((item, level + 1) for item in here.values())
    return count, deepest


class Tree:
    """A mutable tree. version: of the last commit that touched it. links: how many it holds. name: of the namespace.

    owner: user id. created: Unix seconds. hash: stands for everything in it.
    """

    __slots__ = ("_prefix", "created", "hash", "links", "name", "owner", "root", "version")

    def __init__(self, name: str = "primary", owner: int = 0, created: float = 0.0) -> None:
        self.name = name
        self.owner = owner
        self.created = created
        self.root: dict[str, Any] = {}
        self.version = 0
        self.links = 0
        self._prefix = name.encode() + b"\0"
        self.hash = 0 if name == "primary" else self._hash("", f"n{owner}:{created}".encode())

    # -- reading --------------------------------------------------------------------------------------------------

    def node(self, key: str) -> Any:
        """The node at `key` without following links: a dict, a leaf, or None."""
        here: Any = self.root
        if key == ".":
            return here
        for part in key.split("."):
            if not isinstance(here, dict):
                return None
            here = here.get(part)
            if here is None:
                return None
        return here

    def get(self, key: str) -> Any:
        """The payload or directory at `key`, or None."""
        node = self.node(key)
        return node[1] if isinstance(node, list) else node

    def first_link(self, key: str, last: bool) -> Link | None:
        """The first link on the way to `key`; with `last`, what stands at the key itself may be one."""
        here: Any = self.root
        words = key.split(".") if key != "." else []
        for at, word in enumerate(words):
            here = here.get(word) if isinstance(here, dict) else None
            if here is None:
                return None
            if is_link(here) and (last or at + 1 < len(words)):
                _, target, namespace = here[1]
                return Link(namespace or self.name, target, words[at + 1 :])
        return None

    def walk(self, key: str = ".") -> Iterator[tuple[str, Any]]:
        """(key, leaf) of every value and link at or below `key`, sorted; an empty directory comes as (key, {})."""
        top = self.node(key)
        if top is None:
            return
        stack: list[tuple[str, Any]] = [("" if key == "." else key, top)]
        while stack:
            path, here = stack.pop()
            if isinstance(here, dict) and here:
                stack.extend((f"{path}.{name}" if path else name, here[name]) for name in sorted(here, reverse=True))
            elif path:
                yield path, here

    def leaves(self, key: str = ".") -> Iterator[tuple[str, Payload]]:
        """(key, payload) of every value and link at or below `key`, sorted."""
        return ((path, node[1]) for path, node in self.walk(key) if isinstance(node, list))

    # -- changing -------------------------------------------------------------------------------------------------

    def put(self, key: str, payload: Payload, version: int) -> None:
        if isinstance(payload, list):  # a copy: appends change it in place, and an event keeps what it said
            payload = list(payload)
            if payload[0] == PARTS and len(payload) < 3:
                payload = payload[1] if len(payload) == 2 else b""
        self._place(key, [version, payload])

    def append(self, key: str, payload: Payload, version: int) -> None:
        """Add to the end of a value; a new one where there is none. Costs what is added, not what is there."""
        node = self.node(key)
        if not isinstance(node, list) or is_link(node):
            self.put(key, payload, version)
            return
        held = node[1] if isinstance(node[1], list) and node[1][0] == PARTS else [PARTS, node[1]]
        self.hash -= self._head(key, node)
        for part in parts_of(payload):
            last, at = held[-1], len(held) - 2
            if isinstance(part, bytes) and isinstance(last, bytes) and len(last) + len(part) <= INLINE_MAX:
                self.hash -= self._part(key, at, last)
                held[-1] = last + part
            else:
                held.append(part)
                at += 1
            self.hash += self._part(key, at, held[-1])
        node[0], node[1] = version, held if len(held) > 2 else held[1]
        self.hash = (self.hash + self._head(key, node)) & MASK

    def mkdir(self, key: str) -> None:
        if not isinstance(self.node(key), dict):
            self._place(key, {})

    def stamp(self, version: int) -> None:
        """A commit of this version has touched it."""
        if self.version:
            self.hash -= self._hash("", b"@%d" % self.version)
        self.version = version
        self.hash = (self.hash + self._hash("", b"@%d" % version)) & MASK

    def take(self, key: str) -> Any:
        """Remove a node and give it, or None."""
        if key == ".":
            taken, self.root = self.root, {}
            for name, item in taken.items():
                self._drop(name, item)
            return taken
        parent, _, name = key.rpartition(".")
        here = self.node(parent or ".")
        if not isinstance(here, dict) or name not in here:
            return None
        taken = here.pop(name)
        self._drop(key, taken)
        return taken

    def place(self, key: str, node: Any, version: int) -> None:
        """Put a copy of a node, with everything below; all of it as of this version."""
        fresh = _copy_of(node, version)
        if key != ".":
            self._place(key, fresh)
        elif isinstance(fresh, dict):
            self.take(".")
            for name, item in fresh.items():
                self._place(name, item)

    def _place(self, key: str, node: Any) -> None:
        """Put a node that nobody else holds; what is in the way gives way."""
        *parents, last = key.split(".")
        here, path = self.root, ""
        for part in parents:
            path = f"{path}.{part}" if path else part
            below = here.get(part)
            if not isinstance(below, dict):
                if below is not None:
                    self._drop(path, below)
                below = here[part] = {}
                self.hash = (self.hash + self._hash(path + ".", b"")) & MASK
            here = below
        if last in here:
            self._drop(key, here[last])
        here[last] = node
        self._sum(key, node, 1)

    def _drop(self, path: str, node: Any) -> None:
        self._sum(path, node, -1)

    # -- hash -----------------------------------------------------------------------------------------------------

    def _sum(self, path: str, node: Any, sign: int) -> None:
        """Add (or subtract) the hash of everything at or below."""
        total = 0
        stack = [(path, node)]
        while stack:
            path, here = stack.pop()
            if isinstance(here, dict):
                total += self._hash(path + ".", b"")
                stack.extend((f"{path}.{name}", item) for name, item in here.items())
                continue
            total += self._head(path, here)
            payload = here[1]
            if not isinstance(payload, bytes) and payload[0] == LINK:
                self.links += sign
                continue
            for at, part in enumerate(parts_of(payload)):
                total += self._part(path, at, part)
        self.hash = (self.hash + sign * total) & MASK

    def _head(self, path: str, leaf: list[Any]) -> int:
        """The hash of a leaf but for its parts, so that an append need not look at what is there."""
        payload = leaf[1]
        if isinstance(payload, bytes) or payload[0] != LINK:
            return self._hash(path, b"v%d" % leaf[0])
        return self._hash(path, b"l%d:" % leaf[0] + f"{payload[2]}:{payload[1]}".encode())

    def _part(self, path: str, at: int, part: Any) -> int:
        data = part if isinstance(part, bytes) else f"{part[0]}:{part[1]}".encode()
        return self._hash(path, b"%s%d:" % (b"b" if isinstance(part, bytes) else b"r", at) + data)

    def _hash(self, path: str, content: bytes) -> int:
        data = self._prefix + path.encode() + b"\0" + content
        return int.from_bytes(blake2b(data, digest_size=16, person=b"kvs").digest())

    # -- snapshot -------------------------------------------------------------------------------------------------

    def dump(self) -> list[Any]:
        """Plain values, for a snapshot."""
        return [self.name, self.owner, self.created, self.version, self.links, (self.hash & MASK).to_bytes(16), self.root]

    @classmethod
    def load(cls, value: list[Any]) -> Tree:
        """Inverse of `dump`."""
        tree = cls(value[0], value[1], value[2])
        _, _, _, tree.version, tree.links, digest, tree.root = value
        tree.hash = int.from_bytes(digest)
        return tree


def _copy_of(node: Any, version: int) -> Any:
    """A copy of a node and everything below, not deeper than the caller has checked."""
    if isinstance(node, list):
        payload = node[1]
        return [version, payload if isinstance(payload, bytes) else list(payload)]
    top: dict[str, Any] = {}
    stack = [(node, top)]
    while stack:
        old, new = stack.pop()
        for name, item in old.items():
            if isinstance(item, dict):
                new[name] = {}
                stack.append((item, new[name]))
            else:
                new[name] = _copy_of(item, version)
    return top
