"""Two classifiers as versions of one model, on real images of digits: the better one is promoted.

    pip install scikit-learn
    python examples/models_ab.py --local

The images are those that come with scikit-learn, so nothing is fetched and no key is needed, with or without `--local`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC

import promptab
from promptab import Lab, PromptVariant

KINDS = {"naive_bayes": GaussianNB, "support_vectors": SVC}


def trained(config: Mapping[str, Any], images: Any, digits: Any) -> ClassifierMixin:
    """Return the classifier that a version describes."""
    return KINDS[config["model"]](**config.get("parameters", {})).fit(images, digits)


async def main() -> None:
    images, digits = load_digits(return_X_y=True)
    known, seen, known_digits, seen_digits = train_test_split(images, digits, test_size=0.6, random_state=1)

    async with promptab.open("sqlite:///:memory:") as lab:
        first = await lab.versions.create_version("digits", "model", config={"model": "naive_bayes"})
        second = await lab.versions.create_version(
            "digits", "model", config={"model": "support_vectors", "parameters": {"gamma": 0.001}}
        )
        await lab.versions.promote(first.version_id, reason="first release")
        models = {
            version.content_hash: trained(version.config, known, known_digits) for version in (first, second)
        }
        await lab.experiments.create_experiment(
            "digits", "model", [PromptVariant(first.version), PromptVariant(second.version)]
        )

        async def read(number: int) -> None:
            choice = await lab.choose("digits", "model", user_id=number)
            started = time.perf_counter()
            (answer,) = models[choice.content_hash or ""].predict(seen[number : number + 1])
            seconds = time.perf_counter() - started
            await choice.record(success=bool(answer == seen_digits[number]), response_time=seconds)

        await asyncio.gather(*(read(number) for number in range(len(seen))))
        await decide(lab)


async def decide(lab: Lab) -> None:
    """Promote the model that is shown to be better, if one is."""
    result = await lab.analyze("digits")
    for variant, estimate in result.metrics["success_rate"].estimates.items():
        print(f"{variant}: {100 * (estimate.value or 0.0):.1f} % of {estimate.events} images read right")
    print(result.reason)
    if result.winner is not None:
        await lab.promote_winner("digits", allow_approximate=True)
    live = await lab.choose("digits", "model", environment="production")
    print(f"in production: {live.config['model']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare two classifiers on real images.")
    parser.add_argument(
        "--local", action="store_true", help="as in the other examples; this one is always so"
    )
    parser.parse_args()
    asyncio.run(main())
