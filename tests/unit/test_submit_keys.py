"""Submitting once (--id KEY): the same key is the same job, of any age, whoever is quicker and whatever answer is lost."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from client_rig import again, life, play

from fluxkv.instances import submission, submit_keys
from fluxkv.instances.archiving import Archiver, run
from fluxkv.instances.client import Instance
from fluxkv.instances.submit_keys import MAX_LENGTH, asked
from fluxkv.journal.archive_config import ArchiveRules
from fluxkv.journal.ids import f58
from fluxkv.journal.log import Journal
from fluxkv.journal.retired import retirement
from fluxkv.kvs.errors import FluxkvError, Rejected


def submits(instance: Instance) -> int:
    return sum(event.name == "submit" for event in instance.events())


def test_the_same_key_is_the_same_job(instance: Instance) -> None:
    """Also from another process, with another environment, once it has ended, and once it has left the live state."""
    job = instance.submit(["sim", "x"], key="run-1", ntasks=2)
    assert instance.submit(["sim", "x"], key="run-1", ntasks=2, env={"A": "other"}, urgency=3) == job
    with again(instance) as other:
        assert other.submit(["sim", "x"], key="run-1", ntasks=2).id == job.id
        assert job.id not in other.submitter.submitted
    assert instance.submit(["sim", "x"], key="run-2", ntasks=2) != job
    play(instance, life(job.id))
    assert job.wait(10).ok
    assert instance.submit(["sim", "x"], key="run-1", ntasks=2) == job
    meta = instance.store.meta()
    instance.store.prune_guards(meta.uid, meta.epoch, meta.version)  # guards of jobs go, those of keys never
    play(instance, [["retire", "instance", time.time(), retirement([instance.job(job)])]])
    assert job.id not in instance.state().jobs
    with again(instance) as other:
        assert other.submit(["sim", "x"], key="run-1", ntasks=2).id == job.id
        assert other.wait([job.id], 5)[0].ok
    assert submits(instance) == 2


def test_a_key_s_job_that_is_in_the_archive(instance: Instance, tmp_path: Path) -> None:
    """The commit that its guard names has left the server."""
    job = instance.submit(["sim"], key="old")
    play(instance, life(job.id))
    play(instance, [["retire", "instance", time.time(), retirement([instance.job(job)])]])
    journal = Journal(instance.store)
    journal.save_snapshot(journal.load())
    rules = ArchiveRules(True, True, after_s=0.0, keep_s=0.0, keep_commits=1)
    run(Archiver(journal, str(tmp_path)), rules, instance.store.now(), all_of_it=True, trim=True)
    assert len(instance.store.read(0)) == 1
    with again(instance) as other:
        assert other.submit(["sim"], key="old").id == job.id
        with pytest.raises(Rejected, match="asked for something else"):
            other.submit(["other"], key="old")
    shutil.rmtree(tmp_path)
    with again(instance) as other, pytest.raises(FluxkvError) as caught:  # not: a second job
        other.submit(["sim"], key="old")
    assert caught.value.code != "key-taken"


@pytest.mark.parametrize("options", [{"ntasks": 3}, {"duration": "1m"}, {"retry": 1}, {"cwd": "/"}, {"name": "n"}])
def test_another_job_under_the_same_key_is_an_error(instance: Instance, options: dict[str, Any]) -> None:
    job = instance.submit(["sim"], key="k")
    with pytest.raises(Rejected, match=rf"--id k: job {job} was submitted with it") as caught:
        instance.submit(["sim"], key="k", **options)
    assert caught.value.code == "key-taken"
    assert str(job) in caught.value.hint
    assert submits(instance) == 1


def test_of_two_at_once_one_has_the_job_and_the_other_its_id(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked before either appended: the guard tells the second."""
    look = submit_keys.Keys.look
    first: list[Any] = []

    def late(self: submit_keys.Keys, *given: Any) -> bool:
        found = look(self, *given)
        if not first:
            first.append(None)
            with again(instance) as other:
                first[0] = other.submit(["sim"], key="k").id
        return found

    monkeypatch.setattr(submit_keys.Keys, "look", late)
    assert instance.submit(["sim"], key="k").id == first[0]
    with pytest.raises(Rejected, match="asked for something else"):
        instance.submit(["other"], key="k")
    assert submits(instance) == 1


def test_an_answer_that_was_lost(instance: Instance) -> None:
    """The submit is in the journal, nobody has said so, and it is sent again: it finds itself."""
    store, lost = instance.store, []

    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def append(self, request: Any) -> Any:
            if not lost:
                lost.append(store.append(request))
            return store.append(request)

    submitter = submission.Submitter(Deaf())  # type: ignore[arg-type]
    ids = submitter.submit([submission.prepare(["sim"], {}, {}) for _ in range(3)], 16, 0, ["a", "b", "c"])
    assert len(set(ids)) == submits(instance) == 3
    assert set(submitter.submitted) == set(ids), "they are its own"
    (version,) = instance.job(ids[0]).commits
    assert set(submitter.submitted.values()) == {version - 1}
    assert submitter.submit([submission.prepare(["sim"], {}, {})], 16, 0, ["b"]) == [ids[1]]


def test_many_of_which_some_are_there(instance: Instance) -> None:
    """Chains too: each waits for the one before it, whenever that was submitted."""

    def chain(count: int) -> list[int]:
        commands, keys = [["sim", str(n)] for n in range(count)], [f"run-{n}" for n in range(count)]
        return instance.submit_many(commands, keys=keys, dependencies="afterok:#-1")

    some, every = chain(3), chain(5)
    assert every[:3] == some
    assert submits(instance) == 5
    (waits,) = instance.job(every[3]).jobspec["attributes"]["system"]["dependencies"]  # type: ignore[index]
    assert waits["value"] == f58(some[2])
    assert instance.submit_many([["a"], ["b"]], keys=["", "x"])[1] == instance.submit(["b"], key="x").id
    with pytest.raises(Rejected, match="more than one of these jobs") as caught:
        instance.submit_many([["a"], ["a"]], keys=["y", "y"])
    assert "{cc}" in caught.value.hint


def test_what_a_key_may_be(instance: Instance) -> None:
    for bad in ("x" * (MAX_LENGTH + 1), "a\nb", "\udc80", 5):
        with pytest.raises(Rejected) as caught:
            instance.submit(["sim"], key=bad)  # type: ignore[arg-type]
        assert caught.value.code == "bad-key"
    for good in ("x" * MAX_LENGTH, "ƒ 1/2 #{}", "nightly 2026-11-26"):
        assert instance.submit(["sim"], key=good) == instance.submit(["sim"], key=good)


def test_what_makes_a_submission_another() -> None:
    def of(command: list[str], **options: Any) -> str:
        return asked(submission.build_jobspec(command, **options))

    plain = of(["sim"])
    assert of(["sim"], begin_time=5.0) == of(["sim"], begin_time=6.0) == plain
    assert of(["sim"], shell_options={"input.stdin.type": "service"}) == plain  # run, at a terminal or not
    assert of(["sim"], attributes={"system.environment": {"FLUX_JOB_CC": "1"}}) == plain
    others = [of(["sim", "x"]), of(["sim"], ntasks=2), of(["sim"], dependencies="afterok:1"), of(["sim"], input="f"),
              of(["sim"], files={"a": b"1"}), of(["sim"], files={"a": b"2"}), of(["sim"], queue="q")]  # fmt: skip
    assert len({plain, *others}) == len(others) + 1
    assert of(["sim"], files={"a": b"1"}) == others[4]
