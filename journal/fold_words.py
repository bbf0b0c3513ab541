"""How events about resources, nodes, queues, the user KVS and the instance change the state (RFC 44 and ours). Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import cron, fold_kvs, keeping
from .claims import from_wire
from .fold_alloc import return_grant
from .fold_config import config, set_memberships
from .fold_jobs import script_result
from .holding import missing
from .idset import ids_of_mask, mask_of
from .job import INACTIVE
from .node import Node, Queue
from .quarantine import Impossible
from .resizing import is_stale, script_on
from .retired import index_line
from .rset import NodeRecord, parse_R
from .scripts import HOUSEKEEPING, KINDS, LETTERS
from .task_exits import note_exit
from .unreadable import version_of
from .values import text
from .wire import LATEST, whole

if TYPE_CHECKING:
    from .state import State

Context = dict[str, Any]
Handler = Callable[["State", str, float, Context, int], None]


def resource_define(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    document = context.get("R")
    if document is None:
        return
    inventory = parse_R(document)
    graph = None
    if "edit" in context:  # of the graph that is there
        from .graph_events import edited
        from .resource_graph import fitting

        if state.graph is None or inventory.tree is not None:
            raise ValueError("no graph to edit")
        graph = fitting(edited(state.graph, context["edit"]), inventory)
    elif inventory.tree is not None:
        from .resource_graph import graph_of, without_tree  # what no other inventory needs

        graph, document = graph_of(inventory), without_tree(document)
    _check_in_use(state, {one.rank: one for one in inventory.nodes})
    if state.drawn and missing(state.drawn, graph):
        raise Impossible("drawn")
    state.R = document
    if graph is not None or state.graph is not None:
        state.set_graph(graph)
    before = dict(state.nodes)
    for rank in before:
        state.drop_node(rank)
    for one in inventory.nodes:
        node = before.get(one.rank)
        if node is None or node.host != one.host:
            node = Node(one.rank, one.host, 0, 0, 0, ())
        node.cores, node.gpus, node.memory_mb, node.properties = one.cores, one.gpus, one.memory_mb, tuple(one.properties)
        state.nodes[one.rank] = node
        node.note(version)
        state.dirty_words.add(one.rank)
    state.expiration = inventory.expiration
    state.dirty_words.add("instance")
    set_memberships(state)
    shut = graph.shut() if graph is not None else frozenset()
    for rank, node in state.nodes.items():
        node.shut = rank in shut


def _check_in_use(state: State, after: dict[int, NodeRecord]) -> None:
    """What a job holds stays: whoever loads an inventory guards the nodes that go or shrink."""
    for rank, node in state.nodes.items():
        one = after.get(rank)
        if node.busy and (
            one is None or one.host != node.host or node.used_cores & ~one.cores or node.used_gpus & ~one.gpus
            or node.used_memory_mb > one.memory_mb
        ):  # fmt: skip
            raise Impossible("in-use", rank)


def resource_update(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    state.expiration = float(context["expiration"])
    state.dirty_words.add("instance")


def _reason(context: Context) -> str:
    return str(context.get("reason") or "")


def _each(state: State, context: Context, version: int) -> list[Node]:
    nodes = [state.nodes[rank] for rank in ids_of_mask(mask_of(context["idset"])) if rank in state.nodes]
    for node in nodes:
        node.note(version)
        state.dirty_words.add(node.rank)
    return nodes


def drain(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    overwrite, reason = context["overwrite"], _reason(context)
    for node in _each(state, context, version):
        if node.drain is None or overwrite == 2:
            node.drain = [ts, reason]
        elif overwrite == 1:
            node.drain = [node.drain[0], reason]


def undrain(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    for node in _each(state, context, version):
        node.drain = None


def online(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    for node in _each(state, context, version):
        node.online, node.t_status, node.down = True, ts, None


def offline(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    reason, heard, fence = _reason(context), context.get("heard"), context.get("fence", 0.0)
    if not 0 <= fence <= LATEST or (heard is not None and not 0 <= heard <= LATEST):
        raise ValueError("no time")
    for node in _each(state, context, version):
        node.online, node.t_status = False, ts
        if heard is not None:
            node.down = [float(heard), reason, float(fence)]


def join(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    node = state.nodes[int(subject.partition("/")[2])]
    spool = context["spool"]
    if not isinstance(spool, str) or not spool:
        raise ValueError("no agent")
    if node.joined != spool:  # whoever served it before is another one: this one has not spoken yet
        node.online, node.t_status = False, ts
    node.joined = spool
    node.note(version)
    state.dirty_words.add(node.rank)


def hello(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    node = state.nodes.get(context["rank"])
    if node is None:
        return
    cursor = int(str(context["cursor"]).split("-")[0] or 0)
    boot, spool, epoch, held = context["boot"], context["spool"], context["epoch"], list(context["held"])
    if not (isinstance(boot, str) and isinstance(spool, str) and type(epoch) is int and all(map(_is_attempt, held))):
        raise ValueError("no hello")
    claims = dict(context.get("claims") or {})
    for name, (claim, count, since) in claims.items():
        if not _is_attempt(name) or from_wire([claim])[0].rank != node.rank or count.__class__ is not int or not since >= 0:
            raise ValueError("no claim of an attempt")
    rebooted = node.hello is not None and node.hello[0] != boot
    node.hello = [boot, spool, epoch, str(context["cursor"]), held]
    state.said_claims[node.rank] = claims
    state.said_current[node.rank] = {name for name in held if _is_current(state, name, node.rank)}
    state.dirty_words.add(node.rank)
    state.said_hello[node.rank] = rebooted or state.said_hello.get(node.rank, False)
    node.note(version)
    listed = set(held)
    # Grants live in the agent's memory only: those it no longer has, and whose message it has read, are back.
    for id in sorted(node.grants):
        job = state.jobs[id]
        if job.key not in listed and job.attempt <= cursor and not (job.seat_of or job.started or job.over):
            return_grant(state, job)
            state.touch(job, version)


def _is_current(state: State, name: str, rank: int) -> bool:
    """Whether an attempt, or a script, is what its job is at, on this node too."""
    id, _, attempt = name.partition(".")
    tasks = attempt.rstrip("".join(KINDS))
    kind = KINDS.get(attempt[len(tasks) :], "")
    job = state.jobs.get(int(id))
    if job is not None and kind and job.holds and job.key == f"{id}.{tasks}" and script_on(job, rank) == kind:
        return True
    if kind == HOUSEKEEPING:
        return (keeping := state.keeping.get(int(id))) is not None and keeping.attempt_id == tasks
    if job is not None and job.holds and rank not in job.ranks:  # as of a node that came on a branch that is lost
        return False
    return job is not None and job.key == f"{id}.{tasks}" and (not kind or (job.script is not None and job.script[0] == kind))


def fence(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """A part of the node's story. Of an attempt: what becomes of it, its next hello says. Of nodes, by an operator's word: what is
    lost by that, `lost` of their jobs says."""
    if subject == "resource":
        for _ in _each(state, context, version):
            pass
        return
    node = state.nodes.get(context["rank"])
    if node is not None:
        node.note(version)
        state.dirty_words.add(node.rank)


def _is_attempt(key: Any) -> bool:
    return isinstance(key, str) and len(key) < 200 and key.partition(".")[0].isdecimal()


def _check_end(t_start: Any, t_end: Any, status: Any, cause: Any) -> None:
    """Before anything is changed: what has another kind would stop whoever reckons with it."""
    if status.__class__ is not int or not 0 <= status <= 0xFFFF or cause.__class__ is not str:
        raise ValueError("no end of an attempt")
    if not (0 <= t_start <= LATEST and 0 <= t_end <= LATEST):
        raise ValueError("no end of an attempt")


def report(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    rank = context["rank"]
    if rank.__class__ is not int:
        raise ValueError("rank is an integer")
    jobs, node = state.jobs, state.nodes.get(rank)
    for id, attempt, t_start in context.get("start", ()):
        if not 0 <= t_start <= LATEST:
            raise ValueError("no time")
        job = jobs.get(id)
        if job is not None and job.attempt == attempt and rank not in job.started and job.state != INACTIVE:
            if not is_stale(job, rank, t_start, node):
                job.started[rank] = t_start
            state.touch(job, version)
    for id, attempt, task, status, t_end in context.get("exit", ()):
        if task.__class__ is not int or not 0 <= t_end <= LATEST:
            raise ValueError("no end of a task")
        job = jobs.get(id)
        if job is not None and job.attempt == attempt and job.state != INACTIVE:
            note_exit(job, task, status, t_end)
            state.touch(job, version)
    for id, attempt, t_start, t_end, status, cause, following in context.get("over", ()):
        _check_end(t_start, t_end, status, cause)
        if following.__class__ is not int:
            raise ValueError("a job's id is an integer")
        job = jobs.get(id)
        if job is None or job.attempt != attempt or rank in job.over or job.state == INACTIVE or is_stale(job, rank, t_start, node):
            continue  # a late or repeated report of an attempt, or a part of one, that is settled (HAZARD 9)
        if t_start:
            job.started.setdefault(rank, t_start)
        job.over[rank] = [status, t_end, cause]
        if cause == "timeout":
            job.timed_out = True
        if following:
            job.next = following
            successor = jobs.get(following)
            if successor is not None and successor.granted is not None:
                successor.seat_of = id
                state.touch(successor, version)
        state.touch(job, version)
    for id, attempt in context.get("unstarted", ()):
        job = jobs.get(id)
        if job is None or job.attempt != attempt or job.granted is None:
            continue
        if not (job.seat_of or job.started or job.over):  # what has started never comes back unstarted
            return_grant(state, job)
            state.touch(job, version)
    for id, attempt, letter, t_start, t_end, status, cause in context.get("script", ()):
        _check_end(t_start, t_end, status, cause)
        job = jobs.get(id)
        if job is not None and script_result(state, job, attempt, KINDS[letter], rank, [status, t_end, cause, t_start]):
            state.touch(job, version)
        elif letter == LETTERS[HOUSEKEEPING]:
            keeping.result(state, id, attempt, rank, [status, t_end, cause])
    for id, attempt, _ in context.get("timeout", ()):
        job = jobs.get(id)
        if job is not None and job.attempt == attempt and job.state != INACTIVE:
            job.timed_out = True
            state.touch(job, version)


def _queue(state: State, subject: str) -> Queue:
    """KeyError (so the event is skipped) for a queue that is gone: its name may have been read before it went."""
    queue = state.queues[subject.partition("/")[2]]
    state.dirty_words.add(subject)
    return queue


def queue_start(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    queue = _queue(state, subject)
    queue.started, queue.stop_reason = True, ""


def queue_stop(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    queue = _queue(state, subject)
    queue.started, queue.stop_reason = False, _reason(context)


def queue_enable(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    queue = _queue(state, subject)
    queue.enabled, queue.disable_reason = True, ""


def queue_disable(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    queue = _queue(state, subject)
    queue.enabled, queue.disable_reason = False, _reason(context)


def _of_kvs(name: str) -> Handler:
    """The handler of an event about the user's KVS, which knows nothing else of the state."""
    handler = fold_kvs.HANDLERS[name]

    def apply(state: State, subject: str, ts: float, context: Context, version: int) -> None:
        handler(state.kvs, ts, context, version)

    return apply


def instance_create(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    if "created" in state.instance:
        raise Impossible("again")
    state.instance = {**state.instance, **context, "created": ts}
    state.dirty_words.add("instance")


def instance_start(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    state.instance = {**state.instance, "started": ts, "stopped": 0.0, "stopping": 0.0}
    state.dirty_words.add("instance")


def instance_stopping(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    state.instance = {**state.instance, "stopping": ts}
    state.dirty_words.add("instance")


def instance_stop(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    state.instance = {**state.instance, "stopped": ts}
    state.dirty_words.add("instance")


def epoch(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """Agents must speak again before their nodes are used: what they hold is unknown under the new epoch."""
    for node in state.nodes.values():
        if node.hello is not None and node.hello[2] == context["new"]:
            continue  # it was quicker than this event
        node.note(version)
        node.online, node.t_status = False, ts
        state.dirty_words.add(node.rank)


def adopt(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """As after any new epoch; that something is lost is remembered."""
    first, last = context["lost"]
    if type(first) is not int or type(last) is not int:
        raise ValueError("versions are integers")
    heard = sorted(node.rank for node in state.nodes.values() if node.hello is not None)
    state.instance = {**state.instance, "adopted": [ts, first, last, heard]}
    state.dirty_words.add("instance")
    epoch(state, subject, ts, {"new": state.epoch}, version)


def resume(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """Another job than the one this instance was made for goes on with it. Nobody of those who served its nodes does any more."""
    job, number, entry = whole(context["job"]), whole(context["number"]), text(context["entry"])
    state.instance = {**state.instance, "resumed": [ts, job, number, entry], "stopping": 0.0, "stopped": 0.0}
    state.dirty_words.add("instance")
    for node in state.nodes.values():
        node.joined, node.online, node.down = "", False, None
        node.note(version)
        state.dirty_words.add(node.rank)


def said(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """Known, and changes nothing."""


def retire(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    ended = state.leave(list(dict.fromkeys(context["jobs"])))
    if ended:
        state.retirements = [*state.retirements, index_line(version, ended)]
        state.retired += len(ended)
        state.dirty_words.add("retired")


def quarantine(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    entry = version_of(subject)
    if entry:
        state.set_entry_aside(entry)
    else:
        state.answered(subject)


def _cron(name: str) -> Handler:
    def handler(state: State, subject: str, ts: float, context: Context, version: int) -> None:
        state.cron.handle(name, subject, ts, context)

    return handler


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("restart", "torpid", "lively", "lost"), said),
    "resource-define": resource_define,
    "resource-update": resource_update,
    "drain": drain,
    "undrain": undrain,
    "online": online,
    "offline": offline,
    "join": join,
    "hello": hello,
    "fence": fence,
    "report": report,
    "queue-start": queue_start,
    "queue-stop": queue_stop,
    "queue-enable": queue_enable,
    "queue-disable": queue_disable,
    **{name: _of_kvs(name) for name in fold_kvs.HANDLERS},
    "config": config,
    "instance-create": instance_create,
    "instance-start": instance_start,
    "instance-stopping": instance_stopping,
    "instance-stop": instance_stop,
    "epoch": epoch,
    "adopt": adopt,
    "resume": resume,
    "retire": retire,
    "quarantine": quarantine,
    **keeping.HANDLERS,
    **{name: _cron(name) for name in cron.HANDLERS},
}
