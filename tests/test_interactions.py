"""`lab.interaction`: whether the effect of one experiment depends on another one on the same units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab import InvalidInputError, Lab, NotFoundError, PromptVariant
from promptab.analysis.crossing import combined_cells, crossed
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.summary import UnitSums
from tests.clock import SettableClock
from tests.test_analysis import experiment_of

A, B = "1.0.0", "1.1.0"
SUCCESS = BUILT_IN_METRICS["success_rate"]
CELLS = [(row, column) for row in (A, B) for column in ("off", "on")]


async def two_experiments(lab: Lab, **options: Any) -> None:
    """Start one on a greeting's versions and one on a configuration, on the same users."""
    for number in (A, B):
        await lab.versions.create_version("greeting", "system", f"Hello {number}.", number)
    await lab.experiments.create_experiment(
        "greeting", "system", [PromptVariant(A), PromptVariant(B)], salt="s"
    )
    variants = [PromptVariant(key=key, config={"k": number}) for number, key in enumerate(("off", "on"))]
    await lab.experiments.create_experiment("tools", "config", variants, salt="t", **options)


Succeeds = Callable[[str, str | None, int], bool]


async def serve(lab: Lab, units: range, succeeds: Succeeds) -> dict[tuple[str, str | None], list[bool]]:
    """Let each unit come once to both; return the successes by what it was dealt."""
    told: dict[tuple[str, str | None], list[bool]] = {}
    for number in units:
        other = await lab.experiments.assign("tools", f"u{number}")
        choice = await lab.choose("greeting", user_id=f"u{number}")
        assert choice.variant is not None
        success = succeeds(choice.variant, other.variant, number)
        await choice.record(success=success)
        told.setdefault((choice.variant, other.variant), []).append(success)
    return told


def only_together(variant: str, other: str | None, number: int) -> bool:
    return number % 10 < (8 if (variant, other) == (B, "on") else 4)


def both_add(variant: str, other: str | None, number: int) -> bool:
    return number % 10 < 3 + 2 * (variant == B) + 2 * (other == "on")


def better_by_now(base: int) -> Succeeds:
    return lambda variant, other, number: number % 10 < base


async def test_effect_that_needs_both_is_an_interaction(lab: Lab) -> None:
    await two_experiments(lab)
    told = await serve(lab, range(600), only_together)
    found = await lab.interaction("greeting", "tools")
    assert (found.first, found.second, found.metric, found.units) == (
        "greeting",
        "tools",
        "success_rate",
        600,
    )
    (contrast,) = found.contrasts
    means = {key: float(np.mean(values)) for key, values in told.items()}
    assert contrast.effect_with == pytest.approx(means[B, "on"] - means[A, "on"])
    assert contrast.effect_without == pytest.approx(means[B, "off"] - means[A, "off"])
    assert contrast.value == pytest.approx((contrast.effect_with or 0.0) - (contrast.effect_without or 0.0))
    assert contrast.low is not None
    assert contrast.low > 0.0
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.independence_p is not None
    assert found.independence_p > 0.001
    assert found.sentence.startswith("greeting and tools interact on success_rate over the 600 units")
    assert contrast.sentence.startswith("the effect of 1.1.0 over 1.0.0 on success_rate differs by +")
    assert "between units that got on and units that got off of tools (95 % interval" in contrast.sentence
    assert contrast.sentence.endswith("it depends on what they got")


async def test_effects_that_add_up_are_no_interaction_from_either_side(lab: Lab) -> None:
    await two_experiments(lab)
    await serve(lab, range(400), both_add)
    found = await lab.interaction("greeting", "tools")
    assert "No sign" in found.sentence
    assert found.contrasts[0].sentence.endswith("no sign of an interaction")
    other = await lab.interaction("tools", "greeting", metric="success_rate", confidence=0.9)
    # no outcome was recorded in it, so nothing is known from there
    assert (other.units, other.p_value, other.confidence) == (400, None, 0.9)
    assert "cannot be known yet" in other.sentence
    assert other.contrasts[0].sentence.startswith("not enough data on the effect of on over off")


async def test_units_in_one_experiment_alone_do_not_count(lab: Lab) -> None:
    await two_experiments(lab, traffic=0.5)
    told = await serve(lab, range(400), both_add)
    found = await lab.interaction("greeting", "tools")
    assert found.units == sum(len(values) for (_, other), values in told.items() if other is not None) < 300


async def test_experiments_in_one_layer_share_no_unit(lab: Lab) -> None:
    await two_experiments(lab, layer="system/greeting")
    found = await lab.interaction("greeting", "tools")
    assert (found.units, found.p_value, found.independence_p) == (0, None, None)
    assert found.sentence.startswith("greeting and tools share no unit, as they are in one layer")


async def test_weights_that_change_in_both_do_not_make_an_interaction_or_a_dependence(
    lab: Lab, clock: SettableClock
) -> None:
    """From 9:1 with few successes to 1:9 with many, in both experiments: pooled, the dealings would go together."""
    await two_experiments(lab)
    for at, (share, base) in enumerate([(0.9, 1), (0.1, 7)]):
        for name, keys in (("greeting", (A, B)), ("tools", ("off", "on"))):
            await lab.experiments.update_weights(name, dict(zip(keys, (share, 1 - share), strict=True)))
        clock.advance(seconds=3)
        units = range(1_000 * at, 1_000 * at + 500)
        await serve(lab, units, better_by_now(base))
    found = await lab.interaction("greeting", "tools")
    assert found.units == 1_000
    assert found.independence_p is not None
    assert found.independence_p > 0.001
    assert found.p_value is not None
    assert found.p_value > 0.05


async def test_impossible_pairs_are_refused(lab: Lab) -> None:
    await two_experiments(lab)
    with pytest.raises(InvalidInputError, match="another experiment"):
        await lab.interaction("greeting", "greeting")
    with pytest.raises(NotFoundError):
        await lab.interaction("greeting", "nobody")
    refused: list[dict[str, Any]] = [
        {"metric": "p95_response_time"},
        {"confidence": 0.0},
        {"metric": "no such"},
    ]
    for wrong in refused:
        with pytest.raises(InvalidInputError):
            await lab.interaction("greeting", "tools", **wrong)


totals = st.lists(st.tuples(st.just(2.0), st.sampled_from([0.0, 1.0, 2.0])), min_size=3, max_size=9)


@given(st.lists(totals, min_size=4, max_size=4))
def test_less_is_better_says_the_same_with_the_other_sign(units: list[list[tuple[float, float]]]) -> None:
    first, second = experiment_of(A, B), experiment_of("off", "on")
    up = {key: UnitSums.of(found) for key, found in zip(CELLS, units, strict=True)}
    down = {key: sums.complement() for key, sums in up.items()}
    dealt = [{key: sums.units for key, sums in up.items()}]
    more = crossed(first, second, SUCCESS, strata=[up], dealt=dealt, confidence=0.95)
    less = crossed(first, second, BUILT_IN_METRICS["error_rate"], strata=[down], dealt=dealt, confidence=0.95)
    one, other = more.contrasts[0], less.contrasts[0]
    assert one.value == pytest.approx(-(other.value or 0.0), abs=1e-12)
    assert one.p_value == (None if other.p_value is None else pytest.approx(other.p_value, abs=1e-9))
    assert more.p_value == (None if less.p_value is None else pytest.approx(less.p_value, abs=1e-9))
    if one.low is not None:
        assert one.low == pytest.approx(-(other.high or 0.0), abs=1e-9)


def test_epochs_are_weighted_alike_in_every_cell() -> None:
    mornings = {key: UnitSums.of([(1, 0), (1, 1)] * 10) for key in CELLS}
    evenings = {key: UnitSums.of([(1, 1), (1, 1), (1, 0)] * 20) for key in CELLS}
    evenings[B, "on"] = UnitSums.of([(1, 1), (1, 1), (1, 0)] * 100)
    cells = combined_cells([mornings, evenings], (A, B), ("off", "on"))
    weight = 80 / (80 + 3 * 60 + 300)
    for mean in cells.values():
        assert mean.value == pytest.approx(weight * 0.5 + (1 - weight) * 2 / 3)


def test_epoch_with_an_empty_cell_is_left_out() -> None:
    whole = {key: UnitSums.of([(1, 0), (1, 1)] * 10) for key in CELLS}
    lacking = {key: UnitSums.of([(1, 1)] * 9) for key in CELLS[1:]}
    assert combined_cells([whole, lacking], (A, B), ("off", "on")) == combined_cells(
        [whole], (A, B), ("off", "on")
    )
    assert combined_cells([lacking], (A, B), ("off", "on")) == {}


def test_variants_of_several_treatments_each_have_a_contrast() -> None:
    first, second = experiment_of(A, B, "2.0.0"), experiment_of("off", "on")
    cells = {
        (row.key, column.key): UnitSums.of([(1, 0), (1, 1)] * 20)
        for row in first.variants
        for column in second.variants
    }
    found = crossed(
        first,
        second,
        SUCCESS,
        strata=[cells],
        dealt=[{key: sums.units for key, sums in cells.items()}],
        confidence=0.95,
    )
    assert [(one.variant, one.other_variant) for one in found.contrasts] == [(B, "on"), ("2.0.0", "on")]
    assert (found.units, found.contrasts[0].units) == (240, 160)
    assert found.p_value == pytest.approx(1.0)


def test_units_that_never_vary_have_no_interval() -> None:
    first, second = experiment_of(A, B), experiment_of("off", "on")
    cells = {key: UnitSums.of([(1, 1)] * 5) for key in CELLS}
    found = crossed(first, second, SUCCESS, strata=[cells], dealt=[], confidence=0.95)
    assert (found.contrasts[0].value, found.contrasts[0].se, found.contrasts[0].p_value) == (0.0, 0.0, None)
    assert found.contrasts[0].sentence.endswith("without an interval: the units do not vary")
