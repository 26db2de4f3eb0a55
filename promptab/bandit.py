"""A bandit: weights that follow the outcomes, in batches, while the experiment runs; and what a look at it came to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from promptab.checks import check_count, check_number
from promptab.errors import InvalidInputError
from promptab.plan import AnalysisPlan
from promptab.records import Declared, Number, Record, Utc
from promptab.stats.metric import MetricDefinition

Algorithm = Literal["thompson", "epsilon_greedy", "ucb"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

Count = Annotated[int, Field(strict=True)]

MOST_HOURS = 24.0 * 366

LATE_MEASURES = frozenset({"rating"})
"""What people say of an answer long after it was served, if they say anything."""


class Bandit(Declared):
    """How the weights of an experiment follow its primary metric. Settled when the experiment is created.

    Weights move in batches: once enough units of the present weights have been counted, and enough time has passed,
    `rebalance` deals new units by new weights; every unit keeps the variant it has. A unit counts once the plan's
    measurement window has closed on it; without a window it counts at once, with what was recorded so far, so that
    variants whose outcomes come early look better for a while.

    Raises `InvalidInputError` for what does not fit together.
    """

    algorithm: Algorithm = "thompson"
    """`thompson`: by the probability of being the best; `epsilon_greedy`: all that the floors leave to the best
    estimate; `ucb`: the same to the best upper bound. The last two are there to compare with."""
    floor: Number = 0.05
    """The least share of each variant, above 0: what no unit is dealt nothing is learned of. So of K variants the best
    gets at most 1 - (K - 1) floor; of `epsilon_greedy` epsilon is K floor."""
    challenger: Number = 0.0
    """Thompson, top-two: the share of draws that goes to the best of the others instead of the best, 0 to 0.5. At 0
    the most is earned; at 0.5 the best of three or more is known soonest, and two variants stay at halves."""
    minimum_units: Count = 100
    """Units of each variant that are counted before the weights change for the first time."""
    batch_units: Count = 100
    """Units of all variants together, dealt by the present weights, that are counted before these change again."""
    batch_hours: Number = 1.0
    """Hours that weights are in force before they change again; 0: no time at all."""
    uniform: Number = 0.0
    """The share of the units, by a salt of its own, that is dealt alike for the whole run, among the variants that take
    new units: they can be analysed alone like any experiment (`analyze(..., uniform=True)`). 0: no such slice."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_number("bandit.floor", self.floor, low=0.001, below=0.5)
        check_number("bandit.challenger", self.challenger, low=0.0, high=0.5)
        if self.challenger and self.algorithm != "thompson":
            raise InvalidInputError(
                "bandit.challenger", self.challenger, f"0 for {self.algorithm}", "it is a part of thompson"
            )
        check_count("bandit.minimum_units", self.minimum_units, low=2, high=10**12)
        check_count("bandit.batch_units", self.batch_units, low=1, high=10**12)
        check_number("bandit.batch_hours", self.batch_hours, low=0.0, high=MOST_HOURS)
        check_number("bandit.uniform", self.uniform, low=0.0, high=0.9)
        return self


class Rebalancing(Record):
    """What one look at a bandit came to."""

    experiment_id: str
    experiment: str
    """The experiment's name."""
    at: Utc
    changed: bool
    """Whether this look changed the weights."""
    epoch: int
    """The epoch of `weights`."""
    weights: Mapping[str, float]
    """The present share of each variant; of a change, the new one."""
    best: Mapping[str, float]
    """The probability of each variant that takes new units that it is the best; empty where that was not asked, as by
    algorithms that do not go by it."""
    units: Mapping[str, int]
    """Units of each variant that are counted."""
    reason: str
    """What was changed, or why nothing was."""


def check_bandit(
    given: Bandit | Mapping[str, Any] | str | None,
    *,
    keys: Collection[str],
    primary: MetricDefinition,
    plan: AnalysisPlan,
    sticky: bool,
) -> Bandit | None:
    """Return the bandit of an experiment over these variants; a mapping of its fields, or an algorithm's name, is one
    too.

    Raises `InvalidInputError` where it could not learn of the primary metric, or be analysed afterwards.
    """
    if given is None:
        return None
    bandit = _bandit_of(given)
    if bandit.floor * len(keys) >= 1.0:
        bound = f"below {1.0 / len(keys):g}, one share of {len(keys)}"
        raise InvalidInputError("bandit.floor", bandit.floor, bound)
    if primary.kind == "quantile":
        raise InvalidInputError(
            "primary_metric", primary.name, "a sum or a mean, for a bandit", "quantiles can be guardrails"
        )
    if not sticky:
        raise InvalidInputError(
            "sticky", sticky, "True with a bandit", "a unit that changes variants belongs to no batch"
        )
    if primary.source in LATE_MEASURES and plan.window_hours is None:
        raise InvalidInputError(
            "plan.window_hours",
            None,
            f"given, for a bandit on {primary.name}",
            "it comes late or never: weights would follow those who answer first",
        )
    return bandit


def _bandit_of(given: object) -> Bandit:
    if isinstance(given, Bandit):
        return given
    if isinstance(given, Mapping):
        return Bandit(**given)
    if isinstance(given, str) and given in ALGORITHMS:
        return Bandit(algorithm=given)
    raise InvalidInputError("bandit", given, f"one of {', '.join(ALGORITHMS)}, or a Bandit")
