"""What an instance that has ended still takes of its server's memory: as little as can be without losing anything that is read.

Decides what goes (inboxes, heartbeats, leases, guards, producers, which only who writes has need of; whoever goes on with such an
instance begins without them) and what is packed: its journal, log and outputs.
"""

from __future__ import annotations

from ..journal.log import Journal
from ..kvs.errors import Corrupt, FluxkvError
from ..kvs.keys import Keys
from ..kvs.port import Store

FEW = 400  # commits: a journal that short is read, to know whose output there may be
RANKS = 64  # inboxes that are dropped unseen; a larger instance's journal weighs more than its inboxes


def shrink(store: Store, uid: str) -> bool:
    """Of a sealed instance, while it is this one; False if it is another by now, or goes on. Doing it twice is doing it once."""
    keys = Keys(store.namespace)
    meta = store.meta()
    if meta.uid != uid or not meta.sealed:
        return False
    try:
        store.prune_guards(uid, meta.epoch, meta.version)
    except FluxkvError as error:
        if error.code not in ("epoch", "gone"):
            raise
        return False
    try:
        jobs = list(Journal(store).look().jobs) if 0 < meta.version <= FEW else []
    except Corrupt:  # whoever reads it is told; outputs just keep their room
        jobs = []
    packed = [keys.journal, keys.log, keys.guards, keys.away, *(keys.output(job) for job in jobs)]
    dropped = [keys.telemetry, keys.waited, keys.lease, *(keys.inbox(f"node/{rank}") for rank in range(RANKS))]
    return store.shrink(uid, packed, dropped)
