"""Choosing what a request is served, rendering it, and recording what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import (
    ABTestManager,
    InvalidInputError,
    Lab,
    MetricsCollector,
    NotFoundError,
    PromptVariant,
    PromptVersion,
    StoreUnavailableError,
    VersionManager,
)
from tests.clock import SettableClock

A, B = "1.0.0", "1.1.0"
AB = [PromptVariant(A), PromptVariant(B)]


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


@pytest.fixture
async def greeting(lab: Lab) -> list[PromptVersion]:
    """Three active versions of the prompt `greeting`: 1.0.0, 1.1.0 and 2.0.0."""
    return [
        await lab.versions.create_version("greeting", "system", f"Hello {{{{ name }}}} ({number}).", number)
        for number in (A, B, "2.0.0")
    ]


async def chosen(lab: Lab, **how: Any) -> tuple[str | None, str]:
    choice = await lab.choose("greeting", **how)
    return (None if choice.version is None else choice.version.version), choice.source


async def test_choose_gives_the_latest_active_version_when_nothing_else_decides(
    lab: Lab, greeting: list[PromptVersion]
) -> None:
    assert await chosen(lab, user_id="ada") == ("2.0.0", "range")
    await lab.versions.update_status(greeting[2].version_id, "deprecated")
    assert await chosen(lab) == (B, "range")


async def test_choose_gives_production_before_the_latest_version(
    lab: Lab, greeting: list[PromptVersion]
) -> None:
    await lab.versions.promote(greeting[0].version_id)
    assert await chosen(lab, user_id="ada") == (A, "environment")


async def test_choose_gives_the_experiments_variant_before_production(
    lab: Lab, greeting: list[PromptVersion]
) -> None:
    await lab.versions.promote(greeting[2].version_id)
    created = await lab.experiments.create_experiment("greeting", "system", AB)
    choice = await lab.choose("greeting", user_id="ada")
    served = await lab.experiments.get_variant_for_user("greeting", "ada")
    assert choice.version is not None
    assert (choice.version.version, choice.source) == (served, "experiment")
    assert (choice.experiment_id, choice.variant, choice.unit) == (created.experiment_id, served, "ada")
    assert "'greeting'" in choice.reason


@pytest.mark.parametrize("in_production", [True, False])
async def test_a_unit_that_is_left_out_gets_production_and_else_the_control(
    lab: Lab, greeting: list[PromptVersion], *, in_production: bool
) -> None:
    if in_production:
        await lab.versions.promote(greeting[2].version_id)
    await lab.experiments.create_experiment("greeting", "system", AB, control=B, where="plan == 'premium'")
    left_out = await lab.choose("greeting", user_id="ada", attributes={"plan": "free"})
    assert left_out.version is not None
    assert (left_out.version.version, left_out.source) == ("2.0.0" if in_production else B, "excluded")
    assert (left_out.experiment_id, left_out.variant, left_out.unit) == (None, None, None)
    assert "does not satisfy" in left_out.reason
    inside = await lab.choose("greeting", user_id="ada", attributes={"plan": "premium"})
    assert inside.source == "experiment"


@pytest.mark.usefixtures("greeting")
async def test_an_override_is_named_as_the_source(lab: Lab) -> None:
    await lab.experiments.create_experiment("greeting", "system", AB, overrides={"ada": B})
    assert await chosen(lab, user_id="ada") == (B, "override")


@pytest.mark.usefixtures("greeting")
async def test_two_experiments_on_one_prompt_share_its_users_between_them(
    lab: Lab, clock: SettableClock
) -> None:
    first = await lab.experiments.create_experiment("greeting", "system", AB, traffic=0.5)
    clock.advance(seconds=1)
    second = await lab.experiments.create_experiment(
        "second", "system", [PromptVariant(A), PromptVariant("2.0.0")], prompt_name="greeting"
    )
    served = Counter([(await lab.choose("greeting", user_id=number)).experiment_id for number in range(40)])
    assert served.keys() == {first.experiment_id, second.experiment_id}
    assert served == {
        experiment_id: sum((await lab.experiments.get_variant_distribution(experiment_id)).values())
        for experiment_id in (first.experiment_id, second.experiment_id)
    }


@pytest.mark.parametrize(
    ("version", "found", "source"),
    [
        (A, A, "pin"),
        ("3.0.0-rc.1", "3.0.0-rc.1", "pin"),
        ("^1.0", B, "range"),
        ("latest", "2.0.0", "range"),
        ("eu", A, "range"),
        ("production", B, "environment"),
    ],
)
async def test_a_version_asked_for_is_taken_at_its_word(
    lab: Lab, greeting: list[PromptVersion], version: str, found: str, source: str
) -> None:
    await lab.versions.create_version("greeting", "system", "Draft.", "3.0.0-rc.1", status="draft")
    await lab.versions.tag_version(greeting[0].version_id, "eu")
    await lab.versions.promote(greeting[1].version_id)
    await lab.experiments.create_experiment("greeting", "system", AB, overrides={"ada": A})
    choice = await lab.choose("greeting", user_id="ada", version=version)
    assert choice.version is not None
    assert (choice.version.version, choice.source, choice.experiment_id) == (found, source, None)


async def test_a_pinned_version_may_be_one_that_nothing_serves(
    lab: Lab, greeting: list[PromptVersion]
) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    old = await lab.versions.create_version(
        "greeting", "system", '{% include "system/tone" %} {{ name }}', "0.5.0", status="archived"
    )
    choice = await lab.choose("greeting", version="0.5.0")
    assert (choice.version, choice.render(name="Ada")) == (old, "Be kind. Ada")
    assert old not in greeting


async def test_an_environment_asked_for_is_taken_at_its_word(lab: Lab, greeting: list[PromptVersion]) -> None:
    await lab.versions.promote(greeting[0].version_id, "staging")
    assert await chosen(lab, environment="staging") == (A, "environment")
    with pytest.raises(NotFoundError, match="nothing is live in production"):
        await lab.choose("greeting", environment="production")
    with pytest.raises(InvalidInputError, match="environment"):
        await lab.choose("greeting", environment="qa")


@pytest.mark.parametrize("how", [{}, {"version": A}, {"version": "^9"}, {"version": "eu"}])
async def test_nothing_to_serve_is_an_error_that_names_the_prompt(lab: Lab, how: dict[str, str]) -> None:
    with pytest.raises(NotFoundError, match="'system/nobody'"):
        await lab.choose("nobody", **how)  # type: ignore[arg-type]


async def test_a_choice_knows_its_content_and_the_age_of_the_snapshot(
    lab: Lab, greeting: list[PromptVersion]
) -> None:
    choice = await lab.choose("greeting")
    assert choice.content_hash == greeting[2].content_hash
    assert 0.0 <= choice.snapshot_age < 60.0


async def test_a_change_is_chosen_from_the_next_call_on(lab: Lab, greeting: list[PromptVersion]) -> None:
    for version in greeting:
        await lab.versions.promote(version.version_id)
        assert await chosen(lab) == (version.version, "environment")
    await lab.versions.rollback("greeting", "system")
    assert await chosen(lab) == (B, "environment")


@pytest.mark.usefixtures("greeting")
async def test_render_names_the_variable_that_is_missing_or_unknown(lab: Lab) -> None:
    choice = await lab.choose("greeting")
    assert choice.render(name="Ada") == "Hello Ada (2.0.0)."
    with pytest.raises(InvalidInputError, match="name"):
        choice.render()
    with pytest.raises(InvalidInputError, match="nmae"):
        choice.render(name="Ada", nmae="Ada")


async def test_a_text_prompt_is_one_message_in_the_role_of_its_type(lab: Lab) -> None:
    for prompt_type in ("system", "user"):
        await lab.versions.create_version("p", prompt_type, "Hello {{ self_ }}.")
        (message,) = (await lab.choose("p", prompt_type)).messages(self_="you")
        assert (message.role, message.content) == (prompt_type, "Hello you.")


async def test_a_chat_prompt_does_not_render_to_one_text(lab: Lab) -> None:
    await lab.versions.create_version("chat", "message", [{"role": "user", "content": "Hi."}])
    with pytest.raises(InvalidInputError, match=r"render a list of messages with messages\(\.\.\.\)"):
        (await lab.choose("chat", "message")).render()


async def test_a_configuration_is_read_and_not_rendered(lab: Lab) -> None:
    await lab.versions.create_version("answers", "model", config={"model": "m-1", "parameters": {"t": 0.2}})
    choice = await lab.choose("answers", "model")
    with pytest.raises(InvalidInputError, match=r"read from \.config"):
        choice.render()
    choice.config["parameters"]["t"] = 9
    assert choice.config == {"model": "m-1", "parameters": {"t": 0.2}}


async def test_the_variants_configuration_goes_over_the_versions_own(lab: Lab) -> None:
    await lab.versions.create_version("answers", "model", version=A, config={"model": "m-1", "t": 0.2})
    arms = [PromptVariant(A, key="cold"), PromptVariant(A, key="warm", config={"t": 0.9})]
    await lab.experiments.create_experiment("answers", "model", arms)
    seen = {}
    for number in range(20):
        choice = await lab.choose("answers", "model", user_id=number)
        seen[choice.variant] = choice.config
    assert seen == {"cold": {"model": "m-1", "t": 0.2}, "warm": {"model": "m-1", "t": 0.9}}


async def test_an_experiment_of_configurations_needs_no_prompt(lab: Lab) -> None:
    arms = [PromptVariant(key=key, config={"model": key}) for key in ("small", "large")]
    await lab.experiments.create_experiment("answers", "config", arms)
    choice = await lab.choose("answers", "config", user_id="ada")
    assert (choice.version, choice.content_hash, choice.config) == (None, None, {"model": choice.variant})
    event = await choice.record(success=True)
    assert (event.version_id, event.variant, event.user_id) == (None, choice.variant, "ada")


@pytest.mark.usefixtures("greeting")
async def test_record_ties_the_event_to_version_experiment_and_unit(lab: Lab) -> None:
    created = await lab.experiments.create_experiment("greeting", "system", AB)
    choice = await lab.choose("greeting", user_id=17)
    event = await choice.record(
        True, 0.8, {"input": 10, "output": 5}, 4, {"trace": "t"}, cost=0.01, metrics={"m": 2}
    )
    assert choice.version is not None
    assert await lab.metrics.get_events(choice.version.version_id) == [event]
    assert (event.experiment_id, event.variant, event.user_id) == (
        created.experiment_id,
        choice.variant,
        "17",
    )
    assert (event.success, event.response_time, event.user_rating, event.cost) == (True, 0.8, 4, 0.01)
    assert (event.metadata, event.metrics) == ({"trace": "t"}, {"m": 2.0})


async def test_record_outside_of_an_experiment_names_none(lab: Lab, greeting: list[PromptVersion]) -> None:
    event = await (await lab.choose("greeting", user_id="ada")).record(success=False)
    assert (event.experiment_id, event.variant) == (None, None)
    assert event.version_id == greeting[2].version_id


@pytest.mark.usefixtures("greeting")
async def test_choose_makes_the_exposure_that_metrics_count(lab: Lab) -> None:
    await lab.experiments.create_experiment("greeting", "system", AB)
    for user in ("ada", "ada", "bob"):
        await lab.choose("greeting", user_id=user)
    assert sum((await lab.experiments.get_variant_distribution("greeting")).values()) == 2


@pytest.mark.usefixtures("greeting")
async def test_an_experiment_whose_prompt_does_not_exist_serves_no_version(lab: Lab) -> None:
    await lab.experiments.create_experiment("future", "system", AB)
    await lab.versions.create_version("future", "system", "Only this one.", "5.0.0")
    choice = await lab.choose("future", user_id="ada")
    assert choice.version is not None
    assert (choice.version.version, choice.source) == ("5.0.0", "excluded")
    assert "does not exist" in choice.reason
    assert await lab.experiments.get_variant_distribution("future") == {A: 0, B: 0}


async def test_a_closed_lab_refuses_and_closes_again(tmp_path: Path) -> None:
    lab = await promptab.open(f"sqlite:///{tmp_path / 'p.db'}")
    await lab.versions.create_version("greeting", "system", "Hello.")
    await lab.close()
    await lab.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await lab.versions.list_versions()


async def test_open_takes_the_url_of_the_environment_and_managers_share_that_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "elsewhere.db"
    monkeypatch.setenv("PROMPTAB_URL", f"sqlite:///{path}")
    versions, experiments, metrics = VersionManager(), ABTestManager(), MetricsCollector()
    assert not path.exists()
    created = await asyncio.gather(
        *(versions.create_version("greeting", "system", f"Text {number}.") for number in range(3))
    )
    assert sorted(version.version for version in created) == ["1.0.0", "1.0.1", "1.0.2"]
    await experiments.create_experiment(
        "greeting", "system", [PromptVariant("1.0.0"), PromptVariant("1.0.1")]
    )
    await metrics.record_event(created[0].version_id, success=True)
    async with promptab.open() as lab:
        assert len(await lab.versions.list_versions()) == 3
        assert (await lab.choose("greeting", user_id="ada")).source == "experiment"
        assert (await lab.metrics.get_summary()).metrics.total_events == 1


async def test_labs_in_memory_have_nothing_in_common() -> None:
    async with promptab.open("sqlite:///:memory:") as one, promptab.open("sqlite:///:memory:") as other:
        await one.versions.create_version("greeting", "system", "Hello.")
        assert await other.versions.list_versions() == []
        assert one.store.store_id != other.store.store_id
