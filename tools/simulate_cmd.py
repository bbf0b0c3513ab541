"""`fluxkv simulate`: what would have become of a workload under other policies, on other resources. Changes nothing.

The simulation is `schedulers.whatif`; here is what it is given, and what is shown of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import click

from ..kvs.errors import FluxkvError, Rejected
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.state import State
    from ..schedulers.figures import Figures
    from ..schedulers.resources import Pool
    from ..schedulers.workload import Begun, Work, Workload
    from .simulate_inputs import Choice

FORMS = ("grug", "jgf", "rv1exec", "hwloc")
RECORDED = "recorded"
SLOW = 2_000  # jobs from which on progress is shown


class Outcome(NamedTuple):
    """What became of the workload under one policy."""

    name: str
    begun: list[Begun]
    figures: Figures


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--policy", "policies", metavar="NAME[:KEY=VALUE,...]", multiple=True,
              help="A queue policy; several are compared (default: as the instance's queues are configured, else easy).")
@click.option("--queue-depth", metavar="N", type=click.IntRange(1), help="Jobs that a plan looks at, of all policies.")
@click.option("--reservation-depth", metavar="N", type=click.IntRange(1), help="Reservations in a plan, of policies that have it.")
@click.option("--match-policy", metavar="NAME", help="Which of the resources that would do are taken: first, low, high, ...")
@click.option("--traverser", type=click.Choice(["simple", "flexible"]), help="flexible: slots side by side may be mixed.")
@click.option("--since", metavar="VERSION|TIME", help="Only jobs that were there then, or came later.")
@click.option("--until", metavar="VERSION|TIME", help="Read the journal up to there.")
@click.option("--resources", metavar="FILE", help="On these: a graph or an inventory (GRUG, JGF, R, hwloc).")
@click.option("-f", "--load-format", type=click.Choice(FORMS), help="What --resources is (else it is looked at).")
@click.option("-N", "--nodes", metavar="N", type=click.IntRange(1, 1 << 17), help="On so many equal nodes.")
@click.option("-c", "--cores", metavar="N", type=click.IntRange(1, 1 << 16), help="With so many cores each (default: 1).")
@click.option("-g", "--gpus", metavar="N", type=click.IntRange(0, 1 << 16), help="And so many GPUs.")
@click.option("--memory-mb", metavar="N", type=click.IntRange(0), help="And so much memory.")
@click.option("--jobs", "per_job", is_flag=True, help="A line for each job: when it began, how long it waited.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "csv", "json"]), default="text", help="How --jobs writes them.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
@click.option("--gantt", metavar="FILE.svg", help='A picture of nodes over time, for each policy ("-": standard output).')
@target_options
def simulate(
    file: str | None, policies: tuple[str, ...], queue_depth: int | None, reservation_depth: int | None, match_policy: str | None,
    traverser: str | None, since: str | None, until: str | None,
    resources: str | None, load_format: str | None, nodes: int | None, cores: int | None,
    gpus: int | None, memory_mb: int | None, per_job: bool, form: str, as_json: bool, gantt: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Play a workload forward in virtual time: what would have started when, under which policy, on which resources.

    FILE is a trace in the Standard Workload Format, or has a JSON object a line for each job; without FILE it is the instance's
    own history, with "recorded" beside what is simulated. Nothing runs, and nothing is changed.

    \b
    Examples:
      fluxkv simulate                               this instance's jobs, once more
      fluxkv simulate --policy easy --policy conservative --since -1d
      fluxkv simulate --policy hybrid:reservation-depth=8 -N 20 -c 16   on other nodes
      fluxkv simulate trace.swf -N 128 -c 8 --policy fcfs --policy easy
      fluxkv simulate jobs.jsonl --resources tiny.graphml --gantt plan.svg
      fluxkv simulate jobs.jsonl -c 16 --jobs -o csv
    """
    from . import simulate_inputs as inputs
    from . import simulate_view as view

    _check_options(file, since or until or uri or state_dir, resources, load_format, nodes, cores or gpus or memory_mb)
    if gantt is not None:
        view.check_picture(gantt)
    state = None
    with ExitStack() as stack:
        if file is not None:
            workload = inputs.from_file(file)
        else:
            journal = stack.enter_context(open_journal(uri, state_dir))
            workload, state = inputs.from_journal(journal, since, until, resources is None and nodes is None)
    if not workload.works:
        why = ": " + "; ".join(workload.notes) if workload.notes else ""
        raise Rejected(f"there are no jobs to simulate{why}", code="no-jobs", hint="see --since, or name a FILE")
    make = _pools(workload, state, resources, load_format, nodes, cores, gpus, memory_mb, match_policy, traverser)
    outcomes = run(workload, inputs.choices(policies, queue_depth, reservation_depth, state), make)
    pool = make()
    if as_json:
        view.print_json(workload, outcomes, pool)
    elif per_job:
        view.print_jobs(workload, outcomes, form)
    elif gantt != "-":
        view.print_table(workload, outcomes, pool)
    if gantt is not None:
        view.write_picture(gantt, workload, outcomes, pool)


def _check_options(
    file: str | None, of_journal: str | None, resources: str | None, load_format: str | None, nodes: int | None, sizes: int | None
) -> None:
    if file is not None and of_journal:
        raise click.UsageError("FILE has no journal: leave out --since, --until, --uri and --state-dir")
    if resources is not None and (nodes or sizes):
        raise click.UsageError("--resources and -N: one of them")
    if load_format and resources is None:
        raise click.UsageError("-f says what --resources is: name a file")
    if sizes and nodes is None and file is None:
        raise click.UsageError("-c, -g and --memory-mb are of nodes: give -N, too")


def _pools(
    workload: Workload, state: State | None, resources: str | None, load_format: str | None, nodes: int | None, cores: int | None,
    gpus: int | None, memory_mb: int | None, match_policy: str | None, traverser: str | None,
) -> Callable[[], Pool]:  # fmt: skip
    """Makes the pool, with everything free, as often as wanted. If not said, match policy and traverser are the instance's."""
    from ..journal.sched_config import MATCH_FIRST, SIMPLE
    from . import simulate_inputs as inputs

    named = match_policy or (state.rules.match_policy if state is not None else MATCH_FIRST)
    if resources is not None:
        first = inputs.pool_of_file(resources, load_format, named)
    elif nodes is not None or cores is not None or gpus or memory_mb:
        first = inputs.pool_of_sizes(nodes or 1, cores or 1, gpus or 0, memory_mb or 0, named)
    elif state is not None:
        from ..instances.plan_inputs import new_pool
        from ..schedulers.match_policy import policy_of

        if not state.nodes:
            raise Rejected("there are no resources yet", code="no-such-node", hint="name some: -N, or --resources")
        first = new_pool(state)
        for ordinal in sorted(first.dark):  # all is up all the time, as with nodes
            first.set_vertex(first.layout.paths[ordinal], 0, up=True)
        if match_policy is not None:
            policy_of(match_policy)
            first.match_policy = match_policy
    elif workload.nodes:
        from ..schedulers.resources import Pool

        first = Pool(workload.nodes, named)
    else:
        raise Rejected("on what? the workload does not say", code="no-inventory", hint="-N 64 -c 32, or --resources FILE")
    first.traverser = traverser or (state.rules.traverser if state is not None else SIMPLE)
    return first.copy


def run(workload: Workload, choices: Iterable[Choice], make: Callable[[], Pool]) -> list[Outcome]:
    """Simulate each; before them what is recorded, if it is."""
    from ..schedulers.figures import figures

    pool = make()
    cores = sum(node.cores.bit_count() for node in pool.nodes)
    possible = _possible(workload, pool)
    works = {work.job: work for work in possible}
    found: list[Outcome] = []
    recorded = [one for one in workload.recorded if one.job in works]
    if recorded and len(recorded) == len(works):
        found.append(Outcome(RECORDED, recorded, figures(recorded, works, cores, overtaking=False)))
    for choice in choices:
        begun = list(_shown(_simulated(workload, possible, make(), choice), choice.name, len(works)))
        found.append(Outcome(choice.name, begun, figures(begun, works, cores)))
    return found


def _possible(workload: Workload, pool: Pool) -> list[Work]:
    """The jobs that these resources could ever serve; the others are told."""
    from ..schedulers.explain import explain
    from ..schedulers.workload import several

    possible: list[Work] = []
    refused: list[tuple[Work, str]] = []
    for work in workload.works:
        try:
            if pool.satisfiable(work.request) is None:
                possible.append(work)
                continue
            refused.append((work, explain(work.request, pool).text.removeprefix("unsatisfiable: ")))
        except Rejected as error:
            refused.append((work, str(error)))
    if not possible:
        work, why = refused[0]
        raise Rejected(
            f"none of the jobs can run on these resources; job {workload.labels[work.job].id}: {why}", code="unsatisfiable",
            hint="give larger ones: -N, -c, --resources",
        )  # fmt: skip
    if refused:
        work, why = refused[0]
        note = f"{several(len(refused), 'job')} that cannot run on these resources left out; {workload.labels[work.job].id}: {why}"
        if note not in workload.notes:
            workload.notes.append(note)
    return possible


def _simulated(workload: Workload, works: list[Work], pool: Pool, choice: Choice) -> Iterator[Begun]:
    from ..instances.turns import in_turns
    from ..schedulers.whatif import simulate as play

    try:
        yield from play(works, pool, choice.of, held=workload.held, now=workload.begin, turns=in_turns)
    except FluxkvError as error:
        raise Rejected(f"policy {choice.name}: {error}", code="bad-policy", hint=error.hint) from None


def _shown(begun: Iterator[Begun], name: str, total: int) -> Iterator[Begun]:
    """With a progress bar, on a terminal, if it takes long."""
    import sys

    from . import render

    if total < SLOW or not render.is_terminal(sys.stderr):
        yield from begun
        return
    with render.progress(total, label=name) as bar:
        for number, one in enumerate(begun, 1):
            yield one
            if not number & 0x7F or number == total:
                bar.update(number)
