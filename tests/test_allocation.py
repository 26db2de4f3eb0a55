"""Assignment: golden vectors, exact least movement, and shares and independence over 100,000 units."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from promptab.allocation import (
    SPACE,
    AllocationMap,
    Intervals,
    allocate,
    enrolled,
    feature_unit,
    moved,
    new_salt,
    normalise,
    point,
    point_of,
    reallocate,
    seed,
)
from promptab.errors import InvalidInputError

VECTORS = json.loads((Path(__file__).parent / "allocation_vectors.json").read_text(encoding="utf-8"))
UNITS = [f"user-{number}" for number in range(100_000)]
SALT, OTHER_SALT = "5f1d3c9ab2e04877", "c01a77e0d94b2f36"

weight = st.one_of(
    st.just(0), st.integers(1, 100), st.floats(1e-6, 1e6), st.sampled_from([0.1, 0.2, 0.3, 1 / 3])
)


def weights_of(*keys: str) -> st.SearchStrategy[dict[str, float]]:
    return st.fixed_dictionaries(dict.fromkeys(keys, weight)).filter(lambda drawn: sum(drawn.values()) > 0)


weightings = st.integers(1, 7).flatmap(lambda count: weights_of(*"abcdefg"[:count]))
# one list of keys, several weightings of it: the life of one experiment
lives = st.integers(1, 7).flatmap(
    lambda count: st.lists(weights_of(*"abcdefg"[:count]), min_size=2, max_size=8)
)
points = st.integers(0, SPACE - 1)


def owner_by_scan(segments: Sequence[Sequence[str]], place: int) -> str:
    return next(key for end, key in segments if place < int(end, 16))


def total_variation(old: AllocationMap, new: AllocationMap) -> Fraction:
    before, after = old.shares(), new.shares()
    distances = (abs(before.get(key, Fraction()) - after.get(key, Fraction())) for key in {*before, *after})
    return sum(distances, Fraction()) / 2


def deal(salt: str, weights: Mapping[str, float], units: Sequence[str]) -> list[str]:
    owners, seeded = allocate(weights), seed(salt)
    return [owners.key_at(point_of(seeded, unit)) for unit in units]


def independence_p(left: Sequence[object], right: Sequence[object]) -> float:
    _, rows = np.unique(np.array(left), return_inverse=True)
    _, columns = np.unique(np.array(right), return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1), dtype=np.int64)
    np.add.at(table, (rows, columns), 1)
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def test_the_hash_is_the_published_one() -> None:
    # test values of the XXH3 reference implementation for empty input with seed 0
    assert seed("") == 0x2D06800538D394C2
    assert xxhash.xxh3_128_hexdigest(b"") == "99aa06d3014798d86001c324468d497f"


@pytest.mark.parametrize("case", VECTORS["seeds"] + VECTORS["points"])
def test_points_agree_with_the_golden_vectors(case: dict[str, str]) -> None:
    salted = xxhash.xxh3_64(case["salt"].encode("utf-8")).intdigest()
    if "seed" in case:
        assert seed(case["salt"]) == salted == int(case["seed"], 16)
    else:
        by_hand = xxhash.xxh3_64(case["unit"].encode("utf-8"), seed=salted).intdigest()
        assert point(case["salt"], case["unit"]) == by_hand == int(case["point"], 16)


def test_the_golden_points_cover_emoji_long_numeric_and_decomposed_ids_under_two_salts() -> None:
    units = {case["unit"] for case in VECTORS["points"]}
    assert {"\U0001f600user", "1", "x" * 256, "Zo\u00eb", "Zoe\u0308"} <= units
    assert len({case["salt"] for case in VECTORS["points"]}) == 2
    assert len({case["point"] for case in VECTORS["points"]}) == len(VECTORS["points"])


@pytest.mark.parametrize("case", VECTORS["enrolment"], ids=str)
def test_enrolment_agrees_with_the_golden_vectors(case: dict[str, Any]) -> None:
    place = point(case["salt"], case["unit"])
    assert enrolled(place, case["traffic"]) is (Fraction(place, SPACE) < Fraction(case["traffic"]))
    assert enrolled(place, case["traffic"]) is case["enrolled"]


@pytest.mark.parametrize("case", VECTORS["features"], ids=lambda case: str(case["canonical"]))
def test_feature_units_agree_with_the_golden_vectors(case: dict[str, Any]) -> None:
    assert json.loads(case["canonical"]) == case["features"]
    by_hand = f"features:{xxhash.xxh3_128(case['canonical'].encode('utf-8')).hexdigest()}"
    assert feature_unit(case["features"]) == by_hand == case["unit"]


@pytest.mark.parametrize("case", VECTORS["maps"], ids=lambda case: str(case["weights"]))
def test_maps_agree_with_the_golden_vectors(case: dict[str, Any]) -> None:
    weights = dict(case["weights"])
    owners = allocate(weights)
    assert [list(segment) for segment in owners.to_json()] == case["segments"]
    edge, total = Fraction(), sum(map(Fraction, weights.values()))
    for end, key in case["segments"]:
        edge += Fraction(weights[key]) / total
        assert abs(Fraction(int(end, 16), SPACE) - edge) < Fraction(1, 2**52)
    for dealt in case["units"]:
        place = point(dealt["salt"], dealt["unit"])
        assert owners.key_at(place) == owner_by_scan(case["segments"], place) == dealt["variant"]


@pytest.mark.parametrize(
    "steps", VECTORS["reallocations"], ids=lambda steps: f"{len(steps[0]['weights'])} keys"
)
def test_reallocations_agree_with_the_golden_vectors(steps: list[dict[str, Any]]) -> None:
    owners = allocate(dict(steps[0]["weights"]))
    for step in steps[1:]:
        following = reallocate(owners, dict(step["weights"]))
        assert [list(segment) for segment in following.to_json()] == step["segments"]
        assert moved(owners, following).measure() == total_variation(owners, following) * SPACE
        owners = following


@given(st.text(max_size=20), st.text(min_size=1, max_size=300))
def test_point_of_a_hashed_salt_is_the_point(salt: str, unit: str) -> None:
    assert 0 <= point(salt, unit) < SPACE
    assert point_of(seed(salt), unit) == point(salt, unit)


def test_salt_and_unit_are_never_joined() -> None:
    pairs = [("sep", "1x"), ("sep1", "x"), ("", "sep1x"), ("sep1x", ""), ("s", "ep1x"), ("1x", "sep")]
    assert len({point(salt, unit) for salt, unit in pairs}) == len(pairs)


def test_new_salts_are_16_hex_digits_of_the_given_randomness() -> None:
    assert new_salt(lambda size: "0a" * size) == "0a" * 8
    assert len({new_salt() for _ in range(100)}) == 100
    assert all(len(bytes.fromhex(new_salt())) == 8 for _ in range(10))


@pytest.mark.parametrize(
    "weights",
    [
        {"a": 1, "b": 1},
        {"a": 90, "b": 10},
        {"a": 50, "b": 30, "c": 20},
        {"a": 0.985, "b": 0.01, "c": 0.005},
        dict.fromkeys("abcdefghij", 1.0),
        {"a": 1, "b": 0, "c": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("salt", [SALT, OTHER_SALT, "experiment-1"])
def test_shares_of_100000_units_match_the_weights(weights: dict[str, float], salt: str) -> None:
    dealt = deal(salt, weights, UNITS)
    served = {key: share for key, share in normalise(weights, positive=False).items() if share}
    counts = [dealt.count(key) for key in served]
    assert sum(counts) == len(UNITS)
    assert stats.chisquare(counts, [share * len(UNITS) for share in served.values()]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}),
        ({"a": 5, "b": 3, "c": 2}, {"a": 9, "b": 1}),
        (dict.fromkeys("abcdefghij", 1), dict.fromkeys("abcdefghij", 1)),
    ],
    ids=["2x2", "3x2", "10x10"],
)
@pytest.mark.parametrize(
    "salts", [(SALT, OTHER_SALT), ("checkout-1", "checkout-2"), ("a", "b"), (SALT, SALT[:-1] + "8")], ids=str
)
def test_two_experiments_deal_independently(
    left: dict[str, float], right: dict[str, float], salts: tuple[str, str]
) -> None:
    assert independence_p(deal(salts[0], left, UNITS), deal(salts[1], right, UNITS)) > 1e-4


def test_salts_that_differ_by_a_counter_do_not_correlate() -> None:
    # 30 pairs of neighbouring names: of 30 tests at 1 % more than 3 reject with probability 0.0002
    tenths, units = dict.fromkeys("abcdefghij", 1.0), UNITS[:20_000]
    dealt = [deal(f"exp-{number}", tenths, units) for number in range(31)]
    rejected = sum(independence_p(left, right) < 0.01 for left, right in itertools.pairwise(dealt))
    assert rejected <= 3


def test_the_same_salt_twice_does_correlate() -> None:
    # the check above would notice
    halves = {"a": 1.0, "b": 1.0}
    assert independence_p(deal(SALT, halves, UNITS), deal(SALT, halves, UNITS)) < 1e-100


@pytest.mark.parametrize("traffic", [0.05, 0.3, 0.9])
def test_enrolment_is_independent_of_the_variant(traffic: float) -> None:
    seeded = seed(OTHER_SALT)
    within = [enrolled(point_of(seeded, unit), traffic) for unit in UNITS]
    assert independence_p(within, deal(SALT, {"a": 5, "b": 3, "c": 2}, UNITS)) > 1e-4
    assert stats.binomtest(sum(within), len(UNITS), traffic).pvalue > 1e-4


@given(points, st.floats(0, 1), st.floats(0, 1))
def test_raising_traffic_adds_units_and_drops_none(place: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert enrolled(place, low) <= enrolled(place, high)
    assert enrolled(place, one) is (Fraction(place, SPACE) < Fraction(one))


@given(points)
def test_traffic_zero_enrols_nobody_and_one_everybody(place: int) -> None:
    assert not enrolled(place, 0.0)
    assert not enrolled(place, 0)
    assert enrolled(place, 1.0)
    assert enrolled(place, 1)


def test_enrolment_is_exact_at_the_last_and_the_first_point() -> None:
    assert enrolled(SPACE - 1, 1.0)
    assert not enrolled(SPACE - 1, math.nextafter(1.0, 0.0))
    assert enrolled(0, 5e-324)
    assert not enrolled(SPACE // 2, 0.5)
    assert enrolled(SPACE // 2 - 1, 0.5)


@given(weightings)
def test_allocate_gives_each_variant_one_range_of_its_share_in_the_given_order(
    weights: dict[str, float],
) -> None:
    owners, shares = allocate(weights), normalise(weights, positive=False)
    assert [key for _, key in owners.segments] == [key for key, share in shares.items() if share > 0]
    assert sum(owners.measures().values()) == SPACE
    exact_total, raw_total = sum(map(Fraction, shares.values())), sum(map(Fraction, weights.values()))
    for key, share in owners.shares().items():
        assert abs(share - Fraction(shares[key]) / exact_total) < Fraction(1, 2**63)
        assert abs(share - Fraction(weights[key]) / raw_total) < Fraction(1, 2**51)


@given(weightings)
def test_weights_and_the_shares_stored_for_them_give_the_same_map(weights: dict[str, float]) -> None:
    shares = normalise(weights, positive=False)
    assert normalise(shares, positive=False) == shares
    assert allocate(shares) == allocate(weights)
    assert abs(math.fsum(shares.values()) - 1) <= 2**-52


@given(weightings)
def test_the_order_of_weights_changes_no_measure(weights: dict[str, float]) -> None:
    backwards = dict(reversed(weights.items()))
    assert allocate(backwards).measures() == allocate(weights).measures()
    assert reallocate(allocate(weights), backwards) == allocate(weights)


@given(weightings, points)
def test_key_at_is_the_first_segment_that_ends_above_the_point(weights: dict[str, float], place: int) -> None:
    owners = allocate(weights)
    edges = [end + shift for end, _ in owners.segments for shift in (-1, 0)]
    for probe in (0, place, SPACE - 1, *edges):
        if probe < SPACE:
            assert owners.key_at(probe) == owner_by_scan(owners.to_json(), probe)


@given(lives)
def test_reallocation_moves_exactly_the_total_variation_distance(life: list[dict[str, float]]) -> None:
    owners = allocate(life[0])
    for weights in life[1:]:
        following = reallocate(owners, weights)
        assert following.measures() == allocate(weights).measures()
        assert moved(owners, following).measure() == total_variation(owners, following) * SPACE
        owners = following


@given(lives)
def test_reallocation_to_the_weights_in_force_changes_nothing(life: list[dict[str, float]]) -> None:
    owners = reallocate(allocate(life[0]), life[1])
    assert reallocate(owners, life[1]) == owners
    assert moved(owners, owners).empty


@given(lives)
def test_segments_stay_within_the_promised_bounds(life: list[dict[str, float]]) -> None:
    owners, count = allocate(life[0]), len(life[0])
    for weights in life[1:]:
        following = reallocate(owners, weights)
        assert len(following.segments) <= len(owners.segments) + count
        if count <= 3:
            assert len(following.segments) <= (1, 2, 4)[count - 1]
        owners = following


@given(st.lists(weights_of("a", "b", "c"), min_size=20, max_size=40))
def test_three_variants_never_need_more_than_four_segments(life: list[dict[str, float]]) -> None:
    owners = allocate(life[0])
    for weights in life[1:]:
        owners = reallocate(owners, weights)
        assert len(owners.segments) <= 4


def test_a_variant_that_had_weight_zero_gets_a_range_and_gives_it_back() -> None:
    halves = allocate({"a": 1, "b": 1, "c": 0})
    assert set(halves.measures()) == {"a", "b"}
    thirds = reallocate(halves, {"a": 1, "b": 1, "c": 1})
    assert set(thirds.measures()) == {"a", "b", "c"}
    assert reallocate(thirds, {"a": 1, "b": 1, "c": 0}).measures() == halves.measures()


def test_reallocation_hands_over_a_whole_fragment_before_it_cuts_a_range() -> None:
    # "lose" has a large and a small piece, and neither borders on "gain"
    sixteenths = [(6, "lose"), (8, "x"), (9, "lose"), (11, "y"), (14, "gain"), (16, "z")]
    owners = AllocationMap(tuple((end * SPACE // 16, key) for end, key in sixteenths))
    following = reallocate(owners, {"lose": 6, "gain": 4, "x": 2, "y": 2, "z": 2})
    assert [key for _, key in following.segments] == ["lose", "x", "gain", "y", "gain", "z"]


def test_reallocation_cuts_where_two_shrinking_ranges_meet() -> None:
    # one piece for "gain" serves both: 4 segments and not 5
    owners = allocate({"stays": 1, "a": 1, "b": 1, "gain": 0})
    following = reallocate(owners, {"stays": 2, "a": 1, "b": 1, "gain": 2})
    assert [key for _, key in following.segments] == ["stays", "a", "gain", "b"]


def test_reallocate_refuses_to_forget_an_owner() -> None:
    owners = allocate({"a": 1, "b": 1})
    with pytest.raises(InvalidInputError, match="give b a weight; 0 takes its share away"):
        reallocate(owners, {"a": 1})


@given(lives)
def test_moved_holds_the_points_whose_owner_differs(life: list[dict[str, float]]) -> None:
    old, new = allocate(life[0]), reallocate(allocate(life[0]), life[1])
    changed = moved(old, new)
    edges = {end + shift for end, _ in (*old.segments, *new.segments) for shift in (-1, 0, 1)}
    for place in sorted({0, *edges}):
        if place < SPACE:
            assert changed.contains(place) is (old.key_at(place) != new.key_at(place))


@given(lives)
def test_a_map_survives_json(life: list[dict[str, float]]) -> None:
    owners = reallocate(allocate(life[0]), life[1])
    assert AllocationMap.from_json(json.loads(json.dumps(owners.to_json()))) == owners
    assert AllocationMap.from_json((end.lstrip("0"), key) for end, key in owners.to_json()) == owners


@pytest.mark.parametrize(
    "segments",
    [
        [],
        [["8000000000000000", "a"]],
        [["10000000000000000", "a"], ["10000000000000000", "b"]],
        [["9000000000000000", "a"], ["8000000000000000", "b"], ["10000000000000000", "c"]],
        [["0", "a"], ["10000000000000000", "b"]],
        [["10000000000000001", "a"]],
        [["8000000000000000", "a"], ["10000000000000000", "a"]],
        [["10000000000000000", ""]],
        [["0x10000000000000000", "a"]],
        [["1_0000000000000000", "a"]],
        [["-10000000000000000", "a"]],
        [[SPACE, "a"]],
        [["10000000000000000", None]],
        [["10000000000000000"]],
        ["10000000000000000"],
        [None],
    ],
    ids=str,
)
def test_from_json_refuses_what_is_no_partition_of_the_space(segments: Any) -> None:
    with pytest.raises(InvalidInputError, match="segments"):
        AllocationMap.from_json(segments)


spans = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=6
)


@given(spans, spans)
def test_intervals_agree_with_sets_of_points(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> None:
    def covered(ranges: list[tuple[int, int]]) -> set[int]:
        return {place for start, end in ranges for place in range(start, end)}

    joined = Intervals(tuple(left)) | Intervals(tuple(right))
    model = covered(left) | covered(right)
    assert {place for place in range(60) if joined.contains(place)} == model
    assert joined.measure() == len(model)
    assert joined.empty is (not model)
    assert joined == Intervals(tuple((place, place + 1) for place in model))
    assert joined == Intervals(tuple(right)) | Intervals(tuple(left))
    assert all(before[1] < after[0] for before, after in itertools.pairwise(joined.spans))


def test_intervals_reach_from_the_first_point_to_the_last() -> None:
    everything = Intervals(((0, SPACE),))
    assert everything.contains(0)
    assert everything.contains(SPACE - 1)
    assert everything.measure() == SPACE
    assert Intervals().empty


@pytest.mark.parametrize("span", [(1, 1), (2, 1), (-1, 1), (0, SPACE + 1)])
def test_intervals_refuse_an_empty_reversed_or_outer_range(span: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match=r"a range \[start, end\) within"):
        Intervals((span,))


def test_normalise_keeps_order_and_ratio() -> None:
    assert list(normalise({"b": 50, "a": 150}, positive=True).items()) == [("b", 0.25), ("a", 0.75)]
    assert normalise({"a": 5e-324, "b": 5e-324}, positive=True) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("excess", [1e-9, -1e-9, 1e-15, -1e-15])
def test_normalise_corrects_sums_that_miss_one_by_more_than_rounding(excess: float) -> None:
    shares = normalise({"a": 0.5 + excess, "b": 0.5}, positive=True)
    assert (shares["b"] < 0.5) is (excess > 0)
    assert abs(math.fsum(shares.values()) - 1) <= 2**-52


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -1,
        -1e-320,
        True,
        "1",
        None,
        Decimal("NaN"),
        Decimal(1),
        10**400,
        1e-320,
        1j,
    ],
    ids=lambda value: repr(value)[:12],
)
def test_normalise_refuses_a_bad_weight_and_names_its_variant(value: Any, positive: bool) -> None:
    with pytest.raises(InvalidInputError, match="weights") as refusal:
        normalise({"a": 1.0, "b": cast("float", value)}, positive=positive)
    assert refusal.value.field == "weights[b]"


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_normalise_refuses_zero_only_where_weights_must_be_positive(zero: float) -> None:
    with pytest.raises(InvalidInputError, match=r"weights\[b\]: .* greater than 0"):
        normalise({"a": 1, "b": zero}, positive=True)
    shares = normalise({"a": 1, "b": zero}, positive=False)
    assert math.copysign(1.0, shares["b"]) == 1.0
    assert shares == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 0.0, "b": -0.0}, {"a": 1e308, "b": 1e308}], ids=str)
def test_normalise_refuses_weights_without_a_finite_sum_above_zero(weights: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="weights with a finite sum above 0"):
        normalise(weights, positive=False)


def test_feature_unit_does_not_depend_on_the_order_of_keys_at_any_depth() -> None:
    one = {"plan": "premium", "where": {"country": "de", "city": "Ulm"}}
    other = {"where": {"city": "Ulm", "country": "de"}, "plan": "premium"}
    assert feature_unit(one) == feature_unit(other)
    assert len(feature_unit(one)) == len("features:") + 32


def test_feature_unit_takes_equal_numbers_as_one_and_other_types_as_different() -> None:
    assert feature_unit({"a": 1}) == feature_unit({"a": 1.0})
    assert feature_unit({"a": 0}) == feature_unit({"a": -0.0})
    assert feature_unit({"a": 10**18}) == feature_unit({"a": 1e18})
    values = [
        1,
        "1",
        True,
        None,
        [1],
        {"a": 1},
        "",
        [],
        {},
        1.5,
        "true",
        "null",
        2**53,
        2**53 + 1,
        [[1], 2],
        [[1, 2]],
    ]
    assert len({feature_unit({"a": value}) for value in values}) == len(values)
    assert feature_unit({"a": "b", "c": "d"}) != feature_unit({"a": 'b","c":"d'})


# the example of RFC 8785, 3.2.2 (without its control characters, which are refused) and numbers of appendix B
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "[333333333.3333333,1e+30,4.5,0.002,1e-27]"),
        ([None, True, False], "[null,true,false]"),
        ('\u20ac$\nA\'B"\\\\"/', '"\u20ac$\\nA\'B\\"\\\\\\\\\\"/"'),
        ([1e23, 9.999999999999997e22, 1e21], "[1e+23,9.999999999999997e+22,1e+21]"),
        ([999999999999999700000.0, 2.0**62], "[999999999999999737856,4611686018427387904]"),
        ([9.999999999999997e-7, 0.000001], "[9.999999999999997e-7,0.000001]"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        ([5e-324, -1.7976931348623157e308, 1e-7, 1.5e-5], "[5e-324,-1.7976931348623157e+308,1e-7,0.000015]"),
    ],
    ids=["numbers", "literals", "text", "large", "whole", "small", "negative", "extreme"],
)
def test_feature_unit_hashes_canonical_json(value: object, text: str) -> None:
    expected = xxhash.xxh3_128_hexdigest(f'{{"value":{text}}}'.encode())
    assert feature_unit({"value": value}) == f"features:{expected}"


def test_feature_unit_sorts_keys_by_utf_16_code_units() -> None:
    # an emoji (a surrogate pair from D83D) comes before U+FB33 there, and after it by code point
    expected = xxhash.xxh3_128_hexdigest('{"\U0001f600":2,"\ufb33":1}'.encode())
    assert feature_unit({"\ufb33": 1, "\U0001f600": 2}) == f"features:{expected}"


@pytest.mark.parametrize(
    "features",
    [
        {},
        {"a": math.nan},
        {"a": math.inf},
        {1: "a"},
        {"a": object()},
        {"a": b"x"},
        {"a": 2**63},
        {"a": "\x00"},
        {"a": "\ud800"},
        None,
        [("a", 1)],
        "a",
    ],
    ids=lambda features: repr(features)[:20],
)
def test_feature_unit_refuses_nothing_and_what_is_no_json(features: Any) -> None:
    with pytest.raises(InvalidInputError, match="features"):
        feature_unit(features)
