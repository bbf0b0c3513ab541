"""What every queue policy must obey, as checks the author of one can run: `check_policy(MyPolicy, rng)`.

Each call plays random rounds of submit, plan and free against the policy and asserts, in its own plain
bookkeeping, that placements never overlap, stay on usable nodes and inside them, give exactly what was asked,
place only pending jobs and each once, never a held one, are the same when asked again, and can be interrupted. Random choices are
the caller's: hand in `random.Random(seed)`. It raises AssertionError, whose message names the rule that was
broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ..journal.claims import Claim
from ..journal.rset import NodeRecord
from .policy import Decision, Pending, Place, Policy, Reserve, Wait
from .request import Request, compile_request
from .resources import Pool

UNSAID = 16  # jobs that a policy may read between two decisions (or None)


class Choice(Protocol):
    """The part of `random.Random` that is used."""

    def randrange(self, start: int, stop: int) -> int:
        """A whole number, start <= n < stop."""
        ...


def random_inventory(rng: Choice) -> tuple[NodeRecord, ...]:
    """One to six small nodes, some with gpus, some with memory, with gaps in ranks and ids."""
    nodes, rank = [], 0
    for _ in range(rng.randrange(1, 7)):
        rank += rng.randrange(1, 3)
        cores = rng.randrange(1, 1 << rng.randrange(1, 9))
        memory_mb = 1024 * rng.randrange(0, 4)
        nodes.append(NodeRecord(rank, f"host{rank}", cores, rng.randrange(0, 4), memory_mb, ()))
    return tuple(nodes)


def random_request(rng: Choice) -> Request:
    """A request of one of RFC 25's shapes, small enough to fit often."""
    held: list[dict[str, Any]] = [{"type": "core", "count": rng.randrange(1, 4)}]
    if not rng.randrange(0, 5):
        held.append({"type": "gpu", "count": 1})
    if not rng.randrange(0, 5):
        held.append({"type": "memory", "count": rng.randrange(1, 3), "unit": "GB"})
    top: dict[str, Any] = {"type": "slot", "count": rng.randrange(1, 4), "label": "task", "with": held}
    if rng.randrange(0, 2):
        exclusive = not rng.randrange(0, 3)
        top = {"type": "node", "count": rng.randrange(1, 4), "exclusive": exclusive, "with": [top]}
    return compile_request({"resources": [top]})


def check_policy(make: Callable[[], Policy], rng: Choice, rounds: int = 20) -> int:
    """Play `rounds` rounds; returns how many jobs were placed, so a test can see that it tested something."""
    policy, nodes = make(), random_inventory(rng)
    pool = Pool(nodes)
    pool.promised = {}
    away: set[int] = set()
    running: dict[int, tuple[Claim, ...]] = {}
    ends: dict[int, float] = {}
    waiting: list[Pending] = []
    placed = 0

    def holders() -> list[tuple[int, float, tuple[Claim, ...]]]:
        return [(job, ends[job], claims) for job, claims in running.items()]

    for number in range(rounds):
        for k in range(rng.randrange(0, 6)):
            request, priority = random_request(rng), rng.randrange(0, 4)
            job = 10 * number + k
            duration_s = 15.0 * rng.randrange(0, 5)
            waiting.append(Pending(job, priority, job, request, duration_s, held=not priority))
        for job in [job for job in running if not rng.randrange(0, 3)]:
            pool.give(running.pop(job))
        _toggle(nodes, rng, away)
        _synchronise(pool, nodes, running, away)
        waiting.sort(key=lambda entry: entry.sort_key)
        now = 1000.0 + 10.0 * number
        pool.timeline, pool.holders, known = None, holders, dict(pool.promised)
        decisions = _decisions(policy, waiting, pool, now)
        again = Pool(nodes)
        again.holders, again.promised = holders, known
        _synchronise(again, nodes, running, away)
        repeated = _decisions(make(), waiting, again, now)
        assert decisions == repeated, "the same pending jobs and resources must give the same plan"
        got = check_decisions(decisions, waiting, nodes, running, away)
        for node in nodes:
            _check_pool(pool, node, {**running, **got})
        running.update(got)
        ends.update({entry.job: entry.duration_s and now + entry.duration_s for entry in waiting if entry.job in got})
        placed += len(got)
        waiting = [entry for entry in waiting if entry.job not in got]
    return placed


def _decisions(policy: Policy, waiting: list[Pending], pool: Pool, now: float) -> list[Decision]:
    """One plan, in which the policy says something at least once for each few jobs that it reads."""
    read = 0

    def feed() -> Iterator[Pending]:
        nonlocal read
        for entry in waiting:
            read += 1
            assert read <= UNSAID, f"{read} jobs are read without a word: yield None where nothing is decided about a job"
            yield entry

    found = []
    for decision in policy.plan(feed(), pool, now):
        read = 0
        if decision is not None:
            found.append(decision)
    return found


def check_decisions(
    decisions: Iterable[Decision],
    pending: Iterable[Pending],
    nodes: Iterable[NodeRecord],
    running: dict[int, tuple[Claim, ...]],
    away: set[int],
) -> dict[int, tuple[Claim, ...]]:
    """Assert that one plan keeps the rules; returns what it placed. away: ranks that are not usable."""
    entries = {entry.job: entry for entry in pending}
    by_rank = {node.rank: node for node in nodes}
    got: dict[int, tuple[Claim, ...]] = {}
    named: set[int] = set()
    for decision in decisions:
        assert isinstance(decision, Place | Wait | Reserve), f"a decision is a Place, a Wait or a Reserve, not {decision!r}"
        assert decision.job in entries, f"job {decision.job} is not pending"
        assert decision.job not in named, f"job {decision.job} is decided twice in one plan"
        named.add(decision.job)
        if isinstance(decision, Wait | Reserve):
            assert decision.code, f"job {decision.job} waits without a reason"
            assert decision.text, f"job {decision.job} waits without a word why"
            continue
        assert not entries[decision.job].held, f"job {decision.job} is held, and was placed"
        for claim in decision.claims:
            assert claim.rank in by_rank, f"job {decision.job}: no node has rank {claim.rank}"
            assert claim.rank not in away, f"job {decision.job}: node {claim.rank} is not usable"
            _check_room(claim, by_rank[claim.rank], {**running, **got})
        _check_exact(entries[decision.job].request, decision.claims, by_rank, {**running, **got})
        got[decision.job] = decision.claims
    return got


def _held(rank: int, holders: dict[int, tuple[Claim, ...]]) -> list[Claim]:
    return [claim for claims in holders.values() for claim in claims if claim.rank == rank]


def _check_room(claim: Claim, node: NodeRecord, holders: dict[int, tuple[Claim, ...]]) -> None:
    others = _held(claim.rank, holders)
    for kind in ("cores", "gpus"):
        ids = getattr(claim, kind)
        assert not ids & ~getattr(node, kind), f"node {claim.rank} has no such {kind}: mask {ids:#x}"
        for other in others:
            assert not ids & getattr(other, kind), f"node {claim.rank}: {kind} of two jobs overlap"
    used = sum(other.memory_mb for other in others) + claim.memory_mb
    assert not claim.memory_mb or used <= node.memory_mb, (
        f"node {claim.rank}: {used} MB of memory are given out"
    )


def _check_exact(
    request: Request,
    claims: tuple[Claim, ...],
    by_rank: dict[int, NodeRecord],
    holders: dict[int, tuple[Claim, ...]],
) -> None:
    flat = request.flat
    assert flat is not None
    ranks = [claim.rank for claim in claims]
    assert len(set(ranks)) == len(ranks), "a job has one claim a node"
    assert sum(claim.slots for claim in claims) == flat.nslots, (
        "the claims have other than the slots asked for"
    )
    if flat.nnodes:
        assert len(claims) == flat.nnodes, f"{flat.nnodes} nodes were asked for, {len(claims)} given"
    for claim in claims:
        assert claim.slots > 0, "a claim without a slot"
        if flat.exclusive:
            node = by_rank[claim.rank]
            whole = (claim.cores, claim.gpus, claim.memory_mb) == (node.cores, node.gpus, node.memory_mb)
            assert whole, "an exclusive job gets whole nodes"
            assert not _held(claim.rank, holders), "an exclusive job gets idle nodes"
            continue
        assert claim.cores.bit_count() == claim.slots * flat.cores, "not the cores asked for"
        assert claim.gpus.bit_count() == claim.slots * flat.gpus, "not the gpus asked for"
        memory_mb = claim.slots * flat.memory_mb + flat.node_memory_mb
        assert claim.memory_mb == memory_mb, "not the memory asked for"


def _toggle(nodes: Iterable[NodeRecord], rng: Choice, away: set[int]) -> None:
    for node in nodes:
        if not rng.randrange(0, 8):
            away.symmetric_difference_update({node.rank})


def _synchronise(
    pool: Pool, nodes: Iterable[NodeRecord], running: dict[int, tuple[Claim, ...]], away: set[int]
) -> None:
    for node in nodes:
        cores, gpus, memory_mb, idle = _left(node, running)
        pool.set_node(node.rank, cores, gpus, memory_mb, node.rank not in away, idle)


def _left(node: NodeRecord, holders: dict[int, tuple[Claim, ...]]) -> tuple[int, int, int, bool]:
    cores, gpus, memory_mb = node.cores, node.gpus, node.memory_mb
    held = _held(node.rank, holders)
    for claim in held:
        cores &= ~claim.cores
        gpus &= ~claim.gpus
        memory_mb -= claim.memory_mb
    return cores, gpus, memory_mb, not held


def _check_pool(pool: Pool, node: NodeRecord, holders: dict[int, tuple[Claim, ...]]) -> None:
    cores, gpus, memory_mb, _ = _left(node, holders)
    i = pool.index[node.rank]
    kept = (pool.core_free[i], pool.gpu_free[i], pool.free.memory.counts[i])
    assert kept == (cores, gpus, memory_mb), f"node {node.rank}: what is placed must be taken from the pool"
