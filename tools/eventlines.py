"""Events, jobspecs and resource sets of a job as lines on stdout (RFC 18, 20, 24, 25). Decides their look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..journal.eventlog import format_event
from ..journal.wire import Event
from ..kvs.errors import Rejected, Unavailable
from .render import json_text, out, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..instances.client import Instance
    from ..journal.claims import Claim
    from ..journal.state import State

_BULKY = ("jobspec",)  # shown by `job info ID jobspec`


class EventLines:
    """form: "text" or "json" (RFC 18). times: "raw" (Unix seconds), "offset" (from the first) or "human"."""

    def __init__(self, form: str, times: str) -> None:
        self._form = form
        self._times = times
        self._first = self._minute = self._last = 0.0

    def of(self, event: Event) -> str:
        """One event as one line, without its end. Call it for each event of the log in turn."""
        if self._form == "text":
            return self.text(event.name, event.timestamp, event.context)
        return format_event(event.name, event.timestamp, _shown(event.context))

    def text(self, name: str, timestamp: float, context: dict[str, Any] | None) -> str:
        """One event as text: time, name, and its context as key=value."""
        pairs = [f"{key}={json_text(value)}" for key, value in _shown(context).items()]
        return " ".join([self._time(timestamp), name, *pairs])

    def _time(self, timestamp: float) -> str:
        self._first = self._first or timestamp
        if self._times == "offset":
            return f"{timestamp - self._first:.6f}"
        if self._times == "raw":
            return f"{timestamp:.6f}"
        # As dmesg -H has it: the minute when it changes, else the distance from the line before.
        last, self._last = self._last, timestamp
        if not last or timestamp - self._minute >= 60.0:
            self._minute = timestamp
            return time.strftime("[%b%d %H:%M]", time.localtime(timestamp))
        return f"[{timestamp - last:+11.6f}]"


def _shown(context: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (context or {}).items() if key not in _BULKY}


def matches(context: dict[str, Any] | None, wanted: str | None) -> bool:
    """Whether a context has KEY=VAL (VAL as JSON or as text)."""
    if wanted is None:
        return True
    key, mark, text = wanted.partition("=")
    if not mark:
        raise Rejected(f"{wanted!r} is not KEY=VAL", code="bad-option", hint="e.g. -m type=cancel")
    value = (context or {}).get(key)
    return value is not None and (value == text or json_text(value) == text)


def show_jobspec(instance: Instance, id: int, original: bool) -> None:
    """A job's jobspec with what was changed in it and its environment; or as it was submitted."""
    from ..instances.kept import kept_environment, kept_jobspec
    from ..instances.submission import complete

    record = instance.job(id)
    jobspec = kept_jobspec(instance, record, original=original)
    print_json(jobspec if original else complete(jobspec, kept_environment(instance, record)))


def show_R(instance: Instance, id: int, base: bool = False) -> None:
    """The resources a job holds or held; base: as they were allocated, before its time limit, or its nodes, were changed."""
    from ..journal.claims import from_wire
    from ..journal.ids import f58

    state = instance.state()
    record = instance.journal.find_job(state, id)
    claims, expiration, begin = record.claims, record.expiration, record.t_alloc
    if not claims:
        raise Unavailable(
            f"job {f58(id)}: has no resources (yet)", code="no-R", hint=f"fluxkv job eventlog {f58(id)} shows how far it came"
        )
    if base:
        for _, event in instance.journal.story(record.commits, id):
            if event.name == "alloc" and event.context is not None:
                expiration = float(event.context.get("expiration", 0.0))
                claims = from_wire(event.context["claims"])
    _print_R(state, claims, begin, expiration)


def show_reservation(instance: Instance, id: int) -> None:
    """The resources that the plan of this moment keeps for a job, as R."""
    from ..journal.ids import f58
    from .reserved import reservations

    state = instance.state()
    record = instance.journal.find_job(state, id)
    kept = next((one for one in reservations(state, instance.store.now()) if one.job == id), None)
    if kept is None:
        raise Unavailable(
            f"nothing is reserved for job {f58(id)}", code="no-reservation",
            hint=f"fluxkv explain {f58(id)} says why, and when it begins",
        )  # fmt: skip
    _print_R(state, kept.claims, kept.start, kept.start + record.duration if record.duration else 0.0)


def _print_R(state: State, claims: Sequence[Claim], begin: float, expiration: float) -> None:
    from ..instances.views import scheduling_of
    from ..journal.rset import allocated_set, render_set

    hosts = {rank: node.host for rank, node in state.nodes.items()}
    hosts.update({claim.rank: f"rank{claim.rank}" for claim in claims if claim.rank not in hosts})
    properties = {rank: node.properties for rank, node in state.nodes.items()}
    slots = sum(claim.slots for claim in claims)
    found = allocated_set(claims, hosts, slots, begin, expiration, properties)
    print_json(render_set(found._replace(scheduling=scheduling_of(state, claims))))


def show_output(instance: Instance, id: int) -> None:
    """A job's forwarded output as an RFC 24 log."""
    from ..journal.wire import unpack
    from ..kvs.keys import Keys

    key, after = Keys(instance.store.namespace).output(id), "0"
    while messages := instance.store.messages(key, after):
        for message in messages:
            after = message.id
            name, context = unpack(message.data)
            out(format_event(name, int(message.id.partition("-")[0]) / 1000, context))
