"""--retry, --retry-on and --retry-delay: from what is typed to a retry policy. What that may be, `journal.retry` decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..kvs.errors import Rejected
from .options import bad


def retry_of(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The policy as a jobspec holds it, None if none is asked for. Raises click.BadParameter that names the option."""
    text, on, delay = (values.get(name) for name in ("retry", "retry_on", "retry_delay"))
    if text is None:
        typed = [name for name, value in (("retry_on", on), ("retry_delay", delay)) if value is not None and _typed(name)]
        if typed:
            option = "--" + typed[0].replace("_", "-")
            raise bad(option, "it says nothing without --retry: add --retry=N")
        return None
    from ..journal.retry import attribute, parse_retry

    if not text.isdecimal():
        raise bad("--retry", f"{text!r} is not a number")
    try:
        found = parse_retry({"limit": int(text), **({"on": on} if on is not None else {})})
    except Rejected as error:
        raise bad("--retry-on" if "retry.limit" not in str(error) else "--retry", error) from None
    try:
        return attribute(parse_retry({**attribute(found), **({"delay": delay} if delay is not None else {})}))
    except Rejected as error:
        raise bad("--retry-delay", error) from None


def _typed(name: str) -> bool:
    """Whether it was typed, and is not a setting of the user's for the jobs that ask for --retry."""
    context = click.get_current_context(silent=True)
    return context is None or context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE
