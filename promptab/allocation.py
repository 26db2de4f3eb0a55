"""Who gets which variant: a pure function of salt, unit and weights.

A unit is a point in [0, 2**64); each variant owns ranges of that space, and the unit gets the owner of its
point. Any change to the hash, to the rounding or to the order of moves deals users anew in running
experiments: `tests/allocation_vectors.json` holds what must stay, for other languages too.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple, Self

from xxhash import xxh3_64_intdigest, xxh3_128_hexdigest

from promptab.checks import check_json_object, check_number
from promptab.errors import InvalidInputError

SPACE = 1 << 64
"""Points are whole numbers from 0 to SPACE - 1."""

MIN_SHARE = 1e-18
"""The smallest share above zero (18 points): smaller ones could be dealt to nobody in silence."""

_END = re.compile(r"[0-9a-f]{1,17}")


def new_salt(token_hex: Callable[[int], str] = secrets.token_hex) -> str:
    """Return 16 hex digits; `token_hex` takes a number of bytes, as `secrets.token_hex` does."""
    return token_hex(8)


def seed(salt: str) -> int:
    """Return XXH3-64 (seed 0) of the salt in UTF-8, for `point_of`: a busy caller hashes a salt once."""
    return xxh3_64_intdigest(salt.encode())


def point_of(seed: int, unit: str) -> int:
    """Return a unit's point, in [0, 2**64): XXH3-64 of the unit in UTF-8, seeded with the salt's hash.

    Salt and unit are never joined, so ("sep", "1x") and ("sep1", "x") have nothing in common. The unit is
    hashed as it is: no case folding, no Unicode normalisation; `checks.check_unit` has refused empty ids and
    lone surrogates.
    """
    return xxh3_64_intdigest(unit.encode(), seed)


def point(salt: str, unit: str) -> int:
    """Return the point of a unit under a salt: `point_of(seed(salt), unit)`."""
    return point_of(seed(salt), unit)


def enrolled(point: int, traffic: float) -> bool:
    """Whether a point is within the first `traffic` (0 to 1) of the space; 0 enrols nobody and 1 everybody.

    The point must come from the enrolment salt, not from the one that deals variants. Who is enrolled at some
    share is enrolled at every larger one.
    """
    # exact: a product with a power of two is not rounded, and Python compares int with float without rounding
    return point < traffic * SPACE


def feature_unit(features: Mapping[str, Any]) -> str:
    """Return the unit for a set of features: "features:" and 32 hex digits (XXH3-128 of canonical JSON).

    The order of keys does not matter, at any depth; the order of lists does. 1 and 1.0 (and -0.0 and 0) are
    one number, since JSON has one kind of number; 1, "1" and true are three values; null is a value and not
    an absent key. Text is taken as it is, without Unicode normalisation. The canonical form is RFC 8785's,
    except that whole numbers from 2**53 to 10**21 keep all their digits.

    Raises:
        InvalidInputError: for no features at all, and for what JSON or the stores cannot hold.
    """
    checked = check_json_object("features", features)
    if not checked:
        raise InvalidInputError("features", checked, "at least one feature")
    return f"features:{xxh3_128_hexdigest(_canonical(checked).encode())}"


def normalise(weights: Mapping[str, float], *, positive: bool) -> dict[str, float]:
    """Return the shares that relative weights stand for, in the same order; they sum to 1 within 2**-52.

    Weights that already do come back unchanged, so normalising twice changes nothing. With `positive`, zero
    is refused.

    Raises:
        InvalidInputError: names the variant; for no weights, weights that are not finite numbers of at
            least 0, a sum that is zero or overflows, and a weight above zero below 1e-18 of the sum.
    """
    above = 0.0 if positive else None
    # adding 0.0 turns -0.0 into 0.0
    checked = {
        key: check_number(f"weights[{key}]", weight, low=0.0, above=above) + 0.0
        for key, weight in weights.items()
    }
    total = _total(checked)
    shares = (
        checked if abs(total - 1.0) <= 2**-52 else {key: weight / total for key, weight in checked.items()}
    )
    for key, weight in checked.items():
        if weight > 0.0 and shares[key] < MIN_SHARE:
            bound = f"at least {MIN_SHARE:g} of the sum of all weights ({total:g})"
            raise InvalidInputError(
                f"weights[{key}]", weight, bound, "" if positive else "give 0 to deal it to nobody"
            )
    return dict(shares)


@dataclass(frozen=True, slots=True)
class AllocationMap:
    """Who owns which part of the space: a segment reaches from the end of the one before (or 0) to its end.

    Raises:
        InvalidInputError: unless ends ascend, the last is SPACE, keys are not empty and neighbours differ.
    """

    segments: tuple[tuple[int, str], ...]
    """(end, variant key), the end excluded."""
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = tuple(end for end, _ in self.segments)
        bound = "segments whose ends ascend from above 0 to 2**64"
        if not ends or ends[-1] != SPACE or any(end <= start for start, end in pairwise((0, *ends))):
            raise InvalidInputError("segments", self.segments, bound)
        keys = [key for _, key in self.segments]
        if not all(keys) or any(left == right for left, right in pairwise(keys)):
            raise InvalidInputError(
                "segments", self.segments, "segments with keys that differ from their neighbours'"
            )
        object.__setattr__(self, "_ends", ends)

    def key_at(self, point: int) -> str:
        """Return the key of the variant that owns a point; the point must be in [0, SPACE)."""
        return self.segments[bisect_right(self._ends, point)][1]

    def measures(self) -> dict[str, int]:
        """Return the number of points of each owner, in order of first appearance; they sum to SPACE."""
        owned: dict[str, int] = {}
        for (start, _), (end, key) in pairwise(((0, ""), *self.segments)):
            owned[key] = owned.get(key, 0) + end - start
        return owned

    def shares(self) -> dict[str, Fraction]:
        """Return the exact share of each owner; who owns nothing is absent."""
        return {key: Fraction(measure, SPACE) for key, measure in self.measures().items()}

    def to_json(self) -> tuple[tuple[str, str], ...]:
        """Return (end in 17 hex digits, key) per segment: JSON numbers are not exact above 2**53."""
        return tuple((f"{end:017x}", key) for end, key in self.segments)

    @classmethod
    def from_json(cls, segments: Iterable[Sequence[str]]) -> Self:
        """Read what `to_json` wrote; pairs may be lists, and leading zeros may be absent.

        Raises:
            InvalidInputError: for anything that is not a whole, ascending partition of the space.
        """
        read: list[tuple[int, str]] = []
        for index, segment in enumerate(segments):
            match segment:
                case [str(end), str(key)] if _END.fullmatch(end) is not None:
                    read.append((int(end, 16), key))
                case _:
                    raise InvalidInputError(
                        f"segments[{index}]", segment, "a pair of an end in hex digits and a variant key"
                    )
        return cls(tuple(read))


@dataclass(frozen=True, slots=True)
class Intervals:
    """A set of points as ranges [start, end), sorted and joined on creation: equal sets are equal objects.

    Raises:
        InvalidInputError: for a range that is empty, reversed or outside [0, SPACE].
    """

    spans: tuple[tuple[int, int], ...] = ()
    _edges: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        joined: list[tuple[int, int]] = []
        for start, end in sorted(self.spans):
            if not 0 <= start < end <= SPACE:
                raise InvalidInputError("spans", (start, end), "a range [start, end) within [0, 2**64)")
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        object.__setattr__(self, "spans", tuple(joined))
        object.__setattr__(self, "_edges", tuple(edge for span in joined for edge in span))

    @property
    def empty(self) -> bool:
        return not self.spans

    def contains(self, point: int) -> bool:
        # an odd number of edges at or below the point: one range was opened and not yet closed
        return bisect_right(self._edges, point) % 2 == 1

    def measure(self) -> int:
        """Return the number of points, 0 to SPACE."""
        return sum(end - start for start, end in self.spans)

    def __or__(self, other: Intervals) -> Intervals:
        return Intervals(self.spans + other.spans)


def allocate(weights: Mapping[str, float]) -> AllocationMap:
    """Deal the space in one contiguous range per variant, in the given order; weight zero owns nothing.

    Each variant owns its share (`normalise`) of 2**64 points, rounded to a whole number by the largest
    remainder: less than one point off. Ties go to the key that is first in code point order, so sizes do not
    hang on the order of a JSON object's keys. Weights and the shares stored for them give the same map.

    Raises:
        InvalidInputError: as `normalise`.
    """
    return _map_of([_Piece(size, key) for key, size in _targets(weights).items() if size])


def reallocate(current: AllocationMap, weights: Mapping[str, float]) -> AllocationMap:
    """Return the map for new weights that takes the fewest points from their owners.

    The points that change hands number exactly sum(max(0, old - new)) over the variants, in points: the total
    variation distance between the old and the new shares, which no map can undercut (Levin, Peres and Wilmer,
    Markov Chains and Mixing Times, 2009, Proposition 4.7). A variant that grows loses nothing, and one that
    shrinks gains nothing.

    Which points move is chosen so that segments stay few: borders between a variant that shrinks and one that
    grows are shifted first. The space counts as a ring, so the first and the last segment share a border.
    From a map of `allocate`, however often weights change, two variants keep at most 2 segments and three at
    most 4; with k > 3 variants one change adds at most k.

    Raises:
        InvalidInputError: as `normalise`, and where an owner of points has no weight given.
    """
    owned = current.measures()
    absent = [key for key in owned if key not in weights]
    if absent:
        bound = "weights for every variant that owns a share"
        raise InvalidInputError(
            "weights", sorted(weights), bound, f"give {absent[0]} a weight; 0 takes its share away"
        )
    changes = {key: target - owned.get(key, 0) for key, target in _targets(weights).items()}
    ends = pairwise(((0, ""), *current.segments))
    pieces = [_Piece(end - start, key) for (start, _), (end, key) in ends]
    while any(changes.values()):
        move = _shift(pieces, changes) or _incision(pieces, changes)
        changes[pieces[move.at].key] += move.size
        changes[move.key] -= move.size
        pieces = _after(pieces, move)
    return _map_of(pieces)


def moved(old: AllocationMap, new: AllocationMap) -> Intervals:
    """Return the points whose owner differs: only units in these can have another variant to keep."""
    ends = sorted({end for end, _ in (*old.segments, *new.segments)})
    spans = pairwise((0, *ends))
    return Intervals(tuple((start, end) for start, end in spans if old.key_at(start) != new.key_at(start)))


class _Piece(NamedTuple):
    size: int
    key: str


class _Move(NamedTuple):
    """Give `size` points at one end of a piece, its tail or its head, to `key`."""

    at: int
    tail: bool
    size: int
    key: str


def _total(weights: Mapping[str, float]) -> float:
    bound = "weights with a finite sum above 0"
    if not weights:
        raise InvalidInputError("weights", {}, bound)
    try:
        total = math.fsum(weights.values())
    except OverflowError:
        total = math.inf
    if not 0.0 < total < math.inf:
        raise InvalidInputError("weights", weights, bound)
    return total


def _targets(weights: Mapping[str, float]) -> dict[str, int]:
    """Round shares to whole numbers of points that sum to SPACE, by the largest remainder; ties by key."""
    exact = {key: Fraction(share) for key, share in normalise(weights, positive=False).items()}
    total = sum(exact.values())
    quotas = {key: share / total * SPACE for key, share in exact.items()}
    points = {key: math.floor(quota) for key, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda key: (points[key] - quotas[key], key))
    for key in by_remainder[: SPACE - sum(points.values())]:
        points[key] += 1
    return points


def _borders(pieces: Sequence[_Piece]) -> Iterable[tuple[int, bool, int, bool]]:
    """Yield each end of each piece: index, whether the tail, the neighbour's index, whether across 0."""
    count = len(pieces)
    for index in range(count):
        yield index, True, (index + 1) % count, index + 1 == count
        yield index, False, (index - 1) % count, index == 0


def _shift(pieces: Sequence[_Piece], changes: Mapping[str, int]) -> _Move | None:
    """Return the border to shift from a growing variant into a shrinking one; None where no two of them meet.

    Small pieces go first: a piece that is taken whole is a segment less.
    """
    meeting = [
        (across, pieces[index].size, index, tail, pieces[neighbour].key)
        for index, tail, neighbour, across in _borders(pieces)
        if changes[pieces[index].key] < 0 < changes[pieces[neighbour].key]
    ]
    if not meeting:
        return None
    _, size, index, tail, key = min(meeting)
    return _Move(index, tail, min(size, -changes[pieces[index].key], changes[key]), key)


def _incision(pieces: Sequence[_Piece], changes: Mapping[str, int]) -> _Move:
    """Return a move for a growing variant that borders on no shrinking one: it needs a place of its own.

    A piece that can be taken whole is best, since that adds no segment; then the largest, cut where the
    neighbour shrinks too, so that the next move is a shift. Tails come before heads.
    """
    key = max(changes, key=lambda candidate: (changes[candidate], candidate))
    places = []
    for index, tail, neighbour, across in _borders(pieces):
        size, owner = pieces[index]
        if changes[owner] < 0:
            room = min(-changes[owner], changes[key])
            beside_stable = owner == pieces[neighbour].key or changes[pieces[neighbour].key] >= 0
            places.append((size > room, beside_stable, across, -size, index, not tail, min(size, room)))
    *_, index, head, size = min(places)
    return _Move(index, not head, size, key)


def _after(pieces: Sequence[_Piece], move: _Move) -> list[_Piece]:
    """Return the pieces after a move, neighbours of one owner joined."""
    size, owner = pieces[move.at]
    given, rest = _Piece(move.size, move.key), _Piece(size - move.size, owner)
    halves = (rest, given) if move.tail else (given, rest)
    joined: list[_Piece] = []
    for piece in (*pieces[: move.at], *halves, *pieces[move.at + 1 :]):
        if joined and joined[-1].key == piece.key:
            joined[-1] = _Piece(joined[-1].size + piece.size, piece.key)
        elif piece.size:
            joined.append(piece)
    return joined


def _map_of(pieces: Iterable[_Piece]) -> AllocationMap:
    end = 0
    segments: list[tuple[int, str]] = []
    for size, key in pieces:
        end += size
        segments.append((end, key))
    return AllocationMap(tuple(segments))


def _canonical(value: Any) -> str:
    """Write checked JSON in one way only (RFC 8785): keys sorted by UTF-16 code units, no spaces."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Write a float as ECMAScript does, where Python differs: 1.0 is 1, 1e-05 is 0.00001, 1e-07 is 1e-7."""
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if 1e-6 <= abs(value) < 1e-4:
        return format(Decimal(repr(value)), "f")
    return repr(value).replace("e-0", "e-")
