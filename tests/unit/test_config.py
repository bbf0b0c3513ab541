"""The instance's config: what is valid, what it means for a job, what the journal keeps of it, and what it costs a submit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import config_file
from fluxkv.instances.submission import Submitter
from fluxkv.journal import decide, decide_config
from fluxkv.journal.config import Rules, parse_rules
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.journal.snapshot import dump, load, read_head
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Appended, Conflicted

NOW = 1_700_000_000.0
TWO = {
    "queues": {
        "batch": {"requires": ["batch"], "policy": {"limits": {"duration": "8h", "job-size": {"max": {"nnodes": 4}}}}},
        "debug": {"requires": ["debug"], "policy": {"jobspec": {"defaults": {"system": {"duration": "10m"}}},
                                                     "limits": {"duration": "30m", "job-size": {"max": {"ncores": 8}}}}},
    },
    "policy": {"jobspec": {"defaults": {"system": {"queue": "batch", "duration": "1h"}}},
               "limits": {"job-size": {"max": {"nnodes": 8, "ngpus": 0}}}},
}  # fmt: skip


def jobspec(queue: str = "", duration: float = 0.0, nodes: int = 0, cores: int = 1, gpus: int = 0) -> dict[str, Any]:
    held = [{"type": "core", "count": cores}]
    if gpus:
        held.append({"type": "gpu", "count": gpus})
    slot = {"type": "slot", "count": 1, "label": "task", "with": held}
    system: dict[str, Any] = {"duration": duration, **({"queue": queue} if queue else {})}
    return {
        "version": 1, "resources": [{"type": "node", "count": nodes, "with": [slot]} if nodes else slot],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": system},
    }  # fmt: skip


def system(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["attributes"]["system"]
    return found


# -- the document ---------------------------------------------------------------------------------------------


def test_vectors_of_queue_config(vectors: Any) -> None:
    for case in vectors("queue_config"):
        if "error" in case:
            with pytest.raises(Rejected) as caught:
                parse_rules(case["input"])
            assert caught.value.code == "bad-config", case
            continue
        rules, expected = parse_rules(case["input"]), case["expected"]
        assert not rules.queues if expected.get("anonymous") else list(rules.queues) == expected["queues"]
        assert rules.default_queue == expected.get("default", "")
        assert {name: one.parent for name, one in rules.queues.items() if one.parent} == expected.get("virtual", {})


def test_vectors_of_queue_constraint(vectors: Any) -> None:
    for case in vectors("queue_constraint"):
        rules = parse_rules({"queues": {"batch": case["input"]["queue_config"]}})
        assert rules.constraint("batch", case["input"]["constraints"]) == case["expected"]


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ([], "the document"),
        ({"quues": {}}, "[quues]"),
        ({"queues": 3}, "queues"),
        ({"queue": {"policy": ["fcfs"]}}, "queue.policy"),
        ({"queues": {"a": 3}}, "queues.a"),
        ({"queues": {"a/b": {}}}, "queues.'a/b'"),
        ({"queues": {"a": {"requires": "ssd"}}}, "queues.a.requires"),
        ({"queues": {"a": {"requires": ["no!"]}}}, "queues.a.requires"),
        ({"queues": {"a": {"needs": []}}}, "queues.a.needs"),
        ({"queues": {"a": {"hosts": "n[0-"}}}, "queues.a.hosts"),
        ({"queues": {"a": {}, "b": {"parent": ["a"]}}}, "queues.b.parent"),
        ({"policy": {"jobspec": {"defaults": {"system": {"queue": ["a"]}}}}}, "defaults.system.queue"),
        ({"policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}, "defaults.system.queue"),
        ({"policy": {"jobspec": None}}, "policy.jobspec"),
        ({"policy": {"limits": {"duration": "1x"}}}, "policy.limits.duration"),
        ({"policy": {"limits": {"job-size": {"max": {"nnodes": "4"}}}}}, "policy.limits.job-size.max.nnodes"),
        ({"policy": {"limits": {"job-size": {"max": {"nnodes": True}}}}}, "policy.limits.job-size.max.nnodes"),
        ({"policy": {"limits": {"max-running-jobs-per-user": -2}}}, "max-running-jobs-per-user"),
        ({"policy": {"scheduler": {"policy": "easy"}}}, "policy.scheduler.policy"),
        ({"policy": {"scheduler": "easy"}}, "policy.scheduler"),
        ({"policy": {"scheduler": {"queue-policy": 3}}}, "policy.scheduler.queue-policy"),
        ({"policy": {"scheduler": {"queue-params": {"depth": 3}}}}, "policy.scheduler.queue-params.depth"),
        ({"policy": {"scheduler": {"queue-params": {"queue-depth": 0}}}}, "policy.scheduler.queue-params.queue-depth"),
        ({"policy": {"scheduler": {"policy-params": {"reservation-depth": True}}}}, "policy-params.reservation-depth"),
        ({"policy": {"scheduler": {"policy-params": {"a b": 1}}}}, "policy.scheduler.policy-params"),
        ({"policy": {"scheduler": {"match-policy": ""}}}, "policy.scheduler.match-policy"),
        ({"policy": {"scheduler": {"traverser": "supple"}}}, "policy.scheduler.traverser"),
        ({"queues": {"a": {"policy": {"scheduler": {"traverser": "simple"}}}}}, "queues.a.policy.scheduler.traverser"),
        ({"queues": {"a": {"policy": {"scheduler": {"match-policy": "low"}}}}}, "queues.a.policy.scheduler.match-policy"),
        ({"sched-fluxion-qmanager": {"queue-policy": "easy"}}, "sched-fluxion-qmanager"),
        ({"policy": {"access": {"allow-user": ["a"]}}}, "policy.access"),
        ({"ingest": {"since": object()}}, "ingest.since"),
        ({"ingest": {1: 2}}, "ingest"),
        ({"ingest": {"n": 1 << 70}}, "ingest.n"),
    ],
)  # fmt: skip
def test_what_is_no_config(document: Any, names: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_rules(document)
    assert caught.value.code == "bad-config"
    assert names in str(caught.value)


def test_a_document_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(Rejected, match="nested"):
        parse_rules({"ingest": deep})


def test_files_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("[queues.a]\nrequires = ['ssd']\n")
    assert config_file.read_document(str(path), ["policy.limits.duration=1h", "policy.limits.job-size.max.nnodes=4"]) == {
        "queues": {"a": {"requires": ["ssd"]}}, "policy": {"limits": {"duration": "1h", "job-size": {"max": {"nnodes": 4}}}},
    }  # fmt: skip
    assert config_file.read_document("", ['queues.b.requires=["x","y"]'])["queues"]["b"]["requires"] == ["x", "y"]
    for setting in ("novalue", "=1", "a..b=1", "queues.a.requires.deep=1"):
        with pytest.raises(Rejected) as caught:
            config_file.read_document(str(path), [setting])
        assert caught.value.code == "bad-config"
    path.write_text("when = 2026-01-01\n")
    with pytest.raises(Rejected, match=r"site\.toml"):
        config_file.read_document(str(path))


# -- what it means for a job ----------------------------------------------------------------------------------


def test_defaults_are_added_where_the_job_leaves_them_open() -> None:
    rules = parse_rules(TWO)
    assert system(rules.honour(jobspec())) == {"duration": 3600.0, "queue": "batch"}
    assert system(rules.honour(jobspec("debug"))) == {"duration": 600.0, "queue": "debug"}
    assert system(rules.honour(jobspec("debug", 60.0))) == {"duration": 60.0, "queue": "debug"}
    given = jobspec("batch", 60.0)
    assert rules.honour(given) is given


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (jobspec("batch", 9 * 3600.0), "queue batch: time limit 9h is above the 8h allowed"),
        (jobspec("debug", 1801.0), "above the 30m allowed"),
        (jobspec(nodes=5), "5 nodes are more than the 4 allowed"),
        (jobspec("debug", nodes=9), "9 nodes are more than the 8 allowed"),
        (jobspec("debug", nodes=2, cores=5), "10 cores are more than the 8 allowed"),
        (jobspec(gpus=1), "1 gpus are more than the 0 allowed"),
        (jobspec("nosuch"), "queue nosuch is not defined"),
    ],
)
def test_limits_are_exact(job: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_rules(TWO).honour(job)
    assert says in str(caught.value)
    assert caught.value.hint


def test_what_is_just_within_the_limits_passes() -> None:
    rules = parse_rules(TWO)
    rules.honour(jobspec("batch", 8 * 3600.0, nodes=4))
    rules.honour(jobspec("debug", 1800.0, nodes=8))


def test_a_queue_of_its_own_without_limit_and_least_sizes() -> None:
    rules = parse_rules({
        "queues": {"big": {"policy": {"limits": {"duration": "0", "job-size": {"max": {"nnodes": -1}, "min": {"nnodes": 2}}}}}},
        "policy": {"limits": {"duration": "1h", "job-size": {"max": {"nnodes": 4}}}},
    })  # fmt: skip
    rules.honour(jobspec("big", nodes=400))
    with pytest.raises(Rejected, match="asks for 1 nodes; the least is 2"):
        rules.honour(jobspec("big", nodes=1))
    with pytest.raises(Rejected, match="names no number of nodes; the least is 2"):
        rules.honour(jobspec("big"))
    with pytest.raises(Rejected, match="no queue named") as caught:
        rules.honour(jobspec())
    assert caught.value.code == "no-queue"


def test_a_limit_without_a_default_wants_a_time_limit() -> None:
    rules = parse_rules({"policy": {"limits": {"duration": "1h"}}})
    with pytest.raises(Rejected, match="needs a time limit here, of at most 1h"):
        rules.honour(jobspec())
    with pytest.raises(Rejected, match="queue batch is not defined"):
        Rules().honour(jobspec("batch"))


def test_a_virtual_queue_has_its_parents_nodes_and_limits() -> None:
    rules = parse_rules({**TWO, "queues": {"low": {"parent": "batch", "policy": {"limits": {"duration": "1h"}}}, **TWO["queues"]}})
    assert list(rules.queues) == ["low", "batch", "debug"]
    low = rules.queues["low"]
    assert (low.line, low.limits.most, low.limits.duration_s) == ("batch", (4, None, 0), 3600.0)
    assert rules.constraint("low", None) == {"properties": ["batch"]}


# -- in the journal -------------------------------------------------------------------------------------------


class Site:
    """An instance of two nodes in memory, and its state."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.store = MemoryStore(MemoryServer(lambda: NOW, random.Random(1)))
        self.meta = self.store.create(durability="strict", origin_ms=int(NOW * 1000), created=NOW)
        self.journal = Journal(self.store)
        execution = {"R_lite": [{"rank": "0-1", "children": {"core": "0-3"}}], "nodelist": ["n[0-1]"], "properties": {"ssd": "1"}}
        first = decide_config.first(document or {}, "/site.toml", ["n0", "n1"], 0, NOW)
        define = ["resource-define", "resource", NOW, {"method": "configuration", "R": {"version": 1, "execution": execution}}]
        self.append(Decision([define, *first.events], bumps=["resource", *first.bumps]))

    def append(self, decision: Decision) -> None:
        assert isinstance(self.journal.append(decision, self.store.meta().version), Appended)

    def load(self, document: dict[str, Any], source: str = "/site.toml") -> State:
        state = self.journal.load()
        self.journal.settle(lambda state: decide_config.load(state, document, source, 0, NOW), state)
        self.journal.catch_up(state)
        return state


def through_snapshot(state: State) -> State:
    head, chunks = dump(state)
    return load(read_head(head), chunks)


def test_the_config_is_part_of_the_state_and_of_its_digest() -> None:
    site = Site(TWO)
    state = site.journal.load()
    assert state.config == TWO
    assert state.config_source == "/site.toml"
    assert list(state.queues) == ["batch", "debug"]
    again = through_snapshot(state)
    assert (again.subjects(), again.rules, again.digest()) == (state.subjects(), state.rules, state.digest())
    other = site.load({"queues": {"batch": {}}})
    assert list(other.queues) == ["batch"]
    assert other.digest() != state.digest()
    assert through_snapshot(other).subjects() == other.subjects()
    assert site.journal.at().subjects() == other.subjects()
    assert site.load({}).config == {}
    assert list(site.journal.load().queues) == ["default"]


def test_a_queue_that_stays_keeps_its_status_and_one_that_goes_forgets_it() -> None:
    site = Site(TWO)
    for name in ("batch", "debug"):
        site.append(decide.change_queue(name, "stop", "why", NOW))
    state = site.load({"queues": {"batch": {}}})
    assert state.queues["batch"].stop_reason == "why"
    site.append(decide.change_queue("debug", "disable", "gone", NOW))  # decided before it went
    assert "debug" not in site.journal.load().queues
    state = site.load(TWO)
    assert state.queues["debug"].started
    assert site.store.bumps(["closed/debug"]) == [0]


def test_nodes_that_a_queue_has_by_name_are_marked() -> None:
    default = {"jobspec": {"defaults": {"system": {"queue": "a"}}}}
    site = Site({"queues": {"a": {"hosts": "n1"}, "b": {"hosts": "all"}}, "policy": default})
    state = site.journal.load()
    assert [node.properties for node in state.nodes.values()] == [("+b",), ("ssd", "+a", "+b")]
    assert [node.properties for node in site.load({}).nodes.values()] == [(), ("ssd",)]
    with pytest.raises(Rejected, match=r"queues\.a\.hosts names n7"):
        site.load({"queues": {"a": {"hosts": "n[1,7]"}}})


def test_what_a_reload_does_not_change_is_refused() -> None:
    made = {"resource": {"config": [{"hosts": "n[0-1]", "cores": "0-3"}]}, "queue": {"policy": "fcfs"}}
    site = Site(made)
    with pytest.raises(Rejected, match=r"\[resource\] is not what the instance was made with"):
        site.load({"resource": {"config": [{"hosts": "n[0-9]", "cores": "0-3"}]}})
    state = site.load({"queues": {"a": {}}})
    assert state.config == {**made, "queues": {"a": {}}}
    before = state.version
    assert site.load(state.config).version == before, "the same once more is no event"


def test_a_config_that_is_no_config_is_skipped_by_every_fold() -> None:
    site = Site(TWO)
    site.append(Decision([["config", "instance", NOW, {"config": {"queues": 3}}]], bumps=["config"]))
    state = site.journal.load()
    assert (state.config, state.skipped) == (TWO, 1)


def test_two_who_load_a_config_at_once() -> None:
    site = Site()
    state = site.journal.load()
    first = decide_config.load(state, TWO, "", 0, NOW)
    second = decide_config.load(state, {"queues": {"a": {}}}, "", 0, NOW)
    assert isinstance(site.journal.append(first, state.version), Appended)
    assert site.journal.append(second, state.version) == Conflicted(("config/load",))


# -- submitting -----------------------------------------------------------------------------------------------


class Counting(MemoryStore):
    """Counts what is asked of it."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.calls: list[str] = []

    def append(self, request: Append) -> Any:
        self.calls.append("append")
        return super().append(request)

    def read(self, after: int, limit: int = 1000) -> Any:
        self.calls.append("read")
        return super().read(after, limit)

    def bumps(self, things: Any) -> Any:
        self.calls.append("bumps")
        return super().bumps(things)


def submit(submitter: Submitter, *jobs: dict[str, Any]) -> list[int]:
    env: dict[str, str | None] = {}
    return submitter.submit([(job, env) for job in jobs], 16, 0)


def test_without_a_config_a_submit_asks_for_nothing() -> None:
    for document in ({}, {"job-manager": {"epilog": {"command": ["true"]}}}):
        store = Counting(Site(document).store.server)
        submit(Submitter(store), jobspec())
        assert store.calls == ["append"]


def test_a_config_is_learnt_once_and_honoured_from_then_on() -> None:
    site = Site(TWO)
    store = Counting(site.store.server)
    submitter = Submitter(store)
    (first,) = submit(submitter, jobspec())
    assert store.calls == ["append", "bumps", "read", "append"]
    (second,) = submit(submitter, jobspec("debug"))
    assert store.calls[4:] == ["append"]
    jobs = site.journal.load().jobs
    assert [(jobs[id].queue, jobs[id].duration) for id in (first, second)] == [("batch", 3600.0), ("debug", 600.0)]
    with pytest.raises(Rejected, match="9h"):
        submit(submitter, jobspec("batch", 9 * 3600.0))
    site.load({"queues": {"batch": {}}})
    with pytest.raises(Rejected, match="queue debug is not defined"):
        submit(submitter, jobspec("debug"))
    assert submit(submitter, jobspec("batch", 9 * 3600.0))
    site.load({})
    (last,) = submit(submitter, jobspec())
    assert site.journal.load().jobs[last].queue == "default"
    assert len(site.journal.load().jobs) == 4


def test_a_queue_that_is_not_there_is_refused_without_a_config_too() -> None:
    site = Site()
    submitter = Submitter(site.store)
    with pytest.raises(Rejected, match="queue batch is not defined") as caught:
        submit(submitter, jobspec("batch"))
    assert "default" in caught.value.hint
    assert submit(submitter, jobspec("default"))
    site.load(TWO)  # known only by the conflict that follows
    with pytest.raises(Rejected, match="queue default is not defined"):
        submit(submitter, jobspec("default"))
    assert submit(submitter, jobspec("batch"))


def test_the_queue_meant_by_default_is_the_one_that_must_be_open() -> None:
    site = Site(TWO)
    site.append(decide.change_queue("batch", "disable", "full", NOW))
    with pytest.raises(Rejected, match="queue batch does not accept jobs: full"):
        submit(Submitter(site.store), jobspec())
    assert submit(Submitter(site.store), jobspec("debug"))
