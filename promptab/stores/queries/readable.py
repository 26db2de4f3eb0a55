"""Rows that cannot be read: one of them must not take everything else out of service."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlalchemy import Row

from promptab.errors import PromptabError

T = TypeVar("T")

logger = logging.getLogger("promptab")


def lenient_json(text: str) -> Any:
    """Decode a column, or return text that is no JSON as it is: then its row alone is refused, when it is read."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def readable(rows: Iterable[Row[Any]], record: Callable[[Row[Any]], T], what: str) -> list[T]:
    """Return the records of the rows; one that has been damaged past the checks is left out, and logged."""
    records = []
    for row in rows:
        try:
            records.append(record(row))
        except (ValueError, TypeError, KeyError, PromptabError) as error:
            logger.error("left out a %s that cannot be read (%s): %s", what, row[0], error)  # noqa: TRY400 - the row is what is wrong, not the code
    return records
