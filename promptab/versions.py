"""Versions of prompts: creating, finding and comparing them. What is live is in `promptab.deploying`."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from promptab.checks import (
    check_items,
    check_json_object,
    check_label,
    check_name,
    check_tag,
    check_uuid,
    known_id,
)
from promptab.content import (
    TemplateInput,
    ValidationInput,
    check_content,
    check_prompt,
    compile_version,
)
from promptab.deploying import UNSET, Deploying, Expected, check_environment, check_expected
from promptab.diff import VersionDiff, diff_versions
from promptab.errors import ConflictError, InvalidInputError, NotFoundError, StateError
from promptab.lifecycle import check_version_transition
from promptab.models import ENVIRONMENTS, ExperimentStatus, PromptType, PromptVersion, VersionStatus
from promptab.pointing import Occasion, existing_version, point, withdraw
from promptab.resolving import find_version, pinned_version
from promptab.semver import (
    Bump,
    check_reference,
    next_version,
    parse_version,
    step_between,
)
from promptab.stores.base import Transaction

_STEPS: tuple[Bump, ...] = ("patch", "minor", "major")


class UnderstatedVersionWarning(UserWarning):
    """A version number promises a smaller change than the content makes."""


class VersionManager(Deploying):
    """Immutable versions of prompts, models and configurations, and what of them is live."""

    async def create_version(
        self,
        name: str,
        prompt_type: str,
        template: TemplateInput = None,
        version: str | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        validation: ValidationInput = None,
        metadata: Mapping[str, Any] | None = None,
        created_by: str | None = None,
        parent_version: str | None = None,
        tags: Iterable[str] = (),
        status: VersionStatus | str = VersionStatus.ACTIVE,
        config: Mapping[str, Any] | None = None,
        bump: Bump | Literal["auto"] = "patch",
        if_changed: bool = False,
        expected: Expected = UNSET,
    ) -> PromptVersion:
        """Create the next version of a prompt, or the version with the given number.

        `template` is a text, or for the type `message` a list of role and content; models and configurations
        have none. Without `version` the highest existing number is bumped by `bump`; "auto" grades the
        change. `parent_version` is the id of the version this one was made from, by default the highest.
        `if_changed=True` returns the latest version where the content is already that one's; it keeps its own
        tags, status and metadata, and those given here are left aside.

        Raises `InvalidInputError`, `TemplateError` (with the line), `ConflictError` where the number is taken
        and `NotFoundError` for an unknown parent. Warns with `UnderstatedVersionWarning` where a given number
        promises less than the change is graded.
        """
        kind, name = check_prompt(name, prompt_type)
        content = check_content(kind, template, defaults=defaults, validation=validation, config=config)
        references = content.references(f"{kind}/{name}")
        checked_tags = sorted({check_tag("tags", tag) for tag in check_items("tags", tags)})
        status = VersionStatus.parse(status)
        number = None if version is None else str(parse_version(version))
        if bump not in (*_STEPS, "auto"):
            raise InvalidInputError("bump", bump, "one of patch, minor, major, auto")
        draft = PromptVersion(
            version_id=str(uuid.uuid4()),
            name=name,
            prompt_type=kind,
            version=number or "0.0.0",
            template=content.template,
            messages=content.messages,
            defaults=content.defaults,
            validation=content.validation,
            config=content.config,
            content_hash="",
            metadata=check_json_object("metadata", {} if metadata is None else metadata),
            status=VersionStatus.ACTIVE if status == VersionStatus.PRODUCTION else status,
            tags=tuple(tag for tag in checked_tags if tag not in ENVIRONMENTS),
            parent_version=None if parent_version is None else check_uuid("parent_version", parent_version),
            created_at=self._clock(),
            created_by=None if created_by is None else check_label("created_by", created_by),
        )
        seen = check_expected(expected)
        environments = {tag for tag in checked_tags if tag in ENVIRONMENTS}
        if status == VersionStatus.PRODUCTION:
            environments.add("production")

        async def work(tx: Transaction) -> tuple[PromptVersion, VersionDiff | None]:
            pinned = await pinned_version(tx, draft, content, references)
            included = await tx.versions.with_includes(pinned)
            compiled = compile_version(pinned, included) if kind.has_template else None
            numbers = await tx.versions.numbers(kind, name)
            highest = await tx.versions.by_number(kind, name, numbers[0]) if numbers else None
            if if_changed and (same := await _unchanged(tx, pinned, highest)) is not None:
                return same, None
            _check_expected(pinned, highest, seen)
            parent = await self._parent(tx, pinned, highest)
            change = None
            if highest is not None and (number is not None or bump == "auto"):
                change = await _diff(tx, highest, pinned, compiled)
            step = (change.grade if change else None) or "patch" if bump == "auto" else bump
            created = pinned.model_copy(
                update={
                    "version": number or next_version(numbers, step),
                    "parent_version": parent,
                }
            )
            await tx.versions.insert(created)
            occasion = Occasion(self._clock(), created.created_by, "created")
            for environment in sorted(environments):
                await point(tx, created, check_environment(environment), occasion)
            stored = await tx.versions.by_id(created.version_id)
            assert stored is not None  # noqa: S101 - inserted in this transaction
            return stored, change.model_copy(
                update={"after": created.version}
            ) if change and highest else None

        created, change = await (await self._store()).write(work)
        if change is not None and number is not None:
            _warn_if_understated(created, change)
        return created

    async def get_version(
        self, name: str, prompt_type: str, version: str = "latest", version_id: str | None = None
    ) -> PromptVersion | None:
        """Return one version, or None.

        `version` is an exact number, `latest` (the highest active or production version), a range such as
        `^1.2` (the highest active or production version inside), or a tag. `version_id` goes before it.
        """
        kind, name = check_prompt(name, prompt_type)
        if version_id is not None:
            found = await self.get_version_by_id(version_id)
            return found if found is not None and (found.prompt_type, found.name) == (kind, name) else None
        wanted = check_reference("version", version)

        async def work(tx: Transaction) -> PromptVersion | None:
            return await find_version(tx, kind, name, wanted)

        return await (await self._store()).read(work)

    async def get_version_by_id(self, version_id: str) -> PromptVersion | None:
        known = known_id(version_id)
        if known is None:
            return None

        async def work(tx: Transaction) -> PromptVersion | None:
            return await tx.versions.by_id(known)

        return await (await self._store()).read(work)

    async def list_versions(
        self,
        name: str | None = None,
        prompt_type: str | None = None,
        tags: Iterable[str] | None = None,
        status: VersionStatus | str | None = None,
    ) -> list[PromptVersion]:
        """Return the versions that match everything given (all of `tags`), newest first."""
        kind = None if prompt_type is None else PromptType.parse(prompt_type)
        wanted_status = None if status is None else VersionStatus.parse(status)
        listed = (tags,) if isinstance(tags, str) else () if tags is None else check_items("tags", tags)
        wanted_tags = {check_tag("tags", tag) for tag in listed}
        wanted_name = None if name is None else check_name("name", name)

        async def work(tx: Transaction) -> list[PromptVersion]:
            found = await tx.versions.listing(name=wanted_name, prompt_type=kind, status=wanted_status)
            return [version for version in found if wanted_tags <= set(version.tags)]

        found = await (await self._store()).read(work)
        # a stable sort over highest first: versions of one instant stay in the order of their numbers
        return sorted(found, key=lambda version: version.created_at, reverse=True)

    async def get_version_history(self, name: str, prompt_type: str) -> list[PromptVersion]:
        """Return every version of a prompt, oldest first."""
        kind, name = check_prompt(name, prompt_type)
        return list(reversed(await self.list_versions(name, kind)))

    async def tag_version(self, version_id: str, tag: str) -> PromptVersion:
        """Put a tag on a version; a second time changes nothing. An environment tag is a promotion to it."""
        tag = check_tag("tag", tag)
        if tag in ENVIRONMENTS:
            await self.promote(version_id, tag, reason=f"tagged {tag}")
            return await self._required(version_id)

        async def work(tx: Transaction) -> PromptVersion:
            version = await existing_version(tx, version_id)
            await tx.versions.add_tag(version.version_id, tag)
            return await existing_version(tx, version.version_id)

        return await (await self._store()).write(work)

    async def untag_version(self, version_id: str, tag: str) -> PromptVersion:
        """Take a tag off a version, if it bears it. Off an environment tag, nothing is live there any more."""
        tag = check_tag("tag", tag)

        async def work(tx: Transaction) -> PromptVersion:
            version = await existing_version(tx, version_id)
            if tag not in ENVIRONMENTS:
                await tx.versions.remove_tag(version.version_id, tag)
            elif tag in version.tags:
                occasion = Occasion(self._clock(), reason=f"untagged {tag}")
                await withdraw(tx, version, check_environment(tag), occasion)
            return await existing_version(tx, version.version_id)

        return await (await self._store()).write(work)

    async def update_status(
        self, version_id: str, status: VersionStatus | str, *, reason: str = "", actor: str | None = None
    ) -> PromptVersion:
        """Change a version's status; `production` is a promotion, and leaving it withdraws the version.

        Raises `StateError` for a transition that the table does not have, and for archiving a version that is
        deployed or in a running experiment.
        """
        status = VersionStatus.parse(status)
        if status == VersionStatus.PRODUCTION:
            await self.promote(version_id, reason=reason or "status set to production", actor=actor)
            return await self._required(version_id)

        async def work(tx: Transaction) -> PromptVersion:
            version = await existing_version(tx, version_id)
            check_version_transition(version, status)
            if status == VersionStatus.ARCHIVED:
                await _check_unused(tx, version, "archived")
            if version.status == VersionStatus.PRODUCTION:
                occasion = Occasion(self._clock(), actor, reason or f"status set to {status}")
                await withdraw(tx, version, "production", occasion)
            await tx.versions.set_status(version.version_id, status)
            return await existing_version(tx, version.version_id)

        return await (await self._store()).write(work)

    async def delete_version(self, version_id: str) -> bool:
        """Delete a version; False where there is none.

        Raises `StateError` where it is deployed, in a running experiment, or included by another version.
        """
        known = known_id(version_id)
        if known is None:
            return False

        async def work(tx: Transaction) -> bool:
            version = await tx.versions.by_id(known)
            if version is None:
                return False
            await _check_unused(tx, version, "deleted")
            await tx.versions.delete(known)
            return True

        return await (await self._store()).write(work)

    async def diff(self, a: str | PromptVersion, b: str | PromptVersion) -> VersionDiff:
        """Return what changed from version `a` to version `b` (records or ids). Raises `NotFoundError`."""

        async def work(tx: Transaction) -> VersionDiff:
            before = await existing_version(tx, a.version_id if isinstance(a, PromptVersion) else a)
            after = await existing_version(tx, b.version_id if isinstance(b, PromptVersion) else b)
            compiled = None
            if after.prompt_type.has_template:
                compiled = compile_version(after, await tx.versions.with_includes(after))
            return await _diff(tx, before, after, compiled)

        return await (await self._store()).read(work)

    async def _parent(
        self, tx: Transaction, version: PromptVersion, highest: PromptVersion | None
    ) -> str | None:
        if version.parent_version is None:
            return None if highest is None else highest.version_id
        parent = await existing_version(tx, version.parent_version)
        if (parent.prompt_type, parent.name) != (version.prompt_type, version.name):
            raise InvalidInputError(
                "parent_version", parent.label, f"a version of {version.prompt_type}/{version.name}"
            )
        return parent.version_id

    async def _required(self, version_id: str) -> PromptVersion:
        found = await self.get_version_by_id(version_id)
        if found is None:
            raise NotFoundError("version", version_id)
        return found


def _check_expected(version: PromptVersion, highest: PromptVersion | None, expected: Expected) -> None:
    if expected is UNSET or expected == (None if highest is None else highest.version_id):
        return
    there = "no version" if highest is None else f"version {highest.version}"
    raise ConflictError(
        f"{version.prompt_type}/{version.name} has {there} as its highest by now: somebody else changed it; "
        "look at it and try again"
    )


async def _unchanged(
    tx: Transaction, version: PromptVersion, highest: PromptVersion | None
) -> PromptVersion | None:
    """Return the latest version, or the highest draft where none is active, if it has this content."""
    latest = await find_version(tx, version.prompt_type, version.name, "latest")
    if latest is None and highest is not None and highest.status == VersionStatus.DRAFT:
        latest = highest
    return latest if latest is not None and latest.content_hash == version.content_hash else None


async def _diff(tx: Transaction, before: PromptVersion, after: PromptVersion, compiled: Any) -> VersionDiff:
    before_compiled = None
    if before.prompt_type.has_template:
        before_compiled = compile_version(before, await tx.versions.with_includes(before))
    return diff_versions(before, after, before_compiled=before_compiled, after_compiled=compiled)


async def _check_unused(tx: Transaction, version: PromptVersion, verb: str) -> None:
    environments = await tx.deployments.environments_of(version.version_id)
    if environments:
        raise StateError(
            f"{version.label} is live in {' and '.join(environments)} and cannot be {verb}; "
            "promote another version first"
        )
    statuses = frozenset({ExperimentStatus.RUNNING, ExperimentStatus.PAUSED})
    for experiment in await tx.experiments.listing(statuses=statuses, prompt_type=version.prompt_type):
        if experiment.prompt_name == version.name and version.version in {
            v.version for v in experiment.variants
        }:
            raise StateError(
                f"{version.label} is a variant of the {experiment.status} experiment {experiment.name!r} "
                f"({experiment.experiment_id}) and cannot be {verb}; stop the experiment first"
            )
    if verb == "deleted" and (users := await tx.versions.including(version.version_id)):
        raise StateError(
            f"{version.label} is included by {users[0]} and cannot be deleted; archive it instead"
        )


def _warn_if_understated(created: PromptVersion, change: VersionDiff) -> None:
    declared = step_between(change.before, created.version)
    if (
        change.grade is not None
        and declared is not None
        and _STEPS.index(declared) < _STEPS.index(change.grade)
    ):
        warnings.warn(
            f"{created.label} follows {change.before} as a {declared} step, but the change is {change.grade}: "
            f"{change.reasons[0]}",
            UnderstatedVersionWarning,
            stacklevel=3,
        )
