"""Cron with real daemons: runs come in time, once for each time, through deaths of the keeper and a stop of it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.journal.state import State

pytestmark = pytest.mark.live



def fired(site: Any, entry: int) -> list[float]:
    """The times that an entry's runs were for, as the journal has them."""
    found = []
    for commit in site.client.journal.commits():
        found += [event[3]["at"] for event in commit.events if event[0] == "cron-fire" and event[1] == f"cron/{entry}"]
    return found


def test_once_for_each_time_whoever_dies(tmp_path: Path) -> None:
    with live.site(tmp_path, "-s", "1", "--cores", "4") as site:
        out = tmp_path / "out"
        define = ["cron", "interval", "--name", "tick", "--count", "8", "0.25s", "sh", "-c", f"echo $FLUX_CRON_RUN >> {out}"]
        assert site.run(*define).stdout == "1\n"
        assert site.run("cron", "event", "job.exception", "sh", "-c", f"echo $FLUX_CRON_SUBJECT > {tmp_path}/told").stdout == "2\n"
        site.until(lambda s: s.cron.entries[1].runs >= 2, "two runs")
        site.kill("keeper")
        site.until(lambda s: s.cron.entries[1].runs >= 4, "two more under a new keeper")
        site.kill("keeper", "worker-0", "server")
        site.until(lambda s: s.cron.entries[1].runs >= 6, "two more under a new epoch")
        job = int(site.client.submit(["/nowhere/at/all"], env=site.env))

        def over(state: State) -> bool:
            ticks, told = state.cron.entries[1], state.cron.entries[2]
            return ticks.state == "done" and bool(told.last_result) and not state.cron.jobs

        state = site.until(over, "all runs over")
        times = fired(site, 1)
        assert len(times) == len(set(times)) == 8
        assert times == sorted(times)
        assert sorted(map(int, out.read_text().split())) == list(range(1, 9))
        assert (state.cron.entries[2].runs, state.cron.entries[2].last_result) == (1, "completed")
        assert state.jobs[job].exception is not None
        assert site.run("job", "id", (tmp_path / "told").read_text().strip(), "--to", "dec").stdout.strip() == str(job)

        assert site.run("cron", "interval", "--name", "late", "1s", "true").stdout == "3\n"
        assert site.run("cron", "at", "+1s", "true").stdout == "4\n"
        site.stop()
        site.up()
        site.until(lambda s: s.cron.entries[4].state == "done" and s.cron.entries[3].runs, "what fell due meanwhile")
        assert len(fired(site, 4)) == 1
        site.sound()
