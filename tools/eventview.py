"""Journal events as people and other programs read them: one line, or one JSON object (RFC 18 with our keys
added).

The JSON schema is stable: `timestamp`, `name`, `context` (left out when empty) as in RFC 18, then `subject`
(a job's F58 id, or a word), `version` and `entry` of the commit, `time` (server time of the append), and `by`
where the commit says who. Job ids in contexts are F58 text (RFC 19 allows no numbers), bytes are base64.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..journal.ids import f58
from ..journal.retry import describe as requeued
from ..journal.wire import Commit, Event
from ..kvs.errors import Rejected
from ..kvs.tree import size_of
from .reading import user_name

_ID_KEYS = frozenset(("via", "job"))
_ID_LISTS = frozenset(("jobs",))
_RECORDS = frozenset(("same", "each"))  # of a retire event: what the jobs' own events have said already
# What a view meets in an event that somebody wrote by hand: it shows that as it stands.
ODD = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, Rejected)
# Of a report: where ids stand.
_ID_ROWS = {"start": (0,), "over": (0, 6), "unstarted": (0,), "timeout": (0,), "script": (0,), "exit": (0,)}


def subject_text(subject: int | str) -> str:
    """A job's F58 id, or the word; in a word about a job's housekeeping, the F58 id too."""
    if isinstance(subject, int):
        return f58(subject)
    kind, _, id = subject.partition("/")
    return f"{kind}/{f58(int(id))}" if kind == "housekeeping" and id.isdecimal() and int(id) < 1 << 64 else subject


def plain(value: Any) -> Any:
    """A value as JSON knows it: bytes become base64."""
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def context_document(name: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """A context as JSON, with job ids as text, without the records of retired jobs."""
    document = {}
    for key, value in context.items():
        if name == "retire" and key in _RECORDS:
            continue
        document[str(key)] = plain(value)
        with suppress(*ODD):
            document[str(key)] = _with_ids(name, key, value)
    return document


def _with_ids(name: str, key: str, value: Any) -> Any:
    """A value of a context as JSON, with job ids as text."""
    if key in _ID_KEYS and isinstance(value, int):
        return f58(value)
    if name == "retire" and key in _ID_LISTS:
        return [f58(id) for id in value]
    if name == "report" and key in _ID_ROWS:
        places = _ID_ROWS[key]
        return [
            [
                f58(cell) if at in places and cell else (None if at in places else plain(cell))
                for at, cell in enumerate(row)
            ]
            for row in value
        ]
    return plain(value)


def event_document(commit: Commit, event: Event) -> dict[str, Any]:
    """One event as a JSON object; see the head of this file."""
    document: dict[str, Any] = {"timestamp": event.timestamp, "name": event.name}
    if event.context:
        document["context"] = context_document(event.name, event.context)
    document["subject"] = subject_text(event.subject)
    document["version"] = commit.version
    document["entry"] = commit.id
    document["time"] = commit.time
    by = caused_by(commit)
    if by:
        document["by"] = by
    return document


def caused_by(commit: Commit) -> str:
    """Who appended a commit, as far as it says."""
    return str(commit.extra.get("by") or commit.producer or "")


def precise_time(t: float) -> str:
    """Local time with milliseconds, "2026-11-23 10:30:05.250"."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t)) + f".{int(t % 1 * 1000):03d}"


def event_line(commit: Commit, event: Event, hosts: Mapping[int, str]) -> str:
    """One event on one line: time, entry, subject, name, what it says."""
    text = describe(event, hosts)
    head = (
        f"{precise_time(event.timestamp)} {commit.version:>6} {subject_text(event.subject):<12} {event.name}"
    )
    return f"{head} {text}" if text else head


def claims_text(claims: list[Any], hosts: Mapping[int, str]) -> str:
    """Claims as "node0[core 0-1, gpu 0, 1024 MB] node1[...]"."""
    parts = []
    for rank, cores, gpus, memory_mb, _, *drawn in claims:
        inside = [f"core {cores}"] if cores else []
        inside += [f"gpu {gpus}"] if gpus else []
        inside += [f"{memory_mb} MB"] if memory_mb else []
        inside += [f"{vertex} {ids or units}" for vertex, units, ids in (drawn[0] if drawn else ())]
        parts.append(f"{hosts.get(rank, f'rank {rank}')}[{', '.join(inside)}]")
    if len(parts) > 8:
        parts[7:] = [f"and {len(parts) - 7} more nodes"]
    return " ".join(parts)


def _edit(edit: Mapping[str, Any]) -> list[str]:
    """What of a graph changes."""
    what: Mapping[str, Any] = next(iter(edit.values()), {})
    words = [*what.get("paths", ()), *([f"rank {what['ranks']}"] if isinstance(what.get("ranks"), str) and what["ranks"] else [])]
    words += [f"below {what['under']}"] if "under" in what else []
    words += [f"{name}={value}" if value else name for name, value in what.get("set", {}).items()]
    words += [f"without {name}" for name in what.get("unset", ())]
    return [*words, *(["up" if what["up"] else "down"] if "up" in what else [])]


def describe(event: Event, hosts: Mapping[int, str]) -> str:
    """What an event says beyond its name, in words; "" if nothing. One that somebody wrote badly by hand, as it stands."""
    with suppress(*ODD):
        return _described(event, hosts)
    context = plain(event.context)
    return " ".join(f"{key}={value}" for key, value in context.items()) if isinstance(context, dict) else str(context)


def _described(event: Event, hosts: Mapping[int, str]) -> str:
    name, context = event.name, event.context or {}
    if name == "submit":
        return _submitted(context)
    if name == "alloc":
        text = claims_text(context.get("claims") or [], hosts)
        if context.get("via"):
            text += f", the seat of {f58(context['via'])}"
        return text
    if name == "grow":
        return claims_text(context.get("claims") or [], hosts)
    if name == "resize":
        return _wanted(context)
    if name == "shrink":
        return _asked_back(context, hosts)
    if name in ("node-script-start", "node-script-finish"):
        then = "; its tasks begin there" if context.get("launch") else ""
        status = f", {status_text(context.get('status', 0))}" if name.endswith("finish") else ""
        return f"{context.get('kind')} on ranks {context.get('ranks')}{status}{then}"
    if name == "grant":
        return f"next on {hosts.get(context.get('rank', -1), context.get('rank'))} ({context.get('shape')})"
    if name == "finish":
        return status_text(context.get("status", 0))
    if name == "exception":
        who = f" by {user_name(context['userid'])}" if "userid" in context else ""
        note = f": {context['note']}" if context.get("note") else ""
        return " ".join(f"{context.get('type')} severity {context.get('severity')}{who}{note}".split())
    if name == "reason":
        return str(context.get("text", ""))
    if name == "release":
        return f"ranks {context.get('ranks')}{', the last' if context.get('final') else ''}"
    if name == "requeue":
        after = f", not before {precise_time(context['after'])}" if "after" in context else ""
        return f"attempt {context['attempt']}: {' '.join(requeued(context).split())}{after}"
    if name == "resource-define":
        return " ".join([str(context.get("method", "")), *_edit(context.get("edit") or {})])
    if name == "config":
        document = context.get("config") or {}
        tables = [f"queues {', '.join(document[one])}" if one == "queues" else str(one) for one in document if document[one]]
        return (", ".join(tables) or "empty") + (f"; from {context['source']}" if context.get("source") else "")
    if name == "kvs.commit":
        where = f"in {context['namespace']}: " if context.get("namespace") else ""
        return where + ", ".join(_operation(op) for op in context.get("ops", ()))
    if name == "report":
        return _report(context)
    if name == "hello":
        held = context.get("held") or []
        return f"from {context.get('host')}, boot {context.get('boot')}, holds {len(held)} attempts"
    if name in ("cron-create", "cron-fire", "cron-skip"):
        return _cron(name, context)
    if name == "housekeeping-start":
        return claims_text(context.get("claims") or [], hosts)
    if name == "retire":
        return f"{len(context.get('jobs', ()))} jobs"
    return " ".join(
        f"{key}={user_name(value) if key == 'userid' else plain(value)}"
        for key, value in context.items()
        if value != ""
    )


def _wanted(context: Mapping[str, Any]) -> str:
    nodes = context.get("nodes", 0)
    text = f"{nodes} node{'' if nodes == 1 else 's'} more" if nodes else "no more nodes"
    text += ", now or not at all" if context.get("at_once") else ""
    return text + (f": {context['note']}" if context.get("note") else f" (by {user_name(context.get('userid', 0))})")


def _asked_back(context: Mapping[str, Any], hosts: Mapping[int, str]) -> str:
    from ..journal.idset import parse

    names = ", ".join(str(hosts.get(rank, f"rank {rank}")) for rank in parse(context["ranks"]))
    until = f" by {precise_time(context['until'])}" if context["force"] > context["until"] else ""
    note = f": {context['note']}" if context.get("note") else ""
    return f"{names}{until}, jobs there: {context['jobs']}{note}"


def _submitted(context: Mapping[str, Any]) -> str:
    import shlex

    tasks = (context.get("jobspec") or {}).get("tasks") or [{}]
    command = tasks[0].get("command") or []
    text = command if isinstance(command, str) else shlex.join(str(word) for word in command)
    if len(text) > 60:
        text = text[:59] + "…"
    who = user_name(context.get("userid", 0))
    return f"{' '.join(text.split())} (by {who}, urgency {context.get('urgency', 16)})"


def status_text(status: int) -> str:
    """A wait word in words."""
    from .jobview import signal_name

    signum = status & 0x7F
    return f"killed by {signal_name(signum)}" if signum else f"exit code {status >> 8}"


def _operation(op: list[Any]) -> str:
    if op[0] in ("copy", "move"):
        return f"{op[0]} {op[2]} {op[3]}"
    if op[0] == "link":
        return f"link {op[1]} -> {op[3]}{'::' if op[3] else ''}{op[2]}"
    if op[0] not in ("put", "append"):
        return f"{op[0]} {op[1]}"
    value = op[2]
    if not isinstance(value, bytes):
        return f"{op[0]} {op[1]} ({size_of(value)} bytes)"
    text = value.decode(errors="backslashreplace")
    return f"{op[0]} {op[1]}={text[:40]}" + ("…" if len(text) > 40 else "")


def _cron(name: str, context: Mapping[str, Any]) -> str:
    if name == "cron-create":
        spec = " ".join(f"{key}={value}" for key, value in context.get("spec", {}).items())
        return f"{context.get('name')}: {context.get('type')} {spec}, first due {_due(context.get('next'))}"
    what = f58(context["job"]) if "job" in context else f"left out: {context.get('reason')}"
    return f"{what}, for {_due(context.get('at'))}; next due {_due(context.get('next'))}"


def _due(t: Any) -> str:
    return precise_time(float(t)) if t else "-"


def _report(context: Mapping[str, Any]) -> str:
    from ..journal.scripts import KINDS

    parts = []
    rows = context.get("script") or []
    scripts = [f"{KINDS.get(row[2], row[2])} of {f58(row[0])} over ({row[6] or status_text(row[5])})" for row in rows]
    if scripts:
        more = f" and {len(scripts) - 4} more" if len(scripts) > 4 else ""
        parts.append(f"{', '.join(scripts[:4])}{more}")
    for word, key in (
        ("began", "start"),
        ("over", "over"),
        ("not started", "unstarted"),
        ("out of time", "timeout"),
        ("first task over", "exit"),
    ):
        rows = context.get(key) or []
        if not rows:
            continue
        texts = []
        for row in rows[:4]:
            text = f58(row[0])
            if key == "exit":
                text += f" (task {row[2]}: {status_text(row[3])})"
            if key == "over":
                text += f" ({row[5] or status_text(row[4])}" + (
                    f", seat to {f58(row[6])})" if row[6] else ")"
                )
            texts.append(text)
        more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
        parts.append(f"{word} {', '.join(texts)}{more}")
    return "; ".join(parts)


def hosts_of(state: Any) -> dict[int, str]:
    """rank -> host of a state."""
    return {rank: node.host for rank, node in state.nodes.items()}
