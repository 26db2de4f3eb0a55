"""`lab.replay`: dealing recorded units anew, with the analysis that the experiment has."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from promptab import InvalidInputError, Lab, NotFoundError, PromptVariant, StateError
from promptab.analysis.replaying import replay_analysis
from promptab.analysis.result import Method
from promptab.models import ExperimentStatus, PromptExperiment
from promptab.stats.fixed import t_p_value
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.proportion import wilson_interval
from promptab.stats.ratio import ratio_contrast
from promptab.stats.replay import Replay, replay_false_positives
from tests.test_analysis import experiment_of

A, B = "1.0.0", "1.1.0"
UNITS = [(float(n), float(s)) for n, s in zip([3] * 400, [0, 1, 2, 3] * 100, strict=True)]


async def served(lab: Lab, units: int) -> None:
    """Start an experiment in which B never succeeds, and A does two times in three."""
    for version in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {version}.", version)
    await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant(A), PromptVariant(B)], salt="s"
    )
    for number in range(units):
        choice = await lab.choose("greeting", user_id=f"u{number}")
        success = choice.variant == A and number % 3 > 0
        await choice.record(success=success, response_time=0.5 + number % 7 / 10)


async def test_replay_deals_the_control_alone_so_that_a_real_effect_is_no_noise(lab: Lab) -> None:
    await served(lab, 200)
    dealt = await lab.experiments.get_variant_distribution("greeting")
    found = await lab.replay("greeting", runs=200)
    assert (found.variant, found.units, found.runs) == (A, dealt[A], 200)
    assert (found.metric, found.method, found.confidence) == ("success_rate", "fixed", 0.95)
    assert found.share == found.false_positives / 200
    assert found.low <= 0.05 + 1e-9
    assert found.low <= found.share <= found.high
    assert f"The {dealt[A]} units of 1.0.0 were dealt anew 200 times" in found.sentence
    assert found.sentence.endswith("in keeping with the 5 % that it allows.")


async def test_replay_is_the_same_with_the_same_seed(lab: Lab) -> None:
    await served(lab, 200)
    first, second = await asyncio.gather(*(lab.replay("greeting", runs=150, seed=4) for _ in range(2)))
    other = await lab.replay("greeting", runs=150, seed=4, confidence=0.6)
    assert first == second
    assert other.false_positives > first.false_positives


async def test_replay_takes_the_metric_that_is_named(lab: Lab) -> None:
    await served(lab, 200)
    found = await lab.replay("greeting", metric="response_time", runs=50)
    assert found.metric == "response_time"
    errors = await lab.replay("greeting", metric="error_rate", runs=50, seed=1)
    successes = await lab.replay("greeting", runs=50, seed=1)
    assert errors.false_positives == successes.false_positives


async def test_replay_refuses_too_few_units_and_what_it_cannot_deal(lab: Lab) -> None:
    await served(lab, 20)
    with pytest.raises(StateError, match="at least 60"):
        await lab.replay("greeting")
    with pytest.raises(NotFoundError):
        await lab.replay("nobody")
    refused: list[dict[str, Any]] = [{"runs": 0}, {"seed": -1}, {"confidence": 1.0}, {"method": "guess"}]
    for wrong in [*refused, {"metric": "no such"}]:
        with pytest.raises(InvalidInputError):
            await lab.replay("greeting", **wrong)
    with pytest.raises(InvalidInputError, match="quantile"):
        await lab.replay("greeting", metric="p95_response_time")


def test_bayesian_analysis_is_counted_and_promises_nothing() -> None:
    found = replay_analysis(
        running(),
        BUILT_IN_METRICS["success_rate"],
        UNITS,
        method="bayesian",
        confidence=0.95,
        runs=50,
        seed=2,
    )
    assert found.share == found.false_positives / 50
    assert found.sentence.endswith("for which a Bayesian analysis promises nothing.")


@pytest.mark.parametrize("method", ["sequential", "fixed"])
def test_method_errs_no_more_than_it_allows_at_one_look(method: Method) -> None:
    found = replay_analysis(
        running(), BUILT_IN_METRICS["success_rate"], UNITS, method=method, confidence=0.95, runs=300, seed=2
    )
    assert found.low <= 0.05
    if method == "sequential":
        fixed = replay_analysis(
            running(),
            BUILT_IN_METRICS["success_rate"],
            UNITS,
            method="fixed",
            confidence=0.95,
            runs=300,
            seed=2,
        )
        assert found.false_positives < fixed.false_positives
        assert "over all looks together" in found.sentence


@pytest.mark.parametrize(
    ("false_positives", "said"),
    [
        (50, "in keeping with the 5 % that it allows."),
        (90, "more than the 5 % that it allows: its p-values are too small on these units."),
        (10, "fewer than the 5 % that it allows: it is cautious on these units."),
    ],
)
def test_sentence_holds_the_share_against_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, false_positives: int, said: str
) -> None:
    def dealt(*_: Any, runs: int, **__: Any) -> Replay:
        interval = wilson_interval(false_positives, runs)
        assert interval is not None
        return Replay(runs, false_positives, false_positives / runs, *interval)

    monkeypatch.setattr("promptab.analysis.replaying.replay_false_positives", dealt)
    found = replay_analysis(
        running(),
        BUILT_IN_METRICS["success_rate"],
        UNITS,
        method="fixed",
        confidence=0.95,
        runs=1_000,
        seed=2,
    )
    assert found.sentence.endswith(said)


def test_replay_counts_what_the_analysis_calls_different() -> None:
    """Welch's test by hand on the same dealings, which the fixed analysis of a mean is."""
    generator = np.random.default_rng(1)
    units = [(1.0, float(value)) for value in generator.lognormal(0, 1.0, 300)]
    found = replay_analysis(
        running(), BUILT_IN_METRICS["response_time"], units, method="fixed", confidence=0.9, runs=200, seed=9
    )

    def welch(treatment: Any, control: Any) -> bool:
        contrast = ratio_contrast({1: treatment}, {1: control})
        assert contrast.value is not None
        assert contrast.se is not None
        assert contrast.df is not None
        return t_p_value(contrast.value, contrast.se, contrast.df) <= 0.1

    n, s = np.array(units).T
    expected = replay_false_positives(n, s, test=welch, runs=200, seed=9)
    assert found.false_positives == expected.false_positives > 0


def running() -> PromptExperiment:
    return experiment_of(A, B).model_copy(update={"status": ExperimentStatus.RUNNING})
