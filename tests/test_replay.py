"""The closed loop on recorded replies of a real model: rates exact, winners named only where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import promptab
from examples.replay import Replies, read_replies, replay_all, replay_assigned
from promptab.analysis.result import METHODS, Method

RATES = {
    "multiarith": {"1.0.0": 17.667, "1.1.0": 78.667},
    "gsm8k": {"1.0.0": 10.387, "1.1.0": 40.713},
    "commonsenseqa": {"1.0.0": 68.796, "1.1.0": 64.619},
    "addsub": {"1.0.0": 72.152, "1.1.0": 69.620},
}
REPLIES = 7_070
SALTS = [f"salt {number}" for number in range(10)]


@pytest.fixture(scope="session")
def recorded(shared_dir: Path) -> Mapping[str, Replies]:
    return read_replies(shared_dir / "data" / "zero_shot_replies.jsonl.gz")


def test_every_reply_is_read_under_its_version(recorded: Mapping[str, Replies]) -> None:
    assert set(recorded) == set(RATES)
    replies = [replies for of_set in recorded.values() for replies in of_set.values()]
    assert sum(len(of_question) for of_question in replies) == REPLIES
    assert all(set(of_question) == {"1.0.0", "1.1.0"} for of_question in replies)


@pytest.mark.parametrize("question_set", RATES)
async def test_success_rates_are_exact_when_every_reply_is_recorded(
    recorded: Mapping[str, Replies], question_set: str
) -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        result = await replay_all(lab, question_set, recorded[question_set], salt="all")
        for number, percent in RATES[question_set].items():
            version = await lab.versions.get_version(question_set, "user", number)
            assert version is not None
            metrics = await lab.metrics.get_metrics(version.version_id)
            right = sum(replies[number].correct for replies in recorded[question_set].values())
            assert metrics.total_events == len(recorded[question_set])
            assert metrics.success_count == right
            assert round(100 * metrics.success_rate, 3) == percent
            assert result.metrics["success_rate"].estimates[number].value == pytest.approx(
                metrics.success_rate, rel=1e-12
            )


async def test_step_by_step_is_worse_on_commonsenseqa_over_all_replies(
    recorded: Mapping[str, Replies],
) -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        result = await replay_all(lab, "commonsenseqa", recorded["commonsenseqa"], salt="all", method="fixed")
    difference = result.metrics["success_rate"].differences["1.1.0"]
    assert difference.value == pytest.approx(-0.04177, abs=1e-5)
    # each reply is a unit of its own here, so this is the z test with pooled variance
    assert difference.p_value == pytest.approx(0.02853, abs=1e-5)
    assert difference.verdict == "worse"
    assert result.winner is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("question_set", ["multiarith", "gsm8k"])
@pytest.mark.parametrize("salt", SALTS[:3])
async def test_step_by_step_is_promoted_where_it_is_far_better(
    recorded: Mapping[str, Replies], question_set: str, salt: str, method: Method
) -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        result = await replay_assigned(lab, question_set, recorded[question_set], salt=salt, method=method)
        assert result.winner == "1.1.0"
        live = await lab.versions.get_version(question_set, "user", "production")
        assert live is not None
        assert live.version == "1.1.0"
        history = await lab.versions.deployments(question_set, "user")
        assert [move.version for move in history] == ["1.0.0", "1.1.0"]
        assert history[-1].reason == result.reason


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("question_set", ["commonsenseqa", "addsub"])
@pytest.mark.parametrize("salt", SALTS)
async def test_step_by_step_is_never_named_winner_where_it_is_not_better(
    recorded: Mapping[str, Replies], question_set: str, salt: str, method: Method
) -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        result = await replay_assigned(lab, question_set, recorded[question_set], salt=salt, method=method)
        assert result.winner is None
        live = await lab.versions.get_version(question_set, "user", "production")
        assert live is not None
        assert live.version == "1.0.0"


async def test_each_question_is_dealt_to_exactly_one_version(recorded: Mapping[str, Replies]) -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        result = await replay_assigned(lab, "addsub", recorded["addsub"], salt=SALTS[0])
        assert sum(result.units.values()) == len(recorded["addsub"])
        estimates = result.metrics["success_rate"].estimates
        assert sum(estimate.events for estimate in estimates.values()) == len(recorded["addsub"])
        dealt = await lab.experiments.get_experiment_assignments("addsub")
        right = {
            number: sum(
                recorded["addsub"][int(question)][number].correct
                for question, variant in dealt.items()
                if variant == number
            )
            for number in ("1.0.0", "1.1.0")
        }
        for number, estimate in estimates.items():
            assert estimate.value == pytest.approx(right[number] / estimate.events, rel=1e-12)
