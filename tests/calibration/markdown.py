"""Words and numbers as the page writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from promptab.stats.metric import BUILT_IN_METRICS
from tests.calibration.checks import Check
from tests.calibration.outcomes import Population


class Section(NamedTuple):
    """A part of the page, and the numbers in it that have a bound."""

    title: str
    text: str
    checks: Sequence[Check] = ()


def heading(metric: str) -> str:
    return BUILT_IN_METRICS[metric].heading


def population_name(population: Population) -> str:
    events = f"{population.events} event{'s' if population.events > 1 else ''}"
    return f"{events}, correlation {population.correlation:g}"


def population_columns(population: Population) -> list[str]:
    return [str(population.events), f"{population.correlation:g}"]


def percent(share: float, digits: int = 1) -> str:
    return f"{100.0 * share:.{digits}f} %"


def marked(told: str, *checks: Check) -> str:
    """Return what is told, bold where it is outside a bound."""
    return told if all(one.held for one in checks) else f"**{told}**"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
