"""`fluxkv ensemble`: one request for very many small jobs, spread over nodes. Decides what is printed and the exit status; what
runs where, `instances.ensemble_lead` and `ensemble_feed` decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..journal.ensemble import Indices
from ..journal.ids import f58
from .ensemble_request import LEFT_OUT, ensemble_request_options, job_of, request_of, size_of
from .lazy_group import LazyCommands
from .options import SubmissionCommand, bad, flags_of, key_of, timeout_of, urgency_of
from .render import print_id, say
from .submit_cmd import SETTINGS, connected, print_jobspec
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.ensemble_view import EnsembleView
    from ..journal.ensemble import Request

_MORE = {
    "lead": ("ensemble_inside", "lead", ""),
    "feed": ("ensemble_inside", "feed", ""),
}


class EnsembleGroup(LazyCommands):
    """What runs inside is not shown to people."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in super().list_commands(ctx) if name not in _MORE]


@click.group(cls=EnsembleGroup, more=_MORE, context_settings={"help_option_names": ["-h", "--help"]})
def ensemble() -> None:
    """Very many small jobs by one request, spread over nodes.

    An ensemble is one job here, an instance that has a child instance on each of its nodes; those share the members among
    themselves, so this instance's journal does not grow with their number.

    \b
    Examples:
      fluxkv ensemble run --cc=1-8 ./simulate {cc}
      fluxkv ensemble status ƒ3kQ
      fluxkv ensemble results --failed ƒ3kQ
      fluxkv ensemble rerun --failed ƒ3kQ
    """


@ensemble.command("submit", cls=SubmissionCommand, context_settings=SETTINGS)
@ensemble_request_options
def submit(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit an ensemble and print its id.

    A member for each id of --cc ({cc} becomes the id), or for each input as bulksubmit takes them: behind :::, or a line on
    standard input. A member runs on one node; -n, -c, -g and -t are each member's, -N says over how many nodes all are
    spread. Members whose child is lost are run again.

    \b
    Examples:
      fluxkv ensemble submit --begin-time=+1h --cc=1-1000000 ./simulate {cc}
      fluxkv ensemble submit -N2 --retry=2 --output=out.{cc} --cc=1-20 ./simulate {cc}
      fluxkv ensemble submit -c2 -t 5m ./simulate {} ::: a.in b.in c.in
      seq 1 20 | fluxkv ensemble submit -N1 --total-time=2h ./simulate {}
    """
    request = request_of(values, words)
    with connected(uri) as instance:
        id = submitted(instance, request, values, dry_run=dry_run)
    if id:
        print_id(id)
    return 0


@ensemble.command("run", cls=SubmissionCommand, context_settings=SETTINGS,
                  short_help="Submit an ensemble, and follow it until it ends.")  # fmt: skip
@ensemble_request_options
@click.option("--timeout", metavar="FSD", help="How long to stay at most; the ensemble goes on.")
def run(words: tuple[str, ...], uri: str | None, dry_run: bool, timeout: str | None, **values: Any) -> int:
    """Submit an ensemble, show how far it is and what fails, and exit with the worst code of its members.

    Options are those of ensemble submit. Ctrl-C leaves it running.

    \b
    Examples:
      fluxkv ensemble run -N1 --per-node=2 --cc=1-20 ./simulate {cc}
      fluxkv ensemble run ./simulate {} ::: a.in b.in c.in
    """
    request, patience_s = request_of(values, words), timeout_of(timeout)
    with connected(uri) as instance:
        id = submitted(instance, request, values, dry_run=dry_run)
        if not id:
            return 0
        say(f"fluxkv: {_named(instance, id, request)}")
        return stay(instance, id, patience_s)


def _named(instance: Instance, id: int, request: Request) -> str:
    """Which one it is, for who wants to look from elsewhere."""
    if id not in instance.submitter.submitted:
        return f"ensemble {f58(id)} has this key"
    members = len(Indices(request.ranges))
    return f"ensemble {f58(id)}, {members:,} member{'s' * (members != 1)}"


def spread_copies(words: tuple[str, ...], uri: str | None, dry_run: bool, values: dict[str, Any]) -> int:
    """What `submit --spread` does: the copies of --cc as an ensemble. Options are those of submit; -N: over how many nodes."""
    if not values["cc"]:
        raise click.UsageError("--spread goes with --cc, whose copies are spread")
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if value and (option in LEFT_OUT or name in ("bcc", "wait_event", "watch", "log", "log_stderr")):
            raise bad(option, "it does not go with --spread: see fluxkv ensemble submit --help")
    stays = values["wait"] or values["show_progress"]
    request = request_of({**values, "define": (), "sep": "", "per_node": 1, "total_time": None, "conf": (), "kvs": None}, words)
    with connected(uri) as instance:
        id = submitted(instance, request, {**values, "total_time": None}, dry_run=dry_run)
        if not id:
            return 0
        if not values["quiet"]:
            print_id(id)
        return stay(instance, id, timeout_of(values["timeout"])) if stays else 0


def submitted(instance: Instance, request: Request, values: dict[str, Any], *, dry_run: bool) -> int:
    """The id of the ensemble, 0 if it was only shown."""
    from .ensemble import Piece, put_blobs

    blobs: dict[str, bytes] | None = None if dry_run else {}
    piece = Piece(
        job_of(request, values, size_of(instance, request, values), blobs), request.env, urgency_of(values["urgency"]),
        key=key_of(values["key"]),
    )  # fmt: skip
    if dry_run:
        print_jobspec(piece)
        return 0
    if blobs:
        put_blobs(instance, blobs)
    flags = flags_of(values["flags"], values["debug"])
    (id,) = instance.submitter.submit([(piece.jobspec, piece.env)], piece.urgency, flags, [piece.key])
    return id


@contextmanager
def opened(instance: Instance, id: int) -> Iterator[EnsembleView]:
    from ..instances.ensemble_view import EnsembleView

    view = EnsembleView(instance, id)
    try:
        yield view
    finally:
        view.close()


@contextmanager
def looked_at(id: str, uri: str | None, state_dir: str | None) -> Iterator[EnsembleView]:
    """An ensemble of an instance that may be down."""
    from ..instances.client import Instance
    from ..journal.ids import parse_id

    with open_journal(uri, state_dir) as journal, opened(Instance(journal.store, by="cli"), parse_id(id)) as view:
        yield view


def stay(instance: Instance, id: int, timeout: float | None) -> int:
    """Follow it until it ends; the exit code. Ctrl-C leaves it alone, and says so, however early it comes."""
    from .ensemble import noted_interrupts

    try:
        with noted_interrupts() as asked:
            from .ensemble_show import follow

            with opened(instance, id) as view:
                return follow(view, timeout, asked)
    except KeyboardInterrupt:
        name = f58(id)
        say(f"fluxkv: the ensemble goes on; fluxkv ensemble watch {name} follows it again, fluxkv cancel {name} ends it")
        return 130


def _one(command: Any) -> Any:
    command = click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")(command)
    return click.argument("id", metavar="ID")(command)


@ensemble.command("watch", short_help="Follow an ensemble until it ends.")
@_one
@click.option("--timeout", metavar="FSD", help="How long to watch at most.")
def watch(id: str, timeout: str | None, uri: str | None) -> int:
    """Follow an ensemble until it ends: a bar, and what fails; exit with the worst code of its members.

    \b
    Examples:
      fluxkv ensemble watch ƒ3kQ
    """
    from ..journal.ids import parse_id

    patience_s = timeout_of(timeout)
    with connected(uri) as instance:
        return stay(instance, parse_id(id), patience_s)


@ensemble.command("status")
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@target_options
def status(id: str, as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Say how far an ensemble is, all of it and each child.

    \b
    Examples:
      fluxkv ensemble status ƒ3kQ
      fluxkv ensemble status --json ƒ3kQ
    """
    from .ensemble_show import show_status

    with looked_at(id, uri, state_dir) as view:
        show_status(view, as_json)


@ensemble.command("results", short_help="List what became of members: exit codes, run times, jobs.")
@click.argument("id")
@click.option("--failed", is_flag=True, help="Only members that did not succeed.")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@target_options
def results(id: str, failed: bool, no_header: bool, as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """List what became of an ensemble's members, in the order of their indices; those that have not ended are left out.

    JOB is a path that other commands take: fluxkv job attach PATH shows what it printed. INPUT is what stood for {}.

    \b
    Examples:
      fluxkv ensemble results ƒ3kQ
      fluxkv ensemble results --failed --json ƒ3kQ
    """
    from .ensemble_show import show_results

    with looked_at(id, uri, state_dir) as view:
        show_results(view, failed=failed, header=not no_header, as_json=as_json)


@ensemble.command("rerun", short_help="Submit members that failed, or were cut off, once more.")
@_one
@click.option("--failed", is_flag=True, help="Members that ended and did not succeed.")
@click.option("--unfinished", is_flag=True, help="Members that did not run to an end, since the ensemble ended first.")
@click.option("--follow", "stays", is_flag=True, help="Stay with it, as ensemble run does.")
def rerun(id: str, failed: bool, unfinished: bool, stays: bool, uri: str | None) -> int:
    """Submit members of an ensemble that is over once more, as an ensemble of their own, and print its id.

    Without --failed or --unfinished both: all that did not succeed. Members keep their indices, commands and environment.

    \b
    Examples:
      fluxkv ensemble rerun ƒ3kQ
      fluxkv ensemble rerun --failed --follow ƒ3kQ
    """
    from ..journal.ids import parse_id
    from .ensemble_show import again

    with connected(uri) as instance:
        with opened(instance, parse_id(id)) as view:
            new = again(view, failed=failed or not unfinished, unfinished=unfinished or not failed)
        if not new:
            return 0
        print_id(new)
        return stay(instance, new, None) if stays else 0
