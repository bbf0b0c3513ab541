"""Starting and ending an instance from outside: makes its settings, starts its keeper, waits until it is ready."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any

from ..kvs.errors import Rejected, Unavailable
from .paths import StateDir, home, lock_held, lock_holder

READY_S = 60.0
NODES_S = 5.0


def new_state_dir() -> StateDir:
    """A fresh directory name under this user's state home."""
    return StateDir(os.path.join(home(), f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"))


def prepare(state_dir: StateDir, settings: dict[str, Any]) -> dict[str, Any]:
    """Write a new instance's settings, or read those of an old one (whose inventory and options stay)."""
    if os.path.exists(state_dir.instance_file):
        return state_dir.read()
    state_dir.create()
    made = {"created": time.time(), "durability": "strict", "workers": 1, "policy": "fcfs", **settings}
    if "uri" not in made:
        from ..kvs.server import socket_path  # a child has no need of it

        made["uri"] = f"unix:{socket_path(state_dir.path)}"
    if not state_dir.write_first(made):
        return state_dir.read()
    return made


def start_keeper(state_dir: StateDir, owner: int = 0) -> None:
    """Start the keeper and wait until all is up. Raises `Unavailable` (or `Rejected`) with what stood in the way.

    If somebody else is starting it in the same moment, wait for theirs. owner: a process whose death ends the instance (0: none).
    """
    from . import prefork

    read, write = os.pipe2(os.O_CLOEXEC)
    words = ["keeper", "--state-dir", state_dir.path, "--owner", str(owner), "--ready-fd", "3"]
    argv = [sys.executable, "-P", "-m", "fluxkv.instances.main", *words]
    actions = [
        (os.POSIX_SPAWN_DUP2, write, 3),
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, state_dir.log_file("keeper"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        if not prefork.keeper(words, write, state_dir.log_file("keeper")):
            os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True, setsigmask=())
    finally:
        os.close(write)
    try:
        poller = select.poll()
        poller.register(read, select.POLLIN)
        answer = os.read(read, 4096).decode(errors="replace") if poller.poll(READY_S * 1000) else ""
    finally:
        os.close(read)
    if not answer.startswith("ready"):
        word, _, rest = answer.partition(": ")
        text, _, hint = rest.partition("\n")
        if word == "refused":
            raise Rejected(f"the instance did not start: {text}", code="start-refused", hint=hint.strip())
        why = text or f"its keeper ended without a word; see {state_dir.log_file('keeper')}"
        raise Unavailable(f"the instance did not start: {why}", code="start-failed", hint=hint.strip())


def wait_for_nodes(uri: str, timeout_s: float = NODES_S) -> bool:
    """Wait until the instance's own agents have spoken, so that the first command finds them up. False if some did not in time.

    A server that is being brought back is waited for too; `Unavailable` if it does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _nodes_online(uri, deadline)
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _nodes_online(uri: str, deadline: float) -> bool:
    from ..journal.log import Journal
    from ..kvs.keys import Keys
    from ..kvs.redis_store import open_store

    store = open_store(uri)
    try:
        journal = Journal(store)
        state = journal.look()
        subscription = store.subscribe({Keys(store.namespace).journal: f"{state.version}-{state.epoch}"})
        try:
            while not all(node.online or node.joined for node in state.nodes.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                subscription.poll(min(left, 1.0))
                journal.catch_up(state)
        finally:
            subscription.close()
    finally:
        store.close()
    return True


def keeper_pid(state_dir: StateDir) -> int:
    """The keeper's process, 0 if there is none."""
    import json

    if not lock_held(state_dir.lock_file("keeper")):
        return 0
    pid = lock_holder(state_dir.lock_file("keeper"))
    if pid:
        return pid
    try:
        with open(state_dir.run_file("keeper")) as file:
            return int(json.load(file)["pid"])
    except (OSError, ValueError, KeyError):
        return 0


def wake_keeper(pid: int) -> None:
    """Have a keeper (0: none) look at once after what it has given up."""
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR2)


def stop(state_dir: StateDir, timeout_s: float = 60.0) -> None:
    """End an instance in order and wait for it. Raises `Rejected` if it is not running."""
    pid = keeper_pid(state_dir)
    if not pid:
        if any(lock_held(state_dir.lock_file(role)) for role in ("server", "launcher", "agent", "worker-0")):
            start_keeper(state_dir)  # daemons without a keeper: one that ends them in order
            pid = keeper_pid(state_dir)
        else:
            raise Rejected(f"{state_dir.path}: the instance is not running", code="not-running")
    _signal_and_wait(pid, signal.SIGTERM, timeout_s)


def restart(state_dir: StateDir, keeper: int, timeout_s: float = 20.0) -> None:
    """Have the keeper replace worker and agent, and wait until the new ones are there."""
    before = _pids(state_dir)
    os.kill(keeper, signal.SIGUSR1)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        now = _pids(state_dir)
        if len(now) >= len(before) and not set(now.values()) & set(before.values()):
            return
        time.sleep(0.02)
    raise Unavailable("the daemons have not been replaced in time", code="timeout", hint="fluxkv status")


def _pids(state_dir: StateDir) -> dict[str, int]:
    import json

    found = {}
    for name in sorted(os.listdir(state_dir.join("run"))):
        role, _, kind = name.partition(".")
        if kind == "json" and role.split("-")[0] in ("worker", "agent"):
            try:
                with open(state_dir.join("run", name)) as file:
                    found[role] = int(json.load(file)["pid"])
            except (OSError, ValueError, KeyError):
                continue
    return found


def _signal_and_wait(pid: int, signum: int, timeout_s: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signum)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise Unavailable(f"the keeper (pid {pid}) has not ended within {timeout_s:.0f} s", code="timeout")
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
    try:
        os.waitpid(pid, 0)  # it may be our child
    except ChildProcessError:
        pass
