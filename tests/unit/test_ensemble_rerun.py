"""Members that run again: which ranges have one in common, and two who ask in the same moment."""

from __future__ import annotations

import random

import pytest
from client_rig import again, life, play

from fluxkv.instances import ensemble_rerun
from fluxkv.instances.client import Instance
from fluxkv.instances.ensemble_rerun import _overlap, rerun
from fluxkv.instances.ensemble_view import EnsembleView
from fluxkv.journal.ids import f58
from fluxkv.journal.idset import parse
from fluxkv.kvs.errors import Rejected


def test_whether_ranges_overlap() -> None:
    drawn = random.Random(3)
    for _ in range(300):
        some, others = (sorted(drawn.sample(range(30), 2 * drawn.randint(0, 4))) for _ in range(2))
        pairs = [list(zip(one[::2], one[1::2], strict=True)) for one in (some, others)]
        sets = [{index for low, high in one for index in range(low, high + 1)} for one in pairs]
        assert _overlap(*pairs) == bool(sets[0] & sets[1]), pairs


@pytest.mark.parametrize("theirs", ["0-7", "0-3", "4-7"])
def test_of_two_at_once_the_second_is_told_that_the_first_runs(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """Both have looked for the next key before either submitted. Who wants members that the first has not is served."""
    job = instance.submit_ensemble(["true"], range(8), nodes=1)
    play(instance, life(job.id))
    key_of_next, first = ensemble_rerun._key_of_next, list[int]()

    def only(view: EnsembleView, wanted: str) -> EnsembleView:
        done = bytearray(place not in parse(wanted) for place in range(8))
        monkeypatch.setattr(view, "finished", lambda keep: bytearray(done))
        return view

    def late(view: EnsembleView, wanted: list[tuple[int, int]]) -> str:
        key = key_of_next(view, wanted)
        if not first:
            first.append(0)
            with again(instance) as other, other.ensemble(job) as seen:
                first[0] = rerun(only(seen, theirs), failed=True, unfinished=True).id
        return key

    monkeypatch.setattr(ensemble_rerun, "_key_of_next", late)
    with instance.ensemble(job) as view:
        if theirs == "4-7":
            made = rerun(only(view, "0-3"), failed=True, unfinished=True)
            assert (made.members, made.id) == (4, list(instance.state().active())[-1].id)
            assert made.id != first[0]
            return
        with pytest.raises(Rejected) as caught:
            rerun(view, failed=True, unfinished=True)
        assert caught.value.code == "active"
        assert f"ensemble {f58(first[0])} runs members of {job} again, and is not over" in str(caught.value)
