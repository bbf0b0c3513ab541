"""`fluxkv resize`: more nodes for a job that runs, or fewer. Decides what is said; rules are `journal.decide_resize`'s."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from ..journal.event_check import WAYS
from ..journal.ids import f58, parse_id
from ..kvs.errors import FluxkvError, Rejected, Unavailable
from .reading import uri_option
from .render import say
from .target import open_journal

if TYPE_CHECKING:
    from ..journal.decide import Decision
    from ..journal.decide_resize import Resize, Terms
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State

SOON_S = 1.0  # how long a command that does not wait looks whether it is done at once
AT_ONCE_S = 30.0  # and one with --no-wait for the word of whoever plans


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[ID] +NN|-NN|=NN", type=click.UNPROCESSED)
@click.option("--jobs", type=click.Choice(WAYS), default="finish", show_default=True,
              help="Of jobs on nodes that leave an instance: let them end within the grace (then: requeue), requeue or fail them.")
@click.option("--grace", default="1m", show_default=True, metavar="FSD", help="How long an instance has to give them back.")
@click.option("--nodes", metavar="NODES", help="These leave (default: idle ones, then the last).")
@click.option("--wait", "-w", is_flag=True, help="Return when it has the nodes, or has given them back.")
@click.option("--no-wait", is_flag=True, help="More nodes now, or not at all.")
@click.option("-m", "--message", metavar="NOTE", default="", help="Why nodes are asked back; it stays in the job's story.")
@uri_option
def resize(
    words: tuple[str, ...], jobs: str, grace: str, nodes: str | None, wait: bool, no_wait: bool, message: str, uri: str | None
) -> int:
    """Give a job that runs more nodes, or take some back: +2N, -1N, or =4N in all.

    An instance (batch, alloc) uses more nodes as soon as they are there. They are planned like a new job of its queue: it waits
    for them in line, within the queue's limits. Nodes that it is to give back get no new jobs; what runs there ends as --jobs
    says, at the end of the grace in any case; what has not gone by then is ended. Of another job the tasks on these nodes are
    ended. The first node of a job stays. Without an ID it is the instance itself that asks, in the one around it.

    \b
    Examples:
      fluxkv resize ƒ3kQ +2N
      fluxkv resize --no-wait ƒ3kQ =4N
      fluxkv resize ƒ3kQ -1N --jobs=requeue --grace=30s
      fluxkv resize -w ƒ3kQ -1N --nodes=node1
    """
    from ..journal.decide_resize import Terms, parse_resize
    from ..journal.duration import parse_duration

    if not words or len(words) > 2:
        raise click.UsageError("say what is to change: fluxkv resize [ID] +2N, -1N or =4N")
    asked = parse_resize(words[-1])
    terms = Terms(parse_duration(grace), jobs, note=message)
    if terms.grace_s == float("inf"):
        raise click.BadParameter("it must end some day", param_hint="'--grace'")
    if asked.sign == "+" and nodes:
        raise click.UsageError("--nodes names nodes that leave; which ones come, the queue's policy says")
    ours = len(words) == 1
    uri, id = _ourselves(uri) if ours else (uri, parse_id(words[0]))
    from ..instances.paths import find_uri

    uri = find_uri(uri)
    with open_journal(uri) as journal:
        return _Resizing(journal, uri, id, asked, terms).run(nodes, ours, wait=wait, at_once=no_wait)


def _ourselves(uri: str | None) -> tuple[str, int]:
    """(URI of the parent, our job there). Raises `Rejected` for an instance that is nobody's job."""
    from ..instances.paths import find_uri
    from ..instances.whereabouts import parent_of
    from ..kvs.uri import parse_uri

    own = find_uri(uri)
    try:
        above = parent_of(own)
    except Rejected as error:
        raise Rejected(f"no job is named, and this instance is none: {error}", code=error.code,
                       hint="fluxkv resize ID +1N; fluxkv jobs lists ids") from None  # fmt: skip
    job = os.environ.get("FLUX_ENCLOSING_ID") if own == os.environ.get("FLUXKV_URI") else None
    return above, parse_id(job or parse_uri(own).namespace.rpartition("/")[2].partition(".")[0])


class _Resizing:
    """One job's change, from the request to what is said of it."""

    def __init__(self, journal: Journal, uri: str, id: int, asked: Resize, terms: Terms) -> None:
        self.uri = uri
        self.journal, self.id, self.asked, self.terms = journal, id, asked, terms
        self.state = journal.look()
        self.at_once = False

    def run(self, nodes: str | None, ours: bool, *, wait: bool, at_once: bool) -> int:
        from ..instances.changing import change_jobs
        from ..journal.decide_resize import wanted

        self.at_once = at_once
        job = self.journal.find_job(self.state, self.id)
        if self.asked.sign != "+" and job.holds and wanted(job, self.asked) < len(job.claims):
            inside = self._inside(job)
            busy = [] if inside is None else [rank for rank, node in inside.nodes.items() if node.busy]
            self.terms = self.terms._replace(busy=busy, ranks=self._named(job, nodes, ours) if nodes else ())
        outcome = change_jobs(self.journal, [self.id], self._decide, state=self.state)
        for error in outcome.refused.values():
            raise error
        self.journal.catch_up(self.state)
        return self._tell(changed=bool(outcome.changed), wait=wait)

    def _decide(self, state: State, job: Job, now: float) -> Decision:
        from ..instances.growing import check
        from ..journal.decide_resize import resize as decide

        decision = decide(state, job, self.asked, self.terms, os.getuid(), now, at_once=self.at_once)
        for name, _, _, context in decision.events:
            if name == "resize" and context["nodes"]:
                check(state, job, context["nodes"])
        return decision

    def _inside(self, job: Job) -> State | None:
        """The instance that the job is, if it can be asked."""
        if not self._child_uri(job):
            return None
        try:
            with open_journal(self._child_uri(job)) as inside:
                return inside.look()
        except FluxkvError:
            return None

    def _named(self, job: Job, nodes: str, ours: bool) -> list[int]:
        """Ranks of the nodes meant; inside an instance its own ranks are."""
        from ..journal.idset import parse
        from ..journal.resizing import index_of
        from .reading import ranks_of

        if not ours:
            return ranks_of(self.state, nodes)
        try:
            indices = set(parse(nodes.strip("[]")))
        except Rejected:
            return ranks_of(self.state, nodes)
        return [rank for rank in job.ranks if index_of(job, rank) in indices]

    # -- what is said -------------------------------------------------------------------------------------------------

    def _tell(self, *, changed: bool, wait: bool) -> int:
        name = f58(self.id)
        if not changed:
            say(f"fluxkv: {name} is as asked already: {self._has()}")
            if not wait:
                return 0
        deadline = None if wait else time.monotonic() + (AT_ONCE_S if self.at_once else SOON_S)
        if self._until_done(deadline):
            if wait:
                self._until_used()
            return self._told()
        growth, leaving = self._pending()
        if growth:
            if self.at_once:
                raise Unavailable(f"job {name}: nobody who plans has answered", code="timeout", hint="fluxkv status")
            job = self.state.jobs[self.id]
            why = f": {job.reason[1]}" if job.reason[1] else ""
            say(f"fluxkv: {name} waits for {_nodes(growth)} more{why}")
        elif leaving:
            say(f"fluxkv: {name} is to give back {self._hosts(leaving)}, within {self._left(leaving)}")
        return 0

    def _told(self) -> int:
        refused = self._refused()
        if refused is not None:
            say(f"fluxkv: {f58(self.id)} gets no more nodes: {refused}")
            return 1
        job = self.state.jobs.get(self.id)
        if job is None or not job.holds:
            say(f"fluxkv: {f58(self.id)} has ended")
            return 1
        say(f"fluxkv: {f58(self.id)} has {self._has()}")
        return 0

    def _refused(self) -> str | None:
        """Why the request was withdrawn, None if it was not."""
        for _, event in reversed(self.journal.story(self.state.jobs[self.id].commits[-4:], self.id)):
            if event.name == "resize":
                context: dict[str, Any] = event.context or {}
                return str(context.get("note")) if not context["nodes"] and context.get("note") else None
            if event.name in ("grow", "shrink"):
                return None
        return None

    def _pending(self) -> tuple[int, list[int]]:
        from ..journal.resizing import growth_of, leaving_of

        job = self.state.jobs.get(self.id)
        if job is None or not job.holds:
            return 0, []
        growth = growth_of(job)
        return growth.nodes if growth is not None else 0, list(leaving_of(job))

    def _until_done(self, deadline: float | None) -> bool:
        """Follow the journal until nothing is under way, or the time is up (False)."""
        from ..instances.follow import Tail

        tail = Tail(self.journal.store, self.state.version, f"{self.state.version}-{self.state.epoch}")
        try:
            while any(self._pending()):
                left = 1.0 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                for commit in tail.poll(min(left, 1.0))[0]:
                    if commit.version == self.state.version + 1:
                        self.state.apply(commit)
        finally:
            tail.close()
        return True

    def _until_used(self) -> None:
        """An instance that has got nodes may use them when their agents have spoken in it."""
        from ..instances.follow import Tail
        from ..journal.resizing import index_of, is_instance

        job = self.state.jobs.get(self.id)
        if job is None or not job.holds or not is_instance(job):
            return
        wanted = {index_of(job, rank) for rank in job.ranks}
        uri = self._child_uri(job)
        if not uri:
            return
        with open_journal(uri) as inside:
            state = inside.look()
            tail = Tail(inside.store, state.version, f"{state.version}-{state.epoch}")
            try:
                while not state.instance.get("stopped") and (
                    set(state.nodes) != wanted or not all(node.online for node in state.nodes.values())
                ):
                    for commit in tail.poll(1.0)[0]:
                        if commit.version == state.version + 1:
                            state.apply(commit)
                    self.journal.catch_up(self.state)
                    if (now := self.state.jobs.get(self.id)) is None or not now.holds or now.claims_wire != job.claims_wire:
                        return
            finally:
                tail.close()

    def _child_uri(self, job: Job) -> str:
        """Where the instance is that the job is, "" if it is none (yet)."""
        from ..instances.job_path import instance_at, parse_path

        try:
            return instance_at(self.uri, parse_path(f58(job.id)))
        except FluxkvError:
            return ""

    def _has(self) -> str:
        job = self.state.jobs[self.id]
        return f"{_nodes(len(job.claims))} ({self._hosts(job.ranks)})"

    def _hosts(self, ranks: list[int]) -> str:
        from ..journal.hostlist import compress

        nodes = self.state.nodes
        return compress([nodes[rank].host if rank in nodes else f"rank{rank}" for rank in sorted(ranks)])

    def _left(self, ranks: list[int]) -> str:
        from ..journal.resizing import leaving_of
        from .formats import fsd

        until = max(leaving_of(self.state.jobs[self.id])[rank].force for rank in ranks)
        return fsd(max(0.0, round(until - self.journal.store.now(), 1)))


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
