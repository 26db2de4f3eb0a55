"""Posteriors against published numbers, closed forms in other arithmetic, and integrals by another road."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from promptab.errors import InvalidInputError
from promptab.stats.bayesian import (
    LIFT_PRIOR,
    BetaPrior,
    NormalPrior,
    Posterior,
    normal_posterior,
    probability_best,
    proportion_posterior,
)
from promptab.stats.beta import BetaRate, RateDifference
from promptab.stats.contrast import ArmMean, Stratum, combined
from promptab.stats.lift import delta_lift
from tests.oracles import oracle

effects = st.floats(min_value=-1e6, max_value=1e6)
errors = st.floats(min_value=1e-6, max_value=1e6)
credibilities = st.floats(min_value=0.01, max_value=0.9999)

NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


@st.composite
def trials(draw: st.DrawFn, most: int = 60) -> tuple[int, int]:
    n = draw(st.integers(min_value=0, max_value=most))
    return draw(st.integers(min_value=0, max_value=n)), n


def of_lift(treatment: ArmMean, control: ArmMean, prior: NormalPrior | None = None) -> Posterior:
    effect = delta_lift(combined([Stratum(0, treatment, control)]))
    assert effect is not None
    return known(normal_posterior(effect.value, effect.se, prior=prior))


def known(posterior: Posterior | None) -> Posterior:
    assert posterior is not None
    return posterior


def assert_like_growthbook(posterior: Posterior, row: dict[str, Any]) -> None:
    expected, tolerance = row["expected"], row["tol"]
    assert posterior.mean == pytest.approx(expected["lift"], abs=tolerance)
    assert (posterior.low, posterior.high) == pytest.approx(tuple(expected["ci"]), abs=tolerance)
    assert posterior.sd == pytest.approx(expected["se"], abs=tolerance)
    assert posterior.probability_better == pytest.approx(expected["ctw"], abs=tolerance)
    assert (posterior.loss_control, posterior.loss_treatment) == pytest.approx(
        tuple(expected["risk"]), abs=tolerance
    )


def test_flat_prior_on_a_lift_matches_growthbook() -> None:
    row = oracle("gb-bayes-binom")
    arms = {}
    for name in ("treatment", "control"):
        x, n = row["inputs"][name]["x"], row["inputs"][name]["n"]
        arms[name] = ArmMean(x / n, x / n * (1 - x / n) / n, n)
    assert_like_growthbook(of_lift(arms["treatment"], arms["control"]), row)


def test_informative_prior_on_a_lift_matches_growthbook() -> None:
    row = oracle("gb-bayes-gauss-prior")
    arms = {}
    for name in ("treatment", "control"):
        n, total, squares = (row["inputs"][name][key] for key in ("n", "sum", "sum_squares"))
        arms[name] = ArmMean(total / n, (squares - total * total / n) / (n - 1) / n, n)
    prior = NormalPrior(row["inputs"]["prior"]["mean"], math.sqrt(row["inputs"]["prior"]["variance"]))
    assert_like_growthbook(of_lift(arms["treatment"], arms["control"], prior), row)


def test_normal_loss_matches_the_closed_form_of_the_sheet() -> None:
    row = oracle("normal-loss")
    posterior = known(normal_posterior(row["inputs"]["mean"], row["inputs"]["sd"]))
    assert posterior.probability_better == pytest.approx(row["expected"]["p"], abs=row["tol"])
    assert posterior.loss_treatment == pytest.approx(row["expected"]["loss_treatment"], abs=row["tol"])
    assert posterior.loss_control == pytest.approx(row["expected"]["loss_control"], abs=row["tol"])


@pytest.mark.parametrize("row_id", ["betabin-pba-1", "betabin-pba-2", "betabin-pba-4"])
def test_two_rates_match_the_published_closed_form(row_id: str) -> None:
    row = oracle(row_id)
    inputs, expected = row["inputs"], row["expected"]
    posterior = proportion_posterior(
        (inputs["xB"], inputs["nB"]), (inputs["xA"], inputs["nA"]), prior=BetaPrior(*inputs["prior"])
    )
    assert posterior.probability_better == pytest.approx(expected["p_b_beats_a"], abs=row["tol"])
    assert posterior.loss_treatment == pytest.approx(expected["loss_choose_b"], abs=row["tol"])
    assert posterior.loss_control == pytest.approx(expected["loss_choose_a"], abs=row["tol"])


def test_best_of_three_arms_matches_the_sheet() -> None:
    row = oracle("thompson-pbest")
    rates = [x / n for x, n in zip(row["inputs"]["x"], row["inputs"]["n"], strict=True)]
    sds = [math.sqrt(p * (1 - p) / n) for p, n in zip(rates, row["inputs"]["n"], strict=True)]
    assert probability_best(rates, sds) == pytest.approx(row["expected"], abs=row["tol"])


def exactly_above(a: BetaRate, b: BetaRate) -> Fraction:
    """P(b > a) for whole shapes by Miller's sum, in fractions."""

    def factorial(number: float) -> int:
        return math.factorial(round(number))

    def beta_function(x: float, y: float) -> Fraction:
        return Fraction(factorial(x - 1) * factorial(y - 1), factorial(x + y - 1))

    return sum(
        (
            beta_function(a.alpha + i, a.beta + b.beta)
            / (Fraction(b.beta + i) * beta_function(1 + i, b.beta) * beta_function(a.alpha, a.beta))
            for i in range(round(b.alpha))
        ),
        Fraction(0),
    )


@settings(deadline=None, max_examples=40)
@given(trials(), trials())
def test_probability_and_losses_match_exact_fractions(
    treatment: tuple[int, int], control: tuple[int, int]
) -> None:
    t, c = (BetaRate(1 + x, 1 + n - x) for x, n in (treatment, control))
    above = exactly_above(c, t)
    # one more success turns a density into itself times the rate
    treatment_higher, control_higher = t._replace(alpha=t.alpha + 1), c._replace(alpha=c.alpha + 1)
    t_mean, c_mean = (Fraction(rate.alpha) / Fraction(rate.alpha + rate.beta) for rate in (t, c))
    loss_treatment = c_mean * (1 - exactly_above(control_higher, t)) - t_mean * (
        1 - exactly_above(c, treatment_higher)
    )
    posterior = proportion_posterior(treatment, control)
    assert posterior.probability_better == pytest.approx(float(above), abs=1e-12)
    assert posterior.loss_treatment == pytest.approx(float(loss_treatment), abs=1e-12)
    assert posterior.loss_control == pytest.approx(float(loss_treatment + t_mean - c_mean), abs=1e-12)


@pytest.mark.parametrize(
    ("treatment", "control", "above", "loss"),
    [
        ((1100, 10**6), (1000, 10**6), 0.985486948122546, 2.34962827551602e-7),
        ((40, 2 * 10**6), (20, 10**6), 0.475928579162942, 2.47274143241291e-6),
        ((2, 10**6), (0, 10**6), 0.875000187499906, 1.24999375001906e-7),
        ((150_500, 10**6), (150_000, 10**6), 0.838782774175218, 4.2952344599642e-5),
    ],
)
def test_a_million_trials_keep_nine_digits(
    treatment: tuple[int, int], control: tuple[int, int], above: float, loss: float
) -> None:
    # Miller's sum, evaluated with 40 digits
    posterior = proportion_posterior(treatment, control)
    assert posterior.probability_better == pytest.approx(above, abs=1e-9)
    assert posterior.loss_treatment == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(
    ("treatment", "control", "prior"),
    [
        ((7, 10), (3, 10), BetaPrior()),
        ((0, 10), (10, 10), BetaPrior()),
        ((0, 200), (3, 50), BetaPrior()),
        ((3, 50), (0, 200), BetaPrior(0.5, 0.5)),
        ((1500, 10_000), (1600, 10_000), BetaPrior()),
        ((5, 10), (300, 2_000), BetaPrior(2.0, 8.0)),
    ],
)
def test_credible_interval_leaves_equal_tails_by_another_integral(
    treatment: tuple[int, int], control: tuple[int, int], prior: BetaPrior
) -> None:
    posterior = proportion_posterior(treatment, control, prior=prior, credibility=0.9)
    t, c = (stats.beta(prior.alpha + x, prior.beta + n - x) for x, n in (treatment, control))

    def at_most(difference: float) -> float:
        # over the control's probability instead of its log odds: u = F(rate)
        corners = sorted({float(c.cdf(-difference)), float(c.cdf(1.0 - difference)), 0.0, 1.0})
        return math.fsum(
            integrate.quad(
                lambda u: t.cdf(c.ppf(u) + difference), low, high, epsabs=1e-10, epsrel=1e-9, limit=200
            )[0]
            for low, high in itertools.pairwise(corners)
        )

    assert at_most(posterior.low) == pytest.approx(0.05, abs=1e-7)
    assert at_most(posterior.high) == pytest.approx(0.95, abs=1e-7)


def test_no_trials_leave_the_prior_whose_difference_is_triangular() -> None:
    posterior = proportion_posterior((0, 0), (0, 0))
    assert posterior.probability_better == pytest.approx(0.5, abs=1e-12)
    assert posterior.loss_treatment == pytest.approx(1 / 6, abs=1e-12)
    assert posterior.high == pytest.approx(1 - math.sqrt(0.05), abs=1e-9)
    assert posterior.low == pytest.approx(-posterior.high, abs=1e-9)


def test_many_trials_agree_with_the_normal_posterior() -> None:
    # the flat beta prior is worth one success and one failure, which moves the mean by 1e-6 of itself
    x, y, n = 402_000, 400_000, 10**6
    exact = proportion_posterior((x, n), (y, n))
    se = math.sqrt((x / n * (1 - x / n) + y / n * (1 - y / n)) / n)
    assert exact == pytest.approx(known(normal_posterior((x - y) / n, se)), rel=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    trials(most=5_000),
    trials(most=5_000),
    st.tuples(st.floats(min_value=0.3, max_value=30.0), st.floats(min_value=0.3, max_value=30.0)),
    credibilities,
)
def test_rates_judged_by_decrease_mirror_their_complements_judged_by_increase(
    treatment: tuple[int, int], control: tuple[int, int], shapes: tuple[float, float], credibility: float
) -> None:
    down = proportion_posterior(
        treatment, control, prior=BetaPrior(*shapes), direction="decrease", credibility=credibility
    )
    up = proportion_posterior(
        (treatment[1] - treatment[0], treatment[1]),
        (control[1] - control[0], control[1]),
        prior=BetaPrior(shapes[1], shapes[0]),
        credibility=credibility,
    )
    mirrored = down._replace(mean=-down.mean, low=-down.high, high=-down.low)
    assert mirrored == pytest.approx(up, rel=1e-8, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(trials(most=5_000), trials(most=5_000))
def test_exchanged_arms_exchange_the_losses(treatment: tuple[int, int], control: tuple[int, int]) -> None:
    one, other = proportion_posterior(treatment, control), proportion_posterior(control, treatment)
    assert one.probability_better == pytest.approx(1 - other.probability_better, abs=1e-10)
    assert one.loss_treatment == pytest.approx(other.loss_control, abs=1e-10)
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert -1.0 <= one.low < one.high <= 1.0


@pytest.mark.parametrize("rate", [BetaRate(1.0, 1.0), BetaRate(0.5, 80.0), BetaRate(700.0, 300.0)])
def test_distribution_of_the_difference_rises_from_0_to_1(rate: BetaRate) -> None:
    difference = RateDifference(rate, BetaRate(3.0, 9.0))
    grid = np.linspace(-1.0, 1.0, 41)
    values = [difference.probability_at_most(float(at)) for at in grid]
    assert values[0] == pytest.approx(0.0, abs=1e-12)
    assert values[-1] == pytest.approx(1.0, abs=1e-12)
    assert all(later >= sooner - 1e-11 for sooner, later in itertools.pairwise(values))
    assert difference.probability_at_most(0.0) == pytest.approx(1 - difference.probability_above(), abs=1e-11)


@settings(deadline=None)
@given(effects, errors, st.one_of(st.none(), st.builds(NormalPrior, effects, errors)), credibilities)
def test_effects_judged_by_decrease_mirror_the_opposite_judged_by_increase(
    value: float, se: float, prior: NormalPrior | None, credibility: float
) -> None:
    mirrored_prior = prior and prior._replace(mean=-prior.mean)
    down = known(normal_posterior(value, se, prior=prior, direction="decrease", credibility=credibility))
    up = known(normal_posterior(-value, se, prior=mirrored_prior, credibility=credibility))
    assert (-down.mean, down.sd, -down.high, -down.low) == (up.mean, up.sd, up.low, up.high)
    assert down.probability_better == up.probability_better
    assert (down.loss_treatment, down.loss_control) == (up.loss_treatment, up.loss_control)


@settings(deadline=None)
@given(st.floats(min_value=-8.0, max_value=8.0), errors)
def test_normal_losses_match_the_integral_of_what_is_lost(z: float, sd: float) -> None:
    posterior = known(normal_posterior(z * sd, sd))
    # the treatment loses where the effect is below 0, in standard deviations from z - 10 to 0
    reach = max(0.0, 10.0 - z)
    x = -reach * (NODES + 1.0) / 2.0
    lost = float(np.sum(WEIGHTS * reach / 2.0 * -x * np.exp(-0.5 * (x - z) ** 2))) / math.sqrt(2 * math.pi)
    assert posterior.loss_treatment / sd == pytest.approx(lost, abs=1e-12)
    assert posterior.loss_control - posterior.loss_treatment == pytest.approx(posterior.mean, abs=1e-12 * sd)


@settings(deadline=None)
@given(effects, errors, st.builds(NormalPrior, effects, errors))
def test_posterior_lies_between_prior_and_data_and_is_narrower_than_both(
    value: float, se: float, prior: NormalPrior
) -> None:
    posterior = known(normal_posterior(value, se, prior=prior))
    slack = 1e-12 * (abs(value) + abs(prior.mean))
    assert min(value, prior.mean) - slack <= posterior.mean <= max(value, prior.mean) + slack
    assert posterior.sd <= min(se, prior.sd)
    assert posterior.sd**-2 == pytest.approx(se**-2 + prior.sd**-2)


def test_the_usual_prior_on_a_lift_shrinks_what_little_data_claims() -> None:
    alone, shrunk = known(normal_posterior(0.4, 0.3)), known(normal_posterior(0.4, 0.3, prior=LIFT_PRIOR))
    assert shrunk.mean == pytest.approx(0.2)
    assert shrunk.probability_better < alone.probability_better


@settings(deadline=None)
@given(effects, errors, st.floats(min_value=1e-3, max_value=1e3))
def test_scaling_a_posterior_is_the_posterior_of_the_scaled_effect(
    value: float, se: float, factor: float
) -> None:
    scaled = known(normal_posterior(value, se)).scaled(factor)
    assert scaled == pytest.approx(known(normal_posterior(value * factor, se * factor)), rel=1e-9, abs=1e-9)


def test_no_posterior_comes_from_an_effect_that_never_varied() -> None:
    assert normal_posterior(0.3, 0.0) is None
    assert normal_posterior(0.3, 0.0, prior=LIFT_PRIOR) is None


@pytest.mark.parametrize(
    ("value", "se", "prior"),
    [(1.0, 1e-310, None), (1e300, 1e-300, None), (5.0, 1e200, NormalPrior(2.0, 1e-200)), (0.0, 5e-324, None)],
)
def test_extreme_scales_give_finite_numbers(value: float, se: float, prior: NormalPrior | None) -> None:
    posterior = known(normal_posterior(value, se, prior=prior))
    assert all(map(math.isfinite, posterior))
    assert posterior.loss_control == posterior.mean
    assert posterior.loss_treatment == 0.0 or value == 0.0


@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.3, 2.0, 30.0])
@pytest.mark.parametrize("sds", [(1.0, 1.0), (1.0, 1e-9), (1e-4, 3.0)])
def test_best_of_two_arms_is_the_normal_distribution_of_their_difference(
    gap: float, sds: tuple[float, float]
) -> None:
    expected = stats.norm.cdf(gap / math.hypot(*sds))
    assert probability_best([gap, 0.0], sds) == pytest.approx([expected, 1 - expected], abs=1e-13)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-3.0, 3.0), st.floats(1e-3, 5.0)), min_size=1, max_size=6))
def test_one_of_the_arms_is_the_best(arms: list[tuple[float, float]]) -> None:
    means, sds = [mean for mean, _ in arms], [sd for _, sd in arms]
    shares = probability_best(means, sds)
    assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)
    lowest = probability_best([-mean for mean in means], sds, direction="decrease")
    assert lowest == shares


def test_best_of_unlike_arms_matches_adaptive_quadrature() -> None:
    means, sds = [0.0, 0.02, -0.5, 0.1], [1.0, 0.01, 0.3, 0.05]
    for arm, share in enumerate(probability_best(means, sds)):
        others = [j for j in range(4) if j != arm]

        def density(x: float, arm: int = arm, others: list[int] = others) -> float:
            ahead = math.prod(float(stats.norm.cdf(x, means[j], sds[j])) for j in others)
            return float(stats.norm.pdf(x, means[arm], sds[arm])) * ahead

        expected = integrate.quad(density, -6.0, 6.0, points=[-0.1, 0.0, 0.02, 0.05, 0.1, 0.3], limit=300)[0]
        assert share == pytest.approx(expected, abs=1e-8)


def test_arms_that_are_alike_share_alike() -> None:
    assert probability_best([0.2] * 5, [0.1] * 5) == pytest.approx([0.2] * 5, abs=1e-13)
    assert probability_best([0.2], [0.1]) == pytest.approx([1.0], abs=1e-13)
    assert probability_best([], []) == []


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("value", lambda: normal_posterior(math.nan, 1.0)),
        ("se", lambda: normal_posterior(0.0, -1.0)),
        ("prior.sd", lambda: normal_posterior(0.0, 1.0, prior=NormalPrior(0.0, 0.0))),
        ("prior.mean", lambda: normal_posterior(0.0, 1.0, prior=NormalPrior(math.inf, 1.0))),
        ("credibility", lambda: normal_posterior(0.0, 1.0, credibility=1.0)),
        ("credibility", lambda: proportion_posterior((1, 2), (1, 2), credibility=95.0)),
        ("treatment.successes", lambda: proportion_posterior((3, 2), (1, 2))),
        ("control.successes", lambda: proportion_posterior((1, 2), (-1, 2))),
        ("control.trials", lambda: proportion_posterior((1, 2), (1, 2_000_000_000))),
        ("prior.alpha", lambda: proportion_posterior((1, 2), (1, 2), prior=BetaPrior(0.0, 1.0))),
        ("prior.beta", lambda: proportion_posterior((1, 2), (1, 2), prior=BetaPrior(1.0, math.nan))),
        ("sds", lambda: probability_best([0.0, 1.0], [1.0])),
        ("sds", lambda: probability_best([0.0, 1.0], [1.0, 0.0])),
        ("means", lambda: probability_best([0.0, math.inf], [1.0, 1.0])),
        ("factor", lambda: proportion_posterior((1, 2), (1, 2)).scaled(0.0)),
    ],
)
def test_impossible_numbers_are_refused_by_name(field: str, call: Any) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        call()
    assert refusal.value.field == field
