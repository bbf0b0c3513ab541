"""`fluxkv explain`: why a job waits, what became of it, who has a node. One sentence, then the evidence. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .reading import at_option, load, ranks_of
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from .explainpage import Page

SOME = 3  # paths that are shown of vertices of one name
MANY = 8  # nodes that are told one by one; of more, a line each
Told = tuple[dict[str, Any], "Page"]


@click.command()
@click.argument("what", nargs=-1, metavar="ID|NODE|PATH...")
@click.option("--node", "nodes", metavar="TARGETS", help="Nodes by rank or host (an idset or a hostlist).")
@click.option("--json", "as_json", is_flag=True, help="JSON: an object for one job or node, else a list.")
@at_option
@target_options
def explain(
    what: tuple[str, ...], nodes: str | None, as_json: bool, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """Say why a job waits, or what became of it, and who has a node: one sentence, then what it rests on.

    Of a job that waits: what is short, who holds it and until when, who comes first, when and where it is expected to begin.
    Of one that runs or is over: how it ended, how long it waited and for what, its attempts. Of a node: who has it, who is
    next, why it is out of use; a vertex of the graph of resources is named by its path. A start is an estimate: each job
    takes all of its time limit, nobody comes.

    \b
    Examples:
      fluxkv explain ƒ3kQ                      why does it not run?
      fluxkv explain ƒ3kQ --at 'yesterday 17:00'   and why did it not run then?
      fluxkv explain node3                     who has it, until when, who is next
      fluxkv explain --node 0-3
      fluxkv explain ƒ3kQ --state-dir ~/old --json
    """
    from . import render
    from .explainpage import WIDTH

    if not what and nodes is None:
        raise click.UsageError("name a job, a node or a vertex's path: fluxkv explain ƒ3kQ, fluxkv explain --node 3")
    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
        told: list[Told] = []
        for word in what:
            told += _explain(journal, state, now, word, at)
        if nodes is not None:
            ranks = ranks_of(state, nodes)
            if not ranks:
                raise Rejected(f"{nodes[:60]!r} names no node", code="no-such-node", hint="fluxkv resource list -v lists them")
            told += _nodes(journal, state, now, ranks)
    if as_json:
        documents = [document for document, _ in told]
        render.print_json(documents[0] if len(documents) == 1 and len(what) < 2 else documents)
        return
    width = min(render.columns() or WIDTH, 100)
    if len(told) > MANY:
        render.out("\n".join(page.answer for _, page in told))
    else:
        render.out("\n\n".join(page.text(width) for _, page in told))


def _explain(journal: Journal, state: State, now: float, word: str, at: str | None) -> list[Told]:
    """What a word names: a vertex by its path, a host, else a job, else ranks."""
    from ..journal.ids import f58, parse_id

    if word.startswith("/"):
        return _vertex(journal, state, now, word)
    if any(node.host == word for node in state.nodes.values()):
        return _nodes(journal, state, now, ranks_of(state, word))
    try:
        id = parse_id(word)
    except Rejected as error:
        if _may_be_nodes(state, word):
            return _nodes(journal, state, now, ranks_of(state, word))
        hint = "fluxkv jobs -a and fluxkv resource list -v show them"
        if paths := _paths(state, word):
            more = f" (and {len(paths) - SOME} more)" if len(paths) > SOME else ""
            hint = f"a vertex of the graph goes by its path: {', '.join(paths[:SOME])}{more}"
        raise Rejected(f"{word[:60] or repr(word)}: neither a job's id nor a node", code=error.code, hint=hint) from None
    found = journal.find_jobs(state, [id]).get(id)
    if found is not None:
        return [_job(journal, state, now, found, bool(at))]
    if _may_be_nodes(state, word):
        return _nodes(journal, state, now, ranks_of(state, word))
    if at:
        hint = f"it may have come later: fluxkv explain {f58(id)}"
        raise Rejected(f"job {f58(id)}: not there at {at}", code="no-such-job", hint=hint)
    journal.find_job(state, id)  # says that there is none
    return []


def _paths(state: State, name: str) -> list[str]:
    """Of all vertices with this name."""
    return [path for path in state.graph.places if path.rpartition("/")[2] == name] if state.graph is not None and name else []


def _may_be_nodes(state: State, word: str) -> bool:
    try:
        return bool(ranks_of(state, word))
    except Rejected:
        return False


def _nodes(journal: Journal, state: State, now: float, ranks: list[int]) -> list[Told]:
    from .explainnode import explain_node, foresee

    outlook = foresee(state, now)
    return [explain_node(journal, state, state.nodes[rank], outlook, now) for rank in ranks]


def _vertex(journal: Journal, state: State, now: float, path: str) -> list[Told]:
    from .explainnode import foresee
    from .explainvertex import explain_vertex, place_of

    place = place_of(state, path)
    if place.node >= 0 and state.graph is not None and state.graph.nodes()[place.node].at == place.at:
        return _nodes(journal, state, now, [place.node])
    return [explain_vertex(state, path, place, foresee(state, now), now)]


def _job(journal: Journal, state: State, now: float, job: Job, past: bool) -> Told:
    from ..journal.job import INACTIVE, NEW, PENDING
    from .inspect_cmd import job_story
    from .jobfields import job_document
    from .jobview import View

    if journal.meta.sealed and not past:
        now = journal.store.now()  # how long ago it ended, not how long before its instance did
    view = View(state, now, journal)
    if job.state != INACTIVE and journal.meta.sealed and not past:
        from .explainleft import explain_left

        document, page = explain_left(job, view, journal)
    elif job.state & (PENDING | NEW):
        from .explainpending import explain_pending

        document, page = explain_pending(job, view)
    else:
        from .explainstory import explain_story

        document, page = explain_story(job, view, job_story(journal, job))
        if job.state == INACTIVE and not past and view.is_instance(job):
            from .explainleft import inside

            page.add("inside", inside(job, journal))
    return {"answer": document.pop("answer"), "job": job_document(job, view), **document}, page
