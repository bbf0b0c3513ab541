"""`fluxkv kvs`: what its commands print, and what they refuse, on a small history."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import pytest

import fluxkv
from fluxkv.instances import kvs_view


@pytest.fixture
def kvs(shell: Any) -> Any:
    """Runs `fluxkv kvs ARGS`; see `Shell`."""

    class Kvs:
        def __call__(self, *args: str, input: bytes | None = None) -> tuple[int, str, str]:
            return shell("kvs", *args, input=input)  # type: ignore[no-any-return]

        def out(self, *args: str, input: bytes | None = None) -> str:
            return shell.out("kvs", *args, input=input)  # type: ignore[no-any-return]

        def error(self, *args: str) -> str:
            status, out, error = shell("kvs", *args)
            assert (status, out) == (1, ""), (args, status, out, error)
            return error  # type: ignore[no-any-return]

    return Kvs()


def test_versions(kvs: Any) -> None:
    version = int(kvs.out("put", "-s", "v.a=1"))
    assert kvs.out("version") == f"{version}\n"
    kvs.out("put", "v.a=2", "--if-version", str(version))
    assert kvs.error("put", "v.a=3", "--if-version", str(version)).startswith(f"kvs: v.a: changed in version {version + 1}")
    assert kvs.error("put", "v.b=3", "--if-version", str(version)) == "kvs: v.b: No such file or directory"
    assert kvs.out("get", "v.a", "--at", str(version)) == "1\n"
    assert kvs.out("version", "--at", str(version)) == f"{version}\n"
    assert kvs.out("get", "--wait-version", str(version + 1), "v.a") == "2\n"
    assert "not yet at" in kvs.error("get", "--wait-version", str(version + 9), "-t", "0.05s", "v.a")
    assert "not there yet" in kvs.error("get", "v.a", "--at", str(version + 9))
    assert kvs.out("wait", "v.a", str(version), "--version", str(version)) == ""


def test_get_forms(kvs: Any) -> None:
    kvs.out("put", "g.text=é\n", "g.n=1")
    version = int(kvs.out("put", "-s", "-r", "g.bytes=-", input=b"\xff\x00"))
    assert json.loads(kvs.out("get", "-j", "g.text"))["value"] == "é\n"
    assert json.loads(kvs.out("get", "--json", "g.bytes")) == {
        "key": "g.bytes", "version": version, "encoding": "base64", "value": "/wA=",
    }  # fmt: skip
    assert kvs("get", "g.n", "g.nothing") == (1, "", "kvs: g.nothing: No such file or directory")
    assert kvs.out("get", "g.n.") == "1\n"  # a dot at the end is no part of a key
    for words in (["-w", "g.n", "g.text"], ["-c", "1", "g.n"], ["-w", "--at", "1", "g.n"], ["-u", "g.n"]):
        assert kvs("get", *words)[0] == 2, words


def test_put_forms(kvs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kvs.out("put", "--append", "log=one ", "other=x")
    kvs.out("put", "-A", "log=two")
    assert kvs.out("get", "log") == "one two\n"
    kvs.out("put", "--no-merge", "a=b=c", "e=")
    assert kvs.out("get", "-l", "a", "e") == "a=b=c\ne=\n"
    assert kvs.error("put", "-r", "x=-", "y=-") == "kvs: standard input can be one value only"
    assert kvs.error("put", "ok=1", "wrong") == "kvs: wrong: no value"
    assert kvs.error("put", ".=1") == "kvs: the root cannot be a value"
    assert kvs.error("put", "bad key\n=1").startswith("bad KVS key")
    assert kvs.error("get", "ok") == "kvs: ok: No such file or directory"
    big = bytes(range(256)) * 9000
    kvs.out("put", "-r", "big=-", input=big)
    assert kvs.out("ls", "-1", "big") == "big\n"
    assert f"big = ({len(big)} bytes)" in kvs.out("dir")
    monkeypatch.setattr(kvs_view, "MAX_VALUE", 1000)
    status, _, error = kvs("put", "-r", "big=-", input=big)
    assert (status, error.split(":")[1]) == (1, " a value is larger than 0 MiB")


def test_links_copies_and_lists(kvs: Any) -> None:
    kvs.out("unlink", "-R", ".")
    kvs.out("put", "r.a=1", "r.b=2")
    kvs.out("link", "r", "latest")
    assert kvs.out("get", "latest.a") == "1\n"
    assert kvs.out("readlink", "latest") == "r\n"
    assert kvs.out("ls", "-F") == "latest@\nr.\n"
    assert kvs.out("ls", "latest") == "a\nb\n"
    assert kvs.out("ls", "-dF", "latest", "r") == "latest@\nr.\n"
    assert kvs.out("ls", "-w", "10") == "latest\nr\n"
    assert kvs.out("ls", "-w", "80") == "latest  r\n"
    assert kvs.out("dir", "-w", "8") == "latest -\nr.\n"
    kvs.out("copy", "r", "s.t")
    kvs.out("move", "r.a", "r.c")
    assert kvs.out("dir", "-R") == "latest -> r\nr.b = 2\nr.c = 1\ns.t.a = 1\ns.t.b = 2\n"
    assert kvs.out("dir", "-R", "latest") == "latest.b = 2\nlatest.c = 1\n"
    assert kvs.error("link", "x.y", "x") == "kvs: x: Too many levels of symbolic links"
    assert kvs.error("move", "s", "s.u") == "kvs: s: cannot move a directory into itself"
    assert kvs.error("copy", "nothing", "s") == "kvs: nothing: No such file or directory"
    assert kvs.error("readlink", "r") == "kvs: r: Not a link"
    assert kvs.error("ls", "nothing") == "kvs: nothing: No such file or directory"
    kvs.out("unlink", "latest")
    assert kvs.out("ls") == "r\ns\n"


def test_namespaces(kvs: Any) -> None:
    kvs.out("namespace", "create", "-o", "0", "one")
    kvs.out("put", "-N", "one", "a=1")
    version = kvs.out("version", "-N", "one").strip()
    rows = kvs.out("namespace", "list").splitlines()
    assert rows[0].split() == ["NAMESPACE", "OWNER", "VERSION"]
    assert rows[2].split()[::2] == ["one", version]
    kvs.out("link", "-T", "one", "a", "far")
    assert kvs.out("get", "far") == "1\n"
    assert kvs.out("readlink", "far") == "one::a\n"
    assert (kvs.out("readlink", "-o", "far"), kvs.out("readlink", "-k", "far")) == ("one\n", "a\n")
    kvs.out("copy", "-S", "one", "a", "near")
    kvs.out("move", "-D", "one", "near", "b.c")
    assert kvs.out("dir", "-R", "-N", "one") == "a = 1\nb.c = 1\n"
    assert kvs.error("namespace", "create", "one") == "kvs: namespace one: File exists"
    assert kvs.error("get", "-N", "two", "a") == "kvs: namespace two: No such namespace"
    assert kvs.error("namespace", "create", "a b") == "bad KVS namespace name"
    assert kvs.error("namespace", "remove", "primary") == "kvs: the primary namespace stays"
    kvs.out("namespace", "remove", "one")
    assert kvs.error("put", "-N", "one", "a=1") == "kvs: namespace one: No such namespace"
    assert kvs.out("dir", "-N", "one", "--at", version) == "a = 1\n"


def test_event_logs(kvs: Any) -> None:
    kvs.out("eventlog", "append", "--timestamp", "1.5", "l", "begun", "step=1", "host=n0", 'more={"a":[]}')
    kvs.out("eventlog", "append", "--timestamp", "2", "l", "note", '{"text": "all is well"}')
    assert kvs.out("eventlog", "get", "l") == (
        '1.500000 begun step=1 host="n0" more={"a":[]}\n2.000000 note text="all is well"\n'
    )
    assert kvs.out("eventlog", "get", "-u", "-c", "1", "l") == (
        '{"timestamp":1.5,"name":"begun","context":{"step":1,"host":"n0","more":{"a":[]}}}\n'
    )
    assert kvs.out("eventlog", "wait-event", "-v", "-t", "9s", "l", "note").count("\n") == 2
    assert kvs.out("eventlog", "wait-event", "-q", "-m", "step=1", "l", "begun") == ""
    assert "timed out" in kvs.error("eventlog", "wait-event", "-t", "0.05s", "-c", "2", "l", "note")
    assert kvs.error("eventlog", "append", "l", "x", "wrong") == "'wrong' is not KEY=VALUE"
    assert kvs.error("eventlog", "append", "l", "x", "{wrong").startswith("the context is not JSON")
    kvs.out("put", "l=no log\n")
    assert kvs.error("eventlog", "get", "l").startswith("bad event")


def started(shell: Any, *args: str) -> tuple[threading.Thread, list[str]]:
    """A command in a thread. It begins with what is there, so that nothing need be known of when it has begun."""
    given: list[str] = []
    thread = threading.Thread(target=lambda: given.append(shell.out("kvs", *args)))
    thread.start()
    return thread, given


def test_watching(shell: Any, kvs: Any) -> None:
    kvs.out("unlink", "-R", ".")
    version = int(kvs.out("put", "-s", "w.a=1"))
    assert kvs.out("watch", "-c", "1", "w") == f"{version} w.a = 1\n"
    assert kvs.error("watch", "-n", "-t", "0.05s") == "timed out: no more changes of ."
    assert kvs.out("get", "-w", "-c", "1", "w.a") == "1\n"
    assert kvs.error("get", "-w", "-t", "0.05s", "w.b") == "kvs: w.b: No such file or directory"
    assert kvs.error("get", "-W", "-t", "0.05s", "w.b") == "timed out: w.b is not there"
    waiter, given = started(shell, "get", "-W", "-t", "30s", "w.b")
    with fluxkv.connect(shell.env["FLUXKV_URI"]) as client:  # two commands at once would share one standard output
        client.kvs.put_json("w.b", 2)
    waiter.join()
    assert given == ["2\n"]
    kvs.out("put", "--append", "w.c=1")
    assert kvs.out("get", "-w", "-A", "-c", "1", "w.c") == "1\n"
    kvs.out("link", "w", "x")
    kvs.out("mkdir", "y")
    lines = [json.loads(line) for line in kvs.out("watch", "-j", "-c", "5").splitlines()]
    assert [(line["key"], line.get("value", line.get("kind"))) for line in lines] == [
        ("w.a", "1"), ("w.b", "2"), ("w.c", "1"), ("x", "link"), ("y", "dir"),
    ]  # fmt: skip
    assert kvs.out("watch", "-c", "5").splitlines()[3].endswith(" x -> w")


def test_what_the_journal_says(shell: Any, kvs: Any) -> None:
    kvs.out("namespace", "create", "n")
    kvs.out("put", "-N", "n", "a=1")
    kvs.out("link", "-T", "n", "a", "l")
    kvs.out("copy", "conf", "kept")
    shown = shell.out("journal", "show").splitlines()[-4:]
    assert [line.split("kvs.")[1] for line in shown] == [
        f"namespace-create namespace=n owner={os.getuid()}", "commit in n: put a=1",
        "commit link l -> n::a", "commit copy conf kept",
    ]  # fmt: skip
    shell.out("journal", "verify")
    assert "diff      equal" in shell.out("replay", "--diff", "live")
