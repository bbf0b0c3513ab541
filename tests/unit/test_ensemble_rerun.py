"""Which ranges of members have one in common."""

from __future__ import annotations

import random

from fluxkv.instances.ensemble_rerun import _overlap


def test_whether_ranges_overlap() -> None:
    drawn = random.Random(3)
    for _ in range(300):
        some, others = (sorted(drawn.sample(range(30), 2 * drawn.randint(0, 4))) for _ in range(2))
        pairs = [list(zip(one[::2], one[1::2], strict=True)) for one in (some, others)]
        sets = [{index for low, high in one for index in range(low, high + 1)} for one in pairs]
        assert _overlap(*pairs) == bool(sets[0] & sets[1]), pairs
