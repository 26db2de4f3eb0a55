"""Plans and reports of `promptab sync`, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptab.cli.output import table, visible
from promptab.cli.wording import counted
from promptab.diff import VersionDiff
from promptab.sync import SyncAction, SyncItem, SyncPlan, SyncReport

if TYPE_CHECKING:
    from rich.console import Console

_WORDS = {action: action.value.replace("_", " ") for action in SyncAction}
_STYLES = {
    SyncAction.PROBLEM: "bold red",
    SyncAction.CONFLICT: "bold red",
    SyncAction.FOREIGN: "bold yellow",
    SyncAction.VERSION_GONE: "bold yellow",
    SyncAction.FILE_DELETED: "bold yellow",
}
_LINE_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def print_plan(to: Console, plan: SyncPlan) -> None:
    """Print what is not in step, the differences of conflicts, and how much is in step."""
    for problem in plan.problems:
        to.print(f"problem: {visible(problem)}", style="bold red", soft_wrap=True)
    in_step = plan.of(SyncAction.IN_STEP)
    open_items = [item for item in plan.items if item.action != SyncAction.IN_STEP]
    if open_items:
        listing = table("", "prompt", "version", "why")
        for item in open_items:
            listing.add_row(
                _WORDS[item.action],
                item.label,
                _versions(item),
                visible(item.reason),
                style=_STYLES.get(item.action),
            )
        to.print(listing)
    for item in plan.items:
        for note in item.notes:
            to.print(f"{item.label}: {visible(note)}", soft_wrap=True)
    for item in plan.of(SyncAction.CONFLICT):
        _print_conflict(to, item)
    if in_step:
        to.print(f"{counted(len(in_step), 'prompt')} in step")
    elif not plan.items and not plan.problems:
        to.print("There are no prompts yet, neither in files nor in the store.")


def print_report(to: Console, report: SyncReport) -> None:
    for outcome in report.outcomes:
        text = f"{outcome.label}: {visible(outcome.detail)}"
        to.print(
            text if outcome.done else f"not done: {text}",
            style=None if outcome.done else "bold red",
            soft_wrap=True,
        )


def _versions(item: SyncItem) -> str:
    if item.locked is None or item.version is None or item.locked == item.version:
        return item.version or item.locked or ""
    return f"{item.locked} -> {item.version}"


def _print_conflict(to: Console, item: SyncItem) -> None:
    conflict = item.conflict
    if conflict is None:
        return
    sides = (
        (f"in the store, since {conflict.base}", conflict.in_store),
        (f"in the file, since {conflict.base}", conflict.in_file),
        ("from the store to the file", conflict.apart),
    )
    for title, change in sides:
        if change is not None:
            to.print(f"\n{item.label}, {title}:", style="bold")
            _print_change(to, change)


def _print_change(to: Console, change: VersionDiff) -> None:
    for reason in change.reasons:
        to.print(f"  {visible(reason)}", soft_wrap=True)
    for path, (old, new) in (*change.config.items(), *change.output_schema.items()):
        to.print(visible(f"-{path}: {old!r}"), style="red", soft_wrap=True)
        to.print(visible(f"+{path}: {new!r}"), style="green", soft_wrap=True)
    for line in change.template.splitlines():
        to.print(visible(line), style=_LINE_STYLES.get(line[:1]), soft_wrap=True)
