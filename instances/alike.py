"""Attempts that differ only in whose they are: made from the first of their kind, and told to the launcher by what differs. Pure.

Most attempts of a flood have one command, one environment and the same options; to make, pack, send and keep all of that for each
is a third of what an agent does for a short job. Decides which attempts are alike; what an attempt is, `attempts` says.
"""

from __future__ import annotations

from typing import Any

from .attempts import Host, build_attempt, environment, f58_ascii, own_environment
from .wire import LIKE, pack

_OWN = ("job", "name", "system", "attempt")  # of an order; the name is for templates only, the attempt's is in its key
_OF_THE_JOB = frozenset(("refuse", "files", "fake_s", "empty_before", "pty"))  # attempts with these are made one by one


class Alike:
    """Remembers the last kind of attempt that was made."""

    __slots__ = ("_common", "_cpus", "_kind", "_names", "_overlay")

    def __init__(self) -> None:
        self._kind = b""  # what orders of this kind have in common; b"": there is none
        self._common: dict[str, Any] = {}
        self._overlay: frozenset[str] = frozenset()  # variables that each of these jobs sets itself
        self._names: Any = None
        self._cpus: Any = None

    def build(self, host: Host, rank: int, order: dict[str, Any], key: str) -> dict[str, Any]:
        """As `build_attempt`. An attempt of the kind of the one before has `like`, what they share, and `env_own`: its own
        variables, which come on top of `env_set`. Raises what that raises."""
        rest = {name: value for name, value in order.items() if name not in _OWN}
        system = order["system"]
        overlay: dict[str, Any] = {}
        if "environment" in system:
            overlay = {name: str(value) for name, value in (system["environment"] or {}).items() if value is not None}
            system = {name: value for name, value in system.items() if name != "environment"}
        try:
            kind = pack((rank, rest, system))  # as bytes: 1 and True are two things
        except ValueError:  # nested too deep for that
            kind = b""
        here = host.names is self._names and host.cpus is self._cpus
        if kind and kind == self._kind and here and overlay.keys() == self._overlay:
            id = order["job"]
            tmpdir = f"{host.tmp}/job-{f58_ascii(id)}-{rank}"
            own = own_environment(order, key, tmpdir)
            return {
                **self._common, "key": key, "job": id, "tmpdir": tmpdir, "env_own": {**overlay, **own} if overlay else own,
                LIKE: self._common,
            }  # fmt: skip
        self._kind = b""
        attempt = build_attempt(host, rank, order, key)
        texts = repr((order["command"], system.get("shell")))
        hidden = overlay and overlay.keys() & environment(host, rank, order, key, "").keys()  # behind variables of ours
        if kind and not (_OF_THE_JOB & attempt.keys() or "{{" in texts or hidden):
            self._kind, self._common, self._overlay = kind, dict(attempt), frozenset(overlay)
            self._names, self._cpus = host.names, host.cpus
        return attempt
