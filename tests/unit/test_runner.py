"""The event loop waits on what is open now, whatever number it had before."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

from fluxkv.instances.runner import Runner


def test_a_descriptor_whose_number_passed_to_another_still_wakes_the_loop() -> None:
    """Found by kill -9 (seed 2): the launcher's connection got the number of the server's that had just broken."""
    wake_read, wake_write = os.pipe()
    daemon: Any = SimpleNamespace(wake_read=wake_read, drain_wakeups=lambda: None, stopping=False)
    store: Any = SimpleNamespace(meta=lambda: None)
    runner = Runner(daemon, store, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    first, second = os.pipe(), os.pipe()
    number = first[0]
    runner.sources = [lambda: number, lambda: second[0]]
    runner.every = [[60.0, time.monotonic() + 60.0, lambda: None]]
    runner._sleep(0.0)
    for fd in first:
        os.close(fd)
    again = os.pipe()
    assert again[0] == number
    for source in (again, second):
        os.write(source[1], b"x")
        began = time.monotonic()
        runner._sleep(30.0)
        assert time.monotonic() - began < 15.0
        os.read(source[0], 1)
    for fd in (wake_read, wake_write, *again, *second):
        os.close(fd)
