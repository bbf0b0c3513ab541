"""Kill -9 of random daemons under real jobs, and what must hold afterwards. Everything is drawn from one seed.

Each job keeps a diary: a file with a line for the start and one for the end of each attempt, the attempt's key in both. While it
runs it holds two locks that the kernel lets go of with the last process of its tree: its job's own (nobody else may have it: two
attempts at once) and one of as many as there are cores (none free: more runs than there are cores). So what is judged does not
come from what is being judged.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from live import PATIENCE_S, Site, ends, inside

from fluxkv.instances.paths import lock_holder
from fluxkv.instances.spool import Record
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.log import Journal
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.redis_store import open_store

CORES = 8
ACTIVE = 50
SPARED = ("worker-0", "agent", "keeper", "server")
TASK = r"""n=$1; secs=$2; code=$3; cd "$4" || exit 99
exec 9>>lock/$n; flock -n 9 || echo "job $n: two attempts at once" >>bad
echo "start $FLUXKV_ATTEMPT" >>diary/$n
for core in CORES; do exec 8>>core/$core; flock -n 8 && { got=$core; break; }; done
[ -n "$got" ] || echo "job $n: more run than there are cores" >>bad
sleep $secs
echo "stop $FLUXKV_ATTEMPT" >>diary/$n
exit $code
"""


class Follower:
    """The journal as it grows, whatever dies meanwhile: its fold, and who wrote each commit when."""

    def __init__(self, uri: str) -> None:
        self.store = open_store(uri, patience_s=0.0)
        self.state = State()
        self.commits: list[tuple[int, str, float, set[str]]] = []  # version, whose, server time, names of events
        self.journal: Journal | None = None

    def look(self) -> None:
        """Fold what there is now; nothing if the server is away."""
        try:
            self.journal = self.journal or Journal(self.store)
            for commit in self.journal.commits(self.state.version):
                self.state.apply(commit)
                self.commits.append((commit.version, _whose(commit), commit.time, {event[0] for event in commit.events}))
        except Unavailable:
            self.store.close()

    def until(self, wanted: Any, what: str, failing: Any, patience_s: float = PATIENCE_S) -> None:
        """Look until it is so; `failing(what)` says what is wrong otherwise."""
        deadline = time.monotonic() + patience_s
        while True:
            self.look()
            if wanted():
                return
            if time.monotonic() > deadline:
                failing(f"not within {patience_s:.0f} s: {what}")
            self.pause()

    def pause(self) -> None:
        """Until there is something new, or the server has been looked for long enough."""
        try:
            position = {Keys(self.store.namespace).journal: f"{self.state.version}-{self.state.epoch}"}
            with contextlib.closing(self.store.subscribe(position)) as news:
                news.poll(0.25)
        except Unavailable:
            time.sleep(0.02)  # nothing to wait on: there is no server


def _whose(commit: Commit) -> str:
    return commit.producer or str(commit.extra.get("by", ""))


class Chaos:
    """One instance that is hurt round after round. `failed` raises with seed, round, and the guilty job's story."""

    def __init__(
        self, site: Site, seed: int, *, gap_s: tuple[float, float] = (0.2, 2.0), retry: int = 0, root: Path | None = None
    ) -> None:
        """gap_s: how long after the last one a blow falls, at least and at most. retry: attempts more that a job may have. root: a
        folder for the diaries, beside the instance's if none is named."""
        self.site = site
        self.seed = seed
        self.random = random.Random(seed)
        self.gap_s = gap_s
        self.options = {"retry": retry} if retry else {}
        self.round = 0
        self.story: list[str] = []  # what was done, round by round
        self.jobs: dict[int, int] = {}  # number of a job -> its id
        self.codes: list[int] = []
        self.audited = 0
        self.taken_s: dict[str, list[float]] = {}  # role -> seconds from each kill to its successor's first commit
        self.excused = ""  # words of an exception with which a job may end
        self.root = (root or site.folder) / "chaos"
        for name in ("diary", "lock", "core"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.task = self.root / "task.sh"
        self.task.write_text(TASK.replace("CORES", " ".join(map(str, range(CORES)))))
        self.follower = Follower(site.uri)
        self.follower.look()

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *what: object) -> None:
        self.follower.store.close()

    # -- load

    def top_up(self, active: int = ACTIVE) -> None:
        """Submit until so many are active; every acknowledged id is remembered."""
        self.follower.look()
        missing = active - sum(self.number_active())
        commands = []
        for number in range(len(self.codes), len(self.codes) + missing):
            drawn = random.Random(f"{self.seed}/{number}")  # whatever the moment, job and blow are those of the seed
            seconds = drawn.uniform(0.5, 2.0) if drawn.random() < 0.1 else drawn.uniform(0.0, 0.25)
            self.codes.append(drawn.randrange(4))
            commands.append(["sh", str(self.task), str(number), f"{seconds:.3f}", str(self.codes[-1]), str(self.root)])
        if commands:
            first = len(self.codes) - len(commands)
            for number, id in enumerate(self.site.submit_many(commands, **self.options), first):
                self.jobs[number] = id

    def number_active(self) -> list[bool]:
        known = self.follower.state.jobs
        recent = range(self.audited, len(self.jobs))
        return [not (self.jobs[n] in known and known[self.jobs[n]].state == INACTIVE) for n in recent]

    # -- harm

    def strike(self, roles: list[str], signum: int = signal.SIGKILL) -> float:
        """Kill what lives of these roles at once; the moment when all of them were dead."""
        found = {}
        for role in roles:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if pid := self.pid_now(role):
                    found[role] = os.pidfd_open(pid)
        for fd in found.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signum)
        for role, fd in found.items():
            if signum == signal.SIGKILL and not ends(fd):
                self.failed(f"{role} does not die")
            os.close(fd)
        self.story.append(f"round {self.round}: signal {signum} to {', '.join(found) or 'nobody'}")
        return time.time()

    def pid_now(self, role: str) -> int:
        """Who has the role, 0 if nobody."""
        if role == "server":
            pid = self.site.pid(role)
            return pid if os.path.exists(f"/proc/{pid}") else 0
        return lock_holder(self.site.dir.lock_file(role))

    def recovered(self, roles: list[str], since: float, patience_s: float = PATIENCE_S) -> None:
        """Wait until each has a successor that works, known by what it writes; how long that took is noted."""
        signs = {"worker-0": ("worker-0", ""), "agent": ("agent/0", ""), "keeper": ("keeper", "instance-start"),
                 "server": ("keeper", "epoch"), "launcher": ("worker-0", "start")}  # fmt: skip
        first = self.follower.state.version
        for role in roles:
            whose, event = signs[role]

            def seen(whose: str = whose, event: str = event) -> float:
                for version, who, at, names in reversed(self.follower.commits):
                    if version <= first or at < since:
                        return 0.0
                    if who == whose and (not event or event in names):
                        return at
                return 0.0

            self.follower.until(seen, f"a new {role} at work", self.failed, patience_s)
            at = min(t for v, w, t, names in self.follower.commits
                     if v > first and t >= since and w == whose and (not event or event in names))  # fmt: skip
            self.taken_s.setdefault(role, []).append(at - since)

    def one_round(self, roles: list[str], *, wait: bool = True) -> None:
        """Load, a moment, a kill, recovery."""
        self.round += 1
        self.top_up()
        time.sleep(self.random.uniform(*self.gap_s))  # the one thing here that is a time: when the blow falls
        self.top_up()
        self.follower.look()
        since = self.strike(roles)
        if not any(self.pid_now(role) for role in ("keeper", "worker-0", "agent")):
            self.site.up()  # nobody was left to bring the others back
        if wait:
            self.recovered(roles, since)

    def freeze(self, roles: list[str], seconds: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        """SIGSTOP for so long under load, then SIGCONT: whoever comes back believes that no time has passed."""
        self.round += 1
        self.top_up()
        self.strike(roles, signal.SIGSTOP)
        try:
            time.sleep(seconds)
            meanwhile()
        finally:
            self.strike(roles, signal.SIGCONT)
        self.top_up()

    def draw(self, among: tuple[str, ...] = SPARED) -> list[str]:
        """Whom to kill: mostly one, often some, at times all."""
        count = self.random.choices(range(1, len(among) + 1), [8, 4, 2, 2][: len(among)])[0]
        return sorted(self.random.sample(among, count))

    # -- judgement

    def audit(self, *, whole: bool = True) -> None:
        """The calm: every job ends, each as it should, and nothing is left. whole: no launcher died since the last audit."""
        jobs = self.jobs
        new = range(self.audited, len(self.codes))
        known = self.follower.state.jobs
        self.follower.until(
            lambda: all(jobs[n] in known and known[jobs[n]].state == INACTIVE for n in new), "every job has ended", self.stuck
        )
        bad = self.root / "bad"
        if bad.exists():
            self.failed(bad.read_text(), int(bad.read_text().split()[1].rstrip(":")))
        for number in new:
            self.judge(number, whole)
        self.nothing_left()
        self.audited = len(self.codes)

    def judge(self, number: int, whole: bool) -> None:
        job = self.follower.state.jobs[self.jobs[number]]
        path = self.root / "diary" / str(number)
        lines = [line.split(None, 1) for line in path.read_text().splitlines()] if path.exists() else []
        starts = Counter(key for word, key in lines if word == "start")
        stops = Counter(key for word, key in lines if word == "stop")
        if any(count > 1 for count in starts.values()):
            self.failed("an attempt started twice", number)
        if self.excused and self.excused in str(job.exception):
            return
        lost = job.status != self.codes[number] << 8
        if lost and (whole or self.options or job.status != signal.SIGKILL):
            self.failed(f"it ended with status {job.status}, not {self.codes[number] << 8}", number)
        if not lost and (not lines or lines[-1] != ["stop", lines[-2][1]]):
            self.failed("it ended well, but its last attempt did not write its last line", number)
        if not lost and not self.options and sum(stops.values()) != 1:
            self.failed("it ended well, but its last line was not written once", number)
        if whole and sum(starts.values()) != 1:
            self.failed(f"it started {sum(starts.values())} times", number)

    def nothing_left(self) -> None:
        """No claim, process, seat, record or order stays behind once all jobs have ended."""
        for rank, node in self.follower.state.nodes.items():
            if node.used_cores or node.jobs or node.grants:
                self.failed(f"claims are left on node {rank}: {node.jobs} {node.grants}")
        deadline = time.monotonic() + PATIENCE_S
        while left := self.left():
            if time.monotonic() > deadline:
                self.failed(f"left behind: {left}")
            self.follower.look()
            time.sleep(0.02)

    def left(self) -> list[str]:
        """What still reminds of jobs that have ended."""
        site = self.site
        found = [f"process {pid}: {line}" for pid, line in site.processes().items() if inside(pid)]
        record = Record(site.dir.spool)
        found += [f"spool record of {key}" for key in (*record.lost, *record.over)]
        found += [f"spool file {path}" for path in Path(site.dir.spool).glob("*/*.*")
                  if path.parent.name in ("out", "in") and path.stat().st_size]  # fmt: skip
        with contextlib.suppress(Unavailable):
            waiting = int(site.ask("XLEN", site.keys.inbox("node/0")))
            found += [f"{waiting} orders in the inbox"] if waiting > 200 else []  # it is trimmed now and then
            guards = [name.decode() for name in site.ask("HKEYS", site.keys.guards)]
            found += [f"guard {name}" for name in guards if name.startswith("attempt/")]
        return found

    def stuck(self, what: str) -> None:
        known = self.follower.state.jobs
        for number in range(self.audited, len(self.codes)):
            id = self.jobs[number]
            if id not in known or known[id].state != INACTIVE:
                self.failed(what + ("" if id in known else ": an acknowledged job is not in the journal"), number)
        self.failed(what)

    def failed(self, what: str, number: int = -1) -> None:
        """Raises: what is wrong, how to see it again, and the story of the job."""
        lines = [f"{what} (seed {self.seed}, round {self.round}; FLUXKV_SOAK_SEED={self.seed} plays it again)", *self.story[-8:]]
        if number >= 0:
            diary = self.root / "diary" / str(number)
            lines.append(f"job {number}, id {self.jobs.get(number)}; its diary:")
            lines.append(diary.read_text() if diary.exists() else "  nothing")
            with contextlib.suppress(Exception):
                for commit, event in self.site.client.journal.story(self.follower.state.jobs[self.jobs[number]].versions):
                    if event.subject == self.jobs[number] or self.jobs[number] in str(event.context):
                        lines.append(f"  {commit.version} {_whose(commit)} {event.name} {event.context}")
            lines.append(self.site.run("inspect", "job", str(self.jobs.get(number))).stdout)
        raise AssertionError("\n".join([*lines, self.site.describe(self.follower.state), self.site.logs()]))

    def report(self) -> str:
        """What was done and how long take-overs took."""
        texts = []
        for role, taken in sorted(self.taken_s.items()):
            texts.append(f"{role}: {len(taken)} kills, median {sorted(taken)[len(taken) // 2]:.2f} s, p99 {p99(taken):.2f} s")
        return f"seed {self.seed}: {self.round} rounds, {len(self.codes)} jobs; " + "; ".join(texts)


def p99(values: list[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
