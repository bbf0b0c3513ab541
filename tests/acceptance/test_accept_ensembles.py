"""resubmit, watch, and jobspecs from files: what was there once more, and a running ensemble from another shell."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

pytestmark = pytest.mark.live


def pairs(text: str) -> list[tuple[str, str]]:
    """(old, new) of each line."""
    return [(line.split(" -> ")[0], line.split(" -> ")[1]) for line in text.splitlines()]


def test_resubmit_is_the_same_job_again(site: Any) -> None:
    old = site.submit("--env=MINE=first", "--job-name=once", "-t", "5m", "-n2", "sh", "-c", "echo $MINE; exit 3")
    assert site("job", "status", old).code == 3
    done = site("resubmit", "--watch", old)
    assert done.code == 3
    assert done.lines[1:] == ["first", "first"]
    ((named, new),) = pairs(done.lines[0])
    assert named == old != new
    first, second = (json.loads(site.ok("job", "info", id, "jobspec")) for id in (old, new))
    assert first == second
    words = ["-t", "7m", "-n1", "--env=MINE=second", "--job-name=twice", "-S", "user.x=1", "--urgency=20"]
    changed = site("resubmit", *words, "--watch", old)
    assert changed.lines[1:] == ["second"]
    ((_, third),) = pairs(changed.lines[0])
    spec = json.loads(site.ok("job", "info", third, "jobspec"))
    system = spec["attributes"]["system"]
    assert (system["duration"], system["job"]["name"], spec["attributes"]["user"]) == (420.0, "twice", {"x": 1})
    assert spec["resources"][0]["count"] == 1
    assert "urgency=20" in site.ok("job", "eventlog", third)


def test_resubmit_what_failed(user: Any, place: Any) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
    shell = user.at(user.folder, uri)
    assert shell("resubmit", "--failed").err == "fluxkv: no such job has failed\n"
    ids = shell("submit", "--wait", "--cc=0-3", "sh", "-c", "exit $(({cc} % 2))").lines
    late = shell.submit("--setattr=exec.test.run_duration=10", "-t", "0.01s", "true")
    shell("job", "wait", late)
    gone = shell.submit("--urgency=hold", "true")
    shell.ok("cancel", gone)
    found = pairs(shell.ok("resubmit", "--failed"))
    assert [old for old, _ in found] == [ids[1], ids[3], late]
    shell.ok("queue", "drain", "--timeout", "60s")
    assert len(pairs(shell.ok("resubmit", "--failed", "--since", "-1h"))) == 6  # the new ones have failed too
    shell.ok("queue", "drain", "--timeout", "60s")
    # Jobs that have left the state are in the journal still.
    shell.ok("job", "purge", "--force", "--num-limit=0")
    ((old, new),) = pairs(shell("resubmit", "--wait", ids[1]).out)
    assert old == ids[1]
    assert shell("job", "status", new).code == 1
    assert "equal" in shell.ok("replay", "--diff", "live")


def test_resubmit_refuses(site: Any) -> None:
    id = site.submit("-N1", "--tasks-per-node=2", "true")
    for words, text in (
        ([], "name jobs, or --failed"),
        (["--failed", id], "not both"),
        (["--since", "-1h", id], "goes with --failed"),
        (["ƒ1"], "no such job"),
        (["-n2", id], "by node or core"),
        (["-t", "soon", id], "'--time-limit'"),
        (["--urgency=99", id], "0 to 31"),
        (["-o", "cpu-affinity=sideways", id], "on, off or per-task"),
    ):
        done = site("resubmit", *words)
        assert (done.code, done.out) in ((1, ""), (2, "")), done
        assert text in done.err, done


def test_watch_follows_what_others_submitted(site: Any) -> None:
    ended = site.submit("sh", "-c", "echo ended; exit 2")
    assert site("job", "status", ended).code == 2
    running = site.submit("sh", "-c", "echo begun; while ! [ -e go ]; do sleep 0.05; done; echo done; exit 5")
    process = site.popen("watch", "-l", ended, running)
    seen = [process.stdout.readline() for _ in range(2)]
    assert sorted(seen) == sorted([f"{ended}: 0: ended\n", f"{running}: 0: begun\n"])  # while it runs
    (site.folder / "go").touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (5, f"{running}: 0: done\n", "")
    bar = site("watch", "--progress", "-", given=f"{ended}\n{running}\n")
    assert (bar.code, bar.out) == (5, "")
    assert "2/2 done, 2 failed" in bar.err


def test_watch_all_and_ctrl_c(user: Any, place: Any) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "--cores", "2").splitlines()[-1]
    shell = user.at(user.folder, uri)
    assert shell("watch", "--all").err == "fluxkv: no job is active\n"
    ids = shell.ok("submit", "--cc=1-3", "sh", "-c", "echo begun {cc}; exec sleep 600").split()
    process = shell.popen("watch", "--all")
    assert process.stdout.readline().startswith("begun")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the jobs go on" in err
    assert len(shell.ok("jobs", "--no-header", "--format", "{id}").split()) == 3
    late = shell("watch", "--all", "--progress", "--timeout=0.2s")
    assert late.code == 1
    assert "timed out" in late.err
    shell.ok("cancel", *ids)
    assert shell("watch", *ids).code == 143
    for words, text in (([], "name jobs, or --all"), (["--all", ids[0]], "not both"), (["-q", "x", ids[0]], "goes with --all"),
                        (["ƒ1"], "no such job")):  # fmt: skip
        done = shell("watch", *words)
        assert done.code in (1, 2)
        assert text in done.err


def test_job_submit(site: Any) -> None:
    text = site.ok("submit", "--dry-run", "-n2", "--env=A=b", "sh", "-c", "echo $A")
    id = site.ok("job", "submit", given=text).strip()
    assert site.ok("job", "attach", id) == "b\nb\n"
    (site.folder / "job.yaml").write_text(
        "version: 1\nresources: [{type: slot, count: 1, label: task, with: [{type: core, count: 1}]}]\n"
        "tasks: [{command: [pwd], slot: task, count: {per_slot: 1}}]\nattributes: {system: {duration: 0}}\n"
    )
    id = site.ok("job", "submit", "--urgency=31", "job.yaml").strip()
    assert site.ok("job", "attach", id) == f"{site.folder}\n"
    for given, text in (("{}", "version: is required"), ("version: [1", "not YAML"), ("", "must be an object")):
        done = site("job", "submit", given=given)
        assert (done.code, done.out) == (1, "")
        assert text in done.err
    assert "no-such: No such file" in site("job", "submit", "no-such").err
