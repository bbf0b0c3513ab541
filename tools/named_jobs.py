"""Which jobs a command acts on: those named by id, or all that some options choose. Decides only that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..journal.ids import f58, parse_id
from ..journal.job import INACTIVE
from ..journal.job_constraint import state_mask
from ..kvs.errors import FluxkvError, Rejected
from .render import say

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.state import State

F = TypeVar("F", bound=Callable[..., Any])
MAX_LISTED = 1_000_000


def job_options(verb: str) -> Callable[[F], F]:
    """Adds ids and the options that choose jobs (the command gets `ids` and `chosen`, see `wanted`)."""

    def add(command: F) -> F:
        def with_chosen(*args: Any, **kwargs: Any) -> Any:
            names = ("everything", "user", "states", "queue", "job_name")
            chosen = {name: kwargs.pop(name) for name in names}
            return command(*args, chosen=chosen, **kwargs)

        with_chosen.__doc__, with_chosen.__name__ = command.__doc__, command.__name__
        with_chosen.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        found: Any = with_chosen
        for option in reversed((
            click.option("-a", "--all", "everything", is_flag=True, help=f"{verb} all there are (of --user)."),
            click.option("-u", "--user", metavar="USER", help="Those of this user (default: you); 'all' is everybody."),
            click.option("-S", "--states", metavar="STATE,...", help="Those in these states: pending, running, sched, ..."),
            click.option("--queue", metavar="QUEUE,...", help="Those of these queues."),
            click.option("--name", "job_name", metavar="NAME", help="Those of this name."),
        )):  # fmt: skip
            found = option(found)
        result: F = found
        return result

    return add


def names_jobs(ids: tuple[str, ...] | list[str], chosen: dict[str, Any]) -> bool:
    """Whether ids are given (True) or options choose (False). Raises click.UsageError unless it is one of them."""
    chooses = any(chosen.values())
    if chooses == bool(ids):
        none = "name jobs, or --all (those in the instance that job ƒA is: --all ƒA/)"
        raise click.UsageError("name jobs, or choose them (--all), not both" if ids else none)
    return not chooses


def choose(state: State, chosen: dict[str, Any], among: int) -> list[int]:
    """The jobs that the options choose, in order of submission. among: mask of states looked at if --states names none."""
    userid = os.getuid() if chosen["user"] is None else userid_of(chosen["user"])
    mask = _mask(chosen["states"]) if chosen["states"] else among
    queues = set(chosen["queue"].split(",")) if chosen["queue"] else None
    for queue in sorted(queues or ()):
        if queue not in state.queues and not any(job.queue == queue for job in state.active()):
            from ..journal.config import no_such_queue

            raise no_such_queue(queue, state.queues)

    def keep(job: Job) -> bool:
        return bool(
            job.state & mask
            and (userid is None or job.userid == userid)
            and (queues is None or job.queue in queues)
            and (chosen["job_name"] is None or job.name == chosen["job_name"])
        )

    return [job.id for job in sorted((job for job in state.active() if keep(job)), key=lambda job: job.order)]


def userid_of(text: str) -> int | None:
    """A user's id, by name or number; None for "all"."""
    from .reading import user_id

    return None if text == "all" else user_id(text)


def _mask(text: str) -> int:
    mask = 0
    for word in text.split(","):
        found = state_mask(word.strip().lower())
        if found is None or found & INACTIVE:
            raise click.BadParameter(
                f"{word.strip()!r} is no state of an active job (pending, running, active, depend, priority, sched, run, cleanup)",
                param_hint="'--states'",
            )
        mask |= found
    return mask


def parse_ids(texts: tuple[str, ...] | list[str]) -> list[int]:
    """Job ids in any form of RFC 19, in lists with commas and decimal ranges ("[10-12,ƒ3kQ]"), once each."""
    found: dict[int, None] = {}
    for text in texts:
        parts = [part.strip() for part in text.strip().removeprefix("[").removesuffix("]").split(",")]
        if not any(parts):
            parse_id("")  # an empty variable of a script names no job, and not none of them
        for part in parts:
            first, dash, last = part.partition("-")
            if dash and first.isdecimal() and last.isdecimal():
                low, high = parse_id(first), parse_id(last)
                if not 0 <= high - low < MAX_LISTED:
                    raise Rejected(f"bad range of job ids {part!r}", code="bad-jobid", hint="write LOW-HIGH")
                found.update(dict.fromkeys(range(low, high + 1)))
            elif part:
                found[parse_id(part)] = None
    return list(found)


def tell_refused(refused: Mapping[int, FluxkvError]) -> None:
    """Say what stood in the way of which jobs, and what to do where that is the same of all of them."""
    for id, error in refused.items():
        text = str(error)
        say(f"fluxkv: {text}" if f58(id) in text else f"fluxkv: job {f58(id)}: {text}")
    hints = {error.hint for error in refused.values()}
    if len(hints) == 1 and (hint := hints.pop()):
        from .job_paths import from_here

        say(f"  {from_here(hint)}")


def counted(count: int) -> str:
    """ "1 job", "2 jobs"."""
    from ..journal import shown

    return shown.counted(count, "job")
