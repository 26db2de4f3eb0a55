"""What `lab.analyze` reads for a metric: its own sums, its own history, and single units wherever they are few."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from promptab import InvalidInputError, Lab, MetricDefinition, gathering
from promptab.analysis.result import AnalysisResult, Method
from promptab.stats.metric import MetricKind
from tests.clock import SettableClock
from tests.test_analyze import FEW, B, Outcome, better_b, experiment_of


async def serve(
    lab: Lab,
    units: Iterable[int],
    outcome: Outcome,
    *,
    times: int = 1,
    attributes: Callable[[int], dict[str, Any]] | None = None,
) -> None:
    """Let each unit come, and record `outcome(variant, unit)` so many times for it."""
    uses = []
    for number in units:
        given = None if attributes is None else attributes(number)
        choice = await lab.choose("greeting", user_id=f"u{number}", attributes=given)
        assert choice.variant is not None
        uses += [choice.record(**outcome(choice.variant, number)) for _ in range(times)]
    await asyncio.gather(*uses)


def everyone(result: AnalysisResult, metric: str) -> float:
    """Return what a metric per unit or per event comes to over both variants together."""
    found = result.metrics[metric].estimates.values()
    counts = [each.events or each.units for each in found]
    return sum((each.value or 0.0) * n for each, n in zip(found, counts, strict=True)) / sum(counts)


ERRORS = [
    MetricDefinition(name="any_error", measure="error_rate", kind="share_of_units", direction="decrease"),
    MetricDefinition(name="errors_per_user", measure="error_rate", kind="mean_per_unit"),
    MetricDefinition(name="errors_per_event", measure="error_rate", kind="mean"),
    MetricDefinition(name="errors_squashed", measure="error_rate", kind="mean", cap=0.5),
    MetricDefinition(
        name="errors_per_success", measure="error_rate", kind="ratio", denominator="success_rate"
    ),
]


async def half_of_the_users_err_once(lab: Lab, plan: Mapping[str, Any], **options: Any) -> None:
    """60 users with 5 events each; every other one has exactly one error."""
    await experiment_of(lab, plan={**FEW, **plan}, **options)
    await serve(lab, range(60), lambda variant, number: {"success": True}, times=4)
    await serve(lab, range(60), lambda variant, number: {"success": number % 2 == 1})


@pytest.mark.parametrize("primary", ["success_rate", "any_error"])
async def test_errors_are_counted_by_the_kind_of_the_metric(lab: Lab, primary: str) -> None:
    await half_of_the_users_err_once(lab, {"metrics": ERRORS}, primary_metric=primary)
    result = await lab.analyze("greeting", "fixed", metrics=[*(each.name for each in ERRORS), "error_rate"])
    truth = {"any_error": 0.5, "errors_per_user": 0.5, "errors_per_event": 0.1, "error_rate": 0.1}
    for name, value in (truth | {"errors_squashed": 0.05}).items():
        assert everyone(result, name) == pytest.approx(value), name
    # its events are the successes
    assert everyone(result, "errors_per_success") == pytest.approx(0.1 / 0.9)


async def test_errors_are_counted_by_the_kind_also_where_they_were_not_declared(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await half_of_the_users_err_once(lab, {})
    asked = [each for each in ERRORS if each.cap is None]
    few = await lab.analyze("greeting", "fixed", metrics=asked)
    assert everyone(few, "any_error") == pytest.approx(0.5)
    assert everyone(few, "errors_per_success") == pytest.approx(0.1 / 0.9)
    monkeypatch.setattr(gathering, "MOST_SINGLE_UNITS", 0)
    many = await lab.analyze("greeting", "fixed", metrics=asked)
    for each in asked:
        assert everyone(many, each.name) == pytest.approx(everyone(few, each.name))


@pytest.mark.parametrize("kind", ["share_of_units", "mean_per_unit"])
async def test_segments_and_series_count_errors_by_the_kind(lab: Lab, kind: MetricKind) -> None:
    errors = MetricDefinition(name="errors", measure="error_rate", kind=kind, direction="decrease")
    await half_of_the_users_err_once(lab, {"metrics": [errors]}, primary_metric="errors")
    result = await lab.analyze("greeting", "fixed", segments=["plan"], series="day")
    whole, segment = result.metrics["errors"], result.segments[0].analysis
    assert {key: one.value for key, one in segment.estimates.items()} == pytest.approx(
        {key: one.value for key, one in whole.estimates.items()}
    )
    assert result.series[-1].value == pytest.approx(whole.differences[B].value)
    assert everyone(result, "errors") == pytest.approx(0.5)


async def test_the_history_of_errors_narrows_as_much_as_that_of_successes(
    lab: Lab, clock: SettableClock
) -> None:
    version = await lab.versions.create_version("greeting", "system", "Before.", "0.9.0")
    generator = np.random.default_rng(4)
    habits = generator.beta(1.0, 1.0, size=120)
    await asyncio.gather(
        *(
            lab.metrics.record_event(
                version.version_id, success=bool(generator.random() < habit), user_id=f"u{number}"
            )
            for number, habit in enumerate(habits)
            for _ in range(3)
        )
    )
    clock.advance(days=1)
    metrics = [
        {"name": "success_rate", "kind": "proportion", "history_days": 7},
        {"name": "error_rate", "kind": "proportion", "direction": "decrease", "history_days": 7},
    ]
    await experiment_of(lab, plan={"metrics": metrics, **FEW})
    await serve(
        lab, range(120), lambda variant, number: {"success": bool(generator.random() < habits[number])}
    )
    result = await lab.analyze("greeting", "fixed")
    of_errors, of_successes = (result.metrics[name].differences[B] for name in ("error_rate", "success_rate"))
    assert of_errors.adjusted is not None
    assert of_successes.adjusted is not None
    assert of_errors.adjusted.value == pytest.approx(-of_successes.adjusted.value)
    assert of_errors.adjusted.se == pytest.approx(of_successes.adjusted.se)
    assert of_errors.adjusted.units_with_history == 120


async def users_spend(lab: Lab, clock: SettableClock, plan: Mapping[str, Any]) -> float | None:
    """Let 50 users spend 1, 2 or 3 in each of 20 events, half of them a day later; return the cap that is frozen."""
    version = await lab.versions.create_version("greeting", "system", "Before.", "0.9.0")
    for day in range(2):
        await asyncio.gather(
            *(
                lab.metrics.record_event(version.version_id, cost=1.0 + number % 3, user_id=f"h{number}")
                for number in range(50)
                for _ in range(10)
            )
        )
        # of nobody, of somebody who spent nothing, and of another measure
        await lab.metrics.record_event(version.version_id, cost=1e9)
        await lab.metrics.record_event(version.version_id, success=True, user_id=f"none{day}")
        clock.advance(days=1)
    experiment = await experiment_of(lab, plan={**FEW, **plan})
    return experiment.plan.metrics[0].cap


SPEND = {"name": "spend", "measure": "cost", "kind": "mean_per_unit", "direction": "decrease"}


async def test_a_percentile_cap_of_a_total_per_unit_is_one_of_units(lab: Lab, clock: SettableClock) -> None:
    assert await users_spend(lab, clock, {"metrics": [{**SPEND, "cap_percentile": 0.99}]}) == 60.0
    await serve(lab, range(40), lambda variant, number: {"cost": 1e6 if number == 7 else 2.0}, times=20)
    assert everyone(await lab.analyze("greeting", "fixed"), "spend") == pytest.approx((39 * 40 + 60) / 40)


async def test_a_percentile_cap_of_a_total_per_unit_is_over_the_measurement_window(
    lab: Lab, clock: SettableClock
) -> None:
    plan = {"metrics": [{**SPEND, "cap_percentile": 0.6}], "window_hours": 24}
    assert await users_spend(lab, clock, plan) == 20.0


async def test_a_percentile_cap_without_units_before_the_start_caps_nothing(
    lab: Lab, clock: SettableClock
) -> None:
    never = {**SPEND, "measure": "tokens", "cap_percentile": 0.9}
    assert await users_spend(lab, clock, {"metrics": [never]}) is None


async def test_a_definition_gets_its_own_sums_and_not_those_of_another_one_of_its_name(lab: Lab) -> None:
    per_user = {"name": "cost", "kind": "mean_per_unit", "direction": "decrease"}
    await experiment_of(lab, plan={"metrics": [per_user], **FEW})
    await serve(lab, range(60), lambda variant, number: {"cost": 2.0, "tokens": 10}, times=5)
    asked = [
        MetricDefinition(name="cost", direction="decrease"),
        MetricDefinition(name="tokens", kind="mean_per_unit"),
    ]
    result = await lab.analyze("greeting", metrics=asked)
    assert everyone(result, "cost") == pytest.approx(2.0)
    assert everyone(result, "tokens") == pytest.approx(50.0)
    assert everyone(await lab.analyze("greeting"), "cost") == pytest.approx(10.0)


async def test_a_percentile_that_was_not_declared_before_the_start_is_refused(lab: Lab) -> None:
    declared = MetricDefinition(name="cost", direction="decrease", cap_percentile=0.9)
    before = await lab.versions.create_version("greeting", "system", "Before.", "0.9.0")
    for cost in range(1, 11):
        await lab.metrics.record_event(before.version_id, cost=float(cost))
    await experiment_of(lab, plan={"metrics": [declared], **FEW})
    await serve(lab, range(40), lambda variant, number: {"cost": 100.0, "tokens": 5})
    # as it was declared it stands for what was frozen
    assert everyone(await lab.analyze("greeting", metrics=[declared]), "cost") == 9.0
    for later in (
        MetricDefinition(name="tokens", cap_percentile=0.9),
        declared.model_copy(update={"cap_percentile": 0.5}),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await lab.analyze("greeting", metrics=[later])
        assert refused.value.field == f"metrics[{later.name}].cap_percentile"


async def test_a_series_leaves_out_the_units_that_the_analysis_leaves_out(
    lab: Lab, clock: SettableClock
) -> None:
    await experiment_of(lab)
    await serve(lab, range(120), better_b)
    clock.advance(days=3)
    start = clock()
    await serve(lab, range(120, 240), lambda variant, number: {"success": number % 2 == 0})
    clock.advance(hours=1)
    result = await lab.analyze("greeting", "fixed", since=start, series="day")
    difference = result.metrics["success_rate"].differences[B]
    assert [point.units for point in result.series] == [120]
    assert result.series[0].value == pytest.approx(difference.value)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("method", ["sequential", "fixed"])
async def test_a_series_shows_what_a_look_at_each_moment_showed(
    lab: Lab, clock: SettableClock, method: Method, window: int | None
) -> None:
    """Units come back, days are empty, and single units are read while there are few."""
    await experiment_of(lab, plan={"window_hours": window, **FEW})
    looks = []
    for day, units in enumerate([range(24), range(12, 60), range(0), range(40, 150), range(150, 330)]):
        await serve(lab, units, better_b)
        # to the end of the day, from noon
        clock.advance(hours=12 if day == 0 else 24)
        result = await lab.analyze("greeting", method)
        looks.append(result.metrics["success_rate"].differences[B])
    shown = (await lab.analyze("greeting", method, series="day")).series
    seen = [look for look, units in zip(looks, [1, 1, 0, 1, 1], strict=True) if units]
    if window is None:
        assert [(point.value, point.low, point.high) for point in shown] == [
            pytest.approx((look.value, look.low, look.high)) for look in seen
        ]
    else:
        last = shown[-1]
        assert (last.value, last.low, last.high) == pytest.approx(
            (seen[-1].value, seen[-1].low, seen[-1].high)
        )


@pytest.mark.parametrize(
    ("method", "technique"), [("sequential", "betting confidence sequence"), ("fixed", "permutation")]
)
async def test_a_small_segment_is_judged_as_an_experiment_of_its_size_would_be(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, method: Method, technique: str
) -> None:
    score = MetricDefinition(name="score", lowest=0.0, highest=1.0)
    await experiment_of(lab, plan={"metrics": [score], **FEW}, primary_metric="score")
    generator = np.random.default_rng(2)
    plans = ["pro", *["free"] * 6]
    await serve(
        lab,
        range(280),
        lambda variant, number: {"metrics": {"score": float(generator.random())}},
        attributes=lambda number: {"plan": plans[number % 7]},
    )
    result = await lab.analyze("greeting", method, segments=["plan"])
    found = {segment.value: segment.analysis.differences[B] for segment in result.segments}
    assert found["pro"].technique == technique
    assert found["free"].technique != technique
    monkeypatch.setattr(gathering, "MOST_SINGLE_UNITS", 39)
    sums = await lab.analyze("greeting", method, segments=["plan"])
    assert technique not in {segment.analysis.differences[B].technique for segment in sums.segments}


async def test_outcomes_that_came_after_their_unit_had_been_counted_are_told(
    lab: Lab, clock: SettableClock
) -> None:
    experiment = await experiment_of(lab, plan={"window_hours": 24, **FEW})
    choice = await lab.choose("greeting", user_id="u1")
    during = clock() + timedelta(hours=1)
    assert choice.version is not None
    await choice.record(success=True)
    clock.advance(hours=25)

    async def told() -> str:
        checks = (await lab.analyze("greeting")).checks
        return next(check.detail for check in checks if check.name == "missing_outcomes")

    assert "left out" not in await told()
    for late in (1, 2):
        await lab.metrics.record_event(
            choice.version.version_id,
            experiment_id=experiment.experiment_id,
            variant=choice.variant,
            user_id="u1",
            success=False,
            timestamp=during,
        )
        one = "1 outcome came after its unit's window had closed and been counted, and is left out"
        two = "2 outcomes came after their unit's window had closed and been counted, and are left out"
        assert (await told()).endswith(one if late == 1 else two)
