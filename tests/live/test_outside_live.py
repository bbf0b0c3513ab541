"""Instances on servers that somebody else runs: beside one another, with a password nobody sees, through the loss of a primary."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from live import Site, site
from servers import Group, Served

pytestmark = pytest.mark.live
SECRET = "geheim+/@:"
QUOTED = "geheim%2B%2F%40%3A"


def shown_anywhere(made: Site, served: Served) -> list[str]:
    """Where the password can be read, files of ours but its own and those of the server left aside."""
    found = []
    for path in made.folder.rglob("*"):
        if path.is_file() and path.name != "password" and (SECRET in (text := path.read_text(errors="replace")) or QUOTED in text):
            found.append(str(path))
    for pid in made.processes():
        for name in ("cmdline", "environ"):
            try:
                data = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            if SECRET.encode() in data or QUOTED.encode() in data:
                found.append(f"{name} of {pid}")
    for key in served.ask("KEYS", "*"):
        if SECRET.encode() in served.ask("DUMP", key) or QUOTED.encode() in served.ask("DUMP", key):
            found.append(key.decode())
    return found


def test_two_instances_on_a_server_with_a_password(tmp_path: Path) -> None:
    with (
        Served(tmp_path / "s", "--requirepass", SECRET, user=f":{QUOTED}@") as served,
        site(tmp_path / "a", start=False) as one,
        site(tmp_path / "b", start=False) as two,
    ):
        # The password among the words, and as a variable; the address among the words, and as a setting.
        one.up("--redis", served.url, "--cores", "2")
        two.env["FLUXKV_REDIS_PASSWORD"] = SECRET
        settings = tmp_path / "fluxkv" / "config.toml"
        settings.parent.mkdir()
        settings.write_text(f'start.redis = "valkey://{served.place}#/site/b"\n')
        two.env["XDG_CONFIG_HOME"] = str(tmp_path)
        two.up("--cores", "2")
        assert two.uri.endswith("#/site/b")
        assert two.run("start", "--redis", "none", "--fake", "sh", "-c", "echo $FLUXKV_URI").stdout.startswith("unix:")
        for made in (one, two):
            done = made.run("submit", "--wait", "sh", "-c", "env; cat /proc/$PPID/cmdline")
            assert done.returncode == 0, done.stderr
            for words in (["status"], ["status", "--json"], ["list"], ["dmesg"], ["journal", "show"], ["doctor"]):
                done = made.run(*words)
                assert done.returncode == 0, done.stdout + done.stderr
                assert SECRET not in done.stdout + done.stderr, words
                assert QUOTED not in done.stdout + done.stderr, words
            assert os.stat(made.dir.join("password")).st_mode & 0o777 == 0o600
            assert shown_anywhere(made, served) == []
        # Whoever names another's place is refused; the own one is taken up again.
        refused = two.run("start", "--state-dir", str(tmp_path / "c"), "true")
        assert refused.returncode == 1
        assert "made by" in refused.stderr
        assert str(two.dir.path) in refused.stderr
        del two.env["XDG_CONFIG_HOME"], two.env["FLUXKV_REDIS_PASSWORD"]
        one.stop()
        assert two.results([two.submit("true")]) == [0]
        one.up()
        assert one.results([one.submit("true")]) == [0]
        one.sound()


def test_a_server_that_may_lose_things_is_refused(tmp_path: Path) -> None:
    evicting = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with Served(tmp_path / "s", *evicting) as served, site(tmp_path / "a", start=False) as made:
        served.ask("CONFIG", "SET", "appendonly", "no")
        assert made.run("start", "--redis", served.url, "true").returncode == 1
        assert made.run("list", "--no-header").stdout == "", "what never came to be is not listed"
        refused = made.run("start", "--redis", served.url, "--state-dir", made.dir.path, "true")
        assert refused.returncode == 1
        for mend in ("appendonly yes", "maxmemory-policy noeviction", "--unsafe-server"):
            assert mend in refused.stderr
        served.ask("CONFIG", "SET", "appendonly", "yes")
        served.ask("CONFIG", "SET", "appendfsync", "everysec")
        served.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        refused = made.run("start", "--state-dir", made.dir.path, "true")
        assert refused.returncode == 1
        assert "appendfsync is everysec" in refused.stderr
        assert served.ask("DBSIZE") == 0, "nothing was written"
        done = made.run("start", "--redis", served.url, "--unsafe-server", "--state-dir", made.dir.path, "echo", "taken")
        assert (done.returncode, done.stdout) == (0, "taken\n"), done.stderr


def test_a_server_that_is_restarted_is_taken_up_again(tmp_path: Path) -> None:
    with Served(tmp_path / "s") as served, site(tmp_path / "a", start=False) as made:
        made.up("--redis", served.url, "--cores", "2")
        before = made.submit("true")
        assert made.results([before]) == [0]
        epoch = made.client.store.meta().epoch
        served.kill()
        made.said("server.failed", "no server answers")
        status = made.run("status")
        assert "no server answers" in status.stdout
        assert status.returncode == 3
        served.start()
        made.until(lambda state: state.epoch != epoch, "a new epoch")
        assert made.results([made.submit("true")]) == [0]
        assert not os.path.exists(made.dir.join("run", "server.failed"))
        made.sound()


def test_a_primary_is_lost_under_a_stream_of_submissions(tmp_path: Path) -> None:
    """What was acknowledged is there, or its loss is reported: with one replica that must have it, nothing is lost here."""
    with Group(tmp_path / "g") as group, site(tmp_path / "a", start=False) as made:
        made.up("--redis", group.url, "--cores", "2")
        made.client.store.patience_s = 30.0
        old = group.primary
        ids = []
        for number in range(60):
            ids.append(made.submit("true"))
            if number == 20:
                old.signal(signal.SIGKILL)
        new = group.primary
        assert new is not old
        # And once more, in order, while a job runs.
        sleeper = made.submit("sleep 100")
        made.running(sleeper)
        planned = made.run("ops", "failover", "--dry-run")
        assert (planned.returncode, "COORDINATED" in planned.stdout) == (0, True), planned.stderr
        assert group.primary is new
        done = made.run("ops", "failover")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"the primary is {group.primary.place}" in done.stdout
        assert group.primary is not new
        ids += [made.submit("true") for _ in range(5)]
        made.running(sleeper)
        made.client.cancel([sleeper])
        state = made.until(lambda state: all(id in state.jobs and state.jobs[id].t_inactive for id in ids), "all ended", 40)
        assert {state.jobs[id].status for id in ids} == {0}
        made.sound()


def test_a_fail_over_that_lost_commits_is_reported_and_nobody_goes_on(tmp_path: Path) -> None:
    """P1: two replicas that had stopped listening; what only the old primary had is known to be lost, with the versions."""
    with Group(tmp_path / "g") as group, site(tmp_path / "a", start=False) as made:
        made.up("--redis", group.url, "--cores", "2")
        assert made.results([made.submit("true")]) == [0]
        old = group.primary
        kept = made.client.store.meta().version
        for server in group.servers:
            server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        for server in group.servers[1:]:
            server.until(lambda one=server: int(one.info("replication")["slave_repl_offset"]) >= 0)
            server.ask("REPLICAOF", "127.0.0.1", "1")
        lost = [made.submit("true") for _ in range(5)]
        assert made.results(lost) == [0] * 5
        tip = made.client.store.meta().version
        made.witnessed(tip)
        old.kill()
        made.said("server.failed", "are lost")
        status = made.run("status", "--state-dir", made.dir.path).stdout
        match = re.search(r"versions (\d+) to (\d+) are lost", status)
        assert match, status
        first, last = map(int, match.groups())
        assert first > kept
        assert last >= tip
        refused = made.run("submit", "true")
        assert refused.returncode in (3, 4), refused.stdout
        looked = made.run("ops", "adopt")
        assert looked.returncode == 4, looked.stderr
        done = made.run("ops", "adopt", "--force")
        assert done.returncode == 0, done.stderr
        made.until(lambda state: all(node.online for node in state.nodes.values()), "the node speaks again")
        assert made.results([made.submit("true")]) == [0]
