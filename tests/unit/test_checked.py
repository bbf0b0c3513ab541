"""Jobs that are alike but for plain texts are checked once, and none gets by that a check refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import pytest

from fluxkv.instances import checked
from fluxkv.instances.checked import Checked
from fluxkv.instances.plan_inputs import check_jobspec
from fluxkv.instances.submission import build_jobspec
from fluxkv.journal.job import Job
from fluxkv.journal.jobspec_check import MAX_BYTES
from fluxkv.journal.wire import pack
from fluxkv.kvs.errors import Rejected

Change = Callable[[dict[str, Any]], Any]


def job_of(jobspec: dict[str, Any]) -> Job:
    job = Job(1)
    job.jobspec, job.spec_hash = jobspec, blake2b(pack(jobspec), digest_size=12).digest()
    return job


def member(number: int) -> dict[str, Any]:
    made = build_jobspec(["simulate", f"in.{number}"])
    made["attributes"]["system"]["environment"] = {"FLUX_JOB_CC": str(number)}
    return made


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that are checked one by one."""
    found: list[Job] = []

    def check(job: Job) -> None:
        found.append(job)
        check_jobspec(job)

    monkeypatch.setattr(checked, "check_jobspec", check)
    return found


def test_members_of_an_ensemble_are_checked_once(count: list[Job]) -> None:
    known = Checked()
    for number in range(100):
        known.check(job_of(member(number)))
    assert len(count) == 1
    other = member(1)
    other["attributes"]["system"]["duration"] = 60.0
    known.check(job_of(other))
    assert len(count) == 2


def test_what_is_remembered_has_an_end(count: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "MOST", 4)
    known = Checked()
    for number in range(20):
        jobspec = member(0)
        jobspec["attributes"]["system"]["duration"] = float(number)
        known.check(job_of(jobspec))
    assert len(known._known) <= 6
    assert len(count) == 20


def _system(jobspec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = jobspec["attributes"]["system"]
    return found


FAULTS: dict[str, Change] = {
    "a word with NUL": lambda one: one["tasks"][0]["command"].append("a\0b"),
    "a word that is none": lambda one: one["tasks"][0]["command"].append(7),
    "no words": lambda one: one["tasks"][0]["command"].clear(),
    "words that are one": lambda one: one["tasks"][0].update(command="simulate"),
    "words by name": lambda one: one["tasks"][0].update(command={"simulate": 1}),
    "a variable without a name": lambda one: _system(one)["environment"].update({"": "1"}),
    "a name with =": lambda one: _system(one)["environment"].update({"A=B": "1"}),
    "a name with NUL": lambda one: _system(one)["environment"].update({"A\0": "1"}),
    "a value with NUL": lambda one: _system(one)["environment"].update({"A": "1\0"}),
    "a value that is no text": lambda one: _system(one)["environment"].update({"A": 1}),
    "an environment that is none": lambda one: _system(one).update(environment=["A"]),
    "too large": lambda one: one["tasks"][0]["command"].append("x" * (MAX_BYTES + 1)),
    "too large by many": lambda one: one["tasks"][0]["command"].extend(["x"] * (MAX_BYTES // 8)),
    "no task": lambda one: one["tasks"].clear(),
    "a time limit that is none": lambda one: _system(one).update(duration=-1),
    "an unknown key": lambda one: one["tasks"][0].update(colour="red"),
    "attributes that are none": lambda one: one.update(attributes=[]),
}


@pytest.mark.parametrize("change", FAULTS.values(), ids=FAULTS)
def test_what_a_check_refuses_is_refused_beside_others_that_are_alike(change: Change) -> None:
    known = Checked()
    known.check(job_of(member(0)))
    bad = copy.deepcopy(member(1))
    change(bad)
    with pytest.raises(Rejected) as alone:
        check_jobspec(job_of(bad))
    for _ in range(2):
        with pytest.raises(Rejected) as beside:
            known.check(job_of(bad))
        assert str(beside.value) == str(alone.value)


def test_texts_that_are_not_plain_are_checked_by_themselves(count: list[Job]) -> None:
    known = Checked()
    for number in range(3):
        jobspec = member(number)
        _system(jobspec)["environment"]["NAME"] = "käse"
        known.check(job_of(jobspec))
    assert len(count) == 3
