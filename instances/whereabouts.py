"""Where the journal of an instance that is a job is: on the server of the instance around it, or on one that it has to itself.

Everybody who looks into a child asks here. A child with a server of its own leaves a *door*, in its own namespace on the server
of the instance around it, until its journal has been handed up and is there itself. So an ended child is found as if it had shared
that server, and later, when it has left that, too, in the archive (`away`). One that ended and was not handed up is read from a
copy of its files, on the host that has them. Writes doors only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..journal.wire import pack, unpack
from ..kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from ..kvs.keys import Keys
from ..kvs.uri import StoreUri, parse_uri, public
from . import away

if TYPE_CHECKING:
    from ..kvs.port import Meta, Store
    from ..kvs.redis_store import RedisStore
    from ..kvs.server_copy import ReadOnlyServer

PATIENCE_S = 1.0
PROBE_S = 2.0  # for a word of servers that are asked at the same time
LISTING_S = 4.0  # for those of all levels of a listing
LEAST_S = 0.1
STARTING_S, AGAIN_S = 2.0, 0.05  # for a server that is being started, looked at so often
SILENT_S = 30.0  # who has said nothing is not asked again
DOOR_S = 30 * 86400.0
OWN = "own"  # the setting `kvs` of a child with a server of its own; else it is "parent"


class Door(NamedTuple):
    """How the server of a child is reached. socket: its URL on its own host; remote: for other hosts, with a password ("": it does
    not listen); folder: the state directory with its files; host, boot: which host that is."""

    socket: str
    remote: str
    folder: str
    host: str
    boot: str


def has_own(settings: dict[str, object]) -> bool:
    """Whether a state directory's instance has a server of its own to care for: a root's, or that of such a child's first node."""
    return not settings.get("parent") or (settings.get("kvs") == OWN and bool(settings.get("lead", True)))


def beside(store: Store, namespace: str, *, kind: type[RedisStore] | None = None) -> Store:
    """Another namespace on a store's server. kind: of store, where that is no memory."""
    server = getattr(store, "server", None)
    if isinstance(server, str):
        from ..kvs.redis_store import open_store

        return open_store(str(StoreUri(server, namespace)), kind=kind, patience_s=PATIENCE_S)
    made: Store = type(store)(server, namespace)  # type: ignore[call-arg]
    return made


def beside_own(store: Store, namespace: str) -> Store:
    """The journal of a child whose own server is there now. Raises `Unavailable` where that does not answer, or has none."""
    from ..kvs.redis_store import open_store

    found = _beside(store, namespace)
    if not isinstance(found, Door):
        if found is not None:
            found.close()
        raise Unavailable(f"{namespace} has no server of its own", code="no-instance")
    return open_store(str(StoreUri(through(found, namespace), namespace)), patience_s=PATIENCE_S)


def leave_door(store: Store, door: Door) -> None:
    """store: the child's namespace on the server of the instance around it."""
    store.push(Keys(store.namespace).door, [pack(list(door))])


def read_door(store: Store, namespace: str = "") -> Door | None:
    """The last one that was left in this namespace (or another of the same server), None if there is none."""
    found = store.messages(Keys(namespace or store.namespace).door)
    if not found:
        return None
    try:
        return Door(*map(str, unpack(found[-1].data)))
    except (FluxkvError, TypeError, ValueError):
        raise Corrupt(f"{namespace or store.namespace}: what says where its server is can not be read", code="bad-door") from None


def server_of(store: Store, namespace: str, *, over: bool = False) -> str | None:
    """The URL of the server that has the journal of the child in a namespace; "": the store's own; None: there is no such child. Of
    one that ended and left the server (`away`) it names the file.

    store: of the instance around it. over: the child's job has ended, so that its files may be read. Raises `Unavailable` (code
    server-away) where it has a server that does not answer.
    """
    found = _look(store, namespace, over)
    if found is None or isinstance(found, str):
        return found
    found.close()
    return ""


def store_of(store: Store, namespace: str, *, over: bool = False, archived: bool = True) -> Store | None:
    """The child's journal, opened; else as `server_of`. archived: also of one that left the server."""
    found = _look(store, namespace, over, archived)
    if not isinstance(found, str):
        return found
    from ..kvs.redis_store import open_store

    return open_store(str(StoreUri(found, namespace)), patience_s=PATIENCE_S)


def _look(store: Store, namespace: str, over: bool, archived: bool = True) -> Store | str | None:
    """The namespace on the store's own server, where its journal is there; else the URL of the child's own. What is handed up in
    this very moment has no door any more, or its server has ended: then it is there by now."""
    tried: Door | None = None
    failed: Unavailable | None = None
    begun = time.monotonic()
    for look in count():
        found = _beside(store, namespace, archived)
        if found is not None and not isinstance(found, Door):
            return found
        if look and found == tried and not (found is not None and _is_starting(found, begun)):
            break
        if found is None:
            tried = None
            continue
        try:
            return through(found, namespace, over or _is_copied(store))
        except Unavailable as error:
            tried, failed = found, error
    if tried is not None and (took := time.monotonic() - begun) >= AGAIN_S:
        _note_wait(begun, took)
    if failed is not None:
        raise failed
    return away.find(store, namespace) if archived else None


def _is_starting(door: Door, since: float) -> bool:
    """Whether a server that does not answer is about to: it is started to hand up what is in its files, or again. A moment is
    waited then, of what a listing may wait for all that are silent. since: when the look began (monotonic)."""
    from .paths import StateDir, lock_held
    from .spool import boot_id

    now = time.monotonic()
    left = LISTING_S - _waited_since(now - SILENT_S)
    if now - since >= min(STARTING_S, left) or door.boot != boot_id():
        return False
    if not lock_held(StateDir(door.folder).lock_file("server")):
        return False
    time.sleep(AGAIN_S)
    return True


def is_made(store: Store, namespace: str) -> bool:
    """Whether there is, or was, an instance in a namespace, wherever its journal is. store: of the instance around it."""
    found = _beside(store, namespace)
    if found is None or isinstance(found, Door):
        return found is not None or away.find(store, namespace) is not None
    try:
        return bool(found.meta().version)
    finally:
        found.close()


def _beside(store: Store, namespace: str, archived: bool = True) -> Store | Door | None:
    """The namespace on the store's own server, where its journal is there; else its door, if it has one."""
    from .child_store import ChildStore

    other = beside(store, namespace, kind=ChildStore)
    door: Door | None = None
    try:
        meta = meta_of(other)
        if meta is not None and not (archived and meta.leaving and _is_away(store, namespace)):
            return other
        door = read_door(other) if meta is None else None
    except FluxkvError:
        other.close()
        raise
    other.close()
    return door


def _is_away(store: Store, namespace: str) -> bool:
    """Whether one that is on its way out of the server can be read where it goes."""
    try:
        return away.find(store, namespace) is not None
    except FluxkvError:
        return False


def _is_copied(store: Store) -> bool:
    """Whether this is a copy of an instance's files: nothing in it runs any more, whatever it says."""
    from ..kvs.server_copy import is_copy

    server = getattr(store, "server", None)
    return isinstance(server, str) and is_copy(server)


def meta_of(store: Store) -> Meta | None:
    """What is there, or None where no instance is. Raises `Unavailable` otherwise."""
    try:
        return store.meta()
    except Unavailable as error:
        if error.code != "no-instance":
            raise
        return None


def uri_of(store: Store, uri: str, namespace: str, *, over: bool = False) -> str | None:
    """The child's URI. uri: of the instance around it, whose store this is. Else as `server_of`."""
    server = server_of(store, namespace, over=over)
    return None if server is None else str(StoreUri(server or parse_uri(uri).server, namespace))


def moved(store: Store, uri: str) -> str:
    """The URI by which a child is read now that is not at the one it had, or "". store: that one's."""
    namespace = store.namespace
    with closing(beside(store, namespace.rpartition("/")[0] or "/")) as around:
        found = server_of(around, namespace, over=True)
    return str(StoreUri(found, namespace)) if found else ""


def through(door: Door, namespace: str, over: bool = False) -> str:
    """The URL by which the server behind a door is reached from here."""
    from .spool import boot_id

    if door.boot == boot_id():
        if _answers(door.socket):
            return door.socket
        if over and (copy := _copy_of(door.folder)):
            return copy
    if door.remote and _answers(door.remote):
        return _without_password(door.remote)
    where = "" if door.boot == boot_id() else f", a socket file on host {door.host}"
    raise Unavailable(
        f"the server that {namespace} has to itself does not answer: {public(door.socket)}{where}", code="server-away",
        hint="its keeper starts it again; what it holds when its job is over is handed up from its files",
    )  # fmt: skip


def _without_password(url: str) -> str:
    """The same with the password in a file of ours: what we find is shown, and given to commands."""
    from ..kvs.hashes import blake2b
    from ..kvs.listening import write_secret
    from ..kvs.server import private_dir
    from ..kvs.uri import with_password_file
    from .paths import home

    folder = os.path.join(home(), ".doors")
    kept, password = with_password_file(url, os.path.join(folder, blake2b(url.encode(), digest_size=8).hexdigest()))
    if not password:
        return url
    path = os.path.join(folder, os.path.basename(kept.rpartition("=")[2]))
    try:
        os.utime(path)  # named by all that is in it: it stays as it is, and is known to be used
    except FileNotFoundError:
        private_dir(folder)
        _forget_old(folder)
        write_secret(path, password)
    return kept


def _forget_old(folder: str) -> None:
    """Files that nobody has asked for in a month are of servers that are gone."""
    with os.scandir(folder) as files:
        for file in files:
            with suppress(OSError):
                if file.stat().st_mtime < time.time() - DOOR_S:
                    os.unlink(file.path)


_silent: dict[str, float] = {}  # URLs of servers from which no word came, and when (monotonic)
_waited: list[tuple[float, float]] = []  # when, and how long


def ask_ahead(store: Store, namespaces: Iterable[str]) -> None:
    """Before many children are looked into: ask the servers of those that have one at the same time. Whoever says nothing is not
    waited for any more, so a listing takes a few seconds at most, however many are out of reach. store: of the instance around."""
    if len(names := list(namespaces)) < 2:
        return
    now = time.monotonic()
    left = LISTING_S - _waited_since(now - SILENT_S)
    ask_at_once(store, names, min(PROBE_S, max(LEAST_S, left)))
    _note_wait(now, time.monotonic() - now)


def _note_wait(begun: float, took: float) -> None:
    """begun: monotonic."""
    _waited[:] = [one for one in _waited if one[0] > begun - SILENT_S]
    _waited.append((begun, took))


def _waited_since(moment: float) -> float:
    return sum(took for at, took in _waited if at > moment)


def ask_at_once(store: Store, namespaces: Iterable[str], within_s: float | None = None) -> None:
    """The same for who has other things to do: all are waited for together, for so many seconds (`PROBE_S`)."""
    if not isinstance(getattr(store, "server", None), str):
        return
    urls: list[str] = []
    for namespace in namespaces:
        try:
            door = read_door(store, namespace)
        except FluxkvError:
            continue  # said by who looks into it
        urls += _addresses(door) if door is not None else ()
    from ..kvs.probe import silent

    found, now = silent(urls, PROBE_S if within_s is None else within_s), time.monotonic()
    for url in [url for url, at in _silent.items() if at <= now - SILENT_S]:
        del _silent[url]
    _silent.update(dict.fromkeys(found, now))


def _addresses(door: Door) -> list[str]:
    from .spool import boot_id

    return [one for one in (door.socket if door.boot == boot_id() else "", door.remote) if one]


def _answers(url: str) -> bool:
    from ..kvs.resp import RespConnection

    if url in _silent and time.monotonic() - _silent[url] < SILENT_S:
        return False
    try:
        RespConnection(url).close()
    except (Unavailable, Rejected):
        return False
    return True


_copies: dict[str, ReadOnlyServer] = {}  # by state directory; they end with this process


def _copy_of(folder: str) -> str:
    """A throw-away server on a copy of the files there; "" if there are none, or some server has them."""
    from .paths import StateDir, lock_held

    if folder not in _copies:
        if not os.path.isdir(os.path.join(folder, "appendonlydir")) or lock_held(StateDir(folder).lock_file("server")):
            return ""
        import atexit

        from ..kvs.server_copy import open_readonly

        _copies[folder] = copy = open_readonly(folder)
        atexit.register(copy.close)
    return _copies[folder].url


def copies_open() -> bool:
    """Whether this process reads a copy of files: it has to live as long as somebody reads."""
    return bool(_copies)


# -- upwards ----------------------------------------------------------------------------------------------------------


def is_child(namespace: str) -> bool:
    """Whether a namespace is that of a job of another instance."""
    return namespace.rpartition("/")[2].startswith("ƒ")


def parent_of(uri: str) -> str:
    """The URI of the instance that this one is a job of, perhaps on another server. Raises `Rejected` for one that is nobody's."""
    from ..kvs.redis_store import open_store

    server, namespace = parse_uri(uri)
    if not is_child(namespace):
        raise Rejected(f"{public(uri)} is no job of another instance: it has no parent", code="no-parent")
    if known := _next_above(uri):
        return known
    above = str(StoreUri(server, namespace.rpartition("/")[0] or "/"))
    store = open_store(above)
    try:
        if meta_of(store) is not None:
            return above
    finally:
        store.close()
    from ..journal.log import Journal

    store = open_store(uri)
    try:
        found = Journal(store).look().instance.get("parent")
    finally:
        store.close()
    if not isinstance(found, str):
        raise Rejected(f"{public(uri)} does not say which instance it is a job of", code="no-parent")
    return found


def _next_above(uri: str) -> str:
    """The same, by what the state directory we are in knows of the instances around it, with the rights of each; "" if nothing."""
    from ..kvs.uri import same_instance
    from .paths import StateDir

    inside = os.environ.get("FLUXKV_STATE_DIR", "")
    try:
        settings = StateDir(inside).read() if inside else {}
        line = [str(settings["uri"]), str(settings["parent"]), *map(str, settings.get("above", ()))]
    except (FluxkvError, KeyError):
        return ""
    return next((next_ for one, next_ in pairwise(line) if same_instance(one, uri)), "")


def root_of(uri: str) -> str:
    """The URI of the instance that this one is in, at any depth, and that is in none."""
    while is_child(parse_uri(uri).namespace):
        uri = parent_of(uri)
    return uri
