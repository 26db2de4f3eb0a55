"""A/A replay: how often would a rule find a difference in recorded history where there is none?

Recorded units are dealt anew at random, many times, to two arms that differ in nothing; whatever a rule then
calls a difference is a false positive. It tries the rule on this project's own heavy tails and repeat users,
which no formula knows.

References:
    Kohavi, Tang & Xu, "Trustworthy Online Controlled Experiments", 2020, chapter 19 (A/A tests, re-randomised)
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from promptab.checks import check_count, check_number
from promptab.errors import InvalidInputError
from promptab.stats.proportion import wilson_interval
from promptab.stats.summary import UnitSums

Floats = npt.NDArray[np.float64]

# Dealings are drawn by the block, 8 bytes for each unit of each run: 32 MB.
_BLOCK = 4_000_000
# Beyond this sums of squares overflow, and infinity times zero is not a number.
_LARGEST = 1e150


class Replay(NamedTuple):
    """How often a rule found a difference between two arms that differ in nothing."""

    runs: int
    false_positives: int
    share: float
    """False positives per run."""
    low: float
    high: float
    """Wilson's interval of the share. It is of re-dealing these units, not of other units that might come."""


def replay_false_positives(
    n: npt.ArrayLike,
    s: npt.ArrayLike,
    *,
    test: Callable[[UnitSums, UnitSums], bool],
    runs: int,
    seed: int,
    share: float = 0.5,
    confidence: float = 0.95,
) -> Replay:
    """Deal recorded units at random `runs` times and count how often `test(treatment, control)` is true.

    Unit u has n[u] events whose values add up to s[u], as in `UnitSums`; pairs of zeros are no units. Each
    unit goes to the treatment with probability `share`, independently, as the hash deals them, so the sizes of
    the arms vary; an arm may be empty, and is `UnitSums()` then. Equal seeds give equal results. Units have to
    be of one epoch, and of one variant (or of an experiment without effect): a real effect is noise here.

    Raises `InvalidInputError` for arrays that are not one-dimensional and of one length, a negative n[u], numbers
    beyond 1e150, fewer than one run, a negative seed, and a share outside (0, 1).
    """
    check_count("runs", runs, low=1)
    check_count("seed", seed)
    check_number("share", share, above=0.0, below=1.0)
    counts, totals = _checked(n, s)
    false_positives = sum(
        bool(test(treatment, control)) for treatment, control in _dealings(counts, totals, share, runs, seed)
    )
    interval = wilson_interval(false_positives, runs, confidence=confidence)
    assert interval is not None  # noqa: S101 - there is none only without trials, and there is one run at least
    return Replay(runs, false_positives, false_positives / runs, interval.low, interval.high)


def _checked(n: npt.ArrayLike, s: npt.ArrayLike) -> tuple[Floats, Floats]:
    counts, totals = np.asarray(n, dtype=np.float64), np.asarray(s, dtype=np.float64)
    if counts.ndim != 1 or counts.shape != totals.shape:
        raise InvalidInputError("s", totals.shape, f"one number for each of the units in n, {counts.shape}")
    for field, values in (("n", counts), ("s", totals)):
        if not (np.abs(values) <= _LARGEST).all():
            raise InvalidInputError(
                field, float(np.abs(values).max()), f"numbers of size {_LARGEST:g} at most"
            )
    if (counts < 0).any():
        raise InvalidInputError("n", float(counts.min()), "counts of at least 0")
    kept = (counts > 0) | (totals != 0)
    return counts[kept], totals[kept]


def _dealings(
    n: Floats, s: Floats, share: float, runs: int, seed: int
) -> Iterator[tuple[UnitSums, UnitSums]]:
    """Yield (treatment, control) of each run; every sum of a block of runs is one product of matrices."""
    generator = np.random.default_rng(seed)
    center = math.fsum(s) / math.fsum(n) if n.any() else 0.0
    r = s - center * n
    per_unit = np.column_stack([np.ones_like(n), n, s, r * r, n * n, r * n])
    block = max(1, _BLOCK // max(1, len(n)))
    for start in range(0, runs, block):
        treated = generator.random((min(block, runs - start), len(n))) < share
        # both arms added up, and not the control by subtraction, which would cancel where it is small
        for treatment, control in zip(
            treated.astype(np.float64) @ per_unit, (~treated).astype(np.float64) @ per_unit, strict=True
        ):
            yield _sums(treatment, center), _sums(control, center)


def _sums(sums: Floats, center: float) -> UnitSums:
    units, n, s, rr, nn, rn = (float(value) for value in sums)
    if not units:
        return UnitSums()
    return UnitSums(units=round(units), n=n, s=s, center=center, rr=rr, nn=nn, rn=rn)
