"""Reading the user's KVS: entries and values as of one moment. Decides how values and large ones are put together and read;
never writes a commit.

Values above 1 KiB are blobs of at most a mebibyte, named by their hash; they are stored before the commit that names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..kvs.blobs import blob_name, checked_blob
from ..kvs.errors import Corrupt, Rejected
from ..kvs.namespaces import PRIMARY, Namespaces
from ..kvs.tree import INLINE_MAX, PARTS, Payload, is_link, parts_of, size_of

if TYPE_CHECKING:
    from ..kvs.port import Store
    from ..kvs.tree import Tree

PIECE = 1 << 20
MAX_VALUE = 256 << 20


class Entry(NamedTuple):
    """What stands at a key. kind: "value", "dir" or "link". version: of the commit that wrote it (0 of a directory).

    size: bytes of a value, or the number of entries of a directory. target: of a link, "namespace::key" if it is elsewhere.
    """

    key: str
    kind: str
    version: int
    size: int
    target: str = ""


def entry_of(key: str, node: Any) -> Entry:
    """The entry of a node of the tree."""
    if isinstance(node, dict):
        return Entry(key, "dir", 0, len(node))
    version, payload = node
    if is_link(node):
        return Entry(key, "link", version, 0, f"{payload[2]}::{payload[1]}" if payload[2] else payload[1])
    return Entry(key, "value", version, size_of(payload))


class View:
    """A namespace as of a version, following links. Keys are dotted ("a.b"); "." is the root.

    Methods raise `Rejected`: code no-such-key, is-directory, not-directory, link-loop, no-such-namespace, bad-key.
    """

    def __init__(self, store: Store, kvs: Namespaces, namespace: str = PRIMARY) -> None:
        self._store = store
        self._kvs = kvs
        self.tree = kvs.tree(namespace)

    def _node(self, key: str, last: bool = True) -> Any:
        return self._kvs.find(self.tree.name, key, last)

    def _there(self, key: str, last: bool = True) -> Any:
        from ..journal.decide_kvs import no_such_key

        node = self._node(key, last)
        if node is None:
            raise no_such_key(key)
        return node

    def stat(self, key: str, follow: bool = True) -> Entry | None:
        """The entry at a key, or None. follow: of what a link points to."""
        node = self._node(key, follow)
        return None if node is None else entry_of(key, node)

    def payload(self, key: str) -> Payload:
        """A value as the journal has it: bytes, or the blobs it consists of."""
        node = self._there(key)
        if isinstance(node, dict):
            raise Rejected(f"kvs: {key}: Is a directory", code="is-directory", hint=f"fluxkv kvs dir {key}")
        payload: Payload = node[1]
        return payload

    def get(self, key: str) -> bytes:
        """A value, whole."""
        return b"".join(read_value(self._store, self.payload(key)))

    def pieces(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """A value from a byte on, in pieces of at most a mebibyte."""
        return read_value(self._store, self.payload(key), offset)

    def folder(self, key: str = ".") -> dict[str, Any]:
        """What a directory holds, as the tree has it."""
        node = self._there(key)
        if not isinstance(node, dict):
            raise Rejected(f"kvs: {key}: Not a directory", code="not-directory", hint=f"fluxkv kvs get {key}")
        return node

    def ls(self, key: str = ".") -> list[Entry]:
        """The entries of a directory, sorted, with whole keys."""
        prefix = "" if key == "." else key + "."
        return [entry_of(prefix + name, node) for name, node in sorted(self.folder(key).items())]

    def walk(self, key: str = ".") -> Iterator[Entry]:
        """Every value, link and empty directory below a directory, sorted, with whole keys. Links are not followed."""
        tree, where = self._kvs.resolve(self.tree.name, key)
        self.folder(key)
        for path, node in tree.walk(where):
            yield entry_of(shown_key(key, where, path), node)

    def readlink(self, key: str) -> tuple[str, str]:
        """(namespace, key) a link points to; the namespace is "" for its own."""
        node = self._there(key, False)
        if not is_link(node):
            raise Rejected(f"kvs: {key}: Not a link", code="not-link", hint=f"fluxkv kvs get {key}")
        return str(node[1][2]), str(node[1][1])

    def place(self, key: str) -> tuple[Tree, str]:
        """The tree and key that a key names once links are followed."""
        return self._kvs.resolve(self.tree.name, key)


def shown_key(asked: str, where: str, path: str) -> str:
    """A path below `where`, as the user who asked for `asked`, which a link led to `where`, would write it."""
    if asked == where or path == where:
        return asked if path == where else path
    rest = path if where == "." else path[len(where) + 1 :]
    return rest if asked == "." else f"{asked}.{rest}"


# -- values --------------------------------------------------------------------------------------------------------


def store_value(store: Store, source: bytes | BinaryIO) -> Payload:
    """A value as a commit holds it, its blobs stored. Reads a stream piece by piece.

    Raises `Rejected` (code value-too-large) above `MAX_VALUE`.
    """
    from io import BytesIO

    stream: BinaryIO = BytesIO(source) if isinstance(source, bytes) else source
    if isinstance(source, bytes) and len(source) > MAX_VALUE:
        raise _too_large()
    parts: list[Any] = []
    total = 0
    while piece := _full_read(stream):
        total += len(piece)
        if total > MAX_VALUE:
            raise _too_large()
        if not parts and len(piece) <= INLINE_MAX:
            return piece
        name = blob_name(piece)
        store.put_blobs({name: piece})
        parts.append([name, len(piece)])
    if not parts:
        return b""
    return parts[0] if len(parts) == 1 else [PARTS, *parts]


def _full_read(stream: BinaryIO) -> bytes:
    """The next piece, whole unless the stream ends: a pipe gives less at a time."""
    held = []
    left = PIECE
    while left and (some := stream.read(left)):
        held.append(some)
        left -= len(some)
    return b"".join(held)


def _too_large() -> Rejected:
    return Rejected(
        f"kvs: a value is larger than {MAX_VALUE >> 20} MiB",
        code="value-too-large",
        hint="keep large files in a file system, and their names here",
    )


def read_value(store: Store, payload: Payload, offset: int = 0) -> Iterator[bytes]:
    """A value from a byte on, piece by piece. Raises `Corrupt` when a blob is missing or is not what its name says."""
    at = 0
    for part in parts_of(payload):
        size = len(part) if isinstance(part, bytes) else part[1]
        at += size
        if at <= offset and size:
            continue
        if isinstance(part, bytes):
            data = part
        else:
            (found,) = store.get_blobs([part[0]])
            if found is None:
                from ..journal.history import History

                (found,) = History(store).blobs([part[0]])  # a value of old
            if found is None:
                raise Corrupt(f"kvs: the blob {part[0]} of {size} bytes is missing", code="no-blob")
            data = checked_blob(part[0], found)
        yield data[max(0, offset - (at - size)) :]
