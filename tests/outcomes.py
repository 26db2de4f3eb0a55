"""Evidence of experiments in which every unit had its outcomes, put together by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from promptab.analysis.evidence import ArmCounts, Evidence, MetricEvidence
from promptab.models import ExperimentStatus, PromptExperiment, PromptType, PromptVariant
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.stats.metric import MetricDefinition
from promptab.stats.quantile import QuantileArm
from promptab.stats.summary import UnitSums

START = datetime(2026, 3, 1, tzinfo=UTC)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

Epochs = Mapping[int, UnitSums]
Arms = Mapping[str, Epochs]


def rate(successes: int, units: int) -> UnitSums:
    """One outcome of 0 or 1 per unit."""
    return UnitSums.of([(1.0, 1.0)] * successes + [(1.0, 0.0)] * (units - successes), center=0.5)


def values(mean: float, units: int, *, spread: float = 0.1) -> UnitSums:
    """One value per unit, half of them `spread` above the mean and half below."""
    return UnitSums.of([(1.0, mean + spread), (1.0, mean - spread)] * (units // 2))


def experiment(
    keys: Sequence[str], *, primary_metric: str, plan: AnalysisPlan, unit: Any = "request"
) -> PromptExperiment:
    """Return one whose first variant is the control; its unit is the request, so that nothing is approximate."""
    return PromptExperiment(
        experiment_id="0192f0c1-7b1e-7cc3-98c4-dc0c0c07398f",
        name="tone",
        prompt_type=PromptType.SYSTEM,
        prompt_name="support_reply",
        variants=tuple(PromptVariant(key) for key in keys),
        control=keys[0],
        traffic_split={key: 1 / len(keys) for key in keys},
        status=ExperimentStatus.RUNNING,
        unit=unit,
        layer="support_reply",
        primary_metric=primary_metric,
        plan=plan,
        salt="s",
        enrolment_salt="e",
        created_at=START,
    )


def evidence_of(
    metrics: Mapping[str, Arms],
    policy: Policy,
    *,
    primary_metric: str = "success_rate",
    plan: AnalysisPlan | None = None,
    weights: Mapping[int, Mapping[str, float]] | None = None,
    exposed: Mapping[str, int] | None = None,
    missing: Mapping[str, int] | None = None,
    units: Mapping[str, Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]] | None = None,
    quantiles: Mapping[str, Mapping[str, Mapping[int, QuantileArm]]] | None = None,
    unit: str = "request",
) -> Evidence:
    """Put the sums of metrics together, on a plan that the policy has settled. Dealt alike unless `weights` says so."""
    settled = policy.planned(plan or AnalysisPlan(minimum_units=2), primary_metric=primary_metric)
    keys = list(metrics[primary_metric])
    made = experiment(keys, primary_metric=primary_metric, plan=settled, unit=unit)
    epochs = weights or {0: dict.fromkeys(keys, 1.0 / len(keys))}

    def metric(name: str) -> MetricEvidence:
        return MetricEvidence(
            settled.definition(name),
            sums=metrics.get(name, {}),
            units=(units or {}).get(name),
            quantiles=(quantiles or {}).get(name, {}),
        )

    primary = metric(primary_metric)

    def counts(key: str, epoch: int) -> ArmCounts:
        reporting = primary.arm(key).get(epoch, UnitSums()).units
        lost = (missing or {}).get(key, 0)
        return ArmCounts((exposed or {}).get(key, reporting + lost), reporting)

    names = dict.fromkeys([*(m.name for m in settled.metrics), *metrics, *(quantiles or {})])
    return Evidence(
        experiment=made,
        at=NOON,
        primary=primary,
        others=[metric(name) for name in names if name != primary_metric],
        arms={key: {epoch: counts(key, epoch) for epoch in epochs} for key in keys},
        weights=epochs,
    )


def mirrored(metrics: Mapping[str, Arms]) -> dict[str, Arms]:
    """Return the same outcomes with every sign turned round."""
    return {
        name: {
            key: {
                epoch: sums._replace(s=-sums.s, center=-sums.center, rn=-sums.rn)
                for epoch, sums in epochs.items()
            }
            for key, epochs in arms.items()
        }
        for name, arms in metrics.items()
    }


def declared(name: str, direction: Any) -> MetricDefinition:
    return MetricDefinition(name=name, direction=direction)
