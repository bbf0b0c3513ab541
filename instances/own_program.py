"""Where `fluxkv` itself is, for what is run in an environment whose PATH does not lead to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def with_program(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which jobs find `fluxkv`: the folder of this one is put in front where PATH leads to none."""
    path = env.get("PATH", os.defpath)
    here = (os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable))
    found = [next((one for one in folders if _has_program(one)), "") for folders in (path.split(os.pathsep), here)]
    return {**env, "PATH": f"{found[1]}{os.pathsep}{path}"} if found[1] and not found[0] else dict(env)


def _has_program(folder: str) -> bool:
    return os.access(os.path.join(folder or ".", "fluxkv"), os.X_OK)
