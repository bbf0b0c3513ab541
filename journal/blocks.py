"""Inactive jobs in blocks of packed records, unpacked only when somebody asks for one. Pure.

A block is two compressed parts: the ids with their ends, and the records as columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence, ValuesView
from typing import Any

from .columns import Columns, Sieve, Wanted, from_columns, to_columns
from .job import Job
from .wire import pack, unpack


class Block:
    """A section of inactive jobs, unpacked when asked. left: ids that are elsewhere by now, or nowhere.

    t_first, t_last: when the first and the last of them ended.
    """

    __slots__ = ("_columns", "_names", "data", "left", "names", "t_first", "t_last")

    def __init__(self, names: bytes, data: bytes, t_first: float, t_last: float) -> None:
        self.names = names
        self.data = data
        self.t_first = t_first
        self.t_last = t_last
        self.left: set[int] = set()
        self._names: dict[int, float] | None = None
        self._columns: Columns | None = None

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Block:
        """Pack jobs."""
        ends = [job.t_inactive for job in jobs]
        names = zlib.compress(pack([[job.id for job in jobs], ends]), 1)
        block = cls(names, zlib.compress(pack(to_columns(jobs)), 1), min(ends), max(ends))
        block._names = dict(zip((job.id for job in jobs), ends, strict=True))
        return block

    @property
    def ended(self) -> dict[int, float]:
        """id -> t_inactive of all of them, those that left too."""
        if self._names is None:
            ids, ends = unpack(zlib.decompress(self.names))
            self._names = dict(zip(ids, ends, strict=True))
        return self._names

    def jobs(self, wanted: Wanted = None) -> list[Job]:
        """Those still here, or only the wanted ones; new records at each call."""
        columns = self._columns if self._columns is not None else unpack(zlib.decompress(self.data))
        if wanted is not None and not isinstance(wanted, Sieve):  # it is asked job by job
            self._columns = columns
        found = from_columns(columns, wanted)
        return [job for job in found if job.id not in self.left] if self.left else found


class LazyJobs(dict[int, Job]):
    """The jobs of a state read from a snapshot, the inactive ones unpacked when somebody asks for them.

    It holds what is unpacked; everything asked of it is answered as if it held all. `unpacked` and `blocks` tell
    them apart.
    """

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = blocks
        self._where: dict[int, Block] | None = None

    @property
    def where(self) -> dict[int, Block]:
        """Of each job that is still packed, its block."""
        if self._where is None:
            self._where = {id: block for block in self.blocks for id in block.ended}
        return self._where

    def unpacked(self) -> ValuesView[Job]:
        """The jobs unpacked so far: at least all active ones."""
        return super().values()

    def leave(self, id: int) -> float | None:
        """Take a packed job out without unpacking it: when it ended; None if it is not here."""
        block = self.where.pop(id, None)
        if block is None:
            return None
        block.left.add(id)
        return block.ended[id]

    def unpack_all(self) -> None:
        for block in self.blocks:
            for job in block.jobs():
                self[job.id] = job
        self.blocks, self._where = [], {}

    def __missing__(self, id: int) -> Job:
        block = self.where.pop(id)
        (job,) = block.jobs([id])
        block.left.add(id)
        self[id] = job
        return job

    def get(self, id: int, default: Any = None) -> Any:
        job = super().get(id)
        if job is not None:
            return job
        return self[id] if self.blocks and id in self.where else default

    def __contains__(self, id: object) -> bool:
        return super().__contains__(id) or (bool(self.blocks) and id in self.where)

    def __len__(self) -> int:
        return super().__len__() + (len(self.where) if self.blocks else 0)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[int]:
        self.unpack_all()
        return super().__iter__()

    def keys(self) -> Any:
        self.unpack_all()
        return super().keys()

    def values(self) -> Any:
        self.unpack_all()
        return super().values()

    def items(self) -> Any:
        self.unpack_all()
        return super().items()
