"""A machine as hwloc (lstopo) describes it in XML, versions 1 and 2, as a tree: cluster > node > sockets, cores, ..."""

from __future__ import annotations

import re
from collections.abc import Collection
from xml.etree import ElementTree

from .vertices import Tree, Vertex, fault

_TYPES = {
    "Machine": "node", "Package": "socket", "Socket": "socket", "NUMANode": "numanode", "Group": "group", "Core": "core",
    "PU": "pu", "L1Cache": "cache", "L2Cache": "cache", "L3Cache": "cache", "Cache": "cache",
}  # fmt: skip
_DEVICES = ("Bridge", "PCIDev", "OSDev", "Misc")
_BLOCK, _COPROCESSOR = "0", "5"
_GPU = re.compile(r"(cuda|opencl|rsmi)[0-9]")
_TRAILING = re.compile(r"[0-9]{1,18}\Z")
_DEPTH = 64


def from_hwloc(text: str, allowed: Collection[str] = ()) -> Tree:
    """The tree of one machine. allowed: types to keep, none for all; what is between them is left out.

    Storage is in GB. Raises Rejected (code "bad-graph").
    """
    if "<!ENTITY" in text:
        raise fault("entities are not read", "hwloc XML")
    try:
        top = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:  # a lone surrogate is no text that could be parsed
        raise fault(f"not XML: {error}", "hwloc XML") from None
    machine = top.find("object")
    if top.tag != "topology" or machine is None or machine.get("type") != "Machine":
        raise fault("has no Machine", "hwloc XML")
    reader = _Reader({*allowed, "node"} if allowed else None)
    cluster = reader.tree.add(Vertex("cluster", "cluster", 0))
    reader.tree.root(cluster)
    reader.read(machine, cluster, 0)
    return reader.tree.compile()


class _Reader:
    """Numbers things as hwloc does: objects of a type, and OS devices, are counted over the whole machine."""

    def __init__(self, allowed: set[str] | None) -> None:
        self.allowed = allowed
        self.tree = Tree()
        self.counts: dict[str, int] = {}

    def read(self, element: ElementTree.Element, above: Vertex, depth: int) -> None:
        if depth > _DEPTH:
            raise fault(f"is more than {_DEPTH} deep", "hwloc XML")
        kind = element.get("type", "")
        number = self.counts.get(kind, 0)
        self.counts[kind] = number + 1
        vertex = self._device(element, number) if kind == "OSDev" else self._object(element, kind, number)
        if vertex is not None and (self.allowed is None or vertex.type in self.allowed):
            self.tree.add(vertex)
            self.tree.link(above, vertex)
            above = vertex
        inside = element.findall("object")
        for child in [c for c in inside if c.get("type") not in _DEVICES] + [c for c in inside if c.get("type") in _DEVICES]:
            self.read(child, above, depth + 1)

    def _object(self, element: ElementTree.Element, kind: str, number: int) -> Vertex | None:
        if kind == "Machine":
            host = _info(element, "HostName") or "node0"
            found = _TRAILING.search(host)
            basename = host[: found.start()] if found else host
            return Vertex("node", basename, int(found[0]) if found else 0, name=host, rank=0)
        name = _TYPES.get(kind)
        return Vertex(name, name, number) if name is not None else None

    def _device(self, element: ElementTree.Element, number: int) -> Vertex | None:
        name, kind = element.get("name", ""), element.get("osdev_type", "")
        if kind == _BLOCK:
            size = _info(element, "Size")
            kilobytes = int(size) if size.isascii() and size.isdigit() else 0
            return Vertex("storage", "storage", number, size=max(1, kilobytes // 1_000_000), unit="GB")
        if kind == _COPROCESSOR and _GPU.match(name):
            found = _TRAILING.search(name)
            return Vertex("gpu", "gpu", int(found[0]) if found else number)
        return None


def _info(element: ElementTree.Element, name: str) -> str:
    return next((i.get("value", "") for i in element.findall("info") if i.get("name") == name), "")
