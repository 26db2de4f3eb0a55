"""What users of OpenFeature track, as outcomes of the experiments that the unit is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self

from openfeature.track import TrackingEventDetails

from promptab.assigning import unit_of
from promptab.checks import check_json_object
from promptab.errors import InvalidInputError, PromptabError
from promptab.integrations.openfeature.evaluating import Asker
from promptab.lab import Lab
from promptab.live_experiment import LiveExperiment
from promptab.snapshot import Dealt, Snapshot

logger = logging.getLogger("promptab")


class Outcome(NamedTuple):
    """One thing that was tracked."""

    metric: str
    value: float
    experiment: str | None
    asker: Asker

    @classmethod
    def of(cls, metric: str, asker: Asker, details: TrackingEventDetails | None) -> Outcome:
        """Raises `InvalidInputError` for an experiment that is no text, and where nobody is named."""
        told = TrackingEventDetails() if details is None else details
        named = told.attributes.get("experiment")
        if named is not None and not isinstance(named, str):
            raise InvalidInputError("experiment", named, "the name or id of an experiment")
        if asker.user_id is None and asker.session_id is None:
            raise InvalidInputError("targeting_key", None, "given", "say whose outcome it is")
        return cls(metric, 1.0 if told.value is None else told.value, named, asker)


class Outcomes:
    """Records outcomes beside their callers' way. Belongs to the event loop of the lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._pending: set[asyncio.Task[None]] = set()
        self.not_recorded = 0
        """Outcomes that were refused; each is in the log with its reason."""

    def add(self, metric: str, asker: Asker, details: TrackingEventDetails | None) -> None:
        task = asyncio.get_running_loop().create_task(self._recorded(metric, asker, details))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def flush(self) -> None:
        """Return when all that was added is recorded or refused."""
        while self._pending:
            await asyncio.wait(set(self._pending))

    async def _recorded(self, metric: str, asker: Asker, details: TrackingEventDetails | None) -> None:
        try:
            outcome = Outcome.of(metric, asker, details)
            for place in await self._places(outcome):
                await self._lab.metrics.record_result(
                    place.experiment,
                    metric,
                    outcome.value,
                    user_id=place.user_id,
                    session_id=place.session_id,
                )
        except PromptabError as error:
            self.not_recorded += 1
            logger.warning("outcome %r was not recorded: %s", metric, error)

    async def _places(self, outcome: Outcome) -> list[_Place]:
        """Return where it counts: where that is not said, in the running experiments that the unit is in."""
        snapshot, asker = await self._lab.store.snapshot(), outcome.asker
        now = self._lab.calls.clock()
        if outcome.experiment is not None:
            live = snapshot.experiment(outcome.experiment, now)
            return [_Place.of(outcome.experiment, None if live is None else live.experiment.unit, asker)]
        attributes = check_json_object("attributes", asker.attributes)
        found = [
            _Place.of(live.experiment.experiment_id, live.experiment.unit, asker)
            for live in snapshot.experiments
            if _may_hold(snapshot, live, asker, attributes, now)
        ]
        if not found:
            raise InvalidInputError(
                "experiment", None, "given", "this unit is in no running experiment; name one that has ended"
            )
        return found


class _Place(NamedTuple):
    """An experiment, and the unit in it."""

    experiment: str
    user_id: str | None
    session_id: str | None

    @classmethod
    def of(cls, experiment: str, unit: str | None, asker: Asker) -> Self:
        return cls(experiment, None if unit == "session" else asker.user_id, asker.session_id)


def _may_hold(
    snapshot: Snapshot, live: LiveExperiment, asker: Asker, attributes: Mapping[str, Any], now: datetime
) -> bool:
    """Whether the experiment has a variant for the unit. Where only the store knows, it may: an outcome of a unit that
    was never exposed is compared nowhere.
    """
    if live.experiment.unit not in {"user", "session"}:
        # where each request, or a set of features, is a unit, nothing comes later of the same one
        return False
    unit = snapshot.known_unit(unit_of(live.experiment, asker.user_id, asker.session_id, None))
    found = snapshot.assign(live, unit, attributes, now)
    return not isinstance(found, Dealt) or found.variant is not None
