"""How each queue is planned, as the config says: what it inherits, that a change holds at once, and what is refused."""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plugins import install
from worker_rig import Rig, jobspec

from fluxkv.instances import config_file
from fluxkv.journal.config import binds_submitters, parse_rules
from fluxkv.journal.job import RUN, SCHED
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.policy import load_policy
from fluxkv.schedulers.policy_contract import check_policy

DEFAULT = {"jobspec": {"defaults": {"system": {"queue": "a"}}}}
EASY = {"policy": {"scheduler": {"queue-policy": "easy"}}}


def by_queue(**policies: dict[str, Any]) -> dict[str, Any]:
    return {"queues": policies, "policy": DEFAULT}


def overtaken(rig: Rig, queue: str = "") -> bool:
    """Whether a short job goes ahead of one that waits for the whole of a node of two cores."""
    held = rig.submit(jobspec(1, 0, 100.0, queue))
    head = rig.submit(jobspec(2, 0, 100.0, queue))
    short = rig.submit(jobspec(1, 0, 50.0, queue))
    assert (rig.job(held).state, rig.job(head).state) == (RUN, SCHED)
    return bool(rig.job(short).state == RUN)


def test_each_queue_is_planned_by_its_own_policy() -> None:
    nodes = {0: ("a",), 1: ("b",)}
    rig = Rig(2, nodes, by_queue(a={"requires": ["a"]}, b={"requires": ["b"], **EASY}))
    assert not overtaken(rig, "a")
    assert overtaken(rig, "b")


def test_a_config_changes_the_policy_at_once() -> None:
    rig = Rig(1)
    assert not overtaken(rig)
    rig.configure({"queue": {"policy": "easy"}})
    rig.turn()
    assert rig.job(3).state == RUN
    rig.configure({"policy": {"scheduler": {"queue-policy": "fcfs"}}})  # which says more than [queue], which is kept
    rig.turn()
    assert rig.state.config == {"queue": {"policy": "easy"}, "policy": {"scheduler": {"queue-policy": "fcfs"}}}
    late = rig.submit(jobspec(1, 0, 50.0))
    rig.over(3)
    rig.turn()
    assert rig.job(late).state == SCHED
    whole = rig.journal.at()
    assert whole.digest() == rig.state.digest()


def test_what_a_queue_inherits() -> None:
    scheduler = {"queue-policy": "hybrid", "queue-params": {"queue-depth": 9}, "policy-params": {"reservation-depth": 3}}
    queues = {
        "a": {}, "v": {"parent": "a"}, "b": {"policy": {"scheduler": {"queue-params": {"queue-depth": 4}}}},
        "c": {"policy": {"scheduler": {"queue-policy": "easy"}}},
    }  # fmt: skip
    rules = parse_rules({"queues": queues, "policy": {**DEFAULT, "scheduler": {**scheduler, "match-policy": "lonode"}}})
    found = {name: (queue.scheduler.policy, queue.scheduler.keywords) for name, queue in rules.queues.items()}
    assert found == {
        "a": ("hybrid", {"queue_depth": 9, "reservation_depth": 3}), "v": ("hybrid", {"queue_depth": 9, "reservation_depth": 3}),
        "b": ("hybrid", {"queue_depth": 4, "reservation_depth": 3}), "c": ("easy", {}),
    }  # fmt: skip
    assert rules.match_policy == "lonode"
    assert rules.queues["a"].scheduler.text == "queue-depth 9, reservation-depth 3"
    assert parse_rules({}).general.scheduler.named({"policy": "easy"}) == "easy"
    assert parse_rules({"queue": {"policy": "fcfs"}}).general.scheduler.named({"policy": "easy"}) == "fcfs"


def test_who_submits_need_not_know_how_queues_are_planned() -> None:
    assert not binds_submitters({"policy": {"scheduler": {"queue-policy": "easy"}}, "queue": {"policy": "easy"}})
    assert binds_submitters({"policy": {"scheduler": {}, "limits": {"duration": "1h"}}})


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        (["policy.scheduler.queue-policy=easie"], "policy.scheduler: no queue policy is called 'easie'", "easy, fcfs"),
        (["queues.a.policy.scheduler.queue-policy=x"], "queues.a.policy.scheduler: no queue policy", "there are"),
        (["policy.scheduler.policy-params.reservation-depth=3"], "'fcfs' has no parameter reservation-depth", "it has queue-depth"),
        (["queue.policy=easy", "policy.scheduler.policy-params.reservation-depth=3"], "'easy' has no parameter", "queue-depth"),
        (["policy.scheduler.match-policy=lowest"], "no match policy is called 'lowest'", "lonodex"),
        (["sched-fluxion-qmanager.queue-policy=easy"], "is no table that an instance knows", r"\[policy.scheduler\]"),
    ],
)
def test_what_cannot_be_is_refused_with_what_there_is(settings: list[str], said: str, hint: str) -> None:
    with pytest.raises(Rejected, match=said) as refused:
        config_file.read_document("", settings)
    assert re.search(hint, refused.value.hint)


def test_a_policy_that_is_not_installed_where_one_plans_stops_nobody() -> None:
    rig = Rig(1)
    said = rig.listen()
    rig.configure({"policy": {"scheduler": {"queue-policy": "elsewhere"}}})
    assert rig.job(rig.submit()).state == RUN
    assert [text for text in said if "no queue policy is called 'elsewhere'" in text] == said[:1]


def test_commands_show_it(shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[policy.scheduler]\nqueue-policy = "hybrid"\npolicy-params = { reservation-depth = 8 }\n')
    assert shell("config", "load", str(path))[0] == 0
    assert shell.out("config", "get", "policy.scheduler.queue-policy") == '"hybrid"\n'
    assert shell.out("queue", "list", "-n", "-o", "policy").split()[:4] == ["default", "hybrid", "reservation-depth", "8"]
    assert "default: policy hybrid (reservation-depth 8)" in shell.out("queue", "status", "-v")
    shown = json.loads(shell.out("queue", "list", "--json"))["queues"][0]
    assert shown["policy"] == {"name": "hybrid", "reservation_depth": 8}
    status, _, error = shell("config", "load", str(path), "--conf", "policy.scheduler.queue-policy=fcsf")
    assert status == 1
    assert "no queue policy is called 'fcsf'" in error


# -- the README's own -------------------------------------------------------------------------------------------------


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The README's policy, installed as pip would leave it; the Python there that belongs to it."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "FirstFit" in block]
    (point,) = re.findall(r'\[project.entry-points."fluxkv.policies"\]\n(\S+) = "(\S+)"', text)
    install(tmp_path, "my_policies", blocks[0], {"fluxkv.policies": {point[0]: point[1]}})
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield blocks
    sys.modules.pop("my_policies", None)


def test_the_readme_s_policy_keeps_the_contract(readme: list[str]) -> None:
    exec(compile(readme[1], "README.md", "exec"), {})


def test_the_readme_s_policy_plans_an_instance(readme: list[str]) -> None:
    document = config_file.read_document("", ["queue.policy=first-fit", "policy.scheduler.queue-params.queue-depth=2"])
    rig = Rig(1)
    assert not overtaken(rig)
    rig.configure(document)
    rig.turn()
    assert rig.job(3).state == RUN, "it does not wait for the second"
    rig.over(3)
    third, fourth = rig.submit(jobspec(2)), rig.submit()
    assert [rig.job(id).state for id in (2, third, fourth)] == [SCHED, SCHED, SCHED], "the third is not looked at"
    with pytest.raises(Rejected, match="'first-fit' has no parameter speed") as refused:
        config_file.read_document("", ["queue.policy=first-fit", "policy.scheduler.policy-params.speed=3"])
    assert refused.value.hint == "it has queue-depth"


@pytest.mark.parametrize("name", ["throughput", "hybrid"])
def test_built_in_policies_take_parameters(name: str) -> None:
    given = {"throughput": {"ahead": 1.5, "queue_depth": 7}, "hybrid": {"reservation_depth": 2}}[name]
    check_policy(lambda: load_policy(name, given), random.Random(3))


def test_throughput_places_more_ahead() -> None:
    rig = Rig(1, config={"policy": {"scheduler": {"queue-policy": "throughput", "policy-params": {"ahead": 9.0}}}})
    assert rig.worker.planner.policies.ahead_s("default") == 9.0
    assert Rig(1).worker.planner.policies.ahead_s("default") == 0.12
