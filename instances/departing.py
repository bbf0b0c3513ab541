"""Children that ended leave the server: into files of an archive, with all that is inside them. Decides which, and in which order.

Only what is sealed goes, the outermost ended instance as a whole, once that was long ago. It is read, written, and read back; then
the instance around it notes the place, and it is marked: from then on it is read there. Its keys go a while later, when nobody who
looked before still reads them, and after the file was read once more: what the server's history ends with must be the end there.
Each step may be done twice, and by two; a reader finds it at any moment. `away` knows the names. One process at a time does this.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

from ..kvs import bundle
from ..kvs.bundle import Space
from ..kvs.bundle_parts import Far, Kept, KeptEntry, PartReader, PartWriter
from ..kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.keys import Keys
from ..kvs.port import Depot, Entry, Meta, Store
from ..kvs.port_arrival import Inside
from ..kvs.uri import public, with_namespace
from . import away
from .handover import version_in
from .long_history import cut, is_long, take_along
from .whereabouts import beside

LEASE = "children"
LEASE_MS = 60_000  # renewed before each child
GRACE_S = 30.0  # between the mark and the end: as long as somebody may read who has not seen it
PRESSED_S = 60.0  # how old what goes is at least where the server is past its memory line
READ, BLOBS = 500, 100
LARGEST = 100_000_000  # bytes in a file, not compressed: the archiver holds four times that, and who reads it once
FAR = 100  # bytes that are counted for what is in a part, which the file only names
NAME = re.compile(r"ƒ[0-9A-Za-z]+(\.[0-9]+)?")  # of a child; files are named so


@dataclass(slots=True)
class Done:
    """What a run did, or (dry_run) would have done. written: namespaces put into the archive; gone: out of the server; size: of
    the files, in bytes. waiting: in the archive, not out of the server yet; young: how many ended, and too recently to go. held:
    namespace -> what is to happen before it goes; failed: namespace -> what stood in the way."""

    url: str
    dry_run: bool = False
    written: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    size: int = 0
    waiting: list[str] = field(default_factory=list)
    young: int = 0
    held: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Departing:
    """store: of the instance inside which children ended. around: its URI. keep_s: how long they stay. only: one namespace,
    however young."""

    def __init__(
        self, store: Store, url: str, around: str, keep_s: float, *, only: str = "", dry_run: bool = False, grace_s: float = GRACE_S
    ) -> None:
        self.store, self.around, self.keep_s, self.only, self.dry_run, self.grace_s = store, around, keep_s, only, dry_run, grace_s
        self.depot = store.depot(url)
        self.done = Done(self.depot.url, dry_run)
        self._owner = f"{os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}"
        self._inside: dict[str, Inside] = {}
        self._below: dict[str, list[str]] = {}
        self._size = 0
        self._away = False  # the place to which they go; that in which a child has its own history may be another

    def run(self) -> Done:
        """One round. Raises `Unavailable` (busy) while another process does this, and what the store does; what is wrong with one
        child, or with the archive, is in `Done.failed`."""
        self._hold()
        try:
            self._inside = self.store.inside()
            self._sweep()
            for namespace in self._tops():
                self._hold()
                try:
                    self._one(namespace)
                except FluxkvError as error:
                    self.done.failed[namespace] = str(error)
                    if self._away:
                        break  # it is for the others, too
        finally:
            if not self.dry_run:
                self.store.lease(self._owner, 0, LEASE)
        return self.done

    def finish(self, pausing: Callable[[Done, float], None] = lambda done, pause_s: None) -> Done:
        """The same, and once more when what was marked now may go. pausing: hears what was done before it waits, how long."""
        done = self.run()
        if done.waiting and not self.dry_run:
            pausing(done, self.grace_s + 1.0)
            time.sleep(self.grace_s + 1.0)
            more = Departing(self.store, self.depot.url, self.around, self.keep_s, only=self.only, grace_s=self.grace_s)
            try:
                again = more.run()
            except Unavailable as error:
                if error.code != "busy":
                    raise
                return done  # somebody else has come meanwhile, who does it
            done.gone += again.gone
            done.waiting = again.waiting
            done.failed.update(again.failed)
        return done

    def _hold(self) -> None:
        if not self.dry_run and not self.store.lease(self._owner, LEASE_MS, LEASE):
            raise Unavailable(
                "children of this instance are being archived by another process now", code="busy",
                hint="wait for it, then try again",
            )  # fmt: skip

    def _sweep(self) -> None:
        """What is left of one that was gone, all but its jobs' streams, when whoever dropped it died."""
        for name, (meta, there, damage) in [*self._inside.items()]:
            keys = Keys(name)
            if meta is None and not damage and all(keys.job_of_stream(key) >= 0 for key in there):
                del self._inside[name]
                if not self.dry_run:
                    with closing(beside(self.store, name)) as left:
                        left.leave("", "", "rest", there)

    # -- which ----------------------------------------------------------------------------------------------------

    def _tops(self) -> list[str]:
        """The outermost ended instances whose time has come, those that are marked first: they cost little."""
        now, own = self.store.now(), self.store.namespace
        tops: list[str] = []
        self._below = {}
        within = ""
        for name in sorted(self._inside, key=lambda name: name.split("/")):  # what is inside another comes behind it
            if within and name.startswith(within + "/"):
                self._below[within].append(name)
                continue
            (meta, _, damage), around = self._inside[name], name.rpartition("/")[0] or "/"
            if damage and self.only in ("", name):
                self.done.failed[name] = damage  # it stays, and what is inside it, until somebody has looked at it
            there = self._inside[around].meta if around in self._inside else None
            if meta is None or not meta.sealed or (around != own and there is None) or not NAME.fullmatch(name.rpartition("/")[2]):
                continue
            within = name
            self._below[name] = []
            tops.append(name)
        found = [name for name in tops if self._is_due(name, now)]
        return sorted(found, key=lambda name: (not self._meta(name).leaving, name))

    def _meta(self, name: str) -> Meta:
        meta = self._inside[name].meta
        assert meta is not None
        return meta

    def _is_due(self, name: str, now: float) -> bool:
        if self.only:
            return name == self.only
        meta = self._meta(name)
        if not meta.leaving and max(meta.sealed, meta.back) > now - self.keep_s:
            self.done.young += 1
            return False
        return True

    def _stays(self, name: str) -> str:
        """Why one that ended can not go now, "" if it can."""
        for one in (name, *self._below[name]):
            meta, keys = self._inside[one].meta, Keys(one)
            if damage := self._inside[one].damage:
                raise Corrupt(damage, code="wrong-type")
            if meta is None:
                coming = keys.door in self._inside[one].keys
                return f"{one} has not been handed up yet" if coming else f"{one} has no journal"
            if not meta.sealed:
                return f"{one} has not ended"
            if meta.fork:
                return f"{one} has lost history, and nobody has adopted what is left"
        around, _, word = name.rpartition("/")
        with closing(beside(self.store, around or "/")) as other:
            rows = [child for child in other.children() if child.name == word]
            if any(not child.over for child in rows):
                return f"another job is to go on with {name}"
            if rows:
                return f"a keeper of {around or '/'} has not looked at the end of {name} yet"
        return ""

    # -- one ------------------------------------------------------------------------------------------------------

    def _one(self, name: str) -> None:
        if why := self._stays(name):
            self.done.held[name] = why
            return
        with closing(beside(self.store, name.rpartition("/")[0] or "/")) as around:
            if self._meta(name).leaving:
                self._go(name, around)
            else:
                self._write(name, around)

    def _write(self, name: str, around: Store) -> None:
        if self.dry_run:
            self.done.written.append(name)
            return
        self._size = 0
        file = away.file_of(around.meta(), name.rpartition("/")[2])
        parts = PartWriter(self.depot, file)
        spaces = [self._read(one, parts) for one in (name, *self._below[name])]
        if why := self._changed(name):
            self.done.held[name] = why
            return
        spaces += self._known_before(file, spaces, parts)
        with self._using():
            parts.flush()
            data = bundle.to_bytes(public(with_namespace(self.around, around.namespace)), spaces, parts.names)
            self.depot.put(file, data)
            kept = self.depot.get(file)
        if kept != data:
            raise Corrupt(
                f"the archive {self.depot.url} has not kept {file} as it was written: nothing was removed", code="bad-archive"
            )
        self.done.written.append(name)
        self.done.size += len(data) + parts.written
        if ARMED:
            reach("away.written", Unavailable)
        with self._using():
            parts.forget_others()
        away.note_place(around, self.depot.url)
        if ARMED:
            reach("away.noted", Unavailable)
        for one in reversed(spaces):
            with closing(beside(self.store, one.namespace)) as there:
                if one.namespace in self._inside and not there.leave(one.meta.uid, one.tip, "mark"):
                    self.done.held[name] = f"{one.namespace} goes on"
                    return
        if ARMED:
            reach("away.marked", Unavailable)
        self.done.waiting.append(name)

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Note that the place does not do what it should."""
        try:
            yield
        except Unavailable:
            self._away = True
            raise

    def _changed(self, name: str) -> str:
        """What became of those that were read since we looked, "" if nothing: another process may have taken them out of the server
        meanwhile, while we were not heard of, and then some of it was not there to be read."""
        for one in (name, *self._below[name]):
            with closing(beside(self.store, one)) as there:
                try:
                    if there.meta()._replace(room=0) == self._meta(one)._replace(room=0):
                        continue
                except Unavailable as error:
                    if error.code != "no-instance":
                        raise
            return f"{one} has changed while it was read"
        return ""

    def _holds(self, size: int) -> None:
        """So many bytes more of one child are in memory."""
        self._size += size
        if self._size > LARGEST:
            raise Rejected(
                f"it has more than {LARGEST // 1_000_000} MB of small pieces of output, too much for a file",
                code="too-large", hint="fluxkv journal export writes it to a file of its own",
            )  # fmt: skip

    def _keep(self, parts: PartWriter, data: bytes) -> Kept:
        """In the file, or in a part of it."""
        with self._using():
            kept = parts.keep(data)
        self._holds(FAR if isinstance(kept, Far) else len(kept))
        return kept

    def _keep_entry(self, parts: PartWriter, entry: Entry) -> KeptEntry:
        with self._using():
            kept = parts.keep_entry(entry)
        self._holds(len(entry.header) + len(entry.payload) if kept is entry else FAR)
        return kept

    def _known_before(self, file: str, spaces: list[Space], parts: PartWriter) -> list[Space]:
        """What the archive has under this name and the server has no more. A file that is no earlier part of the same history stays
        under another name (HAZARD 19)."""
        with self._using():
            before = self.depot.get(file)
        if before is None:
            return []
        try:
            head, known = bundle.from_bytes(before, file)
        except Corrupt:
            head, known = None, []
        now = {one.namespace: one for one in spaces}
        gone = [one for one in known if one.namespace not in now]
        if head is not None and all(bundle.continues(now[one.namespace], one) for one in known if one.namespace in now):
            get, keep = PartReader(self.depot, file, head.parts).get, partial(self._keep, parts)
            return [bundle.moved(one, get, keep, partial(self._keep_entry, parts)) for one in gone] if head.parts else gone
        with self._using():
            self.depot.put(f"{file}.aside-{bundle.name_of(before)}", before)
        return []

    def _read(self, name: str, parts: PartWriter) -> Space:
        """All that the server has of one, but for the beginning of what is long. Raises `Corrupt` where it is not whole."""
        keys = Keys(name)
        with closing(beside(self.store, name)) as there:
            meta = there.meta()._replace(leaving=0, back=0, room=0)
            meta, newest = self._without_beginning(there, keys, take_along(there, meta, self.depot))
            snapshot = (*newest[:2], [self._keep(parts, chunk) for chunk in newest[2]]) if newest is not None else None
            entries, after = list[KeptEntry](), meta.first - 1
            while some := there.read(after, READ):
                entries += [self._keep_entry(parts, entry) for entry in some]
                after = some[-1].version
            if after != meta.version or len(entries) != meta.version - meta.first + 1:
                raise Corrupt(f"{name}: entries are missing between versions {meta.first} and {meta.version}", code="version-gap")
            there.idle_blobs(float("inf"))  # notes those of a program that did not
            names = there.idle_blobs(float("inf"))
            blobs = dict[str, Kept]()
            for at in range(0, len(names), BLOBS):
                some_names = names[at : at + BLOBS]
                found = zip(some_names, there.get_blobs(some_names), strict=True)
                blobs.update({one: self._keep(parts, data) for one, data in found if data})
            streams = [key for key in self._inside[name].keys if keys.job_of_stream(key) >= 0 or key in (keys.log, keys.away)]
            guards = dict[str, str]()
            for rows in there.guards():
                guards.update(rows)
            return Space(name, meta, entries, blobs, {key: self._rows(there, key, parts) for key in streams}, guards, snapshot)

    def _rows(self, there: Store, key: str, parts: PartWriter) -> list[tuple[str, Kept]]:
        found: list[tuple[str, Kept]] = []
        while some := there.messages(key, found[-1][0] if found else "0", READ):
            found += [(one.id, self._keep(parts, one.data)) for one in some]
        return found

    def _without_beginning(self, there: Store, keys: Keys, meta: Meta) -> tuple[Meta, tuple[int, bytes, list[bytes]] | None]:
        """(meta, snapshot) as the file has them: of a long history what is old is in an archive beside it."""
        if is_long(there, keys, meta):
            try:
                return cut(there, meta, self.depot)
            except Unavailable as error:
                if error.code != "pruned":
                    raise
        found = there.load_snapshot()
        version = version_in(found[0]) if found is not None else 0
        return meta, (version, *found) if found is not None and version else None

    def _go(self, name: str, around: Store) -> None:
        """Out of the server, after the file was read once more."""
        head, where = self._file(name, around)
        here = [name, *self._below[name]]
        for one in here:
            meta = self._meta(one)
            uid, tip = head.spaces.get(one, ("", ""))
            with closing(beside(self.store, one)) as there:
                last = away.tip_of(there, meta)
            if uid != meta.uid or last != tip:
                self._stay(here)
                raise Corrupt(f"{where} has another history of {one} than the server: nothing was removed", code="bad-chain")
        if self.dry_run:
            self.done.gone.append(name)
            return
        if not all(self._drop(one, head) for one in reversed(here[1:])):
            self.done.waiting.append(name)
            return
        if ARMED:
            reach("away.inside", Unavailable)
        (self.done.gone if self._drop(name, head) else self.done.waiting).append(name)

    def _drop(self, name: str, head: bundle.Head) -> bool:
        """One of those in a file out of the server; False if it goes on, or is marked too lately."""
        with closing(beside(self.store, name)) as there:
            return there.leave(*head.spaces[name], "go", self._inside[name].keys, self.grace_s)

    def _file(self, name: str, around: Store) -> tuple[bundle.Head, str]:
        """What the archive has of it, all read and checked. Raises `Unavailable` where it has nothing."""
        file = away.file_of(around.meta(), name.rpartition("/")[2])
        for url in away.places(around):
            depot: Depot = around.depot(url)
            with self._using():
                data = depot.get(file)
            if data is not None:
                where = f"{depot.url}/{file}"
                head = bundle.from_bytes(data, where)[0]
                try:
                    PartReader(depot, file, head.parts).check()
                except FluxkvError:
                    self._stay([name, *self._below[name]])  # and it is written anew
                    raise
                return head, where
        self._stay([name, *self._below[name]])
        raise Unavailable(f"the archive has no {file} any more: nothing was removed", code="archive")

    def _stay(self, names: list[str]) -> None:
        """Take the marks back: they are read from the server again."""
        for one in names:
            meta = self._meta(one)
            with closing(beside(self.store, one)) as there:
                there.leave(meta.uid, away.tip_of(there, meta), "stay")


def tell(say: Callable[[str, str], None], done: Done) -> None:
    """Say in a log what was done."""
    if done.written:
        say("info", f"{len(done.written)} children that ended are in {done.url} ({done.size} bytes)")
    if done.gone:
        say("info", f"{len(done.gone)} children that ended are out of the server")
    for name, why in list(done.failed.items())[:10]:
        say("warning", f"{name} stays in the server: {why}")
