"""The whole user-visible KVS: the primary namespace and those that users make, and links within and between them.

Decides what a commit of several operations does: all of it, or nothing if one of them makes no sense. A write through a link
that leads nowhere is done where it says, in place of the link, so that nothing acknowledged is lost. Pure; the fold is made
of it, and clients that follow only the KVS use it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import Rejected
from .tree import DEEPEST, LINK, MASK, MAX_COPY, Tree, check_depth, check_key, check_payload, count_nodes

PRIMARY = "primary"
MAX_COPIES = 8  # in one commit: a few words can ask for a lot of them
MAX_LINKS = 10  # on the way to one key, as Flux has it

Touched = list[tuple[str, str]]  # (namespace, key) of each place that changed


def check_namespace_name(name: Any) -> str:
    """A namespace's name, or `Rejected` (code bad-namespace)."""
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= 128
        or not name.isprintable()
        or any(char in " /:\\" for char in name)
    ):
        raise Rejected("bad KVS namespace name", code="bad-namespace", hint="use up to 128 letters, digits, -, _ and .")
    return name


def check_ops(ops: Any) -> None:
    """Raise `Rejected` unless these are operations: ["put" | "append", key, value], ["unlink" | "mkdir", key],
    ["link", key, target, namespace or ""], ["copy" | "move", from namespace, from, key]."""
    if not isinstance(ops, list):
        raise Rejected("a commit is a list of operations", code="bad-ops")
    copies = 0
    for op in ops:
        name = op[0] if isinstance(op, list) and op and isinstance(op[0], str) else ""
        if not name or len(op) != _LENGTH.get(name):
            raise Rejected("not a KVS operation", code="bad-ops")
        key = op[3] if name in ("copy", "move") else op[1]
        if check_key(key) == "." and name not in ("unlink", "copy", "move"):
            raise Rejected("the root of the KVS is a directory", code="bad-key", hint="put and mkdir take a key, as a.b")
        if name in ("put", "append"):
            check_payload(op[2])
        elif name == "link":
            check_key(op[2])
            if op[3]:
                check_namespace_name(op[3])
        elif name in ("copy", "move"):
            check_namespace_name(op[1])
            check_key(op[2])
            copies += 1
    if copies > MAX_COPIES:
        raise Rejected(f"more than {MAX_COPIES} copies in one commit", code="bad-ops", hint="make several commits of it")


_LENGTH = {"put": 3, "append": 3, "unlink": 2, "mkdir": 2, "link": 4, "copy": 4, "move": 4}


class Namespaces:
    """trees: by name, the primary one first. hash: of all of them together, kept as they change.

    operations: done by this object, which is no part of its value: how much there has been to fold.
    """

    __slots__ = ("_packed", "hash", "operations", "trees")

    def __init__(self) -> None:
        self.trees: dict[str, Tree] = {PRIMARY: Tree()}
        self.hash = 0
        self.operations = 0
        self._packed: dict[str, tuple[int, bytes]] = {}  # snapshot records by name, with the tree's hash then

    def tree(self, name: str = PRIMARY) -> Tree:
        """A namespace's tree. Raises `Rejected` (code no-such-namespace)."""
        found = self.trees.get(name)
        if found is None:
            raise Rejected(
                f"kvs: namespace {name}: No such namespace",
                code="no-such-namespace",
                hint="fluxkv kvs namespace list names those there are",
            )
        return found

    @property
    def links(self) -> int:
        """How many links there are."""
        return sum(tree.links for tree in self.trees.values())

    # -- finding --------------------------------------------------------------------------------------------------

    def resolve(self, namespace: str, key: str, last: bool = True) -> tuple[Tree, str]:
        """The tree and key that a key names once links are followed; `last`: also one that stands at the key itself.

        Raises `Rejected`: code link-loop, no-such-namespace, or bad-key where it becomes too deep.
        """
        name, where = namespace, key
        for _ in range(MAX_LINKS + 1):
            tree = self.tree(name)
            link = tree.first_link(where, last) if tree.links else None
            if link is None:
                return tree, where
            name = link.namespace
            words = ([] if link.target == "." else [link.target]) + link.rest
            where = ".".join(words) or "."
            check_depth(where)
        raise Rejected(
            f"kvs: {key}: Too many levels of symbolic links", code="link-loop", hint="fluxkv kvs readlink shows each"
        )

    def find(self, namespace: str, key: str, last: bool = True) -> Any:
        """The node a key names, following links, or None."""
        tree, where = self.resolve(namespace, key, last)
        return tree.node(where)

    # -- changing -------------------------------------------------------------------------------------------------

    def create(self, name: str, owner: int, created: float, version: int) -> None:
        """A new, empty namespace; nothing if there is one."""
        if check_namespace_name(name) in self.trees:
            return
        tree = self.trees[name] = Tree(name, owner, created)
        tree.stamp(version)
        self.hash = (self.hash + tree.hash) & MASK

    def remove(self, name: str) -> None:
        """Forget a namespace with all it holds; the primary one stays."""
        if name != PRIMARY and name in self.trees:
            self.hash = (self.hash - self.trees.pop(name).hash) & MASK
            self._packed.pop(name, None)

    def commit(self, ops: list[list[Any]], version: int, namespace: str = PRIMARY) -> Touched:
        """Do the operations as one step; the places that changed. Raises `Rejected`, and then has changed nothing."""
        before = {namespace: self.tree(namespace).hash}  # of those that an operation has reached
        check_ops(ops)
        self.operations += len(ops)
        touched: Touched = []
        for op in ops:
            self._do(op, version, namespace, touched, before)
        for name, hash in before.items():
            tree = self.trees[name]
            tree.stamp(version)
            self.hash = (self.hash + tree.hash - hash) & MASK
        return touched

    def _do(self, op: list[Any], version: int, namespace: str, touched: Touched, before: dict[str, int]) -> None:
        name = op[0]
        if name in ("copy", "move"):
            self._copy(op, version, namespace, touched, before)
            return
        tree, key = self._where(namespace, op[1], last=name == "append")
        before.setdefault(tree.name, tree.hash)
        touched.append((tree.name, key))
        if name == "put":
            tree.put(key, op[2], version)
        elif name == "append":
            tree.append(key, op[2], version)
        elif name == "unlink":
            tree.take(key)
        elif name == "mkdir":
            tree.mkdir(key)
        else:
            tree.put(key, [LINK, op[2], op[3]], version)

    def _where(self, namespace: str, key: str, last: bool = False) -> tuple[Tree, str]:
        """Where an operation writes: through links, or in their place where they lead nowhere, or to a root."""
        try:
            tree, where = self.resolve(namespace, key, last)
        except Rejected:
            return self.trees[namespace], key
        return (self.trees[namespace], key) if where == "." else (tree, where)

    def _copy(self, op: list[Any], version: int, namespace: str, touched: Touched, before: dict[str, int]) -> None:
        """Nothing where it cannot be done."""
        name, source, old, new = op
        if source not in self.trees:
            return
        here, old = self._where(source, old)
        there, new = self._where(namespace, new)
        if self.why_not_copied(here, old, there, new, name == "move"):
            return
        before.setdefault(here.name, here.hash)
        before.setdefault(there.name, there.hash)
        if name == "move":
            node = here.take(old)
            touched.append((here.name, old))
        else:
            node = here.node(old)
        there.place(new, node, version)
        touched.append((there.name, new))

    def why_not_copied(self, here: Tree, old: str, there: Tree, new: str, move: bool) -> str:
        """Why a node cannot be copied or moved (both keys with links followed); "" if it can."""
        node = here.node(old)
        if node is None:
            return "No such file or directory"
        if new == "." and not isinstance(node, dict):
            return "the root of the KVS is a directory"
        inside = here is there and (old == "." or new == old or new.startswith(old + "."))
        if move and inside:
            return "cannot move a directory into itself"
        count, levels = count_nodes(node)
        if not move and count > MAX_COPY:
            return f"more than {MAX_COPY} keys to copy"
        if new.count(".") + levels > DEEPEST:
            return f"would be more than {DEEPEST} levels deep"
        return ""

    # -- snapshot -------------------------------------------------------------------------------------------------

    def dump(self, pack: Any) -> list[bytes]:
        """What `pack` makes of each namespace; one that has not changed since the last time is not packed again."""
        records = []
        for name, tree in self.trees.items():
            known = self._packed.get(name)
            if known is None or known[0] != tree.hash:
                known = self._packed[name] = (tree.hash, pack(tree.dump()))
            records.append(known[1])
        return records

    def load(self, value: Sequence[Any]) -> None:
        """Take up one record of `dump`, in its order."""
        tree = Tree.load(list(value))
        old = self.trees.get(tree.name)
        self.hash = (self.hash + tree.hash - (old.hash if old is not None else 0)) & MASK
        self.trees[tree.name] = tree
