"""Jobs' temporary directories. Making and removing one a job costs two journalled operations of the file system each.

So a directory that a job left empty serves the next job of this launcher; any other is removed. Decides only that.
"""

from __future__ import annotations

import os

KEPT = 64


class Scratch:
    """Directories at hand, by the folder they are in."""

    __slots__ = ("_empty",)

    def __init__(self) -> None:
        self._empty: dict[str, list[str]] = {}

    def take(self, wanted: str, exact: bool = False) -> str:
        """A private empty directory: one that was left empty in the same folder, else `wanted`, made. Raises OSError.

        exact: it must be `wanted`, since its name has been told.
        """
        kept = self._empty.get(os.path.dirname(wanted))
        while kept and not exact:
            path = kept.pop()
            if os.path.isdir(path):
                return path
        if exact and os.path.lexists(wanted) and os.listdir(wanted):  # of an earlier attempt, and not removed yet
            import shutil

            shutil.rmtree(wanted)
        os.makedirs(wanted, 0o700, exist_ok=True)
        os.chmod(wanted, 0o700)
        return wanted

    def give(self, path: str) -> bool:
        """True if the directory is empty and was kept for the next; False if the caller has to remove it."""
        kept = self._empty.setdefault(os.path.dirname(path), [])
        try:
            if len(kept) >= KEPT or os.listdir(path):
                return False
            if os.stat(path).st_mode & 0o777 != 0o700:
                return False
        except OSError:
            return False
        kept.append(path)
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
