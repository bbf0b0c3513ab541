"""`fluxkv batch` and `fluxkv alloc`: jobs that are instances, with a script or an interactive program inside.

Decides which job is made (flux-batch's and flux-alloc's), and how long alloc stays with it. Directives in a script (RFC 36)
are options that stand before those of the command line, which win.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from ..instances.own_program import with_program
from ..instances.terminals import INTERACTIVE
from ..journal.ids import f58
from ..kvs.errors import Rejected
from .child_options import SCRIPT, ChildCommand, child_jobspec, child_options, content
from .ensemble import Piece, put_blobs
from .environment import shared_environment
from .options import flags_of, key_of, urgency_of
from .render import print_id, say
from .submit_cmd import connected, print_jobspec

if TYPE_CHECKING:
    from ..instances.client import Instance

SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}
OUTPUT = "flux-{{id}}.out"
MAX_SCRIPT = 1 << 24
STDIN = "(standard input)"


class BatchCommand(ChildCommand):
    """Reads the script before it runs: that has options, too, which stand before those that were typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[__name__] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        typed = ctx.meta[__name__]
        if ctx.params["resume"] and not ctx.params["words"]:  # the instance has its jobs already
            return super().invoke(ctx)
        name, script = (wrapped if ctx.params["wrap"] else read_script)(ctx.params["words"])
        placed = self.directives(ctx, name, script)
        if not placed:
            ctx.params["script"] = script
            return super().invoke(ctx)
        try:
            with self.make_context(str(ctx.info_name), [*(word for _, word in placed), *typed], ctx.parent) as whole:
                whole.params["script"] = script
                return super().invoke(whole)
        except click.UsageError as error:
            line = 0 if self.line_of(error, [(0, word) for word in typed]) is not None else self.line_of(error, placed)
            if not line:  # it is the command line's
                raise
            raise in_line(name, line, error) from None

    def directives(self, ctx: click.Context, name: str, script: bytes) -> list[tuple[int, str]]:
        """The options in a script with their lines, each of them one that this command has. Raises `Rejected` (bad-directive)."""
        from ..journal.directives import fault, placed_words

        try:
            placed = placed_words(script)
        except Rejected as error:
            raise Rejected(f"{name}: {error}", code=error.code, hint=error.hint) from None
        if not placed:
            return []
        try:
            probe = click.Context(self, info_name=ctx.info_name, parent=ctx.parent)
            words = ["--dump=" if word == "--dump" else word for _, word in placed]
            found, _, _ = self.make_parser(probe).parse_args(words)
        except click.UsageError as error:
            raise in_line(name, self.line_of(error, placed) or placed[0][0], error) from None
        over = found.get("words")
        if isinstance(over, tuple) and over:
            line = next(line for line, word in placed if word == over[0])
            raise Rejected(
                f"{name}: {fault(line, f'{over[0]!r} is no option')}", code="bad-directive",
                hint="arguments of a script are given on the command line, behind its name",
            )  # fmt: skip
        if found.get("wrap"):
            line = next(line for line, word in placed if word == "--wrap")
            raise Rejected(f"{name}: {fault(line, '--wrap makes a script of a command, and this is one')}", code="bad-directive")
        return placed

    def line_of(self, error: click.UsageError, placed: list[tuple[int, str]]) -> int | None:
        """The last line that has the option an error is about; None if none has."""
        param = getattr(error, "param", None)
        about = param.opts if param is not None else getattr(error, "option_name", None) or getattr(error, "param_hint", None) or ""
        asked = set(re.findall(r"--?[\w-]+", about if isinstance(about, str) else " ".join(about)))
        names = asked.union(*({*one.opts} for one in self.params if asked.intersection(one.opts)))
        found = [line for line, word in placed if word.partition("=")[0] in names or (word[:2] in names and word[1] != "-")]
        return found[-1] if found else None


def in_line(name: str, line: int, error: click.UsageError) -> Rejected:
    """What the option parser says, of a directive."""
    from ..journal.directives import fault

    return Rejected(f"{name}: {fault(line, error.format_message().removesuffix('.'))}", code="bad-directive")


def read_script(words: tuple[str, ...]) -> tuple[str, bytes]:
    """(name for errors, script) of the file named first, or of standard input. Raises click.UsageError, `Rejected`."""
    name = words[0] if words else STDIN
    if not name:
        raise Rejected("the script's name is an empty word", code="no-script", hint="fluxkv batch SCRIPT, or --wrap COMMAND")
    try:
        if words:
            with open(name, "rb") as file:
                script = file.read(MAX_SCRIPT + 1)
        else:
            if sys.stdin.isatty():
                say("fluxkv: reads the script from the terminal; Ctrl-D ends it")
            script = sys.stdin.buffer.read(MAX_SCRIPT + 1)
    except OSError as error:
        hint = f"fluxkv batch --wrap {' '.join(words)} runs a command" if not os.path.exists(name) else ""
        raise Rejected(f"{name}: {error.strerror}", code="no-script", hint=hint) from None
    _check(name, script)
    if not script.startswith(b"#!"):
        raise Rejected(
            f"{name} does not begin with #!, so it is no script", code="no-script",
            hint=f"write #!/bin/sh in its first line, or: fluxkv batch --wrap {' '.join(words)}".rstrip(),
        )  # fmt: skip
    return name, script


def wrapped(words: tuple[str, ...]) -> tuple[str, bytes]:
    """The same for a command that is made a script, or for standard input without a first line."""
    if words:
        import shlex

        text = words[0] if len(words) == 1 else shlex.join(words)
        _check("--wrap", text.encode(errors="surrogateescape"))
        return "--wrap", f"#!/bin/sh\n{text}\n".encode(errors="surrogateescape")
    script = sys.stdin.buffer.read(MAX_SCRIPT + 1)
    _check(STDIN, script)
    return STDIN, script if script.startswith(b"#!") else b"#!/bin/sh\n" + script


def _check(name: str, script: bytes) -> None:
    if not script.strip():
        raise Rejected(f"{name}: there is nothing in it", code="no-script", hint="fluxkv batch SCRIPT, or --wrap COMMAND")
    if len(script) > MAX_SCRIPT:
        raise Rejected(f"{name} is larger than {MAX_SCRIPT >> 20} MiB", code="no-script", hint="let a short script call it")


@click.command(cls=BatchCommand, context_settings=SETTINGS)
@child_options("SCRIPT [ARGS]...")
@click.option("--wrap", is_flag=True, help="SCRIPT is a command (or standard input without a #! line): make it a script.")
def batch(words: tuple[str, ...], uri: str | None, dry_run: bool, script: bytes = b"", **values: Any) -> int:
    """Submit a script that runs in an instance of its own, and print the job's id.

    The script is copied now; it runs on the first node of what the job gets, and every fluxkv command in it acts on the new
    instance (fluxkv --parent COMMAND on this one). Without SCRIPT it is read from standard input. Lines such as
    "# flux: -N2 --time-limit=1h" above its first command are options (RFC 36); those on the command line win. Output goes to
    flux-{{id}}.out; --output=none keeps it for fluxkv job attach.

    \b
    Examples:
      fluxkv batch -N2 -t 1h sims.sh input.dat
      fluxkv batch -n4 --wrap 'fluxkv submit --cc=1-100 ./simulate {cc}; fluxkv queue drain'
      fluxkv batch --conf=queue.policy=easy --conf=child.toml --dump sims.sh
      fluxkv batch -n4 --kvs=own sims.sh            on a server of its own, which bears its load
      fluxkv batch --dry-run -n4 sims.sh            the jobspec: what Flux would have made of it
      fluxkv batch --resume ƒ3kQ                    the rest of what a batch job that was killed, or ran out of time, had to do
      fluxkv batch --resume ƒ3kQ --kvs=own          the same on a server of its own (default: as before), wherever it lived
    """
    if values["output"] is None:
        values["output"] = OUTPUT
    named = not values["wrap"] and bool(words)
    values["before"] = before(uri, values, dry_run)
    if values["job_name"] is None and not values["before"]:
        values["job_name"] = os.path.basename(words[0]) if named else "batch"
    values["blobs"] = None if dry_run else {}
    if script:
        arguments = list(words[1:]) if named else []
        files = {SCRIPT: content(script, 0o700, values["blobs"])}
        piece = _piece(values, child_jobspec(values, [f"{{{{tmpdir}}}}/{SCRIPT}", *arguments], files=files))
    else:
        piece = _piece(values, child_jobspec(values, [], ["--drain"]))
    if dry_run:
        print_jobspec(piece)
        return 0
    flags = flags_of(values["flags"], values["debug"])
    with connected(uri) as instance:
        print_id(_submit(instance, piece, values, flags))
    return 0


@click.command(cls=ChildCommand, context_settings=SETTINGS)
@child_options("[COMMAND [ARGS]...]")
@click.option("--bg", is_flag=True, help="Print its id and return when it can be used; without a COMMAND it stays.")
@click.option("-v", "--verbose", is_flag=True, help="Say the job's id and its events on stderr.")
def alloc(words: tuple[str, ...], uri: str | None, dry_run: bool, bg: bool, verbose: bool, **values: Any) -> int:
    """Get resources, and run a command or a shell in a new instance on them; exit with its code.

    Every fluxkv command inside acts on the new instance (fluxkv --parent COMMAND on this one). What was taken is given back
    when the command or shell ends. On a terminal the program has one, too.

    \b
    Examples:
      fluxkv alloc -N2 -t 1h                        a shell with two nodes
      fluxkv alloc -n8 ./sims.sh                    one command
      fluxkv alloc -n4 --bg                         stays until its time is up, or: fluxkv cancel ID
      fluxkv alloc -n4 --bg ./serve.sh              as long as this runs
      fluxkv alloc -n4 --conf=queue.policy=easy
      fluxkv alloc --resume ƒ3kQ                    a shell in the instance that ended job was, on what it had
    """
    values["before"] = before(uri, values, dry_run)
    if values["job_name"] is None and not values["before"]:
        values["job_name"] = os.path.basename(words[0]) if words else "alloc"
    from .attaching import forwarded_input
    from .terminal import on_terminal

    terminal = not bg and on_terminal()
    forwarded = None if bg else forwarded_input(values)
    if forwarded is not None:
        values["setopt"] = ("input.stdin.type=service", *values["setopt"])
    if terminal:
        values["setopt"] = (f"{INTERACTIVE}=1", *values["setopt"])
    values["blobs"] = None if dry_run else {}
    piece = _piece(values, child_jobspec(values, words, ["--stay"] if bg and not words else []))
    if dry_run:
        print_jobspec(piece)
        return 0
    flags = flags_of(values["flags"], values["debug"])
    with connected(uri) as instance:
        id = _submit(instance, piece, values, flags)
        if id not in instance.submitter.submitted:
            say(f"fluxkv: {f58(id)} has this key" + ("; it gets no input from here" if forwarded is not None else ""))
            forwarded = None
        if bg:
            return _until_ready(instance, id, verbose)
        if verbose:
            say(f"fluxkv: job {f58(id)}")
        from .attaching import attach_job

        how = "own" if terminal and forwarded is not None else ""
        return attach_job(instance, id, forwarded, label=values["label_io"], verbose=verbose, terminal=how, ours=True)


def before(uri: str | None, values: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """The jobspec of the job to be resumed, {} if there is none. Raises `Rejected` for one that cannot be."""
    if not values["resume"]:
        return {}
    from .resume_options import jobspec_before

    with connected(uri) as instance:
        return jobspec_before(instance.journal, instance.uri, values["resume"], bool(values["dependency"]), back=not dry_run)


def _piece(values: dict[str, Any], jobspec: dict[str, Any]) -> Piece:
    env = with_program(shared_environment(values["env"], values["rlimit"]))
    return Piece(jobspec, env, urgency_of(values["urgency"]), ("", ""), key_of(values["key"]))


def _submit(instance: Instance, piece: Piece, values: dict[str, Any], flags: int) -> int:
    """The job's id."""
    if values["blobs"]:
        put_blobs(instance, values["blobs"])
    (id,) = instance.submitter.submit([(piece.jobspec, piece.env)], piece.urgency, flags, [piece.key])
    return id


def _until_ready(instance: Instance, id: int, verbose: bool) -> int:
    """Print the id once the child has said that it can be used; the exit status. Ctrl-C cancels it: nobody knows of it yet."""
    from .attaching import Reached, exception_line, writers
    from .eventlines import EventLines

    lines = EventLines("text", "offset")

    def tell(name: str, timestamp: float, context: dict[str, Any]) -> None:
        if name == "exception":
            say(exception_line(id, context["type"], context["note"], context["severity"]))
        elif verbose:
            say(lines.text(name, timestamp, context))
        if name == "memo" and "uri" in context:
            raise Reached

    try:
        result = instance.attach(id, writers(False, False)(id), tell).run()
    except Reached:
        print_id(id)
        return 0
    except KeyboardInterrupt:
        say(f"fluxkv: cancelling job {f58(id)}")
        instance.cancel([id], "interrupted by ctrl-C")
        return 130
    say(f"fluxkv: job {f58(id)} ended before its instance could be used")
    return result.returncode or 1
