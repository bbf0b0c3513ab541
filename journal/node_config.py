"""What a config says of nodes that fall silent: `[resource] offline-after`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvs.errors import Rejected
from .duration import parse_duration

OFFLINE_AFTER_S = 30.0
LEAST_S = 0.5
_PATH = "resource.offline-after"


def offline_after(table: Mapping[str, Any]) -> float:
    """Seconds of silence after which a node is offline; 0.0 for never. Raises `Rejected` (bad-config)."""
    try:
        found = parse_duration(table.get("offline-after", OFFLINE_AFTER_S))
    except Rejected as error:
        raise Rejected(f"config: {_PATH} is not valid: {error}", code="bad-config", hint=error.hint) from None
    if 0 < found < LEAST_S:
        raise Rejected(f"config: {_PATH} is below {LEAST_S:g} s", code="bad-config", hint="no heartbeat is that sure; 0: never")
    return 0.0 if found == float("inf") else found


def beat_period(offline_after_s: float) -> float:
    """Seconds between heartbeats: several fit into the time after which a node is offline."""
    return min(2.0, offline_after_s / 5) if offline_after_s else 2.0
