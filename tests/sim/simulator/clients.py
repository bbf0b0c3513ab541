"""People and programs that ask for things: each decides against its own view and appends by itself, over a net that loses.

Every answer is noted in a ledger; the audit holds the journal against it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jobspecs import jobspec

from fluxkv.instances import growing
from fluxkv.journal import (
    decide,
    decide_config,
    decide_cron,
    decide_graph,
    decide_inventory,
    decide_kvs,
    decide_records,
    decide_resize,
    decide_update,
)
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import compose
from fluxkv.journal.idset import mask_of
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.log import Journal, make_append
from fluxkv.journal.rset import NodeRecord, ResourceSet
from fluxkv.journal.state import State
from fluxkv.journal.wire import read_commit
from fluxkv.kvs.appending import header_prefix, safe_to_resend
from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Answer, Append, Appended, Conflicted, Entry
from fluxkv.schedulers.tree.record import to_record

from . import resumed
from .sites import CORES

if TYPE_CHECKING:
    from .realm import Realm

SHAPES = ((1, 0, 1), (1, 0, 1), (1, 0, 1), (2, 0, 1), (1, 0, 3), (2, 2, 1), (4, 1, 1), (9, 0, 1))  # cores, nodes, slots
SMALL_SHAPES = ((1, 0, 1), (2, 0, 1), (2, 2, 1))
RUNS = (0.0, 0.001, 0.004, 0.02, 0.02, 0.1, 0.7)
LONG_RUNS = (0.02, 0.7, 3.0, 12.0)
DEEPEST = 4
MOST_CHILDREN = 30  # in a storm
TRIES = 4
UNTOUCHED = ("instance-create", "resource-define", "config", "epoch", "adopt", "hello", "submit", "kvs.commit")  # mean something


class Acknowledged(NamedTuple):
    """A command that was answered with a version."""

    version: int
    epoch: int
    payload: bytes
    at: float


class ClientStore(MemoryStore):
    """A store behind a net: a request or its answer may get lost; what may be sent again is, as `RedisStore` does it."""

    world: Realm
    seen = 0

    def read(self, after: int, limit: int = 1000) -> list[Entry]:
        """Now and then as of some while ago: a replica, or an answer that was long on its way."""
        if self.world.strikes("behind"):
            return [entry for entry in super().read(after, limit) if entry.version <= max(self.seen, after + 1)]
        entries = super().read(after, limit)
        self.seen = entries[-1].version if entries else self.seen
        return entries

    def append(self, request: Append) -> Answer:
        world, unknown = self.world, False
        for _ in range(TRIES):
            if world.strikes("lost"):
                unknown = unknown or world.rng.random() < 0.5  # whether it had left, its sender can not know
            else:
                answer = super().append(request)
                if not world.strikes("lost"):
                    if unknown and isinstance(answer, Conflicted):
                        return self._ours(request) or answer
                    return answer
                unknown = True
                if world.faults.on("twice") and world.rng.random() < 0.5:
                    world.late.update(request.bumps)  # refused now, it may yet be taken
                    world.after(world.rng.uniform(0.0, 60.0), self._again, request)
            if not safe_to_resend(request):
                break
        raise Unavailable("no answer", code="outcome-unknown" if unknown else "unreachable")

    def _again(self, request: Append) -> None:
        """The same request once more, from a connection that is long broken."""
        try:
            super().append(request)
        except (Unavailable, Corrupt, Rejected):
            pass

    def _ours(self, request: Append) -> Appended | None:
        """The commit, if it is in the journal already."""
        prefix = header_prefix(request)
        for entry in super().read(request.decided_at):
            if entry.payload == request.payload and entry.header.startswith(prefix):
                return Appended(entry.version, entry.epoch, True)
        return None


class Clients:
    """All of them. acknowledged: what they were told; refused, unknown: jobs whose submission was refused, or without answer."""

    def __init__(self, world: Realm) -> None:
        self.world, self.rng = world, world.root.rng
        self.journal = Journal(world.client_store(), "cli")
        self.journal.patience_s = 0.0
        self.view = State()
        self.forks = 0
        self.ids: list[int] = []
        self.acknowledged: list[Acknowledged] = []
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self.full = 0
        self.problem = ""  # why the last command failed

    def begin_anew(self) -> None:
        """Forget what may be of a branch that is lost."""
        if self.forks != len(self.world.forks):
            self.forks, self.view = len(self.world.forks), State()

    def say(self, decision: Callable[[State], Decision], jobs: tuple[int, ...] = (), fresh: bool = False) -> bool:
        """Decide and append. jobs: what it submits. fresh: on a view that has everything. Whether it was acknowledged."""
        world = self.world
        try:
            self.begin_anew()
            if fresh or self.rng.random() < 0.7 or not self.view.version:
                self.journal.catch_up(self.view)
            self.journal.meta = self.journal.store.meta()
            for _ in range(TRIES):
                made = decision(self.view)
                if not made.events:
                    return True
                request = make_append(self.journal.meta, made, self.view.version, extra=self.journal.extra())
                answer = self.journal.store.append(request)
                if isinstance(answer, Appended):
                    self.acknowledged.append(Acknowledged(answer.version, answer.epoch, request.payload, world.now))
                    return True
                self.journal.cope(answer)
                self.journal.catch_up(self.view)
            self.refused.update(jobs)
        except Corrupt as error:
            self.problem = str(error)
            world.noticed("a client", error)
            self.view = State()
            self.refused.update(jobs)
        except (Rejected, Conflict) as error:
            self.problem = str(error)
            self.refused.update(jobs)
        except Unavailable as error:
            self.problem = str(error)
            self.full += error.code == "full"
            (self.unknown if error.code == "outcome-unknown" else self.refused).update(jobs)
        return False

    # -- jobs -----------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        rng, site = self.rng, self.world.site
        cores, nodes, slots = rng.choice(SHAPES)
        limit = rng.choice((0.0, 0.0, 0.0, 0.05, 8.0))
        nested = self.world.nests and rng.random() < (0.35 if self.world.depth == 0 else 0.75)
        if nested and self.world.depth:
            cores, nodes, slots = rng.choice(SMALL_SHAPES)
        queue = site.some_queue(rng)
        runs = LONG_RUNS if rng.random() < 0.25 else RUNS
        jobs = []
        for _ in range(rng.choice((1, 1, 2, 6, 12)) if not nested else 1):
            id = self._new_id()
            self.world.runs[id] = (rng.choice(runs), rng.choice((0, 0, 0, 256)))
            waits = [self._dependency() for _ in range(rng.choice((0, 0, 0, 0, 1, 2)))]
            name = rng.choice(("", "", "a", "b"))
            if name and rng.random() < 0.3:
                waits.append({"scheme": "singleton", "value": ""})
            jobs.append((id, jobspec(cores, nodes, slots, limit, queue, name, waits)))
            site.some_shape(rng, jobs[-1][1])
            self._may_be_tried_again(id, jobs[-1][1])
            if nested:
                self._is_an_instance(id, jobs[-1][1])
        urgency, user = rng.choice((16, 16, 16, 16, 20, 31, 0)), site.some_user(rng)
        honest = rng.random() < 0.8  # else: appended by somebody who asked nobody

        def decision(state: State) -> Decision:
            mark = state.config_entry[2] if state.config_entry and state.rules.queues else 0
            made = [(id, state.rules.honour(spec)) for id, spec in jobs] if honest and mark else jobs
            found = decide.submit(made, "", urgency, user, 0, self.world.now, mark)
            found.refusable = True
            return found

        self.say(decision, tuple(id for id, _ in jobs))

    def _new_id(self) -> int:
        id = compose(1 + len(self.ids), 0, 0)
        self.ids.append(id)
        return id

    def _is_an_instance(self, id: int, spec: dict[str, Any] | None = None) -> None:
        self.world.nested.add(id)
        if spec is not None and self.world.root.site.resizes:
            spec["tasks"][0]["command"] = ["fluxkv", "start"]
        self.world.runs[id] = (1e7, 0)  # it ends when it is told to

    def nest(self) -> None:
        """A job that is an instance, on all or half of what this one has of a node or two."""
        realm, rng = self.world, self.rng
        if realm.depth >= DEEPEST or (realm.root.happened["children"] >= MOST_CHILDREN and not realm.root.calm):
            return
        hardware = realm.hardware().values()
        nodes = rng.choice((0, 1, min(2, len(hardware))))
        cores = max(1, min(map(len, hardware)) // rng.choice((1, 2, 2)))
        id = self._new_id()
        spec = jobspec(cores, nodes, 1, rng.choice((0.0, 0.0, 0.0, 8.0)) if not realm.root.calm else 0.0)
        if realm.book.has.pools and rng.random() < 0.8:
            realm.site.shared_shape(rng, spec, realm.book.has.pools)
        self._may_be_tried_again(id, spec, 0.7)
        self._is_an_instance(id, spec)
        self.say(lambda state: decide.submit([(id, spec)], "", 20, 1, 0, realm.now), (id,))

    def resume(self) -> None:
        resumed.resume(self)

    def submit_fenced(self, host: str = "") -> None:
        """A job that begins again (elsewhere, unless a host is named) when its node is lost: its launcher ends it when nobody is
        heard."""
        cores, nodes = self.rng.choice((1, 2)), self.rng.choice((0, 2)) if len(self.world.hardware()) > 1 else 0
        self._submit_again(cores, nodes if not host else 0, "node-failure", self.rng.choice((0.7, 6.0, 30.0)), 0, host)

    def submit_failing(self) -> None:
        """A job that fails, and is tried again."""
        self._submit_again(1, 0, "any", self.rng.choice((0.7, 3.0)), 256)

    def _submit_again(self, cores: int, nodes: int, on: str, run_s: float, status: int, host: str = "") -> None:
        id, now = self._new_id(), self.world.now
        spec = jobspec(cores, nodes)
        if host:
            spec["attributes"]["system"]["constraints"] = {"hostlist": [host]}
        spec["attributes"]["system"]["retry"] = {"limit": 3, "on": [on], "delay": 0.0}
        self.world.runs[id] = (run_s, status)
        self.say(lambda state: decide.submit([(id, spec)], "", 31, 1, 0, now), (id,))

    def resize(self) -> None:
        """One of its instances that run is to have more nodes, or fewer."""
        realm, rng = self.world, self.rng
        self.begin_anew()
        living = [one.place.job for one in realm.children if one.ready and not one.over]
        if realm.over or not living:
            return
        id, text = rng.choice(living), rng.choice(("+1N", "+1N", "+2N", "-1N", "-1N", "=1N", "=2N"))
        terms = decide_resize.Terms(rng.choice((0.0, 0.5, 4.0)), rng.choice(("finish", "requeue", "fail")))
        at_once = rng.random() < 0.2

        def decision(state: State) -> Decision:
            job = state.jobs.get(id)
            if job is None:
                return Decision([])
            made = decide_resize.resize(state, job, decide_resize.parse_resize(text), terms, 1, realm.now, at_once=at_once)
            if not rng.random() < 0.1:  # else somebody who asks nobody whether it can be had
                for name, _, _, context in made.events:
                    if name == "resize" and context["nodes"]:
                        growing.check(state, job, context["nodes"])
            return made

        realm.root.happened["resizes asked for"] += self.say(decision)

    def _may_be_tried_again(self, id: int, spec: dict[str, Any], odds: float = 0.33) -> None:
        """A third of the jobs have a retry policy."""
        luck = random.Random(f"{self.world.seed} retry {id}")
        if luck.random() < odds:
            on = luck.choice((["any"], ["exit=1", "node-failure"], ["node-failure"], ["signal=KILL", "timeout"]))
            policy = {"limit": luck.choice((0, 1, 2, 3)), "on": on, "delay": luck.choice((0.0, 0.0, 0.05, 4.0))}
            spec["attributes"]["system"]["retry"] = policy

    def _dependency(self, nested: bool = False) -> dict[str, Any]:
        """On a job of any age, rarely on one that never was; on a time; on several of these."""
        rng = self.rng
        luck = rng.random()
        if luck < 0.1:
            return {"scheme": "begin-time", "value": f"{self.world.now + rng.choice((-1, 0.05, 0.5, 9.0)):.3f}"}
        if luck < 0.25 and not nested:
            parts = [self._dependency(True) for _ in range(rng.choice((1, 2, 3)))]
            return {"scheme": rng.choice(("any", "all")), "value": ",".join(f"{p['scheme']}:{p['value']}" for p in parts)}
        id = rng.choice(self.ids[-8:] if rng.random() < 0.7 else self.ids) + (luck > 0.98)
        schemes = ("after", "afterany", "afterany", "afterok", "afterok", "afterok", "afternotok", "afterexcept")
        return {"scheme": rng.choice(schemes), "value": str(id)}

    def meddle(self, request: Append) -> None:
        """Do something about a job that this commit names."""
        jobs = [int(thing[4:]) for thing in request.bumps if thing.startswith("job/") and thing[4:].isdecimal()]
        if not jobs:
            return
        id, now = self.rng.choice(jobs), self.world.now
        if self.rng.random() < 0.3:
            self.say(lambda state: decide.raise_exception(state, id, "cancel", 0, "", 1, now), fresh=True)
        else:
            self.say(lambda state: decide_records.memo(state, id, {"a": str(now)}, now), fresh=True)

    def poison(self) -> None:
        """Somebody who asks nobody appends well-formed events that make no sense: copies of older ones, or of his own making."""
        rng, now = self.rng, self.world.now
        entries = [] if self.world.server.down else self.world.store.read(0, 1_000_000)
        if len(entries) < 8:
            return
        event = [*rng.choice(read_commit(rng.choice(entries[3:])).events)]
        if event[0] in UNTOUCHED:
            return
        self.world.poisoned += 1
        self.say(lambda state: Decision([[event[0], event[1], now, event[3]]]), fresh=True)

    def say_again(self) -> None:
        """Somebody writes once more, and asks nobody, how an earlier attempt of a job ended where it is in a later one."""
        world, jobs = self.world, self.view.jobs
        if world.root.calm:
            return
        world.root.after(self.rng.uniform(0.0, 0.3), self.say_again)
        if world.server.down:
            return
        self.begin_anew()
        for commit in reversed([read_commit(entry) for entry in world.store.read(0, 1_000_000)]):
            for name, subject, _, context in commit.events:
                for row in context.get("over", ()) if name == "report" else ():
                    job = jobs.get(row[0])
                    if job is not None and job.attempt != row[1] and context["rank"] in job.ranks and job.holds and not job.over:
                        world.poisoned += 1
                        world.root.happened["said again"] += 1
                        self.say(lambda state, event=[name, subject, world.root.now, context]: Decision([event]))
                        return

    def _some_job(self) -> int:
        granted = [job.id for job in self.view.active() if job.granted is not None]
        if granted and self.rng.random() < 0.4:
            return self.rng.choice(granted)
        active = [job.id for job in self.view.active()]
        return self.rng.choice(active) if active else 0

    def cancel(self) -> None:
        id = self._some_job()
        self.say(lambda state: decide.raise_exception(state, id, "cancel", 0, "", 1, self.world.now))

    def signal(self) -> None:
        """To a job's tasks; or it is requeued."""
        id = self._some_job()
        luck = random.Random(f"{self.world.seed} requeue {id} {self.world.now}")
        if luck.random() < 0.5 and id in self.view.jobs:
            hold, now = luck.random() < 0.2, self.world.now
            self.say(lambda state: decide_update.requeue(state.jobs[id], "", hold, 1, now) if id in state.jobs else Decision([]))
            return
        self.say(lambda state: decide.kill(state, id, 15, 1, self.world.now))

    def change(self) -> None:
        """Urgency, hold, release, queue, name, time limit."""
        rng, id, now = self.rng, self._some_job(), self.world.now
        luck = rng.random()
        if luck < 0.4:
            urgency = rng.choice((0, 5, 16, 31))
            self.say(lambda state: decide.change_urgency(state, id, urgency, 1, now))
            return
        text = rng.choice(("queue=a", "queue=b", "duration=+1m", "duration=0.1s", "duration=+0.02s", "name=new"))
        change = [decide_update.parse_change(text)]

        def decision(state: State) -> Decision:
            job = state.jobs.get(id)
            if job is None or job.state == INACTIVE:
                return Decision([])
            if luck < 0.55:
                return decide_update.hold(job, 1, now)
            if luck < 0.7:
                return decide_update.release(job, 1, now)
            if decide_update.wait_for_node(job):
                return decide_update.recall(job, now)
            return decide_update.update(state, job, change, 1, now)

        self.say(decision)

    # -- the site -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        rank = self.rng.randrange(4)
        if self.rng.random() < 0.4:
            self.say(lambda state: decide.drain(state, [rank], "x", 2, self.world.now))
        else:
            self.say(lambda state: decide.undrain(state, [rank], "x", self.world.now, force=True))

    def queue(self) -> None:
        name = self.rng.choice(self.world.site.queues)
        verb = self.rng.choice(("stop", "start", "start", "disable", "enable", "enable"))
        self.say(lambda state: decide.change_queue(name, verb, "x", self.world.now))

    def configure(self) -> None:
        """Another config, another inventory, or a value in the KVS: whatever the site is about."""
        world = self.world
        document, inventory = world.site.another(self.rng)
        if document is not None:
            self.say(lambda state: decide_config.load(state, document, "", 1, world.now))
        elif inventory:
            self.reload(inventory)
        elif world.site.kind == "graph":
            self.regraph()
        else:
            key = self.rng.choice(("a", "b.c", "b.d"))
            self.say(lambda state: decide_kvs.commit([["put", key, str(world.now).encode()]], world.now))

    def reload(self, cores: dict[int, int]) -> bool:
        """An inventory of these ranks with so many cores each."""
        nodes = [NodeRecord(rank, f"n{rank}", mask_of(f"0-{count - 1}"), 0, 0, ()) for rank, count in cores.items()]
        tree = self.world.site.tree()
        inventory = ResourceSet(tuple(nodes), tree=to_record(tree).wire if tree is not None else None)
        return self.say(lambda state: decide_inventory.reload(state, inventory, self.world.now)[0], fresh=True)

    def regraph(self) -> None:
        """Something of the graph goes, if nobody uses it, or comes back, is set down or up, or has another property."""
        rng, now = self.rng, self.world.now
        path = rng.choice(("/cluster0/rack0/power0", "/cluster0/rack1", "/cluster0/rack1/n3/nvme", "/cluster0/licence0"))
        how = rng.randrange(5)
        if how == 0:
            self.say(lambda state: decide_graph.remove(state, [path], now)[0], fresh=True)
        elif how == 1:
            self.reload(dict.fromkeys(range(4), CORES))
        elif how == 2:
            rank, gone = rng.randrange(4), rng.random() < 0.5
            names, less = ({}, ("ssd",)) if gone else ({"ssd": ""}, ())
            self.say(lambda state: decide_graph.properties(state, [], [rank], names, less, now)[0], fresh=True)
        else:
            up = rng.random() < 0.5
            self.say(lambda state: decide_graph.status(state, [path], up=up, now=now)[0], fresh=True)

    def cron(self) -> None:
        """A new entry: an interval, or one that waits for the ends of jobs."""
        rng, now = self.rng, self.world.now
        job = {"jobspec": jobspec(), "env": "", "urgency": 16, "flags": 0, "userid": 7}
        options = {"count": rng.choice((1, 2, 3)), "no_overlap": rng.random() < 0.5,
                   "missed": rng.choice(("run", "skip")), "stop_on_failure": 0}  # fmt: skip
        if rng.random() < 0.6:
            first = now + rng.choice((0.2, 2.0))
            kind, spec = "interval", {"interval": rng.choice((0.5, 3.0)), "first": first}
        else:
            event, subject = decide_cron.find_event("job.finish")
            kind, first = "event", 0.0
            spec = {"event": event, "subject": subject, "nth": rng.choice((1, 3)), "after": 0, "min_interval": 0.0}
        self.say(lambda state: decide_cron.create(state.cron, "x", kind, spec, job, options, first, now))
