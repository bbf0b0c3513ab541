"""The graph of an instance as `resource query` has it: every single resource a vertex, its jobs and reservations on them. Pure.

Made when somebody asks, from a folded state: to find things in, or to try requests on. The moment it was made is its time 0; the
jobs have their own numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import ceil
from typing import Any

from ..journal.claims import Claim
from ..journal.ids import parse_id
from ..journal.idset import ids_of_mask
from ..journal.job import SCHED
from ..journal.rset import NodeRecord, ResourceSet, allocated_set, render_set
from ..journal.sched_config import FLEXIBLE
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.tree import jgf, rv1
from ..schedulers.tree.ledger import ALLOCATED, RESERVED
from ..schedulers.tree.needs import FOREVER_S
from ..schedulers.tree.record import jgf_of, jgf_of_claims
from ..schedulers.tree.system import System
from ..schedulers.tree.vertices import Tree, Vertex
from .outlook import Outlook
from .plan_inputs import holders_of, some_wait

_OF_JOB = re.compile(r"\b(jobid-[a-z]+=)([^\s()]+)")


def system_of(
    state: State, now: float, policy: str = "", view: str = "CA", filters: dict[str, list[str]] | None = None,
    flexible: bool = False, reserved: bool = True,
) -> System:  # fmt: skip
    """An instance's graph and what is on it. policy: "" for the instance's own; flexible: or the instance's. reserved: with what
    the plan of this moment keeps for jobs that wait. Raises `Rejected` as `System` does."""
    flexible = flexible or state.rules.traverser == FLEXIBLE
    system = System(_tree(state), policy or state.rules.match_policy, view, filters, flexible)
    for id, end, claims in holders_of(state):
        lasts = max(1, ceil(end - now)) if end and id in state.jobs else FOREVER_S
        _put(system, state, id, claims, ALLOCATED, 0, lasts)
    if reserved and some_wait(state):
        for id, start in Outlook(state, now, ()).reservations():
            job = state.jobs[id]
            ends = start.time + job.duration if job.state == SCHED and job.duration else job.expiration
            lasts = max(1, ceil(ends - start.time)) if ends else FOREVER_S
            _put(system, state, id, start.claims, RESERVED, max(1, ceil(start.time - now)), lasts)
    system.next_job = 1
    return system


def numbered(expression: str) -> str:
    """A find expression with the jobs in it as numbers: jobid-alloc=ƒ3kQ. Raises `Rejected` for what is no job's id."""
    return _OF_JOB.sub(lambda found: f"{found[1]}{parse_id(found[2])}", expression)


def _tree(state: State) -> Tree:
    if state.graph is not None:
        tree = jgf.from_jgf(jgf_of(state.graph))
        for path, place in state.graph.places.items():
            if place.at in state.graph.columns.down:
                for vertex in _singles(tree, path, place.ids):
                    vertex.up = False
    elif not state.nodes:
        raise Rejected("the instance has no nodes", code="no-such-node", hint="fluxkv resource eventlog shows when some came")
    else:
        records = (NodeRecord(n.rank, n.host, n.cores, n.gpus, n.memory_mb, tuple(n.properties)) for n in state.nodes.values())
        tree = rv1.from_rv1(render_set(ResourceSet(tuple(sorted(records)))))
    for rank, node in state.nodes.items():
        for vertex in tree.by_rank.get(rank, ()) if not node.usable else ():
            if vertex.type == "node":
                vertex.up = False
    return tree


def _singles(tree: Tree, path: str, ids: int) -> Iterable[Vertex]:
    """The vertex of a path, or those that a pool's path stands for."""
    found = tree.at(path)
    return [found] if found is not None else [one for n in ids_of_mask(ids) if (one := tree.at(f"{path}{n}")) is not None]


def _put(system: System, state: State, id: int, claims: tuple[Claim, ...], job_state: str, start: int, lasts_s: int) -> None:
    """What a job holds of nodes that are there. Quantities are shared, so no vertex is asked whether it is free."""
    here = tuple(claim for claim in claims if claim.rank in state.nodes)
    named: list[tuple[Vertex, int, bool]] = []
    if state.graph is not None:
        named = jgf.named_in(system.tree, jgf_of_claims(state.graph, here))
    elif here:
        hosts: dict[int, str] = {claim.rank: state.nodes[claim.rank].host for claim in here}
        R: dict[str, Any] = render_set(allocated_set(here, hosts, 0, 0.0, 0.0))
        named = rv1.named_in(system.tree, R)
        named += [(v, units, True) for v, units in _memory(system.tree, here)]
    if named and id not in system.ledger.jobs:
        wanted = {vertex.ordinal: (vertex, units, exclusive) for vertex, units, exclusive in named}
        system.impose(id, wanted, job_state, start, lasts_s, checked=False)


def _memory(tree: Tree, claims: Iterable[Claim]) -> Iterable[tuple[Vertex, int]]:
    for claim in claims:
        for vertex in tree.by_rank.get(claim.rank, ()) if claim.memory_mb else ():
            if vertex.type == "memory":
                yield vertex, claim.memory_mb
