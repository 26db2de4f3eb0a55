"""`promptab show`: one version whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.cli.options import JsonOption, ReferenceArgument, TypeOption, UrlOption
from promptab.cli.output import emit, facts, run, visible
from promptab.cli.references import find_version, parse_reference
from promptab.cli.wording import free_tags, moment
from promptab.content import compile_version
from promptab.lab import Lab
from promptab.models import PromptVersion
from promptab.stores.base import Transaction

if TYPE_CHECKING:
    from rich.console import Console


class _Shown(NamedTuple):
    version: PromptVersion
    required: list[str]
    optional: list[str]
    includes: dict[str, str]
    """Reference as written -> label of the version that it is pinned to."""
    parent: str | None


def show(
    reference: ReferenceArgument,
    *,
    prompt_type: TypeOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version: status, tags, variables, configuration, includes and the template as it is written.

    Without @VERSION the latest is shown.

    $ promptab show system/greeting
    $ promptab show system/greeting@1.0.0 --json
    """

    async def work(lab: Lab) -> _Shown:
        version = await find_version(lab, parse_reference(reference, prompt_type))

        async def read(tx: Transaction) -> tuple[dict[str, PromptVersion], PromptVersion | None]:
            parent = (
                None if version.parent_version is None else await tx.versions.by_id(version.parent_version)
            )
            return await tx.versions.with_includes(version), parent

        included, parent = await lab.store.read(read)
        compiled = compile_version(version, included) if version.prompt_type.has_template else None
        return _Shown(
            version=version,
            required=sorted(compiled.required) if compiled else [],
            optional=sorted(compiled.variables - compiled.required) if compiled else [],
            includes={text: included[version_id].label for text, version_id in version.includes.items()},
            parent=None if parent is None else parent.version,
        )

    shown = run(work, url=url)
    document = {
        **shown.version.model_dump(mode="json"),
        "variables": {"required": shown.required, "optional": shown.optional},
        "included_versions": shown.includes,
    }
    emit(document, as_json=as_json, human=lambda to: _print(to, shown))


def _print(to: Console, shown: _Shown) -> None:
    version = shown.version
    to.print(version.label, style="bold")
    lines: list[tuple[str, str]] = [
        ("status", version.status.value),
        ("tags", free_tags(version) or "-"),
        ("created", f"{moment(version.created_at)} UTC by {version.created_by or 'nobody named'}"),
        ("made from", shown.parent or "-"),
        ("version id", version.version_id),
        ("content", version.content_hash),
    ]
    if version.prompt_type.has_template:
        lines.append(("variables", _variables(shown)))
    lines.extend((f"includes {text}", label) for text, label in sorted(shown.includes.items()))
    to.print(facts(lines))
    for title, value in (
        ("configuration", version.config),
        ("defaults", version.defaults),
        ("validation", version.validation),
        ("metadata", version.metadata),
    ):
        if value:
            _print_part(to, title, json.dumps(_plain(value), indent=2, ensure_ascii=False))
    if version.messages:
        for message in version.messages:
            _print_part(to, message.role, message.content)
    elif version.template:
        _print_part(to, "template", version.template)


def _variables(shown: _Shown) -> str:
    told = [*shown.required, *(f"{name} (optional)" for name in shown.optional)]
    return ", ".join(told) or "none"


def _print_part(to: Console, title: str, text: str) -> None:
    to.print()
    to.print(f"{title}:", style="bold")
    # wrapped by the terminal alone: what is copied from here has the line breaks of the template
    to.print(visible(text), soft_wrap=True)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))
