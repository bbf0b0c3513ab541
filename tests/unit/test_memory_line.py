"""Room to finish: where the line is, who is refused past it, and that what ends jobs passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.forward import Forwarder, Tail, Watched
from fluxkv.instances.memory_line import is_past, line_for, machine_memory, parse_line, set_line
from fluxkv.journal import decide
from fluxkv.journal.job import INACTIVE, RUN
from fluxkv.journal.wire import unpack
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.tools.doctor_cmd import memory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "found"),
    [("4G", (4 * GIB, 0)), ("4GiB", (4 * GIB, 0)), ("1.5g", (3 * GIB // 2, 0)), ("500MB", (500 << 20, 0)), ("30%", (0, 30)),
     ("none", (0, 0)), ("2097152", (2 << 20, 0))],
)  # fmt: skip
def test_sizes(text: str, found: tuple[int, int]) -> None:
    assert parse_line(text) == found


BAD = ("", "x", "-1G", "0", "101%", "0%", "4X", "1e9", "nan", "inf", "9" * 400, "1.2.3G", "٣G", "4%G", "100")


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_line(text)
    assert caught.value.code == "bad-memory-limit"


def test_the_line_without_a_word() -> None:
    assert line_for("", 0, 8 * GIB) == 4 * GIB
    assert line_for("", 10 * GIB, 8 * GIB) == 9 * GIB  # the server has a limit of its own
    assert line_for("25%", 0, 8 * GIB) == 2 * GIB
    assert line_for("none", GIB, 8 * GIB) == 0
    assert line_for("", 0, 0) == 0  # nobody knows


def test_the_lowest_control_group_counts(tmp_path: Path) -> None:
    whole = machine_memory(str(tmp_path))
    assert whole > 64 << 20
    (tmp_path / "memory.max").write_text("67108864\n")
    assert machine_memory(str(tmp_path)) == 64 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory(str(tmp_path)) == whole


def test_new_work_is_refused_and_what_runs_ends() -> None:
    """Everything a worker and an agent write passes, so that jobs end, and what they free brings room."""
    rig = Rig()
    rig.server.used_memory = 100
    rig.store.set_room(rig.store.meta().uid, 50)
    runs = None
    with pytest.raises(Unavailable) as caught:
        rig.submit()
    assert (caught.value.code, "archive" in caught.value.hint) == ("full", True)
    rig.server.used_memory = 10
    rig.next = 5
    runs, waits = rig.submit(), rig.submit(jobspec(cores=2, nodes=2))
    rig.server.used_memory = 100
    rig.started(runs)
    rig.do(decide.raise_exception(rig.state, waits, "cancel", 0, "", 1, rig.now))
    rig.over(runs)
    rig.turn()
    assert [rig.job(id).state for id in (runs, waits)] == [INACTIVE, INACTIVE]
    rig.server.used_memory = 10
    assert rig.job(rig.submit()).state == RUN


def test_the_line_is_drawn_where_scripts_see_it() -> None:
    rig = Rig()
    assert rig.store.meta().room == 0
    assert set_line(rig.store, "1G") == rig.store.meta().room == GIB
    assert set_line(rig.store, "none") == rig.store.meta().room == 0


def test_doctor_says_one_thing_about_memory() -> None:
    """With a line there is no talk of a server that grows until it is ended; with none there is."""
    for line, used, most, result, words in [
        (4_000_000_000, 2_000_000, 0, "ok", "2 MB used; new work is refused from 4 GB"),
        (9_000_000, 8_500_000, 10_000_000, "warn", "8.5 MB used; new work is refused from 9 MB, all work from 10 MB (maxmemory)"),
        (9_000_000, 9_500_000, 10_000_000, "fail", "9.5 MB used"),
        (0, 2_000_000, 10_000_000, "ok", "2 MB used; all work from 10 MB"),
        (9_000_000, 2_000_000, 5_000_000, "warn", "what runs could not end"),
        (9_000_000, 6_000_000, 5_000_000, "fail", "all work from 5 MB"),
        (0, 2_000_000, 0, "warn", "no line from which on new work is refused: a full machine ends the server"),
    ]:
        found = memory(line, used, most)
        assert (found.result, words in found.text, bool(found.mend)) == (result, True, result != "ok"), found


def test_what_tasks_print_past_the_line_stays_in_its_files(tmp_path: Path) -> None:
    """Thousands of chatty jobs, four megabytes each, would take what is left to those that end."""
    rig = Rig()
    path = tmp_path / "out"
    path.write_bytes(b"x" * 1_000_000)
    forwarder = Forwarder(rig.store, rig.store.keys, str(tmp_path), "h")
    forwarder.watched["1.2-3.0"] = Watched(1, "1.2-3.0", [Tail(str(path), "stdout", "0", "")], {}, 0, 1)
    rig.store.set_room(rig.store.meta().uid, 50)
    for used, past in ((10, False), (51, True)):
        rig.server.used_memory = used
        assert is_past(rig.store, rig.store.meta()) == past
    forwarder.full = True
    assert forwarder.finish("1.2-3.0")
    said = [unpack(message.data) for message in rig.store.messages(rig.store.keys.output(1))]
    assert [name for name, _ in said] == ["header", "data", "log"]
    assert said[-1][1]["rest"] == {"stream": "stdout", "rank": "0", "path": str(path), "offset": 65536}
    assert path.exists()
