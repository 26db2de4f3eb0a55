"""`promptab.lock`: for each prompt the version that its file was last in step with. It is to be committed.

    promptab-lock 1
    system/support_reply 0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f 1.2.0 9f86d081884c7d65…
    <type>/<name> <store id> <version> <content hash>

One sorted line per prompt: changes to different prompts merge by themselves, changes to one prompt conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from promptab.checks import check_name
from promptab.errors import InvalidInputError, PromptFileError
from promptab.library.disk import read_regular_file, replace_file
from promptab.models import PromptType
from promptab.semver import parse_version

LOCK_NAME = "promptab.lock"
MAX_LOCK_BYTES = 20_000_000

_FORMAT = "promptab-lock 1"
_STORE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_CONTENT_HASH = re.compile(r"[0-9a-f]{64}")


class LockEntry(NamedTuple):
    prompt_type: PromptType
    name: str
    store_id: str
    """The store that has the version; a printable token without spaces."""
    version: str
    content_hash: str
    """SHA-256 in hex, 64 lower-case digits."""


class Lock:
    """The entries of a lock file. Immutable: `with_entry` and `without` return another lock."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[LockEntry] = ()) -> None:
        """Raises `InvalidInputError` for an entry that no file may hold, or two entries for one prompt."""
        checked: dict[tuple[PromptType, str], LockEntry] = {}
        for entry in entries:
            _check_entry(entry)
            key = (entry.prompt_type, entry.name)
            if key in checked:
                raise InvalidInputError(
                    "lock", f"{entry.prompt_type}/{entry.name}", "a prompt with one entry only"
                )
            checked[key] = entry
        self._entries = checked

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a lock file; one that is not there is an empty lock.

        Raises:
            PromptFileError: with the line that cannot be used; nothing of a broken lock is used.
        """
        if not path.exists() and not path.is_symlink():
            return cls()
        data = read_regular_file(path, shown=path.name, limit=MAX_LOCK_BYTES)
        try:
            return cls.parse(data.decode(), path=path.name)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise PromptFileError(path.name, "is not UTF-8", line=line) from None

    @classmethod
    def parse(cls, text: str, *, path: str = LOCK_NAME) -> Self:
        """Read the text of a lock file, whose lines may be in any order; `path` names it in a refusal."""
        lines = text.replace("\r\n", "\n").split("\n")
        if lines[0] != _FORMAT:
            raise PromptFileError(
                path, f"the first line is not {_FORMAT!r}: not a lock file, or a newer one", line=1
            )
        seen: dict[tuple[PromptType, str], int] = {}
        entries: list[LockEntry] = []
        for number, line in enumerate(lines[1:], start=2):
            if not line:
                continue
            entry = _parsed(line, path, number)
            first = seen.setdefault((entry.prompt_type, entry.name), number)
            if first != number:
                label = f"{entry.prompt_type}/{entry.name}"
                raise PromptFileError(
                    path, f"{label} is also on line {first}; keep one of the lines", line=number
                )
            entries.append(entry)
        return cls(entries)

    def write(self, path: Path) -> None:
        """Write the lock as a whole or not at all; an unchanged lock is not written.

        Raises:
            PromptFileError: the disk refuses, or something that is no regular file is in the way.
        """
        data = str(self).encode()
        if path.is_file() and not path.is_symlink():
            try:
                if read_regular_file(path, shown=path.name, limit=MAX_LOCK_BYTES) == data:
                    return
            except PromptFileError:
                pass
        replace_file(path, data, shown=path.name)

    def get(self, prompt_type: PromptType, name: str) -> LockEntry | None:
        return self._entries.get((prompt_type, name))

    def with_entry(self, entry: LockEntry) -> Lock:
        """A lock with this entry, in place of the one that its prompt had."""
        _check_entry(entry)
        return Lock((self._entries | {(entry.prompt_type, entry.name): entry}).values())

    def without(self, prompt_type: PromptType, name: str) -> Lock:
        return Lock(entry for key, entry in self._entries.items() if key != (prompt_type, name))

    @property
    def entries(self) -> tuple[LockEntry, ...]:
        """Sorted as in the file: by type, then name."""
        return tuple(sorted(self._entries.values(), key=_line))

    def __str__(self) -> str:
        """The text of the file."""
        return "\n".join([_FORMAT, *map(_line, self.entries)]) + "\n"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lock) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return f"<Lock of {len(self._entries)} prompts>"


def _line(entry: LockEntry) -> str:
    return f"{entry.prompt_type}/{entry.name} {entry.store_id} {entry.version} {entry.content_hash}"


def _parsed(line: str, path: str, number: int) -> LockEntry:
    if line.startswith(("<<<<<<<", "=======", ">>>>>>>", "|||||||")):
        raise PromptFileError(
            path, "an unresolved merge conflict; keep one line for each prompt", line=number
        )
    parts = line.split(" ")
    if len(parts) != 4 or "/" not in parts[0]:
        raise PromptFileError(
            path, "expected '<type>/<name> <store id> <version> <content hash>'", line=number
        )
    prompt_type, _, name = parts[0].partition("/")
    try:
        entry = LockEntry(PromptType.parse(prompt_type), name, *parts[1:])
        _check_entry(entry)
    except InvalidInputError as error:
        raise PromptFileError(path, str(error), line=number) from None
    return entry


def _check_entry(entry: LockEntry) -> None:
    check_name("name", entry.name)
    if _STORE_ID.fullmatch(entry.store_id) is None:
        raise InvalidInputError("store_id", entry.store_id, "1 to 128 characters of A-Z a-z 0-9 . _ : -")
    parse_version(entry.version)
    if _CONTENT_HASH.fullmatch(entry.content_hash) is None:
        raise InvalidInputError("content_hash", entry.content_hash, "64 hexadecimal digits in lower case")
