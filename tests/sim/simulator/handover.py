"""Hand-over between an instance and those inside its jobs, at every version of every journal of the tree.

I3: what a child has lies in what its job holds in its parent's journal, and what the child's jobs hold lies in what it has. I4:
nobody beside it has any of that. A child whose job has given its resources back is no more, on any node. Each is looked at when a
commit has come to the server, so versions that a fail-over takes back later are looked at, too; and when a task begins anywhere.
Read off entries and diaries: nothing here imports the fold. What somebody wrote by hand keeps no rules, and is not held to these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fluxkv.journal.claims import from_wire
from fluxkv.journal.idset import ids_of_mask, parse
from fluxkv.journal.resource_graph import CONTAINMENT
from fluxkv.journal.resource_graph import from_wire as graph_from_wire
from fluxkv.journal.rset import parse_R
from fluxkv.journal.wire import Commit, read_commit

from .truth import Broken, split_key

if TYPE_CHECKING:
    from .realm import Child, Realm

IN_NODE = ("node", "core", "gpu", "memory")  # what claims say in other words than draws


class Goods(NamedTuple):
    """Something to have. cores: host -> mask. pools: path of a vertex beside cores -> (units, ids as a mask)."""

    cores: dict[str, int]
    pools: dict[str, tuple[int, int]]

    def beyond(self, other: Goods) -> str:
        """What of this is not in the other, in words; "" if all is."""
        for host, mask in self.cores.items():
            if more := mask & ~other.cores.get(host, 0):
                return f"cores {list(ids_of_mask(more))} of {host}"
        for path, (units, ids) in self.pools.items():
            there, those = other.pools.get(path, (0, 0))
            if units > there or ids & ~those:
                return f"{units} of {path} (ids {list(ids_of_mask(ids))}), where there are {there} (ids {list(ids_of_mask(those))})"
        return ""

    def shared(self, other: Goods) -> str:
        """What both have that one alone can have, in words."""
        for host, mask in self.cores.items():
            if both := mask & other.cores.get(host, 0):
                return f"cores {list(ids_of_mask(both))} of {host}"
        for path, (_, ids) in self.pools.items():
            if both := ids & other.pools.get(path, (0, 0))[1]:
                return f"{list(ids_of_mask(both))} of {path}"
        return ""


NOTHING = Goods({}, {})


class Held(NamedTuple):
    """What a job holds. entry: id of what began the attempt that does. since: version of the commit that gave it."""

    entry: str
    goods: Goods
    since: int


def goods_of_R(document: dict[str, Any]) -> tuple[dict[int, str], Goods, set[str]]:
    """(rank -> host, what there is, paths of what is only around it) of an inventory: in a graph, of what has nothing below it."""
    inventory = parse_R(document)
    pools: dict[str, tuple[int, int]] = {}
    around: set[str] = set()
    if inventory.tree is not None:
        graph = graph_from_wire(inventory.tree)
        columns = graph.columns
        above = set(columns.edges.get(CONTAINMENT, ((), ()))[0])
        for path, place in graph.places.items():
            if place.at in above:
                around.add(path)
            elif columns.type(place.at) not in IN_NODE:
                pools[path] = place.size, place.ids
    hosts = {node.rank: node.host for node in inventory.nodes}
    return hosts, Goods({node.host: node.cores for node in inventory.nodes}, pools), around


class Book:
    """An instance's journal, read as far as it says who holds what. has: its inventory. held: by job. begun: all attempts, (job,
    entry). taken: by job, hosts that it had and gave back while it went on. lost: whether there was another branch. kept: up to
    which version they are the same. left: by job that is over, the hosts that it had in the end."""

    def __init__(self, lost: bool = False) -> None:
        self.lost = lost
        self.kept = 0
        self.tip, self.version = "0-0", 0
        self.hosts: dict[int, str] = {}
        self.around: set[str] = set()
        self.has = NOTHING
        self.held: dict[int, Held] = {}
        self.wires: dict[int, list[Any]] = {}  # what they hold, as journalled
        self.ahead: dict[int, str] = {}  # job placed ahead -> id of the entry that did
        self.begun: set[tuple[int, str]] = set()
        self.taken: dict[int, set[str]] = {}
        self.left: dict[int, set[str]] = {}

    def take(self, commit: Commit) -> tuple[list[int], bool]:
        """(jobs that have got something, whether anything is another's than before)."""
        got: list[int] = []
        moved = False
        for name, subject, _, context in commit.events:
            if name == "resource-define":
                self.hosts, self.has, self.around = goods_of_R(context["R"])
                got, moved = list(self.held), True
            elif name == "grant" and "attempt" not in context:
                self.ahead[subject] = context.get("adopted") or commit.id
                self.begun.add((subject, self.ahead[subject]))
            elif name == "alloc":
                entry = context.get("adopted") or (self.ahead.get(subject, "") if "attempt" in context else commit.id)
                self.begun.add((subject, entry))
                self.wires[subject] = list(context["claims"])
                self.taken.pop(subject, None)
                self.held[subject] = Held(entry, self.goods(context["claims"]), commit.version)
                got.append(subject)
                moved = True
            elif name == "grow" or (name == "free" and (context or {}).get("ranks")):
                moved = self._resized(name, subject, context, got) or moved
            elif name in ("free", "clean"):
                self.ahead.pop(subject, None)
                if (held := self.held.pop(subject, None)) is not None:
                    moved, self.left[subject] = True, set(held.goods.cores)
        self.tip, self.version = commit.id, commit.version
        return [job for job in got if job in self.held], moved

    def _resized(self, name: str, job: int, context: dict[str, Any], got: list[int]) -> bool:
        """A job that runs has more nodes, or fewer."""
        held = self.held.get(job)
        if held is None:
            return False
        if name == "grow":
            self.wires[job] = [*self.wires[job], *context["claims"]]
            got.append(job)
        else:
            gone = set(parse(context["ranks"]))
            self.taken.setdefault(job, set()).update(self.hosts.get(rank, "") for rank in gone)
            self.wires[job] = [row for row in self.wires[job] if row[0] not in gone]
        self.held[job] = held._replace(goods=self.goods(self.wires[job]))
        return True

    def goods(self, wire: Sequence[Sequence[Any]]) -> Goods:
        """What claims are of."""
        claims = from_wire(wire)
        pools = {draw.vertex: (draw.units, draw.ids) for claim in claims for draw in claim.draws if draw.vertex not in self.around}
        cores: dict[str, int] = {}
        for claim in claims:
            host = self.hosts.get(claim.rank, f"rank {claim.rank}")
            cores[host] = cores.get(host, 0) | claim.cores
        return Goods(cores, pools)


# -- at every commit ----------------------------------------------------------------------------------------------


def look(changed: Sequence[Realm]) -> None:
    """Something has come to these instances' journals, or is there no more. After a fail-over all are read anew before any is held
    against another: what a child lost with its parent's word is no promise of it."""
    read = [(realm, realm.store.read(max(0, realm.book.version - 1), 1_000_000)) for realm in changed]
    cut = [realm for realm, entries in read if realm.book.version and (not entries or entries[0].id != realm.book.tip)]
    for realm in cut:
        realm.book = book = Book(lost=True)
        for entry in realm.store.read(0, 1_000_000):
            book.take(read_commit(entry))
        book.kept = book.version
    for realm in cut:
        weigh(realm, list(realm.book.held))
    for realm, entries in read:
        if realm in cut:
            continue
        for entry in entries[1:] if realm.book.version else entries:
            got, moved = realm.book.take(read_commit(entry))
            if moved:
                weigh(realm, got)


def weigh(realm: Realm, got: Iterable[int]) -> None:
    """An instance, its parent and its children, as their journals are now. got: its jobs that have something new."""
    if realm.poisoned:
        return
    for job in got if realm.depth else ():
        if more := realm.book.held[job].goods.beyond(realm.book.has):
            raise Broken(f"job {job} of {realm.namespace} holds {more}, which its instance has not", job)
    if realm.depth:
        inside(realm)
    living = [one for one in realm.children if one.ready and not one.over and one.book.version]
    for one in living:
        inside(one)
    if living:
        apart(realm, living)


def inside(one: Child) -> None:
    """I3: what a child has is what its job holds."""
    happened, parent, place = one.root.happened, one.parent, one.place
    held = parent.book.held.get(place.job)
    if parent.poisoned or not one.ready or not one.book.version:
        return
    if held is not None and held.entry == place.entry:
        happened["versions at which a child was held against its job"] += 1
        if more := standing(one).beyond(held.goods):
            raise Broken(f"{one.namespace} has {more}, which its job has not", place.job)
    elif one.over:
        happened["words of a child that is over"] += 1  # a request that was long on its way; nobody is left to act on it
    elif is_lost(one):
        happened["versions of a child whose job's attempt was lost"] += 1  # until its node is told to end it
    elif parent.book.lost and not living_at(one) & parent.book.left.get(place.job, set()):
        happened["versions of a child on nodes that a lost branch gave it"] += 1  # which are nobody's until it is ended there
    else:
        raise Broken(f"{one.namespace} lives, and attempt {place.entry} of its job has given back what it had", place.job)


def apart(parent: Realm, living: list[Child]) -> None:
    """I4: what living children have, nobody beside them has."""
    happened, book = parent.root.happened, parent.book
    others = {job: held for job, held in book.held.items() if not any(_is_of(one, job, held) for one in living)}
    lost = [one for one in living if is_lost(one)]
    for at, one in enumerate(living):
        mine = alive(one)
        for other in living[at + 1 :]:
            happened["versions at which siblings were held against each other"] += 1
            if both := mine.shared(alive(other)):
                raise Broken(f"{one.namespace} and {other.namespace} both have {both}", one.place.job)
        for job, held in others.items():
            if one in lost and held.since <= book.kept:
                continue  # it had that before, and its giving it back is lost, too
            if both := mine.shared(held.goods):
                raise Broken(f"{one.namespace} has {both}, which job {job} holds", job)
    for since, some in ((0, [one for one in living if one not in lost]), (book.kept, lost)):
        sold: dict[str, int] = {}
        for goods in [*(one.book.has for one in some), *(held.goods for held in others.values() if held.since > since)]:
            for path, (units, _) in goods.pools.items():
                sold[path] = sold.get(path, 0) + units
        for path, units in sold.items():
            if some and units > book.has.pools.get(path, (units, 0))[0]:
                raise Broken(f"of {path} {units} are sold in {parent.namespace}, which has {book.has.pools[path][0]}")


def is_lost(one: Child) -> bool:
    """Whether its parent's history has lost what began its job's attempt."""
    book = one.parent.book
    return book.lost and (one.place.job, one.place.entry) not in book.begun


def _is_of(one: Child, job: int, held: Held) -> bool:
    return (one.place.job, one.place.entry) == (job, held.entry)


def standing(one: Child) -> Goods:
    """What a child has but for nodes that were taken from it, of which it may not know yet, not even where it has got them again:
    nothing of it lives there (HAZARD 5)."""
    gone = one.parent.book.taken.get(one.place.job, set()) - living_on(one)
    pools = {path: units for path, units in one.book.has.pools.items() if not gone.intersection(path.split("/"))}
    return Goods({host: mask for host, mask in one.book.has.cores.items() if host not in gone}, pools)


def living_on(one: Child) -> set[str]:
    """The hosts on which a task is that the child is."""
    return {one.book.hosts.get(node, "") for node, _ in one.parts.values()}


def living_at(one: Child) -> set[str]:
    """The same, by its parent's inventory."""
    return {one.parent.book.hosts.get(split_key(part)[2], "") for part in one.parts}


def alive(one: Child) -> Goods:
    """What a child has on the nodes on which it lives."""
    hosts = living_on(one)
    return Goods({host: mask for host, mask in one.book.has.cores.items() if host in hosts}, one.book.has.pools)


# -- when something begins ----------------------------------------------------------------------------------------


def begins(one: Child, key: str) -> None:
    """A task of a child's job begins: within the task that the child is, and on nothing that somebody else has, further up too."""
    job, _, rank = split_key(key)
    cores = one.diary.seats[key]
    part = next((part for part, (node, _) in one.parts.items() if node == rank), "")
    if not part:
        raise Broken(f"{one.namespace}: {key} begins where the child is not", job)
    if more := cores - one.parent.diary.seats[part]:
        raise Broken(f"{one.namespace}: {key} begins on cores {sorted(more)} of rank {rank}, which are not the child's", job)
    mask, host, level = sum(1 << core for core in cores), one.book.hosts.get(rank, ""), one
    while level.depth:
        place, parent = level.place, level.parent
        for other, held in parent.book.held.items() if not parent.poisoned else ():
            if is_lost(level) and held.since <= parent.book.kept:
                continue  # it had that before, and its giving it back is lost, too
            if mask & held.goods.cores.get(host, 0) and (other, held.entry) != (place.job, place.entry):
                raise Broken(f"{one.namespace}: {key} begins on cores of {host} that job {other} of {parent.namespace} holds", job)
        level = parent
    one.root.happened[f"tasks at depth {one.depth}"] += 1
