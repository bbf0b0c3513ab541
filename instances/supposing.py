"""Jobs that nobody submits: what would become of them. A fold is told of them as if they had just been taken up. Pure.

The state that is given is changed, and good for questions only: its versions are in no journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..journal.claims import Claim
from ..journal.derive import priority_of
from ..journal.job import Job
from ..journal.state import State
from ..journal.urgency import DEFAULT
from ..journal.wire import Commit
from ..kvs.errors import Rejected
from ..schedulers.explain import explain
from ..schedulers.policy import Code
from ..schedulers.resources import Pool, Unmatched
from .outlook import ENDLESS, LASTING, Outlook
from .plan_inputs import check_jobspec, compiled, pool_of


class Fate(NamedTuple):
    """job: None where it would be refused at once. start: Unix seconds, None for never, or if nobody can say. claims: what it gets.

    code: as of a reason (`policy.Code`), "refused", or "ready" for who begins at once; text: why not now, "" for who does.
    possible: could it ever run here?
    """

    job: Job | None
    start: float | None
    claims: tuple[Claim, ...]
    code: str
    text: str
    possible: bool


def suppose(state: State, jobspecs: Sequence[dict[str, Any]], userid: int, now: float) -> list[Job | Rejected]:
    """Put jobs into the state, each behind those before it, at the end of their queues' lines; or what they are refused with."""
    found: list[Job | Rejected] = []
    number = max(state.jobs, default=0)
    for jobspec in jobspecs:
        number += 1
        try:
            honoured = state.rules.honour(jobspec)
            queue = state.queues.get(state.rules.queue_of(honoured).name)
            if queue is not None and not queue.enabled:
                why = f": {queue.disable_reason}" if queue.disable_reason else ""
                raise Rejected(f"queue {queue.name} takes no jobs{why}", code="queue-disabled")
            system = {k: v for k, v in (honoured["attributes"].get("system") or {}).items() if k != "dependencies"}
            honoured = {**honoured, "attributes": {**honoured["attributes"], "system": system}}
            context = {
                "urgency": DEFAULT, "userid": userid, "flags": 0, "version": 1, "jobspec": honoured, "env": "",
            }  # fmt: skip
            events = [
                ["submit", number, now, context], ["validate", number, now, None], ["depend", number, now, None],
                ["priority", number, now, {"priority": priority_of(DEFAULT)}],
            ]  # fmt: skip
            state.apply(Commit(state.version + 1, state.epoch, "", 0, state.version, now, events, {}))
            job = state.jobs[number]
            check_jobspec(job)
            compiled(state, job)
        except Rejected as error:
            found.append(error)
        else:
            found.append(job)
    return found


def fates(state: State, jobspecs: Sequence[dict[str, Any]], userid: int, now: float) -> list[Fate]:
    """What would become of jobs that are submitted now, in this order: by the queues' own policies, behind all who wait."""
    jobs = suppose(state, jobspecs, userid, now)
    outlook = Outlook(state, now, [job.id for job in jobs if isinstance(job, Job)])
    pool = pool_of(state)
    return [_refused(job) if isinstance(job, Rejected) else _fate(state, job, outlook, pool) for job in jobs]


def fits_now(state: State, jobspecs: Sequence[dict[str, Any]], userid: int, now: float) -> list[Fate]:
    """What they would get of what nobody holds at this moment, whoever waits; each after those before it."""
    pool, found = pool_of(state), list[Fate]()
    for job in suppose(state, jobspecs, userid, now):
        if isinstance(job, Rejected):
            found.append(_refused(job))
            continue
        request = compiled(state, job)
        claims = pool.match(request)
        if isinstance(claims, Unmatched):
            reason = explain(request, pool)
            found.append(Fate(job, None, (), str(reason.code), reason.text, reason.code != Code.UNSATISFIABLE))
        else:
            pool.take(claims)
            found.append(Fate(job, now, claims, str(Code.READY), "", True))
    return found


def could_run(state: State, jobspecs: Sequence[dict[str, Any]], userid: int, now: float) -> list[Fate]:
    """Whether they fit the inventory at all, with everything up and free."""
    pool, found = pool_of(state), list[Fate]()
    for job in suppose(state, jobspecs, userid, now):
        if isinstance(job, Rejected):
            found.append(_refused(job))
        elif pool.satisfiable(request := compiled(state, job)) is None:
            found.append(Fate(job, None, (), str(Code.READY), "", True))
        else:
            found.append(Fate(job, None, (), str(Code.UNSATISFIABLE), explain(request, pool).text, False))
    return found


def _refused(error: Rejected) -> Fate:
    return Fate(None, None, (), "refused", f"{error}{f' ({error.hint})' if error.hint else ''}", False)


def _fate(state: State, job: Job, outlook: Outlook, pool: Pool) -> Fate:
    reason = explain(compiled(state, job), pool)
    wait, start = outlook.wait(job), outlook.start(job)
    code, text = str(reason.code), reason.text
    if wait is not None and reason.code == Code.READY and wait.code != Code.READY:
        code, text = wait.code, wait.text
    elif reason.code == Code.READY:
        text = "it would fit now, but others come first"
    if start is not None:
        at_once = start.time <= outlook.now
        return Fate(job, start.time, start.claims, str(Code.READY) if at_once else code, "" if at_once else text, True)
    if reason.code == Code.UNSATISFIABLE:
        return Fate(job, None, (), code, text, False)
    if not state.may_start(job.queue):
        return Fate(job, None, (), "queue", f"queue {job.queue} starts nothing", True)
    why = ENDLESS if reason.code in LASTING else outlook.why_none(job)
    return Fate(job, None, (), code, f"{text}; {why}" if reason.code != Code.READY else why, True)
