"""What whoever submits knows of the instance's config: nothing, until the journal says that there is something to know.

An instance whose config asks nothing of a submitter has no mark `config`, and a submit guards it as absent: that costs nothing. Who
is told that the mark is there reads its version, and the one entry of that version holds the config; from then on exactly that
version is guarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected
from ..kvs.port import Store

if TYPE_CHECKING:
    from ..journal.config import Rules

MARK = "config"


class SubmitRules:
    """version: of the config known, 0 for none. document: the config itself."""

    def __init__(self, store: Store) -> None:
        self.version = 0
        self.document: Mapping[str, Any] = {}
        self._rules: Rules | None = None
        self._store = store

    def learn(self) -> None:
        """Read the config as it is now."""
        from ..journal.config import parse_rules

        (version,) = self._store.bumps([MARK])
        if version != self.version:
            self.document = self._read(version) if version else {}
            self._rules = parse_rules(self.document) if version else None
            self.version = version

    def _read(self, version: int) -> Mapping[str, Any]:
        from ..journal.log import Journal
        from ..journal.wire import read_commit

        for entry in self._store.entries([version]):
            for name, _, _, context in read_commit(entry).events:
                if name == "config" and context:
                    found: Mapping[str, Any] = context["config"]
                    return found
        return Journal(self._store).look().config  # the entry is in the archive: a snapshot has it

    def honour(self, jobspecs: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The jobs with the config's defaults and within its limits, else `Rejected`: by the config as it is now."""
        try:
            return self._honoured(jobspecs)
        except Rejected:
            before = self.version
            self.learn()
            if self.version == before:
                raise
        return self._honoured(jobspecs)

    def _honoured(self, jobspecs: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        if self._rules is not None:
            return [self._rules.honour(jobspec) for jobspec in jobspecs]
        for jobspec in jobspecs:
            queue = (jobspec["attributes"].get("system") or {}).get("queue")
            if queue:
                from ..journal.config import Rules

                Rules().queue_of(jobspec)
        return jobspecs
