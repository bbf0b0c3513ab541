"""Job paths: `ƒA/ƒB` is job ƒB of the child instance that job ƒA is. Decides which instance a path leads to, from journals alone.

Steps are job ids in any form, `.N` behind one names an attempt (default: the last that made an instance), a leading slash begins at
the root instance. A child that ended is found as one that runs: each level is read from the one above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.ids import f58, parse_id
from ..journal.resizing import is_start as is_start
from ..kvs.errors import Rejected, Unavailable
from ..kvs.uri import parse_uri
from .child import child_namespace, child_number, child_space, own_number
from .whereabouts import root_of, uri_of

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from ..kvs.port import Store

MAX_DEPTH = 64


class Step(NamedTuple):
    """One job on the way. number: which attempt of it, 0 for the last that made an instance."""

    job: int
    number: int = 0

    def __str__(self) -> str:
        return f58(self.job) + (f".{self.number}" if self.number else "")


class JobPath(NamedTuple):
    """The way to an instance. rooted: from the root instance, not from where one is."""

    steps: tuple[Step, ...] = ()
    rooted: bool = False

    def __str__(self) -> str:
        return ("/" if self.rooted else "") + "/".join(map(str, self.steps))

    def __truediv__(self, other: JobPath) -> JobPath:
        return other if other.rooted else JobPath(self.steps + other.steps, self.rooted)


def parse_path(text: str) -> JobPath:
    """The path that a text is; slashes at its end do not count. Raises `Rejected` (code bad-jobid or bad-path)."""
    words = [word for word in text.strip().split("/") if word]
    if not words and not text.strip().startswith("/"):
        raise Rejected("an empty path names no instance", code="bad-path", hint="ƒA/ƒB: job ƒB of the instance that job ƒA is")
    if len(words) > MAX_DEPTH:
        raise Rejected(f"a path of {len(words)} jobs is too deep", code="bad-path")
    return JobPath(tuple(map(parse_step, words)), text.strip().startswith("/"))


def parse_step(word: str) -> Step:
    """A job id, perhaps with `.N`. Raises `Rejected(code="bad-jobid")`."""
    try:
        return Step(parse_id(word))
    except Rejected:
        id, dot, digits = word.rpartition(".")
        if not dot or not digits.isdecimal() or not 0 < len(digits) < 7 or int(digits) < 1:
            raise
        return Step(parse_id(id), int(digits))


def instance_at(uri: str, path: JobPath, open: Callable[[str], Store] | None = None, *, alive: bool = False) -> str:
    """The URI of the instance that a path leads to from the one at `uri`. alive: it is to run new work.

    Raises `Rejected(code="ended")` where it is to and cannot, `Rejected` (no-such-job, no-instance-job, no-such-attempt) or
    `Unavailable` (not-started) of the step that leads nowhere.
    """
    from ..kvs.redis_store import open_store

    found = root_of(uri) if path.rooted else uri
    for at, step in enumerate(path.steps, 1):
        store = (open or open_store)(found)
        try:
            found = child_at(store, found, step, alive=alive and at == len(path.steps))
        except Unavailable as error:
            before = _before(store, found, step) if error.code == "not-started" and not alive else ""
            if not before:
                raise
            found = before
        finally:
            store.close()
    return found


def _before(store: Store, uri: str, step: Step) -> str:
    """Of a job that has just begun, and is to go on with the instance of another one: the URI of that, as it was left; "" for any
    other. Who looks sees what there was until it has been taken up."""
    from ..journal.log import Journal
    from ..journal.resizing import start_option
    from .resume import space_of

    journal = Journal(store)
    job = journal.find_job(journal.look(), step.job)
    word = start_option(command_of(job, journal), "--resume") if job.holds and step.number in (0, job.number) else ""
    try:
        return (uri_of(store, uri, space_of(store, uri, parse_step(word)), over=True) or "") if word else ""
    except (Rejected, Unavailable):
        return ""


def child_at(store: Store, uri: str, step: Step, *, alive: bool = False) -> str:
    """The URI of the child that a job of the instance at `uri` is. Raises as `instance_at`."""
    from ..journal.log import Journal

    journal = Journal(store)
    state = journal.look()
    space = parse_uri(uri).namespace
    where = "" if space == "/" else f" in {space}"
    try:
        job = journal.find_job(state, step.job)
    except Rejected as error:
        if error.code == "no-such-job":
            hint = f"fluxkv --instance {space} jobs -a lists what was there"
            raise Rejected(f"job {f58(step.job)}: there is no such job{where}", code=error.code, hint=hint) from None
        raise
    return _child(journal, job, uri, step, alive=alive)


def _child(journal: Journal, job: Job, uri: str, step: Step, *, alive: bool = False) -> str:
    space = parse_uri(uri).namespace
    where = "" if space == "/" else f" in {space}"
    if step.number > job.number:
        raise Rejected(
            f"job {f58(job.id)}{where} has had {job.number} attempt{'' if job.number == 1 else 's'}, no attempt {step.number}",
            code="no-such-attempt", hint="leave the number away for the last one",
        )  # fmt: skip
    told, said = child_number(job, space), child_space(job, space)
    if alive and said and (not job.holds or step.number not in (0, job.number)):
        raise Rejected(
            f"job {step}{where} is over: its instance can be read, but runs nothing any more", code="ended",
            hint=f"fluxkv {typed_at(space)}batch --resume {step} goes on with it; fluxkv batch or alloc makes a new one",
        )  # fmt: skip
    number, namespace = _namespace(job, space, step)
    found = uri_of(journal.store, uri, namespace, over=not job.holds or number < job.number)
    if found is None and said and number == told:
        from .away import lost

        raise lost(journal.store, namespace)
    if found is None or not (number == told or namespace == said or _is_there(found)):
        raise _no_instance(job, number, told, space, journal)
    return found


def _namespace(job: Job, space: str, step: Step) -> tuple[int, str]:
    """Which attempt of a job a step means, and the namespace of the instance that it was, if it was one."""
    told, said, made = child_number(job, space), child_space(job, space), own_number(job, space)
    number = step.number or (job.number if job.holds else told or job.number)
    other = bool(said) and (not told or made <= number <= told)  # it went on with another job's, or an earlier attempt's
    return number, said if other else child_namespace(space, job.id, number)


def space_at(store: Store, step: Step) -> str:
    """The same namespace, whether or not what has its journal answers now. store: of the instance around."""
    from ..journal.log import Journal

    journal = Journal(store)
    return _namespace(journal.find_job(journal.look(), step.job), store.namespace, step)[1]


def typed_at(space: str) -> str:
    """What stands before a command that is about the instance with this namespace."""
    return "" if space == "/" else f"--instance {space} "


def wait_for_instance(uri: str, path: JobPath, follow: Callable[[Journal, State], Iterator[State]]) -> str:
    """As `instance_at`, once the jobs on the way have made their instances; waits on the journals in between.

    follow: the states of a journal as it grows. Raises `Rejected` for a job that will not become one.
    """
    from ..journal.log import Journal
    from ..kvs.redis_store import open_store

    found = root_of(uri) if path.rooted else uri
    for step in path.steps:
        store = open_store(found)
        try:
            try:
                found = child_at(store, found, step)
                continue
            except Unavailable as error:
                if error.code != "not-started":
                    raise
            journal = Journal(store)
            seen: object = None
            for state in follow(journal, journal.look()):
                job = state.jobs.get(step.job) or journal.find_job(state, step.job)
                if seen == (seen := (job.state, job.number, job.memo.get("uri"))):
                    continue
                try:
                    found = _child(journal, job, found, step)
                    break
                except Unavailable as error:
                    if error.code != "not-started":
                        raise
        finally:
            store.close()
    return found


def _is_there(uri: str) -> bool:
    """Whether an instance has been made there. One that has not said so yet, or could not."""
    from ..kvs.redis_store import open_store

    other = open_store(uri, patience_s=1.0)
    try:
        return bool(other.meta().version)
    except (Rejected, Unavailable) as error:
        if error.code not in ("no-instance", "gone"):
            raise
        return False
    finally:
        other.close()


def _no_instance(job: Job, number: int, told: int, space: str, journal: Journal) -> Rejected | Unavailable:
    """Why there is no instance, and what to do. space: the namespace of the one that has the job."""
    from ..journal.job import INACTIVE, NEW, PENDING

    id, at = f58(job.id), typed_at(space)
    where = "" if space == "/" else f" in {space}"
    if told and number != told:
        hint = f"{id}.{told}/ is the instance that attempt {told} was"
        if job.state == INACTIVE or number < job.number:
            return Rejected(f"attempt {number} of job {id}{where} made no instance", code="no-instance-job", hint=hint)
        return Unavailable(f"job {id}{where}: its attempt {number} has made no instance yet", code="not-started", hint=hint)
    if job.state & (PENDING | NEW):
        hint = f"fluxkv {at}explain {id} says why; fluxkv {at}uri --wait {id} waits for it"
        return Unavailable(f"job {id}{where} has not started yet: it is no instance so far", code="not-started", hint=hint)
    if is_start(command_of(job, journal)):
        if job.state == INACTIVE:
            return Rejected(
                f"job {id}{where} ended before its instance was made", code="no-instance-job",
                hint=f"fluxkv {at}explain {id} says how it ended",
            )  # fmt: skip
        return Unavailable(
            f"job {id}{where} has made no instance yet", code="not-started", hint=f"fluxkv {at}uri --wait {id} waits for it"
        )
    return Rejected(
        f"job {id}{where} ({job.name}) is no instance", code="no-instance-job",
        hint="fluxkv batch, alloc and jobs whose command is fluxkv start are; fluxkv jobs -R shows which there are",
    )  # fmt: skip


def jobspec_of(job: Job, journal: Journal | None = None) -> dict[str, Any]:
    """A job's jobspec; of one that ended as it was submitted. {} where nothing knows it. journal: where that is read."""
    jobspec = job.jobspec
    if jobspec is None and journal is not None and job.commits:
        for _, event in journal.story(job.commits[:1]):
            if event.name == "submit" and event.subject == job.id:
                jobspec = (event.context or {}).get("jobspec")
    return jobspec or {}


def command_of(job: Job, journal: Journal | None = None) -> list[str]:
    """The command of a job's first task, [] where nothing knows it. journal: where one that ended is read."""
    try:
        command = jobspec_of(job, journal)["tasks"][0]["command"]
    except (KeyError, IndexError, TypeError):
        return []
    return [str(word) for word in command] if isinstance(command, list) else [str(command)]
