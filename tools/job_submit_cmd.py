"""`fluxkv job submit`: one jobspec as it is, from a file or standard input."""

from __future__ import annotations

import click

from .options import flags_of, key_of, urgency_of
from .render import print_id
from .submit_cmd import connected


@click.command("submit")
@click.argument("file", default="-", metavar="[FILE]")
@click.option("--urgency", metavar="URGENCY", default="16", help="0 (hold) to 31 (expedite); default 16.")
@click.option("--flags", multiple=True, metavar="FLAG", help="Job flags: debug, waitable, novalidate.")
@click.option("--id", "key", metavar="KEY", help="Submit it once: a job with this key is the one.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def submit(file: str, urgency: str, flags: tuple[str, ...], key: str | None, uri: str | None) -> int:
    """Submit a jobspec (RFC 14, 25) in JSON or YAML, and print the job's id. - or nothing: from standard input.

    Without an environment or a directory in it, the job gets the ones this command has.

    \b
    Examples:
      fluxkv job submit job.yaml
      fluxkv submit --dry-run -n2 true | fluxkv job submit
    """
    from .jobspec_input import jobspec_of_file

    level, mask, name = urgency_of(urgency), flags_of(flags), key_of(key)
    jobspec, env = jobspec_of_file(file)
    with connected(uri) as instance:
        (id,) = instance.submitter.submit([(jobspec, env)], level, mask, [name])
    print_id(id)
    return 0
