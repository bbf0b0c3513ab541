"""The schema of a journal: what its state holds and its digest covers. Decides who may act on one.

Raised with any change of what old journals fold to (see ARCHITECTURE, "How to add"). A digest or snapshot of another schema is not
compared: it is folded anew. The meta of an instance says the highest schema of any program that it was run with: who knows
less reads, with a warning, and writes nothing.
"""

from __future__ import annotations

from ..kvs.errors import Corrupt
from ..kvs.port import Meta

SCHEMA = 5


def newer_schema(what: str, schema: object) -> Corrupt:
    """The error for whoever is to act on what a newer program wrote: it may say what this one cannot see."""
    return Corrupt(
        f"{what} is of schema {schema}, this fluxkv knows {SCHEMA}", code="newer-schema",
        hint="install the newer fluxkv that this instance was run with, then fluxkv restart",
    )  # fmt: skip


def check_schema(meta: Meta) -> None:
    """Raise `Corrupt` (code newer-schema) for a journal that a newer program has acted on."""
    if meta.schema > SCHEMA:
        raise newer_schema("this instance's journal", meta.schema)
