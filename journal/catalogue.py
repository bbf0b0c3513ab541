"""Every event there is: one line each, with its golden example. Decides names and required context keys.

Names, order and keys of RFC 21 (jobs) and RFC 44 (resources) are verbatim; ours are new names or new keys. An unknown
event is kept and skipped by the fold, so that an older reader survives a newer writer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .event_check import check_values


class Kind(NamedTuple):
    """subject: "job" or the prefix of a word subject. required: context keys. source: RFC number or "fluxkv"."""

    subject: str
    required: tuple[str, ...]
    source: str
    meaning: str
    example: dict[str, Any] | None


CATALOGUE: dict[tuple[str, str], Kind] = {}


def _add(subject: str, source: str, name: str, example: dict[str, Any] | None, meaning: str, *optional: str) -> None:
    required = tuple(key for key in example or {} if key not in optional)
    CATALOGUE[subject, name] = Kind(subject, required, source, meaning, example)


_job = "job"
_add(_job, "RFC 21", "submit",
     {"urgency": 16, "userid": 1000, "flags": 0, "version": 1, "jobspec": {"version": 1}, "env": "b2-00", "key": "nightly",
      "asked": "0a1b"},
     "created; jobspec without its environment, env names the blob that holds it; key: no other job has it, asked: hash of what "
     "was asked for with it", "jobspec", "env", "key", "asked")  # fmt: skip
_add(_job, "RFC 21", "validate", None, "accepted")
_add(_job, "RFC 21", "invalidate", None, "rejected; the job is deleted")
_add(_job, "RFC 21", "jobspec-update", {"attributes.system.duration": 60.0}, "dotted paths and new values",
     "attributes.system.duration")  # fmt: skip
_add(_job, "RFC 21", "resource-update", {"expiration": 1700000000}, "new end of R")
_add(_job, "RFC 21", "set-flags", {"flags": ["debug"]}, "flags set")
_add(_job, "RFC 21", "dependency-add", {"description": "begin-time=5"}, "something to wait for")
_add(_job, "RFC 21", "dependency-remove", {"description": "begin-time=5"}, "it came")
_add(_job, "RFC 21", "depend", None, "all dependencies met")
_add(_job, "RFC 21", "priority", {"priority": 16}, "the scheduler's order")
_add(_job, "RFC 21", "urgency", {"urgency": 20, "userid": 1000}, "changed by a person")
_add(_job, "RFC 21", "flux-restart", None, "the instance was fully stopped; SCHED goes back to PRIORITY")
_add(_job, "RFC 21", "alloc",
     {"claims": [[0, "0-3", "", 0, 1]], "expiration": 0.0, "attempt": 17, "via": 99, "annotations": {},
      "adopted": "12-5", "since": [[0, 1.5]]},
     "resources committed (claims: rank, cores, gpus, memory MB, slots, and draws of other vertices); attempt and via only for a "
     "granted job: the version of its grant and the job whose seat it took over; adopted and since only for an attempt that a lost "
     "branch began: the entry that did, and when it started on each rank", "attempt", "via", "annotations", "adopted",
     "since")  # fmt: skip
_add(_job, "RFC 21", "prolog-start", {"description": "job-manager.prolog", "ranks": "0-1"},
     "blocks start; ours runs on these ranks", "ranks")  # fmt: skip
_add(_job, "RFC 21", "prolog-finish", {"description": "x", "status": 0}, "unblocks start")
_add(_job, "RFC 21", "start", None, "running on all its ranks")
_add(_job, "RFC 21", "finish", {"status": 0}, "ended on all its ranks; the largest wait status")
_add(_job, "fluxkv", "resize", {"nodes": 2, "userid": 1000, "at_once": True, "note": "no node is free"},
     "a running job asks for so many nodes beside those that it has (0: for none any more); at_once: now, or not at all", "userid",
     "at_once", "note")  # fmt: skip
_add(_job, "fluxkv", "grow", {"claims": [[4, "0-3", "", 0, 1]]}, "more nodes for a running job: its attempt goes on there, too")
_add(_job, "fluxkv", "shrink",
     {"ranks": "3", "until": 1700000060.0, "force": 1700000075.0, "jobs": "finish", "note": "maintenance", "userid": 1000},
     "nodes of a running job are asked back: a child ends what runs there by until, in the way of jobs (finish, requeue, fail); "
     "what is there at force is ended", "note", "userid")  # fmt: skip
_add(_job, "RFC 21", "release", {"ranks": "all", "final": True}, "process trees gone there; of some ranks while it runs")
_add(_job, "RFC 21", "epilog-start", {"description": "job-manager.epilog", "ranks": "0-1"},
     "blocks free; ours runs on these ranks", "ranks")  # fmt: skip
_add(_job, "RFC 21", "epilog-finish", {"description": "x", "status": 0}, "unblocks free")
_add(_job, "RFC 21", "free", {"ranks": "3"}, "resources back to the pool; ranks: these only, while it goes on with the others",
     "ranks")  # fmt: skip
_add(_job, "RFC 21", "clean", None, "done; read-only from now")
_add(_job, "RFC 21", "exception", {"type": "cancel", "severity": 0, "note": "", "userid": 1000, "wait_status": 256},
     "something went wrong; severity 0 ends the job; wait_status: how a task ended that is the reason", "userid",
     "wait_status")  # fmt: skip
_add(_job, "RFC 21", "memo", {"key": "value"}, "merged into the job's memo", "key")
_add(_job, "fluxkv", "grant", {"rank": 0, "shape": "a1"},
     "placed ahead: may take over a seat of this shape on this node; holds no resources yet")  # fmt: skip
_add(_job, "fluxkv", "recall", None, "a grant is asked back; its node answers with a report")
_add(_job, "fluxkv", "requeue",
     {"attempt": 2, "cause": "exit=75", "note": "exit code 75", "retry": 1, "limit": 3, "after": 1700000060.0},
     "in place of clean: its attempt is over, and this one will follow, not before a time; retry and limit if by its policy",
     "retry", "limit", "after")  # fmt: skip
_add(_job, "fluxkv", "end", {"cause": "shrink", "ranks": "3"}, "its nodes (ranks: only these) are told to end the process tree",
     "ranks")  # fmt: skip
_add(_job, "fluxkv", "node-script-start", {"kind": "prolog", "ranks": "3"},
     "a script is ordered on nodes that came while it runs (prolog), or leave it (epilog, housekeeping)")  # fmt: skip
_add(_job, "fluxkv", "node-script-finish", {"kind": "prolog", "ranks": "3", "status": 0, "launch": True},
     "it is over there; launch: its tasks are ordered there", "launch")  # fmt: skip
_add(_job, "fluxkv", "fence", {"rank": 0, "attempt": "12-5", "cause": "what it runs on is not free any more"},
     "an attempt that a lost branch began is ended on this rank")  # fmt: skip
_add(_job, "fluxkv", "kill", {"signum": 15, "userid": 1000, "script": "housekeeping", "ranks": "3"},
     "a signal was sent to its tasks, or to this script on nodes that it gives back", "userid", "script", "ranks")  # fmt: skip
_add(_job, "fluxkv", "reason", {"code": "resources", "text": "needs 4 cores", "start": 1700000000.0},
     "why it is pending; start: of one that would fit now, and keeps the time that it was told", "start")  # fmt: skip
_add(_job, "fluxkv", "lost", {"rank": 0, "cause": "new boot", "script": "prolog"},
     "an attempt on this rank, or a script around it, is known to be over", "script")  # fmt: skip

for _subject in ("job", "resource", "housekeeping", "instance", "entry"):
    _add(_subject, "fluxkv", "quarantine",
         {"version": 17, "event": "alloc", "reason": "version 17: alloc in state DEPEND", "ranks": "0"},
         "set aside: that event contradicts the state, and nothing of it has happened; ranks: nodes that it leaves in doubt",
         "ranks")  # fmt: skip

_add("resource", "RFC 44", "restart", {"ranks": "0", "online": "", "nodelist": "h"}, "instance started")
_add("resource", "RFC 44", "resource-define",
     {"method": "dynamic-discovery", "R": {"version": 1}, "edit": {"status": {"paths": ["/cluster0/rack0"], "up": False}}},
     "the inventory; edit: how its graph is made of the one that is there, where R has none", "R", "edit")  # fmt: skip
_add("resource", "RFC 44", "resource-update", {"expiration": 1700000000}, "new end of the instance's R")
_add("resource", "RFC 44", "drain", {"idset": "0", "nodelist": "h", "overwrite": 0, "reason": "bad fan"},
     "no new jobs there", "reason")  # fmt: skip
_add("resource", "RFC 44", "undrain", {"idset": "0", "nodelist": "h", "reason": "mended"}, "back", "reason")
_add("resource", "RFC 44", "online", {"idset": "0"}, "its agent has spoken in this epoch")
_add("resource", "RFC 44", "offline", {"idset": "0", "reason": "no heartbeat for 30s", "heard": 1700000000.0, "fence": 30.0},
     "its agent is gone; heard: the last time that anything was heard of it; fence: how long tasks of jobs that may begin again "
     "elsewhere live there without the store", "reason", "heard", "fence")  # fmt: skip
_add("resource", "fluxkv", "fence", {"idset": "0", "reason": "power is off", "userid": 0},
     "a person's word that nothing runs there any more; what did is lost", "reason")  # fmt: skip
_add("resource", "RFC 44", "torpid", {"idset": "0"}, "not heard from for a while")
_add("resource", "RFC 44", "lively", {"idset": "0"}, "heard again")

_add("node", "fluxkv", "join", {"host": "h", "spool": "s", "boot": "b"},
     "an agent on another host serves this node from now on; spool: the identity of its state directory")  # fmt: skip
_add("node", "fluxkv", "hello",
     {"rank": 0, "host": "h", "boot": "b", "spool": "s", "epoch": 5, "cursor": "7-5", "held": ["12.7-5"],
      "claims": {"12.7-5": [[0, "0-3", "", 0, 1], 1, 1.5]}},
     "an agent begins: an epoch, a boot, or after losing its spool; held: attempts it has; claims, after an adoption: what those "
     "that run hold here, on how many nodes they are, their start", "claims")  # fmt: skip
_add("node", "fluxkv", "fence", {"rank": 0, "attempt": "7.12-5", "cause": "the journal does not know this job"},
     "an attempt of a job that is unknown here, or over, is ended")  # fmt: skip
_add("node", "fluxkv", "report",
     {"rank": 0, "start": [[12, 7, 1.5]], "over": [[12, 7, 1.5, 2.5, 0, "", 0]], "unstarted": [[13, 8]],
      "timeout": [[12, 7, 2.0]], "script": [[12, 7, "p", 1.5, 2.5, 0, ""]], "exit": [[12, 7, 1, 256, 2.5]]},
     "facts about attempts (job, version, ...): over is t_start, t_end, status, cause, next job on the seat; exit, of the "
     "first tasks to end where the job asks for it: task rank, status, time",
     "start", "over", "unstarted", "timeout", "script", "exit")  # fmt: skip

_add("housekeeping", "fluxkv", "housekeeping-start", {"claims": [[0, "0-3", "", 0, 1]], "attempt": "7-5"},
     "begins with a job's free: what it held is looked after, and nobody else has it yet")  # fmt: skip
_add("housekeeping", "fluxkv", "housekeeping-finish", {"ranks": "0", "status": 0, "final": True},
     "these nodes are done and back in the pool; the largest wait status")  # fmt: skip
_add("housekeeping", "fluxkv", "housekeeping-kill", {"ranks": "0", "signum": 15, "userid": 1000},
     "a signal was sent to it there", "userid")  # fmt: skip
_add("housekeeping", "fluxkv", "housekeeping-lost", {"rank": 0, "cause": "new boot"}, "on this rank it is known to be over")

_add("queue", "fluxkv", "queue-start", None, "its jobs may be allocated")
_add("queue", "fluxkv", "queue-stop", {"reason": "maintenance"}, "its jobs stay pending", "reason")
_add("queue", "fluxkv", "queue-enable", None, "accepts submissions")
_add("queue", "fluxkv", "queue-disable", {"reason": "maintenance"}, "refuses submissions", "reason")

_add("cron", "fluxkv", "cron-create",
     {"name": "tidy", "type": "interval", "spec": {"interval": 60.0, "first": 1700000060.0}, "next": 1700000060.0,
      "options": {"count": 0, "no_overlap": False, "missed": "run", "stop_on_failure": 0},
      "job": {"jobspec": {"version": 1}, "env": "b2-00", "urgency": 16, "flags": 0, "userid": 1000}},
     "something to submit again and again: when, and what")  # fmt: skip
_add("cron", "fluxkv", "cron-fire", {"at": 1700000060.0, "next": 1700000120.0, "job": 7},
     "a run: the job submitted in this very commit for the time (or event's time) at; next: the time to come, 0.0 for none")
_add("cron", "fluxkv", "cron-skip", {"at": 1700000060.0, "next": 1700000120.0, "reason": "the last run still runs"},
     "what was due at this time is left out")  # fmt: skip
_add("cron", "fluxkv", "cron-stop", {"reason": "3 failures in a row"}, "runs no more until it is started again", "reason")
_add("cron", "fluxkv", "cron-start", {"next": 1700000180.0}, "runs again, first at next")
_add("cron", "fluxkv", "cron-delete", None, "gone; jobs it started go on")

_add("kvs", "fluxkv", "kvs.commit", {"ops": [["put", "a.b", b"1"]]},
     "user KVS, one step: put or append key value|[blob, size]|[\"parts\", ...]; unlink, mkdir key; link key target "
     "namespace; copy or move from-namespace from key; namespace only where it is not the primary one")  # fmt: skip
_add("kvs", "fluxkv", "kvs.namespace-create", {"namespace": "results", "owner": 1000}, "user KVS: a new namespace")
_add("kvs", "fluxkv", "kvs.namespace-remove", {"namespace": "results"}, "user KVS: a namespace goes with all it holds")

_add("instance", "fluxkv", "instance-create", {"uid": "u", "owner": 1000, "namespace": "/", "schema": 1},
     "first event of every journal")  # fmt: skip
_add("instance", "fluxkv", "config", {"config": {"queues": {"batch": {}}}, "source": "/etc/fluxkv/site.toml", "userid": 0},
     "the instance's config from now on, whole; source: the file it came from", "source", "userid")  # fmt: skip
_add("instance", "fluxkv", "instance-start", {"pid": 1, "host": "h", "schema": 3}, "brought up, by a program of this schema",
     "schema")  # fmt: skip
_add("instance", "fluxkv", "instance-stopping", None, "no new work is started from now on")
_add("instance", "fluxkv", "instance-stop", {"reason": "stop"}, "all ended in order", "reason")
_add(
    "instance",
    "fluxkv",
    "epoch",
    {"old": 1, "new": 2, "reason": "server restarted"},
    "history goes on under a new epoch",
)
_add("instance", "fluxkv", "resume", {"job": 1, "number": 1, "entry": "12-5"},
     "another job of the instance around this one goes on with it: that job, which attempt of it, the entry that began that")
_add("instance", "fluxkv", "adopt", {"old": 1, "lost": [91, 100], "known": ["100-1, of the keeper's tip file"]},
     "history goes on, under the epoch of this very entry, without what was lost: first and last version that somebody knows "
     "of, and who that is", "known")  # fmt: skip
_add("instance", "fluxkv", "lost", {"version": 7, "reason": "the payload does not match its checksum"},
     "stands in the place of an entry that could not be read when this history was salvaged")  # fmt: skip
_add("instance", "fluxkv", "retire",
     {"jobs": [1, 2], "same": {"userid": 1000}, "each": {"name": ["a", "b"]}},
     "inactive jobs leave the state; the journal keeps them: their records, as columns (see journal/retired.py)",
     "same", "each")  # fmt: skip


def check_context(subject: str, name: str, context: dict[str, Any] | None) -> None:
    """Raise `Rejected` if the context of a known event lacks a required key, or holds a value that cannot be; unknown
    events and keys pass."""
    kind = CATALOGUE.get((subject, name))
    if kind is None:
        return
    missing = [key for key in kind.required if key not in (context or {})]
    if missing:
        raise Rejected(f"event {name}: context lacks {', '.join(missing)} ({kind.source})", code="bad-event")
    check_values(subject, name, context or {})
