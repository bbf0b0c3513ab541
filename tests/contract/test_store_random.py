"""The memory model and a real server give the same answers to the same random commits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fluxkv.kvs.errors import FluxkvError
from fluxkv.kvs.port import Append, Appended

THINGS = [f"job/{n}" for n in range(6)] + ["node/0", "node/1", "attempt/1", "attempt/2", "config", "closed/q"]


def _some(rng: random.Random, most: int) -> tuple[str, ...]:
    return tuple(rng.sample(THINGS, rng.randint(0, most)))


def _request(rng: random.Random, tip: int, seqs: dict[str, int]) -> Append:
    recent = max(0, tip - rng.choice([0, 0, 0, 1, 2, 5]))
    producer = rng.choice(["", "p", "q"])
    seq = max(1, seqs.get(producer, 0) + rng.choice([1, 1, 1, 1, 1, 1, 0, 2, -1])) if producer else 0
    return Append(
        "", 0, recent, b"0%d" % rng.randint(0, 2), producer, seq,
        since=_some(rng, 2), exact=tuple((thing, rng.randint(1, tip + 1)) for thing in _some(rng, 1)),
        absent=_some(rng, 1), bumps=_some(rng, 3), clears=_some(rng, 1),
        sets=(("attempt/2", f"{rng.randint(1, tip + 1)}-7"),) if rng.random() < 0.1 else (),
        inbox=tuple((name, b"m") for name in rng.sample(["0", "1", "2"], rng.choice([0, 0, 1, 2]))),
    )  # fmt: skip


def _told(work: Any) -> Any:
    try:
        return work()
    except FluxkvError as error:
        return type(error).__name__, error.code


def _plain(answer: Any) -> Any:
    """Epochs differ between two servers; nothing else may."""
    return answer._replace(epoch=0) if isinstance(answer, Appended) else answer


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("other", ["fake", "real"])
def test_same_answers(seed: int, other: str, make_backend: Any, make_bench: Any, server_url: str) -> None:
    rng = random.Random(seed)
    model = make_bench(make_backend["memory"]())
    arguments = (server_url,) if other == "real" else ()
    tried = make_bench(make_backend[other](*arguments))
    seqs: dict[str, int] = {}
    counts: dict[str, int] = {}
    for step in range(150):
        tip = model.store.meta().version
        if step % 25 == 24:
            floor = rng.randint(0, tip)
            went = [
                _told(lambda: bench.store.prune_guards(bench.meta.uid, bench.meta.epoch, floor))  # noqa: B023
                for bench in (model, tried)
            ]
            assert went[0] == went[1]
        request = _request(rng, tip, seqs)
        answers = [
            _told(lambda: bench.store.append(request._replace(uid=bench.meta.uid, epoch=bench.meta.epoch)))  # noqa: B023
            for bench in (model, tried)
        ]
        assert _plain(answers[0]) == _plain(answers[1]), request
        counts[type(answers[0]).__name__] = counts.get(type(answers[0]).__name__, 0) + 1
        if isinstance(answers[0], Appended) and request.producer:
            seqs[request.producer] = request.seq
    assert len(counts) >= 3, counts
    assert counts["Appended"] > 15, counts
    ours, theirs = model.store.read(0), tried.store.read(0)
    assert [(e.version, e.payload, e.header[:-16]) for e in ours] == [
        (e.version, e.payload, e.header[:-16]) for e in theirs
    ]
    for name in ("0", "1", "2"):
        pairs = [
            [(m.id.partition("-")[0], m.data) for m in bench.store.messages(bench.keys.inbox(name))]
            for bench in (model, tried)
        ]
        assert pairs[0] == pairs[1]
    tried.store.close()
