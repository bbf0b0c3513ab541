"""The shipped example (`tools/screening.py`): a workflow killed half-way, all of it, that finishes without repeating."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from live import Site, site

import fluxkv
from fluxkv.instances.child import child_uri
from fluxkv.tools.screening import Plan, divide, generate, lowest

pytestmark = pytest.mark.live
COUNT, BEST = 480, 6


def driver(site: Site, folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "fluxkv.tools.screening", f"--directory={folder}", f"--molecules={COUNT}", f"--best={BEST}"]
    env = {**site.env, "FLUXKV_URI": site.uri, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def lines(folder: Path) -> Counter[str]:
    """How often each molecule was docked."""
    return Counter(line.split()[0] for path in (folder / "scores").iterdir() for line in path.read_text().splitlines())


def molecule_of(event: fluxkv.Event) -> str:
    return str((event.context or {})["jobspec"]["tasks"][0]["command"][1])


def table(said: str) -> list[str]:
    return said.split("REFINED\n")[1].splitlines()[:-2]


def test_all_is_killed_half_way_and_nothing_that_was_done_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with site(tmp_path / "site", "--cores", "2") as one:
        first = driver(one, folder)
        state = one.until(lambda s: any(j.name == "screen-0" and j.memo.get("uri") for j in s.jobs.values()), "a part is screened")
        parts = {job.name: job.id for job in state.jobs.values() if job.name.startswith("screen-")}
        with fluxkv.connect(child_uri(one.uri, parts["screen-0"])) as child:
            ended = 0
            for event in child.events(follow=True):
                ended += event.name == "finish"
                if ended == COUNT // 6:
                    break
        while found := one.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        first.communicate(timeout=20)
        assert first.returncode == -signal.SIGKILL
        before = lines(folder)
        one.up()
        done = set()
        for id in parts.values():
            with contextlib.suppress(fluxkv.Unavailable), fluxkv.connect(child_uri(one.uri, id)) as child:
                told = list(child.events())
            over = {event.subject for event in told if event.name == "finish"}
            done |= {molecule_of(event) for event in told if event.name == "submit" and event.subject in over}
        assert COUNT // 6 <= len(done) < COUNT

        second = driver(one, folder)
        said, _ = second.communicate(timeout=100)
        assert second.returncode == 0, said
        assert "resumed" in said
        assert len(table(said)) == BEST
        after = lines(folder)
        assert len(after) == COUNT
        assert {molecule: after[molecule] for molecule in done} == {molecule: before[molecule] for molecule in done}

        tip = one.client.state().version
        third = driver(one, folder)
        assert table(third.communicate(timeout=60)[0]) == table(said)
        assert one.client.state().version == tip, "a workflow that is over was begun again"
        listed = one.run("jobs", "-a", "-R", "--no-header", "--format", "{name} {result}").stdout
        assert listed.count("dock.sh COMPLETED") == COUNT, listed
        assert f"screen-0:CD ({COUNT // 2}/{COUNT // 2} done)" in one.run("tree", "-a").stdout


def test_the_machine_is_divided() -> None:
    assert divide(1, 1) == Plan(1, 1, 1)
    assert divide(1, 2) == Plan(2, 1, 2)
    assert divide(1, 9) == Plan(2, 4, 9)
    assert divide(4, 64) == Plan(4, 16, 16)


def test_the_library_is_the_same_each_time_and_what_was_docked_twice_counts_once(tmp_path: Path) -> None:
    assert generate(str(tmp_path), 20) == 20
    library = (tmp_path / "molecules.txt").read_text()
    generate(str(tmp_path), 20)
    assert (tmp_path / "molecules.txt").read_text() == library
    (tmp_path / "scores").mkdir()
    for molecule in [*library.split(), library.split()[3]]:
        subprocess.run([tmp_path / "dock.sh", molecule, tmp_path / "scores" / "0.txt"], check=True)
    best = lowest(tmp_path, 5)
    assert len(best) == len(dict(best)) == 5
    assert best[0][1] == min(energy for _, energy in lowest(tmp_path, 99))
    assert all(-12 <= energy <= 0 for _, energy in best)
