"""Sample-ratio mismatch: were units dealt to the variants as the weights say?

Where they were not, something lost or moved units on one side (a redirect, a crash, a bot filter), and what is
left of the variants no longer differs by the dealing alone: no result of such an experiment can be believed.

Units are counted by the epoch of their first exposure and held against the weights of that epoch.

References:
    Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022,
        https://arxiv.org/abs/2011.03567
    Kohavi, Tang & Xu, "Trustworthy Online Controlled Experiments", 2020, chapter 21
    Pearson, "On the criterion that a given system of deviations ...", Philosophical Magazine 50, 1900
    Cochran, "Some methods for strengthening the common χ² tests", Biometrics 10, 1954
    Ville, "Étude critique de la notion de collectif", 1939 (why a Bayes factor may be looked at every day)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, gammaln

from promptab.checks import check_count, check_number
from promptab.errors import InvalidInputError

Floats = npt.NDArray[np.float64]
Gate = Literal["sequential", "fixed"]
"""Which of the two tests stops a winner: the one for any number of looks, or the one for a single look."""

# A total of 100 spreads the alternative's share of an even dealing by 5 points. Simulated at 49/51, 45/55 and
# 40/60 instead of 50/50 the alarm then comes within a fifth of the fewest units that any choice between 2 and
# 10,000 needs; 10,000 takes three times as many at 45/55, and 2 misses 49/51 for long.
CONCENTRATION = 100.0
# Chi-square is no longer near its distribution below these (tea-tasting's threshold; Cochran 1954).
_FEW_UNITS = 1_000
_FEW_EXPECTED = 5.0
_MOST_OUTCOMES = 1_000_000
# Outcomes as likely as the observed one differ from it by rounding (as in scipy.stats.binomtest).
_AS_LIKELY = 1e-7
# As in the dealing: a share below this is dealt to nobody.
_LEAST_SHARE = 1e-18


class EpochUnits(NamedTuple):
    """What the weights were in one epoch, and how many units had their first exposure in it."""

    units: Mapping[str, int]
    """By variant; a variant that is not named has none."""
    weights: Mapping[str, float]
    """By variant; only their proportions count. Names every variant that has units."""


class SampleRatio(NamedTuple):
    """How the units were dealt, against how the weights say they should have been."""

    mismatch: bool
    """Whether the test that was asked to gate says so; always where `impossible` is not 0."""
    p_value: float | None
    """Fixed-horizon, over all epochs; None where there was nothing to deal: no units, or one variant."""
    p_method: Literal["chi-square", "exact", "bayes factor"] | None
    """Where `p_value` comes from (see `sample_ratio`)."""
    log_bayes_factor: float
    """Natural logarithm, for another dealing than the weights'; infinite where `impossible` is not 0."""
    impossible: int
    """Units in variants whose weight in that epoch was zero: no dealing by the weights puts them there."""
    observed: Mapping[str, int]
    """Units by variant, over all epochs."""
    expected: Mapping[str, float]
    """Units by variant that the weights of the epochs would give to as many units."""


def sample_ratio(
    epochs: Sequence[EpochUnits],
    *,
    gate: Gate = "sequential",
    alpha: float = 0.001,
    bayes_factor: float = 100.0,
    concentration: float = CONCENTRATION,
) -> SampleRatio:
    """Test the dealing both ways; `gate` says which test makes a mismatch.

    "sequential": the Bayes factor reaches `bayes_factor`, which happens to a true dealing with probability at
    most 1 / bayes_factor, however often one looks. "fixed": p <= alpha, right for one look only. For k
    segments give each alpha / k and k * bayes_factor (Bonferroni).

    The p-value is chi-square's; below 1,000 units, or with an expected count below 5, that of the exact test;
    and where that has more outcomes than can be gone through while an expected count is below 5, the inverse
    Bayes factor, which holds at any size and errs on the cautious side.

    Without units, or with one variant of positive weight per epoch, there is no p-value, the Bayes factor is 1
    and nothing is a mismatch. A unit in a variant of weight zero is a mismatch by itself: p is 0.

    Raises `InvalidInputError` for negative counts, weights that are negative, not finite or below 1e-18 of the
    largest, units of a variant without a weight, alpha outside (0, 1), a Bayes factor below 1, and a
    concentration that is not positive.
    """
    if not 0.0 < alpha < 1.0:
        raise InvalidInputError("alpha", alpha, "between 0 and 1", "the usual level is 0.001")
    if not 1.0 <= bayes_factor < math.inf:
        raise InvalidInputError(
            "bayes_factor", bayes_factor, "a number of at least 1", "the usual one is 100"
        )
    log_bayes_factor = sequential_bayes_factor(epochs, concentration=concentration)
    p_value, p_method = _p_value(epochs, log_bayes_factor)
    impossible = sum(_dealt(epoch).impossible for epoch in epochs)
    if gate == "sequential":
        alarm = log_bayes_factor >= math.log(bayes_factor)
    else:
        alarm = p_value is not None and p_value <= alpha
    observed, expected = _totals(epochs)
    return SampleRatio(
        mismatch=alarm or impossible > 0,
        p_value=p_value,
        p_method=p_method,
        log_bayes_factor=log_bayes_factor,
        impossible=impossible,
        observed=observed,
        expected=expected,
    )


def chi_square(epochs: Iterable[EpochUnits]) -> float | None:
    """Return Pearson's p-value: Σ (observed - expected)² / expected over variants, summed over epochs.

    Degrees of freedom are (variants of positive weight - 1), summed over the epochs that have units; a variant
    of weight zero is in neither sum, and a unit in one makes p 0. None where no degree of freedom is left.
    Assumes independent units and expected counts of 5 or more (Cochran 1954). Raises as `sample_ratio` does.
    """
    statistic, df = 0.0, 0
    for epoch in epochs:
        dealt = _dealt(epoch)
        if dealt.impossible:
            return 0.0
        expected = dealt.total * dealt.shares
        if dealt.total:
            statistic += float((((dealt.counts - expected) ** 2) / expected).sum())
            df += len(dealt.counts) - 1
    return float(chdtrc(df, statistic)) if df else None


def exact(epochs: Iterable[EpochUnits]) -> float | None:
    """Return the probability, dealing by the weights, of all outcomes no likelier than the observed one.

    The exact multinomial test; with two variants and one epoch that is the two-sided binomial test. An outcome
    is a count for every variant in every epoch; an outcome's probability is the product over epochs. p is 0
    with a unit in a variant of weight zero, None where only one outcome is possible.

    Raises `InvalidInputError` beyond 1,000,000 outcomes, and as `sample_ratio` does.
    """
    every = [_dealt(epoch) for epoch in epochs]
    if any(dealt.impossible for dealt in every):
        return 0.0
    tested = [dealt for dealt in every if dealt.outcomes > 1]
    outcomes = math.prod(dealt.outcomes for dealt in tested)
    if outcomes > _MOST_OUTCOMES:
        bound = f"at most {_MOST_OUTCOMES:,} possible outcomes"
        raise InvalidInputError("epochs", outcomes, bound, "use chi_square for as many units as these")
    if not tested:
        return None
    log_probabilities = np.zeros(1)
    for dealt in tested:
        log_probabilities = np.add.outer(log_probabilities, _log_probabilities(dealt)).ravel()
    observed = sum(_log_probability(dealt) for dealt in tested)
    no_likelier = log_probabilities[log_probabilities <= observed + _AS_LIKELY]
    return min(1.0, float(np.exp(no_likelier).sum()))


def sequential_bayes_factor(epochs: Iterable[EpochUnits], *, concentration: float = CONCENTRATION) -> float:
    """Return the log Bayes factor of another dealing against the weights': 0.0 without units.

    Γ(A)/Γ(A+n) Π Γ(a_j+x_j)/Γ(a_j) / Π θ_j^{x_j} with a Dirichlet(a) alternative (Lindon & Malek 2022),
    multiplied over epochs. Dealing by the weights it is a martingale of mean 1 in the order of arrival, so
    it ever reaches b with probability at most 1 / b (Ville 1939).

    a_j = concentration * θ_j, θ_j the share of the weights: the alternative is centered at the weights, so
    that no direction is favoured, also where a variant has 1 % of them. A larger `concentration` looks for
    smaller mismatches and needs more units to see gross ones.

    Infinite with a unit in a variant of weight zero. Raises as `sample_ratio` does.
    """
    check_number("concentration", concentration, above=0.0)
    return math.fsum(_log_bayes_factor(_dealt(epoch), concentration) for epoch in epochs)


def sequential_p_values(
    looks: Iterable[Sequence[EpochUnits]], *, concentration: float = CONCENTRATION
) -> list[float]:
    """Return the sequential p-value at each look, 1 / max(1, highest Bayes factor so far): it never rises.

    `looks` are all units so far, in the order of time. At or below alpha with probability at most alpha at any
    look (Lindon & Malek 2022). Raises as `sample_ratio` does.
    """
    p_values: list[float] = []
    highest = 0.0
    for epochs in looks:
        highest = max(highest, sequential_bayes_factor(epochs, concentration=concentration))
        p_values.append(math.exp(-highest))
    return p_values


class _Dealt(NamedTuple):
    """One epoch, of the variants with a positive weight only."""

    counts: Floats
    shares: Floats
    """Of the weights; they add up to 1."""
    total: int
    """Units in these variants."""
    outcomes: int
    """In how many ways that many units can be counted in these variants; 1 where nothing is dealt."""
    impossible: int
    """Units in variants of weight zero."""


def _dealt(epoch: EpochUnits) -> _Dealt:
    for variant, count in epoch.units.items():
        check_count(f"units.{variant}", count)
        if variant not in epoch.weights:
            remedy = "give each epoch the weights of all its variants, zeros included"
            raise InvalidInputError(f"units.{variant}", count, "of a variant that has a weight", remedy)
    shares = {variant: share for variant, share in _shares(epoch.weights).items() if share > 0.0}
    counts = [epoch.units.get(variant, 0) for variant in shares]
    total = sum(counts)
    return _Dealt(
        counts=np.array(counts, dtype=np.float64),
        shares=np.array(list(shares.values()), dtype=np.float64),
        total=total,
        outcomes=math.comb(total + len(shares) - 1, total) if shares else 1,
        impossible=sum(epoch.units.values()) - total,
    )


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the shares that the weights stand for; all zero where every weight is."""
    for variant, weight in weights.items():
        check_number(f"weights.{variant}", weight, low=0.0)
    heaviest = max(weights.values(), default=0.0)
    for variant, weight in weights.items():
        if 0.0 < weight < _LEAST_SHARE * heaviest:
            bound = f"0 or at least {_LEAST_SHARE:g} of the largest weight"
            raise InvalidInputError(f"weights.{variant}", weight, bound)
    if not heaviest:
        return dict.fromkeys(weights, 0.0)
    # in shares of the heaviest: the sum of weights may overflow
    total = math.fsum(weight / heaviest for weight in weights.values())
    return {variant: weight / heaviest / total for variant, weight in weights.items()}


def _p_value(
    epochs: Sequence[EpochUnits], log_bayes_factor: float
) -> tuple[float | None, Literal["chi-square", "exact", "bayes factor"] | None]:
    every = [_dealt(epoch) for epoch in epochs]
    if any(dealt.impossible for dealt in every):
        return 0.0, "exact"
    tested = [dealt for dealt in every if dealt.outcomes > 1]
    if not tested:
        return None, None
    least = min(float(dealt.total * dealt.shares.min()) for dealt in tested)
    if sum(dealt.total for dealt in tested) < _FEW_UNITS or least < _FEW_EXPECTED:
        if math.prod(dealt.outcomes for dealt in tested) <= _MOST_OUTCOMES:
            return exact(epochs), "exact"
        if least < _FEW_EXPECTED:
            return min(1.0, math.exp(-log_bayes_factor)), "bayes factor"
    return chi_square(epochs), "chi-square"


def _totals(epochs: Iterable[EpochUnits]) -> tuple[dict[str, int], dict[str, float]]:
    observed: dict[str, int] = {}
    expected: dict[str, float] = {}
    for epoch in epochs:
        total = sum(epoch.units.values())
        for variant, share in _shares(epoch.weights).items():
            observed[variant] = observed.get(variant, 0) + epoch.units.get(variant, 0)
            expected[variant] = expected.get(variant, 0.0) + share * total
    return observed, expected


def _log_bayes_factor(dealt: _Dealt, concentration: float) -> float:
    if dealt.impossible:
        return math.inf
    if not dealt.total:
        return 0.0
    prior = concentration * dealt.shares
    mixture = gammaln(prior + dealt.counts) - gammaln(prior) - dealt.counts * np.log(dealt.shares)
    return float(gammaln(concentration) - gammaln(concentration + dealt.total) + mixture.sum())


def _log_probability(dealt: _Dealt) -> float:
    """Return the logarithm of the multinomial probability of what was observed."""
    terms = dealt.counts * np.log(dealt.shares) - gammaln(dealt.counts + 1.0)
    return float(gammaln(dealt.total + 1.0) + terms.sum())


def _log_probabilities(dealt: _Dealt) -> Floats:
    """Return the logarithms of the multinomial probabilities of all ways to deal the epoch's units."""
    used = np.zeros(1, dtype=np.int64)
    so_far = np.full(1, gammaln(dealt.total + 1.0))
    for share in dealt.shares[:-1]:
        choices = dealt.total - used + 1
        first = np.repeat(np.cumsum(choices) - choices, choices)
        count = np.arange(choices.sum()) - first
        used = np.repeat(used, choices) + count
        so_far = np.repeat(so_far, choices) + count * np.log(share) - gammaln(count + 1.0)
    rest = dealt.total - used
    last: Floats = so_far + rest * np.log(dealt.shares[-1]) - gammaln(rest + 1.0)
    return last
