"""`instance.kvs`: the user's key-value store from Python, against a real server; several clients at once."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import kvs_client, kvs_view
from fluxkv.instances.client import Instance, connect
from fluxkv.instances.kvs_client import Kvs
from fluxkv.instances.kvs_watch import Change
from fluxkv.journal import decide_kvs
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.port import Appended, Conflicted
from fluxkv.kvs.redis_store import RedisStore


@pytest.fixture(autouse=True)
def fold_agrees(instance: Instance) -> Iterator[None]:
    """Whatever a test did: the fold from the first commit is what readers see."""
    yield
    folded = State()
    for commit in instance.journal.commits():
        folded.apply(commit)
    assert folded.digest() == instance.state().digest()
    assert folded.skipped == 0


@pytest.fixture
def kvs(instance: Instance) -> Kvs:
    return instance.kvs


def code(call: Callable[..., Any], *args: Any, **more: Any) -> str:
    """The code of the refusal that a call must meet."""
    with pytest.raises((Rejected, Conflict, Unavailable)) as caught:
        call(*args, **more)
    assert isinstance(caught.value, Rejected | Conflict | Unavailable)
    return caught.value.code


def test_values(kvs: Kvs) -> None:
    version = kvs.put({"run.name": "test", "run.data": b"\x00\xff", "empty": ""})
    assert kvs.version() == version
    assert (kvs.get_text("run.name"), kvs.get("run.data"), kvs.get("empty")) == ("test", b"\x00\xff", b"")
    assert kvs.stat("run.name") == ("run.name", "value", version, 4, "")
    assert kvs.stat("run") == ("run", "dir", 0, 2, "")
    assert "run.name" in kvs
    assert "run.title" not in kvs
    kvs.put_json("run.options", {"n": [1, 2.5, None]})
    assert kvs.get_json("run.options") == {"n": [1, 2.5, None]}
    assert code(kvs.get_json, "run.data") == "bad-value"
    assert [entry.key for entry in kvs.ls("run")] == ["run.data", "run.name", "run.options"]
    assert [entry.key for entry in kvs.walk()] == ["empty", "run.data", "run.name", "run.options"]
    assert code(kvs.get, "run") == "is-directory"
    assert code(kvs.ls, "run.name") == "not-directory"
    assert code(kvs.get, "run.nothing") == "no-such-key"
    assert code(kvs.get, "run..name") == "bad-key"
    assert code(kvs.put, ".", "x") == "bad-key"
    kvs.put("viewed", memoryview(b"abc")[1:])
    assert kvs.get("viewed") == b"bc"
    with pytest.raises(TypeError, match="put_json"):
        kvs.put("count", 5)  # type: ignore[arg-type]
    kvs.put("run.name.first", "a value gives way to a directory")
    assert code(kvs.get, "run.name") == "is-directory"


def test_a_version_is_what_a_commit_left(kvs: Kvs, instance: Instance) -> None:
    first = kvs.put("a", "1")
    second = kvs.put("a", "2")
    assert [kvs.get("a", at=version) for version in (first, second)] == [b"1", b"2"]
    assert code(kvs.get, "a", at=first - 1) == "no-such-key"
    assert code(kvs.get, "a", at=second + 1) == "bad-moment"
    assert instance.journal.save_snapshot(instance.state())
    third = kvs.put("a", "3")
    assert [kvs.get("a", at=version) for version in (first, second, third)] == [b"1", b"2", b"3"]
    with connect(instance.uri) as other:  # from the snapshot
        assert other.kvs.get("a") == b"3"


def test_conditions(kvs: Kvs) -> None:
    version = kvs.put({"a": "1", "b": "1"}, absent=True)
    assert code(kvs.put, {"c": "1", "a": "2"}, absent=True) == "exists"
    assert "c" not in kvs
    kvs.put({"a": "2"}, if_version=version)
    assert code(kvs.put, {"b": "2", "a": "3"}, if_version=version) == "conflict"
    assert kvs.get("b") == b"1"
    assert code(kvs.put, "d", "1", if_version=version) == "no-such-key"
    kvs.mkdir("dir")
    assert code(kvs.put, "dir", "1", if_version=version) == "is-directory"


def test_a_stale_reader_decides_again(instance: Instance) -> None:
    """What is decided on an old state is refused by the store if, and only if, one of its keys may have changed."""
    kvs, journal = instance.kvs, instance.journal
    version = kvs.put({"count": "1", "other.x": "1"})
    old = instance.state()
    decided = decide_kvs.conditional(old, [["put", "count", b"2"]], 1.0, version=version)
    kvs.put("count", "9")
    assert isinstance(journal.append(decided, old.version), Conflicted)

    old = instance.state()
    decided = decide_kvs.conditional(old, [["put", "count", b"2"]], 1.0, version=old.version)
    apart = next(word for word in "abcdefgh" if decide_kvs._mark("primary", word) != decide_kvs._mark("primary", "count"))
    kvs.put(apart, "elsewhere")
    assert isinstance(journal.append(decided, old.version), Appended)

    for change in (
        lambda: kvs.link("count", "another"),  # a way to the key that its mark does not know
        lambda: kvs.copy("other", "count"),
        lambda: kvs.unlink(".", recursive=True),
    ):
        old = instance.state()
        decided = decide_kvs.conditional(old, [["put", "count", b"2"]], 1.0)
        change()
        assert isinstance(journal.append(decided, old.version), Conflicted)

    kvs.create_namespace("n")
    old = instance.state()
    decided = decide_kvs.in_namespace(old, [["put", "a", b"1"]], 1.0, "n", 5)
    kvs.remove_namespace("n")
    assert isinstance(journal.append(decided, old.version), Conflicted)


def together(instance: Instance, count: int, work: Callable[[Kvs, int], Any]) -> list[Any]:
    """`work(kvs, number)` on so many clients at once; what they gave."""
    given: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def one(number: int) -> None:
        with connect(instance.uri) as client:
            barrier.wait()
            try:
                given[number] = work(client.kvs, number)
            except (Rejected, Conflict) as error:
                given[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def test_appends_of_several_at_once_all_survive(instance: Instance) -> None:
    def work(kvs: Kvs, number: int) -> None:
        for at in range(25):
            kvs.append("log", f"{number}.{at}\n")

    together(instance, 4, work)
    lines = instance.kvs.get_text("log").splitlines()
    assert sorted(lines) == sorted(f"{number}.{at}" for number in range(4) for at in range(25))
    for number in range(4):
        mine = [line for line in lines if line.startswith(f"{number}.")]
        assert mine == sorted(mine, key=lambda line: int(line.partition(".")[2]))


def test_counting_together_loses_nothing(instance: Instance) -> None:
    def work(kvs: Kvs, number: int) -> None:
        for _ in range(15):
            kvs.update("count", lambda old: str(int(old or b"0") + 1))

    together(instance, 4, work)
    assert instance.kvs.get("count") == b"60"


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_answer_is_lost_is_made_once(
    kvs: Kvs, instance: Instance, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    kvs.create_namespace("n")
    send = RedisStore._send_appends
    lost: list[int] = []

    def lossy(self: RedisStore, *args: Any) -> Any:
        lost.append(1)
        if len(lost) % 2:
            if arrives:
                send(self, *args)
            raise Unavailable("lost")
        return send(self, *args)

    monkeypatch.setattr(RedisStore, "_send_appends", lossy)
    for number in range(3):
        kvs.append("log", f"{number}")
        kvs.namespace("n").append("log", f"{number}")
        assert kvs.put({f"k{number}": "x"}, absent=True) == instance.store.meta().version
    assert len(lost) >= 18  # more if two commits draw the same mark
    assert (kvs.get("log"), kvs.namespace("n").get("log")) == (b"012", b"012")
    assert code(kvs.put, {"k0": "y"}, absent=True) == "exists"


def test_one_of_many_gets_the_lock(instance: Instance) -> None:
    given = together(instance, 6, lambda kvs, number: kvs.put({"lock": str(number)}, absent=True))
    assert len([one for one in given if isinstance(one, int)]) == 1
    assert {one.code for one in given if not isinstance(one, int)} == {"exists"}


def test_a_transaction_is_one_step(kvs: Kvs, instance: Instance) -> None:
    kvs.put({"lock": "me", "old.x": "1"})
    before = instance.store.meta().version
    with kvs.transaction() as step:
        step.put("state", "done").append("log", "done\n").unlink("lock").unlink("old").mkdir("new")
    assert step.version == before + 1 == instance.store.meta().version
    assert [entry.key for entry in kvs.walk()] == ["log", "new", "state"]
    with contextlib.suppress(RuntimeError), kvs.transaction() as step:
        step.put("state", "undone")
        raise RuntimeError
    assert kvs.get("state") == b"done"
    with kvs.transaction():
        pass  # nothing to do is no commit
    assert instance.store.meta().version == before + 1


def test_the_tree_is_changed(kvs: Kvs) -> None:
    kvs.put({"a.x": "1", "a.y": "2"})
    kvs.copy("a", "b.c")
    kvs.put("a.x", "3")
    assert (kvs.get("b.c.x"), kvs.get("b.c.y")) == (b"1", b"2")
    kvs.move("b.c", "d")
    assert kvs.ls("b") == []
    assert kvs.get("d.y") == b"2"
    assert code(kvs.move, "d", "d.e") == "bad-copy"
    assert code(kvs.copy, "nothing", "d") == "no-such-key"
    assert code(kvs.copy, "a.x", ".") == "bad-copy"
    assert code(kvs.unlink, "a") == "not-empty"
    assert code(kvs.unlink, ["a.x", "nothing"]) == "no-such-key"
    assert "a.x" in kvs
    kvs.unlink(["a", "nothing"], recursive=True, force=True)
    kvs.mkdir("d", "e")
    assert [entry.key for entry in kvs.ls()] == ["b", "d", "e"]
    assert kvs.get("d.x") == b"1"
    deep = ".".join("a" * 200)
    kvs.put(deep, "deep")
    assert code(kvs.copy, "a", ".".join("b" * 100)) == "bad-copy"
    assert code(kvs.put, ".".join("a" * 300), "x") == "bad-key"


def test_links(kvs: Kvs) -> None:
    kvs.put({"runs.1.out": "one", "runs.2.out": "two"})
    kvs.link("runs.1", "latest")
    assert kvs.get("latest.out") == b"one"
    assert kvs.readlink("latest") == ("", "runs.1")
    assert code(kvs.readlink, "runs") == "not-link"
    kvs.put("latest.err", "through the link")
    assert kvs.get("runs.1.err") == b"through the link"
    kvs.link("runs.2", "latest")
    assert [entry.key for entry in kvs.walk("latest")] == ["latest.out"]
    assert (kvs.stat("latest") or 0) == ("latest", "dir", 0, 1, "")
    assert [(entry.kind, entry.target) for entry in kvs.ls() if entry.key == "latest"] == [("link", "runs.2")]
    kvs.link("nowhere", "dangling")
    assert "dangling" not in kvs
    for target, name in (("x", "x"), ("y.z", "y"), ("dangling", "nowhere"), ("runs.1.self.more", "runs.1.self")):
        assert code(kvs.link, target, name) == "link-loop"
    kvs.link("runs", "runs.1.up")  # to a directory it is in: each key still ends
    assert kvs.get("runs.1.up.2.out") == b"two"
    kvs.unlink("latest")
    assert kvs.get("runs.2.out") == b"two"
    for at in range(10):
        kvs.link(f"chain{at}", f"chain{at + 1}")
    kvs.put("chain0", "end")
    assert kvs.get("chain10") == b"end"
    assert code(kvs.link, "chain10", "chain11") == "link-loop"
    kvs.link("chain0", "longer")
    kvs.move("longer", "chain0")  # what a link's own check cannot know: reading says so
    assert code(kvs.get, "chain10") == "link-loop"


def test_namespaces(kvs: Kvs) -> None:
    other = kvs.namespace("other")
    assert code(other.put, "a", "1") == code(other.get, "a") == code(kvs.remove_namespace, "other") == "no-such-namespace"
    created = kvs.create_namespace("other")
    assert code(kvs.create_namespace, "other") == code(kvs.create_namespace, "primary") == "exists"
    assert code(kvs.create_namespace, "a b") == code(kvs.remove_namespace, "primary") == "bad-namespace"
    other.put({"a": "1"}, absent=True)
    kvs.put("a", "2")
    assert (other.get("a"), kvs.get("a")) == (b"1", b"2")
    kvs.link("a", "far", "other")
    assert kvs.get("far") == b"1"
    assert kvs.readlink("far") == ("other", "a")
    kvs.copy("a", "copied", source="other")
    other.move("a", "moved", source="primary")
    assert "a" not in kvs
    assert other.get("moved") == b"2"
    first, second = kvs.namespaces()
    assert (first.name, second.name, second.owner) == ("primary", "other", os.getuid())
    assert second.version > created
    kvs.remove_namespace("other")
    assert kvs.get("copied") == b"1"
    assert code(kvs.get, "far") == "no-such-namespace"
    kvs.append("far", "the link gives way")
    assert kvs.get("far") == b"the link gives way"
    kvs.create_namespace("other")
    assert other.ls() == []


def test_large_values(kvs: Kvs, monkeypatch: pytest.MonkeyPatch, instance: Instance) -> None:
    data = os.urandom(kvs_view.PIECE * 2 + 17)
    version = kvs.put("big", io.BytesIO(data))
    assert (kvs.stat("big") or 0) == ("big", "value", version, len(data), "")
    assert [len(piece) for piece in kvs.view().pieces("big")] == [kvs_view.PIECE, kvs_view.PIECE, 17]
    assert kvs.get("big") == data
    kvs.append("big", b"x" * 2000)
    kvs.append("big", b"y")
    assert b"".join(kvs.view().pieces("big", len(data) + 1999)) == b"xy"
    read, write = os.pipe()
    writer = threading.Thread(target=lambda: [os.write(write, b"z" * 100) for _ in range(50)] and os.close(write))
    writer.start()
    with os.fdopen(read, "rb") as stream:  # a pipe gives less at a time
        kvs.put("piped", stream)
    writer.join()
    assert kvs.get("piped") == b"z" * 5000
    monkeypatch.setattr(kvs_view, "MAX_VALUE", 5000)
    assert code(kvs.put, "big", b"x" * 5001) == code(kvs.put, "big", io.BytesIO(b"x" * 5001)) == "value-too-large"
    assert code(kvs.put, {f"k{n}": b"x" * 1000 for n in range(9000)}) == "commit-too-large"
    instance.store.delete(instance.store.keys.blobs)  # type: ignore[attr-defined]
    with pytest.raises(Corrupt, match="blob"):
        kvs.get("piped")


def collect(instance: Instance, into: list[Any], changes: Callable[[Kvs], Iterator[Any]], count: int) -> threading.Thread:
    """A thread that takes so many of what a watcher of its own client tells; it has begun when it is given."""
    begun = threading.Event()

    def work() -> None:
        with connect(instance.uri) as client:
            for number, change in enumerate(changes(client.kvs), 1):
                into.append(change)
                begun.set()
                if number == count:
                    return

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    return thread


def told(changes: list[Change]) -> list[tuple[str, Any]]:
    return [(c.key, None if c.entry is None else c.payload if c.payload is not None else c.entry.kind) for c in changes]


def test_watching_a_directory(kvs: Kvs, instance: Instance) -> None:
    kvs.put({"run.a": "1", "elsewhere": "1"})
    seen: list[Change] = []
    thread = collect(instance, seen, lambda kvs: kvs.watch("run", timeout=30), 9)
    kvs.put("elsewhere", "2")
    version = kvs.put({"run.a": "2", "run.b.c": "1"})
    kvs.put({"run.d": "1"}, absent=True)
    kvs.unlink("run.b", recursive=True)
    kvs.mkdir("run.e")
    kvs.link("elsewhere", "run.l")
    kvs.put("run", "instead")
    kvs.unlink(".", recursive=True)
    thread.join()
    assert told(seen) == [
        ("run.a", b"1"), ("run.a", b"2"), ("run.b.c", b"1"), ("run.d", b"1"), ("run.b", None), ("run.e", "dir"),
        ("run.l", "link"), ("run", b"instead"), ("run", None),
    ]  # fmt: skip
    assert [change.version for change in seen[1:4]] == [version, version, version + 1]


def test_watching_through_a_link(kvs: Kvs, instance: Instance) -> None:
    kvs.put({"runs.1.x": "1", "runs.2.x": "2"})
    kvs.link("runs.1", "latest")
    seen: list[Change] = []
    thread = collect(instance, seen, lambda kvs: kvs.watch("latest.x", timeout=30), 3)
    kvs.put("runs.2.x", "not seen")
    kvs.put("runs.1.x", "seen")
    kvs.link("runs.2", "latest")
    thread.join()
    assert told(seen) == [("latest.x", b"1"), ("latest.x", b"seen"), ("latest.x", b"not seen")]


def test_past_the_soft_memory_line_values_are_refused_and_removed(kvs: Kvs, instance: Instance) -> None:
    kvs.put({"a": "1", "b": "1"})
    instance.store.memory_limit = 1  # type: ignore[attr-defined]
    assert code(kvs.put, "a", "2") == code(kvs.append, "a", "2") == code(kvs.copy, "a", "c") == "full"
    assert code(kvs.put, {"n": "1"}, absent=True) == "full"
    kvs.unlink("a")
    kvs.move("b", "a")
    assert [entry.key for entry in kvs.ls()] == ["a"]


def test_waiting(kvs: Kvs, instance: Instance) -> None:
    assert code(kvs.wait, "never", timeout=0.05) == code(kvs.wait_version, 1 << 40, timeout=0.05) == "timeout"
    with pytest.raises(Unavailable):
        list(kvs.watch("never", timeout=0.05))
    assert code(kvs.namespace("no").wait, "a", timeout=5) == "no-such-namespace"
    given: list[Any] = []

    def work() -> None:
        with connect(instance.uri) as client:
            given.append(client.kvs.wait("ready.now", timeout=30))

    thread = threading.Thread(target=work)
    thread.start()
    version = kvs.put("ready.now", "yes")
    thread.join()
    assert given == [("ready.now", "value", version, 3, "")]
    kvs.wait_version(version, timeout=0)


def test_event_logs(kvs: Kvs, instance: Instance) -> None:
    kvs.append_event("log", "begun", {"step": 1}, timestamp=1.5)
    kvs.append_event("log", "done")
    first, second = kvs.events("log")
    assert (first.name, first.timestamp, first.context) == ("begun", 1.5, {"step": 1})
    assert (second.name, second.context) == ("done", None)
    assert kvs.get_text("log").splitlines()[0] == '{"timestamp":1.5,"name":"begun","context":{"step":1}}'
    assert code(lambda: list(kvs.events("other"))) == "no-such-key"
    seen: list[Any] = []
    thread = collect(instance, seen, lambda kvs: kvs.events("log", follow=True, timeout=30), 6)
    kvs.append_event("log", "more", {"text": "x" * 3000})
    kvs.append("log", '{"timestamp":3.0,"name":"ha')
    kvs.append("log", 'lf"}\n')
    kvs.put("log", '{"timestamp":4.0,"name":"anew"}\n')
    kvs.append_event("log", "last")
    thread.join()
    assert [event.name for event in seen] == ["begun", "done", "more", "half", "anew", "last"]
    kvs.put("log", "no event\n")
    assert code(lambda: list(kvs.events("log"))) == "bad-event"


def test_examples(instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Those in the docstrings, in the order of the module, and the one in README."""
    names = {"instance": instance, "kvs": instance.kvs}
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in sorted(finder.find(kvs_client, extraglobs=names), key=lambda test: test.lineno or 0):
        runner.run(test, clear_globs=False)
    assert (runner.failures, runner.tries > 10) == (0, True), capsys.readouterr().out

    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    (block,) = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "instance.kvs" in text]
    monkeypatch.setenv("FLUXKV_URI", instance.uri)
    capsys.readouterr()
    exec(block, {})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "test b'4'"
    assert "run.state value 4" in said


def test_a_view_of_others_is_never_stale(kvs: Kvs, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(instance.uri) as other:
        for number in range(5):
            other.kvs.put("a", str(number))
            assert kvs.get_text("a") == str(number)
            assert kvs.namespace("primary").get_text("a") == str(number)
        before = kvs.state()
        monkeypatch.setattr(kvs_client, "FAR", 3)
        for number in range(5):
            other.kvs.put("a", str(number))
        assert kvs.get_text("a") == "4"
        assert kvs.state() is not before
