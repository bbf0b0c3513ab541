"""`fluxkv jobs`: exact tables, fields, filters, order, and the time machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

TABLE = """\
       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO
    ƒ6HjYQgw alice    big         S      3      3        - needs 3 nodes; 2 are up (1 drained)
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
        "-15 True 0 timeout"),
        ("d", "{exception.note}", "resource allocation expired"),
        ("d", "{duration!F} {runtime!F:>6} {runtime!H} {runtime:.1f}", "5s     9s 0:00:09 9.0"),
        ("d", "{t_run!D} {t_run!d:%H:%M::>7}|", "2023-11-14T22:13:48   22:13|"),
        ("d", "{t_run!d:%Y}", "2023"),
        ("j", "{t_inactive!D}|{returncode}|{success}|{result}|", "||||"),
        ("j", "{t_remaining!F} {ranks} {nodelist} {ncores} {nnodes} {ntasks}", "59.8m 0 node0 2 1 1"),
        ("e", "{nodelist} {ranks}", "node[0-1] 0-1"),
        ("o", "{dependencies} {status_abbrev}", "begin-time=1700100000 D"),
        ("l", "{reason}|{priority}|{urgency:03d}", "needs 3 nodes; 2 are up (1 drained)|16|016"),
        ("c", "{inactive_reason}|{nnodes:>3h}|{returncode:>3d}", "Canceled: not needed|  -|-128"),
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
    for spec in ("99999999999", ".99999999999f", "<10000"):
        assert "is no width or precision" in shell("jobs", "-o", f"{{id:{spec}}}")[2]
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
    assert shell.id("b") in shell.out("jobs", "-a")
    assert shell.out("jobs", "-n", "-o", "{name} {returncode}", shell.id("b")) == "build 3\n"


def listed(shell: Any, *args: str) -> list[str]:
    return list(shell.out("jobs", "-n", "-o", "{name}", *args).split())


def test_jobs_on_nodes(shell: Any) -> None:
    assert listed(shell, "-a", "-i", "1") == ["sleep", "mpi", "build"]
    assert listed(shell, "-a", "--include", "node[1-2]") == ["sleep", "mpi", "sleep", "build"]
    assert listed(shell, "-i", "node0,node2") == ["simulate"]
    assert listed(shell, "-i", "nosuch") == []
    assert "bad job constraint" in shell("jobs", "-i", "n[")[2]


def test_constraints_and_queries(shell: Any) -> None:
    assert listed(shell, "-a", "--constraint", "sleep & -results:canceled") == ["sleep"]
    assert listed(shell, "-A", "--constraint", '{"userid": [4000000]}') == ["render"]
    assert listed(shell, "-a", "--constraint", '{"t_inactive": [">1700000070"]}') == ["sleep"]
    for bad in ("states:walk", "{", '{"a": 1}', "(", "t_run:5"):
        status, _, error = shell("jobs", "--constraint", bad)
        assert status == 1, bad
        assert "constraint" in error or "query" in error


def test_failed_shows_causes(shell: Any) -> None:
    text = shell.out("jobs", "--failed")
    assert text.splitlines()[0].split() == ["JOBID", "USER", "NAME", "ST", "T_INACTIVE", "RUNTIME", "CAUSE"]
    assert [line.split()[2] for line in text.splitlines()[1:]] == ["sleep", "nosuch", "sleep", "sleep", "build"]
    assert "exec: nosuch: No such file or directory" in text
    assert listed(shell, "--failed", "-f", "failed") == ["nosuch", "build"]


def test_the_limit_is_said_when_it_was_nobodys_wish(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkv.tools import jobs_cmd

    assert shell("jobs", "-a")[2] == ""
    monkeypatch.setattr(jobs_cmd, "DEFAULT_COUNT", 6)
    status, text, error = shell("jobs", "-a", "-n", "-o", "{name}")
    assert (status, text.split(), error) == (0, ["big", "small", "later", "nightly", "simulate", "sleep"],
                                             "fluxkv: the first 6 jobs; -c 0 lists all\n")  # fmt: skip
    chosen = jobs_cmd._choose
    with monkeypatch.context() as inside:  # as of an instance below
        inside.setattr(jobs_cmd, "_choose", lambda journal, state, now, o: chosen(journal, state, now, {**o, "where": "ƒA/ƒB"}))
        assert shell("jobs", "-a")[2] == "fluxkv: ƒA/ƒB: the first 6 jobs; -c 0 lists all\n"
    assert shell("jobs", "-a", "-c", "3")[2] == ""
    assert len(listed(shell, "-a", "-c", "0")) == 14
    assert listed(shell, "-a", "--sort", "-runtime", "-c", "2") == ["simulate", "sleep"]


def test_annotations_and_memo(shell: Any) -> None:
    from fluxkv.journal.decide import Decision

    journal, state, m = shell.sample.journal, shell.sample.state, shell.ids["m"]
    journal.append(Decision([["memo", m, 1700000093.0, {"step": 3, "who": {"name": "x"}}]]), state.version)
    fmt = "{user.step}|{annotations.user.who.name}|{user.none}|{user.who}|{sched.reason_pending}|{user.step:>4}"
    assert shell.out("jobs", "-n", "-o", fmt, shell.id("m")) == '3|x||{"name":"x"}|behind ƒ6HjYQgw|   3\n'
    assert json.loads(shell.out("jobs", "--json", shell.id("m")))["annotations"]["user"]["step"] == 3
    assert listed(shell, "--sort", "-user.step")[0] != "small"  # nothing comes last, first when turned round
    assert shell("jobs", "-o", "{users.x}")[0] == 1


def test_attributes_of_jobs_that_ended_are_read_from_the_journal(shell: Any) -> None:
    assert shell.out("jobs", "-n", "-o", "{cwd}|{bank}|", shell.id("b"), shell.id("j")) == "/tmp||\n/tmp||\n"


def test_stats_of_queues(shell: Any) -> None:
    assert shell.out("jobs", "--stats-only", "-q", "default") == "2 running, 4 completed, 5 failed, 4 pending\n"
    assert shell("jobs", "--stats-only", "-q", "none")[1] == "0 running, 0 completed, 0 failed, 0 pending\n"
    assert shell("jobs", "--stats", "--json")[0] == 2


def test_named_formats(shell: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path / 'site'}:{tmp_path / 'none'}")
    for place, text in (("site", "{id.dec}"), ("own", "{name}={status}")):
        (tmp_path / place / "fluxkv").mkdir(parents=True)
        (tmp_path / place / "fluxkv" / "jobs.toml").write_text(f'[formats.mine]\nformat = "{text}"\ndescription = "of {place}"\n')
    assert shell.out("jobs", "-n", "-o", "mine", shell.id("b")) == "build=FAILED\n"
    assert "of own" in shell.out("jobs", "-o", "help")
    assert shell.out("jobs", "-o", "get-config=mine").startswith("[formats.mine]\n")
    for name in ("long", "deps", "endreason", "failed", "cute", "id"):
        assert len(shell.out("jobs", "-a", "-o", name).splitlines()) == 15
    assert "no output format is called 'mime'" in shell("jobs", "-o", "mime")[2]
    shell.env["FLUXKV_JOBS_FORMAT_DEFAULT"] = "mine"
    assert shell.out("jobs", "-n", shell.id("b")) == "build=FAILED\n"
    for bad in ("[formats.mine]\nformat = 5\n", "formats = 5", "[formats.long]\nformat = '{id}'\n", "x ="):
        (tmp_path / "own" / "fluxkv" / "jobs.toml").write_text(bad)
        status, _, error = shell("jobs")
        assert (status, "jobs.toml" in error) == (1, True), bad


def test_colours(shell: Any) -> None:
    assert "\x1b[" not in shell.out("jobs", "-a", "--color=never")
    text = shell.out("jobs", "-a", "--color")
    assert text.splitlines()[0].startswith("\x1b[1m")
    assert "\x1b[31m" in text
    assert "\x1b[" not in shell.out("jobs", "-a", "--color=always", "-o", "{id}")


def test_ids_keep_their_order_and_obey_filters(shell: Any) -> None:
    ids = [shell.id(letter) for letter in "bjkb"]
    assert listed(shell, *ids) == ["build", "simulate", "render", "build"]
    assert listed(shell, "-f", "running", *ids) == ["simulate", "render"]
    assert listed(shell, "-u", "4000000", *ids) == ["render"]
    assert json.loads(shell.out("jobs", "--json", "-f", "pending", shell.id("b"))) == {"jobs": []}


def test_a_moment_to_come_is_no_since(shell: Any) -> None:
    assert "in the future" in shell("jobs", "--since", "@1900000000")[2]
    assert "--until @1900000000 is in the future" in shell("jobs", "--until", "@1900000000")[2]


def test_since_and_until_enclose_the_moments_at_which_jobs_ended(shell: Any) -> None:
    def ended(*args: str) -> list[tuple[str, float]]:
        lines = shell.out("jobs", "-n", "-o", "{name} {t_inactive}", *args).splitlines()
        return [(name, float(time)) for name, time in (line.split() for line in lines)]

    every = ended("-f", "inactive")
    middle = every[len(every) // 2][1]
    early = [one for one in every if one[1] <= middle]
    assert 0 < len(early) < len(every)
    assert ended("--until", f"@{middle}") == early  # it is the end of the period, that moment included; no active jobs
    assert ended("-f", "inactive", "--since", f"@{middle}") == [one for one in every if one[1] > middle]
    first = early[-1][1]
    assert ended("--since", f"@{first}", "--until", f"@{middle}") == [one for one in early if one[1] > first]
    assert ended("-c", "1", "--until", f"@{middle}") == early[:1]
    assert "is before --since" in shell("jobs", "--since", f"@{middle}", "--until", f"@{middle - 1}")[2]


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
