"""Files of resources: which form they have, what inventory they make, and what is said of those that make none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trees import racks, recipe

from fluxkv.instances import discover
from fluxkv.instances.resource_files import form_of, from_R, load
from fluxkv.journal.resource_graph import from_wire, graph_of
from fluxkv.journal.rset import NodeRecord, ResourceSet, parse_R, render_set
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree.record import jgf_of, to_record
from fluxkv.tools import main

GRUG = recipe(("cluster", "node", 2), ("node", "socket", 2), ("socket", "core", 2), ("socket", "memory", 1), sizes={"memory": 4})


def hwloc(host: str, cores: int = 2) -> str:
    inside = "".join(f'<object type="Core" os_index="{n}"><object type="PU"/></object>' for n in range(cores))
    return (f'<?xml version="1.0"?><topology version="2.0"><object type="Machine"><info name="HostName" value="{host}"/>'
            f'<object type="Package">{inside}</object></object></topology>')  # fmt: skip


def file(folder: Path, name: str, text: Any) -> str:
    (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return str(folder / name)


def nodes(resources: ResourceSet) -> list[tuple[int, str, int]]:
    return [(node.rank, node.host, node.cores) for node in resources.nodes]


def test_each_form_is_known_by_its_text(tmp_path: Path) -> None:
    grug = load([file(tmp_path, "a", GRUG)])
    assert nodes(grug) == [(0, "node0", 15), (1, "node1", 15)]
    assert grug.nodes[0].memory_mb == 8
    graph = graph_of(grug)
    assert graph is not None
    assert graph.places["/cluster0/node1/socket1/core"].ids == 12
    jgf = jgf_of(graph)
    again = load([file(tmp_path, "b", {"graph": jgf["graph"]})])
    assert from_wire(again.tree).raw == graph.raw
    R = render_set(grug._replace(tree=None, scheduling=jgf))
    assert from_wire(load([file(tmp_path, "c", R)]).tree).raw == graph.raw
    assert load([file(tmp_path, "d", render_set(grug))]) == grug
    plain = load([file(tmp_path, "e", render_set(grug._replace(tree=None)))])
    assert (plain.tree, nodes(plain)) == (None, nodes(grug))


def test_machines_of_hwloc_are_nodes_of_one_cluster(tmp_path: Path) -> None:
    one = load([file(tmp_path, "a.xml", hwloc("big7"))])
    assert nodes(one) == [(0, "big7", 3)]
    two = load([file(tmp_path, "b.xml", hwloc("big9", 3)), str(tmp_path / "a.xml")])
    assert nodes(two) == [(0, "big9", 7), (1, "big7", 3)]
    graph = graph_of(two)
    assert graph is not None
    assert graph.places["/cluster0/big7/socket0/core"].node == 1
    with pytest.raises(Rejected, match="two vertices are at /cluster0/big7"):
        load([str(tmp_path / "a.xml")] * 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "neither JSON nor XML"), ("<x/>", "neither GraphML nor a topology"), ("{}", "neither execution"), ("{", "not JSON"),
     (recipe(("cluster", "rack", 2), ("rack", "core", 1)), "no vertex of type node"),
     (recipe(("cluster", "node", 2), ("node", "gpu", 1)), "no core in node0"),
     ({"graph": {"nodes": []}}, "graph.edges"), ({"version": 2, "execution": {}}, "bad R: version")],
)  # fmt: skip
def test_what_makes_no_inventory_is_refused_by_the_name_of_the_file(tmp_path: Path, text: Any, why: str) -> None:
    path = file(tmp_path, "f", text)
    with pytest.raises(Rejected, match=why) as caught:
        load([path])
    assert str(caught.value).startswith(path)
    assert caught.value.hint


def test_files_that_cannot_be_read_and_several_that_do_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for path, why in (("nowhere", "No such file"), ("bytes", "not text"), (".", "directory")):
        with pytest.raises(Rejected, match=why):
            load([str(tmp_path / path)])
    with pytest.raises(Rejected, match="one machine each"):
        load([file(tmp_path, "a", GRUG), file(tmp_path, "b", GRUG)])
    assert form_of("  <graphml>") == "grug"


def test_R_and_its_graph_speak_of_the_same_nodes() -> None:
    record = to_record(racks())
    records = tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, ("own",)) for rank in range(4))

    def R(*nodes: NodeRecord) -> dict[str, Any]:
        return render_set(ResourceSet(nodes, expiration=5.0, scheduling=jgf_of(record)))

    found = from_R(R(*records))
    assert (found.nodes, found.expiration, found.scheduling) == (records, 5.0, None)
    for nodes, why in (
        (records[:3], "rank 3 of the graph"), ((*records, records[0]._replace(rank=4, host="x")), "rank 4"),
        ((records[0]._replace(cores=7), *records[1:]), "has 3 cores"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=why) as caught:
            from_R(R(*nodes))
        assert caught.value.code == "bad-R"


def test_a_config_names_its_graph(tmp_path: Path) -> None:
    file(tmp_path, "a.graphml", GRUG)
    path = file(tmp_path, "c.toml", "")
    for key in ("graph", "path"):
        document = discover.config_R({"resource": {key: "a.graphml"}}, path)
        assert document is not None
        assert nodes(parse_R(document)) == [(0, "node0", 15), (1, "node1", 15)]
    table: dict[str, Any]
    for table, why in (
        ({"graph": "b.graphml"}, "resource.graph: .*b.graphml: No such"), ({"graph": 5}, "must be a file"),
        ({"graph": "a.graphml", "path": "a.graphml"}, "two inventories"),
        ({"graph": "a.graphml", "config": [{"hosts": "x"}]}, "two inventories"),
        ({"graph": []}, "must be a file"), ({"graph": "a.graphml", "format": "xml"}, "must be one of"),
        ({"graph": "a.graphml", "format": "jgf"}, "not JSON"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=why) as caught:
            discover.config_R({"resource": table}, path)
        assert path in str(caught.value)


def small(at: int | None = None, edge: tuple[int, int] | None = None, **changed: Any) -> dict[str, Any]:
    """A cluster, a node and a core as JGF, with something changed in one of them, or one edge more."""
    types = ("cluster", "node", "core", "memory")
    vertices = [{"id": str(n), "metadata": {"type": kind, "id": 0, "size": 1}} for n, kind in enumerate(types)]
    if at is not None:
        vertices[at]["metadata"].update(changed)  # type: ignore[attr-defined]
    edges = [(0, 1), (1, 2), (1, 3), *([edge] if edge else [])]
    return {"graph": {"nodes": vertices, "edges": [{"source": str(a), "target": str(b)} for a, b in edges]}}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (small(2, size=1 << 21), "/cluster0/node0/core0: its size is above 1048576"),
        (small(3, size=10**30), "/cluster0/node0/memory0: its size is above"),
        (small(3, size=1 << 50, unit="TB"), "/cluster0/node0/memory0: has more memory than can be counted"),
        (small(1, rank=10**12), "/cluster0/node0: its rank is above 1048575"),
        (small(1, size=-2), r"graph.nodes\[1\].metadata.size must not be negative"),
        (small(edge=(2, 1)), "/cluster0/node0/core0/node0: node0 is below itself"),
        (small(edge=(2, 0)), "none: cluster0 is below itself, by /cluster0/node0/core0/cluster0"),
    ],
)
def test_numbers_and_rounds_that_cannot_be_are_refused_with_their_place(tmp_path: Path, document: Any, why: str) -> None:
    path = file(tmp_path, "f", document)
    with pytest.raises(Rejected, match=why):
        load([path])
    jobs = file(tmp_path, "jobs", {"cores": 1, "run": 1})
    done = CliRunner().invoke(main.cli, ["simulate", jobs, "--resources", path], standalone_mode=False)
    assert isinstance(done.exception, Rejected)
    assert str(done.exception).startswith(path)
