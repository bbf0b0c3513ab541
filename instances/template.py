"""A jobspec whose texts are filled in for each of many jobs: built and checked once, then copied. Pure.

Decides where texts may be filled in afterwards: where they stand as they were typed. What is read as a number is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Fill = Callable[[str], str]
SPLIT = "\x1e"  # a word that becomes several has this between them


class Template:
    """jobspec: checked, and never changed. texts: those in it that are to be filled in."""

    def __init__(self, jobspec: dict[str, Any], texts: Iterable[str]) -> None:
        self.jobspec = jobspec
        self._holes = _find(_places(jobspec), frozenset(texts))

    def cut(self, fill: Fill) -> dict[str, Any]:
        """One job's jobspec; the template itself where nothing is to be filled in."""
        made: dict[str, Any] = self.jobspec if self._holes is None else _copy(self.jobspec, self._holes, fill)
        words = made["tasks"][0]["command"]
        if any(SPLIT in word for word in words):
            task = {**made["tasks"][0], "command": [part for word in words for part in word.split(SPLIT)]}
            made = {**made, "tasks": [task]}
        return made


def fill(text: str, number: str) -> str:
    """Put a copy's number in the place of {cc} (or {{cc}})."""
    return text.replace("{{cc}}", number).replace("{cc}", number) if "{cc}" in text else text


def texts_in(jobspec: dict[str, Any], varies: Callable[[str], bool]) -> list[str]:
    """The texts in a jobspec that may be filled in and are to be."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, str):
            if varies(value):
                found.append(value)
        elif isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                look(one)

    look(_places(jobspec))
    return found


def _find(value: Any, texts: frozenset[str]) -> Any:
    """Where texts to be filled in stand: True for one, key -> holes of a container, None if there are none."""
    if isinstance(value, str):
        return value in texts or None
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found = {key: holes for key, one in pairs if (holes := _find(one, texts)) is not None}
        return found or None
    return None


def _places(jobspec: dict[str, Any]) -> dict[str, Any]:
    """The parts of a jobspec where texts stand as they were typed; elsewhere they have been read, and filled in before."""
    system = jobspec["attributes"]["system"]
    options = (system.get("shell") or {}).get("options") or {}
    streams = {name: options[name] for name in ("input", "output") if name in options}
    parts = {"job": system.get("job"), "environment": system.get("environment"), "shell": {"options": streams}}
    return {"tasks": jobspec["tasks"], "attributes": {"system": parts}}


def _copy(value: Any, holes: Any, fill: Fill) -> Any:
    if holes is True:
        return fill(value)
    new = value.copy()
    for key, inner in holes.items():
        new[key] = _copy(value[key], inner, fill)
    return new
