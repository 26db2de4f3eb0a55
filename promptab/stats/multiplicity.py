"""Several comparisons at once: adjusted p-values, and the level of intervals that hold together.

Which is used where:
    many arms against one control, on the primary metric    `holm`: no false winner, with chance 1 - alpha
    secondary metrics of one view; the cells of segments    `benjamini_hochberg`: few of those shown are false
    guardrails that may each call for a rollback            alpha / G for each of G: `simultaneous_confidence`
    guardrails that must all be non-inferior                nothing is shared: passing takes every one of them
                                                            (intersection-union test, Berger 1982)

References:
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979
    Benjamini & Hochberg, "Controlling the false discovery rate", JRSS-B 57, 1995
    Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982
"""

from __future__ import annotations

from collections.abc import Sequence

from promptab.errors import InvalidInputError


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values in [0, 1] so that rejecting those at most alpha makes any false rejection with chance
    at most alpha, whatever the dependence between them (Holm 1979).

    In the order given; the k-th smallest of m becomes the running maximum of (m - k + 1) p, at most 1. None
    (a comparison that could not be made) stays None and is not counted in m. Nothing in, nothing out.
    """
    ranked = _ascending(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for smaller, (p, place) in enumerate(ranked):
        highest = max(highest, (len(ranked) - smaller) * p)
        adjusted[place] = min(1.0, highest)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values in [0, 1] so that of those at most q an expected share of at most q is false.

    Assumes independent or positively dependent comparisons, as metrics and segments of one experiment usually
    are (Benjamini & Hochberg 1995; Benjamini & Yekutieli, Annals of Statistics 29, 2001). In the order given;
    the k-th smallest of m becomes the running minimum, from the largest down, of p m / k. None (a comparison
    that could not be made) stays None and is not counted in m. Nothing in, nothing out.
    """
    ranked = _ascending(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    lowest = 1.0
    for rank in range(len(ranked), 0, -1):
        p, place = ranked[rank - 1]
        lowest = min(lowest, p * len(ranked) / rank)
        adjusted[place] = lowest
    return adjusted


def simultaneous_confidence(comparisons: int, confidence: float) -> float:
    """Return the level at which each of several intervals is made so that all hold together at `confidence`.

    1 - (1 - confidence) / comparisons, by Bonferroni's inequality: whatever the dependence. One comparison
    keeps its level. Holm's p-values are a little sharper: a comparison can be rejected by `holm` while its
    interval at this level still touches zero, never the other way round.

    Raises:
        InvalidInputError: fewer than one comparison, or a confidence outside (0, 1).
    """
    if comparisons < 1:
        raise InvalidInputError(
            "comparisons", comparisons, "at least 1", "count the intervals shown together"
        )
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("confidence", confidence, "between 0 and 1", "write 95 % as 0.95")
    return 1.0 - (1.0 - confidence) / comparisons


def _ascending(p_values: Sequence[float | None]) -> list[tuple[float, int]]:
    """Return (p, its place) from the smallest up, without those that are None."""
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    for p, place in known:
        if not 0.0 <= p <= 1.0:
            raise InvalidInputError(
                f"p_values[{place}]", p, "between 0 and 1", "pass None for an unknown one"
            )
    return sorted(known)
