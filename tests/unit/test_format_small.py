"""Small grammars against the published vectors: idset (RFC 22), ids (19), durations (23), hostlists (29)."""

from __future__ import annotations

import math
import sys
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal import duration, hostlist, id_words, ids, idset
from fluxkv.kvs.errors import Rejected

MASKS = st.sets(st.integers(0, 300)).map(lambda s: sum(1 << i for i in s))
JUNK = st.one_of(st.text(max_size=30), st.text("0123456789,-[]ax. ", max_size=20), st.text("academy-😃😄", max_size=48))


def test_idset_vectors(vectors):
    for case in vectors("idset"):
        text = case["input"]
        if "error" in case:
            for reader in (idset.parse, idset.mask_of):
                with pytest.raises(Rejected):
                    reader(text)
            continue
        assert list(idset.parse(text)) == case["expected"], text
        assert idset.text_of(idset.mask_of(text)) == case["canonical"], text
        assert idset.format_ids(case["expected"]) == case["canonical"], text


@given(MASKS)
def test_idset_round_trip(mask):
    text = idset.text_of(mask)
    assert idset.mask_of(text) == mask
    members = idset.ids_of_mask(mask)
    assert idset.parse(text) == members
    assert idset.format_ids(reversed(members)) == text
    assert idset.mask_from_ids(members) == mask
    assert idset.popcount(mask) == len(members)


def test_idset_is_bounded():
    many = ",".join(str(i) for i in range(0, idset.MAX_ID, 2))
    assert idset.text_of(idset.mask_of(many)) == many
    assert len(idset.ids_of_mask(idset.mask_of(many))) == idset.MAX_ID // 2


def test_ids_far_up_cost_what_they_are_not_what_is_below_them() -> None:
    began = process_time()
    for at in range(200_000, 202_000):  # as pools of cores that are numbered over a whole cluster
        assert idset.ids_of_mask(0b101 << at) == (at, at + 2)
        assert idset.text_of(0b11 << at) == f"{at}-{at + 1}"
    assert process_time() - began < 5.0  # a tenth of a second; all that is below looked at: a minute
    assert idset.mask_of(f"0-{idset.MAX_ID - 1}") == (1 << idset.MAX_ID) - 1
    for text in (str(idset.MAX_ID), "0-9999999", "1" * 5000, "0," * 6_000_000):
        with pytest.raises(Rejected):
            idset.mask_of(text)
    for wrong in (None, 3, [], {}, b"0"):
        with pytest.raises(Rejected):
            idset.mask_of(wrong)
    for wrong in (-1, "0", None, [], 1 << (idset.MAX_ID + 1)):
        with pytest.raises(Rejected):
            idset.text_of(wrong)


@given(JUNK)
def test_small_parsers_answer_or_reject(text):
    for reader in (idset.parse, idset.mask_of, ids.parse_id, duration.parse_duration, hostlist.expand):
        try:
            reader(text)
        except Rejected:
            pass


def test_fluid_decode_vectors(vectors):
    for case in vectors("fluid_decode"):
        if "error" in case:
            with pytest.raises(Rejected):
                ids.parse_id(case["input"])
        else:
            assert ids.parse_id(case["input"]) == int(case["expected"]), case["input"]


def test_fluid_encode_vectors(vectors):
    for case in vectors("fluid_encode"):
        parts = case["input"]
        if "error" in case:
            with pytest.raises(Rejected):
                ids.compose(parts["timestamp_ms"], parts["generator"], parts["sequence"])
            continue
        job = ids.compose(parts["timestamp_ms"], parts["generator"], parts["sequence"])
        expected = case["expected"]
        assert ids.encode(job, "dec") == expected["decimal"]
        assert ids.encode(job) == ids.f58(job) == expected["f58"]
        assert ids.encode(job, "f58plain") == expected["f58"].replace("ƒ", "f")
        assert ids.encode(job, "hex") == expected["hex"]
        assert ids.encode(job, "dothex") == expected["dothex"]
        assert ids.encode(job, "kvs") == "job." + expected["dothex"]
        assert ids.encode(job, "emoji") == expected["emoji"]


def test_long_forms_of_ids(vectors):
    assert list(id_words._EMOJI) == vectors("fluid_emoji_alphabet")
    for case in vectors("fluid_decode"):
        if case.get("encoding") == "words" and "error" not in case:
            assert ids.encode(int(case["expected"]), "words") == case["input"]
            assert ids.parse_id(case["input"].upper()) == int(case["expected"])
    assert ids.encode(0, "words") == "academy-academy-academy--academy-academy-academy"
    for wrong in ("academy-academy-academy", "academy-academy-ego--academy-academy-academy", "-", "---", "a" + "-a" * 30,
                  "🚹" * 12, "🎌" * 7, "🚹1"):  # fmt: skip
        with pytest.raises(Rejected, match="bad job id"):
            ids.parse_id(wrong)


def test_words_need_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mnemonicode", None)
    with pytest.raises(Rejected, match="mnemonicode") as caught:
        ids.encode(77, "words")
    assert "pip install" in caught.value.hint


@given(st.integers(0, ids.MAX_JOB_ID), st.sampled_from(ids.FORMS))
def test_id_round_trip(job, form):
    assert ids.parse_id(f" {ids.encode(job, form)}\n") == job == ids.parse_id(job)


def test_id_refusals():
    for wrong in (None, 1.0, True, -1, 1 << 64, [], "f" * 1000, " " * 100 + "f" * 100, "\ud83e", "٣"):
        with pytest.raises(Rejected):
            ids.parse_id(wrong)
    with pytest.raises(Rejected):
        ids.encode(1, "roman")
    with pytest.raises(Rejected):
        ids.encode(-1)
    assert ids.parse_id(" " * 100 + "f2") == 1


def test_id_source_never_repeats():
    now = [1_000_000]
    source = ids.IdSource(1_000_000 - 5, 3, lambda: now[0])
    first = source.next()
    assert first == ids.compose(5, 3, 0)
    seen = [first, *source.take(5000)]  # more than a millisecond holds: taken from those to come
    now[0] -= 1000  # the clock steps back
    seen += source.take(3)
    now[0] += 4000
    seen.append(source.next())
    assert seen == sorted(set(seen))
    assert {job >> 10 & 0x3FFF for job in seen} == {3}
    assert ids.timestamp_ms_of(seen[-1]) == 3005
    again = ids.IdSource(1_000_000 - 5, 3, lambda: 0, after=seen[-1])
    assert again.next() > seen[-1]
    with pytest.raises(Rejected):
        ids.IdSource(0, 0, lambda: 1 << 40).next()
    with pytest.raises(Rejected):
        ids.IdSource(0, 1 << 14, lambda: 0)


def test_duration_vectors(vectors):
    for case in vectors("fsd"):
        if "error" in case:
            with pytest.raises(Rejected):
                duration.parse_duration(case["input"])
        else:
            expected = math.inf if case["expected"] == "inf" else case["expected"]
            assert duration.parse_duration(case["input"]) == pytest.approx(expected), case["input"]


def test_duration_numbers():
    assert duration.parse_duration(5) == 5.0
    assert duration.parse_duration(0.5) == 0.5
    assert math.copysign(1, duration.parse_duration(-0.0)) == 1
    for wrong in (-1, math.nan, True, None, 10**400, "1e999", "0x1p99999", "1" * 100, "9" * 60 + "d" * 9):
        with pytest.raises(Rejected):
            duration.parse_duration(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.01, "10ms"),
        (0.1, "0.1s"),
        (59.5, "59.5s"),
        (60, "1m"),
        (5400, "1.5h"),
        (86400, "1d"),
        (math.inf, "infinity"),
    ],
)
def test_duration_text(seconds, text):
    assert duration.format_duration(seconds) == text
    assert duration.parse_duration(text) == seconds


@given(st.floats(0, 1e12))
def test_duration_round_trip(seconds):
    assert duration.parse_duration(duration.format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


def test_hostlist_vectors(vectors):
    for case in vectors("hostlist"):
        if "error" in case:
            with pytest.raises(Rejected):
                hostlist.expand(case["input"])
        else:
            assert hostlist.expand(case["input"]) == case["expected"], case["input"]
            assert hostlist.expand(hostlist.compress(case["expected"])) == case["expected"]


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ("foo1,fooi,foo2,foo3", "foo1,fooi,foo[2-3]"),
        ("foo-1a-2,foo-1a-3", "foo-1a-[2-3]"),
        ("foo[1,3]-bar", "foo1-bar,foo3-bar"),
        ("n08,n09,n10", "n[08-10]"),
        ("n9,n10,n011", "n[9-10],n011"),
        ("a1,a1,b", "a[1,1],b"),
    ],
)
def test_hostlist_folding(hosts, text):
    assert hostlist.compress(hostlist.expand(hosts)) == text


HOSTS = st.lists(
    st.one_of(
        st.from_regex(r"[a-c]{0,2}[0-9]{1,3}", fullmatch=True), st.from_regex(r"[!-+]{1,3}", fullmatch=True)
    )
)


@given(HOSTS)
def test_hostlist_round_trip(hosts):
    assert hostlist.expand(hostlist.compress(hosts)) == hosts


def test_hostlist_is_bounded():
    assert len(hostlist.expand(f"n[0-{hostlist.MAX_HOSTS - 1}]")) == hostlist.MAX_HOSTS
    for text in (
        "n[0-999999999999]",
        "x" * 100_000 + "[0-100000]",
        "n[0-1048576]",
        "n[0" + "0" * 5000 + "]",
        "a," * 3_000_000,
        7,
        None,
    ):
        with pytest.raises(Rejected):
            hostlist.expand(text)
    for name in ("a b", "a[1]", "", "ä", 4):
        with pytest.raises(Rejected):
            hostlist.compress([name])
