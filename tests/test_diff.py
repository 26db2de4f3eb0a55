"""What changed between two versions, part by part, and the step that it is graded as."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from promptab import Lab, PromptVersion, UnderstatedVersionWarning, VersionDiff, VersionManager


@pytest.fixture
def store_url() -> str:
    return "sqlite:///:memory:"


async def pair(
    versions: VersionManager, before: dict[str, Any], after: dict[str, Any], prompt_type: str = "system"
) -> tuple[PromptVersion, PromptVersion]:
    """Create 1.0.0, and then the version that the graded change makes of it."""
    template = None if prompt_type in {"model", "config"} else "Hello."
    first = await versions.create_version("p", prompt_type, **{"template": template, **before})
    second = await versions.create_version("p", prompt_type, **{"template": template, **after}, bump="auto")
    return first, second


async def diffed(
    versions: VersionManager, before: dict[str, Any], after: dict[str, Any], prompt_type: str = "system"
) -> VersionDiff:
    first, second = await pair(versions, before, after, prompt_type)
    return await versions.diff(first, second.version_id)


def declared(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def output(**schema: Any) -> dict[str, Any]:
    return {"output": {"schema": {"type": "object", **schema}}}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}

GRADES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "prose": ({"template": "Hello."}, {"template": "Hi."}, "patch"),
    "white space": ({"template": "Hello."}, {"template": "Hello. "}, "patch"),
    "required variable added": ({"template": "Hello."}, {"template": "Hello {{ name }}."}, "major"),
    "required variable removed": ({"template": "Hello {{ name }}."}, {"template": "Hello."}, "major"),
    "required variable renamed": ({"template": "{{ name }}"}, {"template": "{{ nom }}"}, "major"),
    "required variable retyped": (
        {"template": "{{ a }}", "validation": {**declared(a=TEXT), "required": ["a"]}},
        {"template": "{{ a }}", "validation": {**declared(a=NUMBER), "required": ["a"]}},
        "major",
    ),
    "optional variable becomes required": (
        {"template": "{{ a }}", "defaults": {"a": 1}},
        {"template": "{{ a }}"},
        "major",
    ),
    "required variable becomes optional": (
        {"template": "{{ a }}"},
        {"template": "{{ a }}", "defaults": {"a": 1}},
        "minor",
    ),
    "optional variable added": ({}, {"template": "Hello{{ a }}.", "defaults": {"a": 1}}, "minor"),
    "optional variable by default filter": ({}, {"template": "{{ a | default('x') }}"}, "minor"),
    "optional variable removed": ({"template": "Hello{{ a }}.", "defaults": {"a": 1}}, {}, "minor"),
    "optional variable retyped": (
        {"validation": declared(a=TEXT)},
        {"validation": declared(a=NUMBER)},
        "minor",
    ),
    "default changed": (
        {"template": "{{ a }}", "defaults": {"a": 1}},
        {"template": "{{ a }}", "defaults": {"a": 2}},
        "minor",
    ),
    "description of a variable": (
        {"validation": declared(a={**TEXT, "description": "old"})},
        {"validation": declared(a={**TEXT, "description": "new"})},
        "patch",
    ),
    "model changed": ({"config": {"model": "m-1"}}, {"config": {"model": "m-2"}}, "minor"),
    "parameter added": ({"config": {}}, {"config": {"parameters": {"temperature": 0.2}}}, "minor"),
    "output property removed": (
        {"config": output(properties={"a": TEXT, "b": TEXT})},
        {"config": output(properties={"a": TEXT})},
        "major",
    ),
    "output property added": (
        {"config": output(properties={"a": TEXT})},
        {"config": output(properties={"a": TEXT, "b": TEXT})},
        "minor",
    ),
    "output property retyped": (
        {"config": output(properties={"a": TEXT})},
        {"config": output(properties={"a": NUMBER})},
        "major",
    ),
    "output no longer always there": (
        {"config": output(properties={"a": TEXT}, required=["a"])},
        {"config": output(properties={"a": TEXT})},
        "major",
    ),
    "output value gone": (
        {"config": output(properties={"a": {"enum": ["x", "y"]}})},
        {"config": output(properties={"a": {"enum": ["x"]}})},
        "major",
    ),
    "output value new": (
        {"config": output(properties={"a": {"enum": ["x"]}})},
        {"config": output(properties={"a": {"enum": ["x", "y"]}})},
        "minor",
    ),
    "output item retyped": (
        {"config": output(properties={"a": {"type": "array", "items": TEXT}})},
        {"config": output(properties={"a": {"type": "array", "items": NUMBER}})},
        "major",
    ),
    "output schema removed": ({"config": output()}, {}, "major"),
    "output schema new": ({}, {"config": output(properties={"a": TEXT})}, "minor"),
    "prose of the output schema": (
        {"config": output(description="old")},
        {"config": output(description="new")},
        "patch",
    ),
    "prose deep in the output schema": (
        {"config": output(properties={"a": {**TEXT, "title": "old", "examples": ["x"]}})},
        {"config": output(properties={"a": {**TEXT, "title": "new"}})},
        "patch",
    ),
    "prose in one of several output schemas": (
        {"config": output(anyOf=[{"description": "old"}])},
        {"config": output(anyOf=[{"description": "new"}])},
        "patch",
    ),
    "output property called title removed": (
        {"config": output(properties={"title": TEXT, "a": TEXT})},
        {"config": output(properties={"a": TEXT})},
        "major",
    ),
    "order of what the output requires": (
        {"config": output(properties={"a": TEXT, "b": TEXT}, required=["a", "b"])},
        {"config": output(properties={"a": TEXT, "b": TEXT}, required=["b", "a"])},
        "patch",
    ),
    "output newly required": (
        {"config": output(properties={"a": TEXT})},
        {"config": output(properties={"a": TEXT}, required=["a"])},
        "major",
    ),
    "output items no longer described": (
        {"config": output(properties={"a": {"type": "array", "items": TEXT}})},
        {"config": output(properties={"a": {"type": "array"}})},
        "major",
    ),
    "output value true where it was 1": (
        {"config": output(properties={"a": {"enum": [1]}})},
        {"config": output(properties={"a": {"enum": [True]}})},
        "major",
    ),
    "output schema that is malformed": (
        {"config": output(properties=5, required="a")},
        {"config": output(properties=[{}], required=[{}])},
        "major",
    ),
    "output schema that is no object": (
        {"config": {"output": {"schema": True}}},
        {"config": {"output": {"schema": False}}},
        "minor",
    ),
    "an empty output schema added": (
        {"config": {"output": {"format": "json"}}},
        {"config": {"output": {"format": "json", "schema": {}}}},
        "minor",
    ),
    "true where it was 1": ({"config": {"a": 1}}, {"config": {"a": True}}, "minor"),
    "true where it was 1 in a list": ({"config": {"a": [1]}}, {"config": {"a": [True]}}, "minor"),
    "default true where it was 1": (
        {"template": "{{ a }}", "defaults": {"a": 1}},
        {"template": "{{ a }}", "defaults": {"a": True}},
        "minor",
    ),
    "a number written differently": ({"config": {"a": [1]}}, {"config": {"a": [1.0]}}, "patch"),
    "description deep in a required variable": (
        {"template": "{{ a }}", "validation": declared(a={"properties": {"b": {"description": "old"}}})},
        {"template": "{{ a }}", "validation": declared(a={"properties": {"b": {"description": "new"}}})},
        "patch",
    ),
    "final line break gone": ({"template": "Hello.\n"}, {"template": "Hello."}, "patch"),
    "the weightiest of several": (
        {"template": "Hello {{ name }}.", "config": {"model": "m-1"}},
        {"template": "Hi.", "config": {"model": "m-2"}},
        "major",
    ),
}
STEPS = {"patch": "1.0.1", "minor": "1.1.0", "major": "2.0.0"}


@pytest.mark.parametrize(("before", "after", "grade"), GRADES.values(), ids=GRADES.keys())
async def test_a_change_is_graded_and_auto_takes_that_step(
    versions: VersionManager, before: dict[str, Any], after: dict[str, Any], grade: str
) -> None:
    first, second = await pair(versions, before, after)
    diff = await versions.diff(first, second)
    assert (diff.grade, diff.reasons != (), diff.empty) == (grade, True, False)
    assert second.version == STEPS[grade]


async def test_the_same_content_has_an_empty_diff_and_auto_takes_a_patch(versions: VersionManager) -> None:
    first, second = await pair(versions, {"metadata": {"a": 1}}, {"metadata": {"a": 2}})
    diff = await versions.diff(first, second)
    assert diff == VersionDiff(before="1.0.0", after="1.0.1")
    assert diff.empty


@pytest.mark.parametrize("prompt_type", ["model", "config"])
async def test_a_model_or_configuration_that_changes_is_a_minor_step(
    versions: VersionManager, prompt_type: str
) -> None:
    diff = await diffed(versions, {"config": {"k": 1}}, {"config": {"k": 2}}, prompt_type)
    assert (diff.grade, diff.config) == ("minor", {"k": (1, 2)})


async def test_diff_shows_each_part(versions: VersionManager) -> None:
    diff = await diffed(
        versions,
        {
            "template": "Dear {{ name }},\n{{ body }}\n",
            "defaults": {"body": "x"},
            "config": {"model": "m-1", "parameters": {"t": 0.1, "n": 1}, **output(properties={"a": TEXT})},
        },
        {
            "template": "Hello {{ nick }},\n{{ body }}\n",
            "defaults": {"body": "y"},
            "config": {"model": "m-1", "parameters": {"t": 0.2}, **output(properties={"a": NUMBER})},
        },
    )
    assert (diff.before, diff.after) == ("1.0.0", "2.0.0")
    assert diff.template.splitlines() == [
        "--- system/p@1.0.0",
        "+++ system/p@2.0.0",
        "@@ -1,2 +1,2 @@",
        "-Dear {{ name }},",
        "+Hello {{ nick }},",
        " {{ body }}",
    ]
    assert diff.variables_added == ("nick",)
    assert diff.variables_removed == ("name",)
    assert diff.variables_changed == ("body",)
    assert diff.config == {"parameters.t": (0.1, 0.2), "parameters.n": (1, None)}
    assert diff.output_schema == {"properties.a.type": ("string", "number")}
    assert diff.reasons[:2] == ("required variable nick added", "required variable name removed")


async def test_diff_of_a_chat_prompt_goes_message_by_message(versions: VersionManager) -> None:
    diff = await diffed(
        versions,
        {"template": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]},
        {"template": [{"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "Hi."}]},
        "message",
    )
    assert diff.grade == "patch"
    assert "-[user]\n" in diff.template
    assert "+[assistant]\n" in diff.template


async def test_diff_goes_in_the_direction_that_is_asked_for(versions: VersionManager) -> None:
    first, second = await pair(versions, {"template": "{{ a }}"}, {"template": "{{ b }}"})
    back = await versions.diff(second.version_id, first.version_id)
    assert (back.before, back.after) == ("2.0.0", "1.0.0")
    assert (back.variables_added, back.variables_removed) == (("a",), ("b",))


async def test_an_include_that_moved_on_is_a_patch_and_what_it_asks_for_counts(lab: Lab) -> None:
    text = '{% include "system/tone" %} Hello.'
    await lab.versions.create_version("tone", "system", "Be kind.")
    first = await lab.versions.create_version("p", "system", text)
    await lab.versions.create_version("tone", "system", "Be very kind.")
    second = await lab.versions.create_version("p", "system", text, bump="auto")
    await lab.versions.create_version("tone", "system", "Be as kind as {{ hero }}.")
    third = await lab.versions.create_version("p", "system", text, bump="auto")
    assert [version.version for version in (first, second, third)] == ["1.0.0", "1.0.1", "2.0.0"]
    assert (await lab.versions.diff(second, third)).variables_added == ("hero",)


@pytest.mark.parametrize(
    ("number", "after", "warned"),
    [
        ("1.0.1", "Hello {{ name }}.", True),
        ("1.1.0", "Hello {{ name }}.", True),
        ("2.0.0", "Hello {{ name }}.", False),
        ("1.0.1", "Hi.", False),
        ("3.0.0", "Hi.", False),
        ("0.9.0", "Hello {{ name }}.", False),
        ("1.0.1-rc.1", "Hello {{ name }}.", True),
    ],
)
async def test_only_a_number_that_promises_too_little_is_warned_of(
    versions: VersionManager, number: str, after: str, *, warned: bool
) -> None:
    await versions.create_version("p", "system", "Hello.", "1.0.0")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        created = await versions.create_version("p", "system", after, number)
    assert created.version == number
    assert [warning.category for warning in seen] == [UnderstatedVersionWarning] * warned
    assert all(warning.filename == __file__ for warning in seen)


async def test_a_pre_release_and_its_release_promise_what_its_first_one_did(versions: VersionManager) -> None:
    await versions.create_version("p", "system", "Hello.", "1.0.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in ("2.0.0-rc.1", "2.0.0-rc.2", "2.0.0"):
            variable = number.replace(".", "_").replace("-", "_")
            await versions.create_version("p", "system", f"Hello {{{{ v{variable} }}}}.", number)


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        ({"a": TEXT}, {"a": {**TEXT, "title": "A"}}, ("wording of the output schema changed",)),
        ({"a": TEXT}, {"a": TEXT, "b": TEXT}, ("output schema widened",)),
        ({"a": TEXT, "b": TEXT}, {"a": TEXT}, ("output.b: property removed",)),
        ({"a": TEXT}, {"a": True}, ("output.a: schema changed",)),
    ],
)
async def test_a_change_of_the_output_schema_says_which_kind_it_is(
    versions: VersionManager, before: dict[str, Any], after: dict[str, Any], reasons: tuple[str, ...]
) -> None:
    diff = await diffed(versions, {"config": output(properties=before)}, {"config": output(properties=after)})
    assert diff.reasons == reasons


async def test_an_output_schema_is_widened_only_where_there_was_one(versions: VersionManager) -> None:
    new = await diffed(versions, {}, {"config": output(properties={"a": TEXT})})
    assert "output schema added" in new.reasons
    assert "output schema widened" not in new.reasons


async def test_a_number_that_is_only_written_differently_has_a_reason(versions: VersionManager) -> None:
    diff = await diffed(versions, {"config": {"t": 1}}, {"config": {"t": 1.0}}, "model")
    assert (diff.config, diff.reasons) == ({}, ("numbers written differently",))


async def test_a_key_that_holds_a_dot_is_quoted_in_its_path(versions: VersionManager) -> None:
    diff = await diffed(
        versions,
        {"config": {"a.b": 1, "a": {"b": 1}, "": 1, '"a': {"b": 1}}},
        {"config": {"a.b": 2, "a": {"b": 3}, "": 4, '"a': {"b": 5}}},
        "config",
    )
    assert diff.config == {'"a.b"': (1, 2), "a.b": (1, 3), '""': (1, 4), '"\\"a".b': (1, 5)}


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("Hello.", "Hello.\n", ["-Hello.", "\\ No newline at end of file", "+Hello."]),
        ("Hello.\n", "Hello.", ["-Hello.", "+Hello.", "\\ No newline at end of file"]),
        ("Hello.", "Hi.", ["-Hello.", "+Hi."]),
        ("a\rb", "a\r\nb", ["-a\rb", "+a\r", "+b"]),
    ],
)
async def test_a_line_break_that_came_or_went_is_seen(
    versions: VersionManager, before: str, after: str, lines: list[str]
) -> None:
    diff = await diffed(versions, {"template": before}, {"template": after})
    assert diff.template.removesuffix("\n").split("\n")[3:] == lines
    assert diff.reasons == ("prose changed",)


async def test_a_final_line_break_of_one_message_is_seen(versions: VersionManager) -> None:
    def chat(first: str) -> dict[str, Any]:
        return {"template": [{"role": "system", "content": first}, {"role": "user", "content": "Hi."}]}

    diff = await diffed(versions, chat("Be kind."), chat("Be kind.\n"), "message")
    assert "-Be kind.\n\\ No newline at end of file\n+Be kind.\n" in diff.template
    assert diff.reasons == ("prose changed",)
