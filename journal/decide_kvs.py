"""Commands to events for the user's KVS. Pure; refuses with a reason and a hint.

A plain commit needs no state: last one wins, key by key. One with a premise (this key is absent, is as of version N, is
there) guards it: every commit bumps the mark of each key it names, one of a fixed number of them, so the table of guards
stays small. Where links lead elsewhere a key's mark says nothing, so those guard against any commit at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from zlib import crc32

from ..kvs.errors import Conflict, Rejected
from ..kvs.namespaces import MAX_LINKS, PRIMARY, Namespaces, check_namespace_name, check_ops
from .decide import Decision
from .fold_kvs import SUBJECT


class Seen(Protocol):
    """What a decision looks at: a `State`, or what a client folds of it."""

    @property
    def kvs(self) -> Namespaces: ...


MARKS = 64
MAX_COMMIT = 8 << 20  # bytes of keys and inline values: a commit is one entry of the journal
WRITERS = 256
ANY, LINKS, NAMESPACES = "kvs", "kvs/links", "kvs/namespaces"  # bumped by each commit; by new links; by new namespaces


def _mark(namespace: str, key: str) -> str:
    """The guard of a key: that of its first word, as what happens above or below it is its own affair too."""
    first = key.partition(".")[0]
    return f"kvs/{crc32(f'{namespace}:{first}'.encode()) % MARKS}"


def _marks(namespace: str, keys: Iterable[str]) -> list[str]:
    found = set()
    for key in keys:
        if key == ".":
            return [f"kvs/{number}" for number in range(MARKS)]
        found.add(_mark(namespace, key))
    return sorted(found)


def commit(ops: Sequence[list[Any]], now: float, namespace: str = PRIMARY) -> Decision:
    """Operations of `namespaces.check_ops` as one step, in the primary namespace or one that is known to be there."""
    operations = [list(op) for op in ops]
    check_ops(operations)
    size = sum(16 + sum(len(part) for part in op if isinstance(part, (str, bytes))) for op in operations)
    if size > MAX_COMMIT:
        raise Rejected(
            f"kvs: a commit of {size} bytes is larger than {MAX_COMMIT}",
            code="commit-too-large",
            hint="make several commits of it, or store large values one by one",
        )
    context: dict[str, Any] = {"ops": operations}
    if namespace != PRIMARY:
        context["namespace"] = namespace
    bumps = {ANY}
    for op in operations:
        if op[0] in ("copy", "move"):
            bumps.update((LINKS, *_marks(op[1], [op[2]]), *_marks(namespace, [op[3]])))
        else:
            bumps.update(_marks(namespace, [op[1]]))
            if op[0] == "link":
                bumps.add(LINKS)
    grows = any(op[0] in ("put", "append", "copy") for op in operations)
    return Decision([["kvs.commit", SUBJECT, now, context]], bumps=sorted(bumps), refusable=grows)


def guarded(state: Seen, decision: Decision, keys: Iterable[str], namespace: str) -> Decision:
    """The decision with guards for what was seen of these keys."""
    decision.since = [ANY] if state.kvs.links else [LINKS, NAMESPACES, *_marks(namespace, keys)]
    return decision


def conditional(
    state: Seen,
    ops: Sequence[list[Any]],
    now: float,
    namespace: str = PRIMARY,
    *,
    absent: bool = False,
    version: int | None = None,
) -> Decision:
    """A commit of puts and appends that is made only if each key is absent, or has not changed after a version.

    Raises `Rejected` (code exists, no-such-key) or `Conflict` when the premise does not hold.
    """
    for op in ops:
        key = op[1]
        node = state.kvs.find(namespace, key, last=op[0] == "append")
        if absent and node is not None:
            raise Rejected(f"kvs: {key}: File exists", code="exists", hint="leave out --no-clobber to replace it")
        if version is None:
            continue
        if node is None:
            raise no_such_key(key)
        if isinstance(node, dict):
            raise Rejected(f"kvs: {key}: Is a directory", code="is-directory", hint="a version is that of a value")
        if node[0] > version:
            raise Conflict(
                f"kvs: {key}: changed in version {node[0]}, after {version}",
                things=(key,),
                hint="read it again and decide anew",
            )
    return guarded(state, commit(ops, now, namespace), [op[1] for op in ops], namespace)


def unlink(
    state: Seen, keys: Sequence[str], now: float, namespace: str = PRIMARY, *, recursive: bool = False, force: bool = False
) -> Decision:
    """Remove keys in one commit. force: those that are not there are left out."""
    there = []
    for key in keys:
        tree, where = state.kvs.resolve(namespace, key, last=False)
        node = tree.node(where)
        if node is None:
            if not force:
                raise no_such_key(key)
            continue
        if isinstance(node, dict) and node and not recursive:
            raise Rejected(f"kvs: {key}: Directory not empty", code="not-empty", hint="-R removes what is below")
        there.append(key)
    if not there:
        return Decision([])
    return guarded(state, commit([["unlink", key] for key in there], now, namespace), there, namespace)


def link(
    state: Seen, target: str, key: str, now: float, namespace: str = PRIMARY, target_namespace: str = ""
) -> Decision:
    """A symbolic link; its target need not be there yet. Refuses one that would lead to itself."""
    decision = commit([["link", key, target, target_namespace]], now, namespace)
    state.kvs.tree(namespace)
    if target_namespace:
        state.kvs.tree(target_namespace)
    if _leads_back(state.kvs, namespace, key, target_namespace or namespace, target):
        raise Rejected(
            f"kvs: {key}: Too many levels of symbolic links",
            code="link-loop",
            hint=f"it would lead to itself, or through more than {MAX_LINKS} links",
        )
    decision.since = [ANY]
    return decision


def _leads_back(kvs: Namespaces, namespace: str, key: str, target_namespace: str, target: str) -> bool:
    """Whether the way to the target passes the place where the link is to be."""
    try:
        here, where = kvs.resolve(namespace, key, last=False)
        name, way = target_namespace, target
        for _ in range(MAX_LINKS):
            tree = kvs.tree(name)
            if tree is here and (way == where or way.startswith(where + ".")):
                return True
            found = tree.first_link(way, last=True)
            if found is None:
                return False
            name = found.namespace
            way = ".".join(([] if found.target == "." else [found.target]) + found.rest) or "."
    except Rejected:
        return True
    return True


def copy(
    state: Seen, old: str, new: str, now: float, namespace: str = PRIMARY, source: str = PRIMARY, *, move: bool = False
) -> Decision:
    """Copy (or move) a value, a link or a directory with all below. source: the namespace it comes from."""
    here, old_key = state.kvs.resolve(source, old, last=False)
    there, new_key = state.kvs.resolve(namespace, new, last=False)
    why = state.kvs.why_not_copied(here, old_key, there, new_key, move)
    if why:
        raise Rejected(f"kvs: {old}: {why}", code="no-such-key" if why.startswith("No such") else "bad-copy")
    decision = commit([["move" if move else "copy", source, old, new]], now, namespace)
    decision.since = [ANY]
    return decision


def in_namespace(state: Seen, ops: Sequence[list[Any]], now: float, namespace: str, writer: int) -> Decision:
    """A plain commit in a namespace that must be there. Raises `Rejected` (code no-such-namespace). writer: as in `once`."""
    state.kvs.tree(namespace)
    decision = once(commit(ops, now, namespace), writer)
    decision.since.append(NAMESPACES)
    return decision


def once(decision: Decision, writer: int) -> Decision:
    """A plain commit that may be sent again when its answer was lost: it guards a mark that it bumps itself.

    writer: any number, best one that others do not take at the same time; there are only so many marks.
    """
    mark = f"kvs/by/{writer % WRITERS}"
    decision.since, decision.bumps = [mark], [*decision.bumps, mark]
    return decision


def create_namespace(state: Seen, name: str, owner: int, now: float) -> Decision:
    """A new namespace."""
    if check_namespace_name(name) in state.kvs.trees:
        raise Rejected(f"kvs: namespace {name}: File exists", code="exists", hint="fluxkv kvs namespace list")
    event = ["kvs.namespace-create", SUBJECT, now, {"namespace": name, "owner": owner}]
    return Decision([event], since=[NAMESPACES], bumps=[NAMESPACES, ANY])


def remove_namespace(state: Seen, name: str, now: float) -> Decision:
    """Remove a namespace and all it holds."""
    state.kvs.tree(name)
    if name == PRIMARY:
        raise Rejected("kvs: the primary namespace stays", code="bad-namespace", hint="fluxkv kvs unlink -R . empties it")
    event = ["kvs.namespace-remove", SUBJECT, now, {"namespace": name}]
    return Decision([event], since=[NAMESPACES], bumps=[NAMESPACES, ANY])


def no_such_key(key: str) -> Rejected:
    """The refusal for a key that is not there."""
    return Rejected(
        f"kvs: {key}: No such file or directory", code="no-such-key", hint="fluxkv kvs dir -R lists what there is"
    )
