"""The alarm that units were not dealt as the weights say, looked at daily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from promptab.stats.sample_ratio import EpochUnits, chi_square, sample_ratio
from tests.calibration.schedule import DAYS
from tests.calibration.tally import Tally


class Dealing(NamedTuple):
    """What the weights say and what happens, epoch by epoch, each with an equal part of the 28 days."""

    weights: Sequence[tuple[float, ...]]
    dealt: Sequence[tuple[float, ...]]


DEALINGS: Mapping[str, Dealing] = {
    "50/50": Dealing([(0.5, 0.5)], [(0.5, 0.5)]),
    "90/10": Dealing([(0.9, 0.1)], [(0.9, 0.1)]),
    "50/30/20": Dealing([(0.5, 0.3, 0.2)], [(0.5, 0.3, 0.2)]),
    "90/10, then 50/50": Dealing([(0.9, 0.1), (0.5, 0.5)], [(0.9, 0.1), (0.5, 0.5)]),
}

BROKEN: Mapping[str, Dealing] = {
    "52/48 instead of 50/50": Dealing([(0.5, 0.5)], [(0.52, 0.48)]),
    "51/49 instead of 50/50": Dealing([(0.5, 0.5)], [(0.51, 0.49)]),
    "92/8 instead of 90/10": Dealing([(0.9, 0.1)], [(0.92, 0.08)]),
}


def alarms(dealing: Dealing, *, per_day: int, runs: int, seed: int) -> Tally:
    """Count the experiments with an alarm at any of 28 daily looks.

    "sequential" is the Bayes factor at 100, "daily 0.05" and "daily 0.001" a chi-square test at that level at each
    look, "once 0.001" the one at the end.
    """
    generator = np.random.default_rng(seed)
    epochs = len(dealing.weights)
    keys = [f"v{place}" for place in range(len(dealing.weights[0]))]
    tally = Tally()
    for _ in range(runs):
        found: set[str] = set()
        units = np.zeros((epochs, len(keys)), dtype=np.int64)
        for day in range(DAYS):
            epoch = day * epochs // DAYS
            units[epoch] += generator.multinomial(per_day, dealing.dealt[epoch])
            counted = [
                EpochUnits(
                    dict(zip(keys, of_epoch, strict=True)),
                    dict(zip(keys, dealing.weights[number], strict=True)),
                )
                for number, of_epoch in enumerate(units.tolist())
            ]
            p_value = chi_square(counted)
            if sample_ratio(counted, gate="sequential").mismatch:
                found.add("sequential")
            for level in (0.05, 0.001):
                if p_value is not None and p_value <= level:
                    found |= (
                        {f"daily {level:g}", f"once {level:g}"} if day == DAYS - 1 else {f"daily {level:g}"}
                    )
        tally.add(found)
    return tally
