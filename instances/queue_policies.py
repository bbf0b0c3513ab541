"""Which queue is planned by which policy. Pure, but that a plug-in may have to be imported.

Chosen anew for each config. A policy that is not installed on the host that plans, or does not load there, must not stop the
queue: it is planned by the instance's own meanwhile, and that is said.
"""

from __future__ import annotations

from ..journal.sched_config import SchedulerRules
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.policy import Policy, load_policy
from .ahead import AHEAD_S


class QueuePolicies:
    """own: the policy of queues of which the config says nothing."""

    def __init__(self, own: Policy) -> None:
        self.own = own
        self._by_queue: dict[str, Policy] = {}

    def choose(self, state: State) -> str:
        """Take up what the config says now; what is wrong with it, "" if nothing is."""
        self._by_queue.clear()
        made: list[tuple[SchedulerRules, Policy]] = []  # queues that say the same share a policy
        wrong: list[str] = []
        for name in state.rules.names:
            rules = state.rules.of(name)
            if rules is None or not (rules.scheduler.policy or rules.scheduler.keywords):
                continue
            policy = next((policy for asked, policy in made if asked == rules.scheduler), None)
            if policy is None:
                try:
                    policy = load_policy(rules.scheduler.named(state.instance), rules.scheduler.keywords)
                except Rejected as error:
                    wrong.append(f"queue {name} is planned as if its config named no policy: {error}")
                    policy = self.own
                made.append((rules.scheduler, policy))
            self._by_queue[name] = policy
        return "; ".join(wrong)

    def of(self, queue: str) -> Policy:
        """The policy of a queue."""
        return self._by_queue.get(queue, self.own)

    def ahead_s(self, queue: str) -> float:
        """How many seconds of work are placed ahead on running jobs' seats: a policy may say so itself."""
        return float(getattr(self.of(queue), "ahead_s", AHEAD_S))
