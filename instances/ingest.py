"""Plug-ins at ingest: what an instance's config asks of each job before it is taken. Decides how they are found, called and blamed.

A plug-in is an entry point in the group `fluxkv.validators` or `fluxkv.defaults`: a function of a `Submission`, or a class made
with its settings whose instances are such functions. A validator returns None, or why it refuses the job (or raises `Rejected`);
a default changes `jobspec` in place, or returns another. They run in the process that submits, defaults first, each kind in the
order of the config; validators run once more in the worker, since anybody may append to the journal: so they must be quick, and
say the same there. One that fails refuses the job; every refusal names its plug-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ..journal.ingest_config import KINDS, plugins_of
from ..kvs.errors import Rejected

NOVALIDATE = 8  # a job's flag (flux-core): the instance's owner wants no validator to look at it

# The built-in ones are found without reading the metadata of every installed package.
BUILT_IN = {
    "defaults": {"attributes": "Attributes"},
    "validators": {
        "feasibility": "feasibility", "max-cores": "MaxCores", "max-tasks": "MaxTasks", "require-bank": "RequireBank",
        "require-time-limit": "RequireTimeLimit",
    },
}  # fmt: skip
Plugin = Callable[["Submission"], Any]


@dataclass(slots=True)
class Submission:
    """A job as a plug-in sees it. jobspec: checked (RFC 25), without environment, the plug-in's own copy.

    settings: of the plug-in, from the config. infeasible: why the instance could never run the job, "" if it could.
    """

    jobspec: dict[str, Any]
    userid: int
    urgency: int = 16
    flags: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    infeasible: Callable[[dict[str, Any]], str] = lambda jobspec: ""

    @property
    def system(self) -> dict[str, Any]:
        """`attributes.system` of the jobspec."""
        found: dict[str, Any] = self.jobspec["attributes"].setdefault("system", {})
        return found


class Ingest:
    """The plug-ins of one config."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises `Rejected` for one that is not installed, does not load, or does not like its settings."""
        table = document.get("ingest") or {}
        self._plugins: dict[str, list[tuple[str, Mapping[str, Any], Plugin]]] = {
            kind: [(name, settings, _load(kind, name, settings)) for name, settings in plugins_of(table, kind)] for kind in KINDS
        }

    def honour(self, job: Submission) -> dict[str, Any]:
        """The jobspec with the defaults of the plug-ins. Raises `Rejected` that names the plug-in at fault."""
        if not self._plugins["defaults"]:
            return job.jobspec
        job.jobspec = deepcopy(job.jobspec)
        for name, settings, plugin in self._plugins["defaults"]:
            job.settings = settings
            made = _call(f"default {name}", plugin, job)
            if made is not None:
                job.jobspec = made
            _check(name, job)
        return job.jobspec

    def validate(self, job: Submission) -> None:
        """Raise `Rejected` that names the first plug-in that refuses the job, and why."""
        asked = self._plugins["validators"]
        if not asked or job.flags & NOVALIDATE:
            return
        job.jobspec = deepcopy(job.jobspec)
        for name, settings, plugin in asked:
            job.settings = settings
            why = _call(f"validator {name}", plugin, job)
            if why:
                raise Rejected(f"validator {name}: {why}", code="refused")


def _call(what: str, plugin: Plugin, job: Submission) -> Any:
    try:
        return plugin(job)
    except Rejected as error:
        raise Rejected(f"{what}: {error}", code="refused", hint=error.hint) from None
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way; whose fault it is must be in the message
        raise Rejected(f"{what} failed: {type(error).__name__}: {error}", code="plugin-failed") from error


def _check(name: str, job: Submission) -> None:
    """Refuse what a default made of a jobspec if it is none any more."""
    from ..journal.dependency import settle
    from ..journal.jobspec_check import check, check_plain
    from .shell_options import check_system

    try:
        check_plain(job.jobspec)
        check(job.jobspec, general=True)
        check_system(job.system)
        settle(job.system)
    except (Rejected, LookupError, TypeError, AttributeError) as error:
        raise Rejected(f"default {name} failed: it made a jobspec that is not valid: {error}", code="plugin-failed") from None


def _load(kind: str, name: str, settings: Mapping[str, Any]) -> Plugin:
    what = f"{kind.removesuffix('s')} {name}"
    built_in = BUILT_IN[kind].get(name)
    try:
        if built_in is not None:
            from . import ingest_plugins

            found = getattr(ingest_plugins, built_in)
        else:
            found = _installed(kind, name, what)
        plugin: Plugin = found(settings) if isinstance(found, type) else found
    except Rejected as error:
        raise Rejected(f"{what}: {error}", code=error.code, hint=error.hint) from None
    except (Exception, SystemExit) as error:
        raise Rejected(f"{what} does not load: {type(error).__name__}: {error}", code="bad-plugin") from error
    if not callable(plugin):
        raise Rejected(f"{what} cannot be called", code="bad-plugin", hint="an entry point names a function, or a class of such")
    return plugin


def _installed(kind: str, name: str, what: str) -> Any:
    from ..schedulers.plugins import names_of, point_of

    point = point_of(f"fluxkv.{kind}", name)
    if point is not None:
        return point.load()
    known = names_of(f"fluxkv.{kind}", BUILT_IN[kind])
    raise Rejected("is not installed here", code="no-such-plugin", hint=f"there are {', '.join(known)}")
