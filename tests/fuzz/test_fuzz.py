"""Whatever a parser is given, it answers with a value or an error of ours, in bounded time and memory; round trips hold.

Every input follows from FLUXKV_FUZZ_SEED (1) and its number, of which there are FLUXKV_FUZZ_CASES for each parser (60);
`make soak SOAK=fuzz` has more. A failure names the seed and shows the input.
"""

from __future__ import annotations

import gc
import importlib.util
import math
import os
import random
import sys
import time
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from fluxkv.kvs.errors import FluxkvError
from fluxkv.tools.main import cli

SEED = int(os.environ.get("FLUXKV_FUZZ_SEED", "1"))
CASES = int(os.environ.get("FLUXKV_FUZZ_CASES", "60"))
S_PER_KB, LEAST_S = 0.050, 0.050
MOST_BYTES = 64 << 20


def _load() -> ModuleType:
    full = "fluxkv_tests_fuzz_targets"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).parent / "targets.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


targets = _load()
TARGETS: dict[str, Any] = targets.TARGETS


def mutated(luck: random.Random, good: Any, others: tuple[Any, ...]) -> Any:
    """A right input with some of it gone, doubled, swapped, or replaced by what is special."""
    text = luck.choice(good)
    for _ in range(luck.choice((1, 1, 2, 4))):
        size = len(text)
        at, to = sorted((luck.randrange(size + 1), luck.randrange(size + 1)))
        what = luck.randrange(7)
        if what == 0:
            text = text[:at] + text[to:]
        elif what == 1:
            text = text[:to] + text[at:]
        elif what == 2:
            text = text[:at]
        elif what == 3:
            text = text[:at] + _special(luck, text) + text[at + luck.randrange(2) :]
        elif what == 4:
            text = text[:at] + text[at:to][::-1] + text[to:]
        elif what == 5:
            other = luck.choice(good)
            text = text[:at] + other[luck.randrange(len(other) + 1) :]
        else:
            text = text[:at] + _special(luck, text) * luck.choice((1, 5, 300)) + text[at:]
    return text


_SPECIAL = (
    "0",
    "-1",
    "1e999",
    "NaN",
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    ",",
    ":",
    ".",
    "-",
    "(",
    ")",
    "\\",
    "\n",
    "\t",
    "\0",
    "99999999999999999999",
    "0x",
    "%",
    "*",
    "&",
    "|",
    "=",
    "#",
    "<",
    ">",
    "!",
    "ƒ",
    "é",
    "\u2028",
    "\ud800",
    "😃",
    " ",
    "/",
    "@",
)


def _special(luck: random.Random, like: Any) -> Any:
    if isinstance(like, str):
        return luck.choice(_SPECIAL)
    return luck.choice(
        (
            b"\x00",
            b"\xff",
            b"\xc0",
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\x80",
            b"\x90",
            b"\xcf" + b"\xff" * 8,
            b"\xcb\x7f\xf0" + b"\0" * 6,
            bytes([luck.randrange(256)]),
            luck.randbytes(5),
        )
    )


def shown(text: Any) -> str:
    found = repr(text)
    return found if len(found) < 400 else f"{found[:200]} ... {found[-100:]} ({len(text)} long)"


def answered(name: str, text: Any) -> Any:
    """What the parser says; None for an error of ours."""
    target, refusal = TARGETS[name], ""
    try:
        return target.parse(text)
    except target.raises as error:
        refusal = str(error)
    except MemoryError:
        raise
    except Exception as error:
        raise AssertionError(f"{name}, seed {SEED}: {shown(text)}: {error!r}") from error
    assert len(refusal) < 5_000, f"{name}: {shown(text)}: an error of {len(refusal)} characters"
    return None


def within_bounds(name: str, text: Any) -> None:
    """Time first, then memory: tracing costs several times the time."""
    most = max(LEAST_S, S_PER_KB * len(text) / 1024)
    gc.freeze()  # what thousands of other tests have left is not looked through while this one is timed
    try:
        for last in (False, False, True):  # the machine may be busy with something else
            began = time.thread_time()
            answered(name, text)
            took = time.thread_time() - began
            if took <= most:
                break
            assert not last, f"{name}: {shown(text)} takes {took:.3f} s, {most:.3f} are allowed"
    finally:
        gc.unfreeze()
    tracemalloc.start()
    try:
        answered(name, text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MOST_BYTES, f"{name}: {shown(text)} takes {peak >> 20} MiB"


@pytest.mark.parametrize("name", TARGETS)
def test_right_inputs_are_values_and_come_back(name: str) -> None:
    target = TARGETS[name]
    for text in filter(None, target.good):
        if name in ("segment", "manifest"):
            continue
        value = target.parse(text)
        if target.back is not None:
            assert target.parse(target.back(value)) == value, text


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_made_to_hurt(name: str) -> None:
    answered(name, TARGETS[name].good[0])  # what it imports when first called is not what is measured
    for text in TARGETS[name].nasty:
        within_bounds(name, text)


@pytest.mark.parametrize("name", TARGETS)
def test_any_input(name: str) -> None:
    target = TARGETS[name]
    answered(name, target.good[0])
    good = tuple(filter(None, target.good)) or (b"x" * 20,)
    for number in range(CASES):
        luck = random.Random(f"{SEED} {name} {number}")
        text = mutated(luck, good, target.nasty)
        if number % 10 == 0:
            within_bounds(name, text)
        value = answered(name, text)
        if value is not None and target.back is not None:
            try:
                again = target.parse(target.back(value))
            except target.raises:
                continue  # what was written briefly may be too long when it is written out
            assert again == value or (isinstance(value, float) and math.isclose(again, value, rel_tol=1e-5)), (
                f"{name}, seed {SEED}: {shown(text)}: {value!r} comes back as {again!r}"
            )


# -- the command line ----------------------------------------------------------------------------------------------

WORDS = (
    "-n",
    "-N",
    "4",
    "--",
    "-",
    "",
    "x",
    "--queue=q",
    "-t",
    "1m",
    "--cc=1-3",
    "--setattr=a.b=1",
    "-o",
    "x=1",
    "-c",
    "999999999999",
    "-h=",
    "ƒ1",
    "--dependency=afterok:1",
    "--requires=a|b",
    "{cc}",
    ":::",
    "\udce9",
    "--begin-time=+1h",
    "-c0",
    "--format={id}",
    "-qa",
    "--urgency=hold",
    "--env=A=b",
    "--json",
    "--since=-1d",
    "--at=5",
    "-1",
    "--urgency",
    "=",
    "--x",
    "--output={{id}}",
)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
        else:
            found.append(((*path, name), command))
    return found


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing only: nothing is run. An error is click's, or ours."""
    monkeypatch.chdir(tmp_path)  # some options open files
    for path, command in commands(cli):
        for number in range(max(3, CASES // 10)):
            luck = random.Random(f"{SEED} {path} {number}")
            options = [name for parameter in command.params for name in parameter.opts if name.startswith("-")]
            words = [luck.choice((luck.choice(WORDS), luck.choice(options or ["x"]))) for _ in range(luck.randrange(6))]
            if "--help" in words or "-h" in words:
                continue
            try:
                with command.make_context(" ".join(path), list(words)):
                    pass
            except (click.ClickException, FluxkvError, click.exceptions.Exit):
                pass
            except Exception as error:
                raise AssertionError(f"seed {SEED}: {path} {words}: {error!r}") from error
