"""--dependency and --begin-time: from what is typed to RFC 26 objects. What a dependency may say, `journal.dependency` decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..kvs.errors import Rejected
from .options import bad


def dependencies_of(uris: Iterable[str], begin_time: str | None) -> list[dict[str, Any]]:
    """The dependencies of a jobspec. Raises click.BadParameter that names the option."""
    from ..journal.dependency import normalise

    found = []
    for uri in uris:
        try:
            found += normalise(uri)
        except Rejected as error:
            raise bad("--dependency", error) from None
    if begin_time:
        import time

        from .when import parse_when

        try:
            found += normalise(f"begin-time:{parse_when(begin_time, time.time())!r}")
        except Rejected as error:
            raise bad("--begin-time", error) from None
    return found


def check_alone(jobspecs: Iterable[dict[str, Any]]) -> None:
    """Raise `Rejected` if one, submitted by itself, names another job of its submission (#-1)."""
    for jobspec in jobspecs:
        asked = jobspec["attributes"]["system"].get("dependencies")
        if asked:
            from ..journal.dependency import read

            read(asked)
