"""`fluxkv resource`, `queue` and `kvs`: exact tables, changes, refusals."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.paths import StateDir
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.redis_store import open_store
from fluxkv.tools import status_cmd
from fluxkv.tools.daemons import given_up, processes, way_out
from fluxkv.tools.formats import Format


def test_resource_list(shell: Any) -> None:
    assert shell.out("resource", "list") == (
        "     STATE NNODES NCORES NGPUS NODELIST\n"
        "      free      1      2     0 node0\n"
        " allocated      2      6     0 node[0-1]\n"
        "      down      1      4     1 node2\n"
    )
    assert shell.out("resource", "list", "-n", "-s", "free", "-o", "{ncores}") == "2\n"
    assert shell.out("resource", "list", "-n", "-s", "all", "-o", "{ncores} {ngpus} {ranks}") == "12 1 0-2\n"
    assert shell.out("resource", "list", "-n", "-s", "allocated", "--at", "20", "-o", "{ncores}|{nodelist}") == "0|\n"


def test_resource_list_by_node(shell: Any) -> None:
    assert shell.out("resource", "list", "-v") == (
        "RANK NODE  STATE     CORES GPUS MEMORY     JOBS     REASON\n"
        "   0 node0 allocated 2/4   -    1024/8192M ƒ5QcTB5H\n"
        "   1 node1 allocated 4/4   -    0/8192M    ƒ5rAznt7\n"
        "   2 node2 drained   0/4   0/1  0/8192M    -        bad fan\n"
    )
    document = json.loads(shell.out("resource", "list", "--json"))
    assert document["free"]["ncores"] == 2
    assert document["nodes"][2]["drain"] == {"timestamp": 1700000076.0, "reason": "bad fan"}


def test_drain_and_undrain(shell: Any) -> None:
    assert shell.out("resource", "drain") == (
        "TIMESTAMP            STATE    RANKS    REASON                         NODELIST\n"
        "2023-11-14T22:14:36  drained  2        bad fan                        node2\n"
    )
    shell.out("resource", "drain", "node0", "hot", "air")
    rows = shell.out("resource", "drain", "-n", "-o", "{state} {ranks} {reason}")
    assert rows == "drained 2 bad fan\ndraining 0 hot air\n"
    assert shell("resource", "drain", "0-1", "again")[2] == "rank 0: already drained"
    shell.sample.clock.now += 1
    shell.out("resource", "drain", "-u", "0-1", "again")
    assert shell.out("resource", "drain", "-n", "-o", "{ranks} {reason}") == "2 bad fan\n0 hot air\n1 again\n"
    shell.out("resource", "drain", "-f", "0", "new reason")
    shell.out("resource", "undrain", "node[1-2]")
    assert shell.out("resource", "drain", "-n", "-o", "{ranks} {reason}") == "0 new reason\n"
    assert shell("resource", "undrain", "1")[2] == "rank 1: not drained"
    assert shell("resource", "undrain", "9")[2] == "rank 9: no such node"
    assert shell("resource", "drain", "nowhere", "x")[2] == "nowhere: no such node"


def test_resource_status_info_and_r(shell: Any) -> None:
    assert shell.out("resource", "status") == (
        "     STATE UP NNODES NODELIST\n     avail  ✔      2 node[0-1]\n   drained  ✔      1 node2\n"
    )
    assert shell.out("resource", "info") == "3 Nodes, 12 Cores, 1 GPUs\n"
    assert json.loads(shell.out("resource", "R"))["execution"]["nodelist"] == ["node[0-2]"]


def test_queue(shell: Any) -> None:
    both = "default: Job submission is enabled\ndefault: Scheduling is started\n"
    assert shell.out("queue", "status") == both
    assert shell.out("queue", "stop", "-m", "maintenance") == "default: Scheduling is stopped: maintenance\n"
    assert shell.out("queue", "disable", "-m", "closing") == "default: Job submission is disabled: closing\n"
    assert shell.out("queue", "list", "-n").split() == [
        "default",
        "✗",
        "✗",
        "fcfs",
        "4",
        "2",
        "closing;",
        "maintenance",
    ]
    shell.out("queue", "start")
    shell.out("queue", "enable", "default")
    assert shell.out("queue", "status") == both
    assert shell("queue", "stop", "-q", "other")[2] == "queue other is not defined"


def test_waiting_gives_up_in_time(shell: Any) -> None:
    status, _, error = shell("queue", "drain", "--timeout", "10ms")
    assert (status, error) == (1, "6 jobs still active after 10ms")
    assert shell("queue", "idle", "-t", "10ms")[0] == 1


@pytest.mark.timeout(20)
def test_idle_ends_when_the_last_job_does(shell: Any, sample_journal: Any) -> None:
    """Pending jobs of a stopped queue, held ones and those that wait for a time do not count."""
    shell.out("queue", "stop")
    assert shell("queue", "idle", "-t", "10ms")[2] == "2 jobs still running or asking for resources after 10ms"
    writer = sample_journal.Writer(shell.sample.journal.store, shell.sample.clock)
    writer.state = shell.sample.journal.load()
    writer.seq = sum(1 for commit in shell.sample.journal.commits() if commit.producer)
    ended: list[int] = []

    def wait() -> None:
        ended.append(shell("queue", "idle", "-t", "10s")[0])

    waiter = threading.Thread(target=wait)
    waiter.start()
    for letter in "jk":
        writer.over(shell.ids[letter], 0)
        writer.clean(shell.ids[letter], 0)
    waiter.join()
    assert ended == [0]


def test_kvs_put_get_and_time(shell: Any) -> None:
    assert shell.out("kvs", "get", "conf.name", "conf.tasks") == "demo\n4\n"
    assert shell.out("kvs", "get", "--raw", "conf.name") == "demo"
    assert len(shell.out("kvs", "get", "big")) == 3001
    before = shell.sample.journal.store.meta().version
    shell.out("kvs", "put", "x.a=1", "x.b=two words", "x.c=")
    assert shell.sample.journal.store.meta().version == before + 1
    assert shell.out("kvs", "get", "-l", "x.a", "x.b", "x.c") == "x.a=1\nx.b=two words\nx.c=\n"
    assert shell("kvs", "get", "x.a", "--at", str(before))[2] == "kvs: x.a: No such file or directory"
    shell.out("kvs", "put", "-r", "x.in=-", input=b"\x00\xff" * 2000)
    assert shell.sample.journal.load().tree.get("x.in")[1] == 4000
    assert shell("kvs", "put", "--no-clobber", "x.a=2")[2] == "kvs: x.a: File exists"
    assert shell.out("kvs", "get", "x.a") == "1\n"


def test_kvs_refusals(shell: Any) -> None:
    assert shell("kvs", "get", "a.b") == (1, "", "kvs: a.b: No such file or directory")
    assert shell("kvs", "get", "conf")[2] == "kvs: conf: Is a directory"
    assert shell("kvs", "dir", "conf.name")[2] == "kvs: conf.name: Not a directory"
    assert shell("kvs", "unlink", "conf")[2] == "kvs: conf: Directory not empty"
    assert shell("kvs", "unlink", "nothing")[2] == "kvs: nothing: No such file or directory"
    assert shell("kvs", "put", "novalue")[2] == "kvs: novalue: no value"
    assert shell("kvs", "put", "a..b=1")[0] == 1


def test_kvs_lists(shell: Any) -> None:
    assert shell.out("kvs", "dir") == "big = (3000 bytes)\nconf.\nempty.\n"
    assert shell.out("kvs", "dir", "-R") == "big = (3000 bytes)\nconf.name = demo\nconf.tasks = 4\nempty.\n"
    assert shell.out("kvs", "dir", "-d", "conf.") == "conf.name\nconf.tasks\n"
    assert shell.out("kvs", "ls", "-F") == "big\nconf.\nempty.\n"
    assert shell.out("kvs", "ls", "-R") == ".:\nbig\nconf\nempty\n\nconf:\nname\ntasks\n\nempty:\n"
    assert shell.out("kvs", "dir", "--at", "69").count("conf") == 1
    shell.out("kvs", "mkdir", "m.n")
    shell.out("kvs", "unlink", "-R", "conf", "big", "empty")
    shell.out("kvs", "unlink", "-f", "conf")
    assert shell.out("kvs", "dir", "-R") == "m.n.\n"


@pytest.mark.parametrize("state", ["running", "unreachable"])
def test_status_of_an_instance_that_was_killed_whole_begins_with_the_way_out(tmp_path: Path, state: str) -> None:
    directory = StateDir(str(tmp_path))
    directory.create()
    Path(directory.instance_file).write_text("{}")
    for role in ("server", "keeper", "worker-0"):
        Path(directory.run_file(role)).write_text(json.dumps({"pid": 7, "role": role.partition("-")[0]}))
    document = {"state": state, "problems": ["no server answers at X: why (what)", "1 nodes are drained"]}
    document["processes"] = processes(directory)
    status_cmd._daemon_part(directory, "", document)
    assert document["problems"] == [
        f"all daemons are dead: fluxkv start --detach --state-dir {tmp_path}",
        "1 nodes are drained",
    ]
    assert document["state"] == ("dead" if state == "running" else state)
    Path(directory.join("run", "keeper.failed")).write_text("versions 3 to 4 are lost (fluxkv ops adopt says what)")
    for name, why in given_up(directory).items():
        assert (name, way_out(directory, why)) == ("keeper", "")  # to start it again would bring back the same words
    assert way_out(directory, "a fault") == f"fluxkv start --detach --state-dir {tmp_path}"
    status_cmd._daemon_part(directory, "", document)
    assert document["problems"][0] == "all daemons are dead"


def test_a_full_disk_is_the_first_thing_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "instance.json").write_text("{}")
    there = os.statvfs(tmp_path)
    for free, full in ((0, True), (1000, False)):
        values = [free if index == 4 else value for index, value in enumerate(there)]
        monkeypatch.setattr(os, "statvfs", lambda path, values=values: os.statvfs_result(values))
        with pytest.raises(Unavailable) as caught:
            open_store(f"unix:{tmp_path}/kv.sock", patience_s=0.0).meta()
        assert caught.value.hint.startswith("the disk is full" if full else "fluxkv status says more"), caught.value.hint
        document = {"problems": ["no server answers"], "disk": {"free": free * there.f_frsize}}
        status_cmd._disk_part(document, str(tmp_path))
        assert document["problems"][0].startswith("the disk is full" if full else "the disk is nearly full")


def test_a_listing_too_wide_for_the_terminal_leaves_out_blanks_before_words() -> None:
    fields = {name: (name.upper(), lambda row, view, name=name: row[name]) for name in ("id", "user", "n", "why")}
    table = Format("{id:>12} {user:<8.8+} {n:>6} {why}", fields)
    rows = [{"id": "f1", "user": "root", "n": 12, "why": "a long reason of all"}, {"id": "f12", "user": "me", "n": 3, "why": "-"}]
    wide = [
        "          ID USER          N WHY", "          f1 root         12 a long reason of all", "         f12 me            3 -",
    ]  # fmt: skip
    assert table.lines(rows, None) == table.lines(rows, None, within=50) == wide
    assert table.lines(rows, None, within=40) == [" ID USER  N WHY", " f1 root 12 a long reason of all", "f12 me    3 -"]
    assert table.lines(rows, None, within=40, header=False) == [" f1 root 12 a long reason of all", "f12 me    3 -"]
    assert table.lines([], None, within=3) == ["ID USER N WHY"]
