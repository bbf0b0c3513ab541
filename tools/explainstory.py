"""`fluxkv explain` of a job that runs or is over: what became of it, why it waited, its attempts. From its record and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.ids import f58
from ..journal.job import CLEANUP, INACTIVE, Job
from .explainpage import Page, clock, hosts_of, moment, span, until
from .jobview import cause, one_line
from .reading import user_name

if TYPE_CHECKING:
    from ..journal.wire import Commit, Event
    from .jobview import View

SHORT_S = 0.5  # waits shorter than this are not told one by one
SHOWN = 8


class Wait(NamedTuple):
    """A stretch of time for which a job waited, and the last that was said of why. attempt: for which one."""

    begin: float
    end: float
    why: str
    attempt: int


def waits(story: list[tuple[Commit, Event]], id: int) -> list[Wait]:
    """How long a job waited before each attempt, and for what, as journalled then. Stretches with the same reason are one."""
    found: list[Wait] = []
    since, why, attempt, waiting = 0.0, "", 1, dict[str, None]()
    held = False

    def cut(at: float, then: str) -> None:
        nonlocal since, why
        if since and (at > since):
            if found and found[-1].why == why and found[-1].attempt == attempt:
                found[-1] = found[-1]._replace(end=at)
            else:
                found.append(Wait(since, at, why, attempt))
        since, why = at, then

    for _, event in story:
        context, t = event.context or {}, event.timestamp
        if event.subject != id:
            continue
        if event.name == "submit":
            held = context.get("urgency") == 0
            cut(t, "held" if held else "in line")
        elif event.name == "dependency-add":
            waiting[str(context.get("description"))] = None
            cut(t, "dependencies: " + ", ".join(waiting))
        elif event.name == "dependency-remove":
            waiting.pop(str(context.get("description")), None)
            cut(t, "dependencies: " + ", ".join(waiting) if waiting else "held" if held else "in line")
        elif event.name == "urgency":
            held = context.get("urgency") == 0
            if since:
                cut(t, "held" if held else "in line")
        elif event.name == "reason" and since:
            cut(t, one_line(str(context.get("text", ""))))
        elif event.name == "alloc" or (event.name == "clean" and since):
            cut(t, "")
            since = 0.0
        elif event.name == "requeue":
            attempt += 1
            cut(t, "its next attempt was due")
    return found


def explain_story(job: Job, view: View, story: list[tuple[Commit, Event]]) -> tuple[dict[str, Any], Page]:
    """(document, page)."""
    from .inspect_cmd import attempts

    tries = attempts(story, job.id, view.hosts)
    waited = waits(story, job.id)
    state = "ended" if job.state == INACTIVE else "running"
    page = Page(_ended(job, view) if job.state == INACTIVE else _running(job, view))
    page.add("waited", _total(job, waited, tries))
    told = sorted((one for one in waited if one.end - one.begin >= SHORT_S), key=lambda one: one.begin - one.end)
    for one in sorted(told[:SHOWN]):  # the longest, in their order
        why = one.why.replace(f"user {job.userid} ", f"{user_name(job.userid)} ")
        page.add("", f"{clock(one.begin, view.now)} {span(one.end - one.begin):>6} {why}")
    page.add("", f"and {len(told) - SHOWN} shorter ones" if len(told) > SHOWN else "")
    _limits(page, job, view)
    resizing = _resizing(page, job, view)
    page.add("nodes", _resized(job, story))
    told_so = len(job.exceptions) == 1 and job.exception is not None  # it is the cause, which has been said
    for kind, severity, note in () if told_so else job.exceptions[:SHOWN]:
        page.add("exception", one_line(f"{kind}, severity {severity}{f': {note}' if note else ''}"))
    if len(tries) > 1 or job.requeued is not None:
        page.table("attempts", [_attempt(one, view.now) for one in tries[-SHOWN:]])
    document = {
        "state": state, "answer": page.answer, "cause": cause(job),
        "waited": [{"begin": one.begin, "end": one.end, "why": one.why, "attempt": one.attempt} for one in waited],
        "attempts": tries, **resizing,
    }  # fmt: skip
    return document, page


def _resizing(page: Page, job: Job, view: View) -> dict[str, Any]:
    """What a job that runs is to have more, or less; the same as a document."""
    from ..journal.resizing import growth_of, leaving_of, script_on, scripted

    growth, leaving = growth_of(job), leaving_of(job) if job.holds else {}
    found: dict[str, Any] = {}
    if growth is not None:
        from .explainpending import add_growth

        found["growth"] = add_growth(page, job, growth.nodes, view)
    for rank in scripted(job) if job.holds else ():
        if rank not in leaving:
            page.add("scripts", f"{script_on(job, rank)} goes on on {hosts_of(view.state, [rank])}")
    for rank, one in leaving.items():
        script = script_on(job, rank)
        when = f"when its {script} is over" if script else "is being taken" if one.forced else f"by {clock(one.force, view.now)}"
        page.add("gives back", f"{hosts_of(view.state, [rank])} {when}, jobs there: {one.jobs}")
    if leaving:
        found["leaving"] = [{"rank": rank, **one._asdict()} for rank, one in leaving.items()]
    return found


def _where(job: Job, view: View) -> str:
    return f" on {hosts_of(view.state, job.ranks)}" if job.claims else ""


def _running(job: Job, view: View) -> str:
    name, now, where = f58(job.id), view.now, _where(job, view)
    away = view.away(job)
    if job.state == CLEANUP:
        how = cause(job) or "its tasks are over"
        left = [rank for rank in job.ranks if rank not in job.over] if job.holds else []
        waits = f"; not heard yet that it is over on {hosts_of(view.state, left)}" if left else ""
        if job.script is not None and job.script[0]:
            waits = f"; its {job.script[0]} goes on"
        return f"{name} is ending{where}: {how}{waits}{away}."
    if job.script is not None and job.script[0]:
        ranks = [rank for rank in job.script[2] if rank not in job.script[3]]
        there = hosts_of(view.state, ranks)
        return f"{name} has its nodes, given {moment(job.t_alloc, now)}; its {job.script[0]} goes on on {there}."
    if not job.t_run:
        return f"{name} has been given its nodes{where} and is being started, since {moment(job.t_alloc, now)}{away}."
    ends = f", {until(job.expiration, now)}" if job.expiration else ", without a time limit"
    return f"{name} runs{where} since {moment(job.t_run, now)}{ends}{away}."


def _ended(job: Job, view: View) -> str:
    name, now = f58(job.id), view.now
    why = cause(job)
    how = {1: "succeeded", 2: "failed", 4: "was cancelled", 8: "ran out of time"}[int(job.result or 2)]
    ran = f" after {span(job.runtime(now))}{_where(job, view)}" if job.t_run else " before it began"
    tries = f", in attempt {job.number}" if job.requeued is not None else ""
    ended = moment(job.t_inactive, now)
    return f"{name} {how}{ran}{tries}{f': {why}' if why else ''}; it ended {'' if ended == 'just now' else 'at '}{ended}."


def _resized(job: Job, story: list[tuple[Commit, Event]]) -> str:
    """How many nodes an attempt began with and has, if these differ: it grew, gave some back, or lost some."""
    begun = 0
    for _, event in story:
        if event.subject == job.id and event.name == "alloc":
            begun = len({claim[0] for claim in (event.context or {}).get("claims", ())})
    now = len(set(job.ranks))
    if not begun or not now or begun == now or job.state == CLEANUP:
        return ""
    return f"{begun} at first, {now} now; fluxkv job eventlog {f58(job.id)} has each step"


def _total(job: Job, waited: list[Wait], tries: list[dict[str, Any]]) -> str:
    last = [one for one in waited if one.attempt == waited[-1].attempt] if waited else []
    if not last:
        return ""
    total = sum(one.end - one.begin for one in last)
    mine = " before this attempt" if job.requeued is not None else ""
    told = span(total) if total >= 0.0005 else "not at all"
    return f"{told}{mine}" + (", for:" if any(one.end - one.begin >= SHORT_S for one in waited) else "")


def _limits(page: Page, job: Job, view: View) -> None:
    if job.state != INACTIVE and job.expiration:
        asked = f"; it asked for {span(job.duration)}" if job.duration else "; the instance ends then"
        page.add("limit", f"{until(job.expiration, view.now)}{asked}")
    if job.state != INACTIVE and job.requeued is not None:
        page.add("attempt", f"{job.number}: {one_line(str(job.requeued[3]))}")


def _attempt(one: dict[str, Any], now: float) -> list[str]:
    end = one["end"] + (f"; {one['then']}" if "then" in one else "")
    return [str(one["number"]), clock(one["at"], now), one["where"] or "-", end or "goes on"]
