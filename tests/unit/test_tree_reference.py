"""The matcher of trees against a slow, obvious one on networkx: random graphs, requests, histories (`support/tree_worlds.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tree_worlds import EXACT, FILTERS, Game
from trees import request, taken, tree, vertex

from fluxkv.schedulers.tree import match, spans, vertices
from fluxkv.schedulers.tree.ledger import Ledger
from fluxkv.schedulers.tree.system import System

SEEDS = 160


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_random_histories_are_those_of_the_reference(first: int) -> None:
    for seed in range(first, first + 20):
        Game(seed).play()


def test_the_draws_are_worth_something() -> None:
    """Enough requests are served, now and later, and enough are not; every feature is drawn."""
    games = [Game(seed) for seed in range(100)]
    for game in games:
        game.play()
    said = [str(word) for game in games for word in game.said]
    got = [word for word in said if word.startswith("got (")]
    assert sum(not word.startswith("got (0") for word in got) > 20
    assert len(got) > 120
    assert sum(word.startswith("got None") for word in said) > 100
    everything = " ".join(said)
    for feature in (
        "'slot'", "'xor_slot'", "'or_slot'", "'exclusive': True", "'exclusive': False", "'unit'", "'constraints'", "'min'",
        "'watt'", "'disk'",
        "'hostlist'", "'^ssd'", "'1,3'",
    ):  # fmt: skip
        assert everything.count(feature) > 2, feature
    assert {game.policy for game in games} > set(EXACT)
    assert {game.view for game in games} == {"CA", "PA", "C+PA"}


@pytest.mark.parametrize("filters", FILTERS[1:], ids=str)
def test_prune_filters_change_nothing(filters: dict[str, list[str]]) -> None:
    """The whole history, answer by answer, with other sums kept; `first` looks where these say that most is left. When a job that
    gave back all it had is over is seen by its sums, as in Fluxion."""
    for seed in range(300, 315):
        plain, pruned = Game(seed, EXACT[seed % len(EXACT)]), Game(seed, EXACT[seed % len(EXACT)])
        pruned.use(filters)
        plain.use(None)
        plain.play(without=("part", "remove")), pruned.play(without=("part", "remove"))
        assert plain.said == pruned.said


BREAKS: dict[str, Callable[[Any], None]] = {
    "exclusive is not alone": lambda m: m.setattr(vertices.Vertex, "in_use", lambda *_: False),
    "pools have no end": lambda m: m.setattr(vertices.Vertex, "free", lambda self, *_: self.size),
    "a window is a moment": lambda m: m.setattr(spans.Spans, "peak", lambda self, start, _: self.at(start)),
    "what is given back stays": lambda m: m.setattr(Ledger, "_drop", lambda *_: None),
    "sums are too small": lambda m: m.setattr(vertices.Vertex, "left_below", lambda *_: 0),
    "all is up": lambda m: m.setattr(match.Window, "all_up", True),
    "two ways are two": lambda m: m.setattr(match.Once, "keep", lambda *_: None),
}


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS)
def test_a_matcher_that_is_wrong_is_caught(break_it: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)

    def play() -> None:
        for seed in range(400):
            Game(seed).play()

    with pytest.raises((AssertionError, KeyError)):
        play()


def test_beside_a_slot_nothing_of_it_is_had_again() -> None:
    """Found by the reference: a type beside a slot was given vertices of the slot."""
    system = System(tree(nodes=1, sockets=1), "low")
    both = request(vertex("socket", 1, vertex("slot", 1, vertex("core", 3)), vertex("core", 1, exclusive=True)))
    assert len([path for path in taken(system, system.allocate(both).job) if "core" in path]) == 4
    greedy = request(vertex("socket", 1, vertex("slot", 1, vertex("core", 4)), vertex("core", 1, exclusive=True)))
    assert System(tree(nodes=1, sockets=1), "low").allocate(greedy).selection is None
