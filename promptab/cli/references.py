"""What people write for a prompt or a version, `TYPE/NAME[@VERSION]`, and finding it in the store."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from promptab.checks import check_name
from promptab.errors import InvalidInputError, NotFoundError
from promptab.lab import Lab
from promptab.models import PromptType, PromptVersion
from promptab.semver import sort_key


class Written(NamedTuple):
    """A reference as it was written; the store may have to say which type is meant."""

    name: str
    prompt_type: PromptType | None
    version: str | None


class Prompt(NamedTuple):
    prompt_type: PromptType
    name: str

    @property
    def label(self) -> str:
        return f"{self.prompt_type}/{self.name}"


def parse_reference(text: str, prompt_type: str | None = None) -> Written:
    """Read TYPE/NAME, NAME, and either with @VERSION. Raises `InvalidInputError`."""
    prompt, at, version = text.partition("@")
    if at and not version:
        raise InvalidInputError("reference", text, "TYPE/NAME@VERSION", "write the version after the @")
    written_type, slash, name = prompt.rpartition("/")
    kind = None if prompt_type is None else PromptType.parse(prompt_type)
    if slash:
        of_text = PromptType.parse(written_type)
        if kind is not None and kind != of_text:
            raise InvalidInputError("type", kind.value, f"the type in {text}", "leave --type out")
        kind = of_text
    return Written(check_name("name", name), kind, version or None)


def parse_prompt(text: str, prompt_type: str | None = None) -> Written:
    """Read TYPE/NAME or NAME; a version is refused."""
    written = parse_reference(text, prompt_type)
    if written.version is not None:
        raise InvalidInputError("prompt", text, "a prompt without a version", "leave @VERSION out")
    return written


async def find_prompt(lab: Lab, written: Written) -> Prompt:
    """Return the prompt that is meant.

    Raises `NotFoundError` naming what is alike, and `InvalidInputError` where several types have the name.
    """
    versions = await lab.versions.list_versions(written.name, written.prompt_type)
    kinds = sorted({version.prompt_type for version in versions})
    if len(kinds) > 1:
        labels = " or ".join(f"{kind}/{written.name}" for kind in kinds)
        raise InvalidInputError("prompt", written.name, "the name of one prompt", f"write {labels}")
    if not kinds:
        wanted = f"{written.prompt_type}/{written.name}" if written.prompt_type else written.name
        raise NotFoundError("prompt", wanted, await _what_there_is(lab, written.name))
    return Prompt(kinds[0], written.name)


async def find_version(lab: Lab, written: Written) -> PromptVersion:
    """Return the version that is meant; without one the latest, or the highest where none is active.

    Raises as `find_prompt`, and `NotFoundError` naming the versions there are.
    """
    prompt = await find_prompt(lab, written)
    found = await lab.versions.get_version(prompt.name, prompt.prompt_type, written.version or "latest")
    if found is not None:
        return found
    present = sorted_by_number(await lab.versions.list_versions(prompt.name, prompt.prompt_type))
    if written.version is None:
        return present[0]
    shown = ", ".join(f"{version.version} ({version.status})" for version in present[:8])
    more = f" and {len(present) - 8} more" if len(present) > 8 else ""
    raise NotFoundError("version", f"{prompt.label}@{written.version}", f"there are {shown}{more}")


async def find_exactly(lab: Lab, written: Written) -> PromptVersion:
    """Return the version that is named; a reference without @VERSION is refused, lest a guess goes live."""
    if written.version is None:
        label = f"{written.prompt_type}/{written.name}" if written.prompt_type else written.name
        raise InvalidInputError("reference", label, "a version", f"say which, as in {label}@1.0.0")
    return await find_version(lab, written)


def sorted_by_number(versions: Iterable[PromptVersion]) -> list[PromptVersion]:
    """Return the highest version first."""
    return sorted(versions, key=lambda version: sort_key(version.version), reverse=True)


async def _what_there_is(lab: Lab, name: str) -> str:
    labels = sorted({f"{v.prompt_type}/{v.name}" for v in await lab.versions.list_versions()})
    if not labels:
        return (
            "the store is empty: create one with `promptab new`, or bring files in with `promptab sync push`"
        )
    by_name = {label.partition("/")[2]: label for label in labels}
    close = difflib.get_close_matches(name, by_name, n=3)
    if close:
        return f"did you mean {' or '.join(by_name[match] for match in close)}?"
    shown = ", ".join(labels[:8])
    return f"there are {shown}" + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
