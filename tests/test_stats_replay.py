"""A/A replay: sums of re-dealt units, repeatable, and a rule's false positives counted."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from promptab.errors import InvalidInputError
from promptab.stats.fixed import t_p_value
from promptab.stats.proportion import wilson_interval
from promptab.stats.ratio import ratio_contrast
from promptab.stats.replay import replay_false_positives
from promptab.stats.summary import UnitSums

Floats = npt.NDArray[np.float64]


def history(units: int, seed: int) -> tuple[Floats, Floats]:
    """Units with several events each, whose means differ from unit to unit."""
    generator = np.random.default_rng(seed)
    n = generator.integers(1, 10, units).astype(np.float64)
    return n, n * generator.gamma(2.0, 3.0, units)


class Recorder:
    """A rule that keeps what it was shown and calls every third dealing a difference."""

    def __init__(self) -> None:
        self.seen: list[tuple[UnitSums, UnitSums]] = []

    def __call__(self, treatment: UnitSums, control: UnitSums) -> bool:
        self.seen.append((treatment, control))
        return len(self.seen) % 3 == 0


def welch_finds_a_difference(treatment: UnitSums, control: UnitSums) -> bool:
    contrast = ratio_contrast({0: treatment}, {0: control})
    if contrast.value is None or contrast.se is None or contrast.df is None:
        return False
    return t_p_value(contrast.value, contrast.se, contrast.df) <= 0.05


def events_differ(treatment: UnitSums, control: UnitSums) -> bool:
    """A z-test that takes every event for a unit: wrong where a unit has several."""
    mean = (treatment.s + control.s) / (treatment.n + control.n)
    variance = mean * (1 - mean) * (1 / treatment.n + 1 / control.n)
    return abs(treatment.s / treatment.n - control.s / control.n) > 1.96 * math.sqrt(variance)


def test_every_unit_is_dealt_to_exactly_one_arm() -> None:
    n, s = history(50, seed=1)
    rule = Recorder()
    replay_false_positives(n, s, test=rule, runs=20, seed=4)
    whole = UnitSums.of(zip(n.tolist(), s.tolist(), strict=True))
    for treatment, control in rule.seen:
        assert (treatment + control)._asdict() == pytest.approx(whole._asdict(), rel=1e-9, abs=1e-6)
    assert len({treatment.s for treatment, _ in rule.seen}) == 20


def test_sums_of_an_arm_are_those_of_single_units() -> None:
    """Totals that are powers of two tell from their sum which units were dealt to the arm."""
    n = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 1.0])
    s = 2.0 ** np.arange(6)
    rule = Recorder()
    replay_false_positives(n, s, test=rule, runs=50, seed=9, share=0.3)
    for treatment, control in rule.seen:
        for arm in (treatment, control):
            members = [unit for unit in range(6) if int(arm.s) >> unit & 1]
            pairs = [(float(n[unit]), float(s[unit])) for unit in members]
            expected = UnitSums.of(pairs, center=63.0 / 16.0) if pairs else UnitSums()
            assert arm._asdict() == pytest.approx(expected._asdict(), rel=1e-12, abs=1e-12)


def test_false_positives_are_counted_with_wilsons_interval() -> None:
    found = replay_false_positives(*history(10, seed=2), test=Recorder(), runs=100, seed=0, confidence=0.9)
    interval = wilson_interval(33, 100, confidence=0.9)
    assert found[:3] == (100, 33, 0.33)
    assert (found.low, found.high) == interval


def test_equal_seeds_deal_alike_and_other_seeds_do_not() -> None:
    dealt = []
    for seed in (7, 7, 8):
        rule = Recorder()
        replay_false_positives(*history(40, seed=3), test=rule, runs=10, seed=seed)
        dealt.append(rule.seen)
    assert dealt[0] == dealt[1]
    assert dealt[0] != dealt[2]


def test_more_runs_continue_the_same_dealings_however_they_are_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, s = history(40, seed=3)
    whole, blocked = Recorder(), Recorder()
    replay_false_positives(n, s, test=whole, runs=10, seed=7)
    monkeypatch.setattr("promptab.stats.replay._BLOCK", 3 * 40)
    replay_false_positives(n, s, test=blocked, runs=13, seed=7)
    assert len(blocked.seen) == 13
    for (before, _), (after, _) in zip(whole.seen, blocked.seen, strict=False):
        assert after == pytest.approx(before, rel=1e-12, abs=1e-9)


def test_arms_have_the_share_of_units_that_was_asked_for() -> None:
    rule = Recorder()
    replay_false_positives(*history(1_000, seed=5), test=rule, runs=200, seed=1, share=0.1)
    sizes = np.array([treatment.units for treatment, _ in rule.seen])
    assert sizes.mean() == pytest.approx(100.0, abs=3.0)
    assert sizes.std() == pytest.approx(90.0**0.5, rel=0.2)


def test_welch_on_units_errs_in_five_percent_and_a_test_on_events_far_more_often() -> None:
    generator = np.random.default_rng(31)
    n = generator.geometric(0.1, 500).astype(np.float64)
    s = generator.binomial(n.astype(np.int64), generator.beta(1.0, 2.0, 500)).astype(np.float64)
    units = replay_false_positives(n, s, test=welch_finds_a_difference, runs=1_000, seed=1)
    events = replay_false_positives(n, s, test=events_differ, runs=1_000, seed=1)
    assert units.low <= 0.05 <= units.high
    assert events.low > 0.2


def test_units_without_events_are_left_out_and_an_arm_may_be_empty() -> None:
    rule = Recorder()
    found = replay_false_positives([2.0, 0.0], [3.0, 0.0], test=rule, runs=20, seed=2)
    single = UnitSums.of([(2.0, 3.0)])
    assert found.runs == 20
    assert set(rule.seen) == {(single, UnitSums()), (UnitSums(), single)}


def test_a_unit_with_a_total_and_no_count_is_a_unit() -> None:
    rule = Recorder()
    replay_false_positives([0.0, 0.0], [3.0, -1.0], test=rule, runs=20, seed=2, share=0.5)
    assert {treatment.units for treatment, _ in rule.seen} == {0, 1, 2}


def test_history_without_units_shows_the_rule_two_empty_arms() -> None:
    rule = Recorder()
    found = replay_false_positives([], [], test=rule, runs=3, seed=0)
    assert rule.seen == [(UnitSums(), UnitSums())] * 3
    assert found.false_positives == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"runs": 0}, "runs: 0 is not"),
        ({"seed": -1}, "seed: -1 is not"),
        ({"share": 0.0}, "share: 0.0 is not"),
        ({"share": 1.0}, "share: 1.0 is not"),
        ({"n": [1.0]}, "s: .* is not one number for each of the units"),
        ({"n": [[1.0, 2.0]]}, "s: .* is not one number for each of the units"),
        ({"n": [1.0, -1.0]}, "n: -1.0 is not counts of at least 0"),
        ({"n": [1.0, np.inf]}, "n: inf is not numbers of size 1e\\+150 at most"),
        ({"s": [1.0, np.nan]}, "s: nan is not numbers of size"),
    ],
    ids=str,
)
def test_what_cannot_be_dealt_is_refused(changed: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"n": [1.0, 2.0], "s": [1.0, 2.0], "runs": 5, "seed": 0, **changed}
    with pytest.raises(InvalidInputError, match=message):
        replay_false_positives(test=Recorder(), **arguments)  # type: ignore[arg-type]  # some are wrong on purpose
