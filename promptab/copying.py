"""Copying versions with their history from one store to another: from a laptop to the shared store, say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from promptab.cases import Case
from promptab.checks import check_name
from promptab.deploying import check_environment
from promptab.errors import InvalidInputError, NotFoundError
from promptab.models import ENVIRONMENTS, Deployment, Environment, PromptType, PromptVersion, VersionStatus
from promptab.records import Record
from promptab.stores.base import Transaction

if TYPE_CHECKING:
    from promptab.lab import Lab


class CopiedPrompt(Record):
    """What was copied of one prompt."""

    prompt_type: PromptType
    name: str
    versions: tuple[str, ...] = ()
    """Numbers of the versions that are new in the target, lowest first."""
    present: int = 0
    """How many versions the target had already."""
    included: tuple[str, ...] = ()
    """Versions of other prompts that came along because these include them, such as `system/tone@1.0.0`."""
    deployments: int = 0
    """How many entries of the history are new in the target."""
    conflict: str | None = None
    """Why nothing of this prompt was copied; None where it was."""
    notes: tuple[str, ...] = ()


class CopyReport(Record):
    source: str
    target: str
    prompts: tuple[CopiedPrompt, ...]
    """In the order of type and name."""

    @property
    def conflicts(self) -> tuple[CopiedPrompt, ...]:
        return tuple(prompt for prompt in self.prompts if prompt.conflict is not None)


async def copy_versions(
    source: Lab, target: Lab, *, name: str | None = None, prompt_type: str | None = None
) -> CopyReport:
    """Copy versions with ids, numbers, status, tags, parents, authors, times, metadata and the history of deployments.

    One transaction for each prompt; a second run copies only what is new since. A version that the target has under the
    same number with the same content counts as the same, whatever its id. A number that the target uses for another
    content is a conflict: nothing of that prompt is changed. What was live in the source becomes live in the target,
    unless the target has moved that environment on its own; status and tags of versions that the target has stay as
    they are there, and so do cases. Experiments, events and results of cases are not copied.

    Raises `NotFoundError` where the source has no such prompt, `InvalidInputError` where both are one store.
    """
    if source.store is target.store or (source.store.shared and source.store.url == target.store.url):
        raise InvalidInputError("target", target.store.url, "another store than the source")
    wanted_name = None if name is None else check_name("name", name)
    kind = None if prompt_type is None else PromptType.parse(prompt_type)

    async def read(tx: Transaction) -> list[_Original]:
        return await _originals(tx, await tx.versions.listing(name=wanted_name, prompt_type=kind))

    originals = await source.store.read(read)
    if not originals and (wanted_name or kind):
        wanted = f"{kind or '*'}/{wanted_name or '*'}"
        raise NotFoundError("prompt", wanted, f"list what {source.store.url} has with `promptab list`")
    # what is included goes first, so that a prompt comes whole before it would come along with another
    copied = [await _copied(target, original) for original in sorted(originals, key=_includes)]
    in_order = sorted(copied, key=lambda prompt: (prompt.prompt_type, prompt.name))
    return CopyReport(source=source.store.url, target=target.store.url, prompts=tuple(in_order))


class _Original(NamedTuple):
    """A prompt of the source."""

    prompt_type: PromptType
    name: str
    versions: tuple[PromptVersion, ...]
    """Lowest first."""
    included: Mapping[str, PromptVersion]
    """What the versions include, directly or not, by id."""
    history: tuple[Deployment, ...]
    cases: tuple[Case, ...]


def _includes(original: _Original) -> int:
    return len(original.included)


async def _originals(tx: Transaction, versions: Iterable[PromptVersion]) -> list[_Original]:
    by_prompt: dict[tuple[PromptType, str], list[PromptVersion]] = {}
    for version in versions:
        by_prompt.setdefault((version.prompt_type, version.name), []).append(version)
    originals = []
    for (prompt_type, name), highest_first in by_prompt.items():
        included: dict[str, PromptVersion] = {}
        for version in highest_first:
            included |= await tx.versions.with_includes(version)
        history = await tx.deployments.history(prompt_type, name, None)
        cases = await tx.cases.of(prompt_type, name)
        originals.append(
            _Original(prompt_type, name, tuple(reversed(highest_first)), included, tuple(history), cases)
        )
    return originals


async def _copied(target: Lab, original: _Original) -> CopiedPrompt:
    async def work(tx: Transaction) -> CopiedPrompt:
        ids, conflict = await _same_in_target(tx, [*original.included.values(), *original.versions])
        if conflict is not None:
            return CopiedPrompt(prompt_type=original.prompt_type, name=original.name, conflict=conflict)
        present = frozenset(ids)
        along = [version for version in original.included.values() if version.version_id not in present]
        new = [version for version in original.versions if version.version_id not in present]
        for version in (*along, *new):
            await tx.versions.insert(_moved(version, ids))
        deployments, notes = 0, []
        for environment in ENVIRONMENTS:
            where = check_environment(environment)
            appended, note = await _append_history(tx, original, where, ids, present)
            deployments += appended
            notes.extend([] if note is None else [note])
        if await _copy_cases(tx, original, at=target.calls.clock()):
            notes.append("the target has other cases; they stay")
        return CopiedPrompt(
            prompt_type=original.prompt_type,
            name=original.name,
            versions=tuple(version.version for version in new),
            present=len(original.versions) - len(new),
            included=tuple(version.label for version in along),
            deployments=deployments,
            notes=tuple(notes),
        )

    return await target.store.write(work)


async def _copy_cases(tx: Transaction, original: _Original, *, at: datetime) -> bool:
    """Give the target the cases where it has none; return whether it has others."""
    present = await tx.cases.of(original.prompt_type, original.name)
    if original.cases and not present:
        await tx.cases.put(original.prompt_type, original.name, original.cases, at=at)
    return bool(present) and bool(original.cases) and present != original.cases


async def _same_in_target(
    tx: Transaction, versions: Sequence[PromptVersion]
) -> tuple[dict[str, str], str | None]:
    """Return the id in the target of each version that it has, by the id in the source; or why it cannot have one."""
    present = await tx.versions.by_ids(version.version_id for version in versions)
    ids: dict[str, str] = {}
    for version in versions:
        found = present.get(version.version_id) or await tx.versions.by_number(
            version.prompt_type, version.name, version.version
        )
        if found is None:
            continue
        if (found.label, found.content_hash) != (version.label, version.content_hash):
            return (
                {},
                f"the target has another content under {found.label} than the source under {version.label}",
            )
        ids[version.version_id] = found.version_id
    return ids, None


def _moved(version: PromptVersion, ids: Mapping[str, str]) -> PromptVersion:
    """Return the version as the target is to have it, without what its pointers will say of it."""
    production = version.status == VersionStatus.PRODUCTION
    return version.model_copy(
        update={
            "includes": {text: ids.get(i, i) for text, i in version.includes.items()},
            "parent_version": version.parent_version
            and ids.get(version.parent_version, version.parent_version),
            "status": VersionStatus.ACTIVE if production else version.status,
            "tags": tuple(tag for tag in version.tags if tag not in ENVIRONMENTS),
        }
    )


async def _append_history(
    tx: Transaction,
    original: _Original,
    environment: Environment,
    ids: Mapping[str, str],
    present: frozenset[str],
) -> tuple[int, str | None]:
    """Append what the target lacks of an environment's history; return how much, and what is to be said of it."""
    moves = [move for move in original.history if move.environment == environment]
    known = await tx.deployments.history(original.prompt_type, original.name, environment)
    if len(known) >= len(moves) or not _begins_with(moves, known):
        own = f"the target has moved {environment} on its own; what is live there stays"
        return 0, own if moves and not _begins_with(known, moves) else None
    for move in moves[len(known) :]:
        await tx.deployments.append(_move_in_target(move, ids))
        if environment == "production":
            await _follow_status(tx, move, ids, present)
    last = moves[-1].version_id
    live = None if last is None else ids.get(last, last)
    await tx.deployments.point(original.prompt_type, original.name, environment, live)
    return len(moves) - len(known), None


def _begins_with(moves: Sequence[Deployment], beginning: Sequence[Deployment]) -> bool:
    """Compare by what was moved when and by whom: ids may differ from store to store."""
    return [_facts(move) for move in moves[: len(beginning)]] == [_facts(move) for move in beginning]


def _facts(move: Deployment) -> tuple[object, ...]:
    return move.action, move.version, move.previous_version, move.at, move.actor, move.reason


def _move_in_target(move: Deployment, ids: Mapping[str, str]) -> Deployment:
    version_id, previous = move.version_id, move.previous_version_id
    return move.model_copy(
        update={
            "version_id": None if version_id is None else ids.get(version_id, version_id),
            "previous_version_id": None if previous is None else ids.get(previous, previous),
        }
    )


async def _follow_status(
    tx: Transaction, move: Deployment, ids: Mapping[str, str], present: frozenset[str]
) -> None:
    """Give versions that the target had the status that this move gave them in the source; new ones bring theirs."""
    if move.version_id in present:
        await tx.versions.set_status(ids[move.version_id], VersionStatus.ACTIVE)
    if move.action == "rollback" and move.previous_version_id in present:
        await tx.versions.set_status(ids[move.previous_version_id], VersionStatus.DEPRECATED)
