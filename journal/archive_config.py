"""The tables [archive] and [retention] of a config: where history goes, how long the server keeps it. Pure.

    [archive]
    url = "/srv/archive"      # a directory, or a URL that fsspec knows; archive/ in the state directory if it is not said
    after = "10m"             # what is this old is archived ...
    every = "10m"             # ... this often

    [retention]               # without it nothing is removed from the server
    keep = "1d"               # archived history this old goes ...
    keep-commits = 1000       # ... but for the latest commits
    keep-output = "7d"        # what ended jobs printed
    unused-blobs = "1h"       # contents that nothing names any more
    keep-children = "1h"      # ended children go to the archive this much later, without these tables, too; "inf": never
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .duration import parse_duration
from .shown import shown

SHORTEST_UNUSED_S = 1_800.0  # submitters put again what they put longer ago than a third of it
_ARCHIVE = ("url", "after", "every")
_RETENTION = ("keep", "keep-commits", "keep-output", "unused-blobs", "keep-children")


class ArchiveRules(NamedTuple):
    """Seconds each. on: whether history is archived by itself. trims: whether what is archived leaves the server. A table with
    keep-children alone has neither: that is about children's journals, not about this one's."""

    on: bool = False
    trims: bool = False
    url: str = ""
    after_s: float = 600.0
    every_s: float = 600.0
    keep_s: float = 86_400.0
    keep_commits: int = 1_000
    keep_output_s: float = 604_800.0
    unused_blobs_s: float = 3_600.0
    keep_children_s: float = 3_600.0


def archive_rules(document: Mapping[str, Any]) -> ArchiveRules:
    """What a config says of archive and retention. Raises `Rejected` (bad-config) that names the key at fault."""
    default = ArchiveRules()
    archive, retention = document.get("archive"), document.get("retention")
    _only(archive, "archive", _ARCHIVE)
    _only(retention, "retention", _RETENTION)
    archive, ret = archive or {}, retention or {}
    url = archive.get("url", "")
    if not isinstance(url, str) or any(character in url for character in "\0\n"):
        raise _fault("archive.url", f"is {shown(url)}: a directory or a URL is wanted")
    if url.startswith("memory:"):
        raise _fault("archive.url", "names memory, which is gone with the process that writes there", "name a place that stays")
    if url and "://" not in url and not url.startswith(("/", "~")):
        raise _fault("archive.url", f"is {shown(url)}: the daemons need the whole path", "begin it with /")
    commits = ret.get("keep-commits", default.keep_commits)
    if type(commits) is not int or commits < 1:
        raise _fault("retention.keep-commits", f"is {shown(commits)}: a whole number from 1 on is wanted")
    trims = "retention" in document and set(ret) != {"keep-children"}
    return ArchiveRules(
        "archive" in document or trims, trims, url,
        _seconds(archive, "archive.after", default.after_s), _seconds(archive, "archive.every", default.every_s, least=1.0),
        _seconds(ret, "retention.keep", default.keep_s), commits,
        _seconds(ret, "retention.keep-output", default.keep_output_s),
        _seconds(ret, "retention.unused-blobs", default.unused_blobs_s, least=SHORTEST_UNUSED_S),
        _seconds(ret, "retention.keep-children", default.keep_children_s),
    )  # fmt: skip


def check(value: Any, path: str) -> None:
    """Raise `Rejected` that names the key at fault in one of the two tables."""
    archive_rules({path: value})


def _only(value: Any, path: str, keys: tuple[str, ...]) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise _fault(path, "must be a table")
    for key in value:
        if key not in keys:
            raise _fault(f"{path}.{key}", "is no key that is known here", f"[{path}] has {', '.join(keys)}")


def _seconds(table: Mapping[str, Any], path: str, without: float, least: float = 0.0) -> float:
    key = path.partition(".")[2]
    if key not in table:
        return without
    try:
        found = parse_duration(table[key])
    except Rejected as error:
        raise _fault(path, f"is not valid: {error}", error.hint) from None
    if found < least:
        raise _fault(path, f"is {shown(table[key])}: at least {least:g} s is wanted")
    return found


def _fault(path: str, why: str, hint: str = "") -> Rejected:
    return Rejected(f"config: {path} {why}", code="bad-config", hint=hint)
