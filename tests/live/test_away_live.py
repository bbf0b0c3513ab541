"""A child that ended, out of its parent's server by the keeper's word: every line of before has the answer of before."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances import handover
from fluxkv.instances.away import bring_back, file_of
from fluxkv.instances.child_store import ChildStore
from fluxkv.instances.departing import LEASE, Departing
from fluxkv.instances.paths import open_instance
from fluxkv.instances.whereabouts import store_of
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.failpoints import VARIABLE
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.server import start_server
from fluxkv.tools.topfeed import opener

pytestmark = pytest.mark.live

SCRIPT = """#!/bin/sh
fluxkv run echo said inside
fluxkv run false
fluxkv kvs put a.b=7
fluxkv batch -n1 --output=none --wrap fluxkv run echo deep
fluxkv queue drain
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[live.Site]:
    with live.site(tmp_path, "-s2", "--cores=2") as made:
        yield made


def said(site: Any, *words: str) -> str:
    done = site.run(*words)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("events ")]  # how fast that went
    return "\n".join([f"{' '.join(words)}: {done.returncode}", *lines])


def ids(site: Any, *words: str) -> dict[str, str]:
    """Jobs by name."""
    done = site.run(*words, "jobs", "-a", "-n", "-o", "{name} {id}")
    return dict(line.split() for line in done.stdout.splitlines())


def test_what_left_the_server_answers_as_before_and_is_gone_on_with(site: live.Site, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT)
    top = site.run("batch", "--output=none", "-n1", str(script)).stdout.strip()
    assert site.run("job", "wait", top).returncode == 0
    names = ids(site, "--instance", top)
    job, deep = f"{top}/{names['echo']}", f"{top}/{names['batch']}"
    lines = [
        ("jobs", "-a", "-R", "-n", "-o", "{id} {status} {returncode}"), ("tree", "-a"), ("job", "eventlog", job),
        ("job", "attach", job), ("job", "info", job, "jobspec"), ("--instance", deep, "jobs", "-a", "-n", "-o", "{name} {status}"),
        ("replay", deep, "--diff", "live"), ("--instance", top, "jobs", "-a", "--at", "5", "-n", "-o", "{id} {status}"),
        ("--instance", top, "kvs", "get", "a.b"), ("--instance", top, "journal", "verify"), ("--instance", top, "submit", "true"),
        ("--instance", top, "kvs", "put", "a.c=1"), ("jobs", "-a", "-n", "-o", "{id} {instance.stats.failed}"),
        ("jobs", "-a", "-n", "--uri", f"{site.uri}#/{top}", "-o", "{id}"),
    ]  # fmt: skip
    before = [said(site, *line) for line in lines]
    with contextlib.closing(open_store(site.uri)) as store:
        key = Keys("/").away
        config = tmp_path / "site.toml"
        config.write_text("retention.keep-children = '0s'\narchive.every = '1s'\n")
        assert site.run("config", "load", str(config)).returncode == 0
        with contextlib.closing(store.subscribe({key: "0"})) as heard:
            assert heard.poll(live.PATIENCE_S), "the keeper has it moved"
        while store.inside():  # the archiver's process waits for those who read; we know of nobody
            with contextlib.suppress(Unavailable):  # it is at work
                assert not Departing(store, site.dir.join("archive"), site.uri, 0.0, grace_s=0.0).run().failed
        assert [said(site, *line) for line in lines] == before
        assert f"#/{deep} " in site.run("top", "--once", deep).stdout.splitlines()[0]
        refused = site.run("--instance", top, "journal", "children", "--archive", "--now")
        assert refused.returncode == 1
        assert "is read from the archive itself" in refused.stderr
        again = site.run("batch", "--output=none", "-n1", f"--resume={top}", "--wrap", "fluxkv", "run", "true").stdout.strip()
        assert site.run("job", "wait", again).returncode == 0
        assert ids(site, "--instance", again).keys() == {*names, "true"}
        assert site.run("--instance", f"{again}/{names['batch']}", "jobs", "-a").returncode == 0


LEAVE = """
import sys
from fluxkv.instances.departing import Departing
from fluxkv.kvs.redis_store import open_store
store = open_store(sys.argv[1])
for _ in range(2):
    while (done := Departing(store, sys.argv[2], sys.argv[1], 0.0, grace_s=0.0).run()).held:
        pass  # its parent's keeper looks once a second
    print(done.failed)
"""
BACK = """
import sys
from fluxkv.instances.away import bring_back
from fluxkv.kvs.redis_store import open_store
bring_back(open_store(sys.argv[1]), sys.argv[3])
"""


def test_killed_at_each_place_it_is_found_and_gone_on_with(site: live.Site, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(SCRIPT)
    top = site.run("batch", "--output=none", "-n1", str(script)).stdout.strip()
    assert site.run("job", "wait", top).returncode == 0
    look = ("jobs", "-a", "-R", "-n", "-o", "{id} {status} {returncode}")
    before = said(site, *look)

    def killed(program: str, point: str) -> None:
        env = site.env | {VARIABLE: f"{point}:kill"}
        done = subprocess.run([sys.executable, "-c", program, site.uri, site.dir.join("archive"), f"/{top}"], env=env, check=False)
        assert done.returncode == -signal.SIGKILL, point
        store.delete(Keys("/").named_lease(LEASE))
        assert said(site, *look) == before, point

    with contextlib.closing(open_store(site.uri)) as store:
        for point in ("written", "noted", "marked", "inside"):
            killed(LEAVE, f"away.{point}")
        assert not Departing(store, site.dir.join("archive"), site.uri, 0.0, grace_s=0.0).run().failed
        assert store.inside() == {}
        assert said(site, *look) == before
        killed(BACK, "away.back")
        assert bring_back(store, f"/{top}")
        assert said(site, *look) == before


def test_who_reads_on_after_it_has_left_is_given_the_rest(tmp_path: Path) -> None:
    """Half a minute is not for ever: neither history that was lost, nor no instance."""
    rig = Rig()
    for _ in range(3):
        rig.submit(jobspec(cores=1))
        rig.turn()
    rig.store.push(Keys("/").output(7), [b"said"])
    server = start_server(str(tmp_path), "local")
    try:
        with contextlib.closing(open_store(server.url)) as store:
            store.create(durability="local", origin_ms=0, created=1.0)
            with contextlib.closing(open_store(f"{server.url}#/ƒ1A")) as child:
                handover.bring(rig.store, child, lambda: None)
                last = child.meta()
            readers = [store_of(store, "/ƒ1A"), open_instance(f"{server.url}#/ƒ1A")[0], opener(f"{server.url}#/ƒ1A")().store]
            journals = [Journal(reader) for reader in readers if reader is not None]
            first = journals[0].look()
            for _ in range(2):
                assert not Departing(store, str(tmp_path / "archive"), server.url, -1.0, grace_s=0.0).run().failed
            assert store.inside() == {}
            assert journals[0].catch_up(first) == 0
            for journal in journals:
                assert journal.store.meta() == last
                assert journal.look().digest() == first.digest()
                assert [one.data for one in journal.store.messages(Keys("/ƒ1A").output(7))] == [b"said"]
                assert len(journal.store.entries([1, 2])) == 2
                journal.store.close()
            with contextlib.closing(open_store(f"{server.url}#/ƒ2", kind=ChildStore)) as nobody:
                with pytest.raises(Unavailable, match="no instance"):
                    nobody.meta()
                assert nobody.read(0) == []
    finally:
        server.stop()


def test_a_file_that_is_damaged_or_gone_is_named_and_hides_nobody_else(site: live.Site, tmp_path: Path) -> None:
    ids = [site.run("batch", "--output=none", "-n1", "--wrap", "fluxkv", "run", "true").stdout.strip() for _ in range(2)]
    for id in ids:
        assert site.run("job", "wait", id).returncode == 0
    with contextlib.closing(open_store(site.uri)) as store:
        while store.inside():  # also of one that is sealed only now
            assert not Departing(store, str(tmp_path / "kept"), site.uri, -1.0, grace_s=0.0).run().failed
        file = tmp_path / "kept" / file_of(store.meta(), ids[0])
    data = file.read_bytes()
    file.write_bytes(data[:-9] + b"\0" + data[-8:])
    listed = site.run("jobs", "-a", "-R")
    assert (f"{ids[1]}:" in listed.stdout, f"{ids[0]}:" in listed.stdout, str(file) in listed.stderr) == (True, False, True)
    file.unlink()
    for line in (("jobs", "-a", "-R"), ("tree", "-a"), ("--instance", ids[0], "jobs", "-a")):
        assert f"the archive has no file {file}" in site.run(*line).stderr, line
    assert "there is nothing to resume" in site.run("batch", "--resume", ids[0]).stderr
    assert site.run("doctor").returncode == 0
    shutil.rmtree(tmp_path / "kept")
    looked = site.run("doctor")
    assert (looked.returncode, f"{tmp_path / 'kept'} has nothing of this instance any more" in looked.stdout) == (1, True)


def test_a_server_is_no_larger_after_any_number_of_children(tmp_path: Path) -> None:
    rig = Rig()
    for _ in range(3):
        rig.submit(jobspec(cores=1))
        rig.turn()
    server = start_server(str(tmp_path), "local")
    try:
        with contextlib.closing(open_store(server.url)) as store:
            store.create(durability="local", origin_ms=0, created=1.0)
            seen = []
            for number in range(1, 5):
                before = store.memory()[0]
                for one in "123456789ABCDEFGHJKLMNPQRSTU":
                    with contextlib.closing(open_store(f"{server.url}#/ƒ{number}{one}")) as child:
                        handover.bring(rig.store, child, lambda: None)
                there = store.memory()[0] - before
                for _ in range(2):
                    assert not Departing(store, str(tmp_path / "archive"), server.url, -1.0, grace_s=0.0).run().failed
                assert store.inside() == {}
                seen.append(store.memory()[0])
            assert there > 28 * 4_000
            assert max(seen[1:]) - min(seen[1:]) < there / 4, seen
    finally:
        server.stop()
