"""Sample size, power and detectable effect against published numbers."""

from __future__ import annotations

import math

import pytest

from promptab.stats.power import (
    Design,
    Mean,
    Proportion,
    Ratio,
    achieved_power,
    detectable_effect,
    sample_size,
)
from tests.oracles import oracle


def test_power_of_two_proportions_matches_r() -> None:
    row = oracle("power-prop-R-1")
    inputs = row["inputs"]
    power = achieved_power(
        Proportion(inputs["p1"]), inputs["p2"] - inputs["p1"], control_units=inputs["n_per_group"]
    )
    assert power == pytest.approx(row["expected"], abs=row["tol"])


def test_sample_size_of_two_proportions_matches_r() -> None:
    row = oracle("power-prop-R-2")
    inputs = row["inputs"]
    size = sample_size(Proportion(inputs["p1"]), inputs["p2"] - inputs["p1"], power=inputs["power"])
    assert size.exact == pytest.approx(row["expected"], abs=row["tol"])


def test_detectable_proportion_matches_r() -> None:
    row = oracle("power-prop-R-3")
    inputs = row["inputs"]
    effect = detectable_effect(
        Proportion(inputs["p1"]), control_units=inputs["n_per_group"], power=inputs["power"]
    )
    assert effect is not None
    assert inputs["p1"] + effect == pytest.approx(row["expected"], abs=row["tol"])


def test_pooled_sample_size_matches_the_published_count() -> None:
    row = oracle("n-prop-pooled-0.15-0.165")
    size = sample_size(Proportion(row["inputs"]["p1"]), row["inputs"]["p2"] - row["inputs"]["p1"])
    assert size.exact == pytest.approx(row["expected"]["n"], abs=row["tol"])
    assert (size.control, size.treatment) == (row["expected"]["ceil"],) * 2
    assert size.total == 2 * row["expected"]["ceil"]


def test_no_margin_at_one_side_is_the_unpooled_sample_size() -> None:
    row = oracle("n-prop-unpooled-0.15-0.165")
    design = Design(alpha=row["inputs"]["alpha"] / 2, sides=1, margin=0.0)
    size = sample_size(
        Proportion(row["inputs"]["p1"]), row["inputs"]["p2"] - row["inputs"]["p1"], design=design
    )
    assert size.exact == pytest.approx(row["expected"]["n"], abs=row["tol"])
    assert size.control == row["expected"]["ceil"]


def test_non_inferiority_of_proportions_matches_chow() -> None:
    row = oracle("n-noninferiority-chow")
    inputs = row["inputs"]
    design = Design(alpha=inputs["alpha_one_sided"], sides=1, margin=-inputs["margin"])
    size = sample_size(
        Proportion(inputs["pB"]), inputs["pA"] - inputs["pB"], power=inputs["power"], design=design
    )
    assert size.control == row["expected"]


def test_t_power_matches_r() -> None:
    row = oracle("power-t-R-1")
    power = achieved_power(Mean(1.0), 1.0, control_units=row["inputs"]["n_per_group"])
    assert power == pytest.approx(row["expected"], abs=row["tol"])


def test_t_sample_size_matches_r() -> None:
    row = oracle("power-t-R-2")
    size = sample_size(Mean(1.0), 1.0, power=row["inputs"]["power"])
    assert size.exact == pytest.approx(row["expected"], abs=row["tol"])
    assert (size.control, size.treatment) == (23, 23)


@pytest.mark.parametrize("row_id", ["pwr-t2-0", "pwr-t2-1", "pwr-t2-3", "pwr-t2-4"])
def test_t_power_with_both_tails_matches_pwr(row_id: str) -> None:
    row = oracle(row_id)
    inputs = row["inputs"]
    design = Design(allocation=inputs["ratio_n2_n1"], sides=2 if inputs["alternative"] == "two-sided" else 1)
    power = achieved_power(Mean(1.0), inputs["d"], control_units=inputs["n1"], design=design)
    assert power == pytest.approx(row["expected"], abs=row["tol"])


def test_power_of_a_ratio_matches_tea_tasting() -> None:
    row = oracle("tt-power-ratio")
    inputs = row["inputs"]
    effect = inputs["ratio"] * inputs["rel_effect"]
    assert effect == pytest.approx(row["expected"]["effect"])
    power = achieved_power(
        Ratio(math.sqrt(inputs["var_per_user"])), effect, control_units=inputs["n_total"] / 2
    )
    assert power == pytest.approx(row["expected"]["power"], abs=row["tol"])


def test_power_of_one_look_at_the_confidence_sequence_matches_growthbook() -> None:
    row = oracle("ascs-power-one-look")
    inputs = row["inputs"]
    power = achieved_power(
        Ratio(inputs["sd"]),
        inputs["delta"],
        control_units=inputs["N_total"] / 2,
        design=Design(sequential=True, tuning_units=inputs["N_star"]),
    )
    assert power == pytest.approx(row["expected"], abs=row["tol"])


def test_confidence_sequence_takes_the_published_multiple_of_units() -> None:
    row = oracle("ascs-sample-inflation")
    inputs, expected = row["inputs"], row["expected"]
    fixed = sample_size(Ratio(inputs["sd"]), inputs["delta"])
    sequential = sample_size(Ratio(inputs["sd"]), inputs["delta"], design=Design(sequential=True))
    assert 2 * fixed.exact == pytest.approx(expected["fixed_total"], abs=row["tol"])
    assert 2 * sequential.exact == pytest.approx(expected["ascs_total"], abs=row["tol"])
    assert sequential.exact / fixed.exact == pytest.approx(expected["ratio"], abs=row["tol"])
