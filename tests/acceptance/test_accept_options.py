"""Each option of a submission has its effect in real jobs, and what is wrong with it is said before there is one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from typing import Any

import pytest

pytestmark = pytest.mark.live

ROW = "echo $FLUX_TASK_RANK $FLUXKV_NODE_RANK $FLUX_TASK_LOCAL_ID {{task.rank}} {{node.id}} {{task.index}} {{size}}"


def table(text: str) -> list[list[str]]:
    """Lines of numbers, sorted by the first."""
    return sorted((line.split() for line in text.splitlines()), key=lambda row: int(row[0]))


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        (["-N2", "-n4"], "0011"), (["-N2", "-n4", "--taskmap=cyclic"], "0101"), (["-N2", "-n4", "--taskmap=cyclic:2"], "0011"),
        (["-N2", "-n4", "--taskmap=manual:[[1,1,2,1],[0,1,2,1]]"], "1100"), (["-N2", "--tasks-per-node=2"], "0011"),
        (["-N2", "--cores=4", "--taskmap=cyclic"], "0101"), (["-N1", "--tasks-per-core=2"], "00000000"), (["--cores=3"], "000"),
        (["-N2"], "01"),
    ],
)  # fmt: skip
def test_tasks_are_where_they_were_asked_for(site: Any, words: list[str], nodes: str) -> None:
    rows = table(site.ok("run", *words, "sh", "-c", ROW))
    found = "".join(row[4] for row in rows)
    assert found == nodes
    assert [(row[0], row[2], row[6]) for row in rows] == [(row[3], row[5], str(len(nodes))) for row in rows]
    assert [int(row[0]) for row in rows] == list(range(len(nodes)))
    order = sorted({row[1] for row in rows}, key=int)
    assert "".join(str(order.index(row[1])) for row in rows) == nodes  # the variables agree with the map
    for node in set(nodes):
        assert sorted(row[2] for row in rows if row[4] == node) == [str(n) for n in range(nodes.count(node))]


def test_a_map_that_does_not_fit_says_so(site: Any) -> None:
    done = site("run", "-N2", "-n4", "--taskmap=manual:0-2;3", "true")
    assert done.code == 1
    assert "taskmap='0-2;3': it puts 3, 1 tasks on the nodes, which take 2, 2" in done.err


def test_gpus_per_node_and_output_by_task(site: Any) -> None:
    site.ok("run", "-N2", "--cores=2", "--gpus-per-node=1", "--output=o.{{taskid}}", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert [(site.folder / f"o.{n}").read_text() for n in (0, 1)] == ["0\n", "0\n"]


def test_resource_limits(site: Any) -> None:
    tell = ["sh", "-c", "ulimit -n; ulimit -c; ulimit -v; env | grep -c FLUXKV_RLIMIT"]
    wanted = ["--rlimit=nofile=128,core=0", "--rlimit=as=2097152000"]
    done = site("run", *wanted, *tell)
    assert done.lines == ["128", "0", "2048000", "0"]
    # The soft limits of whoever submits go with the job; rules drop and add.
    shell = [f"ulimit -S -n 99; fluxkv run {rules} sh -c 'ulimit -n'" for rules in ("", "--rlimit=-nofile", "--rlimit=-*")]
    import subprocess

    found = [
        subprocess.run(["sh", "-c", line], env=site.env, cwd=site.folder, capture_output=True, text=True, timeout=60).stdout
        for line in shell
    ]
    assert found[0] == "99\n"
    assert found[1] == found[2] != "99\n"
    assert site("run", "--rlimit=cpu=1", "sh", "-c", "while :; do :; done").code == 152  # SIGXCPU
    above = site("run", "--rlimit=nofile=999999999999", "sh", "-c", "ulimit -n")
    assert above.code == 0
    assert "limit nofile=999999999999 is above" in above.err


def test_files_travel_with_a_job(site: Any) -> None:
    large = site.folder / "large"
    large.write_bytes(os.urandom(3_000_000))
    (site.folder / "small").write_text("small\n")
    words = ["--add-file=small", "--add-file=dir/l=large", "--add-file=run.sh:755=#!/bin/sh\ncat $FLUX_JOB_TMPDIR/small\n"]
    id = site.submit("-N2", *words, "sh", "-c", "{{tmpdir}}/run.sh; sha1sum < {{tmpdir}}/dir/l; echo {{tmpdir}}")
    large.unlink()  # what was read is what the job gets
    assert site("job", "status", id).code == 0
    lines = sorted(site.ok("job", "attach", id).splitlines())
    kept = json.loads(site.ok("job", "info", id, "jobspec"))["attributes"]["system"]["files"]
    digest = hashlib.sha1(b"").hexdigest()
    assert len([line for line in lines if line == "small"]) == 2
    assert digest not in " ".join(lines)
    assert len({line for line in lines if line.endswith("-")}) == 1
    assert kept["dir/l"]["encoding"] == "blobvec"
    assert len(json.dumps(kept)) < 2000
    folders = [line for line in lines if line.startswith("/")]
    assert len(set(folders)) == 2
    assert not any(os.path.exists(folder) for folder in folders)
    # A jobspec of --dry-run is whole: nothing in it lies in a store.
    again = site.ok("submit", "--dry-run", "--add-file=small", "cat", "{{tmpdir}}/small")
    assert site.ok("submit", "--quiet", "--watch", "-", given=again) == "small\n"


def test_a_file_whose_content_is_lost_keeps_the_job_from_starting(site: Any) -> None:
    jobspec = json.loads(site.ok("submit", "--dry-run", "true"))
    lost = {"mode": 33188, "size": 3, "encoding": "blobvec", "data": [[0, 3, "blake2b-" + "ab" * 20]]}
    jobspec["attributes"]["system"]["files"] = {"x": lost}
    done = site("submit", "--wait", "-", given=json.dumps(jobspec) + "\n")
    assert done.code == 1
    assert "is not in the store" in done.err


def test_environment_rules_apply_in_the_order_they_were_typed(site: Any) -> None:
    (site.folder / "rules").write_text("# rules\nB=$A-from-file\n-C\n")
    words = ["--env-remove=*", "--env=PATH", "--env=A=1", "--env=C=3", "--env-file=rules", "--env=A=2"]
    assert site.ok("run", *words, "sh", "-c", "echo $A $B ${C-none} ${HOME-none}") == "2 1-from-file none none\n"
    assert site.ok("run", "--env=C=3", "--env-remove=C", "sh", "-c", "echo ${C-none}") == "none\n"
    assert site.ok("run", "--env-remove=C", "--env=C=3", "sh", "-c", "echo ${C-none}") == "3\n"


def test_attributes_from_a_file(site: Any) -> None:
    (site.folder / "a.json").write_text('{"deep": [1, 2]}')
    id = site.submit("-S", "^user.extra=a.json", "-S", "user.n={cc}", "--cc=7", "true")
    assert json.loads(site.ok("job", "info", id, "jobspec"))["attributes"]["user"] == {"extra": {"deep": [1, 2]}, "n": 7}


def test_waiting_for_an_event(site: Any) -> None:
    done = site("submit", "--wait-event=start", "--cc=1-2", "sleep", "600")
    assert done.code == 0
    assert site.ok("jobs", "--no-header", "--format", "{status_abbrev}", *done.lines).split() == ["R", "R"]
    site.ok("cancel", *done.lines)
    assert site("run", "--wait-event=start", "sleep", "600").code == 0
    last = site.ok("job", "last").strip()
    assert site.ok("jobs", "--no-header", "--format", "{status_abbrev}", last).split() == ["R"]
    site.ok("cancel", last)
    missed = site("submit", "--wait-event=start", "-n10000", "true")
    assert missed.code == 1
    assert "ended without event start" in missed.err
    late = site("submit", "--urgency=hold", "--wait-event=start", "--timeout=0.1s", "true")
    assert late.code == 1
    assert "had no event start" in late.err
    site.ok("cancel", *late.lines)


def test_logs(site: Any) -> None:
    words = ["--watch", "--log=log.{cc}", "--log-stderr=err", "sh", "-c", "echo out {cc}; echo err {cc} >&2"]
    done = site("submit", "--cc=1-2", *words)
    assert (done.code, done.out) == (0, "")
    for number in (1, 2):
        id, line = (site.folder / f"log.{number}").read_text().splitlines()
        assert id.startswith("ƒ")
        assert line == f"out {number}"
    assert sorted((site.folder / "err").read_text().splitlines()) == ["err 1", "err 2"]
    assert site("submit", "--log=/no/such/place", "true").code == 1


def test_none_is_no_file(site: Any) -> None:
    assert site.ok("run", "--output=none", "echo", "x") == "x\n"
    assert not (site.folder / "none").exists()
    assert site.ok("run", "-u", "echo", "x") == "x\n"


WRONG = [
    (["--cores=4", "-n2", "true"], "exclude those by task"),
    (["--tasks-per-node=2", "true"], "add -N or --cores"),
    (["--cores=x", "true"], "'--cores'"),
    (["--gpus-per-node=-1", "true"], "'--gpus-per-node'"),
    (["--taskmap=spiral", "true"], "'--taskmap'"),
    (["--taskmap=hostfile:/no/such", "true"], "/no/such: No such file"),
    (["-o", "taskmap=spiral", "true"], "'--setopt'"),
    (["--rlimit=nofile=x", "true"], "'--rlimit'"),
    (["--rlimit=zz", "true"], "there are as, core"),
    (["--add-file=/no/such", "true"], "'--add-file': /no/such: No such file"),
    (["--env-file=/no/such", "true"], "/no/such: No such file"),
    (["-S", "^user.x=/no/such", "true"], "'--setattr': /no/such"),
    (["--wait-event=exec.shell.init", "true"], "'--wait-event'"),
    (["-n2", "-"], "--ntasks is not possible with jobspecs"),
]


def test_what_is_wrong_makes_no_job(site: Any) -> None:
    first = site.submit("true")
    for words, text in WRONG:
        done = site("submit", *words)
        assert (done.code, done.out) in ((1, ""), (2, "")), done
        assert text in done.err, done
    assert "'--wait-event'" in site("run", "--wait-event=exec.init", "true").err
    assert site.ok("job", "last").split() == [first]


# -- many


def test_bulksubmit(site: Any) -> None:
    site.ok("bulksubmit", "--quiet", "--wait", "--output={./%}.out", "--env=MINE={}", "--job-name=b{seq}",
            "sh", "-c", "echo {} {.%} {seq1} $MINE {{name}}", ":::", "d/a.x", "d/b.x")  # fmt: skip
    assert (site.folder / "a.out").read_text() == "d/a.x d/a 1 d/a.x b0\n"
    assert (site.folder / "b.out").read_text() == "d/b.x d/b 2 d/b.x b1\n"
    done = site("bulksubmit", "--watch", "--quiet", "--cc=1-2", "echo", "{0}{1}{cc}", ":::", "a", "b", ":::", "x", "y")
    assert sorted(done.lines) == ["ax1", "ax2", "ay1", "ay2", "bx1", "bx2", "by1", "by2"]
    assert sorted(site.ok("bulksubmit", "--quiet", "--watch", "echo", given="1\n2\n3\n").splitlines()) == [""] * 3
    assert sorted(site.ok("bulksubmit", "--quiet", "--watch", "echo", "{}", given="p q\nr\n").splitlines()) == ["p q", "r"]
    shuffled = site.ok("bulksubmit", "--dry-run", "--shuffle", "{}", ":::", *map(str, range(50)))
    numbers = [int(line.split()[-1]) for line in shuffled.splitlines()]
    assert sorted(numbers) == list(range(50)) != numbers
    assert site("bulksubmit", "--quiet", "--wait", "sh", "-c", "exit {}", ":::", "0", "3").code == 3


def test_bulksubmit_shows_what_it_would_do(site: Any) -> None:
    before = site.ok("jobs", "-a", "--no-header", "--format", "{id}")
    words = ["bulksubmit", "--dry-run", "--define=p2=2**int(x)", "-n", "{.p2}", "hostname", ":::", "0", "1", "2"]
    assert site.ok(*words).splitlines() == [f"bulksubmit: submit -n{n} hostname" for n in (1, 2, 4)]
    assert site.ok("jobs", "-a", "--no-header", "--format", "{id}") == before
    for words, text in (
        (["echo", "{1}", ":::", "a"], "asks for input 1"),
        (["-n", "{}", "true", ":::", "x"], "'--ntasks': 'x' is not a number"),
        (["true", "::::", "/no/such"], "No such file"),
        (["true"], "there are no inputs"),
    ):
        done = site("bulksubmit", *words)
        assert (done.code, done.out) == (2, ""), done
        assert text in done.err, done
    late = site("bulksubmit", "-n", "{}", "true", given="1\n" * 1500 + "x\n")
    assert late.code == 2
    assert len(late.lines) == 1000  # the commit that was taken
    assert "submitted before this: 1000 jobs" in late.err


def test_jobspecs_on_standard_input(site: Any) -> None:
    first = site.ok("submit", "--dry-run", "--cc=1-2", "sh", "-c", "exit {cc}")
    other = site.ok("submit", "--dry-run", "-N2", "--env=A=5", "sh", "-c", "echo $A")
    done = site("submit", "--watch", "-", given=f"{first}\n{other}")
    assert done.code == 2
    assert done.lines[3:] == ["5", "5"]
    wrong = site("submit", "-", given=f"{other}\n[1]\n")
    assert wrong.code == 2
    assert "standard input, line 3: not a JSON object" in wrong.err
    assert "line 1: bad jobspec: version: is required" in site("submit", "-", given="{}\n").err
    assert "line 1: not JSON: Expecting value" in site("submit", "-", given="sim\n").err
    assert site("submit", "-", given="").out == ""


def test_what_goes_with_a_job_survives_the_death_of_daemons(user: Any, place: Any) -> None:
    uri = user.ok("start", "--detach", "--state-dir", place, "-s", "2", "--cores", "2").splitlines()[-1]
    shell = user.at(user.folder, uri)
    (shell.folder / "large").write_bytes(b"x" * 2_000_000)
    words = ["-N2", "-n4", "--taskmap=cyclic", "--rlimit=nofile=200", "--add-file=large", "--env=MINE=mine"]
    script = "echo {{task.rank}} {{node.id}} $(ulimit -n) $MINE $(wc -c < {{tmpdir}}/large)"
    wanted = [f"{rank} {rank % 2} 200 mine 2000000" for rank in range(4)]
    first, second = (shell.submit("--urgency=hold", *words, "sh", "-c", script) for _ in range(2))
    for pid in [shell.pid(role) for role in ("agent", "launcher", "worker")]:
        os.kill(pid, signal.SIGKILL)
    shell.ok("job", "urgency", first, "default")
    assert sorted(shell.ok("job", "attach", first).splitlines()) == wanted
    shell.ok("stop", "--state-dir", place)
    uri = user.ok("start", "--detach", "--state-dir", place).splitlines()[-1]
    shell = user.at(user.folder, uri)
    shell.ok("job", "urgency", second, "default")
    assert sorted(shell.ok("job", "attach", second).splitlines()) == wanted
    ((_, third),) = [line.split(" -> ") for line in shell.ok("resubmit", second).splitlines()]
    assert sorted(shell.ok("job", "attach", third).splitlines()) == wanted
    assert shell.ok("jobs", "--no-header", "--format", "{ntasks}", third).split() == ["4"]
    whole = shell.submit("-N1", "--tasks-per-core=3", "true")
    shell.ok("job", "status", whole)
    assert shell.ok("jobs", "--no-header", "--format", "{ntasks}", whole).split() == ["6"]
    assert "equal" in shell.ok("replay", "--diff", "live")
