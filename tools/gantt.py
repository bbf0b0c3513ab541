"""A Gantt picture: nodes over time with the jobs on them, a panel for each policy on one time scale. Pure; SVG of our own.

One file, without scripts or fonts of its own; light or dark as its reader likes it. Texts never overlap: labels of nodes and
times are left out where there is no room, a job's is written only where it fits into its own rectangle.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from ..schedulers.resources import Node
from ..schedulers.workload import Begun, several
from .gantt_marks import CELL, COLOURS, LEVELS, MOST_ROWS, Frame, draw_cells, draw_marks, marks_of

WIDTH, LEFT, MARGIN = 1200, 120, 16
HEAD, CAPTION, STRIP, AXIS, GAP = 58, 26, 30, 30, 14
HEIGHT = 480  # of the nodes of a panel, about
LETTER = 6.2  # the width of a letter of 11 pixels
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800,
         604800, 1209600, 2592000, 5184000, 15552000, 31104000)  # fmt: skip

_FILLS = ("#7fb3e6", "#f4a261", "#7fcf8f", "#c3a1e8", "#e98b9b", "#c9bf4a", "#6ccccc", "#dd9bd3", "#b2a18c", "#93d14f", "#a3b1ff",
          "#f2c14b")  # fmt: skip
_STYLE = (
    'text{font:11px system-ui,"DejaVu Sans",sans-serif;fill:#3c444d}.title{font-size:17px;font-weight:600}'
    ".name{font-size:13px;font-weight:600}.label{font-size:10px;fill:#14181c;text-anchor:middle}.end{text-anchor:end}"
    ".mid{text-anchor:middle}.ground{fill:#fff}.track{fill:#eef1f4}.line{stroke:#9aa4ae;stroke-width:.6;opacity:.5}"
    ".use{fill:#5b87b5}.wait{fill:#c98a3d}.held{fill:#9aa0a6}"
)
_DARK = "text{fill:#c9d0d8}.title,.name{fill:#e8eaed}.label{fill:#14181c}.ground{fill:#16181c}.track{fill:#24282e}"


class Panel(NamedTuple):
    """One policy: what it did, and what was held before it began (shown grey)."""

    name: str
    begun: Sequence[Begun]
    held: Sequence[Begun] = ()


def picture(panels: Sequence[Panel], nodes: Sequence[Node], labels: Mapping[int, str], epoch: bool, notes: str = "") -> str:
    """An SVG document. labels: what a job is called. epoch: times are Unix seconds, and shown as local time."""
    begin = min((one.start for panel in panels for one in panel.begun), default=0.0)
    end = max((one.end for panel in panels for one in panel.begun), default=0.0)
    end = max(end, begin + 1e-3)
    each = -(-len(nodes) // MOST_ROWS)
    rows = -(-len(nodes) // each)
    row = min(240.0, max(3.0, HEIGHT / rows))
    deep = CAPTION + 2 * (STRIP + 4) + rows * row + AXIS + GAP
    height = round(HEAD + len(panels) * deep + MARGIN)
    title = f"{several(max((len(panel.begun) for panel in panels), default=0), 'job')} on {several(len(nodes), 'node')}"
    body: list[str] = []
    by_cells = False
    for number, panel in enumerate(panels):
        top = HEAD + number * deep
        frame = Frame(LEFT, top + CAPTION + 2 * (STRIP + 4), WIDTH - LEFT - MARGIN, begin, end, row, each)
        cells = _panel(panel, nodes, labels, frame, top, rows, epoch, body)
        by_cells = by_cells or cells
    told = "each colour is a job"
    if by_cells:
        told = f"cells of {_nodes(each)}: the colour of the job with most of it, stronger where more is used"
    fills = "".join(f".c{n}{{fill:{fill}}}" for n, fill in enumerate(_FILLS[:COLOURS]))
    fills += "".join(f".l{n}{{fill-opacity:{n / LEVELS:.2f}}}" for n in range(1, LEVELS + 1))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}{fills}@media (prefers-color-scheme:dark){{{_DARK}}}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
            f'<text class="title" x="{MARGIN}" y="28">{escape(title)}</text>',
            f'<text x="{MARGIN}" y="46">{escape(told)}</text>',
            *body,
            "</svg>\n",
        ]
    )


def _nodes(each: int) -> str:
    return f"{each} nodes" if each > 1 else "a node"


def _panel(
    panel: Panel, nodes: Sequence[Node], labels: Mapping[int, str], frame: Frame, top: float, rows: int, epoch: bool,
    body: list[str],
) -> bool:  # fmt: skip
    """Add a panel to the body; whether it is made of cells."""
    begun = {one.job for one in panel.begun}
    order = {job: number for number, job in enumerate(labels) if job in begun}  # a job has one colour in all panels
    everybody = [*panel.held, *panel.begun]
    bottom = frame.top + rows * frame.row
    body.append(f'<text class="name" x="{MARGIN}" y="{top + 17:.0f}">{escape(panel.name)}</text>')
    body.append(f'<rect class="track" x="{frame.left}" y="{frame.top:.1f}" width="{frame.width}" height="{rows * frame.row:.1f}"/>')
    cores = sum(node.cores.bit_count() for node in nodes)
    use = _average([(one.start, one.end, sum(c.cores.bit_count() for c in one.claims)) for one in everybody], frame)
    body += _strip("use", use, float(cores), "cores in use", top + CAPTION, frame)
    waiting = _average([(one.ready, one.start, 1) for one in panel.begun], frame)
    most = max(waiting, default=0.0)
    body += _strip("wait", waiting, most or 1.0, f"waiting, ≤ {most:,.0f}", top + CAPTION + STRIP + 4, frame)
    marks = marks_of(everybody, nodes, frame)
    if marks is None:
        body += draw_cells(everybody, nodes, frame, order)
    else:
        titles = {one.job: _told(one, labels, epoch, frame.begin) for one in everybody}
        body += draw_marks(marks, order, titles, labels)
    body += _hosts(nodes, frame, rows)
    body += _axis(frame, bottom, epoch)
    return marks is None


def _average(spans: Sequence[tuple[float, float, int]], frame: Frame) -> list[float]:
    """The average of what these spans add up to, in each column."""
    columns = max(1, int(frame.width / CELL))
    scale = columns / (frame.end - frame.begin)
    rises = [0.0] * (columns + 2)  # change of the level from a column on
    found = [0.0] * (columns + 2)
    for start, end, amount in spans:
        a, b = max(0.0, (start - frame.begin) * scale), min(float(columns), (end - frame.begin) * scale)
        if b <= a:
            continue
        first, last = int(a), int(b)
        found[first] -= amount * (a - first)
        rises[first] += amount
        found[last] += amount * (b - last)
        rises[last] -= amount
    level = 0.0
    for column in range(columns):
        level += rises[column]
        found[column] += level
    return [max(0.0, value) for value in found[:columns]]


def _strip(kind: str, values: Sequence[float], most: float, name: str, top: float, frame: Frame) -> list[str]:
    """An area over time above the nodes."""
    wide, points, last = frame.width / len(values), [f"M{frame.left} {top + STRIP:.1f}"], -1.0
    for column, value in enumerate(values):
        y = top + STRIP * (1 - min(1.0, value / most))
        if y != last:
            points.append(f"H{frame.left + column * wide:.1f}V{y:.1f}")
            last = y
    points.append(f"H{frame.left + frame.width:.1f}V{top + STRIP:.1f}z")
    return [
        f'<rect class="track" x="{frame.left}" y="{top:.1f}" width="{frame.width}" height="{STRIP}"/>',
        f'<path class="{kind}" d="{"".join(points)}"/>',
        f'<text class="end" x="{frame.left - 6}" y="{top + STRIP / 2 + 4:.1f}">{escape(name)}</text>',
    ]


def _hosts(nodes: Sequence[Node], frame: Frame, rows: int) -> list[str]:
    """Names of nodes at the left, so many as have room."""
    step = max(1, -(-14 // max(1, int(frame.row))))
    room, found = int((frame.left - MARGIN) / LETTER), []
    for row in range(0, rows, step):
        y = frame.top + row * frame.row + (frame.row / 2 if step == 1 else 5.0) + 4
        name = nodes[row * frame.each].host
        name = name if len(name) <= room else name[: room - 1] + "…"
        found.append(f'<text class="end" x="{frame.left - 6}" y="{y:.1f}">{escape(name)}</text>')
    return found


def _axis(frame: Frame, bottom: float, epoch: bool) -> list[str]:
    """Times below the nodes, and a thin line for each."""
    span = frame.end - frame.begin
    step = next((s for s in STEPS if span / s <= 10), span / 10) if span >= 0.2 else span / 2
    offset = frame.begin % step if epoch and step <= 86400 else 0.0
    if epoch and step <= 86400:  # whole hours and days, of local time
        offset = (frame.begin + time.localtime(frame.begin).tm_gmtoff) % step
    first = frame.begin - offset + (step if offset else 0.0)
    found, at = [], first
    while at <= frame.end + 1e-9 * step:
        x, text = frame.x(at), _clock(at, step) if epoch else _length(at - frame.begin, step)
        half = len(text) * LETTER / 2
        found.append(f'<path class="line" d="M{x:.1f} {frame.top:.1f}V{bottom + 4:.1f}"/>')
        if frame.left - 40 + half < x < WIDTH - half - 2:
            found.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 17:.1f}">{text}</text>')
        at += step
    return found


def _clock(at: float, step: float) -> str:
    if step < 1:
        at = round(at, 1)
        return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 10 + 0.5) % 10}"
    return time.strftime("%b %d" if step >= 86400 else "%b%d %H:%M" if step >= 60 else "%H:%M:%S", time.localtime(at))


def _length(seconds: float, step: float) -> str:
    if step < 60:
        return f"{seconds:.4g}s"
    if step < 3600:
        return f"{round(seconds / 60)}m" if seconds < 3600 else f"{int(seconds // 3600)}h{round(seconds / 60) % 60:02}"
    return f"{seconds / 3600:.4g}h" if step < 86400 else f"{seconds / 86400:.4g}d"


def _told(one: Begun, labels: Mapping[int, str], epoch: bool, begin: float) -> str:
    """The tooltip of a job."""
    from .simulate_view import time_text

    start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.start)) if epoch else f"at {time_text(one.start - begin)}"
    cores = sum(claim.cores.bit_count() for claim in one.claims)
    way = ", by backfill" if one.backfilled else ""
    return (
        f"{labels[one.job]}: {start} for {time_text(one.end - one.start)}, waited {time_text(one.start - one.ready)}, "
        f"{several(cores, 'core')} on {several(len(one.claims), 'node')}{way}"
    )
