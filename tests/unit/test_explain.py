"""`fluxkv explain` on hand-made states: the sentence, and each line of its evidence."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from trees import racks, vertex
from worker_rig import T0, Rig, jobspec

from fluxkv.instances.explaining import holders_on, why
from fluxkv.instances.worker import Worker
from fluxkv.journal import decide
from fluxkv.journal.ids import f58
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.backfill import Hybrid
from fluxkv.schedulers.explain import Reason
from fluxkv.tools.explain_cmd import _explain as explain_word
from fluxkv.tools.explainnode import explain_node, foresee
from fluxkv.tools.explainpage import clock, moment, span
from fluxkv.tools.explainpending import explain_pending
from fluxkv.tools.explainstory import explain_story, waits
from fluxkv.tools.explainvertex import explain_vertex, place_of
from fluxkv.tools.foresight import foresee as foresee_jobs
from fluxkv.tools.inspect_cmd import job_story
from fluxkv.tools.jobview import View
from fluxkv.tools.jobview import reason as shown_reason


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments are printed as local time, users by their names."""
    from fluxkv.tools import reading

    monkeypatch.setattr("time.localtime", time.gmtime)
    monkeypatch.setitem(reading._names, 1, "ann")


def spec(cores: int = 1, nodes: int = 0, duration: float = 0.0, queue: str = "", name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = jobspec(cores, nodes, duration, queue)
    if name:
        found["attributes"]["system"]["job"] = {"name": name}
    return found


def view_of(rig: Rig) -> View:
    return View(rig.journal.at(), rig.now, rig.journal)


def pending(rig: Rig, id: int) -> tuple[dict[str, Any], str]:
    view = view_of(rig)
    document, page = explain_pending(view.state.jobs[id], view)
    json.dumps(document)
    text = page.text()
    assert all(len(line) <= 80 for line in text.splitlines())
    return document, text


def story(rig: Rig, id: int) -> tuple[dict[str, Any], str]:
    view = view_of(rig)
    job = view.state.jobs[id]
    document, page = explain_story(job, view, job_story(rig.journal, job))
    json.dumps(document)
    return document, page.text()


def node(rig: Rig, rank: int) -> tuple[dict[str, Any], str]:
    state = rig.journal.at()
    document, page = explain_node(rig.journal, state, state.nodes[rank], foresee(state, rig.now), rig.now)
    json.dumps(document)
    return document, page.text()


def test_what_is_short_who_holds_it_and_when_it_begins() -> None:
    rig = Rig(2)
    first = rig.submit(spec(2, duration=600.0, name="long"))
    other = rig.submit(spec(1, duration=60.0, name="short"))
    rig.started(first, other)
    waiting, behind = rig.submit(spec(2, duration=30.0)), rig.submit(spec(2, duration=30.0))
    rig.turn(seconds=5.0)
    document, text = pending(rig, waiting)
    assert text == "\n".join([
        "ƒ4 waits: needs 2 cores on one node; at most 1 is free (node 1); it begins about",
        "22:14:20 (in 55s).",
        "  asked for   2 cores, limit 30s; queue default, priority 16, user ann",
        "  waits since 22:13:20 (5s ago)",
        "  short of    1 core: it needs 2 and finds 1",
        "  held by     ƒ3* short ann 1 core on n1  until 22:14:20 (in 55s)",
        "              ƒ2  long  ann 2 cores on n0 until 22:23:20 (in 9.92m)",
        "  ahead       nobody",
        "  begins      about 22:14:20 (in 55s) on n1 (policy fcfs)",
        "              when ƒ3 (*) has ended; sooner if jobs end before their limits,",
        "              later if jobs of higher priority come",
    ])  # fmt: skip
    assert document["short"] == {"unit": "core", "of": "", "needed": 2, "found": 1, "by": 1}
    assert document["start"]["time"] == rig.job(other).expiration
    assert document["start"]["after_end_of"] == [f58(other)]
    document, text = pending(rig, behind)
    assert document["ahead"]["jobs"] == [f58(waiting)]
    assert document["start"]["after_jobs"] == [f58(waiting)]
    assert "ahead       1 job in queue default: ƒ4\n" in text
    assert "when ƒ3 (*) has ended and ƒ4 has begun and ended" in " ".join(text.split())


def test_under_easy_a_job_that_fits_is_told_whom_it_must_not_delay() -> None:
    rig = Rig(2)
    rig.say(["instance-create", "instance", T0, {"uid": "u", "policy": "easy"}])
    first = rig.submit(spec(2, duration=600.0))
    rig.started(first)
    wide, small = 7, 8
    rig.do(decide.submit([(wide, spec(2, nodes=2, duration=60.0)), (small, spec(1, duration=900.0))], "", 16, 1, 0, rig.now, 0))
    for id in (wide, small):  # as a worker would, but without placing them
        rig.say(["validate", id, rig.now, None], ["depend", id, rig.now, None], ["priority", id, rig.now, {"priority": 16}])
    state = rig.journal.at()
    told = why(state, state.jobs[wide], rig.now)
    assert told.start is not None
    assert told.start.reserved
    _, text = pending(rig, wide)
    assert "reserved for it by policy easy" in " ".join(text.split())
    document, text = pending(rig, small)
    begins = "ƒ9 would fit now, but must not delay ƒ8, which is due at 22:23:20 (in 10m); it begins about"
    assert " ".join(text.split()).startswith(begins)
    assert all(holder["decisive"] for holder in document["holders"])
    _, text = node(rig, 0)
    reserved = "n0 (rank 0) is allocated: ƒ2 has all of it, until 22:23:20 (in 10m); reserved for ƒ8, about 22:23:20 (in 10m)."
    assert " ".join(text.split()).startswith(reserved)
    assert "next        ƒ8" in text


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (lambda rig, id: decide.change_urgency(rig.state, id, 0, 1, rig.now), "ƒ3 is held (urgency 0); fluxkv release ƒ3."),
        (lambda rig, id: decide.change_queue("default", "stop", "until noon", rig.now),
         "ƒ3 cannot start: queue default is stopped: until noon."),
        (lambda rig, id: decide.drain(rig.state, [0], "bad fan", 0, rig.now),
         "ƒ3 waits for nodes that are out of use: needs 2 cores on one node; no node is up\nand matches (1 drained)."),
    ],
)  # fmt: skip
def test_what_holds_a_job_up_comes_first(decision: Any, sentence: str) -> None:
    rig = Rig(1)
    rig.started(rig.submit(spec(2, duration=600.0)))
    waiting = rig.submit(spec(2, duration=30.0))
    rig.do(decision(rig, waiting))
    rig.turn()
    document, text = pending(rig, waiting)
    assert text.startswith(sentence + "\n")
    if "drained" in sentence:
        assert "  out of use  n0 draining since just now: bad fan\n" in text
        assert document["start"] is None
        assert document["no_start"] == "no job's end will make it fit"


def test_other_queues_that_share_nodes_and_limits_per_user() -> None:
    limit = {"limits": {"max-running-jobs-per-user": 1}}
    config = {"queues": {"a": {}, "b": {}, "c": {"requires": ["c"], "policy": limit}},
              "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}  # fmt: skip
    rig = Rig(2, {1: ("c",)}, config)
    rig.started(*(rig.submit(spec(2, duration=60.0, queue=queue)) for queue in "ac"))
    first = rig.submit(spec(2, duration=30.0, queue="b"))
    mine = rig.submit(spec(2, duration=30.0, queue="a"))
    limited = rig.submit(spec(1, duration=30.0, queue="c"))
    document, text = pending(rig, mine)
    assert document["ahead"]["other_queues"] == {"b": [f58(first)]}
    assert "1 job in queue b, which shares nodes with it: ƒ4" in " ".join(text.split())
    _, text = pending(rig, limited)
    assert " ".join(text.split()).startswith("ƒ6 waits: ann has 1 running job in queue c, as many as allowed.")
    assert "begins      about" in text


def test_what_a_constraint_leaves_is_told() -> None:
    config = {"queues": {"a": {}, "c": {"requires": ["c"]}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}
    rig = Rig(4, {0: ("g",), 1: ("g", "c"), 2: ("c",)}, config)

    def asked(requires: dict[str, Any] | None = None, queue: str = "a") -> dict[str, Any]:
        made = spec(2, duration=60.0, queue=queue)
        if requires:
            made["attributes"]["system"]["constraints"] = requires
        return made

    holders = [rig.submit(asked({"properties": ["g"]})) for _ in range(2)]
    document, text = pending(rig, rig.submit(asked({"properties": ["g"]})))
    said = " ".join(text.split())
    assert "asked for 2 cores, limit 1m; requires g; queue a" in said
    assert f"may have 2 of 4 nodes by its constraint (g): n[0-1]; all are in use by {', '.join(map(f58, holders))}" in said
    assert document["requires"] == "g"
    assert document["may_have"] == {"ranks": [0, 1], "idle": []}
    rig.do(decide.drain(rig.state, [2], "fan", 0, rig.now))
    rig.turn()
    both = {"and": [{"properties": ["^g"]}, {"not": [{"hostlist": ["n7"]}]}]}
    _, text = pending(rig, rig.submit(asked(both, "c")))
    said = " ".join(text.split())
    assert "requires -g & not host:n7; queue c" in said
    assert "may have 1 of 4 nodes by its constraint (-g & not host:n7) and queue c (c): n2; 0 idle, 1 out of use" in said
    document, text = pending(rig, rig.submit(spec(9)))
    assert ("may have" in text, document.get("may_have")) == (False, None)


def test_a_job_that_can_never_run_and_one_that_waits_for_another() -> None:
    rig = Rig(1)
    long = rig.submit(spec(2))
    waiting = rig.submit(spec(1, duration=5.0))
    document, text = pending(rig, waiting)
    assert "no estimate: it waits for ƒ2, which has no time limit" in " ".join(text.split())
    assert document["start"] is None
    dependent = spec(1)
    dependent["attributes"]["system"]["dependencies"] = [{"scheme": "afterok", "value": f58(long)}]
    late = rig.submit(dependent)
    _, text = pending(rig, late)
    assert text.startswith(f"{f58(late)} waits for afterok:{f58(long)} (running).\n")


def test_what_became_of_a_job_and_why_it_waited() -> None:
    rig = Rig(1)
    first = rig.submit(spec(2, duration=600.0))
    rig.started(first)
    waiting = rig.submit(spec(2, duration=30.0))
    rig.turn(seconds=1.0)
    rig.now += 40.0
    rig.over(first)
    rig.turn()
    rig.started(waiting)
    _, text = story(rig, waiting)
    assert text.startswith("ƒ3 runs on n0 since just now, until 22:14:31 (in 30s).\n")
    rig.now += 4.0
    rig.over(waiting, status=3 << 8)
    rig.turn()
    document, text = story(rig, waiting)
    assert text.splitlines()[0].startswith("ƒ3 failed after 4")
    assert "needs 2 cores on one node; none is free" in text
    assert document["cause"] == "exit code 3"
    assert [one["why"] for one in document["waited"]] == ["in line", "needs 2 cores on one node; none is free"]
    assert sum(one["end"] - one["begin"] for one in document["waited"]) == pytest.approx(41.0, abs=1.0)
    rig.started(rig.submit(spec(2)))
    cancelled = rig.submit(spec(2))
    rig.do(decide.cancel_each([rig.job(cancelled)], "not needed", 1, rig.now)[0])
    rig.turn()
    _, text = story(rig, cancelled)
    assert "was cancelled before it began: cancel: not needed; it ended just now." in text


def test_a_nodes_page() -> None:
    rig = Rig(2)
    _, text = node(rig, 0)
    assert text == "n0 (rank 0) is free: nobody has anything of it.\n  has         2 cores, 2 free"
    rig.started(rig.submit(spec(1)), rig.submit(spec(1, duration=60.0)))
    document, text = node(rig, 0)
    assert text.startswith("n0 (rank 0) is allocated: 2 jobs have all of it.\n")
    assert document["holders"][-1]["until"] is None  # who has no limit comes last
    rig.do(decide.drain(rig.state, [1], "bad fan", 0, rig.now))
    rig.turn(seconds=120.0)
    document, text = node(rig, 1)
    assert text.splitlines()[:2] == ["n1 (rank 1) is drained since 22:13:20 (2m ago): bad fan.", "  drained by  test"]
    assert document["drain"] == {"timestamp": T0 + 0.02, "reason": "bad fan", "by": "test"}


def test_moments_and_spans() -> None:
    texts = {0.0: "0s", 0.004: "4ms", 1.5: "1.5s", 42.4: "42s", 2987.0: "49.8m", 9000.0: "2.5h", 90_000.0: "1.04d"}
    assert {t: span(t) for t in texts} == texts
    assert clock(T0, T0 + 5) == "22:13:20"
    assert clock(T0 + 3600, T0) == "23:13"
    assert clock(T0 + 7200, T0) == "Nov 15 00:13"
    assert clock(T0 - 40_000_000, T0) == "2022 Aug 08 23:06"
    assert moment(T0, T0) == "just now"
    assert moment(T0 + 90, T0) == "22:14:50 (in 1.5m)"


def test_stretches_of_waiting_are_cut_where_the_reason_changes() -> None:
    rig = Rig(1)
    id = rig.submit(spec(1), urgency=0)
    rig.now += 10.0
    rig.do(decide.change_urgency(rig.state, id, 16, 1, rig.now))
    rig.turn()
    found = waits(job_story(rig.journal, rig.job(id)), id)
    assert found[0].why == "held"
    assert found[0].end - found[0].begin == pytest.approx(10.0)


class HybridRig(Rig):
    """Two reservations for each queue."""

    def new_worker(self, name: str = "worker-0") -> Worker:
        return Worker(self.store.meta(), self.journal.load(), Hybrid(2), name)


def reasons(rig: Rig, id: int) -> list[str]:
    return [event[3]["text"] for commit in rig.commits() for event in commit.events if event[0] == "reason" and event[1] == id]


def test_a_journalled_reason_names_whom_a_job_must_not_delay_and_follows_who_that_is() -> None:
    config = {"queues": {"a": {}, "b": {}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}
    rig = HybridRig(2, None, config)
    rig.say(["instance-create", "instance", T0, {"uid": "u", "policy": "hybrid"}])
    long = rig.submit(spec(2, duration=600.0, queue="a"))
    rig.started(long)
    wide = rig.submit(spec(2, nodes=2, duration=60.0, queue="b"))
    small = rig.submit(spec(1, duration=900.0, queue="a"))
    rig.turn(seconds=1.0)
    assert reasons(rig, wide) == ["needs 2 nodes with 2 cores free; 1 has"]
    assert reasons(rig, small) == [f"what is free is reserved for {f58(wide)}"]
    other = rig.submit(spec(2, nodes=2, duration=60.0, queue="b"), urgency=20)
    rig.turn(seconds=1.0)
    assert reasons(rig, small)[1:] == [f"what is free is reserved for {f58(other)}"]
    assert rig.job(small).reason[:2] == ["ahead", f"what is free is reserved for {f58(other)}"]
    view = view_of(rig)
    foresee_jobs(view, view.state.active(), ["info"])
    assert shown_reason(view.state.jobs[small], view) == f"what is free is reserved for {f58(other)}"
    rig.do(decide.cancel_each([rig.job(other), rig.job(wide)], "", 1, rig.now)[0])
    rig.turn(seconds=1.0)
    _, text = pending(rig, small)
    assert text.startswith(f"{f58(small)} waits: what is free is reserved for {f58(wide)}; it begins about")


def test_a_listing_shows_the_reason_of_this_moment_not_what_was_true_once() -> None:
    rig = Rig(1)
    rig.started(rig.submit(spec(2, duration=600.0)))
    once_first = rig.submit(spec(1, duration=30.0))
    rig.turn(seconds=1.0)
    assert rig.job(once_first).reason[1] == "needs 1 core on one node; none is free"
    urgent = rig.submit(spec(2, duration=30.0), urgency=20)
    rig.turn(seconds=1.0)
    view = view_of(rig)
    assert shown_reason(view.state.jobs[once_first], view) == "needs 1 core on one node; none is free"
    foresee_jobs(view, view.state.active(), ["reason"])
    assert shown_reason(view.state.jobs[once_first], view) == f"behind {f58(urgent)}"
    assert shown_reason(view.state.jobs[urgent], view) == "needs 2 cores on one node; none is free"


def test_a_virtual_queue_has_its_parents_line() -> None:
    config = {"queues": {"a": {}, "v": {"parent": "a"}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}
    rig = Rig(1, None, config)
    rig.started(rig.submit(spec(2, duration=600.0, queue="a")))
    first, second = rig.submit(spec(2, duration=9.0, queue="a")), rig.submit(spec(1, duration=9.0, queue="v"))
    rig.turn(seconds=1.0)
    view = view_of(rig)
    assert shown_reason(view.state.jobs[second], view) == f"behind {f58(first)}"
    document, _ = pending(rig, second)
    assert document["ahead"]["jobs"] == [f58(first)]


def test_a_vertex_above_the_nodes_has_a_page() -> None:
    rig = Rig(4, tree=racks())
    power = "/cluster0/rack0/power0"

    def powered(kilowatts: int, seconds: float) -> dict[str, Any]:
        slot = vertex("slot", 1, vertex("core"), label="t")
        wanted = spec(duration=seconds)
        wanted["resources"] = [vertex("rack", 1, vertex("power", kilowatts), vertex("node", 1, slot))]
        return wanted

    jobs = [rig.submit(powered(8, seconds)) for seconds in (600.0, 300.0, 60.0)]
    rig.started(*jobs[:2])
    state = rig.journal.at()
    assert state.drawn[power][0] == 8
    outlook = foresee(state, rig.now)
    document, page = explain_vertex(state, power + "/", place_of(state, power), outlook, rig.now)
    ten = page.text().splitlines()
    assert ten[0].startswith(f"power0 ({power}, a power): 1 job has 8 of ")
    assert f"held by     {f58(jobs[0])}" in ten[1]
    json.dumps(document)
    late = outlook.start(state.jobs[jobs[2]])
    assert late is not None
    assert late.time == rig.job(jobs[1]).expiration  # the other rack's power, which is given back first
    held = holders_on(state, set(state.nodes), Reason("resources", "", "power"), late.claims)
    assert [(one.job, one.amount, one.unit, one.of, one.decisive) for one in held] == [
        (jobs[1], 8, "kW", "power", True), (jobs[0], 8, "kW", "power", False)
    ]  # fmt: skip
    on_sockets = holders_on(state, set(state.nodes), Reason("resources", "", "socket"))  # which nobody draws on
    assert {(one.job, one.amount, one.unit) for one in on_sockets} == {(jobs[0], 1, "core"), (jobs[1], 1, "core")}
    told = why(state, state.jobs[jobs[2]], rig.now)
    assert told.reason.code == "resources"
    text = " ".join(pending(rig, jobs[2])[1].split())
    assert "asked for 1 rack (8 power, 1 node with 1 slot of 1 core), limit 1m" in text
    assert "needs 1 rack with 8 power; rack0 has the most free, 2 of 10 kW; it begins" in text
    assert "short of 6 kW of power: it needs 8 and finds 2" in text
    assert f"held by {f58(jobs[1])}* x ann 8 kW of power on n2" in text
    assert [one.job for one in told.holders if one.decisive] == [jobs[1]]
    document, page = explain_vertex(state, "/cluster0/rack0", place_of(state, "/cluster0/rack0"), outlook, rig.now)
    assert page.answer == "rack0 (/cluster0/rack0, a rack): 2 nodes below it, of which 1 job has something."
    core = "/cluster0/rack0/n0/core"
    _, page = explain_vertex(state, core, place_of(state, core), outlook, rig.now)
    assert page.answer.endswith("a core): 1 job has something of it.")
    assert document["ranks"] == [0, 1]
    with pytest.raises(Rejected, match="no such vertex"):
        place_of(state, "/cluster0/rack7")
    for name, hint in (("rack0", "by its path: /cluster0/rack0"), ("core", "n1/core, /cluster0/rack1/n2/core (and 1 more)")):
        with pytest.raises(Rejected, match="nor a node") as error:
            explain_word(rig.journal, state, rig.now, name, None)
        assert hint in (error.value.hint or "")
    with pytest.raises(Rejected, match="no graph of resources"):
        place_of(Rig(1).journal.at(), power)


def test_a_queue_that_is_gone_and_nodes_that_are_gone() -> None:
    config = {"queues": {"a": {}, "b": {}}, "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}
    rig = Rig(2, None, config)
    rig.started(rig.submit(spec(2, queue="b")), rig.submit(spec(2, queue="b")))
    waiting = rig.submit(spec(2, duration=9.0, queue="b"))
    rig.configure({"queues": {"a": {}}})
    rig.turn()
    _, text = pending(rig, waiting)
    gone = "ƒ4 cannot start: there is no queue b any more; fluxkv update ƒ4 queue=NAME."
    assert " ".join(text.split()).startswith(gone)
    lost = rig.submit(spec(1, duration=9.0, queue="a"))
    rig.state.instance["policy"] = "easy"
    rig.do(decide.drain(rig.state, [0, 1], "", 0, rig.now))
    rig.turn(seconds=1.0)
    document, text = pending(rig, lost)
    assert document["no_start"] == "no job's end will make it fit"
    assert "n0 draining since 22:13:20 (1s ago): no reason given" in text


def test_a_policy_that_fails_or_is_not_installed_leaves_all_but_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(1)
    rig.started(rig.submit(spec(2, duration=60.0)))
    waiting = rig.submit(spec(2, duration=9.0))
    monkeypatch.setattr("fluxkv.schedulers.fcfs.Fcfs.plan", lambda *_: 1 / 0)
    document, _ = pending(rig, waiting)
    assert document["no_start"] == "no plan can be made by policy fcfs: ZeroDivisionError: division by zero"
    assert [holder["id"] for holder in document["holders"]] == ["ƒ2"]
    view = view_of(rig)
    foresee_jobs(view, view.state.active(), ["info"])
    assert shown_reason(view.state.jobs[waiting], view) == "first in line"
