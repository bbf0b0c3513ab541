"""When a daemon that ended is given up, and when never."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxkv.instances import daemon
from fluxkv.instances.keeper import Keeper
from fluxkv.instances.paths import StateDir
from fluxkv.instances.supervised import DEATHS, WITHIN_S, Role
from fluxkv.tools import reviving


def ended(role: Role, path: Path, code: str) -> None:
    role.pid = os.posix_spawn("/bin/sh", ["sh", "-c", code], {})
    os.waitid(os.P_PID, role.pid, os.WEXITED | os.WNOWAIT)
    role.ended(str(path))


def test_what_ends_by_itself_is_given_up_and_what_is_killed_is_not(tmp_path: Path) -> None:
    for code, given_up in (("exit 70", True), ("kill -9 $$", False), ("kill -SEGV $$", True), ("exit 75", False)):
        role = Role("agent", "")
        said = []
        for at in range(2 * DEATHS):
            ended(role, tmp_path / "agent.json", code)
            said.append(role.count(float(at)))
        assert said == [False] * (DEATHS - 1) + [given_up] * (DEATHS + 1), code
        assert role.again_at > at, "not at once any more"
        ended(role, tmp_path / "agent.json", code)
        assert not role.count(at + WITHIN_S + 1), "that was long ago"
        assert not role.again_at


def test_of_a_daemon_that_is_not_our_child_its_run_file_tells(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    stranger = os.getppid()
    for text, killed in ((f'{{"pid": {stranger}}}', True), (f'{{"pid": {os.getpid()}}}', False), ("", False), (None, False)):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        for name, is_killed in (("agent", killed), ("launcher", False)):  # the launcher leaves its file behind in any case
            role = Role(name, "")
            role.pid = stranger
            role.ended(str(path))
            assert (role.spared, role.pid) == (is_killed, 0)


def test_while_history_is_lost_nobody_is_to_blame(tmp_path: Path) -> None:
    """Found by cut files (seed 4): the agent was given up before its user could adopt, and its nodes stayed offline."""
    role = Role("agent", "")
    for at in range(2 * DEATHS):
        ended(role, tmp_path / "agent.json", "exit 4")
        assert not role.count(float(at), blameless=True)
    assert not role.count(float(at)), "nor do those deaths count afterwards"


def test_a_restart_brings_back_what_was_given_up_for_good(tmp_path: Path) -> None:
    """As `journal quarantine` says: not once only, and nobody says that it is dead any more."""
    keeper = Keeper.__new__(Keeper)
    keeper.state_dir, role = StateDir(str(tmp_path)), Role("worker-0", "")
    keeper.state_dir.create()
    keeper.roles, spawned = [role], list[str]()
    keeper.log = SimpleNamespace(say=lambda level, text: None)  # type: ignore[assignment]
    keeper._spawn = lambda role: spawned.append(role.name)  # type: ignore[method-assign]
    role.failed, role.deaths = "worker-0 died 3 times", [1.0, 2.0, 3.0]
    word = Path(keeper.state_dir.join("run", "worker-0.failed"))
    word.write_text(role.failed)
    keeper._restart()
    assert (spawned, role.failed, role.deaths, word.exists()) == (["worker-0"], "", [], False)


def test_who_runs_a_program_itself_looks_after_its_keeper_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(reviving, "KEEPER_LOOK_S", 0.01)
    monkeypatch.setattr("fluxkv.instances.daemon.revive_keeper", lambda directory: looked.set())
    before = set(threading.enumerate())
    with reviving.Reviving(StateDir(str(tmp_path))):
        assert looked.wait(30.0)
    assert set(threading.enumerate()) == before


def test_keepers_that_end_again_and_again_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those a process started that has nothing else to wait for."""
    pids: list[int] = []

    def spawn(directory: StateDir, role: str) -> int:
        pids.append(os.posix_spawn("/bin/true", ["true"], {}))
        os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)
        return pids[-1]

    monkeypatch.setattr(daemon, "spawn_role", spawn)
    directory = StateDir(str(tmp_path))
    directory.create()
    for _ in range(3):
        assert daemon.revive_keeper(directory)
    for pid in pids[:-1]:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    assert os.waitpid(pids[-1], os.WNOHANG)[0] == pids[-1]
    Path(directory.join("run", "stopping")).touch()
    assert not daemon.revive_keeper(directory)
