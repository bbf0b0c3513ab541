"""`fluxkv top`: an instance as it goes on. Decides whether it is shown live or once; only the live view imports textual."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected, Unavailable
from .target import open_at, target_options

if TYPE_CHECKING:
    from ..journal.log import Journal
    from .toprows import Picture, Wishes

SORT_NAMES = ("default", "left", "time", "size", "user", "name")
COUNT = 40


@click.command()
@click.argument("path", required=False, metavar="[JOB|PATH]")
@click.option("-q", "--queue", metavar="QUEUE", default="", help="Only jobs of this queue.")
@click.option("--sort", metavar="KEY", type=click.Choice(SORT_NAMES), default="default",
              help="Order of running and pending jobs: default (began last; the line), left, time, size, user, name.")  # fmt: skip
@click.option("-d", "--interval", metavar="SECONDS", type=click.FloatRange(0.1, 3600.0), default=1.0, show_default=True,
              help="Between two refreshes.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print one picture and end; so it does where stdout is no terminal.")
@click.option("-c", "--count", metavar="N", type=click.IntRange(1), default=COUNT, show_default=True,
              help="Of one picture: at most N jobs.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One picture as JSON.")
@target_options
def top(path: str | None, queue: str, sort: str, interval: float, once: bool, count: int, as_json: bool, uri: str | None,
        state_dir: str | None) -> None:  # fmt: skip
    """Show an instance, or the one that a job is, as it goes on: nodes, cores, jobs, throughput. Needs the extra `top`
    (the package textual); one picture needs nothing.

    Keys are shown at the bottom: Enter goes into a job that is an instance, Esc back, Tab to nodes (drained ones first,
    with the reason) and queues, s and r change the order, / and the arrows what is shown.

    \b
    Examples:
      fluxkv top
      fluxkv top ƒ2oS1Ab                              inside an instance that is a job; ƒA/ƒB goes deeper
      fluxkv top -q batch --sort left
      fluxkv top --once | head                        one picture, as text
      fluxkv top --json | jq .throughput
    """
    from ..journal.config import no_such_queue
    from . import render
    from .toprows import Wishes

    with open_at(uri, state_dir, path=path) as (journal, address):
        if queue and queue not in (known := journal.look().queues):
            raise no_such_queue(queue, known)
        wishes = Wishes(queue=queue, sort=sort, limit=count)
        if as_json or once or not render.is_terminal():
            space = journal.store.namespace
            down = f"{state_dir}{'' if space == '/' else f'#{space}'}" if state_dir and not uri else ""  # perhaps read from a copy
            _print(journal, address, wishes, as_json=as_json, down=down)
            return
        _live(address, _opener(address, journal), wishes._replace(limit=20), interval)


def _print(journal: Journal, address: str, wishes: Wishes, *, as_json: bool, down: str) -> None:
    from ..kvs.uri import heading, public
    from . import render
    from .topfeed import one_picture
    from .toppage import Frame, snapshot

    picture = one_picture(journal, wishes)
    if as_json:
        render.print_json(document(picture, down or public(address)))
    else:
        width = render.columns() or int(os.environ.get("COLUMNS") or 120)
        render.out("\n".join(snapshot(picture, Frame(down or heading(address)), width)))


def _live(address: str, open: Callable[[], Journal], wishes: Wishes, interval: float) -> None:
    try:
        from .topview import Start, Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise Rejected(
            "the live view needs the package textual, which is not installed", code="no-textual",
            hint="pip install 'fluxkv[top]'; without it: fluxkv top --once, or watch -n1 fluxkv top --once",
        ) from None  # fmt: skip
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise Rejected("this terminal cannot show a live view (TERM)", code="dumb-terminal",
                       hint="fluxkv top --once prints one picture")  # fmt: skip
    fault = Top(Start(address, open, wishes, interval)).run()
    if fault:
        raise Unavailable(fault, code="top", hint="fluxkv status says more")


def _opener(address: str, like: Journal) -> Callable[[], Journal]:
    """What opens a journal anew, for whoever reads it in another thread. like: one of the same state directory."""
    from ..journal.log import Journal
    from ..kvs.redis_store import RedisStore, open_store

    folder = like.store.state_dir if isinstance(like.store, RedisStore) else ""

    def open() -> Journal:
        store = open_store(address, patience_s=2.0) if not address.startswith("memory:") else open_store(address)
        if isinstance(store, RedisStore) and folder:
            store.state_dir = folder
        return Journal(store, "top")

    return open


def document(picture: Picture, uri: str) -> dict[str, Any]:
    """A picture as a JSON object. Times are Unix seconds, throughput jobs a second."""
    from ..journal.ids import f58
    from .toprows import BAD, LONG_S, SHORT_S

    def shares(pair: tuple[int, int]) -> dict[str, int]:
        return {"used": pair[0], "total": pair[1]}

    jobs = [{**row._asdict(), "id": f58(row.id), "inside": bool(row.inside)} for row in picture.rows]
    return {
        "uri": uri, "version": picture.version, "time": picture.now, "started": picture.started, "stopped": picture.stopped,
        "nodes": {"total": sum(picture.nodes.values()), **picture.nodes},
        "cores": {**shares(picture.cores), "unusable": picture.lost}, "gpus": shares(picture.gpus),
        "memory_mb": shares(picture.memory_mb),
        "unusable_nodes": sum(picture.nodes.get(name, 0) for name in BAD),
        "jobs": {"pending": picture.pending, "running": picture.running, **picture.ended},
        "throughput": {f"{SHORT_S}s": picture.rates[0], f"{LONG_S}s": picture.rates[1]},
        "queues": [row._asdict() for row in picture.queues], "listed": jobs, "active": picture.total,
    }  # fmt: skip
