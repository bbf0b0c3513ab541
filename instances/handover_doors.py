"""How a journal that is handed up is found until it is there, and who brings it when that was lost: by the doors in its namespace
above. Decides nothing of when (`handover`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvs.port import Store
from ..kvs.uri import parse_uri
from . import whereabouts


def leads_here(parent: Store, namespace: str, there: Store) -> bool:
    """Whether one that has not come up is found where it is, when all around it has: it has a door of its own then, as the child
    has, as long as that is not up. (Where there is another history, that is found.)"""
    if whereabouts.meta_of(there) is not None:
        return True
    known, door = whereabouts.read_door(there), whereabouts.read_door(parent, namespace)
    if door is not None and known != door:
        whereabouts.leave_door(there, door)
    return door is not None or known is not None


def take_over(there: Store, settings: Mapping[str, Any], word: str) -> bool:
    """Where all of a journal came under another word, and a fail-over took back that it was there: it is ours to bring if its door
    leads to our server, and not to somebody who goes on with it. Whether it was so. settings: of the child that hands up."""
    if whereabouts.meta_of(there) is not None or not (tip := there.come()):
        return False
    door = whereabouts.read_door(there)
    if door is None or door.socket != parse_uri(str(settings["uri"])).server:
        return False
    there.arrive_over(word, tip)
    return True
