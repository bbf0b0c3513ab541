"""Golden journals: histories that programs of older schemas wrote, kept for good as they wrote them (see tests/README.md).

    python tests/support/golden.py add valid/schema-4 --seed 7     a history of the small simulator, by this very program
    python tests/support/golden.py add valid/graph-4 --graph       one of an instance with a graph of resources
    python tests/support/golden.py add warn/odd --uri URI          what an instance has journalled
    python tests/support/golden.py refold                          after SCHEMA was raised: note what they fold to now

A file is gzip of JSON lines, [id, header, payload], the latter two in base64. `golden.json` says of each its checksum, and what it
is to fold to under each schema. Neither a file nor what is said of it for a schema ever changes or goes.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from fluxkv.journal.log import Journal
from fluxkv.journal.quarantine import listed
from fluxkv.journal.schema import SCHEMA
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Corrupt
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Entry, id_pair

FOLDER = Path(__file__).resolve().parents[1] / "replay"
INDEX = FOLDER / "golden.json"
KINDS = ("valid", "warn", "invalid")


def index() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(INDEX.read_text("utf-8"))
    return found


def file_of(name: str) -> Path:
    return FOLDER / f"{name}.jsonl.gz"


def checksum(name: str) -> str:
    return hashlib.sha256(gzip.decompress(file_of(name).read_bytes())).hexdigest()


def read(name: str) -> list[Entry]:
    entries = []
    for line in gzip.decompress(file_of(name).read_bytes()).splitlines():
        id, header, payload = json.loads(line)
        entries.append(Entry(*id_pair(id), base64.b64decode(header), base64.b64decode(payload)))
    return entries


def write(name: str, entries: list[Entry]) -> None:
    rows = [[one.id, base64.b64encode(one.header).decode(), base64.b64encode(one.payload).decode()] for one in entries]
    file_of(name).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))


def journal_of(entries: list[Entry]) -> Journal:
    """A store that holds just these entries."""
    store = MemoryStore(MemoryServer(lambda: 1.0, random.Random(1)))
    store.create(durability="strict", origin_ms=0, created=1.0)
    store.server.tables.journals["/"].extend(entries)
    return Journal(store)


def judged(name: str) -> dict[str, Any]:
    """What this program makes of it: what stands in the index under its schema."""
    state = State()
    try:
        for commit in journal_of(read(name)).commits():
            state.apply(commit)
    except Corrupt as error:
        return {"code": error.code, "at": state.version + 1}
    found: dict[str, Any] = {"version": state.version, "digest": state.digest().hex()}
    if state.skipped or state.quarantine:
        aside = [[one.what, one.version, one.name, one.code, one.count] for one in listed(state.quarantine.table)]
        found |= {"skipped": state.skipped, "impossible": state.quarantine.total, "aside": aside}
    return found


def note(name: str, table: dict[str, dict[str, Any]]) -> None:
    one = table.setdefault(name, {"sha256": checksum(name), "folds": {}})
    one["folds"].setdefault(str(SCHEMA), judged(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add")
    adding.add_argument("name")
    adding.add_argument("--seed", type=int)
    adding.add_argument("--uri")
    adding.add_argument("--graph", action="store_true")
    commands.add_parser("refold")
    asked = parser.parse_args()
    table = index() if INDEX.exists() else {}
    if asked.command == "add":
        assert asked.name.partition("/")[0] in KINDS, f"a name is one of {KINDS}, a slash and a word"
        assert asked.name not in table, "a golden journal is never changed"
        write(asked.name, with_graph() if asked.graph else played(asked.seed) if asked.uri is None else of_instance(asked.uri))
        note(asked.name, table)
    for name in table:
        note(name, table)
    INDEX.write_text(json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def played(seed: int) -> list[Entry]:
    import mini_sim

    sim = mini_sim.Sim(seed, 250)
    sim.run()
    entries: list[Entry] = sim.cli.store.read(0, 1_000_000)
    return entries


def with_graph() -> list[Entry]:
    """Jobs that draw on power and NVMe, housekeeping that keeps it, a worker's end, nodes that come and go, properties, status."""
    from trees import racks, vertex
    from worker_rig import Rig, jobspec

    from fluxkv.instances.reactor import Lead
    from fluxkv.journal import decide_graph
    from fluxkv.journal.rset import NodeRecord, ResourceSet
    from fluxkv.schedulers.tree.record import to_record

    rig = Rig(4, tree=racks(), config={"job-manager": {"housekeeping": {"command": ["h"], "release-after": "0"}}})

    def job(*resources: dict[str, Any]) -> int:
        spec = jobspec(duration=60.0)
        spec["resources"] = list(resources)
        return rig.submit(spec)

    def over(id: int) -> None:
        rig.started(id)
        rig.over(id)
        rig.turn()
        for rank in rig.job(id).ranks:
            rig.report(rank, script=[[id, rig.job(id).attempt, "h", rig.now, rig.now, 0, ""]])
            rig.turn()

    def change(decided: Any) -> None:
        rig.do(decided[0])
        rig.turn()

    slot = vertex("slot", 1, vertex("core", 1), vertex("nvme", 1), label="t")
    powered = vertex("rack", 1, vertex("power", 8), vertex("node", 1, slot))
    first, second, third = job(powered), job(powered), job(powered)
    over(first)
    rig.worker = rig.new_worker("worker-1")
    rig.turn(Lead(True))
    over(second)
    whole = job(vertex("rack", 1, vertex("node", 1, slot), exclusive=True))
    more = ResourceSet(tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, ()) for rank in range(6)), tree=to_record(racks(3)).wire)
    change(decide_graph.attach(rig.journal.load(), more, "", rig.now))
    for rank in (4, 5):
        rig.hello(rank)
    change(decide_graph.properties(rig.journal.load(), ["/cluster0/rack2"], [4], {"row": "b"}, (), rig.now))
    change(decide_graph.status(rig.journal.load(), ["/cluster0/rack2/power0"], up=False, now=rig.now))
    over(third)
    over(whole)
    change(decide_graph.remove(rig.journal.load(), ["/cluster0/rack1"], rig.now))
    job(powered)
    entries: list[Entry] = rig.store.read(0, 1_000_000)
    return entries


def of_instance(uri: str) -> list[Entry]:
    from fluxkv.kvs.redis_store import open_store

    return open_store(uri).read(0, 1_000_000)


if __name__ == "__main__":
    main()
