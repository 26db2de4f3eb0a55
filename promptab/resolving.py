"""From how a version is asked for to the version itself: numbers, ranges, tags, and the includes of a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from promptab.checks import check_tag
from promptab.content import Content, content_hash, parse_reference
from promptab.errors import TemplateError
from promptab.lifecycle import SERVED_STATUSES
from promptab.models import PromptType, PromptVersion
from promptab.semver import best_match, is_exact, is_range
from promptab.stores.base import Transaction


async def find_version(tx: Transaction, kind: PromptType, name: str, version: str) -> PromptVersion | None:
    """Resolve an exact number, `latest`, a range or a tag."""
    if is_exact(version):
        return await tx.versions.by_number(kind, name, version)
    if version != "latest" and not is_range(version):
        tagged = await tx.versions.by_tag(kind, name, check_tag("version", version))
        return tagged[0] if tagged else None
    numbers = await tx.versions.numbers(kind, name, SERVED_STATUSES)
    wanted = (numbers[0] if numbers else None) if version == "latest" else best_match(version, numbers)
    return None if wanted is None else await tx.versions.by_number(kind, name, wanted)


async def pinned_version(
    tx: Transaction, version: PromptVersion, content: Content, references: Iterable[str]
) -> PromptVersion:
    """Return the version with its includes resolved, and the hash over it all."""
    label = f"{version.prompt_type}/{version.name}"
    includes: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for text in references:
        reference = parse_reference(text, template=label)
        found = await find_version(tx, reference.prompt_type, reference.name, reference.version)
        if found is None:
            raise TemplateError(
                f"cannot include {text!r}: no active version matches; "
                f"create {reference.prompt_type}/{reference.name} first",
                template=label,
            )
        if found.messages:
            raise TemplateError(
                f"cannot include {text!r}: it is a list of messages, not a text", template=label
            )
        includes[text] = found.version_id
        hashes[text] = found.content_hash
    pinned = version.model_copy(update={"includes": includes, "content_hash": content_hash(content, hashes)})
    _refuse_cycles(pinned, await tx.versions.with_includes(pinned))
    return pinned


def _refuse_cycles(version: PromptVersion, included: Mapping[str, PromptVersion]) -> None:
    """Refuse a prompt that reaches itself: pins are to finished versions, so it would not loop, but nobody
    means it.
    """

    def walk(current: PromptVersion, path: tuple[str, ...]) -> None:
        for version_id in current.includes.values():
            child = included[version_id]
            label = f"{child.prompt_type}/{child.name}"
            if label == path[0]:
                raise TemplateError(f"includes itself: {' -> '.join((*path, label))}", template=path[0])
            walk(child, (*path, label))

    walk(version, (f"{version.prompt_type}/{version.name}",))
