"""Ensembles: members and shares, results as columns, the record that children share. Whole ones: `live/test_ensemble_live.py`."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worker_rig import T0, Rig, jobspec

from fluxkv.instances import ensemble_feed, ensemble_record, ensemble_salvage
from fluxkv.instances.client import Instance, connect
from fluxkv.instances.ensemble_feed import Feeder, Stopped, interrupted
from fluxkv.instances.ensemble_job import as_job, nodes_for, numbered, on_fewer
from fluxkv.instances.ensemble_lead import _children as children_of
from fluxkv.instances.ensemble_lead import _Late
from fluxkv.instances.ensemble_record import Info, Record, Share
from fluxkv.instances.ensemble_salvage import Salvage
from fluxkv.instances.spool import Spool
from fluxkv.instances.submission import prepare
from fluxkv.instances.wire import pack as as_record
from fluxkv.journal.config import parse_rules
from fluxkv.journal.ensemble import (
    MOST,
    Count,
    Ended,
    Indices,
    Part,
    Request,
    Rows,
    decode,
    enough,
    gaps,
    indices_of,
    packed_rows,
    part_of,
    share_size,
    telling_gap,
    total_of,
)  # fmt: skip
from fluxkv.journal.file_archive import read_archive
from fluxkv.journal.ids import f58
from fluxkv.journal.job import Job
from fluxkv.journal.node import Node
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit, pack, read_commit
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.tools.ensemble_cmd import ensemble, submit
from fluxkv.tools.ensemble_request import cutter, job_of, request_of

# -- members --------------------------------------------------------------------------------------------------------

sets = st.sets(st.integers(0, 200), min_size=1)


def runs(numbers: set[int]) -> Indices:
    ordered = sorted(numbers)
    return Indices([(one, one) for one in ordered])


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(sets)
def test_indices_are_a_sorted_list(numbers: set[int]) -> None:
    for indices in (runs(numbers), indices_of(",".join(map(str, sorted(numbers))))):
        every = sorted(numbers)
        assert list(indices) == every
        assert len(indices) == len(every)
        assert [indices[at] for at in range(len(every))] == every
        assert [indices.position_of(one) for one in every] == list(range(len(every)))
        assert all(indices.position_of(one) == -1 for one in range(202) if one not in numbers)
        for start in range(len(every)):
            assert list(indices.part(start, 3)) == every[start : start + 3]


def test_a_million_indices_are_one_range() -> None:
    indices = indices_of("1-1000000")
    assert indices.ranges == ((1, 1_000_000),)
    assert (indices[0], indices[999_999], indices.position_of(500_000)) == (1, 1_000_000, 499_999)


def test_ranges_that_overlap_are_refused() -> None:
    for ranges in ([(1, 3), (3, 4)], [(4, 5), (1, 2)], [(5, 4)]):
        with pytest.raises(Rejected):
            Indices(ranges)


def test_children_tell_four_times_a_second_together_and_less_with_the_ensemble_s_age() -> None:
    assert [telling_gap(children, 0.0) for children in (1, 2, 4, 8, 64)] == [0.5, 0.5, 1.0, 2.0, 2.0]
    assert [telling_gap(children, 0.0) for children in (128, 320, 5000)] == [4.0, 10.0, 30.0], "what one tells all read"
    assert [telling_gap(1, age_s) for age_s in (10.0, 64.0, 640.0, 86_400.0)] == [0.5, 1.0, 10.0, 30.0]


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.booleans(), max_size=60))
def test_gaps_are_what_has_not_ended(ended: list[bool]) -> None:
    found = [at for first, last in gaps(bytearray(ended)) for at in range(first, last + 1)]
    assert found == [at for at, one in enumerate(ended) if not one]


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 100_000), st.integers(1, 64), st.integers(1, 128), st.floats(0, 5000))
def test_shares_take_all_and_become_smaller(total: int, children: int, slots: int, rate: float) -> None:
    sizes, left = [], total
    while left:
        size = share_size(left, children, slots, rate)
        assert 1 <= size <= min(left, MOST)
        assert size >= min(left, slots, MOST)
        sizes.append(size)
        left -= size
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= max(total // (2 * children), slots, int(rate / 2), 1)  # nobody takes what half of the children could do
    assert slots * 2 <= max(enough(slots, rate), 2 * MOST)


# -- bytes ----------------------------------------------------------------------------------------------------------

ended = st.builds(
    Ended, st.integers(0, 2**20), st.integers(0, 2**64 - 1), st.sampled_from((1, 2, 4, 8)), st.integers(-1, 0xFFFF),
    st.integers(1, 100), st.floats(0, 2e9), st.floats(0, 1e6, width=32), st.text(max_size=50),
)  # fmt: skip


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ended, max_size=20))
def test_results_come_back_as_they_were(rows: list[Ended]) -> None:
    part = part_of(Part((1, 17, 2), rows).encode())
    assert list(part) == rows
    assert part.path == (1, 17, 2)
    assert part.failed == sum(not row.ok for row in rows)
    count = Count(3, 1, 2, 9).plus(part)
    assert (count.done, count.failed) == (3 + len(rows), 1 + part.failed)
    assert count.worst == max([2, *(row.returncode for row in rows if not row.ok)])


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(ended, max_size=4), min_size=1, max_size=5))
def test_parts_that_are_appended_are_one(rows: list[list[Ended]]) -> None:
    part = part_of(b"".join(Part((1, 17, 2), some).encode() for some in rows))
    assert list(part) == [row for some in rows for row in some]
    assert part.path == (1, 17, 2)


def test_a_part_as_earlier_programs_wrote_it_is_read() -> None:
    part = Part((1, 17, 2), [Ended(4, 9, 2, 256, 1, 5.0, 0.5, "exec: no such file")])
    plain = zlib.compress(pack([1, [1, 17, 2], [column.tobytes() for column in part.columns], part.why]))
    assert list(part_of(plain)) == list(part)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", Part((1, 2, 3)).encode()[:-3], Part((1, 2, 3)).encode()[:4], Part((1, 2, 3)).encode() + Part((1, 3, 3)).encode(),
     Part((1, 2, 3)).encode() + b"\x03", Request({}, (), ((1, 2),), {}).encode()],
)  # fmt: skip
def test_results_that_cannot_be_read_are_said_to_be(data: bytes) -> None:
    with pytest.raises(Corrupt):
        part_of(data)


def test_a_member_s_exit_code_is_a_shell_s() -> None:
    def row(result: int, status: int) -> Ended:
        return Ended(0, 1, result, status, 1, 1.0, 1.0)

    found = [row(1, 0), row(2, 3 << 8), row(2, 9), row(4, -1), row(8, 142 << 8), row(2, 0)]
    assert [one.returncode for one in found] == [0, 3, 137, 1, 142, 1]
    assert [one.letters for one in found] == ["CD", "F", "F", "CA", "TO", "F"]


def test_a_request_comes_back_as_it_was() -> None:
    rows, count = packed_rows([str(n), "x"] for n in range(2500))
    made = Request({"a": [1]}, ("{cc}",), ((0, 2499),), {"A": "b"}, 2, 1, rows, ("p=x",), {"queue": {}}, {"b": b"c"}, 4, "own")
    assert decode(made.encode()) == made
    assert decode(made.encode()).encode() == made.encode()
    assert count == 2500
    inputs = Rows(decode(made.encode()).rows)
    assert [inputs[at] for at in (0, 999, 1000, 2499)] == [("0", "x"), ("999", "x"), ("1000", "x"), ("2499", "x")]
    with pytest.raises(Corrupt):
        decode(made.encode()[:-1])


# -- what is typed --------------------------------------------------------------------------------------------------


def asked(*words: str) -> Request:
    context = submit.make_context("submit", list(words))
    values = {name: value for name, value in context.params.items() if name not in ("uri", "dry_run", "words")}
    return decode(request_of(values, context.params["words"]).encode())


def test_a_member_has_its_number_in_command_files_and_environment() -> None:
    request = asked("--cc=5,7-8", "--output=out.{cc}", "--env=N=n{cc}", "-c2", "-n3", "./simulate", "{cc}", "{{id}}")
    cut = cutter(request)
    made = [cut(index) for index in Indices(request.ranges)]
    assert [one["tasks"][0]["command"] for one in made] == [["./simulate", n, "{{id}}"] for n in ("5", "7", "8")]
    system = made[1]["attributes"]["system"]
    assert system["environment"] == {"N": "n7", "FLUX_JOB_CC": "7"}
    assert system["shell"]["options"]["output"]["stdout"]["path"] == "out.7"
    assert request.cores == 6


def test_inputs_fill_a_member_as_bulksubmit_fills_a_job() -> None:
    request = asked("echo", "{0}", "{1}", "{seq}", "{{id}}", ":::", "a", "b", ":::", "1", "2")
    cut = cutter(request)
    found = [cut(index)["tasks"][0]["command"] for index in (3, 0)]
    assert found == [["echo", "b", "2", "3", "{{id}}"], ["echo", "a", "1", "0", "{{id}}"]]
    assert cut(2)["attributes"]["system"]["environment"]["FLUX_JOB_CC"] == "2"


@pytest.mark.parametrize(("words", "told"), [
    (("--cc=1-3",), "no command"),
    (("--cc=x", "true"), "--cc"),
    (("--cc=1-3", "-n", "{cc}", "true"), "--ntasks"),
    (("--cc=1-3", "--define=p=x", "true"), "--define"),
    (("--cc=1-3", "--conf=resource.a=1", "true"), "--conf"),
    (("echo", "{1}", ":::", "a"), "asks for input 1"),
    (("echo", "{.p}", ":::", "a"), "no part"),
    (("echo", ":::"), "no input"),
    (("--per-node=0", "--cc=1", "true"), "--per-node"),
    (("--cc=1-3", "true", ":::", "a"), "both name the members"),
])  # fmt: skip
def test_what_cannot_be_is_said_before_there_is_a_job(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        asked(*words)
    assert told in caught.value.format_message()


def test_help_lists_what_is_for_people() -> None:
    shown = CliRunner().invoke(ensemble, ["--help"]).stdout
    assert "rerun" in shown
    assert "feed" not in shown


def test_one_bad_input_among_many_is_said_before_there_is_a_job() -> None:
    with pytest.raises(click.UsageError, match="p2 of 'x'"):
        asked("--define=p2=int(x)", "echo", "{.p2}", ":::", "1", "2", "x")


def test_from_python_a_member_has_its_number_too() -> None:
    jobspec, _ = prepare(["./simulate", "{cc}"], {"cores_per_task": 2, "output": "out.{cc}"}, {})
    request = decode(numbered(jobspec, [9, 3, 4, 3], {"A": "b"}, 2).encode())
    assert (request.ranges, request.cores, request.env, request.per_node) == (((3, 4), (9, 9)), 2, {"A": "b"}, 2)
    made = cutter(request)(9)
    assert made["tasks"][0]["command"] == ["./simulate", "9"]
    assert made["attributes"]["system"]["environment"] == {"FLUX_JOB_CC": "9"}
    assert made["attributes"]["system"]["shell"]["options"]["output"]["stdout"]["path"] == "out.9"
    assert numbered(jobspec, range(1, 10**6), {}, 1).ranges == ((1, 10**6 - 1),)
    spread, _ = prepare(["true"], {"nodes": 2}, {})
    for bad_spec, indices in ((jobspec, []), (jobspec, [-1]), (jobspec, range(-2, 2)), (spread, [1])):
        with pytest.raises(Rejected):
            numbered(bad_spec, indices, {}, 1)


def eight_nodes(config: dict[str, Any] | None = None) -> State:
    state = State()
    records = tuple(NodeRecord(rank, f"n{rank}", 15, 0, 8 << 10, ("big",) if rank < 6 else ()) for rank in range(8))
    inventory = {"method": "configuration", "R": render_set(ResourceSet(records))}
    state.apply(Commit(1, 5, "p", 1, 0, 1.0, [["resource-define", "resource", 1.0, inventory]], {}))
    for node in state.nodes.values():
        node.online = True
    if config:
        state.rules = parse_rules(config)
    return state


def test_from_python_an_ensemble_is_what_the_command_makes() -> None:
    state = eight_nodes({"queues": {"batch": {"requires": ["big"]}}})
    words = ("-c2", "-t5m", "--memory-per-task=100", "--output=out.{cc}", "--cwd=/tmp", "--per-node=2", "--cc=1-500", "--kvs=own",
             "-qbatch", "--bank=b", "--requires=host:n1 or host:n2 or host:n7", "--dependency=afterok:ƒ2q", "--total-time=2h",
             "--retry=2", "--conf=queue.policy=easy", "--job-name=sims", "--env=-*", "./simulate", "{cc}")  # fmt: skip
    context = submit.make_context("submit", list(words))
    values = context.params
    typed = request_of({name: one for name, one in values.items() if name not in ("uri", "dry_run", "words")}, values["words"])
    constraint = " ".join(values["requires"])
    size = nodes_for(state, typed, None, constraint, "batch")
    assert size == 2, "n1 and n2, of the queue's six"
    made, env = as_job(
        state, ["./simulate", "{cc}"], range(1, 501), {},
        {"cores_per_task": 2, "duration": "5m", "memory_mb_per_task": 100, "output": "out.{cc}", "cwd": "/tmp", "queue": "batch",
         "bank": "b", "constraint": constraint, "dependencies": "afterok:ƒ2q", "retry": 2, "name": "sims"},
        nodes=None, per_node=2, total_time="2h", conf={"queue": {"policy": "easy"}}, kvs="own", put=print,
    )  # fmt: skip
    whole = job_of(typed, values, size, None)
    asked_for, got = (decode(next(read_archive(one["attributes"]["system"].pop("files"))).data) for one in (whole, made))
    assert made == whole
    assert got._replace(env={}) == asked_for._replace(env={})
    assert env == got.env


def test_what_no_node_has_is_not_waited_for() -> None:
    """Properties that no node has were told as of nodes that are down, with a hint to wait for them."""
    state, request = eight_nodes({"queues": {"batch": {"requires": ["big"]}}}), asked("--cc=1-4", "true")
    for requires, queue in (("gold", "batch"), ("host:n7", "batch")):
        with pytest.raises(Rejected, match="is among those required") as caught:
            nodes_for(state, request, None, requires, queue)
        assert caught.value.code == "unsatisfiable"
    for node in state.nodes.values():
        node.online = False
    with pytest.raises(Rejected, match="no node that could run a member is up") as caught:
        nodes_for(state, request, None, "host:n1", "batch")
    assert caught.value.code == "no-nodes"


def test_a_limit_of_the_whole_is_named_as_it_was_typed() -> None:
    words = ["--total-time=soon", "--cc=1", "true"]
    values = submit.make_context("submit", words).params
    with pytest.raises(click.BadParameter, match="bad duration 'soon'") as caught:
        job_of(asked("--cc=1", "true"), values, 1, None)
    assert caught.value.param_hint == "'--total-time'"


@pytest.mark.parametrize("wrong", [
    {"kvs": "mine"}, {"per_node": 0}, {"conf": {"resource": {"a": 1}}}, {"conf": {"queue": {"policy": "none-such"}}},
    {"options": {"queue": "none-such"}}, {"options": {"nodes": 2}}, {"options": {"cores_per_task": 3}, "per_node": 2},
])  # fmt: skip
def test_from_python_what_cannot_be_is_said_before_there_is_a_job(wrong: dict[str, Any]) -> None:
    rest: dict[str, Any] = {"options": {}, "nodes": None, "per_node": 1, "total_time": 0.0, "conf": {}, "kvs": "parent", **wrong}
    with pytest.raises(Rejected):
        as_job(eight_nodes({"queues": {"batch": {}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "batch"}}}}}),
               ["true"], range(5), {}, put=print, **rest)  # fmt: skip


def test_few_that_run_again_ask_for_few_nodes() -> None:
    state = eight_nodes()
    request = asked("--cc=1-100", "-c2", "true")
    spec = {"resources": [{"type": "node", "count": 8, "with": []}], "attributes": {}}
    for members, nodes in ((100, 8), (16, 8), (5, 3), (1, 1)):
        made = on_fewer(spec, state, request._replace(ranges=((1, members),)))
        assert (made["resources"][0]["count"], spec["resources"][0]["count"]) == (nodes, 8)


# -- the record -----------------------------------------------------------------------------------------------------


@pytest.fixture
def record(instance: Instance) -> Record:
    return Record(instance.kvs)


def test_no_two_children_take_the_same(instance: Instance, record: Record) -> None:
    """Two that look at the same moment: one of them takes again."""
    total, pool = 100, Indices([(0, 39), (60, 119)])
    record.begin(Info(120, 2, 1), pool)
    with connect(instance.uri) as other:
        records = {1: record, 2: Record(other.kvs)}
        for each in records.values():
            each.shares(each.kvs.view())  # both have seen the beginning
        taken: dict[int, list[int]] = {1: [], 2: []}
        for turn in range(100):
            child = 1 + turn % 2
            found = records[child].take(child, lambda left: 7)
            if found is None:
                break
            share, left = found
            taken[child] += records[child].positions(share)
            assert left == total - sum(map(len, taken.values()))
        assert sorted(taken[1] + taken[2]) == list(pool)
        assert len(taken[1]) + len(taken[2]) == total
        mine = [at for share in record.shares(record.kvs.view(), 2) for at in record.positions(share)]
        assert sorted(mine) == sorted(taken[2])


def test_who_has_taken_a_share_knows_its_members(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read again for that: all children of an ensemble would read what all have told meanwhile."""
    record.begin(Info(10, 1, 1), Indices([(0, 9)]))
    taken = record.take(1, lambda left: 4)
    assert taken is not None

    def view(*_: object) -> object:
        raise AssertionError("it is read again")

    with monkeypatch.context() as within:
        within.setattr(type(record.kvs), "view", view)
        assert list(record.positions(taken[0])) == [0, 1, 2, 3]
    record.begin(Info(10, 1, 2), Indices([(5, 9)]))
    later = record.take(1, lambda left: 2)
    assert later is not None
    assert list(record.positions(later[0])) == [5, 6]


def test_a_take_that_loses_is_made_again(instance: Instance, record: Record) -> None:
    record.begin(Info(10, 2, 1), Indices([(0, 9)]))
    with connect(instance.uri) as other:
        second = Record(other.kvs)
        once: list[Any] = []

        def size(left: int) -> int:
            if not once:
                once.append(second.take(2, lambda left: 4))  # while the first is deciding
            return 4

        assert record.take(1, size) == (Share(1, 4, 4, 1), 2)
        assert once == [(Share(1, 0, 4, 2), 6)]
    assert record.take(1, lambda left: 100) == (Share(1, 8, 2, 1), 0)
    assert record.take(1, lambda left: 100) is None


def row(position: int, result: int = 1, status: int = 0) -> Ended:
    return Ended(position, 1000 + position, result, status, 1, 5.0, 0.5)


def test_results_are_listed_in_the_order_of_indices(record: Record) -> None:
    record.begin(Info(6, 2, 1), Indices([(0, 5)]))
    record.report(Part((1, 7, 1), [row(3), row(0)]), 7, 1, Count(2, 0, 0, 1))
    record.report(Part((1, 8, 1), [row(5, 2, 256), row(1)]), 8, 1, Count(2, 1, 1, 0))
    record.report(Part((1, 7, 1)), 7, 2, Count(2, 0, 0, 0))  # nothing new but what it has come to
    assert [one.position for _, one in record.rows(6)] == [0, 1, 3, 5]
    assert [part.path[1] for part, _ in record.rows(6)] == [7, 8, 7, 8]
    assert [one.position for _, one in record.rows(6, lambda one: not one.ok)] == [5]
    assert gaps(record.finished(6)) == [(2, 2), (4, 4)]
    assert record.counts() == {7: Count(2, 0, 0, 0), 8: Count(2, 1, 1, 0)}
    assert record.total() == total_of(record.counts().values()) == Count(4, 1, 1, 0)


def test_members_that_end_one_by_one_take_few_keys_and_are_read_once(
    instance: Instance, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each takes minutes a telling has one of them. Whoever draws a bar looks after each: what that reads is what came."""
    monkeypatch.setattr(ensemble_record, "TOGETHER", 40)
    told: dict[str, tuple[int, int]] = {}
    read: list[int] = []
    feeders = {7: Record(instance.kvs), 8: Record(instance.kvs)}
    for number in range(100):
        for child, feeder in feeders.items():
            feeder.report(Part((1, child, 1), [row(2 * number + child - 7)]), child, number, Count(number + 1))
        read += [one.position for part in record.news(record.kvs.view(), told) for one in part]
    assert read == list(range(200))
    assert len(list(record.parts())) == 2 * 3  # 40, 40 and 20 of each
    assert [one.position for _, one in record.rows(200)] == list(range(200))
    assert not list(record.news(record.kvs.view(), told))


def test_a_lead_that_is_begun_again_tells_the_rest_beside_what_it_had_told(record: Record) -> None:
    """It takes in results of several children: two of them are never at one key."""
    record.begin(Info(8, 2, 1), Indices([(0, 7)]))
    for life in range(2):
        late = _Late(record, 8)
        for place, child in enumerate((7, 7, 8, 9)):
            late.keep(Part((1, child, 1), [row(4 * life + place)]))
    assert sorted((part.path[1], one.position) for part, one in record.rows(8)) == [
        (7, 0), (7, 1), (7, 4), (7, 5), (8, 2), (8, 6), (9, 3), (9, 7)]  # fmt: skip
    assert record.counts() == {0: Count(8)}


def test_a_child_that_is_told_to_end_tells_what_had_ended_and_takes_no_more(instance: Instance, record: Record) -> None:
    jobspec, env = prepare(["true"], {}, {})
    request = numbered(jobspec, range(3), env, 1)
    record.begin(Info(3, 1, 1), Indices(request.ranges))
    told: list[int] = []

    def cut(index: int) -> dict[str, Any]:
        told.append(15)  # a signal comes while members are submitted: nothing is broken off
        return cutter(request)(index)

    feeder = Feeder(instance, record, request, cut, me=7, attempt=1, outer=1, slots=1, is_told_to_end=lambda: bool(told))
    feeder._rows.append(row(0))
    with pytest.raises(Stopped):
        feeder.run()
    assert list(record.finished(3)) == [1, 0, 0]
    assert record.counts()[7].done == 1
    (share,) = record.shares(record.kvs.view(), 7)
    assert len(instance.state().jobs) == share.size, "of what it had begun to submit nothing is unknown"


def test_a_later_attempt_of_a_slow_child_takes_no_more_than_the_first(
    instance: Instance, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What earlier attempts had come to is not what ended in its first half second."""
    jobspec, env = prepare(["true"], {}, {})
    request = numbered(jobspec, range(3), env, 1)
    record.begin(Info(3, 1, 1), Indices(request.ranges))
    feeder = Feeder(instance, record, request, cutter(request), me=7, attempt=2, outer=1, slots=4)
    salvaged = Part((1, 7, 1), [row(0), row(1)])
    feeder.resume(bytearray(3), iter([salvaged]), Count(100_000))
    assert feeder.count.done == 100_002
    began = feeder._rated_at
    monkeypatch.setattr(ensemble_feed, "time", SimpleNamespace(monotonic=lambda: began + 1.0))
    feeder._rows.append(row(2))
    feeder._rate_now()
    assert feeder._rate == 1.0
    assert (enough(4, feeder._rate), feeder._size(10_000)) == (8, 5_000)


def test_what_a_child_submits_it_does_not_read_again(instance: Instance, record: Record) -> None:
    jobspec, env = prepare(["true"], {}, {})
    request = numbered(jobspec, range(3), env, 1)
    record.begin(Info(3, 1, 1), Indices(request.ranges))
    feeder = Feeder(instance, record, request, cutter(request), me=7, attempt=1, outer=1, slots=1)
    ours: set[str] = set()
    feeder._submit([0, 1, 2], ours)
    (entry,) = [entry for entry in instance.store.read(0, 100) if entry.id in ours]
    assert [event[0] for event in read_commit(entry).events] == ["submit"] * 3


def test_another_round_hands_out_what_is_left(record: Record) -> None:
    record.begin(Info(10, 1, 1), Indices([(0, 9)]))
    record.take(1, lambda left: 6)
    record.begin(Info(10, 1, 2), Indices([(2, 3), (8, 9)]))
    assert record.shares(record.kvs.view()) == []  # what was taken in the last round is nobody's
    found = record.take(2, lambda left: 3)
    assert found is not None
    assert list(record.positions(found[0])) == [2, 3, 8]
    assert json.loads(record.kvs.get("ensemble"))["round"] == 2


# -- what children that are gone had come to --------------------------------------------------------------------------


@pytest.mark.parametrize(("exception", "status", "again"), [
    (None, 0, False), (None, 256, False), (None, 15, True), (None, 9, True), (None, 11, False),
    (["shutdown", "the instance is being stopped"], 15, True), (["lost", ""], None, True),
    (["shutdown", "the instance is being stopped"], 256, True), (["shutdown", "the instance is being stopped"], 0, False),
    (["timeout", ""], 142 << 8, False), (["cancel", ""], None, False),
])  # fmt: skip
def test_what_ended_with_its_child_is_run_again(exception: Any, status: int | None, again: bool) -> None:
    job = Job(1)
    job.exception, job.status = exception, status
    assert interrupted(job) == again


@pytest.mark.parametrize("error", [
    Unavailable("its server is away", code="server-away"), Unavailable("no file", code="archive"), Corrupt("an entry is damaged"),
])  # fmt: skip
def test_a_journal_that_can_not_be_read_is_said_and_holds_up_nobody(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def opened(store: object, namespace: str, *, over: bool) -> None:
        raise error

    def stopped() -> None:
        raise Stopped

    monkeypatch.setattr(ensemble_salvage, "store_of", opened)
    told: list[str] = []
    there = Salvage(Indices([(0, 9)]), bytearray(10), told.append, 0.0)
    assert list(there.of_child(instance.store, 7, (1, 2), 1)) == []
    assert ["child ƒ8.1" in told[0], "child ƒ8.2" in told[1], len(told)] == [True, True, 2]
    if error.args == ("its server is away",):  # who is told to end while he waits does not wait on
        with pytest.raises(Stopped):
            list(Salvage(Indices([(0, 9)]), bytearray(10), told.append, waits=stopped).of_child(instance.store, 7, (1,), 1))


def test_ends_of_members_that_nobody_has_answered_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All was killed: one was reported when there was no worker any more, of two only the launcher knows, one of them by KILL."""
    rig = Rig(nodes=2)
    rig.say(["instance-create", "instance", T0, {"uid": "u", "owner": 1, "namespace": "/ƒ6/ƒ8", "schema": 1, "parent": "unix:/kv"}])
    rig.turn()
    ids = []
    for index in range(4):
        spec = jobspec()
        spec["attributes"]["system"]["environment"] = {"FLUX_JOB_CC": str(index)}
        ids.append(rig.submit(spec))
    rig.started(*ids)
    rig.over(ids[0], 3 << 8)
    keys = [f"{rig.job(id).key}.{rig.job(id).ranks[0]}" for id in ids]
    version = rig.store.meta().version
    folder = tmp_path / "ns" / "f6-5-0" / "ns" / "f8-3-1" / "spool"
    folder.mkdir(parents=True)
    spool = Spool(str(folder))
    for id, key, status in zip(ids[1:3], keys[1:3], (0, 9), strict=True):
        spool.add(as_record(["x", ["over", key, status, T0, T0 + 1, None, "", "", 0, 0.0, id]]))
    spool.close()
    monkeypatch.setattr(ensemble_salvage, "store_of", lambda store, namespace, *, over: MemoryStore(rig.server))

    def found(roots: list[str]) -> list[tuple[int, int, str]]:
        there, above = Salvage(Indices([(0, 9)]), bytearray(10), print, roots=roots), SimpleNamespace(namespace="/ƒ6")
        return [(row.position, row.status, row.why) for part in there.of_child(above, 7, (1,), 1) for row in part]  # type: ignore[arg-type]

    assert found([str(tmp_path)]) == [(0, 3 << 8, ""), (1, 0, "")]
    assert found([str(tmp_path / "elsewhere")]) == [(0, 3 << 8, "")]
    assert rig.store.meta().version == version, "it only reads"


def test_names_of_children_are_job_ids(record: Record) -> None:
    child = 123_456_789_012
    record.report(Part((1, child, 1), [row(0)]), child, 1, Count(1))
    assert list(record.counts()) == [child]
    assert any(f58(child)[1:] in entry.key for entry in record.kvs.ls("count"))


def test_a_node_that_has_not_spoken_yet_has_a_child_and_one_that_is_down_has_none() -> None:
    names = ("fresh", "up", "gone", "drained", "unanswered")
    nodes = {rank: Node(rank, name, 1, 0, 0, ()) for rank, name in enumerate(names)}
    for rank in (1, 2, 4):
        nodes[rank].hello = ["b", "s", 1, "1-1", []]
    for rank in (1, 2):
        nodes[rank].t_status = 1.0
    nodes[1].online = True
    nodes[3].drain = [1.0, "why"]
    here: Any = SimpleNamespace(state=lambda: SimpleNamespace(nodes=nodes))
    request = Request({}, (), ((0, 99),), {})
    assert children_of(here, request, 100) == 3
    assert children_of(here, request._replace(per_node=3), 100) == 9
    assert children_of(here, request, 1) == 1
    nodes.clear()
    assert children_of(here, request, 100) == 1
