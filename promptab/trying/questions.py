"""What a model is asked about each case: rendered, and in the shape of the client's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.calls.apis import Client
from promptab.calls.asking import ModelChoice, ask_of, model_chain
from promptab.cases import Case, CaseResult, CaseStatus, digest_of
from promptab.choice import Choice
from promptab.errors import InvalidInputError
from promptab.models import PromptVersion
from promptab.trying.trial import LENGTHS, Trial

if TYPE_CHECKING:
    from promptab.lab import Lab


class Question(NamedTuple):
    """One case on one version, ready to be asked; or what is known without asking."""

    version: PromptVersion
    case: Case
    model: str | None
    arguments: Mapping[str, Any]
    """Of the client's `create`."""
    known: CaseResult | None = None

    def result(self, status: CaseStatus, *reasons: str, **more: Any) -> CaseResult:
        return CaseResult(
            name=self.case.name,
            digest=digest_of(self.case),
            status=status,
            reasons=reasons,
            model=self.model,
            **more,
        )


async def questions_of(
    lab: Lab, version: PromptVersion, cases: Sequence[Case], client: Client, trial: Trial
) -> list[Question]:
    """Return a question for each case. A case that does not render has failed already.

    Raises `InvalidInputError` for a configuration that cannot be asked, such as one without a model.
    """
    choice = await lab.choose(version.name, version.prompt_type, version=version.version)
    config = choice.config
    chosen = model_chain(config, model=trial.model, parameters=None)[0]
    if trial.max_tokens is not None:
        chosen = _with_length(chosen, trial.max_tokens)
    return [_question(version, choice, case, chosen, config, client) for case in cases]


def all_unknown(version: PromptVersion, cases: Sequence[Case], why: str) -> list[Question]:
    """Return questions that cannot be asked."""
    bare = [Question(version, case, None, {}) for case in cases]
    return [question._replace(known=question.result("error", why)) for question in bare]


def _question(
    version: PromptVersion,
    choice: Choice,
    case: Case,
    chosen: ModelChoice,
    config: Mapping[str, Any],
    client: Client,
) -> Question:
    question = Question(version, case, chosen.model, {})
    try:
        rendered = choice.messages(**case.variables) if choice.has_template else ()
    except InvalidInputError as error:
        return question._replace(known=question.result("failed", f"does not render: {error}"))
    ask = ask_of(chosen, rendered, case.messages, config, name=version.name)
    return question._replace(arguments=client.arguments(ask, {}))


def _with_length(chosen: ModelChoice, tokens: int) -> ModelChoice:
    """Limit the answer under the name that the configuration uses, or under one that every protocol translates."""
    said = next((name for name in LENGTHS if name in chosen.parameters), "max_output_tokens")
    others = {name: value for name, value in chosen.parameters.items() if name not in LENGTHS}
    return chosen._replace(parameters={**others, said: tokens})
