"""Files that include one another: the order of a push, re-pinning, and what stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptab import FileSystemPromptLibrary, Lab
from promptab.sync import SyncAction, SyncPlan, SyncReport, check_files, plan_sync, push

REPLY = '{% include "system/tone@^1.0" %} Reply to {{ customer }}.'


@pytest.fixture
def library(tmp_path: Path) -> FileSystemPromptLibrary:
    (tmp_path / "prompts" / "system").mkdir(parents=True)
    return FileSystemPromptLibrary(tmp_path / "prompts")


def write(library: FileSystemPromptLibrary, **texts: str) -> None:
    for name, text in texts.items():
        (library.prompt_dir / "system" / f"{name}.md").write_text(text)


async def pushed(lab: Lab, library: FileSystemPromptLibrary) -> SyncReport:
    return await push(lab, library, await plan_sync(lab, library))


def said(plan: SyncPlan) -> dict[str, tuple[str, str | None]]:
    return {item.name: (item.action.value, item.version) for item in plan.items}


async def test_push_makes_included_prompts_first(lab: Lab, library: FileSystemPromptLibrary) -> None:
    write(library, a_reply=REPLY, tone="Be kind.")
    report = await pushed(lab, library)
    assert [outcome.name for outcome in report.outcomes] == ["tone", "a_reply"]
    assert all(outcome.done for outcome in report.outcomes)
    tone = await lab.versions.get_version("tone", "system")
    reply = await lab.versions.get_version("a_reply", "system")
    assert tone is not None
    assert reply is not None
    assert reply.includes == {"system/tone@^1.0": tone.version_id}


async def test_a_changed_include_re_pins_those_whose_range_takes_it_in(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", reply=REPLY, pinned='{% include "system/tone@1.0.0" %} Greet.')
    await pushed(lab, library)
    write(library, tone="Be very kind.")
    plan = await plan_sync(lab, library)
    assert said(plan) == {
        "tone": ("push", "1.0.1"),
        "reply": ("push", "1.0.1"),
        "pinned": ("in_step", "1.0.0"),
    }
    (item,) = [item for item in plan.items if item.name == "reply"]
    assert item.reason == "re-pinned: system/tone 1.0.0 -> 1.0.1"
    await push(lab, library, plan)
    assert (await plan_sync(lab, library)).in_step
    reply = await lab.versions.get_version("reply", "system")
    assert reply is not None
    assert reply.content_hash == item.content_hash


async def test_an_include_that_leaves_the_range_re_pins_nobody(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", reply=REPLY)
    await pushed(lab, library)
    write(library, tone="Be kind to {{ name }}.")
    assert said(await plan_sync(lab, library)) == {"tone": ("push", "2.0.0"), "reply": ("in_step", "1.0.0")}


async def test_a_draft_of_an_include_re_pins_nobody(lab: Lab, library: FileSystemPromptLibrary) -> None:
    write(library, tone="Be kind.", reply=REPLY)
    await pushed(lab, library)
    write(library, tone="---\npromptab: {status: draft}\n---\nBe very kind.")
    assert said(await plan_sync(lab, library)) == {"tone": ("push", "1.0.1"), "reply": ("in_step", "1.0.0")}


async def test_re_pinning_reaches_through_several_includes(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", style='{% include "system/tone" %} Be brief.')
    write(library, reply='{% include "system/style" %} Reply.')
    await pushed(lab, library)
    write(library, tone="Be very kind.")
    plan = await plan_sync(lab, library)
    assert {name: action for name, (action, _) in said(plan).items()} == dict.fromkeys(
        ("tone", "style", "reply"), "push"
    )
    await push(lab, library, plan)
    assert (await plan_sync(lab, library)).in_step


async def test_re_pinning_alone_is_no_conflict_with_an_edited_file(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", reply=REPLY)
    await pushed(lab, library)
    lock = library.lock_path.read_text()
    write(library, tone="Be very kind.")
    await pushed(lab, library)
    library.lock_path.write_text(lock)  # as in a branch that does not have that push yet
    write(library, reply=f"{REPLY} Thank them.")
    plan = await plan_sync(lab, library)
    assert said(plan) == {"tone": ("relock", "1.0.1"), "reply": ("push", "1.0.2")}


async def test_an_unpinned_text_that_the_store_re_pinned_is_only_locked(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", reply=REPLY)
    await pushed(lab, library)
    lock = library.lock_path.read_text()
    write(library, tone="Be very kind.")
    await pushed(lab, library)
    library.lock_path.write_text(lock)
    assert said(await plan_sync(lab, library)) == {"tone": ("relock", "1.0.1"), "reply": ("relock", "1.0.1")}


async def test_an_include_of_nothing_is_a_problem_that_stops_no_other(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, reply='{% include "system/missing" %} Reply.', tone="Be kind.")
    report = await pushed(lab, library)
    (problem,) = report.plan.of(SyncAction.PROBLEM)
    assert problem.reason.startswith("system/reply.md: cannot include 'system/missing': no active version")
    assert [outcome.name for outcome in report.outcomes] == ["tone"]


async def test_files_that_include_one_another_are_named_and_stop_no_other(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, a='{% include "system/b" %}', b='{% include "system/a" %}', tone="Be kind.")
    report = await pushed(lab, library)
    problems = {item.name: item.reason for item in report.plan.of(SyncAction.PROBLEM)}
    assert set(problems) == {"a", "b"}
    assert all("includes itself: system/" in reason for reason in problems.values())
    assert [outcome.name for outcome in report.outcomes] == ["tone"]


async def test_a_file_that_includes_itself_by_way_of_the_store_is_a_problem(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.versions.create_version("style", "system", '{% include "system/tone" %} Be brief.')
    write(library, tone='{% include "system/style" %} Be kind.')
    plan = await plan_sync(lab, library)
    assert said(plan)["tone"] == ("problem", None)


async def test_what_includes_a_refused_prompt_is_not_pushed(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", reply=REPLY, other="Greet.")
    plan = await plan_sync(lab, library)
    await lab.versions.create_version("tone", "system", "Be formal.")
    report = await push(lab, library, plan)
    assert {outcome.name: outcome.done for outcome in report.outcomes} == {
        "tone": False,
        "reply": False,
        "other": True,
    }
    assert await lab.versions.get_version("reply", "system") is None


async def test_a_check_of_files_alone_follows_includes_through_the_lock(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, tone="Be kind.", reply=REPLY, pinned='{% include "system/tone@1.0.0" %} Greet.')
    await pushed(lab, library)
    assert check_files(library).in_step
    write(library, tone="Be very kind.")
    assert {item.name: item.action for item in check_files(library).items if item.action != "in_step"} == {
        "tone": SyncAction.PUSH
    }
    await pushed(lab, library)
    plan = check_files(library)
    assert plan.in_step
    assert {item.name for item in plan.items if item.notes} == {"pinned"}


async def test_a_check_of_files_alone_names_new_changed_deleted_and_bad_files(
    lab: Lab, library: FileSystemPromptLibrary
) -> None:
    write(library, changed="One.", deleted="Two.", same="Three.")
    await pushed(lab, library)
    write(library, changed="One and a half.", new="Four.", bad="{% if %}")
    (library.prompt_dir / "system" / "deleted.md").unlink()
    plan = check_files(library)
    assert {item.name: item.action.value for item in plan.items} == {
        "changed": "push",
        "deleted": "file_deleted",
        "same": "in_step",
        "new": "push",
        "bad": "problem",
    }
    assert not plan.in_step
