"""Refusing names of metrics that are slips, before anything waits for outcomes that never come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from promptab.errors import InvalidInputError
from promptab.models import PromptExperiment
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.stats.misspelling import remedy_for
from promptab.stores.base import Transaction


async def check_metric_names(tx: Transaction, experiment: PromptExperiment) -> None:
    """Refuse a metric of the experiment, its plan or its policy that is nearly a built-in one, unless the plan declares
    it or recorded events carry it: then it is a metric of one's own. Raises `InvalidInputError` with what was meant.
    """
    plan = _declared_plan(experiment)
    await _check(tx, _names_of_experiment(experiment, plan), {metric.name for metric in plan.metrics})


async def check_policy_names(tx: Transaction, experiment: PromptExperiment) -> None:
    """Refuse as much in the guardrails of its policy alone: what else it measures is settled, and another policy, or
    none, is no occasion to refuse what was taken before.
    """
    if experiment.policy is not None:
        declared = {metric.name for metric in _declared_plan(experiment).metrics}
        await _check(tx, _names_of_guardrails(experiment.policy, "policy"), declared)


async def check_guard_names(tx: Transaction, policy: Policy) -> None:
    """Refuse as much in the guardrails of a policy that needs no experiment."""
    await _check(tx, _names_of_guardrails(policy, "guard"), set(), has_plan=False)


def _declared_plan(experiment: PromptExperiment) -> AnalysisPlan:
    return experiment.declared_plan or experiment.plan


def _names_of_experiment(experiment: PromptExperiment, plan: AnalysisPlan) -> Iterator[tuple[str, str]]:
    """Return (field, name) of the metrics that it is to measure."""
    yield "primary_metric", experiment.primary_metric
    if experiment.policy is not None:
        yield from _names_of_guardrails(experiment.policy, "policy")
    for metric in plan.metrics:
        # the name of a metric that is declared is its owner's; what it is computed from has to be there
        for part in ("measure", "denominator"):
            if (named := getattr(metric, part)) and named != metric.name:
                yield f"metrics[{metric.name}].{part}", named


def _names_of_guardrails(policy: Policy, holder: str) -> Iterator[tuple[str, str]]:
    for guardrail in policy.guardrails:
        yield f"{holder}.guardrails", guardrail.metric


async def _check(
    tx: Transaction, named: Iterable[tuple[str, str]], declared: set[str], *, has_plan: bool = True
) -> None:
    for field, name in named:
        remedy = None if name in declared else remedy_for(name, has_plan=has_plan)
        if remedy is not None and not await tx.events.is_carried(name):
            raise InvalidInputError(field, name, "a metric that is built in, declared or recorded", remedy)
