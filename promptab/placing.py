"""Which experiment an event belongs to, and whether it says something of a unit that is news."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from promptab.assigning import find_experiment
from promptab.checks import known_id
from promptab.errors import InvalidInputError, NeedsStoreError
from promptab.live_experiment import LiveExperiment
from promptab.models import PromptExperiment
from promptab.snapshot import surprises
from promptab.stores.base import Store, Transaction


class Place(NamedTuple):
    experiment: PromptExperiment
    live: LiveExperiment | None
    """None where it is not being served any more."""


async def placed(
    store: Store, experiment: object, variant: object, *, unit: str | None, now: datetime
) -> str:
    """Return the id of the experiment that an event names, after its variant has been checked.

    A unit that was shown another variant than its hash gives is noted: from then on first meetings are looked up.
    """
    place = known_place(store, experiment, now) or await find_place(store, experiment, variant, now)
    if variant is not None:
        key = check_variant(variant, place.experiment)
        if is_news(place, key, unit, now):
            await look_up_first_meetings(store, place)
    return place.experiment.experiment_id


def placed_nowait(
    store: Store, experiment: object, variant: object, *, unit: str | None, now: datetime
) -> str:
    """Return what `placed` does, by the snapshot at hand.

    A canonical id that is not in it, as of an experiment that has ended, is taken as it is. Raises
    `NeedsStoreError` for any other name, and for a unit that would have to be noted.
    """
    _check_named(experiment, variant)
    snapshot = store.latest_snapshot()
    live = (
        None if snapshot is None or not isinstance(experiment, str) else snapshot.experiment(experiment, now)
    )
    if live is None:
        if (known := known_id(experiment)) is not None:
            return known
        raise NeedsStoreError(
            f"experiment {experiment!r} is not in the snapshot at hand; await record_event, or name it by its id"
        )
    place = Place(live.experiment, live)
    if variant is not None and is_news(place, check_variant(variant, live.experiment), unit, now):
        raise NeedsStoreError(
            f"unit {unit!r} was shown another variant than experiment {live.experiment.name!r} deals it, which the "
            "store has to note first; await record_event"
        )
    return live.experiment.experiment_id


async def find_place(store: Store, experiment: object, variant: object, now: datetime) -> Place:
    """Raises `NotFoundError`, and `InvalidInputError` for a variant of no experiment."""
    _check_named(experiment, variant)
    name = experiment if isinstance(experiment, str) else repr(experiment)
    snapshot = store.fresh_snapshot() or await store.snapshot()
    live = snapshot.experiment(name, now)
    if live is not None:
        return Place(live.experiment, live)
    return Place(await find_experiment(store, name, now=now), None)


def known_place(store: Store, experiment: object, now: datetime) -> Place | None:
    """Return what `find_place` does where that takes no waiting: of nearly every event."""
    snapshot = store.fresh_snapshot()
    if snapshot is None or type(experiment) is not str:
        return None
    live = snapshot.experiment(experiment, now)
    return None if live is None else Place(live.experiment, live)


def check_variant(variant: object, experiment: PromptExperiment) -> str:
    """Return the key of one of the experiment's variants."""
    if not isinstance(variant, str) or experiment.variant(variant) is None:
        keys = ", ".join(known.key for known in experiment.variants)
        raise InvalidInputError("variant", variant, f"one of the variants {keys} of {experiment.name!r}")
    return variant


def is_news(place: Place, variant: str, unit: str | None, now: datetime) -> bool:
    """Whether the unit would be dealt another variant, without a look-up."""
    return place.live is not None and unit is not None and surprises(place.live, unit, variant, now)


async def look_up_first_meetings(store: Store, place: Place) -> None:
    """Note that units have been shown variants that their hash does not give: they keep those."""

    async def work(tx: Transaction) -> None:
        current = await tx.experiments.by_id(place.experiment.experiment_id)
        if current is not None:
            await tx.experiments.replace(current.model_copy(update={"has_reported": True}))

    # of a thousand events recorded side by side as good as each is the first to bring news
    await store.write_once(("has_reported", place.experiment.experiment_id), work)


def _check_named(experiment: object, variant: object) -> None:
    if experiment is None:
        raise InvalidInputError("variant", variant, "given together with experiment_id")
