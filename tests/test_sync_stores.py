"""One lock and several stores: an empty store is filled again, another one has to be adopted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import promptab
from promptab import FileSystemPromptLibrary, Lab, PromptType
from promptab.library import Lock
from promptab.sync import SyncAction, SyncPlan, SyncReport, plan_sync, push

REPLY = '{% include "system/tone@^1.0" %} Reply to {{ customer }}.'


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Lab]:
    async with promptab.open(f"sqlite:///{tmp_path / 'other.db'}") as lab:
        yield lab


@pytest.fixture
async def library(lab: Lab, tmp_path: Path) -> FileSystemPromptLibrary:
    """Prompts that were pushed into `lab`: system/tone at 1.0.1 and system/reply, which includes it, at 2.0.0."""
    library = FileSystemPromptLibrary(tmp_path / "prompts")
    (library.prompt_dir / "system").mkdir(parents=True)
    write(library, tone="Be kind.", reply="Reply.")
    await pushed(lab, library)
    write(library, tone="Be very kind.", reply=REPLY)
    await pushed(lab, library)
    return library


def write(library: FileSystemPromptLibrary, **texts: str) -> None:
    for name, text in texts.items():
        (library.prompt_dir / "system" / f"{name}.md").write_text(text)


async def pushed(lab: Lab, library: FileSystemPromptLibrary, *, adopt: bool = False) -> SyncReport:
    return await push(lab, library, await plan_sync(lab, library, adopt=adopt))


def said(plan: SyncPlan) -> dict[str, tuple[str, str | None]]:
    return {item.name: (item.action.value, item.version) for item in plan.items}


async def hashes(lab: Lab) -> dict[str, str]:
    return {version.label: version.content_hash for version in await lab.versions.list_versions()}


async def test_a_push_into_an_empty_store_makes_the_locked_versions_again(
    lab: Lab, other: Lab, library: FileSystemPromptLibrary
) -> None:
    assert said(await plan_sync(other, library)) == {
        "tone": ("recreate", "1.0.1"),
        "reply": ("recreate", "2.0.0"),
    }
    await pushed(other, library)
    made = await hashes(other)
    assert set(made) == {"system/tone@1.0.1", "system/reply@2.0.0"}
    assert made.items() <= (await hashes(lab)).items()
    assert {entry.store_id for entry in Lock.read(library.lock_path).entries} == {other.store.store_id}
    assert (await plan_sync(other, library)).in_step


async def test_a_file_that_changed_gets_a_higher_number_in_an_empty_store(
    other: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be formal.")
    assert said(await plan_sync(other, library)) == {"tone": ("push", "1.0.2"), "reply": ("push", "2.0.1")}
    await pushed(other, library)
    assert set(await hashes(other)) == {"system/tone@1.0.2", "system/reply@2.0.1"}


async def test_another_store_is_left_alone_until_it_is_adopted(
    lab: Lab, other: Lab, library: FileSystemPromptLibrary
) -> None:
    await other.versions.create_version("tone", "system", "Somebody else's.")
    write(library, new="Not of that store either.")
    lock = library.lock_path.read_bytes()
    report = await pushed(other, library)
    assert {item.action for item in report.plan.items} == {SyncAction.FOREIGN}
    assert report.outcomes == ()
    assert library.lock_path.read_bytes() == lock
    assert set(await hashes(other)) == {"system/tone@1.0.0"}
    assert said(await plan_sync(lab, library))["reply"] == ("in_step", "2.0.0")


async def test_adopting_a_store_takes_what_agrees_and_names_what_does_not(
    other: Lab, library: FileSystemPromptLibrary
) -> None:
    await other.versions.create_version("tone", "system", "Be very kind.\n", version="1.0.1")
    await other.versions.create_version("reply", "system", "Somebody else's.", version="2.0.0")
    source = library.get("tone", "system")
    assert source is not None
    await other.versions.create_version("tone", "system", source.template, version="1.0.2")
    plan = await plan_sync(other, library, adopt=True)
    assert said(plan)["tone"] == ("relock", "1.0.2")
    assert said(plan)["reply"] == ("conflict", None)
    await push(other, library, plan)
    stores = {entry.name: entry.store_id for entry in Lock.read(library.lock_path).entries}
    assert stores["tone"] == other.store.store_id != stores["reply"]


async def test_a_number_of_another_store_says_nothing_of_an_adopted_one(
    other: Lab, library: FileSystemPromptLibrary
) -> None:
    await other.versions.create_version("tone", "system", "Somebody else's.")
    plan = await plan_sync(other, library, adopt=True, ours=[(PromptType.SYSTEM, "tone")])
    assert said(plan)["tone"] == ("push", "1.0.1")
    (item,) = (await plan_sync(other, library, adopt=True)).of(SyncAction.CONFLICT)
    assert item.reason.startswith("in the files and in the store (1.0.0), and never yet in step")


async def test_adopting_a_store_with_the_same_versions_only_writes_the_lock(
    lab: Lab, other: Lab, library: FileSystemPromptLibrary
) -> None:
    await pushed(other, library)
    before = await hashes(lab)
    assert {item.action for item in (await plan_sync(lab, library)).items} == {SyncAction.FOREIGN}
    await pushed(lab, library, adopt=True)
    assert await hashes(lab) == before
    assert (await plan_sync(lab, library)).in_step


async def test_an_adopted_store_gets_the_prompts_that_it_lacks_under_their_numbers(
    other: Lab, library: FileSystemPromptLibrary
) -> None:
    await other.versions.create_version("greeting", "system", "Hello.")
    await pushed(other, library, adopt=True)
    assert {"system/tone@1.0.1", "system/reply@2.0.0"} <= set(await hashes(other))


async def test_a_first_push_that_was_interrupted_goes_on(
    other: Lab, library: FileSystemPromptLibrary
) -> None:
    plan = await plan_sync(other, library)
    first = plan.model_copy(update={"items": plan.items[:1]})
    await push(other, library, first)
    assert said(await plan_sync(other, library)) == {
        "tone": ("in_step", "1.0.1"),
        "reply": ("recreate", "2.0.0"),
    }


async def test_versions_deleted_in_a_store_that_has_others_are_not_made_again_unasked(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    for version in await lab.versions.list_versions("reply", "system"):
        await lab.versions.delete_version(version.version_id)
    assert said(await plan_sync(lab, library))["reply"] == ("version_gone", None)
    plan = await plan_sync(lab, library, ours=[(PromptType.SYSTEM, "reply")])
    assert said(plan)["reply"] == ("recreate", "2.0.0")
