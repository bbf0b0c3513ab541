"""Constraints on jobs: RFC 43's operators against its vectors, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.journal.idset import parse
from fluxkv.journal.job import INACTIVE, Job, JobState
from fluxkv.journal.job_constraint import compile, parse_job_query, result_mask, state_mask
from fluxkv.kvs.errors import Rejected

HOSTS = {rank: f"n{rank}" for rank in range(4)}


def job_of(document: dict[str, Any]) -> Job:
    """A record of a job as a vector describes it."""
    job = Job(document["id"])
    job.userid, job.name, job.queue = document["userid"], document["name"], document["queue"]
    job.state, job.t_submit = int(JobState[document["state"]]), document["t_submit"]
    job.claims_wire = [[rank, "0", "", 0, 1] for rank in parse(document.get("ranks", ""))]
    if job.state == INACTIVE:
        job.status, job.t_run = (256 if document["result"] == "FAILED" else 0), 1.0
    return job


def test_vectors(vectors: Any) -> None:
    for case in vectors("job_list_constraint"):
        jobs = [job_of(document) for document in case["jobs"]]
        if "error" in case:
            with pytest.raises(Rejected):
                compile(case["input"], HOSTS)
        else:
            assert [job.id for job in filter(compile(case["input"], HOSTS), jobs)] == case["expected"], case["input"]


def test_names_of_states_and_results() -> None:
    assert state_mask("pending") == state_mask("PD") == 15
    assert state_mask("RUN") == state_mask("r") == 16
    assert state_mask("active") == 63
    assert result_mask("failed") == result_mask("F") == result_mask(2) == 2
    assert result_mask("cancelled") == result_mask("CANCELED") == 4
    for bad in ("Run", "sleeping", -1, None, 1.5, True):
        assert state_mask(bad) is None


@pytest.mark.parametrize(
    "bad",
    [5, [], {"a": 1, "b": 2}, {"colour": ["red"]}, {"states": "run"}, {"states": ["walk"]}, {"results": ["won"]}, {"name": [5]},
     {"userid": [None]}, {"userid": ["x"]}, {"ranks": ["a-"]}, {"hostlist": ["n["]}, {"t_run": []}, {"t_run": [">x"]},
     {"t_run": [">1", "<2"]}, {"t_run": [5]}, {"not": [{"x": []}]}, {"or": [5]}],
)  # fmt: skip
def test_what_is_no_constraint_is_refused(bad: Any) -> None:
    with pytest.raises(Rejected) as caught:
        compile(bad, HOSTS)
    assert caught.value.code == "bad-constraint"


def test_bounds() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"not": [deep]}
    with pytest.raises(Rejected, match="deep"):
        compile(deep, HOSTS)
    with pytest.raises(Rejected, match="terms"):
        compile({"name": ["x"] * 5000}, HOSTS)


def test_a_time_that_has_not_come_matches_nothing() -> None:
    job = Job(1)
    for sign in ("<", "<=", ">", ">="):
        assert not compile({"t_run": [f"{sign}5"]}, HOSTS)(job)
    assert compile({}, HOSTS)(job)


def test_queries() -> None:
    assert parse_job_query("sim") == {"name": ["sim"]}
    found = parse_job_query("state:run,sched & (user:42 | host:n[0-3]) & -queue:debug")
    assert found == {"and": [{"states": ["run", "sched"]}, {"or": [{"userid": ["42"]}, {"hostlist": ["n[0-3]"]}]},
                             {"not": [{"queue": ["debug"]}]}]}  # fmt: skip
    job = Job(1)
    job.userid, job.state, job.queue = 42, 16, "batch"
    assert compile(found, HOSTS)(job)
    job.queue = "debug"
    assert not compile(found, HOSTS)(job)
