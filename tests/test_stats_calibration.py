"""Simulated experiments without any effect: how often does a comparison find one all the same?

Each simulation has one fixed seed. The bounds hold 99.9 % of the outcomes of a test that errs in 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats

from promptab.stats.fixed import t_p_value
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums

RUNS = 400
FEWEST, MOST = (int(count) for count in scipy.stats.binom.interval(0.999, RUNS, 0.05))


def p_value(treatment: Mapping[int, UnitSums], control: Mapping[int, UnitSums]) -> float:
    """Of no difference, at a fixed horizon."""
    contrast = ratio_contrast(treatment, control)
    if contrast.value is None or contrast.se is None or contrast.df is None:
        return 1.0 if contrast.exact_p is None else contrast.exact_p
    return t_p_value(contrast.value, contrast.se, contrast.df)


def clustered_arm(generator: np.random.Generator, units: int) -> list[tuple[int, int]]:
    """(events, successes) per unit: geometric counts of mean 5, rates Beta(7/6, 7/6), so that ICC is 0.3."""
    counts = generator.geometric(1 / 5, units)
    successes = generator.binomial(counts, generator.beta(7 / 6, 7 / 6, units))
    return [(int(n), int(s)) for n, s in zip(counts, successes, strict=True)]


def event_level_p(treatment: list[tuple[int, int]], control: list[tuple[int, int]]) -> float:
    """The two-proportion z-test that takes every event for an independent observation."""
    (n1, s1), (n2, s2) = ((sum(n for n, _ in arm), sum(s for _, s in arm)) for arm in (treatment, control))
    rate = (s1 + s2) / (n1 + n2)
    z = (s1 / n1 - s2 / n2) / math.sqrt(rate * (1 - rate) * (1 / n1 + 1 / n2))
    return float(2 * scipy.stats.norm.sf(abs(z)))


def binary_sums(units: int, successes: int) -> UnitSums:
    """One event per unit."""
    center = 0.13
    failures = units - successes
    return UnitSums(
        units=units,
        n=units,
        s=successes,
        center=center,
        rr=successes * (1 - center) ** 2 + failures * center**2,
        nn=units,
        rn=successes * (1 - center) - failures * center,
    )


def test_repeated_events_of_a_unit_do_not_inflate_false_positives() -> None:
    generator = np.random.default_rng(20)
    by_unit = by_event = 0
    for _ in range(RUNS):
        treatment, control = clustered_arm(generator, 150), clustered_arm(generator, 150)
        by_unit += p_value({0: UnitSums.of(treatment)}, {0: UnitSums.of(control)}) < 0.05
        by_event += event_level_p(treatment, control) < 0.05
    assert FEWEST <= by_unit <= MOST
    assert by_event > 3 * MOST / 2, "the event-level test should be far off, or this simulation shows nothing"


def test_changed_weights_and_a_moving_base_rate_do_not_inflate_false_positives() -> None:
    generator = np.random.default_rng(21)
    stratified = pooled = 0
    for _ in range(RUNS):
        # 90/10 at a base rate of 10 %, then 50/50 at 16 %
        plan = {0: (200, 1800, 0.10), 1: (1000, 1000, 0.16)}
        treatment = {
            epoch: binary_sums(n, int(generator.binomial(n, p))) for epoch, (n, _, p) in plan.items()
        }
        control = {epoch: binary_sums(n, int(generator.binomial(n, p))) for epoch, (_, n, p) in plan.items()}
        at_once = [{0: UnitSums.pooled(arm.values())} for arm in (treatment, control)]
        stratified += p_value(treatment, control) < 0.05
        pooled += p_value(*at_once) < 0.05
    assert FEWEST <= stratified <= MOST
    assert pooled > 3 * MOST / 2, "pooling should be far off, or this simulation shows nothing"


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (5, 5), (2, 50)], ids=str)
def test_a_handful_of_units_is_not_enough_to_look_certain(sizes: tuple[int, int]) -> None:
    """With every unit right or wrong at even odds, arms without variation are common, and must not decide."""
    generator = np.random.default_rng([22, *sizes])
    found = 0
    for _ in range(RUNS):
        treatment, control = (binary_sums(units, int(generator.binomial(units, 0.5))) for units in sizes)
        found += p_value({0: treatment}, {0: control}) < 0.05
    assert found <= MOST


def test_an_arm_of_equal_units_is_not_taken_to_be_free_of_error() -> None:
    generator = np.random.default_rng(23)
    found = naive = 0
    for _ in range(RUNS):
        few, many = int(generator.binomial(3, 0.5)), int(generator.binomial(100, 0.5))
        found += p_value({0: binary_sums(3, few)}, {0: binary_sums(100, many)}) < 0.05
        spreads = [math.sqrt(n * p * (1 - p) / (n - 1)) for n, p in ((3, few / 3), (100, many / 100))]
        welch = scipy.stats.ttest_ind_from_stats(
            few / 3, spreads[0], 3, many / 100, spreads[1], 100, equal_var=False
        )
        naive += float(welch.pvalue) < 0.05
    assert found <= MOST
    assert naive > 3 * MOST / 2, "plain Welch should be far off, or this simulation shows nothing"
