"""Where an instance keeps its things on disk, and how one is found. Decides names of files; starts nothing.

A state directory holds: `instance.json` (uri, uid, namespace, created, keep_s, detached), `server/` (the store's files),
`run/<role>.json` and `run/<role>.lock` (a daemon is whoever holds its lock), `log/<role>.log`, `spool/` (the launcher's),
`ns/<job>/` (state directories of child instances on this host).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..kvs.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from ..kvs.port import Store

NAMED = 3  # instances in one message
USER_S = 20.0  # how long a command waits for a child's user, which a keeper on a busy host makes again
ROLES = ("keeper", "worker", "agent", "launcher")


class StateDir(NamedTuple):
    """One instance's state directory (an absolute path)."""

    path: str

    def join(self, *parts: str) -> str:
        return os.path.join(self.path, *parts)

    @property
    def instance_file(self) -> str:
        return self.join("instance.json")

    @property
    def spool(self) -> str:
        return self.join("spool")

    def lock_file(self, role: str) -> str:
        """The file whose lock a living daemon of this role holds."""
        if role == "launcher":
            return self.join("spool", "launcher.lock")
        if role == "server":
            return self.join("server.lock")
        return self.join("run", f"{role}.lock")

    def run_file(self, role: str) -> str:
        return self.join("run", f"{role}.json")

    def log_file(self, role: str) -> str:
        """The log of a role; several daemons of a role share one ("worker-0": worker.log)."""
        return self.join("log", f"{role.partition('-')[0]}.log")

    def create(self) -> None:
        """Make the directories, private to the user. Raises `Unavailable` with the reason."""
        try:
            for part in ("", "run", "log", "spool"):
                os.makedirs(self.join(part), mode=0o700, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"state directory {self.path}: {error.strerror}",
                code="state-dir",
                hint="choose another with --state-dir DIR, or set XDG_STATE_HOME",
            ) from None

    def read(self) -> dict[str, Any]:
        """instance.json, or `Rejected` if this is no state directory."""
        import json

        try:
            with open(self.instance_file) as file:
                return dict(json.load(file))
        except (FileNotFoundError, NotADirectoryError):
            raise Rejected(
                f"{self.path}: no instance has its state here",
                code="no-state-dir",
                hint="a state directory has an instance.json; fluxkv list shows those of this user",
            ) from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.instance_file}: {error}", code="state-dir") from None

    def write(self, values: dict[str, Any]) -> None:
        """Replace instance.json in one step."""
        write_json(self.instance_file, values)

    def write_first(self, values: dict[str, Any]) -> bool:
        """Write instance.json unless there is one; False if there is."""
        scratch = self.join(f"instance.{os.getpid()}")
        write_json(scratch, values)
        try:
            os.link(scratch, self.instance_file)
        except FileExistsError:
            return False
        finally:
            os.unlink(scratch)
        return True

    def running(self) -> bool:
        """Whether its keeper is alive (holds its lock)."""
        return lock_held(self.lock_file("keeper"))


def write_json(path: str, values: dict[str, Any]) -> None:
    """Replace a small JSON file in one step."""
    import json

    scratch = f"{path}.{os.getpid()}"
    with open(scratch, "w") as file:
        json.dump(values, file, indent=1)
    os.replace(scratch, path)


def lock_held(path: str) -> bool:
    """Whether some process holds the lock on this file."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def lock_holder(path: str) -> int:
    """The process that took the lock on this file, by the kernel's word; 0 if nobody or somebody unknown has it."""
    try:
        found = os.stat(path)
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        with open("/proc/locks") as file:
            for line in file:
                words = line.split()
                if len(words) > 5 and words[1] == "FLOCK" and words[5] == device:
                    return max(0, int(words[4]))
    except (OSError, ValueError):
        pass
    return 0


def home() -> str:
    """The folder that holds this user's state directories."""
    from .user_settings import value_of

    chosen = value_of("state-home")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "fluxkv")


def known() -> Iterator[StateDir]:
    """This user's state directories under `home()`, oldest name first."""
    try:
        names = sorted(os.listdir(home()))
    except OSError:
        return
    for name in names:
        directory = StateDir(os.path.join(home(), name))
        if os.path.exists(directory.instance_file):
            yield directory


def find_uri(uri: str | None = None) -> str:
    """The instance to talk to: the one named, else FLUXKV_URI, else the user's setting, else the one that is running."""
    from .user_settings import value_of

    uri = uri or os.environ.get("FLUXKV_URI") or value_of("uri")
    if uri:
        return uri
    running = [directory for directory in known() if directory.running()]
    if len(running) == 1:
        return str(running[0].read()["uri"])
    if not running:
        there = running_elsewhere()
        named = f", such as to {' or '.join(there[:NAMED])}, which runs elsewhere" if there else ""
        raise Unavailable(
            "no instance is running", code="no-instance", hint=f"fluxkv start gives you one; or set FLUXKV_URI{named}"
        )
    found = ", ".join(str(directory.read()["uri"]) for directory in running)
    raise Rejected(
        f"{len(running)} instances are running: {found}", code="which-instance", hint="set FLUXKV_URI to one of them"
    )


def running_elsewhere() -> list[str]:
    """URIs of this user's instances on this host that run with a state directory where `known` does not look; no children's."""
    found = set[str]()
    for directory in elsewhere():
        try:
            found.add(str(directory.read()["uri"]))
        except (Rejected, Unavailable, KeyError):  # it has just gone
            continue
    return sorted(found)


def elsewhere() -> list[StateDir]:
    """State directories of this user's instances that run on this host and that `known` does not find; no children's."""
    listed = {os.path.realpath(directory.path) for directory in known()}
    found = list[StateDir]()
    for directory in map(StateDir, sorted({os.path.realpath(path) for path in named_by_daemons()} - listed)):
        try:
            if not directory.read().get("parent") and directory.running():
                found.append(directory)
        except (Rejected, Unavailable):  # it has just gone
            continue
    return found


def named_by_daemons() -> Iterator[str]:
    """State directories that this user's running daemons name on their command lines, some of them several times."""
    for name in os.listdir("/proc"):
        try:
            if os.stat(f"/proc/{int(name)}").st_uid != os.getuid():
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (OSError, ValueError):
            continue
        if b"fluxkv.instances.main" in words and b"--state-dir" in words[:-1]:
            yield os.fsdecode(words[words.index(b"--state-dir") + 1])


def open_instance(uri: str | None = None) -> tuple[Store, str]:
    """The store of the instance that `find_uri` finds, and its URI. A server that is just being brought back is waited for. One
    that ended and left that server is opened where it is; only a child may have, so no other instance's server is asked here."""
    from ..kvs.redis_store import open_store
    from ..kvs.uri import parse_uri

    found = find_uri(uri)
    if not parse_uri(found).namespace.rpartition("/")[2].startswith("ƒ"):
        return open_store(found, expected=partial(_comes_back, found)), found
    from .child_store import ChildStore

    patience = {"patience_s": USER_S} if _user_of(found) else {}
    store = open_store(found, kind=ChildStore, expected=partial(_comes_back, found), **patience)
    try:
        elsewhere = _elsewhere(store, found)
    except BaseException:
        store.close()
        raise
    if elsewhere:
        store.close()
        return open_store(elsewhere), elsewhere
    return store, found


def _elsewhere(store: Store, uri: str) -> str:
    """The URI by which a child that is not at this one is read now, "" if it is there, or nowhere."""
    try:
        store.meta()
        return ""
    except Unavailable as error:
        if error.code != "no-instance":
            raise
    from .whereabouts import moved

    return moved(store, uri)


def _comes_back(uri: str) -> bool:
    """Whether a server that does not answer has somebody who will start it again: daemons of its instance are alive."""
    from ..kvs.server import state_dir_behind
    from ..kvs.uri import parse_server, parse_uri

    address = parse_server(parse_uri(uri).server)
    if address.kind != "unix":
        return False
    directory = StateDir(os.path.dirname(address.password_file) if _user_of(uri) else state_dir_behind(address.path))
    if os.path.exists(directory.join("run", "stopping")):
        return False
    return directory.running() or lock_held(directory.lock_file("agent"))


def _user_of(uri: str) -> str:
    """The user of a child of its own, which its keeper makes again if the server has forgotten it; "" if it has none."""
    from ..kvs.uri import CHILD_USER, parse_server, parse_uri

    user = parse_server(parse_uri(uri).server).user
    return user if user.startswith(CHILD_USER) else ""


def state_dir_of(uri: str) -> StateDir | None:
    """The state directory on this host of the instance with this URI, or None. Of several that had it, one after the other (see
    resume), the one that lives, or the last."""
    last: tuple[tuple[int, bool], StateDir] | None = None
    for directory, settings in state_dirs_of(uri):
        if not settings.get("parent") or directory.running():
            return directory
        since = settings.get("since")
        rank = since if isinstance(since, int) else 0, bool(settings.get("lead"))
        if last is None or rank > last[0]:
            last = rank, directory
    return last[1] if last is not None else None


def near(uri: str) -> list[StateDir]:
    """State directories on this host that may be an instance's, or have it inside: the one we are in, this user's, its server's."""
    from ..kvs.uri import parse_server, parse_uri

    found = list(known())
    inside = os.environ.get("FLUXKV_STATE_DIR", "")
    if inside:
        found.insert(0, StateDir(inside))
    address = parse_server(parse_uri(uri).server)
    if address.kind == "unix":
        from ..kvs.server import state_dir_behind

        found.append(StateDir(state_dir_behind(address.path)))
    return found


def state_dirs_of(uri: str) -> Iterator[tuple[StateDir, dict[str, Any]]]:
    """All of them on this host, with their settings: a child has one for each of its nodes here, and those of earlier lives."""
    from ..kvs.uri import parse_uri, same_instance

    named, candidates = parse_uri(uri), near(uri)
    for directory in list(candidates):
        candidates.extend(_children(directory, named.namespace))
    seen: set[str] = set()
    for directory in candidates:
        if directory.path in seen:
            continue
        seen.add(directory.path)
        try:
            if os.path.exists(directory.instance_file) and same_instance(str((settings := directory.read())["uri"]), uri):
                yield directory, settings
        except (Rejected, Unavailable, KeyError, ValueError):
            continue


def _children(root: StateDir, namespace: str) -> Iterator[StateDir]:
    """State directories of child instances on this host, level by level towards a namespace."""
    here = [root]
    for _ in range(namespace.strip("/").count("/") + 1 if namespace != "/" else 0):
        below = []
        for directory in here:
            try:
                names = sorted(os.listdir(directory.join("ns")))
            except OSError:
                continue
            below += [StateDir(directory.join("ns", name)) for name in names]
        yield from below
        here = below
