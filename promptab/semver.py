"""Version numbers: SemVer 2.0.0 (https://semver.org), the next one, their order, and npm's ranges.

A reference to a version is one of three: exact (`1.4.0`), a range (`^1.2`), or a tag, which begins with a
letter.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, Self

from semver import Version

from promptab.errors import InvalidInputError

Bump = Literal["major", "minor", "patch"]

MAX_VERSION_CHARS = 64
MAX_RANGE_CHARS = 256
FIRST_VERSION = "1.0.0"

_VERSION_BOUND = f"a SemVer 2.0 version such as 1.4.0 or 2.0.0-rc.1, at most {MAX_VERSION_CHARS} characters"
_RANGE_BOUND = f"a range such as ^1.2, ~1.2, >=1 <2, 1.x or *, at most {MAX_RANGE_CHARS} characters"

_NUMBER = re.compile(r"0|[1-9][0-9]*")
_COMPARATOR = re.compile(r"(\^|~|>=|<=|>|<|=|)(.+)")
_SPACE_AFTER_OPERATOR = re.compile(r"(?<=[\^~<>=])\s+")
_BETWEEN_COMPARATORS = re.compile(r"\s*,\s*|\s+")
_WILDCARDS = frozenset({"x", "X", "*"})
_HOLDS: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


def parse_version(text: object, *, field: str = "version") -> Version:
    """Read one exact version.

    Build metadata (`1.0.0+linux`) is refused although SemVer allows it: versions that differ only there have
    the same precedence, so "the highest" would not be one version.

    Raises:
        InvalidInputError: for anything else than a version; names `field`.
    """
    # the length comes first: the pattern must never see 50 KB of digits
    if not isinstance(text, str) or len(text) > MAX_VERSION_CHARS:
        raise InvalidInputError(field, text, _VERSION_BOUND)
    try:
        version = Version.parse(text)
    except ValueError:
        raise InvalidInputError(field, text, _VERSION_BOUND, _remedy(text)) from None
    if version.build is not None:
        remedy = f"leave out +{version.build}: versions that differ only in build metadata rank the same"
        raise InvalidInputError(field, text, _VERSION_BOUND, remedy)
    return version


def next_version(existing: Iterable[str], bump: Bump = "patch") -> str:
    """Return the highest of `existing` with one number raised; "1.0.0" where there is none.

    Higher than every version given, so never one of them. A pre-release counts as on its way to its release,
    as in npm: after 2.0.0-rc.1 each bump gives 2.0.0; after 2.1.0-rc.1 patch and minor give 2.1.0, but major
    gives 3.0.0.

    Raises:
        InvalidInputError: for an unknown bump, an `existing` that is not a version, or a result that would
            be too long.
    """
    if bump not in ("major", "minor", "patch"):
        raise InvalidInputError("bump", bump, "one of major, minor, patch")
    parsed = [parse_version(version) for version in existing]
    if not parsed:
        return FIRST_VERSION
    raised = str(max(parsed).next_version(bump))
    if len(raised) > MAX_VERSION_CHARS:
        raise InvalidInputError("version", raised, _VERSION_BOUND, "raise a number in front of it by hand")
    return raised


def highest(versions: Iterable[str]) -> str | None:
    """Return the version with the highest precedence, pre-releases included; None where there is none."""
    return max(versions, key=parse_version, default=None)


def step_between(before: str, after: str) -> Bump | None:
    """Return the step that two numbers declare; None where `after` is not higher than `before`.

    A pre-release declares no step to a later one of the same three numbers, nor to their release: what it was
    made for was declared by the first of them.
    """
    old, new = parse_version(before), parse_version(after)
    if new <= old or new.to_tuple()[:3] == old.to_tuple()[:3]:
        return None
    if new.major != old.major:
        return "major"
    return "minor" if new.minor != old.minor else "patch"


def sort_key(version: str) -> str:
    """Return an ASCII text of at most 160 characters whose byte order is the precedence of versions.

    A database sorts by it with the "C" collation (SQLite's BINARY); any other collation reorders the signs
    used here. Numbers are written with their length in front. A pre-release is the list of its identifiers,
    each ended by "!", which is lower than all that an identifier may hold, so the shorter of two lists that
    begin alike is lower; numeric identifiers begin with 0 and the others with 1. A release ends in "~", above
    every pre-release (SemVer 2.0.0, 11).
    """
    parsed = parse_version(version)
    core = "".join(_number_key(str(number)) for number in (parsed.major, parsed.minor, parsed.patch))
    if parsed.prerelease is None:
        return core + "~"
    return core + "".join(
        ("0" + _number_key(identifier) if identifier.isdigit() else "1" + identifier) + "!"
        for identifier in parsed.prerelease.split(".")
    )


@dataclass(frozen=True, slots=True)
class Range:
    """A condition on versions: comparators that must all hold, with the meaning that npm gives them.

    See https://github.com/npm/node-semver#ranges. Comparators are separated by spaces or commas. `^1.2.3` is
    `>=1.2.3 <2.0.0` and keeps the first number that is not zero (`^0.2.3` is `<0.3.0`, `^0.0.3` is `<0.0.4`);
    `~1.2.3` is `<1.3.0`, `~1` is `<2.0.0`; `1.2`, `1.2.x` and `=1.2` are `~1.2`; `*` is every release.
    Alternatives (`||`) and hyphen ranges are not offered.

    A pre-release matches only where a comparator itself names a pre-release of the same three numbers:
    `^1.2.3-beta.2` takes 1.2.3-beta.4 but not 1.2.4-beta.1.
    """

    text: str
    """As it was written, without outer spaces."""
    bounds: tuple[tuple[str, Version], ...]
    """(operator, version), the operator one of >=, <=, >, <, =; none where every release matches."""

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a range; an exact version is one too, and matches itself.

        Raises:
            InvalidInputError: the message lists the forms that are understood.
        """
        if not isinstance(text, str) or len(text) > MAX_RANGE_CHARS or not text.strip():
            raise InvalidInputError("range", text, _RANGE_BOUND)
        tokens = _BETWEEN_COMPARATORS.split(_SPACE_AFTER_OPERATOR.sub("", text.strip()))
        bounds = [bound for token in tokens for bound in _bounds(token, text)]
        return cls(text=text.strip(), bounds=tuple(bounds))

    def matches(self, version: str) -> bool:
        candidate = parse_version(version)
        if candidate.prerelease is not None and not any(
            bound.prerelease is not None and bound.to_tuple()[:3] == candidate.to_tuple()[:3]
            for _, bound in self.bounds
        ):
            return False
        return all(_HOLDS[sign](candidate, bound) for sign, bound in self.bounds)

    def __str__(self) -> str:
        return self.text


def check_reference(field: str, value: object) -> str:
    """Return what names a version, as text that `is_exact`, `is_range` and the tags can tell apart."""
    if not isinstance(value, str):
        raise InvalidInputError(field, value, "a version, a range such as ^1.2, a tag or 'latest'")
    return value


def is_exact(text: str) -> bool:
    """Whether `text` is one version, as `parse_version` takes it ("v1.0.0" is not: it reads as a tag)."""
    try:
        parse_version(text)
    except InvalidInputError:
        return False
    return True


def is_range(text: str) -> bool:
    """Whether `text` is for `Range.parse`: no exact version, and no tag since it begins with no letter.

    Malformed references such as "1.2.3.4" or "" count as ranges, so that they are refused with a reason and
    never looked up as a tag that does not exist.
    """
    return not text[:1].isalpha() and not is_exact(text)


def best_match(range_text: str, versions: Iterable[str]) -> str | None:
    """Return the highest of `versions` that the range admits; None where it admits none of them."""
    wanted = Range.parse(range_text)
    return highest(version for version in versions if wanted.matches(version))


def _remedy(text: str) -> str:
    if text[:1] in {"v", "V"} and Version.is_valid(text[1:]):
        return f"write {text[1:]}, without the {text[0]}"
    numbers = text.split(".")
    if len(numbers) < 3 and all(_NUMBER.fullmatch(number) for number in numbers):
        return f"write all three numbers, such as {'.'.join([*numbers, '0', '0'][:3])}"
    return ""


def _number_key(digits: str) -> str:
    return f"{len(digits):02d}{digits}"


def _bounds(token: str, text: str) -> list[tuple[str, Version]]:
    """Write one comparator as plain comparisons.

    Upper bounds that a partial version implies end in -0, the lowest pre-release there is, as in npm: `<2`
    keeps out 2.0.0-rc.1 even where another comparator names a pre-release of 2.0.0.
    """
    comparator = _COMPARATOR.fullmatch(token)
    if comparator is None:
        raise InvalidInputError("range", text, _RANGE_BOUND)
    sign, written = comparator.groups()
    floor, places = _partial(written, text)
    if places == 0:
        if sign in {">", "<"}:
            raise InvalidInputError("range", text, _RANGE_BOUND, f"{token} admits no version")
        return []
    if sign == "^":
        return [(">=", floor), ("<", _ceiling(floor, _caret_places(floor, places)))]
    if sign == "~":
        return [(">=", floor), ("<", _ceiling(floor, min(places, 2)))]
    if places == 3:
        return [(sign or "=", floor)]
    return {
        ">=": [(">=", floor)],
        "<": [("<", floor.replace(prerelease="0"))],
        ">": [(">=", _ceiling(floor, places).replace(prerelease=None))],
        "<=": [("<", _ceiling(floor, places))],
    }.get(sign, [(">=", floor), ("<", _ceiling(floor, places))])


def _partial(written: str, text: str) -> tuple[Version, int]:
    """Return the lowest version that `1`, `1.x` or `1.2.3-rc.1` admits, and how many numbers it gives."""
    places = written.split(".")
    numbers = list(takewhile(lambda place: place not in _WILDCARDS, places))
    if len(numbers) >= 3:
        return parse_version(written, field="range"), 3
    wildcards = places[len(numbers) :]
    well_formed = (
        len(places) <= 3
        and places[0] not in {"x", "X"}
        and all(_NUMBER.fullmatch(number) for number in numbers)
        and all(place in _WILDCARDS for place in wildcards)
    )
    if not well_formed:
        raise InvalidInputError("range", text, _RANGE_BOUND)
    return Version(*(int(number) for number in numbers)) if numbers else Version(0), len(numbers)


def _caret_places(floor: Version, places: int) -> int:
    """Return how many numbers a caret keeps: up to the first that is not zero, or all that were given."""
    if floor.major > 0 or places == 1:
        return 1
    return 2 if floor.minor > 0 or places == 2 else 3


def _ceiling(floor: Version, kept: int) -> Version:
    """Return the lowest version above all those that share the first `kept` numbers."""
    raised = (floor.bump_major(), floor.bump_minor(), floor.bump_patch())
    return raised[kept - 1].replace(prerelease="0")
