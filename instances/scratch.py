"""Jobs' temporary directories. Making and removing one a job costs two journalled operations of the file system each.

So a directory that a job left empty serves the next job of this launcher; any other is removed. Decides only that.

Whether one is empty, its status says where it did before: whatever comes into a directory or leaves it changes its ctime, which
nobody can set back. Only times a tick of the file system's clock apart can be told from one another, so a directory has to be
seen empty twice under the same ctime, longer than a tick apart, before that alone is believed.
"""

from __future__ import annotations

import os
import time

KEPT = 64
TICK_S = 0.1  # ten times the longest of any kernel


class Scratch:
    """Directories at hand, by the folder they are in."""

    __slots__ = ("_empty", "_seen", "fresh")

    def __init__(self) -> None:
        self.fresh = ""  # one that was seen empty in this turn; whoever has turns ends it
        self._empty: dict[str, list[str]] = {}
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}  # path -> (inode, ctime) when empty, since when; 0: believed

    def take(self, wanted: str, exact: bool = False) -> str:
        """A private empty directory: one that was left empty in the same folder, else `wanted`, made. Raises OSError.

        exact: it must be `wanted`, since its name has been told.
        """
        kept = self._empty.get(wanted.rpartition("/")[0])
        while kept and not exact:
            path = kept.pop()
            if path == self.fresh or os.path.isdir(path):
                self.fresh = ""
                return path
            self._seen.pop(path, None)
        if exact and os.path.lexists(wanted) and os.listdir(wanted):  # of an earlier attempt, and not removed yet
            import shutil

            shutil.rmtree(wanted)
        os.makedirs(wanted, 0o700, exist_ok=True)
        os.chmod(wanted, 0o700)
        return wanted

    def give(self, path: str) -> bool:
        """True if the directory is empty and was kept for the next; False if the caller has to remove it."""
        kept = self._empty.setdefault(path.rpartition("/")[0], [])
        if len(kept) < KEPT and self._is_empty(path):
            kept.append(path)
            self.fresh = path
            return True
        self._seen.pop(path, None)
        return False

    def _is_empty(self, path: str) -> bool:
        """Whether it is private still, and has nothing in it."""
        try:
            found = os.stat(path)
            if found.st_mode & 0o777 != 0o700:
                return False
            what = found.st_ino, found.st_ctime_ns
            before, since = self._seen.get(path, (None, 0.0))
            if before == what and not since:
                return True
            if os.listdir(path):
                return False
        except OSError:
            return False
        now = time.monotonic()
        if before != what:
            self._seen[path] = what, now
        elif now - since > TICK_S and what[1] % 1000:  # else its clock is a coarse one
            self._seen[path] = what, 0.0
        return True

    def close(self) -> None:
        """Remove what was kept."""
        for kept in self._empty.values():
            for path in kept:
                try:
                    os.rmdir(path)
                except OSError:
                    pass
        self._empty.clear()
