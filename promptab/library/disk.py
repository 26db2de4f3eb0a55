"""Reading and replacing single files: no link is followed, no pipe waited for, no half a file left behind."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from promptab.errors import PromptFileError

# Windows has neither flag; there, links need a privilege and pipes are no files.
_READ_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)


def read_regular_file(path: Path, *, shown: str, limit: int) -> bytes:
    """Return the bytes of a regular file that is no link and has at most `limit` bytes.

    Raises:
        PromptFileError: under the name `shown`, for everything else, a file that is not there included.
    """
    try:
        # Before it is opened, since opening a device can do things; and again after, should it have changed.
        _require_regular(path.lstat().st_mode, shown)
        descriptor = os.open(path, _READ_FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            _require_regular(os.fstat(descriptor).st_mode, shown)
            data = file.read(limit + 1)
    except OSError as error:
        raise PromptFileError(shown, f"cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise PromptFileError(shown, f"is larger than {limit} bytes")
    return data


def replace_file(path: Path, data: bytes, *, shown: str) -> None:
    """Write a file as a whole or not at all, with the permissions of the file that it replaces.

    Raises:
        PromptFileError: under the name `shown`, if its place is taken by something that is no regular
            file, or the folder or the disk refuses; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        mode = path.lstat().st_mode if os.path.lexists(path) else None
        if mode is not None:
            _require_regular(mode, shown)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PromptFileError(shown, f"cannot be written: {error.strerror}") from error


def _require_regular(mode: int, shown: str) -> None:
    if stat.S_ISLNK(mode):
        raise PromptFileError(shown, "is a symbolic link; links are not followed")
    if not stat.S_ISREG(mode):
        raise PromptFileError(shown, "is not a regular file")
