"""`fluxkv replay`, `journal`, `inspect`, `dmesg`, `status`, `doctor`: what the history says, and that faults
are found.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from sample_journal import Writer, many

from fluxkv.instances.beats import Beat, pack_beat
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal, make_append
from fluxkv.journal.schema import SCHEMA
from fluxkv.journal.snapshot import dump
from fluxkv.journal.wire import pack, unpack
from fluxkv.kvs.keys import Keys
from fluxkv.tools import folding
from fluxkv.tools.folding import Fold


def append(shell: Any, *events: list[Any], **extra: Any) -> int:
    """Append events as they are, whatever they say; the version."""
    journal = shell.sample.journal
    tip = journal.store.meta().version
    return journal.store.append(make_append(journal.meta, Decision(list(events)), tip, extra=extra)).version


def test_replay_is_equal_to_live(shell: Any) -> None:
    document = json.loads(shell.out("replay", "--diff", "live", "--json"))
    assert document["sound"]
    assert document["diff"]["equal"]
    assert document["digests_checked"] == 41
    assert document["jobs"] == {"DEPEND": 1, "SCHED": 3, "RUN": 2, "INACTIVE": 9}
    assert document["digest"] == shell.sample.state.digest().hex()


def test_replay_holds_few_of_a_flood_s_events_at_once(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million jobs it was 1.3 GB: 500 commits of a thousand events each, and the next 500."""
    sample, read = shell.sample, [0]
    writer = Writer(sample.journal.store, sample.clock)
    writer.state, writer.seq = sample.state, 41  # its worker has said so much
    many(writer, 1500, batch=50)
    monkeypatch.setattr(folding, "AHEAD_BYTES", 5_000)
    journal = Journal(sample.journal.store)
    fold = Fold(journal)
    held: list[int] = []
    decode = journal.reader.commit

    def commit(entry: Any) -> Any:
        found = decode(entry)
        read[0] += len(found.events)
        held.append(read[0] - fold.state.events)
        return found

    monkeypatch.setattr(journal.reader, "commit", commit)
    fold.run()
    assert fold.state.digest() == sample.state.digest()
    assert read[0] == fold.state.events > 10_000
    assert max(held) < 2500


def test_replay_from_a_snapshot_is_equal_too(shell: Any) -> None:
    journal = shell.sample.journal
    assert journal.save_snapshot(journal.at(50))
    assert "equal to the live state at version 87" in shell.out("replay", "--diff", "live")


def test_replay_names_the_first_difference(shell: Any) -> None:
    """A snapshot that says something else than history."""
    journal = shell.sample.journal
    state = journal.at(60)
    state.jobs[shell.ids["b"]].name = "forged"
    state.dirty_jobs.add(shell.ids["b"])
    assert journal.save_snapshot(state)
    status, text, _ = shell("replay", "--diff", "live", "--json")
    assert status == 1
    diff = json.loads(text)["diff"]
    assert diff["subject"] == f"job/{shell.ids['b']}"
    assert "build" in diff["replayed"]
    assert "forged" in diff["live"]
    assert "DIFFERS" in shell("replay", "--diff", "live")[1]
    status, text, _ = shell("journal", "verify")
    assert status == 1
    assert "snapshot: digest: it differs from the history at its version 60" in text


def test_replay_until(shell: Any) -> None:
    document = json.loads(shell.out("replay", "--until", "40", "--json"))
    assert (document["version"], document["jobs"]) == (40, {"RUN": 1, "INACTIVE": 4})
    assert json.loads(shell.out("replay", "--until", "@1700000010", "--json"))["time"] == 1700000010.0


def test_a_wrong_digest_is_a_fault(shell: Any) -> None:
    version = append(shell, ["memo", shell.ids["m"], 1.0, {"a": 1}], by="worker", digest=bytes(16), schema=SCHEMA)
    status, text, _ = shell("replay")
    assert status == 1
    assert f"fault     entry {version}-" in text
    status, text, _ = shell("journal", "verify")
    assert status == 1
    assert "digest: its digest of version 87 is 0000" in text


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        (["finish", "m", 1.0, {"status": 0}], "impossible: job ƒ6jJ62Vm: version 88: finish in state SCHED"),
        (["free", "j", 1.0, None], "impossible: job ƒ5QcTB5H: version 88: free in state RUN"),
        (["memo", "a", 1.0, {"x": 1}], "order: job ƒSZYcoq: memo after clean"),
        (["urgency", "m", 1.0, {"urgency": 3}], "bad-event: event urgency: context lacks userid (RFC 21)"),
        (["alloc", "m", 1.0, {"claims": [[1, "0", "", 0, 1]], "expiration": 0.0}],
        "impossible: job ƒ6jJ62Vm: version 88: alloc takes what is not free on rank 1"),
    ],
)  # fmt: skip
def test_verify_names_each_fault(shell: Any, event: list[Any], fault: str) -> None:
    assert shell.out("journal", "verify") == "87 commits, 149 events, 41 digests compared, snapshot none: sound\n"
    version = append(shell, [event[0], shell.ids[event[1]], *event[2:]])
    status, text, _ = shell("journal", "verify")
    assert status == 1
    assert text.startswith(f"entry {version}-")
    assert fault in text
    assert "FAULT" in text


def test_what_has_been_set_aside_is_listed_and_no_fault(shell: Any) -> None:
    version = append(shell, ["finish", shell.ids["m"], 1.0, {"status": 0}])
    assert f"! job ƒ6jJ62Vm is set aside: version {version}: finish in state SCHED" in shell.out("status")
    assert "warn set aside: job ƒ6jJ62Vm: version 88: finish in state SCHED" in shell("doctor")[1]
    append(shell, ["quarantine", shell.ids["m"], 1.0, {"version": version, "event": "finish", "reason": "r"}])
    text = shell.out("journal", "verify")
    assert f"entry {version}-" in text
    assert "set aside: job ƒ6jJ62Vm: version 88: finish in state SCHED" in text
    assert text.endswith("sound\n")
    (one,) = json.loads(shell.out("status", "--json"))["aside"]
    assert (one["subject"], one["event"], one["count"], one["said"]) == ("ƒ6jJ62Vm", "finish", 1, version + 1)
    steps = json.loads(shell.out("inspect", "job", str(shell.ids["m"]), "--json"))["story"]
    assert [step["state"] for step in steps[-2:]] == ["SCHED", "SCHED"]


def test_verify_finds_a_flipped_bit_and_goes_on(shell: Any) -> None:
    store = shell.sample.journal.store
    entries = store.server.tables.journals["/"]
    payload = bytearray(entries[20].payload)
    payload[5] ^= 1
    entries[20] = entries[20]._replace(payload=bytes(payload))
    append(shell, ["urgency", shell.ids["m"], 1.0, {"urgency": 3}])
    status, text, _ = shell("journal", "verify", "--json")
    assert status == 1
    assert [fault["code"] for fault in json.loads(text)["faults"]] == ["bad-checksum", "bad-event"]
    assert shell("replay")[0] == 4


def test_unknown_events_are_no_faults(shell: Any) -> None:
    append(shell, ["from-the-future", shell.ids["m"], 1.0, {"x": 1}])
    assert ", 1 events of unknown names," in shell.out("journal", "verify")


def test_journal_show(shell: Any) -> None:
    assert shell.out("journal", "show", "-n", "2") == (
        "2023-11-14 22:14:52.000     87 ƒ7cRBG7R     validate\n"
        "2023-11-14 22:14:52.000     87 ƒ7cRBG7R     dependency-add description=begin-time=1700100000\n"
    )
    lines = shell.out("journal", "show", "--job", shell.id("h")).splitlines()
    assert [line.split()[4] for line in lines] == [
        "submit", "validate", "depend", "priority", "grant", "alloc", "start", "finish", "release", "free",
        "clean",
    ]  # fmt: skip
    assert lines[5].endswith("alloc node0[core 0], the seat of ƒ45vpKeo")
    assert len(shell.out("journal", "show", "--after", "3", "--until", "6").splitlines()) == 3
    assert shell.out("journal", "follow", "--after", "85", "-n", "1").endswith(
        "submit nightly (by alice, urgency 16)\n"
    )


def test_export_is_rfc_18_with_our_keys(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    shell.out("journal", "export", "--output", str(file))
    events = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len(events) == 149
    assert all({"timestamp", "name", "subject", "version", "entry", "time", "by"} <= event.keys() for event in events)
    assert events[0]["subject"] == "instance"
    put = next(event for event in events if event["name"] == "kvs.commit")
    assert put["context"]["ops"][0] == ["put", "conf.name", "ZGVtbw=="]
    via = next(event for event in events if event["name"] == "alloc" and "via" in event["context"])
    assert (via["subject"], via["context"]["via"]) == (shell.id("h"), shell.id("g"))
    over = next(event for event in events if event["name"] == "report" and event["context"].get("over"))
    assert over["context"]["over"][0][0] == shell.id("a")


def test_journal_stats(shell: Any) -> None:
    document = json.loads(shell.out("journal", "stats", "--json"))
    assert (document["commits"], document["events"], document["names"]["submit"]) == (87, 149, 15)
    assert document["snapshot"] is None


def test_inspect_job(shell: Any) -> None:
    text = shell.out("inspect", "job", shell.id("d"))
    lines = text.splitlines()
    assert lines[0] == "ƒ2mFBUEK sleep: TIMEOUT (timeout: resource allocation expired), ran 9s"
    assert lines[3] == "  attempt 1 (version 27, by alloc) on node2[core 0, gpu 0]: killed by SIGTERM"
    told = next(line for line in lines if " exception " in line).split()
    assert told[2:6] == ["+11.000", "exception", "CLEANUP", "worker"]
    assert " ".join(told[7:]) == "timeout severity 0: resource allocation expired"
    story = json.loads(shell.out("inspect", "job", shell.id("h"), "--json"))["story"]
    assert [step["state"] for step in story][-1] == "INACTIVE"
    assert story[5]["name"] == "report"
    assert story[5]["what"] == "node0: its tasks began"
    assert story[0]["by"] == "cli (alice)"
    past = shell.out("inspect", "job", shell.id("l"), "--at", "84")
    assert past.startswith("ƒ6HjYQgw big: SCHED (first in line)\n")
    assert shell("inspect", "job", shell.id("l"), "--at", "40")[2] == "job ƒ6HjYQgw: not there at 40"


def test_inspect_node(shell: Any) -> None:
    text = shell.out("inspect", "node", "node2")
    assert text.splitlines()[:2] == [
        "node2 (rank 2): drained, up since 2023-11-14 22:13:26",
        "  drained since 2023-11-14 22:14:36: bad fan",
    ]
    assert "ƒ2mFBUEK sleep 0     2023-11-14 22:13:47 10s  killed by SIGTERM" in text
    document = json.loads(shell.out("inspect", "node", "1", "--json"))
    assert [job["name"] for job in document["jobs"]] == ["build", "mpi", "sleep", "render"]
    assert [one["name"] for one in document["history"]] == [
        "resource-define",
        "hello",
        "online",
        "drain",
        "undrain",
    ]
    assert shell("inspect", "node", "0-1")[0] == 1


def test_dmesg(shell: Any) -> None:
    store = shell.sample.journal.store
    lines = [[1700000000.5, "keeper", "info", "started"], [1700000001.0, "worker-0", "error", "a\nb"]]
    store.push(Keys("/").log, [pack(line) for line in lines])
    assert shell.out("dmesg", "--role", "keeper") == "2023-11-14 22:13:20.500 keeper.info: started\n"
    assert json.loads(shell.out("dmesg", "-l", "warning", "--json"))["text"] == "a\nb"
    assert shell.out("dmesg", "-n", "1", "--role", "worker").startswith("2023-11-14 22:13:21.000 worker-0.error: ")


def test_status(shell: Any) -> None:
    document = json.loads(shell.out("status", "--json"))
    assert document["jobs"]["sched"] == 3
    assert document["nodes"] == {"total": 3, "up": 3, "down": 0, "drained": 1, "cores": 12, "used_cores": 6}
    assert document["processes"] == []
    assert shell.out("status").startswith("! 1 node is drained: node2")


def test_status_reads_the_run_files(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon lives while its lock is held; one that was given up is a problem, with the reason."""
    import fcntl

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "fluxkv" / "one"
    (folder / "run").mkdir(parents=True)
    (folder / "instance.json").write_text(json.dumps({"uri": shell.sample.uri, "created": 1.0}))
    for role in ("keeper", "worker-0", "agent"):
        (folder / "run" / f"{role}.json").write_text(json.dumps({"pid": 5, "role": role.split("-")[0],
        "started": 2.0}))
        (folder / "run" / f"{role}.lock").touch()
    (folder / "run" / "agent.failed").write_text("agent died 3 times\n")
    held = [os.open(folder / "run" / f"{role}.lock", os.O_RDWR) for role in ("keeper", "worker-0")]
    try:
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        document = json.loads(shell.out("status", "--json"))
        found = json.loads(shell.out("list", "--json"))["instances"]
    finally:
        for fd in held:
            os.close(fd)
    assert [(one["role"], one["state"]) for one in document["processes"]] == [
        ("worker", "running"), ("agent", "dead"), ("keeper", "running"),
    ]  # fmt: skip
    assert any(text.startswith("the agent was given up: agent died 3 times (") for text in document["problems"])
    assert [(one["state"], one["jobs"]) for one in found] == [("running", 6)]
    assert json.loads(shell.out("list", "--json"))["instances"][0]["state"] == "stopped"


def test_doctor(shell: Any) -> None:
    """The sample's clock stands still in the past: that is what fails."""
    status, text, _ = shell("doctor", "--json")
    checks = {one["name"]: one["result"] for one in json.loads(text)["checks"]}
    assert status == 1
    assert checks.pop("clock") == "fail"
    assert {checks["python"], checks["packages"], checks["store"], checks["journal"]} == {"ok"}
    shell.sample.clock.now = time.time()
    assert "ok   clock" in shell("doctor")[1]
    nothing = Decision([["none-such", "instance", shell.sample.clock.now, None]])
    shell.sample.journal.append(nothing, shell.sample.state.version)
    for command in ("doctor", "status"):
        assert "events are passed over: a newer fluxkv" in shell(command)[1], command


def test_doctor_compares_the_clocks_of_hosts(shell: Any) -> None:
    """By their last heartbeats. What came late counts by what came in time."""
    store, now = shell.sample.journal.store, float(round(time.time()))
    shell.sample.clock.now = now
    hosts = [node.host for node in shell.sample.state.nodes.values()]
    assert " clocks: " not in shell("doctor")[1]
    store.push(store.keys.telemetry, [pack_beat(Beat((0,), now - 9.0)), pack_beat(Beat((0, 77), now + 0.02)), b"no beat"])
    assert "ok   clocks: those of 1 hosts are within 20 ms of the server's" in shell("doctor")[1]
    store.push(store.keys.telemetry, [pack_beat(Beat((1,), now + 2.5)), pack_beat(Beat((2,), now - 60.0))])
    text = shell("doctor")[1]
    assert f"warn clocks: {hosts[1]} is 2.5 s ahead of the server" in text
    assert f"fail clocks: {hosts[2]} is 60.0 s behind the server" in text
    shell.sample.clock.now = now + 40
    assert " clocks: " not in shell("doctor")[1], "of hosts that are silent nothing is known"


def test_digests_are_compared_across_batches(shell: Any, sample_journal: Any) -> None:
    """A journal of several read batches: every digest finds its version, one too far back is counted, not
    faulted."""
    writer = sample_journal.Writer(shell.sample.journal.store, shell.sample.clock)
    writer.state = shell.sample.journal.load()
    writer.seq = sum(1 for commit in shell.sample.journal.commits() if commit.producer)
    sample_journal.many(writer, 400, batch=1)
    document = json.loads(shell.out("journal", "verify", "--json"))
    assert (document["version"], document["digests_checked"], document["digests_unchecked"]) == (1287, 841, 0)
    journal = shell.sample.journal
    decision = Decision([["memo", shell.ids["m"], 1.0, {"a": 1}]])
    journal.store.append(make_append(journal.meta, decision, 27, extra={"digest": journal.at(27).digest(), "schema": SCHEMA}))
    assert ", 1 of versions too far back" in shell.out("journal", "verify")


def test_digests_of_an_older_schema_are_not_compared(shell: Any) -> None:
    """What a state of other fields added up to says nothing about this one's; nor is its snapshot used."""
    journal = shell.sample.journal
    checked = json.loads(shell.out("journal", "verify", "--json"))["digests_checked"]
    append(shell, ["memo", shell.ids["m"], 1.0, {"a": 1}], digest=b"of another state")
    document = json.loads(shell.out("journal", "verify", "--json"))
    assert (document["digests_checked"], document["digests_unchecked"], document["faults"]) == (checked, 1, [])
    state = journal.load()
    head, chunks = dump(state)
    head = pack({**unpack(head), "schema": SCHEMA - 1, "check": None})
    journal.store.install_snapshot(journal.meta.uid, journal.meta.epoch, head, chunks)
    assert journal.snapshot() is None
    assert journal.load().digest() == state.digest()


def test_following_outlives_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkv.kvs.errors import Unavailable
    from fluxkv.tools import reading

    class Flaky:
        calls = 0

        def poll(self, timeout_s: float = 0.0) -> list[Any]:
            self.calls += 1
            if self.calls in (1, 2):
                raise Unavailable("gone")
            return [self.calls]

    monkeypatch.setattr(reading, "RECONNECT_S", 0.0)
    assert next(reading.batches(Flaky())) == [3]  # type: ignore[arg-type]
    monkeypatch.setattr(reading, "PATIENCE_S", -1.0)
    with pytest.raises(Unavailable):
        next(reading.batches(Flaky()))  # type: ignore[arg-type]


COMMANDS = [
    ("jobs",), ("resource",), ("resource", "list"), ("resource", "drain"), ("resource", "undrain"),
    ("resource", "status"),
    ("queue",), ("queue", "status"), ("queue", "list"), ("queue", "stop"), ("queue", "drain"), ("queue",
    "idle"), ("kvs",),
    ("kvs", "get"), ("kvs", "put"), ("kvs", "dir"), ("kvs", "ls"), ("kvs", "unlink"), ("kvs", "mkdir"),
    ("replay",),
    ("inspect",), ("inspect", "job"), ("inspect", "node"), ("journal",), ("journal", "show"), ("journal",
    "follow"),
    ("journal", "stats"), ("journal", "verify"), ("journal", "export"), ("dmesg",), ("status",), ("list",),
    ("doctor",),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_teaches_by_example(shell: Any, command: tuple[str, ...]) -> None:
    assert "Examples:" in shell.out(*command, "--help")
