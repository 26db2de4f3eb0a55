"""Verdicts of the analysis as a whole: guardrails at their margin, history taken out, and beliefs looked at daily."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import numpy as np

from promptab.analysis.difference import compared_metric
from promptab.analysis.evidence import MetricEvidence
from promptab.analysis.result import Method, Role, VariantDifference
from promptab.models import ExperimentStatus, PromptExperiment, PromptType, PromptVariant
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import BUILT_IN_METRICS
from tests.calibration.experiments import CONFIDENCE, Setting, drawn
from tests.calibration.outcomes import BASE, Bools, Floats, Population
from tests.calibration.schedule import DAYS, Schedule, steady
from tests.calibration.sums import ARMS, CONTROL, TREATMENT, SumsByEpoch, UnitTotals, looks_of
from tests.calibration.tally import ALPHA, Tally

MARGIN = 0.1
"""The largest regression of the guardrails, as a share of the control's value."""

METHODS: tuple[Method, ...] = ("fixed", "sequential")

_EXPERIMENT = PromptExperiment(
    experiment_id="calibration",
    name="calibration",
    prompt_type=PromptType.SYSTEM,
    prompt_name=None,
    variants=tuple(PromptVariant(weight=0.5, key=arm, config={"arm": arm}) for arm in ARMS),
    control=CONTROL,
    traffic_split=dict.fromkeys(ARMS, 0.5),
    status=ExperimentStatus.RUNNING,
    layer="calibration",
    salt="calibration",
    enrolment_salt="enrolment",
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
)


def guardrails(population: Population, *, worse: float, runs: int, seed: int) -> Tally:
    """Count what a guardrail says of a treatment that is worse by this share of the margin.

    "fixed pass" and "fixed fail" at the end, "sequential pass" and "sequential fail" at any look. "careless" are
    those in which no significant difference is taken for safety at the end.
    """
    definition = BUILT_IN_METRICS[population.metric].model_copy(
        update={"role": "guardrail", "largest_regression": MARGIN}
    )
    effect = -definition.sign * worse * MARGIN * BASE[population.metric]
    tally = Tally()
    for looks in _looks(Setting(population, steady(1_000), effect), runs, seed):
        found = {
            f"sequential {_difference(MetricEvidence(definition, look), 'sequential', guardrail=True).safety}"
            for look in looks
        }
        at_end = _difference(MetricEvidence(definition, looks[-1]), "fixed", guardrail=True)
        found.add(f"fixed {at_end.safety}")
        if at_end.p_value is not None and at_end.p_value > ALPHA:
            found.add("careless")
        tally.add(found, at_end.se or 0.0)
    return tally


def beliefs(population: Population, runs: int, seed: int) -> Tally:
    """Count the winners, or losers, that a Bayesian reading names where there is no difference.

    "probability": better or worse with 95 %; "loss": the plan's rule on the expected loss. With " at the end" at
    the last look alone, else at any.
    """
    definition = BUILT_IN_METRICS[population.metric]
    tally = Tally()
    for looks in _looks(Setting(population, steady(1_000)), runs, seed):
        found: set[str] = set()
        for day, look in enumerate(looks):
            difference = _difference(MetricEvidence(definition, look), "bayesian")
            named = set()
            better = difference.probability_better
            if better is not None and not ALPHA <= better <= CONFIDENCE:
                named.add("probability")
            if difference.verdict != "undecided":
                named.add("loss")
            found |= named
            if day == DAYS - 1:
                found |= {f"{name} at the end" for name in named}
        tally.add(found)
    return tally


def histories(population: Population, effect: float, *, before: int, runs: int, seed: int) -> Tally:
    """Count the findings of an analysis that takes out the units' history, of `before` events on average.

    As in `experiments.simulate`: "fixed" and "sequential", each with " missed", of the adjusted difference. "raw"
    is the fixed horizon without the history. The standard error is the adjusted one; "variance saved" in tenths
    of a percent is added up in the counts.
    """
    definition = BUILT_IN_METRICS[population.metric]
    schedule = steady(1_000)
    tally = Tally()
    for rows, treated in _with_history(population, schedule, effect, before, runs, seed):
        looks = _running_sums(rows, treated, schedule, BASE[population.metric])
        found: set[str] = set()
        for day, history in enumerate(looks):
            outcomes = {arm: {0: sums[0].outcomes} for arm, sums in history.items()}
            evidence = MetricEvidence(definition, outcomes, history=history)
            for method in METHODS if day == DAYS - 1 else METHODS[1:]:
                difference = _difference(evidence, method)
                adjusted = difference.adjusted
                if difference.verdict != "undecided":
                    found.add(method)
                if adjusted is not None and not adjusted.low <= effect <= adjusted.high:
                    found.add(f"{method} missed")
        at_end = _difference(evidence, "fixed")
        if at_end.p_value is not None and at_end.p_value <= ALPHA:
            found.add("raw")
        assert at_end.adjusted is not None
        tally.counts["variance saved"] += round(1_000 * at_end.adjusted.variance_reduction)
        tally.add(found, at_end.adjusted.se)
    return tally


def _difference(evidence: MetricEvidence, method: Method, *, guardrail: bool = False) -> VariantDifference:
    role: Role = "guardrail" if guardrail else "primary"
    compared = compared_metric(evidence, _EXPERIMENT, method, CONFIDENCE, role=role)
    return compared.differences[TREATMENT]


def _looks(setting: Setting, runs: int, seed: int) -> Iterator[list[Mapping[str, SumsByEpoch]]]:
    for events, treated, _ in drawn(setting, runs, seed):
        totals = UnitTotals.on_arrival(events, treated)
        yield from looks_of(totals.sums(setting.schedule, BASE[setting.population.metric]))


def _with_history(
    population: Population, schedule: Schedule, effect: float, before: int, runs: int, seed: int
) -> Iterator[tuple[Floats, Bools]]:
    """Yield single experiments: (n_u, s_u, m_u, x_u) of each unit in order of arrival, and who is treated.

    A unit's lognormal factor is the same before and after, and a third of the units are new.
    """
    generator = np.random.default_rng(seed)
    base, log_sd = BASE[population.metric], 0.6
    of_unit = np.sqrt(np.log1p(population.correlation * np.expm1(log_sd**2)))
    within = np.sqrt(log_sd**2 - of_unit**2)
    for _ in range(runs):
        treated = schedule.deal(generator, 1)[0]
        factors = np.exp(of_unit * generator.standard_normal(schedule.units) - log_sd**2 / 2.0)
        rows = np.zeros((schedule.units, 4))
        for place, mean, levels in ((0, population.events, base + effect * treated), (2, before, base)):
            counts = generator.geometric(1.0 / mean, schedule.units)
            amounts = np.exp(within * generator.standard_normal(counts.sum()))
            sums = np.add.reduceat(amounts, counts.cumsum() - counts) * factors * levels
            rows[:, place], rows[:, place + 1] = counts, sums
        rows[generator.random(schedule.units) < 1.0 / 3.0, 2:] = 0.0
        yield rows, treated


def _running_sums(
    rows: Floats, treated: Bools, schedule: Schedule, center: float
) -> list[dict[str, dict[int, CovariateSums]]]:
    """Add up the units of each day, and merge the days."""
    running = dict.fromkeys(ARMS, CovariateSums())
    looks = []
    for start, end in itertools.pairwise(np.append(schedule.first_units, schedule.units)):
        for arm, dealt in ((CONTROL, ~treated), (TREATMENT, treated)):
            of_day = rows[start:end][dealt[start:end]].tolist()
            arrived = CovariateSums.of(
                [(n, s, m, x) for n, s, m, x in of_day], center=center, pre_center=center
            )
            running[arm] += arrived
        looks.append({arm: {0: sums} for arm, sums in running.items()})
    return looks
