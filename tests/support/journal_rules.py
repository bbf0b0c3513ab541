"""What every journal must obey, checked on its entries alone: written from the RFCs, not from the fold.

Nothing here imports the fold or what judges dependencies, so that a mistake there cannot excuse itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fluxkv.journal.dependency import Dependency, of_jobspec, read
from fluxkv.journal.wire import Commit

# RFC 21's diagram: (state, event) -> state.
DIAGRAM = {
    ("NEW", "validate"): "DEPEND",
    ("DEPEND", "depend"): "PRIORITY",
    ("PRIORITY", "priority"): "SCHED",
    ("SCHED", "alloc"): "RUN",
    ("SCHED", "urgency"): "PRIORITY",
    ("SCHED", "jobspec-update"): "PRIORITY",
    ("SCHED", "flux-restart"): "PRIORITY",
    ("RUN", "finish"): "CLEANUP",
    ("CLEANUP", "clean"): "INACTIVE",
    ("CLEANUP", "requeue"): "PRIORITY",
}
FATAL = ("DEPEND", "PRIORITY", "SCHED", "RUN")
# Where an event has its place at all; other events may come in any state but INACTIVE.
PLACE = {
    "validate": ("NEW",),
    "depend": ("DEPEND",),
    "priority": ("PRIORITY", "SCHED"),
    "grant": ("SCHED",),
    "alloc": ("SCHED", "CLEANUP"),  # CLEANUP: a job that was cancelled while it took over a seat
    "start": ("RUN", "CLEANUP"),
    "finish": ("RUN", "CLEANUP"),
    "resize": ("RUN",),
    "grow": ("RUN",),
    "shrink": ("RUN",),
    "release": ("CLEANUP",),
    "free": ("CLEANUP",),
    "clean": ("CLEANUP",),
    "requeue": ("CLEANUP",),
}
ONCE = ("alloc", "start", "finish", "free")  # in each attempt


def ids(text: str) -> set[int]:
    """A plain idset."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


class Rules:
    """Feed commits in order. `wrong`: (version, job or 0, what) of every fault. strict: agents and workers wrote all of it, with
    their guards: reports are about current attempts, nodes are used only when they have spoken."""

    def __init__(self, cores: dict[int, set[int]], strict: bool = False, pools: dict[str, int] | None = None) -> None:
        self.cores, self.strict = cores, strict
        self.pools = pools or {}  # path of what jobs draw from -> its size
        self.drawn: dict[str, dict[int, int]] = {}  # path -> job -> units
        self.jumps = False  # clocks were set: what a begin-time was judged by, no entry says
        self.epoch = 0
        self.online: set[int] = set()
        self.spoken: dict[int, int] = {}  # rank -> epoch of its last hello
        self.wrong: list[tuple[int, int, str]] = []
        self.version = 0
        self.state: dict[int, str] = {}
        self.seen: dict[int, dict[str, int]] = {}
        self.attempt: dict[int, int] = {}
        self.claims: dict[int, list[list[Any]]] = {}
        self.used: dict[int, dict[int, int]] = {rank: {} for rank in cores}  # rank -> core -> job
        self.over: set[tuple[int, int, int]] = set()  # (job, attempt, rank)
        self.well: set[tuple[int, int, int]] = set()  # the same of what ended there by itself, with 0
        self.spec: dict[int, dict[str, Any]] = {}
        self.place: dict[int, int] = {}  # job -> how many were submitted before it; ids may come in another order
        self.name: dict[int, str] = {}
        self.user: dict[int, int] = {}
        self.late: dict[int, float] = {}  # job -> latest time at which one of its dependencies was said to be met
        self.ended: dict[int, list[Any]] = {}  # job -> [wait status, type of the exception it had, "" for none]
        self.let_go: set[int] = set()  # singletons
        self.scripts: set[tuple[int, str, int]] = set()  # (job, letter, rank) of scripts known to be over
        self.open: dict[int, tuple[str, set[int]]] = {}  # job -> kind of script that is going on, its ranks
        self.unlaunched: set[int] = set()  # jobs whose tasks wait for a prolog, or will never run
        self.single: dict[tuple[int, int], str] = {}  # (job, rank) -> kind of script that goes on on that node of it alone
        self.unready: set[tuple[int, int]] = set()  # nodes of jobs where a prolog has not let the tasks begin
        self.came: dict[tuple[int, int], int] = {}  # (job, rank) -> version of its grow
        self.keeping: dict[int, list[list[Any]]] = {}  # job that is over -> claims its housekeeping has left
        self.number: dict[int, int] = {}  # job -> which attempt, where it is not the first
        self.freed: dict[int, int] = {}  # job -> version of its last free
        self.before: dict[int, set[str]] = {}  # job -> events of its attempts before this one

    def commits(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            if commit.version != self.version + 1:
                self._fault(0, f"version {commit.version} follows {self.version}")
            self.version = commit.version
            if commit.epoch != self.epoch:
                self.epoch = commit.epoch
                self.online.clear()
            if not commit.events:
                self._fault(0, "no event")
            for name, subject, ts, context in commit.events:
                if isinstance(subject, int):
                    self._waits(name, subject, ts, context or {})
                    self._job(name, subject, context or {})
                elif name in ("hello", "online", "offline", "epoch", "adopt"):
                    self._presence(name, context)
                    if name == "adopt":  # on the branch that is lost they may have gone on
                        self.unready.clear()
                elif name == "report":
                    if self.strict:
                        self._report(context)
                    for job, *_ in [*context.get("start", ()), *context.get("over", ())]:
                        if (job, context["rank"]) in self.unready:
                            self._fault(job, f"tasks on rank {context['rank']}, where its prolog has not let them begin")
                    for job, attempt, *_ in context.get("over", ()):
                        self.over.add((job, attempt, context["rank"]))
                    for job, attempt, _, _, status, cause, _ in context.get("over", ()):
                        if (status, cause) == (0, ""):
                            self.well.add((job, attempt, context["rank"]))
                    for job, _, letter, *_ in context.get("script", ()):
                        self.scripts.add((job, letter, context["rank"]))
                elif name.startswith("housekeeping-"):
                    self._housekeeping(name, int(subject.partition("/")[2]), context)

    def _presence(self, name: str, context: dict[str, Any]) -> None:
        if name == "hello":
            self.spoken[context["rank"]] = context["epoch"]
        elif name == "online":
            self.online |= ids(context["idset"])
        elif name == "offline":
            self.online -= ids(context["idset"])
        else:
            self.online = {rank for rank in self.online if self.spoken.get(rank) == self.epoch}

    def _report(self, context: dict[str, Any]) -> None:
        """It is about attempts that are current, whatever happened on its way."""
        for kind in ("start", "over", "unstarted", "timeout"):
            for job, attempt, *_ in context.get(kind, ()):
                over = self.state.get(job) == "INACTIVE" and not self.keeping.get(job)
                if self.attempt.get(job) != attempt or over:
                    self._fault(job, f"a report ({kind}) about attempt {attempt}, which is not its attempt")

    def _fault(self, job: int, what: str) -> None:
        self.wrong.append((self.version, job, what))

    def _housekeeping(self, name: str, job: int, context: dict[str, Any]) -> None:
        if name == "housekeeping-start":
            if self.freed.get(job) != self.version or self.keeping.get(job):
                self._fault(job, "housekeeping without free, or beside another")
            self.scripts = {one for one in self.scripts if one[:2] != (job, "h")}
            self.keeping[job] = context["claims"]
            self._take(job, context["claims"])
        elif name == "housekeeping-lost":
            self.scripts.add((job, "h", context["rank"]))
        else:
            ranks = ids(context["ranks"])
            back = [claim for claim in self.keeping[job] if claim[0] in ranks]
            self.keeping[job] = [claim for claim in self.keeping[job] if claim[0] not in ranks]
            if not back or context["final"] != (not self.keeping[job]):
                self._fault(job, f"{name} of {sorted(ranks)}, final {context['final']}")
            for rank, cores, *_ in back:
                if (job, "h", rank) not in self.scripts:
                    self._fault(job, f"housekeeping on rank {rank} is not known to be over")
                for core in ids(cores):
                    self.used[rank].pop(core, None)
            self._undraw(job, back)

    def _script(self, name: str, job: int, context: dict[str, Any]) -> None:
        kind, what = name.split("-")
        if what == "start":
            if job in self.open or self.seen[job].get(name) != 1:
                self._fault(job, f"{name} twice, or beside another")
            self.open[job] = kind, ids(context["ranks"])
            if kind == "prolog":
                self.unlaunched.add(job)
            return
        found, ranks = self.open.pop(job, ("", set()))
        if found != kind or any((job, kind[0], rank) not in self.scripts for rank in ranks):
            self._fault(job, f"{name}, and it is not known to be over everywhere")
        if kind == "prolog" and not context["status"] and "exception" not in self.seen[job]:
            self.unlaunched.discard(job)

    def _job(self, name: str, job: int, context: dict[str, Any]) -> None:
        state = self.state.get(job)
        if name == "submit":
            if state is not None:
                self._fault(job, "submitted twice")
            self.state[job], self.seen[job] = "NEW", {}
            return
        if state is None:
            self._fault(job, f"{name} before submit")
            return
        if state == "INACTIVE":
            self._fault(job, f"{name} after clean")
        if name.startswith("node-script-"):
            self._single(name, job, context)
            return
        if name in ("grow", "shrink") or (name in ("release", "free") and context.get("ranks", "all") != "all"):
            self._resized(name, job, context)
            return
        if state not in PLACE.get(name, (state,)):
            self._fault(job, f"{name} in {state}")
        if name == "alloc" and state == "CLEANUP" and not context.get("via"):
            self._fault(job, "alloc in CLEANUP")
        seen = self.seen[job]
        seen[name] = seen.get(name, 0) + 1
        for once in ("validate", "depend", *ONCE, "clean"):
            if name == once and seen[name] > 1:
                self._fault(job, f"{name} twice")
        if name in ("prolog-start", "prolog-finish", "epilog-start", "epilog-finish"):
            self._script(name, job, context)
        if name in ("start", "finish", "free", "clean") and job in self.open:
            self._fault(job, f"{name} while its {self.open[job][0]} is going on")
        if name in ("start", "finish", "release") and job in self.unlaunched:
            self._fault(job, f"{name} of a job whose tasks were never ordered")
        for event, needs in (("start", "alloc"), ("finish", "alloc"), ("release", "finish"), ("free", "release")):
            if event == "free" and job in self.unlaunched:
                continue
            if name == event and needs not in seen:
                self._fault(job, f"{name} without {needs}")
        if name == "finish" and context["status"] and self.ended[job][1] == "shutdown" and (
            {(job, self.attempt[job], claim[0]) for claim in self.claims[job]} <= self.well
        ):  # fmt: skip
            self._fault(job, f"finish with {context['status']}, though it had ended with 0 before it was told to end")
        if name == "start" and "finish" in seen:
            self._fault(job, "start after finish")
        if name == "clean" and "alloc" in seen and "free" not in seen:
            self._fault(job, "clean before free")
        if name in ("grant", "alloc") and "attempt" not in context:  # one that a lost branch began keeps its name
            self.attempt[job] = int(context["adopted"].partition("-")[0]) if "adopted" in context else self.version
        if name == "lost" and "script" in context:
            self.scripts.add((job, context["script"][0], context["rank"]))
        elif name == "lost":
            self.over.add((job, self.attempt[job], context["rank"]))
        if name == "alloc":
            if self.keeping.get(job):
                self._fault(job, "alloc while the housekeeping of its last attempt goes on")
            self._take(job, context["claims"])
            ahead = context.get("via") or "since" in context  # it runs there already, by its node's own word
            if self.strict and not ahead and not {claim[0] for claim in context["claims"]} <= self.online:
                self._fault(job, f"alloc on ranks of which only {sorted(self.online)} have spoken")
        if name == "free":
            if any(one[0] == job and kind != "prolog" for one, kind in self.single.items()):
                self._fault(job, "free while scripts on single nodes of it go on")
            self.single = {one: kind for one, kind in self.single.items() if one[0] != job}
            self.unready = {one for one in self.unready if one[0] != job}
            self.freed[job] = self.version
            self._give(job)
        if name == "requeue":
            self._requeue(job, context)
        if name == "exception" and context["severity"] == 0 and state in FATAL:
            self.state[job] = "CLEANUP"
        else:
            self.state[job] = DIAGRAM.get((state, name), state)

    def _resized(self, name: str, job: int, context: dict[str, Any]) -> None:
        """Nodes come while a job runs, and go back one by one, each when the attempt is known to be over there; never the first."""
        ending = name == "free" and self.state[job] == "CLEANUP"  # what was looked after when it ended
        if (self.state[job] != "RUN" and not ending) or job not in self.claims:
            self._fault(job, f"{name} in {self.state[job]}")
            return
        held = [claim[0] for claim in self.claims[job]]
        if name == "grow":
            ranks = {claim[0] for claim in context["claims"]}
            if ranks & set(held) or (self.strict and not ranks <= self.online):
                self._fault(job, f"grow by {sorted(ranks)} beside {held}, where {sorted(self.online)} have spoken")
            self.over -= {(job, self.attempt[job], rank) for rank in ranks}
            self.came.update({(job, rank): self.version for rank in ranks})
            self._take(job, context["claims"], self.claims[job])
            return
        ranks = ids(context["ranks"])
        if not ranks or not ranks <= set(held[1:]):
            self._fault(job, f"{name} of {sorted(ranks)} of {held}")
        if name == "free":
            if any((job, rank) in self.single for rank in ranks):
                self._fault(job, f"free of {sorted(ranks)} while a script goes on there")
            self.unready -= {(job, rank) for rank in ranks}
            back = [claim for claim in self.claims[job] if claim[0] in ranks]
            stay = [claim for claim in self.claims[job] if claim[0] not in ranks]
            self.claims[job] = back
            self._give(job)
            self.claims[job] = stay
        elif name == "release" and any(
            (job, self.attempt[job], rank) not in self.over and (job, rank) not in self.unready for rank in ranks
        ):
            self._fault(job, f"release of {sorted(ranks)}, where it is not known to be over")

    def _single(self, name: str, job: int, context: dict[str, Any]) -> None:
        """Scripts on single nodes: a prolog where one has just come, the others where the tasks are over; one at a time."""
        kind, ranks, held = context["kind"], ids(context["ranks"]), [claim[0] for claim in self.claims.get(job, ())]
        if not ranks or not ranks <= set(held[1:]):
            self._fault(job, f"{name} on {sorted(ranks)} of {held}")
        for rank in sorted(ranks):
            one = job, rank
            over = (job, self.attempt[job], rank) in self.over
            if name == "node-script-start":
                early = self.came.get(one) != self.version if kind == "prolog" else not over and one not in self.unready
                wrong = one in self.single or early
                self.single[one] = kind
                self.scripts.discard((job, kind[0], rank))
                self.unready |= {one} if kind == "prolog" else set()
            else:
                wrong = self.single.pop(one, "") != kind or (job, kind[0], rank) not in self.scripts
                if context.get("launch"):
                    wrong |= kind != "prolog" or self.state[job] != "RUN"
                    self.unready.discard(one)
                elif kind == "prolog":
                    self.over.add((job, self.attempt[job], rank))
            if wrong:
                self._fault(job, f"{name} ({kind}) on rank {rank} has no place")

    def _requeue(self, job: int, context: dict[str, Any]) -> None:
        """Attempts are numbered 1, 2, 3; one begins only when the one before is known to be over and has given all back."""
        seen = self.seen[job]
        number = self.number.get(job, 1) + 1
        if context["attempt"] != number:
            self._fault(job, f"attempt {context['attempt']} follows attempt {number - 1}")
        if "free" not in seen or job in self.claims or job in self.open:
            self._fault(job, f"attempt {number} though the one before it is not over")
        self.number[job] = number
        self.before.setdefault(job, set()).update(seen)
        self.seen[job] = {one: seen[one] for one in ("validate", "depend") if one in seen}
        self.ended.pop(job, None)
        self.unlaunched.discard(job)
        self.scripts = {one for one in self.scripts if one[0] != job or one[1] == "h"}

    def _waits(self, name: str, job: int, ts: float, context: dict[str, Any]) -> None:
        """RFC 26 as flux-core has it: nobody goes on before what it waits for, nobody ends who could have gone on."""
        if name == "submit":
            self.place[job] = len(self.place)
            self.spec[job], self.user[job] = context["jobspec"], context["userid"]
            self.name[job] = (context["jobspec"]["attributes"]["system"].get("job") or {}).get("name", "")
        elif name == "jobspec-update":
            self.name[job] = context.get("attributes.system.job.name", self.name[job])
        elif name == "dependency-remove":
            self.late[job] = max(ts, self.late.get(job, 0.0)) if not self.jumps else float("inf")
        elif name == "finish":
            self.ended.setdefault(job, [None, ""])[0] = context["status"]
        elif name == "exception" and context["severity"] == 0 and self.state[job] in FATAL:
            self.ended.setdefault(job, [None, ""])[1] = context["type"]
        waits = of_jobspec(self.spec[job]) if name in ("depend", "exception", "dependency-remove") else None
        if not waits:
            return
        if name == "dependency-remove" and context["description"] == "singleton":
            self._singleton(job)
        if name == "depend" or (name == "exception" and context["type"] == "dependency"):
            at = max(ts, self.late.get(job, 0.0))  # a clock may have been set back since: what was met stays so
            found = [self._holds(one, job, at) for one in read(waits) if one.scheme != "singleton"]
            if name == "depend" and not all(found):
                self._fault(job, f"depend, though of {waits} stands {found}")
            if name == "exception" and False not in found:
                self._fault(job, f"{context['note']}: of {waits} stands {found}")

    def _holds(self, one: Dependency, job: int, ts: float) -> bool | None:
        """True: it holds. False: it never will. None: not yet."""
        if one.scheme == "begin-time":
            return True if ts >= one.at else None
        if one.parts:
            parts = [self._holds(part, job, ts) for part in one.parts]
            if one.scheme == "all":
                return False if False in parts else None if None in parts else True
            return True if True in parts else None if None in parts else False
        other = one.job
        seen = self.seen.get(other)
        if seen is None or self.place[other] >= self.place[job] or self.user[other] != self.user[job]:
            return False
        before = self.before.get(other, set())
        if one.scheme == "after" and ("start" in seen or "start" in before):
            return True
        if "clean" not in seen:
            return None
        status, fell = self.ended.get(other, [None, ""])
        fine = status == 0 and "start" in seen and fell in ("", "shutdown")
        ran = "alloc" in seen or "alloc" in before
        ill = ran and not fine
        by_scheme = {"afterany": True, "afterok": fine, "afternotok": ill, "afterexcept": ill and bool(fell)}
        return by_scheme.get(one.scheme, False)

    def _singleton(self, job: int) -> None:
        name = self.name[job]
        for other, spec in self.spec.items():
            if other == job or self.user[other] != self.user[job] or self.name[other] != name:
                continue
            waiting = any(one["scheme"] == "singleton" for one in of_jobspec(spec) or ()) and other not in self.let_go
            later = self.place[other] > self.place[job] and other not in self.let_go  # seen in time or not
            if not (waiting or later) and self.state[other] != "INACTIVE":
                self._fault(job, f"singleton, though {other} of the same name is {self.state[other]}")
        self.let_go.add(job)

    def _take(self, job: int, claims: list[list[Any]], beside: list[list[Any]] | None = None) -> None:
        self.claims[job] = [*(beside or ()), *claims]
        for rank, cores, *_ in claims:
            wanted = ids(cores)
            if not wanted <= self.cores.get(rank, set()):
                self._fault(job, f"claims cores {cores} of rank {rank}, which has them not")
            for core in sorted(wanted):
                if core in self.used[rank]:
                    self._fault(job, f"claims core {core} of rank {rank} while job {self.used[rank][core]} has it")
                self.used[rank][core] = job
        for path, units, _ in (draw for claim in claims for draw in (claim[5] if len(claim) > 5 else ())):
            users = self.drawn.setdefault(path, {})
            users[job] = users.get(job, 0) + units
            if sum(users.values()) > self.pools.get(path, 0):
                self._fault(job, f"draws {units} of {path}, of which {users} have more than {self.pools.get(path)}")

    def _undraw(self, job: int, claims: list[list[Any]]) -> None:
        for path, units, _ in (draw for claim in claims for draw in (claim[5] if len(claim) > 5 else ())):
            self.drawn[path][job] -= units
            if not self.drawn[path][job]:
                del self.drawn[path][job]

    def _give(self, job: int) -> None:
        claims = self.claims.pop(job, [])
        self._undraw(job, claims)
        for rank, cores, *_ in claims:
            if job not in self.unlaunched and (job, self.attempt.get(job, 0), rank) not in self.over:
                self._fault(job, f"free though its attempt is not known to be over on rank {rank}")
            for core in ids(cores):
                self.used[rank].pop(core, None)


def story(commits: Iterable[Commit], job: int) -> str:
    """A job's events and the reports about it, one a line."""
    lines = []
    for commit in commits:
        for name, subject, _, context in commit.events:
            if subject == job or (name in ("report", "hello", "alloc") and str(job) in str(context)):
                lines.append(f"{commit.version:5} {commit.producer or 'cli':9} {name} {subject} {str(context)[:200]}")
    return "\n".join(lines)
