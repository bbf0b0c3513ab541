"""How an ensemble looks: a bar and failures while it runs, its children, its members' results; and those to be run again."""

from __future__ import annotations

import math
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..journal.ensemble import total_of
from ..journal.ids import f58
from .attaching import PENDING_S, why_it_waits
from .ensemble import TOLD
from .render import duration_text, out, print_json, progress, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..instances.ensemble_view import EnsembleView, Seen
    from ..journal.ensemble import Ended, Part

_WIDTHS = (10, 2, 6, 10)
_INPUT = 60  # characters of a member's input that are shown with how it failed


def why(row: Ended) -> str:
    """How a member that did not succeed ended, in one line; "" for one that did."""
    from .eventview import status_text
    from .formats import clean

    if row.ok:
        return ""
    return clean(row.why) if row.why else "never ran" if row.status < 0 else status_text(row.status)


def _input(view: EnsembleView, index: int) -> str:
    """What a member got, for a line of text."""
    from .formats import clean

    return clean(" ".join(view.inputs(index)))


def follow(view: EnsembleView, timeout: float | None, asked: Sequence[int] = ()) -> int:
    """Stay with it until it ends; the exit code. asked: signals that came; raises KeyboardInterrupt where there are some."""
    from ..instances.ensemble_view import LOOK_S, REST_S

    told = 0

    def tell(seen: Seen) -> None:
        nonlocal told
        for part, row in islice(seen.failed, TOLD - told):
            told += 1
            index = view.indices[row.position]
            input = _input(view, index)
            which = f" ({input[:_INPUT]}{'...' * (len(input) > _INPUT)})" if input else ""
            say(f"{f58(view.id)}: index {index}{which}: {why(row)} ({view.path(part, row)})")

    seen: Seen | None = None
    before = view.count()
    asks_at = time.monotonic() + PENDING_S if sys.stderr.isatty() and not before.done else math.inf
    with progress(view.total, done=before.done, failed=before.failed) as drawn:
        for seen in view.follow(timeout, LOOK_S if drawn.is_live else REST_S):
            if asked:
                raise KeyboardInterrupt
            tell(seen)
            if time.monotonic() >= asks_at:
                asks_at = math.inf
                if text := why_it_waits(view.instance, view.id):
                    say(f"{f58(view.id)} waits: {text}")
            drawn.update(seen.counts.done, seen.counts.failed)
    if seen is None or seen.result is None:
        return 1
    return _judged(view, seen)


def _judged(view: EnsembleView, seen: Seen) -> int:
    """The exit code of an ensemble that has ended; what ended it, if members did not, is said."""
    result, name = seen.result, f58(view.id)
    tell_unread(view)
    if result is not None and result.exception is not None:
        say(f"{name}: exception: type={result.exception[0]} note={result.exception[1]}")
    if failed := seen.counts.failed:
        many, them = (f"{failed:,} members", "them") if failed > 1 else ("1 member", "it")
        say(f"{name}: {many} failed; fluxkv ensemble results --failed {name} lists {them}, fluxkv ensemble rerun --failed {name} "
            f"submits {them} again")  # fmt: skip
    if missing := view.total - seen.counts.done:
        many = f"{missing:,} members" if missing > 1 else "1 member"
        say(f"{name}: {many} did not run to an end; fluxkv ensemble rerun {name} submits them again")
    code = seen.counts.worst or (result.returncode if result is not None else 1)
    return code or (1 if missing else 0)


def tell_unread(view: EnsembleView) -> None:
    """What of one that is over could not be read."""
    for text in view.unread:
        say(f"fluxkv: {text}")


def show_status(view: EnsembleView, as_json: bool) -> None:
    """One picture of it."""
    from .jobview import inactive_reason, status_abbrev

    counts = view.counts()
    total = total_of(counts.values())
    tell_unread(view)
    job, name = view.job, f58(view.id)
    if as_json:
        print_json({
            "id": name, "name": job.name, "status": status_abbrev(job), "total": view.total, "done": total.done,
            "failed": total.failed, "running": 0 if view.over else total.running, "left": view.total - total.done,
            "returncode": total.worst, "nodes": job.nnodes,
            "children": {f58(child): count._asdict() for child, count in counts.items() if child},
        })  # fmt: skip
        return
    rest = view.total - total.done
    text = f"{name} {job.name} {status_abbrev(job)}: {total.done:,} of {view.total:,} done, {total.failed:,} failed"
    if rest and view.over:
        text += f", {rest:,} did not run to an end"
    out(text + (f"; {inactive_reason(job)}" if view.over and job.exception is not None else ""))
    rows = [
        (f"{name}/{f58(child)}" if child else "earlier attempts", count.done, count.failed, "" if view.over else count.running)
        for child, count in sorted(counts.items())
    ]
    if rows:
        table(("CHILD", "DONE", "FAILED", "ACTIVE"), rows, right=(1, 2, 3))


def show_results(view: EnsembleView, *, failed: bool, header: bool, as_json: bool) -> None:
    """A line for each member that has ended, as they are read: there may be very many."""
    wide = max(5, len(str(view.indices[view.total - 1])))
    if header and not as_json:
        out(f"{'INDEX':>{wide}} ST  EXIT    RUNTIME JOB{' INPUT' * bool(view.request.rows)}")
    lines: list[str] = []
    for index, part, row in view.rows(_failed if failed else None):
        lines.append(_json_line(view, index, part, row) if as_json else _line(view, index, part, row, wide))
        if len(lines) == 1000:
            out("\n".join(lines))
            lines = []
    if lines:
        out("\n".join(lines))
    tell_unread(view)


def _failed(row: Ended) -> bool:
    return not row.ok


def _line(view: EnsembleView, index: int, part: Part, row: Ended, wide: int) -> str:
    said = "".join(f" {text}" for text in (_input(view, index), why(row)) if text)
    return f"{index:>{wide}} {row.letters:<2} {row.returncode:>5} {duration_text(row.runtime):>10} {view.path(part, row)}{said}"


def _json_line(view: EnsembleView, index: int, part: Part, row: Ended) -> str:
    from .render import json_text

    found: dict[str, Any] = {
        "index": index, "result": row.letters, "returncode": row.returncode, "status": row.status if row.status >= 0 else None,
        "attempt": row.attempt, "t_run": row.t_run, "runtime": round(row.runtime, 6), "job": view.path(part, row),
    }  # fmt: skip
    if inputs := view.inputs(index):
        found["inputs"] = list(inputs)
    if not row.ok:
        found["why"] = why(row)
    return json_text(found)


def again(view: EnsembleView, *, failed: bool, unfinished: bool) -> int:
    """Submit members anew; the new ensemble's id, 0 if there are none. Raises `Rejected`."""
    from ..instances.ensemble_rerun import rerun

    made = rerun(view, failed=failed, unfinished=unfinished)
    tell_unread(view)
    name = f58(view.id)
    if made.id:
        say(f"fluxkv: {made.members:,} member{'s' if made.members > 1 else ''} of {name}")
    else:
        left = f"; those that did not run to an end: fluxkv ensemble rerun {name}" if made.left else ""
        say(f"fluxkv: no member of {name} is to be run again{left}")
    return made.id
