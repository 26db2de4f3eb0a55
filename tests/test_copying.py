"""Versions and their history, taken from one store to another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import promptab
from promptab import InvalidInputError, Lab, NotFoundError, PromptVersion, VersionStatus
from promptab.copying import CopiedPrompt, copy_versions
from tests.clock import SettableClock

REPLY = '{% include "system/tone@^1.0" %} Reply to {{ customer }}.'


@pytest.fixture
async def target(tmp_path: Path, clock: SettableClock) -> AsyncIterator[Lab]:
    async with promptab.open(f"sqlite:///{tmp_path / 'target.db'}", clock=clock) as lab:
        yield lab


async def live_and_left(lab: Lab, clock: SettableClock) -> list[PromptVersion]:
    """Three versions, promoted one after the other, the last one rolled back; return them, lowest first."""
    made: list[PromptVersion] = []
    for text in ("Be kind.", "Be brief.", "Be rude."):
        version = await lab.versions.create_version(
            "tone", "system", text, created_by="ada", metadata={"ticket": len(made)}, tags=["support"]
        )
        await lab.versions.promote(version.version_id, reason=f"release {len(made)}", actor="grace")
        made.append(version)
        clock.advance(hours=1)
    await lab.versions.rollback("tone", "system", reason="rude", actor="grace")
    await lab.versions.promote(made[0].version_id, "staging")
    return await lab.versions.get_version_history("tone", "system")


async def all_versions(lab: Lab) -> list[PromptVersion]:
    return sorted(await lab.versions.list_versions(), key=lambda version: version.label)


async def history(lab: Lab, name: str = "tone") -> list[dict[str, object]]:
    moves = await lab.versions.deployments(name, "system", None)
    return [move.model_dump(exclude={"sequence"}) for move in moves]


async def copied(source: Lab, target: Lab) -> dict[str, CopiedPrompt]:
    return {prompt.name: prompt for prompt in (await copy_versions(source, target)).prompts}


async def test_copy_takes_versions_status_tags_and_history_as_they_are(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    originals = await live_and_left(lab, clock)
    report = await copied(lab, target)
    assert await target.versions.get_version_history("tone", "system") == originals
    assert [version.status for version in originals] == ["active", "production", "deprecated"]
    assert await history(target) == await history(lab)
    assert (report["tone"].versions, report["tone"].deployments) == (("1.0.0", "1.0.1", "1.0.2"), 5)
    assert (await target.choose("tone", "system")).render() == "Be brief."
    left = await target.versions.rollback("tone", "system")
    assert left is not None
    assert left.version == "1.0.0"


async def test_a_second_copy_copies_nothing(lab: Lab, target: Lab, clock: SettableClock) -> None:
    await live_and_left(lab, clock)
    await copied(lab, target)
    before = await all_versions(target), await history(target)
    (again,) = (await copied(lab, target)).values()
    assert (again.versions, again.present, again.deployments, again.conflict, again.notes) == (
        (),
        3,
        0,
        None,
        (),
    )
    assert (await all_versions(target), await history(target)) == before


async def test_a_later_copy_takes_what_is_new_since(lab: Lab, target: Lab, clock: SettableClock) -> None:
    await live_and_left(lab, clock)
    await copied(lab, target)
    new = await lab.versions.create_version("tone", "system", "Be formal.")
    await lab.versions.promote(new.version_id)
    await lab.versions.rollback("tone", "system")
    await lab.versions.rollback("tone", "system")
    (again,) = (await copied(lab, target)).values()
    assert (again.versions, again.deployments) == (("1.0.3",), 3)
    assert await all_versions(target) == await all_versions(lab)
    assert await history(target) == await history(lab)


async def test_a_withdrawal_is_copied(lab: Lab, target: Lab, clock: SettableClock) -> None:
    originals = await live_and_left(lab, clock)
    await copied(lab, target)
    await lab.versions.untag_version(originals[1].version_id, "production")
    await copied(lab, target)
    assert await target.versions.get_version("tone", "system", "production") is None
    assert await history(target) == await history(lab)
    assert await all_versions(target) == await all_versions(lab)


async def test_a_number_taken_by_another_content_is_a_conflict_that_changes_nothing(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    await live_and_left(lab, clock)
    await lab.versions.create_version("greeting", "system", "Hello.")
    await target.versions.create_version("tone", "system", "Be loud.", version="1.0.1")
    before = await target.versions.get_version_history("tone", "system")
    report = await copied(lab, target)
    assert report["tone"].conflict is not None
    assert "system/tone@1.0.1" in report["tone"].conflict
    assert await target.versions.get_version_history("tone", "system") == before
    assert await history(target) == []
    assert report["greeting"].versions == ("1.0.0",)


async def test_the_same_content_under_the_same_number_counts_as_the_same_version(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    tone = await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.versions.create_version("reply", "system", REPLY)
    await lab.versions.promote(tone.version_id)
    own = await target.versions.create_version("tone", "system", "Be kind.")
    report = await copied(lab, target)
    assert (report["tone"].versions, report["tone"].present, report["tone"].deployments) == ((), 1, 1)
    reply = await target.versions.get_version("reply", "system")
    assert reply is not None
    assert reply.includes == {"system/tone@^1.0": own.version_id}
    live = await target.versions.get_version("tone", "system", "production")
    assert live is not None
    assert live.version_id == own.version_id
    (move,) = await target.versions.deployments("tone", "system")
    assert move.version_id == own.version_id


async def test_what_is_live_in_a_target_that_moved_on_its_own_stays(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    await live_and_left(lab, clock)
    own = await target.versions.create_version("tone", "system", "Be loud.", version="9.0.0")
    await target.versions.promote(own.version_id)
    report = await copied(lab, target)
    assert report["tone"].notes == ("the target has moved production on its own; what is live there stays",)
    assert report["tone"].versions == ("1.0.0", "1.0.1", "1.0.2")
    live = await target.versions.get_version("tone", "system", "production")
    assert live is not None
    assert live.version == "9.0.0"
    staging = await target.versions.get_version("tone", "system", "staging")
    assert staging is not None
    assert staging.version == "1.0.0"


async def test_a_move_that_the_target_made_after_a_copy_stays(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    originals = await live_and_left(lab, clock)
    await copied(lab, target)
    await target.versions.promote(originals[0].version_id)
    assert (await copied(lab, target))["tone"].notes == ()
    live = await target.versions.get_version("tone", "system", "production")
    assert live is not None
    assert live.version == "1.0.0"


async def test_a_history_with_a_deleted_version_is_copied_whole(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    originals = await live_and_left(lab, clock)
    await lab.versions.delete_version(originals[2].version_id)
    await copied(lab, target)
    assert await history(target) == await history(lab)
    assert await all_versions(target) == await all_versions(lab)


async def test_copying_one_prompt_takes_what_it_includes_along(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    await live_and_left(lab, clock)
    await lab.versions.create_version("reply", "system", REPLY)
    report = await copy_versions(lab, target, name="reply", prompt_type="system")
    (reply,) = report.prompts
    assert (reply.versions, reply.included) == (("1.0.0",), ("system/tone@1.0.1",))
    assert (await target.choose("reply", "system")).render(customer="Ada") == "Be brief. Reply to Ada."
    await copied(lab, target)
    assert await all_versions(target) == await all_versions(lab)
    assert await history(target) == await history(lab)


async def test_an_included_prompt_is_copied_whole_before_those_that_include_it(lab: Lab, target: Lab) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.versions.create_version("reply", "system", REPLY)
    report = await copied(lab, target)
    assert list(report) == ["reply", "tone"]
    assert (report["tone"].versions, report["reply"].included) == (("1.0.0",), ())


async def test_a_conflict_of_an_included_prompt_is_one_of_those_that_include_it(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.versions.create_version("reply", "system", REPLY)
    await target.versions.create_version("tone", "system", "Be loud.")
    report = await copied(lab, target)
    assert report["reply"].conflict is not None
    assert "system/tone@1.0.0" in report["reply"].conflict
    assert await target.versions.get_version("reply", "system") is None


async def test_status_that_the_target_gave_its_versions_stays(
    lab: Lab, target: Lab, clock: SettableClock
) -> None:
    version = await lab.versions.create_version("tone", "system", "Be kind.")
    await copied(lab, target)
    await target.versions.update_status(version.version_id, "archived")
    await copied(lab, target)
    there = await target.versions.get_version_by_id(version.version_id)
    assert there is not None
    assert there.status == VersionStatus.ARCHIVED


async def test_copying_a_prompt_that_is_not_there_is_an_error(lab: Lab, target: Lab) -> None:
    with pytest.raises(NotFoundError, match=r"no prompt '\*/tone'"):
        await copy_versions(lab, target, name="tone")


async def test_copying_an_empty_store_copies_nothing(lab: Lab, target: Lab) -> None:
    assert (await copy_versions(lab, target)).prompts == ()


async def test_copying_a_store_into_itself_is_refused(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="another store than the source"):
        await copy_versions(lab, lab)


async def test_cases_come_along_where_the_target_has_none(lab: Lab, target: Lab) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    cases = await lab.versions.set_cases("tone", "system", [{"expect": {"contains": "kind"}}])
    assert (await copied(lab, target))["tone"].notes == ()
    assert await target.versions.get_cases("tone", "system") == cases
    assert (await copied(lab, target))["tone"].notes == ()
    await lab.versions.set_cases("tone", "system", [{}])
    assert (await copied(lab, target))["tone"].notes == ("the target has other cases; they stay",)
    assert await target.versions.get_cases("tone", "system") == cases
