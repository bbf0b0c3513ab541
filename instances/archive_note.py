"""How the archiver's last run went, in the state directory: for `status`, and for the next run. Decides nothing."""

from __future__ import annotations

import json
from typing import Any

from .paths import StateDir, write_json

NOTE = "archive.json"
CHILDREN = "children.json"


def read_note(state_dir: StateDir) -> dict[str, Any]:
    """time, url, error ("" if it went well), swept (when what nothing names was removed last); {} if there was none."""
    try:
        with open(state_dir.join(NOTE)) as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def write_note(state_dir: StateDir, now: float, url: str, error: str, swept: bool) -> None:
    when = now if swept else float(read_note(state_dir).get("swept", 0.0))
    write_json(state_dir.join(NOTE), {"time": now, "url": url, "error": error, "swept": when})


def read_children_note(state_dir: StateDir) -> dict[str, Any]:
    """time, url, error of the last run that looked for children that ended; moved, bytes: how many were written since the first
    run, and how large; {} if there was none."""
    try:
        with open(state_dir.join(CHILDREN)) as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def write_children_note(state_dir: StateDir, now: float, url: str, error: str, moved: int, size: int) -> None:
    """moved, size: by this run."""
    before = read_children_note(state_dir)
    moved, size = moved + int(before.get("moved", 0)), size + int(before.get("bytes", 0))
    write_json(state_dir.join(CHILDREN), {"time": now, "url": url, "error": error, "moved": moved, "bytes": size})
