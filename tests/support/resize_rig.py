"""A worker rig whose jobs are instances that get more nodes and give some back."""

from __future__ import annotations

from typing import Any

from fluxkv.journal import decide_resize
from fluxkv.journal.decide_resize import Terms, parse_resize
from fluxkv.journal.job import RUN
from fluxkv.journal.state import State
from tests.support.journal_rules import Rules
from tests.support.worker_rig import Rig, jobspec


def instance(nodes: int, **options: Any) -> dict[str, Any]:
    spec = jobspec(cores=2, nodes=nodes)
    spec["tasks"][0]["command"] = ["fluxkv", "start", "./sims"]
    spec["attributes"]["system"]["shell"] = {"options": {"per-resource": {"type": "node"}, **options}}
    return spec


class Site(Rig):
    """Its jobs are instances, and change."""

    def running(self, nodes: int = 2, **options: Any) -> int:
        id = self.submit(instance(nodes, **options))
        self.started(id)
        assert self.job(id).state == RUN
        return id

    def ask(self, id: int, text: str, terms: Terms | None = None, *, at_once: bool = False) -> None:
        state = self.journal.load()
        decision = decide_resize.resize(state, state.jobs[id], parse_resize(text), terms or Terms(), 1, self.now, at_once=at_once)
        if decision.events:
            self.do(decision)
        self.turn()

    def script(self, rank: int, id: int, letter: str, status: int = 0, cause: str = "", part: int | None = None) -> None:
        """The word of a node about a prolog (letter p), epilog (e) or housekeeping (h) there. part: of a node that came later."""
        row = [id, self.job(id).attempt, letter, self.now, self.now, status, cause]
        self.report(rank, script=[row if part is None else [*row, part]])

    def sound(self) -> None:
        """Nothing was sold twice, nothing was set aside, and history folds to the live state."""
        assert not self.state.quarantine.table
        assert not self.state.skipped
        rules = Rules({rank: {0, 1} for rank in range(8)})  # nodes that have gone were there
        state = State()
        for commit in self.commits():
            rules.commits([commit])
            state.apply(commit)
        assert not rules.wrong, rules.wrong
        assert state.digest() == self.journal.load().digest()
