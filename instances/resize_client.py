"""Asking for another size of a job that runs, and following the journals until it has it. Rules are `journal.decide_resize`'s.

One generator follows for the command, the synchronous client and asyncio: they differ in the `Tail` they give it, which waits or
does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal import decide_resize
from ..journal.decide_resize import Resize, Terms, parse_resize, several, wanted
from ..journal.duration import parse_duration
from ..journal.ids import f58, parse_id
from ..journal.job import RUN
from ..journal.node import named
from ..journal.resizing import growth_of, indices_of, is_instance, leaving_of
from ..journal.scripts import PROLOG
from ..kvs.errors import FluxkvError, Rejected
from .changing import change_jobs
from .follow import Tail, timed_out

if TYPE_CHECKING:
    from ..journal.decide import Decision
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from ..journal.wire import Commit
    from ..kvs.port import Store
    from .client_changes import Changes
    from .handle import JobHandle

LOOK_S = 1.0
MOST_READ = 256  # commits about the job that are read for how it came out


class Size(NamedTuple):
    """Of a job, at a moment. ranks, hosts: the nodes that it has, those that leave included. more: how many it waits for.
    reason: why, "" if nothing has been said yet. leaving: ranks that it is to give back, by `until` at the latest (Unix seconds,
    0.0: none)."""

    ranks: tuple[int, ...]
    hosts: tuple[str, ...]
    more: int
    reason: str
    leaving: tuple[int, ...]
    until: float

    @property
    def nodes(self) -> int:
        """How many nodes it has."""
        return len(self.ranks)

    @property
    def settled(self) -> bool:
        """Whether nothing is under way."""
        return not self.more and not self.leaving


def resize(
    instance: Changes, change: str, job: int | str | JobHandle | None, *, grace: float | str, jobs: str,
    nodes: str | Iterable[int], at_once: bool, note: str,
) -> Resizing:  # fmt: skip
    """See `Instance.resize`."""
    from .handle import id_of

    asked, terms = parse_resize(change), terms_of(grace, jobs, note)
    if job is not None:
        return Resizing(instance.journal, instance.uri, id_of(job)).ask(asked, terms, nodes, at_once=at_once)
    uri, id = ourselves(instance.uri)
    from ..journal.cron import on_behalf_of
    from ..journal.log import Journal
    from ..kvs.redis_store import open_store

    with closing(open_store(uri)) as store:  # the next call makes another connection
        return Resizing(Journal(store, instance.by, on_behalf_of(os.environ)), uri, id, inside=True).ask(
            asked, terms, nodes, at_once=at_once
        )


def terms_of(grace: float | str, jobs: str, note: str) -> Terms:
    """On what terms nodes leave. Raises `Rejected`."""
    seconds = parse_duration(grace)
    if seconds == float("inf"):
        raise Rejected("the grace must end some day", code="bad-resize", hint="grace: 60, or 5m")
    return Terms(seconds, jobs, note=note)


def ourselves(own: str) -> tuple[str, int]:
    """(URI of the instance around the one at `own`, the job that this is there). Raises `Rejected` for one that is nobody's job."""
    from ..kvs.uri import parse_uri
    from .whereabouts import parent_of

    try:
        above = parent_of(own)
    except Rejected as error:
        raise Rejected(f"no job is named, and this instance is none: {error}", code=error.code,
                       hint="name the job that is to: fluxkv resize ID +1N; fluxkv jobs lists ids") from None  # fmt: skip
    job = os.environ.get("FLUX_ENCLOSING_ID") if own == os.environ.get("FLUXKV_URI") else None
    return above, parse_id(job or parse_uri(own).namespace.rpartition("/")[2].partition(".")[0])


class Resizing:
    """A change of a job's size that was asked for.

    changed: False if it was as asked already. inside: it is the instance itself that asked, so that `nodes` are its own ranks.
    lets_go: its connection is nobody else's, and is closed behind each call (the next one makes another).
    """

    def __init__(self, journal: Journal, uri: str, id: int, *, inside: bool = False) -> None:
        self.journal, self.uri, self.id, self.inside = journal, uri, id, inside
        self.state = journal.look()
        self.since = self.state.version  # what came later is about what was asked for, or newer
        self.changed = self.at_once = False
        self.lets_go = inside

    # -- asking

    def ask(self, asked: Resize, terms: Terms, nodes: str | Iterable[int] = "", *, at_once: bool = False) -> Resizing:
        """Have it in the journal. Raises `Rejected`."""
        self.since = self.state.version
        job = self.journal.find_job(self.state, self.id)
        if nodes and asked.sign == "+":
            raise Rejected("nodes are named that are to leave: which ones come, the queue's policy says", code="bad-resize")
        if job.holds and asked.sign != "+" and wanted(job, asked) < len(job.claims):
            inside = self._inside(job)
            busy = [] if inside is None else [rank for rank, node in inside.nodes.items() if node.busy]
            terms = terms._replace(busy=busy, ranks=self._named(job, nodes))
        self.at_once = at_once

        def decide(state: State, job: Job, now: float) -> Decision:
            from .growing import check

            decision = decide_resize.resize(state, job, asked, terms, os.getuid(), now, at_once=at_once)
            for name, _, _, context in decision.events:
                if name == "resize" and context["nodes"]:
                    check(state, job, context["nodes"])
            return decision

        outcome = change_jobs(self.journal, [self.id], decide, state=self.state)
        for error in outcome.refused.values():
            raise error
        self.changed = bool(outcome.changed)
        self.journal.catch_up(self.state)
        return self

    def _inside(self, job: Job) -> State | None:
        """The instance that the job is, if it can be asked."""
        try:
            with closing(self._child(job)) as store:
                return _journal(store).look()
        except FluxkvError:
            return None

    def _child(self, job: Job) -> Store:
        """A store of the instance that the job is. Raises `FluxkvError` if it is none (yet)."""
        from ..kvs.redis_store import open_store
        from .job_path import instance_at, parse_path

        return open_store(instance_at(self.uri, parse_path(f58(job.id))))

    def _named(self, job: Job, nodes: str | Iterable[int]) -> Sequence[int]:
        """Ranks of the nodes meant; inside an instance its own ranks are."""
        if not nodes:
            return ()
        if not isinstance(nodes, str):
            wanted = list(nodes)
        elif self.inside:
            from ..journal.idset import parse

            try:
                wanted = list(parse(nodes.strip("[]")))
            except Rejected:
                return named(self.state.nodes, nodes)
        else:
            return named(self.state.nodes, nodes)
        if not self.inside:
            return wanted
        own = {index: rank for rank, index in indices_of(job).items()}
        for index in wanted:
            if index not in own:
                raise Rejected(f"rank {index}: no such node in this instance", code="no-such-node",
                               hint=f"its ranks are {', '.join(map(str, sorted(own)))}")  # fmt: skip
        return [own[index] for index in wanted]

    # -- looking

    def size(self) -> Size:
        """What the job has now. Raises `Rejected` (code not-running) if it has ended."""
        self.journal.catch_up(self.state)
        self._let_go()
        return self.known()

    def known(self) -> Size:
        """The same, as of the last look."""
        job = self.state.jobs.get(self.id)
        if job is None or not job.holds:
            raise Rejected(f"job {f58(self.id)} has ended", code="not-running")
        growth, leaving, nodes = growth_of(job), leaving_of(job), self.state.nodes
        return Size(
            tuple(job.ranks), tuple(nodes[rank].host if rank in nodes else f"rank{rank}" for rank in job.ranks),
            growth.nodes if growth is not None else 0, job.reason[1] if growth is not None else "", tuple(leaving),
            max((one.force for one in leaving.values()), default=0.0),
        )  # fmt: skip

    # -- waiting

    def wait(self, timeout: float | None = None) -> Size:
        """When it has the nodes and, if it is an instance, may use them, or has given them back: its size then.

        timeout: seconds; raises `Unavailable(code="timeout")`, and what was asked for stands: another `resize` takes it back.
        Raises `Rejected`: code "no-nodes" if more were refused, "not-running" if the job ended.
        """
        if not self.follow(None if timeout is None else time.monotonic() + timeout):
            raise self._too_late()
        return self.told()

    async def wait_async(self, timeout: float | None = None) -> Size:
        """As `wait`, in an event loop, without a thread."""
        from . import aio

        if not await aio.drive(self.steps, None if timeout is None else time.monotonic() + timeout):
            raise self._too_late()
        return self.told()

    def follow(self, deadline: float | None, *, used: bool = True) -> bool:
        """Wait until nothing is under way; False if the time (of the monotonic clock) is up first."""
        steps = self.steps(deadline, used=used)
        for _ in steps:
            if deadline is not None and time.monotonic() >= deadline:
                steps.close()
                return False
        return True

    def told(self) -> Size:
        """How it came out, as of the last look. Raises as `wait`."""
        size = self.known()
        try:
            why = self._refused()
        finally:
            self._let_go()
        if why:
            hint = "without at_once (--no-wait) it waits in line until they are free" if self.at_once else ""
            raise Rejected(f"job {f58(self.id)} gets no more nodes: {why}", code="no-nodes", hint=hint)
        return size

    def _refused(self) -> str:
        """Why the request for more was withdrawn, or what came did not stay; "" if all is well."""
        commits = [version for version in self.state.jobs[self.id].commits[-MOST_READ:] if version > self.since]
        for _, event in reversed(self.journal.story(commits, self.id)):
            context: dict[str, Any] = event.context or {}
            if event.name == "resize":
                return str(context.get("note") or "") if not context["nodes"] else ""
            if event.name == "exception" and context.get("type") == PROLOG and context.get("severity"):
                return str(context.get("note") or "")
            if event.name in ("grow", "shrink"):
                break
        return ""

    def _too_late(self) -> FluxkvError:
        size = self.known()
        what = f"waits for {several(size.more)} more" if size.more else f"has {several(size.nodes)}"
        what += f": {size.reason}" if size.reason else ""
        if size.leaving:
            what += f", of which {several(len(size.leaving))} {'is' if len(size.leaving) == 1 else 'are'} to leave"
        error = timed_out(f"job {f58(self.id)} {what}")
        error.hint = "what was asked for stands; another resize changes it"
        return error

    def steps(
        self, deadline: float | None, tail_of: Callable[..., Tail] = Tail, *, used: bool = True
    ) -> Generator[None, None, None]:
        """One look after the other, of a second at most, until nothing is under way and (used) an instance may use what it has."""

        def left() -> float:
            return LOOK_S if deadline is None else max(0.0, min(LOOK_S, deadline - time.monotonic()))

        try:
            tail = tail_of(self.journal.store, self.state.version, f"{self.state.version}-{self.state.epoch}")
            try:
                while (job := self.state.jobs.get(self.id)) is not None and job.holds and not self.known().settled:
                    _take(self.state, tail.poll(left())[0])
                    yield
            finally:
                tail.close()
            if used and job is not None and job.state == RUN and job.holds and is_instance(job):
                yield from self._until_used(job, left, tail_of)
        finally:
            self._let_go()

    def _until_used(self, job: Job, left: Callable[[], float], tail_of: Callable[..., Tail]) -> Generator[None, None, None]:
        """An instance that has got nodes may use them when their agents have spoken in it."""
        claims = job.claims_wire
        ours = set(indices_of(job).values())
        try:
            store = self._child(job)
        except FluxkvError:  # it has not begun yet, and begins with what it has
            return
        with closing(store):
            state = _journal(store).look()
            tail = tail_of(store, state.version, f"{state.version}-{state.epoch}")
            try:
                while not state.instance.get("stopped") and not (
                    state.nodes.keys() == ours and all(node.online for node in state.nodes.values())
                ):
                    _take(state, tail.poll(left())[0])
                    yield
                    self.journal.catch_up(self.state)
                    if (now := self.state.jobs.get(self.id)) is None or not now.holds or now.claims_wire != claims:
                        return
            finally:
                tail.close()

    def _let_go(self) -> None:
        if self.lets_go:
            self.journal.store.close()


def _journal(store: Store) -> Journal:
    from ..journal.log import Journal

    return Journal(store)


def _take(state: State, commits: Iterable[Commit]) -> None:
    for commit in commits:
        if commit.version == state.version + 1:
            state.apply(commit)
