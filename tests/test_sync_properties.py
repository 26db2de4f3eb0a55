"""Whatever people and programs do in whatever order: a sync loses nothing that was in the store or was pushed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import promptab
from promptab import FileSystemPromptLibrary, PromptType
from promptab.sync import SyncAction, SyncPlan, check_files, plan_sync, pull, push

NAMES = ("tone", "reply")
WORDS = ("kind", "brief", "formal", "{{ name }}")


class Syncing(RuleBasedStateMachine):
    """Two prompts, of which the second includes the first, edited in files and in a store."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._library = FileSystemPromptLibrary(Path(self._folder.name) / "prompts")
        self._seen: set[tuple[str, str]] = set()
        """(name, template) of everything that was ever in the store, or in a file that a push took."""

    @initialize()
    def open(self) -> None:
        (self._library.prompt_dir / "system").mkdir(parents=True)
        self._lab = self._run(self._opened)

    async def _opened(self) -> promptab.Lab:
        return await promptab.open("sqlite:///:memory:")

    @rule(name=st.sampled_from(NAMES), word=st.sampled_from(WORDS))
    def edit_a_file(self, name: str, word: str) -> None:
        self._file(name).write_text(self._text(name, word))

    @rule(name=st.sampled_from(NAMES))
    def delete_a_file(self, name: str) -> None:
        self._file(name).unlink(missing_ok=True)

    @rule(name=st.sampled_from(NAMES), word=st.sampled_from(WORDS))
    def create_a_version(self, name: str, word: str) -> None:
        async def create() -> None:
            if name == "tone" or await self._lab.versions.get_version("tone", "system", "*"):
                await self._lab.versions.create_version(name, "system", self._text(name, word), bump="patch")
                self._seen.add((name, self._text(name, word)))

        self._run(create)

    @rule(ours=st.sets(st.sampled_from(NAMES)))
    def push_files(self, ours: set[str]) -> None:
        async def pushed() -> None:
            contents = self._library.load().prompts
            chosen = [(PromptType.SYSTEM, name) for name in ours if (PromptType.SYSTEM, name) in contents]
            before = self._files()
            plan = await plan_sync(self._lab, self._library, ours=chosen)
            report = await push(self._lab, self._library, plan)
            assert not report.failed
            self._seen |= {
                (outcome.name, before[outcome.name]) for outcome in report.outcomes if outcome.version
            }
            assert self._files() == before
            after = await plan_sync(self._lab, self._library)
            assert not after.of(SyncAction.PUSH, SyncAction.RECREATE, SyncAction.RELOCK)
            assert undecided(after) == undecided(plan)

        self._run(pushed)

    @rule(theirs=st.sets(st.sampled_from(NAMES)))
    def pull_versions(self, theirs: set[str]) -> None:
        async def pulled() -> None:
            stored = {version.name for version in await self._lab.versions.list_versions()}
            chosen = [(PromptType.SYSTEM, name) for name in theirs & stored]
            versions = await self._lab.versions.list_versions()
            plan = await plan_sync(self._lab, self._library, theirs=chosen)
            report = await pull(self._lab, self._library, plan)
            assert not report.failed
            assert await self._lab.versions.list_versions() == versions
            assert not (await plan_sync(self._lab, self._library)).of(SyncAction.PULL, SyncAction.RELOCK)

        self._run(pulled)

    @invariant()
    def nothing_is_lost(self) -> None:
        async def look() -> None:
            stored = {(v.name, v.template) for v in await self._lab.versions.list_versions()}
            assert self._seen <= stored

        self._run(look)

    @invariant()
    def being_in_step_means_that_every_file_says_what_its_locked_version_says(self) -> None:
        async def look() -> None:
            plan = await plan_sync(self._lab, self._library)
            for item in plan.of(SyncAction.IN_STEP):
                version = await self._lab.versions.get_version(item.name, "system", item.version or "")
                assert version is not None
                assert version.template == self._files()[item.name]
                assert item.locked == item.version
            assert not plan.in_step or check_files(self._library).in_step

        self._run(look)

    def teardown(self) -> None:
        if hasattr(self, "_lab"):
            self._run(self._lab.close)
        self._loop.close()
        self._folder.cleanup()

    def _run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self._loop.run_until_complete(work())

    def _file(self, name: str) -> Path:
        return self._library.prompt_dir / "system" / f"{name}.md"

    def _files(self) -> dict[str, str]:
        return {key[1]: file.source.template for key, file in self._library.load().prompts.items()}

    @staticmethod
    def _text(name: str, word: str) -> str:
        return f"Be {word}." if name == "tone" else f'{{% include "system/tone@*" %}} Reply, and be {word}.'


def undecided(plan: SyncPlan) -> set[str]:
    """Return what neither a push nor a pull does anything about; a problem may be solved by pushing an include."""
    return {
        item.label for item in plan.of(SyncAction.CONFLICT, SyncAction.FILE_DELETED, SyncAction.VERSION_GONE)
    }


TestSyncing = Syncing.TestCase
TestSyncing.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
