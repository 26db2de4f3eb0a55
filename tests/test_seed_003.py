"""Seed 003 walked through in its order, on the default store that managers made without arguments share.

The snippets themselves are in `tests/seed_003.py`. What the seed's prose presumes is supplied here:

- `PROMPTAB_URL` names a fresh file, and `prompts/` a folder with one prompt;
- the LLM and the prompt builder are left out, and a seeded generator stands for users and model;
- `new_feature` has a version 2.0.0 (`v_new`), with events of its own to be judged by;
- `greeting_premium` has 1.0.0 and 1.1.0, `greeting_free` has 1.0.0 and 1.2.0;
- `asyncio.sleep` does not wait but moves a clock on, which stands for `datetime.utcnow` (deprecated since
  Python 3.12);
- `ab`, which `safe_rollback` reads from its module, is an argument.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from promptab import (
    ABTestManager,
    FileSystemPromptLibrary,
    MetricsCollector,
    PromptVersion,
    VersionManager,
    VersionStatus,
)
from tests.seed_003 import (
    Managers,
    PassingTime,
    RealTimeMetricsMonitor,
    analyzing_results,
    check_statistical_significance,
    creating_versions,
    deploying_the_winner,
    gradual_rollout,
    new_feature_under_test,
    running_the_experiment,
    safe_rollback,
    segment_based_testing,
    simple_ab_test,
    status_lifecycle,
    three_way_split,
    version_history,
)


@pytest.fixture
def managers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Managers:
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{tmp_path / 'promptab.db'}")
    return Managers(VersionManager(), ABTestManager(), MetricsCollector())


@pytest.fixture
def passing_time(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    passing = PassingTime()
    monkeypatch.setattr(asyncio, "sleep", passing.sleep)
    return passing


# --- Basic version management ---------------------------------------------------------------------------


async def test_creating_versions_numbers_them_and_names_the_parent(managers: Managers) -> None:
    v1, v2 = await creating_versions(managers.vm)
    assert (v1.version, v1.parent_version) == ("1.0.0", None)
    assert (v2.version, v2.parent_version) == ("1.0.1", v1.version_id)


async def test_version_history_is_listed_newest_first(managers: Managers) -> None:
    v1, v2 = await creating_versions(managers.vm)
    assert await version_history(managers.vm) == [v2, v1]


async def test_status_lifecycle_ends_with_the_draft_in_production(managers: Managers) -> None:
    await creating_versions(managers.vm)
    versions = await version_history(managers.vm)
    draft = await status_lifecycle(managers.vm, versions)
    stored = await managers.vm.get_version_by_id(draft.version_id)
    assert stored is not None
    assert (stored.version, stored.status, stored.tags) == (
        "1.0.0",
        VersionStatus.PRODUCTION,
        ("production",),
    )
    old = await managers.vm.get_version_by_id(versions[-2].version_id)
    assert old is not None
    assert old.status is VersionStatus.DEPRECATED


# --- A/B testing ----------------------------------------------------------------------------------------


async def test_running_the_experiment_shows_each_user_one_of_the_two_texts(managers: Managers) -> None:
    greeting = await simple_ab_test(managers)
    shown = await running_the_experiment(managers, greeting.exp, random.Random(1))
    again = {user: await managers.ab.get_variant_for_user("greeting", user) for user in shown}
    texts = {"1.0.0": "Hello {}!", "1.0.1": "Hi {}, welcome to our service!"}
    assert shown == {user: texts[str(version)].format(user) for user, version in again.items()}


async def test_analyzing_results_adds_up_every_event(managers: Managers) -> None:
    greeting = await simple_ab_test(managers)
    await running_the_experiment(managers, greeting.exp, random.Random(1))
    comparison = await analyzing_results(managers.mc, greeting.v1, greeting.v2)
    assert sum(metrics.total_events for metrics in comparison.values()) == 5
    assert all(3.0 <= metrics.avg_rating <= 5.0 for metrics in comparison.values() if metrics.total_events)


@pytest.mark.parametrize("better", ["1.0.0", "1.0.1"])
async def test_deploying_the_winner_puts_it_alone_into_production(managers: Managers, better: str) -> None:
    greeting = await simple_ab_test(managers)
    for version in (greeting.v1, greeting.v2):
        await managers.mc.record_event(version_id=version.version_id, success=version.version == better)
    winner = await deploying_the_winner(managers, greeting)
    assert winner.version == better
    in_production = await managers.vm.list_versions("greeting", "system", status=VersionStatus.PRODUCTION)
    assert [(version.version, version.tags) for version in in_production] == [(better, ("production",))]


# --- Multi-variant testing ------------------------------------------------------------------------------


async def test_three_way_split_names_the_version_that_succeeds_most(managers: Managers) -> None:
    (v1, v2, v3), exp = await three_way_split(managers)
    assert exp.traffic_split == {"1.0.0": 0.33, "1.0.1": 0.33, "1.0.2": 0.34}
    for version, successes in ((v1, 1), (v2, 3), (v3, 2)):
        for attempt in range(4):
            await managers.mc.record_event(version_id=version.version_id, success=attempt < successes)
    top_versions = await managers.mc.get_top_versions(
        version_ids=[v1.version_id, v2.version_id, v3.version_id], metric="success_rate", limit=1
    )
    winner_id, winner_metrics = top_versions[0]
    print(f"Winner: {winner_id} with {winner_metrics.success_rate:.2%} success rate")
    assert (len(top_versions), winner_id, winner_metrics.success_rate) == (1, v2.version_id, 0.75)


# --- Advanced patterns ----------------------------------------------------------------------------------


async def test_gradual_rollout_ends_in_production_when_the_new_version_performs(
    managers: Managers, passing_time: PassingTime
) -> None:
    v_new = await new_feature_under_test(managers)
    for _ in range(20):
        await managers.mc.record_event(version_id=v_new.version_id, success=True)
    phases = await gradual_rollout(managers, v_new)
    assert passing_time.slept == [7 * 24 * 3600]
    assert [phase.metadata["phase"] for phase in phases] == ["1", "2"]
    live = await managers.vm.get_version("new_feature", "system", "production")
    assert live is not None
    assert live.version_id == v_new.version_id


async def test_gradual_rollout_stops_when_the_new_version_underperforms(
    managers: Managers, passing_time: PassingTime
) -> None:
    v_new = await new_feature_under_test(managers)
    for attempt in range(20):
        await managers.mc.record_event(version_id=v_new.version_id, success=attempt > 1)
    (phase1,) = await gradual_rollout(managers, v_new)
    assert passing_time.slept
    stopped = await managers.ab.get_experiment(phase1.experiment_id)
    assert stopped is not None
    assert stopped.status == "stopped"
    assert await managers.vm.get_version("new_feature", "system", "production") is None


@pytest.mark.parametrize(
    ("user_id", "versions"),
    [("premium_7", {"1.0.0", "1.1.0"}), ("visitor_7", {"1.0.0", "1.2.0"})],
    ids=["premium", "free"],
)
async def test_segments_are_served_by_experiments_of_their_own(
    managers: Managers, user_id: str, versions: set[str]
) -> None:
    assert await segment_based_testing(managers, user_id) in versions


async def test_monitor_alerts_at_every_check_of_a_version_below_the_threshold(
    managers: Managers, passing_time: PassingTime
) -> None:
    v1, v2, _ = await simple_ab_test(managers)
    for attempt in range(3):
        await managers.mc.record_event(version_id=v1.version_id, success=True, response_time=0.2)
        await managers.mc.record_event(version_id=v2.version_id, success=attempt == 0, response_time=0.2)
    monitor = RealTimeMetricsMonitor(managers.mc, passing_time)
    alerts = await monitor.monitor_experiment(
        version_ids=[v1.version_id, v2.version_id], duration_hours=24, check_interval_minutes=30
    )
    assert [alert["version_id"] for alert in alerts] == [v2.version_id] * 48
    assert alerts[0]["message"].endswith("33.33%")


@pytest.mark.parametrize(("successes", "significant"), [(30, True), (12, False)])
async def test_statistical_significance_is_worked_out_from_the_metrics(
    managers: Managers, successes: int, *, significant: bool
) -> None:
    v1, v2, _ = await simple_ab_test(managers)
    for attempt in range(40):
        await managers.mc.record_event(version_id=v1.version_id, success=attempt < 10)
        await managers.mc.record_event(version_id=v2.version_id, success=attempt < successes)
    result = await check_statistical_significance(managers.mc, v1.version_id, v2.version_id)
    assert (bool(result["significant"]), result["winner"]) == (significant, "B")


# --- Rollback workflow ----------------------------------------------------------------------------------


async def record_outcomes(mc: MetricsCollector, version: PromptVersion, successes: int, total: int) -> None:
    await asyncio.gather(
        *(
            mc.record_event(version_id=version.version_id, success=attempt < successes)
            for attempt in range(total)
        )
    )


@pytest.mark.parametrize(
    ("successes", "total", "live"),
    [(60, 120, "1.0.0"), (119, 120, "2.0.0"), (10, 50, "2.0.0")],
    ids=["failing", "well", "few-events"],
)
async def test_safe_rollback_returns_to_the_parent_only_when_the_version_is_failing(
    managers: Managers, passing_time: PassingTime, successes: int, total: int, live: str
) -> None:
    vm, ab, mc = managers
    v_new = await new_feature_under_test(managers)
    (exp,) = await gradual_rollout(managers, v_new)
    await vm.tag_version(v_new.version_id, "production")
    await record_outcomes(mc, v_new, successes, total)
    rolled_back = await safe_rollback(vm, mc, v_new.version_id, exp.experiment_id, ab=ab)
    assert (None if rolled_back is None else rolled_back.version) == (None if live == "2.0.0" else live)
    in_production = await vm.list_versions("new_feature", "system", status=VersionStatus.PRODUCTION)
    assert [(version.version, version.tags) for version in in_production] == [(live, ("production",))]
    assert passing_time.slept


async def test_safe_rollback_does_nothing_when_there_is_no_parent(managers: Managers) -> None:
    vm, ab, mc = managers
    v1, _, exp = await simple_ab_test(managers)
    await vm.tag_version(v1.version_id, "production")
    await record_outcomes(mc, v1, 10, 120)
    assert await safe_rollback(vm, mc, v1.version_id, exp.experiment_id, ab=ab) is None
    live = await vm.get_version("greeting", "system", "production")
    assert live is not None
    assert live.version_id == v1.version_id


# --- The whole walk -------------------------------------------------------------------------------------


async def test_all_snippets_run_one_after_another_on_one_store(
    managers: Managers, passing_time: PassingTime, tmp_path: Path
) -> None:
    vm, ab, mc = managers
    await creating_versions(vm)
    draft = await status_lifecycle(vm, await version_history(vm))

    greeting = await simple_ab_test(managers)
    (tmp_path / "prompts" / "system").mkdir(parents=True)
    (tmp_path / "prompts" / "system" / "greeting.md").write_text("Hello {{name}}!\n")
    library = FileSystemPromptLibrary(prompt_dir=tmp_path / "prompts/")
    assert library.get("greeting", "system") is not None
    await running_the_experiment(managers, greeting.exp, random.Random(7))
    await analyzing_results(mc, greeting.v1, greeting.v2)
    await deploying_the_winner(managers, greeting)

    _, exp = await three_way_split(managers)
    v_new = await new_feature_under_test(managers)
    assert v_new.parent_version == draft.version_id
    await record_outcomes(mc, v_new, 96, 100)
    await gradual_rollout(managers, v_new)
    await segment_based_testing(managers, "premium_1")
    monitor = RealTimeMetricsMonitor(mc, passing_time)
    assert len(await monitor.monitor_experiment([v_new.version_id], duration_hours=1)) == 0

    await record_outcomes(mc, v_new, 10, 200)
    rolled_back = await safe_rollback(vm, mc, v_new.version_id, exp.experiment_id, ab=ab)
    assert rolled_back is not None
    assert rolled_back.version_id == draft.version_id
    moves = await vm.deployments("new_feature", "system")
    assert [(move.action, move.version) for move in moves] == [
        ("promote", "1.0.0"),
        ("promote", "2.0.0"),
        ("withdraw", None),
        ("promote", "1.0.0"),
    ]
    stopped = await ab.get_experiment(exp.experiment_id)
    assert stopped is not None
    assert stopped.status == "stopped"
