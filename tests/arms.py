"""Arms to compare: the totals of their units, the sums of these, and what a contrast of two is known to say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tea_tasting.aggr  # type: ignore[import-untyped]
from hypothesis import strategies as st

from promptab.stats.contrast import Contrast
from promptab.stats.fixed import t_interval, t_p_value
from promptab.stats.interval import Interval
from promptab.stats.summary import UnitSums

Totals = list[tuple[float, float]]
"""(n_u, s_u), one pair per unit."""


class Effect(NamedTuple):
    """The numbers of a contrast that is known to have them."""

    value: float
    se: float
    df: float

    def interval(self, confidence: float = 0.95) -> Interval:
        return t_interval(self.value, self.se, self.df, confidence=confidence)

    @property
    def p_value(self) -> float:
        return t_p_value(self.value, self.se, self.df)


def effect(contrast: Contrast) -> Effect:
    value, se, df = contrast.value, contrast.se, contrast.df
    assert value is not None, contrast
    assert se is not None, contrast
    assert df is not None, contrast
    assert contrast.exact_p is None, "a contrast has an exact p-value only where nothing varies"
    return Effect(value, se, df)


def one_event_each(values: Iterable[float]) -> UnitSums:
    return UnitSums.of([(1.0, float(value)) for value in values])


def clustered_totals(generator: np.random.Generator, *, units: int) -> Totals:
    """Units with 1 to 9 events each, whose mean differs from unit to unit around 3."""
    counts = generator.integers(1, 10, units).astype(float)
    means = generator.normal(3.0, 1.0, units)
    return [(float(n), float(n * mean)) for n, mean in zip(counts, means, strict=True)]


def tea_aggregates(totals: Totals) -> tea_tasting.aggr.Aggregates:
    """Return what tea-tasting needs of the same units."""
    n, s = np.array(totals).T
    return tea_tasting.aggr.Aggregates(
        count_=len(totals),
        mean_={"n": float(n.mean()), "s": float(s.mean())},
        var_={"n": float(n.var(ddof=1)), "s": float(s.var(ddof=1))},
        cov_={("n", "s"): float(np.cov(n, s)[0, 1])},
    )


def two_arms(seed: int, *, fewest: int, most: int) -> tuple[Totals, Totals]:
    """Return treatment and control, each of `fewest` to `most` units, with no effect between them."""
    generator = np.random.default_rng(seed)
    treated, untreated = (int(units) for units in generator.integers(fewest, most + 1, 2))
    return clustered_totals(generator, units=treated), clustered_totals(generator, units=untreated)


seeds = st.integers(min_value=0, max_value=2**32 - 1)
random_arms = seeds.map(lambda seed: two_arms(seed, fewest=3, most=39))
