"""Production that is moved by hand is told of, once, in the transaction that moves it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from promptab import Alert, ConflictError, Lab, PromptVariant, PromptVersion, StateError, VersionStatus
from tests.conftest import url_of
from tests.rollouts import BETTER, CANDIDATE, staged

ROLLED_BACK = "Rolled back by hand by bo: production is 1.0.0 again, it was 1.0.1. it swears"


@pytest.fixture(params=["file", "memory", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


async def versions_of(lab: Lab, count: int = 3) -> list[PromptVersion]:
    return [await lab.versions.create_version("reply", "system", f"Hello {n}.") for n in range(count)]


async def told(lab: Lab, about: str | None = None) -> list[Alert]:
    """Return what was told of moves, the oldest first."""
    found = [each.alert for each in await lab.alerts.list_alerts(about)]
    return [alert for alert in reversed(found) if alert.kind == "moved"]


async def test_a_promotion_and_a_rollback_by_hand_are_told_with_who_and_why(lab: Lab) -> None:
    first, second, _ = await versions_of(lab)
    assert await told(lab) == []
    await lab.versions.promote(first.version_id)
    await lab.versions.promote(second.version_id, reason="the spring campaign", actor="ada")
    experiment = await lab.experiments.create_experiment(
        "reply", "system", [PromptVariant(first.version), PromptVariant(second.version)]
    )
    await lab.versions.rollback("reply", "system", reason="it swears", actor="bo")
    alerts = await told(lab, "system/reply")
    assert [(alert.severity, alert.subject, alert.sentence) for alert in alerts] == [
        (
            "info",
            first.version_id,
            "Promoted by hand: production is 1.0.0 now, nothing was live before",
        ),
        (
            "info",
            second.version_id,
            "Promoted by hand by ada: production is 1.0.1 now, it was 1.0.0. the spring campaign",
        ),
        (
            "warning",
            first.version_id,
            f"{ROLLED_BACK}. Paused, as they serve 1.0.1: {experiment.name}",
        ),
    ]
    history = await lab.versions.deployments("reply", "system")
    assert [alert.numbers["deployment"] for alert in alerts] == [move.sequence for move in history]
    assert [alert.at for alert in alerts] == [move.at for move in history]


async def test_every_way_to_move_production_is_told_and_no_move_of_staging(lab: Lab) -> None:
    first, second, third = await versions_of(lab)
    await lab.versions.promote(first.version_id, "staging")
    await lab.versions.tag_version(first.version_id, "production")
    await lab.versions.update_status(second.version_id, VersionStatus.PRODUCTION)
    await lab.versions.untag_version(second.version_id, "production")
    await lab.versions.promote(third.version_id)
    await lab.versions.update_status(third.version_id, VersionStatus.DEPRECATED)
    sentences = [alert.sentence for alert in await told(lab)]
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "Promoted by hand",
        "Promoted by hand",
        "Withdrawn by hand",
        "Promoted by hand",
        "Withdrawn by hand",
    ]
    assert "nothing is live in production, it was 1.0.2. status set to deprecated" in sentences[-1]


async def test_what_moves_nothing_is_not_told(lab: Lab) -> None:
    first, second, _ = await versions_of(lab)
    await lab.versions.promote(first.version_id)
    await lab.versions.promote(first.version_id)
    with pytest.raises(ConflictError):
        await lab.versions.promote(second.version_id, expected=second.version_id)
    with pytest.raises(StateError):
        await lab.versions.rollback("reply", "system")
    assert await lab.versions.rollback("reply", "system", expected=second.version_id) is None
    assert len(await told(lab)) == 1


async def test_of_promotions_at_once_those_that_moved_it_are_told(lab: Lab) -> None:
    versions = await versions_of(lab)
    moves = (lab.versions.promote(version.version_id) for version in versions)
    await asyncio.gather(*moves, return_exceptions=True)
    history = await lab.versions.deployments("reply", "system")
    assert [alert.subject for alert in await told(lab)] == [move.version_id for move in history]


async def test_a_winner_that_is_promoted_by_hand_is_told_and_reaches_a_channel(lab: Lab) -> None:
    heard: list[Alert] = []
    lab.on_alert(heard.append, kinds=["moved"])
    scene = await staged(lab)
    await scene.record(BETTER)
    await lab.deliver_alerts()
    heard.clear()
    await lab.promote_winner(scene.experiment.experiment_id, allow_approximate=True, actor="ada")
    await lab.deliver_alerts()
    (alert,) = heard
    assert alert.subject == scene.versions[CANDIDATE].version_id
    assert alert.sentence.startswith(f"Promoted by hand by ada: production is {CANDIDATE} now")


async def test_what_a_decision_moves_is_told_as_a_decision_alone(lab: Lab) -> None:
    scene = await staged(lab)
    before = len(await told(lab))
    await lab.override(scene.experiment.experiment_id, "promote", reason="ada says so")
    assert await scene.live() == CANDIDATE
    assert len(await told(lab)) == before
    applied = [each.alert.kind for each in await lab.alerts.list_alerts(scene.experiment.experiment_id)]
    assert applied == ["applied"]
