"""What is live where: promotion, rollback, withdrawal, and the history of all three."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timedelta

import pytest

from promptab import (
    ConflictError,
    Deployment,
    InvalidInputError,
    Lab,
    NotFoundError,
    PromptVariant,
    PromptVersion,
    StateError,
    VersionManager,
    VersionStatus,
)
from tests.clock import SettableClock


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


@pytest.fixture
async def abc(versions: VersionManager) -> list[PromptVersion]:
    """Three active versions of one prompt: 1.0.0, 2.0.0 and 3.0.0."""
    return [
        await versions.create_version("greeting", "system", f"Text {number}.", number)
        for number in ("1.0.0", "2.0.0", "3.0.0")
    ]


async def state(versions: VersionManager) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Status and tags by version number."""
    return {
        version.version: (version.status.value, version.tags)
        for version in await versions.get_version_history("greeting", "system")
    }


async def live(versions: VersionManager, environment: str = "production") -> str | None:
    found = await versions.get_version("greeting", "system", environment)
    return None if found is None else found.version


def moves(history: list[Deployment]) -> list[tuple[str, str | None, str | None]]:
    return [(move.action, move.previous_version, move.version) for move in history]


@pytest.mark.parametrize("by", ["tag", "status", "promote"])
async def test_tag_status_and_promote_are_one_pointer(
    versions: VersionManager, abc: list[PromptVersion], by: str
) -> None:
    first, second, _ = abc
    for version in (first, second):
        match by:
            case "tag":
                await versions.tag_version(version.version_id, "production")
            case "status":
                await versions.update_status(version.version_id, VersionStatus.PRODUCTION)
            case _:
                await versions.promote(version.version_id)
    assert await state(versions) == {
        "1.0.0": ("active", ()),
        "2.0.0": ("production", ("production",)),
        "3.0.0": ("active", ()),
    }
    assert moves(await versions.deployments("greeting", "system")) == [
        ("promote", None, "1.0.0"),
        ("promote", "1.0.0", "2.0.0"),
    ]


@pytest.mark.parametrize("by", ["untag", "active", "deprecated"])
async def test_leaving_production_withdraws_the_version(
    versions: VersionManager, abc: list[PromptVersion], by: str
) -> None:
    version_id = abc[0].version_id
    await versions.promote(version_id)
    if by == "untag":
        left = await versions.untag_version(version_id, "production")
    else:
        left = await versions.update_status(version_id, by)
    assert (left.status.value, left.tags) == ("active" if by == "untag" else by, ())
    assert moves(await versions.deployments("greeting", "system"))[-1] == ("withdraw", "1.0.0", None)
    assert await live(versions) is None


@pytest.mark.parametrize("how", ["status", "tag"])
async def test_create_may_put_the_new_version_into_production(
    versions: VersionManager, abc: list[PromptVersion], how: str
) -> None:
    await versions.promote(abc[0].version_id)
    if how == "status":
        created = await versions.create_version("greeting", "system", "New.", status="production")
    else:
        created = await versions.create_version("greeting", "system", "New.", tags=["production"])
    assert (created.status, created.tags) == (VersionStatus.PRODUCTION, ("production",))
    assert (await state(versions))["1.0.0"] == ("active", ())


async def test_a_draft_becomes_active_when_its_time_in_production_is_over(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    draft = await versions.create_version("greeting", "system", "New.", status="draft")
    await versions.promote(draft.version_id)
    await versions.promote(abc[0].version_id)
    assert (await state(versions))[draft.version] == ("active", ())


async def test_staging_is_a_pointer_apart_from_production(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    await versions.promote(abc[0].version_id)
    await versions.promote(abc[1].version_id, "staging")
    await versions.promote(abc[2].version_id, "staging")
    assert (await live(versions), await live(versions, "staging")) == ("1.0.0", "3.0.0")
    await versions.rollback("greeting", "system", "staging")
    assert await state(versions) == {
        "1.0.0": ("production", ("production",)),
        "2.0.0": ("active", ("staging",)),
        "3.0.0": ("active", ()),
    }
    everything = await versions.deployments("greeting", "system", None)
    assert [move.environment for move in everything] == ["production", "staging", "staging", "staging"]


async def test_one_version_may_be_live_in_both_environments(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    for environment in ("staging", "production"):
        await versions.promote(abc[0].version_id, environment)
    assert (await state(versions))["1.0.0"] == ("production", ("production", "staging"))


async def test_promote_of_what_is_live_changes_nothing(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    first = await versions.promote(abc[0].version_id, reason="first")
    again = await versions.promote(abc[0].version_id, reason="again")
    assert again == first
    assert await versions.deployments("greeting", "system") == [first]


async def test_history_keeps_reason_actor_and_evidence(
    versions: VersionManager, abc: list[PromptVersion], clock: SettableClock
) -> None:
    clock.advance(days=2)
    move = await versions.promote(
        abc[0].version_id, reason="better\nby far", actor="Ada", evidence={"p_value": 0.01}
    )
    await versions.promote(abc[1].version_id)
    back = await versions.rollback(
        "greeting", "system", reason="complaints", actor="Bob", evidence={"tickets": 3}
    )
    history = await versions.deployments("greeting", "system")
    assert (history[0], history[2]) == (move, back)
    assert (move.reason, move.actor, move.evidence, move.at) == (
        "better\nby far",
        "Ada",
        {"p_value": 0.01},
        clock.now,
    )
    assert back is not None
    assert (back.reason, back.actor, back.evidence) == ("complaints", "Bob", {"tickets": 3})
    assert [entry.sequence for entry in history] == sorted({entry.sequence for entry in history})


async def test_rollback_deprecates_what_it_leaves(versions: VersionManager, abc: list[PromptVersion]) -> None:
    await versions.promote(abc[0].version_id)
    await versions.promote(abc[1].version_id)
    move = await versions.rollback("greeting", "system")
    assert move is not None
    assert (move.action, move.previous_version, move.version) == ("rollback", "2.0.0", "1.0.0")
    assert await state(versions) == {
        "1.0.0": ("production", ("production",)),
        "2.0.0": ("deprecated", ()),
        "3.0.0": ("active", ()),
    }


async def test_rollback_walks_back_and_stops_at_the_first(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    for version in abc:
        await versions.promote(version.version_id)
    walked = []
    for _ in range(2):
        await versions.rollback("greeting", "system")
        walked.append(await live(versions))
    assert walked == ["2.0.0", "1.0.0"]
    with pytest.raises(StateError, match="nothing that was live before"):
        await versions.rollback("greeting", "system")
    assert await live(versions) == "1.0.0"


async def test_rollback_returns_to_what_was_deployed_and_not_to_the_parent(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    first, second, third = abc
    assert third.parent_version == second.version_id
    await versions.promote(first.version_id)
    await versions.promote(third.version_id)
    await versions.rollback("greeting", "system")
    assert await live(versions) == "1.0.0"


async def test_rollback_never_returns_to_a_version_that_a_rollback_left(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    first, bad, third = abc
    await versions.promote(first.version_id)
    await versions.promote(bad.version_id)
    await versions.rollback("greeting", "system")
    await versions.promote(third.version_id)
    await versions.rollback("greeting", "system")
    assert await live(versions) == "1.0.0"


async def test_rollback_returns_to_a_version_left_before_when_it_was_promoted_again(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    first, second, third = abc
    await versions.promote(first.version_id)
    await versions.promote(second.version_id)
    await versions.rollback("greeting", "system")
    await versions.promote(second.version_id, reason="it was not the prompt")
    await versions.promote(third.version_id)
    await versions.rollback("greeting", "system")
    assert await live(versions) == "2.0.0"


@pytest.mark.parametrize("gone", ["deleted", "archived"])
async def test_rollback_passes_over_versions_that_are(
    versions: VersionManager, abc: list[PromptVersion], gone: str
) -> None:
    for version in abc:
        await versions.promote(version.version_id)
    if gone == "deleted":
        await versions.delete_version(abc[1].version_id)
    else:
        await versions.update_status(abc[1].version_id, "archived")
    await versions.rollback("greeting", "system")
    assert await live(versions) == "1.0.0"


async def test_rollback_without_a_history_is_refused(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    assert len(abc) == 3
    with pytest.raises(StateError, match="production of system/greeting is empty"):
        await versions.rollback("greeting", "system")
    assert await versions.deployments("greeting", "system") == []


@pytest.mark.parametrize("named_by", ["id", "number"])
async def test_rollback_with_expected_does_nothing_the_second_time(
    versions: VersionManager, abc: list[PromptVersion], named_by: str
) -> None:
    for version in abc:
        await versions.promote(version.version_id)
    bad = abc[2].version_id if named_by == "id" else "3.0.0"
    assert await versions.rollback("greeting", "system", expected=bad) is not None
    assert await versions.rollback("greeting", "system", expected=bad) is None
    assert await live(versions) == "2.0.0"
    assert len(await versions.deployments("greeting", "system")) == 4


async def test_promote_with_expected_is_refused_when_something_else_is_live(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    first, second, third = abc
    await versions.promote(first.version_id, expected=None)
    with pytest.raises(ConflictError, match=r"production of system/greeting is now 1\.0\.0"):
        await versions.promote(second.version_id, expected=None)
    with pytest.raises(ConflictError):
        await versions.promote(third.version_id, expected=second.version_id)
    await versions.promote(third.version_id, expected="1.0.0")
    assert await live(versions) == "3.0.0"


async def test_promotions_that_race_leave_one_winner_and_one_clear_error(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    await versions.promote(abc[0].version_id)
    answers = await asyncio.gather(
        *(versions.promote(version.version_id, expected="1.0.0") for version in abc[1:]),
        return_exceptions=True,
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["ConflictError", "Deployment"]
    winner = next(answer for answer in answers if isinstance(answer, Deployment))
    assert await live(versions) == winner.version


async def test_archived_is_not_promoted_until_it_is_active_again(
    versions: VersionManager, abc: list[PromptVersion]
) -> None:
    version_id = abc[0].version_id
    await versions.update_status(version_id, "archived")
    for environment in ("production", "staging"):
        with pytest.raises(StateError, match="archived"):
            await versions.promote(version_id, environment)
    await versions.update_status(version_id, "active")
    await versions.promote(version_id)
    assert await live(versions) == "1.0.0"


async def test_rollback_pauses_the_experiments_that_serve_the_version_left(
    lab: Lab, abc: list[PromptVersion]
) -> None:
    for version in abc:
        await lab.versions.promote(version.version_id)
    serving = await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant("1.0.0"), PromptVariant("3.0.0")]
    )
    apart = await lab.experiments.create_experiment(
        "others", "system", [PromptVariant("1.0.0"), PromptVariant("2.0.0")], prompt_name="greeting"
    )
    move = await lab.versions.rollback("greeting", "system")
    assert move is not None
    assert move.evidence == {"paused_experiments": [serving.experiment_id]}
    after = {found.experiment_id: found.status for found in await lab.experiments.list_experiments()}
    assert after == {serving.experiment_id: "paused", apart.experiment_id: "running"}
    assert (await lab.choose("greeting", user_id="u")).version != abc[2]


async def test_deployed_at_answers_what_was_live_when(
    versions: VersionManager, abc: list[PromptVersion], clock: SettableClock
) -> None:
    start = clock.now
    await versions.promote(abc[0].version_id)
    clock.advance(hours=1)
    await versions.promote(abc[1].version_id)
    clock.advance(hours=1)
    await versions.untag_version(abc[1].version_id, "production")

    async def at(time: datetime) -> str | None:
        found = await versions.deployed_at("greeting", "system", time)
        return None if found is None else found.version

    assert await at(start - timedelta(microseconds=1)) is None
    assert await at(start) == "1.0.0"
    assert await at(start + timedelta(hours=1) - timedelta(microseconds=1)) == "1.0.0"
    assert await at(start + timedelta(hours=1)) == "2.0.0"
    assert await at((start + timedelta(hours=1)).replace(tzinfo=None)) == "2.0.0"
    assert await at(start + timedelta(days=9)) is None


async def test_history_outlives_a_deleted_version(
    versions: VersionManager, abc: list[PromptVersion], clock: SettableClock
) -> None:
    await versions.promote(abc[0].version_id)
    clock.advance(hours=1)
    await versions.promote(abc[1].version_id)
    assert await versions.delete_version(abc[0].version_id) is True
    history = await versions.deployments("greeting", "system")
    assert moves(history) == [("promote", None, "1.0.0"), ("promote", "1.0.0", "2.0.0")]
    assert await versions.deployed_at("greeting", "system", history[0].at) is None


async def test_changes_to_an_unknown_version_are_refused(versions: VersionManager) -> None:
    unknown = str(uuid.uuid4())
    for change in (
        versions.promote(unknown),
        versions.tag_version(unknown, "eu"),
        versions.untag_version(unknown, "eu"),
        versions.update_status(unknown, "active"),
        versions.diff(unknown, unknown),
    ):
        with pytest.raises(NotFoundError, match=unknown):
            await change


async def test_an_unknown_environment_is_refused(versions: VersionManager, abc: list[PromptVersion]) -> None:
    with pytest.raises(InvalidInputError, match="environment: 'qa' is not one of production, staging"):
        await versions.promote(abc[0].version_id, "qa")
