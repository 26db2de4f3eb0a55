"""Bandits on a store: what is dealt with which probability, when weights move, and what the analysis makes of it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

import promptab
from promptab import (
    Bandit,
    InvalidInputError,
    Lab,
    MetricDefinition,
    NotFoundError,
    PromptExperiment,
    PromptVariant,
    Rebalancing,
    StateError,
)
from promptab.allocation import enrolled, point
from promptab.bandit import Algorithm
from promptab.models import UNIFORM_EPOCH, Epoch, Exposure
from promptab.snapshot_file import read_snapshot, write_snapshot
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.ratio import ratio_contrast
from promptab.stores.opening import open_store
from tests.clock import SettableClock
from tests.processes import race

EAGER = Bandit(batch_hours=0.0, batch_units=20, minimum_units=20)
AB = [PromptVariant(key=key, config={"key": key}) for key in "ab"]
ABC = [*AB, PromptVariant(key="c", config={"key": "c"})]

everywhere = pytest.mark.parametrize("store_url", ["file", "memory", "postgres"], indirect=True)


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """In memory, unless a test asks for all kinds."""
    from tests.conftest import url_of  # noqa: PLC0415 - a module of fixtures

    return "sqlite:///:memory:" if not hasattr(request, "param") else url_of(request, tmp_path)


async def create(
    lab: Lab, bandit: Bandit | Mapping[str, Any] | Algorithm | None = EAGER, **options: Any
) -> PromptExperiment:
    variants = options.pop("variants", AB)
    return await lab.experiments.create_experiment(
        "tone", "config", variants, bandit=bandit, salt="s", **options
    )


async def serve(
    lab: Lab, units: range, rates: Mapping[str, float], *, measure: str = "success"
) -> dict[str, str]:
    """Deal these units and record one outcome for each, of a rate (or a mean) that its variant has."""
    generator = np.random.default_rng(units.start)
    dealt: dict[str, str] = {}
    events = []
    for number in units:
        unit = f"u{number}"
        variant = (await lab.experiments.assign("tone", unit)).variant
        assert variant is not None
        dealt[unit] = variant
        told: dict[str, Any] = {"success": bool(generator.random() < rates[variant])}
        if measure != "success":
            told = {measure: float(rates[variant] * generator.lognormal(0.0, 0.3))}
        events.append(told | {"experiment_id": "tone", "variant": variant, "user_id": unit})
    await lab.store.flush()
    await lab.metrics.record_many(events)
    return dealt


async def epochs(lab: Lab, experiment: PromptExperiment) -> dict[int, Epoch]:
    found = await lab.store.read(lambda tx: tx.experiments.epochs_of(experiment.experiment_id))
    return {epoch.number: epoch for epoch in found}


async def exposures(lab: Lab, experiment: PromptExperiment) -> list[Exposure]:
    await lab.store.flush()
    return await lab.store.read(lambda tx: tx.exposures.listing(experiment.experiment_id))


async def take_effect(lab: Lab, clock: SettableClock) -> Rebalancing:
    found = await lab.rebalance("tone")
    clock.advance(seconds=3)
    return found


@everywhere
async def test_a_bandit_learns_deals_by_what_it_learned_and_is_analysed_by_its_propensities(
    lab: Lab, clock: SettableClock
) -> None:
    made = await create(lab, EAGER.model_copy(update={"uniform": 0.2, "floor": 0.1}))
    rates = {"a": 0.3, "b": 0.8}
    dealt: dict[str, str] = {}
    weights = []
    for batch in range(4):
        dealt |= await serve(lab, range(200 * batch, 200 * (batch + 1)), rates)
        looked = await take_effect(lab, clock)
        weights.append(looked.weights["b"])
    assert weights[-1] == pytest.approx(0.9, abs=0.01)
    assert looked.best["b"] > 0.99
    stored = {each.unit: each for each in await exposures(lab, made)}
    in_force = await epochs(lab, made)
    assert {unit: each.variant for unit, each in stored.items()} == dealt
    for each in stored.values():
        assert each.propensity == pytest.approx(in_force[each.epoch].weights[each.variant], abs=1e-15)
    late = Counter(each.variant for each in stored.values() if each.epoch >= 2)
    assert late["b"] > 4 * late["a"]
    alike = Counter(each.variant for each in stored.values() if each.epoch == UNIFORM_EPOCH)
    assert 0.14 < sum(alike.values()) / 800 < 0.26
    assert 0.3 < alike["b"] / sum(alike.values()) < 0.7

    result = await lab.analyze("tone")
    difference = result.metrics["success_rate"].differences["b"]
    assert (result.dealt, result.winner) == ("adaptively", "b"), result.reason
    assert difference.technique == "weighted confidence sequence"
    assert difference.value == pytest.approx(0.5, abs=0.12)
    assert all(check.passed for check in result.checks), result.failed_checks()
    assert "adaptively weighted" in result.caution
    assert (await lab.compare("tone")).metrics["success_rate"].differences["b"].technique == "weighted t"

    alone = await lab.analyze("tone", uniform=True)
    assert alone.dealt == "uniform slice"
    assert dict(alone.units) == dict(alike)
    assert alone.metrics["success_rate"].differences["b"].technique in {
        "confidence sequence",
        "betting confidence sequence",
    }


@everywhere
async def test_rebalancers_that_race_make_one_epoch(lab: Lab) -> None:
    made = await create(lab)
    await serve(lab, range(100), {"a": 0.2, "b": 0.8})
    found = await asyncio.gather(*(lab.rebalance("tone") for _ in range(8)))
    assert sum(each.changed for each in found) == 1
    assert list(await epochs(lab, made)) == [1, 2]
    again = await lab.rebalance("tone")
    assert (again.changed, again.epoch) == (False, 2)


async def test_rebalancers_of_several_stores_make_one_epoch(lasting_url: str) -> None:
    labs = [Lab(await open_store(lasting_url)) for _ in range(3)]
    made = await create(labs[0])
    await serve(labs[0], range(100), {"a": 0.2, "b": 0.8})
    for _ in range(5):
        found = await asyncio.gather(*(lab.rebalance("tone") for lab in labs for _ in range(2)))
        told = {(each.epoch, tuple(each.weights.items())) for each in found if each.changed}
        assert len(told) <= 1
    assert list(await epochs(labs[0], made)) == [1, 2]
    for lab in labs:
        await lab.close()


async def test_rebalancing_processes_make_one_epoch(lasting_url: str) -> None:
    async with promptab.open(lasting_url) as lab:
        made = await create(lab)
        await serve(lab, range(100), {"a": 0.2, "b": 0.8})
    changes = race(lasting_url, [("rebalance", {"experiment": "tone", "looks": 10})] * 3)
    async with promptab.open(lasting_url) as lab:
        found = await epochs(lab, made)
    ((number, weights),) = [change for of_process in changes for change in of_process]
    assert list(found) == [1, number] == [1, 2]
    assert dict(found[2].weights) == weights


async def test_a_change_of_weights_by_hand_meanwhile_is_not_written_over(lab: Lab) -> None:
    made = await create(lab)
    await serve(lab, range(100), {"a": 0.2, "b": 0.8})
    by_hand = lab.experiments.update_weights("tone", {"a": 3, "b": 1}, lead_seconds=0)
    await asyncio.gather(lab.rebalance("tone"), by_hand)
    # a rebalancer that came first is over by then, one that came later finds a batch that has only begun
    last = max((await epochs(lab, made)).values(), key=lambda epoch: epoch.number)
    current = await lab.experiments.get_experiment("tone")
    assert current is not None
    assert dict(current.traffic_split) == dict(last.weights) == {"a": 0.75, "b": 0.25}


async def test_weights_move_no_sooner_than_units_batches_and_hours_allow(
    lab: Lab, clock: SettableClock
) -> None:
    await create(lab, {"minimum_units": 60, "batch_units": 50, "batch_hours": 2})
    rates = {"a": 0.4, "b": 0.6}
    assert "in force until" in (await lab.rebalance("tone")).reason
    clock.advance(hours=2)
    await serve(lab, range(90), rates)
    early = await lab.rebalance("tone")
    assert "of the 60 counted units" in early.reason
    assert sum(early.units.values()) == 90
    await serve(lab, range(90, 160), rates)
    first = await lab.rebalance("tone")
    assert (first.changed, first.epoch) == (True, 2)
    clock.advance(hours=3)
    await serve(lab, range(160, 200), rates)
    assert "40 of the 50 units of a batch" in (await lab.rebalance("tone")).reason
    await serve(lab, range(200, 230), rates)
    assert (await lab.rebalance("tone")).changed
    assert "in force until" in (await lab.rebalance("tone")).reason


async def test_weights_that_would_hardly_move_stay(lab: Lab, clock: SettableClock) -> None:
    await create(lab)
    await serve(lab, range(400), {"a": 0.1, "b": 0.9})
    assert (await take_effect(lab, clock)).changed
    await serve(lab, range(400, 500), {"a": 0.1, "b": 0.9})
    still = await lab.rebalance("tone")
    assert not still.changed
    assert "would change hands" in still.reason


async def test_units_count_once_their_window_has_closed(lab: Lab, clock: SettableClock) -> None:
    await create(lab, plan={"window_hours": 24})
    await serve(lab, range(100), {"a": 0.2, "b": 0.8})
    clock.advance(hours=23)
    waiting = await lab.rebalance("tone")
    assert (waiting.changed, dict(waiting.units)) == (False, {"a": 0, "b": 0})
    clock.advance(hours=1)
    assert (await lab.rebalance("tone")).changed
    assert (await lab.analyze("tone")).approximate is False


@pytest.mark.parametrize(("metric", "better"), [("success_rate", "b"), ("error_rate", "a")])
async def test_what_is_better_is_what_the_direction_says(lab: Lab, metric: str, better: str) -> None:
    plan = {
        "metrics": [
            MetricDefinition(name=metric, kind="proportion", measure="success_rate", direction="decrease")
        ]
    }
    await create(lab, plan=plan if better == "a" else None, primary_metric=metric)
    await serve(lab, range(200), {"a": 0.2, "b": 0.8})
    found = await lab.rebalance("tone")
    assert max(found.weights, key=found.weights.__getitem__) == better


async def test_success_to_increase_and_errors_to_decrease_move_the_weights_alike(lab: Lab) -> None:
    await create(lab)
    await serve(lab, range(300), {"a": 0.45, "b": 0.55})
    up = await lab.rebalance("tone")
    await lab.experiments.stop("tone")
    await create(lab, primary_metric="error_rate")
    await serve(lab, range(300), {"a": 0.45, "b": 0.55})
    down = await lab.rebalance("tone")
    assert up.units == down.units
    assert dict(up.weights) == pytest.approx(dict(down.weights), abs=1e-12)


async def test_times_are_learned_of_and_analysed_as_ratios(lab: Lab, clock: SettableClock) -> None:
    await create(lab, variants=ABC, primary_metric="response_time")
    for batch in range(3):
        await serve(
            lab,
            range(150 * batch, 150 * (batch + 1)),
            {"a": 1.2, "b": 0.8, "c": 1.3},
            measure="response_time",
        )
        looked = await take_effect(lab, clock)
    assert max(looked.weights, key=looked.weights.__getitem__) == "b"
    assert math.fsum(looked.weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert min(looked.weights.values()) >= EAGER.floor
    result = await lab.analyze("tone", metrics=[])
    estimates = result.metrics["response_time"].estimates
    difference = result.metrics["response_time"].differences["b"]
    assert difference.verdict == "better"
    assert (estimates["b"].value or 0.0) - (estimates["a"].value or 0.0) == pytest.approx(difference.value)


async def test_units_of_the_slice_keep_their_variant_whatever_the_weights_do(
    lab: Lab, clock: SettableClock
) -> None:
    made = await create(lab, EAGER.model_copy(update={"uniform": 0.5}))
    assert made.uniform_salt is not None
    first = {n: (await lab.experiments.assign("tone", f"u{n}")) for n in range(100)}
    await lab.experiments.update_weights("tone", {"a": 0.01, "b": 0.99}, lead_seconds=0)
    clock.advance(seconds=1)
    for number in range(200):
        found = await lab.experiments.assign("tone", f"u{number}")
        in_slice = enrolled(point(made.uniform_salt, f"u{number}"), 0.5)
        if number < 100:
            assert found.variant == first[number].variant
        if in_slice:
            assert found.epoch == UNIFORM_EPOCH
            assert "dealt alike" in found.detail
        elif number >= 100:
            assert found.epoch == 2
    counts = Counter(e.variant for e in await exposures(lab, made) if e.epoch == UNIFORM_EPOCH)
    assert min(counts.values()) > 30


async def test_a_variant_that_is_withdrawn_leaves_the_slice_too_and_gets_nothing_again(
    lab: Lab, clock: SettableClock
) -> None:
    made = await create(lab, EAGER.model_copy(update={"uniform": 0.5}), variants=ABC)
    await serve(lab, range(120), {"a": 0.5, "b": 0.6, "c": 0.1})
    await lab.experiments.update_weights("tone", {"a": 1, "b": 1, "c": 0}, evict=True)
    clock.advance(seconds=1)
    dealt = await serve(lab, range(240), {"a": 0.5, "b": 0.6})
    assert set(dealt.values()) == {"a", "b"}
    looked = await take_effect(lab, clock)
    assert looked.weights["c"] == 0.0
    assert set(looked.best) <= {"a", "b"}
    later = await serve(lab, range(240, 300), {"a": 0.5, "b": 0.6})
    assert set(later.values()) == {"a", "b"}
    late = [e for e in await exposures(lab, made) if int(e.unit[1:]) >= 120]
    assert all(e.epoch != UNIFORM_EPOCH for e in late)
    alike = Counter(e.variant for e in late if e.epoch == UNIFORM_EPOCH - 1)
    assert min(alike["a"], alike["b"]) > 30
    result = await lab.analyze("tone")
    assert next(check for check in result.checks if check.name == "sample_ratio").passed


async def test_a_unit_that_was_reported_is_left_out_and_one_shown_by_hand_has_no_propensity(lab: Lab) -> None:
    made = await create(lab, overrides={"boss": "b"})
    await serve(lab, range(40), {"a": 0.5, "b": 0.5})
    await lab.experiments.assign("tone", "boss")
    told = {"experiment_id": "tone", "variant": "b", "user_id": "stranger", "success": True}
    await lab.metrics.record_many([told])
    stored = {each.unit: each for each in await exposures(lab, made)}
    assert (stored["boss"].propensity, stored["boss"].source) == (None, "override")
    assert (stored["stranger"].propensity, stored["stranger"].source) == (None, "reported")
    result = await lab.analyze("tone")
    assert sum(result.units.values()) == 40
    [few] = [check.detail for check in result.checks if check.name == "minimum_units"]
    assert (
        "; 1 more were reported and not dealt, so that a bandit cannot weigh them: let choose or assign"
        in few
    )


async def test_a_session_that_becomes_a_user_keeps_its_propensity(lab: Lab) -> None:
    made = await create(lab, traffic_split={"a": 0.25, "b": 0.75})
    met = await lab.experiments.assign("tone", session_id="s1")
    await lab.experiments.alias("s1", "ada")
    (only,) = await exposures(lab, made)
    assert (only.unit, only.source) == ("ada", "alias")
    assert only.propensity == {"a": 0.25, "b": 0.75}[str(met.variant)]


async def test_experiments_without_a_bandit_store_propensities_too(lab: Lab) -> None:
    made = await create(lab, None, traffic_split={"a": 0.25, "b": 0.75})
    for number in range(20):
        await lab.experiments.get_variant_for_user("tone", f"u{number}")
    for each in await exposures(lab, made):
        assert each.propensity == {"a": 0.25, "b": 0.75}[each.variant]
    result = await lab.analyze("tone")
    assert result.dealt == "as planned"
    with pytest.raises(StateError, match="no uniform slice"):
        await lab.analyze("tone", uniform=True)


async def test_plain_means_are_not_what_is_told_of_a_bandit(lab: Lab, clock: SettableClock) -> None:
    """The base value rises while the weights move to b: pooled, b looks better than it is."""
    made = await create(lab)
    await serve(lab, range(400), {"a": 0.3, "b": 0.4})
    await lab.experiments.update_weights("tone", {"a": 0.1, "b": 0.9}, lead_seconds=0)
    clock.advance(seconds=1)
    await serve(lab, range(400, 1_200), {"a": 0.8, "b": 0.8})
    difference = (await lab.analyze("tone")).metrics["success_rate"].differences["b"]
    sums = await lab.store.read(lambda tx: tx.rolled_up.summaries(made))
    by_arm = {key: list(of.values()) for key, of in sums.sums["success_rate"].items()}
    pooled = ratio_contrast(*({0: type(of[0]).pooled(of)} for of in (by_arm["b"], by_arm["a"])))
    assert pooled.value is not None
    assert pooled.value > 0.15, "pooling should be far off"
    assert difference.low is not None
    assert difference.high is not None
    assert difference.value == pytest.approx(0.03, abs=0.08)
    assert difference.low < 0.03 < difference.high


async def test_segments_the_course_and_quantiles_of_a_bandit_are_told_for_all_units_and_for_the_slice(
    lab: Lab, clock: SettableClock
) -> None:
    await create(lab, EAGER.model_copy(update={"uniform": 0.3}))
    generator = np.random.default_rng(4)
    for batch in range(2):
        events = []
        for number in range(200 * batch, 200 * (batch + 1)):
            plan = ("free", "pro")[number % 2]
            met = await lab.experiments.assign("tone", f"u{number}", attributes={"plan": plan})
            told = {"experiment_id": "tone", "variant": met.variant, "user_id": f"u{number}"}
            won = bool(generator.random() < {"a": 0.3, "b": 0.7}[str(met.variant)])
            events.append(told | {"success": won, "response_time": float(generator.lognormal())})
        await lab.store.flush()
        await lab.metrics.record_many(events)
        await lab.rebalance("tone")
        clock.advance(days=1)
    for uniform in (False, True):
        result = await lab.analyze(
            "tone", metrics=["p95_response_time"], segments=["plan"], series="day", uniform=uniform
        )
        assert {segment.value for segment in result.segments} == {"free", "pro"}
        of_segments = sum(sum(segment.units.values()) for segment in result.segments)
        assert of_segments == sum(result.units.values())
        assert not any(segment.sample_ratio_mismatch for segment in result.segments)
        last = result.series[-1]
        difference = result.metrics["success_rate"].differences["b"]
        assert (last.value, last.low) == pytest.approx((difference.value, difference.low))
        assert result.metrics["p95_response_time"].differences["b"].value is not None


async def test_a_snapshot_file_keeps_the_slice(lab: Lab, clock: SettableClock, tmp_path: Any) -> None:
    await create(lab, EAGER.model_copy(update={"uniform": 0.5}))
    snapshot = await lab.store.snapshot()
    write_snapshot(tmp_path / "snapshot.json", snapshot, taken_at=clock())
    filed = read_snapshot(tmp_path / "snapshot.json")
    assert filed.faults == ()
    (before,), (after,) = snapshot.experiments, filed.snapshot.experiments
    assert after.uniform == before.uniform
    assert after.dealings == before.dealings


async def test_a_paused_bandit_waits_and_an_ended_one_is_told_so(lab: Lab) -> None:
    await create(lab)
    await serve(lab, range(100), {"a": 0.2, "b": 0.8})
    await lab.experiments.pause("tone")
    assert (await lab.rebalance("tone")).reason == "the experiment is paused"
    await lab.experiments.resume("tone")
    assert (await lab.rebalance("tone")).changed
    await lab.experiments.stop("tone")
    assert (await lab.rebalance("tone")).reason == "the experiment is stopped"


async def test_a_bandit_whose_schedule_is_over_moves_no_weights(lab: Lab, clock: SettableClock) -> None:
    await create(lab, ends_at=clock() + timedelta(hours=1))
    await serve(lab, range(100), {"a": 0.2, "b": 0.8})
    clock.advance(hours=2)
    assert "ended on schedule" in (await lab.rebalance("tone")).reason


async def test_what_has_no_weights_that_follow_is_refused(lab: Lab) -> None:
    await create(lab, None)
    with pytest.raises(StateError, match="follow nothing"):
        await lab.rebalance("tone")
    with pytest.raises(NotFoundError):
        await lab.rebalance("nobody")
    await lab.experiments.create_experiment("later", "config", AB, bandit="ucb", status="draft")
    with pytest.raises(StateError, match="no weights in force"):
        await lab.rebalance("later")


@pytest.mark.parametrize(
    ("bandit", "options", "field"),
    [
        ("tompson", {}, "bandit"),
        (7, {}, "bandit"),
        ({"floor": 0.5}, {}, "bandit.floor"),
        ({"floor": 0.4}, {"variants": ABC}, "bandit.floor"),
        ({"floor": 0.0}, {}, "bandit.floor"),
        ({"uniform": 1.0}, {}, "bandit.uniform"),
        ({"challenger": 0.6}, {}, "bandit.challenger"),
        ({"algorithm": "ucb", "challenger": 0.2}, {}, "bandit.challenger"),
        ({"minimum_units": 1}, {}, "bandit.minimum_units"),
        ({"batch_units": 0}, {}, "bandit.batch_units"),
        ({"batch_hours": -1.0}, {}, "bandit.batch_hours"),
        ({"arms": 3}, {}, "Bandit.arms"),
        ("thompson", {"sticky": False}, "sticky"),
        ("thompson", {"primary_metric": "p95_response_time"}, "primary_metric"),
        ("thompson", {"primary_metric": "rating"}, "plan.window_hours"),
    ],
    ids=str,
)
async def test_what_makes_no_bandit_is_refused_by_name(
    lab: Lab, bandit: Any, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await create(lab, bandit, **options)
    assert refused.value.field == field
    assert await lab.experiments.list_experiments() == []


async def test_ratings_are_learned_of_within_a_window(lab: Lab) -> None:
    made = await create(lab, "thompson", primary_metric="rating", plan={"window_hours": 48})
    assert made.bandit == Bandit()
    assert made.uniform_salt is None


async def test_a_restarted_lab_deals_the_slice_as_before(lasting_url: str) -> None:
    one = Lab(await open_store(lasting_url))
    made = await create(one, EAGER.model_copy(update={"uniform": 0.5}))
    dealt = {f"u{n}": (await one.experiments.assign("tone", f"u{n}")).variant for n in range(60)}
    await one.close()
    other = Lab(await open_store(lasting_url))
    assert list(await epochs(other, made)) == [UNIFORM_EPOCH, 1]
    assert {unit: (await other.experiments.assign("tone", unit)).variant for unit in dealt} == dealt
    await other.close()


async def test_a_guardrail_that_no_unit_ever_failed_is_shown_to_be_safe_by_enough_units(
    lab: Lab, clock: SettableClock
) -> None:
    guarded = BUILT_IN_METRICS["success_rate"].model_copy(
        update={"role": "guardrail", "largest_regression": 0.05}
    )
    await create(
        lab, plan={"metrics": [guarded, {"name": "quality", "kind": "mean"}]}, primary_metric="quality"
    )
    for batch in range(2):
        for number in range(200 * batch, 200 * (batch + 1)):
            dealt = await lab.experiments.assign("tone", f"u{number}")
            quality = number % 3 + 0.5 * (dealt.variant == "b")
            await lab.metrics.record_event(
                None, success=True, metrics={"quality": quality}, experiment_id="tone", variant=dealt.variant,
                user_id=f"u{number}",
            )  # fmt: skip
        await take_effect(lab, clock)
    found = (await lab.analyze("tone")).metrics["success_rate"].differences["b"]
    assert found.technique == "beta-binomial confidence sequence"
    assert found.value == 0.0
    assert found.low is not None
    assert -0.3 < found.low < 0.0
    assert found.safety == "pass"
