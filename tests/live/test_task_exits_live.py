"""exit-on-error and exit-timeout with real tasks on two nodes, through the death of those who tell and decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest

pytestmark = pytest.mark.live


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    with live.site(tmp_path, "-s", "2", "--cores", "2") as site:
        yield site


def tasks(folder: Path, three: str) -> str:
    """Four tasks, two on a node: the last one waits for a file and does as told, the others would run for ever."""
    wait = f"touch {folder}/began; until test -e {folder}/go; do sleep 0.02; done"
    return f'if test "$FLUX_TASK_RANK" = 3; then {wait}; {three}; else trap "exit 42" TERM; sleep 600 & wait; fi'


def exec_notes(site: Any, id: int) -> list[str]:
    return [event.context["note"] for event in site.client.events(id) if event.name == "exception"]


def test_a_failing_task_ends_the_job_though_agent_and_worker_died(site: Any, tmp_path: Path) -> None:
    id = site.submit(tasks(tmp_path, "exit 7"), nodes=2, ntasks=4, shell_options={"exit-on-error": True})
    site.running(id)
    site.wrote(tmp_path / "began", "")
    site.kill("keeper")  # nobody brings the others back before the task has failed
    site.kill("agent", "worker-0")
    (tmp_path / "go").touch()
    site.up()
    assert site.results([id]) == [7]
    assert exec_notes(site, id) == ["task 3 exited with exit code 7 and exit-on-error is set"]
    site.sound()


def test_a_time_after_the_first_end_the_others_are_ended(site: Any, tmp_path: Path) -> None:
    done = site.run("submit", "-N2", "-n4", "-o", "exit-timeout=0.3s", "sh", "-c", tasks(tmp_path, "exit 0"))
    assert done.returncode == 0, done.stderr
    (tmp_path / "go").touch()
    waited = site.run("job", "wait", "--", done.stdout.strip())
    assert waited.returncode == 1
    assert "exit code 42" in waited.stderr  # the others' own word: the first task's end was no failure
    assert "task 3 exited with exit code 0, and exit-timeout=0.3s is over" in waited.stderr
    refused = site.run("submit", "-o", "exit-timeout=soon", "true")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "exit-timeout='soon'" in refused.stderr
    (plain,) = site.client.submit_many([["sh", "-c", 'exit "$FLUX_TASK_RANK"']], ntasks=2, env=site.env)
    assert site.results([plain]) == [1]
    assert exec_notes(site, plain) == []
    site.sound()
