"""How soon a fall of the success rate is seen: exposed units before the rollback, one event each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from promptab.decisions.decision import Action
from promptab.guardrails import Guardrail
from tests.calibration.outcomes import Bools, Population, draw
from tests.calibration.rollouts import UNITS, Watched, first_action
from tests.calibration.streams import CORRELATION, Stream, Totals
from tests.calibration.tally import ALPHA
from tests.calibration.verdicts import TREATMENT, Watch, bound_broken, dealt_rates_log_e, is_shown

EVERY = 5
CONTROL_RATE = 0.9
FALLEN = (0.85, 0.8, 0.7)
SHARES = (0.1, 0.5)

SEED_BOUND, SEED_EVENTS, KEPT_RATE = 0.8, 100, 0.82
"""Seed 003 rolls back where the mean of more than 100 events is under 0.8."""

_SOON = 400


class Fall(NamedTuple):
    """A treatment's success rate, and what it is held against."""

    rate: float
    share: float | None = None
    """Of the units that are treated, beside a control at 0.9; None: an absolute bound, and only treated units."""
    bound: float = CONTROL_RATE

    @property
    def guardrail(self) -> str:
        return f"success_rate >= {self.bound:g}" if self.share is None else "success_rate >= control"

    @property
    def information_bound(self) -> float | None:
        """Treated units that no rule of this alpha can do with less of on average; None where nothing fell.

        log(1/alpha) / KL(p1, p0), or r log(1/alpha) / J with J = r KL(pT, p) + (1 - r) KL(pC, p) and
        p = r pT + (1 - r) pC.
        """
        nats = -math.log(ALPHA)
        if self.rate >= self.bound:
            return None
        if self.share is None:
            return nats / _divergence(self.rate, self.bound)
        mixed = self.share * self.rate + (1.0 - self.share) * CONTROL_RATE
        gained = self.share * _divergence(self.rate, mixed)
        gained += (1.0 - self.share) * _divergence(CONTROL_RATE, mixed)
        return self.share * nats / gained


class Delay(NamedTuple):
    """What one rule came to over all streams; units are treated ones, exposed before the rollback."""

    stopped: int = 0
    """Streams that were rolled back."""
    median: int | None = None
    ninetieth: int | None = None
    """None where so many were not rolled back at all."""

    @classmethod
    def of(cls, units: Sequence[int | None]) -> Delay:
        stopped = sorted(count for count in units if count is not None)

        def quantile(share: float) -> int | None:
            place = math.ceil(share * len(units)) - 1
            return stopped[place] if place < len(stopped) else None

        return cls(len(stopped), quantile(0.5), quantile(0.9))


class Detection(NamedTuple):
    """The guardrail and seed 003's rule on the same streams."""

    runs: int
    guardrail: Delay
    seed: Delay


def falls() -> list[Fall]:
    """Return what is measured: falls, none, and one that the bound allows."""
    rates = (*FALLEN, CONTROL_RATE)
    bounded = [Fall(rate) for rate in rates]
    beside = [Fall(rate, share) for share in SHARES for rate in rates]
    return [*bounded, *beside, Fall(KEPT_RATE, bound=SEED_BOUND)]


class ClusteredFall(NamedTuple):
    """A treatment's success rate behind a bound, of units with several events that resemble each other."""

    rate: float
    bound: float
    events: int = 10
    """The mean of a geometric count."""


CLUSTERED = (
    *(ClusteredFall(rate, CONTROL_RATE) for rate in (0.85, 0.8, 0.7, 0.5, 0.9)),
    *(ClusteredFall(rate, 0.98) for rate in (0.95, 0.9, 0.98)),
)


def clustered_detected(fall: ClusteredFall, *, runs: int, seed: int, units: int = UNITS) -> Detection:
    """Look after every 5 units, all of them treated."""
    guardrail = Guardrail(metric="success_rate", at_least=fall.bound)
    one = Watched("success_rate", (guardrail.text,))
    generator = np.random.default_rng(seed)
    found: dict[str, list[int | None]] = {"guardrail": [], "seed": []}
    for _ in range(runs):
        population = Population("success_rate", fall.events, CORRELATION)
        drawn = draw(generator, population, np.full((1, units), fall.rate))
        totals = Totals(drawn.per_unit(drawn.weights)[0], drawn.per_unit(drawn.values)[0])
        stream = Stream.of(np.ones(units, dtype=np.bool_), {"success_rate": totals}, share=1.0, every=EVERY)
        stopped = first_action(stream, one, Watch(stream).fails(guardrail, ALPHA), every=EVERY)
        assert stopped is None or stopped[1] == "rollback"
        sums = stream.sums["success_rate"]
        found["guardrail"].append(None if stopped is None else (stopped[0] + 1) * EVERY)
        events, successes = sums.n[TREATMENT], sums.s[TREATMENT]
        by_seed = (events > SEED_EVENTS) & (successes < SEED_BOUND * events)
        found["seed"].append(int(by_seed.argmax() + 1) * EVERY if by_seed.any() else None)
    return Detection(runs, Delay.of(found["guardrail"]), Delay.of(found["seed"]))


def detected(fall: Fall, *, runs: int, seed: int, units: int = UNITS) -> Detection:
    """Look after every 5 exposed units at streams of at most `units`, of both arms where there are two."""
    one = Watched("success_rate", (fall.guardrail,))
    found: dict[str, list[int | None]] = {"guardrail": [], "seed": []}
    for stream in streams_of(fall, runs=runs, seed=seed, units=units):
        stopped = _first_stop(fall, stream, one)
        assert stopped is None or stopped[1] == "rollback"
        sums = stream.sums["success_rate"]
        treated = sums.units[TREATMENT].astype(np.int64)
        found["guardrail"].append(None if stopped is None else int(treated[stopped[0]]))
        by_seed = (treated > SEED_EVENTS) & (sums.s[TREATMENT] < SEED_BOUND * treated)
        found["seed"].append(int(treated[by_seed.argmax()]) if by_seed.any() else None)
    return Detection(runs, Delay.of(found["guardrail"]), Delay.of(found["seed"]))


def streams_of(fall: Fall, *, runs: int, seed: int, units: int) -> Iterator[Stream]:
    generator = np.random.default_rng(seed)
    share = 1.0 if fall.share is None else fall.share
    for _ in range(runs):
        treated = generator.random(units) < share
        succeeded = generator.random(units) < np.where(treated, fall.rate, CONTROL_RATE)
        totals = {"success_rate": Totals(np.ones(units), succeeded.astype(np.float64))}
        yield Stream.of(treated, totals, share=share, every=EVERY)


def _first_stop(fall: Fall, stream: Stream, one: Watched) -> tuple[int, Action] | None:
    # most falls are seen soon, and then the rest of the stream need not be worked out
    for looks in (min(_SOON, stream.looks), stream.looks):
        stopped = first_action(stream, one, failing(fall, stream, looks), every=EVERY)
        if stopped is not None:
            return stopped
    return None


def failing(fall: Fall, stream: Stream, looks: int) -> Bools:
    """Say at which of the first looks the guardrail fails; at none of the others."""
    guardrail = Guardrail.model_validate(fall.guardrail)
    if fall.share is None:
        return bound_broken(stream, guardrail, "less", ALPHA)
    failed = np.zeros(stream.looks, dtype=np.bool_)
    failed[:looks] = is_shown(dealt_rates_log_e(stream, guardrail, looks=looks), ALPHA)
    return failed


def _divergence(rate: float, other: float) -> float:
    """Return KL(rate, other) of two outcomes of 0 or 1, in nats."""
    return rate * math.log(rate / other) + (1.0 - rate) * math.log((1.0 - rate) / (1.0 - other))
