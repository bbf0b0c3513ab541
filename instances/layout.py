"""Which tasks of a job run on which of its nodes: how many on each, and in which order their ranks are (RFC 34). Pure.

Decides what the shell options `per-resource` and `taskmap` mean. A map that does not fit the nodes a job got is a fault of
the job, told when it would start, as Flux's shell does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.taskmap import TaskMap, distribute, from_nodes, from_raw, parse_map, ranks_of_nodes
from ..kvs.errors import Rejected
from .templates import names_claim

if TYPE_CHECKING:
    from ..journal.claims import Claim
    from ..schedulers.request import Request

TASKS_MAX = 100_000  # of one job: each costs its node memory before it starts
SCHEMES = ("block", "cyclic", "manual", "hostfile")


class Taskmap(NamedTuple):
    """scheme: one of `SCHEMES`. value: what follows it. hosts: of a hostfile, one for each line, in order."""

    scheme: str
    value: str
    hosts: tuple[str, ...]


def per_resource_of(options: Mapping[str, Any]) -> tuple[str, int] | None:
    """(resource, tasks on each of it) of the option `per-resource`. Raises `Rejected(code="bad-shell-option")`."""
    value = options.get("per-resource")
    if value is None:
        return None
    kind, count = (value.get("type"), value.get("count", 1)) if isinstance(value, Mapping) else (None, 0)
    if kind not in ("node", "core") or type(count) is not int or not 0 < count <= 1 << 20:
        raise _bad("per-resource", value, "it is a type (node or core) and a count from 1 on")
    return kind, count


def taskmap_of(options: Mapping[str, Any]) -> Taskmap | None:
    """The option `taskmap`; None for the usual blocks. Raises `Rejected(code="bad-shell-option")`."""
    given = options.get("taskmap")
    if given is None:
        return None
    if isinstance(given, str):
        head, _, tail = given.partition(":")
        given = {"scheme": head, "value": tail}
    if not isinstance(given, Mapping):
        raise _bad("taskmap", given, "it is a scheme, or one with a value")
    scheme, found, hosts = given.get("scheme"), given.get("value", ""), given.get("hosts", ())
    if scheme not in SCHEMES or not isinstance(found, str | int):
        raise _bad("taskmap", scheme, f"the scheme is {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    value = str(found)
    if scheme == "block" and value:
        raise _bad("taskmap", f"block:{value}", "block takes no value")
    if scheme == "cyclic":
        _check("taskmap", f"cyclic:{value}", lambda: distribute([1], f"cyclic:{value}" if value else "cyclic"))
    elif scheme == "manual":
        _check("taskmap", f"manual:{value}", lambda: _manual(value))
    known = isinstance(hosts, list | tuple) and all(isinstance(host, str) for host in hosts)
    if scheme == "hostfile" and not (known and hosts):
        raise _bad("taskmap", f"hostfile:{value}", "the hosts of the file are not given: use submit --taskmap")
    return Taskmap(scheme, value, tuple(hosts) if known else ())


def check_layout(options: Mapping[str, Any]) -> None:
    """Raises `Rejected` for what can never be laid out."""
    per_resource_of(options)
    taskmap_of(options)


def counts_of(jobspec: Mapping[str, Any], request: Request, claims: Sequence[Claim]) -> list[int]:
    """How many tasks run on each claim. Raises `Rejected`."""
    from ..schedulers.request import tasks_per_claim

    task = jobspec["tasks"][0]
    wanted = per_resource_of(_options(jobspec))
    count = task["count"] if wanted is None else {"per_resource": {"type": wanted[0], "count": wanted[1]}}
    counts = tasks_per_claim(request, count, claims)
    if sum(counts) > TASKS_MAX:
        raise Rejected(f"{sum(counts)} tasks are more than {TASKS_MAX}", code="unsupported")
    return counts


def needs_claims(jobspec: Mapping[str, Any]) -> bool:
    """Whether how it starts depends on which cores it gets, so that it can not take over just any seat of its shape."""
    task, options = jobspec["tasks"][0], _options(jobspec)
    if "per-resource" in options or "per_resource" in task["count"]:
        return True
    return any(map(names_claim, task["command"])) or ("output" in options and names_claim(str(options["output"])))


def layout(jobspec: Mapping[str, Any], counts: Sequence[int], hosts: Sequence[str]) -> TaskMap:
    """The map of a job with `counts[i]` tasks on its node i, which is called `hosts[i]`. Raises `Rejected`."""
    wanted = taskmap_of(_options(jobspec))
    if wanted is None or wanted.scheme == "block":
        return distribute(counts)
    if wanted.scheme == "cyclic":
        return distribute(counts, f"cyclic:{wanted.value}" if wanted.value else "cyclic")
    found = _manual(wanted.value) if wanted.scheme == "manual" else _from_hosts(wanted.hosts, counts, hosts)
    placed = [len(ranks) for ranks in ranks_of_nodes(found)]
    if placed + [0] * (len(counts) - len(placed)) != list(counts):
        raise _bad("taskmap", wanted.value, f"it puts {_few(placed)} tasks on the nodes, which take {_few(counts)}")
    return found


def task_ranks(jobspec: Mapping[str, Any], counts: Sequence[int], hosts: Sequence[str]) -> list[list[int]] | None:
    """Task ranks of each node; None for the usual blocks, whose ranks follow from the counts. Raises `Rejected`."""
    if "taskmap" not in _options(jobspec):
        return None
    ranks = ranks_of_nodes(layout(jobspec, counts, hosts))
    return ranks + [[]] * (len(counts) - len(ranks))


def _options(jobspec: Mapping[str, Any]) -> Mapping[str, Any]:
    system = (jobspec.get("attributes") or {}).get("system") or {}
    return (system.get("shell") or {}).get("options") or {}


def _manual(value: str) -> TaskMap:
    found = parse_map(value) if value[:1] in ("[", "{", "(") else from_raw(value)
    if not found:
        raise _bad("taskmap", value, "an RFC 34 map follows manual: such as [[0,2,2,1]] or 0-1;2-3")
    return found


def _from_hosts(lines: Sequence[str], counts: Sequence[int], hosts: Sequence[str]) -> TaskMap:
    """Tasks go to the hosts in the order of the lines, from the top again when these end; each host takes its number."""
    left = {host: count for host, count in zip(hosts, counts, strict=True) if count}
    at = {host: node for node, host in enumerate(hosts)}
    named = set(lines)
    missing = [host for host in left if host not in named]
    if missing:
        raise _bad("taskmap", missing[0], "this node of the job is not in the hostfile")
    nodes: list[int] = []
    turns = list(lines)
    while left:
        turns = [host for host in turns if host in left]  # else lines of no use would be read for each task
        for host in turns:
            if host in left:
                nodes.append(at[host])
                left[host] -= 1
                if not left[host]:
                    del left[host]
    return from_nodes(nodes)


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")


def _check(name: str, value: object, read: Any) -> None:
    try:
        read()
    except Rejected as error:
        raise _bad(name, value, str(error)) from None


def _bad(name: str, value: object, why: str) -> Rejected:
    return Rejected(f"{name}={str(value)[:60]!r}: {why}", code="bad-shell-option")
