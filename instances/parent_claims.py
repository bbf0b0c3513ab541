"""A child instance's nodes: what its job has in the parent's journal, said in the child's own when that changes.

The leading keeper of a child looks when something was said of its job (`parent_limit` knows), and each second while nodes come or
leave. Decides nothing (`journal.decide_granted` does), and keeps nothing: what is left to do follows from the two journals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..journal.decide import Decision
from ..journal.ids import parse_id
from ..journal.job import RUN, Job
from ..journal.log import Journal
from ..journal.rset import NodeRecord
from ..journal.state import State
from ..kvs.errors import FluxkvError
from ..kvs.port import Store


class ParentClaims:
    """settings: the child's, as `child.make_settings` made them. busy: whether to look though nothing was said of the job: before
    the first look (somebody may have died at any line), and as long as something is under way."""

    def __init__(self, parent: Store, store: Store, settings: Mapping[str, Any]) -> None:
        self._parent, self._store = parent, store
        self._job = parse_id(settings["job"])
        self._attempt = int(settings.get("since") or 0)
        self._folded: dict[str, tuple[Journal, State]] = {}  # both journals, by namespace, as long as something is under way
        self.busy = True

    def look(self, news: bool = True, *, plain: bool = False) -> None:
        """Say what there is to say. Where a journal cannot be read or written now, or others keep changing what it is about, it is
        tried again the next time. plain: it has what it began with (`ParentLimit.is_plain`), so a parent that may be large need not
        be folded."""
        if plain or not (news or self.busy):
            return
        self.busy = True
        try:
            self._look()
        except FluxkvError:
            self._folded.clear()
        if not self.busy:
            self._folded.clear()

    def _look(self) -> None:
        from ..journal.decide_granted import Grant, follow, settled

        _, parent = self._up_to_date(self._parent)
        job = parent.jobs.get(self._job)
        if job is None or not job.holds or job.attempt != self._attempt:
            return  # its next words, or the end of the tasks that we are, settle it
        if job.state != RUN or job.exception is not None:
            return  # it ends as a whole: nodes whose tasks are over first are not lost, and their jobs are for who goes on
        nodes, leaving, claims = _granted(parent, job)
        grant = Grant(nodes, leaving, claims, parent.graph)
        journal, state = self._up_to_date(self._store)

        def decide(state: State) -> Decision:
            return follow(state, grant, journal.store.now())

        journal.settle_in(state, decide)
        journal.catch_up(state)
        self.busy = not settled(state, grant)

    def _up_to_date(self, store: Store) -> tuple[Journal, State]:
        """A journal and its state. From the second look on only what has come since is read: a parent's tail may be long."""
        found = self._folded.get(store.namespace)
        if found is not None:
            found[0].catch_up(found[1])
            return found
        journal = Journal(store, by="keeper")
        journal.patience_s = 0.0
        found = self._folded[store.namespace] = journal, journal.look()
        return found


def _granted(parent: State, job: Job) -> tuple[dict[int, NodeRecord], dict[int, Any], dict[int, Any]]:
    """By rank in the child: nodes where its tree is not over, those that are asked back, claims."""
    from ..journal.resizing import indices_of, leaving_of, script_on

    asked, indices = leaving_of(job), indices_of(job)
    nodes, leaving, claims = dict[int, NodeRecord](), dict[int, Any](), dict[int, Any]()
    for claim in job.claims:
        node = parent.nodes.get(claim.rank)
        if node is None or claim.rank in job.over or script_on(job, claim.rank):
            continue  # a prolog is still to say whether its tasks begin there, or they are over
        index = indices[claim.rank]
        kept = tuple(name for name in node.properties if not name.startswith("+"))
        nodes[index] = NodeRecord(index, node.host, claim.cores, claim.gpus, claim.memory_mb, kept)
        claims[index] = claim
        if claim.rank in asked:
            leaving[index] = asked[claim.rank]
    return nodes, leaving, claims
