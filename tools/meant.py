"""What somebody meant who typed a command that is not there: one of a group, another manager's word, a misspelling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

# words that users of Flux, Slurm, PBS, LSF or a shell bring along: what does that here ("," between several)
ELSEWHERE = {
    "adopt": "ops adopt", "backup": "journal export",
    "bhist": "inspect job", "bhosts": "resource list", "bjobs": "jobs", "bkill": "cancel", "bqueues": "queue list",
    "bsub": "submit", "check": "journal verify,doctor", "down": "resource status,resource fence",
    "dump": "journal export", "events": "journal follow", "fail": "job raise",
    "fence": "resource fence", "fsck": "journal verify", "health": "status,doctor", "history": "inspect,jobs -a",
    "host": "inspect node", "hosts": "resource list", "info": "job info,status", "join": "agent --join",
    "leave": "agent --leave", "log": "dmesg,job attach", "logs": "dmesg,job attach",
    "lost": "ops adopt,journal salvage", "node": "inspect node", "nodes": "resource list",
    "offline": "resource status,resource fence", "online": "resource status", "overlay": "resource status",
    "pbsnodes": "resource list", "ps": "jobs", "pstree": "tree", "qdel": "cancel", "qhold": "hold", "qrls": "release",
    "qstat": "jobs",
    "qsub": "submit", "recover": "ops adopt,journal salvage", "repair": "journal verify,journal salvage",
    "rerun": "requeue,resubmit", "restore": "journal import", "retry": "requeue,resubmit",
    "sacct": "jobs -a,inspect job", "salloc": "alloc", "sattach": "job attach", "sbatch": "batch,submit",
    "scancel": "cancel", "scrontab": "cron tab", "scontrol": "update,hold,requeue,inspect", "sdiag": "status",
    "server": "start,status", "show": "inspect,jobs", "shutdown": "stop", "sinfo": "resource list,resource status",
    "sprio": "jobs", "squeue": "jobs", "srun": "run", "sstat": "job info", "strigger": "cron event",
    "undo": "journal fork", "unfence": "resource undrain", "uptime": "status",
    "why": "explain",
}  # fmt: skip
SCONTROL = {
    ("show", "job"): "inspect job", ("show", "node"): "inspect node", ("show", "nodes"): "resource list",
    ("show", "config"): "config get", ("show", "partition"): "queue list", ("ping", ""): "status",
    ("reconfigure", ""): "config reload", ("suspend", ""): "hold", ("reboot", ""): "resource drain",
    ("requeuehold", ""): "requeue --hold", ("uhold", ""): "hold", ("shutdown", ""): "stop",
}  # fmt: skip
MOST = 3


def meant(context: click.Context, args: Sequence[str]) -> str:
    """What follows "No such command 'WORD'." of a group: what to type behind `fluxkv` instead; empty if nothing comes to mind."""
    from difflib import get_close_matches

    group, word, root = context.command, args[0], context.find_root()
    assert isinstance(group, click.Group)
    assert isinstance(root.command, click.Group)
    near = get_close_matches(word, group.list_commands(context))
    known = list(dict.fromkeys(_known(root, root.command, args)))
    if group is root.command:
        found = known or near
    else:  # whole lines, since what is meant may be elsewhere
        found = [f"{context.command_path} {one}" for one in near] or [f"{root.command_path} {one}" for one in known]
    return f" Did you mean {' or '.join(repr(one) for one in found[:MOST])}?" if found else ""


def _known(root: click.Context, commands: click.Group, args: Sequence[str]) -> Iterator[str]:
    """Commands of that very name wherever they are, and what other managers' words stand for."""
    word, behind = args[0], [*args[1:3], "", ""]
    names = commands.list_commands(root)
    if word in names:
        yield word
    if word == "scontrol":
        first, second = behind[0].lower(), behind[1].lower()
        named = SCONTROL.get((first, second)) or SCONTROL.get((first, "")) or (first if first in names else "")
        if named:
            yield named
            return
    yield from filter(None, ELSEWHERE.get(word, "").split(","))
    for name in names:
        group = commands.get_command(root, name)
        if isinstance(group, click.Group) and word in group.list_commands(root):
            yield f"{name} {word}"
