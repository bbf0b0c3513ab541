"""A child instance: a job whose task is an instance. Its resources are what the parent granted, ranks renumbered from 0.

Each side writes only its own journal. The child's namespace is the parent's path and the job's id (of a later attempt with its
number); its first node leads (server client, worker, keeper), other nodes of the job bring an agent each and follow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal import history
from ..journal.claims import Claim, from_wire
from ..journal.decide import Decision
from ..journal.ids import encode, f58, parse_id
from ..journal.log import Journal
from ..journal.wire import Commit, well_formed
from ..kvs.children import Child
from ..kvs.epochs import settle
from ..kvs.errors import Rejected, Unavailable
from ..kvs.port import Appended, Conflicted, Meta, Store, id_pair
from ..kvs.redis_store import open_store
from ..kvs.uri import parse_uri, public, with_namespace
from . import whereabouts, yielding
from .child_inventory import inventory
from .discover import make_R
from .follow import Tail
from .paths import StateDir, find_uri, state_dir_of

if TYPE_CHECKING:
    from ..journal.job import Job

ALLOC_WAIT_S = 30.0
MEMO_TRIES = 20
ATTEMPT = "instance-attempt"  # in a memo: the attempt that goes on with the instance of an earlier one
SEALED = 16  # earlier attempts looked at; those before them their successors have seen to


class Place(NamedTuple):
    """Where in a parent's job this process stands. version, entry: what began the attempt. node: index of this node in the job;
    local: task on this node; number: which attempt of the job."""

    parent: str
    job: int
    version: int
    node: int
    nodes: int
    local: int
    state_dir: str
    number: int = 1
    entry: str = ""


def place(environ: Mapping[str, str]) -> Place | None:
    """From a task's environment; None outside any job."""
    attempt = environ.get("FLUXKV_JOB_ATTEMPT", "")
    parent = environ.get("FLUXKV_URI", "")
    if not attempt or not parent:
        return None
    try:
        job, _, entry = attempt.partition(".")
        return Place(
            parent, int(job), int(entry.partition("-")[0]), int(environ["FLUXKV_JOB_NODE"]), int(environ["FLUX_JOB_NNODES"]),
            int(environ["FLUX_TASK_LOCAL_ID"]), environ.get("FLUXKV_STATE_DIR", ""), int(environ.get("FLUX_JOB_ATTEMPT", 1)), entry,
        )  # fmt: skip
    except (KeyError, ValueError):
        return None


def child_uri(parent: str, job: int, number: int = 1) -> str:
    """The child's URI: the parent's server, its path and the job's id; each attempt but the first adds its number.

    Two attempts share nothing: neither journal nor inboxes, whatever a cut-off node still runs of the first.
    """
    return with_namespace(parent, child_namespace(parse_uri(parent).namespace, job, number))


def child_namespace(parent: str, job: int, number: int = 1) -> str:
    """The same for namespaces."""
    return f"{parent.rstrip('/')}/{f58(job)}" + (f".{number}" if number > 1 else "")


def child_number(job: Job, parent: str) -> int:
    """Which attempt of a job said last that it is an instance (`tell_parent`), 0 if none did. parent: the namespace of the instance
    whose job it is; a memo with any other address is somebody else's."""
    number, later = own_number(job, parent), job.memo.get(ATTEMPT)
    return max(number, later) if number and isinstance(later, int) and later <= job.number else number


def own_number(job: Job, parent: str) -> int:
    """The attempt that made that instance, which a later one may have gone on with; 0 if it is none of the job's own."""
    namespace, first = _told(job), child_namespace(parent, job.id)
    if namespace == first:
        return 1
    digits = namespace.removeprefix(f"{first}.")
    return int(digits) if digits != namespace and _is_number(digits) else 0


def child_space(job: Job, parent: str) -> str:
    """The namespace of the instance that a job has said it is, "" if it is none: its own, or that of another job of the same
    parent, whose instance it went on with (`--resume`)."""
    return space_told(str(job.memo.get("uri") or ""), parent)


def space_told(uri: str, parent: str) -> str:
    """The same of a memo."""
    namespace = uri.partition("#")[2]
    above, _, name = namespace.rpartition("/")
    id, dot, number = name.partition(".")
    return namespace if (above or "/") == parent and _is_job(id) and (not dot or _is_number(number)) else ""


def _told(job: Job) -> str:
    told = job.memo.get("uri")
    return told.partition("#")[2] if isinstance(told, str) else ""


def _is_number(digits: str) -> bool:
    return digits.isdecimal() and len(digits) < 7


def _is_job(word: str) -> bool:
    try:
        return f58(parse_id(word)) == word
    except Rejected:
        return False


def enter_parent(levels: int) -> None:
    """Have this process act on the parent of the instance that its environment names, or further up. Raises `Rejected`."""
    uri = find_uri()
    for _ in range(levels):  # each with the rights that it had itself
        uri = whereabouts.parent_of(uri)
    os.environ.update(FLUXKV_URI=uri, FLUX_URI=uri)
    os.environ.pop("FLUXKV_STATE_DIR", None)  # the child's
    if (found := state_dir_of(uri)) is not None:
        os.environ["FLUXKV_STATE_DIR"] = found.path


def seal_earlier(here: Place, but: str = "") -> None:
    """Refuse writes of the children of earlier attempts, as the parent's keeper will (`sealing.py`), before another is made. (One
    with a server that is out of reach has nothing of ours: what it runs, its node's agent ends when it is heard again.) One that
    another job goes on with is that job's. but: the namespace that this one is to go on with."""
    from .nested import owner_of

    parent, space = open_store(here.parent), parse_uri(here.parent).namespace
    try:
        for number in range(max(1, here.number - SEALED), here.number):
            name = child_namespace(space, here.job, number)
            try:
                store = whereabouts.store_of(parent, name) if name != but else None
                if store is not None:
                    with closing(store):
                        uid, owner = store.meta().uid, owner_of(Journal(store).look())
                        if owner is None or owner.job == here.job:
                            store.seal(uid)
            except (Rejected, Unavailable) as error:  # somebody was quicker; that attempt made no instance
                if error.code not in ("gone", "no-instance", "server-away"):
                    raise
    finally:
        parent.close()


def granted(store: Store, here: Place) -> tuple[tuple[Claim, ...], float]:
    """What the parent granted: (claims, expiration), from its journal. Waits for the alloc of a job that was placed ahead.

    Only of this very attempt: where the branch on which it began was lost, an alloc of its job is another attempt's, elsewhere,
    unless it says that it adopts this one.
    """
    meta, entries = store.meta(), store.entries([here.version])
    ours = bool(entries) and entries[0].id == here.entry
    found = _alloc_in(history.reader(store).commit(entries[0]), here, ours) if ours else None
    if found is not None:
        return found
    deadline = time.monotonic() + ALLOC_WAIT_S
    begin = here.entry if ours else settle(meta.epochs, meta.version, here.entry)  # it may be adopted at a lower version
    with closing(Tail(store, id_pair(begin)[0], begin)) as tail:
        while time.monotonic() < deadline:
            for commit in tail.poll(1.0)[0]:
                found = _alloc_in(commit, here, ours)
                if found is not None:
                    return found
    raise Unavailable(f"job {f58(here.job)}: its parent has not said what it was given", code="no-alloc")


def _alloc_in(commit: Commit, here: Place, ours: bool) -> tuple[tuple[Claim, ...], float] | None:
    """ours: whether the history has the entry that began the attempt."""
    for name, subject, _, context in well_formed(commit.events):
        if name != "alloc" or subject != here.job:
            continue
        placed_ahead = ours and context.get("attempt") == here.version
        if placed_ahead or here.entry in (commit.id, context.get("adopted")):
            return from_wire(context["claims"]), float(context.get("expiration") or 0.0)
    return None


def make_settings(here: Place, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the child's part on this node. options: those of `start`; `goes_on`: it is to go on with the instance that an
    earlier attempt of its job was, where that ended with its parent."""
    store = open_store(here.parent)
    try:
        claims, expiration = granted(store, here)
        resume = resumed_space(store, here, options)
        uri = with_namespace(here.parent, resume) if resume else child_uri(here.parent, here.job, here.number)
        meta = store.meta()
        document = make_R([]) if here.node else inventory(store, here.parent, around(here), claims)  # others only follow
    finally:
        store.close()
    if here.node == 0 and here.number > 1:
        seal_earlier(here, resume)
    if expiration:
        document["execution"]["expiration"] = expiration
    place: dict[str, Any] = {"uri": uri, "parent": here.parent, "above": above(here)}
    return {
        "created": time.time(), "job": f58(here.job),
        **({"resume": {"number": here.number, "entry": here.entry}, "left": left_around(here)} if resume else {}),
        # of the parent's journal: what is known of it (see `parent_limit`, `parent_row`)
        "since": here.version, "entry": here.entry, "number": here.number, "parent_epoch": meta.epoch,
        "R": document, "ranks": [here.node], "lead": here.node == 0,
        "memory_limit": options.get("memory_limit") or "",
        "on_fork": options.get("on_fork") or around(here).get("on_fork"),  # if their server is one, so is what it loses
        "yields": len(claims) == 1 and yielding.shares(options.get("policy") or "", claims[0].cores.bit_count()),
        "workers": options.get("workers") or 1, "policy": options.get("policy") or ("" if resume else "fcfs"), "fake": False,
        **place, **_server(here, meta, place, options),
    }  # fmt: skip


def resumed_space(store: Store, here: Place, options: Mapping[str, Any]) -> str:
    """The namespace of the instance that we are to go on with, "" for none: that which a job of our parent was (the option
    `resume`: its id, perhaps with `.N`), or an earlier attempt of ours. store: the parent's.

    Raises `Rejected` (no-instance-job, alive, ...).
    """
    if not options.get("resume") and not (options.get("goes_on") and here.number > 1):
        return ""
    from . import resume
    from .job_path import parse_step

    if options.get("resume"):
        space = resume.space_of(store, here.parent, parse_step(str(options["resume"])))
    else:
        space = resume.space_before(store, here.job, here.number)
    if space and not here.node:
        resume.wait_until_handed_up(store, space)
    return space


def left_around(here: Place) -> list[str]:
    """Folders in which state directories may be of children of the instance around, of when it was another job's."""
    return [os.path.join(folder, "ns") for folder in around(here).get("before", ())]


def _server(here: Place, meta: Meta, place: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings about where the child lives, and as whom it acts there; it is in its parent's table then."""
    child = Child(parse_uri(place["uri"]).namespace.rpartition("/")[2], here.job, here.entry)
    with closing(open_store(here.parent)) as store:
        if options.get("kvs") == whereabouts.OWN:
            from .own_server import settings_of

            store.note_child(child)
            return settings_of(here, meta, parse_uri(place["uri"]).namespace)
        from .access import give

        granter = around(here).get("granter") if around(here).get("uri") == here.parent else None
        user = give(store, child, {**place, "granter": granter}, directory(here))
    return {"durability": meta.durability, "replicas": meta.replicas, **user}


def around(here: Place) -> dict[str, Any]:
    """The settings of the instance around it, {} where they are not on this host."""
    try:
        return StateDir(here.state_dir).read() if here.state_dir else {}
    except (Rejected, Unavailable):
        return {}


def above(here: Place) -> list[str]:
    """The URIs of the instances around the parent, the nearest first, where that is a child itself."""
    parent = around(here)
    return [parent["parent"], *parent.get("above", ())] if "parent" in parent else []


def tell_parent(here: Place, uri: str) -> None:
    """Say in the parent's journal that the child can be used. Raises as `say_of_attempt`."""
    told: dict[str, Any] = {"uri": public(uri)}
    if parse_uri(uri).namespace.rpartition("/")[2].partition(".")[0] == f58(here.job) and here.number > 1:
        told[ATTEMPT] = here.number
    with closing(open_store(here.parent)) as store:
        say_of_attempt(store, here.job, here.entry, "memo", told)


def say_of_attempt(parent: Store, job: int, entry: str, name: str, context: dict[str, Any]) -> None:
    """An event about a child's job (a memo, as Flux has it, an exception), guarded by the attempt that the entry began: nothing is
    folded for it. Raises `Rejected` (gone) if the job is in another attempt by now."""
    journal = Journal(parent, by="child")
    decision = Decision([[name, job, time.time(), context]], exact=[(f"attempt/{job}", entry)], bumps=[f"job/{job}"])
    for _ in range(MEMO_TRIES):
        answer = journal.append(decision, 0)
        if isinstance(answer, Appended):
            return
        if isinstance(answer, Conflicted):
            raise Rejected(f"job {f58(job)} is in another attempt by now", code="gone")
        journal.cope(answer)
    raise Unavailable(f"job {f58(job)}: its instance has other epochs all the time", code="epoch")


def folder_names(job: int, entry: str, node: int) -> tuple[str, str]:
    """How a child's state directory on a node may be called: by the version that began the attempt, and by its epoch, too, where
    an attempt of a branch that was lost has the same version (HAZARD 15)."""
    version, _, epoch = entry.partition("-")
    name = f"{encode(job, 'f58plain')}-{version}-{node}"
    return name, f"{name}-{epoch}"


def directory(here: Place) -> StateDir:
    """The child's state directory on this node: under the parent's, or in the job's own temporary folder."""
    plain, longer = folder_names(here.job, here.entry or str(here.version), here.node)
    folder, prefix = os.environ.get("FLUX_JOB_TMPDIR", "/tmp"), "fluxkv-"
    if here.state_dir and os.access(here.state_dir, os.W_OK):
        folder, prefix = os.path.join(here.state_dir, "ns"), ""
    found = StateDir(os.path.join(folder, prefix + plain))
    if os.path.exists(found.instance_file) and found.read().get("entry", here.entry) != here.entry:
        return StateDir(os.path.join(folder, prefix + longer))
    return found
