"""A prompt with its history and an experiment on it, outcomes to record, and looks at what is live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptab import Deployment, Lab, PromptExperiment, PromptVariant, PromptVersion, VersionStatus

PROMPT = ("support_reply", "system")
CONTROL, CANDIDATE, OTHER = "1.0.0", "1.1.0", "1.2.0"
BETTER = {CONTROL: 0.6, CANDIDATE: 0.9}
WORSE = {CONTROL: 0.9, CANDIDATE: 0.6}
EQUAL = {CONTROL: 0.75, CANDIDATE: 0.75}


class Scene(NamedTuple):
    """A running experiment whose control is live in production."""

    lab: Lab
    experiment: PromptExperiment
    versions: Mapping[str, PromptVersion]

    @property
    def experiment_id(self) -> str:
        return self.experiment.experiment_id

    async def record(
        self, rates: Mapping[str, float], units: int = 400, *, prefix: str = "u", **measures: Any
    ) -> None:
        """Record one event for each of so many units of every variant, of which this share succeeded."""
        await self.lab.metrics.record_many(
            {
                "version_id": self.versions[key].version_id,
                # spread evenly, so that any beginning has about the same rate
                "success": int((number + 1) * rate) > int(number * rate),
                "experiment_id": self.experiment_id,
                "variant": key,
                "user_id": f"{prefix}{number}-{key}",
                **{name: of[key] for name, of in measures.items()},
            }
            for number in range(units)
            for key, rate in rates.items()
        )

    async def now(self) -> PromptExperiment:
        found = await self.lab.experiments.get_experiment(self.experiment_id)
        assert found is not None
        return found

    async def live(self) -> str | None:
        found = await self.lab.versions.get_version(*PROMPT, "production")
        return None if found is None else found.version

    async def status_of(self, number: str) -> VersionStatus:
        found = await self.lab.versions.get_version(*PROMPT, number)
        assert found is not None
        return found.status

    async def history(self) -> list[Deployment]:
        return await self.lab.versions.deployments(*PROMPT)


async def staged(
    lab: Lab,
    policy: Mapping[str, Any] | None = None,
    *,
    keys: tuple[str, ...] = (CONTROL, CANDIDATE),
    live: tuple[str, ...] = (CONTROL,),
    **options: Any,
) -> Scene:
    """Return a running experiment on versions of a prompt, which have been live in this order."""
    name, kind = PROMPT
    versions = {
        number: await lab.versions.create_version(name, kind, f"Answer kindly, {number}.", number)
        for number in (CONTROL, CANDIDATE, OTHER)
    }
    for number in live:
        await lab.versions.promote(versions[number].version_id)
    said = None if policy is None else {"allow_approximate": True, **policy}
    experiment = await lab.experiments.create_experiment(
        name, kind, [PromptVariant(key) for key in keys], policy=said, **options
    )
    return Scene(lab, experiment, versions)
