"""What an ensemble's own job and its children run: `fluxkv ensemble lead` and `feed`. Not for people; they decide nothing."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from ..journal.ensemble import Request, decode
from ..kvs.errors import Rejected


def _inside(path: str) -> tuple[Any, int, int, Request]:
    """(This job's instance, which job of the one around it that is, which attempt, the request)."""
    from ..journal.ids import parse_id
    from .submit_cmd import connected

    job, attempt = os.environ.get("FLUX_ENCLOSING_ID", ""), os.environ.get("FLUX_JOB_ATTEMPT", "1")
    if not job or not attempt.isdecimal():
        raise Rejected("this runs inside an ensemble only", code="no-parent", hint="fluxkv ensemble submit makes one")
    with open(path, "rb") as file:
        request = decode(file.read())
    instance = connected(None)
    instance.by = "ensemble"
    return instance, parse_id(job), int(attempt), request


@click.command(hidden=True)
@click.argument("path", type=click.Path())
def lead(path: str) -> int:
    """The ensemble's own program."""
    from ..instances import ensemble_lead

    here, job, attempt, request = _inside(path)
    with here:
        return ensemble_lead.lead(here, job, attempt, request, request.env)


@click.command(hidden=True)
@click.argument("path", type=click.Path())
def feed(path: str) -> int:
    """A child's program."""
    from ..instances.client import connect
    from ..instances.ensemble_feed import Feeder, Stopped, keep_blobs, slots_of
    from ..instances.ensemble_record import Record
    from ..instances.frame_room import with_room
    from ..instances.whereabouts import parent_of
    from .ensemble_request import cutter

    told = _listen()
    here, me, attempt, request = _inside(path)
    above = parent_of(here.uri)
    with here, connect(above) as ensemble:
        ensemble.by = "ensemble"
        record = Record(ensemble.kvs)
        keep_blobs(here, request.blobs)
        feeder = Feeder(
            here, record, request, cutter(request), me=me, attempt=attempt, outer=_attempt_of(above), slots=slots_of(here, request),
            is_told_to_end=lambda: bool(told),
        )  # fmt: skip
        try:
            if attempt > 1:
                _resume(feeder, record, ensemble, me, attempt, request, _attempt_of(above))
            with_room(feeder.run)
        except Stopped:
            sys.stderr.write("fluxkv: the child was told to end before its members had\n")
            return 128 + (told[0] if told else signal.SIGTERM)
    return 0


def _listen() -> list[int]:
    """What will hold the signals that are to end us. They are blocked where `start` runs us in its own process, which hears them,
    too."""
    told: list[int] = []

    def hear(signum: int, frame: Any) -> None:
        told.append(signum)
        if callable(around := before.get(signum)):
            around(signum, frame)

    signums = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before: dict[int, Any] = {signum: signal.getsignal(signum) for signum in signums[:2]}
    for signum in signums:
        signal.signal(signum, hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signums)
    return told


def _attempt_of(uri: str) -> int:
    """Which attempt of its job the instance at a URI is."""
    from ..instances.job_path import parse_step
    from ..kvs.uri import parse_uri

    return parse_step(parse_uri(uri).namespace.rstrip("/").rpartition("/")[2]).number or 1


def _resume(feeder: Any, record: Any, ensemble: Any, me: int, attempt: int, request: Request, outer: int) -> None:
    """What earlier attempts of this child have come to."""
    from ..instances import left_spool
    from ..instances.ensemble_salvage import Salvage, say_given_up
    from ..journal.ensemble import Count, Indices

    indices = Indices(request.ranges)
    done = record.finished(len(indices))
    told = record.counts().get(me, Count())
    there = Salvage(indices, done, say_given_up, waits=feeder.look_up, roots=left_spool.roots(ensemble.uri))
    feeder.resume(done, there.of_child(ensemble.store, me, range(1, attempt), outer), told)
