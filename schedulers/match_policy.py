"""Match policies by name: which of the resources that would do a job gets. Built-in ones, and plug-ins.

A match policy is a plug-in (entry-point group `fluxkv.matchers`): a subclass of `tree.policies.Policy`, which ranks vertices and
orders candidates. It never says whether something is free. `matcher_contract` holds what each must obey.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from .tree.policies import Policy

GROUP = "fluxkv.matchers"
BUILT_IN = (
    "first", "firstnodex", "low", "high", "lonode", "hinode", "lonodex", "hinodex", "locality", "variation",
)  # fmt: skip


@lru_cache(maxsize=64)
def policy_of(name: str) -> Policy:
    """The match policy of a name. Raises Rejected: code "no-such-matcher" with the names there are, "bad-matcher" for a plug-in
    that does not load. The built-in ones are found without reading the metadata of every installed package.
    """
    from .tree.policies import POLICIES, Policy

    if name in POLICIES:
        return POLICIES[name]()
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted({*BUILT_IN, *found}))
        raise Rejected(f"no match policy is called {name[:60]!r}", code="no-such-matcher", hint=f"there are: {known}")
    try:
        made = found[name].load()()
    except Exception as error:  # a plug-in may fail in any way; whose fault it is must be in the message
        why = f"{type(error).__name__}: {error}"
        raise Rejected(f"match policy {name!r} ({found[name].value}) does not load: {why}", code="bad-matcher") from error
    if not isinstance(made, Policy):
        raise Rejected(f"match policy {name!r} ({found[name].value}) is no tree.policies.Policy", code="bad-matcher")
    return made
