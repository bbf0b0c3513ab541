"""Ensembles of real jobs: each member once, failures run again, children and whole ensembles that are killed, ends in order."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_namespace, child_uri
from fluxkv.instances.client import connect
from fluxkv.instances.ensemble_feed import interrupted
from fluxkv.instances.ensemble_view import EnsembleView
from fluxkv.instances.whereabouts import uri_of
from fluxkv.journal.ids import f58, parse_id
from fluxkv.journal.job import INACTIVE
from fluxkv.kvs.errors import Rejected

pytestmark = pytest.mark.live


FEED = "fluxkv ensemble feed"  # of each child one process: what its job runs feeds it, too


def submitted(site: Any, *words: str) -> str:
    """The id of an ensemble."""
    done = site.run("ensemble", "submit", *words)
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip())


def rows(site: Any, id: str, *options: str) -> list[dict[str, Any]]:
    done = site.run("ensemble", "results", "--json", *options, id)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(site: Any, view: EnsembleView, count: int) -> None:
    """Waits until so many members are known to have ended."""
    deadline = time.monotonic() + live.PATIENCE_S
    for seen in view.follow(live.PATIENCE_S):
        assert seen.result is None, f"it ended first: {seen}; {site.logs()}"
        if seen.counts.done >= count:
            return
        assert time.monotonic() < deadline, f"{seen}; {site.logs()}"


def of_child(site: Any, words: str) -> list[int]:
    """Processes whose command line has these words."""
    return sorted(pid for pid, command in site.processes().items() if words in command)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(site: Any, id: int) -> dict[int, int]:
    """The children of an ensemble: job -> number of its last attempt."""
    with connect(child_uri(site.uri, id)) as inside:
        return {job.id: job.number for job in inside.state().jobs.values()}


def test_each_member_runs_once_and_failures_run_again(tmp_path: Path) -> None:
    diary, seen = tmp_path / "diary", tmp_path / "seen"
    seen.mkdir()
    script = (  # else one child may have done all before the other is there
        f": > {seen}/${{FLUXKV_URI##*/}}; both() {{ set -- {seen}/*; test $# -ge 2; }}; "
        f"until both; do sleep 0.02; done; echo $FLUX_JOB_CC >> {diary}; "
        f"test -e {tmp_path}/mended || exit $(( $FLUX_JOB_CC % 50 == 7 ? 3 : 0 ))"
    )
    with live.site(tmp_path, "-s", "2", "--cores", "2") as site:
        site.until(lambda state: all(node.usable for node in state.nodes.values()), "both nodes are up")
        version = site.client.store.meta().version
        done = site.run("ensemble", "run", "--cc=1-120", "sh", "-c", script)
        assert done.returncode == 3, done.stderr
        id = site.run("job", "last").stdout.strip()
        assert sorted(map(int, diary.read_text().split())) == list(range(1, 121))
        lines = done.stderr.splitlines()
        assert (done.stdout, lines[0]) == ("", f"fluxkv: ensemble {id}, 120 members")
        for index in (7, 57, 107):
            (line,) = [one for one in lines if f" index {index}: " in one]
            assert line.startswith(f"{id}: index {index}: exit code 3 ({id}/ƒ")
            path = line.rpartition("(")[2].rstrip(")")
            assert site.run("job", "status", path).returncode == 3
        assert lines[-2].startswith("jobs: 120/120 done, 3 failed")
        assert lines[-1] == (f"{id}: 3 members failed; fluxkv ensemble results --failed {id} lists them, "
                             f"fluxkv ensemble rerun --failed {id} submits them again")  # fmt: skip

        found = rows(site, id)
        assert [row["index"] for row in found] == list(range(1, 121))
        assert {row["index"] for row in found if row["result"] != "CD"} == {7, 57, 107}
        assert len({row["job"] for row in found}) == 120
        status = json.loads(site.run("ensemble", "status", "--json", id).stdout)
        assert (status["done"], status["failed"], status["left"], len(status["children"])) == (120, 3, 0, 2)
        commits = site.client.store.meta().version - version
        assert commits < 25, f"this instance has {commits} commits for an ensemble of 120"

        assert site.run("ensemble", "rerun", "--unfinished", id).stderr == f"fluxkv: no member of {id} is to be run again\n"
        (tmp_path / "mended").touch()
        diary.unlink()
        done = site.run("ensemble", "rerun", "--failed", "--follow", id)
        assert done.returncode == 0, done.stderr
        assert sorted(map(int, diary.read_text().split())) == [7, 57, 107]
        again = site.run("job", "last").stdout.strip()
        assert [row["index"] for row in rows(site, again)] == [7, 57, 107]
        assert "no member" in site.run("ensemble", "rerun", again).stderr
        with site.client.ensemble(id) as view:
            handle = view.rerun(unfinished=False)
            assert handle is not None
            with pytest.raises(Rejected, match="is not over"):
                view.rerun()
            with site.client.ensemble(handle) as third:
                assert third.wait(live.PATIENCE_S) == (3, 0, 0, 0)
                assert third.rerun() is None
        assert "is no ensemble" in site.run("ensemble", "status", f58(site.submit("true"))).stderr
        assert site.run("ensemble", "submit", "-c3", "--cc=1-9", "true").returncode == 1  # no node has three cores

        done = site.run("ensemble", "run", "-N1", "test", "{}", "=", "{1}", ":::", "a b", "c", ":::", "a b")
        id = site.run("job", "last").stdout.strip()
        assert f"{id}: index 1 (c a b): exit code 1 ({id}/" in done.stderr
        told = site.run("ensemble", "results", id).stdout.splitlines()
        assert told[0].endswith(" JOB INPUT")
        assert [line.split("/")[-1].partition(" ")[2] for line in told[1:]] == ["a b a b", "c a b exit code 1"]
        assert [row["inputs"] for row in rows(site, id)] == [["a b", "a b"], ["c", "a b"]]
        looks = [["ensemble", "results", "--failed", id], ["ensemble", "status", id]]
        before = [site.run(*words).stdout for words in looks]
        site.stop()
        assert [site.run(*words, "--state-dir", site.dir.path).stdout for words in looks] == before, "it is down"


@pytest.mark.parametrize(("signum", "kvs"), [(signal.SIGKILL, "own"), (signal.SIGTERM, "parent"), (signal.SIGKILL, "parent")])
def test_a_child_that_is_killed_repeats_nothing_that_has_ended(tmp_path: Path, signum: signal.Signals, kvs: str) -> None:
    diary = tmp_path / "diary"
    with live.site(tmp_path, "-s", "1", "--cores", "6") as site:
        id = submitted(site, "--per-node=3", f"--kvs={kvs}", "--cc=1-300", "sh", "-c", f"sleep 0.03; echo $FLUX_JOB_CC >> {diary}")
        view = EnsembleView(site.client, parse_id(id))
        told(site, view, 60)
        found = of_child(site, FEED)
        assert len(found) == 3, "a child has one process for both"
        os.kill(found[0], signum)
        assert site.run("ensemble", "watch", id).returncode == 0

        every = rows(site, id)
        assert [row["index"] for row in every] == list(range(1, 301))
        assert {row["result"] for row in every} == {"CD"}
        (killed,) = [job for job, number in children_of(site, view.id).items() if number > 1]
        # Whatever the first attempt's journal has as ended has not been run again.
        above = child_uri(site.uri, view.id)
        with connect(above) as ensemble:
            where = uri_of(ensemble.store, above, child_namespace(ensemble.store.namespace, killed), over=True)
        with connect(where) as first:
            ended = {f"{id}/{f58(killed)}.1/{f58(job.id)}" for job in first.state().jobs.values()
                     if job.state == INACTIVE and not interrupted(job)}  # fmt: skip
        assert ended, "it was killed before it had done anything"
        kept = {row["job"]: str(row["index"]) for row in every if f"/{f58(killed)}.1/" in row["job"]}
        assert ended <= kept.keys(), "and what its launcher alone knew of"
        once = kept.values()
        lines = Counter(diary.read_text().split())
        assert set(lines) == {str(index) for index in range(1, 301)}
        assert [index for index in once if lines[index] != 1] == []
        view.close()


def test_an_ensemble_that_begins_again_repeats_nothing_that_has_ended(tmp_path: Path) -> None:
    """Its launcher is killed, and so are all of its processes: its next attempt is another instance."""
    diary = tmp_path / "diary"
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        id = submitted(site, "--cc=1-160", "sh", "-c", f"sleep 0.03; echo $FLUX_JOB_CC >> {diary}")
        view = EnsembleView(site.client, parse_id(id))
        told(site, view, 40)
        site.kill("launcher")
        assert site.run("ensemble", "watch", id).returncode == 0
        found = rows(site, id)
        assert [row["index"] for row in found] == list(range(1, 161))
        first = {row["index"] for row in found if row["job"].startswith(f"{id}.1/")}
        assert len(first) >= 40
        lines = Counter(map(int, diary.read_text().split()))
        assert set(lines) == set(range(1, 161))
        assert [index for index in first if lines[index] != 1] == []
        (child,) = {row["job"].split("/")[1].partition(".")[0] for row in found if row["job"].startswith(f"{id}.1/")}
        lost = site.run("job", "info", f"{id}/{child}", "R")  # as it was called before there was another attempt
        assert lost.stderr == (
            f"fluxkv: job {child}: no such job\n"
            f"  fluxkv --instance {id} jobs -a lists them; those of the attempt before: fluxkv --instance {id}.1 jobs -a\n"
        )
        assert site.run("job", "info", f"{id}.1/{child}", "R").returncode == 0
        view.close()


def test_a_lead_that_is_killed_is_started_again(tmp_path: Path) -> None:
    """The whole ensemble failed with it, its members left as they were."""
    diary = tmp_path / "diary"
    with live.site(tmp_path, "-s", "1", "--cores", "2") as site:
        id = submitted(site, "--cc=1-200", "sh", "-c", f"sleep 0.03; echo $FLUX_JOB_CC >> {diary}")
        view = EnsembleView(site.client, parse_id(id))
        told(site, view, 10)
        found = of_child(site, "fluxkv ensemble lead")
        os.kill(next(pid for pid in found if parent_of(pid) in found), signal.SIGKILL)
        assert site.run("ensemble", "watch", id).returncode == 0
        assert [row["index"] for row in rows(site, id)] == list(range(1, 201))
        assert Counter(diary.read_text().split()) == Counter(map(str, range(1, 201)))
        assert "is started again" in site.run("job", "attach", id).stderr
        view.close()


def test_cancelling_an_ensemble_ends_all_of_it_and_forgets_no_end(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        id = submitted(site, "--per-node=2", "--urgency=20", "--cc=1-1000", "--output=none",
                       "sh", "-c", f"sleep 0.02; echo $FLUX_JOB_CC >> {diary}")  # fmt: skip
        view = EnsembleView(site.client, parse_id(id))
        told(site, view, 4)
        assert site.run("cancel", id).returncode == 0
        done = site.run("ensemble", "watch", id)
        assert done.returncode != 0
        assert "did not run to an end" in done.stderr
        told_of = site.run("tree", "-a", id)
        assert f"fluxkv ensemble rerun {id} submits again what did not run" in told_of.stderr
        done, all_of_it = re.match(rf"/{id} \((\d+)/(\d+) done, ", told_of.stdout).groups()
        assert int(done) < int(all_of_it), "what was lost is not done"
        site.until(lambda state: state.jobs[view.id].state == INACTIVE, "the ensemble is over")
        assert of_child(site, "sleep 0.02") == []
        assert of_child(site, FEED) == []
        status = json.loads(site.run("ensemble", "status", "--json", id).stdout)
        left = status["left"]
        assert 0 < left < 1000
        ended, known = set(map(int, diary.read_text().split())), {row["index"] for row in rows(site, id)}
        assert known <= ended
        # In each of its four cores one that was told to end after the last line of its script.
        assert len(ended - known) <= 4, "more than were in its cores when they were told to end"
        assert (len(known), sum(child["done"] for child in status["children"].values())) == (1000 - left, 1000 - left)
        done = site.run("ensemble", "rerun", "--unfinished", id)
        assert f"fluxkv: {left} members of {id}" in done.stderr
        again = done.stdout.strip()
        assert site.client.job(again).urgency == 20
        twice = site.run("ensemble", "rerun", id)
        assert f"ensemble {again} runs members of {id} again, and is not over" in twice.stderr
        site.run("cancel", again)
        site.until(lambda state: state.jobs[parse_id(again)].state == INACTIVE, "it is over, too")
        third = site.run("ensemble", "rerun", id)
        assert third.stdout.strip() not in ("", again), third.stderr
        site.run("cancel", third.stdout.strip())
        view.close()
