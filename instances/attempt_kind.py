"""What attempts that are alike have in common, worked out once. Pure."""

from __future__ import annotations

import sys
from typing import Any

from .wire import LIKE

OWN = frozenset(("key", "job", "tmpdir", "env_own", "held", LIKE))  # what each attempt of a kind says itself
ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_MORE = ("append", "label_files", "pty", "rlimits", "stderr", "stdin", "stdout", "task_files")


class Kind:
    """What an attempt's message says, but for whose it is. plain: one task that needs no more than a command and files of ours for
    its output. lends: those files may be any that are empty. ranks: task ranks that have spool files of their own, None where all
    share them. extra: variables of the only task. fence: 0 for none, else a version before which it was not ordered.
    late: it is bound to its CPUs only when it has begun (see `Spawner.start`)."""

    __slots__ = (
        "env", "exits", "extra", "fence", "grace_s", "group", "late", "lends", "limit_s", "many", "plain", "queued", "ranks",
        "tasks",
    )  # fmt: skip

    def __init__(self, spec: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError when the message is no attempt's."""
        self.tasks: list[list[Any]] = spec["tasks"]
        if not self.tasks or len({rank for rank, _, _, _ in self.tasks}) < len(self.tasks):
            raise ValueError("no tasks, or a rank twice")
        self.env: str = spec.get("env", "")
        self.group: str = spec.get("group", "")
        self.limit_s: float = spec.get("limit_s") or 0.0
        self.grace_s: float = spec.get("kill_grace_s", 5.0)
        self.exits, self.queued = bool(spec.get("first_exits")), bool(spec.get("queued"))
        self.fence = int(spec.get("fence") or 0)
        self.many = len(self.tasks) > 1
        self.extra = {} if self.many else encoded(self.tasks[0][3] or {})
        # An instance inside has daemons at once, which would not be bound.
        self.late = self.queued and not any(task[1][1:2] == ["start"] for task in self.tasks)
        each = bool(spec.get("per_task_output")) or (spec.get("stdin") == "fifo" and self.many)
        self.ranks: list[int] | None = [task[0] for task in self.tasks] if each else None
        self.plain = not (self.many or each or any(spec.get(name) for name in _MORE))
        theirs = bool(spec.get("stdout")) and bool(spec.get("stderr"))
        self.lends = not (spec.get("append") or spec.get("pty") or "task_files" in spec or theirs)


def encoded(variables: dict[str, str]) -> dict[bytes, bytes]:
    """As os.fsencode has it, in a third of the time."""
    return {name.encode(ENCODING, ERRORS): value.encode(ENCODING, ERRORS) for name, value in variables.items()}
