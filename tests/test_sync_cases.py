"""Cases in files and in the store: the files' go into the store with a push, and make no version."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptab import FileSystemPromptLibrary, Lab, PromptType
from promptab.sync import SyncAction, SyncItem, SyncReport, check_files, plan_sync, pull, push

TONE = (PromptType.SYSTEM, "tone")
ADA = [{"name": "ada", "variables": {"who": "Ada"}, "expect": {"contains": "Ada"}}]


@pytest.fixture
def library(tmp_path: Path) -> FileSystemPromptLibrary:
    (tmp_path / "prompts" / "system").mkdir(parents=True)
    return FileSystemPromptLibrary(tmp_path / "prompts")


def write(library: FileSystemPromptLibrary, *names: str, text: str = "Be kind to {{ who }}.") -> None:
    """Write the file with a case for each name."""
    cases = ", ".join(f"{{name: {name}, variables: {{who: {name}}}}}" for name in names)
    (library.prompt_dir / "system" / "tone.md").write_text(f"---\ntests: [{cases}]\n---\n{text}\n")


async def item(lab: Lab, library: FileSystemPromptLibrary) -> SyncItem:
    (found,) = (await plan_sync(lab, library)).items
    return found


async def pushed(lab: Lab, library: FileSystemPromptLibrary) -> SyncReport:
    return await push(lab, library, await plan_sync(lab, library))


async def names(lab: Lab) -> list[str]:
    return [case.name for case in await lab.versions.get_cases("tone", "system")]


async def test_a_new_file_brings_its_cases(lab: Lab, library: FileSystemPromptLibrary) -> None:
    write(library, "ada", "bo")
    await pushed(lab, library)
    assert await names(lab) == ["ada", "bo"]
    assert (await plan_sync(lab, library)).in_step


async def test_other_cases_are_pushed_without_a_version(lab: Lab, library: FileSystemPromptLibrary) -> None:
    write(library, "ada")
    await pushed(lab, library)
    write(library, "bo")
    planned = await item(lab, library)
    assert (planned.action, planned.version) == (SyncAction.CASES, "1.0.0")
    assert not (await plan_sync(lab, library)).in_step
    assert check_files(library).in_step
    (outcome,) = (await pushed(lab, library)).outcomes
    assert (outcome.done, outcome.detail, outcome.version) == (True, "its cases are in the store", "1.0.0")
    assert await names(lab) == ["bo"]
    assert (await plan_sync(lab, library)).in_step
    assert len(await lab.versions.list_versions()) == 1


async def test_a_changed_file_brings_both(lab: Lab, library: FileSystemPromptLibrary) -> None:
    write(library, "ada")
    await pushed(lab, library)
    write(library, "bo", text="Be kinder to {{ who }}.")
    assert (await item(lab, library)).action == SyncAction.PUSH
    await pushed(lab, library)
    assert (await names(lab), len(await lab.versions.list_versions())) == (["bo"], 2)


async def test_a_file_that_does_not_speak_of_cases_leaves_those_of_the_store(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    (library.prompt_dir / "system" / "tone.md").write_text("Be kind to {{ who }}.\n")
    await pushed(lab, library)
    await lab.versions.set_cases("tone", "system", ADA)
    assert (await item(lab, library)).action == SyncAction.IN_STEP
    write(library)
    assert (await item(lab, library)).action == SyncAction.CASES
    await pushed(lab, library)
    assert await names(lab) == []


async def test_a_pull_writes_the_cases_into_a_new_file(lab: Lab, library: FileSystemPromptLibrary) -> None:
    await lab.versions.create_version("tone", "system", "Be kind to {{ who }}.")
    await lab.versions.set_cases("tone", "system", ADA)
    await pull(lab, library, await plan_sync(lab, library))
    source = library.get("tone", "system")
    assert source is not None
    assert source.tests == await lab.versions.get_cases("tone", "system")
    assert (await plan_sync(lab, library)).in_step


async def test_a_pull_keeps_the_cases_of_a_file_unless_the_store_is_chosen(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, "bo")
    await pushed(lab, library)
    await lab.versions.set_cases("tone", "system", ADA)
    await lab.versions.create_version("tone", "system", "Be kinder to {{ who }}.")
    await pull(lab, library, await plan_sync(lab, library))
    kept = library.get("tone", "system")
    assert kept is not None
    assert (kept.template, [case.name for case in kept.tests or ()]) == ("Be kinder to {{ who }}.", ["bo"])
    assert (await item(lab, library)).action == SyncAction.CASES
    await pull(lab, library, await plan_sync(lab, library))
    assert await names(lab) == ["ada"]
    await pull(lab, library, await plan_sync(lab, library, theirs=[TONE]))
    chosen = library.get("tone", "system")
    assert chosen is not None
    assert [case.name for case in chosen.tests or ()] == ["ada"]
    assert (await plan_sync(lab, library)).in_step


async def test_a_file_with_a_wrong_case_is_a_problem_and_changes_nothing(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, "ada")
    await pushed(lab, library)
    write(library, "bo", "bo")
    planned = await item(lab, library)
    assert planned.action == SyncAction.PROBLEM
    assert "system/tone.md:2: " in planned.reason
    await pushed(lab, library)
    assert await names(lab) == ["ada"]
