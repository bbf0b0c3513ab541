"""Dependencies (RFC 26): their forms, whether one holds, and what the worker makes of them."""

from __future__ import annotations

import random

import pytest

from fluxkv.instances import submission
from fluxkv.journal import dependency
from fluxkv.journal.antecedent import UNKNOWN, Antecedent, Unknown, judge
from fluxkv.journal.dependency import normalise, parse_uri, read, resolve
from fluxkv.journal.ids import encode, f58
from fluxkv.journal.job import Job
from fluxkv.journal.jobspec_build import from_options
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.kvs.errors import Rejected

A, B, C = 1 << 24, 2 << 24, 3 << 24


def text(*uris: str) -> str:
    """What normal objects of these look like, as text."""
    return " ".join(one.uri for one in read(normalise(uris)))


# -- forms -----------------------------------------------------------------------------------------------------------


def test_command_line_forms_of_the_rfc(vectors):
    for case in vectors("dependency_uri"):
        if "error" in case:
            with pytest.raises(Rejected):
                parse_uri(case["input"])
        else:
            assert parse_uri(case["input"]) == case["expected"]


def test_objects_of_the_rfc(vectors):
    for case in vectors("dependency_object"):
        if "error" in case:
            with pytest.raises(Rejected, match="dependencies"):
                dependency.check_objects(case["input"])
        else:
            dependency.check_objects(case["input"])


def test_events_of_the_rfc(vectors):
    for case in vectors("dependency_events"):
        state = State()
        state.apply(Commit(1, 1, "", 0, 0, 1.0, [["submit", 1, 1.0, {}], ["validate", 1, 1.0, None]], {}))
        names = {"add": "dependency-add", "remove": "dependency-remove"}
        events = [[names[verb], 1, 1.0, {"description": what}] for verb, what in case["input"]]
        state.apply(Commit(2, 1, "", 0, 0, 1.0, events, {}))
        assert bool(state.skipped) == ("error" in case)
        if "error" not in case:
            assert list(state.jobs[1].waiting) == case["expected"]["outstanding"]
            assert list(state.jobs[1].met) == [what for verb, what in case["input"] if verb == "remove"]


@pytest.mark.parametrize("form", ["f58", "f58plain", "dec", "hex", "dothex", "kvs"])
def test_an_id_in_any_form_becomes_the_normal_one(form):
    assert normalise(f"afterok:{encode(A, form)}") == [{"scheme": "afterok", "value": f58(A)}]


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("singleton", "singleton"),
        ("begin-time:1638312000.50", "begin-time:1638312000.5"),
        ("begin-time:100", "begin-time:100"),
        (f"any(afterok:{A}, after:{B})", f"any(afterok:{f58(A)},after:{f58(B)})"),
        (f"any:afterok:{A},after:{B}", f"any(afterok:{f58(A)},after:{f58(B)})"),
        (f"all(any(after:{A},afterany:{B}),afternotok:{C},begin-time:5)",
         f"all(any(after:{f58(A)},afterany:{f58(B)}),afternotok:{f58(C)},begin-time:5)"),
        ("afterok:#-1", "afterok:#-1"),
    ],
)  # fmt: skip
def test_normal_form(given, normal):
    made = normalise(given)
    assert [one.uri for one in read(made, references=True)] == [normal]
    assert normalise(made) == made


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("afterok", "no scheme"),
        ("aftersome:ƒ1", "there are after, "),
        ("string:foo?type=out", "no scheme is called 'string'"),
        ("string:foo?type=out&scope=user", "no scheme is called 'string'"),
        ("afterok:nonsense", "bad job id"),
        ("afterok:ƒA/ƒB", "another instance"),
        ("afterok:", "it is empty"),
        ("afterok:0", "id 0"),
        ("afterok:ƒ2,afterok:ƒ3", "all(afterok:ID,afterok:ID)"),
        ("afterok:#x", "#N"),
        ("begin-time:tomorrow", "not a time"),
        ("begin-time:nan", "not a time"),
        ("begin-time:-5", "not a time"),
        ("begin-time:1_0", "not a time"),
        ("singleton:x", "takes no value"),
        ("any(singleton,afterok:ƒ2)", "cannot stand in"),
        ("any()", "a part is empty"),
        ("any(afterok:ƒ2,)", "a part is empty"),
        ("any(afterok:ƒ2", "closing parenthesis"),
        ("any(afterok:ƒ2))", "do not match"),
        ("any(all(afterok:ƒ2)", "do not match"),
        ("any(afterok:ƒ2?x=y)", "further keys"),
        ("any(" * 20 + "afterok:ƒ2" + ")" * 20, "nested"),
        (f"any({','.join(['afterok:ƒ2'] * 1001)})", "more than 1000"),
        ("afterok:ƒ2?type", "not key=value"),
    ],
)
def test_what_is_no_dependency(given, why):
    with pytest.raises(Rejected) as caught:
        normalise(given)
    assert why in f"{caught.value} {caught.value.hint}"


def test_descriptions_are_flux_core_s_words():
    objects = normalise([
        f"after:{A}", f"afterany:{A}", f"afterok:{A}", f"afternotok:{A}", f"afterexcept:{A}", "begin-time:5", "singleton",
        f"any(afterok:{A},after:{B})",
    ])  # fmt: skip
    a, b = f58(A), f58(B)
    assert [one.description for one in read(objects)] == [
        f"after-start={a}", f"after-finish={a}", f"after-success={a}", f"after-failure={a}", f"after-except={a}",
        "begin-time=5.000", "singleton", f"any(after-success={a},after-start={b})",
    ]  # fmt: skip


def test_further_keys_are_kept_and_doubles_are_one():
    made = normalise([f"afterok:{A}?site=here", f"afterok:{f58(A)}"])
    assert made == [{"scheme": "afterok", "value": f58(A), "site": "here"}]


def test_jobspecs_made_from_options_hold_the_normal_form():
    made = from_options(["x"], dependencies=[f"afterok:{A}", {"scheme": "begin-time", "value": "5.0"}])
    wanted = [{"scheme": "afterok", "value": f58(A)}, {"scheme": "begin-time", "value": "5"}]
    assert made["attributes"]["system"]["dependencies"] == wanted
    assert "dependencies" not in from_options(["x"])["attributes"]["system"]


def test_references_within_a_submission():
    ids = [A, B, C]
    assert resolve(normalise("afterok:#1"), ids, 3) == normalise(f"afterok:{B}")
    assert resolve(normalise("afterok:#-1"), ids, 3) == normalise(f"afterok:{C}")
    assert resolve(normalise("afterok:#-4"), ids, 3) == []
    assert resolve(normalise("any(afterok:#-4,after:#0)"), ids, 3) == normalise(f"any(after:{A})")
    assert resolve(normalise(["all(after:#-9)", "begin-time:5"]), ids, 3) == normalise("begin-time:5")
    for late in ("afterok:#3", "afterok:#4"):
        with pytest.raises(Rejected, match="is not submitted before number 3"):
            resolve(normalise(late), ids, 3)
    with pytest.raises(Rejected, match="there is none here"):
        read(normalise("afterok:#1"))  # nobody but the submitter knows what it means


def test_references_in_the_place_of_ids():
    given = normalise([f"afterok:{A}?site=here", f"any(after:{B},all(afterok:{C}),begin-time:5)", "singleton"])
    made = dependency.renumbered(given, {A: 0, C: 1})
    assert [one["value"] for one in made] == ["#0", f"after:{f58(B)},all(afterok:#1),begin-time:5", ""]
    assert made[0]["site"] == "here"
    assert resolve(made, [A, C], 2) == given


# -- whether one holds -----------------------------------------------------------------------------------------------

STARTED = Antecedent(1, 1, False, True, True, None, None)
ANTECEDENTS = {
    "running_no_start": Antecedent(1, 1, False, True, False, None, None),
    "started": STARTED,
    "inactive_ok": STARTED._replace(ended=True, status=0),
    "inactive_failed_after_start": STARTED._replace(ended=True, status=256),
    "inactive_never_started": Antecedent(1, 1, True, False, False, None, ("cancel", "")),
    "inactive_except": STARTED._replace(ended=True, status=9, exception=("timeout", "")),
    "unheard_of": None,
    "retired": UNKNOWN,
    "other_user": STARTED._replace(userid=2, ended=True, status=0),
    "later": STARTED._replace(order=100, ended=True, status=0),
}  # fmt: skip
WORD = {None: "wait", True: "satisfied", False: "fatal-exception"}


def outcome(uri: str, found: dict[int, Antecedent | Unknown | None], now: float = 50.0) -> tuple[str, str]:
    job = Job(9)
    job.userid, job.order = 1, 10
    (one,) = read(normalise(uri))
    verdict = judge(one, job, found.get, now)
    return WORD[verdict.met], verdict.why


def test_outcomes_of_the_rfc(vectors):
    for case in vectors("dependency_outcome"):
        scheme, name = case["input"]["scheme"], case["input"]["antecedent"]
        expected = case["expected"]
        if (scheme, name) == ("afternotok", "inactive_never_started"):
            expected = "fatal-exception"  # as flux-core does, where the RFC's text lets it pass
        assert outcome(f"{scheme}:{A}", {A: ANTECEDENTS[name]})[0] == expected, case


@pytest.mark.parametrize(
    ("scheme", "name", "expected"),
    [
        ("afterexcept", "started", "wait"), ("afterexcept", "inactive_except", "satisfied"),
        ("afterexcept", "inactive_ok", "completed without an exception"),
        ("afterexcept", "inactive_failed_after_start", "failed (exit code 1) without an exception"),
        ("afterexcept", "inactive_never_started", "never started: canceled"),
        ("afterok", "inactive_except", "ran into its time limit"), ("afternotok", "inactive_except", "satisfied"),
        ("afterok", "inactive_failed_after_start", "failed (exit code 1)"), ("afternotok", "inactive_ok", "completed"),
        ("afterok", "unheard_of", f"there is no job {f58(A)}"), ("afterany", "unheard_of", "there is no job"),
        ("afterok", "retired", "wait"), ("afterok", "other_user", "another user's"), ("afterok", "later", "submitted later"),
        ("afterstart", "started", "satisfied"), ("after", "inactive_never_started", "never started: canceled"),
    ],
)  # fmt: skip
def test_outcomes_as_in_flux_core(scheme, name, expected):
    word, why = outcome(f"{scheme}:{A}", {A: ANTECEDENTS[name]})
    assert word == expected or (word == "fatal-exception" and expected in why)
    assert not why or why.startswith(f"{scheme}:{f58(A)} cannot be met: ")


@pytest.mark.parametrize(
    ("uri", "a", "b", "expected"),
    [
        ("any", "started", "started", "wait"), ("any", "started", "inactive_ok", "satisfied"),
        ("any", "inactive_failed_after_start", "started", "wait"), ("any", "inactive_failed_after_start", "unheard_of", "fatal"),
        ("any", "unheard_of", "inactive_ok", "satisfied"), ("all", "inactive_ok", "started", "wait"),
        ("all", "inactive_ok", "inactive_ok", "satisfied"), ("all", "started", "inactive_failed_after_start", "fatal"),
        ("any", "retired", "inactive_ok", "satisfied"), ("any", "retired", "unheard_of", "wait"),
    ],
)  # fmt: skip
def test_any_and_all(uri, a, b, expected):
    word, why = outcome(f"{uri}(afterok:{A},afterok:{B})", {A: ANTECEDENTS[a], B: ANTECEDENTS[b]})
    assert word.startswith(expected)
    if expected == "fatal" and uri == "any":
        assert why.count("cannot be met") == 2
        assert "failed (exit code 1)" in why


def test_a_time_within_any():
    found = {A: STARTED}
    assert outcome(f"any(afterok:{A},begin-time:60)", found)[0] == "wait"
    assert outcome(f"any(afterok:{A},begin-time:60)", found, now=60.0)[0] == "satisfied"


def test_a_chain_of_failures_does_not_quote_all_before_it():
    fallen = Antecedent(1, 1, True, False, False, None, ("dependency", "x" * 5000))
    why = outcome(f"afterok:{A}", {A: fallen})[1]
    assert why.endswith("never started: dependency")
    broken = STARTED._replace(ended=True, exception=("exec", "no such\nprogram" + "x" * 500))
    why = outcome(f"afterok:{A}", {A: broken})[1]
    assert "failed (exec: no such program" in why
    assert len(why) < 200


# -- submission ------------------------------------------------------------------------------------------------------


@pytest.fixture
def instance():
    from fluxkv.instances.client import Instance
    from fluxkv.kvs.memory_server import MemoryServer
    from fluxkv.kvs.memory_store import MemoryStore

    store = MemoryStore(MemoryServer(lambda: 1.7e9, random.Random(1)))
    store.create(durability="strict", origin_ms=1_700_000_000_000, created=1.7e9)
    with Instance(store) as made:
        yield made


def submitted(instance, ids):
    """Each job's dependencies as they stand in the journal."""
    state = instance.state()
    found = [dependency.of_jobspec(state.jobs[id].jobspec) for id in ids]
    return [[one.uri for one in read(each)] if each else each for each in found]


def test_a_submission_refers_to_itself(instance, monkeypatch):
    monkeypatch.setattr(submission, "CHUNK", 3)
    ids = instance.submit_many([["x"]] * 8, dependencies=["afterok:#-1", "begin-time:5"])
    assert submitted(instance, ids) == [["begin-time:5"]] + [[f"afterok:{f58(id)}", "begin-time:5"] for id in ids[:-1]]
    ids = instance.submit_many([["x"]] * 5, dependencies="afterany:#-2")
    assert submitted(instance, ids)[:3] == [None, None, [f"afterany:{f58(ids[0])}"]]
    jobs = [from_options(["x"]), from_options(["x"], dependencies="any(afterok:#0,after:#0)")]
    jobs += [from_options(["x"], dependencies="afterok:#1")] * 3
    ids = instance.submit_many(jobs)
    assert submitted(instance, ids)[1:] == [[f"any(afterok:{f58(ids[0])},after:{f58(ids[0])})"], *[[f"afterok:{f58(ids[1])}"]] * 3]
    with pytest.raises(Rejected, match="job number 1 is not submitted before number 0"):
        instance.submit_many(jobs[2:])


def test_a_handle_names_its_job(instance):
    first = instance.submit(["x"])
    second = instance.submit(["x"], dependencies=[f"afterok:{first}", {"scheme": "after", "value": str(first.id)}])
    assert submitted(instance, [second.id]) == [[f"afterok:{first}", f"after:{first}"]]
    raw = from_options(["x"])
    raw["attributes"]["system"]["dependencies"] = [{"scheme": "afterok", "value": hex(first.id)}]
    assert submitted(instance, [instance.submit(raw).id]) == [[f"afterok:{first}"]]


@pytest.mark.parametrize("bad", ["nosuch:1", "afterok:x", [{"scheme": "afterok"}], {"scheme": 1, "value": ""}])
def test_a_submission_with_no_such_dependency_is_refused(instance, bad):
    with pytest.raises(Rejected):
        instance.submit(["x"], dependencies=bad)
    raw = from_options(["x"])
    raw["attributes"]["system"]["dependencies"] = bad
    with pytest.raises(Rejected):
        instance.submit(raw)
