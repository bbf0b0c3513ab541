"""What a state directory has outside of itself: folders below /tmp for sockets whose path would be too long in it. Removes them.

Whoever listens there removes its socket and its folder as it ends; here is what those left who were killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from . import spool

NAMES = (spool.SOCKET, "kv.sock", "state")


def remove_launcher_s(state_dir: str) -> None:
    """That of a launcher which is no more. The server's stays: its address still leads to the directory."""
    _remove(_spool_folder(state_dir))


def remove_all(state_dir: str) -> None:
    """Those of a state directory that is about to be removed, and of all inside it. Nothing of them runs any more."""
    from ..kvs.server import socket_path

    for one in _directories(state_dir):
        _remove(_spool_folder(one))
        folder = os.path.dirname(socket_path(one))
        _remove("" if folder == os.path.abspath(one) else folder)


def _spool_folder(state_dir: str) -> str:
    """ "" if the launcher's socket is, or would be, in the directory itself."""
    inside = os.path.join(state_dir, "spool")
    folder = os.path.dirname(spool.socket_path(inside))
    return "" if folder == inside else folder


def _directories(state_dir: str) -> Iterator[str]:
    """It and those of the instances inside it."""
    yield state_dir
    inside = os.path.join(state_dir, "ns")
    with suppress(OSError):
        for name in sorted(os.listdir(inside)):
            yield from _directories(os.path.join(inside, name))


def _remove(folder: str) -> None:
    """A folder with what is known to be in such a one; nothing if there is none, or anything else in it."""
    if not folder:
        return
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            if name in NAMES:
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
