"""Keywords of `Instance.submit` that stand for several settings of a jobspec, as the command's options of the same names do.

Decides how Python values become shell options, attributes and dependencies; what those may be, is decided where they are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..kvs.errors import Rejected
from .shell_options import parse_warning

FILES_BYTES = 1 << 20  # all of a job's files, which travel in its jobspec


def apply_keywords(options: dict[str, Any], shell: dict[str, Any]) -> None:
    """Take `submission.KEYWORDS` out of the options and put what they mean into `shell` and the other options. Raises `Rejected`.

    begin_time: Unix seconds or a datetime. files: name -> contents (bytes), or the path of a file that is read now. rlimit:
    name -> value, or rules as of --rlimit. signal: "USR1@60s". taskmap: "cyclic:2". retry: how often at most, or a whole policy
    (see `journal.retry`); retry_on: causes, retry_delay: seconds or a duration, beside a number.
    """
    if (policy := _retry(*(options.pop(name, None) for name in ("retry", "retry_on", "retry_delay")))) is not None:
        options["attributes"] = {**(options.get("attributes") or {}), "system.retry": policy}
    if (signal := options.pop("signal", None)) is not None:
        shell["signal.signum"], shell["signal.timeleft"] = parse_warning(signal)
    if (rlimit := options.pop("rlimit", None)) is not None:
        shell["rlimit"] = _limits(rlimit)
    if (taskmap := options.pop("taskmap", None)) is not None:
        scheme, _, value = taskmap.partition(":") if isinstance(taskmap, str) else (taskmap, "", "")
        shell["taskmap"] = {"scheme": scheme, "value": value} if isinstance(scheme, str) else taskmap
    if (begin := options.pop("begin_time", None)) is not None:
        options["dependencies"] = [*_several(options.get("dependencies")), f"begin-time:{_moment(begin)!r}"]
    if (files := options.pop("files", None)) is not None:
        options["attributes"] = {**(options.get("attributes") or {}), "system.files": _files(files)}


def _retry(limit: Any, on: Any, delay: Any) -> dict[str, Any] | None:
    if limit is None:
        if on is None and delay is None:
            return None
        raise Rejected("retry_on and retry_delay need retry", code="bad-retry", hint="retry=3")
    from ..journal.retry import attribute, parse_retry

    if not isinstance(limit, Mapping):
        limit = {"limit": limit, **({"on": on} if on is not None else {}), **({"delay": delay} if delay is not None else {})}
    elif on is not None or delay is not None:
        raise Rejected("retry is a whole policy: retry_on and retry_delay belong into it", code="bad-retry")
    return attribute(parse_retry(limit))


def _several(given: Any) -> list[Any]:
    return [] if given is None else [given] if isinstance(given, str | Mapping) else list(given)


def _moment(begin: Any) -> float:
    try:
        return float(begin.timestamp() if hasattr(begin, "timestamp") else begin)
    except (TypeError, ValueError):
        raise Rejected(
            f"begin_time={begin!r}: it is neither Unix seconds nor a datetime", code="bad-option", hint="time.time() + 3600"
        ) from None


def _limits(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    from .rlimits import apply_rules, soft_limits

    return dict(apply_rules([given] if isinstance(given, str) else given, soft_limits()))


def _files(given: Mapping[str, Any]) -> dict[str, Any]:
    import time

    from ..journal.file_archive import RESERVED, check_path, make_file

    found: dict[str, Any] = {}
    left = FILES_BYTES
    for name, what in given.items():
        check_path(name)
        if name in RESERVED:
            raise Rejected(f"files: {name} is reserved", code="bad-file", hint="RFC 14; choose another name")
        content, mode, mtime = what, 0o600, int(time.time())
        if not isinstance(what, bytes):
            try:
                with open(what, "rb") as file:
                    about = os.fstat(file.fileno())
                    content, mode, mtime = file.read(left + 1), about.st_mode, int(about.st_mtime)
            except OSError as error:
                raise Rejected(f"files: {what}: {error.strerror}", code="bad-file") from None
        left -= len(content)
        if left < 0:
            raise Rejected(
                f"files: more than {FILES_BYTES >> 20} MiB in all", code="bad-file",
                hint="put them where all nodes can read them, or use fluxkv submit --add-file",
            )  # fmt: skip
        found[name] = make_file(content, mode, mtime, None)
    return found
