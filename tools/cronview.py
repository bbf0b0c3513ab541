"""How cron entries are shown: fields of `fluxkv cron list`, and an entry as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..journal.cron import CronEntry
    from ..journal.state import State

LIST = (
    "{id:>4} {name:<14.14+} {type:<8} {what:<24.24+} {state:<7} {next:<19} {runs:>5} {failures:>4} {lastjob:<12} "
    "{result:<9} {note}"
)



def _what(entry: CronEntry) -> str:
    from .formats import fsd, iso_time

    spec = entry.spec
    if entry.type == "interval":
        return f"every {fsd(spec['interval'])}"
    if entry.type == "at":
        return iso_time(spec["at"])
    if entry.type == "tab":
        return str(spec["line"])
    text = f"{spec['subject']}.{spec['event']}" if spec["subject"] else spec["event"]
    text += f" nth={spec['nth']}" if spec["nth"] > 1 else ""
    text += f" after={spec['after']}" if spec["after"] else ""
    return text + (f" min-interval={fsd(spec['min_interval'])}" if spec["min_interval"] else "")


def _result(entry: CronEntry, state: State) -> str:
    return entry.last_result or ("active" if entry.last_job in state.cron.jobs else "-" if not entry.last_job else "?")


def _due(entry: CronEntry) -> float:
    from ..journal.decide_cron import due_at

    return due_at(entry)


def _id(entry: CronEntry) -> str:
    from ..journal.ids import f58

    return f58(entry.last_job) if entry.last_job else "-"


def _time(t: float) -> str:
    from .formats import iso_time

    return iso_time(t) or "-"


FIELDS: dict[str, Any] = {
    "id": ("ID", lambda entry, _: entry.id),
    "name": ("NAME", lambda entry, _: entry.name),
    "type": ("TYPE", lambda entry, _: entry.type),
    "what": ("WHAT", lambda entry, _: _what(entry)),
    "state": ("STATE", lambda entry, _: entry.state),
    "next": ("NEXT", lambda entry, _: _time(_due(entry))),
    "runs": ("RUNS", lambda entry, _: entry.runs),
    "skips": ("SKIPS", lambda entry, _: entry.skips),
    "failures": ("FAIL", lambda entry, _: entry.failures),
    "events": ("EVENTS", lambda entry, _: entry.seen),
    "last": ("LAST", lambda entry, _: _time(entry.fired)),
    "lastjob": ("LASTJOB", lambda entry, _: _id(entry)),
    "result": ("RESULT", lambda entry, state: _result(entry, state)),
    "note": ("NOTE", lambda entry, _: entry.note),
}


def document(entry: CronEntry, state: State) -> dict[str, Any]:
    """An entry as a JSON object; times in Unix seconds."""
    from ..journal.ids import f58

    return {
        "id": entry.id, "name": entry.name, "type": entry.type, "spec": entry.spec, "what": _what(entry),
        "options": entry.options, "state": entry.state, "note": entry.note, "created": entry.created,
        "next": _due(entry), "runs": entry.runs, "skips": entry.skips, "failures": entry.failures,
        "failures_in_a_row": entry.failed_in_row, "events": entry.seen, "owed": len(entry.owed), "merged": entry.merged,
        "last": entry.fired, "last_at": entry.last_at, "last_job": f58(entry.last_job) if entry.last_job else None,
        "last_result": _result(entry, state), "active": [f58(id) for id in state.cron.running(entry.id)],
    }  # fmt: skip
