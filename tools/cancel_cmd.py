"""`fluxkv cancel`: ends active jobs. Decides which jobs are meant; the rest is `journal.decide`'s."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58, parse_id
from ..kvs.errors import Rejected
from .render import out, say

if TYPE_CHECKING:
    from ..journal.state import State

MAX_LISTED = 1_000_000


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("-a", "--all", "everyone", is_flag=True, help="All active jobs (of --user).")
@click.option(
    "-u", "--user", metavar="USER", help="Jobs of this user (default with --all: you; 'all' is everybody)."
)
@click.option("-m", "--message", metavar="NOTE", default="", help="Why; it stays in the job's record.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say which jobs would be cancelled.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def cancel(
    ids: tuple[str, ...],
    everyone: bool,
    user: str | None,
    message: str,
    dry_run: bool,
    quiet: bool,
    uri: str | None,
) -> int:
    """Cancel jobs.

    \b
    Examples:
      fluxkv cancel ƒ3kQ ƒ3kR
      fluxkv cancel -m "wrong input" f3kQ,f3kR
      fluxkv cancel --all
      fluxkv cancel --all --user=all --dry-run
    """
    from ..instances.client import connect

    everyone = everyone or user is not None
    if everyone == bool(ids):
        raise click.UsageError("name jobs, or --all, not both" if ids else "name jobs, or --all")
    with connect(uri) as instance:
        instance.by = "cli"
        state = instance.state()
        refused = 0
        if everyone:
            wanted = _of_user(state, os.getuid() if user is None else _userid(user))
        else:
            wanted = []
            for id in parse_ids(ids):
                why = _why_not(instance, state, id)
                if why:
                    say(f"fluxkv: job {f58(id)}: {why}")
                    refused += 1
                else:
                    wanted.append(id)
        if dry_run:
            for id in wanted:
                out(f58(id))
            if not quiet:
                say(f"fluxkv: would cancel {_jobs(len(wanted))}")
            return int(refused > 0)
        done = instance.cancel(wanted, message)
        if not quiet and everyone:
            say(f"fluxkv: cancelled {_jobs(len(done))}")
        return int(refused > 0)


def parse_ids(texts: tuple[str, ...] | list[str]) -> list[int]:
    """Job ids in any form of RFC 19, in lists with commas and decimal ranges ("[10-12,ƒ3kQ]"), once each."""
    found: dict[int, None] = {}
    for text in texts:
        for part in text.strip().removeprefix("[").removesuffix("]").split(","):
            first, dash, last = part.strip().partition("-")
            if dash and first.isdecimal() and last.isdecimal():
                low, high = parse_id(first), parse_id(last)
                if not 0 <= high - low < MAX_LISTED:
                    raise Rejected(f"bad range of job ids {part!r}", code="bad-jobid", hint="write LOW-HIGH")
                found.update(dict.fromkeys(range(low, high + 1)))
            elif part.strip():
                found[parse_id(part.strip())] = None
    return list(found)


def _why_not(instance: Any, state: State, id: int) -> str:
    from ..journal.job import INACTIVE

    job = instance.journal.find_jobs(state, [id]).get(id)
    if job is None:
        return "no such job"
    return "is inactive and can not be cancelled" if job.state == INACTIVE else ""


def _of_user(state: State, userid: int | None) -> list[int]:
    from ..journal.decide import active_ids

    return [id for id in active_ids(state) if userid is None or state.jobs[id].userid == userid]


def _userid(text: str) -> int | None:
    if text == "all":
        return None
    if text.isdecimal():
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise click.BadParameter(f"no such user: {text}", param_hint="'--user'") from None


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
