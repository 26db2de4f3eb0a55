"""Checking files against the lock alone, where no store can be asked."""

from __future__ import annotations

from promptab.content import Reference
from promptab.errors import TemplateError
from promptab.library import FileSystemPromptLibrary, Lock, LockEntry
from promptab.semver import Range
from promptab.sync.files import LocalFiles, LocalPrompt
from promptab.sync.items import Key, SyncAction, SyncItem, SyncPlan


def check_files(library: FileSystemPromptLibrary) -> SyncPlan:
    """Return which files can be used and are what the lock remembers. Needs no store and changes nothing.

    Includes count as the versions that the lock remembers. Where it remembers one that the include does not admit (it
    is pinned to an older one, say), the file's hash cannot be told without the store: its item has a note.

    Raises `InvalidInputError` where there is no such folder, `PromptFileError` for a lock that cannot be used.
    """
    files = LocalFiles.of(library.load())
    lock = Lock.read(library.lock_path)
    items = [_compared(key, prompt, lock) for key, prompt in files.prompts.items()]
    locked = {(entry.prompt_type, entry.name) for entry in lock.entries}
    for key in sorted((locked | set(files.unusable)) - set(files.prompts)):
        problem = files.unusable_file(key)
        items.append(
            _item(
                key, None, lock.get(*key), SyncAction.FILE_DELETED, "its file is gone; the lock still has it"
            )
            if problem is None
            else _item(key, None, lock.get(*key), SyncAction.PROBLEM, problem)
        )
    return SyncPlan(store_id=None, items=tuple(items), problems=files.problems)


def _compared(key: Key, prompt: LocalPrompt, lock: Lock) -> SyncItem:
    entry = lock.get(*key)
    if entry is None:
        return _item(key, prompt, None, SyncAction.PUSH, "never pushed")
    try:
        same = prompt.hash(lambda reference: _locked_hash(lock, reference)) == entry.content_hash
    except TemplateError:
        note = "one of its includes means a version that the lock does not have; only the store can tell"
        return _item(key, prompt, entry, SyncAction.IN_STEP, "can be read", note)
    if same:
        return _item(key, prompt, entry, SyncAction.IN_STEP, f"is {entry.version}")
    return _item(key, prompt, entry, SyncAction.PUSH, f"changed since {entry.version}")


def _locked_hash(lock: Lock, reference: Reference) -> str | None:
    entry = lock.get(reference.prompt_type, reference.name)
    if entry is None:
        return None
    admitted = reference.version == "latest" or Range.parse(reference.version).matches(entry.version)
    return entry.content_hash if admitted else None


def _item(
    key: Key,
    prompt: LocalPrompt | None,
    entry: LockEntry | None,
    action: SyncAction,
    reason: str,
    *notes: str,
) -> SyncItem:
    in_step = entry if action == SyncAction.IN_STEP else None
    return SyncItem(
        prompt_type=key[0],
        name=key[1],
        action=action,
        reason=reason,
        path=None if prompt is None else prompt.path,
        locked=None if entry is None else entry.version,
        version=None if in_step is None else in_step.version,
        content_hash=None if in_step is None else in_step.content_hash,
        notes=notes,
    )
