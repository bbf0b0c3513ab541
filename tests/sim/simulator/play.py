"""A seed from its first commit to the audit: storm, calm, and what must hold then."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from journal_rules import story

from fluxkv.instances import adopting, boot, child, ending, parent_limit, resume, sealing_led, submission, witness
from fluxkv.instances import agent as agent_module
from fluxkv.instances import worker as worker_module
from fluxkv.journal import decide, decide_config
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import IdSource
from fluxkv.journal.job import DEPEND, INACTIVE, NEW, PRIORITY, SCHED, Job
from fluxkv.journal.resuming import UNSATISFIABLE
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Rejected, Unavailable

from . import audit, own
from .clients import DEEPEST
from .realm import NoTail, Realm
from .sites import CORES
from .truth import Broken
from .world import World

SLICE_S = 0.5
IDLE_S = 3.0  # for which a child has nothing to do before it is looked at
PATIENCE_S = 240.0  # what the calm may take; a seed that needs more does not settle
CLIENT_MOVES = {
    "submit": 9.0, "cancel": 3.0, "change": 2.0, "drain": 2.0, "queue": 1.0, "signal": 1.0, "configure": 1.0, "cron": 0.3,
}  # fmt: skip


class Failed(AssertionError):
    """A seed that broke a promise, with the story of the job it is about."""


class _Time:
    """The module `time` as the world sees it."""

    def __init__(self, world: World, virtual: bool = False) -> None:
        self.time = lambda: world.now
        self.monotonic = self.time if virtual else time.monotonic
        self.sleep = own.sleep if world.site.owns else time.sleep
        self.time_ns = time.time_ns


@contextmanager
def small(world: World) -> Iterator[None]:
    """Limits so low that a short history reaches them, and no clock or chance but the world's."""
    rng = world.rng
    changes: list[tuple[Any, str, Any]] = [
        (worker_module, "SNAPSHOT_EVENTS", rng.choice((40, 200))),
        (worker_module, "RETIRE_ABOVE", 15),
        (worker_module, "KEPT_GUARDS", rng.choice((5, 40))),
        (worker_module, "RETIRE_CHUNK", 5),
        (worker_module, "BATCH", rng.choice((3, 12, 1500))),
        (agent_module, "ROWS", rng.choice((1, 3, 2000))),
        *[(module, "time", _Time(world)) for module in (boot, witness, adopting, child, ending, resume)],
        (parent_limit, "time", _Time(world, virtual=True)),
        (sealing_led, "time", _Time(world, virtual=True)),
        (child, "Tail", NoTail),
        (resume, "HANDED_S", -1.0),
        (resume, "PAUSE_S", 0.0),
        *own.changes(world, _Time(world, virtual=True)),
        (submission, "new_source", lambda origin_ms: IdSource(origin_ms, 1, lambda: int(world.now * 1000))),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def play(seed: int) -> World:
    """The whole of a seed. Raises `Failed` with seed, fault and story."""
    world = World(seed)
    try:
        with small(world):
            storm(world)
            calm(world)
            own.come_home(world)
        audit.audit(world)
        audit.nested(world)
        return world
    except Failed:
        raise
    except Exception as problem:
        job = getattr(problem, "job", 0) or world.job_in(str(problem))
        kind = "" if isinstance(problem, Broken) else f"{type(problem).__name__}: "
        what = f"seed {seed} ({world.site.kind}; {' '.join(sorted(world.faults.chosen))}): {kind}{problem}"
        raise Failed(f"{what}\n{tell(world, job)}") from problem
    finally:
        own.close(world)
        shutil.rmtree(world.state_dir.path, ignore_errors=True)


def tell(world: World, job: int) -> str:
    """The story of a job in a journal that may be broken."""
    world.server.down = False
    try:
        return story(world.journal.commits(), job)
    except Exception as problem:
        return f"(its journal cannot be read: {problem})"


def storm(world: World) -> None:
    rng, clients = world.rng, world.clients
    world.begin()
    length = rng.choice((3.0, 10.0, 40.0))
    moves = dict(CLIENT_MOVES)
    if not world.faults.on("cron"):
        del moves["cron"]
    if world.faults.on("poison"):
        moves["poison"] = 0.5
    if world.site.kind == "late":
        late(world, length)
    if world.site.kind == "silent":
        length = 40.0
        for at in (1.0, 12.0, 23.0):
            world.after(at + world.rng.uniform(0.0, 5.0), world.faults.silence)
    deep = world.site.kind == "deep"
    if deep:
        length = rng.choice((15.0, 40.0))
        moves["nest"] = 5.0
    if world.site.resizes:
        moves["resize"] = 12.0
        world.after(0.0, clients.nest)
    if world.site.resumes:
        moves["resume"] = 10.0
    count = rng.choice((20, 40, 60))
    for name in rng.choices(list(moves), list(moves.values()), k=count):
        world.after(rng.random() * length, getattr(clients, name))
    world.after(0.0, clients.submit)
    world.faults.plan(world.now, length, rng.choice((5, 9, 15) if deep else (2, 5, 9)))
    if deep:
        world.faults.plan_deep(length)
    world.run_until(world.now + length)


def late(world: World, length: float) -> None:
    """Old reports are written again; or launchers die, and orders are read again."""
    written = world.faults.on("poison")
    if written:
        world.after(0.0, world.clients.say_again)
    for _ in range(6):
        at = world.rng.random() * length
        world.after(at, world.clients.submit_failing) if written else world.after(at, world.faults.strike, "launcher")


def calm(world: World) -> None:
    """Everything that is broken is mended; first what people asked for stands, then they let all go on."""
    clients, faults = world.clients, world.faults
    world.calm = True
    faults.heal()
    if world.seed % 2:
        settle(world, PATIENCE_S, explained=True)
    faults.room()
    let_go(world)
    settle(world, PATIENCE_S, explained=False)
    world.run_until(world.now + 65.0)  # what was late arrives
    settle(world, PATIENCE_S, explained=False)
    clients.journal.catch_up(clients.view)


def let_go(world: World) -> None:
    """Nodes, queues and jobs are let go on; nothing stands in the way of any job."""
    clients = world.clients
    for _ in range(200):  # somebody takes up the history first
        if taken_up(world):
            break
        world.run_until(world.now + SLICE_S)

    def surely(decision: Callable[[State], Decision]) -> None:
        for _ in range(40):  # others may be at it, or the rest of a history be adopted first
            if clients.say(decision, fresh=True):
                return
            world.run_until(world.now + SLICE_S)
        raise Broken(f"in the calm a command is refused: {clients.problem}")

    if world.site.kind in ("changing", "graph"):
        for _ in range(200):
            if clients.reload(dict.fromkeys(range(4), CORES)):
                break
            world.run_until(world.now + SLICE_S)
        else:
            raise Broken("the whole inventory can not be had back")
    if world.site.kind in ("changing", "queues"):
        surely(lambda state: decide_config.load(state, world.site.config, "", 1, world.now))
    for name in world.site.queues:
        surely(lambda state, name=name: decide.change_queue(name, "start", "", world.now))
        surely(lambda state, name=name: decide.change_queue(name, "enable", "", world.now))
    release(world)
    if world.site.kind == "deep" and not world.happened[f"children at depth {DEEPEST}"]:
        clients.nest()
    if world.site.resumes:
        clients.resume()


def release(world: Realm) -> None:
    """Who is held is held no more, and what a failing script drained is there again."""
    clients = world.clients
    clients.begin_anew()
    clients.journal.catch_up(clients.view)
    if any(node.drain is not None for node in clients.view.nodes.values()):
        clients.say(lambda state: decide.undrain(state, list(state.nodes), "", world.now, force=True), fresh=True)
    for name in world.site.queues:
        if not clients.view.may_start(name):  # somebody's word that was long on its way
            clients.say(lambda state, name=name: decide.change_queue(name, "start", "", world.now), fresh=True)
    for job in list(clients.view.active()):
        if job.urgency == 0 and job.state & (NEW | DEPEND | PRIORITY | SCHED):
            clients.say(lambda state, id=job.id: decide.change_urgency(state, id, 16, 1, world.now), fresh=True)
        if world.depth and world.root.site.follows and outgrown(clients.view, job):  # the nodes for it were given back for good
            clients.say(lambda state, id=job.id: decide.raise_exception(state, id, "cancel", 0, "", 1, world.now), fresh=True)
            world.root.happened["larger than its instance"] += 1


def outgrown(view: State, job: Job) -> bool:
    """Whether a job that says so is really larger than all there is, by its jobspec's counts and the inventory's cores alone."""
    if job.state != SCHED or job.reason[0] != "unsatisfiable" or job.jobspec is None:
        return False
    top = job.jobspec["resources"][-1]
    if top["type"] == "rack":
        top = top["with"][-1]
    nodes, slot = (top["count"], top["with"][0]) if top["type"] == "node" else (0, top)
    each = [node.cores.bit_count() // slot["with"][0]["count"] for node in view.nodes.values()]  # slots that fit
    return sum(slots >= slot["count"] for slots in each) < nodes if nodes else sum(each) < slot["count"]


def settle(world: World, patience_s: float, *, explained: bool) -> None:
    """Until every job has ended (or, explained: waits for a reason that can be named)."""
    view, journal = State(), world.journal
    end = world.now + patience_s
    while True:
        world.run_until(world.now + SLICE_S)
        journal.catch_up(view)
        left = [job for job in view.active() if job.state != INACTIVE and not waits(world, view, job, explained)]
        if not left and taken_up(world) and not view.keeping and not own.left_over(world):
            return
        if world.now > end:
            job = left[0].id if left else 0
            raise Broken(f"jobs that neither end nor can say why: {[(one.id, one.state, one.reason) for one in left][:5]}", job)
        if not explained:
            release(world)


def waits(realm: Realm, view: State, job: Job, explained: bool) -> bool:
    """Whether a job has a reason not to have ended. One that is an instance whose jobs have is told to stop, after a look at it."""
    if explained and audit.explanation(view, job, realm.root.now):
        return True
    inner = realm.child_of(job.id)
    if inner is None:
        return False
    if not inner.hopes():
        realm.clients.say(lambda state: decide.raise_exception(state, job.id, "cancel", 0, "", 1, realm.root.now), fresh=True)
        return False
    if not inner.ready or inner.stopped or not taken_up(inner):
        return False
    if not explained:
        release(inner)
    before, left = inner.settled.version, inner.left()
    if left or inner.settled.version != before or not all(process.up for process in inner.processes()):
        inner.idle_since = realm.root.now
    if left:
        for one in left if inner.before is not None and not explained else ():
            if one.reason[0] in (UNSATISFIABLE, "no-such-queue"):  # it waits for what there was before
                inner.clients.say(lambda state, id=one.id: decide.raise_exception(state, id, "cancel", 0, "", 1, realm.root.now))
        found = [waits(inner, inner.settled, one, explained) for one in left]
        return explained and all(found)
    if realm.root.now > inner.idle_since + IDLE_S and not inner.stopping:
        inner.clients.begin_anew()
        inner.clients.journal.catch_up(inner.clients.view)
        audit.audit(inner)
        inner.stop()
    return False


def taken_up(world: Realm) -> bool:
    """Whether the server takes writes under the epoch that is current, and the instance is not over."""
    try:
        return witness.is_current(world.store)
    except (Unavailable, Rejected):
        return False


def journal_hash(world: World) -> str:
    """A hash of all bytes of its journal."""
    total = hashlib.sha256()
    for entry in world.store.read(0, 1_000_000):
        total.update(entry.id.encode() + entry.header + entry.payload)
    return total.hexdigest()

