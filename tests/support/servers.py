"""Servers that are not ours, for tests: by the configuration files of docker/, on free TCP ports or sockets, TLS and all."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.resp import ReplyError, RespConnection
from fluxkv.kvs.server_choice import find_server

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PATIENCE_S = 30.0


_PORTS = itertools.count(os.getpid() % 700)


def free_port() -> int:
    """A TCP port that nobody listens on just now, of this process's own: pytest's workers start servers side by side, and the
    kernel may hand out what it chooses by itself to two of them before either listens."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for number in _PORTS:
        port = 12_000 + worker % 16 * 1_200 + number % 1_200
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("itertools.count ends")


class Served:
    """One server (or sentinel) process. `options` go behind its configuration file, as on a command line.

    host: where it listens. into: words before the program, which bring it to that host.
    """

    def __init__(self, folder: Path, *options: str, config: Path | None = DOCKER / "server.conf", program: str = "",
                 user: str = "", host: str = "127.0.0.1", into: Sequence[str] = ()) -> None:  # fmt: skip
        self.folder = folder
        self.host, self.into = host, into
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.options = options
        self.config = config
        if config is not None and config.parent == DOCKER:  # a copy it may rewrite, with what that includes beside it
            for path in DOCKER.glob("*.conf"):
                shutil.copy(path, folder)
            self.config = folder / config.name
        self.program = program or find_server()
        self.user = user
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Served:
        self.begin()
        self.until(lambda: self.ask("PING") == b"PONG")
        return self

    def begin(self) -> None:
        words = [*self.into, self.program, *([str(self.config)] if self.config else [])]
        words += ["--port", str(self.port), "--dir", str(self.folder), "--bind", self.host, *self.options]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.user}{self.place}"

    def ask(self, *command: Any) -> Any:
        """One command. Raises ReplyError, Unavailable."""
        connection = RespConnection(self.url, timeout_s=5.0)
        try:
            return connection.call(*command)
        finally:
            connection.close()

    def info(self, section: str) -> dict[str, str]:
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def until(self, holds: Any, patience_s: float = PATIENCE_S) -> Any:
        """Ask until it holds; errors are no answer yet."""
        deadline = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(Unavailable, ReplyError):
                if found := holds():
                    return found
            assert self.process is None or self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.01)

    def signal(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Served:
        try:
            return self if self.process is not None else self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: Any) -> None:
        self.kill()


NAME = "fluxkv"
PASSWORDS = {name: f"{name}-pw" for name in ("admin", "fluxkv", "replica", "sentinel")}


def users(folder: Path) -> tuple[str, ...]:
    """docker/users.acl with passwords in it (`PASSWORDS`), as options of a server."""
    text = (DOCKER / "users.acl").read_text()
    for name, password in PASSWORDS.items():
        text = text.replace(f"@{name.upper()}@", hashlib.sha256(password.encode()).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.acl").write_text(text)
    return ("--aclfile", str(folder / "users.acl"))


ADMIN = f"admin:{PASSWORDS['admin']}@"


class Group:
    """Three servers, the first the primary, and three sentinels, all by the files of docker/, on one machine.

    places: (address, words before a program) of the host of each server and its sentinel.
    """

    def __init__(self, folder: Path, down_after_ms: int = 1500, places: Sequence[tuple[str, Sequence[str]]] = ()) -> None:
        self.stack = contextlib.ExitStack()
        at = [{"host": host, "into": into} for host, into in places or [("127.0.0.1", ())] * 3]
        options = (*users(folder / "users"), "--masteruser", "replica", "--masterauth", PASSWORDS["replica"])
        first = Served(folder / "s0", *options, config=DOCKER / "replicated.conf", user=ADMIN, **at[0])
        options = (*options, "--replicaof", first.host, str(first.port))
        others = [Served(folder / f"s{n}", *options, config=DOCKER / "replicated.conf", user=ADMIN, **at[n]) for n in (1, 2)]
        self.servers = [first, *others]
        self.sentinels = [Served(folder / f"t{n}", config=folder / f"t{n}" / "sentinel.conf", **at[n]) for n in range(3)]
        ids = {sentinel.place: os.urandom(20).hex() for sentinel in self.sentinels}
        for sentinel in self.sentinels:
            assert sentinel.config is not None
            text = (DOCKER / "sentinel.conf").read_text().replace("127.0.0.1 6379", f"{first.host} {first.port}")
            text += f"sentinel auth-user {NAME} sentinel\nsentinel auth-pass {NAME} {PASSWORDS['sentinel']}\n"
            text = text.replace("10000", str(down_after_ms)).replace("port 26379", f"sentinel myid {ids[sentinel.place]}")
            # They would find one another within seconds; here they know at once.
            for place, id in ids.items():
                text += f"sentinel known-sentinel {NAME} {place.replace(':', ' ')} {id}\n" if place != sentinel.place else ""
            for other in others:
                text += f"sentinel known-replica {NAME} {other.host} {other.port}\n"
            sentinel.config.write_text(text)
            sentinel.options = ("--sentinel",)

    def __enter__(self) -> Group:
        try:
            return self._enter()
        except BaseException:
            self.stack.close()
            raise

    def _enter(self) -> Group:
        for one in (*self.servers, *self.sentinels):
            self.stack.callback(one.kill)
            one.begin()
        for one in (*self.servers, *self.sentinels):
            one.until(lambda one=one: one.ask("PING") == b"PONG")
        self.servers[0].until(lambda: self.servers[0].info("replication").get("min_slaves_good_slaves") == "2")
        for sentinel in self.sentinels:
            sentinel.until(lambda one=sentinel: self._settled(one))
        return self

    def _settled(self, sentinel: Served) -> bool:
        flat = [word.decode() for word in sentinel.ask("SENTINEL", "MASTER", NAME)]
        facts = dict(zip(flat[::2], flat[1::2], strict=True))
        replicas = sentinel.ask("SENTINEL", "REPLICAS", NAME)
        up = all(dict(zip(one[::2], one[1::2], strict=True))[b"flags"] == b"slave" for one in replicas)
        return facts["flags"] == "master" and facts["num-other-sentinels"] == "2" and len(replicas) == 2 and up

    def __exit__(self, *_: Any) -> None:
        self.stack.close()

    @property
    def url(self) -> str:
        return f"redis+sentinel://fluxkv:{PASSWORDS['fluxkv']}@{','.join(one.place for one in self.sentinels)}/{NAME}"

    @property
    def primary(self) -> Served:
        """Whom the first living sentinel calls the primary."""
        for sentinel in self.sentinels:
            with contextlib.suppress(Unavailable):
                host, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                return next(one for one in self.servers if one.place == f"{host.decode()}:{port.decode()}")
        raise AssertionError("no sentinel answers")


class TlsFront:
    """TLS in front of a server that speaks none (the wheel's has no OpenSSL): a proxy that asks for a client's certificate."""

    def __init__(self, behind: int, files: dict[str, Path]) -> None:
        self.behind = behind
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files["server.crt"], files["server.key"])
        self.context.load_verify_locations(files["ca.crt"])
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.stop_read, self.stop_write = os.pipe()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        """One thread, all connections; `pairs` leads from each socket to its other side."""
        chosen = selectors.DefaultSelector()
        pairs: dict[socket.socket, socket.socket] = {}
        chosen.register(self.stop_read, selectors.EVENT_READ)
        chosen.register(self.socket, selectors.EVENT_READ)

        def drop(one: socket.socket) -> None:
            for side in (one, pairs[one]):
                if side in pairs:
                    chosen.unregister(side)
                    del pairs[side]
                side.close()

        while True:
            for key, _ in chosen.select():
                if key.fileobj == self.stop_read:
                    for one in list(pairs):
                        one.close()
                    chosen.close()
                    return
                if key.fileobj is self.socket:
                    plain, _ = self.socket.accept()
                    plain.settimeout(5.0)
                    try:
                        wrapped = self.context.wrap_socket(plain, server_side=True)
                    except OSError:
                        plain.close()
                        continue
                    other = socket.create_connection(("127.0.0.1", self.behind))
                    other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    wrapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    pairs |= {wrapped: other, other: wrapped}
                    for side in (wrapped, other):
                        chosen.register(side, selectors.EVENT_READ)
                    continue
                one = key.fileobj
                if not isinstance(one, socket.socket) or one not in pairs:
                    continue
                try:
                    data = one.recv(1 << 17)
                    if data:
                        pairs[one].sendall(data)
                except ssl.SSLWantReadError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    drop(one)

    def close(self) -> None:
        os.write(self.stop_write, b"x")
        self.thread.join()
        self.socket.close()
        os.close(self.stop_read)
        os.close(self.stop_write)


@contextlib.contextmanager
def certificates(folder: Path) -> Iterator[dict[str, Path]]:
    """A certificate authority, a server's certificate for localhost, a client's, all by openssl; and a stranger's authority."""
    program = shutil.which("openssl")
    assert program, "openssl is needed"
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        subprocess.run([program, *words], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "stranger"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN=test {name}")  # fmt: skip
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "20", "-out", f"{name}.crt", "-extfile", f"{name}.ext")  # fmt: skip
    yield {path.name: path for path in folder.iterdir()}


def cluster(folder: Path, count: int = 3) -> list[Served]:
    """Nodes of one cluster, started, each with its share of the slots."""
    nodes = [Served(folder / f"n{n}", "--cluster-enabled", "yes", "--cluster-port", str(free_port())) for n in range(count)]
    for node in nodes:
        node.begin()
    for node in nodes:
        node.until(lambda node=node: node.ask("PING") == b"PONG")
    share = 16384 // count
    for number, node in enumerate(nodes):
        last = 16383 if number == count - 1 else (number + 1) * share - 1
        node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    bus = nodes[0].options[nodes[0].options.index("--cluster-port") + 1]
    for node in nodes[1:]:
        node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
    for node in nodes:
        node.until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
    return nodes


def redis_server() -> str:
    """A redis-server on PATH (or FLUXKV_TEST_REDIS_SERVER), "" if there is none."""
    return os.environ.get("FLUXKV_TEST_REDIS_SERVER") or shutil.which("redis-server") or ""
