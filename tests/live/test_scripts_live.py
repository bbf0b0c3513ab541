"""Prolog, epilog and housekeeping as real processes: they outlive the daemons, their ends decide, and failures drain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.journal import decide_config
from fluxkv.journal.ids import f58

pytestmark = pytest.mark.live



class Scripted:
    """Two nodes whose scripts note that they began, and then wait until the test lets them go (a file of their name)."""

    def __init__(self, site: Any, folder: Path) -> None:
        self.site, self.folder = site, folder
        self.trace = folder / "trace"
        self.trace.touch()

    def configure(self, **scripts: dict[str, Any]) -> None:
        tables = {}
        for kind, more in scripts.items():
            text = (
                f'd={self.folder}; echo "{kind} $FLUXKV_NODE_RANK $FLUX_JOB_ID $FLUX_JOB_RANKS $FLUX_JOB_USERID" >> $d/trace; '
                f'echo "{kind} says $FLUX_JOB_ID"; until test -e $d/{kind}; do sleep 0.02; done; exit $(cat $d/{kind})'
            )
            tables[kind] = {"command": ["/bin/sh", "-c", text], **({"per-rank": True} if kind != "housekeeping" else {}), **more}
        document = {"job-manager": tables}
        self.site.client.journal.settle(lambda state: decide_config.load(state, document, "", os.getuid(), 0.0))

    def let(self, kind: str, status: int = 0) -> None:
        made = self.folder / f".{kind}"
        made.write_text(f"{status}\n")
        os.rename(made, self.folder / kind)

    def count(self, kind: str, job: int) -> int:
        return sum(line.startswith(f"{kind} ") and f" {f58(job)} " in line for line in self.trace.read_text().splitlines())

    def wait(self, kind: str, job: int) -> None:
        """Until the script has begun on both nodes."""
        for rank in (0, 1):
            self.site.wrote(self.trace, f"{kind} {rank} {f58(job)} 0-1 {os.getuid()}\n")


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    with live.site(tmp_path, "-s", "2", "--cores", "2") as site:
        yield Scripted(site, tmp_path)


def test_all_three_in_order_through_the_death_of_every_daemon(scripted: Scripted) -> None:
    site = scripted.site
    scripted.configure(prolog={}, epilog={}, housekeeping={})
    out = scripted.folder / "out"
    job = int(site.client.submit(["sh", "-c", f"echo task >> {out}"], env=site.env, nodes=2, ntasks=2))
    scripted.wait("prolog", job)
    site.kill("worker-0", "agent")
    assert not out.exists()
    scripted.let("prolog")
    scripted.wait("epilog", job)
    assert out.read_text() == "task\ntask\n"
    site.kill("keeper", "server")
    scripted.let("epilog")
    scripted.wait("housekeeping", job)
    state = site.until(lambda s: s.jobs[job].t_inactive, "the job over while its nodes are looked after")
    assert {rank: node.used_cores for rank, node in state.nodes.items()} == {0: 1, 1: 1}
    assert state.nodes[0].state == "allocated"
    waiting = int(site.client.submit(["true"], env=site.env, nodes=2, cores_per_task=2))
    site.kill("worker-0", "agent")
    assert site.client.state().jobs[waiting].state < 16  # it has to wait for whole nodes
    scripted.let("housekeeping")
    assert site.results([job, waiting]) == [0, 0]
    assert [scripted.count(kind, job) for kind in ("prolog", "epilog", "housekeeping")] == [2, 2, 2]
    state = site.until(lambda s: not s.keeping, "housekeeping over")
    assert not any(node.used_cores or node.drain for node in state.nodes.values())
    names = site.events(job)
    order = ["alloc", "prolog-start", "prolog-finish", "start", "finish", "release", "epilog-start", "epilog-finish", "free"]
    assert [name for name in names if name in order] == order
    assert f"prolog says {f58(job)}" in site.run("dmesg").stdout
    site.sound()


def test_what_fails_ends_the_job_and_drains_with_the_reason(scripted: Scripted) -> None:
    site = scripted.site
    scripted.configure(prolog={"timeout": "0.3s", "kill-timeout": "0.1s"})
    slow = int(site.client.submit(["true"], env=site.env, nodes=2))
    assert site.results([slow]) == [1]
    state = site.client.state()
    assert state.jobs[slow].exception == ["prolog", "prolog on rank 0: timed out"]
    assert {node.drain[1] for node in state.nodes.values()} == {f"prolog for job {f58(slow)}: timed out"}
    assert "start" not in site.events(slow)
    site.run("resource", "undrain", "0-1")

    scripted.configure(prolog={})
    cancelled = int(site.client.submit(["true"], env=site.env, nodes=2))
    scripted.wait("prolog", cancelled)
    site.run("cancel", str(cancelled))
    assert site.results([cancelled]) == [1]
    state = site.client.state()
    assert state.jobs[cancelled].result.name == "CANCELED"
    assert not any(node.drain for node in state.nodes.values())

    lost = int(site.client.submit(["true"], env=site.env, nodes=2))
    scripted.wait("prolog", lost)
    site.kill("launcher")
    assert site.results([lost]) == [1]
    state = site.client.state()
    assert state.jobs[lost].exception == ["prolog", "prolog on rank 0: was lost"]
    assert all(node.drain for node in state.nodes.values())
    site.run("resource", "undrain", "0-1")

    scripted.configure(epilog={}, housekeeping={"release-after": "0"})
    scripted.let("epilog", 3)
    failed = int(site.client.submit(["true"], env=site.env, nodes=2))
    assert site.results([failed]) == [0]  # what comes after a job does not change how it ended
    reason = f"epilog for job {f58(failed)}: exit code 3"
    state = site.until(lambda s: all(node.drain for node in s.nodes.values()), "drained by the epilog")
    assert {node.drain[1] for node in state.nodes.values()} == {reason}
    scripted.wait("housekeeping", failed)
    scripted.let("housekeeping")
    site.until(lambda s: not s.keeping, "housekeeping over")
    site.sound()
