"""Constraints (RFC 31) and query text (RFC 35) against the published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal import constraint, hostlist, idset
from fluxkv.kvs.errors import Rejected


def test_match_vectors(vectors):
    for case in vectors("constraint_match"):
        if "error" in case:
            with pytest.raises(Rejected):
                constraint.check(case["input"])
            continue
        constraint.check(case["input"])
        matches = constraint.compile(case["input"])
        inventory = case["inventory"]
        ranks = idset.parse(inventory["ranks"])
        owned = {name: idset.parse(text) for name, text in inventory["properties"].items()}
        found = [
            rank
            for rank, host in zip(ranks, hostlist.expand(inventory["hosts"]), strict=True)
            if matches(rank, host, {name for name, having in owned.items() if rank in having})
        ]
        assert idset.format_ids(found) == case["expected"], case["input"]


def test_query_vectors(vectors):
    for case in vectors("constraint_query"):
        if "error" in case:
            with pytest.raises(Rejected):
                constraint.parse_query(case["input"], case["default_operator"])
        else:
            assert constraint.parse_query(case["input"], case["default_operator"]) == case["expected"], case[
                "input"
            ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a,b", {"properties": ["a", "b"]}),
        ("^a", {"properties": ["^a"]}),
        ("host:n[0-3]", {"hostlist": ["n[0-3]"]}),
        ("-rank:0-3 ssd", {"and": [{"not": [{"ranks": ["0-3"]}]}, {"properties": ["ssd"]}]}),
        ("not a b", {"and": [{"not": [{"properties": ["a"]}]}, {"properties": ["b"]}]}),
        ("not not a", {"not": [{"not": [{"properties": ["a"]}]}]}),
        ("(a b) c", {"and": [{"properties": ["a"]}, {"properties": ["b"]}, {"properties": ["c"]}]}),
        ("not(a)", {"not": [{"properties": ["a"]}]}),
        ("a-b", {"properties": ["a-b"]}),
        ("'and'", {"properties": ["and"]}),
    ],
)
def test_requires(text, expected):
    assert constraint.parse_requires(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a&",
        "&a",
        "()",
        "a (",
        "- a",
        "-",
        "rank:x",
        "foo:bar",
        "host:n[",
        "'a'b",
        "a:''b",
        "not",
        "(" * 50_000,
        "not " * 10_000,
        "a " * 30_000,
        "a" * 100_000,
        None,
        3,
        'a$("',
        "host:",
    ],
)
def test_bad_requires(text):
    with pytest.raises(Rejected):
        constraint.parse_requires(text)


def nest(depth):
    value = {}
    for _ in range(depth):
        value = {"not": [value]}
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "x",
        [],
        {"and": 3},
        {"and": [], "or": []},
        {1: []},
        nest(1000),
        {"or": [{}] * 5000},
        {"hostlist": ["n[0-1048575]"] * 3},
        {"ranks": ["9999999"]},
        {"properties": [""]},
        {"properties": ["^"]},
    ],
    ids=range(13),
)
def test_bad_constraints(value):
    with pytest.raises(Rejected):
        constraint.check(value)


LEAVES = st.sampled_from("abc").map(lambda p: {"properties": [p]})
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda c: {"not": [c]}),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)).map(
            lambda t: {t[0]: t[1]}
        ),
    ),
    max_leaves=8,
)


def written(tree):
    ((operator, values),) = tree.items()
    if operator == "properties":
        return values[0]
    if operator == "not":
        return f"not ({written(values[0])})"
    return "(" + {"and": " & ", "or": "|"}[operator].join(map(written, values)) + ")"


@given(TREES)
def test_query_round_trip(tree):
    """A tree, written and read, matches the same nodes (like operators may have been joined)."""
    again = constraint.parse_requires(written(tree))
    left, right = constraint.compile(tree), constraint.compile(again)
    for n in range(8):
        having = {p for i, p in enumerate("abc") if n >> i & 1}
        assert left(0, "h", having) == right(0, "h", having)


@given(TREES)
def test_a_constraint_is_said_as_it_is_asked_for(tree):
    again = constraint.parse_requires(constraint.query_of(tree))
    left, right = constraint.compile(tree), constraint.compile(again)
    for n in range(8):
        having = {p for i, p in enumerate("abc") if n >> i & 1}
        assert left(0, "h", having) == right(0, "h", having)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("ssd&-gpu", "ssd & not gpu"), ("a|b c", "a | b & c"), ("not (a|b)", "not (a | b)"),
        ("not (a|b) host:n[0-3],m rank:0-2", "(not (a | b)) & host:n[0-3],m & rank:0-2"),
        ("'we ird'", '"we ird"'), ("", ""), ("(a|b) c", "(a | b) & c"), ('"or"', '"or"'),
    ],
)  # fmt: skip
def test_constraints_in_words(asked, said):
    assert constraint.query_of(constraint.parse_requires(asked)) == said
    assert constraint.query_of(constraint.parse_requires(said)) == said


@given(st.text(" ab:-&|()'\"notrkd", max_size=30))
def test_any_text_is_read_or_rejected(text):
    try:
        constraint.check(constraint.parse_query(text, "properties"))
    except Rejected:
        pass
