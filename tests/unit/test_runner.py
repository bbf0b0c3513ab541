"""The event loop waits on what is open now, whatever number it had before."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

from fluxkv.instances.reactor import Found, Lookup
from fluxkv.instances.run_worker import WorkerRunner
from fluxkv.instances.runner import Runner
from fluxkv.kvs.errors import Corrupt, Unavailable


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


def test_an_archive_that_is_away_stops_no_worker() -> None:
    """Whoever depends on a job whose record is there waits; it is asked for again, and so is what follows a damaged one."""
    trouble: dict[int, Exception] = {}

    def find(state: Any, ids: tuple[int, ...]) -> dict[int, Any]:
        for id in ids:
            if id in trouble:
                raise trouble[id]
        return dict.fromkeys(ids)

    runner = WorkerRunner.__new__(WorkerRunner)
    said: list[str] = []
    runner.daemon = SimpleNamespace(stopping=False, keeper_revived=lambda: False)  # type: ignore[assignment]
    runner.journal = SimpleNamespace(find_jobs=find)  # type: ignore[assignment]
    runner.reactor = SimpleNamespace(state=None)  # type: ignore[assignment]
    runner.log = SimpleNamespace(say=lambda level, text: said.append(text))  # type: ignore[assignment]
    runner.unanswered, runner.pending, runner.wake_at = {}, [], 0.0
    trouble.update(dict.fromkeys((1, 2, 3), Unavailable("the archive is away", code="archive")))
    assert runner.perform(Lookup((1, 2, 3))) == []
    runner._ask_again()
    assert (len(said), sorted(runner.unanswered)) == (1, [1, 2, 3])
    trouble.clear()
    trouble[2] = Corrupt("version 7 is missing", code="version-gap")
    for _ in range(3):
        runner._ask_again()
    assert (sorted(one.ids for one in runner.pending if isinstance(one, Found)), list(runner.unanswered)) == ([(1,), (3,)], [2])
    assert runner.perform(Lookup((2, 4))) == [Found((4,), {4: None})]  # type: ignore[dict-item]
