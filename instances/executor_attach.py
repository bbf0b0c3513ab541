"""Futures for jobs that are there already: what has happened to them, told from the journal. Follows nothing."""

from __future__ import annotations

from ..journal.ids import f58
from ..journal.job import Job
from ..journal.log import Journal, no_such_job
from ..journal.wire import well_formed
from ..kvs.errors import Unavailable
from .calls import mark_of
from .futures import JobFuture

READ = 500


def tell_past(journal: Journal, futures: list[JobFuture]) -> tuple[list[JobFuture], int]:
    """Hand each future its job's past events; those whose jobs are active yet, and the version up to which they know all.

    Folds the state once for all of them. A future of an id that no job has fails.
    """
    state = journal.look()
    jobs = journal.find_jobs(state, [future.id for future in futures])
    known: dict[int, list[JobFuture]] = {}
    for future in futures:
        if future.id in jobs:
            known.setdefault(future.id, []).append(future)
        else:
            future.fail(no_such_job(future.id))
    versions = {version for id in known for version in jobs[id].commits if version <= state.version}
    _tell(journal, known, sorted(versions))
    return [future for some in known.values() for future in some if not _over(jobs[future.id], future)], state.version


def _tell(journal: Journal, known: dict[int, list[JobFuture]], versions: list[int]) -> None:
    for start in range(0, len(versions), READ):
        for entry in journal.history.entries(versions[start : start + READ]):
            for name, subject, timestamp, context in well_formed(journal.reader.commit(entry).events):
                for future in known.get(subject, ()):
                    if name == "submit":
                        future.folder = str(mark_of((context or {}).get("jobspec")).get("results", ""))
                    future.take(name, timestamp, context or {})


def _over(job: Job, future: JobFuture) -> bool:
    if job.t_inactive and not future.done():
        why = f"job {f58(job.id)} has ended, but the journal has its events no more"
        future.fail(Unavailable(why, code="no-history", hint="fluxkv jobs -a shows what is known of it"))
    return bool(job.t_inactive)
