"""`make demo` in small: real daemons, real jobs, a replay, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live


def test_demo_checks_out_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    words = [sys.executable, "-m", "fluxkv.tools.demo", "--jobs", "24"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "diff      equal to the live state" in done.stdout
    assert "processes left: 0" in done.stdout
    assert "24/24 done" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("fluxkv-demo")]
