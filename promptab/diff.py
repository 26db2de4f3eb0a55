"""What changed between two versions, part by part, and how large a step in SemVer that is."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from promptab.models import PromptVersion
from promptab.records import Json, Record
from promptab.semver import Bump

if TYPE_CHECKING:
    from promptab.templates import CompiledPrompt

_NOT_ENDED = "\\ No newline at end of file\n"

_PROSE = frozenset({"title", "description", "examples", "$comment"})
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose keys are names, so that a property may be called `title`."""
_PLAIN_JSON = frozenset({"enum", "const", "default", "required", "dependentRequired"})
"""Keywords whose value holds no schema."""
_SETS = frozenset({"type", "enum", "required"})
"""Keywords whose value, where it is a list, has no order."""


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
    """Path in the configuration -> (before, after); None for absent. Keys are joined by dots; one that holds a
    dot is quoted.
    """
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
    narrowed, widened, output_prose = _output_reasons(before.output_schema, after.output_schema)
    major = [
        *(f"required variable {name} added" for name in added if name in new.required),
        *(f"required variable {name} removed" for name in removed if name in old.required),
        *(f"variable {name} became required" for name in changed if name in new.required - old.required),
        *(f"required variable {name} retyped" for name in retyped if name in old.required | new.required),
        *narrowed,
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
        *(f"default of {name} changed" for name in changed if _differ(old.default(name), new.default(name))),
        *(f"configuration {path} changed" for path in config),
        *widened,
    ]
    patch = [*(["prose changed"] if _texts(before) != _texts(after) else []), *output_prose]
    if before.content_hash != after.content_hash and not (major or minor or patch):
        patch.append(
            "numbers written differently"
            if _only_numbers_respelled(before, after)
            else "included prompts or declarations changed"
        )
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
        return bool(self.schema(name)) and _differ(self.schema(name), before.schema(name))

    def default(self, name: str) -> Any:
        return self._defaults.get(name)

    def facts(self, name: str) -> tuple[bool, str, str]:
        return (
            name in self.required,
            _canonical(self.schema(name)),
            _canonical(self.default(name)),
        )


def _without_prose(schema: Any) -> Any:
    """Return a schema without what only people read, at any depth, and in one order where order means nothing."""
    if isinstance(schema, list):
        return [_without_prose(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            kept[key] = {name: _without_prose(inner) for name, inner in value.items()}
        elif key in _SETS and isinstance(value, list):
            kept[key] = sorted(value, key=_canonical)
        elif key not in _PROSE:
            kept[key] = value if key in _PLAIN_JSON else _without_prose(value)
    return kept


def _without_schema(config: Json) -> Json:
    output = config.get("output")
    if not isinstance(output, Mapping) or not isinstance(output.get("schema"), Mapping):
        return config
    return {**config, "output": {key: value for key, value in output.items() if key != "schema"}}


def _changes(before: Json, after: Json, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the leaves that differ, by dotted path; a key that holds a dot is quoted in it."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*before, *after}):
        place = path + (json.dumps(key, ensure_ascii=False) if not key or {".", '"'} & set(key) else key)
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed.update(_changes(old, new, f"{place}."))
        elif _differ(old, new) or (key in before) != (key in after):
            changed[place] = (old, new)
    return changed


def _differ(before: Any, after: Any) -> bool:
    """Whether two values differ as JSON: 1 and true do, 1 and 1.0 are one number (RFC 8785, 3.2.2.3)."""
    return _canonical(before) != _canonical(after)


def _canonical(value: Any) -> str:
    return json.dumps(_with_plain_numbers(value), sort_keys=True)


def _with_plain_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_plain_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _only_numbers_respelled(before: PromptVersion, after: PromptVersion) -> bool:
    """Whether nothing but the writing of a number tells the contents apart, such as 1 and 1.0."""
    old, new = (
        {"defaults": v.defaults, "validation": v.validation, "config": v.config} for v in (before, after)
    )
    return json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True) and not _differ(old, new)


def _output_reasons(before: Json | None, after: Json | None) -> tuple[list[str], list[str], list[str]]:
    """Return what of the output schema asks for a major, a minor and a patch step."""
    if before is None:
        return [], [] if after is None else ["output schema added"], []
    if after is None:
        return ["output schema removed"], [], []
    if not _differ(before, after):
        return [], [], []
    old, new = _without_prose(before), _without_prose(after)
    if not _differ(old, new):
        return [], [], ["wording of the output schema changed"]
    narrowed = _narrowings(old, new, "output")
    return narrowed, [] if narrowed else ["output schema widened"], []


def _narrowings(before: Json, after: Json, place: str) -> list[str]:
    """Return in what way readers of the old output could be disappointed by the new one; both without prose.

    Properties, items and enumerations are looked into; whatever else cannot be told apart from a narrowing
    counts as one, and so does every change of what is required.
    """
    found = []
    if _differ(before.get("type"), after.get("type")):
        found.append(f"{place}: type changed from {before.get('type')} to {after.get('type')}")
    if "enum" in after and ("enum" not in before or _lost(before["enum"], after["enum"])):
        found.append(f"{place}: fewer values allowed")
    looked_into = {"type", "enum", "items"}
    old, new = before.get("properties", {}), after.get("properties", {})
    gone: set[str] = set()
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        looked_into.add("properties")
        gone = set(old) - set(new)
        found += [f"{place}.{name}: property removed" for name in sorted(gone)]
        for name in sorted(set(old) & set(new)):
            found += _changed_part(old[name], new[name], f"{place}.{name}")
    was_required, is_required = _texts_in(before.get("required", [])), _texts_in(after.get("required", []))
    if was_required is not None and is_required is not None:
        looked_into.add("required")
        missing = was_required - is_required - gone
        found += [f"{place}.{name}: no longer always there" for name in sorted(missing)]
        found += [f"{place}.{name}: newly required" for name in sorted(is_required - was_required)]
    found += _changed_part(before.get("items"), after.get("items"), f"{place}[]")
    found.extend(
        f"{place}: {key} changed"
        for key in sorted({*before, *after} - looked_into)
        if _differ(before.get(key), after.get(key)) or (key in before) != (key in after)
    )
    return found


def _changed_part(before: Any, after: Any, place: str) -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return _narrowings(before, after, place)
    return [f"{place}: schema changed"] if _differ(before, after) else []


def _lost(before: Any, after: Any) -> set[str]:
    """Return the values of an enumeration that are gone. An output schema is any JSON: it may be no list."""
    if not isinstance(before, list) or not isinstance(after, list):
        return {_canonical(before)} - {_canonical(after)}
    return {_canonical(value) for value in before} - {_canonical(value) for value in after}


def _texts_in(value: Any) -> set[str] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return set(value)


def _template_diff(before: PromptVersion, after: PromptVersion) -> str:
    old, new = _texts(before), _texts(after)
    # where both sides end alike, the usual text without a final line break is not worth a remark
    as_git = [_is_ended(text) for _, text in old] != [_is_ended(text) for _, text in new]
    return "".join(
        line if line.endswith("\n") else f"{line}\n{_NOT_ENDED}"
        for line in difflib.unified_diff(
            _lines(old, as_git=as_git),
            _lines(new, as_git=as_git),
            fromfile=before.label,
            tofile=after.label,
            lineterm="\n",
        )
    )


def _texts(version: PromptVersion) -> list[tuple[str, str]]:
    """Return (role, text) of each message; a text prompt is one without a role."""
    return [(message.role, message.content) for message in version.messages] or [("", version.template)]


def _is_ended(text: str) -> bool:
    return not text or text.endswith("\n")


def _lines(texts: list[tuple[str, str]], *, as_git: bool) -> list[str]:
    lines: list[str] = []
    for role, text in texts:
        if role:
            lines.append(f"[{role}]\n")
        # only \n ends a line here, so that a change of any other line break is seen
        lines.extend(f"{line}\n" for line in text.split("\n")[:-1])
        if not _is_ended(text):
            lines.append(text.rpartition("\n")[2] + ("" if as_git else "\n"))
    return lines
