"""The same question put to other libraries: which variant does this user get?

Each is set up as its own documentation has it, with two variants of equal weight, offline. One that is not installed
is left out; `pip install growthbook openfeature-sdk UnleashClient planout six` brings all four.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib
import logging
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from xxhash import xxh3_64_intdigest

SALT = "greeting"
Ask = Callable[[str], Awaitable[object]]


def installed_peers() -> dict[str, Ask]:
    """Return what asks each peer that can be imported, by its name."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found: dict[str, Ask] = {}
    for name, make in (
        ("GrowthBook", growthbook),
        ("OpenFeature in memory", openfeature),
        ("Unleash", unleash),
        ("PlanOut", planout),
    ):
        with suppress(ImportError):
            found[name] = make()
    return found


def growthbook() -> Ask:
    module: Any = importlib.import_module("growthbook")
    rule = {
        "key": "experiment", "seed": SALT, "hashAttribute": "id", "hashVersion": 2, "variations": ["a", "b"],
        "weights": [0.5, 0.5], "coverage": 1,
    }  # fmt: skip
    book = module.GrowthBook(features={"prompt": {"defaultValue": "a", "rules": [rule]}})

    async def ask(user: str) -> object:
        book.set_attributes({"id": user})
        return book.eval_feature("prompt").value

    return ask


def openfeature() -> Ask:
    api: Any = importlib.import_module("openfeature.api")
    context: Any = importlib.import_module("openfeature.evaluation_context")
    flags: Any = importlib.import_module("openfeature.flag_evaluation")
    provider: Any = importlib.import_module("openfeature.provider.in_memory_provider")
    seed = xxh3_64_intdigest(SALT.encode())

    def evaluate(flag: Any, where: Any) -> Any:
        key = "a" if xxh3_64_intdigest(where.targeting_key.encode(), seed) < 1 << 63 else "b"
        return flags.FlagResolutionDetails(value=flag.variants[key], variant=key, reason=flags.Reason.SPLIT)

    flag = provider.InMemoryFlag("a", {"a": "A", "b": "B"}, context_evaluator=evaluate)
    set_provider = getattr(api, "set_provider_and_wait", api.set_provider)
    set_provider(provider.InMemoryProvider({"prompt": flag}))
    client = api.get_client()

    async def ask(user: str) -> object:
        return await client.get_string_value_async("prompt", "a", context.EvaluationContext(user))

    return ask


def unleash() -> Ask:
    module: Any = importlib.import_module("UnleashClient")
    cache: Any = importlib.import_module("UnleashClient.cache")
    variant = {"weight": 500, "weightType": "variable", "stickiness": "userId", "overrides": []}
    strategy = {
        "name": "flexibleRollout",
        "constraints": [],
        "parameters": {"rollout": "100", "stickiness": "userId", "groupId": "prompt"},
    }
    feature = {
        "name": "prompt", "type": "experiment", "enabled": True, "project": "default", "strategies": [strategy],
        "variants": [{"name": "a", **variant}, {"name": "b", **variant}],
    }  # fmt: skip
    folder = tempfile.mkdtemp(prefix="promptab-benchmark-unleash-")
    file_cache = cache.FileCache("benchmark", directory=folder)
    file_cache.bootstrap_from_dict({"version": 2, "features": [feature]})
    client = module.UnleashClient(
        url="http://127.0.0.1:9/api",
        app_name="benchmark",
        cache=file_cache,
        disable_metrics=True,
        disable_registration=True,
    )
    client.initialize_client(fetch_toggles=False)

    async def ask(user: str) -> object:
        return client.get_variant("prompt", {"userId": user})["name"]

    return ask


def planout() -> Ask:
    # planout 0.6.0 imports names that Python 3.10 has moved
    for name in ("MutableMapping", "Mapping", "Iterable"):
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    experiment: Any = importlib.import_module("planout.experiment")
    operators: Any = importlib.import_module("planout.ops.random")

    class Assigned(experiment.SimpleExperiment):  # type: ignore[misc] # a class of a module without types
        def setup(self) -> None:
            self.set_auto_exposure_logging(False)
            self.name = SALT

        def configure_logger(self) -> None:
            """The stock one opens a file in the working folder."""

        def assign(self, params: Any, userid: str) -> None:
            params.variant = operators.WeightedChoice(choices=["a", "b"], weights=[0.5, 0.5], unit=userid)

    async def ask(user: str) -> object:
        return Assigned(userid=user).get("variant")

    return ask
