"""What a child instance takes over from its parent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances import child
from fluxkv.journal import decide_graph
from fluxkv.kvs.memory_server import share

CASES = [
    ("adopt", None, "adopt"),
    (None, "adopt", "adopt"),
    ("adopt", "refuse", "refuse"),
    (None, None, None),
    ("elsewhere", None, None),
]


@pytest.mark.parametrize(("parent", "asked", "wanted"), CASES)
def test_a_loss_is_met_as_by_the_parent(tmp_path: Path, parent: Any, asked: Any, wanted: Any) -> None:
    """Their server is one: a parent that goes on with what is left would else wait for a child that waits for a person."""
    rig = Rig()
    share("parent-of-a-child", rig.server)
    id = rig.submit(jobspec(cores=2))
    if parent != "elsewhere":
        (tmp_path / "instance.json").write_text(json.dumps({"uri": "memory:another", "on_fork": parent}))
    here = child.Place("memory:parent-of-a-child", id, rig.job(id).attempt, 0, 1, 0, str(tmp_path))
    options: dict[str, Any] = {"on_fork": asked}
    assert child.make_settings(here, options)["on_fork"] == wanted


@pytest.mark.parametrize("changed", [False, True])
def test_nodes_are_as_they_are_now_and_not_as_the_parent_began(tmp_path: Path, changed: bool) -> None:
    rig = Rig()
    share("parent-that-changes", rig.server)
    first = rig.commits()[0].events[0][3]["R"]
    (tmp_path / "instance.json").write_text(json.dumps({"uri": "memory:parent-that-changes", "R": first}))
    if changed:
        rig.do(decide_graph.properties(rig.state, [], [0], {"ssd": ""}, (), rig.now)[0])
        rig.turn()
    id = rig.submit(jobspec(cores=2))
    here = child.Place("memory:parent-that-changes", id, rig.job(id).attempt, 0, 1, 0, str(tmp_path))
    properties = child.make_settings(here, {})["R"]["execution"].get("properties")
    assert properties == ({"ssd": "0"} if changed else None)
