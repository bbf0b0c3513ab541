"""What `resource query` tells of its graph as a whole: counts, and the graph as a file for Graphviz or readers of GraphML."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..schedulers.tree.vertices import Tree


def counts(tree: Tree) -> list[str]:
    """A line for each count, in Flux's words. Vertices of no rank are those of rank -1; ranks with as many are told together."""
    from ..journal.idset import format_ids

    vertices = tree.vertices
    paths = {vertex.path(subsystem) for vertex in vertices for subsystem in vertex.parents}
    edges = sum(len(below) for vertex in vertices for below in vertex.children.values())
    ranks = Counter(vertex.rank for vertex in vertices)
    alike: dict[int, list[int]] = {}
    for rank in sorted(ranks.keys() - {-1}):
        alike.setdefault(ranks[rank], []).append(rank)
    return [
        f"INFO: Vertex Count: {len(vertices)}",
        f"INFO: Edge Count: {edges}",
        f"INFO: by_type Key-Value Pairs: {len({vertex.type for vertex in vertices})}",
        f"INFO: by_name Key-Value Pairs: {len({vertex.name for vertex in vertices})}",
        f"INFO: by_path Key-Value Pairs: {len(paths)}",
        *([f"INFO: number of vertices with rank -1: {ranks[-1]}"] if ranks[-1] else []),
        *[f"INFO: number of vertices with rank {format_ids(same)}: {count}" for count, same in alike.items()],
    ]


def write_graph(tree: Tree, form: str, path: str) -> None:
    """Write the graph, all subsystems, to a file. form: dot or graphml. Raises OSError."""
    if form == "dot":
        with open(path, "w", encoding="utf-8") as file:
            file.write(_dot(tree))
        return
    import networkx  # type: ignore[import-untyped,unused-ignore]

    graph = networkx.MultiDiGraph()
    for vertex in tree.vertices:
        paths = ",".join(f"{subsystem}={vertex.path(subsystem)}" for subsystem in vertex.parents)
        properties = ",".join(f"{name}={value}" for name, value in sorted(vertex.properties.items()))
        graph.add_node(
            f"n{vertex.ordinal}", type=vertex.type, basename=vertex.basename, name=vertex.name, id=vertex.id, rank=vertex.rank,
            uniq_id=vertex.ordinal, size=vertex.size, unit=vertex.unit, paths=paths, props=properties,
        )  # fmt: skip
    for vertex in tree.vertices:
        for subsystem, below in vertex.children.items():
            graph.add_edges_from((f"n{vertex.ordinal}", f"n{child.ordinal}", {"member_of": subsystem}) for child in below)
    networkx.write_graphml(graph, path)


def _dot(tree: Tree) -> str:
    lines = [f"{vertex.ordinal}[label={_quoted(vertex.name)}];" for vertex in tree.vertices]
    lines += [
        f"{vertex.ordinal}->{child.ordinal} [label={_quoted(subsystem)}];"
        for vertex in tree.vertices
        for subsystem, below in vertex.children.items()
        for child in below
    ]
    return "digraph G {\n" + "\n".join(lines) + "\n}\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
