"""Children that ended and left the server: where they are, and how they are found there and brought back. Moves nobody away.

In the namespace of the instance around it stands which places have files of its ended children; a file's name follows from that
instance's identity and the child's name. So the server holds nothing for each of them, and `whereabouts` finds them all. A file is
one child with all that is inside it (`kvs/bundle.py`), read as a store like any other; nothing is written there.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from ..kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.hashes import blake2b
from ..kvs.keys import Keys

if TYPE_CHECKING:
    from ..kvs.port import Depot, Meta, Store

FOLDER = "ended"


def file_of(meta: Meta, name: str) -> str:
    """The name of a child's file. meta: of the instance around it; name: the last word of the child's namespace."""
    plain = name.replace("ƒ", "f")
    return f"{FOLDER}/{meta.archive_uid}/{blake2b(plain.encode(), digest_size=1).hexdigest()}/{plain}"


def places(store: Store) -> list[str]:
    """Where files of the children of the instance at `store` are, the newest place first."""
    return [message.data.decode() for message in reversed(store.messages(Keys(store.namespace).away))]


def note_place(store: Store, url: str) -> None:
    """Have that instance know of a place."""
    if url not in places(store):
        store.push(Keys(store.namespace).away, [url.encode()])


def tip_of(store: Store, meta: Meta) -> str:
    """The id of the last entry of the journal in this store."""
    last = store.entries([meta.version])
    return last[0].id if last else meta.trimmed


def find(store: Store, namespace: str) -> str | None:
    """The server URL by which an ended instance is read that is not on the server; None if there is no such file.

    store: of an instance around it. Raises `Unavailable`, `Corrupt` where a place that may have it can not be read.
    """
    from .whereabouts import beside

    here, steps = store.namespace, namespace.strip("/").split("/")
    for depth in range(len(steps) - 1, -1, -1):
        around = "/" + "/".join(steps[:depth])
        try:
            if around == here:
                found = _find_below(store, namespace, steps[depth])
            else:
                with closing(beside(store, around)) as other:
                    found = _find_below(other, namespace, steps[depth])
        except Rejected:
            return None  # not ours to look at
        if found is not None:
            return found
    return None


def lost(store: Store, namespace: str) -> Unavailable:
    """The error of a child that has been there, and that neither the server nor a place has. store: of the instance around it."""
    what, urls = f"the journal of {namespace} is gone", places(store)
    if not urls:
        return Unavailable(f"{what} from the server", code="no-instance", hint="fluxkv ops adopt says what the server has lost")
    return Unavailable(
        f"{what}: the archive has no file {urls[0]}/{file_of(store.meta(), namespace.rpartition('/')[2])}", code="archive",
        hint="restore that file from a copy of the archive",
    )  # fmt: skip


def _find_below(around: Store, namespace: str, name: str) -> str | None:
    """The same, if the file is that of a child of this very instance."""
    from ..kvs import bundle
    from ..kvs.memory_store import MemoryStore
    from .whereabouts import meta_of

    urls = places(around)
    if not urls:
        return None
    if (meta := meta_of(around)) is None:
        return None
    file = file_of(meta, name)
    failed: FluxkvError | None = None
    for url in urls:
        depot = around.depot(url, to_read=True)
        address = bundle.address_of(depot, file)
        try:
            found = bundle.opened(f"{depot.url}/{file}", depot)
        except (Unavailable, Corrupt) as error:
            failed = failed or error
            continue
        if found is not None:
            head, server = found
            if namespace in head.spaces:
                return address
            if deeper := find(MemoryStore(server, head.namespace), namespace):
                return deeper  # it left before the one around it did
        if found is None and not failed and not _is_there(depot, file):
            failed = _nothing(depot.url, f"may have had {namespace}")
    if failed is not None:
        raise failed
    return None


def _nothing(url: str, what: str) -> Unavailable:
    return Unavailable(
        f"the archive {url} has nothing of this instance any more, and {what}", code="archive",
        hint="mount or mend it; if it has moved, name the place it is at now with FLUXKV_ARCHIVE",
    )


def check_place(store: Store, url: str) -> None:
    """Raise `Unavailable` (archive) for a place that has had files of this instance's children, and has none."""
    depot = store.depot(url, to_read=True)
    if not _is_there(depot, file_of(store.meta(), "")):
        raise _nothing(depot.url, "has had children of it that ended")


def _is_there(depot: Depot, file: str) -> bool:
    """Whether a place that has had files of an instance has any: a directory that is not mounted has none, and says nothing."""
    import os

    from ..kvs.bounded import is_dir
    from ..kvs.depot import local_path

    path = local_path(depot.url)
    return not path or is_dir(depot.url, os.path.join(path, *file.split("/")[:2]))


def bring_back(store: Store, namespace: str) -> bool:
    """Have an ended child on the server again, with all that is inside it; False if it is there, or nowhere. store: of the
    instance around it. Whoever dies meanwhile has brought a part that nobody sees; doing it again goes on.

    Raises `Unavailable` (archive; full), `Corrupt`.
    """
    from ..kvs import bundle
    from ..kvs.memory_store import MemoryStore
    from ..kvs.uri import parse_server
    from . import at_rest, handover
    from .whereabouts import beside, meta_of, read_door

    with closing(beside(store, namespace)) as there:
        for _ in range(2):
            if (meta := meta_of(there)) is None:
                break
            if not meta.leaving or there.leave(meta.uid, tip_of(there, meta), "back"):  # else it went in this moment
                return False
        if read_door(there) is not None:
            return False  # somebody has gone on with it since, on a server of his own
    url = find(store, namespace)
    if url is None:
        return False
    found = bundle.opened(parse_server(url).path)
    if found is None:
        return False
    head, server = found
    if head.namespace != namespace:
        raise Rejected(
            f"the instance {head.namespace}, which {namespace} was in, has ended and is archived as a whole", code="ended",
            hint=f"fluxkv journal children --restore {head.namespace} brings it back",
        )  # fmt: skip
    line = store.meta()
    for name in reversed(head.spaces):
        server.tables.instances[name].back = int(time.time())
        with closing(beside(store, name)) as there:
            handover.bring(MemoryStore(server, name), there, lambda: handover.check_room(store, line))
            at_rest.shrink(there, there.meta().uid)
        if ARMED:
            reach("away.back", Unavailable)
    return True
