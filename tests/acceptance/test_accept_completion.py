"""TAB in real shells, typed on a terminal: commands, options, and what the instance knows."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from fluxkv.tools.completion_cmd import SCRIPTS, complete
from fluxkv.tools.main import cli
from fluxkv.tools.params import kind_of

pytestmark = pytest.mark.live

TIMEOUT_S = 30.0
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(fluxkv completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(fluxkv completion zsh)"'),
    "fish": (["fish", "-N", "-i"], "fluxkv completion fish | source"),
}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()=>].?|\$<\d+>|[\x00\x07\x0e\x0f]")


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, words: list[str], folder: Path, env: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                os.chdir(folder)
                os.execvpe(words[0], words, env)
            finally:
                os._exit(127)
        self.seen = ""

    def expect(self, pattern: str) -> str:
        """Wait until the screen shows this; what was shown from there on stays for the next."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} never came: {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.seen += CONTROL.sub("", os.read(self.fd, 65536).decode(errors="replace"))
        self.seen = self.seen[found.end() :]
        return found[0]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def completed(self, text: str) -> str:
        """The line that `text` and a TAB become; it is never run. On a machine too busy to answer in time, TAB again."""
        for _ in range(5):
            if (found := self._tab(text)) != text:
                break
        return found

    def _tab(self, text: str) -> str:
        self.type(f"{text}\t")
        # Begin of line, and another command before it that says what became of the rest; C-k clears nothing but makes
        # the shell finish the completion first.
        self.type("\x01echo 'GOT<' \x05 '>TOG'\r")
        return re.sub(r"^\S*GOT< | >TOG$", "", self.expect(r"(?m)(?<=\n)GOT< .* >TOG")).strip()

    def close(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture(params=sorted(SHELLS))
def terminal(request: Any, site: Any, tmp_path: Path) -> Iterator[Terminal]:
    words, load = SHELLS[request.param]
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed here")
    env = {**site.env, "PS1": "$ ", "TERM": "vt100" if request.param == "fish" else "dumb", "HOME": str(tmp_path)}
    env.update({"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)})
    made = Terminal(words, tmp_path, env)
    try:
        made.type(f"{load}; echo REA''DY\r")
        made.expect("\nREADY")
        yield made
    finally:
        made.close()


def test_tab_on_a_real_terminal(terminal: Terminal, site: Any, tmp_path: Path) -> None:
    (tmp_path / "input-file.dat").touch()
    pending, done = site.submit("--urgency=0", "true"), site.submit("true")
    site.ok("job", "wait", done)
    try:
        assert terminal.completed("fluxkv can") == "fluxkv cancel"
        assert terminal.completed("fluxkv job att") == "fluxkv job attach"
        assert terminal.completed(f"fluxkv job urgency {pending[:-1]}") == f"fluxkv job urgency {pending}"
        assert terminal.completed(f"fluxkv job eventlog {done[:-1]}") == f"fluxkv job eventlog {done}"
        assert terminal.completed("fluxkv jobs --queue=def") == "fluxkv jobs --queue=default"
        assert terminal.completed("fluxkv jobs -q def") == "fluxkv jobs -q default"
        assert terminal.completed("fluxkv submit --dry") == "fluxkv submit --dry-run"
        assert terminal.completed("fluxkv submit cat inp") == "fluxkv submit cat input-file.dat"
        assert terminal.completed("fluxkv submit --input=inp") == "fluxkv submit --input=input-file.dat"
    finally:
        site.ok("cancel", pending)


def asked(shell: Any, line: str, **env: str) -> list[str]:
    """What bash is answered."""
    done = shell(_FLUXKV_COMPLETE="bash", COMP_LINE=line, COMP_CUR=line.rpartition(" ")[2], **env)
    assert (done.code, done.err) == (0, "")
    return [text.split("\t")[1] for text in done.lines]


@pytest.mark.parametrize("line", ["fluxkv cancel ", "fluxkv jobs -q ", "fluxkv resource drain ", "fluxkv kvs get "])
def test_without_an_instance_nothing_is_offered_and_nothing_said(user: Any, line: str) -> None:
    assert asked(user, line) == []
    assert asked(user, line, FLUXKV_URI="unix:/nowhere/at/all") == []
    assert asked(user, line, FLUXKV_URI="what is this") == []


def test_a_server_that_never_answers_is_not_waited_for(user: Any, base: Path) -> None:
    path = base / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(8)
        began = time.monotonic()
        assert asked(user, "fluxkv cancel ", FLUXKV_URI=f"unix:{path}") == []
        assert time.monotonic() - began < 5  # LIMIT_S and the start of a Python on a busy machine; a connection waits 10


def test_nonsense_is_answered_with_nothing(site: Any) -> None:
    for line in ("fluxkv nonsense ", "fluxkv --nonsense ", "fluxkv jobs --nonsense=", "fluxkv jobs 'open", "", "fluxkv"):
        asked(site, line)


def test_ids_that_fit_the_command_and_are_not_given_already(site: Any) -> None:
    ended = site.submit("true")
    site.ok("job", "wait", ended)
    one, two = site.submit("--urgency=0", "true"), site.submit("--urgency=0", "true")
    try:
        assert ended in asked(site, "fluxkv job eventlog ")
        assert ended not in asked(site, "fluxkv cancel ")
        assert asked(site, "fluxkv cancel ")[:2] == [two, one]
        assert asked(site, f"fluxkv cancel {two} ")[:1] == [one]
        assert one.replace("ƒ", "f") in asked(site, "fluxkv cancel f")
    finally:
        site.ok("cancel", one, two)


def commands(path: tuple[str, ...] = (), command: click.Command = cli) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from commands((*path, name), found)
    else:
        yield " ".join(path), command


def test_every_parameter_says_what_may_stand_there() -> None:
    missing = [
        f"{path}: {param.metavar or param.name}"
        for path, command in commands()
        for param in command.params
        if not (isinstance(param, click.Option) and (param.is_flag or param.hidden or param.count))
        and not isinstance(param.type, click.Choice)
        and kind_of(path, param) is None
    ]
    assert not missing, "name in tools/params.py what completes them (FREE: nothing can)"


def test_values_written_in_the_code(sample_journal: Any) -> None:
    def values(*args: str) -> list[str]:
        return [value for value, _ in complete(list(args[:-1]), args[-1])]

    assert values("job", "") == cli.get_command(click.Context(cli), "job").list_commands(None)  # type: ignore
    assert "pending,running" in values("jobs", "-f", "pending,ru")
    assert "USR1" in values("job", "kill", "-s", "US")
    assert values("job", "urgency", "f1", "ho") == ["hold"]
    assert "default" in values("jobs", "-o", "")
    assert "worker" in values("dmesg", "--role", "")
    assert "warning" in values("dmesg", "-l", "w")
    assert set(values("completion", "")) == set(SCRIPTS)
    assert values("help", "canc") == ["cancel"]
    assert values("help", "job", "att") == ["attach"]
    assert values("man", "jobs", "") == []
    assert "\0dir" in values("submit", "--cwd", "")
    assert "\0file" in values("submit", "./a", "-")
