"""Named output formats of `jobs`, `pgrep` and `resource`: those built in, and those a user or a site has written down.

Read from `jobs.toml` or `resource.toml` in each of $XDG_CONFIG_DIRS/fluxkv (default /etc/xdg), then $XDG_CONFIG_HOME/fluxkv
(default ~/.config), the later one winning: tables `[formats.NAME]` (of a subcommand: `[list.formats.NAME]`) with `format` and, if
wanted, `description`, as Flux has them.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from ..kvs.errors import Rejected

_NAME = re.compile(r"[A-Za-z0-9_.=-]+")


class Named(NamedTuple):
    """A format and what it is for."""

    text: str
    description: str


BUILT_IN = {
    "default": Named(
        "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_abbrev:>2} {ntasks:>6} {nnodes:>6h} "
        "{contextual_time!F:>8h} {contextual_info}", "what waits and why, what runs and where, how it ended"),
    "cute": Named(
        "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_emoji:>2} {ntasks:>6} {nnodes:>6h} "
        "{contextual_time!F:>8h} {contextual_info}", "the same, with emoji"),
    "long": Named(
        "{id.f58:>12} {queue:<8.8+} {username:<8.8+} {name:<10.10+} {status:>9} {urgency:>3} "
        "{ntasks:>6} {nnodes:>6h} {t_submit!d:%b%d %R::>12} {t_remaining!F:>12h} {runtime!F:>8h} {duration!F:>8h} "
        "{contextual_info}", "with queue, urgency, times and limits"),
    "deps": Named(
        "{id.f58:>12} {queue:<8.8+} {name:<10.10+} {urgency:<3} {priority:<12} {state:<8.8} {dependencies}",
        "what each job waits for"),
    "endreason": Named(
        "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_abbrev:>2} "
        "{t_inactive!d:%b%d %R::>12h} {runtime!F:>8h} {inactive_reason}", "why each job ended"),
    "failed": Named(
        "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_abbrev:>2} "
        "{t_inactive!d:%b%d %R::>12h} {runtime!F:>8h} {cause}", "what went wrong, in one line"),
    "id": Named("{id.f58}", "ids alone"),
}  # fmt: skip


class Book(NamedTuple):
    """Where the formats of one command are: its file, its table there ("" for the top), and those built in."""

    file: str
    table: str
    built_in: dict[str, Named]

    def configured(self) -> dict[str, Named]:
        """The formats of the config files. Raises `Rejected` for a file that cannot be used."""
        found: dict[str, Named] = {}
        for path in _paths(self.file):
            found.update(_read(path, self))
        return found


JOBS = Book("jobs.toml", "", BUILT_IN)


def find_format(text: str, variable: str = "", book: Book = JOBS) -> tuple[str, str]:
    """(name or "", format) of what -o was given: a name, or a format itself; of "" what the variable says, else default.

    Raises `Rejected` for a name that nobody has defined.
    """
    text = text or (os.environ.get(variable, "") if variable else "") or "default"
    if text in book.built_in:
        return text, book.built_in[text].text
    if "{" in text or not _NAME.fullmatch(text):
        return "", text
    found = book.configured().get(text)
    if found is None:
        import difflib

        known = [*book.built_in, *book.configured()]
        near = difflib.get_close_matches(text, known, 3) or known
        raise Rejected(
            f"no output format is called {text!r}", code="bad-format", hint=f"there are {', '.join(near)}; or write {{id}} {{name}}"
        )
    return text, found.text


def configured() -> dict[str, Named]:
    """Those of `jobs` in the config files."""
    return JOBS.configured()


def _paths(file: str) -> list[str]:
    site = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [os.path.join(folder, "fluxkv", file) for folder in (*reversed(site), own) if folder]


def _read(path: str, book: Book) -> dict[str, Named]:
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Rejected(f"{path}: {error}", code="bad-config", hint="it is TOML: [formats.NAME], format = '{id}'") from None
    found: dict[str, Named] = {}
    table: Any = document.get(book.table, {}) if book.table else document
    table = table.get("formats", {}) if isinstance(table, dict) else None
    for name, one in table.items() if isinstance(table, dict) else [("", {})]:
        text = one.get("format") if isinstance(one, dict) else None
        if not isinstance(text, str) or name in book.built_in:
            why = "is built in and cannot be defined anew" if name in book.built_in else "needs a format, a text"
            raise Rejected(f"{path}: formats.{name} {why}", code="bad-config", hint="[formats.NAME], format = '{id}'")
        found[name] = Named(text, str(one.get("description", "")))
    return found


def config_of(name: str, book: Book = JOBS) -> str:
    """A named format as it would stand in a config file."""
    from json import dumps

    _, text = find_format(name, "", book)
    about = {**book.built_in, **book.configured()}.get(name, Named(text, ""))
    table = f"{book.table}.formats" if book.table else "formats"
    return f"[{table}.{name}]\ndescription = {dumps(about.description)}\nformat = {dumps(text)}"
