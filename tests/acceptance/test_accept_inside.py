"""Looking into instances that are jobs, and into those inside them: job paths, --instance. One instance with two levels serves all.

`over` is a child that has ended, with a child in it that has ended, too; `live` one that runs, with one in it that runs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.live

OUTER = """#!/bin/sh
# flux: -n2 --job-name=outer --output=none
fluxkv submit sh -c 'exit 3'
fluxkv batch --wrap --job-name=inner --output=none 'fluxkv run echo deep; fluxkv submit --cc=1-2 true; fluxkv queue drain'
fluxkv queue drain
"""


class Nest(NamedTuple):
    shell: Any
    state: Path
    over: str
    over_inner: str
    live: str
    live_inner: str
    sleeper: str  # in live_inner
    plain: str  # a job of the root that is no instance


@pytest.fixture(scope="module")
def nest(base: Path, new_shell: Any) -> Iterator[Nest]:
    home = Path(tempfile.mkdtemp(prefix="n", dir=base))
    state = home / "i"
    uri = new_shell(home, home).ok("start", "--detach", "--cores", "4", "--state-dir", state).split()[-1]
    shell = new_shell(home, home, uri, state)
    (home / "outer.sh").write_text(OUTER)
    over = shell.ok("batch", "outer.sh").strip()
    live = shell.ok("alloc", "-n2", "--bg").strip()
    inner = shell.ok("--instance", live, "alloc", "-n1", "--bg").strip()
    sleeper = shell.ok("--instance", f"{live}/{inner}", "submit", "--job-name=sleeper", "sleep", "600").strip()
    plain = shell.submit("--urgency=0", "true")
    shell.ok("job", "wait", over)
    (over_inner,) = shell.ok("jobs", "-a", "-n", "--name=inner", "-o", "{id}", f"{over}/").split()
    yield Nest(shell, state, over, over_inner, live, inner, sleeper, plain)
    shell("stop", "--state-dir", state)  # unless the last test has
    assert shell.alive(str(state)) == []


def names(text: str) -> list[str]:
    return sorted(text.split())


def test_jobs_of_instances_that_ended_and_of_those_that_run(nest: Nest) -> None:
    names_of = ["jobs", "-a", "-n", "-o", "{name}"]
    assert names(nest.shell.ok(*names_of, f"{nest.over}/")) == ["inner", "sh"]
    assert names(nest.shell.ok(*names_of, f"{nest.over}/{nest.over_inner}/")) == ["echo", "true", "true"]
    assert names(nest.shell.ok("--instance", nest.over, *names_of, f"{nest.over_inner}/")) == ["echo", "true", "true"]
    assert names(nest.shell.ok(*names_of, f"{nest.live}/{nest.live_inner}/{nest.sleeper}")) == ["sleeper"]
    inside = f"unix:{nest.state}/kv.sock#/{nest.live}/{nest.live_inner}"
    rooted = nest.shell("jobs", "-n", "-o", "{name}", f"/{nest.live}/", FLUXKV_URI=inside)
    assert rooted.out == "alloc\n"


def test_commands_that_take_a_job_take_a_path(nest: Nest) -> None:
    ended, runs = f"{nest.over}/{nest.over_inner}", f"{nest.live}/{nest.live_inner}/{nest.sleeper}"
    plain = runs.replace("ƒ", "f")
    shell = nest.shell
    assert shell.ok("job", "info", ended, "R").startswith('{"version":1')
    assert "succeeded" in shell.ok("explain", ended)
    assert " runs on " in shell.ok("explain", plain)
    assert "INACTIVE" in shell.ok("inspect", "job", ended)
    assert "deep\n" in shell.ok("job", "attach", ended)
    assert shell("job", "wait", ended).code == 0
    assert json.loads(shell.ok("jobs", "--json", ended))["id"] == nest.over_inner
    assert shell.ok("job", "memo", plain, "note=a/b") == ""
    assert shell.ok("jobs", "-n", "-o", "{user.note}", runs) == "a/b\n"
    assert "sound" in shell.ok("replay", "--json", ended)
    assert json.loads(shell.ok("replay", "--json", ended))["results"] == {"COMPLETED": 3}


def test_a_job_in_a_grandchild_is_cancelled_by_its_path(nest: Nest) -> None:
    inner = f"{nest.live}/{nest.live_inner}"
    id = nest.shell.ok("--instance", inner, "submit", "--urgency=0", "true").strip()
    assert nest.shell.ok("cancel", f"{inner}/{id}") == ""
    assert nest.shell.ok("jobs", "-a", "-n", "-o", "{status}", f"{inner}/{id}") == "CANCELED\n"
    assert nest.shell.ok("--instance", nest.live, "run", "echo", "in there") == "in there\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs", "{plain}/"], "has not started yet"),
        (["jobs", "{over}/ƒ111/"], "no such job"),
        (["jobs", "{over}/{over_inner}/ƒ1"], "no such job"),
        (["cancel", "{over}.2/ƒ1"], "has had 1 attempt"),
        (["cancel", "{over}/ƒ1,{live}/ƒ1"], "several instances"),
        (["cancel", "{over}/ƒ1", "{live}/ƒ1"], "several instances"),
        (["job", "info", "{over}/", "R"], "names an instance"),
        (["--instance", "{over}", "submit", "true"], "runs nothing any more"),
        (["--instance", "{over}", "list"], "speaks to no instance"),
        (["--instance", "nonsense", "jobs"], "bad job id"),
        (["--instance", "", "jobs"], "names no instance"),
        (["jobs", "{live}/{live_inner}/{sleeper}/"], "is no instance"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(nest: Nest, words: list[str], said: str) -> None:
    done = nest.shell(*[word.format(**nest._asdict()) for word in words])
    assert done.code in (1, 3), done
    assert said in done.err, done


def test_all_of_it_answers_from_the_directory_of_an_instance_that_is_down(nest: Nest) -> None:
    """(The last one: it stops the instance.)"""
    shell = nest.shell
    assert shell("stop", "--state-dir", nest.state).code == 0
    done = shell.ok("jobs", "-a", "-n", "-o", "{name}", "--state-dir", nest.state, f"{nest.over}/{nest.over_inner}/")
    assert names(done) == ["echo", "true", "true"]
    assert "succeeded" in shell.ok("explain", f"{nest.over}/{nest.over_inner}", "--state-dir", nest.state)
    assert json.loads(shell.ok("replay", "--json", "--state-dir", nest.state, nest.over))["results"]["FAILED"] == 1
    assert json.loads(shell.ok("--instance", nest.live, "jobs", "-a", "--json", "--state-dir", nest.state))["jobs"]
    done = shell("--instance", nest.live, "status", "--state-dir", nest.state)
    assert done.code == 1
    assert "names an instance, so does a path" in done.err
