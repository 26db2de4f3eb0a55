"""What people see of decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from promptab.cli.output import visible
from promptab.cli.wording import day_and_minute
from promptab.decisions.decision import Decision
from promptab.decisions.stored import DecisionStatus, StoredDecision

if TYPE_CHECKING:
    from rich.console import Console

ID_CHARS = 8

_OUTCOMES: Mapping[DecisionStatus, str] = {
    "noted": "nothing to do",
    "pending": "not applied",
    "awaiting_approval": "waits for approval",
    "by_hand": "waits for a person",
    "applied": "applied",
    "superseded": "superseded",
}
_STYLES: Mapping[DecisionStatus, str] = {
    "applied": "green",
    "pending": "yellow",
    "awaiting_approval": "yellow",
    "by_hand": "yellow",
}


def what(decision: Decision) -> str:
    """Return what is to be done, to which variants: promote 1.1.0."""
    if decision.rule == "policy":
        return "new policy"
    return " ".join([decision.action, ", ".join(decision.variants)]).strip()


def outcome(stored: StoredDecision) -> str:
    """Return what became of it: applied by Ada, nothing to do."""
    by = f" by {stored.actor}" if stored.actor else ""
    return f"{_OUTCOMES[stored.status]}{by}"


def print_decision(to: Console, stored: StoredDecision) -> None:
    """Print one decision that has just been made or applied, and what to do next."""
    decision = stored.decision
    to.print(f"{decision.experiment}: {what(decision)} ({outcome(stored)})", style="bold")
    to.print(visible(decision.sentence))
    if stored.detail:
        to.print(visible(f"{stored.detail}."))
    if (following := _following(stored)) is not None:
        to.print(following, style="dim")


def print_decisions(to: Console, found: Sequence[StoredDecision]) -> None:
    """Print decisions one below the other, in the order given."""
    if not found:
        to.print("Nothing has been decided yet.")
    for stored in found:
        decision = stored.decision
        head = f"{day_and_minute(decision.at)}  {stored.decision_id[:ID_CHARS]}  {what(decision)}"
        to.print(f"{head} ({decision.rule}): {outcome(stored)}", style=_STYLES.get(stored.status, ""))
        for sentence in (decision.sentence, stored.detail, _seen(stored)):
            if sentence:
                _indented(to, sentence)


def _indented(to: Console, text: str) -> None:
    from rich.padding import Padding  # noqa: PLC0415 - as long to import as a small command takes to run

    to.print(Padding(visible(text), (0, 0, 0, 4)), style="dim")


def _seen(stored: StoredDecision) -> str:
    if stored.seen == 1:
        return ""
    return f"seen {stored.seen:,} times, the last at {day_and_minute(stored.seen_at)}"


def _following(stored: StoredDecision) -> str | None:
    name = stored.decision.experiment
    match stored.status:
        case "pending":
            return "Nothing has changed; with --apply it is done."
        case "awaiting_approval" | "by_hand":
            return f"Nothing has changed; `promptab approve {name}` does it."
        case "superseded":
            return "Nothing was done; decide again."
        case _:
            return None
