"""The A/A replay with the analysis that the experiment itself has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptab.analysis.difference import compared_metric
from promptab.analysis.evidence import MetricEvidence, UnitTotal
from promptab.analysis.inference import FEW_UNITS
from promptab.analysis.planned import ReplayResult
from promptab.analysis.result import Method
from promptab.errors import StateError
from promptab.models import PromptExperiment, PromptVariant
from promptab.stats.metric import MetricDefinition
from promptab.stats.replay import Replay, replay_false_positives
from promptab.stats.summary import UnitSums

_ARMS = ("control", "treatment")


def replay_analysis(
    experiment: PromptExperiment,
    definition: MetricDefinition,
    units: Sequence[UnitTotal],
    *,
    method: Method,
    confidence: float,
    runs: int,
    seed: int,
) -> ReplayResult:
    """Deal the control's units half and half, `runs` times, and count how often the analysis finds a difference.

    One look at all units, as a primary metric is judged, and without the adjustment for history. Epochs are taken
    together: dealt anew, both halves have the same of each. Raises `StateError` with fewer than 60 units: below 30 in
    an arm the analysis permutes them, and has no need of a replay.
    """
    if len(units) < 2 * FEW_UNITS:
        raise StateError(
            f"{experiment.control} of experiment {experiment.name!r} has {len(units)} units with "
            f"{definition.name}; a replay takes at least {2 * FEW_UNITS}"
        )
    pair = experiment.model_copy(
        update={
            "variants": tuple(PromptVariant(key=key, config={}) for key in _ARMS),
            "control": _ARMS[0],
        }
    )

    def finds(treatment: UnitSums, control: UnitSums) -> bool:
        evidence = MetricEvidence(definition, sums={_ARMS[0]: {1: control}, _ARMS[1]: {1: treatment}})
        compared = compared_metric(evidence, pair, method, confidence, role="primary")
        return compared.differences[_ARMS[1]].verdict != "undecided"

    totals = np.array(units, dtype=np.float64)
    found = replay_false_positives(totals[:, 0], totals[:, 1], test=finds, runs=runs, seed=seed)
    return ReplayResult(
        experiment_id=experiment.experiment_id,
        experiment=experiment.name,
        variant=experiment.control,
        metric=definition.name,
        method=method,
        confidence=confidence,
        units=len(units),
        runs=found.runs,
        false_positives=found.false_positives,
        share=found.share,
        low=found.low,
        high=found.high,
        sentence=_sentence(experiment.control, definition.name, method, confidence, found, len(units)),
    )


def _sentence(variant: str, metric: str, method: Method, confidence: float, found: Replay, units: int) -> str:
    return (
        f"The {units:,} units of {variant} were dealt anew {found.runs:,} times to two halves that differ in "
        f"nothing; the {method} analysis of {metric} called {found.false_positives:,} of them different: "
        f"{100 * found.share:.2g} % (95 % interval {100 * found.low:.2g} to {100 * found.high:.2g}), "
        + _against(method, 1.0 - confidence, found)
    )


def _against(method: Method, alpha: float, found: Replay) -> str:
    """Return what the share says beside the one that was promised."""
    promised = f"the {100 * alpha:.3g} % that it allows"
    if method == "bayesian":
        return "for which a Bayesian analysis promises nothing."
    if found.low > alpha:
        return f"more than {promised}: its p-values are too small on these units."
    if method == "sequential":
        return f"at one look, of {promised} over all looks together."
    if found.high < alpha:
        return f"fewer than {promised}: it is cautious on these units."
    return f"in keeping with {promised}."
