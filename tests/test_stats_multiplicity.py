"""Adjusted p-values against R, statsmodels and scipy; and what adjusting may never do."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from promptab.errors import InvalidInputError
from promptab.stats.multiplicity import benjamini_hochberg, holm, simultaneous_confidence
from tests.oracles import oracle

probabilities = st.floats(min_value=0.0, max_value=1.0)
some_probabilities = st.lists(probabilities, min_size=1, max_size=30)
adjustments = pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])


def test_holm_gives_the_published_values() -> None:
    row = oracle("holm-adjusted")
    assert holm(row["inputs"]["p"]) == pytest.approx(row["expected"], abs=row["tol"])


@pytest.mark.parametrize("row_id", ["bh-adjusted", "bh-adjusted-small"])
def test_benjamini_hochberg_gives_the_published_values(row_id: str) -> None:
    row = oracle(row_id)
    assert benjamini_hochberg(row["inputs"]["p"]) == pytest.approx(row["expected"], abs=row["tol"])


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> Iterator[None]:
    """Statsmodels collects garbage in every call, which looks through all that the tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@settings(max_examples=50, deadline=None)
@given(some_probabilities)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(some_probabilities)
def test_benjamini_hochberg_agrees_with_statsmodels_and_scipy(p_values: list[float]) -> None:
    adjusted = benjamini_hochberg(p_values)
    assert adjusted == pytest.approx(list(multipletests(p_values, method="fdr_bh")[1]), abs=1e-14)
    assert adjusted == pytest.approx(list(scipy.stats.false_discovery_control(p_values)), abs=1e-14)


@adjustments
@settings(max_examples=50, deadline=None)
@given(p_values=st.lists(st.none() | probabilities, max_size=12))
def test_an_unknown_p_value_stays_unknown_and_changes_no_other(adjust, p_values) -> None:  # type: ignore[no-untyped-def]
    adjusted = adjust(p_values)
    assert [p is None for p in adjusted] == [p is None for p in p_values]
    assert [p for p in adjusted if p is not None] == adjust([p for p in p_values if p is not None])


@adjustments
@settings(max_examples=50, deadline=None)
@given(p_values=some_probabilities)
def test_adjusting_keeps_the_order_and_makes_nothing_smaller(adjust, p_values) -> None:  # type: ignore[no-untyped-def]
    pairs = sorted(zip(p_values, adjust(p_values), strict=True))
    assert all(p * (1 - 1e-15) <= adjusted <= 1.0 for p, adjusted in pairs)
    assert all(lower <= upper for (_, lower), (_, upper) in itertools.pairwise(pairs))


@settings(max_examples=50, deadline=None)
@given(some_probabilities)
def test_holm_is_never_sharper_than_benjamini_hochberg(p_values: list[float]) -> None:
    strict, lenient = np.array(holm(p_values)), np.array(benjamini_hochberg(p_values))
    assert (strict >= lenient * (1 - 1e-14)).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(probabilities, min_size=1, max_size=10), st.floats(min_value=0.5, max_value=0.999))
def test_what_a_simultaneous_interval_rejects_holm_rejects_too(
    p_values: list[float], confidence: float
) -> None:
    alpha_of_each = 1 - simultaneous_confidence(len(p_values), confidence)
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        if p <= alpha_of_each:
            assert adjusted is not None
            assert adjusted <= (1 - confidence) * (1 + 1e-9)


def test_one_comparison_needs_no_adjusting() -> None:
    assert holm([0.04]) == benjamini_hochberg([0.04]) == [0.04]
    assert simultaneous_confidence(1, 0.95) == pytest.approx(0.95)


def test_simultaneous_confidence_shares_alpha_evenly() -> None:
    assert simultaneous_confidence(5, 0.95) == pytest.approx(0.99)


def test_holm_keeps_the_chance_of_any_false_rejection_under_alpha() -> None:
    """1,000 views of 10 correlated comparisons without an effect: without adjusting, a third have a rejection."""
    generator = np.random.default_rng(5)
    z = 0.5 * generator.normal(size=(1000, 1)) + np.sqrt(0.75) * generator.normal(size=(1000, 10))
    p_values = 2 * scipy.stats.norm.sf(abs(z))
    assert (p_values.min(axis=1) <= 0.05).mean() > 0.3
    rejecting = sum(min(p for p in holm(list(row)) if p is not None) <= 0.05 for row in p_values)
    assert scipy.stats.binomtest(rejecting, 1000, 0.05, alternative="greater").pvalue > 0.01


@adjustments
@pytest.mark.parametrize("p", [-0.01, 1.01, float("nan")])
def test_adjusting_refuses_what_is_no_probability(adjust, p: float) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInputError, match=r"p_values\[1\]"):
        adjust([0.5, p])


def test_simultaneous_confidence_refuses_no_comparisons_and_impossible_levels() -> None:
    with pytest.raises(InvalidInputError, match="comparisons"):
        simultaneous_confidence(0, 0.95)
    for confidence in (0.0, 1.0, 95.0, float("nan")):
        with pytest.raises(InvalidInputError, match="confidence"):
            simultaneous_confidence(2, confidence)
