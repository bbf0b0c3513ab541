"""The user-visible KVS: dotted keys, directories and values, as a value folded from commits.

Decides put/unlink/mkdir semantics (Flux's): putting below a value replaces the value by a directory, putting on a
directory replaces it. Values are `bytes`, or (blob name, size) for large ones. Keeps its own hash as a sum over
leaves, so that a commit costs what it touches and not what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from .errors import Rejected

Value = bytes | list[Any]
INLINE_MAX = 1024
DEEPEST = 256
MASK = (1 << 128) - 1


def check_key(key: str) -> str:
    """Return the key ("a.b.c"; "." is the root) without needless dots, or raise `Rejected`."""
    if key == ".":
        return key
    if not isinstance(key, str) or not key or len(key) > 4096 or any(not part for part in key.split(".")) or not key.isprintable():
        raise Rejected(f"bad KVS key {key!r}", code="bad-key", hint="use words joined by single dots, as a.b.c")
    _check_depth(key)
    return key


def _check_depth(key: str) -> None:
    """Deeper trees could not be packed into a snapshot."""
    if key.count(".") >= DEEPEST:
        raise Rejected(f"a KVS key of more than {DEEPEST} words", code="bad-key", hint="use fewer levels")


def _leaf_hash(path: str, value: object) -> int:
    data = value if isinstance(value, bytes) else repr(value).encode()
    return int.from_bytes(
        blake2b(data, digest_size=16, key=path.encode()[:64], person=b"kvs").digest()
    ) ^ int.from_bytes(blake2b(path.encode(), digest_size=16).digest())


class Tree:
    """A mutable tree; `root` maps names to directories (dict) or values. version: of the last commit."""

    __slots__ = ("hash", "root", "version")

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}
        self.hash = 0
        self.version = 0

    def commit(self, ops: list[list[Any]], version: int) -> None:
        """Apply [["put", key, value] | ["unlink", key] | ["mkdir", key], ...] as one step."""
        for op in ops:
            if op[0] == "put":
                self._put(op[1], op[2])
            elif op[0] == "unlink":
                self._unlink(op[1])
            elif op[0] == "mkdir":
                self._mkdir(op[1])
        self.version = version

    def get(self, key: str) -> Any:
        """The value or directory at `key`, or None."""
        here: Any = self.root
        if key == ".":
            return here
        for part in key.split("."):
            if not isinstance(here, dict) or part not in here:
                return None
            here = here[part]
        return here

    def leaves(self, key: str = ".") -> Iterator[tuple[str, Value]]:
        """(key, value) of every value at or below `key`, sorted; an empty directory yields nothing."""
        top = self.get(key)
        if top is None:
            return
        if not isinstance(top, dict):
            yield key, top
            return
        stack: list[tuple[str, Any]] = [("" if key == "." else key, top)]
        while stack:
            path, here = stack.pop()
            if isinstance(here, dict):
                stack.extend((f"{path}.{name}" if path else name, here[name]) for name in sorted(here, reverse=True))
            else:
                yield path, here

    def dump(self) -> list[Any]:
        """Plain values, for a snapshot."""
        return [self.version, self.hash.to_bytes(16), self.root]

    @classmethod
    def load(cls, value: list[Any]) -> Tree:
        """Inverse of `dump`."""
        tree = cls()
        tree.version, digest, tree.root = value
        tree.hash = int.from_bytes(digest)
        return tree

    def _drop(self, path: str, here: Any) -> None:
        """Subtract the hash of everything at or below."""
        stack = [(path, here)]
        while stack:
            path, here = stack.pop()
            if isinstance(here, dict):
                self.hash = (self.hash - _leaf_hash(path + "/", None)) & MASK
                stack.extend((f"{path}.{name}", item) for name, item in here.items())
            else:
                self.hash = (self.hash - _leaf_hash(path, here)) & MASK

    def _parent(self, key: str) -> tuple[dict[str, Any], str]:
        _check_depth(key)
        *parents, last = key.split(".")
        here, path = self.root, ""
        for part in parents:
            path = f"{path}.{part}" if path else part
            below = here.get(part)
            if not isinstance(below, dict):
                if below is not None:
                    self._drop(path, below)
                below = here[part] = {}
                self.hash = (self.hash + _leaf_hash(path + "/", None)) & MASK
            here = below
        return here, last

    def _put(self, key: str, value: Value) -> None:
        here, name = self._parent(key)
        if name in here:
            self._drop(key, here[name])
        here[name] = value
        self.hash = (self.hash + _leaf_hash(key, value)) & MASK

    def _mkdir(self, key: str) -> None:
        here, name = self._parent(key)
        if isinstance(here.get(name), dict):
            return
        if name in here:
            self._drop(key, here[name])
        here[name] = {}
        self.hash = (self.hash + _leaf_hash(key + "/", None)) & MASK

    def _unlink(self, key: str) -> None:
        if key == ".":
            for name, item in self.root.items():
                self._drop(name, item)
            self.root = {}
            return
        *parents, name = key.split(".")
        here: Any = self.root
        for part in parents:
            here = here.get(part) if isinstance(here, dict) else None
            if here is None:
                return
        if isinstance(here, dict) and name in here:
            self._drop(key, here.pop(name))
