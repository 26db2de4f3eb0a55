"""Creating experiments, moving them through their statuses, changing their weights, and deleting them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from promptab import (
    ABTestManager,
    ExperimentStatus,
    InvalidInputError,
    Lab,
    NotFoundError,
    PromptExperiment,
    PromptVariant,
    StateError,
)
from tests.clock import SettableClock

AB = [PromptVariant("1.0.0", 0.5, "Control"), PromptVariant("1.1.0", 0.5, "Treatment")]


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def create(experiments: ABTestManager, name: str = "greeting", **fields: Any) -> PromptExperiment:
    return await experiments.create_experiment(name, "system", fields.pop("variants", AB), **fields)


async def reread(experiments: ABTestManager, experiment: PromptExperiment) -> PromptExperiment:
    found = await experiments.get_experiment(experiment.experiment_id)
    assert found is not None
    return found


async def test_create_runs_at_once_with_the_first_variant_as_control(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    created = await create(experiments, metadata={"owner": "product"}, created_by="Ada")
    assert (created.status, created.control, created.started_at) == (
        ExperimentStatus.RUNNING,
        "1.0.0",
        clock.now,
    )
    assert (created.metadata, created.created_by, created.winner) == ({"owner": "product"}, "Ada", None)
    assert created.variants == tuple(AB)
    assert await reread(experiments, created) == created


async def test_weights_are_relative(experiments: ABTestManager) -> None:
    created = await create(experiments, variants=[PromptVariant("1.0.0", 3), PromptVariant("1.1.0", 1)])
    assert created.traffic_split == {"1.0.0": 0.75, "1.1.0": 0.25}
    assert [variant.weight for variant in created.variants] == [3, 1]


async def test_traffic_split_goes_before_the_variants_own_weights(experiments: ABTestManager) -> None:
    created = await create(experiments, traffic_split={"1.1.0": 9, "1.0.0": 1})
    assert created.traffic_split == {"1.0.0": 0.1, "1.1.0": 0.9}


async def test_variants_may_be_given_as_mappings(experiments: ABTestManager) -> None:
    created = await create(
        experiments, variants=[{"version": "1.0.0"}, {"key": "warm", "config": {"temperature": 0.9}}]
    )
    assert [(v.key, v.version, v.config) for v in created.variants] == [
        ("1.0.0", "1.0.0", None),
        ("warm", None, {"temperature": 0.9}),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variants": AB[:1]}, "variants: 1 is not at least two variants"),
        ({"variants": []}, "variants: 0 is not at least two variants"),
        ({"variants": [AB[0], AB[0]]}, "variants: '1.0.0' is not used once"),
        ({"traffic_split": {"1.0.0": 1.0}}, "traffic_split: '1.1.0' is not given a weight"),
        ({"traffic_split": {"1.0.0": 1.0, "1.1.0": 0.0}}, "weights[1.1.0]: 0.0 is not"),
        (
            {"traffic_split": {"1.0.0": 1.0, "1.1.0": 1.0, "2.0.0": 1.0}},
            "traffic_split: '2.0.0' is not one of",
        ),
        ({"control": "3.0.0"}, "control: '3.0.0' is not one of the variants"),
        ({"overrides": {"ada": "3.0.0"}}, "overrides[ada]: '3.0.0' is not one of the variants"),
        ({"status": "paused"}, "status: 'paused' is not draft or running"),
        ({"traffic": 1.5}, "traffic: 1.5 is not"),
        ({"unit": "tenant"}, "unit: 'tenant' is not one of user"),
        ({"primary_metric": "my metric"}, "primary_metric: 'my metric' is not"),
    ],
)
async def test_create_refuses(experiments: ABTestManager, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        await create(experiments, **fields)
    assert message in str(refusal.value)
    assert await experiments.list_experiments() == []


async def test_create_refuses_a_condition_that_does_not_parse(experiments: ABTestManager) -> None:
    with pytest.raises(InvalidInputError, match="condition"):
        await create(experiments, where="plan == ")
    assert await experiments.list_experiments() == []


async def test_create_refuses_a_holdout_that_does_not_exist(experiments: ABTestManager) -> None:
    with pytest.raises(NotFoundError, match="no holdout 'global'; make it with set_holdout first"):
        await create(experiments, holdout="global")


async def test_start_requires_the_versions_of_a_prompt_that_exists(lab: Lab) -> None:
    await lab.versions.create_version("greeting", "system", "Hello.", "1.0.0")
    with pytest.raises(NotFoundError, match=r"no version 'system/greeting@1\.1\.0'; the prompt has 1\.0\.0"):
        await create(lab.experiments)
    assert await lab.experiments.list_experiments() == []
    draft = await create(lab.experiments, status="draft")
    with pytest.raises(NotFoundError):
        await lab.experiments.start(draft.experiment_id)
    assert await reread(lab.experiments, draft) == draft
    await lab.versions.create_version("greeting", "system", "Hi.", "1.1.0")
    assert (await lab.experiments.start(draft.experiment_id)).status is ExperimentStatus.RUNNING


async def test_an_experiment_may_name_a_prompt_apart_from_itself(lab: Lab) -> None:
    await lab.versions.create_version("greeting", "system", "Hello.", "1.0.0")
    with pytest.raises(NotFoundError):
        await create(lab.experiments, "Winter test: does it rhyme?", prompt_name="greeting")
    await lab.versions.create_version("greeting", "system", "Hi.", "1.1.0")
    created = await create(lab.experiments, "Winter test: does it rhyme?", prompt_name="greeting")
    assert await lab.experiments.get_experiment("Winter test: does it rhyme?") == created
    assert (await lab.choose("greeting", user_id="ada")).experiment_id == created.experiment_id


async def test_status_moves_keep_time_and_winner(experiments: ABTestManager, clock: SettableClock) -> None:
    draft = await create(experiments, status="draft")
    assert (draft.started_at, draft.ended_at) == (None, None)
    started = clock.advance(hours=1)
    assert (await experiments.start("greeting")).started_at == started
    clock.advance(hours=1)
    assert (await experiments.pause("greeting")).status is ExperimentStatus.PAUSED
    resumed = await experiments.resume("greeting")
    assert (resumed.status, resumed.started_at) == (ExperimentStatus.RUNNING, started)
    ended = clock.advance(hours=1)
    completed = await experiments.complete("greeting", winner="1.1.0")
    assert (completed.status, completed.ended_at, completed.winner) == (
        ExperimentStatus.COMPLETED,
        ended,
        "1.1.0",
    )
    assert await reread(experiments, draft) == completed


async def test_the_present_status_again_changes_nothing(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    created = await create(experiments)
    clock.advance(hours=1)
    assert await experiments.update_experiment_status(created.experiment_id, "running") == created
    stopped = await experiments.stop(created.experiment_id)
    clock.advance(hours=1)
    assert await experiments.stop(created.experiment_id) == stopped


@pytest.mark.parametrize("end", ["completed", "stopped"])
async def test_an_ended_experiment_stays_ended(experiments: ABTestManager, end: str) -> None:
    created = await create(experiments)
    ended = await experiments.update_experiment_status(created.experiment_id, end)
    for change in (
        experiments.start(created.experiment_id),
        experiments.pause(created.experiment_id),
        experiments.update_weights(created.experiment_id, {"1.0.0": 1, "1.1.0": 1}),
        experiments.update_traffic(created.experiment_id, 0.5),
    ):
        with pytest.raises(StateError, match=f"is {end}"):
            await change
    assert await reread(experiments, created) == ended


async def test_winner_is_a_variant_and_goes_with_completed(experiments: ABTestManager) -> None:
    created = await create(experiments)
    with pytest.raises(InvalidInputError, match=r"winner: '9\.9\.9' is not one of the variants"):
        await experiments.complete(created.experiment_id, winner="9.9.9")
    with pytest.raises(InvalidInputError, match="only completed has a winner"):
        await experiments.update_experiment_status(created.experiment_id, "stopped", winner="1.0.0")
    assert await reread(experiments, created) == created


async def test_update_weights_names_every_variant(experiments: ABTestManager) -> None:
    created = await create(experiments)
    with pytest.raises(InvalidInputError, match=r"weights: '1\.1\.0' is not among the weights"):
        await experiments.update_weights("greeting", {"1.0.0": 1})
    with pytest.raises(InvalidInputError, match=r"weights: '2\.0\.0' is not one of the variants"):
        await experiments.update_weights("greeting", {"1.0.0": 1, "1.1.0": 1, "2.0.0": 1})
    assert await reread(experiments, created) == created
    changed = await experiments.update_weights("greeting", {"1.1.0": 3, "1.0.0": 0})
    assert changed.traffic_split == {"1.0.0": 0.0, "1.1.0": 1.0}
    assert [variant.weight for variant in changed.variants] == [0.5, 0.5]


async def test_a_draft_takes_its_weights_along_when_it_starts(experiments: ABTestManager) -> None:
    await create(experiments, status="draft")
    await experiments.update_weights("greeting", {"1.0.0": 0, "1.1.0": 1})
    await experiments.start("greeting")
    assert {await experiments.get_variant_for_user("greeting", n) for n in range(30)} == {"1.1.0"}


async def test_scheduled_start_and_end_serve_by_the_clock(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    start, end = clock.now + timedelta(hours=1), clock.now + timedelta(hours=2)
    await create(experiments, starts_at=start, ends_at=end.replace(tzinfo=None))
    assert (await experiments.assign("greeting", "ada")).reason == "not_running"
    clock.advance(hours=1)
    assert (await experiments.assign("greeting", "ada")).reason == "allocated"
    clock.advance(seconds=3599)
    assert (await experiments.assign("greeting", "ada")).reason == "allocated"
    clock.advance(seconds=1)
    over = await experiments.assign("greeting", "ada")
    assert (over.variant, over.reason) == (None, "not_running")
    assert "ended on schedule" in over.detail


async def test_an_end_before_the_start_or_in_the_past_is_refused(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    later = clock.now + timedelta(hours=2)
    with pytest.raises(InvalidInputError, match="ends_at"):
        await create(experiments, starts_at=later, ends_at=later)
    with pytest.raises(InvalidInputError, match="ends_at"):
        await create(experiments, ends_at=clock.now)
    assert await experiments.list_experiments() == []


async def test_list_is_newest_first_and_filters(experiments: ABTestManager, clock: SettableClock) -> None:
    first = await create(experiments)
    clock.advance(seconds=1)
    second = await create(experiments, "other", status="draft")
    clock.advance(seconds=1)
    third = await experiments.create_experiment("greeting", "user", AB)
    assert await experiments.list_experiments() == [third, second, first]
    assert await experiments.list_experiments(name="greeting") == [third, first]
    assert await experiments.list_experiments(status="draft") == [second]
    assert await experiments.list_experiments(status=ExperimentStatus.RUNNING, prompt_type="user") == [third]


async def test_a_name_means_the_one_running_experiment(
    experiments: ABTestManager, clock: SettableClock
) -> None:
    first = await create(experiments)
    await experiments.stop("greeting")
    clock.advance(seconds=1)
    second = await create(experiments)
    clock.advance(seconds=1)
    await create(experiments, status="draft")
    assert (await experiments.get_experiment("greeting")) == second
    assert (await experiments.assign("greeting", "ada")).experiment_id == second.experiment_id
    assert (await experiments.assign(first.experiment_id, "ada")).reason == "not_running"


async def test_a_name_that_two_running_experiments_bear_is_an_error_that_lists_their_ids(
    experiments: ABTestManager,
) -> None:
    pair = [await create(experiments), await create(experiments)]
    for call in (
        experiments.get_variant_for_user("greeting", "ada"),
        experiments.get_experiment("greeting"),
        experiments.update_weights("greeting", {"1.0.0": 1, "1.1.0": 1}),
        experiments.stop("greeting"),
        experiments.get_variant_distribution("greeting"),
    ):
        with pytest.raises(StateError) as refusal:
            await call
        assert all(experiment.experiment_id in str(refusal.value) for experiment in pair)
    assert await experiments.get_experiment(pair[0].experiment_id) == pair[0]


async def test_reads_of_an_unknown_experiment_find_nothing_and_changes_are_refused(
    experiments: ABTestManager,
) -> None:
    unknown = str(uuid.uuid4())
    assert await experiments.get_experiment(unknown) is None
    assert await experiments.get_user_assignment(unknown, "ada") is None
    assert await experiments.get_experiment_assignments(unknown) == {}
    assert await experiments.get_variant_distribution(unknown) == {}
    assert await experiments.delete_experiment(unknown) is False
    for change in (
        experiments.assign(unknown, "ada"),
        experiments.get_variant_for_user(unknown, "ada"),
        experiments.get_random_variant(unknown),
        experiments.update_experiment_status(unknown, "stopped"),
        experiments.update_weights(unknown, {}),
        experiments.update_traffic(unknown, 0.5),
        experiments.set_override(unknown, "ada", "1.0.0"),
    ):
        with pytest.raises(NotFoundError, match=unknown):
            await change


async def test_delete_takes_the_assignments_along_and_leaves_the_events(lab: Lab) -> None:
    version = await lab.versions.create_version("greeting", "system", "Hello.", "1.0.0")
    await lab.versions.create_version("greeting", "system", "Hi.", "1.1.0")
    created = await create(lab.experiments)
    choice = await lab.choose("greeting", user_id="ada")
    await choice.record(success=True)
    assert await lab.experiments.delete_experiment("greeting") is True
    assert await lab.experiments.get_experiment(created.experiment_id) is None
    assert await lab.experiments.get_experiment_assignments(created.experiment_id) == {}
    served = choice.version
    assert served is not None
    assert (await lab.metrics.get_metrics(served.version_id)).total_events == 1
    assert await lab.versions.delete_version(version.version_id) is True


async def test_a_cap_is_frozen_from_what_was_recorded_before_the_start_also_where_that_is_queued(
    lab: Lab,
) -> None:
    first = await lab.versions.create_version("reply", "system", "x")
    await lab.versions.create_version("reply", "system", "y")
    for cost in range(1, 101):
        assert lab.metrics.record_nowait(first.version_id, True, cost=float(cost))
    begun = await lab.experiments.create_experiment(
        "reply",
        "system",
        [PromptVariant("1.0.0"), PromptVariant("1.0.1")],
        plan={"metrics": [{"name": "capped", "measure": "cost", "cap_percentile": 0.9}]},
    )
    assert begun.plan.metrics[0].cap == pytest.approx(90.0, abs=1.0)
