"""Evidence that a rate is worse than that of a concurrent control."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from promptab.errors import InvalidInputError
from promptab.stats.metric import Direction
from promptab.stats.rate_regression import DealtRates, regression_log_e_value

DIRECTIONS: tuple[Direction, ...] = ("increase", "decrease")
MARGINS = [(0.0, False), (0.05, False), (0.1, True), (1.5, True)]


def evidence(
    treatment: tuple[int, int],
    control: tuple[int, int],
    *,
    share: float = 0.5,
    margin: float = 0.0,
    relative: bool = False,
    direction: Direction = "increase",
) -> float:
    epoch = DealtRates(share, treatment, control)
    return regression_log_e_value([epoch], margin=margin, relative=relative, direction=direction)


def largest_allowed(control: float, margin: float, relative: bool, direction: Direction) -> float:
    """Return the treatment's rate at the margin."""
    sign = -1.0 if direction == "increase" else 1.0
    return min(1.0, max(0.0, control * (1.0 + sign * margin) if relative else control + sign * margin))


def expected_capital(
    rates: tuple[float, float], units: int, share: float, margin: float, relative: bool, direction: Direction
) -> float:
    """Return the mean of the capital after so many units, over all ways they can be dealt and turn out."""
    total = 0.0
    kinds = [(share, rates[0]), (1.0 - share, rates[1])]
    chances = [chance * p for dealt, rate in kinds for chance, p in ((dealt, rate), (dealt, 1.0 - rate))]
    for seen in itertools.product(range(units + 1), repeat=4):
        if sum(seen) != units:
            continue
        ways = math.factorial(units) / math.prod(math.factorial(k) for k in seen)
        likely = ways * math.prod(chance**k for chance, k in zip(chances, seen, strict=True))
        treated, untreated = (seen[0], seen[0] + seen[1]), (seen[2], seen[2] + seen[3])
        found = evidence(
            treated, untreated, share=share, margin=margin, relative=relative, direction=direction
        )
        total += likely * math.exp(found)
    return total


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("margin", "relative"), MARGINS)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_nobody_gets_rich_on_average_while_the_treatment_is_within_its_margin(
    share: float, margin: float, relative: bool, direction: Direction
) -> None:
    for control in (0.02, 0.3, 0.6, 0.9, 0.99):
        at_margin = largest_allowed(control, margin, relative, direction)
        within = [at_margin, (at_margin + control) / 2.0, 1.0 if direction == "increase" else 0.0]
        for treatment in within:
            mean = expected_capital((treatment, control), 4, share, margin, relative, direction)
            assert mean <= 1.0 + 1e-9, (treatment, control)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_worse_treatment_makes_whoever_bets_against_it_rich(direction: Direction) -> None:
    worse, better = (0.6, 0.9) if direction == "increase" else (0.4, 0.1)
    assert expected_capital((worse, better), 4, 0.5, 0.0, False, direction) > 1.05
    assert expected_capital((better, worse), 4, 0.5, 0.0, False, direction) < 1.0


@given(
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.sampled_from([0.0, 0.03]),
)
def test_fewer_errors_are_judged_as_more_successes_are(
    treated: tuple[int, int], untreated: tuple[int, int], margin: float
) -> None:
    """An absolute margin says of the failures, turned round, what it says of the successes."""
    up = evidence((treated[0], sum(treated)), (untreated[0], sum(untreated)), margin=margin)
    down = evidence(
        (treated[1], sum(treated)), (untreated[1], sum(untreated)), margin=margin, direction="decrease"
    )
    assert up == down


def test_the_odds_of_one_unit_are_those_to_the_nearest_rates_that_are_allowed() -> None:
    """One unit, against a second computation of the projection for every alternative that is bet on."""
    from promptab.stats import rate_regression as module  # noqa: PLC0415 - the alternatives are its own

    points = module._points(1.0, 0.05)
    total = 0.0
    for treated, untreated, weight in zip(*points, strict=True):

        def divergence(rate: float, treated: float = treated, untreated: float = untreated) -> float:
            def of(p: float, q: float) -> float:
                return float(p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q)))

            return 0.3 * of(treated, rate - 0.05) + 0.7 * of(untreated, rate)

        nearest = minimize_scalar(divergence, bounds=(0.05 + 1e-12, 1.0 - 1e-12), options={"xatol": 1e-12}).x
        total += weight * (1.0 - treated) / (1.0 - (nearest - 0.05))
    assert math.exp(evidence((0, 1), (0, 0), share=0.3, margin=0.05)) == pytest.approx(total, rel=1e-4)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=2), st.floats(0.05, 0.95)
)
@settings(deadline=None)
def test_epochs_of_the_same_weights_are_as_one(cut: list[tuple[int, int]], share: float) -> None:
    parts = [DealtRates(share, (s, s + f), (f, s + f)) for s, f in cut]
    total = tuple(map(sum, zip(*cut, strict=True)))
    whole = DealtRates(share, (total[0], sum(total)), (total[1], sum(total)))
    apart = regression_log_e_value(parts, margin=0.02, relative=False, direction="increase")
    assert apart == pytest.approx(
        regression_log_e_value([whole], margin=0.02, relative=False, direction="increase"), abs=1e-9
    )


def test_weights_that_change_while_the_base_rate_moves_are_no_harm() -> None:
    """Pooled, the treatment has 1,350 of 2,000 and the control 1,650 of 2,000: Simpson's paradox."""
    epochs = [DealtRates(0.1, (180, 200), (1_620, 1_800)), DealtRates(0.9, (900, 1_800), (100, 200))]
    assert regression_log_e_value(epochs, margin=0.0, direction="increase") < 0.0
    assert evidence((1_080, 2_000), (1_720, 2_000)) > math.log(1e6)


def test_nothing_is_worse_than_a_margin_that_allows_everything() -> None:
    assert evidence((0, 100), (100, 100), margin=1.0) == 0.0
    assert evidence((0, 100), (100, 100), margin=1.0, relative=True) == 0.0
    assert evidence((100, 100), (0, 100), margin=1.0, direction="decrease") == 0.0


def test_errors_may_double_and_are_found_when_they_do_more() -> None:
    allowed = evidence((200, 2_000), (100, 2_000), margin=1.0, relative=True, direction="decrease")
    beyond = evidence((400, 2_000), (100, 2_000), margin=1.0, relative=True, direction="decrease")
    assert allowed < math.log(20.0) < beyond


def test_without_units_there_is_no_evidence() -> None:
    assert regression_log_e_value([], margin=0.0, direction="increase") == 0.0
    assert evidence((0, 0), (0, 0)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("epoch", "margin", "field"),
    [
        (DealtRates(0.0, (1, 2), (1, 2)), 0.0, "share"),
        (DealtRates(1.0, (1, 2), (1, 2)), 0.0, "share"),
        (DealtRates(0.5, (3, 2), (1, 2)), 0.0, "treatment.successes"),
        (DealtRates(0.5, (1, 2), (1, -2)), 0.0, "control.trials"),
        (DealtRates(0.5, (1, 2), (1, 2)), -0.1, "margin"),
        (DealtRates(0.5, (1, 2), (1, 2)), math.inf, "margin"),
    ],
)
def test_what_is_no_dealing_is_refused(epoch: DealtRates, margin: float, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        regression_log_e_value([epoch], margin=margin, direction="increase")
    assert refused.value.field == field


def alarm_times(rates: tuple[float, float], share: float, *, runs: int, most: int, seed: int) -> np.ndarray:
    """Return the treated units before the alarm at alpha 0.05, looking after every five of them; inf without one."""
    generator = np.random.default_rng(seed)
    found = np.full(runs, np.inf)
    for run in range(runs):
        control = np.cumsum(generator.geometric(share, most) - 1)
        treated = np.cumsum(generator.random(most) < rates[0])
        won = np.cumsum(generator.random(int(control[-1])) < rates[1])
        for units in range(5, most + 1, 5):
            beside = int(control[units - 1])
            kept = (int(won[beside - 1]) if beside else 0, beside)
            if evidence((int(treated[units - 1]), units), kept, share=share) >= math.log(20.0):
                found[run] = units
                break
    return found


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_treatment_that_is_no_worse_is_rarely_called_so_however_often_one_looks(share: float) -> None:
    times = alarm_times((0.9, 0.9), share, runs=120, most=300, seed=5)
    # alpha is 0.05: 14 of 120 has a chance below 1 in 300 where the promise holds
    assert np.isfinite(times).sum() < 14


@pytest.mark.parametrize(("share", "rate"), [(0.1, 0.8), (0.5, 0.7)])
def test_a_regression_is_found_near_the_bound_of_information(share: float, rate: float) -> None:
    def divergence(p: float, q: float) -> float:
        return p * math.log(p / q) + (1.0 - p) * math.log((1.0 - p) / (1.0 - q))

    mixed = share * rate + (1.0 - share) * 0.9
    gain = share * divergence(rate, mixed) + (1.0 - share) * divergence(0.9, mixed)
    fewest = share * math.log(20.0) / gain
    times = alarm_times((rate, 0.9), share, runs=100, most=round(5 * fewest), seed=6)
    assert np.median(times) <= 1.7 * fewest
