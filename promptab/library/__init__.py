"""Prompt files: `prompts/<type>/<name>.md`, `.yaml` and `.json`, and the lock beside them."""

from promptab.library.filesystem import FileSystemPromptLibrary
from promptab.library.lock import Lock, LockEntry
from promptab.library.source import LibraryContents, PromptFile, PromptSource

__all__ = ["FileSystemPromptLibrary", "LibraryContents", "Lock", "LockEntry", "PromptFile", "PromptSource"]
