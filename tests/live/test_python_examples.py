"""The Python of the README and of the public docstrings is run, each piece as a user would run it, in a real instance."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest

import fluxkv

pytestmark = pytest.mark.live
ROOT = Path(__file__).resolve().parents[2]


PROMISED = {  # what the text around a block says
    "submit_many": "10 of 200 failed\nCOMPLETED (b'the end\\n', b'')",
    "chunksize": f"\n{sum(int(n**0.5) for n in range(1000))}\n3\nmath domain error",
    "attach": "finished with status 0\n1267650600228229401496703205376 ",
}


def readme() -> list[str]:
    """Those of a package of its own are run where it is installed (`unit/test_queue_policies.py`), what changes an instance's size
    inside of one (`test_resize_live.py`)."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    return [block for block in found if "from my_" not in block and ".resize(" not in block]


def docstrings() -> Iterator[tuple[str, str]]:
    """(name, code) of the indented example in the docstring of each public name, and of the package."""
    for name in ["", *fluxkv.__all__]:
        found: Any = getattr(fluxkv, name) if name else fluxkv
        for part, member in [("", found), *(inspect.getmembers(found, callable) if name else [])]:
            if part.startswith("_") or not (member.__doc__ or "").strip():
                continue
            text = inspect.cleandoc(member.__doc__)
            blocks = re.findall(r"(?:^    .*\n?|^\n(?=    ))+", text, re.MULTILINE)
            code = textwrap.dedent("\n".join(blocks))
            if "import fluxkv" in text:
                assert "import fluxkv" in code, f"{name}.{part}: an example is indented, and text follows it"
                yield f"{name}.{part}".strip(".") or "fluxkv", code


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with live.site(tmp_path_factory.mktemp("site"), "-s", "1", "--cores", "4") as site:
        yield site


def run(site: Any, script: Path, code: str) -> str:
    script.write_text(code)
    env = {**site.env, "FLUXKV_URI": site.uri, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, ""), f"{code}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("number", range(len(readme())))
def test_readme(calm: Any, tmp_path: Path, number: int) -> None:
    out = run(calm, tmp_path / "example.py", readme()[number])
    for word, promised in PROMISED.items():
        if word in readme()[number]:
            assert promised in out


@pytest.mark.parametrize(("name", "code"), list(docstrings()))
def test_docstring(calm: Any, tmp_path: Path, name: str, code: str) -> None:
    code = code if "import fluxkv" in code else f"import fluxkv\ninstance = fluxkv.connect()\n{code}"
    assert run(calm, tmp_path / "example.py", code).strip(), name


def test_every_public_name_explains_itself() -> None:
    for name in fluxkv.__all__:
        value = getattr(fluxkv, name)
        assert (value.__doc__ or "").strip(), name
        assert importlib.import_module(value.__module__).__doc__
