"""Cases as people write them: what is read, what is refused and where, and what an answer has to be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab import Case, Expectation, FileSystemPromptLibrary, InvalidInputError, PromptFileError
from promptab.cases import case_document, check_cases, digest_of, unmet
from promptab.cases.case import MAX_CASES, MAX_PATTERN_CHARS

WHOLE: dict[str, Any] = {
    "name": "late parcel",
    "variables": {"customer": "Ada", "orders": [{"id": 7}]},
    "messages": [{"role": "user", "content": "Where is my parcel?"}],
    "expect": {
        "contains": ["Ada", "parcel"],
        "not_contains": "sorry",
        "starts_with": "Dear",
        "ends_with": "shop",
        "equals": "Dear Ada",
        "ignore_case": True,
        "regex": r"(?i)\bparcel\b",
        "json_schema": {"type": "object", "required": ["answer"]},
        "python": "shop.checks:polite",
    },
}


def expecting(**expected: Any) -> Expectation:
    (case,) = check_cases("tests", [{"expect": expected}])
    return case.expect


def test_a_case_is_read_whole_and_written_as_it_was() -> None:
    (case,) = check_cases("tests", [WHOLE])
    assert case.expect.contains == ("Ada", "parcel")
    assert case.expect.not_contains == ("sorry",)
    assert case_document(case) == WHOLE
    assert check_cases("tests", [case_document(case)]) == (case,)
    assert check_cases("tests", [case]) == (case,)


def test_cases_without_a_name_are_called_by_their_place() -> None:
    cases = check_cases("tests", [{}, {"name": "b"}, {"name": None}])
    assert [case.name for case in cases] == ["case 1", "b", "case 3"]
    assert case_document(cases[0]) == {"name": "case 1"}


def test_the_digest_tells_inputs_and_expectations_apart_and_not_names() -> None:
    (case,) = check_cases("tests", [WHOLE])
    others = [
        case.model_copy(update={"variables": {"customer": "Bo"}}),
        case.model_copy(update={"messages": ()}),
        case.model_copy(update={"expect": expecting(contains="Ada")}),
    ]
    assert len({digest_of(each) for each in [case, *others]}) == 4
    assert digest_of(case.model_copy(update={"name": "other"})) == digest_of(case)
    # stored results are found by it, so it must not change from release to release
    assert digest_of(Case(name="x")) == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("late", "tests"),
        ([3], "tests[0]"),
        ([{"input": {}}], "tests[0].input"),
        ([{"name": " late"}], "tests[0].name"),
        ([{}, {"name": "case 1"}], "tests[1].name"),
        ([{"variables": ["Ada"]}], "tests[0].variables"),
        ([{"variables": {"n": float("nan")}}], "tests[0].variables.n"),
        ([{"messages": "Hello"}], "tests[0].messages"),
        ([{"messages": [{"role": "owner", "content": "Hi"}]}], "tests[0].messages[0].role"),
        ([{"messages": [{"role": "user"}]}], "tests[0].messages[0].content"),
        ([{"expect": "Ada"}], "tests[0].expect"),
        ([{"expect": {"contain": "Ada"}}], "tests[0].expect.contain"),
        ([{"expect": {"contains": ["Ada", 3]}}], "tests[0].expect.contains[1]"),
        ([{"expect": {"not_contains": [""]}}], "tests[0].expect.not_contains[0]"),
        ([{"expect": {"regex": ["a", "("]}}], "tests[0].expect.regex[1]"),
        ([{"expect": {"regex": "a" * (MAX_PATTERN_CHARS + 1)}}], "tests[0].expect.regex[0]"),
        ([{"expect": {"json_schema": {"type": "text"}}}], "tests[0].expect.json_schema.type"),
        ([{"expect": {"json_schema": {"$ref": "https://x.org/s"}}}], "tests[0].expect.json_schema.$ref"),
        ([{"expect": {"python": "os.system('x')"}}], "tests[0].expect.python[0]"),
        ([{"expect": {"ignore_case": "yes"}}], "tests[0].expect.ignore_case"),
        ([{}] * (MAX_CASES + 1), "tests"),
        ([{"name": str(n), "expect": {"regex": ["[a-z]" * 199] * 5}} for n in range(5)], "tests"),
        ([{"name": str(n), "variables": {"a": "x" * 90_000}} for n in range(12)], "tests"),
    ],
)
def test_what_is_no_case_is_refused_by_the_path_of_the_part(wrong: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_cases("tests", wrong)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("expected", "answer", "found"),
    [
        ({}, "", []),
        ({"contains": "Ada"}, "Dear Ada!", []),
        ({"contains": "Ada"}, "Dear ada!", ["does not contain 'Ada'"]),
        ({"contains": "STRASSE", "ignore_case": True}, "Straße", []),
        ({"not_contains": ["sorry", "no"]}, "I am sorry.", ["contains 'sorry'"]),
        ({"not_contains": "Sorry", "ignore_case": True}, "I am sorry.", ["contains 'Sorry'"]),
        ({"starts_with": "Dear", "ends_with": "shop"}, " Dear Ada, your shop\n", []),
        ({"starts_with": "Dear"}, "My dear", ["does not start with 'Dear'"]),
        ({"ends_with": "shop"}, "shop.", ["does not end with 'shop'"]),
        ({"equals": "42"}, " 42\n", []),
        ({"equals": "yes", "ignore_case": True}, "Yes", ["is not 'yes'"]),
        ({"json_schema": {"type": "integer"}}, " 42 ", []),
        ({"json_schema": {"type": "integer"}}, "It is 42.", ["is no JSON (Expecting value: line 1 column 1 (char 0))"]),
        (
            {"json_schema": {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"minimum": 3}}}},
            '{"a": 2}',
            ["is not as the JSON schema says: a: 2 is not at least 3"],
        ),
        ({"json_schema": {"items": {"enum": ["x"]}}}, '["x", "y"]', None),
        ({"contains": ["a", "b"], "equals": "c"}, "d", None),
    ],
)  # fmt: skip
def test_each_part_that_does_not_hold_is_told(
    expected: dict[str, Any], answer: str, found: list[str] | None
) -> None:
    said = unmet(expecting(**expected), answer)
    if found is None:
        assert len(said) == sum(len(value) if isinstance(value, list) else 1 for value in expected.values())
    else:
        assert said == found


@given(st.text(max_size=40), st.text(min_size=1, max_size=5))
def test_an_answer_either_contains_a_text_or_does_not(answer: str, text: str) -> None:
    expected = [Expectation(contains=(text,)), Expectation(not_contains=(text,))]
    assert sorted(len(unmet(each, answer)) for each in expected) == [0, 1]


@pytest.mark.parametrize("hostile", ["[" * 100_000 + "]" * 100_000, '{"a":' * 50_000, "9" * 10_000, "\ud800"])
def test_an_answer_that_is_hostile_json_does_not_meet_a_schema(hostile: str) -> None:
    (said,) = unmet(expecting(json_schema={"type": "object"}), hostile)
    assert said.startswith("is n")
    assert len(said) < 500


def test_a_schema_that_costs_too_much_does_not_hold() -> None:
    expected = expecting(json_schema={"type": "string", "pattern": "a?" * 40 + "b"})
    (said,) = unmet(expected, '"' + "a" * 40 + '"')
    assert "more than 200000 steps" in said


FILE = """\
---
model: gpt-4.1-mini
tests:
  - name: late parcel
    variables: {customer: Ada}
    expect:
      contains: Ada
  - variables:
      customer: Bo
    expect: {regex: "[0-9]+"}
---
Help {{ customer }}.
"""


def write(folder: Path, text: str, path: str = "system/reply.md") -> FileSystemPromptLibrary:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return FileSystemPromptLibrary(folder)


def test_a_file_declares_cases_beside_its_content(tmp_path: Path) -> None:
    source = write(tmp_path, FILE).get("reply", "system")
    assert source is not None
    assert source.tests is not None
    assert [case.name for case in source.tests] == ["late parcel", "case 2"]
    assert source.config == {"model": "gpt-4.1-mini"}
    assert source.metadata == {}


def test_a_file_that_does_not_speak_of_cases_is_told_from_one_that_has_none(tmp_path: Path) -> None:
    library = write(tmp_path, "Help {{ customer }}.")
    write(tmp_path, "---\ntests: []\n---\nHelp.", "system/other.md")
    said = [library.get(name, "system") for name in ("reply", "other")]
    assert [source.tests for source in said if source] == [None, ()]


@pytest.mark.parametrize("path", ["system/reply.md", "system/reply.yaml", "system/reply.json"])
def test_cases_are_written_so_that_they_read_back(tmp_path: Path, path: str) -> None:
    source = write(tmp_path / "a", FILE).get("reply", "system")
    assert source is not None
    source = source.model_copy(update={"tests": check_cases("tests", [WHOLE, {"name": "b"}])})
    library = write(tmp_path / "b", "{}" if path.endswith("json") else "template: x", path)
    written = library.write(source)
    assert written.name == Path(path).name
    back = library.get("reply", "system")
    assert back is not None
    assert back.fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('"[0-9]+"', '"[0-9"', 10, "regular expression"),
        ("contains: Ada", "contain: Ada", 7, "one of contains"),
        ("customer: Bo", "customer: .nan", 9, "not a finite number"),
        ("name: late parcel", "name: case 2", 8, "no other case has"),
        ("  - variables:\n", "  - 3\n  - variables:\n", 8, "a mapping"),
        ("tests:\n", "tests: late\nx:\n", 4, "unknown key 'x'"),
    ],
)
def test_a_file_with_a_wrong_case_is_refused_at_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    library = write(tmp_path, FILE.replace(old, new))
    with pytest.raises(PromptFileError, match=said) as refused:
        library.get("reply", "system")
    assert refused.value.line == line


def test_a_configuration_has_no_cases(tmp_path: Path) -> None:
    library = write(tmp_path, "config: {top_k: 3}\ntests: []\n", "config/rag.yaml")
    with pytest.raises(PromptFileError, match="unknown key 'tests'"):
        library.get("rag", "config")
