"""The agent: one or several nodes of a host. Reads their inboxes, has tasks started, reports facts. A reactor.

It does not fold: it reports per (attempt, rank), each report guarded by `attempt/<job>` being exactly the attempt's version,
so a fenced attempt's word changes nothing. Output files and pipes are the runner's business (`forward.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgpack.exceptions import UnpackException

from ..journal.wire import pack, pack_events, unpack
from ..kvs.errors import Rejected
from ..kvs.port import Append, Appended, Conflicted, Gap, Meta, StaleEpoch
from .alike import Alike
from .attempts import Host, Placed, hello, split_key
from .branches import Branches, living_parts
from .facts import Bucket, Rows, cut, rest
from .reactor import (
    Answered,
    Input,
    Launched,
    LauncherLost,
    Messages,
    Note,
    Output,
    Reopened,
    ToLauncher,
    Trim,
    WakeAt,
    Write,
    keeps_cursors,
)  # fmt: skip
from .script_orders import attempt_key, build_script

PROBE = 1 << 40
ROWS = 2000  # facts in one report at most
LEFT = "lost: its node left the instance"  # the end of what ran on a joined host that is stopped


class Agent(Branches):
    """placed: attempts by launcher key. cursors: rank -> last inbox id read. rows: facts to report, by rank.

    Facts wait in `rows` until the launcher's list of what it holds has come (after each connect), so that a hello names
    everything it has.
    """

    def __init__(self, meta: Meta, host: Host, cursors: dict[int, str]) -> None:
        self.meta = meta
        self.host = host
        self.cursors = cursors
        self.placed: dict[str, Placed] = {}
        self.names: dict[tuple[int, int, int, str], str] = {}  # (job, version, rank, letter) -> key
        self.rows: dict[int, Rows] = {rank: Rows() for rank in host.ranks}
        self.unsaid: dict[str, Placed] = {}  # started, and nobody told yet
        self.held: list[str] | None = None
        self.unread: list[Messages] = []  # orders that wait for the launcher's list, or for the end of what has their name
        self.freed = False
        self.inflight: Append | None = None
        self.sent: dict[int, Rows] = {}
        self.sent_hello, self.hello_due = False, True
        self.pace, self.alike = Bucket(), Alike()
        self.trims: dict[int, str] = {}
        self.now = 0.0  # of this step
        self.seq = PROBE
        super().__init__()
        self.producer = f"agent/{min(host.ranks)}"

    # -- the reactor ----------------------------------------------------------------------------------------------

    def step(self, now: float, inputs: Sequence[Input]) -> list[Output]:
        outputs: list[Output] = []
        self.now = now
        if any(isinstance(one, LauncherLost) for one in inputs):
            self.held = None  # orders that came just before wait for the list, too: it may have been made without them
        if self.freed and self.held is not None:  # in a step of its own: the launcher has forgotten what had the name
            self._go_on(outputs)
        for one in inputs:
            if isinstance(one, Launched):
                for event in one.events:
                    self._launched(event, outputs)
            elif isinstance(one, Messages):
                one = self.of_this_history(one)
                if self.held is None or self.unread:  # the list to come would not name what is launched now
                    self.unread.append(one)
                else:
                    self._messages(one, outputs)
            elif isinstance(one, Answered):
                self._answered(one, outputs)
            elif isinstance(one, Reopened):
                self._unsend()
                self.reopened(one.meta, outputs)
                self.inflight = None
                self.seq = PROBE  # whether the last commit is in the journal, nobody has said
                self.hello_due = True
            elif isinstance(one, LauncherLost):
                self.held = None
                self.hello_due |= not one.lost
        outputs.sort(key=keeps_cursors)  # they stand for all of this step: a death in between must not lose an order
        if self.inflight is None and self.held is not None:
            self._write(now, outputs)
        if self.freed and self.held is not None:  # else the list will wake us, which a dead launcher does not send for a while
            outputs.append(WakeAt(now))
        return outputs

    # -- orders ---------------------------------------------------------------------------------------------------

    def _messages(self, one: Messages, outputs: list[Output]) -> None:
        rank = int(one.name.rpartition("/")[2])
        launches: list[dict[str, Any]] = []
        for at, message in enumerate(one.messages):
            version = int(message.id.partition("-")[0])
            if version <= int(self.cursors.get(rank, "0").partition("-")[0]):
                continue  # delivered again
            try:
                orders = list(unpack(message.data))
                if any(self.occupied(order, message.id, rank) for order in orders):  # the node was its before: that end comes first
                    self.unread.append(Messages(one.name, one.messages[at:]))
                    break
                self.cursors[rank] = message.id
            except (ValueError, TypeError, UnpackException) as error:
                self.cursors[rank] = message.id
                outputs.append(Note("error", f"message {message.id} to node {rank} cannot be read: {error}"))
                continue
            for order in orders:
                try:
                    if order[0] in ("launch", "script"):
                        self._launch(rank, order[1], message.id, launches)
                        continue
                    if launches:  # keep the order of launches and what is said about them
                        outputs.append(ToLauncher(["launch", launches]))
                        launches = []
                    if order[0] == "adopted":
                        self.adopted(self.key_of(f"{order[1]}.{order[2]}", rank))
                    elif order[0] == "hello":
                        self.hello_due = True  # an epoch that we do not know yet the store will name
                    else:
                        self._control(rank, order, outputs)
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    outputs.append(Note("error", f"an order in message {message.id} makes no sense: {error!r}"))
        if launches:
            outputs.append(ToLauncher(["launch", launches]))

    def _launch(self, rank: int, order: dict[str, Any], id: str, launches: list[dict[str, Any]]) -> None:
        """Build the attempt; one that cannot be built is over before it began, and says why."""
        key = attempt_key(order, id, rank)
        job, version, _ = split_key(key)
        if key in self.placed:
            return  # the same order again: it has been started
        placed = Placed(key, job, version, rank)
        if self.ran_before(placed):
            return
        try:
            attempt = (build_script if placed.letter else self.alike.build)(self.host, rank, order, key)
        except (LookupError, TypeError, ValueError, AttributeError, Rejected) as error:
            if placed.letter:
                self.rows[rank].script.append([job, version, placed.letter, 0.0, self.now, 1 << 8, f"spawn: bad order: {error}"])
            elif order.get("queued"):  # it holds no resources yet: back in the line, to end by an allocation of its own
                self.rows[rank].unstarted.append([job, version])
            else:
                self.rows[rank].over.append([job, version, 0.0, self.now, 1 << 8, f"spawn: bad order: {error}", 0])
            return
        placed.fake = "fake_s" in attempt
        if not placed.letter and not order["queued"]:
            placed.claim = attempt["held"] = [order["claim"], order["nodes"]]
        self._place(placed)
        launches.append(attempt)

    def _unplace(self, key: str) -> Placed | None:
        placed = self.placed.pop(key, None)
        self.hello_due |= self.fenced == {key}
        self.fenced.discard(key)
        if placed is not None:
            name = (placed.job, placed.version, placed.rank, placed.letter)
            if self.names.get(name) == key:
                del self.names[name]
                for other in self.named(name)[-1:] if name in self.doubles else ():
                    self.names[name] = other.key
            self.freed = bool(self.unread) or self.behind
        return placed

    def _control(self, rank: int, order: list[Any], outputs: list[Output]) -> None:
        what = order[0]
        if what == "forget":
            self.forget(self.key_of(order[1], rank), outputs)
            return
        key = self.key_of(f"{order[1]}.{order[2]}", rank)
        known = key in self.placed
        if what == "recall":
            if known:
                outputs.append(ToLauncher(["recall", [key]]))
            else:
                self.rows[rank].unstarted.append([order[1], int(order[2].partition("-")[0])])
        elif not known:
            return  # over and reported: nothing left to do
        elif what in ("end", "signal", "limit"):
            outputs.append(ToLauncher([what, key, order[3]]))

    # -- facts ----------------------------------------------------------------------------------------------------

    def _launched(self, event: list[Any], outputs: list[Output]) -> None:
        what = event[0]
        if what == "over":
            if event[1] in self.fenced:
                self.gone(event[1], outputs)
            else:
                self._over(event)
        elif what == "start":
            placed = self.placed.get(event[1])
            if placed is not None:
                placed.t_start = event[2]
                if not placed.letter and placed.key not in self.foreign:
                    self.unsaid[placed.key] = placed
        elif what == "unstarted":
            for key in event[1]:
                if key in self.fenced:
                    self.gone(key, outputs)
                    continue
                placed = self._unplace(key)
                if placed is not None and self.foreign.pop(key, "") == "":
                    self.rows[placed.rank].unstarted.append([placed.job, placed.version])
        elif what in ("timeout", "first-exit"):
            placed = self.placed.get(event[1])
            if placed is None or placed.letter or placed.over:
                return
            if what == "timeout":
                self.rows[placed.rank].timeout.append([placed.job, placed.version, event[2]])
            else:
                self.rows[placed.rank].exit += placed.untold([event[2:]])
        elif what == "held":
            self._held(event[1], outputs)

    def _over(self, event: list[Any]) -> None:
        key, status, t_start, t_end, cause, following = event[1], event[2], event[3], event[4], event[6], event[7]
        placed = self.placed.get(key)
        if placed is None or placed.over:
            return
        self.note_past(key, event)
        successor = self.placed.get(following or "")
        if successor is not None:
            successor.claim = placed.claim  # it has the seat
        if self.kept_back(event):
            return
        if self.host.joined and cause == "ended:shutdown":
            cause = LEFT
        placed.over = True
        self.unsaid.pop(key, None)
        if placed.letter:
            row = [placed.job, placed.version, placed.letter, t_start, t_end, status, cause]
            self.rows[placed.rank].script.append(row)
            return
        self.rows[placed.rank].exit += placed.untold(*event[11:12])
        next_job = split_key(following)[0] if following else 0
        self.rows[placed.rank].over.append([placed.job, placed.version, t_start, t_end, status, cause, next_job])

    def _held(self, rows: list[list[Any]], outputs: list[Output]) -> None:
        """What the launcher has, after a connect: the truth about attempts on this host."""
        listed = {row[0] for row in rows}
        for placed in [one for one in self.placed.values() if one.key not in listed and not one.over and not one.fake]:
            fenced = placed.key in self.fenced
            self._unplace(placed.key)  # a queued one that a dead launcher held in memory
            if placed.letter or fenced or self.foreign.pop(placed.key, "") != "":
                continue  # the hello says that it is gone
            self.rows[placed.rank].unstarted.append([placed.job, placed.version])
        asked, living = self.recall, living_parts(rows)
        for key, job, state, t_start, _, over, *claim in rows:
            _, version, rank = split_key(key)
            if rank not in self.rows:
                continue
            known = self.placed.get(key)
            if known is None:
                known = Placed(key, job, version, rank)
                self._place(known)
                known.claim = claim[0] if claim else None
                self.note_foreign(key)
            if state in ("over", "past"):
                self.note_past(key, over)
                if not known.over and not self.outlived(key, living, outputs):
                    self._over(over)
            elif state == "running" and not known.t_start:
                known.t_start = t_start
                if not known.letter and key not in self.foreign:
                    self.unsaid[key] = known
        if asked:
            self.ask_all(outputs)  # that list has these too
            return
        self.held = list(self.placed)
        self.hello_due = True
        self._read_on(outputs)

    # -- reports --------------------------------------------------------------------------------------------------

    def _write(self, now: float, outputs: list[Output]) -> None:
        events: list[list[Any]] = []
        bumps: list[str] = []
        exact: dict[str, str] = {}
        if self.hello_due:
            self.hello_due = False
            self.sent_hello = True
            for rank in self.host.ranks:
                context = hello(self.host, rank, self.meta.epoch, self.cursors.get(rank, "0-0"), self.placed.values())
                events.append(["hello", f"node/{rank}", now, context])
                bumps.append(f"node/{rank}")
        else:
            if self._too_soon(now, outputs):
                return
            self._collect_starts()
            for rank, rows in self.rows.items():
                if not rows:
                    continue
                if len(rows) > ROWS:
                    rows = cut(rows, ROWS)
                    self.rows[rank] = rest(self.rows[rank], rows)
                else:
                    self.rows[rank] = Rows()
                self.sent[rank] = rows
            self._guard(exact, outputs)
            for rank, rows in self.sent.items():
                if rows:
                    events.append(["report", f"node/{rank}", now, rows.context(rank)])
            if any(rows.unstarted for rows in self.sent.values()):
                # Not to be read again after a crash: what has come back may be placed elsewhere soon.
                outputs.append(ToLauncher(["ack", []]))
        if not events:
            self.sent = {}
            return
        self._send(events, bumps, exact, outputs)

    def _too_soon(self, now: float, outputs: list[Output]) -> bool:
        facts = sum(map(len, self.rows.values())) + len(self.unsaid)
        wait_s = self.pace.wait_s(now, facts, len(self.placed), self.host.report_s) if facts else 0.0
        if wait_s and all(placed.over for placed in self.placed.values()):
            wait_s = 0.0  # nothing is left to wait for: more is placed here only when this is heard
        if wait_s:
            outputs.append(WakeAt(now + wait_s))
        return not facts or bool(wait_s)

    def _collect_starts(self) -> None:
        """A start is said once, and not at all when the end can be said with it."""
        for placed in self.unsaid.values():
            self.rows[placed.rank].start.append([placed.job, placed.version, placed.t_start])
        self.unsaid.clear()

    def _send(self, events: list[Any], bumps: list[str], exact: dict[str, str], outputs: list[Output]) -> None:
        request = Append(
            uid=self.meta.uid, epoch=self.meta.epoch, decided_at=0,
            payload=pack_events(events),
            producer=self.producer,
            seq=self.seq + 1,
            exact=tuple(exact.items()),
            bumps=tuple(bumps),
            extra=pack({"by": self.producer}),
        )  # fmt: skip
        self.inflight = request
        outputs.append(Write(request))

    def _answered(self, one: Answered, outputs: list[Output]) -> None:
        answer = one.answer
        self.inflight = None
        if isinstance(answer, Appended):
            self.seq = one.request.seq
            if self.sent_hello:
                self.sent_hello = False
                self.trims.update(self.cursors)
            self._settled(outputs)
        elif isinstance(answer, Conflicted):
            named = dict(one.request.exact)
            fenced = {(int(thing.partition("/")[2]), int(str(named[thing]).partition("-")[0])) for thing in answer.things}
            self._fenced(fenced, outputs)
            outputs.append(Note("warning", f"reports about {len(fenced)} fenced attempts dropped"))
            self._unsend()
        elif isinstance(answer, Gap):
            self.seq = answer.last
            self._unsend()
        elif isinstance(answer, StaleEpoch):
            self._unsend()
            self.hello_due = True

    def _unsend(self) -> None:
        """Nothing of it was written: put the facts back in front."""
        if self.sent_hello:
            self.sent_hello = False
            self.hello_due = True
        for rank, rows in self.sent.items():
            later = self.rows[rank]
            rows.put_before(later)
            self.rows[rank] = rows
        self.sent = {}

    def _settled(self, outputs: list[Output]) -> None:
        """The facts are in the journal: the launcher may forget them, and the inbox what led to them."""
        acks: list[str] = []
        for rank, rows in self.sent.items():
            for job, version, letter in rows.ended():
                acks.append(self.ended_key((job, version, rank, letter)))
                self._unplace(acks[-1])
        self.sent = {}
        if acks:
            outputs.append(ToLauncher(["ack", acks]))
        for rank, cursor in self.cursors.items():
            before = int(self.trims.get(rank, "0").partition("-")[0])
            if int(cursor.partition("-")[0]) > before + 64:
                self.trims[rank] = cursor
                if not acks:  # the position is kept on disk before what lies behind it goes
                    acks = [""]
                    outputs.append(ToLauncher(["ack", []]))
                outputs.append(Trim(f"node/{rank}", cursor))
        if any(self.rows.values()):
            outputs.append(WakeAt(0.0))
