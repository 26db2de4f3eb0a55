"""Where a guard draws its lines by what the version before had, and how often it is wrong for all that."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from promptab import InvalidInputError, Policy
from promptab.decisions.drawing_bounds import HISTORY_SHARE, drawn_bounds
from promptab.decisions.guard import GuardBound, GuardEvidence, GuardTally, PastEvent
from promptab.decisions.guarded import decide_guard, guard_readings
from promptab.plan import TUNING_UNITS
from promptab.stats import sequential
from promptab.stats.ratio import rate_variance, ratio_mean
from promptab.stats.summary import UnitSums

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
ALPHA = 0.05


def bound_of(line: str | dict[str, object], events: Sequence[PastEvent] = (), **fields: object) -> GuardBound:
    policy = Policy.model_validate({"guardrails": [line], **fields})
    [bound] = drawn_bounds(policy, {policy.guardrails[0].metric: events}, previous="1.0.0")
    return bound


def trials(successes: int, count: int) -> list[PastEvent]:
    return [PastEvent(unit, 1.0, float(unit < successes)) for unit in range(count)]


def evidence(bound: GuardBound, totals: Sequence[tuple[float, float]]) -> GuardEvidence:
    return GuardEvidence(
        guard_id="g",
        prompt="system/tone",
        environment="production",
        version="1.0.1",
        previous_version="1.0.0",
        until=None,
        bounds=(bound,),
        tallies=(GuardTally(sums=UnitSums.of(totals)),),
    )


@pytest.mark.parametrize(
    ("line", "claim", "bound", "threshold"),
    [
        ("success_rate >= 0.8", "less", 0.8, None),
        ("error_rate <= 0.2", "greater", 0.2, None),
        ("cost <= 0.01", "greater", 0.01, None),
        ("rating >= 4", "less", 4.0, None),
        ("p95_response_time <= 2.0", "greater", pytest.approx(0.05), 2.0),
    ],
)
def test_a_bound_that_is_named_is_taken_at_its_word(
    line: str, claim: str, bound: float, threshold: float | None
) -> None:
    drawn = bound_of(line)
    assert (drawn.claim, drawn.bound, drawn.threshold, drawn.alpha) == (claim, bound, threshold, ALPHA)
    assert drawn.detail == ""


def test_alpha_is_shared_alike_among_guardrails() -> None:
    policy = Policy.model_validate(
        {"guardrails": ["success_rate >= 0.8", "cost <= control + 10%"], "guardrail_alpha": 0.1}
    )
    named, relative = drawn_bounds(policy, {"cost": []}, previous="1.0.0")
    assert named.alpha == 0.05
    assert relative.bound is None


@pytest.mark.parametrize(("successes", "count"), [(0, 30), (30, 30), (17, 30), (900, 1_000), (1, 2)])
def test_a_rate_has_the_exact_bound_of_clopper_and_pearson(successes: int, count: int) -> None:
    level = HISTORY_SHARE * ALPHA
    # by the tail of the binomial itself: the rate at which so many successes, or more, have this chance
    drawn = bound_of("success_rate >= control - 5%", trials(successes, count))
    assert drawn.bound is not None
    low = drawn.bound / 0.95
    if successes:
        assert stats.binom.sf(successes - 1, count, low) == pytest.approx(level, rel=1e-6)
    else:
        assert low == 0.0
    assert drawn.alpha == pytest.approx((1.0 - HISTORY_SHARE) * ALPHA)


def test_errors_draw_the_line_where_successes_do() -> None:
    successes = bound_of(
        {"metric": "success_rate", "largest_regression": 0.05, "relative": False}, trials(180, 200)
    )
    errors = bound_of(
        {"metric": "error_rate", "largest_regression": 0.05, "relative": False}, trials(20, 200)
    )
    assert successes.bound is not None
    assert errors.bound == pytest.approx(1.0 - successes.bound)
    assert (successes.claim, errors.claim) == ("less", "greater")


@pytest.mark.parametrize(
    ("line", "sign"), [("cost <= control + 10%", 1.0), ("warmth >= control - 10%", -1.0)]
)
def test_a_mean_has_the_bound_of_student(line: str, sign: float) -> None:
    numbers = np.random.default_rng(1).gamma(2.0, 0.01, 400)
    drawn = bound_of(line, [PastEvent(unit, 1.0, value) for unit, value in enumerate(numbers)])
    se = numbers.std(ddof=1) / math.sqrt(numbers.size)
    worth = numbers.mean() + sign * stats.t.ppf(1.0 - HISTORY_SHARE * ALPHA, numbers.size - 1) * se
    assert drawn.bound == pytest.approx(float(worth) * (1.0 + sign * 0.1), rel=1e-9)


def test_events_of_one_unit_are_one_observation() -> None:
    rng = np.random.default_rng(2)
    of_units = rng.random(150) < 0.8
    events = [PastEvent(unit, 1.0, float(of_units[unit])) for unit in range(150) for _ in range(10)]
    by_unit = bound_of("success_rate >= control - 1%", events)
    as_if_single = bound_of(
        "success_rate >= control - 1%", [event._replace(unit=n) for n, event in enumerate(events)]
    )
    assert by_unit.previous_units == 150
    assert by_unit.bound is not None
    assert as_if_single.bound is not None
    assert by_unit.bound < as_if_single.bound - 0.03


@pytest.mark.parametrize(
    ("line", "events", "lacking"),
    [
        ("cost <= control + 10%", [], "nothing recorded of it"),
        ("cost <= control + 10%", [PastEvent(u, 1.0, 0.1 * u) for u in range(99)], "99 units with it"),
        ("success_rate >= control", [], "nothing recorded of it"),
        ("p95_response_time <= control", [PastEvent(u, 1.0, 1.0) for u in range(20)], "20 units with it"),
    ],
)
def test_a_record_that_is_too_short_draws_no_line_and_says_so(
    line: str, events: list[PastEvent], lacking: str
) -> None:
    drawn = bound_of(line, events)
    assert drawn.bound is None
    assert f"not watched: 1.0.0 had {lacking}" in drawn.detail
    [reading] = guard_readings(
        evidence(drawn, [(1.0, 0.0)] * 500), Policy.model_validate({"guardrails": [line]})
    )
    assert (reading.verdict, reading.technique) == ("undecided", "not enough data")


def test_a_quantile_of_the_past_is_a_threshold_for_the_share_beyond_it() -> None:
    values = np.random.default_rng(3).exponential(1.0, 4_000)
    drawn = bound_of(
        "p95_response_time <= control + 10%", [PastEvent(u, 1.0, v) for u, v in enumerate(values)]
    )
    assert drawn.threshold is not None
    assert drawn.previous is not None
    assert drawn.previous == pytest.approx(np.sort(values)[3_799])
    # the upper bound of the quantile, and a tenth of it
    assert drawn.previous * 1.1 < drawn.threshold < drawn.previous * 1.1 * 1.15
    assert drawn.bound == pytest.approx(0.05)


def test_evidence_about_other_guardrails_is_refused() -> None:
    about = evidence(bound_of("cost <= 1"), [])
    with pytest.raises(InvalidInputError, match=r"evidence\.bounds"):
        decide_guard(about, Policy.model_validate({"guardrails": ["cost <= 2"]}), NOON, since=NOON)


def test_time_that_is_over_ends_a_guard_unless_a_guardrail_has_failed() -> None:
    policy = Policy.model_validate({"guardrails": ["success_rate >= 0.8"]})
    over = {"until": NOON + timedelta(hours=1)}
    for successes, action in ((45, "stop"), (20, "rollback")):
        told = evidence(bound_of("success_rate >= 0.8"), [(1.0, float(u < successes)) for u in range(50)])
        decision = decide_guard(told.model_copy(update=over), policy, NOON + timedelta(hours=1), since=NOON)
        assert decision.action == action


RUNS, UNITS, EVERY = 250, 600, 5


@pytest.mark.parametrize("line", ["success_rate >= 0.8", "success_rate >= control - 10%"])
def test_a_version_on_the_line_is_rolled_back_no_more_often_than_alpha(line: str) -> None:
    """Looking after every five units, of a version that is exactly as bad as it may be."""
    rng = random.Random(11)
    wrong = sum(rolled_back_after(line, 0.8, rng) is not None for _ in range(RUNS))
    assert wrong <= RUNS * ALPHA + 3.0 * math.sqrt(RUNS * ALPHA * (1.0 - ALPHA))


@pytest.mark.parametrize("line", ["success_rate >= 0.8", "success_rate >= control - 10%"])
def test_a_version_far_beyond_the_line_is_rolled_back_soon(line: str) -> None:
    rng = random.Random(12)
    after = sorted(rolled_back_after(line, 0.5, rng) or UNITS for _ in range(50))
    # log(1/alpha)/KL is 15 units
    assert after[25] <= 40
    assert after[-1] < UNITS


def rolled_back_after(line: str, rate: float, rng: random.Random) -> int | None:
    """Return after how many units a version with this rate is rolled back; that before it had 8/9, of 500."""
    policy = Policy.model_validate({"guardrails": [line]})
    past = trials(sum(rng.random() < 8 / 9 for _ in range(500)), 500)
    [bound] = drawn_bounds(policy, {"success_rate": past}, previous="1.0.0")
    successes = 0
    for units in range(1, UNITS + 1):
        successes += rng.random() < rate
        if units % EVERY:
            continue
        sums = UnitSums(units=units, n=units, s=successes, rr=successes, nn=units, rn=successes)
        told = evidence(bound, []).model_copy(update={"tallies": (GuardTally(sums=sums),)})
        [reading] = guard_readings(told, policy)
        if reading.verdict == "fail":
            return units
    return None


@pytest.mark.parametrize(
    ("line", "past", "bound"),
    [
        ("success_rate >= control - 0.05", trials(6, 200), 0.0),
        ({"metric": "success_rate", "largest_regression": 1.5}, trials(180, 200), 0.0),
        ("error_rate <= control + 0.05", trials(196, 200), 1.0),
        ("error_rate <= control + 100%", trials(180, 200), 1.0),
    ],
)
def test_a_margin_past_what_a_rate_can_be_lets_nothing_fail(
    line: str | dict[str, object], past: list[PastEvent], bound: float
) -> None:
    drawn = bound_of(line, past)
    assert drawn.bound == bound
    assert drawn.detail.endswith(f"the line is at {bound:.4g}")
    policy = Policy.model_validate({"guardrails": [line]})
    worst = 1.0 if drawn.claim == "greater" else 0.0
    for totals in (
        [(1.0, worst)] * 300,
        [(2.0, 2.0 * worst)] * 20,
        [(2.0, 1.0)] * 299 + [(2.0, 2.0 * worst)],
    ):
        [reading] = guard_readings(evidence(drawn, totals), policy)
        assert reading.verdict == "undecided"


def test_few_successes_of_many_units_do_not_fail_for_little_variation() -> None:
    """A rate under its bound is tested with the spread that it would have at the bound, as an experiment's is."""
    line, bound = "success_rate >= 0.05", 0.05
    totals = [(10.0, 4.0)] * 20 + [(10.0, 0.0)] * 380
    policy = Policy.model_validate({"guardrails": [line]})
    [reading] = guard_readings(evidence(bound_of(line), totals), policy)
    mean = ratio_mean(UnitSums.of(totals))
    assert mean is not None
    assert reading.alpha == ALPHA / 2.0
    spread = math.sqrt(rate_variance(mean, at=bound))
    assert spread > 1.4 * math.sqrt(mean.variance)
    assert reading.p_value == sequential.p_value(
        mean.value,
        spread,
        400,
        null=bound,
        tuning_units=TUNING_UNITS,
        alpha=ALPHA / 2.0,
        alternative="less",
    )


def test_a_share_of_values_is_not_put_beside_the_quantile_that_was() -> None:
    seconds = np.random.default_rng(4).gamma(2.0, 0.4, 2_000)
    line = "p95_response_time <= control + 10%"
    drawn = bound_of(line, [PastEvent(unit, 1.0, float(value)) for unit, value in enumerate(seconds)])
    seen = evidence(drawn, [(1.0, 1.0)] * 60 + [(1.0, 0.0)] * 60)
    decision = decide_guard(seen, Policy.model_validate({"guardrails": [line]}), NOON, since=NOON)
    assert (decision.action, decision.numbers["value"], decision.numbers["previous"]) == (
        "rollback",
        0.5,
        None,
    )
    assert drawn.previous == pytest.approx(float(np.quantile(seconds, 0.95)), rel=0.01)
    assert f"1.0.0 had {drawn.previous:.4g} over 2000 units" in decision.sentence
