"""Keeping to what was dealt: exposures, and units that may have been dealt a variant before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from promptab.errors import StoreUnavailableError
from promptab.live_experiment import LiveExperiment
from promptab.models import Exposure
from promptab.snapshot import Dealt, Lookup, first_dealt, kept_by
from promptab.stores.base import Store

LOOK_UP_SECONDS = 2.0
"""How long a request waits for the store, before it is served what a new unit gets."""

_AWAY = "the store is away, so whether the unit was dealt another variant before is not known"


def expose(store: Store, dealt: Dealt, attributes: Mapping[str, Any], now: datetime) -> None:
    """See to it that the exposure is written soon, where the unit is in the experiment."""
    if dealt.variant is not None:
        store.enqueue(_exposure(dealt, attributes, now))


async def look_up(store: Store, lookup: Lookup, attributes: Mapping[str, Any], now: datetime) -> Dealt:
    """Return the variant from before, or deal and write the fresh one, unless another process was faster.

    While the store is away the unit is served what a new one gets, which is then not `sure`.
    """
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await _kept(store, lookup, attributes, now)
    except (StoreUnavailableError, TimeoutError):
        likely = first_dealt(lookup, lookup.fresh.live, None)
        unsure = likely._replace(sure=False, detail=likely.detail if likely.variant is None else _AWAY)
        expose(store, unsure, attributes, now)
        return unsure


async def _kept(store: Store, lookup: Lookup, attributes: Mapping[str, Any], now: datetime) -> Dealt:
    fresh = lookup.fresh
    live, unit = fresh.live, fresh.unit
    assert unit is not None  # noqa: S101 - a look-up is only ever made for a unit,
    assert fresh.variant is not None  # noqa: S101 - and with a variant to fall back on
    held = await store.held(fresh.experiment_id, unit)
    if held is not None and held.source == "override":
        return fresh  # shown by hand for a while, and left out of the analysis since
    if held is None:
        dealt = first_dealt(lookup, live, await _holder(store, lookup.rivals, unit))
        if dealt.variant is None:
            return dealt
        held = await store.keep(_exposure(dealt, attributes, now))
        if held.current == dealt.key:
            return dealt
    kept = kept_by(live, unit, held.current, now)
    if kept is None:
        held = await store.serve_instead(held, fresh.variant.key)
        kept = kept_by(live, unit, held.current, now)
    return kept or fresh


async def _holder(store: Store, rivals: Sequence[LiveExperiment], unit: str) -> LiveExperiment | None:
    """Return the one of these experiments that the unit has been exposed to, if any."""
    for rival in rivals:
        if await store.held(rival.experiment.experiment_id, unit) is not None:
            return rival
    return None


def _exposure(dealt: Dealt, attributes: Mapping[str, Any], now: datetime) -> Exposure:
    assert dealt.unit is not None  # noqa: S101 - who has a variant is a unit
    assert dealt.variant is not None  # noqa: S101
    return Exposure(
        dealt.live.experiment.experiment_id,
        dealt.unit,
        dealt.variant.key,
        1 if dealt.epoch is None else dealt.epoch,
        now,
        attributes,
        "override" if dealt.reason == "override" else "assigned",
        propensity=dealt.propensity,
    )
