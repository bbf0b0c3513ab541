"""Groups of commands: what they say to one they have not; some live in other modules, imported when called. Decides no rules."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from .job_paths import ActingContext


class SuggestingGroup(click.Group):
    """A group that answers a command it has not with the one that may have been meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            from .meant import meant

            ctx.fail(f"No such command {args[0]!r}.{meant(ctx, args)}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            command.context_class = ActingContext
        return name, command, rest


class LazyCommands(SuggestingGroup):
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
        shown = self.list_commands(ctx)
        rows = [(name, self.commands[name].get_short_help_str(80)) for name in shown if name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(sorted([*rows, *((name, found[2]) for name, found in self.more.items() if name in shown)]))
