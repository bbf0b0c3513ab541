"""The subjects of a state, and the plain value of each, which the digest covers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..kvs.namespaces import PRIMARY
from .holding import path_of, value_of, word_of
from .job import job_value
from .quarantine import entry_word, subject_of

if TYPE_CHECKING:
    from .state import State


def word_value(state: State, word: int | str) -> Any:
    """Plain value of a subject that is not a job: a node (its rank), "queue/<name>", "cron/<id>", "cron", "config", "graph",
    "pool/<path>", "quarantine", "quarantine/<subject>", "retired" or "instance"."""
    if word.__class__ is int:
        return state.nodes[word].value()
    if word == "graph":
        return ["graph", state.graph.hash if state.graph is not None else b""]
    if path := path_of(word):
        return value_of(path, state.drawn[path])
    if word == "config":
        return ["config", state.config_entry]
    if word == "instance":
        return ["instance", state.instance, state.expiration]
    if word == "retired":
        return ["retired", state.retired, state.retirements]
    if word == "results":
        return ["results", state.results]
    if word == "cron":
        return ["cron", *state.cron.value()]
    if word == "quarantine":
        return ["quarantine", state.quarantine.total]
    kind, _, name = str(word).partition("/")
    if kind == "quarantine":
        return [kind, state.quarantine.table[subject_of(name)].value()]
    if kind == "cron":
        return state.cron.entries[int(name)].value()
    if kind == "housekeeping":
        return state.keeping[int(name)].value()
    return state.queues[name].value()


def subjects(state: State) -> dict[str, Any]:
    """Every subject's plain value by name, for naming the first difference between two states."""
    found: dict[str, Any] = {f"job/{id}": list(job_value(job)) for id, job in state.jobs.items()}
    found.update({f"node/{rank}": node.value() for rank, node in state.nodes.items()})
    found.update({f"queue/{name}": queue.value() for name, queue in state.queues.items()})
    found["instance"] = word_value(state, "instance")
    found["retired"] = word_value(state, "retired")
    found["results"] = word_value(state, "results")
    if state.config_entry is not None:
        found["config"] = word_value(state, "config")
    if state.graph is not None:
        found["graph"] = state.graph.hash.hex()
    found.update({word_of(path): value_of(path, used) for path, used in state.drawn.items()})
    found.update({f"housekeeping/{id}": keeping.value() for id, keeping in state.keeping.items()})
    if state.quarantine:
        found["quarantine"] = word_value(state, "quarantine")
        found.update({entry_word(subject): aside.value() for subject, aside in state.quarantine.table.items()})
    if state.cron.last:
        found.update({f"cron/{id}": entry.value() for id, entry in state.cron.entries.items()})
        found["cron"] = word_value(state, "cron")
    for tree in state.kvs.trees.values():
        space = "kvs/" if tree.name == PRIMARY else f"kvs/{tree.name}:"
        found.update((space + key, node) for key, node in tree.walk())
        found[space] = [tree.owner, tree.created, tree.version]
    return found
