"""The plug-ins at ingest that come with fluxkv. Each is as one of anybody else's would be: see `ingest`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..journal.duration import format_duration, parse_duration
from ..journal.jobspec_build import set_attribute
from ..journal.summary import summarize
from ..kvs.errors import Rejected
from .ingest import Submission


def feasibility(job: Submission) -> str | None:
    """Refuse at once what the worker would refuse: a job that this instance could never run (flux-core's feasibility)."""
    return job.infeasible(job.jobspec) or None


class RequireTimeLimit:
    """Each job needs a time limit. most: the longest, as "2h" (default: any)."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _only(settings, "most")
        self.most_s = parse_duration(settings["most"]) if "most" in settings else float("inf")

    def __call__(self, job: Submission) -> str | None:
        asked = float(job.system.get("duration") or 0.0)
        if not asked:
            return "a job needs a time limit here: add -t"
        if asked > self.most_s:
            return f"time limit {format_duration(asked)} is above {format_duration(self.most_s)}"
        return None


class _Most:
    """most: the largest number allowed (required)."""

    what = ""
    at = 0

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _only(settings, "most")
        most = settings.get("most")
        if type(most) is not int or most < 1:
            raise Rejected("needs the setting most, a number of at least 1", code="bad-config")
        self.most = most

    def __call__(self, job: Submission) -> str | None:
        asked = summarize(job.jobspec)[3][self.at]
        return f"{asked} {self.what} are more than the {self.most} allowed" if asked > self.most else None


class MaxTasks(_Most):
    """No job of more tasks than `most`."""

    what, at = "tasks", 1


class MaxCores(_Most):
    """No job of more cores than `most`."""

    what, at = "cores", 2


class RequireBank:
    """Each job names a bank. banks: those there are (default: any)."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _only(settings, "banks")
        self.banks = settings.get("banks")
        if self.banks is not None and not isinstance(self.banks, list | tuple):
            raise Rejected("its setting banks must be a list of names", code="bad-config")

    def __call__(self, job: Submission) -> str | None:
        bank = job.system.get("bank")
        if not bank:
            return "a job needs a bank here: add -B"
        if self.banks is not None and bank not in self.banks:
            return f"there is no bank {bank}; there are {', '.join(map(str, self.banks))}"
        return None


class Attributes:
    """Attributes for each job that does not set them: its settings, by dotted names as of --setattr."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.values = list(_flat(settings, ""))

    def __call__(self, job: Submission) -> None:
        for dotted, value in self.values:
            if not _has(job.jobspec["attributes"], dotted):
                set_attribute(job.jobspec, dotted, value)


def _flat(table: Mapping[str, Any], prefix: str) -> Any:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _has(attributes: Any, dotted: str) -> bool:
    name = dotted.removeprefix("attributes.")
    found = attributes
    for word in (name if name.startswith(("system.", "user.")) else f"system.{name}").split("."):
        if not isinstance(found, Mapping) or word not in found:
            return False
        found = found[word]
    return name.removeprefix("system.") != "duration" or bool(found)  # 0: no time limit was asked for


def _only(settings: Mapping[str, Any], *keys: str) -> None:
    for key in settings:
        if key not in keys:
            raise Rejected(f"has no setting {key}", code="bad-config", hint=f"there is {', '.join(keys)}")
