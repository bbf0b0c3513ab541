"""What is known of a journal outside its server, and what a keeper does with it: take a history up, refuse it, or adopt it.

Witnesses are the tip file, which the keeper writes every second; the cursors of this host's agent; the attempts in its
launcher's record. Each names an entry that was in the journal.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..journal.ids import f58
from ..journal.scripts import entry_of
from ..kvs.epochs import anchor, given_up
from ..kvs.errors import Conflict, Corrupt, FluxkvError, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.port import Append, Appended, Meta, StaleEpoch, Store, id_pair
from . import forks
from .paths import StateDir, write_json
from .spool import Record

REFUSE, ADOPT = "refuse", "adopt"
NOTHING = "nothing"  # a guard that no event bumps


class Witness(NamedTuple):
    """known: an entry's id, or its anchor with what it held. who: who has seen it, in words."""

    known: str
    who: str

    @property
    def version(self) -> int:
        return id_pair(self.known.partition(":")[0])[0]


class Loss(NamedTuple):
    """What a journal lost: first and last version that somebody knows of, and who knows, the one who knows most first."""

    first: int
    last: int
    witnesses: list[Witness]

    @property
    def known(self) -> list[str]:
        """As an event says it."""
        return [f"{one.known.partition(':')[0]}, of {one.who}" for one in self.witnesses]


def read_tip(state_dir: StateDir) -> Witness | None:
    """The last entry the keeper has seen, None if it has seen none."""
    try:
        with open(state_dir.join("tip")) as file:
            found = json.load(file)
        version, epoch = int(found["version"]), int(found["epoch"])
        digest = bytes.fromhex(found.get("digest", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Witness(anchor(version, epoch, digest) or f"{version}-{epoch}", "the keeper's tip file")


def write_tip(state_dir: StateDir, store: Store, meta: Meta) -> None:
    """Remember the tip outside the server."""
    from ..journal.wire import read_header

    found = store.entries([meta.version]) if meta.version else []
    tip: dict[str, Any] = {"version": meta.version, "epoch": found[0].epoch if found else meta.epoch}
    if found:
        tip["digest"] = read_header(found[0]).payload_hash.hex()
    if ARMED:
        reach("witness.before")
    write_json(state_dir.join("tip"), tip)
    if ARMED:
        reach("witness.after")


def _cursors(state_dir: StateDir) -> Iterator[Witness]:
    try:
        with open(os.path.join(state_dir.spool, "cursors.json")) as file:
            for rank, position in json.load(file).items():
                if rank == "boot":
                    continue
                id_pair(str(position))
                yield Witness(str(position), f"the agent of node/{rank}, which has read its inbox so far")
    except (OSError, ValueError, AttributeError):
        return


def _attempts(state_dir: StateDir) -> Iterator[Witness]:
    record = Record(state_dir.spool)
    for key in [*record.lost, *record.over]:
        entry = entry_of(key + ".")
        try:
            id_pair(entry)
            yield Witness(entry, f"the launcher, which began an attempt of {f58(int(key.partition('.')[0]))} under it")
        except ValueError:
            continue


def witnesses(state_dir: StateDir) -> list[Witness]:
    """All there are in a state directory, those who know most first."""
    tip = read_tip(state_dir)
    found = [*([tip] if tip else []), *_cursors(state_dir), *_attempts(state_dir)]
    return sorted(found, key=lambda one: one.version, reverse=True)


def find_loss(store: Store, meta: Meta, seen: list[Witness]) -> Loss | None:
    """What the journal lost by the word of these witnesses and of whoever has fenced it; None if nothing that was not given
    up already, in full knowledge, by adopting."""
    if meta.fork:
        seen = [Witness(meta.fork, "somebody who has fenced the journal"), *seen]
    lost: list[tuple[int, int, Witness]] = []
    for one in seen:
        missing = forks.missing(store, one.known, meta)
        if missing is not None and not given_up(meta.epochs, *id_pair(one.known.partition(":")[0])):
            lost.append((*missing, one))
    if not lost:
        return None
    return Loss(min(first for first, _, _ in lost), max(last for _, last, _ in lost), [one for _, _, one in lost])


def all_lost(state_dir: StateDir, where: str) -> Corrupt:
    """The error where the server has no such journal at all any more."""
    tip = read_tip(state_dir)
    what = f"versions 1 to {tip.version} are lost" if tip else "its history is lost"
    hint = "restore the server's files, or begin anew without them: fluxkv ops adopt"
    if state_dir.read().get("kvs") == "own":
        hint = "restore the server's files within a minute, or its job ends; start --on-fork=adopt begins such instances anew"
    return Corrupt(f"the server holds no journal at {where} any more: {what}", code="history-lost", hint=hint)


def is_current(store: Store, meta: Meta | None = None) -> bool:
    """Whether appends are taken as things are: False after a restart of the server until `take_up`, or when it is fenced. meta: as
    somebody else has read it; a store that knew another instance there means this one from then on."""
    meta = meta or store.meta()
    probe = Append(uid=meta.uid, epoch=meta.epoch, decided_at=meta.version, payload=b"", exact=((NOTHING, 1),))
    try:
        return not isinstance(store.append(probe), StaleEpoch)  # it conflicts: nothing has that guard, nothing is written
    except Unavailable as error:
        if error.code != "forked":
            raise
        return False


def take_up(store: Store, state_dir: StateDir, on_fork: str = REFUSE) -> Appended | Meta | None:
    """See to it that the journal may be written to, if it has all that is known here.

    Opens a new epoch if the server was restarted (its `Meta` is the answer), adopts what is left if something is lost and
    `on_fork` says so (`Appended`), does nothing if all is well (None). A fence for what is there after all is taken away. Raises
    `Corrupt(code="history-lost")` naming the missing range: then the journal is fenced, so that nobody writes to it.
    """
    for _ in range(forks.TRIES):
        meta = store.meta()
        loss = find_loss(store, meta, witnesses(state_dir))
        try:
            if loss is None:
                if meta.fork:
                    forks.unfence(store, meta)
                    continue
                if is_current(store):
                    return None
                if ARMED:
                    reach("epoch.before", Unavailable)
                return store.open_epoch(meta.uid, meta.epoch, meta.version)
            if on_fork == ADOPT:
                made = forks.adopt(store, (loss.first, loss.last), time.time(), "keeper", loss.known)
                write_tip(state_dir, store, store.meta())
                return made
            if not forks.fence(store, meta, loss.witnesses[0].known):
                continue
        except FluxkvError as error:
            if error.code == "epoch":
                continue  # somebody was quicker: look again
            raise
        raise forks.history_lost(meta.version, (loss.first, loss.last), loss.witnesses[0].who)
    raise Conflict(f"{store.namespace}: others keep fencing and opening epochs there", hint="try again")


def watch(store: Store, state_dir: StateDir, meta: Meta | None = None) -> None:
    """A keeper's look, every second: is the entry that it saw last still there? Then note the present tip, if it is another.

    meta: as it has just been read. Raises `Corrupt` as `take_up` does.
    """
    meta = meta or store.meta()
    tip = read_tip(state_dir)
    loss = find_loss(store, meta, [tip] if tip else [])
    if loss is not None:
        if not forks.fence(store, meta, loss.witnesses[0].known):
            return  # the next look will find it
        raise forks.history_lost(meta.version, (loss.first, loss.last), loss.witnesses[0].who)
    if tip is None or tip.version != meta.version or given_up(meta.epochs, *id_pair(tip.known.partition(":")[0])):
        write_tip(state_dir, store, meta)
