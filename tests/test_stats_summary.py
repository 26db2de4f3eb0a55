"""Sums over units: merging equals computing on the union, and the center changes nothing."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.errors import InvalidInputError
from promptab.stats.summary import UnitSums

unit_totals = st.tuples(
    st.integers(min_value=0, max_value=50).map(float),
    st.floats(min_value=-1e6, max_value=1e6, allow_subnormal=False),
)
groups = st.lists(unit_totals, max_size=20)
centers = st.floats(min_value=-1e4, max_value=1e4, allow_subnormal=False)


zeros_and_ones = st.lists(
    st.integers(min_value=1, max_value=50).flatmap(
        lambda n: st.integers(min_value=0, max_value=n).map(lambda s: (float(n), float(s)))
    ),
    max_size=20,
)


@given(zeros_and_ones)
def test_the_complement_is_the_sums_of_failures(units: list[tuple[float, float]]) -> None:
    failures = UnitSums.of([(n, n - s) for n, s in units], center=1.0 - UnitSums.of(units).center)
    assert_same_sums(UnitSums.of(units).complement(), failures)


def assert_same_sums(actual: UnitSums, expected: UnitSums) -> None:
    """Agree to rounding, which is relative to the largest moment: single moments may cancel to nothing."""
    assert actual.units == expected.units
    assert actual.n == expected.n
    assert actual.center == expected.center
    tiny = 1e-9 * (1.0 + abs(expected.rr) + expected.center**2 * expected.nn)
    assert actual.s == pytest.approx(expected.s, rel=1e-9, abs=1e-6)
    assert actual.rr == pytest.approx(expected.rr, rel=1e-9, abs=tiny)
    assert actual.nn == pytest.approx(expected.nn, rel=1e-12)
    assert actual.rn == pytest.approx(expected.rn, rel=1e-9, abs=math.sqrt(tiny * (1.0 + expected.nn)))


@given(left=groups, right=groups, center=centers)
def test_adding_equals_computing_on_the_union(
    left: list[tuple[float, float]], right: list[tuple[float, float]], center: float
) -> None:
    merged = UnitSums.of(left, center=center) + UnitSums.of(right, center=center)
    union = UnitSums.of(left + right, center=center)
    assert_same_sums(merged, union if left or right else UnitSums(center=center))


@given(first=groups, second=groups, third=groups, center=centers)
def test_adding_is_associative_and_commutative(
    first: list[tuple[float, float]],
    second: list[tuple[float, float]],
    third: list[tuple[float, float]],
    center: float,
) -> None:
    a, b, c = (UnitSums.of(group, center=center) for group in (first, second, third))
    assert_same_sums((a + b) + c, a + (b + c))
    assert_same_sums(a + b, b + a)


@given(units=st.lists(unit_totals, min_size=1, max_size=20), center=centers, other=centers)
def test_recentered_equals_computing_about_the_other_center(
    units: list[tuple[float, float]], center: float, other: float
) -> None:
    moved = UnitSums.of(units, center=center).recentered(other)
    direct = UnitSums.of(units, center=other)
    scale = 1.0 + direct.rr + max(abs(center), abs(other)) ** 2 * direct.nn
    assert moved.rr == pytest.approx(direct.rr, rel=1e-9, abs=1e-9 * scale)
    assert moved.rn == pytest.approx(direct.rn, rel=1e-9, abs=1e-9 * math.sqrt(scale * direct.nn))
    assert moved[:4] == direct[:4]


def test_of_adds_up_what_the_fields_say() -> None:
    sums = UnitSums.of([(2, 3), (1, -1), (4, 2)], center=0.5)
    assert sums == UnitSums(units=3, n=7, s=4, center=0.5, rr=4 + 2.25 + 0, nn=4 + 1 + 16, rn=4 - 1.5 + 0)


def test_of_takes_the_ratio_as_center_unless_told_otherwise() -> None:
    sums = UnitSums.of([(2, 3), (2, 5)])
    assert sums.center == 2.0
    assert sums.rn == 0.0


def test_of_leaves_out_units_without_events() -> None:
    assert UnitSums.of([(0, 0), (1, 2), (0, 0)]) == UnitSums.of([(1, 2)])


def test_of_keeps_a_unit_that_has_only_a_numerator() -> None:
    sums = UnitSums.of([(0, 2), (1, 4), (0, 0)])
    assert sums == UnitSums(units=2, n=1, s=6, center=6.0, rr=4.0 + 4.0, nn=1, rn=-2.0)


def test_of_units_without_any_denominator_has_the_center_zero() -> None:
    assert UnitSums.of([(0, 2), (0, 3)]) == UnitSums(units=2, n=0, s=5, center=0.0, rr=13.0, nn=0, rn=0)


def test_of_no_units_is_empty() -> None:
    assert UnitSums.of([]) == UnitSums()


def test_of_reads_an_iterator_once() -> None:
    assert UnitSums.of(iter([(1, 2), (3, 4)])) == UnitSums.of([(1, 2), (3, 4)])


def test_adding_refuses_two_centers_and_names_both() -> None:
    with pytest.raises(
        InvalidInputError, match=r"center: 2\.0 is not the center of the other side, 1\.0"
    ) as caught:
        UnitSums.of([(1, 1)], center=1.0) + UnitSums.of([(1, 1)], center=2.0)
    assert caught.value.field == "center"


def test_adding_an_empty_side_of_another_center_keeps_the_other_side() -> None:
    some = UnitSums.of([(1, 1), (2, 5)], center=1.0)
    empty = UnitSums(center=7.0)
    assert some + empty == some
    assert empty + some == some


def test_pooled_merges_parts_of_different_centers() -> None:
    parts = [
        UnitSums(center=9.0),
        UnitSums.of([(1, 1), (3, 2)], center=0.5),
        UnitSums.of([(2, 7)], center=3.5),
    ]
    assert_same_sums(UnitSums.pooled(parts), UnitSums.of([(1, 1), (3, 2), (2, 7)], center=0.5))


def test_pooled_of_nothing_is_empty() -> None:
    assert UnitSums.pooled([]) == UnitSums()


def test_second_moments_keep_a_small_spread_around_a_huge_mean() -> None:
    generator = random.Random(3)
    offsets = [generator.randrange(-512, 513) / 1024 for _ in range(1000)]
    near_zero = UnitSums.of([(1, offset) for offset in offsets], center=0.0)
    # multiples of 1/1024 near 2**30 are exact doubles, so the shifted data hold the same offsets
    far_off = UnitSums.of([(1, 2.0**30 + offset) for offset in offsets], center=2.0**30)
    raw = math.fsum((2.0**30 + offset) ** 2 for offset in offsets) - 1000 * (2.0**30) ** 2
    assert far_off.rr == near_zero.rr
    assert raw != pytest.approx(near_zero.rr, rel=0.5), "raw second moments should have lost it"
