"""From a `PromptSource` to the keys of the document that declares it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptab.cases import case_document
from promptab.library.document import CONFIG_KEYS, OUTPUT_KEYS, OWN
from promptab.library.picoschema import is_json_schema
from promptab.library.source import PromptSource
from promptab.models import PromptType


def document_of(source: PromptSource) -> dict[str, Any]:
    """Return the document that reads back as the same source; the texts come last."""
    document: dict[str, Any] = {}
    metadata = dict(source.metadata)
    if isinstance(metadata.get("description"), str):
        document["description"] = metadata.pop("description")
    own = _own_keys(source)
    if source.prompt_type is PromptType.CONFIG:
        document["config"] = source.config
    elif source.prompt_type is PromptType.MODEL and not source.config:
        own["config"] = {}  # a model file has to say its configuration, even an empty one
    elif (standard := _standard_config(source.config)) is not None:
        document |= standard
    else:
        own["config"] = source.config
    document |= _inputs(source.validation, source.defaults, own)
    if metadata:
        document["metadata"] = metadata
    if source.tests is not None:
        document["tests"] = [case_document(case) for case in source.tests]
    if own:
        document[OWN] = own
    if source.messages:
        document["messages"] = [message.model_dump() for message in source.messages]
    elif source.prompt_type.has_template:
        document["template"] = source.template
    return document


def _own_keys(source: PromptSource) -> dict[str, Any]:
    declared = {
        "version": source.version,
        "bump": source.bump,
        "status": None if source.status is None else source.status.value,
        "tags": list(source.tags) or None,
    }
    return {key: value for key, value in declared.items() if value is not None}


def _standard_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """A configuration as the document's own keys; None where they could not say it exactly."""
    output = config.get("output", {})
    fits = (
        set(config) <= set(CONFIG_KEYS.values())
        and isinstance(config.get("model", ""), str)
        and isinstance(config.get("parameters", {}), Mapping)
        and isinstance(config.get("tools", []), list | tuple)
        and isinstance(output, Mapping)
        and set(output) <= set(OUTPUT_KEYS)
        and isinstance(output.get("format", ""), str)
        and is_json_schema(output.get("schema", {}))
    )
    return {key: config[part] for key, part in CONFIG_KEYS.items() if part in config} if fits else None


def _inputs(
    schema: Mapping[str, Any] | None, defaults: Mapping[str, Any], own: dict[str, Any]
) -> dict[str, Any]:
    """The keys that declare the variables; `extras`, which says the same in a word, goes to our own keys."""
    if schema is not None and schema.get("additionalProperties") is True:
        rest = {key: value for key, value in schema.items() if key != "additionalProperties"}
        if rest and is_json_schema(rest):
            own["extras"] = True
            schema = None if rest == {"type": "object"} else rest
    inputs: dict[str, Any] = {}
    if schema is not None and is_json_schema(schema):
        inputs["schema"] = schema
    if defaults:
        inputs["default"] = defaults
    keys: dict[str, Any] = {"input": inputs} if inputs else {}
    if schema is not None and "schema" not in inputs:
        keys["validation"] = schema
    return keys
