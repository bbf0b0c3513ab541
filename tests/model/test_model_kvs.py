"""The user's KVS against plain dictionaries of whole keys: several namespaces, links, copies, appends; hash and snapshot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fluxkv.journal import fold_kvs
from fluxkv.journal.wire import Commit, pack, unpack
from fluxkv.kvs import namespaces
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.namespaces import MAX_LINKS, PRIMARY, Namespaces
from fluxkv.kvs.tree import Tree, parts_of

names = st.sampled_from(["a", "b", "c"])
keys = st.lists(names, min_size=1, max_size=3).map(".".join)
spaces = st.sampled_from([PRIMARY, PRIMARY, PRIMARY, "other"])
blobs = st.tuples(st.just("b" * 40), st.integers(0, 9)).map(list)
values = st.one_of(
    st.binary(max_size=3), blobs, st.lists(st.one_of(st.binary(max_size=3), blobs), max_size=3).map(lambda v: ["parts", *v])
)

FOLDER = None
Flat = dict[str, Any]  # key -> FOLDER, ["link", target, namespace] or a list of (bytes as one, blobs)


def plain(payload: Any) -> list[Any]:
    """What a value consists of, neighbouring bytes joined: how it was put together does not matter."""
    found: list[Any] = []
    for part in parts_of(payload):
        if isinstance(part, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += part
        elif part != b"":
            found.append(part)
    return found


class Model:
    """The same operations, said over whole keys."""

    def __init__(self) -> None:
        self.spaces: dict[str, Flat] = {PRIMARY: {}}

    def resolve(self, space: str, key: str, last: bool) -> tuple[str, str] | None:
        for _ in range(MAX_LINKS + 1):
            if space not in self.spaces:
                return None
            words = key.split(".") if key != "." else []
            for count in range(1, len(words) + 1):
                node = self.spaces[space].get(".".join(words[:count]), ())
                if isinstance(node, list) and node[:1] == ["link"] and (last or count < len(words)):
                    target = [] if node[1] == "." else [node[1]]
                    space, key = node[2] or space, ".".join(target + words[count:]) or "."
                    break
            else:
                return space, key
        return None

    def drop(self, space: str, key: str) -> None:
        flat = self.spaces[space]
        for path in [path for path in flat if key == "." or path == key or path.startswith(key + ".")]:
            del flat[path]

    def put(self, space: str, key: str, node: Any) -> None:
        flat, words = self.spaces[space], key.split(".")
        for count in range(1, len(words)):
            parent = ".".join(words[:count])
            if flat.get(parent, ()) is not FOLDER:
                self.drop(space, parent)
                flat[parent] = FOLDER
        self.drop(space, key)
        flat[key] = node

    def below(self, space: str, key: str) -> Flat:
        """What stands at and below a key, by what follows the key."""
        flat = self.spaces[space]
        if key == ".":
            return {"": FOLDER, **{"." + path: node for path, node in flat.items()}}
        return {path[len(key) :]: node for path, node in flat.items() if path == key or path.startswith(key + ".")}

    def do(self, space: str, op: list[Any]) -> None:
        if op[0] in ("copy", "move"):
            self.copy(space, op)
            return
        found = self.resolve(space, op[1], op[0] == "append")
        where, key = (space, op[1]) if found is None or found[1] == "." else found
        node = self.spaces[where].get(key, ())
        if op[0] == "put":
            self.put(where, key, plain(op[2]))
        elif op[0] == "append":
            old = node if isinstance(node, list) and node[:1] != ["link"] else []
            self.put(where, key, plain(["parts", *old, *parts_of(op[2])]))
        elif op[0] == "unlink":
            self.drop(where, key)
        elif op[0] == "link":
            self.put(where, key, ["link", op[2], op[3]])
        elif node is not FOLDER:
            self.put(where, key, FOLDER)

    def copy(self, space: str, op: list[Any]) -> None:
        if op[1] not in self.spaces:
            return
        here, old = self.resolve(op[1], op[2], False) or (op[1], op[2])
        there, new = self.resolve(space, op[3], False) or (space, op[3])
        nodes = copy.deepcopy(self.below(here, old))
        inside = here == there and (old == "." or new == old or new.startswith(old + "."))
        if not nodes or (op[0] == "move" and inside) or (new == "." and nodes[""] is not FOLDER):
            return
        if op[0] == "move":
            self.drop(here, old)
        if new == ".":
            self.drop(there, ".")
            del nodes[""]
        else:
            self.put(there, new, nodes.pop(""))
        for rest, node in sorted(nodes.items()):
            self.put(there, (new if new != "." else "") + rest if new != "." else rest[1:], node)


class KvsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.kvs, self.model, self.version = Namespaces(), Model(), 0
        self.follower = fold_kvs.KvsState(Namespaces())  # a client that follows only events about the KVS

    @initialize()
    def second(self) -> None:
        self.event("kvs.namespace-create", {"namespace": "other", "owner": 5})
        self.model.spaces["other"] = {}

    def event(self, name: str, context: dict[str, Any]) -> None:
        self.version += 1
        events = [["submit", 7, 1.0, {}], [name, "kvs", 1.0, context], ["other", "kvs", 1.0, None]]
        self.follower.apply(Commit(self.version, 1, "", 0, 0, 1.0, copy.deepcopy(events), {}))
        fold_kvs.HANDLERS[name](self.kvs, 1.0, context, self.version)

    def commit(self, space: str, *ops: list[Any]) -> None:
        if space not in self.model.spaces:
            with pytest.raises(Rejected):
                self.kvs.commit(list(ops), self.version + 1, space)
            return
        said = copy.deepcopy(list(ops))
        self.event("kvs.commit", {"ops": list(ops)} | ({} if space == PRIMARY else {"namespace": space}))
        assert list(ops) == said, "an event must keep what it said"
        for op in said:
            self.model.do(space, op)

    @rule(space=spaces, key=keys, value=values, verb=st.sampled_from(["put", "append", "append"]))
    def put(self, space: str, key: str, value: Any, verb: str) -> None:
        self.commit(space, [verb, key, value])

    @rule(space=spaces, key=st.one_of(keys, keys, keys, st.just(".")))
    def unlink(self, space: str, key: str) -> None:
        self.commit(space, ["unlink", key])

    @rule(space=spaces, key=keys)
    def mkdir(self, space: str, key: str) -> None:
        self.commit(space, ["mkdir", key])

    @rule(space=spaces, key=keys, to=st.one_of(keys, st.just(".")), other=st.sampled_from(["", "", "other", "nowhere"]))
    def link(self, space: str, key: str, to: str, other: str) -> None:
        self.commit(space, ["link", key, to, other])

    @rule(space=spaces, source=spaces, old=keys, new=st.one_of(keys, st.just(".")), verb=st.sampled_from(["copy", "move"]))
    def copy(self, space: str, source: str, old: str, new: str, verb: str) -> None:
        self.commit(space, [verb, source, old, new])

    @rule(space=spaces, one=keys, value=values, two=keys, to=keys)
    def several(self, space: str, one: str, value: Any, two: str, to: str) -> None:
        self.commit(space, ["put", one, value], ["link", two, to, ""], ["append", one, b"x"], ["unlink", two])

    @rule(key=keys, value=values, wrong=st.sampled_from([["put", "a..b", b""], ["put"], 5, ["link", "a", "", ""], ["put", "a", 5]]))
    def all_or_nothing(self, key: str, value: Any, wrong: Any) -> None:
        before = pack([tree.dump() for tree in self.kvs.trees.values()])
        with pytest.raises(Rejected):
            self.kvs.commit([["put", key, value], wrong], self.version + 1)
        assert pack([tree.dump() for tree in self.kvs.trees.values()]) == before

    @rule()
    def remove_and_make(self) -> None:
        self.event("kvs.namespace-remove", {"namespace": "other"})
        self.model.spaces.pop("other", None)
        if self.version % 2:
            self.event("kvs.namespace-create", {"namespace": "other", "owner": 6})
            self.model.spaces["other"] = {}

    @invariant()
    def agrees(self) -> None:
        assert self.kvs.trees.keys() == self.model.spaces.keys()
        for name, flat in self.model.spaces.items():
            tree = self.kvs.trees[name]
            found = {}
            stack = [("", tree.root)]
            while stack:
                path, node = stack.pop()
                if isinstance(node, dict):
                    stack += [(f"{path}.{word}" if path else word, below) for word, below in node.items()]
                    if path:
                        found[path] = FOLDER
                else:
                    assert 0 < node[0] <= self.version
                    found[path] = node[1] if node[1][:1] == ["link"] else plain(node[1])
            assert found == flat
            for key in ("a", "a.b", "b.c.a"):
                where = self.model.resolve(name, key, True)
                if where is None:
                    with pytest.raises(Rejected):
                        self.kvs.resolve(name, key)
                else:
                    there, path = self.kvs.resolve(name, key)
                    assert (there.name, path) == where

    @invariant()
    def hash_is_that_of_what_is_there(self) -> None:
        total = 0
        for tree in self.kvs.trees.values():
            fresh = Tree(tree.name, tree.owner, tree.created)
            for word, node in tree.root.items():
                fresh._place(word, node)
            if tree.version:
                fresh.stamp(tree.version)
            assert (fresh.hash, fresh.links) == (tree.hash, tree.links)
            total += tree.hash
        assert self.kvs.hash == total % (1 << 128)
        again = Namespaces()
        for record in self.kvs.dump(pack):
            again.load(unpack(record))
        assert again.hash == self.kvs.hash == self.follower.kvs.hash
        assert [tree.dump() for tree in again.trees.values()] == [tree.dump() for tree in self.kvs.trees.values()]
        assert [tree.dump() for tree in again.trees.values()] == [tree.dump() for tree in self.follower.kvs.trees.values()]


def test_values_of_no_part_or_one() -> None:
    kvs = Namespaces()
    for version, (verb, value, expected) in enumerate(
        [("put", ["parts"], b""), ("append", ["parts"], b""), ("put", ["parts", b"x"], b"x"), ("append", ["parts", b"y"], b"xy"),
         ("append", b"", b"xy"), ("append", b"z" * 1024, ["parts", b"xy", b"z" * 1024])], 1
    ):  # fmt: skip
        kvs.commit([[verb, "a", value]], version)
        assert kvs.tree().get("a") == expected
        assert kvs.tree().node("a")[0] == version


def test_copies_of_copies_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling again and again: a short journal must not make a state that fits nowhere."""
    kvs = Namespaces()
    kvs.commit([["put", f"a.k{number}", b"x"] for number in range(1000)], 1)
    with pytest.raises(Rejected):
        kvs.commit([["copy", PRIMARY, "a", f"c{number}"] for number in range(9)], 2)
    monkeypatch.setattr(namespaces, "MAX_COPY", 5000)
    for version in range(2, 12):
        kvs.commit([["copy", PRIMARY, ".", f"d{version}"]], version)
    assert 4000 < sum(1 for _ in kvs.tree().walk()) < 10_000


def test_a_commit_costs_what_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of hashes, however many keys a directory has and however long a log is."""
    hashes: list[int] = []
    real = Tree._hash
    monkeypatch.setattr(Tree, "_hash", lambda self, path, content: hashes.append(len(content)) or real(self, path, content))
    costs = []
    for size in (10, 20_000):
        kvs = Namespaces()
        kvs.commit([["put", f"d.k{number}", b"x"] for number in range(size)], 1)
        kvs.commit([["append", "log", b"y" * 600] for _ in range(size)], 2)
        hashes.clear()
        kvs.commit([["put", "d.k1", b"z"], ["put", "d.new", b"z"], ["unlink", "d.k2"], ["append", "log", b"z"]], 3)
        costs.append((len(hashes), sum(hashes)))
    assert costs[0][0] == costs[1][0], costs
    assert costs[1][1] - costs[0][1] < 50, costs  # a part's number has more digits
    packed = kvs.dump(pack)
    assert kvs.dump(pack)[0] is packed[0]  # not packed again


ANYTHING = st.recursive(
    st.one_of(st.none(), st.integers(0, 3), st.binary(max_size=2), keys, st.sampled_from(["", ".", "put", "parts", "b" * 40])),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
VERBS = st.sampled_from(["put", "append", "unlink", "mkdir", "link", "copy", "move", "other"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(VERBS, ANYTHING, ANYTHING, ANYTHING, st.integers(1, 4)).map(lambda op: list(op[: op[4]])), max_size=3))
def test_any_operations_are_done_or_refused(ops: list[Any]) -> None:
    """Whatever somebody wrote into the journal by hand: all of it is done, or nothing."""
    kvs = Namespaces()
    kvs.commit([["put", "a.b", b"1"], ["link", "c", "a", ""], ["put", "b", ["parts", b"1", ["b" * 40, 3]]]], 1)
    before = pack(kvs.tree().dump())
    try:
        kvs.commit(ops, 2)
    except Rejected:
        assert pack(kvs.tree().dump()) == before
    again = Namespaces()
    for record in kvs.dump(pack):
        again.load(unpack(record))
    assert again.hash == kvs.hash


TestKvsMachine = KvsMachine.TestCase
TestKvsMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
