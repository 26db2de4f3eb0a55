"""From an evaluation context to a choice, and from a choice to what OpenFeature calls details."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple, Self

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import (
    FlagNotFoundError,
    GeneralError,
    InvalidContextError,
    ProviderNotReadyError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, FlagType, Reason

from promptab.checks import check_mapping
from promptab.choice import FLAG_REASONS, Choice
from promptab.errors import (
    InvalidInputError,
    NotFoundError,
    PromptabError,
    StoreUnavailableError,
)
from promptab.integrations.openfeature.flags import FlagKey, value_of


class Asker(NamedTuple):
    """Who asks, as `lab.choose` wants to know it."""

    user_id: str | None
    session_id: Any
    features: Any
    attributes: Mapping[str, Any]
    variables: Mapping[str, Any]

    @classmethod
    def of(cls, context: EvaluationContext | None) -> Self:
        """Raises `InvalidInputError` for variables that are none."""
        told = EvaluationContext() if context is None else context
        rest = {name: _plain(value) for name, value in told.attributes.items()}
        variables = check_mapping("variables", rest.pop("variables", {}))
        session_id, features = rest.pop("session_id", None), rest.pop("features", None)
        return cls(told.targeting_key or None, session_id, features, rest, variables)

    @property
    def how(self) -> dict[str, Any]:
        """Arguments of `choose`."""
        return {
            "user_id": self.user_id,
            "session_id": self.session_id,
            "features": self.features,
            "attributes": self.attributes,
        }


def details_of(
    choice: Choice, key: FlagKey, wanted: FlagType, asker: Asker, *, away: bool
) -> FlagResolutionDetails[Any]:
    """Return the flag's value with how it came about; `away` is whether the store is."""
    labels, version = choice.labels, choice.version
    metadata = {
        "version": None if version is None else version.version,
        "version_id": None if version is None else version.version_id,
        "content_hash": choice.content_hash,
        "experiment": labels.get("experiment"),
        "experiment_id": choice.experiment_id,
        "source": choice.source,
        "explanation": choice.reason,
        # a snapshot that was read from a file may be of any age
        "snapshot_age": choice.snapshot_age if math.isfinite(choice.snapshot_age) else None,
    }
    return FlagResolutionDetails(
        value=value_of(choice, key, wanted, asker.variables),
        variant=choice.variant or (None if version is None else version.version),
        reason=Reason.STALE if away else Reason(FLAG_REASONS[choice.source]),
        flag_metadata={name: fact for name, fact in metadata.items() if fact is not None},
    )


@contextmanager
def told_in_openfeatures_words() -> Iterator[None]:
    """Raise what OpenFeature has an error code for, in place of promptab's own errors."""
    try:
        yield
    except NotFoundError as error:
        raise FlagNotFoundError(str(error)) from error
    except StoreUnavailableError as error:
        raise ProviderNotReadyError(str(error)) from error
    except InvalidInputError as error:
        raise InvalidContextError(str(error)) from error
    except PromptabError as error:
        raise GeneralError(str(error)) from error


def _plain(value: object) -> Any:
    """Return an attribute as JSON has it: OpenFeature's may be times."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
