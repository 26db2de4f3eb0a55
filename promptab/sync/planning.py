"""From files, lock and store to a plan. Pure: nothing is read, written or asked here.

The content hash decides, never a time. A file's hash is that of the version it would become now, so it covers the
versions that its includes mean now: when an included prompt gets a new version, the prompts whose range takes it in
are pushed anew (they are re-pinned), in this same plan. A mere re-pinning counts as a change on neither side.

The version of the store that a file is compared with is the highest that is served, or the version that the lock
names where that is higher; a prompt that has nothing but drafts is compared with the highest of them. So a version that
was rolled back does not make its file old, and somebody's draft beside a served version concerns no file.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, NamedTuple

from promptab.cases import Case
from promptab.errors import InvalidInputError, TemplateError
from promptab.library import Lock, LockEntry
from promptab.models import PromptVersion, VersionStatus
from promptab.sync.declaring import source_of
from promptab.sync.files import LocalFiles, LocalPrompt
from promptab.sync.items import Key, SyncAction, SyncItem, SyncPlan, ThreeWayDiff, label_of
from promptab.sync.numbering import planned_number
from promptab.sync.picture import StorePicture
from promptab.sync.pinning import moved_pins, planned_version, same_text, says_the_same


class Choices(NamedTuple):
    """What a person decided beforehand."""

    adopt: bool = False
    """Go on with a lock that was made with another store, where the contents agree."""
    ours: frozenset[Key] = frozenset()
    """Prompts whose file holds wherever the sides differ."""
    theirs: frozenset[Key] = frozenset()
    """Prompts whose store holds wherever the sides differ."""


def plan(
    files: LocalFiles, lock: Lock, picture: StorePicture, *, choices: Choices, now: datetime
) -> SyncPlan:
    """Return what is to be done about every prompt that is in a file, in the lock or served by the store.

    `picture` is written into: afterwards it holds the planned versions as well. Raises `InvalidInputError` for a choice
    between sides of which one is not there.
    """
    _check_choice("ours", choices.ours, files.prompts.keys(), "a prompt with a usable file")
    _check_choice("theirs", choices.theirs, picture.keys, "a prompt that the store has")
    planner = _Planner(files, lock, picture, choices, now)
    items = [planner.of_file(key, prompt) for key, prompt in files.prompts.items()]
    locked = {(entry.prompt_type, entry.name) for entry in lock.entries}
    others = sorted((locked | picture.keys | files.unusable.keys()) - files.prompts.keys())
    items.extend(item for key in others if (item := planner.without_file(key)) is not None)
    return SyncPlan(store_id=picture.store_id, items=tuple(items), problems=files.problems)


class _Sides(NamedTuple):
    """What is known of a prompt that has a usable file."""

    key: Key
    prompt: LocalPrompt
    entry: LockEntry | None
    file: PromptVersion
    """The version that the file would become, its number open."""
    base: PromptVersion | None
    """The version that the lock names, if the store still has it with that content and it is not archived."""
    head: PromptVersion | None
    """The version of the store that the file is compared with."""

    cases: tuple[Case, ...]
    """Those of the store."""

    @property
    def other_cases(self) -> bool:
        """Whether the file speaks of cases, and of others than the store has."""
        return self.prompt.source.tests is not None and self.prompt.source.tests != self.cases

    @property
    def as_locked(self) -> bool:
        """Whether the file, with what its includes mean now, has the content that the lock remembers."""
        return self.entry is not None and self.file.content_hash == self.entry.content_hash

    def item(self, action: SyncAction, reason: str, **more: Any) -> SyncItem:
        return _item(self.key, self.prompt, self.entry, action, reason, **more)


class _Planner:
    def __init__(
        self, files: LocalFiles, lock: Lock, picture: StorePicture, choices: Choices, now: datetime
    ) -> None:
        self._files = files
        self._lock = lock
        self._picture = picture
        self._choices = choices
        self._now = now
        self._empty = not picture.keys
        self._foreign = not choices.adopt and _is_foreign(lock, picture)
        self._pushed: set[Key] = set()

    def of_file(self, key: Key, prompt: LocalPrompt) -> SyncItem:
        """Plan a prompt that has a usable file."""
        entry = self._lock.get(*key)
        if self._is_foreign(entry):
            return _item(key, prompt, entry, SyncAction.FOREIGN, _foreign_reason(entry))
        try:
            item = self._decided(self._sides(key, prompt, entry))
        except TemplateError as error:
            return _item(key, prompt, entry, SyncAction.PROBLEM, str(error))
        except InvalidInputError as error:
            return _item(key, prompt, entry, SyncAction.PROBLEM, f"{prompt.path}: {error}")
        return item

    def without_file(self, key: Key) -> SyncItem | None:
        """Plan a prompt that has no usable file; None where nobody needs to know of it."""
        entry = self._lock.get(*key)
        if (problem := self._files.unusable_file(key)) is not None:
            return _item(key, None, entry, SyncAction.PROBLEM, problem)
        head = self._picture.head(key, base=None)
        if head is None and entry is None:
            return None
        if self._is_foreign(entry):
            return _item(key, None, entry, SyncAction.FOREIGN, _foreign_reason(entry))
        if head is None:
            reason = "its file is gone and the store serves no version of it: the lock forgets it"
            return _item(key, None, entry, SyncAction.RELOCK, reason)
        if entry is None or key in self._choices.theirs:
            return self._pull(
                key, None, entry, head, "new in the store" if entry is None else "written again"
            )
        reason = (
            f"its file is gone, and the store has {head.version}; archive its versions there, or write the file again "
            f"with `promptab sync pull --theirs {label_of(key)}`"
        )
        return _item(key, None, entry, SyncAction.FILE_DELETED, reason)

    def _sides(self, key: Key, prompt: LocalPrompt, entry: LockEntry | None) -> _Sides:
        file = planned_version(key, prompt, self._picture, now=self._now)
        base = self._picture.base(key, entry)
        if entry is not None and entry.store_id != self._picture.store_id and self._picture.versions(key):
            # what another store called by this number counts only where this one has the same under it
            entry = entry if base is not None else None
        head = self._picture.head(key, base=base)
        return _Sides(key, prompt, entry, file, base, head, self._picture.cases(key))

    def _decided(self, sides: _Sides) -> SyncItem:
        if not self._picture.versions(sides.key):
            return self._absent(sides)
        same = self._same(sides)
        if same is not None:
            return self._agreeing(sides, same)
        if sides.head is not None and says_the_same(sides.prompt, sides.head, self._picture):
            return self._push(sides, f"re-pinned: {moved_pins(sides.head, sides.file, self._picture)}")
        if sides.key in self._choices.ours:
            return self._chosen(sides)
        if sides.key in self._choices.theirs and sides.head is not None:
            reason = f"{sides.head.version} of the store was chosen over the file"
            return self._pull(sides.key, sides.prompt, sides.entry, sides.head, reason)
        return self._changed(sides)

    def _same(self, sides: _Sides) -> PromptVersion | None:
        """Return the version of the store that the file is already in step with, or could be without a new one."""
        if sides.base is not None and sides.base is sides.head and sides.as_locked:
            return sides.base
        drafts = sides.prompt.source.status == VersionStatus.DRAFT
        return self._picture.saying(sides.key, sides.file.content_hash, drafts=drafts)

    def _absent(self, sides: _Sides) -> SyncItem:
        """The store has no version of the prompt."""
        entry = sides.entry
        if entry is None:
            return self._push(sides, "new in the files")
        if self._empty or entry.store_id != self._picture.store_id or sides.key in self._choices.ours:
            if sides.as_locked:
                return self._recreate(sides, entry)
            return self._push(sides, f"not in the store, and the file has changed since {entry.version}")
        return self._gone(sides, f"all its versions, {entry.version} among them, were deleted in the store")

    def _chosen(self, sides: _Sides) -> SyncItem:
        if (entry := self._remembered(sides)) is not None and sides.as_locked:
            return self._recreate(sides, entry)
        over = "" if sides.head is None else f" over {sides.head.version} of the store"
        return self._push(sides, f"the file was chosen{over}")

    def _changed(self, sides: _Sides) -> SyncItem:
        """File and store say different things."""
        base, head = sides.base, sides.head
        if base is None or head is None:
            return self._without_base(sides)
        if says_the_same(sides.prompt, base, self._picture):
            reason = f"the store has {head.version} since {base.version}"
            return self._pull(sides.key, sides.prompt, sides.entry, head, reason)
        if head is base or same_text(base, head):
            return self._push(sides, f"changed since {base.version}")
        return self._conflict(sides, f"changed since {base.version}, and so has the store ({head.version})")

    def _without_base(self, sides: _Sides) -> SyncItem:
        """There are versions in the store, but not the one that the lock names, if it names one."""
        entry, head = sides.entry, sides.head
        if entry is None:
            return self._never_in_step(sides, head)
        named = self._picture.numbered(sides.key, entry.version)
        if named is not None and named.content_hash != entry.content_hash:
            reason = f"{entry.version} of the store has another content than the lock remembers"
            return self._conflict(sides, reason)
        what = f"{entry.version} was {'deleted' if named is None else 'archived'} in the store"
        if sides.as_locked:
            return self._gone(sides, what)
        return self._conflict(sides, f"changed since {entry.version}, and {what}")

    def _never_in_step(self, sides: _Sides, head: PromptVersion | None) -> SyncItem:
        if head is None:
            return self._push(sides, "new in the files; the store's versions of it are out of use")
        for older in self._picture.versions(sides.key):
            if says_the_same(sides.prompt, older, self._picture):
                reason = f"the file says what {older.version} says, and the store has {head.version}"
                return self._pull(sides.key, sides.prompt, sides.entry, head, reason)
        return self._conflict(sides, f"in the files and in the store ({head.version}), and never yet in step")

    def _agreeing(self, sides: _Sides, version: PromptVersion) -> SyncItem:
        """The file says what a version of the store says."""
        notes = []
        if version.status == VersionStatus.DEPRECATED:
            notes.append(f"{version.version} is deprecated in the store")
        if version.status == VersionStatus.DRAFT and sides.prompt.source.status not in {None, version.status}:
            notes.append(
                f"{version.version} is a draft; a file's status is for new versions, so set it in the store"
            )
        entry = LockEntry(*sides.key, self._picture.store_id, version.version, version.content_hash)
        action, reason = SyncAction.IN_STEP, f"is {version.version}"
        if sides.other_cases:
            if sides.key in self._choices.theirs:
                reason = "the cases of the store were chosen over those of the file"
                return self._pull(sides.key, sides.prompt, sides.entry, version, reason)
            action, reason = SyncAction.CASES, f"{reason}, and its cases are not those of the store"
        elif entry != sides.entry:
            action, reason = SyncAction.RELOCK, f"{reason}, which the lock does not know yet"
        return sides.item(
            action,
            reason,
            source=sides.prompt.source if action == SyncAction.CASES else None,
            version=version.version,
            content_hash=version.content_hash,
            notes=tuple(notes),
        )

    def _recreate(self, sides: _Sides, entry: LockEntry) -> SyncItem:
        source = sides.prompt.source.model_copy(update={"version": entry.version, "bump": None})
        reason = f"{entry.version} is made again, as the lock remembers it"
        return self._foreseen(
            sides,
            sides.item(
                SyncAction.RECREATE,
                reason,
                version=entry.version,
                content_hash=sides.file.content_hash,
                source=source,
                highest_id=self._highest_id(sides.key),
                waits_for=self._waits_for(sides.prompt),
            ),
        )

    def _push(self, sides: _Sides, reason: str) -> SyncItem:
        highest, remembered = self._picture.highest(sides.key), self._remembered(sides)
        self._picture.compiled(sides.file)  # what would be refused then is better refused now
        taken = [version.version for version in self._picture.versions(sides.key)]
        numbering = planned_number(
            sides.prompt.source,
            taken=taken if remembered is None else [*taken, remembered.version],
            change=None if highest is None else self._picture.diff(highest, sides.file),
        )
        source = sides.prompt.source
        if remembered is not None:
            source = source.model_copy(update={"version": numbering.version, "bump": None})
        return self._foreseen(
            sides,
            sides.item(
                SyncAction.PUSH,
                reason,
                version=numbering.version,
                content_hash=sides.file.content_hash,
                notes=numbering.notes,
                source=source,
                highest_id=self._highest_id(sides.key),
                waits_for=self._waits_for(sides.prompt),
            ),
        )

    def _pull(
        self, key: Key, prompt: LocalPrompt | None, entry: LockEntry | None, head: PromptVersion, reason: str
    ) -> SyncItem:
        present, cases = None if prompt is None else prompt.source, self._picture.cases(key) or None
        if present is not None and (present.tests is None or key not in self._choices.theirs):
            cases = present.tests
        return _item(
            key,
            prompt,
            entry,
            SyncAction.PULL,
            reason,
            version=head.version,
            content_hash=head.content_hash,
            source=source_of(head, present, cases),
            replaces=present,
        )

    def _conflict(self, sides: _Sides, reason: str) -> SyncItem:
        """Both sides changed. What the lock names is the base even where it is archived by now."""
        named = None if sides.entry is None else self._picture.numbered(sides.key, sides.entry.version)
        known = (
            named is not None and sides.entry is not None and named.content_hash == sides.entry.content_hash
        )
        base, head, diff = named if known else None, sides.head, self._picture.diff
        label = label_of(sides.key)
        return sides.item(
            SyncAction.CONFLICT,
            f"{reason}; keep one with `promptab sync push --ours {label}` or `promptab sync pull --theirs {label}`",
            conflict=ThreeWayDiff(
                base=None if base is None else base.version,
                in_store=None if base is None or head is None else diff(base, head),
                in_file=None if base is None else diff(base, sides.file),
                apart=None if base is not None or head is None else diff(head, sides.file),
            ),
        )

    def _gone(self, sides: _Sides, reason: str) -> SyncItem:
        label = label_of(sides.key)
        remedy = f"make it again with `promptab sync push --ours {label}`"
        if sides.head is not None:
            remedy += f", or take {sides.head.version} with `promptab sync pull --theirs {label}`"
        return sides.item(SyncAction.VERSION_GONE, f"{reason}; {remedy}")

    def _remembered(self, sides: _Sides) -> LockEntry | None:
        """Return the lock's entry if its number is free in the store: it must not come to mean another content."""
        taken = sides.entry is None or self._picture.numbered(sides.key, sides.entry.version) is not None
        return None if taken else sides.entry

    def _highest_id(self, key: Key) -> str | None:
        highest = self._picture.highest(key)
        return None if highest is None else highest.version_id

    def _is_foreign(self, entry: LockEntry | None) -> bool:
        if entry is not None:
            return self._foreign and entry.store_id != self._picture.store_id
        # a prompt that the lock does not know belongs where the rest of the lock belongs
        return self._foreign and all(other.store_id != self._picture.store_id for other in self._lock.entries)

    def _waits_for(self, prompt: LocalPrompt) -> tuple[str, ...]:
        included = {(reference.prompt_type, reference.name) for reference in prompt.references.values()}
        return tuple(label_of(key) for key in sorted(included & self._pushed))

    def _foreseen(self, sides: _Sides, item: SyncItem) -> SyncItem:
        """Let what is planned after this item be planned on the version that it makes."""
        status = sides.prompt.source.status or VersionStatus.ACTIVE
        self._picture.foresee(sides.file.model_copy(update={"version": item.version, "status": status}))
        self._pushed.add(sides.key)
        return item


def _item(
    key: Key,
    prompt: LocalPrompt | None,
    entry: LockEntry | None,
    action: SyncAction,
    reason: str,
    **more: Any,
) -> SyncItem:
    return SyncItem(
        prompt_type=key[0],
        name=key[1],
        action=action,
        reason=reason,
        path=None if prompt is None else prompt.path,
        locked=None if entry is None else entry.version,
        **more,
    )


def _is_foreign(lock: Lock, picture: StorePicture) -> bool:
    """Whether the lock was made with another store, and this one is not simply new.

    A store is new while it is empty, and while it holds only what this lock's pushes have put there: so a first push
    that was interrupted can go on.
    """
    mine = {(entry.prompt_type, entry.name) for entry in lock.entries if entry.store_id == picture.store_id}
    return len(mine) < len(lock.entries) and not picture.keys <= mine


def _foreign_reason(entry: LockEntry | None) -> str:
    what = "the lock was made with another store"
    if entry is not None:
        what = f"the lock remembers {entry.version} of another store"
    return f"{what}; if it is to be this one from now on, add --adopt"


def _check_choice(field: str, chosen: AbstractSet[Key], known: AbstractSet[Key], bound: str) -> None:
    for key in sorted(chosen - known):
        raise InvalidInputError(field, label_of(key), bound)
