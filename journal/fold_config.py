"""How a `config` event changes the state: the document, its rules, the queues there are, and who belongs to them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import Rules, parse_rules
from .hostlist import expand
from .node import Queue
from .usage import Usage

if TYPE_CHECKING:
    from .state import State


def config(state: State, subject: str, ts: float, context: dict[str, Any], version: int) -> None:
    """A document that is not valid changes nothing: `Rejected` makes the fold skip and count it."""
    document = context["config"]
    rules = parse_rules(document)
    state.config_entry = [document, str(context.get("source") or ""), version]
    state.rules = rules
    state.dirty_words.add("config")
    set_queues(state, rules)
    set_memberships(state)
    set_usage(state)


def set_usage(state: State) -> None:
    """Count the users' jobs afresh, if the rules want them counted."""
    state.usage = Usage(state.rules, state.active()) if state.rules.counts_users else None


def set_queues(state: State, rules: Rules) -> None:
    """The queues of the config; one that was there keeps its status, one that is gone is forgotten."""
    before = state.queues
    state.queues = {name: before.get(name) or Queue(name) for name in rules.names}
    for name in before.keys() - state.queues.keys():
        state.drop_word(f"queue/{name}")
    state.dirty_words.update(f"queue/{name}" for name in state.queues.keys() - before.keys())


def set_memberships(state: State) -> None:
    """Nodes that a queue has by name get the property +QUEUE (RFC 33); those of an older config go."""
    member: dict[str, list[str]] = {}
    for queue in state.rules.queues.values():
        for host in _members(queue.hosts, state):
            member.setdefault(host, []).append(f"+{queue.name}")
    for node in state.nodes.values():
        own = [name for name in node.properties if not name.startswith("+")]
        properties = (*own, *member.get(node.host, ()))
        if properties != node.properties:
            node.properties = properties
            state.dirty_words.add(node.rank)


def _members(hosts: str, state: State) -> list[str]:
    if hosts == "all":
        return list(dict.fromkeys(node.host for node in state.nodes.values()))
    return list(dict.fromkeys(expand(hosts))) if hosts else []


def load(state: State, entry: list[Any] | None) -> None:
    """The config as a snapshot has it; queues and nodes are in the snapshot themselves."""
    if entry is not None:
        state.config_entry = entry
        state.rules = parse_rules(entry[0])
        state.dirty_words.add("config")
