"""Telling callers what became of their events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from promptab.errors import ConflictError
from promptab.stores.backlog import Rows
from promptab.stores.event_rows import BatchOutcome

logger = logging.getLogger("promptab")


def tell(settled: Rows, outcome: BatchOutcome) -> None:
    """Answer those who await an event of the batch; a conflict that nobody awaits is logged."""
    if outcome.conflicts or outcome.flagged:
        _tell_each(settled, outcome)
        return
    for answer, event in zip(settled.answers, settled.events, strict=True):
        if answer is not None and not answer.done():
            answer.set_result(event)


def _tell_each(settled: Rows, outcome: BatchOutcome) -> None:
    for position, (answer, event) in enumerate(zip(settled.answers, settled.events, strict=True)):
        if position in outcome.conflicts:
            conflict = ConflictError(
                f"event {event.event_id} exists already with other content; give each event an id of its own"
            )
            if answer is None:
                logger.warning("%s", conflict)
            reject([answer], conflict)
        elif answer is not None and not answer.done():
            flagged = position in outcome.flagged
            answer.set_result(event.model_copy(update={"flagged": True}) if flagged else event)


def reject(answers: Iterable[asyncio.Future[Any] | None], error: Exception) -> None:
    """Raise the error at those who still wait; None is where nobody does."""
    for answer in answers:
        if answer is not None and not answer.done():
            answer.set_exception(error)
