"""A child's journal handed up: from its own server into its parent's, under the same namespace, and with it those of all inside it.

What is there then is what was here, byte for byte: entries, contents that they name, output of jobs, guards, the newest snapshot.
It can be broken off at any line and begun again by anybody who has the files: the script passes over what has come, and nobody
sees any of it before the end (`kvs/lua/arrive.lua`). Holds a batch in memory, never a history.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, TypeVar

from ..journal.ids import f58, parse_id
from ..journal.job import INACTIVE
from ..journal.log import Journal
from ..kvs.epochs import given_up
from ..kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.keys import Keys
from ..kvs.port import Meta, Store, id_pair
from ..kvs.redis_store import open_store
from ..kvs.uri import StoreUri, parse_uri, with_namespace
from . import at_rest, away, forks, whereabouts
from .handover_doors import leads_here, take_over
from .memory_line import is_past
from .paths import StateDir, write_json

BATCH = 200  # entries
BATCH_BYTES = 4 * 1024 * 1024
MARK = "handed-up"  # a file in the state directory: when, and where to
REFUSED = "handover.failed"  # in its run/: why the last try came to nothing; in its parent's: the same of one, how many more
KEPT_S = 60.0  # as long as the files are kept beside what was handed up
T = TypeVar("T")


LOST, NOTHING_LEFT = "lost-attempt", "nothing-left"  # codes of what goes nowhere, ever


class Up(Exception):
    """Nothing is left to do: it has been handed up."""


def target_of(settings: Mapping[str, Any]) -> str:
    """The URI of the instance into whose server a child's journal goes: its parent, where that is by now: further up, if the
    parent's own server is gone, or behind the door of who goes on with the parent. Raises `Unavailable`."""
    parent = str(settings["parent"])
    failed: FluxkvError | None = None
    for uri in (parent, *map(str, settings.get("above", ()))):
        found = with_namespace(uri, parse_uri(parent).namespace)
        try:
            with closing(open_store(found, patience_s=1.0)) as store:
                if whereabouts.meta_of(store) is None and (door := whereabouts.read_door(store)) is not None:
                    found = str(StoreUri(whereabouts.through(door, store.namespace), store.namespace))
                    with closing(open_store(found, patience_s=1.0)) as below:
                        below.meta()
                else:
                    store.meta()
                return found
        except (Unavailable, Rejected) as error:
            failed = failed or error
    assert failed is not None
    raise Unavailable(f"the journal can not be handed up: {failed}", code="parent-away", hint=failed.hint)


def hand_up(server: str, settings: Mapping[str, Any], names: set[str] | None = None) -> int:
    """Hand up all that the server with this URL holds of a child and of those inside it; how many journals. names: gets theirs.
    Raises `Unavailable`, `Rejected` (codes lost-attempt, nothing-left: nobody ever will); what has been done by then stays done.
    One inside that is damaged stays where it is, found by a door, and is raised when all others are up."""
    namespace, life = parse_uri(str(settings["uri"])).namespace, life_of(settings)
    target = target_of(settings)
    with closing(open_store(target)) as parent, closing(open_store(str(StoreUri(server, namespace)))) as own:
        line = parent.meta()
        _check_attempt(parent, line, settings)
        inside = [name for name in own.spaces() if name != namespace]
        journals = names if names is not None else set[str]()
        failed, unseen = dict[str, FluxkvError](), False
        # Its own comes last: who finds it finds all. Then the others once more: a fail-over may have taken some back before.
        for name in [*sorted(inside, reverse=True), namespace, *sorted(inside)]:
            if name in failed or (name == namespace and unseen):
                continue
            with closing(_at(own, name)) as source, closing(open_store(with_namespace(target, name))) as there:
                try:
                    if name != namespace and whereabouts.meta_of(source) is not None:
                        leads_here(parent, namespace, there)  # until it has come, and where a fail-over takes that back
                    if bring(source, there, lambda: check_room(parent, line), life):
                        if take_over(there, settings, word_of(source.meta(), life)):
                            bring(source, there, lambda: check_room(parent, line), life)
                        journals.add(name)
                        _pack(there)
                except (Corrupt, Rejected) as error:  # what is wrong with one that is inside keeps down no other
                    if name == namespace:
                        raise
                    failed[name] = error
                    unseen = unseen or not leads_here(parent, namespace, there)
        if failed:
            raise next(iter(failed.values()))
        if settings.get("uid") and namespace not in journals:
            raise Rejected(
                f"{namespace}: its own server has lost all of its journal, so there is nothing to hand up", code=NOTHING_LEFT,
                hint="if its files come back: fluxkv journal export --state-dir DIR writes them out; the folder stays for a week",
            )  # fmt: skip
        return len(journals)


def _check_attempt(parent: Store, meta: Meta, settings: Mapping[str, Any]) -> None:
    """A child was begun on a branch that its parent's journal has lost, but on its own server it goes on: unless that attempt has
    been adopted, another one has its name now, and it must not come up in its place. Raises `Rejected` (code lost-attempt), or
    `Unavailable` while nobody can tell."""
    entry = str(settings.get("entry") or "")
    if not entry or forks.missing(parent, entry, meta) is None:
        return
    journal, id = Journal(parent), parse_id(str(settings["job"]))
    job = journal.find_jobs(journal.look(), [id]).get(id)
    told = journal.story(job.commits, id) if job is not None else []
    if any(event.name == "alloc" and (event.context or {}).get("adopted") == entry for _, event in told):
        return
    pending = not given_up(meta.epochs, *id_pair(entry)) or (job is not None and job.state != INACTIVE and not job.holds)
    if pending and not meta.sealed:  # one that is over adopts nothing any more
        raise Unavailable(f"whether attempt {entry} of job {f58(id)} is adopted is not said yet", code="undecided")
    raise Rejected(
        f"attempt {entry} of job {f58(id)} was begun on a history that its instance has lost: what ran in it is not handed up",
        code=LOST, hint="fluxkv journal export --state-dir DIR writes it out; the files stay for a week",
    )  # fmt: skip


def _pack(there: Store) -> None:
    """What has been handed up is over; but it may have gone down again since it was, to somebody who goes on with it."""
    with suppress(Unavailable):
        at_rest.shrink(there, there.meta().uid)


def _at(store: Store, namespace: str) -> Store:
    return whereabouts.beside(store, namespace)


def check_room(parent: Store, meta: Meta) -> None:
    """History is brought to a server past its soft line by nobody: it waits in the child's files."""
    if is_past(parent, meta):
        raise Unavailable(
            "the journal can not be handed up: the parent's server is past its soft memory line", code="full",
            hint="fluxkv journal archive --now --trim there; it is tried again",
        )  # fmt: skip


def bring(source: Store, target: Store, look: Callable[[], None], life: str = "") -> bool:
    """One namespace; whether it had a journal. One that is on its way from elsewhere leaves its door here: that goes up. look:
    raises where there is no room. life: of which life of the child it is (`life_of`)."""
    for _ in range(2):  # what arrives in this very moment has no door any more, and is there by now
        if (meta := whereabouts.meta_of(source)) is not None:
            break
        door = whereabouts.read_door(source)
        if door is not None:
            if whereabouts.read_door(target) != door:
                whereabouts.leave_door(target, door)
            return False
    if meta is None:
        return False
    source.seal(meta.uid)  # first: what is written, and answered, after its end has been read would be lost
    copy(source, target, source.meta(), look, word_of(meta, life))
    return True


def copy(source: Store, target: Store, meta: Meta, look: Callable[[], None], word: str) -> None:
    """All of a journal into another server, where nobody sees it before the end. word: by which it is known there at each try."""
    try:
        _journal(source, target, meta, look, word)
    except Up:
        pass


def _journal(source: Store, target: Store, meta: Meta, look: Callable[[], None], uid: str) -> None:
    if ARMED:
        reach("handover.before", Unavailable)
    look()
    version = id_pair(_begin(source, target, meta, uid))[0]
    _blobs(source, target, look)
    while entries := source.read(version, BATCH):
        for some in parted(entries, lambda entry: len(entry.header) + len(entry.payload)):
            target.arrive(uid, some)
            if ARMED:
                reach("handover.entries", Unavailable)
        version = entries[-1].version
        look()
    _streams(source, target, uid, look)
    for guards in source.guards():
        target.arrive_tables(uid, guards)
    if (found := source.load_snapshot()) is not None and (version := version_in(found[0])):
        target.arrive_tables(uid, {}, (version, *found))
    if ARMED:
        reach("handover.end", Unavailable)
    target.arrived(uid, meta)
    if ARMED:
        reach("handover.after", Unavailable)


def word_of(meta: Meta, life: str = "") -> str:
    """What stays the same at each try, whoever has sealed the journal in between: when it was made, and its first epoch; and whose
    life it comes from, if that is not the one it was made for."""
    return f"{meta.created!r} {meta.origin_ms} {meta.epochs.partition(':')[0]} {life}".rstrip()


def life_of(settings: Mapping[str, Any]) -> str:
    """Of a child with a server of its own that goes on with an instance: what began its attempt; else "" ."""
    return str(settings["resume"]["entry"]) if settings.get("resume") else ""


def _begin(source: Store, target: Store, meta: Meta, uid: str) -> str:
    """The id of the last entry that has come. Raises `Up` when all of it has."""
    try:
        tip = target.arriving(uid, meta.trimmed)
    except Rejected as error:
        if error.code != "exists":
            raise
        tip = _beside(source, target, meta, uid)
    if not tip:
        _check_same(source, target, meta)
        raise Up
    version = id_pair(tip)[0]
    here = source.entries([version])
    if tip == meta.trimmed or (here and here[0].id == tip):
        return tip
    target.arriving(uid, meta.trimmed, anew=True)  # this history lost what had come of it, or was trimmed meanwhile
    return meta.trimmed


def _beside(source: Store, target: Store, meta: Meta, uid: str) -> str:
    """The same where it came under another word before: from an earlier life of the child, and was gone on with since.

    Whoever has more than what has come has the journal; who has no more than that has had it. Raises `Up` for him.
    """
    tip = target.come()
    if not tip and depart_behind(source, target, uid):
        return target.arriving(uid, meta.trimmed)
    if not tip:
        return ""  # it is there
    version = min(id_pair(tip)[0], meta.version)
    here, there = source.entries([version]), target.entries([version])
    if tip != meta.trimmed and not (here and there and here[0].id == there[0].id):
        raise _copied(target, id_pair(tip)[0], meta)
    if meta.version <= id_pair(tip)[0]:
        raise Up
    target.arrive_over(uid, tip)
    return tip


def depart_behind(source: Store, target: Store, word: str, *, even: bool = False) -> bool:
    """Take out of a server the earlier state of a journal that had gone down from there, which a fail-over has put back: its end is
    here, and what is there lies in it. even: the same state, too. Raises as `Store.depart`."""
    meta, there = source.meta(), target.meta()
    if (there.created, there.origin_ms) != (meta.created, meta.origin_ms) or there.version >= meta.version + even:
        return False
    here, above = source.entries([there.version]), target.entries([there.version])
    if not (here and above and here[0].id == above[0].id):
        return False
    target.depart(there.uid, there.epoch, there.version, word)
    return True


def _check_same(source: Store, target: Store, meta: Meta) -> None:
    """What is there must have all that is here: an older copy of these files may have been handed up. Raises `Rejected` (code
    copied), and the files stay."""
    here, there = source.entries([meta.version]), target.entries([meta.version])
    known = target.meta()
    other = (known.created, known.origin_ms) != (meta.created, meta.origin_ms)
    if other or known.version < meta.version or (here and there and here[0].id != there[0].id):
        raise _copied(target, known.version, meta)


def _copied(target: Store, version: int, meta: Meta) -> Rejected:
    return Rejected(
        f"{target.namespace}: what was handed up ends at version {version}, and these files hold another history, up to "
        f"version {meta.version}: one of the two is a copy", code="copied",
        hint="fluxkv journal export --state-dir DIR writes out what these files hold",
    )  # fmt: skip


def _blobs(source: Store, target: Store, look: Callable[[], None]) -> None:
    names = source.idle_blobs(float("inf"))
    for at in range(0, len(names), 1000):
        for name in target.touch_blobs(names[at : at + 1000]):
            (data,) = source.get_blobs([name])
            if data is not None:
                target.put_blobs({name: data})
        look()


def _streams(source: Store, target: Store, uid: str, look: Callable[[], None]) -> None:
    """What jobs printed and read, and the daemons' log."""
    ours, theirs = Keys(source.namespace), Keys(target.namespace)
    names = [(ours.log, theirs.log), (ours.away, theirs.away)]
    for job in sorted(source.outputs()):
        names += zip(ours.streams_of_job(job), theirs.streams_of_job(job), strict=True)
    for ours_, theirs_ in names:
        after = "0"
        while found := source.messages(ours_, after, BATCH):
            for some in parted(found, lambda message: len(message.data)):
                target.arrive_messages(uid, theirs_, some)
            after = found[-1].id
        look()


def parted(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Runs of at most `BATCH_BYTES`, or of one."""
    begin, held = 0, 0
    for at, item in enumerate(items):
        held += size(item)
        if held > BATCH_BYTES and at > begin:
            yield items[begin:at]
            begin, held = at, size(item)
    yield items[begin:]


def version_in(head: bytes) -> int:
    """Of which version a snapshot is; 0 for one that is damaged, which is as none."""
    from ..journal.snapshot import read_head

    try:
        return int(read_head(head)["version"])
    except Corrupt:
        return 0


# -- from a state directory -------------------------------------------------------------------------------------------


def mark(state_dir: StateDir, target: str, names: Iterable[str] = ()) -> None:
    """Note that it is done, after `hand_up`. target: "" for what goes nowhere. names: of the journals."""
    write_json(state_dir.join(MARK), {"to": target, "at": time.time(), "names": sorted(names)})


def is_marked(state_dir: StateDir) -> bool:
    return os.path.exists(state_dir.join(MARK))


def refusal_in(state_dir: StateDir) -> str:
    """What the last try to hand up said (`REFUSED`), "" if there was none, or all is well."""
    try:
        with open(state_dir.join("run", REFUSED)) as file:
            return file.read().strip()
    except OSError:
        return ""


def remove_files(state_dir: StateDir, settings: Mapping[str, Any]) -> bool:
    """Remove the server's files of a child whose journal is up, a while after that was done; whether nothing is left to do here.

    That it is there, or in the archive, with all that is inside, is looked up once more: a server may have lost what it had, and
    then these files are all there is.
    """
    files, gone = state_dir.join("appendonlydir"), state_dir.join("appendonlydir.gone")
    if is_marked(state_dir) and not os.path.isdir(files):
        shutil.rmtree(gone, ignore_errors=True)
        return True  # whatever became of it since
    try:
        if time.time() - os.path.getmtime(state_dir.join(MARK)) < KEPT_S:
            return False
        with open(state_dir.join(MARK)) as file:
            marked = json.load(file)
        if not marked["to"]:
            return True  # it goes nowhere: whoever sweeps the folder takes it
    except (OSError, ValueError, KeyError):
        return False
    namespace = parse_uri(str(settings["uri"])).namespace
    gone_down = False
    try:
        with closing(open_store(with_namespace(target_of(settings), namespace), patience_s=1.0)) as there:
            door = whereabouts.read_door(there)
            # To somebody who goes on with it; his own door is back where the server has lost the step that took it away.
            gone_down = door is not None and os.path.realpath(door.folder) != os.path.realpath(state_dir.path)
            if there.meta().leaving:
                return False  # what is inside goes first
            missing = [name for name in marked.get("names", ()) if not _is_safe(there, name, state_dir.path)]
    except FluxkvError as error:
        if error.code != "no-instance" or gone_down:
            return False
        missing = [namespace]
    try:
        lost = [name for name in missing if not _has_left(settings, name)]
    except FluxkvError:
        return False  # an archive that is away, too: who knows
    if lost:
        os.unlink(state_dir.join(MARK))
        return False
    shutil.rmtree(gone, ignore_errors=True)
    try:
        os.rename(files, gone)  # in one step: a server that begins on half of them would have half of a journal
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _is_safe(store: Store, name: str, folder: str) -> bool:
    """Whether this server has a journal, or it has gone down from there to somebody whose files are not in this folder."""
    with closing(_at(store, name)) as one:
        if whereabouts.meta_of(one) is not None:
            return True
        door = whereabouts.read_door(one)
    return door is not None and not f"{os.path.realpath(door.folder)}/".startswith(f"{os.path.realpath(folder)}/")


def _has_left(settings: Mapping[str, Any], namespace: str) -> bool:
    """Whether it has left the server that it was handed up to, and is in the archive. Raises `Unavailable` where that is away."""
    around = namespace.rpartition("/")[0] or "/"
    with closing(open_store(with_namespace(target_of(settings), around), patience_s=1.0)) as store:
        return away.find(store, namespace) is not None
