"""Where job paths on a command line are taken: `ƒA/ƒB` wherever a job id may stand, `--instance PATH` before a command.

Each command gets a plain id, and the URI of the instance that has it: no command knows of paths. Which parameters are job ids
`params.kind_of` says, as for completion. One command acts on one instance.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..instances.job_path import JobPath

PATH = "fluxkv.path"  # in the context's meta: the way from the instance that would be spoken to
# They look at a state directory themselves, which is one instance's.
_DIRECTORY = ("stop", "restart", "uri", "status", "doctor", "dmesg", "ops adopt", "agent", "worker", "start")

_OF_WORDS = ("job id",)  # it writes paths in another form, and speaks to no instance

_OF_JOBS = "jobs|job|explain|cancel|resubmit|requeue|update|queue|resource list|inspect"  # commands that hints name
_NO_SUCH_JOB = "fluxkv jobs -a lists them"  # the hint where a job is not there
_way: list[str] = []  # where this command line has led
_earlier: list[str] = []  # the attempt before, where that was an instance that was begun again

_PROGRAMS = ("submit", "run", "start", "alloc", "proxy", "ensemble submit", "ensemble run")  # whose first word is a program's
_LIVING = ("requeue", "resize")  # what these do, only a running instance can
_NEW_WORK = ("submit", "run", "bulksubmit", "batch", "alloc", "resubmit", "job submit", "cron interval", "cron event", "cron at",
             "cron tab")  # fmt: skip


class ActingContext(click.Context):
    """The context of each command: job paths are resolved just before it is called."""

    def invoke(self, callback: Any, /, *args: Any, **kwargs: Any) -> Any:
        if callback is self.command.callback and not args and not isinstance(self.command, click.Group):
            named = any(_has_slash(kwargs.get(str(param.name))) for param in self.command.params)
            refuse_empty(self, kwargs)
            if PATH in self.meta or (named and self.command_path.partition(" ")[2] not in _OF_WORDS):
                kwargs = aimed(self, kwargs)
        return super().invoke(callback, *args, **kwargs)


def refuse_empty(context: click.Context, given: dict[str, Any]) -> None:
    """An empty word where a job, an instance or a program is named is a script's empty variable; it does not mean all, or the
    usual one. Raises `Rejected`, click.UsageError."""
    for name in ("uri", "state_dir"):
        if given.get(name) == "":
            option = "--" + name.replace("_", "-")
            raise Rejected(f"{option}: an empty word names no instance", code="bad-option", hint="leave it out for the usual one")
    command = context.command_path.partition(" ")[2]
    if command in _PROGRAMS and (given.get("words") or given.get("command") or ("-",))[0] == "":
        raise click.UsageError("the command to run is an empty word", context)
    for param in context.command.params:
        if isinstance(param, click.Argument) and given.get(str(param.name)) in ("", ("",)):
            from ..instances.job_path import parse_path
            from ..journal.ids import parse_id
            from .params import child_instances, job_ids, jobs_and_nodes, kind_of

            kind = kind_of(command, param)
            if kind in (job_ids, jobs_and_nodes, child_instances):
                (parse_path if kind is child_instances else parse_id)("")


def _has_slash(value: Any) -> bool:
    return "/" in value if isinstance(value, str) else isinstance(value, tuple) and any(map(_has_slash, value))


def aimed(context: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """A command's arguments, with plain ids and the instance that they are in. Raises `Rejected`, `Unavailable`."""
    given, path = _plain(context, given)
    outer: JobPath | None = context.meta.get(PATH)
    if outer is not None:
        path = outer if path is None else outer / path
    if path is None:
        return given
    command = context.command_path.partition(" ")[2]
    if "uri" not in given:
        raise Rejected(f"fluxkv {command} speaks to no instance: neither --instance nor a job path goes with it", code="bad-option")
    if given.get("state_dir") and not given["uri"]:
        if command in _DIRECTORY:
            hint = "an instance's own state directory is DIR/ns/JOB-VERSION-NODE in its parent's"
            raise Rejected(f"fluxkv {command}: --state-dir names an instance, so does a path", code="bad-option", hint=hint)
        context.meta[PATH] = path  # `open_journal` goes on from what is there
        return given
    from ..instances.job_path import instance_at
    from ..instances.paths import find_uri

    context.meta.pop(PATH, None)
    found = instance_at(find_uri(given["uri"]), path, alive=command in (*_NEW_WORK, *_LIVING))
    _way.append(str(path) or "/")
    number = found.rpartition("#")[2].rpartition("/")[2].partition(".")[2]
    if path.steps and not path.steps[-1].number and number.isdigit():
        _earlier.append(f"{path}.{int(number) - 1}")
    return {**given, "uri": found}


def from_here(hint: str) -> str:
    """A hint of a command that acted on another instance than the one it was typed in, as it is to be typed there."""
    if not _way or not _way[-1]:
        return hint
    to = _way[-1] if _way[-1] == "--parent" else f"--instance {_way[-1]}"
    told = re.sub(rf"\bfluxkv ({_OF_JOBS})\b", lambda found: f"fluxkv {to} {found[1]}", hint)
    if _earlier and hint == _NO_SUCH_JOB:
        return f"{told}; those of the attempt before: fluxkv --instance {_earlier[-1]} jobs -a"
    return told


def outwards() -> None:
    """The command goes on to the instance around the one that it was typed for: hints are about that."""
    here = _way[-1] if _way else ""
    _way.append((here.rpartition("/")[0] or here[: here.startswith("/")]) if here else "--parent")


def _plain(context: click.Context, given: dict[str, Any]) -> tuple[dict[str, Any], JobPath | None]:
    """(arguments with ids alone, where these are; None: no path was among them)."""
    from .params import job_ids, jobs_and_nodes, kind_of, resizes, updates

    command = context.command_path.partition(" ")[2]
    found: dict[str, JobPath | None] = {}
    changed = dict(given)
    for param in context.command.params:
        name, kind = str(param.name), kind_of(command, param)
        value = given.get(name)
        if kind not in (job_ids, jobs_and_nodes, resizes, updates) or not value:
            continue
        words = [value] if isinstance(value, str) else list(value)
        plain: list[str] = []
        for at, word in enumerate(words):
            parted = _parted(word, vertices=kind is jobs_and_nodes)
            if parted is None and not _is_id(word):
                plain += words[at:] if kind is not jobs_and_nodes else [word]
                if kind is not jobs_and_nodes:
                    break  # what follows the ids: notes, settings
                continue
            where, id = parted or (None, word)
            found[str(where) if where is not None else ""] = where
            plain += [id] if id else []
        if isinstance(value, str) and not plain:
            raise Rejected(f"{value!r} names an instance, not a job in it", code="bad-jobid", hint=f"such as {value}ƒ3kQ")
        changed[name] = plain[0] if isinstance(value, str) else tuple(plain)
    if len(found) > 1:
        names = " and ".join(name or "this one" for name in sorted(found))
        raise Rejected(f"these jobs are of several instances: {names}", code="bad-path", hint="name those of each in a command")
    return changed, next(iter(found.values()), None)


def _is_id(word: str) -> bool:
    from .named_jobs import parse_ids

    try:
        return bool(parse_ids([word]))
    except Rejected:
        return False


def _parted(word: str, *, vertices: bool) -> tuple[JobPath, str] | None:
    """(instance, ids in it) of a word with job paths, joined by commas; None if it is none.

    vertices: it may name one of the graph.
    """
    if "/" not in word or "=" in word or (vertices and word.startswith("/") and not word.startswith("/ƒ")):
        return None
    from ..instances.job_path import parse_path

    where: JobPath | None = None
    ids = []
    for part in word.split(","):
        above, slash, id = part.rpartition("/")
        if slash:
            try:
                other = parse_path(above or "/")
            except Rejected:
                return None
            if where is not None and other != where:
                raise Rejected(f"{word!r} names jobs of several instances", code="bad-path", hint="name each by itself")
            where = other
        ids.append(id)
    return (where, ",".join(filter(None, ids))) if where is not None else None


def rest_of(context: click.Context | None) -> JobPath | None:
    """The path that a command with --state-dir has still to go; taken once."""
    found: JobPath | None = context.meta.pop(PATH, None) if context is not None else None
    return found
