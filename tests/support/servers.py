"""Servers that are not ours, for tests: by the configuration files of docker/, on free TCP ports or sockets, TLS and all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.resp import ReplyError, RespConnection
from fluxkv.kvs.server_choice import find_server

DOCKER = Path(__file__).resolve().parents[2] / "docker"
PATIENCE_S = 30.0


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """One server (or sentinel) process. `options` go behind its configuration file, as on a command line."""

    def __init__(self, folder: Path, *options: str, config: Path | None = DOCKER / "server.conf", program: str = "",
                 user: str = "") -> None:  # fmt: skip
        self.folder = folder
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
        words = [self.program, *([str(self.config)] if self.config else [])]
        words += ["--port", str(self.port), "--dir", str(self.folder), "--bind", "127.0.0.1", *self.options]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

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


class Group:
    """Three servers, the first the primary, and three sentinels, all by the files of docker/, on one machine."""

    def __init__(self, folder: Path, down_after_ms: int = 400) -> None:
        self.stack = contextlib.ExitStack()
        first = Served(folder / "s0", config=DOCKER / "replicated.conf")
        others = [
            Served(folder / f"s{n}", "--replicaof", "127.0.0.1", str(first.port), config=DOCKER / "replicated.conf") for n in (1, 2)
        ]
        self.servers = [first, *others]
        self.sentinels = [Served(folder / f"t{n}", config=folder / f"t{n}" / "sentinel.conf") for n in range(3)]
        ids = {sentinel.port: os.urandom(20).hex() for sentinel in self.sentinels}
        for sentinel in self.sentinels:
            assert sentinel.config is not None
            text = (DOCKER / "sentinel.conf").read_text().replace("127.0.0.1 6379", f"127.0.0.1 {first.port}")
            text = text.replace("10000", str(down_after_ms)).replace("port 26379", f"sentinel myid {ids[sentinel.port]}")
            # They would find one another within seconds; here they know at once.
            for port, id in ids.items():
                text += f"sentinel known-sentinel {NAME} 127.0.0.1 {port} {id}\n" if port != sentinel.port else ""
            for other in others:
                text += f"sentinel known-replica {NAME} 127.0.0.1 {other.port}\n"
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
        return f"redis+sentinel://{','.join(one.place for one in self.sentinels)}/{NAME}"

    @property
    def primary(self) -> Served:
        """Whom the first living sentinel calls the primary."""
        for sentinel in self.sentinels:
            with contextlib.suppress(Unavailable):
                port = int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])
                return next(one for one in self.servers if one.port == port)
        raise AssertionError("no sentinel answers")


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
