"""Every operation on the user's KVS: each prefix of a history folds to the same state, through a snapshot anywhere in it."""

from __future__ import annotations

import copy
from typing import Any

from fluxkv.journal import decide_kvs, snapshot
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit

BLOB = ["b" * 40, 5000]


def history() -> list[Commit]:
    """One commit for each kind of operation, in both kinds of namespaces, and some that make no sense."""
    state = State()
    commits: list[Commit] = []

    def say(events: list[list[Any]]) -> None:
        commits.append(Commit(len(commits) + 1, 5, "", 0, 0, 1.0, copy.deepcopy(events), {}))
        state.apply(commits[-1])

    def do(*ops: list[Any], namespace: str = "primary") -> None:
        say(decide_kvs.commit(list(ops), 1.5, namespace).events)

    do(["put", "a.x", b"1"], ["put", "a.big", BLOB], ["mkdir", "empty"])
    say(decide_kvs.create_namespace(state, "n", 5, 2.5).events)
    do(["put", "k", ["parts", BLOB, b"end"]], namespace="n")
    say(decide_kvs.link(state, "a", "l", 1.5).events)
    say(decide_kvs.link(state, "k", "far", 1.5, "primary", "n").events)
    do(["put", "l.through", b"2"], ["append", "far", b"more"], ["append", "log", b"x" * 900])
    do(["append", "log", b"y" * 900])
    say([["kvs.commit", "kvs", 1.0, {"ops": [["put", "lost", b""], ["put", "a..b", b""]]}]])
    say([["kvs.commit", "kvs", 1.0, {"ops": [["put", "lost", b""]], "namespace": "nowhere"}]])
    say(decide_kvs.copy(state, "a", "copied.a", 1.5).events)
    say(decide_kvs.copy(state, "k", "taken", 1.5, "primary", "n", move=True).events)
    say(decide_kvs.remove_namespace(state, "n", 1.5).events)
    do(["append", "far", b"in place of the link"])
    say(decide_kvs.unlink(state, ["a"], 1.5, recursive=True).events)
    do(["unlink", "."], ["put", "last", b"1"])
    return commits


def folded(commits: list[Commit], state: State | None = None) -> State:
    state = state or State()
    for commit in copy.deepcopy(commits):
        state.apply(commit)
    return state


def test_each_prefix_through_each_snapshot() -> None:
    commits = history()
    whole = folded(commits)
    assert whole.skipped == 2
    assert dict(whole.tree.leaves()) == {"last": b"1"}
    digests = set()
    for cut in range(len(commits) + 1):
        direct = folded(commits[:cut])
        digests.add(direct.digest())
        for lazy in (False, True):
            head, chunks = snapshot.dump(direct)
            loaded = snapshot.load(snapshot.read_head(head), chunks, lazy=lazy)
            assert loaded.subjects() == direct.subjects()
            assert loaded.digest() == direct.digest()
            assert folded(commits[cut:], loaded).digest() == whole.digest()
    assert len(digests) == len(commits) + 1 - whole.skipped  # each told commit is seen in the digest
