"""Bringing an instance up: its namespace, its server, its first events; and taking up a restarted server's history.

Used by the keeper only. A child instance uses its parent's server under its own namespace.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ..journal import decide_config
from ..journal.decide import Decision
from ..journal.log import Journal, make_append
from ..journal.rset import parse_R
from ..journal.schema import SCHEMA, check_schema
from ..kvs.errors import Corrupt, Rejected, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.listening import Listen, with_port
from ..kvs.port import Appended, Meta, Store
from ..kvs.redis_store import open_store
from ..kvs.server import ServerHandle, start_server
from ..kvs.uri import public
from . import witness
from .access import lasting
from .memory_line import set_line
from .paths import StateDir, write_json

PORTS = 5  # of a child's own server, that are tried
PATIENCE_S = 1.0  # how long the keeper's own calls wait for a server that is away: it is the one to bring it back


def start_or_attach_server(state_dir: StateDir, settings: dict[str, Any]) -> ServerHandle:
    """The embedded server of this state directory, started if it is not running; its run file is written."""
    tried = 0
    while True:
        where = Listen(*settings["listen"]) if settings.get("listen") else None
        try:
            handle = start_server(state_dir.path, settings.get("durability", "strict"), listen=where)
            break
        except Unavailable as error:
            tried += 1
            known = not settings.get("parent") or settings.get("uid")  # somebody asked for that port, or has been told of it
            if error.code != "address-in-use" or where is None or known or tried == PORTS:
                raise
            # It was free a moment ago; by now it is another's, perhaps that of a child that begins in the same moment.
            settings["listen"] = list(with_port(where._replace(port=0)))
            state_dir.write(settings)
    write_json(state_dir.run_file("server"), {"pid": handle.pid, "role": "server", "started": time.time()})
    return handle


def ensure_instance(settings: dict[str, Any], state_dir: StateDir | None = None) -> tuple[Store, bool]:
    """The instance's store, its namespace created with its first events if it is new (True).

    Raises `Corrupt(code="history-lost")` if there was one and the server has nothing of it any more.
    """
    store = open_store(settings["uri"], patience_s=PATIENCE_S, makes_user=bool(settings.get("user")))
    try:
        meta = store.meta()
        if settings.get("uid") and settings["uid"] != meta.uid:
            hint = "use another state directory"
            if settings.get("parent"):
                hint = f"it was a job's, and goes on in another job only: fluxkv batch --resume {settings.get('job', 'ID')}"
            raise Rejected(f"{settings['uri']} is another instance than this state directory's", code="gone", hint=hint)
        check_schema(meta)
        if meta.version:
            if not settings.get("uid") and settings.get("resume") and settings.get("lead", True):
                make_ours(store, settings, state_dir)
                meta = store.meta()
            elif not settings.get("uid") and settings.get("parent") and settings.get("lead", True):
                _refuse_another_attempt(store, settings)
            if not settings.get("uid") and settings.get("outside"):
                _refuse_others(store, settings)  # before anything is written
            _mark(store, meta, settings)
            return store, False
    except Unavailable as error:
        if error.code != "no-instance" or (settings.get("resume") and not settings.get("uid")):
            raise  # (what was to be gone on with is gone: an empty one in its place would be taken for it)
        if settings.get("uid") and state_dir is not None and settings.get("on_fork") != witness.ADOPT:
            raise witness.all_lost(state_dir, store.namespace) from None
        if settings.get("uid") and state_dir is not None:
            settings["uid"] = ""  # first: who dies before the new one is noted would take it for somebody else's
            state_dir.write(settings)
        now = time.time()
        durability = settings.get("durability", "strict")
        meta = store.create(durability=durability, origin_ms=int(now * 1000), created=now, replicas=settings.get("replicas", ""))
    _mark(store, meta, settings)
    answer = store.append(make_append(meta, _first_events(store, meta, settings), 0))
    if not isinstance(answer, Appended):
        if store.meta().version == 0:
            raise Corrupt(f"the first events could not be written: {answer}", code="create")
        if settings.get("outside"):
            _refuse_others(store, settings)  # somebody else was quicker
        if settings.get("parent"):
            _refuse_another_attempt(store, settings)
    return store, isinstance(answer, Appended)


def _first_events(store: Store, meta: Meta, settings: dict[str, Any]) -> Decision:
    """Whose it is, what it has, how it is set."""
    now = time.time()
    first = {"uid": meta.uid, "owner": os.getuid(), "namespace": store.namespace, "schema": SCHEMA}
    if settings.get("parent"):
        first["parent"] = lasting(settings["parent"], settings)
    if settings.get("entry"):
        first["attempt"] = settings["entry"]  # of the parent's job: what began it
    if settings.get("home"):
        first["home"] = settings["home"]
    if settings.get("policy", "fcfs") != "fcfs":
        first["policy"] = settings["policy"]  # workers of other hosts plan by it, too
    method = "job-info" if settings.get("parent") else "configuration" if settings.get("config") else "dynamic-discovery"
    document = settings.get("config_document") or {}
    hosts = [node.host for node in parse_R(settings["R"]).nodes] if document else []
    config = decide_config.first(document, settings.get("config", ""), hosts, os.getuid(), now)
    return Decision(
        [
            ["instance-create", "instance", now, first],
            ["resource-define", "resource", now, {"method": method, "R": settings["R"]}],
            *config.events,
        ],
        absent=["instance"],
        bumps=["instance", "resource", *config.bumps],
    )


def make_ours(store: Store, settings: dict[str, Any], state_dir: StateDir | None) -> None:
    """Make another job's instance ours, which plans as before unless it is told otherwise. Raises as `resume.take_up`."""
    from .resume import left_by
    from .resume import take_up as taken

    if state_dir is not None and "before" not in settings:  # noted first: once it is ours, nobody knows whose it was
        settings["before"] = left_by(store, [os.path.dirname(state_dir.path), *settings.get("left", ())])
        state_dir.write(settings)
    parent = open_store(settings["parent"], patience_s=PATIENCE_S)
    try:
        state = taken(store, parent, settings)
    finally:
        parent.close()
    settings["policy"] = settings.get("policy") or state.instance.get("policy", "fcfs")


def _refuse_others(store: Store, settings: dict[str, Any]) -> None:
    """On a server that several share, an instance belongs to the state directory that made it. Raises `Rejected`."""
    home = str(Journal(store).look().instance.get("home", ""))
    if home != settings.get("home"):
        raise Rejected(
            f"there is an instance at {store.namespace} on this server already, made by {home or 'somebody'}", code="exists",
            hint="fluxkv start --detach --state-dir DIR there brings it up; or name another namespace behind the #",
        )  # fmt: skip


def _refuse_another_attempt(store: Store, settings: dict[str, Any]) -> None:
    """Attempts of one job share no namespace; but one that began on a branch which the parent's history lost has the name, too, and
    may have been given other nodes. Nothing of it is ours. Raises `Rejected`."""
    made_by = Journal(store).look().instance.get("attempt", "")
    if made_by and made_by != settings.get("entry", made_by):
        raise Rejected(
            f"the journal of {store.namespace} is of an attempt of this job that its parent's history has lost", code="exists",
            hint="it is kept, and can be read; submit the job again",
        )  # fmt: skip


def joined_store(settings: dict[str, Any]) -> Store:
    """The store of an instance that this host has joined. One that is out of reach now is waited for by whoever needs it.

    Raises `Rejected` when another instance answers there.
    """
    store = open_store(settings["uri"], patience_s=PATIENCE_S)
    try:
        if store.meta().uid != settings["uid"]:
            raise Rejected(
                f"{public(settings['uri'])} is another instance than the one this host has joined", code="gone",
                hint="fluxkv agent --join URI with another --state-dir",
            )  # fmt: skip
    except Unavailable:
        pass
    return store


def _mark(store: Store, meta: Meta, settings: dict[str, Any]) -> None:
    """Who runs it from now on, and where its soft memory line is."""
    store.raise_schema(meta.uid, SCHEMA)
    set_line(store, str(settings.get("memory_limit") or ""))


def say(store: Store, events: list[list[Any]], by: str = "keeper") -> None:
    """Append instance events, whatever else goes on: they have no premise, so nothing need be folded."""
    journal = Journal(store, by=by)
    journal.patience_s = 0.0  # it is the keeper who takes up
    for _ in range(20):
        answer = journal.append(Decision(events), journal.meta.version)
        if isinstance(answer, Appended):
            return
        journal.cope(answer)


def take_up(store: Store, state_dir: StateDir, reason: str, on_fork: str = witness.REFUSE) -> str:
    """See to it that the journal may be written to (see `witness.take_up`); what was done, in words, "" if there was nothing to do.

    Raises `Corrupt` naming the missing range when the journal lacks what was known to be in it, and it is not to be adopted.
    """
    old = store.meta().epoch
    done = witness.take_up(store, state_dir, on_fork)
    if isinstance(done, Appended):
        return f"history was lost; what is left has been adopted in version {done.version}"
    if done is None:
        return ""
    if ARMED:
        reach("epoch.after", Unavailable)
    say(store, [["epoch", "instance", time.time(), {"old": old, "new": done.epoch, "reason": reason}]])
    return "history is whole"
