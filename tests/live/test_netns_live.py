"""Three hosts as network namespaces: jobs run across them, a link is cut and healed, a host reboots, the server's host dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import live
import netns
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.journal.ids import f58, parse_id
from fluxkv.kvs.redis_store import open_store

why = netns.missing()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why), reason=why)]

CONFIG = '[resource]\noffline-after = "1s"\n'
# Each start of it is a line in a file; it waits for a word, and ends with 7.
CANARY = 'echo "$FLUX_JOB_ATTEMPT $$ $(hostname)" >> {0}/{1}; until test -e {0}/{1}.go; do sleep 0.05; done; exit 7'
# The same, and a later attempt says whether the one before still runs (all hosts share the process numbers).
ALONE = (
    'if test -s {0}/{1}; then kill -0 $(tail -n1 {0}/{1} | cut -d" " -f2) 2>/dev/null && echo twice > {0}/{1}.twice; fi; ' + CANARY
)


class Cluster(NamedTuple):
    head: netns.Host
    h2: netns.Host
    h3: netns.Host
    folder: Path

    def submit(self, *words: str) -> int:
        return parse_id(self.head.ok("submit", *words).strip())

    def canary(self, name: str, script: str, *options: str) -> int:
        id = self.submit(*options, "sh", "-c", script.format(self.folder, name))
        self.head.running(id)
        self.head.written(self.folder / name)
        return id

    def go(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()

    def starts(self, name: str) -> list[list[str]]:
        return [line.split() for line in (self.folder / name).read_text().splitlines()]

    def rank(self, host: netns.Host) -> int:
        (found,) = [node.rank for node in self.head.client.state().nodes.values() if node.host == host.name]
        return found

    def is_online(self, host: netns.Host, wanted: bool) -> None:
        rank = self.rank(host)
        self.head.until(lambda s: s.nodes[rank].online == wanted, f"{host.name} {'online' if wanted else 'offline'}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("net")
    with netns.network() as network:
        hosts = [network.host(folder, name, number) for number, name in enumerate(("head", "h2", "h3"), 1)]
        head = hosts[0]
        (folder / "site.toml").write_text(CONFIG)
        head.up("--listen=10.77.0.1", "--cores", "2", "--config", str(folder / "site.toml"))
        address = head.ok("uri", "--remote", "--state-dir", head.dir.path).strip()
        for host in hosts[1:]:
            host.join(address)
        try:
            yield Cluster(hosts[0], hosts[1], hosts[2], folder)
            for host in hosts:
                host.no_traceback()
            for host in (*hosts[1:], head):
                host.ok("stop", "--state-dir", host.dir.path)
                host.nothing_left()
        finally:
            for host in hosts:
                host.end()


def test_a_job_on_all_hosts(cluster: Cluster) -> None:
    assert sorted(cluster.head.ok("run", "-N3", "hostname").split()) == ["h2", "h3", "head"]
    assert sorted(cluster.h3.ok("run", "-N3", "--uri", cluster.h3.dir.read()["uri"], "hostname").split()) == ["h2", "h3", "head"]


def test_a_link_is_cut_and_healed(cluster: Cluster) -> None:
    """What runs goes on, its end is heard of later, once; the node says why it is away, and what waits for it."""
    id = cluster.canary("cut", CANARY, "--requires=host:h2")
    cluster.h2.cut()
    try:
        cluster.is_online(cluster.h2, False)
        assert "no heartbeat for 1s" in cluster.head.ok("resource", "status", "-s", "offline", "-o", "long")
        assert "h2 is offline" in cluster.head.ok("jobs")
        cluster.go("cut")  # it ends while nobody can hear it
        assert cluster.head.ok("run", "-N2", "true") == ""  # the others work on
        assert not cluster.head.client.state().jobs[id].t_inactive
    finally:
        cluster.h2.heal()
    assert cluster.head.results([id]) == [7]
    cluster.is_online(cluster.h2, True)
    assert cluster.starts("cut") == [["1", cluster.starts("cut")[0][1], "h2"]]


def test_a_job_that_may_begin_again_elsewhere_does_so_when_it_is_over(cluster: Cluster) -> None:
    """Cut off, it is ended by its own launcher; only then, and only then, it begins again. So the one host never runs it with the
    other. A job without such a wish waits."""
    others = ["head,h2"]
    cluster.head.ok("resource", "drain", *others)
    id = cluster.canary("again", ALONE, "--retry=1", "--retry-on=node-failure")
    waits = cluster.canary("waits", CANARY)
    cluster.head.ok("resource", "undrain", *others)
    cluster.h3.cut()
    try:
        cluster.head.until(lambda s: s.jobs[id].number == 2 and bool(s.jobs[id].started), "the second attempt")
        cluster.go("again")
        assert cluster.head.results([id]) == [7]
        starts = cluster.starts("again")
        assert [(number, host == "h3") for number, _, host in starts] == [("1", True), ("2", False)]
        assert not (cluster.folder / "again.twice").exists()
        assert not cluster.head.client.state().jobs[waits].over
        names = cluster.head.events(id)
        assert names.count("requeue") == 1
        assert names.count("lost") == 1
    finally:
        cluster.h3.heal()
    cluster.is_online(cluster.h3, True)
    cluster.go("waits")
    assert cluster.head.results([waits]) == [7]
    assert len(cluster.starts("waits")) == 1


SPANS = """#!/bin/sh
for host in h2 h3; do
  fluxkv submit --requires=host:$host sh -c 'echo $$ > {0}/$0.new && mv {0}/$0.new {0}/$0; exec sleep 1000' {1}.$host || exit 1
done
exec sleep 1000
"""


@pytest.mark.parametrize("word", ["cancel", "fence"])
def test_a_part_of_a_cancelled_child_that_is_cut_off(cluster: Cluster, word: str) -> None:
    """What goes on there is believed by nobody, and ends when the link is back, whatever somebody has said of its host; only then
    the node is used again."""
    head, folder = cluster.head, cluster.folder
    script = folder / f"{word}.sh"
    script.write_text(SPANS.format(folder, word))
    id = parse_id(head.ok("batch", "-N2", "--requires=host:h2,h3", f"--output={folder}/{word}.out", str(script)).strip())
    tasks = {host: int(head.written(folder / f"{word}.{host}")) for host in ("h2", "h3")}
    with closing(open_store(child_uri(head.uri, id))) as child:
        cluster.h3.cut()
        try:
            cluster.is_online(cluster.h3, False)
            head.ok("cancel", f58(id))
            if word == "fence":
                head.ok("resource", "fence", "h3", "smoke")
                head.until(lambda s: s.jobs[id].t_inactive > 0, "it is over")
            deadline = time.monotonic() + live.PATIENCE_S
            while not (meta := child.meta()).sealed:
                assert time.monotonic() < deadline, head.logs()
                time.sleep(0.02)
            if word == "fence":
                assert head.ok("run", "--requires=host:h2", "hostname") == "h2\n", "the rest is free"
            twice = f"kill -0 {tasks['h3']} 2>/dev/null && echo twice > {folder}/{word}.twice; exit 5"
            after = cluster.submit("--requires=host:h3", "sh", "-c", twice)
            assert not runs(tasks["h2"])
            assert runs(tasks["h3"]), "nobody could tell it"
            state = head.client.state()
            assert (bool(state.jobs[id].t_inactive), bool(state.jobs[after].started)) == (word == "fence", False)
        finally:
            cluster.h3.heal()
        assert head.results([after]) == [5]
        assert not (folder / f"{word}.twice").exists(), "its node was given to another while it ran there"
        head.until(lambda s: s.jobs[id].t_inactive > 0, "it is over")
        assert not runs(tasks["h3"])
        assert child.meta().version == meta.version, "something was written when its time was over"
        assert child.meta().uid == meta.uid
    deadline = time.monotonic() + live.PATIENCE_S
    while left := [pid for pid in cluster.h3.processes() if live.inside(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    cluster.is_online(cluster.h3, True)


def runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_host_reboots(cluster: Cluster) -> None:
    id = cluster.canary("boot", CANARY, "--requires=host:h3")
    rank = cluster.rank(cluster.h3)
    cluster.h3.power_off()
    cluster.h3.next_boot()
    cluster.h3.ok("agent", "--state-dir", cluster.h3.dir.path, "--detach")
    state = cluster.head.until(lambda s: s.jobs[id].t_inactive > 0, "the job that ran there is over")
    assert cluster.rank(cluster.h3) == rank
    assert "node rebooted" in state.jobs[id].exception[1]
    cluster.is_online(cluster.h3, True)
    assert cluster.head.ok("run", "--requires=host:h3", "hostname") == "h3\n"
    assert len(cluster.starts("boot")) == 1


def test_a_person_s_word_that_a_host_is_off(cluster: Cluster) -> None:
    id = cluster.canary("fenced", ALONE, "--requires=host:h3,h2", "--retry=1", "--retry-on=node-failure")
    plain = cluster.canary("plain", CANARY, "--requires=host:h3")
    host = cluster.h3 if cluster.starts("fenced")[0][2] == "h3" else cluster.h2
    up = cluster.head.run("resource", "fence", host.name, "smoke")
    assert (up.returncode, "is online" in up.stderr) == (1, True), up.stderr
    cluster.h3.power_off()
    cluster.is_online(cluster.h3, False)
    cluster.head.ok("resource", "fence", "h3", "smoke came out of it")
    state = cluster.head.until(lambda s: s.jobs[plain].t_inactive > 0, "the job that ran there is over")
    assert "smoke came out of it" in state.jobs[plain].exception[1]
    cluster.go("fenced")
    assert cluster.head.results([id]) == [7]
    cluster.h3.next_boot()
    cluster.h3.ok("agent", "--state-dir", cluster.h3.dir.path, "--detach")
    cluster.is_online(cluster.h3, True)


def test_the_server_s_host_dies(cluster: Cluster) -> None:
    """Nobody is lost by that: tasks on other hosts run on, and their ends are told to the history that goes on."""
    id = cluster.canary("server", CANARY, "--requires=host:h2")
    cluster.head.power_off()
    cluster.go("server")
    cluster.head.next_boot()
    cluster.head.up()
    assert cluster.head.results([id]) == [7]
    for host in (cluster.h2, cluster.h3):
        cluster.is_online(host, True)
    assert sorted(cluster.head.ok("run", "-N3", "hostname").split()) == ["h2", "h3", "head"]
    assert len(cluster.starts("server")) == 1
    assert not any(event[0] == "offline" for commit in cluster.head.client.journal.commits() for event in commit.events
                   if commit.epoch == cluster.head.client.state().epoch)  # fmt: skip
    cluster.head.sound()
