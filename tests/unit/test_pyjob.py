"""What a function's task leaves behind, and how its submitter reads it: each call is run as a job's task would be."""

from __future__ import annotations

import functools
import math
import operator
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import calls, pyjob
from fluxkv.instances.calls import Call, RemoteError, RemoteTraceback, Results, dump_call, dump_chunk, read_result
from fluxkv.kvs.errors import Rejected, Unavailable

JOB = 77


def run(folder: Path, call: Call, *, sync: bool = False, main: str = "") -> subprocess.CompletedProcess[str]:
    """Run a call as its task."""
    variables, mark = Results(str(folder)).payload(call, sync=sync)
    assert mark["results"] == variables[pyjob.RESULTS]
    env = {**os.environ, **variables, pyjob.PATHS: calls.search_path(), "FLUXKV_JOB_ATTEMPT": f"{JOB}.12-5"}
    env |= {pyjob.MAIN: main} if main else {}
    return subprocess.run([sys.executable, "-P", pyjob.__file__], env=env, capture_output=True, text=True, timeout=60)


def outcome(folder: Path) -> Any:
    found = read_result(Results(str(folder)).today(), JOB)
    assert found is not None
    return found


def no_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)


@pytest.mark.parametrize("sync", [False, True])
def test_a_value_comes_back(tmp_path: Path, sync: bool) -> None:
    done = run(tmp_path, dump_call(divmod, (17, 5), {}), sync=sync)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert outcome(tmp_path).value == (3, 2)


def test_large_calls_and_results_go_through_files(tmp_path: Path) -> None:
    done = run(tmp_path, dump_call(bytes.upper, (b"a" * 3_000_000,), {}))
    assert done.returncode == 0
    assert outcome(tmp_path).value == b"A" * 3_000_000
    assert len(list(tmp_path.rglob("*.call"))) == 1


def test_what_is_raised_comes_back_with_its_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, dump_call(math.sqrt, (-1,), {}))
    assert done.returncode == 1
    assert "ValueError: math domain error" in done.stderr
    error = outcome(tmp_path).error
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "math domain error" in str(error.__cause__)
    assert "pyjob" not in str(error.__cause__)


def test_leaving_by_sys_exit_is_an_error_too(tmp_path: Path) -> None:
    assert run(tmp_path, dump_call(sys.exit, (3,), {})).returncode == 1
    assert isinstance(outcome(tmp_path).error, SystemExit)


@pytest.mark.parametrize(("script", "words"), [("raise Odd(1, 2)", "Odd"), ("raise Held()", "Held: held")])
def test_an_exception_that_cannot_travel_is_told_in_words(tmp_path: Path, script: str, words: str) -> None:
    source = f"""
class Odd(Exception):
    def __init__(self, a, b): super().__init__()
class Held(Exception):
    def __init__(self): super().__init__("held"); self.lock = __import__("threading").Lock()
{script}
"""
    assert run(tmp_path, dump_call(exec, (source, {}), {})).returncode == 1
    error = outcome(tmp_path).error
    assert isinstance(error, RemoteError)
    assert words in str(error)
    assert words in str(error.__cause__)


def test_a_value_that_cannot_be_pickled_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, dump_call(eval, ("__import__('threading').Lock()",), {}))
    assert done.returncode == 1
    error = outcome(tmp_path).error
    assert isinstance(error, TypeError)
    assert "its value cannot be pickled" in "".join(error.__notes__)


def test_a_result_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    call = dump_call(divmod, (1, 1), {})
    variables, _ = Results(str(tmp_path)).payload(call, sync=False)
    env = {**os.environ, **variables, pyjob.RESULTS: f"{tmp_path}/file/x", "FLUXKV_JOB_ATTEMPT": "1.2-3"}
    done = subprocess.run([sys.executable, "-P", pyjob.__file__], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == pyjob.NO_RESULT
    assert "the result cannot be kept" in done.stderr
    with pytest.raises(Unavailable, match="file"):
        Results(f"{tmp_path}/file/x").today()


def test_a_large_call_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    call = dump_call(len, (b"x" * 20_000,), {})
    variables, mark = Results(str(tmp_path)).payload(call, sync=False)
    os.unlink(mark["call"])
    env = {**os.environ, **variables, "FLUXKV_JOB_ATTEMPT": f"{JOB}.2-3"}
    assert subprocess.run([sys.executable, "-P", pyjob.__file__], env=env, capture_output=True, timeout=60).returncode == 1
    with pytest.raises(RuntimeError, match="submit it anew"):
        raise outcome(tmp_path).error


def test_another_interpreter_keeps_its_own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    paths = calls.search_path("/another/python")
    assert paths.startswith("+")
    assert str(tmp_path) in paths[1:].split(os.pathsep)
    assert not any(entry.startswith(sys.base_prefix + os.sep) for entry in paths[1:].split(os.pathsep))
    (tmp_path / "mine_own.py").write_text("def five(): return 5\n")
    call = dump_call(eval, ("__import__('mine_own').five(), len(__import__('sys').path)",), {})
    variables, _ = Results(str(tmp_path)).payload(call, sync=False)
    env = {**os.environ, **variables, pyjob.PATHS: f"+{tmp_path}", "FLUXKV_JOB_ATTEMPT": f"{JOB}.2-3"}
    assert subprocess.run([sys.executable, "-P", pyjob.__file__], env=env, timeout=60).returncode == 0
    assert outcome(tmp_path).value[0] == 5
    assert outcome(tmp_path).value[1] > 3


def test_chunks_and_partials(tmp_path: Path) -> None:
    assert run(tmp_path, dump_chunk(operator.add, [(1, 2), (3, 4)])).returncode == 0
    assert outcome(tmp_path).value == [3, 7]
    call = dump_call(functools.partial(max, 4), (9,), {})
    assert call.name == "max"
    assert run(tmp_path, call).returncode == 0
    assert outcome(tmp_path).value == 9


def test_lambdas_and_local_functions_by_cloudpickle(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    factor = 3
    assert run(tmp_path, dump_call(lambda x: x * factor, (5,), {})).returncode == 0
    assert outcome(tmp_path).value == 15


def test_lambdas_without_cloudpickle_are_refused_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    no_cloudpickle(monkeypatch)
    with pytest.raises(Rejected, match=r"<lambda> and its arguments cannot be sent to a job") as caught:
        dump_call(lambda: 1, (), {})
    assert caught.value.code == "not-picklable"
    assert "cloudpickle" in caught.value.hint
    with pytest.raises(Rejected, match="cannot be sent"):
        dump_call(print, (threading.Lock(),), {})


def test_functions_of_the_main_script_without_cloudpickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As multiprocessing has it: the script is run again under another name, its guarded part is not."""
    no_cloudpickle(monkeypatch)
    script = tmp_path / "study.py"
    script.write_text(
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "def double(p): return Point(p.x * 2)\n"
        "if __name__ == '__main__': raise SystemExit('never')\n"
    )
    import runpy
    from types import ModuleType

    main = ModuleType("__main__")
    main.__dict__.update(runpy.run_path(str(script), run_name="study"), __file__=str(script), __spec__=None)
    for name in ("Point", "double"):
        getattr(main, name).__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", main)
    call = dump_call(main.double, (main.Point(21),), {})
    assert call.flags == "m"
    assert calls.main_script() == str(script)
    assert run(tmp_path, call, main=str(script)).returncode == 0
    value = outcome(tmp_path).value
    assert (type(value), value.x) == (main.Point, 42)
    del main.__file__
    with pytest.raises(Rejected, match="no module holds"):
        dump_call(main.double, (1,), {})


def test_half_a_result_is_none(tmp_path: Path) -> None:
    run(tmp_path, dump_call(list, (range(1000),), {}))
    path = Path(pyjob.result_path(Results(str(tmp_path)).today(), JOB))
    whole = path.read_bytes()
    for length in (0, 5, len(pyjob.MAGIC), len(pyjob.MAGIC) + 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read_result(str(path.parent), JOB) is None
    assert read_result(str(path.parent), JOB + 1) is None
    path.write_bytes(pyjob.MAGIC + b"Vcno_such_module\nthing\n.")
    found = read_result(str(path.parent), JOB)
    assert found is not None
    assert isinstance(found.error, ModuleNotFoundError)


def test_old_files_go_and_calls_of_active_jobs_stay(tmp_path: Path) -> None:
    old = time.time() - 10 * calls.DAY_S
    folder = tmp_path / str(int(old // calls.DAY_S))
    today = tmp_path / str(int(time.time() // calls.DAY_S))
    other = tmp_path / "notes"
    for place in (folder, today, other):
        place.mkdir()
        for name in ("1.result", "a.call", "b.call"):
            (place / name).write_text("x")
            os.utime(place / name, (old, old))
    (folder / "2.result").write_text("young, of a job that ran long")
    asked: list[int] = []

    def in_use() -> list[str]:
        asked.append(1)
        return ["", str(folder / "b.call")]

    assert calls.sweep(str(tmp_path), calls.KEEP_S, in_use) == 2
    assert sorted(os.listdir(folder)) == ["2.result", "b.call"]
    assert asked == [1]
    assert len(os.listdir(today)) == len(os.listdir(other)) == 3
    (folder / "2.result").unlink()
    assert calls.sweep(str(tmp_path), calls.KEEP_S, list) == 1
    assert not folder.exists()
    assert calls.sweep(str(tmp_path / "missing"), calls.KEEP_S, list) == 0


def test_a_task_imports_nothing_of_ours(tmp_path: Path) -> None:
    assert run(tmp_path, dump_call(eval, ("sorted(__import__('sys').modules)",), {})).returncode == 0
    assert not [name for name in outcome(tmp_path).value if name.partition(".")[0] in ("fluxkv", "redis", "asyncio", "msgpack")]
