"""Units that arrive one by one, are dealt, and bring their outcomes: their sums at every look, by arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from promptab.plan import AnalysisPlan
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from tests.calibration.outcomes import Bools, Floats, Integers, Population, draw
from tests.calibration.sums import ARMS

CORRELATION = 0.3
"""Of two events of one unit."""

PLAN = AnalysisPlan(
    metrics=(
        MetricDefinition(
            name="refusal_rate", kind="proportion", direction="decrease", lowest=0.0, highest=1.0
        ),
        MetricDefinition(name="relevance", lowest=0.0, highest=1.0),
    )
)

LEVELS: Mapping[str, float] = {
    "success_rate": 0.9,
    "refusal_rate": 0.05,
    "response_time": 1.2,
    "cost_per_success": 0.004,
    "relevance": 0.7,
    "rating": 3.8,
}
"""What each metric comes to in the treatment: shares, seconds, dollars, a score from 0 to 1 and one from 1 to 5."""

# Of both scores there are five: so many steps.
_STEPS = 4


class Sums(NamedTuple):
    """The fields of `UnitSums` at each look, arms (control first) by looks."""

    center: float
    units: Floats
    n: Floats
    s: Floats
    rr: Floats
    nn: Floats
    rn: Floats

    def at(self, arm: int, look: int) -> UnitSums:
        units, *fields = (float(column[arm, look]) for column in self[1:])
        n, s, *others = fields
        return UnitSums(int(units), n, s, self.center, *others)

    @property
    def are_trials(self) -> Bools:
        """Whether every unit so far has one event; of a rate its outcome is 0 or 1."""
        single: Bools = (self.nn == self.n) & (self.n == self.units)
        return single


class Totals(NamedTuple):
    """(n_u, s_u) of one metric, unit by unit in order of arrival."""

    n: Floats
    s: Floats


class Stream(NamedTuple):
    """One experiment."""

    treated: Bools
    share: float
    """Of the units that the weights send to the treatment."""
    every: int
    """Units between two looks."""
    totals: Mapping[str, Totals]
    sums: Mapping[str, Sums]

    @classmethod
    def of(cls, treated: Bools, totals: Mapping[str, Totals], *, share: float, every: int) -> Stream:
        summed = {name: _summed(of_metric, treated, every, name) for name, of_metric in totals.items()}
        return cls(treated, share, every, totals, summed)

    @property
    def looks(self) -> int:
        return len(self.treated) // self.every

    def exposed(self, look: int) -> Integers:
        """Return how many units of each arm, control first, were exposed by this look."""
        seen = self.treated[: self.every * (look + 1)]
        return np.bincount(seen, minlength=2)

    def single_units(self, metric: str, look: int) -> dict[str, dict[int, list[tuple[float, float]]]]:
        """Return the pairs of the units that are there at this look, by arm, in order of arrival."""
        seen = self.every * (look + 1)
        n, s = (of_units[:seen] for of_units in self.totals[metric])
        present = (n > 0.0) | (s != 0.0)
        in_arms = (~self.treated[:seen] & present, self.treated[:seen] & present)
        return {
            arm: {0: list(zip(n[chosen].tolist(), s[chosen].tolist(), strict=True))}
            for arm, chosen in zip(ARMS, in_arms, strict=True)
        }


def streams(
    controls: Mapping[str, float], *, events: int, units: int, every: int, runs: int, seed: int
) -> Iterator[Stream]:
    """Yield experiments at 50/50 whose treatment is at `LEVELS`, and whose control is at `controls`.

    `events` is 1, or the mean of a geometric count.
    """
    generator = np.random.default_rng(seed)
    for _ in range(runs):
        treated = generator.random(units) < 0.5
        totals = {
            name: _totals(generator, name, np.where(treated, LEVELS[name], level), events)
            for name, level in controls.items()
        }
        yield Stream.of(treated, totals, share=0.5, every=every)


def _totals(generator: np.random.Generator, name: str, levels: Floats, events: int) -> Totals:
    if name in {"relevance", "rating"}:
        return _scores(generator, name, levels, events)
    # a refusal is drawn as a success is
    kind = "success_rate" if name == "refusal_rate" else name
    correlation = CORRELATION if events > 1 else 0.0
    drawn = draw(generator, Population(kind, events, correlation), levels[np.newaxis])
    return Totals(drawn.per_unit(drawn.weights)[0], drawn.per_unit(drawn.values)[0])


def _scores(generator: np.random.Generator, name: str, levels: Floats, events: int) -> Totals:
    """Draw scores of five steps, each unit with a mean of its own."""
    counts = generator.geometric(1.0 / events, levels.size) if events > 1 else np.ones(levels.size, np.int64)
    shares = levels if name == "relevance" else (levels - 1.0) / _STEPS
    concentration = 1.0 / CORRELATION - 1.0
    of_units = generator.beta(shares * concentration, (1.0 - shares) * concentration)
    n, steps = counts.astype(np.float64), generator.binomial(_STEPS * counts, of_units).astype(np.float64)
    return Totals(n, steps / _STEPS if name == "relevance" else n + steps)


def _summed(totals: Totals, treated: Bools, every: int, name: str) -> Sums:
    n, s = totals
    center = LEVELS[name]
    r = s - center * n
    present = ((n > 0.0) | (s != 0.0)).astype(np.float64)
    starts = np.arange(0, len(treated), every)
    dealt = np.stack([~treated, treated])
    columns = (present, n, s, r * r, n * n, r * n)
    return Sums(
        center, *(np.add.reduceat(column * dealt, starts, axis=1).cumsum(axis=1) for column in columns)
    )
