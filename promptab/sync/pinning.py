"""The version that a file would become now, its includes pinned to what they mean now."""

from __future__ import annotations

from datetime import datetime

from promptab.content import content_hash
from promptab.errors import TemplateError
from promptab.models import PromptVersion
from promptab.sync.files import LocalPrompt
from promptab.sync.items import Key, label_of
from promptab.sync.picture import StorePicture

UNNUMBERED = "(file)"
"""Stands for the number of a version that has none yet."""


def planned_version(key: Key, prompt: LocalPrompt, picture: StorePicture, *, now: datetime) -> PromptVersion:
    """Return the version, its number open. Raises `TemplateError` for an include that means nothing, or itself."""
    includes: dict[str, str] = {}
    for text, reference in prompt.references.items():
        found = picture.included(reference)
        if found is None:
            continue
        if found.messages:
            raise TemplateError(
                f"cannot include {text!r}: it is a list of messages, not a text", template=prompt.path
            )
        includes[text] = found.version_id
    hashes = {
        prompt.references[text]: picture.by_id(version_id).content_hash
        for text, version_id in includes.items()
    }
    planned = PromptVersion(
        version_id=f"planned:{label_of(key)}",
        name=key[1],
        prompt_type=key[0],
        version=UNNUMBERED,
        template=prompt.content.template,
        messages=prompt.content.messages,
        includes=includes,
        defaults=prompt.content.defaults,
        validation=prompt.content.validation,
        config=prompt.content.config,
        content_hash=prompt.hash(hashes.get),
        metadata=prompt.source.metadata,
        created_at=now,
    )
    # the order of the files rules out a cycle among them, but a prompt of the store may include this one
    for included in picture.with_includes(planned).values():
        if (included.prompt_type, included.name) == key:
            raise TemplateError("includes itself by way of a version in the store", template=prompt.path)
    return planned


def says_the_same(prompt: LocalPrompt, version: PromptVersion, picture: StorePicture) -> bool:
    """Whether the file is what this version was made of, whatever its includes mean by now."""
    if set(prompt.references) != set(version.includes):
        return False
    hashes = {text: picture.by_id(version_id).content_hash for text, version_id in version.includes.items()}
    return content_hash(prompt.content, hashes) == version.content_hash


def moved_pins(before: PromptVersion, after: PromptVersion, picture: StorePicture) -> str:
    """Return which includes mean another version in `after`, such as "system/tone 1.0.0 -> 1.1.0"."""
    moved = []
    for text, version_id in after.includes.items():
        old, new = picture.by_id(before.includes[text]), picture.by_id(version_id)
        if old.content_hash != new.content_hash:
            moved.append(f"{new.prompt_type}/{new.name} {old.version} -> {new.version}")
    return ", ".join(moved)


def same_text(a: PromptVersion, b: PromptVersion) -> bool:
    """Whether two versions differ in nothing but the versions that their includes are pinned to."""
    parts = [(v.template, v.messages, v.defaults, v.validation, v.config, set(v.includes)) for v in (a, b)]
    return parts[0] == parts[1]
