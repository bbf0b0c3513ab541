"""Every event: a golden line, a handler or a reason for none, and contexts that are checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fluxkv.journal import fold_jobs, fold_words
from fluxkv.journal.catalogue import CATALOGUE, check_context
from fluxkv.journal.event_check import check_values
from fluxkv.journal.eventlog import format_event, parse_event
from fluxkv.journal.wire import pack_events, unpack_events
from fluxkv.kvs.errors import Rejected

# Facts for people and other programs: they change nothing in the state.
SILENT = {("job", "kill"), ("job", "fence")}  # counted as known all the same: its job is


@pytest.mark.parametrize(("subject", "name"), sorted(CATALOGUE))
def test_an_example_passes_its_own_check_and_comes_back(subject: str, name: str) -> None:
    kind = CATALOGUE[subject, name]
    check_context(subject, name, kind.example)
    assert kind.meaning
    assert kind.source.startswith("RFC ") or kind.source == "fluxkv"
    row = [name, 5 if subject == "job" else subject, 1.5, kind.example]
    assert unpack_events(pack_events([row])) == [row]
    for key in kind.required:
        short = {k: v for k, v in (kind.example or {}).items() if k != key}
        with pytest.raises(Rejected, match=key):
            check_context(subject, name, short)


@pytest.mark.parametrize(("subject", "name"), sorted(CATALOGUE))
def test_an_example_is_a_line_of_rfc_18(subject: str, name: str) -> None:
    example = json.loads(json.dumps(CATALOGUE[subject, name].example, default=lambda data: data.decode()))
    found = parse_event(format_event(name, 1.5, example))
    assert (found.name, found.context or None) == (name, example or None)


def test_each_handler_is_in_the_catalogue_and_each_event_has_a_handler() -> None:
    jobs = {name for subject, name in CATALOGUE if subject == "job"}
    words = {name for subject, name in CATALOGUE if subject != "job"}
    assert set(fold_jobs.HANDLERS) <= jobs
    assert set(fold_words.HANDLERS) <= words
    handled = {("job", name) for name in fold_jobs.HANDLERS}
    handled |= {key for key in CATALOGUE if key[0] != "job" and key[1] in fold_words.HANDLERS}
    assert set(CATALOGUE) - handled == SILENT


def test_an_unknown_event_passes() -> None:
    check_context("job", "later-invention", None)
    check_context("thing", "later-invention", {"a": 1})


@pytest.mark.parametrize(("name", "context"), [("finish", {}), ("release", {"ranks": "all"}), ("urgency", {"urgency": 5})])
def test_a_lacking_key_is_named_with_its_rfc(name: str, context: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="RFC 21"):
        check_context("job", name, context)


def test_vectors_of_job_events(vectors: Any) -> None:
    """Published events pass, but for our own keys of `alloc`; those that RFC 21 forbids do not."""
    checked = 0
    for case in vectors("job_event"):
        name, context = case["input"]["name"], case["input"].get("context")
        assert parse_event(format_event(name, 1.5, context)).context == (context or None)
        if case["log"] != "job eventlog":
            continue
        if "error" in case:
            with pytest.raises(Rejected):
                check_context("job", name, context)
        elif name == "alloc":  # its claims are ours
            check_values("job", name, context)
        else:
            check_context("job", name, context)
            checked += 1
    assert checked > 15


@pytest.mark.parametrize(
    ("subject", "name", "context"),
    [
        ("job", "exception", {"type": "x", "severity": 0, "note": "", "wait_status": -1}),
        ("job", "exception", {"type": "x", "severity": True, "note": ""}),
        ("job", "finish", {"status": 1 << 16}),
        ("job", "finish", {"status": 0.0}),
        ("job", "release", {"ranks": "3-1", "final": True}),
        ("job", "alloc", {"claims": [], "expiration": 0.0, "annotations": "x"}),
        ("resource", "drain", {"idset": "0", "nodelist": "h", "overwrite": 3}),
        ("resource", "online", {"idset": 0}),
    ],
)
def test_values_that_cannot_be_are_named(subject: str, name: str, context: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match=f"event {name}: "):
        check_context(subject, name, context)
