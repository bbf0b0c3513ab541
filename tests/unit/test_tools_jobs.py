"""`fluxkv jobs`: exact tables, fields, filters, order, and the time machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

TABLE = """\
       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO
    ƒ6HjYQgw alice    big         S      3      3        - needs 3 nodes; 2 are up
    ƒ6jJ62Vm alice    small       S      1      -        - behind ƒ6HjYQgw
    ƒ7ArdeJb alice    later       S      1      -        - held
    ƒ7cRBG7R alice    nightly     D      1      -        - waits for begin-time 2023-11-16T02:00:00
    ƒ5QcTB5H alice    simulate    R      1      1      11s node0
"""
INACTIVE = """\
    ƒ4y3uZGT alice    sleep      CA      1      1       4s cancel
    ƒ4XVMwTd alice    second     CD      1      1     2.5s node0
    ƒ45vpKeo alice    first      CD      1      1     0.5s node0
    ƒ3eNGhqy alice    nosuch      F      1      1        - exec: nosuch: No such file or directory
    ƒ3Coj639 alice    mpi        CD      2      2       3s node[0-1]
    ƒ2mFBUEK alice    sleep      TO      1      1       9s timeout: resource allocation expired
    ƒ2KgdrRV alice    sleep      CA      1      -        - cancel: not needed
     ƒt86Ecf alice    build       F      1      1       2s exit code 3
     ƒSZYcoq alice    true       CD      1      1       2s node0
"""


def test_active_jobs_of_this_user_are_the_default(shell: Any) -> None:
    assert shell.out("jobs") == TABLE


def test_a_adds_inactive_jobs_the_latest_first(shell: Any) -> None:
    assert shell.out("jobs", "-a") == TABLE + INACTIVE


def test_the_contract_of_scripts(shell: Any) -> None:
    lines = shell.out("jobs", "--no-header", "--format", "{id} {status_abbrev}", "-a").splitlines()
    assert lines[0] == f"{shell.id('l')} S"
    assert sorted(line.split()[1] for line in lines) == sorted(
        ["S", "S", "S", "D", "R", "CA", "CD", "CD", "F", "CD", "TO", "CA", "F", "CD"]
    )


@pytest.mark.parametrize(
    ("letter", "fmt", "expected"),
    [
        ("b", "{id.f58:>12}|{id.dec}|{id.hex}|{id.dothex}",
        "     ƒt86Ecf|33554432000|0x7d0000000|0000.0007.d000.0000"),
        ("b", "{name} {state} {state_single} {status} {result} {result_abbrev}",
        "build INACTIVE I FAILED FAILED F"),
        ("b", "{returncode} {waitstatus} {success} {inactive_reason}", "3 768 False Exit 3"),
        ("d", "{returncode} {exception.occurred} {exception.severity} {exception.type}",
        "143 True 0 timeout"),
        ("d", "{exception.note}", "resource allocation expired"),
        ("d", "{duration!F} {runtime!F:>6} {runtime!H} {runtime:.1f}", "5s     9s 0:00:09 9.0"),
        ("d", "{t_run!D} {t_run!d:%H:%M::>7}|", "2023-11-14T22:13:48   22:13|"),
        ("d", "{t_run!d:%Y}", "2023"),
        ("j", "{t_inactive!D}|{returncode}|{success}|{result}|", "||||"),
        ("j", "{t_remaining!F} {ranks} {nodelist} {ncores} {nnodes} {ntasks}", "59.8m 0 node0 2 1 1"),
        ("e", "{nodelist} {ranks}", "node[0-1] 0-1"),
        ("o", "{dependencies} {status_abbrev}", "begin-time=1700100000 D"),
        ("l", "{reason}|{priority}|{urgency:03d}", "needs 3 nodes; 2 are up|16|016"),
        ("c", "{inactive_reason}|{nnodes:>3h}|{returncode:>3d}", "Canceled: not needed|  -|  1"),
        ("f", "{inactive_reason}", "command not found"),
        ("e", "{name:<2.2+}|{nodelist:<6.6+}", "m+|node[+"),
        ("b", "100%s {{}} {name:^7}.", "100%s {}  build ."),
    ],
)  # fmt: skip
def test_fields(shell: Any, letter: str, fmt: str, expected: str) -> None:
    assert shell.out("jobs", "-n", "-o", fmt, shell.id(letter)) == expected + "\n"


def test_an_empty_value_fits_any_number_format(shell: Any) -> None:
    assert shell.out("jobs", "-n", "-o", "{returncode:>4d}|", shell.id("j")) == "    |\n"


def test_optional_columns_go_when_empty(shell: Any) -> None:
    assert shell.out("jobs", "-o", "{id} ?:{dependencies:>12} {name}", shell.id("a")) == "JOBID NAME\nƒSZYcoq true\n"
    assert "begin-time" in shell.out("jobs", "-o", "{id} ?:{dependencies:>12} {name}", shell.id("o"))


def test_filters(shell: Any) -> None:
    def names(*args: str) -> list[str]:
        return shell.out("jobs", "-n", "-o", "{name}", *args).split()

    assert names("-f", "failed,timeout") == ["nosuch", "sleep", "build"]
    assert names("-f", "running") == ["simulate"]
    assert names("-A", "-f", "running") == ["render", "simulate"]
    assert names("-f", "pending", "-c", "2") == ["big", "small"]
    assert names("-a", "--name", "sleep", "--sort", "t_submit") == ["sleep"] * 3
    assert names("-u", "4000000") == ["render"]
    assert names("-a", "-q", "nothing") == []
    assert names("--since", "@1700000060") == [
        "big",
        "small",
        "later",
        "nightly",
        "simulate",
        "sleep",
        "second",
    ]
    assert names("-a", "--sort", "-returncode", "-f", "failed") == ["nosuch", "build"]


def test_at_shows_the_past(shell: Any) -> None:
    by_version = shell.out("jobs", "-a", "-n", "-o", "{name} {status_abbrev}", "--at", "40")
    assert by_version == "mpi R\nsleep TO\nsleep CA\nbuild F\ntrue CD\n"
    assert shell.out("jobs", "-a", "-n", "-o", "{name} {status_abbrev}", "--at", "@1700000045") == by_version
    status, _, error = shell("jobs", "--at", "99999")
    assert status == 1
    assert "the journal ends at" in error


def test_json(shell: Any) -> None:
    one = json.loads(shell.out("jobs", "--json", shell.id("d")))
    assert one["id"] == shell.id("d")
    assert one["exception"] == {
        "occurred": True,
        "severity": 0,
        "type": "timeout",
        "note": "resource allocation expired",
    }
    assert "returncode" not in json.loads(shell.out("jobs", "--json", shell.id("j")))
    many = json.loads(shell.out("jobs", "--json"))
    assert [job["name"] for job in many["jobs"]] == ["big", "small", "later", "nightly", "simulate"]


def test_stats(shell: Any) -> None:
    assert shell.out("jobs", "--stats-only") == "2 running, 4 completed, 5 failed, 4 pending\n"


def test_errors_name_the_mend(shell: Any) -> None:
    assert shell("jobs", "-o", "{nam}")[2] == "bad output format: no field is called 'nam'"
    assert shell("jobs", "-o", "{name")[0] == 1
    assert "no conversion" in shell("jobs", "-o", "{name!x}")[2]
    assert "is no state" in shell("jobs", "-f", "sleeping")[2]
    assert shell("jobs", "f23")[0] == 1
    assert "no such user" in shell("jobs", "-u", "nobody-has-this-name")[2]


def test_a_retired_job_is_still_found(shell: Any) -> None:
    from fluxkv.journal.decide import Decision

    journal, state = shell.sample.journal, shell.sample.state
    journal.append(Decision([["retire", "instance", 1700000093.0, {"jobs": [shell.ids["b"]]}]]), state.version)
    assert shell.id("b") not in shell.out("jobs", "-a")
    assert shell.out("jobs", "-n", "-o", "{name} {returncode}", shell.id("b")) == "build 3\n"


def test_a_stopped_queue_is_the_reason(shell: Any) -> None:
    shell.out("queue", "stop", "-m", "maintenance")
    assert shell.out("jobs", "-n", "-o", "{reason}", shell.id("m")) == "queue default is stopped: maintenance\n"


def test_plain_output_does_without_rich() -> None:
    code = (
        "import sys\nfrom fluxkv.tools import jobs_cmd, jobview, formats, render\n"
        "heavy = {'rich', 'networkx', 'numpy', 'asyncio', 'redis'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
