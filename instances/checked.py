"""Which jobspecs a worker has found valid, so that thousands of alike are checked once. Pure.

Jobs of an ensemble differ in a variable and in words of their command, so by their hashes no two are alike. Where those are plain
texts they have nothing to do with the rest, and what is left of a jobspec without them stands for all such.
"""

from __future__ import annotations

from typing import Any

from ..journal.job import Job
from ..journal.wire import pack
from .plan_inputs import check_jobspec

MOST = 10_000  # that are remembered
# Together far below what a jobspec may have (`jobspec_check.MAX_BYTES`), whatever is counted for each value.
REST_BYTES, TEXT_BYTES, TEXTS = 8_192, 65_536, 4_096


class Checked:
    """Remembers them by hash, and by what is left of them without texts."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def check(self, job: Job) -> None:
        """As `plan_inputs.check_jobspec`."""
        if job.spec_hash in self._known:
            return
        rest = without_texts(job.jobspec)
        if rest and rest in self._known:
            return
        check_jobspec(job)
        if len(self._known) >= MOST:
            self._known.clear()
        self._known.update((job.spec_hash, rest) if rest else (job.spec_hash,))


def without_texts(jobspec: Any) -> bytes:
    """A jobspec without its command's words and its environment, packed; b"" where those are not texts that are valid in any
    jobspec."""
    try:
        (task,), attributes = jobspec["tasks"], jobspec["attributes"]
        system = attributes["system"]
        words, environment = task["command"], system.get("environment", {})
        if words.__class__ is not list or environment.__class__ is not dict or not words or "" in environment:
            return b""
        names = "".join(environment)
        texts = "".join(words) + "".join(environment.values())
        if "=" in names or "\0" in names or "\0" in texts or not names.isascii() or not texts.isascii():
            return b""
        if len(names) + len(texts) > TEXT_BYTES or len(words) + 2 * len(environment) > TEXTS:
            return b""
        bare = {**attributes, "system": {**system, "environment": None}}
        rest = pack({**jobspec, "tasks": [{**task, "command": None}], "attributes": bare})
    except (AttributeError, KeyError, TypeError, ValueError):
        return b""  # who checks it says what is wrong
    return rest if len(rest) <= REST_BYTES else b""
