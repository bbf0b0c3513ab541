"""Going on with the instance that another job, or an earlier attempt, was: whose journal it is by now, and making it this job's.
Writes that journal only.

A job takes up a journal when the job that had it last has given everything back, by the journal of the instance around both. The
namespace stays, identity and epoch are new in one step (`Store.reopen`), so nobody of before writes any more; then one commit says
what is known to be over and what there is now (`resuming.take_up`). Who dies in between has done nothing: the next does it again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58, parse_id
from ..journal.job import INACTIVE
from ..journal.resuming import is_child, is_with_instance
from ..kvs.errors import Conflict, FluxkvError, Rejected, Unavailable
from ..kvs.keys import Keys
from ..kvs.port import Appended, Store
from ..kvs.redis_store import open_store
from ..kvs.uri import parse_uri, public, with_namespace
from . import left_spool
from .nested import Owner, owner_of

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.state import State
    from .job_path import Step
    from .whereabouts import Door

TRIES = 20
PAUSE_S = 0.05
HANDED_S = 60.0
ASK_S = 1.0  # between two looks at whose a journal is that is waited for
CHAIN = 100  # jobs that were to go on with one another and could not


def space_of(parent: Store, uri: str, step: Step) -> str:
    """The namespace that a job to be resumed left; of one that was to go on with another's and ended before that, the other's.

    parent, uri: of the instance around. Raises `Rejected` (no-such-job, no-instance-job, no-such-attempt) if it was no instance.
    """
    from .job_path import child_at, space_at

    for _ in range(CHAIN):
        try:
            return parse_uri(child_at(parent, uri, step)).namespace
        except Unavailable as error:
            if error.code == "server-away":  # its journal lies in files that are still to be handed up
                return space_at(parent, step)
            refused = Rejected(f"{error}: there is nothing to resume", code="no-instance-job", hint=error.hint)
        except Rejected as error:
            refused = error
        before = _before(parent, step) if refused.code == "no-instance-job" and not step.number else None
        if before is None:
            break
        step = before
    raise refused


def _before(parent: Store, step: Step) -> Step | None:
    """The job that a job was to go on with, by its command; None for any other."""
    from ..journal.log import Journal
    from ..journal.resizing import start_option
    from .job_path import command_of, parse_step

    journal = Journal(parent)
    job = journal.find_job(journal.look(), step.job)
    word = start_option(command_of(job, journal), "--resume") if job.state == INACTIVE else ""
    return parse_step(word) if word else None


def space_before(parent: Store, id: int, number: int) -> str:
    """The namespace of the instance that an attempt of a job goes on with, "" where it is to begin anew: the last one that an
    attempt before it made, if each since then ended because the instance around it did, and not by itself or somebody's wish.

    parent: of the instance around. What cannot be read any more is not gone on with.
    """
    from ..journal.log import Journal
    from .child import child_namespace
    from .whereabouts import is_made

    journal = Journal(parent)
    state = journal.look()
    job = journal.find_job(state, id)
    if not is_child(state):
        return ""
    ended = {
        int((event.context or {}).get("attempt", 0)) - 1
        for _, event in journal.story(job.commits, id) if event.name == "requeue" and is_with_instance(event.context or {})
    }  # fmt: skip
    while number - 1 in ended:
        number -= 1
        if is_made(parent, name := child_namespace(parent.namespace, id, number)):
            return name
    return ""


def is_repeatable(store: Store) -> bool:
    """Whether the program of an instance may be run in it a second time: whatever was submitted there has a key (`--id`), so that
    nothing of it is taken once more. Reads the journal as far as the first that has none."""
    from ..journal.log import Journal
    from ..journal.wire import well_formed

    if store.meta().first > 1:
        return False
    events = (event for commit in Journal(store).commits() for event in well_formed(commit.events))
    return all((context or {}).get("key") for name, _, _, context in events if name == "submit")


def wait_until_handed_up(parent: Store, space: str) -> None:
    """A child that had a server of its own leaves its journal on its parent's, a moment after its end; one that has left that is
    brought back. Raises `Unavailable`, and `Rejected` (code alive) where somebody goes on with it on a server of his own."""
    from ..journal.log import Journal
    from . import whereabouts
    from .away import bring_back

    if bring_back(parent, space):
        return
    deadline, ask_at = time.monotonic() + HANDED_S, 0.0
    other = whereabouts.beside(parent, space)
    try:
        while True:
            if whereabouts.meta_of(other) is not None:
                return
            door = whereabouts.read_door(other)
            if door is not None and time.monotonic() >= ask_at:
                ask_at = time.monotonic() + ASK_S
                with suppress(Unavailable), closing(whereabouts.beside_own(parent, space)) as own:
                    owner = owner_of(Journal(own).look())
                    if owner is not None:
                        refuse_alive(Journal(parent), owner)
            if time.monotonic() > deadline:
                raise _not_up(space, door)
            time.sleep(0.1)
    finally:
        other.close()


def _not_up(space: str, door: Door | None) -> Unavailable:
    if door is None:
        return Unavailable(f"there is no journal of {space} any more", code="no-instance")
    return Unavailable(
        f"the journal of {space} is not handed up: it lies in {door.folder} on host {door.host}", code="server-away",
        hint="a keeper of this instance on that host does it once the host is back; until then nobody can go on with it",
    )  # fmt: skip


def refuse_alive(parent: Journal, owner: Owner, here: Owner | None = None) -> None:
    """Raise `Rejected` (code alive) unless the job that had a journal last has given everything back.

    here: who wants it, who may have taken it already.
    """
    if here is not None and owner == here:
        return
    state = parent.look()
    job = parent.find_job(state, owner.job)
    if job.holds and job.number == owner.number:
        id = f58(owner.job)
        raise Rejected(
            f"job {id} has this instance, and is not over", code="alive",
            hint=f"fluxkv cancel {id} ends it; --dependency=afterany:{id} waits for its end",
        )  # fmt: skip


def take_up(store: Store, parent: Store, settings: Mapping[str, Any]) -> State:
    """Make the journal in `store` that of the job that `settings` are of (`child.make_settings`); what it says by then. Among the
    settings `before`: state directories of who had it before, if they were on this host.

    Raises `Rejected` (alive; history-lost; bad-config for a config it cannot have), `Conflict` if others keep taking it.
    """
    from ..journal.log import Journal

    number, entry = settings["resume"]["number"], settings["resume"]["entry"]
    here = Owner(parse_id(settings["job"]), int(number), str(entry))
    above = Journal(parent)
    _notice(store, settings.get("before", ()))
    for _ in range(TRIES):
        journal = Journal(store, by="keeper")
        state = journal.look()
        owner = owner_of(state)
        if owner is None or not state.version:
            raise Rejected(f"{store.namespace} is no instance of a job", code="no-instance-job")
        refuse_alive(above, owner, here)
        try:
            if adopted(store, settings):
                continue
            _take(store, journal, state, settings, here, left_spool.reports(state, settings.get("before", ())))
            return state
        except Conflict:
            pass  # an old process wrote still, or somebody else is taking it up in this moment
        except (Rejected, Unavailable) as error:
            if error.code not in ("gone", "forked"):  # just now somebody took it up, or noticed that some of it is lost
                raise
        time.sleep(PAUSE_S * random.uniform(0.5, 2.0))
    raise Conflict(f"others keep taking up {store.namespace}", hint="try again")


def _notice(store: Store, folders: Iterable[str]) -> None:
    """Fence a journal that has lost what they know who had it before: nobody of them lives who would. folders: as `before` above;
    some are of other attempts of their jobs."""
    from . import forks, witness
    from .paths import StateDir

    for directory in map(StateDir, folders):
        try:
            ours = parse_uri(str(directory.read()["uri"])).namespace == store.namespace
        except (FluxkvError, KeyError):
            continue
        if ours and any(forks.notice(store, one.known) is not None for one in witness.witnesses(directory)):
            return


def adopted(store: Store, settings: Mapping[str, Any]) -> bool:
    """Whether what is left of a journal was adopted now: its server lost some of it, and whoever noticed that has fenced it. (Or
    the fence was taken away, since nothing is lost.)

    Its own keepers are no more: nobody else ever will. Raises `Rejected` (code history-lost) where that is an operator's to say.
    """
    from . import forks, witness

    meta = store.meta()
    if not meta.fork:
        return False
    lost = forks.missing(store, meta.fork, meta)
    if lost is None:
        forks.unfence(store, meta)
        return True
    if settings.get("on_fork") != witness.ADOPT:
        where = public(with_namespace(str(settings["parent"]), store.namespace))  # a job's own user goes when that fails
        raise Rejected(
            f"the journal of {store.namespace} ends at version {meta.version}, and versions {lost[0]} to {lost[1]} are lost: it is "
            "not gone on with until what is left has been adopted", code="history-lost",
            hint=f"fluxkv ops adopt --uri '{where}' says what is lost, with --force it adopts the rest; then resume it again",
        )  # fmt: skip
    known = f"{meta.fork.partition(':')[0]}, of somebody who has fenced the journal"
    forks.adopt(store, lost, time.time(), "keeper", [known], meta)
    return True


def left_by(store: Store, folders: Iterable[str]) -> list[str]:
    """State directories of who had a journal before, and had those around theirs. folders: in which they may be."""
    from ..journal.log import Journal
    from .paths import StateDir

    owner = owner_of(Journal(store).look())
    if owner is None:
        return []
    found = [one for folder in folders for one in left_spool.inside(folder, owner.job)]
    for one in [*found]:
        with suppress(FluxkvError):
            found += StateDir(one).read().get("before", ())
    return list(dict.fromkeys(found))


def _take(
    store: Store, journal: Journal, state: State, settings: Mapping[str, Any], here: Owner, told: Sequence[list[Any]]
) -> None:
    from ..journal import decide, decide_config
    from ..journal.resuming import take_up as said
    from ..kvs.epochs import anchor

    tip, there = state.version, anchor(state.version, state.epoch, state.tail)
    meta = journal.meta = store.reopen(journal.meta.uid, journal.meta.epoch, tip)
    keys = Keys(store.namespace)
    for rank in state.nodes:
        store.delete(keys.inbox(f"node/{rank}"))  # a new node would read there what the one before it was to begin
    store.delete(keys.telemetry)
    now = time.time()
    by = {"job": here.job, "number": here.number, "entry": here.entry}
    decision = said(state, by, dict(settings["R"]), meta.epoch, now, told)
    document = settings.get("config_document")
    if document:
        config = decide_config.load(state, document, settings.get("config", ""), os.getuid(), now)
        config.since = []
        decision = decide.together([decision, config])
        decision.bumps = list(dict.fromkeys(decision.bumps))
        decision.clears = [thing for thing in dict.fromkeys(decision.clears) if thing not in decision.bumps]
    answer = journal.append(decision, tip, there)
    if not isinstance(answer, Appended):
        raise Conflict(f"{store.namespace} was written to meanwhile: {answer}")


def wait_until_taken(uri: str, entry: str, timeout_s: float = 60.0) -> None:
    """Other nodes of the job wait until its first has made the instance its own. Raises `Unavailable`."""
    from ..journal.log import Journal

    deadline, seen = time.monotonic() + timeout_s, ("", 0)
    store = open_store(uri)
    try:
        while time.monotonic() < deadline:
            meta = store.meta()
            if (meta.uid, meta.version) != seen:
                seen = meta.uid, meta.version
                owner = owner_of(Journal(store).look())
                if owner is not None and owner.entry == entry:
                    return
            time.sleep(0.05)
    finally:
        store.close()
    raise Unavailable(f"{public(uri)}: its leading node has not taken it up", code="no-instance")
