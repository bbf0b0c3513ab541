"""`fluxkv submit` and `fluxkv run`. Decides what is printed and the exit status; jobs are made in `options`.

submit prints ids only, one per line. run shows the job's output and exits with its code as a shell would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58
from ..kvs.errors import FluxkvError
from .options import (
    copies,
    environment,
    fill,
    flags_of,
    jobspec_of,
    overlay_of,
    submission_options,
    timeout_of,
    urgency_of,
)  # fmt: skip
from .render import out, print_json, progress, say

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.follow import JobResult
    from ..instances.output import Attachment, OutputWriter

TOLD = 10  # exceptions that are told one by one
_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}


@click.command(context_settings=_SETTINGS)
@submission_options
@click.option(
    "--cc", metavar="IDSET", help="One copy for each id; {cc} becomes the id, and so does $FLUX_JOB_CC."
)
@click.option("--bcc", metavar="IDSET", help="As --cc, without FLUX_JOB_CC.")
@click.option("--quiet", is_flag=True, help="Print no ids.")
@click.option("--wait", is_flag=True, help="Wait until all have ended; exit with the worst code.")
@click.option("--watch", is_flag=True, help="Show their output, and wait.")
@click.option("--progress", "show_progress", is_flag=True, help="Show how many are done, and wait.")
@click.option("--jps", is_flag=True, help="Show jobs per second with --progress.")
@click.option("--timeout", metavar="FSD", help="How long to wait at most.")
def submit(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit jobs and print their ids.

    \b
    Examples:
      fluxkv submit -n4 -c2 ./simulate input.dat
      fluxkv submit --cc=1-100 --output=out.{cc} ./simulate {cc}
      fluxkv submit -t 10m --urgency=20 ./report
      fluxkv submit --wait --progress --cc=1-1000 true
    """
    _need_command(words)
    numbers = copies(values["cc"], values["bcc"])
    jobspecs = _jobspecs(values, words, numbers)
    if dry_run:
        _print_jobspecs(jobspecs, environment(values["env"], values["env_remove"]))
        return 0
    waits = values["wait"] or values["watch"] or values["show_progress"]
    timeout = timeout_of(values["timeout"])
    with _connect(uri) as instance:
        ids = _submit(instance, jobspecs, values)
        if not values["quiet"]:
            out("\n".join([f58(id) for id in ids]))
        if not waits:
            return 0
        sys.stdout.flush()
        try:
            return _wait(instance, ids, values, timeout)
        except KeyboardInterrupt:
            say("fluxkv: the jobs go on; fluxkv cancel ends them")
            return 130


def _wait(instance: Instance, ids: list[int], values: dict[str, Any], timeout: float | None) -> int:
    batches: Iterable[list[JobResult]]
    if values["watch"]:
        batches = instance.watch(ids, _writers(values["label_io"], len(ids) > 1), timeout)
    else:
        batches = instance.batches(ids, timeout)
    worst = done = failed = told = 0

    def take(batch: list[JobResult]) -> None:
        nonlocal worst, done, failed, told
        for result in batch:
            done += 1
            failed += not result.ok
            worst = max(worst, result.returncode)
            if result.exception is not None:
                told += 1
                if told <= TOLD:
                    say(exception_line(result.id, *result.exception))

    if values["show_progress"]:
        with progress(len(ids)) as bar:
            for batch in batches:
                take(batch)
                bar.update(done, failed)
    else:
        for batch in batches:
            take(batch)
    if told > TOLD:
        say(f"fluxkv: {told - TOLD} more jobs had exceptions; fluxkv jobs -a -f failed,canceled,timeout lists them")
    return worst


@click.command(context_settings=_SETTINGS)
@submission_options
@click.option("-v", "--verbose", is_flag=True, help="Say the job's id and its events on stderr.")
@click.option("--timeout", metavar="FSD", help="How long to stay attached at most; the job goes on.")
def run(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit a job, show its output, and exit with its code.

    Ctrl-C sends SIGINT to the job; a second one within two seconds cancels it and leaves.

    \b
    Examples:
      fluxkv run hostname
      fluxkv run -N2 -n8 -l ./mpi-program
      fluxkv run -t 30s sh -c 'sleep 60; echo never'
      sort data | fluxkv run uniq -c
    """
    _need_command(words)
    forwarded = _forwarded_input(values)
    if forwarded is not None:
        values["setopt"] = ("input.stdin.type=service", *values["setopt"])
    (jobspec,) = _jobspecs(values, words, None)
    if dry_run:
        _print_jobspecs([jobspec], environment(values["env"], values["env_remove"]))
        return 0
    with _connect(uri) as instance:
        (id,) = _submit(instance, [jobspec], values)
        if values["verbose"]:
            say(f"fluxkv: job {f58(id)}")
        return attach_job(
            instance, id, forwarded, label=values["label_io"], verbose=values["verbose"],
            timeout=timeout_of(values["timeout"]),
        )  # fmt: skip


def attach_job(
    instance: Instance, id: int, input_fd: int | None, *, label: bool = False, verbose: bool = False,
    show_exceptions: bool = True, timeout: float | None = None,
) -> int:  # fmt: skip
    """Follow a job to its end, its output on ours; its exit code as a shell gives it."""
    from .eventlines import EventLines

    lines = EventLines("text", "offset")

    def tell(name: str, timestamp: float, context: dict[str, Any]) -> None:
        if name == "exception" and show_exceptions:
            say(exception_line(id, context["type"], context["note"], context["severity"]))
        elif verbose:
            say(lines.text(name, timestamp, context))

    attachment = instance.attach(id, _writers(label, False)(id), tell)
    if input_fd is not None:
        attachment.forward_input(input_fd)
    with Interrupts(instance, id, attachment) as interrupts:
        try:
            result = attachment.run(timeout)
        except Detached:
            return 128 + interrupts.signum
    return result.returncode


class Detached(Exception):
    """The user left the job alone (second Ctrl-C)."""


class Interrupts:
    """Ctrl-C while attached: once, SIGINT goes to the job; again within two seconds, it is cancelled."""

    def __init__(self, instance: Instance, id: int, attachment: Attachment) -> None:
        self._instance = instance
        self._id = id
        self._attachment = attachment
        self._last = 0.0
        self._pipe: tuple[int, int] | None = None
        self.signum = 2

    def __enter__(self) -> Interrupts:
        import signal
        import threading

        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._attachment.serve(self._pipe[0], self._interrupted)
        self._handler = signal.signal(signal.SIGINT, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            signal.signal(signal.SIGINT, self._handler)
            for descriptor in self._pipe:
                os.close(descriptor)

    def _interrupted(self) -> None:
        import time

        assert self._pipe is not None
        if self.signum not in os.read(self._pipe[0], 64):
            return
        now = time.monotonic()
        try:
            if self._last and now - self._last < 2.0:
                say(f"fluxkv: cancelling job {f58(self._id)}")
                self._instance.cancel([self._id], "interrupted by ctrl-C")
                raise Detached
            self._last = now
            self._instance.kill(self._id, self.signum)
            say("fluxkv: SIGINT sent to the job; ctrl-C again within 2 s cancels it")
        except FluxkvError as error:
            say(f"fluxkv: {error}; ctrl-C again within 2 s cancels it")


def exception_line(id: int, kind: str, note: str, severity: int = 0) -> str:
    """How an exception is shown, on one line."""
    return f"fluxkv: {f58(id)}: exception: type={kind} severity={severity} note={' '.join(str(note).split())}"


def _need_command(words: tuple[str, ...]) -> None:
    if not words:
        raise click.UsageError("no command to run: name one, e.g. hostname, after the options")


def _connect(uri: str | None) -> Instance:
    from ..instances.client import connect

    instance = connect(uri)
    instance.by = "cli"
    return instance


def _jobspecs(
    values: dict[str, Any], words: tuple[str, ...], numbers: list[str] | None
) -> list[dict[str, Any]]:
    if numbers is None:
        return [jobspec_of(values, words)]
    rules = values["env"]
    names_cc = any("{cc}" in str(text) for key, text in values.items() if key not in ("cc", "bcc"))
    if names_cc or values["cc"]:
        found = []
        for number in numbers:
            overlay = overlay_of(rules, number)
            if values["bcc"]:
                del overlay["FLUX_JOB_CC"]
            found.append(jobspec_of({**values, "overlay": overlay}, words, number))
        return found
    # Only the command differs: one jobspec, checked once.
    model = jobspec_of(values, words, numbers[0])
    task = model["tasks"][0]
    return [
        {**model, "tasks": [{**task, "command": [fill(word, number) for word in words]}]}
        for number in numbers
    ]


def _submit(instance: Instance, jobspecs: list[dict[str, Any]], values: dict[str, Any]) -> list[int]:
    env = environment(values["env"], values["env_remove"])
    return instance.submitter.submit(
        ((jobspec, env) for jobspec in jobspecs), urgency_of(values["urgency"]), flags_of(values["flags"])
    )


def _print_jobspecs(jobspecs: list[dict[str, Any]], env: dict[str, str]) -> None:
    for jobspec in jobspecs:
        attributes = jobspec["attributes"]
        system = {
            **attributes["system"],
            "environment": {**env, **attributes["system"].get("environment", {})},
        }
        print_json({**jobspec, "attributes": {**attributes, "system": system}})


def _writers(label: bool, many: bool) -> Callable[[int], OutputWriter]:
    from ..instances.output import OutputWriter

    def writer(id: int) -> OutputWriter:
        prefix = f"{f58(id)}: " if many and label else ""
        return OutputWriter(sys.stdout.buffer, sys.stderr.buffer, label=label, prefix=prefix)

    return writer


def _forwarded_input(values: dict[str, Any]) -> int | None:
    """The descriptor whose bytes go to the job: ours, unless it is closed, /dev/null or not ours to read."""
    if values.get("input"):
        return None
    try:
        found = os.fstat(0)
        if found.st_rdev == os.stat(os.devnull).st_rdev and found.st_rdev:
            return None
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return None  # in the background: reading would stop us
    except OSError:
        return None
    return 0
