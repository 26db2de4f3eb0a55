"""Which units are in the shadow: a share of their own, sticky, and only more of them when it grows."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptab
from promptab import InvalidInputError, Lab, NotFoundError, PromptVariant, StateError
from promptab.allocation import enrolled, point_of
from promptab.experiment_rules import first_epoch
from promptab.live_experiment import LiveExperiment, build_live_experiment
from promptab.stores.base import Transaction
from tests.contract.records import NOON, an_experiment
from tests.shadows.conftest import experiment_with_shadow, in_shadow

UNITS = [f"u{number}" for number in range(4_000)]


def live(salt: str, *shares: float) -> LiveExperiment:
    """Return an experiment with a shadow that has been run on these shares, one after the other."""
    shadow = PromptVariant(key="c", config={}, shadow=0.5)
    experiment = an_experiment(
        salt=salt, shadows=(shadow,), shadow_history={"c": tuple((NOON, share) for share in shares)}
    )
    return build_live_experiment(experiment, [first_epoch(experiment, NOON)], None, {})


def shadowed(experiment: LiveExperiment) -> set[str]:
    (shadow,) = experiment.shadows
    return {unit for unit in UNITS if enrolled(point_of(shadow.seed, unit), shadow.share)}


@given(
    st.text("abcdef0123456789", min_size=1, max_size=32),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_a_larger_share_only_adds_units(salt: str, shares: list[float]) -> None:
    rising = sorted(shares)
    found = [shadowed(live(salt, *rising[: count + 1])) for count in range(len(rising))]
    assert all(fewer <= more for fewer, more in pairwise(found))


@given(st.text("abcdef0123456789", min_size=1, max_size=32), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_the_share_is_kept_and_has_nothing_to_do_with_the_variant_or_the_enrolment(
    salt: str, share: float
) -> None:
    experiment = live(salt, share)
    found = shadowed(experiment)
    # six standard errors of a share of independent units
    tolerance = 6 * (0.25 / len(UNITS)) ** 0.5
    assert abs(len(found) / len(UNITS) - share) <= tolerance
    for half in (
        {unit for unit in UNITS if experiment.plain_variant(unit).key == "a"},
        {unit for unit in UNITS if enrolled(point_of(experiment.enrolment_seed, unit), 0.5)},
    ):
        assert abs(len(found & half) / max(1, len(half)) - share) <= 1.5 * tolerance


async def test_a_unit_stays_in_the_shadow_and_a_larger_share_adds_to_it() -> None:
    async with promptab.open("sqlite:///:memory:") as lab:
        experiment = await experiment_with_shadow(lab, share=0.1, served=2)
        first = {choice.unit for choice, beside in await in_shadow(lab, 500) if beside}
        again = {choice.unit for choice, beside in await in_shadow(lab, 500) if beside}
        changed = await lab.experiments.update_shadow("reply", "candidate", 0.6)
        more = {choice.unit for choice, beside in await in_shadow(lab, 500) if beside}
        assert changed.shadow_share("candidate") == 0.6
        await lab.experiments.update_shadow(experiment.experiment_id, "candidate", 0.0)
        assert not any(beside for _, beside in await in_shadow(lab, 500))
    assert first == again
    assert first < more
    assert 20 < len(first) < 90
    assert 240 < len(more) < 360


async def test_a_shadow_is_given_to_nobody_and_takes_no_part_of_the_weights(lab: Lab) -> None:
    experiment = await experiment_with_shadow(lab, served=2)
    assert dict(experiment.traffic_split) == {"1.0.0": 0.5, "1.1.0": 0.5}
    assert [variant.key for variant in experiment.variants] == ["1.0.0", "1.1.0"]
    chosen = [choice for choice, _ in await in_shadow(lab, 300)]
    assert {choice.variant for choice in chosen} == {"1.0.0", "1.1.0"}
    await lab.experiments.update_weights("reply", {"1.0.0": 0.0, "1.1.0": 1.0}, evict=True)
    assert {choice.variant for choice, _ in await in_shadow(lab, 50)} == {"1.1.0"}
    for refused in (
        lab.experiments.set_override("reply", "u1", "candidate"),
        lab.experiments.update_weights("reply", {"1.0.0": 1.0, "1.1.0": 1.0, "candidate": 1.0}),
        lab.experiments.complete("reply", winner="candidate"),
        lab.metrics.record_event(None, True, experiment_id="reply", variant="candidate", user_id="u1"),
    ):
        with pytest.raises(InvalidInputError, match="candidate"):
            await refused


@pytest.mark.parametrize(
    ("variants", "named"),
    [
        ([PromptVariant("1.0.0", shadow=0.1), PromptVariant("2.0.0", shadow=0.1)], "served"),
        ([PromptVariant("1.0.0")], "two"),
        ([PromptVariant("1.0.0"), PromptVariant("1.0.0", shadow=0.1)], "used once"),
        ([PromptVariant("1.0.0"), PromptVariant("9.0.0", shadow=0.1)], "9.0.0"),
    ],
    ids=["nothing served", "one alone", "a key twice", "a version that is none"],
)
async def test_what_is_no_experiment_is_refused(lab: Lab, variants: list[PromptVariant], named: str) -> None:
    await experiment_with_shadow(lab)
    await lab.experiments.stop("reply")
    with pytest.raises((InvalidInputError, NotFoundError), match=named):
        await lab.experiments.create_experiment("reply", "system", variants)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan"), "0.1", True])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(InvalidInputError, match="shadow"):
        PromptVariant("1.0.0", shadow=share)  # type: ignore[arg-type]


def test_a_weight_beside_a_share_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="weight"):
        PromptVariant("1.0.0", 2.0, shadow=0.1)


async def test_a_control_or_a_split_that_names_a_shadow_is_refused(lab: Lab) -> None:
    experiment = await experiment_with_shadow(lab)
    await lab.experiments.stop("reply")
    variants = (*experiment.variants, *experiment.shadows)
    for wrong in ({"control": "candidate"}, {"traffic_split": {"1.0.0": 1, "candidate": 1}}):
        with pytest.raises(InvalidInputError, match="candidate"):
            await lab.experiments.create_experiment("reply", "system", variants, **wrong)


async def test_changing_a_share_is_refused_for_what_is_no_shadow_and_what_has_ended(lab: Lab) -> None:
    await experiment_with_shadow(lab)
    with pytest.raises(InvalidInputError, match="candidate"):
        await lab.experiments.update_shadow("reply", "1.0.0", 0.5)
    with pytest.raises(InvalidInputError, match="share"):
        await lab.experiments.update_shadow("reply", "candidate", 1.5)
    await lab.experiments.stop("reply")
    with pytest.raises(StateError, match="stopped"):
        await lab.experiments.update_shadow("reply", "candidate", 0.5)


async def test_the_share_of_a_draft_holds_from_its_start(lab: Lab) -> None:
    experiment = await experiment_with_shadow(lab, status="draft")
    await lab.experiments.update_shadow(experiment.experiment_id, "candidate", 0.25)
    started = await lab.experiments.start(experiment.experiment_id)
    assert started.started_at is not None
    assert dict(started.shadow_history) == {"candidate": ((started.started_at, 0.25),)}


async def test_only_units_that_the_experiment_dealt_have_shadows(lab: Lab) -> None:
    experiment = await experiment_with_shadow(lab, where="plan == 'pro'")
    pro, free = {"plan": "pro"}, {"plan": "free"}
    assert (await lab.choose("reply", user_id="u1", attributes=pro)).shadows
    assert not (await lab.choose("reply", user_id="u1", attributes=free)).shadows
    assert not (await lab.choose("reply", version="1.0.0")).shadows
    await lab.experiments.set_override(experiment.experiment_id, "u1", "1.0.0")
    assert not (await lab.choose("reply", user_id="u1", attributes=pro)).shadows
    await lab.experiments.pause(experiment.experiment_id)
    assert not (await lab.choose("reply", user_id="u2", attributes=pro)).shadows


async def test_a_version_in_the_shadow_is_kept_and_its_rollback_pauses_nothing(lab: Lab) -> None:
    await experiment_with_shadow(lab)
    candidate = await lab.versions.get_version("reply", "system", "2.0.0")
    assert candidate is not None
    with pytest.raises(StateError, match="variant of the running experiment"):
        await lab.versions.delete_version(candidate.version_id)
    first = await lab.versions.get_version("reply", "system", "1.0.0")
    assert first is not None
    await lab.versions.promote(first.version_id)
    await lab.versions.promote(candidate.version_id)
    await lab.versions.rollback("reply", "system")
    found = await lab.experiments.get_experiment("reply")
    assert found is not None
    assert found.status == "running"


async def test_a_shadow_that_cannot_run_is_logged_and_what_is_served_goes_on(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = await experiment_with_shadow(lab)

    async def break_it(tx: Transaction) -> None:
        gone = experiment.model_copy(
            update={"shadows": (PromptVariant("7.0.0", key="candidate", shadow=1.0),)}
        )
        await tx.experiments.replace(gone)

    await lab.store.write(break_it)
    with caplog.at_level(logging.WARNING, "promptab.shadows"):
        choice = await lab.choose("reply", user_id="u1")
    assert (choice.variant, choice.shadows) == ("1.0.0", ())
    assert "shadow candidate of experiment 'reply' is not run" in caplog.text


async def test_an_experiment_of_an_older_store_has_no_shadows(lab: Lab) -> None:
    experiment = an_experiment(created_at=datetime(2025, 1, 1, tzinfo=UTC))
    dumped = experiment.model_dump(mode="json", exclude={"shadows", "shadow_history"})
    for variant in dumped["variants"]:
        del variant["shadow"]
    assert type(experiment).model_validate(dumped) == experiment
