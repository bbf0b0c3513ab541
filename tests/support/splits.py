"""Three hosts with a server and a sentinel each, one with an instance and one that has joined it, as network namespaces whose links
are cut between any two. Jobs keep a diary; what is judged comes from the journal and from that.

The thread that uses a `Split` is inside the instance's host, so its clients are there, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import live
import netns
from journal_rules import Rules
from servers import NAME, Group, Served

from fluxkv.instances.client import Instance, connect
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.redis_store import open_store

NOWHERE = "02:00:00:00:00:99"  # nobody's address on the link
NETWORK = 0x40000000  # CLONE_NEWNET
CORES = 2
# Hosts are quickly offline here, and primaries quickly replaced.
CONFIG = '[resource]\noffline-after = "2s"\n'
MAX_LAG_S, DOWN_AFTER_MS = 1, 1500
# Each line names the attempt; the lock on the diary goes with the last process of an attempt.
TASK = """d={0}/${{FLUXKV_ATTEMPT%%.*}}; exec 9>>$d; flock -n 9 || echo "both $FLUXKV_ATTEMPT" >> $d
echo "start $FLUXKV_ATTEMPT" >> $d; {1}; echo "stop $FLUXKV_ATTEMPT" >> $d; exit {2}"""
HOLD = "until test -e {0}.go; do sleep 0.05; done"


@contextlib.contextmanager
def inside(space: str) -> Iterator[None]:
    """This thread, and what it starts, are in that network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{space}") as there:
        if libc.setns(there.fileno(), NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), NETWORK) == 0


class Split:
    """See above. hosts: s1, s2, s3 (servers and sentinels), home (the instance), far (joined)."""

    def __init__(self, network: netns.Network, folder: Path) -> None:
        names = ("s1", "s2", "s3", "home", "far")
        self.hosts = [network.host(folder, name, number) for number, name in enumerate(names, 1)]
        self.servers, (self.home, self.far) = self.hosts[:3], self.hosts[3:]
        self.folder = folder
        self.diary = folder / "diary"
        self.diary.mkdir()
        places = [(self.address(host), ("ip", "netns", "exec", host.space)) for host in self.servers]
        self.group = Group(folder / "g", DOWN_AFTER_MS, places)
        for server in self.group.servers:
            server.options = (*server.options, "--min-replicas-max-lag", str(MAX_LAG_S))
        self.acknowledged: dict[int, int] = {}  # job -> exit code
        self.refused = 0
        self.join_address = ""

    @staticmethod
    def address(host: netns.Host) -> str:
        return f"10.77.0.{host.number}"

    def up(self, *options: str) -> None:
        (self.folder / "site.toml").write_text(CONFIG)
        self.home.up("--redis", self.group.url, "--cores", str(CORES), "--config", str(self.folder / "site.toml"), *options)
        self.join_address = self.home.ok("uri", "--remote", "--state-dir", self.home.dir.path).strip()
        self.far.join(self.join_address)
        self.home.until(lambda s: len(s.nodes) == 2 and all(node.online for node in s.nodes.values()), "both nodes are online")

    # -- links

    def cut(self, some: Iterable[netns.Host], others: Iterable[netns.Host]) -> None:
        """Between each of the one and each of the other every packet is lost, silently, both ways."""
        for one, other in self._pairs(some, others):
            _ip("-n", one.space, "neigh", "replace", self.address(other), "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")

    def heal(self) -> None:
        """All links."""
        for one, other in self._pairs(self.hosts, self.hosts):
            subprocess.run(["ip", "-n", one.space, "neigh", "del", self.address(other), "dev", "eth0"], capture_output=True)

    @staticmethod
    def _pairs(some: Iterable[netns.Host], others: Iterable[netns.Host]) -> Iterator[tuple[netns.Host, netns.Host]]:
        for one in some:
            for other in others:
                if one is not other:
                    yield from ((one, other), (other, one))

    def rest(self, *but: netns.Host) -> list[netns.Host]:
        return [host for host in self.hosts if host not in but]

    def host_of(self, server: Served) -> netns.Host:
        return self.servers[self.group.servers.index(server)]

    def sentinel_of(self, server: Served) -> Served:
        return self.group.sentinels[self.group.servers.index(server)]

    # -- jobs

    def script(self, work: str = "true", code: int = 0) -> str:
        return TASK.format(self.diary, work, code)

    def submit(self, client: Instance, work: str = "true", code: int = 0, **options: object) -> int:
        """One job; 0 if it was not acknowledged."""
        try:
            id = int(client.submit(["sh", "-c", self.script(work, code)], env=self.home.env, **options))
        except Unavailable:
            self.refused += 1
            return 0
        self.acknowledged[id] = code
        return id

    def holding(self, name: str, code: int, **options: object) -> int:
        """A job that runs until `go(name)`."""
        work = HOLD.format(self.folder / name)
        id = self.submit(self.home.client, work, code, **options)
        assert id, "it was not acknowledged"
        self.home.running(id)
        self.home.written(self.diary / str(id))
        return id

    def go(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()

    def fresh(self) -> Instance:
        """A client that knows nothing of a lost branch."""
        if self.home._client is not None:
            self.home._client.close()
            self.home._client = None
        return self.home.client

    # -- the servers

    def moved(self, old: Served, patience_s: float = live.PATIENCE_S) -> Served:
        """Waits until a sentinel on the other side names another primary than the old one."""
        asked = next(one for one in self.group.sentinels if one is not self.sentinel_of(old))

        def named() -> Served | None:
            host, port = asked.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            found = f"{host.decode()}:{port.decode()}"
            return next((one for one in self.group.servers if one.place == found and one is not old), None)

        found: Served = asked.until(named, patience_s)
        return found

    def follows(self, server: Served, patience_s: float = live.PATIENCE_S) -> None:
        """Waits until it is a replica that has what its primary has."""
        server.until(lambda: server.info("replication").get("master_link_status") == "up", patience_s)

    def settled(self) -> None:
        """Waits until all sentinels name one primary, which both others follow. Before that sentinels may choose a former primary
        that has not become a replica yet, whatever the other has acknowledged since: a second fail-over within seconds."""
        first, *_ = self.group.sentinels
        first.until(lambda: len({tuple(one.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)) for one in self.group.sentinels}) == 1)
        primary = self.group.primary
        for server in self.group.servers:
            if server is not primary:
                self.follows(server)
        first.until(lambda: primary.info("replication").get("min_slaves_good_slaves") == "2")

    @staticmethod
    def sentinel_says(sentinel: Served) -> dict[str, str]:
        flat = [word.decode() for word in sentinel.ask("SENTINEL", "MASTER", NAME)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    # -- judgement

    def judge(self, lost: Iterable[int] = (), patience_s: float = live.PATIENCE_S) -> int:
        """P1 to P4: each acknowledged job (but those) was submitted once, has ended as it should; no attempt did anything twice,
        no two of a job ran at once; the journal keeps the rules; the fold is the live state. How many jobs ran again, as another
        attempt, since what the first one did was lost with its branch."""
        wanted = {id: code for id, code in self.acknowledged.items() if id not in set(lost)}
        state = self.home.until(
            lambda s: all(id in s.jobs and s.jobs[id].state == INACTIVE for id in wanted), "all acknowledged jobs ended", patience_s
        )
        assert {id: state.jobs[id].status for id in wanted} == {id: code << 8 for id, code in wanted.items()}
        submits: Counter[int] = Counter()
        rules = Rules({rank: set(range(CORES)) for rank in state.nodes})
        with contextlib.closing(open_store(self.home.uri)) as store:
            commits = list(Journal(store).commits())
        for commit in commits:
            submits.update(event[1] for event in commit.events if event[0] == "submit")
        rules.commits(commits)
        assert not rules.wrong, rules.wrong
        assert {id: submits[id] for id in wanted} == dict.fromkeys(wanted, 1)
        again = 0
        for path in self.diary.iterdir():
            lines = path.read_text().splitlines()
            assert len(lines) == len(set(lines)), f"job {path.name} did something twice: {lines}"
            assert not any(line.startswith("both") for line in lines), f"job {path.name}: two attempts at once: {lines}"
            if int(path.name) in wanted:
                last = lines[-1].split()[1]
                assert lines[-2:] == [f"start {last}", f"stop {last}"], f"job {path.name}: {lines}"
                again += len(lines) > 2
        self.home.sound()
        return again

    def lost_range(self) -> tuple[int, int]:
        """First and last version that the instance says are lost, once it says so."""
        self.home.said("server.failed", "are lost")
        text = Path(self.home.dir.join("run", "server.failed")).read_text()
        match = re.search(r"versions (\d+) to (\d+) are lost", text)
        assert match, text
        return int(match[1]), int(match[2])


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def split(folder: Path, *options: str) -> Iterator[Split]:
    """All of it, running; at the end no log holds a traceback and nothing stays behind."""
    with netns.network("cutlink") as network:
        made = Split(network, folder)
        with inside(made.home.space):
            try:
                with made.group:
                    made.up(*options)
                    yield made
                    made.heal()
                    for host in (made.home, made.far):
                        host.no_traceback()
                    for host in (made.far, made.home):
                        host.end()
                        host.nothing_left()
            finally:
                for host in (made.far, made.home):
                    host.end()


__all__ = ["Split", "connect", "inside", "split"]
