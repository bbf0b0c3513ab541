"""Match policies by name: which of the resources that would do a job gets. Built-in ones, and plug-ins.

A match policy is a plug-in (entry-point group `fluxkv.matchers`): a subclass of `tree.policies.Policy`, which ranks vertices and
orders candidates. It never says whether something is free. `matcher_contract` holds what each must obey.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ..kvs.errors import Rejected
from .plugins import attempt, installed

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
    make, where = installed(GROUP, name, "match policy", "matcher", BUILT_IN)
    made = attempt(make, f"match policy {name!r} ({where})", "matcher")
    if not isinstance(made, Policy):
        raise Rejected(f"match policy {name!r} ({where}) is no tree.policies.Policy", code="bad-matcher")
    return made
