"""What batch and alloc share: the options that describe a child instance, and the jobspec whose command starts one.

Decides how slots, --conf and --broker-opts become the command and files that Flux gives such a job (RFC 14, RFC 37); what the
child does with them, `start` decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ..kvs.errors import Rejected
from .jobspecs import count, jobspec_of
from .options import OPTIONS, SubmissionCommand, bad

F = TypeVar("F", bound=Callable[..., Any])
SCRIPT, CONF = "script", "conf.json"  # files of the job, by the names RFC 14 reserves
DUMP = "flux-{{id}}-dump.zip"
_SLOTS = {"nslots": "ntasks", "cores_per_slot": "cores_per_task", "gpus_per_slot": "gpus_per_task",
          "memory_per_slot": "memory_per_task"}  # fmt: skip
_TASKS = frozenset((
    "--ntasks", "--cores-per-task", "--gpus-per-task", "--memory-per-task", "--cores", "--tasks-per-node", "--tasks-per-core",
    "--gpus-per-node", "--taskmap",
))  # fmt: skip


def named_job(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse the empty word of a shell's variable that is not set: a new instance would begin in silence."""
    if value is not None and not value.strip():
        raise click.BadParameter("it names no job; write its id as it was printed, e.g. ƒ2UzHM")
    return value


_OWN: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-n", "--nslots"), {"metavar": "N", "help": "Number of slots (default: one; with -N one per whole node)."}),
    (("-c", "--cores-per-slot"), {"metavar": "N", "help": "Cores in each slot (default 1)."}),
    (("-g", "--gpus-per-slot"), {"metavar": "N", "help": "GPUs in each slot."}),
    (("--memory-per-slot",), {"metavar": "MB", "help": "Memory in each slot in MiB, or such as 4G."}),
    (("--conf",), {"multiple": True, "metavar": "KEY=VALUE|FILE|NAME",
                   "help": "Config of the new instance: one key, a TOML or JSON file or its text, or a file by its NAME."}),
    (("--kvs",), {"type": click.Choice(["parent", "own"]),
                  "help": "Where the new instance lives: on this one's server (the default), or on one of its own. "
                          "With --resume as before, if not given."}),
    (("--broker-opts",), {"multiple": True, "metavar": "OPTS", "help": "Options for its fluxkv start, such as --policy=easy."}),
    (("--resume",), {"metavar": "ID", "callback": named_job,
                     "help": "Go on with the instance that this job, which has ended, was: the rest runs."}),
    (("--dump",), {"metavar": "[FILE]", "help": f"Write its journal to a file when it ends ({DUMP})."}),
)  # fmt: skip
_REFUSED = {
    "-S": "it sets an attribute of Flux's broker; settings of an instance here are those of --conf",
    "--setattr": "it sets an attribute of Flux's broker; settings of an instance here are those of --conf",
    "-c": "it names a config file of Flux's broker; here that is --conf=FILE",
    "--config-path": "it names a config file of Flux's broker; here that is --conf=FILE",
    "-v": "Flux's broker talks more then; the daemons here write to the instance's log, fluxkv dmesg",
    "--verbose": "Flux's broker talks more then; the daemons here write to the instance's log, fluxkv dmesg",
}


class ChildCommand(SubmissionCommand):
    """A command that submits a child instance. `--dump` may stand without a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"--dump={DUMP}" if word == "--dump" else word for word in args])


def child_options(metavar: str) -> Callable[[F], F]:
    """Adds the options of a child instance, and its program with arguments (`words`)."""

    def added(command: F) -> F:
        command = click.argument("words", nargs=-1, metavar=metavar, type=click.UNPROCESSED)(command)
        shared = [one for one in OPTIONS if _TASKS.isdisjoint(one[0])]
        for names, settings in reversed([shared[0], *_OWN[:4], *shared[1:], *_OWN[4:]]):
            command = click.option(*names, **settings)(command)
        return command

    return added


def child_jobspec(
    values: Mapping[str, Any], program: Sequence[str], options: Sequence[str] = (), files: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The jobspec of a job that is an instance. program: what runs in it; options: of its `fluxkv start`; files: of the job.

    Raises click.BadParameter, Rejected.
    """
    sizes = {theirs: _size(values, ours) for ours, theirs in _SLOTS.items()}
    broker = broker_options(values["broker_opts"])
    document = conf_document(values["conf"])
    files = dict(files or {})
    if document:
        import json

        text = json.dumps(document, ensure_ascii=False, sort_keys=True)
        files[CONF] = content(text.encode(), 0o600, values["blobs"])
        broker = [f"--config={{{{tmpdir}}}}/{CONF}", *broker]
    kvs = values["kvs"]
    if values["resume"] and not kvs:
        from .resume_options import kvs_before

        kvs = kvs_before(values["before"])
    if kvs:
        broker.append(f"--kvs={kvs}")
    if values["dump"] is not None:
        broker.append(f"--dump={values['dump'] or DUMP}")
    if values["resume"]:
        broker.append(f"--resume={values['resume']}")
    typed = {**values, **sizes, "setopt": ("per-resource.type=node", "mpi=none", *values["setopt"])}
    jobspec = jobspec_of(typed, ["fluxkv", "start", *broker, *options, *program])
    system = jobspec["attributes"]["system"]
    if files:
        system["files"] = {**files, **system.get("files", {})}
    if values["resume"]:
        from .resume_options import as_before

        as_before(jobspec, values)
    return jobspec


def _size(values: Mapping[str, Any], name: str) -> str | None:
    """One of the sizes, refused under the name that was typed."""
    if name != "memory_per_slot" and values[name] is not None:
        count(values, name, least=0 if name == "gpus_per_slot" else 1)
    found: str | None = values[name]
    return found


def content(data: bytes, mode: int, blobs: dict[str, bytes] | None) -> dict[str, Any]:
    """A file of the job, without times: the same request is to be the same jobspec (`--id`)."""
    from ..journal.file_archive import make_file

    made = make_file(data, mode, 0, blobs)
    return {name: value for name, value in made.items() if name not in ("mtime", "ctime")}


def conf_document(texts: Iterable[str]) -> dict[str, Any]:
    """The config that --conf gives, each on top of the one before. Raises click.BadParameter for what no instance can have."""
    texts = list(texts)
    document: dict[str, Any] = {}
    if not texts:
        return document
    from ..instances import config_file

    try:
        for text in texts:
            if "\n" in text or text.lstrip().startswith("{"):
                where = f"text {text.strip()[:20]!r}..."
                read = config_file.from_json if text.lstrip().startswith("{") else config_file.from_toml
                _merge(document, read(text, where))
            elif "=" in text and not os.path.exists(text):
                config_file.set_value(document, text)
            else:
                _merge(document, config_file.read_file(_named(text)))
        config_file.checked_child(document)
    except Rejected as error:
        raise bad("--conf", error) from None
    return document


def _named(text: str) -> str:
    """The file that a text names: a path, or NAME of one in the folders of settings. Raises `Rejected`."""
    from ..instances.user_settings import files

    if "/" in text or text.endswith((".toml", ".json")) or os.path.exists(text):
        return text
    folders = [os.path.join(os.path.dirname(path), "config") for path in reversed(files())]
    for folder in folders:
        for kind in (".toml", ".json"):
            if os.path.exists(path := os.path.join(folder, text + kind)):
                return path
    raise Rejected(
        f"{text[:60]!r} is no KEY=VALUE, no file, and no {text[:60]}.toml in {' or '.join(folders)}", code="bad-config",
        hint="--conf=queue.policy=easy, --conf=child.toml",
    )  # fmt: skip


def _merge(document: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), dict):
            _merge(document[key], value)
        else:
            document[key] = value


def broker_options(texts: Iterable[str]) -> list[str]:
    """The options of --broker-opts, which may be joined by commas. Raises click.BadParameter for one that `start` has not, or that
    does not go with a child."""
    words = [word for text in texts for word in text.split(",") if word]
    if not words:
        return []
    from .start_cmd import start

    for word in words:
        for option, why in _REFUSED.items():
            if word == option or word.startswith((f"{option}=", option if len(option) == 2 else f"{option}=")):
                raise bad("--broker-opts", f"{word}: {why}")
    known = {name: one for one in start.params for name in one.opts}
    fits = {"--memory-limit", "--workers", "--policy", "--on-fork"}
    for at, word in enumerate(words):
        name = word.partition("=")[0]
        if name in fits or (at and words[at - 1] in fits and not word.startswith("-")):
            continue
        why = "it does not go with a child instance" if name in known else "fluxkv start has no such option"
        raise bad("--broker-opts", f"{word}: {why}; there are {', '.join(sorted(fits))}")
    try:
        start.make_context("start", list(words), resilient_parsing=False)
    except click.UsageError as error:
        raise bad("--broker-opts", error.format_message()) from None
    return words
