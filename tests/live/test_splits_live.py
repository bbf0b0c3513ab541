"""Servers with sentinels on hosts whose links are cut: what was acknowledged stays, nothing runs twice, what was lost is known."""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from collections.abc import Callable

import live
import netns
import pytest
from splits import Split, connect, inside, split

from fluxkv.kvs.errors import FluxkvError

why = netns.missing()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why), reason=why)]


def submit_until(made: Split, holds: Callable[[], object]) -> None:
    """One client submits on and on until that is so."""
    deadline = time.monotonic() + live.PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, made.home.logs()
        made.submit(made.home.client)
        time.sleep(0.02)  # some at each moment of what happens, not thousands


def test_a_host_is_cut_off_with_a_replica_and_then_the_primary_with_its_sentinel(tmp_path: pathlib.Path) -> None:
    """The small side never chooses a primary, and its tasks go on. Clients that stay connected to a primary which is cut off from
    the others, and to its sentinel, get no more acknowledgements, and go to the new one."""
    with split(tmp_path, "--durability", "replicated", "--on-fork", "adopt") as made:
        old = made.group.primary
        away = next(server for server in made.group.servers if server is not old)
        small = [made.far, made.host_of(away)]
        seen = made.home.ok("status")  # its directory lies where nobody looks
        assert f"directory {made.home.dir.path}" in seen
        assert re.search(r"daemons .*worker-0 \d+.*agent \d+.*keeper \d+", seen), seen
        seen = made.far.ok("status", "--state-dir", made.far.dir.path)
        assert re.search(r"daemons .*agent \d+.*keeper \d+", seen), seen
        assert re.search(r"heard of   worker-0 plans; agents of far \S+ ago, home \S+ ago; .*keeper last said", seen), seen
        ends = made.holding("ends", 3, constraint="host:far")
        made.cut(small, made.rest(*small))
        made.home.until(lambda s: any(not node.online for node in s.nodes.values()), "far is offline")
        made.go("ends")
        with inside(made.far.space), contextlib.closing(connect(made.far.dir.read()["uri"])) as there:
            alone = made.sentinel_of(away)
            alone.until(lambda: "s_down" in made.sentinel_says(alone)["flags"])
            there.store.patience_s = 0.0
            with pytest.raises(FluxkvError):
                there.submit(["true"])
            assert made.sentinel_says(alone)["config-epoch"] == "0"
            assert away.info("replication")["role"] == "slave"
        assert made.submit(made.home.client, code=1), "the large side works on"
        made.heal()
        made.home.until(lambda s: all(node.online for node in s.nodes.values()), "far is back")
        made.judge()
        made.follows(away)

        runs = made.holding("runs", 7)
        host = made.host_of(old)
        epoch = made.home.client.state().epoch
        made.cut([host], [other for other in made.servers if other is not host])
        made.home.client.store.patience_s = 1.0
        submit_until(made, lambda: made.home.client.store.meta().epoch != epoch)
        assert made.moved(old) is not old
        assert made.refused
        made.fresh()
        assert made.submit(made.home.client)
        made.go("runs")
        made.heal()
        made.follows(old)
        made.judge()
        assert {ends, runs} <= set(made.acknowledged)


def test_what_an_unsafe_primary_took_is_known_to_be_lost(tmp_path: pathlib.Path) -> None:
    """min-replicas-to-write 0, which doctor warns of: cut off, a primary goes on acknowledging. The first who reads the other says
    which versions are lost; nobody writes there; what runs of the lost branch is adopted or ended, with an event."""
    with split(tmp_path) as made:
        for server in made.group.servers:
            server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        warned = made.home.run("doctor").stdout
        assert "min-replicas-to-write is 0" in warned
        assert "durability is strict" in warned
        old = made.group.primary
        host = made.host_of(old)
        known = made.holding("known", 5)
        kept = made.home.client.store.meta().version
        made.cut([host], [other for other in made.servers if other is not host])
        lost = [made.holding("unknown", 6), *[made.submit(made.home.client) for _ in range(3)]]
        assert all(lost), "it goes on acknowledging"
        tip = made.home.client.store.meta().version
        made.moved(old)
        first, last = made.lost_range()
        assert (kept < first <= tip, last >= tip) == (True, True), (kept, first, tip, last)
        refused = made.home.run("submit", "true")
        assert (refused.returncode, refused.stdout) == (3, ""), refused.stderr
        assert made.fresh().store.meta().version == first - 1, "somebody wrote to the fork"
        done = made.home.run("ops", "adopt", "--force")
        assert done.returncode == 0, done.stderr
        made.home.until(lambda s: all(node.online for node in s.nodes.values()), "the nodes have spoken")
        made.go("known")
        assert made.submit(made.home.client, code=2)
        made.heal()
        made.follows(old)
        made.judge(lost)
        commits = list(made.home.client.journal.commits())
        events = [event for commit in commits for event in commit.events]
        assert [event[3]["lost"] for event in events if event[0] == "adopt"] == [[first, last]]
        assert any(event[0] == "fence" and str(lost[0]) in str(event[3]) for event in events), "its task was ended without a word"
        assert not any(event[1] in lost for event in events)
        assert known in made.acknowledged
