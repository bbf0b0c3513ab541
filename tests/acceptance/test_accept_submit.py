"""What submit, run, cancel, jobs, queue and job promise on the command line."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

pytestmark = pytest.mark.live


def test_submit_prints_ids_only(site: Any) -> None:
    done = site("submit", "true")
    assert done.code == 0
    assert done.err == ""
    (id,) = done.lines
    assert id.startswith("ƒ")
    assert len(site("submit", "--cc=1-5", "true").lines) == 5
    quiet = site("submit", "--quiet", "--cc=1-5", "--wait", "true")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_wait_gives_the_worst_code(site: Any) -> None:
    assert site("submit", "--quiet", "--wait", "--cc=0-4", "sh", "-c", "exit {cc}").code == 4
    assert site("submit", "--quiet", "--wait", "--cc=0,9", "sh", "-c", "kill -{cc} $$").code == 137
    late = site("submit", "--wait", "--timeout=0.1s", "sleep", "600")
    assert late.code == 1
    assert "timed out" in late.err
    site.ok("cancel", late.lines[0])


def test_cc_is_replaced_in_options_and_arguments(site: Any) -> None:
    site.ok(
        "submit", "--quiet", "--wait", "--cc=1-3", "--job-name=n{cc}", "--output=o.{cc}", "--env=MINE=m{cc}",
        "sh", "-c", "echo {cc} $FLUX_JOB_CC $MINE",
    )  # fmt: skip
    assert [(site.folder / f"o.{n}").read_text() for n in (1, 2, 3)] == [f"{n} {n} m{n}\n" for n in (1, 2, 3)]
    names = site.ok("jobs", "-a", "-c", "3", "--no-header", "--format", "{name}").split()
    assert sorted(names) == ["n1", "n2", "n3"]
    site.ok("submit", "--quiet", "--wait", "--bcc=7", "--output=b.{cc}", "sh", "-c", "echo {cc} ${FLUX_JOB_CC-none}")
    assert (site.folder / "b.7").read_text() == "7 none\n"


@pytest.mark.parametrize(
    ("script", "code", "out", "err"),
    [
        ("echo out; echo err >&2; exit 7", 7, "out\n", "err\n"),
        ("kill -15 $$", 143, "", ""),
        ("printf 'no end'", 0, "no end", ""),
    ],
)
def test_run_is_the_job(site: Any, script: str, code: int, out: str, err: str) -> None:
    done = site("run", "sh", "-c", script)
    assert (done.code, done.out, done.err) == (code, out, err)


def test_run_passes_standard_input_on(site: Any) -> None:
    text = "".join(f"line {n}\n" for n in range(20000))
    assert site.ok("run", "cat", given=text) == text
    assert site.ok("run", "-n2", "-l", "cat", given="x\n").splitlines() == ["0: x", "1: x"]
    (site.folder / "in").write_text("from a file\n")
    assert site.ok("run", "--input=in", "cat") == "from a file\n"
    assert site.ok("run", "cat", given="") == ""


def test_output_is_live_and_kept_for_later(site: Any) -> None:
    process = site.popen("run", "sh", "-c", "echo first; read x; echo $x", stdin=-1)
    assert process.stdout.readline() == "first\n"  # while the job runs on
    process.stdin.write("second\n")
    process.stdin.flush()
    assert process.stdout.readline() == "second\n"
    process.stdin.close()
    assert process.wait(30) == 0
    assert site.ok("job", "attach", site.ok("job", "last").strip()) == "first\nsecond\n"


def test_detach_from_run_by_timeout(site: Any) -> None:
    done = site("run", "--timeout=0.2s", "sleep", "600")
    assert done.code == 1
    assert "timed out" in done.err
    id = site.ok("job", "last").strip()
    assert site.ok("jobs", "--no-header", "--format", "{id} {status_abbrev}", id).split() == [id, "R"]
    site.ok("cancel", id)
    assert site("job", "status", id).code != 0


def test_ctrl_c_goes_to_the_job(site: Any) -> None:
    process = site.popen("run", "sh", "-c", "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.1; done")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (9, "got it\n")
    assert "SIGINT sent to the job" in err


def test_jobs_prints_just_the_format(site: Any) -> None:
    good, bad = site.submit("true"), site.submit("false")
    site("job", "status", good, bad)
    done = site("jobs", "-a", "--no-header", "--format", "{id} {status_abbrev}", good, bad)
    assert sorted(done.lines) == sorted([f"{good} CD", f"{bad} F"])
    assert site("jobs", "-a", "--format", "{nonsense}").code != 0
    held = site.submit("--urgency=hold", "true")
    assert site.ok("jobs", "--no-header", "--format", "{id} {status_abbrev}", held).split() == [held, "S"]
    assert "held" in site.ok("jobs", held)
    site.ok("job", "urgency", held, "default")
    assert site("job", "wait", held, "--timeout", "30s").code == 0


def test_queue_drain_and_idle(site: Any) -> None:
    held = site.submit("--urgency=0", "true")
    busy = site.submit("sleep", "600")
    site.ok("job", "wait-event", "-q", "-t", "30s", busy, "start")
    for what in ("drain", "idle"):
        late = site("queue", what, "--timeout", "0.1s")
        assert late.code == 1
        assert "after 0.1s" in late.err
    site.ok("cancel", busy)
    site.ok("queue", "idle", "--timeout", "30s")  # the held one asks for nothing
    assert site("queue", "drain", "--timeout", "0.1s").code == 1
    site.ok("cancel", held)
    site.ok("queue", "drain", "--timeout", "30s")
    assert site.ok("jobs", "--no-header") == ""


def test_every_waiting_command_takes_a_timeout(site: Any) -> None:
    id = site.submit("sleep", "600")
    site.ok("job", "wait-event", "-t", "30s", id, "start")
    for words in (
        ["job", "wait-event", id, "finish"], ["job", "wait", id], ["job", "wait", "--all"], ["job", "wait"],
        ["job", "status", id], ["job", "attach", id], ["job", "eventlog", "--follow", id],
        ["queue", "drain"], ["queue", "idle"], ["journal", "tail", "--follow"], ["kvs", "get", "--watch", "some.key"],
        ["kvs", "wait", "some.key"], ["kvs", "eventlog", "wait-event", "some.log", "x"],
    ):  # fmt: skip
        known = site(*words, "--help")
        if known.code:
            continue  # not among the commands
        late = site(*words, "--timeout", "0.1s")
        assert late.code == 1, (words, late)
        assert late.err, words
        bad = site(*words, "--timeout", "soon")
        assert bad.code in (1, 2), (words, bad)
        assert "duration" in bad.err, (words, bad)
    site.ok("cancel", id)


def test_cancel_says_what_it_did_not(site: Any) -> None:
    ids = site.ok("submit", "--cc=1-3", "sleep", "600").split()
    site.ok("job", "wait-event", "-q", "-t", "30s", ids[0], "start")
    assert site("cancel", "-m", "enough", ids[0]).code == 0
    log = site.ok("job", "eventlog", "--follow", "--timeout=30s", ids[0])
    (line,) = [line for line in log.splitlines() if " exception " in line]
    assert 'type="cancel" severity=0' in line
    assert "enough" in line
    again = site("cancel", ids[0])
    assert again.code == 1
    assert "inactive" in again.err
    assert "cancelled 2 jobs" in site("cancel", "--all").err
    assert site("job", "status", *ids).code == 143
    assert site("cancel").code == 2
    assert site("cancel", "ƒzzzz").code == 1


def test_dry_run_and_jobspec(site: Any) -> None:
    jobspec = json.loads(site.ok("submit", "--dry-run", "-N2", "-n4", "-c2", "-t", "5m", "true"))
    assert jobspec["attributes"]["system"]["duration"] == 300.0
    id = site.submit("--setattr=user.note=x", "true")
    assert json.loads(site.ok("job", "info", id, "jobspec"))["attributes"]["user"]["note"] == "x"
    site.ok("job", "wait", id)
    assert json.loads(site.ok("job", "info", id, "R"))["version"] == 1


def test_a_signal_and_an_exception(site: Any) -> None:
    id = site.submit("sh", "-c", "trap 'exit 6' USR1; while :; do sleep 0.1; done")
    site.ok("job", "wait-event", "-q", "-t", "30s", id, "start")
    site.ok("job", "raise", "-t", "note", "-s", "7", "-m", "by the way", id)
    site.ok("job", "kill", "-s", "USR1", id)
    assert site("job", "status", "--timeout=30s", id).code in (6, 138)  # 138: before the trap was there
    refused = site("job", "kill", id)
    assert refused.code == 1
    assert "Traceback" not in refused.err


def test_a_journal_that_holds(site: Any) -> None:
    site.ok("submit", "--quiet", "--wait", "--cc=1-20", "true")
    site.ok("queue", "idle", "--timeout", "30s")
    assert site("replay", "--diff", "live").code == 0
    assert site("journal", "verify").code == 0
