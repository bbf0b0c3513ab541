"""Traces in the Standard Workload Format (version 2.2, of the Parallel Workloads Archive) as workloads. Pure.

A line is a job: 18 numbers, -1 for what is not known; lines that begin with ";" are comments, some of which say `Word: value`.
Decides what a job of a trace asks for: as many one-core slots as processors were asked for (else given), wherever they fit.
Memory, queues and partitions of a trace are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..journal.rset import MAX_NODES, NodeRecord
from ..journal.shown import shown
from ..kvs.errors import Rejected
from .request import Request, compile_request
from .workload import After, Begun, Label, Work, Workload, several

FIELDS = 18
CANCELLED = 5
MOST = 1e15  # seconds, processors, numbers of jobs: beyond this nothing is meant
_KNOWN = ("maxnodes", "maxprocs", "unixstarttime")


def parse_swf(lines: Iterable[str]) -> Workload:
    """The workload of a trace's lines. Raises `Rejected` (code bad-trace) that names the line."""
    header: dict[str, int] = {}
    rows: list[tuple[float, ...]] = []
    numbers: dict[int, int] = {}
    for at, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if text[0] == ";":
            _comment(text, header)
            continue
        row = _row(text, at)
        if (first := numbers.setdefault(int(row[0]), at)) != at:
            raise _bad(at, f"job {int(row[0])} is in line {first}, too")
        rows.append(row)
    found = _workload(rows, header)
    found.nodes = _nodes(header)
    return found


def _bad(at: int, why: str) -> Rejected:
    return Rejected(
        f"line {at}: {why}", code="bad-trace", hint="a line of a trace (SWF) is 18 numbers, -1 for what is not known"
    )


def _comment(text: str, header: dict[str, int]) -> None:
    word, colon, value = text.lstrip("; ").partition(":")
    name = word.strip().lower()
    if colon and name in _KNOWN and name not in header:
        digits = value.split()[0] if value.split() else ""
        if digits.isascii() and digits.isdigit() and len(digits) < 16:
            header[name] = int(digits)


def _row(text: str, at: int) -> tuple[float, ...]:
    words = text.split()
    if len(words) != FIELDS:
        raise _bad(at, f"{several(len(words), 'field')}, {FIELDS} are wanted")
    try:
        row = tuple(map(float, words))
    except ValueError:
        wrong = next(word for word in words if not _is_number(word))
        raise _bad(at, f"{shown(wrong)} is no number") from None
    for number, value in enumerate(row, 1):
        if not -MOST < value < MOST:
            raise _bad(at, f"field {number} is {shown(words[number - 1])}")
    if row[0] < 0 or row[0] != int(row[0]):
        raise _bad(at, f"{shown(words[0])} is no number of a job")
    return row


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _workload(rows: list[tuple[float, ...]], header: dict[str, int]) -> Workload:
    found, start = Workload(epoch="unixstarttime" in header), header.get("unixstarttime", 0)
    requests: dict[int, Request] = {}
    never = unlimited = over = 0
    rows.sort(key=lambda row: row[1])
    for order, row in enumerate(rows):
        number, submit, wait, run, allocated = int(row[0]), row[1] + start, row[2], row[3], int(row[4])
        processors = int(row[7]) if row[7] > 0 else allocated
        if run < 0 or processors <= 0 or submit < start or (run == 0 and row[10] == CANCELLED):
            never += 1
            continue
        limit = row[8]
        if limit <= 0:
            unlimited += 1
            limit = max(run, 1.0)
        over += run > limit
        request = requests.get(processors)
        if request is None:
            request = requests[processors] = _slots(processors)
        after: tuple[tuple[After, ...], ...] = ()
        if row[16] > 0:
            after = ((After(int(row[16]), delay_s=max(0.0, row[17])),),)
        found.works.append(Work(number, submit, run, request, limit, order=order, after=after))
        found.labels[number] = Label(str(number), user=str(int(row[11])) if row[11] >= 0 else "")
        if wait >= 0:
            found.recorded.append(Begun(number, submit, submit + wait, submit + wait + run, (), False))
    found.recorded.sort(key=lambda one: one.start)
    if never:
        found.notes.append(f"{several(never, 'job')} that never ran (cancelled, or nothing known of it) left out")
    if unlimited:
        found.notes.append(f"{several(unlimited, 'job')} without a requested time: taken to ask for what they ran")
    if over:
        found.notes.append(f"{several(over, 'job')} ran longer than requested: they run on, and policies do not know it")
    if len(found.recorded) < len(found.works):
        found.recorded.clear()
    return found


def _slots(processors: int) -> Request:
    core = {"type": "core", "count": 1}
    slot = {"type": "slot", "count": min(processors, 0xFFFFFFFF), "label": "task", "with": [core]}
    return compile_request({"resources": [slot]})


def _nodes(header: dict[str, int]) -> tuple[NodeRecord, ...]:
    """The machine that the header speaks of, () if it does not, or of one that is too large."""
    nodes, processors = header.get("maxnodes", 0), header.get("maxprocs", 0)
    nodes = nodes or processors
    if not 0 < nodes <= MAX_NODES:
        return ()
    cores = max(1, -(-processors // nodes))
    if cores > 1 << 16:
        return ()
    return tuple(NodeRecord(rank, f"node{rank}", (1 << cores) - 1, 0, 0, ()) for rank in range(nodes))
