"""What is said of a program that could not be begun, and the exit status that a shell gives then."""

from __future__ import annotations

import click


def tell_not_begun(command: str, error: OSError) -> int:
    """Say why; the status. command: as it was named."""
    missing = isinstance(error, FileNotFoundError)
    why = _interpreter_missing(command) if missing else ""
    click.echo(f"fluxkv: {command}: {why or error.strerror}", err=True)
    return 127 if missing else 126


def _interpreter_missing(path: str) -> str:
    """Of a script that is there the kernel says that it is not where the program in its first line is missing; "" of others."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256).decode(errors="replace")
    except OSError:
        return ""
    return f"there is no {first[2:].strip()}, which its first line names" if first.startswith("#!") else ""
