"""Whether an instance has been stopped in order, as its state directory says, where that is on this host. Reads only.

For who does not follow the journal, or can read it no more because the server went with the instance.
"""

from __future__ import annotations

import os
import time

from .paths import StateDir, state_dir_of

LOOK_S = 0.5


class OrderlyStop:
    """Of one instance. Looks twice a second at most, however often it is asked."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._directory: StateDir | None = None  # looked for once, while the instance is there
        self._sought = False
        self._looked = 0.0
        self._since = 0.0

    def since(self) -> float:
        """The monotonic time when it was first found stopped, 0.0 while it is not (or nobody here knows)."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S or not self._looked:
            self._looked = now
            self._since = (self._since or now) if self._stopped() else 0.0
        return self._since

    def is_back(self) -> bool:
        """Whether its state directory, where it has one here, says that it is not stopped now: the journal tells of it later."""
        stopped = self._stopped()
        return self._directory is not None and not stopped

    def _stopped(self) -> bool:
        if not self._sought:
            self._directory, self._sought = state_dir_of(self._uri), True
        directory = self._directory
        return directory is not None and os.path.exists(directory.join("run", "stopping")) and not directory.running()
