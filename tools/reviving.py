"""Commands that stay as long as an instance, or a host's part in one: they start its keeper again where nobody else would."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..instances.paths import StateDir

KEEPER_LOOK_S = 5.0


def revive(directory: StateDir) -> None:
    """Start a keeper if there is none, and the instance is not being ended."""
    from ..instances.daemon import revive_keeper

    with suppress(OSError):  # no process, or no room: tried again
        revive_keeper(directory)


class Reviving:
    """As a context: looks every few seconds, beside what this process does itself. Behind it the instance may be ended."""

    def __init__(self, directory: StateDir) -> None:
        import threading

        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(directory,), daemon=True)

    def _look(self, directory: StateDir) -> None:
        while not self._over.wait(KEEPER_LOOK_S):
            revive(directory)

    def __enter__(self) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the thread that waits for them
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
