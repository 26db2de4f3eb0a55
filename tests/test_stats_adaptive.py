"""Adaptively weighted estimates: against the same sums done unit by unit, and against what weights that follow do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from promptab.stats.adaptive import UNIFORM, weighted_contrast, weighted_means
from promptab.stats.contrast import Contrast
from promptab.stats.ratio import ratio_contrast, ratio_mean
from promptab.stats.summary import UnitSums

Floats = NDArray[np.float64]
Weights = Mapping[int, Mapping[str, float]]

WEIGHTS: Weights = {
    1: {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
    2: {"a": 0.2, "b": 0.1, "c": 0.7},
    3: {"a": 0.5, "b": 0.05, "c": 0.45},
}


class Units(NamedTuple):
    """The units of one batch: what each got, and its events with their total."""

    got: NDArray[np.str_]
    n: Floats
    s: Floats


def dealt(weights: Weights, *, units: int, most_events: int = 1, seed: int = 7) -> dict[int, Units]:
    generator = np.random.default_rng(seed)
    batches = {}
    for epoch, shares in weights.items():
        got = generator.choice(list(shares), size=units, p=list(shares.values()))
        n = generator.integers(1, most_events + 1, units).astype(float)
        s = generator.normal(n * (1.0 + 0.2 * epoch + 0.3 * (got == "b")), 0.7)
        batches[epoch] = Units(got, n, s)
    return batches


def sums_of(batches: Mapping[int, Units], *, center: float = 0.9) -> dict[str, dict[int, UnitSums]]:
    arms: dict[str, dict[int, UnitSums]] = {}
    for epoch, units in batches.items():
        for key in sorted(set(units.got)):
            mine = units.got == key
            pairs = zip(units.n[mine].tolist(), units.s[mine].tolist(), strict=True)
            arms.setdefault(str(key), {})[epoch] = UnitSums.of(pairs, center=center)
    return arms


def by_unit(batches: Mapping[int, Units], weights: Weights, first: str, second: str) -> tuple[float, float]:
    """Return the difference and its variance, from a score for every single unit (Hadad et al. 2021)."""
    scores: dict[str, list[tuple[Floats, Floats]]] = {first: [], second: []}
    levels: list[Floats] = []
    for epoch, units in batches.items():
        h = 1.0 / math.sqrt(sum(1.0 / share for share in weights[epoch].values()))
        levels.append(np.full(len(units.got), h))
        for key, found in scores.items():
            mine = units.got == key
            before = [batches[e] for e in batches if e < epoch]
            if before:
                past = np.concatenate([b.got for b in before]) == key
                q = [np.concatenate([getattr(b, part) for b in before])[past].mean() for part in ("s", "n")]
                share = weights[epoch][key]
            else:
                q, share = [units.s[mine].mean(), units.n[mine].mean()], mine.mean()
            found.append((q[0] + mine / share * (units.s - q[0]), q[1] + mine / share * (units.n - q[1])))
    each = np.concatenate(levels)
    parts = {}
    for key, found in scores.items():
        s, n = (np.concatenate(column) for column in zip(*found, strict=True))
        ratio = float((each * s).sum() / (each * n).sum())
        parts[key] = ratio, (s - ratio * n) / ((each * n).sum() / each.sum())
    score = parts[first][1] - parts[second][1]
    return parts[first][0] - parts[second][0], float((each * each * score * score).sum() / each.sum() ** 2)


@pytest.mark.parametrize("most_events", [1, 5], ids=["one event", "several events"])
def test_the_sums_of_batches_give_what_a_score_for_every_unit_gives(most_events: int) -> None:
    batches = dealt(WEIGHTS, units=2_000, most_events=most_events)
    found = weighted_contrast(sums_of(batches), WEIGHTS, "b", "a")
    value, variance = by_unit(batches, WEIGHTS, "b", "a")
    assert found.value == pytest.approx(value, rel=1e-10)
    # but for the degree of freedom that the first batch's own means take, of some 650 units
    assert found.se == pytest.approx(math.sqrt(variance), rel=5e-4)
    assert found.units == round(2 * 6_000 / 3)
    assert found.epochs == (1, 2, 3)


@pytest.mark.parametrize("epoch", [1, UNIFORM], ids=["first batch", "uniform slice"])
@pytest.mark.parametrize("most_events", [1, 5], ids=["one event", "several events"])
def test_one_batch_whose_weights_followed_nothing_is_a_plain_experiment(epoch: int, most_events: int) -> None:
    weights = {epoch: {"a": 0.6, "b": 0.4}}
    arms = sums_of(dealt(weights, units=300, most_events=most_events))
    found, plain = weighted_contrast(arms, weights, "b", "a"), ratio_contrast(arms["b"], arms["a"])
    assert found.value == pytest.approx(plain.value, rel=1e-12)
    assert found.treatment_variance == pytest.approx(plain.treatment_variance, rel=1e-12)
    assert found.control_variance == pytest.approx(plain.control_variance, rel=1e-12)
    assert found.units == plain.units
    means = weighted_means(arms, weights, ["a", "b"])
    for key, mean in means.items():
        alone = ratio_mean(arms[key][epoch])
        assert alone is not None
        assert mean == pytest.approx((alone.value, alone.variance, alone.units, 0.0), rel=1e-12)


def test_an_arm_whose_units_are_all_alike_is_no_certainty() -> None:
    won, mixed = (UnitSums.of([(1.0, float(i >= lost)) for i in range(200)]) for lost in (0, 10))
    alone = {1: {"a": 0.5, "b": 0.5}}
    found = weighted_contrast({"a": {1: won}, "b": {1: mixed}}, alone, "b", "a")
    plain = ratio_contrast({1: mixed}, {1: won})
    assert found.se == pytest.approx(plain.se, rel=1e-12)
    assert found.control_variance == pytest.approx(plain.control_variance, rel=1e-12)
    moved = {**alone, 2: {"a": 0.2, "b": 0.8}}
    arms = {"a": {1: won, 2: won}, "b": {1: mixed, 2: mixed}}
    later, mirrored = (weighted_contrast(arms, moved, *pair) for pair in (("b", "a"), ("a", "b")))
    assert later.control_variance is not None
    assert later.treatment_variance is not None
    assert later.control_variance > later.treatment_variance > 0.0  # as it has the smaller share
    assert (mirrored.treatment_variance, mirrored.control_variance) == pytest.approx(
        (later.control_variance, later.treatment_variance), rel=1e-12
    )


@pytest.mark.parametrize("center", [0.0, 0.1, 0.1234567])
@pytest.mark.parametrize("units", [(100, 110), (333, 77), (1_000, 1_003)])
def test_units_that_never_vary_are_told_apart_by_nothing(units: tuple[int, int], center: float) -> None:
    weights = {1: {"a": 0.5, "b": 0.5}, 2: {"a": 0.3, "b": 0.7}}
    arms = {
        key: {1: alike(count, center), 2: alike(count // 4, center)}
        for key, count in zip("ab", units, strict=True)
    }
    found = weighted_contrast(arms, weights, "b", "a")
    assert (found.treatment_variance, found.control_variance, found.df) == (0.0, 0.0, None)
    assert [mean.variance for mean in weighted_means(arms, weights, ["a", "b"]).values()] == [0.0, 0.0]


def alike(units: int, center: float) -> UnitSums:
    """As a database adds them up."""
    value, s, rr, rn = 0.1234567, 0.0, 0.0, 0.0
    for _ in range(units):
        s, rr, rn = s + value, rr + (value - center) ** 2, rn + (value - center)
    return UnitSums(units, float(units), s, center, rr, float(units), rn)


def test_sums_that_overflow_have_no_spread_of_zero() -> None:
    huge = UnitSums(50, 50.0, 1e200, 0.0, math.inf, 50.0, 1e200)
    found = weighted_contrast({"a": {1: huge}, "b": {1: huge}}, {1: {"a": 0.5, "b": 0.5}}, "b", "a")
    assert found.value is None


def test_centers_and_the_order_of_adding_change_nothing() -> None:
    batches = dealt(WEIGHTS, units=500)
    one = weighted_contrast(sums_of(batches, center=0.0), WEIGHTS, "b", "a")
    other = weighted_contrast(sums_of(batches, center=2.5), WEIGHTS, "b", "a")
    assert (one.value, one.se) == pytest.approx((other.value, other.se), rel=1e-9)


def test_a_share_and_what_it_lacks_to_one_are_mirror_images() -> None:
    generator = np.random.default_rng(3)
    arms: dict[str, dict[int, UnitSums]] = {key: {} for key in "abc"}
    for epoch, shares in WEIGHTS.items():
        for key, share in shares.items():
            outcomes = generator.random(int(600 * share)) < 0.7
            arms[key][epoch] = UnitSums.of([(1.0, float(outcome)) for outcome in outcomes])
    lacking = {key: {e: sums.complement() for e, sums in by.items()} for key, by in arms.items()}
    found, mirrored = (weighted_contrast(each, WEIGHTS, "b", "a") for each in (arms, lacking))
    assert found.value is not None
    assert mirrored.value == pytest.approx(-found.value, abs=1e-13)
    assert mirrored.se == pytest.approx(found.se, rel=1e-12)


def test_what_a_batch_adds_is_the_true_difference_on_average_whatever_came_before() -> None:
    before = {"a": trials(10, 7.0), "b": trials(12, 5.0)}
    weights = {1: {"a": 0.5, "b": 0.5}, 2: {"a": 0.3, "b": 0.7}}
    first, second = (
        1.0 / math.sqrt(sum(1.0 / share for share in weights[epoch].values())) for epoch in (1, 2)
    )
    rates, units = {"a": 0.6, "b": 0.65}, 5
    divisor = first * 22 + second * units
    mean = 0.0
    for of_b in range(units + 1):
        of_a = units - of_b
        for won_a, won_b in itertools.product(range(of_a + 1), range(of_b + 1)):
            arms = {
                key: {1: before[key], 2: trials(count, won)}
                for key, count, won in (("a", of_a, won_a), ("b", of_b, won_b))
            }
            chance = binom.pmf(of_b, units, weights[2]["b"])
            chance *= binom.pmf(won_a, of_a, rates["a"]) * binom.pmf(won_b, of_b, rates["b"])
            mean += chance * (weighted_contrast(arms, weights, "b", "a").value or 0.0) * divisor
    assert mean == pytest.approx(first * 22 * (5 / 12 - 7 / 10) + second * units * 0.05, rel=1e-12)


def test_a_batch_that_dealt_one_arm_alone_is_left_out_of_its_comparisons() -> None:
    weights = {**WEIGHTS, 4: {"a": 0.5, "b": 0.0, "c": 0.5}}
    arms = sums_of(dealt(weights, units=400))
    withdrawn = weighted_contrast(arms, weights, "b", "a")
    assert (withdrawn.epochs, withdrawn.left_out) == ((1, 2, 3), (4,))
    assert weighted_contrast(arms, weights, "c", "a").epochs == (1, 2, 3, 4)
    kept = {key: {e: s for e, s in by.items() if e < 4} for key, by in arms.items()}
    assert withdrawn.value == weighted_contrast(kept, WEIGHTS, "b", "a").value


def test_an_arm_that_nothing_is_known_of_waits_for_two_units_and_one_that_got_none_goes_by_what_is_known() -> (
    None
):
    weights = {1: {"a": 0.5, "b": 0.5}, 2: {"a": 0.5, "b": 0.5}, 3: {"a": 0.9, "b": 0.1}}
    one, some = UnitSums.of([(1.0, 1.0)]), UnitSums.of([(1.0, float(i % 3)) for i in range(30)])
    arms = {"a": {1: some, 2: some, 3: some}, "b": {1: one, 2: some}}
    found = weighted_contrast(arms, weights, "b", "a")
    assert (found.epochs, found.left_out) == ((2, 3), (1,))
    assert found.se is not None
    assert found.se > 0.0


@pytest.mark.parametrize(
    ("arms", "weights"),
    [({}, WEIGHTS), ({"a": {1: UnitSums.of([(1.0, 1.0)] * 9)}}, WEIGHTS), ({}, {})],
    ids=["no units", "no units in an arm", "no epochs"],
)
def test_what_cannot_be_compared_has_no_value(arms: dict[str, dict[int, UnitSums]], weights: Weights) -> None:
    found = weighted_contrast(arms, weights, "b", "a")
    assert (found.value, found.se, found.epochs) == (None, None, ())
    assert weighted_means(arms, weights, ["a", "b"]) == {}


def test_units_that_never_vary_have_no_error() -> None:
    arms = {key: {1: UnitSums.of([(1.0, 1.0)] * 20), 2: UnitSums.of([(1.0, 1.0)] * 20)} for key in "ab"}
    found = weighted_contrast(arms, {1: {"a": 0.5, "b": 0.5}, 2: {"a": 0.9, "b": 0.1}}, "b", "a")
    assert (found.value, found.se, found.df) == (0.0, 0.0, None)


def test_sums_that_overflow_have_no_error() -> None:
    huge = UnitSums(units=5, n=5.0, s=1e308, center=0.0, rr=1e308, nn=5.0, rn=1e308)
    arms = {key: {1: huge, 2: huge} for key in "ab"}
    assert isinstance(weighted_contrast(arms, WEIGHTS, "b", "a"), Contrast)


def two_stages(generator: np.random.Generator) -> dict[str, list[tuple[int, float]]]:
    """Deal 60 units alike, then 300 with 95 % to the arm that looks better; both succeed in 50 %."""
    first = {key: (30, float(generator.binomial(30, 0.5))) for key in "ab"}
    ahead = "a" if first["a"][1] >= first["b"][1] else "b"
    found = {}
    for key, (units, won) in first.items():
        more = 285 if key == ahead else 15
        found[key] = [(units, won), (more, float(generator.binomial(more, 0.5)))]
    return found


def trials(units: int, won: float) -> UnitSums:
    return UnitSums(units, float(units), won, 0.0, won, float(units), won)


def test_a_mean_after_weights_that_followed_is_biased_and_the_weighted_one_is_not() -> None:
    generator = np.random.default_rng(11)
    naive: list[float] = []
    weighted: list[float] = []
    for _ in range(4_000):
        stages = two_stages(generator)
        ahead = max(stages, key=lambda key: stages[key][1][0])
        behind = "b" if ahead == "a" else "a"
        arms = {key: {e: trials(*stage) for e, stage in enumerate(of, start=1)} for key, of in stages.items()}
        weights = {1: {"a": 0.5, "b": 0.5}, 2: {ahead: 0.95, behind: 0.05}}
        naive.append(sum(won for _, won in stages["a"]) / sum(units for units, _ in stages["a"]))
        weighted.append(weighted_means(arms, weights, ["a", "b"])["a"].value)
    assert _z(naive) < -6.0, "a plain mean should be far too low"
    assert abs(_z(weighted)) < 3.5


def _z(values: Sequence[float]) -> float:
    """Return how many standard errors the mean of these is above 0.5."""
    return float((np.mean(values) - 0.5) / (np.std(values) / math.sqrt(len(values))))
