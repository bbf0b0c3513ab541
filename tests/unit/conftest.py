"""Fixtures of the unit tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_rig import instance, server  # noqa: F401  fixtures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def spec_dir() -> Path:
    """The folder of published conformance data, which is not part of the project."""
    folder = Path(os.environ.get("FLUXKV_SPEC_DIR") or ROOT.parent / "shared" / "spec")
    if not folder.is_dir():
        pytest.skip(f"no conformance data in {folder}: set FLUXKV_SPEC_DIR to the folder that holds vectors/")
    return folder


@pytest.fixture(scope="session")
def vectors(spec_dir: Path) -> Callable[[str], list[dict[str, Any]]]:
    """`vectors(name)`: the list of {input, expected | error, ...} of one format."""

    def load(name: str) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = json.loads((spec_dir / "vectors" / f"{name}.json").read_text("utf-8"))
        assert cases
        return cases

    return load
