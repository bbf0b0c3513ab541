"""The job that an ensemble is, in the instance that it is submitted to. Decides its size, and what its jobspec has that no user
asks for; what a member is, whoever makes the request has decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..journal.constraint import compile, parse_requires
from ..journal.ensemble import FILE, Indices, Request
from ..journal.file_archive import make_file
from ..kvs.errors import Rejected
from .template import texts_in

if TYPE_CHECKING:
    from ..journal.node import Node
    from ..journal.state import State
    from .submission import Command

COMMAND = ("fluxkv", "start", "fluxkv", "ensemble", "lead", f"{{{{tmpdir}}}}/{FILE}")
SHELL = {"per-resource.type": "node", "mpi": "none"}  # one task on each node
# What has ended is not run again (`ensemble_salvage`). Its exit code is its members', so that is no reason.
RETRY = {"limit": 3, "on": ["node-failure", "launcher-lost", "signal", "oom"]}
VARIABLE = "FLUX_JOB_CC"  # of each member: its index
WHOLE = ("queue", "bank", "constraint", "dependencies", "begin_time")  # options of `Instance.submit` that are not its members'


def as_job(
    state: State, command: Command, indices: Iterable[int], env: Mapping[str, str], options: Mapping[str, Any], *,
    nodes: int | None, per_node: int, total_time: float | str, conf: Mapping[str, Any], kvs: str,
    put: Callable[[dict[str, bytes]], object],
) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    """(Jobspec, environment) of an ensemble, from what `Instance.submit_ensemble` takes. put: stores the contents that it names."""
    from .config_file import checked_child
    from .own_program import with_program
    from .submission import build_jobspec, prepare
    from .whereabouts import OWN

    if kvs not in ("parent", OWN):
        raise Rejected(f"kvs={kvs!r}: there are parent and own", code="bad-ensemble")
    if per_node < 1:
        raise Rejected(f"per_node={per_node}: at least 1 child is on each node", code="bad-ensemble")
    whole = {name: value for name, value in options.items() if name in WHOLE and value is not None}
    member = {name: value for name, value in options.items() if name not in WHOLE}
    jobspec, _ = prepare(command, dict(member), env)
    request = numbered(jobspec, indices, with_program(env), per_node)
    request = request._replace(conf=checked_child(dict(conf)), kvs=kvs if kvs == OWN else "")
    size = nodes_for(state, request, nodes, whole.get("constraint") or "", whole.get("queue") or "")
    made = build_jobspec(
        COMMAND, nodes=size, ntasks=size, cores_per_task=request.cores, gpus_per_task=request.gpus, exclusive=True,
        memory_mb_per_task=(member.get("memory_mb_per_task") or 0) * (member.get("ntasks") or 1), duration=total_time,
        name=member.get("name") or "ensemble", shell_options=SHELL, attributes={"system.retry": RETRY},
        **({"cwd": member["cwd"]} if member.get("cwd") else {}), **whole,
    )  # fmt: skip
    blobs: dict[str, bytes] = {}
    made = with_request(made, request, blobs)
    for name, data in blobs.items():
        put({name: data})
    return made, request.env


def with_request(jobspec: dict[str, Any], request: Request, blobs: dict[str, bytes] | None) -> dict[str, Any]:
    """The same jobspec with a request as its file. blobs: takes its content by name; None keeps it in the jobspec."""
    system = {**jobspec["attributes"]["system"], "files": {FILE: request_file(request.encode(), blobs)}}
    return {**jobspec, "attributes": {**jobspec["attributes"], "system": system}}


def request_file(data: bytes, blobs: dict[str, bytes] | None) -> dict[str, Any]:
    """A file of a job, without times: the same request is to be the same jobspec (`--id`)."""
    made = make_file(data, 0o600, 0, blobs)
    return {name: value for name, value in made.items() if name not in ("mtime", "ctime")}


def nodes_for(
    state: State, request: Request, asked: int | None, requires: str | Mapping[str, Any] = "", queue: str = ""
) -> int:
    """On how many nodes it runs: as many as asked for, else all that are up and can run a member, but no more than it has members
    for. requires (query text, or a constraint), queue: of the ensemble. Raises `Rejected` where no node can."""
    fit = _fit(state, request)
    if not fit:
        needs = ", ".join(
            f"{number} {what}{'s' if number > 1 else ''}"
            for number, what in ((request.cores, "core"), (request.gpus, "GPU")) if number
        )  # fmt: skip
        part = f", in one of {request.per_node} parts of a node" if request.per_node > 1 else ""
        raise Rejected(
            f"no node can run a member, which needs {needs}{part}", code="unsatisfiable",
            hint="fluxkv resource list shows what there is; -n and -c are each member's",
        )  # fmt: skip
    if asked is not None:
        return asked
    named = state.rules.queue_of({"attributes": {"system": {"queue": queue} if queue else {}}}).name
    wanted = parse_requires(requires) if isinstance(requires, str) and requires else requires or None
    allowed = compile(state.rules.constraint(named, wanted) or {})
    meet = [node for node in fit if allowed(node.rank, node.host, node.properties)]
    if not meet:
        raise Rejected("no node that could run a member is among those required, up or down", code="unsatisfiable",
                       hint="fluxkv resource list -o properties shows what they have; the queue may require some")  # fmt: skip
    up = [node for node in meet if node.usable]
    if not up:
        raise Rejected("no node that could run a member is up", code="no-nodes",
                       hint="fluxkv resource status; -N N waits for N of them")  # fmt: skip
    return min(len(up), _most(up, request))


def on_fewer(jobspec: dict[str, Any], state: State, request: Request) -> dict[str, Any]:
    """An ensemble's jobspec on no more nodes than it has members for: of those that run again there may be few."""
    fit = _fit(state, request)
    if not fit:
        return jobspec
    most = _most(fit, request)
    return {**jobspec, "resources": [{**one, "count": min(one["count"], most)} if one["type"] == "node" else one
                                     for one in jobspec["resources"]]}  # fmt: skip


def _fit(state: State, request: Request) -> list[Node]:
    """The nodes that can run a member."""
    return [node for node in state.nodes.values() if node.cores.bit_count() // request.per_node >= request.cores
            and node.gpus.bit_count() // request.per_node >= request.gpus]  # fmt: skip


def _most(nodes: Sequence[Node], request: Request) -> int:
    """On how many of such nodes all members would run at once."""
    slots = max(1, min(node.cores.bit_count() // request.cores for node in nodes))
    return -(-len(Indices(request.ranges)) // slots)


def numbered(jobspec: dict[str, Any], indices: Iterable[int], env: Mapping[str, str], per_node: int) -> Request:
    """The request for a member for each number, which stands wherever a text of the jobspec has {cc}. Raises `Rejected`."""
    from ..journal.jobspec import resource_counts

    counts = resource_counts(jobspec)
    if counts.nodes > 1:
        raise Rejected("a member of an ensemble runs on one node", code="bad-ensemble", hint="leave out its nodes")
    found = _ranges(indices)
    if not found:
        raise Rejected("there are no members", code="bad-ensemble", hint="indices: such as range(1000)")
    system = jobspec["attributes"]["system"]
    environment = {**system.get("environment", {}), VARIABLE: "{cc}"}
    whole = {**jobspec, "attributes": {**jobspec["attributes"], "system": {**system, "environment": environment}}}
    texts = tuple(sorted(set(texts_in(whole, lambda text: "{cc}" in text))))
    return Request(whole, texts, found, dict(env), counts.cores, counts.gpus, per_node=per_node)


def _ranges(indices: Iterable[int]) -> tuple[tuple[int, int], ...]:
    if isinstance(indices, range) and indices.step == 1 and len(indices):
        return ((indices[0], indices[-1]),) if indices[0] >= 0 else ()
    found: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
        if index < 0:
            raise Rejected(f"index {index} is below 0", code="bad-ensemble")
        if found and found[-1][1] == index - 1:
            found[-1] = found[-1][0], index
        else:
            found.append((index, index))
    return tuple(found)
