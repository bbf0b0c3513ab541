"""Ensembles of real jobs under which daemons, the server and whoever watches are killed; and those that end before they begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances import left_spool
from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.instances.ensemble_view import EnsembleView
from fluxkv.instances.follow import Tail
from fluxkv.instances.spool import Record
from fluxkv.journal.ids import f58, parse_id
from fluxkv.journal.job import INACTIVE, Job
from fluxkv.journal.state import State

pytestmark = pytest.mark.live


def rows(site: Any, id: str) -> list[dict[str, Any]]:
    done = site.run("ensemble", "results", "--json", id)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def daemons(site: Any, role: str, depth: int) -> list[int]:
    """Those of instances so deep inside the outermost one: 1 the ensemble's own, 2 its children's."""
    return sorted(pid for pid, command in site.processes().items()
                  if f"main {role} " in command and command.count("/ns/") == depth)  # fmt: skip


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def told(view: EnsembleView, count: int) -> None:
    """Waits until so many members are known to have ended."""
    for seen in view.follow(live.PATIENCE_S):
        assert seen.result is None, f"it ended first: {seen}"
        if seen.counts.done >= count:
            return


def inside(uri: str, wanted: Callable[[State], Any]) -> Any:
    """What is wanted of the state of an instance inside, once it is there."""
    with connect(uri) as there, closing(Tail(there.store, 0)) as tail:
        while not (found := wanted(there.state())):
            tail.poll(live.PATIENCE_S)
        return found


def test_whoever_is_killed_each_member_has_one_result(tmp_path: Path) -> None:
    """Who ran the command, a child's keeper, the server, children's workers; near the end the ensemble's own worker and keeper."""
    diary = tmp_path / "diary"
    script = f"sleep 0.01; echo $FLUX_JOB_CC >> {diary}; exit $(( $FLUX_JOB_CC == 7 ? 3 : 0 ))"
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        command = site.popen("ensemble", "run", f"--uri={site.uri}", "--per-node=2", "--cc=1-900", "sh", "-c", script,
                             stderr=subprocess.DEVNULL)  # fmt: skip
        site.until(lambda state: any(job.memo.get("uri") for job in state.jobs.values()), "the ensemble is an instance")
        id = site.run("job", "last").stdout.strip()
        view = EnsembleView(site.client, parse_id(id))
        told(view, 20)
        command.kill()
        command.wait()
        kill(daemons(site, "keeper", 2)[:1])
        told(view, 100)
        site.kill("server")
        told(view, 200)
        kill(daemons(site, "worker", 2))
        told(view, 500)
        kill([*daemons(site, "worker", 1), *daemons(site, "keeper", 1)])
        assert site.run("ensemble", "watch", id).returncode == 3
        found = rows(site, id)
        assert [row["index"] for row in found] == list(range(1, 901))
        assert {row["index"] for row in found if row["result"] != "CD"} == {7}
        assert Counter(diary.read_text().split()) == Counter(map(str, range(1, 901)))
        status = json.loads(site.run("ensemble", "status", "--json", id).stdout)
        assert (status["done"], status["failed"], status["left"], status["returncode"]) == (900, 1, 0, 3)
        view.close()


def test_one_that_is_cancelled_while_it_begins_ends_and_runs_again(tmp_path: Path) -> None:
    """Once as soon as it has begun, once while its children start; Ctrl-C ends nothing but the command."""
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        command = site.popen("ensemble", "run", f"--uri={site.uri}", "--per-node=2", "--cc=1-6", "sh", "-c",
                             f"test -e {tmp_path}/now || sleep 100", stderr=subprocess.PIPE)  # fmt: skip
        state = site.until(lambda state: any(job.t_run for job in state.jobs.values()), "it has begun")
        (id,) = state.jobs
        command.send_signal(signal.SIGINT)
        shown = command.communicate(timeout=live.PATIENCE_S)[1]
        assert "the ensemble goes on" in shown
        assert "Traceback" not in shown
        assert command.returncode == 130
        def until(what: str, wanted: Callable[[Job], bool], id: int) -> None:
            site.until(lambda state: wanted(state.jobs[id]), what)

        for number in range(2):
            if number:
                until("it is an instance", lambda job: bool(job.memo.get("uri")), id)
                inside(child_uri(site.uri, id), lambda state: state.jobs)  # its children are submitted, and start
            assert site.run("cancel", f58(id)).returncode == 0
            until("it is over", lambda job: job.state == INACTIVE, id)
            assert [one for one in site.processes().values() if "fluxkv ensemble" in one] == []
            status = json.loads(site.run("ensemble", "status", "--json", f58(id)).stdout)
            assert (status["done"], status["left"]) == (0, 6), status
            if number:
                (tmp_path / "now").touch()
            id = parse_id(site.run("ensemble", "rerun", f58(id)).stdout.strip())
        done = site.run("ensemble", "watch", f58(id))
        assert done.returncode == 0, done.stderr
        site.no_traceback()


class Unheard:
    """An ensemble of one child with four members, who all end while the child's agent is held still: nobody has heard of it."""

    def __init__(self, site: Any, folder: Path, code: str = "0") -> None:
        self.site, self.diary = site, folder / "diary"
        script = f"until test -e {folder}/go; do sleep 0.01; done; echo $FLUX_JOB_CC >> {self.diary}; exit {code}"
        self.id = site.run("ensemble", "submit", "--cc=1-4", "sh", "-c", script).stdout.strip()
        self.job = parse_id(self.id)
        site.until(lambda state: bool(state.jobs[self.job].memo.get("uri")), "the ensemble is an instance")
        above = child_uri(site.uri, self.job)
        child = inside(above, lambda state: [job.id for job in state.jobs.values() if job.memo.get("uri")])[0]
        self.child = child_uri(above, child)
        self.members(lambda job: job.t_run)
        (self.agent,) = daemons(site, "agent", 2)
        os.kill(self.agent, signal.SIGSTOP)
        tasks = [os.pidfd_open(pid) for pid, command in site.processes().items() if command.startswith("sh -c until")]
        assert len(tasks) == 4
        (folder / "go").touch()
        for task in tasks:
            assert live.ends(task)
            os.close(task)

    def members(self, wanted: Callable[[Job], Any]) -> None:
        """Waits until each is as wanted."""
        inside(self.child, lambda state: sum(bool(wanted(job)) for job in state.jobs.values()) == 4)


def test_what_had_ended_when_its_ensemble_was_cancelled_does_not_run_again(tmp_path: Path) -> None:
    """One has failed, and may have failed by what it missed of its instance."""
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        unheard = Unheard(site, tmp_path, "$(( $FLUX_JOB_CC == 3 ? 5 : 0 ))")
        assert site.run("cancel", unheard.id).returncode == 0
        unheard.members(lambda job: job.exception)
        os.kill(unheard.agent, signal.SIGCONT)
        site.until(lambda state: state.jobs[unheard.job].state == INACTIVE, "it is over")
        assert [(row["index"], row["result"]) for row in rows(site, unheard.id)] == [(1, "CD"), (2, "CD"), (4, "CD")]
        again = site.run("ensemble", "rerun", unheard.id)
        assert f"fluxkv: 1 member of {unheard.id}" in again.stderr
        assert site.run("ensemble", "watch", again.stdout.strip()).returncode == 5
        assert [row["index"] for row in rows(site, again.stdout.strip())] == [3]


@pytest.mark.parametrize("whole", [True, False])
def test_what_had_ended_when_all_was_killed_does_not_run_again(tmp_path: Path, whole: bool) -> None:
    """What its launcher wrote down is read by the next attempt: of the ensemble with all in it, or of the child alone."""
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        unheard = Unheard(site, tmp_path, "$(( $FLUX_JOB_CC == 3 ? 5 : 0 ))")
        child = parse_id(unheard.child.rpartition("/")[2])
        (folder,) = left_spool.folders_of([site.dir.path], unheard.job, child)
        deadline = time.monotonic() + live.PATIENCE_S
        while len(Record(os.path.join(folder, "spool")).over) < 4:
            assert time.monotonic() < deadline
        if whole:
            site.kill("launcher")
        else:
            kill([pid for pid, command in site.processes().items() if folder in command or "fluxkv ensemble feed" in command])
        assert site.run("ensemble", "watch", unheard.id).returncode == 5
        found = rows(site, unheard.id)
        assert [(row["index"], row["result"]) for row in found] == [(1, "CD"), (2, "CD"), (3, "F"), (4, "CD")]
        assert sorted(unheard.diary.read_text().split()) == ["1", "2", "3", "4"]
