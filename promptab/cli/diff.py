"""`promptab diff`: what changed between two versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptab.cli.options import JsonOption, PromptArgument, TypeOption, UrlOption
from promptab.cli.output import emit, run, visible
from promptab.cli.references import Written, find_prompt, find_version, parse_prompt
from promptab.diff import VersionDiff
from promptab.lab import Lab

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def diff(
    prompt: PromptArgument,
    before: Annotated[str, typer.Argument(metavar="A", help="A version, range or tag.", show_default=False)],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one.", show_default=False)],
    *,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what changed from version A to version B, and how large a SemVer step that is, with the reasons.

    $ promptab diff system/greeting 1.0.0 latest
    """

    async def work(lab: Lab) -> tuple[str, VersionDiff]:
        found = await find_prompt(lab, parse_prompt(prompt, prompt_type))
        old = await find_version(lab, Written(found.name, found.prompt_type, before))
        new = await find_version(lab, Written(found.name, found.prompt_type, after))
        return found.label, await lab.versions.diff(old, new)

    label, change = run(work, url=url)
    emit(change, as_json=as_json, human=lambda to: _print(to, label, change))


def _print(to: Console, label: str, change: VersionDiff) -> None:
    if change.empty:
        to.print(f"{label}: {change.before} and {change.after} have the same content.")
        return
    to.print(f"{label}: {change.before} -> {change.after} is a {change.grade} change", style="bold")
    for reason in change.reasons:
        to.print(f"  {reason}")
    for title, changes in (("configuration", change.config), ("output schema", change.output_schema)):
        if changes:
            to.print(f"\n{title}:", style="bold")
        for path, (old, new) in changes.items():
            _print_line(to, f"- {path}: {_shown(old)}")
            _print_line(to, f"+ {path}: {_shown(new)}")
    if change.template:
        to.print("\ntemplate:", style="bold")
        for line in change.template.splitlines():
            _print_line(to, line)


def _print_line(to: Console, line: str) -> None:
    style = "bold" if line.startswith(("--- ", "+++ ")) else _STYLES.get(line[:1])
    to.print(visible(line), style=style, soft_wrap=True)


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False, default=dict)
