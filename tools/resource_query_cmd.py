"""`fluxkv resource query`: match requests against a graph of resources from a file. It needs no instance.

Options and commands are those of Flux's `resource-query`.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING, TextIO

import click

from ..kvs.errors import Rejected
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..schedulers.tree.system import System
    from ..schedulers.tree.vertices import Tree
    from .query_session import Session

LOADERS = ("grug", "jgf", "rv1exec", "hwloc")
MATCHERS = ("simple", "flexible")
POLICIES = ("first", "firstnodex", "low", "high", "lonode", "hinode", "lonodex", "hinodex", "locality", "variation")
GRAPH_FORMATS = ("dot", "graphml")
FORMATS = ("simple", "pretty_simple", "jgf", "jgf_shorthand", "rlite", "rv1", "rv1_nosched")
PROMPT = "resource-query> "


@click.command("query", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-L", "--load-file", metavar="FILE", default="", help="The graph.")
@click.option("--live", is_flag=True, help="The graph of the instance, with its jobs and reservations on it, instead of a FILE.")
@click.option("-f", "--load-format", type=click.Choice(LOADERS), default="grug", show_default=True, help="What FILE is.")
@click.option("-W", "--load-allowlist", metavar="TYPE,...", default="", help="Load only these types (hwloc).")
@click.option("-S", "--match-subsystems", metavar="CA|PA|...", default="CA", show_default=True, help="What is looked at.")
@click.option("-P", "--match-policy", type=click.Choice(POLICIES), default="first", show_default=True, help="What is taken first.")
@click.option("-F", "--match-format", type=click.Choice(FORMATS), default="simple", show_default=True, help="How it is written.")
@click.option("-T", "--traverser-policy", "traverser", type=click.Choice(MATCHERS), default="simple", help="How slots match.")
@click.option("-p", "--prune-filters", metavar="HIGH:LOW,...", help="Sums kept for pruning (default: ALL:core).")
@click.option("-t", "--test-output", type=click.Path(dir_okay=False), metavar="FILE", help="Write what was found to FILE.")
@click.option("-g", "--graph-format", type=click.Choice(GRAPH_FORMATS), default="dot", show_default=True, help="How -o writes it.")
@click.option("-o", "--graph-output", metavar="BASENAME", help="At the end write the graph to BASENAME.dot or .graphml.")
@click.option("-e", "--elapse-time", is_flag=True, help="Say how large the graph is, and on stderr how long each match took.")
@click.option("-d", "--disable-prompt", is_flag=True, help="Never show a prompt.")
@target_options
@click.option("-r", "--reserve-vtx-vec", type=click.IntRange(0), metavar="N", help="Accepted: room is made as needed.")
def query(
    load_file: str, live: bool, load_format: str, load_allowlist: str, match_subsystems: str, match_policy: str, match_format: str,
    traverser: str, prune_filters: str | None, test_output: str | None, graph_format: str, graph_output: str | None,
    elapse_time: bool, disable_prompt: bool, reserve_vtx_vec: int | None, uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Match requests against a graph of resources, in a file: what would be taken, what when, and what never.

    Commands come from standard input, or from a prompt: match, cancel, find, set-status, attach, ... ("help" lists them).
    Time stands still at 0. Nothing of an instance is changed: with --live this is its graph as it is now, to try things on.

    \b
    Examples:
      echo 'match allocate job.yaml' | fluxkv resource query -L tiny.graphml
      echo 'find status=up' | fluxkv resource query -L tiny.graphml -F jgf
      echo 'match satisfiability job.yaml' | fluxkv resource query -L tiny.graphml -P high
      echo 'match allocate_orelse_reserve job.yaml' | fluxkv resource query --live
    """
    from ..journal.ids import f58
    from ..schedulers.tree.system import System
    from .query_session import Listed, Session
    from .render import say

    began = time.monotonic()
    if live is bool(load_file):
        raise click.UsageError("name the graph: -L FILE, or --live for the instance's")
    if live:
        system = _live(uri, state_dir, match_policy, match_subsystems, _filters(prune_filters), traverser == "flexible")
    else:
        tree = load_tree(load_file, load_format, [word for word in load_allowlist.split(",") if word])
        system = System(tree, match_policy, match_subsystems, _filters(prune_filters), traverser == "flexible")
    tree = system.tree
    out = sys.stdout if test_output is None else _to_write(test_output)
    if elapse_time:
        from .query_graph import counts

        click.echo("\n".join((f"INFO: Graph Load Time: {time.monotonic() - began:g}", *counts(tree))))
    session = Session(system, match_format, out, click.echo, say, time.monotonic, timed=elapse_time)
    session.jobs.update((id, Listed(job.state, job.start, f58(id), 0.0)) for id, job in system.ledger.jobs.items())
    gc.freeze()  # the graph stays: it need not be looked through again and again while matches come and go
    try:
        if sys.stdin.isatty() and not disable_prompt:
            _prompt(session)
        else:
            for line in sys.stdin:
                if not session.run(line):
                    break
    finally:
        gc.unfreeze()
    if graph_output is not None:
        _write_graph(tree, graph_format, f"{graph_output}.{graph_format}")


def _live(
    uri: str | None, state_dir: str | None, policy: str, view: str, filters: dict[str, list[str]] | None, flexible: bool
) -> System:
    """The instance's graph. The match policy is the instance's own where none is named."""
    from ..instances.live_system import system_of
    from .reading import load

    source = click.get_current_context().get_parameter_source("match_policy")
    named = policy if source is click.core.ParameterSource.COMMANDLINE else ""
    with open_journal(uri, state_dir) as journal:
        state, now = load(journal)
    return system_of(state, now, named, view, filters, flexible)


def _write_graph(tree: Tree, form: str, path: str) -> None:
    from .query_graph import write_graph

    try:
        write_graph(tree, form, path)
    except OSError as error:
        raise click.FileError(path, str(error.strerror)) from None


def _to_write(path: str) -> TextIO:
    """Opened only when there is something to look at: a mistyped option or graph leaves a file as it was."""
    try:
        return click.get_current_context().with_resource(open(path, "w"))
    except OSError as error:
        raise click.FileError(path, str(error.strerror)) from None


def load_tree(path: str, form: str, allowed: list[str]) -> Tree:
    """The graph in a file. allowed: types to load, none for all (hwloc). Raises OSError, Rejected."""
    gc.disable()  # nothing of a graph is garbage, and looking for some takes longer than reading it
    try:
        return _loaded(path, form, allowed)
    finally:
        gc.enable()


def _loaded(path: str, form: str, allowed: list[str]) -> Tree:
    from .query_session import read, read_json

    if form == "grug":
        from ..schedulers.tree.grug import from_grug

        return from_grug(read(path))
    if form == "hwloc":
        from ..schedulers.tree.hwloc import from_hwloc

        return from_hwloc(read(path), allowed)
    if form == "jgf":
        from ..schedulers.tree.jgf import from_jgf

        return from_jgf(read_json(path))
    from ..schedulers.tree.rv1 import from_rv1

    return from_rv1(read_json(path))


def _filters(text: str | None) -> dict[str, list[str]] | None:
    if text is None:
        return None
    filters: dict[str, list[str]] = {}
    for word in text.strip().strip('"').split(","):
        high, colon, low = word.strip().partition(":")
        if not word.strip():
            continue
        if not high or not colon or not low or ":" in low:
            raise Rejected(f"bad prune filter {word!r}", code="bad-filter", hint="write it like ALL:core,rack:node")
        filters.setdefault(high, []).append(low)
    return filters


def _prompt(session: Session) -> None:
    """Ask for lines on the terminal, with history and completion of commands and files."""
    import readline

    def complete(text: str, state: int) -> str | None:
        before = readline.get_line_buffer()[: readline.get_begidx()].split()
        found = completions(before, text)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
    while True:
        try:
            line = input(PROMPT)
        except KeyboardInterrupt:
            click.echo()
            continue
        except EOFError:
            click.echo()
            return
        if not session.run(line):
            return


def completions(before: list[str], text: str) -> list[str]:
    """What the word `text` may become after those before it: commands, operations, readers, else files."""
    import glob
    import os

    from .query_session import COMMANDS, MATCH_OPS, READERS

    if not before:
        words: tuple[str, ...] = (*COMMANDS, "quit")
    elif before[-1] in ("match", "multi-match"):
        words = MATCH_OPS
    elif before[0] == "update" and len(before) == 1:
        words = ("allocate", "reserve")
    elif before[0] in ("update", "partial-cancel") and len(before) == 2:
        words = READERS
    else:
        paths = sorted(glob.glob(glob.escape(text) + "*"))
        return [path + ("/" if os.path.isdir(path) else " ") for path in paths]
    return sorted(f"{word} " for word in words if word.startswith(text))
