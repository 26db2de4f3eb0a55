"""Whole bandit runs: units are dealt by batches, the weights move by the production rule, and the analysis looks on."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from promptab.allocation import allocate
from promptab.analysis.adapting import proposed
from promptab.analysis.evidence import ArmCounts, Evidence, MetricEvidence
from promptab.analysis.inference import Arms, Finding, arms_of, find
from promptab.bandit import Bandit
from promptab.experiment_rules import next_uniform_epoch
from promptab.models import (
    UNIFORM_EPOCH,
    Epoch,
    ExperimentStatus,
    PromptExperiment,
    PromptType,
    PromptVariant,
)
from promptab.plan import AnalysisPlan
from promptab.stats.metric import BUILT_IN_METRICS
from promptab.stats.multiplicity import simultaneous_confidence
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums
from tests.calibration.experiments import CONFIDENCE, named
from tests.calibration.outcomes import Population, draw
from tests.calibration.streams import CORRELATION
from tests.calibration.tally import Tally

BATCHES, BATCH_UNITS = 10, 400
LOOKS_PER_BATCH = 2
SLICE = 0.2
"""A tenth of 4,000 units dealt to five arms would be too few to look at."""
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MILLIONTH = 1e-6
"""What regrets, shares and biases are counted in."""

_SPREAD = 0.6
"""Standard deviation of the logarithm of a response time."""

# tuned to the size of these experiments, so that the sequences have the least to spare
PLAN = AnalysisPlan(tuning_units=1_000)

Sums = dict[str, dict[int, UnitSums]]


class Rule(NamedTuple):
    """How units are dealt."""

    label: str
    bandit: Bandit | None
    """None: alike for ever."""
    withdraws: bool = False
    """Whether the arm that looks worst, the control apart, is taken out after half of the units."""


def _rule(label: str, **fields: object) -> Rule:
    return Rule(label, Bandit(batch_hours=0.0, batch_units=1, uniform=SLICE, **fields))  # type: ignore[arg-type] # as declared


RULES = (
    _rule("Thompson"),
    _rule("Thompson, top-two", challenger=0.2),
    _rule("epsilon-greedy", algorithm="epsilon_greedy"),
    _rule("UCB", algorithm="ucb"),
    Rule("uniform", None),
)
WITHDRAWING = _rule("Thompson, worst withdrawn")._replace(withdraws=True)


class BanditSetting(NamedTuple):
    """One kind of bandit experiment; the first arm is the control."""

    arms: tuple[float, ...]
    """The expected outcome of each."""
    rule: str = "Thompson"
    metric: str = "success_rate"
    drift: float = 0.0
    """What all arms gain, evenly, from the first unit to the last."""
    events: int = 1
    """Of a unit: exactly 1, or the mean of a geometric count."""

    @property
    def keys(self) -> list[str]:
        return [chr(ord("a") + arm) for arm in range(len(self.arms))]

    @property
    def gains(self) -> NDArray[np.float64]:
        """What the metric's direction makes of the arms: more is better."""
        return BUILT_IN_METRICS[self.metric].sign * np.array(self.arms)


def simulate_bandit(setting: BanditSetting, runs: int, seed: int) -> Tally:
    """Run experiments, and count in how many of them a difference to the control was found where there is none.

    "weighted" is the analysis of a bandit at the end, "weighted, looks" the same at any of the looks from 100 units in
    each arm on; "slice, looks" is of the uniform slice alone, and "naive" a t test of all units at the end, as they
    are. A name with " missed" counts experiments in which an interval was beside a difference; the names of `amounts`
    are sums of millionths.
    """
    generator = np.random.default_rng(seed)
    tally = Tally()
    for _ in range(runs):
        run = _Run(setting, generator)
        found: set[str] = set()
        for _ in range(BATCHES * LOOKS_PER_BATCH):
            run.deal(BATCH_UNITS // LOOKS_PER_BATCH)
            found |= run.looked_at("sequential", ", looks")
            run.maybe_rebalance()
        found |= run.looked_at("fixed", "") | run.naive()
        tally.add(found)
        for name, amount in run.amounts().items():
            tally.counts[name] += round(amount / MILLIONTH)
    return tally


class _Run:
    """One experiment while it runs."""

    def __init__(self, setting: BanditSetting, generator: np.random.Generator) -> None:
        self.setting = setting
        self.definition = BUILT_IN_METRICS[setting.metric]
        self.rule = next(rule for rule in (*RULES, WITHDRAWING) if rule.label == setting.rule)
        self.experiment = _experiment(setting, self.rule)
        self.generator = generator
        alike = dict.fromkeys(setting.keys, 1.0 / len(setting.arms))
        self.epochs = [_epoch(UNIFORM_EPOCH, alike), _epoch(1, alike)]
        self.sums: Sums = {key: {} for key in setting.keys}
        self.dealt = 0
        self.regret = 0.0

    @property
    def weights(self) -> dict[int, Mapping[str, float]]:
        return {epoch.number: epoch.weights for epoch in self.epochs}

    def deal(self, units: int) -> None:
        """Deal so many units by the weights in force, part of them in the slice."""
        setting, last = self.setting, self.epochs[-1]
        sliced = int(self.generator.binomial(units, SLICE))
        gone = self.dealt / (BATCHES * BATCH_UNITS)
        for count, epoch in ((sliced, self.epochs[0]), (units - sliced, last)):
            number = epoch.number
            shares = np.array([epoch.weights.get(key, 0.0) for key in setting.keys])
            got = self.generator.multinomial(count, shares / shares.sum())
            self.regret += count * float(setting.gains.max() - shares @ setting.gains)
            for key, mean, among in zip(setting.keys, setting.arms, got, strict=True):
                added = self._outcomes(mean + setting.drift * gone, int(among))
                by_epoch = self.sums[key]
                by_epoch[number] = by_epoch.get(number, UnitSums(center=mean)) + added.recentered(mean)
        self.dealt += units

    def _outcomes(self, mean: float, units: int) -> UnitSums:
        if self.setting.events > 1:
            return self._several(mean, units)
        if self.setting.metric == "success_rate":
            won = float(self.generator.binomial(units, mean))
            return UnitSums(units, float(units), won, 0.0, won, float(units), won)
        times = mean * np.exp(self.generator.normal(-_SPREAD * _SPREAD / 2.0, _SPREAD, units))
        total = float(times.sum())
        return UnitSums(units, float(units), total, 0.0, float(times @ times), float(units), total)

    def _several(self, mean: float, units: int) -> UnitSums:
        """Bring several events of each unit, which resemble each other."""
        if not units:
            return UnitSums()
        population = Population(self.setting.metric, self.setting.events, CORRELATION)
        drawn = draw(self.generator, population, np.full((1, units), mean))
        n, s = drawn.per_unit(drawn.weights)[0], drawn.per_unit(drawn.values)[0]
        return UnitSums(units, float(n.sum()), float(s.sum()), 0.0, float(s @ s), float(n @ n), float(s @ n))

    @property
    def left(self) -> list[str]:
        """The arms that are dealt."""
        return [key for key, share in self.epochs[-1].weights.items() if share > 0.0]

    def maybe_rebalance(self) -> None:
        if self.rule.bandit is None or self.dealt % BATCH_UNITS:
            return
        if self.rule.withdraws and self.dealt == BATCHES * BATCH_UNITS // 2:
            self._withdraw()
            return
        found = proposed(self.evidence(), self.rule.bandit, self.epochs)
        if found.changed:
            self.epochs.append(_epoch(found.epoch, found.weights))

    def _withdraw(self) -> None:
        """Take out the arm that looks worst, as a person would: the others keep their proportions."""
        seen = {key: self.pooled(key) for key in self.left[1:]}
        worst = min(seen, key=lambda key: self.definition.sign * seen[key].s / seen[key].n)
        last = self.epochs[-1]
        kept = 1.0 - last.weights[worst]
        shares = {key: 0.0 if key == worst else share / kept for key, share in last.weights.items()}
        alike = next_uniform_epoch(self.epochs, shares, starts_at=NOON)
        assert alike is not None
        self.epochs = [alike, *self.epochs, _epoch(last.number + 1, shares)]

    def evidence(self) -> Evidence:
        arms = {
            key: {epoch: ArmCounts(sums.units, sums.units) for epoch, sums in by_epoch.items()}
            for key, by_epoch in self.sums.items()
        }
        primary = MetricEvidence(self.definition, self.sums, weights=self.weights)
        return Evidence(self.experiment, NOON, primary, (), arms, self.weights)

    def looked_at(self, method: str, suffix: str) -> set[str]:
        """Return what the two analyses of a bandit come to, of the arms that are dealt."""
        fewest = min(sum(sums.units for sums in self.sums[key].values()) for key in self.left)
        found: set[str] = set()
        evidence = self.evidence()
        if fewest >= PLAN.minimum_units:
            found |= self._compared(evidence.primary, method, f"weighted{suffix}")
        in_slice = min(
            sum(sums.units for epoch, sums in self.sums[key].items() if epoch <= UNIFORM_EPOCH)
            for key in self.left
        )
        if method == "sequential" and in_slice >= PLAN.minimum_units:
            found |= self._compared(evidence.uniform().primary, method, f"slice{suffix}")
        return found

    def _compared(self, metric: MetricEvidence, method: str, name: str) -> set[str]:
        return self._named(name, method, {key: arms_of(metric, key, "a") for key in self.left[1:]})

    def _named(self, name: str, method: str, arms: Mapping[str, Arms]) -> set[str]:
        level = simultaneous_confidence(len(self.setting.arms) - 1, CONFIDENCE)
        means = dict(zip(self.setting.keys, self.setting.arms, strict=True))
        found: set[str] = set()
        for key, each in arms.items():
            finding: Finding = find(method, each, PLAN, level)  # type: ignore[arg-type] # one of the methods
            judged = finding._replace(
                p_value=None
                if finding.p_value is None
                else finding.p_value * CONFIDENCE_SHARE / (1.0 - level)
            )
            found |= named(name, judged, means[key] - means["a"])
        return found

    def naive(self) -> set[str]:
        contrasts = {
            key: Arms(
                ratio_contrast(*({0: self.pooled(arm)} for arm in (key, "a"))), self.definition.direction
            )
            for key in self.left[1:]
        }
        return self._named("naive", "fixed", contrasts)

    def pooled(self, key: str) -> UnitSums:
        return UnitSums.pooled(self.sums[key].values())

    def amounts(self) -> dict[str, float]:
        """Return the regret per unit, the share of the best arm among new units, and how far the best arm's difference
        to the control is from the truth, as a naive mean and as the analysis has it; of the latter also the square, and
        the product with the sum of the weights h that the analysis divided by.
        """
        setting = self.setting
        best = int(setting.gains.argmax())
        key = setting.keys[best]
        amounts = {"regret": self.regret / self.dealt, "best": self.epochs[-1].weights[key]}
        if best:
            truth = setting.arms[best] - setting.arms[0]
            naive = ratio_contrast({0: self.pooled(key)}, {0: self.pooled("a")}).value
            weighted = arms_of(self.evidence().primary, key, "a").contrast.value
            error, divisor = (weighted or 0.0) - truth, self.divisor()
            amounts |= {
                "naive bias": (naive or 0.0) - truth,
                "weighted bias": error,
                "weighted square": error**2,
            }
            amounts |= {"divisor": divisor, "weighted product": error * divisor}
        return amounts

    def divisor(self) -> float:
        """Return the mean over all units of h = (Σ 1/e)^(-1/2), by which the sum of the weighted scores is divided."""
        units = Counter[int]()
        for by_epoch in self.sums.values():
            units.update({epoch: sums.units for epoch, sums in by_epoch.items()})
        weights = {
            epoch.number: 1.0 / math.sqrt(sum(1.0 / share for share in epoch.weights.values() if share > 0.0))
            for epoch in self.epochs
        }
        return sum(units[number] * weight for number, weight in weights.items()) / self.dealt


CONFIDENCE_SHARE = 1.0 - CONFIDENCE


def _epoch(number: int, weights: Mapping[str, float]) -> Epoch:
    # only the slice is ever dealt anew from its map
    segments = allocate(weights).to_json() if number == UNIFORM_EPOCH else ()
    return Epoch.model_construct(
        experiment_id="simulated", number=number, starts_at=NOON, weights=weights, segments=segments
    )


def _experiment(setting: BanditSetting, rule: Rule) -> PromptExperiment:
    return PromptExperiment(
        experiment_id="simulated",
        name="simulated",
        prompt_type=PromptType.CONFIG,
        prompt_name=None,
        variants=tuple(PromptVariant(key=key, config={}) for key in setting.keys),
        control="a",
        traffic_split=dict.fromkeys(setting.keys, 1.0 / len(setting.arms)),
        status=ExperimentStatus.RUNNING,
        layer="simulated",
        primary_metric=setting.metric,
        plan=PLAN,
        bandit=rule.bandit,
        salt="s",
        enrolment_salt="e",
        uniform_salt="u",
        created_at=NOON,
    )


NULLS: Mapping[int, tuple[float, ...]] = {count: (0.6,) * count for count in (2, 3, 5)}
REALS: Mapping[int, tuple[float, ...]] = {
    2: (0.6, 0.65),
    3: (0.6, 0.62, 0.67),
    5: (0.6, 0.58, 0.6, 0.63, 0.68),
}
TIMES, FASTER = (1.2, 1.2), (1.2, 1.12)
DRIFT = 0.2
MANY_EVENTS = 10


def _settings(arms: Mapping[int, tuple[float, ...]], times: tuple[float, ...]) -> Iterator[BanditSetting]:
    for count, rule in itertools.product(arms, RULES):
        # of two arms each is the other's challenger
        if count > 2 or "top-two" not in rule.label:
            yield BanditSetting(arms[count], rule.label)
    yield from _moving(arms, times, 1)


def _moving(
    arms: Mapping[int, tuple[float, ...]], times: tuple[float, ...], events: int
) -> Iterator[BanditSetting]:
    yield BanditSetting(arms[2], drift=DRIFT, events=events)
    yield BanditSetting(times, metric="response_time", events=events)


NULL_SETTINGS = (
    *_settings(NULLS, TIMES),
    *(BanditSetting(NULLS[count], events=MANY_EVENTS) for count in NULLS),
    *_moving(NULLS, TIMES, MANY_EVENTS),
    *(BanditSetting(NULLS[3], rule.label, events=MANY_EVENTS) for rule in RULES[1:]),
    BanditSetting(NULLS[3], WITHDRAWING.label, drift=DRIFT),
)
REAL_SETTINGS = tuple(_settings(REALS, FASTER))
"""Every rule with 2, 3 and 5 arms; and Thompson's where the base value rises, and where times are to be short."""
