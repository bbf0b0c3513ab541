"""How commands behave among others: colours, narrow terminals, pipes that close, Ctrl-C, closed descriptors, no instance."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.live

ESCAPE = "\x1b["


@pytest.fixture
def held(site: Any) -> Any:
    """A job that waits for ever, and one that has failed."""
    site("run", "--job-name=fails", "false")
    id = site.submit("--urgency=0", "--job-name=with-a-name-that-is-long", "true")
    yield id
    site("cancel", id)


def test_colours_can_be_had_and_be_off(site: Any, held: str) -> None:
    words = ["jobs", "-a"]
    assert ESCAPE in site.on_terminal(*words).out
    assert ESCAPE not in site.on_terminal(*words, NO_COLOR="1").out
    assert ESCAPE not in site.on_terminal(*words, TERM="dumb").out
    assert ESCAPE not in site.on_terminal(*words, "--color=never").out
    assert ESCAPE not in site.ok(*words)
    assert ESCAPE in site.ok(*words, "--color=always", NO_COLOR="1")
    assert ESCAPE in site.ok(*words, FORCE_COLOR="1")
    assert ESCAPE not in site.ok(*words, FORCE_COLOR="1", NO_COLOR="1")


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "words", [["jobs", "-a"], ["list"], ["resource", "list", "-v"], ["queue", "list"]], ids=" ".join
)
def test_tables_fit_a_narrow_terminal_and_are_whole_in_a_pipe(site: Any, held: str, words: list[str], columns: int) -> None:
    shown = site.on_terminal(*words, columns=columns, NO_COLOR="1")
    assert shown.code == 0
    if words[0] == "jobs":
        assert max(map(len, shown.lines)) <= columns
    else:  # a value alone on its line may be longer: it could not be copied otherwise
        assert all(len(line) <= columns or len(line.split()) <= 2 for line in shown.lines), shown.out
    assert not [line for line in site(*words, COLUMNS=str(columns)).lines if line.endswith("+")]


def test_help_fits(site: Any) -> None:
    for words in (["-h"], ["submit", "-h"], ["job", "-h"]):
        text = site.ok(*words, COLUMNS="60")
        assert all(len(line) <= 60 for line in text.partition("Options:")[2].splitlines() if "fluxkv " not in line)
    assert site.ok("-h").replace("fluxkv", "") == site.ok("--help").replace("fluxkv", "")


@pytest.mark.parametrize(
    "line",
    ["fluxkv submit --cc=1-2000 --urgency=0 true | head -1", "fluxkv jobs -a -c 0 | true", "fluxkv journal show | head -1",
     "fluxkv journal follow --after 0 | head -1", "fluxkv --help | true", "fluxkv help submit | head -1"],
)  # fmt: skip
def test_a_pipe_that_closes_early_is_no_fault(site: Any, line: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'{line}; echo "status ${{PIPESTATUS[0]}}"'],
        cwd=site.folder, env=site.env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = "fluxkv: submitted before this: "  # nothing more is submitted when nobody reads the ids
    assert done.stderr == "" or (done.stderr.startswith(said) and done.stderr.count("\n") == 1)
    assert done.stdout.splitlines()[-1] in ("status 0", "status 141")
    site("cancel", "--all")


def test_closed_descriptors_are_no_fault(site: Any) -> None:
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        done = subprocess.run(
            ["bash", "-c", f"fluxkv jobs {closed}; fluxkv submit true {closed}"],
            cwd=site.folder, env=site.env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), closed


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_not_taken_is_named(site: Any, unbuffered: str) -> None:
    told = "fluxkv: standard output: No space left on device\n  free some of it, or write elsewhere\n"
    for words in ("jobs", "jobs --json", "submit true", "ensemble submit --cc=1 true", "batch -n1 --wrap true"):
        full = subprocess.run(
            ["bash", "-c", f"fluxkv {words} > /dev/full"], cwd=site.folder, env={**site.env, "PYTHONUNBUFFERED": unbuffered},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert full.returncode == 3
        before, _, rest = full.stderr.rpartition("fluxkv: standard")
        assert f"fluxkv: standard{rest}" == told, full.stderr
        if "true" in words:  # it is there, so its id is said
            assert before == f"fluxkv: submitted before this: 1 job, {site('job', 'last').out.strip()}\n"
        else:
            assert before == ""
    site("cancel", "--all")


WAITS = [
    ["submit", "--wait", "--urgency=0", "true"], ["submit", "--watch", "--urgency=0", "true"], ["job", "wait", "ID"],
    ["job", "wait", "--all"], ["job", "status", "ID"], ["job", "wait-event", "ID", "start"],
    ["job", "eventlog", "-F", "ID"], ["queue", "drain"], ["journal", "follow"], ["dmesg", "--follow"],
    ["watch", "ID"], ["watch", "--all"], ["kvs", "watch", "absent"], ["kvs", "wait", "absent"],
    ["kvs", "get", "--watch", "present"],
]  # fmt: skip


@pytest.mark.parametrize("words", WAITS, ids=" ".join)
def test_ctrl_c_ends_whatever_waits(site: Any, held: str, words: list[str]) -> None:
    site.ok("kvs", "put", "present=1")
    done = site.on_terminal(*[held if word == "ID" else word for word in words], interrupt=True)
    assert done.code == 130, done
    said = ("fluxkv: the jobs go on; ", "fluxkv: submitted before this: 1 job, ")  # just before it begins to wait
    assert done.err == "" or (done.err.startswith(said) and done.err.count("\n") == 1), done
    site("cancel", "--all")


@pytest.mark.parametrize(
    "words",
    [["jobs"], ["submit", "true"], ["run", "true"], ["cancel", "f2"], ["job", "attach", "f2"], ["queue", "status"],
     ["resource", "list"], ["kvs", "get", "x"], ["status"], ["stop"], ["replay"], ["journal", "follow"], ["dmesg"]],
    ids=" ".join,
)  # fmt: skip
def test_without_an_instance_one_line_says_what_to_do(user: Any, words: list[str]) -> None:
    done = user(*words)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("fluxkv: no instance is running\n  fluxkv start gives you one; or set FLUXKV_URI")


@pytest.mark.parametrize(
    "words",
    [["job", "attach"], ["job", "eventlog"], ["job", "info", "ID", "R"], ["job", "urgency", "ID", "3"], ["job", "wait"],
     ["job", "status"], ["job", "kill"], ["job", "raise"], ["cancel"], ["jobs"], ["inspect", "job"]],
    ids=" ".join,
)  # fmt: skip
def test_a_job_that_never_was(site: Any, words: list[str]) -> None:
    typed = [word if word != "ID" else "ƒ2345" for word in words]
    done = site(*typed, *([] if "ID" in words else ["ƒ2345"]))
    assert (done.code, done.out) == (1, "")
    assert "ƒ2345" in done.err
    assert "no such job" in done.err


def test_why_a_command_could_not_start_is_said_once(site: Any) -> None:
    done = site("run", "/no/such/command")
    assert (done.code, done.out) == (127, "")
    assert done.err.count("no such file") == 1
    done = site("run", "--error=elsewhere", "/no/such/command")
    assert done.err.count("no such file") == 1


def test_what_is_printed_in_a_pipe_is_there_at_once(site: Any, held: str) -> None:
    """A command that goes on prints for who reads now, not when its buffer is full."""
    follow = site.popen("job", "eventlog", "-F", held)
    assert follow.stdout.readline().split()[1] == "submit"
    follow.kill()
    wait = site.popen("submit", "--wait", "--urgency=0", "true")
    site.ok("cancel", wait.stdout.readline().strip())
    assert wait.wait(60) == 1


def test_wide_characters_keep_columns(site: Any) -> None:
    id = site.submit("--urgency=0", "--job-name=計算計算計算計算", "true")
    try:
        line = next(line for line in site.ok("jobs").splitlines() if id in line)
        name = line.split()[2]
        assert len(name) <= 5, "ten columns hold five of them"
    finally:
        site.ok("cancel", id)


def test_a_state_directory_too_long_for_a_socket_is_found_by_the_uri(user: Any) -> None:
    """The socket lies elsewhere then, and leads back."""
    long = user.folder / ("x" * 60) / ("y" * 60)
    uri = user.ok("start", "--detach", "--state-dir", long).split()[-1]
    inside = user.at(user.folder, uri)
    try:
        assert str(long) not in uri
        assert f"directory {long}" in inside.ok("status")
        assert "worker" in inside.ok("dmesg")
        inside.ok("restart")
    finally:
        inside.ok("stop")
    shutil.rmtree(os.path.dirname(uri.removeprefix("unix:")))
    script = "fluxkv status | grep -c yyyy && fluxkv restart && fluxkv run true"
    assert user.ok("start", "--state-dir", long, "sh", "-c", script).split() == ["1"]
    shutil.rmtree(os.path.dirname(uri.removeprefix("unix:")))


def test_help_is_a_manual_page_on_a_terminal(site: Any) -> None:
    shown = site.on_terminal("help", "job", "attach", MANPAGER="cat", MANWIDTH="78")
    assert shown.code == 0
    if shutil.which("man"):
        assert "FLUXKV-JOB-ATTACH(1)" in shown.out
    else:
        assert shown.out.startswith("Usage: fluxkv job attach")
