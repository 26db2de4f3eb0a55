"""Versions and their tags. The status `production` and the environment tags come from the pointers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Row, Select, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from promptab.errors import ConflictError
from promptab.models import PromptType, PromptVersion, VersionStatus
from promptab.semver import sort_key
from promptab.stores.queries.readable import readable
from promptab.stores.schema import pointers, tags, versions

K = TypeVar("K")

_CONTENT = ("template", "messages", "includes", "defaults", "validation", "config")


class VersionQueries:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, version: PromptVersion) -> None:
        """Add a version with its free tags. Raises `ConflictError` where the number is taken."""
        dumped = version.model_dump(mode="json")
        try:
            await self._connection.execute(
                insert(versions).values(
                    version_id=version.version_id,
                    prompt_type=version.prompt_type.value,
                    name=version.name,
                    version=version.version,
                    sort_key=sort_key(version.version),
                    content_hash=version.content_hash,
                    content={part: dumped[part] for part in _CONTENT},
                    metadata=dumped["metadata"],
                    status=version.status.value,
                    parent_version=version.parent_version,
                    created_at=version.created_at,
                    created_by=version.created_by,
                )
            )
        except IntegrityError as error:
            raise ConflictError(
                f"{version.label} exists already; content never changes, so create the next version instead"
            ) from error
        for tag in version.tags:
            await self.add_tag(version.version_id, tag)

    async def by_id(self, version_id: str) -> PromptVersion | None:
        return await self._one(_SELECT.where(versions.c.version_id == version_id))

    async def by_ids(self, version_ids: Iterable[str]) -> dict[str, PromptVersion]:
        """Return those that exist and can be read, by id."""
        found: dict[str, PromptVersion] = {}
        for some in _chunks(sorted(set(version_ids))):
            query = _SELECT.where(versions.c.version_id.in_(some))
            found.update({version.version_id: version for version in await self._many(query, lenient=True)})
        return found

    async def with_includes(self, version: PromptVersion) -> dict[str, PromptVersion]:
        """Return everything that a version includes, directly or not, by id."""
        found: dict[str, PromptVersion] = {}
        missing = set(version.includes.values())
        while missing:
            more = await self.by_ids(missing)
            found.update(more)
            missing = {i for included in more.values() for i in included.includes.values()} - set(found)
        return found

    async def by_number(self, prompt_type: PromptType, name: str, version: str) -> PromptVersion | None:
        return await self._one(_of(prompt_type, name).where(versions.c.version == version))

    async def by_numbers(self, wanted: Iterable[tuple[PromptType, str, str]]) -> list[PromptVersion]:
        """Return those that exist, and can be read, of (prompt_type, name, version)."""
        keys = [(kind.value, name, version) for kind, name, version in sorted(set(wanted))]
        found: list[PromptVersion] = []
        for some in _chunks(keys, size=200):
            number = tuple_(versions.c.prompt_type, versions.c.name, versions.c.version)
            found += await self._many(_SELECT.where(number.in_(some)), lenient=True)
        return found

    async def by_tag(self, prompt_type: PromptType, name: str, tag: str) -> list[PromptVersion]:
        """Return the versions that bear the tag, highest first; an environment's name finds what it points
        at.
        """
        tagged = select(tags.c.version_id).where(tags.c.tag == tag)
        pointed = select(pointers.c.version_id).where(
            pointers.c.prompt_type == prompt_type.value,
            pointers.c.name == name,
            pointers.c.environment == tag,
        )
        chosen = versions.c.version_id.in_(tagged) | versions.c.version_id.in_(pointed)
        return await self._many(_of(prompt_type, name).where(chosen).order_by(versions.c.sort_key.desc()))

    async def listing(
        self,
        *,
        name: str | None = None,
        prompt_type: PromptType | None = None,
        status: VersionStatus | None = None,
    ) -> list[PromptVersion]:
        """Return all that match, highest version of each prompt first, prompts in the order of type and name."""
        query = _SELECT.order_by(versions.c.prompt_type, versions.c.name, versions.c.sort_key.desc())
        if name is not None:
            query = query.where(versions.c.name == name)
        if prompt_type is not None:
            query = query.where(versions.c.prompt_type == prompt_type.value)
        if status is not None:
            query = query.where(_status_is(status))
        return await self._many(query)

    async def numbers(
        self, prompt_type: PromptType, name: str, statuses: Iterable[VersionStatus] | None = None
    ) -> list[str]:
        """Return the version strings of a prompt, highest first."""
        query = (
            select(versions.c.version)
            .where(versions.c.prompt_type == prompt_type.value, versions.c.name == name)
            .order_by(versions.c.sort_key.desc())
        )
        if statuses is not None:
            query = query.where(_status_in(statuses))
        return list((await self._connection.execute(query)).scalars())

    async def highest_served(self) -> list[PromptVersion]:
        """Return the highest active or production version of every prompt that has one which can be read."""
        served = _status_in([VersionStatus.ACTIVE, VersionStatus.PRODUCTION])
        top = (
            select(versions.c.prompt_type, versions.c.name, func.max(versions.c.sort_key).label("sort_key"))
            .where(served)
            .group_by(versions.c.prompt_type, versions.c.name)
            .subquery()
        )
        joined = and_(
            versions.c.prompt_type == top.c.prompt_type,
            versions.c.name == top.c.name,
            versions.c.sort_key == top.c.sort_key,
        )
        return await self._many(_SELECT.join(top, joined), lenient=True)

    async def including(self, version_id: str) -> list[str]:
        """Return labels of the versions whose includes are pinned to this one."""
        query = _SELECT.where(
            versions.c.content["includes"].as_string().contains(version_id, autoescape=True)
        )
        return [
            version.label for version in await self._many(query) if version_id in version.includes.values()
        ]

    async def set_status(self, version_id: str, status: VersionStatus) -> None:
        """Set the status beside the pointer: never `production`, which is the pointer itself."""
        await self._connection.execute(
            update(versions).where(versions.c.version_id == version_id).values(status=status.value)
        )

    async def add_tag(self, version_id: str, tag: str) -> None:
        """Add a free tag; a second time changes nothing."""
        present = select(tags.c.tag).where(tags.c.version_id == version_id, tags.c.tag == tag)
        if (await self._connection.execute(present)).first() is None:
            await self._connection.execute(insert(tags).values(version_id=version_id, tag=tag))

    async def remove_tag(self, version_id: str, tag: str) -> bool:
        removed = await self._connection.execute(
            delete(tags).where(tags.c.version_id == version_id, tags.c.tag == tag)
        )
        return removed.rowcount > 0

    async def delete(self, version_id: str) -> None:
        """Remove the version and its tags; the history of deployments stays."""
        await self._connection.execute(delete(tags).where(tags.c.version_id == version_id))
        await self._connection.execute(delete(versions).where(versions.c.version_id == version_id))

    async def _one(self, query: Select[Any]) -> PromptVersion | None:
        found = await self._many(query)
        return found[0] if found else None

    async def _many(self, query: Select[Any], *, lenient: bool = False) -> list[PromptVersion]:
        rows = (await self._connection.execute(query)).all()
        ids = [row.version_id for row in rows]
        labels = await self._labels(tags.c.version_id, tags.c.tag, ids)
        environments = await self._labels(pointers.c.version_id, pointers.c.environment, ids)
        if lenient:
            return readable(rows, lambda row: _record(row, labels, environments), "version")
        return [_record(row, labels, environments) for row in rows]

    async def _labels(self, key: Any, label: Any, version_ids: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for some in _chunks(version_ids):
            for version_id, text in (
                await self._connection.execute(select(key, label).where(key.in_(some)))
            ).all():
                found.setdefault(version_id, []).append(text)
        return found


_SELECT = select(versions)


def _of(prompt_type: PromptType, name: str) -> Select[Any]:
    return _SELECT.where(versions.c.prompt_type == prompt_type.value, versions.c.name == name)


def _in_production() -> Any:
    return versions.c.version_id.in_(
        select(pointers.c.version_id).where(pointers.c.environment == "production")
    )


def _status_is(status: VersionStatus) -> Any:
    if status == VersionStatus.PRODUCTION:
        return _in_production()
    return and_(versions.c.status == status.value, ~_in_production())


def _status_in(statuses: Iterable[VersionStatus]) -> Any:
    first, *rest = [_status_is(status) for status in statuses]
    for condition in rest:
        first |= condition
    return first


def _chunks(ids: Sequence[K], size: int = 500) -> Iterable[Sequence[K]]:
    """Databases bound the number of parameters in one statement (SQLite: 999 in old builds)."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _record(
    row: Row[Any], labels: Mapping[str, list[str]], environments: Mapping[str, list[str]]
) -> PromptVersion:
    bears = environments.get(row.version_id, [])
    return PromptVersion(
        version_id=row.version_id,
        name=row.name,
        prompt_type=row.prompt_type,
        version=row.version,
        content_hash=row.content_hash,
        metadata=row.metadata,
        status=VersionStatus.PRODUCTION if "production" in bears else VersionStatus(row.status),
        tags=tuple(sorted({*labels.get(row.version_id, []), *bears})),
        parent_version=row.parent_version,
        created_at=row.created_at,
        created_by=row.created_by,
        **{part: row.content[part] for part in _CONTENT},
    )
