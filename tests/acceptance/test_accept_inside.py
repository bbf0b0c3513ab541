"""Looking into instances that are jobs, and into those inside them: job paths, --instance. One instance with two levels serves all.

`over` is a child that has ended, with a child in it that has ended, too; `live` one that runs, with one in it that runs.
"""

from __future__ import annotations

import json
import os
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
    shell.end()
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
    told = " ".join(shell.ok("explain", nest.over).split())
    assert f"1 of 2 jobs in it failed; fluxkv jobs --failed {nest.over}/ lists them" in told
    assert shell.ok("jobs", "--failed", "-n", "-o", "{name}", f"{nest.over}/") == "sh\n"
    assert " runs on " in shell.ok("explain", plain)
    assert "INACTIVE" in shell.ok("inspect", "job", ended)
    assert "deep\n" in shell.ok("job", "attach", ended)
    assert shell("job", "wait", ended).code == 0
    assert json.loads(shell.ok("jobs", "--json", ended))["id"] == nest.over_inner
    assert shell.ok("job", "memo", plain, "note=a/b") == ""
    assert shell.ok("jobs", "-n", "-o", "{user.note}", runs) == "a/b\n"
    assert f"#/{ended}  " in shell.ok("top", "--once", f"{ended}/")
    assert "sound" in shell.ok("replay", "--json", ended)
    assert json.loads(shell.ok("replay", "--json", ended))["results"] == {"COMPLETED": 3}


def test_jobs_r_lists_instances_under_their_paths(nest: Nest) -> None:
    lines = nest.shell.ok("jobs", "-aR", "-n", "-o", "{name} {uri.local}").splitlines()
    inner = f"{nest.over}/{nest.over_inner}"
    assert {f"{nest.over}:", f"{inner}:", f"{nest.live}:", f"{nest.live}/{nest.live_inner}:"} <= set(lines)
    assert sorted(lines[lines.index(f"{inner}:") + 1 :][:3]) == ["echo", "true", "true"]
    assert f"outer unix:{nest.state}/kv.sock#/{nest.over}" in lines
    assert nest.shell.ok("jobs", "-RL0", "-o", "id") == nest.shell.ok("jobs", "-o", "id")
    one = nest.shell.ok("jobs", "-R", "-L", "1")
    assert f"\n{nest.live}:\n" in one
    assert f"{nest.live}/{nest.live_inner}:" not in one
    assert f"{nest.over}:" not in one, "it has ended, and -a was not given"
    assert "(instance)" in one
    assert "\x1b[1;34m" in nest.shell.ok("jobs", "--color=always")
    found = {job["id"]: job for job in json.loads(nest.shell.ok("jobs", "-aR", "--json"))["jobs"]}
    (inside,) = (job for job in found[nest.over]["jobs"] if job["name"] == "inner")
    assert sorted(job["name"] for job in inside["jobs"]) == ["echo", "true", "true"]
    assert "jobs" not in found[nest.plain]
    assert "jobs" not in inside["jobs"][0]
    for words in (["-R", "--at", "-1m"], ["-L", "1"], ["-R", "--stats-only"]):
        assert nest.shell("jobs", *words).code == 2


def test_fields_of_instances(nest: Nest) -> None:
    fields = "{instance.stats.successful} {instance.stats.failed} {instance.progress!P} {instance.resources.all.ncores}"
    assert nest.shell.ok("jobs", "-a", "-n", "-o", fields, nest.over) == "1 1 100% 2\n"
    assert nest.shell.ok("jobs", "-a", "-n", "-o", "x{instance.utilization}", nest.plain) == "x\n"
    fields = "{instance.utilization!P} {instance.stats.active}"
    assert nest.shell.ok("jobs", "-n", "-o", fields, f"{nest.live}/{nest.live_inner}") == "100% 1\n"


def test_tree(nest: Nest) -> None:
    shell = nest.shell
    inner = "│   └── inner:CD (3/3 done)"
    lines = shell.ok("tree", "-a", "--filter=running,completed").splitlines()
    top = lines.index("└── outer:CD (4/4 done, 1 failed)") if "└── outer:CD (4/4 done, 1 failed)" in lines else -1
    assert top > 0, lines
    assert lines[top + 1] in (inner.replace("│", " "), inner), lines
    assert "2*[true:CD]" in lines[top + 2] + lines[top + 3]
    live = shell.ok("tree", f"{nest.live}").splitlines()
    assert live[0].startswith(f"/{nest.live} (")
    assert any(line.endswith("alloc:R (0/1 done, 1/1 cores)") or "alloc:R (" in line for line in live[1:])
    assert live[-1].strip().endswith("sleeper:R")
    over = shell.ok("tree", nest.over).splitlines()
    assert over[0] == f"/{nest.over} (4/4 done, 1 failed)"
    found = json.loads(shell.ok("tree", "--json", f"/{nest.over}"))
    assert (found["totals"]["successful"], found["totals"]["failed"], found["totals"]["busy_cores"]) == (3, 1, 0)
    assert (found["own"]["successful"], found["own"]["failed"]) == (1, 1)
    totals = [json.loads(shell.ok("tree", "--json", *words))["totals"] for words in ((), ("-a",), ("-f", "canceled"), ("-c", "1"))]
    assert totals[0]["successful"] >= 3, totals  # what is in an instance that ended counts, whether that is shown or not
    assert all(found == totals[0] for found in totals), totals
    assert shell.ok("tree", "-L0", "-x").splitlines()[0].split()[:3] == ["JOBID", "USER", "ST"]
    assert shell.ok("tree", "-l", "-n", "-L0").split()[-1]
    assert f"{nest.live}:alloc:R" in shell.ok("tree", "-p", "-X")
    shown = shell.on_terminal("tree", "-alx", columns=60)
    assert max(map(len, shown.lines)) <= 60
    assert shell("tree", nest.sleeper).code == 1
    assert shell("tree", "-L", "x").code == 2


def test_uri_and_proxy(nest: Nest) -> None:
    inside = f"unix:{nest.state}/kv.sock#/{nest.live}"
    for words in ([nest.live], ["--wait", nest.live], [f"jobid:{nest.live}"], [f"/{nest.live}"]):
        assert nest.shell.ok("uri", *words) == f"{inside}\n"
    assert nest.shell("uri", nest.plain).code == 3
    script = "fluxkv uri; fluxkv --parent uri; fluxkv run echo $FLUX_ENCLOSING_ID; fluxkv status | grep directory; "
    script += "sed -n s/SigIgn:.//p /proc/self/status; exit 7"
    done = nest.shell("proxy", nest.live, "sh", "-c", script)
    assert done.code == 7, done
    assert done.lines[:3] == [inside, nest.shell.uri, nest.live]
    assert f"{nest.state}/ns/" in done.out
    assert not int(done.lines[-1], 16) & (1 << 12 | 1 << 24), "SIGPIPE and SIGXFSZ are as from a shell"
    assert nest.shell("proxy", inside, "true").code == 0
    done = nest.shell("proxy", nest.over, "fluxkv", "jobs", "-an", "-o", "{name}")
    assert done.lines == ["inner", "sh"]
    assert "runs nothing any more" in done.err
    path = f"/{nest.live}/{nest.over}.2/{nest.plain}"
    (decimal,) = nest.shell.ok("job", "id", path).split()
    assert decimal.replace("/", "").replace(".", "").isdecimal()
    assert nest.shell.ok("job", "id", "--to=f58", decimal) == f"{path}\n"
    assert "speaks to no instance" in nest.shell("--instance", nest.live, "job", "id", nest.over).err
    assert nest.shell("proxy", nest.live, "no-such-program").code == 127
    assert "there is no instance at /ƒ1" in nest.shell("proxy", f"{nest.shell.uri}#/ƒ1", "true").err


def test_uri_waits_for_an_instance(nest: Nest) -> None:
    id = nest.shell.submit("--urgency=0", "fluxkv", "start", "true")
    waiting = nest.shell.popen("uri", "--wait", id)
    never = nest.shell.popen("uri", "--wait", nest.plain)
    while not nest.shell.has_socket(waiting.pid):
        os.sched_yield()
    nest.shell.ok("job", "urgency", id, "default")
    assert waiting.communicate(timeout=60)[0] == f"unix:{nest.state}/kv.sock#/{id}\n"
    nest.shell.ok("cancel", nest.plain)
    said = never.communicate(timeout=60)[1]
    assert "is no instance" in said


def test_a_job_in_a_grandchild_is_cancelled_by_its_path(nest: Nest) -> None:
    inner = f"{nest.live}/{nest.live_inner}"
    id = nest.shell.ok("--instance", inner, "submit", "--urgency=0", "true").strip()
    assert nest.shell.ok("cancel", f"{inner}/{id}") == ""
    assert "--all ƒA/" in nest.shell("cancel", f"{inner}/").err
    assert nest.shell.ok("jobs", "-a", "-n", "-o", "{status}", f"{inner}/{id}") == "CANCELED\n"
    assert nest.shell.ok("--instance", nest.live, "run", "echo", "in there") == "in there\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs", "{held}/"], "has not started yet"),
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
        (["--instance", "{over}/{over_inner}", "submit", "true"], "fluxkv --instance /{over} batch --resume {over_inner}"),
        (["--instance", "{over}", "restart"], "fluxkv batch --resume {over} goes on"),
        (["--instance", "{live}/{live_inner}", "resize", "+1N"], "fluxkv --instance {live} resource list"),
        (["proxy", "{live}/{live_inner}", "fluxkv", "resize", "+1N"], "fluxkv --parent resource list"),
        (["cancel", "{over}/ƒ1"], "fluxkv --instance {over} jobs -a lists them"),
        (["job", "kill", "{over}/ƒ1"], "fluxkv --instance {over} jobs -a lists them"),
        (["job", "raise", "{over}/ƒ1", "{over}/ƒ2"], "fluxkv --instance {over} jobs -a lists them"),
        (["requeue", "{over}/{over_inner}"], "runs nothing any more"),
        (["top", "--once", "{over}/{over_inner}/ƒ1"], "no such job"),
        (["top", "--once", "{plain}/"], "is no instance"),
        (["cancel", ""], "it is empty"),
        (["tree", ""], "names no instance"),
        (["top", "--once", ""], "names no instance"),
        (["explain", ""], "it is empty"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(nest: Nest, words: list[str], said: str) -> None:
    held = nest.shell.submit("--urgency=0", "true") if "{held}" in words[1] else ""
    names = {**nest._asdict(), "held": held}
    done = nest.shell(*[word.format(**names) for word in words])
    assert done.code in (1, 3), done
    assert said.format(**names) in done.err, done


def test_all_of_it_answers_from_the_directory_of_an_instance_that_is_down(nest: Nest) -> None:
    """(The last one: it stops the instance.)"""
    shell = nest.shell
    assert shell("stop", "--state-dir", nest.state).code == 0
    done = shell.ok("jobs", "-a", "-n", "-o", "{name}", "--state-dir", nest.state, f"{nest.over}/{nest.over_inner}/")
    assert names(done) == ["echo", "true", "true"]
    assert "succeeded" in shell.ok("explain", f"{nest.over}/{nest.over_inner}", "--state-dir", nest.state)
    assert json.loads(shell.ok("replay", "--json", "--state-dir", nest.state, nest.over))["results"]["FAILED"] == 1
    assert shell.ok("top", "--once", "--state-dir", nest.state, nest.over).startswith(f"fluxkv top  {nest.state}#/{nest.over} ")
    assert shell.ok("tree", "--state-dir", nest.state, nest.over).startswith(f"/{nest.over} (4/4 done, 1 failed)")
    assert json.loads(shell.ok("--instance", nest.live, "jobs", "-a", "--json", "--state-dir", nest.state))["jobs"]
    done = shell("--instance", nest.live, "status", "--state-dir", nest.state)
    assert done.code == 1
    assert "names an instance, so does a path" in done.err
