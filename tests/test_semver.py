"""Versions: what is refused, the order, the next one, and ranges against npm's documented examples."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from semver import Version

from promptab.errors import InvalidInputError
from promptab.semver import (
    MAX_VERSION_CHARS,
    Bump,
    Range,
    best_match,
    check_reference,
    highest,
    is_exact,
    is_range,
    next_version,
    parse_version,
    sort_key,
    step_between,
)

numbers = st.one_of(st.integers(0, 12), st.integers(0, 10**12)).map(str)
# few letters and short identifiers, so that pre-releases often begin alike
identifiers = st.one_of(
    numbers,
    st.from_regex(r"[0-9]{0,2}[a-cA-C-][0-9a-cA-C-]{0,3}", fullmatch=True),
    st.just("-"),
    st.just("rc"),
)
prereleases = st.lists(identifiers, max_size=4).map(lambda parts: "-" + ".".join(parts) if parts else "")
versions = st.tuples(st.tuples(numbers, numbers, numbers).map(".".join), prereleases).map("".join)
near_versions = st.tuples(st.sampled_from(["1.0.0", "1.0.1", "1.10.0"]), prereleases).map("".join)
short_versions = versions.filter(lambda version: len(version) < MAX_VERSION_CHARS)
bumps = st.sampled_from(["major", "minor", "patch"])


@given(short_versions)
def test_parse_version_reads_back_what_it_prints(text: str) -> None:
    assert str(parse_version(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "1.0.0.0",
        "01.0.0",
        "1.0.0-01",
        "1.0.0-",
        "1.0.0-a..b",
        " 1.0.0",
        "1.0.0\n",
        "1.0.0\x00",
        "latest",
        "^1.0.0",
        "-1.0.0",
        "1.0.0-é",
        "\u0661.0.0",
        "1.0.0-rc_1",
        "1" * 62 + ".0.0",
        None,
        1,
        1.0,
        b"1.0.0",
    ],
)
def test_parse_version_refuses_what_is_no_semver_and_names_field_and_bound(text: object) -> None:
    with pytest.raises(InvalidInputError, match=r"a SemVer 2\.0 version such as") as refusal:
        parse_version(text, field="parent")
    assert refusal.value.field == "parent"
    assert refusal.value.value == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("v1.0.0", "write 1.0.0, without the v"),
        ("V2.1.0-rc.1", "write 2.1.0-rc.1, without the V"),
        ("1.2", "write all three numbers, such as 1.2.0"),
        ("1", "write all three numbers, such as 1.0.0"),
        ("1.0.0+linux.5", r"leave out \+linux.5: .* rank the same"),
    ],
)
def test_parse_version_says_how_to_write_it_right(text: str, remedy: str) -> None:
    with pytest.raises(InvalidInputError, match=remedy):
        parse_version(text)


@pytest.mark.parametrize("character", ["1", "1.", "a", "-", " ", "é"])
def test_parse_version_and_range_refuse_50_kilobytes_without_reading_them(character: str) -> None:
    text = ("1.0.0-" + character * 50_000)[:50_000]
    with pytest.raises(InvalidInputError, match="at most 64 characters") as refusal:
        parse_version(text)
    assert len(str(refusal.value)) < 400
    with pytest.raises(InvalidInputError, match="at most 256 characters"):
        Range.parse(text)


def test_the_longest_version_is_64_characters() -> None:
    longest = "1.0.0-" + "a" * (MAX_VERSION_CHARS - 6)
    assert str(parse_version(longest)) == longest
    with pytest.raises(InvalidInputError):
        parse_version(longest + "a")


@given(st.lists(short_versions, max_size=8), bumps)
def test_next_version_is_above_all_and_so_never_taken(existing: list[str], bump: Bump) -> None:
    following = next_version(existing, bump)
    assert following not in existing
    assert all(parse_version(following) > parse_version(version) for version in existing)
    assert parse_version(following).prerelease is None


@pytest.mark.parametrize(
    ("existing", "bump", "expected"),
    [
        ([], "patch", "1.0.0"),
        ([], "major", "1.0.0"),
        (["1.0.0"], "patch", "1.0.1"),
        (["1.9.9", "1.10.0"], "patch", "1.10.1"),
        (["1.2.3", "1.1.9"], "minor", "1.3.0"),
        (["1.2.3"], "major", "2.0.0"),
        (["2.0.0-rc.1", "1.9.9"], "patch", "2.0.0"),
        (["2.0.0-rc.1"], "minor", "2.0.0"),
        (["2.0.0-rc.1"], "major", "2.0.0"),
        (["2.1.0-rc.1"], "patch", "2.1.0"),
        (["2.1.0-rc.1"], "minor", "2.1.0"),
        (["2.1.0-rc.1"], "major", "3.0.0"),
        (["2.1.3-rc.1"], "patch", "2.1.3"),
        (["2.1.3-rc.1"], "minor", "2.2.0"),
    ],
)
def test_next_version_raises_the_highest_as_npm_does(existing: list[str], bump: Bump, expected: str) -> None:
    assert next_version(existing, bump) == expected


def test_next_version_refuses_an_unknown_bump_and_a_malformed_version() -> None:
    with pytest.raises(InvalidInputError, match="bump: 'auto' is not one of major, minor, patch"):
        next_version(["1.0.0"], cast("Bump", "auto"))
    with pytest.raises(InvalidInputError, match=r"'1\.0' is not a SemVer"):
        next_version(["1.0.0", "1.0"])


def test_next_version_refuses_to_return_a_version_too_long_to_be_read_back() -> None:
    with pytest.raises(InvalidInputError, match="raise a number in front of it"):
        next_version(["1.0." + "9" * (MAX_VERSION_CHARS - 4)])


def test_highest_is_by_precedence_and_none_of_nothing() -> None:
    assert highest(["1.9.0", "1.10.0", "1.10.0-rc.1", "0.99.0"]) == "1.10.0"
    assert highest([]) is None


@example("1.0.0-a", "1.0.0-a-")
@example("1.0.0-a.b", "1.0.0-a-.b")
@example("1.0.0-a.1", "1.0.0-a")
@example("1.0.0-9.a", "1.0.0-10")
@given(st.one_of(short_versions, near_versions), st.one_of(short_versions, near_versions))
def test_sort_key_orders_bytes_as_semver_orders_versions(left: str, right: str) -> None:
    left_key, right_key = sort_key(left).encode("ascii"), sort_key(right).encode("ascii")
    order = (left_key > right_key) - (left_key < right_key)
    assert order == Version.parse(left).compare(right)


def test_sort_key_agrees_with_the_example_of_the_specification() -> None:
    # https://semver.org, item 11
    ascending = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"]
    ascending += ["1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1"]
    assert sorted(set(ascending), key=sort_key) == ascending


def test_sort_key_fits_160_characters() -> None:
    widest = "0.0.0-" + ".".join(["1"] * 29)
    assert len(widest) <= MAX_VERSION_CHARS
    assert len(sort_key(widest)) <= 160


# the examples of https://github.com/npm/node-semver#ranges, and the readings that they imply
NPM = [
    ("1.2.3", "1.2.3", "1.2.2 1.2.4 1.2.3-rc.1"),
    ("=1.2.3", "1.2.3", "1.2.4"),
    ("1.2.3-rc.1", "1.2.3-rc.1", "1.2.3 1.2.3-rc.2"),
    ("<2.0.0", "1.9.9 0.0.0", "2.0.0 2.0.0-rc.1"),
    ("<=2.0.0", "2.0.0", "2.0.1"),
    (">1.2.3", "1.2.4 2.0.0", "1.2.3"),
    (">=1.2.7", "1.2.7 1.2.8 2.5.3 1.3.9", "1.2.6 1.1.0"),
    (">=1.2.7 <1.3.0", "1.2.7 1.2.8 1.2.99", "1.2.6 1.3.0 1.1.0"),
    (">=1,<2", "1.0.0 1.9.9", "0.9.9 2.0.0 2.0.0-rc.1"),
    (">= 1.0 , < 2", "1.0.0 1.9.9", "2.0.0"),
    (">1.2.3-alpha.3", "1.2.3-alpha.7 3.4.5 1.2.3", "3.4.5-alpha.9 1.2.3-alpha.3"),
    (">1", "2.0.0", "1.0.0 1.9.9 2.0.0-rc.1"),
    (">1.2", "1.3.0", "1.2.9 1.3.0-rc.1"),
    ("<1.2", "1.1.9", "1.2.0 1.2.0-rc.1"),
    ("<=1.2", "1.2.9 1.0.0", "1.3.0 1.3.0-rc.1"),
    ("<=1", "1.9.9", "2.0.0"),
    ("*", "0.0.0 1.2.3 99.0.0", "1.0.0-rc.1"),
    (">=*", "0.0.0 1.2.3", "1.0.0-rc.1"),
    ("1.x", "1.0.0 1.9.9", "0.9.9 2.0.0 1.0.0-rc.1"),
    ("1.*", "1.0.0 1.9.9", "2.0.0"),
    ("1.2.x", "1.2.0 1.2.9", "1.3.0 1.1.9"),
    ("1.X.X", "1.0.0 1.9.9", "2.0.0"),
    ("1", "1.0.0 1.9.9", "2.0.0"),
    ("1.2", "1.2.0 1.2.9", "1.3.0"),
    ("=1.2", "1.2.0 1.2.9", "1.3.0 1.1.0"),
    ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
    ("~1.2", "1.2.0 1.2.9", "1.3.0 1.1.9"),
    ("~1", "1.0.0 1.9.9", "2.0.0"),
    ("~0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0"),
    ("~0", "0.0.0 0.9.9", "1.0.0"),
    ("~1.2.3-beta.2", "1.2.3-beta.2 1.2.3-beta.4 1.2.3 1.2.9", "1.2.4-beta.2 1.2.3-beta.1 1.3.0"),
    ("^1.2.3", "1.2.3 1.9.9", "1.2.2 2.0.0 2.0.0-rc.1 1.3.0-rc.1"),
    ("^1.2", "1.2.0 1.9.9", "1.1.9 2.0.0"),
    ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0 1.0.0"),
    ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
    ("^1.2.3-beta.2", "1.2.3-beta.2 1.2.3-beta.4 1.2.3 1.9.0", "1.2.4-beta.2 1.2.3-beta.1 2.0.0"),
    ("^0.0.3-beta", "0.0.3-beta 0.0.3-pr.2 0.0.3", "0.0.4 0.0.3-alpha"),
    ("^1.2.x", "1.2.0 1.9.9", "2.0.0"),
    ("^0.0.x", "0.0.0 0.0.9", "0.1.0"),
    ("^0.0", "0.0.0 0.0.9", "0.1.0"),
    ("^1.x", "1.0.0 1.9.9", "2.0.0"),
    ("^0.x", "0.0.0 0.9.9", "1.0.0"),
    ("^*", "0.0.0 9.9.9", "1.0.0-rc.1"),
    (">=2.0.0-alpha <2", "", "2.0.0-beta 2.0.0 1.9.9"),
    (">=2.0.0-alpha <2.0.0", "2.0.0-beta", "2.0.0 1.9.9"),
]


@pytest.mark.parametrize(("text", "inside", "outside"), NPM, ids=[text for text, _, _ in NPM])
def test_range_matches_as_npm_documents(text: str, inside: str, outside: str) -> None:
    written = Range.parse(text)
    assert [version for version in inside.split() if not written.matches(version)] == []
    assert [version for version in outside.split() if written.matches(version)] == []


@given(short_versions, short_versions)
def test_a_caret_range_is_the_comparisons_that_define_it(floor: str, candidate: str) -> None:
    low, other = parse_version(floor), parse_version(candidate)
    kept = next((place for place in (0, 1) if low.to_tuple()[place]), 2) + 1
    same_place = low.to_tuple()[:kept] == other.to_tuple()[:kept]
    named = other.prerelease is None or (
        low.prerelease is not None and low.to_tuple()[:3] == other.to_tuple()[:3]
    )
    assert Range.parse(f"^{floor}").matches(candidate) == (other >= low and same_place and named)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "latest",
        "v1.0.0",
        "^",
        ">=",
        "^^1",
        "=>1",
        "~>1",
        "1.2.3.4",
        "1.x.3",
        "*.1",
        "x",
        "^x",
        "1.2-rc",
        "1 || 2",
        "1 - 2",
        ">=1,",
        ",1",
        ">=1,,<2",
        ">*",
        "<*",
        "^01.0.0",
        "^1.2.3+build",
        "^1.2.3.x",
        "^\u0661",
        None,
        1.0,
        "^" + "9" * 65 + ".0.0",
        "^1.0.0 " * 40,
        "1\x00",
    ],
)
def test_range_refuses_what_it_does_not_understand(text: object) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        Range.parse(text)
    assert refusal.value.field == "range"


def test_range_is_a_value_that_prints_as_it_was_written() -> None:
    written = Range.parse(" ^1.2  <1.9 ")
    assert str(written) == "^1.2  <1.9"
    assert Range.parse(str(written)) == written
    assert len({written, Range.parse(str(written))}) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [("1.0.0", "exact"), ("2.0.0-rc.1", "exact")]
    + [
        (text, "range")
        for text in ("^1.2", "~1", ">=1 <2", "1.x", "*", "1.2", "=1.2.3", "", "1.2.3.4", "1.0.0+b")
    ]
    + [(text, "tag") for text in ("production", "v1.0.0", "x", "latest")],
)
def test_every_reference_is_exact_a_range_or_a_tag(text: str, kind: str) -> None:
    assert (is_exact(text), is_range(text)) == (kind == "exact", kind == "range")


def test_best_match_is_the_highest_that_the_range_admits() -> None:
    existing = ["1.0.0", "1.10.0", "1.9.0", "2.0.0", "1.11.0-rc.1"]
    assert best_match("^1.0", existing) == "1.10.0"
    assert best_match("^1.11.0-rc.0", existing) == "1.11.0-rc.1"
    assert best_match("^3", existing) is None
    assert best_match("*", []) is None


@pytest.mark.parametrize(
    ("before", "after", "step"),
    [
        ("1.0.0", "1.0.1", "patch"),
        ("1.0.0", "1.1.0", "minor"),
        ("1.0.0", "2.0.0", "major"),
        ("1.4.0", "2.0.0-rc.1", "major"),
        ("2.0.0-rc.1", "2.0.0-rc.2", None),
        ("2.0.0-rc.2", "2.0.0", None),
        ("2.0.0-rc.1", "2.0.1", "patch"),
        ("2.0.0-rc.1", "2.1.0-rc.1", "minor"),
        ("2.0.0", "2.0.0", None),
        ("2.0.0", "2.0.0-rc.1", None),
        ("2.0.0", "1.9.0", None),
    ],
)
def test_a_step_is_declared_by_the_numbers_and_not_inside_a_pre_release(
    before: str, after: str, step: str | None
) -> None:
    assert step_between(before, after) == step


@pytest.mark.parametrize("value", [None, 1.0, 5, b"1.0.0", []])
def test_a_reference_that_is_no_text_is_refused_by_its_field(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^version: .* is not a version, a range"):
        check_reference("version", value)


def test_a_bump_that_cannot_be_hashed_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^bump: "):
        next_version(["1.0.0"], [])  # type: ignore[arg-type]
