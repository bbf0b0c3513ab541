"""Every parser gives a value or a refusal, whatever it is given, in bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxkv.journal import (
    constraint,
    directives,
    duration,
    event_check,
    eventlog,
    hostlist,
    ids,
    idset,
    jobspec,
    ranges,
    rset,
    shape,
    stdio,
    taskmap,
    updates,
    urgency,
)
from fluxkv.kvs import tree
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers import graph

OF_TEXT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "idset": (idset.parse, "0123456789,-[]"),
    "mask": (idset.mask_of, "0123456789,-[]"),
    "job id": (ids.parse_id, "ƒf0x123abcZ.-academy😃"),
    "duration": (duration.parse_duration, "0123456789.eEinfsmhdx+-"),
    "hostlist": (hostlist.expand, "ab0129,-[] "),
    "range": (ranges.parse_range, "0123456789-+:*^[]"),
    "count": (ranges.parse_count, "0123456789-+:*^[],"),
    "shape": (shape.parse_shape, 'slotnodecr=/[];:{}",+-0129x'),
    "query": (constraint.parse_query, "abhost:,-|&()'\" notandr[0-9]"),
    "requires": (constraint.parse_requires, "abhost:,-|&()'\" notandr[0-9]"),
    "task map": (taskmap.parse_map, "[](,)0123456789vector{}\":map"),
    "raw task map": (taskmap.from_raw, "0123456789,-;"),
    "distribution": (lambda text: taskmap.distribute([2, 2], text), "blockcyi:0123456789"),
    "event": (eventlog.parse_event, '{}"timestampname:,1.e[]'),
    "jobspec": (jobspec.parse_jobspec, '{}"version:,1.e[]- \n&*!|>#%'),
    "R": (rset.parse_R, '{}"version:,1.e[]'),
    "urgency": (urgency.parse_urgency, "0123456789holdexpite"),
    "directives": (directives.parse_directives, "#fluxFLUX: -N\"'\\\n"),
    "setting": (lambda text: jobspec.parse_setting(str(text)), 'a.=1"{}[]'),
    "KVS key": (tree.check_key, "ab. \n\0"),
}  # fmt: skip

OF_VALUES: dict[str, Callable[[Any], Any]] = {
    "constraint": constraint.check,
    "task map": taskmap.check_map,
    "R": rset.parse_R,
    "count": ranges.parse_count,
    "graph": lambda value: graph.from_jgf({"graph": value}),
    "output header": lambda value: stdio.Reader().read("header", value),
    "jobspec": lambda value: jobspec.parse_jobspec({"version": 1, "resources": value, "tasks": value, "attributes": value}),
    "event": lambda value: event_check.check_values("job", "exception", {"type": "", "severity": value, "wait_status": value}),
    "update": lambda value: updates.update_paths({"a": value}, {"a.b": value}),
    "annotations": lambda value: updates.merge({"a": value}, {"a": {"b": value}}),
}

KEYS = st.sampled_from(
    ["type", "count", "with", "label", "version", "execution", "R_lite", "rank", "children", "core", "nodes", "edges",
     "metadata", "and", "not", "properties", "hostlist", "ranks", "min", "operator", "slot", "command", "system"]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), KEYS, st.just(1), st.just("0")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(parser: Callable[[Any], Any], value: Any) -> Rejected | None:
    try:
        parser(value)
    except Rejected as refusal:
        return refusal
    return None


@pytest.mark.parametrize("name", OF_TEXT)
def test_any_text_gives_a_value_or_a_refusal(name: str) -> None:
    parser, alphabet = OF_TEXT[name]

    @SOME
    @given(st.one_of(st.text(alphabet, max_size=40), st.text(max_size=20), st.binary(max_size=20)))
    def check(text: str | bytes) -> None:
        refusal = refused(parser, text)
        assert refusal is None or (refusal.code and len(str(refusal)) < 2000)

    check()


@pytest.mark.parametrize("name", OF_VALUES)
def test_any_value_gives_a_value_or_a_refusal(name: str) -> None:
    @SOME
    @given(VALUES)
    def check(value: Any) -> None:
        refusal = refused(OF_VALUES[name], value)
        assert refusal is None or refusal.code

    check()


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("name", OF_VALUES)
def test_deep_values_are_refused(name: str) -> None:
    wraps = [lambda v: {"with": v}, lambda v: {"and": v}]
    if name not in ("update", "annotations"):  # they do not look into lists
        wraps += [lambda v: [v], lambda v: {"not": [v]}]
    for wrap in wraps:
        with pytest.raises(Rejected):
            OF_VALUES[name](nested(3000, wrap))


LARGE = ["9" * 100_000, "[" * 100_000, "(" * 50_000, "0-" * 100_000, "1," * 100_000, "a[0-9999999]" * 100, "1-2147483647:1:+",
         "-" * 64, "f" * 100_000, "{" * 100_000, '{"a":' * 50_000, "x" * 1_000_000, "'" * 100_000, "slot=1/" * 20_000]  # fmt: skip


@pytest.mark.parametrize("name", OF_TEXT)
def test_large_texts_take_no_time(name: str) -> None:
    parser, _ = OF_TEXT[name]
    began = time.process_time()
    for text in LARGE:
        refused(parser, text)
    assert time.process_time() - began < 5
