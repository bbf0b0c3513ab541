"""Standard output and input of jobs as event logs (RFC 24): header, data, redirect and log events.

Decides their contexts and how they are read back into bytes. Never stores or forwards anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from . import idset
from .shown import shown

MAX_EXPANDED = 1 << 26  # bytes one data event may stand for
PROGRAM = "flux-shell"  # who logs, when a log event does not say


class Data(NamedTuple):
    """Output of tasks: `text` of each, repeats written out. ranks: ascending. eof: nothing follows."""

    stream: str
    ranks: tuple[int, ...]
    text: bytes
    eof: bool


class Redirect(NamedTuple):
    """From here on a stream of some tasks goes to the file `path` ("" when not said)."""

    stream: str
    ranks: tuple[int, ...]
    path: str


class Log(NamedTuple):
    """A message of the job's machinery. level: 0 (worst) to 7, RFC 5424. rank: the shell's, or -1."""

    level: int
    message: str
    rank: int
    program: str


def _fault(why: str) -> Rejected:
    return Rejected(f"bad output event: {why}", code="bad-output-event", hint="see RFC 24")


def header(count: Mapping[str, int], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Context of the first event. count: how many tasks write to each stream, e.g. {"stdout": 4}."""
    return {
        "version": 1,
        "encoding": dict.fromkeys(count, "UTF-8"),
        "count": dict(count),
        "options": dict(options or {}),
    }


def data(
    stream: str, ranks: str | int, text: bytes = b"", eof: bool = False, repeat: int = 1
) -> dict[str, Any]:
    """Context of a data event. ranks: a rank, an idset or "all". Bytes that are not UTF-8 go as base64."""
    context: dict[str, Any] = {"stream": stream, "rank": str(ranks)}
    if text:
        try:
            context["data"] = text.decode()
        except UnicodeDecodeError:
            from binascii import b2a_base64

            context["data"] = b2a_base64(text, newline=False).decode("ascii")
            context["encoding"] = "base64"
    if eof:
        context["eof"] = True
    if repeat != 1:
        context["repeat"] = repeat
    return context


def redirect(stream: str, ranks: str | int, path: str) -> dict[str, Any]:
    """Context of a redirect event."""
    return {"stream": stream, "rank": str(ranks), "path": path}


def log(level: int, message: str, rank: int | None = None, program: str = PROGRAM) -> dict[str, Any]:
    """Context of a log event. level: 0 (worst) to 7."""
    context: dict[str, Any] = {"level": level, "message": message}
    if rank is not None:
        context["rank"] = rank
    if program != PROGRAM:
        context["program"] = program
    return context


class Reader:
    """Reads the events of one log in order; gives what each says. Unknown events say nothing."""

    __slots__ = ("count", "encoding", "options")

    def __init__(self) -> None:
        self.encoding: dict[str, str] | None = None  # of each stream, once the header has been read
        self.count: dict[str, int] = {}
        self.options: dict[str, Any] = {}

    def read(self, name: str, context: Mapping[str, Any] | None) -> Data | Redirect | Log | None:
        """What one event says; None for the header and unknown ones. Raises `Rejected` (bad-output-event)."""
        if context is None:
            context = {}
        if not isinstance(context, Mapping):
            raise _fault("context is not an object")
        if name == "header":
            self._header(context)
            return None
        if self.encoding is None:
            raise _fault("the header must come first")
        if name == "data":
            return self._data(context)
        if name == "redirect":
            path = context.get("path", "")
            if not isinstance(path, str):
                raise _fault("path is not a string")
            return Redirect(self._stream(context), self._ranks(context), path)
        if name == "log":
            return _log(context)
        return None

    def _header(self, context: Mapping[str, Any]) -> None:
        if self.encoding is not None:
            raise _fault("a second header")
        if type(context.get("version")) is not int or context["version"] != 1:
            raise _fault("version must be 1")
        encoding, count = context.get("encoding"), context.get("count")
        if not isinstance(encoding, Mapping) or not isinstance(count, Mapping):
            raise _fault("encoding and count must be objects")
        if any(not isinstance(e, str) or e.upper() not in ("UTF-8", "BASE64") for e in encoding.values()):
            raise _fault("an unknown encoding")
        if any(type(n) is not int or not 0 <= n < idset.MAX_ID for n in count.values()):
            raise _fault("a count is not a number of tasks")
        options = context.get("options", {})
        if not isinstance(options, Mapping):
            raise _fault("options must be an object")
        self.encoding, self.count, self.options = dict(encoding), dict(count), dict(options)

    def _stream(self, context: Mapping[str, Any]) -> str:
        stream = context.get("stream")
        if not isinstance(stream, str) or self.encoding is None or stream not in self.encoding:
            raise _fault(f"stream {shown(stream)} is not in the header")
        return stream

    def _ranks(self, context: Mapping[str, Any]) -> tuple[int, ...]:
        text = context.get("rank")
        if text == "all":
            return tuple(range(self.count.get(self._stream(context), 0)))
        if type(text) is int and 0 <= text < idset.MAX_ID:  # older writers
            return (text,)
        try:
            return idset.parse(text)  # type: ignore[arg-type]
        except Rejected as error:
            raise _fault(f"rank: {error}") from None

    def _data(self, context: Mapping[str, Any]) -> Data:
        stream, ranks = self._stream(context), self._ranks(context)
        written, eof, repeat = context.get("data", ""), context.get("eof", False), context.get("repeat", 1)
        if eof == "true":  # as RFC 24 prints it once
            eof = True
        if not isinstance(written, str) or not isinstance(eof, bool) or type(repeat) is not int or repeat < 1:
            raise _fault("data must be a string, eof a boolean and repeat a positive integer")
        assert self.encoding is not None
        encoding = context.get("encoding", self.encoding[stream])
        if not isinstance(encoding, str) or encoding.upper() not in ("UTF-8", "BASE64"):
            raise _fault(f"unknown encoding {shown(encoding)}")
        if encoding.upper() == "BASE64":
            from binascii import Error, a2b_base64

            try:
                text = a2b_base64(written.encode("ascii"), strict_mode=True)
            except (Error, ValueError) as error:
                raise _fault(f"data is not base64: {error}") from None
        else:
            text = written.encode("utf-8", "surrogatepass")
        if len(text) * repeat * max(len(ranks), 1) > MAX_EXPANDED:
            raise _fault(f"data stands for more than {MAX_EXPANDED} bytes")
        return Data(stream, ranks, text * repeat, eof)


def _log(context: Mapping[str, Any]) -> Log:
    level, message = context.get("level"), context.get("message")
    rank, program = context.get("rank", -1), context.get("program", PROGRAM)
    if type(level) is not int or not 0 <= level <= 7:
        raise _fault("level must be from 0 to 7")
    if not isinstance(message, str) or not isinstance(program, str) or type(rank) is not int:
        raise _fault("message and program must be strings, and rank an integer")
    return Log(level, message, rank, program)


class Output(NamedTuple):
    """A whole log. streams: stream -> rank -> bytes. eof: ended (stream, rank). redirects: these -> path."""

    streams: dict[str, dict[int, bytes]]
    eof: set[tuple[str, int]]
    redirects: dict[tuple[str, int], str]
    logs: list[Log]


def collect(events: Iterable[tuple[str, Mapping[str, Any] | None]]) -> Output:
    """Everything a log of (name, context) says. Raises `Rejected` (code bad-output-event)."""
    reader = Reader()
    pieces: dict[str, dict[int, list[bytes]]] = {}
    output = Output({}, set(), {}, [])
    for name, context in events:
        said = reader.read(name, context)
        if isinstance(said, Data):
            for rank in said.ranks:
                if said.text:
                    pieces.setdefault(said.stream, {}).setdefault(rank, []).append(said.text)
                if said.eof:
                    output.eof.add((said.stream, rank))
        elif isinstance(said, Redirect):
            for rank in said.ranks:
                output.redirects[said.stream, rank] = said.path
        elif isinstance(said, Log):
            output.logs.append(said)
    for stream, by_rank in pieces.items():
        output.streams[stream] = {rank: b"".join(parts) for rank, parts in by_rank.items()}
    return output
