"""A planned fail-over whose sentinel goes on the way: who may be replaced is not let go. (With real ones: `contract/`.)"""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.failover import FailOver, Survey
from fluxkv.kvs.resp import ReplyError

OLD, NEW = ("old", 1), ("new", 2)
REPLICATION = b"role:master\r\nconnected_slaves:1\r\nmaster_repl_offset:7\r\nslave0:ip=new,port=2,state=online,offset=7,lag=0\r\n"


class Site(FailOver):
    """Two servers and a sentinel, which answers `answers` one after the other; after `looks` looks it names the other server."""

    def __init__(self, answers: list[Any], looks: int = 2) -> None:
        self.said: list[str] = []
        super().__init__("redis+sentinel://s:1/x#/a", timeout_s=0.2, coordinated=False, say=self.said.append)
        self.answers, self.looks, self.sent = answers, looks, list[tuple[Any, ...]]()

    def _sentinel(self) -> Any:
        return Link(self, "sentinel")

    def _at(self, place: tuple[str, int]) -> Any:
        return Link(self, place[0])

    def _named(self) -> tuple[str, int]:
        self.looks -= 1
        return OLD if self.looks >= 0 else NEW

    def asked(self, *words: str) -> bool:
        return any(one[1 : 1 + len(words)] == words for one in self.sent)


class Link:
    def __init__(self, site: Site, where: str) -> None:
        self.site, self.where = site, where

    def call(self, *words: Any) -> Any:
        site = self.site
        site.sent.append((self.where, *words))
        if words[:2] == ("SENTINEL", "FAILOVER"):
            answer = site.answers.pop(0) if len(site.answers) > 1 else site.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer
        if words[0] == "ROLE":
            return [b"slave" if self.where == "old" else b"master"]
        return {"INFO": REPLICATION, "HGET": b"5-1", "XRANGE": [b"5-1"]}.get(words[0], b"OK")

    def close(self) -> None:
        pass


FOUND = Survey(OLD, (NEW,), "5-1", False, ())
LOST = Unavailable("the connection is lost", code="disconnected")
UNDER_WAY = ReplyError("INPROG Failover already in progress")


@pytest.mark.parametrize("answer", [b"OK", LOST, UNDER_WAY], ids=["OK", "lost", "INPROG"])
def test_whose_answer_is_lost_may_have_begun(answer: Any) -> None:
    site = Site([ReplyError("NOGOODSLAVE No suitable replica to promote"), answer])
    assert site.run(FOUND) == NEW
    sent = [one[1:3] for one in site.sent if one[0] == "old"]
    assert sent.index(("REPLICAOF", "new")) < sent.index(("CLIENT", "UNPAUSE"))


def test_one_that_has_done_its_work_and_is_not_over_is_waited_for() -> None:
    """That which made the server the primary that is to go now: no other comes of it."""
    site = Site([UNDER_WAY, UNDER_WAY, b"OK"], looks=3)
    assert site.run(FOUND) == NEW
    assert sum(one[1:3] == ("SENTINEL", "FAILOVER") for one in site.sent) == 3


def test_somebody_else_s_is_not_followed_by_ours() -> None:
    site = Site([UNDER_WAY, b"OK"], looks=1)
    assert site.run(FOUND) == NEW
    assert sum(one[1:3] == ("SENTINEL", "FAILOVER") for one in site.sent) == 1


@pytest.mark.parametrize(("answer", "why"), [(LOST, "have not named another primary"), (UNDER_WAY, "do not begin a fail-over")])
def test_one_that_may_be_replaced_at_any_time_stays_paused(answer: Exception, why: str) -> None:
    site = Site([answer], looks=1_000_000)
    with pytest.raises(Unavailable, match=why):
        site.run(FOUND)
    assert not site.asked("CLIENT", "UNPAUSE")
    assert "it must acknowledge nothing now" in site.said[-1]


def test_one_that_nobody_replaces_goes_on() -> None:
    site = Site([ReplyError("NOGOODSLAVE No suitable replica to promote")], looks=1_000_000)
    with pytest.raises(Unavailable, match="do not begin a fail-over"):
        site.run(FOUND)
    assert site.asked("CLIENT", "UNPAUSE")
    assert not site.asked("REPLICAOF")
