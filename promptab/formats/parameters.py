"""Names of model parameters: others write `topP` where the Python clients, and so promptab, write `top_p`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OURS = {
    "allowMultipleToolCalls": "parallel_tool_calls",
    "frequencyPenalty": "frequency_penalty",
    "maxCompletionTokens": "max_completion_tokens",
    "maxOutputTokens": "max_output_tokens",
    "maxTokens": "max_tokens",
    "presencePenalty": "presence_penalty",
    "stopSequences": "stop_sequences",
    "topK": "top_k",
    "topP": "top_p",
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def our_parameters(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters under the names of the Python clients; names that are not known stay as they are."""
    return _renamed(theirs, _OURS)


def their_parameters(ours: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round."""
    return _renamed(ours, _THEIRS)


def _renamed(parameters: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    # a file that has both spellings keeps both, since nobody can say which was meant
    return {
        (key if names.get(key, key) in parameters else names.get(key, key)): value
        for key, value in parameters.items()
    }
