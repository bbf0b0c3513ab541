"""Match policies as plug-ins: the contract holds for the built-in ones and for the example of the manual, and not for others."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fluxkv.journal.rset import NodeRecord
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers import match_policy
from fluxkv.schedulers.match_policy import BUILT_IN, policy_of
from fluxkv.schedulers.matcher_contract import check_matcher
from fluxkv.schedulers.request import compile_request
from fluxkv.schedulers.resources import Pool
from fluxkv.schedulers.tree.policies import POLICIES, Low, Policy
from fluxkv.schedulers.tree.vertices import Vertex

README = Path(__file__).resolve().parents[2] / "README.md"


def example() -> Any:
    """The policy that the manual shows."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "class Cheap" in block)
    space: dict[str, Any] = {}
    exec(code, space)
    return space["Cheap"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_policies_keep_the_contract(name: str) -> None:
    assert sum(check_matcher(POLICIES[name], random.Random(seed), 12) for seed in range(6)) > 10


def test_the_example_of_the_manual_keeps_it_and_does_what_it_says() -> None:
    cheap = example()
    assert sum(check_matcher(cheap, random.Random(seed), 12) for seed in range(6)) > 10
    nodes = [Vertex("node", "node", n, properties={"price": price}) for n, price in enumerate(("7", "2", "5"))]
    policy = cheap()
    assert sorted(range(3), key=lambda n: policy.score(nodes[n])) == [1, 2, 0]
    core = Vertex("core", "core", 31)
    assert policy.lifted(policy.score(core), nodes[2]) < policy.lifted(policy.score(core), nodes[0])


class Loses(Low):
    def order(self, candidates: Sequence[Any], k: int) -> Sequence[Any]:
        return super().order(candidates, k)[1:]


class Moody(Low):
    """Not the same when it is asked again."""

    turn: Iterator[bool] = iter([])

    def __init__(self) -> None:
        Moody.number = getattr(Moody, "number", 0) + 1
        self.descending = Moody.number % 2 == 0


class Whole(Low):
    """Takes a node of its own choosing away from a request."""

    def order(self, candidates: Sequence[Any], k: int) -> Sequence[Any]:
        ordered = list(super().order(candidates, k))
        return [*ordered, *ordered[:1]]


@pytest.mark.parametrize(
    ("made", "rule"), [(Loses, "each once"), (Whole, "each once"), (Moody, "the same request and resources")]
)  # fmt: skip
def test_others_do_not(made: type[Policy], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        sum(check_matcher(made, random.Random(seed)) for seed in range(20))


class Point:
    """An entry point that gives this."""

    def __init__(self, name: str, given: Any) -> None:
        self.name = self.value = name
        self.given = given

    def load(self) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


class Breaks(Low):
    def score(self, vertex: Vertex) -> int:
        return 1 // 0


def test_a_policy_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point("breaks", Breaks)])
    policy_of.cache_clear()
    try:
        pool = Pool([NodeRecord(0, "n0", 0b11, 0, 0, ())], "breaks")
        slot = {"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": 1}]}
        request = compile_request({"resources": [slot]})
        with pytest.raises(Rejected, match="match policy 'breaks' failed: ZeroDivisionError"):
            pool.match(request)
    finally:
        policy_of.cache_clear()


def test_installed_policies_are_found_and_faulty_ones_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("cheap", example()), Point("odd", dict), Point("broken", ImportError("no module x"))]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == match_policy.GROUP else [])
    policy_of.cache_clear()
    try:
        assert type(policy_of("cheap")).__name__ == "Cheap"
        for name, code, text in (
            ("odd", "bad-matcher", "is no tree.policies.Policy"), ("broken", "bad-matcher", "no module x"),
            ("best", "no-such-matcher", "no match policy"),
        ):  # fmt: skip
            with pytest.raises(Rejected, match=text) as caught:
                policy_of(name)
            assert caught.value.code == code
    finally:
        policy_of.cache_clear()
