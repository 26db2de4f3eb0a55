"""What a plan says of each prompt, and what came of carrying it out."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from promptab.diff import VersionDiff
from promptab.library import PromptSource
from promptab.models import PromptType
from promptab.records import Record

Key = tuple[PromptType, str]
"""Type and name of a prompt."""


def label_of(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


class SyncAction(StrEnum):
    """What is to be done about one prompt; in the order in which people should look at them."""

    PROBLEM = "problem"
    """Its file cannot be used, or asks for what cannot be done."""
    CONFLICT = "conflict"
    """File and store both changed since they were last in step, each in its own way."""
    FOREIGN = "foreign"
    """The lock was made with another store."""
    VERSION_GONE = "version_gone"
    """The version that the file is in step with was deleted or archived in the store."""
    FILE_DELETED = "file_deleted"
    """The file is gone; its versions are still served."""
    PUSH = "push"
    """The file becomes a new version."""
    RECREATE = "recreate"
    """The store is empty, and the file's version is made again under the number that the lock remembers."""
    PULL = "pull"
    """A version of the store is written into the file."""
    CASES = "cases"
    """The file is a version of the store, and has other cases: a push puts them in the place of the store's."""
    RELOCK = "relock"
    """File and store agree, and only the lock does not say so yet."""
    IN_STEP = "in_step"


PUSHED = frozenset({SyncAction.PUSH, SyncAction.RECREATE})
UNDECIDED = frozenset(
    {
        SyncAction.PROBLEM,
        SyncAction.CONFLICT,
        SyncAction.FOREIGN,
        SyncAction.VERSION_GONE,
        SyncAction.FILE_DELETED,
    }
)
"""What neither a push nor a pull does anything about: somebody has to decide, or to repair a file."""


class ThreeWayDiff(Record):
    """A change on both sides. Without a common base only `apart` is there, with one the other two are."""

    base: str | None
    """Number of the version that both sides began from."""
    in_store: VersionDiff | None
    """From the base to the store's version."""
    in_file: VersionDiff | None
    """From the base to the file."""
    apart: VersionDiff | None
    """From the store's version to the file."""


class SyncItem(Record):
    """What is to be done about one prompt, and why."""

    prompt_type: PromptType
    name: str
    action: SyncAction
    reason: str
    path: str | None = None
    """The file, relative to the folder; None where there is none yet."""
    locked: str | None = None
    """The version that the lock remembers."""
    version: str | None = None
    """The version that the file will be in step with; None where that is open, or the lock is to forget it."""
    content_hash: str | None = None
    notes: tuple[str, ...] = ()
    conflict: ThreeWayDiff | None = None
    source: PromptSource | None = Field(default=None, exclude=True)
    """To be pushed, or to be written by a pull."""
    replaces: PromptSource | None = Field(default=None, exclude=True)
    """What the file declared when a pull was planned."""
    highest_id: str | None = Field(default=None, exclude=True)
    """version_id of the highest version in the store when the plan was made."""
    waits_for: tuple[str, ...] = ()
    """Labels of prompts that it includes and that are pushed before it."""

    @property
    def key(self) -> Key:
        return self.prompt_type, self.name

    @property
    def label(self) -> str:
        """How people name it: `system/support_reply`."""
        return label_of(self.key)


class SyncPlan(Record):
    """What is to be done, prompt by prompt; included prompts come before those that include them."""

    store_id: str | None
    """None for a plan that was made without a store."""
    items: tuple[SyncItem, ...]
    problems: tuple[str, ...] = ()
    """What is wrong in the folder beside the files of single prompts."""

    @property
    def in_step(self) -> bool:
        return not self.problems and all(item.action == SyncAction.IN_STEP for item in self.items)

    def of(self, *actions: SyncAction) -> tuple[SyncItem, ...]:
        return tuple(item for item in self.items if item.action in actions)


class SyncOutcome(Record):
    """What came of one item."""

    prompt_type: PromptType
    name: str
    action: SyncAction
    done: bool
    detail: str
    """What was done, or why it was not."""
    version: str | None = None
    error: Exception | None = Field(default=None, exclude=True)

    model_config = Record.model_config | {"arbitrary_types_allowed": True}

    @property
    def label(self) -> str:
        return label_of((self.prompt_type, self.name))


class SyncReport(Record):
    """What a push or a pull did."""

    plan: SyncPlan
    outcomes: tuple[SyncOutcome, ...]

    @property
    def failed(self) -> tuple[SyncOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if not outcome.done)
