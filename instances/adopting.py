"""An operator's adoption of what is left of a history: what is lost and who knows of it, what runs that the journal does not
know, and the step itself. Decides nothing about jobs: the worker does, when their nodes have spoken."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..journal.ids import f58
from ..journal.job import ACTIVE, RUN
from ..journal.log import Journal
from ..journal.scripts import entry_of
from ..journal.state import State
from ..kvs.errors import Rejected, Unavailable
from ..kvs.port import Meta, Store
from ..kvs.redis_store import open_store
from . import boot, forks, witness
from .paths import StateDir
from .spool import Record
from .whereabouts import has_own
from .witness import Loss


class Task(NamedTuple):
    """An attempt on this host that the journal does not know. what: what will become of it."""

    job: str
    attempt: str
    since: float
    what: str

    def document(self) -> dict[str, Any]:
        return self._asdict()


class Report(NamedTuple):
    """version, epoch, time: where the journal ends. loss: None if nothing is. fresh: whether the server has no journal at all.

    running: how many jobs the journal has running. fenced: the entry for which nothing is appended, where that is there after all.
    """

    namespace: str
    version: int
    epoch: int
    time: float
    loss: Loss | None
    fresh: bool
    tasks: list[Task]
    running: int
    fenced: str = ""

    def document(self) -> dict[str, Any]:
        """For --json."""
        loss = self.loss
        return {
            "namespace": self.namespace, "version": self.version, "epoch": self.epoch, "time": self.time,
            "lost": [loss.first, loss.last] if loss else None, "known": loss.known if loss else [], "begins_anew": self.fresh,
            "tasks": [task.document() for task in self.tasks], "running": self.running, "fenced": self.fenced,
        }  # fmt: skip


@contextmanager
def opened(uri: str, state_dir: StateDir | None) -> Iterator[Store]:
    """The instance's store; where its embedded server is down it is started on its files for as long as this takes."""
    handle = None
    if state_dir is not None and not state_dir.running():
        settings = state_dir.read()
        if has_own(settings) and not settings.get("outside"):
            handle = boot.start_or_attach_server(state_dir, settings)
    try:
        store = open_store(uri)
        try:
            yield store
        finally:
            store.close()
    finally:
        if handle is not None and handle.started:
            handle.stop()


def examine(store: Store, state_dir: StateDir | None) -> Report:
    """What there is to know, nothing changed."""
    seen = witness.witnesses(state_dir) if state_dir is not None else []
    try:
        meta = store.meta()
    except Unavailable as error:
        if error.code != "no-instance" or state_dir is None or not state_dir.read().get("uid"):
            raise
        last = max((one.version for one in seen), default=0)
        return Report(store.namespace, 0, 0, 0.0, Loss(1, last, seen), True, _tasks(State(), state_dir), 0)
    state = Journal(store).look()
    tasks = _tasks(state, state_dir) if state_dir is not None else []
    loss = witness.find_loss(store, meta, seen)
    fenced = meta.fork.partition(":")[0] if loss is None else ""
    return Report(store.namespace, meta.version, meta.epoch, state.time, loss, False, tasks, state.count(RUN), fenced)


def _tasks(state: State, state_dir: StateDir) -> list[Task]:
    found = []
    for lost in Record(state_dir.spool).lost.values():
        entry = lost.key.split(".")[1]
        job = state.jobs.get(lost.job)
        if job is not None and job.attempt and job.attempt_id == entry_of(lost.key):
            continue
        if job is None:
            what = "is ended: the journal does not know this job"
        elif job.state & ACTIVE and not job.holds:
            what = "is adopted, if what it runs on is still free when its node has spoken; else ended"
        else:
            what = "is ended: the journal has another attempt of this job, or its end"
        found.append(Task(f58(lost.job), entry, lost.t_start, what))
    return found


def adopt(store: Store, state_dir: StateDir | None, report: Report, by: str) -> int:
    """Go on from what is left, as reported. The version of the event that says so.

    Raises `Conflict` if the journal is not where the report has it, `Rejected` if there is nothing to adopt. Where it is fenced for
    what is not lost, the fence goes, and the version is where it ends.
    """
    if report.loss is None and report.fenced:
        forks.unfence(store, store.meta())
        return report.version
    if report.loss is None:
        raise Rejected("nothing is lost, so there is nothing to adopt", code="whole", hint="fluxkv status says how it is")
    if report.fresh:
        assert state_dir is not None
        return _begin_anew(state_dir, report.loss, by)
    lost = report.loss.first, report.loss.last
    made = forks.adopt(store, lost, time.time(), by, report.loss.known, _at(store, report))
    if state_dir is not None:
        witness.write_tip(state_dir, store, store.meta())
    return made.version


def _at(store: Store, report: Report) -> Meta:
    return store.meta()._replace(version=report.version, epoch=report.epoch)


def _begin_anew(state_dir: StateDir, loss: Loss, by: str) -> int:
    """The server has nothing left: the same instance with an empty journal, whose first entries say what is lost."""
    if state_dir.running():
        raise Rejected(
            "the server has no journal of this instance any more, and its daemons still look for it", code="running",
            hint=f"fluxkv stop --state-dir {state_dir.path}, then adopt",
        )  # fmt: skip
    settings = state_dir.read()
    settings["uid"] = ""
    store, _ = boot.ensure_instance(settings)
    try:
        forks.adopt(store, (loss.first, loss.last), time.time(), by, loss.known)  # the launcher's record still names some of it
        meta = store.meta()
        state_dir.write({**settings, "uid": meta.uid})
        for name in ("tip", os.path.join("spool", "cursors.json")):  # of the history that is no more
            try:
                os.unlink(state_dir.join(name))
            except FileNotFoundError:
                pass
        witness.write_tip(state_dir, store, meta)
        return meta.version
    finally:
        store.close()
