"""Queues, limits and changed jobs as a user meets them, in an instance of two nodes and three queues, with two workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

CONFIG = """
[[resource.config]]
hosts = "n[0-1]"
cores = "0-3"

[queues.batch]
hosts = "n0"
policy.limits = { duration = "1h", job-size.max.ncores = 4 }

[queues.debug]
hosts = "n1"
policy.limits = { duration = "10m", max-running-jobs-per-user = 2 }

[queues.low]
parent = "batch"

[policy.jobspec.defaults.system]
queue = "batch"
duration = "5m"
"""
FIELDS = "{id} {queue} {status} {nodelist}"


@pytest.fixture(scope="module")
def place(base: Path) -> Path:
    """Where the one instance of these tests lives."""
    folder = base / "queues"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(place: Path, new_shell: Any) -> Iterator[Any]:
    (place / "site.toml").write_text(CONFIG)
    shell = new_shell(place / "home", place)
    words = ["start", "--detach", "--state-dir", place / "i", "--config", "site.toml", "--workers", "2"]
    shell.env["FLUXKV_URI"] = shell.ok(*words).split()[-1]
    yield shell
    assert shell("stop", "--state-dir", place / "i").code == 0
    assert shell.alive(str(place)) == []


@pytest.fixture
def user(cluster: Any) -> Iterator[Any]:
    """The instance with nothing left over."""
    yield cluster
    cluster("cancel", "--all", "--user=all")
    cluster("queue", "start", "--all")
    cluster("queue", "drain", "-t", "60s")


def started(user: Any, *words: str) -> str:
    (id,) = user.ok("submit", *words).split()
    user.ok("job", "wait-event", "-q", "-t", "30s", id, "start")
    return str(id)


def test_each_queue_runs_on_its_nodes_with_its_defaults(user: Any) -> None:
    ids = [user.ok("submit", *words, "true").strip() for words in ((), ("-q", "debug"), ("--queue=low",))]
    assert user("job", "status", *ids).code == 0
    lines = user.ok("jobs", "-a", "-n", "-o", FIELDS, *ids).splitlines()
    assert sorted(line.split()[1:] for line in lines) == [
        ["batch", "COMPLETED", "n0"], ["debug", "COMPLETED", "n1"], ["low", "COMPLETED", "n0"],
    ]  # fmt: skip
    assert "300" in user.ok("job", "info", ids[0], "jobspec")
    assert user.ok("queue", "list", "-n", "-o", "{queuem} {limits.timelimit!F} {parent}").split() == [
        "batch*", "1h", "debug", "10m", "low", "1h", "batch",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-q", "nosuch"], "queue nosuch is not defined"),
        (["-q", "debug", "-t", "11m"], "queue debug: time limit 11m is above the 10m allowed"),
        (["-n", "5"], "queue batch: 5 cores are more than the 4 allowed"),
    ],
)
def test_a_submission_over_a_limit_is_refused_at_once(user: Any, words: list[str], says: str) -> None:
    for command in ("submit", "run"):
        done = user(command, *words, "true")
        assert (done.code, done.out) == (1, "")
        assert says in done.err


def test_jobs_over_the_number_per_user_wait_with_the_reason(user: Any) -> None:
    ids = user.ok("submit", "-q", "debug", "--cc=1-3", "sleep", "600").split()
    user.ok("job", "wait-event", "-q", "-t", "30s", ids[1], "start")
    assert "has 2 running jobs in queue debug, as many as allowed" in user.ok("jobs", ids[2])
    user.ok("cancel", ids[0])
    user.ok("job", "wait-event", "-q", "-t", "30s", ids[2], "start")


def test_a_running_job_gets_more_time_and_then_less(user: Any) -> None:
    id = started(user, "-t", "10m", "sleep", "600")
    assert user.ok("update", id, "duration=+10m") == ""
    assert user.ok("jobs", "-n", "-o", "{duration!F}", id).strip() == "20m"
    done = user("update", id, "duration=2h", "name=x")
    assert (done.code, "only its duration can be changed" in done.err) == (1, True)
    assert "above the 1h allowed" in user("update", id, "duration=2h").err
    seconds = int(float(user.ok("jobs", "-n", "-o", "{runtime}", id))) + 4  # however long all that took
    assert f"job {id}: attributes.system.duration={seconds}.0" in user("update", "-v", id, f"duration={seconds}").err
    assert user("job", "wait", id, "-t", "60s").code != 0
    assert user.ok("jobs", "-a", "-n", "-o", "{result}", id).strip() == "TIMEOUT"
    assert "is over" in user("update", id, "duration=1h").err
    assert "resource-update" in user.ok("job", "eventlog", id)


def test_a_waiting_job_moves_to_another_queue(user: Any) -> None:
    user.ok("queue", "stop", "batch", "-m", "fan is broken")
    id = user.ok("submit", "-t", "20m", "true").strip()
    assert "queue batch is stopped: fan is broken" in user.ok("jobs", id)
    assert "time limit 20m is above the 10m allowed" in user("update", id, "queue=debug").err
    assert json.loads(user.ok("update", "-n", id, "queue=debug", "duration=1m"))["update"] == {
        "attributes.system.queue": "debug", "attributes.system.duration": 60.0,
    }  # fmt: skip
    user.ok("update", id, "queue=debug", "duration=1m", "name=moved")
    assert user("job", "wait", id, "-t", "60s").code == 0
    assert user.ok("jobs", "-a", "-n", "-o", "{name} {queue} {nodelist}", id).split() == ["moved", "debug", "n1"]


def test_hold_release_and_cancel_by_what_jobs_are(user: Any) -> None:
    user.ok("queue", "stop", "--all")
    one, other = (user.ok("submit", "-q", queue, "--urgency=20", "true").strip() for queue in ("batch", "debug"))
    assert user("hold", "--all", "--queue=debug").err == "fluxkv: held 1 job\n"
    user.ok("queue", "start", "--all")
    assert user("job", "wait", one, "-t", "60s").code == 0
    assert "held" in user.ok("jobs", other)
    assert user("hold", one).code == 1
    user.ok("release", other)
    assert user("job", "wait", other, "-t", "60s").code == 0
    assert user.ok("jobs", "-a", "-n", "-o", "{urgency}", other).strip() == "20"
    running = started(user, "sleep", "600")
    held = user.ok("submit", "--urgency=hold", "true").strip()
    assert user("cancel", "--all", "--states=pending").err == "fluxkv: cancelled 1 job\n"
    assert user.ok("jobs", "-a", "-n", "-o", "{status_abbrev}", held, running).split() == ["CA", "R"]


def test_another_config_is_taken_up_at_once_or_refused_whole(user: Any, place: Path) -> None:
    site = place / "site.toml"
    site.write_text(CONFIG.replace('"1h"', '"2h"').replace("cores = \"0-3\"", "cores = \"0-7\""))
    done = user("config", "reload")
    assert (done.code, "[resource] is not what the instance was made with" in done.err) == (1, True)
    site.write_text(CONFIG + "[queues.debug.nonsense]\n")
    assert f"config {site}: queues.debug.nonsense is no key" in user("config", "reload").err
    site.write_text(CONFIG.replace('"1h"', '"2h"'))
    user.ok("config", "reload")
    assert user("run", "-t", "90m", "true").code == 0
    site.write_text(CONFIG)
    user.ok("config", "reload")
    assert user("run", "-t", "90m", "true").code == 1
    assert user.ok("config", "get", "--type=string", "queues.batch.hosts") == "n0\n"


def test_reasons_and_config_survive_a_restart_and_replay_is_equal(user: Any, place: Path) -> None:
    user.ok("queue", "stop", "debug", "-m", "until noon")
    user.ok("queue", "disable", "batch", "-m", "full")
    before = user.ok("config", "get"), user.ok("queue", "status")
    waiting = user.ok("submit", "-q", "debug", "true").strip()
    user.ok("stop", "--state-dir", place / "i")
    assert user.ok("config", "get", "--state-dir", place / "i") == before[0]
    user.ok("start", "--detach", "--state-dir", place / "i")
    assert (user.ok("config", "get"), user.ok("queue", "status")) == before
    assert "batch: Job submission is disabled: full" in before[1]
    assert "until noon" in user.ok("jobs", waiting)
    assert "queue batch does not accept jobs: full" in user("submit", "true").err
    user.ok("queue", "enable", "--all")
    user.ok("queue", "start", "--all")
    assert user("job", "wait", waiting, "-t", "60s").code == 0
    assert "equal" in user.ok("replay", "--diff", "live")
    assert "config" in user.ok("journal", "show")


def test_a_signal_before_a_time_limit_that_the_config_sets(user: Any) -> None:
    loop = "trap 'exit 7' USR1; while :; do sleep 0.1; done"
    assert user("run", "--signal=USR1@299s", "sh", "-c", loop).code == 7  # one second after its start: the limit is 5 minutes


def test_a_format_of_queues_that_is_none(user: Any) -> None:
    done = user("queue", "list", "-o", "nosuch")
    assert (done.code, done.out) == (1, "")
    hint = "  there are default, status, users, nodes, policy; or write {queue} {limits.timelimit}\n"
    assert done.err == "fluxkv: no output format is called 'nosuch'\n" + hint


def test_what_is_above_a_limit_is_told_what_to_do(user: Any) -> None:
    done = user("submit", "-n5", "true")
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("5 cores are more than the 4 allowed\n  ask for fewer (limits.job-size.max.ncores)\n")
    assert "there are n[0-1]" in user("resource", "drain", "nosuch", "fan").err
