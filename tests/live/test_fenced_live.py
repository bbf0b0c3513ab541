"""Children whose jobs are over, under real daemons: nothing begins in them any more, all of them is read."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.journal.ids import encode, f58, parse_id
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.uri import parse_server, parse_uri

pytestmark = pytest.mark.live


def left_inside(site: Any) -> list[int]:
    return [pid for pid in site.processes() if live.inside(pid)]


def begun(site: Any) -> tuple[int, str]:
    """A child in the background with a job in it that stays: its id and its URI."""
    done = site.run("alloc", "--bg", "-n1")
    assert done.returncode == 0, done.stderr
    id = parse_id(done.stdout.strip())
    child = child_uri(site.uri, id)
    assert site.run("submit", "--uri", child, "--job-name=inside", "sleep", "1000").returncode == 0
    return id, child


def takes_nothing(site: Any, *words: str) -> None:
    done = site.run(*words)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("fluxkv: the instance at /"), done.stderr
    assert "has ended: nothing begins or changes there any more" in done.stderr.splitlines()[0]


def test_a_child_whose_job_is_over_takes_nothing_and_is_read(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        # in order
        id, child = begun(site)
        assert site.run("stop", "--uri", child).returncode == 0
        assert site.results([id]) == [0]
        at = ["--uri", child]
        for words in (["submit", *at, "true"], ["kvs", "put", *at, "a=1"], ["queue", "stop", *at]):
            takes_nothing(site, *words)
        for words in (["jobs", "-an", "-o", "{name}", *at], ["jobs", "-an", "-o", "{name}", f"{f58(id)}/"]):
            assert site.run(*words).stdout == "inside\n"
        # all of it killed: its parent's keeper sees to it
        id, child = begun(site)
        with contextlib.closing(open_store(child)) as store:
            for pid in left_inside(site):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert site.results([id]) != [0]
            deadline = time.monotonic() + live.PATIENCE_S
            while site.client.store.children():
                assert time.monotonic() < deadline, site.logs()
            assert store.meta().sealed
        takes_nothing(site, "submit", "--uri", child, "true")
        # its job was ended without it, by somebody's word: it goes by itself, and does not come back
        id, child = begun(site)
        with contextlib.closing(open_store(child)) as store:
            store.seal(store.meta().uid)
        assert site.results([id]) == [0]
        assert not left_inside(site)
        (again,) = [path for path in Path(site.dir.join("ns")).iterdir() if path.name.startswith(encode(id, "f58plain") + "-")]
        done = site.run("start", "--detach", "--state-dir", str(again))
        assert done.returncode != 0
        assert "has ended" in done.stderr
        site.sound()


def test_a_child_acts_as_a_user_of_its_own_as_long_as_its_job_runs(tmp_path: Path) -> None:
    """Two levels; what is inside them, the way up, a restart of the server, and the end."""
    with live.site(tmp_path, "--cores", "2") as site:
        script = tmp_path / "inner"
        script.write_text(
            "#!/bin/sh\nfluxkv run sh -c 'echo $FLUXKV_URI'; fluxkv --parent uri; fluxkv --parent --parent uri\n"
            f"fluxkv --parent --parent submit --job-name=up true; fluxkv doctor | grep access: ; echo >{tmp_path}/up; sleep 1000\n"
        )
        id = parse_id(site.run("alloc", "--bg", "-n1").stdout.strip())
        done = site.run("--instance", f58(id), "batch", "-n1", f"--output={tmp_path}/out", str(script))
        assert done.returncode == 0, done.stderr
        inner = parse_id(done.stdout.strip())
        site.written(tmp_path / "up")
        lines = (tmp_path / "out").read_text().splitlines()
        users = [parse_server(parse_uri(line).server).user for line in lines[:3]]
        assert users[0].startswith(f"fluxkv-f{f58(id)[1:]}.f{f58(inner)[1:]}-")
        assert users[1].startswith(f"fluxkv-f{f58(id)[1:]}-")
        assert lines[2] == site.uri
        assert lines[4].startswith("ok   access: acts as the user fluxkv-")
        uris = lines[:2]
        assert site.client.job(id).memo == {"uri": child_uri(site.uri, id)}, "the address that outlives the user"
        known = sorted(user.decode() for user in site.ask("ACL", "USERS"))
        assert known == sorted(["default", *users[:2]])
        # The server forgets its users; keepers make them again, and commands wait for that.
        site.kill("server")
        for uri in uris:
            done = site.run("queue", "status", "--uri", uri)
            assert done.returncode == 0, done.stderr
        assert sorted(user.decode() for user in site.ask("ACL", "USERS")) == known
        # Whoever still acts as one of them when the job is over is refused.
        site.client.cancel([id])
        site.results([id])
        deadline = time.monotonic() + live.PATIENCE_S
        while site.client.store.children():
            assert time.monotonic() < deadline, site.logs()
        assert site.ask("ACL", "USERS") == [b"default"]
        done = site.run("submit", "--uri", uris[1], "true")
        assert done.returncode != 0
        assert "let us not in" in done.stderr
        assert "has ended" in done.stderr
        assert site.run("jobs", "-an", "-o", "{name}", "--uri", child_uri(site.uri, id)).stdout == "inner\n"
        assert not left_inside(site)
        site.sound()
