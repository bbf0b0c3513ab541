"""Why a job waits, when it begins and what it waits for, as typed: on a running instance, of the past, and on a stopped one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live
HOUR = "--setattr=exec.test.run_duration=1h"


def test_a_job_that_waits_is_explained_now_and_then(base: Path, new_shell: Any) -> None:
    home = base / "explain"
    home.mkdir()
    shell = new_shell(home, home)
    shell.env["FLUXKV_URI"] = shell.ok(
        "start", "--detach", "--state-dir", home / "i", "--fake", "-s", "2", "--cores", "4", "--policy", "easy"
    ).split()[-1]
    try:
        running = shell.submit(HOUR, "-N1", "-n1", "-c4", "-t", "50m", "--job-name=long", "x")
        shell.ok("job", "wait-event", running, "start")
        wide = shell.submit("-N2", "--exclusive", "-t", "10m", "--job-name=wide", "x")
        behind = shell.submit("-n1", "-c4", "-t", "2h", "--job-name=behind", "x")
        endless = shell.submit("-N2", "--exclusive", "--job-name=last", "x")
        shell.ok("job", "wait-event", wide, "reason")
        told = shell.ok("explain", wide)
        assert told.splitlines()[0].startswith(f"{wide} waits: needs 2 idle nodes; 1 is idle; it begins about")
        assert f"{running}* long" in told
        assert "on fake[0-1], reserved for it by policy" in " ".join(told.split())
        assert all(len(line) <= 80 for line in told.splitlines())
        assert " ".join(shell.ok("explain", behind).split()).startswith(f"{behind} would fit now, but must not delay {wide},")

        shown = shell.ok("jobs", "-n", "-o", "{id} {contextual_info}", "-f", "pending").splitlines()
        listed = [line.split(None, 1) for line in shown]
        assert [id for id, _ in listed] == [wide, behind, endless]
        assert all(info.startswith("eta:") for _, info in listed)
        assert listed[1][1].endswith(f"; behind {wide}") or f"reserved for {wide}" in listed[1][1]
        begins = shell.ok("jobs", "-n", "-o", "{annotations.sched.t_estimate} {t_estimate}", wide).split()
        assert begins[0] == begins[1]
        document = json.loads(shell.ok("explain", "--json", wide))
        assert document["start"]["time"] == float(begins[0])
        assert document["short"] == {"unit": "node", "of": "", "needed": 2, "found": 1, "by": 1}
        assert [holder["id"] for holder in document["holders"]] == [running]
        assert json.loads(shell.ok("jobs", "--json", wide))["annotations"]["sched"]["t_estimate"] == float(begins[0])

        lines = shell.ok("resource", "list").splitlines()
        assert len(lines) == 5
        assert lines[4].startswith(f"  reserved for {wide} wide from ")
        assert lines[4].endswith(": 8 cores on fake[0-1]")
        assert len(shell.ok("resource", "list", "-n").splitlines()) == 3  # for programs: nothing but the table
        assert shell.ok("resource", "list", "-v").count(f"reserved for {wide} from ") == 2
        (kept,) = json.loads(shell.ok("resource", "list", "--json"))["reservations"]
        assert (kept["id"], kept["ranks"], kept["start"]) == (wide, [0, 1], float(begins[0]))
        reservation = json.loads(shell.ok("job", "info", wide, "reservation"))["execution"]
        assert (reservation["starttime"], reservation["nodelist"]) == (float(begins[0]), ["fake[0-1]"])
        done = shell("job", "info", endless, "reservation")
        assert (done.code, done.err.splitlines()[0]) == (3, f"fluxkv: nothing is reserved for job {endless}")
        assert f"default: first in line: {wide}, which begins about " in shell.ok("queue", "status", "-v")

        told = shell.ok("explain", "fake0")
        assert told.startswith(f"fake0 (rank 0) is allocated: {running} has all of it, until ")
        assert f"next        {wide}" in told
        assert shell.ok("explain", "--node", "0-1").count("(rank ") == 2
        version = json.loads(shell.ok("journal", "stats", "--json"))["commits"]
        shell.ok("cancel", wide)
        shell.ok("resource", "drain", "1", "bad fan")
        assert "fake1 (rank 1) is drained since" in shell.ok("explain", "1")
        assert shell.ok("explain", wide).startswith(f"{wide} was cancelled before it began: cancel; it ended ")
        assert shell.ok("explain", wide, "--at", str(version)).startswith(f"{wide} waits: needs 2 idle nodes; 1 is idle;")
        for words, code, text in (
            (("nothing-of-the-kind",), 1, "neither a job's id nor a node"),
            (("ƒ2",), 1, "job ƒ2: no such job"),
            (("--node", "7"), 1, "rank 7: no such node"),
            ((wide, "--at", "2100-01-01"), 1, "is still to come"),
            ((wide, "--at", "1"), 1, "not there at 1"),
            ((), 2, "name a job, a node"),
        ):
            done = shell("explain", *words)
            assert (done.code, text in done.err) == (code, True), done
    finally:
        assert shell("stop", "--state-dir", home / "i").code == 0
    assert shell.ok("explain", "--state-dir", home / "i", wide).startswith(f"{wide} was cancelled")
    told = shell.ok("explain", "--state-dir", home / "i", endless)
    assert told.startswith(f"{endless} waits for the instance to be started again.")
    told = shell.ok("explain", "--state-dir", home / "i", wide, "--at", str(version))
    assert told.startswith(f"{wide} waits: needs 2 idle nodes; 1 is idle; it begins about")
