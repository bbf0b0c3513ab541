"""What `fluxkv simulate` is given: a workload, an inventory, policies. Reads files and journals; decides no rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.state import State
    from ..schedulers.policy import Policy
    from ..schedulers.resources import Pool
    from ..schedulers.workload import Workload

CONFIGURED = "configured"


class Choice(NamedTuple):
    """A policy to simulate. name: as it is shown. of: what a queue is planned by."""

    name: str
    of: Callable[[str], Policy]


# -- workloads ------------------------------------------------------------------------------------------------------------------


def from_file(path: str) -> Workload:
    """The workload in a file ("-": standard input; packed with gzip if its name ends so). Raises OSError, Rejected."""
    from ..schedulers.job_lines import parse_job_lines
    from ..schedulers.swf import parse_swf

    with _opened(path) as file:
        lines = file.readlines()
    first = next((line.strip() for line in lines if line.strip() and line.strip()[0] != "#"), "")
    if not first:
        raise Rejected(f"{path} holds no jobs", code="bad-workload", hint="a trace (SWF), or a JSON object a line")
    try:
        return parse_job_lines(lines) if first[0] in "{[" else parse_swf(lines)
    except Rejected as error:
        raise Rejected(f"{path}: {error}", code=error.code, hint=error.hint) from None


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    import gzip

    try:
        if path == "-":
            yield sys.stdin
        elif path.endswith(".gz"):
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as packed:
                yield packed
        else:
            with open(path, encoding="utf-8", errors="replace") as plain:
                yield plain
    except (gzip.BadGzipFile, EOFError) as error:
        raise Rejected(f"{path} cannot be unpacked: {error}", code="bad-file", hint="is it whole?") from None


def from_journal(journal: Journal, since: str | None, until: str | None, own: bool) -> tuple[Workload, State]:
    """The workload that a journal tells of, and the state at its end."""
    from ..schedulers.recorded import Recorder
    from .reading import bound, gc_paused
    from .target import parse_moment

    version, moment = bound(journal, until)
    begin = -inf
    with gc_paused():
        state: State = journal.history.begin(version, moment)
        recorder = Recorder(state)
        asked = parse_moment(since, journal.store.now()) if since else None
        if asked is not None and asked.time is not None:
            begin = asked.time
        for commit in journal.commits(state.version, version):
            if moment is not None and commit.time > moment:
                break
            recorder.take(commit)
            state.apply(commit)
            if asked is not None and commit.version == asked.version:
                begin = commit.time
    if asked is not None and begin == -inf:
        raise Rejected(f"version {asked.version} is not there", code="bad-moment", hint="fluxkv journal stats")
    return recorder.workload(state.rules, begin, own), state


# -- inventories ----------------------------------------------------------------------------------------------------------------


def pool_of_file(path: str, form: str | None, match_policy: str) -> Pool:
    """The resources in a file (GRUG, JGF, R, hwloc), as an instance would have them. Raises Rejected."""
    from ..instances.plan_inputs import free_pool
    from ..instances.resource_files import AUTO, RV1, load
    from ..journal.resource_graph import graph_of

    found = load([path], RV1 if form == "rv1exec" else form or AUTO)
    return free_pool(found.nodes, graph_of(found), match_policy)


def pool_of_sizes(nodes: int, cores: int, gpus: int, memory_mb: int, match_policy: str) -> Pool:
    """So many equal nodes."""
    from ..journal.rset import NodeRecord
    from ..schedulers.resources import Pool

    wide = len(str(nodes - 1))
    made = (NodeRecord(rank, f"node{rank:0{wide}}", (1 << cores) - 1, (1 << gpus) - 1, memory_mb, ()) for rank in range(nodes))
    return Pool(made, match_policy)


# -- policies -------------------------------------------------------------------------------------------------------------------


def choices(
    texts: Sequence[str], queue_depth: int | None, reservation_depth: int | None, state: State | None
) -> list[Choice]:
    """What to simulate; without a word of it what the instance has, else EASY.

    texts: NAME, or NAME:KEY=VALUE,... ; the depths are for all that take them. Raises Rejected.
    """
    general = {"queue_depth": queue_depth, "reservation_depth": reservation_depth}
    given = {key: value for key, value in general.items() if value is not None}
    wanted = list(texts) or [CONFIGURED if state is not None else "easy"]
    found: list[Choice] = []
    unused = set(given)
    for text in wanted:
        if text == CONFIGURED:
            found.append(_configured(state))
            continue
        name, _, parameters = text.partition(":")
        own = _parameters(text, parameters)
        policy, taken = _load(name, {**given, **own}, set(own))
        unused -= taken
        found.append(Choice(_shown(name, taken, {**given, **own}), lambda queue, policy=policy: policy))  # type: ignore[misc]
    if unused:
        word = min(unused).replace("_", "-")
        raise Rejected(f"none of these policies has a {word}", code="bad-policy", hint="hybrid has both")
    names = [choice.name for choice in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Rejected(f"policy {twice[0]} is named twice", code="bad-policy", hint="give one of them another depth")
    return found


def _configured(state: State | None) -> Choice:
    from ..instances.queue_policies import QueuePolicies
    from ..schedulers.policy import load_policy
    from .render import say

    if state is None:
        raise Rejected(
            "no instance's policies are known here", code="bad-policy", hint="`configured` is for journals; name a policy"
        )
    named = str(state.instance.get("policy") or "fcfs")
    policies = QueuePolicies(load_policy(named))
    if wrong := policies.choose(state):
        say(f"fluxkv: warning: {wrong}")
    return Choice(CONFIGURED, policies.of)


def _parameters(text: str, parameters: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in parameters.split(",") if parameters else ():
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise Rejected(f"policy {text!r}: {word!r} is not KEY=VALUE", code="bad-policy", hint="hybrid:reservation-depth=8")
        found[key.replace("-", "_")] = int(value) if value.isdecimal() and len(value) < 10 else value
    for key in ("queue_depth", "reservation_depth"):
        if key in found and (not isinstance(found[key], int) or found[key] < 1):
            raise Rejected(f"policy {text!r}: {key.replace('_', '-')} is a number from 1 up", code="bad-policy")
    return found


def _load(name: str, keywords: dict[str, Any], must: set[str]) -> tuple[Policy, set[str]]:
    """The policy, and which of the parameters it took: it has to take its own."""
    from ..schedulers.policy import load_policy

    left = dict(keywords)
    while True:
        try:
            return load_policy(name, left), set(left)
        except Rejected:
            dropped = next((key for key in left if key not in must), None)
            if dropped is None:
                raise
            del left[dropped]


def _shown(name: str, taken: set[str], values: dict[str, Any]) -> str:
    depths = [str(values[key]) for key in sorted(taken)]
    return f"{name} {'/'.join(depths)}" if depths else name
