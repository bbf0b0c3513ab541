"""Random daemons killed, again and again, under fifty real jobs: see `support/chaos.py`. `make soak` plays a thousand rounds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from chaos import SPARED, Chaos
from live import fill, site, small_disk

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]  # others may use the machine

SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "4"))
GAP_S = (0.02, 0.3)
LEASE_S = 0.6
FULL_S = 4.0


def test_twenty_rounds_with_the_launcher_spared(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S) as chaos:
        for number in range(1, 21):
            chaos.one_round(chaos.draw(), wait=chaos.random.random() < 0.5)
            if number % 10 == 0:
                chaos.audit()
        one.sound()
        print(chaos.report())


def test_the_launcher_killed_among_others_and_jobs_that_try_again(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S, retry=10) as chaos:
        for _ in range(3):
            others = chaos.draw()[: chaos.random.randrange(3)]
            chaos.one_round([*others, "launcher"])
        chaos.audit(whole=False)
        one.sound()
        print(chaos.report())


def test_everything_killed_at_once_and_started_again(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S) as chaos:
        for _ in range(2):
            chaos.one_round([*SPARED, "launcher"])
        chaos.audit(whole=False)
        one.sound()
        print(chaos.report())


def test_stopped_for_twice_a_lease_and_gone_on(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8", "--workers", "2") as one, Chaos(one, SEED, gap_s=GAP_S) as chaos:
        one.dir.write({**one.dir.read(), "lease_ms": int(LEASE_S * 1000)})
        one.kill("worker-0", "worker-1")
        chaos.top_up()
        chaos.follower.until(lambda: one.ask("GET", one.keys.lease), "somebody plans", chaos.failed)
        for roles in (["agent"], ["server", "keeper"], ["worker"], ["worker", "agent"]):
            leader = (one.ask("GET", one.keys.lease) or b"worker-0").decode()
            chaos.follower.look()
            tip = chaos.follower.state.version

            def another_plans(leader: str = leader, tip: int = tip) -> None:
                chaos.follower.until(lambda: any(version > tip and whose.startswith("worker") and whose != leader
                                                 for version, whose, *_ in chaos.follower.commits),
                                     f"another worker than {leader} plans", chaos.failed)  # fmt: skip

            stopped = [leader if role == "worker" else role for role in roles]
            chaos.freeze(stopped, 2 * LEASE_S, another_plans if roles == ["worker"] else lambda: None)
        chaos.audit()
        one.sound()


def test_killed_while_memory_is_full(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S) as chaos:
        for roles in (["worker-0"], ["agent", "keeper"]):
            chaos.round += 1
            chaos.top_up()
            one.ask("CONFIG", "SET", "maxmemory", "1mb")
            chaos.strike(roles)
            refused = one.run("submit", "true")
            assert (refused.returncode, "memory" in refused.stderr) == (3, True), refused.stderr
            one.ask("CONFIG", "SET", "maxmemory", "0")
        chaos.audit()
        one.sound()


def test_killed_while_the_disk_is_full(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small", "16m") as small,
        site(small, "--cores", "8") as one,
        Chaos(one, SEED, gap_s=GAP_S, root=tmp_path) as chaos,
    ):
        chaos.top_up()
        fill(small / "filler")
        chaos.strike(["agent", "worker-0"])
        for again in range(10):  # what those who died have left, and what ends of tasks give back, is room for one more
            fill(small / f"filler{again}")
            if one.run("submit", "--quiet", "sh", "-c", "true " + "x" * 100_000).returncode:
                break
        else:
            pytest.fail("a full disk took ten large jobs")
        time.sleep(FULL_S)  # long enough for daemons to try, and fail, more often than a fault of theirs would be borne
        for filler in small.glob("filler*"):
            filler.unlink()
        chaos.top_up()
        chaos.audit()
        assert "given up" not in one.run("status").stdout
        one.sound()
