"""The parts of the submission command line: sizes, layouts, limits, templates, files, inputs, copies. No server."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from fluxkv.instances import rlimits, staging, templates
from fluxkv.instances.layout import check_layout, counts_of, needs_claims, task_ranks
from fluxkv.instances.orders import launch_orders
from fluxkv.instances.scratch import Scratch
from fluxkv.instances.shell_options import check_system
from fluxkv.instances.template import fill
from fluxkv.journal import file_archive
from fluxkv.journal.claims import Claim
from fluxkv.journal.ids import encode
from fluxkv.journal.job import Job
from fluxkv.journal.jobspec import from_options, parse_jobspec
from fluxkv.journal.node import Node
from fluxkv.journal.summary import ntasks_on, summarize
from fluxkv.kvs.blobs import blob_name
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.request import compile_request
from fluxkv.tools.add_file import files_of
from fluxkv.tools.inputs import Filler, combined, separator, split_lists
from fluxkv.tools.stencil import Stencil
from fluxkv.tools.taskmaps import taskmap_option

Vectors = Callable[[str], list[dict[str, Any]]]


def spec(**options: Any) -> dict[str, Any]:
    return from_options(["true"], cwd="/", **options)


# -- sizes and layouts


@pytest.mark.parametrize(
    ("options", "counts", "ntasks"),
    [
        ({"cores": 4}, [2, 2], 4),
        ({"cores": 4, "tasks_per_core": 2}, [4, 4], 8),
        ({"nodes": 2, "cores": 4}, [2, 2], 4),
        ({"nodes": 2, "cores": 4, "tasks_per_node": 3}, [3, 3], 6),
        ({"nodes": 2, "tasks_per_node": 1}, [1, 1], 2),
        ({"nodes": 2, "gpus_per_node": 1}, [2, 2], 2),  # one a core of whole nodes, which have more than was asked for
    ],
)
def test_sizes_by_resource(options: dict[str, Any], counts: list[int], ntasks: int) -> None:
    jobspec = parse_jobspec(json.loads(json.dumps(spec(**options))))
    claims = [Claim(0, 0b11, 1, 0, 2 if options.get("nodes") is None else 1), Claim(5, 0b1100, 2, 0, 2)]
    assert counts_of(jobspec, compile_request(jobspec), claims) == counts
    assert summarize(jobspec)[3][1] == ntasks
    assert ntasks_on(jobspec, claims) in (None, sum(counts))


def test_nodes_by_resource_without_cores_are_whole() -> None:
    assert spec(nodes=2, tasks_per_node=2)["resources"][0]["exclusive"] is True
    assert "exclusive" not in spec(nodes=2, cores=2)["resources"][0]
    assert spec(nodes=1, cores=4, gpus_per_node=2)["resources"][0]["with"][0]["with"] == [
        {"type": "core", "count": 4}, {"type": "gpu", "count": 2}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"cores": 4, "ntasks": 2}, "exclude those by task"), ({"tasks_per_node": 2}, "need nodes or cores"),
        ({"gpus_per_node": 1}, "need a node count"),
        ({"cores": 2, "gpus_per_node": 1}, "need a node count"), ({"nodes": 2, "cores": 3}, "the same number"),
        ({"nodes": 1, "tasks_per_node": 1, "tasks_per_core": 1}, "exclude each other"), ({"cores": 0}, "too small"),
    ],
)  # fmt: skip
def test_sizes_that_make_no_sense(options: dict[str, Any], why: str) -> None:
    with pytest.raises(Rejected, match=why):
        spec(**options)


HOSTS = ["a", "b"]


@pytest.mark.parametrize(
    ("taskmap", "ranks"),
    [
        ("cyclic", [[0, 2], [1, 3]]), ("cyclic:2", [[0, 1], [2, 3]]), ("block", [[0, 1], [2, 3]]),
        ({"scheme": "manual", "value": "[[1,1,2,1],[0,1,2,1]]"}, [[2, 3], [0, 1]]), ("manual:0,3;1-2", [[0, 3], [1, 2]]),
        ({"scheme": "hostfile", "value": "f", "hosts": ["b", "a", "x"]}, [[1, 3], [0, 2]]),
        ({"scheme": "hostfile", "value": "f", "hosts": ["b", "b", "b", "a"]}, [[2, 3], [0, 1]]),
    ],
)  # fmt: skip
def test_taskmaps(taskmap: Any, ranks: list[list[int]]) -> None:
    jobspec = spec(nodes=2, ntasks=4, shell_options={"taskmap": taskmap})
    check_layout(jobspec["attributes"]["system"]["shell"]["options"])
    assert task_ranks(jobspec, [2, 2], HOSTS) == ranks


@pytest.mark.parametrize(
    ("taskmap", "why"),
    [
        ("spiral", "the scheme is block"), ("cyclic:0", "cyclic"), ("manual:", "RFC 34 map"), ("block:1", "takes no value"),
        ("hostfile:f", "use submit --taskmap"), (7, "a scheme"), ({"scheme": "hostfile", "hosts": [1]}, "use submit"),
        ("manual:[[0,1", "JSON"),
    ],
)  # fmt: skip
def test_taskmaps_that_are_none_are_refused_at_submission(taskmap: Any, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        check_system({"shell": {"options": {"taskmap": taskmap}}})


def test_a_map_that_does_not_fit_ends_the_job_with_a_reason() -> None:
    job = Job(1)
    job.jobspec = spec(nodes=2, ntasks=4, shell_options={"taskmap": "manual:0-2;3"})
    claims = [Claim(0, 1, 0, 0, 2), Claim(1, 1, 0, 0, 2)]
    nodes = {rank: Node(rank, host, 0, 0, 0, ()) for rank, host in enumerate(HOSTS)}
    orders = launch_orders(job, compile_request(job.jobspec), claims, "s", False, nodes)
    assert ["3, 1 tasks on the nodes, which take 2, 2" in order[1][1]["refuse"] for order in orders] == [True, True]
    job.jobspec = spec(nodes=2, ntasks=4, shell_options={"taskmap": "cyclic"})
    orders = launch_orders(job, compile_request(job.jobspec), claims, "s", False, nodes)
    assert [order[1][1]["ranks"] for order in orders] == ["0,2", "1,3"]


def test_what_depends_on_the_cores_it_gets_is_not_placed_ahead() -> None:
    sizes: list[dict[str, Any]] = [{"ntasks": 2}, {"cores": 2}, {"nodes": 1, "cores": 2}]
    assert [needs_claims(spec(**options)) for options in sizes] == [False, False, True]
    assert needs_claims(from_options(["echo", "{{node.cores}}"]))
    assert not needs_claims(from_options(["echo", "{{node.id}}", "{node.cores}"]))
    assert needs_claims(spec(shell_options={"output.stdout.path": "o.{{node.gpus}}"}))
    many = spec(nodes=1, tasks_per_core=50_000)
    with pytest.raises(Rejected, match="200000 tasks are more than"):
        counts_of(many, compile_request(many), [Claim(0, 0b1111, 0, 0, 1)])


def test_a_long_hostfile_costs_what_its_tasks_do() -> None:
    lines = ["a"] * 50_000 + ["b"] + ["x"] * 50_000
    jobspec = spec(nodes=2, ntasks=2, shell_options={"taskmap": {"scheme": "hostfile", "hosts": lines}})
    assert task_ranks(jobspec, [1, 50_000], HOSTS) == [[0], list(range(1, 50_001))]


def test_a_hostfile_is_read_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# first\nnode[1-2]\n\nnode0\n")
    assert taskmap_option(f"hostfile:{path}")["hosts"] == ["node1", "node2", "node0"]
    for text in ("hostfile:/no/such", "spiral", f"hostfile:{os.devnull}"):
        with pytest.raises(click.BadParameter) as caught:
            taskmap_option(text)
        assert "--taskmap" in caught.value.format_message()


# -- limits

LIMITS = {"core": 0, "nofile": 1024, "memlock": 65536, "stack": 8 << 20}


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([], {"core": 0, "nofile": 1024, "stack": 8 << 20}), (["-*"], {}), (["-*,core"], {"core": 0}),
        (["*"], LIMITS), (["-*", "NOFILE=77"], {"nofile": 77}), (["-s*", "-core", "nofile=unlimited"], {"nofile": -1}),
        (["-*", "memlock"], {"memlock": 65536}),
    ],
)  # fmt: skip
def test_rlimit_rules(rules: list[str], found: dict[str, int]) -> None:
    assert rlimits.apply_rules(rules, LIMITS) == found


@pytest.mark.parametrize("rule", ["nonsense", "-zz*", "nofile=many", "nofile=-5", "nosuch=1", "nofile="])
def test_rlimit_rules_that_make_no_sense(rule: str) -> None:
    with pytest.raises(Rejected):
        rlimits.apply_rules([rule], LIMITS)


def test_limits_travel_as_a_text_or_as_an_option() -> None:
    assert rlimits.from_text(rlimits.to_text(LIMITS)) == LIMITS
    assert rlimits.from_text("nofile=x,zz=1,core=-1,,cpu=--5,stack=99999999999999999999,as=") == {"core": -1}
    assert rlimits.parse_rlimits({"rlimit": {"nofile": 7, "core": (1 << 64) - 1}}) == {"nofile": 7, "core": -1}
    for wrong in ({"rlimit": 5}, {"rlimit": {"zz": 1}}, {"rlimit": {"core": "x"}}):
        with pytest.raises(Rejected, match="rlimit"):
            rlimits.parse_rlimits(wrong)


def test_a_launcher_sets_only_what_differs_and_no_more_than_it_may() -> None:
    import resource

    limits = rlimits.Limits()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits.plan({"nofile": soft}) == ({}, [])
    changes, above = limits.plan({"nofile": hard + 1 if hard >= 0 else soft})
    assert (hard < 0) or (changes == ({"nofile": hard} if hard != soft else {}) and "is above" in above[0])
    inside = limits.around({"nofile": 64}, lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    assert (inside, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) == (64, soft)
    assert rlimits.by_shell({"nofile": 5}, ["a"]) == ["a"]
    assert rlimits.by_shell({"as": 1025, "data": -1}, ["a", "b"])[2:] == [
        'ulimit -S -v 2 && ulimit -S -d unlimited && exec "$@"', "sh", "a", "b"
    ]  # fmt: skip


# -- templates


def test_templates() -> None:
    order = {"job": 123456, "total": 4, "nodes": 2, "index": 1, "name": "n", "claim": [7, "0-1", "", 0, 2]}
    words = {**templates.job_words(order, 7, "host7", "/t"), **templates.task_words(3, 1)}
    text = "{{id.dec}} {{ jobid }} {{id.f58plain}} {{size}}/{{ntasks}}/{{nnodes}}"
    assert templates.expand(text, words) == "123456 ƒdhZ fdhZ 4/4/2"
    text = "{{node.id}} {{node.name}} {{node.broker_rank}} {{node.cores}}"
    assert templates.expand(text, words) == "1 host7 7 0-1"
    assert templates.expand("{{taskid}} {{task.localid}} {{tmpdir}} {{node.ncores}}{{node.gpus}}", words) == "3 1 /t 2"
    assert templates.expand("{{unknown}} {id} {{}}", words) == "{{unknown}} {id} {{}}"
    assert templates.names_task("x.{{ task.rank }}")
    assert not templates.names_task("x.{{id}}")
    assert templates.names_tag("a/{{tmpdir}}", "tmpdir")
    needed = templates.job_words(order, 7, "host7", "/t", ["{{id.words}}"])
    assert needed == templates.job_words(order, 7, "host7", "/t", ["{{ jobid.words }}"])
    assert templates.expand("{{id.words}}", needed) == encode(123456, "words")
    spared = templates.job_words(order, 7, "host7", "/t", ["{{tmpdir}}/x", "{{id}}"])  # words would have a package loaded
    assert set(words) - set(spared) - set(templates.task_words(3, 1)) == {
        "id.words", "id.emoji", "jobid.words", "jobid.emoji"
    }  # fmt: skip


# -- files


@pytest.mark.parametrize("first", [{"mode": 0o120777, "data": "/tmp"}, {"mode": 0o100644}])
def test_nothing_lies_below_a_link_or_a_file(first: dict[str, Any]) -> None:
    """Through a link the launcher would write outside of the job's directory."""
    below = {"mode": 0o100644}
    for names in (("l", "l/x"), ("l/x/y", "l"), ("l", "l-", "l/x")):
        with pytest.raises(Rejected, match="is no directory"):
            list(file_archive.read_archive({name: first if name == "l" else below for name in names}))
    fine = {"l": first, "l-/x": below, "l-": {"mode": 0o040755}, "lx": below}
    assert [file.path for file in file_archive.read_archive(fine)] == list(fine)


def test_blobs_of_a_file_do_not_lie_over_one_another() -> None:
    part = [0, 1 << 20, f"{file_archive.BLOB}{blob_name(b'x')}"]
    many = {"mode": 0o100644, "size": 1 << 20, "encoding": "blobvec", "data": [part] * 1000}
    with pytest.raises(Rejected, match="over one another"):
        list(file_archive.read_archive({"a": many}))


def test_file_archive_vectors(vectors: Vectors) -> None:
    for case in vectors("file_archive"):
        if "error" in case:
            with pytest.raises(Rejected):
                list(file_archive.read_archive([case["input"]]))
            continue
        (found,) = file_archive.read_archive([case["input"]])
        wanted = case["expected"]
        assert (found.kind, f"{found.mode:04o}") == (wanted["type"], wanted.get("perm", f"{found.mode:04o}"))
        if "content" in wanted:
            assert found.data.decode() == wanted["content"]
        if "json" in wanted:
            assert json.loads(found.data) == wanted["json"]
        if "target" in wanted:
            assert found.data.decode() == wanted["target"]


@pytest.mark.parametrize(
    "value",
    [
        5, {"a": 1}, {"a": {"mode": 0o100644, "zz": 1}}, {"a": {"mode": True}}, {"a/../b": {"mode": 33188}},
        {"a//b": {"mode": 33188}},
        {"a": {"mode": 33188, "encoding": "base64", "data": "%"}}, {"a": {"mode": 33188, "encoding": "utf-8"}},
        {"a": {"mode": 33188, "encoding": "blobvec", "data": [[0, 5, "sha1-00"]]}}, {"a": {"mode": 0o010644}},
        {"a": {"mode": 33188, "size": 3, "encoding": "blobvec", "data": [[0, 5, "blake2b-" + "0" * 40]]}},
        {"a": {"mode": 41471}}, {"a": {"mode": 41471, "data": "x", "size": 1}}, {"a": {"mode": 33188, "path": "a"}},
    ],
)  # fmt: skip
def test_files_that_are_none_are_refused(value: Any) -> None:
    jobspec = spec()
    jobspec["attributes"]["system"]["files"] = value
    with pytest.raises(Rejected, match="files"):
        parse_jobspec(jobspec)


def test_files_go_and_come_back(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"\xff\x00")
    large.write_bytes(os.urandom(file_archive.PART + 5))
    small.chmod(0o750)
    blobs: dict[str, bytes] = {}
    made = files_of([str(small), f"sub/l:400={large}", "text=one\ntwo\n"], blobs)
    assert sorted(map(len, blobs.values())) == [5, file_archive.PART]
    jobspec = spec()
    jobspec["attributes"]["system"]["files"] = made
    parsed = parse_jobspec(json.loads(json.dumps(jobspec)))
    rows = staging.rows_of(file_archive.read_archive(parsed["attributes"]["system"]["files"]))
    asked: list[str] = []

    def fetch(names: list[str]) -> list[bytes | None]:
        asked.extend(names)
        return [blobs.get(name) for name in names]

    folder = staging.BlobFolder(str(tmp_path / "spool"), fetch)
    assert folder.provide(rows, 1000.0) == ""
    again = staging.rows_of(file_archive.read_archive(made))
    assert folder.provide(again, 1001.0) == ""
    assert sorted(asked) == sorted(blobs)  # once each
    target = tmp_path / "job"
    staging.lay_down(rows, str(target))
    assert (target / "small").read_bytes() == b"\xff\x00"
    assert stat.S_IMODE((target / "small").stat().st_mode) == 0o750
    assert (target / "sub/l").read_bytes() == large.read_bytes()
    assert stat.S_IMODE((target / "sub/l").stat().st_mode) == 0o400
    assert (target / "text").read_text() == "one\ntwo\n"
    assert Scratch().take(str(target), exact=True) == str(target)  # a job's directory is empty, whatever was there
    assert os.listdir(target) == []
    staging.lay_down(rows, str(target))
    with pytest.raises(staging.SpawnError, match="small: File exists"):
        staging.lay_down(rows, str(target))
    blobs.clear()
    lost = [["x", "file", 0o600, 0, b"", [[0, 3, blob_name(b"abc")]], 3]]
    assert "is not in the store" in folder.provide(lost, 1000.0)


def test_blobs_on_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "KEEP_BYTES", 10)
    data = {blob_name(text): text for text in (b"aaaaaaaa", b"bbbbbbbb", b"cccccccc")}
    folder = staging.BlobFolder(str(tmp_path), lambda names: [data[name] for name in names])
    for now, name in zip((0.0, 1.0, 1000.0), data, strict=True):
        assert folder.provide([["x", "file", 0o600, 0, b"", [[0, 8, name]], 8]], now) == ""
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == [list(data)[2]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/no/such/file", "No such file"), ("a\nb", "needs a name"), ("script=a\nb", "reserved"), ("../x=a\nb", "relative"),
        ("a:9=b\n", "octal"), ("/", "a path is required"), ("d=/", "Is a directory"),
    ],
)  # fmt: skip
def test_add_file_refuses(text: str, why: str) -> None:
    with pytest.raises(click.BadParameter, match=why):
        files_of([text], None)


# -- inputs and copies


def rows(*words: str, sep: str | None = "\n") -> list[tuple[str, ...]]:
    return list(combined(split_lists(words, sep)))


def test_input_lists(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("x y\n\nz\n")
    assert split_lists(["echo", "{}", ":::", "1"], None).command == ["echo", "{}"]
    assert split_lists([":::", "1"], None).command == ["{}"]
    assert rows("a", ":::", "1", "2", ":::", "3", "4") == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]
    assert rows("a", ":::", "1", "2", "3", ":::+", "x", "y") == [("1", "x"), ("2", "y"), ("3", "x")]
    assert rows("a", ":::", "1", ":::+", "x", ":::", "5", "6") == [("1", "x", "5"), ("1", "x", "6")]
    assert rows("a", "::::", str(path)) == [("x y",), ("z",)]
    assert rows("a", "::::", str(path), sep=None) == [("x",), ("y",), ("z",)]
    assert rows("a", ":::", "1", "2", "::::+", str(path)) == [("1", "x y"), ("2", "z")]
    assert (separator("\\t"), separator("none"), separator("::")) == ("\t", None, "::")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([":::"], "no input follows"), ([":::+", "a"], "another one"), (["::::", "a", "b"], "one file"),
        (["::::", "/no/such"], "No such file"), ([":::::", "a"], "separates nothing"), ([":::", "a\0b"], "NUL"),
        ([":::", "a\udcff"], "UTF-8"), ([":::", "x" * (1 << 18)], "too many"),
    ],
)  # fmt: skip
def test_input_lists_that_make_no_sense(words: list[str], why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        rows("echo", *words)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", "/d/a.b.c"), ("{0} {1}", "/d/a.b.c two"), ("{} {}", "/d/a.b.c two"), ("{.%}", "/d/a.b"), ("{0./}", "a.b.c"),
        ("{0.//}", "/d"), ("{./%}", "a.b"), ("{seq}-{seq1:03d}", "4-005"), ("{1.twice}", "twotwo"), ("{{id}} {cc}", "{{id}} {cc}"),
        ("{print $1}", "{print $1}"), ("{", "{"), ("a}b", "a}b"), ("${0}", "$/d/a.b.c"),
    ],
)  # fmt: skip
def test_forms_of_inputs(text: str, found: str) -> None:
    filler = Filler(["twice=x+x"])
    filler.set(("/d/a.b.c", "two"), 4)
    assert filler(text) == found


@pytest.mark.parametrize("text", ["{2}", "{foo}", "{.foo}", "{0:d}", "{.bad}"])
def test_forms_that_make_no_sense(text: str) -> None:
    filler = Filler(["bad=int(x)"])
    filler.set(("a", "b"), 0)
    with pytest.raises(click.UsageError) as caught:
        filler(text)
    assert text in caught.value.message or "bad of 'a'" in caught.value.message


@pytest.mark.parametrize("define", ["a", "=x", "1a=x", "a=x+"])
def test_definitions_that_make_no_sense(define: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        Filler([define])
    assert "--define" in caught.value.format_message()


def test_copies_are_what_each_would_be_alone() -> None:
    """A stencil gives what building each jobspec anew would give; inputs are not filled twice."""
    values = {
        "ntasks": "{1}", "job_name": "n-{0}", "output": "o.{0./}.{{taskid}}", "setattr": ("user.x={0}",), "cwd": "/",
        "urgency": "16", "env": (), "requires": (),
    }  # fmt: skip
    filler = Filler()
    stencil = Stencil(values, ["echo", "{0}", "{seq}", "{{id}}"], {"A": "{0}", "FLUX_JOB_CC": "{cc}"}, filler.varies)
    found = []
    for seq, row in enumerate([("a/b", "1"), ("{seq}", "2"), ("c", "1")]):
        filler.set(row, seq)
        found.append(stencil.cut(lambda text: fill(filler(text), "9")))
    assert [one["tasks"][0]["command"] for one in found] == [
        ["echo", "a/b", "0", "{{id}}"], ["echo", "{seq}", "1", "{{id}}"], ["echo", "c", "2", "{{id}}"]
    ]  # fmt: skip
    assert [one["resources"][0]["count"] for one in found] == [1, 2, 1]
    assert [one["attributes"]["user"]["x"] for one in found] == ["a/b", "{seq}", "c"]
    system = [one["attributes"]["system"] for one in found]
    assert [one["job"]["name"] for one in system] == ["n-a/b", "n-{seq}", "n-c"]
    assert [one["environment"] for one in system] == [{"A": name, "FLUX_JOB_CC": "9"} for name in ("a/b", "{seq}", "c")]
    assert [one["shell"]["options"]["output"]["stdout"]["path"] for one in system] == [
        "o.b.{{taskid}}", "o.{seq}.{{taskid}}", "o.c.{{taskid}}"
    ]  # fmt: skip
    for one in found:
        parse_jobspec(one)
