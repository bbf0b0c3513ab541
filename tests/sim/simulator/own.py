"""Instances with servers of their own (`--kvs=own`) in a simulated world: how their journals come up, and that who looks sees them.

What decides is production code: `own_server`, `whereabouts`, `handover`, `handover_duty`, `run_handover`. Played is what these
stand on: servers with files, locks, processes. Whoever hands up may die between any two of its requests; each takes its time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fluxkv.instances import (
    boot,
    handing_down,
    handover,
    handover_duty,
    own_server,
    run_handover,
    whereabouts,
)
from fluxkv.instances.child import Place
from fluxkv.instances.paths import StateDir
from fluxkv.journal.log import Journal
from fluxkv.journal.wire import read_commit
from fluxkv.kvs import memory_server, redis_store
from fluxkv.kvs.errors import FluxkvError, Unavailable
from fluxkv.kvs.memory_server import MemoryServer, share
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Entry, Store
from fluxkv.kvs.uri import StoreUri, parse_uri

from .handover import is_lost
from .process import Process
from .truth import Broken

if TYPE_CHECKING:
    from .keepers import KeeperProcess
    from .realm import Child, Realm
    from .roles import Machine
    from .world import World

NAME = "sim-own-"
FILES = "appendonlydir"
TWINS = 0.2  # how often two hand up at once
DEATHS = 0.01  # of who hands up, at each request in a storm
TORN = 0.3  # how often the end of a server's file is lost when it dies with its job
AGAIN_S = 2.0  # after which a keeper starts its server again
LOOK_S = 0.7  # between two readers
REQUESTS = (
    "meta", "read", "entries", "messages", "push", "spaces", "guards", "outputs", "load_snapshot", "idle_blobs", "get_blobs",
    "put_blobs", "touch_blobs", "arriving", "arrive", "arrive_messages", "arrive_tables", "arrived", "prune_guards", "shrink",
    "bumps", "seal", "fence",
)  # fmt: skip


class Server(MemoryServer):
    """Tells the world when something has come. private: nobody writes to it but who has started it to hand its journals up."""

    told: Callable[[], None] = staticmethod(lambda: None)
    private = False

    def wake(self) -> None:
        super().wake()
        self.told()

    def check(self, operation: str, when: str = "before") -> None:
        super().check(operation, when)
        if self.private and operation == "append":
            raise Unavailable("nobody else is let in", code="unreachable")


class Killed(BaseException):
    """kill -9: nothing that was to be done at the end is done."""


class Handle(NamedTuple):
    """What `start_server` gives. starter: the process that it ends with; None: it lives on."""

    server: Server
    url: str
    starter: Courier | None
    pid: int = 0
    repaired: str = ""

    def stop(self) -> None:
        if self.starter is None or not self.starter.killed:
            self.server.down = True


class Courier(Process):
    """A process that does one thing after another and waits for each (`work`): it goes on in a thread of its own, one at a time.

    status: as `waitpid` has it; None while it is at work."""

    current: Courier | None = None

    def __init__(self, world: Realm, name: str, work: Callable[[], object]) -> None:
        super().__init__(world, name)  # type: ignore[arg-type]
        self.work = work
        self.status: int | None = None
        self.killed = False
        self.problem: BaseException | None = None
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def birth(self) -> None:
        self.up = True
        self.thread.start()
        self._switch()

    def _run(self) -> None:
        self.go.acquire()
        try:
            self.work()
            self.status = 0
        except Killed:
            self.status = 9
        except (FluxkvError, OSError) as error:
            self.world.complaints.append(str(error))
            self.status = 1 << 8
        except BaseException as error:  # an invariant that does not hold, or a fault of ours: told where somebody hears it
            self.problem, self.status = error, 1 << 8
        self.back.release()

    def _switch(self) -> None:
        """Let it go on until it waits the next time."""
        before, Courier.current = Courier.current, self
        self.go.release()
        self.back.acquire()
        Courier.current = before
        if self.status is None:
            return
        self.thread.join()
        self.up, self.ended = False, True
        if self.problem is not None:
            raise self.problem

    def pause(self, delay: float) -> None:
        """In its thread: everybody else goes on for a while."""
        if self.killed:
            raise Killed
        self.world.after(delay, self._switch, owner=self)
        self.back.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def die(self, back_s: float | None = None) -> None:
        """Nobody starts it again; who watches it begins another."""
        if self.ended:
            return
        self.ended = self.killed = True
        begun = self.up
        super().die()
        if begun:
            self._switch()
        else:
            self.status = 9


def here() -> Courier | None:
    """The process that is at work, None where the world is."""
    return Courier.current


class CourierStore(MemoryStore):
    """A store as somebody sees it who waits for each answer, which may be lost, as may the request."""


def _over_the_net(name: str) -> Callable[..., Any]:
    honest = getattr(MemoryStore, name)

    def ask(self: CourierStore, *args: Any, **options: Any) -> Any:
        who = here()
        if who is None:
            return honest(self, *args, **options)
        world = who.world.root
        who.pause(world.latency())
        if not world.calm and world.rng.random() < DEATHS:
            who.killed = True
            world.happened["killed while it handed up"] += 1
            raise Killed
        if world.now < who.cut_until or world.strikes("lost"):
            raise Unavailable("no answer", code="unreachable")
        answer = honest(self, *args, **options)
        if name == "arrived" and not world.calm and world.faults.on("failover") and world.rng.random() < 0.2:
            torn = world.faults.tear(self.server, 1)
            world.happened["torn while it came"] += torn
            self.server.down = self.server.down or (torn and self.server is not world.server)  # one's own dies with that
        if world.rng.random() < 0.1:
            look_in(world)
        who.pause(world.latency())
        if world.strikes("lost"):
            raise Unavailable("no answer", code="unreachable")
        return answer

    return ask


for _name in REQUESTS:
    setattr(CourierStore, _name, _over_the_net(_name))


# -- what a child has of its own -----------------------------------------------------------------------------------


class Own:
    """The half of a child about its server. own: whether it has one. handle: of the server, once its keeper has started it."""

    own = False
    handle: Handle | None = None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def _house(self, parent: Realm) -> None:
        """Which server it is on."""
        world = parent.root
        self.server = parent.server
        if not world.site.owns:
            return
        self.place: Place = self.place._replace(state_dir=parent.state_dir.path)
        self.own = (self.before is None or world.site.passes) and world.rng.random() < 0.7
        if self.before is not None:
            self.uri = str(StoreUri(parse_uri(parent.uri).server, parse_uri(self.before.uri).namespace))
        if self.own:
            number = len(world.own_servers)
            self.server = Server(lambda: world.now + self.server_skew, world.random_of(number))
            self.server_skew = world.draw_skew()
            self.server.told, self.server.remember = world._told, world.server.remember
            self.server.down = True
            world.own_servers.append(self.server)
            share(f"{NAME}{number}", self.server)
            self.uri = f"memory:{NAME}{number}#{parse_uri(self.uri).namespace}"

    def _start_server(self) -> None:
        """As its keeper does, each time it begins."""
        os.makedirs(self.state_dir.join(FILES), exist_ok=True)
        self.handle = boot.start_or_attach_server(self.state_dir, self.settings)

    def _bring_down(self) -> None:
        """As its keeper does before it takes up the journal that it is to go on with."""
        if self.settings.get("resume") and not self.settings["uid"]:
            door = own_server.door_of(self.settings, self.state_dir)
            self.root.happened["handed down"] += handing_down.hand_down(self.handle.url, self.settings, door, self.state_dir)

    def _open_door(self) -> None:
        if not self.ready:
            own_server.open_door(self.settings, self.state_dir)

    def _shut_down(self, key: str, machine: Machine) -> None:
        """As `keeper.shut_down` does once its jobs are over. key: of the task that all this runs in, which ends then."""
        care = self.keepers[0].care
        for process in (*self.workers, *self.keepers, *(one.agent for one in self.machines if one.ranks == (0,))):
            process.end()
        stopper = Courier(self, "keeper-stopping", care._hand_up)

        def watch() -> None:
            if not stopper.ended:
                self.root.after(LOOK_S, watch)
            elif key in self.parts:
                self.server.down = self.server.down or not stopper.killed
                machine.leave(key)

        self.couriers.append(stopper)
        self.root.after(0.0, stopper.birth, owner=stopper)
        self.root.after(LOOK_S, watch)
        _twin(self)

    def _server_dies(self) -> None:
        """With its job's last task here goes all that ran in it."""
        for one in self.couriers:
            one.die()
        if not self.own:
            return
        world = self.root
        elsewhere = [one.server for one in around(self) if one.server is not self.server]
        came = any(self.namespace in server.tables.instances for server in elsewhere)  # what its files lose now is up already
        able = self.ready and not world.calm and not came and not self.server.down and world.faults.on("failover")
        if able and world.rng.random() < TORN:
            world.faults.tear(self.server, world.rng.choice((1, 2, 5)))
            world.happened["files torn with their job"] += 1
        self.server.down = True


class Hands:
    """The keeper's duty to hand up what its children left, which looks each time its keeper does."""

    def __init__(self, keeper: KeeperProcess) -> None:
        self.world = keeper.world
        self.duty = handover_duty.HandoverDuty(keeper.store, self.world.state_dir, Said(self.world).say)
        self.down_since = 0.0

    def look(self) -> None:
        world: Any = self.world
        if world.depth and world.own and world.server.down:
            self.down_since = self.down_since or world.root.now
            if world.root.now >= self.down_since + AGAIN_S:
                world._start_server()
                self.down_since = 0.0
            return
        self.down_since = 0.0
        world.root.at_work = world
        self.duty.look()


class Said:
    def __init__(self, world: Realm) -> None:
        self.world = world

    def say(self, level: str, text: str) -> None:
        self.world.complaints.append(text)


def _twin(one: Own) -> None:
    """Sometimes somebody else hands up, too: its files are on two hosts, or a lock has gone with its file system."""
    world = one.root
    if world.calm or world.rng.random() > TWINS:
        return
    url = f"memory:{NAME}{world.own_servers.index(one.server)}"
    twin = Courier(one.parent, "twin", lambda: handover.hand_up(url, one.settings))
    one.parent.couriers.append(twin)
    world.happened["two hand up at once"] += 1
    world.after(world.rng.uniform(0.0, 0.1), twin.birth, owner=twin)


# -- what production stands on, as it is here ----------------------------------------------------------------------


def changes(world: World, clock: Any) -> list[tuple[Any, str, Any]]:
    """(owner, name, value) of what is other than on a host."""
    if not world.site.owns:
        return []
    opened, marked = redis_store.open_store, handover.mark

    def open_store(uri: str, **options: Any) -> Store:
        found = opened(uri, **options)
        return CourierStore(found.server, found.namespace) if here() is not None else found  # type: ignore[attr-defined]

    def mark(state_dir: StateDir, target: str, names: Iterable[str] = ()) -> None:
        marked(state_dir, target, names)
        os.utime(state_dir.join(handover.MARK), (world.now, world.now))

    def start_server(path: str, durability: str, listen: Any = None) -> Handle:
        one = _child_of(world, path)
        who = here()
        if one.server.down:
            one.server.restart()
            one.server.down = False
            one.server.private = who is not None
        return Handle(one.server, parse_uri(one.uri).server, who)

    def take_lock(path: str, patience_s: float) -> int:
        if _lock_held(world, path):
            raise Unavailable(f"{path} is held by another process", code="running")
        world.locks[path] = here()
        return os.open(os.devnull, os.O_RDONLY)

    def spawn_role(directory: StateDir, role: str, *options: str) -> int:
        who = here()
        realm = who.world if who is not None else world.at_work
        world.spawned.append(Courier(realm, f"handover-{len(world.spawned)}", lambda: run_handover.main(directory, Said(realm))))
        realm.couriers.append(world.spawned[-1])
        world.after(0.05 if world.calm else world.rng.uniform(0.05, 0.5), world.spawned[-1].birth, owner=world.spawned[-1])
        world.happened["finished by a duty"] += 1
        if role == "handover" and (one := _child_of(world, directory.path)) is not None and not one.server.down:
            _twin(one)
        return len(world.spawned)

    def waitpid(pid: int, flags: int) -> tuple[int, int]:
        status = world.spawned[pid - 1].status
        return (0, 0) if status is None else (pid, status)

    def copy_of(folder: str) -> str:
        one = _child_of(world, folder)
        if not one.server.down or not os.path.isdir(os.path.join(folder, FILES)):
            return ""
        copy = MemoryServer(lambda: world.now)
        copy.tables = one.server.tables  # nobody writes to a copy
        share(f"{NAME}copy", copy)
        return f"memory:{NAME}copy"

    def answers(url: str) -> bool:
        return not memory_server.shared_server(url.partition(":")[2]).down

    return [
        (redis_store, "open_store", open_store), (handover, "open_store", open_store), (handover, "mark", mark),
        (run_handover, "open_store", open_store), (handing_down, "open_store", open_store),
        (handover, "time", clock), (handing_down, "time", clock), (handover_duty, "time", clock),
        (handover_duty, "spawn_role", spawn_role),
        (handover_duty, "os", _Os(waitpid)), (handover_duty, "lock_held", lambda path: _lock_held(world, path)),
        (boot, "start_server", start_server), (run_handover, "start_server", start_server), (run_handover, "take_lock", take_lock),
        (whereabouts, "_copy_of", copy_of), (whereabouts, "_answers", answers),
        (own_server, "unix_url", lambda path: parse_uri(_child_of(world, os.path.dirname(path)).uri).server),
        (own_server, "socket_path", lambda folder: os.path.join(folder, "kv.sock")), (own_server, "with_port", lambda where: where),
        (own_server, "join_url", lambda folder, listen: ""),
    ]  # fmt: skip


class _Os:
    """The module `os`, but for what is about processes."""

    def __init__(self, waitpid: Callable[[int, int], tuple[int, int]]) -> None:
        self.waitpid = waitpid

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def sleep(seconds: float) -> None:
    """`time.sleep` of somebody who waits."""
    who = here()
    assert who is not None or not seconds, "nobody else may sleep"
    if who is not None:
        who.pause(seconds)


def close(world: World) -> None:
    """No thread is left."""
    for realm in (world, *everybody(world)):
        for one in realm.couriers:
            one.problem = None
            if not one.ended:
                one.die()
    for name in [name for name in memory_server._shared if name.startswith(NAME)]:
        del memory_server._shared[name]


def _child_of(world: World, folder: str) -> Any:
    """The last child whose state directory this is."""
    found = [one for one in everybody(world) if one.state_dir.path == folder]
    return found[-1] if found else None


def _lock_held(world: World, path: str) -> bool:
    """By a process of the child whose directory it is in, or by somebody who hands it up."""
    who = world.locks.get(path)
    if who is not None and who.up:
        return True
    one = _child_of(world, os.path.dirname(os.path.dirname(path)))
    role = os.path.basename(path).partition(".")[0]
    return one is not None and any(process.up and process.name.startswith(role) for process in one.processes())


def everybody(realm: Realm) -> Iterator[Child]:
    """All children there have been, at any level."""
    for one in realm.children:
        yield one
        yield from everybody(one)


# -- who looks in ---------------------------------------------------------------------------------------------------


def look_on(world: World) -> None:
    """Readers come all the time."""
    look_in(world)
    world.after(LOOK_S, look_on, world)


def look_in(world: World) -> None:
    """Each such child is found, wherever it is, and is what it is: no version less, none twice, none in another order."""
    # (What is read above is compared with what its own server still has: nobody writes there any more.)
    before, Courier.current = Courier.current, None  # whoever looks in does not wait
    try:
        for one in everybody(world):
            if one.own and one.ready and not lost(one):
                look_into(one)
    finally:
        Courier.current = before


def lost(one: Any) -> bool:
    """Whether a server has lost it, or an instance around it, as a whole, or a journal around it the attempt that it is."""
    while one.depth:
        parent = holder(one.parent)
        if one.namespace not in one.server.tables.instances:
            return True
        if parent.book.lost and (one.place.job, one.place.entry) not in parent.book.begun:
            return True
        one = parent
    return False


def around(one: Any) -> Iterator[Any]:
    """The instances around one, from the inside out: who has each now."""
    while one.depth:
        one = holder(one.parent)
        yield one


def heirs(one: Any) -> list[Any]:
    """Who was to go on with an instance after that."""
    beside = one.parent.children if one.depth else ()
    at = next((at for at, other in enumerate(beside) if other is one), len(beside))
    return [other for other in beside[at + 1 :] if other.before is not None and other.namespace == one.namespace]


def holder(one: Any) -> Any:
    """Who has its journal: itself, or who went on with it last."""
    return next((other for other in reversed(heirs(one)) if other.ready), one)


def by_journal(one: Any) -> bool:
    """Whether its attempt is over by its parent's journal."""
    held = holder(one.parent).book.held.get(one.place.job)
    return held is None or held.entry != one.place.entry


def where(realm: Any) -> Store:
    """A realm's journal as production finds it. Raises `Unavailable`; `Broken` where there is none."""
    if not realm.depth:
        return MemoryStore(realm.server, realm.namespace)
    found = whereabouts.store_of(where(holder(realm.parent)), realm.namespace, over=by_journal(realm))
    if found is None and _is_coming(realm):
        raise Unavailable("it is on its way, once more after a fail-over", code="coming")
    if found is None:
        raise Broken(f"{realm.namespace} is found by nobody", realm.place.job)
    return found


def _is_coming(one: Any) -> bool:
    """Whether an instance around it is handed up in this moment, and with it what is inside, perhaps once more after somebody has
    begun to go on with the instance; or was, and some of it was lost since where it came to: whoever removes its files will see."""
    forgetful = one.root.faults.on("failover")
    had = [other for above in around(one) if above.depth for other in above.parent.children if other.namespace == above.namespace]
    left = [other.state_dir for other in had if other.own and (other.over or other.stopping)]
    return any(not handover.is_marked(one) or (forgetful and os.path.isdir(one.join(FILES))) for one in left)


def look_into(one: Any) -> None:
    happened = one.root.happened
    try:
        found = where(one)
        entries, meta = found.read(0, 1_000_000), found.meta()
    except Unavailable as error:
        up = not any(above.server.down for above in around(one))
        if up and error.code != "coming" and (not one.server.down or by_journal(one)):
            raise Broken(f"{one.namespace} can not be read: {error}", one.place.job) from None
        happened["not to be read now"] += 1
        return
    mine = one.server.tables.journals[one.namespace]
    more = entries[len(mine) :]
    if one.before is not None and one.root.forks and len(entries) < len(mine) and entries == mine[: len(entries)]:
        happened["put back above"] += 1  # a fail-over took back that it had gone down: its keeper has it go once more
        return
    if entries[: len(mine)] != mine or (more and not heirs(one) and not is_known(one, more)):
        ids, there = [entry.id for entry in entries], [entry.id for entry in mine]
        raise Broken(f"{one.namespace} is read as {ids[-3:]} ({len(ids)}), and is {there[-3:]} ({len(there)})", one.place.job)
    at_home = found.server.tables is one.server.tables  # type: ignore[attr-defined]
    if not (at_home or meta.sealed or heirs(one)):
        raise Broken(f"{one.namespace} has been handed up, and is not sealed", one.place.job)
    happened["read at home" if at_home else "read above"] += 1
    happened["read in files"] += at_home and found.server is not one.server  # type: ignore[attr-defined]


def is_known(one: Any, entries: Sequence[Entry]) -> bool:
    """Whether these came up, and were lost where they came from after that; or say that the rest of what was lost is given up, by
    who goes on with an instance around it."""
    known = all(any(entry.id in fork.lost for fork in one.forks) for entry in entries)
    adopted = bool(one.forks) and all(event[0] == "adopt" for entry in entries for event in read_commit(entry).events)
    return known or (adopted and any(above.depth and above.before is not None for above in around(one)))


def left_over(world: World) -> list[Any]:
    """Those that are over and not handed up yet; noted it may be, and lost again since: whoever removes its files will see."""
    found = [one for one in everybody(world) if one.own and one.ready and one.over and holder(one) is one and not lost(one)]
    return [one for one in found if not (handover.is_marked(one.state_dir) and _has_come(one))]


def _has_come(one: Any) -> bool:
    """Whether it is on the first server, or on that of an instance around it that lives and will hand it up."""
    there = next(above for above in around(one) if not (above.depth and above.over))
    return one.namespace in there.server.tables.instances or one.namespace in one.root.server.tables.instances


def come_home(world: World) -> None:
    """In the end all of it is on the first server; from now on it is looked at there."""
    for one in everybody(world):
        one.server.down = one.server.private = False
        if one.own and one.ready and is_lost(one) and holder(one) is one:
            strayed(one)
        if one.server is world.server or not one.ready or lost(one):
            continue
        at_home = MemoryStore(one.server, one.namespace)
        found = where(one) if one.own else MemoryStore(world.server, one.namespace)
        if found.server is not world.server:  # type: ignore[attr-defined]
            raise Broken(f"{one.namespace} was not handed up", one.place.job)
        if one.namespace in one.server.tables.instances and holder(one) is one:
            whole(one, at_home, found)
        one.store, one.journal = found, Journal(found, "audit")


def strayed(one: Any) -> None:
    """What was begun on a history that is lost, and was not adopted, is nowhere but where it was."""
    world, mine = one.root, one.server.tables.journals.get(one.namespace)
    for server in (world.server, *world.own_servers):
        there = server.tables.journals.get(one.namespace) if one.namespace in server.tables.instances else None
        if server is not one.server and mine and there and mine[0].id == there[0].id:
            raise Broken(f"{one.namespace} was begun on a history that is lost, and was handed up all the same", one.place.job)
    world.happened["left where it was"] += 1


def whole(one: Any, source: MemoryStore, found: Store) -> None:
    """What has come is what was there."""
    here, there = source.read(0, 1_000_000), found.read(0, 1_000_000)
    if len(there) > len(here) and there[: len(here)] == here and (heirs(one) or is_known(one, there[len(here) :])):
        one.root.happened["more than where it came from"] += 1
        return
    if here != there:
        raise Broken(f"{one.namespace} is not what it was where it came from", one.place.job)
    if source.load_snapshot() != found.load_snapshot():
        raise Broken(f"{one.namespace} has another snapshot than where it came from", one.place.job)
    if Journal(source).look().digest() != Journal(found).look().digest():
        raise Broken(f"{one.namespace} folds to another state than where it came from", one.place.job)
    adopted = any(event[0] == "adopt" for commit in Journal(found).commits() for event in commit.events)
    if any(fork.witness in fork.lost for fork in one.forks) and not (adopted or found.meta().fork):
        raise Broken(f"{one.namespace} lost what its keeper had noted, and was handed up in silence", one.place.job)
    ids = {entry.id for entry in found.read(0, 1_000_000)}
    for told in one.clients.acknowledged:
        id = f"{told.version}-{told.epoch}"
        if id not in ids and not any(id in fork.lost for fork in one.forks):
            raise Broken(f"{one.namespace}: version {id} was acknowledged, and did not come up", one.place.job)
    one.root.happened["handed up"] += 1
