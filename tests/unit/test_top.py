"""`fluxkv top`: the model beside the fold, the layout, the live view under textual's pilot."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from fluxkv.journal import decide
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58
from fluxkv.journal.job import NEW, PENDING, RUNNING
from fluxkv.journal.log import Journal
from fluxkv.kvs.memory_store import MemoryStore, shared_server
from fluxkv.tools import topfeed, toppage
from fluxkv.tools.formats import width_of
from fluxkv.tools.main import cli
from fluxkv.tools.topmodel import SORTS, Line, Model
from fluxkv.tools.toprows import Picture, Wishes

WIDE = Wishes(limit=1000)


def story(sample_journal: ModuleType, name: str) -> Any:
    return sample_journal.sample(name)


def writer_on(sample_journal: ModuleType, sample: Any) -> Any:
    """Somebody who goes on with the story."""
    writer = sample_journal.Writer(sample.journal.store, sample.clock)
    writer.journal.catch_up(writer.state)
    writer.ids = dict(sample.ids)
    writer.seq = sum(commit.producer == "worker-1" for commit in sample.journal.commits(0))
    return writer


# -- the model ----------------------------------------------------------------------------------------------------


def test_a_line_is_what_sorting_says() -> None:
    rng = random.Random(5)
    line, plain = Line(), {}
    for round in range(60):
        some = {rng.randrange(300): (rng.randrange(40), 0) if rng.random() < 0.7 else None for _ in range(rng.choice((1, 5, 150)))}
        line.update(some)
        plain.update(some)
        plain = {id: key for id, key in plain.items() if key is not None}
        ordered = [id for _, id in sorted((key, id) for id, key in plain.items())]
        assert line.part(0, len(line)) == ordered, round
        assert line.part(2, 7, reverse=True) == ordered[::-1][2:7]
        assert all(line.find(id) == place for place, id in enumerate(ordered))
    assert line.find(1000) == -1


def test_following_leads_to_what_reading_anew_shows(sample_journal: ModuleType) -> None:
    """Commit by commit, under every order: the model beside the fold never differs from one that is made anew."""
    sample = story(sample_journal, "top-follow")
    journal = sample.journal
    model = Model(journal.at(1))
    checked = 0
    for number, commit in enumerate(journal.commits(1)):
        model.apply(commit)
        wishes = WIDE._replace(sort=list(SORTS)[number % len(SORTS)], reverse=number % 5 == 0, page=("jobs", "nodes")[number % 2])
        if number % 3:
            continue  # several commits between two pictures
        now = commit.time + 1
        followed, anew = model.picture(wishes, now), Model(journal.at(commit.version)).picture(wishes, now)
        assert followed._replace(rates=(0.0, 0.0)) == anew._replace(rates=(0.0, 0.0))
        state = model.state
        assert followed.running == state.count(RUNNING)
        assert followed.pending == state.count(PENDING | NEW)
        assert followed.cores[0] == sum(node.used_cores.bit_count() for node in state.nodes.values())
        checked += 1
    assert checked > 20


def test_what_is_shown_of_jobs_nodes_and_queues(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-shown")
    picture = Model(sample.state).picture(WIDE, sample.clock.now)
    ids = sample.ids
    assert [row.id for row in picture.rows] == [ids[letter] for letter in "kjlmno"]
    by_id = {row.id: row for row in picture.rows}
    assert by_id[ids["j"]].left is not None
    assert by_id[ids["l"]].info == "needs 3 nodes; 2 are up"
    assert by_id[ids["m"]].info == f"behind {f58(ids['l'])}"
    assert by_id[ids["n"]].info == "held"
    assert (picture.running, picture.pending, picture.ended["completed"]) == (2, 4, 4)
    assert picture.cores == (6, 12)
    assert picture.gpus == (0, 1)
    assert picture.lost == 4
    assert picture.nodes == {"allocated": 2, "drained": 1}
    assert [(node.host, node.state, node.reason) for node in picture.bad] == [("node2", "drained", "bad fan")]
    nodes = Model(sample.state).picture(WIDE._replace(page="nodes"), sample.clock.now)
    assert [row.rank for row in nodes.rows] == [2, 0, 1], "those that may not be used stand first"
    assert [row.name for row in picture.queues] == ["default"]


def test_filters_orders_and_the_cursor(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-cursor")
    model, now = Model(sample.state), sample.clock.now
    names = [row.name for row in model.picture(WIDE._replace(sort="name"), now).rows]
    assert names == ["render", "simulate", "big", "later", "nightly", "small"]
    turned = [row.name for row in model.picture(WIDE._replace(sort="name", reverse=True), now).rows]
    assert turned == ["simulate", "render", "small", "nightly", "later", "big"]
    assert [row.name for row in model.picture(WIDE._replace(match="ig"), now).rows] == ["big", "nightly"]
    assert model.picture(WIDE._replace(queue="none"), now).total == 0
    small = Wishes(limit=2, cursor=5)
    picture = model.picture(small, now)
    assert (picture.wishes.offset, [row.name for row in picture.rows], picture.total) == (4, ["later", "nightly"], 6)
    assert picture.wishes.marked == sample.ids["o"]
    followed = model.picture(small._replace(cursor=1, marked=sample.ids["m"]), now)
    assert followed.wishes.cursor == 3, "the cursor follows its job"
    assert model.picture(small._replace(cursor=99, marked=1), now).wishes.cursor == 5


def test_throughput_is_counted_by_the_servers_time(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-rate")
    writer = writer_on(sample_journal, sample)
    model = Model(sample.journal.look())
    before = model.state.version
    sample_journal.many(writer, 30)
    for commit in sample.journal.commits(before):
        model.apply(commit)
    ended = model.state.time
    assert model.picture(WIDE, ended + 1).rates == (30 / 5, 30 / 60)
    assert model.picture(WIDE, ended + 20).rates == (0.0, 30 / 60)
    assert model.picture(WIDE, ended + 90).rates == (0.0, 0.0)
    fresh, _ = topfeed.begin(sample.journal)
    assert fresh.picture(WIDE, sample.clock.now + 1).rates[1] == pytest.approx(0.5, abs=0.1), "what ended before counts"


# -- the layout ---------------------------------------------------------------------------------------------------


def lines_of(picture: Picture | None, frame: toppage.Frame, width: int, height: int) -> list[str]:
    return ["".join(text for text, _ in line) for line in toppage.page(picture, frame, width, height)]


@pytest.mark.parametrize(("width", "height"), [(200, 60), (80, 24), (76, 14), (40, 10), (40, 4), (20, 3), (5, 2), (1, 1)])
@pytest.mark.parametrize("kind", ["jobs", "nodes", "queues"])
def test_every_window_is_filled_and_never_overfull(sample_journal: ModuleType, kind: str, width: int, height: int) -> None:
    sample = story(sample_journal, f"top-{width}-{height}-{kind}")
    picture = Model(sample.state).picture(Wishes(page=kind), sample.clock.now)
    limit = toppage.room(picture, width, height)
    picture = Model(sample.state).picture(Wishes(page=kind, limit=limit), sample.clock.now)
    for frame in (toppage.Frame("unix:/a/kv.sock"), toppage.Frame("x", 2, 12.0, typing="ab"), toppage.Frame("x", help=True)):
        lines = lines_of(picture, frame, width, height)
        assert len(lines) == height
        assert all(width_of(line) <= width for line in lines)
    if height >= 10 and width >= 40:
        whole = "\n".join(lines_of(picture, toppage.Frame("unix:/a/kv.sock"), width, height))
        assert "bad fan" in whole or "drained" in whole
        assert "q quit" in whole


def test_a_small_window_shows_what_matters(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-small")
    picture = Model(sample.state).picture(Wishes(limit=5), sample.clock.now)
    lines = lines_of(picture, toppage.Frame("unix:/very/long/path/of/a/state/directory/kv.sock/ƒAb", lost_s=7.0), 40, 10)
    assert lines[0].endswith("server away for 7s ")
    assert lines[1].startswith("R 2 PD 4 F 3 CD 4")
    assert f58(sample.ids["k"]) in lines[4]


def test_bars_make_room_for_counts(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-counts")
    picture = Model(sample.state).picture(Wishes(limit=5), sample.clock.now)
    many = picture._replace(ended={**picture.ended, "completed": 1_234_567, "timeout": 12, "canceled": 8_888})
    lines = lines_of(many, toppage.Frame("x"), 80, 24)
    (counts,) = [line for line in lines if "1234567 done" in line]
    assert counts.endswith(" 8888 canceled")
    assert "[" in counts
    assert lines_of(picture, toppage.Frame("x"), 160, 24)[1].index("running") > 80


def test_names_of_jobs_command_no_terminal(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-hostile")
    sample.state.jobs[sample.ids["j"]].name = "\x1b[2Jé界界界界界界界界界"
    picture = Model(sample.state).picture(WIDE, sample.clock.now)
    lines = lines_of(picture, toppage.Frame("x"), 80, 24)
    assert "\x1b" not in "".join(lines)
    assert all(width_of(line) <= 80 for line in lines)


# -- the command --------------------------------------------------------------------------------------------------


def test_one_picture_off_a_terminal(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-once")
    text = CliRunner().invoke(cli, ["top", "--uri", sample.uri, "-c", "3"]).output
    assert "! node2 (rank 2) drained: bad fan" in text
    assert "... and 3 more" in text
    document = json.loads(CliRunner().invoke(cli, ["top", "--uri", sample.uri, "--json"]).output)
    assert document["jobs"] == {"pending": 4, "running": 2, "completed": 4, "failed": 2, "canceled": 2, "timeout": 1}
    assert document["cores"] == {"used": 6, "total": 12, "unusable": 4}
    assert [job["id"] for job in document["listed"]] == [f58(sample.ids[letter]) for letter in "kjlmno"]
    wrong = CliRunner().invoke(cli, ["top", "--uri", sample.uri, "-q", "none"])
    assert str(wrong.exception) == "queue none is not defined"
    none = CliRunner().invoke(cli, ["top", "--uri", sample.uri, f58(sample.ids["j"])])
    assert "is no instance" in str(none.exception)


# -- the live view ------------------------------------------------------------------------------------------------


def piloted(uri: str, act: Callable[[Any, Any], Awaitable[None]], size: tuple[int, int] = (100, 24)) -> None:
    """Run the application on an instance, and `act(app, pilot)` in it."""
    pytest.importorskip("textual", reason="the live view's package is not installed: pip install 'fluxkv[top]'")
    from fluxkv.tools.topview import Start, Top

    async def run() -> None:
        app = Top(Start(uri, opener(uri), Wishes(), 0.1))
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.level.sight.picture is not None)
            await act(app, pilot)

    asyncio.run(run())


def opener(uri: str) -> Callable[[], Journal]:
    name, _, namespace = uri.removeprefix("memory:").partition("/")
    return lambda: Journal(MemoryStore(shared_server(name), "/" + namespace), "top")


async def until(pilot: Any, true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        await pilot.pause(0.02)
    raise AssertionError(f"it did not come to that:\n{screen(pilot.app)}")


def screen(app: Any) -> str:
    return "\n".join("".join(text for text, _ in line) for line in app.window.shown)


def test_keys_choose_what_is_shown(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-keys")

    async def act(app: Any, pilot: Any) -> None:
        await until(pilot, lambda: "simulate" in screen(app))
        await pilot.press("down", "down", "down")
        await until(pilot, lambda: app.level.sight.picture.wishes.marked == sample.ids["m"])
        await pilot.press("tab")
        await until(pilot, lambda: "bad fan" in screen(app) and "RANK" in screen(app))
        await pilot.press("3")
        await until(pilot, lambda: "PENDING" in screen(app))
        await pilot.press("slash", "b", "i", "x", "backspace", "g", "enter")
        await until(pilot, lambda: "/big" in screen(app) and "simulate" not in screen(app))
        await pilot.press("escape", "s", "s", "r")
        await until(pilot, lambda: "by time reversed" in screen(app) and "simulate" in screen(app))
        await pilot.press("enter")
        assert "no job that runs as an instance" in screen(app)
        await pilot.press("question_mark")
        assert "around it" in screen(app)
        await pilot.resize_terminal(40, 10)
        await pilot.press("j")
        await until(pilot, lambda: len(app.window.shown) == 10 and "R 2 PD 4" in screen(app))
        await pilot.press("q")

    piloted(sample.uri, act)


def test_it_follows_the_journal(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-live")

    async def act(app: Any, pilot: Any) -> None:
        writer = writer_on(sample_journal, sample)
        late = writer.submit("z", sample_journal.jobspec(["late"], name="latecomer"))
        await until(pilot, lambda: "latecomer" in screen(app))
        writer.schedule(late)
        writer.cli(decide.raise_exception(writer.state, late, "cancel", 0, "", writer.userid, writer.now + 1))
        writer.worker(["clean", late, writer.now + 1, None])
        await until(pilot, lambda: "latecomer" not in screen(app) and "3 canceled" in screen(app))

    piloted(sample.uri, act)


def test_into_a_child_and_back_and_a_server_that_goes_away(sample_journal: ModuleType) -> None:
    sample = story(sample_journal, "top-child")
    writer = writer_on(sample_journal, sample)
    parent = sample.ids["k"]
    inside = MemoryStore(shared_server("top-child"), f"/{f58(parent)}")
    inside.create(durability="strict", origin_ms=int(sample_journal.T0 * 1000), created=sample_journal.T0)
    child = sample_journal.Writer(inside, sample.clock)
    born = {"uid": inside.meta().uid, "owner": 0, "namespace": "/x", "schema": 1}
    child.cli(Decision([["instance-create", "instance", child.now, born]]))
    child.submit("a", sample_journal.jobspec(["true"], name="innermost"))
    writer.cli(Decision([["memo", parent, writer.now, {"uri": f"memory:top-child#/{f58(parent)}"}]], bumps=[f"job/{parent}"]))
    server = shared_server("top-child")

    async def act(app: Any, pilot: Any) -> None:
        await until(pilot, lambda: f"> {f58(parent)}" in screen(app))
        await pilot.press("enter")
        await until(pilot, lambda: "innermost" in screen(app) and f"/{f58(parent)}" in screen(app))
        await pilot.press("escape")
        await until(pilot, lambda: "simulate" in screen(app))
        server.down = True
        await until(pilot, lambda: "server away" in screen(app) and "simulate" in screen(app))
        server.down = False
        await until(pilot, lambda: "server away" not in screen(app))
        writer.submit("z", sample_journal.jobspec(["late"], name="latecomer"))
        await until(pilot, lambda: "latecomer" in screen(app))

    piloted(sample.uri, act)
