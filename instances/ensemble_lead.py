"""The initial program of an ensemble's instance: a child on each node, rounds of handing out, the end.

Decides which children there are and when all is done. It is in nobody's way: children take shares and tell results by themselves.

A round hands out all members that have not ended. Its children are submitted under keys, so a lead that is started again in its
instance finds them. What a child that failed for good has left is handed out in another round, as long as rounds bring anything on.
A later attempt of the ensemble is another instance: it first takes over what is known of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..journal.ensemble import FILE, Count, Indices, Part, Request, gaps
from ..kvs.errors import Rejected, Unavailable
from .child import child_namespace
from .ensemble_job import request_file
from .ensemble_record import Info, Record, mark
from .ensemble_salvage import salvage
from .submission import build_jobspec
from .whereabouts import parent_of, store_of

if TYPE_CHECKING:
    from .client import Instance

ROUNDS = 8
RETRY = {"limit": 3, "on": ["any"]}  # of a child: a later attempt runs only what is left of its shares
CONF = "conf.json"


def lead(here: Instance, outer: int, attempt: int, request: Request, env: Mapping[str, str]) -> int:
    """Run the ensemble to its end; its exit code: the worst of its members', 1 if some were not run. outer: which job of the
    instance around it is, in which attempt."""
    total = len(Indices(request.ranges))
    record = Record(here.kvs)
    info = record.info()
    if info.round:
        _run(here, request, env, info)  # we were started again: its children are there, or are submitted now
    elif attempt > 1:
        take_over(here, record, outer, attempt, request)
    done = record.finished(total)
    left, before = gaps(done), -1
    while left and info.round < ROUNDS:
        ended = done.count(1)
        if ended == before:
            break  # another round would bring no more
        before = ended
        children = _children(here, request, total - ended)
        info = Info(total, children, info.round + 1)
        record.begin(info, Indices(left))
        _run(here, request, env, info)
        done = record.finished(total)
        left = gaps(done)
    worst = record.total().worst
    return worst or (1 if left else 0)


def _children(here: Instance, request: Request, left: int) -> int:
    """As many as there are nodes, but not more than members."""
    nodes = sum(1 for node in here.state().nodes.values() if node.usable)
    return max(1, min(left, max(1, nodes) * request.per_node))


def _run(here: Instance, request: Request, env: Mapping[str, str], info: Info) -> None:
    """Submit the children of a round and wait for their ends."""
    jobspec, blobs = child_of(here, request)
    for name, data in blobs.items():
        here.store.put_blobs({name: data})
    keys = [f"round-{info.round}-child-{number}" for number in range(info.children)]
    ids = here.submitter.submit([(jobspec, env)] * info.children, 16, 0, keys)
    for _ in here.batches(ids):
        pass


def child_of(here: Instance, request: Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(The jobspec of a child, the blobs that it names)."""
    import json

    blobs: dict[str, bytes] = {}
    files = {FILE: request_file(request.encode(), blobs)}
    start = ["fluxkv", "start", "--policy=throughput", *([f"--kvs={request.kvs}"] if request.kvs else [])]
    if request.conf:
        files[CONF] = request_file(json.dumps(request.conf, ensure_ascii=False, sort_keys=True).encode(), blobs)
        start.append(f"--config={{{{tmpdir}}}}/{CONF}")
    options: dict[str, Any] = {"nodes": 1, "exclusive": True}
    if request.per_node > 1:
        nodes = here.state().nodes.values()
        cores = min(node.cores.bit_count() for node in nodes) // request.per_node
        gpus = min(node.gpus.bit_count() for node in nodes) // request.per_node
        options = {"ntasks": 1, "cores_per_task": max(1, cores), "gpus_per_task": gpus}
    jobspec = build_jobspec(
        [*start, "fluxkv", "ensemble", "feed", f"{{{{tmpdir}}}}/{FILE}"], name="share", **options,
        shell_options={"per-resource": {"type": "node"}, "mpi": "none"},
        attributes={"system.files": files, "system.retry": RETRY},
    )  # fmt: skip
    return jobspec, blobs


def take_over(here: Instance, record: Record, outer: int, attempt: int, request: Request) -> None:
    """Put what is known of the ensemble's earlier attempts into this one's record: what they told, and what their children had come
    to and had not told."""
    from ..kvs.redis_store import open_store
    from .client import Instance as Client

    indices = Indices(request.ranges)
    done = bytearray(len(indices))
    count, number = Count(), 0
    above = open_store(parent_of(here.uri))

    def keep(part: Part) -> None:
        nonlocal count, number
        rows = [row for row in part if row.position < len(done) and not done[row.position]]
        if not rows:
            return
        mark(done, (row.position for row in rows))
        count = count.plus(rows)
        record.report(Part(part.path, rows), 0, number, count)
        number += 1

    for earlier in range(attempt - 1, 0, -1):
        store = store_of(above, child_namespace(above.namespace, outer, earlier), over=True)
        if store is None:
            continue
        try:
            there = Client(store)
            for _, part in Record(there.kvs).parts():
                keep(part)
            for job in there.state().jobs.values():
                for part in salvage(store, job.id, range(1, job.number + 1), indices, done, earlier):
                    keep(part)
        except (Rejected, Unavailable) as error:
            if error.code not in ("no-instance", "gone"):
                raise  # it died before it was an instance
        finally:
            store.close()
    above.close()
