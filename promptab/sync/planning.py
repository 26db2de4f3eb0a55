"""From files, lock and store to a plan. Pure: nothing is read, written or asked here.

The content hash decides, never a time. A file's hash is that of the version it would become now, so it covers the
versions that its includes mean now: when an included prompt gets a new version, the prompts whose range takes it in
are pushed anew (they are re-pinned), in this same plan.

The version of the store that a file is compared with is the highest that is served, or the version that the lock
names where that is higher; a prompt that has nothing but drafts is compared with the highest of them. So a version that
was rolled back does not make its file old, and somebody's draft beside a served version concerns no file.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple, cast

from promptab.content import compile_version, content_hash
from promptab.diff import VersionDiff, diff_versions
from promptab.errors import InvalidInputError, TemplateError
from promptab.library import Lock, LockEntry, PromptSource
from promptab.library.source import check_source
from promptab.managed import Clock
from promptab.models import PromptVersion, VersionStatus
from promptab.semver import Bump, next_version, sort_key, step_between
from promptab.sync.files import LocalFiles, LocalPrompt
from promptab.sync.items import PUSHED, Key, SyncAction, SyncItem, SyncPlan, ThreeWayDiff, label_of
from promptab.sync.picture import StorePicture
from promptab.templates import CompiledPrompt

_STEPS: Final[tuple[Bump, ...]] = ("patch", "minor", "major")


class Choices(NamedTuple):
    """What a person decided beforehand."""

    adopt: bool = False
    """Go on with a lock that was made with another store, where the contents agree."""
    ours: frozenset[Key] = frozenset()
    """Prompts whose file holds wherever the sides differ."""
    theirs: frozenset[Key] = frozenset()
    """Prompts whose store holds wherever the sides differ."""


def plan(files: LocalFiles, lock: Lock, picture: StorePicture, *, choices: Choices, clock: Clock) -> SyncPlan:
    """Return what is to be done about every prompt that is in a file, in the lock or served by the store.

    `picture` is written into: afterwards it holds the planned versions as well. Raises `InvalidInputError` for a choice
    between sides of which one is not there.
    """
    _check_choice("ours", choices.ours, frozenset(files.prompts), "a prompt with a usable file")
    _check_choice("theirs", choices.theirs, picture.keys, "a prompt that the store has")
    planner = _Planner(files, lock, picture, choices, clock)
    items = [planner.of_file(key, prompt) for key, prompt in files.prompts.items()]
    locked = {(entry.prompt_type, entry.name) for entry in lock.entries}
    others = sorted((locked | picture.keys | set(files.unusable)) - set(files.prompts))
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


class _Planner:
    def __init__(
        self, files: LocalFiles, lock: Lock, picture: StorePicture, choices: Choices, clock: Clock
    ) -> None:
        self._files = files
        self._lock = lock
        self._picture = picture
        self._choices = choices
        self._clock = clock
        self._empty = not picture.keys
        self._foreign = _is_foreign(lock, picture)
        self._pushed: set[Key] = set()

    def of_file(self, key: Key, prompt: LocalPrompt) -> SyncItem:
        """Plan a prompt that has a usable file."""
        entry = self._lock.get(*key)
        common = _Common(key, prompt.path, None if entry is None else entry.version)
        if self._is_foreign(entry):
            return common.item(SyncAction.FOREIGN, self._foreign_reason(entry))
        try:
            file = planned_version(key, prompt, self._picture, now=self._clock())
        except TemplateError as error:
            return common.item(SyncAction.PROBLEM, f"{prompt.path}: {error}")
        base = self._picture.base(key, entry)
        sides = _Sides(key, prompt, entry, file, base, self._picture.head(key, base))
        try:
            item = self._decided(common, sides)
        except InvalidInputError as error:
            return common.item(SyncAction.PROBLEM, f"{prompt.path}: {error}")
        if item.action in PUSHED:
            self._pushed.add(key)
            self._foresee(file, item)
        return item

    def without_file(self, key: Key) -> SyncItem | None:
        """Plan a prompt that has no usable file; None where nobody needs to know of it."""
        entry = self._lock.get(*key)
        common = _Common(key, None, None if entry is None else entry.version)
        if (problem := self._files.unusable_file(key)) is not None:
            return common.item(SyncAction.PROBLEM, problem)
        head = self._picture.head(key, self._picture.base(key, entry))
        if head is None and entry is None:
            return None
        if self._is_foreign(entry):
            return common.item(SyncAction.FOREIGN, self._foreign_reason(entry))
        if head is None:
            return common.item(
                SyncAction.RELOCK,
                "its file is gone and the store serves no version of it: the lock forgets it",
            )
        if entry is None or key in self._choices.theirs:
            return self._pull(
                common, None, head, "new in the store" if entry is None else "its file is written again"
            )
        return common.item(
            SyncAction.FILE_DELETED,
            f"its file is gone, and the store serves {head.version}; archive its versions there, or write the file again "
            f"with `promptab sync pull --theirs {label_of(key)}`",
        )

    def _decided(self, common: _Common, sides: _Sides) -> SyncItem:
        if not self._picture.versions(sides.key):
            return self._absent(common, sides)
        if (
            sides.base is not None
            and sides.base is sides.head
            and sides.file.content_hash == sides.base.content_hash
        ):
            return self._agreeing(common, sides, sides.base)
        same = self._picture.unchanged(sides.key, sides.file.content_hash)
        if same is not None:
            return self._agreeing(common, sides, same)
        if sides.key in self._choices.ours:
            if (
                entry := self._remembered(sides)
            ) is not None and sides.file.content_hash == entry.content_hash:
                return self._recreate(common, sides, entry)
            over = "" if sides.head is None else f" over {sides.head.version} of the store"
            return self._push(common, sides, f"the file was chosen{over}")
        if sides.key in self._choices.theirs and sides.head is not None:
            return self._pull(
                common, sides, sides.head, f"{sides.head.version} of the store was chosen over the file"
            )
        return self._compared(common, sides) if sides.base is not None else self._without_base(common, sides)

    def _absent(self, common: _Common, sides: _Sides) -> SyncItem:
        """The store has no version of the prompt."""
        entry = sides.entry
        if entry is None:
            return self._push(common, sides, "new in the files")
        if self._empty or entry.store_id != self._picture.store_id or sides.key in self._choices.ours:
            if sides.file.content_hash == entry.content_hash:
                return self._recreate(common, sides, entry)
            return self._push(
                common, sides, f"the store is empty, and the file has changed since {entry.version}"
            )
        return self._gone(
            common, sides, f"all its versions, {entry.version} among them, were deleted in the store"
        )

    def _compared(self, common: _Common, sides: _Sides) -> SyncItem:
        """File and store each against the version that the lock names."""
        base, head = sides.base, sides.head
        assert base is not None and head is not None  # noqa: S101, PT018 - where there is a base, the head is that or higher
        file_changed = not says_the_same(sides.prompt, base, self._picture)
        if head is base:
            reason = (
                f"changed since {base.version}"
                if file_changed
                else f"re-pinned: {moved_pins(base, sides.file, self._picture)}"
            )
            return self._push(common, sides, reason)
        if not file_changed:
            return self._pull(common, sides, head, f"the store has {head.version} since {base.version}")
        return self._conflict(
            common, sides, f"changed since {base.version}, and so has the store ({head.version})"
        )

    def _without_base(self, common: _Common, sides: _Sides) -> SyncItem:
        """There are versions in the store, but not the one that the lock names."""
        entry, head = sides.entry, sides.head
        if entry is None:
            if head is None:
                return self._push(
                    common, sides, "new in the files; the store's versions of it are out of use"
                )
            older = next(
                (v for v in self._picture.versions(sides.key) if v.content_hash == sides.file.content_hash),
                None,
            )
            if older is not None:
                return self._pull(
                    common,
                    sides,
                    head,
                    f"the file says what {older.version} says, and the store has {head.version}",
                )
            return self._conflict(
                common, sides, f"in the files and in the store ({head.version}), and never yet in step"
            )
        named = self._picture.numbered(sides.key, entry.version)
        if named is not None and named.content_hash != entry.content_hash:
            return self._conflict(
                common, sides, f"{entry.version} of this store has another content than the lock remembers"
            )
        what = f"{entry.version} was {'deleted' if named is None else 'archived'} in the store"
        if sides.file.content_hash == entry.content_hash:
            return self._gone(common, sides, what)
        return self._conflict(common, sides, f"changed since {entry.version}, and {what}")

    def _agreeing(self, common: _Common, sides: _Sides, version: PromptVersion) -> SyncItem:
        """The file says what a version of the store says."""
        notes = []
        if version.status == VersionStatus.DEPRECATED:
            notes.append(f"{version.version} is deprecated in the store")
        wish = sides.prompt.source.status
        if version.status == VersionStatus.DRAFT and wish not in {None, VersionStatus.DRAFT}:
            notes.append(
                f"{version.version} is a draft; the status in the file is for new versions, so set it in the store"
            )
        wanted = (self._picture.store_id, version.version, version.content_hash)
        known = (
            None
            if sides.entry is None
            else (sides.entry.store_id, sides.entry.version, sides.entry.content_hash)
        )
        action = SyncAction.IN_STEP if wanted == known else SyncAction.RELOCK
        reason = (
            "in step"
            if wanted == known
            else f"says what {version.version} of the store says; the lock does not know it"
        )
        return common.item(
            action, reason, version=version.version, content_hash=version.content_hash, notes=tuple(notes)
        )

    def _recreate(self, common: _Common, sides: _Sides, entry: LockEntry) -> SyncItem:
        return common.item(
            SyncAction.RECREATE,
            f"{entry.version} is made again, as the lock remembers it",
            version=entry.version,
            content_hash=sides.file.content_hash,
            source=sides.prompt.source.model_copy(update={"version": entry.version, "bump": None}),
            highest_id=self._highest_id(sides.key),
            waits_for=self._waits_for(sides.prompt),
        )

    def _push(self, common: _Common, sides: _Sides, reason: str) -> SyncItem:
        source = sides.prompt.source
        refuse_cycle(sides.file, self._picture)
        highest = self._picture.highest(sides.key)
        change = None if highest is None else self._picture.diff(highest, sides.file)
        number, notes = self._number(sides)
        return common.item(
            SyncAction.PUSH,
            reason,
            version=number,
            content_hash=sides.file.content_hash,
            notes=notes,
            source=source.model_copy(update={"version": number, "bump": None})
            if self._remembered(sides)
            else source,
            highest_id=self._highest_id(sides.key),
            waits_for=self._waits_for(sides.prompt),
        )

    def _pull(self, common: _Common, sides: _Sides | None, head: PromptVersion, reason: str) -> SyncItem:
        mine = None if sides is None else sides.prompt.source
        source = _source_of(head, mine)
        try:
            check_source(source)
        except InvalidInputError as error:
            return common.item(SyncAction.PROBLEM, f"{head.label} cannot be written as a file: {error}")
        return common.item(
            SyncAction.PULL,
            reason,
            version=head.version,
            content_hash=head.content_hash,
            source=source,
            replaces=mine,
        )

    def _conflict(self, common: _Common, sides: _Sides, reason: str) -> SyncItem:
        """Both sides changed. What the lock names is the base even where it is archived by now."""
        named = None if sides.entry is None else self._picture.numbered(sides.key, sides.entry.version)
        base = (
            named
            if named is not None and sides.entry and named.content_hash == sides.entry.content_hash
            else None
        )
        head = sides.head
        label = label_of(sides.key)
        return common.item(
            SyncAction.CONFLICT,
            f"{reason}; keep one with `promptab sync push --ours {label}` or `promptab sync pull --theirs {label}`",
            conflict=ThreeWayDiff(
                base=None if base is None else base.version,
                in_store=None if base is None or head is None else self._picture.diff(base, head),
                in_file=None if base is None else self._picture.diff(base, sides.file),
                apart=None if base is not None or head is None else self._picture.diff(head, sides.file),
            ),
        )

    def _gone(self, common: _Common, sides: _Sides, reason: str) -> SyncItem:
        label = label_of(sides.key)
        remedy = f"make it again with `promptab sync push --ours {label}`"
        if sides.head is not None:
            remedy += f", or take {sides.head.version} with `promptab sync pull --theirs {label}`"
        return common.item(SyncAction.VERSION_GONE, f"{reason}; {remedy}")

    def _remembered(self, sides: _Sides) -> LockEntry | None:
        """Return the lock's entry where the store does not have its number: it must not come to mean another content."""
        entry = sides.entry
        return (
            None if entry is None or self._picture.numbered(sides.key, entry.version) is not None else entry
        )

    def _highest_id(self, key: Key) -> str | None:
        highest = self._picture.highest(key)
        return None if highest is None else highest.version_id

    def _is_foreign(self, entry: LockEntry | None) -> bool:
        if not self._foreign or self._choices.adopt:
            return False
        if entry is not None:
            return entry.store_id != self._picture.store_id
        # a prompt that the lock does not know belongs where the rest of the lock belongs
        return all(other.store_id != self._picture.store_id for other in self._lock.entries)

    def _foreign_reason(self, entry: LockEntry | None) -> str:
        what = (
            "the lock was made with another store"
            if entry is None
            else f"{entry.version} of the lock is of another store"
        )
        return f"{what}; if it is to be this one from now on, add --adopt"

    def _waits_for(self, prompt: LocalPrompt) -> tuple[str, ...]:
        included = {(reference.prompt_type, reference.name) for reference in prompt.references.values()}
        return tuple(label_of(key) for key in sorted(included & self._pushed))

    def _foresee(self, file: PromptVersion, item: SyncItem) -> None:
        wish = None if item.source is None else item.source.status
        self._picture.foresee(
            file.model_copy(update={"version": item.version, "status": wish or VersionStatus.ACTIVE})
        )


class _Common(NamedTuple):
    """What every item of a prompt says."""

    key: Key
    path: str | None
    locked: str | None

    def item(self, action: SyncAction, reason: str, **more: Any) -> SyncItem:
        prompt_type, name = self.key
        return SyncItem(
            prompt_type=prompt_type,
            name=name,
            action=action,
            reason=reason,
            path=self.path,
            locked=self.locked,
            **more,
        )


def _is_foreign(lock: Lock, picture: StorePicture) -> bool:
    """Whether the lock was made with another store, and this one is not simply new.

    A store is new while it is empty, and while it holds only what this lock's pushes have put there: so a first push
    that was interrupted can go on.
    """
    mine = {(entry.prompt_type, entry.name) for entry in lock.entries if entry.store_id == picture.store_id}
    return len(mine) < len(lock.entries) and not picture.keys <= mine


def _check_choice(field: str, chosen: AbstractSet[Key], known: AbstractSet[Key], bound: str) -> None:
    for key in sorted(chosen - known):
        raise InvalidInputError(field, label_of(key), bound)


def _source_of(version: PromptVersion, mine: PromptSource | None) -> PromptSource:
    """Return what a file declares that says what a version says.

    What the present file asks of its next version stays, save what no longer fits: a number that is taken by now,
    and the wish for a draft of something that has left that state.
    """
    draft = version.status == VersionStatus.DRAFT
    status = None if mine is None or mine.status == VersionStatus.DRAFT else mine.status
    return PromptSource(
        name=version.name,
        prompt_type=version.prompt_type,
        template=version.template,
        messages=version.messages,
        defaults=version.defaults,
        validation=version.validation,
        config=version.config,
        metadata=version.metadata,
        version=version.version if mine is not None and mine.version is not None else None,
        bump=None if mine is None else mine.bump,
        status=VersionStatus.DRAFT if draft else status,
        tags=() if mine is None else mine.tags,
    )
