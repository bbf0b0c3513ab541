"""A tree of three levels, killed with -9 in random order (`make soak SOAK=tree`): daemons, servers, tasks, who brings them back.

Afterwards nothing runs, every journal answers and folds to its live state, each instance that is over is sealed, no job that was
acknowledged is lost, and who goes on with it ends well. FLUXKV_SOAK_ROUNDS (12) and FLUXKV_SOAK_SEED say otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from live import Site, inside, site

from fluxkv.instances import whereabouts
from fluxkv.journal.ids import parse_id
from fluxkv.kvs.errors import FluxkvError

ROUNDS = int(os.environ.get("FLUXKV_SOAK_ROUNDS", "12"))
SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "0")) or random.SystemRandom().getrandbits(32)
PATIENCE_S = 150.0
JOBS = "fluxkv submit --cc=1-25 --output=none sh -c 'sleep 0.0$(($FLUX_JOB_CC % 10))'"
INNER = f"#!/bin/sh\n{JOBS} >{{0}}/inner.new && mv {{0}}/inner.new {{0}}/inner\nfluxkv queue idle --timeout 120\n"
OUTER = (
    "#!/bin/sh\nfluxkv batch {1} --output=none -n1 {0}/inner.sh >{0}/child || exit 7\n"
    f"{JOBS} >{{0}}/outer.new && mv {{0}}/outer.new {{0}}/outer\nfluxkv queue idle --timeout 120\n"
)


class Round:
    """One tree: the root's job, which is an instance, in which a job is one."""

    def __init__(self, one: Site, drawn: random.Random, folder: Path) -> None:
        self.one, self.drawn, self.folder = one, drawn, folder
        folder.mkdir()
        own, inner_own = (["--kvs=own"] if drawn.random() < share else [] for share in (0.7, 0.4))
        (folder / "inner.sh").write_text(INNER.format(folder))
        (folder / "outer.sh").write_text(OUTER.format(folder, *inner_own or [""]))
        self.path = self.ok("batch", *own, "-n3", "--output=none", str(folder / "outer.sh")).strip()
        self.id = parse_id(self.path)

    def ok(self, *words: str) -> str:
        done = self.one.run(*words, timeout=PATIENCE_S)
        assert done.returncode == 0, f"{words}: {done.stdout[-500:]} {done.stderr[-1000:]}"
        return done.stdout

    def until(self, what: str, wanted: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(FluxkvError):
                if found := wanted():
                    return found
            assert time.monotonic() < deadline, f"{what}; {self.one.run('tree').stdout}"
            time.sleep(0.1)

    def kill(self, pids: list[int], pause_s: float = 0.0) -> None:
        self.drawn.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(pause_s)

    def back(self) -> None:
        """Everything is killed, and started again."""
        while pids := list(self.one.processes()):
            self.kill(pids)
        assert self.one.start().returncode == 0, self.one.logs()[-3000:]

    def strike(self) -> str:
        """What was hit."""
        how = self.drawn.choice(["all", "all", "some", "most", "children", "again and again"])
        pids = list(self.one.processes())
        share = {"some": 3, "most": 1.3}.get(how, 1)
        victims = [pid for pid in pids if inside(pid)] if how == "children" else self.drawn.sample(pids, int(len(pids) / share))
        self.kill(victims, self.drawn.choice([0, 0.01, 0.05]))
        deadline = time.monotonic() + self.drawn.uniform(1, 4)
        while how == "again and again" and time.monotonic() < deadline:
            self.kill(self.drawn.sample(pids := list(self.one.processes()), min(1, len(pids))), self.drawn.uniform(0.02, 0.3))
        if how == "all" or not self.one.dir.running():
            self.back()
        while self.drawn.random() < 0.3:
            time.sleep(self.drawn.uniform(0, 2))
            self.back()
        return how

    def over(self, id: int) -> None:
        """Waits until a job of the root is over, with all that it was."""
        one = self.one
        self.until("over", lambda: one.client.state().jobs[id].t_inactive)
        self.until("nothing runs inside", lambda: not any(map(inside, one.processes())))
        self.until("no row is left", lambda: not one.client.store.children())

    def look(self, path: str, said: Path) -> None:
        """A child answers, and has what it acknowledged."""
        self.until(f"{path} is there", lambda: whereabouts.server_of(self.one.client.store, f"/{path}", over=True) == "")
        with closing(whereabouts.beside(self.one.client.store, f"/{path}")) as store:
            self.until(f"{path} is sealed", lambda: store.meta().sealed)
        self.ok("replay", path, "--diff", "live")
        known = {parse_id(one["id"]) for one in json.loads(self.ok("--instance", path, "jobs", "-a", "-c0", "--json"))["jobs"]}
        missing = [id for id in said.read_text().split() if parse_id(id) not in known] if said.exists() else []
        assert not missing, f"{path}: acknowledged, and lost: {missing}"

    def go_on(self) -> None:
        """Another job does, perhaps killed itself: its jobs end."""
        words = ["batch", "--resume", self.path, "-n3", "--output=none", "--wrap", "fluxkv queue idle --timeout 120"]
        lives = [[], ["--kvs=own"], ["--kvs=parent"]]  # [] is as before
        while self.drawn.random() < 0.4:
            broken = parse_id(self.ok(*words[:1], *self.drawn.choice(lives), *words[1:]).strip())
            time.sleep(self.drawn.uniform(0, 2.5))
            self.back()
            self.over(broken)
        last = parse_id(self.ok(*words[:1], *self.drawn.choice(lives), *words[1:]).strip())
        self.over(last)
        assert self.one.client.job(last).status == 0, self.one.run("jobs", "-aR").stdout


def test_a_tree_is_killed_in_any_order(tmp_path: Path) -> None:
    print(f"\n  FLUXKV_SOAK_SEED={SEED}")
    drawn = random.Random(SEED)
    with site(tmp_path, *drawn.choice([["--cores", "4"], ["-s", "2", "--cores", "3"]])) as one:
        one.env["PATH"] = f"{Path(sys.executable).parent}:{one.env['PATH']}"
        for number in range(ROUNDS):
            this = Round(one, drawn, tmp_path / f"r{number}")
            if drawn.random() < 0.7:
                this.until("it has begun", lambda this=this: (this.folder / "outer").exists())
            time.sleep(drawn.uniform(0.05, 1.2))
            how = this.strike()
            this.over(this.id)
            was = bool(one.client.job(this.id).memo)
            print(f"  round {number}: {how}; {'an instance' if was else 'none yet'}, status {one.client.job(this.id).status}")
            if was:
                this.look(this.path, this.folder / "outer")
                if (child := this.folder / "child").exists() and (this.folder / "inner").exists():
                    this.look(f"{this.path}/{child.read_text().strip()}", this.folder / "inner")
                if one.client.job(this.id).status:
                    this.go_on()
            assert one.ask("ACL", "USERS") == [b"default"]
        one.sound(PATIENCE_S)
