"""`fluxkv cron`: what is defined, listed, changed and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fluxkv.journal import decide_config
from fluxkv.kvs.memory_server import shared_server
from fluxkv.tools.formats import iso_time


@pytest.fixture
def entries(shell: Any) -> Any:
    """id -> entry, as the journal has it now. Entry 1 is stopped, 2 owes an answer to an event."""
    shell.out("cron", "interval", "1h", "tidy")
    shell.out("cron", "event", "--name", "greet", "queue.queue-stop", "hello")
    shell.out("cron", "stop", "1")
    shell.out("queue", "stop", "default")

    def now() -> dict[int, Any]:
        state = shell.sample.state
        shell.sample.journal.catch_up(state)
        return dict(state.cron.entries)

    return now


def test_list(shell: Any, entries: Any) -> None:
    since = iso_time(entries()[2].owed[0][0])
    rows = [" ".join(line.split()) for line in shell.out("cron", "list").splitlines()]
    assert rows == [
        "ID NAME TYPE WHAT STATE NEXT RUNS FAIL LASTJOB RESULT NOTE",
        "1 tidy interval every 1h stopped - 0 0 - - stopped by hand",
        f"2 greet event queue.queue-stop active {since} 0 0 - -",
    ]
    assert shell.out("cron", "list", "-n", "-o", "{id} {name} {events}") == "1 tidy 0\n2 greet 1\n"
    assert shell.out("cron", "list", "-n", "--at", "20") == ""
    found = json.loads(shell.out("cron", "list", "--json"))[0]
    assert (found["name"], found["state"], found["next"], found["last_job"]) == ("tidy", "stopped", 0.0, None)


def test_interval(shell: Any, entries: Any) -> None:
    words = ["--name", "probe", "--count", "3", "--no-overlap", "--after", "5s", "-n2", "-t", "1m", "--urgency", "20"]
    assert shell.out("cron", "interval", *words, "--env=A=1", "2m", "probe", "-v", "x") == "3\n"
    entry = entries()[3]
    now = shell.sample.clock.now
    assert (entry.name, entry.type, entry.spec, entry.next) == (
        "probe", "interval", {"interval": 120.0, "first": now + 5}, now + 5,
    )  # fmt: skip
    assert entry.options == {"count": 3, "no_overlap": True, "missed": "run", "stop_on_failure": 0}
    job = entry.job
    assert (job["urgency"], job["jobspec"]["tasks"][0]["command"]) == (20, ["probe", "-v", "x"])
    assert job["jobspec"]["attributes"]["system"]["duration"] == 60.0
    blob = shared_server(shell.sample.uri.partition(":")[2]).tables.blobs
    assert any(job["env"] in found for found in blob.values())
    assert "FLUX_CRON_ID" not in shell.out("cron", "dump", "3", "-k", "job")


def test_event_at_and_default_names(shell: Any, entries: Any) -> None:
    shell.out("cron", "event", "--nth", "2", "--after", "1", "--min-interval", "1m", "job.finish", "/bin/tell")
    shell.out("cron", "at", "+1h", "7")
    event, at = entries()[3], entries()[4]
    assert event.spec == {"event": "finish", "subject": "job", "nth": 2, "after": 1, "min_interval": 60.0}
    assert (event.name, event.next, at.name, at.next, at.options["count"]) == (
        "tell", 0.0, "job-7", shell.sample.clock.now + 3600, 1,
    )  # fmt: skip
    listed = shell.out("cron", "list", "-n", "-o", "{what}|{next}")
    assert "job.finish nth=2 after=1 min-interval=1m|-\n" in listed
    assert json.loads(shell.out("cron", "dump", "-k", "options.count", "job-7")) == 1


def test_tab(shell: Any, entries: Any) -> None:
    text = b"# comment\nMAILTO=me\n*/5 * * * * echo a $MAILTO\n\nCRON_TZ=Asia/Tokyo\n@daily ./b --x=1\n"
    assert shell.out("cron", "tab", "-", input=text) == "3\n4\n"
    one, two = entries()[3], entries()[4]
    assert (one.name, one.spec["line"]) == ("echo", "*/5 * * * *")
    assert (two.name, two.spec) == ("b", {"line": "@daily", "tz": "Asia/Tokyo"})
    assert two.job["jobspec"]["tasks"][0]["command"] == ["/bin/sh", "-c", "./b --x=1"]
    assert one.next % 300 == 0
    bad = shell("cron", "tab", input=b"*/5 * * * * ok\n61 * * * * x\n")
    assert (bad[0], bad[2]) == (1, "line 2: crontab line '61 * * * *': minute: '61' is not in 0-59")
    assert shell("cron", "tab", input=b"0 0 31 2 * x\n")[2] == "line 1: it names a day that no month has"
    assert shell("cron", "tab", input=b"CRON_TZ=x\n")[2] == "time zone 'x' is not known"
    assert shell("cron", "tab", input=b"\n")[2] == "there is no line to define"
    assert shell("cron", "tab", "a", "b")[0] == 2
    assert set(entries()) == {1, 2, 3, 4}  # all or none


def test_stop_start_delete(shell: Any, entries: Any) -> None:
    shell.out("cron", "start", "tidy")
    assert (entries()[1].state, entries()[1].next % 3600) == ("active", shell.sample.clock.now % 3600)
    shell.out("cron", "stop", "1", "greet", "1")
    assert {entry.state for entry in entries().values()} == {"stopped"}
    assert shell("cron", "stop", "2")[2] == "cron entry 2: is stopped"
    shell.out("cron", "start", "2")
    assert shell("cron", "start", "2")[2] == "cron entry 2: is active"
    assert shell("cron", "delete", "1", "nosuch")[2] == "cron entry nosuch: no such entry"
    assert set(entries()) == {1, 2}
    shell.out("cron", "delete", "--kill", "1", "2")
    assert entries() == {}
    assert shell.out("cron", "list", "-n") == ""
    shell.out("cron", "at", "+1s", "x")
    shell.sample.clock.now += 5
    shell.out("cron", "stop", "3")
    assert shell("cron", "start", "3")[2] == "cron entry 3: its time has passed"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["interval", "1m"], "no command to run"),
        (["interval", "soon", "x"], "'FSD'"),
        (["interval", "0", "x"], "'FSD'"),
        (["interval", "inf", "x"], "'FSD'"),
        (["interval", "0.01s", "x"], "too short"),
        (["interval", "1e300s", "x"], "further off than a calendar"),
        (["event", "--min-interval=1e300s", "drain", "x"], "further off than a calendar"),
        (["interval", "1m", "-n2", "x"], "options go before"),
        (["interval", "--count", "0", "1m", "x"], "--count"),
        (["interval", "--after", "-1s", "1m", "x"], "--after"),
        (["interval", "-n", "0", "1m", "x"], "--ntasks"),
        (["interval", "-q", "nosuch", "1m", "x"], "queue nosuch is not defined"),
        (["interval", "--name", "12", "1m", "x"], "bad name '12'"),
        (["interval", "--dependency=afterok:#-1", "1m", "x"], "there is none here"),
        (["event", "nosuch", "x"], "event 'nosuch': no such event"),
        (["event", "cron-fire", "x"], "starts no cron entry"),
        (["event", "--min-interval", "x", "drain", "x"], "--min-interval"),
        (["at", "yesterday", "x"], "bad moment"),
        (["at", "@5", "x"], "is past"),
        (["at", "now"], "no command to run"),
        (["dump", "-k", "a.b", "tidy"], "a.b: there is no a"),
        (["list", "-o", "{nope}"], "nope"),
        (["stop"], "ID|NAME"),
    ],
)
def test_refusals(shell: Any, entries: Any, words: list[str], why: str) -> None:
    status, out, error = shell("cron", *words)
    assert status in (1, 2), (status, out, error)
    assert why in error
    assert out == ""
    assert set(entries()) == {1, 2}


def test_dry_run_defines_nothing(shell: Any, entries: Any) -> None:
    assert json.loads(shell.out("cron", "interval", "--dry-run", "1m", "x"))["version"] == 1
    assert set(entries()) == {1, 2}


def test_plug_ins_at_ingest_see_an_entry_s_job(shell: Any, entries: Any) -> None:
    document = {"ingest": {"validators": {"plugins": ["require-time-limit"]}}}
    journal, state = shell.sample.journal, shell.sample.state
    journal.settle(lambda now: decide_config.load(now, document, "", 1, 5.0), state)
    status, _, error = shell("cron", "interval", "1m", "x")
    assert (status, "time limit" in error) == (1, True)
    lines = b"@daily one\n@hourly two\n"
    assert shell("cron", "tab", input=lines)[0] == 1
    assert set(entries()) == {1, 2}
    assert shell.out("cron", "tab", "-t", "5m", "--urgency", "3", input=lines) == "3\n4\n"
