"""An instance without daemons on a real server, for tests of clients: the worker's events are appended by the test."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fluxkv.instances.client import Instance, connect
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.server import start_server

R = {"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {"core": "0-3"}}], "nodelist": ["h"]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        handle = start_server(str(tmp_path_factory.mktemp("kv")), "local")
    except Unavailable as error:
        pytest.skip(str(error))
    yield handle.url
    handle.stop()


@pytest.fixture
def instance(server: str, request: pytest.FixtureRequest) -> Iterator[Instance]:
    uri = f"{server}#/" + re.sub(r"\W", "_", request.node.name)
    store = open_store(uri)
    meta = store.create(durability="local", origin_ms=time.time_ns() // 1_000_000, created=time.time())
    create = {"uid": meta.uid, "owner": os.getuid(), "namespace": "/", "schema": 1}
    define = {"method": "configuration", "R": R}
    now = time.time()
    events = [["instance-create", "instance", now, create], ["resource-define", "resource", now, define]]
    Journal(store).append(Decision(events), 0)
    store.close()
    with connect(uri) as found:
        yield found


def play(instance: Instance, events: list[list[Any]]) -> None:
    """Append events as the worker would."""
    journal = Journal(instance.store, "worker")
    journal.append(Decision(events, bumps=[f"job/{event[1]}" for event in events]), journal.meta.version)


def life(id: int, status: int = 0) -> list[list[Any]]:
    t = time.time()
    return [
        ["validate", id, t, None],
        ["depend", id, t, None],
        ["priority", id, t, {"priority": 16}],
        ["alloc", id, t, {"claims": [[0, "0", "", 0, 1]], "expiration": 0.0}],
        ["start", id, t, None],
        ["finish", id, t + 1.5, {"status": status}],
        ["release", id, t, {"ranks": "all", "final": True}],
        ["free", id, t, None],
        ["clean", id, t, None],
    ]


def again(instance: Instance) -> Instance:
    """Another client of the same instance, which knows nothing of the first one's jobs."""
    return connect(instance.uri)
