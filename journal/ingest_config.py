"""The [ingest] table of a config: which plug-ins look at each job that is submitted, in which order, with which settings. Pure.

    [ingest.defaults]                     # they may change a jobspec
    plugins = ["attributes"]
    attributes = { bank = "physics" }     # settings of a plug-in, under its name

    [ingest.validators]                   # they may refuse one
    plugins = ["require-time-limit", "max-tasks"]
    max-tasks = { most = 128 }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvs.errors import Rejected
from .shown import shown

KINDS = ("defaults", "validators")


def plugins_of(table: Any, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, settings) of each plug-in of a kind that an [ingest] table names, in order. Raises `Rejected` (bad-config)."""
    check(table, "ingest")
    asked = table.get(kind, {})
    return [(name, asked.get(name, {})) for name in asked.get("plugins", ())]


def check(table: Any, path: str) -> None:
    """Raise `Rejected` that names the key at fault."""
    if not isinstance(table, Mapping):
        raise _fault(path, "must be a table")
    for kind, asked in table.items():
        where = f"{path}.{kind}"
        if kind not in KINDS:
            raise _fault(where, "is no key that is known here", f"[{path}] has {', '.join(KINDS)}")
        if not isinstance(asked, Mapping):
            raise _fault(where, "must be a table")
        names = asked.get("plugins", [])
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise _fault(f"{where}.plugins", f"is {shown(names)}: a list of names is wanted")
        if len(set(names)) < len(names):
            raise _fault(f"{where}.plugins", "names one twice")
        for name, settings in asked.items():
            if name == "plugins":
                continue
            if name not in names:
                raise _fault(f"{where}.{name}", "has settings, but plugins does not name it")
            if not isinstance(settings, Mapping):
                raise _fault(f"{where}.{name}", "must be a table of settings")


def _fault(path: str, why: str, hint: str = "") -> Rejected:
    return Rejected(f"config: {path} {why}", code="bad-config", hint=hint)
