"""What ran in the shadow, beside what the same units were served."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from promptab.allocation import enrolled, point_of, seed
from promptab.analysis.shadow_totals import MEASURED, ShadowTotals, UnitUse, Use
from promptab.live_experiment import overridden, shadow_salt
from promptab.models import PromptExperiment, PromptVariant
from promptab.plan import AnalysisPlan
from promptab.records import Record, Utc
from promptab.stats.paired import PairedDifference, UnitPair, paired_difference
from promptab.stats.sequential import half_width

COMPARED = ("success_rate", "response_time", "tokens", "cost")
"""What a call tells by itself. A rating is of what a user was shown, and so of the served answer alone."""

FEWEST_UNITS = 100
"""Below this a confidence sequence is not read; see `promptab.stats.sequential`."""

CAUTION = (
    "Nobody was shown a shadow's answers: what people do after one is in no number here. Each interval holds at every "
    "look, by itself; where a unit goes on calling, approximately."
)


class ShadowDifference(Record):
    """A measure on the units that have events of both: means over events, and how they differ within units."""

    metric: str
    units: int
    shadow: float
    served: float
    difference: float
    """What the shadow has more."""
    low: float | None = None
    """Ends of the confidence sequence; None where there are too few units, or none of them varies."""
    high: float | None = None


class ShadowComparison(Record):
    """A shadow beside one variant that was served, on that variant's units."""

    served: str
    """Key of the variant."""
    units: int
    calls: int
    """Served to these units while they were in the shadow."""
    runs: int
    """In the shadow of these: fewer than the calls where runs were left out, or are still under way."""
    differences: tuple[ShadowDifference, ...]
    """In the order of `COMPARED`, each that both recorded for two units at least."""


class ShadowOutcome(Record):
    """What came of the runs of one shadow."""

    variant: str
    version: str | None
    share: float
    """Of the units, by now."""
    units: int
    runs: int
    success_rate: float | None
    """Over the runs that ended, one way or the other; each mean here is over the runs that carried it."""
    failures: Mapping[str, int]
    """Kind of failure -> runs; "" for those of which nobody said how they failed."""
    response_time: float | None
    """Mean, in seconds."""
    tokens: float | None
    """Mean."""
    cost: float
    """US dollars in all, as far as they are known."""
    rating: float | None
    """Mean of what was said of them by `Lab.feedback`."""
    comparisons: tuple[ShadowComparison, ...]


class ShadowReport(Record):
    """What `Lab.shadow_report` returns."""

    experiment_id: str
    experiment: str
    at: Utc
    confidence: float
    fewest_units: int = FEWEST_UNITS
    """Below this many units there is no interval."""
    shadows: tuple[ShadowOutcome, ...]
    caution: str = CAUTION


def share_changes(experiment: PromptExperiment) -> list[datetime]:
    """Return the moments at which units went into a shadow, or out of one, after the start."""
    histories = experiment.shadow_history.values()
    return sorted({at for history in histories for at, _ in history[1:]})


def shadow_report(experiment: PromptExperiment, totals: ShadowTotals, *, at: datetime) -> ShadowReport:
    """Put every shadow beside what was served; `totals` are apart at `share_changes`."""
    return ShadowReport(
        experiment_id=experiment.experiment_id,
        experiment=experiment.name,
        at=at,
        confidence=experiment.plan.confidence,
        shadows=tuple(_outcome(experiment, shadow, totals) for shadow in experiment.shadows),
    )


def _outcome(experiment: PromptExperiment, shadow: PromptVariant, totals: ShadowTotals) -> ShadowOutcome:
    runs = [row for row in totals.runs if row.variant == shadow.key]
    whole = _added(row.use for row in runs)
    return ShadowOutcome(
        variant=shadow.key,
        version=shadow.version,
        share=experiment.shadow_share(shadow.key),
        units=len({row.unit for row in runs}),
        runs=whole.calls,
        success_rate=_mean(whole, "success_rate"),
        failures=totals.failures.get(shadow.key, {}),
        response_time=_mean(whole, "response_time"),
        tokens=_mean(whole, "tokens"),
        cost=whole.totals["cost"][1],
        rating=_mean(whole, "rating"),
        comparisons=tuple(_comparisons(experiment, shadow, runs, totals.served.get(shadow.key, ()))),
    )


def _comparisons(
    experiment: PromptExperiment, shadow: PromptVariant, runs: Sequence[UnitUse], served: Iterable[UnitUse]
) -> Iterable[ShadowComparison]:
    in_shadow = _InShadow(experiment, shadow.key)
    of_unit = _by_unit(row for row in runs if overridden(experiment, row.recorded) is None)
    rows = [row for row in served if in_shadow.was(row.recorded, row.stretch)]
    for variant in experiment.variants:
        of_variant = _by_unit(row for row in rows if row.variant == variant.key)
        common = sorted(of_unit.keys() & of_variant.keys())
        if common:
            pairs = [(of_unit[unit], of_variant[unit]) for unit in common]
            yield ShadowComparison(
                served=variant.key,
                units=len(common),
                calls=sum(other.calls for _, other in pairs),
                runs=sum(use.calls for use, _ in pairs),
                differences=tuple(_differences(pairs, experiment.plan)),
            )


def _differences(pairs: Sequence[tuple[Use, Use]], plan: AnalysisPlan) -> Iterable[ShadowDifference]:
    for metric in COMPARED:
        found = paired_difference(
            UnitPair(*use.totals[metric], *other.totals[metric]) for use, other in pairs
        )
        if found is None:
            continue
        half = _half_width(found, plan)
        yield ShadowDifference(
            metric=metric,
            units=found.units,
            shadow=found.mean,
            served=found.other,
            difference=found.value,
            low=None if half is None else found.value - half,
            high=None if half is None else found.value + half,
        )


def _half_width(found: PairedDifference, plan: AnalysisPlan) -> float | None:
    if found.units < FEWEST_UNITS or found.se == 0.0:
        return None
    return half_width(found.se, found.units, tuning_units=plan.tuning_units, alpha=1.0 - plan.confidence)


class _InShadow:
    """When a shadow was run for which units."""

    def __init__(self, experiment: PromptExperiment, key: str) -> None:
        self._seed = seed(shadow_salt(experiment, key))
        history = experiment.shadow_history.get(key, ())
        ends = share_changes(experiment)
        first = history[:1]
        # the moment of the start is none that divides: whoever's clock is behind was served after it all the same
        self._shares = [
            ([share for at, share in history[1:] if at <= end] or [share for _, share in first])[-1]
            for end in ends
        ]
        self._first = first[0][1] if first else 0.0

    def was(self, unit: str, stretch: int) -> bool:
        share = self._shares[stretch - 1] if stretch else self._first
        return enrolled(point_of(self._seed, unit), share)


def _by_unit(rows: Iterable[UnitUse]) -> dict[str, Use]:
    found: defaultdict[str, list[Use]] = defaultdict(list)
    for row in rows:
        found[row.unit].append(row.use)
    return {unit: uses[0] if len(uses) == 1 else _added(uses) for unit, uses in found.items()}


def _added(uses: Iterable[Use]) -> Use:
    some = list(uses)
    totals = {
        name: (sum(use.totals[name][0] for use in some), sum(use.totals[name][1] for use in some))
        for name in MEASURED
    }
    return Use(sum(use.calls for use in some), totals)


def _mean(use: Use, metric: str) -> float | None:
    n, s = use.totals[metric]
    return s / n if n else None
