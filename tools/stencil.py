"""Jobspecs that differ only in texts, as of --cc and bulksubmit: built and checked once, then copied with the texts filled in.

Decides which options may be filled in afterwards (`template` does it); what is read as a number makes a jobspec of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..instances.template import Fill, Template
from .jobspecs import jobspec_of

FREE = frozenset(("job_name", "input", "output", "error"))  # they stand in the jobspec as they are typed
OTHER = frozenset(("cc", "bcc", "env", "urgency", "flags", "uri", "blobs", "log", "log_stderr", "wait_event", "timeout", "key"))
MODELS = 1024


class Stencil:
    """values: the options, as texts. overlay: variables of each job's own. varies: whether a text is to be filled in."""

    def __init__(
        self, values: Mapping[str, Any], words: Sequence[str], overlay: Mapping[str, str], varies: Callable[[str], bool]
    ) -> None:
        self._values = {**values, "overlay": overlay}
        self._words = words
        free = [values.get(name) for name in FREE]
        self.texts = {text for text in (*words, *overlay.values(), *free) if text and varies(text)}
        self.varying = [name for name, value in values.items() if name not in OTHER and _any(value, varies)]
        self.read = [name for name in self.varying if name not in FREE]
        self._models: dict[tuple[Any, ...], Template] = {}

    def cut(self, fill: Fill) -> dict[str, Any]:
        """One job's jobspec. Raises as `jobspec_of` does."""
        return self.template(fill).cut(fill)

    def template(self, fill: Fill) -> Template:
        """What jobs have in common whose options, those that are read, are the same."""
        key = tuple(filled(self._values[name], fill) for name in self.read)
        model = self._models.get(key)
        if model is None:
            if len(self._models) >= MODELS:
                self._models.clear()
            jobspec = jobspec_of({**self._values, **dict(zip(self.read, key, strict=True))}, self._words)
            model = self._models[key] = Template(jobspec, self.texts)
        return model


def filled(value: Any, fill: Fill) -> Any:
    """A text or each of several, filled in; several as a tuple."""
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, tuple | list):
        return tuple([fill(one) for one in value])
    return value


def _any(value: Any, varies: Callable[[str], bool]) -> bool:
    return varies(value) if isinstance(value, str) else isinstance(value, tuple | list) and any(map(varies, value))
