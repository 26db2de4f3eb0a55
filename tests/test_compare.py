"""Analysing an experiment in a store: which units and events count, and what is concluded."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from promptab import AnalysisPlan, AnalysisResult, Lab, NotFoundError, PromptExperiment, PromptVariant
from promptab.analysis.result import VariantEstimate
from promptab.stats.fixed import t_interval
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
FEW = AnalysisPlan(minimum_units=10)


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


@pytest.fixture
async def experiment(lab: Lab) -> PromptExperiment:
    await lab.versions.create_version("greeting", "system", "Hello.", A)
    await lab.versions.create_version("greeting", "system", "Hi.", B)
    return await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant(A), PromptVariant(B)], salt="s", plan=FEW
    )


def estimate(comparison: AnalysisResult, variant: str, metric: str = "success_rate") -> VariantEstimate:
    return comparison.metrics[metric].estimates[variant]


async def serve(
    lab: Lab, units: range, rates: dict[str, float], events: int = 4
) -> dict[str, list[list[bool]]]:
    """Let every unit have so many events, the first of each ten units failing as the rate of its variant says."""
    told: dict[str, list[list[bool]]] = {A: [], B: []}
    for number in units:
        choice = await lab.choose("greeting", user_id=f"u{number}")
        assert choice.variant is not None
        turn = len(told[choice.variant])
        outcomes = [(turn * events + attempt) % 10 < 10 * rates[choice.variant] for attempt in range(events)]
        for outcome in outcomes:
            await choice.record(success=outcome)
        told[choice.variant].append(outcomes)
    return told


async def test_compare_gives_estimates_and_the_interval_over_units(
    lab: Lab, experiment: PromptExperiment
) -> None:
    told = await serve(lab, range(90), {A: 0.3, B: 0.8})  # enough for a t interval
    compared = await lab.compare(experiment.experiment_id)
    sums = {
        key: {1: UnitSums.of((len(outcomes), sum(outcomes)) for outcomes in units)}
        for key, units in told.items()
    }
    expected = ratio_contrast(sums[B], sums[A])
    difference = compared.metrics["success_rate"].differences[B]
    assert expected.value is not None
    assert expected.se is not None
    assert expected.df is not None
    assert difference.value == pytest.approx(expected.value)
    assert difference.low == pytest.approx(t_interval(expected.value, expected.se, expected.df).low)
    for key, units in told.items():
        successes = sum(sum(outcomes) for outcomes in units)
        assert estimate(compared, key).value == pytest.approx(successes / (4 * len(units)))
        assert (estimate(compared, key).units, estimate(compared, key).events) == (len(units), 4 * len(units))
    assert compared.units == {key: len(units) for key, units in told.items()}


@pytest.mark.parametrize(
    ("rates", "winner"), [({A: 0.2, B: 0.9}, B), ({A: 0.5, B: 0.5}, None), ({A: 0.9, B: 0.2}, None)]
)
async def test_a_winner_is_named_only_when_its_interval_excludes_zero(
    lab: Lab, experiment: PromptExperiment, rates: dict[str, float], winner: str | None
) -> None:
    await serve(lab, range(50), rates)
    compared = await lab.compare("greeting")
    assert (compared.experiment_id, compared.winner) == (experiment.experiment_id, winner)
    difference = compared.metrics["success_rate"].differences[B]
    assert difference.low is not None
    assert difference.high is not None
    excludes_zero = difference.low > 0 or difference.high < 0
    assert excludes_zero == (rates[A] != rates[B])
    assert difference.sentence in compared.reason


async def test_an_experiment_on_errors_is_led_by_the_variant_with_fewer_of_them(lab: Lab) -> None:
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {number}.", number)
    arms = [PromptVariant(A), PromptVariant(B)]
    await lab.experiments.create_experiment(
        "greeting", "system", arms, salt="s", primary_metric="error_rate", plan=FEW
    )
    await serve(lab, range(60), {A: 0.3, B: 0.8})
    compared = await lab.compare("greeting")
    assert compared.winner == B
    errors, successes = compared.metrics["error_rate"], compared.metrics["success_rate"]
    assert errors.differences[B].value == pytest.approx(-(successes.differences[B].value or 0.0))


async def test_no_data_names_no_winner(lab: Lab, experiment: PromptExperiment) -> None:
    compared = await lab.compare(experiment.experiment_id)
    assert (compared.winner, compared.units) == (None, {A: 0, B: 0})
    assert compared.reason.startswith("Not enough units yet")
    assert list(compared.metrics) == ["success_rate"]


async def test_a_higher_confidence_gives_a_wider_interval(lab: Lab, experiment: PromptExperiment) -> None:
    await serve(lab, range(40), {A: 0.3, B: 0.8})
    widths = []
    for confidence in (0.8, 0.95, 0.999):
        compared = await lab.metrics.compare(experiment.name, confidence=confidence)
        difference = compared.metrics["success_rate"].differences[B]
        assert difference.low is not None
        assert difference.high is not None
        widths.append(difference.high - difference.low)
    assert widths == sorted(set(widths))


async def test_units_shown_a_variant_by_hand_are_left_out(lab: Lab, experiment: PromptExperiment) -> None:
    await serve(lab, range(20), {A: 0.3, B: 0.8})
    before = await lab.compare("greeting")
    await lab.experiments.set_override("greeting", "boss", B)
    choice = await lab.choose("greeting", user_id="boss")
    assert (choice.variant, choice.source) == (B, "override")
    await choice.record(success=True)
    after = await lab.compare("greeting")
    assert (after.metrics, after.units) == (before.metrics, before.units)
    assert (await lab.experiments.get_variant_distribution(experiment.name))[B] == before.units[B] + 1


async def test_a_unit_is_left_out_also_when_it_is_overridden_after_its_first_exposure(
    lab: Lab, experiment: PromptExperiment
) -> None:
    await serve(lab, range(20), {A: 0.3, B: 0.8})
    before = await lab.compare("greeting")
    first = await lab.choose("greeting", user_id="boss")
    await first.record(success=True)
    assert first.variant is not None
    await lab.experiments.set_override(experiment.experiment_id, "boss", first.variant)
    await (await lab.choose("greeting", user_id="boss")).record(success=True)
    after = await lab.compare("greeting")
    assert (after.metrics, after.units) == (before.metrics, before.units)


async def test_an_event_that_contradicts_the_exposure_is_kept_and_flagged_and_left_out(
    lab: Lab, experiment: PromptExperiment
) -> None:
    await serve(lab, range(20), {A: 0.3, B: 0.8})
    before = await lab.compare("greeting")
    served = await lab.experiments.get_user_assignment("greeting", "u0")
    version = await lab.versions.get_version("greeting", "system", A if served == B else B)
    assert version is not None
    await lab.metrics.record_event(
        version.version_id, True, experiment_id="greeting", variant=version.version, user_id="u0"
    )
    assert (await lab.compare(experiment.experiment_id)).metrics == before.metrics
    newest = (await lab.metrics.get_events(version.version_id, limit=1))[0]
    assert newest.flagged is True


async def test_a_reported_event_without_an_exposure_makes_one(lab: Lab, experiment: PromptExperiment) -> None:
    version_id = str(uuid.uuid4())
    for number in range(4):
        await lab.metrics.record_event(
            version_id, True, experiment_id=experiment.experiment_id, variant=B, user_id=number
        )
    assert await lab.experiments.get_variant_distribution("greeting") == {A: 0, B: 4}
    assert await lab.experiments.get_user_assignment("greeting", 3) == B
    compared = await lab.compare("greeting")
    assert (compared.units, estimate(compared, B).value) == ({A: 0, B: 4}, 1.0)


async def test_a_session_and_its_user_are_one_unit_with_the_events_of_both(
    lab: Lab, experiment: PromptExperiment
) -> None:
    anonymous = await lab.choose("greeting", session_id="s1")
    await anonymous.record(success=True)
    await lab.experiments.alias("s1", "ada")
    known = await lab.choose("greeting", user_id="ada")
    await known.record(success=False)
    await lab.metrics.record_result("greeting", "success", 1, session_id="s1")
    assert known.variant == anonymous.variant
    assert known.variant is not None
    compared = await lab.compare(experiment.experiment_id)
    found = estimate(compared, known.variant)
    assert (found.units, found.events) == (1, 3)
    assert found.value == pytest.approx(2 / 3)
    assert sum(compared.units.values()) == 1


async def test_events_of_a_session_that_was_shown_another_variant_than_its_user_count_for_neither(
    lab: Lab, experiment: PromptExperiment
) -> None:
    own = await lab.choose("greeting", user_id="ada")
    await own.record(success=True)
    before = await lab.compare(experiment.experiment_id)
    sessions = [await lab.choose("greeting", session_id=f"s{number}") for number in range(10)]
    other, number = next(
        (choice, number) for number, choice in enumerate(sessions) if choice.variant != own.variant
    )
    await other.record(success=False)
    await lab.experiments.alias(f"s{number}", "ada")
    assert (await lab.compare("greeting")).metrics == before.metrics


async def test_a_unit_counts_in_the_epoch_of_its_first_exposure(
    lab: Lab, experiment: PromptExperiment, clock: SettableClock
) -> None:
    first = await serve(lab, range(30), {A: 0.3, B: 0.6})
    await lab.experiments.update_weights("greeting", {A: 0.25, B: 0.75})
    clock.advance(seconds=1)
    later = await serve(lab, range(50), {A: 0.2, B: 0.9})
    units = {key: {1: first[key], 2: []} for key in (A, B)}
    dealt_first = {key: len(first[key]) for key in (A, B)}
    for key in (A, B):
        # the first thirty units come first again: their events belong to their own epoch
        units[key][1] = [
            early + late for early, late in zip(first[key], later[key][: dealt_first[key]], strict=True)
        ]
        units[key][2] = later[key][dealt_first[key] :]
    sums = {
        key: {
            epoch: UnitSums.of((len(outcomes), sum(outcomes)) for outcomes in told)
            for epoch, told in epochs.items()
        }
        for key, epochs in units.items()
    }
    expected = ratio_contrast(sums[B], sums[A])
    found = (await lab.compare(experiment.experiment_id)).metrics["success_rate"].differences[B]
    assert expected.epochs
    assert expected.value is not None
    assert expected.se is not None
    assert found.value == pytest.approx(expected.value)
    assert found.se == pytest.approx(expected.se)


async def test_compare_shows_the_primary_metric_first(lab: Lab) -> None:
    created = await lab.experiments.create_experiment(
        "answers",
        "config",
        [PromptVariant(key=key, config={"model": key}) for key in ("small", "large")],
        primary_metric="resolved",
        control="large",
    )
    for number in range(8):
        choice = await lab.choose("answers", "config", user_id=number)
        resolved: dict[str, Any] = {"resolved": float(number % 3), "zeal": 1.0}
        await choice.record(success=True, cost=0.1, metrics=resolved)
    compared = await lab.compare(created.experiment_id)
    assert list(compared.metrics) == ["resolved", "success_rate", "cost", "zeal"]
    assert (compared.control, compared.primary_metric) == ("large", "resolved")
    assert list(compared.metrics["resolved"].differences) == ["small"]


async def test_compare_survives_the_end_of_the_experiment(lab: Lab, experiment: PromptExperiment) -> None:
    await serve(lab, range(20), {A: 0.3, B: 0.8})
    before = await lab.compare("greeting")
    await lab.experiments.complete(experiment.experiment_id, winner=B)
    assert await lab.compare("greeting") == before


async def test_compare_of_an_unknown_experiment_or_metric_is_refused(
    lab: Lab, experiment: PromptExperiment
) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        await lab.compare("nothing")
    with pytest.raises(NotFoundError, match="analysed are success_rate"):
        (await lab.compare(experiment.name)).better("revenue")
