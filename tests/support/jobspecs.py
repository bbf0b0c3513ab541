"""Jobspecs as submit events hold them, for simulators."""

from __future__ import annotations

from typing import Any


def jobspec(
    cores: int = 1, nodes: int = 0, slots: int = 1, duration: float = 0.0, queue: str = "", name: str = "",
    dependencies: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A version 1 jobspec as it stands in a submit event."""
    slot = {"type": "slot", "count": slots, "label": "t", "with": [{"type": "core", "count": cores}]}
    system: dict[str, Any] = {"duration": duration, "cwd": "/"}
    if queue:
        system["queue"] = queue
    if name:
        system["job"] = {"name": name}
    if dependencies:
        system["dependencies"] = dependencies
    return {
        "version": 1,
        "resources": [{"type": "node", "count": nodes, "with": [slot]} if nodes else slot],
        "tasks": [{"command": ["x"], "slot": "t", "count": {"per_slot": 1}}],
        "attributes": {"system": system},
    }
