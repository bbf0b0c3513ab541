"""What may stand in each place of a command line: completion's one source. Decides it by a parameter's metavar and name, so
that a command which uses the house's words (ID, QUEUE, NODE, USER, FILE, ...) completes without saying so.

A `Kind` gets the word as typed so far and what is known (`Known`), and yields (value, description). FILE and DIR are left to
the shell. Nothing here may print, wait, or start anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.state import State

Values: TypeAlias = "Iterable[tuple[str, str]]"
Kind: TypeAlias = "Callable[[Known, str], Values]"
MOST = 200  # job ids offered at once, the newest


class Known:
    """What a completion may look at; the instance is read when first asked for, and an empty state stands for none."""

    def __init__(self, context: click.Context) -> None:
        self.context = context
        self.above = ""  # the job path in front of the word's last slash
        self._state: State | None = None

    @property
    def command(self) -> str:
        """"job attach"."""
        return self.context.command_path.partition(" ")[2]

    @property
    def state(self) -> State:
        if self._state is None:
            from ..instances.paths import StateDir, find_uri
            from ..journal.log import Journal
            from ..kvs.redis_store import open_store

            named = self.context.params
            directory = named.get("state_dir")
            uri = find_uri(StateDir(os.path.expanduser(directory)).read()["uri"] if directory else named.get("uri"))
            inside = [text for text in (self.context.find_root().params.get("path"), self.above) if text]
            if inside:
                from ..instances.job_path import instance_at, parse_path

                for text in inside:
                    uri = instance_at(uri, parse_path(text))
            store = open_store(uri)
            try:
                self._state = Journal(store).look()
            finally:
                store.close()
        return self._state

    def module(self) -> Any:
        """The module that holds the command."""
        import sys

        return sys.modules.get(getattr(self.context.command.callback, "__module__", ""))


def _words(*words: str) -> Kind:
    return lambda known, typed: ((word, "") for word in words)


# -- what the instance knows --------------------------------------------------------------------------------

# Command -> the states (masks of journal.job) of jobs it can do something with; all others take any job.
_WANTED = {
    "cancel": "active", "job attach": "running pending", "job kill": "running", "job raise": "active",
    "job urgency": "pending", "job wait": "active", "job wait-event": "active", "job timeleft": "running",
    "job hostpids": "running", "update": "pending running", "watch": "active", "resubmit": "inactive",
    "job purge": "inactive", "requeue": "running", "resize": "running", "hold": "pending", "release": "pending",
}  # fmt: skip


def job_ids(known: Known, typed: str) -> Values:
    """Ids in the form the word begins with: ƒ..., f..., or a number; behind a slash those in the instance that a job is."""
    from ..journal.ids import encode
    from ..journal.job import ACTIVE, INACTIVE, NEW, PENDING, RUNNING
    from .jobview import status_abbrev

    above, slash, typed = typed.rpartition("/")
    if slash:
        known.above = above or "/"
    masks = {"active": ACTIVE | NEW, "pending": PENDING | NEW, "running": RUNNING, "inactive": INACTIVE}
    wanted = 0
    for word in _WANTED.get(known.command, "").split():
        wanted |= masks[word]
    form = "dec" if typed.isdecimal() else "f58plain" if typed.startswith("f") else "f58"

    given = _given_ids(known)
    found = 0
    for job in _latest_first(known.state, inactive=not wanted or bool(wanted & INACTIVE)):
        if wanted and not job.state & wanted:
            continue
        text = encode(job.id, form)
        if text.startswith(typed) and job.id not in given:
            yield above + slash + text, f"{job.name} {status_abbrev(job)}"
            found += 1
            if found == MOST:
                return


def child_instances(known: Known, typed: str) -> Values:
    """Job paths of instances."""
    from ..journal.ids import encode

    above, slash, last = typed.rpartition("/")
    if slash:
        known.above = above or "/"
    form = "dec" if last.isdecimal() else "f58plain" if last.startswith("f") else "f58"
    for job in _latest_first(known.state, inactive=True):
        if "uri" in job.memo:
            yield above + slash + encode(job.id, form), job.name


def _latest_first(state: State, *, inactive: bool) -> Iterator[Job]:
    """Active jobs, then inactive ones, the latest first; what a snapshot holds packed is unpacked as far as it is wanted."""
    from ..journal.blocks import LazyJobs
    from ..journal.job import INACTIVE

    def order(job: Job) -> tuple[bool, int]:
        return job.state == INACTIVE, -job.order

    jobs = state.jobs
    yield from sorted(jobs.unpacked() if isinstance(jobs, LazyJobs) else jobs.values(), key=order)
    if inactive and isinstance(jobs, LazyJobs):
        for block in sorted(jobs.blocks, key=lambda block: -block.t_last):
            yield from sorted(block.jobs(), key=order)


def _given_ids(known: Known) -> set[int]:
    """Ids that stand on the command line already."""
    from ..journal.ids import parse_id
    from ..kvs.errors import Rejected

    given = known.context.params.get("ids") or ()
    found = set()
    for text in given if isinstance(given, tuple | list) else (given,):
        for part in str(text).split(","):
            try:
                found.add(parse_id(part))
            except Rejected:
                continue
    return found


def queues(known: Known, typed: str) -> Values:
    for queue in known.state.queues.values():
        flags = [] if queue.enabled else ["disabled"]
        flags += [] if queue.started else ["stopped"]
        yield queue.name, ", ".join(flags) or "open, started"


def nodes(known: Known, typed: str) -> Values:
    """Host names where they tell nodes apart, else ranks."""
    there = sorted(known.state.nodes.values(), key=lambda node: node.rank)
    hosts = {node.host for node in there}
    by_rank = len(hosts) < len(there) or typed[:1].isdecimal()
    for node in there:
        yield (str(node.rank) if by_rank else node.host), f"{node.host if by_rank else f'rank {node.rank}'} {node.state}"


def users(known: Known, typed: str) -> Values:
    from .reading import user_name

    yield "all", "everybody"
    yield user_name(os.getuid()), "you"
    others = {job.userid for job in _latest_first(known.state, inactive=False)}
    yield from ((user_name(id), "") for id in sorted(others))


def keys(known: Known, typed: str) -> Values:
    return ((key, "") for key, _ in known.state.tree.leaves())


def config_keys(known: Known, typed: str) -> Values:
    """Keys of the instance's config, tables and what is in them."""

    def walk(prefix: str, table: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in table.items():
            yield prefix + name, "" if isinstance(value, dict) else str(value)
            if isinstance(value, dict):
                yield from walk(f"{prefix}{name}.", value)

    return walk("", known.state.config)


def cron_entries(known: Known, typed: str) -> Values:
    return ((str(entry.id), f"{entry.name} ({entry.type})") for entry in known.state.cron.entries.values())


def constraints(known: Known, typed: str) -> Values:
    for name in sorted({name for node in known.state.nodes.values() for name in node.properties}):
        yield name, "property"
    yield "host:", "these hosts"
    yield "rank:", "these ranks"


def instances(known: Known, typed: str) -> Values:
    from ..instances import paths

    return ((str(one.read()["uri"]), one.path) for one in paths.known() if one.running())


# -- what is written in the code ----------------------------------------------------------------------------


def states(known: Known, typed: str) -> Values:
    """States and results of jobs, or states of nodes."""
    if known.command.startswith("resource"):
        from .resourceview import LIST_STATES, STATUS_STATES

        return ((word, "") for word in (STATUS_STATES if known.command == "resource status" else LIST_STATES))
    from ..journal.job import JobState, Result

    words = ["pending", "running", "active", *(one.name.lower() for one in JobState if one.name)]
    words += [one.name.lower() for one in Result]
    return ((word, "") for word in dict.fromkeys(words))


def formats(known: Known, typed: str) -> Values:
    """Formats the command's module names."""
    if known.command in ("jobs", "pgrep"):
        from .named_formats import BUILT_IN, configured

        named = {**BUILT_IN, **configured()}
    elif known.command.startswith("resource "):
        from .resourceview import BOOKS

        book = BOOKS[known.command.partition(" ")[2]]
        named = {**book.built_in, **book.configured()}
    if known.command in ("jobs", "pgrep") or known.command.startswith("resource "):
        return [*((name, one.description) for name, one in named.items()), ("help", "the formats and fields")]
    return [(name, "") for name in getattr(known.module(), "FORMATS", ())]


def fields(known: Known, typed: str) -> Values:
    from .jobfields import FIELDS

    minus = "-" if typed.startswith("-") else ""
    return ((minus + name, "") for name in FIELDS)


def signals(known: Known, typed: str) -> Values:
    import signal

    prefix = "SIG" if typed.startswith("SIG") else ""
    return ((prefix + one.name.removeprefix("SIG"), str(int(one))) for one in signal.Signals)


def events(known: Known, typed: str) -> Values:
    from ..journal.catalogue import CATALOGUE

    return ((name, kind.meaning) for (subject, name), kind in CATALOGUE.items() if subject == "job")


def dependencies(known: Known, typed: str) -> Values:
    from ..journal.dependency import DESCRIBED, JOINED

    yield from ((f"{scheme}:", described) for scheme, described in DESCRIBED.items())
    yield from ((f"{scheme}(", "of several") for scheme in JOINED)
    yield from (("singleton", "of its name"), ("begin-time:", "seconds since 1970"))


def policies(known: Known, typed: str) -> Values:
    from ..schedulers.plugins import names_of

    return ((name, "") for name in names_of("fluxkv.policies"))


def flags(known: Known, typed: str) -> Values:
    from .options import FLAGS

    return ((name, "") for name in FLAGS)


def causes(known: Known, typed: str) -> Values:
    from ..journal.retry import PLAIN

    return ((name, "") for name in PLAIN)


def roles(known: Known, typed: str) -> Values:
    return ((name, "") for name in getattr(known.module(), "ROLES", ()))


def levels(known: Known, typed: str) -> Values:
    return ((name, "") for name in getattr(known.module(), "LEVELS", ()))


def programs(known: Known, typed: str) -> Iterator[tuple[str, str]]:
    """Commands on PATH; a path, and the words after the command, are files."""
    if known.context.params.get("words") or known.context.params.get("command") or "/" in typed or not typed:
        yield FILE
        return
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        try:
            with os.scandir(folder or ".") as entries:
                yield from (
                    (entry.name, "") for entry in entries if entry.name.startswith(typed) and os.access(entry.path, os.X_OK)
                )
        except OSError:
            continue


def variables(known: Known, typed: str) -> Values:
    return ((name, "") for name in os.environ)


def updates(known: Known, typed: str) -> Values:
    """Of `update`: job ids, keys, and what a key may be."""
    from ..journal.decide_update import SHORT

    if typed.startswith("queue="):
        return ((f"queue={queue}", about) for queue, about in queues(known, ""))
    return [*job_ids(known, typed), *((f"{key}=", "") for key in SHORT)]


def resizes(known: Known, typed: str) -> Values:
    """Of `resize`: a job's id, then how many nodes."""
    if known.context.params.get("words"):
        return ((text, about) for text, about in (("+1N", "one node more"), ("-1N", "one node less"), ("=1N", "one node in all")))
    return job_ids(known, typed)


def commands(known: Known, typed: str) -> Values:
    """Commands of fluxkv, or those below the words that are there already."""
    from .main import COMMANDS, cli

    words = known.context.params.get("words") or ()
    if not words:
        return ((name, about) for name, (_, _, about) in COMMANDS.items())
    group: click.Command | None = cli
    for word in words:
        group = group.get_command(known.context, word) if isinstance(group, click.Group) else None
    found = group.commands if isinstance(group, click.Group) else {}
    return ((name, below.get_short_help_str()) for name, below in found.items())


def job_names(known: Known, typed: str) -> Values:
    """Names of active jobs."""
    return ((job.name, "") for job in _latest_first(known.state, inactive=False))


FILE = ("\0file", "")  # the shell completes file names
DIR = ("\0dir", "")


def _shell(marker: tuple[str, str]) -> Kind:
    return lambda known, typed: [marker]


def jobs_and_nodes(known: Known, typed: str) -> Values:
    """What `explain` explains."""
    yield from job_ids(known, typed)
    yield from nodes(known, typed)


# -- which of them a parameter is ---------------------------------------------------------------------------

nothing = _words()
file, folder = _shell(FILE), _shell(DIR)
BY_METAVAR: dict[str, Kind] = {
    "ID": job_ids, "JOB": job_ids, "QUEUE": queues, "NODE": nodes, "NODES": nodes, "TARGETS": nodes, "HOSTS": nodes, "RANKS": nodes,
    "USER": users, "URI": instances, "FILE": file, "DIR": folder, "STATE": states, "FORMAT": formats, "SIG": signals,
    "[SIG][@TIME]": signals, "EVENT": events, "FIELD": fields, "[-]FIELD": fields, "FLAG": flags, "ROLE": roles,
    "LEVEL": levels, "KEY": keys, "CONSTRAINT": constraints, "COMMAND": programs, "SCRIPT": file, "FILE.svg": file, "TARGET": nodes,
    "JOB|PATH": child_instances, "JOB|PATH|URI": child_instances, "ID|NAME": cron_entries, "ID|NODE|PATH": jobs_and_nodes,
    "BASENAME": file, "URGENCY": _words("hold", "default", "expedite"), "RULE": variables, "PATTERN": variables,
    "SCHEME:VALUE": dependencies, "TYPE": _words("cancel"),
    "VERSION|TIME": _words("now", "today", "yesterday"), "WHEN": _words("today", "yesterday"),
}  # fmt: skip
starting = _words("--policy=", "--workers=", "--memory-limit=", "--on-fork=adopt")  # of a child's `start`
LIMITS = ("core=", "cpu=", "fsize=", "memlock", "nofile=", "nproc=", "stack=", "-*")
BY_NAME: dict[str, Kind] = {
    "queue": queues, "queues": queues, "policy": policies, "user": users, "urgency": BY_METAVAR["URGENCY"],
    "requires": constraints, "hosts": nodes, "wait_event": events, "add_file": file,
    "retry_on": causes, "key": nothing, "address": file, "listen": nothing,
    "taskmap": _words("block", "cyclic", "manual:", "hostfile:"), "rlimit": _words(*LIMITS), "define": nothing, "sep": nothing,
}  # fmt: skip
BY_COMMAND: dict[tuple[str, str], Kind] = {
    ("queue", "name"): queues, ("config", "key"): config_keys, ("help", "words"): commands,
    ("man", "words"): commands, ("update", "words"): updates, ("resize", "words"): resizes,
    ("", "path"): child_instances,
    ("batch", "conf"): file, ("alloc", "conf"): file, ("batch", "broker_opts"): starting, ("alloc", "broker_opts"): starting,
    ("pgrep", "expression"): job_names, ("pkill", "expression"): job_names,
    **{
        ("kvs", name): keys for name in ("source", "destination", "target", "linkname", "keys")
    },
}  # fmt: skip
# Numbers, times and prose: nothing can be offered.
FREE = {
    "HOST", "N", "MB", "FSD", "+FSD", "NOTE", "REASON", "VERSION", "IDSET", "VALUE", "DATETIME", "+FSD|DATETIME", "KEY=VAL",
    "KEY=VALUE", "NAME", "COLUMNS", "COUNT", "SECONDS", "QUERY", "NODEID", "TASKID", "TEXT", "CA", "HIGH:LOW", "force", "severity",
    "reason", "count", "name", "URL", "SIZE", "UID", "PATH", "KEY[=VALUE", "NAME[:KEY=VALUE",
    "DEPTH", "EXPRESSION",
}  # fmt: skip


def kind_of(command: str, param: click.Parameter) -> Kind | None:
    """What completes a parameter of a command ("queue start"); None when nothing here says."""
    metavar = (param.metavar or param.name or "").replace("...", "").split()[0].rstrip(",")
    if metavar not in BY_METAVAR:
        metavar = metavar.strip("[],")
    if metavar not in BY_METAVAR:
        metavar = metavar.partition("|")[0]  # one of several forms
    name = param.name or ""
    found = BY_COMMAND.get((command.partition(" ")[0], name)) or BY_NAME.get(name)
    found = found or BY_METAVAR.get(metavar) or BY_METAVAR.get(metavar.upper())
    return found or (nothing if metavar in FREE else None)
