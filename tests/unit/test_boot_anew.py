"""What a keeper begins with: a server on a port that is free still, an instance of which its server has nothing left."""

from __future__ import annotations

import socket
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


@pytest.mark.parametrize("child", [True, False])
def test_a_port_that_is_another_s_by_now_is_left_to_him(tmp_path: Path, child: bool) -> None:
    """Of a child's own server nobody has chosen it, or been told of it."""
    state_dir = StateDir(str(tmp_path / "state"))
    state_dir.create()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = {"listen": ["127.0.0.1", port], "durability": "local", **({"parent": "memory:x#/"} if child else {})}
        if not child:
            with pytest.raises(Unavailable, match="Address already in use") as caught:
                boot.start_or_attach_server(state_dir, settings)
            assert caught.value.code == "address-in-use"
            return
        handle = boot.start_or_attach_server(state_dir, settings)
        try:
            assert settings["listen"][1] != port
            assert state_dir.read()["listen"] == settings["listen"]
            with socket.create_connection(tuple(settings["listen"]), 5.0):
                pass
        finally:
            handle.stop()
