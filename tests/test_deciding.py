"""What is decided on an analysis, why, and that it is decided the same again."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.analysis.analyzing import analyze
from promptab.analysis.result import AnalysisResult
from promptab.decisions.deciding import decide, grounds_of_pause, redecide
from promptab.decisions.decision import Decision, DecisionState
from promptab.errors import InvalidInputError
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from tests.outcomes import NOON, START, Arms, declared, evidence_of, mirrored, rate, values

BETTER: dict[str, Any] = {"success_rate": {"a": {0: rate(1_500, 2_000)}, "b": {0: rate(1_800, 2_000)}}}
EQUAL: dict[str, Any] = {"success_rate": {"a": {0: rate(750, 1_000)}, "b": {0: rate(751, 1_000)}}}
WORSE: dict[str, Any] = {"success_rate": {"a": {0: rate(1_800, 2_000)}, "b": {0: rate(1_500, 2_000)}}}


def policy(**fields: Any) -> Policy:
    return Policy(**fields)


def decided(
    metrics: dict[str, Any],
    said: Policy | None = None,
    *,
    now: datetime = NOON,
    state: DecisionState | None = None,
    **how: Any,
) -> Decision:
    said = said or Policy()
    analysis = analyze(evidence_of(metrics, said, **how), policy=said)
    return decide(analysis, said, now, state or DecisionState(started_at=START))


def after(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def test_beside_shadows_alone_nothing_is_decided_until_the_longest_time_has_passed() -> None:
    """An experiment with one variant that is served, and so without one that could be promoted or rolled back."""
    alone = {"success_rate": {"a": {0: rate(1_500, 2_000)}}}
    said = policy(guardrails=["success_rate >= 0.9"], longest_hours=48)
    goes_on = decided(alone, said)
    assert (goes_on.action, goes_on.rule, goes_on.variants) == ("continue", "undecided", ())
    assert "a is the only variant that is served" in goes_on.sentence
    over = decided(alone, said, now=after(48))
    assert (over.action, over.rule) == ("stop", "deadline")
    assert over.inputs is not None
    assert redecide(over.inputs) == over


def test_a_variant_that_is_better_is_promoted() -> None:
    found = decided(BETTER)
    assert (found.action, found.rule, found.variants, found.consent) == ("promote", "won", ("b",), "none")
    assert found.sentence.startswith("Promote: b is 15.0 points better")
    assert found.numbers["value"] == pytest.approx(0.15)
    assert found.policy_digest == Policy().digest


@pytest.mark.parametrize(
    ("on_win", "action", "consent"),
    [
        ("promote", "promote", "none"),
        ("require_approval", "promote", "approval"),
        ("notify", "promote", "by_hand"),
        ("stop", "stop", "none"),
    ],
)
def test_the_policy_says_what_a_win_leads_to(on_win: str, action: str, consent: str) -> None:
    found = decided(BETTER, policy(on_win=on_win))
    assert (found.action, found.consent, found.variants, found.rule) == (action, consent, ("b",), "won")


def test_nothing_is_done_while_nothing_is_shown() -> None:
    found = decided(EQUAL)
    assert (found.action, found.rule, found.variants) == ("continue", "undecided", ())
    assert "cannot be told apart" in found.sentence


def test_a_variant_that_is_worse_ends_the_experiment() -> None:
    found = decided(WORSE)
    assert (found.action, found.rule) == ("stop", "worse")


def test_an_experiment_without_an_effect_that_is_worth_having_ends() -> None:
    many = {"success_rate": {"a": {0: rate(37_500, 50_000)}, "b": {0: rate(37_510, 50_000)}}}
    assert decided(many).rule == "undecided"
    found = decided(many, policy(smallest_effect=0.05))
    assert (found.action, found.rule, found.numbers["smallest_effect"]) == ("stop", "no_effect", 0.05)
    real_but_small = {"success_rate": {"a": {0: rate(37_500, 50_000)}, "b": {0: rate(38_000, 50_000)}}}
    assert decided(real_but_small, policy(smallest_effect=0.05)).rule == "no_effect"


def test_a_fall_that_is_worth_having_is_not_taken_for_none() -> None:
    cost: dict[str, Any] = {"cost": {"a": {0: values(0.5, 2_000)}, "b": {0: values(0.4, 2_000)}}}
    said = policy(smallest_effect=0.05, ramp=[0.1, 0.5])
    assert decided(cost, said, primary_metric="cost").action == "ramp"
    as_good: dict[str, Any] = {"cost": {"a": {0: values(0.5, 2_000)}, "b": {0: values(0.5, 2_000)}}}
    assert decided(as_good, said, primary_metric="cost").rule == "no_effect"


@pytest.mark.parametrize("metrics", [WORSE, EQUAL], ids=["worse", "no_effect"])
def test_nothing_is_stopped_for_its_results_before_it_has_the_units_that_it_needs(
    metrics: dict[str, Any],
) -> None:
    said = policy(smallest_effect=0.3)
    assert decided(metrics, said).action == "stop"
    assert decided(metrics, said, plan=AnalysisPlan(minimum_units=5_000)).action == "continue"


def test_a_failed_guardrail_comes_before_a_win() -> None:
    cost: Arms = {"a": {0: values(0.4, 2_000)}, "b": {0: values(0.6, 2_000)}}
    said = policy(guardrails=["cost <= 0.5"])
    found = decided(BETTER | {"cost": cost}, said)
    assert (found.action, found.rule, found.variants) == ("rollback", "guardrail", ("b",))
    assert found.sentence.startswith("Rollback: cost <= 0.5: b has failed it; it has 0.6 over 2000 units")
    assert found.numbers["alpha"] == 0.05
    paused = decided(BETTER | {"cost": cost}, policy(guardrails=["cost <= 0.5"], on_failed_guardrail="pause"))
    assert (paused.action, paused.rule) == ("pause", "guardrail")


def test_nothing_is_promoted_before_its_guardrails_are_shown_to_be_kept() -> None:
    cost: Arms = {"a": {0: values(0.4, 2_000)}, "b": {0: values(0.5, 2_000, spread=0.4)}}
    found = decided(BETTER | {"cost": cost}, policy(guardrails=["cost <= 0.505"]))
    assert (found.action, found.rule) == ("continue", "undecided")
    assert "b is ahead, but cost <= 0.505: b is not shown to keep it or to have failed it" in found.sentence


def test_a_secondary_metric_that_is_worse_is_named_beside_the_winner() -> None:
    tokens: Arms = {"a": {0: values(100.0, 2_000, spread=9.0)}, "b": {0: values(150.0, 2_000, spread=9.0)}}
    found = decided(BETTER | {"tokens": tokens})
    assert found.action == "promote"
    assert found.sentence.endswith("; it is worse on tokens")


def test_a_mismatch_comes_before_everything_else() -> None:
    crooked: dict[str, Any] = {"success_rate": {"a": {0: rate(1_500, 2_000)}, "b": {0: rate(100, 1_500)}}}
    guarded = {"guardrails": ["success_rate >= 0.8"]}
    found = decided(crooked, policy(**guarded))
    assert (found.action, found.rule) == ("pause", "mismatch")
    assert "sample_ratio_p_value" in found.numbers
    # told only: an absolute guardrail is as right as it was
    assert decided(crooked, policy(**guarded, on_mismatch="notify")).rule == "guardrail"
    told = decided(
        {"success_rate": {"a": {0: rate(1_500, 2_000)}, "b": {0: rate(1_400, 1_500)}}},
        policy(on_mismatch="notify", ramp=[0.1, 0.5]),
    )
    assert (told.action, told.rule) == ("continue", "mismatch")


def test_outcomes_that_are_lost_unevenly_are_a_mismatch() -> None:
    found = decided(BETTER, missing={"a": 0, "b": 700}, weights={0: {"a": 0.4, "b": 0.6}})
    assert (found.action, found.rule) == ("pause", "mismatch")


def test_a_paused_experiment_neither_grows_nor_wins_but_still_rolls_back_and_ends() -> None:
    state = DecisionState(started_at=START, paused=True)
    said = policy(ramp=[0.1, 0.5], longest_hours=72)
    assert decided(BETTER, said, state=state).rule == "paused"
    assert decided(EQUAL, said, state=state).rule == "paused"
    assert decided(BETTER, state=state).rule == "paused"
    assert decided(WORSE, policy(guardrails=["success_rate >= 0.8"]), state=state).action == "rollback"
    assert decided(EQUAL, said, state=state, now=after(72)).rule == "deadline"
    # whoever paused it has the last word on what has won
    assert decided(BETTER, policy(longest_hours=72), state=state, now=after(72)).action == "stop"


def test_a_rolled_back_variant_is_out_and_the_others_go_on() -> None:
    three: dict[str, Any] = {
        "success_rate": {
            "a": {0: rate(1_500, 2_000)},
            "b": {0: rate(1_000, 2_000)},
            "c": {0: rate(1_800, 2_000)},
        }
    }
    said = policy(guardrails=["success_rate >= 0.7"])
    first = decided(three, said)
    assert (first.action, first.variants) == ("rollback", ("b",))
    second = decided(three, said, state=DecisionState(started_at=START, withdrawn=("b",)))
    assert (second.action, second.variants) == ("promote", ("c",))
    last = decided(three, said, state=DecisionState(started_at=START, withdrawn=("b", "c")))
    assert (last.action, last.rule) == ("stop", "all_withdrawn")


def test_a_withdrawn_variant_cannot_win() -> None:
    three: dict[str, Any] = {
        "success_rate": {
            "a": {0: rate(1_500, 2_000)},
            "b": {0: rate(1_900, 2_000)},
            "c": {0: rate(1_800, 2_000)},
        }
    }
    assert decided(three).variants == ("b",)
    assert decided(three, state=DecisionState(started_at=START, withdrawn=("b",))).variants == ("c",)


RAMP = [{"traffic": 0.1, "minimum_units": 500, "minimum_hours": 24}, {"traffic": 0.4, "minimum_units": 400}]


def test_traffic_grows_when_a_step_has_lasted_and_nothing_speaks_against_it() -> None:
    found = decided(EQUAL, policy(ramp=RAMP))
    assert (found.action, found.rule, found.step, found.traffic) == ("ramp", "ramp", 1, 0.4)
    assert found.numbers == {"traffic": 0.1, "units": 1_000, "hours": 36.0}


@pytest.mark.parametrize(
    ("state", "lacking"),
    [
        (DecisionState(started_at=after(20)), "16 of 24 hours"),
        (DecisionState(started_at=START, step_units={"a": 600, "b": 400}), "400 of 500 units"),
        (DecisionState(started_at=START, step_since=after(30)), "6 of 24 hours"),
    ],
    ids=["time", "units", "time_of_the_step"],
)
def test_a_step_lasts_until_it_has_its_time_and_its_units(state: DecisionState, lacking: str) -> None:
    found = decided(EQUAL, policy(ramp=RAMP), state=state)
    assert (found.action, found.rule) == ("continue", "undecided")
    assert lacking in found.sentence


def test_a_winner_waits_for_the_last_step_of_the_ramp() -> None:
    assert decided(BETTER, policy(ramp=RAMP)).action == "ramp"
    last = DecisionState(started_at=START, step=1, step_units={"a": 1_000, "b": 1_000})
    assert decided(BETTER, policy(ramp=RAMP), state=last).action == "promote"
    short = DecisionState(started_at=START, step=1, step_units={"a": 1_900, "b": 1_900})
    found = decided(BETTER, policy(ramp=RAMP), state=short)
    assert (found.action, "100 of 400 units" in found.sentence) == ("continue", True)


@pytest.mark.parametrize(
    ("fields", "how", "lacking"),
    [
        ({"shortest_hours": 48}, {}, "it is to run for 48 hours"),
        ({"minimum_events": 3_000}, {}, "2000 of 3000 events of each variant"),
        ({}, {"unit": "user"}, "the analysis is approximate"),
        ({}, {"plan": AnalysisPlan(minimum_units=5_000)}, "of the 5000 units"),
    ],
    ids=["time", "events", "approximate", "units"],
)
def test_a_winner_waits_for_what_the_policy_and_the_plan_ask(
    fields: dict[str, Any], how: dict[str, Any], lacking: str
) -> None:
    found = decided(BETTER, policy(**fields), **how)
    assert (found.action, found.rule) == ("continue", "undecided")
    assert lacking in found.sentence


def test_an_approximate_analysis_may_be_allowed_by_name() -> None:
    assert decided(BETTER, policy(allow_approximate=True), unit="user").action == "promote"


def test_before_the_shortest_time_nothing_is_stopped_for_its_results() -> None:
    assert decided(WORSE, policy(shortest_hours=48)).action == "continue"
    assert decided(WORSE, policy(shortest_hours=48), now=after(48)).rule == "worse"


def test_after_the_longest_duration_it_ends_inconclusive() -> None:
    assert decided(EQUAL, policy(longest_hours=37)).action == "continue"
    found = decided(EQUAL, policy(longest_hours=36))
    assert (found.action, found.rule) == ("stop", "deadline")
    assert found.sentence.startswith("The longest duration, 36 hours, has passed without a winner: ")
    assert decided(BETTER, policy(longest_hours=36)).action == "promote"
    assert decided(BETTER, policy(longest_hours=36, on_win="notify")).action == "stop"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method": "fixed"}, "analysis.method"),
        ({"confidence": 0.9}, "analysis.confidence"),
        ({"guards": ()}, "policy.guardrails"),
        ({"primary_metric": "cost"}, "policy.primary_metric"),
    ],
)
def test_an_analysis_that_was_not_made_for_the_policy_is_refused(change: dict[str, Any], field: str) -> None:
    said = policy(primary_metric="success_rate", guardrails=["success_rate >= 0.5"])
    analysis = analyze(evidence_of(BETTER, said), policy=said)
    with pytest.raises(InvalidInputError) as refused:
        decide(analysis.model_copy(update=change), said, NOON, DecisionState(started_at=START))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("state", "field"),
    [
        (DecisionState(started_at=after(1_000)), "now"),
        (DecisionState(started_at=START, step=2), "state.step"),
        (DecisionState(started_at=START, withdrawn=("z",)), "state.withdrawn"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: DecisionState, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        decided(EQUAL, policy(ramp=[0.1, 0.5]), state=state)
    assert refused.value.field == field


arms = st.tuples(st.sampled_from([0, 30, 200, 400, 400]), st.sampled_from([0.0, 0.55, 0.7, 0.9])).map(
    lambda arm: rate(round(arm[0] * arm[1]), arm[0])
)
costs = st.tuples(st.sampled_from([0, 60, 200, 800]), st.sampled_from([0.3, 0.4, 0.6])).map(
    lambda arm: values(arm[1], arm[0])
)
states = st.builds(
    DecisionState,
    started_at=st.just(START),
    step=st.integers(0, 1),
    paused=st.sampled_from([False, False, True]),
    withdrawn=st.sampled_from([(), (), ("b",), ("b", "c")]),
    step_units=st.sampled_from([{}, {"a": 10, "b": 10, "c": 10}]),
    resting=st.sampled_from([(), (), ("b",), ("b", "c")]),
    in_production=st.sampled_from([(), (), ("b",)]),
)
policies = st.builds(
    policy,
    guardrails=st.sampled_from(
        [
            (),
            ("success_rate >= 0.6",),
            ("cost <= 0.5", "success_rate >= control - 5%"),
            ("cost <= control + 10%",),
        ]
    ),
    ramp=st.sampled_from([(), (0.2, 1.0)]),
    smallest_effect=st.sampled_from([None, 0.05]),
    longest_hours=st.sampled_from([None, 24.0, 100.0]),
    shortest_hours=st.sampled_from([0.0, 20.0]),
    on_win=st.sampled_from(["promote", "notify", "require_approval", "stop"]),
    on_failed_guardrail=st.sampled_from(["rollback", "pause"]),
    on_mismatch=st.sampled_from(["pause", "notify"]),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[AnalysisResult, Policy, datetime, DecisionState]:
    said = draw(policies)
    rates = {key: draw(arms) for key in "abc"}
    metrics: dict[str, Any] = {
        "success_rate": {key: {0: rates[key]} for key in "abc"},
        "cost": {key: {0: draw(costs)} for key in "abc"},
    }
    total = sum(sums.units for sums in rates.values())
    # mostly dealt as the weights say: chance alone would make nearly every dealing a mismatch
    fair = total > 0 and draw(st.sampled_from([True, True, True, False]))
    weights = {0: {key: rates[key].units / total for key in "abc"}} if fair else None
    analysis = analyze(evidence_of(metrics, said, weights=weights), policy=said)
    return analysis, said, after(draw(st.sampled_from([1.0, 24.0, 99.0, 100.0]))), draw(states)


@settings(max_examples=80, deadline=None)
@given(situations())
def test_a_decision_that_was_stored_is_made_again(
    situation: tuple[AnalysisResult, Policy, datetime, DecisionState],
) -> None:
    found = decide(*situation)
    stored = json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))
    assert Decision.model_validate(stored) == found
    assert redecide(stored["inputs"]) == found
    assert decide(*situation) == found


@settings(max_examples=80, deadline=None)
@given(situations())
def test_nothing_is_promoted_past_a_gate_a_guardrail_or_a_pause(
    situation: tuple[AnalysisResult, Policy, datetime, DecisionState],
) -> None:
    analysis, said, _, state = situation
    found = decide(*situation)
    if found.rule not in {"won", "ramp"}:
        return
    assert not (state.paused and found.action in {"promote", "ramp"})
    failing = {check.name for check in analysis.checks if not check.passed and not check.variants}
    assert not failing & {"sample_ratio", "missing_outcomes", "switched_units"}
    for variant in found.variants:
        assert variant not in {*state.withdrawn, *state.resting}
        assert not any(variant in check.variants for check in analysis.checks)
        assert all(
            guard.verdict == "pass" or not guard.needed
            for guard in analysis.guards
            if guard.variant == variant
        )
        assert analysis.metrics["success_rate"].differences[variant].verdict == "better"
    out = {analysis.control, *state.withdrawn}
    assert not any(guard.verdict == "fail" for guard in analysis.guards if guard.variant not in out)
    assert found.rule == "won" or said.ramp


@settings(max_examples=80, deadline=None)
@given(situations())
def test_a_passed_deadline_ends_it(situation: tuple[AnalysisResult, Policy, datetime, DecisionState]) -> None:
    analysis, said, now, state = situation
    if said.longest_hours is None or now < after(said.longest_hours):
        now = after(100.0)
        said = said.model_copy(update={"longest_hours": 100.0})
    assert decide(analysis, said, now, state).action in {"promote", "rollback", "stop"}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 40, 300, 2_000]), st.floats(1.0, 2.0)), min_size=3, max_size=3),
    st.sampled_from([None, 0.05]),
    st.sampled_from([None, 24.0]),
)
def test_a_metric_that_is_to_fall_is_decided_on_as_one_that_is_to_rise(
    given_arms: list[tuple[int, float]], smallest_effect: float | None, longest_hours: float | None
) -> None:
    up: dict[str, Any] = {
        name: {
            key: {0: values(mean + shift, count)}
            for key, (count, mean) in zip("abc", given_arms, strict=True)
        }
        for name, shift in (("score", 0.0), ("other", 0.3))
    }
    decisions = []
    for direction, metrics in (("increase", up), ("decrease", mirrored(up))):
        sign = 1.0 if direction == "increase" else -1.0
        bound = {"at_least" if sign > 0.0 else "at_most": sign * 1.5}
        said = policy(
            guardrails=[
                {"metric": "other", **bound},
                {"metric": "other", "largest_regression": 0.1, "relative": False, "direction": direction},
            ],
            smallest_effect=smallest_effect,
            longest_hours=longest_hours,
        )
        plan = AnalysisPlan(
            minimum_units=2, metrics=(declared("score", direction), declared("other", direction))
        )
        decisions.append(decided(metrics, said, primary_metric="score", plan=plan))
    rising, falling = decisions
    assert (rising.action, rising.rule, rising.variants) == (falling.action, falling.rule, falling.variants)


def test_what_a_withdrawn_variant_lacks_holds_nothing_up() -> None:
    arms = {"a": {0: rate(1_800, 2_000)}, "b": {0: rate(1_500, 2_000)}, "c": {0: rate(10, 20)}}
    shares = {0: {"a": 2_000 / 4_020, "b": 2_000 / 4_020, "c": 20 / 4_020}}
    needs = AnalysisPlan(minimum_units=100)
    metrics: dict[str, Any] = {"success_rate": arms}
    assert decided(metrics, plan=needs, weights=shares).action == "continue"
    state = DecisionState(started_at=START, withdrawn=("c",))
    assert decided(metrics, plan=needs, weights=shares, state=state).rule == "worse"


def test_units_that_were_exposed_before_a_step_are_never_less_than_none_of_it() -> None:
    said = policy(ramp=[{"traffic": 0.1, "minimum_units": 50}, 0.5])
    state = DecisionState(started_at=START, step_units={"a": 1_500, "b": 1_500})
    found = decided(EQUAL, said, state=state)
    assert found.action == "continue"
    assert "has 0 of 50 units" in found.sentence


def test_a_ramp_that_says_no_more_than_its_traffic_does_not_grow_before_a_hundred_units_were_exposed() -> (
    None
):
    said = policy(ramp=[0.1, 1.0])
    few = decided({"success_rate": {"a": {0: rate(70, 100)}, "b": {0: rate(70, 99)}}}, said)
    assert (few.action, few.rule) == ("continue", "undecided")
    assert "99 of 100 units" in few.sentence
    assert (
        decided({"success_rate": {"a": {0: rate(70, 100)}, "b": {0: rate(70, 100)}}}, said).action == "ramp"
    )


THREE: dict[str, Any] = {
    "success_rate": {"a": {0: rate(1_500, 2_000)}, "b": {0: rate(1_800, 2_000)}, "c": {0: rate(1_510, 2_000)}}
}


def test_a_variant_that_gets_no_new_units_by_a_persons_will_is_not_promoted_and_it_is_said() -> None:
    resting = DecisionState(started_at=START, resting=("b",))
    found = decided(THREE, state=resting)
    assert (found.action, found.rule) == ("continue", "undecided")
    assert "No variant is shown to be better than a: c" in found.sentence
    assert "b is ahead of a, but not promoted while its weight is 0" in found.sentence
    assert found.inputs is not None
    assert redecide(found.inputs) == found
    assert decided(THREE).variants == ("b",)
    over = decided(THREE, policy(longest_hours=24), now=after(24), state=resting)
    assert (over.action, over.rule) == ("stop", "deadline")
    assert "b is ahead of a, but not promoted" in over.sentence


def test_of_several_that_are_better_one_that_gets_new_units_wins_over_one_that_does_not() -> None:
    metrics: dict[str, Any] = {"success_rate": THREE["success_rate"] | {"c": {0: rate(1_700, 2_000)}}}
    assert decided(metrics).variants == ("b",)
    found = decided(metrics, state=DecisionState(started_at=START, resting=("b",)))
    assert (found.action, found.variants) == ("promote", ("c",))
    assert "b is ahead of a, but not promoted while its weight is 0" in found.sentence


def test_where_no_candidate_gets_new_units_nothing_is_promoted_and_guardrails_are_watched() -> None:
    resting = DecisionState(started_at=START, resting=("b",))
    found = decided(BETTER, state=resting)
    assert (found.action, found.rule) == ("continue", "undecided")
    assert "Nothing is promoted: b is ahead of a" in found.sentence
    told = decided(EQUAL, state=resting).sentence
    assert "Nothing is promoted: b gets no new units, as its weight is 0" in told
    failed = decided(BETTER, policy(guardrails=["success_rate >= 0.95"]), state=resting)
    assert (failed.action, failed.variants) == ("rollback", ("b",))


def test_what_is_worse_in_production_is_rolled_back_and_not_left_there() -> None:
    live = DecisionState(started_at=START, in_production=("b",))
    found = decided(WORSE, state=live)
    assert (found.action, found.rule, found.variants) == ("rollback", "worse", ("b",))
    assert found.sentence.startswith("Rollback: b is 15.0 points worse")
    assert found.sentence.endswith("and live in production")
    assert found.inputs is not None
    assert redecide(found.inputs) == found
    assert decided(EQUAL, state=live).action == "continue"
    # the stop of what is not in production waits for these, and a rollback does not
    assert decided(WORSE, policy(shortest_hours=48), now=after(1), state=live).action == "rollback"
    assert decided(WORSE, plan=AnalysisPlan(minimum_units=5_000), state=live).action == "rollback"


def test_the_others_go_on_when_what_is_in_production_is_rolled_back_for_being_worse() -> None:
    metrics: dict[str, Any] = {"success_rate": WORSE["success_rate"] | {"c": {0: rate(1_800, 2_000)}}}
    assert decided(metrics).action == "continue"
    found = decided(metrics, state=DecisionState(started_at=START, in_production=("b",)))
    assert (found.action, found.variants) == ("rollback", ("b",))
    both = DecisionState(started_at=START, in_production=("b", "c"))
    assert decided(metrics, state=both).action == "continue", "c serves the same version, and is not worse"


def test_a_policy_that_pauses_does_so_once_for_what_is_worse_in_production() -> None:
    said = policy(on_failed_guardrail="pause", longest_hours=48)
    live = DecisionState(started_at=START, in_production=("b",))
    found = decided(WORSE, said, now=after(1), state=live)
    assert (found.action, found.rule, found.variants) == ("pause", "worse", ("b",))
    assert found.inputs is not None
    analysis = AnalysisResult.model_validate(found.inputs.analysis)
    grounds = tuple(grounds_of_pause(analysis, found))
    let_go_on = live.model_copy(update={"paused_for": grounds})
    assert decided(WORSE, said, now=after(1), state=let_go_on).action == "stop"
    over = decided(WORSE, said, now=after(48), state=let_go_on)
    assert (over.action, over.rule) == ("stop", "worse")


def test_what_is_in_production_is_not_rolled_back_on_numbers_that_are_doubted() -> None:
    live = DecisionState(started_at=START, in_production=("b",))
    crooked = {0: {"a": 0.9, "b": 0.1}}
    said = policy(on_mismatch="notify")
    assert decided(WORSE, said, weights=crooked, state=live).action == "continue"


def test_a_ratio_over_small_amounts_is_not_taken_for_one_that_nothing_carries() -> None:
    per_cost = MetricDefinition(name="per_cost", kind="ratio", measure="score", denominator="cost")
    plan = AnalysisPlan(minimum_units=2, metrics=(per_cost,))
    small = UnitSums.of([(0.0001, 0.3)] * 1_000)
    metrics: dict[str, Any] = EQUAL | {"per_cost": {key: {0: small} for key in "ab"}}
    assert "per_cost" not in decided(metrics, plan=plan).sentence
    assert "none of 2000 units carries per_cost" in decided(EQUAL, plan=plan).sentence
