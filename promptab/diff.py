"""What changed between two versions, part by part, and how large a step in SemVer that is."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from promptab.models import Json, PromptVersion, Record
from promptab.semver import Bump

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt


class VersionDiff(Record):
    """From `before` to `after`. Empty parts did not change."""

    before: str
    """Version number."""
    after: str
    template: str = ""
    """Unified diff of the templates, message by message for chat prompts."""
    variables_added: tuple[str, ...] = ()
    variables_removed: tuple[str, ...] = ()
    variables_changed: tuple[str, ...] = ()
    """Retyped, or with another default, or required where it was optional and the reverse."""
    config: Mapping[str, tuple[Any, Any]] = {}
    """Path in the configuration -> (before, after); None for absent."""
    output_schema: Mapping[str, tuple[Any, Any]] = {}
    """Path in the output schema -> (before, after); None for absent."""
    grade: Bump | None = None
    """The SemVer step that the change asks for; None where nothing changed."""
    reasons: tuple[str, ...] = ()
    """Why it is graded so, weightiest first."""

    @property
    def empty(self) -> bool:
        return self.grade is None


def diff_versions(
    before: PromptVersion,
    after: PromptVersion,
    *,
    before_compiled: CompiledPrompt | None,
    after_compiled: CompiledPrompt | None,
) -> VersionDiff:
    """Compare two versions. The compiled prompts are None for models and configurations.

    Graded as design 5 says: a required variable added, removed or retyped, or a narrowed output schema, is
    major; an optional variable, a model or a configuration is minor; prose alone is patch.
    """
    old, new = _Variables(before, before_compiled), _Variables(after, after_compiled)
    added, removed = sorted(new.all - old.all), sorted(old.all - new.all)
    changed = sorted(name for name in old.all & new.all if old.facts(name) != new.facts(name))
    retyped = [name for name in changed if new.retypes(name, old)]
    config = _changes(_without_schema(before.config), _without_schema(after.config))
    output = _changes(before.output_schema or {}, after.output_schema or {})
    template = _template_diff(before, after)
    major = [
        *(f"required variable {name} added" for name in added if name in new.required),
        *(f"required variable {name} removed" for name in removed if name in old.required),
        *(f"variable {name} became required" for name in changed if name in new.required - old.required),
        *(f"required variable {name} retyped" for name in retyped if name in old.required | new.required),
        *_narrowings(before.output_schema, after.output_schema),
    ]
    minor = [
        *(f"optional variable {name} added" for name in added if name not in new.required),
        *(f"optional variable {name} removed" for name in removed if name not in old.required),
        *(f"optional variable {name} retyped" for name in retyped if name not in old.required | new.required),
        *(f"variable {name} became optional" for name in changed if name in old.required - new.required),
        *(
            f"variable {name} is no longer typed"
            for name in changed
            if old.schema(name) and not new.schema(name)
        ),
        *(f"default of {name} changed" for name in changed if old.default(name) != new.default(name)),
        *(f"configuration {path} changed" for path in config),
        *(
            ["output schema widened"]
            if output and not _narrowings(before.output_schema, after.output_schema)
            else []
        ),
    ]
    patch = []
    if template:
        patch.append("prose changed")
    if before.content_hash != after.content_hash and not (major or minor or patch):
        patch.append("included prompts or declarations changed")
    grade: Bump | None = "major" if major else "minor" if minor else "patch" if patch else None
    return VersionDiff(
        before=before.version,
        after=after.version,
        template=template,
        variables_added=tuple(added),
        variables_removed=tuple(removed),
        variables_changed=tuple(changed),
        config=config,
        output_schema=output,
        grade=grade,
        reasons=(*major, *minor, *patch),
    )


class _Variables:
    """What a version asks of its caller."""

    def __init__(self, version: PromptVersion, compiled: CompiledPrompt | None) -> None:
        self._defaults = version.defaults
        properties = (version.validation or {}).get("properties", {})
        self._schemas: Json = properties if isinstance(properties, Mapping) else {}
        self.required = compiled.required if compiled is not None else frozenset[str]()
        self.all = (compiled.variables if compiled is not None else frozenset[str]()) | frozenset(
            self._schemas
        )

    def schema(self, name: str) -> Any:
        return _without_prose(self._schemas.get(name))

    def retypes(self, name: str, before: _Variables) -> bool:
        """Whether a value that was right before may be refused now; dropping a type refuses nothing."""
        return bool(self.schema(name)) and self.schema(name) != before.schema(name)

    def default(self, name: str) -> Any:
        return self._defaults.get(name)

    def facts(self, name: str) -> tuple[bool, str, str]:
        return (
            name in self.required,
            json.dumps(self.schema(name), sort_keys=True),
            json.dumps(self.default(name), sort_keys=True),
        )


def _without_prose(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    return {key: value for key, value in schema.items() if key not in {"title", "description", "examples"}}


def _without_schema(config: Json) -> Json:
    output = config.get("output")
    if not isinstance(output, Mapping) or "schema" not in output:
        return config
    return {**config, "output": {key: value for key, value in output.items() if key != "schema"}}


def _changes(before: Json, after: Json, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the leaves that differ, by dotted path."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed.update(_changes(old, new, f"{path}{key}."))
        elif old != new or (key in before) != (key in after):
            changed[f"{path}{key}"] = (old, new)
    return changed


def _narrowings(before: Json | None, after: Json | None) -> list[str]:
    """Return in what way readers of the old output could be disappointed by the new one.

    Only what readers rely on is looked at: properties and types that are gone, and fewer allowed values.
    Whatever cannot be told apart from a narrowing counts as one.
    """
    if before is None:
        return []
    if after is None:
        return ["output schema removed"]
    return _schema_narrowings(before, after, "output")


def _schema_narrowings(before: Json, after: Json, place: str) -> list[str]:
    found = []
    if _without_prose(before) == _without_prose(after):
        return []
    if before.get("type") != after.get("type"):
        found.append(f"{place}: type changed from {before.get('type')} to {after.get('type')}")
    old_values, new_values = before.get("enum"), after.get("enum")
    if new_values is not None and (
        old_values is None or any(value not in new_values for value in old_values)
    ):
        found.append(f"{place}: fewer values allowed")
    old_properties, new_properties = before.get("properties") or {}, after.get("properties") or {}
    for name in sorted(old_properties):
        if name not in new_properties:
            found += [f"{place}.{name}: property removed"]
        elif isinstance(old_properties[name], Mapping) and isinstance(new_properties[name], Mapping):
            found.extend(_schema_narrowings(old_properties[name], new_properties[name], f"{place}.{name}"))
    for name in sorted(set(before.get("required") or ()) - set(after.get("required") or ())):
        if name in new_properties:
            found.append(f"{place}.{name}: no longer always there")
    if isinstance(before.get("items"), Mapping) and isinstance(after.get("items"), Mapping):
        found.extend(_schema_narrowings(before["items"], after["items"], f"{place}[]"))
    known = {"type", "enum", "properties", "required", "items", "title", "description", "examples"}
    found.extend(
        f"{place}: {key} changed"
        for key in sorted({*before, *after} - known)
        if before.get(key) != after.get(key)
    )
    return found


def _template_diff(before: PromptVersion, after: PromptVersion) -> str:
    return "".join(
        difflib.unified_diff(
            _lines(before), _lines(after), fromfile=before.label, tofile=after.label, lineterm="\n"
        )
    )


def _lines(version: PromptVersion) -> list[str]:
    if not version.messages:
        return _ended(version.template)
    lines: list[str] = []
    for message in version.messages:
        lines.append(f"[{message.role}]\n")
        lines.extend(_ended(message.content))
    return lines


def _ended(text: str) -> list[str]:
    return [line if line.endswith("\n") else f"{line}\n" for line in text.splitlines(keepends=True)]
