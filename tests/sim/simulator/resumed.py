"""Jobs that go on with the instance that another job was (`--resume`), in a simulated world: who asks, and what the child does.

What is known of the journal from before is handed on; whether it may be taken up is for production code (`resume.py`) to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobspecs import jobspec

from fluxkv.instances import boot, child
from fluxkv.instances import resume as going_on
from fluxkv.journal import decide
from fluxkv.journal.ids import f58
from fluxkv.kvs.errors import Conflict, Rejected, Unavailable
from fluxkv.kvs.port import Store
from fluxkv.kvs.uri import parse_uri

if TYPE_CHECKING:
    from .clients import Clients
    from .process import Process
    from .realm import Child, Realm

AGAIN_S = 0.3


def resume(clients: Clients) -> None:
    """A job that goes on with the instance that another one was; now and then that one is not over."""
    realm, rng = clients.world, clients.rng
    found = [one for one in realm.children if one.ready and (one.over or rng.random() < 0.1)]
    if realm.over or not found:
        return
    id, one = clients._new_id(), rng.choice(found[-4:])
    nodes = len(realm.hardware())
    spec = jobspec(rng.choice((1, 1, 2)), rng.choice((0, 1, min(2, nodes))), 1)
    clients._may_be_tried_again(id, spec, 0.5)
    clients._is_an_instance(id)
    realm.going_on[id] = one
    clients.say(lambda state: decide.submit([(id, spec)], "", 20, 1, 0, realm.now), (id,))


def before_of(parent: Realm, place: child.Place) -> Child | None:
    """The child that this attempt of a job goes on with: another job's, or an earlier attempt's that ended with its parent."""
    if place.job in parent.going_on or place.number == 1 or not parent.root.site.resumes:
        return parent.going_on.get(place.job)
    try:
        space = going_on.space_before(parent.new_store(), place.job, place.number)
    except (Unavailable, Rejected):
        return None  # as if its node had come too late to be anything; what it is to be is decided once more when it is made
    return next((one for one in reversed(parent.children) if space and parse_uri(one.uri).namespace == space), None)


class GoesOn:
    """What a child does about an earlier one. before: that one, None for most."""

    before: Child | None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def _as(self, before: Child) -> None:
        """What there was before it went on with a journal is known."""
        self.diary, self.nested, self.runs = before.diary, before.nested, before.runs
        self.diary.begins, self.diary.ends = self._begins, self._ends
        entries = self.store.read(0, 1_000_000)
        there = {entry.id for entry in entries}
        self.downs, self.restarts = [*before.downs], [*before.restarts]
        self.forks = [one for one in before.forks if not (one.lost and one.lost <= there)]  # of files whose journal had come up
        self.going_on, self.children = before.going_on, before.children
        for entry in entries:
            self.root.times.setdefault(entry.id, self.root.now)  # what came when there was nobody any more

    def _born(self, process: Process) -> None:
        """Who is not to lead waits until the journal is this job's."""
        if self.ready:
            process.birth()
        else:
            self.root.after(AGAIN_S, self._born, process, owner=process)

    def _ensure(self) -> Store:
        """Its namespace, made or taken up. Raises `Unavailable` where it is not to be had; its tasks leave then."""
        try:
            return self._made()
        except Rejected as error:
            if self.before is None:
                raise
            self.root.happened[f"not gone on with: {error.code}"] += 1
            for key, (_, machine) in list(self.parts.items()):
                machine.leave(key)
            raise Unavailable(str(error)) from None

    def _made(self) -> Store:
        if not self.settings:
            options = {"on_fork": self.root.on_fork, "memory_limit": ""}
            if self.before is not None and self.before.place.job == self.place.job:
                options["goes_on"] = True
            elif self.before is not None:
                options["resume"] = f"{f58(self.before.place.job)}.{self.before.place.number}"
            if self.own:
                options["kvs"] = "own"
            settings = child.make_settings(self.place, options)
            if parse_uri(settings["uri"]) != parse_uri(self.uri):
                raise Rejected("what it was to go on with is not known any more", code="no-instance")
            self.settings = settings
            self.state_dir.write(self.settings)
        self.settings["uid"] = self.state_dir.read().get("uid", "")  # as its keeper noted it, which may have made it anew
        if self.own:
            self._start_server()
            self._bring_down()
        store, _ = boot.ensure_instance(self.settings, self.state_dir)
        if self.root.site.resumes:
            try:
                child.tell_parent(self.place, self.uri)
            except (Rejected, Conflict):
                pass  # its job is in another attempt by now
        return store

    def _inventories(self, ever: bool) -> Iterator[dict[str, Any]]:
        """What it began with; ever: all it has had, where its nodes change or it was another job's before."""
        yield self.settings["R"]
        for commit in self.journal.commits() if ever and (self.before is not None or self.root.site.follows) else ():
            yield from (context["R"] for name, _, _, context in commit.events if name == "resource-define")
