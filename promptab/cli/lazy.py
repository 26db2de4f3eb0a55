"""A group whose commands are imported when one is used; their names and one-line helps are known before."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

# The class of every misuse (unknown command or option, missing argument): Typer exports no name for it, and
# keeps it in a different package from release to release.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


EXAMPLE = "$ promptab "
"""What the lines of a help begin with that can be run as they stand."""


class Entry(NamedTuple):
    """One command that is not imported yet."""

    target: str
    """`module:name` of a function, or of a `typer.Typer` with commands of its own."""
    short_help: str
    panel: str
    """Heading under which the help lists it."""


class LazyGroup(TyperGroup):
    """The command line as a whole: loads commands on use, and turns errors into exit codes.

    This is the outermost place of a command: nothing escapes it but `SystemExit`.
    """

    entries: ClassVar[Mapping[str, Entry]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.help = flowing(self.help)
        for name, entry in self.entries.items():
            self.add_command(
                TyperCommand(name=name, short_help=entry.short_help, rich_help_panel=entry.panel), name
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.entries:
            command = _load(name, self.entries[name])
        return name, command, rest

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, *rest, **extra)
        except typer.Abort:
            typer.echo("aborted", err=True)
            code = 1
        except Exception as error:  # noqa: BLE001 - the outermost loop of a command: everything becomes an exit code
            code = _explain(error, arguments)
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception, arguments: Sequence[str]) -> int:
    # read here and not from the parsed options, since parsing is one of the things that fail
    as_json = "--json" in arguments
    from promptab.cli.output import report, report_json  # noqa: PLC0415 - the help needs none of it

    if not isinstance(error, _UsageError):
        return report(error, as_json=as_json, with_traceback="--traceback" in arguments)
    # without any argument the help itself is the answer, and Typer has shown it
    if as_json:
        report_json("usage", error.format_message())
    elif type(error).__name__ != "NoArgsIsHelpError":
        error.show()
    return error.exit_code


def _load(name: str, entry: Entry) -> Any:
    module, _, attribute = entry.target.partition(":")
    loaded = getattr(importlib.import_module(module), attribute)
    holder = typer.Typer(add_completion=False)
    if isinstance(loaded, typer.Typer):
        holder.add_typer(loaded, name=name)
        group = cast("TyperGroup", cast("TyperGroup", typer.main.get_command(holder)).commands[name])
        group.help = flowing(group.help)
        for command in group.commands.values():
            command.help = flowing(command.help)
        return group
    holder.command(name)(loaded)
    single = typer.main.get_command(holder)
    single.help = flowing(single.help)
    return single


def flowing(text: str | None) -> str:
    """Join the lines of a docstring's paragraphs, which the terminal breaks anew; examples keep their lines."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith(EXAMPLE) else " ".join(paragraph.split("\n"))
        for paragraph in paragraphs
    )
