"""What a store holds at one moment, in memory: a plan is made on it without asking the store again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from promptab.cases import Case
from promptab.content import Reference, compile_version
from promptab.diff import VersionDiff, diff_versions
from promptab.library import LockEntry
from promptab.lifecycle import SERVED_STATUSES
from promptab.models import PromptVersion, VersionStatus
from promptab.semver import best_match, is_exact, sort_key
from promptab.stores.base import Store, Transaction
from promptab.sync.items import Key
from promptab.templates import CompiledPrompt


class StorePicture:
    """All versions of a store, found in the ways in which the managers find them."""

    def __init__(
        self,
        store_id: str,
        versions: Iterable[PromptVersion],
        cases: Mapping[Key, tuple[Case, ...]] | None = None,
    ) -> None:
        self.store_id = store_id
        self._cases = cases or {}
        self._of: dict[Key, list[PromptVersion]] = {}
        self._by_id: dict[str, PromptVersion] = {}
        for version in versions:
            self._of.setdefault((version.prompt_type, version.name), []).append(version)
            self._by_id[version.version_id] = version
        for of_prompt in self._of.values():
            of_prompt.sort(key=_order, reverse=True)

    @classmethod
    async def of_store(cls, store: Store) -> Self:
        async def work(tx: Transaction) -> tuple[list[PromptVersion], Mapping[Key, tuple[Case, ...]]]:
            return await tx.versions.listing(), await tx.cases.listing()

        return cls(store.store_id, *await store.read(work))

    @property
    def keys(self) -> frozenset[Key]:
        return frozenset(self._of)

    def cases(self, key: Key) -> tuple[Case, ...]:
        """Return the cases of a prompt."""
        return self._cases.get(key, ())

    def versions(self, key: Key) -> Sequence[PromptVersion]:
        """Return every version of a prompt, highest first."""
        return self._of.get(key, ())

    def highest(self, key: Key) -> PromptVersion | None:
        return next(iter(self.versions(key)), None)

    def latest(self, key: Key) -> PromptVersion | None:
        """Return the highest active or production version."""
        return next((version for version in self.versions(key) if version.status in SERVED_STATUSES), None)

    def numbered(self, key: Key, number: str) -> PromptVersion | None:
        return next((version for version in self.versions(key) if version.version == number), None)

    def saying(self, key: Key, content_hash: str, *, drafts: bool) -> PromptVersion | None:
        """Return the version that makes another one with this content needless.

        That is the latest one. Drafts count where there is no latest one, or with `drafts=True`.
        """
        latest = self.latest(key)
        if latest is not None and latest.content_hash == content_hash:
            return latest
        for version in self.versions(key) if drafts or latest is None else ():
            if version.status == VersionStatus.DRAFT and version.content_hash == content_hash:
                return version
        return None

    def included(self, reference: Reference) -> PromptVersion | None:
        """Return the version that an include would be pinned to now."""
        key = (reference.prompt_type, reference.name)
        if is_exact(reference.version):
            return self.numbered(key, reference.version)
        if reference.version == "latest":
            return self.latest(key)
        served = [version.version for version in self.versions(key) if version.status in SERVED_STATUSES]
        best = best_match(reference.version, served)
        return None if best is None else self.numbered(key, best)

    def base(self, key: Key, entry: LockEntry | None) -> PromptVersion | None:
        """Return the version that the lock names, if it is here with that content and not archived."""
        named = None if entry is None else self.numbered(key, entry.version)
        if named is None or entry is None or named.content_hash != entry.content_hash:
            return None
        return None if named.status == VersionStatus.ARCHIVED else named

    def head(self, key: Key, *, base: PromptVersion | None) -> PromptVersion | None:
        """Return the version that a file is compared with."""
        latest = self.latest(key)
        if base is not None and (latest is None or _order(latest) < _order(base)):
            return base
        drafts = (version for version in self.versions(key) if version.status == VersionStatus.DRAFT)
        return latest if latest is not None else next(drafts, None)

    def diff(self, before: PromptVersion, after: PromptVersion) -> VersionDiff:
        """Compare two versions, of which the second may be a planned one."""
        return diff_versions(
            before, after, before_compiled=self.compiled(before), after_compiled=self.compiled(after)
        )

    def compiled(self, version: PromptVersion) -> CompiledPrompt | None:
        """Return the version ready to render; None for models and configurations. Raises `TemplateError`."""
        if not version.prompt_type.has_template:
            return None
        return compile_version(version, self.with_includes(version))

    def by_id(self, version_id: str) -> PromptVersion:
        """Return a version that another one includes, and which therefore is there."""
        return self._by_id[version_id]

    def with_includes(self, version: PromptVersion) -> dict[str, PromptVersion]:
        """Return everything that a version includes, directly or not, by id."""
        found: dict[str, PromptVersion] = {}
        missing = set(version.includes.values())
        while missing:
            more = {version_id: self._by_id[version_id] for version_id in missing}
            found.update(more)
            missing = {i for included in more.values() for i in included.includes.values()} - set(found)
        return found

    def foresee(self, version: PromptVersion) -> None:
        """Add a version that is yet to be made, so that what includes it is planned on it."""
        of_prompt = self._of.setdefault((version.prompt_type, version.name), [])
        of_prompt.append(version)
        of_prompt.sort(key=_order, reverse=True)
        self._by_id[version.version_id] = version


def _order(version: PromptVersion) -> str:
    return sort_key(version.version)
