"""What `fluxkv start` may change of an instance that is there already, and what it refuses to. Writes settings, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..kvs.errors import Rejected

INVENTORY = ("size", "cores", "gpus", "memory", "properties", "resources", "fake")  # what stays as it is


def memory_limit_option(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Of --memory-limit: refused before there is an instance."""
    if value is not None:
        from ..instances.memory_line import parse_line

        parse_line(value)
    return value


def name_policy(document: dict[str, Any], option: str | None, by_default: bool) -> str:
    """The policy of a new instance; one that an option names is put into the config. Raises `Rejected` for one that is not there.

    by_default: the option is a user's usual one, which a config that names one overrules.
    """
    scheduler = document.get("policy", {}).get("scheduler", {})
    here = scheduler.get("queue-policy") or document.get("queue", {}).get("policy") or "fcfs"
    if option and option != here and not (by_default and (scheduler.get("queue-policy") or document.get("queue"))):
        if "queue-policy" in scheduler:
            scheduler["queue-policy"] = option
        else:
            document["queue"] = {"policy": option}
        from ..instances.config_file import check_policies
        from ..journal.config import parse_rules

        try:
            check_policies(parse_rules(document), document)
        except Rejected as error:
            raise Rejected(f"--policy: {str(error).rpartition(': ')[2]}", code=error.code, hint=error.hint) from None
        here = option
    return here


def refuse_together(
    *, redis: str | None, listen: str | None, detach: bool, stay: bool, drain: bool, dump: str, command: tuple[str, ...]
) -> None:
    """Options that cannot stand side by side. Raises click.UsageError."""
    if redis and listen:
        raise click.UsageError("--listen is for a server of our own; other hosts reach the one of --redis as we do")
    if stay and drain:
        raise click.UsageError("--stay and --drain say two different ends")
    if (detach or stay or drain) and command:
        option = "--detach" if detach else "--stay" if stay else "--drain"
        raise click.UsageError(f"{option} takes no command: submit jobs to the instance afterwards")
    if detach and (stay or drain or dump):
        option = "--stay" if stay else "--drain" if drain else "--dump"
        raise click.UsageError(f"--detach returns at once: {option} does not go with it")


def refuse_outside(resume: str | None, kvs: str | None) -> None:
    """What means nothing outside of jobs. Raises `Rejected`."""
    if kvs == "parent":
        raise Rejected("--kvs=parent is for an instance inside a job", code="no-parent", hint="--redis URL names a server")
    if resume:
        raise Rejected(
            "--resume goes on with an instance that a job was, and this is no job", code="no-job",
            hint="fluxkv batch --resume JOB submits one; fluxkv start --detach --state-dir DIR brings up what is no job",
        )  # fmt: skip


def refuse_server(*, redis: str | None, unsafe: bool, listen: str | None) -> None:
    """What says where the server is does not go with an instance inside a job. Raises `Rejected`."""
    if redis or unsafe or listen:
        raise Rejected("--redis and --listen do not go with a child instance", code="child",
                       hint="it lives on its parent's server, or, with --kvs=own, on one of its own")  # fmt: skip


def move_line(settings: dict[str, Any]) -> None:
    """Draw the soft memory line of an instance that runs anew; its keeper draws it only when it starts."""
    from ..instances.memory_line import set_line
    from ..kvs.redis_store import open_store

    store = open_store(settings["uri"])
    try:
        set_line(store, settings["memory_limit"])
    finally:
        store.close()


def refuse_changes(directory: Any, options: dict[str, Any], made: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """What an instance that is there already keeps, whatever the command line says; saying the same again is no change.

    made: the settings that a new instance would have with these options.
    """
    if directory.read().get("join"):
        raise Rejected(
            f"{directory.path} is of a host that has joined an instance", code="joined",
            hint=f"fluxkv agent --state-dir {directory.path}",
        )  # fmt: skip
    given = [name for name in (*INVENTORY, "config", "conf") if options[name]]
    if given and not ({"config", "conf"}.isdisjoint(given) and _is_same(directory.read(), made(options))):
        what = "-s" if given[0] == "size" else f"--{given[0]}"
        changes = "config" if given[0].startswith("conf") else "resources"
        raise Rejected(
            f"{directory.path} holds an instance already, and {what} cannot change its {changes}", code="exists",
            hint="fluxkv config load changes the config of a running instance" if changes == "config"
            else "leave it out, or choose another --state-dir",
        )  # fmt: skip
    _refuse_fixed(directory, options)


def _is_same(settings: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether these are the nodes that an instance was made with."""
    return all(settings.get(name) == wanted.get(name) for name in ("R", "fake"))


def _refuse_fixed(directory: Any, options: dict[str, Any]) -> None:
    """What an instance was created with and keeps; saying the same again is no change."""
    settings = directory.read()
    for name, default in (("policy", "fcfs"), ("durability", "strict"), ("workers", 1)):
        here = settings.get(name) or default
        if options[name] and options[name] != here and not (name == "policy" and options["policy_is_default"]):
            raise Rejected(
                f"{directory.path} holds an instance already, and --{name} cannot change that ({here})", code="exists",
                hint="fluxkv config load changes it" if name == "policy" else "leave it out, or choose another --state-dir",
            )  # fmt: skip


def listen_from_now(directory: Any, settings: dict[str, Any], listen: str, running: bool) -> None:
    """Have the server of an instance that is there listen (on another address) from its next start on."""
    from ..kvs.listening import parse_listen, with_port

    if settings.get("outside"):
        raise Rejected(f"{directory.path}: its server is not ours to say where it listens", code="outside")
    wanted, before = parse_listen(listen), settings.get("listen")
    if before and (not wanted.port or wanted.port == before[1]) and wanted.host == before[0]:
        return
    if running:
        raise Rejected(
            f"{directory.path}: this instance is running, and its server does not listen there", code="running",
            hint="fluxkv stop first, then start it with --listen",
        )  # fmt: skip
    settings["listen"] = list(with_port(wanted))
    directory.write(settings)


def replicated_settings(durability: str | None, replicas: int | None, timeout: str | None, outside: bool) -> dict[str, Any]:
    """What `--durability replicated` adds to a new instance's settings. Raises `Rejected` for what does not go with it."""
    from ..journal.duration import parse_duration
    from ..kvs.replicated import MOST_WAIT_MS, wanted

    if durability != "replicated":
        if replicas or timeout:
            raise Rejected("--replicas and --replica-timeout go with --durability replicated", code="bad-options")
        return {}
    if not outside:
        raise Rejected(
            "an instance's own server has no replicas", code="no-replicas",
            hint="name the primary of servers that replicate: --redis URL --durability replicated",
        )  # fmt: skip
    wait_ms = round(parse_duration(timeout or "1s") * 1000)
    if not 0 < wait_ms <= MOST_WAIT_MS:
        raise Rejected(f"--replica-timeout {timeout}: not above 0 and at most {MOST_WAIT_MS // 1000}s", code="bad-duration")
    return {"replicas": wanted(replicas or 1, wait_ms)}
