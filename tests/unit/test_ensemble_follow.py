"""How often an ensemble that somebody stays with is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fluxkv.instances.ensemble_view import LOOK_S, REST_S, Seen
from fluxkv.journal.ensemble import Count
from fluxkv.tools import render
from fluxkv.tools.ensemble_show import follow


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
