"""The instance's config: what may be journalled as one, and what that bumps. Pure.

Two things are bumped. `config` is a mark for whoever submits: it is there only while the config has something that a submitter must
honour, and its version is that of the `config` event. `config/load` is for whoever loads a config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvs.errors import Rejected
from .config import binds_submitters, parse_rules
from .decide import Decision
from .hostlist import expand
from .state import State

MARK, LOAD = "config", "config/load"


def first(document: Mapping[str, Any], source: str, hosts: list[str], userid: int, now: float) -> Decision:
    """The config of an instance that is being made, {} for none. hosts: of its nodes."""
    if not document:
        return Decision([])
    _check_hosts(document, hosts)
    return _decision(document, source, userid, now, [])


def _fixed(table: dict[str, Any]) -> dict[str, Any]:
    """What of [resource] stays as it was when the instance was made."""
    return {key: value for key, value in table.items() if key != "offline-after"}


def load(state: State, document: dict[str, Any], source: str, userid: int, now: float) -> Decision:
    """Another config for an instance that is there. No events if it is the same. Raises `Rejected` with the key at fault."""
    rules = parse_rules(document)
    old = state.config
    if "resource" in document and _fixed(document["resource"]) != _fixed(old.get("resource", {})):
        raise Rejected(
            "config: [resource] is not what the instance was made with, and a reload does not change it", code="bad-config",
            hint="the inventory is given when an instance is made; leave [resource] as it was",
        )  # fmt: skip
    document = {**{table: old[table] for table in ("resource", "queue") if table in old}, **document}
    if document == old and (source == state.config_source or not source):
        return Decision([])
    _check_hosts(document, [node.host for node in state.nodes.values()])
    moved = sorted(state.queues.keys() ^ set(rules.names))  # a queue that is new is open
    decision = _decision(document, source, userid, now, sorted(state.queues.keys() | set(rules.names)))
    decision.since += [LOAD, "resource"]
    decision.clears += [f"closed/{name}" for name in moved]
    return decision


def _decision(
    document: Mapping[str, Any], source: str, userid: int, now: float, queues: list[str]
) -> Decision:
    context = {"config": dict(document), "source": source, "userid": userid}
    decision = Decision([["config", "instance", now, context]], bumps=[LOAD, *(f"plan/{name}" for name in queues)])
    (decision.bumps if binds_submitters(document) else decision.clears).append(MARK)
    return decision


def _check_hosts(document: Mapping[str, Any], hosts: list[str]) -> None:
    """RFC 33: a queue names only hosts that the instance has."""
    have = set(hosts)
    for queue in parse_rules(document).queues.values():
        unknown = [] if queue.hosts == "all" else [host for host in expand(queue.hosts or "") if host not in have]
        if unknown:
            raise Rejected(
                f"config: queues.{queue.name}.hosts names {unknown[0]}, which the instance does not have", code="bad-config",
                hint="fluxkv resource list shows its nodes",
            )  # fmt: skip


def left_behind(state: State, document: Mapping[str, Any]) -> dict[str, int]:
    """Queues that have active jobs and are not in this config -> how many jobs."""
    names = set(parse_rules(document).names)
    found: dict[str, int] = {}
    for job in state.active():
        if not job.holds and job.queue not in names:
            found[job.queue] = found.get(job.queue, 0) + 1
    return found
