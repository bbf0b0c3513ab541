"""The commands of `resource query`: each line read, done, and told. No rules of matching live here (`schedulers.tree`)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from ..kvs.errors import FluxkvError, Rejected
from ..schedulers.tree.jgf import attach, named_in
from ..schedulers.tree.ledger import ALLOCATED, RESERVED
from ..schedulers.tree.needs import TreeRequest, UnknownType, compile_request
from ..schedulers.tree.selection import Selection
from ..schedulers.tree.writers import write

if TYPE_CHECKING:
    from ..schedulers.tree.system import Outcome, System
    from ..schedulers.tree.vertices import Vertex

FRAME = "INFO: ============================="
CANCELED = "CANCELED"
#: Types that a request may name although the graph has none.
USUAL_TYPES = ("cluster", "rack", "node", "socket", "core", "gpu", "memory", "ssd")
MATCH_OPS = ("allocate", "allocate_orelse_reserve", "allocate_with_satisfiability", "satisfiability", "without_allocating",
             "without_allocating_future")  # fmt: skip
READERS = ("jgf", "jgf_shorthand", "rv1exec")


class Malformed(Exception):
    """The words of a command are not what it takes."""


class Listed(NamedTuple):
    """What `list` and `info` say of a job. file: where its request, or what was imposed, stands; took_s: how long the match was."""

    state: str
    start: int
    file: str
    took_s: float


class Session:
    """out: where selections and banners go. shown: what `list`, `info`, ... print. complain: errors, a line each.
    clock: in seconds. timed: how long each match took is said.
    """

    def __init__(
        self, system: System, form: str, out: TextIO, shown: Callable[[str], None], complain: Callable[[str], None],
        clock: Callable[[], float] = lambda: 0.0, *, timed: bool = False,
    ) -> None:  # fmt: skip
        self.system = system
        self.form = form
        self.out = out
        self.show = shown
        self.complain = complain
        self.clock = clock
        self.timed = timed
        self.jobs: dict[int, Listed] = {}  # all that were ever matched
        self.times: list[float] = []
        self.types = {vertex.type for vertex in system.tree.vertices}

    def run(self, line: str) -> bool:
        """Do one line. False when it ends the session."""
        try:
            words = shlex.split(line, comments=False)
        except ValueError:
            self.complain("ERROR: malformed command")
            return True
        if not words or words[0].startswith("#"):
            return True
        name = SHORT.get(words[0], words[0])
        if name in ("quit", "exit"):
            return False
        command = COMMANDS.get(name)
        if command is None:
            self.complain(f"ERROR: unknown command {name[:40]!r}: see help")
            return True
        try:
            command[0](self, words[1:])
        except Malformed:
            self.complain("ERROR: malformed command")
        except FluxkvError as error:
            self.complain(f"{name}: ERROR: {error}")
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # who reads has gone
                raise
            self.complain(f"{name}: ERROR: cannot read {error.filename}: {error.strerror}")
        self.out.flush()
        return True

    def banner(self, *lines: str) -> None:
        """Lines in a frame."""
        self.out.write("\n".join((FRAME, *lines, FRAME)) + "\n")

    def write(self, selection: Selection, start: int = 0, end: int = 0, sums: bool = False) -> None:
        """What was selected, in the session's format."""
        shown = self.sums_of if sums else None
        self.out.write(write(self.form, selection, self.system.subsystems, start, end, shown))

    def sums_of(self, vertex: Vertex) -> dict[str, str]:
        """The sums kept for a vertex, as text."""
        now = self.system.now
        spans = vertex.below
        return {
            kind: f"used:{spans[kind].at(now) if kind in spans else 0}, total:{vertex.totals.get(kind, 0)}"
            for kind in self.system.ledger.tracked(vertex)
        }

    # --- match

    def match(self, words: Sequence[str]) -> None:
        if len(words) != 2 or words[0] not in MATCH_OPS:
            raise Malformed
        self.one_match(words[0], words[1])

    def multi_match(self, words: Sequence[str]) -> None:
        if len(words) < 3 or words[0] not in MATCH_OPS:
            raise Malformed
        for path in words[1:]:
            if not self.one_match(words[0], path):
                return

    def one_match(self, op: str, path: str) -> bool:
        """False when there was no match."""
        request = self.request(path)
        if request is None:
            return False
        began = self.clock()
        matched = self.matched(op, request, path, began)
        if self.timed:
            self.complain(f"INFO: ELAPSE={self.clock() - began:.6f}")
        return matched

    def matched(self, op: str, request: TreeRequest, path: str, began: float) -> bool:
        """Do it and tell."""
        system = self.system
        if op == "satisfiability":
            could = system.satisfiable(request)
            self.banner("INFO: Satisfiable request" if could else "INFO: Unsatisfiable request")
            return could
        if op == "allocate_orelse_reserve":
            outcome = system.reserve(request)
        elif op.startswith("without"):
            outcome = system.preview(request, future=op.endswith("future"))
        else:
            outcome = system.allocate(request, satisfiability=op.endswith("satisfiability"))
        self.tell(outcome, path, began)
        return bool(outcome.state)

    def request(self, path: str) -> TreeRequest | None:
        """The request of a jobspec in a file (YAML or JSON); None, and a line about it, where it is none."""
        from ..journal.jobspec import decode_jobspec

        where = f"match_allocate: ERROR: Jobspec error for {self.system.next_job}: "
        try:
            return compile_request(decode_jobspec(read(path)), (*self.types, *USUAL_TYPES))
        except UnknownType:
            self.complain(f'{where}Value of "type" must be a resource type known to fluxion')
        except Rejected as error:
            self.complain(f"{where}{error}")
        return None

    def tell(self, outcome: Outcome, path: str, began: float) -> None:
        """The outcome of a match that began then, for what stands in a file."""
        took_s = self.clock() - began
        self.times.append(took_s)
        if outcome.state in (ALLOCATED, RESERVED):
            self.jobs[outcome.job] = Listed(outcome.state, outcome.start, path, took_s)
        job = f"INFO: JOBID={outcome.job}"
        if outcome.selection is None:
            never = ("INFO: Unsatisfiable request",) if outcome.impossible else ()
            self.banner("INFO: No matching resources found", *never, job)
            return
        self.write(outcome.selection, outcome.start, outcome.end)
        when = "Now" if outcome.start == self.system.now else str(outcome.start)
        self.banner(job, f"INFO: RESOURCES={outcome.state}", f"INFO: SCHEDULED AT={when}")

    # --- jobs

    def cancel(self, words: Sequence[str]) -> None:
        if len(words) not in (1, 2) or (len(words) == 2 and words[1] != "stats"):
            raise Malformed
        visits = self.system.cancel(number(words[0]))
        self.over()
        if len(words) == 2:
            self.banner(f'INFO: CANCEL PREORDER COUNT="{visits}"', f'INFO: CANCEL POSTORDER COUNT="{visits}"')

    def partial_cancel(self, words: Sequence[str]) -> None:
        if len(words) not in (3, 4) or (len(words) == 4 and words[3] != "stats"):
            raise Malformed
        job, reader, path = number(words[0]), words[1], words[2]
        if reader not in READERS:
            self.complain(f"ERROR: unsupported reader {reader}")
            return
        try:
            from ..schedulers.tree.rv1 import nodes_in

            document = read_json(path)
            tree = self.system.tree
            if reader == "rv1exec":
                vertices = nodes_in(tree, document)
            else:
                named = [vertex for vertex, _, _ in named_in(tree, document)]
                nodes = [vertex for vertex in named if vertex.type == "node"]
                vertices = nodes or [vertex for vertex in named if not vertex.children]
            self.system.cancel_on(job, vertices)
            self.over()
        except Rejected as error:
            if error.code == "no-such-job":
                raise
            self.complain(f"ERROR: error encountered while removing job {job}")
            return
        if len(words) == 4:
            self.banner('INFO: PARTIAL CANCEL PREORDER COUNT="0"', 'INFO: PARTIAL CANCEL POSTORDER COUNT="0"')

    def over(self) -> None:
        """Note which jobs have nothing any more."""
        gone = [id for id, job in self.jobs.items() if id not in self.system.ledger.jobs and job.state != CANCELED]
        self.jobs.update((id, self.jobs[id]._replace(state=CANCELED)) for id in gone)

    def update(self, words: Sequence[str]) -> None:
        if len(words) != 6 or words[0] not in ("allocate", "reserve"):
            raise Malformed
        state = ALLOCATED if words[0] == "allocate" else RESERVED
        reader, path = words[1], words[2]
        job, start, duration_s = (number(word) for word in words[3:])
        if reader not in READERS:
            self.complain(f"ERROR: unsupported reader {reader}")
            return
        from ..schedulers.tree import rv1

        began = self.clock()
        document = read_json(path)
        named = (rv1.named_in if reader == "rv1exec" else named_in)(self.system.tree, document)
        wanted = {vertex.ordinal: (vertex, units, exclusive) for vertex, units, exclusive in named}
        if reader == "jgf_shorthand":
            from ..schedulers.tree.vertices import preorder

            for vertex, _, exclusive in named:
                if exclusive:
                    wanted.update({v.ordinal: (v, v.size, True) for v in preorder(vertex, self.system.subsystem)})
        self.tell(self.system.impose(job, wanted, state, start, duration_s), path, began)

    def info(self, words: Sequence[str]) -> None:
        if len(words) != 1:
            raise Malformed
        id = number(words[0])
        if id in self.jobs:
            self.show(self.line(id))
        else:
            self.show(f"ERROR: jobid doesn't exist: {words[0]}")

    def line(self, id: int) -> str:
        """What `list` says of a job."""
        job = self.jobs[id]
        return f"INFO: {id}, {job.state}, {job.start}, {job.file}, {job.took_s:g}"

    def list(self, words: Sequence[str]) -> None:
        for id in sorted(self.jobs):
            self.show(self.line(id))

    def stat(self, words: Sequence[str]) -> None:
        if words:
            raise Malformed
        jobs, times = len(self.jobs), self.times if self.jobs else [0.0]
        self.show(f"INFO: Num. of Jobs Matched: {jobs}")
        self.show(f"INFO: Min. Match Time: {min(times):g}")
        self.show(f"INFO: Max. Match Time: {max(times):g}")
        self.show(f"INFO: Avg. Match Time: {sum(times) / (jobs or 1):g}")

    # --- the graph

    def attach(self, words: Sequence[str]) -> None:
        if len(words) != 1:
            raise Malformed
        attach(self.system.tree, read_json(words[0]))
        self.system.graph_changed()

    def remove(self, words: Sequence[str]) -> None:
        if len(words) != 2 or words[1] not in ("true", "false"):
            raise Malformed
        tree = self.system.tree
        if words[1] == "true":
            self.system.remove([self.system.at(words[0])])
            self.over()
            return
        from ..journal import idset

        ranks = idset.ids_of_mask(idset.mask_of(words[0].strip("[]")))
        nodes = [v for rank in ranks for v in tree.by_rank.get(rank, ()) if v.type == "node"]
        if len(nodes) < len(ranks):
            raise Rejected(f"not all of ranks {words[0]} are here", code="no-such-rank", hint="see find status=up")
        self.system.remove(nodes)
        self.over()

    def find(self, words: Sequence[str]) -> None:
        from ..schedulers.tree.finding import find

        text = " ".join(words)
        selection = find(self.system, text)
        if selection is not None:
            self.write(selection, sums="agfilter=" in text)
        self.banner(f'INFO: EXPRESSION="{text}"')

    def set_status(self, words: Sequence[str]) -> None:
        if len(words) != 2:
            raise Malformed
        if words[1] not in ("up", "down"):
            self.complain("ERROR: unrecognized status")
            return
        if self.known(words[0]):
            self.system.set_up(words[0], words[1] == "up")

    def get_status(self, words: Sequence[str]) -> None:
        if len(words) != 1:
            raise Malformed
        if self.known(words[0]):
            self.out.write(f"{words[0]} is {'up' if self.system.at(words[0]).up else 'down'}\n")

    def set_property(self, words: Sequence[str]) -> None:
        if len(words) != 2:
            raise Malformed
        name, equals, value = words[1].partition("=")
        if not name or not equals or not value:
            self.out.write("Incorrect input format. \nPlease use `set-property <resource> PROPERTY=VALUE`.\n")
        elif self.system.tree.at(words[0]) is None:
            self.out.write(f"Couldn't find path {words[0]} in resource graph.\n")
        else:
            self.system.set_property(words[0], name, value)

    def get_property(self, words: Sequence[str]) -> None:
        if len(words) != 1:
            raise Malformed
        if self.known(words[0]):
            vertex = self.system.at(words[0])
            for name, value in sorted(vertex.properties.items()):
                self.out.write(f"{name}={value}\n")
            if not vertex.properties:
                self.out.write(f"No properties were found for {words[0]} (vtx's uniq_id={vertex.ordinal}).\n")

    def known(self, path: str) -> bool:
        """Is the path there? Where not, it is said in the output."""
        if self.system.tree.at(path) is not None:
            return True
        self.out.write(f"Could not find path {path} in resource graph.\n")
        return False

    # --- others

    def cat(self, words: Sequence[str]) -> None:
        if len(words) != 1:
            raise Malformed
        self.show(read(words[0]).rstrip("\n"))
        self.show(f"INFO: Jobspec in {words[0]}")

    def help(self, words: Sequence[str]) -> None:
        if len(words) > 1:
            raise Malformed
        usages = {name: usage for name, (_, usage) in COMMANDS.items()} | {"quit": ""}
        wanted = SHORT.get(words[0], words[0]) if words else ""
        if wanted and wanted not in usages:
            self.show(f"ERROR: unknown command: {words[0]}")
        for name, usage in usages.items():
            if wanted in ("", name):
                self.show(f"{name} ({SHORT_OF[name]}) {usage}".rstrip())


def number(text: str) -> int:
    """A job's number or seconds."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Malformed
    return int(text)


def read(path: str) -> str:
    """The text of a file. Raises OSError, Rejected."""
    with open(path, encoding="utf-8") as file:
        try:
            return file.read()
        except UnicodeDecodeError:
            raise Rejected(f"{path} is not text", code="bad-file", hint="name a text file") from None


def read_json(path: str) -> Any:
    """The document in a file. Raises OSError, Rejected."""
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{path} is not JSON: {error}", code="bad-file", hint="name a JSON file") from None


Command = tuple[Callable[[Session, Sequence[str]], None], str]
COMMANDS: dict[str, Command] = {
    "match": (Session.match, f"{'|'.join(MATCH_OPS)} JOBSPEC"),
    "multi-match": (Session.multi_match, "OPERATION JOBSPEC JOBSPEC..."),
    "update": (Session.update, "allocate|reserve jgf|jgf_shorthand|rv1exec FILE JOB START_S DURATION_S"),
    "cancel": (Session.cancel, "JOB [stats]"),
    "partial-cancel": (Session.partial_cancel, "JOB jgf|rv1exec FILE [stats]"),
    "info": (Session.info, "JOB"),
    "list": (Session.list, ""),
    "stat": (Session.stat, ""),
    "find": (Session.find, "EXPRESSION"),
    "attach": (Session.attach, "FILE"),
    "remove": (Session.remove, "PATH true | RANKS false"),
    "set-status": (Session.set_status, "PATH up|down"),
    "get-status": (Session.get_status, "PATH"),
    "set-property": (Session.set_property, "PATH NAME=VALUE"),
    "get-property": (Session.get_property, "PATH"),
    "cat": (Session.cat, "FILE"),
    "help": (Session.help, ""),
}
#: As in Flux, where `j` is `remove` as well.
SHORT_OF = {
    "match": "m", "multi-match": "M", "update": "u", "cancel": "c", "partial-cancel": "pc", "info": "i", "list": "l", "stat": "s",
    "find": "f", "attach": "j", "remove": "j", "set-status": "t", "get-status": "e", "set-property": "p", "get-property": "g",
    "cat": "a", "help": "h", "quit": "q",
}  # fmt: skip
SHORT = {short: name for name, short in reversed(SHORT_OF.items())}
