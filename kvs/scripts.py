"""The Lua scripts: reads them once, knows their hashes, calls them. Decides nothing; never retries a write.

A script a server does not know (NOSCRIPT) has not run, so sending its text is not a second try.
"""

from __future__ import annotations

import os
from typing import Any

from .hashes import sha1
from .resp import Connection, ReplyError

_FOLDER = os.path.join(os.path.dirname(__file__), "lua")


class Script:
    """One Lua file. `text` is its source, `sha` the name servers know it by."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        with open(os.path.join(_FOLDER, name + ".lua"), "rb") as file:
            self.text = file.read()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()

    def command(self, keys: list[str], arguments: list[Any]) -> list[Any]:
        """The EVALSHA command, to be put in a pipeline (call `load` before)."""
        return ["EVALSHA", self.sha, len(keys), *keys, *arguments]

    def load(self, connection: Connection) -> None:
        connection.call("SCRIPT", "LOAD", self.text)

    def call(self, connection: Connection, keys: list[str], arguments: list[Any]) -> Any:
        """Run it; raises what `connection.call` raises."""
        try:
            return connection.call("EVALSHA", self.sha, len(keys), *keys, *arguments)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return connection.call("EVAL", self.text, len(keys), *keys, *arguments)


_scripts: dict[str, Script] = {}


def script(name: str) -> Script:
    """The script of that name (file `lua/<name>.lua`), read at first use."""
    found = _scripts.get(name)
    if found is None:
        found = _scripts[name] = Script(name)
    return found
