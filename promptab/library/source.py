"""What one prompt file declares: the content of a prompt, and what its author asks of its next version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from promptab.cases import Case, check_cases
from promptab.checks import check_json_object, check_name, check_tag, check_text
from promptab.errors import InvalidInputError, PromptFileError
from promptab.models import MessageTemplate, PromptType, VersionStatus
from promptab.records import Json, Record
from promptab.semver import parse_version

BUMPS = ("major", "minor", "patch", "auto")


class PromptSource(Record):
    """The content of one prompt as a file declares it. The parts mean what they mean in `PromptVersion`."""

    name: str
    prompt_type: PromptType
    template: str = ""
    messages: tuple[MessageTemplate, ...] = ()
    defaults: Json = Field(default_factory=dict)
    validation: Json | None = None
    config: Json = Field(default_factory=dict)
    metadata: Json = Field(default_factory=dict)
    version: str | None = None
    """The version that the file asks for; None leaves the choice to `bump`."""
    bump: str | None = None
    """One of `BUMPS`, or None where the file does not say; never beside `version`."""
    status: VersionStatus | None = None
    tags: tuple[str, ...] = ()
    """In the order of the file."""
    tests: tuple[Case, ...] | None = None
    """The prompt's cases, which no version holds; None where the file does not speak of them."""

    @property
    def label(self) -> str:
        """How people name it: `system/support_reply`."""
        return f"{self.prompt_type}/{self.name}"

    @property
    def fingerprint(self) -> str:
        """Equal for two sources exactly if they declare the same; unlike `==`, tells 1 and true apart."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


class PromptFile(NamedTuple):
    path: str
    """Relative to the library's folder, with forward slashes."""
    source: PromptSource


class LibraryContents(NamedTuple):
    """Everything that a folder holds: what can be used, and what cannot with the reason."""

    prompts: Mapping[tuple[PromptType, str], PromptFile]
    """By type and name; types in the order of `PromptType`, names in the order of their characters."""
    problems: tuple[PromptFileError, ...]
    """By path, then line. A prompt with a problem is not in `prompts`."""


def check_source(source: PromptSource) -> PromptSource:
    """Return the source with plain copies of its JSON, or refuse what no file may declare.

    The syntax of templates and schemas is not checked here but when a file is read, and what is written is read again.
    """
    check_name("name", source.name)
    _check_texts(source)
    _check_wishes(source)
    validation = source.validation
    return source.model_copy(
        update={
            "defaults": check_json_object("defaults", source.defaults),
            "validation": None if validation is None else check_json_object("validation", validation),
            "config": check_json_object("config", source.config),
            "metadata": check_json_object("metadata", source.metadata),
            "tests": None if source.tests is None else check_cases("tests", source.tests),
        }
    )


def _check_texts(source: PromptSource) -> None:
    """A text has a template, a chat has messages, models and configurations have neither."""
    kind = source.prompt_type
    from promptab.templates import Limits  # noqa: PLC0415 - see promptab.templates

    limit = Limits().source_chars
    check_text("template", source.template, limit=limit)
    for index, message in enumerate(source.messages):
        check_text(f"messages[{index}].content", message.content, limit=limit)
    if source.template and not kind.has_template:
        raise InvalidInputError("template", source.template, f"allowed: a {kind} prompt has no template")
    if source.messages and kind is not PromptType.MESSAGE:
        raise InvalidInputError(
            "messages",
            f"{len(source.messages)} messages",
            f"allowed: a {kind} prompt has no messages",
            "put chat prompts into the folder message/",
        )
    if source.messages and source.template:
        raise InvalidInputError("template", source.template, "allowed beside messages", "keep one of the two")
    if kind is PromptType.MESSAGE and not source.messages and not source.template:
        raise InvalidInputError("messages", [], "a list of at least one message with role and content")


def _check_wishes(source: PromptSource) -> None:
    if source.tests is not None and source.prompt_type is PromptType.CONFIG:
        raise InvalidInputError("tests", len(source.tests), "allowed: a config prompt asks no model")
    if source.version is not None:
        parse_version(source.version)
    if source.bump is not None and source.bump not in BUMPS:
        raise InvalidInputError("bump", source.bump, f"one of {', '.join(BUMPS)}")
    if source.version is not None and source.bump is not None:
        raise InvalidInputError(
            "bump", source.bump, "needed where a version is declared", "declare one of the two"
        )
    for tag in source.tags:
        check_tag("tags", tag)
    if len(set(source.tags)) != len(source.tags):
        raise InvalidInputError("tags", list(source.tags), "a list without repetitions")
