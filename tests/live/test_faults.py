"""Real daemons, killed, stopped, starved and started twice: nothing acknowledged is lost, nothing runs twice."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.live


def _support() -> Any:
    name = "fluxkv_tests_live"
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "support" / "live.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


live = _support()


class Load:
    """Short jobs, each of which leaves its number in a file; long ones that print, wait for a word, and print again."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.canary = site.folder / "canary"
        self.word = site.folder / "go"
        self.short: list[int] = []
        self.codes: list[int] = []
        self.long: list[int] = []

    def add(self, count: int) -> None:
        """Short jobs: number n ends with code n % 5."""
        first = len(self.short)
        scripts = [f"echo {n} >>{self.canary}; exit {n % 5}" for n in range(first, first + count)]
        commands = [["sh", "-c", script] for script in scripts]
        self.short += self.site.client.submit_many(commands, env=self.site.env)
        self.codes += [n % 5 for n in range(first, first + count)]

    def add_long(self, count: int) -> None:
        """Long jobs, ending with code 7; returns when they run."""
        script = f"echo before; while [ ! -e {self.word} ]; do sleep 0.02; done; echo long >>{self.canary}; echo after; exit 7"
        self.long += [self.site.submit(script) for _ in range(count)]
        self.site.running(*self.long)

    def check(self, *, spared: bool = True) -> None:
        """All end with the right code, once each. spared: the launcher lived, so that the long ones did too."""
        self.word.touch()
        found = self.site.results(self.short)
        wrong = [id for id, code, right in zip(self.short, found, self.codes, strict=True) if code != right]
        assert not wrong, (found, self.site.run("job", "eventlog", str(wrong[0])).stdout, self.site.logs())
        lines = self.canary.read_text().split()
        numbers = sorted(int(line) for line in lines if line != "long")
        if spared:
            assert numbers == list(range(len(self.short)))
            assert self.site.results(self.long) == [7] * len(self.long)
            assert lines.count("long") == len(self.long)
            for id in self.long:
                done = self.site.run("job", "attach", str(id))
                assert done.stdout == "before\nafter\n", done
        else:
            assert set(numbers) == set(range(len(self.short)))


@pytest.mark.parametrize(
    "roles",
    [
        ("worker-0",), ("agent",), ("keeper",), ("server",),
        ("keeper", "worker-0"), ("server", "agent"), ("server", "keeper"), ("worker-0", "agent"),
    ],
    ids=" and ".join,
)  # fmt: skip
def test_killed_daemons_come_back_and_nothing_is_lost(roles: tuple[str, ...], tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        load.add_long(2)
        load.add(20)
        site.kill(*roles)
        load.add(10)
        load.check()
        for role in ("worker-0", "agent", "keeper", "launcher"):
            site.pid(role)
        site.sound()
        site.stop()
        site.nothing_left()
