"""Submitting: from commands and jobspecs to commits. Decides how jobs share commits and environments.

Needs no state: new ids are guarded as absent, and so are the marks of a closed queue and of a config that has something to say
about jobs; who meets that mark reads the config (`submit_rules`). The environment goes to a
blob that jobs share; a small `attributes.system.environment` left in a jobspec is what that job has beyond
it. Whether a job can ever run, the worker says, as an exception of the job.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

from ..journal.cron import on_behalf_of
from ..journal.ids import IdSource
from ..journal.wire import pack
from ..kvs.blobs import blob_name
from ..kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from ..kvs.port import Appended, Conflicted, Meta, StaleEpoch, Store
from ..kvs.uri import PASSWORD_VARIABLE, public
from .submit_rules import MARK, SubmitRules

if TYPE_CHECKING:
    from .submit_keys import Keys

CHUNK = 1000  # jobs per commit
# Options that `keywords` takes apart.
KEYWORDS = frozenset(("begin_time", "files", "retry", "retry_delay", "retry_on", "rlimit", "signal", "taskmap"))
CHUNK_BYTES = 8 << 20  # of jobspecs and new environments, about
ENVIRONMENTS = 10_000  # remembered as being in the store
PUT_AGAIN_S = 600.0  # what nothing names is removed from the store some time (at least half an hour) after it was put last
REMEMBERED = 100_000  # jobs, the newest, that can be waited for without a fold
TRIES = 20
PATIENCE_S = 10.0
Command = str | Sequence[str]
Jobspec = Mapping[str, Any]
Environment = Mapping[str, str | None]
Item = tuple[dict[str, Any], Environment, int, str]  # jobspec, environment, urgency, key ("": none)
Chunk = list[tuple[dict[str, Any], str, int, str]]


class Submitter:
    """Submits jobs to one instance. by: who the journal says did it. patience_s: for a server whose history nobody has
    taken up yet.

    submitted: id -> the version before its submit, of the newest, for waiting without a fold. last: the id of the entry that it
    has written last, "" for none.
    """

    def __init__(self, store: Store, by: str = "client", *, patience_s: float = PATIENCE_S) -> None:
        self.by = by
        self.patience_s = patience_s
        self.submitted: dict[int, int] = {}
        self.last = ""
        self._extra: dict[str, Any] = {"by": by}
        if cron := on_behalf_of(os.environ):
            self._extra["cron"] = cron
        self._store = store
        self._meta: Meta | None = None
        self._ids: IdSource | None = None
        self._blobs: dict[str, float] = {}  # environments -> when they were put last
        self.rules = SubmitRules(store)

    def submit(
        self, jobs: Iterable[tuple[dict[str, Any], Environment]], urgency: int, flags: int, keys: Iterable[str] = ()
    ) -> list[int]:
        """Checked jobspecs with their environments, about a thousand in a commit; their ids. keys: of the first of them."""
        items = ((*job, urgency, key) for job, key in zip(jobs, chain(keys, repeat("")), strict=False))
        return [id for ids in self.stream(items, flags) for id in ids]

    def stream(self, jobs: Iterable[Item], flags: int) -> Iterator[list[int]]:
        """The same for jobs as they come, each with its urgency and key; the ids of each commit once it is taken.

        A key that a job has already stands for that job, if it was asked for the same; else `Rejected` (code key-taken).
        A dependency may name another of these jobs, an earlier one: #3 by its number from 0, #-1 the one before.
        """
        before: list[int] = []
        chunk: Chunk = []
        used: set[str] = set()
        held: dict[str, bytes] = {}  # this chunk's environments
        last: Environment | None = None
        blob, data = "", b""
        size = 0
        for jobspec, env, urgency, key in jobs:
            if key:
                _use(key, used)
            if type(urgency) is not int or not 0 <= urgency <= 31:
                raise Rejected(f"urgency {urgency!r} is not in 0..31", code="bad-urgency")
            if env is not last:
                data = pack_environment(env)
                blob, last = blob_name(data), env
            if blob not in held:
                held[blob] = data
                size += 0 if blob in self._blobs else len(data)
            chunk.append((jobspec, blob, urgency, key))
            size += _weight(jobspec)
            if len(chunk) >= CHUNK or size > CHUNK_BYTES:
                ids = self._commit(chunk, held, flags, before)
                before += ids
                yield ids
                chunk, held, size = [], {}, 0
        if chunk:
            yield self._commit(chunk, held, flags, before)

    def _put(self, environments: dict[str, bytes]) -> None:
        """Have these in the store, and not about to leave it, right before the commit that names them (HAZARD 22)."""
        now = time.monotonic()
        due = {name: data for name, data in environments.items() if now - self._blobs.get(name, -PUT_AGAIN_S) >= PUT_AGAIN_S}
        if due:
            self._store.put_blobs(due)
            if len(self._blobs) >= ENVIRONMENTS:
                self._blobs.clear()
            self._blobs.update(dict.fromkeys(due, now))

    def _commit(
        self, chunk: Chunk, held: dict[str, bytes], flags: int, before: Sequence[int]
    ) -> list[int]:
        self._put(held)
        keep_files(self._store, (jobspec for jobspec, _, _, _ in chunk))
        from ..journal import decide

        keys = self._keys_of(chunk)

        meta = self._meta or self._store.meta()
        for _ in range(TRIES):
            self._meta = meta
            source = self._ids = self._ids or new_source(meta.origin_ms)
            ids = source.take(len(chunk))
            new, named = list(range(len(chunk))), None
            if keys is not None:
                for at, id in keys.known.items():
                    ids[at] = id
                new = [at for at in range(len(chunk)) if at not in keys.known]
                named = {number: (chunk[at][3], keys.things[at], keys.asked[at]) for number, at in enumerate(new) if chunk[at][3]}
                if not new:
                    return ids
            whole = _with_ids([jobspec for jobspec, *_ in chunk], before, ids)
            urgencies = [chunk[at][2] for at in new]
            honoured = self.rules.honour([whole[at] for at in new], urgencies, flags)
            jobs = list(zip([ids[at] for at in new], honoured, strict=True))
            envs = [chunk[at][1] for at in new]
            decision = decide.submit(jobs, envs, urgencies, os.getuid(), flags, time.time(), self.rules.version, named)
            answer = self._store.append(decide.make_append(meta, decision, meta.version, extra=self._extra))
            if isinstance(answer, Appended):
                self._remember([id for id, _ in jobs], answer.version - 1)
                self.last = answer.id
                return ids
            if isinstance(answer, Conflicted):
                if keys is not None and keys.look():  # somebody was quicker, or it was we, and the answer was lost
                    for at in (at for at, id in keys.known.items() if id == ids[at] and id not in self.submitted):
                        self._remember([ids[at]], keys.versions[at] - 1)
                    self._ids = None
                    continue
                closed = [thing for thing in answer.things if thing.startswith("closed/")]
                if MARK in answer.things:  # there is a config, or another one
                    self.rules.learn()
                    continue
                if closed:
                    raise self._closed(closed[0].partition("/")[2])
                self._ids = None  # somebody has drawn the same generator in the same millisecond
            elif not isinstance(answer, StaleEpoch):
                raise Corrupt(f"unexpected answer {answer}", code="protocol")
            newer = self._store.meta()
            deadline = time.monotonic() + self.patience_s  # the keeper is about to take up a restarted server's history
            while isinstance(answer, StaleEpoch) and newer.epoch == meta.epoch and time.monotonic() < deadline:
                time.sleep(0.02)
                newer = self._store.meta()
            if isinstance(answer, StaleEpoch) and newer.epoch == meta.epoch:
                raise Unavailable(
                    "the server was restarted and its history has not been taken up again",
                    code="epoch",
                    hint="fluxkv status shows whether the keeper is alive; fluxkv start --state-dir DIR brings it up",
                )
            meta = newer
        raise Conflict("new job ids keep colliding with others'", hint="try again")

    def _keys_of(self, chunk: Chunk) -> Keys | None:
        keys = [key for *_, key in chunk]
        if not any(keys):
            return None
        from .submit_keys import Keys

        found = Keys(self._store, os.getuid(), keys, [jobspec for jobspec, *_ in chunk])
        found.look()
        return found

    def _remember(self, ids: list[int], version: int) -> None:
        self.submitted.update(dict.fromkeys(ids, version))
        if len(self.submitted) > 2 * REMEMBERED:
            for id in list(islice(self.submitted, len(self.submitted) - REMEMBERED)):
                del self.submitted[id]

    def _closed(self, queue: str) -> Rejected:
        from ..journal.log import Journal

        found = Journal(self._store).look().queues.get(queue)
        reason = found.disable_reason if found is not None else ""
        return Rejected(
            f"queue {queue} does not accept jobs" + (f": {reason}" if reason else ""),
            code="queue-closed",
            hint=f"fluxkv queue enable {queue} opens it, or choose another with --queue",
        )


def _use(key: str, used: set[str]) -> None:
    from .submit_keys import check_key

    if check_key(key) in used:
        raise Rejected(
            f"--id {key}: more than one of these jobs would have it", code="key-taken", hint="put {cc} or {} into it"
        )
    used.add(key)


def _with_ids(jobspecs: list[dict[str, Any]], before: Sequence[int], ids: Sequence[int]) -> Sequence[dict[str, Any]]:
    """The jobspecs with the ids of those that others of them wait for."""
    if not any((one["attributes"].get("system") or {}).get("dependencies") for one in jobspecs):
        return jobspecs
    from ..journal.dependency import with_ids

    return with_ids(jobspecs, before, ids)


def _weight(jobspec: Jobspec) -> int:
    """About how many bytes it takes: what is usually small is not measured."""
    system = jobspec["attributes"].get("system") or {}
    if "files" in system or "user" in jobspec["attributes"]:
        return len(pack(jobspec))
    return sum(map(len, jobspec["tasks"][0]["command"]))


def pack_environment(env: Environment) -> bytes:
    """An environment as its blob holds it: msgpack of a map, bytes that are no UTF-8 by surrogate escapes.

    A variable whose value is None is left out, and so is one with a password to the server: the journal is no place for it.
    """
    from msgpack import packb

    kept = {key: value for key, value in env.items() if value is not None and not _tells(key, value)}
    packed: bytes = packb(kept, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _tells(name: str, value: str) -> bool:
    """Whether a variable gives a password away. Tasks have the instance's URI, with its password's file, from their agent."""
    if name == PASSWORD_VARIABLE:
        return True
    return name in ("FLUXKV_URI", "FLUX_URI", "FLUXKV_REDIS_URL") and public(value) != value


def prepare(
    job: Command | Jobspec, options: dict[str, Any], env: Environment
) -> tuple[dict[str, Any], Environment]:
    """(checked jobspec without environment, the environment it brought or `env`)."""
    if not isinstance(job, Mapping):
        return build_jobspec(job, **options), env
    from ..journal.jobspec import parse_jobspec
    from .shell_options import check_system

    if options:
        raise Rejected(
            f"{', '.join(sorted(options))}: not together with a jobspec",
            code="bad-option",
            hint="set it in the jobspec",
        )
    checked = parse_jobspec(job, general=True)
    attributes = dict(checked["attributes"])
    system = dict(attributes.get("system") or {})
    check_system(system)
    own = system.pop("environment", None)
    system.setdefault("cwd", os.getcwd())
    if "dependencies" in system:
        from ..journal.dependency import settle

        settle(system)
    attributes["system"] = system
    return {**checked, "attributes": attributes}, env if own is None else own


def complete(jobspec: dict[str, Any], env: Environment) -> dict[str, Any]:
    """A jobspec with its environment in it, and the limits that came with that where Flux has them: inverse of `prepare`."""
    from .rlimits import VARIABLE, from_text

    attributes = jobspec.get("attributes")
    system = attributes.get("system") or {} if isinstance(attributes, Mapping) else None
    if not isinstance(attributes, Mapping) or not isinstance(system, Mapping):
        return jobspec  # somebody wrote it by hand, and the worker has refused it
    system = dict(system)
    variables = {**env, **(system.get("environment") or {})}
    limits = variables.pop(VARIABLE, None)
    system["environment"] = variables
    if limits:
        shell = system.get("shell") or {}
        options = {"rlimit": from_text(limits), **(shell.get("options") or {})}
        system["shell"] = {**shell, "options": options}
    return {**jobspec, "attributes": {**attributes, "system": system}}


def build_jobspec(
    command: Command,
    *,
    duration: float | str = 0.0,
    output: str = "",
    error: str = "",
    input: str = "",
    label_io: bool = False,
    shell_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A checked jobspec without environment, from the options of `Instance.submit`.

    command: words, or one text for /bin/sh. duration: seconds, or a text such as "5m" (RFC 23). output,
    error, input: files, put under `shell.options` as Flux has them; templates such as {{id}} are filled in
    by the agent. options: those of `from_options`, and `keywords`.
    """
    from ..journal.duration import parse_duration
    from ..journal.jobspec_build import from_options

    shell: dict[str, Any] = {}
    for stream, path in (("output.stdout", output), ("output.stderr", error), ("input.stdin", input)):
        if path:
            shell[f"{stream}.type"] = "file"
            shell[f"{stream}.path"] = path
    if label_io:
        shell["output.stdout.label"] = True
        if error:
            shell["output.stderr.label"] = True
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else [os.fspath(word) for word in command]
    seconds = parse_duration(duration) if duration else 0.0
    options.setdefault("cwd", os.getcwd())
    if not KEYWORDS.isdisjoint(options):
        from .keywords import apply_keywords

        apply_keywords(options, shell)
        shell_options = {**shell, **(shell_options or {})}
    if shell_options:
        shell.update(shell_options)
    try:
        made = from_options(
            words, duration_s=0.0 if seconds == float("inf") else seconds, shell_options=shell, **options
        )
    except TypeError as problem:
        word = str(problem).rpartition("argument ")[2]
        raise Rejected(
            f"bad option {word}", code="bad-option", hint="help(fluxkv.Instance.submit) lists them"
        ) from None
    if shell_options or options.get("attributes"):
        from .shell_options import check_system

        check_system(made["attributes"]["system"])
    return made


def new_source(origin_ms: int) -> IdSource:
    """Where new job ids come from: a random generator of this instance's (RFC 19)."""
    generator = int.from_bytes(os.urandom(2), "big") & 0x3FFF
    return IdSource(origin_ms, generator, lambda: time.time_ns() // 1_000_000)


def keep_files(store: Store, jobspecs: Iterable[Jobspec]) -> None:
    """The contents that jobs name in their files are about to be named again: they stay, or come back from the archive."""
    files = [system["files"] for one in jobspecs if (system := (one.get("attributes") or {}).get("system") or {}).get("files")]
    if not files:
        return
    from ..journal.blob_refs import names_in
    from ..journal.history import History
    from ..journal.wire import pack

    missing = store.touch_blobs(sorted(names_in(pack(files))))
    found = zip(missing, History(store).blobs(missing), strict=True)
    for name, data in found:
        if data is not None:
            store.put_blobs({name: data})
