"""Children side by side: what they do together when each has a server of its own, and when all share their parent's.

The launcher is not asked for their jobs, so it is servers, workers and agents that are measured. Each child is driven by a process
of its own; a machine with few cores is soon full.
"""

from __future__ import annotations

import subprocess
import sys
import time

from rig import PROGRAM, Figure, Meter, Rig, figure, instance

import fluxkv
from fluxkv.journal.ids import parse_id

EMPTY = {"system.exec.test.run_duration": "0s"}  # the launcher is not asked; all the rest is as ever
SIZES = (1, 2, 4, 8)
WAIT_S = 300.0


def side_by_side(count: int) -> list[Figure]:
    """`count` jobs in each of 1, 2, 4 and 8 one-core children, on servers of their own and on their parent's."""
    found: list[Figure] = []
    for kvs, where in (("own", "a server each"), ("parent", "one server")):
        first = 0.0
        for children in SIZES:
            with instance("-s", "1", "--cores", str(max(SIZES))) as rig:
                rate, ended_s, server_s, busy = _together(rig, kvs, children, count)
            first = first or rate
            name = f"{children} children, {where}, {count:,} empty jobs in each"
            note = f"{rate / first:.2f} x one" + (f"; {busy}" if busy else "")
            found.append(figure(f"{name}: rate", rate, "/s", better="higher", note=note))
            if children == SIZES[-1]:
                name = f"{children} children, {where}: the parent's server, CPU per 1,000 jobs"
                found.append(figure(name, server_s / children / count * 1000, "s"))
            if children == 1:
                found.append(figure(f"one child, {where}, {count:,} jobs in it: cancel to end", ended_s, "s"))
    return found


def _together(rig: Rig, kvs: str, children: int, count: int) -> tuple[float, float, float, str]:
    """(jobs a second of all together, seconds from the first one's cancel to its end, what the parent's server worked for the jobs,
    a word about others)."""
    with fluxkv.connect(rig.uri) as root:
        words = [PROGRAM, "alloc", "--bg", "-n1", f"--kvs={kvs}"]
        made = [subprocess.Popen(words, env=rig.environment(), stdout=subprocess.PIPE, text=True) for _ in range(children)]
        ids = [one.communicate(timeout=60)[0].strip() for one in made]
        uris = [subprocess.check_output([PROGRAM, "uri", id], env=rig.environment(), text=True).strip() for id in ids]
        drivers = [_driver(uri, count) for uri in uris]
        for one in drivers:
            assert one.stdout is not None
            if one.stdout.readline() != "ready\n":
                raise RuntimeError("a driver did not come up")
        meter, start, spent = Meter(), time.perf_counter(), rig.cpu()["server"]
        for one in drivers:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        if any(one.wait(WAIT_S) for one in drivers):
            raise RuntimeError("jobs of a child failed")
        seconds, busy, spent = time.perf_counter() - start, meter.note(), rig.cpu()["server"] - spent
        began = time.perf_counter()
        first = parse_id(ids[0])
        root.cancel([first])
        root.wait([first], 60)
        ended = time.perf_counter() - began
    return children * count / seconds, ended, spent, busy


def _driver(uri: str, count: int) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, uri, str(count)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def drive(uri: str, count: int) -> int:
    """In a driver's process: submit when told to, wait for all; its exit status."""
    with fluxkv.connect(uri) as client:
        client.submit(["true"], attributes=EMPTY).wait(30)
        print("ready", flush=True)
        sys.stdin.readline()
        ids = client.submit_many([["true"]] * count, attributes=EMPTY)
        return int(any(not one.ok for one in client.wait(ids, WAIT_S)))


if __name__ == "__main__":
    sys.exit(drive(sys.argv[1], int(sys.argv[2])))
