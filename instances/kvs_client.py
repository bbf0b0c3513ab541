"""The user's key-value store, for programs: `instance.kvs`. Decides how commits are guarded and tried again.

Reading follows the journal: whatever anyone was told is done is seen by every read after it. Writing is one entry of the
journal, all or nothing; last one wins, key by key, unless a condition is given.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ..journal import decide_kvs
from ..journal.decide import Decision
from ..journal.fold_kvs import KvsState
from ..kvs.errors import Conflict, Corrupt, Rejected
from ..kvs.namespaces import PRIMARY, Namespaces
from ..kvs.port import Appended
from ..kvs.tree import check_key
from .kvs_view import Entry, View, store_value

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.wire import Event
    from .kvs_watch import Change

Value = bytes | bytearray | memoryview | str | BinaryIO
FAR = 20_000  # versions that are read one by one rather than skipped by a snapshot
TRIES = 1000  # of a commit with a condition: each time it loses, somebody else has won


def state_at(journal: Journal, version: int | None = None, moment: float | None = None) -> KvsState:
    """All namespaces as of a version, or of a server time (Unix seconds); folds nothing but the KVS.

    Raises `Rejected` (code bad-moment) for a version that is not there yet.
    """
    if version is not None and version > (tip := journal.store.meta().version):
        raise Rejected(f"version {version} is not there yet: the journal ends at {tip}", code="bad-moment")
    found = journal.base.lazy()
    state = KvsState(Namespaces())
    if found is not None and (found.version <= version if version is not None else found.time <= (moment or 0.0)):
        state = KvsState(found.kvs, found.version, found.epoch)
    for commit in journal.commits(state.version, version):
        if moment is not None and commit.time > moment:
            break
        state.apply(commit)
    return state


class NamespaceInfo(NamedTuple):
    """A namespace. owner: user id, created: Unix seconds (both 0 of the primary one). version: of its last commit."""

    name: str
    owner: int
    created: float
    version: int


class Transaction:
    """Operations to be done as one step, when its `with` block ends without an error. version: then, of the commit.

    >>> with kvs.transaction() as step:
    ...     step.put("step.state", "done").unlink("step.lock")
    <fluxkv.instances.kvs_client.Transaction object at 0x...>
    >>> kvs.get("step.state", at=step.version)
    b'done'
    """

    def __init__(self, kvs: Kvs) -> None:
        self._kvs = kvs
        self.ops: list[list[Any]] = []
        self.version = 0

    def put(self, key: str, value: Value) -> Transaction:
        """Store a value."""
        self.ops.append(["put", check_key(key), self._kvs.payload(value)])
        return self

    def append(self, key: str, value: Value) -> Transaction:
        """Add to the end of a value."""
        self.ops.append(["append", check_key(key), self._kvs.payload(value)])
        return self

    def unlink(self, key: str) -> Transaction:
        """Remove a key with all that is below it; nothing if it is not there."""
        self.ops.append(["unlink", check_key(key)])
        return self

    def mkdir(self, key: str) -> Transaction:
        """Make an empty directory."""
        self.ops.append(["mkdir", check_key(key)])
        return self

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.ops:
            self.version = self._kvs.commit(self.ops)


class Kvs:
    """One namespace of an instance's key-value store. Keys are words joined by dots, values are bytes.

    Every writing method gives the version of its commit; reading with `at=` that version shows what it did.

    >>> kvs = instance.kvs
    >>> version = kvs.put({"run.name": "test", "run.tasks": "4"})
    >>> kvs.get("run.name")
    b'test'
    >>> [entry.key for entry in kvs.ls("run")]
    ['run.name', 'run.tasks']
    >>> kvs.put("run.tasks", "5", if_version=version) > version
    True
    """

    def __init__(self, journal: Journal, namespace: str = PRIMARY) -> None:
        self.journal = journal
        self.name = namespace
        self._last = 0  # version of the last plain commit
        self._seen: list[KvsState] = []  # at most one, shared with the other namespaces of this instance

    def namespace(self, name: str) -> Kvs:
        """Another namespace of the same store. It need not be there yet."""
        other = Kvs(self.journal, name)
        other._seen = self._seen
        return other

    # -- reading --------------------------------------------------------------------------------------------------

    def state(self) -> KvsState:
        """All namespaces, as of now. Reads what has come since the last time, or a snapshot if that is much."""
        seen = self._seen[0] if self._seen else None
        if seen is not None and seen.version <= self.journal.store.meta().version <= seen.version + FAR:
            try:
                for commit in self.journal.commits(seen.version):
                    seen.apply(commit)
                return seen
            except Corrupt as error:
                if error.code != "version-gap":  # it was trimmed behind a snapshot meanwhile
                    raise
        state = self.journal.look()
        self._seen[:] = [KvsState(state.kvs, state.version, state.epoch)]
        return self._seen[0]

    def view(self, at: int | None = None) -> View:
        """The namespace as of a version (default: now, until something is read anew). Raises `Rejected`."""
        if at is None:
            return View(self.journal.store, self.state().kvs, self.name)
        return View(self.journal.store, state_at(self.journal, at).kvs, self.name)

    def get(self, key: str, at: int | None = None) -> bytes:
        """A value. Raises `Rejected`: code no-such-key, is-directory."""
        return self.view(at).get(check_key(key))

    def get_text(self, key: str, at: int | None = None) -> str:
        """A value as UTF-8 text."""
        return self.get(key, at).decode()

    def get_json(self, key: str, at: int | None = None) -> Any:
        """A value that is JSON, decoded. Raises `Rejected` (code bad-value) if it is not."""
        try:
            return json.loads(self.get(key, at))
        except ValueError as error:
            raise Rejected(f"kvs: {key}: not JSON: {error}", code="bad-value") from None

    def stat(self, key: str, at: int | None = None) -> Entry | None:
        """What stands at a key, or None. Links are followed."""
        return self.view(at).stat(check_key(key))

    def __contains__(self, key: str) -> bool:
        return self.stat(key) is not None

    def ls(self, key: str = ".", at: int | None = None) -> list[Entry]:
        """The entries of a directory, sorted."""
        return self.view(at).ls(check_key(key))

    def walk(self, key: str = ".", at: int | None = None) -> Iterator[Entry]:
        """Every value, link and empty directory below a directory, sorted."""
        return self.view(at).walk(check_key(key))

    def readlink(self, key: str) -> tuple[str, str]:
        """(namespace, key) a link points to; the namespace is "" for its own."""
        return self.view().readlink(check_key(key))

    def version(self) -> int:
        """The version of the last commit in this namespace; 0 before any."""
        return self.view().tree.version

    # -- writing --------------------------------------------------------------------------------------------------

    def payload(self, value: Value) -> Any:
        """A value as a commit holds it; its large pieces are stored."""
        if isinstance(value, str):
            value = value.encode()
        elif isinstance(value, bytearray | memoryview):
            value = bytes(value)
        elif not isinstance(value, bytes) and not hasattr(value, "read"):
            raise TypeError(f"a KVS value is bytes, text or a binary stream, not {type(value).__name__}; see put_json")
        return store_value(self.journal.store, value)

    def put(
        self,
        key: str | Mapping[str, Value],
        value: Value | None = None,
        *,
        absent: bool = False,
        if_version: int | None = None,
    ) -> int:
        """Store a value, or several ({key: value}) in one commit; the commit's version.

        absent: only if no such key is there (`Rejected`, code exists). if_version: only if each key is there and has not
        changed after that version (`Conflict`). A stream as a value is read to its end.
        """
        pairs = {key: value} if isinstance(key, str) else dict(key)
        ops = []
        for name, one in pairs.items():
            if one is None:
                raise Rejected(f"kvs: {name}: no value", code="bad-value", hint="unlink removes a key")
            ops.append(["put", check_key(name), self.payload(one)])
        return self.commit(ops, absent=absent, if_version=if_version)

    def put_json(self, key: str, value: Any, **conditions: Any) -> int:
        """Store a value as JSON. conditions: those of `put`."""
        return self.put(key, json.dumps(value, separators=(",", ":"), allow_nan=False), **conditions)

    def append(self, key: str, value: Value) -> int:
        """Add to the end of a value (or begin it); of two at once both survive."""
        return self.commit([["append", check_key(key), self.payload(value)]])

    def update(self, key: str, change: Callable[[bytes | None], Value]) -> int:
        """Store what `change` makes of a key's value (None: not there), again if it has changed meanwhile.

        >>> version = kvs.update("count", lambda old: str(int(old or b"0") + 1))
        >>> kvs.get("count")
        b'1'
        """
        check_key(key)

        def made(view: View) -> list[Any]:
            return [["put", key, self.payload(change(None if view.stat(key) is None else view.get(key)))]]

        return self.change(made)

    def change(self, make: Callable[[View], Sequence[Any]]) -> int:
        """Operations that are made of what is there, as one step, and made again if a key that they name has changed meanwhile; its
        version. None: nothing is done."""

        def decide(state: KvsState) -> Decision:
            ops = make(View(self.journal.store, state.kvs, self.name))
            return decide_kvs.conditional(state, ops, self._now(), self.name) if ops else Decision([])

        return self._settle(decide)

    def commit(self, ops: Sequence[Any], *, absent: bool = False, if_version: int | None = None) -> int:
        """Operations (`namespaces.check_ops`) as one step; its version. absent, if_version: as in `put`."""
        now = self._now()
        if absent or if_version is not None:
            return self._settle(
                lambda state: decide_kvs.conditional(state, ops, now, self.name, absent=absent, version=if_version)
            )
        if self.name != PRIMARY:
            return self._settle(lambda state: decide_kvs.in_namespace(state, ops, now, self.name, os.urandom(1)[0]))
        return self._say(ops, now)

    def _say(self, ops: Sequence[Any], now: float) -> int:
        """A commit that looks at nothing. Its one guard is its own, so that it is never done twice."""
        version = max(self._last, self.journal.meta.version)
        for _ in range(TRIES):
            decision = decide_kvs.once(decide_kvs.commit(ops, now), os.urandom(1)[0])
            answer = self.journal.append(decision, version)
            if isinstance(answer, Appended):
                self._last = answer.version
                return answer.version
            self.journal.cope(answer)
            self.journal.meta = self.journal.store.meta()
            version = self.journal.meta.version
        raise Conflict("others keep writing at the same time", hint="try again")

    def transaction(self) -> Transaction:
        """Several operations as one step: a context manager."""
        return Transaction(self)

    def unlink(self, keys: str | Iterable[str], *, recursive: bool = False, force: bool = False) -> int:
        """Remove keys in one commit. recursive: directories that are not empty, too. force: missing keys are no error."""
        names = [check_key(key) for key in ([keys] if isinstance(keys, str) else keys)]
        return self._settle(
            lambda state: decide_kvs.unlink(
                state, names, self._now(), self.name, recursive=recursive, force=force
            )
        )

    def mkdir(self, *keys: str) -> int:
        """Make empty directories; those that are there stay as they are."""
        return self.commit([["mkdir", check_key(key)] for key in keys])

    def link(self, target: str, key: str, target_namespace: str = "") -> int:
        """Make `key` a symbolic link. Raises `Rejected` (code link-loop) if it would lead to itself."""
        return self._settle(
            lambda state: decide_kvs.link(
                state, check_key(target), check_key(key), self._now(), self.name, target_namespace
            )
        )

    def copy(self, old: str, new: str, *, source: str = "", move: bool = False) -> int:
        """Copy a value, a link or a directory with all below. source: the namespace it is taken from (default: this)."""
        check_key(old)
        return self._settle(
            lambda state: decide_kvs.copy(
                state, old, check_key(new), self._now(), self.name, source or self.name, move=move
            )
        )

    def move(self, old: str, new: str, *, source: str = "") -> int:
        """As `copy`, and the old one goes in the same step."""
        return self.copy(old, new, source=source, move=True)

    # -- namespaces -----------------------------------------------------------------------------------------------

    def namespaces(self) -> list[NamespaceInfo]:
        """The primary namespace, then the others in the order they were made."""
        trees = self.state().kvs.trees.values()
        return [NamespaceInfo(tree.name, tree.owner, tree.created, tree.version) for tree in trees]

    def create_namespace(self, name: str, owner: int | None = None) -> int:
        """Make a namespace. Raises `Rejected` (code exists)."""
        user = os.getuid() if owner is None else owner
        return self._settle(lambda state: decide_kvs.create_namespace(state, name, user, self._now()))

    def remove_namespace(self, name: str) -> int:
        """Remove a namespace with all it holds. Raises `Rejected` (code no-such-namespace)."""
        return self._settle(lambda state: decide_kvs.remove_namespace(state, name, self._now()))

    # -- waiting --------------------------------------------------------------------------------------------------

    def watch(self, key: str = ".", *, initial: bool = True, timeout: float | None = None) -> Iterator[Change]:
        """What changes at or below a key, as it comes; with `initial`, first what is there.

        Waits on the journal, through restarts of the server. timeout: seconds; raises `Unavailable` (code timeout).

        >>> version = kvs.put("watched.key", "1")
        >>> for change in kvs.watch("watched"):
        ...     print(change.key, change.payload)
        ...     break
        watched.key b'1'
        """
        from .kvs_watch import watch

        return watch(self.journal, self.name, check_key(key), initial, timeout)

    def wait(self, key: str, timeout: float | None = None) -> Entry:
        """Wait until a key is there. timeout: seconds; raises `Unavailable` (code timeout)."""
        from .kvs_watch import wait

        return wait(self.journal, self.name, check_key(key), timeout)

    def wait_version(self, version: int, timeout: float | None = None) -> None:
        """Wait until the journal has come to a version, such as another process was told by its `put`."""
        from .kvs_watch import wait_version

        wait_version(self.journal, version, timeout)

    # -- event logs -----------------------------------------------------------------------------------------------

    def append_event(
        self, key: str, name: str, context: Mapping[str, Any] | None = None, timestamp: float | None = None
    ) -> int:
        """Append an event (RFC 18) to a value that is a log of them. timestamp: Unix seconds (default: now).

        >>> version = kvs.append_event("run.log", "begun", {"step": 1})
        >>> [(event.name, event.context) for event in kvs.events("run.log")]
        [('begun', {'step': 1})]
        """
        from ..journal.eventlog import format_event

        line = format_event(name, self._now() if timestamp is None else timestamp, dict(context) if context else None)
        return self.append(key, line + "\n")

    def events(self, key: str, *, follow: bool = False, timeout: float | None = None) -> Iterator[Event]:
        """The events of a log; with `follow`, then those that are appended, and a log need not be there yet."""
        from .kvs_watch import read_events

        return read_events(self.journal, self.name, check_key(key), follow, timeout)

    # -- within ---------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return time.time()

    def _settle(self, decide: Callable[[KvsState], Decision]) -> int:
        """Decide on what is there now, append, and decide again as long as others are quicker."""
        return self.journal.settle_in(self.state(), decide, TRIES).version
