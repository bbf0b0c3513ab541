"""What `pip install` puts on a machine: the wheel holds fluxkv/ and nothing else, and all of it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("kvs", "journal", "schedulers", "instances", "tools")
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "__init__.py", "py.typed")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The wheel's files but its metadata. It is built from a copy: a build leaves its traces in the tree."""
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    if int(version.partition(".")[0]) < 77:
        pytest.skip(f"building needs setuptools 77 or newer, here is {version}: pip install 'setuptools>=77'")
    source = tmp_path_factory.mktemp("source")
    for name in NEEDED:
        shutil.copy(ROOT / name, source / name)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    out = tmp_path_factory.mktemp("wheel")
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(out),
        str(source),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_holds_only_the_package(names: set[str]) -> None:
    wrong = sorted(name for name in names if not name.startswith("fluxkv/"))
    assert not wrong, (
        "a top-level folder would collide with other packages; mend package-dir in pyproject.toml"
    )


def test_wheel_holds_every_module(names: set[str]) -> None:
    there = {"fluxkv/__init__.py"}
    there |= {
        f"fluxkv/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert there == {name for name in names if name.endswith(".py")}, "mend packages in pyproject.toml"


def test_wheel_holds_scripts_and_types(names: set[str]) -> None:
    scripts = {f"fluxkv/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("kvs/lua/*.lua")}
    assert scripts
    assert scripts | {"fluxkv/py.typed"} <= names, "mend package-data in pyproject.toml"
    assert not [name for name in names if name.endswith((".pyc", ".md", ".toml")) or "/tests/" in name]
