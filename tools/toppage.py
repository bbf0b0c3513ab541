"""How a picture of `fluxkv top` is laid out in so many columns and lines: text with the names of styles. Pure.

What does not fit is left out by its worth: a window of a few lines still shows one line of totals and the jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..journal.ids import f58
from .formats import clean, cut, width_of
from .render import duration_text
from .toprows import BAD, LONG_S, PAGES, SHORT_S, NodeRow, Picture

Piece = tuple[str, str]  # text, style: "", "bold", "dim", "good", "bad", "warn", "inside", "mark", "head"
Text = list[Piece]
TALL = 14  # lines from which on there are bars
HELP = (
    ("up, down, j, k", "move; also PgUp, PgDn, Home, End"), ("Enter", "into the instance that this job is (marked with >)"),
    ("Esc, Backspace", "back to the instance around it"), ("left, right", "jobs of one queue, of the next, of all"),
    ("/", "only jobs with this in their name, or of this user"), ("s", "the next order: default, left, time, size, user, name"),
    ("r", "the other way round"), ("Tab, 1, 2, 3", "jobs, nodes, queues"), ("?", "this page"), ("q", "end"),
)  # fmt: skip
KEYS = (("q", "quit"), ("?", "help"), ("Tab", ""), ("Enter", "into"), ("Esc", "back"), ("s", "sort"), ("/", "filter"),
        ("←→", "queue"), ("r", "reverse"))  # fmt: skip


class Frame(NamedTuple):
    """What stands around a picture. path: the instance's name, and those around it. lost_s: how long its server has been away.
    said: a remark for the last line; typing: what is typed for the filter, None if nothing is."""

    path: str
    depth: int = 0
    lost_s: float = 0.0
    said: str = ""
    typing: str | None = None
    help: bool = False


class _Column(NamedTuple):
    """width 0: what is left. keep: from how many columns on it is shown."""

    title: str
    width: int
    keep: int
    text: Callable[[Any], str]
    right: bool = False


JOBS = (
    _Column("JOBID", 12, 0, lambda row: f58(row.id)),
    _Column("QUEUE", 8, 90, lambda row: row.queue),
    _Column("USER", 8, 60, lambda row: row.user),
    _Column("ST", 2, 0, lambda row: row.state),
    _Column("NODES", 5, 70, lambda row: str(row.nnodes or "-"), True),
    _Column("TASKS", 6, 110, lambda row: str(row.ntasks), True),
    _Column("CORES", 6, 50, lambda row: str(row.ncores or "-"), True),
    _Column("TIME", 8, 34, lambda row: _clock(row.time) if row.time else "-", True),
    _Column("LEFT", 8, 64, lambda row: "-" if row.left is None else _clock(row.left), True),
    _Column("NAME", 12, 26, lambda row: row.name),
    _Column("INFO", 0, 76, lambda row: row.info),
)
NODES = (
    _Column("RANK", 5, 0, lambda row: str(row.rank), True),
    _Column("HOST", 14, 0, lambda row: row.host),
    _Column("STATE", 9, 0, lambda row: row.state),
    _Column("CORES", 9, 50, lambda row: _share(row.cores), True),
    _Column("GPUS", 6, 64, lambda row: _share(row.gpus) if row.gpus[1] else "-", True),
    _Column("JOBS", 5, 56, lambda row: str(row.jobs), True),
    _Column("REASON", 0, 38, lambda row: row.reason),
)
QUEUES = (
    _Column("QUEUE", 12, 0, lambda row: row.name),
    _Column("PENDING", 8, 0, lambda row: str(row.pending), True),
    _Column("RUNNING", 8, 0, lambda row: str(row.running), True),
    _Column("DONE", 9, 46, lambda row: str(row.done), True),
    _Column("FAILED", 8, 54, lambda row: str(row.failed), True),
    _Column("STATE", 0, 38, lambda row: row.state),
)
TABLES: dict[str, tuple[_Column, ...]] = {"jobs": JOBS, "nodes": NODES, "queues": QUEUES}


def room(picture: Picture | None, width: int, height: int) -> int:
    """How many lines of a table fit under the header of such a picture."""
    head = len(_head(picture, width, height)) if picture is not None else 2
    return max(1, height - 1 - head - 1 - (1 if height >= 5 else 0))  # title, header, columns' names, keys


def page(picture: Picture | None, frame: Frame, width: int, height: int) -> list[Text]:
    """The whole window: `height` lines of at most `width` columns."""
    lines: list[Text] = [_title(picture, frame, width)]
    foot = [_foot(picture, frame, width)] if height >= 5 or frame.typing is not None or frame.said else []
    if frame.help:
        lines += [[(f"  {keys:<16}", "bold"), (text, "")] for keys, text in HELP]
    elif picture is None:
        lines.append([("reading ...", "dim")])
    else:
        lines += _head(picture, width, height)
        lines += table(picture, width, picture.wishes.limit)
    del lines[max(1, height - len(foot)) :]
    lines += [[] for _ in range(height - len(foot) - len(lines))]
    return [fit(line, width) for line in [*lines, *foot]][:height]


def snapshot(picture: Picture, frame: Frame, width: int) -> list[str]:
    """The same without a window: no keys, no mark, as plain text."""
    lines = [_title(picture, frame, width), *_head(picture, width, TALL), *table(picture, width, len(picture.rows), mark=False)]
    hidden = picture.total - len(picture.rows)
    if hidden > 0:
        lines.append([(f"... and {hidden} more", "")])
    return ["".join(text for text, _ in fit(line, width)).rstrip() for line in lines]


def fit(line: Text, width: int) -> Text:
    """Cut to so many columns, control characters replaced."""
    found: Text = []
    for text, style in line:
        text = cut(clean(text), width)
        width -= width_of(text)
        if text:
            found.append((text, style))
    return found


# -- parts --------------------------------------------------------------------------------------------------------


def _title(picture: Picture | None, frame: Frame, width: int) -> Text:
    left = f"fluxkv top  {frame.path}"
    if frame.lost_s:
        state, style = f" server away for {duration_text(max(1, round(frame.lost_s)))} ", "bad"
    elif picture is not None and picture.stopped:
        state, style = " stopped ", "warn"
    elif picture is not None and picture.started:
        state, style = f"up {_clock(max(0.0, picture.now - picture.started))}", "dim"
    else:
        state, style = "", ""
    space = width - width_of(state) - 1
    if width_of(left) > space > 0:
        left = left.removeprefix("fluxkv top  ")
        left = left if width_of(left) <= space else "…" + left[-(space - 1) :] if space > 1 else ""
    return [(left + " " * max(1, space + 1 - width_of(left)), "bold"), (state, style)]


def _head(picture: Picture, width: int, height: int) -> list[Text]:
    if height < TALL:
        lines = [_totals(picture, width)]
    else:
        wide = width >= 76
        right = _counts(picture)
        # bars are as long as half of it, or shorter where the counts beside them need more
        middle = max(width // 3, min(width // 2 + 2, width - max(map(_wide, right)))) if wide else width + 2
        left = _bars(picture, middle - 2)
        lines = [[*a, (" " * max(1, middle - _wide(a)), ""), *b] for a, b in _paired(left, right)] if wide else [*left, *right]
    if picture.bad and height >= 10:
        lines.append(_bad(picture))
    return lines


def _paired(left: list[Text], right: list[Text]) -> list[tuple[Text, Text]]:
    most = max(len(left), len(right))
    return list(zip(left + [[]] * (most - len(left)), right + [[]] * (most - len(right)), strict=True))


def _totals(picture: Picture, width: int) -> Text:
    """All in one line, what matters most first."""
    lost = picture.ended["failed"] + picture.ended["timeout"]
    up = sum(number for name, number in picture.nodes.items() if name not in BAD)
    found: Text = [(f"R {picture.running} PD {picture.pending}", "bold"), (f" F {lost}", "bad" if lost else ""),
                   (f" CD {picture.ended['completed']}", ""), (f"  cores {_share(picture.cores)}", "")]  # fmt: skip
    if picture.gpus[1]:
        found.append((f" gpus {_share(picture.gpus)}", ""))
    found.append((f" nodes {up}/{sum(picture.nodes.values())} up", "warn" if picture.bad else ""))
    found.append((f"  {_rate(picture.rates[0])}/s", ""))
    return found


def _bars(picture: Picture, width: int) -> list[Text]:
    busy = picture.nodes.get("allocated", 0) + picture.nodes.get("draining", 0)
    rows = [("nodes", (busy, sum(picture.nodes.values())), sum(picture.nodes.get(name, 0) for name in BAD if name != "draining")),
            ("cores", picture.cores, picture.lost)]  # fmt: skip
    rows += [("gpus", picture.gpus, 0)] if picture.gpus[1] else []
    share = max(len(f"{_share(used)}") for _, used, _ in rows)
    return [_bar(name, used, lost, share, width) for name, used, lost in rows]


def _bar(name: str, used: tuple[int, int], lost: int, share: int, width: int) -> Text:
    space = max(4, width - share - 10)
    there = max(1, used[1])
    full = min(space, -(-used[0] * space // there))
    gone = min(space - full, -(-lost * space // there))
    return [(f"{name:<6}[", ""), ("|" * full, "good"), (" " * (space - full - gone), ""), ("x" * gone, "warn"), ("] ", ""),
            (f"{_share(used):>{share}}", "bold")]  # fmt: skip


def _counts(picture: Picture) -> list[Text]:
    ended = picture.ended
    lost = ended["failed"] + ended["timeout"]
    more = f" ({ended['timeout']} by timeout)" if ended["timeout"] else ""
    short, long = picture.rates
    return [
        [(f"{picture.running}", "bold"), (" running  ", ""), (f"{picture.pending}", "bold"), (" pending", "")],
        [(f"{ended['completed']}", "bold"), (" done  ", ""), (f"{lost}", "bad" if lost else "bold"), (f" failed{more}", ""),
         (f"  {ended['canceled']} canceled" if ended["canceled"] else "", "")],
        [(_rate(short), "bold"), (f" jobs/s ({SHORT_S} s)  ", ""), (_rate(long), "bold"), (f" ({LONG_S} s)", "")],
    ]  # fmt: skip


def _bad(picture: Picture) -> Text:
    """Who may not be used, and why."""
    first = picture.bad[:3]
    words = [f"{node.host} (rank {node.rank}) {node.state}{': ' if node.reason else ''}{node.reason}" for node in first]
    more = sum(picture.nodes.get(name, 0) for name in BAD) - len(words)
    return [("! " + "; ".join(words) + (f"; {more} more (Tab)" if more > 0 else ""), "warn")]


def table(picture: Picture, width: int, limit: int, *, mark: bool = True) -> list[Text]:
    """The page's list: a line of names, and its lines."""
    wishes = picture.wishes
    queues = len(picture.queues) > 1
    columns = [one for one in TABLES[wishes.page] if width >= one.keep and (queues or one is not JOBS[1])]
    rows = picture.rows[:limit]
    cells = [[clean(one.text(row)) for one in columns] for row in rows]
    widths = _widths(columns, cells, width - 2)
    lines: list[Text] = [[("  " + _line([one.title for one in columns], columns, widths), "head")]]
    if not rows:
        lines.append([("  " + _nothing(picture), "dim")])
    for number, (row, texts) in enumerate(zip(rows, cells, strict=True)):
        inside = bool(getattr(row, "inside", False))
        text = ("> " if inside else "  ") + _line(texts, columns, widths)
        marked = mark and wishes.offset + number == wishes.cursor
        lines.append([(text + " " * (width - width_of(text)), "mark") if marked else (text, _style(row, inside))])
    return lines


def _widths(columns: list[_Column], cells: list[list[str]], width: int) -> list[int]:
    """Each as wide as what it holds, at most as it may be; the last one has the rest."""
    found = []
    for index, one in enumerate(columns):
        needed = max([len(one.title), *(width_of(row[index]) for row in cells)])
        found.append(min(needed, max(one.width, len(one.title))) if one.width else 0)
    if columns and not columns[-1].width:
        found[-1] = max(0, width - sum(found) - len(columns) + 1)
    elif columns:
        found[-1] = max(found[-1], width - sum(found[:-1]) - len(columns) + 1)
    return found


def _line(texts: list[str], columns: list[_Column], widths: list[int]) -> str:
    parts = []
    for text, one, width in zip(texts, columns, widths, strict=True):
        if width_of(text) > width:
            text = cut(text, max(0, width - 1)) + "+" if width else ""
        space = " " * (width - width_of(text))
        parts.append(space + text if one.right else text + space)
    return " ".join(parts)


def _style(row: Any, inside: bool) -> str:
    if isinstance(row, NodeRow):
        return "warn" if row.state in BAD else "dim" if row.state == "free" else ""
    if inside:
        return "inside"
    return "dim" if getattr(row, "pending", None) is True else ""


def _nothing(picture: Picture) -> str:
    wishes = picture.wishes
    if wishes.page != "jobs":
        return f"no {wishes.page}"
    chosen = [f"in queue {wishes.queue}"] if wishes.queue else []
    chosen += [f"named {wishes.match!r}"] if wishes.match else []
    return " ".join(["no active job", *chosen])


def _foot(picture: Picture | None, frame: Frame, width: int) -> Text:
    if frame.typing is not None:
        return [("filter: ", "bold"), (frame.typing, ""), ("_", "dim"), ("   Enter takes it, Esc leaves", "dim")]
    if frame.said:
        return [(frame.said, "warn")]
    wishes = picture.wishes if picture is not None else None
    found: Text = []
    if wishes is not None:
        told = [f"queue {wishes.queue}"] if wishes.queue else []
        told += [f"/{wishes.match}"] if wishes.match else []
        if wishes.sort != "default" or wishes.reverse:
            told.append(f"by {wishes.sort}" + (" reversed" if wishes.reverse else ""))
        found += [(" ".join(told) + "  ", "warn")] if told else []
    for key, word in KEYS:
        if key == "Esc" and not frame.depth:
            continue
        if key == "Tab":
            word = PAGES[(PAGES.index(wishes.page if wishes else "jobs") + 1) % len(PAGES)]
        piece = f"{word}  "
        if _wide(found) + len(key) + 1 + len(piece) > width + 2:
            break
        found += [(key, "bold"), (f" {piece}", "dim")]
    return found


def _wide(line: Text) -> int:
    return sum(width_of(text) for text, _ in line)


def _share(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}"


def _clock(seconds: float) -> str:
    """A duration to the second: 0:05, 12:40, 1:00:00, 2-03:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 or not rate else f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"
