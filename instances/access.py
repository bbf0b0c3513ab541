"""A child's user on the server that it shares with its parent: it touches its own namespace and what is inside it, nothing else.

Decides the user's name and password, which follow from the attempt, so that each node of the job comes to the same without asking
another; and who makes it: the connection of the instance around all children, the *granter*, where the server lets that. The user
is made before the child, made again by its keepers where the server has forgotten it (restarted, another is the primary), and taken
away with the child's row in its parent's table (`sealing.py`). Passwords stay in files of private state directories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from ..kvs.acl import child_rules, drop_user, set_user
from ..kvs.children import Child
from ..kvs.errors import FluxkvError, Rejected, Unavailable
from ..kvs.hashes import blake2b
from ..kvs.listening import write_secret
from ..kvs.port import Store
from ..kvs.redis_store import open_store
from ..kvs.uri import CHILD_USER, StoreUri, parse_server, parse_uri, password_beside, quote, secret_of, with_namespace
from .paths import StateDir

PATIENCE_S = 1.0
LONGEST = 40  # characters of a path in a user's name


def give(store: Store, child: Child, settings: Mapping[str, Any], directory: StateDir) -> dict[str, Any]:
    """Note a child in its parent's table, and make its user: its settings `uri`, `user` and `granter`; where it can have none,
    `no_user` says why, and all stays as it is.

    store: the parent's. settings: the child's, `uri` being its namespace at the address of its parent.
    """
    parent, (server, namespace) = settings["parent"], parse_uri(settings["uri"])
    address, uid = parse_server(parse_uri(parent).server), store.meta().uid
    granter = str(settings.get("granter") or parent)
    if address.kind in ("memory", "cluster"):
        store.note_child(child)
        return {"no_user": "users of a cluster would have to be on each of its nodes"} if address.kind == "cluster" else {}
    secret = secret_of(address) or (password_beside(address.path) if address.kind == "unix" else "")
    named = f"{uid} {namespace} {child.entry}".encode()
    password = blake2b(named, key=secret.encode()[:64], digest_size=24).hexdigest()
    user = f"{CHILD_USER}{_readable(namespace)}-{blake2b(named, digest_size=4).hexdigest()}"
    store.note_child(child._replace(user=user))  # before there is one, so that it is taken away whatever dies
    try:
        made = _make(store, granter, user, child_rules(namespace, store.namespace, password, address.db))
    except Rejected as error:
        store.note_child(child)
        return {"no_user": str(error)}
    if not made:
        raise Rejected(f"the job that {namespace} is has ended", code="gone")
    directory.create()
    path = directory.join("password")
    write_secret(path, password)
    return {"uri": _with_user(server, namespace, user, path), "user": user, "granter": granter}


def renew(settings: Mapping[str, Any]) -> bool:
    """Make a child's user again that the server does not know. False: the child's time is over, and it is not to have one.

    Raises what stands in the way now (code undecided: the parent's history lost the attempt, and nobody has adopted it yet).
    """
    from . import parent_row

    granter, parent = settings["granter"], parse_uri(settings["parent"]).namespace
    server, namespace = parse_uri(settings["uri"])
    address = parse_server(server)
    rules = child_rules(namespace, parent, secret_of(address), address.db)
    with closing(open_store(with_namespace(granter, parent), patience_s=0.0)) as store:
        if store.meta().sealed:
            return False
        if not _is_noted(store, settings["user"]) and not parent_row.note_again(store, settings):
            if parent_row.is_undecided(store, settings):
                raise Unavailable(f"{namespace}: whether its attempt is adopted has not been decided", code="undecided")
            return False
        return _make(store, granter, settings["user"], rules)


def _make(store: Store, granter: str, user: str, rules: list[str]) -> bool:
    """Make the user; not if it is struck out meanwhile, by somebody who had nothing to take away yet."""
    set_user(parse_uri(granter).server, user, rules)
    if _is_noted(store, user):
        return True
    drop_user(parse_uri(granter).server, user)
    return False


def _is_noted(store: Store, user: str) -> bool:
    """Whether a child that has this user is not over. In an instance that is sealed each is, though its job had no end there."""
    if store.meta().sealed:
        return False
    return any(child.user == user and not child.over for child in store.children())


def take_away(user: str, settings: Mapping[str, Any]) -> None:
    """Take a child's user away. settings: of a keeper of the instance around it. Who may not, leaves it be: the child is sealed."""
    with suppress(Rejected):
        drop_user(parse_uri(str(settings.get("granter") or settings["uri"])).server, user)


def lasting(uri: str, settings: Mapping[str, Any]) -> str:
    """A child's (or its parent's) address as the instance around them all has it: it outlives users. settings: the child's."""
    return with_namespace(str(settings.get("granter") or uri), parse_uri(uri).namespace)


def to_read_parent(settings: Mapping[str, Any]) -> str:
    """The address of a child's parent for its daemons, who only read there."""
    return with_namespace(settings["uri"], parse_uri(settings["parent"]).namespace) if settings.get("user") else settings["parent"]


def is_refused(error: FluxkvError, settings: Mapping[str, Any]) -> bool:
    """Whether the server does not know the child's user (any more)."""
    return error.code == "refused" and bool(settings.get("user"))


def _readable(namespace: str) -> str:
    """A path as it stands in a user's name: /ƒA/ƒB is fA.fB."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", namespace.strip("/").replace("ƒ", "f").replace("/", "."))[-LONGEST:]


def _with_user(server: str, namespace: str, user: str, path: str) -> str:
    """The same server for another user, whose password is in a file."""
    place, _, query = server.partition("?")
    words = [word for word in query.split("&") if word and not word.startswith(("user=", "password_file="))]
    scheme, mark, rest = place.partition("://")
    if mark and not place.startswith("unix:"):
        place = f"{scheme}://{user}@{rest.rpartition('@')[2]}"
    else:
        words.append(f"user={quote(user)}")
    words.append(f"password_file={quote(path)}")
    return str(StoreUri(f"{place}?{'&'.join(words)}", namespace))
