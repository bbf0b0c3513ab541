"""Packages with plug-ins, installed for a test."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, source: str, points: dict[str, dict[str, str]]) -> None:
    """A package as pip leaves it: a module, and metadata that names its entry points."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, named in points.items():
        lines += [f"[{group}]", *(f"{point} = {target}" for point, target in named.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
