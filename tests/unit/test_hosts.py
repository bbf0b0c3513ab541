"""Hosts that join: what the decision says of ranks and names, where a server listens, and what an agent serves."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import main
from fluxkv.instances.discover import make_R
from fluxkv.journal import decide_hosts
from fluxkv.journal.catalogue import check_context
from fluxkv.journal.node import Node
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit, pack
from fluxkv.kvs import listening, uri
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.port import Message
from fluxkv.kvs.uri import parse_server
from fluxkv.tools import dmesg_cmd


def apply(state: State, *events: list[Any]) -> State:
    skipped = state.skipped
    for name, subject, _, context in events:
        check_context(subject.partition("/")[0], name, context)
    state.apply(Commit(state.version + 1, 1, "", 0, 0, float(state.version), list(events), {}))
    assert state.skipped == skipped
    return state


def instance(*hosts: str) -> State:
    R = make_R([(host, 3, 0, 0, ()) for host in hosts])
    return apply(State(), ["resource-define", "resource", 1.0, {"method": "x", "R": R}])


def newcomer(host: str, spool: str, cores: int = 3, boot: str = "b") -> decide_hosts.Newcomer:
    return decide_hosts.Newcomer(host, cores, 0, 512, ("fast",), spool, boot)


def settled(state: State, new: decide_hosts.Newcomer) -> int:
    decision, rank = decide_hosts.join(state, new, 2.0)
    assert set(decision.since) == set(decision.bumps)
    apply(state, *decision.events)
    return rank


def test_daemons_of_joined_hosts_are_told_apart_in_the_log_that_all_share() -> None:
    for settings, name, called in (
        ({"lead": True}, "agent", "agent"),
        ({"join": True, "host": {"name": "n7"}}, "agent", "agent@n7"),
        ({"join": True, "host": {"name": "n7"}}, "worker-0@n7", "worker-0@n7"),
    ):
        assert main.called(name, settings) == called
    lines = [
        Message(str(number), pack([1.0, said, "warning", "hm"]))
        for number, said in enumerate(("agent", "agent@n7", "worker-0@n7", "keeper@n7"))
    ]
    for role, found in (("agent", [0, 1]), ("agent@n7", [1]), ("worker", [2]), (None, [0, 1, 2, 3])):
        assert [lines.index(line) for line in lines if dmesg_cmd._chosen([line], role, None)] == found


def test_a_host_gets_a_rank_and_keeps_it() -> None:
    state = instance("head")
    assert settled(state, newcomer("a", "s1")) == 1
    assert settled(state, newcomer("b", "s2")) == 2
    before = {rank: node.value() for rank, node in state.nodes.items()}
    again, rank = decide_hosts.join(state, newcomer("a", "s1"), 3.0)
    assert (again.events, rank) == ([], 1)  # the same again says nothing
    assert settled(state, newcomer("a", "s3", boot="b2")) == 1  # its state directory was lost: it has its name
    assert state.nodes[1].joined == "s3"
    assert settled(state, newcomer("a", "s3", cores=15)) == 1  # and has got more cores
    assert (state.nodes[1].cores, state.nodes[1].memory_mb, state.nodes[1].properties) == (15, 512, ("fast",))
    assert settled(state, newcomer("c", "s2")) == 2  # by its state directory, under another name
    assert settled(state, newcomer("b", "s2")) == 2
    for rank in (0, 2):
        assert state.nodes[rank].value()[:6] == before[rank][:6]
    assert [node.joined for node in state.nodes.values()] == ["", "s3", "s2"]
    assert all(Node.from_value(node.value()).value() == node.value() for node in state.nodes.values())


def test_names_and_nodes_that_are_not_to_be_had() -> None:
    state = instance("head")
    with pytest.raises(Rejected, match="head") as refused:
        decide_hosts.join(state, newcomer("head", "s1"), 2.0)
    assert (refused.value.code, "--name" in refused.value.hint) == ("host-exists", True)
    settled(state, newcomer("a", "s1"))
    state.nodes[1].jobs.add(7)
    with pytest.raises(Rejected, match="jobs hold some of it"):
        decide_hosts.leave(state, 1, 3.0)
    state.nodes[1].jobs.clear()
    apply(state, *decide_hosts.leave(state, 1, 3.0).events)
    assert sorted(state.nodes) == [0]
    with pytest.raises(Rejected, match="last node"):
        decide_hosts.leave(state, 0, 3.0)
    state.instance = {"parent": "unix:/x"}
    with pytest.raises(Rejected, match="resources of its job"):
        decide_hosts.join(state, newcomer("b", "s2"), 4.0)


def test_a_state_without_such_hosts_is_hashed_as_it_was() -> None:
    node = Node(0, "head", 3, 0, 0, ())
    assert len(node.value()) == 17
    node.joined = "s"
    assert len(node.value()) == 19
    before = instance("head").digest()
    assert apply(instance("head"), ["offline", "resource", 2.0, {"idset": "0", "reason": "x"}]).nodes[0].down is None
    down = apply(instance("head"), ["offline", "resource", 2.0, {"idset": "0", "reason": "x", "heard": 1.5}])
    assert down.nodes[0].down == [1.5, "x", 0.0]
    assert down.digest() != before
    assert apply(down, ["online", "resource", 3.0, {"idset": "0"}]).nodes[0].down is None


@pytest.mark.parametrize("text", ["127.0.0.1:x", "127.0.0.1:70000", "192.0.2.7", "no such host", "sh", "[::1", "1.2.3.4.5"])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(Rejected) as refused:
        listening.parse_listen(text)
    assert (refused.value.code, bool(refused.value.hint)) == ("bad-listen", True)


def test_where_a_server_listens(tmp_path: Path) -> None:
    assert listening.parse_listen("") == ("0.0.0.0", 0)
    assert listening.parse_listen("*") == ("0.0.0.0", 0)
    assert listening.parse_listen("127.0.0.1") == ("127.0.0.1", 0)
    chosen = listening.with_port(listening.parse_listen("127.0.0.1"))
    assert listening.with_port(chosen) == chosen
    assert listening.parse_listen(f"127.0.0.1:{chosen.port}") == chosen
    assert listening.parse_listen(f"{chosen.port}") == ("0.0.0.0", chosen.port)
    listening.prepare(str(tmp_path))
    address = parse_server(listening.join_url(str(tmp_path), chosen))
    assert (address.host, address.port, address.user) == ("127.0.0.1", chosen.port, "join")
    options = listening.options(str(tmp_path), chosen)
    users = Path(options["aclfile"]).read_text()
    assert address.password not in users + " ".join(options.values())
    kept = {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600 for name in kept)
    listening.prepare(str(tmp_path))  # once made, passwords stay
    assert kept == {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert uri.password_beside(str(tmp_path / "kv.sock")) == kept[uri.PASSWORD_FILE].strip()
    assert uri.password_beside("/nonexistent/kv.sock") == ""
