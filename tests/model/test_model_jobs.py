"""The fold's job half against a tiny reference of RFC 21, under random events, sensible or not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fluxkv.journal.fold_jobs import HANDLERS
from fluxkv.journal.job import HASHED, STATE_NAMES, TRANSITIONS, JobState
from fluxkv.journal.node import Node
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit

MODEST = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
CONTEXTS: dict[str, dict[str, Any]] = {
    "validate": {}, "invalidate": {}, "depend": {}, "flux-restart": {}, "memo": {"a": 1}, "clean": {}, "start": {},
    "priority": {"priority": 7}, "urgency": {"urgency": 3, "userid": 1}, "finish": {"status": 0}, "recall": {},
    "jobspec-update": {"attributes.system.duration": 5.0}, "set-flags": {"flags": ["debug"]}, "end": {"cause": "x"},
    "dependency-add": {"description": "d"}, "dependency-remove": {"description": "d"}, "free": {},
    "release": {"ranks": "all", "final": True}, "alloc": {"claims": [[0, "0", "", 0, 1]]}, "lost": {"rank": 0, "cause": "c"},
    "reason": {"code": "c", "text": "t"}, "grant": {"rank": 0, "shape": "s"}, "resource-update": {"expiration": 9},
    "prolog-start": {"description": "x"}, "prolog-finish": {"description": "x", "status": 0},
    "requeue": {"attempt": 2, "cause": "exit", "note": "n"},
    "epilog-start": {"description": "x"}, "epilog-finish": {"description": "x", "status": 0}, "debug.x": {},
    "quarantine": {"version": 1, "event": "start", "reason": "r"}, "resize": {"nodes": 1},
    "grow": {"claims": [[1, "0", "", 0, 1]]}, "shrink": {"ranks": "1", "until": 5.0, "force": 6.0, "jobs": "finish"},
    "node-script-start": {"kind": "epilog", "ranks": "1"}, "node-script-finish": {"kind": "epilog", "ranks": "1", "status": 0},
}  # fmt: skip
# RFC 21's diagram, written out once more.
DIAGRAM = {
    ("NEW", "validate"): "DEPEND", ("DEPEND", "depend"): "PRIORITY", ("PRIORITY", "priority"): "SCHED",
    ("SCHED", "alloc"): "RUN", ("SCHED", "urgency"): "PRIORITY", ("SCHED", "jobspec-update"): "PRIORITY",
    ("SCHED", "flux-restart"): "PRIORITY", ("RUN", "finish"): "CLEANUP", ("CLEANUP", "clean"): "INACTIVE",
}  # fmt: skip
OURS = {("CLEANUP", "requeue"): "PRIORITY"}
FATAL = ("DEPEND", "PRIORITY", "SCHED", "RUN")
# Where an event that moves a job may come; anywhere else it is impossible.
PLACE = {
    "validate": ("NEW",), "invalidate": ("NEW",), "depend": ("DEPEND",), "priority": ("PRIORITY", "SCHED"), "grant": ("SCHED",),
    "alloc": ("SCHED", "CLEANUP"), "start": ("RUN", "CLEANUP"), "finish": ("RUN", "CLEANUP"), "release": ("CLEANUP",),
    "free": ("CLEANUP",), "clean": ("CLEANUP",), "dependency-add": ("NEW", "DEPEND"), "epilog-start": ("CLEANUP",),
    "epilog-finish": ("CLEANUP",), "requeue": ("CLEANUP",), "resize": ("RUN",), "grow": ("RUN",), "shrink": ("RUN",),
}  # fmt: skip


class Reference:
    """state None: the job is gone (invalidated)."""

    def __init__(self) -> None:
        self.state: str | None = "NEW"
        self.holds = self.granted = False
        self.grown = self.gone = False  # whether it has a second node, and is known to be over there
        self.looked_after = False  # whether an epilog of that node alone goes on; that it ends is not said here
        self.attempt = 1
        self.once: set[str] = set()

    def possible(self, name: str) -> bool:
        if self.state not in PLACE.get(name, (self.state,)) or name in self.once:
            return False
        if name == "alloc":
            return not self.holds and (self.state == "SCHED" or self.granted)
        if name == "grant":
            return not self.granted
        if name == "grow":
            return self.holds and not self.grown
        if name == "shrink":
            return self.holds and self.grown
        if name == "node-script-start":
            return self.holds and self.grown and self.gone and not self.looked_after
        if name == "node-script-finish":
            return False
        if name in ("start", "finish", "release", "free", "resize"):
            return self.holds
        return name not in ("clean", "requeue") or not self.holds

    def expect(self, name: str, severity: int) -> bool:
        """Follow the event; False if it is impossible."""
        if self.state is None:
            return True
        if not self.possible(name):
            return False
        if name in ("start", "finish"):
            self.once.add(name)
        if name == "grant":
            self.granted = True
        if name == "alloc" or (name == "clean" and self.state == "CLEANUP"):
            self.granted = False
        if name == "alloc":
            self.holds = True
        if name == "grow":
            self.grown, self.gone, self.looked_after = True, False, False
        if name == "node-script-start":
            self.looked_after = True
        if name == "free":
            self.holds = self.grown = False
        if name == "requeue" and self.state == "CLEANUP" and self.attempt == 1:
            self.state, self.granted, self.attempt = "PRIORITY", False, 2
            self.once = set()  # the walk names attempt 2: said again it changes nothing
        elif name == "requeue":
            pass
        elif name == "invalidate" and self.state == "NEW":
            self.state = None
        elif name == "exception" and severity == 0 and self.state in FATAL:
            self.state = "CLEANUP"
        else:
            self.state = DIAGRAM.get((self.state, name), self.state)
        return True


class JobMachine(RuleBasedStateMachine):
    @initialize()
    def submit(self) -> None:
        self.state = State()
        for rank in (0, 1):
            self.state.nodes[rank] = Node(rank, f"n{rank}", 1, 0, 0, ())
        self.reference = Reference()
        self.apply("submit", {"urgency": 16, "userid": 1, "flags": 0, "version": 1, "jobspec": {"version": 1}})

    def apply(self, name: str, context: dict[str, Any]) -> None:
        self.state.apply(Commit(self.state.version + 1, 5, "", 0, 0, 1.0, [[name, 1, 2.0, context]], {}))

    @rule(name=st.sampled_from(sorted(CONTEXTS)))
    def event(self, name: str) -> None:
        self.say(name, CONTEXTS[name], 0)

    @rule(severity=st.integers(0, 7))
    def exception(self, severity: int) -> None:
        self.say("exception", {"type": "cancel", "severity": severity, "note": ""}, severity)

    @rule()
    @precondition(lambda self: self.reference.grown)
    def over_there(self) -> None:
        """Its second node is lost."""
        self.apply("lost", {"rank": 1, "cause": "c"})
        self.reference.gone = True

    @rule()
    def free_some(self) -> None:
        """Its second node goes back while it goes on."""
        reference = self.reference
        possible = reference.grown and reference.gone and not reference.looked_after and reference.state in ("RUN", "CLEANUP")
        self.judged("free", {"ranks": "1"}, possible or reference.state is None)
        reference.grown = reference.grown and not possible

    @rule()
    @precondition(lambda self: self.reference.state not in (None, "INACTIVE"))
    def next_step(self) -> None:
        """So that walks come far."""
        wanted = {"NEW": "validate", "DEPEND": "depend", "PRIORITY": "priority", "SCHED": "alloc", "RUN": "finish",
                  "CLEANUP": "free" if self.reference.holds else "clean"}[self.reference.state]  # fmt: skip
        self.say(wanted, CONTEXTS[wanted], 0)

    def say(self, name: str, context: dict[str, Any], severity: int) -> None:
        self.judged(name, context, self.reference.expect(name, severity))

    def judged(self, name: str, context: dict[str, Any], possible: bool) -> None:
        before, total = self.state.subjects(), self.state.quarantine.total
        self.apply(name, context)
        assert self.state.quarantine.total == total + (not possible)
        if not possible:  # nothing of it has happened: only the commit is in the job's story, and what is set aside
            after = self.state.subjects()
            for subjects in (before, after):
                for key in [key for key in subjects if key.startswith("quarantine")]:
                    del subjects[key]
                at = HASHED.index("commits")
                subjects["job/1"] = subjects["job/1"][:at] + subjects["job/1"][at + 1 :]
            assert before == after

    @invariant()
    def agrees(self) -> None:
        job = self.state.jobs.get(1)
        if self.reference.state is None:
            assert job is None
            return
        assert job is not None
        assert STATE_NAMES[job.state] == self.reference.state
        assert job.holds == self.reference.holds
        assert job.number == self.reference.attempt
        assert (job.granted is not None) == self.reference.granted
        assert self.state.nodes[0].jobs == ({1} if job.holds else set())
        assert self.state.nodes[1].jobs == ({1} if self.reference.grown else set())
        assert len(job.claims) == job.nnodes or not job.holds
        assert {k: v for k, v in self.state.counts.items() if v} == {job.state: 1}
        assert (job.result is None) == (self.reference.state != "INACTIVE")
        assert not (job.state == JobState.INACTIVE and (job.granted or self.state.nodes[0].grants))


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = MODEST


def test_the_code_s_table_is_the_diagram() -> None:
    assert {(STATE_NAMES[s], e): STATE_NAMES[t] for (s, e), t in TRANSITIONS.items()} == {**DIAGRAM, **OURS}


def test_the_fold_knows_every_event_of_the_walk() -> None:
    assert not [name for name in HANDLERS if name not in CONTEXTS and name not in ("submit", "exception")]


# -- published vectors ---------------------------------------------------------------------------------------------


def vectors(name: str) -> list[dict[str, Any]]:
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("FLUXKV_SPEC_DIR") or root.parent / "shared" / "spec") / "vectors"
    if not folder.is_dir():
        pytest.skip(f"no conformance data in {folder}: set FLUXKV_SPEC_DIR")
    cases: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return cases


def test_vectors_of_transitions() -> None:
    for case in vectors("job_transition"):
        event, _, severity = case["input"]["event"].partition(" severity=")
        before = JobState[case["input"]["state"]]
        if event == "exception":
            assert before.name in FATAL
            assert (severity, case["expected"]) == ("0", "CLEANUP")
        else:
            assert STATE_NAMES[TRANSITIONS[before, event]] == case["expected"]


def plain_claims(event: dict[str, Any]) -> dict[str, Any]:
    """RFC 21's alloc has no claims: ours always does."""
    context = dict(event.get("context") or {})
    if event["name"] == "alloc":
        context["claims"] = [[0, "0", "", 0, 1]]
    return context


def test_vectors_of_states() -> None:
    checked = 0
    for case in vectors("job_state"):
        if "error" in case:
            continue
        state = State()
        state.nodes[0] = Node(0, "n0", 1, 0, 0, ())
        for number, event in enumerate(case["input"]):
            row = [event["name"], 1, event["timestamp"], plain_claims(event)]
            state.apply(Commit(number + 1, 5, "", 0, 0, 1.0, [row], {}))
        job = state.jobs.get(1)
        expected = case["expected"]
        if expected.get("removed"):
            assert job is None
            continue
        assert job is not None
        assert STATE_NAMES[job.state] == expected["state"], case
        checked += 1
        for name in ("priority", "urgency", "memo"):
            if name in expected:
                assert getattr(job, name) == expected[name], case
    assert checked > 20
