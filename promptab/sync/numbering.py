"""The number that a pushed file's version will have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from promptab.diff import VersionDiff
from promptab.errors import InvalidInputError
from promptab.library import PromptSource
from promptab.semver import Bump, next_version, step_between

_STEPS: Final[tuple[Bump, ...]] = ("patch", "minor", "major")


class Numbering(NamedTuple):
    version: str
    notes: tuple[str, ...] = ()


def planned_number(source: PromptSource, *, taken: Collection[str], change: VersionDiff | None) -> Numbering:
    """Return the number that the source asks for, or the next one after those taken.

    `change` is from the highest version, None where there is none. Raises `InvalidInputError` where the number that the
    source asks for is taken.
    """
    grade = None if change is None else change.grade
    if source.version is None:
        step = next((step for step in _STEPS if step == source.bump), grade or "patch")
        return Numbering(next_version(taken, step))
    if source.version in taken:
        bound = f"free: {source.label} has that version already, with another content"
        raise InvalidInputError("version", source.version, bound, "raise it in the file, or leave it out")
    declared = None if change is None else step_between(change.before, source.version)
    if change is None or grade is None or declared is None or _STEPS.index(declared) >= _STEPS.index(grade):
        return Numbering(source.version)
    note = f"{source.version} promises a {declared} change, but this one is {grade}: {change.reasons[0]}"
    return Numbering(source.version, (note,))
