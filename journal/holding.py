"""Claims put on nodes and on what is drawn from the graph, and taken off: the one place where the fold counts what is held. Pure.

Whole or not at all: what is impossible changes nothing. `State.drawn` says per path of a vertex what is drawn: [units, ids].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .claims import Claim, Draw
from .idset import text_of

if TYPE_CHECKING:
    from .resource_graph import ResourceGraph
    from .state import State

POOL = "pool"  # of the word of a vertex that is drawn on, "pool/<path>" (its path begins with /), and of its guard


def word_of(path: str) -> str:
    """Of a vertex that is drawn on: its subject in the digest, and the thing that guards it."""
    return POOL + path


def path_of(word: object) -> str:
    """Inverse of `word_of`; "" for any other word."""
    return word[len(POOL) :] if isinstance(word, str) and word.startswith(POOL + "/") else ""


def words_of(claims: Iterable[Claim]) -> list[int | str]:
    """What claims hold something of, as a group of events frees or takes it: ranks, and the words of vertices."""
    found: dict[int | str, None] = {}
    for claim in claims:
        found[claim.rank] = None
        if claim.draws:
            found.update((word_of(draw.vertex), None) for draw in claim.draws)
    return list(found)


def pools_of(graph: ResourceGraph | None, claims: Iterable[Claim]) -> list[str]:
    """The things that guard what claims draw beside their nodes: whoever draws on one of these vertices meets there, whatever node
    it is for (HAZARD 3). What is inside a node of theirs the node's own thing guards."""
    if graph is None:
        return []
    claims = list(claims)
    ranks = {claim.rank for claim in claims}
    found: dict[str, None] = {}
    for claim in claims:
        for draw in claim.draws:
            place = graph.places.get(draw.vertex)
            if place is None or place.node not in ranks:
                found[word_of(draw.vertex)] = None
    return list(found)


def take(state: State, claims: Sequence[Claim], job: int, *, keep: bool = False) -> Claim | None:
    """Put them on, for a job or (keep) for the housekeeping after it. The first that is not free, None if all were."""
    taken: list[Claim] = []
    nodes, dirty = state.nodes, state.dirty_words
    for claim in claims:
        node = nodes.get(claim.rank)
        if node is None or not (node.keep(claim, job) if keep else node.take(claim, job)):
            break
        taken.append(claim)
        dirty.add(claim.rank)
        if claim.draws and not _draw(state, claim.draws):
            _back(state, taken.pop(), job, keep)
            break
    else:
        return None
    for one in taken:
        _back(state, one, job, keep)
        put_back(state, one.draws)
    return claim


def give(state: State, claim: Claim, job: int, *, keep: bool = False) -> None:
    """Take one off again. Of a node that is gone nothing is left to take off; draws are of the graph."""
    if claim.rank in state.nodes:
        _back(state, claim, job, keep)
        state.dirty_words.add(claim.rank)
    if claim.draws:
        put_back(state, claim.draws)


def _back(state: State, claim: Claim, job: int, keep: bool) -> None:
    node = state.nodes[claim.rank]
    (node.unkeep if keep else node.give)(claim, job)


def _draw(state: State, draws: Sequence[Draw]) -> bool:
    """All of these or none."""
    for at, draw in enumerate(draws):
        units, ids = state.drawn.get(draw.vertex, (0, 0))
        if not fits(state.graph, draw, units, ids):
            put_back(state, draws[:at])
            return False
        state.drawn[draw.vertex] = [units + draw.units, ids | draw.ids]
        _note(state, draw.vertex)
    return True


def fits(graph: ResourceGraph | None, draw: Draw, units: int, ids: int) -> bool:
    """Can this be drawn where so many units, and these ids, are drawn already?"""
    place = graph.places.get(draw.vertex) if graph is not None else None
    if place is None or draw.units + units > place.size or draw.ids & (ids | ~place.ids):
        return False
    return draw.ids.bit_count() == (draw.units if place.ids else 0)


def put_back(state: State, draws: Iterable[Draw]) -> None:
    """These are drawn no more."""
    for draw in draws:
        units, ids = state.drawn[draw.vertex]
        if units > draw.units:
            state.drawn[draw.vertex] = [units - draw.units, ids & ~draw.ids]
            _note(state, draw.vertex)
        else:
            del state.drawn[draw.vertex]
            state.drop_word(word_of(draw.vertex))
            state.drawn_news.add(draw.vertex)


def _note(state: State, path: str) -> None:
    state.dirty_words.add(word_of(path))
    state.drawn_news.add(path)


def missing(drawn: dict[str, list[int]], graph: ResourceGraph | None) -> str:
    """The first vertex that is drawn on and that another graph does not have, or not as much of it; "" if there is none."""
    places = graph.places if graph is not None else {}
    for path, (units, ids) in drawn.items():
        place = places.get(path)
        if place is None or place.size < units or ids & ~place.ids:
            return path
    return ""


def value_of(path: str, used: Sequence[int]) -> list[object]:
    """Plain value of what is drawn from a vertex, for snapshots and the digest."""
    return [path, used[0], text_of(used[1])]
