"""From the options of `fluxkv ensemble` to a request and the job that runs it. Decides which option is about members and which
about the ensemble as a whole, and on how many nodes it runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..instances.ensemble_job import COMMAND, RETRY, SHELL, VARIABLE, nodes_for, with_request
from ..instances.own_program import with_program
from ..instances.template import Template, fill
from ..journal.ensemble import Indices, Request, Rows, indices_of, packed_rows
from ..kvs.errors import Rejected
from .child_options import conf_document
from .environment import overlay_of, shared_environment
from .inputs import Filler, combined, separator, split_lists
from .jobspecs import count, jobspec_of, memory_mb
from .options import OPTIONS, bad, time_limit
from .stencil import Stencil

if TYPE_CHECKING:
    from ..instances.client import Instance

F = TypeVar("F", bound=Callable[..., Any])
# Of the ensemble, not of its members.
WHOLE = ("nodes", "queue", "bank", "urgency", "requires", "dependency", "begin_time", "key", "flags", "debug")
LEFT_OUT = frozenset(("--exclusive", "--cores", "--tasks-per-node", "--tasks-per-core", "--gpus-per-node", "--taskmap"))
_OWN: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--cc",), {"metavar": "IDSET", "help": "A member for each id; {cc} becomes the id, and so does $FLUX_JOB_CC."}),
    (("--define",), {"multiple": True, "metavar": "NAME=CODE", "help": "{.NAME} is this Python expression of the input x."}),
    (("--sep",), {"default": "\\n", "metavar": "STRING", "help": "Between inputs in files: a line break; none: white space."}),
    (("-N", "--nodes"), {"metavar": "N", "help": "Nodes that it is spread over (default: all that are up and can run a member)."}),
    (("--per-node",), {"type": click.IntRange(1, 1024), "default": 1, "metavar": "N",
                       "help": "Child instances on each node, each with its part of it (1)."}),
    (("--total-time",), {"metavar": "FSD", "help": "Time limit of all of it (-t is each member's)."}),
    (("--kvs",), {"type": click.Choice(["parent", "own"]), "help": "Where children keep their journals, as batch has it."}),
    (("--conf",), {"multiple": True, "metavar": "KEY=VALUE|FILE|NAME", "help": "Config of the child instances, as batch has it."}),
)  # fmt: skip


def ensemble_request_options(command: F) -> F:
    """Adds the options of whoever makes an ensemble, and the command of its members with its inputs (`words`)."""
    command = click.argument("words", nargs=-1, metavar="COMMAND [ARGS]...", type=click.UNPROCESSED)(command)
    shared = [one for one in OPTIONS if LEFT_OUT.isdisjoint(one[0]) and "--nodes" not in one[0]]
    for names, settings in reversed([*_OWN, *shared]):
        command = click.option(*names, **settings)(command)
    return command


def request_of(values: Mapping[str, Any], words: tuple[str, ...]) -> Request:
    """What is asked for. Raises click.UsageError, `Rejected`."""
    blobs: dict[str, bytes] = {}
    member = {name: value for name, value in values.items() if name not in WHOLE}
    member.update(requires=(), dependency=(), blobs=blobs, urgency="16")
    if not words:
        raise click.UsageError("no command to run: name one, e.g. ./simulate {cc}, after the options")
    if values["cc"] and values["sep"] and any(word.rstrip("+") in (":::", "::::") for word in words):
        raise click.UsageError("--cc and inputs behind ::: both name the members: give one of them")
    filler = Filler(values["define"])
    lists = None if values["cc"] else split_lists(words, separator(values["sep"]))
    varies = filler.varies if lists else _has_number
    command = lists.command if lists else list(words)
    env = shared_environment(values["env"], values["rlimit"], varies)
    stencil = Stencil(member, command, {**overlay_of(values["env"], env, varies), VARIABLE: "{cc}"}, varies)
    if read := [name for name in stencil.read if name not in _OWN_NAMES]:
        option = "--" + read[0].replace("_", "-")
        raise bad(option, "it is the same for all members of an ensemble (fluxkv bulksubmit makes jobs that differ in it)")
    jobspec = stencil.template(_as_it_is).jobspec
    rows: tuple[bytes, ...] = ()
    if lists:
        rows, number = packed_rows(_filled(combined(lists), filler, stencil.texts))
        indices = Indices([(0, number - 1)] if number else ())
    else:
        indices = _numbers(values)
    if not len(indices):
        raise click.UsageError("there are no members: --cc=1-1000 names them, or inputs behind :::, or lines on standard input")
    tasks = count(values, "ntasks") or 1
    return Request(
        jobspec, tuple(sorted(stencil.texts)), indices.ranges, with_program(env),
        tasks * (count(values, "cores_per_task") or 1), tasks * (count(values, "gpus_per_task", least=0) or 0),
        rows, tuple(values["define"]), conf_document(values["conf"]), blobs, values["per_node"], values["kvs"] or "",
    )  # fmt: skip


_OWN_NAMES = frozenset(("cc", "define", "sep", "per_node", "total_time", "conf", "kvs", "uri"))


def _has_number(text: str) -> bool:
    return "{cc}" in text


def _as_it_is(text: str) -> str:
    return text


def _numbers(values: Mapping[str, Any]) -> Indices:
    """Those of --cc."""
    if values["define"]:
        raise click.UsageError("--define goes with inputs, not with --cc")
    try:
        return indices_of(values["cc"])
    except Rejected as error:
        raise bad("--cc", error) from None


def _filled(rows: Iterator[tuple[str, ...]], filler: Filler, texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The inputs as they come; each is filled in once, so that what is wrong with one is said before there is a job."""
    for seq, row in enumerate(rows):
        filler.set(row, seq)
        for text in texts:
            filler(text)
        yield row


def cutter(request: Request) -> Callable[[int], dict[str, Any]]:
    """What makes a member's jobspec of its index."""
    template = Template(request.jobspec, request.texts)
    if not request.rows:
        return lambda index: template.cut(lambda text: fill(text, str(index)))
    filler, rows = Filler(request.define), Rows(request.rows)

    def cut(index: int) -> dict[str, Any]:
        filler.set(rows[index], index)
        return template.cut(lambda text: fill(filler(text), str(index)))

    return cut


def job_of(
    request: Request, values: Mapping[str, Any], nodes: int, blobs: dict[str, bytes] | None
) -> dict[str, Any]:
    """The jobspec of the job that an ensemble is. blobs: takes the request's content by name."""
    time_limit(values["total_time"], "--total-time")  # said under its own name
    memory = memory_mb(values.get("memory_per_task")) * (count(values, "ntasks") or 1)
    typed = {
        "nodes": str(nodes), "ntasks": str(nodes), "cores_per_task": str(request.cores), "gpus_per_task": str(request.gpus),
        "memory_per_task": str(memory) if memory else None, "exclusive": True,
        "time_limit": values["total_time"], "job_name": values["job_name"] or _name_of(request), "cwd": values["cwd"],
        "setopt": tuple(f"{name}={value}" for name, value in SHELL.items()),
        "setattr": (f"system.retry={json.dumps(RETRY)}",),
        **{one: values[one] for one in ("queue", "bank", "requires", "dependency", "begin_time")},
    }  # fmt: skip
    return with_request(jobspec_of(typed, COMMAND), request, blobs)


def size_of(instance: Instance, request: Request, values: Mapping[str, Any]) -> int:
    """On how many nodes it runs. Raises `Rejected`, click.BadParameter."""
    try:
        return nodes_for(
            instance.state(), request, count(values, "nodes"), " ".join(values["requires"] or ()), values["queue"] or ""
        )
    except Rejected as error:
        if error.code.startswith("bad-constraint") or error.code == "bad-query":
            raise bad("--requires", error) from None
        raise


def _name_of(request: Request) -> str:
    return os.path.basename(str(request.jobspec["tasks"][0]["command"][0]))
