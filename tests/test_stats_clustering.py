"""Clustering against published numbers and data made with a known correlation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.clustering import Clustering, measured_clustering
from promptab.stats.power import Design, Proportion, sample_size
from promptab.stats.summary import UnitSums
from tests.oracles import oracle


def test_clustered_events_need_the_published_units() -> None:
    row = oracle("deff-geometric")
    inputs, expected = row["inputs"], row["expected"]
    clustering = Clustering(inputs["mean_events"], math.sqrt(inputs["cv2_events"]), inputs["icc"])
    assert clustering.design_effect == pytest.approx(expected["deff"], abs=row["tol"])
    size = sample_size(
        Proportion(inputs["p1"]),
        inputs["p2"] - inputs["p1"],
        design=Design(variance_factor=clustering.variance_factor),
    )
    assert size.exact == pytest.approx(expected["users_per_arm"], abs=row["tol"])
    assert size.exact * inputs["mean_events"] == pytest.approx(expected["events_per_arm"], abs=row["tol"])


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([0.0, 0.1, 0.3, 0.6]), st.sampled_from([2.0, 5.0]), st.integers(0, 2**32))
def test_measured_correlation_is_the_one_that_the_data_were_made_with(
    correlation: float, mean: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    events = generator.geometric(1.0 / mean, 20_000)
    if correlation:
        shape = 0.3 * (1.0 / correlation - 1.0)
        rates = generator.beta(shape, shape * 7.0 / 3.0, events.size)
    else:
        rates = np.full(events.size, 0.3)
    successes = generator.binomial(events, rates)
    sums = UnitSums.of(zip(events.tolist(), successes.tolist(), strict=True))
    measured = measured_clustering(sums)
    assert measured is not None
    assert measured.events_per_unit == pytest.approx(mean, rel=0.05)
    assert measured.cv**2 == pytest.approx(1.0 - 1.0 / mean, rel=0.12)
    assert measured.intra_unit_correlation == pytest.approx(correlation, abs=0.05)


def test_measured_design_effect_is_the_variance_ratio() -> None:
    totals = [(3.0, 2.0), (1.0, 1.0), (4.0, 1.0), (2.0, 2.0), (5.0, 4.0), (3.0, 0.0)]
    measured = measured_clustering(UnitSums.of(totals))
    assert measured is not None
    n, s = np.array(totals).T
    rate = s.sum() / n.sum()
    clustered = 6 / 5 * np.sum((s - rate * n) ** 2) / n.sum() ** 2
    assert 0.0 < measured.intra_unit_correlation < 1.0
    assert measured.design_effect == pytest.approx(clustered / (rate * (1 - rate) / n.sum()))
    assert measured.cv == pytest.approx(n.std() / n.mean())


def test_a_mean_takes_the_variance_of_single_events() -> None:
    generator = np.random.default_rng(11)
    base = generator.normal(2.0, 1.0, 20_000)
    values = base[:, None] + generator.normal(0.0, 2.0, (20_000, 4))
    sums = UnitSums.of((4.0, float(total)) for total in values.sum(axis=1))
    measured = measured_clustering(sums, event_variance=float(values.var()))
    assert measured is not None
    assert measured.intra_unit_correlation == pytest.approx(0.2, abs=0.02)
    assert measured.cv == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "totals",
    [
        [],
        [(4.0, 2.0)],
        [(1.0, 1.0), (1.0, 0.0), (1.0, 1.0)],
        [(2.0, 2.0), (3.0, 3.0)],
        [(2.0, 0.0), (3.0, 0.0)],
    ],
    ids=["no units", "one unit", "one event each", "all successes", "no success"],
)
def test_clustering_that_cannot_be_known_is_none(totals: list[tuple[float, float]]) -> None:
    assert measured_clustering(UnitSums.of(totals)) is None


def test_overflowing_sums_have_no_clustering() -> None:
    sums = UnitSums(units=3, n=6.0, s=1e200, center=0.0, rr=math.inf, nn=12.0, rn=1e200)
    assert measured_clustering(sums, event_variance=1.0) is None


def test_units_that_differ_less_than_chance_count_as_independent() -> None:
    measured = measured_clustering(UnitSums.of([(2.0, 1.0)] * 10))
    assert measured == Clustering(2.0, 0.0, 0.0)
    assert measured.design_effect == 1.0


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("events_per_unit", lambda: Clustering(0.5, 0.0, 0.1).design_effect),
        ("cv", lambda: Clustering(5.0, -1.0, 0.1).design_effect),
        ("intra_unit_correlation", lambda: Clustering(5.0, 1.0, 1.1).variance_factor),
        ("event_variance", lambda: measured_clustering(UnitSums(), event_variance=-1.0)),
    ],
)
def test_impossible_numbers_are_refused_by_name(field: str, call: Any) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        call()
    assert refusal.value.field == field
