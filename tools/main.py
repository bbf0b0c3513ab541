"""The `fluxkv` command: a click group whose commands are imported only when named. Decides no rules.

Each error is one line on stderr (what, where, why) and a hint; no traceback reaches a user (FLUXKV_TRACEBACK=1 shows it).
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import NoReturn, TextIO

import click

from .. import __version__
from ..instances.own_program import is_run_by
from ..instances.user_settings import option_defaults
from ..kvs.errors import FluxkvError
from .lazy_group import SuggestingGroup

# command: (module under tools/, object, one line of help)
COMMANDS = {
    "start": ("start", "start", "Start an instance, and run a command or a shell in it."),
    "stop": ("start", "stop", "End an instance in order."),
    "restart": ("start", "restart", "Replace an instance's daemons while its tasks run on."),
    "agent": ("agent", "agent", "Make this host a node of an instance that runs on another."),
    "worker": ("worker", "worker", "Plan for an instance that was started on another host."),
    "uri": ("uri", "uri_", "Print an instance's URI, also for hosts that are to join."),
    "proxy": ("uri", "proxy", "Run a shell or a command that acts on the instance that a job is."),
    "top": ("top", "top", "Watch nodes, queues, jobs and throughput, live."),
    "status": ("status", "status", "Say how the instance is: daemons, nodes, queue, journal."),
    "list": ("status", "list_instances", "List this user's instances."),
    "doctor": ("doctor", "doctor", "Check this machine and the instance, and say what to mend."),
    "submit": ("submit", "submit", "Submit jobs and print their ids."),
    "run": ("submit", "run", "Submit a job, show its output, and exit with its code."),
    "bulksubmit": ("bulksubmit", "bulksubmit", "Submit a job for each input."),
    "ensemble": ("ensemble", "ensemble", "Very many small jobs by one request, spread over nodes."),
    "batch": ("batch", "batch", "Submit a script that runs in an instance of its own."),
    "alloc": ("batch", "alloc", "Get resources, and a shell or a command in an instance on them."),
    "resubmit": ("resubmit", "resubmit", "Submit jobs that were there once more."),
    "watch": ("watch", "watch", "Follow jobs: their output, or a progress bar."),
    "cancel": ("cancel", "cancel", "Cancel jobs."),
    "update": ("update", "update", "Change jobs: duration, queue, name, attributes."),
    "hold": ("update", "hold", "Keep jobs from running until they are released."),
    "release": ("update", "release", "Release held jobs."),
    "requeue": ("update", "requeue", "End running jobs and have them run again."),
    "resize": ("resize", "resize", "Give a running job more nodes, or take some back."),
    "jobs": ("jobs", "jobs", "List jobs."),
    "pgrep": ("pgrep", "pgrep", "List jobs by a pattern for their names."),
    "pkill": ("pgrep", "pkill", "Cancel jobs by a pattern for their names."),
    "job": ("job", "job", "Look at one job: attach, status, wait, eventlog, info, ..."),
    "resource": ("resource", "resource", "List, drain and undrain nodes."),
    "housekeeping": ("housekeeping", "housekeeping", "List and end housekeeping after jobs."),
    "queue": ("queue", "queue", "Start, stop and drain queues."),
    "config": ("config", "config", "Read and change the instance's config."),
    "cron": ("cron", "cron", "Submit jobs again and again: at times, at intervals, at events."),
    "kvs": ("kvs", "kvs", "Read and write the instance's key-value store."),
    "replay": ("replay", "replay", "Rebuild the state from the journal, and compare it with the live one."),
    "tree": ("tree", "tree", "Show instances, their jobs, and those in them, as a tree."),
    "explain": ("explain", "explain", "Say why a job waits, what became of it, who has a node."),
    "simulate": ("simulate", "simulate", "Play a workload under other policies, on other resources."),
    "inspect": ("inspect", "inspect", "The story of a job or a node."),
    "journal": ("journal", "journal", "Show, follow, check and export the journal."),
    "ops": ("ops", "ops", "What only an operator decides: adopt a history, fail over, access lists."),
    "dmesg": ("dmesg", "dmesg", "The daemons' own log."),
    "help": ("man", "help_", "Show the manual of a command."),
    "man": ("man", "man", "Print a man page, or write all of them."),
    "completion": ("completion", "completion", "Print what makes a shell complete commands, job ids and queues."),
}


# How --help orders them: what a command is for, and the commands.
GROUPS = {
    "Instances": (
        "start", "stop", "restart", "agent", "worker", "uri", "proxy", "status", "top", "list", "doctor", "dmesg", "ops",
    ),
    "Submitting jobs": ("submit", "run", "bulksubmit", "ensemble", "batch", "alloc", "resubmit", "cron"),
    "Looking at jobs and changing them": (
        "jobs", "tree", "explain", "pgrep", "job", "watch", "update", "hold", "release", "requeue", "resize", "cancel",
        "pkill",
    ),
    "Resources, queues and data": ("resource", "housekeeping", "queue", "config", "kvs"),
    "History": ("inspect", "replay", "simulate", "journal"),
    "Help": ("help", "man", "completion"),
}


class LazyGroup(SuggestingGroup):
    """Imports a command's module when it is called, so that each command starts fast."""

    sections = GROUPS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module = importlib.import_module(f"..{found[0]}_cmd", __name__)
        command: click.Command = getattr(module, found[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        wide = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(wide), COMMANDS[name][2]) for name in names])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fluxkv")
@click.option("--parent", count=True, help="Act on the instance that this one is a job of; twice: on that one's parent.")
@click.option("--instance", "path", metavar="PATH",
              help="Act on the instance that a job is, such as ƒA, ƒA/ƒB, or / for the root's.")  # fmt: skip
@click.pass_context
def cli(context: click.Context, parent: int, path: str | None) -> None:
    """A hierarchical workload manager whose whole state is a journal.

    \b
    Examples:
      fluxkv start                       a shell inside a new instance
      fluxkv start fluxkv run hostname   one command in a new instance
      fluxkv submit --cc=1-100 sim {cc}  a hundred jobs
      fluxkv jobs -a                     what became of them
      fluxkv --parent jobs               inside an instance that is a job: the jobs around it
      fluxkv --instance ƒ3kQ jobs        the jobs inside the instance that job ƒ3kQ is
    """
    if parent:
        from ..instances.child import enter_parent

        enter_parent(parent)
    if path is not None:
        from ..instances.job_path import parse_path
        from .job_paths import PATH

        context.meta[PATH] = parse_path(path)


def main() -> None:
    """Run the command line; exit with its status."""
    if "_FLUXKV_COMPLETE" in os.environ:  # a shell asks what may stand here
        from .completion_cmd import answer

        answer()
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _fill_descriptors()
    is_run_by(run, leave, import_ahead)
    leave(run(sys.argv[1:]))


def import_ahead() -> None:
    """What an instance that is a job is going to import."""
    from . import start_cmd  # noqa: F401
    from .inside import import_ensemble

    import_ensemble()


def run(args: list[str]) -> int:
    """As `run_line`; also where a reader of our output, or somebody at the keyboard, breaks it off."""
    try:
        return run_line(args)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


def _fill_descriptors() -> None:
    """A descriptor that came closed would be given to the next socket, and our output sent to it."""
    for name, number, mode in (("stdin", 0, os.O_RDONLY), ("stdout", 1, os.O_WRONLY), ("stderr", 2, os.O_WRONLY)):
        if getattr(sys, name) is None:
            found = os.open(os.devnull, mode)
            if found != number:
                os.dup2(found, number)
                os.close(found)
            setattr(sys, name, os.fdopen(number, "r" if mode == os.O_RDONLY else "w"))


def leave(status: int) -> NoReturn:
    """Exit, at once but for what is to be tidied up: taking an interpreter apart costs a fifth of a short command. In a fork
    nothing may be taken apart, either: what it was forked with is another's."""
    import atexit
    import threading

    if threading.active_count() > 1:
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads, or it was closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    os._exit(status)


def run_line(args: list[str]) -> int:
    """The exit status of one command line; errors are said on stderr."""
    try:
        with cli.make_context("fluxkv", args, default_map=option_defaults()) as context:
            found = cli.invoke(context)
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 130
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except FluxkvError as error:
        _show(error)
        return error.exit_status
    except BrokenPipeError:
        raise
    except OSError as error:
        from .render import STDOUT

        ours = error.filename == STDOUT or (not error.filename and _is_refused(sys.stdout))
        where = f"{STDOUT}: " if ours else f"{error.filename}: " if error.filename else ""
        click.echo(f"fluxkv: {where}{error.strerror or error}", err=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return 1
        state = "" if ours else "; state goes where --state-dir or XDG_STATE_HOME say"
        click.echo(f"  free some of it, or write elsewhere{state}", err=True)
        return 3
    except Exception as error:
        if os.environ.get("FLUXKV_TRACEBACK"):
            raise
        click.echo(f"fluxkv: this is a fault in fluxkv: {type(error).__name__}: {error}", err=True)
        click.echo("  set FLUXKV_TRACEBACK=1 and run it again to see where", err=True)
        return 70


def _is_refused(stream: TextIO) -> bool:
    """Whether what was written there is not taken: it is still in the stream's buffer, if it has one, and refused again."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return True
    return False


def _show(error: FluxkvError) -> None:
    if os.environ.get("FLUXKV_TRACEBACK"):
        import traceback

        traceback.print_exc()
    click.echo(f"fluxkv: {error}", err=True)
    if error.hint:
        from .job_paths import from_here

        mine = os.environ.get("FLUX_ENCLOSING_ID")
        outside = bool(mine) and error.code == "no-such-job" and f"job {mine}:" in str(error)
        hint = "it is the job that this instance is: fluxkv --parent COMMAND acts around it" if outside else from_here(error.hint)
        click.echo(f"  {hint}", err=True)
