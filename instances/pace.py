"""How much an instance for floods of short jobs (`--policy throughput`) does together. Pure.

Decides three durations by the policy that it was made with: a config that names another one later does not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Pace(NamedTuple):
    """All in seconds. In a flood an agent reports so often (`report_s`; each report is a commit, and begets one of the
    worker), and a launcher tells its agent so often (`batch_s`: more often would only wake it); after a quiet time both speak at
    once, and so they do where nothing is left to end, or very much has. linger_s: how long a job that is placed ahead waits for its
    seat before it is given back, to be placed elsewhere."""

    report_s: float = 0.02
    batch_s: float = 0.0015
    linger_s: float = 0.5


USUAL = Pace()
FLOOD = Pace(0.5, 0.5, 5.0)  # seats are covered for longer (`fcfs.Throughput`), and jobs are equal: elsewhere is no better


def pace_of(settings: Mapping[str, Any]) -> Pace:
    """Of an instance with these settings."""
    return FLOOD if settings.get("policy") == "throughput" else USUAL
