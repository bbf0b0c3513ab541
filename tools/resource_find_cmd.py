"""`fluxkv resource find`: what of an instance's resources answers an expression, by the grammar of `resource query`. Reads only."""

from __future__ import annotations

import click

from .reading import at_option, load
from .resource_query_cmd import FORMATS
from .target import open_journal, target_options


@click.command("find")
@click.argument("words", metavar="EXPRESSION...", nargs=-1, required=True)
@click.option("-F", "--format", "form", type=click.Choice((*FORMATS, "paths")), default="paths", show_default=True,
              help="Paths of what was found, or a format of resource query.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; the exit status says whether something was found.")
@at_option
@target_options
def find(words: tuple[str, ...], form: str, quiet: bool, at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Find what of the graph of resources answers EXPRESSION: nodes, cores, racks, power, ...

    Terms are status=up|down, sched-now=allocated|free, sched-future=reserved|free, jobid-alloc=ID (it runs there),
    jobid-reserved=ID (it will), jobid-tag=ID (it is there or passes through), names=HOSTS and property=NAME, joined by and, or,
    not and parentheses. What is drained or offline is down. The exit status is 1 if nothing is found.

    \b
    Examples:
      fluxkv resource find status=up and sched-now=free
      fluxkv resource find -F rlite 'status=up and not property=gpu'
      fluxkv resource find 'names=node[0-3]' 'status=down or sched-now=free' --at 10:30
    """
    import sys

    from ..instances.live_system import numbered, system_of
    from ..schedulers.tree import finding
    from ..schedulers.tree.writers import write
    from .render import out

    text = numbered(" ".join(words))
    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
    system = system_of(state, now, reserved="sched-future" in text or "jobid-reserved" in text or "jobid-tag" in text)
    if form == "paths":
        test = finding.parse(system, text)
        lines = [vertex.path(system.subsystem) for vertex in system.tree.vertices if test(vertex)]
        found, written = bool(lines), "\n".join(lines) + "\n"
    else:
        selection = finding.find(system, text)
        found = selection is not None
        written = write(form, selection, system.subsystems, 0, 0, None) if selection is not None else ""
    if not quiet and found:
        out(written, end="")
    if not found:
        sys.exit(1)
