"""Arms whose weights followed the outcomes: adaptively weighted, augmented inverse-propensity estimates from sums.

A plain mean after a bandit is wrong twice. An arm that began badly by chance is hardly dealt any more and keeps its
bad start, so its mean is biased downwards; and the variance of an arm follows its share, which follows chance, so the
mean is not normal. Here each unit t of a batch has, for arm k, a score of which the expectation, given all earlier
batches, is the arm's outcome at that time:

    G_tk = q_k + 1{unit t got k} / e_k (y_t - q_k)

with the share e_k of the batch and a guess q_k from earlier batches alone. Scores are averaged with a weight that
makes every batch's variance alike, h = (Σ_k 1/e_k)^(-1/2) over the arms that were dealt: for two arms that is the
weight of Hadad et al. (their section on contrasts); one weight for all arms keeps the control the same in every
comparison. So a difference of two arms is a sum of martingale differences with a steady variance: normal in the end,
and fit for a confidence sequence whose clock is the number of units (Waudby-Smith et al., their sections on
martingales and on sequential experiments).

A score is right on average, whatever the past was, and so is Σ h (G - truth). The estimate divides it by Σ h, which the
past made too: where a difference showed early the later weights are small, and what showed it weighs more. That leaves
a bias of the order of a tenth of a standard error (Hadad et al. promise a normal estimate in large samples and none
without bias in small ones). It moves no interval and no test: error and standard error are divided by the same Σ h.

Everything comes from the sums of each batch, as e_k and q_k are constant in it. A metric is a ratio of sums over
units, Σs/Σn: both are scored, and the ratio is linearised, as elsewhere (`promptab.stats.ratio`).

The first batch has nothing earlier to guess by, and its weights followed nothing: it is a plain experiment, in which
the arm's own mean is the guess and its own share stands for e_k. So is the uniform slice. One such batch alone gives
what `ratio_contrast` does.

Assumes that units come independently of what earlier units got, that a unit belongs to the batch in which it was first
dealt, and batches long enough for sums of them to be normal (some hundred units in all).

References:
    Hadad, Hirshberg, Zhan, Wager & Athey, "Confidence intervals for policy evaluation in adaptive experiments",
        PNAS 118, 2021, https://arxiv.org/abs/1911.02768
    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
        confidence sequences", Annals of Statistics 52, 2024, https://arxiv.org/abs/2103.06476
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from promptab.stats.contrast import ArmMean, Contrast
from promptab.stats.summary import UnitSums

Arms = Mapping[str, Mapping[int, UnitSums]]
Weights = Mapping[int, Mapping[str, float]]

_NO_UNITS = UnitSums()
_NOTHING: Mapping[int, UnitSums] = {}

UNIFORM = 0
"""The epoch of the uniform slice, and below it those in which it dealt among other arms: plain experiments beside all
batches."""

# Spread below this share of what it is computed from is rounding: long sums of doubles keep about 12 digits.
_ROUNDING = 1e-12


class _Guess(NamedTuple):
    """What a unit of an arm is expected to add to s and to n."""

    s: float
    n: float


class _Earlier(NamedTuple):
    """What the units of an arm add up to over all earlier batches."""

    units: int
    s: float
    n: float


class _ArmBatch(NamedTuple):
    """One arm of one batch."""

    sums: UnitSums
    share: float
    """e: the probability of the arm; the share that it had where `guess` is its own mean."""
    guess: _Guess
    is_own: bool


class _Batch(NamedTuple):
    epoch: int
    units: int
    """Of all arms."""
    weight: float
    """h"""
    dealt: int
    """How many arms were."""
    arms: Mapping[str, _ArmBatch]
    """Those of the arms that are asked for that can be scored."""


class _Scored(NamedTuple):
    """An arm over some batches: the ratio, and what a unit's score adds to it."""

    ratio: float
    per_unit: float
    """The weighted mean of n: what a score of s - ratio n is divided by."""


class _Spread(NamedTuple):
    """Of the units that got an arm, in one batch: Σd and Σd² of what their outcome adds to the arm's score."""

    units: int
    first: float
    second: float


def weighted_means(arms: Arms, weights: Weights, keys: Sequence[str]) -> dict[str, ArmMean]:
    """Return the means of these arms over the batches in which all of them can be scored; empty where there are none.

    `weights` are the arms' shares by epoch. The errors of two arms are not quite independent: compare them by
    `weighted_contrast`.
    """
    batches = _shared(arms, weights, keys)
    scored = _scored(batches, keys)
    return {} if scored is None else {key: _mean(batches, key, scored[key]) for key in keys}


def weighted_contrast(arms: Arms, weights: Weights, treatment: str, control: str) -> Contrast:
    """Compare two arms over the batches in which both can be scored.

    A batch that dealt only one of them is left out, and so is one without two units of each where nothing earlier is
    known of an arm. The two variances add up to that of the difference. `units`, by which confidence sequences are
    timed, are those that two arms have where all that were dealt are dealt alike: of two arms, all there are.

    An arm whose units are all alike takes the unit variance of the other, as in `ratio_contrast`. Where neither varies
    beyond rounding both variances are 0.0, and there is no `df`.
    """
    batches = _shared(arms, weights, (treatment, control))
    used = tuple(batch.epoch for batch in batches)
    touched = {
        epoch for key in (treatment, control) for epoch, sums in arms.get(key, {}).items() if sums.units
    }
    left_out = tuple(sorted(touched - set(used)))
    scored = _scored(batches, (treatment, control))
    if scored is None:
        return Contrast(None, None, None, None, None, None, 0, (), left_out)
    units = max(2, round(sum(2 * batch.units / batch.dealt for batch in batches)))
    total = _total(batches)
    spreads = [
        (_spread(b, treatment, scored[treatment]), _spread(b, control, scored[control])) for b in batches
    ]
    parts = [
        _parts(batch, scored, (treatment, control), pair)
        for batch, pair in zip(batches, _lent(batches, spreads, (treatment, control)), strict=True)
    ]
    # what the units of other arms add is nobody's more than the other's
    shared = math.fsum(part.others for part in parts) / 2.0
    first = (math.fsum(part.first for part in parts) + shared) / total / total
    second = (math.fsum(part.second for part in parts) + shared) / total / total
    values = scored[treatment].ratio, scored[control].ratio
    if not math.isfinite(values[0] - values[1] + first + second):
        return Contrast(None, None, None, None, None, None, units, used, left_out)
    if _is_rounding(first + second, abs(values[0]) + abs(values[1])):
        first = second = 0.0
    counted = sum(batch.arms[key].sums.units for batch in batches for key in (treatment, control))
    df = float(counted - 2) if first + second > 0.0 else None
    return Contrast(*values, first, second, df, None, units, used, left_out)


def _mean(batches: Sequence[_Batch], key: str, scored: _Scored) -> ArmMean:
    total = _total(batches)
    parts = (_parts(batch, {key: scored}, [key], [_spread(batch, key, scored)]) for batch in batches)
    variance = math.fsum(sum(part) for part in parts) / total / total
    units = sum(batch.arms[key].sums.units for batch in batches)
    return ArmMean(scored.ratio, 0.0 if _is_rounding(variance, abs(scored.ratio)) else variance, units)


class _Parts(NamedTuple):
    """h² Σ (the units' scores of an arm, or of a difference)², by what the units got."""

    first: float
    second: float
    others: float


def _batches(arms: Arms, weights: Weights, keys: Collection[str]) -> Iterator[_Batch]:
    """Yield the batches that have units, the uniform slice first, each with those of these arms that can be scored in
    it.
    """
    earlier: dict[str, _Earlier] = {}
    for epoch in sorted(weights):
        shares = {key: share for key, share in weights[epoch].items() if share > 0.0}
        dealt = {key: arms.get(key, _NOTHING).get(epoch, _NO_UNITS) for key in shares}
        units = sum(of_arm.units for of_arm in dealt.values())
        if not units:
            continue
        sums = {key: dealt[key] for key in keys if key in dealt}
        arm_batches = {}
        for key, of_arm in sums.items():
            found = _arm_batch(of_arm, units, shares[key], earlier.get(key))
            if found is not None:
                arm_batches[key] = found
        weight = 1.0 / math.sqrt(sum(1.0 / share for share in shares.values()))
        yield _Batch(epoch, units, weight, len(shares), arm_batches)
        if epoch > UNIFORM:
            for key, of_arm in sums.items():
                before = earlier.get(key, _Earlier(0, 0.0, 0.0))
                earlier[key] = _Earlier(before.units + of_arm.units, before.s + of_arm.s, before.n + of_arm.n)


def _arm_batch(sums: UnitSums, units: int, share: float, earlier: _Earlier | None) -> _ArmBatch | None:
    if earlier is not None and earlier.units:
        guess = _Guess(earlier.s / earlier.units, earlier.n / earlier.units)
        return _ArmBatch(sums, share, guess, is_own=False)
    if sums.units < 2:
        return None
    own = _Guess(sums.s / sums.units, sums.n / sums.units)
    return _ArmBatch(sums, sums.units / units, own, is_own=True)


def _shared(arms: Arms, weights: Weights, keys: Collection[str]) -> list[_Batch]:
    return [batch for batch in _batches(arms, weights, keys) if batch.arms.keys() >= set(keys)]


def _total(batches: Sequence[_Batch]) -> float:
    return math.fsum(batch.weight * batch.units for batch in batches)


def _scored(batches: Sequence[_Batch], keys: Collection[str]) -> dict[str, _Scored] | None:
    """Return the arms' ratios over these batches; None where there are none, or nothing to divide by."""
    found = {}
    for key in keys:
        s, n = 0.0, 0.0
        for batch in batches:
            arm = batch.arms[key]
            s += batch.weight * _augmented(batch, arm, arm.sums.s, arm.guess.s)
            n += batch.weight * _augmented(batch, arm, arm.sums.n, arm.guess.n)
        if n <= 0.0:
            return None
        found[key] = _Scored(s / n, n / _total(batches))
    return found


def _augmented(batch: _Batch, arm: _ArmBatch, total: float, guess: float) -> float:
    """Return Σ over the batch's units of q + 1{got k} / e (y - q), with y the unit's s, or its n."""
    return batch.units * guess + (total - arm.sums.units * guess) / arm.share


def _spread(batch: _Batch, key: str, scored: _Scored) -> _Spread:
    """Sum up d = (z - c) / (e m) over the units that got the arm, with z = s - R n and its guess c."""
    arm = batch.arms[key]
    sums, units = arm.sums, arm.sums.units
    shift = scored.ratio - sums.center
    moved = shift * shift * sums.nn
    squares = sums.rr - 2.0 * shift * sums.rn + moved
    total = sums.s - scored.ratio * sums.n
    guess = arm.guess.s - scored.ratio * arm.guess.n
    scale = arm.share * scored.per_unit
    second = squares - 2.0 * guess * total + units * guess * guess
    if math.isfinite(second) and second <= _ROUNDING * (sums.rr + moved + units * guess * guess):
        return _Spread(units, 0.0, 0.0)
    if arm.is_own:
        # the guess took one degree of freedom
        second *= units / (units - 1)
    return _Spread(units, (total - units * guess) / scale, second / scale / scale)


def _lent(
    batches: Sequence[_Batch], spreads: Sequence[tuple[_Spread, _Spread]], keys: tuple[str, str]
) -> Sequence[tuple[_Spread, _Spread]]:
    """Give an arm of which no unit differs from another the unit variance of the other: it is not known to be none."""
    varies = [any(pair[arm].second for pair in spreads) for arm in (0, 1)]
    if all(varies) or not any(varies):
        return spreads
    constant = varies.index(False)
    found = []
    for batch, pair in zip(batches, spreads, strict=True):
        alike, other = pair[constant], pair[1 - constant]
        shares = batch.arms[keys[constant]].share, batch.arms[keys[1 - constant]].share
        each = other.second / other.units * (shares[1] / shares[0]) ** 2 if other.units else 0.0
        alike = alike._replace(second=alike.units * each)
        found.append((other, alike) if constant else (alike, other))
    return found


def _is_rounding(variance: float, value: float) -> bool:
    return variance <= (_ROUNDING * value) * (_ROUNDING * value)


def _level(batch: _Batch, key: str, scored: _Scored) -> float:
    """Return what every unit of the batch adds to the arm's score, whatever it got."""
    guess = batch.arms[key].guess
    return (guess.s - scored.ratio * guess.n) / scored.per_unit


def _parts(
    batch: _Batch, scored: Mapping[str, _Scored], keys: Sequence[str], spreads: Sequence[_Spread]
) -> _Parts:
    """Sum the squares of the scores of a difference, or of one arm alone, over the units of a batch."""
    level, treated, untreated = _level(batch, keys[0], scored[keys[0]]), spreads[0], _Spread(0, 0.0, 0.0)
    if len(keys) > 1:
        level -= _level(batch, keys[1], scored[keys[1]])
        untreated = spreads[1]
    squared = batch.weight * batch.weight
    others = batch.units - treated.units - untreated.units
    return _Parts(
        squared * (treated.units * level * level + 2.0 * level * treated.first + treated.second),
        squared * (untreated.units * level * level - 2.0 * level * untreated.first + untreated.second),
        squared * others * level * level,
    )
