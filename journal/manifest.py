"""What an archive holds, in order: a JSON document with a checksum. Pure; decides which segments make one history.

    {"format": 1, "uid": ..., "namespace": ..., "settings": {...}, "segments": [...], "lost": [...], "bases": [...], "check": ...}

`settings`: how the instance was started (without its URI), for whoever brings the history up elsewhere. `lost`: segments of
a branch that the instance did not keep. `bases`: snapshots from which what follows pruned history is folded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

from ..kvs.errors import Corrupt
from ..kvs.hashes import blake2b
from .segment import NO_LINK, Part

FORMAT = 1
NAME = "manifest.json"
BEFORE = "manifest.previous.json"  # the one before, for a place that lets a write be torn


@dataclass(frozen=True, slots=True)
class Base:
    """A snapshot in an archive: its file, the version of its state, the state's digest, and the link up to there."""

    name: str
    version: int
    digest: bytes
    link: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """parts: without gaps, in order; the first begins at version 1."""

    uid: str
    namespace: str
    parts: tuple[Part, ...] = ()
    lost: tuple[Part, ...] = ()
    bases: tuple[Base, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The last version archived, 0 if none is."""
        return self.parts[-1].last if self.parts else 0

    @property
    def link(self) -> bytes:
        """The link that stands for all of it."""
        return self.parts[-1].after if self.parts else NO_LINK

    @property
    def files(self) -> frozenset[str]:
        """The names of all files it speaks of."""
        return frozenset([*(one.name for one in (*self.parts, *self.lost)), *(one.name for one in self.bases)])

    @property
    def pruned(self) -> int:
        """The last version that is not there as it was: history up to it was pruned."""
        return max((part.last for part in self.parts if part.dropped), default=0)

    def added(self, parts: Sequence[Part], instead: int = 0) -> Manifest:
        """With more segments at its end, in place of the last `instead` ones."""
        kept = self.parts[: len(self.parts) - instead]
        return replace(self, parts=(*kept, *parts))


def faults(manifest: Manifest) -> list[str]:
    """What keeps these segments from being one history."""
    found = []
    if manifest.parts and (manifest.parts[0].first, manifest.parts[0].before) != (1, NO_LINK):
        found.append(f"its first segment begins at version {manifest.parts[0].first}, not at the first of all")
    for one, other in pairwise(manifest.parts):
        if other.first != one.last + 1:
            found.append(f"{other.name} begins at version {other.first}, the one before it ends at {one.last}")
        elif other.before != one.after:
            found.append(f"{other.name} does not follow {one.name}: it is of another history")
    return found


def to_bytes(manifest: Manifest) -> bytes:
    """The document."""
    document = {
        "format": FORMAT, "uid": manifest.uid, "namespace": manifest.namespace, "settings": manifest.settings,
        "segments": [_plain(part) for part in manifest.parts], "lost": [_plain(part) for part in manifest.lost],
        "bases": [_plain(base) for base in manifest.bases],
    }  # fmt: skip
    return json.dumps({**document, "check": _check(document)}, indent=1, sort_keys=True).encode()


def _plain(value: Part | Base) -> dict[str, Any]:
    """A record as JSON has it: bytes in hex, what is empty left out."""
    found = {one.name: getattr(value, one.name) for one in fields(value)}
    return {name: one.hex() if isinstance(one, bytes) else one for name, one in found.items() if one or name != "dropped"}


def _check(document: dict[str, Any]) -> str:
    return blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=16).hexdigest()


def from_bytes(data: bytes, where: str) -> Manifest:
    """Inverse of `to_bytes`. Raises `Corrupt` naming the place, for what is none or makes no history."""
    try:
        document = json.loads(data)
        check = document.pop("check")
        if document["format"] > FORMAT:
            raise Corrupt(
                f"the manifest of {where} has format {document['format']}, this program knows {FORMAT}", code="newer-format",
                hint="use a newer fluxkv",
            )  # fmt: skip
        if _check(document) != check:
            raise ValueError("it does not match its checksum")
        manifest = Manifest(
            document["uid"], document["namespace"], tuple(map(_read_part, document["segments"])),
            tuple(map(_read_part, document["lost"])), tuple(map(_read_base, document["bases"])), document["settings"],
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(
            f"the manifest of {where} can not be read: {error}", code="bad-manifest",
            hint="fluxkv journal salvage reads its segments without it",
        ) from None  # fmt: skip
    wrong = faults(manifest)
    if wrong:
        raise Corrupt(f"the archive {where} is no single history: {wrong[0]}", code="bad-chain")
    return manifest


def _read_part(row: dict[str, Any]) -> Part:
    values = {**row, "before": bytes.fromhex(row["before"]), "after": bytes.fromhex(row["after"])}
    values["epochs"] = tuple((int(first), int(epoch)) for first, epoch in row["epochs"])
    return Part(**values)


def _read_base(row: dict[str, Any]) -> Base:
    return Base(row["name"], row["version"], bytes.fromhex(row["digest"]), bytes.fromhex(row["link"]))
