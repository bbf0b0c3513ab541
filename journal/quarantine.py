"""What the fold sets aside: events that are well-formed and contradict the state. Pure.

Such an event changes nothing but this table: its subject is set aside, with the version, the event and why, the same way in
every process and at every replay. The fold decides no more than that; a worker journals a `quarantine` event, ends the job,
and drains nodes of which it is not known who has them (`set_aside`). Why is kept as a code and a number, never as a text: what
the digest covers must not change with a wording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .ids import f58
from .job import CLEANUP, DEPEND, NEW, PRIORITY, RUN, SCHED, STATE_NAMES

if TYPE_CHECKING:
    from .state import State

# Where an event may come that moves a job (RFC 21, and ours); what is not here may come in any state.
PLACE = {
    "validate": NEW,
    "invalidate": NEW,
    "dependency-add": NEW | DEPEND,
    "depend": DEPEND,
    "priority": PRIORITY | SCHED,
    "grant": SCHED,
    "alloc": SCHED | CLEANUP,  # of a job that took over a seat and was told to end before the journal had heard of it
    "start": RUN | CLEANUP,
    "finish": RUN | CLEANUP,
    "resize": RUN,
    "grow": RUN,
    "shrink": RUN,
    "node-script-start": RUN | CLEANUP,
    "node-script-finish": RUN | CLEANUP,
    "release": RUN | CLEANUP,  # in RUN of some of its nodes only
    "epilog-start": CLEANUP,
    "epilog-finish": CLEANUP,
    "free": RUN | CLEANUP,  # as release
    "clean": CLEANUP,
    "requeue": CLEANUP,
}

ANYWHERE = -1  # of other events

WORDS = 1_000  # entries of the table from which on only jobs get new ones
ATTEMPTS = 100  # remembered for a node until a worker has spoken; the node is drained in any case

# code -> what a reader is told; {name} is the event, {number} what belongs to the code.
WHY = {
    "again": "{name} came a second time",
    "state": "{name} in state {state}",
    "holds": "{name} while it holds resources",
    "holds-nothing": "{name} though it holds nothing",
    "not-free": "{name} takes what is not free on rank {number}",
    "not-over": "{name} while its tasks on rank {number} run",
    "unreadable": "it cannot be read, and an operator goes on without it",
    "drawn": "{name} takes away what is drawn from the graph of resources",
    "lead": "{name} takes its first node, without which it is not",
    "in-use": "{name} takes away rank {number}, which is in use",
}


class Impossible(Exception):
    """Of a handler, before it has changed anything: this event cannot follow from the state.

    code: a key of `WHY`; number: what belongs to it. doubt: ranks of which it is not known any more who has them; attempt: the
    attempt that this event would have begun there, "" for none.
    """

    def __init__(self, code: str, number: int = 0, doubt: Iterable[int] = (), attempt: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.number = number
        self.doubt = list(doubt)
        self.attempt = attempt


class Aside:
    """One subject that is set aside, by its first impossible event.

    version, index: where that event stands (commit, place in it). count: how many there were. said: version of the last
    `quarantine` event about it, 0 before any. doubts: rank -> ids of attempts that may have been begun there, of which no such
    event has spoken yet.
    """

    __slots__ = ("code", "count", "doubts", "index", "name", "number", "said", "subject", "version")

    def __init__(self, subject: int | str, version: int, index: int, name: str, code: str, number: int) -> None:
        self.subject = subject
        self.version = version
        self.index = index
        self.name = name
        self.code = code
        self.number = number
        self.count = self.said = 0
        self.doubts: dict[int, list[str]] = {}

    def value(self) -> list[Any]:
        """Plain values, for snapshots and the digest."""
        return [
            self.subject, self.version, self.index, self.name, self.code, self.number, self.count, self.said, self.doubts,
        ]  # fmt: skip

    @classmethod
    def from_value(cls, value: list[Any]) -> Aside:
        """Inverse of `value`."""
        aside = cls(*value[:6])
        aside.count, aside.said, aside.doubts = value[6:9]
        return aside

    @property
    def why(self) -> str:
        """One line: which event, where, and what it contradicts."""
        number = self.number
        text = WHY.get(self.code, "{name} cannot follow").format(
            name=self.name, number=number, state=STATE_NAMES.get(number, str(number))
        )
        return f"version {self.version}: {text}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        subject = f58(self.subject) if isinstance(self.subject, int) else self.subject
        return {"subject": subject, "version": self.version, "event": self.name, "why": self.why, "count": self.count,
                "said": self.said}  # fmt: skip

    @property
    def what(self) -> str:
        """The subject, for people."""
        return f"job {f58(self.subject)}" if isinstance(self.subject, int) else self.subject.replace("entry/", "entry ")


class Quarantine:
    """What is set aside, by subject. total: impossible events ever; news: subjects about which a worker owes an event.

    heard: for whoever checks a journal: every impossible event as an `Aside` of its own; None: nobody wants to know.
    """

    __slots__ = ("heard", "news", "table", "total")

    def __init__(self) -> None:
        self.table: dict[int | str, Aside] = {}
        self.total = 0
        self.news: dict[int | str, None] = {}
        self.heard: list[Aside] | None = None

    def __bool__(self) -> bool:
        return bool(self.total or self.table)

    def put(self, subject: int | str, version: int, index: int, name: str, why: Impossible) -> None:
        """Note an impossible event."""
        self.total += 1
        if self.heard is not None:
            self.heard.append(Aside(subject, version, index, name, why.code, why.number))
        aside = self.table.get(subject)
        if aside is None:
            if isinstance(subject, str) and len(self.table) >= WORDS:
                return  # whoever writes so many wants only to fill the state
            aside = self.table[subject] = Aside(subject, version, index, name, why.code, why.number)
        aside.count += 1
        for rank in why.doubt:
            attempts = aside.doubts.setdefault(rank, [])
            if why.attempt and why.attempt not in attempts and len(attempts) < ATTEMPTS:
                attempts.append(why.attempt)
        if not aside.said or aside.doubts:
            self.news[subject] = None

    def put_entry(self, subject: str, version: int, said: int) -> bool:
        """Note an entry that an operator has set aside; False if it was already."""
        if subject in self.table or len(self.table) >= WORDS:
            return False
        aside = self.table[subject] = Aside(subject, version, 0, "entry", "unreadable", 0)
        aside.count, aside.said = 1, said
        return True

    def answered(self, subject: int | str, version: int) -> bool:
        """A `quarantine` event about it is in the journal; False if nothing of it is set aside."""
        aside = self.table.get(subject)
        if aside is None:
            return False
        aside.said, aside.doubts = version, {}
        self.news.pop(subject, None)
        return True

    def owed(self) -> dict[int | str, Aside]:
        """Those about which a worker has not said all yet."""
        return {subject: self.table[subject] for subject in self.news}

    def dump(self) -> list[Any]:
        """Plain values, for a snapshot."""
        return [self.total, [aside.value() for aside in self.table.values()]]

    @classmethod
    def load(cls, value: list[Any] | None) -> Quarantine:
        """Inverse of `dump`; None, of a snapshot from before there was such a table, is an empty one."""
        found = cls()
        if value is not None:
            found.total = value[0]
            for one in value[1]:
                aside = found.table[one[0]] = Aside.from_value(one)
                if not aside.said or aside.doubts:
                    found.news[aside.subject] = None
        return found


def entry_word(subject: int | str) -> str:
    """The name of an entry of the table among the state's subjects."""
    return f"quarantine/{subject}"


def subject_of(name: str) -> int | str:
    """Inverse of `word`, without its first part: a job's id in digits, or a word."""
    return int(name) if name.isdecimal() else name


def listed(table: Mapping[int | str, Aside]) -> list[Aside]:
    """In the order of the journal."""
    return sorted(table.values(), key=lambda aside: (aside.version, aside.index))


def passed_over(state: State) -> tuple[str, str]:
    """(What is said of events that the fold has skipped, what to do). An edit of a graph that rests on one which was lost is
    skipped with its inventory, so both agree, and are as before."""
    text = f"{state.skipped} events are passed over: a newer fluxkv wrote them, or somebody by hand"
    if state.graph is None:
        return text, "fluxkv journal show lists them all"
    more = "or they change what others had made of the resource graph, and those are lost"
    return f"{text}, {more}", "fluxkv resource reload FILE declares all of it anew"
