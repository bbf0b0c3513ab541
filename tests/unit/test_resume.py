"""Instances inside jobs that end before their jobs do: what of them is over, and what whoever goes on with the journal says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from journal_rules import Rules
from mini_sim import Sim
from worker_rig import T0, Rig, jobspec

from fluxkv.instances import boot, resume, whereabouts, witness
from fluxkv.instances.child import child_namespace
from fluxkv.instances.ending import ending, stopping
from fluxkv.instances.ensemble_feed import interrupted
from fluxkv.instances.follow import result_of
from fluxkv.instances.job_path import JobPath, Step, instance_at
from fluxkv.instances.left_spool import reports
from fluxkv.instances.nested import Owner, owner_of
from fluxkv.instances.paths import StateDir
from fluxkv.instances.resume import refuse_alive
from fluxkv.instances.spool import Spool
from fluxkv.instances.whereabouts import Door, beside, leave_door
from fluxkv.instances.wire import pack
from fluxkv.journal import decide, snapshot
from fluxkv.journal.decide import Decision
from fluxkv.journal.derive import Group
from fluxkv.journal.ids import f58, parse_id
from fluxkv.journal.job import CLEANUP, INACTIVE, NEW, PENDING, PRIORITY, RUN, SCHED, Job, Result
from fluxkv.journal.log import Journal
from fluxkv.journal.resizing import START_FLAGS, start_option
from fluxkv.journal.resuming import CAUSE, back_in_line, come_to, take_up
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.kvs.children import Child
from fluxkv.kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from fluxkv.kvs.memory_server import MemoryServer, share
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Appended
from fluxkv.tools.jobview import cause
from fluxkv.tools.resume_options import kvs_before
from fluxkv.tools.status_children import children_lost

BY = {"job": 77, "number": 1, "entry": "5-6"}
PARENT = {"uid": "u", "owner": 1, "namespace": "/ƒA", "schema": 1, "parent": "unix:/tmp/kv.sock"}


def copied(state: State) -> State:
    head, chunks = snapshot.dump(state)
    found = snapshot.load(snapshot.read_head(head), chunks)
    found.instance = {**found.instance, "parent": PARENT["parent"], "namespace": "/ƒA"}
    return found


def inventory(nodes: int, cores: int) -> dict[str, Any]:
    return render_set(ResourceSet(tuple(NodeRecord(rank, f"new{rank}", (1 << cores) - 1, 0, 0, ()) for rank in range(nodes))))


def taken_up(state: State, R: dict[str, Any], told: list[list[Any]] | None = None) -> State:
    """What it folds to when somebody has gone on with it, in one commit."""
    decision = take_up(copied(state), BY, R, 99, state.time + 1, told or [])
    after = copied(state)
    after.apply(Commit(state.version + 1, 99, "", 0, state.version, state.time + 1, decision.events, {}, b""))
    assert after.skipped == state.skipped
    assert not set(decision.bumps) & set(decision.clears)
    return after


@pytest.fixture(scope="module")
def played() -> list[Any]:
    sims = [Sim(seed) for seed in (3, 7, 20)]
    for sim in sims:
        sim.run()
    return sims


def test_whatever_an_instance_was_at_it_can_be_gone_on_with(played: list[Any]) -> None:
    """At every moment of histories with seats, scripts, retries and cancels: all is settled by one commit that contradicts nothing,
    jobs that had ended are as they were, and no job has ended by it but who was ending anyway."""
    seen: Counter[str] = Counter()
    for sim in played:
        state = State()
        for commit in sim.cli.commits():
            state.apply(commit)
            if state.R is None or state.version % 17:
                continue
            after = taken_up(state, inventory(1 + state.version % 3, 2))
            assert after.quarantine.table.keys() == state.quarantine.table.keys()
            assert owner_of(after) == Owner(77, 1, "5-6")
            read = copied(state)
            come_to(read, state.time + 1)  # who only reads finds the same
            ended, again = ({id: (job.state, job.status, job.number, job.t_finish) for id, job in one.jobs.items()}
                            for one in (read, after))  # fmt: skip
            assert ended == again
            assert not after.keeping
            assert not any(node.busy or node.grants or node.online for node in after.nodes.values())
            assert [node.host for node in after.nodes.values()] == [f"new{rank}" for rank in range(1 + state.version % 3)]
            for id, job in after.jobs.items():
                before = state.jobs[id]
                seen[f"{before.state}-{job.state}"] += 1
                if before.state == INACTIVE:
                    assert (job.status, job.number, job.t_inactive) == (before.status, before.number, before.t_inactive)
                    continue
                assert job.state & (PENDING | NEW) or job.state == INACTIVE
                if job.state == INACTIVE:
                    over = bool(before.over) and before.ranks and all(rank in before.over for rank in before.ranks)
                    assert over or before.exception is not None or before.status is not None or before.timed_out or before.seat_of
                elif before.holds and before.state == RUN and before.started:
                    assert (job.number, job.state) == (before.number + 1, PRIORITY)
            assert after.digest() == copied(after).digest()
    assert seen[f"{RUN}-{PRIORITY}"] > 8
    assert seen[f"{CLEANUP}-{INACTIVE}"] > 1


def rig_of_a_child() -> Rig:
    rig = Rig(nodes=1)
    rig.say(["instance-create", "instance", T0, PARENT])
    rig.turn()
    return rig


def stop(rig: Rig) -> None:
    rig.do(stopping(rig.journal.load().queues))
    rig.do(ending(rig.journal.load()))
    rig.turn()


@pytest.mark.parametrize("child", [True, False])
def test_what_an_instance_s_end_ends_is_not_over_in_one_that_is_a_job(child: bool) -> None:
    rig = rig_of_a_child() if child else Rig(nodes=1)
    running, cancelled = rig.submit(), rig.submit()
    spec = jobspec()
    spec["attributes"]["system"]["dependencies"] = [{"scheme": "afterok", "value": str(running)}]
    after = rig.submit(spec)
    rig.started(running, cancelled)
    rig.say(["exception", cancelled, rig.now, {"type": "cancel", "severity": 0, "note": ""}])
    rig.turn()
    stop(rig)
    rig.over(running, 15, "ended:shutdown")
    rig.over(cancelled, 15, "ended:cancel")
    rig.turn()
    assert rig.job(cancelled).result == Result.CANCELED
    if child:
        job = rig.job(running)
        assert (job.state, job.number, job.requeued[3]) == (PRIORITY, 2, f"requeued: {CAUSE}")
        assert rig.names(running)[-2:] == ["free", "requeue"]
        assert rig.job(after).state != INACTIVE
    else:
        assert rig.job(running).state == rig.job(after).state == INACTIVE


@pytest.mark.parametrize("child", [True, False])
@pytest.mark.parametrize("site", [{}, {"job-manager": {"epilog": {"command": ["e"]}}}])
@pytest.mark.parametrize(("said", "over"), [
    ([(0, ""), (0, "")], True),
    ([(0, ""), (0, "ended:shutdown")], False),  # it heard TERM, and was in time for nothing but its own end
    ([(0, ""), (0, "timeout")], False),
    ([(0, ""), (256, "")], False),  # who knows what it missed of the instance
])  # fmt: skip
def test_what_had_ended_by_itself_when_its_instance_ended_is_over(
    child: bool, site: dict[str, Any], said: list[tuple[int, str]], over: bool
) -> None:
    """Its launchers had ended nothing, their word alone came late: it is not begun again, whatever its policy."""
    rig = Rig(config=site)
    if child:
        rig.say(["instance-create", "instance", T0, PARENT])
        rig.turn()
    policy = jobspec(nodes=2)
    policy["attributes"]["system"]["retry"] = {"limit": 1, "on": ["shutdown"]}
    late = rig.submit(policy)
    after = {}
    for scheme in ("afterok", "afternotok", "afterexcept"):
        spec = jobspec()
        spec["attributes"]["system"]["dependencies"] = [{"scheme": scheme, "value": str(late)}]
        after[scheme] = rig.submit(spec)
    rig.started(late)
    stop(rig)
    version = rig.job(late).attempt
    for rank, (status, why) in enumerate(said):
        rig.over(late, status, why, rank=rank)
    rig.turn()
    if site:
        rig.report(0, script=[[late, version, "e", rig.now, rig.now, 0, ""]])
        rig.turn()
    job = rig.job(late)
    assert (job.state == INACTIVE, job.number) == ((True, 1) if over else (False, 2))
    if over:
        assert (job.result, job.status, job.returncode, cause(job), interrupted(job)) == (Result.COMPLETED, 0, 0, "", False)
        assert result_of(job).exception is None
        assert rig.state.ended()[Result.COMPLETED] == 1
        assert {scheme: rig.job(id).state != INACTIVE for scheme, id in after.items()} == {
            "afterok": True, "afternotok": False, "afterexcept": False
        }  # fmt: skip
    rules = Rules({0: {0, 1}, 1: {0, 1}})
    rules.commits(rig.commits())
    assert not rules.wrong
    assert rig.journal.at().digest() == rig.state.digest()


@pytest.mark.parametrize("policy", [None, {"limit": 1, "on": ["shutdown"]}])
def test_a_job_whose_prolog_the_instance_s_end_ended_has_not_run(policy: dict[str, Any] | None) -> None:
    rig = Rig(nodes=1, config={"job-manager": {"prolog": {"command": ["p"], "cancel-on-exception": True}}})
    rig.say(["instance-create", "instance", T0, PARENT])
    rig.turn()
    spec = jobspec()
    if policy:
        spec["attributes"]["system"]["retry"] = policy
    id = rig.submit(spec)
    stop(rig)
    rig.report(0, script=[[id, rig.job(id).attempt, "p", rig.now, rig.now, 0, ""]])
    rig.turn()
    assert (rig.job(id).state == INACTIVE, rig.job(id).number) == (False, 2)


def test_a_long_chain_of_seats_is_looked_at_as_a_whole() -> None:
    """And not once for each of its jobs: in a flood a group has hundreds."""

    class Looked(list[Any]):
        looks = 0

        def __iter__(self) -> Iterator[Any]:
            self.looks += 1
            return super().__iter__()

    state, events = State(), Looked()
    state.instance = PARENT
    for id in range(1, 301):
        state.jobs[id] = Job(id)
        if id % 3 == 0:
            events.append(["exception", id, T0, {"type": "shutdown", "severity": 0, "note": ""}])
        events += [["finish", id, T0, {"status": 15}], ["free", id, T0, None], ["clean", id, T0, None]]
    back_in_line(state, Group(events), T0)
    ends = {event[1]: event[0] for event in list.__iter__(events) if event[0] in ("clean", "requeue")}
    assert ends == {id: "clean" if id % 3 else "requeue" for id in range(1, 301)}
    assert events.looks <= 2


def test_a_time_limit_of_its_own_is_a_job_s_end_and_its_instance_s_is_not() -> None:
    rig = Rig(nodes=1)
    rig.say(["instance-create", "instance", T0, PARENT], ["resource-update", "resource", T0, {"expiration": T0 + 100}])
    rig.turn()
    short, long = rig.submit(jobspec(duration=10.0)), rig.submit(jobspec(duration=1000.0))
    rig.started(short, long)
    assert (rig.job(short).expiration, rig.job(long).expiration) == (T0 + 10, T0 + 100)
    for id in (short, long):
        rig.over(id, 15, "timeout")
    rig.turn()
    assert rig.job(short).result == Result.TIMEOUT
    assert (rig.job(long).state, rig.job(long).number) == (SCHED, 2) or rig.job(long).holds


def test_nothing_begins_in_an_instance_whose_time_is_up_until_it_has_more() -> None:
    """What its end has ended is in line for whoever goes on with it; begun now, it would end at once, and be in line again."""
    rig = Rig(nodes=1)
    rig.say(["instance-create", "instance", T0, PARENT], ["resource-update", "resource", T0, {"expiration": T0 + 100}])
    rig.turn()
    id, waiting = rig.submit(jobspec(cores=2, duration=1000.0)), rig.submit()
    rig.started(id)
    rig.now = T0 + 100
    rig.over(id, 15, "timeout")
    rig.turn()
    rig.turn(seconds=5.0)
    for one in (id, waiting):
        assert (rig.job(one).state, rig.job(one).holds) == (SCHED, False)
    assert [*rig.job(id).reason] == ["limit", "the time of this instance is up"]
    assert rig.names(id)[-1] == "reason"
    rig.say(["resource-update", "resource", rig.now, {"expiration": rig.now + 100}])
    rig.turn()
    assert rig.job(id).holds


def test_a_launcher_that_was_told_to_go_ended_no_job() -> None:
    rig = rig_of_a_child()
    id, by_itself = rig.submit(), rig.submit()
    rig.started(id, by_itself)
    rig.over(id, 15, "ended:shutdown")
    rig.over(by_itself, 15)
    rig.turn()
    assert (rig.job(id).number, rig.job(by_itself).state) == (2, INACTIVE)


def test_ends_that_nobody_could_report_any_more_count(tmp_path: Path) -> None:
    """Of a spool of this boot: what had ended by itself has; what was killed with its instance runs again."""
    rig = rig_of_a_child()
    ended, killed, unknown = (rig.submit() for _ in range(3))
    rig.started(ended, killed)
    folder = tmp_path / "f5-1-0" / "spool"
    folder.mkdir(parents=True)
    spool = Spool(str(folder))
    for id, status in ((ended, 3 << 8), (killed, 9)):
        key = f"{rig.job(id).key}.0"
        spool.intent(key, id, T0, 1.0, None, "", [])
        spool.add(pack(["x", ["over", key, status, T0, T0 + 1, None, "", "", 0, 0.0, id]]))
    spool.add(pack(["x", ["over", f"{rig.job(ended).id}.1-1.0", 0, T0, T0 + 1, None, "", "", 0, 0.0, ended]]))  # another attempt's
    spool.close()
    told = reports(rig.state, [str(tmp_path / "f5-1-0"), str(tmp_path / "gone")])
    assert [(event[0], event[3]["over"]) for event in told] == [
        ("report", [[ended, rig.job(ended).attempt, T0, T0 + 1, 3 << 8, "", 0]])
    ]
    after = taken_up(rig.state, inventory(1, 2), told)
    assert (after.jobs[ended].state, after.jobs[ended].status) == (INACTIVE, 3 << 8)
    assert (after.jobs[killed].state, after.jobs[killed].number) == (PRIORITY, 2)
    assert after.jobs[unknown].state == SCHED


def test_a_journal_whose_claims_make_no_sense_is_not_gone_on_with() -> None:
    rig = rig_of_a_child()
    id = rig.submit()
    rig.started(id)
    state = copied(rig.state)
    state.nodes[0].jobs.add(4711)
    state.nodes[0].used_cores = 3
    with pytest.raises(Corrupt) as caught:
        take_up(state, BY, inventory(1, 1), 99, T0)
    assert caught.value.code == "unsettled"


class Above:
    """The journal of the instance around."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def look(self) -> None:
        return None

    def find_job(self, state: None, id: int) -> Job:
        return self.job


def test_only_what_is_over_is_gone_on_with() -> None:
    job = Job(5)
    job.holds = True
    with pytest.raises(Rejected) as caught:
        refuse_alive(Above(job), Owner(5, 1))  # type: ignore[arg-type]
    assert caught.value.code == "alive"
    assert "afterany" in caught.value.hint
    refuse_alive(Above(job), Owner(5, 1, "7-8"), Owner(5, 1, "7-8"))  # type: ignore[arg-type]  # it is us, who died on the way
    job.requeued = [1, 0, 0.0, "", True, ""]
    refuse_alive(Above(job), Owner(5, 1))  # type: ignore[arg-type]  # its second attempt has a journal of its own
    job.holds = False
    refuse_alive(Above(job), Owner(5, 2))  # type: ignore[arg-type]


# -- taking it up ----------------------------------------------------------------------------------------------------------


class Around(Rig):
    """An instance with a job that was an instance, in which one job waits; its namespace, and further jobs that run."""

    def __init__(self) -> None:
        super().__init__(nodes=2)
        share("around", self.server)
        self.first = self.submit()
        self.started(self.first)
        name = child_namespace("/", self.first)
        self.inside = beside(self.store, name)
        self.inside.create(durability="strict", origin_ms=0, created=T0)
        journal = Journal(self.inside, "test")
        create = ["instance-create", "instance", T0, {**PARENT, "namespace": name}]
        define = ["resource-define", "resource", T0, {"method": "job-info", "R": inventory(1, 1)}]
        assert isinstance(journal.append(Decision([create, define]), 0), Appended)
        assert isinstance(journal.append(decide.submit([(9, jobspec())], "", 16, 1, 0, T0), 1), Appended)

    def another(self) -> dict[str, Any]:
        """Settings of a job that goes on with it."""
        id = self.submit()
        self.started(id)
        job = self.job(id)
        return {"job": f58(id), "R": inventory(2, 2), "resume": {"number": job.number, "entry": job.attempt_id}}

    def ends(self, id: int) -> None:
        self.over(id)
        self.turn()

    def owner(self) -> int:
        found = owner_of(Journal(self.inside).look())
        assert found is not None
        return found.job


def code_of(work: Any) -> str:
    with pytest.raises(FluxkvError) as caught:
        work()
    return str(caught.value.code)


def test_a_path_leads_to_what_was_there_until_it_has_been_taken_up() -> None:
    around = Around()
    name = around.inside.namespace
    around.do(Decision([["memo", around.first, T0, {"uri": f"memory:around#{name}"}]]))
    around.ends(around.first)
    wait, spec = jobspec(), jobspec()
    spec["tasks"][0]["command"] = ["fluxkv", "start", f"--resume={f58(around.first)}", "program"]
    wait["tasks"][0]["command"] = ["fluxkv", "start", "program", f"--resume={f58(around.first)}"]
    for one, found in ((spec, f"memory:around#{name}"), (wait, "")):
        id = around.submit(one)
        assert around.job(id).holds
        path = JobPath((Step(id),), False)
        if found:
            assert instance_at("memory:around#/", path) == found
            assert code_of(lambda path=path: instance_at("memory:around#/", path, alive=True)) == "not-started"
        else:
            assert code_of(lambda path=path: instance_at("memory:around#/", path)) == "not-started"
        around.ends(id)


def test_nothing_takes_the_place_of_what_was_to_be_gone_on_with() -> None:
    around = Around()
    given = {**around.another(), "uri": "memory:around#/ƒX", "parent": "memory:around#/", "lead": True}
    assert code_of(lambda: boot.ensure_instance(given)) == "no-instance"
    assert "/ƒX" not in around.server.tables.instances


def test_status_names_a_child_of_which_nothing_is_left() -> None:
    around = Around()
    journal, job = Journal(around.store), around.job(around.first)
    around.store.note_child(Child(around.inside.namespace[1:], around.first, job.attempt_id))
    assert children_lost(journal, journal.look()) == []
    del around.server.tables.instances[around.inside.namespace]
    (said,) = children_lost(journal, journal.look())
    assert f"fluxkv cancel {f58(around.first)} ends it" in said
    leave_door(around.inside, Door("unix:/nowhere", "", "/nowhere", "far", "another boot"))
    assert children_lost(journal, journal.look()) == [], "it has a server of its own"


def test_one_after_the_other_has_a_journal() -> None:
    around = Around()
    second, third = around.another(), around.another()
    assert code_of(lambda: resume.take_up(around.inside, around.store, second)) == "alive"
    around.ends(around.first)
    around.inside.seal(around.inside.meta().uid)
    before = around.inside.meta()
    resume.take_up(around.inside, around.store, second)
    meta = around.inside.meta()
    assert (meta.sealed, meta.uid != before.uid, meta.archive_uid, meta.version) == (0, True, before.uid, before.version + 1)
    assert around.owner() == parse_id(second["job"])
    assert code_of(lambda: resume.take_up(around.inside, around.store, third)) == "alive"
    assert around.inside.meta() == meta  # it has not been touched by who was refused
    state = Journal(around.inside).look()
    assert ([len(state.nodes), state.jobs[9].state], state.quarantine.table) == ([2, NEW], {})
    resume.take_up(around.inside, around.store, second)  # its keeper died before it had noted the new uid
    around.ends(parse_id(second["job"]))
    resume.take_up(around.inside, around.store, third)
    assert around.owner() == parse_id(third["job"])


def test_who_dies_before_the_commit_has_done_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    around = Around()
    second = around.another()
    around.ends(around.first)
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", lambda *_: (_ for _ in ()).throw(Unavailable("it died", code="away")))
        assert code_of(lambda: resume.take_up(around.inside, around.store, second)) == "away"
    assert (around.owner(), around.inside.meta().version) == (around.first, 2)
    resume.take_up(around.inside, around.store, second)
    assert around.owner() == parse_id(second["job"])


def test_a_journal_that_lost_some_is_adopted_by_who_goes_on_or_refused() -> None:
    """Its own keepers are gone: who goes on with it does what they would have done."""
    around = Around()
    second = {**around.another(), "parent": "memory:around#/"}
    around.ends(around.first)
    meta = around.inside.meta()
    around.inside.fence(meta.uid, meta.epoch, f"5-{meta.epoch}")
    around.inside.seal(meta.uid)
    fenced = around.inside.meta()
    with pytest.raises(Rejected, match="ends at version 2, and versions 3 to 5 are lost") as refused:
        resume.take_up(around.inside, around.store, {**second, "on_fork": "refuse"})
    assert (refused.value.code, f"--uri 'memory:around#{around.inside.namespace}'" in refused.value.hint) == ("history-lost", True)
    assert around.inside.meta() == fenced
    resume.take_up(around.inside, around.store, {**second, "on_fork": "adopt"})
    meta = around.inside.meta()
    assert (meta.fork, meta.sealed, around.owner()) == ("", 0, parse_id(second["job"]))
    commits = list(Journal(around.inside).commits())
    assert [(commits[2].events[0][0], commits[2].events[0][3]["lost"])] == [("adopt", [3, 5])]
    assert "resume" in [event[0] for event in commits[3].events]


@pytest.mark.parametrize("of_another", [True, False])
def test_a_loss_that_only_who_had_it_before_knows_of_is_noticed(tmp_path: Path, of_another: bool) -> None:
    """The server failed over when nobody of it lived: its keeper's file knows. That of another attempt is about another journal."""
    around = Around()
    second = {**around.another(), "parent": "memory:around#/", "before": [str(tmp_path / "gone"), str(tmp_path)]}
    around.ends(around.first)
    meta = around.inside.meta()
    namespace = f"{around.inside.namespace}.2" if of_another else around.inside.namespace
    StateDir(str(tmp_path)).write({"uri": f"memory:around#{namespace}"})
    (tmp_path / "tip").write_text(json.dumps({"version": 5, "epoch": meta.epoch}))
    assert [one.known for one in witness.witnesses(StateDir(str(tmp_path)))] == [f"5-{meta.epoch}"]
    if not of_another:
        with pytest.raises(Rejected, match="ends at version 2, and versions 3 to 5 are lost"):
            resume.take_up(around.inside, around.store, {**second, "on_fork": "refuse"})
    resume.take_up(around.inside, around.store, {**second, "on_fork": "adopt"})
    names = [event[0] for commit in Journal(around.inside).commits() for event in commit.events]
    assert names.count("adopt") == (not of_another)
    assert around.owner() == parse_id(second["job"])


def test_a_loss_that_is_noticed_while_it_is_taken_up_is_no_other_s(monkeypatch: pytest.MonkeyPatch) -> None:
    around = Around()
    second = {**around.another(), "on_fork": "adopt"}
    around.ends(around.first)
    monkeypatch.setattr(resume, "PAUSE_S", 0.0)
    real = type(around.inside).reopen

    def noticed(store: Any, uid: str, epoch: int, tip: int) -> Any:
        if tip == 2:
            store.fence(uid, epoch, f"3-{epoch}")
        return real(store, uid, epoch, tip)

    monkeypatch.setattr(type(around.inside), "reopen", noticed)
    resume.take_up(around.inside, around.store, second)
    assert (around.owner(), around.inside.meta().fork) == (parse_id(second["job"]), "")


@pytest.mark.parametrize("late", ["before it was opened", "before its commit"])
def test_of_two_at_once_one_has_it(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    around = Around()
    second, third = around.another(), around.another()
    around.ends(around.first)
    monkeypatch.setattr(resume, "PAUSE_S", 0.0)
    where = (type(around.inside), "reopen") if late == "before it was opened" else (Journal, "append")
    real = getattr(*where)
    others: list[int] = []

    def slow(*args: Any) -> Any:
        if not others:
            others.append(1)
            resume.take_up(around.inside, around.store, third)
        return real(*args)

    monkeypatch.setattr(*where, slow)
    assert code_of(lambda: resume.take_up(around.inside, around.store, second)) == "alive"
    assert around.owner() == parse_id(third["job"])
    names = [event[0] for commit in Journal(around.inside).commits() for event in commit.events]
    assert names.count("resume") == 1


def test_what_was_taken_in_when_there_was_more_waits() -> None:
    """What is asked for later, and can never be had, is refused as ever."""
    rig = rig_of_a_child()
    early = rig.submit(jobspec(nodes=2), turn=False)
    rig.say(["resume", "instance", T0 + 1, BY])
    rig.hello(0)
    rig.turn(seconds=2.0)
    assert (rig.job(early).state, rig.job(early).reason[0]) == (SCHED, "unsatisfiable")
    late, fits = rig.submit(jobspec(nodes=2)), rig.submit()
    assert (rig.job(late).state, rig.job(late).exception[0]) == (INACTIVE, "alloc")
    assert rig.job(fits).holds


def test_an_option_of_start_is_not_one_of_its_program() -> None:
    from fluxkv.tools.start_cmd import start

    assert {name for one in start.params if getattr(one, "is_flag", False) for name in one.opts} == START_FLAGS
    begin = ["/usr/bin/fluxkv", "start"]
    assert start_option([*begin, "--kvs=own", "--resume=ƒA", "run", "--resume=step.7"], "--resume") == "ƒA"
    assert start_option([*begin, "--policy", "easy", "-s", "1", "-s2", "--drain", "--kvs", "own"], "--kvs") == "own"
    theirs = ["program", "--kvs=own"]
    for command in ([*begin, *theirs], [*begin, "--drain", *theirs], ["fluxkv", "run", "--kvs=own"], []):
        assert start_option(command, "--kvs") == ""
    assert kvs_before({"tasks": [{"command": [*begin, "--kvs=own"]}]}) == "own"
    assert kvs_before({}) == ""


def test_who_waits_for_another_reads_journals_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be long, the parent's too, and many nodes of a job wait."""
    server, slept, folds = MemoryServer(), list[float](), list[str]()
    share("resume-waits", server)
    above, here = MemoryStore(server, "/"), MemoryStore(server, "/ƒA")
    for store in (above, here):
        store.create(durability="local", origin_ms=0, created=T0)

    def say() -> None:
        assert isinstance(Journal(here).append(Decision([["x", "instance", T0, None]]), 0), Appended)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 50:
            say()

    look = Journal.look

    def looking(self: Journal) -> State:
        folds.append(self.store.namespace)
        return look(self)

    say()
    monkeypatch.setattr(Journal, "look", looking)
    monkeypatch.setattr(resume, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=sleep))
    with pytest.raises(Unavailable, match="has not taken it up"):
        resume.wait_until_taken("memory:resume-waits#/ƒA", "5-6", 10.0)
    assert (folds, len(slept)) == (["/ƒA"] * 2, 200)
    folds.clear()
    leave_door(beside(above, "/ƒB"), Door("unix:/nowhere/kv.sock", "", "/nowhere", "far", "another boot"))
    monkeypatch.setattr(whereabouts, "beside_own", lambda *_: MemoryStore(server, "/ƒA"))
    with pytest.raises(Unavailable, match="is not handed up"):
        resume.wait_until_handed_up(above, "/ƒB")
    assert len(slept) > 700
    assert len(folds) <= resume.HANDED_S / resume.ASK_S + 1
