"""Every example of every `--help` is typed into bash, in an instance prepared for it: it must do what it says.

The examples are read off the click tree, so a new command's are tested without being named here. What they speak of is there:
* one instance of ten nodes (node0 to node9: this machine) with queues, a history and keys; FLUXKV_URI names it.
  Before each example it is put in order: nodes in service, queues open, no job but those below;
* a job id stands for a job made for the example, in the state `JOB_STATE` says its command needs;
* a time (10:30, 'yesterday 17:00') stands for now, since nothing is older here; redis://head:6379 for its URI, or, where an
  instance is started on it, for a server that is there;
* what is about hosts that join speaks to an instance that listens, whose address is in join.uri (`JOINED` says what came before);
* `~/old` is the state directory of an instance that is down, `~/sims` one that is running where `SIMS_RUNNING` says so;
* the programs and files they name are in the current directory, fresh for each (`FILES`).
An example must exit with 0 (else `STATUS` says with what, and why) and leave no error on stderr. One that goes on until
it is interrupted runs on a terminal of its own, gets a Ctrl-C once it shows something, and must end with 130 in silence.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner
from servers import Served

import fluxkv
from fluxkv.journal.decide import active_ids
from fluxkv.journal.ids import encode, f58, parse_id
from fluxkv.tools.main import cli

pytestmark = pytest.mark.live

TIMEOUT_S = 60
VERSIONS = 130  # examples name versions 100 and 120

# Command -> the state of the jobs that its ids stand for; all others get a job that has completed.
JOB_STATE = {
    "explain": "pending",
    "cancel": "running",
    "job attach": "ending",
    "job hostpids": "running",
    "job kill": "running",
    "job memo": "running",
    "job raise": "running",
    "job status": "ending",
    "job timeleft": "running",
    "job urgency": "pending",
    "job wait": "ending",
    "job wait-event": "ending",
    "ensemble watch": "ensemble",
    "ensemble status": "ensemble",
    "ensemble results": "ensemble",
    "ensemble rerun": "mended ensemble",
    "hold": "pending",
    "release": "pending",
    "requeue": "running",
    "resize": "wide",
    "update": "pending",
}
LINE_STATE = {
    "fluxkv job wait-event -t 30s -f json ƒ3kQ exception": "cancelled",
    **dict.fromkeys((
        "fluxkv --instance ƒ3kQ jobs", "fluxkv jobs -a ƒ3kQ/", "fluxkv replay ƒ3kQ", "fluxkv proxy ƒ3kQ", "fluxkv tree ƒ3kQ",
        "fluxkv top ƒ2oS1Ab",
        "fluxkv proxy ƒ3kQ fluxkv submit ./simulate", "fluxkv proxy --wait ƒ3kQ fluxkv jobs -a",
    ), "instance"),
    "fluxkv batch --resume ƒ3kQ": "ended instance",
    "fluxkv batch --resume ƒ3kQ --kvs=own": "ended instance",
    "fluxkv alloc --resume ƒ3kQ": "ended instance",
    "fluxkv journal children --restore ƒ2UzHM": "ended instance",
}  # fmt: skip
# Commands that need some job of theirs to be there although none is named.
COMPANY = {"job last": "completed", "job wait": "lasting", "pgrep": "running", "pkill": "running"}
# What else a command needs to find, typed before it.
_TIDY = ("cron", "interval", "--name", "tidy", "10m", "true")
BEFORE: dict[str, tuple[tuple[str, ...], ...]] = {
    "resource eventlog": (("resource", "drain", "1", "hot"),),
    "resource undrain": (("resource", "drain", "2-4,7"),),
    "cron stop": (_TIDY, ("cron", "at", "--name", "backup", "+1h", "true")),
    "cron start": (_TIDY, ("cron", "stop", "tidy")),
    "cron delete": (_TIDY,),
    "cron dump": (_TIDY,),
}
JOINING = {"agent", "worker"}
_RACK7 = "fluxkv resource attach rack7.json"
# What is done to a graph of resources is done on an instance that has one, in which there is this:
GRAPH = {
    "resource reload": "true", "resource attach": "true", "resource remove": _RACK7, "resource set-status": _RACK7,
    "--under /cluster0/rack7": _RACK7, "property set /cluster0": "true",
}  # fmt: skip
SIMS_RUNNING = {"stop", "restart", "uri", "ops adopt", "ops rebuild"} | JOINING  # they end or disturb it: one of their own
OWN_HOME = {"start"} | SIMS_RUNNING
# Line -> exit status, where success is another one than 0. Why:
STATUS = {
    "fluxkv run -t 1s sleep 60": 142,  # Flux's exit code of a job whose time is over
    "fluxkv --parent jobs": 1,  # the instance here is nobody's child
    # An instance with a server of its own has nobody to hand over to; `live/test_outside_live.py` does it behind sentinels.
    "fluxkv ops failover": 1,
    "fluxkv ops failover --dry-run": 1,
    "fluxkv resource fence 3 power supply": 1,  # the node is up
    'fluxkv journal quarantine 1234 -m "bad disk"': 1,  # the entry can be read (or is not there yet)
}
ENDLESS = re.compile(r"fluxkv (journal follow|dmesg .*--follow|(agent|worker) --join join.uri$|agent --state-dir ~/node$)")
JOINED = {
    "--leave": "fluxkv agent --join join.uri --detach",
    "--state-dir ~/node": "fluxkv agent --join join.uri --detach --state-dir ~/node && fluxkv stop --state-dir ~/node",
}

QUEUES = """
[queues.batch]

[queues.debug]
requires = ["ssd"]
policy.jobspec.defaults.system.duration = "10m"

[policy]
jobspec.defaults.system = { queue = "batch", duration = "1h" }
limits.duration = "7d"
"""
# Two nodes with four cores each, as a GRUG recipe.
TINY = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph id="tiny" edgedefault="directed">
<node id="cluster"><data key="root">1</data><data key="type">cluster</data></node>
<node id="node"><data key="type">node</data></node><node id="core"><data key="type">core</data></node>
<edge source="cluster" target="node"><data key="multi_scale">2</data></edge>
<edge source="node" target="core"><data key="multi_scale">4</data></edge>
</graph></graphml>
"""
FILES = {
    "input.dat": "some\nbytes\n",
    "data": "b\na\nb\n",
    "simulate": "#!/bin/sh\necho result\n",
    "report": "#!/bin/sh\necho report\n",
    "mpi-program": '#!/bin/sh\necho "$FLUX_TASK_RANK"\n',
    **dict.fromkeys(("tidy", "probe", "nightly", "tell-admin", "tell-me", "check", "backup"), "#!/bin/sh\necho cron\n"),
    "sims.sh": "#!/bin/sh\n# flux: -n2\nfluxkv run hostname\n",
    "sims": "#!/bin/sh\nfluxkv run hostname\n",
    "child.toml": "[queue]\npolicy = 'conservative'\n",
    "site.toml": QUEUES,
    "job.yaml": (
        "version: 1\nresources: [{type: slot, count: 1, label: task, with: [{type: core, count: 1}]}]\n"
        "tasks: [{command: [hostname], slot: task, count: {per_slot: 1}}]\nattributes: {system: {duration: 0}}\n"
    ),
    "tiny.graphml": TINY,
    "jobs.jsonl": '{"run": 60, "cores": 2}\n{"run": "1h", "limit": "2h", "nodes": 1, "submit": 5, "after": 1}\n',
    "trace.swf": "; MaxProcs: 64\n1 0 5 10 4 -1 -1 4 20 -1 1 3 1 -1 1 -1 -1 -1\n",
    "pw": "a password\n",
    "crontab": "*/5 * * * * echo five\n",
    "Makefile": "all:\n\t@fluxkv resource list\n",
}
PROGRAMS = {"sim": "#!/bin/sh\necho result\n"}  # on PATH
CLUSTER = """
[[resource.config]]
hosts = "node[0-9]"
cores = "0-7"
gpus = "0-1"
memory_mb = 8000
properties = ["ssd"]
""" + QUEUES

PLACEHOLDER = re.compile(r"(?<![\w./{])[ƒf][1-9][1-9A-HJ-NP-Za-km-z]{2,11}(?!\w)")
MOMENT = re.compile(r"'yesterday \d\d:\d\d'|(?<=[ =])\d\d:\d\d(?!\S)")
WRONG = ("Traceback", "Usage:", "Error:", "this is a fault in fluxkv", "command not found", "syntax error")
# Two racks with two nodes each, as a GRUG recipe, and one more as JGF.
RACKS = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph id="racks" edgedefault="directed">
<node id="cluster"><data key="root">1</data><data key="type">cluster</data></node>
<node id="rack"><data key="type">rack</data></node>
<node id="node"><data key="type">node</data></node><node id="core"><data key="type">core</data></node>
<edge source="cluster" target="rack"><data key="multi_scale">2</data></edge>
<edge source="rack" target="node"><data key="multi_scale">2</data></edge>
<edge source="node" target="core"><data key="multi_scale">4</data></edge>
</graph></graphml>
"""
RACK7 = json.dumps({"graph": {
    "nodes": [
        {"id": str(number), "metadata": {"type": name.rstrip("0123456789"), "name": name}}
        for number, name in enumerate(("cluster0", "rack7", "pdu0", "node70", "core0"))
    ],
    "edges": [{"source": one, "target": other} for one, other in ("01", "12", "13", "34")],
}})  # fmt: skip
FILES.update({
    "big.json": RACK7, "cluster.graphml": RACKS, "rack7.json": RACK7,
    "node9.xml": (
        '<topology><object type="Machine"><info name="HostName" value="node9"/><object type="Package">'
        '<object type="Core" os_index="0"><object type="PU"/></object></object></object></topology>'
    ),
})  # fmt: skip


class Example(NamedTuple):
    """One line of a command's help."""

    command: str
    line: str

    def __str__(self) -> str:
        return self.line


def examples(path: tuple[str, ...] = (), command: click.Command = cli) -> Iterator[Example]:
    """All examples of a command and those below it: every line of the section, up to its explanation."""
    text = command.help or ""
    for line in text.partition("Examples:")[2].splitlines():
        if line.strip():
            yield Example(" ".join(path), re.split(r"  +", line.strip())[0])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            if not found.hidden:
                yield from examples((*path, name), found)


def command_of(line: str) -> str:
    """The command a line is about: the last that is typed in it ("fluxkv submit true | fluxkv job id": job id)."""
    found = ""
    for typed in re.finditer(r"fluxkv ((?:[a-zA-Z][\w-]* ?)+)", line):
        command: click.Command = cli
        names = []
        for word in typed[1].split():
            below = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
            if below is None:
                break
            names.append(word)
            command = below
        found = " ".join(names) or found
    return found


class World:
    """Where examples run."""

    def __init__(self, base: Path, shell: Any) -> None:
        self.shell = shell  # runs fluxkv with `home` as the user's
        self.home = base
        self.env = shell.env
        self.client: Any = None
        self.in_order_at = -1  # the journal's version
        self.last = ""  # the example before
        self.old_ids: list[int] = []
        self.ensembles: dict[str, int] = {}

    def build(self) -> None:
        """The instance everything speaks to, and one that is down."""
        programs = self.home / "bin"
        programs.mkdir()
        for name, text in PROGRAMS.items():
            _write(programs / name, text)
        self.env["PATH"] = f"{programs}{os.pathsep}{self.env['PATH']}"
        self.old_ids = self._make_old()
        config = self.home / "cluster.toml"
        config.write_text(CLUSTER)
        uri = self.shell.ok("start", "--detach", "--state-dir", self.home / "site", "--config", config)
        self.env["FLUXKV_URI"] = uri.split()[-1]
        self.client = fluxkv.connect(self.env["FLUXKV_URI"])
        self.job("completed")
        self.job("failed")
        self.put_in_order()
        while self.client.store.meta().version < VERSIONS:
            self.something_happens()

    def _make_old(self) -> list[int]:
        old = self.home / "old"
        with fluxkv.connect(self.shell.ok("start", "--detach", "--state-dir", old).split()[-1]) as client:
            ids = [client.submit(["sh", "-c", "echo out"]).id for _ in range(2)]
            client.wait(ids, TIMEOUT_S)
        assert self.shell("stop", "--state-dir", old).code == 0
        return ids

    def type(self, *words: str) -> None:
        """A command that prepares something, in this process: quicker than one of its own."""
        done = CliRunner().invoke(cli, words, env={"FLUXKV_URI": self.env["FLUXKV_URI"]})
        assert done.exit_code == 0, (words, done.output, done.exception)

    def something_happens(self) -> None:
        """One commit that changes nothing an example looks at."""
        self.type("kvs", "put", "step=1")

    def put_in_order(self) -> None:
        """No job of an earlier example, every node and queue in service, all keys there."""
        if self.client.store.meta().version == self.in_order_at:
            return  # nothing but looking has been done
        state = self.client.state()
        left = active_ids(state)
        self.client.cancel(left)
        self.client.wait(left, TIMEOUT_S)
        if state.cron.entries:
            self.type("cron", "delete", *map(str, state.cron.entries))
        drained = [str(node.rank) for node in state.nodes.values() if node.drain]
        if drained:
            self.type("resource", "undrain", ",".join(drained))
        if not self.last or "config" in self.last:
            self.type("config", "load", str(self.home / "cluster.toml"))
        if any(not queue.enabled or not queue.started for queue in state.queues.values()):
            self.type("queue", "enable", "--all")
            self.type("queue", "start", "--all")
        if not self.last or "kvs" in self.last:
            self.type("kvs", "put", "run.name=test", "run.tasks=4", "run.input=bytes")
            self.type("kvs", "mkdir", "run.results")
            self.type("kvs", "link", "run.results", "latest")
            if "run.log" not in self.client.kvs:
                self.type("kvs", "eventlog", "append", "run.log", "begun", "step=1")
            if "results" not in state.kvs.trees:
                self.type("kvs", "namespace", "create", "results")
        self.in_order_at = self.client.store.meta().version

    def ensemble(self, state: str) -> int:
        """One that is over, made once: all of it well, or with a member that failed and would not fail again."""
        if state not in self.ensembles:
            mended = self.home / "mended"
            script = f"test -e {mended} || exit {{cc}}" if state == "mended ensemble" else "echo {cc}"
            self.ensembles[state] = parse_id(self.shell.ok("ensemble", "submit", "-N1", "--cc=0-1", "sh", "-c", script).strip())
            self.client.wait(self.ensembles[state], TIMEOUT_S)
            mended.touch()
        return self.ensembles[state]

    def job(self, state: str) -> int:
        """A new job in this state."""
        client = self.client
        if state == "pending":
            return int(client.submit(["true"], urgency=0).id)
        if state == "running":
            job = client.submit(["sleep", "600"])
            for event in job.events(follow=True):
                if event.name == "start":
                    return int(job.id)
        if state in ("instance", "wide"):
            return parse_id(self.shell.ok("alloc", "-n1" if state == "instance" else "-N2", "--bg").strip())
        if state == "ended instance":
            job = parse_id(self.shell.ok("batch", "-n1", "--output=/dev/null", "--wrap", "true").strip())
            self.client.wait(job, TIMEOUT_S)
            return job
        if state.endswith("ensemble"):
            return self.ensemble(state)
        if state == "lasting":  # until the command waits for it
            return int(client.submit(["sleep", "2"]).id)
        if state == "cancelled":
            job = client.submit(["true"], urgency=0)
            job.cancel("not needed")
        else:
            job = client.submit(["sh", "-c", "exit 1" if state == "failed" else "echo out"])
        if state != "ending":
            job.wait(TIMEOUT_S)
        return int(job.id)

    def typed(self, example: Example) -> str:
        """The line as it is typed here."""
        command = command_of(example.line)
        state = LINE_STATE.get(example.line) or JOB_STATE.get(command, "completed")
        spare = list(self.old_ids)
        ids: dict[str, int] = {}

        def real(found: re.Match[str]) -> str:
            word = found[0].replace("ƒ", "f", 1)
            if word not in ids:
                ids[word] = spare.pop(0) if "~/old" in example.line else self.job(state)
            return f58(ids[word]) if found[0][0] == "ƒ" else encode(ids[word], "f58plain")

        line = PLACEHOLDER.sub(real, example.line)
        if command in COMPANY and not ids:
            self.job(COMPANY[command])
        for words in BEFORE.get(command, ()):
            self.type(*words)
        line = MOMENT.sub(f"@{self.client.store.now():.6f}", line)
        return line.replace("redis://head:6379", f"'{self.env['FLUXKV_URI']}'")

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            assert self.shell("stop", "--state-dir", self.home / "site").code == 0


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    if text.startswith("#!"):
        path.chmod(0o755)


@pytest.fixture(scope="module")
def world(base: Path, new_shell: Any) -> Iterator[World]:
    home = base / "examples"
    home.mkdir()
    shell = new_shell(home / "state", home)
    shell.env["HOME"] = str(home)
    shell.env.pop("LC_ALL", None)
    made = World(home, shell)
    try:
        made.build()
        yield made
    finally:
        made.close()
        assert shell.alive(str(home)) == []


def run_to_the_end(line: str, env: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """(status, standard output, standard error) of a line in bash; any part of a pipe that fails counts."""
    words = ["bash", "-o", "pipefail", "-c", line]
    done = subprocess.run(
        words, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    return done.returncode, done.stdout, done.stderr


def run_until_interrupted(
    line: str, env: dict[str, str], folder: Path, happens: Callable[[], None]
) -> tuple[int, str, str]:
    """The same on a terminal of its own, where Ctrl-C is typed once there is something to see."""
    ours, theirs = pty.openpty()
    words = ["setsid", "--ctty", "--wait", "bash", "-o", "pipefail", "-c", line]
    with subprocess.Popen(
        words, cwd=folder, env={**env, "TERM": "dumb"}, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        shown = b""
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not select.select([ours], [], [], 0.2)[0]:
                assert time.monotonic() < deadline, f"{line}: showed nothing"
                happens()
            shown = os.read(ours, 65536)
            os.write(ours, b"\x03")
            while process.poll() is None:
                assert time.monotonic() < deadline, f"{line}: goes on after Ctrl-C"
                if select.select([ours], [], [], 0.05)[0]:
                    try:
                        shown += os.read(ours, 65536)
                    except OSError:  # the terminal has no user any more
                        break
            process.wait(TIMEOUT_S)
        finally:
            os.close(ours)
            if process.poll() is None:
                process.kill()
        # bash follows a jq that died of the signal by dying of it, too: a shell calls both 130.
        code = process.returncode if process.returncode != -signal.SIGINT else 130
        return code, shown.decode(errors="replace"), process.stderr.read()


ALL = list({one.line: one for one in reversed(list(examples()))}.values())[::-1]  # each line once


@pytest.mark.parametrize("example", ALL, ids=[f"{one.command or 'fluxkv'}: {one.line}" for one in ALL])
def test_example_does_what_it_says(example: Example, world: World, tmp_path: Path) -> None:
    for name, text in FILES.items():
        _write(tmp_path / name, text)
    env = dict(world.env)
    command = command_of(example.line)
    head = contextlib.ExitStack()
    try:
        graph = [words for part, words in GRAPH.items() if part in example.line]
        own = command.partition(" ")[0] in OWN_HOME or example.command in OWN_HOME or "fluxkv start" in example.line or graph
        if own and "~/old" not in example.line:
            line = example.line
            if "redis://head:6379" in line:
                line = line.replace("redis://head:6379", head.enter_context(Served(tmp_path / "head")).url)
            env["HOME"] = str(world.home / "own")
            env["XDG_STATE_HOME"] = str(world.home / "own" / "s")
            os.makedirs(env["HOME"])
            del env["FLUXKV_URI"]
            if graph:
                made = ("start", "--detach", "--fake", "--state-dir", world.home / "own" / "graph", "--resources")
                env["FLUXKV_URI"] = world.shell.ok(*made, tmp_path / "cluster.graphml").split()[-1]
                assert run_to_the_end(graph[-1], env, tmp_path)[0] == 0
            if command in SIMS_RUNNING:
                sims = world.home / "own" / "sims"
                listens = ["--listen=127.0.0.1", "--config", world.home / "cluster.toml"] if command in {"uri"} | JOINING else []
                env["FLUXKV_URI"] = world.shell.ok("start", "--detach", "--state-dir", sims, *listens).split()[-1]
                if command in JOINING:
                    _write(tmp_path / "join.uri", world.shell.ok("uri", "--remote", "--state-dir", sims))
                    for words in [words for part, words in JOINED.items() if part in line]:
                        assert run_to_the_end(words, env, tmp_path)[0] == 0, words
        else:
            world.put_in_order()
            line = world.typed(example)
            world.last = line
        endless = bool(ENDLESS.search(line))
        if endless:
            status, out, err = run_until_interrupted(line, env, tmp_path, world.something_happens)
        else:
            status, out, err = run_to_the_end(line, env, tmp_path)
        what = f"\n$ {line}\nstatus {status}\n{out[-2000:]}\nstderr: {err[-2000:]}"
        assert status == (130 if endless else STATUS.get(example.line, 0)), what
        assert not [word for word in WRONG if word in err], what
        assert not endless or err == "", what
    finally:
        own = world.home / "own"
        if own.exists():
            for one in own.glob("**/instance.json"):
                world.shell("stop", "--state-dir", one.parent)
            shutil.rmtree(own)
        head.close()


def test_no_line_of_the_tables_is_stale() -> None:
    """Each exception belongs to an example that is there."""
    lines = {one.line for one in ALL}
    assert set(STATUS) <= lines
    assert set(LINE_STATE) <= lines
    commands = {command_of(one.line) for one in ALL}
    assert {*JOB_STATE, *COMPANY, *OWN_HOME} <= commands
