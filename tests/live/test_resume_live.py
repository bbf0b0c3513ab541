"""Instances inside jobs that are killed, cancelled or out of time, and gone on with: what had ended stays, the rest runs."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.instances.ensemble_view import EnsembleView
from fluxkv.journal.ids import f58, parse_id
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Unavailable
from fluxkv.tools.reading import follow

pytestmark = pytest.mark.live

JOBS = 200


def batch(site: Any, *args: str) -> int:
    done = site.run("batch", "--output=none", *args)
    assert done.returncode == 0, done.stderr
    return parse_id(done.stdout.strip())


def refused(site: Any, *args: str) -> str:
    done = site.run("batch", "--output=none", *args)
    assert (done.returncode, done.stdout) == (1, ""), done
    return str(done.stderr)


def script(folder: Path, text: str) -> str:
    path = folder / "script.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    return str(path)


def many(folder: Path, sleep: str, jobs: int = JOBS) -> str:
    """A script that submits jobs which keep a diary: their begin, their end; each has its own code."""
    line = f"echo b {{cc}} >>{folder}/diary; sleep {sleep}; echo e {{cc}} >>{folder}/diary; exit $(({{cc}} % 7))"
    program = "fluxkv submit --quiet --output=none"
    return script(folder, f"{program} --job-name={{cc}} --cc=1-{jobs} sh -c '{line}'\nfluxkv queue drain")


def ended_inside(site: Any, job: int, count: int, space: int = 0) -> set[str]:
    """Waits until so many jobs of a child have ended; their names. space: the job whose namespace it has."""
    assert site.run("uri", "--wait", f58(job)).returncode == 0
    with contextlib.closing(connect(child_uri(site.uri, space or job))) as inside:
        for state in follow(inside.journal, inside.state(), live.PATIENCE_S):
            if state.count(INACTIVE) >= count:
                return names(state)
    raise AssertionError(f"{count} jobs have not ended: {site.logs()}")


def names(state: State) -> set[str]:
    return {job.name for job in state.jobs.values() if job.state == INACTIVE}


def state_of(site: Any, job: int) -> State:
    with contextlib.closing(connect(child_uri(site.uri, job))) as inside:
        return inside.state()


def diary(folder: Path) -> Counter[str]:
    return Counter((folder / "diary").read_text().split("\n")[:-1])


def test_killed_twice_and_gone_on_with_elsewhere(tmp_path: Path) -> None:
    """kill -9 of everything of a child, twice, and gone on with on fewer cores, then on more: each job has ended once, with its own
    code; those that had ended before did not run again."""
    with live.site(tmp_path, "--cores", "4") as site:
        first = batch(site, "-n2", "--time-limit=10m", many(tmp_path, "0.02"))
        before = ended_inside(site, first, JOBS // 4)
        said = refused(site, "--resume", f58(first))
        assert "is not over" in said
        assert "--dependency=afterany:" in said
        site.kill_inside(first)
        assert site.results([first]) == [128 + 9]
        second = batch(site, "--resume", f58(first), "-n1")
        more = ended_inside(site, second, JOBS // 2, first)
        assert before < more
        site.kill_inside(second)
        site.results([second])
        third = batch(site, "--resume", f58(second), "-n4")
        worst = site.results([third])  # the worst code of its jobs
        job = site.client.job(third)
        assert (job.name, job.duration, job.memo["uri"]) == ("script.sh", 600.0, child_uri(site.uri, first))
        state = state_of(site, first)
        assert len(state.jobs) == JOBS
        wrong = [one for one in state.jobs.values() if one.state != INACTIVE or one.returncode != int(one.name) % 7]
        assert not wrong, site.run("--instance", f58(first), "job", "eventlog", f58(wrong[0].id)).stdout
        assert worst == [6]
        told = diary(tmp_path)
        for one in state.jobs.values():
            assert 1 <= told[f"e {one.name}"] <= told[f"b {one.name}"] <= one.number <= (1 if one.name in before else 3), one.name
        assert 1 <= sum(one.number > 1 for one in state.jobs.values()) <= 2 + 1
        again = batch(site, "--resume", f58(third))
        assert site.results([again]) == [0]  # nothing is left
        listed = site.run("jobs", "-a", "-no", "{id} {name} {returncode}", "--uri", child_uri(site.uri, first)).stdout
        for job_id in (first, second, third, again):  # the same from each of its names
            assert site.run("--instance", f58(job_id), "jobs", "-a", "-no", "{id} {name} {returncode}").stdout == listed
        verified = site.run("--instance", f58(again), "replay", "--diff", "live")
        assert verified.returncode == 0, verified
        site.sound()


@pytest.mark.parametrize("kvs", ["parent", "own"])
def test_what_does_not_fit_waits_for_who_has_more(tmp_path: Path, kvs: str) -> None:
    """A cancelled child on two nodes, gone on with on one, where its job does not fit, then on three: keys, ids and what depends
    on the job are what they were. Its journal may have been on a server of its own."""
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site:
        wide = f"echo $FLUX_JOB_ATTEMPT >>{tmp_path}/begun-$FLUX_JOB_ATTEMPT; [ $FLUX_JOB_ATTEMPT = 2 ] || exec sleep 1000"
        program = "fluxkv submit --output=none"
        text = (f"fluxkv kvs put run.name=first\nW=$({program} -N2 --job-name=wide sh -c '{wide}')\n"
                f"{program} --dependency=afterok:$W --job-name=after true\nfluxkv queue drain")  # fmt: skip
        first = batch(site, "-N2", f"--kvs={kvs}", script(tmp_path, text))
        site.written(tmp_path / "begun-1")
        follower = batch(site, "--resume", f58(first), "-N1", f"--dependency=afterany:{f58(first)}")
        site.client.cancel([first])
        assert site.results([follower]) == [1]  # nothing of it could run there
        left = {job.name: (job.number, job.state != INACTIVE) for job in state_of(site, first).jobs.values()}
        assert left == {"wide": (2, True), "after": (1, True)}
        assert not (tmp_path / "begun-2").exists()
        third = batch(site, "--resume", f58(follower), "-N3")
        assert site.results([third]) == [0]
        inside = state_of(site, first)
        assert all(job.state == INACTIVE and job.returncode == 0 for job in inside.jobs.values())
        assert len(inside.nodes) == 3
        assert (tmp_path / "begun-2").read_text() == "2\n2\n"
        got = site.run("--instance", f58(third), "kvs", "get", "run.name")
        assert (got.returncode, got.stdout.strip()) == (0, "first"), got
        took = site.run("submit", "--uri", child_uri(site.uri, first), "true")
        assert took.returncode != 0  # it has ended again
        site.sound()


def test_an_attempt_that_is_gone_on_with_is_nobody_else_s(tmp_path: Path) -> None:
    """The first attempt's instance, while the second runs and a third begins: those seal what is their own job's."""
    with live.site(tmp_path, "--cores", "2") as site:
        text = f"fluxkv submit --output=none sleep 1000\necho >{tmp_path}/up-$FLUX_JOB_ATTEMPT\nfluxkv queue drain"
        first = batch(site, "-n1", script(tmp_path, text))
        site.written(tmp_path / "up-1")
        assert site.run("requeue", f58(first)).returncode == 0
        site.written(tmp_path / "up-2")
        other = batch(site, "--resume", f"{f58(first)}.1", "-n1")
        assert site.run("uri", "--wait", f58(other)).returncode == 0
        assert site.run("requeue", f58(first)).returncode == 0
        site.written(tmp_path / "up-3")
        took = site.run("submit", "--uri", child_uri(site.uri, first), "true")
        assert took.returncode == 0, took.stderr
        site.client.cancel([first, other])
        site.results([first, other])


def test_who_looks_or_waits_where_nothing_runs_any_more_is_told(tmp_path: Path) -> None:
    """A child that was cancelled before its job had ended: waiting for that, begun before or after, ends with an error that says
    how it goes on; what is shown of it is said to be the past."""
    with live.site(tmp_path, "--cores", "2") as site:
        text = (f"J=$(fluxkv submit --output=none sleep 1000)\nfluxkv job wait-event $J start && echo $J >>{tmp_path}/id\n"
                "sleep 1000")  # fmt: skip
        child = batch(site, "-n1", script(tmp_path, text))
        site.written(tmp_path / "id")
        path = f"{f58(child)}/{(tmp_path / 'id').read_text().strip()}"
        way_on = f"fluxkv batch --resume {f58(child)} goes on with it"
        with connect(child_uri(site.uri, child)) as inside:
            handle = inside.job(parse_id(path.partition("/")[2]))
            site.client.cancel([child])
            with pytest.raises(Unavailable, match="ended before what is waited for") as found:
                inside.wait([handle.id], timeout=live.PATIENCE_S)
            assert (found.value.code, found.value.hint) == ("ended", way_on)
        site.results([child])
        for words in (("job", "wait", path), ("job", "attach", path), ("job", "wait-event", path, "clean"),
                      ("job", "wait", "-t", "10ms", path), ("job", "attach", "-t", "10ms", path), ("watch", "--timeout=10ms", path),
                      ("--instance", f58(child), "queue", "drain")):  # fmt: skip
            done = site.run(*words)
            assert (done.returncode, done.stderr.splitlines()[-1].strip()) == (3, way_on), done
        assert site.run("cancel", path).stderr.splitlines()[-1].endswith(f"({f'fluxkv --instance {f58(child)} jobs -a'}); {way_on}")
        told = site.run("explain", path).stdout
        assert "when its instance ended at" in told
        assert way_on in " ".join(told.split())
        assert "1 job in it had not ended" in site.run("explain", f58(child)).stdout
        said = site.run("jobs", path)
        assert (said.returncode, way_on in said.stderr) == (0, True)
        status = site.run("--instance", f58(child), "status").stdout
        assert "state      stopped" in status
        assert way_on in status
        second = batch(site, "--resume", f58(child))
        assert site.run("uri", "--wait", f58(second)).returncode == 0
        assert "already" in refused(site, "--resume", f58(child))  # two would not do
        site.client.cancel([second])
        site.results([second])


def level(folder: Path, name: str, below: str = "", cores: int = 1, keys: bool = False) -> str:
    """A script: a job that ends, one that stays until a file is there, and a level below; it waits for all. keys: of its jobs."""
    lines = [f"echo {name} >>{folder}/scripts"]
    stay = f"; [ -e {folder}/go ] || exec sleep 1000; echo {name}-done >>{folder}/diary"
    for job, more in ((f"{name}-short", ""), (f"{name}-long", stay)):
        key = f"--id={job} " if keys else ""
        told = f"echo {job} $FLUX_JOB_ATTEMPT >>{folder}/diary"
        lines.append(f"fluxkv submit --quiet --output=none --job-name={job} {key}sh -c '{told}{more}'")
    if below:
        lines.append(f"fluxkv batch --job-name={name}-below --output=none -n{cores} {below}")
    path = folder / f"{name}.sh"
    path.write_text("\n".join(["#!/bin/sh", *lines, "fluxkv queue drain", ""]))
    return str(path)


def inside(site: Any, path: str, name: str) -> str:
    """The path of a job in an instance, by its name."""
    listed = site.run("jobs", "-an", "-o", "{name} {id}", f"{path}/").stdout
    return f"{path}/{dict(line.split() for line in listed.splitlines())[name]}"


def test_three_levels_go_on_where_each_was(tmp_path: Path) -> None:
    """Killed with all that is inside, twice: what had ended at any level stays so, and all paths lead where they led. A script of
    which each job has a key runs again, no other does."""
    with live.site(tmp_path, "--cores", "6") as site:
        below = level(tmp_path, "b", level(tmp_path, "c", keys=True), 2)
        first = batch(site, "-n6", level(tmp_path, "a", below, 4))
        following = first
        for life in (1, 2):
            for name in "abc":
                site.wrote(tmp_path / "diary", f"{name}-short 1\n")
                site.wrote(tmp_path / "diary", f"{name}-long {life}\n")
            if life == 1:
                middle = inside(site, f58(first), "a-below")
                inmost = inside(site, middle, "b-below")
            site.kill_inside(following)
            site.results([following])
            if life == 2:
                (tmp_path / "go").write_text("")
            following = batch(site, "--resume", f58(following))
        assert site.results([following]) == [0], site.logs()
        told = diary(tmp_path)
        for name in "abc":
            words = ("short 1", "short 2", "long 1", "long 2", "long 3", "done")
            assert [told[f"{name}-{word}"] for word in words] == [1, 0, 1, 1, 1, 1]
        assert sorted((tmp_path / "scripts").read_text().split()) == ["a", "b", "c", "c", "c"]
        space = f"{site.uri}#/{middle}"
        ways = (middle, f"{middle}.1", f"{middle}.2", f"{middle}.3", middle.replace(f58(first), f58(following)))
        assert {site.run("uri", way).stdout.strip() for way in ways} == {space}
        assert site.run("tree", "-a", f58(following)).stdout.splitlines()[0].endswith("(6/6 done)")
        assert site.run("jobs", "-aR", "-no", "{name}").stdout.split().count("c-long") == 1
        assert "in attempt 3" in site.run("explain", inmost).stdout
        for path in (middle, inmost):
            sound = site.run("--instance", path, "replay", "--diff", "live")
            assert sound.returncode == 0, sound.stderr
        assert site.run("submit", "--uri", space, "true").returncode != 0  # sealed
        site.sound()


def test_an_ensemble_inside_takes_over_what_it_had_come_to(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "3") as site:
        member = f"echo b $FLUX_JOB_CC >>{tmp_path}/diary; sleep 0.1; echo e $FLUX_JOB_CC >>{tmp_path}/diary"
        program = f"fluxkv ensemble submit -N1 --cc=1-100 sh -c '{member}'\nfluxkv queue drain"
        first = batch(site, "-n3", script(tmp_path, program))
        assert site.run("uri", "--wait", f58(first)).returncode == 0
        site.wrote(tmp_path / "diary", "b 1\n")
        path = inside(site, f58(first), "sh")
        with connect(child_uri(site.uri, first)) as around, EnsembleView(around, parse_id(path.rpartition("/")[2])) as view:
            before = next(seen.counts.done for seen in view.follow(live.PATIENCE_S) if seen.counts.done >= 20)
        site.kill_inside(first)
        site.results([first])
        again = batch(site, "--resume", f58(first))
        assert site.results([again]) == [0], site.logs()
        told = diary(tmp_path)
        assert all(told[f"e {member}"] for member in range(1, 101))
        assert sum(told[f"b {member}"] - 1 for member in range(1, 101)) <= 100 - before
        status = json.loads(site.run("ensemble", "status", "--json", path).stdout)
        assert (status["done"], status["failed"], status["left"]) == (100, 0, 0), status
