"""The marks of a Gantt picture: who held which part of which node when. Few jobs are drawn one by one, down to their cores;
many as a grid of cells, each in the colour of the job that has most of it. Pure: numbers in, SVG elements out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from ..journal.claims import Claim
from ..schedulers.resources import Node
from ..schedulers.workload import Begun

COLOURS = 12
LEVELS = 4  # how much of a cell is used, in as many strengths
MOST_MARKS = 6_000
MOST_ROWS = 160
CELL = 2.0  # pixels, the width of a cell
LETTER, LABEL_HEIGHT = 6.1, 11.0  # of labels of 10 pixels


class Frame(NamedTuple):
    """Where it is drawn: pixels, and the times at its left and right edge. row: the height of a row, of `each` nodes."""

    left: float
    top: float
    width: float
    begin: float
    end: float
    row: float
    each: int

    def x(self, time: float) -> float:
        """Where a time is."""
        return self.left + self.width * (time - self.begin) / (self.end - self.begin)


class Mark(NamedTuple):
    """A rectangle of a job. In pixels."""

    job: int
    x: float
    y: float
    width: float
    height: float


def colour_of(number: int) -> int:
    """Of the nth job: neighbours get colours far apart."""
    return number * 5 % COLOURS


def marks_of(begun: Sequence[Begun], nodes: Sequence[Node], frame: Frame) -> list[Mark] | None:
    """A rectangle for each run of cores of each claim; equal ones on nodes side by side are one. None: they are too many."""
    if frame.each > 1:
        return None
    index = {node.rank: at for at, node in enumerate(nodes)}
    found: list[Mark] = []
    for one in begun:
        x, right = frame.x(one.start), frame.x(one.end)
        for top, bottom in _bands(one.claims, nodes, index):
            found.append(Mark(one.job, x, frame.top + top * frame.row, right - x, (bottom - top) * frame.row))
        if len(found) > MOST_MARKS:
            return None
    return found


def _bands(claims: Sequence[Claim], nodes: Sequence[Node], index: Mapping[int, int]) -> Iterator[tuple[float, float]]:
    """(top, bottom) in rows, joined where they touch."""
    last: tuple[float, float] | None = None
    for claim in sorted(claims, key=lambda claim: index.get(claim.rank, -1)):
        at = index.get(claim.rank)
        if at is None:
            continue
        for low, high in _runs(claim.cores, nodes[at].cores):
            if last is not None and abs(last[1] - (at + low)) < 1e-9:
                last = (last[0], at + high)
                continue
            if last is not None:
                yield last
            last = (at + low, at + high)
    if last is not None:
        yield last


def _runs(held: int, cores: int) -> list[tuple[float, float]]:
    """Which shares of a node's height these of its cores are, ids in order."""
    if held == cores or not held:
        return [(0.0, 1.0)]
    total, place, runs = cores.bit_count(), 0, list[list[int]]()
    rest = cores
    while rest:
        low = rest & -rest
        rest ^= low
        if held & low:
            if runs and runs[-1][1] == place:
                runs[-1][1] = place + 1
            else:
                runs.append([place, place + 1])
        place += 1
    return [(first / total, last / total) for first, last in runs]


def draw_marks(marks: Sequence[Mark], order: Mapping[int, int], titles: Mapping[int, str], labels: Mapping[int, str]) -> list[str]:
    """SVG of rectangles: a group for each job with its tooltip, and its label in the largest of them that has room for it."""
    by_job: dict[int, list[Mark]] = {}
    for mark in marks:
        by_job.setdefault(mark.job, []).append(mark)
    found = []
    for job, some in by_job.items():
        path = "".join(_box(m.x, m.y, max(m.width, 0.5), max(m.height - 0.5, 0.4)) for m in some)
        tint = f"c{colour_of(order[job])}" if job in order else "held"
        found.append(f'<path class="{tint}" d="{path}"><title>{escape(titles.get(job, labels[job]))}</title></path>')
        best = max(some, key=lambda m: (m.height >= LABEL_HEIGHT, m.width * m.height))
        text = labels[job]
        if best.height >= LABEL_HEIGHT and best.width >= len(text) * LETTER + 6:
            x, y = best.x + best.width / 2, best.y + best.height / 2 + 3.5
            found.append(f'<text class="label" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>')
    return found


def draw_cells(begun: Sequence[Begun], nodes: Sequence[Node], frame: Frame, order: Mapping[int, int]) -> list[str]:
    """SVG of a grid, a path for each colour and strength; cells side by side that look the same are one rectangle."""
    rows, columns = -(-len(nodes) // frame.each), max(1, int(frame.width / CELL))
    index = {node.rank: at for at, node in enumerate(nodes)}
    room = [0] * rows
    for at, node in enumerate(nodes):
        room[at // frame.each] += node.cores.bit_count()
    used = [[0.0] * columns for _ in range(rows)]
    most = [[0.0] * columns for _ in range(rows)]
    colour = [[0] * columns for _ in range(rows)]
    scale = columns / (frame.end - frame.begin)
    for one in begun:
        tint = colour_of(order[one.job]) if one.job in order else COLOURS
        spans = _columns((one.start - frame.begin) * scale, (one.end - frame.begin) * scale, columns)
        for row, cores in _by_row(one.claims, index, frame.each).items():
            for column, share in spans:
                amount = cores * share
                used[row][column] += amount
                if amount > most[row][column]:
                    most[row][column], colour[row][column] = amount, tint
    paths: dict[tuple[int, int], list[str]] = {}
    wide = frame.width / columns
    for row in range(rows):
        levels = [min(LEVELS, -int(-LEVELS * amount // room[row])) if amount > 0.02 * room[row] else 0 for amount in used[row]]
        kinds = [(tint, level) if level else None for tint, level in zip(colour[row], levels, strict=True)]
        y, first = frame.top + row * frame.row, 0
        for column in range(1, columns + 1):
            kind = kinds[first]
            if column < columns and kinds[column] == kind:
                continue
            if kind is not None:
                box = _box(frame.left + first * wide, y, (column - first) * wide, frame.row)
                paths.setdefault(kind, []).append(box)
            first = column
    return [
        f'<path class="{f"c{tint}" if tint < COLOURS else "held"} l{level}" d="{"".join(some)}"/>'
        for (tint, level), some in sorted(paths.items())
    ]


def _by_row(claims: Sequence[Claim], index: Mapping[int, int], each: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for claim in claims:
        at = index.get(claim.rank)
        if at is not None:
            found[at // each] = found.get(at // each, 0) + claim.cores.bit_count()
    return found


def _columns(start: float, end: float, columns: int) -> list[tuple[int, float]]:
    """(column, share of it) that [start, end) covers, in columns."""
    first, last = max(0, int(start)), min(columns - 1, int(end))
    return [(column, min(end, column + 1) - max(start, column)) for column in range(first, last + 1)]


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{_n(x)} {_n(y)}h{_n(width)}v{_n(height)}h-{_n(width)}z"


def _n(number: float) -> str:
    """Short: at most two decimals."""
    return f"{number:.2f}".rstrip("0").rstrip(".") or "0"
