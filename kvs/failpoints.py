"""Named places where a test makes this process die, fail or dawdle. Reads one variable once at start; else does nothing.

`FLUXKV_FAILPOINT=[role/]name[:nth]:kill|error|delay[=seconds]`, several with commas: the nth time (1) that a process of this role
(any) passes the place, and with `kill` and `error` only then. `FLUXKV_FAILPOINT=@DIR`: what the file DIR/<role> says, which whoever
acts on it takes away first, so that the next process of the role is spared. A place costs one look at an empty table.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from .errors import Rejected

VARIABLE = "FLUXKV_FAILPOINT"
POINTS = {
    "append.before": "a commit has been decided, and is about to be sent",
    "append.after": "the server has answered, and nobody has read the answer",
    "snapshot.before": "a worker is about to write a snapshot",
    "snapshot.after": "it is written; the guards below it are not pruned",
    "launch.before": "an agent has read orders, its launcher has not heard of them",
    "launch.after": "its launcher has them; where the agent reads on is not noted",
    "ack.before": "reports are in the journal; agent and launcher still have them to say",
    "ack.after": "the agent's position is noted, and its launcher told to forget",
    "intent.before": "a launcher is about to note that it starts an attempt",
    "intent.after": "it is noted, and nothing has been started",
    "spawn.after": "its tasks run, their numbers are not noted",
    "fork.unmarked": "a task has been forked from its launcher, and does not bear its mark",
    "spool.before": "facts of attempts are about to be noted",
    "spool.after": "they are noted, and no agent has been told",
    "epoch.before": "a keeper has found a restarted server's history whole, and not taken it up",
    "epoch.after": "it has opened an epoch, and not said so in the journal",
    "witness.before": "a keeper is about to note the journal's end",
    "witness.after": "it has noted it",
    "handover.before": "a child's journal is about to be handed up",
    "handover.entries": "a batch of it has come",
    "handover.end": "all of it has come, and nobody sees it yet",
    "away.written": "an ended child is in the archive, and its parent does not know",
    "away.noted": "its parent knows, and it is read from the server still",
    "away.marked": "it is read from the archive, and on the server still",
    "away.inside": "what was inside it has left the server, and it has not",
    "away.back": "what was inside it is on the server again, and it is not",
    "handover.after": "it is there, and not marked here",
    "handdown.door": "a journal is on a child's own server, which can be found; the parent's has it still",
    "handdown.after": "it is there alone, and nobody has taken it up",
}


class _Armed:
    """What happens at a place."""

    __slots__ = ("action", "file", "left", "seconds")

    def __init__(self, action: str, left: int, seconds: float, file: str) -> None:
        self.action, self.left, self.seconds, self.file = action, left, seconds, file


def parse(text: str, role: str, file: str = "") -> dict[str, _Armed]:
    """Name -> what is armed there for this role. Raises ValueError for what it cannot read."""
    armed = {}
    for one in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        where, *rest = one.split(":")
        owner, _, name = where.rpartition("/")
        nth = int(rest.pop(0)) if len(rest) == 2 else 1
        action, _, seconds = (rest or [""])[0].partition("=")
        if name not in POINTS or action not in ("kill", "error", "delay") or len(rest) != 1 or nth < 1:
            raise ValueError(f"{VARIABLE}: {one!r}; [role/]name[:nth]:kill|error|delay[=seconds], names: {', '.join(POINTS)}")
        if owner in ("", role):
            armed[name] = _Armed(action, nth, float(seconds or 0.1), file)
    return armed


def arm(role: str) -> None:
    """Read the variable on behalf of a role: daemons call it when they begin, every process has done so with no role.

    Raises `Rejected` if it cannot be read: who tests a crash and mistypes it must not believe that it was survived.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return
    ARMED.clear()
    try:
        _read(text, role)
    except ValueError as error:
        raise Rejected(str(error), code="bad-failpoint", hint=f"unset {VARIABLE}, which is for tests of crashes") from None


def _read(text: str, role: str) -> None:
    if text.startswith("@"):
        path = os.path.join(text[1:], role)
        try:
            with open(path) as file:
                ARMED.update(parse(file.read(), role, path))
        except (FileNotFoundError, IsADirectoryError):
            return
    else:
        ARMED.update(parse(text, role))


def reach(name: str, error: type[Exception] = OSError) -> None:
    """A process is at this place. Raises `error` where that is armed. Call it only `if ARMED`."""
    armed = ARMED.get(name)
    if armed is None or armed.left <= 0:
        return
    armed.left -= 1
    if armed.left:
        return
    if armed.file:
        try:
            os.unlink(armed.file)
        except OSError:
            return  # another process of the role was here before
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "error":
        said = f"fail point {name}"
        raise OSError(errno.EIO, said) if error is OSError else error(said)
    armed.left = 1
    time.sleep(armed.seconds)


ARMED: dict[str, _Armed] = {}
arm("")
