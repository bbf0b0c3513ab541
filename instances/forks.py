"""Histories that lost what was acknowledged: noticing it, saying it, and going on from what is left.

Whoever has seen an entry (its own append's answer, what it folded, a cursor) is a witness. A witness whose entry the journal
does not have *fences* the journal: from then on nobody's append is taken, until somebody *adopts* what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..journal.wire import pack, pack_events
from ..kvs.epochs import belongs, given_up, is_anchored, lost_beyond, spans
from ..kvs.errors import Conflict, Corrupt
from ..kvs.port import Appended, Meta, Store, id_pair

BRANCHES = 8  # epochs of what was lost that are remembered
TRIES = 20
HINT = (
    "nothing is written to this history. fluxkv ops adopt says what is lost and who knows of it; restore the server's files, or "
    "let it adopt the rest"
)


def missing(store: Store, known: str, meta: Meta | None = None) -> tuple[int, int] | None:
    """(first, last) version of what the journal lost, if it does not have this entry ("<id>", or an anchor with what it held);
    None if it has it, or may have had it before it was trimmed."""
    meta = meta or store.meta()
    id = _id_of(known)
    version, epoch = id_pair(id)
    if not version:
        return None
    if not belongs(meta.epochs, meta.version, version, epoch):
        return lost_beyond(meta.epochs, meta.version, version, epoch)
    if id != known:  # a bare position may also be named with the epoch that begins behind it
        for entry in store.entries([version]):
            if not is_anchored(entry, known):
                return version, version  # where the two part, nobody can tell
    return None


def notice(store: Store, known: str) -> tuple[int, int] | None:
    """As `missing`; and if the loss has not been adopted, from now on nothing is appended until it is."""
    id = _id_of(known)
    lost: tuple[int, int] | None = None
    for _ in range(TRIES):
        meta = store.meta()
        lost = missing(store, known, meta)
        if lost is None or given_up(meta.epochs, *id_pair(id)):
            return None
        try:
            if fence(store, meta, known):
                break
        except Conflict:
            continue  # somebody opened an epoch meanwhile: look again
    return lost


def fence(store: Store, meta: Meta, known: str) -> bool:
    """Have nothing appended until this loss is adopted. False: the entry is there, where it was just missed; look again (meta was
    another server's, one that lags). Raises `Conflict` if the epoch is another by now."""
    highest = store.fence(meta.uid, meta.epoch, known)
    return id_pair(_id_of(highest or "0"))[0] >= id_pair(_id_of(known))[0]


def is_fenced(store: Store) -> bool:
    """Whether nothing is appended, and rightly so."""
    meta = store.meta()
    return bool(meta.fork) and missing(store, meta.fork, meta) is not None


def unfence(store: Store, meta: Meta) -> None:
    """Take a fence back for an entry that is not lost: it is there, or was given up. Somebody may be quicker."""
    with suppress(Conflict):
        store.unfence(meta.uid, meta.epoch, meta.version, meta.fork)


def _id_of(known: str) -> str:
    return known.partition(":")[0]


def history_lost(tip: int, lost: tuple[int, int], who: str) -> Corrupt:
    """The error of whoever knows more than the journal."""
    first, last = lost
    return Corrupt(
        f"the journal ends at version {tip}, but {who} knows of version {last}: versions {first} to {last} are lost",
        code="history-lost", hint=HINT,
    )  # fmt: skip


def adopt(
    store: Store, lost: tuple[int, int], now: float, by: str, known: Sequence[str] = (), meta: Meta | None = None
) -> Appended:
    """Go on from the journal as it is (as `meta` has it, if given), in a new epoch. lost: the first and the last version known of
    what is given up. known: who knew of which entry, "<id>, of <whom>".

    Raises `Conflict` when somebody else has adopted it, or opened an epoch, in the meantime.
    """
    meta = meta or store.meta()
    if meta.fork:
        more = missing(store, meta.fork, meta) or lost
        lost = min(lost[0], more[0]), max(lost[1], more[1])
    context = {"old": meta.epoch, "lost": list(lost), "known": list(known)}
    payload = pack_events([["adopt", "instance", now, context]])
    return store.adopt(meta.uid, meta.epoch, meta.version, lost, payload, pack({"by": by}), _branch(meta, known))


def _branch(meta: Meta, known: Sequence[str]) -> list[int]:
    """Epochs of what is lost that the history never had: some later witness may know more of them than all do now."""
    ours = {one.epoch for one in spans(meta.epochs)}
    found: dict[int, None] = {}
    for one in (meta.fork, *known):
        try:
            epoch = id_pair(_id_of(one.partition(",")[0]))[1]
        except ValueError:
            continue
        if epoch and epoch not in ours:
            found[epoch] = None
    return list(found)[:BRANCHES]
