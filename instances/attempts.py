"""From a worker's order to a launcher's attempt: environment, files, affinity, limits. Pure.

Environment names are Flux's (FLUX_JOB_ID, FLUX_TASK_RANK, ...); FLUXKV_* are ours. The command and the paths of input and
output may hold templates (`templates`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..journal.file_archive import read_archive
from ..journal.ids import f58
from ..journal.idset import ids_of_mask, mask_of
from ..journal.retry import parse_retry
from ..kvs.errors import Rejected
from .pace import USUAL
from .shell_options import Pretended, ShellOptions, grace_of, parse_pretended, parse_shell_options, shell_options_of
from .staging import Row, rows_of
from .templates import expand, expand_all, has_template, job_words, names_tag, names_task, task_words

PART = "~"


class Placed:
    """An attempt the launcher was given, as the agent remembers it.

    over: its end has been heard. exits: of its first tasks, told already. claim: [what it holds here (wire), on how many nodes
    it is], None where that is not known (placed ahead, and not begun).
    """

    __slots__ = ("claim", "exits", "fake", "job", "key", "letter", "over", "rank", "t_start", "version")

    def __init__(self, key: str, job: int, version: int, rank: int, fake: bool = False) -> None:
        self.key = key
        self.job = job
        self.version = version
        self.rank = rank
        self.t_start = 0.0
        self.over = False
        self.claim: list[Any] | None = None
        self.exits: set[tuple[Any, ...]] = set()
        letter = key.rpartition(".")[0][-1:]
        self.letter = letter if letter.isalpha() else ""  # of a script's attempt (`script_orders`)
        self.fake = fake  # held by the launcher that only pretends, in this process

    @property
    def name(self) -> str:
        """`<job>.<version>-<epoch>`, with a letter behind it for a script."""
        return self.key.rpartition(".")[0]

    def untold(self, exits: Iterable[list[Any]] = ()) -> list[list[Any]]:
        """Rows of a report about first exits, [task rank, wait status, time], each given once."""
        rows = [[self.job, self.version, *one] for one in exits if tuple(one) not in self.exits]
        self.exits.update(map(tuple, exits))
        return rows


class Host:
    """What an agent process knows of its host.

    names: rank -> host name. cpus: core id -> CPU numbers of this machine, or {} when tasks are not to be bound.
    uri: the instance's, for tasks. tmp: folder for job directories. origin_ms: what job ids count from. joined: whether it has
    joined from elsewhere, and may leave while the instance goes on. report_s: see `pace`.
    """

    def __init__(
        self, names: Mapping[int, str], boot: str, spool_id: str, uri: str, tmp: str, cpus: Mapping[int, list[int]],
        state_dir: str = "", origin_ms: int = 0, joined: bool = False, report_s: float = USUAL.report_s,
    ) -> None:  # fmt: skip
        self.names = dict(names)
        self.ranks = sorted(names)
        self.boot = boot
        self.spool_id = spool_id
        self.uri = uri
        self.tmp = tmp
        self.cpus = dict(cpus)
        self.state_dir = state_dir
        self.origin_ms = origin_ms  # Unix milliseconds that job ids count from
        self.joined = joined
        self.report_s = report_s


def hello(
    host: Host, rank: int, epoch: int, cursor: str, placed: Iterable[Placed]
) -> dict[str, Any]:
    """Context of a node's hello: who it is, how far it has read, every attempt it has, and what each holds, for a journal that may
    not know."""
    here = [one for one in placed if one.rank == rank]
    context: dict[str, Any] = {
        "rank": rank, "host": host.names[rank], "boot": host.boot, "spool": host.spool_id, "epoch": epoch, "cursor": cursor,
        "held": [one.name for one in here],
    }  # fmt: skip
    claims = {one.name: [*one.claim, one.t_start] for one in here if one.claim is not None and one.t_start}
    if claims:
        context["claims"] = claims
    return context


def split_key(key: str) -> tuple[int, int, int]:
    """(job, version, rank) of a launcher key `<job>.<version>-<epoch>.<rank>`; behind the rank of a node that came while the job
    ran stands `~` and its index in the job, so that one that comes twice has two."""
    job, attempt, rank = key.split(".")
    return int(job), int(attempt.partition("-")[0]), int(rank.partition(PART)[0])


def build_attempt(host: Host, rank: int, order: dict[str, Any], key: str) -> dict[str, Any]:
    """The launcher's attempt for an order (see `orders.launch_orders`).

    What the jobspec says wrongly becomes its `refuse`: the launcher starts nothing, and the job ends with that reason.
    """
    system = order["system"]
    options, pretended, files, refuse = _read(system)
    refuse = order.get("refuse") or refuse
    id, total, first, count = order["job"], order["total"], order["first"], order["count"]
    ranks = ids_of_mask(mask_of(order["ranks"])) if "ranks" in order else range(first, first + count)
    cores = ids_of_mask(mask_of(order["claim"][1])) if order["claim"][1] else ()
    gpu_ids = ids_of_mask(mask_of(order["claim"][2])) if order["claim"][2] else ()
    tmpdir = f"{host.tmp}/job-{f58_ascii(id)}-{rank}"
    argv = order["command"]
    texts = [*argv, options.stdin.path, options.stdout.path, options.stderr.path]
    words = job_words(order, rank, host.names[rank], tmpdir, texts) if any(map(has_template, texts)) else {}
    slots = [(ids_of_mask(mask_of(one)), ids_of_mask(mask_of(other))) for one, other in order.get("slots", ())]
    tasks = _tasks(host, options, ranks, argv, words, slots or [(cores, gpu_ids)])
    terminals = options.pty.among(ranks) if options.pty is not None else []
    duration = float(system.get("duration") or 0.0)
    attempt: dict[str, Any] = {
        "key": key,
        "job": id,
        "tasks": tasks,
        "env": order["env"],
        "env_set": {**_overlay(system), **environment(host, rank, order, key, tmpdir)},
        "cwd": system.get("cwd") or "",
        "stdin": _input(options, terminals, words),
        "append": options.append or order["nodes"] > 1,
        "limit_s": duration,
        "kill_grace_s": grace_of(options, argv),
        "group": f"{rank}:{order['shape']}",
        "queued": order["queued"],
        "tmpdir": tmpdir,
        "tmpdir_env": "FLUX_JOB_TMPDIR",
        "seat": {
            "cpus": _seat_cpus(host, cores, options.cpus),
            "env": _gpu_environment(gpu_ids) if options.gpus == "on" else {},
        },
        # what the forwarder needs, not the launcher
        "rank": rank,
        "index": order["index"],
        "total": total,
        **_output(options, words, ranks, total, system.get("cwd") or "/"),
        **_attempts(order, system),
    }
    ends = (("first_exits", bool(options.exits)), ("fence", order.get("fence")))
    attempt.update((name, value) for name, value in ends if value)
    spread = options.pty is not None and options.pty.spread(order["nodes"])
    more = (("pty", terminals), ("pty_spread", spread and terminals), ("rlimits", options.rlimits), ("files", files))
    attempt.update((name, value) for name, value in more if value)
    if files or (words and any(names_tag(text, "tmpdir") for text in texts)):
        attempt["tmpdir_exact"] = True
    if order["nodes"] > 1 and not options.append:
        submitted = (host.origin_ms + (id >> 24)) / 1000
        attempt["empty_before"] = order.get("since") or submitted  # what is older, another attempt wrote or another job
    if options.warn and duration:
        attempt["warn_s"], attempt["warn_signal"] = options.warn
    if refuse:
        attempt["refuse"] = refuse
    elif pretended is not None:
        attempt["fake_s"] = pretended.duration_s
        if pretended.status:
            attempt["fake_status"] = pretended.status
    return attempt


def _input(options: ShellOptions, terminals: Sequence[int], words: Mapping[str, str]) -> str:
    """"fifo" for what whoever is attached writes, which tasks on terminals have to themselves; else a file, or "" for nothing."""
    if options.stdin.kind == "service" or (options.pty is not None and options.pty.interactive):
        return "fifo" if terminals or options.pty is None else ""
    return expand(options.stdin.path, words)


def _attempts(order: Mapping[str, Any], system: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to say where others came before this attempt, or may follow it."""
    found: dict[str, Any] = {"number": order["number"]} if "number" in order else {}
    if "retry" in system and order.get("number", 1) <= parse_retry(system["retry"]).limit:
        found["keep_input"] = True  # another attempt may want it
    return found


def _read(system: Mapping[str, Any]) -> tuple[ShellOptions, Pretended | None, list[Row], str]:
    """(shell options, how it pretends, files that came with it, why it can not start) of `attributes.system`."""
    try:
        pretended = parse_pretended(system)
        options = shell_options_of((system.get("shell") or {}).get("options"))
        return options, pretended, rows_of(read_archive(system["files"])) if "files" in system else [], ""
    except (Rejected, AttributeError) as error:
        what = "" if isinstance(error, Rejected) and error.code == "bad-file" else "bad shell option: "
        return parse_shell_options(None), None, [], f"{what}{error}"


def _tasks(
    host: Host, options: ShellOptions, ranks: Sequence[int], argv: list[str], words: Mapping[str, str],
    slots: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
) -> list[list[Any]]:  # fmt: skip
    """[rank, command, CPUs or None, variables] of each task on this node. slots: (cores, GPUs) that equally many tasks share; one
    of all where slots are not told apart."""
    common = expand_all(argv, words) if words else argv
    own_words = bool(words) and any(map(names_task, argv))
    tasks: list[list[Any]] = []
    count, in_all = len(slots), len(ranks)
    for local, rank in enumerate(ranks):
        changes = {"FLUX_TASK_RANK": str(rank), "FLUX_TASK_LOCAL_ID": str(local)}
        at = local * count // in_all
        first = -(-at * in_all // count)  # of those in its slot
        cores, gpus = slots[at]
        place, many = local - first, -(-(at + 1) * in_all // count) - first
        if options.gpus == "per-task":
            changes.update(_gpu_environment(_share(gpus, place, many)))
        cpus = _task_cpus(host, cores, options.cpus, place, many, in_all)
        mine = expand_all(argv, {**words, **task_words(rank, local)}) if own_words else common
        tasks.append([rank, mine, cpus, changes])
    return tasks


def _output(options: ShellOptions, words: Mapping[str, str], ranks: Sequence[int], total: int, cwd: str) -> dict[str, Any]:
    """Where these tasks' output goes. stdout, stderr: files of all tasks, "" for the spool. task_files: {"<task rank>":
    [out, err]} when the paths name the task. label: the same ("" for all tasks) for files that get labelled lines, which
    pass through the spool; label_files: all of their paths. per_task_output: one spool file for each task.
    """
    out_path, out_label = options.stdout.path, options.stdout.label
    err_path, err_label = options.stderr.path, options.stderr.label
    if out_path and not err_path and options.stderr.kind != "kvs":
        err_path, err_label = out_path, out_label
    files = {"": [expand(out_path, words), expand(err_path, words)]}
    if names_task(out_path) or names_task(err_path):
        files = {}
        for local, rank in enumerate(ranks):
            mine = {**words, **task_words(rank, local)}
            files[str(rank)] = [expand(out_path, mine), expand(err_path, mine)]
    if out_label or err_label:
        # The agent writes these, and it is not in the job's directory.
        files = {rank: [path and posixpath.join(cwd, path) for path in pair] for rank, pair in files.items()}
        found: dict[str, Any] = {"stdout": "", "stderr": "", "per_task_output": True}
        if out_path or err_path:
            found["label"] = files
            found["label_files"] = sorted({path for pair in files.values() for path in pair if path})
        return found
    out, err = files.get("", ["", ""])
    found = {"stdout": out, "stderr": err, "per_task_output": total > 1 and not (out_path and err_path)}
    if "" not in files:
        found["task_files"] = files
    return found


def f58_ascii(id: int) -> str:
    """F58 with the ASCII prefix, for file names."""
    return "f" + f58(id)[1:]


def own_environment(order: Mapping[str, Any], key: str, tmpdir: str) -> dict[str, str]:
    """Of the variables that a job's tasks get from us those that no other job's have."""
    id = order["job"]
    return {
        "FLUX_JOB_ID": f58(id),
        "FLUX_JOB_TMPDIR": tmpdir,
        "FLUX_KVS_NAMESPACE": f"job-{id}",
        "FLUXKV_JOB_ATTEMPT": key.rpartition(".")[0],
    }


def environment(host: Host, rank: int, order: Mapping[str, Any], key: str, tmpdir: str) -> dict[str, str]:
    """All of them, but for the task's own."""
    return {
        **own_environment(order, key, tmpdir),
        "FLUX_JOB_ATTEMPT": str(order.get("number", 1)),
        "FLUX_JOB_SIZE": str(order["total"]),
        "FLUX_JOB_NNODES": str(order["nodes"]),
        "FLUX_URI": host.uri,
        "FLUXKV_URI": host.uri,
        "FLUXKV_JOB_NODE": str(order["index"]),
        "FLUXKV_NODE_RANK": str(rank),
        "FLUXKV_NODE_TASKS": str(order["count"]),
        "FLUXKV_STATE_DIR": host.state_dir,
    }


def _overlay(system: Mapping[str, Any]) -> dict[str, str]:
    """The jobspec's own few variables on top of the shared environment."""
    changes = system.get("environment") or {}
    return {name: str(value) for name, value in changes.items() if value is not None}


def _seat_cpus(host: Host, cores: tuple[int, ...], affinity: str) -> list[int]:
    if affinity == "off" or not host.cpus:
        return []
    return [cpu for core in cores for cpu in host.cpus.get(core, ())]


def _task_cpus(host: Host, cores: tuple[int, ...], affinity: str, local: int, count: int, in_all: int) -> list[int] | None:
    """With cpu-affinity=per-task each task gets its share of its slot's cores, else all of the node's. in_all: tasks on it."""
    if affinity != "per-task" or not host.cpus or in_all < 2 or len(cores) < count:
        return None
    return [cpu for core in _share(cores, local, count) for cpu in host.cpus.get(core, ())]


def _share(ids: tuple[int, ...], local: int, count: int) -> tuple[int, ...]:
    each = len(ids) // count
    return ids[local * each : (local + 1) * each] if each else ids


def _gpu_environment(gpus: tuple[int, ...]) -> dict[str, str]:
    if not gpus:
        return {}
    ids = ",".join(map(str, gpus))
    return {"CUDA_VISIBLE_DEVICES": ids, "HIP_VISIBLE_DEVICES": ids, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
