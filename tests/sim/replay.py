"""Play seeds again, from a failure's line: `.venv/bin/python tests/sim/replay.py [--mutant NAME] SEED...`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "sim"), str(TESTS / "support")]


def main(words: list[str]) -> int:
    """Status 1 if one fails, 2 for a line that makes no sense."""
    from mutants import MUTANTS, planted
    from simulator.play import Failed, play

    mutants = {one.name: one for one in MUTANTS}
    name = ""
    if words[:1] == ["--mutant"]:
        name, words = "".join(words[1:2]), words[2:]
    if not words or not all(word.isdecimal() for word in words) or (name and name not in mutants):
        print(__doc__, f"\nNAME is one of {', '.join(mutants)}", file=sys.stderr)
        return 2
    failed = 0
    for seed in map(int, words):
        with planted(mutants[name]) if name else nullcontext():
            try:
                play(seed)
            except Failed as failure:
                failed = 1
                print(failure)
            else:
                print(f"seed {seed} holds")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
