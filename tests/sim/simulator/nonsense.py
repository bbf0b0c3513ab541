"""A queue policy that proposes what can not be, now and then; else it is first come, first served."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fluxkv.journal.claims import Claim
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Decision, Pending, Place, Wait
from fluxkv.schedulers.resources import Pool

if TYPE_CHECKING:
    from .world import World


class Nonsense(Fcfs):
    """Wrong in one plan of eight, as long as the storm lasts."""

    __slots__ = ("rng", "world")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.rng = random.Random(world.rng.random())

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision | None]:
        for decision in super().plan(pending, pool, now):
            if not self.world.calm and self.rng.random() < 0.12:
                self.world.happened["nonsense"] += 1
                yield from self._wrong(decision)
            yield decision

    def _wrong(self, decision: Decision) -> Iterator[Decision]:
        claims = getattr(decision, "claims", ())
        one = Claim(self.rng.randrange(4), 1 << self.rng.randrange(4), 0, 0, 1)
        kind = self.rng.randrange(7)
        if kind == 0:
            yield Place(decision.job, (one,))  # whatever is there
        elif kind == 1:
            yield Place(self.rng.choice([1, -1, *self.world.clients.ids]), (one,))
        elif kind == 2:
            yield Place(decision.job, tuple(claim._replace(cores=15) for claim in claims))
        elif kind == 3:
            yield Place(decision.job, (one._replace(rank=77),))
        elif kind == 4:
            yield Place(decision.job, (*claims, *claims))
        elif kind == 5:
            yield Wait(12345, "resources", "what?", "")
        else:
            raise ValueError("a policy of somebody's own")
