"""Directives in scripts (RFC 36), updates of jobspecs and annotations (RFC 21, 27) against the published vectors."""

from __future__ import annotations

import copy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxkv.journal import directives, updates
from fluxkv.kvs.errors import Rejected


def test_directive_vectors(vectors):
    for case in vectors("directives"):
        for script in (case["input"], case["input"].encode(), case["input"].replace("\n", "\r\n")):
            if "error" in case:
                with pytest.raises(Rejected):
                    directives.parse_directives(script)
            else:
                assert directives.parse_directives(script) == case["expected"], case["input"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", []),
        ("#flux:", []),
        ("#flux: # all of it is a comment", []),
        ("#flux: --job-name=a#b", ["--job-name=a#b"]),  # as in a shell, # within a word is no comment
        ("#flux: --x=a\\ b 'c'\"d\"e", ["--x=a b", "cde"]),
        ('#flux: --x="a \\"b\\" \\n"', ['--x=a "b" \\n']),
        ("#flux: -N1 ''", ["-N1", ""]),
        ("#flux: --a='''x''' -b", ["--a=x", "-b"]),
        ("#flux: --a='''\n#flux:   x\n#flux:    y'''\n#flux: -c1", ["--a=x\n y", "-c1"]),
        ("#flux: -N1\n\n#flux: -n2\n", ["-N1", "-n2"]),
        ("#flux: -N1\ncat <<END\nflux: in a text of the script\nEND\n", ["-N1"]),
    ],
)
def test_more_directives(script, words):
    assert directives.parse_directives(script) == words


@pytest.mark.parametrize(
    ("script", "line", "why"),
    [
        ("#flux: -N1\ntrue\n#flux: -n1", 3, "below"),
        ("#flux: -N1\ntrue\n# FLUX: -n1", 3, "below"),
        ("#flux: -N1\n#FLUX: -n1", 2, "alike"),
        ("\n#flux: N1", 2, "not an option"),
        ("#flux: --a='b", 1, "does not close"),
        ("#flux: --a='''b", 1, "does not close"),
        ("#flux: --a='''\n#flux: b", 1, "does not close"),
        ("#flux: -N1\\", 1, "backslash"),
        ("#flux: " + "-v " * 5000, 1, "words"),
        (None, 1, "no script"),
    ],
)
def test_a_bad_directive_names_its_line(script, line, why):
    with pytest.raises(Rejected, match=f"line {line}: .*{why}"):
        directives.parse_directives(script)


@settings(max_examples=150, deadline=None)
@given(st.text("#fluxFLUX: -N\"'\\\n\t=a", max_size=60))
def test_any_script_gives_words_or_is_refused(script):
    try:
        words = directives.parse_directives("#flux: " + script)
    except Rejected:
        return
    assert all(isinstance(word, str) for word in words)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="'\n"), max_size=8), max_size=4))
def test_quoted_words_come_back(words):
    line = "#flux: " + " ".join(f"'-{word}'" for word in words).replace("'-", "-'")
    assert directives.parse_directives(line + "\n") == [f"-{word}" for word in words]


def test_large_scripts_are_read_quickly():
    began = time.process_time()
    assert directives.parse_directives("#flux: -N1\n" + "! " * 500_000 + "\n" + "x\n" * 200_000) == ["-N1"]
    assert directives.parse_directives(b"\xff\xfe\n" * 100_000) == []
    assert time.process_time() - began < 5


def test_jobspec_update_vectors(vectors):
    for case in vectors("jobspec_update"):
        before = copy.deepcopy(case["input"]["jobspec"])
        assert updates.update_paths(before, case["input"]["context"]) == case["expected"]
        assert before == case["input"]["jobspec"]


def test_annotation_vectors(vectors):
    for case in vectors("annotations_update"):
        before = copy.deepcopy(case["input"]["current"])
        assert updates.merge(before, case["input"]["update"]) == case["expected"]
        assert before == case["input"]["current"]


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_updates_that_make_no_sense_are_refused():
    for path in ("", "a.", ".a", "a..b", ".".join("a" * 100), 3, None):
        with pytest.raises(Rejected):
            updates.update_paths({}, {path: 1})
    with pytest.raises(Rejected):
        updates.update_paths({"a": 1}, {"a.b": 1})
    with pytest.raises(Rejected):
        updates.update_paths({}, {"a": nested(5000)})
    with pytest.raises(Rejected):
        updates.merge({}, nested(5000))
    one = {"x": {"y": 1}}
    assert updates.update_paths({}, {"a": one, "a.x.z": 2}) == {"a": {"x": {"y": 1, "z": 2}}}
    assert one == {"x": {"y": 1}}  # the event keeps what it said
