"""`validation`: a JSON Schema (draft 2020-12) of a prompt's variables. Nothing is ever fetched, and checking
has a budget.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from promptab.checks import check_json_object
from promptab.errors import InvalidInputError, TemplateLimitError, VariableError

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_MAX_STEPS = 200_000
# A backtracking matcher may try every way to divide a text between the repeats of a pattern; a step stands
# for that many tries
_TRIES_PER_STEP = 100
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# Members of a schema that hold data, not schemas
_DATA = frozenset({"const", "enum", "default", "examples"})
_ONE_CHARACTER = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\d*\}")
_OPTIONAL = re.compile(r"(?<![*+?}(])\?")
_REPEATED_GROUP = re.compile(r"\)(?:[*+]|\{)")

_steps_left: ContextVar[int] = ContextVar("validation_steps_left")


def check_schema(validation: Mapping[str, Any] | type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of an object, checked.

    A pydantic model class gives its own schema. The older form `{"level": "error", "required_params": [...]}`
    becomes a schema that requires these. `InvalidInputError` names the part that is wrong, a `$ref` that
    leads out of the schema included.
    """
    if isinstance(validation, type) and issubclass(validation, BaseModel):
        validation = validation.model_json_schema()
    schema = check_json_object("validation", validation)
    if "required_params" in schema and "properties" not in schema:
        schema = _from_required_params(schema)
    if "2020-12" not in str(schema.get("$schema", "2020-12")):
        raise InvalidInputError("validation.$schema", schema["$schema"], "JSON Schema draft 2020-12")
    if schema.get("type", "object") != "object":
        raise InvalidInputError(
            "validation.type", schema["type"], '"object"', "a schema describes all variables together"
        )
    _check_parts(schema, schema, "validation")
    _check_form("validation", schema)
    return schema


def check_value_schema(field: str, schema: object) -> dict[str, Any]:
    """Return the JSON Schema of a value of any type, checked as `check_schema` does.

    `field` is its name in refusals.
    """
    checked = check_json_object(field, schema)
    if "2020-12" not in str(checked.get("$schema", "2020-12")):
        raise InvalidInputError(f"{field}.$schema", checked["$schema"], "JSON Schema draft 2020-12")
    _check_parts(checked, checked, field)
    _check_form(field, checked)
    return checked


def schema_violation(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return what the first part of a value is not that the (checked) schema says; None where all is as it says."""
    try:
        error = _first_error(_validator_of(schema), value)
    except (_TooManyStepsError, RecursionError):
        return f"checking it takes more than {_MAX_STEPS} steps, or never ends"
    if error is None:
        return None
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return f"{place.removeprefix('.') or 'it'}: {_short(error.instance)} is not {_expectation(error)}"


class Schema:
    """A checked schema, ready to be applied to the variables of many renders."""

    __slots__ = ("_name", "_validator", "defaults", "open", "properties", "required")

    def __init__(self, schema: Mapping[str, Any], name: str) -> None:
        self._name = name
        properties = schema.get("properties", {})
        self.properties = frozenset(properties)
        self.required = frozenset(schema.get("required", ()))
        self.open = schema.get("additionalProperties") is True
        """Whether variables that nobody declared are welcome."""
        self.defaults = {
            name: declared["default"]
            for name, declared in properties.items()
            if isinstance(declared, Mapping) and "default" in declared
        }
        self._validator = _validator_of(schema)

    def check(self, variables: Mapping[str, Any]) -> None:
        """Raise `VariableError` for the first variable that is not as declared."""
        try:
            error = _first_error(self._validator, dict(variables))
        except _TooManyStepsError:
            raise TemplateLimitError(
                f"checking the variables takes more than {_MAX_STEPS} steps", template=self._name
            ) from None
        except RecursionError as error:
            raise TemplateLimitError(
                "the validation refers to itself without end", template=self._name
            ) from error
        if error is not None:
            raise _variable_error(error)


class _TooManyStepsError(Exception):
    pass


def _first_error(validator: Validator, value: Any) -> ValidationError | None:
    token = _steps_left.set(_MAX_STEPS)
    try:
        return next(validator.iter_errors(value), None)
    finally:
        _steps_left.reset(token)


def _from_required_params(validation: Mapping[str, Any]) -> dict[str, Any]:
    required, level = validation["required_params"], validation.get("level", "error")
    if level != "error":
        raise InvalidInputError(
            "validation.level",
            level,
            '"error"',
            "write a JSON Schema without `required` for optional variables",
        )
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise InvalidInputError("validation.required_params", required, "a list of variable names")
    unknown = sorted(validation.keys() - {"level", "required_params"})
    if unknown:
        raise InvalidInputError(
            "validation", unknown[0], "`level` or `required_params`", "write a JSON Schema"
        )
    return {
        "type": "object",
        "properties": {name: {} for name in required},
        "required": list(dict.fromkeys(required)),
    }


def _check_parts(part: Any, root: Mapping[str, Any], field: str) -> None:
    """Walk over a schema, data in it left out."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            _check_parts(item, root, f"{field}[{index}]")
    elif isinstance(part, Mapping):
        for key, item in part.items():
            _check_keyword(key, item, root, f"{field}.{key}", outermost=part is root)
            if key not in _DATA:
                _check_parts(item, root, f"{field}.{key}")


def _check_keyword(key: str, value: Any, root: Mapping[str, Any], field: str, *, outermost: bool) -> None:
    if key in _REFERENCES and isinstance(value, str) and not _leads_inside(value, root):
        raise InvalidInputError(field, value, "a reference to a part of this schema, such as #/$defs/name")
    if key == "$schema" and isinstance(value, str) and not outermost:
        raise InvalidInputError(field, value, "left out", "only the whole schema names its draft")
    if key == "$id" and isinstance(value, str):
        raise InvalidInputError(field, value, "left out", "a schema here has no address of its own")
    if key == "pattern" and isinstance(value, str):
        _check_pattern(field, value)
    if key == "patternProperties" and isinstance(value, Mapping):
        for pattern in value:
            _check_pattern(field, pattern)


def _leads_inside(reference: str, root: Mapping[str, Any]) -> bool:
    if reference == "#":
        return True
    if not reference.startswith("#/"):
        return False
    part: Any = root
    for step in reference[2:].split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping) and key in part:
            part = part[key]
        elif isinstance(part, list) and key.isdecimal() and len(key) < 6 and int(key) < len(part):
            part = part[int(key)]
        else:
            return False
    return isinstance(part, Mapping | bool)


def _check_pattern(field: str, pattern: str) -> None:
    """Refuse the patterns whose matching can take time exponential in the length of the text: repeated
    groups.
    """
    if _REPEATED_GROUP.search(pattern) or re.search(r"\(\?[^:]|\\[1-9]", pattern):
        raise InvalidInputError(
            field, pattern, "a pattern without repeated groups, look-around and back references"
        )


def _check_form(field: str, schema: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415 - slow to import, and only some prompts declare a schema

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        raise InvalidInputError(
            f"{field}{place}", error.instance, f"valid JSON Schema ({_expectation(error)})"
        ) from error
    except RecursionError as error:
        raise InvalidInputError(field, "deep nesting", "a schema that nests less deeply") from error


def _validator_of(schema: Mapping[str, Any]) -> Validator:
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415 - as above
    from referencing import Registry  # noqa: PLC0415 - as above

    metered = {
        keyword: _metered(keyword, check) for keyword, check in Draft202012Validator.VALIDATORS.items()
    }
    extended = validators.extend(Draft202012Validator, metered)  # type: ignore[no-untyped-call]
    # jsonschema would change to its own, unmetered validator where a schema names its draft
    unnamed = {key: part for key, part in schema.items() if key != "$schema"}
    # a registry without a way to retrieve: what is not in the schema is not found
    validator: Validator = extended(unnamed, registry=Registry())
    return validator


def _metered(keyword: str, check: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    def metered(
        validator: Validator, value: Any, instance: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        left = _steps_left.get() - 1 - _extra_steps(keyword, value, instance)
        if left < 0:
            raise _TooManyStepsError
        _steps_left.set(left)
        yield from check(validator, value, instance, schema) or ()

    return metered


def _extra_steps(keyword: str, value: Any, instance: Any) -> int:
    match keyword, instance:
        case "pattern", str():
            return _match_steps(value, instance)
        case "patternProperties", dict():
            return sum(_match_steps(pattern, name) for pattern in value for name in instance)
        case "uniqueItems", list():
            return len(instance) ** 2 // 16
        case (("enum" | "const" | "propertyNames" | "required" | "dependentRequired"), _):
            return (len(value) if isinstance(value, list | dict) else 0) + (
                len(instance) if isinstance(instance, list | dict) else 0
            )
    return 0


def _match_steps(pattern: str, text: str) -> int:
    plain = _ONE_CHARACTER.sub("x", pattern)
    repeats = len(_UNBOUNDED.findall(plain))
    ways = (1 << len(_OPTIONAL.findall(plain))) * _alternatives(plain)
    # the search may begin anywhere as well
    return ways * math.comb(len(text) + repeats + 1, repeats + 1) // _TRIES_PER_STEP


def _alternatives(pattern: str) -> int:
    """Return in how many ways a pattern without sets and escapes can take one branch in each of its groups."""
    ways, branches = 1, [1]
    for letter in pattern:
        if letter == "|":
            branches[-1] += 1
        elif letter == "(":
            branches.append(1)
        elif letter == ")" and len(branches) > 1:
            ways *= branches.pop()
    return ways * math.prod(branches)


def _variable_error(error: ValidationError) -> VariableError:
    path = list(error.absolute_path)
    if not path and error.validator == "additionalProperties" and isinstance(error.schema, Mapping):
        given: Any = error.instance
        name = min(given.keys() - error.schema.get("properties", {}).keys())
        return VariableError(name, f"variable {name} is not declared in validation, which admits no others")
    if not path:
        return VariableError("variables", f"the variables are not as declared: {_expectation(error)}")
    name = str(path[0])
    shown = name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path[1:])
    return VariableError(name, f"variable {shown}: {_short(error.instance)} is not {_expectation(error)}")


_EXPECTATIONS = {
    "type": "of type {}",
    "enum": "one of {}",
    "const": "{}",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "a text of at least {} characters",
    "maxLength": "a text of at most {} characters",
    "pattern": "a text that matches {}",
    "minItems": "a list of at least {} items",
    "maxItems": "a list of at most {} items",
    "uniqueItems": "a list without repetitions",
    "required": "an object with the members {}",
    "additionalProperties": "an object without further members",
}


def _expectation(error: ValidationError | Any) -> str:
    known = _EXPECTATIONS.get(str(error.validator), f"what `{error.validator}` declares: {{}}")
    return known.format(_short(error.validator_value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({len(text)} characters)"
