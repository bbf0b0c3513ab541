"""Templates in a job's command and in the paths of its output and input: {{id}}, {{node.name}}, {{task.rank}} and so on. Pure.

Decides what each tag stands for (flux-shell's names). An unknown tag stays as it is. Words are made only for jobs that use
a tag, since most do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..journal.ids import FORMS, LOADED, encode, f58

_TEMPLATE = re.compile(r"\{\{\s*([a-z0-9._]+)\s*\}\}")
_TASK_TAGS = frozenset(("taskid", "task.id", "task.rank", "task.index", "task.localid"))
_CLAIM_TAGS = frozenset(("node.cores", "node.gpus", "node.ncores", "node.ngpus"))


def job_words(
    order: Mapping[str, Any], rank: int, host: str, tmpdir: str, texts: Sequence[str] | None = None
) -> dict[str, str]:
    """What tags stand for on one node of a job, but for the task's own. order: see `orders.launch_orders`. texts: what they are put
    into; None: whatever."""
    id, total = order["job"], str(order["total"])
    _, cores, gpus, *_ = order["claim"]
    words = {
        "id": f58(id), "jobid": f58(id), "name": order["name"], "size": total, "ntasks": total, "nnodes": str(order["nodes"]),
        "node.id": str(order["index"]), "node.name": host, "node.broker_rank": str(rank), "node.cores": cores,
        "node.gpus": gpus, "node.ncores": str(_count(cores)), "node.ngpus": str(_count(gpus)), "tmpdir": tmpdir,
        "attempt": str(order.get("number", 1)),
    }  # fmt: skip
    for form in FORMS:
        if texts is not None and form in LOADED and not any(form in text for text in texts):
            continue  # a package would be loaded for it
        words[f"id.{form}"] = words[f"jobid.{form}"] = encode(id, form)
    return words


def task_words(rank: int, local: int) -> dict[str, str]:
    """What a task's own tags stand for. local: its number on its node."""
    return {
        "taskid": str(rank), "task.id": str(rank), "task.rank": str(rank), "task.index": str(local), "task.localid": str(local)
    }  # fmt: skip


def has_template(text: str) -> bool:
    """Whether there is anything to put in."""
    return "{{" in text and _TEMPLATE.search(text) is not None


def names_tag(text: str, tag: str) -> bool:
    """Whether a text holds this tag."""
    return "{{" in text and tag in _TEMPLATE.findall(text)


def names_task(text: str) -> bool:
    """Whether a text differs from task to task."""
    return "{{" in text and not _TASK_TAGS.isdisjoint(_TEMPLATE.findall(text))


def names_claim(text: str) -> bool:
    """Whether a text names the cores or GPUs a job got."""
    return "{{" in text and not _CLAIM_TAGS.isdisjoint(_TEMPLATE.findall(text))


def expand(text: str, words: Mapping[str, str]) -> str:
    """Put the words in the place of their tags."""
    if "{{" not in text:
        return text
    return _TEMPLATE.sub(lambda match: words.get(match[1], match[0]), text)


def expand_all(texts: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """The same for several."""
    return [expand(text, words) for text in texts]


def _count(idset: str) -> int:
    if not idset:
        return 0
    from ..journal.idset import mask_of

    return mask_of(idset).bit_count()
