"""`start`, `stop`, `restart`: an instance from outside."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from ..kvs.errors import FluxkvError, Rejected
from ..kvs.uri import PASSWORD_VARIABLE
from .start_settings import memory_limit_option, name_policy, refuse_outside, refuse_server, refuse_together

UNBORN_S = 5.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-s", "--test-size", "size", type=click.IntRange(1), metavar="N", help="N nodes on this machine.")
@click.option(
    "--cores", type=click.IntRange(1), metavar="N", help="Cores of each node (default: all this machine has)."
)
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="GPUs of each node (default: those found).")
@click.option("--memory", "memory", type=click.IntRange(0), metavar="MB", help="Memory of each node in MiB.")
@click.option(
    "--property", "properties", multiple=True, metavar="NAME", help="A property of all nodes; may be repeated."
)
@click.option(
    "--resources", multiple=True, type=click.Path(), metavar="FILE",
    help="Nodes, or a graph, in R, JGF, GraphML (GRUG) or hwloc's XML (one a node: repeat it).",
)
@click.option("--fake", is_flag=True, help="Nodes that only pretend to run jobs.")
@click.option("--config", "config_path", type=click.Path(), metavar="FILE", help="Inventory, queues, policy (TOML).")
@click.option(
    "--conf", "conf", multiple=True, metavar="KEY=VALUE", help="Set one key of the config (queues.debug.requires=[\"ssd\"])."
)
@click.option(
    "--state-dir", type=click.Path(), metavar="DIR", help="Where the instance lives; one that is there is resumed."
)
@click.option("--detach", is_flag=True, help="Leave it running; the last line printed is its URI.")
@click.option(
    "--durability",
    type=click.Choice(["strict", "local", "replicated"]),
    help="When a write counts as kept: on disk, within a second, or on disk and with the server's replicas.",
)
@click.option("--replicas", type=click.IntRange(1, 16), metavar="N", help="For replicated: how many have to have it (1).")
@click.option("--replica-timeout", metavar="FSD", help="For replicated: refuse to acknowledge what they have not by then (1s).")
@click.option(
    "--redis", metavar="URL",
    help="Live on this server (default: FLUXKV_REDIS_URL, or the setting start.redis), or on one of its own: none.",
)
@click.option(
    "--kvs", type=click.Choice(["parent", "own"]),
    help="In a job: live on the server of the instance around it (the default), or on one of its own.",
)
@click.option("--unsafe-server", is_flag=True, help="Take that server even if it may lose or evict what it holds.")
@click.option(
    "--on-fork", type=click.Choice(["refuse", "adopt"]),
    help="When acknowledged history is lost: wait for fluxkv ops adopt (the default), or go on from what is left.",
)
@click.option(
    "--listen", is_flag=False, flag_value="0.0.0.0", metavar="[ADDR[:PORT]]",
    help="Let other hosts join over TCP (fluxkv agent --join), on all addresses of this host or on this one.",
)
@click.option(
    "--memory-limit", metavar="SIZE|PERCENT|none", callback=memory_limit_option,
    help="From how much memory of the server on new work is refused (default: half of the machine's or its control group's).",
)
@click.option("--workers", type=click.IntRange(1, 16), metavar="N", help="Worker processes (one plans at a time).")
@click.option("--policy", metavar="NAME", help="Queue policy: fcfs (the default), easy, hybrid, conservative, throughput.")
@click.option(
    "--keep",
    default="7d",
    show_default=True,
    metavar="FSD",
    help="How long the journal of a new instance is kept after its end.",
)
@click.option("--stay", is_flag=True, help="Run nothing in it; it ends by fluxkv stop, a signal, or with its job.")
@click.option("--drain", is_flag=True, help="Run nothing in it; it ends when no job is left, with the worst of their codes.")
@click.option("--resume", metavar="ID", help="Inside a job: go on with the instance that this one, which has ended, was.")
@click.option("--dump", default="", metavar="FILE", help="Write its whole journal there when it ends (journal import reads it).")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def start(
    size: int | None, cores: int | None, gpus: int | None, memory: int | None, properties: tuple[str, ...],
    resources: tuple[str, ...], fake: bool,
    config_path: str | None, conf: tuple[str, ...], state_dir: str | None, detach: bool,
    durability: str | None, redis: str | None, unsafe_server: bool, replicas: int | None,
    replica_timeout: str | None, on_fork: str | None, listen: str | None,
    memory_limit: str | None, workers: int | None, policy: str | None, keep: str, stay: bool, drain: bool,
    resume: str | None, dump: str, kvs: str | None, command: tuple[str, ...],
) -> None:  # fmt: skip
    """Start an instance and run COMMAND in it, or a shell; end it when that ends, with its exit code.

    \b
    Examples:
      fluxkv start                                a shell in a new instance
      fluxkv start fluxkv run hostname            one command
      fluxkv start -s 4 --cores 8 make            four nodes of eight cores on this machine
      fluxkv start --fake -s 1000 --cores 64      a big cluster that only pretends
      fluxkv start --fake --resources big.json    what a graph has: racks, sockets, power, ...
      fluxkv start --detach --state-dir ~/sims    leave it running; run again to bring up what is dead
      fluxkv start --redis redis://head:6379      on a server that is there, beside other instances
      fluxkv start --detach --listen              other hosts may join it: fluxkv uri --remote
      fluxkv start --dump sims.zip ./sims         its history in one file when it has ended
    """
    from ..instances import outside
    from ..instances import start as starting
    from ..instances.paths import StateDir, lock_held

    own_server = redis == "none" or listen is not None
    redis = None if redis == "none" else redis
    if redis:
        outside.hide_password(redis, sys.orig_argv)
    refuse_together(redis=redis, listen=listen, detach=detach, stay=stay, drain=drain, dump=dump, command=command)
    options = {"size": size, "cores": cores, "gpus": gpus, "memory": memory, "properties": properties,
               "resources": resources, "fake": fake,
               "config": config_path, "conf": conf, "policy_is_default": _is_default("policy"), "durability": durability,
               "workers": workers, "policy": policy, "listen": listen, "memory_limit": memory_limit,
               "stay": stay, "drain": drain, "resume": resume, "dump": dump and os.path.abspath(dump)}  # fmt: skip
    for name in [name for name in os.environ if name.startswith("FLUX_CRON_")]:  # what runs inside is not what cron started
        del os.environ[name]
    if state_dir is None:
        from ..instances.child import place

        here = place(os.environ)
        if here is not None:
            refuse_server(redis=redis, unsafe=unsafe_server, listen=listen)
            from .inside import start_child

            sys.exit(start_child(here, {**options, "on_fork": on_fork, "kvs": kvs}, list(command)))
    refuse_outside(resume, kvs)
    directory = StateDir(os.path.abspath(state_dir)) if state_dir else starting.new_state_dir()
    running = lock_held(directory.lock_file("keeper"))
    settings = _settings(directory, {
        **options, "keep": keep, "detached": detach, "redis": redis, "own_server": own_server, "unsafe": unsafe_server,
        "on_fork": on_fork, "replicas": replicas, "replica_timeout": replica_timeout,
    }, running)  # fmt: skip
    if running and not detach:
        raise Rejected(
            f"{directory.path}: this instance is running already ({settings['uri']})", code="running",
            hint=f"export FLUXKV_URI='{settings['uri']}', or fluxkv stop first",
        )  # fmt: skip
    sweep_old(directory.path)
    began = time.time()
    # With one running already this waits until that one is up (or gone), so that the URI is never printed too early.
    try:
        starting.start_keeper(directory, 0 if detach else os.getpid())
    except FluxkvError as error:
        if state_dir is None and settings.get("outside") and directory.path not in f"{error}{error.hint}":
            _forget_unborn(directory)
        raise
    if running:
        starting.wake_keeper(starting.keeper_pid(directory))
    starting.wait_for_nodes(settings["uri"])
    if detach:
        if settings.get("listen"):
            click.echo("fluxkv: listens on {}:{}; fluxkv uri --remote: what hosts join by".format(*settings["listen"]), err=True)
        click.echo(settings["uri"])
        return
    from .inside import run_inside

    drained = began if drain else 0.0
    sys.exit(run_inside(directory, settings["uri"], list(command), dump=dump and os.path.abspath(dump), stay=stay, drain=drained))


def _settings(directory: Any, options: dict[str, Any], running: bool) -> dict[str, Any]:
    """The settings of the instance in a directory, made if there is none, with what may be changed at each start."""
    from ..instances import outside
    from ..instances import start as starting
    from ..instances.user_settings import value_of
    from .start_settings import listen_from_now, move_line, refuse_changes, replicated_settings

    redis, unsafe = options["redis"], options["unsafe"]
    known = os.path.exists(directory.instance_file)
    if known:
        refuse_changes(directory, options, new_settings)
        settings: dict[str, Any] = directory.read()
    else:
        from ..journal.duration import parse_duration

        made = {**new_settings(options), "keep_s": parse_duration(options["keep"]), "detached": options["detached"]}
        if url := redis or ("" if options["own_server"] else value_of("start.redis")):
            made.update(outside.settings_for(url, directory, unsafe=unsafe))
        made.update(replicated_settings(options["durability"], options["replicas"], options["replica_timeout"], bool(url)))
        settings = starting.prepare(directory, made)
    for name in ("on_fork", "memory_limit"):
        if options[name] and settings.get(name) != options[name]:
            settings = {**settings, name: options[name]}
            directory.write(settings)
    if running and options["memory_limit"]:
        move_line(settings)
    if known and (redis or unsafe):
        if running:
            raise Rejected(f"{directory.path}: this instance is running, and its server cannot be changed", code="running",
                           hint="fluxkv stop first")  # fmt: skip
        settings = outside.at_another_place(settings, redis or str(settings["uri"]), directory, unsafe=unsafe)
        directory.write(settings)
    for name in (PASSWORD_VARIABLE, outside.VARIABLE):  # the password stands in a file now; what runs inside need not know it
        os.environ.pop(name, None)
    if known and options["listen"]:
        listen_from_now(directory, settings, options["listen"], running)
    return settings


def _forget_unborn(directory: Any) -> None:
    """A directory of our own choice whose instance never came to be (no journal was made) is nobody's: not listed, not kept."""
    import shutil
    import time

    from ..instances import door_folders
    from ..instances.paths import lock_held

    deadline = time.monotonic() + UNBORN_S
    while held := any(lock_held(directory.lock_file(role)) for role in ("keeper", "server", "launcher")):
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)  # the keeper ends what it has begun
    if not held and not directory.read().get("uid"):
        door_folders.remove_all(directory.path)
        shutil.rmtree(directory.path, ignore_errors=True)


def _is_default(name: str) -> bool:
    """Whether an option was not typed but is the user's setting: an instance's config file says more than that."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) == click.core.ParameterSource.DEFAULT_MAP


def _resources(options: dict[str, Any], configured: bool) -> dict[str, Any]:
    """The inventory of --resources."""
    from ..instances.resource_files import load
    from ..journal.rset import render_set

    given = [name for name in ("size", "cores", "gpus", "memory", "properties") if options[name]]
    if given or configured:
        other = "an inventory in --config" if configured else "-s" if given[0] == "size" else f"--{given[0]}"
        raise click.UsageError(f"--resources and {other} do not go together: each says which nodes there are")
    return render_set(load(options["resources"]))


def new_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Settings of a new instance from the command's options."""
    from ..instances import config_file, discover
    from .inside import config_settings

    settings: dict[str, Any] = {"fake": options["fake"]}
    R, config = None, dict[str, Any]()
    if options["config"] or options["conf"]:
        config = config_file.read_document(options["config"] or "", options["conf"])
        settings["fake"] = settings["fake"] or bool(config.get("resource", {}).get("fake"))
        R = discover.config_R(config, options["config"] or "(--conf)")
        if R is not None and (options["size"] or options["cores"]):
            raise click.UsageError("-s and --cores do not go with an inventory in --config")
    if options["resources"]:
        R = _resources(options, R is not None)
    settings["policy"] = name_policy(config, options["policy"], options["policy_is_default"])
    settings.update(config_settings(options, config))
    settings.update((name, options[name]) for name in ("durability", "workers", "memory_limit") if options[name])
    if options["listen"]:
        from ..kvs.listening import parse_listen, with_port

        settings["listen"] = list(with_port(parse_listen(options["listen"])))
    settings["R"] = R or discover.inventory(
        options["size"] or 1, options["cores"], options["gpus"], options["memory"], tuple(options["properties"]),
        fake=settings["fake"],
    )  # fmt: skip
    if settings.get("config_document"):
        from ..journal.decide_config import first
        from ..journal.rset import parse_R

        try:  # what the instance's first events would refuse, before there is an instance
            first(settings["config_document"], "", [node.host for node in parse_R(settings["R"]).nodes], 0, 0.0)
        except Rejected as error:
            raise config_file.named(error, options["config"] or "") from None
    return settings


def sweep_old(but: str) -> None:
    """Remove state directories of ended instances whose time is up."""
    import shutil
    import time

    from ..instances import door_folders
    from ..instances.paths import known

    for directory in known():
        if directory.path == but or directory.running():
            continue
        try:
            settings = directory.read()
            ended = os.path.getmtime(directory.join("tip"))
        except (FluxkvError, OSError):
            continue
        if not settings.get("detached") and time.time() - ended > settings.get("keep_s", 7 * 86400.0):
            door_folders.remove_all(directory.path)
            shutil.rmtree(directory.path, ignore_errors=True)


def find_directory(state_dir: str | None, uri: str | None) -> Any:
    """The state directory named, or that of the instance at a URI: the given one, or what `find_uri` finds."""
    from ..instances.paths import StateDir, find_uri, state_dir_of
    from ..kvs.uri import public

    if state_dir:
        directory = StateDir(os.path.abspath(state_dir))
        directory.read()
        return directory
    uri = find_uri(uri)
    found = state_dir_of(uri)
    if found is None:
        raise Rejected(
            f"{public(uri)}: its state directory is not on this host", code="no-state-dir", hint="name it with --state-dir DIR"
        )
    return found


@click.command()
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
@click.option("--state-dir", type=click.Path(), metavar="DIR", help="The instance's state directory.")
@click.option("--timeout", default="60s", metavar="FSD", help="Give up waiting after this long.")
def stop(uri: str | None, state_dir: str | None, timeout: str) -> None:
    """End the instance: running jobs get TERM, then KILL; pending ones stay for the next start.

    \b
    Examples:
      fluxkv stop
      fluxkv stop --state-dir ~/sims
    """
    from ..instances import start as starting
    from ..journal.duration import parse_duration

    starting.stop(find_directory(state_dir, uri), parse_duration(timeout))


def _way_up(directory: Any) -> str:
    """What brings an instance up that does not run: one that is a job is gone on with by another job."""
    from ..instances.job_path import typed_at
    from ..kvs.uri import parse_uri

    settings = directory.read()
    around = parse_uri(str(settings.get("uri", ""))).namespace.rpartition("/")[0]
    if not settings.get("job"):
        return f"fluxkv start --detach --state-dir {directory.path}"
    return f"fluxkv {typed_at(around or '/')}batch --resume {settings['job']} goes on with it"


@click.command()
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
@click.option("--state-dir", type=click.Path(), metavar="DIR", help="The instance's state directory.")
@click.option("--timeout", default="20s", metavar="FSD", help="Give up waiting after this long.")
def restart(uri: str | None, state_dir: str | None, timeout: str) -> None:
    """Replace the instance's daemons while its tasks run on.

    New programs are used from then on, but by the keeper, which looks after the others, the server and launchers with tasks: a
    stop and a start renew these.

    \b
    Examples:
      fluxkv restart
    """
    from ..instances import start as starting
    from ..journal.duration import parse_duration

    directory = find_directory(state_dir, uri)
    pid = starting.keeper_pid(directory)
    if not pid:
        raise Rejected(
            f"{directory.path}: the instance is not running",
            code="not-running",
            hint=_way_up(directory),
        )
    starting.restart(directory, pid, parse_duration(timeout))
