"""`fluxkv resource show`: the graph of resources, in few lines or as a picture. Groups are made in `schedulers.tree.overview`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..journal.shown import counted
from ..kvs.errors import Rejected
from .reading import at_option
from .target import target_options

if TYPE_CHECKING:
    from ..schedulers.tree.overview import Group, Part, Tally
    from ..schedulers.tree.vertices import Tree

LOADERS = ("grug", "jgf", "rv1exec", "hwloc")
WIDTH = 80
_COLOURS = {
    "free": "32", "allocated": "34", "mixed": "36", "drained": "33", "draining": "33", "offline": "31", "down": "31",
}  # fmt: skip


@click.command("show")
@click.option("--tree", "as_tree", is_flag=True, help="As lines (what is done anyway).")
@click.option("--svg", metavar="FILE", help='As a picture, into FILE ("-": standard output).')
@click.option("--json", "as_json", is_flag=True, help="As JSON: groups in groups.")
@click.option("-L", "--levels", "depth", metavar="DEPTH", type=click.IntRange(0), help="No more levels than these below the first.")
@click.option("--path", metavar="PATH", help="Only what is at and below a vertex: /cluster0/rack3.")
@click.option("--subsystem", metavar="NAME", default="containment", show_default=True, help="Which tree of the graph: power, ...")
@click.option("--file", "path_of_graph", metavar="FILE", help="The graph in FILE instead of an instance's resources.")
@click.option("-f", "--load-format", type=click.Choice(LOADERS), help="What FILE is (else it is looked at).")
@at_option
@target_options
def show(
    as_tree: bool, svg: str | None, as_json: bool, depth: int | None, path: str | None, subsystem: str,
    path_of_graph: str | None, load_format: str | None, at: str | None, uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Show the graph of resources, and what of it is in use, drained or offline. What looks alike is one line, however
    many there are; "mixed" is what is in use in part.

    \b
    Examples:
      fluxkv resource show                          all of it, in few lines
      fluxkv resource show -L 1                     one level below the cluster
      fluxkv resource show --path /cluster0/node3   one node
      fluxkv resource show --svg nodes.svg          a picture
      fluxkv resource show --file tiny.graphml      a graph in a file
    """
    from ..schedulers.tree import overview

    if as_tree + as_json + bool(svg) > 1:
        raise click.UsageError("--tree, --svg and --json: one of them")
    if load_format and not path_of_graph:
        raise click.UsageError("-f says what --file is: name one")
    if path_of_graph:
        if at or uri or state_dir:
            raise click.UsageError("--file needs no instance: leave out --at, --uri and --state-dir")
        part, when = overview.of_tree(load_graph(path_of_graph, load_format), subsystem), path_of_graph
    else:
        part, when = _of_instance(uri, state_dir, at, subsystem)
    group = overview.summary(overview.at(part, path) if path else part)
    if as_json:
        from .render import print_json

        print_json(overview.document(group, depth))
    elif svg:
        from .render import write
        from .resource_svg import picture

        write(svg, picture(group, when, depth))
    else:
        _print(group, depth)


def _of_instance(uri: str | None, state_dir: str | None, at: str | None, subsystem: str) -> tuple[Part, str]:
    """Its resources, and what a picture says of the moment."""
    from ..schedulers.tree import overview
    from .reading import load
    from .render import human_time
    from .target import open_journal

    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
    when = f"{human_time(now)}, version {state.version}"
    if state.graph is not None:
        from ..instances.graph_use import use_of
        from ..schedulers.tree.record import to_tree

        return overview.of_tree(to_tree(state.graph), subsystem, *use_of(state, state.graph)), when
    if subsystem != "containment":
        raise Rejected(
            f"this instance's resources have no subsystem {subsystem[:40]!r}", code="bad-subsystem", hint="it has containment"
        )
    if not state.nodes:
        raise Rejected("there are no resources yet", code="no-such-node", hint="fluxkv resource status; or a later --at")
    part = overview.of_inventory([state.nodes[rank] for rank in sorted(state.nodes)])
    return part, when


def load_graph(path: str, form: str | None) -> Tree:
    """The graph in a file; without a form, what the file looks like. Raises OSError, Rejected."""
    from ..instances.resource_files import RV1, form_of
    from .query_session import read
    from .resource_query_cmd import load_tree

    if form is None:
        try:
            found = form_of(read(path))
        except Rejected as error:
            raise Rejected(f"{path}: {error}", code=error.code, hint=error.hint) from None
        form = "rv1exec" if found == RV1 else found
    return load_tree(path, form, [])


# --- lines


def _print(group: Group, depth: int | None) -> None:
    from .render import coloured, columns, out

    plain = "utf" not in (sys.stdout.encoding or "").lower()
    for line in lines(group, depth, columns() or WIDTH, coloured(), plain):
        out(line)


def lines(group: Group, depth: int | None, width: int, colour: bool = False, plain: bool = False) -> list[str]:
    """A line for each group. plain: branches of ASCII."""
    tee, corner, pipe, blank = ("|- ", "`- ", "|  ", "   ") if plain else ("├─ ", "└─ ", "│  ", "   ")
    found: list[str] = []

    def put(one: Group, first: str, rest: str, left: int | None) -> None:
        found.append(first + _line(one, width - len(first), colour, plain))
        children = one.children if left != 0 else []
        for child in children:
            last = child is children[-1]
            put(child, rest + (corner if last else tee), rest + (blank if last else pipe), left - 1 if left else None)

    put(group, "", "", depth)
    return found


def _line(group: Group, room: int, colour: bool, plain: bool) -> str:
    told = detail(group)
    count = f" ({group.own.count:,})" if group.own.count > 1 else ""
    rest = f"{count} {group.state}" + (f": {told}" if told else "")
    name = shortened(group.name, max(20, room - len(rest)), "..." if plain else "…")
    tail = f": {told}" if told else ""
    left = room - len(name) - len(count) - len(group.state) - 1
    if len(tail) > left:
        tail = shortened(tail, max(left, 0), "..." if plain else "…")
    if not colour:
        return f"{name}{count} {group.state}{tail}"
    return f"{name}{count} \x1b[{_COLOURS[group.state]}m{group.state}\x1b[0m{tail}"


def shortened(text: str, most: int, dots: str = "…") -> str:
    """A text, or its beginning with dots; a bracket that was open is closed."""
    if len(text) <= most:
        return text
    cut = text[: max(0, most - len(dots))]
    if cut.rfind("[") <= cut.rfind("]"):
        return cut + dots
    return cut[:-1] + dots + ("]" if "[" in cut[:-1] else "")


def detail(group: Group) -> str:
    """What is at and below a group: its nodes, or else its leaves, and how many are busy or out of use."""
    own = group.own
    nodes = group.tallies.get("node")
    if nodes is not None and group.kind != "node":
        told = [counted(nodes.count, "node"), *_parts_of(nodes, nodes.count)]
        return ", ".join(told)
    if own.leaf:
        if own.size == own.count and not own.unit:
            return ""
        unit = f" {own.unit}" if own.unit else ""
        return f"{own.held:,} of {own.size:,}{unit} busy" if 0 < own.held < own.size else f"{own.size:,}{unit}"
    told = [_leaves(kind, one) for kind, one in group.tallies.items() if one.leaf and kind != group.kind]
    return ", ".join([*told, *_jobs(group)])


def _jobs(group: Group) -> list[str]:
    from ..journal.ids import f58

    if not group.jobs:
        return []
    return [" ".join(f58(job) for job in sorted(group.jobs)) if len(group.jobs) < 3 else f"{len(group.jobs):,} jobs"]


def _leaves(kind: str, tally: Tally) -> str:
    pool = tally.unit or tally.size != tally.count
    text = f"{tally.size:,} {tally.unit} {kind}".replace("  ", " ") if pool else counted(tally.count, kind)
    return f"{text} ({tally.held:,} busy)" if 0 < tally.held < tally.size else text


def _parts_of(tally: Tally, whole: int) -> list[str]:
    """What is out of the ordinary among nodes."""
    busy = sum(tally.by_state.get(state, 0) for state in ("mixed", "allocated"))
    told = [f"{busy:,} busy"] if busy else []
    return told + [f"{n:,} {state}" for state, n in tally.by_state.items() if state in ("draining", "drained", "offline", "down")]
