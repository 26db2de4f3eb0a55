"""Two experiments on the same units: does what one does depend on the other, and were they dealt apart?

A cell is the units that were dealt one variant in the first experiment and one in the second. An interaction means
that neither experiment's effect can be read alone; dependent assignments mean that each carries some of the
other's effect, interaction or not.

References:
    Box, Hunter & Hunter, "Statistics for Experimenters", 1978, chapter 10 (the interaction contrast)
    Welch, "On the comparison of several mean values: an alternative approach", Biometrika 38, 1951
    Pearson, "On the criterion that a given system of deviations ...", Philosophical Magazine 50, 1900
    Cochran, "Some methods for strengthening the common χ² tests", Biometrics 10, 1954
    Fisher, "On the interpretation of χ² from contingency tables", JRSS 85, 1922 (degrees of freedom)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from promptab.checks import check_number
from promptab.errors import InvalidInputError
from promptab.stats.contrast import ArmMean
from promptab.stats.fixed import t_interval, t_p_value
from promptab.stats.interval import Interval

Floats = npt.NDArray[np.float64]

_FEW_EXPECTED = 5.0


class Interaction(NamedTuple):
    """How much the first experiment's effect differs between the second's treatment and control."""

    value: float | None
    """(tt - tc) - (ct - cc); None where a cell is missing or its mean overflows."""
    se: float | None
    """0.0 where no unit of any cell varies."""
    interval: Interval | None
    df: float | None
    """Welch-Satterthwaite over the four cells."""
    p_value: float | None
    """Two-sided, of no interaction. None, like the interval and df, wherever `se` is None or 0.0."""


class Additivity(NamedTuple):
    """Whether two experiments' effects add up, over all their variants at once."""

    statistic: float
    df: int
    p_value: float


class Independence(NamedTuple):
    """Whether the variant in one experiment tells the variant in the other."""

    statistic: float
    df: int
    p_value: float


def interaction(
    tt: ArmMean | None,
    tc: ArmMean | None,
    ct: ArmMean | None,
    cc: ArmMean | None,
    *,
    confidence: float = 0.95,
) -> Interaction:
    """Estimate (tt - tc) - (ct - cc) at a fixed horizon; a cell is None with fewer than two units.

    The first letter is the variant in the first experiment, t(reatment) or c(ontrol), the second that in the
    other; exchanging the experiments changes nothing. The variances of the four independent means add up
    (Box, Hunter & Hunter 1978), with Welch-Satterthwaite degrees of freedom on units. Cells are of one epoch of
    both experiments.

    A cell whose units are all alike takes the largest unit variance of the other cells, since a sample
    variance of zero is silence and not a measurement; where no cell varies there is no interval. Raises
    `InvalidInputError` for a confidence outside (0, 1).
    """
    check_number("confidence", confidence, above=0.0, below=1.0)
    cells = [tt, tc, ct, cc]
    known = [cell for cell in cells if cell is not None]
    if len(known) < len(cells):
        return Interaction(None, None, None, None, None)
    value = (known[0].value - known[1].value) - (known[2].value - known[3].value)
    parts = _components(known)
    variance = math.fsum(part for part, _ in parts)
    if not math.isfinite(value + variance):
        return Interaction(value if math.isfinite(value) else None, None, None, None, None)
    if variance == 0.0:
        return Interaction(value, 0.0, None, None, None)
    se = math.sqrt(variance)
    df = 1.0 / math.fsum((part / variance) ** 2 / part_df for part, part_df in parts)
    interval = t_interval(value, se, df, confidence=confidence)
    return Interaction(value, se, interval, df, t_p_value(value, se, df))


def additivity(cells: Sequence[Sequence[ArmMean | None]]) -> Additivity | None:
    """Test all interaction contrasts of an a x b table at once: one row for each variant of the first experiment.

    Wald's chi-square of Σ (mean - fitted)² / variance against the best additive fit m_ij = r_i + c_j, weighted
    by 1 / variance, on (a - 1)(b - 1) degrees of freedom (Welch 1951 without its correction for few units:
    below about 30 units a cell p is too small). For two by two variants it is (value / se)² of `interaction`.

    Cells that are alike throughout take the largest unit variance of the others. None where a cell is missing
    or overflows, where no cell varies, or with fewer than two rows or columns. Raises `InvalidInputError` for
    rows of different lengths.
    """
    rows, columns = _shape(cells)
    known = [cell for row in cells for cell in row if cell is not None]
    df = (rows - 1) * (columns - 1)
    if min(rows, columns) < 2 or len(known) < rows * columns:
        return None
    means = np.array([cell.value for cell in known])
    errors = np.sqrt([variance for variance, _ in _components(known)])
    if not errors.all() or not math.isfinite(float(np.abs(means).max() + errors.max())):
        return None
    effects = np.hstack(
        [np.kron(np.eye(rows), np.ones((columns, 1))), np.kron(np.ones((rows, 1)), np.eye(columns)[:, 1:])]
    )
    # deviations from the middle in standard errors: a mean far from zero would eat the digits of the residuals
    weighted, target = effects / errors[:, None], (means - np.median(means)) / errors
    residual = target - weighted @ np.linalg.lstsq(weighted, target)[0]
    statistic = float(residual @ residual)
    return Additivity(statistic, df, float(chdtrc(df, statistic)))


def assignment_independence(tables: Iterable[Sequence[Sequence[int]]]) -> Independence | None:
    """Test the cross tables of two experiments' assignments: Pearson's chi-square, summed over the tables.

    One table for each pair of epochs, since weights that change in both experiments make a pooled table
    dependent whatever the hashes do. A row for each variant of the first experiment, a column for each of the
    second, cells count units that are in both. Rows and columns without units are left out of the
    (rows - 1)(columns - 1) degrees of freedom (Fisher 1922).

    Assumes independent units. Where an expected count is below 5, the smallest row or column joins the next
    smallest until none is (Cochran 1954), which looks at the margins only and so favours no result. None where
    that leaves no table with two rows and two columns. Raises `InvalidInputError` for a negative count and for
    rows of different lengths.
    """
    statistic, df = 0.0, 0
    for table in tables:
        _shape(table)
        counts = np.array(table, dtype=np.float64)
        if (counts < 0).any():
            raise InvalidInputError("tables", float(counts.min()), "counts of at least 0")
        counts = _pooled(counts)
        if min(counts.shape) < 2:
            continue
        expected = _expected(counts)
        statistic += float(((counts - expected) ** 2 / expected).sum())
        df += (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return Independence(statistic, df, float(chdtrc(df, statistic))) if df else None


def _components(cells: Sequence[ArmMean]) -> list[tuple[float, int]]:
    """Return (variance, degrees of freedom) per cell; a cell that does not vary borrows both."""
    lender = max(cells, key=lambda cell: cell.variance * cell.units)
    lent = lender.variance * lender.units
    return [
        (cell.variance, cell.units - 1) if cell.variance > 0.0 else (lent / cell.units, lender.units - 1)
        for cell in cells
    ]


def _shape(table: Sequence[Sequence[object]]) -> tuple[int, int]:
    widths = {len(row) for row in table}
    if len(widths) > 1:
        raise InvalidInputError(
            "table", sorted(widths), "rows of one length", "give every cell, zeros included"
        )
    return len(table), widths.pop() if widths else 0


def _pooled(counts: Floats) -> Floats:
    """Join the smallest row or column with the next smallest until every expected count is at least 5."""
    if not counts.size:
        return np.zeros((0, 0))
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    while min(counts.shape) > 1 and _expected(counts).min() < _FEW_EXPECTED:
        across = counts.sum(axis=1).min() > counts.sum(axis=0).min()
        lines = counts.T if across else counts
        first, second = np.argsort(lines.sum(axis=1), kind="stable")[:2]
        joined = np.vstack([np.delete(lines, [first, second], axis=0), lines[first] + lines[second]])
        counts = joined.T if across else joined
    return counts


def _expected(counts: Floats) -> Floats:
    expected: Floats = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    return expected
