"""--add-file on the command line: [NAME[:PERMS]=]PATH|DATA as files of the jobspec (RFC 37). Decides how the text is read.

What has a line break is the content itself; everything else is the path of a file, which is read now.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from typing import Any

from ..journal.file_archive import MAX_SIZE, RESERVED, check_path, make_file
from ..kvs.errors import Rejected
from .options import bad


def files_of(texts: Iterable[str], blobs: dict[str, bytes] | None) -> dict[str, Any]:
    """File objects by name. blobs: takes large contents by name; None keeps them in the objects. Raises click.BadParameter."""
    found: dict[str, Any] = {}
    for text in texts:
        name, given, what = text.partition("=")
        permissions = None
        if not given or "\n" in name:
            if "\n" in text:
                raise bad("--add-file", "content needs a name: NAME=DATA")
            name, what = os.path.basename(text), text
        elif ":" in name:
            name, _, digits = name.rpartition(":")
            permissions = _permissions(digits)
        try:
            check_path(name)
            if name in RESERVED:
                raise Rejected(f"{name} is reserved", code="bad-file", hint="RFC 14; choose another name")
            if name in found:
                raise Rejected(f"{name} is given twice", code="bad-file")
        except Rejected as error:
            raise bad("--add-file", error) from None
        if "\n" in what:
            found[name] = make_file(what.encode(errors="surrogateescape"), permissions or 0o600, int(time.time()), blobs)
        else:
            found[name] = _read(what, permissions, blobs)
    return found


def _permissions(digits: str) -> int:
    try:
        mode = int(digits, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise bad("--add-file", f"{digits!r} are no permissions; they are octal, such as 755")
    return mode


def _read(path: str, permissions: int | None, blobs: dict[str, bytes] | None) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise bad("--add-file", f"{path} is not a regular file")
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise bad("--add-file", f"{path}: {error.strerror}") from None
    if len(content) > MAX_SIZE:
        raise bad("--add-file", f"{path} is larger than {MAX_SIZE >> 20} MiB: put it where all nodes can read it")
    return make_file(content, about.st_mode if permissions is None else permissions, int(about.st_mtime), blobs)
