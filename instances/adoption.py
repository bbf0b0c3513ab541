"""Another inventory reaches an agent that runs: nodes that are new speak, those that are gone are not read for any more.

Decides nothing about the inventory (`journal.decide_inventory` does): no node that goes has anything on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .agent import Agent
from .facts import Rows


def adopt(agent: Agent, names: Mapping[int, str], tip: str) -> list[int]:
    """Serve these nodes (rank -> host) from now on; the ranks that are new. tip: what was sent before it is not for them."""
    host = agent.host
    fresh = [rank for rank in names if rank not in host.names]
    for rank in fresh:
        agent.cursors[rank] = tip
        agent.rows[rank] = Rows()
    for rank in host.names.keys() - names.keys():
        agent.cursors.pop(rank, None)
        agent.trims.pop(rank, None)
        agent.rows.pop(rank, None)
        agent.sent.pop(rank, None)
    if host.names != names:
        agent.hello_due = True
    host.names, host.ranks = dict(names), sorted(names)
    return fresh
