"""Which file of the folder is which prompt: decided by names alone, before anything is opened."""

from __future__ import annotations

import difflib
import os
import stat
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from promptab.checks import check_name
from promptab.errors import InvalidInputError, PromptFileError
from promptab.library.lock import LOCK_NAME
from promptab.models import PromptType

MAX_ENTRIES = 10_000
"""Files and folders in one folder; of a folder that holds more, nothing is read."""

SUFFIXES = (".md", ".yaml", ".yml", ".json")
TYPE_FOLDERS = {prompt_type.value: prompt_type for prompt_type in PromptType} | {
    "messages": PromptType.MESSAGE
}
_IGNORED_AT_TOP = frozenset({"README.md", LOCK_NAME})


class Listing(NamedTuple):
    """What a folder holds, by name. Paths are relative to it, with forward slashes."""

    files: dict[tuple[PromptType, str], str]
    """By type and name: the path of the one file. When it is opened it may turn out to be a link."""
    clashes: dict[tuple[PromptType, str], PromptFileError]
    """By type and name in lower case: prompts with several files, and names that differ in case only."""
    closed: list[PromptFileError]
    """Type folders that cannot be looked into."""
    strangers: list[PromptFileError]
    """Entries that are no prompt files."""

    @property
    def problems(self) -> list[PromptFileError]:
        return [*self.clashes.values(), *self.closed, *self.strangers]


def list_prompts(prompt_dir: Path, prompt_types: Collection[PromptType]) -> Listing:
    """List the prompt files of some types.

    Raises:
        InvalidInputError: `prompt_dir` is not a folder that can be listed.
    """
    closed: list[PromptFileError] = []
    strangers: list[PromptFileError] = []
    found: dict[tuple[PromptType, str], list[tuple[str, str]]] = defaultdict(list)
    for folder in _top_entries(prompt_dir):
        prompt_type = TYPE_FOLDERS.get(folder)
        if prompt_type is None:
            strangers.append(_stranger_at_top(folder))
        elif prompt_type in prompt_types:
            try:
                entries = _folder_entries(prompt_dir / folder, folder)
            except PromptFileError as problem:
                closed.append(problem)
                continue
            for entry in entries:
                name = _prompt_name(entry)
                if isinstance(name, PromptFileError):
                    strangers.append(name)
                else:
                    found[prompt_type, name.lower()].append((name, f"{folder}/{entry.name}"))
    files = {(key[0], named[0][0]): named[0][1] for key, named in found.items() if len(named) == 1}
    clashes = {key: _clash(key[0], named) for key, named in found.items() if len(named) > 1}
    return Listing(files, clashes, closed, strangers)


def printable(path: str) -> str:
    """A file name as it can be shown anywhere: names on disk may hold control characters and broken text."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in path)


def _top_entries(prompt_dir: Path) -> list[str]:
    try:
        names = _sorted_names(prompt_dir)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInputError(
            "prompt_dir",
            str(prompt_dir),
            f"a folder that can be read ({reason})",
            "make it, or name another folder",
        ) from None
    if len(names) > MAX_ENTRIES:
        raise InvalidInputError("prompt_dir", str(prompt_dir), f"a folder with at most {MAX_ENTRIES} entries")
    return [name for name in names if name not in _IGNORED_AT_TOP]


def _folder_entries(folder: Path, shown: str) -> list[Path]:
    try:
        # A link could lead anywhere, so it is looked at and never through.
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise PromptFileError(
                shown, "is not a folder (a link to one does not count); prompts are in real folders only"
            )
        names = _sorted_names(folder)
    except OSError as error:
        raise PromptFileError(shown, f"cannot be listed: {error.strerror}") from None
    if len(names) > MAX_ENTRIES:
        raise PromptFileError(shown, f"holds more than {MAX_ENTRIES} entries; none of them was read")
    return [folder / name for name in names]


def _sorted_names(folder: Path) -> list[str]:
    """Up to one more than `MAX_ENTRIES` names, without dot files."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                names.append(entry.name)
            if len(names) > MAX_ENTRIES:
                break
    return sorted(names)


def _prompt_name(entry: Path) -> str | PromptFileError:
    """The name of the prompt that an entry of a type folder declares, or why it declares none."""
    shown = printable(f"{entry.parent.name}/{entry.name}")
    if entry.suffix not in SUFFIXES:
        if entry.is_dir():
            return PromptFileError(
                shown, "is a folder; prompts are files directly in the folder of their type"
            )
        return PromptFileError(shown, f"is not a prompt file; their names end in {', '.join(SUFFIXES)}")
    try:
        return check_name("the file's name", entry.stem)
    except InvalidInputError as error:
        return PromptFileError(shown, str(error))


def _stranger_at_top(name: str) -> PromptFileError:
    close = difflib.get_close_matches(name.lower()[:80], TYPE_FOLDERS, n=1)
    remedy = f"did you mean {close[0]}/?" if close else f"expected the folders {', '.join(PromptType)}"
    return PromptFileError(printable(name), f"does not belong into a folder of prompts; {remedy}")


def _clash(prompt_type: PromptType, named: list[tuple[str, str]]) -> PromptFileError:
    paths = [path for _, path in named]
    if len({name for name, _ in named}) == 1:
        reason = f"the prompt {prompt_type}/{named[0][0]} has several files: {', '.join(paths)}; keep one"
    else:
        reason = (
            f"names that differ in case only are one file on many machines: {', '.join(paths)}; rename one"
        )
    return PromptFileError(paths[0], reason)
