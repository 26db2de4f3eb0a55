"""One trial: every case of a prompt to a model, each answer judged, each verdict kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from promptab.calls.answer import Answer
from promptab.calls.apis import Client, client_of
from promptab.calls.failures import Failure, failure_of
from promptab.calls.pricing import Asked
from promptab.cases import CaseResult, unmet
from promptab.cases.results import MAX_KEPT_CHARS
from promptab.errors import InvalidInputError, StateError
from promptab.models import PromptVersion
from promptab.trying.ceiling import Ceiling, most_that_it_costs
from promptab.trying.functions import Function, load_functions, refusals
from promptab.trying.patterns import unmatched
from promptab.trying.questions import Question, all_unknown, questions_of
from promptab.trying.report import CaseReport, TriedCase
from promptab.trying.trial import Trial

if TYPE_CHECKING:
    from promptab.lab import Lab

_FREE = frozenset({"authentication", "invalid_request", "not_found", "overloaded", "rate_limit"})
"""Failures for which no provider charges: it did no work."""


async def try_cases(lab: Lab, version: PromptVersion, live: PromptVersion | None, trial: Trial) -> CaseReport:
    """Try every case on the version, and on `live` those of which nothing is kept there with the same model.

    Each verdict is kept when it is there, so an interrupted trial loses nothing. Raises `StateError` for a prompt
    without cases, `InvalidInputError` for what cannot be asked, and what the store raises; then nothing more is asked.
    """
    client = client_of(trial.client, trial.api)
    cases = await lab.versions.get_cases(version.name, version.prompt_type)
    if not cases:
        raise StateError(
            f"{version.prompt_type}/{version.name} has no cases; declare some under `tests:` in its file and push it, "
            "or give them to lab.versions.set_cases"
        )
    functions = load_functions(
        (reference for case in cases for reference in case.expect.python), allowed=trial.allow_python
    )
    await lab.calls.prices.ready()
    questions = await questions_of(lab, version, cases, client, trial)
    earlier: Mapping[str, CaseResult] = {}
    to_compare: list[Question] = []
    if live is not None:
        try:
            to_compare = await questions_of(lab, live, cases, client, trial)
        except InvalidInputError as error:
            to_compare = all_unknown(live, cases, f"cannot be asked: {error}")
        earlier = await _kept(lab, live, to_compare)
        to_compare = [question for question in to_compare if question.case.name not in earlier]
    run = _Run(lab, client, trial, functions)
    found = await run.results([*questions, *to_compare])
    on_version, on_live = found[: len(questions)], {**earlier, **_by_name(found[len(questions) :])}
    return CaseReport(
        prompt=f"{version.prompt_type}/{version.name}",
        version=version.version,
        live=None if live is None else live.version,
        cases=tuple(
            TriedCase(name=result.name, result=result, live=on_live.get(result.name)) for result in on_version
        ),
        calls=run.calls,
        cost=sum(result.cost or 0.0 for result in found),
        calls_of_unknown_cost=run.calls - sum(result.cost is not None for result in found),
    )


async def _kept(lab: Lab, version: PromptVersion, questions: Sequence[Question]) -> dict[str, CaseResult]:
    """Return what is kept of these questions, where they went to the same model."""
    results = await lab.versions.case_results(version.version_id)
    models = {question.case.name: question.model for question in questions}
    return {name: result for name, result in results.items() if result.model == models[name]}


def _by_name(results: Sequence[CaseResult]) -> dict[str, CaseResult]:
    return {result.name: result for result in results}


class _Run:
    """Asks, judges and keeps, a few at a time."""

    def __init__(self, lab: Lab, client: Client, trial: Trial, functions: Mapping[str, Function]) -> None:
        self._lab = lab
        self._client = client
        self._trial = trial
        self._functions = functions
        self._ceiling = Ceiling(trial.max_cost)
        self._turns = asyncio.Semaphore(trial.concurrency)
        self.calls = 0

    async def results(self, questions: Sequence[Question]) -> list[CaseResult]:
        """Return the results in the order of the questions."""
        # before the first call: what cannot be limited is refused while nothing is spent
        most = [self._most(question) for question in questions]
        self._trial.on_plan(len(questions))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._result(question, dollars))
                    for question, dollars in zip(questions, most, strict=True)
                ]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _result(self, question: Question, most: float) -> CaseResult:
        async with self._turns:
            result = question.known or await self._asked(question, most)
            if result.is_verdict:
                await self._lab.versions.keep_result(question.version.version_id, result)
            self._trial.on_result(result)
            return result

    def _most(self, question: Question) -> float:
        if self._trial.max_cost is None or question.known is not None or question.model is None:
            return 0.0
        asked = Asked(self._client.vendor, self._client.url, question.model)
        return most_that_it_costs(self._lab.calls.prices, asked, question.arguments, self._now())

    async def _asked(self, question: Question, most: float) -> CaseResult:
        if not await self._ceiling.set_aside(most):
            return question.result("not_run", "its cost could exceed the limit")
        at, started = self._now(), time.perf_counter()
        cost: float | None = None
        try:
            answer, failure = await self._answer(question)
            seconds = time.perf_counter() - started
            cost = self._cost(question, answer, at)
            if cost is None and failure is not None and failure.kind in _FREE:
                cost = 0.0
        finally:
            await self._ceiling.spend(most, cost)
        reasons = await self._reasons(question, answer, failure)
        judged = failure is None or failure.kind == "no_answer"
        return question.result(
            ("failed" if reasons else "passed") if judged else "error",
            *reasons,
            answer=answer.text[:MAX_KEPT_CHARS] if judged else None,
            cost=cost,
            seconds=seconds,
            at=at,
        )

    async def _answer(self, question: Question) -> tuple[Answer, Failure | None]:
        self.calls += 1
        try:
            async with asyncio.timeout(self._trial.timeout):
                response = await self._client.resource.create(**question.arguments)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, this case has no answer and others may
            return Answer(), failure_of(error)
        answer = self._client.api.read(response)
        return answer, answer.failure

    async def _reasons(self, question: Question, answer: Answer, failure: Failure | None) -> list[str]:
        if failure is not None:
            return [_why(failure)]
        expected, text = question.case.expect, answer.text
        mine = [(reference, self._functions[reference]) for reference in expected.python]
        return [
            *unmet(expected, text),
            *await unmatched(expected.regex, text),
            *await refusals(mine, text),
        ]

    def _cost(self, question: Question, answer: Answer, at: datetime) -> float | None:
        model = answer.model or question.model
        if model is None:
            return None
        asked = Asked(self._client.vendor, self._client.url, model, answer.terms)
        return self._lab.calls.prices.cost(asked, answer.usage, at)

    def _now(self) -> datetime:
        return self._lab.calls.clock()


def _why(failure: Failure) -> str:
    details = [str(part) for part in (failure.error_type, failure.status_code) if part is not None]
    told = {
        "authentication": "the provider refuses the key, or what it is used for",
        "no_answer": "the answer is empty",
        "not_found": "the provider has no such model",
        "rate_limit": "the provider limits the rate of requests",
        "timeout": "no answer in time",
    }.get(failure.kind, failure.kind.replace("_", " "))
    return f"{told} ({', '.join(details)})" if details else told
