"""Man pages made from the click commands: their help is the one source. Decides sections and escaping (man(7)); prints nothing.

A page holds NAME, SYNOPSIS, DESCRIPTION, COMMANDS or OPTIONS, EXAMPLES, EXIT STATUS, ENVIRONMENT, FILES and SEE ALSO.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from .. import __version__

# Exit statuses of commands that have more to say than "0, or what is below".
_EXIT = {
    "run": "That of the job's command: its code, or 128 and the number of the signal that ended it; 1 if it never ran.",
    "start": "That of COMMAND: its code, or 128 and the number of the signal that ended it; 127 if there is no such command.",
    "submit": "0 when all jobs are submitted; with --wait, --watch or --progress the worst code of the jobs.",
    "job attach": "That of the job, as with fluxkv run.",
    "job status": "The worst code of the jobs.",
    "job wait": "0 if they succeeded, 1 if not, 2 if there was none to wait for.",
    "jobs": "0; with --stats-only 1 once no job is active.",
    "replay": "0 if the history is sound, and with --diff only if the two states are equal.",
    "journal verify": "0 only if all is sound.",
    "doctor": "0 if nothing needs mending.",
}
_EXITS = (
    ("0", "It is done."),
    ("1", "Refused or failed: the message says why and what to do."),
    ("2", "The command line makes no sense."),
    ("3", "Something needed is not there now (no instance, no server); try again later."),
    ("4", "Stored facts contradict each other; nothing was changed."),
    ("70", "A fault in fluxkv."),
    ("130", "Interrupted by Ctrl-C."),
)
_ENVIRONMENT = (
    ("FLUXKV_URI", "The instance to speak to, as fluxkv start --detach printed it; without it the one that is running."),
    ("XDG_STATE_HOME", "Where state directories are: in fluxkv below it (default ~/.local/state)."),
    ("FLUXKV_...", "Any setting that fluxkv config show lists, such as FLUXKV_SUBMIT_TIME_LIMIT for submit.time-limit."),
    ("FLUXKV_SERVER", "The valkey-server or redis-server to start, instead of the one that was installed with fluxkv."),
    ("NO_COLOR, FORCE_COLOR, TERM=dumb", "No colours; colours even off a terminal; no colours."),
    ("FLUXKV_TRACEBACK", "Set to 1, errors show where in fluxkv they come from."),
)
_FILES = (
    ("/etc/fluxkv/config.toml, ~/.config/fluxkv/config.toml", "Settings of the command line; fluxkv config show tells them all."),
    ("~/.local/state/fluxkv/", "State directories, one for each instance that was not told where to live."),
    ("DIR/instance.json", "What an instance is: its URI, namespace and settings."),
    ("DIR/log/", "The daemons' logs; fluxkv dmesg shows them."),
    ("DIR/spool/", "Output of jobs that named no file, beyond what the server keeps."),
)


def escape(text: str) -> str:
    """Text as roff has it: hyphens that can be copied, nothing taken for a request, other than ASCII by name."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    text = re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", text)
    return re.sub(r"(?m)^([.'])", r"\\&\1", text.replace("'", "\\(aq"))


def page_name(path: str) -> str:
    """"job attach" -> "fluxkv-job-attach"."""
    return "-".join(["fluxkv", *path.split()])


def commands(cli: click.Group) -> Iterator[tuple[str, click.Command]]:
    """(path, command) of the program ("") and all commands below it that are not hidden."""

    def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                if found is not None and not found.hidden:
                    yield from walk(f"{path} {name}".strip(), found)

    return walk("", cli)


def page(cli: click.Group, path: str, command: click.Command, date: str = "") -> str:
    """The page of one command. date: as shown at its foot, e.g. 2026-11-26."""
    context = context_of(cli, path, command)
    before, _, after = (command.help or "").partition("Examples:")
    paragraphs = [one for one in before.replace("\b\n", "").split("\n\n") if one.strip()]
    short = command.get_short_help_str(100).rstrip(".")
    lines = [
        f'.TH {page_name(path).upper()} 1 "{date}" "fluxkv {__version__}" "fluxkv manual"',
        ".SH NAME", f"{escape(page_name(path))} \\- {escape(short)}",
        ".SH SYNOPSIS", *_synopsis(context, command),
    ]  # fmt: skip
    lines += [".SH DESCRIPTION", *_paragraphs(paragraphs)]
    if isinstance(command, click.Group):
        lines += _subcommands(path, command, context)
    lines += _options(command, context)
    if after.strip():
        lines += [".SH EXAMPLES", *_examples(after)]
    lines += [".SH EXIT STATUS"]
    if path in _EXIT:
        lines += [escape(_EXIT[path]), ".PP", "Else:"]
    lines += _definitions(_EXITS)
    lines += [".SH ENVIRONMENT", *_definitions(_ENVIRONMENT), ".SH FILES", *_definitions(_FILES)]
    lines += [".SH SEE ALSO", *_see_also(cli, path, command)]
    return "\n".join(line for line in lines if line) + "\n"


def context_of(cli: click.Group, path: str, command: click.Command) -> click.Context:
    """As if the command had been called."""
    found: click.Command = cli
    context = click.Context(cli, info_name="fluxkv", **cli.context_settings)
    for name in path.split():
        assert isinstance(found, click.Group)
        found = found.get_command(context, name) or command
        context = click.Context(found, info_name=name, parent=context, **found.context_settings)
    return context


def _synopsis(context: click.Context, command: click.Command) -> list[str]:
    words = command.collect_usage_pieces(context)
    return [f".B {escape(context.command_path)}", " ".join(f"\\fI{escape(word)}\\fR" for word in words)]


def _paragraphs(paragraphs: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for text in paragraphs:
        lines += [".PP"] if lines else []
        lines.append(escape(" ".join(text.split())))
    return lines


def _definitions(pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = []
    for term, meaning in pairs:
        lines += [".TP", f"\\fB{escape(term)}\\fR", escape(meaning)]
    return lines


def _subcommands(path: str, command: click.Group, context: click.Context) -> list[str]:
    groups = getattr(command, "sections", None) or {"": command.list_commands(context)}
    lines = [".SH COMMANDS"]
    for title, names in groups.items():
        lines += [f".SS {escape(title)}"] if title else []
        for name in names:
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                page = page_name(f"{path} {name}")
                lines += [".TP", f"\\fB{escape(page)}\\fR(1)", escape(found.get_short_help_str(200))]
    return lines


def _options(command: click.Command, context: click.Context) -> list[str]:
    lines = []
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None:
            names = re.sub(r"(--?[\w-]+)", r"\\fB\1\\fR", record[0])
            names = "\\fB".join(escape(part) for part in names.split("\\fB"))
            lines += [".TP", names.replace("\\efR", "\\fR"), escape(record[1])]
    return [".SH OPTIONS", *lines] if lines else []


def _examples(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        typed, *comment = re.split(r"  +", line.strip(), maxsplit=1)
        if not typed:
            continue
        lines += [".TP" if comment else ".PP", f"\\fB{escape(typed)}\\fR", escape(comment[0]) if comment else ""]
    return lines[lines[:1] == [".PP"] :]  # none right after a section's head


def _see_also(cli: click.Group, path: str, command: click.Command) -> list[str]:
    names = []
    if path:
        above = path.rpartition(" ")[0]
        names.append(page_name(above))
        group = next((found for name, found in commands(cli) if name == above), cli)
        if above and isinstance(group, click.Group):
            siblings = group.list_commands(click.Context(group))
            names += [page_name(f"{above} {name}") for name in siblings if f"{above} {name}" != path]
    if isinstance(command, click.Group):
        names += [page_name(f"{path} {name}".strip()) for name in command.list_commands(click.Context(command))]
    return [f"\\fB{escape(name)}\\fR(1)" + ("," if name != names[-1] else "") for name in names]
