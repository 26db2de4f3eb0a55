"""Interactions against regressions and tables of other people's making."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.contrast import ArmMean
from promptab.stats.fixed import t_interval, t_p_value
from promptab.stats.interaction import Interaction, additivity, assignment_independence, interaction
from promptab.stats.interval import Interval

cells = st.builds(
    ArmMean, value=st.floats(-1_000.0, 1_000.0), variance=st.floats(1e-3, 10.0), units=st.integers(2, 500)
)
four = st.tuples(cells, cells, cells, cells)
tables = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).poisson(40.0, size=(3, 4)) + 20
)


def cell(values: np.typing.NDArray[np.float64]) -> ArmMean:
    return ArmMean(float(values.mean()), float(values.var(ddof=1)) / len(values), len(values))


def known(found: Interaction) -> tuple[float, float, Interval, float, float]:
    """The numbers of an interaction that is known to have them."""
    value, se, interval, df, p_value = found
    assert value is not None
    assert se is not None
    assert interval is not None
    assert df is not None
    assert p_value is not None
    return value, se, interval, df, p_value


def test_contrast_is_the_product_term_of_a_regression_with_unequal_variances() -> None:
    generator = np.random.default_rng(5)
    sizes, means = [40, 70, 55, 90], [3.0, 2.0, 1.5, 1.0]
    samples = [generator.normal(mean, 1.0 + mean, size) for mean, size in zip(means, sizes, strict=True)]
    first = np.repeat([1.0, 1.0, 0.0, 0.0], sizes)
    second = np.repeat([1.0, 0.0, 1.0, 0.0], sizes)
    design = sm.add_constant(np.column_stack([first, second, first * second]))
    fitted = sm.OLS(np.concatenate(samples), design).fit(cov_type="HC2")
    value, se, *_ = known(interaction(*(cell(sample) for sample in samples)))
    assert value == pytest.approx(float(fitted.params[3]), rel=1e-9)
    assert se == pytest.approx(float(fitted.bse[3]), rel=1e-9)  # HC2 of cell means is s²/n, ddof=1


def test_df_p_and_interval_are_those_of_the_welch_satterthwaite_t() -> None:
    parts = [ArmMean(5.0, 0.3, 10), ArmMean(3.0, 0.1, 40), ArmMean(2.5, 0.2, 25), ArmMean(1.0, 0.4, 8)]
    expected_df = 1.0**2 / (0.3**2 / 9 + 0.1**2 / 39 + 0.2**2 / 24 + 0.4**2 / 7)
    value, se, interval, df, p_value = known(interaction(*parts, confidence=0.9))
    assert (value, se, df) == pytest.approx((0.5, 1.0, expected_df))
    assert interval == pytest.approx(t_interval(0.5, 1.0, expected_df, confidence=0.9))
    assert p_value == pytest.approx(t_p_value(0.5, 1.0, expected_df))


def test_additive_effects_show_an_interaction_in_five_percent() -> None:
    generator = np.random.default_rng(6)
    runs, units = 2_000, 40
    means = np.array([3.0, 2.0, 2.0, 1.0])
    samples = generator.normal(means[:, None], 1.0, size=(runs, 4, units))
    found = [known(interaction(*(cell(sample) for sample in run))) for run in samples]
    assert np.mean([p_value <= 0.05 for *_, p_value in found]) == pytest.approx(0.05, abs=0.015)


@given(parts=four)
def test_exchanging_the_experiments_changes_nothing_and_turning_the_sign_mirrors(
    parts: tuple[ArmMean, ArmMean, ArmMean, ArmMean],
) -> None:
    tt, tc, ct, cc = parts
    value, se, interval, df, p_value = known(interaction(tt, tc, ct, cc))
    exchanged = known(interaction(tt, ct, tc, cc))
    assert exchanged[0] == pytest.approx(value, rel=1e-9, abs=1e-9)
    assert exchanged[1] == pytest.approx(se)
    mirror = interaction(*(part._replace(value=-part.value) for part in parts))
    assert mirror == (-value, se, interval.mirrored(), df, p_value)


def test_a_cell_without_enough_units_leaves_nothing_known() -> None:
    full = ArmMean(1.0, 0.1, 10)
    assert interaction(full, None, full, full) == (None, None, None, None, None)
    assert additivity([[full, None], [full, full]]) is None


def test_a_cell_that_never_varies_takes_the_largest_unit_variance_of_the_others() -> None:
    parts = [ArmMean(1.0, 0.0, 5), ArmMean(0.6, 0.01, 24), ArmMean(0.5, 0.005, 40), ArmMean(0.5, 0.01, 25)]
    lent = 0.25 / 5
    expected = [(lent, 24), (0.01, 23), (0.005, 39), (0.01, 24)]
    variance = math.fsum(part for part, _ in expected)
    value, se, _, df, _ = known(interaction(*parts))
    assert value == pytest.approx(0.4)
    assert se == pytest.approx(math.sqrt(variance))
    assert df == pytest.approx(variance**2 / math.fsum(part**2 / df for part, df in expected))


def test_where_no_cell_varies_there_is_an_estimate_and_nothing_more() -> None:
    parts = [ArmMean(value, 0.0, 9) for value in (1.0, 0.0, 0.0, 0.0)]
    assert interaction(*parts) == (1.0, 0.0, None, None, None)
    assert additivity([parts[:2], parts[2:]]) is None


def test_means_that_overflow_leave_nothing_known() -> None:
    huge, small = ArmMean(1.5e308, 1.0, 5), ArmMean(-1.5e308, 1.0, 5)
    assert interaction(huge, small, small, huge) == (None, None, None, None, None)
    endless = ArmMean(1.0, math.inf, 5)
    assert interaction(endless, endless, endless, endless) == (0.0, None, None, None, None)
    assert additivity([[endless, endless], [endless, endless]]) is None


@given(parts=four)
def test_additivity_of_two_by_two_is_the_squared_contrast(
    parts: tuple[ArmMean, ArmMean, ArmMean, ArmMean],
) -> None:
    found = additivity([parts[:2], parts[2:]])
    value, se, *_ = known(interaction(*parts))
    assert found is not None
    assert found.df == 1
    assert found.statistic == pytest.approx((value / se) ** 2, rel=1e-6, abs=1e-8)


def test_additivity_is_walds_test_of_the_product_terms() -> None:
    generator = np.random.default_rng(7)
    sizes = generator.integers(20, 60, size=(3, 4))
    samples = [
        [generator.normal(i + j, 1.0 + i, size) for j, size in enumerate(row)] for i, row in enumerate(sizes)
    ]
    found = additivity([[cell(sample) for sample in row] for row in samples])
    labels = [(i, j) for i, row in enumerate(samples) for j, sample in enumerate(row) for _ in sample]
    dummies = np.array([[i == 1, i == 2, j == 1, j == 2, j == 3] for i, j in labels], dtype=np.float64)
    products = np.column_stack([dummies[:, a] * dummies[:, b] for a in (0, 1) for b in (2, 3, 4)])
    design = sm.add_constant(np.hstack([dummies, products]))
    outcomes = np.concatenate([sample for row in samples for sample in row])
    fitted = sm.OLS(outcomes, design).fit(cov_type="HC2")
    wald = fitted.wald_test(np.eye(12)[6:], use_f=False, scalar=True)
    assert found is not None
    assert found == pytest.approx((float(wald.statistic), 6, float(wald.pvalue)), rel=1e-8)


@pytest.mark.parametrize("shape", [(0, 0), (1, 3), (3, 1)])
def test_one_row_or_column_has_no_interaction(shape: tuple[int, int]) -> None:
    rows, columns = shape
    assert additivity([[ArmMean(1.0, 0.1, 10)] * columns] * rows) is None
    assert assignment_independence([[[50] * columns] * rows]) is None


@given(counts=tables)
def test_independence_of_one_table_is_scipys_chi_square(counts: np.typing.NDArray[np.int64]) -> None:
    expected = scipy.stats.chi2_contingency(counts, correction=False)
    found = assignment_independence([counts.tolist()])
    assert found is not None
    assert found == pytest.approx((expected.statistic, expected.dof, expected.pvalue), rel=1e-9)
    assert assignment_independence([counts.T.tolist()]) == pytest.approx(found, rel=1e-9)


def test_tables_of_several_epochs_are_tested_apart() -> None:
    """Both experiments ramp at once: independent within each epoch, dependent when pooled."""
    before, after = [[810, 90], [90, 10]], [[250, 250], [250, 250]]
    pooled = [[1060, 340], [340, 260]]
    apart, together = assignment_independence([before, after]), assignment_independence([pooled])
    assert apart == pytest.approx((0.0, 2, 1.0))
    assert together is not None
    assert together.p_value < 1e-10


def test_variants_without_units_are_left_out_of_the_degrees_of_freedom() -> None:
    found = assignment_independence([[[40, 0, 60], [0, 0, 0], [55, 0, 45]]])
    assert found is not None
    assert found.df == 1
    assert found == pytest.approx(assignment_independence([[[40, 60], [55, 45]]]))


def test_rare_variants_join_the_next_rarest_until_five_units_are_expected() -> None:
    rare = [[400, 390, 3], [20, 30, 1], [2, 1, 0]]
    joined = [[400, 393], [22, 32]]
    assert assignment_independence([rare]) == pytest.approx(assignment_independence([joined]))


@pytest.mark.parametrize(
    "tables",
    [[], [[]], [[[]]], [[[0, 0], [0, 0]]], [[[3, 0], [0, 3]]], [[[1_000, 1], [1, 0]]]],
    ids=["no tables", "no rows", "no columns", "no units", "few units", "rare variants"],
)
def test_too_little_to_tell_is_no_answer(tables: list[list[list[int]]]) -> None:
    assert assignment_independence(tables) is None


def test_one_hash_for_two_experiments_is_found_out() -> None:
    found = assignment_independence([[[500, 0], [0, 500]]])
    assert found is not None
    assert found.p_value < 1e-100


def test_ragged_or_negative_tables_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="rows of one length"):
        assignment_independence([[[1, 2], [3]]])
    with pytest.raises(InvalidInputError, match="rows of one length"):
        additivity([[None, None], [None]])
    with pytest.raises(InvalidInputError, match="counts of at least 0"):
        assignment_independence([[[1, 2], [3, -1]]])
    with pytest.raises(InvalidInputError, match="confidence"):
        interaction(None, None, None, None, confidence=1.0)
