"""Submission on the command line: options to jobspecs, help, errors; the job commands on a real server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fluxkv.instances.client import connect
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import encode, f58, parse_id
from fluxkv.journal.log import Journal
from fluxkv.journal.wire import Event
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.server import start_server
from fluxkv.tools.cancel_cmd import cancel
from fluxkv.tools.ensemble import Ensemble
from fluxkv.tools.environment import environment, overlay_of
from fluxkv.tools.eventlines import EventLines, matches
from fluxkv.tools.job_cmd import job
from fluxkv.tools.named_jobs import parse_ids
from fluxkv.tools.options import copies, flags_of, time_limit, timeout_of
from fluxkv.tools.render import duration_text, human_time, table
from fluxkv.tools.submit_cmd import run, submit
from fluxkv.tools.target import Moment, open_journal, parse_moment


def call(command: click.Command, *args: str, **env: str) -> Result:
    return CliRunner().invoke(command, list(args), standalone_mode=False, env=env)


def test_a_ctrl_c_whose_exception_was_lost_is_heard_with_the_next_look(capsys: pytest.CaptureFixture[str]) -> None:
    class Instance:
        def batches(self, ids: list[int], timeout: float | None) -> Iterator[list[Any]]:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass  # as in the middle of an import
            while True:
                yield []

    jobs = Ensemble(Instance(), {"wait": True})  # type: ignore[arg-type]
    jobs.ids = [1]
    assert jobs.finish(None) == 130
    assert "the jobs go on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def specs(*args: str) -> list[dict[str, Any]]:
    done = call(submit, "--dry-run", "--env=-*", "--rlimit=-*", *args)
    if done.exception is not None:
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def spec(*args: str) -> dict[str, Any]:
    (found,) = specs(*args)
    return found


def system(*args: str) -> dict[str, Any]:
    found: dict[str, Any] = spec(*args)["attributes"]["system"]
    return found


def test_the_least() -> None:
    assert spec("--cwd=/w", "hostname", "-x", "--help") == {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["hostname", "-x", "--help"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0.0, "cwd": "/w", "environment": {}}},
    }


def test_shapes() -> None:
    (node,) = spec("-N2", "-n4", "-c3", "-g1", "-x", "a")["resources"]
    slot = node["with"][0]
    assert (node["type"], node["count"], node["exclusive"], slot["count"]) == ("node", 2, True, 2)
    assert [(one["type"], one["count"]) for one in slot["with"]] == [("core", 3), ("gpu", 1)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 300), ("0.5", 30), ("30s", 30), ("2h", 7200), ("100ms", 0.1), ("0", 0), ("inf", 0), (None, 0)],
)
def test_a_bare_time_limit_is_minutes(text: str | None, seconds: float) -> None:
    assert time_limit(text) == pytest.approx(seconds)


def test_a_bare_timeout_is_seconds() -> None:
    assert (timeout_of("5"), timeout_of("1m"), timeout_of("inf"), timeout_of(None)) == (5.0, 60.0, None, None)


def test_attributes_and_files() -> None:
    found = system(
        "--job-name=n", "--queue=q", "--setattr=foo.bar=[1]", "--setattr=user.x", "-o", "verbose=2",
        "--output=o.{{id}}", "--error=e", "-l", "--input=i", "-t1m", "a",
    )  # fmt: skip
    assert (found["job"], found["queue"], found["foo"], found["duration"]) == (
        {"name": "n"},
        "q",
        {"bar": [1]},
        60.0,
    )
    assert found["shell"]["options"] == {
        "verbose": 2,
        "output": {
            "stdout": {"type": "file", "path": "o.{{id}}", "label": True},
            "stderr": {"type": "file", "path": "e", "label": True},
        },
        "input": {"stdin": {"type": "file", "path": "i"}},
    }
    assert system("--requires=host:n1", "a")["constraints"] == {"hostlist": ["n1"]}


def test_copies() -> None:
    found = specs("--cc=1,3", "-n{cc}", "--output=o.{cc}.{{taskid}}", "--env=X=a{cc}", "echo", "{cc}-{{cc}}")
    assert [one["tasks"][0]["command"] for one in found] == [["echo", "1-1"], ["echo", "3-3"]]
    assert [one["resources"][0]["count"] for one in found] == [1, 3]
    assert [one["attributes"]["system"]["environment"] for one in found] == [
        {"FLUX_JOB_CC": "1", "X": "a1"},
        {"FLUX_JOB_CC": "3", "X": "a3"},
    ]
    paths = [one["attributes"]["system"]["shell"]["options"]["output"]["stdout"]["path"] for one in found]
    assert paths == ["o.1.{{taskid}}", "o.3.{{taskid}}"]
    (plain, _) = specs("--bcc=0-1", "echo", "{cc}")
    assert plain["attributes"]["system"]["environment"] == {}
    assert copies(None, None) is None
    assert overlay_of(["A=1", "-X{cc}", "B=$A-{cc}"], {"A": "1"}, lambda text: "{cc}" in text) == {"B": "1-{cc}"}


def test_environment_rules(tmp_path: Any) -> None:
    ours = {"HOME": "/h", "PATH": "/p", "SLURM_A": "1", "SLURM_B": "2", "LANG": "C"}
    assert environment([], source=ours) == ours
    assert environment(["-SLURM_*"], source=ours).keys() == {"HOME", "PATH", "LANG"}
    assert environment(["-*", "A=1", "LANG=de", "LANG", "B=$HOME"], source=ours) == {"A": "1", "LANG": "de", "B": "/h"}
    assert environment(["-*", "PATH", "A=$PATH:/x", "/^SLURM_[B]/"], source=ours) == {
        "PATH": "/p",
        "A": "/p:/x",
        "SLURM_B": "2",
    }
    assert environment(["-HOME"], source=ours).keys() == ours.keys() - {"HOME"}
    rules = tmp_path / "rules"
    rules.write_text("# all but one\n-*\nLANG\n")
    assert environment([f"^{rules}"], source=ours) == {"LANG": "C"}


@pytest.mark.parametrize(
    ("option", "args"),
    [
        ("--ntasks", ["-n", "x"]), ("--ntasks", ["-n", "0"]), ("--nodes", ["-N", "-1"]),
        ("--time-limit", ["-t", "1z"]), ("--time-limit", ["-t", "nan"]), ("--urgency", ["--urgency=32"]),
        ("--setattr", ["--setattr==1"]), ("--setopt", ["-o", "=1"]), ("--requires", ["--requires=a|"]),
        ("--flags", ["--flags=nosuch"]), ("--cc", ["--cc=3-1"]),
        ("--bcc", ["--cc=1", "--bcc=1"]), ("--env", ["--env=A=$NOSUCHVAR"]), ("--env=^", ["--env=^/no/file"]),
        ("--env-file", ["--env-file=/no/file"]),
        ("--timeout", ["--timeout=x"]),
    ],
)  # fmt: skip
def test_each_bad_value_names_its_option(option: str, args: list[str]) -> None:
    done = call(submit, *args, "true", FLUXKV_URI="unix:/nonexistent/kv.sock")
    assert isinstance(done.exception, click.BadParameter)
    assert option in done.exception.format_message()


def test_what_is_not_an_option_of_ours() -> None:
    assert isinstance(call(submit).exception, click.UsageError)
    assert isinstance(call(submit, "--nosuch", "true").exception, click.NoSuchOption)
    assert flags_of(["debug,waitable"]) == 6


COMMANDS = [submit, run, cancel, *job.commands.values()]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_every_help_teaches_by_example(command: click.Command) -> None:
    shown = call(command, "--help").output
    assert "Examples:\n" in shown
    assert "      fluxkv" in shown or "    fluxkv" in shown


def test_lists_of_ids() -> None:
    one = parse_id("ƒ3kQ")
    assert parse_ids(["ƒ3kQ", encode(one, "dothex"), hex(one)]) == [one]
    assert parse_ids(["[5-7,9]", "8,5"]) == [5, 6, 7, 9, 8]
    with pytest.raises(Rejected):
        parse_ids(["7-5"])
    with pytest.raises(Rejected):
        parse_ids(["nonsense!"])


def test_moments() -> None:
    now = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
    assert parse_moment("1234", now) == Moment(version=1234)
    assert parse_moment("-5m", now) == Moment(time=now - 300)
    assert parse_moment("@1.5", now) == Moment(time=1.5)
    assert parse_moment("10:30", now) == Moment(time=now - 5400)
    assert parse_moment("9:30", now) == Moment(time=now - 9000)
    assert parse_moment("yesterday 12:00", now) == Moment(time=now - 86400)
    assert parse_moment("2026-11-23 11:59:30", now) == Moment(time=now - 30)
    assert parse_moment("2026-11-23T00:00+00:00", now).time == 1795392000.0
    for bad in ("", "tomorrow", "25:00", "-5x", "yesterday at noon"):
        with pytest.raises(Rejected, match="bad moment"):
            parse_moment(bad, now)


def test_plain_tables(capsys: pytest.CaptureFixture[str]) -> None:
    table(["ID", "N"], [["ƒa", 1], ["ƒbcd", None]], right=[1])
    assert capsys.readouterr().out == "ID   N\nƒa   1\nƒbcd\n"
    assert (duration_text(0), duration_text(0.25), duration_text(90)) == ("-", "0.25s", "1.5m")
    assert human_time(0) == "-"


def test_event_lines() -> None:
    events = [
        Event("submit", 1, 10.0, {"urgency": 16, "jobspec": {}}),
        Event("exception", 1, 11.25, {"type": "x", "note": "a b"}),
        Event("clean", 1, 12.0),
    ]
    raw = EventLines("text", "raw")
    assert [raw.of(event) for event in events] == [
        "10.000000 submit urgency=16",
        '11.250000 exception type="x" note="a b"',
        "12.000000 clean",
    ]
    offset, human, lines = (
        EventLines("text", "offset"),
        EventLines("text", "human"),
        EventLines("json", "raw"),
    )
    assert [offset.of(event).split()[0] for event in events] == ["0.000000", "1.250000", "2.000000"]
    assert [human.of(event)[:13] for event in events][1:] == ["[  +1.250000]", "[  +0.750000]"]
    assert json.loads(lines.of(events[0])) == {
        "timestamp": 10.0,
        "name": "submit",
        "context": {"urgency": 16},
    }
    assert matches({"type": "cancel", "n": 3}, "type=cancel")
    assert matches({"n": 3}, "n=3")
    assert not matches({}, "n=3")


# -- on a server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's directory that holds an instance; FLUXKV_URI of the calls is `uri_of(folder)`."""
    path = str(tmp_path_factory.mktemp("kv"))
    try:
        handle = start_server(path, "local")
    except Unavailable as error:
        pytest.skip(str(error))
    store = open_store(handle.url)
    meta = store.create(durability="local", origin_ms=time.time_ns() // 1_000_000, created=time.time())
    create = {"uid": meta.uid, "owner": os.getuid(), "namespace": "/", "schema": 1}
    children = {"core": "0-3"}
    R = {"version": 1, "execution": {"R_lite": [{"rank": "0", "children": children}], "nodelist": ["h"]}}
    events = [
        ["instance-create", "instance", time.time(), create],
        ["resource-define", "resource", time.time(), {"method": "configuration", "R": R}],
    ]
    Journal(store).append(Decision(events), 0)
    os.environ["FLUXKV_URI"] = handle.url
    yield path
    del os.environ["FLUXKV_URI"]
    store.close()
    handle.stop()


def finish(id: int, status: int) -> None:
    t = time.time()
    events = [
        ["validate", id, t, None], ["depend", id, t, None], ["priority", id, t, {"priority": 16}],
        ["alloc", id, t, {"claims": [[0, "1", "", 0, 1]], "expiration": 0.0}], ["start", id, t, None],
        ["finish", id, t, {"status": status}], ["free", id, t, None], ["clean", id, t, None],
    ]  # fmt: skip
    with connect() as instance:
        instance.journal.append(Decision(events, bumps=[f"job/{id}"]), instance.journal.meta.version)


def submitted(*args: str) -> int:
    done = call(submit, *args)
    assert done.return_value == 0, done.output
    return parse_id(done.stdout.strip())


def test_submit_prints_ids_only(folder: str) -> None:
    done = call(submit, "--cc=1-3", "true", "{cc}")
    assert done.stderr == ""
    assert [line[0] for line in done.stdout.splitlines()] == ["ƒ"] * 3
    assert call(submit, "--quiet", "true").stdout == ""


def test_job_status_and_wait_give_codes(folder: str) -> None:
    good, bad = submitted("true"), submitted("false")
    finish(good, 0)
    finish(bad, 3 << 8)
    assert call(job, "status", f58(good)).return_value == 0
    done = call(job, "status", "-v", f58(good), f58(bad))
    assert done.return_value == 3
    assert f"{f58(bad)}: exited with exit code 3" in done.stderr
    assert (call(job, "wait", f58(good)).return_value, call(job, "wait", f58(bad)).return_value) == (0, 1)
    assert call(job, "attach", f58(bad)).return_value == 3


def test_waiting_commands_time_out(folder: str) -> None:
    id = f58(submitted("true"))
    for args in (["status", "-t0.05", id], ["attach", "-t0.05", id], ["wait-event", "-t0.05", id, "clean"]):
        error = call(job, *args).exception
        assert isinstance(error, Unavailable)
        assert (error.code, error.exit_status) == ("timeout", 1)
    assert isinstance(call(submit, "--wait", "--timeout=0.05", "true").exception, Unavailable)
    assert isinstance(call(run, "--timeout=0.05", "true").exception, Unavailable)


def test_events_and_what_is_kept(folder: str) -> None:
    id = submitted("--env=-*", "--env=A=1", "-n1", "echo", "hi")
    finish(id, 0)
    names = [line.split()[1] for line in call(job, "eventlog", f58(id)).stdout.splitlines()]
    assert (names[0], names[-1]) == ("submit", "clean")
    assert call(job, "wait-event", f58(id), "start").stdout.split()[1] == "start"
    assert call(job, "wait-event", f58(id), "never").return_value == 1
    jobspec = json.loads(call(job, "info", f58(id), "jobspec").stdout)
    assert jobspec["tasks"][0]["command"] == ["echo", "hi"]
    assert jobspec["attributes"]["system"]["environment"] == {"A": "1"}
    R = json.loads(call(job, "info", f58(id), "R").stdout)
    assert R["execution"]["R_lite"] == [{"rank": "0", "children": {"core": "1"}}]
    assert R["execution"]["nodelist"] == ["h"]
    assert call(job, "last").stdout.strip() == f58(id)
    assert call(job, "id", "--to=hex", f58(id)).stdout.strip() == hex(id)


def test_cancel(folder: str) -> None:
    done_id, first, second = submitted("true"), submitted("true"), submitted("true")
    finish(done_id, 0)
    done = call(cancel, f58(done_id), f58(first), "12345")
    assert done.return_value == 1
    assert "is inactive" in done.stderr
    assert "no such job" in done.stderr
    assert f58(second) in call(cancel, "--all", "--dry-run").stdout
    assert "cancelled" in call(cancel, "--all").stderr
    assert isinstance(call(cancel).exception, click.UsageError)
    with connect() as instance:
        assert [instance.job(id).exception for id in (first, second)] == [["cancel", ""]] * 2
        assert instance.job(done_id).exception is None


def test_raise_urgency_and_kill(folder: str) -> None:
    id = submitted("--urgency=hold", "true")
    assert call(job, "urgency", f58(id), "20").return_value == 0
    assert call(job, "raise", "-t", "test", "-s", "5", "-m", "note", f58(id)).return_value == 0
    assert call(job, "kill", f58(id)).return_value == 1
    with connect() as instance:
        assert (instance.job(id).urgency, instance.job(id).exceptions) == (20, [["test", 5, "note"]])


def test_a_state_directory_is_read_with_its_server_running_or_not(folder: str, tmp_path: Any) -> None:
    import shutil

    id = submitted("true")
    assert call(job, "eventlog", "--state-dir", folder, f58(id)).stdout.split()[1] == "submit"
    shutil.copytree(os.path.join(folder, "appendonlydir"), tmp_path / "appendonlydir")
    with open_journal(None, str(tmp_path)) as journal:
        assert id in journal.load().jobs
    with (
        pytest.raises(Rejected, match="no instance has its state here"),
        open_journal(None, str(tmp_path / "x")),
    ):
        pass


def test_retries_as_typed() -> None:
    plain = {"limit": 2, "on": ["node-failure", "oom", "exit", "signal", "shutdown"]}
    assert system("--retry=2", "x")["retry"] == plain
    found = system("--retry=3", "--retry-on=oom,exit=75,signal=9", "--retry-delay=1.5m", "x")["retry"]
    assert found == {"limit": 3, "on": ["oom", "exit=75", "signal=KILL"], "delay": 90.0}
    assert system("--retry=0", "x")["retry"]["limit"] == 0
    assert "retry" not in system("x")
    each = [one["attributes"]["system"]["retry"]["limit"] for one in specs("--cc=1-2", "--retry={cc}", "x")]
    assert each == [1, 2]
    for words, named in {
        ("--retry=x",): "'--retry': 'x' is not a number", ("--retry=1001",): "'--retry'", ("--retry=-1",): "'--retry'",
        ("--retry=1", "--retry-on=bad"): "'--retry-on': 'bad' is no cause", ("--retry-on=oom",): "add --retry=N",
        ("--retry=1", "--retry-on=exit=0"): "exit codes are 1 to 255", ("--retry-delay=1s",): "'--retry-delay'",
        ("--retry=1", "--retry-delay=soon"): "'--retry-delay'",
    }.items():  # fmt: skip
        with pytest.raises(click.UsageError) as caught:
            spec(*words, "x")
        assert named in caught.value.format_message(), words


def test_keys_as_typed() -> None:
    spec("--id=nightly", "x")
    for words in (["--id="], ["--id=a\tb"], ["--cc=1-2", "--id="], ["--id", "x" * 257]):
        with pytest.raises(click.UsageError) as caught:
            specs(*words, "x")
        assert "'--id'" in caught.value.format_message(), words


def test_a_user_s_setting_for_retries_needs_no_retry() -> None:
    """What is set for all jobs that are tried again says nothing of those that are not."""
    words = ["--dry-run", "--env=-*", "--rlimit=-*", "x"]
    done = CliRunner().invoke(submit, words, default_map={"retry_on": "oom"})
    assert done.exit_code == 0, done.output
    assert "retry" not in json.loads(done.stdout)["attributes"]["system"]
