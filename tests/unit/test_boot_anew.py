"""An instance that is set to go on with whatever is left, and whose server has nothing left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig

from fluxkv.instances import boot
from fluxkv.instances.paths import StateDir
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_server import MemoryServer, share


def test_who_dies_while_it_is_made_anew_makes_it_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share("nothing-left", MemoryServer())
    state_dir = StateDir(str(tmp_path / "state"))
    state_dir.create()
    R = Rig().commits()[0].events[0][3]["R"]
    state_dir.write({"uri": "memory:nothing-left#/", "uid": "before", "on_fork": "adopt", "R": R})

    def dies(*_: Any) -> None:
        raise Unavailable("it died")

    with monkeypatch.context() as broken:
        broken.setattr(boot, "_mark", dies)
        with pytest.raises(Unavailable, match="it died"):
            boot.ensure_instance(state_dir.read(), state_dir)
    settings = state_dir.read()
    store, new = boot.ensure_instance(settings, state_dir)
    assert (new, store.meta().version) == (True, 1)
    settings["uid"] = store.meta().uid
    assert boot.ensure_instance(settings, state_dir)[1] is False
