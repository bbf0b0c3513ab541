"""The launcher: one small single-threaded process per host, parent of the tasks, that outlives the agent.

`python -m fluxkv.instances.launcher --spool DIR [--owner-fd N] [--linger SECONDS]`

Decides when an attempt is over: when its whole tree of processes is gone, and not before. Who starts next
on a seat is `seats`' word, how a task starts `spawning`'s, what is remembered `spool`'s. Knows nothing of
journals, jobs' meaning or retries. Messages are framed by `wire`.

Agent -> launcher: `["env", ref, {name: value}]`, `["launch", [attempt, ...]]`, `["signal", key, signum]`,
`["end", key, cause]`, `["limit", key, limit_s]`, `["recall", [keys]]`, `["ack", [keys]]`, `["list"]`,
`["eof", key]`, `["shutdown", kill]`.

Launcher -> agent: `["events", [event, ...]]`, and `["held", [[key, job, state, t_start, pids, over], ...]]`
in answer to `list` (state "queued", "running" or "over"; over: the over event or None). Events:

    ["start", key, t_unix, pids]
    ["exit", key, task_rank, wait_status, t]                 attempts of several tasks only
    ["timeout", key, t]                                      TERM went out for the limit
    ["over", key, worst_wait_status, t_start, t_end, statuses or None, cause, next_key,
             max_rss_kib, cpu_s, job]
    ["unstarted", [keys]]                                    queued ones, never started, now forgotten

Queued attempts are not on disk: after a launcher's death the agent sees from `held` that they are unknown.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from heapq import heapify, heappop, heappush
from typing import Any

from .launcher_door import Door
from .leftovers import LeftOvers
from .seats import LINGER_S, Seats
from .spawning import Attempt, Spawner, SpawnError, badness, unlink_if_empty
from .spool import Lost, Spool, input_path, output_paths, take_lock
from .trees import Trees
from .wire import Message, pack

_PR_SET_CHILD_SUBREAPER = 36
_KILL_AGAIN_S = 0.1
_SWEEP_S = 0.02
_FAREWELL_S = 1.0
_SETTLE_S = 0.01  # idle so long, we leave the last task's core; at once would cost a migration per spawn
_LONGEST_SLEEP_S = 30.0  # poll's clock stands still while the machine sleeps, limits do not
_RECENT = 1024


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Launcher:
    """Everything of one spool. `run` is the loop; all else is called from it."""

    def __init__(self, folder: str, *, linger_s: float = LINGER_S) -> None:
        """Raises `Unavailable` when another launcher serves this spool."""
        self.folder = folder
        self.lock = take_lock(folder)
        self.spool = Spool(folder)
        self.seats = Seats(linger_s)
        self.spawner = Spawner(folder, self.spool.tag)
        self.held: dict[str, Attempt] = {}
        self.over: dict[str, list[Any]] = self.spool.over  # not yet acked
        self.recent: dict[
            str, list[Any]
        ] = {}  # acked a short while ago: a launch resent late must not run again
        self.trees = Trees(self.spawner.mark(""))
        self.timers: list[tuple[float, int, str, Attempt]] = []
        self.timer_count = 0
        self.events: list[list[Any]] = []
        self.leaving = False
        self.leave_at = 0.0
        self.handlers = {
            "env": self.on_env,
            "launch": self.on_launch,
            "signal": self.on_signal,
            "end": self.on_end,
            "limit": self.on_limit,
            "recall": self.on_recall,
            "ack": self.on_ack,
            "list": self.on_list,
            "eof": self.on_eof,
            "shutdown": self.on_shutdown,
        }
        self.leftovers = LeftOvers(self.spool.lost, self.spawner.mark(""))
        self.lost = self.leftovers.lost
        self.sweep()
        self.door = Door(folder)

    # ---- the loop

    def run(self) -> None:
        door = self.door
        while True:
            if self.events:
                door.offer(self.events)
            if self.leaving and not self.held and not self.lost and self.said_all():
                return
            messages, signals = door.wait(self.sleep_s())
            if not (signals or messages):
                self.spawner.settle()
            if signals:
                if signal.SIGTERM in signals:
                    self.on_shutdown(["shutdown", True])
                self.reap()
            for message in messages:
                self.handle(message)
            self.tick()
            self.write_down()

    def said_all(self) -> bool:
        """Before we go: an agent that listens gets the last events;

        one that does not finds them in the spool.
        """
        if not self.leave_at:
            self.leave_at = boot_time() + _FAREWELL_S
        return self.door.idle or boot_time() >= self.leave_at

    def handle(self, message: Message) -> None:
        """A malformed message is dropped: the agent is ours, but it may be of another version."""
        handler = self.handlers.get(message[0])
        if handler is not None:
            try:
                handler(message)
            except (IndexError, KeyError, TypeError, ValueError) as error:
                print(f"launcher: bad message {message[0]}: {error!r}", file=sys.stderr, flush=True)

    def sleep_s(self) -> float:
        """Until the next timer, lingering or unsent batch."""
        wait = _LONGEST_SLEEP_S
        now = boot_time()
        if self.timers:
            wait = min(wait, self.timers[0][0] - now)
        linger = self.seats.deadline()
        if linger is not None:
            wait = min(wait, linger - now)
        if self.leave_at:
            wait = min(wait, self.leave_at - now)
        if self.spawner.away:
            wait = min(wait, _SETTLE_S)
        if self.leftovers.active:
            wait = min(wait, _SWEEP_S)
        return max(wait, 0.0)

    def tick(self) -> None:
        now = boot_time()
        late = self.seats.expired(now)
        if late:
            self.give_back(late)
        if self.leftovers.active:
            self.sweep()
        kills = []
        while self.timers and self.timers[0][0] <= now:
            at, _, kind, attempt = heappop(self.timers)
            if getattr(attempt, kind) != at or attempt.event is not None:
                continue
            if kind == "kill_at":
                kills.append(attempt)
            elif kind == "limit_at":
                self.on_limit_reached(attempt)
            else:
                self.trees.signal_groups(attempt, attempt.spec.get("warn_signal") or signal.SIGUSR1)
        if kills:
            self.trees.kill(kills)
            for attempt in kills:
                attempt.ending = 2
                self.arm(attempt, "kill_at", now + _KILL_AGAIN_S)

    def arm(self, attempt: Attempt, kind: str, at: float) -> None:
        """One timer per attempt and kind ("limit_at", "warn_at", "kill_at"): the newest holds, 0 clears."""
        setattr(attempt, kind, at)
        if not at:
            return
        self.timer_count += 1
        heappush(self.timers, (at, self.timer_count, kind, attempt))
        if len(self.timers) > 1024 + 6 * len(self.held):  # most belong to attempts long over
            self.timers = [t for t in self.timers if t[3].event is None and getattr(t[3], t[2]) == t[0]]
            heapify(self.timers)

    def write_down(self) -> None:
        try:
            self.spool.flush()
            if self.spool.wants_rewrite:
                self.spool.rewrite(self.records())
        except OSError as error:  # disk full: the facts stay in memory, the next rewrite mends the file
            print(f"launcher: spool {self.folder}: {error}", file=sys.stderr, flush=True)

    def records(self) -> list[bytes]:
        out = [pack(["x", event]) for event in self.over.values()]
        for lost in self.lost.values():
            out += lost.records()
        for a in self.held.values():
            if a.t_start:
                out.append(
                    pack(
                        ["i", a.key, a.job, a.t_start, a.start_boot, self.ranks(a), a.spec.get("tmpdir", "")]
                    )
                )
                out.append(pack(["p", a.key, a.start_boot, a.pids]))
        return out

    # ---- messages

    def on_env(self, message: Message) -> None:
        self.spawner.remember(message[1], message[2])

    def on_launch(self, message: Message) -> None:
        back: list[str] = []
        for spec in message[1]:
            try:
                attempt = Attempt(spec)
            except (KeyError, TypeError, ValueError) as error:
                if (
                    isinstance(spec, dict)
                    and isinstance(spec.get("key"), str)
                    and spec["key"] not in self.held
                ):
                    now = time.time()
                    self.conclude(
                        [
                            "over",
                            spec["key"],
                            1 << 8,
                            now,
                            now,
                            None,
                            f"spawn: bad attempt: {error!r}",
                            "",
                            0,
                            0.0,
                            spec.get("job", 0),
                        ]
                    )
                continue
            self.take(attempt, back)
        if back:
            self.events.append(["unstarted", back])

    def take(self, attempt: Attempt, back: list[str]) -> None:
        """Start it, queue it, or put it `back`; one that was sent before is only told about again."""
        key = attempt.key
        known = self.held.get(key)
        done = self.over.get(key) or self.recent.get(key)
        if known is not None:
            if known.t_start:
                self.events.append(["start", key, known.t_start, known.pids])
        elif done is not None:
            self.events.append(done)
        elif key in self.lost:
            return
        elif self.leaving:
            back.append(key)
        elif not attempt.spec.get("queued"):
            self.held[key] = attempt
            self.seats.hold(key, attempt.group, attempt.spec.get("seat") or {})
            if not self.start(attempt):
                self.finish(attempt)
        elif self.seats.wait(key, attempt.group, boot_time()):
            self.held[key] = attempt
        else:
            back.append(key)

    def on_signal(self, message: Message) -> None:
        attempt = self.held.get(message[1])
        if attempt is not None:
            self.trees.signal_groups(attempt, message[2])

    def on_end(self, message: Message) -> None:
        key = message[1]
        if self.seats.queued(key):
            self.give_back(self.seats.withdraw([key]))
        elif key in self.held:
            self.begin_end(self.held[key], f"ended:{message[2]}")

    def on_limit(self, message: Message) -> None:
        attempt = self.held.get(message[1])
        if attempt is not None:
            attempt.limit_s = message[2] or 0.0
            if attempt.t_start:
                self.arm_limit(attempt)

    def on_recall(self, message: Message) -> None:
        back = self.seats.withdraw(message[1])
        if back:
            self.give_back(back)

    def on_ack(self, message: Message) -> None:
        keys = [key for key in message[1] if key in self.over]
        for key in keys:
            self.recent[key] = self.over.pop(key)
        while len(self.recent) > _RECENT:
            del self.recent[next(iter(self.recent))]
        if keys:
            self.spool.add(pack(("a", keys)))

    def on_list(self, message: Message) -> None:
        rows: list[list[Any]] = []
        for a in self.held.values():
            rows.append([a.key, a.job, "running" if a.t_start else "queued", a.t_start, a.pids, None])
        for lost in self.lost.values():  # still dying
            rows.append([lost.key, lost.job, "running", lost.t_start, lost.pids, None])
        for event in self.over.values():
            rows.append([event[1], event[10], "over", event[3], [], event])
        self.write_down()
        self.door.offer(self.events)
        self.door.send(["held", rows])

    def on_eof(self, message: Message) -> None:
        attempt = self.held.get(message[1])
        if attempt is not None:
            for at, (path, fd) in enumerate(attempt.fifos):
                if fd >= 0:
                    os.close(fd)
                    attempt.fifos[at] = (path, -1)

    def on_shutdown(self, message: Message) -> None:
        self.leaving = True
        back = self.seats.withdraw_all()
        if back:
            self.give_back(back)
        if message[1]:
            for attempt in list(self.held.values()):
                self.begin_end(attempt, "ended:shutdown")

    # ---- starting

    def start(self, attempt: Attempt) -> bool:
        """Start a holder of a seat; False when nothing of it runs, so that it is over already."""
        attempt.t_start = time.time()
        attempt.start_boot = boot_time()
        try:
            self.spool.intent(
                attempt.key,
                attempt.job,
                attempt.t_start,
                attempt.start_boot,
                self.ranks(attempt),
                attempt.spec.get("tmpdir", ""),
            )
            self.spawner.start(attempt, self.seats.seat(attempt.key), self.trees.owner)
        except SpawnError as error:
            self.spawn_failed(attempt, str(error), error.status)
        except OSError as error:
            self.spawn_failed(attempt, f"{error.filename or self.folder}: {error.strerror}", 1 << 8)
        except Exception as error:  # whatever it is, it must not end everybody else's tasks
            self.spawn_failed(attempt, f"bad attempt: {error!r}", 1 << 8)
        if not attempt.alive:
            return False
        self.spool.add(pack(("p", attempt.key, boot_time(), attempt.pids)))
        self.events.append(["start", attempt.key, attempt.t_start, attempt.pids])
        if attempt.limit_s:
            self.arm_limit(attempt)
        if attempt.cause:
            self.begin_end(attempt, attempt.cause)
        return True

    @staticmethod
    def ranks(attempt: Attempt) -> list[int] | None:
        """The task ranks that have spool files of their own."""
        spec = attempt.spec
        if spec.get("per_task_output") or (spec.get("stdin") == "fifo" and len(attempt.tasks) > 1):
            return [task[0] for task in attempt.tasks]
        return None

    @staticmethod
    def spawn_failed(attempt: Attempt, text: str, status: int) -> None:
        attempt.cause = "spawn: " + text
        for task in attempt.tasks[len(attempt.pids) :]:
            attempt.statuses[task[0]] = status

    def arm_limit(self, attempt: Attempt) -> None:
        limit_s, warn_s = attempt.limit_s, attempt.spec.get("warn_s") or 0.0
        if not limit_s:
            attempt.limit_at = attempt.warn_at = 0.0
            return
        self.arm(attempt, "limit_at", attempt.start_boot + limit_s)
        if warn_s:
            self.arm(attempt, "warn_at", attempt.start_boot + max(limit_s - warn_s, 0.0))

    # ---- ending

    def on_limit_reached(self, attempt: Attempt) -> None:
        if not attempt.ending:
            self.events.append(["timeout", attempt.key, time.time()])
            self.begin_end(attempt, "timeout")

    def begin_end(self, attempt: Attempt, cause: str) -> None:
        """TERM to the tasks' groups and to what came to us from them;

        KILL for the whole tree after the grace.
        """
        if attempt.ending:
            return
        attempt.ending = 1
        attempt.cause = attempt.cause or cause
        self.trees.signal_groups(attempt, signal.SIGTERM)
        self.trees.signal_groups(attempt, signal.SIGCONT)  # a stopped process would not hear it
        self.arm(attempt, "kill_at", boot_time() + attempt.grace_s)

    def reap(self) -> None:
        touched: dict[Attempt, None] = {}
        for attempt, rank, status in self.trees.reap():
            if rank is not None:
                attempt.statuses[rank] = status
                if len(attempt.tasks) > 1:
                    self.events.append(["exit", attempt.key, rank, status, time.time()])
            touched[attempt] = None
        for attempt in touched:
            if attempt.alive:
                continue
            if self.trees.gone(attempt, self.held.values()):
                self.finish(attempt)
            elif not attempt.ending:
                attempt.ending = 1
                self.arm(attempt, "kill_at", boot_time() + attempt.grace_s)

    def finish(self, attempt: Attempt) -> None:
        """The tree is gone: tell it, and let the head of the line take the seat, without asking anybody."""
        while True:
            key = attempt.key
            self.spawner.release(attempt)
            tmpdir = attempt.spec.get("tmpdir")
            if tmpdir and not self.spawner.scratch.give(tmpdir):
                self.trees.remove_tree(tmpdir)
            statuses = attempt.statuses
            if len(attempt.tasks) == 1:
                (worst,) = statuses.values()
                each = None
            else:
                worst = max(statuses.values(), key=badness)
                each = [statuses[task[0]] for task in attempt.tasks]
            heir = self.seats.over(key)
            del self.held[key]
            self.conclude(
                [
                    "over",
                    key,
                    worst,
                    attempt.t_start,
                    time.time(),
                    each,
                    attempt.cause,
                    heir,
                    attempt.max_rss_kib,
                    round(attempt.cpu_s, 6),
                    attempt.job,
                ]
            )
            attempt.event = self.over[key]
            if not heir:
                return
            attempt = self.held[heir]
            if self.start(attempt):
                return

    def conclude(self, event: list[Any]) -> None:
        self.over[event[1]] = event
        self.events.append(event)
        self.spool.add(pack(("x", event)))

    def give_back(self, keys: list[str]) -> None:
        for key in keys:
            del self.held[key]
        self.events.append(["unstarted", keys])

    # ---- after a launcher's death

    def sweep(self) -> None:
        for lost in self.leftovers.sweep():
            self.bury(lost)

    def bury(self, lost: Lost) -> None:
        for rank in [None, *(lost.ranks or ())]:
            for path in output_paths(self.folder, lost.job, lost.key, rank):
                unlink_if_empty(path)
            unlink_if_empty(input_path(self.folder, lost.job, lost.key, rank))
        if lost.tmpdir:
            self.trees.remove_tree(lost.tmpdir)
        self.conclude(
            [
                "over",
                lost.key,
                int(signal.SIGKILL),
                lost.t_start,
                time.time(),
                None,
                "lost",
                "",
                0,
                0.0,
                lost.job,
            ]
        )


def become_subreaper() -> None:
    """Orphans of our tasks come to us instead of to init."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def main(arguments: list[str]) -> int:
    """Serve one spool until told to shut down. 0; 2: bad usage; 3: not possible (another one serves it)."""
    from ..kvs.errors import FluxkvError

    options = {"--spool": "", "--owner-fd": "", "--linger": ""}
    at = iter(arguments)
    for name in at:
        value = next(at, None)
        if name not in options or value is None:
            print("usage: launcher --spool DIR [--owner-fd N] [--linger SECONDS]", file=sys.stderr)
            return 2
        options[name] = value
    owner = int(options["--owner-fd"] or -1)
    answer, code = "", 0
    launcher = None
    try:
        folder = os.path.abspath(options["--spool"])
        os.makedirs(folder, 0o700, exist_ok=True)
        prepare_process()
        launcher = Launcher(folder, linger_s=float(options["--linger"] or LINGER_S))
        answer = f"ready {os.getpid()}\n"
    except (FluxkvError, OSError) as error:
        answer, code = f"error {error}\n", 3
        print(f"launcher: {error}", file=sys.stderr)
    if owner >= 0:  # whoever started us waits on this pipe; its death means nothing to us
        try:
            os.write(owner, answer.encode("utf-8", "replace"))
        except OSError:
            pass
        os.close(owner)
    if launcher is not None:
        launcher.run()
        launcher.spawner.outputs.close()
        launcher.spawner.scratch.close()
        launcher.spool.close()
        launcher.door.close()
    return code


def prepare_process() -> None:
    """A session of our own, no inherited descriptor passed on, orphans come to us."""
    try:
        os.setsid()
    except PermissionError:
        pass  # we lead one already
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                pass
    become_subreaper()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
