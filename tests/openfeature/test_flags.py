"""What a flag key means, in whichever way it is asked for, and what is tracked."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagType, Reason
from openfeature.track import TrackingEventDetails

from promptab import Lab, MissingExtraError, PromptVariant
from promptab.integrations.openfeature import PromptabProvider
from promptab.models import UnitKind
from tests.clock import SettableClock
from tests.openfeature.conftest import CONFIG, ada

DEFAULTS: dict[FlagType, Any] = {
    FlagType.BOOLEAN: False,
    FlagType.STRING: "default",
    FlagType.INTEGER: -1,
    FlagType.FLOAT: -1.5,
    FlagType.OBJECT: {"default": True},
}

Evaluate = Callable[..., Awaitable[FlagEvaluationDetails[Any]]]


@pytest.fixture(params=["in the loop", "awaited", "in a thread", "in another loop"])
def evaluate(request: pytest.FixtureRequest, client: OpenFeatureClient) -> Evaluate:
    """Ask by the client in every way that there is."""

    def asked(kind: FlagType, *how: Any) -> FlagEvaluationDetails[Any]:
        ask: Any = getattr(client, f"get_{kind.value.lower()}_details")
        found: FlagEvaluationDetails[Any] = ask(*how)
        return found

    async def awaited(kind: FlagType, *how: Any) -> FlagEvaluationDetails[Any]:
        ask: Any = getattr(client, f"get_{kind.value.lower()}_details_async")
        found: FlagEvaluationDetails[Any] = await ask(*how)
        return found

    async def evaluate(
        kind: FlagType, key: str, context: EvaluationContext | None = None
    ) -> FlagEvaluationDetails[Any]:
        how = (kind, key, DEFAULTS[kind], context)
        match request.param:
            case "in the loop":
                return asked(*how)
            case "awaited":
                return await awaited(*how)
            case "in a thread":
                return await asyncio.to_thread(asked, *how)
            case _:
                return await asyncio.to_thread(lambda: asyncio.run(awaited(*how)))

    return evaluate


VALUES: list[tuple[FlagType, str, Any]] = [
    (FlagType.BOOLEAN, "rag#rerank", True),
    (FlagType.STRING, "rag#index", "docs"),
    (FlagType.INTEGER, "config/rag#top_k", 5),
    (FlagType.FLOAT, "rag#cutoff", 0.7),
    (FlagType.FLOAT, "rag#top_k", 5.0),
    (FlagType.INTEGER, "rag#deep.cache.ttl", 3600),
    (FlagType.OBJECT, "rag#deep.cache", {"ttl": 3600}),
    (FlagType.OBJECT, "rag#tags", ["a"]),
    (FlagType.OBJECT, "rag", CONFIG),
    (FlagType.STRING, "fast", "gpt-4.1-nano"),
    (FlagType.STRING, "reply#model", "gpt-4.1-mini"),
    (FlagType.STRING, "system/reply", "Help Ada."),
    (
        FlagType.OBJECT,
        "reply",
        {
            "messages": [{"role": "system", "template": "Help {{ customer }}."}],
            "config": {"model": "gpt-4.1-mini"},
        },
    ),
    (
        FlagType.OBJECT,
        "chat",
        {"messages": [{"role": "system", "template": "Hi {{ name }}"}], "config": {}},
    ),
]


async def test_a_flag_has_the_value_that_its_key_names(evaluate: Evaluate) -> None:
    for kind, key, value in VALUES:
        found = await evaluate(kind, key, ada(variables={"customer": "Ada"}))
        assert (key, found.value, type(found.value)) == (key, value, type(value))
        assert (key, found.reason, found.variant, found.error_code) == (key, Reason.STATIC, "1.0.0", None)


REFUSED: list[tuple[FlagType, str, dict[str, Any], ErrorCode, str]] = [
    (FlagType.STRING, "nobody", {}, ErrorCode.FLAG_NOT_FOUND, "nobody"),
    (FlagType.STRING, "user/reply", {}, ErrorCode.FLAG_NOT_FOUND, "user prompt 'reply'"),
    (FlagType.STRING, "rag#deep.nothing", {}, ErrorCode.FLAG_NOT_FOUND, "deep.nothing"),
    (FlagType.STRING, "rag#index.x", {}, ErrorCode.FLAG_NOT_FOUND, "index.x"),
    (FlagType.STRING, "rag#", {}, ErrorCode.FLAG_NOT_FOUND, "rag"),
    (FlagType.INTEGER, "rag#rerank", {}, ErrorCode.TYPE_MISMATCH, "a bool, not a integer"),
    (FlagType.FLOAT, "rag#rerank", {}, ErrorCode.TYPE_MISMATCH, "bool"),
    (FlagType.INTEGER, "rag#cutoff", {}, ErrorCode.TYPE_MISMATCH, "float"),
    (FlagType.BOOLEAN, "rag", {}, ErrorCode.TYPE_MISMATCH, "rag#KEY"),
    (FlagType.STRING, "chat", {}, ErrorCode.TYPE_MISMATCH, "object"),
    (FlagType.STRING, "reply", {}, ErrorCode.INVALID_CONTEXT, "customer"),
    (FlagType.STRING, "reply", {"variables": "Ada"}, ErrorCode.INVALID_CONTEXT, "variables"),
]


async def test_what_has_no_such_value_gets_the_default_and_says_why(evaluate: Evaluate) -> None:
    for kind, key, attributes, code, said in REFUSED:
        found = await evaluate(kind, key, ada(**attributes))
        assert (key, found.value, found.reason) == (key, DEFAULTS[kind], Reason.ERROR)
        assert (key, found.error_code) == (key, code)
        assert said in (found.error_message or "")


async def test_an_experiment_splits_and_its_name_is_a_key_too(
    lab: Lab, client: OpenFeatureClient, evaluate: Evaluate
) -> None:
    experiment = await lab.experiments.create_experiment(
        "how_many",
        "config",
        [PromptVariant("1.0.0", key="few", config={"top_k": 3}), PromptVariant("1.0.0", key="many")],
        prompt_name="rag",
        overrides={"bob": "many"},
    )
    await lab.store.snapshot()
    choice = await lab.choose("rag", "config", user_id="ada")
    for key in ("rag#top_k", "config/rag#top_k", "how_many#top_k", f"{experiment.experiment_id}#top_k"):
        found = await evaluate(FlagType.INTEGER, key, ada())
        assert found.value == {"few": 3, "many": 5}[choice.variant or ""]
        assert (found.variant, found.reason) == (choice.variant, Reason.SPLIT)
        told = dict(found.flag_metadata)
        age = told.pop("snapshot_age")
        assert isinstance(age, float)
        assert told == {
            "version": "1.0.0",
            "version_id": choice.version.version_id if choice.version else None,
            "content_hash": choice.content_hash,
            "experiment": "how_many",
            "experiment_id": experiment.experiment_id,
            "source": "experiment",
            "explanation": choice.reason,
        }
    shown = await evaluate(FlagType.INTEGER, "rag#top_k", EvaluationContext("bob"))
    assert (shown.value, shown.variant, shown.reason) == (5, "many", Reason.TARGETING_MATCH)
    nobody = await evaluate(FlagType.INTEGER, "rag#top_k")
    assert (nobody.value, nobody.reason, nobody.variant) == (5, Reason.DEFAULT, "1.0.0")
    counts = await lab.experiments.get_variant_distribution("how_many")
    assert sum(counts.values()) == 2, "an evaluation exposes the unit, once"


async def test_an_experiment_on_plain_configurations_is_a_flag(lab: Lab, evaluate: Evaluate) -> None:
    await lab.experiments.create_experiment(
        "new_page",
        "config",
        [PromptVariant(key="off", config={"value": False}), PromptVariant(key="on", config={"value": True})],
    )
    await lab.store.snapshot()
    found = await evaluate(FlagType.BOOLEAN, "new_page", ada())
    assert found.value is (found.variant == "on")
    assert found.reason == Reason.SPLIT
    assert "version" not in found.flag_metadata


async def test_attributes_target_and_times_are_texts(lab: Lab, evaluate: Evaluate) -> None:
    await lab.experiments.create_experiment(
        "premium",
        "config",
        [PromptVariant(key="a", config={"value": 1}), PromptVariant(key="b", config={"value": 2})],
        where="plan == 'premium' and since < '2025-01-01'",
    )
    await lab.store.snapshot()
    since = datetime(2024, 5, 1, tzinfo=UTC)
    found = await evaluate(FlagType.INTEGER, "premium", ada(plan="premium", since=since, seen=[since]))
    assert found.reason == Reason.SPLIT
    outside = await evaluate(FlagType.INTEGER, "premium", ada(plan="free", since=since))
    assert outside.value == DEFAULTS[FlagType.INTEGER]


async def test_a_session_is_a_unit(lab: Lab, evaluate: Evaluate) -> None:
    variants = [PromptVariant(key="a", config={"value": 1}), PromptVariant(key="b", config={"value": 2})]
    await lab.experiments.create_experiment("visit", "config", variants, unit="session")
    await lab.store.snapshot()
    found = await evaluate(FlagType.INTEGER, "visit", EvaluationContext(None, {"session_id": "s1"}))
    choice = await lab.choose("visit", "config", session_id="s1")
    assert (found.variant, found.reason) == (choice.variant, Reason.SPLIT)


async def test_a_name_of_several_types_has_to_say_which(lab: Lab, evaluate: Evaluate) -> None:
    await lab.versions.create_version("reply", "user", "Answer.")
    await lab.store.snapshot()
    found = await evaluate(FlagType.STRING, "reply")
    assert (found.error_code, found.error_message) == (
        ErrorCode.FLAG_NOT_FOUND,
        "'reply' may be several prompts: ask for system/reply or user/reply",
    )
    assert (await evaluate(FlagType.STRING, "user/reply")).value == "Answer."


async def test_what_only_the_store_knows_is_answered_where_the_caller_can_wait(
    lab: Lab, clock: SettableClock, client: OpenFeatureClient
) -> None:
    variants = [PromptVariant(key="a", config={"value": 1}), PromptVariant(key="b", config={"value": 2})]
    await lab.experiments.create_experiment("moved", "config", variants)
    await lab.store.snapshot()
    units = [EvaluationContext(f"u{number}") for number in range(30)]
    before = [client.get_integer_value("moved", 0, unit) for unit in units]
    await lab.experiments.update_weights("moved", {"a": 0.0, "b": 1.0})
    clock.advance(seconds=10)
    await lab.store.snapshot()
    at_once = [client.get_integer_details("moved", 0, unit) for unit in units]
    refused = [index for index, found in enumerate(at_once) if found.error_code is not None]
    assert {before[index] for index in refused} == {1}
    assert at_once[refused[0]].error_code is ErrorCode.GENERAL
    assert "await lab.choose" in (at_once[refused[0]].error_message or "")
    assert await client.get_integer_value_async("moved", 0, units[refused[0]]) == 1
    assert await asyncio.to_thread(client.get_integer_value, "moved", 0, units[refused[1]]) == 1


async def test_what_is_tracked_is_an_outcome_of_the_unit(
    lab: Lab, client: OpenFeatureClient, provided: PromptabProvider
) -> None:
    variants = [PromptVariant(key="a", config={"value": 1}), PromptVariant(key="b", config={"value": 2})]
    experiments: dict[str, UnitKind] = {"one": "user", "two": "user", "visit": "session", "each": "request"}
    who: dict[str, Any] = {"user_id": "ada", "session_id": "s1"}
    for name, unit in experiments.items():
        await lab.experiments.create_experiment(name, "config", variants, unit=unit)
        await lab.choose(name, "config", **who)
    both = ada(session_id="s1")
    client.track("resolved", both)
    await asyncio.to_thread(client.track, "basket", both, TrackingEventDetails(12.5, {"experiment": "two"}))
    client.track("basket", both, TrackingEventDetails(2.5, {"experiment": "visit"}))
    await provided.flush()
    assert provided.outcomes_not_recorded == 0
    # only what is of the unit that was exposed has a variant
    found = {
        (name, metric): {histogram.variant: sum(histogram.counts) for histogram in histograms}
        for name in experiments
        for metric in ("resolved", "basket")
        if (histograms := await lab.metrics.distribution(name, metric))
    }
    variant = {name: (await lab.choose(name, "config", **who)).variant for name in experiments}
    assert found == {
        ("one", "resolved"): {variant["one"]: 1},
        ("two", "resolved"): {variant["two"]: 1},
        ("visit", "resolved"): {variant["visit"]: 1},
        ("two", "basket"): {variant["two"]: 1},
        ("visit", "basket"): {variant["visit"]: 1},
    }
    assert await lab.store.read(lambda tx: tx.events.count()) == 5


@pytest.mark.parametrize(
    ("context", "details", "said"),
    [
        (EvaluationContext(), None, "targeting_key"),
        (ada(), None, "in no running experiment"),
        (ada(), TrackingEventDetails(1.0, {"experiment": "nobody"}), "no experiment"),
        (ada(), TrackingEventDetails(1.0, {"experiment": 7}), "name or id of an experiment"),
        (ada(), TrackingEventDetails(float("nan"), {"experiment": "nobody"}), "metric_value"),
    ],
)
async def test_what_cannot_be_recorded_is_logged_and_counted(
    client: OpenFeatureClient,
    provided: PromptabProvider,
    caplog: pytest.LogCaptureFixture,
    context: EvaluationContext,
    details: TrackingEventDetails | None,
    said: str,
) -> None:
    client.track("resolved", context, details)
    await provided.flush()
    assert provided.outcomes_not_recorded == 1
    assert said in caplog.text


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openfeature" else found(name)
    )
    monkeypatch.delitem(sys.modules, "promptab.integrations.openfeature")
    with pytest.raises(MissingExtraError, match=r"promptab\[openfeature\]"):
        importlib.import_module("promptab.integrations.openfeature")
