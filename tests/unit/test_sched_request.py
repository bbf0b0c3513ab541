"""Compiling requests: what is taken, where the message of a refusal points, how tasks are dealt out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal.claims import Claim
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.request import Flat, compile_request, spread, tasks_per_claim

CORE = {"type": "core", "count": 2}


def slot(**more: Any) -> dict[str, Any]:
    return {"type": "slot", "count": 3, "label": "task", "with": [CORE], **more}


def node(*below: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "node", "count": 4, "with": list(below), **more}


def flat_of(*resources: Any) -> Flat | None:
    return compile_request({"resources": list(resources)}).flat


def test_the_flat_shapes() -> None:
    gpu, memory = {"type": "gpu", "count": 1}, {"type": "memory", "count": 2, "unit": "GB"}
    assert flat_of(slot()) == Flat(0, 3, 0, 2, 0, 0, 0, False)
    assert flat_of(node(slot())) == Flat(4, 12, 3, 2, 0, 0, 0, False)
    assert flat_of(slot(**{"with": [CORE, gpu, memory]})) == Flat(0, 3, 0, 2, 1, 2048, 0, False)
    assert flat_of(node(slot(), {**memory, "unit": "MB"}, exclusive=True)) == Flat(4, 12, 3, 2, 0, 0, 2, True)
    assert (
        flat_of(slot(exclusive=True, count="3"))
        == flat_of(slot(count={"min": 3, "max": 3}))
        == flat_of(slot())
    )


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ([], "resources must"),
        (None, "resources must"),
        ([1], "resources[0] must"),
        ([slot(count=0)], "resources[0].count"),
        ([slot(count=True)], "resources[0].count"),
        ([slot(count=1.5)], "resources[0].count"),
        ([slot(count="x")], "resources[0].count"),
        ([slot(count={"min": 3, "max": 2})], "resources[0].count"),
        ([slot(**{"with": [slot(label="b")]})], "resources[0].with[0].type a slot must not be below a slot"),
        ([slot(label=None)], "resources[0].label must be a string"),
        ([slot(label="")], "resources[0].label is missing"),
        ([slot(colour=1)], "resources[0].colour"),
        ([slot(exclusive=False)], "resources[0].exclusive"),
        ([slot(exclusive="yes")], "resources[0].exclusive"),
        ([slot(**{"with": []})], "resources[0].with"),
        ([slot(**{"with": [{"type": "gpu", "count": 1}]})], "resources[0].with has no core"),
        ([slot(**{"with": [CORE, {"type": "memory", "count": 1}]})], "resources[0].with[1].unit"),
        ([slot(**{"with": [{**CORE, "exclusive": False}]})], "resources[0].with[0].exclusive"),
        ([slot(**{"with": [{**CORE, "id": "0"}]})], "resources[0].with[0].id"),
        ([{"type": "node", "count": 2}], "resources has no slot"),
        ([node(CORE)], "resources has no slot"),
        ([node(slot(), slot())], "resources[0].with[1].label is used twice"),
        ([{"count": 1}], "resources[0].type is missing"),
        ([slot(count=1 << 70)], "resources"),
    ],
)
def test_refusals_point_at_the_fault(resources: Any, path: str) -> None:
    with pytest.raises(Rejected) as caught:
        compile_request({"resources": resources})
    assert path in str(caught.value)
    assert caught.value.code in ("bad-jobspec", "unsupported")
    assert caught.value.hint


@pytest.mark.parametrize(
    "resources",
    [
        [slot(), slot(label="b")],
        [slot(count="2-3")],
        [node(slot(), count={"min": 2})],
        [slot(**{"with": [{"type": "core", "count": 1}, {"type": "core", "count": 2}]})],
        [slot(**{"with": [{"type": "socket", "count": 1, "with": [CORE]}]})],
        [node(slot(), slot(label="b"))],
        [{"type": "rack", "count": 1, "with": [slot()]}],
        [slot(**{"with": [CORE, {"type": "gpu", "count": {"min": 1, "max": 4}}]})],
        [node(slot(), {"type": "gpu", "count": 1})],
    ],
)
def test_other_shapes_are_for_the_matcher_of_trees(resources: list[Any]) -> None:
    request = compile_request({"resources": resources})
    assert request.flat is None
    assert request is compile_request({"resources": resources})


def test_which_slots_the_tasks_run_in_is_part_of_a_request() -> None:
    def labelled(label: str) -> Any:
        tasks = [{"command": ["true"], "slot": label, "count": {"per_slot": 1}}]
        return compile_request({"resources": [slot(label="a"), slot(label="b")], "tasks": tasks})

    assert (labelled("a").label, labelled("b").label, labelled("c").label) == ("a", "b", "")
    assert labelled("a").key != labelled("b").key
    assert labelled("").label == ""
    assert labelled("b") is labelled("b")
    single = [compile_request({"resources": [slot(label="a")], "tasks": [{"slot": label}]}) for label in "ab"]
    assert single[0] is single[1]
    assert single[0].label == ""


def test_what_is_held_without_slots_runs_no_tasks() -> None:
    request = compile_request({"resources": [slot()]})
    assert tasks_per_claim(request, {"total": 3}, claims(0, 2, 0, 1)) == [0, 2, 0, 1]
    assert tasks_per_claim(request, {"per_slot": 2}, claims(0, 1)) == [0, 2]


@pytest.mark.parametrize("system", [{"duration": -1}, {"duration": "1h"}, {"queue": 3}, {"constraints": []}])
def test_bad_system_attributes(system: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match=r"attributes\.system\."):
        compile_request({"resources": [slot()], "attributes": {"system": system}})


def test_equal_requests_are_one_object() -> None:
    one = compile_request({"resources": [slot()], "attributes": {"system": {"duration": 60, "queue": "q"}}})
    assert one is compile_request(
        {"resources": [slot()], "attributes": {"system": {"duration": 60, "queue": "q"}}}
    )
    longer = compile_request({"resources": [slot()], "attributes": {"system": {"duration": 61}}})
    assert longer.key == one.key
    assert longer != one
    assert (one.duration_s, one.queue) == (60.0, "q")
    assert hash(longer) == hash(one)
    assert compile_request({"resources": [slot(label="x")]}).tree[0].children[0].count == 2


def test_the_cache_is_bounded() -> None:
    from fluxkv.schedulers import request

    for count in range(1, 5000):
        compile_request({"resources": [slot(count=count)]})
    assert len(request._cache) <= request._CACHE_SIZE


def test_version_1_vectors(vectors: Callable[[str], list[dict[str, Any]]]) -> None:
    """Valid resources compile, others do not, but for `exclusive` on a slot, which says what is so anyway."""
    cases = vectors("jobspec_v1")
    valid = [case["input"]["resources"] for case in cases if case.get("expected") == "valid"]
    refused = 0
    for case in cases:
        jobspec = case["input"]
        resources = jobspec.get("resources") if isinstance(jobspec, dict) else None
        if resources in valid:
            if case.get("expected") == "valid":
                assert compile_request(jobspec).flat is not None, case["note"]
        elif isinstance(jobspec, dict) and "exclusive" not in case["note"]:
            try:
                assert compile_request(jobspec).flat is None, case["note"]
            except Rejected:
                refused += 1
    assert valid
    assert refused


def claims(*slots: int) -> list[Claim]:
    return [Claim(i, (1 << 2 * n) - 1, 1, 0, n) for i, n in enumerate(slots)]


def test_tasks_of_claims() -> None:
    request = compile_request({"resources": [slot()]})
    assert tasks_per_claim(request, {"per_slot": 2}, claims(2, 1)) == [4, 2]
    assert tasks_per_claim(request, {"total": 4}, claims(4, 4)) == [2, 2]
    assert tasks_per_claim(request, {"total": 5}, claims(2, 2)) == [3, 2]
    assert tasks_per_claim(request, {"total": 2}, claims(7, 1)) == [1, 1]
    assert tasks_per_claim(request, {"total": 1}, claims(1, 1)) == [1, 0]
    assert tasks_per_claim(request, {"per_resource": {"type": "core", "count": 2}}, claims(2, 1)) == [8, 4]
    assert tasks_per_claim(request, {"per_resource": {"type": "node", "count": 2}}, claims(2, 1)) == [2, 2]
    for bad in (
        {},
        {"per_slot": 1, "total": 1},
        {"per_slot": 0},
        {"each": 1},
        {"per_resource": {"type": "x", "count": 1}},
    ):
        with pytest.raises(Rejected, match=r"tasks\[0\]\.count"):
            tasks_per_claim(request, bad, claims(1))


@given(st.integers(1, 200), st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_spread_is_fair(total: int, weights: list[int]) -> None:
    shares = spread(total, weights)
    assert sum(shares) == total
    assert min(shares) >= (1 if total >= len(weights) else 0)
    if total <= sum(weights):
        assert all(share <= weight for share, weight in zip(shares, weights, strict=True))
    if len(set(weights)) == 1:
        assert max(shares) - min(shares) <= 1
