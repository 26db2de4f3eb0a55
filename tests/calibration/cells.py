"""The experiments of the tables: which are simulated, how often, and from which seeds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from tests.calibration.bandits import NULL_SETTINGS, REAL_SETTINGS, simulate_bandit
from tests.calibration.dealing import BROKEN, DEALINGS, alarms
from tests.calibration.detections import CLUSTERED, Detection, clustered_detected, detected, falls
from tests.calibration.experiments import Setting, Visits, simulate
from tests.calibration.outcomes import BASE, METRICS, Population
from tests.calibration.quantile_rollouts import quantile_rollouts
from tests.calibration.quantiles import simulate_quantile
from tests.calibration.rollouts import EVENTS_OF_UNITS, KINDS, rollouts, watched
from tests.calibration.rules import beliefs, guardrails, histories
from tests.calibration.schedule import ramped, steady
from tests.calibration.small_samples import SCORES, bets, few_units
from tests.calibration.tally import Tally

EVENTS = (1, 5, 20)
CORRELATIONS = (0.0, 0.1, 0.3)
QUANTILE = "p95_response_time"
SUMS = tuple(metric for metric in METRICS if metric != QUANTILE)

STEADY_UNITS, RAMPED_UNITS = 1_000, 2_000
# z of a two-sided 5 % and of 80 %: an effect of so many standard errors is found by a fixed horizon in 80 %.
_POWERED = 1.959964 + 0.841621


class Runs(NamedTuple):
    """How many experiments a cell is."""

    null: int = 2_000
    """Without an effect."""
    real: int = 1_000
    """With one."""
    dear: int = 400
    """Of a kind that takes long."""

    @property
    def dealt(self) -> int:
        """Of a kind that is quick."""
        return 5 * self.null

    def tenth(self) -> Runs:
        return Runs(*(count // 10 for count in self))


class Cell(NamedTuple):
    """One row of a table of whole experiments."""

    population: Population
    arrivals: str
    """"steady" or "ramped"."""
    visits: Visits = "once"

    @property
    def setting(self) -> Setting:
        schedule = steady(STEADY_UNITS) if self.arrivals == "steady" else ramped(RAMPED_UNITS)
        return Setting(self.population, schedule, visits=self.visits)


class Pair(NamedTuple):
    """The same experiments without an effect, or at the edge of what a rule allows, and with one, or well inside."""

    null: Tally
    real: Tally
    effect: float | None = None
    """Treatment minus control, in the metric's own unit, where there is one."""


class Few(NamedTuple):
    """Arms of few units."""

    population: Population
    treated: int
    untreated: int


Key = tuple[str, object]
"""Section and row."""

Result = Tally | Pair | Detection
Found = Mapping[Key, Result]
Job = Callable[[], Result]


def populations(metric: str) -> list[Population]:
    """Return the nine of a metric, or seven where each takes long: with one event per unit there is no second
    event to be alike, and the three correlations are one.
    """
    every = [Population(metric, events, share) for events in EVENTS for share in CORRELATIONS]
    return [one for one in every if metric != QUANTILE or one.events > 1 or one.correlation == 0.0]


def steady_cells() -> list[Cell]:
    return [Cell(population, "steady") for metric in METRICS for population in populations(metric)]


def ramped_cells() -> list[Cell]:
    return [Cell(population, "ramped") for metric in METRICS for population in populations(metric)]


def returning_cells() -> list[Cell]:
    """A unit with one event never comes back."""
    visits: tuple[Visits, ...] = ("again", "all along")
    return [
        Cell(Population(metric, events, share), "steady", how)
        for how in visits
        for metric in METRICS
        for events, share in ((5, 0.1), (20, 0.3))
    ]


GUARDED = tuple(Population(metric, 5, 0.1) for metric in SUMS)
BELIEVED = GUARDED
HISTORIES: Mapping[str, tuple[Population, int]] = {
    "5 events before, 5 since, correlation 0.3": (Population("response_time", 5, 0.3), 5),
    "20 events before, 20 since, correlation 0.3": (Population("response_time", 20, 0.3), 20),
    "5 events before, 5 since, correlation 0": (Population("response_time", 5, 0.0), 5),
}
FEW = (
    *(Few(Population("success_rate", 1, 0.0), units, units) for units in (3, 5, 10, 20, 100)),
    *(Few(Population("success_rate", 1, 0.0), *units) for units in ((2, 50), (3, 100))),
    *(Few(Population(metric, 5, 0.3), units, units) for metric in SUMS for units in (10, 20)),
)
BETS_PER_DAY = 3
DEALT_PER_DAY = 1_000


def jobs(runs: Runs) -> dict[Key, Job]:
    """Return everything there is to simulate, by section and row; each may run in a process of its own."""
    todo: dict[Key, Job] = {}
    for cell in (*steady_cells(), *ramped_cells()):
        todo[cell.arrivals, cell] = partial(measured, cell, runs)
    for cell in returning_cells():
        todo["returning", cell] = partial(simulated, cell.setting, runs.null, seed(cell))
    for population in GUARDED:
        todo["guardrails", population] = partial(guarded, population, runs)
    for population in BELIEVED:
        todo["beliefs", population] = partial(beliefs, population, runs.dear, seed("belief", population))
    for label, (population, before) in HISTORIES.items():
        todo["histories", label] = partial(with_history, population, before, runs)
    for few in FEW:
        todo["few", few] = partial(with_few_units, few, runs)
    for label in SCORES:
        todo["bets", label] = partial(betted, label, runs.dear)
    for label, dealing in {**DEALINGS, **BROKEN}.items():
        todo["dealing", label] = partial(
            alarms, dealing, per_day=DEALT_PER_DAY, runs=runs.dealt, seed=seed("dealing", label)
        )
    return todo | bandit_jobs(runs) | acting(runs)


def bandit_jobs(runs: Runs) -> dict[Key, Job]:
    todo: dict[Key, Job] = {}
    for setting in NULL_SETTINGS:
        todo["bandits", setting] = partial(simulate_bandit, setting, runs.null, seed("bandits", setting))
    for setting in REAL_SETTINGS:
        todo["earning", setting] = partial(simulate_bandit, setting, runs.null, seed("earning", setting))
    return todo


def acting(runs: Runs) -> dict[Key, Job]:
    """Return the part of `jobs` in which decisions act."""
    todo: dict[Key, Job] = {}
    for kind in KINDS:
        todo["rollouts", kind] = partial(
            rollouts, kind, watched(kind.situation), runs=runs.null, seed=seed("rollouts", kind)
        )
    for events in EVENTS_OF_UNITS:
        todo["quantile rollouts", events] = partial(
            quantile_rollouts, events, runs=runs.null, seed=seed("quantile rollouts", events)
        )
    for fall in falls():
        todo["detections", fall] = partial(detected, fall, runs=runs.null, seed=seed("detections", fall))
    for clustered in CLUSTERED:
        todo["clustered detections", clustered] = partial(
            clustered_detected, clustered, runs=runs.dear, seed=seed("clustered detections", clustered)
        )
    return todo


def simulated(setting: Setting, runs: int, start: int) -> Tally:
    reading = simulate_quantile if setting.population.metric == QUANTILE else simulate
    return reading(setting, runs, start)


def measured(cell: Cell, runs: Runs) -> Pair:
    null = simulated(cell.setting, runs.null, seed(cell))
    effect = _POWERED * null.mean_se
    dear = cell.population.metric == QUANTILE or cell.arrivals == "ramped"
    real = simulated(
        cell.setting._replace(effect=effect), runs.dear if dear else runs.real, seed(cell, "real")
    )
    return Pair(null, real, effect)


def guarded(population: Population, runs: Runs) -> Pair:
    return Pair(
        guardrails(population, worse=1.0, runs=runs.null, seed=seed("guardrail", population)),
        guardrails(population, worse=0.0, runs=runs.real, seed=seed("guardrail", population, "safe")),
    )


def with_history(population: Population, before: int, runs: Runs) -> Pair:
    start = seed("history", population, before)
    null = histories(population, 0.0, before=before, runs=runs.null, seed=start)
    effect = _POWERED * null.mean_se
    real = histories(population, effect, before=before, runs=runs.real, seed=start + 1)
    return Pair(null, real, effect)


def with_few_units(few: Few, runs: Runs) -> Pair:
    """A real effect is half of the base value: with so few units a smaller one is not to be found."""
    population, treated, untreated = few
    base = BASE[population.metric]
    # a share has no room above
    effect = (-0.5 if population.metric == "success_rate" else 0.5) * base
    return Pair(
        few_units(population, treated, untreated, runs=runs.null, seed=seed("few", few)),
        few_units(
            population, treated, untreated, runs=runs.real, seed=seed("few", few, "real"), effect=effect
        ),
        effect,
    )


def betted(label: str, runs: int) -> Pair:
    null, real = SCORES[label]
    return Pair(
        bets(null, per_day=BETS_PER_DAY, runs=runs, seed=seed("bets", label)),
        bets(real, per_day=BETS_PER_DAY, runs=runs, seed=seed("bets", label, "real")),
    )


def seed(*of: object) -> int:
    """Return a seed of a cell's own that no other cell moves."""
    return zlib.crc32(repr(of).encode())


def pair_of(found: Found, section: str, row: object) -> Pair:
    one = found[section, row]
    assert isinstance(one, Pair)
    return one


def detection_of(found: Found, section: str, row: object) -> Detection:
    one = found[section, row]
    assert isinstance(one, Detection)
    return one


def tally_of(found: Found, section: str, row: object) -> Tally:
    one = found[section, row]
    assert isinstance(one, Tally)
    return one
