"""What stands in docker/ fits together. Built and run only where an engine is at hand and FLUXKV_TEST_IMAGE names an image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))


def document(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def words_of_service() -> set[str]:
    return set(re.findall(r"^([a-z]+)\)", (DOCKER / "service").read_text(), re.MULTILINE))


def test_the_image_has_what_it_copies_and_is_not_root_s() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.*)", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert list(ROOT.glob(source)), f"COPY {source}: there is no such file"
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["flux"]
    packages = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/__init__.py")} - {"tests"}
    copied = set(re.findall(r"^COPY (\w+) /src/", text, re.MULTILINE))
    assert packages <= copied, "a package of the wheel is not in the image"
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{name}" for name in [*packages, "docker", "pyproject.toml", "README.md", "LICENSE"]} <= set(ignore)


def test_the_service_script_is_one() -> None:
    for shell in ("sh", "bash"):
        assert subprocess.run([shell, "-n", str(DOCKER / "service")]).returncode == 0
    assert os.access(DOCKER / "service", os.X_OK)
    named = set(re.findall(r'\$conf/([\w.]+)|configure ([\w.]+)', (DOCKER / "service").read_text()))
    for name in {one for pair in named for one in pair if one and "$" not in one}:
        assert (DOCKER / name).exists(), name


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_holds_together(path: Path) -> None:
    found = document(path)
    services, volumes = found["services"], set(found["volumes"])
    known = words_of_service()
    roles = []
    for name, service in services.items():
        command = service["command"]
        assert command[0] == "/etc/fluxkv/service"
        assert command[1] in known, f"{name}: {command[1]}"
        roles.append(command[1])
        for other in service.get("depends_on", {}):
            assert other in services, f"{name} depends on {other}"
        for mount in service.get("volumes", ()):
            assert mount.split(":")[0] in volumes, f"{name}: {mount}"
        address = service.get("environment", {}).get("FLUXKV_URI", "")
        hosts = re.findall(r"@([^/?#]+)", address)
        for host in hosts[0].split(",") if hosts else ():
            assert host.partition(":")[0] in services, f"{name}: {host}"
    assert roles.count("head") + roles.count("node") == 3
    assert roles.count("head") + roles.count("worker") == 2
    assert roles.count("server") == 1 or (roles.count("replicated"), roles.count("sentinel")) == (3, 3)


def test_the_image_runs_jobs() -> None:
    image = os.environ.get("FLUXKV_TEST_IMAGE", "")
    if not image or shutil.which("docker") is None:
        pytest.skip("FLUXKV_TEST_IMAGE names no image, or there is no docker")
    words = ["docker", "run", "--rm", "--init", image, "sh", "-c", "id -u; fluxkv start fluxkv run -n2 echo hi"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["1000", "hi", "hi"], done.stderr
