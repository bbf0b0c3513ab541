"""The match cases of Fluxion, byte for byte. The data is not part of the project: see `peer_cases`."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from fluxkv.tools.resource_query_cmd import query

FOLDER = Path(os.environ.get("FLUXKV_PEER_DIR") or Path(__file__).resolve().parents[2].parent / "shared" / "peer") / "fluxion"
CASES = json.loads((FOLDER / "cases.json").read_text()) if (FOLDER / "cases.json").exists() else []
VISITS = re.compile(r"^INFO: .*(PREORDER|POSTORDER) COUNT=.*\n", re.M)  # how the other program went about it


def test_the_cases_are_there() -> None:
    if not CASES:
        pytest.skip(f"no match cases in {FOLDER}: set FLUXKV_PEER_DIR to the folder that holds fluxion/cases.json")
    assert len(CASES) >= 266


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_case(case: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = (FOLDER / case["commands"]).read_text().replace("@TEST_SRCDIR@", str(FOLDER))
    options = shlex.split(case["options"].replace("./data", f"{FOLDER}/data"))
    result = CliRunner().invoke(query, options, input=commands)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    for operator, name in case["redirect"]:
        with open(name, "a") as file:
            file.write(result.stderr if operator.startswith("2") else result.stdout)
    for got, want in case["compare"]:
        wanted = FOLDER / want if want.startswith("./") else Path(want)
        texts = [VISITS.sub("", path.read_text()) for path in (Path(got), wanted)]
        assert texts[0] == texts[1], f"{case['name']}: {options}\n{commands}"
