"""`fluxkv job timeleft|taskmap|hostpids|last|stats`: what else is to be known of a job. Decides what is printed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58, parse_id
from ..kvs.errors import FluxkvError, Rejected, Unavailable
from .options import timeout_of
from .render import out
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from ..journal.taskmap import TaskMap

NO_LIMIT = 4294967295  # Flux's word for it: UINT_MAX
_SLICE = re.compile(r"\[(-?[0-9]*):(-?[0-9]*)(?::(-?[0-9]+))?\]")


@click.command()
@click.argument("id", required=False)
@click.option("-H", "--human", is_flag=True, help="As a duration, such as 1.5h.")
@target_options
def timeleft(id: str | None, human: bool, uri: str | None, state_dir: str | None) -> int:
    """Print the whole seconds a job has left (default: the job this runs in, or that this instance is).

    0 when it is over, 4294967295 when it has no limit; an error while it is pending.

    \b
    Examples:
      fluxkv job timeleft ƒ3kQ
      fluxkv job timeleft -H ƒ3kQ
      fluxkv run -t 5m fluxkv job timeleft
    """
    from ..journal.job import NEW, PENDING, RUN
    from .formats import fsd

    text = id or os.environ.get("FLUX_JOB_ID", "")
    with open_journal(uri, state_dir) as journal:
        state, now = journal.look(), journal.store.now()
        end, runs = state.expiration, True
        if text:
            job = journal.find_job(state, parse_id(text))
            if job.state & (PENDING | NEW):
                raise Rejected(f"job {f58(job.id)}: has not started", code="pending", hint="it has all its time")
            end, runs = job.expiration or state.expiration, job.state == RUN
        elif not state.instance.get("parent"):
            raise FluxkvError("this is not inside a job", code="no-job", hint="name one: fluxkv job timeleft ID")
    left = (max(0.0, end - now) if end else float(NO_LIMIT)) if runs else 0.0
    if human:
        out("infinity" if left == NO_LIMIT else fsd(float(int(left))) or "0s")
    else:
        out(str(int(left)))
    return 0


# -- tasks -------------------------------------------------------------------------------------------------------


def map_of(journal: Journal, state: State, job: Job) -> tuple[TaskMap, list[str]]:
    """(where each task of a job runs or ran, the hosts of its nodes by node id). Raises `Unavailable` without resources."""
    from ..instances.layout import counts_of, layout
    from ..schedulers.request import compile_request
    from .jobview import View

    if not job.claims:
        id = f58(job.id)
        raise Unavailable(f"job {id}: has no resources (yet)", code="no-R", hint=f"fluxkv job wait-event {id} start waits for them")
    view = View(state, 0.0, journal)
    jobspec = view.jobspec(job)
    if not jobspec:
        raise Rejected(f"job {f58(job.id)}: its jobspec is no more in the journal", code="archived")
    hosts = [view.hosts.get(claim.rank, f"rank{claim.rank}") for claim in job.claims]
    return layout(jobspec, counts_of(jobspec, compile_request(jobspec), job.claims), hosts), hosts


@click.command()
@click.argument("what", metavar="ID|TASKMAP")
@click.option("--taskids", metavar="NODEID", type=click.IntRange(0), help="The tasks on this node of the job.")
@click.option("--ntasks", metavar="NODEID", type=click.IntRange(0), help="How many tasks are on this node.")
@click.option("--nodeid", metavar="TASKID", type=click.IntRange(0), help="The node that this task is on.")
@click.option("--hostname", metavar="TASKID", type=click.IntRange(0), help="The host that this task is on.")
@click.option("--to", "form", type=click.Choice(["raw", "pmi", "multiline", "hosts"]), help="Another form (RFC 34).")
@target_options
def taskmap(
    what: str, taskids: int | None, ntasks: int | None, nodeid: int | None, hostname: int | None, form: str | None,
    uri: str | None, state_dir: str | None,
) -> int:  # fmt: skip
    """Print which tasks of a job run on which of its nodes (RFC 34), or convert a task map.

    \b
    Examples:
      fluxkv job taskmap ƒ3kQ
      fluxkv job taskmap --hostname=0 ƒ3kQ
      fluxkv job taskmap --to=raw '[[0,2,2,1]]'
    """
    from ..journal.idset import format_ids
    from ..journal.taskmap import node_of_ranks, ranks_of_nodes

    asked = [one for one in (taskids, ntasks, nodeid, hostname, form) if one is not None]
    if len(asked) > 1:
        raise click.UsageError("only one of --taskids, --ntasks, --nodeid, --hostname and --to can be given")
    found, hosts = _map_named(what, uri, state_dir)
    if nodeid is not None or hostname is not None:
        task = nodeid if nodeid is not None else hostname
        nodes = node_of_ranks(found)
        if task is None or task >= len(nodes):
            raise Rejected(f"there is no task {task}: the map has {len(nodes)}", code="no-such-task")
        if hostname is not None:
            out(_host(hosts, nodes[task]))
        else:
            out(str(nodes[task]))
    elif taskids is not None or ntasks is not None:
        node = taskids if taskids is not None else ntasks
        ranks = ranks_of_nodes(found)
        if node is None or node >= len(ranks):
            raise Rejected(f"there is no node {node}: the map has {len(ranks)}", code="no-such-node")
        out(format_ids(ranks[node]) if taskids is not None else str(len(ranks[node])))
    else:
        out(_in_form(found, hosts, form))
    return 0


def _map_named(what: str, uri: str | None, state_dir: str | None) -> tuple[TaskMap, list[str]]:
    """The map that a text is, or that of the job it names."""
    from ..journal.taskmap import from_raw, parse_map

    if what[:1] in ("[", "{", "("):
        return parse_map(what), []
    try:
        number = parse_id(what)
    except Rejected:
        if set(what) <= set("0123456789,-;"):
            return from_raw(what), []
        raise
    if ";" in what or "," in what:
        return from_raw(what), []
    with open_journal(uri, state_dir) as journal:
        state = journal.look()
        return map_of(journal, state, journal.find_job(state, number))


def _host(hosts: list[str], node: int) -> str:
    if node >= len(hosts):
        raise Rejected("a task map alone does not name hosts", code="bad-option", hint="name the job instead")
    return hosts[node]


def _in_form(found: TaskMap, hosts: list[str], form: str | None) -> str:
    from ..journal.idset import format_ids
    from ..journal.taskmap import node_of_ranks, ranks_of_nodes, to_pmi, to_raw

    if form == "raw":
        return to_raw(found)
    if form == "pmi":
        return to_pmi(found)
    if form == "multiline":
        return "\n".join(f"{task}: {node}" for task, node in enumerate(node_of_ranks(found)))
    if form == "hosts":
        ranks = ranks_of_nodes(found)
        return "\n".join(f"{_host(hosts, node)}: {format_ids(some)}" for node, some in enumerate(ranks) if some)
    from .render import json_text

    return json_text([list(block) for block in found])


@click.command()
@click.argument("id")
@click.option("-d", "--delimiter", default=",", metavar="TEXT", help="What stands between (default a comma).")
@click.option("-r", "--ranks", metavar="IDSET", help="Only these tasks.")
@click.option("-t", "--timeout", metavar="FSD", help="How long to wait at most: 30s, 5m.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def hostpids(id: str, delimiter: str, ranks: str | None, timeout: str | None, uri: str | None) -> int:
    """Print HOST:PID of each task of a running job, in the order of its tasks; waits until it runs.

    \b
    Examples:
      fluxkv job hostpids ƒ3kQ
      fluxkv job hostpids -r 0 ƒ3kQ
    """
    from ..instances.client import connect
    from ..instances.task_pids import task_pids
    from ..journal.idset import parse
    from ..journal.taskmap import ranks_of_nodes

    number = parse_id(id)
    with connect(uri) as instance:
        journal = instance.journal
        state = journal.look()
        job = journal.find_job(state, number)
        if not job.t_run and not job.t_inactive:
            for event in instance.events(number, follow=True, timeout=timeout_of(timeout)):
                if event.name == "start":
                    break
            state = journal.look()
            job = journal.find_job(state, number)
        if job.t_finish or job.t_inactive or not job.t_run:
            raise Rejected(f"job {f58(number)}: is not running", code="not-running", hint="fluxkv jobs lists what is")
        found, hosts = map_of(journal, state, job)
        pids = task_pids(instance.uri, job)
        by_task: dict[int, str] = {}
        for node, tasks in enumerate(ranks_of_nodes(found)):
            here = pids.get(job.claims[node].rank, [])
            by_task.update({task: f"{hosts[node]}:{pid}" for task, pid in zip(tasks, here, strict=False)})
    wanted = list(parse(ranks)) if ranks else list(range(len(by_task)))
    missing = [task for task in wanted if task not in by_task]
    if missing or not by_task:
        raise Unavailable(
            f"job {f58(number)}: no process of task {missing[0] if missing else 0} is known on this host",
            code="no-pids", hint="it may have just ended, or only pretends to run",
        )  # fmt: skip
    out(delimiter.join(by_task[task] for task in wanted))
    return 0


# -- which jobs there are ----------------------------------------------------------------------------------------


@click.command()
@click.argument("which", default="1", metavar="[N|SLICE]")
@target_options
def last(which: str, uri: str | None, state_dir: str | None) -> int:
    """Print the ids of your jobs submitted last, newest first: N of them (default one), or a Python slice.

    \b
    Examples:
      fluxkv job last
      fluxkv job attach $(fluxkv job last)
      fluxkv job last 3
      fluxkv job last '[:]'
      fluxkv job last '[1:4]'
    """
    found = _SLICE.fullmatch(which)
    if found is None and not (which.isdecimal() and int(which) > 0):
        raise click.UsageError(f"{which!r} is no number above 0 and no slice such as [0:4]")
    with open_journal(uri, state_dir) as journal:
        me = os.getuid()
        cut = _as_slice(found) if found is not None else slice(0, int(which))
        reads_all = cut.stop is None or cut.stop < 0 or (cut.start or 0) < 0 or (cut.step or 1) < 0
        count = 0 if reads_all else cut.stop
        mine = journal.last_submitted(journal.look(), count, lambda job: job.userid == me)
    if not mine:
        raise FluxkvError("no job was submitted yet", code="no-job", hint="fluxkv submit COMMAND submits one")
    for one in mine[cut]:
        out(f58(one.id))
    return 0


def _as_slice(found: re.Match[str]) -> slice:
    start, stop, step = (int(text) if text else None for text in found.groups())
    if step == 0:
        raise click.UsageError("the step of a slice cannot be 0")
    return slice(start, stop, step)


@click.command()
@target_options
def stats(uri: str | None, state_dir: str | None) -> int:
    """Print how many jobs are in which state and how many ever ended with which result, as JSON, by queue too.

    \b
    Examples:
      fluxkv job stats
    """
    from ..journal.job import STATE_NAMES
    from .render import print_json

    with open_journal(uri, state_dir) as journal:
        state = journal.look()
    by_queue: dict[str, dict[str, Any]] = {name: _counts(state.ended(name)) for name in sorted({*state.queues, *state.results})}
    for job in state.active():
        states = by_queue[job.queue]["job_states"] if job.queue in by_queue else {}
        name = STATE_NAMES[job.state].lower()
        states[name] = states.get(name, 0) + 1
    inactive = state.counts.get(64, 0)
    states = {name.lower(): state.counts.get(number, 0) for number, name in STATE_NAMES.items()}
    print_json({
        **_counts(state.ended()), "job_states": {**states, "total": sum(states.values())},
        "inactive_purged": sum(state.ended().values()) - inactive,
        "queues": [{"name": name, **one} for name, one in by_queue.items()],
    })  # fmt: skip
    return 0


def _counts(ended: dict[Any, int]) -> dict[str, Any]:
    """Flux's words: successful, and failed with canceled and timeout among them."""
    names = {result.name.lower(): number for result, number in ended.items()}
    good = names.pop("completed")
    bad = sum(names.values())
    return {"job_states": {}, "successful": good, **names, "failed": bad}
