"""A running job that waits for more nodes stands in line: what is foretold of it and of those behind it, and what is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from resize_rig import Site, instance
from worker_rig import jobspec

from fluxkv.instances.outlook import Outlook
from fluxkv.journal.ids import f58
from fluxkv.journal.job import RUN
from fluxkv.tools import reserved
from fluxkv.tools.explainstory import explain_story
from fluxkv.tools.foresight import foresee
from fluxkv.tools.inspect_cmd import job_story
from fluxkv.tools.jobview import View, info


def limited(spec: dict[str, Any], seconds: float) -> dict[str, Any]:
    spec["attributes"]["system"]["duration"] = seconds
    return spec


def view_of(site: Site) -> View:
    return View(site.journal.at(), site.now, site.journal)


def page(site: Site, id: int) -> tuple[dict[str, Any], str]:
    view = view_of(site)
    job = view.state.jobs[id]
    document, page = explain_story(job, view, job_story(site.journal, job))
    json.dumps(document)
    text = page.text()
    assert all(len(line) <= 80 for line in text.splitlines())
    return document, text


class Waits:
    """Three nodes: an instance on two that wants a third, who holds that for ten minutes, and who comes behind."""

    def __init__(self, limit: float = 3600.0, policy: str = "fcfs") -> None:
        self.site = site = Site(3, config={"policy": {"scheduler": {"queue-policy": policy}}})
        self.id = site.submit(limited(instance(2), limit))
        self.other = site.submit(limited(jobspec(cores=2, nodes=1), 600.0))
        site.started(self.id, self.other)
        site.ask(self.id, "+1N")
        self.behind = site.submit(limited(jobspec(cores=2, nodes=1), 60.0))
        site.turn(seconds=1.0)

    def foretold(self) -> dict[int, float]:
        outlook = Outlook(self.site.journal.at(), self.site.now)
        jobs = outlook.state.jobs
        return {id: start.time for id in (self.id, self.behind) if (start := outlook.start(jobs[id])) is not None}


def test_what_is_foretold_of_it_and_of_who_comes_behind_happens() -> None:
    """It holds the node that comes until its own end: that is what the next one waits for."""
    waits = Waits()
    site = waits.site
    ends = {id: site.job(id).expiration for id in (waits.id, waits.other)}
    assert waits.foretold() == {waits.id: ends[waits.other], waits.behind: ends[waits.id]}
    site.turn(seconds=ends[waits.other] - site.now)
    site.over(waits.other)
    site.turn()
    assert site.job(waits.id).ranks == [0, 1, 2]
    assert site.job(waits.behind).state != RUN
    assert waits.foretold() == {waits.behind: ends[waits.id]}
    site.sound()


def test_who_ends_before_it_gets_them_is_told_so_and_holds_up_nobody() -> None:
    waits = Waits(300.0)
    site = waits.site
    end = site.job(waits.id).expiration
    assert waits.foretold() == {waits.behind: end}
    outlook = Outlook(site.journal.at(), site.now)
    assert outlook.why_none(outlook.state.jobs[waits.id]) == "it ends before, at its time limit"
    assert "no estimate: it ends before, at its time limit" in " ".join(page(site, waits.id)[1].split())


def test_a_running_job_s_page_says_why_it_does_not_grow_and_when_it_does() -> None:
    waits = Waits()
    site = waits.site
    document, text = page(site, waits.id)
    told = " ".join(text.split())
    assert "waits for 1 more node: " in told
    assert f"held by {f58(waits.other)}*" in told
    assert "they come about" in told
    assert f"when {f58(waits.other)} (*) has ended" in told
    growth = document["growth"]
    assert (growth["nodes"], growth["start"]["time"], growth["start"]["ranks"]) == (1, site.job(waits.other).expiration, [2])
    assert growth["start"]["after_end_of"] == [f58(waits.other)]
    site.say(["queue-stop", "queue/default", site.now, {"reason": "maintenance"}])
    site.over(waits.other)
    site.turn()
    told = " ".join(page(site, waits.id)[1].split())
    assert "waits for 1 more node: queue default is stopped: maintenance" in told


def test_a_listing_shows_what_it_waits_for_and_what_it_is_to_give_back() -> None:
    waits = Waits()
    site = waits.site
    view = view_of(site)
    job = view.state.jobs[waits.id]
    assert info(job, view).endswith(" +1N")
    foresee(view, [job], ["info"])
    assert info(job, view).endswith(" +1N eta:9.983m")
    site.ask(waits.id, "=1N")
    view = view_of(site)
    assert info(view.state.jobs[waits.id], view).endswith(" -1N")


@pytest.mark.parametrize("policy", ["easy", "conservative"])
def test_what_a_plan_keeps_for_it_is_listed_among_reservations(policy: str) -> None:
    waits = Waits(policy=policy)
    (kept, *_) = reserved.reservations(waits.site.journal.at(), waits.site.now)
    assert (kept.job, kept.start) == (waits.id, waits.site.job(waits.other).expiration)
    assert [claim.rank for claim in kept.claims] == [2]
