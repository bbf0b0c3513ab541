"""What runs inside an instance that `start` has brought up: its command or shell, or nobody; and a job's part in a child instance.

Decides what that command's environment is and when the instance ends; what a child is given, `instances.child` decides.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

import click

from ..instances.own_program import with_program
from ..kvs.errors import FluxkvError, Rejected
from .reviving import KEEPER_LOOK_S, Reviving, revive
from .start_settings import INVENTORY, name_policy

# Of the job that an instance is: what runs inside must not take itself for one of its tasks. (Which attempt and which copy of
# a job it is, a script may want to know.)
OUTER = (
    "FLUX_JOB_ID", "FLUX_JOB_NNODES", "FLUX_JOB_SIZE", "FLUX_KVS_NAMESPACE",
    "FLUX_TASK_LOCAL_ID", "FLUX_TASK_RANK", "FLUXKV_JOB_ATTEMPT", "FLUXKV_JOB_NODE", "FLUXKV_NODE_RANK", "FLUXKV_NODE_TASKS",
)  # fmt: skip
# Warnings that a job gets (--signal, job kill) go to all its processes, so the program inside has them, too: it is for that
# to end of them, or not, and the instance goes on.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGQUIT)
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # by every Python; what we run has them as from a shell
STOPPED_LOOK_S = 1.0
ENSEMBLE = ["fluxkv", "ensemble"]
LEAD = [*ENSEMBLE, "lead"]  # goes on where it was, when it is started again in its instance
LEADS = 4  # how often it is started
FEED = [*ENSEMBLE, "feed"]


def drain_command(since: float) -> list[str]:
    """What `--drain` runs, by this very interpreter: PATH may lead to another fluxkv, or to none. since: Unix seconds, when the
    instance began to run jobs."""
    program = [sys.executable, "-P", "-c", "from fluxkv.tools.main import main; main()"]
    return [*program, "queue", "drain", "--status", f"--since=@{since:.3f}"]


def start_child(here: Any, options: dict[str, Any], command: list[str]) -> int:
    """Inside a job: an instance on what the job was given. Its first task leads; one task of each other node follows."""
    from ..instances import access, child
    from ..instances import start as starting
    from ..instances.whereabouts import OWN

    given = [name for name in INVENTORY if options[name]]
    if given:
        what = "-s" if given[0] == "size" else f"--{given[0]}"
        raise Rejected(f"{what} does not go with a child instance: its resources are its job's", code="child")
    if here.local:
        return 0  # one task on each node is enough
    for signum in WARNINGS:
        signal.signal(signum, _pass)
    document: dict[str, Any] = {}
    if options["config"] or options["conf"]:
        from ..instances import config_file

        document = config_file.read_document(options["config"] or "", options["conf"])
    if "resource" in document:
        raise Rejected("[resource] does not go with a child instance: its resources are its job's", code="child")
    as_it_was = options["resume"] and not document and not options["policy"]
    policy = "" if as_it_was else name_policy(document, options["policy"], options["policy_is_default"])
    goes_on = command[:2] != ["fluxkv", "ensemble"]  # that takes over by itself what its earlier attempts have come to
    settings = child.make_settings(here, {**options, "policy": policy, "goes_on": goes_on})
    again = "resume" in settings and not options["resume"]  # what an earlier attempt of ours was
    settings.update({"policy": ""} if again else config_settings(options, document))
    directory = child.directory(here)
    if not settings["lead"]:
        return _follow(here, settings, directory)
    starting.prepare(directory, settings)
    if command[:2] == ENSEMBLE:
        import_ensemble()
    starting.start_keeper(directory, os.getpid())
    if settings.get("kvs") == OWN:
        from ..instances.own_server import open_door

        open_door(directory.read(), directory)  # the keeper may have chosen another port
    if command[:2] != ENSEMBLE:  # which submits only, and need not find nodes up
        starting.wait_for_nodes(settings["uri"])
    try:
        child.tell_parent(here, access.lasting(settings["uri"], settings))
    except FluxkvError as error:
        if error.code == "gone":  # nothing has begun in it yet, and nothing is to
            starting.stop(directory)
            raise
        from ..instances import parent_row, supervised

        supervised.write_word(directory.join("run", parent_row.UNTOLD), "")
        click.echo(f"fluxkv: the parent does not know yet that this instance is ready, its keeper will say it: {error}", err=True)
    for name in OUTER:
        os.environ.pop(name, None)
    extra = {"FLUXKV_STATE_DIR": directory.path, "FLUX_ENCLOSING_ID": settings["job"]}
    if "resume" in settings:
        extra["FLUXKV_RESUMED"] = options["resume"] or settings["job"]
    ends = options["drain"] or (again and not options["stay"] and not _may_repeat(settings["uri"]))
    drain = settings["created"] if ends else 0.0
    return run_inside(
        directory, settings["uri"], command, extra, dump=options["dump"], stay=options["stay"], drain=drain, is_task=True
    )


def _follow(here: Any, settings: dict[str, Any], directory: Any) -> int:
    """The part of a node that does not lead: an agent as long as the instance lives, or has the node."""
    from ..instances import follower, own_server
    from ..instances import start as starting
    from ..instances.whereabouts import OWN

    own = settings.get("kvs") == OWN
    if own:
        directory.create()
        settings["uri"] = own_server.follow_door(settings, directory)
    starting.prepare(directory, settings)
    follower.wait_until_started(settings["uri"], resumed=here.entry if "resume" in settings else "")
    if not follower.wait_until_member(settings["uri"], here):
        return 0
    told: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGHUP):  # to end the instance is for its leading node, which needs this one for that
        signal.signal(signum, lambda signum, frame: told.append(signum))
    while True:
        starting.start_keeper(directory, os.getpid())
        with Reviving(directory):
            anew = follower.wait_until_stopped(
                settings["uri"], here.node, partial(own_server.is_over, settings) if own else lambda: False,
                lambda: bool(told) and follower.is_asked_back(here), here.entry,
            )  # fmt: skip
        starting.stop(directory)
        if not anew:
            return 0
        directory.write({**directory.read(), "uid": ""})  # of the one that is no more


def _may_repeat(uri: str) -> bool:
    """Whether the program runs again in the instance that an earlier attempt of its job was; says so if it does not."""
    from ..instances import resume
    from ..kvs.redis_store import open_store

    store = open_store(uri)
    try:
        if resume.is_repeatable(store):
            return True
    finally:
        store.close()
    click.echo("fluxkv: goes on with the instance of the attempt before, which ended with the one around it: its jobs run to their "
               "ends, its program does not run again (jobs were submitted without --id), so what that had not submitted yet is not "
               "done", err=True)  # fmt: skip
    return False


def _pass(signum: int, frame: object) -> None:
    """A handler, since what is ignored is ignored by the program, too."""


def config_settings(options: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The config as a new instance's settings hold it until it is in the journal."""
    settings: dict[str, Any] = {"config": os.path.abspath(options["config"])} if options["config"] else {}
    if document:
        settings["config_document"] = document
    return settings


def run_inside(
    directory: Any, uri: str, command: list[str], extra: dict[str, str] | None = None, *, dump: str = "", stay: bool = False,
    drain: float = 0.0, is_task: bool = False,
) -> int:  # fmt: skip
    """Run the command (or a shell) with FLUXKV_URI set, then end the instance; the command's code as a shell has it.

    stay: nothing is run; it ends when it is stopped, or we are told to. drain: nothing is run, either; it ends when no job is left,
    with the worst code of those that have ended since (Unix seconds). dump: the file its journal is written to at the end.
    is_task: we are a job's task, and end by the signal that ended us, by which its end at a time limit is known.
    """
    from ..instances import start as starting

    os.environ["PATH"] = with_program(os.environ)["PATH"]  # where the command itself is looked for, too
    environment = {**os.environ, "FLUXKV_URI": uri, "FLUX_URI": uri, **(extra or {})}
    run = _Program(drain_command(drain) if drain else command, environment, directory)
    for signum in WARNINGS if drain and is_task else ():
        signal.signal(signum, signal.SIG_IGN)  # nobody is there to be warned
    try:
        code = _until_stopped(directory, run) if stay else run.wait()
    finally:
        try:
            if not stay or starting.keeper_pid(directory):
                starting.stop(directory)
        except FluxkvError as error:
            click.echo(f"fluxkv: the instance did not end in order: {error}", err=True)
            run.fault = error.exit_status
    if dump:
        _dump(directory, uri, dump)
    if is_task and signal.SIGTERM in run.asked and code in (128 + signal.SIGTERM, 128 + signal.SIGHUP):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return code or run.fault


def _dump(directory: Any, uri: str, path: str) -> None:
    """All of the journal into a file, which `journal import` reads; what stands in its way ends nobody's work with an error."""
    from ..instances.whereabouts import has_own
    from .journal_cmd import export_whole

    try:
        own = has_own(directory.read())
        export_whole(path, 0, None, None if own else uri, directory.path if own else None)
    except (FluxkvError, OSError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"fluxkv: the journal was not written to {path}: {text}", err=True)


class _Program:
    """The command inside. Signals that are to end us go on to it. directory: the instance's."""

    def __init__(self, command: list[str], environment: dict[str, str], directory: Any) -> None:
        self._on_terminal = sys.stdin.isatty()
        self.directory = directory
        if not command:
            shell = os.environ.get("SHELL") or "/bin/sh"
            command = [shell] if self._on_terminal else [shell, "-s"]
        self.command, self.environment = command, environment
        self.fault = 0
        self.asked: list[int] = []
        self.pid = 0
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self.forward)

    def forward(self, signum: int, frame: object) -> None:
        self.asked.append(signum)
        if self.pid:
            self._send(signum)

    def _send(self, signum: int) -> None:
        try:
            os.kill(self.pid, signum)
            if signum == signal.SIGTERM and self._on_terminal:
                os.kill(self.pid, signal.SIGHUP)  # a shell that somebody sits at does not end by a TERM
        except ProcessLookupError:
            pass

    def _begin(self) -> int:
        """Start it; its process."""
        if self.command[:2] == ENSEMBLE:
            return _forked(self.command[1:], self.environment)
        default = (signal.SIGINT, *IGNORED)
        return os.posix_spawnp(self.command[0], self.command, self.environment, setsigmask=(), setsigdef=default)

    def _look_after(self) -> None:
        """Until it ends: where all daemons were killed at once, nobody else is left who would start them again."""
        import select

        try:
            ends = os.pidfd_open(self.pid)
        except OSError:  # no descriptor is left
            return
        try:
            poller = select.poll()
            poller.register(ends, select.POLLIN)
            while not poller.poll(KEEPER_LOOK_S * 1000):
                revive(self.directory)
        finally:
            os.close(ends)

    def wait(self) -> int:
        """Run it; its code."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command too
        if self.command[:3] == FEED:
            return _in_place(self.command[1:], self.environment, self)
        again = LEADS - 1 if self.command[:3] == LEAD else 0
        while True:
            try:
                self.pid = self._begin()
            except OSError as error:
                from .exec_errors import tell_not_begun

                return tell_not_begun(self.command[0], error)
            for early in self.asked:  # it came before there was anybody to send it on to
                self._send(early)
            self._look_after()
            _, status = os.waitpid(self.pid, 0)
            self.pid = 0
            code = os.waitstatus_to_exitcode(status)
            if code >= 0 or self.asked or not again:
                return 128 - code if code < 0 else code
            again -= 1
            click.echo(f"fluxkv: what leads the ensemble was ended by signal {-code}: it is started again", err=True)


def import_ensemble() -> None:
    """What an ensemble's programs and its children's keepers run on. Before our keeper is forked: its launcher's forks share it."""
    from ..instances import (  # noqa: F401
        child_store,
        client,
        ensemble_feed,
        ensemble_lead,
        job_path,
        kvs_client,
        parent_claims,
        parent_limit,
        sealing_led,
        submission,
    )
    from ..schedulers import fcfs  # noqa: F401
    from . import ensemble_cmd, ensemble_inside_cmd, ensemble_request, submit_cmd  # noqa: F401


def _forked(words: list[str], environment: dict[str, str]) -> int:
    """Run a command of ours in a copy of this process, which has no thread and speaks to no server: what it imports is
    there, which is half of what a start costs."""
    from ..instances import own_program, shown
    from .main import leave, run

    sys.stdout.flush()
    sys.stderr.flush()
    told = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, told)
    if pid:
        return pid
    try:
        for signum in told:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, told)
        os.environ.clear()
        os.environ.update(environment)
        shown.show([os.fsencode(word) for word in (*own_program.words(), *words)], os.environb)
        leave(run(words))
    finally:
        os._exit(70)


def _in_place(words: list[str], environment: dict[str, str], program: _Program) -> int:
    """Run a command of ours in this process, which only waited for it otherwise; its code. What ends it ends us, as a task that
    fails; our keeper ends the instance then. It takes the signals that are to end it, and hands them on (`forward`)."""
    from .main import run

    told = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, told)  # it takes them as soon as it listens to them
    ours = dict(os.environ)
    try:
        if program.asked:
            return 128 + program.asked[0]
        os.environ.clear()
        os.environ.update(environment)
        with Reviving(program.directory):
            return run(words)
    finally:
        os.environ.clear()
        os.environ.update(ours)
        for signum in told[:2]:
            signal.signal(signum, program.forward)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, told)


def _until_stopped(directory: Any, run: _Program) -> int:
    """Wait for the instance's end, by whoever brings it about, or for a signal: that one's code."""
    import select

    from ..instances import start as starting

    wake, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGINT, run.forward)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    while not run.asked:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        keeper = starting.keeper_pid(directory)
        if not keeper and os.path.exists(directory.join("run", "stopping")):
            return 0
        if not keeper:
            revive(directory)
        watched = -1
        try:
            if keeper:
                watched = os.pidfd_open(keeper)
                poller.register(watched, select.POLLIN)
            poller.poll(STOPPED_LOOK_S * 1000)
        except ProcessLookupError:
            pass
        finally:
            if watched >= 0:
                os.close(watched)
    return 128 + run.asked[0]
