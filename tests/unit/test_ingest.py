"""Plug-ins at ingest: found, called and blamed; in the process that submits, and once more in the worker."""

from __future__ import annotations

import importlib
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plugins import install
from worker_rig import Rig, jobspec

from fluxkv.instances import config_file
from fluxkv.instances.client import Instance
from fluxkv.instances.ingest import BUILT_IN, Ingest, Submission
from fluxkv.journal import decide_config
from fluxkv.journal.config import parse_rules
from fluxkv.journal.job import INACTIVE, RUN
from fluxkv.journal.jobspec_build import from_options
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.memory_server import MemoryServer
from fluxkv.kvs.memory_store import MemoryStore

ROOT = Path(__file__).resolve().parents[2]
SITE = '''
from fluxkv import Rejected

def no_root(job):
    if job.userid == 0:
        return "jobs of root do not run here"

def no_shell(job):
    if job.jobspec["tasks"][0]["command"][0] == "/bin/sh":
        raise Rejected("no shell scripts", hint="name a program")

def careless(job):
    job.jobspec["attributes"]["system"]["duration"] = 999.0

def broken(job):
    return 1 / 0

def exits(job):
    raise SystemExit("bye")

def short(job):
    job.system["duration"] = min(job.system["duration"] or 60.0, 60.0)

def another(job):
    return {**job.jobspec, "attributes": {"system": {**job.system, "bank": str(job.urgency)}}}

def nonsense(job):
    job.jobspec["resources"] = "all"

class Strict:
    def __init__(self, settings):
        self.word = settings["word"]

    def __call__(self, job):
        return None if job.system.get("bank") == self.word else f"the bank is {self.word}"

number = 5
'''
POINTS = {
    "validators": ["no_root", "no_shell", "careless", "broken", "exits", "Strict", "number", "absent"],
    "defaults": ["short", "another", "nonsense", "broken"],
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with plug-ins, good and bad."""
    points = {f"fluxkv.{kind}": {name.replace("_", "-"): f"a_site:{name}" for name in names} for kind, names in POINTS.items()}
    install(tmp_path, "a_site", SITE, points)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("a_site", None)


def config(validators: list[str] | None = None, defaults: list[str] | None = None, **settings: Any) -> dict[str, Any]:
    ingest: dict[str, Any] = {}
    for kind, names in (("validators", validators), ("defaults", defaults)):
        if names:
            ingest[kind] = {"plugins": names, **{name: value for name, value in settings.items() if name in names}}
    return {"ingest": ingest}


def instance_with(document: dict[str, Any]) -> Instance:
    """An instance of two nodes of four cores and this config, which nobody serves."""
    store = MemoryStore(MemoryServer(lambda: 1.7e9, random.Random(1)))
    store.create(durability="strict", origin_ms=1_700_000_000_000, created=1.7e9)
    journal = Journal(store, "test")
    records = tuple(NodeRecord(rank, f"n{rank}", 15, 0, 0, ()) for rank in range(2))
    inventory = {"method": "configuration", "R": render_set(ResourceSet(records))}
    journal.settle(lambda state: decide_config.Decision([["resource-define", "resource", 1.0, inventory]]))
    if document:
        journal.settle(lambda state: decide_config.load(state, document, "", 1, 1.0))
    return Instance(store)


def taken(instance: Instance, id: Any) -> dict[str, Any]:
    found = instance.state().jobs[int(id)].jobspec
    assert found is not None
    system: dict[str, Any] = found["attributes"]["system"]
    return system


# -- the config ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ingest", "key"),
    [
        ({"validator": {}}, "ingest.validator is no key"),
        ({"validators": []}, "ingest.validators must be a table"),
        ({"validators": {"plugins": "x"}}, "ingest.validators.plugins"),
        ({"validators": {"plugins": ["a", "a"]}}, "names one twice"),
        ({"validators": {"max-tasks": {"most": 1}}}, "ingest.validators.max-tasks has settings, but"),
        ({"validators": {"plugins": ["max-tasks"], "max-tasks": 5}}, "must be a table of settings"),
        ({"defaults": {"plugins": [1]}}, "ingest.defaults.plugins"),
    ],
)
def test_a_config_that_makes_no_sense(ingest: Any, key: str) -> None:
    with pytest.raises(Rejected, match=re.escape(key)) as caught:
        parse_rules({"ingest": ingest})
    assert caught.value.code == "bad-config"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("document", "why"),
    [
        (config(["nowhere"]), "validator nowhere: is not installed here"),
        (config(defaults=["max-tasks"]), "default max-tasks: is not installed here"),
        (config(["max-tasks"]), "validator max-tasks: needs the setting most"),
        (config(["max-tasks"], **{"max-tasks": {"most": 4, "least": 1}}), "has no setting least"),
        (config(["require-time-limit"], **{"require-time-limit": {"most": "soon"}}), "validator require-time-limit: "),
        (config(["require-bank"], **{"require-bank": {"banks": "a"}}), "must be a list"),
        (config(["Strict"]), "validator Strict does not load: KeyError"),
        (config(["number"]), "validator number cannot be called"),
        (config(["absent"]), "validator absent does not load: AttributeError"),
    ],
)
def test_a_config_names_only_plug_ins_that_can_be_used(document: dict[str, Any], why: str) -> None:
    with pytest.raises(Rejected, match=re.escape(why)):
        Ingest(document)


def test_a_file_that_names_another_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[ingest.validators]\nplugins = ["feasability"]\n')
    with pytest.raises(Rejected, match="validator feasability: is not installed here") as caught:
        config_file.read_document(str(path))
    assert "feasibility, max-cores" in caught.value.hint


def test_the_built_in_ones_are_entry_points_too() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for kind, names in BUILT_IN.items():
        assert project[f"fluxkv.{kind}"] == {name: f"fluxkv.instances.ingest_plugins:{made}" for name, made in names.items()}


# -- in the process that submits -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("document", "options", "why"),
    [
        (config(["require-time-limit"]), {}, "validator require-time-limit: a job needs a time limit here"),
        (config(["require-time-limit"], **{"require-time-limit": {"most": "1h"}}), {"duration": "2h"}, "2h is above 1h"),
        (config(["max-tasks"], **{"max-tasks": {"most": 4}}), {"ntasks": 5}, "validator max-tasks: 5 tasks are more than the 4"),
        (config(["max-cores"], **{"max-cores": {"most": 4}}), {"ntasks": 5}, "validator max-cores: 5 cores are more than the 4"),
        (config(["require-bank"]), {}, "validator require-bank: a job needs a bank here"),
        (config(["require-bank"], **{"require-bank": {"banks": ["a", "b"]}}), {"bank": "c"}, "there is no bank c; there are a, b"),
        (config(["feasibility"]), {"cores_per_task": 5}, "validator feasibility: "),
        (config(["feasibility"]), {"constraint": "gpus"}, "validator feasibility: "),
        (config(["no-shell"]), {"command": "true; true"}, "validator no-shell: no shell scripts"),
        (config(["broken"]), {}, "validator broken failed: ZeroDivisionError"),
        (config(["exits"]), {}, "validator exits failed: SystemExit: bye"),
        (config(["Strict"], Strict={"word": "a"}), {"bank": "b"}, "validator Strict: the bank is a"),
        (config(defaults=["broken"]), {}, "default broken failed: ZeroDivisionError"),
        (config(defaults=["nonsense"]), {}, "default nonsense failed: it made a jobspec that is not valid: bad jobspec: resources"),
    ],
)  # fmt: skip
def test_a_refusal_names_its_plug_in(document: dict[str, Any], options: dict[str, Any], why: str) -> None:
    with instance_with(document) as instance, pytest.raises(Rejected, match=re.escape(why)):
        instance.submit(options.pop("command", ["x"]), **options)


@pytest.mark.usefixtures("site")
def test_defaults_in_their_order_then_the_queue_s_then_validators() -> None:
    names = ["require-bank", "require-time-limit"]
    document = config(names, ["another", "short", "attributes"], **{"require-time-limit": {"most": "60s"}},
                      attributes={"project": "fusion", "bank": "other", "shell": {"options": {"kill-timeout": 2}}})  # fmt: skip
    with instance_with(document) as instance:
        model = from_options(["x"], duration_s=600.0, attributes={"shell.options.kill-timeout": 9})
        ids = instance.submit_many([model, model, ["y"]], urgency=20)
        for id, own in zip(ids, (9, 9, 2), strict=True):
            system = taken(instance, id)
            assert (system["duration"], system["bank"], system["project"]) == (60.0, "20", "fusion")
            assert system["shell"]["options"]["kill-timeout"] == own
        assert model["attributes"]["system"]["duration"] == 600.0  # the caller's own jobspec is left alone
        rules = instance.submitter.rules  # as cron asks: several at once, each of the usual urgency
        assert [job["attributes"]["system"]["bank"] for job in rules.honour([model, model])] == ["16", "16"]


@pytest.mark.usefixtures("site")
def test_a_validator_changes_nothing() -> None:
    with instance_with(config(["careless"])) as instance:
        assert taken(instance, instance.submit(["x"]))["duration"] == 0.0


def test_what_is_well_passes_and_the_owner_may_skip() -> None:
    document = config(["feasibility", "max-tasks"], **{"max-tasks": {"most": 2}})
    with instance_with(document) as instance:
        instance.submit(["x"], ntasks=2)
        with pytest.raises(Rejected, match="max-tasks"):
            instance.submit(["x"], ntasks=3)
        instance.submit(["x"], ntasks=3, flags=8)


def test_another_inventory_and_another_config_are_heeded() -> None:
    with instance_with(config(["feasibility"])) as instance:
        instance.submit(["x"])
        with pytest.raises(Rejected, match="feasibility"):
            instance.submit(["x"], cores_per_task=8)
        records = (NodeRecord(0, "big", 0xFFFF, 0, 0, ()),)
        inventory = {"method": "configuration", "R": render_set(ResourceSet(records))}
        instance.journal.settle(lambda state: decide_config.Decision([["resource-define", "resource", 1.0, inventory]]))
        instance.submit(["x"], cores_per_task=8)
        instance.journal.settle(lambda state: decide_config.load(state, config(["require-bank"]), "", 1, 1.0))
        with pytest.raises(Rejected, match="require-bank"):
            instance.submit(["x"])
        instance.submit(["x"], bank="a", cores_per_task=99)
        instance.journal.settle(lambda state: decide_config.load(state, {}, "", 1, 1.0))
        instance.submit(["x"])


def test_no_plug_in_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxkv.instances.ingest.Ingest.__init__", None)
    with instance_with({}) as instance:
        instance.submit(["x"])


def test_the_readme_s_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written there: the package is installed, the config loaded, a job refused and another let pass."""
    text = (ROOT / "README.md").read_text()
    section = text.partition("### What each job must have")[2].partition("\n### ")[0]
    site, module, project = re.findall(r"```(?:toml|python)\n(.*?)```", section, re.S)
    points = tomllib.loads(project)["project"]["entry-points"]
    install(tmp_path, "my_site", module, points)
    (tmp_path / "site.toml").write_text(site)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        document = config_file.read_document(str(tmp_path / "site.toml"))
        with instance_with(document) as instance:
            monkeypatch.setattr("os.getuid", lambda: 0)
            with pytest.raises(Rejected, match="validator no-root: jobs of root do not run here"):
                instance.submit(["x"])
            monkeypatch.setattr("os.getuid", lambda: 1000)
            assert taken(instance, instance.submit(["x"]))["project"] == "fusion"
    finally:
        sys.modules.pop("my_site", None)


# -- in the worker ---------------------------------------------------------------------------------------------------


def refused(rig: Rig, id: int) -> str:
    job = rig.job(id)
    assert job.state == INACTIVE
    assert job.exception is not None
    assert job.exception[0] == "validate"
    return str(job.exception[1])


@pytest.mark.usefixtures("site")
def test_the_worker_asks_again_for_what_anybody_appended() -> None:
    rig = Rig(config=config(["max-cores", "feasibility"], **{"max-cores": {"most": 2}}))
    assert rig.job(rig.submit()).state == RUN
    assert refused(rig, rig.submit(jobspec(3))) == "validator max-cores: 3 cores are more than the 2 allowed"
    assert refused(rig, rig.submit({"version": 1})).startswith("bad jobspec")
    assert "validate" in rig.names(2)
    rig.configure(config(["broken"]))
    rig.turn()
    assert refused(rig, rig.submit()).startswith("validator broken failed: ZeroDivisionError")
    rig.configure(config(["feasibility"]))
    rig.turn()
    assert refused(rig, rig.submit(jobspec(3))).startswith("validator feasibility: ")
    assert rig.job(rig.submit()).state == RUN
    assert rig.journal.at().digest() == rig.state.digest()


def test_only_the_owner_s_jobs_skip_the_validators() -> None:
    rig = Rig(config=config(["require-bank"]))
    rig.say(["instance-create", "instance", rig.now, {"uid": "u", "owner": 1, "namespace": "/", "schema": 2}])
    from fluxkv.journal import decide

    found = []
    for user in (1, 2):
        id, rig.next = rig.next, rig.next + 1
        (mark,) = rig.store.bumps(["config"])
        rig.do(decide.submit([(id, jobspec())], "", 16, user, 8, rig.now, mark))
        rig.turn()
        found.append(rig.job(id).state)
    assert found == [RUN, INACTIVE]


def test_a_plug_in_that_the_worker_has_not_got_refuses_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(config=config(["gone"]))
    loads = []
    original = Ingest.__init__

    def counted(self: Ingest, document: Any) -> None:
        loads.append(1)
        original(self, document)

    monkeypatch.setattr(Ingest, "__init__", counted)
    for _ in range(3):
        assert refused(rig, rig.submit()).startswith("validator gone: is not installed here")
    assert len(loads) == 1


def test_a_plug_in_sees_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Submission] = []
    monkeypatch.setattr("fluxkv.instances.ingest_plugins.feasibility", seen.append)
    rig = Rig(config=config(["feasibility"], feasibility={"a": 1}))
    rig.submit(urgency=20, user=7)
    (one,) = seen
    assert (one.userid, one.urgency, one.settings, one.infeasible(one.jobspec)) == (7, 20, {"a": 1}, "")
    assert one.system["cwd"] == "/"
