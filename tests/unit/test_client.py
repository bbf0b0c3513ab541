"""The Python client against a real server; the worker's events are appended by the test."""

from __future__ import annotations

import io
import os
import time
from itertools import pairwise

import pytest
from client_rig import again, life, play

from fluxkv.instances import submission
from fluxkv.instances.client import Instance, JobHandle
from fluxkv.instances.output import OutputWriter
from fluxkv.journal import decide
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import IdSource
from fluxkv.journal.log import Journal, make_append
from fluxkv.journal.wire import pack, unpack
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Answer


def test_a_submitted_job_is_in_the_journal_without_its_environment(instance: Instance) -> None:
    job = instance.submit(["sim", "x"], ntasks=2, duration="5m", name="n", env={"A": "1"})
    record = instance.job(job)
    assert (record.name, record.ntasks, record.duration) == ("n", 2, 300.0)
    assert record.jobspec is not None
    assert "environment" not in record.jobspec["attributes"]["system"]
    assert record.jobspec["attributes"]["system"]["cwd"] == os.getcwd()
    (blob,) = instance.store.get_blobs([record.env])
    assert blob is not None
    assert unpack(blob) == {"A": "1"}


@pytest.mark.parametrize(
    ("status", "returncode", "result"),
    [(0, 0, "COMPLETED"), (3 << 8, 3, "FAILED"), (9, 137, "FAILED"), (15, 143, "FAILED")],
)
def test_wait_gives_the_result(instance: Instance, status: int, returncode: int, result: str) -> None:
    job = instance.submit(["true"])
    play(instance, life(job.id, status))
    found = job.wait(10)
    assert (found.id, found.status, found.returncode, found.result) == (job.id, status, returncode, result)
    assert found.ok == (status == 0)
    assert found.runtime == pytest.approx(1.5)
    with again(instance) as other:  # from a fold instead of the tail
        assert other.wait([str(job)], 1) == [found]


def test_many_jobs_share_commits_and_keep_their_order(instance: Instance) -> None:
    before = instance.store.meta().version
    ids = instance.submit_many([["job", str(number)] for number in range(2500)])
    assert len(set(ids)) == 2500
    assert all(first < second for first, second in pairwise(ids))
    assert instance.store.meta().version == before + 3
    state = instance.state()
    assert [state.jobs[id].jobspec["tasks"][0]["command"][1] for id in ids[::500]] == [
        "0", "500", "1000", "1500", "2000",
    ]  # fmt: skip
    assert len({state.jobs[id].env for id in ids}) == 1


def test_results_come_in_the_order_of_the_ends(instance: Instance) -> None:
    ids = instance.submit_many([["true"]] * 3)
    play(instance, life(ids[1]))
    play(instance, [*life(ids[2], 256), *life(ids[0])])
    assert [result.id for result in instance.as_ended(ids, 10)] == [ids[1], ids[2], ids[0]]
    assert [result.returncode for result in instance.wait(ids, 10)] == [0, 0, 1]


def test_an_id_somebody_has_taken_is_drawn_anew(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def same(origin_ms: int) -> IdSource:
        made.append(1)
        return IdSource(origin_ms, 7 if len(made) < 3 else 8, lambda: origin_ms + 5)

    made: list[int] = []
    monkeypatch.setattr(submission, "new_source", same)
    first = instance.submit(["true"])
    with again(instance) as other:
        second = other.submit(["true"])
    assert first.id != second.id
    assert len(made) == 3


def test_a_closed_queue_refuses_and_says_why(instance: Instance) -> None:
    Journal(instance.store).settle(
        lambda _: decide.change_queue("default", "disable", "maintenance", time.time())
    )
    with pytest.raises(Rejected, match="queue default does not accept jobs: maintenance") as caught:
        instance.submit(["true"])
    assert caught.value.code == "queue-closed"
    Journal(instance.store).settle(lambda _: decide.change_queue("default", "enable", "", time.time()))
    assert instance.submit(["true"]).id


def test_jobs_are_changed_as_the_command_does_it(instance: Instance) -> None:
    job, other = instance.submit(["true"]), instance.submit(["true"])
    instance.cancel(other.id)
    play(instance, [["validate", other.id, 1.0, None], ["exception", other.id, 1.0, {"type": "x", "severity": 0, "note": ""}],
                    ["clean", other.id, 1.0, None]])  # fmt: skip
    outcome = instance.update([job, other], duration="5m", name="again")
    assert outcome.changed == [job.id]
    assert list(outcome.refused) == [other.id]
    found = instance.job(job)
    assert (found.duration, found.name) == (300.0, "again")
    with pytest.raises(Rejected):
        instance.update(job, durtion="5m")


def test_waiting_ends_in_time(instance: Instance) -> None:
    job = instance.submit(["true"])
    with pytest.raises(Unavailable, match="timed out: 1 job still active") as caught:
        job.wait(0.05)
    assert caught.value.exit_status == 1


def test_many_are_cancelled_though_some_move_all_the_time(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a flood some job always begins or ends between a fold and an append: the others are cancelled all the same."""
    ids = instance.submit_many([["true"]] * 2500)
    journal = instance.journal
    state = journal.load()
    append = journal.append
    moved = iter(ids)

    def late(decision: Decision, decided_at: int) -> Answer:
        id = next(moved)
        journal.store.append(make_append(journal.meta, Decision([["memo", id, 1.0, {"a": 1}]], bumps=[f"job/{id}"]), 0))
        return append(decision, decided_at)

    monkeypatch.setattr(journal, "append", late)
    before = state.version
    assert sorted(instance.cancel(ids, "enough", state=state)) == ids
    state = journal.load()
    assert all(state.jobs[id].exceptions == [["cancel", 0, "enough"]] for id in ids)
    assert state.version - before < 40  # one of ours and one of theirs for each halving


def test_a_cancelled_job_that_never_ran(instance: Instance) -> None:
    job = instance.submit(["true"])
    play(instance, life(job.id)[:3])
    assert job.cancel("no more")
    assert not job.cancel("no more")
    play(instance, [["clean", job.id, time.time(), None]])
    found = job.wait(10)
    assert (found.result, found.status, found.returncode) == ("CANCELED", None, 1)
    assert found.exception == ("cancel", "no more")


def test_an_invalid_job_and_an_unknown_one(instance: Instance) -> None:
    job = instance.submit(["true"])
    play(instance, [["invalidate", job.id, time.time(), None]])
    assert job.wait(10).exception == ("invalidate", "the jobspec was refused")
    with again(instance) as other:
        for unknown in (job.id, 77):  # RFC 21: an invalidated job is deleted
            with pytest.raises(Rejected, match="no such job"):
                other.wait([unknown], 1)
        with pytest.raises(Rejected, match="no such job"):
            other.cancel([77])


def test_events_are_the_story_then_live(instance: Instance) -> None:
    job = instance.submit(["true"])
    events = life(job.id)
    play(instance, events[:3])
    seen = job.events(follow=True)
    assert [next(seen).name for _ in range(4)] == ["submit", "validate", "depend", "priority"]
    play(instance, events[3:])
    assert [event.name for event in seen][-2:] == ["free", "clean"]
    assert next(job.events()).name == "submit"
    assert {event.name for event in instance.events()} >= {"instance-create", "resource-define", "clean"}
    with pytest.raises(Unavailable, match="timed out"):
        list(instance.events(instance.submit(["x"]), follow=True, timeout=0.05))


def test_a_jobspec_brings_its_environment_into_a_blob(instance: Instance) -> None:
    jobspec = {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["a"], "slot": "t", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "cwd": "/", "environment": {"B": "2"}}},
    }
    record = instance.job(instance.submit(jobspec))
    assert record.jobspec is not None
    assert "environment" not in record.jobspec["attributes"]["system"]
    assert unpack(instance.store.get_blobs([record.env])[0] or b"") == {"B": "2"}
    assert "environment" in jobspec["attributes"]["system"]  # the caller's own stays as it was
    with pytest.raises(Rejected, match="resources"):
        instance.submit({**jobspec, "resources": []})
    with pytest.raises(Rejected, match="not together with a jobspec"):
        instance.submit(jobspec, ntasks=2)
    with pytest.raises(Rejected, match="bad option 'colour'"):
        instance.submit(["a"], colour="red")


def test_an_environment_of_any_bytes_is_kept() -> None:
    data = submission.pack_environment({"A": "\udcff", "gone": None})
    import msgpack

    assert msgpack.unpackb(data, unicode_errors="surrogateescape") == {"A": "\udcff"}


def test_output_pushed_before_the_end_is_all_shown(instance: Instance) -> None:
    job = instance.submit(["x"])
    out, err = io.BytesIO(), io.BytesIO()
    names: list[str] = []
    attachment = instance.attach(job, OutputWriter(out, err), lambda name, *_: names.append(name))
    key = Keys(instance.store.namespace).output(job.id)
    for number in range(1500):
        data = {"stream": "stdout", "rank": "0", "data": f"{number}\n"}
        instance.store.push(key, [pack(["data", data])])
    instance.store.push(key, [pack(["data", {"stream": "stderr", "rank": "0", "data": "oops"}])])
    play(instance, life(job.id, 512))
    assert attachment.run(10).returncode == 2
    assert out.getvalue().split() == [b"%d" % number for number in range(1500)]
    assert err.getvalue() == b"oops"
    assert names[0] == "submit"
    assert names[-1] == "clean"
    with again(instance) as other:  # after the end
        late = io.BytesIO()
        (batch,) = other.watch([job.id], lambda _: OutputWriter(late, late), 10)
        assert batch[0].returncode == 2
        assert late.getvalue().endswith(b"1499\noops")


def test_input_is_forwarded_with_its_end(instance: Instance) -> None:
    job = instance.submit(["cat"])
    reading, writing = os.pipe()
    attachment = instance.attach(job, OutputWriter(io.BytesIO(), io.BytesIO()))
    attachment.forward_input(reading)
    os.write(writing, b"hello")
    with pytest.raises(Unavailable, match="timed out"):
        attachment.run(0.2)
    os.close(writing)
    attachment = instance.attach(job, OutputWriter(io.BytesIO(), io.BytesIO()))
    attachment.forward_input(reading)
    with pytest.raises(Unavailable, match="timed out"):
        attachment.run(0.2)
    os.close(reading)
    messages = instance.store.messages(Keys(instance.store.namespace).input(job.id))
    assert [unpack(message.data) for message in messages] == [["data", b"hello"], ["eof"]]


def test_handles_are_numbers_and_texts(instance: Instance) -> None:
    job = instance.submit("exit 3")
    assert isinstance(job, JobHandle)
    assert int(job) == job.id
    assert str(job).startswith("ƒ")
    assert instance.job(job).jobspec["tasks"][0]["command"] == ["/bin/sh", "-c", "exit 3"]  # type: ignore[index]


def test_the_package_exports_what_it_says() -> None:
    import fluxkv

    for name in fluxkv.__all__:
        assert getattr(fluxkv, name) is not None
    with pytest.raises(AttributeError):
        fluxkv.nothing  # noqa: B018
