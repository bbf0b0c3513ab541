"""A user's settings: which file, variable or option wins, what is refused, and that commands honour them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from fluxkv.instances import user_settings
from fluxkv.instances.paths import home
from fluxkv.instances.user_settings import SETTINGS, everything, option_defaults, value_of, variable_of
from fluxkv.kvs.errors import Rejected
from fluxkv.tools import main
from fluxkv.tools.main import cli


class Files:
    """The two files, in a folder of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.system, self.own = folder / "etc.toml", folder / "fluxkv" / "config.toml"
        self.own.parent.mkdir()
        monkeypatch.setattr(user_settings, "SYSTEM_FILE", str(self.system))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        for name in SETTINGS:
            monkeypatch.delenv(variable_of(name), raising=False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(tmp_path, monkeypatch)


def test_without_any_file_nothing_is_set_and_nothing_is_imported(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)  # importing it fails
    assert option_defaults() is None
    assert {found.source for found in everything().values()} == {"built-in default"}


def test_the_later_source_wins_and_says_where_it_is(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.system.write_text('color = "never"\n[submit]\nqueue = "a"\ntime-limit = "1h"\nurgency = 10\n')
    files.own.write_text('# mine\n\n[submit]\n  queue = "b"\n  setopt = ["x=1", "y"]\n')
    monkeypatch.setenv("FLUXKV_SUBMIT_URGENCY", "20")
    monkeypatch.setenv("FLUXKV_SUBMIT_ENV", "'A=b c' -D")
    found = everything()
    assert found["color"] == ("never", f"{files.system}:1")
    assert found["submit.time-limit"] == ("1h", f"{files.system}:4")
    assert found["submit.queue"] == ("b", f"{files.own}:4")
    assert found["submit.urgency"] == ("20", "environment FLUXKV_SUBMIT_URGENCY")
    assert found["submit.env"].value == ["A=b c", "-D"]
    defaults = option_defaults()
    assert defaults is not None
    assert defaults["run"] == defaults["submit"]
    assert defaults["submit"] == {
        "time_limit": "1h", "queue": "b", "urgency": "20", "env": ["A=b c", "-D"], "setopt": ["x=1", "y"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jobs.fromat = 'x'\n", "config.toml:1: no setting is called jobs.fromat"),
        ("[submit]\n\nqueue = ['a']\n", "config.toml:3: submit.queue must be a text"),
        ("color = true\n", "color must be a text"),
        ("color = 'red'\n", "it is one of auto, always, never"),
        ("submit.env = [1]\n", "submit.env must be a text or a list of texts"),
        ("submit = \n", "config.toml: Invalid value"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(files: Files, text: str, says: str) -> None:
    files.own.write_text(text)
    with pytest.raises(Rejected) as caught:
        option_defaults()
    assert says in str(caught.value)
    assert caught.value.code == "bad-config"


def test_each_setting_is_the_default_of_an_option_that_there_is(files: Files) -> None:
    """Or is read by name: then it has no option."""
    for name, setting in SETTINGS.items():
        for words, parameter in setting.options:
            command: click.Command | None = cli
            for word in words:
                assert isinstance(command, click.Group)
                command = command.get_command(click.Context(command), word)
            if command is None:
                continue  # `submit` has a sister that may not be there
            found = [one for one in command.params if one.name == parameter]
            assert found, (name, words, parameter)
            assert bool(getattr(found[0], "multiple", False)) == setting.many, name
    assert [name for name, setting in SETTINGS.items() if not setting.options] == ["uri", "state-home", "start.redis"]


def test_state_home_and_uri(files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files.own.write_text(f'state-home = "{tmp_path}/states"\nuri = "memory:mine"\n')
    assert home() == f"{tmp_path}/states"
    monkeypatch.setenv("FLUXKV_STATE_HOME", "/elsewhere")
    assert home() == "/elsewhere"
    assert value_of("uri") == "memory:mine"


def test_no_password_of_a_server_is_shown(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files.own.write_text('start.redis = "rediss://sims:s3cret@head:6379?cacert=/etc/ca.crt"\nuri = "redis://:s3cret@head#/x"\n')
    for words in (("config", "show"), ("config", "show", "--json")):
        _, out, _ = run(monkeypatch, capsys, *words)
        assert "rediss://sims:***@head:6379?cacert=/etc/ca.crt" in out
        assert "s3cret" not in out


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """As the program does it, settings and all."""
    status = main.run_line(list(words))
    done = capsys.readouterr()
    return status, done.out, done.err


def test_commands_honour_them(
    files: Files, shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUXKV_URI", shell.sample.uri)
    files.own.write_text(
        'jobs.format = "{name}"\nqueue.format = "{queue} {started.ascii}"\n'
        '[submit]\ntime-limit = "5m"\nsetattr = ["user.a=1"]\nurgency = 20\n'
    )
    assert run(monkeypatch, capsys, "jobs", "-n")[1].split()[0] in ("small", "later", "big", "nightly", "simulate")
    assert run(monkeypatch, capsys, "jobs", "-n", "-o", "{urgency}")[1].split()[0].isdecimal()
    assert run(monkeypatch, capsys, "queue", "list", "-n")[1] == "default y\n"
    jobspec = json.loads(run(monkeypatch, capsys, "submit", "--dry-run", "true")[1])
    assert jobspec["attributes"]["system"]["duration"] == 300.0
    assert jobspec["attributes"]["user"] == {"a": 1}
    jobspec = json.loads(run(monkeypatch, capsys, "submit", "-t", "1h", "--dry-run", "true")[1])
    assert jobspec["attributes"]["system"]["duration"] == 3600.0
    status, out, _ = run(monkeypatch, capsys, "config", "show", "submit", "-n")
    assert status == 0
    assert "submit.urgency 20" in " ".join(out.split())
    assert f"{files.own}:6" in out
    files.own.write_text("nonsense = 1\n")
    status, _, err = run(monkeypatch, capsys, "jobs")
    assert status == 1
    assert "config.toml:1: no setting is called nonsense" in err


def test_show_has_the_instance_s_config_too(files: Files, shell: Any, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[policy]\nlimits.duration = '1h'\njobspec.defaults.system.queue = 'a'\n[queues.a]\n")
    shell.out("config", "load", str(tmp_path / "site.toml"))
    lines = shell.out("config", "show").splitlines()
    assert any(line.split() == ["policy.limits.duration", "1h", "instance,", f"{tmp_path}/site.toml"] for line in lines)
    found = {one["name"]: one for one in json.loads(shell.out("config", "show", "--json"))["settings"]}
    assert found["queues.a"]["value"] == {}
    assert found["submit.queue"]["variable"] == "FLUXKV_SUBMIT_QUEUE"
    assert shell("config", "show", "nosuch")[0] == 1


def test_colours_are_as_set(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkv.tools.render import coloured

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert coloured()
    files.own.write_text('color = "never"\n')
    assert not coloured()
    assert coloured("always")
    monkeypatch.setenv("FLUXKV_COLOR", "always")
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured()
    monkeypatch.setenv("FLUXKV_COLOR", "auto")
    assert not coloured()
