"""Take-over: kill -9 of each daemon under load; how long until a new job has ended, and what was lost or run twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rig import Figure, Rig, figure, instance

import fluxkv

VICTIMS = ("worker", "agent", "keeper", "server", "launcher")
KILLS = (*VICTIMS, "server")  # the server takes most with it: once more
LOAD = 24
PATIENCE_S = 30.0
T = TypeVar("T")


class Tally:
    """What one kill after another has shown. seconds, back: by victim, one number per kill."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {victim: [] for victim in VICTIMS}
        self.back: dict[str, list[float]] = {victim: [] for victim in VICTIMS}
        self.lost: Counter[str] = Counter()
        self.never: Counter[str] = Counter()
        self.twice: Counter[str] = Counter()
        self.unsound = 0


def take_over(rounds: int) -> list[Figure]:
    """A fresh instance for each round: a role that dies three times in half a minute is given up, by design."""
    tally = Tally()
    for _ in range(rounds):
        with instance("-s", "1", "--cores", "2") as rig, fluxkv.connect(rig.uri) as client:
            client.submit(["true"]).wait(PATIENCE_S)
            for victim in KILLS:
                _kill(rig, client, victim, tally)
            words = rig.command("replay", "--diff", "live", "--json")
            done = subprocess.run(words, env=rig.environment(), capture_output=True, timeout=60)
            tally.unsound += bool(done.returncode)
    found = []
    for victim in VICTIMS:
        # The budget is for the slowest: it is a promise, not a habit.
        one = figure(f"kill -9 of the {victim}: a job submitted then has ended after", tally.seconds[victim], "s", 5)
        back = max(tally.back[victim])
        found.append({**one, "value": one["spread"][1], "note": f"the slowest; a new {victim} within {back:.2f} s"})
    kills = rounds * len(KILLS)
    with_launcher = tally.lost.pop("launcher", 0)
    return [
        *found,
        figure(f"acknowledged jobs lost, {kills} kills", sum(tally.lost.values()), "jobs", 0, note=_who(tally.lost)),
        figure("jobs failed because their parent, the launcher, was killed", with_launcher, "jobs",
               note=f"2 tasks ran at each of {rounds} kills"),
        figure("jobs that ended well but never ran", sum(tally.never.values()), "jobs", 0, note=_who(tally.never)),
        figure("jobs run twice", sum(tally.twice.values()), "jobs", 0, note=_who(tally.twice)),
        figure("journals that do not replay to the live state", tally.unsound, "", 0),
    ]  # fmt: skip


def _who(counts: Counter[str]) -> str:
    return ", ".join(f"{victim} {count}" for victim, count in counts.items() if count)


def _kill(rig: Rig, client: fluxkv.Instance, victim: str, tally: Tally) -> None:
    """One kill in the middle of a load whose every job leaves a line."""
    path = Path(rig.folder, f"ran-{victim}-{len(tally.seconds[victim])}")
    load = client.submit_many(
        [["sh", "-c", 'echo "$0" >> "$1"; exec sleep 0.02', str(number), str(path)] for number in range(LOAD)]
    )
    time.sleep(0.1)
    role, pid = next((role, pid) for role, pid in rig.pids().items() if role.startswith(victim))
    os.kill(pid, signal.SIGKILL)
    start = time.perf_counter()
    seconds = PATIENCE_S
    lost = tally.lost[victim]
    try:
        probe = _persist(lambda: client.submit(["true"], urgency=31).id)
        ended = _persist(lambda: client.wait([probe], PATIENCE_S))
        seconds = time.perf_counter() - start
        tally.lost[victim] += not ended[0].ok
        results = _persist(lambda: client.wait(load, PATIENCE_S))
        tally.lost[victim] += sum(not one.ok for one in results)
        ran = Counter(path.read_text().split())
        tally.never[victim] += sum(one.ok and not ran[str(number)] for number, one in enumerate(results))
        tally.twice[victim] += sum(count > 1 for count in ran.values())
    except fluxkv.FluxkvError:
        tally.lost[victim] += LOAD + 1
    tally.seconds[victim].append(seconds)
    while rig.pids().get(role, pid) == pid and time.perf_counter() < start + PATIENCE_S:
        time.sleep(0.005)  # the next victim must not be killed while this one is still away
    tally.back[victim].append(time.perf_counter() - start)
    if tally.lost[victim] > lost and victim != "launcher":
        _complain(rig, victim)
    time.sleep(0.3)


def _complain(rig: Rig, victim: str) -> None:
    """What the logs say, since they are gone with the folder."""
    for path in sorted(Path(rig.folder).glob("log/*.log")) + sorted(Path(rig.folder).glob("run/*.failed")):
        lines = path.read_text(errors="replace").splitlines()[-12:]
        print(f"bench: after kill -9 of the {victim}: {path.name}", *lines, sep="\n    ", file=sys.stderr)


def _persist(call: Callable[[], T]) -> T:
    """What a program with patience does: ask again while the server is away."""
    deadline = time.perf_counter() + PATIENCE_S
    while True:
        try:
            return call()
        except fluxkv.Unavailable as error:
            if error.code == "timeout" or time.perf_counter() > deadline:
                raise
            time.sleep(0.01)
