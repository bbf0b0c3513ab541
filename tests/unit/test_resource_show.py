"""`fluxkv resource show`: who is in which group, the lines, the picture."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from trees import recipe, tree

from fluxkv.journal.node import Node
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.overview import Holding, Part, at, document, of_inventory, of_tree, summary
from fluxkv.schedulers.tree.vertices import Tree, Vertex
from fluxkv.tools import resource_show_cmd
from fluxkv.tools.main import cli
from fluxkv.tools.resource_query_cmd import LOADERS
from fluxkv.tools.resource_show_cmd import lines, shortened
from fluxkv.tools.resource_svg import picture

SVG = "{http://www.w3.org/2000/svg}"


def inventory(count: int, cores: int = 4) -> list[Node]:
    """Nodes n0, n1, ...: every third has one core in use, every third all, n1 is drained, n2 is drained and used, n3 offline."""
    made = [Node(rank, f"n{rank}", (1 << cores) - 1, 0, 1024, ()) for rank in range(count)]
    for node in made:
        node.online = node.rank != 3
        node.used_cores = (0, 1, (1 << cores) - 1)[node.rank % 3] if node.rank != 1 else 0
        node.jobs = {node.rank + 1} if node.used_cores else set()
        node.drain = [1.0, "fan"] if node.rank in (1, 2) else None
    return made


def lines_of(part: Part, depth: int | None = None, width: int = 80) -> list[str]:
    return lines(summary(part), depth, width)


def test_a_graph_in_groups() -> None:
    graph = tree(racks=2)
    held = {v.ordinal: Holding(1, frozenset({5})) for v in graph.vertices if v.name == "socket1"}
    held[at_path(graph, "/cluster0/rack0/node0/socket0/memory0")] = Holding(3)
    marks = {at_path(graph, "/cluster0/rack1"): "drained"}
    assert lines_of(of_tree(graph, held=held, marks=marks)) == [
        "cluster0 mixed: 4 nodes, 2 busy, 2 draining",
        "├─ rack0 mixed: 2 nodes, 2 busy",
        "│  └─ node[0-1] (2) mixed: 16 cores (8 busy), 32 memory (19 busy), ƒ6",
        "│     ├─ socket0 mixed: 4 cores, 8 memory (3 busy)",
        "│     │  ├─ core[0-3] (4) free",
        "│     │  ├─ memory0 mixed: 3 of 4 busy",
        "│     │  └─ memory1 free: 4",
        "│     ├─ socket1 (2) allocated: 8 cores, 16 memory, ƒ6",
        "│     │  ├─ core[4-7] (8) allocated",
        "│     │  └─ memory[2-3] (4) allocated: 16",
        "│     └─ socket0 free: 4 cores, 8 memory",
        "│        ├─ core[0-3] (4) free",
        "│        └─ memory[0-1] (2) free: 8",
        "└─ rack1 draining: 2 nodes, 2 draining",
        "   └─ node[2-3] (2) draining: 16 cores (8 busy), 32 memory (16 busy), ƒ6",
        "      ├─ socket1 (2) allocated: 8 cores, 16 memory, ƒ6",
        "      │  ├─ core[4-7] (8) allocated",
        "      │  └─ memory[2-3] (4) allocated: 16",
        "      └─ socket0 (2) drained: 8 cores, 16 memory",
        "         ├─ core[0-3] (8) drained",
        "         └─ memory[0-1] (4) drained: 16",
    ]


def test_of_pools_with_ids_those_in_use_are_apart() -> None:
    graph = Tree()
    top = graph.add(Vertex("cluster", "cluster", 0))
    graph.root(top)
    for number in range(2):
        node = graph.add(Vertex("node", "node", number, rank=number))
        graph.link(top, node)
        graph.link(node, graph.add(Vertex("core", "core", -1, name="core", size=4, ids=0b1111)))
    held = {2: Holding(2, ids=0b101), 3: Holding(0, frozenset({9}))}
    assert lines_of(of_tree(graph.compile(), held=held)) == [
        "cluster0 mixed: 2 nodes, 1 busy", "├─ node0 mixed: 4 cores (2 busy)", "│  ├─ core[0,2] (2) allocated",
        "│  └─ core[1,3] (2) free", "└─ node1 free: 4 cores, ƒA", "   └─ core[0-3] (4) free",
    ]  # fmt: skip


def test_what_is_down_and_in_use_makes_what_is_above_busy() -> None:
    graph = Tree()
    top = graph.add(Vertex("cluster", "cluster", 0))
    graph.root(top)
    node = graph.add(Vertex("node", "node", 0, rank=0))
    graph.link(top, node)
    for number in range(2):
        socket = graph.add(Vertex("socket", "socket", number))
        graph.link(node, socket)
        graph.link(socket, graph.add(Vertex("core", "core", -1, name="core", size=2, ids=0b11 << 2 * number)))
    held = {3: Holding(1, frozenset({9}), ids=0b1)}
    lines = lines_of(of_tree(graph.compile(), held=held, marks={2: "down"}))
    assert lines[0] == "cluster0 mixed: 1 node, 1 busy"
    assert lines[1] == "└─ node0 mixed: 4 cores (1 busy)"
    assert lines[2] == "   ├─ socket0 down: 2 cores (1 busy)"


def at_path(graph: Any, path: str) -> int:
    return graph.at(path).ordinal


def test_nodes_of_an_instance() -> None:
    assert lines_of(of_inventory(inventory(9)), 1) == [
        "cluster0 mixed: 9 nodes, 4 busy, 1 draining, 1 drained, 1 offline",
        "├─ n[4,7] (2) mixed: 8 cores (2 busy), 2,048 MB memory, ƒ6 ƒ9",
        "├─ n[5,8] (2) allocated: 8 cores, 2,048 MB memory, ƒ7 ƒA",
        "├─ n2 draining: 4 cores, 1,024 MB memory, ƒ4",
        "├─ n1 drained: 4 cores, 1,024 MB memory",
        "├─ n3 offline: 4 cores, 1,024 MB memory",
        "└─ n[0,6] (2) free: 8 cores, 2,048 MB memory",
    ]


def test_ten_thousand_nodes_stay_readable_and_quick() -> None:
    began = time.process_time()
    shown = lines_of(of_inventory(inventory(10_002, cores=64)))
    assert time.process_time() - began < 3
    assert len(shown) < 30
    assert max(map(len, shown)) <= 80
    assert shown[0] == "cluster0 mixed: 10,002 nodes, 6,666 busy, 1 draining, 1 drained, 1 offline"
    assert any(line.endswith(" (3,333) allocated: 213,312 cores, 3,412,992 MB memory, …") for line in shown)
    racks = lines_of(of_tree(tree(racks=100, nodes=10, sockets=1)), 2)
    assert racks == [
        "cluster0 free: 1,000 nodes", "└─ rack[0-99] (100) free: 1,000 nodes",
        "   └─ node[0-999] (1,000) free: 4,000 cores, 8,000 memory",
    ]  # fmt: skip


def test_unequal_siblings_are_told_apart_unless_they_are_many() -> None:
    few = from_grug(recipe(("cluster", "node", 3), ("node", "core", 2), ("cluster", "login", 1), ("login", "core", 8)))
    assert lines_of(of_tree(few), 1)[1:] == ["├─ node[0-2] (3) free: 6 cores", "└─ login0 free: 8 cores"]
    odd = [Node(rank, f"n{rank}", (1 << rank + 1) - 1, 0, 0, ()) for rank in range(9)]
    for node in odd:
        node.online = True
    assert len(lines_of(of_inventory(odd[:4]), 1)) == 5
    assert lines_of(of_inventory(odd), 1)[1:] == ["└─ n[0-8] (9) free: 45 cores"]


def test_one_vertex_and_what_is_below_it() -> None:
    part = of_tree(tree(racks=2))
    assert lines_of(at(part, "/cluster0/rack1/node3"), 0) == ["node3 free: 8 cores, 16 memory"]
    for path, why in (("/cluster1", "the root is /cluster0"), ("/cluster0/rack7", "no 'rack7' below /cluster0"), ("", "no ''")):
        with pytest.raises(Rejected, match=why):
            at(part, path)


def test_subsystems_are_shown_one_at_a_time() -> None:
    text = recipe(("cluster", "node", 2), ("node", "core", 2)).replace(
        "</graph>",
        '<node id="panel"><data key="root">1</data><data key="type">panel</data><data key="subsystem">power</data></node>'
        '<node id="watt"><data key="type">watt</data><data key="size">500</data><data key="unit">W</data></node>'
        '<edge id="n2w" source="panel" target="watt"><data key="e_subsystem">power</data></edge></graph>',
    )
    graph = from_grug(text)
    assert lines_of(of_tree(graph, "power")) == ["panel0 free: 500 W watt", "└─ watt0 free: 500 W"]
    with pytest.raises(Rejected, match="no subsystem 'net'"):
        of_tree(graph, "net")


def test_as_json() -> None:
    told: Any = document(summary(of_inventory(inventory(9))), 1)
    assert json.loads(json.dumps(told)) == told
    assert told["below"]["node"]["states"] == {"mixed": 2, "allocated": 2, "draining": 1, "drained": 1, "offline": 1, "free": 2}
    assert (told["below"]["core"]["size"], told["below"]["core"]["held"]) == (36, 14)
    assert [child["children"] for child in told["children"]] == [[]] * 6


@pytest.mark.parametrize("text", ["a" * 50, "node[0-3,7,9-12]", "x"])
def test_long_names_are_cut_and_closed(text: str) -> None:
    for most in range(5, 60):
        cut = shortened(text, most)
        assert cut == text or (len(cut) <= most and "…" in cut and cut.count("[") == cut.count("]"))


def boxes(svg: str) -> Iterator[tuple[float, ...]]:
    for one in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        rect = one.find(f"{SVG}rect")
        assert rect is not None
        yield tuple(float(rect.get(name, "")) for name in ("x", "y", "width", "height"))


@pytest.mark.parametrize("part", [of_inventory(inventory(200)), of_tree(tree(racks=3)), of_inventory(inventory(10_000))])
def test_the_picture(part: Part) -> None:
    svg = picture(summary(part), "now <&> \0")
    top = ElementTree.fromstring(svg)
    width, height = float(top.get("width", "")), float(top.get("height", ""))
    found = list(boxes(svg))
    assert len(found) == len(lines_of(part))
    for x, y, w, h in found:
        assert min(x, y) >= 0 and x + w <= width and y + h <= height  # noqa: PT018
    for a, b in combinations(found, 2):
        assert a[0] + a[2] <= b[0] or b[0] + b[2] <= a[0] or a[1] + a[3] <= b[1] or b[1] + b[3] <= a[1], (a, b)
    for group in top.iter(f"{SVG}g"):
        for text in group.iter(f"{SVG}text"):
            rect = group.find(f"{SVG}rect")
            assert rect is not None
            assert len(text.text or "") * 6.4 <= float(rect.get("width", ""))
    assert "prefers-color-scheme:dark" in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert len(svg) < 60_000


def test_files_are_known_by_their_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("g.xml").write_text(recipe(("cluster", "node", 2), ("node", "core", 2)))
    Path("R.json").write_text(
        json.dumps({"version": 1, "execution": {"R_lite": [{"rank": "0-1", "children": {"core": "0-1"}}],
                    "nodelist": ["node[0-1]"], "starttime": 0, "expiration": 0}})
    )  # fmt: skip
    Path("hw.xml").write_text('<topology><object type="Machine"><object type="Core"/><object type="Core"/></object></topology>')
    Path("graph.json").write_text(
        json.dumps({"graph": {"nodes": [{"id": "0", "metadata": {"type": "cluster", "id": 0}}], "edges": []}})
    )
    Path("odd.txt").write_text("odd")

    def shown(*words: str) -> Any:
        return CliRunner().invoke(cli, ["resource", "show", "--file", *words], catch_exceptions=False)

    assert shown("g.xml").stdout == shown("R.json").stdout == (
        "cluster0 free: 2 nodes\n└─ node[0-1] (2) free: 4 cores\n   └─ core[0-1] (4) free\n"
    )  # fmt: skip
    assert "node0 free: 2 cores" in shown("hw.xml").stdout
    assert shown("graph.json").stdout == "cluster0 free\n"
    assert shown("g.xml", "--svg", "g.svg").stdout == ""
    assert len(list(boxes(Path("g.svg").read_text()))) == 3
    with pytest.raises(Rejected, match=r"odd\.txt: it is neither JSON nor XML"):
        shown("odd.txt")
    assert "leave out --at" in shown("g.xml", "--at", "3").stderr
    assert "one of them" in shown("g.xml", "--json", "--svg", "x").stderr
    assert "No such file or directory" in shown("g.xml", "--svg", "no/where").stderr
    assert resource_show_cmd.LOADERS == LOADERS


def test_an_instance_and_its_past(shell: Any) -> None:
    assert shell.out("resource", "show") == (
        "cluster0 mixed: 3 nodes, 2 busy, 1 drained\n"
        "├─ node0 mixed: 4 cores (2 busy), 8,192 MB memory (1,024 busy), ƒ5QcTB5H\n"
        "│  ├─ core[0-1] (2) allocated\n"
        "│  ├─ core[2-3] (2) free\n"
        "│  └─ memory mixed: 1,024 of 8,192 MB busy\n"
        "├─ node1 allocated: 4 cores, 8,192 MB memory, ƒ5rAznt7\n"
        "│  ├─ core[0-3] (4) allocated\n"
        "│  └─ memory free: 8,192 MB\n"
        "└─ node2 drained: 4 cores, 1 gpu, 8,192 MB memory\n"
        "   ├─ core[0-3] (4) drained\n"
        "   ├─ gpu0 drained\n"
        "   └─ memory drained: 8,192 MB\n"
    )
    assert shell.out("resource", "show", "--at", "20", "-L", "0") == "cluster0 free: 3 nodes\n"
    assert shell.out("resource", "show", "--path", "/cluster0/node2", "-L", "0").startswith("node2 drained")
    assert shell("resource", "show", "--path", "/cluster0/node9")[2].startswith("no 'node9' below /cluster0")
    assert shell("resource", "show", "--subsystem", "power")[2].startswith("this instance's resources have no subsystem")
    assert "prefers-color-scheme" in shell.out("resource", "show", "--svg", "-")
    assert json.loads(shell.out("resource", "show", "--json"))["state"] == "mixed"
