"""What whoever submits knows of the instance's config: nothing, until the journal says that there is something to know.

An instance whose config asks nothing of a submitter has no mark `config`, and a submit guards it as absent: that costs nothing. Who
is told that the mark is there reads its version, and the one entry of that version holds the config; from then on exactly that
version is guarded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected
from ..kvs.port import Store

if TYPE_CHECKING:
    from ..journal.config import Rules
    from ..schedulers.resources import Pool
    from .ingest import Ingest

MARK = "config"


class SubmitRules:
    """version: of the config known, 0 for none. document: the config itself."""

    def __init__(self, store: Store) -> None:
        self.version = 0
        self.document: Mapping[str, Any] = {}
        self._rules: Rules | None = None
        self._ingest: Ingest | None = None
        self._pool: Pool | None = None  # of the inventory, once a plug-in has asked
        self._store = store

    def learn(self) -> None:
        """Read the config as it is now."""
        from ..journal.config import parse_rules

        (version,) = self._store.bumps([MARK])
        if version != self.version:
            self.document = config_at(self._store, version) if version else {}
            self._rules = parse_rules(self.document) if version else None
            self._ingest = self._plugins()
            self.version = version

    def _plugins(self) -> Ingest | None:
        if not self.document.get("ingest"):
            return None
        from .ingest import Ingest

        return Ingest(self.document)

    def honour(
        self, jobspecs: Sequence[dict[str, Any]], urgencies: Sequence[int] | None = None, flags: int = 0
    ) -> Sequence[dict[str, Any]]:
        """The jobs with the config's defaults, within its limits and let pass by its plug-ins, else `Rejected`: by the config
        and the inventory as they are now."""
        stale = self._pool is not None
        urgencies = [16] * len(jobspecs) if urgencies is None else urgencies
        try:
            return self._checked(jobspecs, urgencies, flags)
        except Rejected:
            before = self.version
            self.learn()
            if self.version == before and not stale:
                raise
        self._pool = None
        return self._checked(jobspecs, urgencies, flags)

    def _checked(
        self, jobspecs: Sequence[dict[str, Any]], urgencies: Sequence[int], flags: int
    ) -> Sequence[dict[str, Any]]:
        """As `_honoured`; a signal before the time limit is refused where there is none, neither the job's nor the config's."""
        found = self._honoured(jobspecs, urgencies, flags)
        for jobspec in found:
            system = jobspec["attributes"].get("system") or {}
            if not system.get("duration") and _asks_for_signal(system):
                raise Rejected(
                    "there is no time limit to signal before",
                    code="bad-shell-option",
                    hint="add -t, from Python duration",
                )
        return found

    def _honoured(
        self, jobspecs: Sequence[dict[str, Any]], urgencies: Sequence[int], flags: int
    ) -> Sequence[dict[str, Any]]:
        if self._ingest is not None and self._rules is not None:
            ingest, rules, each = self._ingest, self._rules, zip(jobspecs, urgencies, strict=True)
            return [self._let_pass(ingest, rules, jobspec, urgency, flags) for jobspec, urgency in each]
        if self._rules is not None:
            return [self._rules.honour(jobspec) for jobspec in jobspecs]
        for jobspec in jobspecs:
            queue = (jobspec["attributes"].get("system") or {}).get("queue")
            if queue:
                from ..journal.config import Rules

                Rules().queue_of(jobspec)
        return jobspecs

    def _let_pass(self, ingest: Ingest, rules: Rules, jobspec: dict[str, Any], urgency: int, flags: int) -> dict[str, Any]:
        from .ingest import Submission

        job = Submission(jobspec, os.getuid(), urgency, flags, infeasible=self._infeasible)
        job.jobspec = honoured = rules.honour(ingest.honour(job))
        ingest.validate(job)
        return honoured

    def _infeasible(self, jobspec: dict[str, Any]) -> str:
        """Why no node of this instance could ever run it, as the worker would say."""
        from ..schedulers.explain import explain
        from ..schedulers.request import compile_request
        from .plan_inputs import usable_pool

        if self._pool is None:
            from ..journal.log import Journal

            self._pool, _ = usable_pool(Journal(self._store).look())
        assert self._rules is not None
        try:
            request = compile_request(self._rules.constrained(jobspec, self._rules.queue_of(jobspec).name))
        except Rejected as error:
            return str(error)
        return "" if self._pool.satisfiable(request) is None else explain(request, self._pool).text


def config_at(store: Store, version: int) -> Mapping[str, Any]:
    """The config that was loaded last, at this version: from its entry, without a fold."""
    from ..journal import history
    from ..journal.wire import well_formed

    for entry in store.entries([version]):
        for name, _, _, context in well_formed(history.reader(store).commit(entry).events):
            if name == "config" and context:
                found: Mapping[str, Any] = context["config"]
                return found
    from ..journal.log import Journal

    return Journal(store).look().config  # it is in the archive, or set aside: the fold has what holds


def _asks_for_signal(system: Mapping[str, Any]) -> bool:
    """Whether a job says which signal it wants before its time limit; what is malformed the agent refuses by its name."""
    shell = system.get("shell")
    options = shell.get("options") if isinstance(shell, Mapping) else None
    return isinstance(options, Mapping) and isinstance(options.get("signal"), Mapping)
