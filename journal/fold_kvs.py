"""How events about the user's KVS change it. Pure: on the namespaces alone, so that a client can follow just these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..kvs.errors import Corrupt, Rejected
from ..kvs.namespaces import PRIMARY, Namespaces, Touched
from .wire import LATEST, Commit, whole

Context = dict[str, Any]
SUBJECT = "kvs"
# What a handler meets in an event that somebody wrote by hand: fields missing, or of another kind.
_MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, Rejected)


def kvs_commit(kvs: Namespaces, ts: float, context: Context, version: int) -> Touched:
    return kvs.commit(context["ops"], version, context.get("namespace", PRIMARY))


def namespace_create(kvs: Namespaces, ts: float, context: Context, version: int) -> Touched:
    kvs.create(context["namespace"], whole(context["owner"]), ts, version)
    return [(context["namespace"], ".")]


def namespace_remove(kvs: Namespaces, ts: float, context: Context, version: int) -> Touched:
    kvs.remove(context["namespace"])
    return [(context["namespace"], ".")]


HANDLERS: dict[str, Callable[[Namespaces, float, Context, int], Touched]] = {
    "kvs.commit": kvs_commit,
    "kvs.namespace-create": namespace_create,
    "kvs.namespace-remove": namespace_remove,
}


class KvsState:
    """The user's KVS alone, as of a commit: what a client keeps that asks about nothing else."""

    __slots__ = ("epoch", "kvs", "tail", "version")

    def __init__(self, kvs: Namespaces, version: int = 0, epoch: int = 0) -> None:
        self.kvs = kvs
        self.version = version
        self.epoch = epoch
        self.tail = b""

    def apply(self, commit: Commit) -> Touched:
        """Take what a commit says about the KVS, exactly as the fold does; the places that changed."""
        if commit.version != self.version + 1:
            raise Corrupt(f"version {commit.version} follows version {self.version}: history has a gap", code="version-gap")
        self.version, self.epoch, self.tail = commit.version, commit.epoch, commit.digest
        touched: Touched = []
        for event in commit.events:
            try:
                name, subject, ts, context = event
                handler = HANDLERS.get(name) if subject.__class__ is not int else None
                if handler is not None and 0.0 <= ts <= LATEST:
                    touched += handler(self.kvs, ts, context or {}, commit.version)
            except _MALFORMED:
                continue
        return touched
