"""Match policies: in which order candidates of one type are taken. Each is a small object with a name.

`score` ranks a vertex among others of its type, `lifted` what a score becomes when its container is skipped and
candidates of several containers are pooled, `order` sorts a pool for a choice of `k` units. Equal scores stay in
the order of the graph's edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...kvs.errors import Rejected
from .vertices import Vertex

if TYPE_CHECKING:
    from .match import Candidate

_NODE_FIRST = 1 << 80  # more than any sum of ids
PERF_CLASS = "perf_class"
_UNKNOWN = 9999


class Policy:
    """What all have in common. whole_nodes: a node is always taken as a whole. stops_early: enough is enough. by_score: is the
    order that of scores alone, so that the best are known before they are looked into?"""

    whole_nodes = False
    stops_early = False
    by_score = False
    descending = False

    def score(self, vertex: Vertex) -> int:
        """The rank of a vertex; see `descending`."""
        return vertex.id + 1

    def lifted(self, score: int, container: Vertex) -> int:
        """The score after `container` was skipped."""
        return score

    def order(self, candidates: Sequence[Candidate], k: int) -> Sequence[Candidate]:
        """The candidates, best first, for a choice of `k` units."""
        return sorted(candidates, key=lambda c: c.score, reverse=self.descending)


class Low(Policy):
    """The lowest ids."""

    by_score = True


class High(Policy):
    """The highest ids."""

    by_score = True

    descending = True


class First(Policy):
    """The first that are found; looked for where most is left."""

    stops_early = True

    def order(self, candidates: Sequence[Candidate], k: int) -> Sequence[Candidate]:
        return candidates


class FirstNodeX(First):
    """As `first`, whole nodes."""

    whole_nodes = True


class LoNode(Low):
    """The lowest nodes, and the lowest ids on them."""

    def lifted(self, score: int, container: Vertex) -> int:
        return score + (container.id + 1) * _NODE_FIRST if container.type == "node" else score


class HiNode(High):
    """The highest nodes, and the highest ids on them."""

    def lifted(self, score: int, container: Vertex) -> int:
        return score + (container.id + 1) * _NODE_FIRST if container.type == "node" else score


class LoNodeX(LoNode):
    """As `lonode`, whole nodes."""

    whole_nodes = True


class HiNodeX(HiNode):
    """As `hinode`, whole nodes."""

    whole_nodes = True


class Locality(Low):
    """Ids that follow one another, where there are enough; else the longest such rows first."""

    by_score = False

    def order(self, candidates: Sequence[Candidate], k: int) -> Sequence[Candidate]:
        rows: list[list[Candidate]] = []
        for candidate in super().order(candidates, k):
            if rows and candidate.score - rows[-1][-1].score <= 1:
                rows[-1].append(candidate)
            else:
                rows.append([candidate])
        units = [sum(c.count for c in row) for row in rows]
        enough = [i for i, have in enumerate(units) if have >= k]
        if enough:
            best = min(enough, key=lambda i: units[i])
            ranked = [best, *[i for i in range(len(rows)) if i != best]]
        else:
            ranked = sorted(range(len(rows)), key=lambda i: -units[i])
        return [candidate for i in ranked for candidate in rows[i]]


class Variation(Low):
    """Nodes whose `perf_class` differs least; of equal choices the best class. Nodes without a class are the last."""

    by_score = False

    def order(self, candidates: Sequence[Candidate], k: int) -> Sequence[Candidate]:
        ranked = sorted(candidates, key=lambda c: (_perf_class(c.vertex), c.score))
        if len(ranked) <= k or not all(c.vertex is not None and c.vertex.type == "node" for c in ranked):
            return ranked
        classes = [_perf_class(c.vertex) for c in ranked]
        spreads = [
            (classes[i + k - 1] - classes[i] if classes[i + k - 1] != _UNKNOWN else _UNKNOWN, i)
            for i in range(len(ranked) - k + 1)
        ]
        at = min(spreads)[1]
        return ranked[at:] + ranked[:at]


def _perf_class(vertex: Vertex | None) -> int:
    """1 is best; what is no class (text, nothing, out of range) is the worst."""
    text = vertex.properties.get(PERF_CLASS, "") if vertex is not None else ""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else _UNKNOWN
    return number if 0 < number < _UNKNOWN else _UNKNOWN


POLICIES: dict[str, type[Policy]] = {
    "first": First, "firstnodex": FirstNodeX, "low": Low, "high": High, "lonode": LoNode, "hinode": HiNode,
    "lonodex": LoNodeX, "hinodex": HiNodeX, "locality": Locality, "variation": Variation,
}  # fmt: skip


def policy_of(name: str) -> Policy:
    """The policy of a name. Raises Rejected."""
    if name not in POLICIES:
        raise Rejected(f"no match policy {name[:40]!r}", code="bad-policy", hint=f"there are {', '.join(POLICIES)}")
    return POLICIES[name]()
