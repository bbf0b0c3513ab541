"""What a dead launcher left running is told to be gone when it is."""

from __future__ import annotations

import os
import subprocess

import pytest

from fluxkv.instances import leftovers, proctree
from fluxkv.instances.leftovers import LeftOvers
from fluxkv.instances.spool import Lost, boot_time


def test_one_that_is_dying_and_shows_its_mark_no_more_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    suffix = f"@{os.getpid()}"
    env = {proctree.ATTEMPT_VARIABLE: f"k{suffix}", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["cat"], env=env, stdin=subprocess.PIPE) as left:  # which ends with us, whatever fails here
        found = LeftOvers({"k": Lost(["i", "k", 1, 0.0, boot_time() + 100, None, ""])}, suffix)  # known by its mark only
        monkeypatch.setattr(proctree, "descendants", lambda roots: [])  # it is our child, and would be spared
        monkeypatch.setattr(leftovers, "send", lambda pid, signum: None)  # the kernel takes its time
        assert (found.sweep(), found.active) == ([], True)
        monkeypatch.setattr(proctree, "marks", lambda pid: [])  # its memory has been given back
        assert (found.sweep(), found.active) == ([], True)
        left.kill()
        os.waitid(os.P_PID, left.pid, os.WEXITED | os.WNOWAIT)
        assert ([one.key for one in found.sweep()], found.active) == (["k"], False)
