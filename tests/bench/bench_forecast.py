"""What estimated starts cost a listing: how long all of them take, and how many there are when its time is up.

`python tests/bench/bench_forecast.py` prints it.
"""

from __future__ import annotations

import gc
import random
from time import process_time
from typing import Any

from rig import Figure, figure

from fluxkv.instances.outlook import Outlook
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.tools.foresight import BUDGET_S, Budget

T0 = 1_700_000_000.0
POLICIES = ("fcfs", "easy", "hybrid", "conservative")
SEATS = 8  # running jobs on each node, which is full


def _state(nodes: int, cores: int, pending: int, policy: str) -> State:
    """All nodes full, jobs of many lengths; those that wait ask for one to 64 cores."""
    state, made = State(), 0

    def say(*events: list[Any]) -> None:
        nonlocal made
        made += 1
        state.apply(Commit(made, 7, "bench", 0, 0, T0, list(events), {}, b""))

    say(["instance-create", "instance", T0, {"uid": "u", "policy": policy}])
    records = tuple(NodeRecord(rank, f"n{rank}", (1 << cores) - 1, 0, 0, ()) for rank in range(nodes))
    say(["resource-define", "resource", T0, {"method": "configuration", "R": render_set(ResourceSet(records))}])
    for node in state.nodes.values():
        node.online = True
    dice, each = random.Random(1), cores // SEATS
    for number in range(nodes * SEATS + pending):
        runs, id, limit = number < nodes * SEATS, number + 1, float(dice.randrange(60, 36_000))
        asked = _spec(1 if runs else dice.choice((1, 4, 16, 64)), limit)
        say(
            ["submit", id, T0, {"jobspec": asked, "userid": 0, "urgency": 16, "flags": 0}],
            ["validate", id, T0, None], ["depend", id, T0, None], ["priority", id, T0, {"priority": 16}],
        )  # fmt: skip
        if runs:
            low = number % SEATS * each
            claim = [number // SEATS, f"{low}-{low + each - 1}", "", 0, 1]
            say(["alloc", id, T0, {"claims": [claim], "expiration": T0 + limit}], ["start", id, T0, None])
    return state


def _spec(slots: int, limit: float) -> dict[str, Any]:
    slot = {"type": "slot", "count": slots, "label": "t", "with": [{"type": "core", "count": 1}]}
    task = {"command": ["x"], "slot": "t", "count": {"per_slot": 1}}
    return {"version": 1, "resources": [slot], "tasks": [task], "attributes": {"system": {"duration": limit, "cwd": "/"}}}


def figures(quick: bool = False) -> list[Figure]:
    """Of each policy, on a small site to the end, on both within a listing's time."""
    found, sites = [], [(16, 16, 200), (100, 16, 1000), (1000, 64, 10_000)]
    for nodes, cores, pending in sites[:2] if quick else sites:
        for policy in POLICIES:
            state = _state(nodes, cores, pending, policy)
            gc.collect()
            gc.freeze()  # as a listing does
            start, budget = process_time(), Budget(BUDGET_S)
            outlook = Outlook(state, T0 + 1.0, None, budget.spent, budget.half_spent)
            took = (process_time() - start) * 1000
            what = f"estimates, {policy}, {nodes:,} nodes, {nodes * SEATS:,} running, {pending:,} pending"
            rough = sum(one.rough for one in outlook.forecast.starts.values())
            known = len(outlook.forecast.starts)
            note = f"of {min(pending, 1000):,} in a listing's {BUDGET_S * 1000:.0f} ms, {rough:,} roughly; it took {took:.0f} ms"
            found.append(figure(what, known, "jobs", 100 if pending == 10_000 else None, better="higher", note=note))
    return found


if __name__ == "__main__":
    for one in figures():
        print(one)
