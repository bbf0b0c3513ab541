"""batch and alloc: the jobs they make, directives in scripts, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fluxkv.instances.own_program import with_program
from fluxkv.journal.file_archive import read_archive
from fluxkv.kvs.errors import Rejected
from fluxkv.tools.batch_cmd import alloc, batch
from fluxkv.tools.child_options import broker_options, conf_document

SCRIPT = "#!/bin/sh\n# flux: -n3 --job-name=mine\n# flux: -t 5m --env=A=1\nfluxkv run hostname\n"


def call(command: click.Command, *args: str, stdin: str = "") -> Result:
    words = ["--dry-run", "--env=-*", "--rlimit=-*", *args]
    return CliRunner().invoke(command, words, standalone_mode=False, input=stdin)


def spec(command: click.Command, *args: str, stdin: str = "") -> dict[str, Any]:
    done = call(command, *args, stdin=stdin)
    if done.exception is not None:
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(name="script")
def _script(tmp_path: Path) -> str:
    (tmp_path / "sims.sh").write_text(SCRIPT)
    return str(tmp_path / "sims.sh")


def test_a_script_travels_as_flux_has_it(script: str) -> None:
    made = spec(batch, script, "in.dat", "-x")
    system = made["attributes"]["system"]
    assert made["tasks"] == [
        {"command": ["fluxkv", "start", "{{tmpdir}}/script", "in.dat", "-x"], "slot": "task", "count": {"per_slot": 1}}
    ]
    (file,) = read_archive(system["files"])
    assert (file.path, file.mode, file.data) == ("script", 0o700, SCRIPT.encode())
    options = system["shell"]["options"]
    assert (options["per-resource"], options["mpi"]) == ({"type": "node"}, "none")
    assert options["output"]["stdout"]["path"] == "flux-{{id}}.out"
    assert made["resources"][0]["count"] == 3
    assert (system["duration"], system["job"]["name"]) == (300.0, "mine")
    assert "A" not in system["environment"]  # the command line's --env=-* comes after the script's


def test_the_command_line_wins_over_directives(script: str) -> None:
    made = spec(batch, "-n1", "--job-name=other", "--env=A=2", "--output=none", script)
    system = made["attributes"]["system"]
    assert (made["resources"][0]["count"], system["job"]["name"]) == (1, "other")
    assert (system["environment"]["A"], "output" in system["shell"]["options"], system["duration"]) == ("2", False, 300.0)


def test_a_script_from_standard_input_and_one_around_a_command() -> None:
    def text(made: dict[str, Any]) -> str:
        return str(made["attributes"]["system"]["files"]["script"]["data"])

    made = spec(batch, stdin=SCRIPT)
    assert (text(made), made["resources"][0]["count"]) == (SCRIPT, 3)
    assert text(spec(batch, "--wrap", stdin="true\n")) == "#!/bin/sh\ntrue\n"
    assert text(spec(batch, "--wrap", "echo", "a b")) == "#!/bin/sh\necho 'a b'\n"
    assert text(spec(batch, "--wrap", "echo a; echo b")) == "#!/bin/sh\necho a; echo b\n"
    assert spec(batch, "--wrap", "true")["attributes"]["system"]["job"]["name"] == "batch"


def test_the_same_request_is_the_same_jobspec(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or --id would take a second try for another job."""
    first = spec(batch, "--id=nightly", "--conf=queue.policy=easy", script)
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert spec(batch, "--id=nightly", "--conf=queue.policy=easy", script) == first


def test_a_large_script_is_a_blob_where_it_is_submitted(script: str) -> None:
    from fluxkv.tools.child_options import content

    blobs: dict[str, bytes] = {}
    assert content(b"#!" + b"x" * 5000, 0o700, blobs)["encoding"] == "blobvec"
    assert [len(data) for data in blobs.values()] == [5002]


def test_config_dump_and_options_of_the_child(script: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[queue]\npolicy = 'fcfs'\n[policy.limits]\nduration = '1h'\n")
    made = spec(batch, f"--conf={tmp_path}/c.toml", "--conf=queue.policy=easy", "--dump", "--broker-opts=--workers=2", script)
    command = made["tasks"][0]["command"]
    options = ["--config={{tmpdir}}/conf.json", "--workers=2", "--dump=flux-{{id}}-dump.zip"]
    assert command == ["fluxkv", "start", *options, "{{tmpdir}}/script"]
    document = json.loads(made["attributes"]["system"]["files"]["conf.json"]["data"])
    assert document == {"queue": {"policy": "easy"}, "policy": {"limits": {"duration": "1h"}}}
    assert "--dump=d.zip" in spec(batch, "--dump=d.zip", script)["tasks"][0]["command"]


def test_a_config_in_a_directive(tmp_path: Path) -> None:
    text = '#!/bin/sh\n# flux: --conf="""\n# flux: [queue]\n# flux: policy = "easy"\n# flux: """\ntrue\n'
    files = spec(batch, stdin=text)["attributes"]["system"]["files"]
    assert json.loads(files["conf.json"]["data"]) == {"queue": {"policy": "easy"}}
    assert conf_document(['{"queue": {"policy": "easy"}}', "queue.policy=fcfs"]) == {"queue": {"policy": "fcfs"}}


def test_alloc() -> None:
    made = spec(alloc, "-N2", "-c2")
    assert made["tasks"][0]["command"] == ["fluxkv", "start"]
    assert (made["resources"][0]["count"], made["resources"][0]["exclusive"]) == (2, True)
    assert spec(alloc, "sleep", "-n", "5")["tasks"][0]["command"] == ["fluxkv", "start", "sleep", "-n", "5"]
    assert spec(alloc, "--bg", "-n2")["tasks"][0]["command"] == ["fluxkv", "start", "--stay"]
    assert spec(alloc, "--bg", "sleep", "5")["tasks"][0]["command"] == ["fluxkv", "start", "sleep", "5"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["missing.sh"], "missing.sh: No such file"),
        (["--wrap"], "there is nothing in it"),
        (["--wrap", ""], "--wrap: there is nothing in it"),
        (["-n0", "SCRIPT"], "0 is less than 1"),
        (["-c", "x", "SCRIPT"], "cores-per-slot"),
        (["--conf=queue.policy=nosuch", "SCRIPT"], "queue.policy: no queue policy is called"),
        (["--conf=nothing", "SCRIPT"], "no KEY=VALUE, no file"),
        (["--conf=resource.fake=true", "SCRIPT"], "does not go with a child"),
        (["--conf=nonsense.a=1", "SCRIPT"], "nonsense"),
        (["--conf={", "SCRIPT"], "not JSON"),
        (["--broker-opts=-Slog-level=7", "SCRIPT"], "Flux's broker"),
        (["--broker-opts=--detach", "SCRIPT"], "does not go with a child"),
        (["--broker-opts=--huh", "SCRIPT"], "no such option"),
        (["--add-file=script=a\nb", "SCRIPT"], "reserved"),
    ],
)
def test_what_batch_refuses(words: list[str], text: str, script: str) -> None:
    done = call(batch, *[script if word == "SCRIPT" else word for word in words])
    error = done.exception
    assert isinstance(error, click.ClickException | Rejected), done
    assert text in (error.format_message() if isinstance(error, click.ClickException) else str(error))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("# flux: -n2 oops", "'oops' is no option"),
        ("# flux: --nonsense", "No such option"),
        ("# flux: -n x", "not a number"),
        ("# flux: -n2\ntrue\n# flux: -n3", "line 4"),
        ("# flux: --wrap='", "does not close"),
        ("# flux: -n2\n# flux: -N two", "bad directive in line 3: Invalid value for '--nodes'"),
        ("# flux: -n2\n# flux: -t", "bad directive in line 3: Option '-t' requires"),
        ("# flux: -n2\n# flux: --kvs=other", "bad directive in line 3: Invalid value for '--kvs'"),
        ("# flux: --conf=queue.policy=nosuch", "bad directive in line 2: Invalid value for '--conf'"),
        ("# flux: -n2\n# flux: --wrap", "bad directive in line 3: --wrap makes"),
    ],
)
def test_directives_that_are_wrong(line: str, text: str) -> None:
    error = call(batch, stdin=f"#!/bin/sh\n{line}\ntrue\n").exception
    assert isinstance(error, click.ClickException | Rejected)
    assert text in (error.format_message() if isinstance(error, click.ClickException) else str(error))


def test_what_is_wrong_with_the_command_line_is_not_the_script_s(script: str) -> None:
    assert isinstance(call(batch, "-n", "x", script).exception, click.BadParameter)  # the script has -n, too


def test_no_script() -> None:
    for text in ("true\n", "\n"):
        error = call(batch, stdin=text).exception
        assert isinstance(error, Rejected)
        assert error.code == "no-script"


def test_options_of_the_broker_are_start_s() -> None:
    assert broker_options(["--policy=easy,--workers=2", "--on-fork=adopt"]) == ["--policy=easy", "--workers=2", "--on-fork=adopt"]
    with pytest.raises(click.BadParameter, match="requires an argument"):
        broker_options(["--policy"])


def test_jobs_find_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "fluxkv"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    assert with_program({"PATH": "/nowhere"})["PATH"] == f"{program.parent}:/nowhere"
    assert with_program({"PATH": str(program.parent)})["PATH"] == str(program.parent)


def test_resume_of_an_empty_word_begins_nothing(script: str) -> None:
    for command in (batch, alloc):
        done = call(command, "--resume", "", script)
        assert isinstance(done.exception, click.BadParameter)
        assert "names no job" in done.exception.message
