"""Jobspecs that users bring: JSON lines for `submit -`, files for `job submit`. Decides how they are read, and which line is
blamed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import click

from ..instances.submission import prepare
from ..kvs.errors import Rejected
from .ensemble import Piece
from .environment import with_limits
from .options import urgency_of

MAX_LINE = 1 << 20
MAX_FILE = 1 << 27
# What may stand beside jobspecs: how they are submitted and followed, not what they are.
_BESIDE = frozenset(
    ("blobs", "debug", "flags", "jps", "label_io", "log", "log_stderr", "quiet", "show_progress", "timeout", "urgency",
     "wait", "wait_event", "watch")
)  # fmt: skip


def only_jobspecs(values: Mapping[str, Any]) -> None:
    """Refuse options that describe a job beside jobspecs that do; the user's settings do not count, nobody typed them."""
    typed = click.get_current_context().get_parameter_source
    given = [name for name in values if name not in _BESIDE and typed(name) == click.core.ParameterSource.COMMANDLINE]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise click.UsageError(f"{option} is not possible with jobspecs from standard input: set it in the jobspec")


def jobspec_pieces(path: str, values: Mapping[str, Any]) -> Iterator[Piece]:
    """The jobs of a file of JSON lines ("-": standard input). Raises click.UsageError that names the line."""
    urgency = urgency_of(values["urgency"])
    log = (values.get("log") or "", values.get("log_stderr") or "")
    env = with_limits(dict(os.environ))
    where = "standard input" if path == "-" else path
    with _open(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 2), b""), 1):
            if not line.strip():
                continue
            try:
                if len(line) > MAX_LINE:
                    raise Rejected(f"a jobspec has at most {MAX_LINE} bytes", code="bad-jobspec")
                jobspec, own = prepare(_decoded(line), {}, env)
            except (Rejected, ValueError, RecursionError) as error:
                hint = getattr(error, "hint", "")
                raise click.UsageError(f"{where}, line {number}: {error}" + (f" ({hint})" if hint else "")) from None
            yield Piece(jobspec, own, urgency, log)


def jobspec_of_file(path: str) -> tuple[dict[str, Any], Mapping[str, str | None]]:
    """(jobspec, environment) of one JSON or YAML file. Raises `Rejected`."""
    from ..journal.jobspec import parse_jobspec

    with _open(path) as file:
        text = file.read(MAX_LINE + 1)
    return prepare(parse_jobspec(text, general=True), {}, with_limits(dict(os.environ)))


def jobspecs_of(path: str) -> list[dict[str, Any]]:
    """The jobspecs of a file ("-": standard input): JSON lines, or one as JSON or YAML. Raises `Rejected`."""
    from ..journal.jobspec import parse_jobspec

    with _open(path) as file:
        text = file.read(MAX_FILE + 1)
    if len(text) > MAX_FILE:
        raise Rejected(f"{path}: is larger than {MAX_FILE} bytes", code="bad-jobspec")
    found = []
    for number, line in enumerate(lines := [line for line in text.splitlines() if line.strip()], 1):
        try:
            found.append(prepare(_decoded(line), {}, {})[0])
        except Rejected as error:
            if len(lines) > 1 and number == 1:  # JSON or YAML of several lines
                return [prepare(parse_jobspec(text, general=True), {}, {})[0]]
            raise Rejected(f"{path}, jobspec {number}: {error}", code=error.code, hint=error.hint) from None
    if not found:
        raise Rejected(f"{path}: there is no jobspec in it", code="bad-jobspec", hint="fluxkv submit --dry-run prints some")
    return found


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise Rejected(
            f"not JSON: {error}", code="bad-jobspec", hint="one jobspec a line, as fluxkv submit --dry-run prints it"
        ) from None
    if not isinstance(value, dict):
        raise Rejected("not a JSON object", code="bad-jobspec")
    return value


def _open(path: str) -> IO[bytes]:
    if path == "-":
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
