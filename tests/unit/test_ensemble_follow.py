"""How often an ensemble that somebody stays with is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fluxkv.instances.ensemble_view import LOOK_S, REST_S, Seen
from fluxkv.journal.ensemble import Count, Ended, Part
from fluxkv.tools import render
from fluxkv.tools.ensemble_show import follow


def test_of_very_many_that_fail_ten_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[int] = []

    def all_fail() -> Iterator[Any]:
        for position in range(1000):
            made.append(position)
            yield Part((1, 7, 1)), Ended(position, 1000 + position, 2, 256, 1, 5.0, 0.5)

    def looks(timeout: float | None, every_s: float) -> Iterator[Seen]:
        yield Seen(Count(done=1000, failed=1000, worst=1), all_fail(), None)
        yield Seen(Count(done=2000, failed=2000, worst=1), all_fail(), SimpleNamespace(exception=None, returncode=1))  # type: ignore[arg-type]

    view: Any = SimpleNamespace(id=1, total=2000, count=Count, follow=looks, unread=[], indices=range(2000),
                                inputs=lambda index: (), path=lambda part, one: f"job-{one.id}")  # fmt: skip
    assert follow(view, None) == 1
    assert made == list(range(10))
    assert capsys.readouterr().err.count("job-") == 10


@pytest.mark.parametrize("terminal", [True, False])
def test_rarely_where_no_bar_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool) -> None:
    asked: list[float] = []

    def looks(timeout: float | None, every_s: float) -> Iterator[Seen]:
        asked.append(every_s)
        yield Seen(Count(done=2), [], None)
        yield Seen(Count(done=3), [], SimpleNamespace(exception=None, returncode=0))  # type: ignore[arg-type]

    view: Any = SimpleNamespace(id=1, total=3, count=Count, follow=looks, unread=[])
    monkeypatch.setattr(render, "is_terminal", lambda stream=None: terminal)
    assert follow(view, None) == 0
    assert asked == [LOOK_S if terminal else REST_S]
    assert terminal or "3/3 done, 0 failed" in capsys.readouterr().err
