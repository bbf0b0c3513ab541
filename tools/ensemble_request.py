"""From the options of `fluxkv ensemble` to a request and the job that runs it. Decides which option is about members and which
about the ensemble as a whole, and on how many nodes it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..instances.template import Template, fill
from ..journal.ensemble import FILE, Indices, Request, Rows, indices_of, packed_rows
from ..kvs.errors import Rejected
from .child_options import conf_document, content
from .environment import overlay_of, shared_environment
from .inputs import Filler, combined, separator, split_lists
from .jobspecs import count, jobspec_of, memory_mb
from .options import OPTIONS, bad
from .own_program import with_program
from .stencil import Stencil

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..journal.state import State

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
    filler = Filler(values["define"])
    lists = None if values["cc"] else split_lists(words, separator(values["sep"]))
    varies = filler.varies if lists else _has_number
    command = lists.command if lists else list(words)
    env = shared_environment(values["env"], values["rlimit"], varies)
    stencil = Stencil(member, command, {**overlay_of(values["env"], env, varies), "FLUX_JOB_CC": "{cc}"}, varies)
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
        rows, tuple(values["define"]), conf_document(values["conf"]), blobs, values["per_node"],
    )  # fmt: skip


_OWN_NAMES = frozenset(("cc", "define", "sep", "per_node", "total_time", "conf", "uri"))


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
    memory = memory_mb(values.get("memory_per_task")) * (count(values, "ntasks") or 1)
    typed = {
        "nodes": str(nodes), "ntasks": str(nodes), "cores_per_task": str(request.cores), "gpus_per_task": str(request.gpus),
        "memory_per_task": str(memory) if memory else None, "exclusive": True,
        "time_limit": values["total_time"], "job_name": values["job_name"] or _name_of(request), "cwd": values["cwd"],
        "setopt": ("per-resource.type=node", "mpi=none"),
        "setattr": ('system.retry={"limit":3,"on":["node-failure","launcher-lost"]}',),
        **{one: values[one] for one in ("queue", "bank", "requires", "dependency", "begin_time")},
    }  # fmt: skip
    jobspec = jobspec_of(typed, ["fluxkv", "start", "fluxkv", "ensemble", "lead", f"{{{{tmpdir}}}}/{FILE}"])
    jobspec["attributes"]["system"]["files"] = {FILE: content(request.encode(), 0o600, blobs)}
    return jobspec


def _name_of(request: Request) -> str:
    import os

    return os.path.basename(str(request.jobspec["tasks"][0]["command"][0]))


def nodes_for(instance: Instance, request: Request, values: Mapping[str, Any]) -> int:
    """On how many nodes it runs: as many as asked for, else all that are up and can run a member, but no more than it has members
    for. Raises `Rejected` where no node can."""
    asked = count(values, "nodes")
    state = instance.state()
    fit = [node for node in state.nodes.values() if node.cores.bit_count() // request.per_node >= request.cores
           and node.gpus.bit_count() // request.per_node >= request.gpus]  # fmt: skip
    if not fit:
        part = f"a {request.per_node}th of it " if request.per_node > 1 else ""
        raise Rejected(
            f"no node can run a member: {part}with {request.cores} cores"
            + (f" and {request.gpus} GPUs" if request.gpus else ""), code="unsatisfiable",
            hint="fluxkv resource list shows what there is; -n and -c are each member's",
        )  # fmt: skip
    if asked is not None:
        return asked
    allowed = _allowed(state, values)
    up = [node for node in fit if node.usable and allowed(node.rank, node.host, node.properties)]
    if not up:
        raise Rejected("no node that could run a member is up", code="no-nodes",
                       hint="fluxkv resource status; -N N waits for N of them")  # fmt: skip
    slots = max(1, min(node.cores.bit_count() // request.cores for node in up))
    return min(len(up), -(-len(Indices(request.ranges)) // slots))


def _allowed(state: State, values: Mapping[str, Any]) -> Callable[..., bool]:
    """Which nodes the ensemble's job may have: by --requires and its queue."""
    from ..journal.constraint import compile, parse_requires

    text = " ".join(values["requires"] or ())
    rules = state.rules
    queue = rules.queue_of({"attributes": {"system": {"queue": values["queue"]} if values["queue"] else {}}}).name
    try:
        asked = parse_requires(text) if text else None
    except Rejected as error:
        raise bad("--requires", error) from None
    return compile(rules.constraint(queue, asked) or {})
