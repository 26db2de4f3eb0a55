"""Names of metrics that are nearly those of built-in ones: slips, which no event would ever carry."""

from __future__ import annotations

import re

from promptab.stats.metric import BUILT_IN_METRICS, MEASURE_ALIASES, MEASURES

_QUANTILE = re.compile(r"[pP](\d{1,2})[_-](.+)")
_LONG = 8
"""From so many letters on a name may be taken for a slip in a letter, or in two places; a short one may as well be a
word of its own: `lost` is not `cost`.
"""
_LETTER_FOR_ANOTHER = 1.5
"""Another letter in a letter's place, beside 1 for one that is missing, too many, or swapped with the next."""


def remedy_for(name: str, *, has_plan: bool = True) -> str | None:
    """Return what to write in the place of a metric's name that is probably a slip; None for built-in metrics and for
    names of their own. Without a plan there is nothing to declare a quantile in.
    """
    if name in BUILT_IN_METRICS or name in MEASURE_ALIASES:
        return None
    near = [known for known in (*BUILT_IN_METRICS, *MEASURE_ALIASES) if _is_near(name, known)]
    quantile = _QUANTILE.fullmatch(name)
    # a quantile of 0 is none
    if quantile is not None and int(quantile[1]) and (measure := _measure_near(quantile[2])) is not None:
        if f"p{quantile[1]}_{measure}" in BUILT_IN_METRICS:
            return f"did you mean p{quantile[1]}_{measure}?"
        if not has_plan:
            return f"record it under this name, or name {measure}: only a plan declares other quantiles"
        share = f"0.{quantile[1].zfill(2)}"
        return (
            f"declare it in the plan: {{name: {name}, kind: quantile, measure: {measure}, quantile: {share}}}"
        )
    return f"did you mean {' or '.join(near)}?" if near else None


def _measure_near(name: str) -> str | None:
    return next((measure for measure in MEASURES if name == measure or _is_near(name, measure)), None)


def _is_near(name: str, known: str) -> bool:
    written, meant = _letters(name), _letters(known)
    most = 2.0 if len(meant) >= _LONG else 1.0
    return abs(len(written) - len(meant)) <= most and _distance(written, meant) <= most


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _distance(one: str, other: str) -> float:
    """Return the least cost of the slips that make one of the other: optimal string alignment.

    References: Damerau, F. J. (1964), A technique for computer detection and correction of spelling errors. CACM 7(3).
    """
    earlier: list[float] = []
    above = [float(place) for place in range(len(other) + 1)]
    for row, letter in enumerate(one, 1):
        current = [float(row)]
        for column, its in enumerate(other, 1):
            changed = above[column - 1] + (0.0 if letter == its else _LETTER_FOR_ANOTHER)
            least = min(above[column] + 1.0, current[column - 1] + 1.0, changed)
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == its:
                least = min(least, earlier[column - 2] + 1.0)
            current.append(least)
        earlier, above = above, current
    return above[-1]
