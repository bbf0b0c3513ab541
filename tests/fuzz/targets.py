"""What is fuzzed: every parser of ours, what it may raise, inputs that are right, and inputs made to hurt it.

A parser gets a text (or bytes). `OURS` raise `Rejected`; what reads stored bytes raises `Corrupt`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import click

from fluxkv.instances import config_file, cron_time, memory_line, rlimits, shell_options
from fluxkv.journal import (
    config,
    constraint,
    dependency,
    directives,
    duration,
    eventlog,
    file_archive,
    hostlist,
    ids,
    idset,
    job_constraint,
    jobspec,
    manifest,
    ranges,
    retry,
    rset,
    segment,
    shape,
    snapshot,
    stdio,
    taskmap,
    urgency,
    wire,
)
from fluxkv.journal.state import State
from fluxkv.kvs import bundle, bundle_parts, epochs, tree, uri
from fluxkv.kvs.blobs import payload_hash
from fluxkv.kvs.errors import Corrupt, Rejected
from fluxkv.kvs.port import Entry
from fluxkv.schedulers import graph, job_lines, request, swf
from fluxkv.schedulers.tree import finding, grug, hwloc, jgf, needs, rv1
from fluxkv.schedulers.tree.system import System
from fluxkv.tools import inputs, target, taskmaps, when


class Target(NamedTuple):
    """back: of what parses, what must come out as it went in: value -> text, whose parse is the value again."""

    parse: Callable[[Any], Any]
    good: tuple[Any, ...]
    nasty: tuple[Any, ...] = ()
    raises: tuple[type[Exception], ...] = (Rejected,)
    back: Callable[[Any], Any] | None = None


def of_json(parse: Callable[[Any], Any]) -> Callable[[str], Any]:
    """A parser of values, fed with JSON; what is none is refused before it is asked."""

    def parser(text: str) -> Any:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise Rejected("not JSON") from None
        return parse(value)

    return parser


def lines(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: [parse(line) for line in text.splitlines()]


def toml_document(text: str) -> Any:
    document: dict[str, Any] = {}
    for line in text.splitlines():
        config_file.set_value(document, line)
    return config.parse_rules(document)


def entry_of(data: bytes) -> Any:
    """Header and payload of one entry, as one text with a length in front."""
    size = data[0] if data else 0
    return wire.read_commit(Entry(7, 5, data[1 : 1 + size], data[1 + size :]))


def folded(data: bytes) -> int:
    """Whatever a payload says, the fold takes it, and its digest and snapshot agree."""
    state = State()
    events = wire.unpack_events(data)
    state.apply(wire.Commit(1, 5, "", 0, 0, 1.0, events, {}))
    if any(event and isinstance(event, list) and event[0] == "resource-define" for event in events):
        return 0  # an inventory of a million nodes takes its time
    head, chunks = snapshot.dump(state)
    assert snapshot.load(snapshot.read_head(head), chunks).digest() == state.digest()
    return len(events)


def a_snapshot(data: bytes) -> Any:
    size = int.from_bytes(data[:2], "big")
    return snapshot.load(snapshot.read_head(data[2 : 2 + size]), [data[2 + size :]])


def _state() -> State:
    state = State()
    job = {"urgency": 16, "userid": 1, "flags": 0, "version": 1, "jobspec": json.loads(JOBSPEC)}
    state.apply(
        wire.Commit(1, 5, "", 0, 0, 1.0, [["submit", 7, 1.0, job], ["kvs.commit", "kvs", 1.0, {"ops": [["put", "a", b"1"]]}]], {})
    )
    return state


SWF = (
    "; MaxProcs: 64\n; UnixStartTime: 1000\n"
    "1 0 5 10 4 -1 -1 4 20 -1 1 3 1 -1 1 -1 -1 -1\n2 3 -1 0 4 -1 -1 -1 -1 -1 5 3 1 -1 1 -1 1 30\n"
)
JOBSPEC = json.dumps(
    {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": 2}]}],
        "tasks": [{"command": ["x"], "slot": "t", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 60.0, "cwd": "/", "shell": {"options": {"exit-timeout": "1m"}}}},
    }
)
YAML = """version: 999
resources:
  - type: slot
    count: {min: 1, max: 4}
    label: t
    with: [{type: core, count: 2}]
tasks: [{command: [x, "y"], slot: t, count: {per_slot: 1}}]
attributes: {system: {duration: 60.0}}
"""
R = json.dumps(
    {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "0-1", "children": {"core": "0-3", "gpu": "0"}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": ["n[0-1]"],
            "properties": {"p": "0"},
        },
    }
)


def deep_request(levels: int) -> str:
    """A jobspec whose resources are nested so deep."""
    return '{"resources":[' + '{"type":"node","count":1,"with":[' * levels + '{"type":"core","count":1}' + "]}" * levels + "]}"


JGF = json.dumps(
    {
        "graph": {
            "nodes": [
                {"id": "0", "metadata": {"type": "cluster", "paths": {"containment": "/c0"}}},
                {"id": "1", "metadata": {"type": "node", "name": "n0", "rank": 0, "paths": {"containment": "/c0/n0"}}},
            ],
            "edges": [{"source": "0", "target": "1", "metadata": {"subsystem": "containment"}}],
        }
    }
)
GRUG = """<graphml><key id="t" for="node" attr.name="type" attr.type="string"/>
<key id="r" for="node" attr.name="root" attr.type="int"/>
<key id="m" for="edge" attr.name="multi_scale" attr.type="int"/>
<graph edgedefault="directed"><node id="c"><data key="t">cluster</data><data key="r">1</data></node>
<node id="n"><data key="t">node</data></node><edge source="c" target="n"><data key="m">3</data></edge></graph></graphml>"""
HWLOC = """<topology version="2.0"><object type="Machine"><info name="HostName" value="h7"/><object type="Package">
<object type="Core"><object type="PU"/></object></object></object></topology>"""
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ENTITIES = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9))
    + "]>"
)
DEEP_JSON = '{"a":' * 5_000 + "1" + "}" * 5_000
DEEP_LIST = "[" * 5_000 + "]" * 5_000
HUGE = "9" * 5_000
SPACES = " " * 20_000
BACKTRACK = ("a" * 3_000 + "!", "(" * 500 + "a" * 500, "0-" * 2_000, "1," * 4_000 + "x", "." * 5_000, "-" * 5_000)
TEXTS = (HUGE, SPACES, *BACKTRACK, "\0" * 100, "\ud800", "\u202e" * 50, "𝟗" * 100)
JSONS = (DEEP_JSON, DEEP_LIST, "1e400", "-" + HUGE, '{"a": NaN}', '{"version": 1e308}', json.dumps({"a" * 10_000: "b" * 10_000}))
GOOD_PAYLOAD = wire.pack_events(
    [["submit", 7, 1.0, {"urgency": 16, "userid": 1, "flags": 0, "version": 1, "jobspec": json.loads(JOBSPEC)}]]
)
ALLOC = wire.pack_events(
    [
        ["alloc", 7, 1.0, {"claims": [[0, "0-1", "", 0, 1]]}],
        ["report", "node/0", 1.0, {"rank": 0, "start": [[7, 1, 1.0]], "over": [[7, 1, 1.0, 2.0, 0, "", 0]]}],
    ]
)
BOMBS = (
    b"\x01" + zlib.compress(b"\xc0" * (40 << 20), 9),
    b"\x01" + zlib.compress(b"\xdd\x0f\xff\xff\xff" + b"\xc0" * (40 << 20), 9),
    b"\x00\xdd\xff\xff\xff\xff",
    b"\x00\xdf\xff\xff\xff\xff",
    b"\x00\xc6\xff\xff\xff\xff",
    b"\x00" + b"\x91" * 20_000,
    b"\x01" + zlib.compress(b"\x91" * 2_000_000, 9),
    b"\x01",
    b"",
    b"\x07x",
)


NESTED = b"\x01" + zlib.compress(b"\x9f" + (b"\xdd\x00\x10\x00\x00" + b"\x90" * (1 << 20)) * 15, 9)  # 15 million lists


def _header(payload: bytes) -> bytes:
    parts: list[Any] = ["", 0, 6, payload_hash(payload), "", "", [], {}, "1700000000000000"]
    return b"\x99" + b"".join(map(wire.pack, parts))


def _bumping(things: bytes) -> bytes:
    """A header whose bumps are these bytes, compressed."""
    parts: list[Any] = ["", 0, 6, b"", zlib.compress(things, 9), "", [], {}, "1700000000000000"]
    return b"\x99" + b"".join(map(wire.pack, parts))


def _entry(payload: bytes) -> bytes:
    header = _header(payload)
    return bytes([len(header)]) + header + payload


def _snapshot() -> bytes:
    head, chunks = snapshot.dump(_state())
    return len(head).to_bytes(2, "big") + head + b"".join(chunks)


STORED = (Corrupt,)
TYPED = (Rejected, click.UsageError)  # of what is typed
HEADERS = (*BOMBS, b"\x99" * 3_000, _bumping(b"x" * (40 << 20)), _bumping(b"ab\n" * 2_500_000), _bumping(b"\n" * (8 << 20)))

ENDED_META = {"uid": "u", "epoch": 5, "version": 1, "floor": 0, "origin_ms": 0, "durability": "strict", "schema": 1, "created": 1.0}


def _body() -> bytes:
    """Of the file of an instance that ended; some of what it had is in parts."""
    snapshot = [1, b"head", [b"chunk", [0, 3]]]
    return wire.pack([["/\u01921", ENDED_META, [[1, 5, b"header", b"payload"], [2, 5, [0, 2], b"check"]], {"ab" * 20: [0, 1]},
                       {"key": [["1-0", b"said"], ["2-0", [0, 0]]]}, {"job/1": "1"}, snapshot]])  # fmt: skip


def ended(body: bytes) -> bytes:
    """The file that has this body, with checksums that hold."""
    (made,) = [bundle.to_bytes("x", [], ["ab"])]
    begin = len(bundle.MAGIC) + 4
    size = int.from_bytes(made[begin - 4 : begin], "big")
    head = wire.pack({**wire.unpack(made[begin : begin + size]), "check": bundle._check(body)})
    return b"".join([bundle.MAGIC_PARTS, len(head).to_bytes(4, "big"), head, bundle._check(head), zlib.compress(body)])


def part_of(data: bytes) -> bytes:
    """The first row of a part."""
    files = {bundle_parts.part_name("f", bundle_parts._word(data)): data}
    depot = SimpleNamespace(url="here", get=files.get)
    return bundle_parts.PartReader(depot, "f", [bundle_parts._word(data)]).get(bundle_parts.Far(0, 0))  # type: ignore[arg-type]


TARGETS: dict[str, Target] = {
    "idset": Target(
        idset.parse, ("0-3,5", "[1,3-4]"), ("0-99999999999", "0-2147483647", "0-4000000000,7", *TEXTS), back=idset.format_ids
    ),
    "idset mask": Target(idset.mask_of, ("0-3,5",), ("0-99999999999", *TEXTS)),
    "hostlist": Target(
        hostlist.expand,
        ("n[0-3,7],m1", "a[01-10]b"),
        ("a[0-9999999]" * 20, "a[0-999][0-999][0-999]", "a[0-99999999]", "a[0-9],".join(["x"] * 500), *TEXTS),
        back=hostlist.compress,
    ),
    "job id": Target(
        ids.parse_id, ("ƒ2HfzjxT", "f1", "12345", "0x1f", "academy-academy-academy--academy-academy-academy"), TEXTS, back=ids.f58
    ),
    "duration": Target(duration.parse_duration, ("10m", "1.5h", "inf", "2d"), TEXTS, back=duration.format_duration),
    "range": Target(ranges.parse_range, ("1-4:2:*", "3+"), ("1-2147483647:1:+", "1-99999999999999:2:^", *TEXTS)),
    "count": Target(ranges.parse_count, ("4", "1-4", "1,3"), TEXTS),
    "shape": Target(shape.parse_shape, ("slot=2/[core=4;gpu]", "node=1/slot=1/core"), ("slot=1/" * 3_000, "node[" * 3_000, *TEXTS)),
    "jobspec JSON": Target(jobspec.parse_jobspec, (JOBSPEC,), (*JSONS, *TEXTS)),
    "jobspec YAML": Target(
        jobspec.parse_jobspec,
        (YAML,),
        (
            LAUGHS,
            "a: &a [*a]",
            "&a [*a, *a]",
            "- " * 3_000 + "x",
            "{" * 3_000,
            "? " * 3_000,
            "!!python/object/apply:os.system [x]",
            "a: !!binary " + "A" * 5_000,
            "x: " + "'" * 5_000,
            "%TAG ! tag:x\n---\nx",
            "a: 1_0" * 500,
            "version: 0o" + "7" * 4_000,
            "<<: *x",
            "a: {<<: [{}, {}]}",
            "1:" * 500 + "59",
            *TEXTS,
        ),
    ),
    "R": Target(
        of_json(rset.parse_R),
        (R,),
        (*JSONS, R.replace("0-1", "0-999999999"), R.replace("0-3", "0-2147483000"), R.replace("n[0-1]", "n[0-99999999]")),
    ),
    "JGF": Target(of_json(jgf.from_jgf), (JGF,), JSONS),
    "graph": Target(of_json(graph.from_jgf), (JGF,), JSONS),
    "R as tree": Target(rv1.from_rv1, (R,), (*JSONS, *TEXTS, R.replace("0-1", "0-999999999"))),
    "GRUG": Target(
        grug.from_grug,
        (GRUG,),
        (
            ENTITIES + "<graphml>&j;</graphml>",
            GRUG.replace(">3<", ">4000000000<"),
            "<a>" * 3_000,
            "<graphml",
            GRUG.replace(">3<", ">-3<"),
            *TEXTS,
        ),
    ),
    "hwloc": Target(
        hwloc.from_hwloc,
        (HWLOC,),
        (ENTITIES + "<topology>&j;</topology>", "<topology>" + "<object type='Machine'>" * 3_000, "<topology", *TEXTS),
    ),
    "tree request": Target(of_json(needs.compile_request), (JOBSPEC,), (*JSONS, deep_request(100), deep_request(2_000))),
    "find": Target(
        lambda text: finding.parse(System(grug.from_grug(GRUG)), text),
        ("status=up and (sched-now=free or not jobid-tag=1) names=node[0-2]", "property=a=b agfilter=true"),
        ("(" * 3_000, "not " * 3_000, "status=up and " * 2_000, "names=n[0-99999999]", "jobid-alloc=" + "9" * 5_000, *TEXTS),
    ),
    "constraint": Target(
        constraint.parse_query, ("host:a,b and not (host:c|host:d)",), ("(" * 3_000, "not " * 3_000, "a and " * 3_000, *TEXTS)
    ),
    "requires": Target(constraint.parse_requires, ("a|b", "host:n1 and -x"), ("(" * 3_000, "not " * 3_000, *TEXTS)),
    "constraint value": Target(
        of_json(constraint.check),
        ('{"and":[{"properties":["a"]},{"not":[{"ranks":["0-3"]}]}]}',),
        (*JSONS, '{"not":[' * 2_000 + "{}" + "]}" * 2_000),
    ),
    "job query": Target(
        lambda text: job_constraint.compile(job_constraint.parse_job_query(text), {}),
        ("states:run & (queue:batch | name:sim)",),
        ("(" * 3_000, "not " * 3_000, "name:" + "*" * 2_000, *TEXTS),
    ),
    "task map": Target(taskmap.parse_map, ("[[0,2,3,1]]",), ("[[0,1000000000,1000000000,1000000000]]", *TEXTS, *JSONS)),
    "raw task map": Target(taskmap.from_raw, ("0-3;4-7",), ("0-99999999999", ";" * 5_000, *TEXTS)),
    "task map option": Target(taskmaps.taskmap_option, ("cyclic:2", "block", "manual:[[0,1,2,1]]"), TEXTS, raises=TYPED),
    "event": Target(eventlog.parse_event, ('{"timestamp":1.0,"name":"x","context":{}}',), (*JSONS, *TEXTS)),
    "output record": Target(
        of_json(lambda value: stdio.Reader().read("header", value)),
        ('{"version":1,"encoding":{"stdout":"UTF-8"},"count":{"stdout":1},"options":{}}',),
        JSONS,
    ),
    "directives": Target(
        directives.parse_directives,
        ("#!/bin/sh\n#flux: -N2\n#flux: --job-name='a b'\nx\n",),
        ("#flux: " + "'" * 5_000, "#flux: '''\n" + "#flux: x\n" * 1_000, *TEXTS),
    ),
    "dependency": Target(
        lambda text: dependency.normalise(text),
        ("afterok:ƒ2?x=1", "any(afterok:1,all(after:2,afterany:3))"),
        ("any(" * 3_000, "any(" + "after:1," * 3_000 + ")", *TEXTS),
    ),
    "dependencies": Target(of_json(dependency.read), ('[{"scheme":"after","value":"1"}]',), JSONS),
    "urgency": Target(urgency.parse_urgency, ("16", "hold", "expedite"), TEXTS),
    "KVS key": Target(tree.check_key, ("a.b.c",), ("a." * 5_000, *TEXTS)),
    "setting": Target(jobspec.parse_setting, ("a.b=1", "user.x={}"), (*TEXTS, "a=" + DEEP_JSON, "a." * 3_000 + "=1")),
    "config": Target(
        of_json(config.parse_rules), ('{"queues":{"batch":{"requires":["x"],"policy":{"limits":{"duration":"1h"}}}}}',), JSONS
    ),
    "config lines": Target(
        toml_document,
        ('queues.b.requires=["x"]\npolicy.limits.duration="1h"',),
        (*TEXTS, "a." * 2_000 + "b=1", "a=" + DEEP_LIST, "a=" + HUGE, "a=1979-99-99"),
    ),
    "crontab line": Target(
        lines(lambda line: cron_time.tab_trigger(cron_time.split_line(line)[0], "UTC")),
        ("*/10 8-18 * * mon-fri ./probe", "@daily x"),
        ("0-99999999999 * * * * x", "*/0 * * * * x", "* * * * * ", *TEXTS),
    ),
    "retry": Target(
        of_json(retry.parse_retry),
        ('{"limit":3,"on":["exit=64-78","signal=KILL"],"delay":"1m"}', "2"),
        (*JSONS, '{"on":["exit=0-99999999999"]}', '{"delay":"inf"}'),
    ),
    "rlimits": Target(
        lambda text: rlimits.apply_rules([text], {"nofile": 5}), ("nofile=512", "-*", "nofile"), (*TEXTS, "*" * 3_000 + "a")
    ),
    "shell options": Target(of_json(shell_options.parse_shell_options), ('{"exit-timeout":"1m","verbose":1}',), JSONS),
    "attached files": Target(
        of_json(lambda value: list(file_archive.read_archive(value))),
        ('{"a":{"mode":33188,"data":"aGk=","encoding":"base64","size":2}}',),
        JSONS,
    ),
    "memory limit": Target(memory_line.parse_line, ("4G", "30%"), TEXTS),
    "store URI": Target(uri.parse_uri, ("unix:/tmp/x#/ƒ1", "redis://u@h:6379/0#/", "memory:a"), TEXTS),
    "server URL": Target(uri.parse_server, ("rediss://u:p@h:6379", "redis+sentinel://a:1,b:2/m"), TEXTS),
    "epochs": Target(epochs.spans, ("5:1 7:20!30",), TEXTS, raises=(Corrupt, Rejected)),
    "moment": Target(
        lambda text: target.parse_moment(text, 1.7e9), ("10:30", "-5m", "@1700000000", "yesterday 17:00", "12"), TEXTS
    ),
    "when": Target(lambda text: when.parse_when(text, 1.7e9), ("+2h", "tomorrow 6:00"), TEXTS),
    "separator": Target(inputs.separator, ("\\t", ","), TEXTS, raises=TYPED),
    "trace": Target(lambda text: swf.parse_swf(text.splitlines()), (SWF,), (SWF.replace("64", "99999999999"), *TEXTS)),
    "lines of jobs": Target(
        lambda text: job_lines.parse_job_lines(text.splitlines()),
        ('{"id":"a","submit":1,"run":"1m","limit":60,"nodes":2,"tasks":4,"cores":2}\n{"run":1,"after":["a"],"urgency":20}',),
        ('{"run":1e400}', '{"run":1,"nodes":4000000000,"tasks":4000000000}', '{"run":1,"after":[[]]}', *JSONS, *TEXTS),
    ),
    "R request": Target(of_json(lambda value: request.compile_request(jobspec.parse_jobspec(value))), (JOBSPEC,), JSONS),
    "header": Target(lambda data: wire.read_header(Entry(7, 5, data, b"")), (_header(b"x"),), HEADERS, STORED),
    "payload": Target(wire.unpack_events, (GOOD_PAYLOAD, ALLOC), (*BOMBS, NESTED), STORED),
    "entry": Target(entry_of, (_entry(GOOD_PAYLOAD),), tuple(map(_entry, BOMBS)), STORED),
    "fold": Target(folded, (GOOD_PAYLOAD, ALLOC), BOMBS[2:6], STORED),
    "snapshot": Target(a_snapshot, (_snapshot(),), (b"", b"\xff\xff", b"\x00\x03\x81\xa1a"), STORED),
    "segment": Target(lambda data: segment.decode("1-2.x", data), (b"",), BOMBS, (Corrupt,)),
    "ended child": Target(lambda data: bundle.from_bytes(ended(data), "here"), (_body(),), BOMBS[2:6], (Corrupt,)),
    "part": Target(part_of, (zlib.compress(wire.pack([b"said", b"more"])),), BOMBS, (Corrupt,)),
    "manifest": Target(
        lambda data: manifest.from_bytes(data, "here"), (b"{}",), (DEEP_JSON.encode(), b"\xff" * 100, *BOMBS[2:]), (Corrupt,)
    ),
}
