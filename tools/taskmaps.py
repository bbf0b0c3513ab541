"""--taskmap on the command line: SCHEME[:VALUE] as the shell option. Decides that a hostfile is read here, where it is."""

from __future__ import annotations

from typing import Any

from ..instances.layout import taskmap_of
from ..journal import hostlist
from ..kvs.errors import Rejected
from .options import bad


def taskmap_option(text: str) -> dict[str, Any]:
    """{"scheme", "value"}, and "hosts" of a hostfile. Raises click.BadParameter."""
    scheme, _, value = text.partition(":")
    made: dict[str, Any] = {"scheme": scheme, "value": value}
    try:
        if scheme == "hostfile":
            made["hosts"] = _hosts(value)
        taskmap_of({"taskmap": made})
    except Rejected as error:
        raise bad("--taskmap", error) from None
    except OSError as error:
        raise bad("--taskmap", f"{value}: {error.strerror}") from None
    return made


def _hosts(path: str) -> list[str]:
    """Host names, one or a hostlist on each line."""
    found: list[str] = []
    with open(path, errors="replace") as file:
        for line in file:
            if line.strip() and not line.lstrip().startswith("#"):
                found += hostlist.expand(line.strip())
    if not found:
        raise Rejected(f"{path} names no host", code="bad-taskmap")
    return found
