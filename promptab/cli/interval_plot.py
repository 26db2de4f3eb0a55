"""Intervals drawn with characters, one below the other on one scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """An estimate with its bounds; None where there is none."""

    low: float | None
    value: float | None
    high: float | None


class Strokes(NamedTuple):
    left: str
    line: str
    right: str
    point: str
    mark: str


UNICODE = Strokes("├", "─", "┤", "●", "┆")
ASCII = Strokes("[", "-", "]", "o", ":")


def draw_intervals(
    intervals: Sequence[Interval], *, width: int, mark: float | None = None, strokes: Strokes = UNICODE
) -> list[str]:
    """Return one line of at most `width` characters per interval, all on the scale that holds every one.

    `mark` is a value to draw behind the intervals, such as zero; it is on the scale too. Of an interval without
    a value the mark alone is drawn.
    """
    bounds = [bound for interval in intervals for bound in interval if bound is not None]
    scale = [bound for bound in (*bounds, *([] if mark is None else [mark])) if math.isfinite(bound)]
    if not scale or width < 1:
        return [""] * len(intervals)
    low, high = min(scale), max(scale)

    def column(value: float) -> int:
        if high == low:
            return (width - 1) // 2
        # halved before it is subtracted: the difference of two large numbers may overflow
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
        return round(min(1.0, max(0.0, share)) * (width - 1))

    return [_line(interval, column, width=width, mark=mark, strokes=strokes) for interval in intervals]


def _line(
    interval: Interval, column: Callable[[float], int], *, width: int, mark: float | None, strokes: Strokes
) -> str:
    cells = [" "] * width
    if mark is not None:
        cells[column(mark)] = strokes.mark
    if interval.value is None:
        return "".join(cells).rstrip()
    if interval.low is not None and interval.high is not None:
        first, last = column(interval.low), column(interval.high)
        cells[first : last + 1] = strokes.line * (last + 1 - first)
        cells[first], cells[last] = strokes.left, strokes.right
    cells[column(interval.value)] = strokes.point
    return "".join(cells).rstrip()
