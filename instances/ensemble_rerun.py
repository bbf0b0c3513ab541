"""Members of an ensemble that is over, submitted once more as an ensemble of their own. Decides which, and under which key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..journal.ensemble import Indices, Request, gaps
from ..journal.ids import f58
from ..kvs.errors import Rejected
from .ensemble_job import on_fewer, with_request
from .ensemble_view import EnsembleView
from .kept import kept_jobspec
from .submit_keys import job_with


class Rerun(NamedTuple):
    """id: of the new ensemble, 0 if no member is to be run again. members: how many are. left: members that did not run to an end,
    and were not asked for."""

    id: int
    members: int
    left: int


def rerun(view: EnsembleView, *, failed: bool, unfinished: bool) -> Rerun:
    """Submit members anew: those that ended and did not succeed, those that did not run to an end. They keep indices, commands and
    environment, all of it the urgency.

    Raises `Rejected` (code active) where it is not over, or some of them run again already: also for the second of two who ask in
    the same moment.
    """
    name = f58(view.id)
    if not view.over:
        raise Rejected(f"ensemble {name} is not over", code="active", hint=f"fluxkv ensemble watch {name}")
    not_again = view.finished(lambda row: row.ok or not failed)
    left = 0
    if not unfinished:
        for position in (at for at, one in enumerate(view.finished(lambda row: True)) if not one):
            not_again[position] = 1
            left += 1
    indices = _runs(view.indices, gaps(not_again))
    if not indices:
        return Rerun(0, 0, left)
    blobs: dict[str, bytes] = {}
    request = view.request._replace(ranges=tuple(indices))
    jobspec = kept_jobspec(view.instance, view.job, original=True)
    made = on_fewer(with_request(jobspec, request, blobs), view.instance.state(), request)
    made["attributes"]["system"].pop("dependencies", None)
    for blob, data in blobs.items():
        view.instance.store.put_blobs({blob: data})
    urgency = view.job.urgency or view.job.urgency_before  # of one that was held when it was cancelled
    return Rerun(_submitted(view, made, request, urgency), len(Indices(indices)), left)


def _submitted(view: EnsembleView, jobspec: dict[str, Any], request: Request, urgency: int) -> int:
    """The id of the next ensemble of members of this one. Raises `Rejected`."""
    submitter = view.instance.submitter
    while True:
        key = _key_of_next(view, list(request.ranges))
        try:
            (id,) = submitter.submit([(jobspec, request.env)], urgency, 0, [key])
        except Rejected as error:
            if error.code != "key-taken":
                raise
            continue  # somebody was quicker, with other members
        if id in submitter.submitted:
            return id


def _key_of_next(view: EnsembleView, wanted: list[tuple[int, int]]) -> str:
    """The key of the next ensemble of members of this one: they are counted, so that of two of the same number there is one. Raises
    `Rejected` where an earlier one is not over, and has some of these members."""
    number = 1
    while id := job_with(view.instance.store, key := f"ensemble rerun {f58(view.id)} {number}", os.getuid()):
        with EnsembleView(view.instance, id) as other:
            if not other.over and _overlap(other.indices.ranges, wanted):
                raise Rejected(
                    f"ensemble {f58(id)} runs members of {f58(view.id)} again, and is not over", code="active",
                    hint=f"fluxkv ensemble watch {f58(id)}; what fails in it, fluxkv ensemble rerun {f58(id)} runs again",
                )  # fmt: skip
        number += 1
    return key


def _overlap(some: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> bool:
    """Whether two lists of ranges, each in order, have an index in common."""
    left, right = list(some), list(others)
    while left and right:
        if left[-1][0] <= right[-1][1] and right[-1][0] <= left[-1][1]:
            return True
        (left if left[-1][1] > right[-1][1] else right).pop()
    return False


def _runs(indices: Indices, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges of indices at ranges of positions."""
    found: list[tuple[int, int]] = []
    for first, last in places:
        for index in indices.part(first, last - first + 1):
            if found and found[-1][1] == index - 1:
                found[-1] = found[-1][0], index
            else:
                found.append((index, index))
    return found
