"""What an experiment deals, and what is read of it, changed while it runs: weights, traffic, policy, overrides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from promptab.allocation import new_salt, normalise
from promptab.assigning import Assigning, find_experiment
from promptab.changing_policy import with_policy
from promptab.checks import check_label, check_mapping, check_number, check_share, check_text, check_unit
from promptab.errors import InvalidInputError
from promptab.experiment_rules import check_key, check_policy, check_shadow_key
from promptab.models import EVERY_UNIT, PromptExperiment
from promptab.moving import reread, with_shadow, with_traffic, with_weights
from promptab.pointing import Occasion
from promptab.policy import Policy
from promptab.stores.base import Transaction

LEAD_SECONDS = 2.0
"""How far ahead a change of weights takes effect where other processes share the store, so that all know it
in time.
"""


class Steering(Assigning):
    """Changes experiments under way. A unit keeps the variant that it has unless a method says otherwise."""

    async def update_weights(
        self,
        experiment: str,
        weights: Mapping[str, float],
        *,
        evict: bool = False,
        lead_seconds: float | None = None,
    ) -> PromptExperiment:
        """Change the weights; every variant is named, zero stops new units. Units keep the variant they have.

        The new map moves the least measure that the new weights allow. It takes effect `lead_seconds` from
        now, by default 2 where other processes may share the store and at once where none can. A change that
        has not taken effect yet is replaced. `evict=True` takes effect at once, and deals the units of variants
        with weight zero anew.

        Raises `NotFoundError`, and `StateError` where the experiment has ended.
        """
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        keys = [variant.key for variant in found.variants]
        for key in check_mapping("weights", weights):
            check_key("weights", key, keys)
        if missing := [key for key in keys if key not in weights]:
            raise InvalidInputError(
                "weights", missing[0], "among the weights", "name every variant; zero stops new units"
            )
        shares = normalise({key: weights[key] for key in keys}, positive=False)
        lead = LEAD_SECONDS if store.shared else 0.0
        if lead_seconds is not None:
            lead = check_number("lead_seconds", lead_seconds, low=0.0, high=3600.0)
        now = self._clock()
        await store.flush()

        async def work(tx: Transaction) -> PromptExperiment:
            starts_at = now if evict else now + timedelta(seconds=lead)
            current = await reread(tx, found)
            return await with_weights(tx, current, shares, now=now, starts_at=starts_at, evict=evict)

        return await store.write(work)

    async def update_traffic(self, experiment: str, traffic: float) -> PromptExperiment:
        """Change the share of units that are enrolled. Nobody is dealt anew, and enrolled units stay
        enrolled.
        """
        share = check_share("traffic", traffic)
        now = self._clock()
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        await store.flush()

        async def work(tx: Transaction) -> PromptExperiment:
            return await with_traffic(tx, await reread(tx, found), share, now=now)

        return await store.write(work)

    async def set_policy(
        self,
        experiment: str,
        policy: Policy | Mapping[str, Any] | None,
        *,
        reason: str = "",
        actor: str | None = None,
    ) -> PromptExperiment:
        """Put another policy in the place of the experiment's, or with None take it away; the same changes nothing.

        A draft just has the new one. On an experiment that has started a new analysis begins, with a digest of its
        own and an entry among its decisions: only units first exposed from now on are read, and the policy's times
        count from now. Traffic becomes that of the last step of the new ramp that is not above it, else the first's.

        Raises `NotFoundError`, `InvalidInputError` where the policy does not fit the plan, and `StateError` where the
        experiment has ended, or where its events have been pruned and the policy brings metrics that nothing was
        added up of.
        """
        wanted = check_policy(policy)
        text = check_text("reason", reason)
        who = None if actor is None else check_label("actor", actor)
        store = await self._store()
        found = await find_experiment(store, experiment, now=self._clock())
        await store.flush()
        now = self._clock()

        async def work(tx: Transaction) -> PromptExperiment:
            current = await reread(tx, found)
            return await with_policy(tx, current, wanted, Occasion(now, who, text))

        return await store.write(work)

    async def update_shadow(self, experiment: str, variant: str, share: float) -> PromptExperiment:
        """Change the share of units that a shadow is run on, 0 to 1; a larger share only adds units, 0 rests it.

        Raises `NotFoundError`, `InvalidInputError` for what is no shadow of the experiment, and `StateError` where
        that has ended.
        """
        part = check_share("share", share)
        found = await find_experiment(await self._store(), experiment, now=self._clock())
        check_shadow_key(found, variant)
        now = self._clock()

        async def work(tx: Transaction) -> PromptExperiment:
            return await with_shadow(tx, await reread(tx, found), variant, part, now=now)

        return await (await self._store()).write(work)

    async def set_override(
        self, experiment: str, user_id: str | int, variant: str | None
    ) -> PromptExperiment:
        """Show one user a variant by hand, or with None no longer; `*` is everybody without one of their own.

        Such units are left out of the analysis, also when they were exposed before, and for good.
        """
        shown = check_unit("user_id", user_id)
        store = await self._store()
        await store.flush()
        found = await find_experiment(store, experiment, now=self._clock())
        if variant is not None:
            check_key("variant", variant, [v.key for v in found.variants])

        async def work(tx: Transaction) -> PromptExperiment:
            current = await reread(tx, found)
            overrides = {unit: key for unit, key in current.overrides.items() if unit != shown}
            if variant is not None:
                overrides[shown] = variant
            if EVERY_UNIT in {shown, *current.overrides}:
                await tx.rollup.recount(current.experiment_id)
            else:
                await tx.rollup.withdraw([shown], experiment_id=current.experiment_id)
            await tx.exposures.leave_out(current.experiment_id, None if shown == EVERY_UNIT else shown)
            changed = current.model_copy(update={"overrides": overrides})
            await tx.experiments.replace(changed)
            return changed

        return await store.write(work)

    async def set_holdout(self, name: str, share: float) -> None:
        """Keep a share of units out of all experiments that name this holdout. A larger share only adds
        units.
        """
        label, part = check_label("name", name), check_share("share", share)

        async def work(tx: Transaction) -> None:
            known = (await tx.experiments.holdouts()).get(label)
            await tx.experiments.set_holdout(label, new_salt() if known is None else known.salt, part)

        await (await self._store()).write(work)
