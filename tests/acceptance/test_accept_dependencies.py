"""Jobs that wait for others, as a user types it: each scheme, right and wrong; restarts and deaths in between."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live


class Gate:
    """A job that runs until it is let go, and exits with a code."""

    def __init__(self, site: Any, code: int, *options: str) -> None:
        self.file = site.folder / f"gate{len(list(site.folder.iterdir()))}"
        script = f"while [ ! -e {self.file} ]; do sleep 0.02; done; exit {code}"
        self.id = site.submit(*options, "sh", "-c", script)
        self.file.with_suffix(".made").touch()

    def open(self) -> None:
        self.file.touch()


def table(site: Any, *ids: str) -> list[list[str]]:
    """[id, status, info] of these jobs, as `fluxkv jobs` says it."""
    form = "{id}|{status_abbrev}|{info}"
    return [line.split("|") for line in site.ok("jobs", "-a", "--no-header", "--format", form, *ids).splitlines()]


def waits(site: Any, last: str) -> None:
    """Until this job, and those submitted before it, wait for their dependencies."""
    site.ok("job", "wait-event", "-t", "30s", last, "dependency-add")


def ended(site: Any, *ids: str) -> dict[str, tuple[str, str]]:
    """id -> (status, info) once all have ended."""
    site("watch", *ids)
    return {id: (status, info) for id, status, info in table(site, *ids)}


def test_each_scheme_after_a_job_that_fails(site: Any) -> None:
    gate = Gate(site, 3)
    ran = site.folder / "ran"
    ran.mkdir()
    schemes = ("after", "afterany", "afterok", "afternotok", "afterexcept")
    ids = {one: site.submit(f"--dependency={one}:{gate.id}", "touch", ran / one) for one in schemes}
    site.ok("job", "wait-event", "-t", "30s", ids["after"], "clean")
    waits(site, ids["afterexcept"])
    (found,) = table(site, ids["afterok"])
    assert found == [ids["afterok"], "D", f"waits for afterok:{gate.id} (running)"]
    deps = site.ok("jobs", "--no-header", "-o", "deps", ids["afterok"]).split()
    assert deps[-1] == f"after-success={gate.id}"
    assert [path.name for path in ran.iterdir()] == ["after"]
    gate.open()
    results = ended(site, *ids.values())
    assert [results[ids[one]][0] for one in schemes] == ["CD", "CD", "F", "CD", "F"]
    assert results[ids["afterok"]][1] == f"dependency: afterok:{gate.id} cannot be met: job {gate.id} failed (exit code 3)"
    assert sorted(path.name for path in ran.iterdir()) == ["after", "afterany", "afternotok"]
    story = site.ok("inspect", "job", ids["afternotok"])
    assert f"depends on after-failure={gate.id} (met)" in story
    info = json.loads(site.ok("job", "info", ids["afterok"], "jobspec"))
    assert info["attributes"]["system"]["dependencies"] == [{"scheme": "afterok", "value": gate.id}]


def test_ids_in_any_form_and_jobs_long_over(site: Any) -> None:
    first = site.submit("true")
    site.ok("job", "wait", first)
    for form in ("dec", "hex", "dothex", "f58plain"):
        id = site.ok("job", "id", f"--to={form}", first).strip()
        assert site("run", f"--dependency=afterok:{id}", "true").code == 0
    failed = site("run", f"--dependency=afternotok:{first}", "true")
    assert failed.code == 1
    assert f"type=dependency severity=0 note=afternotok:{first} cannot be met: job {first} completed" in failed.err
    unknown = site("run", "--dependency=afterok:ƒ2", "touch", "ran")
    assert "there is no job ƒ2" in unknown.err
    assert not (site.folder / "ran").exists()


def test_any_and_all(site: Any) -> None:
    bad, good = Gate(site, 1), Gate(site, 0)
    one = site.submit(f"--dependency=any(afterok:{bad.id},afterok:{good.id})", "true")
    both = site.submit(f"--dependency=all(afterany:{bad.id},any(afterok:{good.id},begin-time:99999999999))", "true")
    none = site.submit(f"--dependency=any(afterok:{bad.id},afternotok:{good.id})", "true")
    waits(site, none)
    assert table(site, one)[0][2] == f"waits for any(afterok:{bad.id} (running), afterok:{good.id} (running))"
    bad.open()
    site("job", "wait", bad.id)
    assert {status for _, status, _ in table(site, one, both, none)} == {"D"}
    good.open()
    results = ended(site, one, both, none)
    assert [results[id][0] for id in (one, both, none)] == ["CD", "CD", "F"]
    assert f"job {bad.id} failed (exit code 1); afternotok:{good.id} cannot be met" in results[none][1]


def test_times(site: Any) -> None:
    at = time.time() + 0.7
    delayed = site.submit("--begin-time=+700ms", "true")
    stamped = site.submit(f"--dependency=begin-time:{at:.3f}", "true")
    later = site.submit("--begin-time=2100-01-01 12:00", "true")
    ended(site, delayed, stamped)
    for id in (delayed, stamped):
        began = float(site.ok("jobs", "--no-header", "--format", "{t_run}", id))
        assert began >= at - 0.01
    assert table(site, later) == [[later, "D", "waits for begin-time 2100-01-01T12:00:00"]]
    site.ok("cancel", later)
    assert ended(site, later)[later][0] == "CA"


def test_singletons_are_never_two_at_once(site: Any) -> None:
    script = "mkdir lock && sleep 0.05 && rmdir lock"
    ids = site.ok("submit", "--cc=1-4", "--job-name=single", "--dependency=singleton", "sh", "-c", script).split()
    assert {status for status, _ in ended(site, *ids).values()} == {"CD"}


def test_a_chain_in_one_submission(site: Any) -> None:
    words = ["--cc=1-6", "--wait", "--quiet", "--dependency=afterok:#-1"]
    site.ok("submit", *words, "sh", "-c", "echo {cc} >> order")
    assert (site.folder / "order").read_text().split() == list("123456")
    assert site("submit", *words, "sh", "-c", "test {cc} -lt 3").code == 1
    reasons = site.ok("jobs", "-a", "-c3", "--no-header", "--format", "{cause}").splitlines()
    assert all("never started: dependency" in reason or "failed (exit code 1)" in reason for reason in reasons)


def test_a_workflow_submitted_once_more(site: Any) -> None:
    first = site.submit("sh", "-c", "test -e mended")
    second = site.submit(f"--dependency=afterok:{first}", "touch", "second")
    assert [status for status, _ in ended(site, first, second).values()] == ["F", "F"]
    (site.folder / "mended").touch()
    lines = site.ok("resubmit", "--wait", second, first).splitlines()
    assert [line.split()[0] for line in lines] == [first, second]
    new = lines[0].split()[-1], lines[1].split()[-1]
    assert f"after-success={new[0]} (met)" in site.ok("inspect", "job", new[1])
    assert (site.folder / "second").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--dependency=afterwards:ƒ2"], "no scheme is called 'afterwards'"),
        (["--dependency=afterok"], "it has no scheme"),
        (["--dependency=afterok:ƒ2,ƒ3"], "repeat --dependency"),
        (["--dependency=any(afterok:ƒ2"], "closing parenthesis"),
        (["--dependency=string:a?type=in"], "no scheme is called 'string'"),
        (["--dependency=singleton"], "the job has no name"),
        (["--begin-time=2000-01-01"], "is past"),
        (["--begin-time=soon"], "bad moment 'soon'"),
        (['--setattr=dependencies=[{"scheme":"x","value":""}]'], "no scheme is called 'x'"),
        (['--setattr=dependencies={"scheme":"after","value":"1"}'], "must be a list"),
        (["--dependency=afterok:#3"], "job number 3 is not submitted before number 0"),
    ],
)
def test_what_is_refused_at_once(site: Any, options: list[str], why: str) -> None:
    done = site("submit", *options, "true")
    assert done.code in (1, 2)
    assert done.out == ""
    assert why in done.err


def test_in_a_child_instance(site: Any) -> None:
    script = "A=$(fluxkv submit true); fluxkv run --dependency=afterok:$A echo after $A"
    assert site.ok("run", "fluxkv", "start", "sh", "-c", script).startswith("after ƒ")


def test_who_waits_waits_on_through_deaths_and_restarts(user: Any, place: Path) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "-s", "1", "--cores", "4").splitlines()[-1]
    site = user.at(user.folder, uri)
    gate, other = Gate(site, 0), Gate(site, 1)
    first = site.submit(f"--dependency=afterok:{gate.id}", f"--dependency=after:{gate.id}", "touch", "first")
    second = site.submit(f"--dependency=all(afterok:{gate.id},afternotok:{other.id})", "touch", "second")
    never = site.submit(f"--dependency=afterok:{other.id}", "touch", "never")
    single = site.submit("--job-name=s", f"--dependency=afterany:{other.id}", "--dependency=singleton", "true")
    waits(site, single)
    worker = next(int(one["pid"]) for one in site.processes() if one["role"].startswith("worker"))
    os.kill(worker, signal.SIGKILL)
    gate.open()
    site.wait_for_end(worker)
    assert ended(site, first)[first][0] == "CD"
    site.ok("restart")
    assert {status for _, status, _ in table(site, second, never, single)} == {"D"}
    other.open()
    results = ended(site, second, never, single)
    assert [results[id][0] for id in (second, never, single)] == ["CD", "F", "CD"]
    assert sorted(path.name for path in user.folder.iterdir() if "gate" not in path.name) == ["first", "second"]
    events = site.ok("job", "eventlog", first)
    assert events.count("dependency-add") == events.count("dependency-remove") == 2
    assert site("replay", "--diff", "live").code == 0
