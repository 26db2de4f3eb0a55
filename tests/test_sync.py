"""Files and a store, kept in step: one story for each thing that a plan can say of a prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from promptab import (
    FileSystemPromptLibrary,
    InvalidInputError,
    Lab,
    PromptFileError,
    PromptType,
    VersionStatus,
)
from promptab.library import Lock
from promptab.sync import SyncAction, SyncItem, SyncReport, plan_sync, pull, push

TONE = (PromptType.SYSTEM, "tone")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    (folder / "system").mkdir(parents=True)
    return folder


@pytest.fixture
def library(prompts: Path) -> FileSystemPromptLibrary:
    return FileSystemPromptLibrary(prompts)


def write(prompts: Path, text: str, *, name: str = "tone") -> None:
    (prompts / "system" / f"{name}.md").write_text(text)


def read(prompts: Path, *, name: str = "tone") -> str:
    return (prompts / "system" / f"{name}.md").read_text()


async def the_item(lab: Lab, library: FileSystemPromptLibrary, *, adopt: bool = False) -> SyncItem:
    plan = await plan_sync(lab, library, adopt=adopt)
    assert len(plan.items) == 1
    return plan.items[0]


async def pushed(
    lab: Lab,
    library: FileSystemPromptLibrary,
    *,
    adopt: bool = False,
    ours: tuple[tuple[PromptType, str], ...] = (),
) -> SyncReport:
    return await push(lab, library, await plan_sync(lab, library, adopt=adopt, ours=ours), actor="ada")


async def pulled(
    lab: Lab, library: FileSystemPromptLibrary, *, theirs: tuple[tuple[PromptType, str], ...] = ()
) -> SyncReport:
    return await pull(lab, library, await plan_sync(lab, library, theirs=theirs))


async def numbers(lab: Lab, name: str = "tone") -> list[str]:
    return [version.version for version in await lab.versions.get_version_history(name, "system")]


async def test_push_makes_a_version_of_a_new_file_and_locks_it(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "---\ndescription: How we sound.\npromptab: {tags: [support]}\n---\nBe kind.\n")
    assert (await the_item(lab, library)).action == SyncAction.PUSH
    report = await pushed(lab, library)
    version = await lab.versions.get_version("tone", "system")
    assert version is not None
    assert (version.version, version.template.strip(), version.tags) == ("1.0.0", "Be kind.", ("support",))
    assert (version.created_by, version.metadata) == ("ada", {"description": "How we sound."})
    assert [outcome.version for outcome in report.outcomes] == ["1.0.0"]
    entry = Lock.read(library.lock_path).get(*TONE)
    assert entry is not None
    assert entry[2:] == (lab.store.store_id, "1.0.0", version.content_hash)


async def test_push_makes_no_version_of_an_unchanged_file(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    lock = library.lock_path.read_bytes()
    write(prompts, "---\nmetadata: {owner: nobody}\n---\nBe kind.\n")
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP
    assert (await pushed(lab, library)).outcomes == ()
    assert await numbers(lab) == ["1.0.0"]
    assert library.lock_path.read_bytes() == lock


async def test_push_grades_the_change_of_a_file(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    for text in ("Be kind.", "Be very kind.", "Be kind to {{ name }}."):
        write(prompts, text)
        item = await the_item(lab, library)
        await pushed(lab, library)
        assert (await numbers(lab))[-1] == item.version
    assert await numbers(lab) == ["1.0.0", "1.0.1", "2.0.0"]


async def test_push_takes_version_and_status_from_the_file(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "---\npromptab: {version: 3.1.0-rc.1, status: draft}\n---\nBe kind.\n")
    await pushed(lab, library)
    version = await lab.versions.get_version("tone", "system", "3.1.0-rc.1")
    assert version is not None
    assert version.status == VersionStatus.DRAFT
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_plan_names_a_declared_version_that_is_taken(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "---\npromptab: {version: 1.0.0}\n---\nBe kind.\n")
    await pushed(lab, library)
    write(prompts, "---\npromptab: {version: 1.0.0}\n---\nBe rude.\n")
    item = await the_item(lab, library)
    assert item.action == SyncAction.PROBLEM
    assert re.search(r"system/tone\.md: version: '1\.0\.0' is not free.*raise it", item.reason)
    await pushed(lab, library)
    assert await numbers(lab) == ["1.0.0"]


async def test_plan_notes_a_declared_version_that_promises_too_little(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    write(prompts, "---\npromptab: {version: 1.0.1}\n---\nBe kind to {{ name }}.\n")
    item = await the_item(lab, library)
    assert (item.action, item.version) == (SyncAction.PUSH, "1.0.1")
    assert item.notes == (
        "1.0.1 promises a patch change, but this one is major: required variable name added",
    )


async def test_pull_writes_a_version_that_is_new_in_the_store(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.", defaults={"name": "you"})
    item = await the_item(lab, library)
    assert (item.action, item.reason, item.path) == (SyncAction.PULL, "new in the store", None)
    await pulled(lab, library)
    source = library.get("tone", "system")
    assert source is not None
    assert (source.template, source.defaults) == ("Be kind.", {"name": "you"})
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_pull_takes_a_change_in_the_store_and_keeps_what_the_file_wishes(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "---\npromptab: {bump: minor, tags: [support]}\n---\nBe kind.\n")
    await pushed(lab, library)
    await lab.versions.create_version("tone", "system", "Be very kind.")
    item = await the_item(lab, library)
    assert (item.action, item.locked, item.version) == (SyncAction.PULL, "1.0.0", "1.0.1")
    await pulled(lab, library)
    source = library.get("tone", "system")
    assert source is not None
    assert (source.template, source.bump, source.tags) == ("Be very kind.", "minor", ("support",))
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_pull_writes_a_prompt_that_only_has_drafts_as_a_draft(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.", status="draft")
    await pulled(lab, library)
    source = library.get("tone", "system")
    assert source is not None
    assert source.status == VersionStatus.DRAFT


async def test_plan_leaves_drafts_beside_a_served_version_alone(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    await lab.versions.create_version("tone", "system", "Be odd.", status="draft")
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_a_draft_that_the_store_has_is_not_made_twice(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    lock = library.lock_path.read_text()
    write(prompts, "---\npromptab: {status: draft}\n---\nBe odd.")
    await pushed(lab, library)
    library.lock_path.write_text(lock)  # as in a branch that does not have that push yet
    item = await the_item(lab, library)
    assert (item.action, item.version) == (SyncAction.RELOCK, "1.0.1")
    write(prompts, "Be odd.")
    item = await the_item(lab, library)
    assert (item.action, item.version) == (SyncAction.PUSH, "1.0.2")


async def test_a_file_that_is_no_draft_any_more_is_in_step_with_its_draft_and_says_so(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "---\npromptab: {status: draft}\n---\nBe kind.")
    await pushed(lab, library)
    write(prompts, "---\npromptab: {status: active}\n---\nBe kind.")
    item = await the_item(lab, library)
    assert item.action == SyncAction.IN_STEP
    assert item.notes == ("1.0.0 is a draft; a file's status is for new versions, so set it in the store",)


async def test_a_rolled_back_version_does_not_make_its_file_old(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    for text in ("Be kind.", "Be rude."):
        write(prompts, text)
        await pushed(lab, library)
        latest = await lab.versions.get_version("tone", "system")
        assert latest is not None
        await lab.versions.promote(latest.version_id)
    await lab.versions.rollback("tone", "system")
    item = await the_item(lab, library)
    assert (item.action, item.version) == (SyncAction.IN_STEP, "1.0.1")
    assert item.notes == ("1.0.1 is deprecated in the store",)


async def test_a_file_that_went_back_to_the_latest_version_is_only_locked_again(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    for text in ("Be kind.", "Be rude."):
        write(prompts, text)
        await pushed(lab, library)
    rude = await lab.versions.get_version("tone", "system")
    assert rude is not None
    await lab.versions.update_status(rude.version_id, "deprecated")
    write(prompts, "Be kind.")
    item = await the_item(lab, library)
    assert (item.action, item.locked, item.version) == (SyncAction.RELOCK, "1.0.1", "1.0.0")
    await pushed(lab, library)
    assert await numbers(lab) == ["1.0.0", "1.0.1"]
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_the_same_change_on_both_sides_is_only_locked(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    write(prompts, "Be very kind.")
    await lab.versions.create_version("tone", "system", "Be very kind.")
    assert (await the_item(lab, library)).action == SyncAction.RELOCK
    await pulled(lab, library)
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP
    assert await numbers(lab) == ["1.0.0", "1.0.1"]


async def test_a_change_on_both_sides_is_a_conflict_that_overwrites_nothing(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    write(prompts, "Greet.", name="greeting")
    await pushed(lab, library)
    write(prompts, "Be kind and brief.")
    write(prompts, "Greet warmly.", name="greeting")
    await lab.versions.create_version("tone", "system", "Be kind and formal.")
    lock = Lock.read(library.lock_path).get(*TONE)
    report = await pushed(lab, library)
    (conflict,) = report.plan.of(SyncAction.CONFLICT)
    assert conflict.conflict is not None
    assert conflict.conflict.base == "1.0.0"
    assert conflict.conflict.in_store is not None
    assert "+Be kind and formal." in conflict.conflict.in_store.template
    assert conflict.conflict.in_file is not None
    assert "+Be kind and brief." in conflict.conflict.in_file.template
    assert [outcome.label for outcome in report.outcomes] == ["system/greeting"]
    assert (await pulled(lab, library)).outcomes == ()
    assert read(prompts) == "Be kind and brief."
    assert await numbers(lab) == ["1.0.0", "1.0.1"]
    assert await numbers(lab, "greeting") == ["1.0.0", "1.0.1"]
    assert Lock.read(library.lock_path).get(*TONE) == lock


async def test_files_and_a_store_that_never_met_are_in_conflict_without_a_base(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    await lab.versions.create_version("tone", "system", "Be formal.")
    write(prompts, "Be kind.")
    item = await the_item(lab, library)
    assert item.action == SyncAction.CONFLICT
    assert item.conflict is not None
    assert item.conflict.base is None
    assert item.conflict.apart is not None
    assert "-Be formal.\n+Be kind." in item.conflict.apart.template


async def test_a_file_that_says_what_an_older_version_says_is_pulled_anew(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.versions.create_version("tone", "system", "Be formal.")
    item = await the_item(lab, library)
    assert (item.action, item.version) == (SyncAction.PULL, "1.0.1")
    await pulled(lab, library)
    assert read(prompts).strip() == "Be formal."


@pytest.mark.parametrize("side", ["ours", "theirs"])
async def test_a_conflict_is_settled_by_choosing_a_side(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path, side: str
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    write(prompts, "Be brief.")
    await lab.versions.create_version("tone", "system", "Be formal.")
    if side == "ours":
        await pushed(lab, library, ours=(TONE,))
    else:
        await pulled(lab, library, theirs=(TONE,))
    latest = await lab.versions.get_version("tone", "system")
    assert latest is not None
    expected = ("1.0.2", "Be brief.") if side == "ours" else ("1.0.1", "Be formal.")
    assert (latest.version, latest.template.strip()) == expected
    assert read(prompts).strip() == expected[1]
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_choosing_a_side_that_is_not_there_is_refused(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    with pytest.raises(InvalidInputError, match="ours: 'system/tone' is not a prompt with a usable file"):
        await plan_sync(lab, library, ours=[TONE])
    with pytest.raises(InvalidInputError, match="theirs: 'system/tone' is not a prompt that the store has"):
        await plan_sync(lab, library, theirs=[TONE])


async def test_a_deleted_file_is_reported_and_its_versions_stay(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    (prompts / "system" / "tone.md").unlink()
    item = await the_item(lab, library)
    assert item.action == SyncAction.FILE_DELETED
    assert "promptab sync pull --theirs system/tone" in item.reason
    await pushed(lab, library)
    await pulled(lab, library)
    assert await numbers(lab) == ["1.0.0"]
    assert not (prompts / "system" / "tone.md").exists()


async def test_a_deleted_file_can_be_written_again(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    (prompts / "system" / "tone.md").unlink()
    await pulled(lab, library, theirs=(TONE,))
    assert read(prompts).strip() == "Be kind."
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_the_lock_forgets_a_deleted_file_whose_versions_are_out_of_use(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    (prompts / "system" / "tone.md").unlink()
    version = await lab.versions.get_version("tone", "system")
    assert version is not None
    await lab.versions.update_status(version.version_id, "archived")
    await pushed(lab, library)
    assert Lock.read(library.lock_path).entries == ()
    assert (await plan_sync(lab, library)).items == ()


@pytest.mark.parametrize("removal", ["deleted", "archived"])
async def test_a_version_that_is_gone_from_the_store_is_reported_and_can_be_made_again(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path, removal: str
) -> None:
    for text in ("Be kind.", "Be rude."):
        write(prompts, text)
        await pushed(lab, library)
    rude = await lab.versions.get_version("tone", "system")
    assert rude is not None
    if removal == "deleted":
        await lab.versions.delete_version(rude.version_id)
    else:
        await lab.versions.update_status(rude.version_id, "archived")
    item = await the_item(lab, library)
    assert item.action == SyncAction.VERSION_GONE
    assert item.reason.startswith(f"1.0.1 was {removal} in the store")
    assert (await pushed(lab, library)).outcomes == ()
    await pushed(lab, library, ours=(TONE,))
    latest = await lab.versions.get_version("tone", "system")
    assert latest is not None
    assert latest.template.strip() == "Be rude."
    assert latest.version == ("1.0.1" if removal == "deleted" else "1.0.2")
    assert (await the_item(lab, library)).action == SyncAction.IN_STEP


async def test_a_number_that_the_lock_remembers_never_comes_to_mean_another_content(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    for text in ("Be kind.", "Be rude."):
        write(prompts, text)
        await pushed(lab, library)
    rude = await lab.versions.get_version("tone", "system")
    assert rude is not None
    await lab.versions.delete_version(rude.version_id)
    write(prompts, "Be brief.")
    assert (await the_item(lab, library)).action == SyncAction.CONFLICT
    await pushed(lab, library, ours=(TONE,))
    assert await numbers(lab) == ["1.0.0", "1.0.2"]


async def test_a_bad_file_is_named_with_its_line_and_the_others_are_pushed(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    write(prompts, "---\nmodle: x\n---\nGreet.\n", name="greeting")
    report = await pushed(lab, library)
    (problem,) = report.plan.of(SyncAction.PROBLEM)
    assert problem.label == "system/greeting"
    assert problem.reason.startswith("system/greeting.md:2: unknown key 'modle'")
    assert not report.plan.in_step
    assert await numbers(lab) == ["1.0.0"]
    assert await numbers(lab, "greeting") == []


async def test_pull_never_replaces_a_file_that_it_cannot_read(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    write(prompts, "---\nmodle: x\n---\nHours of work.\n")
    report = await pulled(lab, library)
    assert [item.action for item in report.plan.items] == [SyncAction.PROBLEM]
    assert "Hours of work." in read(prompts)


async def test_pull_writes_no_second_file_beside_an_unreadable_one_that_differs_in_case(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    write(prompts, "---\nmodle: x\n---\n", name="TONE")
    assert {item.action for item in (await plan_sync(lab, library)).items} == {SyncAction.PROBLEM}


async def test_prompts_of_a_folder_that_cannot_be_looked_into_are_problems(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path, tmp_path: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    await lab.versions.create_version("tone", "system", "Be formal.")
    (prompts / "system").rename(tmp_path / "elsewhere")
    (prompts / "system").symlink_to(tmp_path / "elsewhere")
    report = await pulled(lab, library)
    assert [item.action for item in report.plan.items] == [SyncAction.PROBLEM]
    assert len(report.plan.problems) == 1
    assert (tmp_path / "elsewhere" / "tone.md").read_text() == "Be kind."


async def test_pull_leaves_a_file_alone_that_was_edited_after_the_plan(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    await lab.versions.create_version("tone", "system", "Be formal.")
    plan = await plan_sync(lab, library)
    write(prompts, "Be brief.")
    report = await pull(lab, library, plan)
    assert [outcome.done for outcome in report.outcomes] == [False]
    assert "edited meanwhile" in report.outcomes[0].detail
    assert read(prompts) == "Be brief."


async def test_push_leaves_a_prompt_alone_that_got_a_version_after_the_plan(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    await pushed(lab, library)
    write(prompts, "Be brief.")
    plan = await plan_sync(lab, library)
    await lab.versions.create_version("tone", "system", "Be formal.")
    report = await push(lab, library, plan)
    assert [outcome.done for outcome in report.outcomes] == [False]
    assert await numbers(lab) == ["1.0.0", "1.0.1"]
    assert (await the_item(lab, library)).action == SyncAction.CONFLICT


async def test_pull_writes_every_type_of_prompt_so_that_it_is_in_step(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    await lab.versions.create_version("text", "user", "Hi {{ name }}!\r\n\n", validation=schema)
    await lab.versions.create_version("chat", "message", [{"role": "user", "content": "Hi."}])
    await lab.versions.create_version("one_text", "message", "Hi.")
    await lab.versions.create_version(
        "fast", "model", config={"model": "m", "parameters": {"temperature": 1.0}}
    )
    await lab.versions.create_version("unset", "model")
    await lab.versions.create_version("top_k", "config", config={"top_k": [1, 2.5, None, "x"]})
    report = await pulled(lab, library)
    assert len(report.outcomes) == 6
    assert not report.failed
    assert (await plan_sync(lab, library)).in_step


async def test_a_version_that_gets_no_file_is_named_and_stops_no_other(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.versions.create_version("Tone", "system", "Be Kind.")
    report = await pulled(lab, library)
    assert {outcome.name: outcome.done for outcome in report.outcomes} == {"Tone": True, "tone": False}
    assert "upper and lower case" in report.failed[0].detail


async def test_a_broken_lock_is_named_with_its_line(
    lab: Lab, library: FileSystemPromptLibrary, prompts: Path
) -> None:
    write(prompts, "Be kind.")
    library.lock_path.write_text("promptab-lock 1\nsystem/tone\n")
    with pytest.raises(PromptFileError, match=r"promptab\.lock:2: expected"):
        await plan_sync(lab, library)
    assert await numbers(lab) == []


async def test_every_prompt_of_this_project_is_pushed_and_then_in_step(lab: Lab, tmp_path: Path) -> None:
    library = FileSystemPromptLibrary(Path(__file__).parents[1] / "prompts")
    away = FileSystemPromptLibrary(tmp_path / "copy")
    away.prompt_dir.mkdir()
    for _, source in library.load().prompts.values():
        away.write(source)
    report = await pushed(lab, away)
    assert not report.failed
    assert len(report.outcomes) == len(library.load().prompts) > 0
    assert (await plan_sync(lab, away)).in_step
