"""The snippets of seed 003, in its order, with the calls, argument names and attributes that the seed shows.

`tests/test_seed_003.py` runs them, and lists what it supplies because the seed's prose presumes it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from scipy import stats

from promptab import (
    ABTestManager,
    MetricsCollector,
    PromptExperiment,
    PromptMetrics,
    PromptVariant,
    PromptVersion,
    VersionManager,
    VersionStatus,
)


class Managers(NamedTuple):
    vm: VersionManager
    ab: ABTestManager
    mc: MetricsCollector


class PassingTime:
    """What `datetime.utcnow` says: moved on by whoever sleeps."""

    def __init__(self) -> None:
        self._now = datetime(2024, 1, 15)  # noqa: DTZ001 - naive, as utcnow answers
        self.slept: list[float] = []

    def utcnow(self) -> datetime:
        return self._now

    async def sleep(self, delay: float, result: Any = None) -> Any:
        self.slept.append(delay)
        self._now += timedelta(seconds=delay)
        return result


# --- Basic version management ---------------------------------------------------------------------------


async def creating_versions(vm: VersionManager) -> tuple[PromptVersion, PromptVersion]:
    v1 = await vm.create_version(
        name="email_subject",
        prompt_type="user",
        template="Generate email subject for: {{topic}}",
        version="1.0.0",
        metadata={
            "author": "alice",
            "description": "Initial version",
            "created_for": "email-campaign-q1",
        },
    )
    print(f"Created version {v1.version} with ID {v1.version_id}")
    v2 = await vm.create_version(
        name="email_subject",
        prompt_type="user",
        template="Generate engaging and click-worthy email subject for: {{topic}}",
        metadata={
            "author": "bob",
            "description": "Added 'engaging and click-worthy' for better results",
            "jira_ticket": "PROMPT-123",
        },
    )
    print(f"Created version {v2.version} (auto-incremented)")
    print(f"Parent version: {v2.parent_version}")
    return v1, v2


async def version_history(vm: VersionManager) -> list[PromptVersion]:
    versions = await vm.list_versions("email_subject", "user")
    print("Version History:")
    for v in versions:
        print(f"  {v.version}: {v.metadata.get('description')}")
        print(f"    Created: {v.created_at}")
        print(f"    Author: {v.metadata.get('author')}")
        print(f"    Status: {v.status.value}")
    version = await vm.get_version("email_subject", "user", "1.0.0")
    assert version == versions[-1]
    latest = await vm.get_version("email_subject", "user")
    assert latest is not None
    print(f"Latest version: {latest.version}")
    assert latest.version == "1.0.1"
    return versions


async def status_lifecycle(vm: VersionManager, versions: Sequence[PromptVersion]) -> PromptVersion:
    draft = await vm.create_version(
        name="new_feature",
        prompt_type="system",
        template="...",
        status=VersionStatus.DRAFT,
        metadata={"note": "Still testing"},
    )
    print(f"Testing version {draft.version}...")
    await vm.update_status(draft.version_id, VersionStatus.ACTIVE)
    await vm.tag_version(draft.version_id, "production")
    old_version = versions[-2]
    await vm.update_status(old_version.version_id, VersionStatus.DEPRECATED)
    print(f"Deprecated version {old_version.version}")
    return draft


# --- A/B testing ----------------------------------------------------------------------------------------


class GreetingTest(NamedTuple):
    v1: PromptVersion
    v2: PromptVersion
    exp: PromptExperiment


async def simple_ab_test(managers: Managers) -> GreetingTest:
    vm, ab, _ = managers
    v1 = await vm.create_version(
        name="greeting", prompt_type="system", template="Hello {{name}}!", version="1.0.0"
    )
    v2 = await vm.create_version(
        name="greeting", prompt_type="system", template="Hi {{name}}, welcome to our service!"
    )
    exp = await ab.create_experiment(
        name="greeting",
        prompt_type="system",
        variants=[PromptVariant("1.0.0", 0.5, "Control"), PromptVariant("1.0.1", 0.5, "Treatment")],
        metadata={
            "hypothesis": "Friendly greeting increases engagement",
            "start_date": "2024-01-15",
            "owner": "product-team",
        },
    )
    print(f"Created experiment {exp.experiment_id}")
    print(f"Variants: {[(v.version, v.weight) for v in exp.variants]}")
    return GreetingTest(v1, v2, exp)


async def running_the_experiment(
    managers: Managers, exp: PromptExperiment, rng: random.Random
) -> dict[str, str]:
    vm, ab, mc = managers
    shown = {}
    for user_id in ["user1", "user2", "user3", "user4", "user5"]:
        variant_version = await ab.get_variant_for_user(exp.experiment_id, user_id)
        assert variant_version is not None
        version = await vm.get_version("greeting", "system", variant_version)
        assert version is not None
        print(f"\n{user_id} gets version {variant_version}")
        shown[user_id] = version.template.replace("{{name}}", user_id)
        success = rng.random() > 0.3
        await mc.record_event(
            version_id=version.version_id,
            success=success,
            response_time=rng.uniform(0.1, 1.0),
            user_rating=rng.uniform(3.0, 5.0),
        )
        print(f"  Result: {'Success' if success else 'Failure'}")
    return shown


async def analyzing_results(
    mc: MetricsCollector, v1: PromptVersion, v2: PromptVersion
) -> dict[str, PromptMetrics]:
    v1_metrics = await mc.get_metrics(v1.version_id)
    v2_metrics = await mc.get_metrics(v2.version_id)
    for name, metrics in (("A (Control)", v1_metrics), ("B (Treatment)", v2_metrics)):
        print(f"\nVariant {name}:")
        print(f"  Success rate: {metrics.success_rate:.2%}")
        print(f"  Avg response time: {metrics.avg_response_time:.2f}s")
        print(f"  Avg rating: {metrics.avg_rating:.1f}/5.0")
        print(f"  Total events: {metrics.total_events}")
    comparison = await mc.compare_variants([v1.version_id, v2.version_id])
    for version_id, metrics in comparison.items():
        version_num = "A" if version_id == v1.version_id else "B"
        print(f"Variant {version_num}: {metrics.success_rate:.2%} success rate")
    assert comparison == {v1.version_id: v1_metrics, v2.version_id: v2_metrics}
    return comparison


async def deploying_the_winner(managers: Managers, greeting: GreetingTest) -> PromptVersion:
    vm, ab, mc = managers
    v1, v2, exp = greeting
    v1_metrics = await mc.get_metrics(v1.version_id)
    v2_metrics = await mc.get_metrics(v2.version_id)
    if v2_metrics.success_rate > v1_metrics.success_rate:
        print(f"\nWinner: Variant B (v{v2.version})")
        print(f"Improvement: {(v2_metrics.success_rate - v1_metrics.success_rate):.2%}")
        await vm.tag_version(v2.version_id, "production")
        await vm.update_status(v2.version_id, VersionStatus.PRODUCTION)
        await ab.update_experiment_status(exp.experiment_id, "completed")
        await vm.update_status(v1.version_id, VersionStatus.DEPRECATED)
        return v2
    await vm.tag_version(v1.version_id, "production")
    return v1


# --- Multi-variant testing ------------------------------------------------------------------------------


async def three_way_split(managers: Managers) -> tuple[list[PromptVersion], PromptExperiment]:
    vm, ab, _ = managers
    v1 = await vm.create_version(
        name="ad_copy", prompt_type="user", template="Buy {{product}} now!", version="1.0.0"
    )
    v2 = await vm.create_version(
        name="ad_copy", prompt_type="user", template="Get {{product}} today with free shipping!"
    )
    v3 = await vm.create_version(
        name="ad_copy", prompt_type="user", template="Limited offer: {{product}} at 20% off!"
    )
    exp = await ab.create_experiment(
        name="ad_copy",
        prompt_type="user",
        variants=[
            PromptVariant("1.0.0", 0.33, "Direct"),
            PromptVariant("1.0.1", 0.33, "Value"),
            PromptVariant("1.0.2", 0.34, "Urgency"),
        ],
    )
    return [v1, v2, v3], exp


# --- Advanced patterns ----------------------------------------------------------------------------------


async def new_feature_under_test(managers: Managers) -> PromptVersion:
    """Version 2.0.0, and 1.0.0 where the walk has not made it yet."""
    if await managers.vm.get_version("new_feature", "system", "1.0.0") is None:
        await managers.vm.create_version("new_feature", "system", "...", "1.0.0")
    return await managers.vm.create_version("new_feature", "system", "Do better.", "2.0.0")


async def gradual_rollout(managers: Managers, v_new: PromptVersion) -> list[PromptExperiment]:
    vm, ab, mc = managers
    exp_phase1 = await ab.create_experiment(
        name="new_feature",
        prompt_type="system",
        variants=[PromptVariant("1.0.0", 0.9, "Current"), PromptVariant("2.0.0", 0.1, "New")],
        metadata={"phase": "1", "rollout_strategy": "gradual"},
    )
    await asyncio.sleep(7 * 24 * 3600)
    new_metrics = await mc.get_metrics(v_new.version_id)
    if new_metrics.success_rate >= 0.95:
        exp_phase2 = await ab.create_experiment(
            name="new_feature",
            prompt_type="system",
            variants=[PromptVariant("1.0.0", 0.5, "Current"), PromptVariant("2.0.0", 0.5, "New")],
            metadata={"phase": "2"},
        )
        await vm.tag_version(v_new.version_id, "production")
        return [exp_phase1, exp_phase2]
    await ab.update_experiment_status(exp_phase1.experiment_id, "stopped")
    return [exp_phase1]


class SegmentedABTest:
    def __init__(self, ab_manager: ABTestManager, vm: VersionManager) -> None:
        self.ab = ab_manager
        self.vm = vm

    async def get_variant_for_segment(self, experiment_id: str, user_id: str, segment: str) -> str | None:
        segment_exp_id = f"{experiment_id}_{segment}"
        return await self.ab.get_variant_for_user(segment_exp_id, user_id)


def get_segment(user_id: str) -> str:
    return "premium" if user_id.startswith("premium") else "free"


async def segment_based_testing(managers: Managers, user_id: str) -> str | None:
    vm, ab, _ = managers
    for name, number in (("greeting_premium", "1.1.0"), ("greeting_free", "1.2.0")):
        await vm.create_version(name, "system", "Hello {{name}}!", "1.0.0")
        await vm.create_version(name, "system", "Hello, dear {{name}}!", number)
    await ab.create_experiment(
        name="greeting_premium",
        prompt_type="system",
        variants=[PromptVariant("1.0.0", 0.5, "Formal"), PromptVariant("1.1.0", 0.5, "VIP")],
    )
    await ab.create_experiment(
        name="greeting_free",
        prompt_type="system",
        variants=[PromptVariant("1.0.0", 0.5, "Standard"), PromptVariant("1.2.0", 0.5, "Encouraging")],
    )
    segment = get_segment(user_id)
    exp_id = f"greeting_{segment}"
    variant = await ab.get_variant_for_user(exp_id, user_id)
    by_class = await SegmentedABTest(ab, vm).get_variant_for_segment("greeting", user_id, segment)
    assert by_class == variant
    return variant


class RealTimeMetricsMonitor:
    def __init__(self, metrics_collector: MetricsCollector, datetime: PassingTime) -> None:
        self.mc = metrics_collector
        self.datetime = datetime
        self.alerts: list[dict[str, Any]] = []

    async def monitor_experiment(
        self,
        version_ids: Sequence[str],
        duration_hours: float = 24,
        check_interval_minutes: float = 30,
        alert_threshold: float = 0.5,
    ) -> list[dict[str, Any]]:
        end_time = self.datetime.utcnow() + timedelta(hours=duration_hours)
        while self.datetime.utcnow() < end_time:
            print(f"\n=== Metrics Check at {self.datetime.utcnow()} ===")
            for version_id in version_ids:
                metrics = await self.mc.get_metrics(version_id)
                print(f"  Events: {metrics.total_events}")
                print(f"  Success Rate: {metrics.success_rate:.2%}")
                print(f"  Avg Response Time: {metrics.avg_response_time:.2f}s")
                if metrics.success_rate < alert_threshold:
                    alert = f"Version {version_id} below threshold: {metrics.success_rate:.2%}"
                    self.alerts.append(
                        {"time": self.datetime.utcnow(), "version_id": version_id, "message": alert}
                    )
            await asyncio.sleep(check_interval_minutes * 60)
        return self.alerts


async def check_statistical_significance(
    mc: MetricsCollector, v1_id: str, v2_id: str, alpha: float = 0.05
) -> dict[str, Any]:
    m1 = await mc.get_metrics(v1_id)
    m2 = await mc.get_metrics(v2_id)
    n1, n2 = m1.total_events, m2.total_events
    p1, p2 = m1.success_rate, m2.success_rate
    p_pooled = (n1 * p1 + n2 * p2) / (n1 + n2)
    se = (p_pooled * (1 - p_pooled) * (1 / n1 + 1 / n2)) ** 0.5
    z = (p2 - p1) / se
    p_value = 2 * (1 - stats.norm.cdf(abs(z)))
    print(f"  Difference: {abs(p2 - p1):.2%}, p = {p_value:.4f}, significant: {p_value < alpha}")
    return {"significant": p_value < alpha, "p_value": p_value, "winner": "B" if p2 > p1 else "A"}


# --- Rollback workflow ----------------------------------------------------------------------------------


async def safe_rollback(
    vm: VersionManager,
    mc: MetricsCollector,
    current_version_id: str,
    experiment_id: str,
    *,
    ab: ABTestManager,
) -> PromptVersion | None:
    current_metrics = await mc.get_metrics(current_version_id)
    print(f"  Success rate: {current_metrics.success_rate:.2%}")
    print(f"  Events: {current_metrics.total_events}")
    if current_metrics.success_rate < 0.8 and current_metrics.total_events > 100:
        current_version = await vm.get_version_by_id(current_version_id)
        assert current_version is not None
        if current_version.parent_version:
            parent_version = await vm.get_version_by_id(current_version.parent_version)
            assert parent_version is not None
            print(f"Rolling back to version {parent_version.version}")
            await vm.untag_version(current_version_id, "production")
            await vm.tag_version(parent_version.version_id, "production")
            await vm.update_status(current_version_id, VersionStatus.DEPRECATED)
            await vm.update_status(parent_version.version_id, VersionStatus.PRODUCTION)
            await ab.update_experiment_status(experiment_id, "stopped")
            return parent_version
        return None
    return None
