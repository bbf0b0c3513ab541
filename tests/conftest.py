"""What tests of several folders share."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import time
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

os.environ["XDG_CONFIG_HOME"] = "/nonexistent"  # the settings of whoever runs the tests are not what is tested
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background: commands that are interrupted would be deaf
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says how busy the machine is.
settings.register_profile("busy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-machine")


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What a test that failed had no time to close is closed behind it: an unclosed thing would fail any test that comes later
    in this process, too."""
    result = yield
    if item.stash.get(_failed, False):
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            sys.__dict__.pop(name, None)  # they hold its frames
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return result


def _load(name: str) -> ModuleType:
    """A module of tests/support, by path: the tests are no package."""
    full = f"fluxkv_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).parent / "support" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def sample_journal() -> ModuleType:
    """The module `support/sample_journal.py`."""
    return _load("sample_journal")


class Shell:
    """Runs commands in this process against the sample history, as user alice in UTC."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.sample = module.sample(name, userid=os.getuid())
        self.ids = self.sample.ids
        self.env = {"FLUXKV_URI": self.sample.uri, "FLUXKV_STATE_DIR": "", "NO_COLOR": "1"}

    def __call__(self, *args: str, input: bytes | None = None) -> tuple[int, str, str]:
        """(exit status, standard output, the error a user would see) of `fluxkv ARGS`."""
        import click
        from click.testing import CliRunner

        from fluxkv.kvs.errors import FluxkvError
        from fluxkv.tools.main import cli

        result = CliRunner().invoke(cli, args, env=self.env, input=input, standalone_mode=False)
        error = result.exception
        if isinstance(error, FluxkvError):
            return error.exit_status, result.stdout, str(error)
        if isinstance(error, click.ClickException):
            return error.exit_code, result.stdout, result.stderr + error.format_message()
        if error is not None and not isinstance(error, SystemExit):
            raise error
        status = result.return_value if isinstance(result.return_value, int) else result.exit_code
        return status, result.stdout, result.stderr

    def out(self, *args: str, input: bytes | None = None) -> str:
        """Standard output of a command that must succeed."""
        status, text, error = self(*args, input=input)
        assert status == 0, (args, status, text, error)
        return text

    def id(self, letter: str) -> str:
        """F58 text of a job's id."""
        from fluxkv.journal.ids import f58

        return f58(self.ids[letter])


@pytest.fixture
def shell(
    sample_journal: ModuleType, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """Commands on a fresh sample history."""
    from fluxkv.tools import reading

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(reading, "_names", {os.getuid(): "alice"})
    yield Shell(sample_journal, request.node.name)
    monkeypatch.undo()
    time.tzset()
