"""`fluxkv pgrep`, `pkill` and what `fluxkv job` tells of one job, on the sample history: right and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.spool import Record, Spool
from fluxkv.instances.wire import pack
from fluxkv.journal import decide_records
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Rejected


def lines(shell: Any, *args: str) -> list[str]:
    return list(shell.out(*args).split())


# -- pgrep and pkill -----------------------------------------------------------------------------------------


def test_pgrep_lists_ids_by_name(shell: Any) -> None:
    assert lines(shell, "pgrep", "^s") == [shell.id("m"), shell.id("j")]
    assert lines(shell, "pgrep", "-a", "sleep") == [shell.id(letter) for letter in "idc"]
    assert lines(shell, "pgrep", "-A", "render") == [shell.id("k")]
    assert lines(shell, "pgrep", "-f", "failed", "no|build") == [shell.id("f"), shell.id("b")]
    assert lines(shell, "pgrep", "-a", "-c", "1", "sleep") == [shell.id("i")]
    assert lines(shell, "pgrep", "--max-entries", "1", ".") == [shell.id("l")]
    assert lines(shell, "pgrep", "-q", "default", "simu") == [shell.id("j")]
    assert lines(shell, "pgrep", "-n", "-o", "{name}={state}", "simu") == ["simulate=RUN"]
    assert shell.out("pgrep", "-o", "long", "simu").startswith("       JOBID")


def test_pgrep_by_ranges_of_ids(shell: Any) -> None:
    span = f"{shell.id('b')}..{shell.id('e')}"
    assert lines(shell, "pgrep", "-a", span) == [shell.id(letter) for letter in "edcb"]
    assert lines(shell, "pgrep", "-a", span, "sleep") == [shell.id(letter) for letter in "dc"]
    assert shell("pgrep", "-a", f"name:{span}") == (1, "", "")
    assert lines(shell, "pgrep", "-a", "bu..d") == [shell.id("b")]


def test_pgrep_says_by_its_status(shell: Any) -> None:
    assert shell("pgrep", "nothing-like-it") == (1, "", "")
    assert shell("pgrep", "a", "b")[0] == 2
    assert "bad pattern" in shell("pgrep", "(")[2]
    assert shell("pgrep")[0] == 2
    assert shell("pgrep", "-f", "walking", "x")[0] == 1


def test_pkill_cancels_what_matches(shell: Any) -> None:
    assert shell("pkill", "nothing")[0] == 1
    assert shell("pkill", "-f", "inactive", "build")[0] == 1
    status, text, error = shell("pkill", "-m", "enough", "^(small|later)$")
    assert (status, text, error) == (0, "", "fluxkv: cancelled 2 jobs\n")
    state = shell.sample.journal.look()
    assert [state.jobs[shell.ids[letter]].exception for letter in "mnl"] == [["cancel", "enough"], ["cancel", "enough"], None]


# -- looking -------------------------------------------------------------------------------------------------


def test_timeleft(shell: Any) -> None:
    left = int(shell.out("job", "timeleft", shell.id("j")))
    assert 3500 < left < 3600
    assert shell.out("job", "timeleft", "-H", shell.id("j")).rstrip().endswith("m")
    assert shell.out("job", "timeleft", shell.id("k")) == "4294967295\n"
    assert shell.out("job", "timeleft", "-H", shell.id("k")) == "infinity\n"
    assert shell.out("job", "timeleft", shell.id("d")) == "0\n"
    assert "has not started" in shell("job", "timeleft", shell.id("m"))[2]
    assert shell("job", "timeleft", "f23")[0] == 1
    shell.env["FLUX_JOB_ID"] = ""
    assert "not inside a job" in shell("job", "timeleft")[2]
    shell.env["FLUX_JOB_ID"] = shell.id("j")
    assert abs(int(shell.out("job", "timeleft")) - left) <= 1


def test_taskmap(shell: Any) -> None:
    e = shell.id("e")
    assert json.loads(shell.out("job", "taskmap", e)) == [[0, 2, 1, 1]]
    assert shell.out("job", "taskmap", "--to=raw", e) == "0;1\n"
    assert shell.out("job", "taskmap", "--to=pmi", e) == "(vector,(0,2,1))\n"
    assert shell.out("job", "taskmap", "--to=multiline", e) == "0: 0\n1: 1\n"
    assert shell.out("job", "taskmap", "--to=hosts", e) == "node0: 0\nnode1: 1\n"
    assert shell.out("job", "taskmap", "--hostname=1", e) == "node1\n"
    assert shell.out("job", "taskmap", "--nodeid=1", e) == "1\n"
    assert shell.out("job", "taskmap", "--taskids=0", e) == "0\n"
    assert shell.out("job", "taskmap", "--ntasks=0", e) == "1\n"
    assert shell.out("job", "taskmap", "--to=raw", "[[0,2,2,1]]") == "0-1;2-3\n"
    assert json.loads(shell.out("job", "taskmap", "0-1;2-3")) == [[0, 2, 2, 1]]
    assert json.loads(shell.out("job", "taskmap", "(vector,(0,2,2))")) == [[0, 2, 2, 1]]


@pytest.mark.parametrize(
    "args",
    [("--nodeid=9", "e"), ("--taskids=9", "e"), ("--hostname=0", "[[0,1,1,1]]"), ("--to=raw", "[[0,0]]"), ("m",), ("nonsense-id",),
     ("--to=raw", "--nodeid=0", "e")],
)  # fmt: skip
def test_a_taskmap_that_is_not_to_be_had(shell: Any, args: tuple[str, ...]) -> None:
    *options, what = args
    status, text, error = shell("job", "taskmap", *options, shell.id(what) if what in shell.ids else what)
    assert status in (1, 2, 3)
    assert (text, bool(error)) == ("", True)


def test_hostpids_of_what_does_not_run(shell: Any) -> None:
    assert "is not running" in shell("job", "hostpids", shell.id("b"))[2]
    assert shell("job", "hostpids", "-t", "0.01s", shell.id("m"))[0] == 1
    assert "no process" in shell("job", "hostpids", shell.id("j"))[2]  # nobody runs the sample's tasks here


def test_the_launchers_record_is_read_without_its_lock(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.intent("5.7-1.0", 5, 1.0, 1.0, None, "", [])
    spool.add(pack(("p", "5.7-1.0", 1.0, [41, 42])))
    spool.intent("6.8-1.0", 6, 1.0, 1.0, None, "", [])
    spool.flush()
    record = Record(str(tmp_path))
    assert record.lost["5.7-1.0"].pids == [41, 42]
    assert record.lost["6.8-1.0"].pids == []
    spool.add(pack(("x", ["over", "5.7-1.0"])))
    spool.flush()
    assert list(Record(str(tmp_path)).lost) == ["6.8-1.0"]
    spool.close()
    assert Record(str(tmp_path / "none")).lost == {}


def test_last(shell: Any) -> None:
    newest = [shell.id(letter) for letter in "onmljihgfedcba"]
    assert lines(shell, "job", "last") == newest[:1]
    assert lines(shell, "job", "last", "3") == newest[:3]
    assert lines(shell, "job", "last", "[:]") == newest
    assert lines(shell, "job", "last", "[1:4]") == newest[1:4]
    assert lines(shell, "job", "last", "[-1:]") == newest[-1:]
    assert lines(shell, "job", "last", "[::-1]") == newest[::-1]
    for bad in ("0", "x", "[1]", "[::0]"):
        assert shell("job", "last", bad)[0] == 2
    shell.out("job", "purge", "--force", "--num-limit=0")
    shell.sample.journal.save_snapshot(shell.sample.journal.load())
    assert lines(shell, "job", "last", "[:]") == newest
    assert lines(shell, "job", "last", "7") == newest[:7]


def test_stats(shell: Any) -> None:
    document = json.loads(shell.out("job", "stats"))
    assert document["job_states"] == {"new": 0, "depend": 1, "priority": 0, "sched": 3, "run": 2, "cleanup": 0,
                                      "inactive": 9, "total": 15}  # fmt: skip
    assert (document["successful"], document["failed"], document["canceled"], document["timeout"]) == (4, 5, 2, 1)
    shell.out("job", "purge", "--force", "--num-limit=2")
    document = json.loads(shell.out("job", "stats"))
    assert (document["inactive_purged"], document["successful"], document["job_states"]["inactive"]) == (7, 4, 2)
    assert document["queues"][0]["name"] == "default"


# -- changing ------------------------------------------------------------------------------------------------


def test_memo(shell: Any) -> None:
    assert shell.out("job", "memo", shell.id("m"), "step=3", 'who={"a": 1}', "text=a=b", "gone=1") == ""
    shell.out("job", "memo", shell.id("m"), "gone")
    assert shell.sample.journal.look().jobs[shell.ids["m"]].memo == {"step": 3, "who": {"a": 1}, "text": "a=b"}
    assert shell.out("jobs", "-n", "-o", "{user.step}", shell.id("m")) == "3\n"
    assert "is inactive" in shell("job", "memo", shell.id("b"), "a=1")[2]
    assert "no such job" in shell("job", "memo", "f23", "a=1")[2]
    assert "bad memo key" in shell("job", "memo", shell.id("m"), "a.b=1")[2]
    assert "would exceed" in shell("job", "memo", shell.id("m"), "a=" + "x" * 20_000)[2]


def test_purge(shell: Any) -> None:
    before = shell.out("jobs", "-a")
    assert shell("job", "purge", "--num-limit=4")[::2] == (0, "fluxkv: would purge 5 jobs of 9 inactive; --force does it\n")
    assert shell("job", "purge", "--force", "--num-limit=4")[2] == "fluxkv: purged 5 of 9 inactive jobs; the journal keeps them\n"
    state = shell.sample.journal.look()
    assert (state.count(INACTIVE), state.retired) == (4, 5)
    assert shell("job", "purge", "--force", "--age-limit=30s")[2].startswith("fluxkv: purged 2 of 4")
    assert shell("job", "purge", "--force", shell.id("i"))[2].startswith("fluxkv: purged 1 of 2")
    assert shell("job", "purge", "--force", shell.id("i"))[2].startswith("fluxkv: purged 0 of 1")
    assert shell.out("jobs", "-a") == before
    assert "equal to the live state" in shell.out("replay", "--diff", "live")
    assert "is active" in shell("job", "purge", "--force", shell.id("m"))[2]
    assert "no such job" in shell("job", "purge", "--force", "f23")[2]
    assert shell("job", "purge")[0] == 2
    assert shell("job", "purge", "--num-limit=1", shell.id("b"))[0] == 2


def test_a_purge_of_many_is_bounded(monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
    from fluxkv.journal import retired

    monkeypatch.setattr(decide_records, "MAX_EVENTS", 2)
    monkeypatch.setattr(retired, "MAX_JOBS", 2)
    version = shell.sample.journal.store.meta().version
    assert shell("job", "purge", "--force", "--num-limit=0")[2].startswith("fluxkv: purged 9 of 9")
    commits = list(shell.sample.journal.commits(version))
    assert [[len(event[3]["jobs"]) for event in commit.events] for commit in commits] == [[2, 2], [2, 2], [1]]
    assert len(shell.out("jobs", "-a", "-n").splitlines()) == 14


def test_raise_takes_its_note_after_the_ids(shell: Any) -> None:
    m, n = shell.ids["m"], shell.ids["n"]
    shell.out("job", "raise", "-t", "test", "-s", "7", shell.id("m"), shell.id("n"), "looks", "slow")
    state = shell.sample.journal.look()
    assert state.jobs[m].exceptions == state.jobs[n].exceptions == [["test", 7, "looks slow"]]
    assert shell("job", "raise", "-m", "a", shell.id("m"), "b b")[0] == 2
    assert shell("job", "raise", "no-id")[0] == 1
    assert shell("job", "raise", "-s", "8", shell.id("m"))[0] == 2
    status, _, error = shell("job", "raise", shell.id("b"), shell.id("m"))
    assert (status, "inactive" in error) == (1, True)
    assert shell.sample.journal.look().jobs[m].exception == ["cancel", ""]


def test_all_at_once(shell: Any) -> None:
    assert shell("job", "killall")[::2] == (0, "fluxkv: would have signalled 1 job; --force does it\n")
    assert shell("job", "killall", "-f", "-u", "all", "-s", "USR1")[::2] == (0, "fluxkv: signalled 2 jobs\n")
    assert shell("job", "raiseall", "-f", "-S", "pending", "test", "a", "note")[::2] == (0, "fluxkv: raised it on 4 jobs\n")
    state = shell.sample.journal.look()
    assert state.jobs[shell.ids["o"]].exceptions == [["test", 7, "a note"]]
    assert state.jobs[shell.ids["j"]].exceptions == []
    assert shell("job", "raiseall", "-f", "-S", "failed", "test")[0] == 2
    assert shell("job", "killall", "-s", "NOPE")[0] == 2


def test_decisions_about_records_are_refused_with_a_code() -> None:
    state = State()
    for ask, code in ((lambda: decide_records.memo(state, 5, {"a": 1}, 1.0), "no-such-job"),):
        with pytest.raises(Rejected) as caught:
            ask()
        assert caught.value.code == code
    assert decide_records.purge(state, [5], 1.0).events == []
    assert decide_records.oldest(state, 1.0, 5.0, 0) == []


# -- nodes ---------------------------------------------------------------------------------------------------


def test_a_node_s_story_reaches_retired_jobs_and_is_bounded_in_time(shell: Any) -> None:
    whole = json.loads(shell.out("inspect", "node", "1", "--json"))
    shell.out("job", "purge", "--force", "--num-limit=0")
    assert json.loads(shell.out("inspect", "node", "1", "--json")) == whole

    def names(*args: str) -> tuple[list[str], list[str]]:
        document = json.loads(shell.out("inspect", "node", "1", "--json", *args))
        return [job["name"] for job in document["jobs"]], [one["name"] for one in document["history"]]

    build, mpi, sleep, render = whole["jobs"]
    assert names("--since", f"@{build['free'] + 0.5}")[0] == ["mpi", "sleep", "render"]
    assert names("--until", f"@{sleep['alloc'] - 0.5}")[0] == ["build", "mpi"]
    assert names("--since", f"@{mpi['alloc']}", "--until", f"@{mpi['alloc']}")[0] == ["mpi"]
    drained = next(one["timestamp"] for one in whole["history"] if one["name"] == "drain")
    assert names("--since", f"@{drained}")[1] == ["drain", "undrain"]
    assert names("--limit", "1")[0] == ["sleep", "render"]
    assert render["free"] is None
    assert shell("inspect", "node", "1", "--since", "12")[0] == 1
