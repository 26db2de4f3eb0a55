"""The steps of the demo on an open lab. What people see of them is the command line's business."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from promptab.analysis.result import AnalysisResult
from promptab.choice import Choice
from promptab.demo.answering import Model, case_of
from promptab.demo.prompts import ACTOR, BETTER, WORSE, add_sentence
from promptab.errors import StateError
from promptab.lab import Lab
from promptab.models import Deployment, PromptExperiment, PromptVariant, PromptVersion
from promptab.stats.fixed import t_interval, t_p_value
from promptab.stats.interval import Interval
from promptab.stats.ratio import ratio_contrast
from promptab.stats.summary import UnitSums

_MOST_TURNS = 6
_CUSTOMERS_AT_ONCE = 50


class Served(NamedTuple):
    """What came of serving some customers."""

    customers: int
    calls: int
    by_version: Mapping[str, UnitSums]
    """Successes by version number, over customers."""


class Fall(NamedTuple):
    """How the version in production did, beside the one that was there before."""

    version: str
    before: str
    rate: float
    rate_before: float
    difference: float
    interval: Interval | None
    """None where no customer varies."""
    p_value: float | None
    calls: int

    @classmethod
    def between(cls, version: str, before: str, after_sums: UnitSums, before_sums: UnitSums) -> Fall:
        """Compare what came of a version with what came of the one before it, over customers."""
        contrast = ratio_contrast({1: after_sums}, {1: before_sums})
        rate, rate_before = after_sums.s / after_sums.n, before_sums.s / before_sums.n
        interval, p_value = None, contrast.exact_p
        if contrast.se is not None and contrast.df is not None:
            interval = t_interval(rate - rate_before, contrast.se, contrast.df)
            p_value = t_p_value(rate - rate_before, contrast.se, contrast.df)
        difference = rate - rate_before
        calls = round(after_sums.n)
        return cls(version, before, rate, rate_before, difference, interval, p_value, calls)

    @property
    def is_shown(self) -> bool:
        """Whether the whole interval lies below zero, or where no customer varies, p does not reach 0.05."""
        if self.interval is not None:
            return self.interval.high < 0.0
        return self.difference < 0.0 and self.p_value is not None and self.p_value < 0.05

    @property
    def reason(self) -> str:
        """What goes into the deployment history."""
        rates = f"{100 * self.rate:.1f} % success over {self.calls} calls, {100 * self.rate_before:.1f} %"
        if self.is_shown:
            return f"success fell: {rates} with {self.before} before"
        return f"not shown to be worse ({rates} with {self.before} before); taken back by hand"

    @property
    def evidence(self) -> dict[str, Any]:
        return {
            "success_rate": self.rate,
            "success_rate_before": self.rate_before,
            "difference": self.difference,
            "interval": None if self.interval is None else list(self.interval),
            "p_value": self.p_value,
            "calls": self.calls,
            "method": "before and after, over customers; not randomised",
        }


class Demo:
    """One run: `first` is the version to begin with. Steps are called in the order in which they are written."""

    def __init__(self, lab: Lab, model: Model, first: PromptVersion, *, seed: int) -> None:
        self.lab = lab
        self.model = model
        self.first = first
        self._seed = seed
        self._customers = 0
        self._seen: dict[str, UnitSums] = {}
        self._live = first

    async def release(self) -> tuple[PromptVersion, PromptExperiment]:
        """Put the first version into production and start an experiment against a second one."""
        await self.lab.versions.promote(self.first.version_id, reason="first release", actor=ACTOR)
        second = await add_sentence(self.lab, self.first, BETTER)
        experiment = await self.lab.experiments.create_experiment(
            self.first.name,
            self.first.prompt_type,
            [
                PromptVariant(self.first.version, 50, "as it is"),
                PromptVariant(second.version, 50, "shorter, and says what to do next"),
            ],
            salt=f"demo {self._seed}",
            created_by=ACTOR,
        )
        return second, experiment

    async def serve(
        self, customers: int, *, most_turns: int = _MOST_TURNS, on_customer: Callable[[], None]
    ) -> Served:
        """Answer new customers, some at a time, and record what came of each call.

        Each asks once to `most_turns` times. `on_customer` is called when one is through. Raises what a call raises.
        """
        outcomes: dict[str, list[tuple[float, float]]] = defaultdict(list)
        places = asyncio.Semaphore(_CUSTOMERS_AT_ONCE)

        async def one(customer: int) -> None:
            async with places:
                calls, successes = Counter[str](), Counter[str]()
                for turn in range(1 + customer % most_turns):
                    version, success = await self._answer(customer, turn)
                    calls[version] += 1
                    successes[version] += success
            for version in calls:
                outcomes[version].append((calls[version], successes[version]))
            on_customer()

        numbers = range(self._customers + 1, self._customers + customers + 1)
        self._customers += customers
        try:
            async with asyncio.TaskGroup() as serving:
                for number in numbers:
                    serving.create_task(one(number))
        except ExceptionGroup as failures:
            # what stops one call (a refused key, a full disk) stops them all: the first says it
            raise failures.exceptions[0] from None
        sums = {version: UnitSums.of(totals) for version, totals in sorted(outcomes.items())}
        self._seen |= sums
        return Served(customers, round(sum(each.n for each in sums.values())), sums)

    async def end_experiment(self, result: AnalysisResult) -> Deployment | None:
        """Promote the winner; without one the experiment is stopped and production stays as it is."""
        experiments, versions = self.lab.experiments, self.lab.versions
        if result.winner is None:
            await experiments.stop(result.experiment_id)
            return None
        self._live = await self._version(result.winner)
        move = await versions.promote(
            self._live.version_id,
            reason=result.reason,
            actor=ACTOR,
            expected=self.first.version,
            evidence=result.evidence(),
        )
        await experiments.complete(result.experiment_id, winner=result.winner)
        return move

    async def release_worse(self) -> PromptVersion:
        """Put a third version into production that nobody tried before."""
        third = await add_sentence(self.lab, self._live, WORSE)
        await self.lab.versions.promote(
            third.version_id, reason="a harmless sentence about privacy", actor=ACTOR
        )
        return third

    def fall(self, version: PromptVersion) -> Fall:
        """Compare what came of the version with what came of the one before it.

        Raises `StateError` where nobody was dealt that one: too few customers.
        """
        after = self._seen[version.version]
        before = self._seen.get(self._live.version)
        if before is None:
            raise StateError(f"no customer was dealt {self._live.label}; ask more of them")
        return Fall.between(version.version, self._live.version, after, before)

    async def roll_back(self, fall: Fall) -> Deployment:
        """Take production back, unless somebody else has done so already (`StateError`)."""
        move = await self.lab.versions.rollback(
            self.first.name,
            self.first.prompt_type,
            reason=fall.reason,
            expected=fall.version,
            actor=ACTOR,
            evidence=fall.evidence,
        )
        if move is None:
            raise StateError(f"{self.first.label.partition('@')[0]}: production is no longer {fall.version}")
        return move

    async def next_choice(self) -> Choice:
        """Return what a customer who comes now is served."""
        case = case_of(self._customers + 1, 0)
        return await self.lab.choose(self.first.name, self.first.prompt_type, user_id=case.user_id)

    async def history(self) -> list[Deployment]:
        return await self.lab.versions.deployments(self.first.name, self.first.prompt_type)

    async def _answer(self, customer: int, turn: int) -> tuple[str, bool]:
        """Serve one question; return the number of the version that was served, and the outcome."""
        case = case_of(customer, turn)
        choice = await self.lab.choose(self.first.name, self.first.prompt_type, user_id=case.user_id)
        prompt = choice.render(customer=case.customer, question=case.question)
        reply = await self.model.answer(prompt, case)
        await choice.record(reply.success, reply.seconds, reply.tokens, reply.rating, cost=reply.cost)
        return ("" if choice.version is None else choice.version.version), reply.success

    async def _version(self, number: str) -> PromptVersion:
        found = await self.lab.versions.get_version(self.first.name, self.first.prompt_type, number)
        if found is None:
            raise StateError(f"version {number} of {self.first.name} was deleted while the demo ran")
        return found
