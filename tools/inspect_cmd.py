"""`fluxkv inspect`: the story of a job or a node, put together from the journal. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .lazy_group import SuggestingGroup
from .reading import at_option, load, ranks_of
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.node import Node
    from ..journal.wire import Commit, Event
    from .jobview import View


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def inspect() -> None:
    """The story of a job or a node.

    \b
    Examples:
      fluxkv inspect job ƒ2UzHM        every event, who caused it, and what followed
      fluxkv inspect node node3        what runs and ran there
    """


# -- jobs ----------------------------------------------------------------------------------------------------


@inspect.command("job")
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@at_option
@target_options
def job(id: str, as_json: bool, at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Tell a job's story: each event with its time, its cause, its commit, and the state it led to.

    \b
    Examples:
      fluxkv inspect job ƒ2UzHM
      fluxkv inspect job ƒ2UzHM --at 10:30        what was known then
      fluxkv inspect job ƒ2UzHM --state-dir ~/old --json
    """
    from ..journal.ids import f58, parse_id
    from . import render
    from .depview import of_story
    from .jobfields import job_document
    from .jobview import View

    number = parse_id(id)
    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
        found = journal.find_jobs(state, [number]).get(number)
        if found is None and at:
            hint = f"it may have come later: fluxkv inspect job {f58(number)}"
            raise Rejected(f"job {f58(number)}: not there at {at}", code="no-such-job", hint=hint)
        found = found or journal.find_job(state, number)
        story = job_story(journal, found)
        view = View(state, now)
    steps = job_steps(found, story, view.hosts)
    waited = of_story(story)
    if as_json:
        render.print_json(
            {
                "job": job_document(found, view),
                "dependencies": [{"description": name, "met": met} for name, met in waited.items()],
                "attempts": attempts(story, found.id, view.hosts),
                "story": steps,
            }
        )
        return
    _show_job(found, view, steps, attempts(story, found.id, view.hosts), waited)


def job_story(journal: Journal, found: Job) -> list[tuple[Commit, Event]]:
    """Every event about a job: its own, and agents' reports that name it."""
    return [
        (commit, event)
        for commit, event in journal.story(found.commits)
        if event.subject == found.id or (event.name == "report" and _rows_about(event, found.id))
    ]


def _rows_about(event: Event, id: int) -> dict[str, list[Any]]:
    """The rows of a report that are about a job: key -> row."""
    context = event.context or {}
    return {
        key: row
        for key in ("start", "exit", "over", "unstarted", "timeout")
        for row in context.get(key) or ()
        if row[0] == id
    }


def job_steps(found: Job, story: list[tuple[Commit, Event]], hosts: dict[int, str]) -> list[dict[str, Any]]:
    """One object an event: timestamp, offset, name, by, entry, state after it, what it says, context."""
    from ..journal.job import STATE_NAMES
    from .eventview import caused_by, context_document, describe
    from .reading import user_name

    steps = []
    state = 0
    began = story[0][1].timestamp if story else 0.0
    aside = {(one.context.get("version"), one.context.get("event")) for _, one in story if one.name == "quarantine" and one.context}
    for commit, event in story:
        context = event.context or {}
        if event.name == "report":
            what = _told(event, found.id, hosts)
        else:
            if (commit.version, event.name) not in aside:  # of what was set aside nothing has happened
                state = _after(event.name, state, context)
            what = describe(event, hosts)
        by = caused_by(commit)
        if "userid" in context:
            by = f"{by} ({user_name(context['userid'])})" if by else user_name(context["userid"])
        rows = _rows_about(event, found.id) if event.name == "report" else {}
        about = {key: [row] for key, row in rows.items()} if rows else context
        steps.append({
            "timestamp": event.timestamp, "offset": round(event.timestamp - began, 6), "name": event.name,
            "by": by, "entry": commit.id, "state": STATE_NAMES.get(state, ""), "what": what,
            "context": context_document(event.name, about),
        })  # fmt: skip
    return steps


def _after(name: str, state: int, context: dict[str, Any]) -> int:
    """A job's state after an event, by RFC 21's table."""
    from ..journal.job import CLEANUP, FATAL_FROM, NEW, TRANSITIONS

    if name == "submit":
        return NEW
    if name == "exception" and context.get("severity") == 0 and state & FATAL_FROM:
        return CLEANUP
    return TRANSITIONS.get((state, name), state)


def _told(event: Event, id: int, hosts: dict[int, str]) -> str:
    """What a report says about one job."""
    from ..journal.ids import f58
    from .eventview import status_text

    host = hosts.get((event.context or {}).get("rank", -1), "a node")
    texts = []
    for key, row in _rows_about(event, id).items():
        if key == "start":
            texts.append("its tasks began")
        elif key == "over":
            took = max(0.0, row[3] - row[2]) if row[2] else 0.0
            text = (
                f"over after {took:.3f} s: {row[5] or status_text(row[4])}"
                if row[2]
                else f"over: {row[5] or status_text(row[4])}"
            )
            texts.append(text + (f"; the seat goes to {f58(row[6])}" if row[6] else ""))
        elif key == "exit":
            texts.append(f"task {row[2]} ended: {status_text(row[3])}")
        elif key == "unstarted":
            texts.append("given back, not started")
        else:
            texts.append("its time is up")
    return f"{host}: {', '.join(texts)}"


def held_after(name: str, context: dict[str, Any], claims: list[Any]) -> list[Any]:
    """What a job holds after an event that changes that."""
    from ..journal.idset import mask_of

    if name == "free":
        gone = mask_of(context["ranks"]) if context.get("ranks") else -1
        return [row for row in claims if not gone >> row[0] & 1]
    return [*(claims if name == "grow" else ()), *(context.get("claims") or ())]


def attempts(story: list[tuple[Commit, Event]], id: int, hosts: dict[int, str]) -> list[dict[str, Any]]:
    """Each attempt to run the job: its number, the version that began it, how, where, how it ended, why another followed."""
    from ..journal.retry import describe
    from .eventview import claims_text, status_text

    found: list[dict[str, Any]] = []
    number = 1
    claims: list[Any] = []
    for commit, event in story:
        context = event.context or {}
        if event.name == "requeue":
            number += 1
            if found:
                found[-1]["then"] = " ".join(describe(context).split())
        if event.name == "grant" or (event.name == "alloc" and "attempt" not in context):
            found.append(
                {"number": number, "attempt": commit.version, "by": event.name, "at": event.timestamp, "where": "", "end": ""}
            )
        if not found:
            continue
        if event.name in ("alloc", "grow") or (event.name == "free" and context.get("ranks")):
            claims = held_after(event.name, context, claims)
            found[-1]["where"] = claims_text(claims, hosts)
        elif event.name == "report" and "unstarted" in _rows_about(event, id):
            found[-1]["end"] = "given back, not started"
        elif event.name == "lost":
            found[-1]["end"] = f"lost: {context.get('cause')}"
        elif event.name == "finish":
            found[-1]["end"] = status_text(context.get("status", 0))
    return found


def _show_job(
    found: Job, view: View, steps: list[dict[str, Any]], tries: list[dict[str, Any]], waited: dict[str, bool]
) -> None:
    from ..journal.ids import f58
    from ..journal.job import INACTIVE, PENDING
    from ..journal.shown import counted
    from . import render
    from .formats import clean, fsd
    from .jobview import info, status
    from .reading import user_name

    ended = info(found, view)
    ran = fsd(round(found.runtime(view.now), 3))
    render.out(
        f"{f58(found.id)} {clean(found.name)}: {status(found)}"
        + (f" ({ended})" if ended else "")
        + (f", ran {ran}" if ran else "")
    )
    asked = [counted(found.ntasks, "task"), counted(found.ncores, "core")]
    asked += [counted(found.nnodes, "node")] if found.nnodes else []
    asked += [f"limit {fsd(found.duration)}"] if found.duration else []
    render.out(
        f"  user {user_name(found.userid)}, queue {found.queue}, urgency {found.urgency}, "
        f"priority {found.priority}"
    )
    resized = False
    for one in steps:
        resized = one["name"] in ("grow", "shrink") or (resized and one["name"] != "requeue")
    had = "asked for" if not resized else "had at last" if found.state == INACTIVE else "has now"
    render.out(f"  {had} {', '.join(asked)}")
    if waited:
        render.out("  depends on " + ", ".join(f"{name}{' (met)' if met else ''}" for name, met in waited.items()))
    if found.state & PENDING and found.annotations:
        render.out(f"  annotations {found.annotations}")
    for one in tries:
        where = f" on {one['where']}" if one["where"] else ""
        end = f": {one['end']}" if one["end"] else ""
        end += f"; {one['then']}" if "then" in one else ""
        render.out(f"  attempt {one['number']} (version {one['attempt']}, by {one['by']}){where}{end}")
    render.out("")
    rows = [
        [
            _clock(one["timestamp"]),
            f"+{one['offset']:.3f}",
            one["name"],
            one["state"],
            one["by"],
            one["entry"],
            one["what"],
        ]
        for one in steps
    ]
    render.table(["TIME", "OFFSET", "EVENT", "STATE", "BY", "ENTRY", "WHAT"], rows, right=(1,))


def _clock(t: float) -> str:
    from .eventview import precise_time

    return precise_time(t)


# -- nodes ---------------------------------------------------------------------------------------------------


@inspect.command("node")
@click.argument("node")
@click.option("--since", metavar="WHEN", help="Only what was there after WHEN (-1h, yesterday, 10:30, @SECONDS).")
@click.option("--until", metavar="WHEN", help="Only what was there before WHEN.")
@click.option("-n", "--limit", metavar="N", type=click.IntRange(0), default=20,
              help="At most N past jobs, the latest (20; 0: all).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@at_option
@target_options
def node(
    node: str, since: str | None, until: str | None, limit: int, as_json: bool, at: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Tell a node's story (a rank or a host): what it has, how it is, what runs and ran there, drains and
    hellos.

    Jobs of any age are found through their records; the journal is not folded for them.

    \b
    Examples:
      fluxkv inspect node 3
      fluxkv inspect node node3 --since yesterday --limit 100
      fluxkv inspect node node3 --at 'yesterday 17:00'
    """
    from . import render
    from .nodestory import jobs_on, node_events
    from .resourceview import node_document
    from .target import parse_moment

    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
        ranks = ranks_of(state, node)
        if len(ranks) != 1:
            raise Rejected(
                f"{node}: {len(ranks)} nodes; name one",
                code="which-node",
                hint="fluxkv resource list -v lists them",
            )
        found = state.nodes[ranks[0]]
        begin, end = (parse_moment(text, now).time if text else None for text in (since, until))
        if (since and begin is None) or (until and end is None):
            raise Rejected("--since and --until take times, not versions", code="bad-moment", hint="such as -1h or 10:30")
        if begin and end and end < begin:
            raise Rejected(f"--until {until} is before --since {since}", code="bad-moment", hint="such as --since -2d --until -1d")
        jobs = jobs_on(journal, state, found.rank, begin or 0.0, end or now, limit)
        history = node_events(journal, found, begin or 0.0, end or now)
    if as_json:
        render.print_json({"node": node_document(found), "jobs": jobs, "history": history})
        return
    _show_node(found, jobs, history, limit, now)


def _show_node(
    found: Node,
    jobs: list[dict[str, Any]],
    history: list[dict[str, Any]],
    limit: int,
    now: float,
) -> None:
    from ..journal.idset import text_of
    from . import render

    since = f" since {render.human_time(found.t_status)}" if found.t_status else ""
    up = ("its agent is up" if found.shut else "up") if found.online else "down"
    render.out(f"{found.host} (rank {found.rank}): {found.state}, {up}{since}")
    if found.drain is not None:
        render.out(
            f"  drained since {render.human_time(found.drain[0])}: {found.drain[1] or 'no reason given'}"
        )
    has = [f"cores {text_of(found.cores)}"]
    has += [f"gpus {text_of(found.gpus)}"] if found.gpus else []
    has += [f"{found.memory_mb} MB"] if found.memory_mb else []
    has += [f"properties {','.join(found.properties)}"] if found.properties else []
    free = found.cores & ~found.used_cores
    render.out(f"  has {', '.join(has)}; free cores {text_of(free) or 'none'}")
    running = [one for one in jobs if one["free"] is None]
    ended = [one for one in jobs if one["free"] is not None]
    render.out(f"\nrunning here: {len(running) or 'nothing'}")
    if running:
        rows = [
            [one["id"], one["name"], one["cores"], render.human_time(one["alloc"]), _held(one, now)]
            for one in running
        ]
        render.table(["JOBID", "NAME", "CORES", "SINCE", "HELD"], rows)
    more = f", the latest {limit} at most" if limit and len(ended) >= limit else ""
    render.out(f"\nran here: {len(ended) or 'nothing'}{more}")
    if ended:
        rows = [
            [
                one["id"],
                one["name"],
                one["cores"],
                render.human_time(one["alloc"]),
                _held(one, now),
                one["end"],
            ]
            for one in ended
        ]
        render.table(["JOBID", "NAME", "CORES", "SINCE", "HELD", "END"], rows)
    render.out("\nhistory")
    rows = [[_clock(one["timestamp"]), one["name"], one["by"], one["entry"], one["what"]] for one in history]
    render.table(["TIME", "EVENT", "BY", "ENTRY", "WHAT"], rows)


def _held(one: dict[str, Any], now: float) -> str:
    from . import render

    return render.duration_text(max(0.0, (one["free"] or now) - one["alloc"]))
