"""The errors every layer raises: a stable code, what happened, and what to do about it.

Four kinds, by what the caller does next: `Rejected` (mend the request), `Conflict` (decide again),
`Unavailable` (wait or bring something up), `Corrupt` (stop). Never raised for control flow inside one module.
"""

from __future__ import annotations


class FluxkvError(Exception):
    """Base of all errors a user may see. `str(error)` is one line: what, where, why.

    code: stable word for scripts, e.g. "bad-jobspec". hint: what to do, or "". exit_status: of a command.
    """

    exit_status = 1
    default_code = "error"

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.hint = hint


class Rejected(FluxkvError):
    """The request can never succeed as it is: mend it."""

    default_code = "rejected"


class Conflict(FluxkvError):
    """What the decision was based on has changed: decide again. `things` are the guards that had moved."""

    default_code = "conflict"

    def __init__(self, message: str, *, things: tuple[str, ...] = (), code: str = "", hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.things = things


class Unavailable(FluxkvError):
    """Something needed is not there now (server, instance, memory, disk): wait, or bring it up."""

    default_code = "unavailable"
    exit_status = 3


class Corrupt(FluxkvError):
    """Stored facts contradict each other: stop, and say so."""

    default_code = "corrupt"
    exit_status = 4
