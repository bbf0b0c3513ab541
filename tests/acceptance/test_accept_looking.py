"""Jobs looked at as a user does: of any age, their processes, their time; what was noted and purged outlives the daemons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live


def running(site: Any, *words: str) -> str:
    id: str = site.submit(*words)
    site.ok("job", "wait-event", id, "start")
    return id


def test_processes_of_tasks(site: Any) -> None:
    id = running(site, "-N2", "-n4", "--job-name=pids", "sleep", "600")
    pairs = [pair.rpartition(":") for pair in site.ok("job", "hostpids", id).strip().split(",")]
    assert len({pid for _, _, pid in pairs}) == 4
    for task, (host, _, pid) in enumerate(pairs):
        assert site.words_of(int(pid)) == "sleep 600 "
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert f"FLUX_TASK_RANK={task}".encode() in environment
        assert host == site.ok("job", "taskmap", f"--hostname={task}", id).strip()
    assert site.ok("job", "hostpids", "-r", "1-2", "-d", " ", id).split() == ["".join(pair) for pair in pairs[1:3]]
    site.ok("pkill", "--wait", "-m", "seen enough", "^pids$")
    assert "is not running" in site("job", "hostpids", id).err
    assert "seen enough" in site.ok("jobs", "--failed", "--name", "pids")


def test_tasks_laid_out_in_turn_are_told_apart(site: Any) -> None:
    id = running(site, "-N2", "-n4", "--taskmap=cyclic", "sleep", "600")
    try:
        assert site.ok("job", "taskmap", "--to=raw", id) == "0,2;1,3\n"
        for task, pair in enumerate(site.ok("job", "hostpids", id).strip().split(",")):
            environment = Path(f"/proc/{pair.rpartition(':')[2]}/environ").read_bytes().split(b"\0")
            assert f"FLUX_TASK_RANK={task}".encode() in environment
    finally:
        site.ok("cancel", id)


def test_time_left_inside_and_outside(site: Any) -> None:
    assert 50 < int(site.ok("run", "-t", "1m", "fluxkv", "job", "timeleft")) <= 60
    assert site.ok("run", "fluxkv", "job", "timeleft").strip() == "4294967295"
    id = running(site, "-t", "5m", "sleep", "600")
    assert 200 < int(site.ok("job", "timeleft", id)) <= 300
    site.ok("cancel", id)
    site("job", "status", id)
    assert site.ok("job", "timeleft", id) == "0\n"
    assert site("job", "timeleft").code == 1


def test_notes_and_purged_jobs_outlive_the_daemons(user: Any) -> None:
    user.uri = user.ok("start", "--detach", "-s", "2", "--cores", "4").splitlines()[-1]
    user.env["FLUXKV_URI"] = user.uri
    first = user.submit("sh", "-c", "exit 3")
    ids = [first, *user.ok("submit", "--cc=1-5", "true").split()]
    user("job", "status", *ids)
    kept = running(user, "sleep", "600")
    user.ok("job", "memo", kept, "step=1", "note=so far")
    whole = user.ok("jobs", "-a", "-o", "{id} {status} {returncode} {nodelist} {t_submit} {t_run} {t_inactive}")
    story = user.ok("inspect", "job", first)
    assert "purged 6 of 6" in user("job", "purge", "--force", "--num-limit=0").err
    for _ in range(2):
        assert user.ok("jobs", "-a", "-o", "{id} {status} {returncode} {nodelist} {t_submit} {t_run} {t_inactive}") == whole
        assert user.ok("inspect", "job", first) == story
        assert user("job", "status", first).code == 3
        assert json.loads(user.ok("job", "info", first, "R"))["version"] == 1
        assert user.ok("jobs", "-n", "-o", "{user.step} {user.note}", kept) == "1 so far\n"
        assert user.ok("jobs", "--stats-only") == "1 running, 5 completed, 1 failed, 0 pending\n"
        assert first in user.ok("inspect", "node", "0") + user.ok("inspect", "node", "1")
        assert user.ok("job", "last", "[-1:]").strip() == first
        assert user("cancel", first).code == 1
        assert "equal to the live state" in user.ok("replay", "--diff", "live")
        user.ok("restart")
    assert user("run", "true").code == 0
    directory = json.loads(user.ok("list", "--json"))["instances"][0]["directory"]
    user.ok("cancel", kept)
    user("job", "status", kept)
    user.ok("stop")
    assert user.ok("jobs", "-a", "-n", "-o", "{id} {status}", "--state-dir", directory, first) == f"{first} FAILED\n"


def test_what_is_wrong_is_said(site: Any) -> None:
    for words, code, text in (
        (("jobs", "ƒ2222222222"), 1, "no such job"),
        (("jobs", "--constraint", "states:walk"), 1, "is no state"),
        (("jobs", "-o", "nosuch"), 1, "no output format"),
        (("jobs", "-i", "0", "--json", "--stats"), 2, "--json"),
        (("pgrep", "no-job-is-called-this"), 1, ""),
        (("pgrep", "("), 2, "bad pattern"),
        (("pkill", "no-job-is-called-this"), 1, ""),
        (("job", "taskmap", "[[0,0,1,1]]"), 1, "bad task map"),
        (("job", "memo", "ƒ2222222222", "a=1"), 1, "no such job"),
        (("job", "purge"), 2, "name jobs"),
        (("job", "last", "none"), 2, "is no number"),
        (("inspect", "node", "0", "--since", "tomorrow"), 1, "bad moment"),
        (("inspect", "node", "0", "--since", "-1m", "--until", "-1h"), 1, "--until -1h is before --since -1m"),
        (("jobs", "--since", "-1m", "--until", "-1h"), 1, "--until -1h is before --since"),
    ):
        done = site(*words)
        assert (done.code, text in done.err) == (code, True), (words, done)
        assert done.out == ""
