"""How a sample size plan is shown: its sentence, a row for each method, and what was measured for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptab.analysis import wording
from promptab.cli.output import facts, table
from promptab.cli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from promptab.analysis.planned import MetricHistory, PlannedTest, SampleSizePlan


def print_plan(to: Console, plan: SampleSizePlan, history: MetricHistory | None) -> None:
    to.print(plan.sentence)
    numbers = ["units per variant", "in all"]
    if any(test.events is not None for test in plan.tests):
        numbers.append("events")
    if any(test.days is not None for test in plan.tests):
        numbers.append("days")
    numbers += ["power", "change"]
    rows = table("method", *numbers, right=numbers)
    for test in plan.tests:
        cells = _cells(test, plan)
        rows.add_row(test.method, *(cells[name] for name in numbers))
    to.print(rows)
    if history is not None:
        to.print(facts(_history_facts(history)))


def _cells(test: PlannedTest, plan: SampleSizePlan) -> dict[str, str]:
    per_variant = f"{test.control_units:,}"
    if test.treatment_units != test.control_units:
        per_variant += f" and {test.treatment_units:,}"
    change = wording.change(test.effect, None, None, plan.format)
    return {
        "units per variant": per_variant,
        "in all": f"{test.units:,}",
        "events": wording.NOTHING if test.events is None else f"{test.events:,}",
        "days": wording.NOTHING if test.days is None else f"{test.days:,}",
        "power": wording.probability(test.power),
        "change": change.told(wording.change_unit(plan.format)),
    }


def _history_facts(history: MetricHistory) -> list[tuple[str, str]]:
    told = [
        ("measured", f"{history.metric} of {counted(history.units, 'unit')} ({history.source})"),
        ("mean", wording.measure(history.mean, history.format)),
    ]
    if history.events_per_unit is not None and history.event_cv is not None:
        told.append(("events per unit", f"{history.events_per_unit:.3g} (CV {history.event_cv:.2g})"))
    if history.correlation is not None and history.design_effect is not None:
        told.append(("correlation", f"{history.correlation:.2g} of two events of a unit"))
        told.append(("design effect", f"{history.design_effect:.3g} times as many events as if independent"))
    if history.history_correlation is not None:
        told.append(("CUPED", f"correlation with the units' past {history.history_correlation:.2g}"))
    if history.units_per_day is not None:
        told.append(("units per day", f"{history.units_per_day:,.4g} for the first time"))
    return told
