"""A group of commands, some of which live in other modules and are imported when they are called. Decides no rules."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyCommands(click.Group):
    """more: command -> (module under tools/, object, one line of help)."""

    def __init__(self, *args: Any, more: Mapping[str, tuple[str, str, str]] | None = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.more = dict(more or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.more]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.more:
            return super().get_command(ctx, cmd_name)
        module, name, _ = self.more[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"..{module}_cmd", __name__), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.commands[name].get_short_help_str(80)) for name in sorted(self.commands)]
        with formatter.section("Commands"):
            formatter.write_dl(sorted([*rows, *((name, found[2]) for name, found in self.more.items())]))
