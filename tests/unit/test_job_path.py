"""Job paths: what is one, and which instance of a job is meant."""

from __future__ import annotations

from typing import Any

import click
import pytest

from fluxkv.instances.child import child_number, child_space
from fluxkv.instances.job_path import JobPath, Step, is_start, parse_path
from fluxkv.journal.ids import encode, f58, parse_id
from fluxkv.journal.job import Job
from fluxkv.kvs.errors import Rejected
from fluxkv.tools.job_paths import PATH, _parted, aimed

A, B = 11_530_000_001, 11_530_000_002


@pytest.mark.parametrize("form", ["f58", "f58plain", "dec", "hex", "dothex", "words", "emoji"])
def test_every_form_of_an_id_is_a_step(form: str) -> None:
    assert parse_path(f"{encode(A, form)}/{encode(B, form)}") == JobPath((Step(A), Step(B)))
    assert parse_path(f"/{encode(A, form)}.3/{encode(B, form)}//") == JobPath((Step(A, 3), Step(B)), rooted=True)


@pytest.mark.parametrize("text", ["", " ", "x", "ƒ", "ƒA.0", "ƒA.x", "ƒA.", ".2", "ƒA/..", "ƒA.1234567", "/".join(["ƒA"] * 100)])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(Rejected):
        parse_path(text)


@pytest.mark.parametrize("text", [".", "..", "./x", "a.out", "run.sh"])
def test_what_nobody_means_as_four_groups_is_told_nothing_of_them(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_id(text)
    assert "dothex" not in str(caught.value)
    with pytest.raises(Rejected, match="dothex has four groups"):
        parse_id("1.2.3")


def test_paths_are_joined() -> None:
    assert str(parse_path("ƒA/ƒB.2") / parse_path("ƒC")) == "ƒA/ƒB.2/ƒC"
    assert str(parse_path("ƒA") / parse_path("/ƒC")) == "/ƒC"
    assert str(parse_path("/")) == "/"


@pytest.mark.parametrize(
    ("memo", "number"),
    [("#/ƒX/{id}", 1), ("#/ƒX/{id}.3", 3), ("#/{id}", 0), ("#/ƒX/{id}/ƒY", 0), ("#/ƒX/{id}.3.4", 0), (7, 0), (None, 0), ("", 0)],
)
def test_only_a_job_s_own_word_counts(memo: Any, number: int) -> None:
    """Anybody may write memos."""
    job = Job(A)
    job.memo = {"uri": memo if not isinstance(memo, str) else "unix:/tmp/kv.sock" + memo.format(id=f58(A))}
    assert child_number(job, "/ƒX") == number


@pytest.mark.parametrize(
    ("memo", "space"),
    [("#/ƒX/ƒY", "/ƒX/ƒY"), ("#/ƒX/ƒY.2", "/ƒX/ƒY.2"), ("#/ƒX/{id}.3", "/ƒX/{id}.3"), ("#/ƒX/sims", ""), ("#/ƒX", ""),
     ("#/ƒZ/ƒY", ""), ("#/ƒX/ƒY.x", ""), ("#/ƒX/ƒY/ƒZ", ""), ("", ""), (None, "")],
)  # fmt: skip
def test_the_instance_that_a_job_went_on_with_is_beside_it(memo: Any, space: str) -> None:
    job = Job(A)
    job.memo = {"uri": memo and "unix:/tmp/kv.sock" + memo.format(id=f58(A))}
    assert child_space(job, "/ƒX") == space.format(id=f58(A))


def test_words_with_paths() -> None:
    where = JobPath((Step(A),))
    assert _parted(f"{A}/{B}", vertices=False) == (where, str(B))
    assert _parted(f"{A}/{B},7", vertices=False) == (where, f"{B},7")
    assert _parted(f"{A}/", vertices=True) == (where, "")
    assert _parted(f"/{A}", vertices=False) == (JobPath((), rooted=True), str(A))
    for word in ("/cluster0/node1", "/fat/node1"):
        assert _parted(word, vertices=True) is None
    for word in (str(A), "a/b", "ƒA/b=c"):
        assert _parted(word, vertices=False) is None


def test_notes_with_slashes_are_notes() -> None:
    command = click.Command("raise", params=[click.Argument(["ids"], nargs=-1, metavar="ID... [NOTE...]"), click.Option(["--uri"])])
    context = click.Context(command, info_name="raise", parent=click.Context(click.Group("fluxkv"), info_name="fluxkv"))
    given = {"ids": ("7", "see", "ƒA/ƒB"), "uri": None}
    assert aimed(context, given) == given
    context.meta[PATH] = parse_path("ƒA")
    with pytest.raises(Rejected, match="no instance"):
        aimed(click.Context(click.Command("list"), info_name="list", parent=context), {})


def test_which_commands_are_instances() -> None:
    assert is_start(["/usr/bin/fluxkv", "start", "x"])
    assert not is_start(["fluxkv", "run", "start"])
    assert not is_start(["fluxkv"])
