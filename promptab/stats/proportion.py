"""Proportions: one observation of 0 or 1 per unit, at a fixed horizon.

Only for units that have exactly one observation each. Where a unit has several, its share of successes is a
ratio of sums, and `promptab.stats.ratio` is right. The functions know one epoch; counts must not be pooled
over a change of weights.

References:
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927
    Newcombe, "Two-sided confidence intervals for the single proportion" (method 3) and "Interval estimation
        for the difference between independent proportions" (method 10), Statistics in Medicine 17, 1998,
        857-872 and 873-890
    Barnard, "Significance tests for 2 x 2 tables", Biometrika 34, 1947
    Berger & Boos, "P values maximized over a confidence set for the nuisance parameter", JASA 89, 1994
    Suissa & Shuster, "Exact unconditional sample sizes for the 2 x 2 binomial trial", JRSS-A 148, 1985
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import betaincinv, gammaln, ndtr, ndtri

from promptab.errors import InvalidInputError
from promptab.stats.interval import Alternative, Interval

Floats = npt.NDArray[np.float64]

EXACT_BELOW = 1_000
"""Trials of both arms together, below which p-values are exact (tea-tasting's threshold)."""

# Chance that the proportion common to both arms is one that Barnard's test does not look at.
_RULED_OUT = 1e-6
# Grid points per standard deviation of the pooled proportion, and how close to the best one a local maximum
# has to come to be climbed: between points of that grid a tail probability rises by far less.
_GRID_DENSITY = 8.0
_WORTH_CLIMBING = 0.98


class ZTest(NamedTuple):
    """A test of two proportions by the normal approximation."""

    z: float | None
    """The difference in standard errors; None where nothing varies: all successes, or none, in both arms."""
    p_value: float


class ProportionDifference(NamedTuple):
    """The first proportion minus the second, with Newcombe's interval."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided, of no difference."""
    method: Literal["barnard exact", "pooled z"]
    """Where the p-value is from."""


def wilson_interval(successes: float, trials: float, *, confidence: float = 0.95) -> Interval | None:
    """Return Wilson's score interval of a proportion (1927; Newcombe 1998, method 3), without continuity
    correction.

    Always within [0, 1]; no successes give a lower end of 0.0, nothing but successes an upper end of 1.0.
    None without trials. Assumes independent trials of one probability.

    Raises:
        InvalidInputError: counts that are not whole, or not 0 <= successes <= trials; confidence outside (0, 1).
    """
    _check_counts("successes", successes, trials)
    z = _critical(confidence)
    return Interval(*_score_limits(successes, trials, z)) if trials else None


def newcombe_interval(
    x1: float, n1: float, x2: float, n2: float, *, confidence: float = 0.95
) -> Interval | None:
    """Return Newcombe's hybrid score interval of x1/n1 - x2/n2 (1998, method 10), without continuity correction.

    Wilson's limits of the two proportions, squared and added: right where an arm has no successes or nothing
    but successes, within [-1, 1], and mirrored when the arms change places. None where an arm has no trials.

    Raises:
        InvalidInputError: counts that are not whole, or not 0 <= x <= n; confidence outside (0, 1).
    """
    _check_arms(x1, n1, x2, n2)
    z = _critical(confidence)
    if not n1 or not n2:
        return None
    p1, p2 = x1 / n1, x2 / n2
    (low1, high1), (low2, high2) = _score_limits(x1, n1, z), _score_limits(x2, n2, z)
    return Interval(
        p1 - p2 - math.hypot(p1 - low1, high2 - p2),
        p1 - p2 + math.hypot(high1 - p1, p2 - low2),
    )


def proportions_z_test(
    x1: float, n1: float, x2: float, n2: float, *, alternative: Alternative = "two-sided"
) -> ZTest | None:
    """Test p1 = p2 by z = (x1/n1 - x2/n2) / sqrt(p q (1/n1 + 1/n2)), p pooled over both arms; q = 1 - p.

    "greater" claims p1 > p2. Its square is Pearson's chi-square. Assumes enough successes and failures for a
    normal difference, five expected of each in each arm by the usual rule. Where nothing varies, all successes
    or none, z is None and the p-value 1.0 for every alternative. None where an arm has no trials.

    Raises:
        InvalidInputError: counts that are not whole, or not 0 <= x <= n.
    """
    _check_arms(x1, n1, x2, n2)
    if not n1 or not n2:
        return None
    pooled = (x1 + x2) / (n1 + n2)
    variance = pooled * ((n1 - x1 + n2 - x2) / (n1 + n2)) * (1 / n1 + 1 / n2)
    if variance == 0.0:
        return ZTest(None, 1.0)
    z = (x1 / n1 - x2 / n2) / math.sqrt(variance)
    if alternative == "two-sided":
        return ZTest(z, float(2.0 * ndtr(-abs(z))))
    return ZTest(z, float(ndtr(-z if alternative == "greater" else z)))


def barnard_p(x1: float, n1: float, x2: float, n2: float) -> float | None:
    """Return the two-sided p-value of Barnard's exact test with the pooled z as its statistic.

    The largest probability of a table whose |z| is at least the one observed (Barnard 1947; Suissa & Shuster
    1985), over every proportion that the arms could share and that the data do not rule out at one in a million;
    that millionth is added (Berger & Boos 1994), so no p-value is below it and none is decided by a rate far
    from anything seen, as happens with arms of very different sizes. Ties are decided in whole numbers.

    Taken rather than Fisher's exact test, which also holds the number of successes fixed and pays for it: at a
    success rate of 15 % and a level of 5 % its chance of a false alarm is 2 % with 20 units an arm and 3 % with
    100, and with 20 it finds an effect in 35 % of experiments where this test finds it in 45 %. Boschloo's lies
    between the two, and its statistic costs far more. Assumes independent trials of one probability per arm.
    1.0 where the proportions are equal; None where an arm has no trials.

    Raises:
        InvalidInputError: counts that are not whole, or not 0 <= x <= n, or `EXACT_BELOW` trials or more.
    """
    _check_arms(x1, n1, x2, n2)
    if n1 + n2 >= EXACT_BELOW:
        bound = f"below {EXACT_BELOW} in both arms together"
        raise InvalidInputError("trials", n1 + n2, bound, "use proportions_z_test")
    if not n1 or not n2:
        return None
    if x1 * n2 == x2 * n1:
        return 1.0
    far_apart = _at_least_as_far_apart(int(x1), int(n1), int(x2), int(n2)).astype(np.float64)
    low, high = _possible_angles(x1 + x2, n1 + n2)
    return min(1.0, _largest_probability(far_apart, low, high) + _RULED_OUT)


def proportion_difference(
    x1: float, n1: float, x2: float, n2: float, *, confidence: float = 0.95
) -> ProportionDifference | None:
    """Compare two proportions: Newcombe's interval, and a p-value that is Barnard's below `EXACT_BELOW` trials
    in both arms together and the pooled z test's from there on.

    Interval and p-value are two methods, each the better of its kind: close to the border one may exclude no
    difference while the other does not. None where an arm has no trials.

    Raises:
        InvalidInputError: counts that are not whole, or not 0 <= x <= n; confidence outside (0, 1).
    """
    interval = newcombe_interval(x1, n1, x2, n2, confidence=confidence)
    test = proportions_z_test(x1, n1, x2, n2)
    if interval is None or test is None:
        return None
    value = x1 / n1 - x2 / n2
    exact_p = barnard_p(x1, n1, x2, n2) if n1 + n2 < EXACT_BELOW else None
    if exact_p is not None:
        return ProportionDifference(value, interval.low, interval.high, exact_p, "barnard exact")
    return ProportionDifference(value, interval.low, interval.high, test.p_value, "pooled z")


def _score_limits(successes: float, trials: float, z: float) -> tuple[float, float]:
    # the upper limit is the lower one of the failures: an exact 0 and 1 at the ends, and nothing cancels
    return _lower_limit(successes, trials, z), 1.0 - _lower_limit(trials - successes, trials, z)


def _lower_limit(successes: float, trials: float, z: float) -> float:
    """The smaller root p of (x - n p)² = z² n p (1 - p), written so that it is a quotient of sums."""
    share = successes / trials
    spread = z * math.sqrt(z * z + 4.0 * successes * (1.0 - share))
    return 2.0 * successes * share / (2.0 * successes + z * z + spread)


def _at_least_as_far_apart(x1: int, n1: int, x2: int, n2: int) -> npt.NDArray[np.bool_]:
    """Which of the tables (successes in the first arm, in the second) have |z| at or above that of (x1, x2).

    z² is (x1 n2 - x2 n1)² / (t (n1 + n2 - t)) times a constant, with t successes in all, so it is compared
    crosswise in whole numbers. Below 1,000 trials the products stay below 2e16, within 64 bits.
    """
    first = np.arange(n1 + 1, dtype=np.int64)[:, None]
    second = np.arange(n2 + 1, dtype=np.int64)[None, :]
    apart = (first * n2 - second * n1) ** 2
    spread = (first + second) * (n1 + n2 - first - second)
    observed_apart, observed_spread = (x1 * n2 - x2 * n1) ** 2, (x1 + x2) * (n1 + n2 - x1 - x2)
    # tables without any spread, all successes or none, have z = 0
    return (apart * observed_spread >= observed_apart * spread) & (spread > 0)


def _possible_angles(successes: float, trials: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of the common proportion p (Biometrika 26, 1934), as arcsin(sqrt(p))."""
    low = math.asin(math.sqrt(betaincinv(successes, trials - successes + 1, _RULED_OUT / 2)))
    high = math.acos(math.sqrt(betaincinv(trials - successes, successes + 1, _RULED_OUT / 2)))
    return low, high


def _largest_probability(tables: Floats, low: float, high: float) -> float:
    """Maximise the probability of the tables that are marked by 1 over the angles from `low` to `high`.

    In the angle arcsin(sqrt(p)) the pooled proportion has the same standard deviation, 1 / (2 sqrt(trials)),
    everywhere, so an even grid misses no maximum.
    """
    deviation = 0.5 / math.sqrt(sum(tables.shape) - 2)
    angles = np.linspace(low, high, 2 + math.ceil((high - low) / deviation * _GRID_DENSITY))
    heights = _probabilities(tables, angles)
    padded = np.concatenate([[0.0], heights, [0.0]])
    peaks = (heights >= padded[:-2]) & (heights >= padded[2:]) & (heights >= _WORTH_CLIMBING * heights.max())
    step = angles[1] - angles[0]
    climbed = [_peak(tables, max(low, at - step), min(high, at + step)) for at in angles[peaks]]
    return max(float(heights.max()), *climbed)


def _peak(tables: Floats, low: float, high: float) -> float:
    """Return the highest probability between two angles that hold one local maximum."""

    def depth(angle: float) -> float:
        return -float(_probabilities(tables, np.array([angle], dtype=np.float64))[0])

    top = minimize_scalar(depth, bounds=(low, high), method="bounded", options={"xatol": 1e-6 * (high - low)})
    return -float(top.fun)


def _probabilities(tables: Floats, angles: Floats) -> Floats:
    """The probability of the tables, at each of the angles."""
    first, second = (_binomial(size - 1, angles) for size in tables.shape)
    total: Floats = ((first @ tables) * second).sum(axis=1)
    return total


def _binomial(trials: int, angles: Floats) -> Floats:
    """Binomial probabilities of 0 to `trials` successes: a row for each angle arcsin(sqrt(p))."""
    successes = np.arange(trials + 1)
    ways = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
    log_p, log_q = 2.0 * np.log(np.sin(angles)), 2.0 * np.log(np.cos(angles))
    rows: Floats = np.exp(ways + np.outer(log_p, successes) + np.outer(log_q, trials - successes))
    return rows


def _critical(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("confidence", confidence, "between 0 and 1", "write 95 % as 0.95")
    return float(ndtri((1.0 + confidence) / 2.0))


def _check_arms(x1: float, n1: float, x2: float, n2: float) -> None:
    _check_counts("x1", x1, n1)
    _check_counts("x2", x2, n2)


def _check_counts(field: str, successes: float, trials: float) -> None:
    if not (math.isfinite(trials) and trials >= 0 and trials == math.floor(trials)):
        raise InvalidInputError(f"trials of {field}", trials, "a whole number from 0 up", "count the units")
    if not (0 <= successes <= trials and successes == math.floor(successes)):
        bound = f"a whole number from 0 to {trials:g}"
        remedy = "a unit has one observation of 0 or 1; use ratio_difference for anything else"
        raise InvalidInputError(field, successes, bound, remedy)
