"""What must hold at the end of a seed, read off the journal, the nodes' diaries and what clients were told; nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cron_rules import CronRules
from journal_rules import Rules, ids

from fluxkv.instances.attempts import PART
from fluxkv.instances.script_orders import letter_of
from fluxkv.journal.decide_granted import TAKEN
from fluxkv.journal.job import CLEANUP, DEPEND, NEW, PRIORITY, RUN, SCHED, Job
from fluxkv.journal.resizing import growth_of, place_in_line
from fluxkv.journal.resuming import CAUSE
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit

from .queue_rules import QueueRules
from .truth import Broken, Run

if TYPE_CHECKING:
    from .realm import Realm
    from .world import World

SLACK_S = 0.001
BACKSTOP_S = 30.0  # allowance for clocks, after which an instance ends a job whose node should have done so
SKEW_S = 9.0
OVERDUE_S = 40.0  # of a calm of a minute, clocks and a driver's looks allowed for


def audit(world: Realm) -> None:
    """Raises `Broken` for whatever does not hold."""
    commits = list(world.journal.commits())
    judge(world, commits)
    whole = folds(world, commits)
    acknowledged(world, commits)
    physical(world, commits)
    given_back(world, commits)
    fenced(world, commits)
    no_leak(world, whole)
    if world is world.root:
        happened(world.root, commits)


def happened(world: World, commits: list[Commit]) -> None:
    """Count what this seed had, for who asks whether rare things happen."""
    found = world.happened
    for commit in commits:
        for name, _, _, context in commit.events:
            found[name] += 1
            if name == "exception":
                found[f"{context['type']} exceptions"] += 1
            elif name == "alloc" and "adopted" in context:
                found["adopted attempts"] += 1
            elif name == "lost" and context["cause"].startswith("node cut off: not heard"):
                found["silent and lost"] += 1
            elif name == "offline" and "heard" in context:
                found["silent"] += 1
    found["cut off"] += sum(machine.launcher.cut_off for machine in world.machines)
    found["handed over"] += world.diary.handed
    found["look-ups"] += world.lookups
    found["snapshots"] += world.snapshots
    found["full"] += world.clients.full
    found["conflicts"] += world.conflicts
    found["crashes"] += sum(process.deaths for process in world.processes())
    found["moves"] += world.moves
    found["forks"] += len(world.forks)


def judge(world: Realm, commits: list[Commit], over: bool = True) -> None:
    """Nothing is impossible. RFC 21, claims, attempts, dependencies, queues: each by rules written apart from the fold."""
    errors = [text for text in world.errors if not ("plan was broken off" in text and world.faults.on("nonsense"))]
    if errors and not world.poisoned:
        raise Broken(f"a role said: {errors[0]}")
    for commit in commits:
        for name, subject, _, context in commit.events:
            if name == "quarantine" and not world.poisoned:
                what = f"version {context['version']}: {context['event']} of {subject} is impossible: {context['reason']}"
                raise Broken(what, subject if isinstance(subject, int) else 0)
    if world.poisoned:
        return  # what somebody wrote by hand keeps no rules; the fold and the nodes must stand it all the same
    rules = Rules(world.hardware(ever=True), strict=True, pools=world.pools())
    rules.jumps = world.faults.on("jump")
    rules.commits(commits)
    cron = CronRules()
    cron.commits(commits)
    judges: list[Rules | QueueRules | CronRules] = [rules, cron]
    if world.site.kind == "queues":
        queues = QueueRules()
        queues.check_active(commits)
        judges.append(queues)
    for one in judges:
        if one.wrong:
            version, job, what = one.wrong[0]
            raise Broken(f"version {version}, job {job}: {what}", job)
    if not over:
        return
    left = {job: state for job, state in rules.state.items() if state != "INACTIVE"}
    if left:
        raise Broken(f"jobs that never ended: {left}", next(iter(left)))
    if any(rules.drawn.values()):
        raise Broken(f"draws that nobody gave back: {rules.drawn}")
    if any(rules.used.values()):
        raise Broken(f"claims that nobody gave back: {rules.used}")
    overdue = cron.overdue(world.now - OVERDUE_S)
    if overdue and not world.faults.on("jump"):
        raise Broken(f"cron answered too late: {overdue}")


def nested(realm: Realm) -> None:
    """Of all children there have been: each is another instance, and keeps the rules as long as it lived. What it has of its parent
    was looked at in every version (`handover`)."""
    if realm.depth and not realm.hopes():
        return  # all of it was lost, and what it said of those inside it
    owner: dict[str, int] = {}
    for one in realm.children:
        if not one.ready:
            continue
        uid = one.settings["uid"]
        if owner.setdefault(uid, id(one)) != id(one):
            raise Broken(f"{one.namespace}: two attempts of a job share an instance", one.place.job)
        if one.hopes():
            judge(one, list(one.journal.commits()), over=False)
        nested(one)


def folds(world: Realm, commits: list[Commit]) -> State:
    """Each worker commit has the digest of the state it was decided on; every process has the state that the journal folds to."""
    whole, digests = State(), dict[int, bytes]()
    for commit in commits:
        if "digest" in commit.extra and digests.get(commit.decided_at) != commit.extra["digest"]:
            raise Broken(f"{commit.producer}'s commit {commit.id} has the digest of another state at {commit.decided_at}")
        whole.apply(commit)
        digests[commit.version] = whole.digest()
    found = {
        **{worker.name: worker.reactor.state for worker in world.workers if worker.up},
        "snapshot and tail": world.journal.load(),
        "a reader": world.journal.look(),
        "a client": world.clients.view,
    }
    for name, state in found.items():
        same(name, state, whole)
    table = world.journal.load_cron()
    if table.value() != whole.cron.value():
        raise Broken("cron's own fold differs")
    return whole


def same(name: str, state: State, whole: State) -> None:
    if (state.version, state.epoch) == (whole.version, whole.epoch) and state.digest() == whole.digest():
        return
    ours, theirs = whole.subjects(), state.subjects()
    differing = [subject for subject in sorted({*ours, *theirs}) if ours.get(subject) != theirs.get(subject)]
    first = differing[0] if differing else "nothing but the digest"
    raise Broken(
        f"{name} is at {state.version}-{state.epoch}, the journal at {whole.version}-{whole.epoch}; {first} differs: "
        f"{theirs.get(first)} is not {ours.get(first)}",
        int(first[4:]) if first.startswith("job/") else 0,
    )


def acknowledged(world: Realm, commits: list[Commit]) -> None:
    """What was answered is in the journal, once; what a fail-over took away was noticed; what was refused is not there."""
    clients = world.clients
    by_id = {(commit.version, commit.epoch): commit for commit in commits}
    entries = {entry.version: entry for entry in world.store.read(0, 1_000_000)}
    submitted = {event[1] for commit in commits for event in commit.events if event[0] == "submit"}
    for one in clients.acknowledged:
        if (one.version, one.epoch) in by_id:
            if entries[one.version].payload != one.payload:
                raise Broken(f"version {one.version} is not what was acknowledged")
        elif not any(f"{one.version}-{one.epoch}" in fork.lost for fork in world.forks):
            raise Broken(f"version {one.version}, epoch {one.epoch}, was acknowledged and is not in the journal")
    adopted = sum(event[0] == "adopt" for commit in commits for event in commit.events)
    known = [fork for fork in world.forks if fork.witness in fork.lost]
    if known and not adopted:
        one = known[0]
        raise Broken(f"{len(one.lost)} versions after {one.kept} were lost, {one.witness} was known, and all went on in silence")
    for id in sorted(one for one in clients.refused & submitted if f"job/{one}" not in world.late):
        raise Broken(f"job {id} was refused, and is there", id)


def fenced(world: Realm, commits: list[Commit]) -> None:
    """After a restart of the server nothing is written under the epoch that was, and only its death or its host's loses a task."""
    for commit in commits:
        at = world.times[commit.id]
        for since, epoch in world.restarts:
            if at > since and commit.epoch == epoch:
                raise Broken(f"version {commit.version} was written under an epoch of before the server's restart")
        if world.forks or world.poisoned:
            continue
        for name, job, _, context in commit.events:
            if name != "lost" or context["cause"] in (TAKEN, CAUSE) or context["cause"].startswith("node cut off: not heard"):
                continue  # of these, `physical` knows better
            if not any(since <= at and context["rank"] in ranks for since, ranks in world.downs):
                raise Broken(f"job {job} is lost on rank {context['rank']}, where no launcher has died", job)


def physical(world: Realm, commits: list[Commit]) -> None:
    """What was given back ran no more; nobody ran longer than he may, or was ended for it sooner."""
    diary = world.diary
    for run in diary.running.values():
        raise Broken(f"{run.key} still runs", run.job)
    limited: dict[int, Run] = {}
    for run in diary.runs.values():
        if run.limit_s and not letter_of(run.key):
            limited.setdefault(run.job, run)
    allocated: dict[int, float] = {}
    attempt: dict[int, int] = {}  # job -> version of its attempt
    has: dict[int, set[int]] = {}  # job -> its nodes
    bounded = any(event[:2] == ["resource-update", "resource"] for commit in commits for event in commit.events)
    changed = {event[1] for commit in commits for event in commit.events if event[0] in ("jobspec-update", "resource-update")}
    for commit in commits:
        at = world.times[commit.id]
        for name, job, _, context in commit.events:
            if name == "clean":
                for run in diary.by_job.get(job, ()):
                    late = run.begun > at + SLACK_S and not letter_of(run.key)
                    if late and not confessed(world, run, commits):
                        raise Broken(f"{run.key} begins though the job is over", job)
            if name in ("alloc", "grow"):
                has[job] = {claim[0] for claim in context["claims"]} | (has.get(job, set()) if name == "grow" else set())
            if name == "free":
                ranks = ids(context["ranks"]) if context and "ranks" in context else None
                lost = world.forks and ranks is None  # a branch that is lost may have given it more nodes, which are nobody's yet
                has[job] = has.get(job, set()).difference(ranks or ())
                for run in diary.by_job.get(job, ()):
                    if lost and PART in run.key and run.rank not in has[job]:
                        continue
                    if ranks is not None and run.rank not in ranks:
                        continue
                    if run.version == attempt.get(job) and letter_of(run.key) != "h" and run.begun <= at < run.over - SLACK_S:
                        raise Broken(f"free of job {job} in version {commit.version} while {run.key} runs", job)
            elif name == "lost" and "script" not in context:
                for run in diary.by_job.get(job, ()):
                    ours = run.version == attempt.get(job) and run.rank == context["rank"] and not letter_of(run.key)
                    ours = ours and run.begun <= at  # the same node may be its again
                    if ours and run.over > at + SLACK_S:
                        raise Broken(f"job {job} is lost on rank {run.rank} in version {commit.version}: {run.key} goes on", job)
            elif name in ("grant", "alloc"):
                if "attempt" not in context:
                    attempt[job] = int(context["adopted"].partition("-")[0]) if "adopted" in context else commit.version
                allocated[job] = at
            elif name == "exception" and context["type"] == "timeout" and job in limited and job not in changed:
                run = limited[job]
                silent = at > allocated.get(job, at) + run.limit_s + BACKSTOP_S - 2 * SKEW_S  # its node may not have been heard
                ends = bounded or world.ends_at()  # with its instance, sooner
                if not (silent or ends) and not world.faults.on("jump") and at < run.begun + run.limit_s - SLACK_S:
                    raise Broken(f"job {job} is ended by its limit of {run.limit_s} s after {at - run.begun:.3f} s", job)


def given_back(world: Realm, commits: list[Commit]) -> None:
    """What an attempt has given back on a node, or lost there, it does not begin on any more, whatever it reads late."""
    entry: dict[int, str] = {}  # job -> its attempt
    over: dict[str, list[tuple[float, float, set[int] | None]]] = {}  # attempt -> (since, until, on which nodes)
    for commit in commits:
        at = world.times[commit.id]
        for name, job, _, context in commit.events:
            if name in ("grant", "alloc") and "attempt" not in context:
                entry[job] = f"{job}.{context.get('adopted') or commit.id}"
            elif name == "grow":
                back, rows = {claim[0] for claim in context["claims"]}, over.get(entry[job], [])
                rows[:] = [(row[0], min(row[1], at), row[2]) if row[2] is None or row[2] & back else row for row in rows]
            elif name == "free" or (name == "lost" and "script" not in context):
                ranks = {context["rank"]} if name == "lost" else None
                if context and "ranks" in context:
                    ranks = set(ids(context["ranks"]))
                over.setdefault(entry.get(job, ""), []).append((at, float("inf"), ranks))
    for run in world.diary.runs.values():
        if world.forks and PART in run.key:
            continue  # the branch that is lost may have given it the node again
        for since, until, ranks in over.get(run.key.rpartition(".")[0], ()):
            if since + SLACK_S < run.begun < until and (ranks is None or run.rank in ranks):
                raise Broken(f"{run.key} begins though its attempt has given back what it had there", run.job)


def confessed(world: Realm, run: Run, commits: list[Commit]) -> bool:
    """Whether a run is of an order that went with a lost branch, and was begun before its node knew that: until that node's first
    hello after the loss nothing else is placed on it, and that hello lists it, by which it is ended."""
    attempt = run.key.rpartition(".")[0]
    lost = [fork for fork in world.forks if attempt.partition(".")[2] in fork.lost]
    if not lost:
        return False
    for commit in commits:
        for name, subject, _, context in commit.events:
            if name == "hello" and subject == f"node/{run.rank}" and commit.version > lost[0].kept:
                return attempt in context.get("held", ()) and world.times[commit.id] >= run.begun
    return False


def no_leak(world: Realm, whole: State) -> None:
    """Nobody keeps anything of jobs that are over."""
    for node in whole.nodes.values():
        held = node.jobs | node.grants | node.keeping
        if held or node.used_cores:
            raise Broken(f"rank {node.rank} holds {held}")
    for machine in world.machines:
        if machine.gone:
            continue
        agent, launcher = machine.agent.reactor, machine.launcher
        kept = [*agent.placed, *agent.names, *launcher._runs, *launcher._waiting, *launcher._over]
        if kept or any(agent.rows.values()):
            raise Broken(f"{machine.agent.name} keeps {kept}", world.job_in(str(kept)))
    for worker in world.workers:
        if not (worker.up and worker.reactor.leading):
            continue
        planner, waiting = worker.reactor.planner, worker.reactor.waiting
        for name in ("said", "seats", "seat_by_job", "ahead", "parked"):
            if getattr(planner, name):
                raise Broken(f"{worker.name}'s planner keeps {name}: {getattr(planner, name)}")
        if len(planner.lines):
            raise Broken(f"{worker.name}'s line keeps jobs")
        for name in ("waiters", "on_start", "on_end", "known", "ask", "asking"):
            if getattr(waiting, name):
                raise Broken(f"{worker.name} keeps {name}: {getattr(waiting, name)}")
    left = [thing for thing in world.store._instance().guards if thing.startswith("attempt/")]
    if left:
        raise Broken(f"attempts stay guarded: {left}", world.job_in(str(left)))


def explanation(state: State, job: Job, now: float) -> str:
    """Why a job has not ended, in words, from the state alone; "" if there is no reason."""
    if job.state == NEW:
        return ""
    if job.state == DEPEND:
        return "waits for others" if job.waiting else ""
    if job.state == PRIORITY and job.requeued is not None and job.requeued[2] > now:
        return "rests before it is tried again"
    if job.state in (PRIORITY, RUN, CLEANUP):
        return ""
    if job.state == SCHED and job.priority == 0:
        return "held"
    if not state.may_start(job.queue):
        return "its queue is stopped, or gone"
    head = blocked_head(state, job)
    return f"job {head.id} comes first: {head.reason[1]}" if head is not None else ""


def blocked_head(state: State, job: Job) -> Job | None:
    """The job of this one's queue that has said why nothing goes on there (one that runs may, and want more): drained or missing
    nodes, or a limit."""
    for other in state.active():
        if (other.state != SCHED and growth_of(other) is None) or not other.reason[0]:
            continue
        before = place_in_line(other) <= place_in_line(job)
        ours, theirs = state.rules.of(job.queue), state.rules.of(other.queue)
        if before and (other is job or (ours is not None and theirs is not None and ours.line == theirs.line)):
            return other
    return None
