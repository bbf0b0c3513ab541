"""Event lines (RFC 18), wait words (21), urgency (30), task maps (34), ranges (45) against the vectors."""

from __future__ import annotations

import itertools
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal import eventlog, ranges, taskmap, urgency, waitstatus
from fluxkv.kvs.errors import Rejected

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


def test_eventlog_vectors(vectors):
    for case in vectors("eventlog_entry"):
        if "error" in case:
            with pytest.raises(Rejected):
                eventlog.parse_event(case["input"])
            continue
        event = eventlog.parse_event(case["input"])
        expected = case["expected"]
        assert (event.timestamp, event.name, event.context) == (
            expected["timestamp"],
            expected["name"],
            expected.get("context"),
        )
        assert eventlog.parse_event(case["input"].encode() + b"\n") == event


@given(st.text(), st.floats(1e-6, 1e12), st.dictionaries(st.text(), JSON, max_size=3))
def test_event_round_trip(name, timestamp, context):
    line = eventlog.format_event(name, timestamp, context)
    assert "\n" not in line
    assert eventlog.parse_event(line.encode()) == (timestamp, name, context or None)


def test_event_text():
    assert eventlog.format_event("start", 1.5) == '{"timestamp":1.5,"name":"start"}'
    assert eventlog.format_event("x", 2.0, {"a": "ä"}) == '{"timestamp":2.0,"name":"x","context":{"a":"ä"}}'
    assert eventlog.parse_event(eventlog.format_event("\ud800", 1.0)).name == "\ud800"
    for bad in ({"a": b""}, {"a": float("nan")}):
        with pytest.raises(Rejected):
            eventlog.format_event("x", 1.0, bad)
    for when in (0, -1.0, float("nan"), float("inf"), True, "1"):
        with pytest.raises(Rejected):
            eventlog.format_event("x", when)
    for line in (
        "[" * 100_000,
        b"\xff",
        None,
        3,
        '{"timestamp":1' + "0" * 5000 + ',"name":"x"}',
        '{"timestamp":NaN,"name":"x"}',
        '{"timestamp":true,"name":"x"}',
    ):
        with pytest.raises(Rejected):
            eventlog.parse_event(line)


def test_wait_status_vectors(vectors):
    for case in vectors("wait_status"):
        parts = waitstatus.decode(case["input"])
        expected = case["expected"]
        assert (parts.exited, parts.signaled, parts.signal, parts.core) == (
            expected["exited"],
            expected["signaled"],
            expected["signal"],
            expected["core"],
        )
        assert waitstatus.shell_exit_code(case["input"]) == expected["shell_exit_code"]


def test_wait_status_agrees_with_the_system():
    for status in range(0x10000):
        try:
            parts = waitstatus.decode(status)
        except Rejected:
            assert status & 0x80 or not os.WIFEXITED(status)
            continue
        assert parts.exited == os.WIFEXITED(status)
        assert parts.signaled == os.WIFSIGNALED(status)
        assert waitstatus.from_returncode(os.waitstatus_to_exitcode(status)) == status & ~0x80 or parts.exited
    for wrong in (-1, 0x10000, None, True, 1.0, 0x7F, 0x137F):
        with pytest.raises(Rejected):
            waitstatus.decode(wrong)


def test_wait_status_text():
    assert waitstatus.describe(768) == "Exited with exit code 3"
    assert waitstatus.describe(9) == "Killed by signal 9"
    assert waitstatus.describe(139) == "Killed by signal 11 (core dumped)"


def test_finish_status_vectors(vectors):
    for case in vectors("finish_status"):
        given_ = case["input"]
        assert (
            waitstatus.finish_status(given_["shell_statuses"], given_["first_fatal_exception_wait_status"])
            == case["expected"]
        )
    assert waitstatus.finish_status([0], fatal=True) == 256
    assert waitstatus.finish_status([]) == 0


def test_urgency_vectors(vectors):
    for case in vectors("urgency"):
        owner = case["input"]["role"] == "owner"
        if "error" in case:
            with pytest.raises(Rejected):
                urgency.parse_urgency(case["input"]["urgency"], owner)
            continue
        value = urgency.parse_urgency(case["input"]["urgency"], owner)
        assert urgency.describe(value) == case["expected"]
        assert value == case.get("value", value)


def test_urgency_words():
    assert [urgency.parse_urgency(w) for w in ("hold", "default", "EXPEDITE", " 7 ")] == [0, 16, 31, 7]
    assert [urgency.priority_of(n) for n in (0, 16, 31)] == [0, 16, 4294967295]
    for wrong in ("", "high", "-1", "٣", 1.0, True, [], "1" * 5000):
        with pytest.raises(Rejected):
            urgency.parse_urgency(wrong)


def test_taskmap_vectors(vectors):
    for case in vectors("taskmap_raw"):
        assert taskmap.to_raw(taskmap.check_map(case["input"])) == case["expected"]
        if case.get("canonical_from_raw"):
            assert [list(b) for b in taskmap.from_raw(case["expected"])] == case["input"]
    for case in vectors("taskmap_parse"):
        if "error" in case:
            with pytest.raises(Rejected):
                taskmap.parse_map(case["input"])
        else:
            assert [list(b) for b in taskmap.parse_map(case["input"])] == case["expected"], case["input"]
    for case in vectors("taskmap_distribution"):
        counts = [n for nodes, n in case["input"]["nodes"] for _ in range(nodes)]
        blocks = taskmap.distribute(counts, case["input"]["distribution"])
        expected = case["expected"]
        if "taskmap" in expected:
            assert [list(b) for b in blocks] == expected["taskmap"]
        if "pmi" in expected:
            assert taskmap.to_pmi(blocks) == expected["pmi"]
        if "pmi_blocks" in expected:
            assert taskmap.to_pmi(blocks, 1 << 20).count("(") == expected["pmi_blocks"] + 1
            assert taskmap.to_pmi(blocks, 100) == ""


@given(st.lists(st.integers(0, 5), max_size=8), st.sampled_from(["block", "cyclic", "cyclic:2", "cyclic:3"]))
def test_taskmap_round_trip(counts, distribution):
    blocks = taskmap.distribute(counts, distribution)
    assert taskmap.ntasks(blocks) == sum(counts)
    assert [len(r) for r in taskmap.ranks_of_nodes(blocks)] == (
        counts[: max((i + 1 for i, n in enumerate(counts) if n), default=0)]
    )
    assert taskmap.parse_map(json.dumps(blocks)) == blocks
    again = taskmap.from_raw(taskmap.to_raw(blocks))
    assert taskmap.node_of_ranks(again) == taskmap.node_of_ranks(blocks)


def test_taskmap_refusals():
    for text in (
        "[[0,1048576,1048576,1]]",
        "[" * 100_000,
        "[[0,1,1,1.5]]",
        None,
        4,
        "(vector,(0,1))",
        "[[0,1,1,true]]",
        '{"version":true,"map":[]}',
        "(vector" + ",(0,9999999,9999999)" * 9 + ")",
    ):
        with pytest.raises(Rejected):
            taskmap.parse_map(text)
    for text in ("0;0", "1", "x", "0;;2", None):
        with pytest.raises(Rejected):
            taskmap.from_raw(text)
    for distribution in ("plane", "cyclic:0", "", None):
        with pytest.raises(Rejected):
            taskmap.distribute([1], distribution)


def test_range_vectors(vectors):
    for case in vectors("range"):
        if "error" in case:
            with pytest.raises(Rejected):
                ranges.parse_range(case["input"])
            continue
        value = ranges.parse_range(case["input"])
        assert value._asdict() == case["expected"]
        assert list(itertools.islice(value.values(), 8)) == case["first"]
        assert ranges.parse_range(ranges.format_range(value)) == value


def test_count_vectors(vectors):
    for case in vectors("jobspec_count"):
        if "error" in case:
            with pytest.raises(Rejected):
                ranges.parse_count(case["input"])
        else:
            assert ranges.parse_count(case["input"]).min >= 1


RANGES = st.builds(
    ranges.Range,
    st.integers(2, 40),
    st.one_of(st.none(), st.integers(40, 300)),
    st.sampled_from("+*^"),
    st.integers(2, 9),
)


@given(RANGES, st.integers(-1, 400))
def test_range_round_trip_and_largest(value, available):
    assert ranges.parse_count(ranges.format_range(value)) == value
    fits = list(itertools.takewhile(lambda v: v <= available, value.values()))
    assert value.largest(available) == max(fits, default=0)


@given(st.sets(st.integers(1, 60), min_size=1), st.integers(-1, 70))
def test_choice_largest(amounts, available):
    choice = ranges.parse_count(",".join(map(str, sorted(amounts))) + ",99")
    assert (choice.min, choice.max, choice.fixed) == (min(amounts), 99, False)
    assert choice.largest(1 << 62) == 99
    assert choice.largest(available) == max((a for a in amounts if a <= available), default=0)


def test_range_is_bounded():
    assert list(ranges.Range(2, 5, "^", ranges.MAX_COUNT).values()) == [2]
    assert ranges.Range(2, None, "^", ranges.MAX_COUNT).largest(1 << 30) == 2
    assert len(list(ranges.Range(2, None, "*", 2).values())) == 1023
    for wrong in (
        "1-9999999999",
        "9" * 5000,
        1 << 31,
        {"min": 1 << 40},
        {"min": True},
        {"min": 1, 2: 3},
        {"min": "1"},
    ):
        with pytest.raises(Rejected):
            ranges.parse_count(wrong)
