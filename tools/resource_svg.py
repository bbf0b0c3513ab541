"""The graph of resources as a picture: a column for each level, a box for each group, as high as what is below it.

One file, without scripts or fonts of its own; light or dark as its reader likes it. Nothing overlaps: a text is cut to its box,
and the whole of it is the box's tooltip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from ..schedulers.tree.overview import STATES
from .resource_show_cmd import detail, shortened

if TYPE_CHECKING:
    from ..schedulers.tree.overview import Group

MARGIN, HEAD, ROW, GAP, PAD = 16, 78, 42, 3, 8  # pixels
LETTER, SMALL = 7.4, 6.4  # the widths of letters of 13 and 11 pixels, wide ones and narrow ones together
NARROWEST, WIDEST = 110, 300

#: State -> fill and strong colour, on light ground and on dark.
_COLOURS = {
    "free": ("#d9f0d9", "#2e8b3d", "#173a1e", "#4caf61"),
    "allocated": ("#cfe0f8", "#2563b8", "#14305a", "#5b9bf0"),
    "mixed": ("#e4eaf2", "#5d7fae", "#222c3a", "#86a5d0"),
    "draining": ("#fdeac2", "#c98200", "#4a3508", "#f0b441"),
    "drained": ("#fdeac2", "#c98200", "#4a3508", "#f0b441"),
    "offline": ("#f8d4d1", "#b3261e", "#531a16", "#f2776e"),
    "down": ("#f8d4d1", "#b3261e", "#531a16", "#f2776e"),
}
_STYLE = """text{font:13px system-ui,"DejaVu Sans",sans-serif;fill:#1b1f24}.small{font-size:11px;fill:#4a525c}
.title{font-size:17px;font-weight:600}.ground{fill:#fff}.box{stroke-width:1}"""
_DARK = "text{fill:#e8eaed}.small{fill:#b3bac4}.ground{fill:#16181c}"


def picture(group: Group, when: str, depth: int | None = None) -> str:
    """An SVG document. when: what is shown, beside the title. depth: so many levels below the first, None for all."""
    shown = [(level, one) for level, one in group.walk() if depth is None or level <= depth]
    widths = _widths(shown)
    lefts = [MARGIN + sum(widths[:level]) + GAP * level for level in range(len(widths))]
    boxes: list[str] = []
    rows = _draw(group, 0, 0, depth, lefts, widths, boxes)
    present = [state for state in STATES if any(one.state == state for _, one in shown)]
    legend, legend_width = _legend(present)
    title = f"{group.name}: {_told(group)}"
    width = max(lefts[-1] + widths[-1], MARGIN + legend_width, 420) + MARGIN
    height = HEAD + rows * ROW + MARGIN
    room = int((width - 2 * MARGIN) / LETTER)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{_text(title)}</title>",
            f"<style>{_STYLE}{_fills(0)}@media (prefers-color-scheme:dark){{{_DARK}{_fills(2)}}}</style>",
            f'<rect class="ground" width="{width}" height="{height}"/>',
            f'<text class="title" x="{MARGIN}" y="28">{_text(shortened(title, int(room / 1.35)))}</text>',
            f'<text class="small" x="{MARGIN}" y="46">{_text(shortened(when, room))}</text>',
            *legend,
            *boxes,
            "</svg>\n",
        ]
    )


def _widths(shown: list[tuple[int, Group]]) -> list[int]:
    """Of each column: what its longest text needs, within bounds."""
    widths: dict[int, int] = {}
    for level, one in shown:
        need = max(len(_heading(one)) * LETTER, len(_told(one)) * SMALL) + 2 * PAD
        widths[level] = max(widths.get(level, NARROWEST), min(int(need) + 1, WIDEST))
    return [widths[level] for level in sorted(widths)]


def _draw(
    group: Group, level: int, row: int, depth: int | None, lefts: list[int], widths: list[int], boxes: list[str]
) -> int:  # fmt: skip
    """Add the boxes of a group and of all below it, from a row on. Returns how many rows they take."""
    rows = 0
    if depth is None or level < depth:
        for child in group.children:
            rows += _draw(child, level + 1, row + rows, depth, lefts, widths, boxes)
    rows = rows or 1
    boxes.append(_box(group, lefts[level], HEAD + row * ROW, widths[level], rows * ROW - GAP))
    return rows


def _box(group: Group, x: int, y: int, width: int, height: int) -> str:
    room, middle = width - 2 * PAD, y + height / 2
    heading, told = shortened(_heading(group), int(room / LETTER)), shortened(_told(group), int(room / SMALL))
    hint = f"{_heading(group)} {group.state}: {detail(group)}".removesuffix(": ")
    return (
        f"<g><title>{_text(shortened(hint, 2000))}</title>"
        f'<rect class="box {group.state}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>'
        f'<text x="{x + PAD}" y="{middle - 3:g}">{_text(heading)}</text>'
        f'<text class="small" x="{x + PAD}" y="{middle + 11:g}">{_text(told)}</text>'
        f"{_shares(group, x + PAD, y + height - 5, room)}</g>"
    )


def _shares(group: Group, x: int, y: float, width: int) -> str:
    """A bar that says how many nodes (or leaves) below are in which state; nothing where all are in one."""
    tally = group.tallies.get("node") if group.kind != "node" else None
    if tally is None:
        leaves = [one for kind, one in group.tallies.items() if one.leaf]
        tally = leaves[0] if leaves else group.own
    if len(tally.by_state) < 2:
        return ""
    bars, at = [], float(x)
    for state in STATES:
        share = width * tally.by_state.get(state, 0) / tally.count
        if share:
            bars.append(f'<rect class="bar {state}" x="{at:.2f}" y="{y:g}" width="{share:.2f}" height="3"/>')
            at += share
    return "".join(bars)


def _heading(group: Group) -> str:
    return group.name + (f" ({group.own.count:,})" if group.own.count > 1 else "")


def _told(group: Group) -> str:
    return detail(group) or group.state


def _legend(present: list[str]) -> tuple[list[str], int]:
    """What the colours mean, and how many pixels wide that is."""
    items, x = [], MARGIN
    for state in present:
        items.append(
            f'<rect class="box {state}" x="{x}" y="56" width="12" height="12" rx="2"/>'
            f'<text class="small" x="{x + 17}" y="66">{state}</text>'
        )
        x += 17 + int(len(state) * SMALL) + 14
    return items, x - MARGIN


def _fills(first: int) -> str:
    return "".join(
        f".{state}{{fill:{colours[first]};stroke:{colours[first + 1]}}}.bar.{state}{{fill:{colours[first + 1]};stroke:none}}"
        for state, colours in _COLOURS.items()
    )


def _text(text: str) -> str:
    """Text of a document: what XML cannot hold is left out."""
    return escape("".join(c if c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff" else "?" for c in text))
