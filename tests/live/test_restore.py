"""Instances that end, in order or not, and are started again on their files: everybody finds what was there, and it goes on.

The scenarios of HyperQueue's journal (restore what waits, runs, is half finished, was cancelled; twice in a row; a torn
log), ours by their contents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live import site

from fluxkv.journal.job import INACTIVE, RUN, SCHED

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]  # others may use the machine

EVERYTHING = ("keeper", "server", "worker-0", "agent", "launcher")


class Crowd:
    """A job in each state that an end can find it in."""

    def __init__(self, one: Any) -> None:
        self.site, self.folder = one, one.folder
        submit = one.submit
        self.done = [submit(f"exit {code}") for code in (0, 3)]
        one.results(self.done)
        self.cancelled = [submit("sleep 1000")]
        one.running(*self.cancelled)
        self.lost = submit(self.counts("lost", "exec sleep 1000"))
        waits = f"while [ ! -e {self.folder}/go ]; do sleep 0.02; done"
        self.again = submit(self.counts("again", f"{waits}; exit 5"), retry=5)
        one.running(self.lost, self.again)
        one.client.cancel(self.cancelled)
        one.results(self.cancelled)
        self.half = one.submit_many([["sh", "-c", script] for script in ("exit 1", "exit 2", "exit 0", waits)], retry=5)
        one.results(self.half[:3])
        one.running(self.half[3])
        self.waiting = [submit(f"exit {code}", cores_per_task=4) for code in (6, 7)]
        self.after = submit("exit 8", dependencies=f"afterany:{self.again}")
        self.held = submit("exit 9", urgency=0)
        self.cancelled.append(submit("true", urgency=0))
        one.client.cancel(self.cancelled[1:])
        one.until(lambda s: all(s.jobs[id].state == INACTIVE for id in self.cancelled), "cancelled")
        one.until(lambda s: s.jobs[self.held].state == SCHED and s.jobs[self.waiting[1]].state == SCHED, "they wait")

    def counts(self, name: str, script: str) -> str:
        return f"echo $FLUXKV_ATTEMPT >>{self.folder}/{name}; {script}"

    def attempts(self, name: str) -> list[str]:
        return (self.folder / name).read_text().split()

    def same(self, before: Any) -> None:
        """What had ended is as it was."""
        now = self.site.client.state().jobs
        for id in (*self.done, *self.cancelled, *self.half[:3]):
            old, new = before[id], now[id]
            assert (new.status, new.t_inactive, new.commits) == (old.status, old.t_inactive, old.commits), id

    def end(self) -> None:
        """Let all end, as they should."""
        one = self.site
        (self.folder / "go").touch()
        assert one.run("job", "urgency", str(self.held), "16").returncode == 0
        assert one.results([self.held, self.after, *self.waiting]) == [9, 8, 6, 7]
        assert one.results([self.again, self.half[3]]) == [5, 0]
        attempts = self.attempts("again")
        assert len(attempts) == len(set(attempts)), "an attempt ran twice"
        assert len(self.attempts("lost")) == 1, "what may not be tried again ran again"
        assert one.results(self.done) == [0, 3]


def came_up_again(one: Any, crowd: Crowd) -> None:
    """Those that may be tried again run, the others have their reason."""
    one.running(crowd.again, crowd.half[3])
    state = one.until(lambda s: s.jobs[crowd.lost].state == INACTIVE and s.jobs[crowd.again].state == RUN, "restored")
    assert state.jobs[crowd.lost].exception is not None
    assert state.jobs[crowd.held].state == SCHED


def test_killed_and_restored_twice_and_with_a_torn_log(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "4") as one:
        crowd = Crowd(one)
        before = dict(one.client.state().jobs)
        one.kill(*EVERYTHING)
        one.up()
        came_up_again(one, crowd)
        crowd.same(before)
        one.kill(*EVERYTHING)  # twice in a row, with next to nothing in between
        one.up()
        one.kill(*EVERYTHING)
        with one.journal_file().open("ab") as file:
            file.write(b"*27\r\n$7\r\nEVALSHA\r\n$40\r\nab")
        one.up()
        one.said("keeper", "was torn and has been cut")
        came_up_again(one, crowd)
        crowd.same(before)
        crowd.end()
        one.sound()
