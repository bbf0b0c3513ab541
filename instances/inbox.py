"""What an agent that begins has not read yet of its inboxes. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

from ..kvs.port import Store
from .reactor import Messages


def read_on(store: Store, names: Mapping[str, str], positions: dict[str, str]) -> list[Messages]:
    """All that is in these streams (key -> name of the inbox) after these positions, which move on.

    Read before anything else: what a launcher holds was ordered by one of these messages. If the agent settled it before it had
    read the order once more, it would take that for a new one, and start the attempt again.
    """
    found = []
    for key, name in names.items():
        while messages := store.messages(key, after=positions[key]):
            found.append(Messages(name, messages))
            positions[key] = messages[-1].id
    return found
