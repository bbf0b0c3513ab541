"""Each named place at which a daemon can die or fail (`kvs/failpoints.py`), on real daemons with real jobs: nothing is lost.

One instance serves a whole list of cases. In each, daemons are replaced by such as will die at a place, work comes, they die there,
and their successors go on; `chaos.py` judges.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chaos import Chaos
from live import PATIENCE_S, Site

from fluxkv.journal.decide import Decision
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.failpoints import POINTS, VARIABLE
from fluxkv.kvs.port import Appended

AGAIN_S = 3.0
pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]  # others may use the machine

SPARED = [
    {"worker-0": "append.before:2:kill", "agent": "append.before:2:kill", "keeper": "witness.before:kill"},
    {"worker-0": "append.after:kill", "agent": "append.after:kill", "keeper": "append.after:kill"},
    {"worker-0": "append.before:error", "agent": "append.after:error", "keeper": "witness.after:kill"},
    {"worker-0": "append.after:2:error", "agent": "launch.before:kill", "keeper": "append.before:kill"},
    {"worker-0": "snapshot.before:kill", "agent": "launch.after:kill", "keeper": "epoch.before:kill"},
    {"worker-0": "snapshot.after:kill", "agent": "ack.before:kill", "keeper": "epoch.after:kill"},
    {"agent": "ack.after:kill", "worker-0": "append.before:3:kill"},
]
LAUNCHER = ["intent.before:kill", "intent.after:2:kill", "spawn.after:3:kill", "spool.before:2:kill", "spool.after:2:kill"]
LAUNCHER_FAILS = ["intent.before:2:error", "spool.before:2:error"]


class Points:
    """Cases on one instance."""

    def __init__(self, folder: Path) -> None:
        self.armed = folder / "armed"
        self.armed.mkdir()
        self.site = Site(folder)
        self.site.env[VARIABLE] = f"@{self.armed}"
        self.site.up("--cores", "8")

    def play(self, chaos: Chaos, case: dict[str, str]) -> None:
        """Arm, replace, work; each place must have been reached."""
        chaos.round += 1
        chaos.story.append(f"case {case}")
        for role, spec in case.items():
            (self.armed / role).write_text(spec)
        deadline = time.monotonic() + PATIENCE_S
        again = 0.0
        while left := {path.name: case[path.name] for path in self.armed.iterdir()}:
            if time.monotonic() > deadline:
                chaos.failed(f"{left} never came to the place: {case}")
            if time.monotonic() > again:  # and again: one that was just being started had read nothing yet
                again = time.monotonic() + AGAIN_S
                self.replace(chaos, left)
            chaos.top_up(4)  # whoever waits for work gets some
            chaos.follower.pause()

    def replace(self, chaos: Chaos, case: dict[str, str]) -> None:
        """Kill them, for their successors to read what is armed, and do what leads those to the place."""
        chaos.strike(list(case))
        if not any(chaos.pid_now(role) for role in ("keeper", "worker-0", "agent")) and self.site.start().returncode:
            self.site.up()  # the first one died at its place: again, as its user would
        self.provoke(chaos, case)

    def provoke(self, chaos: Chaos, case: dict[str, str]) -> None:
        """What leads a daemon to the place, beside jobs."""
        places = " ".join(case.values())
        if "epoch" in places:
            chaos.strike(["server"])
        if "snapshot" in places:
            self.flood(chaos)
        if case.get("keeper", "").startswith("append"):
            chaos.strike(["server"])  # it says that it took the history up

    def flood(self, chaos: Chaos) -> None:
        """So many events that a snapshot is due."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                journal = self.site.client.journal
                answer = journal.append(Decision([["lively", "resource", 0.0, {"idset": "0"}]] * 11_000), journal.meta.version)
                if isinstance(answer, Appended):
                    return
                journal.cope(answer)
            except Unavailable:
                if time.monotonic() > deadline:
                    chaos.failed("nothing can be appended")


def test_nothing_is_lost_at_any_place(tmp_path: Path) -> None:
    points = Points(tmp_path)
    try:
        with Chaos(points.site, 4) as chaos:
            for case in SPARED:
                points.play(chaos, case)
                chaos.audit()
            chaos.excused = "fail point intent.before"  # a start that can not be noted does not happen, and its job says why
            for spec in LAUNCHER_FAILS:
                points.play(chaos, {"launcher": spec})
                chaos.audit(whole=False)
            for spec in LAUNCHER:
                points.play(chaos, {"launcher": spec})
                chaos.audit(whole=False)
        points.site.sound()
        points.site.no_traceback()
    finally:
        points.site.end()


def test_a_command_that_dies_before_and_after_its_commit(tmp_path: Path) -> None:
    site = Site(tmp_path)
    try:
        site.up("--cores", "2")
        before = len(site.client.state().jobs)
        for spec, jobs in (("append.before:kill", 0), ("append.after:kill", 1)):
            site.env[VARIABLE] = spec
            assert site.run("submit", "true").returncode == -9
            assert len(site.client.state().jobs) == before + jobs
        site.env[VARIABLE] = "append.after:error"  # its answer is lost: it asks again, and there is one job all the same
        done = site.run("submit", "true")
        assert done.returncode == 0, done.stderr
        site.env[VARIABLE] = "nonsense"
        refused = site.run("submit", "true").stderr
        assert "append.before" in refused
        assert "fault in fluxkv" not in refused
        del site.env[VARIABLE]
        state = site.until(lambda s: s.count(64) == before + 2, "both have ended")
        assert len(state.jobs) == before + 2
        site.sound()
    finally:
        site.end()


def test_every_place_is_tried() -> None:
    said = [spec for case in SPARED for spec in case.values()] + LAUNCHER
    elsewhere = {name for name in POINTS if name.startswith(("handover.", "handdown."))}  # live/test_own_server.py
    elsewhere |= {name for name in POINTS if name.startswith("away.")}  # live/test_away_live.py
    elsewhere.add("fork.unmarked")  # live/test_forked_tasks.py
    assert {spec.partition(":")[0] for spec in said if spec.endswith("kill")} | elsewhere == set(POINTS)
