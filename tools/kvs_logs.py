"""`fluxkv kvs eventlog`: logs of events (RFC 18) kept as values."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..kvs.errors import Rejected
from .kvs_shared import SETTINGS, key_of, namespace_option, open_kvs, seconds, timeout_option
from .lazy_group import SuggestingGroup
from .reading import uri_option
from .target import target_options


@click.group("eventlog", cls=SuggestingGroup, context_settings=SETTINGS)
def eventlog() -> None:
    """Append to a log of events, read it, wait for an event.

    \b
    Examples:
      fluxkv kvs eventlog append run.log begun step=1
      fluxkv kvs eventlog get run.log
      fluxkv kvs eventlog wait-event -t 5s run.log begun
    """


@eventlog.command("append")
@click.argument("key")
@click.argument("name")
@click.argument("context", nargs=-1, metavar="[KEY=VALUE...|JSON]")
@click.option("--timestamp", type=float, metavar="SECONDS", help="Unix seconds (default: now).")
@namespace_option
@uri_option
def append(
    key: str, name: str, context: tuple[str, ...], timestamp: float | None, namespace: str, uri: str | None
) -> None:
    """Append an event. Values are JSON where they can be, else text.

    \b
    Examples:
      fluxkv kvs eventlog append run.log begun step=1 host=node0
      fluxkv kvs eventlog append run.log note '{"text": "all is well"}'
    """
    with open_kvs(uri, None, namespace) as store:
        store.append_event(key_of(key), name, _context(context), timestamp)


def _context(words: tuple[str, ...]) -> dict[str, Any]:
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _object(words[0])
    found: dict[str, Any] = {}
    for word in words:
        name, mark, text = word.partition("=")
        if not mark or not name:
            raise Rejected(f"{word!r} is not KEY=VALUE", code="bad-context", hint="write step=1, or one JSON object")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"the context is not JSON: {error}", code="bad-context") from None
    if not isinstance(value, dict):
        raise Rejected("the context is not an object", code="bad-context")
    return value


_unformatted = click.option("-u", "--unformatted", is_flag=True, help="As it is stored: a JSON object a line.")
_human = click.option("-H", "--human", is_flag=True, help="Times as dmesg -H shows them.")


def _lines(unformatted: bool, human: bool) -> Any:
    from .eventlines import EventLines

    return EventLines("json" if unformatted else "text", "human" if human else "raw")


@eventlog.command("get")
@click.argument("key")
@click.option("-w", "--watch", is_flag=True, help="Then print events as they are appended.")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@_unformatted
@_human
@timeout_option
@namespace_option
@target_options
def get(
    key: str, watch: bool, count: int | None, unformatted: bool, human: bool, timeout: str | None, namespace: str,
    uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Print the events of a log.

    \b
    Examples:
      fluxkv kvs eventlog get run.log
      fluxkv kvs eventlog get --watch -c 1 run.log
    """
    from . import render

    if watch and state_dir and not uri:
        raise click.UsageError("nothing changes in a --state-dir: watch the running instance")
    lines = _lines(unformatted, human)
    seen = 0
    with open_kvs(uri, state_dir, namespace) as store:
        for event in store.events(key_of(key), follow=watch, timeout=seconds(timeout)):
            render.out(lines.of(event))
            sys.stdout.flush()
            seen += 1
            if seen == count:
                return


@eventlog.command("wait-event")
@click.argument("key")
@click.argument("name")
@click.option("-c", "--count", default=1, type=click.IntRange(1), metavar="N", help="Wait for the Nth.")
@click.option("-m", "--match-context", metavar="KEY=VAL", help="Only one whose context has this.")
@click.option("-v", "--verbose", is_flag=True, help="Show the events before it, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing.")
@_unformatted
@_human
@timeout_option
@namespace_option
@uri_option
def wait_event(
    key: str, name: str, count: int, match_context: str | None, verbose: bool, quiet: bool, unformatted: bool, human: bool,
    timeout: str | None, namespace: str, uri: str | None,
) -> None:  # fmt: skip
    """Wait until a log holds an event, and print it. The log need not be there yet.

    \b
    Examples:
      fluxkv kvs eventlog wait-event -t 5s run.log begun
    """
    from . import render
    from .eventlines import matches

    lines = _lines(unformatted, human)
    with open_kvs(uri, None, namespace) as store:
        for event in store.events(key_of(key), follow=True, timeout=seconds(timeout)):
            hit = event.name == name and matches(event.context, match_context)
            count -= hit
            line = lines.of(event)
            if not quiet and (verbose or (hit and not count)):
                render.out(line)
                sys.stdout.flush()
            if hit and not count:
                return
