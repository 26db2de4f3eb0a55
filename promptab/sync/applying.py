"""Making a plan, and carrying it out: pushing files into a store, pulling versions into files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from promptab.errors import ConflictError, InvalidInputError, NotFoundError, StateError
from promptab.library import FileSystemPromptLibrary, Lock, LockEntry, PromptSource
from promptab.managed import utc_now
from promptab.models import PromptVersion, VersionStatus
from promptab.semver import Bump
from promptab.sync.files import LocalFiles
from promptab.sync.items import PUSHED, Key, SyncAction, SyncItem, SyncOutcome, SyncPlan, SyncReport
from promptab.sync.picture import StorePicture
from promptab.sync.planning import Choices, plan

if TYPE_CHECKING:
    from promptab.lab import Lab

_REFUSALS = (ConflictError, InvalidInputError, NotFoundError, StateError)
"""What concerns one prompt; a store that fails concerns all that follow."""


async def plan_sync(
    lab: Lab,
    library: FileSystemPromptLibrary,
    *,
    adopt: bool = False,
    ours: Iterable[Key] = (),
    theirs: Iterable[Key] = (),
) -> SyncPlan:
    """Compare files, lock and store, and return what is to be done. Changes nothing.

    `adopt` goes on with a lock that was made with another store. Where the sides differ, the file holds for the
    prompts in `ours` and the store for those in `theirs`.

    Raises `InvalidInputError` where there is no such folder, `PromptFileError` for a lock that cannot be used.
    """
    contents = await asyncio.to_thread(library.load)
    lock = await asyncio.to_thread(Lock.read, library.lock_path)
    return plan(
        LocalFiles.of(contents),
        lock,
        await StorePicture.of_store(lab.store),
        choices=Choices(adopt, frozenset(ours), frozenset(theirs)),
        now=utc_now(),
    )


async def push(
    lab: Lab, library: FileSystemPromptLibrary, plan: SyncPlan, *, actor: str | None = None
) -> SyncReport:
    """Create the versions that the plan asks for, and write the lock. `actor` is their `created_by`.

    What another process has created meanwhile is not made twice, and where it has another content that prompt is left
    as it is. A prompt that is refused stops no other, save those that include it. Raises `StoreError` if the store
    fails; what was pushed before is then in the lock.
    """
    return await _carried_out(library, plan, _pushed(lab, plan, actor))


async def pull(lab: Lab, library: FileSystemPromptLibrary, plan: SyncPlan) -> SyncReport:
    """Write the files that the plan asks for, and the lock. A file that was edited meanwhile is left as it is."""
    return await _carried_out(library, plan, _pulled(lab, library, plan))


class _Step(NamedTuple):
    """What came of an item, and the version that its file is in step with now."""

    outcome: SyncOutcome
    in_step: tuple[str, str] | None
    """Number and content hash; None where nothing was done, or the lock is to forget the prompt."""


async def _carried_out(
    library: FileSystemPromptLibrary, plan: SyncPlan, steps: AsyncIterator[_Step]
) -> SyncReport:
    outcomes: list[SyncOutcome] = []
    entries: dict[Key, LockEntry | None] = {}
    assert plan.store_id is not None  # noqa: S101 - such plans are made by `check_files` only, for reading
    try:
        async for outcome, in_step in steps:
            outcomes.append(outcome)
            if outcome.done:
                key = outcome.prompt_type, outcome.name
                entries[key] = None if in_step is None else LockEntry(*key, plan.store_id, *in_step)
    finally:
        await asyncio.to_thread(_update_lock, library, entries)
    return SyncReport(plan=plan, outcomes=tuple(outcomes))


async def _pushed(lab: Lab, plan: SyncPlan, actor: str | None) -> AsyncIterator[_Step]:
    refused: set[str] = set()
    for item in plan.items:
        if item.action == SyncAction.RELOCK:
            yield _relocked(item)
        if item.action == SyncAction.CASES and item.source is not None:
            yield await _with_cases(lab, item, item.source)
        if item.action not in PUSHED or item.source is None:
            continue
        waited_for = [label for label in item.waits_for if label in refused]
        try:
            if waited_for:
                raise ConflictError(f"{waited_for[0]}, which it includes, was not pushed")
            version = await _created(lab, item, item.source, actor)
            await _set_cases(lab, item.source)
        except _REFUSALS as error:
            refused.add(item.label)
            yield _refusal(item, error)
        else:
            yield _Step(
                _outcome(item, f"version {version.version}", version.version),
                (version.version, version.content_hash),
            )


async def _created(lab: Lab, item: SyncItem, source: PromptSource, actor: str | None) -> PromptVersion:
    return await lab.versions.create_version(
        source.name,
        source.prompt_type,
        source.messages or source.template,
        source.version,
        defaults=source.defaults,
        validation=source.validation,
        metadata=source.metadata,
        config=source.config,
        created_by=actor,
        tags=source.tags,
        status=source.status or VersionStatus.ACTIVE,
        bump=cast("Bump | Literal['auto']", source.bump or "auto"),
        if_changed=True,
        expected=item.highest_id,
    )


async def _with_cases(lab: Lab, item: SyncItem, source: PromptSource) -> _Step:
    """Put the cases of a file into the store that has its content already."""
    try:
        await _set_cases(lab, source)
    except _REFUSALS as error:
        return _refusal(item, error)
    return _relocked(item)._replace(outcome=_outcome(item, "its cases are in the store", item.version))


async def _set_cases(lab: Lab, source: PromptSource) -> None:
    if source.tests is not None:
        await lab.versions.set_cases(source.name, source.prompt_type, source.tests)


async def _pulled(lab: Lab, library: FileSystemPromptLibrary, plan: SyncPlan) -> AsyncIterator[_Step]:
    for item in plan.items:
        if item.action == SyncAction.RELOCK:
            yield _relocked(item)
        if item.action != SyncAction.PULL or item.source is None:
            continue
        try:
            path = await asyncio.to_thread(_written, library, item.source, item.replaces)
        except _REFUSALS as error:
            yield _refusal(item, error)
        else:
            assert item.version is not None and item.content_hash is not None  # noqa: S101, PT018 - every pull names its version
            yield _Step(_outcome(item, f"wrote {path}", item.version), (item.version, item.content_hash))


def _written(library: FileSystemPromptLibrary, source: PromptSource, replaces: PromptSource | None) -> str:
    present = library.get(source.name, source.prompt_type)
    known = None if replaces is None else replaces.fingerprint
    if known != (None if present is None else present.fingerprint):
        raise ConflictError(
            f"the file of {source.label} was edited meanwhile; look at `promptab sync status` again"
        )
    return library.write(source).relative_to(library.prompt_dir).as_posix()


def _relocked(item: SyncItem) -> _Step:
    if item.version is None or item.content_hash is None:
        return _Step(_outcome(item, "taken out of the lock", None), None)
    return _Step(
        _outcome(item, f"the lock says {item.version} now", item.version), (item.version, item.content_hash)
    )


def _outcome(item: SyncItem, detail: str, version: str | None) -> SyncOutcome:
    return SyncOutcome(
        prompt_type=item.prompt_type,
        name=item.name,
        action=item.action,
        done=True,
        detail=detail,
        version=version,
    )


def _refusal(item: SyncItem, error: Exception) -> _Step:
    outcome = _outcome(item, str(error), None).model_copy(update={"done": False, "error": error})
    return _Step(outcome, None)


def _update_lock(library: FileSystemPromptLibrary, changes: Mapping[Key, LockEntry | None]) -> None:
    """Take the changes into the lock as it is now: another push may have written it since the plan was made."""
    if not changes:
        return
    present = {(entry.prompt_type, entry.name): entry for entry in Lock.read(library.lock_path).entries}
    merged = {**present, **changes}
    Lock(entry for entry in merged.values() if entry is not None).write(library.lock_path)
