"""Keys of submissions (--id): the same key names the same job, whoever asks again, however long ago that was.

A submit with a key guards `key/<hash>` as absent and bumps it, in the commit of the job: of two at once one is told that it is
there, reads the one entry its version names, and has that job's id. These guards are never pruned: a key is kept as long as
its instance. Decides when two submissions ask for the same; the environment, the urgency and the moment of a begin-time do
not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..kvs.errors import Rejected, Unavailable
from ..kvs.hashes import blake2b

if TYPE_CHECKING:
    from ..kvs.port import Store

MAX_LENGTH = 256
PREFIX = "key/"
CALL = "python_call"  # below attributes.user: where a function's result lies (`calls`), another place every day


def check_key(key: Any) -> str:
    """The key. Raises `Rejected` (code bad-key)."""
    if not isinstance(key, str) or not key or len(key) > MAX_LENGTH or not key.isprintable():
        raise Rejected(
            f"{str(key)[:40]!r} is no key of a job", code="bad-key", hint=f"1 to {MAX_LENGTH} characters that can be printed"
        )
    return key


def thing_of(key: str, userid: int) -> str:
    """The guard of a user's key."""
    return PREFIX + blake2b(f"{userid}/{key}".encode(errors="surrogatepass"), digest_size=10).hexdigest()


def asked(jobspec: Mapping[str, Any]) -> str:
    """What tells this submission from others: a hash of the jobspec as it was asked for, before the config's defaults."""
    attributes = dict(jobspec.get("attributes") or {})
    system = dict(attributes.get("system") or {})
    system.pop("environment", None)
    if "dependencies" in system:
        system["dependencies"] = [one for one in system["dependencies"] if one.get("scheme") != "begin-time"]
    if not system.get("dependencies"):
        system.pop("dependencies", None)
    if "files" in system:
        system["files"] = _without_times(system["files"])
    shell = system.get("shell") or {}
    stdin = ((shell.get("options") or {}).get("input") or {}).get("stdin") or {}
    if stdin.get("type") == "service":  # whether our standard input is a terminal says nothing about the job
        options = {name: value for name, value in shell["options"].items() if name != "input"}
        system["shell"] = {**shell, "options": options}
        if not options:
            del system["shell"]
    attributes["system"] = system
    if isinstance(attributes.get("user"), Mapping) and CALL in attributes["user"]:
        attributes["user"] = {name: value for name, value in attributes["user"].items() if name != CALL}
    text = json.dumps({**jobspec, "attributes": attributes}, sort_keys=True, default=repr)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=10).hexdigest()


def _without_times(files: Any) -> Any:
    if isinstance(files, Mapping):
        return {name: _without_times(one) for name, one in files.items() if name not in ("mtime", "ctime")}
    return [_without_times(one) for one in files] if isinstance(files, list | tuple) else files


def job_with(store: Store, key: str, userid: int) -> int:
    """The job that was submitted with a user's key, 0 if none was."""
    from ..journal.log import Journal

    (version,) = store.bumps([thing_of(key, userid)])
    for _, event in Journal(store).story([version]) if version else ():
        if event.name == "submit" and (event.context or {}).get("key") == key:
            return int(event.subject)
    return 0


class Keys:
    """The keys of one commit's jobs. known: index -> id of the job that had the key already; versions: index -> of its commit."""

    def __init__(self, store: Store, userid: int, keys: Sequence[str], jobspecs: Sequence[Mapping[str, Any]]) -> None:
        self.known: dict[int, int] = {}
        self.versions: dict[int, int] = {}
        self.asked = {at: asked(jobspecs[at]) for at, key in enumerate(keys) if key}
        self._store = store
        self._keys = keys
        self._index = {thing_of(keys[at], userid): at for at in self.asked}
        self.things = {at: thing for thing, at in self._index.items()}

    def look(self, things: Sequence[str] | None = None) -> bool:
        """Find the jobs that have these keys (None: all that are not known yet); whether there were any new ones.

        Raises `Rejected` (code key-taken) for one that was given to another job.
        """
        names = [thing for thing, at in self._index.items() if at not in self.known] if things is None else list(things)
        if not names:
            return False
        versions = dict(zip(names, self._store.bumps(names), strict=True))
        wanted = {thing: version for thing, version in versions.items() if version}
        if not wanted:
            return False
        found = self._jobs(sorted(set(wanted.values())))
        for thing in wanted:
            at = self._index[thing]
            job = found.get(self._keys[at])
            if job is None:
                raise Unavailable(
                    f"--id {self._keys[at]}: it was given to a job in commit {wanted[thing]}, which cannot be read",
                    code="no-history", hint="fluxkv journal verify",
                )  # fmt: skip
            id, was = job
            if was != self.asked[at]:
                raise Rejected(
                    f"--id {self._keys[at]}: job {f58(id)} was submitted with it, and asked for something else",
                    code="key-taken", hint=f"choose another key; fluxkv job info {f58(id)} jobspec shows what that job asked for",
                )  # fmt: skip
            self.known[at], self.versions[at] = id, wanted[thing]
        return True

    def _jobs(self, versions: Sequence[int]) -> dict[str, tuple[int, str]]:
        """Key -> (job, what it asked for), of the jobs submitted in these commits."""
        from ..journal.log import Journal

        found: dict[str, tuple[int, str]] = {}
        for _, event in Journal(self._store).story(versions):
            context = event.context or {}
            if event.name == "submit" and isinstance(event.subject, int) and isinstance(context.get("key"), str):
                found[context["key"]] = (event.subject, str(context.get("asked", "")))
        return found
