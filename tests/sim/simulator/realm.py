"""An instance of a simulated world: the one it begins with, or a child, which is what a job of another one runs.

A child is made, taken up and limited by production code (`instances/child.py`, `boot.py`, `parent_limit.py`); its processes live
in its job's tasks and die with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fluxkv.instances import boot, child, ending
from fluxkv.instances.parent_claims import ParentClaims
from fluxkv.instances.parent_limit import ParentLimit
from fluxkv.instances.paths import StateDir
from fluxkv.instances.script_orders import letter_of
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.log import Journal
from fluxkv.journal.resizing import index_of, leaving_of
from fluxkv.journal.resource_graph import graph_of
from fluxkv.journal.rset import parse_R
from fluxkv.journal.state import State
from fluxkv.journal.wire import read_commit
from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Appended
from fluxkv.kvs.uri import parse_uri
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Policy

from . import handover
from .clients import DEEPEST, Clients, ClientStore
from .nonsense import Nonsense
from .own import Courier, Own, Server
from .resumed import AGAIN_S, GoesOn, before_of
from .sites import Site
from .truth import Broken, Diary, split_key

if TYPE_CHECKING:
    from .faults import Fork
    from .keepers import KeeperProcess
    from .process import Process
    from .roles import Machine, WorkerProcess
    from .world import World

MEMBER_S = 0.5
START_S = 60.0
MOVES = ("submit", "submit", "submit", "submit", "cancel", "change", "signal", "drain")


class Realm:
    """children: all there have been, by what began their job's attempt. nested: jobs that are instances. orders: key -> what the
    launcher was given of such a job."""

    root: World
    depth: int
    site: Site
    state_dir: StateDir
    uri: str
    cores: int
    clients: Clients
    journal: Journal
    server: Server

    def open(self, namespace: str) -> None:
        """Empty tables, and a store."""
        self.namespace = namespace
        self.lookups = self.snapshots = self.conflicts = self.poisoned = 0
        self.over = False
        self.forks: list[Fork] = []
        self.detections: list[tuple[float, str, str]] = []
        self.complaints: list[str] = []
        self.late: set[str] = set()  # what requests are about of which a copy is still under way
        self.errors: list[str] = []  # what roles said was wrong
        self.downs: list[tuple[float, tuple[int, ...]]] = []  # when a launcher died, of which ranks
        self.restarts: list[tuple[float, int]] = []  # when the server was another, and the epoch until then
        self.runs: dict[int, tuple[float, int]] = {}
        self.diary = Diary()
        self.diary.single = self.root.site.resizes
        self.diary.prolog = self.site.config.get("job-manager", {}).get("prolog", {}) if self.site.kind != "changing" else {}
        self.diary.begins, self.diary.ends = self._begins, self._ends
        self.workers: list[WorkerProcess] = []
        self.machines: list[Machine] = []
        self.keepers: list[KeeperProcess] = []
        self.couriers: list[Courier] = []
        self.children: list[Child] = []
        self.nested: set[int] = set()
        self.orders: dict[str, dict[str, Any]] = {}
        self.going_on: dict[int, Child] = {}  # job -> the child that another one was, with which it goes on
        self.settled = State()
        self.book = handover.Book()
        self.store = self.new_store()

    @property
    def nests(self) -> bool:
        """Whether its jobs may be instances."""
        return self.root.site.kind == "nested" and self.depth < DEEPEST

    def processes(self) -> list[Process]:
        couriers = [one for one in self.couriers if not one.ended]
        return [*self.workers, *[machine.agent for machine in self.machines if not machine.gone], *self.keepers, *couriers]

    # -- what processes ask of their world ------------------------------------------------------------------------

    def new_store(self) -> MemoryStore:
        return MemoryStore(self.server, self.namespace, memory_limit=1)

    def client_store(self) -> ClientStore:
        """One behind a net that loses."""
        store = ClientStore(self.server, self.namespace, memory_limit=1)
        store.world = self
        return store

    def new_policy(self) -> Policy:
        return Nonsense(self) if self.root.faults.on("nonsense") else Fcfs()

    def noticed(self, who: str, error: Corrupt) -> None:
        """Somebody stops because history is not what it was; without a fork that must not be."""
        if not self.forks:
            raise Broken(f"{self.namespace}: {who}: {error}")
        self.detections.append((self.root.now, who, error.code))

    def excused(self, error: Exception) -> bool:
        """Whether a process may stop by this error."""
        if self.forks and isinstance(error, Corrupt) and error.code in ("version-gap", "forked", "tail-behind"):
            self.detections.append((self.root.now, "", error.code))
            return True
        return False

    def job_in(self, text: str) -> int:
        """A job that a text names."""
        return next((id for id in self.clients.ids if str(id) in text), 0)

    def bring_up(self) -> None:
        """What a keeper does before all else. Raises `Unavailable` if it has to be tried again."""

    def ends_at(self) -> float:
        """When it has to be over, as it was made; 0.0: never."""
        return 0.0

    def hardware(self, ever: bool = False) -> dict[int, set[int]]:
        """rank -> its cores, by the inventory as it is at most. ever: with nodes that came later, or have gone."""
        raise NotImplementedError

    def pools(self) -> dict[str, int]:
        """What there is in its graph: path -> size."""
        raise NotImplementedError

    def new_claims(self) -> ParentClaims | None:
        """What follows its job's nodes, where these change."""
        return None

    # -- jobs that are instances ----------------------------------------------------------------------------------

    def child_of(self, job: int) -> Child | None:
        """The living child that a job is."""
        return next((one for one in self.children if one.place.job == job and not one.over), None)

    def _begins(self, key: str) -> None:
        job, _, rank = split_key(key)
        if isinstance(self, Child):
            handover.begins(self, key)
        if letter_of(key) or job not in self.nested:
            return
        here = child.place({**self.orders[key]["env_set"], **self.orders[key].get("env_own", {}), "FLUX_TASK_LOCAL_ID": "0"})
        assert here is not None
        found = next((one for one in self.children if one.place.entry == here.entry and one.place.job == job), None)
        if found is None:
            found = Child(self, here._replace(node=0))  # whichever of its nodes was quicker, its first one leads
            self.children.append(found)
        found.begin_part(here.node, key, next(one for one in self.machines if rank in one.ranks))

    def _ends(self, key: str) -> None:
        for one in self.children:
            one.end_part(key)


class Child(GoesOn, Own, Realm):
    """place: in its parent. ready: whether its namespace is there. What it has not itself is its world's."""

    def __init__(self, parent: Realm, place: child.Place) -> None:
        self.root, self.parent, self.place, self.depth = parent.root, parent, place, parent.depth + 1
        self.site = Site("plain", 0)
        self.site.config = {}
        self.cores = parent.cores
        self.before = before_of(parent, place)
        self.uri = self.before.uri if self.before is not None else child.child_uri(place.parent, place.job, place.number)
        self._house(parent)
        self.ready = self.stopping = self.stopped = False
        self.settings: dict[str, Any] = {}
        self.parts: dict[str, tuple[int, Machine]] = {}  # launcher key of a task of its job -> node, the machine it runs on
        self.joined: set[str] = set()  # parts whose node has been in the inventory
        self.ended: set[int] = set()  # nodes on which its part is over
        self.idle_since = 0.0
        self.state_dir = StateDir(self.root.state_dir.join(f"child{len(parent.children)}-{place.job}-{place.entry}"))
        if self.root.site.owns:
            self.state_dir = child.directory(self.place)
        self.state_dir.create()
        self.open(parse_uri(self.uri).namespace)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["root"], name)

    def begin_part(self, node: int, key: str, machine: Machine) -> None:
        """A task of its job has begun: this node's agent, and on the first node its keeper and worker."""
        from .keepers import KeeperProcess
        from .roles import Machine, WorkerProcess

        if self.stopped:  # it reads that there is nothing to begin with
            self.root.after(0.0, machine.leave, key)
            return
        self.over = False
        self.parts[key] = node, machine
        self.ended.discard(node)
        if node:
            self.root.after(START_S, self._begun, key, machine)
        mine = Machine(self, node, (node,))
        self.machines.append(mine)
        begun: list[Process] = [mine.agent]
        if node == 0:
            self.keepers.append(KeeperProcess(self, "keeper-0"))
            several = self.root.site.kind == "deep" and self.root.rng.random() < 0.25
            self.workers += [WorkerProcess(self, f"worker-{number}") for number in range(2 if several else 1)]
            begun += [*self.keepers, *self.workers]
        for process in begun:
            delay = 0.0005 if self.root.calm else self.root.rng.uniform(0.0, 0.3)
            if node and self.root.site.follows:
                self.root.after(delay, self._joins, mine.agent, node, key, machine)
            elif self.before is not None and process not in self.keepers:
                self.root.after(delay, self._born, process, owner=process)
            else:
                self.root.after(delay, process.birth, owner=process)

    def _joins(self, agent: Any, node: int, key: str, machine: Machine) -> None:
        """Who follows begins when its node is in the inventory (`follower.wait_until_member`), and ends when it is not there."""
        if key not in self.parts:
            return
        self.root.after(MEMBER_S, self._joins, agent, node, key, machine)
        if self.before is not None and not self.ready:
            return  # the journal is not this job's yet
        try:
            state = Journal(self.new_store()).look()
            if node in state.nodes:
                if agent is not None and not agent.up and not agent.deaths:
                    agent.birth()
                self.joined.add(key)
            elif key in self.joined or state.instance.get("stopped") or self._never(node):
                machine.leave(key)
        except (Unavailable, Corrupt):
            pass

    def _never(self, node: int) -> bool:
        """Whether the node is asked back before it was used."""
        job = Journal(self.parent.new_store()).look().jobs.get(self.place.job)
        return job is None or not job.holds or node in {index_of(job, rank) for rank in leaving_of(job)}

    def new_claims(self) -> ParentClaims | None:
        return ParentClaims(self.parent.new_store(), self.new_store(), self.settings) if self.root.site.follows else None

    def _begun(self, key: str, machine: Machine) -> None:
        """Who follows waits so long for the namespace."""
        if key in self.parts and not self.ready:
            machine.leave(key)

    def bring_up(self) -> None:
        """Make the namespace, as the keeper on its first node does; its clients come with it."""
        store = self._ensure()
        self.settings["uid"] = store.meta().uid  # as a keeper notes it: one that was lost as a whole may have been made anew
        self.state_dir.write(self.settings)
        if self.own:
            self._open_door()
        if self.ready:
            return
        self.ready = True
        self.journal = Journal(self.new_store(), "audit")
        if self.before is not None:
            self._as(self.before)
        self.clients = Clients(self)
        if self.before is not None:
            self.clients.ids = self.before.clients.ids
            self.root.happened["children gone on with"] += 1
            self.root.happened["children gone on with by a later attempt"] += self.before.place.job == self.place.job
            self.root.happened[f"children gone on with at depth {self.depth}"] += 1
        self.limit = ParentLimit(self.parent.new_store(), self.settings, lambda events: boot.say(store, events))
        self.root.happened["children"] += 1
        self.root.happened[f"children at depth {self.depth}"] += 1
        self.root.happened[f"children at depth {self.depth} in a storm"] += not self.root.calm
        rng, world = self.root.rng, self.root
        handover.look([self])
        self.site.graph = bool(self.book.has.pools)
        self.site.power = max([units for path, (units, _) in self.book.has.pools.items() if "power" in path], default=1)
        if world.site.resizes:
            for _ in range(3):
                world.after(rng.uniform(1.0, 30.0), self.parent.clients.resize)
        for name in rng.choices(MOVES, k=1 if world.calm else rng.choice((3, 6, 9))):
            self._later(rng.random() * (0.1 if world.calm else 4.0), name)
        if world.site.kind == "deep":
            self._nest()
        if world.site.resumes and not world.calm:
            for _ in range(2):
                self._later(rng.uniform(2.0, 20.0), "resume")
        deep = world.site.kind == "deep"
        if not world.calm and rng.random() < (0.25 if deep else 0.5):
            world.after(rng.choice((3.0, 9.0, 20.0) if deep else (0.5, 3.0, 9.0)), self.stop)

    def _nest(self) -> None:
        """One instance further down, in a storm sometimes two; in the calm until the deepest level was there."""
        rng, world = self.root.rng, self.root
        if not world.calm:
            for _ in range(rng.choice((1, 1, 2))):
                self._later(rng.random() * 0.3, "nest")
        elif not world.happened[f"children at depth {DEEPEST}"]:
            self._later(0.0, "nest")

    def _later(self, delay: float, name: str) -> None:
        def act() -> None:
            if not self.over:
                getattr(self.clients, name)()

        self.root.after(delay, act)

    # -- its end --------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """In order: its jobs are ended, it says so, and then its tasks end."""
        if not (self.over or self.stopping):
            self.stopping = True
            self._deadline = self.root.now + ending.GRACE_S
            self._announced = False
            self._stop()

    def _stop(self) -> None:
        """As `ending.end_jobs` does, which would wait."""
        if self.over:
            return
        self.root.after(AGAIN_S, self._stop)
        store = self.new_store()
        try:
            journal = Journal(store, by="keeper")
            journal.patience_s = 0.0
            if not self._announced:
                answer = journal.append(ending.stopping(self.site.queues), journal.meta.version)
                if not isinstance(answer, Appended):
                    return
                self._announced = True
            state = journal.look()
            journal.settle(ending.ending, state)
            if ending.is_busy(journal.look()) and self.root.now < self._deadline:
                return
            boot.say(store, [["instance-stop", "instance", self.root.now, {"reason": "stop"}]])
        except (Unavailable, Corrupt, Conflict, Rejected):
            if self.root.now < self._deadline + ending.GRACE_S:
                return
        self.stopped = True
        for key, (node, machine) in list(self.parts.items()):
            if self.own and node == 0:
                self._shut_down(key, machine)
            else:
                machine.leave(key)

    def end_part(self, key: str) -> None:
        """A task of its job is over: nothing of it is left on this node; without the first node there is nothing of it at all."""
        node, _ = self.parts.get(key, (-1, None))
        if node < 0:
            return
        self.ended.add(node)
        for machine in self.machines:
            if machine.ranks == (node,):
                machine.end()  # what its launcher has not told yet has happened before
        del self.parts[key]
        if node == 0:
            for process in (*self.keepers, *self.workers):
                process.end()
            self._server_dies()
        if not self.parts:
            self.over = True
            self.root.happened["children over"] += 1

    def hopes(self) -> bool:
        """False if its journal was lost as a whole: somebody cancels its job then."""
        try:
            return not self.ready or self.store.meta().uid == self.settings["uid"]
        except Unavailable as error:
            return error.code != "no-instance" or not self.ready

    def ends_at(self) -> float:
        return float(self.settings["R"]["execution"].get("expiration") or 0.0)

    def hardware(self, ever: bool = False) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for document in self._inventories(ever):
            for node in parse_R(document).nodes:
                found.setdefault(node.rank, set()).update(bits(node.cores))
        return found

    def pools(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for document in self._inventories(ever=True):
            graph = graph_of(parse_R(document))
            for path, place in graph.places.items() if graph is not None else ():
                found[path] = max(place.size, found.get(path, 0))
        return found

    def inventory(self) -> set[tuple[str, int]]:
        """What it may use, (host, core), as it was made."""
        return {(node.host, core) for node in parse_R(self.settings["R"]).nodes for core in bits(node.cores)}

    def left(self) -> list[Any]:
        """Its jobs that have not ended."""
        self.journal.catch_up(self.settled)
        return [job for job in self.settled.active() if job.state != INACTIVE]


def bits(mask: int) -> Iterator[int]:
    return (at for at in range(mask.bit_length()) if mask >> at & 1)


class NoTail:
    """Instead of one that waits for more of a journal: what there is now. Whoever asks asks again."""

    def __init__(self, store: Any, version: int, entry: str = "") -> None:
        self.commits = [read_commit(one) for one in store.read(version)]

    def poll(self, timeout_s: float) -> tuple[list[Any], bool]:
        if not self.commits:
            raise Unavailable("its parent has not said what it was given", code="no-alloc")
        found, self.commits = self.commits, []
        return found, False

    def close(self) -> None: ...
