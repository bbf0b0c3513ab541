"""`fluxkv resize`: more nodes for a job that runs, or fewer. Decides what is said; rules are `journal.decide_resize`'s."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..journal.event_check import WAYS
from ..journal.ids import f58, parse_id
from ..kvs.errors import Unavailable
from .job_paths import outwards
from .reading import uri_option
from .render import say
from .target import open_journal

if TYPE_CHECKING:
    from ..instances.resize_client import Resizing, Size

SOON_S = 1.0  # how long a command that does not wait looks whether it is done at once
AT_ONCE_S = 30.0  # and one with --no-wait for the word of whoever plans


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[ID] +NN|-NN|=NN", type=click.UNPROCESSED)
@click.option("--jobs", type=click.Choice(WAYS), default="finish", show_default=True,
              help="Of jobs on nodes that leave an instance: let them end within the grace (then: requeue), requeue or fail them.")
@click.option("--grace", default="1m", show_default=True, metavar="FSD", help="How long an instance has to give them back.")
@click.option("--nodes", metavar="NODES", help="These leave (default: idle ones, then the last).")
@click.option("--wait", "-w", is_flag=True, help="Return when it has the nodes, or has given them back.")
@click.option("--no-wait", is_flag=True, help="More nodes now, or not at all.")
@click.option("-m", "--message", metavar="NOTE", default="", help="Why nodes are asked back; it stays in the job's story.")
@uri_option
def resize(
    words: tuple[str, ...], jobs: str, grace: str, nodes: str | None, wait: bool, no_wait: bool, message: str, uri: str | None
) -> int:
    """Give a job that runs more nodes, or take some back: +2N, -1N, or =4N in all.

    An instance (batch, alloc) uses more nodes as soon as they are there. They are planned like a new job of its queue: it waits
    for them in line, within the queue's limits. Nodes that it is to give back get no new jobs; what runs there ends as --jobs
    says, at the end of the grace in any case; what has not gone by then is ended. Of another job the tasks on these nodes are
    ended. The first node of a job stays. Without an ID it is the instance itself that asks, in the one around it.

    \b
    Examples:
      fluxkv resize ƒ3kQ +2N
      fluxkv resize --no-wait ƒ3kQ =4N
      fluxkv resize ƒ3kQ -1N --jobs=requeue --grace=30s
      fluxkv resize -w ƒ3kQ -1N --nodes=node1
    """
    from ..instances.paths import find_uri
    from ..instances.resize_client import Resizing, ourselves, terms_of
    from ..journal.decide_resize import parse_resize

    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            raise click.NoSuchOption(word)
    if not words or len(words) > 2:
        raise click.UsageError("say what is to change: fluxkv resize [ID] +2N, -1N or =4N")
    asked, terms = parse_resize(words[-1]), terms_of(grace, jobs, message)
    uri = find_uri(uri)
    ours = len(words) == 1
    if ours:
        uri, id = ourselves(uri)
        outwards()
    else:
        id = parse_id(words[0])
    with open_journal(uri) as journal:
        resizing = Resizing(journal, uri, id, inside=ours).ask(asked, terms, nodes or "", at_once=no_wait)
        return _tell(resizing, wait=wait)


def _tell(resizing: Resizing, *, wait: bool) -> int:
    """Say what has come of it, after a look for as long as is to be waited."""
    from ..journal.decide_resize import several

    name = f58(resizing.id)
    if not resizing.changed:
        size = resizing.known()
        say(f"fluxkv: {name} is as asked already: {_has(size)}")
        if not wait:
            return 0
    deadline = None if wait else time.monotonic() + (AT_ONCE_S if resizing.at_once else SOON_S)
    if resizing.follow(deadline, used=wait):
        say(f"fluxkv: {name} has {_has(resizing.told())}")
        return 0
    size = resizing.known()
    if size.more:
        if resizing.at_once:
            raise Unavailable(f"job {name}: nobody who plans has answered", code="timeout",
                              hint="fluxkv status; what was asked for stands, and another resize takes it back")  # fmt: skip
        say(f"fluxkv: {name} waits for {several(size.more)} more{f': {size.reason}' if size.reason else ''}")
    if size.leaving:
        say(f"fluxkv: {name} is to give back {_hosts(size, size.leaving)}, within {_left(resizing, size)}")
    return 0


def _has(size: Size) -> str:
    from ..journal.decide_resize import several

    return f"{several(size.nodes)} ({_hosts(size, size.ranks)})"


def _hosts(size: Size, ranks: tuple[int, ...]) -> str:
    from ..journal.hostlist import compress

    return compress([host for rank, host in sorted(zip(size.ranks, size.hosts, strict=True)) if rank in ranks])


def _left(resizing: Resizing, size: Size) -> str:
    from .formats import fsd

    return fsd(max(0.0, round(size.until - resizing.journal.store.now(), 1)))
