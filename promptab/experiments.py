"""Experiments: creating them, starting and ending them, deleting them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from promptab.allocation import new_salt
from promptab.assigning import find_experiment
from promptab.bandit import Algorithm, Bandit, check_bandit
from promptab.checks import (
    check_flag,
    check_json_object,
    check_label,
    check_mapping,
    check_share,
    check_time,
    check_unit,
)
from promptab.decision_keeping import void
from promptab.errors import InvalidInputError, NotFoundError
from promptab.experiment_rules import (
    check_key,
    check_plan,
    check_policy,
    check_schedule,
    check_split,
    check_unit_kind,
    check_variants,
    check_where,
    prompt_of,
    settled,
)
from promptab.lifecycle import ENDED_STATUSES
from promptab.measures import canonical_metric
from promptab.models import ExperimentStatus, PromptExperiment, PromptType, PromptVariant, UnitKind
from promptab.moving import reread, with_status
from promptab.plan import AnalysisPlan
from promptab.policy import Policy
from promptab.spelling import check_metric_names
from promptab.starting import check_holdout, started
from promptab.steering import Steering
from promptab.stores.base import Transaction


class ABTestManager(Steering):
    """Weighted variants of a prompt or of plain configurations, and who gets which."""

    async def create_experiment(
        self,
        name: str,
        prompt_type: str,
        variants: Sequence[PromptVariant | Mapping[str, Any]],
        traffic_split: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        status: ExperimentStatus | str = ExperimentStatus.RUNNING,
        *,
        prompt_name: str | None = None,
        control: str | None = None,
        primary_metric: str | None = None,
        plan: AnalysisPlan | Mapping[str, Any] | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
        bandit: Bandit | Mapping[str, Any] | Algorithm | None = None,
        traffic: float = 1.0,
        unit: UnitKind = "user",
        sticky: bool = True,
        where: str | None = None,
        layer: str | None = None,
        holdout: str | None = None,
        overrides: Mapping[str, str] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        salt: str | None = None,
        created_by: str | None = None,
    ) -> PromptExperiment:
        """Create an experiment over at least two variants, running unless `status` says `draft`. Those with `shadow`
        are run beside what is served; where there is one of them, one that is served is enough.

        `name` is also the prompt's, unless `prompt_name` names another. Weights are relative; `traffic_split`
        (variant key -> weight) goes before the variants' own. The first variant is the control unless
        `control` names another. `primary_metric` is the policy's where that names one, else the success rate.
        `plan` says how it will be analysed (metrics, guardrails, measurement window) and `policy` what is done about
        it, as a `Policy` or in a shape that `promptab.criteria.read_criteria` reads; both are frozen at the start,
        and with a ramp the traffic is then its first step's. With `bandit`, as in `bandit="thompson"`, the weights
        follow the primary metric, whenever `rebalance` is called. `traffic` is the share of units enrolled; `where` a
        condition over attributes; experiments of one `layer` (by default those on one prompt) never share a unit;
        `holdout` names a share of units kept out, made with `set_holdout`. `starts_at` and `ends_at` schedule
        serving.

        Raises `InvalidInputError`, and `NotFoundError` when it is to run and the prompt lacks a variant's
        version.
        """
        status = ExperimentStatus.parse(status)
        if status not in {ExperimentStatus.DRAFT, ExperimentStatus.RUNNING}:
            raise InvalidInputError(
                "status", status.value, "draft or running", "an experiment begins as one of these"
            )
        kind = PromptType.parse(prompt_type)
        label = check_label("name", name)
        prompt = prompt_of(label, prompt_name)
        arms, shadows = check_variants(variants)
        keys = [variant.key for variant in arms]
        weights = check_split(traffic_split, arms)
        acted_on = check_policy(policy)
        named = primary_metric or (acted_on and acted_on.primary_metric) or "success_rate"
        metric = canonical_metric("primary_metric", named)
        declared = check_plan(plan)
        adaptive = check_bandit(
            bandit,
            keys=keys,
            primary=declared.definition(metric),
            plan=declared,
            sticky=check_flag("sticky", sticky) or unit == "request",
        )
        now = self._clock()
        experiment = PromptExperiment(
            experiment_id=str(uuid.uuid4()),
            name=label,
            prompt_type=kind,
            prompt_name=prompt,
            variants=arms,
            shadows=shadows,
            control=check_key("control", keys[0] if control is None else control, keys),
            traffic_split=weights,
            status=ExperimentStatus.DRAFT,
            traffic=check_share("traffic", traffic),
            unit=check_unit_kind(unit),
            sticky=sticky,
            where=check_where(where),
            layer=f"{kind}/{prompt or label}" if layer is None else check_label("layer", layer),
            holdout=None if holdout is None else check_label("holdout", holdout),
            overrides={
                check_unit("overrides", shown): check_key(f"overrides[{shown}]", key, keys)
                for shown, key in check_mapping("overrides", overrides or {}).items()
            },
            primary_metric=metric,
            plan=declared,
            policy=acted_on,
            bandit=adaptive,
            metadata=check_json_object("metadata", metadata or {}),
            salt=check_label("salt", salt or new_salt()),
            enrolment_salt=_further_salt(salt, "enrolment"),
            uniform_salt=_further_salt(salt, "uniform") if adaptive and adaptive.uniform else None,
            starts_at=None if starts_at is None else check_time("starts_at", starts_at),
            ends_at=None if ends_at is None else check_time("ends_at", ends_at),
            created_at=now,
            created_by=None if created_by is None else check_label("created_by", created_by),
        )
        check_schedule(experiment, now)
        settled(experiment, experiment.plan)

        async def work(tx: Transaction) -> PromptExperiment:
            await check_holdout(tx, experiment)
            await check_metric_names(tx, experiment)
            await tx.experiments.insert(experiment)
            if status == ExperimentStatus.RUNNING:
                return await started(tx, experiment, now)
            return experiment

        store = await self._store()
        if status == ExperimentStatus.RUNNING:
            # caps are frozen from what came before, and some of that may be queued
            await store.flush()
        return await store.write(work)

    async def get_experiment(self, experiment: str) -> PromptExperiment | None:
        """Return the experiment with this id or name (the live one of that name, else the newest), or None."""
        try:
            return await find_experiment(await self._store(), experiment, now=self._clock())
        except NotFoundError:
            return None

    async def list_experiments(
        self,
        name: str | None = None,
        status: ExperimentStatus | str | None = None,
        prompt_type: str | None = None,
    ) -> list[PromptExperiment]:
        """Return the experiments that match everything given, newest first."""
        statuses = None if status is None else frozenset({ExperimentStatus.parse(status)})
        kind = None if prompt_type is None else PromptType.parse(prompt_type)

        async def work(tx: Transaction) -> list[PromptExperiment]:
            return await tx.experiments.listing(name=name, statuses=statuses, prompt_type=kind)

        return await (await self._store()).read(work)

    async def update_experiment_status(
        self, experiment: str, status: ExperimentStatus | str, *, winner: str | None = None
    ) -> PromptExperiment:
        """Change the status as the table allows; the present status again changes nothing.

        `paused`, `completed` and `stopped` end serving to all units at once. `winner` is a variant's key, and
        goes with `completed`. Raises `NotFoundError` and `StateError`.
        """
        found = await find_experiment(await self._store(), experiment, now=self._clock())
        return await self._change_status(found, ExperimentStatus.parse(status), winner)

    async def _change_status(
        self, found: PromptExperiment, status: ExperimentStatus, winner: str | None = None
    ) -> PromptExperiment:
        if winner is not None:
            if status != ExperimentStatus.COMPLETED:
                raise InvalidInputError(
                    "winner", winner, f"given for the status {status}", "only completed has a winner"
                )
            check_key("winner", winner, [variant.key for variant in found.variants])
        now = self._clock()

        async def work(tx: Transaction) -> PromptExperiment:
            current = await reread(tx, found)
            changed = await with_status(tx, current, status, now=now, winner=winner)
            if status in ENDED_STATUSES:
                why = f"The experiment is {status} now and was {current.status}"
                await void(tx, current.experiment_id, why=why, at=now)
            return changed

        store = await self._store()
        if status == ExperimentStatus.RUNNING:
            await store.flush()
        return await store.write(work)

    async def start(self, experiment: str) -> PromptExperiment:
        """Start a draft; a name means the draft of that name, where there is one."""
        return await self._run(experiment, ExperimentStatus.DRAFT)

    async def pause(self, experiment: str) -> PromptExperiment:
        return await self.update_experiment_status(experiment, ExperimentStatus.PAUSED)

    async def resume(self, experiment: str) -> PromptExperiment:
        """Let a paused experiment go on; a name means the paused one of that name, where there is one."""
        return await self._run(experiment, ExperimentStatus.PAUSED)

    async def _run(self, experiment: str, prefer: ExperimentStatus) -> PromptExperiment:
        found = await find_experiment(await self._store(), experiment, now=self._clock(), prefer=prefer)
        return await self._change_status(found, ExperimentStatus.RUNNING)

    async def stop(self, experiment: str) -> PromptExperiment:
        """End the experiment without a winner."""
        return await self.update_experiment_status(experiment, ExperimentStatus.STOPPED)

    async def complete(self, experiment: str, winner: str | None = None) -> PromptExperiment:
        """End the experiment; `winner` is the key of a variant. Promoting its version is a step of its own."""
        return await self.update_experiment_status(experiment, ExperimentStatus.COMPLETED, winner=winner)

    async def delete_experiment(self, experiment: str) -> bool:
        """Delete an experiment with its exposures; its events stay. False where there is none."""
        found = await self.get_experiment(experiment)
        if found is None:
            return False
        experiment_id, now = found.experiment_id, self._clock()

        async def work(tx: Transaction) -> bool:
            await void(tx, experiment_id, why="The experiment has been deleted", at=now)
            return await tx.experiments.delete(experiment_id)

        return await (await self._store()).write(work)


def _further_salt(salt: str | None, of: str) -> str:
    """Return a salt that is independent of the experiment's own: where that is given, the same every time."""
    return new_salt() if salt is None else f"{salt}/{of}"
