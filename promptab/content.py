"""What a version consists of, and the hash that identifies it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, PydanticInvalidForJsonSchema, ValidationError

from promptab.checks import CONTROL_BUT_BREAKS, check_items, check_json_object, check_name
from promptab.errors import InvalidInputError, TemplateError, TemplateLimitError
from promptab.models import MessageTemplate, PromptType, PromptVersion
from promptab.records import Json
from promptab.semver import is_exact, is_range

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt, Partial

TemplateInput = str | Sequence[MessageTemplate | Mapping[str, str]] | None
ValidationInput = Mapping[str, Any] | type[BaseModel] | None

_REFERENCE = re.compile(r"(?P<type>[a-z]+)/(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)(?:@(?P<version>.+))?")


class Content(NamedTuple):
    """The immutable part of a version, checked; includes are not pinned yet."""

    prompt_type: PromptType
    template: str
    messages: tuple[MessageTemplate, ...]
    defaults: Json
    validation: Json | None
    config: Json

    @property
    def sources(self) -> tuple[MessageTemplate, ...]:
        """The templates as messages; a text prompt is one message in the role of its type."""
        return sources(self.prompt_type, self.template, self.messages)

    def references(self, name: str) -> tuple[str, ...]:
        """Return the include references of all templates in their order, each once. Raises `TemplateError`."""
        from promptab.templates import inspect_template  # noqa: PLC0415 - see promptab.templates

        found: dict[str, None] = {}
        for index, message in enumerate(self.sources):
            label = name if not self.messages else f"{name}, message {index + 1}"
            found.update(dict.fromkeys(inspect_template(message.content, name=label).includes))
        return tuple(found)


class Reference(NamedTuple):
    """An include as written, such as `system/tone@^1.0`; `version` is `latest` where none is given."""

    prompt_type: PromptType
    name: str
    version: str


def check_content(
    prompt_type: PromptType,
    template: TemplateInput,
    *,
    defaults: Mapping[str, Any] | None,
    validation: ValidationInput,
    config: Mapping[str, Any] | None,
) -> Content:
    """Return the content with every part checked. Raises `InvalidInputError` naming the part."""
    text, messages = _check_template(prompt_type, template)
    return Content(
        prompt_type=prompt_type,
        template=text,
        messages=messages,
        defaults=check_json_object("defaults", {} if defaults is None else defaults),
        validation=None if validation is None else _check_validation(validation),
        config=check_json_object("config", {} if config is None else config),
    )


def sources(
    prompt_type: PromptType, template: str, messages: tuple[MessageTemplate, ...]
) -> tuple[MessageTemplate, ...]:
    if not prompt_type.has_template:
        return ()
    if messages:
        return messages
    return (MessageTemplate(role="system" if prompt_type == PromptType.SYSTEM else "user", content=template),)


def parse_reference(reference: str, *, template: str) -> Reference:
    """Split an include reference. Raises `TemplateError` for anything but type/name or type/name@version."""
    match = _REFERENCE.fullmatch(reference)
    if match is None or match["type"] not in set(PromptType):
        raise TemplateError(
            f"cannot include {reference!r}; write a type and a name with a version or a range, such as "
            '{% include "system/tone@^1.0" %}',
            template=template,
        )
    prompt_type = PromptType(match["type"])
    if not prompt_type.has_template:
        raise TemplateError(
            f"cannot include {reference!r}: a {prompt_type} has no template", template=template
        )
    version = match["version"] or "latest"
    if version != "latest" and not is_exact(version) and not is_range(version):
        raise TemplateError(
            f"cannot include {reference!r}: {version!r} is no version and no range", template=template
        )
    return Reference(prompt_type, match["name"], version)


def content_hash(content: Content, included_hashes: Mapping[str, str]) -> str:
    """Return SHA-256 in hex over the content, with each include reference and the hash it is pinned to.

    The same content has the same hash in every store: ids, names, authors and times are no part of it.
    """
    hashed = {
        "type": content.prompt_type.value,
        "template": content.template,
        "messages": [[message.role, message.content] for message in content.messages],
        "includes": dict(included_hashes),
        "defaults": content.defaults,
        "validation": content.validation,
        "config": content.config,
    }
    canonical = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def compile_version(version: PromptVersion, versions: Mapping[str, PromptVersion]) -> CompiledPrompt:
    """Return the version ready to render; `versions` holds what it includes, by id."""
    from promptab.templates import compile_prompt  # noqa: PLC0415 - see promptab.templates

    return compile_prompt(
        messages=sources(version.prompt_type, version.template, version.messages),
        includes=_partials(version, versions),
        defaults=version.defaults,
        validation=version.validation,
        name=version.label,
    )


def _partials(version: PromptVersion, versions: Mapping[str, PromptVersion]) -> dict[str, Partial]:
    """Return what the version includes; one that is included twice is one object, however deep the two places."""
    from promptab.templates import Partial  # noqa: PLC0415 - see promptab.templates

    made: dict[str, Partial] = {}

    def inner(current: PromptVersion) -> dict[str, Partial]:
        return {reference: of(version_id) for reference, version_id in current.includes.items()}

    def of(version_id: str) -> Partial:
        if version_id not in made:
            included = versions[version_id]
            made[version_id] = Partial(
                source=included.template, defaults=included.defaults, includes=inner(included)
            )
        return made[version_id]

    return inner(version)


def _check_template(
    prompt_type: PromptType, template: TemplateInput
) -> tuple[str, tuple[MessageTemplate, ...]]:
    if not prompt_type.has_template:
        if template:
            raise InvalidInputError(
                "template",
                template,
                f"empty for the type {prompt_type}",
                "put what it configures into config",
            )
        return "", ()
    if isinstance(template, str):
        if prompt_type == PromptType.MESSAGE and not template:
            raise InvalidInputError("template", template, "a text or a list of messages")
        _check_storable(template)
        return template, ()
    listed = () if template is None or isinstance(template, Mapping) else check_items("template", template)
    if not listed:
        raise InvalidInputError("template", template, "a text or a list of messages with role and content")
    messages = tuple(_check_message(index, message) for index, message in enumerate(listed))
    if prompt_type != PromptType.MESSAGE:
        raise InvalidInputError(
            "prompt_type", prompt_type.value, "message", "a list of messages is a prompt of type message"
        )
    return "", messages


def _check_validation(validation: Mapping[str, Any] | type[BaseModel]) -> dict[str, Any]:
    from promptab.templates import check_schema  # noqa: PLC0415 - see promptab.templates

    try:
        return check_json_object("validation", check_schema(validation))
    except PydanticInvalidForJsonSchema as error:
        raise InvalidInputError(
            "validation", validation, "a model whose fields JSON can hold", error.message
        ) from None


def _check_message(index: int, message: object) -> MessageTemplate:
    if not isinstance(message, MessageTemplate):
        try:
            message = MessageTemplate.model_validate(message)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise InvalidInputError(
                f"template[{index}].{place}" if place else f"template[{index}]",
                problem.get("input"),
                f"a message with role and content ({problem['msg']})",
            ) from None
    _check_storable(message.content)
    return message


def _check_storable(template: str) -> None:
    """Refuse what not every database and file can hold: controls and lone surrogates."""
    from promptab.templates.limits import Limits  # noqa: PLC0415 - see promptab.templates

    limit = Limits().source_chars
    if len(template) > limit:
        # before the characters are looked at
        raise TemplateLimitError(f"has {len(template)} characters, more than {limit} (limit `source_chars`)")
    found = CONTROL_BUT_BREAKS.search(template)
    if found is not None:
        line = template.count("\n", 0, found.start()) + 1
        raise TemplateError(f"contains the control character U+{ord(found[0]):04X}", line=line)


def check_prompt(name: str, prompt_type: str) -> tuple[PromptType, str]:
    """Return the key of a prompt, checked."""
    return PromptType.parse(prompt_type), check_name("name", name)
