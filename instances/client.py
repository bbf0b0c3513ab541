"""The Python client: what `import fluxkv` gives to programs. Synchronous; never speaks to a daemon.

Submitting and waiting need no fold; what needs the state (cancel, urgency) folds snapshot and tail, decides
and appends, as every other process does.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..kvs.port import Store
from .client_changes import Changes
from .handle import JobHandle, JobIds, id_of, ids_of

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.rset import ResourceSet
    from ..journal.state import State
    from ..journal.wire import Event
    from .ensemble_view import EnsembleView
    from .follow import JobResult
    from .kvs_client import Kvs
    from .output import Attachment, OutputWriter
    from .submission import Command, Environment, Jobspec, Submitter
    from .views import QueueView, Resources


def connect(uri: str | None = None) -> Instance:
    """The instance at `uri` (default: FLUXKV_URI, else this user's one running instance).

    Raises `Unavailable` when there is none.
    """
    from .paths import open_instance

    return Instance(*open_instance(uri))


class Instance(Changes):
    """An instance, as a client sees it. Use it as a context manager, or `close()` it.

        import fluxkv

        with fluxkv.connect() as instance:
            ids = instance.submit_many([["sleep", "0.01"]] * 20)
            for result in instance.as_ended(ids, timeout=60):
                print(result.f58, result.result, f"{result.runtime:.3f} s")

    For one thread: it is not shared between threads (each may `connect`), nor are its handles; a forked child may go on
    using it, over a connection of its own, and a pickled one connects where it is unpickled. An `Executor` may be shared.

    by: who the journal says caused the commits.
    """

    def __init__(self, store: Store, uri: str = "", *, by: str = "client") -> None:
        self.store = store
        self.uri = uri
        self.by = by
        self._journal: Journal | None = None
        self._submitter: Submitter | None = None
        self._kvs: Kvs | None = None

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        if not self.uri:
            raise TypeError("an Instance without a URI stays in its process")
        return connect, (self.uri,)

    def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        self.store.close()

    @property
    def journal(self) -> Journal:
        """The journal (made when first asked for)."""
        if self._journal is None:
            from ..journal.cron import on_behalf_of
            from ..journal.log import Journal

            self._journal = Journal(self.store, self.by, on_behalf_of(os.environ))
        return self._journal

    @property
    def kvs(self) -> Kvs:
        """The key-value store for workflows: its primary namespace (`kvs.namespace(name)`: another)."""
        if self._kvs is None:
            from .kvs_client import Kvs

            self._kvs = Kvs(self.journal)
        return self._kvs

    # -- submitting

    def submit(
        self,
        command: Command | Jobspec,
        *,
        env: Environment | None = None,
        urgency: int = 16,
        flags: int = 0,
        key: str = "",
        **options: Any,
    ) -> JobHandle:
        """Submit one job: a command (a list of words, or one text for the shell) or a jobspec.

        options, named as the command's: nodes, ntasks, cores_per_task, gpus_per_task, memory_mb_per_task,
        exclusive, or by resource cores, tasks_per_node, tasks_per_core, gpus_per_node; duration (seconds, or
        "5m"), signal ("USR1@60s" before that), name, queue, bank, cwd, constraint (as --requires),
        dependencies (one or several, f"afterok:{job}" or RFC 26 objects), begin_time (Unix seconds or a
        datetime), output, error, input (files; templates such as {{id}}), label_io, files (name -> bytes, or a
        path that is read now), rlimit (name -> value, or rules), taskmap ("cyclic"), retry (how often),
        retry_on ("oom,exit=75"), retry_delay, shell_options and attributes (dotted name -> value). key: as --id, a job
        that has it already is the one; "key-taken" if that asked for something else. env: its environment (default:
        this process's). urgency: 0 (held) to 31. Raises `Rejected` for what can never be taken, e.g. code "queue-closed".
        """
        (id,) = self.submit_many([command], env=env, urgency=urgency, flags=flags, keys=[key], **options)
        return JobHandle(self, id)

    def submit_many(
        self,
        jobs: Iterable[Command | Jobspec],
        *,
        env: Environment | None = None,
        urgency: int = 16,
        flags: int = 0,
        keys: Iterable[str] = (),
        **options: Any,
    ) -> list[int]:
        """Submit many jobs, about a thousand in each commit; their ids in the same order.

        All or nothing only within a commit: `Rejected` may come after earlier chunks were taken. `env` and
        the options are as in `submit`, for all of them. A dependency may name an earlier job of the same call:
        "afterok:#0" the first, "afterok:#-1" each time the one before: a chain (what would lie before the first
        job is no dependency). keys: one for each ("": none), as `submit`'s.
        """
        from .submission import prepare

        shared: Environment = dict(os.environ) if env is None else dict(env)
        return self.submitter.submit((prepare(job, options, shared) for job in jobs), urgency, flags, keys)

    def submit_ensemble(
        self, command: Command, indices: Iterable[int], *, env: Environment | None = None, nodes: int | None = None,
        per_node: int = 1, total_time: float | str = 0.0, conf: Mapping[str, Any] | None = None, kvs: str = "parent",
        urgency: int = 16, flags: int = 0, key: str = "", **options: Any,
    ) -> JobHandle:  # fmt: skip
        """Submit an ensemble (`fluxkv ensemble`): one job, with a member for each index, whose number stands wherever the command
        or a text among its options has {cc}.

        options: as `submit` has them. queue, bank, constraint, dependencies and begin_time are the ensemble's, the others each
        member's; a member runs on one node. nodes: how many it is spread over (None: all that are up and can run a member).
        per_node: children on each. total_time: limit of all of it, as duration is each member's. conf: of the children, such as
        {"queue": {"policy": "easy"}}. kvs: "own" gives each child a server of its own. Raises `Rejected`, as `submit`.
        """
        from .ensemble_job import as_job

        shared = {name: value for name, value in (os.environ if env is None else env).items() if value is not None}
        jobspec, environment = as_job(
            self.state(), command, indices, shared, options, nodes=nodes, per_node=per_node, total_time=total_time, conf=conf or {},
            kvs=kvs, put=self.store.put_blobs,
        )  # fmt: skip
        return JobHandle(self, self.submitter.submit([(jobspec, environment)], urgency, flags, [key])[0])

    def ensemble(self, job: int | str | JobHandle) -> EnsembleView:
        """What becomes of an ensemble's members: how many have ended, each one's result. Use it as a context manager."""
        from .ensemble_view import EnsembleView

        return EnsembleView(self, id_of(job))

    @property
    def submitter(self) -> Submitter:
        """What submits, for jobspecs that are checked already."""
        if self._submitter is None:
            from .submission import Submitter

            self._submitter = Submitter(self.store, self.by)
        return self._submitter

    # -- watching

    def wait(self, ids: JobIds, timeout: float | None = None) -> list[JobResult]:
        """The results of these jobs, in the order asked, when all have ended.

        timeout: seconds; raises `Unavailable(code="timeout")`. Raises `Rejected` for an unknown id.
        """
        wanted = ids_of(ids)
        found = {result.id: result for result in self.as_ended(wanted, timeout)}
        return [found[id] for id in wanted]

    def as_ended(self, ids: JobIds, timeout: float | None = None) -> Iterator[JobResult]:
        """The results of these jobs in the order in which they end."""
        for batch in self.batches(ids, timeout):
            yield from batch

    def batches(self, ids: JobIds, timeout: float | None = None) -> Iterator[list[JobResult]]:
        """As `as_ended`, in lists; an empty one about once a second while nothing ends."""
        from .follow import Follower, Tail, follow_results, result_of

        deadline = None if timeout is None else time.monotonic() + timeout
        known, at = self.known(ids_of(ids), bare=True)
        ended = [result_of(job) for job in known if job.t_inactive]
        follower = Follower(job for job in known if not job.t_inactive)
        del known  # a job's record goes when it has ended
        if ended:
            yield ended
        if not follower.waiting:
            return
        tail = Tail(self.store, *at)
        try:
            yield from follow_results(tail, follower, deadline)
        finally:
            tail.close()

    def known(
        self, ids: list[int], bare: bool = False, look: Callable[[], State] | None = None
    ) -> tuple[list[Job], tuple[int, str]]:
        """Records of these jobs, and the point of the journal (version, entry id) they are of; without a fold for jobs
        submitted here. bare: of these, only what a `Follower` needs. look: gives the state, if one has been read just now.
        Raises `Rejected` for an unknown id."""
        from ..journal.job import Job
        from .follow import bare_job

        submitted = self._submitter.submitted if self._submitter is not None else {}
        if ids and all(id in submitted for id in ids):
            make = bare_job if bare else Job
            return [make(id) for id in dict.fromkeys(ids)], (min(submitted[id] for id in ids), "")
        state = (look or self.state)()
        jobs = self.journal.known_jobs(state, dict.fromkeys(ids))
        return jobs, (state.version, f"{state.version}-{state.epoch}")

    def attach(self, id: int | str | JobHandle, writer: OutputWriter, on_event: Any = None) -> Attachment:
        """A job to be followed to its end, its output written as it comes (see `output.Attachment`).

        on_event: called with (name, timestamp, context) of each of its events, the past ones first.
        """
        from .output import Attachment

        (job,), at = self.known([id_of(id)])
        if on_event is not None and job.commits:
            for _, event in self.journal.story(job.commits, job.id):
                on_event(event.name, event.timestamp, event.context or {})
        return Attachment(self.store, job, at, writer, on_event)

    def watch(
        self,
        ids: JobIds,
        writer_of: Callable[[int], OutputWriter],
        timeout: float | None = None,
    ) -> Iterator[list[JobResult]]:
        """As `batches`, writing the jobs' output to the writers that `writer_of(id)` gives."""
        from .output import watch

        deadline = None if timeout is None else time.monotonic() + timeout
        return watch(self.store, *self.known(ids_of(ids)), writer_of, deadline)

    def events(
        self, id: int | str | JobHandle | None = None, *, follow: bool = False, timeout: float | None = None
    ) -> Iterator[Event]:
        """Events of the journal from its beginning, or of one job; with `follow`, then live.

        timeout: seconds of following; raises `Unavailable(code="timeout")`.
        """
        from .event_stream import event_batches

        for batch in event_batches(self, None if id is None else id_of(id), follow, timeout):
            yield from batch

    def events_async(
        self, id: int | str | JobHandle | None = None, *, follow: bool = True, timeout: float | None = None
    ) -> AsyncIterator[Event]:
        """As `events`, for `async for` in an event loop, without a thread; follows unless told otherwise."""
        from . import aio

        return aio.events(self, None if id is None else id_of(id), follow, timeout)

    def as_ended_async(self, ids: JobIds, timeout: float | None = None) -> AsyncIterator[JobResult]:
        """As `as_ended`, for `async for`.

            import asyncio
            import fluxkv

            async def main():
                with fluxkv.connect() as instance:
                    ids = instance.submit_many([["true"]] * 5)
                    async for result in instance.as_ended_async(ids, timeout=60):
                        print(result.f58, result.result)

            asyncio.run(main())

        All that is awaited in a loop shares one subscription.
        """
        from . import aio

        return aio.as_ended(self, ids_of(ids), timeout)

    # -- asking (what changes jobs: `client_changes`)

    def state(self) -> State:
        """The live state: snapshot and tail, folded anew."""
        return self.journal.look()

    def job(self, id: int | str | JobHandle) -> Job:
        """One job's record, however long ago it ended. Raises `Rejected(code="no-such-job")`."""
        return self.journal.find_job(self.state(), id_of(id))

    def resources(self) -> Resources:
        """What there is: all, up, down, drained, free and allocated, as RFC 20 sets, and each node."""
        from .views import resources_of

        return resources_of(self.state())

    def queues(self) -> tuple[QueueView, ...]:
        """The queues, as they are now."""
        from .views import queues_of

        return queues_of(self.state())

    def job_R(self, id: int | str | JobHandle) -> ResourceSet | None:
        """What a job holds or held, as an RFC 20 set (`journal.rset.render_set` writes it); None if nothing
        was allocated."""
        from .views import job_R

        state = self.state()
        return job_R(state, self.journal.find_job(state, id_of(id)))
