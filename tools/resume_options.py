"""What `--resume` of batch and alloc takes over from the job whose instance is gone on with: what was not typed anew.

Decides that (resources, time limit, queue, name), and which jobs cannot be resumed; `instances.resume` decides once more later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..journal.job import INACTIVE
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State

_SIZES = ("nodes", "nslots", "cores_per_slot", "gpus_per_slot", "memory_per_slot", "exclusive")


def jobspec_before(journal: Journal, uri: str, word: str, waits: bool, *, back: bool) -> dict[str, Any]:
    """The jobspec of the job to be resumed. word: its id, perhaps with `.N`. waits: the new one has dependencies, so that the other
    may be over by the time it begins. back: what has left the server comes back now: where the job begins, its archive may not be
    seen.

    Raises `Rejected` (no-such-job; no-instance-job for one that was no instance; alive for one that is not over).
    """
    from ..instances import away, resume
    from ..instances.job_path import command_of, is_start, jobspec_of, parse_step
    from ..journal.ids import f58

    step, state = parse_step(word), journal.look()
    job = journal.find_job(state, step.job)
    id = f58(job.id)
    if job.state != INACTIVE and step.number in (0, job.number):
        if not waits:
            raise Rejected(
                f"job {id} is not over: there is nothing to resume yet", code="alive",
                hint=f"--dependency=afterany:{id} waits for its end; fluxkv cancel {id} ends it",
            )  # fmt: skip
        if not is_start(command_of(job, journal)):
            raise Rejected(f"job {id} ({job.name}) is no instance", code="no-instance-job", hint="fluxkv batch makes one")
    else:
        space = resume.space_of(journal.store, uri, step)
        if back:
            away.bring_back(journal.store, space)
        if not waits and step.number in (0, job.number):
            _refuse_second(journal, state, job)
    return jobspec_of(job, journal)


def _refuse_second(journal: Journal, state: State, job: Job) -> None:
    """Two jobs cannot go on with one instance: who comes second would begin, and fail. Raises `Rejected(code="alive")`."""
    from ..instances.nested import journal_inside, owner_of
    from ..journal.ids import f58
    from ..kvs.errors import Unavailable

    try:
        with journal_inside(journal.store, job) as below:
            owner = owner_of(below.look()) if below is not None else None
    except Unavailable:  # what is wrong is said when it begins
        return
    other = state.jobs.get(owner.job) if owner is not None and owner.job != job.id else None
    if other is not None and other.state != INACTIVE:
        id = f58(other.id)
        raise Rejected(
            f"job {id} goes on with the instance of job {f58(job.id)} already", code="alive",
            hint=f"fluxkv jobs {id}/ shows its jobs; --dependency=afterany:{id} waits for its end; fluxkv cancel {id} ends it",
        )  # fmt: skip


def kvs_before(jobspec: Mapping[str, Any]) -> str:
    """Where the instance of a job was to live, by its command: who had it off its parent's server wants that for the rest, too."""
    from ..journal.resizing import start_option

    try:
        return start_option([str(word) for word in jobspec["tasks"][0]["command"]], "--kvs")
    except (KeyError, IndexError, TypeError):  # it is not known any more
        return ""


def as_before(jobspec: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Give a jobspec what the one before had and nobody typed."""
    before = values["before"]
    system, old = jobspec["attributes"]["system"], before.get("attributes", {}).get("system", {})
    if "resources" in before and not any(values.get(name) for name in _SIZES):
        jobspec["resources"] = before["resources"]
        jobspec["tasks"][0].update({key: before["tasks"][0][key] for key in ("slot", "count") if key in before["tasks"][0]})
    if not values.get("time_limit") and "duration" in old:
        system["duration"] = old["duration"]
    if not values.get("queue") and "queue" in old:
        system["queue"] = old["queue"]
    if not values.get("requires") and "constraints" in old:
        system["constraints"] = old["constraints"]
    if not values.get("job_name"):
        job = system.setdefault("job", {})
        if name := old.get("job", {}).get("name"):
            job["name"] = name
