"""The initial program of an ensemble's instance: a child on each node, rounds of handing out, the end.

Decides which children there are and when all is done. It is in nobody's way: children take shares and tell results by themselves.

A round hands out all members that have not ended. Its children are submitted under keys, so a lead that is started again in its
instance finds them. What a child that failed for good has left is handed out in another round, as long as rounds bring anything on.
A later attempt of the ensemble is another instance: it first takes over what is known of earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..journal.ensemble import FILE, Count, Indices, Part, Request, gaps
from . import left_spool
from .ensemble_job import request_file
from .ensemble_record import Info, Record, fresh
from .ensemble_salvage import Salvage, say_given_up
from .submission import build_jobspec
from .whereabouts import parent_of

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
    if info.round:  # we were started again: its children are there, or are submitted now
        done = _run(here, record, attempt, request, env, info)
    else:
        done = take_over(here, record, outer, attempt, request) if attempt > 1 else bytearray(total)
    left, before = gaps(done), -1
    while left and info.round < ROUNDS:
        ended = done.count(1)
        if ended == before:
            break  # another round would bring no more
        before = ended
        children = _children(here, request, total - ended)
        info = Info(total, children, info.round + 1)
        record.begin(info, Indices(left))
        done = _run(here, record, attempt, request, env, info)
        left = gaps(done)
    worst = record.total().worst
    return worst or (1 if left else 0)


def _children(here: Instance, request: Request, left: int) -> int:
    """As many as there are nodes, but not more than members. One that has not spoken yet counts, or has and was not answered: its
    child waits for it, and takes the place of another that has ended where it never does."""
    nodes = sum(
        1 for node in here.state().nodes.values() if node.usable or (node.drain is None and not (node.hello and node.t_status))
    )
    return max(1, min(left, max(1, nodes) * request.per_node))


def _run(
    here: Instance, record: Record, attempt: int, request: Request, env: Mapping[str, str], info: Info
) -> bytearray:
    """Submit the children of a round, wait for their ends, and take in what those that failed for good had not told. A byte for
    each position: 1 where the member has ended."""
    jobspec, blobs = child_of(here, request)
    for name, data in blobs.items():
        here.store.put_blobs({name: data})
    keys = [f"round-{info.round}-child-{number}" for number in range(info.children)]
    ids = here.submitter.submit([(jobspec, env)] * info.children, 16, 0, keys)
    for _ in here.batches(ids):
        pass
    indices = Indices(request.ranges)
    late = _Late(record, len(indices))
    if not all(late.done):
        jobs, there = here.state().jobs, Salvage(indices, late.done, say_given_up, roots=left_spool.roots(here.uri))
        for child in (id for id in ids if id in jobs):
            for part in there.of_child(here.store, child, range(1, jobs[child].number + 1), attempt):
                late.keep(part)
    return late.done


class _Late:
    """Takes results into the record that no child of ours told. done: which members have ended. Begun again it goes on."""

    def __init__(self, record: Record, total: int) -> None:
        self.done = record.finished(total)
        view = record.kvs.view()
        self._record, self._count = record, record.counts(view).get(0, Count())
        self._number = record.last_number(view, 0) + 1  # nobody else writes under it now

    def keep(self, part: Part) -> None:
        """What is new in it."""
        if len(news := fresh(part, self.done)):
            self._count = self._count.plus(news)
            self._record.report(news, 0, self._number, self._count)
            self._number += 1


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


def take_over(here: Instance, record: Record, outer: int, attempt: int, request: Request) -> bytearray:
    """Put what is known of the ensemble's earlier attempts into this one's record: what they told, and what their children had come
    to and had not told. A byte for each position: 1 where the member has ended."""
    from ..kvs.redis_store import open_store

    indices = Indices(request.ranges)
    late = _Late(record, len(indices))
    with closing(open_store(parent_of(here.uri))) as above:
        there = Salvage(indices, late.done, say_given_up, roots=left_spool.roots(here.uri))
        for part in there.of_ensemble(above, outer, range(attempt - 1, 0, -1)):
            late.keep(part)
    return late.done
