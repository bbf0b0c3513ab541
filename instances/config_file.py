"""An instance's config as files and options give it: TOML, JSON, and KEY=VALUE. Decides how they are read, not what is valid.

[[resource.config]] hosts = "node[0-3]", cores = "0-7", gpus = "0-1", memory_mb = 64000, properties = ["ssd"]
[resource] fake = true       nodes that only pretend to run jobs
[queue] policy = "fcfs"      how the instance plans; [policy.scheduler] says more
[queues.NAME], [policy], [ingest], [job-manager], [archive], [retention]: see `journal.config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..journal.sched_config import MATCH_FIRST, SchedulerRules
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.config import Rules


def read_document(path: str, settings: Iterable[str] = ()) -> dict[str, Any]:
    """The document of a file ("": none) and of KEY=VALUE settings on top of it, checked. Raises `Rejected` (bad-config)."""
    document = read_file(path) if path else {}
    for text in settings:
        set_value(document, text)
    return checked(document, path)


def checked(document: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The document, if an instance can have it. path: the file it is of, for errors. Raises `Rejected` (bad-config)."""
    from ..journal.config import parse_rules

    try:
        check_policies(parse_rules(document), document)
        if document.get("ingest"):
            _check_plugins(document)
    except Rejected as error:
        raise named(error, path) from None
    return document


def checked_child(document: dict[str, Any]) -> dict[str, Any]:
    """The document, if a child instance can have it. Raises `Rejected` (bad-config, child)."""
    checked(document)
    if "resource" in document:
        raise Rejected("config: [resource] does not go with a child instance: its resources are its job's", code="child")
    return document


def _check_plugins(document: dict[str, Any]) -> None:
    """Whoever submits would meet a plug-in that cannot be used."""
    from .ingest import Ingest

    try:
        Ingest(document)
    except Rejected as error:
        raise Rejected(f"config: {error}", code=error.code, hint=error.hint) from None


def check_policies(rules: Rules, document: Mapping[str, Any]) -> None:
    """Raise `Rejected` for a policy that is not installed, or does not take what it is given; it names the key. rules: of this
    document."""
    from ..schedulers.policy import load_policy

    seen: list[object] = []
    for queue in [rules.general, *rules.queues.values()]:
        if queue.scheduler in seen or not (queue.scheduler.policy or queue.scheduler.keywords):
            continue
        seen.append(queue.scheduler)
        key = "policy.scheduler" if queue is rules.general else f"queues.{queue.name}.policy.scheduler"
        if queue is rules.general and queue.scheduler == SchedulerRules((document.get("queue") or {}).get("policy", "")):
            key = "queue.policy"  # all that is said of it
        try:
            load_policy(queue.scheduler.named({}), queue.scheduler.keywords)
        except Rejected as error:
            raise Rejected(f"config: {key}: {error}", code=error.code, hint=error.hint) from None
    if rules.match_policy != MATCH_FIRST:
        from ..schedulers.match_policy import policy_of

        try:
            policy_of(rules.match_policy)
        except Rejected as error:
            raise Rejected(f"config: policy.scheduler.match-policy: {error}", code=error.code, hint=error.hint) from None


def named(error: Rejected, path: str) -> Rejected:
    """The error of a document, saying which file it is of."""
    text = str(error)
    if path and text.startswith("config: "):
        text = f"config {path}: {text.removeprefix('config: ')}"
    return Rejected(text, code=error.code, hint=error.hint)


def read_file(path: str) -> dict[str, Any]:
    """The document of a file: JSON if its name says so, else TOML. Raises `Rejected`."""
    if not path.endswith(".json"):
        return read_toml(path)
    try:
        with open(path, "rb") as file:
            return from_json(file.read(), path)
    except OSError as error:
        raise Rejected(f"config {path}: {error.strerror}", code="bad-config") from None


def from_json(text: str | bytes, where: str) -> dict[str, Any]:
    """The document in a JSON text. where: for errors. Raises `Rejected`."""
    import json

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"config {where}: not JSON: {error}", code="bad-config") from None
    if not isinstance(document, dict):
        raise Rejected(f"config {where}: it must be an object", code="bad-config")
    return document


def from_toml(text: str, where: str) -> dict[str, Any]:
    """The document in a TOML text. where: for errors. Raises `Rejected`."""
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"config {where}: {error}", code="bad-config", hint="it must be TOML") from None


def read_toml(path: str) -> dict[str, Any]:
    """A TOML file as a document. Raises `Rejected` with the place of the fault."""
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise Rejected(f"config {path}: {error.strerror}", code="bad-config") from None
    except (ValueError, RecursionError) as error:  # of the decoder, of bytes that are no UTF-8, of a number too long
        raise Rejected(f"config {path}: {error}", code="bad-config", hint="it must be TOML") from None


def set_value(document: dict[str, Any], text: str) -> None:
    """Put one "KEY=VALUE" into a document. KEY: words joined by dots; VALUE: as TOML has it, else a text."""
    key, given, value = text.partition("=")
    words = key.strip().split(".")
    if not given or not all(words):
        raise Rejected(f"bad setting {text[:60]!r}", code="bad-config", hint="write KEY=VALUE, as policy.limits.duration=1h")
    target: Any = document
    for at, word in enumerate(words[:-1]):
        target = target.setdefault(word, {})
        if not isinstance(target, dict):
            raise Rejected(f"config: {'.'.join(words[: at + 1])} is no table, so {key} cannot be set", code="bad-config")
    target[words[-1]] = toml_value(value.strip())


def toml_value(text: str) -> Any:
    """What a text is as TOML: a number, true, a list, a quoted text; itself where TOML makes nothing of it."""
    import tomllib

    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # a number of thousands of digits is no TOMLDecodeError
        return text
