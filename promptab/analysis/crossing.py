"""Two experiments on the same units: whether the effect of the one depends on the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from promptab.analysis import wording
from promptab.analysis.planned import InteractionResult, VariantInteraction
from promptab.models import PromptExperiment
from promptab.stats.contrast import ArmMean, over_common_epochs
from promptab.stats.interaction import (
    Additivity,
    Independence,
    additivity,
    assignment_independence,
    interaction,
)
from promptab.stats.metric import MetricDefinition
from promptab.stats.ratio import ratio_mean
from promptab.stats.summary import UnitSums

ALARM_LEVEL = 0.001
"""Of the test whether the experiments were dealt apart: a hash that is sound fails it once in a thousand."""

Cells = Mapping[tuple[str, str], UnitSums]
"""By the variant in the first experiment and that in the second; what is missing has no units."""
Counts = Mapping[tuple[str, str], int]


def crossed(
    first: PromptExperiment,
    second: PromptExperiment,
    definition: MetricDefinition,
    *,
    strata: Sequence[Cells],
    dealt: Sequence[Counts],
    confidence: float,
) -> InteractionResult:
    """Say whether the two experiments interact, from the units that are in both.

    `strata` has the sums of the first experiment's metric for every pair of epochs, `dealt` the units, whether they
    have an outcome or not. Within a pair of epochs the weights of both were constant; the pairs are combined with
    weights proportional to their units, alike in every cell, so that weights which change bias nothing. A pair of
    epochs with a cell of fewer than two units is left out. At a fixed horizon: right for one look.
    """
    rows = [variant.key for variant in first.variants]
    columns = [variant.key for variant in second.variants]
    contrasts = tuple(
        _contrast(first, second, definition, strata, (row, column), confidence)
        for row in rows
        if row != first.control
        for column in columns
        if column != second.control
    )
    cells = combined_cells(strata, rows, columns)
    together = additivity([[cells.get((row, column)) for column in columns] for row in rows])
    independence = assignment_independence(
        [[[counts.get((row, column), 0) for column in columns] for row in rows] for counts in dealt]
    )
    units = sum(count for counts in dealt for count in counts.values())
    return InteractionResult(
        first_id=first.experiment_id,
        first=first.name,
        second_id=second.experiment_id,
        second=second.name,
        metric=definition.name,
        confidence=confidence,
        units=units,
        contrasts=contrasts,
        p_value=None if together is None else together.p_value,
        independence_p=None if independence is None else independence.p_value,
        sentence=_sentence((first, second), definition.name, units, together, independence, confidence),
    )


def combined_cells(
    strata: Sequence[Cells], rows: Sequence[str], columns: Sequence[str]
) -> dict[tuple[str, str], ArmMean]:
    """Return the mean of every cell over the strata in which all of these cells have two units or more; empty where
    there is no such stratum.
    """
    keys = [(row, column) for row in rows for column in columns]
    means: dict[tuple[str, str], dict[int, ArmMean]] = {key: {} for key in keys}
    for number, cells in enumerate(strata):
        for key in keys:
            if (mean := ratio_mean(cells.get(key, UnitSums()))) is not None:
                means[key][number] = mean
    return over_common_epochs(means)


def _contrast(
    first: PromptExperiment,
    second: PromptExperiment,
    definition: MetricDefinition,
    strata: Sequence[Cells],
    pair: tuple[str, str],
    confidence: float,
) -> VariantInteraction:
    variant, other = pair
    cells = combined_cells(strata, (variant, first.control), (other, second.control))
    tt, tc = cells.get((variant, other)), cells.get((variant, second.control))
    ct, cc = cells.get((first.control, other)), cells.get((first.control, second.control))
    found = interaction(tt, tc, ct, cc, confidence=confidence)
    low, high = (None, None) if found.interval is None else found.interval
    said = VariantInteraction(
        variant=variant,
        other_variant=other,
        effect_with=_effect(tt, ct),
        effect_without=_effect(tc, cc),
        value=found.value,
        se=found.se,
        low=low,
        high=high,
        p_value=found.p_value,
        units=sum(cell.units for cell in cells.values()),
        sentence="",
    )
    sentence = _contrast_sentence(said, first, second, definition, confidence)
    return said.model_copy(update={"sentence": sentence})


def _effect(treatment: ArmMean | None, control: ArmMean | None) -> float | None:
    if treatment is None or control is None:
        return None
    value = treatment.value - control.value
    return value if math.isfinite(value) else None


def _contrast_sentence(
    said: VariantInteraction,
    first: PromptExperiment,
    second: PromptExperiment,
    definition: MetricDefinition,
    confidence: float,
) -> str:
    groups = f"{said.other_variant} and units that got {second.control} of {second.name}"
    effect = f"the effect of {said.variant} over {first.control} on {definition.name}"
    if said.value is None:
        return f"not enough data on {effect}: among units that got {groups}, a variant has fewer than 2 units"
    change = wording.change(said.value, said.low, said.high, definition.format)
    unit = wording.change_unit(definition.format)
    amount = f"{change.value} {unit}".strip()
    differs = f"{effect} differs by {amount} between units that got {groups}"
    if said.p_value is None:
        return f"{differs}, without an interval: the units do not vary"
    interval = f"{100 * confidence:.3g} % interval {change.interval}"
    if said.p_value > 1.0 - confidence:
        return f"{differs} ({interval}): no sign of an interaction"
    return f"{differs} ({interval}): it depends on what they got"


def _sentence(
    experiments: tuple[PromptExperiment, PromptExperiment],
    metric: str,
    units: int,
    together: Additivity | None,
    independence: Independence | None,
    confidence: float,
) -> str:
    first, second = experiments
    names = f"{first.name} and {second.name}"
    if not units:
        layer = ", as they are in one layer" if first.layer == second.layer else ""
        return f"{names} share no unit{layer}: nothing of the one can depend on the other."
    over = f"over the {units:,} units that are in both"
    if together is None:
        told = f"Whether {names} interact on {metric} cannot be known yet {over}."
    elif together.p_value > 1.0 - confidence:
        told = f"No sign that {names} interact on {metric} {over} ({wording.p_told(together.p_value)})."
    else:
        told = (
            f"{names} interact on {metric} {over} ({wording.p_told(together.p_value)}): neither effect "
            "can be read alone."
        )
    if independence is not None and independence.p_value < ALARM_LEVEL:
        told += (
            f" They were not dealt independently ({wording.p_told(independence.p_value)}): each carries "
            "some of the other's effect."
        )
    return told
