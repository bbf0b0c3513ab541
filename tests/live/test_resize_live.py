"""Running instances that get more nodes and give some back, with real daemons: asked, taken by force, lost, killed in between."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.paths import StateDir
from fluxkv.journal import decide_resize
from fluxkv.journal.ids import encode, f58, parse_id
from fluxkv.journal.job import RUN
from fluxkv.journal.state import State

pytestmark = pytest.mark.live
README = Path(__file__).resolve().parents[2] / "README.md"


@contextlib.contextmanager
def child(site: Any, *options: str) -> Iterator[tuple[int, Any]]:
    """An instance that stays: the job that it is, and the same handle on it as a site has on its own."""
    done = site.run("alloc", "--bg", *options)
    assert done.returncode == 0, done.stderr
    id = parse_id(done.stdout.strip())
    inner = live.Site(site.folder)
    inner.uri, inner.env, inner.mark = child_uri(site.uri, id), site.env, site.mark
    (folder,) = Path(site.dir.path, "ns").glob(f"{encode(id, 'f58plain')}-*-0")
    inner.dir = StateDir(str(folder))
    try:
        yield id, inner
    finally:
        if inner._client is not None:
            inner._client.close()


def on_node(site: Any, node: int) -> list[int]:
    """Processes of the part of an instance that is on this node of its job."""
    found = []
    for pid in site.processes():
        with contextlib.suppress(OSError):
            if f"FLUXKV_JOB_NODE={node}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def test_an_instance_grows_and_shrinks_from_inside_and_from_outside(tmp_path: Path) -> None:
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site:
        script = "fluxkv resize -w +1N 2>&1 && fluxkv run -N2 echo in; fluxkv resize -w =1N 2>&1; fluxkv resource list -no {nnodes}"
        done = site.run("alloc", "-N1", "sh", "-c", script)
        assert done.returncode == 0, (done.stderr, site.logs())
        lines = done.stdout.splitlines()
        assert [line for line in lines if line == "in"] == ["in", "in"]
        assert ["has 2 nodes" in lines[0], "has 1 node" in lines[-4]] == [True, True], lines
        with child(site, "-N2") as (id, inner):
            assert site.run("resize", "-w", f58(id), "+1N").returncode == 0
            inner.until(lambda s: len(s.nodes) == 3 and all(node.online for node in s.nodes.values()), "it has three nodes")
            stays, again = (inner.submit("exec sleep 300", cores_per_task=1, constraint=f"rank:{rank}") for rank in (0, 2))
            inner.running(stays, again)
            done = site.run("resize", "-w", f58(id), "-1N", "--nodes=2", "--jobs=requeue")
            assert (done.returncode, "has 2 nodes" in done.stderr) == (0, True), done.stderr
            state = inner.until(lambda s: s.jobs[again].requeued is not None, "its job is in line again")
            assert sorted(state.nodes) == [0, 1]
            assert state.jobs[stays].requeued is None
            assert site.run("resize", "-w", f58(id), "+1N").returncode == 0  # the same node, and another to the instance
            state = inner.until(lambda s: 3 in s.nodes and s.nodes[3].online, "a node has come again")
            assert sorted(state.nodes) == [0, 1, 3]
            refused = site.run("resize", f58(id), "+1N")
            assert refused.returncode == 1
            assert refused.stderr.startswith(f"fluxkv: job {f58(id)}: 1 node more can never be had here, beside its own: "
                                             "there is no node beside ranks 0-2\n")  # fmt: skip
            assert "\n  has now 3 tasks, 3 cores, 3 nodes\n" in site.run("inspect", "job", f58(id)).stdout
            inner.sound()
        site.sound()
        assert site.run("cancel", f58(id)).returncode == 0
        assert site.results([id])
        assert not [pid for pid in site.processes() if live.inside(pid)]


def test_a_job_that_is_fenced_grows_onto_a_node_that_came_later(tmp_path: Path) -> None:
    """Its order was taken for one of before that node's first word: the node was "cut off" the moment it came."""
    with live.site(tmp_path, "-s", "2", "--cores", "1") as site, child(site, "-N1") as (id, inner):
        done = site.run("--instance", f58(id), "alloc", "--bg", "-N1", "--retry=1")
        assert done.returncode == 0, done.stderr
        job = parse_id(done.stdout.strip())
        for path in (f58(id), f"{f58(id)}/{f58(job)}"):
            done = site.run("resize", "-w", path, "+1N")
            assert done.returncode == 0, done.stderr
        state = inner.until(lambda s: len(s.jobs[job].started) == 2 or s.jobs[job].exceptions, "it has begun there, too")
        assert (sorted(state.jobs[job].started), state.jobs[job].exceptions) == ([0, 1], [])
        inner.sound()


AWAITED = """
import asyncio
import fluxkv

async def main():
    with fluxkv.connect() as instance:
        size = await instance.resize("+1N").wait_async(timeout=60)
        print("async", size.nodes, len(instance.state().nodes))

asyncio.run(main())
with fluxkv.Executor(nodes=1) as executor:
    size = executor.resize("=1N", grace=5).wait(timeout=60)
    print("executor", size.nodes, executor.submit(pow, 2, 3).result())
with fluxkv.connect() as instance:
    job = instance.submit(["fluxkv", "start", "sleep", "300"])
    next(event for event in job.events(follow=True) if event.name == "start")
    try:
        job.resize("+1N")
    except fluxkv.Rejected as error:
        print(error.code)
    print(instance.resize("+2N").size().more >= 0, job.resize("=1N").changed)
    instance.resize("=1N").wait(timeout=60)
    job.cancel()
"""


def test_a_program_inside_asks_for_nodes_and_gives_some_back(tmp_path: Path) -> None:
    """The README's example, and what it says of event loops and executors."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (example,) = (block for block in blocks if ".resize(" in block)
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site:
        (tmp_path / "example.py").write_text(example)
        done = site.run("alloc", "-N1", sys.executable, str(tmp_path / "example.py"))
        assert done.returncode == 0, (done.stderr, site.logs())
        lines = done.stdout.splitlines()
        assert (lines[1], lines[2].count("'")) == ("COMPLETED on 3 nodes", 4), lines  # left with two hosts
        assert lines[3].startswith("unsatisfiable job "), lines
        (tmp_path / "awaited.py").write_text(AWAITED)
        done = site.run("alloc", "-N1", sys.executable, "-W", "error", str(tmp_path / "awaited.py"))
        assert (done.returncode, done.stdout.splitlines()) == (
            0, ["async 2 2", "executor 1 8", "unsatisfiable", "True False"]), (done.stderr, site.logs())  # fmt: skip
        site.sound()


def test_a_node_is_taken_while_a_stale_instance_still_places_on_it(tmp_path: Path) -> None:
    """HAZARD 5: the grace ends, and nobody has told the instance; what it places on the node then is never begun, and what is
    placed there around it begins only when its tree is gone."""
    with live.site(tmp_path, "-s", "2", "--cores", "1") as site, child(site, "-N2") as (id, inner):
        diary = tmp_path / "diary"
        task = f"trap '' TERM; echo in $$ >> {diary}; while :; do sleep 1; done"
        first = inner.submit(task, constraint="rank:1")
        inner.running(first)
        inner.kill("keeper", signum=signal.SIGSTOP)  # who would read of it
        state = site.client.state()
        decision = decide_resize.resize(
            state, state.jobs[id], decide_resize.parse_resize("-1N"), decide_resize.Terms(0.0, "fail"), 0, site.client.store.now()
        )
        decision.events[0][3]["force"] = decision.events[0][3]["until"]
        site.client.journal.append(decision, state.version)
        after = site.submit(f"echo out $(pgrep -c -f 'echo in' || true) >> {diary}; exec sleep 300", constraint="rank:1")
        site.running(after)
        state = inner.client.state()
        assert (sorted(state.nodes), state.nodes[1].drain) == ([0, 1], None)  # it knows nothing
        late = inner.submit(task, constraint="rank:1")
        inner.kill("keeper", signum=signal.SIGCONT)
        state = inner.until(lambda s: sorted(s.nodes) == [0], "it knows")
        assert (state.jobs[first].exception[0], bool(state.jobs[late].started)) == ("lost", False)
        assert [line.split()[0] for line in diary.read_text().splitlines()] == ["in", "out"]
        state = site.client.state()
        assert (state.jobs[id].state, state.jobs[id].ranks) == (RUN, [0])
        names = site.events(id)
        assert names[names.index("shrink"):] == ["shrink", "end", "release", "free"]
        inner.sound()
        site.sound()


def test_what_dies_in_between_changes_nothing(tmp_path: Path) -> None:
    """Both workers, the agent, the instance's keeper: each is killed while nodes come and go."""
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site, child(site, "-N1") as (id, inner):
        inner.kill("keeper", signum=signal.SIGSTOP)
        assert site.run("resize", f58(id), "+2N").returncode == 0
        site.until(lambda s: len(s.jobs[id].ranks) == 3, "it has been given two nodes")
        site.kill("worker-0", "agent")
        inner.kill("keeper", "worker-0")
        inner.until(lambda s: len(s.nodes) == 3 and all(node.online for node in s.nodes.values()), "it has three nodes")
        job = inner.submit("exec sleep 300", nodes=3)
        inner.running(job)
        inner.kill("keeper", signum=signal.SIGSTOP)
        assert site.run("resize", f58(id), "=1N", "--jobs=fail").returncode == 0
        site.kill("worker-0", "agent")
        inner.kill("keeper", "worker-0")
        state = site.until(lambda s: s.jobs[id].ranks == [0], "it has given two nodes back")
        assert not any(state.nodes[rank].busy for rank in (1, 2))
        assert inner.results([job]) != [0]
        assert inner.client.state().jobs[job].exception[0] == "node-failure"
        assert site.events(id).count("free") in (1, 2)
        for one in (inner, site):
            one.sound()


def ends_at(job: int, wanted: float, state: State) -> bool:
    return abs(state.jobs[job].expiration - wanted) < 60.0


def test_an_instance_goes_on_without_a_node_whose_tasks_died(tmp_path: Path) -> None:
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site, child(site, "-N3") as (id, inner):
        more = {"retry": 1, "retry_on": "node-failure"}
        job, other = (inner.submit("exec sleep 300", constraint=f"rank:{rank}", **more) for rank in (1, 2))
        inner.running(job, other)
        for pid in on_node(site, 1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        state = site.until(lambda s: s.jobs[id].ranks == [0, 2], "the node is given back")
        assert (state.jobs[id].state, state.jobs[id].exceptions[0][:2]) == (RUN, ["node-failure", 2])
        state = inner.until(lambda s: sorted(s.nodes) == [0, 2] and s.jobs[job].requeued is not None, "it goes on without")
        assert state.jobs[other].state == RUN
        assert site.run("resize", "-w", f58(id), "+1N").returncode == 0
        inner.until(lambda s: sorted(s.nodes) == [0, 2, 3], "it has another")
        inner.sound()
        site.sound()


def test_instances_inside_are_asked_in_their_turn_and_limits_reach_the_lowest(tmp_path: Path) -> None:
    """A time limit of the uppermost is the end of all that have none of their own."""
    with live.site(tmp_path, "-s", "2", "--cores", "1") as site, child(site, "-N2", "-t", "1h") as (id, middle):  # noqa: SIM117
        with child(middle, "-N2") as (within, lowest):
            job = lowest.submit("exec sleep 300", nodes=2)
            lowest.running(job)
            before = lowest.client.state().jobs[job].expiration
            for change, by in (("+1h", 3600.0), ("-30m", -1800.0)):
                assert site.run("update", f58(id), f"duration={change}").returncode == 0
                before += by
                lowest.until(partial(ends_at, job, before), f"its end has moved by {by}")
            done = site.run("resize", "-w", f58(id), "-1N", "--grace=5s", "--jobs=requeue")
            assert done.returncode == 0, done.stderr
            state = lowest.until(lambda s: sorted(s.nodes) == [0] and s.jobs[job].requeued is not None, "the lowest has let go")
            assert [len(one.client.state().nodes) for one in (middle, lowest)] == [1, 1]
            assert site.client.state().jobs[id].ranks == [0]
            names = middle.events(within)
            assert names[names.index("shrink"):] == ["shrink", "release", "free"]
            assert state.jobs[job].exceptions == []
            for one in (lowest, middle, site):
                one.sound()


def test_a_site_s_scripts_run_on_each_node_that_comes_and_leaves(tmp_path: Path) -> None:
    """Under a per-rank prolog and epilog, and housekeeping; where the prolog fails nothing of the instance ever runs."""
    diary, config = tmp_path / "diary", tmp_path / "site.toml"
    line = f"echo $FLUXKV_SCRIPT $FLUXKV_NODE_RANK >> {diary}; test $FLUXKV_SCRIPT$FLUXKV_NODE_RANK != prolog2"
    per_rank = {"prolog": "per-rank = true\n", "epilog": "per-rank = true\n", "housekeeping": ""}
    config.write_text("".join(f'[job-manager.{kind}]\ncommand = ["sh", "-c", "{line}"]\n{more}' for kind, more in per_rank.items()))

    def told(rank: int) -> list[str]:
        return [kind for kind, where in map(str.split, diary.read_text().splitlines()) if where == str(rank)]

    with live.site(tmp_path, "-s", "3", "--cores", "1", "--config", str(config)) as site, child(site, "-N1") as (id, inner):
        done = site.run("resize", "-w", f58(id), "+1N")
        assert done.returncode == 0, (done.stderr, site.logs())
        assert (told(1), sorted(inner.client.state().nodes)) == (["prolog"], [0, 1])
        inner.running(inner.submit("exec sleep 300", nodes=2))
        failed = site.run("resize", "-w", f58(id), "+1N")
        assert (failed.returncode, "prolog on rank 2: exit code 1" in failed.stderr) == (1, True), failed.stderr
        site.until(lambda s: s.jobs[id].ranks == [0, 1], "the node has gone back")
        assert told(2) == ["prolog", "epilog", "housekeeping"]
        state = site.client.state()
        assert (state.nodes[2].drain is not None, state.nodes[2].busy, state.jobs[id].state) == (True, False, RUN)
        done = site.run("resize", "-w", f58(id), "-1N", "--jobs=requeue")
        assert done.returncode == 0, (done.stderr, site.logs())
        assert (told(1), site.client.state().nodes[1].busy) == (["prolog", "epilog", "housekeeping"], False)
        assert site.run("cancel", f58(id)).returncode == 0
        assert site.results([id])
        site.until(lambda s: not s.keeping, "its first node has been looked after")
        assert told(0) == ["prolog", "epilog", "housekeeping"]
        site.sound()
