"""`fluxkv config`: an instance's config, read from the journal and changed by an event in it, and the user's own settings.

Decides how values are shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected, Unavailable
from .lazy_group import SuggestingGroup
from .reading import at_option, load, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.decide import Decision
    from ..journal.state import State

TYPES = ("string", "integer", "real", "boolean", "object", "array", "fsd", "fsd-integer", "fsd-real")
ADDRESSES = ("uri", "start.redis")  # which may have a password in them
_MISSING = object()


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def config() -> None:
    """Read and change the instance's config.

    \b
    Examples:
      fluxkv config get
      fluxkv config get policy.limits.duration
      fluxkv config load site.toml         from now on, for everybody
      fluxkv config reload                 the file it came from, again
      fluxkv config show                   your own settings, and where each comes from
    """


@config.command("get")
@click.argument("key", required=False)
@click.option("-d", "--default", "default", metavar="VALUE", help="Print this if the key is not set.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit status says whether it is set.")
@click.option("-t", "--type", "kind", type=click.Choice(TYPES), help="What the value has to be; texts come without quotes.")
@at_option
@target_options
def get(
    key: str | None, default: str | None, quiet: bool, kind: str | None, at: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Print the config, or the value at KEY (words joined by dots), as JSON.

    \b
    Examples:
      fluxkv config get
      fluxkv config get queues.debug
      fluxkv config get --type=fsd-real --default=0 policy.limits.duration
    """
    import json

    from .render import out

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    value = _look_up(state.config, key)
    if value is _MISSING:
        if default is not None:
            if not quiet:
                out(default)
            return
        if quiet:
            raise click.exceptions.Exit(1)
        raise Rejected(f"config: {key} is not set", code="not-set", hint="fluxkv config get prints all of it")
    text = json.dumps(value, ensure_ascii=False) if kind is None else _typed(key or "the config", value, kind)
    if not quiet:
        out(text)


def _look_up(document: dict[str, Any], key: str | None) -> Any:
    value: Any = document
    for word in key.split(".") if key else ():
        if not isinstance(value, dict) or word not in value:
            return _MISSING
        value = value[word]
    return value


def _typed(key: str, value: Any, kind: str) -> str:
    """A value as text, if it is of this kind."""
    import json

    if kind.startswith("fsd"):
        from ..journal.duration import parse_duration

        seconds = parse_duration(value)
        return str(value) if kind == "fsd" else str(int(seconds)) if kind == "fsd-integer" else str(seconds)
    kinds = {"string": str, "integer": int, "real": int | float, "boolean": bool, "object": dict, "array": list}
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise Rejected(f"config: {key} is no {kind}", code="wrong-type")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@config.command("show")
@click.argument("key", required=False)
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def show(key: str | None, no_header: bool, as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """List every setting of the command line and of the instance, its value, and where that came from.

    Yours are read from /etc/fluxkv/config.toml, ~/.config/fluxkv/config.toml and variables FLUXKV_..., the later one winning;
    an option wins over all. The instance's config is shown if there is one to ask.

    \b
    Examples:
      fluxkv config show
      fluxkv config show submit
    """
    from ..instances.user_settings import SETTINGS, everything, variable_of
    from ..kvs.uri import public
    from . import render

    rows = [(name, public(str(found.value)) if name in ADDRESSES else found.value, found.source)
            for name, found in everything().items()]  # fmt: skip
    rows += _of_instance(uri, state_dir)
    if key:
        rows = [row for row in rows if row[0] == key or row[0].startswith(f"{key}.")]
        if not rows:
            raise Rejected(f"config: no setting is called {key}", code="not-set", hint="fluxkv config show lists them")
    if as_json:
        meanings = {name: {"meaning": one.meaning, "variable": variable_of(name)} for name, one in SETTINGS.items()}
        render.print_json({"settings": [
            {"name": name, "value": value, "source": source, **meanings.get(name, {})} for name, value, source in rows
        ]})  # fmt: skip
        return
    shown = [(name, value if isinstance(value, str) else _json(value), source) for name, value, source in rows]
    render.table([] if no_header else ["SETTING", "VALUE", "SOURCE"], shown)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _of_instance(uri: str | None, state_dir: str | None) -> list[tuple[str, Any, str]]:
    """The instance's config by its leaves; none if no instance is there and none was asked for."""
    try:
        with open_journal(uri, state_dir) as journal:
            state = journal.look()
    except (Rejected, Unavailable):
        if uri or state_dir:
            raise
        return []
    source = f"instance, {state.config_source or 'from options'}"
    return [(name, value, source) for name, value in _leaves(state.config, "")]


def _leaves(table: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


@config.command("load")
@click.argument("file", type=click.Path())
@click.option("--conf", multiple=True, metavar="KEY=VALUE", help="Set one key on top of the file.")
@click.option("-n", "--dry-run", is_flag=True, help="Only check it.")
@uri_option
def load_file(file: str, conf: tuple[str, ...], dry_run: bool, uri: str | None) -> None:
    """Give the instance the config in FILE (TOML), in place of the one it has.

    It is checked first, and journalled whole. Inventory ([resource]) is not changed by this.

    \b
    Examples:
      fluxkv config load site.toml
      fluxkv config load --dry-run site.toml
    """
    from ..instances.config_file import read_document

    _load(read_document(file, conf), os.path.abspath(file), dry_run, uri)


@config.command("reload")
@click.option("-n", "--dry-run", is_flag=True, help="Only check it.")
@uri_option
def reload(dry_run: bool, uri: str | None) -> None:
    """Read the file again that the instance's config came from.

    \b
    Examples:
      fluxkv config reload
    """
    from ..instances.config_file import read_document

    with open_journal(uri) as journal:
        source = journal.look().config_source
    if not source:
        raise Rejected("the instance's config came from no file", code="no-config", hint="fluxkv config load FILE")
    _load(read_document(source), source, dry_run, uri)


def _load(document: dict[str, Any], source: str, dry_run: bool, uri: str | None) -> None:
    from ..instances.config_file import named
    from ..journal import decide_config
    from .render import say

    changed = False
    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> Decision:
            nonlocal changed
            try:
                made = decide_config.load(state, document, source, os.getuid(), now)
            except Rejected as error:
                raise named(error, source) from None
            changed = bool(made.events)
            return made

        state = journal.look()
        if dry_run:
            decision(state)
        else:
            journal.settle(decision, state)
            journal.catch_up(state)
    if not changed:
        say(f"fluxkv: {source} is what the instance has already")
    elif dry_run:
        say(f"fluxkv: {source} is valid")
    for queue, jobs in decide_config.left_behind(state, document).items():
        say(f"fluxkv: {jobs} job{'' if jobs == 1 else 's'} in queue {queue}, which this config does not have: "
            f"they wait until fluxkv update queue=NAME moves them")  # fmt: skip
