"""`fluxkv replay`: the state made again from the first commit, without snapshots, and compared. Changes
nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .reading import bound, gc_paused
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.log import Journal
    from .folding import Fold


@click.command()
@click.argument("path", required=False, metavar="[JOB|PATH]")
@click.option("--until", metavar="VERSION|TIME", help="Stop there.")
@click.option(
    "--diff",
    metavar="live",
    type=click.Choice(["live"]),
    help="Compare with the live state (snapshot and tail).",
)
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def replay(
    path: str | None, until: str | None, diff: str | None, as_json: bool, uri: str | None, state_dir: str | None
) -> None:
    """Fold the journal from its first commit and check every digest in it: this instance's, or that of one inside it.

    \b
    Examples:
      fluxkv replay                       how long it takes, and what comes out
      fluxkv replay --diff live           exit status 0 only if the live state is the same
      fluxkv replay --until 'yesterday 17:00'
      fluxkv replay --state-dir ~/old --json
      fluxkv replay ƒ3kQ                  of the instance that job ƒ3kQ is, or was
    """
    from . import render
    from .folding import Fold

    if diff and until:
        raise Rejected("the live state is the newest: --until cannot be compared with it", code="bad-option")
    with open_journal(uri, state_dir, path=path) as journal:
        version, moment = bound(journal, until)
        fold = Fold(journal)
        began = time.perf_counter()
        with gc_paused():
            fold.run(version, moment)
            digest = fold.state.digest()
        seconds = time.perf_counter() - began
        document = _document(fold, digest, seconds)
        if diff:
            document["diff"] = _compare(journal, fold)
    sound = not fold.faults and document.get("diff", {}).get("equal", True)
    document["sound"] = sound
    if as_json:
        render.print_json(document)
    else:
        _show(document)
    if not sound:
        raise SystemExit(1)


def _document(fold: Fold, digest: bytes, seconds: float) -> dict[str, Any]:
    from ..journal.job import STATE_NAMES

    state = fold.state
    results = {result.name: number for result, number in state.ended().items() if number}
    return {
        "version": state.version, "epoch": state.epoch, "time": state.time, "events": state.events,
        "skipped": state.skipped, "seconds": round(seconds, 6),
        "events_per_s": round(state.events / max(seconds, 1e-9)),
        "digest": digest.hex(), "digests_checked": fold.checked, "digests_unchecked": fold.unchecked,
        "jobs": {STATE_NAMES[key]: number for key, number in sorted(state.counts.items()) if number},
        "results": results, "retired": state.retired, "nodes": len(state.nodes),
        "faults": [fault._asdict() for fault in fold.faults], "passed": fold.passed,
    }  # fmt: skip


def _compare(journal: Journal, fold: Fold) -> dict[str, Any]:
    """The live state against the fold, both brought to the live state's version."""
    from .folding import first_difference

    with gc_paused():
        live = journal.load()
    for commit in journal.commits(fold.state.version, live.version):
        fold.state.apply(commit)
    ours, theirs = fold.state.digest(), live.digest()
    document: dict[str, Any] = {
        "with": "live",
        "version": live.version,
        "digest": theirs.hex(),
        "equal": ours == theirs,
    }
    found = first_difference(fold.state, live)
    if found is not None or ours != theirs:
        from .eventview import plain

        subject, one, other = found if found is not None else ("digest", ours, theirs)
        document |= {"equal": False, "subject": subject, "replayed": plain(one), "live": plain(other)}
    return document


def _show(document: dict[str, Any]) -> None:
    from . import render

    took = render.duration_text(document["seconds"])
    jobs = ", ".join(f"{number} {name}" for name, number in document["jobs"].items()) or "none"
    render.out(
        f"version   {document['version']} (epoch {document['epoch']}), {render.human_time(document['time'])}"
    )
    render.out(f"events    {document['events']} in {took}, {document['events_per_s']} events/s")
    if document["skipped"]:
        render.out(f"skipped   {document['skipped']} events that this program does not know, or that are none")
    results = ", ".join(f"{number} {name}" for name, number in sorted(document["results"].items()))
    render.out(f"jobs      {jobs}" + (f" ({results})" if results else ""))
    if document["retired"]:
        render.out(f"retired   {document['retired']} jobs")
    checked = f"{document['digests_checked']} commits carried digests that agree"
    wrong = sum(fault["code"] == "digest" for fault in document["faults"])
    if wrong:
        checked = f"{wrong} of {document['digests_checked']} digests in commits do NOT agree"
    render.out(f"digest    {document['digest']}; {checked}")
    for fault in document["faults"][:10]:
        render.out(f"fault     entry {fault['entry']}: {fault['text']}")
    for first, last in document["passed"]:
        render.out(f"passed    versions {first} to {last}: taken from the snapshot, as one of them cannot be read")
    diff = document.get("diff")
    if diff is None:
        return
    if diff["equal"]:
        render.out(f"diff      equal to the live state at version {diff['version']}")
        return
    render.out(
        f"diff      DIFFERS from the live state at version {diff['version']}, first in {diff['subject']}"
    )
    render.out(f"  replayed {diff['replayed']}")
    render.out(f"  live     {diff['live']}")
