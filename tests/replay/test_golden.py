"""Journals of every schema there was, as their programs wrote them: what they fold to never changes, and none ever goes."""

from __future__ import annotations

from typing import Any

import golden
import pytest

from fluxkv.journal import snapshot
from fluxkv.journal.schema import SCHEMA
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Corrupt
from fluxkv.tools.folding import Fold

# Grows with every schema, and with every kind of damage that somebody met; nothing is ever taken out of it.
KEPT = (
    "invalid/checksum", "invalid/codec", "invalid/gap", "invalid/header", "invalid/not-ours", "valid/graph-4", "valid/graph-5",
    "valid/resized-5", "valid/resumed-5", "valid/schema-1", "valid/schema-2", "valid/schema-3", "valid/schema-4", "valid/schema-5",
    "warn/entry-aside", "warn/impossible", "warn/unknown",
)  # fmt: skip
TABLE: dict[str, dict[str, Any]] = golden.index()


def test_none_has_gone_and_none_is_left_out() -> None:
    there = {f"{file.parent.name}/{file.name.removesuffix('.jsonl.gz')}" for file in golden.FOLDER.glob("*/*.jsonl.gz")}
    assert set(KEPT) <= there, "a golden journal is never deleted"
    assert there == set(TABLE), "python tests/support/golden.py add notes what a journal folds to"
    schemas = {name for name in there if name.startswith("valid/schema-")}
    assert schemas >= {f"valid/schema-{number}" for number in range(1, SCHEMA + 1)}, (
        f"SCHEMA is {SCHEMA}: python tests/support/golden.py add valid/schema-{SCHEMA} --seed 7"
    )


@pytest.mark.parametrize("name", sorted(TABLE))
def test_it_is_what_it_was_and_folds_to_what_it_did(name: str) -> None:
    assert golden.checksum(name) == TABLE[name]["sha256"], "a golden journal is never changed"
    expected = TABLE[name]["folds"].get(str(SCHEMA))
    assert expected is not None, f"SCHEMA is {SCHEMA}: look at what has changed, then python tests/support/golden.py refold"
    found = golden.judged(name)
    assert found == expected, "the fold of old journals has changed: if that is meant, raise SCHEMA (ARCHITECTURE, How to add)"
    kind = name.partition("/")[0]
    assert ("code" in found) == (kind == "invalid")
    assert ("skipped" in found) == (kind == "warn")


@pytest.mark.parametrize("name", [name for name in sorted(TABLE) if name.startswith("valid/")])
def test_valid_ones_are_sound_and_the_same_through_a_snapshot(name: str) -> None:
    """The order of events, contexts; the digests that its own program wrote where they are of this schema."""
    journal = golden.journal_of(golden.read(name))
    fold = Fold(journal, strict=True)
    fold.run()
    assert fold.all_faults == []
    assert not fold.aside
    assert bool(fold.checked) == name.endswith(f"-{SCHEMA}")
    state = State()
    for commit in journal.commits():
        if commit.version == fold.state.version // 2:
            head, chunks = snapshot.dump(state)
            state = snapshot.load(snapshot.read_head(head), chunks)
        state.apply(commit)
    assert state.digest() == fold.state.digest()


@pytest.mark.parametrize("name", [name for name in sorted(TABLE) if name.startswith("invalid/")])
def test_invalid_ones_are_refused_by_every_reader(name: str) -> None:
    journal = golden.journal_of(golden.read(name))
    for read in (journal.load, journal.look, journal.at):
        with pytest.raises(Corrupt, match="20") as caught:
            read()
        assert "fluxkv journal quarantine 20" in caught.value.hint
