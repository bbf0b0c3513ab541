"""Entry of the daemons: `python -m fluxkv.instances.main ROLE --state-dir DIR [options]`. Not for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..kvs import failpoints
from ..kvs.errors import FluxkvError
from . import yielding
from .daemon import Log, guarded, leave
from .frame_room import with_room
from .pace import pace_of
from .paths import StateDir

MOVERS = ("worker", "agent", "launcher")  # what jobs pass through


def main(argv: list[str]) -> int:
    """Run one role until it ends; its exit status."""
    role, options = argv[0], dict(zip(argv[1::2], argv[2::2], strict=True))
    state_dir = StateDir(options["--state-dir"])
    if role == "keeper" and int(options.get("--ready-fd", "-1")) >= 0 and (words := _forked(state_dir)) is not None:
        return main(words)
    failpoints.arm(options.get("--role", role))
    settings = state_dir.read()
    if settings.get("yields") and role in MOVERS:
        yielding.begin()
    if role == "launcher":
        from .launcher import main as run_launcher

        pace = pace_of(settings)
        words = ["--spool", state_dir.spool, "--linger", str(pace.linger_s), "--batch", str(pace.batch_s)]
        return with_room(partial(run_launcher, words))
    name = options.get("--role", role)
    log = Log(called(name, settings), None, None)

    def body() -> None:
        if role == "keeper":
            from .keeper import main as run

            run(state_dir, log, int(options.get("--owner", "0")), int(options.get("--ready-fd", "-1")))
        elif role == "worker":
            from .run_worker import main as run_worker

            run_worker(state_dir, name, log)
        elif role == "agent":
            from .run_agent import main as run_agent

            run_agent(state_dir, name, log)
        elif role == "handover":
            from .run_handover import main as run_handover

            run_handover(state_dir, log)
        elif role == "archiver":
            from .run_archiver import main as run_archiver

            run_archiver(state_dir, log)
        else:
            raise SystemExit(f"unknown role {role}")

    return guarded(lambda: log, partial(with_room, body))


def _forked(state_dir: StateDir) -> list[str] | None:
    """In each of the processes that a keeper begins with, but its own: what that one is to do."""
    from . import prefork
    from .supervised import roles_of

    try:
        names = [role.name for role in roles_of(state_dir.read(), state_dir)]
    except FluxkvError:
        return None  # the keeper itself says what is wrong
    return prefork.prepare(names, state_dir)


def called(name: str, settings: Mapping[str, Any]) -> str:
    """What a daemon is called in the log that all nodes share: on a host that has joined, with that; in a child with its rank, but
    on the first, which leads."""
    if "@" in name:
        return name
    if settings.get("join"):
        return f"{name}@{settings['host']['name']}"
    return name if settings.get("lead", True) else f"{name}@rank{settings['ranks'][0]}"


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
