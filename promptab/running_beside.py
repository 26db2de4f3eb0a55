"""What an experiment runs in the shadow of something that it serves, ready to be chosen from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from promptab.choice import InShadow, Served
from promptab.errors import NotFoundError, PromptabError
from promptab.live_experiment import LiveExperiment
from promptab.models import PromptVersion
from promptab.snapshot import Snapshot

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

logger = logging.getLogger("promptab.shadows")

Compile = Callable[[PromptVersion | None, Mapping[str, PromptVersion]], "CompiledPrompt | None"]


def run_beside(
    snapshot: Snapshot, served: Served, live: LiveExperiment, compiled: Compile
) -> tuple[InShadow, ...]:
    """Return the experiment's shadows. One that cannot be run is logged and left out: what is served goes on."""
    name = live.experiment.name
    found = []
    for shadow, seed, share in live.shadows:
        version = snapshot.variant_version(live, shadow.version)
        try:
            if shadow.version is not None and version is None:
                raise NotFoundError("version", shadow.version)
            beside = served._replace(
                source="shadow",
                reason=f"in the shadow of variant {served.variant} of experiment {name!r}",
                version=version,
                compiled=compiled(version, snapshot.versions),
                variant=shadow.key,
                variant_config=shadow.config or {},
            )
        except PromptabError as error:
            logger.warning("shadow %s of experiment %r is not run: %s", shadow.key, name, error)
            continue
        found.append(InShadow(beside, seed, share))
    return tuple(found)
