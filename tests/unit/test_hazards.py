"""The table of hazards in `tests/README.md` is true: each has its row, and what it says shows it is in the tree."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from fluxkv.kvs.failpoints import POINTS

TESTS = Path(__file__).resolve().parents[1]
HOW_MANY = 29  # in the list that the design came with
TABLE = (TESTS / "README.md").read_text("utf-8").partition("\n## Hazards\n")[2]
ROWS = re.findall(r"^\| (\d+) \|[^|]*\|(.*)\|$", TABLE, re.MULTILINE)


@cache
def names_of_tests(place: str) -> str:
    """The names of all tests of a file, or of the files of a folder, a line each."""
    path = TESTS / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return "\n".join(name for file in files for name in re.findall(r"^\s*def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))


def faults(shown: str) -> list[str]:
    """What a row quotes and the tree has not: files, tests of the file or folder named before them, fail points."""
    found, place = [], ""
    for quoted in re.findall(r"`([^`]+)`", shown):
        if "/" in quoted:
            place = quoted
            if not (TESTS / place).exists():
                found.append(quoted)
                place = ""
        elif quoted not in POINTS:
            pattern = re.escape(quoted).replace(re.escape("..."), r"\w*")
            if not place or not re.search(rf"^test_\w*{pattern}\w*$", names_of_tests(place), re.MULTILINE):
                found.append(f"{quoted} in {place}")
    return found


def test_each_hazard_has_its_row() -> None:
    numbers = [int(number) for number, _ in ROWS]
    assert numbers == list(range(1, HOW_MANY + 1)), "one row each, in order"


def test_what_shows_a_hazard_is_there() -> None:
    wrong = {number: missing for number, shown in ROWS if (missing := faults(shown))}
    assert not wrong, f"tests/README.md, hazards: {wrong}: name the tests as they are called"
    unnamed = [number for number, shown in ROWS if "`" not in shown]
    assert not unnamed, f"tests/README.md, hazards {unnamed}: name what shows it"


def test_a_row_that_lies_is_seen() -> None:
    assert faults("`unit/test_nowhere.py`: `nothing`") == ["unit/test_nowhere.py", "nothing in "]
    assert faults("`unit/test_hazards.py`: `a_row_that_lies...`, `a_test_that_is_not`, `ack.before`") == [
        "a_test_that_is_not in unit/test_hazards.py"
    ]
