"""How the archiver's last run went, in the state directory: for `status`, and for the next run. Decides nothing."""

from __future__ import annotations

import json
from typing import Any

from .paths import StateDir, write_json

NOTE = "archive.json"


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
