"""Jobspecs that differ only in texts, as of --cc and bulksubmit: built and checked once, then copied with the texts filled in.

Decides which options may be filled in afterwards; what is read as a number or a list makes a jobspec of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .jobspecs import jobspec_of

Fill = Callable[[str], str]
FREE = frozenset(("job_name", "input", "output", "error"))  # they stand in the jobspec as they are typed
OTHER = frozenset(("cc", "bcc", "env", "urgency", "flags", "uri", "blobs", "log", "log_stderr", "wait_event", "timeout", "key"))
MODELS = 1024
SPLIT = "\x1e"  # a word that becomes several has this between them


class Stencil:
    """values: the options, as texts. overlay: variables of each job's own. varies: whether a text is to be filled in."""

    def __init__(
        self, values: Mapping[str, Any], words: Sequence[str], overlay: Mapping[str, str], varies: Callable[[str], bool]
    ) -> None:
        self._values = {**values, "overlay": overlay}
        self._words = words
        free = [values.get(name) for name in FREE]
        self._raw = {text for text in (*words, *overlay.values(), *free) if text and varies(text)}
        self.varying = [name for name, value in values.items() if name not in OTHER and _any(value, varies)]
        self._read = [name for name in self.varying if name not in FREE]
        self._models: dict[tuple[Any, ...], tuple[dict[str, Any], Any]] = {}

    def cut(self, fill: Fill) -> dict[str, Any]:
        """One job's jobspec. Raises as `jobspec_of` does."""
        key = tuple(filled(self._values[name], fill) for name in self._read)
        model = self._models.get(key)
        if model is None:
            if len(self._models) >= MODELS:
                self._models.clear()
            jobspec = jobspec_of({**self._values, **dict(zip(self._read, key, strict=True))}, self._words)
            model = self._models[key] = jobspec, _holes(_places(jobspec), self._raw.__contains__)
        made = model[0] if model[1] is None else _copy(model[0], model[1], fill)
        words = made["tasks"][0]["command"]
        if any(SPLIT in word for word in words):
            task = {**made["tasks"][0], "command": [part for word in words for part in word.split(SPLIT)]}
            made = {**made, "tasks": [task]}
        return made


def filled(value: Any, fill: Fill) -> Any:
    """A text or each of several, filled in; several as a tuple."""
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, tuple | list):
        return tuple([fill(one) for one in value])
    return value


def _any(value: Any, varies: Callable[[str], bool]) -> bool:
    return varies(value) if isinstance(value, str) else isinstance(value, tuple | list) and any(map(varies, value))


def _holes(value: Any, varies: Callable[[str], bool]) -> Any:
    """Where texts to be filled in stand: True for one, key -> holes of a container, None if there are none."""
    if isinstance(value, str):
        return varies(value) or None
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found = {key: holes for key, one in pairs if (holes := _holes(one, varies)) is not None}
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
