"""The launcher: one small single-threaded process per host, parent of the tasks, that outlives the agent.

`python -m fluxkv.instances.launcher --spool DIR [--owner-fd N] [--linger SECONDS] [--batch SECONDS]`

Decides when an attempt is over: when its whole tree of processes is gone, and not before. Who starts next
on a seat is `seats`' word, how a task starts `spawning`'s, what is remembered `spool`'s. Knows nothing of
journals, jobs' meaning or retries. Messages are framed by `wire`.

Agent -> launcher: `["env", ref, {name: value}]`, `["launch", [attempt, ...]]`, `["like", {name: value}]` (what attempts from now on
have that say `like`, but for what they say themselves; see `alike`), `["signal", key, signum]`,
`["end", key, cause]`, `["limit", key, limit_s]`, `["recall", [keys]]`, `["ack", [keys]]`,
`["list"]`, `["list", "recent"]` (also what was acked a short while ago, state "past"),
`["eof", key]`, `["alive", t_boot, fence_s, tip]` (see `fence`), `["shutdown", kill]`.

Launcher -> agent: `["events", [event, ...]]`, and `["held", [[key, job, state, t_start, pids, over, held], ...], ["like"]]`
in answer to `list` (state "queued", "running" or "over"; over: the over event or None; held: as the attempt had it; then come
messages that an older launcher does not take). Events:

    ["start", key, t_unix, pids]
    ["exit", key, task_rank, wait_status, t]                 attempts of several tasks only
    ["first-exit", key, task_rank, wait_status, t]           the first task to end, and the first to fail, of attempts with
                                                             `first_exits`; told again after a `list`
    ["timeout", key, t]                                      TERM went out for the limit
    ["over", key, worst_wait_status, t_start, t_end, statuses or None, cause, next_key,
             max_rss_kib, cpu_s, job]                        then, where there are any, a list of [task_rank, wait_status, t] with
                                                             `first_exits`; and where nothing is in its spool files, that list
                                                             (maybe empty) and True
    ["unstarted", [keys]]                                    queued ones, never started, now forgotten

Queued attempts are not on disk: after a launcher's death the agent sees from `held` that they are unknown.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from heapq import heappop
from typing import Any

from . import forked_tasks
from .attempt_kind import OWN, Kind
from .attempt_table import AttemptTable
from .launcher_door import Door
from .pace import USUAL
from .spawning import Attempt
from .spool import boot_time
from .wire import LIKE, Message, pack

_PR_SET_CHILD_SUBREAPER = 36
_KILL_AGAIN_S = 0.1
_SWEEP_S = 0.02
_FAREWELL_S = 1.0
_SETTLE_S = 0.01  # idle so long, we leave the last task's core; at once would cost a migration per spawn
_AHEAD_S = 0.5  # so long after the beginning, with nothing held, we import what forks of ours are going to
_LONGEST_SLEEP_S = 30.0  # poll's clock stands still while the machine sleeps, limits do not
_TICK_S = 0.5  # so often we look though nothing is due
_RECENT = 1024


class Launcher(AttemptTable):
    """Everything of one spool. `run` is the loop; all else is called from it."""

    def __init__(self, folder: str, *, linger_s: float = USUAL.linger_s, batch_s: float = USUAL.batch_s) -> None:
        """Raises `Unavailable` when another launcher serves this spool."""
        super().__init__(folder, linger_s)
        self.recent: dict[str, list[Any]] = {}  # acked a short while ago: a launch resent late must not run again
        self.common: dict[str, Any] = {}  # what attempts that say `like` have
        self.kind: Kind | None = None  # theirs
        self.leaving = False
        self.leave_at = 0.0
        self.ahead_at = boot_time() + _AHEAD_S
        self.due_at = self.ticked = 0.0  # when `tick` has something to do, and when it last looked
        self.handlers = {
            "env": self.on_env,
            "like": self.on_like,
            "launch": self.on_launch,
            "signal": self.on_signal,
            "end": self.on_end,
            "limit": self.on_limit,
            "recall": self.on_recall,
            "ack": self.on_ack,
            "list": self.on_list,
            "eof": self.on_eof,
            "alive": self.on_alive,
            "shutdown": self.on_shutdown,
        }
        self.door = Door(folder, batch_s)

    # ---- the loop

    def run(self) -> None:
        door = self.door
        while True:
            if self.events:
                door.offer(self.events, last=not self.held)
            if self.leaving and not self.held and not self.lost and self.said_all():
                return
            messages, signals = door.wait(self.sleep_s())
            if not (signals or messages):
                self.idle()
            if signals:
                if signal.SIGTERM in signals:
                    self.on_shutdown(["shutdown", True])
                self.reap()
            for message in messages:
                self.handle(message)
            self.tick()
            self.write_down()

    def idle(self) -> None:
        self.spawner.settle()
        if self.ahead_at and boot_time() >= self.ahead_at:
            self.ahead_at = 0.0
            forked_tasks.think_ahead()

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
        now = boot_time()
        due = [now + _LONGEST_SLEEP_S]
        if self.timers:
            due.append(self.timers[0][0])
        if (linger := self.seats.deadline()) is not None:
            due.append(linger)
        if self.leave_at:
            due.append(self.leave_at)
        if self.ahead_at:
            if self.held:
                self.ahead_at = now + _AHEAD_S
            else:
                due.append(self.ahead_at)
        if self.spawner.away:
            due.append(now + _SETTLE_S)
        if (output := self.spawner.outputs.due()) is not None:
            due.append(output)
        if self.leftovers.active:
            due.append(now + _SWEEP_S)
        if self.fence.held:
            due.append(self.fence.at())
        self.due_at = at = min(due)
        return at - now if at > now else 0.0

    def tick(self) -> None:
        now = boot_time()
        if now < self.due_at and now - self.ticked < _TICK_S:
            return  # in a flood, nearly each time
        self.ticked = now
        late = self.seats.expired(now)
        if late:
            self.give_back(late)
        self.oom.look(now)
        self.spawner.outputs.name(now)
        if self.leftovers.active:
            self.sweep()
        for attempt in self.fence.due(now):
            self.begin_end(attempt, self.fence.cause())
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

    # ---- messages

    def on_env(self, message: Message) -> None:
        self.spawner.remember(message[1], message[2])

    def on_like(self, message: Message) -> None:
        self.common, self.kind = dict(message[1]), None  # where it is no kind, each attempt is told what is wrong with it
        self.kind = Kind(self.common)

    def on_launch(self, message: Message) -> None:
        back: list[str] = []
        for spec in message[1]:
            try:
                if LIKE in spec:
                    attempt = Attempt({**self.common, **spec}, self.kind if OWN.issuperset(spec) else None)
                else:
                    attempt = Attempt(spec)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
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
        elif not attempt.kind.queued:
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
        if key in self.held:
            self.reap()  # what has ended by itself by now was not told to
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
            rows.append([a.key, a.job, "running" if a.t_start else "queued", a.t_start, a.pids, None, a.spec.get("held")])
        for lost in self.lost.values():  # still dying
            rows.append([lost.key, lost.job, "running", lost.t_start, lost.pids, None])
        for event in self.over.values():
            rows.append([event[1], event[10], "over", event[3], [], event])
        if len(message) > 1:
            rows += [[event[1], event[10], "past", event[3], [], event] for event in self.recent.values()]
        self.spawner.outputs.name_all()  # whoever asks looks for what they have put out
        self.write_down()
        self.door.offer(self.events)
        self.door.send(["held", rows, [LIKE]])
        for a in self.held.values():  # whoever asks may not have heard of them
            self.events.extend(["first-exit", a.key, *one] for one in a.exits or ())

    def on_alive(self, message: Message) -> None:
        self.fence.alive(float(message[1]), float(message[2]), int(message[3]))

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
            self.reap()
            for attempt in list(self.held.values()):
                self.begin_end(attempt, "ended:shutdown")

def become_subreaper() -> None:
    """Orphans of our tasks come to us instead of to init."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def main(arguments: list[str]) -> int:
    """Serve one spool until told to shut down. 0; 2: bad usage; 3: not possible (another one serves it)."""
    from ..kvs.errors import FluxkvError

    options = {"--spool": "", "--owner-fd": "", "--linger": str(USUAL.linger_s), "--batch": str(USUAL.batch_s)}
    at = iter(arguments)
    for name in at:
        value = next(at, None)
        if name not in options or value is None:
            print("usage: launcher --spool DIR [--owner-fd N] [--linger SECONDS] [--batch SECONDS]", file=sys.stderr)
            return 2
        options[name] = value
    owner = int(options["--owner-fd"] or -1)
    answer, code = "", 0
    launcher = None
    try:
        folder = os.path.abspath(options["--spool"])
        os.makedirs(folder, 0o700, exist_ok=True)
        prepare_process()
        launcher = Launcher(folder, linger_s=float(options["--linger"]), batch_s=float(options["--batch"]))
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
        launcher.door.close()  # before the lock is anybody's
        launcher.spool.close()
    return code


def prepare_process() -> None:
    """A session of our own, no inherited descriptor passed on, orphans come to us; no word of a lease (`spool_files`) ends us."""
    try:
        os.setsid()
    except PermissionError:
        pass  # we lead one already
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXCPU, signal.SIGIO):
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
