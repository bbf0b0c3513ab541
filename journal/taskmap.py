"""Which task runs on which node of its job (RFC 34), and the same for MPI start-up (RFC 13).

Decides the forms of a map and how tasks are laid out by a distribution. Node ids are positions in the job,
from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from . import idset
from .shown import shown

MAX_TASKS = idset.MAX_ID
_MAX_TEXT = 1 << 22
_TRIPLE = re.compile(r"\(([0-9]{1,7}),([0-9]{1,7}),([0-9]{1,7})\)")
_VECTOR = re.compile(r"\(vector((?:,\([0-9]{1,7},[0-9]{1,7},[0-9]{1,7}\))*)\)")
_CYCLIC = re.compile(r"cyclic(?::([1-9][0-9]{0,6}))?")


class Block(NamedTuple):
    """`repeat` times: for each of `nnodes` nodes from `nodeid` on, the next `ppn` task ranks."""

    nodeid: int
    nnodes: int
    ppn: int
    repeat: int


TaskMap = tuple[Block, ...]  # () means unknown


def _fault(text: object, why: str) -> Rejected:
    return Rejected(
        f"bad task map {shown(text)}: {why}",
        code="bad-taskmap",
        hint="a JSON list of [nodeid, nnodes, tasks per node, repeat]",
    )


def check_map(blocks: Any) -> TaskMap:
    """The map of a decoded list or of {"version": 1, "map": [...]}. Raises `Rejected` (code bad-taskmap)."""
    if isinstance(blocks, dict):
        if blocks.get("version") != 1 or isinstance(blocks.get("version"), bool) or "map" not in blocks:
            raise _fault(blocks, "version 1 and map are required")
        blocks = blocks["map"]
    if not isinstance(blocks, (list, tuple)):
        raise _fault(blocks, "not a list")
    total = 0
    result = []
    for block in blocks:
        if not isinstance(block, (list, tuple)) or len(block) != 4 or any(type(n) is not int for n in block):
            raise _fault(block, "a block has four integers")
        nodeid, nnodes, ppn, repeat = block
        if nodeid < 0 or min(nnodes, ppn, repeat) < 1:
            raise _fault(block, "nodeid is at least 0, the others at least 1")
        total += nnodes * ppn * repeat
        if total > MAX_TASKS or nodeid + nnodes > MAX_TASKS:
            raise _fault(block, f"more than {MAX_TASKS} tasks or nodes")
        result.append(Block(nodeid, nnodes, ppn, repeat))
    return tuple(result)


def parse_map(text: str) -> TaskMap:
    """The map of a text: JSON of either form, or the PMI form; "" is unknown. Raises `Rejected`."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise _fault(text if not isinstance(text, str) else text[:40], "not a text, or too long")
    if not text:
        return ()
    if text.startswith("("):
        if _VECTOR.fullmatch(text) is None:
            raise _fault(text, "not a PMI vector")
        return check_map([[int(a), int(b), int(c), 1] for a, b, c in _TRIPLE.findall(text)])
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _fault(text, f"not JSON: {error}") from None
    return check_map(value)


def to_pmi(blocks: TaskMap, limit: int = 1024) -> str:
    """The PMI form, repeats written out; "" (unknown) when it would exceed `limit` characters."""
    parts = ["(vector"]
    room = limit - 8
    for b in blocks:
        text = f",({b.nodeid},{b.nnodes},{b.ppn})"
        room -= len(text) * b.repeat
        if room < 0:
            return ""
        parts += [text] * b.repeat
    return "".join(parts) + ")" if blocks else ""


def node_of_ranks(blocks: TaskMap) -> list[int]:
    """Node of each task rank, by rank."""
    nodes: list[int] = []
    for b in blocks:
        once = [node for node in range(b.nodeid, b.nodeid + b.nnodes) for _ in range(b.ppn)]
        nodes += once * b.repeat
    return nodes


def ranks_of_nodes(blocks: TaskMap) -> list[list[int]]:
    """Task ranks of each node, ascending, by node id."""
    nodes = node_of_ranks(blocks)
    ranks: list[list[int]] = [[] for _ in range(max(nodes, default=-1) + 1)]
    for rank, node in enumerate(nodes):
        ranks[node].append(rank)
    return ranks


def ntasks(blocks: TaskMap) -> int:
    """How many tasks a map places."""
    return sum(b.nnodes * b.ppn * b.repeat for b in blocks)


def to_raw(blocks: TaskMap) -> str:
    """Rank sets by node id, joined by semicolons: "0-1;2-3"."""
    return ";".join(idset.format_ids(ranks) for ranks in ranks_of_nodes(blocks))


def from_raw(text: str) -> TaskMap:
    """The canonical map of a raw form. Raises `Rejected` unless the sets are 0..n-1, each once."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise _fault(text if not isinstance(text, str) else text[:40], "not a text, or too long")
    placed: dict[int, int] = {}
    for node, ranks in enumerate(text.split(";") if text else []):
        for rank in idset.parse(ranks):
            if rank in placed:
                raise _fault(text, f"task {rank} is placed twice")
            placed[rank] = node
    if any(rank not in placed for rank in range(len(placed))):
        raise _fault(text, "a task is missing")
    return from_nodes([placed[rank] for rank in range(len(placed))])


def from_nodes(nodes: Sequence[int]) -> TaskMap:
    """The canonical map of the node of each rank."""
    runs: list[list[int]] = []
    for node in nodes:
        if runs and runs[-1][0] == node:
            runs[-1][1] += 1
        else:
            runs.append([node, 1])
    return _joined((node, 1, ppn) for node, ppn in runs)


def _joined(pieces: Iterable[tuple[int, int, int]]) -> TaskMap:
    """Join (nodeid, nnodes, ppn) pieces that follow each other, then equal neighbours into repeats."""
    wide: list[list[int]] = []
    for node, count, ppn in pieces:
        if wide and wide[-1][2] == ppn and wide[-1][0] + wide[-1][1] == node:
            wide[-1][1] += count
        else:
            wide.append([node, count, ppn])
    blocks: list[Block] = []
    for node, count, ppn in wide:
        if blocks and blocks[-1][:3] == (node, count, ppn):
            blocks[-1] = blocks[-1]._replace(repeat=blocks[-1].repeat + 1)
        else:
            blocks.append(Block(node, count, ppn, 1))
    return tuple(blocks)


def distribute(counts: Sequence[int], distribution: str = "block") -> TaskMap:
    """The map of `counts[i]` tasks on node i, laid out "block", "cyclic" or "cyclic:N" (N ranks at a turn).

    Raises `Rejected` (code bad-taskmap) for an unknown distribution.
    """
    if sum(counts) > MAX_TASKS or any(n < 0 for n in counts):
        raise _fault(distribution, f"at most {MAX_TASKS} tasks")
    if distribution == "block":
        return _joined((node, 1, n) for node, n in enumerate(counts) if n)
    found = _CYCLIC.fullmatch(distribution) if isinstance(distribution, str) else None
    if found is None:
        raise Rejected(
            f"unknown task distribution {shown(distribution)}",
            code="bad-taskmap",
            hint='use "block", "cyclic" or "cyclic:N"',
        )
    stride = int(found[1] or 1)
    pieces: list[tuple[int, int, int]] = []
    left = {node: n for node, n in enumerate(counts) if n}
    while left:
        pieces += [(node, 1, min(stride, n)) for node, n in left.items()]
        left = {node: n - stride for node, n in left.items() if n > stride}
    return _joined(pieces)
