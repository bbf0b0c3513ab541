"""A journal that is on its parent's server goes down to that of a child with its own (`--kvs=own`) that goes on with an instance.

The reverse of `handover`, by the same steps, and with it all that is inside. First it is made this job's where it is, so of two who
come at once one is refused before anything has moved. Each journal is at every moment in one place: on the
parent's server until all of it has arrived below, and from one step on, which is refused if anything has moved meanwhile, where a
door leads (`Store.depart`). What the parent's server holds of it stays there, seen by nobody, as what has come of the hand-over at
the end. Who dies on the way has done nothing, or left what is handed up from his files like any other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from ..journal.ids import parse_id
from ..journal.log import Journal
from ..kvs.errors import Conflict, Rejected, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.port import Store
from ..kvs.redis_store import open_store
from ..kvs.uri import StoreUri, parse_uri, with_namespace
from . import handover, resume, whereabouts
from .boot import make_ours
from .nested import Owner, owner_of
from .paths import StateDir


def hand_down(server: str, settings: dict[str, Any], door: whereabouts.Door, state_dir: StateDir | None = None) -> int:
    """Bring what the parent's server has of a child, and of those inside it, to the child's own; how many journals. settings,
    state_dir: the child's; door: by which its own server is found.

    Raises `Rejected` (alive; history-lost; as `resume.take_up`), `Unavailable`, `Conflict` if others keep taking it up.
    """
    namespace = parse_uri(str(settings["uri"])).namespace
    target = with_namespace(str(settings["parent"]), namespace)
    with (
        closing(open_store(str(settings["parent"]))) as parent, closing(open_store(target)) as above,
        closing(open_store(str(StoreUri(server, namespace)))) as own,
    ):  # fmt: skip
        try:
            make_ours(above, settings, state_dir)  # before anything that is inside goes
        except Unavailable as error:  # it has gone down before, to here or to somebody else
            if error.code != "no-instance":
                raise
        inside = [name for name in above.spaces() if name != namespace]
        _wait_for(above, inside)
        journals = 0
        for name in [*sorted(inside, reverse=True), namespace]:  # its own comes last: until then all is found from above
            with closing(whereabouts.beside(above, name)) as source, closing(whereabouts.beside(own, name)) as there:
                journals += _bring(source, there, settings, door, parent if name == namespace else None)
        if not _is_there(own):  # somebody else was quicker: whose job that is, is said
            resume.wait_until_handed_up(parent, namespace)
            raise Conflict(f"others keep taking up {namespace}", hint="try again")
        return journals


def stay_down(settings: Mapping[str, Any], door: whereabouts.Door) -> int:
    """Where a fail-over of the parent's server has put back what had gone down from there: it leaves once more, so that who looks
    for it, or would go on with it, is led here; how many journals. Raises what the stores do; it can be done again."""
    namespace, life, journals = parse_uri(str(settings["uri"])).namespace, handover.life_of(settings), 0
    with closing(open_store(str(settings["uri"]))) as own:
        inside = [name for name in own.spaces() if name != namespace]
        for name in [*sorted(inside, reverse=True), namespace]:
            with (
                closing(whereabouts.beside(own, name)) as here,
                closing(open_store(with_namespace(str(settings["parent"]), name))) as above,
            ):
                if not (_is_there(here) and _is_there(above)):
                    continue
                if whereabouts.read_door(above) != door:
                    whereabouts.leave_door(above, door)
                journals += handover.depart_behind(here, above, handover.word_of(here.meta(), life), even=name != namespace)
    return journals


def _wait_for(above: Store, names: Sequence[str]) -> None:
    """What is inside and on its way up from servers that it had to itself: it would come to where nobody looks any more. A while at
    most; who still is behind a door then is behind it below, too."""
    deadline = time.monotonic() + resume.HANDED_S
    for name in names:
        with closing(whereabouts.beside(above, name)) as one:
            while not _is_there(one) and whereabouts.read_door(one) is not None and time.monotonic() < deadline:
                time.sleep(0.1)


def _is_there(store: Store) -> bool:
    return whereabouts.meta_of(store) is not None


def _bring(source: Store, target: Store, settings: Mapping[str, Any], door: whereabouts.Door, parent: Store | None) -> bool:
    """One namespace; whether it went now. parent: of the instance around, where whose it is has to be asked: of the one that is
    gone on with. (All that is inside that is over with it.)"""
    for _ in range(resume.TRIES):
        if not _is_there(source):
            behind = whereabouts.read_door(source)
            if parent is None and behind not in (None, door, whereabouts.read_door(target)):
                whereabouts.leave_door(target, behind)
            return False
        try:
            if parent is not None:
                _refuse_alive(source, parent, settings)
            if resume.adopted(source, settings):
                continue
            _copy_and_leave(source, target, handover.life_of(settings), door)
            return True
        except (Conflict, Rejected, Unavailable) as error:
            if not isinstance(error, Conflict) and error.code not in ("gone", "forked", "copied"):
                raise
        time.sleep(resume.PAUSE_S * random.uniform(0.5, 2.0))
    raise Conflict(f"others keep taking up {source.namespace}", hint="try again")


def _refuse_alive(source: Store, parent: Store, settings: Mapping[str, Any]) -> None:
    owner, mine = owner_of(Journal(source).look()), settings["resume"]
    if owner is None:
        raise Rejected(f"{source.namespace} is no instance of a job", code="no-instance-job")
    here = Owner(parse_id(settings["job"]), int(mine["number"]), str(mine["entry"]))
    resume.refuse_alive(Journal(parent), owner, here)


def _copy_and_leave(source: Store, target: Store, life: str, door: whereabouts.Door) -> None:
    meta = source.meta()
    word = handover.word_of(meta, life)
    try:
        handover.copy(source, target, meta, lambda: None, word)
    except Rejected as error:
        if error.code == "copied" and _is_there(target):  # all had come, and then somebody else went on above
            stale = target.meta()
            target.depart(stale.uid, stale.epoch, stale.version, word)
        raise
    if whereabouts.read_door(source) != door:
        whereabouts.leave_door(source, door)
    if ARMED:
        reach("handdown.door", Unavailable)
    source.depart(meta.uid, meta.epoch, meta.version, word)
    if ARMED:
        reach("handdown.after", Unavailable)
