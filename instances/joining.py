"""A host joins an instance over the network: its state directory, its place in the inventory, and how it leaves again.

Decides which state directory stands for which instance, and whether a rank's agent is still alive; which rank a host gets,
`journal.decide_hosts` does. Passwords stay in files of the private state directory; what is shown or passed on names the file.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from ..journal import decide_hosts
from ..journal.decide import Decision
from ..journal.log import Journal
from ..journal.state import State
from ..journal.wire import unpack
from ..kvs.errors import Rejected, Unavailable
from ..kvs.keys import Keys
from ..kvs.port import Meta, Store
from ..kvs.redis_store import open_store
from ..kvs.uri import parse_server, parse_uri, public
from .discover import cpus_by_core, gpu_count, host_name, memory_mb
from .outside import keep_password
from .paths import StateDir, home
from .spool import boot_id, spool_id

ALIVE_S = 10.0  # an agent whose last heartbeat is younger lives


def default_directory(uri: str, name: str) -> StateDir:
    """Where this host's part of an instance lives: the same each time it joins."""
    import hashlib

    parsed = parse_uri(uri)
    key = f"{parse_server(parsed.server)}{parsed.namespace}#{name}"
    return StateDir(os.path.join(home(), "joined-" + hashlib.blake2b(key.encode(), digest_size=6).hexdigest()))


def read_address(text: str) -> str:
    """The join address itself, out of a file ("-": standard input) so that it is not in `ps`, or as it is."""
    import sys

    said = "standard input" if text == "-" else text
    if text == "-" and (line := sys.stdin.readline().strip()):
        return line
    if ":" in text and not os.path.exists(text):
        return text
    try:
        if text != "-":
            with open(text, encoding="utf-8") as file:
                if line := file.readline().strip():
                    return line
        why = "it is empty"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
    raise Rejected(
        f"{said}: {why}", code="bad-uri", hint="--join takes an address, a file that holds one, or -: fluxkv uri --remote"
    )


def prepare(directory: StateDir, uri: str, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of a host that joins, kept in its state directory. uri "": as before. options: name, cores, gpus, memory,
    properties; None where this machine is to be looked at, () or None where what was said before holds.

    Raises `Rejected` where the directory is something else's, or nothing says which instance is to be joined.
    """
    known = os.path.exists(directory.instance_file)
    if not known and not uri:
        raise Rejected(
            f"{directory.path}: no host has joined from here", code="no-state-dir", hint="name the instance with --join URI"
        )
    directory.create()
    settings: dict[str, Any] = directory.read() if known else {"created": time.time(), "join": True, "lead": False, "workers": 0}
    if not settings.get("join"):
        raise Rejected(
            f"{directory.path} is the state directory of an instance", code="exists", hint="choose another with --state-dir"
        )
    if uri:
        settings["uri"] = keep_password(uri, directory)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings["host"] = {"name": host_name(), **settings.get("host", {}), **given}
    directory.write(settings)
    return settings


def prepare_worker(directory: StateDir, uri: str, name: str, workers: int) -> dict[str, Any]:
    """As `prepare`, for a host that plans and has no node. The policy is the one the instance was made with.

    Raises `Unavailable` where nobody answers: what it is to join has to be known.
    """
    settings = prepare(directory, uri, {"name": name})
    if settings.get("ranks"):
        raise Rejected(f"{directory.path}: a node has joined from here", code="exists", hint="choose another with --state-dir")
    store = open_store(settings["uri"])
    try:
        meta = store.meta()
        _same_instance(settings, meta, directory)
        policy = Journal(store).look().instance.get("policy", "fcfs")
    finally:
        store.close()
    settings |= {"uid": meta.uid, "ranks": [], "lead": True, "workers": workers, "policy": policy}
    directory.write(settings)
    return settings


def announce(directory: StateDir, settings: dict[str, Any]) -> int:
    """Have this host's node in the inventory; its rank, which the settings keep. Raises what stands in the way."""
    store = open_store(settings["uri"])
    try:
        meta = store.meta()
        _same_instance(settings, meta, directory)
        journal = Journal(store, by="join")
        new = _newcomer(directory, settings["host"])
        now, rank = store.now(), -1

        def decision(state: State) -> Decision:
            nonlocal rank
            known = decide_hosts.rank_of(state, new.host, new.spool)
            if known is not None and state.nodes[known].joined != new.spool:
                _must_be_dead(store, state, known)
            made, rank = decide_hosts.join(state, new, now)
            return made

        journal.settle(decision)
    finally:
        store.close()
    settings |= {"uid": meta.uid, "ranks": [rank]}
    directory.write(settings)
    return rank


def undo(directory: StateDir, settings: dict[str, Any]) -> None:
    """A first try that failed leaves nothing that looks as if this host had joined."""
    if "uid" not in settings:
        for name in ("instance.json", "password"):
            with suppress(OSError):
                os.unlink(directory.join(name))


def _same_instance(settings: dict[str, Any], meta: Meta, directory: StateDir) -> None:
    if not meta.version:
        raise Unavailable(f"{public(settings['uri'])}: the instance is being made", code="no-instance", hint="try again")
    if settings.get("uid") not in (None, meta.uid):
        raise Rejected(
            f"{public(settings['uri'])} is another instance than the one {directory.path} belongs to", code="gone",
            hint="use another --state-dir, or remove this one",
        )  # fmt: skip


def _newcomer(directory: StateDir, host: dict[str, Any]) -> decide_hosts.Newcomer:
    cores = host.get("cores") or len(cpus_by_core())
    gpus = host["gpus"] if host.get("gpus") is not None else gpu_count()
    memory = host["memory"] if host.get("memory") is not None else memory_mb()
    return decide_hosts.Newcomer(
        host["name"], (1 << cores) - 1, (1 << gpus) - 1, memory, tuple(host.get("properties") or ()), spool_id(directory.spool),
        boot_id(),
    )  # fmt: skip


def _must_be_dead(store: Store, state: State, rank: int) -> None:
    """A name is given to another state directory only when the agent that had it is gone, and all that it ran."""
    node = state.nodes[rank]
    heard = last_beats(store).get(rank, 0.0)
    if node.online and store.now() - heard < ALIVE_S:
        raise Rejected(
            f"a host {node.host} has joined already (rank {rank}) and is up", code="host-exists",
            hint="give this host another name with --name, or stop the other one",
        )  # fmt: skip
    if node.busy or node.grants:
        raise Rejected(
            f"a host {node.host} has joined (rank {rank}) from another state directory, and jobs hold some of it", code="in-use",
            hint=f"if nothing of them runs any more: fluxkv resource fence {rank}; else give this host another name with --name",
        )  # fmt: skip


def last_beats(store: Store) -> dict[int, float]:
    """rank -> server time of its agent's last heartbeat (Unix seconds), as far back as the telemetry goes."""
    found: dict[int, float] = {}
    for message in store.messages(Keys(store.namespace).telemetry, limit=10_000):
        try:
            ranks = unpack(message.data)[0]
            found.update(dict.fromkeys(ranks, int(message.id.partition("-")[0]) / 1000))
        except (ValueError, TypeError, LookupError):
            continue
    return found


def forget(directory: StateDir, settings: dict[str, Any]) -> None:
    """The host is not of the instance any more: its node goes. Raises `Rejected` while something runs there."""
    store = open_store(settings["uri"])
    try:
        journal = Journal(store, by="join")
        now = store.now()
        for rank in settings.get("ranks", ()):
            journal.settle(lambda state, rank=rank: decide_hosts.leave(state, rank, now))  # type: ignore[misc]
            store.delete(Keys(store.namespace).inbox(f"node/{rank}"))
    finally:
        store.close()
    settings.pop("ranks", None)
    directory.write(settings)
