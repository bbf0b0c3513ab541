"""A child instance with a server of its own: where that is, and who learns of it.

Decides a child's settings about its server, and the door it leaves (`whereabouts`). Its keeper cares for the server as a root's
does, and hands its history up at the end (`handover`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..journal.ids import parse_id
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.listening import Listen, join_url, parse_listen, with_port, write_secret
from ..kvs.redis_store import open_store
from ..kvs.server import socket_path
from ..kvs.uri import StoreUri, parse_server, parse_uri, unix_url, with_namespace, with_password_file
from . import child, parent_row, whereabouts
from .paths import StateDir
from .spool import boot_id

if TYPE_CHECKING:
    from ..kvs.port import Meta


def settings_of(here: child.Place, meta: Meta, namespace: str) -> dict[str, Any]:
    """Settings of a child with a server of its own, on its first node: a socket file, and, where somebody comes from elsewhere, a
    port. Other nodes learn the address by its door (`follow_door`)."""
    settings: dict[str, Any] = {"kvs": whereabouts.OWN}
    settings["durability"] = meta.durability if meta.durability != "replicated" else "strict"  # it has no replicas
    if here.node:
        return settings
    server = unix_url(socket_path(child.directory(here).path))
    settings["uri"] = str(StoreUri(server, namespace))
    if here.nodes > 1 or parse_server(parse_uri(here.parent).server).kind != "unix" or child.around(here).get("listen"):
        settings["listen"] = list(with_port(parse_listen("")))
    return settings


def door_of(settings: Mapping[str, Any], state_dir: StateDir) -> whereabouts.Door:
    """How the server of this child is reached."""
    listen = settings.get("listen")
    return whereabouts.Door(
        parse_uri(settings["uri"]).server, join_url(state_dir.path, Listen(*listen)) if listen else "", state_dir.path,
        os.uname().nodename, boot_id(),
    )  # fmt: skip


def open_door(settings: Mapping[str, Any], state_dir: StateDir) -> None:
    """Leave word of that on the parent's server."""
    with closing(open_store(with_namespace(settings["parent"], parse_uri(settings["uri"]).namespace))) as store:
        if whereabouts.read_door(store) != (door := door_of(settings, state_dir)):
            whereabouts.leave_door(store, door)


def follow_door(settings: dict[str, Any], state_dir: StateDir, timeout_s: float = 60.0) -> str:
    """The URI by which another node of the child reaches its server, once the first one has left its door; its password is in a
    file of this node's. One that came later to a child that does not listen reaches it on its own host alone. Raises
    `Unavailable`."""
    deadline = time.monotonic() + timeout_s
    namespace = parse_uri(settings["uri"]).namespace
    leading = child.folder_names(parse_id(settings["job"]), str(settings["entry"]), 0)
    with closing(open_store(settings["uri"])) as store:  # the parent's server still
        while (door := whereabouts.read_door(store)) is None or not door.folder.endswith(leading):  # of before
            if time.monotonic() > deadline:
                raise Unavailable(f"{namespace}: its leading node has not started its server", code="no-instance")
            time.sleep(0.02)
    if not door.remote:
        if door.boot == boot_id():
            return str(StoreUri(door.socket, namespace))
        raise Unavailable(f"{namespace}: its server has a socket file alone, on host {door.host}", code="server-away")
    path = state_dir.join("join.password")
    uri, password = with_password_file(str(StoreUri(door.remote, namespace)), path)
    write_secret(path, password)
    return uri


def is_over(settings: Mapping[str, Any]) -> bool:
    """Whether a child with a server of its own has ended, by the parent's word: its journal is there, or its attempt is over."""
    try:
        with closing(open_store(settings["parent"], patience_s=1.0)) as parent:
            if parent_row.over(parent, [settings])[0]:
                return True
            return whereabouts.server_of(parent, parse_uri(settings["uri"]).namespace) == ""
    except FluxkvError:
        return False
