"""An instance with children on a memory store: facts are put into the journal by hand."""

from __future__ import annotations

from typing import Any

from worker_rig import T0, Rig

from fluxkv.instances import child
from fluxkv.instances.whereabouts import beside
from fluxkv.journal.decide import Decision
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.memory_server import share
from fluxkv.kvs.port import Appended, Store

SETTINGS = {"uri": "memory:family"}


class Family(Rig):
    """An instance with children: their namespaces, with an entry each."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        share("family", self.server)

    def begin(self, id: int) -> Store:
        """A job runs, and is an instance."""
        self.started(id)
        job = self.job(id)
        here = child.Place("memory:family", id, job.attempt, 0, 1, 0, "", job.number, job.attempt_id)
        child.make_settings(here, {})
        return self.made(child.child_namespace("/", id, job.number))

    def made(self, namespace: str) -> Store:
        store = beside(self.store, namespace)
        store.create(durability="strict", origin_ms=0, created=T0)
        assert write(store) == ""
        return store

    def ends(self, id: int) -> None:
        self.over(id)
        self.turn()


def write(store: Store) -> str:
    """What is said to somebody who does something there now, "" if it is done."""
    from fluxkv.journal.log import Journal

    try:
        answer = Journal(store, by="test").append(Decision([["x", "instance", T0, None]]), 0)
    except Rejected as error:
        return error.code
    assert isinstance(answer, Appended)
    return ""
