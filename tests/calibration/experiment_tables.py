"""Tables of whole experiments: what is found at the end and in 28 looks, with an effect and without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.calibration import prose
from tests.calibration.cells import (
    QUANTILE,
    Cell,
    Found,
    Pair,
    pair_of,
    ramped_cells,
    returning_cells,
    steady_cells,
    tally_of,
)
from tests.calibration.checks import (
    COVERAGE,
    FIXED,
    FIXED_OR_BELOW,
    LOOKS,
    POOLED,
    POOLED_OR_BELOW,
    Check,
    Promise,
    check,
)
from tests.calibration.experiments import ENOUGH
from tests.calibration.markdown import (
    Section,
    heading,
    marked,
    percent,
    population_columns,
    population_name,
    table,
)
from tests.calibration.outcomes import BASE, METRICS
from tests.calibration.tally import Tally

TUNED = "anytime, tuned"
TUNED_ENOUGH = TUNED + ENOUGH

_Rows = Sequence[tuple[Cell, Pair]]


class Column(NamedTuple):
    """A number of each row: the share of experiments in which `name` happened, or did not where it ends so."""

    heading: str
    name: str
    promise: Promise | None = None
    real: bool = False
    """Of the experiments with an effect."""

    def tally(self, row: Pair) -> Tally:
        return row.real if self.real else row.null

    def told(self, row: Pair) -> str:
        share = self.tally(row).share(self.name)
        return percent(1.0 - share if self.name.endswith(" missed") else share)


def steady(found: Found) -> Section:
    return _whole_experiments(found, "steady", prose.STEADY_TITLE, prose.STEADY)


def ramped(found: Found) -> Section:
    return _whole_experiments(found, "ramped", prose.RAMPED_TITLE, prose.RAMPED)


def _whole_experiments(found: Found, section: str, title: str, words: str) -> Section:
    cells = steady_cells() if section == "steady" else ramped_cells()
    texts, checks = [f"## {title}\n\n{words}"], list[Check]()
    for metric in METRICS:
        rows = [(cell, pair_of(found, section, cell)) for cell in cells if cell.population.metric == metric]
        title_of_rows = heading(metric) + (", ramped" if section == "ramped" else "")
        text, of_rows = _table(rows, _columns(metric, section), title_of_rows)
        of_all = _pooled_check(rows, metric, title_of_rows)
        texts += [f"### {title_of_rows}\n\n{text}", of_all.told + _below(rows, metric)]
        checks += [*of_rows, of_all]
    return Section(title, "\n\n".join(texts), checks)


def _columns(metric: str, section: str) -> list[Column]:
    columns = []
    for label, name in (("fixed", "fixed"), ("anytime", "anytime"), ("tuned", TUNED_ENOUGH)):
        promise = LOOKS
        if name == "fixed":
            promise = FIXED_OR_BELOW if metric == QUANTILE else FIXED
        columns += [
            Column(f"{label}: false positives", name, promise),
            Column(f"{label}: coverage", f"{name} missed", COVERAGE, real=True),
            Column(f"{label}: power", name, real=True),
        ]
    columns.append(Column("tuned, any size", TUNED))
    if section == "ramped":
        return [*columns, Column("epochs mixed", "pooled")]
    columns.append(Column("events as units", "events"))
    return columns if metric == QUANTILE else [*columns, Column("peeking", "peeking")]


def _table(rows: _Rows, columns: Sequence[Column], title: str) -> tuple[str, list[Check]]:
    checks: list[Check] = []
    lines: list[list[str]] = []
    for cell, row in rows:
        assert row.effect is not None
        line = [*population_columns(cell.population), percent(row.effect / BASE[cell.population.metric])]
        for column in columns:
            # with one event each they are units
            told = "" if column.name == "events" and cell.population.events == 1 else column.told(row)
            if column.promise is not None:
                where = f"{title}, {population_name(cell.population)}, {column.heading}"
                one = check(column.promise, column.tally(row), column.name, where=where, told=told)
                checks.append(one)
                told = marked(told, one)
            line.append(told)
        lines.append(line)
    return table(["events", "correlation", "effect", *(column.heading for column in columns)], lines), checks


def _pooled_check(rows: _Rows, metric: str, title: str) -> Check:
    total = sum((row.null for _, row in rows), Tally())
    low, high = (percent(limit, digits=2) for limit in total.limits("fixed", 0.95))
    told = (
        f"Fixed horizon, all rows together: {percent(total.share('fixed'), digits=2)} of {total.runs:,}, "
        f"95 % interval {low} to {high}."
    )
    promise = POOLED_OR_BELOW if metric == QUANTILE else POOLED
    return check(promise, total, "fixed", where=title, told=told)


def _below(rows: _Rows, metric: str) -> str:
    """Name the conservative rows of a metric that may have some, and say what its shortcut may have missed."""
    if metric != QUANTILE:
        return ""
    cautious = [
        population_name(cell.population)
        for cell, row in rows
        if not check(FIXED, row.null, "fixed", where="", told="").held
    ]
    told = f" Conservative at a fixed horizon: {'; '.join(cautious)}." if cautious else ""
    counts = sum((tally for _, row in rows for tally in (row.null, row.real)), Tally()).counts
    return told + (
        f" Of the looks left out as hopeless, {counts['checked']:,} were worked out all the same; "
        f"{counts['wrongly screened']:,} of these would have added anything."
    )


def returning(found: Found) -> Section:
    """Return the table of units whose events are not all there at once."""
    rows: list[list[str]] = []
    checks: list[Check] = []
    for cell in returning_cells():
        tally, metric = tally_of(found, "returning", cell), cell.population.metric
        come = "come again" if cell.visits == "again" else "there all along"
        row = [come, heading(metric), *population_columns(cell.population), percent(tally.share("fixed"))]
        for name in ("anytime", TUNED_ENOUGH):
            where = f"{heading(metric)}, {population_name(cell.population)}, units {come}, {name}"
            one = check(LOOKS, tally, name, where=where, told=percent(tally.share(name)))
            checks.append(one)
            row.append(marked(one.told, one))
        row += [
            percent(tally.share(TUNED)),
            "" if metric == QUANTILE else percent(tally.share("peeking")),
        ]
        rows.append(row)
    headings = ["units", "metric", "events", "correlation", "fixed", "anytime", "tuned", "tuned, any size"]
    text = f"## {prose.RETURNING_TITLE}\n\n{prose.RETURNING}\n\n{table([*headings, 'peeking'], rows)}"
    return Section(prose.RETURNING_TITLE, text, checks)
