"""Jobs that have left the state: their records in the journal, the index, and what it costs to find them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest

from fluxkv.journal.columns import from_columns, to_columns
from fluxkv.journal.decide import Decision
from fluxkv.journal.job import HASHED, INACTIVE, RUN, Job, job_value
from fluxkv.journal.log import Journal
from fluxkv.journal.retired import LEFT_OUT, MAX_BYTES, MAX_JOBS, index_line, records, retirement, versions_of
from fluxkv.journal.snapshot import dump, load, read_head
from fluxkv.journal.state import State
from fluxkv.journal.wire import pack, unpack
from fluxkv.kvs.errors import Rejected

KEPT = [name for name in HASHED if name not in LEFT_OUT]


def through_snapshot(state: State) -> State:
    head, chunks = dump(state)
    return load(read_head(head), chunks)


class Counting:
    """A store that counts the entries it reads."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.count = 0

    def read(self, after: int, limit: int = 1000) -> Any:
        found = self.store.read(after, limit)
        self.count += len(found)
        return found

    def entries(self, versions: Sequence[int]) -> Any:
        self.count += len(versions)
        return self.store.entries(versions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def retire(shell: Any, letters: str) -> dict[int, Job]:
    """Retire these jobs of the sample, as the worker does; their last records."""
    journal = shell.sample.journal
    jobs = [shell.sample.state.jobs[shell.ids[letter]] for letter in letters]
    version = journal.store.meta().version
    journal.append(Decision([["retire", "instance", time.time(), retirement(jobs)]]), version)
    return {job.id: job for job in jobs}


def kept(job: Job) -> list[Any]:
    return [getattr(job, name) for name in KEPT]


def test_a_record_comes_back_as_it_was(shell: Any) -> None:
    inactive = [job for job in shell.sample.state.jobs.values() if job.state == INACTIVE]
    assert len(inactive) == 9
    found = records(unpack(pack(retirement(inactive))))
    assert found is not None
    for job in inactive:
        assert kept(found[job.id]) == kept(job)
        assert job_value(found[job.id]) == job_value(job)  # what was left out was empty
        assert found[job.id].claims == job.claims
    (only,) = (records(retirement(inactive), [inactive[3].id]) or {}).values()
    assert kept(only) == kept(inactive[3])


@pytest.mark.parametrize(
    "context",
    [{"jobs": [1]}, {"jobs": [1, 2], "same": {}, "each": {"name": ["a"]}}, {"jobs": [1], "same": 5, "each": {}},
     {"jobs": [1], "same": {"claims_wire": 5}, "each": {}}, {"jobs": 5, "same": {}, "each": {}}],
)  # fmt: skip
def test_unreadable_records_are_none(context: dict[str, Any]) -> None:
    assert records(context) is None


def test_fields_of_another_program_are_left_alone() -> None:
    (job,) = (records({"jobs": [7], "same": {"colour": "red"}, "each": {"name": ["x"], "smell": [1]}}) or {}).values()
    assert (job.name, job.state, job.urgency) == ("x", INACTIVE, 16)


def ended(id: int, t: float, memo: str = "") -> Job:
    job = Job(id)
    job.state, job.t_inactive, job.memo = INACTIVE, t, {"m": memo} if memo else {}
    return job


def test_an_event_is_bounded_in_jobs_and_bytes() -> None:
    assert len(retirement(ended(id, 1.0) for id in range(MAX_JOBS + 5))["jobs"]) == MAX_JOBS
    large = [ended(id, 1.0, "x" * (MAX_BYTES // 2 - 1000)) for id in range(3)]
    assert retirement(large)["jobs"] == [0, 1]
    assert retirement([ended(1, 1.0, "x" * (MAX_BYTES + 1))])["jobs"] == [1]


def test_the_index_leaves_out_the_widest_gaps() -> None:
    line = index_line(7, {id: float(id) for id in (1000, 5, 1002, 1001, 9000)})
    assert line == [7, 5, 5.0, 9000.0, 5, 5, 1000, 1000, 1001, 1002, 9000, 9000]
    assert versions_of([line], [1, 5, 6, 999, 1000, 1001, 1003, 9000]) == {7: [5, 1000, 1001, 9000]}
    assert versions_of([index_line(1, {1000: 1.0}), line], [1000]) == {1: [1000], 7: [1000]}


def test_a_retired_job_is_found_by_a_point_read(shell: Any) -> None:
    gone = retire(shell, "bce")
    store = Counting(shell.sample.journal.store)
    journal = Journal(store)
    state = journal.load()
    assert state.retired == 3
    store.count = 0
    assert kept(journal.find_job(state, shell.ids["c"])) == kept(gone[shell.ids["c"]])
    assert store.count == 1
    wanted = [shell.ids[letter] for letter in "cbaz" if letter in shell.ids]
    assert [job.id for job in journal.known_jobs(state, wanted)] == wanted
    assert [event.name for _, event in journal.story(gone[shell.ids["b"]].commits, shell.ids["b"])][-1] == "clean"


def test_a_job_that_never_was_is_answered_without_a_scan(shell: Any) -> None:
    retire(shell, "abcdefghi")
    store = Counting(shell.sample.journal.store)
    journal = Journal(store)
    state = journal.load()
    store.count = 0
    between = shell.ids["c"] + 1
    assert journal.find_jobs(state, [3, between]) == {}
    with pytest.raises(Rejected) as caught:
        journal.find_job(state, 1 << 60)
    assert caught.value.code == "no-such-job"
    assert store.count <= 1  # an id between two that retired: their event is looked at


def test_events_without_records_are_folded_up_to(shell: Any) -> None:
    """As programs wrote them that kept no records."""
    journal, state = shell.sample.journal, shell.sample.state
    before = kept(state.jobs[shell.ids["b"]])
    journal.append(Decision([["retire", "instance", 1.0, {"jobs": [shell.ids["b"], 99]}]]), state.version)
    live = journal.load()
    assert kept(journal.find_job(live, shell.ids["b"])) == before
    assert [job.id for job in journal.newest(live, 0, lambda job: job.name == "build")] == [shell.ids["b"]]


def test_those_that_ended_last_come_first(shell: Any) -> None:
    retire(shell, "ab")
    retire(shell, "de")
    retire(shell, "c")
    journal = shell.sample.journal
    state = journal.load()
    everything = sorted((job for job in shell.sample.state.jobs.values() if job.state == INACTIVE), key=lambda job: -job.t_inactive)
    for seen in (state, journal.look()):
        assert [job.id for job in journal.newest(seen, 0, lambda job: True)] == [job.id for job in everything]
        for count in range(1, 10):
            found = journal.newest(seen, count, lambda job: job.name == "sleep")
            assert [job.id for job in found] == [job.id for job in everything if job.name == "sleep"][:count]


def test_two_that_retire_at_once(shell: Any) -> None:
    """Both events have the record of a job that both chose; it is listed once. So is one that an event names wrongly."""
    whole = shell.out("jobs", "-a")
    newest = shell.out("job", "last", "[:]")
    retire(shell, "abc")
    retire(shell, "bcd")
    version = shell.sample.journal.store.meta().version
    wrong = retirement([shell.sample.state.jobs[shell.ids[letter]] for letter in "jd"])
    shell.sample.journal.append(Decision([["retire", "instance", time.time(), wrong]]), version)
    retire(shell, "efj")
    state = shell.sample.journal.look()
    assert state.retired == 6
    assert state.jobs[shell.ids["j"]].state == RUN
    assert shell.out("jobs", "-a") == whole
    assert shell.out("job", "last", "[:]") == newest
    assert "equal to the live state" in shell.out("replay", "--diff", "live")


def test_no_more_is_read_than_was_asked_for(shell: Any) -> None:
    retire(shell, "ab")
    retire(shell, "cd")
    assert shell.sample.journal.save_snapshot(shell.sample.journal.load())
    store = Counting(shell.sample.journal.store)
    journal = Journal(store)
    state = journal.look()
    for count, read in ((5, 0), (6, 1), (7, 1), (8, 2), (9, 2), (0, 2)):
        store.count = 0
        assert len(journal.newest(state, count, lambda job: True)) == (count or 9)
        assert store.count == read
    store.count = 0
    assert len(journal.newest(state, 0, lambda job: True, since=state.retirements[1][3])) >= 5
    assert store.count == 1


def test_a_sieve_spares_records_and_loses_none(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a listing and a node's story pass over is never made; what they show is the same."""
    from fluxkv.journal import columns

    plain = [shell.out("jobs", "-a", "-f", states) for states in ("failed", "timeout,canceled", "completed", "inactive")]
    story = shell.out("inspect", "node", "1", "--json")
    retire(shell, "abcde")
    journal = shell.sample.journal
    assert journal.save_snapshot(journal.load())
    made: list[int] = []
    whole = columns._quick
    monkeypatch.setattr(columns, "_quick", lambda rows: (made.append(job.id) or job for job in whole(rows)))
    assert [shell.out("jobs", "-a", "-f", states) for states in ("failed", "timeout,canceled", "completed", "inactive")] == plain
    active = [job.id for job in journal.look().active()]
    made.clear()
    shell.out("jobs", "-a", "-f", "failed")
    assert sorted(made) == sorted([*active, shell.ids["b"], shell.ids["f"]])
    assert shell.out("inspect", "node", "1", "--json") == story


def test_results_are_counted_for_ever(shell: Any) -> None:
    before = shell.sample.journal.load().ended()
    assert list(before.values()) == [4, 2, 2, 1]
    retire(shell, "abcdefghi")
    state = shell.sample.journal.look()
    assert state.ended() == state.ended("default") == before
    assert sum(state.ended("another").values()) == 0


def test_the_index_is_part_of_digest_and_snapshot(shell: Any) -> None:
    before = shell.sample.journal.load().digest()
    retire(shell, "ab")
    state = shell.sample.journal.load()
    again = through_snapshot(state)
    assert again.retirements == state.retirements != []
    assert again.digest() == state.digest() != before
    state.retirements = []
    state.dirty_words.add("retired")
    assert again.digest() != state.digest()
    retire(shell, "a")  # twice: the second says nothing
    assert shell.sample.journal.load().retirements == again.retirements


def test_a_late_report_changes_no_job_that_has_ended(shell: Any) -> None:
    journal = shell.sample.journal
    job = shell.sample.state.jobs[shell.ids["a"]]
    report = {"rank": 0, "start": [[job.id, job.attempt, 1.0]], "timeout": [[job.id, job.attempt, 1.0]]}
    journal.append(Decision([["report", "node/0", 1.0, report]]), shell.sample.state.version)
    after = journal.load().jobs[job.id]
    assert job_value(after) == job_value(job)


def test_commands_find_a_retired_job(shell: Any) -> None:
    whole = shell.out("inspect", "job", shell.id("b"))
    log = shell.out("job", "eventlog", shell.id("b"))
    resources = shell.out("job", "info", shell.id("e"), "R")
    retire(shell, "be")
    assert shell.out("inspect", "job", shell.id("b")) == whole
    assert shell.out("job", "eventlog", shell.id("b")) == log
    assert shell.out("job", "info", shell.id("e"), "R") == resources
    assert shell.out("jobs", "-n", "-o", "{name} {returncode} {nnodes}", shell.id("e"), shell.id("b")) == "mpi 0 2\nbuild 3 1\n"
    assert "finish" in shell.out("journal", "show", "--job", shell.id("b"))
    assert "equal to the live state" in shell.out("replay", "--diff", "live")
    assert "2 jobs" in shell.out("journal", "show", "--after", str(shell.sample.state.version))
    assert '"same"' not in shell.out("journal", "show", "--json", "--after", str(shell.sample.state.version))


def test_jobs_that_had_the_same_share_no_list_and_no_table() -> None:
    """A snapshot has it once; each record changes its own in place."""
    values: list[Any] = [[], {}, [1, "a"], {"a": 1}, [1, ["b"]], {"a": {"b": [2]}}]
    for value in values:
        before = deepcopy(value)
        jobs = [Job(id) for id in (1, 2, 3)]
        for job in jobs:
            job.memo, job.commits, job.over = value, value, value
        made = from_columns(to_columns(jobs, jobspecs=True))
        for found in zip(*((job.memo, job.commits, job.over) for job in made), strict=True):
            assert list(found) == [before] * 3
            for at, one in enumerate(found):
                changed(one)
                assert [*found[at + 1 :]] == [before] * (2 - at), before


def changed(value: Any) -> None:
    """All of it, in place."""
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, list | dict):
            changed(one)
    if isinstance(value, dict):
        value["new"] = 0
    else:
        value.append(0)
