"""`fluxkv tree` and the census behind it: sums over levels, equal leaves, what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from worker_rig import Rig, jobspec

from fluxkv.instances.census import Branch, Census, summed, told_inside
from fluxkv.instances.final_totals import MEMO, Final, at_end, told_of
from fluxkv.instances.nested import Totals, part, totals_of
from fluxkv.journal.ids import f58
from fluxkv.journal.job import ACTIVE, INACTIVE, RESULT_ORDER, RUN, Job, Result
from fluxkv.journal.log import Journal
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Corrupt
from fluxkv.kvs.memory_server import share
from fluxkv.tools import tree_cmd
from fluxkv.tools.main import cli

PLAIN: dict[str, Any] = {"parent_ids": False, "no_combine": False, "extended": False, "totals": False, "skip_root": False}


def job(id: int, name: str, state: int = 16, status: int | None = None) -> Job:
    made = Job(id)
    made.name, made.state, made.status, made.t_run, made.holds = name, state, status, 1.0, state != INACTIVE
    return made


def branch(one: Job | None, own: Totals, jobs: list[Job], inside: list[Branch] | None = None, **more: Any) -> Branch:
    below = {each.job.id: each for each in inside or () if each.job}
    settings = {"more": False, "over": False, **more}
    totals = summed(own, below.values(), over=settings["over"])
    return Branch(one, "/" if one is None else "/x", 10.0, 0 if one is None else 1, own, totals, jobs, below, **settings)


def test_an_instance_counts_by_what_is_in_it() -> None:
    ended = branch(job(1, "a", INACTIVE, 256), Totals(successful=3, failed=1, cores=2), [])
    runs = branch(job(2, "b"), Totals(running=1, pending=2, cores=4, busy_cores=1), [])
    root = Totals(running=2, failed=1, successful=1, cores=8, busy_cores=5)
    found = summed(root, [ended, runs])
    assert (found.pending, found.running, found.successful, found.failed) == (2, 2, 4, 1)
    assert found.busy_cores == 2, "four are the child's, of which one is busy"
    assert found.total == 9
    assert found.progress == pytest.approx(5 / 9)


def test_what_was_lost_with_an_instance_is_counted_once() -> None:
    inner = branch(job(2, "inner"), Totals(lost=3, successful=1, cores=1), [], over=True)
    outer = Totals(lost=2, cores=2)  # inner, and another one
    found = summed(outer, [inner], over=True)
    assert (found.lost, found.successful, found.running, found.busy_cores) == (4, 1, 0, 0)
    assert found.progress == 0.2, "what was lost has not been done"


def test_equal_leaves_are_one_line(capsys: Any) -> None:
    inner = branch(job(9, "inner"), Totals(running=1, cores=1, busy_cores=1), [job(20, "deep")])
    leaves = [job(n, "sleep") for n in range(1, 4)] + [job(4, "sleep", INACTIVE, 0), job(5, "x\ny")]
    root = branch(None, Totals(running=5, successful=1, cores=8, busy_cores=5), [leaves[0], job(9, "inner"), *leaves[1:]], [inner])
    tree_cmd.draw(root, PLAIN)
    assert capsys.readouterr().out.splitlines() == [
        ". (1/6 done, 5/8 cores)",
        "├── 3*[sleep:R]",
        "├── inner:R (0/1 done, 1/1 cores)",
        "│   └── deep:R",
        "├── sleep:CD",
        "└── x?y:R",
    ]
    tree_cmd.draw(root, {**PLAIN, "skip_root": True})
    assert capsys.readouterr().out.splitlines()[1:3] == ["inner:R (0/1 done, 1/1 cores)", "└── deep:R"]
    tree_cmd.draw(root, {**PLAIN, "no_combine": True})
    assert capsys.readouterr().out.count("sleep:R") == 3
    tree_cmd.draw(root, {**PLAIN, "totals": True, "no_header": False})
    header, top, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["JOBS", "DONE", "FAILED", "CORES", "PROGRESS", "NAME"]
    assert top.split() == ["6", "1", "0", "5/8", "17%", "."]
    document = tree_cmd.document(root)
    assert [one["name"] for one in document["jobs"] if "jobs" in one] == ["inner"]


def test_equal_instances_of_which_no_more_is_shown_are_one_line(capsys: Any) -> None:
    def inside(number: int, done: int, shown: bool = False) -> Branch:
        return branch(job(number, "share"), Totals(successful=done, cores=1), [job(99, "deep")] if shown else [])

    parts = [inside(1, 2), inside(2, 3), inside(3, 2), inside(4, 2, shown=True), inside(5, 2)]
    root = branch(None, Totals(running=5, cores=8), [one.job for one in parts if one.job], parts)
    tree_cmd.draw(root, PLAIN)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "├── 3*[share:R (2/2 done, 0/1 cores)]",
        "├── share:R (3/3 done, 0/1 cores)",
        "└── share:R (2/2 done, 0/1 cores)",
        "    └── deep:R",
    ]
    for single in ("no_combine", "totals", "parent_ids"):
        tree_cmd.draw(root, {**PLAIN, single: True, "no_header": True})
        assert capsys.readouterr().out.count("share:R") == 5


@pytest.mark.parametrize(
    ("path", "value"),
    [("stats.failed", 2), ("stats.total", 6), ("progress", 0.5), ("utilization", 0.25), ("gpu_utilization", 0.0),
     ("resources.free.ncores", 6), ("resources.allocated.nnodes", 1), ("resources.all.ngpus", 0)],
)  # fmt: skip
def test_fields(path: str, value: float) -> None:
    totals = Totals(pending=2, running=1, successful=1, failed=2, nodes=2, busy_nodes=1, cores=8, busy_cores=2)
    assert part(totals, path.split(".")) == value


def test_nothing_is_opened_that_is_not_shown(monkeypatch: Any) -> None:
    rig = Rig()
    share("tree-of-instances", rig.server)
    for _ in range(3):
        rig.submit(jobspec(cores=1))
    journal = Journal(rig.store)
    state = journal.look()
    for one in state.active():
        one.memo = {"uri": f"memory:x#/{f58(one.id)}"}
    opened: list[int] = []

    def open_one(store: Any, one: Job) -> Nothing:
        opened.append(one.id)
        return Nothing()

    monkeypatch.setattr("fluxkv.instances.census.journal_inside", open_one)
    Census((INACTIVE, 0), 10, None, 10).of(journal, state, 0.0)
    assert opened == []
    Census((ACTIVE, 0), 10, 0, 10).of(journal, state, 0.0)
    assert opened == []
    census = Census((ACTIVE, 0), 10, None, 2)
    found = census.of(journal, state, 0.0)
    assert (len(opened), census.left_out, found.more) == (2, 1, False)
    unseen = Census((INACTIVE, 0), 10, None, 10, 2)
    opened.clear()
    assert unseen.of(journal, state, 0.0).jobs == []
    assert (len(opened), unseen.left_out, unseen.uncounted) == (2, 0, 1)
    found = Census((ACTIVE, 0), 2, 0, 2).of(journal, state, 0.0)
    assert (len(found.jobs), found.more) == (2, True)
    assert totals_of(state, over=True).lost == 3
    done = CliRunner().invoke(cli, ["tree", "-f", "nonsense", "--uri", "memory:tree-of-instances"])
    assert done.exit_code == 1


def test_instances_that_count_as_one_job_stand_where_they_are_and_are_no_warning(monkeypatch: Any, capsys: Any) -> None:
    root = branch(None, Totals(successful=7, cores=2), [], uncounted=5)
    assert tree_cmd.label(root, PLAIN) == ". (7/7 done, 0/2 cores, 5 ended instances as one job each)"
    assert tree_cmd.document(root)["uncounted"] == 5
    assert "uncounted" not in tree_cmd.document(root._replace(uncounted=0))
    rig = Rig()
    share("tree-of-many", rig.server)
    rig.submit(jobspec(cores=1))
    monkeypatch.setattr(tree_cmd, "MOST_UNSEEN", 0)
    monkeypatch.setattr("fluxkv.instances.census.is_instance", lambda *_: True)
    monkeypatch.setattr(Census, "_unseen", lambda self, *_: ([], [job(1, "a", INACTIVE, 0)]))
    monkeypatch.setattr(Census, "_branch", lambda self, *_, **__: None)
    said = [CliRunner().invoke(cli, ["tree", *more, "--uri", "memory:tree-of-many"]) for more in ([], ["-l"])]
    assert [one.exit_code for one in said] == [0, 0]
    assert ["1 ended instance as one job each" in one.stdout for one in said] == [True, False]
    assert ["count as one job each" in one.stderr for one in said] == [False, True]


def ended(id: int, memo: dict[str, Any], result: Result = Result.COMPLETED, t_run: float = 1.0) -> Job:
    """A job that was an instance."""
    job = Job(id)
    job.state, job.memo, job.t_run, job.t_inactive = INACTIVE, memo, t_run, t_run + 1.0
    job.status = 0 if result == Result.COMPLETED else 256
    assert job.result == result
    return job


def test_what_an_instance_had_come_to_its_job_says_however_many_there_are(monkeypatch: Any) -> None:
    """Two thousand children are summed up without opening one."""
    rig = Rig()
    journal = Journal(rig.store)
    state = journal.look()
    for id in range(1, 2001):
        uri = f"memory:x#/{f58(id)}"
        bad = id % 2 == 0
        state.jobs[id] = ended(id, {"uri": uri, MEMO: [1, 3, int(bad), 0, 0, 0]}, Result.FAILED if bad else Result.COMPLETED)
    state.results[""] = [0] * len(RESULT_ORDER)
    state.results[""][RESULT_ORDER.index(Result.COMPLETED)] = 1000 + 7
    state.results[""][RESULT_ORDER.index(Result.FAILED)] = 1000
    monkeypatch.setattr("fluxkv.instances.census.journal_inside", lambda *_: pytest.fail("one is opened"))
    census = Census((ACTIVE, 0), 10, None, 10, 100)
    found = census.of(journal, state, 0.0)
    assert (found.totals.successful, found.totals.failed, census.uncounted) == (6007, 1000, 0)
    assert at_end(state, "/", alone=True) == Final(1007, 1000)
    assert at_end(state, "/", alone=False) == Final(6007, 1000)


def test_of_an_instance_that_several_jobs_had_the_last_one_s_word_counts() -> None:
    told = {"uri": f"memory:x#/{f58(5)}", MEMO: [1, 10, 0, 0, 0, 0]}
    before, after = ended(5, told), ended(6, {**told, MEMO: [1, 15, 0, 0, 0, 0]}, t_run=10.0)
    state = State()
    state.jobs.update({5: before, 6: after})
    assert [(one.job, one.totals.successful) for one in told_inside(state, "/")] == [(after, 15)]
    after.state, after.status = RUN, None
    assert told_inside(state, "/") == [], "somebody goes on with it"


@pytest.mark.parametrize(
    "row", [None, 3, [], [1, 2], [1, 2, 3, 4, 5, -6], [1, 2, 3, 4, 5, "6"], [1, 2, 3, 4, 5, True], [2, 1, 1, 1, 1, 1]]
)
def test_what_does_not_speak_of_the_last_attempt_is_no_word_of_it(row: Any) -> None:
    assert told_of(ended(5, {MEMO: row})) is None
    assert told_of(ended(5, {MEMO: [1, 5, 4, 3, 2, 1]})) == Final(5, 4, 3, 2, 1)


def test_an_instance_that_cannot_be_read_hides_no_other(monkeypatch: Any) -> None:
    rig = Rig()
    for _ in range(2):
        rig.submit(jobspec(cores=1))
    journal = Journal(rig.store)
    state = journal.look()
    first, second = state.active()
    for one in (first, second):
        one.memo = {"uri": f"memory:x#/{f58(one.id)}"}
    said: list[str] = []
    journal.warn = said.append

    @contextmanager
    def open_one(store: Any, one: Job) -> Iterator[Journal]:
        below = Journal(rig.store)
        if one is first:
            below.look = damaged  # type: ignore[method-assign]
        yield below

    def damaged() -> Any:
        raise Corrupt("an entry is not what it was")

    monkeypatch.setattr("fluxkv.instances.census.journal_inside", open_one)
    found = Census((ACTIVE, 0), 10, 1, 10).of(journal, state, 0.0)
    assert list(found.inside) == [second.id]
    assert said == ["/ƒ2: an entry is not what it was"]


class Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *args: object) -> None:
        return None
