"""A child's row in its parent's table, the door of its server, and its memo, written again where the parent does not have them;
and the journals that came down to its server, where the parent's has them again.

All are written after the `alloc` of the child's job, so a fail-over that takes that back, or a little less, takes them, too; the
child, on a server of its own or in another part of a cluster, lives on, and is adopted. Without a row nobody would ever seal it,
without a memo nobody would know that the job is an instance.
The leading keeper of a child looks when its parent has opened another epoch, and as long as its `start` could not say the memo (the
parent's server was away in that moment; the mark `UNTOLD` is there). A row is written only while the attempt stands by
the parent's word: one that is not adopted yet would be taken for over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from ..journal.ids import parse_id
from ..kvs.appending import MARK
from ..kvs.children import Child
from ..kvs.epochs import spans
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.port import Meta, Store
from ..kvs.redis_store import open_store
from ..kvs.uri import parse_uri, with_namespace
from . import forks
from .paths import StateDir
from .supervised import remove, write_word
from .whereabouts import beside, meta_of

UNTOLD = "untold"  # in run/
LOST = "lost"  # in run/: since when (boot-time clock, s) a child's own server is known to have nothing of it
RESTORE_S = 60.0  # as long as somebody has to put its files back
OWN_LOST = "its own server has lost all of its journal (fluxkv start --on-fork=adopt begins such instances anew)"
NOTHING_LEFT = "the server has lost all of its journal (fluxkv start --on-fork=adopt begins such instances anew)"


class ParentRow:
    """settings: the child's, as `child.make_settings` made them."""

    def __init__(self, settings: Mapping[str, Any], state_dir: StateDir | None = None) -> None:
        self._settings, self._state_dir = settings, state_dir
        self._epoch = int(settings.get("parent_epoch") or 0)  # in which the row is known to be there

    def look(self, meta: Meta | None) -> None:
        """meta: the parent's, None if it has not answered yet. What cannot be done now is tried again the next time."""
        untold = self._state_dir.join("run", UNTOLD) if self._state_dir is not None else ""
        if untold and not os.path.exists(untold):
            untold = ""
        if meta is None or (meta.epoch == self._epoch and not untold) or not self._settings.get("entry"):
            return
        try:
            with closing(open_store(as_parent(self._settings), patience_s=0.0)) as parent:
                if not note_again(parent, self._settings):
                    return
                if self._settings.get("kvs") == "own" and self._state_dir is not None:
                    self._leave_door(parent, self._state_dir)
                    if self._settings.get("resume"):
                        self._stay_down(self._state_dir)
                if untold or lost_since(meta.epochs, self._epoch):
                    self._tell_again(parent)
            self._epoch = meta.epoch
            if untold:
                remove(untold)
        except FluxkvError:
            return

    def _tell_again(self, parent: Store) -> None:
        from .access import lasting
        from .child import Place, tell_parent
        from .whereabouts import server_of

        settings = self._settings
        if server_of(parent, parse_uri(settings["uri"]).namespace) is None:
            raise Unavailable("its journal was lost, too", code="no-instance")
        number, entry = int(settings.get("number") or 1), str(settings["entry"])
        here = Place(as_parent(settings), parse_id(settings["job"]), int(settings["since"]), 0, 1, 0, "", number, entry)
        tell_parent(here, lasting(settings["uri"], settings))

    def _leave_door(self, parent: Store, state_dir: StateDir) -> None:
        from . import own_server, whereabouts

        with closing(beside(parent, parse_uri(self._settings["uri"]).namespace)) as around:
            there = whereabouts.read_door(around)
        if there is None or there.folder != state_dir.path:
            own_server.open_door(self._settings, state_dir)

    def _stay_down(self, state_dir: StateDir) -> None:
        from . import handing_down, own_server

        handing_down.stay_down(self._settings, own_server.door_of(self._settings, state_dir))


def lost_since(epochs: str, epoch: int) -> bool:
    """Whether a history has lost something since an epoch (that it knows or not), as its meta table says."""
    lines = spans(epochs)
    known = next((at for at, one in enumerate(lines) if one.epoch == epoch), -1)
    return any(one.lost for one in lines[known + 1 :])


def over(parent: Store, children: Iterable[Mapping[str, Any]]) -> list[bool]:
    """Which of these children's attempts (by their settings) are over by their parent's word; none while its guards are being made
    anew, or are lost."""
    if not (known := list(children)):
        return []
    mark, *bumps = parent.bumps([MARK, *(f"attempt/{parse_id(one['job'])}" for one in known)])
    return [bool(mark) and bump != int(one["since"]) for one, bump in zip(known, bumps, strict=True)]


def as_parent(settings: Mapping[str, Any]) -> str:
    """The address of a child's parent for who writes there what is the parent's to write."""
    return with_namespace(str(settings.get("granter") or settings["parent"]), parse_uri(settings["parent"]).namespace)


def note_again(parent: Store, settings: Mapping[str, Any]) -> bool:
    """Put the row into the table, as it was; False where the child's attempt does not stand by the parent's word."""
    if not (entry := str(settings.get("entry") or "")):
        return False  # an older program made it
    job = parse_id(settings["job"])
    if parent.bumps([f"attempt/{job}"])[0] != int(settings["since"]):
        return False
    name = parse_uri(settings["uri"]).namespace.rpartition("/")[2]
    parent.note_child(Child(name, job, entry, str(settings.get("user") or "")))
    return True


def note_unsealed(parent: Store, settings: Mapping[str, Any]) -> None:
    """Put the row of a child whose attempt is over into the table once more, if a fail-over took it and the child died before it
    had written it again (its journal may be in a part of a cluster that lost nothing): it is sealed then. parent: whose it is."""
    if not settings.get("lead") or settings.get("kvs") == "own" or not (entry := str(settings.get("entry") or "")):
        return
    if not lost_since(parent.meta().epochs, int(settings.get("parent_epoch") or 0)):
        return
    namespace = parse_uri(settings["uri"]).namespace
    with closing(beside(parent, namespace)) as child:
        meta = meta_of(child)
    if meta is not None and meta.uid == settings.get("uid") and not meta.sealed:
        name = namespace.rpartition("/")[2]
        parent.note_child(Child(name, parse_id(settings["job"]), entry, str(settings.get("user") or "")))


def stands(settings: Mapping[str, Any]) -> bool:
    """Whether a child's attempt does; its row is in the table then. Raises what the store does."""
    with closing(open_store(as_parent(settings), patience_s=0.0)) as parent:
        return note_again(parent, settings)


def fail_job(settings: Mapping[str, Any]) -> bool:
    """End the job of a child of whose journal nothing is left, where its parent's history lost some, too, and somebody has adopted
    the rest: nobody will bring it back. Whether that was so. Raises what the store does."""
    from .child import say_of_attempt
    from .whereabouts import is_made

    with closing(open_store(as_parent(settings), patience_s=0.0)) as parent:
        if not lost_since(parent.meta().epochs, int(settings.get("parent_epoch") or 0)) or not note_again(parent, settings):
            return False
        if is_made(parent, parse_uri(settings["uri"]).namespace):
            return False  # somebody else's
        job = parse_id(settings["job"])
        context = {"type": "lost", "severity": 0, "note": NOTHING_LEFT}
        say_of_attempt(parent, job, str(settings["entry"]), "exception", context)
    return True


def fail_own(settings: Mapping[str, Any], state_dir: StateDir) -> bool:
    """End the job of a child whose own server has nothing left of it, when that has been so for a minute: what it runs can be told
    to nobody, and it holds what others wait for. Whether that was done. Raises what the parent's store does."""
    from .child import say_of_attempt

    path, now = state_dir.join("run", LOST), time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        with open(path) as file:
            since = float(file.read())
    except (OSError, ValueError):
        since = now
        write_word(path, repr(now))
    if now - since < RESTORE_S:
        return False
    with closing(open_store(as_parent(settings), patience_s=0.0)) as parent:
        if not note_again(parent, settings):
            return False
        context = {"type": "lost", "severity": 0, "note": OWN_LOST}
        say_of_attempt(parent, parse_id(settings["job"]), str(settings["entry"]), "exception", context)
    return True


def is_undecided(parent: Store, settings: Mapping[str, Any]) -> bool:
    """Whether the parent's history has lost what began the attempt: it is adopted, or its nodes are told to end it."""
    entry = str(settings.get("entry") or "")
    return bool(entry) and forks.missing(parent, entry) is not None
