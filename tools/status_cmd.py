"""`fluxkv status` and `fluxkv list`: how an instance is, with what is wrong first; and which instances there
are.

Looks at the state directory and at the journal; answers as much as it can when one of them is out of reach.
Changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.paths import StateDir
    from ..journal.log import Journal

ASIDE_SHOWN = 5
NEARLY = 0.9
FEW_BYTES = 200_000_000  # of free disk below which status warns


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON; its `processes` are the daemons.")
@target_options
def status(as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Say how the instance is: problems first, then daemons, jobs, nodes, queues, journal, disk.

    Exit status 3 if its journal cannot be reached.

    \b
    Examples:
      fluxkv status
      fluxkv status --json | jq -r '.processes[] | select(.role=="worker").pid'
      fluxkv status --state-dir ~/old
    """
    from . import render

    document = gather(uri, state_dir)
    if as_json:
        render.print_json(document)
    else:
        _show(document)
    if document["state"] == "unreachable":
        raise SystemExit(3)


def gather(uri: str | None, state_dir: str | None) -> dict[str, Any]:
    """Everything `status --json` says. Raises `Rejected` or `Unavailable` only when no instance is named."""
    import os

    from ..instances.paths import StateDir, find_uri, state_dir_of
    from ..kvs.errors import FluxkvError
    from ..kvs.uri import public
    from .daemons import disk, given_up, processes, way_out
    from .heard import directory_here
    from .status_children import children_not_up

    directory: StateDir | None
    if state_dir and not uri:
        directory = StateDir(os.path.abspath(os.path.expanduser(state_dir)))
        address = str(directory.read().get("uri", "")) if os.path.exists(directory.instance_file) else ""
    else:
        address = find_uri(uri)
        directory = state_dir_of(address) or directory_here(address)
    document: dict[str, Any] = {
        "uri": public(address),
        "state_dir": directory.path if directory else None,
        "state": "running",
    }
    problems: list[str] = []
    document["problems"] = problems
    document["processes"] = processes(directory) if directory else []
    # Whoever has all of the instance's daemons here need not be told of them by the server.
    apart = directory is None or (os.path.exists(directory.instance_file) and bool(directory.read().get("join")))
    try:
        with open_journal(uri, state_dir) as journal:
            _journal_part(journal, document, address if apart else "")
    except FluxkvError as error:
        document["state"] = "unreachable"
        hint = error.hint.removeprefix("fluxkv status says more; ")
        problems.append(f"{error}" + (f" ({hint})" if hint else ""))
    if directory is not None:
        _daemon_part(directory, address, document)
        document["disk"] = disk(directory.path)
        for name, why in given_up(directory).items():
            again = way_out(directory, why)
            if name == "server" and directory.running():  # of which nobody despairs
                problems.insert(0, f"the server does not come up, and is tried again: {why}")
            else:
                problems.insert(0, f"the {name} was given up: {why}" + (f" ({again} tries again)" if again else ""))
        problems += children_not_up(directory)
        _disk_part(document, directory.path)
    return document


def _disk_part(document: dict[str, Any], path: str) -> None:
    """First of all, since most else that is wrong follows from it."""
    from ..kvs.resp import disk_is_full

    free = document["disk"].get("free", FEW_BYTES)
    if disk_is_full(path):
        document["problems"].insert(0, f"the disk is full at {path}: free some of it, and the instance goes on by itself")
    elif free < FEW_BYTES:
        document["problems"].insert(0, f"the disk is nearly full: {free // 10**6} MB free at {path}")


def _journal_part(journal: Journal, document: dict[str, Any], heard_at: str) -> None:
    from ..journal.job import STATE_NAMES
    from ..journal.quarantine import listed
    from .queueview import policy_of
    from .status_children import children_lost

    state = journal.look()
    meta = journal.meta
    document |= {
        "namespace": journal.store.namespace, "uid": meta.uid, "version": state.version, "epoch": meta.epoch,
        "durability": meta.durability, "created": meta.created, "started": state.instance.get("started", 0.0),
        "owner": state.instance.get("owner"), "time": state.time, "events": state.events,
        "retired": state.retired, "impossible": state.quarantine.total,
        "aside": [aside.document() for aside in listed(state.quarantine.table)],
    }  # fmt: skip
    _memory_part(journal, document)
    _archive_part(journal, state.config, document)
    results = {result.name.lower(): number for result, number in state.ended().items()}
    document["jobs"] = {
        name.lower(): state.counts.get(number, 0) for number, name in STATE_NAMES.items()
    } | results
    nodes = list(state.nodes.values())
    document["nodes"] = {
        "total": len(nodes), "up": sum(node.online and not node.shut for node in nodes),
        "down": sum(not node.online or node.shut for node in nodes),
        "drained": sum(node.drain is not None for node in nodes),
        "cores": sum(node.cores.bit_count() for node in nodes),
        "used_cores": sum(node.used_cores.bit_count() for node in nodes),
    }  # fmt: skip
    document["queues"] = [
        {"name": queue.name, "enabled": queue.enabled, "started": queue.started, "disable_reason": queue.disable_reason,
         "stop_reason": queue.stop_reason, "policy": policy_of(state, queue.name)} for queue in state.queues.values()
    ]  # fmt: skip
    if heard_at:
        from .heard import heard

        document["heard"] = heard(journal, heard_at, {rank: node.host for rank, node in state.nodes.items()})
    if state.instance.get("stopped"):
        document["state"] = "stopped"
        document["stopped"] = state.instance["stopped"]
    _journal_problems(document, state)
    document["problems"] += children_lost(journal, state)
    if meta.sealed:
        del document["memory"]  # a server's, perhaps, that is not its own
        from ..instances.left_behind import remark

        document["state"], document["stopped"] = "stopped", document.get("stopped", float(meta.sealed))
        left = remark(journal, state)
        document["problems"][:] = [left] if left else []  # nodes and daemons are not its own any more


def _archive_part(journal: Journal, config: dict[str, Any], document: dict[str, Any]) -> None:
    """What of the history is in the archive only, and how the last run of the archiver went."""
    from ..instances.archive_note import read_children_note, read_note
    from ..instances.paths import StateDir
    from ..journal.archive_config import archive_rules

    meta = journal.meta
    directory = StateDir(document["state_dir"]) if document["state_dir"] else None
    note = read_note(directory) if directory is not None else {}
    document["archive"] = None
    document["ended_children"] = read_children_note(directory) or None if directory is not None else None
    if document["ended_children"] and document["ended_children"]["error"]:
        document["problems"].append(f"children that ended stay in the server: {document['ended_children']['error']}")
    if meta.first == 1 and not archive_rules(config).on:
        return
    place = meta.archive or note.get("url", "")
    document["archive"] = {"place": place, "trimmed": meta.first - 1, "last_run": note.get("time", 0.0)}
    if note.get("error"):
        document["problems"].append(f"history is not archived: {note['error']}")


def _memory_part(journal: Journal, document: dict[str, Any]) -> None:
    """How much of the server's memory is used, and from where on new work is refused; "" of a server that does not say."""
    from ..kvs.errors import Unavailable

    line = journal.meta.room
    try:
        used, maxmemory, _ = journal.store.memory()
    except Unavailable:
        used = maxmemory = 0
    document["memory"] = {"used": used, "line": line, "maxmemory": maxmemory}
    lowest = min(filter(None, (line, maxmemory)), default=0)
    if lowest and used > lowest:
        document["problems"].append(
            f"the server's memory is full ({used >> 20} of {lowest >> 20} MiB): new work is refused, what runs ends "
            "(fluxkv journal archive --now --trim)"
        )
    elif lowest and used > NEARLY * lowest:
        document["problems"].append(f"the server's memory is nearly full: {used >> 20} of {lowest >> 20} MiB")


def _journal_problems(document: dict[str, Any], state: Any) -> None:
    from ..journal.hostlist import compress
    from ..journal.ids import f58
    from ..journal.job import SCHED
    from ..journal.quarantine import listed, passed_over
    from ..journal.shown import counted
    from ..schedulers.policy import Code

    problems = document["problems"]
    down = [node.host for _, node in sorted(state.nodes.items()) if not node.online]
    drained = [node.host for _, node in sorted(state.nodes.items()) if node.drain is not None]
    if down and document["state"] == "running":
        reasons = sorted({node.down[1] for node in state.nodes.values() if node.down is not None})
        why = f" ({'; '.join(reasons[:3])})" if reasons else ""
        problems.append(f"{len(down)} of {len(state.nodes)} nodes are down: {compress(down)}{why}")
    shut = [node.host for _, node in sorted(state.nodes.items()) if node.shut]
    if shut:
        some = f"{len(shut)} of {len(state.nodes)}"
        problems.append(f"{some} nodes are set down in the graph: {compress(shut)} (fluxkv resource show)")
    if drained:
        are = f"{counted(len(drained), 'node')} {'is' if len(drained) == 1 else 'are'}"
        problems.append(f"{are} drained: {compress(drained)} (fluxkv resource drain shows why)")
    for queue in state.queues.values():
        if not queue.enabled:
            problems.append(f"queue {queue.name} takes no jobs: {queue.disable_reason or 'no reason given'}")
        if not queue.started:
            problems.append(f"queue {queue.name} is stopped: {queue.stop_reason or 'no reason given'}")
    faulty = [job for job in state.active() if job.state == SCHED and job.reason[0] == Code.FAULTY]
    for job in faulty[:ASIDE_SHOWN]:
        problems.append(f"job {f58(job.id)} sits out: {job.reason[1]}")
    if len(faulty) > ASIDE_SHOWN:
        problems.append(f"{len(faulty) - ASIDE_SHOWN} more jobs sit out, since no plan can be made with them (fluxkv jobs)")
    for aside in listed(state.quarantine.table)[:ASIDE_SHOWN]:
        more = f" ({aside.count - 1} more like it)" if aside.count > 1 else ""
        problems.append(f"{aside.what} is set aside: {aside.why}{more}")
    if len(state.quarantine.table) > ASIDE_SHOWN:
        problems.append(f"{len(state.quarantine.table) - ASIDE_SHOWN} more are set aside (fluxkv journal verify names them)")
    if state.skipped:
        problems.append("{} ({})".format(*passed_over(state)))


def _daemon_part(directory: StateDir, address: str, document: dict[str, Any]) -> None:
    """The daemons, the server among them even where it has no file of its own."""
    from ..kvs.errors import FluxkvError
    from .daemons import given_up, server_process
    from .servers import connect

    found = document["processes"]
    if address and not any(one["role"] == "server" for one in found):
        try:
            connection = connect(address)
            if connection is not None:
                try:
                    server = server_process(connection, address.startswith("unix:"))
                finally:
                    connection.close()
                if server is not None:
                    found.insert(0, server)
        except FluxkvError:
            pass  # said already, when the journal was asked for
    if not directory.running() and document["state"] == "running":
        if not any(one["state"] == "running" and one["role"] != "server" for one in found):
            document["state"] = (
                "stopped" if not any(one["role"] == "server" for one in found) else "unattended"
            )
        document["problems"].insert(0, f"no keeper is alive: nobody starts daemons again ({_way_up(directory)})")
    if document["state"] == "stopped":
        document["problems"][:] = [text for text in document["problems"] if "keeper" not in text]
        return
    if found and all(one["state"] == "dead" for one in found):
        follows = ("no server answers", "no keeper is alive")
        document["problems"][:] = [text for text in document["problems"] if not text.startswith(follows)]
        if document["state"] == "unattended":
            document["state"] = "dead"
        document["problems"].insert(0, "all daemons are dead" + ("" if given_up(directory) else f": {_way_up(directory, '')}"))
        return
    for one in found:
        if one["state"] == "dead":
            document["problems"].insert(0, f"the {one['name']} (pid {one['pid']}) is dead")


def _way_up(directory: StateDir, does: str = " does") -> str:
    """What brings its daemons up. A child's come with its job, and go with it."""
    if directory.read().get("parent"):
        return "it is a job's: it begins, or ends, or was killed, which its job shows: fluxkv --parent jobs -a"
    return f"fluxkv start --detach --state-dir {directory.path}{does}"


def _show(document: dict[str, Any]) -> None:
    from . import render
    from .daemons import megabytes

    for problem in document["problems"]:
        render.out(f"! {problem}")
    where = document["state_dir"] or "on another host, or of another user"
    began = document.get("stopped") if document["state"] == "stopped" else document.get("started")
    since = f" since {render.human_time(began)}" if began else ""
    render.out(f"instance   {document['uri'] or document['state_dir']}")
    render.out(f"state      {document['state']}{since}, directory {where}")
    if document["processes"]:
        texts = [
            f"{one['name']} {one['pid']}" + (" DEAD" if one["state"] == "dead" else "")
            for one in document["processes"]
        ]
        render.out(f"daemons    {', '.join(texts)}")
    if document.get("heard"):
        from .heard import in_words

        render.out(f"heard of   {in_words(document['heard'])}")
    if "version" not in document:
        return
    jobs = document["jobs"]
    pending = jobs["new"] + jobs["depend"] + jobs["priority"] + jobs["sched"]
    ended = ", ".join(
        f"{jobs[name]} {name}" for name in ("completed", "failed", "canceled", "timeout") if jobs[name]
    )
    inactive = jobs["inactive"] + document["retired"]
    render.out(
        f"jobs       {pending} pending, {jobs['run'] + jobs['cleanup']} running, {inactive} inactive"
        + (f" ({ended})" if ended else "")
    )  # fmt: skip
    nodes = document["nodes"]
    render.out(
        f"nodes      {nodes['up']} up, {nodes['down']} down, {nodes['drained']} drained; "
        f"{nodes['used_cores']} of {nodes['cores']} cores in use"
    )
    for queue in document["queues"]:
        words = ["open" if queue["enabled"] else "closed", "started" if queue["started"] else "stopped"]
        render.out(f"queue      {queue['name']}: {', '.join(words)}, {queue['policy']}")
    render.out(
        f"journal    version {document['version']}, epoch {document['epoch']}, {document['events']} events, "
        f"{document['durability']}"
    )
    _show_archive(document)
    if "memory" in document:
        line = document["memory"]["line"]
        from_where = f"new work is refused from {megabytes(line)}" if line else "without a limit"
        render.out(f"memory     {megabytes(document['memory']['used'])} of the server's; {from_where}")
    if "free" in document.get("disk", {}):
        render.out(
            f"disk       {megabytes(document['disk']['used_here'])} here, "
            f"{megabytes(document['disk']['free'])} free"
        )


def _show_archive(document: dict[str, Any]) -> None:
    from . import render
    from .daemons import megabytes

    if document.get("archive"):
        found = document["archive"]
        when = f", last looked {render.human_time(found['last_run'])}" if found["last_run"] else ""
        what = f"versions 1 to {found['trimmed']} are only there" if found["trimmed"] else "nothing is only there yet"
        render.out(f"archive    {found['place'] or 'none yet'}: {what}{when}")
    if (found := document.get("ended_children")) and found["moved"]:
        size = f" ({megabytes(found['bytes'])})" if found["moved"] else ""
        when = render.human_time(found["time"])
        render.out(f"children   {found['moved']} that ended have left the server for {found['url']}{size}, last looked {when}")


@click.command("list")
@click.option("-a", "--all", "all_of_them", is_flag=True, help="Also those that run with their state elsewhere.")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def list_instances(all_of_them: bool, no_header: bool, as_json: bool) -> None:
    """List this user's instances: address, state, start, active jobs, directory. Removes nothing.

    Those whose state lies elsewhere (start --state-dir) are found while they run on this host, and only with --all.

    \b
    Examples:
      fluxkv list --all
      export FLUXKV_URI=$(fluxkv list --json | jq -r '.instances[0].uri')
    """
    from ..instances.paths import elsewhere, known
    from . import render

    found = [_instance(directory) for directory in (*known(), *(elsewhere() if all_of_them else ()))]
    if as_json:
        render.print_json({"instances": found})
        return
    rows = [
        [one["uri"], one["state"], render.human_time(one["started"]), "-" if one["jobs"] is None else one["jobs"], one["directory"]]
        for one in found
    ]
    render.table([] if no_header else ["URI", "STATE", "STARTED", "JOBS", "DIRECTORY"], rows)
    if not all_of_them and (more := len(elsewhere())):
        render.say(f"fluxkv: {more} more run{'s' * (more == 1)} here with the state elsewhere: fluxkv list --all")


def _instance(directory: StateDir) -> dict[str, Any]:
    from ..kvs.errors import FluxkvError
    from ..kvs.uri import public

    one: dict[str, Any] = {
        "uri": "",
        "state": "stopped",
        "started": 0.0,
        "jobs": None,
        "directory": directory.path,
    }
    try:
        values = directory.read()
        uri = str(values.get("uri", ""))
        one["uri"] = public(uri)
        one["started"] = float(values.get("created") or 0.0)
        if not directory.running():
            return one
        one["state"] = "running"
        with open_journal(uri) as journal:
            state = journal.look()
        one["jobs"] = sum(1 for _ in state.active())
        one["started"] = state.instance.get("started") or one["started"]
    except (FluxkvError, ValueError, TypeError) as error:
        one["state"] = "damaged" if one["state"] == "stopped" else "unreachable"
        one["problem"] = str(error)
    return one
