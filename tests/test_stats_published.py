"""Ratios, their differences and lifts against published numbers; sources and tolerances stand beside these."""

from __future__ import annotations

import math
from typing import Any

import pytest

from promptab.stats.contrast import ArmMean, Contrast, Stratum, combined
from promptab.stats.fixed import t_critical, t_interval, t_p_value
from promptab.stats.lift import delta_lift, lift_interval
from promptab.stats.proportion import proportions_z_test
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums
from tests.arms import effect, one_event_each
from tests.oracles import oracle


def sums_from_moments(arm: dict[str, Any]) -> UnitSums:
    """One event per unit, from a published count, sum and sum of squares; moved to the mean as stores do."""
    units, total = arm["n"], arm["sum"]
    raw = UnitSums(units=units, n=units, s=total, center=0.0, rr=arm["sum_squares"], nn=units, rn=total)
    return raw.recentered(total / units)


def binary_mean(units: int, successes: int) -> ArmMean:
    """A proportion with the variance that its publishers take, whose divisor is n and not n - 1."""
    rate = successes / units
    return ArmMean(rate, rate * (1 - rate) / units, units)


def contrast_from_moments(inputs: dict[str, Any]) -> Contrast:
    treatment, control = (sums_from_moments(inputs[arm]) for arm in ("treatment", "control"))
    return ratio_contrast({0: treatment}, {0: control})


def sums_from_covariances(arm: dict[str, Any], inputs: dict[str, Any]) -> UnitSums:
    """Rebuild the sums from published means and covariances (divisor n - 1) of per-unit totals."""
    units, mean, cov = arm["n"], arm["mean"], arm["cov"]
    value = inputs["columns"].index(inputs["value"])
    mean_n, var_n, cov_sn = 1.0, 0.0, 0.0
    if inputs["denominator"] is not None:
        other = inputs["columns"].index(inputs["denominator"])
        mean_n, var_n, cov_sn = mean[other], cov[other][other], cov[value][other]
    raw = UnitSums(
        units=units,
        n=units * mean_n,
        s=units * mean[value],
        center=0.0,
        rr=(units - 1) * cov[value][value] + units * mean[value] ** 2,
        nn=(units - 1) * var_n + units * mean_n**2,
        rn=(units - 1) * cov_sn + units * mean[value] * mean_n,
    )
    return raw.recentered(mean[value] / mean_n)


def test_a_ratio_matches_the_published_cluster_example() -> None:
    row = oracle("ratio-delta-cluster")
    control, treatment = (
        UnitSums.of(zip(row["inputs"][arm]["N"], row["inputs"][arm]["S"], strict=True)) for arm in "AB"
    )
    expected, tolerance = row["expected"], row["tol"]
    contrast = ratio_contrast({0: treatment}, {0: control})
    found = effect(contrast)
    assert contrast.control == pytest.approx(expected["rA"], abs=tolerance)
    assert contrast.treatment == pytest.approx(expected["rB"], abs=tolerance)
    assert found.value == pytest.approx(expected["diff"], abs=tolerance)
    assert found.se**2 == pytest.approx(expected["var_delta"], abs=tolerance)
    assert found.se * math.sqrt(7 / 8) == pytest.approx(expected["se_cluster_ols"], abs=tolerance)


def test_a_contrast_matches_the_published_welch_test_of_the_sleep_data() -> None:
    row = oracle("welch-sleep")
    expected = row["expected"]
    arms = [one_event_each(row["inputs"][group]) for group in ("group1", "group2")]
    found = effect(ratio_contrast({0: arms[0]}, {0: arms[1]}))
    assert (found.value / found.se, found.df, found.p_value) == pytest.approx(
        (expected["t"], expected["df"], expected["p"]), abs=row["tol"]
    )
    assert found.interval() == pytest.approx(expected["ci"], abs=row["tol"])


def test_a_contrast_matches_the_published_welch_test_from_sums() -> None:
    row = oracle("gb-ttest-absolute")
    found = effect(contrast_from_moments(row["inputs"]))
    # its difference is printed to three digits; interval and p are not rounded
    assert found.value == pytest.approx(row["expected"]["diff"], abs=5e-4)
    assert found.interval(1 - row["inputs"]["alpha"]) == pytest.approx(row["expected"]["ci"], abs=row["tol"])
    assert found.p_value == pytest.approx(row["expected"]["p"], abs=row["tol"])


def test_a_one_sided_contrast_matches_the_published_one() -> None:
    row = oracle("gb-onesided-greater-abs")
    expected, tolerance = row["expected"], row["tol"]
    found = effect(contrast_from_moments(row["inputs"]))
    interval = t_interval(*found, confidence=1 - row["inputs"]["alpha"], alternative="greater")
    assert found.value == pytest.approx(expected["diff"], abs=tolerance)
    assert interval == pytest.approx((expected["lower"], math.inf), abs=tolerance)
    assert t_p_value(*found, alternative="greater") == pytest.approx(expected["p"], abs=tolerance)
    assert found.p_value / 2 == pytest.approx(expected["p"], abs=tolerance)


def test_a_lift_by_the_delta_method_matches_the_published_one() -> None:
    row = oracle("gb-ttest-relative")
    contrast = contrast_from_moments(row["inputs"])
    lift, df = delta_lift(contrast), effect(contrast).df
    assert lift is not None
    assert_two_sided_lift((*lift, df), row)


def test_a_lift_of_proportions_matches_the_published_one() -> None:
    row = oracle("gb-binom-relative")
    counts = row["inputs"]["treatment"], row["inputs"]["control"]
    contrast = combined([Stratum(0, *(binary_mean(arm["n"], arm["x"]) for arm in counts))])
    lift, df = delta_lift(contrast), effect(contrast).df
    assert lift is not None
    assert_two_sided_lift((*lift, df), row)


def assert_two_sided_lift(lift: tuple[float, float, float], row: dict[str, Any]) -> None:
    expected, tolerance = row["expected"], row["tol"]
    assert lift[:2] == pytest.approx((expected["lift"], expected["se"]), abs=tolerance)
    interval = t_interval(*lift, confidence=1 - row["inputs"]["alpha"])
    assert interval == pytest.approx(expected["ci"], abs=tolerance)
    assert t_p_value(*lift) == pytest.approx(expected["p"], abs=tolerance)


def test_a_one_sided_lift_by_the_delta_method_matches_the_published_one() -> None:
    row = oracle("gb-onesided-greater")
    expected, tolerance = row["expected"], row["tol"]
    contrast = contrast_from_moments(row["inputs"])
    lift, df = delta_lift(contrast), effect(contrast).df
    assert lift is not None
    interval = t_interval(*lift, df, confidence=1 - row["inputs"]["alpha"], alternative="greater")
    assert lift.value == pytest.approx(expected["lift"], abs=tolerance)
    assert interval == pytest.approx((expected["lower"], math.inf), abs=tolerance)
    assert t_p_value(*lift, df, alternative="greater") == pytest.approx(expected["p"], abs=tolerance)


@pytest.mark.parametrize("row_id", ["tt-ratio", "tt-rev"])
def test_a_contrast_and_its_lift_match_the_published_ratio_of_means(row_id: str) -> None:
    row = oracle(row_id)
    inputs, expected, tolerance = row["inputs"], row["expected"], row["tol"]
    treatment, control = (sums_from_covariances(inputs[arm], inputs) for arm in ("treatment", "control"))
    contrast = ratio_contrast({0: treatment}, {0: control})
    found = effect(contrast)
    assert contrast.control == pytest.approx(expected["control"], abs=tolerance)
    assert contrast.treatment == pytest.approx(expected["treatment"], abs=tolerance)
    assert found.value == pytest.approx(expected["treatment"] - expected["control"], abs=tolerance)
    assert found.value / found.se == pytest.approx(expected["statistic"], abs=tolerance)
    assert found.p_value == pytest.approx(expected["pvalue"], abs=tolerance)
    lift = lift_interval(contrast, t_critical(welch_df_of_logarithms(contrast, inputs), 0.95))
    assert lift == pytest.approx((expected["rel"], *expected["rel_ci"]), abs=tolerance)
    # the degrees of freedom of the difference itself, thousands here, come to the same but for a hair
    near = lift_interval(contrast, t_critical(found.df, 0.95))
    assert near == pytest.approx(lift, abs=1e-5)


def welch_df_of_logarithms(contrast: Contrast, inputs: dict[str, Any]) -> float:
    """Welch's formula on the variances of the logarithms of both means, as the publisher takes it."""
    variances, means = contrast[2:4], contrast[:2]
    units = inputs["treatment"]["n"], inputs["control"]["n"]
    shares = [
        variance / mean**2
        for variance, mean in zip(variances, means, strict=True)
        if variance is not None and mean is not None
    ]
    return float(sum(shares) ** 2 / sum(v**2 / (n - 1) for v, n in zip(shares, units, strict=True)))


def test_epochs_match_the_published_stratified_difference() -> None:
    row = oracle("epoch-stratified")
    expected, tolerance = row["expected"], row["tol"]
    epochs = row["inputs"]["epochs"]
    control, treatment = (
        {number: binary_sums(epoch[f"n{arm}"], epoch[f"x{arm}"]) for number, epoch in enumerate(epochs)}
        for arm in "AB"
    )
    contrast = ratio_contrast(treatment, control)
    assert contrast.value == pytest.approx(expected["stratified_diff"], abs=tolerance)
    # the published variance of a proportion divides by n, that of units by n - 1
    published = combined(
        [
            Stratum(number, *(binary_mean(epoch[f"n{arm}"], epoch[f"x{arm}"]) for arm in "BA"))
            for number, epoch in enumerate(epochs)
        ]
    )
    assert published.value == pytest.approx(expected["stratified_diff"], abs=tolerance)
    assert published.se == pytest.approx(expected["stratified_se"], abs=tolerance)
    assert contrast.se == pytest.approx(expected["stratified_se"], rel=1 / 499)


def test_pooling_the_epochs_has_the_published_bias() -> None:
    row = oracle("epoch-stratified")
    expected, tolerance = row["expected"], row["tol"]
    units, successes = (
        {arm: sum(epoch[f"{count}{arm}"] for epoch in row["inputs"]["epochs"]) for arm in "AB"}
        for count in "nx"
    )
    pooled = ratio_contrast(*({0: binary_sums(units[arm], successes[arm])} for arm in "BA"))
    assert pooled.value == pytest.approx(expected["pooled_diff"], abs=tolerance)
    test = proportions_z_test(successes["B"], units["B"], successes["A"], units["A"])
    assert test is not None
    assert test.z == pytest.approx(expected["pooled_z"], abs=tolerance)


def binary_sums(units: int, successes: int) -> UnitSums:
    return one_event_each([1.0] * successes + [0.0] * (units - successes))
